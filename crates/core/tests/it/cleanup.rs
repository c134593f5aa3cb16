//! Cleaning up after a cancel: what is run, in which order, with what at hand; and that it happens once.

use noetl_core::control::cancel::{self, Answer, BY_TIMEOUT, Request};
use noetl_core::control::settle;
use noetl_core::event::Event;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::{CancelMode, compile};
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Desk, Ran};

/// Books a flight, then a hotel, then waits; each booking can be undone, and in the end somebody is told.
const TRIP: &str = "
    executor: {spec: {on_cancel: tell}}
    workload: {customer: 7}
    workflow:
      - step: flight
        tool: {kind: python, code: x}
        set: {ctx.flight: '{{ output.number }}'}
        spec: {compensate: cancel_flight}
        next: {arcs: [{step: hotel}]}
      - step: hotel
        tool: {kind: python, code: x}
        spec: {compensate: cancel_hotel}
        next: {arcs: [{step: pay}]}
      - step: pay
        tool: {kind: python, code: x}
        spec: {compensate: refund}
        next: {arcs: [{step: end}]}
      - {step: end, tool: {kind: noop}}
      - {step: cancel_flight, tool: {kind: python, input: {flight: '{{ ctx.flight }}', undone: '{{ result.number }}'}, code: x}}
      - {step: cancel_hotel, tool: {kind: python, input: {hotel: '{{ hotel.number }}'}, code: x}, next: {arcs: [{step: hotel_told}]}}
      - {step: hotel_told, tool: {kind: python, code: x}}
      - {step: refund, tool: {kind: python, input: {paid: '{{ pay.number }}'}, code: x}}
      - step: tell
        tool:
          kind: python
          input:
            why: '{{ cancellation.reason }}'
            who: '{{ cancellation.cancelled_by }}'
            whose: '{{ cancellation.execution_id }}'
            customer: '{{ workload.customer }}'
            late: '{{ cancellation.late | length }}'
          code: x
";

fn number(call: &ToolCall) -> ToolOutcome {
    let number = match &*call.step {
        "flight" => 11,
        "hotel" => 22,
        "pay" => 33,
        _ => 0,
    };
    ToolOutcome::ok(json!({ "number": number, "input": call.input.clone() }))
}

fn request(id: ExecutionId) -> Request {
    Request {
        job_id: None,
        requested_execution_id: id,
        reason: Some("the customer is ill".into()),
        cancelled_by: "ann".into(),
        requested_by: None,
        remote: None,
        cascade: false,
        mode: None,
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    }
}

fn cancel_as(desk: &mut Desk, id: ExecutionId, request: &Request) {
    assert!(desk.control(id, |view, now, ids| match cancel::decide(view, request, now, ids) {
        Answer::Cancelled { append, .. } => Some(*append),
        other => panic!("{other:?}"),
    }));
}

fn cancel(desk: &mut Desk, id: ExecutionId) {
    cancel_as(desk, id, &request(id));
}

/// Returns the cleanup of an execution, which the cancel has named.
fn cleanup_of(desk: &Desk, id: ExecutionId) -> Option<ExecutionId> {
    let named = desk.members[&id].head.cancel.as_ref().and_then(|cancel| cancel.cleanup);
    let all = desk.members.values().map(|seat| &seat.head).filter(|head| head.cleanup_of == Some(id));
    let all: Vec<_> = all.map(|head| head.execution_id).collect();
    assert!(all.len() <= 1, "one cleanup");
    assert!(all.is_empty() || all.first() == named.as_ref(), "the one that was named");
    all.first().copied()
}

fn entered(desk: &Desk, id: ExecutionId) -> Vec<String> {
    let entered = desk.members[&id].events.iter().filter_map(|recorded| match &recorded.event {
        Event::StepEnter { step, .. } => Some(step.to_string()),
        _ => None,
    });
    entered.collect()
}

fn until(desk: &mut Desk, step: &str) {
    while desk.pending().is_none_or(|row| &*row.step != step) {
        assert!(desk.step(), "`{step}` never begins");
    }
}

fn result(desk: Desk, id: ExecutionId, step: &str) -> Value {
    Ran { desk, id }.result(step)
}

#[test]
fn what_did_well_is_undone_last_first_and_then_on_cancel_has_its_say() {
    let mut desk = Desk::new(&[TRIP], number);
    let id = desk.start(0, json!({"customer": 8}));
    until(&mut desk, "pay");
    cancel(&mut desk, id);
    let cleanup = cleanup_of(&desk, id).expect("nothing was in flight: the proof came with the decision");
    let head = desk.members[&cleanup].head.clone();
    assert_eq!((head.parent_execution_id, head.root_execution_id, head.depth), (None, cleanup, 0));
    desk.run();
    assert_eq!(entered(&desk, cleanup), ["cancel_hotel", "hotel_told", "cancel_flight", "tell"]);
    assert_eq!(desk.members[&cleanup].head.status, Status::Completed);
    assert_eq!(desk.members[&id].head.status, Status::Cancelled, "the cancelled one stays as it ended");
    let told = result(desk, cleanup, "tell")["input"].clone();
    assert_eq!(told["whose"], json!(id.to_string()));
    assert_eq!(
        (&told["why"], &told["who"], &told["customer"], &told["late"]),
        (&json!("the customer is ill"), &json!("ann"), &json!(8), &json!(0))
    );
}

#[test]
fn a_compensation_has_the_variables_and_the_result_of_what_it_undoes() {
    let mut desk = Desk::new(&[TRIP], number);
    let id = desk.start(0, json!({}));
    until(&mut desk, "pay");
    cancel(&mut desk, id);
    let cleanup = cleanup_of(&desk, id).unwrap();
    desk.run();
    assert_eq!(result(desk, cleanup, "cancel_flight")["input"], json!({"flight": 11, "undone": 11}));
}

#[test]
fn a_result_that_comes_late_is_undone_too_and_the_cleanup_waits_for_it() {
    let mut desk = Desk::new(&[TRIP], number);
    let id = desk.start(0, json!({}));
    until(&mut desk, "pay");
    let row = desk.pending().unwrap();
    desk.claim(&row);
    cancel(&mut desk, id);
    assert_eq!(cleanup_of(&desk, id), None, "something of it runs");
    assert!(desk.members[&id].head.cancel.as_ref().is_some_and(|cancel| cancel.cleanup.is_some()), "it is named");
    let report = desk.work(&row);
    assert!(desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    let cleanup = cleanup_of(&desk, id).unwrap();
    assert!(
        !desk.members[&id].execution.steps.contains_key("pay")
            || desk.members[&id].execution.steps["pay"].result.is_none()
    );
    // The same report once more brings nothing more.
    assert!(!desk.control(id, |view, now, ids| settle::decide(view, &report, "desk", now, ids)));
    desk.run();
    assert_eq!(entered(&desk, cleanup), ["refund", "cancel_hotel", "hotel_told", "cancel_flight", "tell"]);
    assert_eq!(cleanup_of(&desk, id), Some(cleanup));
    assert_eq!(desk.members[&cleanup].execution.steps["refund"].error, None);
    let told = desk.members[&cleanup].execution.cleaning.clone().unwrap().late;
    assert_eq!((told.len(), &*told[0].step), (1, "pay"));
    assert_eq!(result(desk, cleanup, "refund")["input"], json!({"paid": 33}));
}

#[test]
fn what_has_begun_nothing_has_only_on_cancel() {
    let mut desk = Desk::new(&[TRIP], number);
    let id = desk.start(0, json!({}));
    cancel(&mut desk, id);
    let cleanup = cleanup_of(&desk, id).unwrap();
    desk.run();
    assert_eq!(entered(&desk, cleanup), ["tell"]);
    // With nothing to be told and nothing to be undone there is no cleanup at all.
    let mut desk = Desk::new(&[&TRIP.replace("executor: {spec: {on_cancel: tell}}", "executor: {}")], number);
    let id = desk.start(0, json!({}));
    cancel(&mut desk, id);
    assert_eq!(desk.members[&id].head.cancel.as_ref().unwrap().cleanup, None);
    assert_eq!(desk.members.len(), 1);
}

#[test]
fn one_that_fails_does_not_keep_the_others_from_being_undone() {
    let mut desk = Desk::new(&[TRIP], |call| {
        if &*call.step == "cancel_hotel" {
            return ToolOutcome::failed(ToolError::hard(ErrorKind::Connection, "GONE", "no answer"), Value::Null);
        }
        number(call)
    });
    let id = desk.start(0, json!({}));
    until(&mut desk, "pay");
    cancel(&mut desk, id);
    let cleanup = cleanup_of(&desk, id).unwrap();
    desk.run();
    assert_eq!(entered(&desk, cleanup), ["cancel_hotel", "cancel_flight", "tell"]);
    let head = &desk.members[&cleanup].head;
    assert_eq!((head.status, head.error.as_ref().unwrap()["message"].as_str()), (Status::Failed, Some("no answer")));
}

#[test]
fn a_cleanup_can_be_cancelled_and_that_leaves_nothing() {
    let mut desk = Desk::new(&[TRIP], number);
    let id = desk.start(0, json!({}));
    cancel(&mut desk, id);
    let cleanup = cleanup_of(&desk, id).unwrap();
    until(&mut desk, "tell");
    cancel(&mut desk, cleanup);
    desk.run();
    assert_eq!(desk.members[&cleanup].head.status, Status::Cancelled);
    assert_eq!((desk.members.len(), cleanup_of(&desk, cleanup)), (2, None));
}

#[test]
fn a_run_that_ends_by_itself_or_by_its_time_limit_is_not_cleaned_up() {
    let mut desk = Desk::new(&[TRIP], number);
    desk.start(0, json!({}));
    desk.run();
    let late = desk.start(0, json!({}));
    let limit = Request { cancelled_by: BY_TIMEOUT.to_owned(), ..request(late) };
    cancel_as(&mut desk, late, &limit);
    desk.run();
    assert_eq!((desk.members[&late].head.status, desk.members.len()), (Status::Failed, 2));
}

#[test]
fn steps_that_only_a_cleanup_runs_are_no_mistake_and_unknown_ones_are() {
    let source = |text: &str| {
        let body: Vec<_> = text.lines().map(|line| line.get(4..).unwrap_or("")).collect();
        format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: p}}\n{}", body.join("\n"))
    };
    let compiled = compile(&source(TRIP)).unwrap();
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
    let executor = &compiled.playbook.executor;
    assert_eq!(executor.cleanup_timeout_ms, None);
    let findings = compile(&source(&TRIP.replace("compensate: refund", "compensate: refnd"))).unwrap_err();
    assert!(findings.iter().any(|finding| finding.to_string().contains("refnd")), "{findings:?}");
}
