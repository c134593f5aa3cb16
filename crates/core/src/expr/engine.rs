//! The template engine as this language uses it: its limits, and the filters that differ.
//!
//! Differences from minijinja, each because playbooks in the field count on it: undefined chains; `default` also
//! replaces null; `int` and `float` give 0 for what is no number; `length` of nothing is 0; `replace` takes anything;
//! `tojson` is compact and escapes nothing for HTML; null prints as nothing. True, False and what is inside a printed
//! list or map print as Python prints them. Texts and maps have the methods of Python's that change nothing.

#![expect(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]

use std::borrow::Cow;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Expression, Output, State, UndefinedBehavior, Value};

use super::path::Called;
use super::{TemplateError, json, method};

/// Most work one template may do, in the engine's unit: one instruction, or 64 bytes made.
pub const TEMPLATE_FUEL: u64 = 2_000_000;
/// Deepest calls of macros and recursive loops.
pub const TEMPLATE_CALLS_MAX: usize = 60;

/// Names of functions that every template may call.
pub const FUNCTIONS: &[&str] = &["now", "token", "range", "dict", "namespace"];

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
    engine
});

/// Returns whether the engine has a filter or test of that name.
pub(super) fn knows(called: Called, name: &str) -> bool {
    static ASK: LazyLock<[Option<Expression<'static, 'static>>; 2]> =
        LazyLock::new(|| ["name is filter", "name is test"].map(|ask| ENGINE.compile_expression(ask).ok()));
    let [filter, test] = &*ASK;
    let ask = match called {
        Called::Filter => filter,
        Called::Test => test,
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

fn is_nothing(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

fn default(value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    // Not `Option<Value>`: `default(none)` means none, not that the argument is missing.
    let (mut args, kwargs) = from_args::<(&[Value], Kwargs)>(&args)?;
    let mut next = || args.split_off_first().cloned();
    let other = match next() {
        Some(other) => Some(other),
        None if kwargs.has("default_value") => Some(kwargs.get::<Value>("default_value")?),
        None => None,
    };
    let lax = match next() {
        Some(lax) => lax.is_true(),
        None => kwargs.get::<Option<bool>>("boolean")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    if !args.is_empty() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    Ok(match is_nothing(value) || lax && !value.is_true() {
        true => other.unwrap_or_else(|| Value::from("")),
        false => value.clone(),
    })
}

fn int(value: &Value, other: Option<Value>, base: Option<u32>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = match other {
        Some(other) => Some(other),
        None => kwargs.get::<Option<Value>>("default")?,
    };
    let base = match base {
        Some(base) => base,
        None => kwargs.get::<Option<u32>>("base")?.unwrap_or(10),
    };
    kwargs.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(Error::new(ErrorKind::InvalidOperation, "the base of a number is between 2 and 36"));
    }
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

fn float(value: &Value, other: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = match other {
        Some(other) => Some(other),
        None => kwargs.get::<Option<Value>>("default")?,
    };
    kwargs.assert_all_used()?;
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

fn replace(state: &State<'_, '_>, value: &Value, from: &Value, to: &Value) -> Result<Value, Error> {
    let (value, from, to) = (text(value), text(from), text(to));
    if from.is_empty() {
        return Ok(Value::from(value.into_owned()));
    }
    // The engine charges for the result only once it exists; a small text can become a huge one.
    let grown = value.matches(&*from).count().saturating_mul(to.len());
    if u64::try_from(grown).unwrap_or(u64::MAX) / 64 > state.fuel_levels().map_or(TEMPLATE_FUEL, |(_, left)| left) {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Ok(Value::from(value.replace(&*from, &to)))
}

fn text(value: &Value) -> Cow<'_, str> {
    match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None if is_nothing(value) => Cow::Borrowed(""),
        None => Cow::Owned(value.to_string()),
    }
}

fn tojson(value: &Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get::<Option<Value>>("indent")?,
    };
    kwargs.assert_all_used()?;
    let data = json::from_engine(value, &mut json::Budget::default())
        .map_err(|stop| Error::new(ErrorKind::InvalidOperation, stop.to_string()))?;
    let text = match indent.is_some_and(|indent| indent.is_true()) {
        true => serde_json::to_string_pretty(&data),
        false => serde_json::to_string(&data),
    };
    text.map(Value::from).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}
