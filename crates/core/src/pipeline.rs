//! The pipeline interpreter: what a step's body does next. Pure and resumable; worker and server run the same one.
//!
//! A body is one tool or a list of them. For each task: render, call, take the outcome, let the first matching policy
//! rule choose, apply what it sets, go on. Nothing here calls a tool: [`Pipeline::next`] says what is to be done, and
//! whoever can do it says how it went. A pipeline that has to wait for long, or for a child, pauses: its continuation
//! is plain JSON, and another process goes on with it.

mod engine_kinds;
mod names;
mod policy;
mod relay;
mod state;

use std::sync::Arc;

use serde_json::{Map, Value};

use self::engine_kinds::{artifact, child_outcome, child_request, seconds};
use self::names::PipelineNames;
use self::policy::Verdict;
use self::state::State;
use crate::event::Write;
use crate::expr::{ExprError, Library, Scope};
use crate::id::{CommandId, ExecutionId};
use crate::playbook::{KeychainEntry, Output, Playbook, Step, Task};
use crate::result::{Bound, INLINE_BYTES_MAX, json_size};
use crate::secret::keychain::{self, Plan};
use crate::time::Timestamp;
use crate::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use crate::work::{Awaited, CONTINUATION_BYTES_MAX, Done, Pause, Work};

/// Task executions of one pipeline at most.
pub const TASK_EXECUTIONS_MAX: u64 = 1_000_000;
/// Longest wait that a worker sits out with its slot, in milliseconds; longer ones suspend the command.
pub const WAIT_IN_PLACE_MS_MAX: u64 = 2_000;
/// Longest single wait, in milliseconds: one day.
pub const WAIT_MS_MAX: u64 = 86_400_000;
/// `do: retry` without `attempts`: total executions.
pub const RETRY_ATTEMPTS_DEFAULT: u32 = 3;

/// Where a pipeline runs, and what it may read there.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The playbook.
    pub playbook: &'a Playbook,
    /// The step.
    pub step: &'a Step,
    /// The run.
    pub execution_id: ExecutionId,
    /// The command.
    pub command_id: CommandId,
    /// Large results at hand.
    pub library: &'a Arc<Library>,
    /// What time it is.
    pub now: Timestamp,
    /// On a worker; else on the server, which runs only `noop` and `playbook`.
    pub on_worker: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Run this tool, then say [`Pipeline::outcome`].
    Call(Box<ToolCall>),
    /// Wait so many milliseconds here, then ask again.
    Wait {
        /// How many.
        ms: u64,
    },
    /// Report this and free the slot; the pipeline goes on elsewhere, later.
    Pause(Box<Pause>),
    /// It is over.
    Done(Box<Done>),
    /// Load these results into the library, then ask again.
    Needs(Vec<String>),
    /// The execution is cancelled and the next thing would be a new start (retry, jump back, wait): stop here.
    Stop,
}

/// A pipeline under way.
#[derive(Debug)]
pub struct Pipeline {
    work: Arc<Work>,
    state: State,
    /// The outcome of the task at hand, until a rule has chosen.
    outcome: Option<ToolOutcome>,
    /// `ctx.` writes that have not been reported yet.
    ctx: Vec<Write>,
    /// It is over, with this error or none; only results are missing that its own is made of.
    ending: Option<Option<ToolError>>,
    /// Only forward, once.
    finishing: bool,
    started_at: Option<Timestamp>,
    stopped: Option<Stopped>,
}

impl Pipeline {
    /// Begins the step's body, or goes on where a suspended one stopped.
    pub fn new(step: &Step, work: Arc<Work>) -> Self {
        let state = work.continuation.as_deref().and_then(State::from_json).unwrap_or_else(|| State::new(step));
        let outcome = work.child.as_ref().filter(|_| state.awaiting_child).map(child_outcome);
        Pipeline {
            work,
            state,
            outcome,
            ctx: Vec::new(),
            ending: None,
            finishing: false,
            started_at: None,
            stopped: None,
        }
    }

    /// The execution was cancelled with mode `finish`: the tasks after the running one still run, once forward.
    pub fn finish_only(&mut self) {
        self.finishing = true;
    }

    /// Takes the outcome of the tool that [`Next::Call`] named.
    pub fn outcome(&mut self, outcome: ToolOutcome) {
        self.stopped = self.stopped.max(outcome.stopped);
        self.outcome = Some(outcome);
    }

    /// Says what comes next.
    pub fn next(&mut self, place: &Place<'_>) -> Next {
        if let Some(error) = self.ending.take() {
            return self.done(place, error);
        }
        loop {
            if let Some(outcome) = self.outcome.take() {
                match self.judge(place, outcome) {
                    Ok(Step_::On) => continue,
                    Ok(Step_::End(next)) => return next,
                    Err((Interrupted::Needs, outcome)) => {
                        self.outcome = Some(*outcome);
                        return Next::Needs(place.library.take_needs());
                    }
                    Err((Interrupted::Failed(message), _)) => {
                        return self.fail_task(place, template_error(&message), Value::Null);
                    }
                }
            }
            if let Some(ms) = self.state.delay_ms.take() {
                if self.finishing {
                    return Next::Stop;
                }
                if ms > WAIT_IN_PLACE_MS_MAX || !place.on_worker {
                    return self.pause(place, Awaited::Delay { ms });
                }
                return Next::Wait { ms };
            }
            let Some(task) = place.step.body.tasks.get(self.state.at) else {
                return self.done(place, None);
            };
            match self.begin(place, task) {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(ExprError::Needs) => return Next::Needs(place.library.take_needs()),
                Err(ExprError::Failed { message }) => self.outcome = Some(failed(template_error(&message))),
            }
        }
    }

    /// Says how to come by a keychain entry that [`Next::Needs`] named; else what it needs in turn.
    ///
    /// # Errors
    /// The references that have to be loaded first.
    pub fn keychain(&self, place: &Place<'_>, name: &str) -> Result<Plan, Vec<String>> {
        let Some(entry) = place.playbook.keychain.iter().find(|entry| &*entry.name == name) else {
            return Ok(Plan::Nothing("the playbook has no such entry".to_owned()));
        };
        let names = self.names(place, None, None).with_keychain(Some(&place.playbook.keychain));
        match keychain::plan(entry, &scope(place, &names)) {
            Ok(plan) => Ok(plan),
            Err(ExprError::Needs) => Err(place.library.take_needs()),
            Err(ExprError::Failed { message }) => Ok(Plan::Nothing(message)),
        }
    }

    /// Begins the task at hand. `None`: its outcome is known already.
    fn begin(&mut self, place: &Place<'_>, task: &Task) -> Result<Option<Next>, ExprError> {
        let runs_here = match &*task.kind {
            "noop" => true,
            "playbook" => !place.on_worker,
            _ => place.on_worker,
        };
        if self.state.executions_total >= TASK_EXECUTIONS_MAX {
            let error = ToolError::hard(
                ErrorKind::Limit,
                "TASK_EXECUTIONS",
                format!("the pipeline has run {TASK_EXECUTIONS_MAX} tasks (limits.task_executions)"),
            );
            return Ok(Some(self.done(place, Some(error))));
        }
        if !runs_here && !place.on_worker {
            return Ok(Some(self.pause(place, Awaited::Worker)));
        }
        let input = self.render_input(place, task)?;
        let names = self.names(place, Some(&input), None).with_keychain(keychain_for(place, task));
        let scope = scope(place, &names);
        let mut config = Map::new();
        for (key, template) in &task.config {
            config.insert(key.to_string(), template.render(&scope)?);
        }
        let timeout_ms = match &task.timeout {
            Some(template) => seconds(&template.render(&scope)?),
            None => place.playbook.executor.task_timeout_ms,
        };
        self.started_at.get_or_insert(place.now);
        match &*task.kind {
            "noop" => {
                self.count_execution();
                let data = config.remove("result").unwrap_or_else(|| serde_json::json!({"status": "ok"}));
                self.outcome = Some(ToolOutcome::ok(data));
                Ok(None)
            }
            "artifact" | "result_fetch" => {
                match artifact(&config, &input, place.library) {
                    Ok(outcome) => self.outcome = Some(outcome),
                    Err(reference) => return Ok(Some(Next::Needs(vec![reference]))),
                }
                self.count_execution();
                Ok(None)
            }
            "playbook" => {
                // Asked for before and put off, because the run was paused: it is the same execution of the task.
                if !self.state.awaiting_child {
                    self.count_execution();
                }
                match child_request(&config, input, timeout_ms, task.shield) {
                    Ok(request) => {
                        self.state.awaiting_child = true;
                        Ok(Some(self.pause(place, Awaited::Child(request))))
                    }
                    Err(error) => {
                        self.outcome = Some(failed(*error));
                        Ok(None)
                    }
                }
            }
            _ => {
                self.count_execution();
                let call = ToolCall {
                    execution_id: place.execution_id,
                    command_id: place.command_id,
                    step: Arc::clone(&place.step.name),
                    iteration: self.work.iteration.as_ref().map(|iteration| iteration.index),
                    label: Arc::clone(&task.label),
                    kind: Arc::clone(&task.kind),
                    config,
                    context: Arc::new(self.context(place, task)?),
                    input,
                    attempt: self.state.executions,
                    timeout_ms,
                };
                Ok(Some(Next::Call(Box::new(call))))
            }
        }
    }

    /// A workbook task's own arguments, the step's input over them, the task's input over that, then the iterator
    /// where nothing has its name.
    fn render_input(&self, place: &Place<'_>, task: &Task) -> Result<Map<String, Value>, ExprError> {
        let keychain = keychain_for(place, task);
        let names = self.names(place, None, None).with_keychain(keychain);
        let mut input = Map::new();
        for (key, template) in task.defaults.iter().chain(&place.step.input) {
            input.insert(key.to_string(), template.render(&scope(place, &names))?);
        }
        // The task's own arguments may be made of the step's.
        let outer = input.clone();
        let names = self.names(place, Some(&outer), None).with_keychain(keychain);
        for (key, template) in &task.input {
            input.insert(key.to_string(), template.render(&scope(place, &names))?);
        }
        if let Some(iteration) = &self.work.iteration {
            input.entry(iteration.iterator.to_string()).or_insert_with(|| iteration.item.clone());
        }
        Ok(input)
    }

    /// The flat names that code may look up.
    fn context(&self, place: &Place<'_>, task: &Task) -> Result<Value, ExprError> {
        if &*task.kind != "python" {
            return Ok(Value::Object(Map::new()));
        }
        let names = self.names(place, None, None);
        names.context(task.mentions.as_deref(), place.library)
    }

    /// Lets the first matching rule choose what the outcome means.
    fn judge(&mut self, place: &Place<'_>, outcome: ToolOutcome) -> Result<Step_, (Interrupted, Box<ToolOutcome>)> {
        let Some(task) = place.step.body.tasks.get(self.state.at) else {
            return Ok(Step_::End(self.done(place, None)));
        };
        self.state.awaiting_child = false;
        let data = bound_data(&outcome);
        let judged = {
            let mut names = self.names(place, None, Some((&outcome, &data)));
            if !task.policy.is_empty() {
                names = names.with_own(&task.label, &data, outcome.error.as_ref());
            }
            policy::judge(&scope(place, &names), task, &outcome, self.state.executions)
        };
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => return Err((interrupted(error), Box::new(outcome))),
        };
        let failed = outcome.error.clone();
        if let Err(error) = self.take_back(place, &judged.set) {
            return Err((error, Box::new(outcome)));
        }
        // What the rule set is seen by the task's own `set`; should that lack a result, all of it is judged again.
        let before = (!task.set.is_empty()).then(|| (self.state.clone(), self.ctx.len()));
        self.assign(judged.set);
        // A rule that continues past an error handles it: what is bound says so, the step has not failed.
        let own = if failed.is_none() || matches!(judged.verdict, Verdict::Continue | Verdict::Break) {
            let mut names = self.names(place, None, None).with_output(&data);
            if !task.set.is_empty() {
                names = names.with_own(&task.label, &data, failed.as_ref());
            }
            let own = policy::evaluate(&scope(place, &names), &task.set).map_err(interrupted);
            match own.and_then(|own| self.take_back(place, &own).map(|()| own)) {
                Ok(own) => own,
                Err(error) => {
                    if let Some((state, writes)) = before {
                        self.state = state;
                        self.ctx.truncate(writes);
                    }
                    return Err((error, Box::new(outcome)));
                }
            }
        } else {
            Vec::new()
        };
        self.assign(own);
        self.state.bind(&task.label, data, failed.as_ref());
        match judged.verdict {
            Verdict::Continue => {
                self.go_to(self.state.at + 1);
                Ok(Step_::On)
            }
            Verdict::Break => Ok(Step_::End(self.done(place, None))),
            Verdict::Fail => {
                let error = failed.unwrap_or_else(|| {
                    ToolError::soft(ErrorKind::Code, "POLICY_FAIL", format!("a rule of `{}` failed it", task.label))
                });
                // An error that a rule met, with `do: fail` or with retries, is soft: the author knows of it.
                let error = if judged.by_rule { ToolError { hard: false, ..error } } else { error };
                Ok(Step_::End(self.done(place, Some(error))))
            }
            Verdict::Retry { delay_ms } => {
                if self.finishing {
                    return Ok(Step_::End(Next::Stop));
                }
                self.state.delay_ms = (delay_ms > 0).then_some(delay_ms.min(WAIT_MS_MAX));
                Ok(Step_::On)
            }
            Verdict::Jump(target) => {
                if self.finishing && target <= self.state.at {
                    return Ok(Step_::End(Next::Stop));
                }
                self.go_to(target);
                Ok(Step_::On)
            }
        }
    }

    fn fail_task(&mut self, place: &Place<'_>, error: ToolError, data: Value) -> Next {
        if let Some(task) = place.step.body.tasks.get(self.state.at) {
            let data = bound_data(&ToolOutcome::failed(error.clone(), data));
            self.state.bind(&task.label, data, Some(&error));
        }
        self.done(place, Some(error))
    }

    fn go_to(&mut self, task: usize) {
        self.state.at = task;
        self.state.executions = 0;
    }

    fn count_execution(&mut self) {
        self.state.executions += 1;
        self.state.executions_total += 1;
    }

    /// Takes back the stored values of which `set` changes a part.
    fn take_back(&mut self, place: &Place<'_>, set: &[policy::Assigned]) -> Result<(), Interrupted> {
        let mut missing = false;
        for assigned in set {
            if let Err(reference) = self.state.take_back(assigned.target, &assigned.path, place.library) {
                place.library.note(&reference);
                missing = true;
            }
        }
        if missing { Err(Interrupted::Needs) } else { Ok(()) }
    }

    fn assign(&mut self, set: Vec<policy::Assigned>) {
        for assigned in set {
            match assigned.target {
                crate::playbook::Target::Ctx => {
                    self.ctx.push(Write { path: assigned.path, value: assigned.value });
                }
                crate::playbook::Target::Iter => self.state.set_iter(&assigned.path, assigned.value),
                crate::playbook::Target::Local => self.state.set_local(&assigned.path, assigned.value),
            }
        }
    }

    fn pause(&mut self, place: &Place<'_>, wait: Awaited) -> Next {
        let continuation = self.state.to_json();
        if json_size(&continuation) > CONTINUATION_BYTES_MAX {
            let mut message = format!(
                "what the pipeline remembers is larger than {CONTINUATION_BYTES_MAX} bytes (limits.continuation)"
            );
            // It waits to try again: why must not be lost.
            let failed = self.state.results.values().next_back().and_then(|result| result.error.as_deref());
            if let Some(because) = failed.and_then(|error| error.get("message")).and_then(Value::as_str) {
                message.push_str("; the task before had failed: ");
                message.push_str(because);
            }
            return self.done(place, Some(ToolError::hard(ErrorKind::Limit, "CONTINUATION_BYTES", message)));
        }
        Next::Pause(Box::new(Pause { wait, continuation, ctx: std::mem::take(&mut self.ctx) }))
    }

    fn done(&mut self, place: &Place<'_>, error: Option<ToolError>) -> Next {
        let data = match self.state.result(place.step, error.as_ref(), place.library) {
            Ok(data) => data,
            Err(missing) => {
                self.ending = Some(error);
                return Next::Needs(missing);
            }
        };
        Next::Done(Box::new(Done {
            data,
            error,
            handled: false,
            ctx: std::mem::take(&mut self.ctx),
            started_at: self.started_at,
            duration_ms: self.started_at.map_or(0, |since| place.now.since_ms(since)),
            stopped: self.stopped,
            worker_id: None,
        }))
    }

    fn names<'a>(
        &'a self,
        place: &'a Place<'a>,
        input: Option<&'a Map<String, Value>>,
        outcome: Option<(&'a ToolOutcome, &'a Value)>,
    ) -> PipelineNames<'a> {
        PipelineNames::new(&self.work, &self.state, &self.ctx, place.step)
            .with_input(input)
            .with_envelope(outcome.map(|(outcome, data)| policy::envelope(outcome, data, self.state.executions)))
    }
}

/// Moves what is large in a continuation out of it, so that the log stays lean. `keep` stores a value, given what it
/// is called.
pub(crate) fn move_out(continuation: Value, keep: impl FnMut(&str, Value, &Output) -> Bound) -> Value {
    if json_size(&continuation) <= INLINE_BYTES_MAX {
        return continuation;
    }
    // What is no continuation of ours is kept as it is: its pipeline begins anew.
    let Some(mut state) = State::from_json(&continuation) else { return continuation };
    state.move_out(keep);
    state.to_json()
}

/// How the interpreter goes on.
enum Step_ {
    /// Ask again.
    On,
    /// This is what comes next.
    End(Next),
}

enum Interrupted {
    Needs,
    Failed(String),
}

fn interrupted(error: ExprError) -> Interrupted {
    match error {
        ExprError::Needs => Interrupted::Needs,
        ExprError::Failed { message } => Interrupted::Failed(message),
    }
}

/// Returns the keychain, if `task` is a tool that runs on a worker: what such a tool is given stays there. What the
/// others are given stands in events.
fn keychain_for<'a>(place: &Place<'a>, task: &Task) -> Option<&'a [KeychainEntry]> {
    let stays = match &*task.kind {
        "noop" | "playbook" | "artifact" | "result_fetch" => false,
        _ => place.on_worker,
    };
    stays.then_some(place.playbook.keychain.as_slice())
}

fn scope<'a>(place: &Place<'a>, names: &'a PipelineNames<'a>) -> Scope<'a> {
    Scope { names, library: place.library, now: place.now }
}

fn failed(error: ToolError) -> ToolOutcome {
    ToolOutcome::failed(error, Value::Null)
}

fn template_error(message: &str) -> ToolError {
    ToolError::hard(ErrorKind::Transform, "TEMPLATE", message)
}

/// Returns what is bound to the task's label: its data, and on failure `status` and `error` over it.
fn bound_data(outcome: &ToolOutcome) -> Value {
    match &outcome.error {
        None => outcome.data.clone(),
        Some(error) => state::failed_data(&outcome.data, error),
    }
}
