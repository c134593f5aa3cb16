//! Soft and hard errors, and what they make of a run.

use noetl_core::head::Status;
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Desk, Ran, run, run_with};

fn fails(hard: bool) -> impl FnMut(&ToolCall) -> ToolOutcome {
    move |call| {
        if &*call.step == "bad" {
            let error = ToolError { hard, ..ToolError::soft(ErrorKind::Code, "BOOM", "it broke") };
            ToolOutcome::failed(error, json!({"partial": 1}))
        } else {
            ToolOutcome::ok(json!(call.input))
        }
    }
}

const PLAIN: &str = "
    workflow:
      - {step: bad, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
      - {step: end, tool: {kind: python, code: x, input: {status: '{{ bad.status }}', why: '{{ bad.error.message }}', partial: '{{ bad.partial }}'}}}
";

#[test]
fn a_soft_error_leaves_the_step_failed_and_the_run_goes_on() {
    let ran = run_with(PLAIN, json!({}), fails(false));
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.failed_steps(), ["bad"]);
    assert_eq!(ran.result("end"), json!({"status": "error", "why": "it broke", "partial": 1}));
    assert!(ran.log().contains(&"call.error") && ran.log().contains(&"command.failed"));
}

#[test]
fn a_hard_error_fails_the_run_without_looking_at_the_arcs() {
    let ran = run_with(PLAIN, json!({}), fails(true));
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.entered(), ["bad"]);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["message"], json!("it broke"));
}

#[test]
fn an_arc_that_names_failures_catches_a_hard_error() {
    for when in [
        "{{ event.name == 'call.error' }}",
        "{{ event.name == 'step.failed' }}",
        "{{ output.status == 'error' }}",
        "{{ error is defined }}",
    ] {
        let playbook = format!(
            "
            workflow:
              - step: bad
                tool: {{kind: python, code: x}}
                next: {{arcs: [{{step: wrong}}, {{step: rescue, when: \"{when}\"}}]}}
              - {{step: wrong, tool: {{kind: noop}}}}
              - {{step: rescue, tool: {{kind: noop}}}}
            "
        );
        let ran = run_with(&playbook, json!({}), fails(true));
        assert_eq!(ran.status(), Status::Completed, "{when}");
        assert_eq!(ran.entered(), ["bad", "rescue"], "{when}");
        assert_eq!(ran.failed_steps(), Vec::<String>::new(), "{when}");
    }
}

#[test]
fn an_arc_that_rules_failures_out_catches_none() {
    for when in [
        "{{ bad.status != 'error' }}",
        "{{ 'error' != output.status }}",
        // Of another step, these hold.
        "{{ start.status != 'error' }}",
        "{{ start.status not in ['error', 'failed'] }}",
        "{{ start.status not in ('x', \\\"error\\\") }}",
        "{{ start.error is not defined }}",
        "{{ not start.error }}",
        "{{ output.errors is not defined }}",
        "{{ event.name != 'call.error' or true }}",
    ] {
        let playbook = format!(
            "
            workflow:
              - {{step: start, tool: {{kind: noop}}, next: bad}}
              - {{step: bad, tool: {{kind: python, code: x}}, next: {{arcs: [{{step: end, when: \"{when}\"}}]}}}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        );
        let ran = run_with(&playbook, json!({}), fails(true));
        assert_eq!((ran.status(), ran.entered()), (Status::Failed, vec!["start".into(), "bad".into()]), "{when}");
    }
    for when in ["{{ bad.status in ['ok', 'error'] }}", "{{ not (bad.status == 'ok') and bad.error.message }}"] {
        let playbook = format!(
            "
            workflow:
              - {{step: bad, tool: {{kind: python, code: x}}, next: {{arcs: [{{step: end, when: \"{when}\"}}]}}}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        );
        let ran = run_with(&playbook, json!({}), fails(true));
        assert_eq!((ran.status(), ran.entered().len()), (Status::Completed, 2), "{when}");
    }
}

#[test]
fn strict_makes_every_unhandled_error_fail_the_run() {
    let playbook = format!("executor: {{spec: {{strict: true}}}}\n{}", PLAIN.replace("\n    ", "\n"));
    assert_eq!(run_with(&playbook, json!({}), fails(false)).status(), Status::Failed);
}

#[test]
fn a_failing_run_lets_running_work_end_and_then_fails_once() {
    let mut desk = Desk::new(
        &["
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: bad}, {step: slow}]}
          - {step: bad, tool: {kind: python, code: x}}
          - {step: slow, tool: {kind: python, code: x}, next: {arcs: [{step: after}]}}
          - {step: after, tool: {kind: noop}}
        "],
        fails(true),
    );
    let id = desk.start(0, json!({}));
    let rows = desk.members[&id].commands.clone();
    rows.iter().for_each(|row| desk.claim(row));
    let reports: Vec<_> = rows.iter().map(|row| desk.work(row)).collect();
    let mut say = |number: usize| {
        let input = noetl_core::execution::Input::Report(Box::new(reports[number].clone()), "desk".into());
        desk.decide(id, &[input]);
        desk.members[&id].head.status
    };
    assert_eq!(say(0), Status::Running);
    assert_eq!(say(1), Status::Failed);
    let ran = Ran { desk, id };
    assert!(!ran.entered().contains(&"after".to_owned()));
    ran.desk.check();
}

#[test]
fn a_template_that_can_not_be_evaluated_fails_the_step_hard() {
    let ran = run("
        workload: {n: 1}
        workflow:
          - {step: start, tool: {kind: python, code: x, input: {v: \"{{ n + 'a' }}\"}}}
    ");
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!("TEMPLATE"));
}

#[test]
fn a_failed_child_is_a_soft_error_and_an_unknown_one_is_hard() {
    let parent = |path: &str| {
        format!(
            "
            workflow:
              - {{step: start, tool: {{kind: playbook, path: {path}}}, next: {{arcs: [{{step: end}}]}}}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        )
    };
    let child = "
        workflow:
          - {step: bad, tool: {kind: python, code: x}}
    ";
    let mut desk = Desk::new(&[&parent("test/p1"), child], fails(true));
    let id = desk.start(0, json!({}));
    desk.run();
    let ran = Ran { desk, id };
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.failed_steps(), ["start"]);
    assert_eq!(ran.result("start")["error"]["kind"], json!("child"));
    assert!(ran.result("start")["error"]["message"].as_str().unwrap().contains("it broke"));

    let ran = run(&parent("test/nowhere"));
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!("PLAYBOOK_UNKNOWN"));
}

#[test]
fn a_family_that_spawns_itself_is_stopped_by_its_depth() {
    let mut desk = Desk::new(
        &["
        workflow:
          - {step: start, tool: {kind: playbook, path: test/p0}}
        "],
        |_| ToolOutcome::ok(Value::Null),
    );
    let id = desk.start(0, json!({}));
    desk.run();
    assert_eq!(desk.members.len(), 65);
    assert_eq!(desk.members[&id].head.status, Status::Completed);
}
