//! The server side, assembled.

use std::fmt;
use std::sync::Arc;

use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_core::work::Assignment;
use noetl_store::Store;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::transport::{Claim, ClaimError, Hello, Orders, Poll, Reports, Welcome, WorkerError};

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Which node this is, for ids: distinct among all servers that run at one time, and after a crash.
    pub node: u16,
    /// What templates see under `env`.
    pub environment: Arc<Value>,
    /// How a cancel treats what runs when neither request nor playbook says.
    pub default_cancel_mode: CancelMode,
    /// How long a silent worker is believed alive, in milliseconds.
    pub lease_ms: u64,
    /// After how long a lost attempt is given up for good, in milliseconds.
    pub session_forget_ms: u64,
    /// How often obligations in the store are looked for, in milliseconds.
    pub sweep_ms: u64,
    /// How long a cascade may keep its request waiting, in milliseconds.
    pub cascade_answer_ms: u64,
    /// How many executions are kept folded.
    pub cache_executions: usize,
    /// How many bytes of large results are kept.
    pub cache_result_bytes: u64,
    /// How many playbooks are kept compiled.
    pub cache_playbooks: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            node: 0,
            environment: Arc::new(Value::Object(Map::new())),
            default_cancel_mode: CancelMode::Finish,
            lease_ms: 30_000,
            session_forget_ms: 3_600_000,
            sweep_ms: 200,
            cascade_answer_ms: 10_000,
            cache_executions: 10_000,
            cache_result_bytes: 64 * 1024 * 1024,
            cache_playbooks: 1_000,
        }
    }
}

/// The server side: takes inputs, has them decided, commits, and talks to workers.
pub struct Engine {
    store: Arc<dyn Store>,
    options: EngineOptions,
    metrics: Metrics,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).field("options", &self.options).finish_non_exhaustive()
    }
}

/// The tasks of an engine. Dropping it ends them where they stand, like a crash.
#[derive(Debug)]
#[must_use = "dropping it ends the engine's tasks"]
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends the tasks after what they have begun; what waits stays in the store.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Engine {
    /// Returns an engine over `store`; it does nothing by itself until [`Engine::spawn`].
    pub fn new(store: Arc<dyn Store>, options: EngineOptions) -> Arc<Engine> {
        Arc::new(Engine { store, options, metrics: Metrics::default() })
    }

    /// Begins driving: inputs, timers, leases, cascades. Call it once.
    pub fn spawn(self: &Arc<Self>) -> Running {
        unimplemented!()
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns how it behaves.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Returns what it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns whether this process knows the execution to be over, without asking the store.
    pub fn has_ended(&self, execution_id: ExecutionId) -> bool {
        let _ = execution_id;
        unimplemented!()
    }

    /// Begins a worker's session.
    pub async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        drop(hello);
        unimplemented!()
    }

    /// Answers a worker's poll, as soon as there is something to say.
    pub async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        drop(poll);
        unimplemented!()
    }

    /// Takes a worker's reports; answers when they are durable.
    pub async fn report(&self, batch: Reports) -> Result<Orders, WorkerError> {
        drop(batch);
        unimplemented!()
    }

    /// Claims one command for a worker that chooses by itself.
    pub async fn claim(&self, claim: Claim) -> Result<Assignment, ClaimError> {
        let _ = claim;
        unimplemented!()
    }
}
