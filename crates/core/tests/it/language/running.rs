//! Running: the life of an execution, its routes, what is set and when, joins, results, loops, pipelines, errors.

use noetl_core::head::Status;
use noetl_core::result::{INLINE_BYTES_MAX, KV_BYTES_MAX};
use serde_json::json;

use super::*;
use crate::desk::{Desk, run};

#[test]
fn an_execution_id_is_a_number_in_text_that_fits_a_bigint() {
    let seen = seen("{}", "{id: '{{ execution_id }}', sql: \"'{{ execution_id }}'::bigint\"}", json!({}));
    let id = seen["id"].as_str().unwrap();
    assert!(id.parse::<i64>().unwrap() > 0);
    assert_eq!(seen["sql"], json!(format!("'{id}'::bigint")));
}

#[test]
fn arcs_name_the_event_that_ended_the_step_in_every_spelling() {
    for (step, when, taken) in [
        ("start", "event.name == 'call.done'", true),
        ("start", "event.name == 'step.done'", true),
        ("start", "event.name == 'step.exit'", true),
        ("start", "event.name == 'call.error'", false),
        ("start", "event.name == 'step.failed'", false),
        ("start", "event.name == 'loop.done'", false),
        ("bad", "event.name == 'call.error'", true),
        ("bad", "event.name == 'step.failed'", true),
        ("bad", "event.name == 'call.done'", false),
        ("bad", "event.name == 'step.done'", false),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - {{step: {step}, tool: {{kind: python, code: x}}, next: {{arcs: [{{step: end, when: \"{{{{ {when} }}}}\"}}]}}}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered().len() == 2, taken, "{step}: {when}");
    }
}

#[test]
fn after_a_loop_arcs_match_loop_done_and_else_call_done() {
    for (arcs, expected) in [
        (
            "[{step: a, when: \"{{ event.name == 'loop.done' }}\"}, {step: b, when: \"{{ event.name == 'call.done' }}\"}]",
            "a",
        ),
        (
            "[{step: b, when: \"{{ event.name == 'call.done' }}\"}, {step: a, when: \"{{ event.name == 'loop.done' }}\"}]",
            "a",
        ),
        ("[{step: b, when: \"{{ event.name == 'call.done' }}\"}]", "b"),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - {{step: start, loop: {{in: 2, iterator: i}}, tool: {{kind: python, code: x}}, next: {{arcs: {arcs}}}}}
              - {{step: a, tool: {{kind: noop}}}}
              - {{step: b, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered(), ["start", expected], "{arcs}");
    }
}

#[test]
fn no_arc_that_matches_ends_the_branch() {
    for mode in ["{}", "{on_no_match: quiet}", "{on_no_match: complete}"] {
        let ran = run(&format!(
            "
            workflow:
              - {{step: start, tool: {{kind: noop}}, next: {{spec: {mode}, arcs: [{{step: end, when: '{{{{ 1 > 2 }}}}'}}]}}}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!((ran.entered().len(), ran.status()), (1, Status::Completed), "{mode}");
    }
}

#[test]
fn every_side_of_a_set_block_sees_the_state_before_the_block() {
    let ran = ran("
        workflow:
          - {step: start, tool: {kind: noop}, set: {ctx.a: 1, ctx.b: 2}, next: {arcs: [{step: swap}]}}
          - {step: swap, tool: {kind: noop}, set: {ctx.a: '{{ ctx.b }}', ctx.b: '{{ ctx.a }}'}}
    ");
    assert_eq!((ran.ctx("a"), ran.ctx("b")), (json!(2), json!(1)));
}

#[test]
fn policy_then_task_then_step_then_arc_set_in_that_order() {
    let ran = ran("
        workflow:
          - step: start
            tool:
              - name: one
                kind: python
                code: x
                input: {v: 1}
                spec: {policy: {rules: [{else: {then: {do: continue, set: {ctx.order: [policy], seen: '{{ output.data.v }}'}}}}]}}
                set: {kept: '{{ (ctx.order or []) + [\"task\", seen] }}'}
              - {name: two, kind: python, code: x, input: {kept: '{{ kept }}'}}
            set: {ctx.order: '{{ start.two.kept + [\"step\"] }}'}
            next:
              arcs:
                - step: end
                  when: \"{{ ctx.order[3] == 'step' }}\"
                  set: {ctx.order: '{{ ctx.order + [\"arc\"] }}'}
          - {step: end, tool: {kind: python, code: x, input: {order: '{{ order }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"order": ["policy", "task", 1, "step", "arc"]}));
}

#[test]
fn a_policy_and_set_read_the_new_result_by_its_name_and_not_that_of_the_round_before() {
    let ran = ran("
        workflow:
          - step: turn
            tool:
              kind: python
              code: x
              input: {n: '{{ (ctx.n or 0) + 1 }}'}
              spec: {policy: {rules: [{when: '{{ turn.n > 0 }}', then: {do: continue, set: {ctx.n: '{{ turn.n }}', ctx.seen: '{{ (ctx.seen or []) + [turn.n] }}'}}}]}}
            next: {arcs: [{step: turn, when: '{{ ctx.n < 3 }}'}, {step: list}]}
          - step: list
            tool:
              - name: one
                kind: python
                code: x
                input: {v: 7}
                spec: {policy: {rules: [{else: {then: {do: continue, set: {iter.v: '{{ one.v }}'}}}}]}}
                set: {w: '{{ one.v }}'}
              - {name: two, kind: python, code: x, input: {v: '{{ iter.v }}', w: '{{ w }}'}}
    ");
    assert_eq!(ran.ctx("seen"), json!([1, 2, 3]));
    assert_eq!(ran.result("list")["two"], json!({"v": 7, "w": 7}));
}

#[test]
fn what_a_retry_jump_or_fail_sets_is_set() {
    for (then, expected) in [
        ("{do: retry, attempts: 3, set: {ctx.n: '{{ (ctx.n or 0) + 1 }}'}}", json!(3)),
        ("{do: fail, set: {ctx.n: '{{ (ctx.n or 0) + 1 }}'}}", json!(1)),
        ("{do: break, set: {ctx.n: '{{ output.error.code }}'}}", json!("BOOM")),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - step: start
                tool: [{{name: bad, kind: python, code: x, spec: {{policy: {{rules: [{{else: {{then: {then}}}}}]}}}}}}]
            "
        ));
        assert_eq!(ran.ctx("n"), expected, "{then}");
    }
}

#[test]
fn a_step_that_runs_again_replaces_its_result() {
    let ran = ran("
        workflow:
          - step: start
            tool: {kind: python, code: x, input: {before: '{{ start.n }}', n: '{{ (start.n or 0) + 1 }}'}}
            next: {arcs: [{step: start, when: '{{ start.n < 3 }}'}]}
    ");
    assert_eq!(ran.result("start"), json!({"before": 2, "n": 3}));
    assert_eq!(ran.entered().len(), 3);
}

#[test]
fn a_join_behind_a_loop_and_an_unequal_branch_runs_once() {
    let ran = ran("
        workflow:
          - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: one}, {step: skipped}]}}
          - {step: each, loop: {in: 3, iterator: i, spec: {mode: parallel}}, tool: {kind: python, code: x}, next: {arcs: [{step: join}]}}
          - {step: one, tool: {kind: python, code: x}, next: {arcs: [{step: two}]}}
          - {step: two, tool: {kind: python, code: x}, next: {arcs: [{step: join}]}}
          - {step: skipped, when: '{{ false }}', tool: {kind: python, code: x}, next: {arcs: [{step: join}]}}
          - {step: join, tool: {kind: python, code: x, input: {n: '{{ each.stats.total }}', t: '{{ two.status }}'}}}
    ");
    assert_eq!(ran.entered().iter().filter(|step| *step == "join").count(), 1);
    assert_eq!(ran.result("join"), json!({"n": 3, "t": "ok"}));
}

#[test]
fn a_pipeline_gives_its_labels_its_fields_and_results_and_the_last_task_wins() {
    let ran = ran("
        workflow:
          - step: start
            tool:
              - {name: one, kind: python, code: x, input: {v: 1, only: here}}
              - {name: two, kind: python, code: x, input: {v: 2, one: hidden by the label}}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: python, code: x, input: {v: '{{ start.v }}', o: '{{ start.only }}', l: '{{ start.one.v }}', r: '{{ start.results.two.v }}', d: '{{ start.data.one.v }}'}}}
    ");
    assert_eq!(ran.result("end"), json!({"v": 2, "o": "here", "l": 1, "r": 2, "d": 1}));
}

#[test]
fn a_task_that_failed_and_was_passed_over_does_not_make_the_step_look_failed() {
    let playbook = |last: &str| {
        format!(
            "
            workflow:
              - step: start
                tool:
                  - {{name: bad, kind: python, code: x, spec: {{policy: {{rules: [{{else: {{then: {{do: continue}}}}}}]}}}}}}
                  {last}
                next: {{arcs: [{{step: failed, when: \"{{{{ output.status == 'error' }}}}\"}}, {{step: fine}}]}}
              - {{step: failed, tool: {{kind: noop}}}}
              - {{step: fine, tool: {{kind: noop}}}}
            "
        )
    };
    let ran_on = ran(&playbook("- {name: next, kind: python, code: x, input: {v: '{{ bad.error.message }}'}}"));
    assert_eq!(ran_on.entered(), ["start", "fine"]);
    assert_eq!(ran_on.result("start")["bad"]["status"], json!("error"));
    assert_eq!(ran_on.result("start")["partial"], json!(1));
    assert_eq!(ran_on.result("start")["v"], json!("it broke"));
    let ended = ran(&playbook(""));
    assert_eq!(ended.entered(), ["start", "failed"]);
    assert_eq!(ended.failed_steps(), Vec::<String>::new());
}

#[test]
fn results_that_are_no_objects_are_bound_as_they_are() {
    let ran = run_with(
        "
        workflow:
          - {step: list, tool: {kind: python, code: x}, next: {arcs: [{step: text}]}}
          - {step: text, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {l: '{{ list[1] }}', d: '{{ list.data }}', n: '{{ list | length }}', t: '{{ text }}', td: '{{ text.data }}'}}}
        ",
        json!({}),
        |call| match &*call.step {
            "list" => ToolOutcome::ok(json!([1, 2])),
            "text" => ToolOutcome::ok(json!("hi")),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("end"), json!({"l": 2, "d": [1, 2], "n": 2, "t": "hi", "td": "hi"}));
}

#[test]
fn a_loop_iterates_what_can_be_iterated_and_fails_on_the_rest() {
    for (source, elements) in [
        ("'{{ [7, 8] }}'", Some(json!([7, 8]))),
        ("'{{ {\"k\": 1} }}'", Some(json!([{"key": "k", "value": 1}]))),
        ("'{{ 2 }}'", Some(json!([0, 1]))),
        ("'{{ \"a,b\" }}'", Some(json!(["a", "b"]))),
        ("'{{ [] }}'", Some(json!([]))),
        ("'{{ nothing }}'", None),
        ("'{{ true }}'", None),
    ] {
        let ran = run_with(
            &format!(
                "
                workflow:
                  - {{step: start, loop: {{in: {source}, iterator: i}}, tool: {{kind: python, code: x, input: {{i: '{{{{ i }}}}'}}}}}}
                "
            ),
            json!({}),
            |call| ToolOutcome::ok(call.input["i"].clone()),
        );
        match elements {
            Some(elements) => assert_eq!(ran.result("start")["results"], elements, "{source}"),
            None => assert_eq!(ran.status(), Status::Failed, "{source}"),
        }
    }
}

#[test]
fn a_loop_gives_results_and_stats_and_a_failed_iteration_is_one_of_them() {
    let ran = run_with(
        "
        workflow:
          - {step: start, loop: {in: 3, iterator: i}, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {d: '{{ start.data.stats.total }}', s: '{{ start.status }}'}}}
        ",
        json!({}),
        |call| match call.input.get("i") {
            Some(i) if *i == json!(1) => {
                ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "BOOM", "it broke"), json!({"part": 1}))
            }
            _ => echo(call),
        },
    );
    let result = ran.result("start");
    let stats = json!({"total": 3, "completed": 2, "success": 2, "failed": 1, "skipped": 0});
    assert_eq!(result["stats"], stats);
    assert_eq!(result["results"][1]["status"], json!("error"));
    assert_eq!(result["results"][1]["part"], json!(1));
    assert_eq!(ran.result("end"), json!({"d": 3, "s": "ok"}));
}

#[test]
fn a_hard_error_in_an_iteration_fails_the_run_after_the_loop_unless_an_arc_catches_it() {
    for (arcs, status) in [
        ("[{step: end}]", Status::Failed),
        ("[{step: end, when: \"{{ event.name == 'call.error' }}\"}]", Status::Completed),
        ("[{step: end, when: \"{{ output.status == 'error' }}\"}]", Status::Completed),
        ("[{step: end, when: \"{{ start.error.code == 'PG_42601' }}\"}]", Status::Completed),
        ("[{step: end, when: \"{{ start.status != 'error' }}\"}]", Status::Failed),
        ("[{step: end, when: \"{{ output.stats.failed > 100 }}\"}]", Status::Failed),
    ] {
        let ran = run_with(
            &format!(
                "
                workflow:
                  - {{step: start, loop: {{in: 3, iterator: i}}, tool: {{kind: postgres, query: q}}, next: {{arcs: {arcs}}}}}
                  - {{step: end, tool: {{kind: noop}}}}
                "
            ),
            json!({}),
            |call| match call.input["i"] == json!(0) {
                true => ToolOutcome::failed(ToolError::hard(ErrorKind::Unknown, "PG_42601", "syntax"), json!(null)),
                false => echo(call),
            },
        );
        assert_eq!(ran.status(), status, "{arcs}");
        assert_eq!(ran.desk.calls.len(), 3, "the others run all the same");
        assert!(ran.log().contains(&"loop.done"));
        let data = ran.result("start");
        assert_eq!((&data["status"], &data["error"]["message"]), (&json!("error"), &json!("syntax")));
    }
}

#[test]
fn break_ends_one_iteration_and_not_the_loop() {
    let ran = ran("
        workflow:
          - step: start
            loop: {in: 3, iterator: i}
            tool:
              - {name: one, kind: python, code: x, spec: {policy: {rules: [{when: '{{ iter.i == 1 }}', then: {do: break}}]}}}
              - {name: two, kind: python, code: x}
    ");
    let result = ran.result("start");
    let second: Vec<_> = (0..3).map(|at| result["results"][at].get("two").is_some()).collect();
    assert_eq!((second, &result["stats"]["failed"]), (vec![true, false, true], &json!(0)));
}

#[test]
fn no_rule_and_an_error_fails_and_no_rule_and_success_goes_on() {
    for (rules, reached) in [
        ("", false),
        ("spec: {policy: {rules: [{when: '{{ false }}', then: {do: continue}}]}}, ", false),
        ("spec: {policy: {rules: [{when: '{{ true }}', then: {do: continue}}]}}, ", true),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - {{step: start, tool: [{{{rules}name: bad, kind: python, code: x}}, {{name: next, kind: python, code: x}}]}}
            "
        ));
        assert_eq!(ran.desk.calls.len() == 2, reached, "{rules}");
        assert_eq!(ran.failed_steps().is_empty(), reached, "{rules}");
        assert_eq!(ran.status(), Status::Completed);
    }
}

#[test]
fn attempts_count_executions_and_a_delay_without_backoff_is_constant() {
    for (retry, executions, waited_ms) in [
        ("attempts: 3, delay: 60", 3, 120_000),
        ("attempts: 3, delay: 60, backoff: fixed", 3, 120_000),
        ("attempts: 3, delay: 60, backoff: linear", 3, 180_000),
        ("attempts: 4, delay: 60, backoff: exponential", 4, 420_000),
        ("attempts: 2, delay: 60, backoff: none", 2, 0),
        ("attempts: 1", 1, 0),
        ("delay: 0", 3, 0),
        ("attempts: '{{ 1 + 1 }}', delay: '{{ 30 * 2 }}'", 2, 60_000),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - step: bad
                tool: {{kind: python, code: x, spec: {{policy: {{rules: [{{else: {{then: {{do: retry, {retry}}}}}}}]}}}}}}
            "
        ));
        let head = &ran.seat().head;
        assert_eq!(ran.desk.calls.len(), executions, "{retry}");
        assert_eq!(head.updated_at.since_ms(head.started_at), waited_ms, "{retry}");
        assert_eq!((ran.status(), ran.failed_steps().len()), (Status::Completed, 1), "used up retries are soft");
    }
}

#[test]
fn a_policy_belongs_to_a_single_tool_as_well_and_to_each_iteration() {
    let ran = run_with(
        "
        workflow:
          - step: start
            loop: {in: 2, iterator: i}
            tool: {kind: http, url: u, spec: {policy: {rules: [{when: \"{{ output.http.status in [503] }}\", then: {do: retry, attempts: 2, delay: 0}}]}}}
        ",
        json!({}),
        {
            let mut calls = 0;
            move |_| {
                calls += 1;
                let error = ToolError::soft(ErrorKind::ServerError, "HTTP_503", "busy");
                let failed = ToolOutcome { http: Some(json!({"status": 503})), ..ToolOutcome::failed(error, json!({})) };
                if calls % 2 == 1 { failed } else { ToolOutcome::ok(json!({"n": calls})) }
            }
        },
    );
    assert_eq!(ran.result("start")["results"], json!([{"n": 2}, {"n": 4}]));
}

#[test]
fn soft_and_hard_errors_end_as_the_table_says() {
    for (hard, policy, arc, status, reached) in [
        (false, "", "", Status::Completed, true),
        (true, "", "", Status::Failed, false),
        (true, "", ", when: \"{{ output.status == 'error' }}\"", Status::Completed, true),
        (true, "spec: {policy: {rules: [{else: {then: {do: continue}}}]}}, ", "", Status::Completed, true),
        (true, "spec: {policy: {rules: [{else: {then: {do: fail}}}]}}, ", "", Status::Completed, true),
        (true, "spec: {policy: {rules: [{else: {then: {do: retry, attempts: 2}}}]}}, ", "", Status::Completed, true),
        (false, "spec: {policy: {rules: [{else: {then: {do: retry, attempts: 2}}}]}}, ", "", Status::Completed, true),
    ] {
        let ran = run_with(
            &format!(
                "
                workflow:
                  - {{step: start, tool: {{{policy}kind: postgres, query: q}}, next: {{arcs: [{{step: end{arc}}}]}}}}
                  - {{step: end, tool: {{kind: noop}}}}
                "
            ),
            json!({}),
            move |_| {
                let error = ToolError { hard, ..ToolError::soft(ErrorKind::Unknown, "X", "x") };
                ToolOutcome::failed(error, json!(null))
            },
        );
        assert_eq!((ran.status(), ran.entered().len() == 2), (status, reached), "{hard} {policy} {arc}");
    }
}

#[test]
fn a_result_beyond_64_kib_is_stored_and_is_called_kv_or_disk_by_its_size() {
    for (bytes, store) in [
        (7_000, None),
        (INLINE_BYTES_MAX - 200, None),
        (INLINE_BYTES_MAX + 1, Some("kv")),
        (KV_BYTES_MAX - 200, Some("kv")),
        (KV_BYTES_MAX + 1, Some("disk")),
    ] {
        let text = "x".repeat(bytes);
        let ran = run_with(
            "
            workflow:
              - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
              - step: end
                tool:
                  - {name: look, kind: python, code: x, input: {stored: '{{ start._ref is defined }}', store: '{{ start._store }}', n: '{{ start.n }}', size: '{{ start.text | length }}', ref: '{{ start._ref }}'}}
                  - {name: whole, kind: artifact, action: get, input: {result_ref: '{{ look.ref }}'}, spec: {policy: {rules: [{else: {then: {do: continue}}}]}}}
                  - {name: again, kind: result_fetch, ref: '{{ look.ref }}', spec: {policy: {rules: [{else: {then: {do: continue}}}]}}}
                  - {name: read, kind: python, code: x, input: {a: '{{ whole.text | length }}', b: '{{ again.n }}'}}
            ",
            json!({}),
            move |call| match &*call.step {
                "start" => ToolOutcome::ok(json!({"n": 1, "text": text.clone()})),
                _ => echo(call),
            },
        );
        let look = ran.result("end")["look"].clone();
        assert_eq!((&look["stored"], &look["n"], &look["size"]), (&json!(store.is_some()), &json!(1), &json!(bytes)));
        assert_eq!(look["store"], json!(store), "{bytes}");
        if store.is_some() {
            let id = ran.id;
            assert!(look["ref"].as_str().unwrap().starts_with(&format!("noetl://execution/{id}/result/start/")));
            assert_eq!(ran.result("end")["read"], json!({"a": bytes, "b": 1}));
        } else {
            assert_eq!(ran.result("end")["whole"]["error"]["code"], json!("ARTIFACT_REF"));
        }
    }
}

#[test]
fn inline_max_bytes_says_from_what_size_on_a_result_is_stored() {
    for (output, bytes, store) in [
        ("{inline_max_bytes: 0}", 1, Some("kv")),
        ("{store: {kind: gcs}, inline_max_bytes: '100'}", 101, Some("gcs")),
        ("{store: {kind: gcs}, inline_max_bytes: 100}", 50, None),
        ("{inline_max_bytes: 1000000}", INLINE_BYTES_MAX + 1, Some("kv")),
        ("{store: {kind: kv}}", 1, None),
    ] {
        let text = "x".repeat(bytes);
        let ran = run_with(
            &format!(
                "
            workflow:
              - {{step: start, tool: {{kind: python, code: x, output: {output}}}, next: {{arcs: [{{step: end}}]}}}}
              - {{step: end, tool: {{kind: python, code: x, input: {{store: '{{{{ start._store }}}}', size: '{{{{ start.text | length }}}}'}}}}}}
            "
            ),
            json!({}),
            move |call| match &*call.step {
                "start" => ToolOutcome::ok(json!({"text": text.clone()})),
                _ => echo(call),
            },
        );
        assert_eq!(ran.result("end"), json!({"store": store, "size": bytes}), "{output} {bytes}");
    }
}

#[test]
fn a_child_gets_its_input_and_gives_its_return_step_and_its_end() {
    let child = "
        workload: {n: 0}
        workflow:
          - {step: start, tool: {kind: python, code: x, input: {n: '{{ n }}', parent: '{{ parent_execution_id }}'}}, next: {arcs: [{step: last}]}}
          - {step: last, tool: {kind: python, code: x, input: {last: true}}}
    ";
    for (how, expected) in [
        ("return_step: start", json!({"n": 5})),
        ("result_step: start", json!({"n": 5})),
        ("return_step: never", json!({"last": true})),
        ("version: latest", json!({"last": true})),
    ] {
        let parent = format!(
            "
            workflow:
              - {{step: start, tool: {{kind: playbook, path: 'test/{{{{ \"p1\" }}}}', {how}, payload: {{n: 5, parent_execution_id: '{{{{ job.execution_id }}}}'}}}}}}
            "
        );
        let mut desk = Desk::new(&[&parent, child], echo);
        let id = desk.start(0, json!({}));
        desk.run();
        let ran = crate::desk::Ran { desk, id };
        let result = ran.result("start");
        assert_eq!(result["status"], json!("COMPLETED"), "{how}");
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&result[key], value, "{how}");
        }
        if result.get("parent").is_some() {
            assert_eq!(result["parent"], json!(id.to_string()));
        }
        let born = ran.desk.members.values().find(|seat| seat.head.parent_execution_id == Some(id));
        assert_eq!(result["execution_id"], json!(born.unwrap().head.execution_id.to_string()));
    }
}

#[test]
fn a_child_may_be_named_by_its_id_in_the_catalog_alone() {
    let child = "
        workflow:
          - {step: start, tool: {kind: noop, result: {n: 7}}}
    ";
    for (name, expected) in [
        ("catalog_id: 2", Ok(json!(7))),
        ("catalog_id: '{{ 1 + 1 }}'", Ok(json!(7))),
        ("catalog_id: '2', path: test/another", Ok(json!(7))),
        ("catalog_id: 9", Err("PLAYBOOK_UNKNOWN")),
        ("catalog_id: nine", Err("PLAYBOOK_ID")),
        ("catalog_id: null, path: ''", Err("PLAYBOOK_PATH")),
    ] {
        let parent = format!(
            "
            workflow:
              - {{step: start, tool: {{kind: playbook, {name}}}}}
            "
        );
        let mut desk = Desk::new(&[&parent, child], echo);
        let id = desk.start(0, json!({}));
        desk.run();
        let ran = crate::desk::Ran { desk, id };
        match expected {
            Ok(n) => assert_eq!(ran.result("start")["n"], n, "{name}"),
            Err(code) => assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!(code), "{name}"),
        }
    }
}

#[test]
fn the_mode_of_a_router_may_stand_beside_its_arcs() {
    for (next, entered) in [
        ("{mode: inclusive, arcs: [{step: a}, {step: b}]}", 3),
        ("{mode: exclusive, arcs: [{step: a}, {step: b}]}", 2),
        ("{mode: inclusive, spec: {mode: exclusive}, arcs: [{step: a}, {step: b}]}", 2),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - {{step: start, tool: {{kind: noop}}, next: {next}}}
              - {{step: a, tool: {{kind: noop}}}}
              - {{step: b, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered().len(), entered, "{next}");
    }
}

#[test]
fn a_child_is_named_by_its_path_in_every_spelling() {
    let child = "
        workflow:
          - {step: only, tool: {kind: python, code: x, input: {said: 1}}}
    ";
    for (path, status) in [
        ("path: test/p1", Status::Completed),
        ("path: \"test/p1\\n\"", Status::Completed),
        ("path: '{{ \"test\" }}/p1 '", Status::Completed),
        ("path: catalog://test/p1", Status::Completed),
        ("path: catalog://test/p1@latest", Status::Completed),
        ("path: catalog://test/p1@9", Status::Failed),
        ("path: catalog://test/p1@soon", Status::Failed),
        ("path: catalog://test/p1@latest, version: 9", Status::Failed),
    ] {
        let parent = format!(
            "
            workflow:
              - {{step: start, tool: {{kind: playbook, {path}}}}}
            "
        );
        let mut desk = Desk::new(&[&parent, child], echo);
        let id = desk.start(0, json!({}));
        desk.run();
        assert_eq!(desk.members[&id].head.status, status, "{path}");
    }
}
