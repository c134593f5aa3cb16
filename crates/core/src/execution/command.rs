//! Running a body: on the server when it needs no worker, else as a command.

use std::sync::Arc;

use serde_json::Value;

use crate::append::{CommandChange, Due, DueChange, DueKind};
use crate::event::{Call, CommandDone, Event, Issued, Suspended, Wait, Write, error_value};
use crate::execution::complete::Ending;
use crate::execution::draft::{Draft, Halt, halt, scope};
use crate::execution::names::StateNames;
use crate::execution::state::Outcome;
use crate::execution::{Env, Needs};
use crate::head::{CommandRow, CommandState};
use crate::id::CommandId;
use crate::pipeline::{self, Next, Pipeline, Place};
use crate::playbook::{Action, Body, Step, StepIx};
use crate::result::Bound;
use crate::tool::{ErrorKind, ToolError, ToolOutcome};
use crate::work::{Awaited, Done, Iteration, Pause, Work};

/// Which body is run for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) step: &'a Step,
    pub(super) visit: u32,
    /// Which iteration, in a loop.
    pub(super) iteration: Option<u32>,
    /// The command, with the epoch that is at stake; a body that the server runs to its end has none.
    pub(super) command: Option<Held>,
}

/// A command and where its row stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) command_id: CommandId,
    pub(super) epoch: u32,
    /// The state its row must be in; `None` = it has no row of this epoch.
    pub(super) row: Option<CommandState>,
}

/// What a body goes on with on the server.
#[derive(Debug)]
pub(super) struct Going {
    pub(super) work: Arc<Work>,
    /// The outcome of the task at hand, when it is known.
    pub(super) outcome: Option<ToolOutcome>,
    /// `ctx.` writes that are still to be made.
    pub(super) writes: Vec<Write>,
}

impl Going {
    pub(super) fn begin(work: Work) -> Self {
        Going { work: Arc::new(work), outcome: None, writes: Vec::new() }
    }
}

impl Draft {
    /// Begins a visit of the step at `ix`.
    pub(super) fn start_step(&mut self, ix: StepIx, env: &mut Env<'_>) -> Result<(), Halt> {
        let playbook = env.playbook;
        let step = playbook.step(ix);
        let visit = self.execution.steps.get(&step.name).map_or(0, |state| state.visits) + 1;
        if self.execution.begun >= playbook.executor.max_steps {
            let message =
                format!("the run has entered {} steps (executor.spec.limits.max_steps)", self.execution.begun);
            let error = ToolError::hard(ErrorKind::Limit, "MAX_STEPS", message);
            return self.refuse_step(step, visit, &error, env);
        }
        match self.admitted(step, env)? {
            Ok(true) => {}
            Ok(false) => {
                return match self.evaluate_skip(step, env)? {
                    Ok(left) => {
                        self.cancel_region(&step.name, None, &left.cancels, env);
                        self.emit(env, Event::StepSkipped { step: Arc::clone(&step.name), exit: left.exit });
                        Ok(())
                    }
                    Err(message) => self.refuse_step(step, visit, &template_error(message), env),
                };
            }
            Err(message) => return self.refuse_step(step, visit, &template_error(message), env),
        }
        match &step.looping {
            Some(looping) => self.start_loop(step, looping, visit, env),
            None => self.run_body(Run { step, visit, iteration: None, command: None }, None, env),
        }
    }

    /// Enters a step only to fail the run there.
    fn refuse_step(&mut self, step: &Step, visit: u32, error: &ToolError, env: &mut Env<'_>) -> Result<(), Halt> {
        self.enter(step, visit, env);
        let outcome = Outcome { result: Bound::null(), error: None, hard: true, handled: false };
        self.exit_fatally(step, visit, outcome, false, error, env)
    }

    pub(super) fn enter(&mut self, step: &Step, visit: u32, env: &mut Env<'_>) {
        self.out.head.steps_entered += 1;
        self.out.head.current_step = Some(Arc::clone(&step.name));
        let kind = step.body.tasks.first().map_or_else(|| "noop".into(), |task| Arc::clone(&task.kind));
        self.emit(env, Event::StepEnter { step: Arc::clone(&step.name), visit, kind });
    }

    fn admitted(&self, step: &Step, env: &Env<'_>) -> Result<Result<bool, String>, Halt> {
        let names = self.names(env, self.arriving_from(step));
        for rule in &step.admit {
            match rule.when.as_ref().map(|when| when.holds(&scope(env, &names))).transpose() {
                Ok(None | Some(true)) => return Ok(Ok(rule.allow)),
                Ok(Some(false)) => {}
                Err(error) => return halt(env, error).map(Err),
            }
        }
        Ok(Ok(true))
    }

    /// Returns the step whose data is `result` for the visit that is about to begin.
    pub(super) fn arriving_from(&self, step: &Step) -> Option<&str> {
        self.execution.tokens.iter().rfind(|token| token.step == step.name).and_then(|token| token.from.as_deref())
    }

    pub(super) fn names<'n>(&'n self, env: &Env<'n>, previous: Option<&'n str>) -> StateNames<'n> {
        StateNames {
            execution: &self.execution,
            playbook: env.playbook,
            environment: env.environment,
            ctx: &self.execution.ctx,
            finished: None,
            previous,
            skipped: None,
            event: None,
            now: env.now,
            fields: false,
        }
    }

    /// Runs a body: on the server as far as that goes, or as a command for a worker.
    pub(super) fn run_body(&mut self, run: Run<'_>, item: Option<Iteration>, env: &mut Env<'_>) -> Result<(), Halt> {
        let previous = match self.execution.visit(&run.step.name, run.visit) {
            Some(visit) => visit.from.clone(),
            None => self.arriving_from(run.step).map(Arc::from),
        };
        let work = self.work(run.step, item, previous.as_deref(), env);
        if needs_worker(run.step) {
            self.issue(run, &work, CommandState::Pending, env)?;
            return Ok(());
        }
        if run.iteration.is_none() {
            self.enter(run.step, run.visit, env);
        }
        self.serve(run, Going::begin(work), env)
    }

    /// Returns what a worker (or the server) needs to run the body of `step` now.
    pub(super) fn work(&self, step: &Step, item: Option<Iteration>, previous: Option<&str>, env: &Env<'_>) -> Work {
        let names = self.names(env, previous);
        let reads = &step.reads;
        Work {
            names: names.project(reads.names.iter().map(|name| &**name), reads.all),
            iteration: item,
            continuation: None,
            child: None,
        }
    }

    /// Goes on with a body on the server until it ends or has to wait.
    pub(super) fn serve(&mut self, mut run: Run<'_>, going: Going, env: &mut Env<'_>) -> Result<(), Halt> {
        let Going { work, outcome, mut writes } = going;
        let mut pipeline = Pipeline::new(run.step, Arc::clone(&work));
        if let Some(outcome) = outcome {
            pipeline.outcome(outcome);
        }
        loop {
            let place = Place {
                playbook: env.playbook,
                step: run.step,
                execution_id: self.execution.execution_id,
                command_id: run.command.map_or(CommandId(0), |held| held.command_id),
                library: env.library,
                now: env.now,
                on_worker: false,
            };
            match pipeline.next(&place) {
                Next::Done(mut done) => {
                    writes.append(&mut done.ctx);
                    done.ctx = writes;
                    return self.end_body(run, *done, env);
                }
                Next::Needs(results) => return Err(Halt::Needs(Needs { results, ..Needs::default() })),
                Next::Pause(mut pause) => {
                    let mut so_far = std::mem::take(&mut writes);
                    so_far.append(&mut pause.ctx);
                    pause.ctx = so_far;
                    match self.pause(&mut run, &work, *pause, env)? {
                        None => return Ok(()),
                        // The child can not be started: that is the task's outcome.
                        Some((error, ctx)) => {
                            writes = ctx;
                            pipeline.outcome(ToolOutcome::failed(error, Value::Null));
                        }
                    }
                }
                Next::Call(call) => {
                    let message = format!("`{}` can not run on the server", call.kind);
                    let error = ToolError::hard(ErrorKind::Config, "NEEDS_WORKER", message);
                    pipeline.outcome(ToolOutcome::failed(error, Value::Null));
                }
                // Waits on the server are pauses, and only a worker is told to stop.
                Next::Wait { .. } | Next::Stop => {}
            }
        }
    }

    /// Suspends a body, or hands it to a worker. Returns the error of a child that can not be started, and the
    /// writes that are still to be made.
    pub(super) fn pause(
        &mut self,
        run: &mut Run<'_>,
        work: &Work,
        pause: Pause,
        env: &mut Env<'_>,
    ) -> Result<Option<(ToolError, Vec<Write>)>, Halt> {
        let Pause { wait, continuation, ctx } = pause;
        let child = match &wait {
            Awaited::Child(request) => {
                // The parent's command must have its id before the child is born: it is the child's upward edge.
                let command_id = run.command.map_or_else(|| CommandId(env.ids.next(env.now)), |held| held.command_id);
                match self.start_child(request, command_id, env)? {
                    Ok((execution_id, path)) => Some((command_id, Wait::Child { execution_id, path })),
                    Err(error) => return Ok(Some((error, ctx))),
                }
            }
            Awaited::Delay { .. } | Awaited::Worker => None,
        };
        let held = match run.command {
            Some(held) => held,
            None => {
                let born = child.as_ref().map(|(command_id, _)| *command_id);
                let command_id = born.unwrap_or_else(|| CommandId(env.ids.next(env.now)));
                self.emit_issued(*run, command_id, env);
                Held { command_id, epoch: 1, row: None }
            }
        };
        run.command = Some(held);
        let Held { command_id, epoch, row } = held;
        if let Some(expect) = row {
            self.change(CommandChange::Delete { command_id, epoch, expect });
        }
        let name = body_name(run.step, run.iteration);
        let continuation = Arc::new(pipeline::move_out(continuation, |what, value, output| {
            self.bind(env, &format!("{name}/{what}"), value, output)
        }));
        let (wait, until) = match (wait, child) {
            (Awaited::Child(request), Some((_, wait))) => {
                let until = request.timeout_ms.map(|ms| env.now.plus_ms(ms));
                (wait, until)
            }
            (Awaited::Delay { ms }, _) => {
                let until = env.now.plus_ms(ms);
                (Wait::Until(until), Some(until))
            }
            (Awaited::Worker | Awaited::Child(_), _) => (Wait::Until(env.now), None),
        };
        let for_worker = matches!(wait, Wait::Until(at) if at == env.now && until.is_none());
        // What is suspended already goes straight to a worker.
        let straight = for_worker && row == Some(CommandState::Suspended) && ctx.is_empty();
        let epoch = epoch + 1;
        if !straight {
            self.emit(
                env,
                Event::CommandSuspended(Box::new(Suspended {
                    command_id,
                    epoch: epoch - 1,
                    step: Arc::clone(&run.step.name),
                    wait: wait.clone(),
                    continuation: Arc::clone(&continuation),
                    ctx,
                })),
            );
        }
        if for_worker {
            let epoch = if straight { epoch } else { epoch + 1 };
            let step = Arc::clone(&run.step.name);
            let resumed = straight.then(|| Arc::clone(&continuation));
            self.emit(env, Event::CommandResumed { command_id, epoch, step, continuation: resumed });
            let previous = self.execution.visit(&run.step.name, run.visit).and_then(|visit| visit.from.clone());
            let mut work = self.work(run.step, work.iteration.clone(), previous.as_deref(), env);
            work.continuation = Some(continuation);
            self.insert_row(*run, Held { command_id, epoch, row: None }, &work, CommandState::Pending, None, env);
        } else {
            if let Some(at) = until {
                self.set_timer(command_id, at);
            }
            let empty = Work::default();
            let held = Held { command_id, epoch, row: None };
            self.insert_row(*run, held, &empty, CommandState::Suspended, Some(wait), env);
        }
        Ok(None)
    }

    /// Issues a command for a worker, claimed at once when one has a free slot.
    pub(super) fn issue(
        &mut self,
        run: Run<'_>,
        work: &Work,
        state: CommandState,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let command_id = CommandId(env.ids.next(env.now));
        self.emit_issued(run, command_id, env);
        self.insert_row(run, Held { command_id, epoch: 1, row: None }, work, state, None, env);
        Ok(())
    }

    fn emit_issued(&mut self, run: Run<'_>, command_id: CommandId, env: &mut Env<'_>) {
        self.out.head.commands_issued += 1;
        let issued = Issued {
            command_id,
            step: Arc::clone(&run.step.name),
            visit: run.visit,
            iteration: run.iteration,
            kind: kind(&run.step.body),
            input: Arc::new(self.audit_input(run, env)),
        };
        self.emit(env, Event::CommandIssued(Box::new(issued)));
        if let Some(timeout_ms) = run.step.spec.timeout_ms {
            let execution_id = self.execution.execution_id;
            let at = env.now.plus_ms(timeout_ms);
            let due = Due { execution_id, kind: DueKind::StepTimeout, key: command_id.0, at, command: None };
            self.out.due.push(DueChange::Set(due));
        }
    }

    /// What the log says of a command's arguments: those that are known before the work begins and hold no secret.
    fn audit_input(&self, run: Run<'_>, env: &Env<'_>) -> Value {
        let previous = self.execution.visit(&run.step.name, run.visit).and_then(|visit| visit.from.as_deref());
        let names = self.names(env, previous.or_else(|| self.arriving_from(run.step)));
        let own = run.step.body.tasks.first().filter(|_| !run.step.body.pipeline).map(|task| &task.input);
        let mut input = serde_json::Map::new();
        for (key, template) in run.step.input.iter().chain(own.into_iter().flatten()) {
            let value = if template.reads("keychain") || template.reads("token") || run.iteration.is_some() {
                template.source()
            } else {
                // What can not be rendered here is the worker's to report; the log shows it as written.
                template.render(&scope(env, &names)).unwrap_or_else(|_| template.source())
            };
            input.insert(key.to_string(), value);
        }
        // What a template lacked here is not this decision's need.
        env.library.take_needs();
        let input = Value::Object(input);
        if crate::result::json_size(&input) > AUDIT_INPUT_BYTES_MAX { Value::Null } else { input }
    }

    pub(super) fn insert_row(
        &mut self,
        run: Run<'_>,
        held: Held,
        work: &Work,
        state: CommandState,
        wait: Option<Wait>,
        env: &mut Env<'_>,
    ) {
        let playbook = env.playbook;
        let step = run.step;
        let pool = step.spec.pool.clone().unwrap_or_else(|| Arc::clone(&playbook.executor.pool));
        let losses = self.execution.live.get(&held.command_id).map_or(0, |live| live.losses);
        // A server-run body has entered its step already, and a loop enters once for all iterations and claims.
        let enters = run.iteration.is_none() && run.command.is_none() && !step.claims;
        let mut row = CommandRow {
            execution_id: self.execution.execution_id,
            command_id: held.command_id,
            epoch: held.epoch,
            root_execution_id: self.execution.init.root_execution_id,
            state,
            step: Arc::clone(&step.name),
            visit: run.visit,
            iteration: run.iteration,
            kind: kind(&step.body),
            pool,
            priority: step.spec.priority.unwrap_or(playbook.executor.priority),
            enters,
            at_most_once: step.spec.at_most_once,
            losses,
            losses_max: playbook.executor.max_losses,
            stopping: None,
            grace_ms: step.spec.cancel_grace_ms.or(playbook.executor.cancel_grace_ms),
            wait,
            since: env.now,
            holder: None,
            running: None,
            work: Arc::new(serde_json::to_value(work).unwrap_or(Value::Null)),
        };
        if state == CommandState::Pending
            && let Some(hand) = env.hands.iter_mut().find(|hand| hand.free > 0 && hand.pools.contains(&row.pool))
        {
            // The steady state: issued and claimed in one append, for a worker with a free slot.
            hand.free -= 1;
            let mut holder = hand.holder.clone();
            holder.claimed_at = env.now;
            holder.started = false;
            if row.enters {
                self.enter(step, run.visit, env);
                row.enters = false;
            }
            self.emit(
                env,
                Event::CommandClaimed {
                    command_id: row.command_id,
                    epoch: row.epoch,
                    step: Arc::clone(&step.name),
                    session_id: holder.session_id,
                    worker_id: Arc::clone(&holder.worker_id),
                },
            );
            row.state = CommandState::Claimed;
            row.holder = Some(holder);
        }
        self.change(CommandChange::Insert(Box::new(row)));
    }

    /// A body is over: binds its result, settles its command, and leaves the step or goes on with the loop.
    pub(super) fn end_body(&mut self, run: Run<'_>, done: Done, env: &mut Env<'_>) -> Result<(), Halt> {
        let step = run.step;
        if step.claims {
            return self.end_claim(run, done, env);
        }
        let name = body_name(step, run.iteration);
        // What `complete_when` will see of it: a cursor forgets the rows of a frame that has ended.
        let judged = step.looping.as_ref().is_some_and(|looping| looping.complete_when.is_some());
        let element = if judged { self.iteration(step, run.visit, run.iteration, env)? } else { None };
        let hard = done.error.as_ref().is_some_and(|error| error.hard);
        let error = done.error.as_ref().map(|error| Arc::new(error_value(error)));
        let result = self.bind(env, &name, done.data, &step.output);
        let outcome = Outcome { result, error: error.clone(), hard, handled: done.handled };
        // A step that the server runs to its end in one go needs no `call.done`: its `step.exit` says all.
        let carried = run.command.is_some() || run.iteration.is_some() || !done.ctx.is_empty();
        if carried {
            let (ctx, command_ctx) =
                if run.command.is_some() { (Vec::new(), done.ctx) } else { (done.ctx, Vec::new()) };
            self.emit(
                env,
                Event::CallDone(Box::new(Call {
                    command_id: run.command.map(|held| held.command_id),
                    epoch: run.command.map_or(0, |held| held.epoch),
                    step: Arc::clone(&step.name),
                    visit: run.visit,
                    iteration: run.iteration,
                    result: outcome.result.clone(),
                    error: error.clone(),
                    hard,
                    handled: done.handled,
                    ctx,
                })),
            );
            if let Some(Held { command_id, epoch, row }) = run.command {
                if step.spec.timeout_ms.is_some() {
                    self.clear_due(DueKind::StepTimeout, command_id.0);
                }
                if self.execution.live.get(&command_id).is_some_and(|live| live.stop.is_some()) {
                    self.clear_due(DueKind::GraceEnd, command_id.0);
                }
                let worker_id = done.worker_id;
                self.emit(
                    env,
                    Event::CommandDone(Box::new(CommandDone {
                        late_result: None,
                        command_id,
                        epoch,
                        step: Arc::clone(&step.name),
                        visit: run.visit,
                        iteration: run.iteration,
                        error,
                        ctx: command_ctx,
                        started_at: done.started_at,
                        worker_id,
                        duration_ms: Some(done.duration_ms),
                        late: false,
                    })),
                );
                if let Some(expect) = row {
                    self.change(CommandChange::Delete { command_id, epoch, expect });
                }
            }
        }
        match run.iteration {
            Some(_) => {
                let ending = element.as_ref().map(|iteration| Ending { iteration, outcome: &outcome });
                self.end_iteration(step, run.visit, ending, env)
            }
            None => self.leave(step, run.visit, outcome, carried, env),
        }
    }
}

/// Largest `input` that `command.issued` shows, in bytes of JSON.
const AUDIT_INPUT_BYTES_MAX: usize = 16 * 1024;

/// Returns what the results of a body are called.
fn body_name(step: &Step, iteration: Option<u32>) -> String {
    match iteration {
        Some(index) => format!("{}[{index}]", step.name),
        None => step.name.to_string(),
    }
}

fn kind(body: &Body) -> Arc<str> {
    body.tasks.first().map_or_else(|| "noop".into(), |task| Arc::clone(&task.kind))
}

/// Returns whether a body starts on a worker. The server runs bodies that begin with a child or do nothing at all;
/// one that can go round in circles is a worker's, so that no decision can be kept busy.
fn needs_worker(step: &Step) -> bool {
    if step.spec.on_worker {
        return true;
    }
    let Some(first) = step.body.tasks.iter().find(|task| &*task.kind != "noop") else {
        return step.body.tasks.iter().any(|task| {
            task.policy.iter().any(|rule| match rule.action {
                Action::Jump(_) | Action::Retry(_) => true,
                Action::Continue | Action::Break | Action::Fail => false,
            })
        });
    };
    &*first.kind != "playbook"
}

fn template_error(message: String) -> ToolError {
    ToolError::hard(ErrorKind::Transform, "TEMPLATE", message)
}
