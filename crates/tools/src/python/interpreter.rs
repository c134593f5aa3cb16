//! A warm interpreter: started once per slot, used for many commands, replaced when one left anything behind.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Command;
use crate::Settings;
use crate::output::{Capture, LogSink};
use crate::process::supervisor::{Supervisor, out_of_turn};
use crate::process::wire::{Ended, Inbox, Order, Report, Role, Start, encode};
use crate::slot::{Failure, Slot, until_ended};
use crate::stop::Brake;

/// The program that runs in the interpreter.
const RUNNER: &str = include_str!("runner.py");

/// Reads the program from the control socket, which the interpreter gets as its stdin, and runs it.
const BOOTSTRAP: &str = "import os;control=open(os.dup(0),'rb');\
                         exec(compile(control.read(int.from_bytes(control.read(4),'big')),'<noetl>','exec'))";

/// Most commands that one interpreter runs: a bound for what slowly piles up in it.
pub(crate) const COMMANDS_PER_INTERPRETER: u32 = 1000;

/// Largest command: code, arguments and context together.
pub(crate) const COMMAND_BYTES_MAX: usize = 64 << 20;

/// Largest answer: a result of the size that the runner allows, and its wrapping.
const REPLY_BYTES_MAX: usize = (64 << 20) + (64 << 10);

/// Grace for an interpreter that is replaced.
const RETIREMENT_GRACE_MS: u64 = 200;

/// How long the rest of an answer may take once the interpreter's whole tree is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Most bytes taken by one read.
const READ_BYTES: usize = 64 << 10;

/// A running interpreter.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pid: i32,
    control: UnixStream,
    inbox: Inbox,
    capture: Capture,
    commands_run: u32,
}

/// What came of one command.
#[derive(Debug)]
pub(super) struct Execution {
    /// Whether the code ever began. If not, what was printed is the interpreter's own.
    pub(super) began: bool,
    /// What the runner answered; `None` if it could not.
    pub(super) outcome: Option<Outcome>,
    /// Whether a request to end met the code while it ran.
    pub(super) interrupted: bool,
    /// How the interpreter ended, if it did not stay.
    pub(super) ended: Option<Ended>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// The runner's answer.
#[derive(Debug, Deserialize)]
struct Reply {
    outcome: Outcome,
    /// Why the interpreter is to be replaced.
    #[serde(default)]
    dirty: Option<String>,
    /// Whether a request to end met the code while it ran; the interpreter ends then.
    #[serde(default)]
    interrupted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The command has arrived; its code runs from now on.
    Started,
    Value(Box<RawValue>),
    /// There is no result but what was printed.
    Printed,
    Raised {
        exception_type: String,
        message: String,
        #[serde(default)]
        exit_code: Option<i64>,
    },
    Refused {
        code: String,
        message: String,
    },
    Interrupted,
}

/// Runs a command in the slot's interpreter, or in a new one.
pub(super) async fn execute(
    slot: &mut Slot,
    settings: &Settings,
    command: &Command<'_>,
    brake: &mut Brake,
    log: &dyn LogSink,
) -> Result<Execution, Failure> {
    let frame = encode(command, COMMAND_BYTES_MAX).map_err(|error| refused("the command is too large", &error))?;
    loop {
        let reused = awaken(slot, settings).await?;
        let Some(mut interpreter) = slot.interpreter.take() else { continue };
        slot.running.store(interpreter.pid, Ordering::Relaxed);
        let supervisor = slot.supervisor(settings)?;
        let execution = converse(&mut interpreter, supervisor, &frame, brake, log).await.map_err(Failure::Lost)?;
        match &execution.ended {
            None => slot.interpreter = Some(interpreter),
            Some(ended) => slot.part_if_spent(ended),
        }
        // Race: an idle interpreter may die just before the command reaches it. No code has run then, so a new
        // one may take it. Only a reused one: a fresh one that dies at once would do so again.
        let died_idle = reused && !execution.began && execution.outcome.is_none() && brake.cause().is_none();
        if !died_idle {
            return Ok(execution);
        }
    }
}

/// Sees to it that the slot has an interpreter; returns whether it had one.
async fn awaken(slot: &mut Slot, settings: &Settings) -> Result<bool, Failure> {
    let supervisor = slot.supervisor(settings)?;
    if supervisor.lost_resident().map_err(Failure::Lost)? {
        slot.interpreter = None;
    }
    if slot.interpreter.is_some() {
        return Ok(true);
    }
    let (ours, theirs) = StdUnixStream::pair().map_err(Failure::Unavailable)?;
    ours.set_nonblocking(true).map_err(Failure::Unavailable)?;
    let theirs = OwnedFd::from(theirs);
    let (capture, write_ends) = Capture::open().map_err(Failure::Unavailable)?;
    let start = Start {
        role: Role::Resident,
        program: settings.python.clone(),
        args: vec!["-c".to_owned(), BOOTSTRAP.to_owned()],
        env: settings.env.clone(),
        directory: settings.directory.to_string_lossy().into_owned(),
    };
    let [stdout, stderr] = write_ends.files();
    let supervisor = slot.supervisor(settings)?;
    let started = supervisor.start(start, &[theirs.as_fd(), stdout, stderr]).await.map_err(Failure::Lost)?;
    let pid = started.map_err(|mut refusal| {
        refusal.message = format!("python ({}) could not be started: {}", settings.python, refusal.message);
        Failure::Refused(refusal)
    })?;
    let mut control = UnixStream::from_std(ours).map_err(Failure::Unavailable)?;
    let runner = [&u32::try_from(RUNNER.len()).unwrap_or(u32::MAX).to_be_bytes(), RUNNER.as_bytes()].concat();
    // It fits into the socket's buffer; if the interpreter died at once, the command will find out.
    control.write_all(&runner).await.ok();
    slot.interpreter = Some(Interpreter { pid, control, inbox: Inbox::default(), capture, commands_run: 0 });
    Ok(false)
}

/// Sends one command and sees it to its end.
async fn converse(
    interpreter: &mut Interpreter,
    supervisor: &mut Supervisor,
    frame: &[u8],
    brake: &mut Brake,
    log: &dyn LogSink,
) -> io::Result<Execution> {
    let Interpreter { control, inbox, capture, commands_run, .. } = interpreter;
    *commands_run += 1;
    let mut began = false;
    let mut ended = None;
    let role = Role::Resident;
    let reply = {
        let mut exchange = pin!(exchange(control, inbox, frame, &mut began));
        loop {
            tokio::select! {
                reply = &mut exchange => break reply,
                report = supervisor.next_report() => match report? {
                    Report::Ended(report) if report.role == role => {
                        // Its last words may still stand in the socket. Nobody is left to hold that open.
                        let last_words = tokio::time::timeout(LAST_WORDS, &mut exchange).await;
                        ended = Some(report);
                        break last_words.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    other @ (Report::Ended(_) | Report::Started { .. } | Report::Refused { .. } | Report::Settled) => {
                        return Err(out_of_turn(&other));
                    }
                },
                grace_ms = brake.next() => supervisor.order(&Order::Stop { role, grace_ms }).await?,
                () = capture.pump(log) => {}
            }
        }
    };
    if ended.is_none() {
        ended = match &reply {
            Ok(Reply { dirty: None, interrupted: false, .. })
                if brake.cause().is_none() && *commands_run < COMMANDS_PER_INTERPRETER =>
            {
                settle(supervisor, capture, brake, log).await?
            }
            Ok(_) | Err(_) => {
                // Also after an order to stop, which has the shorter grace of the two: the command is done.
                supervisor.order(&Order::Stop { role, grace_ms: RETIREMENT_GRACE_MS }).await?;
                Some(until_ended(supervisor, role, capture, brake, log).await?)
            }
        };
    }
    if let (Some(ended), Ok(Reply { dirty: Some(why), .. })) = (&ended, &reply) {
        tracing::debug!(why, leftovers = ended.leftovers, "replacing a python interpreter");
    }
    let (stdout, stderr) = capture.finish(log);
    let (outcome, interrupted) = match reply {
        Ok(reply) => (Some(reply.outcome), reply.interrupted),
        Err(error) => {
            tracing::debug!(%error, "no answer from a python interpreter");
            (None, false)
        }
    };
    Ok(Execution { began, outcome, interrupted, ended, stdout, stderr })
}

/// Asks the supervisor whether the idle interpreter is all there is; if not, it ends, with the rest.
async fn settle(
    supervisor: &mut Supervisor,
    capture: &mut Capture,
    brake: &mut Brake,
    log: &dyn LogSink,
) -> io::Result<Option<Ended>> {
    let role = Role::Resident;
    supervisor.order(&Order::Settle).await?;
    loop {
        tokio::select! {
            report = supervisor.next_report() => return match report? {
                Report::Settled => Ok(None),
                Report::Ended(ended) if ended.role == role => Ok(Some(ended)),
                other @ (Report::Ended(_) | Report::Started { .. } | Report::Refused { .. }) => {
                    Err(out_of_turn(&other))
                }
            },
            // The code is done, this only hurries what it left behind. The supervisor answers one way or the other.
            grace_ms = brake.next() => {
                supervisor.order(&Order::Stop { role, grace_ms }).await?;
                return until_ended(supervisor, role, capture, brake, log).await.map(Some);
            }
            () = capture.pump(log) => {}
        }
    }
}

/// Sends the command and waits for its outcome.
async fn exchange(control: &mut UnixStream, inbox: &mut Inbox, frame: &[u8], started: &mut bool) -> io::Result<Reply> {
    control.write_all(frame).await?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        while let Some(reply) = inbox.take::<Reply>(REPLY_BYTES_MAX)? {
            match reply.outcome {
                Outcome::Started => *started = true,
                Outcome::Value(_)
                | Outcome::Printed
                | Outcome::Raised { .. }
                | Outcome::Refused { .. }
                | Outcome::Interrupted => return Ok(reply),
            }
        }
        match control.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => inbox.push(&bytes[..count]),
        }
    }
}

fn refused(what: &str, error: &io::Error) -> Failure {
    let message = format!("{what}: {error}");
    Failure::Refused(crate::process::supervisor::Refusal { message, errno: None })
}
