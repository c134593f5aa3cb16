//! What policies make of requests, and the older way to say when one is made again.

use std::cell::RefCell;
use std::rc::Rc;

use noetl_core::head::Status;
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::run_with;

/// Answers with these statuses one after the other; 0 is no answer at all.
fn statuses(answers: &[u16]) -> (Rc<RefCell<Vec<u16>>>, impl FnMut(&ToolCall) -> ToolOutcome + use<>) {
    let left = Rc::new(RefCell::new(answers.to_vec()));
    let kept = Rc::clone(&left);
    let answer = move |_: &ToolCall| match left.borrow_mut().remove(0) {
        0 => ToolOutcome::failed(
            ToolError::hard(ErrorKind::Connection, "HTTP_CONNECT", "refused").retryable(),
            Value::Null,
        ),
        200 => ToolOutcome { http: Some(json!({"status": 200})), ..ToolOutcome::ok(json!({"status_code": 200})) },
        status => {
            let error = ToolError::soft(ErrorKind::ServerError, format!("HTTP_{status}"), "no").with("status", status);
            let error = if status >= 500 { error.retryable() } else { error };
            ToolOutcome {
                http: Some(json!({"status": status})),
                ..ToolOutcome::failed(error, json!({"status_code": status}))
            }
        }
    };
    (kept, answer)
}

#[test]
fn the_older_retry_block_of_a_request_is_a_rule_behind_its_own() {
    let listed = "retry: {max_attempts: 3, retry_on_status: [500, 503], backoff_seconds: 0}";
    let own = "retry: {max_attempts: 3, backoff_seconds: 0}
              spec: {policy: {rules: [{when: '{{ output.http.status == 503 }}', then: {do: continue}}]}}";
    let table: [(&str, &[u16], usize, Status, bool); 8] = [
        (listed, &[500, 503, 200], 0, Status::Completed, false),
        (listed, &[500, 500, 500, 200], 1, Status::Completed, true),
        // Not on the list, and nothing to have a status.
        (listed, &[502, 200], 1, Status::Completed, true),
        (listed, &[0, 200], 1, Status::Failed, true),
        // Without a list: whatever may help.
        ("retry: {max_attempts: '2'}", &[0, 200], 0, Status::Completed, false),
        ("retry: {max_attempts: 2, backoff: none}", &[404, 200], 1, Status::Completed, true),
        (own, &[503, 200], 1, Status::Completed, false),
        (own, &[500, 200], 0, Status::Completed, false),
    ];
    for (block, answers, left, status, failed) in table {
        let (rest, answer) = statuses(answers);
        let playbook = format!(
            "
        workflow:
          - step: start
            tool:
              kind: http
              url: http://h
              {block}
            "
        );
        let ran = run_with(&playbook, json!({}), answer);
        let got = (rest.borrow().len(), ran.status(), !ran.failed_steps().is_empty());
        assert_eq!(got, (left, status, failed), "{block} {answers:?}");
    }
}

#[test]
fn what_a_rule_and_a_task_set_may_read_the_new_result_by_its_name() {
    let ran = run_with(
        "
        workflow:
          - step: count
            tool:
              kind: python
              code: x
              spec:
                policy:
                  rules:
                    - else: {then: {do: continue, set: {ctx.total: '{{ count.n }}', ctx.status: '{{ count.status }}'}}}
              set: {ctx.own: '{{ count.data.n + 1 }}'}
            next: {arcs: [{step: list}]}
          - step: list
            tool:
              - {name: a, kind: python, code: x, set: {ctx.a: '{{ a.n }}'}}
              - name: b
                kind: python
                code: x
                spec:
                  policy:
                    rules:
                      - when: '{{ b.n < 4 }}'
                        then: {do: retry, attempts: 9, delay: 0, set: {ctx.seen: '{{ a.n * 10 + b.n }}'}}
        ",
        json!({}),
        {
            let mut n = 0;
            move |_: &ToolCall| {
                n += 1;
                ToolOutcome::ok(json!({ "n": n }))
            }
        },
    );
    assert_eq!((ran.ctx("total"), ran.ctx("status"), ran.ctx("own")), (json!(1), json!("ok"), json!(2)));
    assert_eq!((ran.ctx("a"), ran.ctx("seen")), (json!(2), json!(23)));
    assert_eq!(ran.result("list"), json!({"a": {"n": 2}, "b": {"n": 4}, "n": 4}));
}
