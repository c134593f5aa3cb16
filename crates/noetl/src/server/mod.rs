//! A server: a node that listens on the network, until it is told to stop.

pub mod arriving;
mod ask;
pub mod background;
pub mod doors;
pub mod listen;
pub mod log_file;
pub mod node;
pub mod places;
pub mod stream;
pub mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use noetl_core::playbook::CancelMode;
use noetl_store::postgres::Address;
use reqwest::Method;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::background::{PidFile, PidFileError};
use self::doors::{DoorOptions, Doors, DoorsError};
use self::listen::{Listener, TlsConfig};
use self::node::{Node, NodeError, NodeOptions, WorkerSettings};
use self::tls::TlsError;
use crate::clock;
use crate::embed::{DataDir, EmbedError, Owned, Role};

/// Where a server listens, unless told otherwise.
pub const HOST_DEFAULT: &str = "localhost";
/// The port, unless told otherwise.
pub const PORT_DEFAULT: u16 = 8082;
/// Pause between two tries to take a directory that somebody is leaving.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where everything is kept.
    pub data_dir: DataDir,
    /// Where to listen: a name or an address. `localhost` means both families.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// Who may come in.
    pub doors: DoorOptions,
    /// Certificate and key, to speak TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The worker inside; `None` for `--no-worker`.
    pub worker: Option<WorkerSettings>,
    /// Environment variables that templates and tools see.
    pub expose_env: Vec<String>,
    /// How a cancel treats what runs when neither request nor playbook says.
    pub default_cancel_mode: CancelMode,
    /// Whether credentials are shown as they are, and not masked, to whoever may ask at all.
    pub allow_secret_read: bool,
    /// Written while the server runs.
    pub pid_file: Option<PathBuf>,
    /// Started in the background: what happens to the terminal does not matter.
    pub detached: bool,
    /// The database that it shares with other servers; `None` = the file in the directory.
    pub database: Option<Address>,
}

impl ServerOptions {
    /// Returns the usual options for a directory.
    pub fn new(data_dir: DataDir) -> Self {
        ServerOptions {
            data_dir,
            host: HOST_DEFAULT.to_owned(),
            port: PORT_DEFAULT,
            doors: DoorOptions::default(),
            tls: None,
            worker: Some(WorkerSettings::default()),
            expose_env: Vec::new(),
            default_cancel_mode: CancelMode::Finish,
            allow_secret_read: false,
            pid_file: None,
            detached: false,
            database: None,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The doors.
    #[error(transparent)]
    Doors(#[from] DoorsError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directory.
    #[error(transparent)]
    Directory(#[from] EmbedError),
    /// Store or tools.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Somebody else listens there.
    #[error("Port {host}:{port} is already in use")]
    PortInUse {
        /// Where.
        host: String,
        /// Which.
        port: u16,
    },
    /// The system refuses.
    #[error("can not listen on {host}:{port}: {problem}")]
    Listen {
        /// Where.
        host: String,
        /// Which.
        port: u16,
        /// What it says.
        problem: io::Error,
    },
    /// The PID file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// Signals can not be heard.
    #[error("signals can not be heard: {0}")]
    Signals(io::Error),
}

/// A server is up.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where it listens; the first is the one to show.
    pub urls: Vec<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The database that it shares, without its password.
    pub database: Option<String>,
    /// How many commands its worker runs at once.
    pub slots: Option<u32>,
    /// What people should be warned of.
    pub warnings: Vec<String>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Drained,
    /// At once, after a second signal: what ran was killed and will be run again.
    Forced,
}

/// Runs a server until SIGTERM or SIGINT; a second one makes it end at once.
///
/// `ready` is called when it answers. Logging is the caller's.
pub async fn run(options: ServerOptions, ready: impl FnOnce(Ready)) -> Result<Ended, ServerError> {
    tls::install_provider();
    let doors = Doors::new(&options.host, options.doors.clone())?;
    let tls = match &options.tls {
        Some((certificate, key)) => Some(tls::load(certificate, key)?),
        None => None,
    };
    // Heard from here on, so that a signal during the start is not lost.
    let mut signals = Signals::listen(options.detached).map_err(ServerError::Signals)?;
    let owned = take(&options.data_dir).await?;
    let listeners = bind(&options.host, options.port).await?;
    let pid_file = options.pid_file.as_deref();
    let pid_file = pid_file.map(|path| PidFile::create(path, Some(options.data_dir.path()))).transpose()?;
    let urls = urls(&options, &listeners);
    let worker = options.worker.clone().map(|worker| WorkerSettings { server_url: urls.first().cloned(), ..worker });
    let slots = worker.as_ref().map(|worker| worker.slots.unwrap_or_else(node::default_slots));
    let node_options = NodeOptions {
        expose_env: options.expose_env,
        default_cancel_mode: options.default_cancel_mode,
        allow_secret_read: options.allow_secret_read,
        database: options.database.clone(),
        ..NodeOptions::working(Role::Server, worker)
    };
    let mut node = Node::start(owned, node_options).await?;
    node.announce(urls.first().cloned())?;
    let warnings = warnings(&options.host, &doors, tls.as_ref());
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let router = doors.guard(node.router());
    let shared = node.shared();
    let mut serving = JoinSet::new();
    for listener in listeners {
        let listener = match &tls {
            Some(config) => Listener::Tls(listener, config.clone()),
            None => Listener::Tcp(listener),
        };
        serving.spawn(listen::serve(listener, router.clone(), shared.clone(), node.stopping()));
    }
    tracing::info!(urls = urls.join(" "), "the server is up");
    let database = options.database.as_ref().map(Address::shown);
    ready(Ready { urls, data_dir: options.data_dir.path().to_path_buf(), database, slots, warnings });
    signals.next().await;
    tracing::info!("stopping: what runs may end; a second signal ends it now");
    let ended = tokio::select! {
        () = stop(node, serving) => Ended::Drained,
        () = signals.next() => Ended::Forced,
    };
    drop(pid_file);
    Ok(ended)
}

async fn stop(node: Node, mut serving: JoinSet<()>) {
    node.stop().await;
    while serving.join_next().await.is_some() {}
}

/// Takes the directory: from nobody, or from a process that is not a server and gives way.
async fn take(dir: &DataDir) -> Result<Owned, EmbedError> {
    let mut asked = None;
    loop {
        if let Some(owned) = dir.try_take(Role::Server, clock::now())? {
            return Ok(owned);
        }
        match dir.owner() {
            Some(owner) if owner.role == Role::Server => {
                let path = dir.path().to_path_buf();
                return Err(EmbedError::SecondServer { path, pid: owner.pid, url: owner.url });
            }
            // Asked once each time it took the directory: it drains, and that takes as long as what it runs.
            Some(owner) if asked != Some((owner.pid, owner.since)) => {
                if ask::ask(&dir.socket()?, Method::POST, "/api/owner/leave").await.is_some() {
                    tracing::info!(pid = owner.pid, "waiting for another process to leave the data directory");
                    asked = Some((owner.pid, owner.since));
                }
            }
            Some(_) | None => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn bind(host: &str, port: u16) -> Result<Vec<TcpListener>, ServerError> {
    listen::bind(host, port).await.map_err(|problem| {
        let host = host.to_owned();
        if problem.kind() == io::ErrorKind::AddrInUse {
            ServerError::PortInUse { host, port }
        } else {
            ServerError::Listen { host, port, problem }
        }
    })
}

fn urls(options: &ServerOptions, listeners: &[TcpListener]) -> Vec<String> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    let mut urls: Vec<String> = addresses.map(|address| format!("{scheme}://{address}")).collect();
    if options.host.eq_ignore_ascii_case(HOST_DEFAULT) {
        let port =
            listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(options.port, |at| at.port());
        urls.insert(0, format!("{scheme}://localhost:{port}"));
    }
    urls
}

fn warnings(host: &str, doors: &Doors, tls: Option<&TlsConfig>) -> Vec<String> {
    let mut warnings = Vec::new();
    if !doors::is_loopback(host) {
        if doors.are_open() {
            warnings.push(format!(
                "everybody who reaches {host} can run code on this machine: --insecure-no-auth turns the token off"
            ));
        } else if tls.is_none() {
            warnings.push(format!("tokens travel to {host} in the clear: --tls-cert and --tls-key turn encryption on"));
        }
    }
    warnings
}

/// The signals that a server obeys.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    detached: bool,
}

impl Signals {
    fn listen(detached: bool) -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            detached,
        })
    }

    /// Waits for one. A terminal that goes away stops a server in its foreground, not one in the background.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    if !self.detached {
                        return;
                    }
                }
            }
        }
    }
}
