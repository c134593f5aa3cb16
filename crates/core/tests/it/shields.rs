//! Shields: what a cancel that comes from above does not reach, decided on the head alone.

use noetl_core::control::cancel::Answer;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::{Shield, compile};
use noetl_core::properties::{Property, check_edges};
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::{Desk, interrupt};

/// Which promises about the edges of a family are broken, when a cascade from `requested` was answered as complete.
fn broken(desk: &Desk, requested: ExecutionId) -> Vec<Property> {
    let heads = desk.members.iter().map(|(id, seat)| (*id, &seat.head)).collect();
    check_edges(&heads, &[requested].into()).into_iter().map(|violation| violation.property).collect()
}

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
    family_of(policy, &[child])
}

/// The same with a child that is at hand, and what it starts.
fn family_of(policy: &str, below: &[&str]) -> (Desk, ExecutionId, ExecutionId) {
    let parent = parent(policy);
    let mut desk = Desk::new(&[&[parent.as_str()], below].concat(), |_| ToolOutcome::ok(json!({})));
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
    desk.cancel(id, &interrupt(requested, "api", true))
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
fn the_promises_hold_a_shield_to_be_an_end_of_the_family_for_those_above_it_alone() {
    for (policy, escapes) in [("abandon", vec![]), ("cancel", vec![Property::NoEscapee])] {
        let (mut desk, id, _) = family(policy);
        cascade(&mut desk, id, id);
        // Nobody has walked on to the child.
        assert_eq!(broken(&desk, id), escapes, "{policy}");
    }
    // A cascade from the child itself leaves it no way out.
    let middle = "workflow: [{step: start, tool: {kind: playbook, path: test/p2}}]";
    let leaf = "workflow: [{step: start, tool: {kind: python, code: x}}]";
    let (mut desk, id, child) = family_of("abandon", &[middle, leaf]);
    cascade(&mut desk, child, child);
    let below = desk.members.values().find(|seat| seat.head.parent_execution_id == Some(child)).unwrap();
    assert_eq!((below.head.shield, broken(&desk, id)), (None, vec![]));
    assert_eq!(broken(&desk, child), [Property::NoEscapee]);
    // And nobody is cancelled through what it is shielded from.
    for (policy, provenance) in [("abandon", vec![Property::Provenance]), ("cancel", vec![])] {
        let (mut desk, id, child) = family(policy);
        cascade(&mut desk, child, child);
        assert_eq!(broken(&desk, child), vec![]);
        desk.members.get_mut(&child).unwrap().head.cancel.as_mut().unwrap().requested_execution_id = id;
        assert_eq!(broken(&desk, child), provenance, "{policy}");
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
    let (mut desk, _, child) = family_of("abandon", &[child]);
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
