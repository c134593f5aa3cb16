//! Cancelling: one execution, or one member of a cascade.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::append::Append;
use crate::head::HeadView;
use crate::id::{CommandId, ExecutionId, IdSource};
use crate::playbook::CancelMode;
use crate::time::Timestamp;

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 4096;
/// Grace of an interrupt when neither request, step nor playbook names one, in milliseconds.
pub const GRACE_MS_DEFAULT: u64 = 10_000;

/// Who wants what, for one execution or a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The execution that the request named.
    pub requested_execution_id: ExecutionId,
    /// Free text.
    pub reason: Option<String>,
    /// The authenticated identity, else `api`, `cli`, `timeout`, `parent`, `cleanup`, `concurrency`.
    pub cancelled_by: String,
    /// Self-declared.
    pub requested_by: Option<String>,
    /// Where the request came from.
    pub remote: Option<String>,
    /// Descendants too.
    pub cascade: bool,
    /// An explicit mode; else each execution's own, else [`Request::default_mode`].
    pub mode: Option<CancelMode>,
    /// The server's setting.
    pub default_mode: CancelMode,
    /// Grace of an interrupt, in milliseconds, when the request says.
    pub grace_ms: Option<u64>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// A command held by a worker at the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Which.
    pub command_id: CommandId,
    /// Whose.
    pub execution_id: ExecutionId,
    /// Step name.
    pub step: Arc<str>,
    /// Attempt.
    pub epoch: u32,
    /// The worker's name.
    pub worker: Option<Arc<str>>,
    /// Tool kind.
    pub tool: Arc<str>,
    /// Whether an interrupt can end it.
    pub stoppable: bool,
}

/// What cancelling one execution means now.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is cancelled by this append.
    Cancelled {
        /// To be written.
        append: Box<Append>,
        /// What workers hold.
        in_flight: Vec<InFlight>,
        /// Nothing runs: the append holds the proof too.
        quiesced: bool,
        /// The mode that holds for this execution.
        mode: CancelMode,
    },
    /// It was cancelled before and has not quiesced; this append stops it harder.
    Escalated {
        /// To be written.
        append: Box<Append>,
        /// What workers hold.
        in_flight: Vec<InFlight>,
    },
    /// It had ended; nothing is written.
    AlreadyEnded,
    /// The same idempotency key cancelled it; nothing is written.
    Repeated {
        /// What workers still hold.
        in_flight: Vec<InFlight>,
    },
}

/// Decides a cancel of the execution under `view`.
pub fn decide(_view: &HeadView, _request: &Request, _now: Timestamp, _ids: &mut IdSource) -> Answer {
    unimplemented!()
}
