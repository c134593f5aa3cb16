//! Loops: what is iterated, which iterations begin, and what comes out.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::event::{CursorPlan, Event};
use crate::execution::command::Run;
use crate::execution::complete::{Ending, left_out, stats};
use crate::execution::cursor::Move;
use crate::execution::draft::{Draft, Halt, halt, scope};
use crate::execution::state::{LoopState, Outcome};
use crate::execution::{Env, LIVE_COMMANDS_MAX, LOOP_ITEMS_MAX};
use crate::expr::ValueTemplate;
use crate::playbook::{CancelMode, Loop, LoopSource, Output, Step};
use crate::result::Bound;
use crate::tool::{ErrorKind, ToolError};
use crate::work::Iteration;

impl Draft {
    /// Enters a loop: fixes its collection. The iterations begin with [`Draft::refill_loops`].
    pub(super) fn start_loop(
        &mut self,
        step: &Step,
        looping: &Loop,
        visit: u32,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let evaluated = match &looping.source {
            LoopSource::In(source) => self.evaluate_loop(step, looping, source, env)?.map(Evaluated::Elements),
            LoopSource::Cursor(cursor) => self.plan_cursor(step, looping, cursor, env)?.map(Evaluated::Plan),
        };
        self.enter(step, visit, env);
        let (items, max_in_flight) = match evaluated {
            Ok(Evaluated::Elements(evaluated)) => evaluated,
            Ok(Evaluated::Plan(plan)) => {
                let started = Event::LoopStarted {
                    step: Arc::clone(&step.name),
                    visit,
                    items: Bound::null(),
                    total: 0,
                    max_in_flight: plan.claimers.saturating_mul(plan.row_concurrency),
                    cursor: Some(plan),
                };
                self.emit(env, started);
                return Ok(());
            }
            Err(error) => {
                let outcome = Outcome { result: Bound::null(), error: None, hard: true, handled: false };
                return self.exit_fatally(step, visit, outcome, false, &error, env);
            }
        };
        let total = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let name = format!("{}.items", step.name);
        let items = self.bind(env, &name, Value::Array(items), &Output::default());
        let step_name = Arc::clone(&step.name);
        self.emit(env, Event::LoopStarted { step: step_name, visit, items, total, max_in_flight, cursor: None });
        if total == 0 { self.end_loop(step, visit, env) } else { Ok(()) }
    }

    fn evaluate_loop(
        &self,
        step: &Step,
        looping: &Loop,
        source: &ValueTemplate,
        env: &Env<'_>,
    ) -> Result<Result<(Vec<Value>, u32), ToolError>, Halt> {
        let names = self.names(env, self.arriving_from(step));
        let scope = scope(env, &names);
        let template = |message| ToolError::hard(ErrorKind::Transform, "TEMPLATE", message);
        let source = match source.render(&scope) {
            Ok(source) => source,
            Err(error) => return halt(env, error).map(template).map(Err),
        };
        let items = match elements(source) {
            Ok(items) => items,
            Err(what) => {
                let message = format!("the loop of `{}` can not iterate {what}", step.name);
                return Ok(Err(ToolError::hard(ErrorKind::Config, "LOOP_SOURCE", message)));
            }
        };
        if items.len() > LOOP_ITEMS_MAX {
            let message =
                format!("the loop of `{}` has more than {LOOP_ITEMS_MAX} elements (limits.loop_items)", step.name);
            return Ok(Err(ToolError::hard(ErrorKind::Limit, "LOOP_ITEMS", message)));
        }
        let max = match (looping.parallel, &looping.max_in_flight) {
            (false, _) => 1,
            (true, None) => LIVE_COMMANDS_MAX,
            (true, Some(max)) => match max.render(&scope) {
                Ok(max) => count(&max).unwrap_or(LIVE_COMMANDS_MAX),
                Err(error) => return halt(env, error).map(template).map(Err),
            },
        };
        Ok(Ok((items, u32::try_from(max.clamp(1, LIVE_COMMANDS_MAX)).unwrap_or(1))))
    }

    /// Begins iterations where there is room; `true` when something began.
    pub(super) fn refill_loops(&mut self, env: &mut Env<'_>) -> Result<bool, Halt> {
        let playbook = env.playbook;
        let mut began = false;
        for place in 0..self.execution.visits.len() {
            // A loop that ended meanwhile is gone from the list; the next round sees the rest.
            let Some(visit) = self.execution.visits.get(place) else { break };
            let (Some(state), Some(ix)) = (&visit.looping, playbook.find(&visit.step)) else { continue };
            let number = visit.visit;
            let step = playbook.step(ix);
            let Some(looping) = &step.looping else { continue };
            if matches!(next_move(state), Move::Wait | Move::Over) {
                continue;
            }
            while let Some(state) = self.looping(&step.name, number) {
                let (going, total) = (next_move(state), state.total);
                if matches!(going, Move::Wait | Move::Over)
                    || self.execution.live.len() >= LIVE_COMMANDS_MAX
                    || !self.may_advance()
                {
                    break;
                }
                match (going, &looping.source) {
                    (Move::Iterate(index), _) => {
                        let Some(state) = self.looping(&step.name, number) else { break };
                        let item = self.element(state, index, env)?;
                        let iteration = Iteration { iterator: Arc::clone(&looping.iterator), item, index, total };
                        let run = Run { step, visit: number, iteration: Some(index), command: None };
                        self.run_body(run, Some(iteration), env)?;
                    }
                    (Move::Claim, LoopSource::Cursor(cursor)) => self.claim_rows(cursor, number, env)?,
                    (Move::Claim, LoopSource::In(_)) | (Move::Wait | Move::Over, _) => break,
                }
                began = true;
            }
            if self.is_runnable() {
                return Ok(false);
            }
        }
        Ok(began)
    }

    /// Returns the loop of a visit under way. Nobody keeps a clone of it over an event: the fold would have to copy it.
    pub(super) fn looping(&self, step: &str, visit: u32) -> Option<&LoopState> {
        self.execution.visit(step, visit)?.looping.as_deref()
    }

    /// An iteration (or a claim) is over: ends the loop after the last one, or when it is enough.
    pub(super) fn end_iteration(
        &mut self,
        step: &Step,
        visit: u32,
        ending: Option<Ending<'_>>,
        env: &mut Env<'_>,
    ) -> Result<(), Halt> {
        let over = self.looping(&step.name, visit).is_none_or(|state| next_move(state) == Move::Over);
        match (ending, &step.looping) {
            (Some(ending), Some(looping)) if !over => self.complete_when(step, looping, visit, ending, env),
            (Some(_) | None, Some(_) | None) => self.end_loop_when_over(step, visit, env),
        }
    }

    /// Ends the loop when nothing of it runs and nothing will.
    pub(super) fn end_loop_when_over(&mut self, step: &Step, visit: u32, env: &mut Env<'_>) -> Result<(), Halt> {
        let over = self.looping(&step.name, visit).is_some_and(|state| next_move(state) == Move::Over);
        if over { self.end_loop(step, visit, env) } else { Ok(()) }
    }

    fn end_loop(&mut self, step: &Step, visit: u32, env: &mut Env<'_>) -> Result<(), Halt> {
        let Some(state) = self.execution.visit(&step.name, visit).and_then(|visit| visit.looping.clone()) else {
            return Ok(());
        };
        let mut results = Vec::with_capacity(state.results.len());
        for outcome in state.results.iter() {
            results.push(match outcome {
                Some(outcome) => (*self.data(env, &outcome.result)?).clone(),
                None => Value::Null,
            });
        }
        let mut data = serde_json::json!({
            "results": results,
            "stats": stats(&state),
            "status": if state.hard.is_some() { "error" } else { "ok" },
        });
        // A loop that a hard error ended has failed, like every step that says so in its data.
        if let (Some(map), Some(error)) = (data.as_object_mut(), &state.hard) {
            map.insert("error".into(), (**error).clone());
        }
        let left_out = left_out(&state);
        if let (Some(map), true) = (data.as_object_mut(), state.early.is_some()) {
            map.insert("completed_early".into(), true.into());
        }
        let omitted = state.total as usize - state.results.len();
        if let (Some(map), true) = (data.as_object_mut(), omitted > 0) {
            map.insert("results_omitted".into(), omitted.into());
        }
        let result = self.bind(env, &step.name, data, &step.output);
        self.emit(
            env,
            Event::LoopDone {
                step: Arc::clone(&step.name),
                visit,
                total: state.total,
                failed: state.failed,
                left_out,
                result: result.clone(),
            },
        );
        self.out.head.failed_steps.clone_from(&self.execution.failed_steps);
        let strict = env.playbook.executor.strict || self.execution.init.strict;
        let outcome = Outcome { result, error: state.hard.clone(), hard: state.hard.is_some(), handled: false };
        if strict && state.failed > 0 && state.hard.is_none() {
            let message = format!("{} of {} iterations of `{}` failed", state.failed, state.total, step.name);
            let error = ToolError::hard(ErrorKind::Code, "ITERATIONS_FAILED", message);
            return self.exit_fatally(step, visit, outcome, true, &error, env);
        }
        self.leave(step, visit, outcome, true, env)
    }
}

/// What a loop begins with.
enum Evaluated {
    /// The elements of a collection, and how many at once.
    Elements((Vec<Value>, u32)),
    /// How rows will be claimed.
    Plan(CursorPlan),
}

/// Says what a loop can begin now.
fn next_move(state: &LoopState) -> Move {
    if let Some(early) = state.early {
        let runs = match &state.cursor {
            Some(cursor) => !cursor.rests(),
            None => state.done < state.next,
        };
        return match early.mode {
            CancelMode::Finish if runs => Move::Wait,
            // What it had begun was withdrawn, or has ended.
            CancelMode::Finish | CancelMode::Interrupt => Move::Over,
        };
    }
    match &state.cursor {
        Some(cursor) => cursor.next(state.hard.is_some()),
        None if state.done >= state.total => Move::Over,
        None if state.next < state.total && state.next - state.done < state.max_in_flight => Move::Iterate(state.next),
        None => Move::Wait,
    }
}

/// Returns the elements of what a loop iterates: a list's elements, a map's entries as `{key, value}`, 0…n-1 for a
/// number n, a text's JSON list or its parts between commas and line ends.
fn elements(source: Value) -> Result<Vec<Value>, &'static str> {
    match source {
        Value::Array(items) => Ok(items),
        Value::Object(map) => Ok(map.into_iter().map(|(key, value)| pair(key, value)).collect()),
        Value::Number(number) => match number.as_f64() {
            Some(n) if n >= 0.0 && n <= LOOP_ITEMS_MAX as f64 => Ok((0..n as u64).map(Value::from).collect()),
            Some(n) if n > 0.0 => Ok(vec![Value::Null; LOOP_ITEMS_MAX + 1]),
            _ => Err("a negative number"),
        },
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(items)) => Ok(items),
            _ => Ok(text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()),
        },
        Value::Null => Err("nothing: it is null or undefined"),
        Value::Bool(_) => Err("a boolean"),
    }
}

fn pair(key: String, value: Value) -> Value {
    let mut map = Map::new();
    map.insert("key".into(), key.into());
    map.insert("value".into(), value);
    Value::Object(map)
}

pub(super) fn count(value: &Value) -> Option<usize> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (number >= 1.0).then_some(number as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_loop_iterates_lists_maps_numbers_and_texts() {
        for (source, expected) in [
            (json!([1, "b"]), json!([1, "b"])),
            (json!({"a": 1, "b": [2]}), json!([{"key": "a", "value": 1}, {"key": "b", "value": [2]}])),
            (json!(3), json!([0, 1, 2])),
            (json!(0), json!([])),
            (json!("[1, 2]"), json!([1, 2])),
            (json!("a, b\nc"), json!(["a", "b", "c"])),
            (json!(""), json!([])),
        ] {
            assert_eq!(elements(source.clone()).map(Value::Array), Ok(expected), "{source}");
        }
        for source in [json!(null), json!(true), json!(-1)] {
            assert!(elements(source.clone()).is_err(), "{source}");
        }
    }
}
