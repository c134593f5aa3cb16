//! What must hold of every log, whoever wrote it: the promises of the engine, checked from the outside.
//!
//! One list, run over everything: the exhaustive explorer, the simulated world, every store, and the log of a real run
//! (`noetl verify`). A check reads logs and heads only; it trusts nothing that the engine keeps in memory. C-numbers
//! are those of the cancellation contract (docs/reference/cancellation.md).

mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::event::end::AfterEnd;
use crate::event::{Event, Recorded, row};
use crate::execution::state::{Execution, LiveState};
use crate::head::{CommandRow, CommandState, Head, Status};
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
    /// The events that show it, by version, when single events do.
    pub versions: Vec<u64>,
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
    /// C3: a completed cascade leaves no active descendant, but for what is shielded and what is below that.
    NoEscapee,
    /// C4: late is harmless.
    LateIsHarmless,
    /// C6: the certificate names everything that was in flight, and comes when nothing is left.
    TrueCertificate,
    /// C7, as far as a log shows it: after the decision there are at most 4 events per live command, and 2.
    NeverStuck,
    /// C8: who, why and through which ancestor stands in every cancelled member.
    Provenance,
    /// C9: nothing is cancelled outside the selection.
    Bystanders,
    /// C10: one request records a cancellation.
    Repeatable,
    /// A snapshot and the events after it fold to what the whole log folds to.
    SnapshotIsReplay,
    /// An attempt is claimed at most once, after it was issued, and epochs rise.
    ExclusiveEpochs,
    /// A command has at most one outcome that counts.
    OneOutcome,
    /// What a worker reports is written under the epoch that this worker holds.
    FencedOutcome,
    /// A parent's edge leads to its parent, one level up, in the same family.
    SoundFamily,
    /// A finished loop has ended every iteration once, but for those it says were left out.
    WholeLoops,
    /// Nothing begins between `execution.paused` and `execution.resumed`.
    PausedIsStill,
    /// What an arc or an early completion has withdrawn is never claimed afterwards, and no outcome of it counts.
    NothingFollowsWithdrawal,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, title) = (self.property.code(), self.property.title());
        write!(f, "{code} {title}: broken in {}: {}", self.execution_id, self.found)
    }
}

/// Checks one execution by itself.
pub fn check(member: &Member) -> Vec<Violation> {
    let mut found = Found::about(member.head.execution_id);
    whole_log(member, &mut found);
    after_the_end(member, &mut found);
    certificate(member, &mut found);
    commands(member, &mut found);
    loops(member, &mut found);
    paused(member, &mut found);
    withdrawn(member, &mut found);
    found.violations
}

/// Checks that a snapshot and the events after it fold to what the whole log folds to.
pub fn check_snapshot(member: &Member, snapshot: Option<(u64, &Value)>) -> Vec<Violation> {
    let mut found = Found::about(member.head.execution_id);
    let Some((version, state)) = snapshot.filter(|(version, _)| *version <= member.head.version) else {
        return Vec::new();
    };
    let after = member.events.partition_point(|recorded| recorded.version <= version);
    let short = Execution::fold(Some((version, state)), &member.events[after..]);
    match (short, Execution::fold(None, &member.events)) {
        (Ok(mut short), Ok(whole)) => {
            // The head knows which of them are decisions; a log alone does not.
            short.decided = whole.decided;
            found.unless(short == whole, Property::SnapshotIsReplay, || {
                format!("the snapshot at version {version} and {} events after it", member.events.len() - after)
            });
        }
        (Err(error), _) => found.add(Property::SnapshotIsReplay, error.to_string()),
        // Said already: a log that can not be folded is not whole.
        (Ok(_), Err(_)) => {}
    }
    found.violations
}

/// Checks a family: each member, and the edges between them.
///
/// `cascades`: executions whose cancellation with cascade has been answered as complete.
pub fn check_family(members: &[Member], cascades: &BTreeSet<ExecutionId>) -> Vec<Violation> {
    let mut violations: Vec<_> = members.iter().flat_map(check).collect();
    let heads: BTreeMap<_, _> = members.iter().map(|member| (member.head.execution_id, &member.head)).collect();
    violations.extend(check_edges(&heads, cascades));
    violations
}

/// Checks the edges between the members of families, which needs their heads alone.
pub fn check_edges(heads: &BTreeMap<ExecutionId, &Head>, cascades: &BTreeSet<ExecutionId>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for head in heads.values() {
        let mut found = Found::about(head.execution_id);
        if let Some(above) = head.parent_execution_id.and_then(|id| heads.get(&id)) {
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
        let named = head.cancel.as_ref().map(|cancel| cancel.requested_execution_id);
        let mut through = named.is_none_or(|named| named == head.execution_id);
        let mut above = head.parent_execution_id;
        let mut whole = true;
        // What is shielded, and all that is below it, is no request's that named an execution above the shield.
        let mut shielded = head.shield.is_some();
        while let Some(id) = above.filter(|_| !shielded) {
            if cascades.contains(&id) && head.is_active() {
                found.add(Property::NoEscapee, format!("active below the cancelled {id}"));
            }
            through |= named == Some(id);
            let ancestor = heads.get(&id);
            whole &= ancestor.is_some();
            shielded = ancestor.is_some_and(|ancestor| ancestor.shield.is_some());
            above = ancestor.and_then(|ancestor| ancestor.parent_execution_id);
        }
        let asked = head.cancel.as_ref().is_none_or(|cancel| cancel.cascade || named == Some(head.execution_id));
        found.unless(asked, Property::Bystanders, || {
            "cancelled through an ancestor by a request that did not ask for descendants".into()
        });
        // An ancestor may have been pruned, or not been read: then nothing can be said.
        if let Some(named) = named.filter(|_| whole && !through) {
            let why = if shielded { "from which a shield keeps it" } else { "which is no ancestor of it" };
            found.add(Property::Provenance, format!("cancelled through {named}, {why}"));
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
    fn about(execution_id: ExecutionId) -> Self {
        Found { execution_id, violations: Vec::new() }
    }

    fn add(&mut self, property: Property, found: impl Into<String>) {
        self.add_at(property, Vec::new(), found);
    }

    fn add_at(&mut self, property: Property, versions: Vec<u64>, found: impl Into<String>) {
        let execution_id = self.execution_id;
        self.violations.push(Violation { property, execution_id, found: found.into(), versions });
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
    let cleans = fold.init.cleanup.as_ref().map(|of| of.execution_id);
    found.unless(cleans == head.cleanup_of, Property::HeadIsFold, || {
        format!("the log cleans up after {cleans:?}, the head after {:?}", head.cleanup_of)
    });
    found.unless(fold.init.concurrency_key == head.concurrency_key, Property::HeadIsFold, || {
        "the head has another concurrency key than the log".into()
    });
    found.unless(fold.init.labels == head.labels, Property::HeadIsFold, || {
        "the head has other labels than the log".into()
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
    // The end withdraws whatever runs nowhere; only what a worker may be running is still on the books.
    let left = member.commands.iter().filter(|row| !head.is_active() && !row.state.in_flight()).count();
    found.unless(left == 0, Property::HeadIsFold, || format!("it has ended, and {left} commands still wait"));
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
        found.add_at(
            property,
            vec![end.version, second.version],
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
        let broken = match recorded.event.after_the_end() {
            AfterEnd::Starts => Property::NoStartAfterDecision,
            AfterEnd::Changes => Property::LateIsHarmless,
            // A second end has been said.
            AfterEnd::EndsAgain | AfterEnd::Evidence => continue,
        };
        let versions = vec![end.version, recorded.version];
        found.add_at(broken, versions, format!("{} after the end", row::wire_name(&recorded.event)));
    }
    nothing_moves(member, end, found);
}

/// C4 and C7: what comes after the end changes nothing that was decided, and there is little of it.
fn nothing_moves(member: &Member, end: &Recorded, found: &mut Found) {
    let until = member.events.partition_point(|recorded| recorded.version <= end.version);
    let (Ok(before), Ok(after)) =
        (Execution::fold(None, &member.events[..until.saturating_sub(1)]), Execution::fold(None, &member.events))
    else {
        return;
    };
    let Ok(at_end) = Execution::fold(None, &member.events[..until]) else { return };
    let same = at_end.status == after.status && at_end.ctx == after.ctx && at_end.steps == after.steps;
    found.unless(same && at_end.error == after.error, Property::LateIsHarmless, || {
        "status, variables or results are not what they were at the end".into()
    });
    let (live, late) = (before.live.len() + before.lost.len(), member.events.len() - until);
    found.unless(late <= LATE_EVENTS_PER_COMMAND * live + LATE_EVENTS, Property::NeverStuck, || {
        format!("{late} events after the end, with {live} live commands")
    });
}

/// Events after the decision for each command that was alive, at most: started, completed, lost, cancelled.
const LATE_EVENTS_PER_COMMAND: usize = 4;
/// Further events after the decision, at most: an escalation and the proof.
const LATE_EVENTS: usize = 2;

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
    let mut claimed: BTreeMap<(CommandId, u32), &str> = BTreeMap::new();
    let mut outcomes: BTreeMap<CommandId, u32> = BTreeMap::new();
    for recorded in &member.events {
        if let Some((command_id, epoch)) = opened_epoch(&recorded.event) {
            let known = epochs.insert(command_id, epoch);
            found.unless(known.is_none_or(|known| known < epoch), Property::ExclusiveEpochs, || {
                format!("epoch {epoch} of command {command_id} is opened after {known:?}")
            });
        }
        if let Event::CommandClaimed { command_id, epoch, worker_id, .. } = &recorded.event {
            if let Some(first) = claimed.insert((*command_id, *epoch), worker_id) {
                let text = format!("command {command_id} is claimed by {first} and {worker_id} under epoch {epoch}");
                found.add_at(Property::ExclusiveEpochs, vec![recorded.version], text);
            }
            let known = epochs.get(command_id).copied().unwrap_or(0);
            found.unless(known == *epoch, Property::ExclusiveEpochs, || {
                format!("command {command_id} is claimed under epoch {epoch}, which is not open (it is {known})")
            });
        }
        if let Some((command_id, epoch, worker)) = told_by(&recorded.event)
            && claimed.get(&(command_id, epoch)) != Some(&worker)
        {
            let name = row::wire_name(&recorded.event);
            let text = format!("{name} of command {command_id} by {worker}, which does not hold epoch {epoch}");
            found.add_at(Property::FencedOutcome, vec![recorded.version], text);
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

fn paused(member: &Member, found: &mut Found) {
    let mut paused = false;
    for recorded in &member.events {
        let begins = match &recorded.event {
            Event::ExecutionPaused(_) => {
                found.unless(!paused, Property::PausedIsStill, || format!("paused twice at {}", recorded.version));
                paused = true;
                false
            }
            Event::ExecutionResumed(_) => {
                found.unless(paused, Property::PausedIsStill, || format!("resumed twice at {}", recorded.version));
                paused = false;
                false
            }
            Event::PlaybookCompleted { .. } | Event::PlaybookFailed { .. } | Event::ExecutionCancelled(_) => {
                paused = false;
                false
            }
            Event::StepEnter { .. }
            | Event::StepSkipped { .. }
            | Event::CommandIssued(_)
            | Event::CommandClaimed { .. }
            | Event::CommandResumed { .. }
            | Event::LoopStarted { .. } => true,
            Event::PlaybookInitialized(_)
            | Event::CommandStarted { .. }
            | Event::CallDone(_)
            | Event::CommandDone(_)
            | Event::CommandSuspended(_)
            | Event::CommandLost { .. }
            | Event::CommandReleased { .. }
            | Event::CommandCancelled { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::StepCancelled(_)
            | Event::StepExit(_)
            | Event::ExecutionCancelEscalated(_)
            | Event::CleanupPrepared(_)
            | Event::ExecutionQuiesced { .. } => false,
        };
        found.unless(!(paused && begins), Property::PausedIsStill, || {
            format!("{} at version {} while paused", row::wire_name(&recorded.event), recorded.version)
        });
    }
    found.unless(paused == member.head.pause.is_some(), Property::HeadIsFold, || {
        format!("the log says paused: {paused}, the head says otherwise")
    });
    let set_aside = |state| member.commands.iter().any(|row| row.state == state);
    found.unless(paused || !set_aside(CommandState::Paused), Property::PausedIsStill, || {
        "a command is set aside, and nothing is paused".into()
    });
    found.unless(!paused || !set_aside(CommandState::Pending), Property::PausedIsStill, || {
        "a command may be claimed while paused".into()
    });
}

/// Returns the attempt that a worker tells of, and which worker.
fn told_by(event: &Event) -> Option<(CommandId, u32, &str)> {
    if let Event::CommandDone(done) = event {
        return done.worker_id.as_deref().map(|worker| (done.command_id, done.epoch, worker));
    }
    if let Event::CommandStarted { command_id, epoch, worker_id, .. } = event {
        return Some((*command_id, *epoch, worker_id));
    }
    None
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
            | Event::CleanupPrepared(_)
            | Event::ExecutionPaused(_)
            | Event::ExecutionResumed(_)
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
