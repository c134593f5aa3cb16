//! Concurrency keys: who starts, who gives way, who is turned away.

use noetl_core::event::Event;
use noetl_core::execution::draft::StartRefusal;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::compile;
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::Desk;

fn keyed(on_conflict: &str, limit: u32) -> String {
    format!(
        "
    executor: {{spec: {{concurrency: {{key: 'customer-{{{{ workload.customer }}}}', limit: {limit}, on_conflict: {on_conflict}}}}}}}
    workload: {{customer: 7}}
    workflow:
      - {{step: start, tool: {{kind: python, code: x}}}}
"
    )
}

fn desk(playbooks: &[&str]) -> Desk {
    Desk::new(playbooks, |_| ToolOutcome::ok(json!({})))
}

fn status(desk: &Desk, id: ExecutionId) -> Status {
    desk.members[&id].head.status
}

fn log(desk: &Desk, id: ExecutionId) -> Vec<&'static str> {
    desk.members[&id].events.iter().map(|recorded| noetl_core::event::row::wire_name(&recorded.event)).collect()
}

#[test]
fn the_newest_displaces_the_oldest_over_the_limit() {
    let mut desk = desk(&[&keyed("cancel_running", 2)]);
    let first = desk.start(0, json!({}));
    let second = desk.start(0, json!({}));
    let other = desk.start(0, json!({"customer": 8}));
    assert_eq!(desk.members[&first].head.concurrency_key.as_deref(), Some("customer-7"));
    let third = desk.start(0, json!({}));
    desk.run();
    let all = [first, second, third, other].map(|id| status(&desk, id));
    assert_eq!(all, [Status::Cancelled, Status::Completed, Status::Completed, Status::Completed]);
    let cancel = desk.members[&first].head.cancel.clone().unwrap();
    assert_eq!((cancel.cancelled_by.as_str(), cancel.cascade), ("concurrency", true));
}

#[test]
fn the_new_one_is_cancelled_where_it_begins_and_later_ones_start() {
    let mut desk = desk(&[&keyed("cancel_new", 1)]);
    let first = desk.start(0, json!({}));
    let second = desk.start(0, json!({}));
    assert_eq!(log(&desk, second), ["playbook.initialized", "execution.cancelled", "execution.quiesced"]);
    let Event::ExecutionCancelled(cancelled) = &desk.members[&second].events[1].event else { panic!("not cancelled") };
    assert_eq!(cancelled.cancelled_by, "concurrency");
    assert_eq!(
        cancelled.reason.as_deref(),
        Some(format!("execution {first} has its concurrency key `customer-7`").as_str())
    );
    desk.run();
    assert_eq!((status(&desk, first), status(&desk, second)), (Status::Completed, Status::Cancelled));
    let third = desk.start(0, json!({}));
    desk.run();
    assert_eq!(status(&desk, third), Status::Completed, "whoever has ended has left the key");
}

#[test]
fn a_refused_start_names_who_has_the_key() {
    let mut desk = desk(&[&keyed("reject", 1)]);
    let first = desk.start(0, json!({}));
    let refusal = desk.try_start(0, json!({}), false).unwrap_err();
    assert_eq!(refusal.to_string(), format!("concurrency key `customer-7` is held by execution {first} (limit 1)"));
    assert_eq!(desk.members.len(), 1, "nothing was written");
    // Two playbooks may share a key: whoever asks for it, it is the same one.
    desk.run();
    desk.start(0, json!({}));
}

#[test]
fn a_key_that_tells_nothing_apart_starts_nothing() {
    let mut desk =
        desk(&[&keyed("reject", 1).replace("'customer-{{ workload.customer }}'", "'{{ workload.customer }}'")]);
    for customer in [json!(null), json!(""), json!([1]), json!("a\nb"), json!("x".repeat(600))] {
        let refusal = desk.try_start(0, json!({ "customer": customer }), false);
        assert!(matches!(refusal, Err(StartRefusal::Key { .. })), "{customer}: {refusal:?}");
    }
    let numbered = desk.start(0, json!({"customer": 9}));
    assert_eq!(desk.members[&numbered].head.concurrency_key.as_deref(), Some("9"));
}

#[test]
fn children_of_one_loop_take_turns_or_fail_their_iteration() {
    let parent = "
    workflow:
      - step: start
        loop: {in: 3, iterator: i, spec: {mode: parallel}}
        tool: {kind: playbook, path: test/p1}
    ";
    let mut desk = desk(&[parent, &keyed("reject", 1)]);
    let id = desk.start(0, json!({}));
    desk.run();
    assert_eq!(desk.members.len(), 2, "one child");
    let held: Vec<_> = desk.members[&id]
        .events
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::CallDone(call) => call.error.as_ref().map(|error| error["code"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(held, ["CONCURRENCY_KEY_HELD", "CONCURRENCY_KEY_HELD"]);
}

#[test]
fn what_is_missing_in_a_playbook_is_said() {
    for (spec, found) in [
        ("{on_conflict: reject}", "`concurrency` has no `key`"),
        ("{key: a}", "`concurrency` does not say `on_conflict`"),
        ("{key: a, on_conflict: cancel}", "cancel"),
        ("{key: a, on_conflict: reject, limit: 0}", "limit"),
        ("{key: a, on_conflict: reject, limit: 1001}", "at most 1000"),
        ("a", "mapping"),
    ] {
        let source = format!(
            "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: p}}\nexecutor: {{spec: {{concurrency: {spec}}}}}\n\
             workflow: [{{step: start, tool: {{kind: noop}}}}]\n"
        );
        let findings = compile(&source).unwrap_err();
        assert!(findings.iter().any(|finding| finding.message.contains(found)), "{spec}: {findings:?}");
    }
}
