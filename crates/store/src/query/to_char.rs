//! `to_char`: moments, intervals and numbers written after a PostgreSQL pattern.

use super::interval::Interval;
use super::moment::Moment;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Patterns that stand for something, longest first where one begins another.
const PATTERNS: &[&str] = &[
    "HH24", "HH12", "HH", "MI", "SSSSS", "SSSS", "SS", "MS", "US", "YYYY", "IYYY", "YYY", "IYY", "YY", "IY", "Y,YYY",
    "MONTH", "Month", "month", "MON", "Mon", "mon", "MM", "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "D",
    "ID", "IW", "WW", "W", "Q", "CC", "A.M.", "a.m.", "P.M.", "p.m.", "AM", "am", "PM", "pm", "TZH", "TZ", "tz", "OF",
    "J", "RM", "Y", "I",
];

/// Patterns that we know to exist and do not write.
const REFUSED: &[&str] = &["Y,YYY", "CC", "J", "RM", "I", "IY", "IYY", "TZH", "OF", "A.M.", "a.m.", "P.M.", "p.m."];

/// The pieces of a pattern.
enum Piece<'p> {
    Field { name: &'p str, fill: bool },
    Literal(&'p str),
}

/// Writes a moment, or names the pattern that can not be written.
pub(super) fn moment(value: Moment, pattern: &str) -> Result<String, String> {
    let date = value.date();
    let time = value.datetime().time();
    let hour12 = if time.hour() % 12 == 0 { 12 } else { time.hour() % 12 };
    let month = MONTHS[usize::from(date.month().unsigned_abs()) - 1];
    let day = DAYS[usize::from(date.weekday().to_sunday_zero_offset().unsigned_abs())];
    let millis = time.subsec_nanosecond() / 1_000_000;
    let seconds = (i32::from(time.hour()) * 60 + i32::from(time.minute())) * 60 + i32::from(time.second());
    write(pattern, |name| {
        let number = |value: i32, width: usize| Some(Written::Number(value, width));
        match name {
            "HH24" => number(i32::from(time.hour()), 2),
            "HH12" | "HH" => number(i32::from(hour12), 2),
            "MI" => number(i32::from(time.minute()), 2),
            "SS" => number(i32::from(time.second()), 2),
            "SSSS" | "SSSSS" => Some(Written::Text(seconds.to_string())),
            "MS" => number(millis, 3),
            "US" => number(millis * 1_000, 6),
            "YYYY" => number(i32::from(date.year()), 4),
            "YYY" => number(i32::from(date.year()) % 1_000, 3),
            "YY" => number(i32::from(date.year()) % 100, 2),
            "Y" => number(i32::from(date.year()) % 10, 1),
            "IYYY" => number(i32::from(date.iso_week_date().year()), 4),
            "MM" => number(i32::from(date.month()), 2),
            "DD" => number(i32::from(date.day()), 2),
            "DDD" => number(i32::from(date.day_of_year()), 3),
            "D" => number(i32::from(date.weekday().to_sunday_one_offset()), 1),
            "ID" => number(i32::from(date.weekday().to_monday_one_offset()), 1),
            "IW" => number(i32::from(date.iso_week_date().week()), 2),
            "WW" => number((i32::from(date.day_of_year()) - 1) / 7 + 1, 2),
            "W" => number((i32::from(date.day()) - 1) / 7 + 1, 1),
            "Q" => number((i32::from(date.month()) - 1) / 3 + 1, 1),
            "MONTH" => Some(Written::Padded(month.to_uppercase())),
            "Month" => Some(Written::Padded(month.to_owned())),
            "month" => Some(Written::Padded(month.to_lowercase())),
            "MON" => Some(Written::Text(month[..3].to_uppercase())),
            "Mon" => Some(Written::Text(month[..3].to_owned())),
            "mon" => Some(Written::Text(month[..3].to_lowercase())),
            "DAY" => Some(Written::Padded(day.to_uppercase())),
            "Day" => Some(Written::Padded(day.to_owned())),
            "day" => Some(Written::Padded(day.to_lowercase())),
            "DY" => Some(Written::Text(day[..3].to_uppercase())),
            "Dy" => Some(Written::Text(day[..3].to_owned())),
            "dy" => Some(Written::Text(day[..3].to_lowercase())),
            "AM" | "PM" => Some(Written::Text(if time.hour() < 12 { "AM" } else { "PM" }.to_owned())),
            "am" | "pm" => Some(Written::Text(if time.hour() < 12 { "am" } else { "pm" }.to_owned())),
            "TZ" => Some(Written::Text("UTC".to_owned())),
            "tz" => Some(Written::Text("utc".to_owned())),
            _ => None,
        }
    })
}

/// Writes an interval; hours run past 24 where the interval counts no days.
pub(super) fn interval(value: Interval, pattern: &str) -> Result<String, String> {
    let field = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    let hours = value.micros / 3_600_000_000;
    let hour12 = if hours % 12 == 0 { 12 } else { hours % 12 };
    write(pattern, |name| {
        let number = |value: i32, width: usize| Some(Written::Number(value, width));
        match name {
            "HH24" => number(field(hours), 2),
            "HH12" | "HH" => number(field(hour12), 2),
            "MI" => number(field(value.micros / 60_000_000 % 60), 2),
            "SS" => number(field(value.micros / 1_000_000 % 60), 2),
            "MS" => number(field(value.micros / 1_000 % 1_000), 3),
            "US" => number(field(value.micros % 1_000_000), 6),
            "DD" => number(value.days, 2),
            "MM" => number(value.months % 12, 2),
            "YYYY" => number(value.months / 12, 4),
            _ => None,
        }
    })
}

enum Written {
    /// A number with leading zeros, which `FM` drops.
    Number(i32, usize),
    /// A name padded to nine places, which `FM` drops.
    Padded(String),
    Text(String),
}

fn write(pattern: &str, field: impl Fn(&str) -> Option<Written>) -> Result<String, String> {
    let mut text = String::new();
    for piece in pieces(pattern) {
        let (name, fill) = match piece {
            Piece::Literal(literal) => {
                text.push_str(literal);
                continue;
            }
            Piece::Field { name, fill } => (name, fill),
        };
        let written = if REFUSED.contains(&name) { None } else { field(name) };
        match written {
            None => return Err(format!("to_char pattern {name} is not supported here")),
            Some(Written::Number(value, width)) if fill => text.push_str(&format!("{value:0width$}")),
            Some(Written::Number(value, _)) => text.push_str(&value.to_string()),
            Some(Written::Padded(name)) if fill => text.push_str(&format!("{name:<9}")),
            Some(Written::Padded(name) | Written::Text(name)) => text.push_str(&name),
        }
    }
    Ok(text)
}

fn pieces(pattern: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    let mut fill = true;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("FM") {
            (rest, fill) = (after, false);
            continue;
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let (literal, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            pieces.push(Piece::Literal(literal));
            rest = after;
            continue;
        }
        // Numbers may be written in either case (`yyyy`); names say by their case how they are printed.
        let exact = PATTERNS.iter().find(|name| rest.starts_with(**name));
        let found = exact.or_else(|| {
            PATTERNS.iter().find(|name| {
                let upper = name.bytes().all(|byte| !byte.is_ascii_lowercase());
                upper && rest.get(..name.len()).is_some_and(|start| start == name.to_ascii_lowercase())
            })
        });
        match found {
            Some(name) => {
                pieces.push(Piece::Field { name, fill });
                rest = &rest[name.len()..];
                fill = true;
            }
            None => {
                let width = rest.chars().next().map_or(1, char::len_utf8);
                pieces.push(Piece::Literal(&rest[..width]));
                rest = &rest[width..];
            }
        }
    }
    pieces
}

/// Writes a number after a pattern of `9`, `0`, `,`, `.`, `G`, `D` and `FM`.
pub(super) fn number(value: f64, pattern: &str) -> Result<String, String> {
    let (fill, digits) = match pattern.strip_prefix("FM") {
        Some(rest) => (false, rest),
        None => (true, pattern),
    };
    if let Some(other) = digits.chars().find(|letter| !matches!(letter, '9' | '0' | ',' | '.' | 'G' | 'D')) {
        return Err(format!("to_char pattern {other} is not supported for numbers here"));
    }
    let (whole, fraction) = digits.split_once(['.', 'D']).map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let places = fraction.map_or(0, str::len);
    let rounded = format!("{:.places$}", value.abs());
    let (mut left, right) = rounded.split_once('.').map_or((rounded.as_str(), ""), |(left, right)| (left, right));
    let slots = whole.chars().filter(|letter| matches!(letter, '9' | '0')).count();
    if left == "0" && !whole.contains('0') && fraction.is_some() {
        left = "";
    }
    let overflow = left.len() > slots;
    let first_zero = whole.find('0').unwrap_or(whole.len());
    let mut remaining = left.chars().rev();
    let mut reversed = String::new();
    for (at, letter) in whole.char_indices().rev() {
        let more = remaining.clone().next();
        match letter {
            '9' | '0' if overflow => reversed.push('#'),
            '9' | '0' => match (remaining.next(), at >= first_zero) {
                (Some(digit), _) => reversed.push(digit),
                (None, true) => reversed.push('0'),
                (None, false) => reversed.push(' '),
            },
            _ => reversed.push(if more.is_some() || at > first_zero || overflow { ',' } else { ' ' }),
        }
    }
    let integer: String = reversed.chars().rev().collect();
    let blanks = integer.len() - integer.trim_start().len();
    let sign = if value < 0.0 && rounded.chars().any(|digit| matches!(digit, '1'..='9')) { "-" } else { "" };
    let mut text = if fill {
        format!("{}{}{}", " ".repeat(blanks), if sign.is_empty() { " " } else { sign }, integer.trim_start())
    } else {
        format!("{sign}{}", integer.trim_start())
    };
    if let Some(shape) = fraction {
        text.push('.');
        let kept = if fill {
            places
        } else {
            // `FM` drops trailing zeros down to the last `0` of the pattern.
            right.trim_end_matches('0').len().max(shape.rfind('0').map_or(0, |at| at + 1))
        };
        text.push_str(&if overflow { "#".repeat(places) } else { right[..kept].to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::fields::Unit;

    #[test]
    fn moments_follow_the_common_patterns() {
        let at = Moment::parse("2026-01-05 14:08:09.123").unwrap();
        let table = [
            ("YYYY-MM-DD HH24:MI:SS", "2026-01-05 14:08:09"),
            ("yyyy-mm-dd\"T\"hh24:mi:ss.ms", "2026-01-05T14:08:09.123"),
            ("Mon DD, YYYY", "Jan 05, 2026"),
            ("FMDay, FMDD FMMonth", "Monday, 5 January"),
            ("Day|", "Monday   |"),
            ("HH12:MI am", "02:08 pm"),
            ("IYYY-IW D Q DDD", "2026-02 2 1 005"),
        ];
        for (pattern, expected) in table {
            assert_eq!(moment(at, pattern).as_deref(), Ok(expected), "{pattern}");
        }
        assert!(moment(at, "J").is_err());
    }

    #[test]
    fn intervals_and_numbers_follow_theirs() {
        let value = Interval::parse("1 day 26:05:06", Unit::Second).unwrap();
        assert_eq!(interval(value, "HH24:MI:SS").as_deref(), Ok("26:05:06"));
        let table = [
            (1234.5, "9,999.99", " 1,234.50"),
            (12.0, "999", "  12"),
            (12.0, "000", " 012"),
            (-12.0, "999", " -12"),
            (0.5, "FM990.00", "0.50"),
            (1234567.891, "FM999,999,999.99", "1,234,567.89"),
            (12.0, "9,999", "    12"),
            (12345.0, "999", " ###"),
            (5.0, "FM999.99", "5."),
        ];
        for (value, pattern, expected) in table {
            assert_eq!(number(value, pattern).as_deref(), Ok(expected), "{value} {pattern}");
        }
        assert!(number(1.0, "S999").is_err());
    }
}
