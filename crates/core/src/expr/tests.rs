//! What expressions mean, as tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::result::StoredRef;

/// Names for tests: bindings by name.
#[derive(Debug, Default)]
struct Known(IndexMap<&'static str, Binding>);

impl Names for Known {
    fn lookup(&self, name: &str) -> Option<Binding> {
        self.0.get(name).cloned()
    }
}

impl Known {
    fn data(entries: Value) -> Known {
        let Value::Object(map) = entries else { panic!("a map expected") };
        let leak = |key: String| -> &'static str { Box::leak(key.into_boxed_str()) };
        Known(map.into_iter().map(|(key, value)| (leak(key), Binding::Data(Arc::new(value)))).collect())
    }

    fn result(name: &'static str, data: Value) -> Known {
        Known([(name, Binding::Result(ResultBinding::ok(Bound::inline(data))))].into_iter().collect())
    }
}

fn with<T>(names: &Known, library: &Arc<Library>, run: impl FnOnce(&Scope<'_>) -> T) -> T {
    run(&Scope { names, library, now: Timestamp(1_768_900_080_123) })
}

fn render(names: &Known, template: &str) -> Result<Value, ExprError> {
    let template = ValueTemplate::compile(&Value::from(template)).unwrap();
    with(names, &Arc::new(Library::empty()), |scope| template.render(scope))
}

#[track_caller]
fn check(names: &Known, cases: &[(&str, Value)]) {
    for (template, expected) in cases {
        let value = render(names, template);
        assert_eq!(value.as_ref(), Ok(expected), "{template}");
        if let (Ok(Value::Number(value)), Value::Number(expected)) = (&value, expected) {
            assert_eq!(value.to_string(), expected.to_string(), "{template}");
        }
    }
}

#[test]
fn a_lone_expression_keeps_its_type() {
    let names = Known::data(json!({
        "n": 7, "f": 1.5, "t": true, "s": "x", "e": "", "z": null, "l": [1, "two"], "m": {"a": {"b": [10, 20]}},
        "id": 543_857_931_469_455_628_i64, "u": 18_446_744_073_709_551_615_u64, "digits": "42", "flag": "True",
    }));
    check(
        &names,
        &[
            ("{{ n }}", json!(7)),
            ("  {{ n }}\n", json!(7)),
            ("{{- n -}}", json!(7)),
            ("{{ f }}", json!(1.5)),
            ("{{ t }}", json!(true)),
            ("{{ s }}", json!("x")),
            ("{{ e }}", json!("")),
            ("{{ z }}", json!(null)),
            ("{{ l }}", json!([1, "two"])),
            ("{{ m }}", json!({"a": {"b": [10, 20]}})),
            ("{{ m.a.b[0] }}", json!(10)),
            ("{{ m['a'].b[-1] }}", json!(20)),
            ("{{ id }}", json!(543_857_931_469_455_628_i64)),
            ("{{ u }}", json!(18_446_744_073_709_551_615_u64)),
            ("{{ digits }}", json!("42")),
            ("{{ flag == true }}", json!(false)),
            ("{{ t == true }}", json!(true)),
            ("{{ t != true }}", json!(false)),
            ("{{ missing }}", json!(null)),
            ("{{ missing | default({}) }}", json!({})),
            ("{{ missing | default([]) }}", json!([])),
            ("{{ z | default(n) }}", json!(7)),
            ("{{ missing.a.b[3].c | default('d') }}", json!("d")),
            ("{{ (n | int) + 1 }}", json!(8)),
            ("{{ n is defined }}", json!(true)),
            ("{{ z is defined }}", json!(true)),
            ("{{ z is none }}", json!(true)),
            ("{{ missing is defined }}", json!(false)),
            ("{{ m.a.b if m else l }}", json!([10, 20])),
            ("{{ (missing or []) + [n] }}", json!([7])),
            ("{{ l + [m.a] }}", json!([1, "two", {"b": [10, 20]}])),
            ("{{ {'a': n, 'b': [t, z]} }}", json!({"a": 7, "b": [true, null]})),
            ("{{ n in [7, 8] }}", json!(true)),
            ("{{ n not in l }}", json!(true)),
            ("{{ -n }}", json!(-7)),
            ("{{ n / 2 }}", json!(3.5)),
            ("{{ 4 / 2 }}", json!(2.0)),
            ("{{ n // 2 }}", json!(3)),
            ("{{ 1.0 }}", json!(1.0)),
            ("{{ id + 1 }}", json!(543_857_931_469_455_629_i64)),
            ("{{ m | tojson }}", json!(r#"{"a":{"b":[10,20]}}"#)),
            ("{{ range(3) }}", json!([0, 1, 2])),
            ("{{ now() }}", json!("2026-01-20T09:08:00.123Z")),
            ("{{ now().isoformat() }}", json!("2026-01-20T09:08:00.123Z")),
            ("{{ now().strftime('%Y-%m-%d') }}", json!("2026-01-20")),
            ("{% set c = cycler('a', 'b') %}{% for n in [1, 2, 3] %}{{ c.next() }}{% endfor %}", json!("aba")),
            ("{% set j = joiner(';') %}{% for n in [1, 2] %}{{ j() }}{{ n }}{% endfor %}", json!("1;2")),
            ("{{ token('alias') }}", json!(null)),
            ("{{ m.items }}", json!(null)),
            ("{{ s[0] }}", json!("x")),
            ("{{ s[0][-1] }}", json!("x")),
            ("{{ l[5] }}", json!(null)),
            ("{{ n.a.b }}", json!(null)),
            ("{{ s.data }}", json!(null)),
        ],
    );
}

#[test]
fn text_around_an_expression_makes_text() {
    let names = Known::data(json!({
        "n": 7, "f": 1.0, "t": true, "s": "it's", "z": null, "l": [1, "a", null, true], "m": {"k": [1.5]}, "x": {"a": "<&'>"},
    }));
    check(
        &names,
        &[
            ("a{{ n }}b", json!("a7b")),
            ("{{ n }}{{ n }}", json!("77")),
            (" {{ n }} {{ missing }}{{ z }} ", json!(" 7  ")),
            ("t={{ t }} f={{ f }}", json!("t=True f=1.0")),
            ("{{ t | string | lower }}!", json!("true!")),
            ("l={{ l }}", json!("l=[1, 'a', None, True]")),
            ("m={{ m }}", json!("m={'k': [1.5]}")),
            ("'{{ s | replace(\"'\", \"''\") }}'", json!("'it''s'")),
            ("'{{ x | tojson | replace(\"'\", \"''\") }}'::jsonb", json!(r#"'{"a":"<&''>"}'::jsonb"#)),
            ("$${{ {\"a\": x.a} | tojson }}$$::jsonb", json!(r#"$${"a":"<&'>"}$$::jsonb"#)),
            ("$${{ n }}$$", json!("$$7$$")),
            ("{{ n }}\n", json!(7)),
            ("x{{ n }}\n", json!("x7\n")),
            ("{% if n > 5 %}big{% elif n > 1 %}some{% else %}none{% endif %}", json!("big")),
            ("{% for i in l %}<{{ i }}>{% endfor %}", json!("<1><a><><True>")),
            ("{% for i in [] %}{% endfor %}", json!("")),
            ("{# why #}{{ n }}", json!("7")),
            ("{% for i in l[:2] %}{{ i }}{% endfor %}", json!("1a")),
            ("a  {{- n -}}  b", json!("a7b")),
            ("{% raw %}{{ n }}{% endraw %}", json!("{{ n }}")),
            ("keep\n{% if t %}x{% endif %}\n", json!("keep\nx\n")),
            ("{% set y = n + 1 %}{{ y }}", json!("8")),
            ("{{ '{{' }} {{ s }}", json!("{{ it's")),
        ],
    );
}

#[test]
fn filters_are_kind_to_what_is_missing() {
    let names = Known::data(json!({
        "z": null, "n": 3, "l": [3, 1, 2], "s": "Abc", "float": "3.7", "junk": "abc", "big": "123456789012345678901", "o": {"a": 1},
        "id": "543857931469455628",
    }));
    check(
        &names,
        &[
            ("{{ junk | int }}", json!(0)),
            ("{{ junk | int(5) }}", json!(5)),
            ("{{ junk | int(default=5) }}", json!(5)),
            ("{{ missing | int }}", json!(0)),
            ("{{ z | int }}", json!(0)),
            ("{{ l | int }}", json!(0)),
            ("{{ float | int }}", json!(3)),
            ("{{ -3.7 | int }}", json!(-3)),
            ("{{ ' 12 ' | int }}", json!(12)),
            ("{{ true | int }}", json!(1)),
            ("{{ id | int }}", json!(543_857_931_469_455_628_i64)),
            ("{{ '0x1f' | int(0, 16) }}", json!(31)),
            ("{{ junk | float }}", json!(0.0)),
            ("{{ float | float }}", json!(3.7)),
            ("{{ missing | length }}", json!(0)),
            ("{{ z | length }}", json!(0)),
            ("{{ l | length }}", json!(3)),
            ("{{ o | length }}", json!(1)),
            ("{{ s | length }}", json!(3)),
            ("{{ n | replace('3', 'x') }}", json!("x")),
            ("{{ l | replace(', ', ';') }}", json!("[3;1;2]")),
            ("{{ missing | replace('a', 'b') }}", json!("")),
            ("{{ s | lower }}", json!("abc")),
            ("{{ n | string }}", json!("3")),
            ("{{ l | first }}", json!(3)),
            ("{{ missing | first }}", json!(null)),
            ("{{ l | sort | join('-') }}", json!("1-2-3")),
            ("{{ l | map('string') | list }}", json!(["3", "1", "2"])),
            ("{{ o | items | list }}", json!([["a", 1]])),
            ("{{ missing | tojson }}", json!("null")),
            ("{{ 'ü' | tojson }}", json!("\"ü\"")),
            ("{{ '' | default('x') }}", json!("")),
            ("{{ '' | default('x', true) }}", json!("x")),
            ("{{ missing | default }}", json!("")),
            ("{{ n | string | lower == \"3\" }}", json!(true)),
            ("{{ missing == 'error' }}", json!(false)),
            ("{{ missing.status in [429, 500] }}", json!(false)),
            ("{{ 'x' in missing }}", json!(false)),
            ("{{ 'a' in o }}", json!(true)),
            ("{{ l == [3, 1, 2] }}", json!(true)),
            ("{{ o == {'a': 1.0} }}", json!(true)),
            ("{{ l[1:] }}", json!([1, 2])),
            ("{{ o['a'] }}", json!(1)),
        ],
    );
}

#[test]
fn conditions_are_true_as_the_language_says() {
    let names = Known::data(json!({
        "t": true, "f": false, "zero": 0, "zf": 0.0, "one": 1, "no": " No ", "text": "x", "e": "", "fs": "False", "l": [], "ll": [0],
        "m": {}, "mm": {"a": 0}, "z": null, "off": "off", "braces": "{}", "brackets": "[]", "none": "None", "number": "0",
    }));
    for (when, expected) in [
        (json!(true), true),
        (json!(false), false),
        (json!("true"), true),
        (json!("False"), false),
        (json!("{{ t }}"), true),
        (json!("{{ f }}"), false),
        (json!("{{ zero }}"), false),
        (json!("{{ zf }}"), false),
        (json!("{{ one }}"), true),
        (json!("{{ no }}"), false),
        (json!("{{ off }}"), false),
        (json!("{{ fs }}"), false),
        (json!("{{ number }}"), false),
        (json!("{{ braces }}"), false),
        (json!("{{ brackets }}"), false),
        (json!("{{ none }}"), false),
        (json!("{{ text }}"), true),
        (json!("{{ e }}"), false),
        (json!("{{ l }}"), false),
        (json!("{{ ll }}"), true),
        (json!("{{ m }}"), false),
        (json!("{{ mm }}"), true),
        (json!("{{ z }}"), false),
        (json!("{{ missing.deep }}"), false),
        (json!("{{ one > 0 and text == 'x' }}"), true),
        (json!("{{ text | upper }}"), true),
        (json!("{{ no | lower }}"), false),
        (json!("{{ ll[0:0] }}"), false),
        (json!("{% if t %}no{% endif %}"), false),
        (json!("{{ f }}{{ t }}"), true),
    ] {
        let condition = Condition::compile(&when).unwrap();
        let holds = with(&names, &Arc::new(Library::empty()), |scope| condition.holds(scope));
        assert_eq!(holds, Ok(expected), "{when}");
    }
    let raw = Condition::compile_raw("one == 1 and mm.a == 0").unwrap();
    assert_eq!(with(&names, &Arc::new(Library::empty()), |scope| raw.holds(scope)), Ok(true));
    assert_eq!(raw.source(), "one == 1 and mm.a == 0");
    assert_eq!(raw.roots().collect::<Vec<_>>(), ["mm", "one"]);
}

#[test]
fn a_result_answers_its_own_keys_before_anything_else() {
    let plain = Known::result("s", json!({"rows": [{"x": 1}], "items": [1], "keys": 2}));
    check(
        &plain,
        &[
            ("{{ s.rows[0].x }}", json!(1)),
            ("{{ s.data.rows[0].x }}", json!(1)),
            ("{{ s.result.data.rows[0].x }}", json!(1)),
            ("{{ s.items }}", json!([1])),
            ("{{ s.keys + 0 }}", json!(2)),
            ("{{ s.values }}", json!(null)),
            ("{{ s.status }}", json!("ok")),
            ("{{ s.status == 'ok' and s.data.status == 'ok' }}", json!(true)),
            ("{{ s.error is defined }}", json!(false)),
            ("{{ s._ref is defined }}", json!(false)),
            ("{{ s.results }}", json!(null)),
            ("{{ s.missing.more }}", json!(null)),
            ("{{ s }}", json!({"rows": [{"x": 1}], "items": [1], "keys": 2})),
            ("{{ s | length }}", json!(3)),
        ],
    );
    let own =
        Known::result("s", json!({"data": {"data": 5}, "status": "mine", "result": 1, "results": [2], "error": 3}));
    check(
        &own,
        &[
            ("{{ s.data.data }}", json!(5)),
            ("{{ s.status }}", json!("mine")),
            ("{{ s.result }}", json!(1)),
            ("{{ s.results[0] }}", json!(2)),
            ("{{ s.error is defined }}", json!(true)),
        ],
    );
    for (data, expected) in [(json!([4, 5]), json!(4)), (json!("four"), json!("f"))] {
        check(
            &Known::result("s", data.clone()),
            &[
                ("{{ s }}", data.clone()),
                ("{{ s.data }}", data.clone()),
                ("{{ s.data[0] }}", expected),
                ("{{ s.data | tojson }}", json!(data.to_string())),
                ("{{ s.status }}", json!("ok")),
            ],
        );
    }
    check(
        &Known::result("s", json!(5)),
        &[("{{ s.data + 1 }}", json!(6)), ("{{ s + 1 }}", json!(6)), ("{{ s.status == 'ok' }}", json!(true))],
    );
}

#[test]
fn a_failed_result_has_an_error_and_a_status() {
    let failed = ResultBinding {
        bound: Bound::inline(json!({"partial": 1})),
        status: Some("error"),
        error: Some(Arc::new(json!({"kind": "timeout", "retryable": true}))),
        labels: None,
    };
    let names = Known([("s", Binding::Result(failed))].into_iter().collect());
    check(
        &names,
        &[
            ("{{ s.status }}", json!("error")),
            ("{{ s.error.kind }}", json!("timeout")),
            ("{{ s.status == 'error' and s.error.retryable }}", json!(true)),
            ("{{ s.error is defined }}", json!(true)),
            ("{{ s.partial }}", json!(1)),
            ("{{ s }}", json!({"partial": 1})),
        ],
    );
}

#[test]
fn a_pipeline_answers_its_labels_and_their_data() {
    let pipeline = ResultBinding {
        bound: Bound::inline(json!({"one": {"x": 1}, "two": 2, "x": 1, "three": {"data": 3}})),
        status: Some("ok"),
        error: None,
        labels: Some(["one", "two", "three"].into_iter().map(Arc::from).collect()),
    };
    let names = Known([("p", Binding::Result(pipeline))].into_iter().collect());
    check(
        &names,
        &[
            ("{{ p.x }}", json!(1)),
            ("{{ p.one.x }}", json!(1)),
            ("{{ p.one.data.x }}", json!(1)),
            ("{{ p.results.one.x }}", json!(1)),
            ("{{ p.results.one.data.x + p.two.data }}", json!(3)),
            ("{{ p.results.x }}", json!(null)),
            ("{{ p.three.data }}", json!(3)),
            ("{{ p.data.results.two }}", json!(2)),
            ("{{ p.results }}", json!({"one": {"x": 1}, "two": 2, "three": {"data": 3}})),
            ("{{ p.results | length }}", json!(3)),
            ("{{ p.one.status }}", json!(null)),
            ("{% for k in p.results %}{{ k }} {% endfor %}", json!("one two three ")),
        ],
    );
}

#[test]
fn an_http_answer_falls_through_to_its_json_body() {
    let answer = json!({"status_code": 200, "headers": {"h": 1}, "data": {"paging": 2, "status": "up", "result": 9}, "body": {}});
    let mut names = Known::result("s", answer.clone());
    names.0.insert("output", Binding::Data(Arc::new(json!({"status": "ok", "data": answer}))));
    check(
        &names,
        &[
            ("{{ s.status_code }}", json!(200)),
            ("{{ s.data.paging }}", json!(2)),
            ("{{ s.paging }}", json!(2)),
            ("{{ s.status }}", json!("ok")),
            ("{{ s.result }}", json!(9)),
            ("{{ s.error is defined }}", json!(false)),
            ("{{ output.data.paging }}", json!(2)),
            ("{{ output.data.data.paging + output.data.paging }}", json!(4)),
            ("{{ output.data.status }}", json!("up")),
            ("{{ output.data.missing }}", json!(null)),
            ("{{ output.data | length }}", json!(4)),
        ],
    );
    let text = Known::result("s", json!({"status_code": 200, "headers": {}, "data": "text", "body": "text"}));
    check(&text, &[("{{ s.paging is defined }}", json!(false)), ("{{ s.data }}", json!("text"))]);
    let no_answer = Known::result("s", json!({"data": {"paging": 2}}));
    check(&no_answer, &[("{{ s.paging }}", json!(null))]);
}

#[test]
fn groups_hold_further_names() {
    let group = [
        ("item", Binding::Data(Arc::new(json!({"id": 3})))),
        ("s", Binding::Result(ResultBinding::ok(Bound::inline(json!([1]))))),
    ];
    let group = group.into_iter().map(|(key, binding)| (Arc::from(key), binding)).collect();
    let names = Known([("iter", Binding::Group(Arc::new(group)))].into_iter().collect());
    check(
        &names,
        &[
            ("{{ iter.item.id }}", json!(3)),
            ("{{ iter.item.id + iter.s.data[0] }}", json!(4)),
            ("{{ iter.missing }}", json!(null)),
            ("{{ iter }}", json!({"item": {"id": 3}, "s": [1]})),
            ("{{ iter | length }}", json!(2)),
        ],
    );
}

fn stored(summary: Value) -> (Known, &'static str) {
    let reference = "noetl://execution/1/result/s/2";
    let stored = StoredRef { reference: reference.to_owned(), store: "kv".to_owned(), bytes: 100_000, summary };
    let binding = Binding::Result(ResultBinding::ok(Bound::Stored(Arc::new(stored))));
    (Known([("s", binding)].into_iter().collect()), reference)
}

#[test]
fn a_stored_result_is_loaded_only_when_more_than_its_summary_is_touched() {
    let full = json!({"id": 7, "rows": [[1], [2]], "error": null});
    let (names, reference) = stored(json!({"id": 7}));
    let loaded = Arc::new(Library::with(BTreeMap::from([(reference.to_owned(), Arc::new(full.clone()))])));
    for (template, needed, expected) in [
        ("{{ s.id }}", false, json!(7)),
        ("{{ s.id + 1 }}", false, json!(8)),
        ("{{ s._ref }}", false, json!(reference)),
        ("{{ s._uri }}", false, json!(reference)),
        ("{{ s._store == 'kv' }}", false, json!(true)),
        ("{{ s._preview.id }}", false, json!(7)),
        ("{{ s._ref is defined }}", false, json!(true)),
        ("{{ s is defined }}", false, json!(true)),
        ("{{ 'yes' if s else 'no' }}", false, json!("yes")),
        ("{{ s.rows | length }}", true, json!(2)),
        ("{{ s.rows[1][0] }}", true, json!(2)),
        ("{{ s.data.rows[1][0] }}", true, json!(2)),
        ("{{ s.missing is defined }}", true, json!(false)),
        ("{{ s.missing | default(1) }}", true, json!(1)),
        ("{{ s.error is defined }}", true, json!(true)),
        ("{{ s.status }}", true, json!("ok")),
        ("{{ s | length }}", true, json!(3)),
        ("{{ s | tojson | length > 3 }}", true, json!(true)),
        ("{{ s }}", true, full.clone()),
        ("a{{ s }}", true, json!("a{'id': 7, 'rows': [[1], [2]], 'error': None}")),
        ("{% for k in s %}{{ k }},{% endfor %}", true, json!("id,rows,error,")),
        ("{{ [s.rows] }}", true, json!([[[1], [2]]])),
        ("{{ s == {} }}", true, json!(false)),
    ] {
        let compiled = ValueTemplate::compile(&json!(template)).unwrap();
        let empty = Arc::new(Library::empty());
        let first = with(&names, &empty, |scope| compiled.render(scope));
        match needed {
            true => {
                assert_eq!(first, Err(ExprError::Needs), "{template}");
                assert_eq!(empty.take_needs(), [reference], "{template}");
                assert_eq!(empty.take_needs(), [""; 0]);
            }
            false => assert_eq!(first, Ok(expected.clone()), "{template}"),
        }
        assert_eq!(with(&names, &loaded, |scope| compiled.render(scope)), Ok(expected), "{template}");
        assert_eq!(loaded.take_needs(), [""; 0]);
    }
}

#[test]
fn a_stored_list_or_text_answers_its_reference_without_loading() {
    for full in [json!([1, 2]), json!("long text")] {
        let (names, reference) = stored(Value::Null);
        let empty = Arc::new(Library::empty());
        let render = |template: &str, library: &Arc<Library>| {
            let template = ValueTemplate::compile(&json!(template)).unwrap();
            with(&names, library, |scope| template.render(scope))
        };
        assert_eq!(render("{{ s._ref }}", &empty), Ok(json!(reference)));
        assert_eq!(render("{{ s._ref is defined and s._store == 'kv' }}", &empty), Ok(json!(true)));
        for template in ["{{ s }}", "{{ s | length }}", "{{ s[0] }}", "{{ s.data }}", "x{{ s }}"] {
            assert_eq!(render(template, &empty), Err(ExprError::Needs), "{template}");
        }
        let loaded = Arc::new(Library::with(BTreeMap::from([(reference.to_owned(), Arc::new(full.clone()))])));
        assert_eq!(render("{{ s.data }}", &loaded), Ok(full.clone()));
        assert_eq!(render("{{ s._ref }}", &loaded), Ok(json!(reference)));
    }
}

#[test]
fn a_condition_on_a_stored_result_does_not_load_it() {
    let (names, _) = stored(json!({"id": 7}));
    let condition = Condition::compile(&json!("{{ s }}")).unwrap();
    assert_eq!(with(&names, &Arc::new(Library::empty()), |scope| condition.holds(scope)), Ok(true));
}

#[test]
fn all_needs_of_a_value_are_noted_at_once() {
    let (mut names, _) = stored(json!({}));
    let other = StoredRef { reference: "other".into(), store: "disk".into(), bytes: 1, summary: json!({}) };
    names.0.insert("o", Binding::Result(ResultBinding::ok(Bound::Stored(Arc::new(other)))));
    let library = Arc::new(Library::empty());
    for template in [
        json!({"a": "{{ s.x }}", "b": ["{{ o.y }}"]}),
        json!("{{ s.x }} {{ o.y }}"),
        json!("{{ [s.x, o.y] | length }}"),
    ] {
        let compiled = ValueTemplate::compile(&template).unwrap();
        assert_eq!(with(&names, &library, |scope| compiled.render(scope)), Err(ExprError::Needs));
        assert!(library.take_needs().len() >= if template.is_object() { 2 } else { 1 }, "{template}");
    }
}

#[test]
fn data_is_never_rendered_again() {
    let names = Known::data(json!({"evil": "{{ secret }}", "secret": "s3", "m": {"a": "{% if %}"}}));
    check(
        &names,
        &[
            ("{{ evil }}", json!("{{ secret }}")),
            ("x {{ evil }}", json!("x {{ secret }}")),
            ("{{ m }}", json!({"a": "{% if %}"})),
            ("{{ [evil] | first }}", json!("{{ secret }}")),
        ],
    );
    let literal = ValueTemplate::literal(json!("{{ secret }}"));
    assert_eq!(with(&names, &Arc::new(Library::empty()), |scope| literal.render(scope)), Ok(json!("{{ secret }}")));
}

#[test]
fn trees_are_rendered_everywhere_but_in_their_keys() {
    let names = Known::data(json!({"n": 1}));
    let source = json!({"{{ n }}": "{{ n }}", "l": [{"x": "{{ n + 1 }}"}, 3, null], "t": "a{{ n }}"});
    let compiled = ValueTemplate::compile(&source).unwrap();
    let value = with(&names, &Arc::new(Library::empty()), |scope| compiled.render(scope));
    assert_eq!(value, Ok(json!({"{{ n }}": 1, "l": [{"x": 2}, 3, null], "t": "a1"})));
    assert_eq!(compiled.source(), source);
    assert_eq!(compiled.as_literal(), None);
    assert_eq!(compiled.roots().collect::<Vec<_>>(), ["n"]);
    assert!(compiled.reads("n") && !compiled.reads("l"));
    let plain = json!({"a": [1, {"b": "c"}]});
    assert_eq!(ValueTemplate::compile(&plain).unwrap().as_literal(), Some(&plain));
}

#[test]
fn templates_know_the_names_they_read() {
    for (template, expected) in [
        ("{{ a.b[0].c }}", vec!["a"]),
        ("{{ a + b | default(c.d) }}", vec!["a", "b", "c"]),
        ("x {{ a }} {{ b }}", vec!["a", "b"]),
        ("{% for i in l %}{{ i.x }}{{ o }}{% endfor %}", vec!["l", "o"]),
        ("{{ 'a.b' }}", vec![]),
        ("{{ keychain.k.token }}", vec!["keychain"]),
        ("{{ l[1:] }}", vec!["l"]),
        ("{% for i in a.l[n:] %}{{ i }}{% endfor %}", vec!["a", "n"]),
    ] {
        assert_eq!(Template::compile(template).unwrap().roots().collect::<Vec<_>>(), expected, "{template}");
    }
}

#[test]
fn what_does_not_parse_is_refused_with_its_place() {
    for (template, meant) in [
        ("{{ a +  }}", "+"),
        ("text {{ a b }}", "b"),
        ("{{ a | }}", "|"),
        ("{{ 1 = 2 }}", "="),
        ("{% if %}x{% endif %}", "%}"),
        ("{% nope %}", "nope"),
        ("{{ a.. }}", "."),
        ("{{ a | tojsn }}", "tojsn"),
        ("x {{ a | int }} {{ a is difined }}", "difined"),
        ("{% if a is nice %}{{ a }}{% endif %}", "nice"),
    ] {
        let error = Template::compile(template).unwrap_err();
        let range = error.range.clone().unwrap();
        assert!(range.end <= template.len() && range.start <= range.end, "{template}: {error:?}");
        let at = template.find(meant).unwrap();
        assert!(range.start.abs_diff(at) <= meant.len() + 1, "{template}: {error:?} is not near {at}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn a_failed_evaluation_names_the_template() {
    let names = Known::data(json!({"n": 1, "s": "x", "l": [1]}));
    for (template, part) in [
        ("{{ n / 0 }}", "1 / 0"),
        ("{{ n.upper() }}", "upper"),
        ("{{ missing + 1 }}", "+"),
        ("{{ nope() }}", "nope"),
        ("a {{ l | sum(1, 2, 3) }}", "sum"),
    ] {
        match render(&names, template) {
            Err(ExprError::Failed { message }) => assert!(message.contains(part), "{template}: {message}"),
            other => panic!("{template}: {other:?}"),
        }
    }
}

#[test]
fn endless_and_huge_templates_are_cut_off() {
    let names = Known::data(json!({"s": "x".repeat(1_000_000), "l": (0..2_000).collect::<Vec<_>>()}));
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ s | replace('x', s) }}",
        "{{ [s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s] }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% for x in l recursive %}{{ loop(l) }}{% endfor %}",
        "{{ range(100000) | map('string') | list * 1000 }}",
    ] {
        assert!(matches!(render(&names, template), Err(ExprError::Failed { .. })), "{}", &template[..20]);
    }
}

#[test]
fn a_value_can_not_grow_deeper_than_its_limit() {
    let template = ValueTemplate::compile(&json!({"next": ["{{ x }}"]})).unwrap();
    let library = Arc::new(Library::empty());
    let mut value = json!(1);
    let mut rounds = 0;
    let error = loop {
        match with(&Known::data(json!({"x": value})), &library, |scope| template.render(scope)) {
            Ok(next) => value = next,
            Err(error) => break error,
        }
        rounds += 1;
        assert!(rounds <= VALUE_DEPTH_MAX);
    };
    assert!(error.to_string().contains("nests deeper"), "{error}");
}

#[test]
fn the_largest_templates_allowed_fit_the_stack() {
    let names = Known::data(json!({"n": 1}));
    let many = EXPRESSION_OPERATORS_MAX - 10;
    for template in [
        format!("{{{{ n{} }}}}", " + n".repeat(many)),
        format!("{{{{ n{} }}}}", " ~ n".repeat(many)),
        format!("{{{{ n{} }}}}", ".a".repeat(many)),
        format!("{{{{ n | int{} }}}}", " | int".repeat(many - 1)),
        format!("{{{{ n{} }}}}", " and n".repeat(many)),
        format!("{{{{ {}n }}}}", "not ".repeat(many)),
        format!("{{{{ {}n }}}}", "-".repeat(many)),
        format!("{{{{ {}n }}}}", "n if n else ".repeat(many / 2)),
        format!("{{{{ {}n{} }}}}", "[".repeat(TEMPLATE_BRACKETS_MAX), "]".repeat(TEMPLATE_BRACKETS_MAX)),
        format!("{{% if n %}}{}{{% endif %}}", "{% elif n %}".repeat(TEMPLATE_STATEMENTS_MAX - 2)),
        format!("{}{}", "{% if n %}".repeat(240), "{% endif %}".repeat(240)),
    ] {
        // Some are refused by the engine's own limits; none may end the process.
        if let Ok(template) = Template::compile(&template) {
            drop(with(&names, &Arc::new(Library::empty()), |scope| template.render(scope)));
        }
    }
}

#[test]
fn a_cycle_in_a_namespace_is_an_error() {
    let names = Known::default();
    let template = "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}";
    assert!(matches!(render(&names, template), Err(ExprError::Failed { .. })));
}

/// JSON values like those in playbooks.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1.0e9..1.0e9_f64).prop_map(Value::from),
        "[a-c{%}' ü]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(a|b|c|data|status|items|body|headers|status_code)", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn our_paths_and_the_engines_look_ups_agree(
        value in any_value(),
        segments in prop::collection::vec("(\\.(a|b|c|data|status|items)|\\[(0|1|-1)\\]|\\['(a|b)'\\])", 0..4),
    ) {
        let names = Known::data(json!({ "x": value }));
        let path = format!("x{}", segments.concat());
        let ours = render(&names, &format!("{{{{ {path} }}}}"));
        // A statement is run by the engine alone.
        let theirs = render(&names, &format!("{{% set y = {path} %}}{{{{ y | tojson }}}}"));
        let theirs = theirs.map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_value_survives_a_rendering(value in any_value()) {
        let names = Known::data(json!({ "x": value }));
        prop_assert_eq!(render(&names, "{{ x }}"), Ok(value.clone()));
        prop_assert_eq!(render(&names, "{{ [x][0] }}"), Ok(value.clone()));
        prop_assert_eq!(render(&names, "{{ x | default(none) }}"), Ok(value.clone()));
        let text = render(&names, " {{ x | tojson }}").unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap(), value);
    }

    #[test]
    fn our_pieces_and_the_engines_agree(text in "([a-z{}% #'\"$-]|\\{\\{|\\}\\}|\\{\\{ x \\}\\}|\\{\\{ [ab] \\| int \\}\\}){0,12}") {
        let names = Known::data(json!({"a": 1, "x": "X"}));
        let mut engine = minijinja::Environment::new();
        engine.set_undefined_behavior(minijinja::UndefinedBehavior::Chainable);
        let text = format!("<{text}>");
        let theirs = engine.render_str(&text, minijinja::context! { a => 1, x => "X" });
        match Template::compile(&text) {
            Ok(template) => {
                let ours = with(&names, &Arc::new(Library::empty()), |scope| template.render(scope));
                if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                    prop_assert_eq!(ours, Value::from(theirs));
                }
            }
            Err(_) => prop_assert!(theirs.is_err(), "{text:?}"),
        }
    }

    #[test]
    fn compiling_never_panics(text in "([a-z0-9 .|+()\\[\\]{}%#'\"=~*/<>-]|\\{\\{|\\}\\}|\\{%|%\\}|not |is |if |else |for ){0,40}") {
        drop(Template::compile(&text));
        drop(Template::compile(&format!("{{{{ {text} }}}}")));
    }
}
