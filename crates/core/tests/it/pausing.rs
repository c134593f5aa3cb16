//! Pausing at every stage, and what meets a pause: claims, reports, timers, children, lost workers, cancels.

use noetl_core::control::pause::{self, Answer, Request};
use noetl_core::control::{cancel, lease};
use noetl_core::execution::{Input, Refusal};
use noetl_core::head::{CommandState, Status};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::{ErrorKind, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::Desk;

const TWO_STEPS: &str = "
    workflow:
      - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
      - {step: end, tool: {kind: python, code: x}}
";

fn desk(playbooks: &[&str]) -> (Desk, ExecutionId) {
    let mut desk = Desk::new(playbooks, |_| ToolOutcome::ok(json!({"ok": true})));
    let id = desk.start(0, json!({}));
    (desk, id)
}

fn request(id: ExecutionId) -> Request {
    Request {
        requested_execution_id: id,
        reason: Some("the target is down".into()),
        by: "cli".into(),
        requested_by: Some("ann@host".into()),
        cascade: false,
    }
}

type Decide =
    fn(&noetl_core::head::HeadView, &Request, noetl_core::time::Timestamp, &mut noetl_core::id::IdSource) -> Answer;

fn ask(desk: &mut Desk, id: ExecutionId, decide: Decide) -> Answer {
    let mut kept = None;
    desk.control(id, |view, now, ids| {
        let answer = decide(view, &request(id), now, ids);
        let append = match &answer {
            Answer::Changed { append, .. } => Some((**append).clone()),
            Answer::Already { .. } | Answer::Ended => None,
        };
        kept = Some(answer);
        append
    });
    kept.unwrap()
}

fn pause(desk: &mut Desk, id: ExecutionId) -> Answer {
    ask(desk, id, pause::pause)
}

fn resume(desk: &mut Desk, id: ExecutionId) -> Answer {
    ask(desk, id, pause::resume)
}

fn log(desk: &Desk, id: ExecutionId) -> Vec<&'static str> {
    desk.members[&id].events.iter().map(|recorded| noetl_core::event::row::wire_name(&recorded.event)).collect()
}

fn states(desk: &Desk, id: ExecutionId) -> Vec<CommandState> {
    desk.members[&id].commands.iter().map(|row| row.state).collect()
}

fn status(desk: &Desk, id: ExecutionId) -> Status {
    desk.members[&id].head.status
}

#[test]
fn what_is_pending_is_set_aside_and_comes_back() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    assert!(matches!(pause(&mut desk, id), Answer::Changed { in_flight, .. } if in_flight.is_empty()));
    assert_eq!(states(&desk, id), [CommandState::Paused]);
    assert!(!desk.step(), "nothing can be done");
    let held = desk.members[&id].head.pause.clone().unwrap();
    assert_eq!((held.paused_by.as_str(), held.reason.as_deref()), ("cli", Some("the target is down")));
    desk.check();
    assert!(matches!(resume(&mut desk, id), Answer::Changed { .. }));
    assert_eq!(states(&desk, id), [CommandState::Pending]);
    desk.run();
    assert_eq!(status(&desk, id), Status::Completed);
    assert_eq!(log(&desk, id)[2..4], ["execution.paused", "execution.resumed"]);
}

#[test]
fn a_claim_before_the_pause_runs_on_and_is_decided_up_to_the_next_issue() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    let row = desk.pending().unwrap();
    desk.claim(&row);
    let Answer::Changed { in_flight, .. } = pause(&mut desk, id) else { panic!("not paused") };
    assert_eq!(in_flight.len(), 1);
    let report = desk.work(&row);
    assert_eq!(desk.decide(id, &[Input::Report(Box::new(report), "desk".into())]), [Ok(())]);
    // The step is over and its arc taken; the next step has not begun.
    assert_eq!(log(&desk, id).last(), Some(&"step.exit"));
    assert!(states(&desk, id).is_empty());
    assert_eq!(desk.members[&id].execution.tokens.len(), 1);
    assert_eq!(desk.decide(id, &[Input::Continue]), [Err(Refusal::Paused)]);
    desk.check();
    resume(&mut desk, id);
    desk.run();
    assert_eq!((status(&desk, id), desk.calls.len()), (Status::Completed, 2));
}

#[test]
fn the_last_report_ends_a_paused_run_and_then_nothing_can_be_resumed() {
    let (mut desk, id) = desk(&["
    workflow:
      - {step: start, tool: {kind: python, code: x}}
"]);
    let row = desk.pending().unwrap();
    desk.claim(&row);
    pause(&mut desk, id);
    let report = desk.work(&row);
    desk.decide(id, &[Input::Report(Box::new(report), "desk".into())]);
    assert_eq!(status(&desk, id), Status::Completed);
    assert_eq!(desk.members[&id].head.pause, None, "what has ended is not paused");
    assert_eq!(resume(&mut desk, id), Answer::Ended);
    // The other way round: the report was first.
    assert_eq!(pause(&mut desk, id), Answer::Ended);
    desk.check();
}

#[test]
fn a_second_pause_and_a_second_resume_write_nothing() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    assert!(matches!(resume(&mut desk, id), Answer::Already { .. }));
    pause(&mut desk, id);
    let first = desk.members[&id].head.pause.clone();
    desk.now = desk.now.plus_ms(5_000);
    assert!(matches!(pause(&mut desk, id), Answer::Already { .. }));
    assert_eq!(desk.members[&id].head.pause, first, "who, why and since when stay");
    resume(&mut desk, id);
    assert!(matches!(resume(&mut desk, id), Answer::Already { .. }));
    assert_eq!(log(&desk, id).iter().filter(|name| name.starts_with("execution.")).count(), 2);
    desk.check();
}

#[test]
fn a_cancel_ends_a_paused_run_like_any_other() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    pause(&mut desk, id);
    let order = cancel::Request {
        requested_execution_id: id,
        reason: None,
        cancelled_by: "api".into(),
        requested_by: None,
        remote: None,
        cascade: false,
        mode: None,
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    };
    assert!(desk.control(id, |view, now, ids| match cancel::decide(view, &order, now, ids) {
        cancel::Answer::Cancelled { append, quiesced: true, .. } => Some(*append),
        other => panic!("{other:?}"),
    }));
    assert_eq!(
        log(&desk, id)[2..],
        ["execution.paused", "execution.cancelled", "command.cancelled", "execution.quiesced"]
    );
    assert!(states(&desk, id).is_empty());
    assert_eq!(resume(&mut desk, id), Answer::Ended);
    assert_eq!(pause(&mut desk, id), Answer::Ended);
    desk.check();
}

#[test]
fn a_moment_that_comes_while_paused_waits() {
    let playbook = "
    workflow:
      - step: start
        tool:
          kind: python
          code: x
          spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 2, delay: 60}}]}}
    ";
    let mut tries = 0;
    let mut desk = Desk::new(&[playbook], move |_| {
        tries += 1;
        if tries > 1 {
            return ToolOutcome::ok(json!({}));
        }
        ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "NO", "not yet"), Value::Null)
    });
    let id = desk.start(0, json!({}));
    desk.step();
    assert_eq!(states(&desk, id), [CommandState::Suspended]);
    pause(&mut desk, id);
    assert!(!desk.step());
    desk.now = desk.now.plus_ms(120_000);
    let command = desk.members[&id].commands[0].command_id;
    assert_eq!(desk.decide(id, &[Input::Timer(command)]), [Err(Refusal::Paused)]);
    assert!(!desk.step());
    resume(&mut desk, id);
    desk.run();
    assert_eq!((status(&desk, id), desk.calls.len()), (Status::Completed, 2));
}

#[test]
fn a_child_goes_on_and_its_end_waits_for_the_parent() {
    let parent = "
    workflow:
      - {step: start, tool: {kind: playbook, path: test/p1}, next: {arcs: [{step: end}]}}
      - {step: end, tool: {kind: python, code: x}}
    ";
    let child = "
    workflow:
      - {step: deep, tool: {kind: python, code: x}}
    ";
    let (mut desk, id) = desk(&[parent, child]);
    pause(&mut desk, id);
    while desk.step() {}
    let child = *desk.members.keys().find(|known| **known != id).unwrap();
    assert_eq!((status(&desk, child), status(&desk, id)), (Status::Completed, Status::Running));
    assert_eq!(states(&desk, id), [CommandState::Suspended]);
    resume(&mut desk, id);
    desk.run();
    assert_eq!((status(&desk, id), desk.calls.len()), (Status::Completed, 2));
}

#[test]
fn a_child_that_is_asked_for_while_paused_is_born_afterwards_and_counts_one_attempt() {
    let parent = "
    workflow:
      - step: start
        tool:
          - {name: first, kind: python, code: x}
          - name: child
            kind: playbook
            path: test/p1
            spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 2}}]}}
    ";
    let child = "
    executor: {spec: {strict: true}}
    workflow:
      - {step: deep, tool: {kind: python, code: x}}
    ";
    let mut desk = Desk::new(&[parent, child], |call| {
        if &*call.step == "deep" {
            return ToolOutcome::failed(ToolError::hard(ErrorKind::Code, "NO", "never"), Value::Null);
        }
        ToolOutcome::ok(json!({}))
    });
    let id = desk.start(0, json!({}));
    let row = desk.pending().unwrap();
    desk.claim(&row);
    pause(&mut desk, id);
    let report = desk.work(&row);
    desk.decide(id, &[Input::Report(Box::new(report), "desk".into())]);
    assert_eq!(desk.members.len(), 1, "no child of a paused execution");
    assert!(!desk.step());
    desk.check();
    resume(&mut desk, id);
    desk.run();
    // Two attempts, as the rule says: what was put off was no attempt of its own.
    assert_eq!(desk.members.len(), 3);
    assert_eq!(desk.calls.iter().filter(|call| call.starts_with("deep")).count(), 2);
}

#[test]
fn an_attempt_lost_while_paused_is_set_aside() {
    let (mut desk, id) = desk(&[TWO_STEPS]);
    let row = desk.pending().unwrap();
    desk.claim(&row);
    pause(&mut desk, id);
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    assert_eq!(states(&desk, id), [CommandState::Lost, CommandState::Paused]);
    desk.check();
    resume(&mut desk, id);
    assert_eq!(states(&desk, id), [CommandState::Lost, CommandState::Pending]);
    desk.run();
    assert_eq!(status(&desk, id), Status::Completed);
}
