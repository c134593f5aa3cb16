//! Functions on moments, dates and intervals.

use super::cast;
use super::error::{QueryError, Result};
use super::expr::{NOW, Term};
use super::fields::Unit;
use super::scalars::{Tried, joined};
use super::translate::Translator;
use super::types::{Fit, Target, Type};

impl Translator<'_> {
    /// Translates a call of a function on moments, dates or intervals.
    pub(super) fn time_call(&mut self, name: &str, arguments: Vec<Term>) -> Result<Tried> {
        let count = arguments.len();
        let zoned = Type::Timestamp { zoned: true };
        let plain = Type::Timestamp { zoned: false };
        let now = |ty: Type| Term { nullable: false, ..Term::new(NOW, ty) };
        let mut given = arguments.into_iter();
        match (name, given.next(), given.next(), given.next()) {
            // Whatever the name says, it is one time for the whole query.
            (
                "now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp" | "clock_timestamp",
                None,
                None,
                None,
            ) => Ok(Ok(now(zoned))),
            ("localtimestamp", None, None, None) => Ok(Ok(now(plain))),
            ("current_date", None, None, None) => {
                Ok(Ok(Term { nullable: false, ..Term::new(format!("substr({NOW}, 1, 10)"), Type::Date) }))
            }
            ("age", Some(later), None, None) => {
                let later = self.moment(later, name)?;
                Ok(Ok(Term::new(format!("pg_age({}, {})", Self::midnight().sql, later.sql), Type::Interval)))
            }
            ("age", Some(later), Some(earlier), None) => {
                let (later, earlier) = (self.moment(later, name)?, self.moment(earlier, name)?);
                Ok(Ok(Term::new(format!("pg_age({}, {})", later.sql, earlier.sql), Type::Interval)))
            }
            ("date_trunc", Some(unit), Some(value), zone) if count <= 3 => {
                if let Some(zone) = zone {
                    self.only_utc(&zone)?;
                }
                self.date_trunc(unit, value).map(Ok)
            }
            ("date_part", Some(field), Some(value), None) => match &field.literal {
                Some(field) => self.extract(&field.clone(), value, Type::Float).map(Ok),
                None => Err(QueryError::unsupported("date_part with a field that is not a literal")),
            },
            ("date_bin", Some(stride), Some(value), Some(origin)) if count == 3 => {
                let stride = cast::coerce(stride, &Type::Interval, name)?;
                let (value, origin) = (self.moment(value, name)?, self.moment(origin, name)?);
                let sql = format!("pg_ts_bin({}, {}, {})", stride.sql, value.sql, origin.sql);
                Ok(Ok(Term::new(sql, value.ty)))
            }
            ("to_char", Some(value), Some(pattern), None) => self.formatted(value, pattern).map(Ok),
            ("to_timestamp", Some(value), None, None) if value.ty.is_number() || value.literal.is_some() => {
                let value = cast::coerce(value, &Type::Float, name)?;
                Ok(Ok(Term::new(format!("pg_ts_epoch({})", value.sql), zoned)))
            }
            ("to_timestamp" | "to_date", Some(_), Some(_), None) => {
                Err(QueryError::unsupported(format!("{name} with a pattern")).hint("cast the text instead"))
            }
            ("date", Some(value), None, None) => {
                cast::cast(value, &Target { ty: Type::Date, fit: Fit::Plain, label: "date" }).map(Ok)
            }
            ("make_date", Some(year), Some(month), Some(day)) if count == 3 => {
                let parts = self.whole_parts(name, vec![year, month, day])?;
                Ok(Ok(Term::new(format!("pg_date_make({})", joined(&parts)), Type::Date)))
            }
            ("make_timestamp", Some(year), Some(month), Some(day)) if count == 6 => {
                let mut parts: Vec<Term> = [year, month, day].into_iter().chain(given).collect();
                let seconds = parts.remove(5);
                let seconds = cast::coerce(seconds, &Type::Float, name)?;
                let parts = self.whole_parts(name, parts)?;
                Ok(Ok(Term::new(format!("pg_ts_make({}, {})", joined(&parts), seconds.sql), plain)))
            }
            (_, first, second, third) => Ok(Err([first, second, third].into_iter().flatten().chain(given).collect())),
        }
    }

    fn whole_parts(&mut self, name: &str, parts: Vec<Term>) -> Result<Vec<Term>> {
        parts.into_iter().map(|part| cast::coerce(part, &Type::Int, name)).collect()
    }

    fn date_trunc(&mut self, unit: Term, value: Term) -> Result<Term> {
        if let Some(name) = &unit.literal
            && Unit::parse(name).is_none()
        {
            return Err(QueryError::invalid(format!("unit {name:?} not recognized for date_trunc")));
        }
        let unit = cast::textual(unit, "date_trunc")?;
        if value.ty == Type::Interval {
            return Ok(Term::new(format!("pg_interval_trunc({}, {})", unit.sql, value.sql), Type::Interval));
        }
        let value = self.moment(value, "date_trunc")?;
        let nullable = value.nullable || unit.nullable;
        Ok(Term { nullable, ..Term::new(format!("pg_ts_trunc({}, {})", unit.sql, value.sql), value.ty) })
    }

    fn formatted(&mut self, value: Term, pattern: Term) -> Result<Term> {
        let pattern = cast::textual(pattern, "to_char")?;
        let (function, value) = match &value.ty {
            Type::Interval => ("pg_interval_char", value),
            ty if ty.is_number() => ("pg_to_char_number", value),
            _ => ("pg_ts_char", self.moment(value, "to_char")?),
        };
        Ok(Term::new(format!("{function}({}, {})", value.sql, pattern.sql), Type::Text))
    }
}
