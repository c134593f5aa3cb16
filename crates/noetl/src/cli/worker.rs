//! `noetl worker`: runs commands for a server elsewhere.

use std::sync::Arc;
use std::time::Duration;

use noetl_engine::transport::Transport;
use tokio_util::sync::CancellationToken;

use super::console;
use super::follow::Interrupts;
use super::link::{bad_directory, bad_node};
use super::stop::{Exit, Stop};
use super::target::{Globals, Target};
use crate::http_transport::{HttpTransport, TransportError};
use crate::render::duration;
use crate::server::node::{self, WorkerSettings};
use crate::telemetry::{self, LogOptions};

/// Run a worker
#[derive(Debug, clap::Subcommand)]
pub enum Worker {
    /// Run commands for a server, until Ctrl-C or SIGTERM; a second one ends them at once
    Run(RunArgs),
}

/// `noetl worker run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Commands to run at once [default: twice the processors, at least 4]
    #[arg(long, visible_alias = "worker-slots", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Pool to serve (repeatable)
    #[arg(long, value_name = "NAME", default_value = "default", value_delimiter = ',')]
    pool: Vec<String>,
    /// How long running commands get when the worker stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    drain: Duration,
    /// The python interpreter of python steps
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Environment variable that tools may see, beside PATH, HOME, LANG, TZ and TMPDIR (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    expose_env: Vec<String>,
    /// Speak to a server beyond this machine without encryption
    #[arg(long)]
    insecure: bool,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
}

impl Worker {
    /// Does what is asked.
    pub async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        let Worker::Run(args) = self;
        telemetry::init(LogOptions { json: args.log_json, ..LogOptions::default() }).map_err(Stop::usage)?;
        let (transport, place) = transport(globals, args.insecure)?;
        let settings = WorkerSettings {
            slots: args.slots,
            pools: args.pool.iter().map(|pool| Arc::from(pool.as_str())).collect(),
            drain: args.drain,
            python: args.python,
            ..WorkerSettings::default()
        };
        let toolbox = node::toolbox(&settings, &args.expose_env).map_err(|error| bad_node(&error))?;
        let (worker, carrier) = node::worker(transport, &toolbox, &settings);
        let mut interrupts = Interrupts::listen()?;
        let shutdown = CancellationToken::new();
        let mut work = tokio::spawn(worker.run(shutdown.clone()));
        let slots = settings.slots.unwrap_or_else(node::default_slots);
        console::note(&format!("worker for {place}, up to {slots} commands at once; Ctrl-C drains and stops it"));
        tokio::select! {
            // A worker ends by itself only when it is broken.
            ended = &mut work => {
                ended.map_err(|error| Stop::new(Exit::Defect, format!("the worker ended: {error}")))?;
                return Ok(Exit::Failed);
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
        Ok(if drained { Exit::Done } else { Exit::Interrupted })
    }
}

/// Returns the way to the server that is meant. The owner of the data directory counts as one.
fn transport(globals: &Globals, insecure: bool) -> Result<(Arc<dyn Transport>, String), Stop> {
    let refuse = |error: TransportError| match error {
        TransportError::Url(_) | TransportError::Insecure(_) => Stop::usage(error.to_string()),
        TransportError::Client(_) => Stop::new(Exit::Defect, error.to_string()),
    };
    let named = match globals.target()? {
        Target::Server(named) => named,
        Target::Directory { fallback: Some(named), .. } => named,
        Target::Directory { directory, fallback: None } => {
            // A short path of its own process would end with this function, so the plain one is used.
            drop(directory.socket().map_err(|error| bad_directory(&error))?);
            let socket = directory.path().join("noetl.sock");
            let transport = HttpTransport::to_socket(&socket).map_err(refuse)?;
            return Ok((Arc::new(transport), directory.path().display().to_string()));
        }
    };
    let transport = HttpTransport::to_url(&named.url, named.token, insecure).map_err(refuse)?;
    Ok((Arc::new(transport), named.url))
}
