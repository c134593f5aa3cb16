//! A slot: runs one command's pipeline at a time.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use noetl_core::expr::Library;
use noetl_core::head::RunningTool;
use noetl_core::id::{CatalogId, SessionId};
use noetl_core::pipeline::{Next, Pipeline, Place};
use noetl_core::playbook::{Playbook, Step};
use noetl_core::secret::keychain::{ENTRIES_DEPTH_MAX, Reference};
use noetl_core::secret::{self, Warrant};
use noetl_core::time::Timestamp;
use noetl_core::tool::{ErrorKind, StopOrder, ToolCall, ToolError, ToolOutcome};
use noetl_core::work::{Assignment, Done, Reported, Work};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::clock::Clock;
use crate::hold;
use crate::lru::Lru;
use crate::transport::{Attempt, Transport, WorkerError};
use crate::worker::{CommandSecrets, Stop, Tools};

/// A tool that runs longer than this is told of at once: that it has started, and which process it is. In milliseconds.
const STARTED_AFTER_MS: u64 = 1_000;
/// Playbooks kept compiled.
const BOOKS_MAX: u64 = 256;
/// How often something that a pipeline needs is asked for before its step fails.
const FETCHES_MAX: u32 = 8;
/// Before the second of these; then twice as long each time, in milliseconds.
const FETCH_PAUSE_MS: u64 = 100;

/// What all slots use.
pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) tools: Arc<dyn Tools>,
    pub(super) clock: Arc<dyn Clock>,
    books: Mutex<Lru<CatalogId, Arc<Playbook>>>,
}

impl Shared {
    pub(super) fn new(transport: Arc<dyn Transport>, tools: Arc<dyn Tools>, clock: Arc<dyn Clock>) -> Self {
        Shared { transport, tools, clock, books: Mutex::new(Lru::new(BOOKS_MAX)) }
    }
}

/// What a running command is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// Go on.
    Run,
    /// The execution is cancelled: complete what runs, start nothing else.
    Finish,
    /// Stop now.
    Stop {
        order: StopOrder,
        /// The command goes back to the server, for another worker; else it is over.
        hand_back: bool,
    },
}

/// A command for a slot.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) assignment: Box<Assignment>,
    /// The life of the worker that it was given to.
    pub(super) session_id: SessionId,
    pub(super) control: watch::Receiver<Control>,
    /// Set when a tool has been started.
    pub(super) started: Arc<AtomicBool>,
    /// What has been running for a while.
    pub(super) running: Arc<Mutex<Option<RunningTool>>>,
}

/// What a slot says.
#[derive(Debug)]
pub(super) enum Said {
    /// A tool has been running for a while.
    Started { attempt: Attempt, at: Timestamp },
    /// So has a later one of the same command.
    Running,
    /// The command is over here, and the slot is free.
    Over { slot: usize, attempt: Attempt, outcome: Reported },
}

/// Runs the jobs that come, one after the other, until no more can come.
pub(super) async fn serve(
    shared: Arc<Shared>,
    slot: usize,
    mut jobs: mpsc::Receiver<Job>,
    said: mpsc::UnboundedSender<Said>,
) {
    while let Some(job) = jobs.recv().await {
        let attempt = Attempt { command_id: job.assignment.command_id, epoch: job.assignment.epoch };
        let warrant = Warrant {
            session_id: job.session_id,
            execution_id: job.assignment.execution_id,
            command_id: attempt.command_id,
            epoch: attempt.epoch,
        };
        let secrets = Arc::new(CommandSecrets::new(Arc::clone(&shared.transport), warrant));
        let run = Run {
            shared: &shared,
            slot,
            attempt,
            said: &said,
            job,
            secrets: Arc::clone(&secrets),
            begun: None,
            told_started: false,
        };
        let mut outcome = AssertUnwindSafe(run.command()).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(command = %attempt.command_id, "running a command failed: this is a mistake of ours");
            failed(ToolError::hard(ErrorKind::Unknown, "WORKER_PANIC", "the worker failed while running the command"))
        });
        // Whatever templates and rules made of it: from here it leaves the worker's memory.
        secrets.masking(|mask| mask.reported(&mut outcome));
        if said.send(Said::Over { slot, attempt, outcome }).is_err() {
            return;
        }
    }
}

struct Run<'a> {
    shared: &'a Shared,
    slot: usize,
    attempt: Attempt,
    said: &'a mpsc::UnboundedSender<Said>,
    job: Job,
    secrets: Arc<CommandSecrets>,
    /// When its first tool was started.
    begun: Option<Timestamp>,
    /// The foreman has heard that.
    told_started: bool,
}

impl Run<'_> {
    async fn command(mut self) -> Reported {
        let execution_id = self.job.assignment.execution_id;
        // The last look before anything starts: what the open poll has brought, and in one process the engine itself.
        let cancelled = match self.told() {
            Control::Run => self.shared.transport.is_cancelled(execution_id).await,
            Control::Finish | Control::Stop { hand_back: false, .. } => true,
            Control::Stop { hand_back: true, .. } => return Reported::Released,
        };
        if cancelled {
            return skipped(&self.job.assignment);
        }
        let playbook = match self.playbook().await {
            Ok(playbook) => playbook,
            Err(outcome) => return outcome,
        };
        let work = match Work::deserialize(&*self.job.assignment.work) {
            Ok(work) => Arc::new(work),
            Err(error) => {
                let message = format!("the command can not be read by this worker: {error}");
                return failed(ToolError::hard(ErrorKind::Config, "WORK_FORMAT", message));
            }
        };
        let Some(step) = playbook.body(&self.job.assignment.step, work.iteration.is_some()) else {
            let message = format!("playbook {} has no step `{}`", playbook.path, self.job.assignment.step);
            return failed(ToolError::hard(ErrorKind::Config, "NO_SUCH_STEP", message));
        };
        self.pipeline(&playbook, step, work).await
    }

    async fn pipeline(&mut self, playbook: &Playbook, step: &Step, work: Arc<Work>) -> Reported {
        let library = Arc::new(Library::empty());
        let mut pipeline = Pipeline::new(step, work);
        loop {
            // Between two tasks.
            let last = match self.told() {
                Control::Run => false,
                Control::Finish => {
                    pipeline.finish_only();
                    step.spec.cancel_between_tasks
                }
                Control::Stop { .. } => {
                    pipeline.finish_only();
                    true
                }
            };
            let place = Place {
                playbook,
                step,
                execution_id: self.job.assignment.execution_id,
                command_id: self.job.assignment.command_id,
                library: &library,
                now: self.shared.clock.now(),
                on_worker: true,
            };
            match pipeline.next(&place) {
                Next::Done(done) => return Reported::Done(done),
                Next::Needs(references) => {
                    if let Err(outcome) = self.load(&pipeline, &place, references).await {
                        return outcome;
                    }
                }
                // What has ended by itself has ended; nothing else begins.
                Next::Call(_) | Next::Wait { .. } | Next::Pause(_) | Next::Stop if last => return self.ended(None),
                Next::Stop => return self.ended(None),
                Next::Pause(pause) => return Reported::Suspended(pause),
                Next::Wait { ms } => {
                    tokio::select! {
                        biased;
                        // A wait is not sat out for a cancelled execution.
                        _ = self.job.control.changed() => {}
                        () = sleep(Duration::from_millis(ms)) => {}
                    }
                }
                Next::Call(call) => {
                    let fetches = &*call.kind == secret::TOOL_KIND;
                    let mut outcome = self.call(*call).await;
                    if fetches {
                        // It is for the tasks behind it, and masked like everything else when the command is reported.
                        self.secrets.learn(&outcome.data);
                    } else {
                        self.secrets.masking(|mask| mask.outcome(&mut outcome));
                    }
                    if outcome.stopped.is_some()
                        && let Control::Stop { .. } = self.told()
                    {
                        return self.ended(Some(outcome));
                    }
                    pipeline.outcome(outcome);
                }
            }
        }
    }

    /// Puts what an evaluation asked for into the library: stored results, and secrets with what they need in turn.
    async fn load(&mut self, pipeline: &Pipeline, place: &Place<'_>, references: Vec<String>) -> Result<(), Reported> {
        // The last one is at hand. Those that wait for what they need in turn are noted: to need one of them is to
        // wait for oneself.
        let mut wanted = references;
        let mut waiting: Vec<String> = Vec::new();
        while let Some(reference) = wanted.last().cloned() {
            let data = match Reference::parse(&reference) {
                _ if place.library.get(&reference).is_some() => {
                    wanted.pop();
                    continue;
                }
                None => self.result(&reference).await?,
                Some(Reference::Token(alias)) => self.secrets.token(&*self.shared.tools, &alias).await,
                Some(Reference::Entry(name)) => match pipeline.keychain(place, &name) {
                    Ok(plan) => {
                        let catalog_id = self.job.assignment.catalog_id;
                        let entry = place.playbook.keychain.iter().find(|entry| entry.name == name);
                        self.secrets.resolve(&*self.shared.tools, catalog_id, entry, plan).await
                    }
                    Err(needs)
                        if needs.iter().any(|need| *need == reference || waiting.contains(need))
                            || waiting.len() >= ENTRIES_DEPTH_MAX =>
                    {
                        tracing::warn!(entry = %name, "keychain entries wait for each other: this one is empty");
                        Arc::new(Value::Null)
                    }
                    Err(needs) => {
                        waiting.push(reference);
                        wanted.extend(needs);
                        continue;
                    }
                },
            };
            place.library.insert(&reference, data);
            waiting.retain(|known| *known != reference);
            wanted.pop();
        }
        Ok(())
    }

    /// Runs one tool, and passes on what comes for it in the meantime.
    async fn call(&mut self, call: ToolCall) -> ToolOutcome {
        let since = self.shared.clock.now();
        self.begun.get_or_insert(since);
        self.job.started.store(true, Ordering::Relaxed);
        let mut tell = Some(Instant::now() + Duration::from_millis(STARTED_AFTER_MS));
        let tool = Arc::clone(&call.kind);
        let (order, stop) = Stop::channel();
        let secrets = Arc::clone(&self.secrets);
        let mut run = self.shared.tools.run(self.slot, call, stop, &secrets);
        loop {
            if let Control::Stop { order: wanted, .. } = *self.job.control.borrow_and_update() {
                order.send_if_modified(|present| {
                    let news = *present != Some(wanted);
                    *present = Some(wanted);
                    news
                });
            }
            let for_a_while = async {
                match tell {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                outcome = &mut run => {
                    if tell.is_none() {
                        *hold(&self.job.running) = None;
                    }
                    return outcome;
                }
                Ok(()) = self.job.control.changed() => {}
                () = for_a_while => {
                    tell = None;
                    let pid = self.shared.tools.running_pid(self.slot);
                    *hold(&self.job.running) = Some(RunningTool { tool: Arc::clone(&tool), pid, since });
                    let said = match self.begun {
                        Some(at) if !std::mem::replace(&mut self.told_started, true) => {
                            Said::Started { attempt: self.attempt, at }
                        }
                        Some(_) | None => Said::Running,
                    };
                    // If nobody listens any more, the worker is being dropped.
                    drop(self.said.send(said));
                }
            }
        }
    }

    /// Returns what is reported of a command that was ended before its pipeline was.
    fn ended(&self, outcome: Option<ToolOutcome>) -> Reported {
        let started = self.job.started.load(Ordering::Relaxed);
        let hand_back = matches!(self.told(), Control::Stop { hand_back: true, .. });
        if hand_back && !(started && self.job.assignment.at_most_once) {
            return Reported::Released;
        }
        if hand_back {
            // Trying it again elsewhere would be a second start.
            let message = "the worker was shut down while it ran the command, which may start only once";
            return failed(ToolError::hard(ErrorKind::WorkerLost, "WORKER_DRAINED", message));
        }
        let Some(outcome) = outcome else {
            return Reported::cancelled(started);
        };
        Reported::Cancelled {
            started,
            stopped: outcome.stopped,
            pids: pids(&outcome),
            remote_may_have_acted: outcome.remote_may_have_acted(),
        }
    }

    fn told(&self) -> Control {
        *self.job.control.borrow()
    }

    async fn playbook(&mut self) -> Result<Arc<Playbook>, Reported> {
        let shared = self.shared;
        let catalog_id = self.job.assignment.catalog_id;
        if let Some(known) = hold(&shared.books).get(&catalog_id) {
            return Ok(Arc::clone(known));
        }
        let playbook = self.fetch(|| shared.transport.playbook(catalog_id)).await?;
        hold(&shared.books).put(catalog_id, Arc::clone(&playbook));
        Ok(playbook)
    }

    async fn result(&mut self, reference: &str) -> Result<Arc<Value>, Reported> {
        let shared = self.shared;
        self.fetch(|| shared.transport.result(reference)).await
    }

    /// Asks the server for something that the pipeline can not do without.
    async fn fetch<T, F>(&mut self, mut ask: impl FnMut() -> F) -> Result<T, Reported>
    where
        F: Future<Output = Result<T, WorkerError>>,
    {
        let mut pause = Duration::from_millis(FETCH_PAUSE_MS);
        let mut asked = 0;
        loop {
            let error = match ask().await {
                Ok(got) => return Ok(got),
                Err(error) => error,
            };
            asked += 1;
            let hopeless = match &error {
                WorkerError::Bad(_) | WorkerError::NameTaken(_) | WorkerError::UnknownSession(_) => true,
                WorkerError::TooNew(_) | WorkerError::Store(_) | WorkerError::Unreachable(_) => asked >= FETCHES_MAX,
            };
            if hopeless {
                let message = format!("the worker could not get what the step needs: {error}");
                return Err(failed(ToolError::hard(ErrorKind::Connection, "WORKER_FETCH", message).retryable()));
            }
            tokio::select! {
                biased;
                Ok(()) = self.job.control.changed() => {
                    if let Control::Stop { .. } = self.told() {
                        return Err(self.ended(None));
                    }
                }
                () = sleep(pause) => {}
            }
            pause *= 2;
        }
    }
}

/// Returns what is reported of a command that the worker held but never started.
pub(super) fn skipped(assignment: &Assignment) -> Reported {
    tracing::info!(
        execution = %assignment.execution_id,
        command = %assignment.command_id,
        step = %assignment.step,
        "execution has been cancelled, skipping command"
    );
    Reported::cancelled(false)
}

fn failed(error: ToolError) -> Reported {
    Reported::Done(Box::new(Done {
        data: json!({ "status": "error", "error": noetl_core::event::error_value(&error) }),
        error: Some(error),
        handled: false,
        ctx: Vec::new(),
        started_at: None,
        duration_ms: 0,
        stopped: None,
        worker_id: None,
    }))
}

/// Returns the processes that a tool could not confirm gone.
fn pids(outcome: &ToolOutcome) -> Vec<u32> {
    let listed = outcome.error.as_ref().and_then(|error| error.details.get("pids")).and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(|pid| pid.as_u64().and_then(|pid| u32::try_from(pid).ok())).collect()
}
