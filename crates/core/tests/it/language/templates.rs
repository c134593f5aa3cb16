//! Templates where they stand: what is rendered, when, and what it becomes.

use noetl_core::head::Status;
use serde_json::json;

use super::*;

#[test]
fn a_lone_expression_keeps_its_type_and_white_space_around_it_does_not_matter() {
    let workload = "{n: 1, l: [1], m: {a: 1}, t: true, s: '7', z: ~}";
    for (template, expected) in [
        ("'{{ n }}'", json!(1)),
        ("'{{ l }}'", json!([1])),
        ("'{{ m }}'", json!({"a": 1})),
        ("'{{ t }}'", json!(true)),
        ("'{{ s }}'", json!("7")),
        ("'{{ z }}'", json!(null)),
        ("'{{ nothing }}'", json!(null)),
        ("\"  {{ n }}\\n\"", json!(1)),
        ("'{{ (n | int) + 1 }}'", json!(2)),
        ("'{{ nothing is defined }}'", json!(false)),
        ("'{{ (nothing or []) + [n] }}'", json!([1])),
        ("'{{ m.a if m else 0 }}'", json!(1)),
        ("'{{ n }}{{ n }}'", json!("11")),
        ("'v={{ z }}.'", json!("v=.")),
    ] {
        assert_eq!(seen(workload, &format!("{{v: {template}}}"), json!({}))["v"], expected, "{template}");
    }
}

#[test]
fn templates_are_rendered_anywhere_inside_lists_and_maps() {
    let seen = seen("{n: 1}", "{v: {a: ['{{ n }}', {b: '{{ n + 1 }}'}], '{{ n }}': key}}", json!({}));
    assert_eq!(seen, json!({"v": {"a": [1, {"b": 2}], "{{ n }}": "key"}}));
}

#[test]
fn data_is_never_rendered_again() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, set: {ctx.text: '{{ start.text }}'}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {a: '{{ start.text }}', b: '{{ ctx.text }}', c: '{{ payload_text }}'}}}
        ",
        json!({"payload_text": "{{ 3 + 3 }}"}),
        |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"text": "{{ 1 + 1 }}"})),
            _ => echo(call),
        },
    );
    assert_eq!(ran.result("end"), json!({"a": "{{ 1 + 1 }}", "b": "{{ 1 + 1 }}", "c": "{{ 3 + 3 }}"}));
}

#[test]
fn the_whole_configuration_of_a_tool_is_rendered_code_included() {
    let ran = run_with(
        "
        workload: {size: 3, table: t, alias: pg}
        workflow:
          - step: start
            tool:
              - {name: code, kind: python, code: 'n = {{ size }}'}
              - {name: sql, kind: postgres, auth: '{{ alias }}', query: 'select {{ code.n }} from {{ table }}'}
              - {name: web, kind: http, url: 'http://h/{{ sql.n }}', headers: {A: '{{ size }}'}, params: {p: ['{{ size }}']}}
        ",
        json!({}),
        |call| {
            let mut config = call.config.clone();
            config.insert("n".into(), json!(5));
            ToolOutcome::ok(json!(config))
        },
    );
    let result = ran.result("start");
    assert_eq!(result["code"]["code"], json!("n = 3"));
    assert_eq!(result["sql"]["query"], json!("select 5 from t"));
    assert_eq!(result["sql"]["auth"], json!("pg"));
    assert_eq!(result["web"]["url"], json!("http://h/5"));
    assert_eq!(result["web"]["headers"], json!({"A": 3}));
    assert_eq!(result["web"]["params"], json!({"p": [3]}));
}

#[test]
fn python_with_doubled_braces_that_are_no_template_is_used_as_it_is() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: \"x = f'{{ {a} b }}'\"}}
        ",
        json!({}),
        |call| ToolOutcome::ok(call.config["code"].clone()),
    );
    assert_eq!(ran.result("start"), json!("x = f'{{ {a} b }}'"));
}

#[test]
fn a_condition_is_text_that_says_no_or_a_value_that_is_empty() {
    for (value, holds) in [
        ("true", true),
        ("false", false),
        ("'False'", false),
        ("'no'", false),
        ("'off'", false),
        ("'None'", false),
        ("'0'", false),
        ("''", false),
        ("'{}'", false),
        ("0", false),
        ("[]", false),
        ("{}", false),
        ("~", false),
        ("'yes'", true),
        ("1", true),
        ("[0]", true),
    ] {
        let ran = ran(&format!(
            "
            workload: {{v: {value}}}
            workflow:
              - {{step: start, tool: {{kind: noop}}, next: {{arcs: [{{step: yes, when: '{{{{ v }}}}'}}]}}}}
              - {{step: yes, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered().len() == 2, holds, "{value}");
    }
}

#[test]
fn a_condition_on_what_is_not_there_is_false_and_no_error() {
    let ran = ran("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {arcs: [{step: end, when: '{{ nothing.at.all[3].here > 5 }}'}, {step: other, when: '{{ not nothing.here }}'}]}
          - {step: end, tool: {kind: noop}}
          - {step: other, tool: {kind: noop}}
    ");
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.entered(), ["start", "other"]);
}

#[test]
fn statements_make_text() {
    let seen = seen(
        "{rows: [1, 2], grade: 7}",
        "{sql: '{% for r in rows %}INSERT INTO t VALUES ({{ r }});{% endfor %}', g: '{% if grade > 8 %}a{% elif grade > 5 %}b{% else %}c{% endif %}'}",
        json!({}),
    );
    assert_eq!(seen, json!({"sql": "INSERT INTO t VALUES (1);INSERT INTO t VALUES (2);", "g": "b"}));
}

#[test]
fn workload_defaults_are_rendered_once_in_the_order_in_which_they_need_each_other() {
    let seen = seen(
        "{url: '{{ base }}/x', base: 'http://{{ host }}', host: '{{ payload.host | default(\"localhost\") }}', mine: '{{ mine }}', a: '{{ b }}', b: '{{ a }}'}",
        "{url: '{{ url }}', mine: '{{ mine }}', a: '{{ a }}', whole: '{{ workload }}'}",
        json!({"host": "h"}),
    );
    assert_eq!(seen["url"], json!("http://h/x"));
    assert_eq!(seen["mine"], json!(null), "a key that reads itself means the request's, which has none");
    assert_eq!(seen["a"], json!(null));
    let whole = seen["whole"].as_object().unwrap();
    assert_eq!((whole.len(), &whole["url"], &whole["host"]), (6, &json!("http://h/x"), &json!("h")));
}

#[test]
fn a_template_that_can_not_be_read_fails_the_step_that_gets_there_and_no_other() {
    let fine = run_with(
        "
        workload: {way: good}
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: bad, when: \"{{ way == 'bad' }}\"}, {step: good}]}}
          - {step: good, tool: {kind: python, code: x, input: {a: 1}}}
          - {step: bad, tool: {kind: python, code: x, input: {a: '{{ way | tojsn }}'}}}
        ",
        json!({}),
        echo,
    );
    assert_eq!((fine.status(), fine.result("good")), (Status::Completed, json!({"a": 1})));
    for place in [
        "input: {a: '{{ 1 | tojsn }}'}, tool: {kind: python, code: x}",
        "when: '{{ 1 | tojsn }}', tool: {kind: noop}",
        "tool: {kind: noop}, next: {arcs: [{step: start, when: '{{ 1 | tojsn }}'}]}",
        "tool: {kind: noop}, set: {ctx.a: '{{ 1 | tojsn }}'}",
        "tool: {kind: noop, spec: {policy: {rules: [{when: '{{ 1 | tojsn }}', then: {do: continue}}]}}}",
        "loop: {in: '{{ 1 | tojsn }}', iterator: i}, tool: {kind: noop}",
    ] {
        let bad = ran(&format!("workflow: [{{step: start, {place}}}]"));
        assert_eq!(bad.status(), Status::Failed, "{place}");
        let log = format!("{:?}", bad.seat().events);
        assert!(
            log.contains("no filter `tojsn` (line 6, column ") && log.contains("did you mean `tojson`"),
            "{place}: {log}"
        );
    }
}

#[test]
fn what_goes_wrong_in_a_template_names_its_place() {
    let bad =
        ran("workflow:\n  - step: start\n    tool: {kind: noop}\n    set:\n      ctx.a: \"{{ 'x' | b64decode }}\"\n");
    let log = format!("{:?}", bad.seat().events);
    assert!(log.contains("no base64") && log.contains("(line 10, column 15)"), "{log}");
}
