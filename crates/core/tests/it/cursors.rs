//! Cursor loops: claims until there is nothing left, rows and frames, losses, cancels, errors.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use noetl_core::control::{cancel, lease};
use noetl_core::execution::Input;
use noetl_core::execution::cursor::CURSOR_RESULTS_MAX;
use noetl_core::head::Status;
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Desk, Ran, run_with};

/// A table of work: a claim takes rows from its front, and `more` may put some on.
type Table = Rc<RefCell<VecDeque<Value>>>;

fn table(rows: impl IntoIterator<Item = i64>) -> Table {
    Rc::new(RefCell::new(rows.into_iter().map(|id| json!({"id": id})).collect()))
}

/// Claims as many rows as the statement asks for; other calls give their arguments back.
fn tools(table: &Table) -> impl FnMut(&ToolCall) -> ToolOutcome + use<> {
    let table = Rc::clone(table);
    move |call| {
        if &*call.kind != "postgres" {
            return ToolOutcome::ok(json!(call.input));
        }
        assert_eq!(call.config["auth"], json!("pg"));
        let asked = call.config["query"].as_str().and_then(|query| query.strip_prefix("CLAIM "));
        let most: usize = asked.expect("a claim").parse().expect("a number of rows");
        let mut table = table.borrow_mut();
        let most = most.min(table.len());
        let rows: Vec<_> = table.drain(..most).collect();
        ToolOutcome::ok(json!({"row_count": rows.len(), "rows": rows, "columns": ["id"]}))
    }
}

fn playbook(spec: &str, tool: &str) -> String {
    format!(
        "
        workload: {{size: 2}}
        workflow:
          - step: start
            loop:
              cursor: {{kind: postgres, credential: pg, claim: 'CLAIM {{{{ __frame_max_rows | default(9) | int }}}}'}}
              iterator: row
              spec: {{mode: cursor{spec}}}
            tool: {tool}
            next: {{arcs: [{{step: end, when: \"{{{{ event.name == 'loop.done' }}}}\"}}]}}
          - {{step: end, tool: {{kind: noop}}}}
        "
    )
}

const ROW: &str = "{kind: python, code: x, input: {id: '{{ iter.row.id }}', index: '{{ _index }}'}}";

fn ids(ran: &Ran) -> Vec<i64> {
    let result = ran.result("start");
    result["results"].as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()).collect()
}

fn claims(ran: &Ran) -> usize {
    ran.log().iter().filter(|name| **name == "loop.claimed").count()
}

#[test]
fn rows_are_claimed_until_a_claim_returns_none() {
    let ran =
        run_with(&playbook(", frame: {max_rows: '{{ size }}', process: row}", ROW), json!({}), tools(&table(0..5)));
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ids(&ran), [0, 1, 2, 3, 4]);
    assert_eq!(claims(&ran), 4);
    let result = ran.result("start");
    assert_eq!(result["stats"], json!({"total": 5, "completed": 5, "success": 5, "failed": 0, "skipped": 0}));
    assert_eq!(result["results"][4], json!({"id": 4, "index": 4, "row": {"id": 4}}));
    assert_eq!(ran.entered(), ["start", "end"], "claims and rows are no visits");
    assert_eq!(ran.log().iter().filter(|name| **name == "loop.done").count(), 1);
}

#[test]
fn without_max_rows_a_claim_asks_for_one() {
    let ran = run_with(&playbook("", ROW), json!({}), tools(&table(0..3)));
    assert_eq!((ids(&ran), claims(&ran)), (vec![0, 1, 2], 4));
}

#[test]
fn an_empty_table_ends_the_loop_at_once() {
    let ran = run_with(&playbook("", ROW), json!({}), tools(&table([])));
    assert_eq!((ran.status(), claims(&ran)), (Status::Completed, 1));
    assert_eq!(ran.result("start")["results"], json!([]));
    assert_eq!(ran.entered(), ["start", "end"]);
}

#[test]
fn a_frame_may_be_processed_whole() {
    let tool = "{kind: python, code: x, input: {n: '{{ row | length }}', first: '{{ iter.row[0].id }}'}}";
    let ran = run_with(&playbook(", frame: {max_rows: 2, process: frame}", tool), json!({}), tools(&table(0..5)));
    let seen: Vec<_> = ran.result("start")["results"].as_array().unwrap().iter().map(|one| one["n"].clone()).collect();
    assert_eq!(seen, [json!(2), json!(2), json!(1)]);
    assert_eq!(ran.result("start")["stats"]["total"], json!(3));
}

#[test]
fn work_that_the_body_adds_is_claimed_as_well() {
    let table = table([1]);
    let (mut claim, work) = (tools(&table), Rc::clone(&table));
    let ran = run_with(&playbook(", max_in_flight: 3", ROW), json!({}), move |call| {
        if let Some(id) = call.input.get("id").and_then(Value::as_i64).filter(|id| *id < 6) {
            work.borrow_mut().push_back(json!({"id": id + 1}));
        }
        claim(call)
    });
    assert_eq!(ids(&ran), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn claimers_rows_and_their_limits_are_kept() {
    let spec = ", max_in_flight: 2, frame: {max_rows: 3, row_concurrency: 2}";
    let mut desk = Desk::new(&[&playbook(spec, ROW)], tools(&table(0..12)));
    let id = desk.start(0, json!({}));
    let (mut most_claims, mut most_rows) = (0, 0);
    loop {
        let commands = &desk.members[&id].commands;
        let rows = commands.iter().filter(|row| row.iteration.is_some()).count();
        most_rows = most_rows.max(rows);
        most_claims = most_claims.max(commands.len() - rows);
        if !desk.step() {
            break;
        }
    }
    assert_eq!((most_claims, most_rows), (2, 4));
    let ran = Ran { desk, id };
    assert_eq!((ran.status(), ids(&ran).len()), (Status::Completed, 12));
}

#[test]
fn results_stand_in_the_order_in_which_rows_were_claimed() {
    let spec = ", frame: {max_rows: 4, row_concurrency: 4}";
    let mut desk = Desk::new(&[&playbook(spec, ROW)], tools(&table([7, 3, 9])));
    let id = desk.start(0, json!({}));
    desk.step();
    let rows = desk.members[&id].commands.clone();
    assert_eq!(rows.len(), 3);
    for row in rows.iter().rev() {
        desk.claim(row);
        let report = desk.work(row);
        desk.decide(id, &[Input::Report(Box::new(report), "desk".into())]);
    }
    desk.run();
    assert_eq!(ids(&Ran { desk, id }), [7, 3, 9]);
}

#[test]
fn results_are_kept_up_to_a_limit_and_all_are_counted() {
    let total = i64::from(CURSOR_RESULTS_MAX) + 5;
    let spec = ", max_in_flight: 4, frame: {max_rows: 100, row_concurrency: 10}";
    let tool = "{kind: noop, result: {id: '{{ iter.row.id }}'}}";
    let ran = run_with(&playbook(spec, tool), json!({}), tools(&table(0..total)));
    assert_eq!(ran.status(), Status::Completed);
    let result = ran.result("start");
    assert_eq!(result["results"].as_array().unwrap().len(), CURSOR_RESULTS_MAX as usize);
    assert_eq!((&result["stats"]["total"], &result["results_omitted"]), (&json!(total), &json!(5)));
}

#[test]
fn a_pipeline_runs_per_row_and_a_failed_row_does_not_stop_the_others() {
    let tool = "[{name: one, kind: python, code: x, input: {id: '{{ iter.row.id }}'}}, {name: two, kind: python, code: x, input: {id: '{{ one.id }}'}}]";
    let mut claim = tools(&table(0..3));
    let ran = run_with(&playbook("", tool), json!({}), move |call| {
        match &*call.label == "two" && call.input["id"] == json!(1) {
            true => ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "BOOM", "it broke"), Value::Null),
            false => claim(call),
        }
    });
    assert_eq!((ran.status(), ran.failed_steps()), (Status::Completed, vec!["start".to_owned()]));
    assert_eq!(ran.result("start")["stats"]["failed"], json!(1));
    assert_eq!(ran.result("start")["results"][2]["two"]["id"], json!(2));
}

#[test]
fn a_claim_that_fails_fails_the_step_after_the_claimed_rows_have_ended() {
    let spec = ", max_in_flight: 2, frame: {max_rows: 2}";
    let mut claim = tools(&table(0..2));
    let mut claims = 0;
    let ran = run_with(&playbook(spec, ROW), json!({}), move |call| {
        claims += usize::from(&*call.kind == "postgres");
        match &*call.kind == "postgres" && claims > 1 {
            true => ToolOutcome::failed(ToolError::hard(ErrorKind::Unknown, "PG_42601", "syntax error"), Value::Null),
            false => claim(call),
        }
    });
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!("PG_42601"));
    assert_eq!(ran.desk.calls.iter().filter(|call| *call == "start/start").count(), 2);
    assert_eq!(ran.failed_steps(), ["start"]);
}

#[test]
fn a_claim_without_returning_is_told_so() {
    let ran = run_with(&playbook("", ROW), json!({}), |_| ToolOutcome::ok(json!({"affected_rows": 3})));
    let error = ran.seat().head.error.clone().unwrap();
    assert_eq!(ran.status(), Status::Failed);
    assert!(error["message"].as_str().unwrap().contains("RETURNING"), "{error}");
}

/// The worker dies between the commit of a claim and its report: the next attempt claims other rows, and the run ends.
#[test]
fn a_lost_claim_is_tried_again() {
    let mut desk = Desk::new(&[&playbook("", ROW)], tools(&table(0..2)));
    let id = desk.start(0, json!({}));
    let row = desk.pending().expect("a claim");
    desk.claim(&row);
    let late = desk.work(&row);
    assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    desk.run();
    assert!(desk.decide(id, &[Input::Report(Box::new(late), "desk".into())])[0].is_err());
    let ran = Ran { desk, id };
    assert_eq!((ran.status(), ids(&ran)), (Status::Completed, vec![1]));
}

#[test]
fn a_claim_lost_too_often_fails_the_run() {
    let mut desk = Desk::new(&[&playbook("", ROW)], tools(&table(0..2)));
    let id = desk.start(0, json!({}));
    for _ in 0..4 {
        let row = desk.pending().expect("a claim");
        desk.claim(&row);
        assert!(desk.control(id, |view, now, ids| lease::lose(view, SessionId(7), now, ids)));
    }
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Failed);
    assert_eq!(desk.members[&id].head.error.as_ref().unwrap()["kind"], json!("worker_lost"));
}

#[test]
fn a_cancel_stops_claims_and_rows_like_any_command() {
    let request = |id: ExecutionId| cancel::Request {
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
    for steps in 0..4 {
        let mut desk = Desk::new(&[&playbook(", max_in_flight: 2", ROW)], tools(&table(0..9)));
        let id = desk.start(0, json!({}));
        (0..steps).for_each(|_| assert!(desk.step()));
        let row = desk.pending().expect("a claim or a row");
        desk.claim(&row);
        desk.control(id, |view, now, ids| match cancel::decide(view, &request(id), now, ids) {
            cancel::Answer::Cancelled { append, .. } => Some(*append),
            other => panic!("{other:?}"),
        });
        let calls = desk.calls.len();
        assert!(!desk.step(), "nothing is left to do");
        assert_eq!((desk.members[&id].head.status, desk.calls.len()), (Status::Cancelled, calls));
        desk.check();
    }
}

#[test]
fn an_endless_claim_is_cut_off() {
    let tool = "{kind: noop}";
    let spec = ", frame: {max_rows: 10000, process: frame}";
    let mut desk = Desk::new(&[&playbook(spec, tool)], |_| ToolOutcome::ok(json!({"rows": vec![1; 10_001]})));
    let id = desk.start(0, json!({}));
    desk.run();
    assert_eq!(desk.members[&id].head.error.as_ref().unwrap()["code"], json!("LOOP_ITEMS"));
}
