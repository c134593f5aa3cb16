//! A draft: an execution on which inputs are decided one after the other, to be written as one append.
//!
//! Folding matters: a 10,000-iteration loop decided one report at a time would be 10,000 commits.

use std::sync::Arc;

use serde_json::Value;

use crate::append::{Append, CommandChange, Due, DueChange, DueKind, Guard, HeadChange, NewEvent};
use crate::event::Event;
use crate::execution::cleanup::{self, Prepared};
use crate::execution::state::{Execution, Failure};
use crate::execution::{ADVANCE_BYTES_MAX, ADVANCE_STEPS_MAX, Env, Input, Needs, Refusal, SNAPSHOT_EVERY};
use crate::expr::{ExprError, Names, Scope};
use crate::id::{CommandId, EventId};
use crate::result::{Bound, LargeResult, bind, json_size};
use crate::time::Timestamp;

pub use crate::execution::start::{StartRefusal, start};

/// Inputs decided but not yet written.
#[derive(Debug)]
pub struct Draft {
    pub(super) execution: Execution,
    pub(super) out: Append,
    /// Version the draft began at.
    base: u64,
    /// Steps advanced and bytes of events made, against the budget of one decision.
    steps: u32,
    bytes: usize,
    /// The budget was used up with something left to do.
    exhausted: bool,
}

/// Why a decision stops half-way.
#[derive(Debug)]
pub(super) enum Halt {
    /// Something must be at hand first.
    Needs(Needs),
}

impl Draft {
    /// Begins a draft on the state that was read; the caller keeps that state until the append has landed.
    pub fn new(execution: Execution) -> Self {
        let out = Append {
            execution_id: execution.execution_id,
            guard: Guard::At(execution.decided),
            at: Timestamp(0),
            events: Vec::new(),
            head: HeadChange::default(),
            commands: Vec::new(),
            due: Vec::new(),
            children: Vec::new(),
            results: Vec::new(),
            snapshot: None,
        };
        let base = execution.version;
        Draft { execution, out, base, steps: 0, bytes: 0, exhausted: false }
    }

    /// Decides one input. After [`Refusal::Needs`] the draft is spoiled; after the others it is as before.
    pub fn decide(&mut self, input: &Input, env: &mut Env<'_>) -> Result<(), Refusal> {
        if self.execution.status.is_terminal() {
            return Err(Refusal::Ended(self.execution.status));
        }
        match input {
            // What a worker has done is kept, and what a person ends is ended: decided up to what would begin next.
            Input::Report(..) | Input::CompleteLoop(_) => {}
            Input::Continue | Input::Timer(_) | Input::ChildEnded(..) if self.execution.paused => {
                return Err(Refusal::Paused);
            }
            Input::Continue | Input::Timer(_) | Input::ChildEnded(..) => {}
        }
        self.out.at = self.out.at.max(env.now);
        let decided = match input {
            Input::Continue => self.go_on(env),
            Input::Report(report, worker_id) => self.report(report, worker_id, env),
            Input::Timer(command_id) => self.timer(*command_id, env),
            Input::ChildEnded(command_id, child) => self.child_ended(*command_id, child, env),
            Input::CompleteLoop(wish) => self.complete_loops(wish, env),
        };
        match decided {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Stale),
            Err(Halt::Needs(needs)) => return Err(Refusal::Needs(needs)),
        }
        self.advance(env).map_err(|Halt::Needs(needs)| Refusal::Needs(needs))
    }

    /// Returns whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.out.events.is_empty() && self.out.due.is_empty()
    }

    /// Returns whether the execution wants to go on without any input: the budget of one decision was used up.
    pub fn is_runnable(&self) -> bool {
        self.exhausted
    }

    /// Ends the draft: the state after it, and what to write. The guard is `At`; under the lock the caller replaces
    /// it by `Locked`. After landing, set the state's `version` and `decided` to the landed version.
    pub fn finish(mut self) -> (Execution, Append) {
        self.out.head.runnable = Some(self.exhausted);
        if self.exhausted {
            let due = Due {
                execution_id: self.execution.execution_id,
                kind: DueKind::Continue,
                key: 0,
                at: self.out.at,
                command: None,
            };
            self.out.due.push(DueChange::Set(due));
        }
        let after = self.base + self.out.events.len() as u64;
        let every = self.snapshot_every();
        if self.base / every != after / every && !self.execution.status.is_terminal() {
            self.out.snapshot = serde_json::to_value(&self.execution).ok().map(Arc::new);
        }
        (self.execution, self.out)
    }

    /// Returns after how many events a snapshot is worth it. One costs as much as the state is large, and a loop makes
    /// it large: with a fixed distance the snapshots of a long loop would cost the square of its length.
    fn snapshot_every(&self) -> u64 {
        let loops = self.execution.visits.iter().filter_map(|visit| visit.looping.as_deref());
        let kept = loops.map(|state| u64::from(state.done)).sum::<u64>();
        SNAPSHOT_EVERY.max(kept.next_power_of_two())
    }

    fn go_on(&mut self, env: &mut Env<'_>) -> Result<bool, Halt> {
        self.prepare_cleanup(env)?;
        self.clear_due(DueKind::Continue, 0);
        Ok(true)
    }

    /// A cleanup learns what it has to do from the execution that it comes after.
    fn prepare_cleanup(&mut self, env: &mut Env<'_>) -> Result<(), Halt> {
        let Some(of) = self.execution.init.cleanup.clone().filter(|_| self.execution.cleaning.is_none()) else {
            return Ok(());
        };
        match env.books.origins.get(&of.execution_id) {
            None => Err(Halt::Needs(Needs { origins: vec![of.execution_id], ..Needs::default() })),
            Some(Some(origin)) => {
                let prepared = Prepared::of(origin, env.playbook);
                self.emit(env, Event::CleanupPrepared(Box::new(prepared)));
                Ok(())
            }
            Some(None) => {
                self.end_failed(env, Failure { step: None, error: Arc::new(cleanup::gone(&of)) });
                Ok(())
            }
        }
    }

    /// Writes a fact: the state follows it at once.
    pub(super) fn emit(&mut self, env: &mut Env<'_>, event: Event) {
        self.execution.evolve(&event);
        self.execution.version += 1;
        let event_id = EventId(env.ids.next(env.now));
        self.out.events.push(NewEvent { event_id, event });
    }

    /// Counts one step against the budget; `false` = it is used up.
    pub(super) fn may_advance(&mut self) -> bool {
        if self.steps >= ADVANCE_STEPS_MAX || self.bytes >= ADVANCE_BYTES_MAX {
            self.exhausted = true;
            return false;
        }
        self.steps += 1;
        true
    }

    /// A new decision on the same draft has a budget of its own.
    pub(super) fn renew_budget(&mut self) {
        (self.steps, self.bytes, self.exhausted) = (0, 0, false);
    }

    /// Keeps `data` in place when it is small, else moves it out of the log.
    pub(super) fn bind(
        &mut self,
        env: &mut Env<'_>,
        name: &str,
        data: Value,
        output: &crate::playbook::Output,
    ) -> Bound {
        self.bytes += json_size(&data);
        let id = env.ids.next(env.now);
        let (bound, large) = bind(self.execution.execution_id, name, id, data, output);
        if let Some(large) = large {
            self.keep(env, large);
        }
        bound
    }

    fn keep(&mut self, env: &mut Env<'_>, large: LargeResult) {
        env.library.insert(&large.reference, Arc::clone(&large.data));
        self.out.results.push(large);
    }

    /// Returns the data of a result, or says that it must be loaded.
    pub(super) fn data(&self, env: &Env<'_>, bound: &Bound) -> Result<Arc<Value>, Halt> {
        match bound {
            Bound::Inline(data) => Ok(Arc::clone(data)),
            Bound::Stored(stored) => env
                .library
                .get(&stored.reference)
                .ok_or_else(|| Halt::Needs(Needs { results: vec![stored.reference.clone()], ..Needs::default() })),
        }
    }

    pub(super) fn clear_due(&mut self, kind: DueKind, key: i64) {
        let execution_id = self.execution.execution_id;
        self.out.due.push(DueChange::Clear { execution_id, kind, key });
    }

    pub(super) fn set_timer(&mut self, command_id: CommandId, at: Timestamp) {
        let execution_id = self.execution.execution_id;
        self.out.due.push(DueChange::Set(Due {
            execution_id,
            kind: DueKind::Timer,
            key: command_id.0,
            at,
            command: None,
        }));
    }

    pub(super) fn change(&mut self, change: CommandChange) {
        self.out.commands.push(change);
    }
}

/// Returns a scope over `names` for one evaluation.
pub(super) fn scope<'a>(env: &'a Env<'_>, names: &'a dyn Names) -> Scope<'a> {
    Scope { names, library: env.library, now: env.now }
}

/// Separates what must be loaded from what failed.
pub(super) fn halt(env: &Env<'_>, error: ExprError) -> Result<String, Halt> {
    match error {
        ExprError::Needs => Err(Halt::Needs(Needs { results: env.library.take_needs(), ..Needs::default() })),
        ExprError::Failed { message } => Ok(message),
    }
}
