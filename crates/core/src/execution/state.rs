//! The state of one execution, folded from its log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Initialized, StopCause, Wait};
use crate::execution::cursor::CursorState;
use crate::execution::results::Results;
use crate::head::Status;
use crate::id::{CommandId, ExecutionId};
use crate::result::Bound;
use crate::time::Timestamp;

/// Variables under `ctx`: shared, so that a clone is cheap.
pub type Ctx = Arc<IndexMap<Arc<str>, Arc<Value>>>;

/// The whole state of one execution. A clone is cheap: large parts are shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Which.
    pub execution_id: ExecutionId,
    /// What it was started with.
    pub init: Arc<Initialized>,
    /// When it began.
    pub started_at: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// Version of the last event folded. Claims written blind may be missing from the fold, not from the number.
    pub version: u64,
    /// Version after the last decision.
    pub decided: u64,
    /// Variables under `ctx`.
    pub ctx: Ctx,
    /// What is known of each step that was ever reached.
    pub steps: BTreeMap<Arc<str>, StepState>,
    /// Arrivals that have not become visits yet, oldest first.
    pub tokens: VecDeque<Token>,
    /// Visits that are under way.
    pub visits: Vec<Visit>,
    /// Commands that are not settled.
    pub live: BTreeMap<CommandId, Live>,
    /// Lost attempts whose worker has not been heard of.
    pub lost: BTreeSet<(CommandId, u32)>,
    /// The error that will fail the run once what runs has ended.
    pub failing: Option<Failure>,
    /// The step that finished last.
    pub last_finished: Option<Arc<str>>,
    /// Visits begun, for `limits.max_steps`.
    pub begun: u64,
    /// Commands issued.
    pub commands_issued: u64,
    /// Steps that failed with an error that nothing handled, each once, at most
    /// [`FAILED_STEPS_MAX`](crate::head::FAILED_STEPS_MAX).
    pub failed_steps: Vec<Arc<str>>,
    /// Why it failed.
    pub error: Option<Arc<Value>>,
    /// Nothing more begins until somebody resumes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Nothing of it runs any more, and the log says so.
    pub quiesced: bool,
}

/// What is known of one step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepState {
    /// How many visits began.
    pub visits: u32,
    /// The last visit's result.
    pub result: Option<Bound>,
    /// The last visit failed, with this error.
    pub error: Option<Arc<Value>>,
}

/// An arrival at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Where.
    pub step: Arc<str>,
    /// Where from; `None` at the start of the run.
    pub from: Option<Arc<str>>,
}

/// A visit under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// Which step.
    pub step: Arc<str>,
    /// The how-manieth visit of it, from 1.
    pub visit: u32,
    /// The step before, whose data is `result` here.
    pub from: Option<Arc<str>>,
    /// The step's `call.done`, before its `step.exit`.
    pub call: Option<Outcome>,
    /// The iterations, in a loop.
    pub looping: Option<Arc<LoopState>>,
}

/// What a tool, or a pipeline, gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The data.
    pub result: Bound,
    /// `None` = it worked.
    pub error: Option<Arc<Value>>,
    /// The error fails the run unless an arc catches it.
    pub hard: bool,
    /// A policy chose it.
    pub handled: bool,
}

/// The iterations of a visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// The elements.
    pub items: Bound,
    /// How many.
    pub total: u32,
    /// Most in flight at once.
    pub max_in_flight: u32,
    /// The next one to begin.
    pub next: u32,
    /// How many have ended.
    pub done: u32,
    /// Of these, failed.
    pub failed: u32,
    /// An iteration failed hard.
    pub hard: Option<Arc<Value>>,
    /// What each one gave; of a cursor, only of the first
    /// [`CURSOR_RESULTS_MAX`](crate::execution::cursor::CURSOR_RESULTS_MAX).
    pub results: Results,
    /// Where a cursor stands, when rows are claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorState>,
}

/// A command that is not settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Step name.
    pub step: Arc<str>,
    /// Which visit.
    pub visit: u32,
    /// Which iteration, from 0.
    pub iteration: Option<u32>,
    /// Attempt.
    pub epoch: u32,
    /// Attempts lost.
    pub losses: u32,
    /// `command.started` of this attempt is in the log.
    pub started: bool,
    /// It is to end before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Where it stands, as far as decisions know.
    pub state: LiveState,
}

/// Why a command is to end before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// As its step's error will say.
    pub cause: StopCause,
    /// Free text.
    pub reason: String,
}

/// Where a command stands, as far as decisions know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// Pending or claimed: only the command row knows which.
    Issued,
    /// It waits and holds no worker.
    Suspended {
        /// What for.
        wait: Wait,
        /// Where the interpreter goes on.
        continuation: Arc<Value>,
    },
    /// Lost too often, or once with `at_most_once`: to be failed by the next decision.
    GivenUp,
    /// Stopped while it ran nowhere: to be ended by the next decision.
    Stopped,
}

/// Why a run will fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub step: Option<Arc<str>>,
    /// The error.
    pub error: Arc<Value>,
}

/// Why a log can not be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The log does not begin with `playbook.initialized`.
    #[error("the log does not begin with playbook.initialized")]
    NoBeginning,
    /// A version is missing.
    #[error("version {expected} is missing: found {found}")]
    Hole {
        /// The version that should come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The snapshot can not be read.
    #[error("the snapshot can not be read: {0}")]
    Snapshot(String),
}
