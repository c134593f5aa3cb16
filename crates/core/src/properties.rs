//! What must hold of every log, whoever wrote it: the promises of the engine, checked from the outside.
//!
//! One list, run over everything: the exhaustive explorer, the simulated world, every store, and the log of a real run
//! (`noetl verify`). A check reads logs and heads only; it trusts nothing that the engine keeps in memory. C-numbers
//! are those of the cancellation contract (docs/reference/cancellation.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::event::{Event, Recorded, row};
use crate::execution::state::{Execution, LiveState};
use crate::head::{CommandRow, Head, Status};
use crate::id::{CommandId, ExecutionId};

/// One execution as the store holds it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its head.
    pub head: Head,
    /// Its whole log.
    pub events: Vec<Recorded>,
    /// Its live commands.
    pub commands: Vec<CommandRow>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub property: Property,
    /// Where.
    pub execution_id: ExecutionId,
    /// What was found.
    pub found: String,
}

/// The promises that a log can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Versions run from 1 without holes, and the log folds.
    WholeLog,
    /// The head says what the log says.
    HeadIsFold,
    /// C1: nothing starts after the decision.
    NoStartAfterDecision,
    /// C2: one terminal event, and everything derives from it.
    OneTerminalEvent,
    /// C3: a completed cascade leaves no active descendant.
    NoEscapee,
    /// C4: late is harmless.
    LateIsHarmless,
    /// C6: the certificate names everything that was in flight, and comes when nothing is left.
    TrueCertificate,
    /// C8: who, why and through which ancestor stands in every cancelled member.
    Provenance,
    /// C10: one request records a cancellation.
    Repeatable,
    /// An attempt is claimed at most once, after it was issued, and epochs rise.
    ExclusiveEpochs,
    /// A command has at most one outcome that counts.
    OneOutcome,
    /// A parent's edge leads to its parent, one level up, in the same family.
    SoundFamily,
    /// A finished loop has ended every iteration once, but for those it says were left out.
    WholeLoops,
    /// What an arc or an early completion has withdrawn is never claimed afterwards, and no outcome of it counts.
    NothingFollowsWithdrawal,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken in {}: {}", self.property, self.execution_id, self.found)
    }
}

/// Checks one execution by itself.
pub fn check(member: &Member) -> Vec<Violation> {
    let mut found = Found { execution_id: member.head.execution_id, violations: Vec::new() };
    whole_log(member, &mut found);
    after_the_end(member, &mut found);
    certificate(member, &mut found);
    commands(member, &mut found);
    loops(member, &mut found);
    withdrawn(member, &mut found);
    found.violations
}

/// Checks a family: each member, and the edges between them.
///
/// `cascades`: executions whose cancellation with cascade has been answered as complete.
pub fn check_family(members: &[Member], cascades: &BTreeSet<ExecutionId>) -> Vec<Violation> {
    let mut violations: Vec<_> = members.iter().flat_map(check).collect();
    let by_id: BTreeMap<_, _> = members.iter().map(|member| (member.head.execution_id, member)).collect();
    for member in members {
        let mut found = Found { execution_id: member.head.execution_id, violations: Vec::new() };
        if let Some(parent) = member.head.parent_execution_id.and_then(|id| by_id.get(&id)) {
            let (head, above) = (&member.head, &parent.head);
            if head.depth != above.depth + 1 || head.root_execution_id != above.root_execution_id {
                found.add(
                    Property::SoundFamily,
                    format!("its parent {} is of another family or level", above.execution_id),
                );
            }
            // The child's birth locks the parent and requires it active: it can not come after the parent's end.
            if above.ended_at.is_some_and(|end| head.started_at > end) {
                found.add(
                    Property::NoStartAfterDecision,
                    format!("born after its parent {} had ended", above.execution_id),
                );
            }
        }
        let mut above = member.head.parent_execution_id;
        // What is shielded, and all that is below it, is no cascade's that named an execution above it.
        let mut shielded = member.head.shield.is_some();
        while let Some(id) = above.filter(|_| !shielded) {
            if cascades.contains(&id) && member.head.is_active() {
                found.add(Property::NoEscapee, format!("active below the cancelled {id}"));
            }
            let ancestor = by_id.get(&id);
            shielded = ancestor.is_some_and(|ancestor| ancestor.head.shield.is_some());
            above = ancestor.and_then(|ancestor| ancestor.head.parent_execution_id);
        }
        violations.append(&mut found.violations);
    }
    violations
}

struct Found {
    execution_id: ExecutionId,
    violations: Vec<Violation>,
}

impl Found {
    fn add(&mut self, property: Property, found: impl Into<String>) {
        self.violations.push(Violation { property, execution_id: self.execution_id, found: found.into() });
    }

    fn unless(&mut self, holds: bool, property: Property, found: impl FnOnce() -> String) {
        if !holds {
            self.add(property, found());
        }
    }
}

fn whole_log(member: &Member, found: &mut Found) {
    let head = &member.head;
    let fold = match Execution::fold(None, &member.events) {
        Ok(fold) => fold,
        Err(error) => return found.add(Property::WholeLog, error.to_string()),
    };
    found.unless(fold.version == head.version, Property::HeadIsFold, || {
        format!("the log ends at version {}, the head at {}", fold.version, head.version)
    });
    found.unless(fold.status == head.status, Property::HeadIsFold, || {
        format!("the log says {}, the head {}", fold.status.as_str(), head.status.as_str())
    });
    found.unless(head.is_active() || head.ended_at.is_some(), Property::HeadIsFold, || "ended at no time".into());
    let held = member.commands.iter().filter(|row| row.state.in_flight()).count();
    found.unless(head.in_flight as usize == held, Property::HeadIsFold, || {
        format!("{held} attempts are held, the head counts {}", head.in_flight)
    });
    found.unless(fold.init.shield == head.shield, Property::HeadIsFold, || {
        format!("its birth says {:?} of a shield, the head {:?}", fold.init.shield, head.shield)
    });
    let issued = member.events.iter().filter(|recorded| matches!(recorded.event, Event::CommandIssued(_))).count();
    found.unless(head.commands_issued as usize == issued, Property::HeadIsFold, || {
        format!("{issued} commands were issued, the head counts {}", head.commands_issued)
    });
    let entered = member.events.iter().filter(|recorded| matches!(recorded.event, Event::StepEnter { .. })).count();
    found.unless(head.steps_entered as usize == entered, Property::HeadIsFold, || {
        format!("{entered} steps were entered, the head counts {}", head.steps_entered)
    });
    found.unless(fold.failed_steps == head.failed_steps || !head.is_active(), Property::HeadIsFold, || {
        format!("failed steps are {:?}, the head says {:?}", fold.failed_steps, head.failed_steps)
    });
    let live: BTreeSet<_> = fold.live.iter().map(|(&id, live)| (id, live.epoch)).collect();
    let rows: BTreeSet<_> = member
        .commands
        .iter()
        .filter(|row| row.state != crate::head::CommandState::Lost)
        .map(|row| (row.command_id, row.epoch))
        .collect();
    if head.is_active() {
        let given_up = |id: &CommandId| {
            fold.live.get(id).is_some_and(|live| match live.state {
                LiveState::GivenUp | LiveState::Stopped => true,
                LiveState::Issued | LiveState::Suspended { .. } => false,
            })
        };
        let missing: Vec<_> = live.difference(&rows).filter(|(id, _)| !given_up(id)).collect();
        let extra: Vec<_> = rows.difference(&live).collect();
        found.unless(missing.is_empty() && extra.is_empty(), Property::HeadIsFold, || {
            format!("live commands without a row: {missing:?}; rows without a live command: {extra:?}")
        });
    }
}

fn after_the_end(member: &Member, found: &mut Found) {
    let mut ends = member.events.iter().filter(|recorded| recorded.event.is_terminal());
    let Some(end) = ends.next() else {
        found.unless(member.head.is_active(), Property::OneTerminalEvent, || {
            format!("{} without a terminal event", member.head.status.as_str())
        });
        return;
    };
    if let Some(second) = ends.next() {
        let twice = matches!((&end.event, &second.event), (Event::ExecutionCancelled(_), Event::ExecutionCancelled(_)));
        let property = if twice { Property::Repeatable } else { Property::OneTerminalEvent };
        found.add(
            property,
            format!("a second terminal event {} at version {}", row::wire_name(&second.event), second.version),
        );
    }
    if let Event::ExecutionCancelled(cancelled) = &end.event {
        found.unless(
            !cancelled.cancelled_by.is_empty() && cancelled.root_execution_id == member.head.root_execution_id,
            Property::Provenance,
            || "execution.cancelled does not say who, or through which root".into(),
        );
        let kept = member.head.cancel.as_ref();
        found.unless(
            kept.is_some_and(|kept| kept.cancelled_by == cancelled.cancelled_by && kept.reason == cancelled.reason),
            Property::Provenance,
            || "the head does not keep who and why".into(),
        );
    }
    for recorded in member.events.iter().filter(|recorded| recorded.version > end.version) {
        let name = row::wire_name(&recorded.event);
        match &recorded.event {
            Event::StepEnter { .. } | Event::CommandIssued(_) | Event::CommandClaimed { .. } => {
                found.add(Property::NoStartAfterDecision, format!("{name} at version {}", recorded.version));
            }
            Event::CommandCancelled { .. }
            | Event::CommandLost { .. }
            | Event::ExecutionCancelEscalated(_)
            | Event::ExecutionQuiesced { .. }
            | Event::CommandStarted { late: true, .. } => {}
            Event::CommandDone(done) if done.late => {}
            Event::PlaybookInitialized(_)
            | Event::StepSkipped { .. }
            | Event::CommandStarted { .. }
            | Event::CallDone(_)
            | Event::CommandDone(_)
            | Event::CommandSuspended(_)
            | Event::CommandResumed { .. }
            | Event::CommandReleased { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopStarted { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::StepCancelled(_)
            | Event::StepExit(_) => {
                found.add(Property::LateIsHarmless, format!("{name} at version {}", recorded.version));
            }
            Event::PlaybookCompleted { .. } | Event::PlaybookFailed { .. } | Event::ExecutionCancelled(_) => {}
        }
    }
}

fn certificate(member: &Member, found: &mut Found) {
    let head = &member.head;
    let proofs: Vec<_> = member
        .events
        .iter()
        .filter_map(|recorded| {
            let Event::ExecutionQuiesced { commands } = &recorded.event else { return None };
            Some((recorded.version, commands))
        })
        .collect();
    found.unless(proofs.len() <= 1, Property::TrueCertificate, || format!("{} proofs", proofs.len()));
    found.unless(head.quiesced_at.is_none() || head.in_flight == 0, Property::TrueCertificate, || {
        format!("quiesced with {} attempts in flight", head.in_flight)
    });
    found.unless(head.quiesced_at.is_none() || !head.is_active(), Property::TrueCertificate, || {
        "quiesced while active".into()
    });
    if head.status != Status::Cancelled {
        return;
    }
    found.unless(head.quiesced_at.is_some() != proofs.is_empty(), Property::TrueCertificate, || {
        "the head and the log disagree on whether it has quiesced".into()
    });
    found.unless(head.in_flight > 0 || head.quiesced_at.is_some(), Property::TrueCertificate, || {
        "nothing is in flight, and no proof says so".into()
    });
    if let Some((version, commands)) = proofs.first() {
        found.unless(*version == head.version, Property::TrueCertificate, || {
            format!("the proof stands at version {version}, the log goes on to {}", head.version)
        });
        let named: BTreeSet<_> = commands.iter().map(|ended| ended.command_id).collect();
        for recorded in &member.events {
            if let Event::ExecutionCancelled(cancelled) = &recorded.event {
                for held in cancelled.in_flight.iter().filter(|held| !named.contains(held)) {
                    found.add(Property::TrueCertificate, format!("command {held} was in flight and is not named"));
                }
            }
        }
    }
}

fn commands(member: &Member, found: &mut Found) {
    let mut epochs: BTreeMap<CommandId, u32> = BTreeMap::new();
    let mut claimed: BTreeSet<(CommandId, u32)> = BTreeSet::new();
    let mut outcomes: BTreeMap<CommandId, u32> = BTreeMap::new();
    for recorded in &member.events {
        if let Some((command_id, epoch)) = opened_epoch(&recorded.event) {
            let known = epochs.insert(command_id, epoch);
            found.unless(known.is_none_or(|known| known < epoch), Property::ExclusiveEpochs, || {
                format!("epoch {epoch} of command {command_id} is opened after {known:?}")
            });
        }
        if let Event::CommandClaimed { command_id, epoch, .. } = &recorded.event {
            found.unless(claimed.insert((*command_id, *epoch)), Property::ExclusiveEpochs, || {
                format!("command {command_id} is claimed twice under epoch {epoch}")
            });
            let known = epochs.get(command_id).copied().unwrap_or(0);
            found.unless(known == *epoch, Property::ExclusiveEpochs, || {
                format!("command {command_id} is claimed under epoch {epoch}, which is not open (it is {known})")
            });
        }
        if let Event::CommandDone(done) = &recorded.event
            && !done.late
        {
            *outcomes.entry(done.command_id).or_default() += 1;
        }
    }
    for (command_id, count) in outcomes.into_iter().filter(|(_, count)| *count > 1) {
        found.add(Property::OneOutcome, format!("command {command_id} has {count} outcomes"));
    }
}

/// Returns the attempt that a fact opens.
fn opened_epoch(event: &Event) -> Option<(CommandId, u32)> {
    if let Event::CommandIssued(issued) = event {
        return Some((issued.command_id, 1));
    }
    if let Event::CommandSuspended(pause) = event {
        return Some((pause.command_id, pause.epoch + 1));
    }
    if let Event::CommandResumed { command_id, epoch, .. } = event {
        return Some((*command_id, *epoch));
    }
    if let Event::CommandLost { command_id, epoch, again: true, .. }
    | Event::CommandReleased { command_id, epoch, .. } = event
    {
        return Some((*command_id, epoch + 1));
    }
    None
}

fn loops(member: &Member, found: &mut Found) {
    let mut ended: BTreeMap<(String, u32), BTreeSet<u32>> = BTreeMap::new();
    for recorded in &member.events {
        if let Event::CallDone(call) = &recorded.event
            && let Some(index) = call.iteration
        {
            let first = ended.entry((call.step.to_string(), call.visit)).or_default().insert(index);
            found.unless(first, Property::WholeLoops, || format!("iteration {index} of `{}` ended twice", call.step));
        }
        if let Event::LoopDone { step, visit, total, left_out, result, .. } = &recorded.event {
            let count = ended.get(&(step.to_string(), *visit)).map_or(0, BTreeSet::len);
            found.unless(count + *left_out as usize == *total as usize, Property::WholeLoops, || {
                format!("`{step}` is done after {count} of {total} iterations, with {left_out} left out")
            });
            if let crate::result::Bound::Inline(data) = result {
                let kept = data.get("results").and_then(Value::as_array).map_or(0, Vec::len);
                let omitted = data.get("results_omitted").and_then(Value::as_u64).unwrap_or(0);
                let results = kept as u64 + omitted;
                found.unless(results == u64::from(*total), Property::WholeLoops, || {
                    format!("`{step}` has {results} results of {total} iterations")
                });
            }
        }
    }
}

fn withdrawn(member: &Member, found: &mut Found) {
    let mut withdrawn: BTreeSet<CommandId> = BTreeSet::new();
    for recorded in &member.events {
        if let Event::LoopCompleting(completing) = &recorded.event {
            withdrawn.extend(&completing.commands);
        }
        if let Event::StepCancelled(cancelled) = &recorded.event {
            withdrawn.extend(&cancelled.commands);
        }
        let follows = match &recorded.event {
            Event::CommandClaimed { command_id, .. } | Event::CommandResumed { command_id, .. } => Some(*command_id),
            Event::CallDone(call) => call.command_id,
            Event::CommandDone(done) if !done.late => Some(done.command_id),
            Event::CommandSuspended(suspended) => Some(suspended.command_id),
            Event::CommandLost { command_id, again: true, .. } => Some(*command_id),
            Event::PlaybookInitialized(_)
            | Event::StepEnter { .. }
            | Event::StepSkipped { .. }
            | Event::CommandIssued(_)
            | Event::CommandStarted { .. }
            | Event::CommandDone(_)
            | Event::CommandLost { .. }
            | Event::CommandReleased { .. }
            | Event::CommandCancelled { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopStarted { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::StepCancelled(_)
            | Event::StepExit(_)
            | Event::PlaybookCompleted { .. }
            | Event::PlaybookFailed { .. }
            | Event::ExecutionCancelled(_)
            | Event::ExecutionCancelEscalated(_)
            | Event::ExecutionQuiesced { .. } => None,
        };
        if let Some(command_id) = follows.filter(|command_id| withdrawn.contains(command_id)) {
            let name = row::wire_name(&recorded.event);
            found.add(
                Property::NothingFollowsWithdrawal,
                format!("{name} at version {} of command {command_id}, which was withdrawn", recorded.version),
            );
        }
    }
}
