//! The server side, assembled.

use std::fmt;
use std::sync::{Arc, Mutex};

use noetl_core::head::ENGINE_VERSION;
use noetl_core::id::{CommandId, ExecutionId, IdSource};
use noetl_core::playbook::CancelMode;
use noetl_core::time::Timestamp;
use noetl_store::{Store, StoreError};
use serde_json::{Map, Value};
use tokio::task::{JoinHandle, JoinSet};

use crate::batch::{self, Batcher};
use crate::cache::Executions;
use crate::cascade::Cascades;
use crate::catalog::Shelf;
use crate::clock::StoreClock;
use crate::desk::Desk;
use crate::lease::{self, Renewals};
use crate::lru::Lru;
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::schedule::Zones;
use crate::secrets::Vault;
use crate::watch::{Alarms, Watches};
use crate::{claim, drive, hold, sweep};

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Which node this is, for ids: distinct among all servers that run at one time, and after a crash.
    pub node: u16,
    /// The newest version of decisions that it can make. While servers are replaced one by one, what needs a newer one
    /// is left to servers that have it; a cancel needs none.
    pub version: u32,
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
    /// Looks up time zones by name: they are read from files.
    pub zones: Zones,
    /// What opens the secrets that workers ask for.
    pub vault: Option<Arc<dyn Vault>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            node: 0,
            version: ENGINE_VERSION,
            environment: Arc::new(Value::Object(Map::new())),
            default_cancel_mode: CancelMode::Finish,
            lease_ms: 30_000,
            session_forget_ms: 3_600_000,
            sweep_ms: 200,
            cascade_answer_ms: 10_000,
            cache_executions: 10_000,
            cache_result_bytes: 64 * 1024 * 1024,
            cache_playbooks: 1_000,
            zones: Zones::default(),
            vault: None,
        }
    }
}

/// The server side: takes inputs, has them decided, commits, and talks to workers.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: EngineOptions,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Arc<Mutex<IdSource>>,
    pub(crate) clock: StoreClock,
    pub(crate) batcher: Batcher,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) executions: Executions,
    pub(crate) shelf: Shelf,
    pub(crate) desk: Arc<Desk>,
    pub(crate) renewals: Renewals,
    pub(crate) watches: Watches,
    pub(crate) alarms: Alarms,
    pub(crate) cascades: Arc<Cascades>,
    /// Commands offered, and whose they are.
    pub(crate) offered: Mutex<Lru<CommandId, ExecutionId>>,
}

/// Offers that are remembered.
const OFFERED_MAX: u64 = 10_000;

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).field("options", &self.options).finish_non_exhaustive()
    }
}

/// The tasks of an engine. Dropping it ends them where they stand, like a crash.
#[derive(Debug)]
#[must_use = "dropping it ends the engine's tasks"]
pub struct Running {
    engine: Arc<Engine>,
    tasks: JoinSet<()>,
    batches: JoinHandle<()>,
}

impl Running {
    /// Ends the tasks. What they have given to the store is still written; what waits stays in the tables, for this or
    /// another server.
    pub async fn stop(mut self) {
        self.engine.mailboxes.shut();
        self.engine.renewals.shut();
        self.tasks.shutdown().await;
        self.engine.batcher.close();
        if let Err(error) = (&mut self.batches).await {
            tracing::error!(%error, "the last batch was not written");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.batches.abort();
        // Whoever still waits is told that nothing will come.
        self.engine.mailboxes.shut();
        self.engine.renewals.shut();
        self.engine.batcher.shut();
    }
}

impl Engine {
    /// Returns an engine over `store`; it does nothing by itself until [`Engine::spawn`].
    pub fn new(store: Arc<dyn Store>, options: EngineOptions) -> Arc<Engine> {
        Arc::new(Engine {
            batcher: Batcher::new(Arc::clone(&store)),
            store,
            metrics: Metrics::default(),
            ids: Arc::new(Mutex::new(IdSource::new(options.node))),
            clock: StoreClock::new(),
            mailboxes: Mailboxes::new(),
            executions: Executions::new(options.cache_executions),
            shelf: Shelf::new(options.cache_playbooks, options.cache_result_bytes),
            desk: Desk::new(),
            renewals: Renewals::new(),
            watches: Watches::default(),
            alarms: Alarms::default(),
            cascades: Arc::default(),
            offered: Mutex::new(Lru::new(OFFERED_MAX)),
            options,
        })
    }

    /// Makes ids for another node from now on: somebody else may have the number that this one had.
    pub fn renumber(&self, node: u16) {
        hold(&self.ids).renumber(node);
    }

    /// Begins driving: inputs, timers, leases, cascades. Call it once; an engine that was stopped stays so.
    pub fn spawn(self: &Arc<Self>) -> Running {
        let mut tasks = JoinSet::new();
        tasks.spawn(drive::run(Arc::clone(self)));
        tasks.spawn(sweep::run(Arc::clone(self)));
        let engine = Arc::clone(self);
        tasks.spawn(async move { claim::run(&engine).await });
        let engine = Arc::clone(self);
        tasks.spawn(async move { lease::run(&engine).await });
        let engine = Arc::clone(self);
        let batches = tokio::spawn(async move { batch::run(&engine).await });
        Running { engine: Arc::clone(self), tasks, batches }
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
        self.executions.has_ended(execution_id)
    }

    /// Returns the store's clock, as far as it has been carried on here.
    pub(crate) async fn now(&self) -> Result<Timestamp, StoreError> {
        match self.clock.now() {
            Some(now) => Ok(now),
            None => {
                let now = self.store.now().await?;
                self.clock.note(now);
                Ok(now)
            }
        }
    }

    /// Returns a new id.
    pub(crate) fn next_id(&self, now: Timestamp) -> i64 {
        hold(&self.ids).next(now)
    }
}
