//! Stopping what runs in the background: servers and workers alike.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::console;
use super::link::bad_directory;
use super::stop::{Exit, Stop};
use crate::render::duration;
use crate::server::background::{BackgroundError, Found, PidFileError, StartFailed};

/// How much longer than its drain time a process may take to be gone.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// How to stop a process in the background.
#[derive(Debug, clap::Args)]
pub struct StopOptions {
    /// Do not ask, and end it by force if it does not drain in time
    #[arg(short, long)]
    pub force: bool,
    /// How long it may take to drain
    #[arg(long, value_name = "TIME", default_value = "50s", value_parser = duration::parse)]
    pub timeout: Duration,
}

impl StopOptions {
    /// Stops a process, called `what` (`the server`): asks on a terminal, lets it drain, ends it by force if told so.
    pub async fn stop(&self, found: &Found, what: &str) -> Result<Exit, Stop> {
        let asked = !self.force && std::io::stdin().is_terminal();
        if asked && !confirmed(&format!("Stop {what} with PID {}?", found.pid))? {
            return Ok(Exit::Done);
        }
        let failed =
            |error: std::io::Error| Stop::new(Exit::Failed, format!("can not signal process {}: {error}", found.pid));
        found.terminate().map_err(failed)?;
        if !found.gone(self.timeout).await {
            if !self.force {
                let message = format!("process {} still drains after {} s", found.pid, self.timeout.as_secs());
                return Err(Stop::new(Exit::TimedOut, message).hint("wait for it, or end it with --force"));
            }
            found.kill().map_err(failed)?;
            if !found.gone(STOP_MARGIN).await {
                return Err(Stop::new(Exit::Failed, format!("process {} does not end", found.pid)));
            }
        }
        let what = what.strip_prefix("the ").unwrap_or(what);
        let (first, rest) = what.split_at(what.chars().next().map_or(0, char::len_utf8));
        console::print(&format!("{}{rest} with PID {} stopped\n", first.to_uppercase(), found.pid))?;
        Ok(Exit::Done)
    }
}

/// Asks a yes-or-no question; nothing said means no.
fn confirmed(question: &str) -> Result<bool, Stop> {
    let mut stderr = anstream::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Returns how a command ends whose process did not come up.
pub fn start_failed(error: &StartFailed) -> Stop {
    match error {
        StartFailed::PidFile(error) => pid_file_failed(error),
        StartFailed::Directory(error) => bad_directory(error),
        // It ended as it would have in the foreground.
        StartFailed::Died { status, .. } => Stop::new(Exit::of_failure(status.code()), error.to_string()),
        StartFailed::Spawn(_) | StartFailed::Silent { .. } => Stop::new(Exit::Failed, error.to_string()),
    }
}

/// Returns how a command ends that can not look for a process in the background.
pub fn not_looked(error: &BackgroundError) -> Stop {
    match error {
        BackgroundError::Directory(error) => bad_directory(error),
        BackgroundError::PidFile(error) => pid_file_failed(error),
    }
}

/// Returns how a command ends that can not use a PID file.
pub fn pid_file_failed(error: &PidFileError) -> Stop {
    Stop::new(Exit::Failed, error.to_string())
}
