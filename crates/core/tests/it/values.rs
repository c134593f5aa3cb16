//! Workloads, names and their precedence, large results, what a command takes along.

use noetl_core::head::Status;
use noetl_core::tool::{ToolCall, ToolOutcome};
use serde_json::json;

use crate::desk::{run_with, table};

fn echo(call: &ToolCall) -> ToolOutcome {
    ToolOutcome::ok(json!(call.input))
}

fn seen(workload: &str, input: &str, payload: serde_json::Value) -> serde_json::Value {
    let playbook = format!(
        "
        workload: {workload}
        workflow:
          - {{step: start, tool: {{kind: python, code: x, input: {input}}}}}
        "
    );
    run_with(&playbook, payload, echo).result("start")
}

#[test]
fn payload_is_laid_over_the_defaults_shallowly_and_never_rendered() {
    let seen = seen(
        "{message: hi, nested: {a: 1, b: 2}}",
        "{m: '{{ message }}', n: '{{ workload.nested }}', extra: '{{ extra }}'}",
        json!({"message": "It's {{ not }} a template", "nested": {"a": 3}, "extra": [1]}),
    );
    assert_eq!(seen, json!({"m": "It's {{ not }} a template", "n": {"a": 3}, "extra": [1]}));
}

#[test]
fn workload_defaults_are_rendered_once_and_may_name_the_payload() {
    let seen = seen(
        "{user: '{{ payload.user | default(\"nobody\") }}', greeting: 'hello {{ user }}', id: '{{ job.uuid }}'}",
        "{g: '{{ greeting }}', same: '{{ id == execution_id }}'}",
        json!({}),
    );
    assert_eq!(seen, json!({"g": "hello nobody", "same": true}));
}

#[test]
fn the_systems_execution_id_wins_over_a_workload_key_of_that_name() {
    let seen = seen("{execution_id: mine}", "{e: '{{ execution_id }}', w: '{{ workload.execution_id }}'}", json!({}));
    assert_ne!(seen["e"], json!("mine"));
    assert!(seen["e"].as_str().unwrap().parse::<i64>().is_ok());
    assert_eq!(seen["w"], json!("mine"));
}

#[test]
fn ctx_beats_steps_beat_workload() {
    let ran = run_with(
        "
        workload: {a: workload, b: workload, c: workload}
        workflow:
          - step: a
            tool: {kind: python, code: x}
            set: {ctx.b: ctx}
            next: {arcs: [{step: read}]}
          - {step: read, tool: {kind: python, code: x, input: {a: '{{ a.from }}', b: '{{ b }}', c: '{{ c }}'}}}
        ",
        json!({}),
        |call| match &*call.step {
            "a" => ToolOutcome::ok(json!({"from": "step"})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("read"), json!({"a": "step", "b": "ctx", "c": "workload"}));
}

#[test]
fn keys_are_keys_even_when_they_are_called_like_methods() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: read}]}}
          - {step: read, tool: {kind: python, code: x, input: {i: '{{ start.items }}', k: '{{ start.keys }}', v: '{{ start.values }}'}}}
        ",
        json!({}),
        |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"items": [1], "keys": 2, "values": {"x": 3}})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("read"), json!({"i": [1], "k": 2, "v": {"x": 3}}));
}

#[test]
fn a_large_result_leaves_the_log_and_is_found_again_field_by_field_and_whole() {
    let rows: Vec<_> = (0..20_000).map(|n| json!([n, "row"])).collect();
    let big = json!({"rows": rows, "count": 20_000, "note": "small"});
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: read, when: '{{ start.rows | length == 20000 }}'}]}}
          - step: read
            tool:
              kind: python
              code: x
              input:
                count: '{{ start.count }}'
                note: '{{ start.note }}'
                length: '{{ start.rows | length }}'
                one: '{{ start.rows[1100][0] }}'
                external: '{{ start._ref is defined }}'
                store: '{{ start._store }}'
        ",
        json!({}),
        move |call| match &*call.step {
            "start" => ToolOutcome::ok(big.clone()),
            _ => echo(call),
        },
    );
    assert_eq!(
        ran.result("read"),
        json!({"count": 20_000, "note": "small", "length": 20_000, "one": 1100, "external": true, "store": "kv"})
    );
    assert_eq!(ran.result("start")["rows"].as_array().unwrap().len(), 20_000);
    for recorded in &ran.seat().events {
        assert!(format!("{:?}", recorded.event).len() < 64 * 1024, "{:?}", recorded.version);
    }
}

#[test]
fn a_small_result_stays_in_the_log() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: read}]}}
          - {step: read, tool: {kind: python, code: x, input: {external: '{{ start._ref is defined }}'}}}
        ",
        json!({}),
        table(&[("start", json!({"a": "x".repeat(7000)}))]),
    );
    assert_eq!(ran.status(), Status::Completed);
}

#[test]
fn code_gets_the_names_it_mentions_or_everything_when_it_asks_for_context() {
    for (code, expected) in [
        ("result = city", json!({"city": "Rome"})),
        (
            "result = context.get('city')",
            json!(["city", "country", "ctx", "execution_id", "job", "start", "v", "workload"]),
        ),
        ("result = 1", json!({})),
    ] {
        let playbook = format!(
            "
            workload: {{city: Rome, country: Italy}}
            workflow:
              - {{step: start, tool: {{kind: noop}}, set: {{ctx.v: 1}}, next: {{arcs: [{{step: code}}]}}}}
              - step: code
                tool: {{kind: python, code: \"{code}\"}}
            "
        );
        let ran = run_with(&playbook, json!({}), |call| ToolOutcome::ok((*call.context).clone()));
        let result = ran.result("code");
        if expected.is_array() {
            let mut names: Vec<_> = result.as_object().unwrap().keys().cloned().collect();
            names.sort();
            assert_eq!(json!(names), expected, "{code}");
        } else {
            assert_eq!(result, expected, "{code}");
        }
    }
}

#[test]
fn unknown_root_mappings_can_be_read() {
    let ran = run_with(
        "
        apiVersion: noetl.io/v2
        kind: Playbook
        metadata: {name: p, path: p}
        spec: {state: {deep: 7}}
        workflow:
          - {step: start, tool: {kind: python, code: x, input: {v: '{{ spec.state.deep }}'}}}
        "
        .lines()
        .map(|line| line.strip_prefix("        ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
        .trim_start(),
        json!({}),
        echo,
    );
    assert_eq!(ran.result("start"), json!({"v": 7}));
}
