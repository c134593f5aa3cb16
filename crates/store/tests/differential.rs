//! Random histories: the stores in memory, in a file and in PostgreSQL give the same verdicts, and answer the same.
//!
//! A failing history is printed at its smallest; its seed stands in `proptest-regressions`, where it is tried first.

#![expect(clippy::unwrap_used, reason = "a suite of tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, Due, DueChange, DueKind, Guard, HeadChange, Verdict};
use noetl_core::concurrency::Admission;
use noetl_core::control::pause;
use noetl_core::event::Event;
use noetl_core::head::{CommandState, HeadView, Status};
use noetl_core::id::{CancellationId, CatalogId, CommandId, ExecutionId, IdSource, SessionId, made_at};
use noetl_core::log::{LogLine, LogStream};
use noetl_core::playbook::Shield;
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use noetl_store::catalog::{NewResource, ResourceKey};
use noetl_store::conformance::{ManualClock, Script};
use noetl_store::memory::MemoryStore;
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::sqlite::{SqliteOptions, SqliteStore};
use noetl_store::{EventQuery, ListQuery, LockedView, LogQuery, Pick, Store, StoreError};
use noetl_testkit::TestCluster;
use proptest::prelude::*;
use serde_json::json;

const START: Timestamp = Timestamp(1_768_900_080_123);
const POOLS: [&str; 2] = ["default", "gpu"];
const KEY: &str = "customer-7";

/// One thing that happens. Numbers pick among what is there at that time.
#[derive(Debug, Clone)]
enum Act {
    Birth { below: Option<usize>, shielded: bool },
    Enter { of: usize, stale: bool, with: Extra },
    Issue { of: usize, pool: usize, priority: i32 },
    Claim { command: usize, epoch: u32, session: i64 },
    Settle { command: usize, epoch: u32, twice: bool },
    Start { command: usize },
    Withdraw { command: usize, with_start: bool },
    Suspend { command: usize },
    Complete { of: usize },
    Fail { of: usize },
    Cancel { of: usize },
    Pause { of: usize, paused: bool },
    Keyed { limit: u32, displaces: Option<usize> },
    Lose { of: usize },
    Report { command: usize, epoch: u32 },
    Together { acts: Vec<(usize, bool)> },
    Forget { keep: usize },
    Advance { ms: u64 },
    Open { session: i64, worker: usize },
    Renew { session: i64 },
    Close { session: i64 },
    Cascade { of: usize },
    Chunk { cascade: usize, max: usize },
    Register { path: usize },
    Answer { key: usize },
    Print { of: usize, serial: i64 },
    Prune { ago_ms: u64 },
}

#[derive(Debug, Clone)]
enum Extra {
    Nothing,
    Due { kind: usize, key: i64, in_ms: u64 },
    Met { kind: usize, key: i64 },
    Snapshot,
    Child,
    TakenId,
}

fn extra() -> impl Strategy<Value = Extra> {
    prop_oneof![
        3 => Just(Extra::Nothing),
        2 => (0..DueKind::ALL.len(), 0..3i64, 0..2_000u64).prop_map(|(kind, key, in_ms)| Extra::Due { kind, key, in_ms }),
        1 => (0..DueKind::ALL.len(), 0..3i64).prop_map(|(kind, key)| Extra::Met { kind, key }),
        1 => Just(Extra::Snapshot),
        2 => Just(Extra::Child),
        1 => Just(Extra::TakenId),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let number = 0..64usize;
    let session = 1..4i64;
    prop_oneof![
        3 => (proptest::option::of(number.clone()), any::<bool>())
            .prop_map(|(below, shielded)| Act::Birth { below, shielded }),
        4 => (number.clone(), any::<bool>(), extra()).prop_map(|(of, stale, with)| Act::Enter { of, stale, with }),
        5 => (number.clone(), 0..2usize, -1..2i32).prop_map(|(of, pool, priority)| Act::Issue { of, pool, priority }),
        5 => (number.clone(), 1..3u32, session.clone())
            .prop_map(|(command, epoch, session)| Act::Claim { command, epoch, session }),
        3 => (number.clone(), 1..3u32, any::<bool>())
            .prop_map(|(command, epoch, twice)| Act::Settle { command, epoch, twice }),
        1 => number.clone().prop_map(|command| Act::Start { command }),
        1 => (number.clone(), any::<bool>()).prop_map(|(command, with_start)| Act::Withdraw { command, with_start }),
        1 => number.clone().prop_map(|command| Act::Suspend { command }),
        1 => number.clone().prop_map(|of| Act::Complete { of }),
        1 => number.clone().prop_map(|of| Act::Fail { of }),
        2 => number.clone().prop_map(|of| Act::Cancel { of }),
        2 => (number.clone(), any::<bool>()).prop_map(|(of, paused)| Act::Pause { of, paused }),
        2 => (1..3u32, proptest::option::of(number.clone()))
            .prop_map(|(limit, displaces)| Act::Keyed { limit, displaces }),
        2 => number.clone().prop_map(|of| Act::Lose { of }),
        2 => (number.clone(), 1..3u32).prop_map(|(command, epoch)| Act::Report { command, epoch }),
        2 => prop::collection::vec((number.clone(), any::<bool>()), 0..6).prop_map(|acts| Act::Together { acts }),
        1 => number.clone().prop_map(|keep| Act::Forget { keep }),
        2 => (0..1_500u64).prop_map(|ms| Act::Advance { ms }),
        1 => (session.clone(), 0..2usize).prop_map(|(session, worker)| Act::Open { session, worker }),
        1 => session.clone().prop_map(|session| Act::Renew { session }),
        1 => session.prop_map(|session| Act::Close { session }),
        1 => number.clone().prop_map(|of| Act::Cascade { of }),
        2 => (number.clone(), 1..4usize).prop_map(|(cascade, max)| Act::Chunk { cascade, max }),
        1 => (0..2usize).prop_map(|path| Act::Register { path }),
        1 => (0..3usize).prop_map(|key| Act::Answer { key }),
        // Few serials, so that some lines come twice.
        2 => (number.clone(), 0..24i64).prop_map(|(of, serial)| Act::Print { of, serial }),
        1 => (0..3_000u64).prop_map(|ago_ms| Act::Prune { ago_ms }),
    ]
}

/// The stores, and what has been made so far.
struct Stores {
    /// What every other one is compared with.
    memory: Arc<dyn Store>,
    others: Vec<(&'static str, Arc<dyn Store>)>,
    clock: ManualClock,
    script: Script,
    executions: Vec<ExecutionId>,
    commands: Vec<(ExecutionId, CommandId)>,
    cascades: Vec<CancellationId>,
}

/// What of an error a caller acts on: its kind.
fn kind<T>(result: Result<T, StoreError>) -> Result<T, &'static str> {
    result.map_err(|error| match error {
        StoreError::Full(_) => "full",
        StoreError::Corrupt(_) => "corrupt",
        StoreError::Closed(_) => "closed",
        StoreError::BadData(_) => "bad data",
        StoreError::Query(_) => "query",
        StoreError::Unavailable(_) => "unavailable",
    })
}

/// Asks all stores the same and returns the answer that all gave.
macro_rules! all {
    ($stores:expr, $store:ident => $ask:expr) => {{
        let $store = &$stores.memory;
        let memory = kind($ask.await);
        for (name, $store) in &$stores.others {
            let other = kind($ask.await);
            assert_eq!(memory, other, "{name}: {}", stringify!($ask));
        }
        memory
    }};
}

fn pick<T: Copy>(all: &[T], number: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[number % all.len()])
}

impl Stores {
    fn new(clock: ManualClock, others: Vec<(&'static str, Arc<dyn Store>)>) -> Self {
        Stores {
            memory: Arc::new(MemoryStore::new(clock.clock())),
            others,
            script: Script::new(&clock),
            clock,
            executions: vec![],
            commands: vec![],
            cascades: vec![],
        }
    }

    async fn append(&self, mut batch: Vec<Append>) {
        for append in &mut batch {
            for change in &mut append.commands {
                if let (CommandChange::Insert(row), Some(view)) = (change, self.view(append.execution_id).await) {
                    row.root_execution_id = view.head.root_execution_id;
                }
            }
        }
        let memory: Vec<_> = self.memory.append(batch.clone()).await.into_iter().map(kind).collect();
        for (name, store) in &self.others {
            let other: Vec<_> = store.append(batch.clone()).await.into_iter().map(kind).collect();
            assert_eq!(memory, other, "{name}: {batch:?}");
        }
    }

    async fn view(&self, id: ExecutionId) -> Option<HeadView> {
        all!(self, store => store.view(id)).unwrap()
    }

    /// Takes the same decision under the lock of each, with the same ids.
    async fn locked(
        &self,
        id: ExecutionId,
        decide: impl Fn(&Script, &LockedView) -> Option<Append> + Clone + Send + 'static,
    ) {
        let first = self.script.id();
        all!(self, store => {
            let (script, decide) = (Script::from_id(&self.clock, first), decide.clone());
            store.locked(id, Some(0), Box::new(move |locked| decide(&script, locked)))
        })
        .ok();
        for _ in 0..200 {
            self.script.id();
        }
    }

    async fn enter(&self, id: ExecutionId, stale: bool) -> Option<Append> {
        let head = self.view(id).await?.head;
        Some(self.script.enter(id, head.decided - u64::from(stale)))
    }

    async fn play(&mut self, act: Act) {
        let script = self.script.clone();
        match act {
            Act::Birth { below, shielded } => {
                let parent = match below.and_then(|n| pick(&self.executions, n)) {
                    Some(parent) => self.view(parent).await.map(|view| view.head),
                    None => None,
                };
                let birth = match &parent {
                    // Some are shielded, so that cascades walk round them.
                    Some(parent) if shielded => script.shielded_birth(parent, Shield::Wait),
                    parent => script.birth(parent.as_ref()),
                };
                self.executions.push(birth.execution_id);
                self.append(vec![birth]).await;
            }
            Act::Enter { of, stale, with } => {
                let Some(id) = pick(&self.executions, of) else { return };
                let Some(mut append) = self.enter(id, stale).await else { return };
                match with {
                    Extra::Nothing => {}
                    Extra::Due { kind, key, in_ms } => {
                        append.due.push(DueChange::Set(script.due(id, DueKind::ALL[kind], key, in_ms)));
                    }
                    Extra::Met { kind, key } => {
                        let kind = DueKind::ALL[kind];
                        append.due.push(DueChange::Clear { execution_id: id, kind, key });
                    }
                    Extra::Snapshot => append.snapshot = Some(Arc::new(json!({"n": append.events[0].event_id}))),
                    Extra::Child => {
                        let head = self.view(id).await.unwrap().head;
                        let child = script.birth(Some(&head));
                        self.executions.push(child.execution_id);
                        append.children.push(child);
                    }
                    Extra::TakenId => append.events[0].event_id.0 = 543_857_931_469_455_002,
                }
                self.append(vec![append]).await;
            }
            Act::Issue { of, pool, priority } => {
                let Some(id) = pick(&self.executions, of) else { return };
                let Some(mut append) = self.enter(id, false).await else { return };
                let command = script.add_command(&mut append, CommandState::Pending);
                if let Some(CommandChange::Insert(row)) = append.commands.last_mut() {
                    row.pool = POOLS[pool].into();
                    row.priority = priority;
                }
                self.commands.push((id, command));
                self.append(vec![append]).await;
            }
            Act::Claim { command, epoch, session } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                self.append(vec![script.claim(id, command, epoch, SessionId(session))]).await;
            }
            Act::Settle { command, epoch, twice } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                let Some(view) = self.view(id).await else { return };
                let settle = script.settle(&view.head, command, epoch);
                let again = script.settle(&view.head, command, epoch);
                self.append(if twice { vec![settle, again] } else { vec![settle] }).await;
            }
            Act::Start { command } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                let Some(mut append) = self.enter(id, false).await else { return };
                append.commands.push(CommandChange::Started { command_id: command, epoch: 1 });
                self.append(vec![append]).await;
            }
            Act::Withdraw { command, with_start } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                let Some(mut append) = self.enter(id, false).await else { return };
                let change = CommandChange::Withdraw { command_id: command, epoch: 1 };
                append.commands.push(change);
                if with_start {
                    append.commands.push(CommandChange::Started { command_id: command, epoch: 1 });
                }
                // In one batch with a claim, which comes first.
                self.append(vec![script.claim(id, command, 1, SessionId(1)), append]).await;
            }
            Act::Suspend { command } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                let Some(mut append) = self.enter(id, false).await else { return };
                append.commands = vec![
                    CommandChange::Delete { command_id: command, epoch: 1, expect: CommandState::Claimed },
                    CommandChange::Insert(Box::new(script.command(id, command, 2, CommandState::Suspended))),
                ];
                self.append(vec![append]).await;
            }
            Act::Complete { of } => {
                let Some(id) = pick(&self.executions, of) else { return };
                let Some(view) = self.view(id).await else { return };
                let mut append = script.complete(&view.head);
                if let (Some(parent), true) = (view.head.parent_execution_id, view.head.is_active()) {
                    let due =
                        Due { command: view.head.parent_command_id, ..script.due(parent, DueKind::ChildDone, id.0, 0) };
                    append.due.push(DueChange::Set(due));
                }
                append.head.quiesced = view.head.in_flight == 0;
                self.append(vec![append]).await;
            }
            Act::Fail { of } => {
                let Some(id) = pick(&self.executions, of) else { return };
                let Some(view) = self.view(id).await else { return };
                let error = Arc::new(json!({"kind": "code", "message": "bo\0om"}));
                let mut append = script.complete(&view.head);
                append.events[0].event =
                    Event::PlaybookFailed { path: "p".into(), error: Arc::clone(&error), step: Some("fetch".into()) };
                append.head = HeadChange {
                    status: Some(Status::Failed),
                    error: Some(error),
                    failed_steps: vec!["fetch".into()],
                    ..HeadChange::default()
                };
                self.append(vec![append]).await;
            }
            Act::Cancel { of } => {
                let Some(id) = pick(&self.executions, of) else { return };
                self.locked(id, Script::cancel).await;
            }
            Act::Pause { of, paused } => {
                let Some(id) = pick(&self.executions, of) else { return };
                self.locked(id, move |script, locked| pause(script, locked, paused)).await;
            }
            Act::Keyed { limit, displaces } => {
                let displaced = displaces.map(|n| pick(&self.executions, n).into_iter().collect());
                let birth = keyed(script.birth(None), limit, displaced);
                self.executions.push(birth.execution_id);
                self.append(vec![birth]).await;
            }
            Act::Lose { of } => {
                let Some(id) = pick(&self.executions, of) else { return };
                self.locked(id, lose).await;
            }
            Act::Report { command, epoch } => {
                let Some((id, command)) = pick(&self.commands, command) else { return };
                self.locked(id, move |script, locked| {
                    if locked.view.head.is_active() { None } else { script.late_report(locked, command, epoch) }
                })
                .await;
            }
            Act::Together { acts } => {
                let mut batch = Vec::new();
                for (of, stale) in acts {
                    match pick(&self.executions, of) {
                        Some(id) => batch.extend(self.enter(id, stale).await),
                        None => batch.push(script.birth(None)),
                    }
                }
                self.append(batch).await;
            }
            Act::Forget { keep } => {
                let (_, mut due) = all!(self, store => store.due(100)).unwrap();
                due.truncate(keep);
                all!(self, store => store.forget_due(due.clone())).unwrap();
            }
            Act::Advance { ms } => self.clock.advance_ms(ms),
            Act::Open { session, worker } => {
                let session = script.session(SessionId(session), &format!("w{worker}"), 1_000);
                all!(self, store => store.open_session(session.clone())).unwrap();
            }
            Act::Renew { session } => {
                all!(self, store => store.renew_sessions(&[SessionId(session)], 1_000)).unwrap();
            }
            Act::Close { session } => all!(self, store => store.close_session(SessionId(session))).unwrap(),
            Act::Cascade { of } => {
                let Some(id) = pick(&self.executions, of) else { return };
                let cancellation = script.cancellation(id);
                self.cascades.push(cancellation.cancellation_id);
                all!(self, store => store.open_cancellation(cancellation.clone())).unwrap();
            }
            Act::Chunk { cascade, max } => {
                let Some(id) = pick(&self.cascades, cascade) else { return };
                let first = self.script.id();
                let clock = &self.clock;
                let chunk = all!(self, store => async {
                    let script = Script::from_id(clock, first);
                    let chunk = store
                        .cancel_chunk(id, Pick::Front(max), Box::new(move |locked, through| script.cancel_open(locked, through)))
                        .await?;
                    Ok((chunk.visited, chunk.done))
                });
                chunk.unwrap();
                for _ in 0..500 {
                    self.script.id();
                }
            }
            Act::Register { path } => {
                let resource = NewResource {
                    catalog_id: CatalogId(script.id()),
                    path: format!("p{path}").into(),
                    kind: "playbook".into(),
                    content: "x".into(),
                };
                all!(self, store => store.register(resource.clone())).unwrap();
            }
            Act::Answer { key } => {
                let answer = json!(script.id());
                all!(self, store => store.keep_answer(&format!("k{key}"), answer.clone())).unwrap();
            }
            Act::Print { of, serial } => {
                let Some(execution_id) = pick(&self.executions, of) else { return };
                let line = LogLine {
                    execution_id,
                    command_id: CommandId(1),
                    step: format!("s{}", serial % 2).into(),
                    iteration: u32::try_from(serial % 3).ok().filter(|iteration| *iteration > 0),
                    task: "task".into(),
                    attempt: 1,
                    stream: LogStream::Stdout,
                    at: self.clock.now(),
                    source: 1,
                    serial,
                    line: format!("line {serial}"),
                };
                all!(self, store => store.keep_log(vec![line.clone()])).unwrap();
            }
            Act::Prune { ago_ms } => {
                let before = Timestamp(self.clock.now().0 - i64::try_from(ago_ms).unwrap());
                all!(self, store => store.prune(before, true)).unwrap();
                all!(self, store => store.prune(before, false)).unwrap();
            }
        }
    }

    /// Asks everything.
    async fn compare(&self) {
        for id in &self.executions {
            all!(self, store => store.head(*id)).unwrap();
            self.view(*id).await;
            all!(self, store => store.terminal_event(*id)).unwrap();
            all!(self, store => async {
                Ok(store.load(*id).await?.map(|loaded| (loaded.head, loaded.snapshot, loaded.tail)))
            })
            .unwrap();
            let query = EventQuery { execution_id: Some(*id), newest_first: true, limit: 5, ..EventQuery::default() };
            all!(self, store => store.events(query.clone())).unwrap();
        }
        let all = EventQuery { limit: 10_000, ..EventQuery::default() };
        let (log, total) = all!(self, store => store.events(all.clone())).unwrap();
        assert_eq!(log.len() as u64, total);
        let entered =
            EventQuery { event_type: Some("step.enter".into()), offset: 2, limit: 3, ..EventQuery::default() };
        all!(self, store => store.events(entered.clone())).unwrap();
        let list = ListQuery { limit: 1_000, ..ListQuery::default() };
        let heads = all!(self, store => store.executions(list.clone())).unwrap();
        let roots: BTreeSet<ExecutionId> = heads.iter().map(|head| head.root_execution_id).collect();
        for root in roots {
            let family = ListQuery { root: Some(root), active_first: true, ..list.clone() };
            all!(self, store => store.executions(family.clone())).unwrap();
        }
        let quiet = ListQuery { unquiesced: true, ..list.clone() };
        all!(self, store => store.executions(quiet.clone())).unwrap();
        let idle = ListQuery { idle_since: Some(self.clock.now()), status: vec![Status::Running], ..list };
        all!(self, store => store.executions(idle.clone())).unwrap();
        all!(self, store => store.due(1_000)).unwrap();
        all!(self, store => store.unquiesced(1_000)).unwrap();
        let pools: Vec<Arc<str>> = POOLS.iter().map(|pool| Arc::from(*pool)).collect();
        let mut turns = Turns::default();
        let pending = all!(self, store => store.candidates(&pools, &turns, 0, 1_000)).unwrap();
        // Somewhere in the middle of a round that began some time ago.
        if let Some(row) = pending.get(pending.len() / 2) {
            turns.served(&row.pool, row.priority, row.execution_id, made_at(i64::MAX));
        }
        all!(self, store => store.candidates(&pools, &turns, 0, 1_000)).unwrap();
        all!(self, store => store.candidates(&pools, &turns, 0, 5)).unwrap();
        all!(self, store => store.candidates(&pools[1..], &turns, 1, 2)).unwrap();
        for session in 1..4 {
            all!(self, store => store.held(SessionId(session))).unwrap();
        }
        all!(self, store => store.sessions()).unwrap();
        all!(self, store => store.key_holders(KEY)).unwrap();
        all!(self, store => store.expired_sessions(9)).unwrap();
        all!(self, store => store.open_cancellations()).unwrap();
        for id in &self.cascades {
            all!(self, store => store.cancellation(*id)).unwrap();
        }
        all!(self, store => store.resources(None)).unwrap();
        all!(self, store => store.resource(ResourceKey::Latest("p0".into()))).unwrap();
        for key in ["k0", "k1", "k2"] {
            all!(self, store => store.answer(key)).unwrap();
        }
        for id in &self.executions {
            for (step, newest) in [(None, false), (Some("s1".to_owned()), true)] {
                let query = LogQuery { execution_id: *id, step, after: 0, limit: 3, newest };
                // Not the ids: a file uses those of pruned lines again, where nobody can have them.
                all!(self, store => async {
                    let rows = store.log(query.clone()).await?;
                    Ok(rows.into_iter().map(|row| row.line).collect::<Vec<_>>())
                })
                .unwrap();
            }
        }
        let rows = all!(self, store => async {
            let sizes = store.size().await?.into_iter().map(|size| (size.table, size.rows));
            // Of the last a store may have a row before there is a line.
            let own_ways = ["schema_version", "log_size"];
            Ok(sizes.filter(|(table, _)| !own_ways.contains(&table.as_str())).collect::<BTreeSet<_>>())
        });
        assert_eq!(rows.unwrap().len(), 16);
    }
}

/// The claimed commands of an execution are lost, and tried again while it goes on.
fn pause(script: &Script, locked: &LockedView, paused: bool) -> Option<Append> {
    let request = pause::Request {
        requested_execution_id: locked.view.head.root_execution_id,
        reason: Some("wa\0it".into()),
        by: "api".into(),
        requested_by: None,
        cascade: false,
    };
    let decide = if paused { pause::pause } else { pause::resume };
    // Every store gets the same ids, from the script.
    match decide(&locked.view, &request, locked.now, &mut IdSource::new(1)) {
        pause::Answer::Changed { mut append, .. } => {
            append.events = append.events.into_iter().map(|new| script.event(new.event)).collect();
            Some(*append)
        }
        pause::Answer::Already { .. } | pause::Answer::Ended => None,
    }
}

/// A start that takes the one key there is.
fn keyed(mut birth: Append, limit: u32, displaced: Option<Vec<ExecutionId>>) -> Append {
    if let Guard::New(head) = &mut birth.guard {
        head.concurrency_key = Some(KEY.into());
    }
    if let Event::PlaybookInitialized(init) = &mut birth.events[0].event {
        init.concurrency_key = Some(KEY.into());
    }
    birth.due.push(DueChange::Enter(Admission { key: KEY.into(), limit, displaced }));
    birth
}

fn lose(script: &Script, locked: &LockedView) -> Option<Append> {
    let HeadView { head, commands } = &locked.view;
    let row = commands.iter().find(|row| row.state == CommandState::Claimed)?;
    let mut append = script.empty(head.execution_id, Guard::Locked);
    append.events.push(script.event(Event::CommandLost {
        command_id: row.command_id,
        epoch: row.epoch,
        step: Arc::clone(&row.step),
        session_id: row.holder.as_ref()?.session_id,
        reason: "silent".into(),
        again: head.is_active(),
    }));
    let mut lost = row.clone();
    lost.state = CommandState::Lost;
    append.commands = vec![
        CommandChange::Delete { command_id: row.command_id, epoch: row.epoch, expect: CommandState::Claimed },
        CommandChange::Insert(Box::new(lost)),
    ];
    if head.is_active() && !commands.iter().any(|other| other.command_id == row.command_id && other.epoch > row.epoch) {
        let mut again = script.command(head.execution_id, row.command_id, row.epoch + 1, CommandState::Pending);
        again.root_execution_id = head.root_execution_id;
        append.commands.push(CommandChange::Insert(Box::new(again)));
    }
    Some(append)
}

/// `PROPTEST_CASES` asks for more histories than the usual ones.
fn config(usual: u32, max_shrink_iters: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { usual };
    ProptestConfig { cases, max_shrink_iters, ..default }
}

fn sqlite(folder: &std::path::Path, clock: &ManualClock) -> Arc<dyn Store> {
    let options = SqliteOptions { clock: clock.clock(), ..SqliteOptions::new(folder.join("noetl.db")) };
    Arc::new(SqliteStore::open(options).unwrap())
}

async fn tell(mut stores: Stores, acts: Vec<Act>) {
    for act in acts {
        stores.play(act).await;
    }
    stores.compare().await;
    assert_eq!(stores.memory.validate().await.unwrap(), Vec::<String>::new());
    // The histories break rules that no store watches over; stores with tables find the same breaches afterwards.
    let mut findings = Vec::new();
    for (_, store) in &stores.others {
        findings.push(store.validate().await.unwrap().into_iter().collect::<BTreeSet<_>>());
        store.close().await.unwrap();
    }
    assert!(findings.windows(2).all(|two| two[0] == two[1]), "{findings:#?}");
}

proptest! {
    #![proptest_config(config(40, 2_000))]

    #[test]
    fn memory_and_a_file_tell_the_same_history(acts in prop::collection::vec(act(), 1..90)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = ManualClock::new(START);
            let others = vec![("sqlite", sqlite(folder.path(), &clock))];
            tell(Stores::new(clock, others), acts).await;
        });
    }
}

#[test]
fn memory_a_file_and_postgres_tell_the_same_history() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Some(cluster) = runtime.block_on(TestCluster::start(&[])).unwrap() else { return };
    let made = std::cell::Cell::new(0);
    proptest!(config(12, 60), |(acts in prop::collection::vec(act(), 1..90))| {
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let name = format!("d{}", made.replace(made.get() + 1));
            cluster.create_database(&name).await.unwrap();
            let clock = ManualClock::new(START);
            let address = cluster.address(&name).url().parse().unwrap();
            let options = PostgresOptions { clock: Some(clock.clock()), ..PostgresOptions::new(address) };
            let postgres: Arc<dyn Store> = Arc::new(Postgres::open(options).await.unwrap());
            let others = vec![("sqlite", sqlite(folder.path(), &clock)), ("postgres", postgres)];
            tell(Stores::new(clock, others), acts).await;
        });
    });
}

#[test]
fn a_verdict_is_compared() {
    // So that the macro above cannot go blind: two stores that differ are told apart.
    let clock = ManualClock::new(START);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told_apart = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let others = vec![("sqlite", sqlite(folder.path(), &clock))];
            let stores = Stores::new(clock.clone(), others);
            let birth = stores.script.birth(None);
            assert_eq!(stores.memory.append(vec![birth.clone()]).await, [Ok(Verdict::Landed { version: 1 })]);
            stores.append(vec![birth]).await;
        });
    }));
    assert!(told_apart.is_err());
}
