//! The processes of a deployment, which are killed and started again.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::way::Way;
use crate::support::{Home, signal};

/// What every process of the deployment knows.
pub(crate) const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A server or a worker.
pub(crate) struct Party {
    home: Home,
    name: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    lives: u32,
    /// The way in, if it is a server.
    pub(crate) door: Option<Way>,
    /// The way to the database, if it is a server.
    pub(crate) database: Option<Way>,
}

impl Party {
    /// Returns a server that comes to the database over `database`.
    pub(crate) async fn server(name: &str, database: Way, url: String) -> Self {
        let arguments = ["server", "run", "--port", "0", "--no-worker", "--drain", "2s", "--log-file", "log"];
        let environment = vec![("NOETL_DATABASE_URL", url), ("NOETL_ENCRYPTION_KEY", KEY.to_owned())];
        let door = Way::to(None).await;
        let mut party = Party::new(name, &arguments, environment);
        (party.door, party.database) = (Some(door), Some(database));
        party
    }

    /// Returns a worker that speaks to any of `servers`.
    pub(crate) fn worker(name: &str, servers: &str) -> Self {
        let arguments =
            ["worker", "run", "--name", name, "--slots", "8", "--drain", "2s", "--server-url", servers, "--log-file"];
        let mut party = Party::new(name, &arguments, Vec::new());
        party.arguments.push("log".to_owned());
        party
    }

    fn new(name: &str, arguments: &[&str], environment: Vec<(&'static str, String)>) -> Self {
        Party {
            home: Home::new(),
            name: name.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment,
            child: None,
            lives: 0,
            door: None,
            database: None,
        }
    }

    /// Starts it if it does not run, and leads its door to where it listens now.
    pub(crate) fn tend(&mut self) {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            if let Some(door) = &self.door {
                door.lead_to(None);
            }
            let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
            let mut command = self.home.command(&arguments);
            for (name, value) in &self.environment {
                command.env(name, value);
            }
            self.lives += 1;
            self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        if let Some(door) = &self.door {
            door.lead_to(self.listens_at());
        }
    }

    /// Returns the port where this very process listens.
    fn listens_at(&self) -> Option<u16> {
        let text = std::fs::read_to_string(self.home.path().join(".noetl/data/owner.lock")).ok()?;
        let owner: Value = serde_json::from_str(&text).ok()?;
        if owner["pid"].as_u64() != self.child.as_ref().map(|child| u64::from(child.id())) {
            return None;
        }
        owner["url"].as_str()?.rsplit_once(':')?.1.trim_end_matches('/').parse().ok()
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn send(&mut self, which: Signal) {
        if let Some(child) = &mut self.child
            && child.try_wait().unwrap().is_none()
        {
            signal(child, which);
        }
    }

    /// Waits until it is gone.
    pub(crate) fn wait(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// Returns what it wrote down in all its lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Returns the processes that work somewhere below one of `folders`.
pub(crate) fn at_work_below(folders: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(place) = std::fs::read_link(entry.path().join("cwd")) else { continue };
        if folders.iter().any(|folder| place.starts_with(folder)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!(
                "{} {}",
                entry.file_name().display(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            ));
        }
    }
    found
}
