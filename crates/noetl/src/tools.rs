//! The worker's tools: a toolbox, spoken to in the engine's words.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use noetl_core::id::ExecutionId;
use noetl_core::log::LogStream;
use noetl_core::secret::keychain::{TokenRequest, Wanted};
use noetl_core::secret::{Credential, PieceMask};
use noetl_core::tool::{ToolCall, ToolError, ToolOutcome};
use noetl_engine::worker::{CommandSecrets, Stop, Tools};
use noetl_tools::{LINE_BYTES_MAX, LogSink, Outside, Secrets, StopHandle, Stream, Toolbox, stop_line};
use serde_json::{Map, Value};

use crate::logs::{LogPost, Printer};

/// Hidden argument that makes this binary a process supervisor: `main` must look for it before anything else.
pub const SUPERVISE: &str = "__supervise";

/// Longest character, in bytes: a line is cut so much before its limit at most.
const CHAR_BYTES_MAX: usize = 4;

/// A line that a tool printed.
#[derive(Debug, Clone, Copy)]
pub struct Printed<'a> {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Step name.
    pub step: &'a str,
    /// Which iteration of its loop, from 0.
    pub iteration: Option<u32>,
    /// Task label within the step.
    pub label: &'a str,
    /// Standard output or standard error.
    pub stream: Stream,
    /// The line, without its end.
    pub line: &'a str,
}

/// Takes what tools print, while they print it.
pub type Output = Arc<dyn Fn(Printed<'_>) + Send + Sync>;

/// A toolbox as the worker knows it.
pub struct Hands {
    toolbox: Arc<Toolbox>,
    post: LogPost,
    output: Option<Output>,
}

impl fmt::Debug for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hands").field("toolbox", &self.toolbox).finish_non_exhaustive()
    }
}

impl Hands {
    /// Returns the hands of a worker. What tools print goes to the log by `post`, and to `output` too.
    pub fn new(toolbox: Arc<Toolbox>, post: LogPost, output: Option<Output>) -> Self {
        Hands { toolbox, post, output }
    }
}

#[async_trait]
impl Tools for Hands {
    async fn run(&self, slot: usize, call: ToolCall, stop: Stop, secrets: &Arc<CommandSecrets>) -> ToolOutcome {
        let (handle, signal) = stop_line();
        // An order that stands already must be there before the toolbox looks.
        if let Some(order) = stop.now() {
            handle.order(order);
        }
        let sink = Sink {
            output: self.output.clone(),
            execution_id: call.execution_id,
            step: Arc::clone(&call.step),
            iteration: call.iteration,
            label: Arc::clone(&call.label),
            secrets: Arc::clone(secrets),
            pieces: Mutex::default(),
            post: self.post.clone(),
            printer: Printer::of(&call),
            has_printed: AtomicBool::new(false),
        };
        let outside = Outside { log: &sink, secrets: &Given { secrets, hands: self } };
        let outcome = tokio::select! {
            outcome = self.toolbox.run(slot, call, signal, outside) => outcome,
            never = pass_on(stop, &handle) => match never {},
        };
        sink.finish();
        outcome
    }

    fn running_pid(&self, slot: usize) -> Option<u32> {
        self.toolbox.running_pid(slot).and_then(|pid| u32::try_from(pid).ok())
    }

    async fn fetch_secret(&self, wanted: Wanted) -> Result<Value, ToolError> {
        self.toolbox.secret(wanted).await
    }
}

/// A command's secrets as its tools know them.
struct Given<'a> {
    secrets: &'a CommandSecrets,
    hands: &'a Hands,
}

#[async_trait]
impl Secrets for Given<'_> {
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
        self.secrets.usable(self.hands, alias).await
    }

    async fn token(&self, request: TokenRequest) -> Result<Map<String, Value>, ToolError> {
        self.secrets.granted(self.hands, request).await
    }
}

/// Passes stop orders on, for as long as the tool runs.
async fn pass_on(mut stop: Stop, handle: &StopHandle) -> Infallible {
    let mut last = stop.ordered().await;
    loop {
        handle.order(last);
        last = stop.changed_from(last).await;
    }
}

struct Sink {
    output: Option<Output>,
    execution_id: ExecutionId,
    step: Arc<str>,
    iteration: Option<u32>,
    label: Arc<str>,
    secrets: Arc<CommandSecrets>,
    /// What may be the beginning of a secret in a line that was cut, by stream.
    pieces: Mutex<[PieceMask; 2]>,
    post: LogPost,
    printer: Printer,
    has_printed: AtomicBool,
}

/// Every line passes here on its way out of the worker, and leaves its secrets behind.
impl LogSink for Sink {
    fn line(&self, stream: Stream, line: &str) {
        // Longer lines come in pieces of about this length; see LINE_BYTES_MAX.
        let more = line.len() > LINE_BYTES_MAX - CHAR_BYTES_MAX;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = &mut pieces[stream as usize];
        if let Some(line) = self.secrets.masking(|mask| piece.push(mask, line, more)) {
            self.print(stream, &line);
        }
    }
}

impl Sink {
    fn finish(&self) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(line) = self.secrets.masking(|mask| pieces[stream as usize].finish(mask)) {
                self.print(stream, &line);
            }
        }
    }

    /// The one place where what tools print leaves their hands, for the log and for whoever looks on.
    fn print(&self, stream: Stream, line: &str) {
        self.has_printed.store(true, Ordering::Relaxed);
        let log_stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        self.post.line(&self.printer, log_stream, line);
        if let Some(output) = &self.output {
            output(Printed {
                execution_id: self.execution_id,
                step: &self.step,
                iteration: self.iteration,
                label: &self.label,
                stream,
                line,
            });
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.has_printed.load(Ordering::Relaxed) {
            self.post.ended(&self.printer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use noetl_core::playbook::{ENGINE_KINDS, TOOL_KINDS};

    #[test]
    fn what_may_be_registered_is_what_the_engine_and_the_toolbox_run() {
        let run: BTreeSet<&str> =
            noetl_tools::kinds().map(|info| info.kind).chain(ENGINE_KINDS.iter().copied()).collect();
        let known: BTreeSet<&str> = TOOL_KINDS.iter().copied().collect();
        let unknown: Vec<_> = run.difference(&known).collect();
        assert!(unknown.is_empty(), "add to TOOL_KINDS: {unknown:?}");
        let missing: Vec<_> = known.difference(&run).collect();
        assert!(missing.is_empty(), "the toolbox lacks {missing:?}");
    }
}
