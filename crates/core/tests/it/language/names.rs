//! The names that expressions see, and which one wins.

use serde_json::json;

use super::*;

#[test]
fn the_step_before_wins_over_a_workload_key_called_result_and_only_when_there_is_one() {
    let ran = ran("
        workload: {result: workload, response: workload}
        workflow:
          - {step: start, tool: {kind: python, code: x, input: {r: '{{ result }}'}}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {r: '{{ result.r }}', s: '{{ response.r }}'}}}
    ");
    assert_eq!(ran.result("start"), json!({"r": "workload"}));
    assert_eq!(ran.result("end"), json!({"r": "workload", "s": "workload"}));
}

#[test]
fn an_argument_called_result_may_be_made_of_the_result() {
    let ran = ran("
        workflow:
          - {step: start, tool: {kind: python, code: x, input: {v: 1}}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {result: '{{ result }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"result": {"v": 1}}));
}

#[test]
fn steps_gives_every_result_and_names_with_slashes_are_found_there() {
    let ran = ran("
        workflow:
          - {step: a/b, tool: {kind: python, code: x, input: {v: 1}}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {v: \"{{ steps['a/b'].v }}\", s: \"{{ steps['a/b'].status }}\"}}}
    ");
    assert_eq!(ran.result("end"), json!({"v": 1, "s": "ok"}));
}

#[test]
fn stored_results_are_whole_under_steps_too() {
    let rows: Vec<_> = (0..20_000).collect();
    let ran = run_with(
        "
        workflow:
          - {step: a/b, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {n: \"{{ steps['a/b'].rows | length }}\"}}}
        ",
        json!({}),
        move |call| match &*call.step {
            "a/b" => ToolOutcome::ok(json!({"rows": rows.clone()})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("end"), json!({"n": 20_000}));
}

#[test]
fn ctx_and_bare_names_read_the_same_variable_and_system_names_win() {
    let seen = seen(
        "{job: mine, env: mine, path: mine, version: mine, catalog_id: mine}",
        "{id: '{{ job.uuid == execution_id and job.id == execution_id and job.execution_id == execution_id }}', p: '{{ path }}', v: '{{ version }}', env: '{{ env.HOME | default(\"d\") }}', w: '{{ workload.path }}'}",
        json!({}),
    );
    assert_eq!(seen["id"], json!(true));
    assert_eq!((&seen["p"], &seen["v"], &seen["w"]), (&json!("test/p0"), &json!(1), &json!("mine")));
    assert_ne!(seen["env"], json!("mine"));
}

#[test]
fn a_variable_that_was_never_set_is_undefined() {
    let seen = seen("{}", "{a: '{{ ctx.count | default(0) }}', b: '{{ ctx.x.y is defined }}'}", json!({}));
    assert_eq!(seen, json!({"a": 0, "b": false}));
}

#[test]
fn a_loop_body_sees_its_element_and_place_under_every_name() {
    let ran = ran("
        workflow:
          - step: start
            loop: {in: [a, b], iterator: x}
            input: {at_step: '{{ loop_index }}'}
            tool:
              kind: python
              code: x
              input:
                bare: '{{ x }}'
                iter: '{{ iter.x }}'
                index: '{{ _index }}'
                total: '{{ _total }}'
                i: '{{ iter._index }}'
                first: '{{ iter._first }}'
                last: '{{ iter._last }}'
                l: '{{ loop.index }}'
                lf: '{{ loop.first }}'
                ll: '{{ loop.length }}'
    ");
    assert_eq!(
        ran.result("start")["results"][1],
        json!({
            "at_step": 1, "bare": "b", "iter": "b", "index": 1, "total": 2, "i": 1, "first": false, "last": true,
            "l": 1, "lf": false, "ll": 2, "x": "b",
        })
    );
}

#[test]
fn output_is_what_its_place_says() {
    let ran = ran("
        workflow:
          - step: start
            tool:
              - name: one
                kind: python
                code: x
                input: {v: 1}
                spec: {policy: {rules: [{when: \"{{ output.status == 'ok' and output.error is not defined }}\", then: {do: continue, set: {ctx.policy: '{{ output.data.v }}', ctx.attempt: '{{ output.meta.attempt }}'}}}]}}
                set: {raw: '{{ output }}'}
              - {name: two, kind: python, code: x, input: {prev: '{{ output.v }}', alias: '{{ output.data.v }}', raw: '{{ raw }}'}}
            set: {ctx.step: '{{ output.two.prev }}', ctx.alias: '{{ output.data.two.prev }}'}
            next: {arcs: [{step: end, when: '{{ output.two.prev == 1 and output.data.two.alias == 1 }}', set: {ctx.arc: '{{ output.status }}'}}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.ctx("policy"), json!(1));
    assert_eq!(ran.ctx("attempt"), json!(1));
    assert_eq!(ran.result("start")["two"]["raw"], json!({"v": 1}));
    assert_eq!((ran.ctx("step"), ran.ctx("alias"), ran.ctx("arc")), (json!(1), json!(1), json!("ok")));
    assert_eq!(ran.entered(), ["start", "end"]);
}

#[test]
fn a_pipeline_sees_the_task_before_and_the_number_of_the_attempt() {
    let ran = ran("
        workflow:
          - step: start
            tool:
              - {name: one, kind: python, code: x, input: {attempt: '{{ _attempt }}', task: '{{ _task }}'}}
              - {name: two, kind: python, code: x, input: {prev: '{{ _prev.task }}', by: '{{ results.one.attempt }}'}}
    ");
    let result = ran.result("start");
    assert_eq!(
        (&result["one"], &result["two"]),
        (&json!({"attempt": 1, "task": "one"}), &json!({"prev": "one", "by": 1}))
    );
}

#[test]
fn an_arc_sees_the_event_with_its_step_payload_and_time() {
    let ran = ran("
        workflow:
          - step: start
            tool: {kind: python, code: x, input: {v: 7}}
            next: {arcs: [{step: end, set: {ctx.n: '{{ event.name }}', ctx.s: '{{ event.step }}', ctx.p: '{{ event.payload.v }}', ctx.t: '{{ event.timestamp is defined }}'}}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.ctx("n"), json!("call.done"));
    assert_eq!((ran.ctx("s"), ran.ctx("p"), ran.ctx("t")), (json!("start"), json!(7), json!(true)));
}

#[test]
fn error_is_defined_in_the_arcs_of_a_step_that_failed() {
    let ran = ran("
        workflow:
          - {step: bad, tool: {kind: python, code: x}, next: {arcs: [{step: end, when: '{{ error is defined }}', set: {ctx.why: '{{ error.message }}', ctx.code: '{{ output.error.code }}'}}]}}
          - {step: end, tool: {kind: python, code: x, input: {here: '{{ error is defined }}', there: '{{ bad.error is defined }}'}}}
    ");
    assert_eq!((ran.ctx("why"), ran.ctx("code")), (json!("it broke"), json!("BOOM")));
    assert_eq!(ran.result("end"), json!({"here": false, "there": true}));
}

#[test]
fn a_results_own_keys_come_before_its_helpers() {
    let ran = run_with(
        "
        workflow:
          - {step: own, tool: {kind: python, code: x}, next: {arcs: [{step: bare}]}}
          - {step: bare, tool: {kind: python, code: x}, next: {arcs: [{step: http}]}}
          - {step: http, tool: {kind: http, url: u}, next: {arcs: [{step: end}]}}
          - step: end
            tool:
              kind: python
              code: x
              input:
                own: ['{{ own.data }}', '{{ own.status }}', '{{ own.result }}']
                bare: ['{{ bare.data.v }}', '{{ bare.status }}', '{{ bare.result.v }}', '{{ bare.error is defined }}']
                http: ['{{ http.data.page }}', '{{ http.page }}', '{{ http.status_code }}', '{{ http.body.page }}']
        ",
        json!({}),
        |call| match &*call.step {
            "own" => ToolOutcome::ok(json!({"data": 1, "status": "mine", "result": 2})),
            "bare" => ToolOutcome::ok(json!({"v": 3})),
            "http" => {
                ToolOutcome::ok(json!({"status_code": 200, "headers": {}, "data": {"page": 4}, "body": {"page": 4}}))
            }
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("end"), json!({"own": [1, "mine", 2], "bare": [3, "ok", 3, false], "http": [4, 4, 200, 4]}));
}

#[test]
fn the_request_is_seen_in_workload_defaults() {
    let seen = seen(
        "{a: '{{ payload.x }}', b: '{{ input.x }}', c: '{{ payload.y | default(2) }}'}",
        "{a: '{{ a }}', b: '{{ b }}', c: '{{ c }}', x: '{{ x }}'}",
        json!({"x": 1}),
    );
    assert_eq!(seen, json!({"a": 1, "b": 1, "c": 2, "x": 1}));
}
