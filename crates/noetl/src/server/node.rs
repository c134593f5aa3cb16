//! A node: a data directory in use. Store, engine, worker and the socket, put together and taken apart in order.
//!
//! A server is a node that listens on the network too. `noetl run` is a node that leaves when its own execution is
//! over. A command that finds nobody at home is a node without worker, for a moment.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use noetl_core::playbook::CancelMode;
use noetl_engine::schedule::Zones;
use noetl_engine::transport::{Local, Transport};
use noetl_engine::worker::{Left, Worker, WorkerOptions};
use noetl_engine::{Engine, EngineOptions, Running};
use noetl_store::postgres::{Address, Postgres, PostgresOptions};
use noetl_store::sqlite::{SqliteOptions, SqliteStore};
use noetl_store::{Store, StoreError};
use noetl_tools::{ALWAYS_EXPOSED, SupervisorCommand, TIMEOUT_GRACE, Toolbox, ToolboxConfig};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listen::{self, Listener, Shared};
use super::places::Places;
use crate::api::{self, Api};
use crate::clock;
use crate::embed::{EmbedError, Owned, Owner, Role};
use crate::logs::{self, LogCarrier};
use crate::tools::{Hands, Output, SUPERVISE};
use crate::vault::key::KeySource;
use crate::vault::{Vault, VaultError};

/// How long running commands get at the end, unless told otherwise.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(30);
/// Fewest commands that a worker runs at once, unless told otherwise: most wait for something else.
const SLOTS_MIN: u32 = 4;
/// Commands per processor that a worker runs at once, unless told otherwise.
const SLOTS_PER_PROCESSOR: u32 = 2;
/// How much longer than its drain time a worker may take to be gone, before it is left behind.
const DRAIN_MARGIN: Duration = Duration::from_secs(15);

/// Why a node can not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] EmbedError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key to the secrets.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The tools.
    #[error("tools can not be run: {0}")]
    Tools(std::io::Error),
}

/// The name of the worker inside the owner of a directory, whoever that is. A second session under one name ends the
/// first: so what a killed owner's worker held is given out again as soon as the next owner is up, not after a lease.
const EMBEDDED: &str = "embedded";

/// The worker of a node.
#[derive(Clone)]
pub struct WorkerSettings {
    /// Its name. The worker inside a node is always called `embedded`.
    pub name: Arc<str>,
    /// How many commands it runs at once; `None` = twice the processors, at least 4.
    pub slots: Option<u32>,
    /// Which pools it serves.
    pub pools: Vec<Arc<str>>,
    /// How long running commands get when the node stops.
    pub drain: Duration,
    /// The python interpreter.
    pub python: String,
    /// The folder of the secret provider `file`.
    pub secrets_dir: Option<PathBuf>,
    /// Working directory of tools.
    pub directory: PathBuf,
    /// Where its server answers, as tools are told.
    pub server_url: Option<String>,
    /// Takes what tools print.
    pub output: Option<Output>,
    /// How to start a process supervisor; `None` = this very executable.
    pub supervisor: Option<SupervisorCommand>,
}

impl fmt::Debug for WorkerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSettings").field("slots", &self.slots).field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        WorkerSettings {
            name: worker_name().into(),
            slots: None,
            pools: vec![Arc::from("default")],
            drain: DRAIN_DEFAULT,
            python: "python3".to_owned(),
            secrets_dir: None,
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            server_url: None,
            output: None,
            supervisor: None,
        }
    }
}

/// How a node is to be.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// What it is there for.
    pub role: Role,
    /// Its worker. A node without one only decides.
    pub worker: Option<WorkerSettings>,
    /// Whether it goes on with what waits in the store. A visit only answers what it is asked.
    pub drive: bool,
    /// Environment variables that templates and tools see, beside those that all of them see.
    pub expose_env: Vec<String>,
    /// How a cancel treats what runs when neither request nor playbook says.
    pub default_cancel_mode: CancelMode,
    /// Whether credentials are shown as they are, and not masked, to whoever may ask at all.
    pub allow_secret_read: bool,
    /// The database that it shares with other servers; `None` = the file in its directory.
    pub database: Option<Address>,
}

impl NodeOptions {
    /// Returns the options of a server, or of a run.
    pub fn working(role: Role, worker: Option<WorkerSettings>) -> Self {
        let default_cancel_mode = CancelMode::Finish;
        NodeOptions {
            role,
            worker,
            drive: true,
            expose_env: Vec::new(),
            default_cancel_mode,
            allow_secret_read: false,
            database: None,
        }
    }

    /// Returns the options of a command that only looks, or changes one thing.
    pub fn visit() -> Self {
        NodeOptions { drive: false, ..NodeOptions::working(Role::Visit, None) }
    }
}

/// A data directory in use.
#[derive(Debug)]
pub struct Node {
    api: Api,
    owned: Owned,
    role: Role,
    running: Option<Running>,
    worker: Option<AtWork>,
    socket: JoinHandle<()>,
    stopping: CancellationToken,
    leaving: CancellationToken,
}

#[derive(Debug)]
struct AtWork {
    task: JoinHandle<Left>,
    carrier: LogCarrier,
    shutdown: CancellationToken,
    toolbox: Arc<Toolbox>,
    patience: Duration,
}

impl Node {
    /// Opens the store, begins to work, and answers on the directory's socket.
    pub async fn start(owned: Owned, options: NodeOptions) -> Result<Node, NodeError> {
        // The socket is bound last of all that can fail, so that a guest never meets an owner that gives up.
        let (store, numbers) = open(&owned, &options).await?;
        let number = *numbers.borrow();
        let vault = open_vault(&owned, &store, number, &options).await?;
        let engine = Engine::new(Arc::clone(&store), engine_options(&options, number, &vault));
        tokio::spawn(renumber(numbers, Arc::downgrade(&engine), Arc::downgrade(&vault)));
        let (stopping, leaving) = (CancellationToken::new(), CancellationToken::new());
        let worker = match &options.worker {
            Some(settings) => Some(prepare(&engine, settings, &options)?),
            None => None,
        };
        let listener = owned.listen()?;
        let running = options.drive.then(|| engine.spawn());
        let worker = worker.map(Prepared::begin);
        let api = Api::new(engine, stopping.clone()).keeping(vault).leaving_by(options.role, leaving.clone());
        let (listener, shared) = (Listener::Unix(listener), Shared::new(Places::as_allowed(api.connections())));
        let socket = tokio::spawn(listen::serve(listener, api::router(api.clone()), shared, stopping.clone()));
        tracing::info!(directory = %owned.dir().path().display(), worker = worker.is_some(), "the node is up");
        Ok(Node { api, owned, role: options.role, running, worker, socket, stopping, leaving })
    }

    /// Returns the interface as a service, for other listeners or for calls inside this process.
    pub fn router(&self) -> Router {
        api::router(self.api.clone())
    }

    /// Returns what connections of listeners on the network share.
    pub fn shared(&self) -> Shared {
        Shared::new(Places::as_allowed(self.api.connections()))
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.api.engine
    }

    /// Says where this node listens on the network, for whoever comes second.
    pub fn announce(&mut self, url: Option<String>) -> Result<(), EmbedError> {
        self.owned.announce(&Owner { pid: std::process::id(), role: self.role, url, since: clock::now() })
    }

    /// Returns what ends when this node begins to stop answering.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Returns what ends when a server wants this directory: whoever runs this node should [`Node::stop`] it, and go
    /// on as a guest. A server is never asked.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Stops in order: the worker drains while everything still answers, then nobody is answered any more, then the
    /// store is closed and the directory given up.
    pub async fn stop(self) {
        if let Some(worker) = self.worker {
            worker.drain().await;
        }
        self.stopping.cancel();
        // Ends within its own bound.
        self.socket.await.ok();
        if let Some(running) = self.running {
            running.stop().await;
        }
        if let Err(error) = self.api.engine.store().close().await {
            tracing::warn!(%error, "the store did not close");
        }
        tracing::info!("the node is down");
        drop(self.owned);
    }
}

/// Opens the store; returns it with the number that ids of this node hold, which may change.
async fn open(owned: &Owned, options: &NodeOptions) -> Result<(Arc<dyn Store>, watch::Receiver<u16>), NodeError> {
    if let Some(address) = &options.database {
        let store = Postgres::open(PostgresOptions::new(address.clone())).await?;
        let numbers = store.node();
        let number = *numbers.borrow();
        tracing::info!(database = %address.shown(), number, "this server shares a database");
        return Ok((Arc::new(store), numbers));
    }
    Ok((open_directory(owned).await?, watch::channel(random_node()).1))
}

/// Tells whoever makes ids of another number, for as long as there is a store that may have to take one.
async fn renumber(mut numbers: watch::Receiver<u16>, engine: Weak<Engine>, vault: Weak<Vault>) {
    while numbers.changed().await.is_ok() {
        let number = *numbers.borrow_and_update();
        if let Some(engine) = engine.upgrade() {
            engine.renumber(number);
        }
        if let Some(vault) = vault.upgrade() {
            vault.renumber(number);
        }
    }
}

/// Opens the store of a directory.
pub async fn open_directory(owned: &Owned) -> Result<Arc<dyn Store>, NodeError> {
    let options = SqliteOptions::new(owned.dir().database());
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(options)).await;
    match opened {
        Ok(store) => Ok(Arc::new(store?)),
        Err(panic) => Err(StoreError::Unavailable(format!("opening it failed: {panic}")).into()),
    }
}

/// Returns the vault. Whoever only looks around needs no key, and must not be kept out by a missing one.
async fn open_vault(
    owned: &Owned,
    store: &Arc<dyn Store>,
    number: u16,
    options: &NodeOptions,
) -> Result<Arc<Vault>, NodeError> {
    let source = match &options.database {
        // A file on one machine is no key for a database that many share.
        Some(_) => KeySource::of_environment_alone()?,
        None => KeySource::of_environment(owned.dir().key_file())?,
    };
    let vault = Vault::new(Arc::clone(store), source, number, options.allow_secret_read);
    if options.drive {
        vault.check().await?;
    }
    Ok(Arc::new(vault))
}

fn engine_options(options: &NodeOptions, number: u16, vault: &Arc<Vault>) -> EngineOptions {
    let vault: Arc<dyn noetl_engine::secrets::Vault> = Arc::clone(vault) as _;
    EngineOptions {
        vault: Some(vault),
        node: number,
        environment: Arc::new(environment(&options.expose_env)),
        default_cancel_mode: options.default_cancel_mode,
        zones: Zones::new(|name| jiff::tz::TimeZone::get(name).ok()),
        ..EngineOptions::default()
    }
}

/// A number that a node of the same directory did not have a moment ago, most likely. Ids also carry the time.
fn random_node() -> u16 {
    let mut bytes = [0; 2];
    if getrandom::fill(&mut bytes).is_err() {
        return (std::process::id() & 0x3ff) as u16;
    }
    u16::from_le_bytes(bytes) & 0x3ff
}

/// Returns what templates see under `env`: of what tools see, what a playbook may have a use for.
pub fn environment(exposed: &[String]) -> Value {
    let names = ALWAYS_EXPOSED.iter().copied().chain(exposed.iter().map(String::as_str));
    let variables: BTreeMap<&str, String> =
        names.filter_map(|name| std::env::var(name).ok().map(|value| (name, value))).collect();
    json!(variables)
}

/// Returns how many commands a worker runs at once, unless told otherwise.
pub fn default_slots() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(processors).unwrap_or(u32::MAX).saturating_mul(SLOTS_PER_PROCESSOR).max(SLOTS_MIN)
}

/// Returns the name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the name of a worker that is a process of its own.
pub fn worker_name() -> String {
    format!("{}-{}", host_name(), std::process::id())
}

/// Returns a toolbox as `settings` say.
pub fn toolbox(settings: &WorkerSettings, expose_env: &[String]) -> Result<Arc<Toolbox>, NodeError> {
    let slots = settings.slots.unwrap_or_else(default_slots);
    let config = ToolboxConfig {
        slots: slots as usize,
        python: settings.python.clone(),
        expose_env: expose_env.to_vec(),
        secrets_dir: settings.secrets_dir.clone(),
        directory: settings.directory.clone(),
        server_url: settings.server_url.clone(),
        supervisor: settings.supervisor.clone().unwrap_or_else(|| SupervisorCommand::this_executable([SUPERVISE])),
        timeout_grace: TIMEOUT_GRACE,
        cgroups: true,
    };
    Toolbox::new(config).map(Arc::new).map_err(NodeError::Tools)
}

/// Returns a worker over `transport`, and what carries the logs of its tools there.
pub fn worker(
    transport: Arc<dyn Transport>,
    toolbox: &Arc<Toolbox>,
    settings: &WorkerSettings,
) -> (Worker, LogCarrier) {
    let (post, carrier) = logs::carry(Arc::clone(&transport), clock::real(), random_source());
    let tools = Hands::new(Arc::clone(toolbox), post, settings.output.clone());
    let options = WorkerOptions {
        worker_id: Arc::clone(&settings.name),
        instance: Some(random_source().to_string().into()),
        slots: settings.slots.unwrap_or_else(default_slots),
        pools: settings.pools.clone(),
        drain_ms: u64::try_from(settings.drain.as_millis()).unwrap_or(u64::MAX),
        meta: json!({
            "pid": std::process::id(),
            "host": host_name(),
        }),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..WorkerOptions::default()
    };
    (Worker::new(transport, Arc::new(tools), clock::real(), options), carrier)
}

/// A number that no other process has, most likely: lines of logs are told apart by it.
fn random_source() -> i64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        return clock::now().0 << 16 | i64::from(std::process::id() & 0xffff);
    }
    i64::from_le_bytes(bytes)
}

struct Prepared {
    worker: Worker,
    carrier: LogCarrier,
    toolbox: Arc<Toolbox>,
    patience: Duration,
}

fn prepare(engine: &Arc<Engine>, settings: &WorkerSettings, options: &NodeOptions) -> Result<Prepared, NodeError> {
    let toolbox = toolbox(settings, &options.expose_env)?;
    // In a database that is shared, a name that every server's worker has would let each end the others' sessions.
    let name = if options.database.is_some() { Arc::clone(&settings.name) } else { EMBEDDED.into() };
    let settings = WorkerSettings { name, ..settings.clone() };
    let (worker, carrier) = worker(Arc::new(Local(Arc::clone(engine))), &toolbox, &settings);
    Ok(Prepared { worker, carrier, toolbox, patience: settings.drain + DRAIN_MARGIN })
}

impl Prepared {
    fn begin(self) -> AtWork {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(self.worker.run(shutdown.clone()));
        AtWork { task, carrier: self.carrier, shutdown, toolbox: self.toolbox, patience: self.patience }
    }
}

impl AtWork {
    async fn drain(mut self) {
        self.shutdown.cancel();
        if tokio::time::timeout(self.patience, &mut self.task).await.is_err() {
            tracing::error!("the worker did not drain in time; what it ran is killed");
            self.task.abort();
        }
        self.toolbox.close().await;
        // While the store still answers.
        self.carrier.close().await;
    }
}
