//! Where implementations trip, each with the smallest playbook that trips them.

use noetl_core::result::INLINE_BYTES_MAX;
use serde_json::json;

use super::*;

#[test]
fn trap_1_a_list_of_one_tool_is_a_pipeline() {
    let ran = ran("
        workflow:
          - {step: start, tool: [{name: only, kind: python, code: x, input: {v: 1}}], next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {a: '{{ start.only.v }}', b: '{{ start.v }}', c: '{{ start.results.only.v }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"a": 1, "b": 1, "c": 1}));
}

#[test]
fn trap_2_items_keys_and_values_are_keys() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: each}]}}
          - {step: each, loop: {in: '{{ start.items }}', iterator: item}, tool: {kind: python, code: x, input: {k: '{{ start.keys }}', v: '{{ start.values | length }}', none: '{{ workload.items }}'}}}
        ",
        json!({}),
        |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"items": [1, 2], "keys": "k", "values": [1]})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("each")["results"][1], json!({"item": 2, "k": "k", "v": 1, "none": null}));
}

#[test]
fn trap_3_the_systems_execution_id_wins() {
    let seen = seen("{execution_id: mine}", "{id: '{{ execution_id }}', w: '{{ workload.execution_id }}'}", json!({}));
    assert!(seen["id"].as_str().unwrap().parse::<i64>().is_ok());
    assert_eq!(seen["w"], json!("mine"));
}

#[test]
fn trap_4_step_names_may_hold_slashes() {
    let ran = ran("
        workflow:
          - {step: /tests/a/b, tool: {kind: python, code: x, input: {v: 1}}, next: {arcs: [{step: tests/c}]}}
          - {step: tests/c, tool: [{name: read, kind: python, code: x, input: {v: '{{ steps[\"/tests/a/b\"].v }}'}}]}
    ");
    assert_eq!(ran.entered(), ["/tests/a/b", "tests/c"]);
    assert_eq!(ran.result("tests/c")["v"], json!(1));
}

#[test]
fn trap_5_arguments_may_have_any_name() {
    let names = ["input_data", "result", "data", "context", "message", "status", "args", "output", "ctx"];
    let input: Vec<_> = names.iter().map(|name| format!("{name}: {{is: {name}}}")).collect();
    let seen = seen("{data: workload, message: workload}", &format!("{{{}}}", input.join(", ")), json!({}));
    for name in names {
        assert_eq!(seen[name], json!({"is": name}));
    }
}

#[test]
fn trap_6_dollar_quotes_stand_next_to_braces() {
    let ran = run_with(
        "
        workload: {v: \"it's\"}
        workflow:
          - step: start
            tool: {kind: postgres, query: 'SELECT $${{ {\"a\": v} | tojson }}$$::jsonb, $t${{ v }}$t$'}
        ",
        json!({}),
        |call| ToolOutcome::ok(call.config["query"].clone()),
    );
    assert_eq!(ran.result("start"), json!("SELECT $${\"a\":\"it's\"}$$::jsonb, $t$it's$t$"));
}

#[test]
fn trap_7_booleans_stay_booleans() {
    let ran = ran("
        workload: {t: true, text: 'True', f: false}
        workflow:
          - {step: start, tool: {kind: noop}, set: {ctx.t: '{{ t }}', ctx.f: '{{ not t }}'}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {a: '{{ ctx.t == true }}', b: '{{ text == true }}', c: '{{ ctx.f != true }}', d: '{{ ctx.t }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"a": true, "b": false, "c": true, "d": true}));
}

#[test]
fn trap_8_a_counter_stays_a_number() {
    let ran = ran("
        workload: {page: '1'}
        workflow:
          - {step: start, tool: {kind: noop}, set: {ctx.page: '{{ workload.page }}'}, next: {arcs: [{step: turn}]}}
          - {step: turn, tool: {kind: noop}, set: {ctx.page: '{{ (ctx.page | int) + 1 }}'}, next: {arcs: [{step: turn, when: '{{ ctx.page < 10 }}'}]}}
    ");
    assert_eq!(ran.ctx("page"), json!(10));
}

#[test]
fn trap_9_default_takes_variables_lists_and_maps() {
    let seen = seen(
        "{other: 7, z: ~}",
        "{a: '{{ nothing | default(other) }}', b: '{{ nothing | default([]) }}', c: '{{ nothing.x | default({}) }}', d: '{{ z | default(other) }}', e: '{{ nothing | default(none) }}'}",
        json!({}),
    );
    assert_eq!(seen, json!({"a": 7, "b": [], "c": {}, "d": 7, "e": null}));
}

#[test]
fn trap_10_iterations_share_ctx_and_nothing_else() {
    let ran = ran("
        workflow:
          - step: start
            loop: {in: 4, iterator: i, spec: {mode: parallel}}
            tool:
              - {name: one, kind: python, code: x, input: {v: '{{ i * 10 }}'}, spec: {policy: {rules: [{else: {then: {do: continue, set: {iter.mine: '{{ output.data.v }}', ctx.last: '{{ i }}'}}}}]}}}
              - {name: two, kind: python, code: x, input: {mine: '{{ iter.mine }}', one: '{{ one.v }}'}}
    ");
    for index in 0..4 {
        let two = &ran.result("start")["results"][index]["two"];
        assert_eq!((&two["mine"], &two["one"]), (&json!(index * 10), &json!(index * 10)));
    }
    assert_eq!(ran.ctx("last"), json!(3));
}

#[test]
fn trap_11_an_execution_id_is_good_in_sql_with_quotes_and_without() {
    let seen = seen("{}", "{q: \"'{{ execution_id }}'\", n: 'id = {{ execution_id }}'}", json!({}));
    let quoted = seen["q"].as_str().unwrap().trim_matches('\'').to_owned();
    assert_eq!(seen["n"], json!(format!("id = {quoted}")));
    assert!(quoted.bytes().all(|byte| byte.is_ascii_digit()) && quoted.parse::<i64>().is_ok());
}

#[test]
fn trap_12_an_alias_may_be_called_like_a_workload_key() {
    let ran = run_with(
        "
        workload: {pg_auth: pg_auth}
        workflow:
          - {step: start, tool: [{name: a, kind: postgres, auth: '{{ pg_auth }}', query: q}, {name: b, kind: postgres, auth: pg_auth, query: q}]}
        ",
        json!({}),
        |call| ToolOutcome::ok(call.config["auth"].clone()),
    );
    assert_eq!(ran.result("start"), json!({"a": "pg_auth", "b": "pg_auth"}));
}

#[test]
fn trap_13_a_tool_has_the_time_that_it_asks_for_and_no_limit_otherwise() {
    for (timeout, expected) in [
        ("", json!(null)),
        ("timeout: 210, ", json!(210_000)),
        ("timeout_seconds: '2.5', ", json!(2500)),
        ("timeout: 30s, ", json!(30_000)),
        ("timeout: 250ms, ", json!(250)),
        ("timeout: '{{ \"5\" ~ \"m\" }}', ", json!(300_000)),
    ] {
        let ran = run_with(
            &format!(
                "
                workflow:
                  - {{step: start, tool: {{{timeout}kind: http, url: u}}}}
                "
            ),
            json!({}),
            |call| ToolOutcome::ok(json!(call.timeout_ms)),
        );
        assert_eq!(ran.result("start"), expected);
    }
}

#[test]
fn trap_14_a_task_binds_raw_data_with_its_helpers() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - {name: get, kind: http, url: u, set: {x: '{{ output }}'}}
              - {name: end, kind: python, code: x, input: {body: '{{ x.data }}', field: '{{ x.data.page }}', code: '{{ x.status_code }}'}}
        ",
        json!({}),
        |call| match &*call.label {
            "get" => ToolOutcome::ok(json!({"status_code": 200, "headers": {}, "data": {"page": 4}, "body": {"page": 4}})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("start")["end"], json!({"body": {"page": 4}, "field": 4, "code": 200}));
}

#[test]
fn trap_15_ctx_is_a_value_too() {
    let ran = ran("
        workflow:
          - {step: start, tool: {kind: noop}, set: {ctx.a: 1, ctx.b.c: [2]}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {all: '{{ ctx }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"all": {"a": 1, "b": {"c": [2]}}}));
}

#[test]
fn trap_16_the_log_holds_no_large_arguments_and_results() {
    let big = "x".repeat(900_000);
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
          - {step: end, input: {again: '{{ start.big }}'}, tool: {kind: python, code: x, input: {big: '{{ start.big }}'}}}
        ",
        json!({}),
        move |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"big": big.clone()})),
            _ => ToolOutcome::ok(json!({"size": call.input["big"].as_str().map(str::len)})),
        },
    );
    assert_eq!(ran.result("end"), json!({"size": 900_000}));
    for recorded in &ran.seat().events {
        let size = format!("{:?}", recorded.event).len();
        assert!(size < INLINE_BYTES_MAX, "{} holds {size} bytes", recorded.version);
    }
}
