//! Numbers: casts that refuse what PostgreSQL refuses, division by zero, rounding.

use rusqlite::Connection;
use rusqlite::types::{Value as Sql, ValueRef};

use super::{Answer, Args, flag, lenient, owned, strict, text};
use crate::query::to_char;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    strict(conn, "pg_to_int", 2, to_int)?;
    strict(conn, "pg_to_float", 1, |args| Ok(Sql::Real(to_real(args, "double precision")?)))?;
    strict(conn, "pg_to_numeric", 1, to_numeric)?;
    strict(conn, "pg_to_bool", 1, to_bool)?;
    strict(conn, "pg_float_text", 1, |args| text(real_text(args.real(0)?)))?;
    strict(conn, "pg_div", 2, |args| match (args.raw(0), args.raw(1)) {
        (_, ValueRef::Integer(0)) => Err("division by zero".to_owned()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.checked_div(b).map(Sql::Integer).ok_or_else(out_of_range),
        _ => match args.real(1)? {
            0.0 => Err("division by zero".to_owned()),
            divisor => Ok(Sql::Real(args.real(0)? / divisor)),
        },
    })?;
    strict(conn, "pg_mod", 2, |args| match (args.raw(0), args.raw(1)) {
        (_, ValueRef::Integer(0)) => Err("division by zero".to_owned()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => Ok(Sql::Integer(a.checked_rem(b).unwrap_or(0))),
        _ => match args.real(1)? {
            0.0 => Err("division by zero".to_owned()),
            divisor => Ok(Sql::Real(args.real(0)? % divisor)),
        },
    })?;
    strict(conn, "pg_round", 2, |args| scaled(args, f64::round))?;
    strict(conn, "pg_trunc", 2, |args| scaled(args, f64::trunc))?;
    strict(conn, "pg_rint", 1, |args| Ok(Sql::Real(args.real(0)?.round_ties_even())))?;
    strict(conn, "pg_floor", 1, |args| whole_number(args, f64::floor))?;
    strict(conn, "pg_ceil", 1, |args| whole_number(args, f64::ceil))?;
    strict(conn, "pg_power", 2, |args| finite(args.real(0)?.powf(args.real(1)?)))?;
    strict(conn, "pg_sqrt", 1, |args| match args.real(0)? {
        value if value < 0.0 => Err("cannot take square root of a negative number".to_owned()),
        value => Ok(Sql::Real(value.sqrt())),
    })?;
    strict(conn, "pg_exp", 1, |args| finite(args.real(0)?.exp()))?;
    strict(conn, "pg_ln", 1, |args| Ok(Sql::Real(positive(args.real(0)?)?.ln())))?;
    strict(conn, "pg_log", 1, |args| Ok(Sql::Real(positive(args.real(0)?)?.log10())))?;
    strict(conn, "pg_to_char_number", 2, |args| text(to_char::number(args.real(0)?, &args.text(1)?)?))?;
    // Compared with `max` and `min`, these two skip NULLs.
    lenient(conn, "pg_greatest", -1, |args| Ok(extreme(args, std::cmp::Ordering::Greater)))?;
    lenient(conn, "pg_least", -1, |args| Ok(extreme(args, std::cmp::Ordering::Less)))
}

/// Reads a whole number, spaces around it allowed.
pub(super) fn whole(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "SQL converts integers to doubles the same way")]
pub(super) fn as_real(value: i64) -> f64 {
    value as f64
}

/// Writes a double as PostgreSQL prints it: no needless `.0`, an exponent for the very large and small.
pub(super) fn real_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..15).contains(&exponent) {
        format!("{value}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

fn out_of_range() -> String {
    "number out of range".to_owned()
}

fn to_int(args: &Args<'_, '_>) -> Answer {
    let bits = args.int(1)?;
    let (name, limit) = match bits {
        16 => ("smallint", i64::from(i16::MAX)),
        32 => ("integer", i64::from(i32::MAX)),
        _ => ("bigint", i64::MAX),
    };
    let value = match args.raw(0) {
        ValueRef::Integer(value) => value,
        ValueRef::Real(value) => rounded(value).ok_or_else(|| format!("{name} out of range"))?,
        _ => {
            let given = args.text(0)?;
            whole(&given).ok_or_else(|| format!("invalid input syntax for type {name}: {given:?}"))?
        }
    };
    if value > limit || value < -limit - 1 { Err(format!("{name} out of range")) } else { Ok(Sql::Integer(value)) }
}

#[expect(clippy::cast_possible_truncation, reason = "checked against the range just before")]
fn rounded(value: f64) -> Option<i64> {
    let value = value.round();
    (value.abs() < 9.223_372_036_854_775e18).then_some(value as i64)
}

fn to_real(args: &Args<'_, '_>, name: &str) -> Result<f64, String> {
    match args.raw(0) {
        ValueRef::Text(_) => {
            let given = args.text(0)?;
            given.trim().parse().map_err(|_| format!("invalid input syntax for type {name}: {given:?}"))
        }
        _ => args.real(0),
    }
}

fn to_numeric(args: &Args<'_, '_>) -> Answer {
    match args.raw(0) {
        ValueRef::Integer(value) => Ok(Sql::Integer(value)),
        ValueRef::Text(_) => match whole(&args.text(0)?) {
            Some(value) => Ok(Sql::Integer(value)),
            None => Ok(Sql::Real(to_real(args, "numeric")?)),
        },
        _ => Ok(Sql::Real(args.real(0)?)),
    }
}

/// Reads the words that PostgreSQL accepts as a boolean.
pub(in crate::query) fn boolean(text: &str) -> Option<bool> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => true,
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => false,
        _ => return None,
    })
}

fn to_bool(args: &Args<'_, '_>) -> Answer {
    match args.raw(0) {
        ValueRef::Integer(value) => flag(value != 0),
        _ => {
            let given = args.text(0)?;
            boolean(&given).map_or_else(|| Err(format!("invalid input syntax for type boolean: {given:?}")), flag)
        }
    }
}

/// Rounds half away from zero at a number of decimals, as `numeric` does.
fn scaled(args: &Args<'_, '_>, cut: fn(f64) -> f64) -> Answer {
    let places = i32::try_from(args.int(1)?.clamp(-300, 300)).map_err(|_| out_of_range())?;
    if let (ValueRef::Integer(value), true) = (args.raw(0), places >= 0) {
        return Ok(Sql::Integer(value));
    }
    let value = args.real(0)?;
    let factor = 10f64.powi(places);
    let moved = value * factor;
    if !moved.is_finite() {
        return Ok(Sql::Real(value));
    }
    // 1.005 × 100 is 100.49999…: the shortest decimal text says what the person wrote.
    let nearest: f64 = format!("{moved:.9}").parse().unwrap_or(moved);
    Ok(Sql::Real(cut(nearest) / factor))
}

fn whole_number(args: &Args<'_, '_>, cut: fn(f64) -> f64) -> Answer {
    match args.raw(0) {
        ValueRef::Integer(value) => Ok(Sql::Integer(value)),
        _ => {
            let value = cut(args.real(0)?);
            Ok(rounded(value).map_or(Sql::Real(value), Sql::Integer))
        }
    }
}

fn finite(value: f64) -> Answer {
    if value.is_finite() { Ok(Sql::Real(value)) } else { Err(out_of_range()) }
}

fn positive(value: f64) -> Result<f64, String> {
    if value > 0.0 { Ok(value) } else { Err("cannot take logarithm of zero or a negative number".to_owned()) }
}

fn extreme(args: &Args<'_, '_>, wanted: std::cmp::Ordering) -> Sql {
    let mut best: Option<ValueRef<'_>> = None;
    for index in 0..args.len() {
        let value = args.raw(index);
        if !matches!(value, ValueRef::Null) && best.is_none_or(|best| compare(value, best) == wanted) {
            best = Some(value);
        }
    }
    best.map_or(Sql::Null, owned)
}

/// Orders two values of one SQL type: numbers by size, texts by their bytes.
pub(super) fn compare(left: ValueRef<'_>, right: ValueRef<'_>) -> std::cmp::Ordering {
    match (left, right) {
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        (ValueRef::Integer(a), ValueRef::Real(b)) => as_real(a).total_cmp(&b),
        (ValueRef::Real(a), ValueRef::Integer(b)) => a.total_cmp(&as_real(b)),
        (ValueRef::Real(a), ValueRef::Real(b)) => a.total_cmp(&b),
        (ValueRef::Text(a) | ValueRef::Blob(a), ValueRef::Text(b) | ValueRef::Blob(b)) => a.cmp(b),
        (ValueRef::Null, ValueRef::Null) => std::cmp::Ordering::Equal,
        (ValueRef::Null, _) | (ValueRef::Integer(_) | ValueRef::Real(_), _) => std::cmp::Ordering::Less,
        (ValueRef::Text(_) | ValueRef::Blob(_), _) => std::cmp::Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_postgresql_prints_them() {
        let table =
            [(1.0, "1"), (1.5, "1.5"), (1e20, "1e+20"), (1.5e-7, "1.5e-07"), (0.0001, "0.0001"), (-2.25, "-2.25")];
        for (value, expected) in table {
            assert_eq!(real_text(value), expected);
        }
    }
}
