//! What tools print: lines, and how much of it is kept. Values and bounds; nothing here writes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, ExecutionId};
use crate::time::Timestamp;

/// Longest line that is kept whole, in bytes; of a longer one the beginning.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Most lines of one command.
pub const LOG_LINES_PER_COMMAND_MAX: u32 = 10_000;
/// Most bytes of one command.
pub const LOG_BYTES_PER_COMMAND_MAX: usize = 1024 * 1024;
/// Most bytes of one execution.
pub const LOG_BYTES_PER_EXECUTION_MAX: u64 = 64 * 1024 * 1024;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which command printed it.
    pub command_id: CommandId,
    /// Step name.
    pub step: Arc<str>,
    /// Which iteration of its loop, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// Task label within the step.
    pub task: Arc<str>,
    /// Which execution of the task, from 1.
    pub attempt: u32,
    /// Where it came from.
    pub stream: LogStream,
    /// When the worker read it.
    pub at: Timestamp,
    /// The process that the line comes from: a number of its own choice, so that a line sent twice is known.
    pub source: i64,
    /// Which line of that process.
    pub serial: i64,
    /// The line, without its end.
    pub line: String,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The tool's standard output.
    Stdout,
    /// The tool's standard error; tracebacks too.
    Stderr,
    /// Not the tool: who keeps the log says what is missing in it.
    System,
}

impl LogStream {
    /// Returns the word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::System => "system",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [LogStream::Stdout, LogStream::Stderr, LogStream::System].into_iter().find(|one| one.as_str() == word)
    }
}

/// What is kept of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The line, or its beginning with a mark.
    Line(String),
    /// A limit is reached: this mark stands in place of the line and of all that follow.
    Mark(String),
    /// Nothing: the mark stands already.
    Nothing,
}

/// Counts what one command has printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandMeter {
    lines: u32,
    bytes: usize,
    is_cut: bool,
}

impl CommandMeter {
    /// Says what is kept of the next line.
    pub fn take(&mut self, line: &str) -> Kept {
        if self.is_cut {
            return Kept::Nothing;
        }
        let text = shortened(line);
        let bytes = self.bytes + text.len();
        if self.lines >= LOG_LINES_PER_COMMAND_MAX || bytes > LOG_BYTES_PER_COMMAND_MAX {
            self.is_cut = true;
            return Kept::Mark(format!(
                "… cut here: of one command {LOG_LINES_PER_COMMAND_MAX} lines and {LOG_BYTES_PER_COMMAND_MAX} bytes are \
                 kept"
            ));
        }
        self.lines += 1;
        self.bytes = bytes;
        Kept::Line(text)
    }
}

/// Counts what is kept of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecutionMeter {
    /// Bytes kept so far.
    pub bytes: u64,
    /// The mark stands.
    pub is_cut: bool,
}

impl ExecutionMeter {
    /// Says what is kept of the next line, which its command's meter has let through.
    pub fn take(&mut self, line: &str) -> Kept {
        if self.is_cut {
            return Kept::Nothing;
        }
        // A NUL has no place in every table.
        let line = line.replace('\0', "\u{fffd}");
        let bytes = self.bytes + line.len() as u64;
        if bytes > LOG_BYTES_PER_EXECUTION_MAX {
            self.is_cut = true;
            return Kept::Mark(format!("… cut here: of one execution {LOG_BYTES_PER_EXECUTION_MAX} bytes are kept"));
        }
        self.bytes = bytes;
        Kept::Line(line)
    }
}

/// Returns the line, or its beginning and how much is missing.
fn shortened(line: &str) -> String {
    if line.len() <= LOG_LINE_BYTES_MAX {
        return line.to_owned();
    }
    let (start, rest) = line.split_at(line.floor_char_boundary(LOG_LINE_BYTES_MAX));
    format!("{start} … cut here: {} more bytes", rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_beginning() {
        let long = format!("a{}", "é".repeat(LOG_LINE_BYTES_MAX));
        let Kept::Line(kept) = CommandMeter::default().take(&long) else { panic!("a line expected") };
        let start = "é".repeat((LOG_LINE_BYTES_MAX - 1) / 2);
        let missing = long.len() - 1 - start.len();
        assert_eq!(kept, format!("a{start} … cut here: {missing} more bytes"));
    }

    #[test]
    fn a_command_that_prints_too_much_is_marked_once() {
        let mut meter = CommandMeter::default();
        for _ in 0..LOG_LINES_PER_COMMAND_MAX {
            assert_eq!(meter.take(""), Kept::Line(String::new()));
        }
        let Kept::Mark(mark) = meter.take("one more") else { panic!("a mark expected") };
        assert_eq!(mark, "… cut here: of one command 10000 lines and 1048576 bytes are kept");
        assert_eq!(meter.take("another"), Kept::Nothing);

        let mut meter = CommandMeter::default();
        let line = "x".repeat(LOG_LINE_BYTES_MAX);
        for _ in 0..LOG_BYTES_PER_COMMAND_MAX / LOG_LINE_BYTES_MAX {
            assert_eq!(meter.take(&line), Kept::Line(line.clone()));
        }
        assert!(matches!(meter.take("x"), Kept::Mark(_)));
        // Not even an empty one: what is missing is missing from there on.
        assert_eq!(meter.take(""), Kept::Nothing);
    }

    #[test]
    fn an_execution_of_many_commands_has_a_limit_of_its_own() {
        let mut meter = ExecutionMeter { bytes: LOG_BYTES_PER_EXECUTION_MAX - 3, is_cut: false };
        assert_eq!(meter.take("abc"), Kept::Line("abc".to_owned()));
        assert_eq!(ExecutionMeter::default().take("a\0b"), Kept::Line("a\u{fffd}b".to_owned()));
        assert!(matches!(meter.take("d"), Kept::Mark(_)));
        assert_eq!(meter.take("e"), Kept::Nothing);
    }
}
