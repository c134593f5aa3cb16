//! Cancelling at every stage: pending, claimed, running, waiting, ended; late reports, lost workers, repeats.

use noetl_core::control::cancel::{Answer, Request};
use noetl_core::control::{lease, settle, stop};
use noetl_core::event::{AttemptEnd, Event, StopCause};
use noetl_core::execution::{Input, Refusal};
use noetl_core::head::{CommandRow, CommandState, Status, StopWish};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::ToolOutcome;
use noetl_core::work::Reported;
use serde_json::json;

use crate::desk::{Desk, Ran};

const TWO_STEPS: &str = "
    workflow:
      - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
      - {step: end, tool: {kind: python, code: x}}
";

fn desk(playbook: &str) -> (Desk, ExecutionId) {
    let mut desk = Desk::new(&[playbook], |_| ToolOutcome::ok(json!({"ok": true})));
    let id = desk.start(0, json!({}));
    (desk, id)
}

fn request(id: ExecutionId) -> Request {
    Request {
        requested_execution_id: id,
        job_id: None,
        reason: Some("Detected infinite loop".into()),
        cancelled_by: "api".into(),
        requested_by: None,
        remote: None,
        cascade: false,
        mode: None,
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    }
}

fn cancel(desk: &mut Desk, id: ExecutionId) -> Answer {
    desk.cancel(id, &request(id))
}

fn log(desk: &Desk, id: ExecutionId) -> Vec<&'static str> {
    desk.members[&id].events.iter().map(|recorded| noetl_core::event::row::wire_name(&recorded.event)).collect()
}

#[test]
fn a_pending_command_goes_with_the_decision_and_the_proof_comes_with_it() {
    let (mut desk, id) = desk(TWO_STEPS);
    let Answer::Cancelled { in_flight, quiesced, .. } = cancel(&mut desk, id) else { panic!("not cancelled") };
    assert!(in_flight.is_empty() && quiesced);
    assert_eq!(
        log(&desk, id),
        ["playbook.initialized", "command.issued", "execution.cancelled", "command.cancelled", "execution.quiesced"]
    );
    assert!(desk.members[&id].commands.is_empty());
    assert!(!desk.step());
    desk.check();
}

#[test]
fn a_claimed_command_is_in_flight_and_its_late_result_changes_nothing() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    let report = desk.work(&row);
    let Answer::Cancelled { in_flight, quiesced, .. } = cancel(&mut desk, id) else { panic!("not cancelled") };
    assert_eq!(in_flight.len(), 1);
    assert!(!quiesced);

    let input = Input::Report(Box::new(report.clone()), "desk".into());
    assert_eq!(desk.decide(id, &[input]), [Err(Refusal::Ended(Status::Cancelled))]);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    assert_eq!(
        log(&desk, id)[4..],
        ["execution.cancelled", "command.started", "command.completed", "execution.quiesced"]
    );
    let seat = &desk.members[&id];
    assert_eq!(seat.head.status, Status::Cancelled);
    assert!(seat.execution.steps.get("start").is_none_or(|state| state.result.is_none()));
    let Event::ExecutionQuiesced { commands } = &seat.events.last().unwrap().event else { panic!("no proof") };
    assert_eq!(commands[0].end, AttemptEnd::Finished);

    // A repeat of the same report is answered, and writes nothing.
    assert!(!desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    desk.check();
}

#[test]
fn a_command_held_but_not_started_is_skipped_and_says_so() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    cancel(&mut desk, id);
    let mut report = desk.work(&row);
    report.outcome = Reported::cancelled(false);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    assert_eq!(log(&desk, id)[4..], ["execution.cancelled", "command.cancelled", "execution.quiesced"]);
    let Event::ExecutionQuiesced { commands } = &desk.members[&id].events.last().unwrap().event else {
        panic!("no proof")
    };
    assert_eq!(commands[0].end, AttemptEnd::NeverStarted);
    desk.check();
}

#[test]
fn a_wait_ends_at_once() {
    let (mut desk, id) = desk(
        "
        workflow:
          - step: start
            tool:
              kind: python
              code: x
              spec: {policy: {rules: [{else: {then: {do: retry, attempts: 5, delay: 3600}}}]}}
        ",
    );
    desk.step();
    assert_eq!(desk.members[&id].commands[0].state, CommandState::Suspended);
    let Answer::Cancelled { quiesced: true, .. } = cancel(&mut desk, id) else { panic!("not quiesced") };
    // The timer is withdrawn with it: nothing is left to do, ever.
    assert!(!desk.step());
    desk.check();
}

#[test]
fn an_ended_execution_is_never_cancelled_and_a_repeat_rewrites_nothing() {
    let (mut desk, id) = desk(TWO_STEPS);
    desk.run();
    assert_eq!(cancel(&mut desk, id), Answer::AlreadyEnded);

    let (mut desk, id) = self::desk(TWO_STEPS);
    cancel(&mut desk, id);
    let before = desk.members[&id].head.clone();
    let again = Request { reason: Some("another".into()), ..request(id) };
    assert_eq!(desk.cancel(id, &again), Answer::AlreadyEnded);
    assert_eq!(desk.members[&id].head, before);
}

#[test]
fn the_same_idempotency_key_gets_the_first_answer_again() {
    let (mut desk, id) = desk(TWO_STEPS);
    let keyed = Request { idempotency_key: Some("k1".into()), ..request(id) };
    assert!(matches!(desk.cancel(id, &keyed), Answer::Cancelled { .. }));
    assert!(matches!(desk.cancel(id, &keyed), Answer::Repeated { .. }));
    let other = Request { idempotency_key: Some("k2".into()), ..request(id) };
    assert_eq!(desk.cancel(id, &other), Answer::AlreadyEnded);
}

#[test]
fn interrupt_on_a_finishing_execution_escalates_once() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    cancel(&mut desk, id);
    let harder = Request { mode: Some(CancelMode::Interrupt), grace_ms: Some(500), ..request(id) };
    assert!(matches!(desk.cancel(id, &harder), Answer::Escalated { .. }));
    assert_eq!(desk.cancel(id, &harder), Answer::AlreadyEnded);
    let head = &desk.members[&id].head;
    let info = head.cancel.as_ref().unwrap();
    assert_eq!((info.mode, info.grace_ms), (CancelMode::Interrupt, 500));
    assert_eq!(info.reason.as_deref(), Some("Detected infinite loop"));
    desk.check();
}

#[test]
fn a_lost_attempt_is_tried_again_and_its_late_report_is_evidence() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    let stale = desk.work(&row);
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    let again = desk.pending().expect("the next attempt");
    assert_eq!((again.command_id, again.epoch, again.losses), (row.command_id, 2, 1));

    // The silent worker comes back: its report changes nothing, and takes the lost attempt off the books.
    let input = Input::Report(Box::new(stale.clone()), "desk".into());
    assert_eq!(desk.decide(id, &[input]), [Err(Refusal::Stale)]);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &stale, "desk", now, ids)));
    assert_eq!(desk.members[&id].head.in_flight, 0);
    desk.run();
    let ran = Ran { desk, id };
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.entered(), ["start", "end"]);
}

#[test]
fn a_command_lost_too_often_fails_its_step() {
    let (mut desk, id) = desk(TWO_STEPS);
    for _ in 0..4 {
        let row = desk.pending().expect("an attempt");
        desk.claim(&row);
        assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    }
    desk.run();
    let ran = Ran { desk, id };
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["kind"], json!("worker_lost"));
    assert!(ran.seat().commands.is_empty());
}

#[test]
fn a_lost_attempt_counts_as_in_flight_and_is_certified_unreachable() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids));
    let Answer::Cancelled { in_flight, quiesced, .. } = cancel(&mut desk, id) else { panic!("not cancelled") };
    assert_eq!((in_flight.len(), quiesced), (1, true));
    let Event::ExecutionQuiesced { commands } = &desk.members[&id].events.last().unwrap().event else {
        panic!("no proof")
    };
    assert_eq!(commands[0].end, AttemptEnd::Unreachable);
    desk.check();
}

#[test]
fn a_worker_that_dies_after_the_cancel_leaves_nothing_stuck() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    cancel(&mut desk, id);
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    assert_eq!(log(&desk, id)[4..], ["execution.cancelled", "command.lost", "execution.quiesced"]);
    desk.check();
}

#[test]
fn a_released_command_is_pending_again_and_not_counted_as_lost() {
    let (mut desk, id) = desk(TWO_STEPS);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    let mut report = desk.work(&row);
    report.outcome = Reported::Released;
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    let again = desk.pending().expect("the next attempt");
    assert_eq!((again.epoch, again.losses), (2, 0));
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
}

#[test]
fn a_cancelled_child_is_an_error_of_kind_cancelled_for_the_waiting_step() {
    let mut desk = Desk::new(
        &[
            "
            workflow:
              - {step: start, tool: {kind: playbook, path: test/p1}, next: {arcs: [{step: end}]}}
              - {step: end, tool: {kind: noop}}
            ",
            TWO_STEPS,
        ],
        |_| ToolOutcome::ok(json!({})),
    );
    let parent = desk.start(0, json!({}));
    desk.step();
    let child = *desk.members.keys().find(|id| **id != parent).expect("a child");
    cancel(&mut desk, child);
    desk.run();
    let ran = Ran { desk, id: parent };
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.result("start")["error"]["kind"], json!("cancelled"));
}

/// Orders a stop of the command that a worker holds.
fn order_stop(desk: &mut Desk, id: ExecutionId, row: &CommandRow) {
    let wish = StopWish { cause: StopCause::Cancelled, reason: "enough".into(), by: "api".into() };
    let command_id = row.command_id;
    assert!(desk.control(id, |view, now, ids| match stop::decide(view, command_id, Some(&wish), now, ids) {
        stop::Answer::Ordered { append, .. } => Some(*append),
        stop::Answer::Withdrawn(_) | stop::Answer::Over(_) | stop::Answer::Ended => None,
    }));
}

#[test]
fn an_attempt_that_was_ordered_to_stop_has_no_successor_when_it_is_lost_or_given_back() {
    for lost in [true, false] {
        let (mut desk, id) = desk(TWO_STEPS);
        let row = desk.pending().expect("a command");
        desk.claim(&row);
        order_stop(&mut desk, id, &row);
        assert_eq!(desk.members[&id].head.in_flight, 1);
        assert!(desk.control(id, |view, now, ids| match lost {
            true => lease::lose(view, SessionId(7), now, ids),
            false => lease::release(view, row.command_id, row.epoch, now, ids),
        }));
        assert!(desk.pending().is_none(), "nothing of it may be claimed");
        desk.run();
        let ran = Ran { desk, id };
        // A soft error, as the order wants it: the run goes on from there.
        assert_eq!(ran.status(), Status::Completed);
        let error = ran.seat().events.iter().find_map(|recorded| match &recorded.event {
            Event::CallDone(call) => call.error.clone(),
            _ => None,
        });
        let error = error.expect("the step's error");
        let said = ran.seat().events.iter().filter_map(|recorded| match &recorded.event {
            Event::CommandStopping(stopping) => Some((&*stopping.reason, &*stopping.by, stopping.held)),
            _ => None,
        });
        // Whoever reads the later one alone knows who wanted it, and why.
        assert_eq!(said.collect::<Vec<_>>(), [("enough", "api", true), ("enough", "api", false)]);
        assert_eq!((&error["kind"], &error["message"]), (&json!("cancelled"), &json!("enough")));
    }
}
