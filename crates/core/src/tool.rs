//! What a worker hands to a tool, and what comes back: values, no doing.

pub mod kind;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{CommandId, ExecutionId};

/// One execution of one tool, with everything rendered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCall {
    /// The run this belongs to.
    pub execution_id: ExecutionId,
    /// The command this belongs to.
    pub command_id: CommandId,
    /// Step name, for logs and for the tool's own `step` global.
    pub step: Arc<str>,
    /// Which iteration of the step's loop, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// Task label within the step's pipeline.
    pub label: Arc<str>,
    /// Tool kind: `python`, `shell`, `http`, …
    pub kind: Arc<str>,
    /// The task's configuration, rendered: `code`, `cmds`, `url`, …
    pub config: Map<String, Value>,
    /// The task's arguments, rendered: step input, then the tool's own input, then the iterator.
    pub input: Map<String, Value>,
    /// The flat names that code may look up in `context`; empty when the code cannot use it.
    pub context: Arc<Value>,
    /// Which execution of this task this is, from 1.
    pub attempt: u32,
    /// Time limit of this one execution in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// How one tool execution ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolOutcome {
    /// `None` = it worked.
    pub error: Option<ToolError>,
    /// The data bound to names; with an error, whatever data there was.
    pub data: Value,
    /// `http` part of the envelope: `{status, headers}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Value>,
    /// `pg` part of the envelope: `{code}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg: Option<Value>,
    /// `py` part of the envelope: `{exception_type}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub py: Option<Value>,
    /// Whether the tool was ended on request, and how far that had to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// What is added to the words of whatever was ended while a request of it was on its way.
pub const REMOTE_MAY_HAVE_ACTED: &str = "; the remote may have acted";

impl ToolOutcome {
    /// Returns whether something was sent elsewhere and nobody knows what became of it.
    pub fn remote_may_have_acted(&self) -> bool {
        let noted = self.error.as_ref().and_then(|error| error.details.get("remote_may_have_acted"));
        noted.and_then(Value::as_bool).unwrap_or(false)
    }
}

/// How a tool came to its end on request. The order is the order of force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// It ended by itself after the polite signal.
    Stopped,
    /// It had to be killed; no process of it is left.
    Killed,
    /// A process could not be confirmed gone (kernel D state).
    Unconfirmed,
}

/// A failed tool execution, in the shape that expressions read under `output.error` and `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolError {
    /// What kind of failure, for policies and alerts.
    pub kind: ErrorKind,
    /// Whether trying again may help.
    pub retryable: bool,
    /// A stable code: `HTTP_404`, `PG_42601`, `EXIT_3`, `PYTHON_EXCEPTION`, …
    pub code: String,
    /// What happened, in words, without secrets.
    pub message: String,
    /// Hard errors fail the run unless a policy or an arc handles them; soft ones leave the step failed.
    pub hard: bool,
    /// Further facts: `status`, `exception_type`, `pg_code`, `exit_code`, `retry_after`, …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The remote could not be reached.
    Connection,
    /// A time limit passed.
    Timeout,
    /// The remote asked us to slow down.
    RateLimit,
    /// Credentials were refused.
    Auth,
    /// The thing is not there.
    NotFound,
    /// The request was refused.
    ClientError,
    /// The remote failed.
    ServerError,
    /// Data had the wrong shape.
    Schema,
    /// Data could not be read.
    Parse,
    /// A template or transformation failed.
    Transform,
    /// The database could not be reached.
    DbConnection,
    /// A constraint was violated.
    DbConstraint,
    /// Deadlock or serialisation failure.
    DbDeadlock,
    /// The database ran out of time.
    DbTimeout,
    /// No room to store.
    StorageQuota,
    /// Storage refused access.
    StorageAccess,
    /// The playbook's configuration of the tool cannot work.
    Config,
    /// User code raised or exited with an error.
    Code,
    /// The child execution failed.
    Child,
    /// It was cancelled.
    Cancelled,
    /// The worker that ran it is gone, too many times.
    WorkerLost,
    /// A limit with a name was passed.
    Limit,
    /// None of the above.
    Unknown,
}

impl ErrorKind {
    /// Returns the word that expressions, events and JSON use.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Connection => "connection",
            ErrorKind::Timeout => "timeout",
            ErrorKind::RateLimit => "rate_limit",
            ErrorKind::Auth => "auth",
            ErrorKind::NotFound => "not_found",
            ErrorKind::ClientError => "client_error",
            ErrorKind::ServerError => "server_error",
            ErrorKind::Schema => "schema",
            ErrorKind::Parse => "parse",
            ErrorKind::Transform => "transform",
            ErrorKind::DbConnection => "db_connection",
            ErrorKind::DbConstraint => "db_constraint",
            ErrorKind::DbDeadlock => "db_deadlock",
            ErrorKind::DbTimeout => "db_timeout",
            ErrorKind::StorageQuota => "storage_quota",
            ErrorKind::StorageAccess => "storage_access",
            ErrorKind::Config => "config",
            ErrorKind::Code => "code",
            ErrorKind::Child => "child",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::WorkerLost => "worker_lost",
            ErrorKind::Limit => "limit",
            ErrorKind::Unknown => "unknown",
        }
    }
}

impl ToolError {
    /// Returns a soft, not retryable error.
    pub fn soft(kind: ErrorKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        ToolError {
            kind,
            retryable: false,
            code: code.into(),
            message: message.into(),
            hard: false,
            details: Map::new(),
        }
    }

    /// Returns a hard, not retryable error.
    pub fn hard(kind: ErrorKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        ToolError { hard: true, ..ToolError::soft(kind, code, message) }
    }

    /// Says that trying again may help.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds a fact that expressions may read as `error.<key>`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

impl ToolOutcome {
    /// Returns a success with `data`.
    pub fn ok(data: Value) -> Self {
        ToolOutcome { error: None, data, http: None, pg: None, py: None, stopped: None }
    }

    /// Returns a failure, with the data there was.
    pub fn failed(error: ToolError, data: Value) -> Self {
        ToolOutcome { error: Some(error), ..ToolOutcome::ok(data) }
    }
}

/// Why a tool is to stop: given once, may be repeated with a shorter grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Between the polite stop and the kill, in milliseconds; 0 kills at once.
    pub grace_ms: u64,
}
