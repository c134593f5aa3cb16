//! `noetl server`: a server in the foreground, or in the background.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use noetl_store::StoreError;

use super::background::{StopOptions, not_looked, pid_file_failed, start_failed};
use super::cancel_mode::CancelModeArgs;
use super::console;
use super::link::{bad_directory, bad_node};
use super::stop::{Exit, Stop};
use super::target::Globals;
use crate::embed::DATA_DIR_VARIABLE;
use crate::render::duration;
use crate::server::background::{
    self, DATABASE_VARIABLE, Files, Found, SESSION_TOKEN_VARIABLE, StartOptions, Started, Up,
};
use crate::server::doors::{DoorOptions, TOKEN_VARIABLE, Tokens};
use crate::server::log_file::LogFile;
use crate::server::node::{DRAIN_DEFAULT, WorkerSettings};
use crate::server::{self, Ended, Ready, ServerError, ServerOptions};
use crate::telemetry::{self, LogOptions};

/// What to do when a directory has a server already.
pub const ANOTHER_DIRECTORY: &str = "`noetl server stop` stops it; another --data-dir can have a server of its own";

/// Run, start and stop a server
#[derive(Debug, clap::Subcommand)]
pub enum Server {
    /// Run a server in the foreground, until Ctrl-C or SIGTERM
    Run(Box<RunArgs>),
    /// Start a server in the background, and wait until it answers
    Start(Box<StartArgs>),
    /// Stop the server in the background, that of --data-dir if there are several
    Stop(StopOptions),
}

/// How a server is to be. --host, --port and --data-dir say where.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Only decide: commands are run by workers elsewhere
    #[arg(long)]
    no_worker: bool,
    /// Commands that the worker inside runs at once [default: twice the processors, at least 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "no_worker")]
    worker_slots: Option<u32>,
    /// PostgreSQL database to share with other servers, instead of the file in the data directory
    #[arg(long, value_name = "URL", env = DATABASE_VARIABLE, hide_env_values = true)]
    database_url: Option<String>,
    /// How long running commands get when the server stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    drain: Duration,
    /// The python interpreter of python steps
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Environment variable that templates and tools may see, beside PATH, HOME and others that programs need to run
    /// (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    expose_env: Vec<String>,
    /// Folder with the secrets of the provider `file`, one per file
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Show credentials as they are, and not masked, to whoever may ask at all
    #[arg(long)]
    allow_secret_read: bool,
    /// Listen beyond this machine without a token: everybody who reaches the server can run code on it
    #[arg(long)]
    insecure_no_auth: bool,
    /// Name under which the server is reached, beside localhost and addresses (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    allowed_host: Vec<String>,
    /// Origin of pages that may use the interface (repeatable)
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Certificate chain, to speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
}

/// `noetl server run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    cancels: CancelModeArgs,
    /// Started in the background: nobody is at the terminal
    #[arg(long, hide = true)]
    detached: bool,
    /// Written while the server runs
    #[arg(long, value_name = "FILE", hide = true)]
    pid_file: Option<PathBuf>,
    /// Log to this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// `noetl server start`.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    cancels: CancelModeArgs,
    /// Accepted for older scripts: the tables are made when there are none
    #[arg(long)]
    init_db: bool,
}

impl Server {
    /// Does what is asked.
    pub async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Server::Run(args) => run(globals, *args).await,
            Server::Start(args) => start(globals, &args).await,
            Server::Stop(args) => stop(globals, &args).await,
        }
    }
}

async fn run(globals: &Globals, args: RunArgs) -> Result<Exit, Stop> {
    let file = match &args.log_file {
        Some(path) => Some(
            LogFile::open(path)
                .map_err(|error| Stop::usage(format!("can not open the log {}: {error}", path.display())))?,
        ),
        None => None,
    };
    let logging = LogOptions { json: args.serve.log_json, filter: None, file };
    let _logging = telemetry::init(logging).map_err(Stop::usage)?;
    let mut options = options(globals, &args.serve)?;
    options.pid_file.clone_from(&args.pid_file);
    options.detached = args.detached;
    options.default_cancel_mode = args.cancels.mode();
    let ended = server::run(options, |ready| announce(&ready)).await.map_err(|error| failed(&error))?;
    Ok(match ended {
        Ended::Drained => Exit::Done,
        Ended::Forced => Exit::Interrupted,
    })
}

fn options(globals: &Globals, args: &ServeArgs) -> Result<ServerOptions, Stop> {
    if globals.server_url.is_some() || globals.context.is_some() {
        return Err(Stop::usage("a server listens on --host and --port; --server-url and --context name another one"));
    }
    let mut options = ServerOptions::new(globals.data_directory()?);
    let (host, port) = listen_on(globals)?;
    options.host = host.unwrap_or(options.host);
    options.port = port.unwrap_or(options.port);
    options.doors = DoorOptions {
        tokens: tokens(globals)?,
        insecure_no_auth: args.insecure_no_auth,
        allowed_hosts: args.allowed_host.clone(),
        cors_origins: args.cors_origin.clone(),
    };
    options.tls = args.tls_cert.clone().zip(args.tls_key.clone());
    options.worker = (!args.no_worker).then(|| WorkerSettings {
        slots: args.worker_slots,
        drain: args.drain,
        python: args.python.clone(),
        secrets_dir: args.secrets_dir.clone(),
        ..WorkerSettings::default()
    });
    options.expose_env.clone_from(&args.expose_env);
    let database = args.database_url.as_deref().filter(|url| !url.is_empty());
    options.database =
        database.map(str::parse).transpose().map_err(|error: StoreError| Stop::usage(error.to_string()))?;
    options.allow_secret_read = args.allow_secret_read;
    Ok(options)
}

/// Returns where to listen: flags, else NOETL_HOST and NOETL_PORT.
fn listen_on(globals: &Globals) -> Result<(Option<String>, Option<u16>), Stop> {
    let from_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = globals.host.clone().or_else(|| from_environment("NOETL_HOST"));
    let port = match (globals.port, from_environment("NOETL_PORT")) {
        (Some(port), _) => Some(port),
        (None, Some(text)) => port_in_environment(&text)?,
        (None, None) => None,
    };
    Ok((host, port))
}

/// Reads NOETL_PORT. Kubernetes sets it to `tcp://ADDRESS:PORT` in every pod beside a Service named `noetl`: that is
/// where others find the Service, and says nothing about where this server is to listen.
fn port_in_environment(text: &str) -> Result<Option<u16>, Stop> {
    if text.starts_with("tcp://") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Stop::usage(format!("NOETL_PORT: `{text}` is no port")))
}

/// Returns whom the server lets in: the token file's, else the token on the command line or in the environment.
fn tokens(globals: &Globals) -> Result<Tokens, Stop> {
    let refuse = |error: server::doors::DoorsError| Stop::usage(error.to_string());
    if let Some(file) = &globals.token_file {
        return Tokens::from_file(file).map_err(refuse);
    }
    if let Some(token) = globals.session_token.as_deref().filter(|token| !token.is_empty()) {
        return Tokens::parse(token, "--session-token").map_err(refuse);
    }
    let from_environment = std::env::var(TOKEN_VARIABLE).unwrap_or_default();
    Tokens::parse(&from_environment, TOKEN_VARIABLE).map_err(refuse)
}

fn announce(ready: &Ready) {
    for warning in &ready.warnings {
        console::note(&format!("warning: {warning}"));
    }
    let at = ready.urls.first().map_or("its socket", String::as_str);
    console::note(&format!("noetl server at {at}"));
    console::note(&format!("data directory {}", ready.data_dir.display()));
    if let Some(database) = &ready.database {
        console::note(&format!("database {database}"));
    }
    console::note(&match ready.slots {
        Some(slots) => format!("runs up to {slots} commands at once; Ctrl-C drains and stops it"),
        None => "runs no commands itself: start workers with `noetl worker run`".to_owned(),
    });
}

async fn start(globals: &Globals, args: &StartArgs) -> Result<Exit, Stop> {
    // Everything that is wrong with the options is said here, and not in a log.
    let options = options(globals, &args.serve)?;
    let start = StartOptions {
        command: "server",
        args: args.cancels.with(arguments(globals, &args.serve, &options)),
        up: Up::Answers(options.data_dir.clone()),
        environment: environment(globals, &args.serve),
        files: Files::server(&options.data_dir).map_err(|error| bad_directory(&error))?,
    };
    match background::start(&start).await.map_err(|error| start_failed(&error))? {
        Started::Up { pid, url } => {
            let at = url.map(|url| format!(" at {url}")).unwrap_or_default();
            console::print(&format!(
                "Server started with PID {pid}{at}\nPID file: {}\nLog: {}\n",
                start.files.pid_file.display(),
                start.files.log_file.display()
            ))?;
        }
        Started::Already { pid, url } => {
            let wanted = listen_on(globals)?.1.filter(|port| *port != 0);
            let at = url.map(|url| format!(" at {url}")).unwrap_or_default();
            if let Some(wanted) = wanted
                && !at.is_empty()
                && !at.ends_with(&format!(":{wanted}"))
            {
                let directory = options.data_dir.path().display();
                let message =
                    format!("a server already runs on {directory}: process {pid}{at}, and not on port {wanted}");
                return Err(Stop::new(Exit::Failed, message).hint(ANOTHER_DIRECTORY));
            }
            console::print(&format!("Server is already running with PID {pid}{at}\n"))?;
        }
    }
    Ok(Exit::Done)
}

/// Returns what goes on to the process in the background, and is no matter of its command line.
fn environment(globals: &Globals, args: &ServeArgs) -> Vec<(&'static str, String)> {
    // The URL may hold a password.
    let database = args.database_url.clone().map(|url| (DATABASE_VARIABLE, url));
    let token = globals.session_token.clone().map(|token| (SESSION_TOKEN_VARIABLE, token));
    database.into_iter().chain(token).collect()
}

/// Returns the arguments that make `server run` in the background what was asked for here.
fn arguments(globals: &Globals, args: &ServeArgs, options: &ServerOptions) -> Vec<OsString> {
    // Named one by one, so that none is forgotten.
    let ServeArgs {
        no_worker,
        worker_slots,
        database_url: _,
        drain,
        python,
        expose_env,
        secrets_dir,
        allow_secret_read,
        insecure_no_auth,
        allowed_host,
        cors_origin,
        tls_cert,
        tls_key,
        log_json,
    } = args;
    let mut out: Vec<OsString> = vec!["--data-dir".into(), options.data_dir.path().into()];
    let mut pair = |name: &str, value: OsString| out.extend([OsString::from(name), value]);
    pair("--host", options.host.clone().into());
    pair("--port", options.port.to_string().into());
    pair("--drain", format!("{}ms", drain.as_millis()).into());
    pair("--python", python.clone().into());
    if let Some(slots) = worker_slots {
        pair("--worker-slots", slots.to_string().into());
    }
    let file = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).into_os_string();
    if let Some(path) = &globals.token_file {
        pair("--token-file", file(path));
    }
    if let Some(path) = tls_cert {
        pair("--tls-cert", file(path));
    }
    if let Some(path) = tls_key {
        pair("--tls-key", file(path));
    }
    if let Some(path) = secrets_dir {
        pair("--secrets-dir", file(path));
    }
    for name in expose_env {
        pair("--expose-env", name.into());
    }
    for name in allowed_host {
        pair("--allowed-host", name.into());
    }
    for origin in cors_origin {
        pair("--cors-origin", origin.into());
    }
    let flags = [
        ("--no-worker", *no_worker),
        ("--allow-secret-read", *allow_secret_read),
        ("--insecure-no-auth", *insecure_no_auth),
        ("--log-json", *log_json),
    ];
    out.extend(flags.iter().filter(|(_, given)| *given).map(|(name, _)| OsString::from(name)));
    out
}

async fn stop(globals: &Globals, args: &StopOptions) -> Result<Exit, Stop> {
    let named = globals.data_dir.is_some() || std::env::var_os(DATA_DIR_VARIABLE).is_some_and(|dir| !dir.is_empty());
    let found = match background::find_server(&globals.data_directory()?).map_err(|error| not_looked(&error))? {
        None if !named => only_one()?,
        found => found,
    };
    match found {
        Some(found) => args.stop(&found, "the server").await,
        None => {
            console::print("No server is running in the background\n")?;
            Ok(Exit::Done)
        }
    }
}

/// Returns the only server in the background, whatever its directory.
fn only_one() -> Result<Option<Found>, Stop> {
    let mut running = Vec::new();
    for pid_file in Files::servers().map_err(|error| bad_directory(&error))? {
        running.extend(background::find(&pid_file).map_err(|error| pid_file_failed(&error))?);
    }
    if running.len() > 1 {
        let directories = running.iter().filter_map(|found| Some(found.data_dir.as_ref()?.display().to_string()));
        let directories: Vec<String> = directories.collect();
        return Err(Stop::usage("several servers run in the background, none of them on the usual data directory")
            .hint(format!("say which with --data-dir: {}", directories.join(", "))));
    }
    Ok(running.pop())
}

fn failed(error: &ServerError) -> Stop {
    match error {
        ServerError::Directory(error) => bad_directory(error),
        ServerError::Node(error) => bad_node(error),
        ServerError::Doors(_) | ServerError::Tls(_) => Stop::usage(error.to_string()),
        ServerError::PortInUse { .. } => {
            Stop::new(Exit::Failed, error.to_string()).hint("another is chosen with --port; 0 lets the system choose")
        }
        ServerError::Listen { .. } | ServerError::Signals(_) => Stop::new(Exit::Failed, error.to_string()),
        ServerError::PidFile(error) => pid_file_failed(error),
    }
}

const _: () = assert!(DRAIN_DEFAULT.as_secs() == 30, "the help of --drain and of --timeout says so");

#[cfg(test)]
mod tests {
    use super::port_in_environment;

    #[test]
    fn a_port_is_a_number_and_the_address_of_a_kubernetes_service_is_none_of_ours() {
        assert_eq!(port_in_environment("9000").unwrap(), Some(9000));
        assert_eq!(port_in_environment("tcp://10.96.0.17:8082").unwrap(), None);
        assert!(port_in_environment("http").is_err());
        assert!(port_in_environment("70000").is_err());
    }
}
