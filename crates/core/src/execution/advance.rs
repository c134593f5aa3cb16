//! Advancing: which arrivals become visits, and when a run is over.
//!
//! Token counting. Each arc taken puts a token on its target. A target with several sources waits while anything
//! active can still reach it; then it runs once. A run is over when nothing is running and nothing has arrived.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::append::{CommandChange, Due, DueChange, DueKind};
use crate::event::{AttemptEnd, Ended, Event};
use crate::execution::Env;
use crate::execution::draft::{Draft, Halt};
use crate::execution::state::{Failure, LiveState};
use crate::head::{CommandState, Status};
use crate::id::CommandId;
use crate::playbook::{Playbook, StepIx};
use crate::result::Bound;

impl Draft {
    /// Starts what can start, refills loops, and ends the run when nothing is left.
    pub(super) fn advance(&mut self, env: &mut Env<'_>) -> Result<(), Halt> {
        self.renew_budget();
        loop {
            if self.execution.status.is_terminal() {
                return Ok(());
            }
            if self.execution.failing.is_some() {
                self.withdraw_suspended(env);
                // What was dispatched runs to its end; then the run is failed.
                if self.execution.live.is_empty() {
                    self.fail(env);
                }
                return Ok(());
            }
            // Nothing begins in a paused run; one that has nothing left to begin may end.
            let going = !self.execution.paused;
            if going && self.refill_loops(env)? {
                continue;
            }
            if let Some(step) = self.startable(env.playbook).filter(|_| going) {
                if !self.may_advance() {
                    return Ok(());
                }
                self.start_step(step, env)?;
                continue;
            }
            // What was withdrawn and a worker still holds keeps the run open, nothing else: its end says that nothing
            // of it runs any more.
            let idle = self.execution.visits.is_empty() && self.execution.tokens.is_empty();
            if idle && self.execution.live.is_empty() {
                // A cleanup that has done what it could, and failed at some of it.
                match self.execution.cleaning.as_ref().and_then(|cleaning| cleaning.failure.clone()) {
                    Some(failure) => self.end_failed(env, failure),
                    None => self.complete(env)?,
                }
            }
            return Ok(());
        }
    }

    /// Returns the oldest arrival that need not wait.
    fn startable(&self, playbook: &Playbook) -> Option<StepIx> {
        let arrivals = || self.execution.tokens.iter().filter_map(|token| playbook.find(&token.step));
        arrivals().find(|&target| !self.must_wait(playbook, target)).or_else(|| {
            // Joins on a cycle may wait for each other; when nothing runs, the oldest goes first.
            if self.execution.visits.is_empty() { arrivals().next() } else { None }
        })
    }

    /// A join waits while a visit or another arrival can still reach it, and while it is itself under way.
    fn must_wait(&self, playbook: &Playbook, target: StepIx) -> bool {
        if playbook.graph.sources[target.0].len() < 2 {
            return false;
        }
        let visits = self.execution.visits.iter().map(|visit| &visit.step);
        if visits.clone().any(|step| playbook.find(step) == Some(target)) {
            return true;
        }
        visits
            .chain(self.execution.tokens.iter().map(|token| &token.step))
            .filter_map(|step| playbook.find(step))
            .any(|active| active != target && playbook.graph.reaches[active.0][target.0])
    }

    /// A failing run starts nothing more: what only waits is withdrawn.
    fn withdraw_suspended(&mut self, env: &mut Env<'_>) {
        let waiting: Vec<_> = self
            .execution
            .live
            .iter()
            .filter_map(|(&command_id, live)| match live.state {
                LiveState::Suspended { .. } => Some((command_id, live.epoch, Arc::clone(&live.step), true)),
                LiveState::GivenUp | LiveState::Stopped => {
                    Some((command_id, live.epoch, Arc::clone(&live.step), false))
                }
                LiveState::Issued => None,
            })
            .collect();
        for (command_id, epoch, step, has_row) in waiting {
            if has_row {
                self.change(CommandChange::Delete { command_id, epoch, expect: CommandState::Suspended });
            }
            self.clear_due(DueKind::Timer, command_id.0);
            let reason = "the run is failing".to_owned();
            self.emit(env, Event::CommandCancelled { command_id, epoch, step, reason, worker_id: None });
        }
    }

    fn complete(&mut self, env: &mut Env<'_>) -> Result<(), Halt> {
        let result = self.published_result(env.playbook);
        let path = Arc::clone(&self.execution.init.path);
        let lost = std::mem::take(&mut self.execution.lost);
        self.emit(env, Event::PlaybookCompleted { path, result });
        self.end(env, Status::Completed, lost);
        Ok(())
    }

    /// Ends a run whose failure nothing handled.
    pub(super) fn fail(&mut self, env: &mut Env<'_>) {
        let unknown = || Failure { step: None, error: Arc::new(Value::Null) };
        let failed_before = self.execution.cleaning.as_ref().and_then(|cleaning| cleaning.failure.clone());
        let failure = failed_before.or_else(|| self.execution.failing.clone()).unwrap_or_else(unknown);
        self.end_failed(env, failure);
    }

    /// Ends a run with this failure.
    pub(super) fn end_failed(&mut self, env: &mut Env<'_>, failure: Failure) {
        let Failure { step, error } = failure;
        let path = Arc::clone(&self.execution.init.path);
        self.out.head.error = Some(Arc::clone(&error));
        let lost = std::mem::take(&mut self.execution.lost);
        self.emit(env, Event::PlaybookFailed { path, error, step });
        self.end(env, Status::Failed, lost);
    }

    /// What a parent gets: data of the step it asked for, else of the final step, else of the last finished one.
    fn published_result(&self, playbook: &Playbook) -> Bound {
        let of = |name: &str| self.execution.steps.get(name).and_then(|state| state.result.clone());
        let asked = self.execution.init.parent.as_ref().and_then(|parent| parent.return_step.as_deref());
        asked
            .and_then(of)
            .or_else(|| playbook.executor.final_step.and_then(|ix| of(&playbook.step(ix).name)))
            .or_else(|| self.execution.last_finished.as_deref().and_then(of))
            .unwrap_or_else(Bound::null)
    }

    fn end(&mut self, env: &mut Env<'_>, status: Status, lost: BTreeSet<(CommandId, u32)>) {
        self.out.head.status = Some(status);
        self.out.head.failed_steps.clone_from(&self.execution.failed_steps);
        self.out.head.quiesced = true;
        if env.playbook.executor.timeout_ms.is_some() || self.execution.init.cleanup.is_some() {
            self.clear_due(DueKind::Timeout, 0);
        }
        if !lost.is_empty() {
            // They may still run somewhere, and nothing more can be learnt of them: the certificate says so.
            let mut commands = Vec::new();
            for (command_id, epoch) in lost {
                self.change(CommandChange::Delete { command_id, epoch, expect: CommandState::Lost });
                let end = AttemptEnd::Unreachable;
                commands.push(Ended { command_id, epoch, step: "".into(), end, pids: Vec::new() });
            }
            self.emit(env, Event::ExecutionQuiesced { commands });
        }
        self.tell_parent(env);
    }

    /// Tells a parent that waits, in the terminal append and without locking the parent.
    pub(super) fn tell_parent(&mut self, env: &Env<'_>) {
        if let Some(parent) = &self.execution.init.parent
            && let Some(command_id) = parent.command_id
        {
            self.out.due.push(DueChange::Set(Due {
                execution_id: parent.execution_id,
                kind: DueKind::ChildDone,
                key: self.execution.execution_id.0,
                at: env.now,
                command: Some(command_id),
            }));
        }
    }
}
