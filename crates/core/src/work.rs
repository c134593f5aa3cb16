//! What a worker needs to run one command, and what it says afterwards: values on the wire.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::Write;
use crate::id::{CatalogId, CommandId, ExecutionId};
use crate::playbook::Shield;
use crate::result::Bound;
use crate::time::Timestamp;
use crate::tool::{Stopped, ToolError};

/// The part of a command that only its worker reads: what stands in the column `work`.
///
/// The task definitions are not here: they belong to the playbook version, which the worker keeps compiled.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Work {
    /// The names that the body's templates and code mention, as they stood when the command was issued.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub names: IndexMap<Arc<str>, Named>,
    /// The iteration, inside a loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<Iteration>,
    /// Where a suspended pipeline goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Arc<Value>>,
    /// What a suspended pipeline waited for: the outcome of the child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildOutcome>,
}

/// A name and what it is bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// The data, or the way to it.
    pub bound: Bound,
    /// It is a step's result, with the helper attributes of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Shape>,
    /// Further names instead of data: `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IndexMap<Arc<str>, Named>>,
}

impl Named {
    /// Returns plain data.
    pub fn data(bound: Bound) -> Self {
        Named { bound, result: None, group: None }
    }
}

/// What a result is besides its data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// The step or task failed, with this error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<Value>>,
    /// Labels of a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<[Arc<str>]>>,
}

/// One element of a loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// How the playbook calls it.
    pub iterator: Arc<str>,
    /// The element.
    pub item: Value,
    /// Its place, from 0.
    pub index: u32,
    /// How many there are.
    pub total: u32,
}

/// A command in a worker's hands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// The playbook version; the worker keeps it compiled.
    pub catalog_id: CatalogId,
    /// Catalog path, for logs.
    pub path: Arc<str>,
    /// Catalog version.
    pub version: i64,
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// Kind of the first tool.
    pub kind: Arc<str>,
    /// Attempts lost before this one.
    pub losses: u32,
    /// A loss fails it.
    pub at_most_once: bool,
    /// Scope, iteration, continuation.
    pub work: Arc<Value>,
}

/// What a worker says of a command it held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt: an old one changes nothing.
    pub epoch: u32,
    /// What became of it.
    pub outcome: Reported,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reported {
    /// The tool has been running for a while; the command goes on.
    Started {
        /// Since when.
        at: Timestamp,
    },
    /// The pipeline is over.
    Done(Box<Done>),
    /// The pipeline waits for a time or a child; the slot is free.
    Suspended(Box<Pause>),
    /// Not run, or stopped, because the execution is cancelled.
    Cancelled {
        /// Whether a tool had been started.
        started: bool,
        /// How far stopping it had to go.
        stopped: Option<Stopped>,
        /// Processes that could not be confirmed gone.
        #[serde(default)]
        pids: Vec<u32>,
        /// What was sent elsewhere may have been acted upon: nobody knows.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remote_may_have_acted: bool,
    },
    /// Handed back by a draining worker, not run to an end.
    Released,
}

impl Reported {
    /// Returns the report of a cancelled command that has ended without a tool to be stopped.
    pub fn cancelled(started: bool) -> Self {
        Reported::Cancelled { started, stopped: None, pids: Vec::new(), remote_may_have_acted: false }
    }
}

/// The end of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What later templates see under the step's name.
    pub data: Value,
    /// `None` = it worked.
    pub error: Option<ToolError>,
    /// A policy of the playbook chose this outcome, so the error counts as handled.
    pub handled: bool,
    /// `ctx.` writes, in order.
    pub ctx: Vec<Write>,
    /// When the first tool started.
    pub started_at: Option<Timestamp>,
    /// How long it all took, in milliseconds.
    pub duration_ms: u64,
    /// How far stopping it had to go, if it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// The worker's name; filled in by the server.
    #[serde(skip)]
    pub worker_id: Option<Arc<str>>,
}

/// A pipeline that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// What for.
    pub wait: Awaited,
    /// Where the interpreter goes on; at most [`CONTINUATION_BYTES_MAX`].
    pub continuation: Value,
    /// `ctx.` writes so far.
    pub ctx: Vec<Write>,
}

/// Largest continuation that a worker reports, in bytes of JSON: with the large values in it, which the server moves
/// out, it has to fit into one append.
pub const CONTINUATION_BYTES_MAX: usize = 60 * 1024 * 1024;

/// What a pipeline waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// So many milliseconds.
    Delay {
        /// How many.
        ms: u64,
    },
    /// A child execution, to be started now.
    Child(ChildRequest),
    /// A worker: the next task can not run where the last one ran.
    Worker,
}

/// A sub-playbook to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildRequest {
    /// Catalog path; empty when only the id says which playbook.
    pub path: Arc<str>,
    /// Catalog version; `None` = the newest.
    pub version: Option<i64>,
    /// The entry's id, which counts before path and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_id: Option<CatalogId>,
    /// Its payload.
    pub input: Map<String, Value>,
    /// The step whose data is wanted.
    pub return_step: Option<Arc<str>>,
    /// How long to wait, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What a cancel that comes down from above does to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildOutcome {
    /// Which.
    pub execution_id: ExecutionId,
    /// `COMPLETED`, `FAILED`, `CANCELLED`.
    pub status: crate::head::Status,
    /// Data of the return step, else of the last finished step.
    pub result: Bound,
    /// Why it failed, or who cancelled it and why.
    pub error: Option<Arc<Value>>,
}
