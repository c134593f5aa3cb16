//! A worker says what became of a command; or the moment comes that a command waited for.

use std::sync::Arc;

use serde_json::Value;

use crate::append::{CommandChange, DueKind};
use crate::event::{Event, StopCause, Wait};
use crate::execution::Env;
use crate::execution::command::{Going, Held, Run};
use crate::execution::draft::{Draft, Halt};
use crate::execution::state::{LiveState, Stop};
use crate::head::CommandState;
use crate::id::CommandId;
use crate::playbook::Step;
use crate::result::Bound;
use crate::tool::{ErrorKind, REMOTE_MAY_HAVE_ACTED, ToolError, ToolOutcome};
use crate::work::{Awaited, ChildOutcome, Done, Iteration, Pause, Report, Reported, Work};

impl Draft {
    /// Returns `false` for a report about an attempt that is over: a repeat, a late one, an old epoch.
    pub(super) fn report(&mut self, report: &Report, worker_id: &Arc<str>, env: &mut Env<'_>) -> Result<bool, Halt> {
        let command_id = report.command_id;
        let Some(live) = self.execution.live.get(&command_id) else { return Ok(false) };
        match live.state {
            LiveState::Issued if live.epoch == report.epoch => {}
            LiveState::Issued | LiveState::Suspended { .. } | LiveState::GivenUp | LiveState::Stopped => {
                return Ok(false);
            }
        }
        if live.withdrawn {
            let live = live.clone();
            return Ok(self.report_withdrawn(&live, report, worker_id, env));
        }
        let stop = live.stop.clone();
        let epoch = report.epoch;
        let (visit, iteration, started) = (live.visit, live.iteration, live.started);
        let Some(step) = env.playbook.body(&live.step, iteration.is_some()) else { return Ok(false) };
        let held = Held { command_id, epoch, row: Some(CommandState::Claimed) };
        let mut run = Run { step, visit, iteration, command: Some(held) };
        match &report.outcome {
            Reported::Started { at } => {
                if started {
                    return Ok(false);
                }
                self.started(step, command_id, epoch, worker_id, *at, env);
                self.change(CommandChange::Started { command_id, epoch });
            }
            Reported::Done(done) => {
                if let Some(at) = done.started_at.filter(|_| !started) {
                    self.started(step, command_id, epoch, worker_id, at, env);
                }
                let done = Done { worker_id: Some(Arc::clone(worker_id)), ..(**done).clone() };
                self.end_body(run, done, env)?;
            }
            // What is to be stopped does not begin to wait.
            Reported::Suspended(_) if stop.is_some() => {
                self.end_body(run, failed(stopped(stop.as_ref()), Some(Arc::clone(worker_id))), env)?;
            }
            // No child is born to a paused run: the pipeline asks for it again once the run goes on.
            Reported::Suspended(pause) if self.execution.paused && matches!(pause.wait, Awaited::Child(_)) => {
                let put_off = Pause { wait: Awaited::Delay { ms: 0 }, ..(**pause).clone() };
                self.pause(&mut run, &Work::default(), put_off, env)?;
            }
            Reported::Suspended(pause) => {
                let item = self.iteration(step, visit, iteration, env)?;
                let work = Work { iteration: item, ..Work::default() };
                let continuation = Arc::new(pause.continuation.clone());
                if let Some((error, writes)) = self.pause(&mut run, &work, (**pause).clone(), env)? {
                    // The child can not be started. The pipeline goes on with that, here as far as it can.
                    let previous = self.previous(step, visit);
                    let mut work = self.work(step, work.iteration, previous.as_deref(), env);
                    work.continuation = Some(continuation);
                    let outcome = Some(ToolOutcome::failed(error, Value::Null));
                    self.serve(run, Going { work: Arc::new(work), outcome, writes }, env)?;
                }
            }
            Reported::Cancelled { remote_may_have_acted, .. } => {
                // Of an execution that goes on: its step was stopped, not the run.
                let mut error = stopped(stop.as_ref());
                if *remote_may_have_acted {
                    error.message.push_str(REMOTE_MAY_HAVE_ACTED);
                    error = error.with("remote_may_have_acted", true);
                }
                self.end_body(run, failed(error, Some(Arc::clone(worker_id))), env)?;
            }
            // Needs the command's row: decided by `control::settle` under the lock.
            Reported::Released => return Ok(false),
        }
        Ok(true)
    }

    fn started(
        &mut self,
        step: &Step,
        command_id: CommandId,
        epoch: u32,
        worker_id: &Arc<str>,
        started_at: crate::time::Timestamp,
        env: &mut Env<'_>,
    ) {
        let (step, worker_id) = (Arc::clone(&step.name), Arc::clone(worker_id));
        self.emit(env, Event::CommandStarted { command_id, epoch, step, worker_id, started_at, late: false });
    }

    /// A moment has come: a delay is over, a child took too long, or a command was given up.
    pub(super) fn timer(&mut self, command_id: CommandId, env: &mut Env<'_>) -> Result<bool, Halt> {
        let Some(live) = self.execution.live.get(&command_id).cloned() else { return Ok(false) };
        let Some(step) = env.playbook.body(&live.step, live.iteration.is_some()) else { return Ok(false) };
        let run = |row| Run {
            step,
            visit: live.visit,
            iteration: live.iteration,
            command: Some(Held { command_id, epoch: live.epoch, row }),
        };
        match &live.state {
            LiveState::Issued => return Ok(false),
            LiveState::GivenUp | LiveState::Stopped if live.withdrawn => {
                self.clear_due(DueKind::Timer, command_id.0);
                self.end_withdrawn(command_id, &live, None, env);
            }
            LiveState::GivenUp => {
                self.clear_due(DueKind::Timer, command_id.0);
                let message = format!("the worker of `{}` was lost {} time(s)", step.name, live.losses);
                let error = ToolError::hard(ErrorKind::WorkerLost, "WORKER_LOST", message);
                self.end_body(run(None), failed(error, None), env)?;
            }
            LiveState::Stopped => {
                self.clear_due(DueKind::Timer, command_id.0);
                self.end_body(run(None), failed(stopped(live.stop.as_ref()), None), env)?;
            }
            LiveState::Suspended { wait: Wait::Until(at), continuation } => {
                if *at > env.now {
                    return Ok(false);
                }
                self.clear_due(DueKind::Timer, command_id.0);
                self.resume(run(Some(CommandState::Suspended)), continuation, None, None, env)?;
            }
            LiveState::Suspended { wait: Wait::Child { execution_id, path }, continuation } => {
                self.clear_due(DueKind::Timer, command_id.0);
                let message = format!("child execution {execution_id} of `{path}` took too long");
                let error = ToolError::soft(ErrorKind::Timeout, "CHILD_TIMEOUT", message)
                    .with("execution_id", execution_id.to_string());
                // It is not left behind, unless it is shielded.
                self.cancel_child(*execution_id, env);
                let data = serde_json::json!({ "execution_id": execution_id.to_string(), "status": "timeout" });
                let outcome = ToolOutcome::failed(error, data);
                self.resume(run(Some(CommandState::Suspended)), continuation, None, Some(outcome), env)?;
            }
        }
        Ok(true)
    }

    /// A child ended. When nobody waits for it any more the obligation is met by that.
    ///
    /// | the command | what is done |
    /// | --- | --- |
    /// | waits for this child | it goes on |
    /// | is over: the wait was cancelled, and the child with it | nothing |
    /// | goes on, or waits for another child, because this one took too long | nothing |
    ///
    /// (The guard makes sure that the command stands like this: it waits for the child from the child's birth on.)
    pub(super) fn child_ended(
        &mut self,
        command_id: CommandId,
        child: &ChildOutcome,
        env: &mut Env<'_>,
    ) -> Result<bool, Halt> {
        self.clear_due(DueKind::ChildDone, child.execution_id.0);
        let Some(live) = self.execution.live.get(&command_id).cloned() else { return Ok(true) };
        let continuation = match &live.state {
            LiveState::Suspended { wait: Wait::Child { execution_id, .. }, continuation }
                if *execution_id == child.execution_id =>
            {
                continuation
            }
            LiveState::Suspended { .. } | LiveState::Issued | LiveState::GivenUp | LiveState::Stopped => {
                return Ok(true);
            }
        };
        let Some(step) = env.playbook.body(&live.step, live.iteration.is_some()) else { return Ok(false) };
        let data = self.data(env, &child.result)?;
        let child = ChildOutcome { result: Bound::Inline(data), ..child.clone() };
        self.clear_due(DueKind::Timer, command_id.0);
        let held = Held { command_id, epoch: live.epoch, row: Some(CommandState::Suspended) };
        let run = Run { step, visit: live.visit, iteration: live.iteration, command: Some(held) };
        self.resume(run, continuation, Some(child), None, env)?;
        Ok(true)
    }

    /// Goes on with a suspended body, on the server as far as that goes.
    fn resume(
        &mut self,
        run: Run<'_>,
        continuation: &Arc<Value>,
        child: Option<ChildOutcome>,
        outcome: Option<ToolOutcome>,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let item = self.iteration(run.step, run.visit, run.iteration, env)?;
        let previous = self.previous(run.step, run.visit);
        let mut work = self.work(run.step, item, previous.as_deref(), env);
        work.continuation = Some(Arc::clone(continuation));
        work.child = child;
        self.serve(run, Going { work: Arc::new(work), outcome, writes: Vec::new() }, env)
    }

    fn previous(&self, step: &Step, visit: u32) -> Option<Arc<str>> {
        self.execution.visit(&step.name, visit).and_then(|visit| visit.from.clone())
    }

    /// Returns the loop element of an iteration.
    pub(super) fn iteration(
        &self,
        step: &Step,
        visit: u32,
        index: Option<u32>,
        env: &Env<'_>,
    ) -> Result<Option<Iteration>, Halt> {
        let (Some(index), Some(looping)) = (index, &step.looping) else { return Ok(None) };
        let Some(state) = self.execution.visit(&step.name, visit).and_then(|visit| visit.looping.as_ref()) else {
            return Ok(None);
        };
        let item = self.element(state, index, env)?;
        Ok(Some(Iteration { iterator: Arc::clone(&looping.iterator), item, index, total: state.total }))
    }
}

/// Returns the error of a command that was ended before its time.
fn stopped(stop: Option<&Stop>) -> ToolError {
    match stop {
        Some(Stop { cause: StopCause::Timeout, reason }) => {
            ToolError::soft(ErrorKind::Timeout, "STEP_TIMEOUT", reason.clone()).retryable()
        }
        Some(Stop { cause: StopCause::Cancelled, reason }) => {
            ToolError::soft(ErrorKind::Cancelled, "CANCELLED", reason.clone())
        }
        None => ToolError::soft(ErrorKind::Cancelled, "CANCELLED", "the command was cancelled"),
    }
}

/// Returns the end of a body that failed without having run to one.
fn failed(error: ToolError, worker_id: Option<Arc<str>>) -> Done {
    let data = serde_json::json!({ "status": "error", "error": crate::event::error_value(&error) });
    Done {
        data,
        error: Some(error),
        handled: false,
        ctx: Vec::new(),
        started_at: None,
        duration_ms: 0,
        stopped: None,
        worker_id,
    }
}
