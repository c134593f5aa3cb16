//! Methods that a template may call: what Python's texts, lists and maps answer under the same names.
//!
//! None of them changes anything: a value in a template is what it is. Who has no methods at all is nothing, and like
//! its attributes what its methods give is nothing again; but for a `get` that says what to take instead.

use jiff::tz::TimeZone;
use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::filter::{Align, afford, padded, size, text, wrong};

/// Methods of texts, and the filters that do the same.
const AS_FILTERS: &[(&str, &str)] =
    &[("capitalize", "capitalize"), ("lower", "lower"), ("replace", "replace"), ("title", "title"), ("upper", "upper")];

/// Methods of Python's that change what they are called on, and what to write instead.
const CHANGING: &[(&str, &str)] = &[
    ("append", "write `{% set l = l + [x] %}`"),
    ("extend", "write `{% set l = l + more %}`"),
    ("insert", "write `{% set l = [x] + l %}`"),
    ("remove", "write `l | reject('equalto', x) | list`"),
    ("clear", "write `{% set l = [] %}`"),
    ("sort", "write `l | sort`"),
    ("reverse", "write `l | reverse | list`"),
    ("update", "write `m | combine({'key': value})`"),
    ("setdefault", "write `{'key': value} | combine(m)`"),
    ("pop", "write `l[:-1]` for a list without its last item, and `m.get('key')` to look one up"),
    ("popitem", "write `m.items() | last` to look one up"),
];

/// Returns what to write instead of a method that would change what it is called on; `None` if `name` is none.
pub fn instead_of_changing(name: &str) -> Option<&'static str> {
    CHANGING.iter().find(|(method, _)| *method == name).map(|(_, instead)| *instead)
}

/// Answers a method that the engine itself does not know.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => of_nothing(name, args),
        ValueKind::Map => of_map(value, name, args),
        ValueKind::String => of_text(state, value, name, args),
        ValueKind::Seq | ValueKind::Iterable => of_list(state, value, name, args),
        _ => Err(unknown(name)),
    }
}

/// A method that nobody has; a hint if it is one of Python's that has no place here.
fn unknown(name: &str) -> Error {
    match instead_of_changing(name) {
        Some(instead) => wrong(format!("`.{name}()` would change a value, which no template does: {instead}")),
        None => Error::from(ErrorKind::UnknownMethod),
    }
}

/// Nothing has no key; whoever says what to take instead gets that.
fn of_nothing(name: &str, args: &[Value]) -> Result<Value, Error> {
    match (name, args) {
        ("get", [_, other]) => Ok(other.clone()),
        _ => Ok(Value::UNDEFINED),
    }
}

fn of_map(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "get" => {
            let (key, other): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { other.unwrap_or(Value::from(())) } else { found })
        }
        "keys" => {
            let () = from_args(args)?;
            Ok(value.try_iter()?.collect())
        }
        "values" => {
            let () = from_args(args)?;
            value.try_iter()?.map(|key| value.get_item(&key)).collect()
        }
        "items" => {
            let () = from_args(args)?;
            value.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?]))).collect()
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        name => Err(unknown(name)),
    }
}

fn of_list(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        "index" => {
            let wanted = only(args)?;
            for (at, item) in value.try_iter()?.checked().enumerate() {
                state.consume_fuel(1)?;
                if item? == wanted {
                    return Ok(Value::from(at));
                }
            }
            Err(wrong("it is not in the list"))
        }
        "count" => pycompat::unknown_method_callback(state, value, name, args),
        name => Err(unknown(name)),
    }
}

fn of_text(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some((_, filter)) = AS_FILTERS.iter().find(|(method, _)| *method == name) {
        let args: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        return state.apply_filter(filter, &args);
    }
    let own = value.as_str().unwrap_or_default();
    match name {
        "join" => state.apply_filter("join", &[only(args)?, value.clone()]),
        "center" | "ljust" | "rjust" => {
            let (width, fill): (Value, Option<&str>) = from_args(args)?;
            let align = match name {
                "center" => Align::Center,
                "ljust" => Align::Left,
                _ => Align::Right,
            };
            let fill = fill.unwrap_or(" ").chars().next().unwrap_or(' ');
            padded(state, own, size("width", Some(width), 0)?, fill, align).map(Value::from)
        }
        "zfill" => {
            let (sign, digits) = own.split_at(own.len() - own.trim_start_matches(['+', '-']).len().min(own.len()));
            let width = size("width", Some(only(args)?), 0)?.saturating_sub(sign.len());
            padded(state, digits, width, '0', Align::Right).map(|digits| Value::from(format!("{sign}{digits}")))
        }
        "removeprefix" => Ok(Value::from(own.strip_prefix(&*text(&only(args)?)).unwrap_or(own))),
        "removesuffix" => Ok(Value::from(own.strip_suffix(&*text(&only(args)?)).unwrap_or(own))),
        "partition" | "rpartition" => {
            let wanted = only(args)?;
            let wanted = separator(&wanted)?;
            let parts = if name == "partition" { own.split_once(wanted) } else { own.rsplit_once(wanted) };
            let parts = match parts {
                Some((before, after)) => [before, wanted, after],
                None if name == "partition" => [own, "", ""],
                None => ["", "", own],
            };
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "rsplit" => {
            let (wanted, most): (Option<Value>, Option<usize>) = from_args(args)?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<&str> = match wanted.as_ref().filter(|wanted| !wanted.is_none()) {
                Some(wanted) => own.rsplitn(most, separator(wanted)?).collect(),
                None if most == usize::MAX => own.split_whitespace().rev().collect(),
                None => return Err(wrong("`rsplit` needs a separator when it is told how often")),
            };
            parts.reverse();
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "index" | "rindex" => {
            let find = if name == "index" { "find" } else { "rfind" };
            let at = pycompat::unknown_method_callback(state, value, find, args)?;
            if at == Value::from(-1) { Err(wrong("it is not in the text")) } else { Ok(at) }
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = own.chars().flat_map(|letter| -> Vec<char> {
                match letter.is_lowercase() {
                    true => letter.to_uppercase().collect(),
                    false => letter.to_lowercase().collect(),
                }
            });
            Ok(Value::from(swapped.collect::<String>()))
        }
        "casefold" => state.apply_filter("lower", std::slice::from_ref(value)),
        // A text is UTF-8 already, and there are no bytes beside it.
        "encode" | "decode" => {
            let (encoding,): (Option<&str>,) = from_args(args)?;
            match encoding.unwrap_or("utf-8").to_ascii_lowercase().replace('_', "-").as_str() {
                "utf-8" | "utf8" => Ok(value.clone()),
                "ascii" if own.is_ascii() => Ok(value.clone()),
                _ => Err(wrong("a text is UTF-8 here")),
            }
        }
        "format" => {
            afford(state, formatted_bytes(own, args))?;
            pycompat::unknown_method_callback(state, value, name, args)
        }
        "isoformat" => {
            let () = from_args(args)?;
            moment(own).map(|_| value.clone())
        }
        "strftime" => {
            let form = only(args)?;
            let zoned = moment(own)?.to_zoned(TimeZone::UTC);
            let form = text(&form);
            afford(state, form.len().saturating_mul(STRFTIME_BYTES_PER_BYTE_MAX))?;
            let written = jiff::fmt::strtime::format(&*form, &zoned);
            written.map(Value::from).map_err(|error| wrong(format!("`strftime`: {error}")))
        }
        "timestamp" => {
            let () = from_args(args)?;
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for some hundred thousand years")]
            moment(own).map(|moment| Value::from(moment.as_millisecond() as f64 / 1_000.0))
        }
        "count" | "endswith" | "find" | "isalnum" | "isalpha" | "isascii" | "isdigit" | "islower" | "isnumeric"
        | "isspace" | "isupper" | "lstrip" | "rfind" | "rstrip" | "split" | "splitlines" | "startswith" | "strip" => {
            pycompat::unknown_method_callback(state, value, name, args)
        }
        name => Err(unknown(name)),
    }
}

/// Most bytes that `strftime` makes of one byte: `%255Y`, and the name of a month.
const STRFTIME_BYTES_PER_BYTE_MAX: usize = 64;

/// Returns the time that a text says; `now()` is such a text.
fn moment(text: &str) -> Result<jiff::Timestamp, Error> {
    text.trim().parse().map_err(|_| wrong("this is no time such as `2026-01-31T12:00:00Z`"))
}

fn separator(value: &Value) -> Result<&str, Error> {
    value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| wrong("a separator is a text, and not empty"))
}

/// Returns about how long `form.format(…)` gets at most: each field may show the longest argument, as wide as it says.
fn formatted_bytes(form: &str, args: &[Value]) -> usize {
    let longest =
        args.iter().map(|arg| arg.as_str().map_or_else(|| arg.to_string().len(), str::len)).max().unwrap_or(0);
    form.split('{').skip(1).fold(form.len(), |sum, field| {
        let settings = field.split('}').next().and_then(|inside| inside.split_once(':')).map_or("", |(_, after)| after);
        let numbers = settings.split(|letter: char| !letter.is_ascii_digit());
        let wide = numbers.fold(0_usize, |sum, number| match number {
            "" => sum,
            digits => sum.saturating_add(digits.parse().unwrap_or(usize::MAX)),
        });
        sum.saturating_add(longest).saturating_add(wide.saturating_mul(4))
    })
}

fn only(args: &[Value]) -> Result<Value, Error> {
    let (only,): (Value,) = from_args(args)?;
    Ok(only)
}

#[cfg(test)]
mod tests {
    use minijinja::Value;
    use serde_json::{Value as Json, json};

    use crate::expr::engine::ENGINE;

    fn eval(expression: &str) -> Result<Json, String> {
        let map = [("k", Value::from("v")), ("n", Value::from(())), ("items", Value::from(3))];
        let names = Value::from_pairs([
            ("m", Value::from_pairs(map)),
            ("s", Value::from("a-b-c")),
            ("l", Value::from(vec!["x", "y"])),
        ]);
        let value = ENGINE.compile_expression(expression).unwrap().eval(names).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(value).unwrap())
    }

    #[test]
    fn texts_and_maps_have_the_methods_of_python() {
        for (expression, expected) in [
            ("m.get('k')", json!("v")),
            ("m.get('x') is none", json!(true)),
            ("m.get('x', {}).get('y', 7)", json!(7)),
            ("m.get('n', 7)", json!(null)),
            ("m.keys()", json!(["k", "n", "items"])),
            ("m.values()", json!(["v", null, 3])),
            // As everywhere a key is a key; as a call it is the method.
            ("m.items", json!(3)),
            ("m.items()", json!([["k", "v"], ["n", null], ["items", 3]])),
            ("s.split('-')", json!(["a", "b", "c"])),
            ("s.split('-')[1]", json!("b")),
            ("s.replace('-', '+').upper()", json!("A+B+C")),
            ("' x '.strip() ~ 'Y'.lower()", json!("xy")),
            ("s.startswith('a-') and not s.endswith('b')", json!(true)),
            ("', '.join(l)", json!("x, y")),
            ("nothing.get('k').get('x') is defined", json!(false)),
            ("none.get('k') is defined", json!(false)),
            ("nothing.get('k', 7)", json!(7)),
            ("nothing.get('k', {}).get('x', 8)", json!(8)),
            ("none.get('k', 'd')", json!("d")),
            ("'{} is {n:>3}'.format('x', n=5)", json!("x is   5")),
            ("s.find('b') ~ s.find('x') ~ s.rfind('-')", json!("2-13")),
            ("s.count('-') ~ l.count('x')", json!("21")),
            ("s.index('c') ~ l.index('y')", json!("41")),
            ("'--x-'.lstrip('-') ~ '--x-'.rstrip('-')", json!("x---x")),
            ("'42'.isdigit() and 'ab'.isalpha() and not '4b'.isalpha()", json!(true)),
            ("'7'.zfill(3) ~ '-7'.zfill(3)", json!("007-07")),
            ("'x'.ljust(3, '.') ~ 'x'.rjust(3) ~ 'x'.center(3, '*')", json!("x..  x*x*")),
            ("s.startswith(('x', 'a')) and s.endswith(['c', 'd'])", json!(true)),
            ("s.encode('utf-8').decode()", json!("a-b-c")),
            ("l.copy() + [m.copy().k]", json!(["x", "y", "v"])),
            ("'a title'.title() ~ 'one'.capitalize()", json!("A TitleOne")),
            ("'v1.2'.removeprefix('v').removesuffix('.2')", json!("1")),
            ("'a\\nb'.splitlines()", json!(["a", "b"])),
            ("s.partition('-') + s.rpartition('-')", json!(["a", "-", "b-c", "a-b", "-", "c"])),
            ("s.rsplit('-', 1)", json!(["a-b", "c"])),
            ("s.split('-', 1)", json!(["a", "b-c"])),
            ("s.replace('-', '+', 1)", json!("a+b-c")),
            ("'2026-01-31T12:00:00.5Z'.strftime('%Y/%m/%d %H:%M')", json!("2026/01/31 12:00")),
            ("'2026-01-31T12:00:00Z'.isoformat()", json!("2026-01-31T12:00:00Z")),
            ("'1970-01-01T00:00:01.5Z'.timestamp()", json!(1.5)),
        ] {
            assert_eq!(eval(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn other_methods_and_wrong_arguments_are_errors() {
        for (expression, message) in [
            ("m.pop('k')", "m.get('key')"),
            ("m.update({})", "combine"),
            ("l.append(1)", "{% set l = l + [x] %}"),
            ("s.nope()", "unknown method"),
            ("l.nope()", "unknown method"),
            ("m.get()", "missing argument"),
            ("m.keys(1)", "too many arguments"),
            ("s.startswith()", "missing argument"),
            ("s.index('x')", "not in the text"),
            ("l.index('z')", "not in the list"),
            ("s.strftime('%Y')", "no time"),
            ("'2026-01-31T12:00:00Z'.strftime('%!')", "strftime"),
            ("s.encode('latin-1')", "UTF-8"),
            ("s.partition('')", "separator"),
        ] {
            let error = eval(expression).unwrap_err();
            assert!(error.contains(message), "{expression}: {error}");
        }
    }

    #[test]
    fn what_would_grow_without_bounds_is_refused_before_it_does() {
        for expression in [
            "'x'.zfill(999999999)",
            "'x'.center(2000000000)",
            "'{:>999999999}'.format(1)",
            "'{0:0999999999d}'.format(1)",
        ] {
            let error = eval(expression).unwrap_err();
            assert!(error.contains("fuel"), "{expression}: {error}");
        }
    }
}
