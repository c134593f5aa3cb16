//! Withdrawing: what has begun and whose outcome nobody waits for any more, while the execution goes on.
//!
//! An arc cancels a region, or a loop is completed early. The decision is one append: from then on nothing of it can
//! be claimed, nothing that it reports counts, and nothing follows from it. What a worker holds is interrupted with its
//! grace; the order is an obligation in the tables, so it survives the server that gave it. The execution does not end
//! before the last of it has come to rest: its end says that nothing runs.

use std::sync::Arc;

use crate::append::{CommandChange, Due, DueChange, DueKind};
use crate::event::{CommandDone, Event, StepCancelled, Wait, error_value};
use crate::execution::Env;
use crate::execution::draft::Draft;
use crate::execution::state::{Live, LiveState};
use crate::head::CommandState;
use crate::id::{CommandId, ExecutionId};
use crate::playbook::StepIx;
use crate::tool::REMOTE_MAY_HAVE_ACTED;
use crate::work::{Report, Reported};

/// Why a withdrawn command was cancelled, as its `command.cancelled` says.
const WITHDRAWN: &str = "withdrawn: nobody waits for it any more";

impl Draft {
    /// Cancels what the steps of `region` have begun, because an arc of the step `by` fires. Arrivals that wait there
    /// are gone, visits end without an outcome, and nothing of them routes anywhere. `leaving` is the visit of `by`
    /// whose arc it is.
    pub(super) fn cancel_region(&mut self, by: &Arc<str>, leaving: Option<u32>, region: &[StepIx], env: &mut Env<'_>) {
        let playbook = env.playbook;
        for ix in region {
            let step = &playbook.step(*ix).name;
            let leaves = |visit: u32| step == by && leaving == Some(visit);
            let visits = self.execution.visits.iter().filter(|visit| visit.step == *step && !leaves(visit.visit));
            let visits: Vec<u32> = visits.map(|visit| visit.visit).collect();
            let arrivals = self.execution.tokens.iter().filter(|token| token.step == *step).count();
            if visits.is_empty() && arrivals == 0 {
                continue;
            }
            let commands = self.unsettled(step, &visits);
            let cancelled = StepCancelled {
                step: Arc::clone(step),
                by: Arc::clone(by),
                visits,
                arrivals: u32::try_from(arrivals).unwrap_or(u32::MAX),
                commands: commands.clone(),
            };
            self.emit(env, Event::StepCancelled(Box::new(cancelled)));
            self.withdraw(&commands, env);
        }
    }

    /// Returns the commands of these visits that somebody waits for.
    pub(super) fn unsettled(&self, step: &str, visits: &[u32]) -> Vec<CommandId> {
        let of = |live: &Live| !live.withdrawn && *live.step == *step && visits.contains(&live.visit);
        self.execution.live.iter().filter(|(_, live)| of(live)).map(|(id, _)| *id).collect()
    }

    /// Sees to commands that the fold calls withdrawn: what runs nowhere is over now, the rest is ordered to stop.
    pub(super) fn withdraw(&mut self, commands: &[CommandId], env: &mut Env<'_>) {
        for &command_id in commands {
            let Some(live) = self.execution.live.get(&command_id).cloned() else { continue };
            let limited =
                env.playbook.find(&live.step).is_some_and(|ix| env.playbook.step(ix).spec.timeout_ms.is_some());
            if limited {
                self.clear_due(DueKind::StepTimeout, command_id.0);
            }
            match live.state {
                // Pending or claimed, only the row knows: it is held fast now, and looked at next under the lock.
                LiveState::Issued => {
                    self.change(CommandChange::Withdraw { command_id, epoch: live.epoch });
                    let execution_id = self.execution.execution_id;
                    let (kind, key) = (DueKind::GraceEnd, command_id.0);
                    self.out.due.push(DueChange::Set(Due { execution_id, kind, key, at: env.now, command: None }));
                }
                LiveState::Suspended { ref wait, .. } => {
                    let (epoch, expect) = (live.epoch, CommandState::Suspended);
                    self.change(CommandChange::Delete { command_id, epoch, expect });
                    self.clear_due(DueKind::Timer, command_id.0);
                    match wait {
                        Wait::Until(_) => {}
                        Wait::Child { execution_id, .. } => {
                            self.clear_due(DueKind::ChildDone, execution_id.0);
                            self.cancel_child(*execution_id, env);
                        }
                    }
                    self.end_withdrawn(command_id, &live, None, env);
                }
                LiveState::GivenUp | LiveState::Stopped => {
                    self.clear_due(DueKind::Timer, command_id.0);
                    self.end_withdrawn(command_id, &live, None, env);
                }
            }
        }
    }

    /// A child that nobody waits for any more is cancelled with its descendants: by whoever finds the obligation.
    pub(super) fn cancel_child(&mut self, child: ExecutionId, env: &Env<'_>) {
        let due = Due { execution_id: child, kind: DueKind::CancelChild, key: 0, at: env.now, command: None };
        self.out.due.push(DueChange::Set(due));
    }

    /// Takes a withdrawn command out of the state; it has no row any more.
    pub(super) fn end_withdrawn(
        &mut self,
        command_id: CommandId,
        live: &Live,
        worker_id: Option<Arc<str>>,
        env: &mut Env<'_>,
    ) {
        self.end_withdrawn_as(command_id, live, worker_id, "", env);
    }

    /// The same, with what else is to be said of it.
    fn end_withdrawn_as(
        &mut self,
        command_id: CommandId,
        live: &Live,
        worker_id: Option<Arc<str>>,
        unknown: &str,
        env: &mut Env<'_>,
    ) {
        let (epoch, step, reason) = (live.epoch, Arc::clone(&live.step), format!("{WITHDRAWN}{unknown}"));
        self.emit(env, Event::CommandCancelled { command_id, epoch, step, reason, worker_id });
    }

    /// A worker says what became of a withdrawn command. A result is kept as evidence.
    ///
    /// | it reports | what is written |
    /// | --- | --- |
    /// | started | `command.started`; the command goes on until the order reaches it |
    /// | an end of its own | a late `command.completed` or `command.failed`: evidence, of no effect |
    /// | stopped, skipped, handed back, or that it would wait | `command.cancelled` |
    pub(super) fn report_withdrawn(
        &mut self,
        live: &Live,
        report: &Report,
        worker_id: &Arc<str>,
        env: &mut Env<'_>,
    ) -> bool {
        let (command_id, epoch) = (report.command_id, report.epoch);
        let mut started = |draft: &mut Draft, started_at| {
            let (step, worker_id) = (Arc::clone(&live.step), Arc::clone(worker_id));
            let event = Event::CommandStarted { command_id, epoch, step, worker_id, started_at, late: false };
            draft.emit(env, event);
        };
        match &report.outcome {
            Reported::Started { at } => {
                if live.started {
                    return false;
                }
                started(self, *at);
                self.change(CommandChange::Started { command_id, epoch });
                return true;
            }
            Reported::Done(done) => {
                if let Some(at) = done.started_at.filter(|_| !live.started) {
                    started(self, at);
                }
                let evidence = CommandDone {
                    command_id,
                    epoch,
                    step: Arc::clone(&live.step),
                    visit: live.visit,
                    iteration: live.iteration,
                    error: done.error.as_ref().map(|error| Arc::new(error_value(error))),
                    ctx: Vec::new(),
                    started_at: done.started_at,
                    worker_id: Some(Arc::clone(worker_id)),
                    duration_ms: Some(done.duration_ms),
                    late: true,
                    // It counts for nothing: a cleanup has no use for it.
                    late_result: None,
                };
                self.emit(env, Event::CommandDone(Box::new(evidence)));
            }
            Reported::Cancelled { remote_may_have_acted: true, .. } => {
                self.end_withdrawn_as(command_id, live, Some(Arc::clone(worker_id)), REMOTE_MAY_HAVE_ACTED, env);
            }
            Reported::Suspended(_) | Reported::Cancelled { .. } | Reported::Released => {
                self.end_withdrawn(command_id, live, Some(Arc::clone(worker_id)), env);
            }
        }
        self.change(CommandChange::Delete { command_id, epoch, expect: CommandState::Claimed });
        self.clear_due(DueKind::GraceEnd, command_id.0);
        true
    }
}
