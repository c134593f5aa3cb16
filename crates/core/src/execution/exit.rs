//! Leaving a step: its `set`, its arcs, and whether its error is anybody's business.

use std::sync::Arc;

use serde_json::Value;

use crate::event::{Event, Exit, StepExited, Write, error_value};
use crate::execution::draft::{Draft, Halt, halt, scope};
use crate::execution::evolve::write;
use crate::execution::names::{Finished, StateNames};
use crate::execution::state::{Ctx, Outcome};
use crate::execution::{Env, state::Execution};
use crate::expr::ExprError;
use crate::playbook::{Arrow, Assignment, Step, StepIx, Target};
use crate::tool::{ErrorKind, ToolError};

/// What leaving a step comes to.
#[derive(Default)]
pub(super) struct Left {
    pub(super) exit: Exit,
    /// An arc that names failures fired.
    caught: bool,
    /// The region that the arcs which fired cancel.
    pub(super) cancels: Vec<StepIx>,
}

impl Draft {
    /// Ends a visit: evaluates `set` and the arcs on its outcome, and writes `step.exit`.
    ///
    /// `carried`: a `call.done` or `loop.done` holds the result already.
    pub(super) fn leave(
        &mut self,
        step: &Step,
        visit: u32,
        outcome: Outcome,
        carried: bool,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let strict = env.playbook.executor.strict || self.execution.init.strict;
        let left = match self.evaluate_exit(step, &outcome, env)? {
            Ok(left) => left,
            Err(message) => {
                // A `set` or a condition that can not be evaluated: nobody can say where to go from here.
                let error = ToolError::hard(ErrorKind::Transform, "TEMPLATE", message);
                return self.exit_fatally(step, visit, outcome, carried, &error, env);
            }
        };
        let handled = left.caught || outcome.handled;
        let fatal = outcome.error.is_some() && !handled && (outcome.hard || strict);
        let no_way = left.exit.routed.is_empty()
            && outcome.error.is_none()
            && !step.next.arcs.is_empty()
            && env.playbook.executor.no_next_is_error;
        if no_way {
            let message = format!("no arc of `{}` matches (executor.spec.no_next_is_error)", step.name);
            let error = ToolError::hard(ErrorKind::Config, "NO_NEXT", message);
            return self.exit_fatally(step, visit, outcome, carried, &error, env);
        }
        let exit = match fatal {
            true => Exit::default(),
            false => {
                // Before the arrivals of this exit: what it starts is not what it cancels.
                self.cancel_region(&step.name, Some(visit), &left.cancels, env);
                left.exit
            }
        };
        let exited = StepExited {
            step: Arc::clone(&step.name),
            visit,
            result: (!carried).then_some(outcome.result),
            error: outcome.error,
            fatal,
            handled,
            exit,
        };
        self.emit(env, Event::StepExit(Box::new(exited)));
        self.out.head.failed_steps.clone_from(&self.execution.failed_steps);
        Ok(())
    }

    /// Ends a visit with an error that fails the run.
    pub(super) fn exit_fatally(
        &mut self,
        step: &Step,
        visit: u32,
        outcome: Outcome,
        carried: bool,
        error: &ToolError,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let exited = StepExited {
            step: Arc::clone(&step.name),
            visit,
            result: (!carried).then_some(outcome.result),
            error: Some(Arc::new(error_value(error))),
            fatal: true,
            handled: false,
            exit: Exit::default(),
        };
        self.emit(env, Event::StepExit(Box::new(exited)));
        self.out.head.failed_steps.clone_from(&self.execution.failed_steps);
        Ok(())
    }

    fn evaluate_exit(&self, step: &Step, outcome: &Outcome, env: &Env<'_>) -> Result<Result<Left, String>, Halt> {
        let mut leaving = Leaving {
            execution: &self.execution,
            env,
            finished: Some(Finished { step, outcome }),
            skipped: None,
            ctx: Arc::clone(&self.execution.ctx),
            writes: Vec::new(),
        };
        match leaving.run(step, outcome) {
            Ok(left) => Ok(Ok(left)),
            Err(error) => halt(env, error).map(Err),
        }
    }

    /// Follows the arcs of a step that was not admitted. Its own `set` is skipped with it; that of an arc is not.
    pub(super) fn evaluate_skip(&self, step: &Step, env: &Env<'_>) -> Result<Result<Left, String>, Halt> {
        let mut leaving = Leaving {
            execution: &self.execution,
            env,
            finished: None,
            skipped: Some(step),
            ctx: Arc::clone(&self.execution.ctx),
            writes: Vec::new(),
        };
        match leaving.skip(step) {
            Ok(left) => Ok(Ok(left)),
            Err(error) => halt(env, error).map(Err),
        }
    }
}

/// One evaluation of a step's way out. Every right-hand side of one block sees the state before the block.
struct Leaving<'a, 'e> {
    execution: &'a Execution,
    env: &'a Env<'e>,
    /// `None`: the step was skipped.
    finished: Option<Finished<'a>>,
    skipped: Option<&'a Step>,
    /// `ctx` with the writes so far.
    ctx: Ctx,
    writes: Vec<Write>,
}

impl<'a> Leaving<'a, '_> {
    fn run(&mut self, step: &Step, outcome: &Outcome) -> Result<Left, ExprError> {
        self.apply(&step.set, None)?;
        let mut left = Left::default();
        // A hard error is routed only by an arc that names failures.
        let only_catching = outcome.error.is_some() && outcome.hard;
        let looped = step.looping.is_some();
        // After a loop, arcs guarded by `call.done` may match when those for `loop.done` found nothing.
        for pass in 0..=u8::from(looped) {
            for arrow in &step.next.arcs {
                if only_catching && !arrow.catches {
                    continue;
                }
                let event = event_name(arrow, outcome.error.is_some(), looped && pass == 0);
                if self.holds(arrow, event)? {
                    self.apply(&arrow.set, Some(event))?;
                    left.caught |= arrow.catches;
                    self.route(arrow, &mut left);
                    if !step.next.inclusive {
                        break;
                    }
                }
            }
            if !left.exit.routed.is_empty() {
                break;
            }
        }
        left.exit.ctx = std::mem::take(&mut self.writes);
        Ok(left)
    }

    fn skip(&mut self, step: &Step) -> Result<Left, ExprError> {
        let mut left = Left::default();
        for arrow in &step.next.arcs {
            if self.holds(arrow, "step.skipped")? {
                self.apply(&arrow.set, Some("step.skipped"))?;
                self.route(arrow, &mut left);
                if !step.next.inclusive {
                    break;
                }
            }
        }
        left.exit.ctx = std::mem::take(&mut self.writes);
        Ok(left)
    }

    /// Two arcs of one step to the same target are one arrival.
    fn route(&self, arrow: &Arrow, left: &mut Left) {
        let target = &self.env.playbook.step(arrow.to).name;
        if !left.exit.routed.contains(target) {
            left.exit.routed.push(Arc::clone(target));
        }
        for step in &arrow.cancels {
            if !left.cancels.contains(step) {
                left.cancels.push(*step);
            }
        }
    }

    fn holds(&self, arrow: &Arrow, event: &str) -> Result<bool, ExprError> {
        match &arrow.when {
            None => Ok(true),
            Some(when) => {
                let names = StateNames { fields: arrow.over_result, ..self.names(Some(event)) };
                when.holds(&scope(self.env, &names))
            }
        }
    }

    fn apply(&mut self, set: &[Assignment], event: Option<&str>) -> Result<(), ExprError> {
        if set.is_empty() {
            return Ok(());
        }
        let mut block = Vec::with_capacity(set.len());
        {
            let names = self.names(event);
            for assignment in set {
                let value: Value = assignment.value.render(&scope(self.env, &names))?;
                match assignment.target {
                    // Outside a pipeline only `ctx` outlives the block; a bare name means it too.
                    Target::Ctx | Target::Local => block.push(Write { path: assignment.path.clone(), value }),
                    Target::Iter => {}
                }
            }
        }
        write(&mut self.ctx, &block);
        self.writes.append(&mut block);
        Ok(())
    }

    fn names<'n>(&'n self, event: Option<&'n str>) -> StateNames<'n>
    where
        'a: 'n,
    {
        StateNames {
            execution: self.execution,
            playbook: self.env.playbook,
            environment: self.env.environment,
            ctx: &self.ctx,
            finished: self.finished,
            skipped: self.skipped,
            previous: None,
            event,
            now: self.env.now,
            fields: false,
        }
    }
}

/// Returns what `event.name` is for one arc. A name can not equal two words, so the arc's own text chooses.
fn event_name(arrow: &Arrow, failed: bool, after_loop: bool) -> &'static str {
    let text = arrow.when.as_ref().map_or("", |when| when.source());
    let aliases: &[&'static str] = match (failed, after_loop) {
        (false, true) => return "loop.done",
        (true, true) => &["step.failed", "call.error"],
        (true, false) => &["step.failed", "step.exit"],
        (false, false) => &["step.done", "step.exit"],
    };
    let otherwise = match (failed, after_loop) {
        (true, true) => "loop.done",
        (true, false) => "call.error",
        (false, _) => "call.done",
    };
    aliases.iter().copied().find(|alias| text.contains(alias)).unwrap_or(otherwise)
}
