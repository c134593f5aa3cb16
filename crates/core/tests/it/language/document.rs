//! The grammar: root, steps, tools, tasks, policies, loops, arcs, old words, and what is refused.

use noetl_core::head::Status;
use noetl_core::playbook::TOOL_KINDS;
use serde_json::json;

use super::*;
use crate::desk::run;

#[test]
fn two_api_versions_are_read_and_no_other() {
    let rest = "kind: Playbook\nmetadata: {path: p}\nworkflow: [{step: a, tool: {kind: noop}}]";
    for (version, read) in [("noetl.io/v2", true), ("noetl.io/v10", true), ("noetl.io/v1", false), ("v2", false)] {
        assert_eq!(compile(&format!("apiVersion: {version}\n{rest}")).is_ok(), read, "{version}");
    }
}

#[test]
fn a_playbook_is_known_by_its_path_else_by_its_name() {
    let rest = "workflow: [{step: a, tool: {kind: noop}}]";
    for (metadata, path, name) in [
        ("{path: a/b, name: c}", "a/b", "c"),
        ("{name: c}", "c", "c"),
        ("{path: /vars_test/api}", "/vars_test/api", "/vars_test/api"),
    ] {
        let source = format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {metadata}\n{rest}");
        let playbook = compiled(&source).playbook;
        assert_eq!((&*playbook.path, &*playbook.name), (path, name), "{metadata}");
    }
}

#[test]
fn metadata_may_say_more_and_tags_are_a_list_or_one_word() {
    for tags in ["[a, b]", "a"] {
        let source = format!(
            "apiVersion: noetl.io/v2\nkind: Playbook\n\
             metadata: {{path: p, version: 2, labels: {{team: x}}, tags: {tags}, exposes_as_mcp: true, description: d}}\n\
             workflow: [{{step: a, tool: {{kind: noop}}}}]"
        );
        assert!(compiled(&source).warnings.is_empty(), "{tags}");
    }
}

#[test]
fn a_missing_or_null_workload_is_an_empty_one() {
    for workload in ["", "workload:", "workload: ~", "workload: {}"] {
        let source = format!("{HEAD}{workload}\nworkflow: [{{step: a, tool: {{kind: noop}}}}]");
        assert!(compiled(&source).playbook.workload.is_empty(), "{workload}");
    }
}

#[test]
fn the_executor_names_where_a_run_begins_and_what_its_limits_are() {
    let source = format!(
        "{HEAD}executor:\n  profile: local\n  version: noetl-runtime/1\n  requires: {{tools: [http], features: [x]}}\n  \
         spec: {{entry_step: b, final_step: a, no_next_is_error: true, \
         policy: {{defaults: {{timeout_s: 5}}, results: {{reference_first: true}}}}, limits: {{max_steps: 7}}}}\n\
         workflow: [{{step: a, tool: {{kind: noop}}}}, {{step: b, tool: {{kind: noop}}, next: a}}]\n"
    );
    let compiled = compiled(&source);
    assert_eq!(compiled.warnings, []);
    let playbook = compiled.playbook;
    assert_eq!(&*playbook.step(playbook.entry).name, "b");
    assert_eq!(playbook.executor.final_step.map(|ix| &*playbook.step(ix).name), Some("a"));
    assert_eq!((playbook.executor.no_next_is_error, playbook.executor.max_steps), (true, 7));
    assert_eq!(playbook.executor.task_timeout_ms, Some(5_000));
}

#[test]
fn a_noop_step_gives_ok_or_what_it_is_told_to() {
    let ran = ran("
        workflow:
          - {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: noop, result: {a: '{{ start.status }}'}}}
    ");
    assert_eq!(ran.result("start"), json!({"status": "ok"}));
    assert_eq!(ran.result("end"), json!({"a": "ok"}));
}

#[test]
fn admission_takes_the_first_rule_that_matches_and_lets_in_when_none_does() {
    for (rules, entered) in [
        ("[{when: '{{ go }}', then: {allow: true}}, {else: {then: {allow: false}}}]", false),
        ("[{when: '{{ not go }}', then: {allow: true}}, {else: {then: {allow: false}}}]", true),
        ("[{when: '{{ go }}', then: {allow: false}}]", true),
        ("[{else: {allow: false}}]", false),
    ] {
        let ran = run(&format!(
            "
            workload: {{go: false}}
            workflow:
              - step: start
                tool: {{kind: noop}}
                spec: {{policy: {{admit: {{mode: exclusive, rules: {rules}}}}}}}
                next: {{arcs: [{{step: end, set: {{ctx.passed: true}}}}]}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        ));
        let expected: &[&str] = if entered { &["start", "end"] } else { &["end"] };
        assert_eq!(ran.entered(), expected, "{rules}");
        assert_eq!(ran.ctx("passed"), json!(true), "the arcs of a skipped step are followed: {rules}");
    }
}

#[test]
fn step_input_and_set_belong_to_the_step() {
    let ran = ran("
        workflow:
          - step: start
            input: {a: 1, b: 1}
            tool: {kind: python, code: x, input: {b: 2, c: '{{ a }}'}}
            set: {ctx.sum: '{{ start.a + start.b }}', ctx.deep.er: '{{ output.b }}', ctx.also: '{{ result.a }}'}
    ");
    assert_eq!(ran.result("start"), json!({"a": 1, "b": 2, "c": 1}));
    assert_eq!(ran.ctx("sum"), json!(3));
    assert_eq!(ran.ctx("deep"), json!({"er": 2}));
    assert_eq!(ran.ctx("also"), json!(1));
}

#[test]
fn output_settings_are_read_at_the_step_and_at_a_single_tool() {
    for written in [
        "output: {output_select: [keep], store: {kind: disk}}\n  tool: {kind: python, code: x}",
        "output_select: [keep]\n  tool: {kind: python, code: x}",
        "tool: {kind: python, code: x, output: {select: [keep], store: kv, inline_max_bytes: 9}}",
        "tool: {kind: http, url: u, output_select: [keep]}",
    ] {
        let playbook = compiled(&format!("{HEAD}workflow:\n- step: a\n  {written}\n")).playbook;
        assert_eq!(playbook.steps[0].output.select, ["keep"], "{written}");
    }
    // What the step leaves open, its tool says.
    let both = "output: {output_select: [keep]}\n  tool: {kind: python, code: x, output: {select: [no], store: disk}}";
    let playbook = compiled(&format!("{HEAD}workflow:\n- step: a\n  {both}\n")).playbook;
    assert_eq!(
        (&*playbook.steps[0].output.select, playbook.steps[0].output.store.as_deref()),
        (&["keep".to_owned()][..], Some("disk"))
    );
    // One that is no list is an http tool's own affair.
    compiled(&format!("{HEAD}workflow: [{{step: a, tool: {{kind: http, url: u, output_select: {{strategy: x}}}}}}]"));
}

#[test]
fn a_tool_is_a_mapping_or_a_list_in_either_spelling() {
    for (tool, pipeline, labels) in [
        ("{kind: noop}", false, "a"),
        ("[{kind: noop}]", true, "task_0"),
        ("[{name: x, kind: noop}, {kind: noop}]", true, "x task_1"),
        ("[{x: {kind: noop}}, {y: {spec: {kind: noop}}}]", true, "x y"),
        ("{spec: {kind: noop, result: 1}}", false, "a"),
    ] {
        let playbook = compiled(&format!("{HEAD}workflow: [{{step: a, tool: {tool}}}]")).playbook;
        let body = &playbook.steps[0].body;
        let found: Vec<_> = body.tasks.iter().map(|task| &*task.label).collect();
        assert_eq!((body.pipeline, found.join(" ").as_str()), (pipeline, labels), "{tool}");
    }
}

#[test]
fn configuration_under_spec_counts_and_what_stands_further_out_wins() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              kind: http
              url: outer
              spec: {url: inner, method: PUT, params: {a: '{{ 1 + 1 }}'}, input: {x: 1}, policy: {rules: [{else: {then: {do: continue, set: {ctx.seen: 1}}}}]}}
        ",
        json!({}),
        |call| ToolOutcome::ok(json!({"config": call.config, "input": call.input})),
    );
    let expected = json!({"config": {"url": "outer", "method": "PUT", "params": {"a": 2}}, "input": {"x": 1}});
    assert_eq!(ran.result("start"), expected);
    assert_eq!(ran.ctx("seen"), json!(1));
}

#[test]
fn the_kinds_of_tools_are_these_and_a_refusal_lists_them() {
    let kinds = "artifact duckdb http noop playbook postgres python result_fetch secrets shell transfer workbook";
    assert_eq!(TOOL_KINDS.join(" "), kinds);
    let found = refused("workflow: [{step: a, tool: {kind: nonsense}}]");
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("artifact, duckdb, http"), "{}", found[0]);
}

#[test]
fn a_kind_that_playbooks_seldom_reach_matters_only_where_it_is_reached() {
    for kind in ["nats", "snowflake"] {
        let playbook = format!(
            "workload: {{optional: []}}\n\
             workflow:\n\
             - step: start\n  tool: {{kind: noop}}\n  \
               next: {{arcs: [{{step: far, when: '{{{{ optional }}}}'}}, {{step: end}}]}}\n\
             - {{step: far, tool: {{kind: {kind}, auth: far_away, command: SELECT 1}}, next: {{arcs: [{{step: end}}]}}}}\n\
             - {{step: end, tool: {{kind: noop}}}}\n"
        );
        let warnings = compiled(&format!("{HEAD}{playbook}")).warnings;
        assert_eq!(warnings.len(), 1, "{kind}: {warnings:?}");
        assert!(warnings[0].to_string().contains(&format!("`{kind}`")), "{kind}: {}", warnings[0]);
        assert_eq!(run(&playbook).status(), Status::Completed, "{kind}");
    }
}

#[test]
fn a_policy_takes_the_first_rule_that_matches() {
    for (rules, seen) in [
        ("[{when: '{{ output.data.n == 1 }}', then: {set: {ctx.s: a}}}, {else: {then: {set: {ctx.s: b}}}}]", "a"),
        ("[{when: false, then: {set: {ctx.s: a}}}, {else: {do: continue, set: {ctx.s: b}}}]", "b"),
        ("[{when: true, then: {set: {ctx.s: a}}}, {when: true, then: {set: {ctx.s: b}}}]", "a"),
        ("[{else: ~, then: {do: continue, set: {ctx.s: c}}}]", "c"),
    ] {
        let ran = ran(&format!(
            "
            workflow:
              - step: start
                tool: {{kind: python, code: x, input: {{n: 1}}, spec: {{policy: {{rules: {rules}}}}}}}
            "
        ));
        assert_eq!(ran.ctx("s"), json!(seen), "{rules}");
    }
}

#[test]
fn a_loop_iterates_a_template_or_a_literal_list() {
    for source in ["'{{ workload.items }}'", "[1, 2]", "'[1, 2]'", "'1,2'"] {
        let ran = ran(&format!(
            "
            workload: {{items: [1, 2]}}
            workflow:
              - {{step: start, loop: {{in: {source}, iterator: i}}, tool: {{kind: python, code: x, input: {{v: '{{{{ i | int }}}}'}}}}}}
            "
        ));
        let values: Vec<_> = (0..2).map(|at| ran.result("start")["results"][at]["v"].clone()).collect();
        assert_eq!(values, [json!(1), json!(2)], "{source}");
    }
}

#[test]
fn the_number_of_iterations_at_once_may_be_a_template() {
    let mut desk = crate::desk::Desk::new(
        &["
        workload: {n: 2}
        workflow:
          - step: start
            loop: {in: 5, iterator: i, spec: {mode: parallel, max_in_flight: '{{ n }}', policy: {exec: distributed}}}
            tool: {kind: python, code: x}
        "],
        echo,
    );
    let id = desk.start(0, json!({}));
    assert_eq!(desk.members[&id].commands.len(), 2);
    desk.run();
}

#[test]
fn next_is_a_router_a_name_a_list_of_names_or_of_arcs() {
    for (next, entered) in [
        ("b", "a b"),
        ("[b, c]", "a b c"),
        ("[{step: b}, {step: c, when: '{{ false }}'}]", "a b"),
        ("{step: c}", "a c"),
        ("{arcs: [{step: b}]}", "a b"),
        ("{spec: {mode: inclusive, on_no_match: quiet}, arcs: [{step: b}, {step: c}]}", "a b c"),
        ("{spec: {mode: exclusive}, arcs: [{step: b, when: '{{ false }}'}, {step: c}]}", "a c"),
        ("~", "a"),
        ("{}", "a"),
    ] {
        let ran = run(&format!(
            "
            workflow:
              - {{step: a, tool: {{kind: noop}}, next: {next}}}
              - {{step: b, tool: {{kind: noop}}}}
              - {{step: c, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered().join(" "), entered, "{next}");
    }
}

#[test]
fn cond_is_a_bare_expression_over_the_fields_of_the_result() {
    let playbook = "
        workflow:
          - step: start
            tool: {kind: shell, cmds: [x]}
            next: {arcs: [{step: busy, cond: exit_code == 100}, {step: bad, cond: exit_code != 0}, {step: good, cond: \"output.stdout == 'x'\"}]}
          - {step: busy, tool: {kind: noop}}
          - {step: bad, tool: {kind: noop}}
          - {step: good, tool: {kind: noop}}
    ";
    for (exit_code, target) in [(100, "busy"), (7, "bad"), (0, "good")] {
        let ran = run_with(playbook, json!({}), move |_| {
            ToolOutcome::ok(json!({"exit_code": exit_code, "stdout": "x", "stderr": ""}))
        });
        assert_eq!(ran.entered(), ["start", target]);
    }
}

#[test]
fn two_arcs_to_the_same_target_are_one_arrival() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: end, set: {ctx.a: 1}}, {step: end, set: {ctx.b: 2}}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "end"]);
    assert_eq!((ran.ctx("a"), ran.ctx("b")), (json!(1), json!(2)));
}

#[test]
fn old_words_for_the_same_thing_work() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool:
              - {name: a, kind: python, code: x, args: {v: 1}}
              - {name: b, kind: python, code: x, with: {v: 2}}
              - {name: c, kind: python, code: x, params: {v: 3}}
              - {name: d, kind: http, endpoint: u, payload: {v: 4}, timeout_seconds: '5'}
              - {name: e, kind: postgres, credential: c, command: q}
        ",
        json!({}),
        |call| ToolOutcome::ok(json!([call.input, call.config, call.timeout_ms])),
    );
    let result = ran.result("start");
    assert_eq!(result["a"], json!([{"v": 1}, {"code": "x"}, null]));
    assert_eq!(result["b"], json!([{"v": 2}, {"code": "x"}, null]));
    assert_eq!(result["c"], json!([{"v": 3}, {"code": "x"}, null]));
    assert_eq!(result["d"], json!([{}, {"url": "u", "payload": {"v": 4}}, 5000]));
    assert_eq!(result["e"], json!([{}, {"auth": "c", "command": "q"}, null]));
}

#[test]
fn a_workbook_task_brings_arguments_that_the_step_may_override() {
    let ran = ran("
        workbook:
          - name: rate
            tool: {kind: python, code: x, input: {a: own, b: own, c: own}, spec: {policy: {rules: [{else: {then: {do: continue, set: {ctx.rated: 1}}}}]}}}
        workflow:
          - step: start
            input: {b: step}
            tool: {kind: workbook, name: rate, input: {c: tool}}
            next: {arcs: [{step: list}]}
          - step: list
            tool: [{name: mine, kind: workbook, task: rate}]
    ");
    assert_eq!(ran.result("start"), json!({"a": "own", "b": "step", "c": "tool"}));
    assert_eq!(ran.result("list")["mine"], json!({"a": "own", "b": "own", "c": "own"}));
    assert_eq!(ran.ctx("rated"), json!(1));
}

#[test]
fn every_mistake_is_refused_and_all_of_them_at_once() {
    let noop = "tool: {kind: noop}";
    for (rest, codes) in [
        ("workflow: []".to_owned(), "NE0104"),
        (format!("workflow: [{{step: a, {noop}}}, {{step: a, {noop}}}]"), "NE0202"),
        ("workflow: [{step: a}]".into(), "NE0204"),
        ("workflow: [{step: a, tool: {code: x}}]".into(), "NE0301"),
        (format!("workflow: [{{step: a, {noop}, next: {{arcs: [{{step: b}}]}}}}]"), "NE0203"),
        (format!("workflow: [{{step: a, {noop}, loop: {{in: [1]}}}}]"), "NE0501"),
        (format!("workflow: [{{step: a, {noop}, loop: {{iterator: i}}}}]"), "NE0502"),
        (
            format!(
                "workflow: [{{step: a, {noop}, loop: {{iterator: i, in: [1], cursor: {{kind: postgres, claim: x}}}}}}]"
            ),
            "NE0502",
        ),
        ("workflow: [{step: a, tool: {kind: noop, spec: {policy: {mode: x}}}}]".into(), "NE0401"),
        ("workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: stop}}]}}}}]".into(), "NE0403"),
        ("workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: jump}}]}}}}]".into(), "NE0404"),
        (
            "workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: jump, to: b}}]}}}}]".into(),
            "NE0404",
        ),
        ("workflow: [{step: a, tool: [{name: x, kind: noop}, {name: x, kind: noop}]}]".into(), "NE0304"),
        ("workflow: [{step: a, tool: {kind: workbook, name: x}}]".into(), "NE0305"),
        (
            format!(
                "vars: {{a: 1}}\nworkflow: [{{step: a}}, {{step: b, {noop}, next: c}}, {{step: d, {noop}, when: '{{{{ (}}}}'}}]"
            ),
            "NE0006 NE0204 NE0203",
        ),
    ] {
        let found = refused(&rest);
        let found: Vec<_> = found
            .iter()
            .map(|finding| {
                let span = finding.span.unwrap_or_else(|| panic!("{finding} has no place"));
                assert!(span.line > 3 && span.column > 0, "{finding}");
                finding.code
            })
            .collect();
        assert_eq!(found.join(" "), codes, "{rest}");
    }
}

#[test]
fn a_run_begins_at_the_entry_step_else_at_start_else_at_the_first() {
    for (executor, steps, entry) in
        [("executor: {spec: {entry_step: b}}", "a start b", "b"), ("", "a start b", "start"), ("", "a b", "a")]
    {
        let steps: Vec<_> = steps.split(' ').map(|name| format!("{{step: {name}, tool: {{kind: noop}}}}")).collect();
        let source = format!("{HEAD}{executor}\nworkflow: [{}]", steps.join(", "));
        let playbook = compiled(&source).playbook;
        assert_eq!(&*playbook.step(playbook.entry).name, entry, "{source}");
    }
}

#[test]
fn a_command_that_is_no_template_fails_its_step_and_not_the_registration() {
    let ran = ran("
        workflow:
          - step: start
            tool: {kind: shell, cmds: [\"docker ps --format '{{.Names}}'\"]}
    ");
    assert_eq!(ran.status(), Status::Failed);
    let error = ran.seat().head.error.clone().unwrap();
    assert_eq!(error["code"], json!("TEMPLATE"));
    assert!(error["message"].as_str().unwrap().contains("{% raw %}"), "{error}");
    assert!(ran.desk.calls.is_empty());
}
