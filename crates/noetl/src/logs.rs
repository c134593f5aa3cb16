//! What tools print, on its way from the worker to the server: beside the work, bounded, and in nobody's way.
//!
//! A tool hands over a line and goes on. One task gathers lines and sends them; what it can not get rid of is dropped,
//! counted, and marked in the log where it is missing. Losing a line never delays or fails a command.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::log::{CommandMeter, Kept, LogLine, LogStream};
use noetl_core::tool::ToolCall;
use noetl_engine::clock::Clock;
use noetl_engine::transport::{LOG_LINES_PER_REQUEST_MAX, Transport, WorkerError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Lines that wait to be sent, at most.
pub const LINES_WAITING_MAX: usize = 8_192;
/// Marks that wait to be sent beside them, at most, when their tools have ended and no line can bring them along.
const MARKS_WAITING_MAX: usize = 256;
/// Bytes of lines that wait to be sent, at most; marks come on top.
pub const BYTES_WAITING_MAX: usize = 16 * 1024 * 1024;
/// Bytes of lines in one request, about.
const BYTES_PER_REQUEST_MAX: usize = 512 * 1024;
/// How long lines of a running tool are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How often a request is tried.
const TRIES_MAX: u32 = 5;
/// Before the second try; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the last lines may take when the worker ends.
const LAST_LINES: Duration = Duration::from_secs(3);
/// Commands whose lines are counted at the same time, at most.
const METERS_MAX: usize = 4_096;

/// Room for a mark, in bytes.
const MARK_BYTES: usize = 128;

/// Who prints: one execution of one tool.
#[derive(Debug, Clone)]
pub struct Printer {
    execution_id: ExecutionId,
    command_id: CommandId,
    step: Arc<str>,
    iteration: Option<u32>,
    task: Arc<str>,
    attempt: u32,
}

impl Printer {
    /// Returns who prints when `call` runs.
    pub fn of(call: &ToolCall) -> Self {
        Printer {
            execution_id: call.execution_id,
            command_id: call.command_id,
            step: Arc::clone(&call.step),
            iteration: call.iteration,
            task: Arc::clone(&call.label),
            attempt: call.attempt,
        }
    }
}

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub struct LogPost {
    items: mpsc::Sender<Item>,
    shared: Arc<Shared>,
}

impl fmt::Debug for LogPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPost").finish_non_exhaustive()
    }
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// Tells this process's lines from those of others.
    source: i64,
    bytes_waiting: AtomicUsize,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    serial: i64,
    meters: IndexMap<CommandId, Meter>,
}

#[derive(Debug, Default)]
struct Meter {
    kept: CommandMeter,
    /// Lines dropped since the last one that was taken.
    lost: u32,
}

enum Item {
    Line(LogLine),
    /// A tool has ended: somebody may be waiting for its last line.
    Hurry,
}

/// The task that sends the lines.
#[derive(Debug)]
pub struct LogCarrier {
    task: JoinHandle<()>,
    closing: CancellationToken,
}

impl LogCarrier {
    /// Sends what waits, for a moment, and ends.
    pub async fn close(mut self) {
        self.closing.cancel();
        if timeout(LAST_LINES, &mut self.task).await.is_err() {
            tracing::warn!("the last lines of the tools' logs could not be sent in time");
            self.task.abort();
        }
    }
}

/// Begins to carry lines over `transport`. `source` is a number that no other process has, most likely.
pub fn carry(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, source: i64) -> (LogPost, LogCarrier) {
    let (items, waiting) = mpsc::channel(LINES_WAITING_MAX + MARKS_WAITING_MAX);
    let shared = Arc::new(Shared { clock, source, bytes_waiting: AtomicUsize::new(0), counted: Mutex::default() });
    let closing = CancellationToken::new();
    let (shared_too, closing_too) = (Arc::clone(&shared), closing.clone());
    let carrier = Carrier { transport, waiting, shared: shared_too, closing: closing_too, is_closed: false };
    let task = tokio::spawn(carrier.run());
    (LogPost { items, shared }, LogCarrier { task, closing })
}

impl LogPost {
    /// Takes a line; waits for nothing.
    pub fn line(&self, printer: &Printer, stream: LogStream, line: &str) {
        let mut counted = self.shared.counted();
        counted.make_room(printer.command_id);
        let Counted { serial, meters } = &mut *counted;
        let meter = meters.entry(printer.command_id).or_default();
        let (stream, text) = match meter.kept.take(line) {
            Kept::Line(text) => (stream, text),
            Kept::Mark(mark) => (LogStream::System, mark),
            Kept::Nothing => return,
        };
        // The mark goes with the next line that there is room for; a queue that is nearly full is not for marks alone.
        if meter.lost > 0 && self.has_room(text.len()) {
            self.say_lost(printer, serial, meter);
        }
        if meter.lost > 0 || !self.has_room_for(text.len(), 1) {
            meter.lost += 1;
        } else {
            self.put(printer, serial, stream, text);
        }
    }

    /// Says that a tool has ended.
    pub fn ended(&self, printer: &Printer) {
        let mut counted = self.shared.counted();
        let Counted { serial, meters } = &mut *counted;
        // Race: the queue may still be as full as it was when the last lines were lost. Nothing comes behind them that
        // could bring the mark along, so it has room of its own.
        if let Some(meter) = meters.get_mut(&printer.command_id)
            && self.items.capacity() > 0
        {
            self.say_lost(printer, serial, meter);
        }
        // In a full queue there is no need to hurry.
        if self.has_room(0) {
            self.items.try_send(Item::Hurry).ok();
        }
    }

    fn say_lost(&self, printer: &Printer, serial: &mut i64, meter: &mut Meter) {
        if meter.lost > 0 {
            let mark = format!("… {} lines are missing here: they could not be sent in time", meter.lost);
            self.put(printer, serial, LogStream::System, mark);
            meter.lost = 0;
        }
    }

    /// Returns whether a line of so many bytes and a mark would find room.
    fn has_room(&self, bytes: usize) -> bool {
        self.has_room_for(bytes + MARK_BYTES, 2)
    }

    /// Returns whether so many bytes in so many lines would find room. Who asks holds the counters, so nobody else can
    /// take it.
    fn has_room_for(&self, bytes: usize, lines: usize) -> bool {
        let waiting = self.shared.bytes_waiting.load(Ordering::Relaxed);
        waiting + bytes <= BYTES_WAITING_MAX && self.items.capacity() >= MARKS_WAITING_MAX + lines
    }

    /// Puts a line in the queue, where it has room.
    fn put(&self, printer: &Printer, serial: &mut i64, stream: LogStream, line: String) {
        let bytes = line.len();
        self.shared.bytes_waiting.fetch_add(bytes, Ordering::Relaxed);
        *serial += 1;
        let line = LogLine {
            execution_id: printer.execution_id,
            command_id: printer.command_id,
            step: Arc::clone(&printer.step),
            iteration: printer.iteration,
            task: Arc::clone(&printer.task),
            attempt: printer.attempt,
            stream,
            at: self.shared.clock.now(),
            source: self.shared.source,
            serial: *serial,
            line,
        };
        // Nobody is there to take it: the worker is leaving.
        if self.items.try_send(Item::Line(line)).is_err() {
            self.shared.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Forgets the command that began first. Should it print again, it is counted anew; the execution's own limit holds.
    fn make_room(&mut self, command_id: CommandId) {
        if self.meters.len() >= METERS_MAX && !self.meters.contains_key(&command_id) {
            self.meters.shift_remove_index(0);
        }
    }
}

struct Carrier {
    transport: Arc<dyn Transport>,
    waiting: mpsc::Receiver<Item>,
    shared: Arc<Shared>,
    closing: CancellationToken,
    /// Nothing new is taken; what waits is sent.
    is_closed: bool,
}

impl Carrier {
    async fn run(mut self) {
        while let Some(lines) = self.gather().await {
            let bytes: usize = lines.iter().map(|line| line.line.len()).sum();
            if !lines.is_empty() {
                self.send(&lines).await;
            }
            self.shared.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Returns the lines of the next request; `None` at the end.
    async fn gather(&mut self) -> Option<Vec<LogLine>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut until: Option<Instant> = None;
        while lines.len() < LOG_LINES_PER_REQUEST_MAX && bytes < BYTES_PER_REQUEST_MAX {
            let enough = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let item = tokio::select! {
                biased;
                item = self.waiting.recv() => item,
                () = enough => break,
                // Nothing waits: with the worker's tools at an end, nothing more comes.
                () = self.closing.cancelled(), if !self.is_closed => {
                    self.is_closed = true;
                    self.waiting.close();
                    continue;
                }
            };
            match item {
                Some(Item::Line(line)) => {
                    until.get_or_insert_with(|| Instant::now() + GATHER);
                    bytes += line.line.len();
                    lines.push(line);
                }
                // What stands behind it in the queue still goes along.
                Some(Item::Hurry) => until = Some(Instant::now()),
                None if lines.is_empty() => return None,
                None => break,
            }
        }
        Some(lines)
    }

    /// Sends lines, a few times if need be; what can not be sent is counted as lost.
    async fn send(&self, lines: &[LogLine]) {
        let mut pause = PAUSE;
        let mut tries = 0;
        let error = loop {
            tries += 1;
            let error = match self.transport.log(lines.to_vec()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let hopeless = match &error {
                WorkerError::Bad(_) | WorkerError::NameTaken(_) | WorkerError::UnknownSession(_) => true,
                WorkerError::Store(_) | WorkerError::Unreachable(_) | WorkerError::TooNew(_) => tries >= TRIES_MAX,
            };
            if hopeless {
                break error;
            }
            sleep(pause).await;
            pause *= 2;
        };
        tracing::warn!(%error, lines = lines.len(), "lines of the tools' logs are lost");
        let mut counted = self.shared.counted();
        for line in lines {
            if let Some(meter) = counted.meters.get_mut(&line.command_id) {
                meter.lost += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use noetl_core::id::CatalogId;
    use noetl_core::playbook::Playbook;
    use noetl_core::secret::keychain::KeptUnder;
    use noetl_core::secret::{Credential, Warrant};
    use noetl_core::time::Timestamp;
    use noetl_engine::secrets::SecretError;
    use noetl_engine::transport::{Hello, Orders, Poll, Reports, Welcome};
    use serde_json::Value;
    use tokio::sync::Semaphore;

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(1)
        }

        fn boottime_ms(&self) -> u64 {
            0
        }
    }

    /// A server that takes lines one request at a time, when it is let, and refuses the first few.
    struct Slow {
        permits: Semaphore,
        refuses: Mutex<u32>,
        taken: Mutex<Vec<Vec<LogLine>>>,
    }

    impl Slow {
        fn new(permits: usize, refuses: u32) -> Arc<Self> {
            let permits = Semaphore::new(permits);
            Arc::new(Slow { permits, refuses: Mutex::new(refuses), taken: Mutex::default() })
        }

        fn requests(&self) -> Vec<Vec<String>> {
            let taken = self.taken.lock().unwrap();
            taken.iter().map(|lines| lines.iter().map(|line| line.line.clone()).collect()).collect()
        }
    }

    #[async_trait]
    impl Transport for Slow {
        async fn hello(&self, _: Hello) -> Result<Welcome, WorkerError> {
            Err(WorkerError::Bad("not here".to_owned()))
        }

        async fn poll(&self, _: Poll) -> Result<Orders, WorkerError> {
            Err(WorkerError::Bad("not here".to_owned()))
        }

        async fn report(&self, _: Reports) -> Result<Orders, WorkerError> {
            Err(WorkerError::Bad("not here".to_owned()))
        }

        async fn playbook(&self, _: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
            Err(WorkerError::Bad("not here".to_owned()))
        }

        async fn result(&self, _: &str) -> Result<Arc<Value>, WorkerError> {
            Err(WorkerError::Bad("not here".to_owned()))
        }

        async fn credential(&self, _: &Warrant, _: &str) -> Result<Credential, SecretError> {
            Err(SecretError::Unreachable("not here".to_owned()))
        }

        async fn kept(&self, _: &Warrant, _: &KeptUnder) -> Result<Option<Value>, SecretError> {
            Ok(None)
        }

        async fn keep(&self, _: &Warrant, _: &KeptUnder, _: Value, _: u64) -> Result<(), SecretError> {
            Ok(())
        }

        async fn is_cancelled(&self, _: ExecutionId) -> bool {
            false
        }

        async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
            self.permits.acquire().await.unwrap().forget();
            {
                let mut refuses = self.refuses.lock().unwrap();
                if *refuses > 0 {
                    *refuses -= 1;
                    return Err(WorkerError::Unreachable("the line is down".to_owned()));
                }
            }
            self.taken.lock().unwrap().push(lines);
            Ok(())
        }
    }

    fn printer(command: i64) -> Printer {
        Printer {
            execution_id: ExecutionId(1),
            command_id: CommandId(command),
            step: "step".into(),
            iteration: None,
            task: "task".into(),
            attempt: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_gathered_and_the_end_of_a_tool_hurries_them() {
        let server = Slow::new(9, 0);
        let (post, carrier) = carry(Arc::clone(&server) as Arc<dyn Transport>, Arc::new(Still), 5);
        let began = Instant::now();
        post.line(&printer(1), LogStream::Stdout, "a");
        post.line(&printer(1), LogStream::Stderr, "b");
        post.ended(&printer(1));
        post.line(&printer(2), LogStream::Stdout, "c");
        carrier.close().await;
        assert_eq!(server.requests().concat(), ["a", "b", "c"]);
        assert!(began.elapsed() < GATHER, "nobody waited: {:?}", began.elapsed());
        let taken = server.taken.lock().unwrap().concat();
        assert_eq!(taken.iter().map(|line| (line.source, line.serial)).collect::<Vec<_>>(), [(5, 1), (5, 2), (5, 3)]);
        assert_eq!(taken[1].stream, LogStream::Stderr);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_moment_gets_every_line_once_it_is_back() {
        let server = Slow::new(99, TRIES_MAX - 1);
        let (post, carrier) = carry(Arc::clone(&server) as Arc<dyn Transport>, Arc::new(Still), 5);
        post.line(&printer(1), LogStream::Stdout, "a");
        post.ended(&printer(1));
        while server.requests().is_empty() {
            sleep(PAUSE).await;
        }
        assert_eq!(server.requests(), [["a"]]);
        carrier.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_marked_where_it_is_missing() {
        let server = Slow::new(99, TRIES_MAX);
        let (post, carrier) = carry(Arc::clone(&server) as Arc<dyn Transport>, Arc::new(Still), 5);
        post.line(&printer(1), LogStream::Stdout, "a");
        post.line(&printer(1), LogStream::Stdout, "b");
        post.ended(&printer(1));
        while *server.refuses.lock().unwrap() > 0 || post.shared.bytes_waiting.load(Ordering::Relaxed) > 0 {
            sleep(PAUSE).await;
        }
        post.line(&printer(1), LogStream::Stdout, "c");
        carrier.close().await;
        assert_eq!(server.requests().concat(), ["… 2 lines are missing here: they could not be sent in time", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_whose_last_lines_found_no_room_is_marked_although_nothing_follows() {
        let server = Slow::new(0, 0);
        let (post, carrier) = carry(Arc::clone(&server) as Arc<dyn Transport>, Arc::new(Still), 5);
        // More than there is room for, also with those that are on their way.
        let printed = LINES_WAITING_MAX + 2 * LOG_LINES_PER_REQUEST_MAX;
        for n in 0..printed {
            post.line(&printer(1), LogStream::Stdout, &n.to_string());
        }
        for command in 2..2 * MARKS_WAITING_MAX as i64 {
            post.line(&printer(command), LogStream::Stdout, "lost");
            post.ended(&printer(command));
        }
        post.ended(&printer(1));
        server.permits.add_permits(1_000);
        carrier.close().await;
        let taken = server.taken.lock().unwrap().concat();
        let marks = taken.iter().filter(|line| line.line.contains("are missing here")).count();
        assert_eq!(marks, MARKS_WAITING_MAX, "as many as there is room for");
        assert!(taken.len() <= LINES_WAITING_MAX + LOG_LINES_PER_REQUEST_MAX + MARKS_WAITING_MAX);
        assert!(taken.last().unwrap().line.contains("are missing here"), "{:?}", taken.last());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_neither_waits_nor_grows() {
        let server = Slow::new(0, 0);
        let (post, carrier) = carry(Arc::clone(&server) as Arc<dyn Transport>, Arc::new(Still), 5);
        let line = "x".repeat(10_000);
        for command in 0..100 {
            for _ in 0..200 {
                post.line(&printer(command), LogStream::Stdout, &line);
            }
        }
        // Nobody has taken anything, and the tools were not held up: what had no room is gone.
        assert!(post.shared.bytes_waiting.load(Ordering::Relaxed) <= BYTES_WAITING_MAX);
        server.permits.add_permits(1_000);
        while post.shared.bytes_waiting.load(Ordering::Relaxed) > 0 {
            sleep(GATHER).await;
        }
        post.ended(&printer(99));
        carrier.close().await;
        let taken = server.taken.lock().unwrap().concat();
        let mut marks: Vec<CommandId> =
            taken.iter().filter(|line| line.line.contains("are missing here")).map(|line| line.command_id).collect();
        let count = marks.len();
        marks.dedup();
        assert!(marks.len() == count && marks.contains(&CommandId(99)), "{marks:?}");
    }
}
