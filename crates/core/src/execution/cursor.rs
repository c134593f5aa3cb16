//! Cursor loops: rows are claimed by a statement until a claim finds none.
//!
//! A claim is a command of its own: a worker runs the cursor's tool, the server then begins one iteration per row (or
//! per frame). A cursor has so many claimers; each claims a frame of rows, waits until they have ended, and claims
//! again. A claimer that finds nothing rests; a frame that is full says that there is more, and wakes those that rest.
//! The loop is over when every claimer rests.
//!
//! A claim may be lost after its statement has committed and before its report has landed. The next attempt claims
//! other rows, and those of the lost one stay claimed in the table of the playbook: only its statement can tell that
//! they are stale, and take them again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::append::CommandChange;
use crate::event::{CommandDone, CursorPlan, Event, error_value};
use crate::execution::command::{Held, Run};
use crate::execution::draft::{Draft, Halt, halt, scope};
use crate::execution::looping::count;
use crate::execution::state::LoopState;
use crate::execution::{Env, LIVE_COMMANDS_MAX, LOOP_ITEMS_MAX};
use crate::head::CommandState;
use crate::playbook::{Cursor, Loop, Output, Step};
use crate::result::Bound;
use crate::tool::{ErrorKind, ToolError};
use crate::work::{Done, Named};

/// Rows that a claim is asked for when `frame.max_rows` does not say.
pub const FRAME_ROWS_DEFAULT: u32 = 1;
/// Rows of one frame at most (`frame.max_rows`, and what a claim may give).
pub const FRAME_ROWS_MAX: u32 = 10_000;
/// Results that a cursor loop keeps: those of the first rows, in the order in which they were claimed.
pub const CURSOR_RESULTS_MAX: u32 = 1_000;
/// The name under which the statement finds `frame.max_rows`.
pub const FRAME_ROWS_NAME: &str = "__frame_max_rows";

/// Where a cursor stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CursorState {
    /// What was decided when the loop began.
    pub plan: CursorPlan,
    /// Claims under way.
    pub claiming: u32,
    /// Claimers whose last claim found nothing.
    pub resting: u32,
    /// Frames with iterations that have not ended, oldest first.
    pub frames: Vec<Frame>,
}

/// Rows claimed together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Its first iteration.
    pub first: u32,
    /// The rows.
    pub rows: Bound,
    /// How many iterations it has: one per row, or one for all of them.
    pub count: u32,
    /// How many have begun.
    pub begun: u32,
    /// How many have ended.
    pub done: u32,
}

/// What a loop can begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Ask for more rows.
    Claim,
    /// Begin this iteration.
    Iterate(u32),
    /// Wait for what runs.
    Wait,
    /// Nothing runs, and nothing will.
    Over,
}

impl CursorState {
    pub(super) fn new(plan: CursorPlan) -> Self {
        CursorState { plan, claiming: 0, resting: 0, frames: Vec::new() }
    }

    /// Says what comes next; after a hard error what is claimed still runs, and nothing more is claimed.
    pub(super) fn next(&self, failed_hard: bool) -> Move {
        let room = |frame: &&Frame| frame.begun < frame.count && frame.begun - frame.done < self.plan.row_concurrency;
        if let Some(frame) = self.frames.iter().find(room) {
            return Move::Iterate(frame.first + frame.begun);
        }
        let busy = self.claiming + u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        if !failed_hard && busy.saturating_add(self.resting) < self.plan.claimers {
            return Move::Claim;
        }
        if busy == 0 { Move::Over } else { Move::Wait }
    }

    /// Returns whether no claim and no iteration is under way.
    pub(super) fn rests(&self) -> bool {
        self.claiming == 0 && self.frames.iter().all(|frame| frame.begun == frame.done)
    }

    /// A claim gave a frame of `count` iterations out of `rows` rows, the first of which is `first`.
    pub(super) fn claimed(&mut self, first: u32, rows: &Bound, count: u32, full: bool) {
        if full {
            self.resting = 0;
        }
        if count == 0 {
            self.resting += 1;
        } else {
            self.frames.push(Frame { first, rows: rows.clone(), count, begun: 0, done: 0 });
        }
    }

    pub(super) fn begun(&mut self, index: u32) {
        if let Some(frame) = self.frame_mut(index) {
            frame.begun = frame.begun.max(index - frame.first + 1);
        }
    }

    pub(super) fn ended(&mut self, index: u32) {
        self.begun(index);
        if let Some(frame) = self.frame_mut(index) {
            frame.done += 1;
        }
        self.frames.retain(|frame| frame.done < frame.count);
    }

    fn frame_mut(&mut self, index: u32) -> Option<&mut Frame> {
        self.frames.iter_mut().find(|frame| frame.holds(index))
    }

    pub(super) fn frame(&self, index: u32) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.holds(index))
    }
}

impl Frame {
    fn holds(&self, index: u32) -> bool {
        (self.first..self.first.saturating_add(self.count)).contains(&index)
    }
}

impl Draft {
    /// Decides how a cursor loop goes on: how many claimers, how many rows.
    pub(super) fn plan_cursor(
        &self,
        step: &Step,
        looping: &Loop,
        cursor: &Cursor,
        env: &Env<'_>,
    ) -> Result<Result<CursorPlan, ToolError>, Halt> {
        let names = self.names(env, self.arriving_from(step));
        let scope = scope(env, &names);
        let most = u32::try_from(LIVE_COMMANDS_MAX).unwrap_or(u32::MAX);
        let mut plan =
            CursorPlan { claimers: 1, max_rows: FRAME_ROWS_DEFAULT, row_concurrency: 1, by_frame: cursor.by_frame };
        for (number, written, most) in [
            (&mut plan.claimers, looping.max_in_flight.as_ref(), most),
            (&mut plan.max_rows, cursor.frame.get("max_rows"), FRAME_ROWS_MAX),
            (&mut plan.row_concurrency, cursor.frame.get("row_concurrency"), most),
        ] {
            let Some(template) = written else { continue };
            match template.render(&scope) {
                // What is no number says nothing.
                Ok(value) => {
                    let asked = count(&value).map(|asked| u32::try_from(asked).unwrap_or(u32::MAX));
                    *number = asked.unwrap_or(*number).clamp(1, most);
                }
                Err(error) => {
                    let message = halt(env, error)?;
                    return Ok(Err(ToolError::hard(ErrorKind::Transform, "TEMPLATE", message)));
                }
            }
        }
        Ok(Ok(plan))
    }

    /// Sends a claim to a worker.
    pub(super) fn claim_rows(&mut self, cursor: &Cursor, visit: u32, env: &mut Env<'_>) -> Result<(), Halt> {
        let step = &*cursor.claim;
        let state = self.looping(&step.name, visit).and_then(|state| state.cursor.as_ref());
        let max_rows = state.map_or(FRAME_ROWS_DEFAULT, |state| state.plan.max_rows);
        let previous = self.execution.visit(&step.name, visit).and_then(|visit| visit.from.clone());
        let mut work = self.work(step, None, previous.as_deref(), env);
        work.names.insert(FRAME_ROWS_NAME.into(), Named::data(Bound::inline(max_rows.into())));
        self.issue(Run { step, visit, iteration: None, command: None }, &work, CommandState::Pending, env)
    }

    /// A claim is over: its rows become a frame, or its error the loop's.
    pub(super) fn end_claim(&mut self, run: Run<'_>, done: Done, env: &mut Env<'_>) -> Result<(), Halt> {
        let Some(held) = run.command else { return Ok(()) };
        let (step, visit) = (run.step, run.visit);
        let Some(state) = self.looping(&step.name, visit) else { return Ok(()) };
        let (Some(CursorState { plan, .. }), total) = (&state.cursor, state.total) else { return Ok(()) };
        let plan = *plan;
        let claimed = match done.error {
            // Soft or hard: without its claim nobody knows whether the loop is finished.
            Some(error) => Err(Box::new(ToolError { hard: true, ..error })),
            None => rows(&step.name, done.data, total),
        };
        let error = match claimed {
            Ok(rows) => {
                let found = u32::try_from(rows.len()).unwrap_or(u32::MAX);
                let count = if plan.by_frame { found.min(1) } else { found };
                let name = format!("{}.frame", step.name);
                let rows = self.bind(env, &name, Value::Array(rows), &Output::default());
                let full = found >= plan.max_rows;
                let step = Arc::clone(&step.name);
                self.emit(env, Event::LoopClaimed { step, visit, rows, count, full });
                None
            }
            Err(error) => Some(Arc::new(error_value(&error))),
        };
        let Held { command_id, epoch, row } = held;
        self.emit(
            env,
            Event::CommandDone(Box::new(CommandDone {
                late_result: None,
                command_id,
                epoch,
                step: Arc::clone(&step.name),
                visit,
                iteration: None,
                error,
                ctx: done.ctx,
                started_at: done.started_at,
                worker_id: done.worker_id,
                duration_ms: Some(done.duration_ms),
                late: false,
            })),
        );
        if let Some(expect) = row {
            self.change(CommandChange::Delete { command_id, epoch, expect });
        }
        match env.playbook.find(&step.name) {
            Some(ix) => self.end_iteration(env.playbook.step(ix), visit, None, env),
            None => Ok(()),
        }
    }

    /// Returns the element of an iteration: of a fixed collection, of a row, of a whole frame.
    pub(super) fn element(&self, state: &LoopState, index: u32, env: &Env<'_>) -> Result<Value, Halt> {
        let Some(cursor) = &state.cursor else {
            return Ok(self.data(env, &state.items)?.get(index as usize).cloned().unwrap_or(Value::Null));
        };
        let Some(frame) = cursor.frame(index) else { return Ok(Value::Null) };
        let rows = self.data(env, &frame.rows)?;
        match cursor.plan.by_frame {
            true => Ok((*rows).clone()),
            false => Ok(rows.get((index - frame.first) as usize).cloned().unwrap_or(Value::Null)),
        }
    }
}

/// Returns the rows that a claim gave.
fn rows(step: &str, mut data: Value, before: u32) -> Result<Vec<Value>, Box<ToolError>> {
    let config = |message: String| Box::new(ToolError::hard(ErrorKind::Config, "LOOP_CURSOR", message));
    let limit = |message: String| Box::new(ToolError::hard(ErrorKind::Limit, "LOOP_ITEMS", message));
    let changed = data.get("affected_rows").and_then(Value::as_u64).unwrap_or(0);
    let rows = match data.get_mut("rows").map(Value::take) {
        Some(Value::Array(rows)) => rows,
        None | Some(Value::Null) if changed == 0 => Vec::new(),
        None | Some(Value::Null) => {
            return Err(config(format!(
                "the claim of `{step}` changed {changed} rows and gave none: add `RETURNING` to its last statement"
            )));
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(config(format!("the claim of `{step}` gave no list of rows")));
        }
    };
    if rows.len() > FRAME_ROWS_MAX as usize {
        return Err(limit(format!("a claim of `{step}` gave more than {FRAME_ROWS_MAX} rows (limits.frame_rows)")));
    }
    if before as usize + rows.len() > LOOP_ITEMS_MAX {
        let message = format!("the loop of `{step}` has more than {LOOP_ITEMS_MAX} rows (limits.loop_items)");
        return Err(limit(message));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cursor(claimers: u32, row_concurrency: u32) -> CursorState {
        CursorState::new(CursorPlan { claimers, max_rows: 2, row_concurrency, by_frame: false })
    }

    #[test]
    fn claimers_claim_rest_wake_and_end() {
        let mut cursor = cursor(2, 1);
        let none = Bound::inline(json!([]));
        assert_eq!(cursor.next(false), Move::Claim);
        cursor.claiming = 1;
        assert_eq!(cursor.next(false), Move::Claim);
        cursor.claiming = 2;
        assert_eq!(cursor.next(false), Move::Wait);

        // One finds a full frame, the other nothing.
        cursor.claiming = 1;
        cursor.claimed(0, &Bound::inline(json!(["a", "b"])), 2, true);
        assert_eq!(cursor.next(false), Move::Iterate(0));
        cursor.claiming = 0;
        cursor.claimed(2, &none, 0, false);
        cursor.begun(0);
        assert_eq!(cursor.next(false), Move::Wait, "one row of the frame at a time, and the other claimer rests");
        cursor.ended(0);
        assert_eq!(cursor.next(false), Move::Iterate(1));
        cursor.ended(1);
        assert!(cursor.frames.is_empty());
        assert_eq!(cursor.next(false), Move::Claim);

        // A full frame wakes the one that rests, one that is not full does not.
        cursor.claimed(2, &Bound::inline(json!(["c"])), 1, false);
        assert_eq!(cursor.resting, 1);
        cursor.claimed(3, &Bound::inline(json!(["d", "e"])), 2, true);
        assert_eq!(cursor.resting, 0);
        cursor.frames.clear();
        cursor.claimed(5, &none, 0, false);
        cursor.claimed(5, &none, 0, false);
        assert_eq!(cursor.next(false), Move::Over);
    }

    #[test]
    fn after_a_hard_error_what_is_claimed_ends_and_nothing_is_claimed() {
        let mut cursor = cursor(3, 2);
        cursor.claimed(0, &Bound::inline(json!([1, 2, 3])), 3, true);
        assert_eq!(cursor.next(true), Move::Iterate(0));
        cursor.begun(0);
        cursor.begun(1);
        assert_eq!(cursor.next(true), Move::Wait);
        for index in 0..3 {
            cursor.ended(index);
        }
        assert_eq!(cursor.next(true), Move::Over);
        assert_eq!(cursor.next(false), Move::Claim);
    }

    #[test]
    fn a_claim_gives_rows_or_says_what_is_wrong() {
        for (data, expected) in [
            (json!({"rows": [{"id": 1}], "row_count": 1}), Ok(1)),
            (json!({"rows": []}), Ok(0)),
            (json!({"affected_rows": 0}), Ok(0)),
            (json!({}), Ok(0)),
            (json!({"affected_rows": 2}), Err("RETURNING")),
            (json!({"rows": 5}), Err("no list")),
            (json!({"rows": vec![0; FRAME_ROWS_MAX as usize + 1]}), Err("limits.frame_rows")),
        ] {
            match (rows("s", data, 0), expected) {
                (Ok(rows), Ok(expected)) => assert_eq!(rows.len(), expected),
                (Err(error), Err(words)) => assert!(error.message.contains(words) && error.hard, "{error:?}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
        assert_eq!(rows("s", json!({"rows": [1]}), LOOP_ITEMS_MAX as u32).unwrap_err().code, "LOOP_ITEMS");
    }
}
