//! Pipelines and policies: shapes, order, retries, jumps.

use std::cell::Cell;
use std::rc::Rc;

use noetl_core::event::row::{columns, wire_name};
use noetl_core::head::Status;
use noetl_core::result::INLINE_BYTES_MAX;
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Desk, Ran, run_with};

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

/// A page of `bytes` as the `http` tool gives it: the body twice.
fn page(bytes: usize) -> Value {
    let body = json!({"text": "x".repeat(bytes), "next": "p2"});
    json!({"status_code": 200, "headers": {}, "data": body, "body": body})
}

/// No event of the run holds more than what a result in the log may take, and a little.
fn assert_lean(ran: &Ran) {
    for recorded in &ran.seat().events {
        let columns = columns::<Value>(&recorded.event);
        let bytes = json!([columns.context, columns.result, columns.meta]).to_string().len();
        assert!(bytes < 2 * INLINE_BYTES_MAX, "{} of {bytes} bytes", wire_name(&recorded.event));
    }
}

#[test]
fn a_pipeline_that_waits_remembers_results_of_any_size_and_the_log_stays_lean() {
    let tries = Rc::new(Cell::new(0));
    let counted = Rc::clone(&tries);
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - name: page
                kind: http
                url: u
                set: {kept: '{{ output.data }}', iter.mine: '{{ output.data }}'}
              - name: flaky
                kind: python
                code: x
                set: {kept.more: 1, iter.mine.more: 2}
                spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 4, delay: 60}}]}}
              - name: use
                kind: python
                code: 'page, kept'
                input:
                  whole: '{{ page.data.text | length }}'
                  next: '{{ page.next }}'
                  kept: '{{ kept }}'
                  mine: '{{ iter.mine.more }} {{ iter.mine.text | length }}'
        ",
        json!({}),
        move |call| match &*call.label {
            "page" => ToolOutcome::ok(page(400_000)),
            "flaky" => {
                counted.set(counted.get() + 1);
                if counted.get() < 4 { boom() } else { ToolOutcome::ok(json!({"tries": 4})) }
            }
            _ => ToolOutcome::ok(json!({
                "whole": call.input["whole"],
                "next": call.input["next"],
                "kept": [call.input["kept"]["more"], call.input["kept"]["text"].as_str().unwrap().len()],
                "mine": call.input["mine"],
                "context": call.context["page"]["body"]["text"].as_str().unwrap().len(),
            })),
        },
    );
    assert_eq!((ran.status(), tries.get()), (Status::Completed, 4));
    let result = ran.result("start");
    assert_eq!(
        result["use"],
        json!({"whole": 400_000, "next": "p2", "kept": [1, 400_000], "mine": "2 400000", "context": 400_000})
    );
    assert_eq!(result["page"], page(400_000), "the step's result has all of it");
    assert_eq!(result["flaky"], json!({"tries": 4}));
    assert_lean(&ran);
}

#[test]
fn a_pipeline_with_large_results_waits_for_a_child_and_an_error_stays_what_it_was() {
    let parent = "
        workflow:
          - step: start
            tool:
              - {name: page, kind: http, url: u}
              - {name: kid, kind: playbook, path: test/p1}
              - {name: again, kind: playbook, path: test/p1, input: {n: '{{ kid.blob | length }}'}}
              - name: bad
                kind: python
                code: x
                input: {n: '{{ kid.blob | length }}', m: '{{ again.blob | length }}', p: '{{ page.text | length }}'}
                spec: {policy: {rules: [{when: '{{ _attempt < 2 }}', then: {do: retry, delay: 60}}, {else: {do: ACTION}}]}}
              - {name: last, kind: python, code: x, input: {why: '{{ bad.error.message }}'}}
        ";
    let child = "
        workflow:
          - {step: only, tool: {kind: python, code: x}}
        ";
    for (action, reached) in [("continue", true), ("fail", false)] {
        let mut desk = Desk::new(&[&parent.replace("ACTION", action), child], |call| match &*call.label {
            "page" => ToolOutcome::ok(page(130_000)),
            "only" => ToolOutcome::ok(json!({"blob": "y".repeat(300_000)})),
            "bad" => {
                assert_eq!(Value::Object(call.input.clone()), json!({"n": 300_000, "m": 300_000, "p": 130_000}));
                boom()
            }
            _ => echo(call),
        });
        let id = desk.start(0, json!({}));
        desk.run();
        let ran = Ran { desk, id };
        let result = ran.result("start");
        assert_eq!((ran.status(), ran.failed_steps().is_empty()), (Status::Completed, reached), "{action}");
        assert_eq!(result["bad"]["error"]["message"], json!("boom"), "{action}");
        assert_eq!(result["last"]["why"], if reached { json!("boom") } else { json!(null) }, "{action}");
        assert_eq!(result["kid"]["blob"].as_str().map(str::len), Some(300_000), "{action}");
        assert_lean(&ran);
    }
}
