//! What filters give, and how they are told what to do.

use minijinja::Value;
use serde_json::{Value as Json, json};

use crate::expr::engine::ENGINE;
use crate::expr::{FILTERS, TESTS};

fn eval(expression: &str) -> Result<Json, String> {
    let people = json!([
        {"name": "b", "age": 2, "at": {"x": 1}}, {"name": "B", "age": 1}, {"name": "a", "age": 3, "at": {"x": 3}},
    ]);
    let names = Value::from_pairs([
        ("people", Value::from(minijinja::value::Serde(people))),
        ("l", Value::from(vec![3, 1, 2])),
        ("none_at_all", Value::from(())),
    ]);
    let value = ENGINE.compile_expression(expression).map_err(|error| error.to_string())?;
    let value = value.eval(names).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(value).unwrap())
}

#[test]
fn arguments_are_given_by_place_or_by_name() {
    for (expression, expected) in [
        ("'' | default('x', boolean=true)", json!("x")),
        ("'' | d('x', boolean=true)", json!("x")),
        ("'' | default('x', true)", json!("x")),
        ("'' | default('x')", json!("")),
        ("nothing | default(default_value='x')", json!("x")),
        ("'' | d(default_value='x', boolean=true)", json!("x")),
        ("nothing | default(none) is none", json!(true)),
        ("none_at_all | default", json!("")),
        ("2.345 | round(precision=1)", json!(2.3)),
        ("2.5 | round(method='floor')", json!(2.0)),
        ("{'a': 1} | tojson(indent=2)", json!("{\n  \"a\": 1\n}")),
        ("people | join(attribute='name')", json!("bBa")),
        ("people | join(', ', attribute='name')", json!("b, B, a")),
        ("people | join(d='-', attribute='age')", json!("2-1-3")),
        ("people | sum(attribute='age')", json!(6)),
        ("people | sum(attribute='age', start=10)", json!(16)),
        ("people | sum('age', 10)", json!(16)),
        ("people | map(attribute='at.x', default=0) | list", json!([1, 0, 3])),
        ("l | sort(reverse=true)", json!([3, 2, 1])),
        ("l | sort(true)", json!([3, 2, 1])),
        ("people | sort(attribute='name', case_sensitive=true) | map(attribute='name') | list", json!(["B", "a", "b"])),
        ("[[1, 'b'], [2, 'a']] | sort(attribute=1)", json!([[2, "a"], [1, "b"]])),
        ("l | batch(2, fill_with=0) | list", json!([[3, 1], [2, 0]])),
        ("l | batch(linecount=2) | list", json!([[3, 1], [2]])),
        ("l | slice(2, fill_with=0) | list", json!([[3, 1], [2, 0]])),
        ("'a\nb' | indent(width=2, first=true)", json!("  a\n  b")),
        ("'x' | int(default=7)", json!(7)),
        ("'ff' | int(base=16)", json!(255)),
        ("'x' | int(7, 10)", json!(7)),
        ("'x' | float(default=1.5)", json!(1.5)),
        ("'aaa' | replace('a', 'b', count=2)", json!("bba")),
        ("'aaa' | replace(old='a', new='b')", json!("bbb")),
        ("people | groupby(attribute='name') | length", json!(2)),
        ("people | groupby('at.x', default=0) | map(attribute='grouper') | list", json!([0, 1, 3])),
        ("people | unique(attribute='name') | length", json!(2)),
        ("['a', 'A'] | unique(case_sensitive=true)", json!(["a", "A"])),
        ("(people | min(attribute='age')).name ~ (people | max(attribute='age')).name", json!("Ba")),
        ("{'a': 2, 'b': 1} | dictsort(by='value', reverse=true)", json!([["a", 2], ["b", 1]])),
        ("'--x--' | trim(chars='-')", json!("x")),
        ("'--x--' | trim('-') ~ ' y ' | trim", json!("xy")),
        ("'a b' | urlencode", json!("a%20b")),
        ("'%(a)s-%(n)02d' | format(a='x', n=3)", json!("x-03")),
        ("'%05d' | format(42)", json!("00042")),
    ] {
        assert_eq!(eval(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn arguments_that_nobody_has_are_errors() {
    for (expression, message) in [
        ("'' | default('x', bolean=true)", "bolean"),
        ("'' | default('x', true, 1)", "too many arguments"),
        ("'x' | int(1, default=2)", "given twice"),
        ("'x' | replace('a')", "missing argument"),
        ("'x' | int(base=99)", "between 2 and 36"),
        ("l | batch(fill_with=0)", "cannot be 0"),
        ("'x' | center(width='wide')", "whole number"),
    ] {
        let error = eval(expression).unwrap_err();
        assert!(error.contains(message), "{expression}: {error}");
    }
}

#[test]
fn filters_that_people_know_are_there() {
    for (expression, expected) in [
        ("'one two three' | truncate(9, leeway=0)", json!("one...")),
        ("'one two three' | truncate(9, true, '…', 0)", json!("one two …")),
        ("'one two' | wordcount", json!(2)),
        ("'one two three' | wordwrap(7)", json!("one two\nthree")),
        ("'one two' | wordwrap(3, wrapstring='|')", json!("one|two")),
        ("'<p>a &amp; b</p>' | striptags", json!("a & b")),
        ("1500 | filesizeformat", json!("1.5 kB")),
        ("'2048' | filesizeformat(binary=true)", json!("2.0 KiB")),
        ("'x' | center(5)", json!("  x  ")),
        ("'<a>' | forceescape", json!("&lt;a&gt;")),
        ("{'id': 'a\"b', 'no': none} | xmlattr", json!(" id=\"a&quot;b\"")),
        ("{'id': 1} | xmlattr(false)", json!("id=\"1\"")),
        ("'héllo' | b64encode", json!("aMOpbGxv")),
        ("'aMOpbGxv' | b64decode ~ ('YQ' | b64decode)", json!("hélloa")),
        ("('{\"a\": [1, {\"b\": null}]}' | fromjson).a[1]", json!({"b": null})),
        ("('{\"items\": 1}' | from_json).items", json!(1)),
        ("{'a': 1} | to_json", json!("{\"a\":1}")),
        ("'a1b22' | regex_replace('[0-9]+', '#')", json!("a#b#")),
        ("'a-b' | regex_replace('(\\\\w)-(\\\\w)', '\\\\2-\\\\1 $1')", json!("b-a $1")),
        ("'ABC' | regex_replace('b', 'x', ignorecase=true)", json!("AxC")),
        ("'id=42;' | regex_search('[0-9]+')", json!("42")),
        ("'id=42;' | regex_search('(\\\\w+)=([0-9]+)', '\\\\2', '\\\\1')", json!(["42", "id"])),
        ("'id' | regex_search('[0-9]') is none", json!(true)),
        ("'a1b22' | regex_findall('[0-9]+')", json!(["1", "22"])),
        ("'a=1,b=2' | regex_findall('(\\\\w)=(\\\\w)')", json!([["a", "1"], ["b", "2"]])),
        ("{'a': 1, 'b': 2} | combine({'b': 3}, {'c': 4})", json!({"a": 1, "b": 3, "c": 4})),
        ("{'a': {'x': 1}} | combine({'a': {'y': 2}}, recursive=true)", json!({"a": {"x": 1, "y": 2}})),
        ("'abc' | hash", json!("a9993e364706816aba3e25717850c26c9cd0d89d")),
        ("'abc' | hash('md5')", json!("900150983cd24fb0d6963f7d28e17f72")),
        ("'abc' | sha256", json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
        ("dict([['a', 1], ['b', 2]])", json!({"a": 1, "b": 2})),
        ("dict({'a': 1}.items(), b=2)", json!({"a": 1, "b": 2})),
        ("dict({'a': 1}, b=2)", json!({"a": 1, "b": 2})),
    ] {
        assert_eq!(eval(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn what_a_filter_can_not_do_it_says() {
    for (expression, message) in [
        ("'x' | b64decode", "no base64"),
        ("'/w==' | b64decode", "no text"),
        ("'{' | fromjson", "no JSON"),
        ("'x' | regex_search('(')", "no pattern"),
        ("'x' | regex_search('x', '\\\\3')", "no group"),
        ("'x' | hash('crc')", "sha256"),
        ("[1] | combine({})", "takes maps"),
        ("dict([1])", "list of pairs"),
        ("{'a b': 1} | xmlattr", "no name of an attribute"),
    ] {
        let error = eval(expression).unwrap_err();
        assert!(error.contains(message), "{expression}: {error}");
    }
}

#[test]
fn nothing_grows_without_bounds() {
    for expression in [
        "'x' | center(2000000000)",
        "('x' * 100000) | wordwrap(1, wrapstring='y' * 100000)",
        "('x' * 100000) | regex_replace('x', 'y' * 100000)",
        "('x' * 1000000) | replace('x', 'y' * 1000000)",
        "'x' | regex_search('(((((((((x{1,50}){1,50}){1,50}){1,50}){1,50}){1,50}){1,50}){1,50}){1,50})')",
        "'x' | regex_search('x' * 1001)",
    ] {
        let error = eval(expression).unwrap_err();
        let said = ["fuel", "at most 1000 bytes", "no pattern"].iter().any(|words| error.contains(words));
        assert!(said, "{expression}: {error}");
    }
}

#[test]
fn the_names_that_hints_are_made_of_are_those_that_there_are() {
    for (names, ask) in [(FILTERS, "name is filter"), (TESTS, "name is test")] {
        let ask = ENGINE.compile_expression(ask).unwrap();
        for name in names {
            assert!(ask.eval(Value::from_pairs([("name", *name)])).unwrap().is_true(), "{name}");
        }
        assert!(names.is_sorted(), "{names:?}");
    }
}
