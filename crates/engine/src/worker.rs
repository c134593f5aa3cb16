//! The worker: takes commands, runs their pipelines, reports.
//!
//! `foreman` talks to the server and keeps the books; `slot` runs one command at a time; `secrets` is what it may know.

mod foreman;
mod secrets;
mod slot;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use noetl_core::secret::keychain::Wanted;
use noetl_core::tool::{ErrorKind, StopOrder, ToolCall, ToolError, ToolOutcome};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::transport::Transport;
pub use crate::worker::secrets::CommandSecrets;
use crate::worker::slot::Shared;

/// What runs the tools.
#[async_trait]
pub trait Tools: Send + Sync + 'static {
    /// Runs one tool in `slot` to its end, or stops it when `stop` says so; returns only when nothing of it is left.
    async fn run(&self, slot: usize, call: ToolCall, stop: Stop, secrets: &Arc<CommandSecrets>) -> ToolOutcome;

    /// Returns the process that leads what runs in `slot` now, when it is one of its own. For people.
    fn running_pid(&self, _slot: usize) -> Option<u32> {
        None
    }

    /// Returns a secret from outside of noetl: the answer to a token request, or what a provider has under a name.
    async fn fetch_secret(&self, wanted: Wanted) -> Result<Value, ToolError> {
        drop(wanted);
        Err(ToolError::hard(ErrorKind::Config, "NOT_CONFIGURED", "this worker has no way to secrets elsewhere"))
    }
}

/// Where a running tool hears that it is to stop. Clones hear the same.
#[derive(Debug, Clone)]
pub struct Stop {
    orders: watch::Receiver<Option<StopOrder>>,
}

impl Stop {
    /// Returns a stop and what gives it.
    pub fn channel() -> (watch::Sender<Option<StopOrder>>, Stop) {
        let (sender, orders) = watch::channel(None);
        (sender, Stop { orders })
    }

    /// Returns one that never comes.
    pub fn never() -> Stop {
        Stop::channel().1
    }

    /// Returns the order, if there is one by now.
    pub fn now(&self) -> Option<StopOrder> {
        *self.orders.borrow()
    }

    /// Waits for an order; returns at once if there is one already. Never returns when none can come any more.
    pub async fn ordered(&mut self) -> StopOrder {
        loop {
            if let Some(order) = *self.orders.borrow_and_update() {
                return order;
            }
            if self.orders.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for an order that differs from `last`: a shorter grace. Never returns when none can come any more.
    pub async fn changed_from(&mut self, last: StopOrder) -> StopOrder {
        loop {
            match *self.orders.borrow_and_update() {
                Some(order) if order != last => return order,
                Some(_) | None => {}
            }
            if self.orders.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its name.
    pub worker_id: Arc<str>,
    /// What tells this process from others of the same name; without it a worker that another one of its name has
    /// displaced takes its place back.
    pub instance: Option<Arc<str>>,
    /// How many commands it runs at once.
    pub slots: u32,
    /// Which pools it serves.
    pub pools: Vec<Arc<str>>,
    /// How long running commands get after shutdown was asked, in milliseconds.
    pub drain_ms: u64,
    /// Between the polite stop and the kill when the worker itself decides to stop a tool, in milliseconds.
    pub grace_ms: u64,
    /// Its version, for people.
    pub version: String,
    /// Host, pid and the like, for people.
    pub meta: Value,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        WorkerOptions {
            worker_id: Arc::from("worker"),
            instance: None,
            slots: 8,
            pools: vec![Arc::from("default")],
            drain_ms: 30_000,
            grace_ms: 5_000,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            meta: Value::Null,
        }
    }
}

/// Why a worker has left. Nothing of it runs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It was asked to.
    Drained,
    /// Another process has begun under its name.
    NameTaken,
}

/// A worker.
pub struct Worker {
    shared: Arc<Shared>,
    options: WorkerOptions,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Worker {
    /// Returns a worker; it does nothing until [`Worker::run`].
    pub fn new(
        transport: Arc<dyn Transport>,
        tools: Arc<dyn Tools>,
        clock: Arc<dyn Clock>,
        options: WorkerOptions,
    ) -> Self {
        Worker { shared: Arc::new(Shared::new(transport, tools, clock)), options }
    }

    /// Works until `shutdown`, then drains; or until another worker has taken its name. Dropping the future ends it like
    /// a crash.
    pub async fn run(self, shutdown: CancellationToken) -> Left {
        foreman::run(self.shared, self.options, shutdown).await
    }
}
