//! What a noetl worker can run, and how each tool is stopped.
//!
//! A [`Toolbox`] has *slots*; a slot runs one tool at a time. Each tool is one file with one entry; child
//! processes run under the [supervisor](supervise_main), so that "it is over" always means "nothing of it is
//! left". What belongs to running a tool is here; what a result means to an execution is not.
//!
//! In reading order: [`Toolbox::run`]; the tools `noop`, `shell`, `python`, `http`, `postgres`, `duckdb`, `transfer`,
//! `secrets`;
//! `slot`, what they run in; `stop` and `output`, the two lines to the outside; `process`, the heart of it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use noetl_core::playbook::UNSUPPORTED_KINDS;
use noetl_core::secret::TOOL_KIND;
use noetl_core::tool::kind::{self, KindInfo};
use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use serde_json::Value;
use tokio::sync::Mutex;

mod noop;
mod shell;

mod python;

mod http;

mod slot;

mod stop;

mod output;

mod environment;

mod secrets;

mod sources;

mod sql;

mod postgres;

mod duckdb;

mod transfer;

mod failure;

mod process;

pub use environment::{ALWAYS_EXPOSED, NEEDED_TO_RUN, PROXIES};
pub use http::{BODY_BYTES_MAX, REDIRECTS_MAX, TIMEOUT_DEFAULT_MS};
pub use output::{LINE_BYTES_MAX, LogSink, OUTPUT_BYTES_MAX, Stream};
pub use process::supervise_main;
pub use process::supervisor::SupervisorCommand;
pub use secrets::{Credential, NoSecrets, Secrets, unknown_credential};
pub use stop::{StopHandle, StopSignal, stop_line};

use slot::Slot;
use stop::Brake;

/// Grace for a tool whose time is over, unless the configuration says otherwise.
pub const TIMEOUT_GRACE: Duration = Duration::from_secs(10);

/// What a toolbox needs to know of its machine.
#[derive(Debug, Clone)]
pub struct ToolboxConfig {
    /// How many tools run at a time.
    pub slots: usize,
    /// The python interpreter: a name on PATH, or a path.
    pub python: String,
    /// Names of environment variables that tools see beside [`ALWAYS_EXPOSED`].
    pub expose_env: Vec<String>,
    /// The folder of the secret provider `file`; `None` = it is not configured.
    pub secrets_dir: Option<PathBuf>,
    /// Working directory of tools; relative `cwd` and script paths start here.
    pub directory: PathBuf,
    /// Where the server answers that commands come from, as code is told; `None` = at no address of its own.
    pub server_url: Option<String>,
    /// How to start a process supervisor.
    pub supervisor: SupervisorCommand,
    /// Between the polite stop and the kill of a tool whose time is over.
    pub timeout_grace: Duration,
    /// Whether to use control groups where the machine allows it. Without, killing is less sudden, not less sure.
    pub cgroups: bool,
}

/// What a toolbox runs; how each is stopped is declared in [`noetl_core::tool::kind`].
const KINDS: [&str; 8] = ["duckdb", "http", "noop", "postgres", "python", TOOL_KIND, "shell", "transfer"];

/// Returns the kinds of tools that a toolbox runs.
pub fn kinds() -> impl Iterator<Item = &'static KindInfo> {
    KINDS.iter().filter_map(|word| kind::info(word))
}

/// Everything a worker can run.
#[derive(Debug)]
pub struct Toolbox {
    settings: Settings,
    databases: postgres::Pool,
    slots: Vec<Place>,
    clients: http::Clients,
}

/// What a running tool may reach of whoever runs it.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// Takes what it prints.
    pub log: &'a dyn LogSink,
    /// Hands out credentials.
    pub secrets: &'a dyn Secrets,
}

impl fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Place {
    slot: Mutex<Slot>,
    /// The slot's own, readable while it is in use.
    running: Arc<AtomicI32>,
}

/// What the tools themselves need to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) python: String,
    /// The whole environment of tools.
    pub(crate) env: Vec<(String, String)>,
    /// Names that were exposed on purpose.
    pub(crate) expose_env: Vec<String>,
    pub(crate) secrets_dir: Option<PathBuf>,
    pub(crate) directory: PathBuf,
    pub(crate) server_url: Option<String>,
    pub(crate) supervisor: SupervisorCommand,
    pub(crate) timeout_grace: Duration,
    pub(crate) cgroups: bool,
}

impl Place {
    fn new() -> Self {
        let running = Arc::default();
        Place { slot: Mutex::new(Slot::new(&running)), running }
    }
}

impl Toolbox {
    /// Returns a toolbox; nothing is started before the first tool runs.
    ///
    /// # Errors
    /// If the directory does not exist or is not UTF-8.
    pub fn new(config: ToolboxConfig) -> io::Result<Self> {
        let directory = std::path::absolute(config.directory)?;
        if !directory.is_dir() || directory.to_str().is_none() {
            let message = format!("{} can not be the directory of tools", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        let settings = Settings {
            python: config.python,
            env: environment::exposed(&config.expose_env, std::env::vars_os()),
            expose_env: config.expose_env,
            secrets_dir: config.secrets_dir,
            directory,
            server_url: config.server_url,
            supervisor: config.supervisor,
            timeout_grace: config.timeout_grace,
            cgroups: config.cgroups,
        };
        Ok(Toolbox {
            settings,
            databases: postgres::Pool::default(),
            slots: (0..config.slots).map(|_| Place::new()).collect(),
            clients: http::Clients::default(),
        })
    }

    /// Runs one tool in a slot and returns when nothing of it runs any more.
    ///
    /// A slot that is in use is waited for. Dropping the future kills the tool, but then nobody is told when it
    /// is gone: to stop a tool, use the signal.
    pub async fn run(&self, slot: usize, call: ToolCall, stop: StopSignal, outside: Outside<'_>) -> ToolOutcome {
        let Some(place) = self.slots.get(slot) else {
            let message = format!("there is no slot {slot}: the toolbox has {}", self.slots.len());
            return ToolOutcome::failed(ToolError::hard(ErrorKind::Config, "NO_SLOT", message), Value::Null);
        };
        let mut home = place.slot.lock().await;
        if stop.current().is_some() {
            let error = ToolError::soft(ErrorKind::Cancelled, "CANCELLED", "stopped before it began");
            return ToolOutcome { stopped: Some(Stopped::Stopped), ..ToolOutcome::failed(error, Value::Null) };
        }
        let settings = &self.settings;
        let limit_ms = match &*call.kind {
            "http" => call.timeout_ms.or(Some(TIMEOUT_DEFAULT_MS)),
            _ => call.timeout_ms,
        };
        let mut brake = Brake::new(stop, limit_ms, settings.timeout_grace);
        // Taken out while it is used: if this future is dropped half-way, so is the slot's supervisor, with
        // everything below it.
        let mut slot = std::mem::replace(&mut *home, Slot::new(&place.running));
        let outcome = match &*call.kind {
            "duckdb" => duckdb::run(&mut slot, settings, &self.clients, &call, &mut brake, outside).await,
            "http" => http::run(&self.clients, &call, &mut brake, outside).await,
            "noop" => noop::run(&call),
            "postgres" => postgres::run(&self.databases, settings, &self.clients, &call, &mut brake, outside).await,
            "python" => python::run(&mut slot, settings, &self.clients, &call, &mut brake, outside).await,
            TOOL_KIND => self.fetch(&call),
            "shell" => shell::run(&mut slot, settings, &call, &mut brake, outside.log).await,
            "transfer" => {
                let (pool, clients) = (&self.databases, &self.clients);
                let means = transfer::Means { pool, clients, settings, call: &call, outside };
                transfer::run(&mut slot, means, &mut brake).await
            }
            unknown => {
                let known = if UNSUPPORTED_KINDS.contains(&unknown) { "is not supported" } else { "is not known" };
                let message = format!("the tool kind `{unknown}` {known}: this worker has {}", KINDS.join(", "));
                ToolOutcome::failed(ToolError::hard(ErrorKind::Config, "UNKNOWN_KIND", message), Value::Null)
            }
        };
        slot.running.store(0, Ordering::Relaxed);
        *home = slot;
        outcome
    }

    /// Returns the process that leads what runs in a slot now.
    pub fn running_pid(&self, slot: usize) -> Option<i32> {
        let pid = self.slots.get(slot)?.running.load(Ordering::Relaxed);
        (pid != 0).then_some(pid)
    }

    /// Ends everything that is still kept warm, and waits for it.
    pub async fn close(&self) {
        self.databases.clear();
        for place in &self.slots {
            let mut home = place.slot.lock().await;
            std::mem::replace(&mut *home, Slot::new(&place.running)).close().await;
        }
    }
}
