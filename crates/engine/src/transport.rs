//! Between worker and server: what is said, as values on the wire, and who carries it.
//!
//! Every request may be lost, repeated or late; each is safe to send again. A poll lists everything that the worker
//! holds, so both sides can tell what the other one missed.

use std::sync::Arc;

use async_trait::async_trait;
use noetl_core::head::{CommandRow, RunningTool};
use noetl_core::id::{CatalogId, CommandId, ExecutionId, SessionId};
use noetl_core::log::LogLine;
use noetl_core::playbook::{CancelMode, Playbook};
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant};
use noetl_core::work::{Assignment, Report};
use noetl_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Engine;
use crate::secrets::SecretError;

/// The worker protocol that this program speaks, and every older one. A worker says the newest that it speaks, the
/// server answers with the one they will use; so servers and workers of neighbouring versions work together.
pub const PROTOCOL: u32 = 1;
/// Longest long poll, in milliseconds.
pub const POLL_MS_MAX: u64 = 20_000;
/// How many times a poll may hang in one lease. A worker counts from when it sent the last request that was answered,
/// so a quiet server lets it count up to two polls; it stops what runs when it has counted two thirds of the lease.
pub const POLLS_PER_LEASE: u64 = 5;
/// Reports in one request at most.
pub const REPORTS_MAX: usize = 256;
/// Lines of logs in one request at most.
pub const LOG_LINES_PER_REQUEST_MAX: usize = 1_000;
/// Longest name of a running tool that is taken from a worker, in bytes.
pub const RUNNING_TOOL_BYTES_MAX: usize = 64;
/// Commands that one worker may run at once, at most.
pub const SLOTS_MAX: u32 = 1024;

/// A worker introduces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name; a second session under the same name ends the first.
    pub worker_id: Arc<str>,
    /// The session that this very process had before, when all its tools have ended: nothing of it still runs.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// What tells this process from others of the same name: whatever it made up when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
    /// How many commands it runs at once, at most [`SLOTS_MAX`].
    pub slots: u32,
    /// Which pools it serves; empty means `default`.
    #[serde(default)]
    pub pools: Vec<Arc<str>>,
    /// The newest [`PROTOCOL`] that it speaks.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// Its version, for people.
    #[serde(default)]
    pub version: String,
    /// Host, pid and the like, for people.
    #[serde(default)]
    pub meta: Value,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The life that begins.
    pub session_id: SessionId,
    /// How long the worker is believed alive after its last request, in milliseconds.
    pub lease_ms: u64,
    /// How long a poll should hang at most, in milliseconds, so that leases are renewed in time.
    pub poll_ms: u64,
    /// The protocol to speak from here on, on whichever server.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
}

/// What is spoken where nothing is said.
fn first_protocol() -> u32 {
    1
}

/// A worker asks for work and orders, and says what it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    /// Who.
    pub session_id: SessionId,
    /// Everything it holds: waiting for a slot, running, or over but not yet acknowledged.
    #[serde(default)]
    pub held: Vec<Held>,
    /// How many slots are free.
    #[serde(default)]
    pub free: u32,
    /// How long to wait for something to say, in milliseconds, at most [`POLL_MS_MAX`].
    #[serde(default)]
    pub wait_ms: u64,
    /// Answer offers only, for workers that claim by themselves.
    #[serde(default)]
    pub offer: bool,
    /// It takes nothing new; with nothing held this is goodbye.
    #[serde(default)]
    pub draining: bool,
    /// Rises with everything that the worker says, because requests overtake each other; 0 = it does not count.
    #[serde(default)]
    pub serial: u64,
    /// The protocol that the [`Welcome`] named.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
}

/// An attempt in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// A tool has started.
    #[serde(default)]
    pub started: bool,
    /// What has been running for a while, more than a second, say: people see it in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningTool>,
    /// The cancel order it has already, so that it is not sent again.
    #[serde(default)]
    pub cancel: Option<CancelMode>,
    /// The grace of that order, in milliseconds: one with a shorter grace is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What became of commands, and a poll with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    /// At most [`REPORTS_MAX`].
    pub reports: Vec<Report>,
    /// Answered like a poll.
    pub poll: Poll,
}

/// What the server has to say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// Run these. A command may be sent twice: one that is known by id and epoch is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Assignment>,
    /// Stop these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancels: Vec<CancelOrder>,
    /// These could be claimed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// Held, but not (any more) this session's: stop them, report how that went, and drop them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Attempt>,
    /// Reports that are durable: drop them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Attempt>,
    /// How long the worker is believed alive from now, in milliseconds.
    pub lease_ms: u64,
}

impl Orders {
    /// Returns whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        let Orders { commands, cancels, offers, unknown, settled, lease_ms: _ } = self;
        commands.is_empty() && cancels.is_empty() && offers.is_empty() && unknown.is_empty() && settled.is_empty()
    }
}

/// One attempt of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
}

/// A command of a cancelled execution is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// Let it complete, or stop it.
    pub mode: CancelMode,
    /// Between the polite stop and the kill, in milliseconds.
    pub grace_ms: u64,
}

/// A command that a worker could claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
    /// Step name.
    pub step: Arc<str>,
    /// Kind of the first tool.
    pub kind: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
}

impl Offer {
    /// Returns the offer of a pending command.
    pub fn of(row: &CommandRow) -> Self {
        Offer {
            execution_id: row.execution_id,
            command_id: row.command_id,
            epoch: row.epoch,
            step: Arc::clone(&row.step),
            kind: Arc::clone(&row.kind),
            pool: Arc::clone(&row.pool),
        }
    }
}

/// A simple worker wants one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub session_id: SessionId,
    /// The command, or the event `command.issued` of it.
    pub id: i64,
}

/// Why a worker's request can not be answered.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The session has ended, or never was: stop everything and say hello again.
    #[error("session {0} is not known (any more): stop what runs and say hello again")]
    UnknownSession(SessionId),
    /// Another process has begun under the same name, and is alive: this one has no place any more.
    #[error("{0}")]
    NameTaken(String),
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The session was begun on a newer server: ask one of those, this one does not understand.
    #[error("{0}")]
    TooNew(String),
    /// The store could not do it; send the request again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The other side could not be reached, or did not understand.
    #[error("the server can not be reached: {0}")]
    Unreachable(String),
}

/// Why a command can not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no such command, or it is over.
    #[error("command {0} is not known, or has been settled")]
    Unknown(i64),
    /// 409.
    #[error("Execution has been cancelled")]
    Cancelled,
    /// 409.
    #[error("Execution is already {}", .0.as_str())]
    Ended(noetl_core::head::Status),
    /// 409.
    #[error("Command already claimed by {0}")]
    Taken(Arc<str>),
    /// 409.
    #[error("Command waits for a time or a child")]
    Suspended,
    /// 409.
    #[error("Execution is paused")]
    Paused,
    /// 409: what it does counts no more.
    #[error("command {id} is not held by this session under epoch {epoch} (any more): stop it")]
    NotHeld {
        /// Which command.
        id: i64,
        /// Attempt.
        epoch: u32,
    },
    /// 400.
    #[error("continuation: not what came with the last call")]
    Continuation,
    /// The session has ended, or never was.
    #[error("session {0} is not known (any more): say hello again")]
    UnknownSession(SessionId),
    /// The store could not do it; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The way from a worker to a server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Begins a session.
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError>;

    /// Asks for work and orders; hangs until there are some, at most as long as the poll says.
    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError>;

    /// Reports outcomes. Answered when they are durable.
    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError>;

    /// Returns a playbook version, compiled.
    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError>;

    /// Returns a large result.
    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError>;

    /// Hands over what tools printed. Nothing waits for it: what is lost is lost.
    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError>;

    /// Returns a credential to whoever holds a live command.
    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError>;

    /// Returns a token that is kept.
    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError>;

    /// Keeps a token for so many milliseconds.
    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError>;

    /// Returns whether the execution is known to be over, by a look that costs next to nothing.
    ///
    /// Over the network the open poll brings the news; there it asks only when that may have been overtaken.
    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool;
}

/// The transport inside one process: function calls, nothing encoded.
#[derive(Debug, Clone)]
pub struct Local(pub Arc<Engine>);

#[async_trait]
impl Transport for Local {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        self.0.hello(hello).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        self.0.poll(poll).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        self.0.report(reports).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        match self.0.playbook(catalog_id).await? {
            Some((_, playbook)) => Ok(playbook),
            None => Err(WorkerError::Bad(format!("playbook version {catalog_id} is not in the catalog"))),
        }
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        match self.0.stored_result(reference).await? {
            Some(data) => Ok(data),
            None => Err(WorkerError::Bad(format!("there is no result {reference}"))),
        }
    }

    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
        Ok(self.0.keep_log(lines).await?)
    }

    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        self.0.credential(warrant, alias).await
    }

    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        self.0.kept_secret(warrant, under).await
    }

    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError> {
        self.0.keep_secret(warrant, under, value, life_ms).await
    }

    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool {
        self.0.has_ended(execution_id)
    }
}
