//! Moments, dates and intervals.

use jiff::civil::{Date, DateTime};
use noetl_core::time::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::{Answer, Args, SERIES_ELEMENTS, lenient, strict, text};
use crate::query::fields::{Field, Unit};
use crate::query::interval::Interval;
use crate::query::moment::{self, Moment, Number};
use crate::query::to_char;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    moments(conn)?;
    dates(conn)?;
    intervals(conn)
}

fn moments(conn: &Connection) -> rusqlite::Result<()> {
    // The second argument of these two is now, for `'today'` and its like.
    strict(conn, "pg_ts", 2, |args| text(relative(args)?.to_iso()))?;
    strict(conn, "pg_date", 2, |args| text(relative(args)?.date().to_string()))?;
    strict(conn, "pg_ts_add", 2, |args| shifted(args, false))?;
    strict(conn, "pg_ts_minus", 2, |args| shifted(args, true))?;
    strict(conn, "pg_ts_diff", 2, |args| answer(moment_at(args, 0)?.minus(moment_at(args, 1)?)))?;
    strict(conn, "pg_age", 2, |args| answer(moment_at(args, 0)?.age(moment_at(args, 1)?)))?;
    strict(conn, "pg_ts_text", 2, |args| text(moment_at(args, 0)?.to_postgres(args.int(1)? != 0)))?;
    strict(conn, "pg_ts_extract", 2, |args| {
        let name = args.text(0)?;
        let field = Field::parse(&name).ok_or_else(|| format!("timestamp units {name:?} not recognized"))?;
        Ok(number(moment_at(args, 1)?.extract(field).ok_or_else(out_of_range)?))
    })?;
    strict(conn, "pg_ts_trunc", 2, |args| {
        text(moment_at(args, 1)?.truncated(unit(args, 0)?).ok_or_else(out_of_range)?.to_iso())
    })?;
    strict(conn, "pg_ts_bin", 3, |args| {
        let stride = i64::try_from(interval_at(args, 0)?.length() / 1_000).map_err(|_| out_of_range())?;
        if stride <= 0 || interval_at(args, 0)?.months != 0 {
            return Err("date_bin needs a stride of days or less, greater than zero".to_owned());
        }
        let (at, origin) = (millis(args, 1)?, millis(args, 2)?);
        let binned = origin.saturating_add(at.saturating_sub(origin).div_euclid(stride).saturating_mul(stride));
        text(Moment::at(Timestamp(binned)).ok_or_else(out_of_range)?.to_iso())
    })?;
    strict(conn, "pg_ts_char", 2, |args| text(to_char::moment(moment_at(args, 0)?, &args.text(1)?)?))?;
    strict(conn, "pg_ts_epoch", 1, |args| {
        let seconds = args.real(0)?;
        text(Moment::at(Timestamp(rounded(seconds * 1000.0)?)).ok_or_else(out_of_range)?.to_iso())
    })?;
    strict(conn, "pg_ts_make", 6, |args| {
        let seconds = args.real(5)?;
        let whole = rounded(seconds.trunc())?;
        let nanos = rounded((seconds.fract() * 1000.0).round())? * 1_000_000;
        let built = DateTime::new(
            small(args.int(0)?)?,
            small(args.int(1)?)?,
            small(args.int(2)?)?,
            small(args.int(3)?)?,
            small(args.int(4)?)?,
            small(whole)?,
            small(nanos)?,
        );
        let built = built.map_err(|_| out_of_range())?;
        text(Moment::parse(&built.to_string()).ok_or_else(out_of_range)?.to_iso())
    })?;
    strict(conn, "pg_ts_series", 3, |args| {
        let (last, step) = (moment_at(args, 1)?, interval_at(args, 2)?);
        if step.length() == 0 {
            return Err("step size cannot equal zero".to_owned());
        }
        let mut list = Vec::new();
        let mut next = moment_at(args, 0)?;
        while if step.length() > 0 { next <= last } else { next >= last } {
            if list.len() == SERIES_ELEMENTS {
                return Err(format!("generate_series counts more than {SERIES_ELEMENTS} elements"));
            }
            list.push(next.to_iso());
            let following = next.plus(step).ok_or_else(out_of_range)?;
            // A step below a millisecond would stand still for ever.
            if following == next {
                return Err("generate_series needs steps of a millisecond at least".to_owned());
            }
            next = following;
        }
        text(serde_json::json!(list).to_string())
    })
}

fn dates(conn: &Connection) -> rusqlite::Result<()> {
    strict(conn, "pg_date_add", 2, |args| {
        let span = jiff::Span::new().try_days(args.int(1)?).map_err(|_| out_of_range())?;
        text(date_at(args, 0)?.checked_add(span).map_err(|_| out_of_range())?.to_string())
    })?;
    strict(conn, "pg_date_diff", 2, |args| {
        let span = date_at(args, 0)?.since(date_at(args, 1)?).map_err(|_| out_of_range())?;
        Ok(Sql::Integer(i64::from(span.get_days())))
    })?;
    strict(conn, "pg_date_make", 3, |args| {
        let built = Date::new(small(args.int(0)?)?, small(args.int(1)?)?, small(args.int(2)?)?);
        text(built.map_err(|_| "date field value out of range".to_owned())?.to_string())
    })
}

fn intervals(conn: &Connection) -> rusqlite::Result<()> {
    strict(conn, "pg_interval", 1, |args| {
        let given = args.text(0)?;
        match Interval::parse(&given, Unit::Second) {
            Some(interval) => text(interval.encode()),
            None => Err(format!("invalid input syntax for type interval: {given:?}")),
        }
    })?;
    strict(conn, "pg_interval_text", 1, |args| text(interval_at(args, 0)?.to_text()))?;
    strict(conn, "pg_interval_key", 1, |args| text(args.text(0)?.split(':').next().unwrap_or_default()))?;
    strict(conn, "pg_interval_add", 2, |args| answer(interval_at(args, 0)?.plus(interval_at(args, 1)?)))?;
    strict(conn, "pg_interval_minus", 2, |args| {
        answer(interval_at(args, 1)?.negated().and_then(|other| interval_at(args, 0).ok()?.plus(other)))
    })?;
    strict(conn, "pg_interval_times", 2, |args| answer(interval_at(args, 0)?.times(args.real(1)?)))?;
    strict(conn, "pg_interval_div", 2, |args| match args.real(1)? {
        0.0 => Err("division by zero".to_owned()),
        divisor => answer(interval_at(args, 0)?.times(1.0 / divisor)),
    })?;
    strict(conn, "pg_interval_extract", 2, |args| {
        let name = args.text(0)?;
        let field = Field::parse(&name).and_then(|field| moment::extract_interval(interval_at(args, 1).ok()?, field));
        field.map(number).ok_or_else(|| format!("interval units {name:?} not recognized"))
    })?;
    strict(conn, "pg_interval_trunc", 2, |args| {
        answer(moment::truncate_interval(interval_at(args, 1)?, unit(args, 0)?))
    })?;
    strict(conn, "pg_interval_char", 2, |args| text(to_char::interval(interval_at(args, 0)?, &args.text(1)?)?))?;
    lenient(conn, "pg_interval_make", 7, |args| {
        const UNITS: [Unit; 7] =
            [Unit::Year, Unit::Month, Unit::Week, Unit::Day, Unit::Hour, Unit::Minute, Unit::Second];
        let mut sum = Interval::default();
        for (index, unit) in UNITS.into_iter().enumerate() {
            if args.is_null(index) {
                return Ok(Sql::Null);
            }
            let part = Interval::parse(&format!("{}", args.real(index)?), unit);
            sum = part.and_then(|part| sum.plus(part)).ok_or_else(out_of_range)?;
        }
        text(sum.encode())
    })
}

fn out_of_range() -> String {
    "date or time out of range".to_owned()
}

fn moment_at(args: &Args<'_, '_>, index: usize) -> Result<Moment, String> {
    let given = args.text(index)?;
    Moment::parse(&given).ok_or_else(|| format!("invalid input syntax for type timestamp: {given:?}"))
}

fn date_at(args: &Args<'_, '_>, index: usize) -> Result<Date, String> {
    let given = args.text(index)?;
    moment::parse_date(&given).ok_or_else(|| format!("invalid input syntax for type date: {given:?}"))
}

fn interval_at(args: &Args<'_, '_>, index: usize) -> Result<Interval, String> {
    let given = args.text(index)?;
    Interval::decode(&given).ok_or_else(|| format!("not an interval: {given:?}"))
}

fn millis(args: &Args<'_, '_>, index: usize) -> Result<i64, String> {
    moment_at(args, index)?.timestamp().map(|at| at.0).ok_or_else(out_of_range)
}

fn unit(args: &Args<'_, '_>, index: usize) -> Result<Unit, String> {
    let name = args.text(index)?;
    Unit::parse(&name).ok_or_else(|| format!("timestamp units {name:?} not recognized"))
}

fn relative(args: &Args<'_, '_>) -> Result<Moment, String> {
    let given = args.text(0)?;
    let now = moment_at(args, 1)?;
    Moment::parse_relative(&given, now).ok_or_else(|| format!("invalid input syntax for type timestamp: {given:?}"))
}

fn shifted(args: &Args<'_, '_>, back: bool) -> Answer {
    let mut interval = interval_at(args, 1)?;
    if back {
        interval = interval.negated().ok_or_else(out_of_range)?;
    }
    text(moment_at(args, 0)?.plus(interval).ok_or_else(out_of_range)?.to_iso())
}

fn answer(interval: Option<Interval>) -> Answer {
    interval.map_or_else(|| Err("interval out of range".to_owned()), |interval| text(interval.encode()))
}

fn number(value: Number) -> Sql {
    match value {
        Number::Whole(value) => Sql::Integer(value),
        Number::Real(value) => Sql::Real(value),
    }
}

fn small<T: TryFrom<i64>>(value: i64) -> Result<T, String> {
    T::try_from(value).map_err(|_| out_of_range())
}

#[expect(clippy::cast_possible_truncation, reason = "checked against the range just before")]
fn rounded(value: f64) -> Result<i64, String> {
    if value.abs() < 9.0e15 { Ok(value.round() as i64) } else { Err(out_of_range()) }
}
