//! `noetl worker`: runs commands for a server elsewhere, in the foreground or in the background.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use noetl_engine::transport::Transport;
use noetl_engine::worker::Left;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::background::{StopOptions, pid_file_failed, start_failed};
use super::console;
use super::follow::Interrupts;
use super::link::{bad_directory, bad_node};
use super::refusal;
use super::stop::{Exit, Stop};
use super::target::{Globals, Named, Target};
use crate::client::{Answer, Client};
use crate::failover::Failover;
use crate::http_transport::{HttpTransport, TransportError};
use crate::render::duration;
use crate::server::background::{self, Files, PidFile, SESSION_TOKEN_VARIABLE, StartOptions, Started, Up};
use crate::server::log_file::LogFile;
use crate::server::node::{self, WorkerSettings};
use crate::telemetry::{self, LogOptions};

/// How long a server may take to say whether it lets a worker in; one that takes longer is asked again all the time.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a worker, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Run, start and stop workers
#[derive(Debug, clap::Subcommand)]
pub enum Worker {
    /// Run a worker in the foreground, until Ctrl-C or SIGTERM; a second one ends what it runs at once
    Run(Box<RunArgs>),
    /// Start a worker in the background
    Start(Box<StartArgs>),
    /// Stop a worker in the background
    Stop(StopArgs),
}

/// How a worker is to be. --server-url says for whom; several addresses, separated by commas, are one deployment.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkArgs {
    /// Name among the workers: a second one under the same name ends the first [default: the machine's name; of `worker run` with the process id behind it]
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Commands to run at once [default: twice the processors, at least 4]
    #[arg(long, visible_alias = "worker-slots", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Pool to serve (repeatable)
    #[arg(long, value_name = "NAME", env = "NOETL_WORKER_POOL_NAME", hide_env_values = true, default_value = "default", value_delimiter = ',', value_parser = pool_name)]
    pool: Vec<String>,
    /// How long running commands get when the worker stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    drain: Duration,
    /// The python interpreter of python steps
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Environment variable that tools may see, beside PATH, HOME and others that programs need to run (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    expose_env: Vec<String>,
    /// Folder with the secrets of the provider `file`, one per file
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Speak to a server beyond this machine without encryption
    #[arg(long)]
    insecure: bool,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
    /// Accepted for older scripts: --slots says how many commands run at once
    #[arg(short, long, value_name = "COUNT", hide = true)]
    max_workers: Option<u32>,
}

/// `noetl worker run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Started in the background: nobody is at the terminal
    #[arg(long, hide = true)]
    detached: bool,
    /// Written while the worker runs
    #[arg(long, value_name = "FILE", hide = true)]
    pid_file: Option<PathBuf>,
    /// Log to this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// `noetl worker start`.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    work: WorkArgs,
}

/// `noetl worker stop`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Which one [default: the only one]
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: StopOptions,
}

impl Worker {
    /// Does what is asked.
    pub async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Worker::Run(args) => run(globals, *args).await,
            Worker::Start(args) => start(globals, &args.work).await,
            Worker::Stop(args) => stop(&args).await,
        }
    }
}

async fn run(globals: &Globals, args: RunArgs) -> Result<Exit, Stop> {
    let RunArgs { work: args, detached, pid_file, log_file } = args;
    let file = match &log_file {
        Some(path) => Some(
            LogFile::open(path)
                .map_err(|error| Stop::usage(format!("can not open the log {}: {error}", path.display())))?,
        ),
        None => None,
    };
    let _logging = telemetry::init(LogOptions { json: args.log_json, filter: None, file }).map_err(Stop::usage)?;
    let servers = servers(globals, args.insecure)?;
    if let Servers::Named(named) = &servers
        && let Some(refusal) = refused_by_all(named).await
    {
        return Err(refusal);
    }
    let Way { transport, place, url } = way(servers, args.insecure)?;
    let mut settings = WorkerSettings {
        slots: args.slots,
        pools: args.pool.iter().map(|pool| Arc::from(pool.as_str())).collect(),
        drain: args.drain,
        python: args.python,
        secrets_dir: args.secrets_dir,
        server_url: url,
        ..WorkerSettings::default()
    };
    if let Some(name) = args.name {
        settings.name = checked(&name)?.into();
    }
    let toolbox = node::toolbox(&settings, &args.expose_env).map_err(|error| bad_node(&error))?;
    let (worker, carrier) = node::worker(transport, &toolbox, &settings);
    let mut interrupts = Interrupts::listen()?;
    // Taken from the operating system, so that a terminal that goes away does not end what runs in the background.
    let hang_up = detached.then(|| signal(SignalKind::hangup())).transpose();
    let hang_up = hang_up.map_err(|error| Stop::new(Exit::Defect, format!("can not listen for signals: {error}")))?;
    // Last of all that can fail: whoever waits for this process takes it for a sign that it is up.
    let pid_file = pid_file.as_deref().map(|path| PidFile::create(path, None)).transpose();
    let pid_file = pid_file.map_err(|error| pid_file_failed(&error))?;
    let shutdown = CancellationToken::new();
    let mut work = tokio::spawn(worker.run(shutdown.clone()));
    let slots = settings.slots.unwrap_or_else(node::default_slots);
    console::note(&format!(
        "worker {} for {place}, up to {slots} commands at once; Ctrl-C drains and stops it",
        settings.name
    ));
    tokio::select! {
        // A worker ends by itself only when it has lost its place, or is broken.
        ended = &mut work => {
            let left = ended.map_err(|error| Stop::new(Exit::Defect, format!("the worker ended: {error}")))?;
            toolbox.close().await;
            carrier.close().await;
            return match left {
                Left::Drained => Ok(Exit::Failed),
                Left::NameTaken => {
                    let name = &settings.name;
                    let taken = format!("another worker called `{name}` has taken this one's place");
                    Err(Stop::new(Exit::Failed, taken).hint("give each worker a name of its own with --name"))
                }
            };
        }
        () = interrupts.next() => {}
    }
    console::note("stopping: what runs may end; once more ends it now");
    shutdown.cancel();
    let drained = tokio::select! {
        ended = &mut work => ended.is_ok(),
        () = interrupts.next() => false,
    };
    work.abort();
    toolbox.close().await;
    carrier.close().await;
    drop((pid_file, hang_up));
    Ok(if drained { Exit::Done } else { Exit::Interrupted })
}

async fn start(globals: &Globals, args: &WorkArgs) -> Result<Exit, Stop> {
    // Everything that is wrong with the options is said here, and not in a log.
    let servers = servers(globals, args.insecure)?;
    let name = match &args.name {
        Some(name) => checked(name)?.to_owned(),
        None => node::host_name(),
    };
    let files = Files::worker(&name).map_err(|error| bad_directory(&error))?;
    let start = StartOptions {
        command: "worker",
        args: arguments(globals, args, &name, &servers),
        up: Up::Runs,
        environment: environment(globals, &servers),
        files: files.clone(),
    };
    match background::start(&start).await.map_err(|error| start_failed(&error))? {
        Started::Up { pid, url: _ } => {
            let (pid_file, log) = (files.pid_file.display(), files.log_file.display());
            console::print(&format!("Worker {name} started with PID {pid}\nPID file: {pid_file}\nLog: {log}\n"))?;
        }
        Started::Already { pid, url: _ } => {
            console::print(&format!("Worker {name} is already running with PID {pid}\n"))?;
            return Ok(Exit::Done);
        }
    }
    if let Servers::Named(named) = &servers
        && !any_answers(named).await
    {
        console::note("no server answers yet: the worker goes on trying");
    }
    Ok(Exit::Done)
}

/// Returns what goes on to the process in the background, and is no matter of its command line.
fn environment(globals: &Globals, servers: &Servers) -> Vec<(&'static str, String)> {
    // A token may come from a context, which the addresses do not name. A file is named, and read there.
    let token = match servers {
        Servers::Named(named) if globals.token_file.is_none() => named.first().and_then(|named| named.token.clone()),
        Servers::Named(_) | Servers::Socket(_) => None,
    };
    token.map(|token| (SESSION_TOKEN_VARIABLE, token)).into_iter().collect()
}

/// Returns the arguments that make `worker run` in the background what was asked for here.
fn arguments(globals: &Globals, args: &WorkArgs, name: &str, servers: &Servers) -> Vec<OsString> {
    // Named one by one, so that none is forgotten.
    let WorkArgs { name: _, slots, pool, drain, python, expose_env, secrets_dir, insecure, log_json, max_workers: _ } =
        args;
    let mut out: Vec<OsString> = Vec::new();
    let mut pair = |name: &str, value: OsString| out.extend([OsString::from(name), value]);
    match servers {
        Servers::Named(named) => {
            let urls: Vec<&str> = named.iter().map(|named| named.url.as_str()).collect();
            pair("--server-url", urls.join(",").into());
        }
        Servers::Socket(path) => {
            // The data directory is the socket's.
            pair("--data-dir", path.parent().unwrap_or(path).into());
        }
    }
    pair("--name", name.into());
    pair("--drain", format!("{}ms", drain.as_millis()).into());
    pair("--python", python.clone().into());
    if let Some(slots) = slots {
        pair("--slots", slots.to_string().into());
    }
    if let Some(path) = secrets_dir {
        pair("--secrets-dir", std::path::absolute(path).unwrap_or_else(|_| path.clone()).into_os_string());
    }
    if let Some(path) = &globals.token_file {
        pair("--token-file", std::path::absolute(path).unwrap_or_else(|_| path.clone()).into_os_string());
    }
    for pool in pool {
        pair("--pool", pool.into());
    }
    for name in expose_env {
        pair("--expose-env", name.into());
    }
    let flags = [("--insecure", *insecure), ("--log-json", *log_json)];
    out.extend(flags.iter().filter(|(_, given)| *given).map(|(name, _)| OsString::from(name)));
    out
}

/// Returns why nobody lets this worker in: every server answers, and every one of them refuses.
///
/// A server that does not answer may come up later, so the worker goes on trying.
async fn refused_by_all(named: &[Named]) -> Option<Stop> {
    let mut refusal = None;
    for answer in join_all(named.iter().map(knock)).await {
        let (server, answer) = answer?;
        if !matches!(answer.status.as_u16(), 401 | 403) {
            return None;
        }
        let stop = refusal::of(&answer);
        let message = format!("{server} refuses this worker: {}", stop.message);
        refusal.get_or_insert(Stop { message, ..stop });
    }
    refusal
}

/// Asks for something that needs the token, as everything that a worker asks does.
async fn knock(server: &Named) -> Option<(&str, Answer)> {
    let client = Client::to_url(&server.url, server.token.as_deref()).ok()?;
    let answer = tokio::time::timeout(KNOCK_TIMEOUT, client.get(&["pool", "status"]).send()).await;
    Some((&server.url, answer.ok()?.ok()?))
}

async fn any_answers(named: &[Named]) -> bool {
    for server in named {
        if let Ok(client) = Client::to_url(&server.url, server.token.as_deref())
            && client.get(&["health"]).send().await.is_ok()
        {
            return true;
        }
    }
    false
}

async fn stop(args: &StopArgs) -> Result<Exit, Stop> {
    let found = match &args.name {
        Some(name) => {
            let files = Files::worker(name).map_err(|error| bad_directory(&error))?;
            background::find(&files.pid_file).map_err(|error| pid_file_failed(&error))?
        }
        None => only_one()?,
    };
    match (found, &args.name) {
        (Some(found), _) => args.options.stop(&found, "the worker").await,
        (None, Some(name)) => {
            let message = format!("no worker called `{name}` runs in the background");
            let running = running()?;
            let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
            let stop = Stop::new(Exit::Unknown, message);
            Err(if names.is_empty() { stop } else { stop.hint(format!("those that do: {}", names.join(", "))) })
        }
        (None, None) => {
            console::print("No such worker is running in the background\n")?;
            Ok(Exit::Done)
        }
    }
}

/// Returns the workers in the background, by name.
fn running() -> Result<Vec<(String, background::Found)>, Stop> {
    let mut running = Vec::new();
    for (name, files) in Files::workers().map_err(|error| bad_directory(&error))? {
        if let Some(found) = background::find(&files.pid_file).map_err(|error| pid_file_failed(&error))? {
            running.push((name, found));
        }
    }
    Ok(running)
}

/// Returns the only worker in the background.
fn only_one() -> Result<Option<background::Found>, Stop> {
    let mut running = running()?;
    if running.len() > 1 {
        let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Stop::usage("several workers run in the background")
            .hint(format!("say which with --name: {}", names.join(", "))));
    }
    Ok(running.pop().map(|(_, found)| found))
}

fn checked(name: &str) -> Result<&str, Stop> {
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Stop::usage(format!("--name: expected one line of 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(name)
}

/// Reads the name of a pool.
fn pool_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a pool needs a name".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// For whom a worker works.
enum Servers {
    /// Servers of one deployment.
    Named(Vec<Named>),
    /// The owner of a data directory.
    Socket(PathBuf),
}

/// Returns the servers that are meant, checked. The owner of the data directory counts as one.
fn servers(globals: &Globals, insecure: bool) -> Result<Servers, Stop> {
    let named = match globals.target()? {
        Target::Server(named) | Target::Directory { fallback: Some(named), .. } => named,
        Target::Database(_) => return Err(Stop::usage("a worker speaks to a server, not to a database")),
        Target::Directory { directory, fallback: None } => {
            // A short path of its own process would end with this function, so the plain one is used.
            drop(directory.socket().map_err(|error| bad_directory(&error))?);
            return Ok(Servers::Socket(directory.path().join("noetl.sock")));
        }
    };
    let urls = named.url.split(',').map(str::trim).filter(|url| !url.is_empty());
    let all: Vec<Named> = urls.map(|url| Named { url: url.to_owned(), ..named.clone() }).collect();
    if all.is_empty() {
        return Err(Stop::usage(format!("{} names no server", named.named_by)));
    }
    for one in &all {
        HttpTransport::to_url(&one.url, None, insecure).map_err(|error| refuse(&error))?;
    }
    Ok(Servers::Named(all))
}

fn refuse(error: &TransportError) -> Stop {
    match error {
        TransportError::Url(_) | TransportError::Insecure(_) => Stop::usage(error.to_string()),
        TransportError::Client(_) => Stop::new(Exit::Defect, error.to_string()),
    }
}

/// The way to the servers that are meant.
struct Way {
    transport: Arc<dyn Transport>,
    /// What to call them.
    place: String,
    /// The first one's address, if it has one.
    url: Option<String>,
}

fn way(servers: Servers, insecure: bool) -> Result<Way, Stop> {
    match servers {
        Servers::Socket(socket) => {
            let transport = HttpTransport::to_socket(&socket).map_err(|error| refuse(&error))?;
            let place = socket.parent().unwrap_or(&socket).display().to_string();
            Ok(Way { transport: Arc::new(transport), place, url: None })
        }
        Servers::Named(named) => {
            let url = named.first().map(|first| first.url.clone());
            let mut ways = Vec::with_capacity(named.len());
            for one in named {
                let way = HttpTransport::to_url(&one.url, one.token, insecure).map_err(|error| refuse(&error))?;
                ways.push((one.url, way));
            }
            let place = ways.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>().join(", ");
            let failover = Failover::new(ways, std::process::id() as usize);
            let failover = failover.ok_or_else(|| Stop::usage("--server-url names no server"))?;
            Ok(Way { transport: Arc::new(failover), place, url })
        }
    }
}
