//! The workflow: the whole state of one execution, folded from its log, and what inputs mean to it.
//!
//! [`evolve`](state::Execution::evolve) applies facts, [`Draft::decide`](draft::Draft) makes them. One file per input.

pub mod cleanup;
pub mod cursor;
pub mod draft;
pub mod evolve;
pub mod rerun;
pub mod results;
pub mod state;

mod advance;
mod child;
mod command;
mod complete;
mod exit;
mod looping;
mod names;
mod report;
mod start;
mod withdraw;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::concurrency::KeyHolder;
use crate::expr::Library;
use crate::head::{Holder, Status};
use crate::id::{CatalogId, CommandId, ExecutionId, IdSource};
use crate::labels::Labels;
use crate::playbook::{CancelMode, Playbook, Shield};
use crate::time::Timestamp;
use crate::work::{ChildOutcome, Report};

/// Server-side steps that one decision advances at most; then it emits a `continue` obligation and queues behind others.
pub const ADVANCE_STEPS_MAX: u32 = 64;
/// Bytes of events that one decision makes at most.
pub const ADVANCE_BYTES_MAX: usize = 1024 * 1024;
/// Live commands of one execution at most; the rest of a loop is a counter.
pub const LIVE_COMMANDS_MAX: usize = 1000;
/// Deepest family (`limits.max_depth`).
pub const DEPTH_MAX: u32 = 64;
/// Elements of one loop at most.
pub const LOOP_ITEMS_MAX: usize = 1_000_000;
/// A snapshot is written by the append that passes every so-manieth event; in a long loop less often.
pub const SNAPSHOT_EVERY: u64 = 256;

/// What happened to an execution.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// It is runnable: go on.
    Continue,
    /// A worker says what became of a command.
    Report(Box<Report>, Arc<str>),
    /// The moment that a suspended (or given-up) command waited for has come.
    Timer(CommandId),
    /// A child ended.
    ChildEnded(CommandId, Box<ChildOutcome>),
    /// Somebody wants the loops of a step to end with the results there are.
    CompleteLoop(Box<CompleteLoop>),
}

/// Who wants the loops of a step to end with the results there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteLoop {
    /// Which step.
    pub step: Arc<str>,
    /// What becomes of the iterations that run; `None` = as the loop says (`loop.spec.on_complete`).
    pub mode: Option<CancelMode>,
    /// The authenticated identity, else `api`, `cli`.
    pub by: String,
    /// Free text.
    pub reason: Option<String>,
}

/// What a decision may read besides the execution. Nothing in it does anything.
#[derive(Debug)]
pub struct Env<'a> {
    /// The playbook version that the execution keeps.
    pub playbook: &'a Playbook,
    /// The store's clock.
    pub now: Timestamp,
    /// Where ids come from.
    pub ids: &'a mut IdSource,
    /// Large results at hand; a missing one is recorded as a need.
    pub library: &'a Arc<Library>,
    /// Playbooks at hand, for sub-playbooks.
    pub books: &'a Books,
    /// Environment that templates may see under `env`.
    pub environment: &'a Arc<Value>,
    /// Workers with free slots: what is issued to their pools is claimed in the same append.
    pub hands: &'a mut Vec<Hand>,
}

/// A worker with free slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Hand {
    /// Who.
    pub holder: Holder,
    /// Pools it serves.
    pub pools: Vec<Arc<str>>,
    /// How many commands it can take.
    pub free: u32,
}

/// Playbooks at hand, and those that turned out to be missing; and who has the concurrency keys that starts ask for.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// The entry, or `None` when the catalog has none.
    pub known: std::collections::BTreeMap<BookKey, Option<Book>>,
    /// Cancelled executions that cleanups ask for, as they stand; `None`: it has been removed.
    pub origins: std::collections::BTreeMap<ExecutionId, Option<Arc<state::Execution>>>,
    /// By concurrency key: who has it.
    pub holders: std::collections::BTreeMap<Arc<str>, Vec<KeyHolder>>,
}

/// How a playbook task names a playbook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BookKey {
    /// By path, the newest version.
    Newest(Arc<str>),
    /// By path and version.
    Version(Arc<str>, i64),
    /// By its id in the catalog.
    Id(CatalogId),
}

/// A playbook version in the catalog.
#[derive(Debug, Clone)]
pub struct Book {
    /// Which.
    pub catalog_id: CatalogId,
    /// Its version.
    pub version: i64,
    /// What it means.
    pub playbook: Arc<Playbook>,
}

/// Why an input changes nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The execution is terminal: reports are settled by control, the rest is moot.
    Ended(Status),
    /// The input is about something that is over: an old epoch, a settled command, a timer that was withdrawn.
    Stale,
    /// It is paused: what would begin something waits where it is, in the tables.
    Paused,
    /// Something must be at hand first; the draft is spoiled: load, read the execution again, decide again.
    Needs(Needs),
}

/// What a decision lacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Large results, by reference.
    pub results: Vec<String>,
    /// Playbooks, as they are named.
    pub playbooks: Vec<BookKey>,
    /// Concurrency keys: who has them.
    pub keys: Vec<Arc<str>>,
    /// Executions that a cleanup comes after.
    pub origins: Vec<ExecutionId>,
}

/// A request to start an execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its id.
    pub execution_id: ExecutionId,
    /// The playbook version.
    pub catalog_id: CatalogId,
    /// Its number.
    pub version: i64,
    /// The request's payload: data, never rendered.
    pub payload: Map<String, Value>,
    /// The execution that starts it.
    pub parent: Option<StartParent>,
    /// Identity of who asked.
    pub started_by: Option<String>,
    /// Every unhandled error fails the run.
    pub strict: bool,
    /// Laid over the labels of the playbook.
    pub labels: Labels,
    /// The execution that it runs again.
    pub rerun: Option<rerun::Rerun>,
}

/// The parent of a child to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct StartParent {
    /// Which, which of its commands waits, and for what data.
    pub parent: crate::event::Parent,
    /// Top of the family.
    pub root_execution_id: ExecutionId,
    /// The parent's depth.
    pub depth: u32,
    /// What a cancel that comes down from above does to the child.
    pub shield: Option<Shield>,
}
