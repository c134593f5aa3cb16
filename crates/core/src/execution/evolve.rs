//! Applying facts. Total: history already happened, so it cannot fail; a fact about something unknown changes nothing.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::event::{CommandDone, Event, Exit, Initialized, Recorded, Write};
use crate::execution::cursor::{CURSOR_RESULTS_MAX, CursorState};
use crate::execution::rerun::Kept;
use crate::execution::results::Results;
use crate::execution::state::{Ctx, Execution, FoldError, Live, LiveState, LoopState, Outcome, Stop, Token, Visit};
use crate::head::{FAILED_STEPS_MAX, Status};
use crate::id::ExecutionId;
use crate::result::Bound;
use crate::time::Timestamp;

impl Execution {
    /// Returns the state after `playbook.initialized`.
    pub fn begin(execution_id: ExecutionId, init: Arc<Initialized>, at: Timestamp) -> Self {
        let entry = Token { step: Arc::clone(&init.entry), from: None };
        // A rerun may go on where the execution before stopped.
        let kept = init.rerun.as_ref().and_then(|rerun| rerun.kept.clone());
        let kept = kept.unwrap_or_else(|| Kept { tokens: vec![entry], ..Kept::default() });
        Execution {
            execution_id,
            init,
            started_at: at,
            status: Status::Running,
            version: 1,
            decided: 1,
            ctx: kept.ctx,
            steps: kept.steps,
            tokens: kept.tokens.into(),
            visits: Vec::new(),
            live: Default::default(),
            lost: Default::default(),
            failing: None,
            last_finished: kept.last_finished,
            begun: 0,
            commands_issued: 0,
            failed_steps: Vec::new(),
            error: None,
            paused: false,
            quiesced: false,
        }
    }

    /// Folds a log, from a snapshot when there is one. Checks that no version is missing.
    pub fn fold(snapshot: Option<(u64, &Value)>, tail: &[Recorded]) -> Result<Self, FoldError> {
        let (mut execution, rest) = match (snapshot, tail) {
            (Some((version, state)), tail) => {
                let mut execution = serde::Deserialize::deserialize(state)
                    .map_err(|e: serde_json::Error| FoldError::Snapshot(e.to_string()))?;
                let state: &mut Execution = &mut execution;
                (state.version, state.decided) = (version, version);
                (execution, tail)
            }
            (None, [first, rest @ ..]) => {
                let Event::PlaybookInitialized(init) = &first.event else { return Err(FoldError::NoBeginning) };
                if first.version != 1 {
                    return Err(FoldError::NoBeginning);
                }
                (Execution::begin(first.execution_id, Arc::new((**init).clone()), first.at), rest)
            }
            (None, []) => return Err(FoldError::NoBeginning),
        };
        for recorded in rest {
            execution.follow(recorded)?;
        }
        Ok(execution)
    }

    /// Applies the next fact of the log; a version that is not the next one is a hole.
    pub fn follow(&mut self, recorded: &Recorded) -> Result<(), FoldError> {
        let expected = self.version + 1;
        if recorded.version != expected {
            return Err(FoldError::Hole { expected, found: recorded.version });
        }
        self.evolve(&recorded.event);
        self.version = recorded.version;
        // A claim is written blind: it raises the version, not the decisions. That its `step.enter` counts here is
        // harmless: the guard is compared with the head's own counter, and who loads a state takes `decided` from there.
        if !matches!(recorded.event, Event::CommandClaimed { .. }) {
            self.decided = recorded.version;
        }
        Ok(())
    }

    /// Applies a fact.
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::PlaybookInitialized(_) => {}
            Event::StepEnter { step, visit, .. } => self.begin_visit(step, *visit),
            Event::StepSkipped { step, exit } => {
                self.consume_tokens(step);
                self.leave(step, exit);
            }
            Event::CommandIssued(issued) => {
                self.begin_visit(&issued.step, issued.visit);
                self.commands_issued += 1;
                if let Some(looping) =
                    self.visit_mut(&issued.step, issued.visit).and_then(|visit| visit.looping.as_mut())
                {
                    Arc::make_mut(looping).begin(issued.iteration);
                }
                self.live.insert(
                    issued.command_id,
                    Live {
                        step: Arc::clone(&issued.step),
                        visit: issued.visit,
                        iteration: issued.iteration,
                        epoch: 1,
                        losses: 0,
                        started: false,
                        stop: None,
                        state: LiveState::Issued,
                    },
                );
            }
            // Commutes with every other fact: it is written blind, and no decision reads who holds a command here.
            Event::CommandClaimed { .. } => {}
            Event::CommandStarted { command_id, epoch, .. } => {
                if let Some(live) = self.live.get_mut(command_id).filter(|live| live.epoch == *epoch) {
                    live.started = true;
                }
            }
            Event::CallDone(call) => {
                self.write(&call.ctx);
                let outcome = Outcome {
                    result: call.result.clone(),
                    error: call.error.clone(),
                    hard: call.hard,
                    handled: call.handled,
                };
                if let Some(visit) = self.visit_mut(&call.step, call.visit) {
                    match (call.iteration, &mut visit.looping) {
                        (Some(index), Some(looping)) => Arc::make_mut(looping).end(index, outcome),
                        _ => visit.call = Some(outcome),
                    }
                }
            }
            Event::CommandDone(done) => self.command_done(done),
            Event::CommandSuspended(pause) => {
                self.write(&pause.ctx);
                if let Some(live) = self.live.get_mut(&pause.command_id) {
                    live.epoch = pause.epoch + 1;
                    live.started = false;
                    live.state = LiveState::Suspended {
                        wait: pause.wait.clone(),
                        continuation: Arc::clone(&pause.continuation),
                    };
                }
            }
            Event::CommandResumed { command_id, epoch, .. } => {
                if let Some(live) = self.live.get_mut(command_id) {
                    live.epoch = *epoch;
                    live.state = LiveState::Issued;
                }
            }
            Event::CommandLost { command_id, epoch, again, .. } => {
                if !self.status.is_terminal() {
                    self.lost.insert((*command_id, *epoch));
                }
                if let Some(live) = self.live.get_mut(command_id).filter(|live| live.epoch == *epoch) {
                    live.losses += 1;
                    live.started = false;
                    if *again {
                        live.epoch = epoch + 1;
                    } else {
                        live.state = LiveState::GivenUp;
                    }
                }
            }
            Event::CommandReleased { command_id, epoch, .. } => {
                if let Some(live) = self.live.get_mut(command_id).filter(|live| live.epoch == *epoch) {
                    live.epoch = epoch + 1;
                    live.started = false;
                }
            }
            Event::CommandCancelled { command_id, epoch, .. } => {
                self.lost.remove(&(*command_id, *epoch));
                if self.live.get(command_id).is_some_and(|live| live.epoch == *epoch) {
                    self.live.remove(command_id);
                }
            }
            Event::CommandStopping(stopping) => {
                if let Some(live) = self.live.get_mut(&stopping.command_id).filter(|live| live.epoch == stopping.epoch)
                {
                    // The first reason counts.
                    live.stop.get_or_insert_with(|| Stop { cause: stopping.cause, reason: stopping.reason.clone() });
                    if !stopping.held {
                        live.state = LiveState::Stopped;
                    }
                }
            }
            Event::CommandForgotten { command_id, epoch, .. } => {
                self.lost.remove(&(*command_id, *epoch));
            }
            Event::LoopStarted { step, visit, items, total, max_in_flight, cursor } => {
                if let Some(visit) = self.visit_mut(step, *visit) {
                    visit.looping = Some(Arc::new(LoopState {
                        items: items.clone(),
                        total: *total,
                        max_in_flight: *max_in_flight,
                        next: 0,
                        done: 0,
                        failed: 0,
                        hard: None,
                        results: Results::unknown(*total as usize),
                        cursor: cursor.map(CursorState::new),
                    }));
                }
            }
            Event::LoopClaimed { step, visit, rows, count, full } => {
                if let Some(looping) = self.visit_mut(step, *visit).and_then(|visit| visit.looping.as_mut()) {
                    Arc::make_mut(looping).claimed(rows, *count, *full);
                }
            }
            Event::LoopDone { step, visit, failed, result, .. } => {
                if *failed > 0 {
                    self.note_failed(step);
                }
                if let Some(visit) = self.visit_mut(step, *visit) {
                    let error = visit.looping.as_ref().and_then(|looping| looping.hard.clone());
                    let hard = error.is_some();
                    visit.call = Some(Outcome { result: result.clone(), error, hard, handled: false });
                }
            }
            Event::StepExit(exited) => {
                let visit = self.take_visit(&exited.step, exited.visit);
                let state = self.steps.entry(Arc::clone(&exited.step)).or_default();
                state.result =
                    exited.result.clone().or_else(|| visit.and_then(|visit| visit.call).map(|call| call.result));
                state.error.clone_from(&exited.error);
                self.last_finished = Some(Arc::clone(&exited.step));
                if let Some(error) = &exited.error {
                    if exited.fatal && self.failing.is_none() {
                        self.failing = Some(crate::execution::state::Failure {
                            step: Some(Arc::clone(&exited.step)),
                            error: Arc::clone(error),
                        });
                    }
                    if !exited.handled {
                        self.note_failed(&exited.step);
                    }
                }
                self.leave(&exited.step, &exited.exit);
            }
            Event::PlaybookCompleted { .. } => self.end(Status::Completed),
            Event::PlaybookFailed { error, .. } => {
                self.error = Some(Arc::clone(error));
                self.end(Status::Failed);
            }
            Event::ExecutionCancelled(_) => self.end(Status::Cancelled),
            Event::ExecutionCancelEscalated(_) => {}
            Event::ExecutionPaused(_) => self.paused = true,
            Event::ExecutionResumed(_) => self.paused = false,
            Event::ExecutionQuiesced { .. } => self.quiesced = true,
        }
    }

    /// Returns the visit under way.
    pub fn visit(&self, step: &str, visit: u32) -> Option<&Visit> {
        self.visits.iter().find(|known| &*known.step == step && known.visit == visit)
    }

    fn visit_mut(&mut self, step: &str, visit: u32) -> Option<&mut Visit> {
        self.visits.iter_mut().find(|known| &*known.step == step && known.visit == visit)
    }

    fn take_visit(&mut self, step: &str, visit: u32) -> Option<Visit> {
        let place = self.visits.iter().position(|known| &*known.step == step && known.visit == visit)?;
        Some(self.visits.remove(place))
    }

    /// Begins a visit, unless it has begun: a worker's `step.enter` comes after its `command.issued`.
    fn begin_visit(&mut self, step: &Arc<str>, visit: u32) {
        let state = self.steps.entry(Arc::clone(step)).or_default();
        if visit <= state.visits {
            return;
        }
        state.visits = visit;
        self.begun += 1;
        let from = self.consume_tokens(step);
        self.visits.push(Visit { step: Arc::clone(step), visit, from, call: None, looping: None });
    }

    /// Takes the arrivals that become one visit: all of them when they come from different steps (a join), else the
    /// oldest one. Returns where the last one came from.
    fn consume_tokens(&mut self, step: &str) -> Option<Arc<str>> {
        let mut here = self.tokens.iter().filter(|token| &*token.step == step);
        let first = here.next()?.from.clone();
        let join = here.any(|token| token.from != first);
        let mut last = None;
        let mut taken = false;
        self.tokens.retain(|token| {
            if &*token.step != step || taken && !join {
                return true;
            }
            taken = true;
            last.clone_from(&token.from);
            false
        });
        last
    }

    fn leave(&mut self, step: &Arc<str>, exit: &Exit) {
        self.write(&exit.ctx);
        for target in &exit.routed {
            self.tokens.push_back(Token { step: Arc::clone(target), from: Some(Arc::clone(step)) });
        }
    }

    fn command_done(&mut self, done: &CommandDone) {
        if done.late {
            // Recorded as evidence, after the end or under an old epoch: it takes a lost attempt off the books, no more.
            self.lost.remove(&(done.command_id, done.epoch));
        } else {
            self.live.remove(&done.command_id);
            self.write(&done.ctx);
            if done.iteration.is_none()
                && let Some(looping) = self.visit_mut(&done.step, done.visit).and_then(|visit| visit.looping.as_mut())
            {
                Arc::make_mut(looping).end_claim(done.error.as_ref());
            }
        }
    }

    fn note_failed(&mut self, step: &Arc<str>) {
        if self.failed_steps.len() < FAILED_STEPS_MAX && !self.failed_steps.contains(step) {
            self.failed_steps.push(Arc::clone(step));
        }
    }

    fn end(&mut self, status: Status) {
        self.status = status;
        self.paused = false;
        self.tokens.clear();
        self.visits.clear();
        // Lost attempts are off the books with the end: the certificate names them.
        self.lost.clear();
    }

    fn write(&mut self, writes: &[Write]) {
        write(&mut self.ctx, writes);
    }
}

impl LoopState {
    /// Records that an iteration (or, without one, a claim) is under way.
    fn begin(&mut self, iteration: Option<u32>) {
        match (iteration, &mut self.cursor) {
            (Some(index), cursor) => {
                self.next = self.next.max(index + 1);
                if let Some(cursor) = cursor {
                    cursor.begun(index);
                }
            }
            (None, Some(cursor)) => cursor.claiming += 1,
            (None, None) => {}
        }
    }

    /// Records a frame of rows: they are the next elements.
    fn claimed(&mut self, rows: &Bound, count: u32, full: bool) {
        let Some(cursor) = &mut self.cursor else { return };
        cursor.claimed(self.total, rows, count, full);
        self.total += count;
        self.results.grow(self.total.min(CURSOR_RESULTS_MAX) as usize);
    }

    /// Records the end of a claim; its rows are recorded apart.
    fn end_claim(&mut self, error: Option<&Arc<Value>>) {
        let Some(cursor) = &mut self.cursor else { return };
        cursor.claiming = cursor.claiming.saturating_sub(1);
        if self.hard.is_none() {
            self.hard = error.map(Arc::clone);
        }
    }

    /// Records the end of an iteration; a second one changes nothing.
    fn end(&mut self, index: u32, outcome: Outcome) {
        if index >= self.total || self.results.get(index as usize).is_some() {
            return;
        }
        self.next = self.next.max(index + 1);
        self.done += 1;
        if let Some(cursor) = &mut self.cursor {
            cursor.ended(index);
        }
        if let Some(error) = &outcome.error {
            self.failed += 1;
            if outcome.hard && self.hard.is_none() {
                self.hard = Some(Arc::clone(error));
            }
        }
        // What a cursor gives beyond the results that are kept is counted, not kept.
        self.results.record(index as usize, outcome);
    }
}

/// Applies writes to `ctx`, in order. A path through something that is no object replaces it by one.
pub fn write(ctx: &mut Ctx, writes: &[Write]) {
    if writes.is_empty() {
        return;
    }
    let ctx = Arc::make_mut(ctx);
    for write in writes {
        match &write.path[..] {
            [] => {}
            [name] => {
                ctx.insert(Arc::clone(name), Arc::new(write.value.clone()));
            }
            [name, deeper @ ..] => {
                let slot = ctx.entry(Arc::clone(name)).or_insert_with(|| Arc::new(Value::Object(Map::new())));
                put(Arc::make_mut(slot), deeper, &write.value);
            }
        }
    }
}

fn put(place: &mut Value, path: &[Arc<str>], value: &Value) {
    let mut place = place;
    for name in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else { return };
        place = map.entry(name.to_string()).or_insert(Value::Null);
    }
    *place = value.clone();
}
