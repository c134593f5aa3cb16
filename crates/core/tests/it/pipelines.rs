//! Pipelines and policies: shapes, order, retries, jumps.

use std::cell::Cell;
use std::rc::Rc;

use noetl_core::head::Status;
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::run_with;

fn echo(call: &ToolCall) -> ToolOutcome {
    ToolOutcome::ok(json!(call.input))
}

fn boom() -> ToolOutcome {
    ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "PYTHON_EXCEPTION", "boom"), Value::Null)
}

#[test]
fn a_list_of_one_task_is_a_pipeline_and_a_mapping_is_not() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool: {kind: python, code: x, input: {a: 1}}
            next: {arcs: [{step: list}]}
          - step: list
            tool: [{name: only, kind: python, code: x, input: {a: 2}}]
            next: {arcs: [{step: read}]}
          - step: read
            tool:
              kind: python
              code: x
              input:
                single: '{{ start.a }}'
                data: '{{ start.data.a }}'
                label: '{{ list.only.a }}'
                flat: '{{ list.a }}'
                results: '{{ list.results.only.a }}'
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.result("start"), json!({"a": 1}));
    assert_eq!(ran.result("list"), json!({"only": {"a": 2}, "a": 2}));
    assert_eq!(ran.result("read"), json!({"single": 1, "data": 1, "label": 2, "flat": 2, "results": 2}));
}

#[test]
fn later_tasks_see_earlier_ones_by_label_and_as_output_and_by_set() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - {name: one, kind: python, code: x, input: {v: 1}, set: {kept: '{{ output }}'}}
              - {name: two, kind: python, code: x, input: {v: '{{ one.v + 1 }}', prev: '{{ output.v }}', k: '{{ kept.v }}', d: '{{ kept.data.v }}'}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.result("start")["two"]["v"], json!(2));
    assert_eq!(ran.result("start")["two"]["prev"], json!(1));
    assert_eq!(ran.result("start")["two"]["k"], json!(1));
    // A later task's fields win over an earlier one's.
    assert_eq!(ran.result("start")["v"], json!(2));
}

#[test]
fn a_retry_counts_total_executions_and_waits_between_them() {
    for (attempts, expected) in [(3, Status::Completed), (2, Status::Completed)] {
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let playbook = format!(
            "
            workflow:
              - step: start
                tool:
                  kind: python
                  code: x
                  spec:
                    policy:
                      rules:
                        - when: \"{{{{ output.status == 'error' }}}}\"
                          then: {{do: retry, attempts: {attempts}, delay: 60, backoff: exponential}}
            "
        );
        let ran = run_with(&playbook, json!({}), move |_| {
            counted.set(counted.get() + 1);
            if counted.get() < 3 { boom() } else { ToolOutcome::ok(json!({"tries": counted.get()})) }
        });
        assert_eq!(ran.status(), expected);
        assert_eq!(calls.get(), attempts);
        // The waits are too long for a slot: the command is suspended, and resumed under the next epoch.
        let suspensions = ran.log().iter().filter(|name| **name == "command.suspended").count();
        assert_eq!(suspensions, attempts as usize - 1);
        if attempts == 3 {
            assert_eq!(ran.result("start"), json!({"tries": 3}));
            assert_eq!(ran.seat().head.updated_at.since_ms(ran.seat().head.started_at), 60_000 + 120_000);
        } else {
            assert_eq!(ran.failed_steps(), ["start"]);
        }
    }
}

#[test]
fn every_spelling_of_else_works() {
    for rule in [
        "else: {then: {do: continue, set: {ctx.seen: 1}}}",
        "else: {do: continue, set: {ctx.seen: 1}}",
        "{else: null, then: {do: continue, set: {ctx.seen: 1}}}",
        "{else: {then: {set: {ctx.seen: 1}}}}",
        "{when: true, then: {set: {ctx.seen: 1}}}",
    ] {
        let playbook = format!(
            "
            workflow:
              - step: start
                tool:
                  kind: python
                  code: x
                  spec:
                    policy:
                      rules:
                        - {rule}
            "
        );
        let ran = run_with(&playbook, json!({}), echo);
        assert_eq!(ran.ctx("seen"), json!(1), "{rule}");
    }
}

#[test]
fn continue_after_an_error_goes_on_and_break_and_fail_stop() {
    for (action, status, calls, failed) in [
        ("continue", Status::Completed, 2, vec![]),
        ("break", Status::Completed, 1, vec![]),
        ("fail", Status::Completed, 1, vec!["start"]),
    ] {
        let playbook = format!(
            "
            workflow:
              - step: start
                tool:
                  - name: bad
                    kind: python
                    code: x
                    spec: {{policy: {{rules: [{{when: \"{{{{ output.status == 'error' }}}}\", then: {{do: {action}}}}}]}}}}
                  - {{name: next, kind: python, code: x, input: {{said: '{{{{ bad.error.message }}}}'}}}}
            "
        );
        let ran = run_with(&playbook, json!({}), |call| if &*call.label == "bad" { boom() } else { echo(call) });
        assert_eq!(ran.status(), status, "{action}");
        assert_eq!(ran.desk.calls.len(), calls, "{action}");
        assert_eq!(ran.failed_steps(), failed, "{action}");
        assert_eq!(ran.result("start")["bad"]["status"], json!("error"));
        if action == "continue" {
            assert_eq!(ran.result("start")["next"]["said"], json!("boom"));
        }
    }
}

#[test]
fn a_jump_pages_through_with_what_it_sets() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - {name: init, kind: noop, spec: {policy: {rules: [{else: {then: {do: continue, set: {iter.page: 1}}}}]}}}
              - {name: fetch, kind: python, code: x, input: {page: '{{ iter.page }}'}}
              - name: again
                kind: noop
                spec:
                  policy:
                    rules:
                      - when: '{{ iter.page < 4 }}'
                        then: {do: jump, to: fetch, set: {iter.page: '{{ iter.page + 1 }}'}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.desk.calls.len(), 4);
    assert_eq!(ran.result("start")["fetch"]["page"], json!(4));
}

#[test]
fn rules_see_hard_errors_first() {
    let tool = |_: &ToolCall| {
        ToolOutcome::failed(ToolError::hard(ErrorKind::Connection, "CONNECTION", "refused").retryable(), Value::Null)
    };
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              kind: http
              url: http://127.0.0.1:1/
              spec: {policy: {rules: [{when: '{{ output.error.retryable }}', then: {do: continue, set: {ctx.why: '{{ output.error.kind }}'}}}]}}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: noop}}
        ",
        json!({}),
        tool,
    );
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.ctx("why"), json!("connection"));
}

#[test]
fn step_input_lies_under_the_tools_own_input() {
    let ran = run_with(
        "
        workflow:
          - step: start
            input: {a: 1, b: 1}
            tool: {kind: python, code: x, input: {b: 2}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.result("start"), json!({"a": 1, "b": 2}));
}

#[test]
fn a_mixed_pipeline_starts_on_the_server_and_goes_on_with_a_worker() {
    let mut desk = crate::desk::Desk::new(
        &[
            "
            workflow:
              - step: start
                tool:
                  - {name: child, kind: playbook, path: test/p1, input: {n: 20}, return_step: work}
                  - {name: after, kind: python, code: x, input: {got: '{{ child.n }}', id: '{{ child.execution_id }}'}}
            ",
            "
            workload: {n: 1}
            workflow:
              - {step: work, tool: {kind: python, code: x, input: {n: '{{ n * 2 }}'}}, next: {arcs: [{step: last}]}}
              - {step: last, tool: {kind: python, code: x}}
            ",
        ],
        echo,
    );
    let id = desk.start(0, json!({}));
    desk.run();
    assert_eq!(desk.members.len(), 2);
    let ran = crate::desk::Ran { desk, id };
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.result("start")["after"]["got"], json!(40));
    let child = ran.result("start")["child"].clone();
    assert_eq!(child["n"], json!(40));
    assert_eq!(child["status"], json!("COMPLETED"));
    assert_eq!(child["execution_id"], ran.result("start")["after"]["id"]);
}
