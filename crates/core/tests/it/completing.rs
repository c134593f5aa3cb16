//! Completing a loop early: by its own condition, and by hand. Everything that may meet it.

use noetl_core::control::lease;
use noetl_core::event::Event;
use noetl_core::execution::{CompleteLoop, Input, Refusal};
use noetl_core::head::{CommandRow, CommandState, Status};
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::{ToolCall, ToolOutcome};
use noetl_core::work::Reported;
use serde_json::{Value, json};

use crate::desk::{Desk, Ran, run_with};

fn echo(call: &ToolCall) -> ToolOutcome {
    ToolOutcome::ok(json!(call.input))
}

/// Four at once of ten, and a step behind the loop.
fn looping(spec: &str) -> String {
    format!(
        "
        workflow:
          - step: each
            loop: {{in: 10, iterator: i, spec: {{mode: parallel, max_in_flight: 4, {spec}}}}}
            tool: {{kind: python, code: x, input: {{i: '{{{{ i }}}}'}}}}
            next: {{arcs: [{{step: after}}]}}
          - {{step: after, tool: {{kind: noop}}}}
        "
    )
}

/// Starts the loop and gives its first four iterations to a worker.
fn four_running(spec: &str) -> (Desk, ExecutionId, Vec<CommandRow>) {
    let mut desk = Desk::new(&[&looping(spec)], echo);
    let id = desk.start(0, json!({}));
    let rows = desk.members[&id].commands.clone();
    assert_eq!(rows.len(), 4);
    rows.iter().for_each(|row| desk.claim(row));
    (desk, id, rows)
}

fn report(desk: &mut Desk, row: &CommandRow) -> Result<(), Refusal> {
    let report = desk.work(row);
    desk.decide(row.execution_id, &[Input::Report(Box::new(report), "desk".into())]).remove(0)
}

fn stopped(desk: &mut Desk, row: &CommandRow) -> Result<(), Refusal> {
    let mut report = desk.work(row);
    report.outcome = Reported::cancelled(true);
    desk.decide(row.execution_id, &[Input::Report(Box::new(report), "desk".into())]).remove(0)
}

fn by_hand(mode: Option<CancelMode>) -> Input {
    Input::CompleteLoop(Box::new(CompleteLoop {
        step: "each".into(),
        mode,
        by: "ann".into(),
        reason: Some("enough".into()),
    }))
}

fn result(desk: &Desk, id: ExecutionId) -> Value {
    let Some(noetl_core::result::Bound::Inline(data)) = &desk.members[&id].execution.steps["each"].result else {
        panic!("no result")
    };
    (**data).clone()
}

fn log(desk: &Desk, id: ExecutionId) -> Vec<&'static str> {
    desk.members[&id].events.iter().map(|recorded| noetl_core::event::row::wire_name(&recorded.event)).collect()
}

#[test]
fn a_sequential_loop_ends_when_its_condition_holds_and_skips_the_rest() {
    let ran = run_with(
        "
        workflow:
          - step: each
            loop: {in: [4, 8, 15, 16, 23], iterator: n, spec: {complete_when: '{{ output.n > 10 }}'}}
            tool: {kind: python, code: x, input: {n: '{{ n }}'}}
            next: {arcs: [{step: after, when: \"{{ event.name == 'loop.done' }}\"}]}
          - {step: after, tool: {kind: python, code: x, input: {skipped: '{{ each.stats.skipped }}'}}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(
        ran.result("each"),
        json!({
            "results": [{"n": 4}, {"n": 8}, {"n": 15}, null, null],
            "stats": {"total": 5, "completed": 3, "success": 3, "failed": 0, "skipped": 2, "cancelled": 0},
            "status": "ok",
            "completed_early": true,
        })
    );
    assert_eq!(ran.result("after")["skipped"], json!(2));
    let completing = ran.seat().events.iter().find_map(|recorded| match &recorded.event {
        Event::LoopCompleting(completing) => Some((**completing).clone()),
        _ => None,
    });
    let completing = completing.expect("it says why");
    assert_eq!((&*completing.by, completing.mode), ("complete_when", CancelMode::Interrupt));
    assert!(completing.commands.is_empty());
}

#[test]
fn the_condition_sees_the_results_the_stats_and_the_iteration() {
    for (condition, ends_after) in [
        ("{{ results | length == 2 }}", 2),
        ("{{ results[-1].n == 15 }}", 3),
        ("{{ stats.success >= 4 }}", 4),
        ("{{ stats.total - stats.completed == 1 }}", 4),
        ("{{ iter.n == 8 }}", 2),
        ("{{ n == 16 }}", 4),
        ("{{ loop_index == 0 }}", 1),
        ("{{ _index + 1 == _total }}", 5),
        ("{{ iter._index == 2 }}", 3),
        ("{{ output.status == 'ok' and output.n == 15 }}", 3),
        ("{{ ctx.most is defined and n >= ctx.most }}", 5),
        ("{{ limit <= n }}", 3),
        ("{{ false }}", 5),
    ] {
        let playbook = format!(
            "
            workload: {{limit: 10}}
            workflow:
              - step: each
                loop: {{in: [4, 8, 15, 16, 23], iterator: n, spec: {{complete_when: \"{condition}\"}}}}
                tool: {{kind: python, code: x, input: {{n: '{{{{ n }}}}'}}}}
            "
        );
        let ran = run_with(&playbook, json!({}), echo);
        assert_eq!(ran.status(), Status::Completed, "{condition}");
        assert_eq!(ran.desk.calls.len(), ends_after, "{condition}");
        assert_eq!(ran.result("each")["completed_early"] == json!(true), ends_after < 5, "{condition}");
    }
}

#[test]
fn a_failed_iteration_can_complete_a_loop_too() {
    let ran = run_with(
        "
        workflow:
          - step: each
            loop: {in: 5, iterator: i, spec: {complete_when: \"{{ output.status == 'error' and error.code == 'E' }}\"}}
            tool: {kind: python, code: x, input: {i: '{{ i }}'}}
        ",
        json!({}),
        |call| match call.input["i"] == json!(1) {
            true => ToolOutcome::failed(
                noetl_core::tool::ToolError::soft(noetl_core::tool::ErrorKind::Code, "E", "boom"),
                Value::Null,
            ),
            false => echo(call),
        },
    );
    assert_eq!(ran.desk.calls.len(), 2);
    let stats = json!({"total": 5, "completed": 1, "success": 1, "failed": 1, "skipped": 3, "cancelled": 0});
    assert_eq!(ran.result("each")["stats"], stats);
}

#[test]
fn a_condition_that_can_not_be_evaluated_fails_the_run_and_says_so() {
    let (mut desk, id, rows) = four_running("complete_when: '{{ output.i / 0 > 1 }}'");
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert_eq!(desk.members[&id].head.status, Status::Running, "what runs is let to its end");
    for row in &rows[1..] {
        assert_eq!(report(&mut desk, row), Ok(()));
    }
    let head = &desk.members[&id].head;
    assert_eq!(head.status, Status::Failed);
    let message = head.error.as_ref().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("`complete_when` of `each`: "), "{message}");
    desk.check();
}

#[test]
fn what_runs_is_withdrawn_and_the_run_goes_on_at_once_but_does_not_end_before_it_has_come_to_rest() {
    let (mut desk, id, rows) = four_running("complete_when: '{{ stats.success == 1 }}'");
    assert_eq!(report(&mut desk, &rows[2]), Ok(()));
    let told = ["call.done", "command.completed", "loop.completing", "loop.done", "step.exit", "step.enter"];
    let names: Vec<_> = log(&desk, id).into_iter().skip_while(|name| *name != told[0]).take(told.len()).collect();
    assert_eq!(names, told, "in one append");
    let data = result(&desk, id);
    let stats = json!({"total": 10, "completed": 1, "success": 1, "failed": 0, "skipped": 6, "cancelled": 3});
    assert_eq!(data["stats"], stats);
    assert_eq!(data["results"], json!([null, null, {"i": 2}, null, null, null, null, null, null, null]));
    // The step behind has run, but three tools may still be running.
    assert_eq!(desk.members[&id].head.status, Status::Running);
    assert_eq!(desk.members[&id].head.in_flight, 3);
    while desk.step() {}
    assert_eq!(desk.members[&id].head.status, Status::Running);
    // One ends by itself: evidence. One says it was stopped. One is handed back by a worker that goes.
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert_eq!(report(&mut desk, &rows[0]), Err(Refusal::Stale), "the same report again");
    assert_eq!(stopped(&mut desk, &rows[1]), Ok(()));
    let mut back = desk.work(&rows[3]);
    back.outcome = Reported::Released;
    assert_eq!(desk.decide(id, &[Input::Report(Box::new(back), "desk".into())]), [Ok(())]);
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(result(&desk, id), data, "evidence changes nothing");
    let late = desk.members[&id].events.iter().filter_map(|recorded| match &recorded.event {
        Event::CommandDone(done) if done.late => Some(done.command_id),
        _ => None,
    });
    assert_eq!(late.collect::<Vec<_>>(), [rows[0].command_id]);
    assert!(desk.members[&id].commands.is_empty());
    desk.check();
}

#[test]
fn nothing_pending_of_a_completed_loop_can_be_claimed() {
    let mut desk = Desk::new(&[&looping("complete_when: '{{ stats.success == 1 }}'")], echo);
    let id = desk.start(0, json!({}));
    let rows = desk.members[&id].commands.clone();
    desk.claim(&rows[0]);
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert!(desk.members[&id].commands.iter().all(|row| row.state == CommandState::Suspended));
    assert!(desk.pending().is_none());
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert_eq!(desk.calls.len(), 1);
    let names = log(&desk, id);
    assert_eq!(names.iter().filter(|name| **name == "command.cancelled").count(), 3);
}

#[test]
fn with_wait_nothing_more_begins_and_what_runs_is_counted() {
    let (mut desk, id, rows) = four_running("complete_when: '{{ stats.success == 1 }}', on_complete: wait");
    for row in &rows {
        assert!(!log(&desk, id).contains(&"loop.done"));
        assert_eq!(report(&mut desk, row), Ok(()));
    }
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    let stats = json!({"total": 10, "completed": 4, "success": 4, "failed": 0, "skipped": 6, "cancelled": 0});
    assert_eq!(result(&desk, id)["stats"], stats);
    assert_eq!(desk.calls.len(), 4);
    desk.check();
}

#[test]
fn by_hand_a_loop_ends_as_a_success_once() {
    let (mut desk, id, rows) = four_running("");
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert_eq!(desk.decide(id, &[by_hand(None)]), [Ok(())]);
    assert_eq!(desk.decide(id, &[by_hand(None)]), [Err(Refusal::Stale)], "it is done");
    // Four had been begun again; three of the first and the one that followed.
    let stats = json!({"total": 10, "completed": 1, "success": 1, "failed": 0, "skipped": 5, "cancelled": 4});
    assert_eq!(result(&desk, id)["stats"], stats);
    let completing = desk.members[&id].events.iter().find_map(|recorded| match &recorded.event {
        Event::LoopCompleting(completing) => Some((**completing).clone()),
        _ => None,
    });
    let completing = completing.unwrap();
    assert_eq!((&*completing.by, completing.reason.as_deref()), ("ann", Some("enough")));
    for row in &rows[1..] {
        assert_eq!(stopped(&mut desk, row), Ok(()));
    }
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    assert!(desk.members[&id].head.failed_steps.is_empty());
}

#[test]
fn by_hand_a_loop_that_waits_can_be_ended_harder_but_not_twice() {
    let (mut desk, id, rows) = four_running("");
    assert_eq!(desk.decide(id, &[by_hand(Some(CancelMode::Finish))]), [Ok(())]);
    assert!(!log(&desk, id).contains(&"loop.done"));
    assert_eq!(desk.decide(id, &[by_hand(Some(CancelMode::Finish))]), [Err(Refusal::Stale)]);
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert!(desk.pending().is_none(), "nothing more begins");
    assert_eq!(desk.decide(id, &[by_hand(Some(CancelMode::Interrupt))]), [Ok(())]);
    assert!(log(&desk, id).contains(&"loop.done"));
    let stats = json!({"total": 10, "completed": 1, "success": 1, "failed": 0, "skipped": 6, "cancelled": 3});
    assert_eq!(result(&desk, id)["stats"], stats);
    for row in &rows[1..] {
        assert_eq!(stopped(&mut desk, row), Ok(()));
    }
    assert_eq!(desk.members[&id].head.status, Status::Completed);
    desk.check();
}

#[test]
fn the_last_report_against_a_completion_by_hand_whoever_is_first_in_the_log() {
    for report_first in [true, false] {
        let mut desk = Desk::new(
            &["
            workflow:
              - step: each
                loop: {in: 1, iterator: i}
                tool: {kind: python, code: x}
            "],
            echo,
        );
        let id = desk.start(0, json!({}));
        let row = desk.pending().unwrap();
        desk.claim(&row);
        let done = Input::Report(Box::new(desk.work(&row)), "desk".into());
        let (inputs, answers) = match report_first {
            true => ([done, by_hand(None)], [Ok(()), Err(Refusal::Ended(Status::Completed))]),
            false => ([by_hand(None), done], [Ok(()), Ok(())]),
        };
        assert_eq!(desk.decide(id, &inputs), answers);
        assert_eq!(desk.members[&id].head.status, Status::Completed);
        assert_eq!(result(&desk, id)["stats"]["completed"], json!(u32::from(report_first)));
        desk.check();
    }
}

#[test]
fn a_step_without_a_running_loop_has_nothing_to_complete() {
    let (mut desk, id, _) = four_running("");
    for step in ["after", "nowhere"] {
        let wish = CompleteLoop { step: step.into(), mode: None, by: "ann".into(), reason: None };
        assert_eq!(desk.decide(id, &[Input::CompleteLoop(Box::new(wish))]), [Err(Refusal::Stale)]);
    }
}

#[test]
fn a_lost_worker_does_not_bring_a_withdrawn_iteration_back() {
    let (mut desk, id, rows) = four_running("complete_when: '{{ stats.success == 1 }}'");
    assert_eq!(report(&mut desk, &rows[0]), Ok(()));
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    assert!(desk.pending().is_none(), "nobody tries it again");
    desk.run();
    let seat = &desk.members[&id];
    assert_eq!(seat.head.status, Status::Completed);
    let Event::ExecutionQuiesced { commands } = &seat.events.last().unwrap().event else { panic!("no certificate") };
    assert_eq!(commands.len(), 3, "they may still run somewhere, and the end says so");
    assert_eq!(desk.calls.len(), 1);
}

#[test]
fn a_loop_of_children_takes_them_along() {
    let parent = "
        apiVersion: noetl.io/v2
        kind: Playbook
        metadata: {path: test/parent}
        workflow:
          - step: each
            loop: {in: 3, iterator: i, spec: {mode: parallel}}
            tool: {kind: playbook, path: test/p1}
        ";
    let child = "
        workflow:
          - {step: start, tool: {kind: python, code: x}}
        ";
    let mut desk = Desk::new(&[&unindent(parent), child], echo);
    let id = desk.start(0, json!({}));
    while desk.members.values().filter(|seat| !seat.commands.is_empty()).count() < 4 {
        assert!(desk.step_without_workers(), "the children start");
    }
    assert_eq!(desk.decide(id, &[by_hand(None)]), [Ok(())]);
    assert_eq!(desk.members[&id].head.status, Status::Completed, "a wait runs nowhere");
    while desk.step_without_workers() {}
    desk.run();
    let cancelled = desk.members.values().filter(|seat| seat.head.status == Status::Cancelled).count();
    assert_eq!(cancelled, 3);
}

fn unindent(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("        ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_loop_of_noops_ends_within_one_decision() {
    let ran = run_with(
        "
        workflow:
          - step: each
            loop: {in: 200, iterator: i, spec: {complete_when: '{{ i == 7 }}'}}
            tool: {kind: noop, result: '{{ i }}'}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.result("each")["stats"]["completed"], json!(8));
    assert_eq!(ran.result("each")["stats"]["skipped"], json!(192));
}

#[test]
fn a_cursor_stops_claiming() {
    let mut claims = 0;
    let ran: Ran = run_with(
        "
        workflow:
          - step: each
            loop:
              cursor: {kind: postgres, auth: db, claim: 'UPDATE … RETURNING id'}
              iterator: row
              spec: {mode: cursor, frame: {max_rows: 2}, complete_when: '{{ iter.row.id == 4 }}'}
            tool: {kind: python, code: x, input: {id: '{{ iter.row.id }}'}}
        ",
        json!({}),
        move |call| match &*call.kind {
            "postgres" => {
                claims += 1;
                ToolOutcome::ok(json!({"rows": [{"id": 2 * claims}, {"id": 2 * claims + 1}]}))
            }
            _ => echo(call),
        },
    );
    assert_eq!(ran.status(), Status::Completed);
    let stats = json!({"total": 4, "completed": 3, "success": 3, "failed": 0, "skipped": 1, "cancelled": 0});
    assert_eq!(ran.result("each")["stats"], stats);
}
