//! Moments and dates as SQL sees them: reading, writing, calendar arithmetic, `EXTRACT`, `date_trunc`, `age`.
//!
//! A moment is milliseconds since 1970 in UTC and stands in SQLite as `2026-01-20T09:08:00.123Z`, so that
//! comparing the texts compares the times. There is one time zone here, UTC.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan, Unit as JiffUnit};
use noetl_core::time::Timestamp;

use super::fields::{Field, Unit};
use super::interval::{DAY_MICROS, Interval};

/// A moment on the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(DateTime);

impl Moment {
    /// Returns the moment of a timestamp, or `None` outside the years that a calendar can hold.
    pub(super) fn at(timestamp: Timestamp) -> Option<Self> {
        let moment = jiff::Timestamp::from_millisecond(timestamp.0).ok()?;
        Some(Moment(TimeZone::UTC.to_datetime(moment)))
    }

    /// Returns the first moment of a day.
    pub(super) fn midnight(date: Date) -> Self {
        Moment(date.to_datetime(Time::midnight()))
    }

    /// Reads a date, or a date and a time, with `T` or a space between and an optional offset.
    ///
    /// An offset is honoured whatever the type of the column; PostgreSQL ignores it for `timestamp`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("epoch") {
            return Moment::at(Timestamp(0));
        }
        let plain = text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).unwrap_or(text).trim_end();
        if let Ok(moment) = plain.replacen(" +", "+", 1).parse::<jiff::Timestamp>() {
            return Some(Moment(TimeZone::UTC.to_datetime(moment)).cut());
        }
        plain.parse::<DateTime>().ok().map(|moment| Moment(moment).cut())
    }

    /// Reads a moment in relation to now (`now`, `today`, `tomorrow`, `yesterday`) or by itself.
    pub(super) fn parse_relative(text: &str, now: Moment) -> Option<Self> {
        let today = Moment::midnight(now.date());
        match text.trim().to_ascii_lowercase().as_str() {
            "now" => Some(now),
            "today" => Some(today),
            "tomorrow" => Some(Moment::midnight(now.date().tomorrow().ok()?)),
            "yesterday" => Some(Moment::midnight(now.date().yesterday().ok()?)),
            _ => Moment::parse(text),
        }
    }

    /// Returns milliseconds since 1970.
    pub(super) fn timestamp(self) -> Option<Timestamp> {
        TimeZone::UTC.to_timestamp(self.0).ok().map(|moment| Timestamp(moment.as_millisecond()))
    }

    /// Writes the form that the tables hold.
    pub(super) fn to_iso(self) -> String {
        format!("{:.3}Z", self.0)
    }

    /// Writes the form that PostgreSQL prints: `2026-01-20 09:08:00.123`, with `+00` for `timestamptz`.
    pub(super) fn to_postgres(self, with_zone: bool) -> String {
        let date = self.0.date();
        let time = self.0.time();
        let mut text = format!("{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
        if time.subsec_nanosecond() != 0 {
            let digits = format!("{:09}", time.subsec_nanosecond());
            text.push('.');
            text.push_str(digits.trim_end_matches('0'));
        }
        if with_zone {
            text.push_str("+00");
        }
        text
    }

    pub(super) fn date(self) -> Date {
        self.0.date()
    }

    pub(super) fn datetime(self) -> DateTime {
        self.0
    }

    /// Adds an interval: months first (31 January plus a month is the last of February), then days, then time.
    pub(super) fn plus(self, interval: Interval) -> Option<Self> {
        let span = Span::new().try_months(interval.months).ok()?.try_days(interval.days).ok()?;
        let moved = self.0.checked_add(span).ok()?;
        moved.checked_add(Span::new().try_microseconds(interval.micros).ok()?).ok().map(|moment| Moment(moment).cut())
    }

    /// Returns the days and time from `earlier` to here, as subtracting timestamps does.
    pub(super) fn minus(self, earlier: Moment) -> Option<Interval> {
        let span = self.0.since((JiffUnit::Microsecond, earlier.0)).ok()?;
        Interval::between(span.get_microseconds())
    }

    /// Returns the years, months, days and time from `earlier` to here.
    pub(super) fn age(self, earlier: Moment) -> Option<Interval> {
        if self < earlier {
            return earlier.age(self)?.negated();
        }
        // PostgreSQL borrows the days of the earlier month, which is what counting from there does.
        let mut months = (i32::from(self.0.year()) - i32::from(earlier.0.year())) * 12 + i32::from(self.0.month())
            - i32::from(earlier.0.month());
        let mut days = i32::from(self.0.day()) - i32::from(earlier.0.day());
        let mut micros = clock_micros(self.0.time()) - clock_micros(earlier.0.time());
        if micros < 0 {
            micros += DAY_MICROS;
            days -= 1;
        }
        if days < 0 {
            days += i32::from(earlier.0.date().days_in_month());
            months -= 1;
        }
        Some(Interval { months, days, micros })
    }

    /// Cuts at a unit: `date_trunc`.
    pub(super) fn truncated(self, unit: Unit) -> Option<Self> {
        let date = self.0.date();
        let time = self.0.time();
        let midnight = |date: Option<Date>| date.map(Moment::midnight);
        let first = |year: i16, month: i8| Date::new(year, month, 1).ok();
        let clock =
            |hour, minute, second| Time::new(hour, minute, second, 0).ok().map(|time| Moment(date.to_datetime(time)));
        match unit {
            // Moments have milliseconds; there is nothing finer to cut off.
            Unit::Microsecond | Unit::Millisecond => Some(self),
            Unit::Second => clock(time.hour(), time.minute(), time.second()),
            Unit::Minute => clock(time.hour(), time.minute(), 0),
            Unit::Hour => clock(time.hour(), 0, 0),
            Unit::Day => Some(Moment::midnight(date)),
            Unit::Week => {
                let back = i64::from(date.weekday().to_monday_zero_offset());
                midnight(date.checked_sub(back.days()).ok())
            }
            Unit::Month => midnight(first(date.year(), date.month())),
            Unit::Quarter => midnight(first(date.year(), (date.month() - 1) / 3 * 3 + 1)),
            Unit::Year => midnight(first(date.year(), 1)),
            Unit::Decade => midnight(first(date.year().div_euclid(10) * 10, 1)),
            Unit::Century => midnight(first((date.year() - 1).div_euclid(100) * 100 + 1, 1)),
            Unit::Millennium => midnight(first((date.year() - 1).div_euclid(1000) * 1000 + 1, 1)),
        }
    }

    /// Reads a field: `EXTRACT`.
    pub(super) fn extract(self, field: Field) -> Option<Number> {
        let date = self.0.date();
        let time = self.0.time();
        let year = i64::from(date.year());
        let seconds = f64::from(time.second()) + f64::from(time.subsec_nanosecond()) / 1e9;
        Some(match field {
            Field::Epoch => Number::Real(millis_as_float(self.timestamp()?.0) / 1000.0),
            Field::DayOfWeek => Number::Whole(i64::from(date.weekday().to_sunday_zero_offset())),
            Field::IsoDayOfWeek => Number::Whole(i64::from(date.weekday().to_monday_one_offset())),
            Field::DayOfYear => Number::Whole(i64::from(date.day_of_year())),
            Field::IsoYear => Number::Whole(i64::from(date.iso_week_date().year())),
            Field::Timezone => Number::Whole(0),
            Field::Unit(unit) => match unit {
                Unit::Microsecond => Number::Whole(clock_micros(time) % 60_000_000),
                Unit::Millisecond => Number::Real(seconds * 1000.0),
                Unit::Second => Number::Real(seconds),
                Unit::Minute => Number::Whole(i64::from(time.minute())),
                Unit::Hour => Number::Whole(i64::from(time.hour())),
                Unit::Day => Number::Whole(i64::from(date.day())),
                Unit::Week => Number::Whole(i64::from(date.iso_week_date().week())),
                Unit::Month => Number::Whole(i64::from(date.month())),
                Unit::Quarter => Number::Whole(i64::from((date.month() - 1) / 3 + 1)),
                Unit::Year => Number::Whole(year),
                Unit::Decade => Number::Whole(year.div_euclid(10)),
                Unit::Century => Number::Whole((year - 1).div_euclid(100) + 1),
                Unit::Millennium => Number::Whole((year - 1).div_euclid(1000) + 1),
            },
        })
    }

    fn cut(self) -> Self {
        let time = self.0.time();
        let nanos = time.subsec_nanosecond() / 1_000_000 * 1_000_000;
        match Time::new(time.hour(), time.minute(), time.second(), nanos) {
            Ok(time) => Moment(self.0.date().to_datetime(time)),
            Err(_) => self,
        }
    }
}

/// A number that is whole where PostgreSQL prints it whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Real(f64),
}

/// Reads a field of an interval.
pub(super) fn extract_interval(interval: Interval, field: Field) -> Option<Number> {
    let micros = interval.micros;
    let seconds = micros % 60_000_000;
    let years = i64::from(interval.months / 12);
    Some(match field {
        Field::Epoch => Number::Real(interval.epoch()),
        Field::Unit(unit) => match unit {
            Unit::Microsecond => Number::Whole(seconds),
            Unit::Millisecond => Number::Real(millis_as_float(seconds) / 1e3),
            Unit::Second => Number::Real(millis_as_float(seconds) / 1e6),
            Unit::Minute => Number::Whole(micros / 60_000_000 % 60),
            Unit::Hour => Number::Whole(micros / 3_600_000_000),
            Unit::Day => Number::Whole(i64::from(interval.days)),
            Unit::Month => Number::Whole(i64::from(interval.months % 12)),
            Unit::Quarter => Number::Whole(i64::from(interval.months % 12 / 3 + 1)),
            Unit::Year => Number::Whole(years),
            Unit::Decade => Number::Whole(years / 10),
            Unit::Century => Number::Whole(years / 100),
            Unit::Millennium => Number::Whole(years / 1000),
            Unit::Week => return None,
        },
        Field::DayOfWeek | Field::IsoDayOfWeek | Field::DayOfYear | Field::IsoYear | Field::Timezone => return None,
    })
}

/// Cuts an interval at a unit.
pub(super) fn truncate_interval(interval: Interval, unit: Unit) -> Option<Interval> {
    let cut = |step: i64| interval.micros / step * step;
    let months = |step: i32| Interval { months: interval.months / step * step, days: 0, micros: 0 };
    Some(match unit {
        Unit::Microsecond => interval,
        Unit::Millisecond => Interval { micros: cut(1_000), ..interval },
        Unit::Second => Interval { micros: cut(1_000_000), ..interval },
        Unit::Minute => Interval { micros: cut(60_000_000), ..interval },
        Unit::Hour => Interval { micros: cut(3_600_000_000), ..interval },
        Unit::Day => Interval { micros: 0, ..interval },
        Unit::Month => months(1),
        Unit::Quarter => months(3),
        Unit::Year => months(12),
        Unit::Decade => months(120),
        Unit::Century => months(1_200),
        Unit::Millennium => months(12_000),
        // A week is no whole part of a month; PostgreSQL refuses it as well.
        Unit::Week => return None,
    })
}

/// Reads a date, dropping a time that follows it.
pub(super) fn parse_date(text: &str) -> Option<Date> {
    Moment::parse(text).map(Moment::date)
}

fn clock_micros(time: Time) -> i64 {
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1_000
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any year on the calendar stay below 2^53")]
fn millis_as_float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_of_a_moment_become_one_text() {
        let table = [
            ("2026-01-20 09:00", "2026-01-20T09:00:00.000Z"),
            ("2026-01-20", "2026-01-20T00:00:00.000Z"),
            ("2026-01-20T09:08:00.1239Z", "2026-01-20T09:08:00.123Z"),
            ("2026-01-20 09:08:00.5", "2026-01-20T09:08:00.500Z"),
            ("2026-01-20 11:00:00+02", "2026-01-20T09:00:00.000Z"),
            ("2026-01-20 11:00:00 +02:00", "2026-01-20T09:00:00.000Z"),
            ("2026-01-20 09:00:00 UTC", "2026-01-20T09:00:00.000Z"),
            ("epoch", "1970-01-01T00:00:00.000Z"),
        ];
        for (input, expected) in table {
            assert_eq!(Moment::parse(input).map(Moment::to_iso).as_deref(), Some(expected), "{input}");
        }
        for bad in ["", "yesterday-ish", "2026-13-01", "2026-02-30", "12"] {
            assert!(Moment::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn adding_a_month_stays_in_the_month() {
        let end = Moment::parse("2026-01-31 10:00").unwrap();
        let month = Interval { months: 1, ..Interval::default() };
        assert_eq!(end.plus(month).unwrap().to_iso(), "2026-02-28T10:00:00.000Z");
    }

    #[test]
    fn age_counts_on_the_calendar() {
        let age = |later: &str, earlier: &str| {
            Moment::parse(later).unwrap().age(Moment::parse(earlier).unwrap()).unwrap().to_text()
        };
        assert_eq!(age("2026-03-01", "2025-01-31"), "1 year 1 mon 1 day");
        assert_eq!(age("2026-01-20 09:00", "2026-01-19 10:00"), "23:00:00");
        assert_eq!(age("2026-01-19 10:00", "2026-01-20 09:00"), "-23:00:00");
    }
}
