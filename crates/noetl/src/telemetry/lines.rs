//! Lines on their way out: a bounded buffer, and a thread that writes it.
//!
//! Standard error may be a pipe that nobody reads. A server that wrote to it itself would stop answering as soon as
//! the pipe is full, so whoever logs only adds to the buffer. Lines keep their order; what does not fit is dropped,
//! counted, and told of as soon as there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of lines that wait to be written; what does not fit is dropped.
pub const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait, at the end, for lines that nobody reads.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were dropped in this process. There is one log per process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines were dropped because nobody took those before them.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Where lines are put.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Dropped since the last line that found room.
    dropped: u64,
    /// The thread holds lines that it has taken and not yet written.
    writing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held; lines that are whole can be written whatever happened.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Begins to write to `out`; `json` says in which form the thread tells of dropped lines.
    pub(super) fn begin(out: impl Write + Send + 'static, json: bool) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let reader = Arc::clone(&shared);
        // It ends with the process: at the end somebody may still have something to say.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&reader, out, json))?;
        Ok(Lines { shared })
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() + line.len() > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        self.shared.filled.notify_one();
    }

    /// Waits until everything is written, for [`FLUSH_TIMEOUT`] at most.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut waiting = self.shared.lock();
        while waiting.writing || !waiting.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.emptied.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn write(shared: &Shared, mut out: impl Write, json: bool) {
    let mut taken = Vec::new();
    loop {
        let mut waiting = shared.lock();
        waiting.writing = false;
        while waiting.lines.is_empty() {
            shared.emptied.notify_all();
            waiting = shared.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.writing = true;
        std::mem::swap(&mut waiting.lines, &mut taken);
        let dropped = std::mem::take(&mut waiting.dropped);
        drop(waiting);
        // One write a line: a file is moved aside between two.
        for line in taken.split_inclusive(|byte| *byte == b'\n') {
            // Nobody can be told that the log can not be written.
            out.write_all(line).ok();
        }
        if dropped > 0 {
            out.write_all(gap(dropped, json).as_bytes()).ok();
        }
        out.flush().ok();
        taken.clear();
    }
}

/// Returns the line that stands where others are missing.
fn gap(dropped: u64, json: bool) -> String {
    if json {
        format!("{{\"level\":\"WARN\",\"fields\":{{\"message\":\"lines were dropped\",\"dropped\":{dropped}}}}}\n")
    } else {
        format!("WARN noetl::telemetry: lines were dropped: nobody took those before them dropped={dropped}\n")
    }
}

/// One line as it is made; whole when it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    lines: Lines,
    line: Vec<u8>,
}

impl Writer {
    pub(super) fn new(lines: &Lines) -> Self {
        Writer { lines: lines.clone(), line: Vec::new() }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.lines.put(&self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An end that takes nothing until it is opened.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error says that it is open for good.
            self.open.recv().ok();
            self.written.send(bytes.to_vec()).ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(lines: &Lines, text: &str) {
        writeln!(Writer::new(lines), "{text}").unwrap();
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_missing_is_counted() {
        let (opener, open) = mpsc::channel();
        let (written, read) = mpsc::channel();
        let lines = Lines::begin(Gate { open, written }, false).unwrap();
        let long = "x".repeat(1000);
        let (before, told) = (dropped(), 2 * WAITING_BYTES_MAX / 1000);
        for number in 0..told {
            say(&lines, &format!("{number} {long}"));
        }
        assert!(dropped() > before, "twice as much as there is room for");
        // Nobody reads: the end is not held up for long.
        let began = Instant::now();
        lines.flush();
        assert!(began.elapsed() >= FLUSH_TIMEOUT, "it says that everything is written, and nothing is");
        drop(opener);
        lines.flush();
        say(&lines, "after");
        lines.flush();
        let all: Vec<u8> = read.try_iter().flatten().collect();
        let all = String::from_utf8(all).unwrap();
        let numbers: Vec<usize> =
            all.lines().filter_map(|line| line.strip_suffix(&long)?.trim().parse().ok()).collect();
        assert!(numbers.is_sorted() && !numbers.is_empty(), "in their order");
        let missing = told - numbers.len();
        assert!(all.contains(&format!("dropped={missing}\n")), "{missing}: {}", &all[all.len() - 300..]);
        assert!(all.ends_with("after\n"));
    }

    #[test]
    fn what_is_missing_is_json_where_the_log_is() {
        let line: serde_json::Value = serde_json::from_str(&gap(7, true)).unwrap();
        assert_eq!(line["fields"]["dropped"], 7);
    }
}
