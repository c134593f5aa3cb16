//! What meets what, and who wins: control decisions against what happens at the same time.
//!
//! Each is one row of the table in `docs/reference/cancellation.md`.

use noetl_core::concurrency::BY_CONCURRENCY;
use noetl_core::control::cancel::{Answer, BY_TIMEOUT};
use noetl_core::control::selection::Selection;
use noetl_core::control::{lease, settle, stop};
use noetl_core::event::{Event, StopCause};
use noetl_core::execution::{Input, Refusal};
use noetl_core::head::{CommandRow, CommandState, Head, HeadView, Status, StopWish};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::tool::ToolOutcome;
use noetl_core::work::Reported;
use serde_json::json;

use crate::desk::{Desk, Ran, interrupt};

const ONE_STEP: &str = "
    workflow:
      - {step: start, tool: {kind: python, code: x}}
";

const TWO_STEPS: &str = "
    workflow:
      - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
      - {step: end, tool: {kind: python, code: x}}
";

const PARENT: &str = "
    workflow:
      - {step: start, tool: {kind: playbook, path: test/p1}}
";

fn desk(playbooks: &[&str]) -> (Desk, ExecutionId) {
    let mut desk = Desk::new(playbooks, |_| ToolOutcome::ok(json!({"ok": true})));
    let id = desk.start(0, json!({}));
    (desk, id)
}

/// A desk with one step whose command a worker holds.
fn held() -> (Desk, ExecutionId, CommandRow) {
    let (mut desk, id) = desk(&[ONE_STEP]);
    let row = desk.pending().expect("a command");
    desk.claim(&row);
    (desk, id, row)
}

fn report(desk: &mut Desk, row: &CommandRow, outcome: Option<Reported>) -> Result<(), Refusal> {
    let mut report = desk.work(row);
    if let Some(outcome) = outcome {
        report.outcome = outcome;
    }
    desk.decide(row.execution_id, &[Input::Report(Box::new(report), "desk".into())]).remove(0)
}

fn names(desk: &Desk, id: ExecutionId) -> Vec<&'static str> {
    desk.members[&id].events.iter().map(|recorded| noetl_core::event::row::wire_name(&recorded.event)).collect()
}

/// Wants the command stopped; `true` when a worker is to be told, `false` when it ran nowhere, `None` when it is over.
fn want_stopped(desk: &mut Desk, row: &CommandRow) -> Option<bool> {
    let wish = StopWish { cause: StopCause::Cancelled, reason: "enough".into(), by: "ann".into() };
    let mut told = None;
    desk.control(row.execution_id, |view, now, ids| match stop::decide(view, row.command_id, Some(&wish), now, ids) {
        stop::Answer::Ordered { append, .. } => {
            told = Some(true);
            Some(*append)
        }
        stop::Answer::Withdrawn(append) => {
            told = Some(false);
            Some(*append)
        }
        stop::Answer::Over(append) => Some(*append),
        stop::Answer::Ended => None,
    });
    told
}

fn cancel(desk: &mut Desk, id: ExecutionId, by: &str) -> Answer {
    desk.cancel(id, &interrupt(id, by, false))
}

#[test]
fn a_stop_and_the_end_of_its_command_whoever_is_first_in_the_log() {
    // The report comes first: there is nothing to stop any more, and nothing is written.
    let (mut desk, id, row) = held();
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    let before = names(&desk, id);
    assert_eq!(want_stopped(&mut desk, &row), None);
    assert_eq!(names(&desk, id), before);

    // The order comes first, and the tool ends by itself all the same: what it has done counts.
    let (mut desk, id, row) = held();
    assert_eq!(want_stopped(&mut desk, &row), Some(true));
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    let ran = Ran { desk, id };
    assert_eq!((ran.status(), &ran.result("start")["ok"]), (Status::Completed, &json!(true)));
    ran.desk.check();

    // The order comes first, and stops it: an error of the step.
    let (mut desk, id, row) = held();
    assert_eq!(want_stopped(&mut desk, &row), Some(true));
    let stopped = Reported::cancelled(true);
    assert_eq!(report(&mut desk, &row, Some(stopped)), Ok(()));
    let ran = Ran { desk, id };
    assert_eq!(ran.result("start")["error"]["kind"], json!("cancelled"));
    assert_eq!(ran.seat().events.iter().filter(|seen| matches!(seen.event, Event::CommandStopping(_))).count(), 1);
    ran.desk.check();
}

#[test]
fn a_stop_and_a_claim_the_worker_is_told_or_the_claim_finds_nothing() {
    let (mut desk, id, row) = held();
    assert_eq!(want_stopped(&mut desk, &row), Some(true));
    assert!(desk.members[&id].commands.iter().all(|row| row.state == CommandState::Claimed && row.stopping.is_some()));

    let (mut desk, id) = self::desk(&[ONE_STEP]);
    let row = desk.pending().expect("a command");
    assert_eq!(want_stopped(&mut desk, &row), Some(false));
    assert!(desk.members[&id].commands.is_empty(), "nothing that could be claimed");
    desk.run();
    let ran = Ran { desk, id };
    assert_eq!(ran.result("start")["error"]["kind"], json!("cancelled"));
    assert!(!names(&ran.desk, id).contains(&"command.claimed"));
}

#[test]
fn a_time_limit_and_the_last_report_whoever_is_first_in_the_log() {
    let (mut desk, id, row) = held();
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    assert!(matches!(cancel(&mut desk, id, BY_TIMEOUT), Answer::AlreadyEnded));
    assert_eq!(desk.members[&id].head.status, Status::Completed);

    let (mut desk, id, row) = held();
    assert!(matches!(cancel(&mut desk, id, BY_TIMEOUT), Answer::Cancelled { quiesced: false, .. }));
    assert_eq!(desk.members[&id].head.status, Status::Failed, "people alert on FAILED");
    assert_eq!(report(&mut desk, &row, None), Err(Refusal::Ended(Status::Failed)));
    let late = desk.work(&row);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &late, "desk", now, ids)));
    assert_eq!(
        names(&desk, id)[3..],
        ["command.claimed", "playbook.failed", "command.started", "command.completed", "execution.quiesced"]
    );
    desk.check();
}

#[test]
fn a_displaced_execution_that_ends_first_stays_as_it_ended() {
    let (mut desk, id, row) = held();
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    let before = names(&desk, id);
    assert!(matches!(cancel(&mut desk, id, BY_CONCURRENCY), Answer::AlreadyEnded));
    assert_eq!((names(&desk, id), desk.members[&id].head.status), (before, Status::Completed));

    let (mut desk, id, row) = held();
    assert!(matches!(cancel(&mut desk, id, BY_CONCURRENCY), Answer::Cancelled { .. }));
    assert_eq!(report(&mut desk, &row, None), Err(Refusal::Ended(Status::Cancelled)));
    // Its worker dies with the report: the lease says so, and the end is the same.
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    assert_eq!(desk.members[&id].head.status, Status::Cancelled);
    desk.check();
}

/// Starts a family, and returns the parent and the child that it waits for.
fn family() -> (Desk, ExecutionId, ExecutionId) {
    let (mut desk, parent) = desk(&[PARENT, ONE_STEP]);
    desk.step();
    let child = *desk.members.keys().find(|id| **id != parent).expect("a child");
    (desk, parent, child)
}

#[test]
fn an_ended_parent_is_told_nothing_of_its_child() {
    let (mut desk, parent, child) = family();
    assert!(matches!(cancel(&mut desk, parent, "api"), Answer::Cancelled { .. }));
    let before = names(&desk, parent);
    desk.run();
    assert_eq!(desk.members[&child].head.status, Status::Completed, "without a cascade it goes on");
    assert_eq!(names(&desk, parent), before);
}

#[test]
fn the_end_of_a_child_that_nobody_waits_for_is_told_to_nobody() {
    let (mut desk, parent, child) = family();
    let waiting = desk.members[&parent].commands[0].clone();
    assert_eq!((waiting.state, want_stopped(&mut desk, &waiting)), (CommandState::Suspended, Some(false)));
    desk.run();
    assert_eq!(desk.members[&child].head.status, Status::Completed, "nobody has cancelled it here");
    let ran = Ran { desk, id: parent };
    assert_eq!(ran.result("start")["error"]["kind"], json!("cancelled"), "its end comes too late to count");
}

/// The table of `Selection::holds`.
#[test]
fn what_has_moved_on_when_its_turn_comes_is_spared() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    let view = |desk: &Desk| {
        let seat = &desk.members[&id];
        HeadView { head: seat.head.clone(), commands: seat.commands.clone() }
    };
    let found = view(&desk);
    let Head { updated_at, .. } = found.head;
    let idle = Selection { idle_since: Some(updated_at.plus_ms(1)), ..Selection::default() };
    let stuck = Selection { stuck: true, ..Selection::default() };
    let any = Selection::default();
    assert!([&idle, &stuck, &any].iter().all(|selection| selection.holds(&found)));

    let row = desk.pending().expect("a command");
    desk.now = desk.now.plus_ms(10);
    desk.claim(&row);
    let held = view(&desk);
    assert!(!stuck.holds(&held), "a worker holds a command of it");
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    let moved = view(&desk);
    assert!(!idle.holds(&moved), "it has had an event");
    assert!(stuck.holds(&moved), "it only waits for a worker again");
    assert!(any.holds(&held) && any.holds(&moved), "anything else is no reason to spare it");

    let row = desk.pending().expect("a command");
    desk.claim(&row);
    assert_eq!(report(&mut desk, &row, None), Ok(()));
    let ended = view(&desk);
    assert!([&idle, &stuck, &any].iter().all(|selection| !selection.holds(&ended)));
}
