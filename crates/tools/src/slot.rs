//! One place where a tool can run: its supervisor, and its warm interpreter.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use noetl_core::tool::{ErrorKind, Stopped, ToolError, ToolOutcome};
use serde_json::Value;

use crate::Settings;
use crate::output::{Capture, LogSink};
use crate::process::supervisor::{Refusal, Supervisor, out_of_turn};
use crate::process::wire::{Ended, How, Order, Report, Role, Start};
use crate::python::Interpreter;
use crate::stop::{Brake, Cause};

/// A supervisor and what it keeps warm. Runs one command at a time.
#[derive(Debug)]
pub(crate) struct Slot {
    supervisor: Option<Supervisor>,
    pub(crate) interpreter: Option<Interpreter>,
    /// Leader of what runs now; 0 for nothing.
    pub(crate) running: Arc<AtomicI32>,
}

/// Why a process can not be brought to an ordinary end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not started.
    Refused(Refusal),
    /// The supervisor, or the way to it, could not be made.
    Unavailable(io::Error),
    /// The supervisor is gone, and with it the knowledge of what runs.
    Lost(io::Error),
}

/// An ended process and what it printed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Slot {
    /// Returns an empty slot, which tells in `running` what runs.
    pub(crate) fn new(running: &Arc<AtomicI32>) -> Self {
        running.store(0, Ordering::Relaxed);
        Slot { supervisor: None, interpreter: None, running: Arc::clone(running) }
    }

    /// Returns the supervisor, started if there is none.
    pub(crate) fn supervisor(&mut self, settings: &Settings) -> Result<&mut Supervisor, Failure> {
        match &mut self.supervisor {
            Some(supervisor) => Ok(supervisor),
            empty @ None => Ok(empty.insert(Supervisor::launch(settings).map_err(Failure::Unavailable)?)),
        }
    }

    /// Runs a task to its end, which `brake` may bring sooner.
    pub(crate) async fn run_task(
        &mut self,
        settings: &Settings,
        start: Start,
        brake: &mut Brake,
        log: &dyn LogSink,
    ) -> Result<Finished, Failure> {
        let (mut capture, write_ends) = Capture::open().map_err(Failure::Unavailable)?;
        let supervisor = self.supervisor(settings)?;
        let started = supervisor.start(start, &write_ends.files()).await.map_err(Failure::Lost)?;
        drop(write_ends);
        let pid = started.map_err(Failure::Refused)?;
        self.running.store(pid, Ordering::Relaxed);

        let supervisor = self.supervisor(settings)?;
        let ended = until_ended(supervisor, Role::Task, &mut capture, brake, log).await.map_err(Failure::Lost)?;
        let (stdout, stderr) = capture.finish(log);
        self.part_if_spent(&ended);
        Ok(Finished { ended, stdout, stderr })
    }

    /// Lets go of a supervisor that holds something unkillable: it stays to watch, a new one serves.
    pub(crate) fn part_if_spent(&mut self, ended: &Ended) {
        if !ended.unconfirmed.is_empty() {
            self.supervisor = None;
            self.interpreter = None;
        }
    }

    /// Turns a failure into the tool's outcome, after clearing up what it may have left.
    pub(crate) async fn give_up(&mut self, failure: Failure) -> ToolOutcome {
        match failure {
            Failure::Refused(Refusal { message, errno }) => {
                let error = ToolError::hard(ErrorKind::Config, "NOT_STARTED", message);
                let error = errno.map_or(error.clone(), |errno| error.with("errno", errno));
                ToolOutcome::failed(error, Value::Null)
            }
            Failure::Unavailable(error) => {
                let message = format!("the process supervisor could not be started: {error}");
                let error = ToolError::hard(ErrorKind::Unknown, "SUPERVISOR_UNAVAILABLE", message).retryable();
                ToolOutcome::failed(error, Value::Null)
            }
            Failure::Lost(error) => {
                let supervisor = self.supervisor.take();
                self.interpreter = None;
                let mut left = Vec::new();
                if let Some(supervisor) = supervisor {
                    left = supervisor.hunt_orphans().await;
                }
                tracing::error!(%error, ?left, "lost the supervisor of a tool");
                let message = "the process supervisor ended unexpectedly, what the tool did is unknown";
                let error = ToolError::soft(ErrorKind::Unknown, "SUPERVISOR_LOST", message).with("pids", left);
                ToolOutcome { stopped: Some(Stopped::Unconfirmed), ..ToolOutcome::failed(error, Value::Null) }
            }
        }
    }

    /// Ends everything in the slot.
    pub(crate) async fn close(self) {
        drop(self.interpreter);
        if let Some(supervisor) = self.supervisor {
            supervisor.dismiss().await;
        }
    }
}

/// Waits for the end of `role`, passing on what it prints and what ends it sooner.
pub(crate) async fn until_ended(
    supervisor: &mut Supervisor,
    role: Role,
    capture: &mut Capture,
    brake: &mut Brake,
    log: &dyn LogSink,
) -> io::Result<Ended> {
    loop {
        tokio::select! {
            report = supervisor.next_report() => match report? {
                Report::Ended(ended) if ended.role == role => return Ok(ended),
                // Race: our order to stop may cross the answer that the resident has settled. It is obeyed still.
                Report::Settled if role == Role::Resident => {}
                other @ (Report::Ended(_) | Report::Started { .. } | Report::Refused { .. } | Report::Settled) => {
                    return Err(out_of_turn(&other));
                }
            },
            grace_ms = brake.next() => supervisor.order(&Order::Stop { role, grace_ms }).await?,
            () = capture.pump(log) => {}
        }
    }
}

/// Returns how the outcome says that a tree ended; `None` for one that ended by itself.
pub(crate) fn stopped(ended: &Ended) -> Option<Stopped> {
    match ended.how {
        How::Finished => None,
        How::Stopped => Some(Stopped::Stopped),
        How::Killed => Some(Stopped::Killed),
        How::Unconfirmed => Some(Stopped::Unconfirmed),
    }
}

/// Returns the error of a tool that was ended before it was done.
pub(crate) fn cut_short(cause: Cause, ended: &Ended) -> ToolError {
    let error = cause.error();
    if ended.unconfirmed.is_empty() { error } else { error.with("pids", ended.unconfirmed.clone()) }
}
