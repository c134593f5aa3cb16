//! What a process prints: kept up to a limit, and passed on line by line.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

/// Most bytes kept of one stream of one command; the rest is counted and dropped.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// Longest line that is passed on whole; a longer one is cut into several. As long as logs keep.
pub const LINE_BYTES_MAX: usize = noetl_core::log::LOG_LINE_BYTES_MAX;

/// Most bytes taken from a pipe after its process ended: the largest pipe that an ordinary user may have.
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// Most bytes taken by one read.
const READ_BYTES: usize = 64 << 10;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What the tool printed.
    Stdout,
    /// What it complained about; tracebacks too.
    Stderr,
}

/// Takes what a tool prints, while it prints it.
pub trait LogSink: Send + Sync {
    /// Takes one line, without its end.
    fn line(&self, stream: Stream, line: &str);
}

/// Both output streams of a process.
#[derive(Debug)]
pub(crate) struct Capture {
    stdout: Printed,
    stderr: Printed,
}

/// The ends of the pipes that the process writes to. To be dropped once it has them.
#[derive(Debug)]
pub(crate) struct WriteEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Capture {
    /// Makes the pipes.
    pub(crate) fn open() -> io::Result<(Capture, WriteEnds)> {
        let (stdout, stdout_end) = Printed::open(Stream::Stdout)?;
        let (stderr, stderr_end) = Printed::open(Stream::Stderr)?;
        Ok((Capture { stdout, stderr }, WriteEnds { stdout: stdout_end, stderr: stderr_end }))
    }

    /// Reads a piece of whatever comes next; waits for ever once both streams are closed.
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn pump(&mut self, log: &dyn LogSink) {
        tokio::select! {
            () = self.stdout.readable() => self.stdout.read(log),
            () = self.stderr.readable() => self.stderr.read(log),
        }
    }

    /// Takes what is in the pipes, waits for nothing, and returns the text of both streams.
    ///
    /// Not until the end of the stream: whoever else holds the other end open shall hold up nobody.
    pub(crate) fn finish(&mut self, log: &dyn LogSink) -> (String, String) {
        (self.stdout.finish(log), self.stderr.finish(log))
    }
}

impl WriteEnds {
    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.stdout.as_fd(), self.stderr.as_fd()]
    }
}

/// One stream.
#[derive(Debug)]
struct Printed {
    stream: Stream,
    /// `None` once the other end is closed.
    pipe: Option<pipe::Receiver>,
    text: Text,
}

impl Printed {
    fn open(stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipe = Some(pipe::Receiver::from_owned_fd(ours)?);
        Ok((Printed { stream, pipe, text: Text::default() }, theirs))
    }

    async fn readable(&self) {
        match &self.pipe {
            // An error shows again at the read.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }

    /// Reads once, if the pipe is known to be ready.
    fn read(&mut self, log: &dyn LogSink) {
        let mut bytes = vec![0; READ_BYTES];
        let read = self.pipe.as_ref().map(|pipe| pipe.try_read(&mut bytes));
        match read {
            Some(Ok(count)) if count > 0 => self.text.push(&bytes[..count], |line| log.line(self.stream, line)),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Ok(_) | Err(_)) | None => self.pipe = None,
        }
    }

    fn finish(&mut self, log: &dyn LogSink) -> String {
        let mut bytes = vec![0; READ_BYTES];
        let mut drained = 0;
        // Straight from the pipe: the runtime may not have heard yet that there is something in it. Bounded,
        // because somebody beyond our reach could write for ever.
        while drained < DRAIN_BYTES_MAX
            && let Some(pipe) = &self.pipe
            && let Ok(count @ 1..) = rustix::io::read(pipe, &mut bytes)
        {
            self.text.push(&bytes[..count], |line| log.line(self.stream, line));
            drained += count;
        }
        std::mem::take(&mut self.text).finish(|line| log.line(self.stream, line))
    }
}

/// The text of one stream of one command.
#[derive(Debug, Default)]
struct Text {
    kept: Vec<u8>,
    /// How much of `kept` was passed on as lines.
    passed_on: usize,
    dropped: u64,
}

impl Text {
    fn push(&mut self, bytes: &[u8], mut pass_on: impl FnMut(&str)) {
        let room = OUTPUT_BYTES_MAX - self.kept.len();
        let (keep, drop) = bytes.split_at(bytes.len().min(room));
        self.dropped += drop.len() as u64;
        let mut look_from = self.kept.len();
        self.kept.extend_from_slice(keep);
        loop {
            let window_end = self.kept.len().min(self.passed_on + LINE_BYTES_MAX + 1);
            let end = self.kept[look_from..window_end].iter().position(|byte| *byte == b'\n').map(|at| look_from + at);
            let line_end = match end {
                Some(end) => end,
                None if window_end - self.passed_on <= LINE_BYTES_MAX => return,
                None => self.cut_long_line(),
            };
            pass_on(&String::from_utf8_lossy(&self.kept[self.passed_on..line_end]));
            self.passed_on = if end == Some(line_end) { line_end + 1 } else { line_end };
            look_from = self.passed_on;
        }
    }

    /// Returns where a line that is too long may be cut without cutting a character.
    fn cut_long_line(&self) -> usize {
        let limit = self.passed_on + LINE_BYTES_MAX;
        let is_boundary = |at: &usize| self.kept[*at] & 0b1100_0000 != 0b1000_0000;
        (limit - 3..=limit).rev().find(is_boundary).unwrap_or(limit)
    }

    fn finish(self, mut pass_on: impl FnMut(&str)) -> String {
        if self.passed_on < self.kept.len() {
            pass_on(&String::from_utf8_lossy(&self.kept[self.passed_on..]));
        }
        let mut text =
            String::from_utf8(self.kept).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        if self.dropped > 0 {
            let mark = format!("… cut here: {} more bytes, the limit is {OUTPUT_BYTES_MAX}", self.dropped);
            pass_on(&mark);
            text.push('\n');
            text.push_str(&mark);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut lines = Vec::new();
        let mut text = Text::default();
        for piece in pieces {
            text.push(piece, |line| lines.push(line.to_owned()));
        }
        let text = text.finish(|line| lines.push(line.to_owned()));
        (lines, text)
    }

    #[test]
    fn lines_are_put_together_whatever_the_pieces() {
        let (lines, text) = lines_of(&[b"one\ntw", b"o\n", b"\nlast"]);
        assert_eq!(lines, ["one", "two", "", "last"]);
        assert_eq!(text, "one\ntwo\n\nlast");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "é".repeat(LINE_BYTES_MAX);
        let (lines, text) = lines_of(&[b"x", long.as_bytes(), b"\nnext\n"]);
        assert_eq!(text.len(), 2 * LINE_BYTES_MAX + 7);
        assert_eq!(lines.last().unwrap(), "next");
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX && !line.contains('\u{fffd}')));
        assert_eq!(lines[..lines.len() - 1].concat(), format!("x{long}"));
    }

    #[test]
    fn what_exceeds_the_limit_is_counted_and_said() {
        let (lines, text) = lines_of(&[&vec![b'a'; OUTPUT_BYTES_MAX - 1], b"bcd"]);
        assert!(text.ends_with("b\n… cut here: 2 more bytes, the limit is 8388608"));
        assert!(lines.last().unwrap().starts_with("… cut here: 2 more bytes"));
    }
}
