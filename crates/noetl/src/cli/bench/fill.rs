//! `noetl bench fill`: a store with as many executions as somebody has after a month, in minutes.
//!
//! One execution of each kind is run by the engine, on a store of its own; the rest are copies of it, written through
//! the store's own append, so that `noetl verify --all` finds them in order.

use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use noetl_core::append::Append;
use noetl_core::head::{Head, Status};
use noetl_core::id::IdSource;
use noetl_core::labels::Labels;
use noetl_core::time::Timestamp;
use noetl_engine::{Engine, StartRequest, WaitFor};
use noetl_store::catalog::ResourceKey;
use serde::Serialize;
use serde_json::Map;

use super::pattern::{self, Pattern};
use super::place::{Open, Place};
use super::{EXECUTION_MS_MAX, measured_on, show};
use crate::cli::console;
use crate::cli::stop::{Exit, Stop};
use crate::cli::target::Globals;

/// Over how much time, up to now, the starts are spread.
const SPREAD_MS: u64 = 28 * 86_400_000;
/// Births in one transaction.
const BATCH: usize = 500;
/// Transactions under way at once.
const AT_ONCE: usize = 3;
/// How often it is said how far it is, in executions.
const SAY_EVERY: u64 = 100_000;
/// Members of a family that waits: its top and those below.
const FAMILY: u64 = 10;
/// The time limit of what waits, so that each has an obligation in the tables.
const TIMEOUT_MS: u64 = 365 * 86_400_000;

/// What the store is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum What {
    /// Of a hundred: 72 completed, 8 failed, 10 cancelled, and a family of ten that waits.
    Mixed,
    /// All completed.
    Ended,
    /// All waiting for a worker that never comes.
    Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Fill {
    /// How many executions are added
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    executions: u64,
    /// What kind
    #[arg(long, value_enum, default_value_t = What::Mixed)]
    what: What,
    /// PostgreSQL database to fill, instead of the file in --data-dir
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    what: What,
    executions: u64,
    events: u64,
    seconds: f64,
    executions_per_second: f64,
}

/// A kind of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Completed,
    Failed,
    Cancelled,
    /// The top of a family.
    Top,
    /// A member of the family whose top came last.
    Below,
}

/// Catalog path of what completed.
pub(super) const COMPLETED: &str = "bench/fill/completed";
/// Catalog path of what failed.
pub(super) const FAILED: &str = "bench/fill/failed";
/// Catalog path of what waits, or waited until it was cancelled.
pub(super) const WAITING: &str = "bench/fill/waiting";

const PLAYBOOKS: [(&str, &str); 3] = [
    (
        COMPLETED,
        "  - {step: start, tool: {kind: noop}, spec: {run_on: worker}, next: {arcs: [{step: end}]}}\n  \
         - {step: end, tool: {kind: noop}, spec: {run_on: worker}}\n",
    ),
    (FAILED, "  - {step: start, tool: {kind: shell, cmds: ['exit 3']}}\n"),
    // No worker of a benchmark serves that pool.
    (WAITING, "  - {step: start, tool: {kind: noop}, spec: {run_on: worker, pool: nobody}}\n"),
];

impl Fill {
    pub(super) async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let place = Place::of(globals, self.database_url.as_deref())?;
        let patterns = measured_on("fill", Some(4), Patterns::of).await.map_err(defect)?;
        let open = place.open().await.map_err(defect)?;
        let filled = self.fill(&open, patterns).await;
        let closed = open.close().await;
        let figures = filled.map_err(defect)?;
        closed.map_err(defect)?;
        show(self.json, &figures, || {
            format!(
                "{} executions with {} events in {:.1} s, {:.0} a second, in {}",
                figures.executions,
                figures.events,
                figures.seconds,
                figures.executions_per_second,
                place.shown()
            )
        })?;
        Ok(Exit::Done)
    }

    async fn fill(&self, open: &Open, patterns: Patterns) -> Result<Figures, String> {
        let patterns = patterns.registered(&open.engine).await?;
        let now = open.store.now().await.map_err(|error| error.to_string())?;
        let births = Births::new(self, patterns, now);
        let began = Instant::now();
        let (mut executions, mut events, mut said) = (0, 0, 0);
        let mut written = std::pin::pin!(
            stream::iter(births)
                .map(|batch| async {
                    let batch = batch?;
                    let count =
                        (batch.len() as u64, batch.iter().map(|append| append.events.len() as u64).sum::<u64>());
                    pattern::land(&*open.store, batch).await.map(|()| count)
                })
                .buffered(AT_ONCE)
        );
        while let Some((more, of_them)) = written.try_next().await? {
            executions += more;
            events += of_them;
            if executions / SAY_EVERY > said {
                said = executions / SAY_EVERY;
                console::note(&format!("{executions} executions after {:.0} s", began.elapsed().as_secs_f64()));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let executions_per_second = (executions as f64 / seconds).round();
        Ok(Figures { scenario: "fill", what: self.what, executions, events, seconds, executions_per_second })
    }
}

/// One execution of each kind.
#[derive(Debug)]
struct Patterns {
    completed: Pattern,
    failed: Pattern,
    cancelled: Pattern,
    waiting: Pattern,
}

impl Patterns {
    async fn of(engine: &Arc<Engine>) -> Result<Patterns, String> {
        register(engine).await?;
        let store = &**engine.store();
        let completed = ended(engine, COMPLETED, Status::Completed).await?;
        let failed = ended(engine, FAILED, Status::Failed).await?;
        let waits = start(engine, WAITING).await?;
        let mut waiting = Pattern::of(store, waits).await?;
        waiting.timeout_ms = Some(TIMEOUT_MS);
        engine.cancel(super::cancel::order(waits)).await.map_err(|error| error.to_string())?;
        let cancelled = Pattern::of(store, waits).await?;
        Ok(Patterns { completed, failed, cancelled, waiting })
    }

    /// Has them stand for the playbooks in the catalog of the store that is filled.
    async fn registered(self, engine: &Engine) -> Result<Patterns, String> {
        register(engine).await?;
        let id = async |path: &str| {
            let found = engine.store().resource(ResourceKey::Latest(path.into())).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok::<_, String>(found.ok_or_else(|| format!("{path} is not in the catalog"))?.catalog_id)
        };
        Ok(Patterns {
            completed: self.completed.of_playbook(id(COMPLETED).await?),
            failed: self.failed.of_playbook(id(FAILED).await?),
            cancelled: self.cancelled.of_playbook(id(WAITING).await?),
            waiting: self.waiting.of_playbook(id(WAITING).await?),
        })
    }
}

async fn register(engine: &Engine) -> Result<(), String> {
    for (path, steps) in PLAYBOOKS {
        let found =
            engine.store().resource(ResourceKey::Latest(path.into())).await.map_err(|error| error.to_string())?;
        if found.is_none() {
            let head = format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: fill, path: {path}}}\n");
            let text = format!("{head}workflow:\n{steps}");
            engine.register(&text, None).await.map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(())
}

async fn start(engine: &Arc<Engine>, path: &str) -> Result<noetl_core::id::ExecutionId, String> {
    let request = StartRequest {
        target: ResourceKey::Latest(path.into()),
        payload: Map::new(),
        parent_execution_id: None,
        started_by: Some("bench".to_owned()),
        // What fails is to have failed.
        strict: true,
        labels: Labels::new(),
        idempotency_key: None,
    };
    engine.start(request).await.map(|started| started.execution_id).map_err(|error| error.to_string())
}

async fn ended(engine: &Arc<Engine>, path: &str, wanted: Status) -> Result<Pattern, String> {
    let id = start(engine, path).await?;
    let head = engine.wait(id, WaitFor::Quiesced, EXECUTION_MS_MAX).await.map_err(|error| error.to_string())?;
    match head {
        Some(head) if head.status == wanted => Pattern::of(&**engine.store(), id).await,
        other => {
            Err(format!("execution {id} of {path} is {:?}, not {}", other.map(|head| head.status), wanted.as_str()))
        }
    }
}

/// Batches of births, oldest first.
struct Births {
    patterns: Patterns,
    what: What,
    ids: IdSource,
    count: u64,
    made: u64,
    first: Timestamp,
    /// The head of the last top, with the batch of its family.
    top: Option<Head>,
}

impl Births {
    fn new(fill: &Fill, patterns: Patterns, now: Timestamp) -> Self {
        // Another number each time: what is filled up twice has no id twice.
        let mut number = [0; 2];
        getrandom::fill(&mut number).ok();
        Births {
            patterns,
            what: fill.what,
            ids: IdSource::new(u16::from_le_bytes(number) & 0x3ff),
            count: fill.executions,
            made: 0,
            first: Timestamp(now.0.saturating_sub(SPREAD_MS.cast_signed())),
            top: None,
        }
    }

    fn birth(&mut self, number: u64) -> Result<Append, String> {
        let at = self.first.plus_ms(
            u64::try_from(u128::from(SPREAD_MS) * u128::from(number) / u128::from(self.count)).unwrap_or(SPREAD_MS),
        );
        let kind = kind(self.what, number);
        let pattern = match kind {
            Kind::Completed => &self.patterns.completed,
            Kind::Failed => &self.patterns.failed,
            Kind::Cancelled => &self.patterns.cancelled,
            Kind::Top | Kind::Below => &self.patterns.waiting,
        };
        let parent = self.top.as_ref().filter(|_| kind == Kind::Below);
        let birth = pattern.birth(&mut self.ids, parent, at)?;
        if kind == Kind::Top
            && let noetl_core::append::Guard::New(first) = &birth.guard
        {
            let mut head = (**first).clone();
            head.land(&birth);
            self.top = Some(head);
        }
        Ok(birth)
    }
}

impl Iterator for Births {
    type Item = Result<Vec<Append>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.made == self.count {
            return None;
        }
        let mut batch = Vec::with_capacity(BATCH);
        // A family is written as a whole: its top has to be there before those below.
        while self.made < self.count && (batch.len() < BATCH || kind(self.what, self.made) == Kind::Below) {
            match self.birth(self.made) {
                Ok(birth) => batch.push(birth),
                Err(problem) => return Some(Err(problem)),
            }
            self.made += 1;
        }
        Some(Ok(batch))
    }
}

/// Returns of which kind the execution of that number is.
fn kind(what: What, number: u64) -> Kind {
    match what {
        What::Ended => Kind::Completed,
        What::Waiting if number.is_multiple_of(FAMILY) => Kind::Top,
        What::Waiting => Kind::Below,
        What::Mixed => match number % 100 {
            // Last, so that what follows a top is its family.
            place if place >= 90 => {
                if place == 90 {
                    Kind::Top
                } else {
                    Kind::Below
                }
            }
            place if place % 9 == 4 => Kind::Cancelled,
            place if place % 10 == 5 && place < 80 => Kind::Failed,
            _ => Kind::Completed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_are_mixed_as_the_help_says() {
        let of = |wanted| (0..100).filter(|number| kind(What::Mixed, *number) == wanted).count();
        let counts = [Kind::Completed, Kind::Failed, Kind::Cancelled, Kind::Top, Kind::Below].map(of);
        assert_eq!(counts, [72, 8, 10, 1, 9]);
    }
}
