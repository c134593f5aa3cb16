//! How a command ends: its exit code, and what it says when it could not do its work.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Exit codes, the same for every command; `noetl --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// The run failed, the execution has already ended, or the server refused.
    Failed = 1,
    /// Usage, malformed input, or an invalid playbook.
    Usage = 2,
    /// No server answers there, or the data directory can not be opened.
    Unreachable = 3,
    /// No such execution, catalog entry or worker.
    Unknown = 4,
    /// The server wants a token, or another one.
    Forbidden = 5,
    /// Waiting ran out before what was waited for.
    TimedOut = 6,
    /// The execution was cancelled.
    Cancelled = 7,
    /// A defect of noetl itself.
    Defect = 70,
    /// Ctrl-C.
    Interrupted = 130,
    /// Nobody reads our output any more, as `head` does when it has enough.
    Unread = 141,
}

impl Exit {
    /// Returns the exit of another process of this program that could not do its work.
    pub fn of_failure(code: Option<i32>) -> Exit {
        let handed_on = [Exit::Usage, Exit::Unreachable, Exit::Unknown, Exit::Forbidden, Exit::Defect];
        handed_on.into_iter().find(|exit| Some(*exit as i32) == code).unwrap_or(Exit::Failed)
    }

    /// Returns the worse of two, for commands with several ids.
    #[must_use]
    pub fn or_worse(self, other: Exit) -> Exit {
        self.max(other)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command stopped before its end.
#[derive(Debug)]
pub struct Stop {
    /// The exit code.
    pub exit: Exit,
    /// A lower-case fragment; empty = say nothing.
    pub message: String,
    /// What to do now, one line each.
    pub hints: Vec<String>,
}

impl Stop {
    /// Returns a stop with `exit` that says `message`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Stop { exit, message: message.into(), hints: Vec::new() }
    }

    /// Returns a stop for input that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Stop::new(Exit::Usage, message)
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Stop {
    /// Writing to the terminal failed: silent when the reader has gone, for nobody would see it.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::new(Exit::Unread, ""),
            _ => Stop::new(Exit::Defect, format!("can not write output: {error}")),
        }
    }
}
