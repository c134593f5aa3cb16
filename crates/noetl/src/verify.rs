//! Checks the promises of the engine over the logs of a store, while it goes on writing or at rest.
//!
//! What is checked stands in [`noetl_core::properties`]; this reads what it needs, family by family and log by log.

use std::collections::{BTreeMap, BTreeSet};

use noetl_core::event::Recorded;
use noetl_core::head::Head;
use noetl_core::id::ExecutionId;
use noetl_core::properties::{self, Member, Violation};
use noetl_core::trace;
use noetl_store::{EventQuery, ListQuery, Store, StoreError};

/// Heads read at once.
const PAGE_SIZE: u64 = 500;
/// Most problems that are kept.
const PROBLEMS_MAX: usize = 1000;
/// Most lines of a trace.
const TRACE_LINES_MAX: usize = 100_000;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every family of the store.
    Everything,
    /// One family.
    Family {
        /// Its top.
        root: ExecutionId,
        /// Its log too, one line per event.
        trace: bool,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Executions looked at.
    pub executions: u64,
    /// Events looked at.
    pub events: u64,
    /// What is broken.
    pub problems: Vec<Problem>,
    /// The log, one line per event.
    pub trace: Vec<String>,
}

/// A broken promise with the events that show it.
#[derive(Debug)]
pub struct Problem {
    /// Which, where and what.
    pub violation: Violation,
    /// One line each.
    pub events: Vec<String>,
}

/// Checks the promises over the logs of `store`.
pub async fn verify(store: &dyn Store, scope: Scope) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    match scope {
        Scope::Family { root, trace } => verified.family(store, root, trace).await?,
        Scope::Everything => {
            let mut before = None;
            loop {
                let page = ListQuery { before, limit: PAGE_SIZE, ..ListQuery::default() };
                let heads = store.executions(page).await?;
                let Some(last) = heads.last() else { break };
                before = Some(last.execution_id);
                for head in heads.iter().filter(|head| head.parent_execution_id.is_none()) {
                    verified.family(store, head.execution_id, false).await?;
                }
            }
        }
    }
    Ok(verified)
}

impl Verified {
    /// One member's log at a time; of a whole family only the heads are at hand at once.
    async fn family(&mut self, store: &dyn Store, root: ExecutionId, trace: bool) -> Result<(), StoreError> {
        let mut heads: BTreeMap<ExecutionId, Head> = BTreeMap::new();
        let mut log: Vec<Recorded> = Vec::new();
        let mut before = None;
        loop {
            let page = ListQuery { root: Some(root), before, limit: PAGE_SIZE, ..ListQuery::default() };
            let page = store.executions(page).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.execution_id);
            for head in page {
                let Some(member) = member(store, head.execution_id).await? else { continue };
                self.executions += 1;
                self.events += member.events.len() as u64;
                let mut found = properties::check(&member);
                if let Some(loaded) = store.load(head.execution_id).await? {
                    let snapshot = loaded.snapshot.as_ref().map(|(version, state)| (*version, &**state));
                    found.extend(properties::check_snapshot(&member, snapshot));
                }
                self.keep(found, &member.events);
                if trace {
                    let room = TRACE_LINES_MAX.saturating_sub(log.len());
                    log.extend(member.events.into_iter().take(room));
                }
                heads.insert(head.execution_id, member.head);
            }
        }
        let cascades = carried_through(store, heads.values()).await?;
        if !cascades.is_empty() {
            // Read before the cascade was through, they may have been reached since.
            let active: Vec<_> = heads.values().filter(|head| head.is_active()).map(|head| head.execution_id).collect();
            for id in active {
                heads.extend(store.head(id).await?.map(|head| (id, head)));
            }
        }
        let heads = heads.iter().map(|(id, head)| (*id, head)).collect();
        self.keep(properties::check_edges(&heads, &cascades), &[]);
        log.sort_by_key(|recorded| (recorded.at, recorded.event_id));
        self.trace.extend(log.iter().map(trace::line));
        Ok(())
    }

    fn keep(&mut self, found: Vec<Violation>, log: &[Recorded]) {
        let room = PROBLEMS_MAX.saturating_sub(self.problems.len());
        self.problems.extend(found.into_iter().take(room).map(|violation| {
            let shows = |recorded: &&Recorded| violation.versions.contains(&recorded.version);
            let events = log.iter().filter(shows).map(trace::line).collect();
            Problem { violation, events }
        }));
    }
}

/// Reads an execution as of one moment. The engine goes on writing, but a log up to a version never changes.
async fn member(store: &dyn Store, execution_id: ExecutionId) -> Result<Option<Member>, StoreError> {
    let Some(view) = store.view(execution_id).await? else { return Ok(None) };
    let query = EventQuery { execution_id: Some(execution_id), limit: u64::MAX, ..EventQuery::default() };
    let (mut events, _) = store.events(query).await?;
    events.retain(|recorded| recorded.version <= view.head.version);
    Ok(Some(Member { head: view.head, events, commands: view.commands }))
}

/// Returns the executions whose cascades have been carried through.
async fn carried_through(
    store: &dyn Store,
    heads: impl Iterator<Item = &Head>,
) -> Result<BTreeSet<ExecutionId>, StoreError> {
    let through = |head: &Head| {
        let cancel = head.cancel.as_ref().filter(|cancel| cancel.cascade)?;
        Some((head.execution_id, cancel.job_id))
    };
    let mut cascaded: Vec<_> = heads.filter_map(through).collect();
    if !cascaded.is_empty() {
        let open = store.open_cancellations().await?;
        cascaded.retain(|(_, job)| !open.iter().any(|one| Some(one.cancellation_id) == *job));
    }
    Ok(cascaded.into_iter().map(|(id, _)| id).collect())
}
