//! The head of an execution: the part of its state that is one row, and the commands that are alive.
//!
//! Control decisions (cancel, cascade, settle-when-terminal, lease loss) read nothing else, so a cancel needs
//! neither the playbook nor the history.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{StopCause, Wait};
use crate::execution::cleanup::CleanupPlan;
use crate::id::{CancellationId, CatalogId, CommandId, ExecutionId, SessionId};
use crate::labels::Labels;
use crate::playbook::{CancelMode, Shield};
use crate::time::Timestamp;

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It goes on.
    Running,
    /// Terminal: nothing was left to do.
    Completed,
    /// Terminal: an error that nothing handled.
    Failed,
    /// Terminal: somebody decided so.
    Cancelled,
}

impl Status {
    /// Returns the word in every table and answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "RUNNING",
            Status::Completed => "COMPLETED",
            Status::Failed => "FAILED",
            Status::Cancelled => "CANCELLED",
        }
    }

    /// Returns the status that `word` names, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        [Status::Running, Status::Completed, Status::Failed, Status::Cancelled]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
    }

    /// Returns whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        match self {
            Status::Running => false,
            Status::Completed | Status::Failed | Status::Cancelled => true,
        }
    }
}

/// The row `execution`: a projection of the log, written in the same transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which.
    pub execution_id: ExecutionId,
    /// The playbook version it keeps.
    pub catalog_id: CatalogId,
    /// Catalog path.
    pub path: Arc<str>,
    /// Catalog version.
    pub playbook_version: i64,
    /// Who started it, when an execution did.
    pub parent_execution_id: Option<ExecutionId>,
    /// The parent's command that waits for it.
    pub parent_command_id: Option<CommandId>,
    /// Top of the family.
    pub root_execution_id: ExecutionId,
    /// 0 without a parent.
    pub depth: u32,
    /// Where it stands. It is active while this is [`Status::Running`].
    pub status: Status,
    /// Version of the last event.
    pub version: u64,
    /// Version after the last decision (claims do not count).
    pub decided: u64,
    /// Attempts held by workers, lost ones included.
    pub in_flight: u32,
    /// Something waits to be advanced without any input.
    pub runnable: bool,
    /// Lowest protocol version able to decide it.
    pub engine: u32,
    /// From the playbook: how a cancel treats what runs.
    pub cancel_mode: Option<CancelMode>,
    /// From the playbook: grace of an interrupt, in milliseconds.
    pub cancel_grace_ms: Option<u64>,
    /// From its birth: what a cancel that comes down from an ancestor does to it.
    #[serde(default)]
    pub shield: Option<Shield>,
    /// The concurrency key that it has until nothing of it runs any more.
    pub concurrency_key: Option<Arc<str>>,
    /// From its birth: what people find it by.
    #[serde(default)]
    pub labels: Labels,
    /// When it began.
    pub started_at: Timestamp,
    /// Time of the last event.
    pub updated_at: Timestamp,
    /// When it became terminal.
    pub ended_at: Option<Timestamp>,
    /// When nothing of it ran any more.
    pub quiesced_at: Option<Timestamp>,
    /// The step entered last.
    pub current_step: Option<Arc<str>>,
    /// Steps entered.
    pub steps_entered: u64,
    /// Commands issued.
    pub commands_issued: u64,
    /// Steps that failed and were left by no rule or arc that handled it, each once, at most [`FAILED_STEPS_MAX`].
    pub failed_steps: Vec<Arc<str>>,
    /// Why it failed.
    pub error: Option<Arc<Value>>,
    /// How it was cancelled.
    pub cancel: Option<CancelInfo>,
    /// Nothing more begins until somebody resumes it. An execution that has ended is not paused.
    pub pause: Option<PauseInfo>,
    /// From the playbook: what its cancel leaves to be done.
    pub cleanup: Option<CleanupPlan>,
    /// The cancelled execution that it cleans up after.
    pub cleanup_of: Option<ExecutionId>,
}

/// Most names in [`Head::failed_steps`].
pub const FAILED_STEPS_MAX: usize = 100;
/// Protocol version of this engine; stands in [`Head::engine`].
pub const ENGINE_VERSION: u32 = 1;

/// What the head keeps of `execution.paused`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PauseInfo {
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`.
    pub paused_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// The execution that the request named.
    pub requested_execution_id: ExecutionId,
}

/// What the head keeps of `execution.cancelled`, the latest escalation included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelInfo {
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`, `parent`, …
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    #[serde(default)]
    pub remote: Option<String>,
    /// How what runs is treated.
    pub mode: CancelMode,
    /// Grace of an interrupt, in milliseconds.
    pub grace_ms: u64,
    /// When the present mode was ordered.
    pub since: Timestamp,
    /// The execution that the request named; for a selection, the selected one that this was reached through.
    pub requested_execution_id: ExecutionId,
    /// The job that carried it out, when it took more than one commit.
    #[serde(default)]
    pub job_id: Option<CancellationId>,
    /// The request's `Idempotency-Key`, so that a repeat of it gets the first answer.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// The request asked for descendants too.
    #[serde(default)]
    pub cascade: bool,
    /// The execution that cleans up after it; born with the proof.
    #[serde(default)]
    pub cleanup: Option<ExecutionId>,
    /// How the attempts that were in flight at the end came to rest, so far: the certificate in the making.
    #[serde(default)]
    pub ended: Vec<crate::event::Ended>,
}

/// Where a command stands. There is no row for a settled one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// May be claimed.
    Pending,
    /// Would be pending if its execution were not paused.
    Paused,
    /// Held by a worker session.
    Claimed,
    /// Waits for a time or a child; runs nowhere.
    Suspended,
    /// An attempt whose worker fell silent; it may still run.
    Lost,
}

impl CommandState {
    /// Every state.
    pub const ALL: [CommandState; 5] = [
        CommandState::Pending,
        CommandState::Paused,
        CommandState::Claimed,
        CommandState::Suspended,
        CommandState::Lost,
    ];

    /// Returns the word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            CommandState::Pending => "pending",
            CommandState::Paused => "paused",
            CommandState::Claimed => "claimed",
            CommandState::Suspended => "suspended",
            CommandState::Lost => "lost",
        }
    }

    /// Returns the state that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        CommandState::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns whether a worker may be running it.
    pub fn in_flight(self) -> bool {
        match self {
            CommandState::Claimed | CommandState::Lost => true,
            CommandState::Pending | CommandState::Paused | CommandState::Suspended => false,
        }
    }
}

/// A row of the table `command`: one attempt. The key is (execution_id, command_id, epoch).
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRow {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt, from 1.
    pub epoch: u32,
    /// Top of the family.
    pub root_execution_id: ExecutionId,
    /// Where it stands.
    pub state: CommandState,
    /// Step name.
    pub step: Arc<str>,
    /// Which visit of the step.
    pub visit: u32,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// Kind of the tool it starts with.
    pub kind: Arc<str>,
    /// Which workers may take it.
    pub pool: Arc<str>,
    /// Higher is claimed first.
    pub priority: i32,
    /// The claim writes `step.enter` too: the first command of a visit, never claimed before.
    pub enters: bool,
    /// A loss fails it.
    pub at_most_once: bool,
    /// Attempts lost so far, and how many there may be.
    pub losses: u32,
    /// A loss beyond this many fails the step.
    pub losses_max: u32,
    /// It has been ordered to stop, by this wish first: no further attempt of it begins.
    pub stopping: Option<Arc<StopWish>>,
    /// Grace of an interrupt, in milliseconds, when step or playbook name one.
    pub grace_ms: Option<u64>,
    /// What a suspended one waits for.
    pub wait: Option<Wait>,
    /// Since when it has been issued (this attempt).
    pub since: Timestamp,
    /// Who holds or held it.
    pub holder: Option<Holder>,
    /// What the holder's worker says runs of it. A hint: no event says so, and no decision reads it.
    pub running: Option<RunningTool>,
    /// What the worker needs, see `crate::work`. Never an unresolved secret.
    pub work: Arc<Value>,
}

/// Who holds a claimed command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The worker's life.
    pub session_id: SessionId,
    /// The worker's name.
    pub worker_id: Arc<str>,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// The tool is known to have started.
    pub started: bool,
}

/// Who wants a command stopped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopWish {
    /// As the step's error will say.
    pub cause: StopCause,
    /// Free text.
    pub reason: String,
    /// The authenticated identity, else `api`, `cli`, `timeout`.
    pub by: String,
}

impl CommandRow {
    /// Returns the child that a suspended one waits for.
    pub fn awaited_child(&self) -> Option<ExecutionId> {
        match self.wait {
            Some(Wait::Child { execution_id, .. }) => Some(execution_id),
            Some(Wait::Until(_)) | None => None,
        }
    }
}

/// A tool that a worker has been running for a while, as the worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTool {
    /// Kind of tool.
    pub tool: Arc<str>,
    /// The process that leads it, in the eyes of the worker's machine; `None` when it is no process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when, by the worker's clock.
    pub since: Timestamp,
}

/// A head with its live commands: all that a control decision reads.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadView {
    /// The head.
    pub head: Head,
    /// Every row, by (command_id, epoch).
    pub commands: Vec<CommandRow>,
}
