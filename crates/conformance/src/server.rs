//! The server under test: the real binary, in an environment and a data directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use noetl_testkit::free_port;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::Fault;
use crate::client::Client;

/// How long the server may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at whether it answers.
const START_POLL: Duration = Duration::from_millis(50);
/// How long it may take to end when it is asked to; it drains for 30 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
/// Lines of its log that are shown when it does not start or does not live.
const LOG_LINES_SHOWN: usize = 20;

/// How to start the server.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The `noetl` binary.
    pub binary: &'a Path,
    /// Folder for its data, its home and its log.
    pub folder: &'a Path,
    /// Commands that may run at the same time.
    pub worker_slots: u32,
    /// Where it keeps its state when that is not its data directory.
    pub database_url: Option<&'a str>,
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Child,
    client: Client,
    log: PathBuf,
}

impl Server {
    /// Starts the server and waits until it answers.
    pub async fn start(settings: &Settings<'_>) -> Result<Self, Fault> {
        let home = settings.folder.join("home");
        fs::create_dir_all(&home).map_err(Fault::while_doing(format!("make {}", home.display())))?;
        let log = settings.folder.join("server.log");
        let output = fs::File::create(&log).map_err(Fault::while_doing(format!("make {}", log.display())))?;
        let errors = output.try_clone().map_err(Fault::while_doing("open the server's log"))?;
        let port = free_port()?;

        let mut command = Command::new(settings.binary);
        command.args(["server", "run", "--data-dir"]).arg(settings.folder.join("data"));
        command.args(["--port", &port.to_string(), "--worker-slots", &settings.worker_slots.to_string()]);
        if let Some(url) = settings.database_url {
            command.args(["--database-url", url]);
        }
        // Nothing of who runs this may decide what comes out, except where to find python.
        command.env_clear().env("HOME", &home).env("LANG", "C.UTF-8").env("TZ", "UTC").current_dir(settings.folder);
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if settings.database_url.is_some() {
            command.env("NOETL_ENCRYPTION_KEY", "conformance conformance conformance conformance");
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(Fault::while_doing(format!("start {}", settings.binary.display())))?;
        let mut server = Server { process, client: Client::new(&format!("http://127.0.0.1:{port}"))?, log };
        server.ready().await?;
        Ok(server)
    }

    /// Returns who talks to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the end of what it said, when it does not live any more.
    pub fn obituary(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the server ended by itself, {status}\n{}", self.last_words())),
            Err(error) => Some(format!("the server can not be looked after: {error}")),
        }
    }

    /// Asks the server to end and waits until it has.
    pub async fn stop(mut self) -> Result<(), Fault> {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, Signal::TERM).map_err(Fault::while_doing("stop the server"))?;
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.process.wait()).await {
            Ok(ended) => ended.map(drop).map_err(Fault::while_doing("wait for the server")),
            Err(_) => {
                Err(Fault(format!("the server does not end within {STOP_TIMEOUT:?}; killed\n{}", self.last_words())))
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let Err(silent) = self.client.healthy().await else { return Ok(()) };
            if let Some(obituary) = self.obituary() {
                return Err(Fault(obituary));
            }
            if Instant::now() >= deadline {
                return Err(Fault(format!("the server does not answer: {silent}\n{}", self.last_words())));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}
