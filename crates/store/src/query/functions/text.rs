//! Text: patterns, regular expressions, cutting and padding.

use std::sync::Arc;

use regex::Regex;
use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::Value as Sql;

use super::{Answer, Args, FUNCTION_RESULT_BYTES, failure, flag, flags, lenient, optional_text, strict, text};
use crate::query::pattern::{self, Like};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for (name, fold) in [("pg_like", false), ("pg_ilike", true)] {
        conn.create_scalar_function(name, 3, flags(), move |context| like(context, fold))?;
    }
    for (name, fold) in [("pg_regex", false), ("pg_iregex", true)] {
        conn.create_scalar_function(name, 2, flags(), move |context| {
            with_regex(context, fold, |regex, text| flag(regex.is_match(text)))
        })?;
    }
    conn.create_scalar_function("pg_regex_substr", 2, flags(), |context| {
        with_regex(context, false, |regex, subject| {
            // The first group, if there is one, else the whole match.
            let found = regex.captures(subject);
            let found = found.and_then(|groups| groups.get(usize::from(groups.len() > 1)));
            optional_text(found.map(|found| found.as_str().to_owned()))
        })
    })?;
    conn.create_scalar_function("pg_regex_match", 2, flags(), |context| {
        with_regex(context, false, |regex, subject| {
            let groups = regex.captures(subject).map(|groups| {
                let first = usize::from(groups.len() > 1);
                let texts: Vec<Option<&str>> =
                    groups.iter().skip(first).map(|group| group.map(|found| found.as_str())).collect();
                serde_json::json!(texts).to_string()
            });
            optional_text(groups)
        })
    })?;
    strict(conn, "pg_regex_replace", 4, regex_replace)?;
    strict(conn, "pg_upper", 1, |args| text(args.text(0)?.to_uppercase()))?;
    strict(conn, "pg_lower", 1, |args| text(args.text(0)?.to_lowercase()))?;
    strict(conn, "pg_initcap", 1, |args| text(initcap(&args.text(0)?)))?;
    strict(conn, "pg_reverse", 1, |args| text(args.text(0)?.chars().rev().collect::<String>()))?;
    strict(conn, "pg_substr", 2, |args| {
        let skip = usize::try_from(args.int(1)?.saturating_sub(1)).unwrap_or(0);
        text(args.text(0)?.chars().skip(skip).collect::<String>())
    })?;
    strict(conn, "pg_substr", 3, substring)?;
    strict(conn, "pg_left", 2, |args| {
        let given = args.text(0)?;
        text(given.chars().take(signed_count(&given, args.int(1)?)).collect::<String>())
    })?;
    strict(conn, "pg_right", 2, |args| {
        let given = args.text(0)?;
        let kept = signed_count(&given, args.int(1)?);
        let skip = given.chars().count().saturating_sub(kept);
        text(given.chars().skip(skip).collect::<String>())
    })?;
    strict(conn, "pg_repeat", 2, |args| {
        let given = args.text(0)?;
        let times = usize::try_from(args.int(1)?.max(0)).unwrap_or(usize::MAX);
        match given.len().checked_mul(times) {
            Some(length) if length <= FUNCTION_RESULT_BYTES => text(given.repeat(times)),
            Some(_) | None => Err(format!("repeat gives more than {FUNCTION_RESULT_BYTES} bytes")),
        }
    })?;
    strict(conn, "pg_lpad", 3, |args| pad(args, true))?;
    strict(conn, "pg_rpad", 3, |args| pad(args, false))?;
    strict(conn, "pg_translate", 3, |args| {
        let (from, to): (Vec<char>, Vec<char>) = (args.text(1)?.chars().collect(), args.text(2)?.chars().collect());
        let mapped = args.text(0)?;
        let mapped = mapped.chars().filter_map(|letter| match from.iter().position(|other| *other == letter) {
            Some(at) => to.get(at).copied(),
            None => Some(letter),
        });
        text(mapped.collect::<String>())
    })?;
    strict(conn, "pg_split_part", 3, split_part)?;
    strict(conn, "pg_starts_with", 2, |args| flag(args.text(0)?.starts_with(&args.text(1)?)))?;
    strict(conn, "pg_quote_literal", 1, |args| text(quote_literal(&args.text(0)?)))?;
    strict(conn, "pg_quote_ident", 1, |args| text(quote_ident(&args.text(0)?)))?;
    lenient(conn, "pg_format", -1, format)
}

fn like(context: &mut Context<'_>, fold: bool) -> rusqlite::Result<Sql> {
    let args = Args(context);
    if (0..3).any(|index| args.is_null(index)) {
        return Ok(Sql::Null);
    }
    let subject = args.text(0).map_err(failure)?;
    // A constant pattern is compiled once per statement.
    let compiled: Arc<Like> = match context.get_aux::<Like>(1)? {
        Some(compiled) => compiled,
        None => {
            let args = Args(context);
            let (pattern, escape) = (args.text(1).map_err(failure)?, args.text(2).map_err(failure)?);
            let compiled = Like::new(&pattern, escape.chars().next(), fold)
                .ok_or_else(|| failure("LIKE pattern must not end with its escape character".to_owned()))?;
            context.set_aux(1, compiled)?
        }
    };
    Ok(Sql::Integer(i64::from(compiled.matches(&subject))))
}

fn with_regex(context: &mut Context<'_>, fold: bool, answer: impl Fn(&Regex, &str) -> Answer) -> rusqlite::Result<Sql> {
    let args = Args(context);
    if args.is_null(0) || args.is_null(1) {
        return Ok(Sql::Null);
    }
    let subject = args.text(0).map_err(failure)?;
    let compiled: Arc<Regex> = match context.get_aux::<Regex>(1)? {
        Some(compiled) => compiled,
        None => {
            let pattern = Args(context).text(1).map_err(failure)?;
            context.set_aux(1, pattern::regex(&pattern, fold).map_err(failure)?)?
        }
    };
    answer(&compiled, &subject).map_err(failure)
}

fn regex_replace(args: &Args<'_, '_>) -> Answer {
    let options = args.text(3)?;
    if let Some(other) = options.chars().find(|option| !matches!(option, 'g' | 'i')) {
        return Err(format!("regexp_replace flag {other:?} is not supported here"));
    }
    let regex = pattern::regex(&args.text(1)?, options.contains('i'))?;
    let replacement = pattern::replacement(&args.text(2)?);
    let limit = usize::from(!options.contains('g'));
    text(regex.replacen(&args.text(0)?, limit, replacement.as_str()))
}

fn initcap(given: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(given.len());
    for letter in given.chars() {
        if inside {
            out.extend(letter.to_lowercase());
        } else {
            out.extend(letter.to_uppercase());
        }
        inside = letter.is_alphanumeric();
    }
    out
}

/// Cuts from a position that may lie before the text: `substring('hello', 0, 2)` is `h`.
fn substring(args: &Args<'_, '_>) -> Answer {
    let (start, length) = (args.int(1)?, args.int(2)?);
    if length < 0 {
        return Err("negative substring length not allowed".to_owned());
    }
    let end = start.saturating_add(length).max(1);
    let skip = usize::try_from(start.max(1) - 1).unwrap_or(usize::MAX);
    let take = usize::try_from(end - start.max(1)).unwrap_or(0);
    text(args.text(0)?.chars().skip(skip).take(take).collect::<String>())
}

/// Returns how many letters `left(text, count)` keeps; a negative count drops from the other end.
fn signed_count(given: &str, count: i64) -> usize {
    let magnitude = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count >= 0 { magnitude } else { given.chars().count().saturating_sub(magnitude) }
}

fn pad(args: &Args<'_, '_>, before: bool) -> Answer {
    let (given, width, fill) =
        (args.text(0)?, usize::try_from(args.int(1)?.max(0)).unwrap_or(usize::MAX), args.text(2)?);
    if width > FUNCTION_RESULT_BYTES / 4 {
        return Err(format!("padding gives more than {FUNCTION_RESULT_BYTES} bytes"));
    }
    let length = given.chars().count();
    if length >= width {
        return text(given.chars().take(width).collect::<String>());
    }
    let padding: String = fill.chars().cycle().take(if fill.is_empty() { 0 } else { width - length }).collect();
    text(if before { padding + &given } else { given + &padding })
}

fn split_part(args: &Args<'_, '_>) -> Answer {
    let (given, separator, field) = (args.text(0)?, args.text(1)?, args.int(2)?);
    if field == 0 {
        return Err("split_part: field position must not be zero".to_owned());
    }
    let parts: Vec<&str> = if separator.is_empty() { vec![&given] } else { given.split(separator.as_str()).collect() };
    let nth = usize::try_from(field.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = if field > 0 { parts.get(nth) } else { parts.iter().rev().nth(nth) };
    text(part.copied().unwrap_or_default())
}

fn quote_literal(given: &str) -> String {
    let quoted = given.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

fn quote_ident(given: &str) -> String {
    let plain = given.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if plain && !given.is_empty() && !given.starts_with(|letter: char| letter.is_ascii_digit()) {
        given.to_owned()
    } else {
        format!("\"{}\"", given.replace('"', "\"\""))
    }
}

/// `format` with `%s`, `%I`, `%L` and `%%`.
fn format(args: &Args<'_, '_>) -> Answer {
    if args.len() == 0 || args.is_null(0) {
        return Ok(Sql::Null);
    }
    let pattern = args.text(0)?;
    let mut out = String::with_capacity(pattern.len());
    let mut next = 1;
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let kind = letters.next().ok_or_else(|| "format pattern ends in %".to_owned())?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(format!("format pattern %{kind} is not supported here"));
        }
        if next >= args.len() {
            return Err("too few arguments for format".to_owned());
        }
        let given = args.text(next)?;
        match (kind, args.is_null(next)) {
            ('L', true) => out.push_str("NULL"),
            ('I', true) => return Err("null values cannot be formatted as an SQL identifier".to_owned()),
            ('L', false) => out.push_str(&quote_literal(&given)),
            ('I', false) => out.push_str(&quote_ident(&given)),
            _ => out.push_str(&given),
        }
        next += 1;
    }
    text(out)
}
