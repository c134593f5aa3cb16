//! The template engine as this language uses it: its limits, and the filters that differ.
//!
//! Differences from minijinja, each because playbooks in the field count on it: undefined chains; `default` also
//! replaces null; `int` and `float` give 0 for what is no number; `length` of nothing is 0; `replace` takes anything;
//! `tojson` is compact and escapes nothing for HTML; null prints as nothing. True, False and what is inside a printed
//! list or map print as Python prints them. Texts, lists and maps have the methods of Python's that change nothing.

use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Expression, Output, State, UndefinedBehavior, Value};

use super::filter::{self, afford, arguments, is_nothing, text, wrong};
use super::path::Called;
use super::view::View;
use super::{Binding, Library, TemplateError, json, method};

/// Most work one template may do, in the engine's unit: one instruction, or 64 bytes made.
pub const TEMPLATE_FUEL: u64 = 2_000_000;
/// Deepest calls of macros and recursive loops.
pub const TEMPLATE_CALLS_MAX: usize = 60;

/// Names of functions that every template may call.
pub const FUNCTIONS: &[&str] = &["now", "token", "range", "dict", "namespace", "cycler", "joiner"];

/// Names of filters that every template may use.
#[rustfmt::skip]
pub const FILTERS: &[&str] = &[
    "abs", "attr", "b64decode", "b64encode", "batch", "bool", "capitalize", "center", "chain", "combine", "count", "d",
    "default", "dictsort", "e", "escape", "filesizeformat", "first", "float", "forceescape", "format", "from_json",
    "fromjson", "groupby", "hash", "indent", "int", "items", "join", "last", "length", "lines", "list", "lower", "map",
    "max", "md5", "min", "pprint", "regex_findall", "regex_replace", "regex_search", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sha1", "sha256", "slice", "sort", "split", "string",
    "striptags", "sum", "title", "to_json", "tojson", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
    "wordwrap", "xmlattr", "zip",
];

/// Names of tests that every template may use.
#[rustfmt::skip]
pub const TESTS: &[&str] = &[
    "boolean", "defined", "divisibleby", "endingwith", "eq", "equalto", "escaped", "even", "false", "filter", "float",
    "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none",
    "number", "odd", "safe", "sameas", "sequence", "startingwith", "string", "test", "true", "undefined", "upper",
];

/// The engine; templates are compiled against it once and share it.
pub(super) static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Chainable);
    engine.set_fuel(Some(TEMPLATE_FUEL));
    engine.set_recursion_limit(TEMPLATE_CALLS_MAX);
    engine.set_debug(false);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        engine.set_syntax(syntax);
    }
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    engine.set_formatter(print);
    engine.remove_global("debug");
    engine.set_unknown_method_callback(method::call);
    // Known, but what it would read is for the credential store: it renders as nothing.
    engine.add_function("token", |_alias: Rest<Value>| Value::UNDEFINED);
    engine.add_filter("default", default);
    engine.add_filter("d", default);
    engine.add_filter("int", int);
    engine.add_filter("float", float);
    engine.add_filter("length", length);
    engine.add_filter("count", length);
    engine.add_filter("replace", replace);
    engine.add_filter("tojson", tojson);
    engine.add_filter("to_json", tojson);
    engine.add_filter("fromjson", from_json);
    engine.add_filter("from_json", from_json);
    filter::add_to(&mut engine);
    engine
});

/// Returns whether the engine has a filter or test of that name, and whether a method may be called.
pub(super) fn knows(called: Called, name: &str) -> bool {
    static ASK: LazyLock<[Option<Expression<'static, 'static>>; 2]> =
        LazyLock::new(|| ["name is filter", "name is test"].map(|ask| ENGINE.compile_expression(ask).ok()));
    let [filter, test] = &*ASK;
    let ask = match called {
        Called::Filter => filter,
        Called::Test => test,
        // Which methods there are depends on the value; but none of them changes it.
        Called::Method => return method::instead_of_changing(name).is_none(),
    };
    let answer = ask.as_ref().and_then(|ask| ask.eval(Value::from_pairs([("name", name)])).ok());
    // Should it not answer, an unknown name is an error when the template runs.
    answer.is_none_or(|answer| answer.is_true())
}

/// Turns the engine's refusal into ours; `offset` is where the text it saw starts in the template.
pub(super) fn refuse(error: &Error, offset: usize) -> TemplateError {
    let range = error.range().map(|range| range.start + offset..range.end + offset);
    TemplateError { message: describe(error), range }
}

/// Returns what went wrong, in one line.
pub(super) fn describe(error: &Error) -> String {
    let kind = match error.kind() {
        ErrorKind::OutOfFuel => return format!("the template does more than {TEMPLATE_FUEL} units of work"),
        ErrorKind::SyntaxError => None,
        kind => Some(kind.to_string()),
    };
    match (kind, error.detail()) {
        (Some(kind), Some(detail)) if detail.contains("% operator") => {
            format!("{kind}: {detail} (a text is filled in by `'%05d' | format(n)`)")
        }
        (Some(kind), Some(detail)) => format!("{kind}: {detail}"),
        (Some(kind), None) => kind,
        (None, detail) => detail.unwrap_or("syntax error").to_owned(),
    }
}

fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return Ok(());
    }
    minijinja::escape_formatter(out, state, value)
}

fn default(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other, lax] = arguments(["default_value", "boolean"], given)?;
    Ok(match is_nothing(value) || lax.is_some_and(|lax| lax.is_true()) && !value.is_true() {
        true => other.unwrap_or_else(|| Value::from("")),
        false => value.clone(),
    })
}

fn int(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other, base] = arguments(["default", "base"], given)?;
    let base = match base {
        None => 10,
        Some(base) => u32::try_from(base)
            .ok()
            .filter(|base| (2..=36).contains(base))
            .ok_or_else(|| wrong("the base of a number is between 2 and 36"))?,
    };
    let number = match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(truncate),
        ValueKind::String => value.as_str().and_then(|text| parse_int(text.trim(), base)),
        _ => None,
    };
    Ok(number.or(other).unwrap_or_else(|| Value::from(0)))
}

fn parse_int(text: &str, base: u32) -> Option<Value> {
    let digits = match (base, text.get(..2)) {
        (16, Some("0x" | "0X")) | (8, Some("0o" | "0O")) | (2, Some("0b" | "0B")) => &text[2..],
        _ => text,
    };
    match i64::from_str_radix(digits, base) {
        Ok(number) => Some(Value::from(number)),
        Err(_) => i128::from_str_radix(digits, base)
            .ok()
            .map(Value::from)
            .or_else(|| if base == 10 { text.parse::<f64>().ok().and_then(truncate) } else { None }),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "dropping the fraction is the point; the range is checked")]
fn truncate(number: f64) -> Option<Value> {
    const EXACT: f64 = 9.0e18;
    match number.abs() < EXACT {
        true => Some(Value::from(number as i64)),
        false => number.is_finite().then(|| Value::from(number as i128)),
    }
}

fn float(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other] = arguments(["default"], given)?;
    let number = match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => value.as_str().and_then(|text| text.trim().parse().ok()),
        _ => None,
    };
    Ok(number.filter(|number| number.is_finite()).map(Value::from).or(other).unwrap_or_else(|| Value::from(0.0)))
}

fn length(value: &Value) -> Result<Value, Error> {
    if is_nothing(value) {
        return Ok(Value::from(0));
    }
    match value.len() {
        Some(len) => Ok(Value::from(len)),
        None => {
            let mut len = 0_u64;
            for item in value.try_iter()?.checked() {
                item?;
                len += 1;
            }
            Ok(Value::from(len))
        }
    }
}

fn replace(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [from, to, count] = arguments(["old", "new", "count"], given)?;
    let (Some(from), Some(to)) = (from, to) else { return Err(Error::from(ErrorKind::MissingArgument)) };
    // Less than none is all, as in Python.
    let most = match count.filter(|count| !is_nothing(count)).map(i64::try_from) {
        None => usize::MAX,
        Some(Ok(count)) => usize::try_from(count).unwrap_or(usize::MAX),
        Some(Err(_)) => return Err(wrong("`count` has to be a whole number")),
    };
    let (value, from, to) = (text(value), text(&from), text(&to));
    if from.is_empty() {
        return Ok(Value::from(value.into_owned()));
    }
    // The engine charges for the result only once it exists; a small text can become a huge one.
    afford(state, value.matches(&*from).take(most).count().saturating_mul(to.len()))?;
    Ok(Value::from(value.replacen(&*from, &to, most)))
}

fn tojson(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [indent] = arguments(["indent"], given)?;
    let data = json::from_engine(value, &mut json::Budget::default()).map_err(|stop| wrong(stop.to_string()))?;
    let text = match indent.is_some_and(|indent| indent.is_true()) {
        true => serde_json::to_string_pretty(&data),
        false => serde_json::to_string(&data),
    };
    text.map(Value::from).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Reads JSON; what is no text is data already.
fn from_json(value: &Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return Ok(value.clone()) };
    let data: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("this is no JSON: {error}")))?;
    Ok(json::to_engine(View::of(Binding::Data(Arc::new(data)), &Arc::new(Library::empty()))))
}
