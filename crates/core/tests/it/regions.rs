//! Regions: an arc that fires cancels what other steps have begun, and nothing follows from it.

use noetl_core::control::cancel::{self, Answer, Request};
use noetl_core::control::{lease, settle};
use noetl_core::event::{Event, StepCancelled};
use noetl_core::execution::{Input, Refusal};
use noetl_core::head::{CommandRow, CommandState, Status};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::{CancelMode, compile};
use noetl_core::tool::ToolOutcome;
use noetl_core::work::Reported;
use serde_json::json;

use crate::desk::Desk;

/// Two race; the first one that ends cancels the other one and what comes behind it.
const RACE: &str = "
    workflow:
      - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: fast}, {step: slow}]}}
      - {step: fast, tool: {kind: python, code: x}, next: {arcs: [{step: done, cancel: [slow, behind]}]}}
      - {step: slow, tool: {kind: python, code: x}, next: {arcs: [{step: behind}]}}
      - {step: behind, tool: {kind: python, code: x}, next: {arcs: [{step: done}]}}
      - {step: done, tool: {kind: noop}}
";

fn desk(playbook: &str) -> (Desk, ExecutionId) {
    let mut desk = Desk::new(&[playbook], |call| ToolOutcome::ok(json!({"step": &*call.step})));
    let id = desk.start(0, json!({}));
    (desk, id)
}

fn row(desk: &Desk, id: ExecutionId, step: &str) -> CommandRow {
    desk.members[&id].commands.iter().find(|row| &*row.step == step).expect("a command of the step").clone()
}

fn report(desk: &mut Desk, row: &CommandRow) -> Result<(), Refusal> {
    let report = desk.work(row);
    desk.decide(row.execution_id, &[Input::Report(Box::new(report), "desk".into())]).remove(0)
}

fn cancelled(desk: &Desk, id: ExecutionId) -> Vec<StepCancelled> {
    let events = desk.members[&id].events.iter().filter_map(|recorded| match &recorded.event {
        Event::StepCancelled(cancelled) => Some((**cancelled).clone()),
        _ => None,
    });
    events.collect()
}

fn entered(desk: &Desk, id: ExecutionId) -> Vec<String> {
    let entered = desk.members[&id].events.iter().filter_map(|recorded| match &recorded.event {
        Event::StepEnter { step, .. } => Some(step.to_string()),
        _ => None,
    });
    entered.collect()
}

/// Both run; the fast one ends.
fn fast_wins() -> (Desk, ExecutionId, CommandRow) {
    let (mut desk, id) = desk(RACE);
    let (fast, slow) = (row(&desk, id, "fast"), row(&desk, id, "slow"));
    desk.claim(&fast);
    desk.claim(&slow);
    assert_eq!(report(&mut desk, &fast), Ok(()));
    (desk, id, slow)
}

#[test]
fn the_arc_that_fires_cancels_what_runs_and_the_join_behind_it_does_not_wait() {
    let (mut desk, id, slow) = fast_wins();
    let [one] = &cancelled(&desk, id)[..] else { panic!("the step that had begun, and no other") };
    assert_eq!((&*one.step, &*one.by, &one.visits[..], one.arrivals), ("slow", "fast", &[1][..], 0));
    assert_eq!(one.commands, [slow.command_id]);
    assert_eq!(entered(&desk, id), ["start", "fast", "slow", "done"], "the join is entered without the other branch");
    // The worker still holds it: the execution has nothing left to do, and does not end.
    while desk.step() {}
    assert_eq!((desk.members[&id].head.status, desk.members[&id].head.in_flight), (Status::Running, 1));
    let mut stopped = desk.work(&slow);
    stopped.outcome = Reported::cancelled(true);
    assert_eq!(desk.decide(id, &[Input::Report(Box::new(stopped), "desk".into())]), [Ok(())]);
    assert_eq!((desk.members[&id].head.status, desk.members[&id].head.in_flight), (Status::Completed, 0));
    assert!(!desk.calls.contains(&"behind/behind".to_owned()));
    desk.check();
}

#[test]
fn a_late_result_is_evidence_and_routes_nowhere() {
    let (mut desk, id, slow) = fast_wins();
    assert_eq!(report(&mut desk, &slow), Ok(()));
    let seat = &desk.members[&id];
    assert_eq!(seat.head.status, Status::Completed);
    assert!(seat.execution.steps["slow"].result.is_none());
    assert_eq!(entered(&desk, id), ["start", "fast", "slow", "done"]);
    desk.check();
}

#[test]
fn an_arc_and_a_claim_the_claim_finds_nothing_to_claim() {
    let (mut desk, id) = desk(RACE);
    let (fast, slow) = (row(&desk, id, "fast"), row(&desk, id, "slow"));
    desk.claim(&fast);
    assert_eq!(report(&mut desk, &fast), Ok(()));
    assert_eq!(row(&desk, id, "slow").state, CommandState::Suspended);
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(entered(&desk, id), ["start", "fast", "done"], "it never really started");
    assert!(desk.members[&id].commands.is_empty() && slow.state == CommandState::Pending);
}

#[test]
fn an_arrival_that_waits_at_a_join_is_gone() {
    // `left` arrives at the join and waits there for `slow`; then `right` cancels the join and goes its own way.
    let (mut desk, id) = desk(
        "
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: left}, {step: right}, {step: slow}]}
          - {step: left, tool: {kind: noop}, next: {arcs: [{step: join}]}}
          - {step: slow, tool: {kind: python, code: x}, next: {arcs: [{step: join}]}}
          - {step: right, tool: {kind: python, code: x}, next: {arcs: [{step: other, cancel: [slow, join]}]}}
          - {step: join, tool: {kind: python, code: x}}
          - {step: other, tool: {kind: noop}}
        ",
    );
    let right = row(&desk, id, "right");
    desk.claim(&right);
    assert_eq!(report(&mut desk, &right), Ok(()));
    let found: Vec<_> = cancelled(&desk, id).iter().map(|one| (one.step.to_string(), one.arrivals)).collect();
    assert_eq!(found, [("slow".to_owned(), 0), ("join".to_owned(), 1)]);
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(desk.calls, ["right/right"]);
}

#[test]
fn a_wait_and_a_child_end_with_their_step() {
    let parent = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {path: test/parent}
workflow:
  - step: start
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: decide}, {step: child}, {step: again}]}
  - {step: decide, tool: {kind: python, code: x}, next: {arcs: [{step: end, cancel: [child, again]}]}}
  - {step: child, tool: {kind: playbook, path: test/p1}, next: {arcs: [{step: end}]}}
  - step: again
    tool: {kind: python, code: x, spec: {policy: {rules: [{else: {then: {do: retry, attempts: 9, delay: 3600}}}]}}}
  - {step: end, tool: {kind: noop}}
";
    let child = "
        workflow:
          - {step: start, tool: {kind: python, code: x}}
        ";
    let mut desk = Desk::new(&[parent, child], |_| ToolOutcome::ok(json!({})));
    let id = desk.start(0, json!({}));
    let (decide, again) = (row(&desk, id, "decide"), row(&desk, id, "again"));
    desk.claim(&again);
    assert_eq!(report(&mut desk, &again), Ok(()));
    let waiting = |desk: &Desk| {
        let rows = desk.members[&id].commands.iter();
        rows.filter(|row| row.state == CommandState::Suspended).count()
    };
    while waiting(&desk) < 2 || desk.members.len() < 2 {
        assert!(desk.step_without_workers());
    }
    desk.claim(&decide);
    assert_eq!(report(&mut desk, &decide), Ok(()));
    assert_eq!(desk.members[&id].head.status, Status::Completed, "waits run nowhere");
    assert!(desk.members[&id].commands.is_empty());
    while desk.step_without_workers() {}
    desk.run();
    let child = desk.members.values().find(|seat| seat.head.parent_execution_id == Some(id)).unwrap();
    assert_eq!(child.head.status, Status::Cancelled);
    assert_eq!(child.head.cancel.as_ref().unwrap().cancelled_by, "parent");
}

#[test]
fn a_loop_of_the_region_ends_without_an_outcome() {
    let (mut desk, id) = desk(
        "
        workflow:
          - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: stop}, {step: each}]}}
          - {step: stop, tool: {kind: python, code: x}, next: {arcs: [{step: end, cancel: each}]}}
          - step: each
            loop: {in: 100, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
            tool: {kind: python, code: x}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: noop}}
        ",
    );
    let (stop, each) = (row(&desk, id, "stop"), row(&desk, id, "each"));
    desk.claim(&stop);
    desk.claim(&each);
    assert_eq!(report(&mut desk, &stop), Ok(()));
    assert_eq!(cancelled(&desk, id)[0].commands.len(), 3);
    assert_eq!(report(&mut desk, &each), Ok(()), "evidence");
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(desk.calls, ["stop/stop", "each/each"], "no iteration follows");
    let names: Vec<_> =
        desk.members[&id].events.iter().map(|one| noetl_core::event::row::wire_name(&one.event)).collect();
    assert!(!names.contains(&"loop.done"));
}

#[test]
fn a_step_may_cancel_what_it_is_going_to_and_starts_it_anew() {
    let (mut desk, id) = desk(
        "
        workflow:
          - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: watch}, {step: work}]}}
          - {step: watch, tool: {kind: python, code: x}, next: {arcs: [{step: work, cancel: [work]}]}}
          - {step: work, tool: {kind: python, code: x}}
        ",
    );
    // The join waits for the watcher, so the first arrival is what is cancelled.
    let watch = row(&desk, id, "watch");
    desk.claim(&watch);
    assert_eq!(report(&mut desk, &watch), Ok(()));
    assert_eq!(cancelled(&desk, id)[0].arrivals, 1);
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(desk.calls, ["watch/watch", "work/work"]);
}

#[test]
fn an_arc_of_a_skipped_step_cancels_too_and_one_that_does_not_fire_does_not() {
    for (go, cancels) in [(true, false), (false, true)] {
        let mut desk = Desk::new(
            &["
            workflow:
              - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: work}, {step: first}]}}
              - {step: first, tool: {kind: python, code: x}, next: {arcs: [{step: maybe}]}}
              - step: maybe
                when: '{{ workload.go }}'
                tool: {kind: noop}
                next:
                  arcs:
                    - {step: end, when: '{{ not workload.go }}', cancel: [work]}
                    - {step: end}
              - {step: work, tool: {kind: python, code: x}}
              - {step: end, tool: {kind: noop}}
            "],
            |_| ToolOutcome::ok(json!({})),
        );
        let id = desk.start(0, json!({ "go": go }));
        let first = row(&desk, id, "first");
        desk.claim(&first);
        assert_eq!(report(&mut desk, &first), Ok(()));
        assert_eq!(!cancelled(&desk, id).is_empty(), cancels);
        desk.run();
        assert_eq!(desk.members[&id].head.status, Status::Completed);
        assert_eq!(desk.calls.contains(&"work/work".to_owned()), !cancels);
    }
}

#[test]
fn a_lost_worker_does_not_bring_a_withdrawn_command_back_and_the_end_names_it() {
    let (mut desk, id, slow) = fast_wins();
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    assert!(desk.pending().is_none());
    desk.run();
    let seat = &desk.members[&id];
    assert_eq!(seat.head.status, Status::Completed);
    let Event::ExecutionQuiesced { commands } = &seat.events.last().unwrap().event else { panic!("no certificate") };
    assert_eq!(commands[0].command_id, slow.command_id);
}

#[test]
fn a_lost_worker_that_comes_back_before_the_next_decision_takes_nothing_with_it() {
    for outcome in [None, Some(Reported::cancelled(true))] {
        let (mut desk, id, slow) = fast_wins();
        let mut late = desk.work(&slow);
        late.outcome = outcome.unwrap_or(late.outcome);
        assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
        let input = Input::Report(Box::new(late.clone()), "desk".into());
        assert_eq!(desk.decide(id, &[input]), [Err(Refusal::Stale)]);
        assert!(desk.control(id, |view, now, ids| settle::decide(view, &late, "desk", now, ids)));
        desk.run();
        assert_eq!((desk.members[&id].head.status, desk.members[&id].head.in_flight), (Status::Completed, 0));
    }
}

#[test]
fn a_command_that_was_given_up_is_ended_even_if_its_worker_says_cancelled_first() {
    let (mut desk, id) = desk(
        "
        workflow:
          - {step: start, spec: {at_most_once: true}, tool: {kind: python, code: x}}
        ",
    );
    let row = desk.pending().unwrap();
    desk.claim(&row);
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    let mut late = desk.work(&row);
    late.outcome = Reported::cancelled(false);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &late, "desk", now, ids)));
    desk.run();
    let head = &desk.members[&id].head;
    assert_eq!((head.status, head.in_flight, &head.failed_steps[..]), (Status::Failed, 0, &["start".into()][..]));
}

#[test]
fn a_failing_run_ends_when_what_was_withdrawn_has_come_to_rest() {
    let (mut desk, id) = desk(
        "
        workflow:
          - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: fast}, {step: slow}]}}
          - {step: fast, tool: {kind: python, code: x}, next: {arcs: [{step: bad, cancel: [slow]}]}}
          - {step: bad, tool: {kind: noop}, set: {ctx.x: '{{ 1 / 0 }}'}}
          - {step: slow, tool: {kind: python, code: x}}
        ",
    );
    let (fast, slow) = (row(&desk, id, "fast"), row(&desk, id, "slow"));
    desk.claim(&fast);
    desk.claim(&slow);
    assert_eq!(report(&mut desk, &fast), Ok(()));
    assert_eq!(desk.members[&id].head.status, Status::Running);
    assert_eq!(report(&mut desk, &slow), Ok(()));
    assert_eq!(desk.members[&id].head.status, Status::Failed);
    desk.check();
}

#[test]
fn a_cancel_of_the_execution_names_what_was_withdrawn_and_is_still_held() {
    let (mut desk, id, slow) = fast_wins();
    let request = Request {
        requested_execution_id: id,
        job_id: None,
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
    let mut held = Vec::new();
    desk.control(id, |view, now, ids| match cancel::decide(view, &request, now, ids) {
        Answer::Cancelled { append, in_flight, .. } => {
            held = in_flight;
            Some(*append)
        }
        Answer::Escalated { .. } | Answer::Spared(_) | Answer::AlreadyEnded | Answer::Repeated { .. } => None,
    });
    assert_eq!(held.iter().map(|held| held.command_id).collect::<Vec<_>>(), [slow.command_id]);
    let late = desk.work(&slow);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &late, "desk", now, ids)));
    assert!(desk.members[&id].head.quiesced_at.is_some());
    desk.check();
}

#[test]
fn a_region_names_steps_that_there_are() {
    let playbook = |region: &str| {
        format!(
            "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: p}}\nworkflow:\n\
             - {{step: first, tool: {{kind: noop}}, next: {{arcs: [{{step: second, cancel: {region}}}]}}}}\n\
             - {{step: second, tool: {{kind: noop}}}}\n"
        )
    };
    for good in ["[first, second]", "second", "[]", "null"] {
        assert!(compile(&playbook(good)).is_ok(), "{good}");
    }
    for (bad, says, hint) in [
        ("[secnd]", "there is no step `secnd`", "did you mean `second`?"),
        ("{second: true}", "`cancel` of an arc", ""),
        ("[[second]]", "a step to cancel", ""),
    ] {
        let found = compile(&playbook(bad)).unwrap_err();
        let text = format!("{found:?}");
        assert!(text.contains(says) && text.contains(hint), "{bad}: {text}");
    }
}
