//! The shells around the core: they read, write, wait and send, and leave every choice to `noetl-core`.
//!
//! [`Engine`] is the server side: it takes inputs, lets the core decide them on the execution they concern, and
//! commits what was decided. [`Worker`](worker::Worker) is the other side: it runs the pipelines of the commands it
//! is given. Between them stands a [`Transport`](transport::Transport); in one process that is a function call.
//!
//! Nothing here opens a socket, starts a process or reads a wall clock, and nothing depends on which task runs
//! first: the simulator runs this very code in a seeded world.
//!
//! In reading order: `engine`, what there is; `start`, `rerun`, `cancel`, `cascade`, `job`, `pause`, `stop` and `bulk`, what
//! people ask for; `mailbox`, `drive`, `lock`, `batch` and `landing`, the way of an input to the log and what follows from it;
//! `attend`, `advance`, `desk`, `claim` and `lease`, the workers; `secrets`, what they may know; `sweep`, for everything
//! that was missed; `schedule`, for what starts by the clock; `worker`, the other side.

pub mod engine;

pub mod rerun;
pub mod start;

pub mod bulk;
pub mod cancel;
mod cascade;
mod job;
mod once;

pub mod pause;
pub mod stop;

pub mod catalog;
pub mod look;

mod log;

mod mailbox;

mod drive;
mod load;
mod lock;

mod batch;
mod landing;

pub mod transport;

pub mod secrets;

mod advance;
mod attend;
mod claim;
mod desk;
mod lease;

pub mod schedule;
mod sweep;

pub mod worker;

pub mod clock;
pub mod metrics;

mod cache;
mod lru;
mod queue;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use advance::{Advance, Advanced};
pub use bulk::{BulkAnswer, BulkError, BulkRequest, Filter, Selected};
pub use cancel::{CancelAnswer, CancelError, CancelRequest, CancelStatus, Spared};
pub use catalog::{RegisterError, Registered};
pub use engine::{Engine, EngineOptions, Running};
pub use look::{Inspection, WaitFor};
pub use metrics::Metrics;
pub use pause::{Change, PauseAnswer, PauseError, PauseRequest};
pub use start::{StartError, StartRequest, Started};
pub use stop::{CompleteRequest, StopError, StopRequest, Stopped};

/// Locks what is never left half-changed, so that a panic elsewhere is no reason to stop.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
