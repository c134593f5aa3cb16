//! Casts, and the silent ones that literals get from their surroundings.

use super::error::{QueryError, Result};
use super::expr::{NOW, Term};
use super::fields::Unit;
use super::functions;
use super::interval::Interval;
use super::jsonb;
use super::moment::{self, Moment};
use super::scope::literal;
use super::types::{Fit, Target, Type};

/// Translates `x::type`.
pub(super) fn cast(term: Term, target: &Target) -> Result<Term> {
    let nullable = term.nullable;
    let term = match (&term.ty, &term.literal) {
        (Type::Unknown, Some(text)) => read_literal(&text.clone(), &target.ty)?,
        (Type::Unknown, None) => Term { ty: target.ty.clone(), ..term },
        _ => convert(term, &target.ty, true)?,
    };
    let sql = match target.fit {
        Fit::Plain | Fit::Bits(64) => term.sql,
        Fit::Bits(bits) => format!("pg_to_int({}, {bits})", term.sql),
        Fit::Scale(places) => format!("pg_round({}, {places})", term.sql),
        Fit::Length(letters) => format!("substr({}, 1, {letters})", term.sql),
    };
    Ok(Term { nullable, ..Term::new(sql, target.ty.clone()) })
}

/// Gives a term the type that its surroundings ask for, where PostgreSQL would without a cast being written.
pub(super) fn coerce(term: Term, ty: &Type, what: &str) -> Result<Term> {
    let nullable = term.nullable;
    let coerced = match (&term.ty, &term.literal) {
        (Type::Unknown, Some(text)) => read_literal(&text.clone(), ty),
        (Type::Unknown, None) => Ok(Term { ty: ty.clone(), ..term }),
        (from, _) if from == ty => Ok(term),
        (from, _) if implicit(from, ty) => convert(term, ty, false),
        (from, _) => Err(QueryError::invalid(format!("{what} takes {}, not {}: add a cast", ty.name(), from.name()))),
    };
    coerced.map(|term| Term { nullable, ..term })
}

/// Brings terms to their common type, as CASE and COALESCE do.
pub(super) fn unify(terms: Vec<Term>, what: &str) -> Result<(Vec<Term>, Type)> {
    let mut ty = Type::Unknown;
    for term in &terms {
        ty = ty.common(&term.ty).ok_or_else(|| {
            let (a, b) = (ty.name(), term.ty.name());
            QueryError::invalid(format!("{what} types {a} and {b} cannot be matched: add a cast"))
        })?;
    }
    if ty == Type::Unknown {
        let literal = terms.iter().any(|term| term.literal.is_some());
        return Ok((terms, if literal { Type::Text } else { Type::Unknown }));
    }
    let terms = terms.into_iter().map(|term| coerce(term, &ty, what)).collect::<Result<_>>()?;
    Ok((terms, ty))
}

/// Reads a string literal as a value of a type, now rather than for each row.
fn read_literal(text: &str, ty: &Type) -> Result<Term> {
    let wrong = || {
        let shown: String = text.chars().take(80).collect();
        QueryError::invalid(format!("invalid input syntax for type {}: {shown:?}", ty.name()))
    };
    let sql = match ty {
        Type::Text | Type::Unknown => literal(text),
        Type::Bool => match functions::boolean(text).ok_or_else(wrong)? {
            true => "TRUE".to_owned(),
            false => "FALSE".to_owned(),
        },
        Type::Int => {
            let value: i64 = text.trim().parse().map_err(|_| wrong())?;
            format!("({value})")
        }
        Type::Numeric | Type::Float => match text.trim().parse::<i64>() {
            Ok(value) if *ty == Type::Numeric => format!("({value})"),
            Ok(_) | Err(_) => {
                let value: f64 = text.trim().parse().map_err(|_| wrong())?;
                if !value.is_finite() {
                    return Err(wrong());
                }
                format!("({value:?})")
            }
        },
        Type::Json => {
            let value: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong())?;
            literal(&value.to_string())
        }
        Type::Timestamp { .. } => match Moment::parse(text) {
            Some(moment) => literal(&moment.to_iso()),
            // `'today'` depends on the time of the query.
            None if is_relative(text) => format!("pg_ts({}, {NOW})", literal(text)),
            None => return Err(wrong()),
        },
        Type::Date => match moment::parse_date(text) {
            Some(date) => literal(&date.to_string()),
            None if is_relative(text) => format!("pg_date({}, {NOW})", literal(text)),
            None => return Err(wrong()),
        },
        Type::Interval => literal(&Interval::parse(text, Unit::Second).ok_or_else(wrong)?.encode()),
        Type::Array(element) => {
            jsonb::parse_array_literal(text).ok_or_else(wrong)?;
            format!("pg_array_parse({}, {})", literal(text), element_kind(element)?)
        }
        Type::Bytes => return Err(QueryError::unsupported("type bytea")),
    };
    Ok(Term { nullable: false, ..Term::new(sql, ty.clone()) })
}

/// Converts between two known types.
fn convert(term: Term, to: &Type, explicit: bool) -> Result<Term> {
    let refused = || QueryError::invalid(format!("cannot cast type {} to {}", term.ty.name(), to.name()));
    let sql = term.sql.clone();
    let converted = match (&term.ty, to) {
        (from, to) if from == to => sql,
        (_, Type::Text) => return to_text(term),
        (Type::Bool, Type::Int) if explicit => format!("CAST({sql} AS INTEGER)"),
        (Type::Int, Type::Bool) if explicit => format!("({sql} <> 0)"),
        (Type::Text | Type::Json, Type::Bool) if explicit => format!("pg_to_bool({sql})"),
        (Type::Numeric | Type::Text | Type::Json, Type::Int) => format!("pg_to_int({sql}, 64)"),
        // Doubles round to even, numerics away from zero.
        (Type::Float, Type::Int) => format!("pg_to_int(pg_rint({sql}), 64)"),
        (Type::Int, Type::Numeric) => sql,
        (Type::Float, Type::Numeric) => sql,
        (Type::Text | Type::Json, Type::Numeric) => format!("pg_to_numeric({sql})"),
        (Type::Int | Type::Numeric, Type::Float) => format!("CAST({sql} AS REAL)"),
        (Type::Text | Type::Json, Type::Float) => format!("pg_to_float({sql})"),
        (Type::Text, Type::Json) => format!("pg_json_check({sql})"),
        (Type::Text, Type::Timestamp { .. }) => format!("pg_ts({sql}, {NOW})"),
        (Type::Text, Type::Date) => format!("pg_date({sql}, {NOW})"),
        (Type::Text, Type::Interval) => format!("pg_interval({sql})"),
        (Type::Text, Type::Array(element)) => format!("pg_array_parse({sql}, {})", element_kind(element)?),
        (Type::Timestamp { .. }, Type::Timestamp { .. }) => sql,
        (Type::Timestamp { .. }, Type::Date) => format!("substr({sql}, 1, 10)"),
        (Type::Date, Type::Timestamp { .. }) => format!("({sql} || 'T00:00:00.000Z')"),
        (Type::Array(from), Type::Array(to)) if **from == Type::Unknown || from == to => sql,
        (Type::Array(from), Type::Array(to)) if from.is_number() && to.is_number() => sql,
        _ => return Err(refused()),
    };
    Ok(Term { sql: converted, ty: to.clone(), ..term })
}

/// Writes a value as PostgreSQL prints it.
pub(super) fn to_text(term: Term) -> Result<Term> {
    let sql = &term.sql;
    let text = match &term.ty {
        Type::Text | Type::Unknown => return Ok(Term { ty: Type::Text, literal: None, ..term }),
        Type::Bool => format!("(CASE WHEN {sql} THEN 'true' WHEN NOT {sql} THEN 'false' END)"),
        Type::Int | Type::Numeric => format!("CAST({sql} AS TEXT)"),
        Type::Float => format!("pg_float_text({sql})"),
        Type::Json => format!("pg_json_text({sql})"),
        Type::Timestamp { zoned } => format!("pg_ts_text({sql}, {})", u8::from(*zoned)),
        Type::Date => sql.clone(),
        Type::Interval => format!("pg_interval_text({sql})"),
        Type::Array(_) => format!("pg_array_text({sql})"),
        Type::Bytes => return Err(QueryError::unsupported("bytes as text")),
    };
    Ok(Term { sql: text, ty: Type::Text, ..term })
}

/// Writes a value as a JSON document, the way `to_jsonb` sees it.
pub(super) fn to_json(term: &Term) -> Result<String> {
    let sql = &term.sql;
    Ok(match &term.ty {
        Type::Json | Type::Array(_) => sql.clone(),
        Type::Bool => format!("(CASE WHEN {sql} THEN 'true' WHEN NOT {sql} THEN 'false' END)"),
        Type::Interval => format!("json_quote(pg_interval_text({sql}))"),
        Type::Bytes => return Err(QueryError::unsupported("bytes in json")),
        Type::Unknown | Type::Text | Type::Int | Type::Numeric | Type::Float | Type::Timestamp { .. } | Type::Date => {
            format!("json_quote({sql})")
        }
    })
}

/// Writes a value as the element of an array.
pub(super) fn element(term: &Term) -> Result<String> {
    match term.ty {
        // Inside SQLite an interval stays the text that it is.
        Type::Interval => Ok(format!("json_quote({})", term.sql)),
        _ => to_json(term),
    }
}

/// Asks for a text; PostgreSQL casts nothing to text by itself here.
pub(super) fn textual(term: Term, what: &str) -> Result<Term> {
    match term.ty {
        Type::Text | Type::Unknown => Ok(term),
        other => Err(QueryError::invalid(format!("{what} takes text, not {}: add ::text", other.name()))),
    }
}

/// Tells whether PostgreSQL casts without being asked.
fn implicit(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::Int, Type::Numeric | Type::Float) | (Type::Numeric, Type::Float) => true,
        (Type::Timestamp { .. }, Type::Timestamp { .. }) | (Type::Date, Type::Timestamp { .. }) => true,
        (Type::Array(a), Type::Array(b)) => **a == Type::Unknown || a == b || (a.is_number() && b.is_number()),
        _ => false,
    }
}

fn is_relative(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "now" | "today" | "tomorrow" | "yesterday")
}

/// Names the kind of elements for `pg_array_parse`.
fn element_kind(ty: &Type) -> Result<&'static str> {
    match ty {
        Type::Int => Ok("'int'"),
        Type::Numeric | Type::Float => Ok("'real'"),
        Type::Bool => Ok("'bool'"),
        Type::Json => Ok("'json'"),
        Type::Text | Type::Unknown | Type::Date => Ok("'text'"),
        Type::Timestamp { .. } | Type::Interval | Type::Array(_) | Type::Bytes => {
            Err(QueryError::unsupported(format!("a literal of type {}[]", ty.name())))
        }
    }
}
