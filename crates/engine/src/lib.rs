//! The shells around the core: they read, write, wait and send, and leave every choice to `noetl-core`.
//!
//! [`Engine`] is the server side: it takes inputs, lets the core decide them on the execution they concern, and
//! commits what was decided. [`Worker`](worker::Worker) is the other side: it runs the pipelines of the commands it
//! is given. Between them stands a [`Transport`](transport::Transport); in one process that is a function call.
//!
//! Nothing here opens a socket, starts a process or reads a wall clock, and nothing depends on which task runs
//! first: the simulator runs this very code in a seeded world.

pub mod cancel;
pub mod catalog;
pub mod clock;
pub mod engine;
pub mod look;
pub mod metrics;
pub mod start;
pub mod transport;
pub mod worker;

pub use cancel::{CancelAnswer, CancelError, CancelRequest, CancelStatus};
pub use catalog::{RegisterError, Registered};
pub use engine::{Engine, EngineOptions, Running};
pub use look::{Inspection, WaitFor};
pub use metrics::Metrics;
pub use start::{StartError, StartRequest, Started};
