//! Questions on which sources disagree, and how they are settled. Those about single tools are tested with the tools.

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use serde_json::json;

use super::*;
use crate::desk::{Desk, run};

#[test]
fn the_outcome_is_called_output_and_result_and_response_mean_it_too() {
    let ran = ran("
        workflow:
          - step: start
            tool: {kind: python, code: x, input: {v: 1}}
            next: {arcs: [{step: end, when: '{{ output.v == 1 and result.v == 1 and response.v == 1 }}'}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "end"]);
}

#[test]
fn success_is_called_ok_and_failure_error() {
    for (step, word) in [("fine", "ok"), ("bad", "error")] {
        let ran = ran(&format!(
            "
            workflow:
              - {{step: {step}, tool: {{kind: python, code: x}}, set: {{ctx.word: '{{{{ output.status }}}}'}}}}
            "
        ));
        assert_eq!(ran.ctx("word"), json!(word));
    }
}

#[test]
fn set_assigns_with_a_prefix_and_the_old_words_are_refused() {
    for old in ["set_ctx", "set_iter"] {
        let found = refused(&format!("workflow: [{{step: a, tool: {{kind: noop}}, {old}: {{x: 1}}}}]"));
        assert!(found[0].to_string().contains("set"), "{}", found[0]);
    }
}

#[test]
fn what_an_arc_sets_outlives_its_target() {
    let ran = ran("
        workflow:
          - {step: a, tool: {kind: noop}, next: {arcs: [{step: b, set: {ctx.v: 1}, args: {ctx.w: 2}}]}}
          - {step: b, tool: {kind: noop}, next: {arcs: [{step: c}]}}
          - {step: c, tool: {kind: python, code: x, input: {v: '{{ v }}', w: '{{ ctx.w }}'}}}
    ");
    assert_eq!(ran.result("c"), json!({"v": 1, "w": 2}));
}

#[test]
fn when_at_a_step_is_an_admission_rule() {
    for (when, entered) in [("'{{ 1 > 2 }}'", "b"), ("true", "a b")] {
        let ran = run(&format!(
            "
            workflow:
              - {{step: a, when: {when}, tool: {{kind: noop}}, next: b}}
              - {{step: b, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered().join(" "), entered);
    }
}

#[test]
fn an_unmatched_policy_fails_on_an_error() {
    let ran = ran("
        workflow:
          - step: bad
            tool: {kind: python, code: x, spec: {policy: {rules: [{when: \"{{ output.error.code == 'OTHER' }}\", then: {do: continue}}]}}}
    ");
    assert_eq!((ran.failed_steps(), ran.status()), (vec!["bad".to_owned()], Status::Completed));
}

#[test]
fn a_parent_always_waits_and_gets_the_data_with_id_and_status() {
    let parent = "
        workflow:
          - {step: start, tool: {kind: playbook, path: test/p1}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {v: '{{ start.v }}', s: '{{ start.status }}'}}}
    ";
    let child = "
        workflow:
          - {step: only, tool: {kind: python, code: x, input: {v: 1}}}
    ";
    let mut desk = Desk::new(&[parent, child], echo);
    let id = desk.start(0, json!({}));
    desk.run();
    let ran = crate::desk::Ran { desk, id };
    assert_eq!(ran.result("end"), json!({"v": 1, "s": "COMPLETED"}));
}

#[test]
fn a_loop_gives_an_object_in_the_order_of_its_input() {
    let mut desk = Desk::new(
        &["
        workflow:
          - {step: start, loop: {in: 3, iterator: i, spec: {mode: parallel}}, tool: {kind: python, code: x}}
        "],
        echo,
    );
    let id: ExecutionId = desk.start(0, json!({}));
    for row in desk.members[&id].commands.clone().iter().rev() {
        desk.claim(row);
        let report = desk.work(row);
        desk.decide(id, &[noetl_core::execution::Input::Report(Box::new(report), "desk".into())]);
    }
    let ran = crate::desk::Ran { desk, id };
    assert_eq!(ran.result("start")["results"], json!([{"i": 0}, {"i": 1}, {"i": 2}]));
}

#[test]
fn null_is_null_and_default_replaces_it() {
    let seen = seen(
        "{z: ~}",
        "{none: '{{ z is none }}', there: '{{ z is defined }}', d: '{{ z | default(1) }}', v: '{{ z }}'}",
        json!({}),
    );
    assert_eq!(seen, json!({"none": true, "there": true, "d": 1, "v": null}));
}

#[test]
fn code_gets_a_context_with_workload_variables_and_results() {
    let ran = run_with(
        "
        workload: {city: Rome}
        workflow:
          - {step: first, tool: {kind: python, code: x}, set: {ctx.v: 1}, next: {arcs: [{step: code}]}}
          - {step: code, tool: {kind: python, code: \"context.get('city')\", libs: {j: json}}}
        ",
        json!({}),
        |call| match &*call.step {
            "first" => ToolOutcome::ok(json!({"a": 1})),
            _ => ToolOutcome::ok(json!([*call.context, call.config["libs"]])),
        },
    );
    let result = ran.result("code");
    assert_eq!(
        (&result[0]["city"], &result[0]["v"], &result[0]["first"]),
        (&json!("Rome"), &json!(1), &json!({"a": 1}))
    );
    assert_eq!(result[0]["execution_id"], json!(ran.id.to_string()));
    assert_eq!(result[1], json!({"j": "json"}));
}

#[test]
fn the_payload_of_a_request_has_one_body_and_http_falls_through_to_it() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - name: get
                kind: http
                url: u
                spec: {policy: {rules: [{else: {then: {do: continue, set: {iter.a: '{{ output.data.data.page }}', iter.b: '{{ output.data.page }}'}}}}]}}
              - {name: end, kind: python, code: x, input: {a: '{{ iter.a }}', b: '{{ iter.b }}'}}
        ",
        json!({}),
        |call| match &*call.label {
            "get" => ToolOutcome::ok(json!({"status_code": 200, "headers": {}, "data": {"page": 1}, "body": {"page": 1}})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("start")["end"], json!({"a": 1, "b": 1}));
}

#[test]
fn a_step_without_a_tool_is_refused() {
    for step in ["{step: a}", "{step: a, tool: ~}", "{step: a, tool: []}"] {
        let found = refused(&format!("workflow: [{step}]"));
        assert_eq!(found[0].code, "NE0204", "{step}");
    }
}

#[test]
fn a_keychain_field_is_no_undefined_name() {
    let source = format!(
        "{HEAD}keychain: [{{name: k, kind: static, scope: shared, map: {{token: x}}}}]\n\
         workflow: [{{step: a, tool: {{kind: http, url: u, headers: {{Authorization: 'Bearer {{{{ keychain.k.token }}}}'}}}}}}]"
    );
    assert_eq!(compiled(&source).warnings, []);
}

#[test]
fn strict_counts_what_no_rule_and_no_arc_handled() {
    let arc = "next: {arcs: [{step: end, when: \"{{ event.name == 'call.error' }}\"}]}";
    let anyway = "next: {arcs: [{step: end}]}";
    let rule = |then: &str| format!(", spec: {{policy: {{rules: [{{else: {{then: {{do: {then}}}}}}}]}}}}");
    for (policy, next, status) in [
        (String::new(), anyway, Status::Failed),
        (String::new(), arc, Status::Completed),
        (rule("continue"), anyway, Status::Completed),
        (rule("break"), anyway, Status::Completed),
        (rule("fail"), anyway, Status::Failed),
        (rule("fail"), arc, Status::Completed),
        (rule("retry, attempts: 2"), anyway, Status::Failed),
    ] {
        for (executor, asked) in [("executor: {spec: {strict: true}}", false), ("executor: {}", true)] {
            let playbook = format!(
                "
                {executor}
                workflow:
                  - {{step: bad, tool: {{kind: python, code: x{policy}}}, {next}}}
                  - {{step: end, tool: {{kind: noop}}}}
                "
            );
            let mut desk = Desk::new(&[&playbook], echo);
            let id = desk.start_as(0, json!({}), asked);
            desk.run();
            assert_eq!(desk.members[&id].head.status, status, "{policy} {next} {executor}");
        }
    }
}

#[test]
fn strict_reaches_the_children() {
    let parent = "
        workflow:
          - {step: start, tool: {kind: playbook, path: test/p1}}
    ";
    let child = "
        workflow:
          - {step: bad, tool: {kind: python, code: x}}
    ";
    for (strict, status) in [(false, Status::Completed), (true, Status::Failed)] {
        let mut desk = Desk::new(&[parent, child], echo);
        let id = desk.start_as(0, json!({}), strict);
        desk.run();
        let child = desk.members.values().find(|seat| seat.head.parent_execution_id == Some(id)).unwrap();
        assert_eq!(child.head.status, status);
        assert_eq!(desk.members[&id].head.status, status);
    }
}
