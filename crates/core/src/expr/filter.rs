//! Filters that Jinja has and the engine lacks, and those that people know from elsewhere.
//!
//! Whatever can make much of little pays for it first: the engine charges for a result only once it exists.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, HtmlEscape, State, Value, filters, functions};
use minijinja_contrib::{filters as contrib, globals};
use regex::{Captures, Regex, RegexBuilder};
use sha2::Digest;

/// Longest pattern of `regex_search` and its like, in bytes.
pub const TEMPLATE_PATTERN_BYTES_MAX: usize = 1_000;
/// Most memory that a compiled pattern takes, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;
/// What compiling a pattern costs per byte of it, in units of work.
const PATTERN_FUEL_PER_BYTE: u64 = 20;
/// Largest number that says how wide, how long or how many.
const SIZE_MAX: usize = i32::MAX as usize;

pub(super) fn add_to(engine: &mut Environment<'static>) {
    engine.add_filter("batch", batch);
    engine.add_filter("slice", slice);
    engine.add_filter("trim", trim);
    engine.add_filter("join", join);
    engine.add_filter("sort", sort);
    engine.add_filter("unique", unique);
    engine.add_filter("min", min);
    engine.add_filter("max", max);
    engine.add_filter("dictsort", dictsort);
    engine.add_filter("truncate", truncate);
    engine.add_filter("wordwrap", wordwrap);
    engine.add_filter("wordcount", |value: &Value| contrib::wordcount(&Value::from(text(value))));
    engine.add_filter("striptags", |value: &Value| contrib::striptags(text(value).into_owned()));
    engine.add_filter("filesizeformat", filesizeformat);
    engine.add_filter("center", center);
    engine.add_filter("forceescape", forceescape);
    engine.add_filter("xmlattr", xmlattr);
    engine.add_filter("b64encode", |value: &Value| STANDARD.encode(text(value).as_bytes()));
    engine.add_filter("b64decode", b64decode);
    engine.add_filter("regex_replace", regex_replace);
    engine.add_filter("regex_search", regex_search);
    engine.add_filter("regex_findall", regex_findall);
    engine.add_filter("combine", combine);
    engine.add_filter("hash", hash);
    engine.add_filter("md5", |value: &Value| digest::<md5::Md5>(value));
    engine.add_filter("sha1", |value: &Value| digest::<sha1::Sha1>(value));
    engine.add_filter("sha256", |value: &Value| digest::<sha2::Sha256>(value));
    engine.add_function("dict", dict);
    engine.add_function("cycler", |items: Rest<Value>| globals::cycler(items.0));
    engine.add_function("joiner", globals::joiner);
}

/// Sorts what a filter was given into its parameters, as Python does: by place, then by name.
pub(super) fn arguments<const N: usize>(
    names: [&str; N],
    given: Rest<ValueOrKwargs>,
) -> Result<[Option<Value>; N], Error> {
    let given = given.into_values();
    let (places, kwargs): (&[Value], Kwargs) = from_args(&given)?;
    if places.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut out: [Option<Value>; N] = std::array::from_fn(|nth| places.get(nth).cloned());
    for (slot, name) in out.iter_mut().zip(names).filter(|(_, name)| kwargs.has(name)) {
        if slot.replace(kwargs.get::<Value>(name)?).is_some() {
            return Err(wrong(format!("`{name}` is given twice")));
        }
    }
    kwargs.assert_all_used()?;
    Ok(out)
}

/// The same for filters of the engine that want every parameter by its name.
fn by_name<const N: usize>(names: [&str; N], given: Rest<ValueOrKwargs>) -> Result<Kwargs, Error> {
    let given = arguments(names, given)?;
    let named = names.into_iter().zip(given).filter_map(|(name, value)| Some((name, value?)));
    Ok(named.map(|(name, value)| (name, if name == "attribute" { path(value) } else { value })).collect())
}

/// Refuses to make so many bytes when what is left of the work does not pay for them.
pub(super) fn afford(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let left = state.fuel_levels().map_or(super::TEMPLATE_FUEL, |(_, left)| left);
    if u64::try_from(bytes).unwrap_or(u64::MAX) / 64 > left {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Ok(())
}

/// Returns a value as text: nothing as the empty one.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None if is_nothing(value) => Cow::Borrowed(""),
        None => Cow::Owned(value.to_string()),
    }
}

pub(super) fn is_nothing(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Returns a number that says how wide, how long or how many.
pub(super) fn size(what: &str, value: Option<Value>, default: usize) -> Result<usize, Error> {
    match value.filter(|value| !is_nothing(value)) {
        None => Ok(default),
        Some(value) => match usize::try_from(value) {
            Ok(number) if number <= SIZE_MAX => Ok(number),
            Ok(_) | Err(_) => Err(wrong(format!("`{what}` has to be a whole number from 0 to {SIZE_MAX}"))),
        },
    }
}

fn flag(value: Option<&Value>, default: bool) -> bool {
    value.filter(|value| !is_nothing(value)).map_or(default, Value::is_true)
}

fn batch(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [count, fill] = arguments(["linecount", "fill_with"], given)?;
    filters::batch(state, value, size("linecount", count, 0)?, fill.filter(|fill| !is_nothing(fill)))
}

fn slice(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [count, fill] = arguments(["slices", "fill_with"], given)?;
    filters::slice(state, value, size("slices", count, 0)?, fill.filter(|fill| !is_nothing(fill)))
}

fn trim(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [chars] = arguments(["chars"], given)?;
    let value = text(value);
    Ok(match chars.filter(|chars| !is_nothing(chars)) {
        None => Value::from(value.trim()),
        Some(chars) => {
            let chars: Vec<char> = text(&chars).chars().collect();
            Value::from(value.trim_matches(&*chars))
        }
    })
}

fn join(state: &mut State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [joiner, attribute] = arguments(["d", "attribute"], given)?;
    let mut given = vec![joiner.unwrap_or_else(|| Value::from(""))];
    given.extend(attribute.map(path));
    let (joiner, attribute): (_, Option<&str>) = from_args(&given)?;
    filters::join(state, value, joiner, attribute, std::iter::empty::<(&str, Value)>().collect())
}

/// A place in a list is a path, too.
fn path(attribute: Value) -> Value {
    match attribute.is_number() {
        true => Value::from(attribute.to_string()),
        false => attribute,
    }
}

fn sort(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    filters::sort(state, value, by_name(["reverse", "case_sensitive", "attribute"], given)?)
}

fn unique(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    filters::unique(state, value, by_name(["case_sensitive", "attribute"], given)?)
}

fn min(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    filters::min(state, value, by_name(["case_sensitive", "attribute"], given)?)
}

fn max(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    filters::max(state, value, by_name(["case_sensitive", "attribute"], given)?)
}

fn dictsort(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let items = u64::try_from(value.len().unwrap_or(0)).unwrap_or(u64::MAX);
    state.consume_fuel(items.saturating_mul(u64::from(items.max(1).ilog2()) + 3))?;
    filters::dictsort(value, by_name(["case_sensitive", "by", "reverse"], given)?)
}

fn truncate(state: &mut State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [length, killwords, end, leeway] = arguments(["length", "killwords", "end", "leeway"], given)?;
    let end = end.map_or_else(|| Value::from("..."), |end| Value::from(text(&end)));
    let settings: Kwargs = [
        ("length", Value::from(size("length", length, 255)?)),
        ("killwords", Value::from(flag(killwords.as_ref(), false))),
        ("end", end),
        ("leeway", Value::from(size("leeway", leeway, 5)?)),
    ]
    .into_iter()
    .collect();
    contrib::truncate(state, &Value::from(text(value)), settings)
}

fn wordwrap(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long_words, glue, hyphens] = arguments(names, given)?;
    let value = text(value);
    let glue = glue.filter(|glue| !is_nothing(glue)).map_or_else(|| "\n".to_owned(), |glue| text(&glue).into_owned());
    afford(state, value.len().saturating_mul(glue.len().saturating_add(1)))?;
    let settings: Kwargs = [
        ("width", Value::from(size("width", width, 79)?.max(1))),
        ("break_long_words", Value::from(flag(long_words.as_ref(), true))),
        ("break_on_hyphens", Value::from(flag(hyphens.as_ref(), true))),
        ("wrapstring", Value::from(glue)),
    ]
    .into_iter()
    .collect();
    contrib::wordwrap(&Value::from(value), settings)
}

fn filesizeformat(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [binary] = arguments(["binary"], given)?;
    let bytes = f64::try_from(value.clone()).ok().or_else(|| text(value).trim().parse().ok());
    let bytes = bytes.filter(|bytes: &f64| bytes.is_finite()).ok_or_else(|| wrong("a size has to be a number"))?;
    Ok(Value::from(contrib::filesizeformat(bytes, Some(flag(binary.as_ref(), false)))))
}

fn center(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [width] = arguments(["width"], given)?;
    padded(state, &text(value), size("width", width, 80)?, ' ', Align::Center).map(Value::from)
}

/// On which side of a text room is filled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

/// Fills a text up to `width` characters.
pub(super) fn padded(
    state: &State<'_, '_>,
    text: &str,
    width: usize,
    fill: char,
    align: Align,
) -> Result<String, Error> {
    let missing = width.saturating_sub(text.chars().count());
    afford(state, missing.saturating_mul(fill.len_utf8()))?;
    let before = match align {
        Align::Left => 0,
        Align::Center => missing / 2,
        Align::Right => missing,
    };
    let filling = |count: usize| std::iter::repeat_n(fill, count);
    Ok(filling(before).chain(text.chars()).chain(filling(missing - before)).collect())
}

fn forceescape(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let value = text(value);
    // `&quot;` is the longest.
    afford(state, value.len().saturating_mul(6))?;
    Ok(Value::from_safe_string(HtmlEscape(&value).to_string()))
}

fn xmlattr(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [space] = arguments(["autospace"], given)?;
    let mut out = String::new();
    for key in value.try_iter()?.checked() {
        let key = key?;
        let item = value.get_item(&key)?;
        if is_nothing(&item) {
            continue;
        }
        let (key, item) = (text(&key), text(&item));
        if key.chars().any(|letter| letter.is_whitespace() || "/>=".contains(letter)) {
            return Err(wrong(format!("`{key}` is no name of an attribute")));
        }
        afford(state, out.len().saturating_add(item.len().saturating_mul(6)))?;
        if !out.is_empty() || flag(space.as_ref(), true) {
            out.push(' ');
        }
        // Writing to a string can not fail.
        let _ = write!(out, "{}=\"{}\"", HtmlEscape(&key), HtmlEscape(&item));
    }
    Ok(Value::from_safe_string(out))
}

fn b64decode(value: &Value) -> Result<Value, Error> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let letters: String = text(value)
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| match letter {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let bytes = GeneralPurpose::new(&ALPHABET, lenient).decode(letters).map_err(|_| wrong("this is no base64"))?;
    String::from_utf8(bytes).map(Value::from).map_err(|_| wrong("what is encoded as base64 is no text"))
}

/// Compiles a pattern, which has to be paid for.
fn pattern(state: &State<'_, '_>, pattern: &str, ignore_case: bool, multiline: bool) -> Result<Regex, Error> {
    if pattern.len() > TEMPLATE_PATTERN_BYTES_MAX {
        return Err(wrong(format!("a pattern has at most {TEMPLATE_PATTERN_BYTES_MAX} bytes")));
    }
    state.consume_fuel(u64::try_from(pattern.len() + 1).unwrap_or(u64::MAX).saturating_mul(PATTERN_FUEL_PER_BYTE))?;
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(ignore_case).multi_line(multiline);
    builder.size_limit(PATTERN_COMPILED_BYTES_MAX).dfa_size_limit(PATTERN_COMPILED_BYTES_MAX);
    builder.build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        wrong(format!("this is no pattern: {reason}"))
    })
}

fn regex_replace(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["pattern", "replacement", "ignorecase", "multiline", "count"];
    let [wanted, replacement, ignore_case, multiline, count] = arguments(names, given)?;
    let wanted = wanted.ok_or_else(|| wrong("`regex_replace` needs a pattern"))?;
    let regex = pattern(state, &text(&wanted), flag(ignore_case.as_ref(), false), flag(multiline.as_ref(), false))?;
    let replacement = replacement.map(|replacement| expandable(&text(&replacement))).unwrap_or_default();
    let most = match size("count", count, 0)? {
        0 => usize::MAX,
        count => count,
    };
    let value = text(value);
    let (mut out, mut copied) = (String::new(), 0);
    for found in regex.captures_iter(&value).take(most) {
        let whole = found.get_match();
        out.push_str(&value[copied..whole.start()]);
        found.expand(&replacement, &mut out);
        copied = whole.end();
        afford(state, out.len())?;
    }
    out.push_str(&value[copied..]);
    Ok(Value::from(out))
}

/// Turns Python's `\1` and `\g<name>` into what the library expands.
fn expandable(replacement: &str) -> String {
    let mut out = String::new();
    let mut letters = replacement.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '$' => out.push_str("$$"),
            '\\' => match letters.peek().copied() {
                Some('\\') => out.extend(letters.next()),
                Some('n') => {
                    letters.next();
                    out.push('\n');
                }
                Some('g') => {
                    let name: String = letters
                        .by_ref()
                        .skip(1)
                        .skip_while(|letter| *letter == '<')
                        .take_while(|letter| *letter != '>')
                        .collect();
                    let _ = write!(out, "${{{name}}}");
                }
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                        out.push(digit);
                    }
                    out.push('}');
                }
                Some(_) | None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

/// What was found, or the groups that are asked for (`'\\1'`, `'\\g<name>'`); null when nothing was.
fn regex_search(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = given.into_values();
    let (places, kwargs): (&[Value], Kwargs) = from_args(&given)?;
    let (wanted, groups) = places.split_first().ok_or_else(|| wrong("`regex_search` needs a pattern"))?;
    let ignore_case = kwargs.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multiline = kwargs.get::<Option<bool>>("multiline")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let regex = pattern(state, &text(wanted), ignore_case, multiline)?;
    let value = text(value);
    let Some(found) = regex.captures(&value) else { return Ok(Value::from(())) };
    if groups.is_empty() {
        return Ok(Value::from(found.get_match().as_str()));
    }
    groups.iter().map(|group| named_group(&found, &text(group))).collect()
}

fn named_group(found: &Captures<'_>, group: &str) -> Result<Value, Error> {
    let name = group.trim_start_matches('\\').trim_start_matches("g<").trim_end_matches('>');
    let known = match name.parse::<usize>() {
        Ok(number) => (number < found.len()).then(|| found.get(number)),
        Err(_) => found.name(name).map(Some),
    };
    let part = known.ok_or_else(|| wrong(format!("the pattern has no group `{group}`")))?;
    Ok(part.map_or(Value::from(()), |part| Value::from(part.as_str())))
}

/// Everything that was found: the texts, or the group if the pattern has one, or lists of its groups.
fn regex_findall(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    // In the order of the filter that people know.
    let [wanted, multiline, ignore_case] = arguments(["pattern", "multiline", "ignorecase"], given)?;
    let wanted = wanted.ok_or_else(|| wrong("`regex_findall` needs a pattern"))?;
    let regex = pattern(state, &text(&wanted), flag(ignore_case.as_ref(), false), flag(multiline.as_ref(), false))?;
    let value = text(value);
    let group = |found: &Captures<'_>, nth: usize| Value::from(found.get(nth).map_or("", |part| part.as_str()));
    let found = regex.captures_iter(&value).map(|found| {
        state.consume_fuel(u64::try_from(found.len()).unwrap_or(u64::MAX))?;
        Ok(match found.len() {
            count @ (1 | 2) => group(&found, count - 1),
            count => (1..count).map(|nth| group(&found, nth)).collect(),
        })
    });
    found.collect()
}

/// Returns the entries of several maps: of equal keys the last one counts.
fn combine(state: &State<'_, '_>, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = given.into_values();
    let (others, kwargs): (&[Value], Kwargs) = from_args(&given)?;
    let recursive = kwargs.get::<Option<bool>>("recursive")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    others.iter().try_fold(value.clone(), |sum, other| merged(state, &sum, other, recursive))
}

fn merged(state: &State<'_, '_>, one: &Value, other: &Value, recursive: bool) -> Result<Value, Error> {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for map in [one, other] {
        if is_nothing(map) {
            continue;
        }
        if map.kind() != ValueKind::Map {
            return Err(wrong(format!("`combine` takes maps, not a {}", map.kind())));
        }
        for key in map.try_iter()?.checked() {
            let key = key?;
            let item = map.get_item(&key)?;
            // A step deeper is a call of its own, and as deep as data may be.
            state.consume_fuel(1)?;
            match places.get(&key) {
                Some(at) => {
                    let there: &mut (Value, Value) = &mut entries[*at];
                    let both = recursive && there.1.kind() == ValueKind::Map && item.kind() == ValueKind::Map;
                    there.1 = if both { merged(state, &there.1, &item, true)? } else { item };
                }
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, item));
                }
            }
        }
    }
    Ok(Value::from_pairs(entries))
}

fn hash(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [algorithm] = arguments(["hashtype"], given)?;
    let algorithm = algorithm.map_or_else(|| "sha1".to_owned(), |algorithm| text(&algorithm).to_ascii_lowercase());
    match &*algorithm {
        "md5" => Ok(digest::<md5::Md5>(value)),
        "sha1" => Ok(digest::<sha1::Sha1>(value)),
        "sha256" => Ok(digest::<sha2::Sha256>(value)),
        "sha512" => Ok(digest::<sha2::Sha512>(value)),
        _ => Err(wrong(format!("there is no hash `{algorithm}`: md5, sha1, sha256, sha512"))),
    }
}

fn digest<D: Digest>(value: &Value) -> Value {
    let digits = D::digest(text(value).as_bytes());
    Value::from(digits.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string can not fail.
        let _ = write!(out, "{byte:02x}");
        out
    }))
}

/// As the engine's, and of a list of pairs.
fn dict(state: &State<'_, '_>, value: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    let value = match value {
        Some(pairs) if matches!(pairs.kind(), ValueKind::Seq | ValueKind::Iterable) => {
            let mut entries = Vec::new();
            for pair in pairs.try_iter()?.checked() {
                let pair = pair?;
                state.consume_fuel(1)?;
                if pair.len() != Some(2) {
                    return Err(wrong("`dict` takes a map, or a list of pairs"));
                }
                entries.push((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
            }
            Some(Value::from_pairs(entries))
        }
        other => other,
    };
    functions::dict(value, more)
}

#[cfg(test)]
mod tests;
