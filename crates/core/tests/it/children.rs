//! Children that took too long: they are cancelled, and their late end hides nothing.

use noetl_core::control::pause::{self, Answer, Request};
use noetl_core::event::Wait;
use noetl_core::execution::Input;
use noetl_core::head::{CommandState, Status};
use noetl_core::id::ExecutionId;
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::Desk;

const PARENT: &str = "
    workflow:
      - step: start
        tool:
          - name: child
            kind: playbook
            path: test/p1
            timeout: 5
            return_step: deep
            spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 2}}]}}
";

const CHILD: &str = "
    workflow:
      - {step: deep, tool: {kind: python, code: x}}
";

/// Returns a parent that waits for its second child, because the first one took too long, and those two.
fn second_try() -> (Desk, ExecutionId, ExecutionId, ExecutionId) {
    let mut desk = Desk::new(&[PARENT, CHILD], |call| ToolOutcome::ok(json!(call.execution_id.to_string())));
    let id = desk.start(0, json!({}));
    while awaited(&desk, id).is_none() {
        assert!(desk.step_without_workers());
    }
    let first = awaited(&desk, id).unwrap();
    while awaited(&desk, id).is_none_or(|child| child == first) {
        assert!(desk.step_without_workers());
    }
    let second = awaited(&desk, id).unwrap();
    assert_eq!(desk.members[&first].head.status, Status::Running);
    (desk, id, first, second)
}

fn awaited(desk: &Desk, id: ExecutionId) -> Option<ExecutionId> {
    let mut waits = desk.members[&id].commands.iter().filter(|row| row.state == CommandState::Suspended);
    waits.find_map(|row| match row.wait {
        Some(Wait::Child { execution_id, .. }) => Some(execution_id),
        Some(Wait::Until(_)) | None => None,
    })
}

/// Lets the second child run to its end.
fn end(desk: &mut Desk, child: ExecutionId) {
    if desk.members[&child].commands.is_empty() {
        assert_eq!(desk.decide(child, &[Input::Continue]), [Ok(())]);
    }
    let row = desk.members[&child].commands[0].clone();
    desk.claim(&row);
    let report = desk.work(&row);
    assert_eq!(desk.decide(child, &[Input::Report(Box::new(report), "desk".into())]), [Ok(())]);
    assert_eq!(desk.members[&child].head.status, Status::Completed);
}

/// Lets the first child be cancelled: nobody waits for it any more.
fn give_up(desk: &mut Desk, child: ExecutionId) {
    while desk.members[&child].head.is_active() {
        assert!(desk.step_without_workers());
    }
    let cancel = desk.members[&child].head.cancel.as_ref().unwrap();
    assert_eq!((desk.members[&child].head.status, &*cancel.cancelled_by), (Status::Cancelled, "parent"));
}

fn set_paused(desk: &mut Desk, id: ExecutionId, paused: bool) {
    let request =
        Request { reason: None, by: "api".into(), requested_by: None, cascade: false, requested_execution_id: id };
    desk.control(id, |view, now, ids| {
        let decide = if paused { pause::pause } else { pause::resume };
        match decide(view, &request, now, ids) {
            Answer::Changed { append, .. } => Some(*append),
            Answer::Already { .. } | Answer::Ended => None,
        }
    });
}

/// Both ends stand in the tables before the parent looks: the late one of the child that took too long does not take
/// the place of the one that is waited for.
#[test]
fn the_late_end_of_an_earlier_child_does_not_hide_that_of_a_later_one() {
    for late_comes_last in [true, false] {
        let (mut desk, id, first, second) = second_try();
        set_paused(&mut desk, id, true);
        if late_comes_last {
            end(&mut desk, second);
            give_up(&mut desk, first);
        } else {
            give_up(&mut desk, first);
            end(&mut desk, second);
        }
        set_paused(&mut desk, id, false);
        desk.run();
        assert_eq!(desk.members[&id].head.status, Status::Completed, "{late_comes_last}");
        let result = desk.members[&id].execution.steps["start"].result.clone().unwrap();
        let result = format!("{result:?}");
        assert!(result.contains(&second.to_string()) && !result.contains(&first.to_string()), "{result}");
    }
}

/// Alone, it is met without a word, and the wait for the later one goes on.
#[test]
fn the_late_end_of_an_earlier_child_is_not_asked_about_again() {
    let (mut desk, id, first, second) = second_try();
    give_up(&mut desk, first);
    let before = desk.members[&id].events.len();
    assert!(!desk.is_met(id, first));
    assert!(desk.step_without_workers(), "the end is looked at");
    assert_eq!(desk.members[&id].events.len(), before);
    assert_eq!(awaited(&desk, id), Some(second));
    assert!(desk.is_met(id, first), "the obligation is gone from the tables");
    end(&mut desk, second);
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
}
