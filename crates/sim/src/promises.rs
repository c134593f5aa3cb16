//! Promises that logs alone do not show: they need to know what people asked for, and how calm the world was.

use std::sync::PoisonError;

use noetl_core::event::{AttemptEnd, Event};
use noetl_core::head::CancelInfo;
use noetl_core::playbook::CancelMode;
use noetl_core::properties::Member;
use noetl_core::time::Timestamp;
use noetl_engine::transport::POLLS_PER_LEASE;

use crate::flaky::Told;
use crate::people::{BY, Memory};
use crate::scenario::Scenario;
use crate::world::{AWAY_MS_MAX, LEASE_MS};

/// How long the order to stop may take to a worker that is connected, in milliseconds.
const ORDER_MS_MAX: u64 = 250;
/// How long what a worker was given, or its cancel, may stand at a server that the worker does not ask, in milliseconds.
/// A worker of these worlds speaks to another server with every request, so it may ask two others before. (A worker of
/// the real one stays with a server for as long as that answers.)
const ELSEWHERE_MS: u64 = 2 * LEASE_MS / POLLS_PER_LEASE;
/// What may pass until the proof besides that, in milliseconds.
const SETTLE_MS_MAX: u64 = 1_000;
/// How much longer than its grace a stopped command may take, in milliseconds.
const STOP_MS_MAX: u64 = 250;

/// How often an attempt may be said by one server within a while: by poll and by report, and repeated on the way.
const SAID_MAX: u128 = 3;
/// The while, in milliseconds.
const REPEAT_MS_MIN: u64 = 250;

/// C5: in a world where nothing is lost and nobody dies, an interrupt has come to its proof by the end of the grace,
/// give or take what the order and the stop may take.
pub(crate) fn bounded_stop(scenario: &Scenario, members: &[Member]) -> Vec<String> {
    if !scenario.is_calm() {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for member in members {
        let head = &member.head;
        let Some(cancel) = head.cancel.as_ref().filter(|cancel| cancel.mode == CancelMode::Interrupt) else { continue };
        // What was held and never started had no process to stop: when its worker says so is C7's affair.
        if cancel.ended.iter().all(|ended| ended.end == AttemptEnd::NeverStarted) {
            continue;
        }
        let since = begun_after(member, cancel).unwrap_or(cancel.since);
        let took = head.quiesced_at.map(|proof| proof.since_ms(since));
        if took.is_none_or(|took| took > cancel.grace_ms + ORDER_MS_MAX + STOP_MS_MAX) {
            let (id, grace) = (head.execution_id, cancel.grace_ms);
            broken.push(format!("C5: {id} has come to rest {took:?} ms after the order, with a grace of {grace} ms"));
        }
    }
    broken
}

/// Returns when the last tool began that did so after the cancel: it was claimed before, and what its worker was given
/// stood, like the order, at a server where its poll did not hang. There is something to stop from then on.
fn begun_after(member: &Member, cancel: &CancelInfo) -> Option<Timestamp> {
    let begun = member.events.iter().filter(|recorded| matches!(recorded.event, Event::CommandStarted { .. }));
    begun.map(|recorded| recorded.at).filter(|at| *at > cancel.since).max()
}

/// C7, in time: with at most one crash and nothing else amiss, an interrupt has come to its proof by the end of the
/// grace, and what workers held and had not started is skipped with the next poll; a crash costs a lease more, and as long as the
/// crashed one was away.
pub(crate) fn never_stuck(scenario: &Scenario, members: &[Member]) -> Vec<String> {
    if !scenario.has_one_crash_at_most() {
        return Vec::new();
    }
    let crash_ms = if scenario.crashes == 0 { 0 } else { LEASE_MS + AWAY_MS_MAX };
    let mut broken = Vec::new();
    for member in members {
        let head = &member.head;
        let Some(cancel) = &head.cancel else { continue };
        let elsewhere_ms = if begun_after(member, cancel).is_some() { ELSEWHERE_MS } else { 0 };
        let skipped = cancel.ended.iter().all(|ended| ended.end == AttemptEnd::NeverStarted);
        let bound = match (cancel.mode, skipped) {
            (_, true) => crash_ms + ELSEWHERE_MS + SETTLE_MS_MAX,
            (CancelMode::Interrupt, false) => cancel.grace_ms + elsewhere_ms + crash_ms + SETTLE_MS_MAX,
            // As long as its tools take.
            (CancelMode::Finish, false) => continue,
        };
        let took = head.quiesced_at.map(|proof| proof.since_ms(cancel.since));
        if took.is_none_or(|took| took > bound) {
            let (id, ended) = (head.execution_id, &cancel.ended);
            broken
                .push(format!("C7: {id} has come to rest {took:?} ms after its cancel, not in {bound} ms: {ended:?}"));
        }
    }
    broken
}

/// C9: whatever people have cancelled is what somebody asked for, or below it if that was asked for too.
pub(crate) fn only_what_was_asked_for(memory: &Memory, members: &[Member]) -> Vec<String> {
    let mut broken = Vec::new();
    for head in members.iter().map(|member| &member.head) {
        let Some(cancel) = head.cancel.as_ref().filter(|cancel| cancel.cancelled_by == BY) else { continue };
        let (id, named) = (head.execution_id, cancel.requested_execution_id);
        let asked = memory.asked.iter().any(|asked| asked.0 == named && (asked.1 || named == id));
        if !asked {
            broken.push(format!("C9: {id} is cancelled through {named}, and nobody asked for that"));
        }
    }
    broken
}

/// Nobody keeps anybody busy: a worker is told of an attempt again only when a while has passed, by each server.
pub(crate) fn said_sparingly(scenario: &Scenario, told: &Told) -> Vec<String> {
    let mut broken = Vec::new();
    // One that comes back after a crash knows nothing of what it has said.
    let servers = u128::from(scenario.servers + scenario.crashes);
    for ((command_id, epoch), (count, first, last)) in &*told.lock().unwrap_or_else(PoisonError::into_inner) {
        let whiles = (*last - *first).as_millis() / u128::from(REPEAT_MS_MIN) + 1;
        if u128::from(*count) > servers * whiles * SAID_MAX {
            let took = *last - *first;
            broken.push(format!("command {command_id} epoch {epoch} was given {count} times within {took:?}"));
        }
    }
    broken
}
