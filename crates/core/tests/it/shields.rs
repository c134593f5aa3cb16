//! Shields: what a cancel that comes from above does not reach, decided on the head alone.

use noetl_core::control::cancel::{self, Answer, Request};
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::{CancelMode, Shield, compile};
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::Desk;

fn parent(policy: &str) -> String {
    format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: test/parent}}\nworkflow:\n\
         - {{step: start, tool: {{kind: playbook, path: test/p1, spec: {{cancel: {{policy: {policy}}}}}}}}}\n"
    )
}

/// A parent that waits for its child, and that child.
fn family(policy: &str) -> (Desk, ExecutionId, ExecutionId) {
    let child = "
        workflow:
          - {step: start, tool: {kind: python, code: x}}
        ";
    family_of(policy, child)
}

/// The same with a child that is at hand.
fn family_of(policy: &str, child: &str) -> (Desk, ExecutionId, ExecutionId) {
    let mut desk = Desk::new(&[&parent(policy), child], |_| ToolOutcome::ok(json!({})));
    let id = desk.start(0, json!({}));
    while desk.pending().is_none() {
        assert!(desk.step());
    }
    let child = desk.members.values().find(|seat| seat.head.parent_execution_id == Some(id)).unwrap();
    let child = child.head.execution_id;
    (desk, id, child)
}

/// What a cascade from `requested` decides for `id`.
fn cascade(desk: &mut Desk, requested: ExecutionId, id: ExecutionId) -> Answer {
    let request = Request {
        requested_execution_id: requested,
        job_id: None,
        reason: None,
        cancelled_by: "api".into(),
        requested_by: None,
        remote: None,
        cascade: true,
        mode: Some(CancelMode::Interrupt),
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    };
    let mut kept = None;
    desk.control(id, |view, now, ids| {
        let answer = cancel::decide(view, &request, now, ids);
        let append = match &answer {
            Answer::Cancelled { append, .. } | Answer::Escalated { append, .. } => Some((**append).clone()),
            Answer::Spared(_) | Answer::AlreadyEnded | Answer::Repeated { .. } => None,
        };
        kept = Some(answer);
        append
    });
    kept.unwrap()
}

#[test]
fn a_child_is_born_with_its_shield_and_spared_by_a_cascade_from_above() {
    for (policy, shield) in [("abandon", Some(Shield::Abandon)), ("wait", Some(Shield::Wait)), ("cancel", None)] {
        let (mut desk, id, child) = family(policy);
        assert_eq!(desk.members[&child].head.shield, shield, "{policy}");
        assert!(matches!(cascade(&mut desk, id, id), Answer::Cancelled { .. }));
        let answer = cascade(&mut desk, id, child);
        match shield {
            Some(shield) => {
                assert_eq!(answer, Answer::Spared(shield));
                // It ends in its own time, and nobody is told.
                desk.run();
                assert_eq!(desk.members[&child].head.status, Status::Completed);
                assert_eq!(cascade(&mut desk, id, child), Answer::AlreadyEnded);
            }
            None => assert!(matches!(answer, Answer::Cancelled { .. })),
        }
        desk.check();
    }
}

#[test]
fn who_names_the_child_itself_reaches_it() {
    let (mut desk, id, child) = family("abandon");
    assert!(matches!(cascade(&mut desk, child, child), Answer::Cancelled { .. }));
    // A cancel from above does not escalate it either.
    assert_eq!(cascade(&mut desk, id, child), Answer::AlreadyEnded);
    desk.run();
    assert_eq!(desk.members[&id].head.status, Status::Completed, "its step has a soft error");
}

#[test]
fn the_cleanup_of_a_shielded_child_has_no_shield_of_its_own() {
    let child = "
        executor: {spec: {on_cancel: tell}}
        workflow:
          - {step: start, tool: {kind: python, code: x}}
          - {step: tell, tool: {kind: python, code: x}}
        ";
    let (mut desk, _, child) = family_of("abandon", child);
    assert!(matches!(cascade(&mut desk, child, child), Answer::Cancelled { .. }));
    desk.run();
    let cleanup = desk.members.values().find(|seat| seat.head.cleanup_of == Some(child)).unwrap();
    assert_eq!((cleanup.head.status, cleanup.head.shield), (Status::Completed, None));
    desk.check();
}

#[test]
fn a_shield_is_for_a_child_and_has_three_words() {
    assert!(compile(&parent("wait")).is_ok());
    let says = |source: &str| format!("{:?}", compile(source).unwrap_err());
    let wrong = says(&parent("abandn"));
    assert!(wrong.contains("abandon"), "{wrong}");
    let elsewhere = parent("wait").replace("kind: playbook, path: test/p1", "kind: python, code: x");
    let elsewhere = says(&elsewhere);
    assert!(elsewhere.contains("a python task starts no child to be shielded"), "{elsewhere}");
}
