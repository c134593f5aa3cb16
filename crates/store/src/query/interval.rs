//! PostgreSQL intervals as a value: months, days and microseconds, each with its own sign.
//!
//! In a SQLite expression an interval is text that starts with its length, so that `ORDER BY`, `min` and
//! `max` need no function of ours: `10000000000600000000000:0:0:600000000`.

use std::fmt::Write as _;

use super::fields::Unit;

/// Microseconds in a day of 24 hours.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
const MONTH_DAYS: i64 = 30;
/// Added to the length so that its text sorts like the number, negative lengths too.
const KEY_BIAS: i128 = 10_000_000_000_000_000_000_000;

/// A span of time that remembers months and days, because their length depends on where they are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interval {
    pub(super) months: i32,
    pub(super) days: i32,
    pub(super) micros: i64,
}

impl Interval {
    /// Returns the interval of so many microseconds, in days and the rest, as subtracting timestamps does.
    pub(super) fn between(micros: i64) -> Option<Self> {
        Some(Interval { months: 0, days: i32::try_from(micros / DAY_MICROS).ok()?, micros: micros % DAY_MICROS })
    }

    /// Returns the length in microseconds, a month counting 30 days as PostgreSQL compares them.
    pub(super) fn length(self) -> i128 {
        let days = i128::from(self.months) * i128::from(MONTH_DAYS) + i128::from(self.days);
        days * i128::from(DAY_MICROS) + i128::from(self.micros)
    }

    /// Returns the text that stands for the interval inside SQLite.
    pub(super) fn encode(self) -> String {
        format!("{:023}:{}:{}:{}", self.length() + KEY_BIAS, self.months, self.days, self.micros)
    }

    /// Reads what [`Interval::encode`] wrote.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(':').skip(1);
        let interval = Interval {
            months: parts.next()?.parse().ok()?,
            days: parts.next()?.parse().ok()?,
            micros: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(interval)
    }

    /// Returns the sum, or `None` when a field overflows.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        Some(Interval {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// Returns the interval with every sign turned.
    pub(super) fn negated(self) -> Option<Self> {
        Some(Interval {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            micros: self.micros.checked_neg()?,
        })
    }

    /// Multiplies; what is left of a month goes to days, what is left of a day to microseconds.
    pub(super) fn times(self, factor: f64) -> Option<Self> {
        Fractional {
            months: f64::from(self.months) * factor,
            days: f64::from(self.days) * factor,
            micros: micros_as_float(self.micros) * factor,
        }
        .settle()
    }

    /// Returns the length in seconds as `EXTRACT(EPOCH …)` counts it: years of 365.25 days, months of 30.
    pub(super) fn epoch(self) -> f64 {
        let years = f64::from(self.months / 12) * 365.25;
        let days = years + f64::from(self.months % 12) * 30.0 + f64::from(self.days);
        days * 86_400.0 + micros_as_float(self.micros) / 1_000_000.0
    }

    /// Writes the interval as PostgreSQL prints it: `1 year 2 mons 3 days 04:05:06.789`.
    pub(super) fn to_text(self) -> String {
        let mut text = String::new();
        let mut previous_negative = false;
        let fields = [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")];
        for (value, unit) in fields {
            if value == 0 {
                continue;
            }
            let space = if text.is_empty() { "" } else { " " };
            let plus = if previous_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            // Writing into a String can not fail.
            let _ = write!(text, "{space}{plus}{value} {unit}{plural}");
            previous_negative = value < 0;
        }
        if text.is_empty() || self.micros != 0 {
            let space = if text.is_empty() { "" } else { " " };
            let sign = match (self.micros < 0, previous_negative) {
                (true, _) => "-",
                (false, true) => "+",
                (false, false) => "",
            };
            let _ = write!(text, "{space}{sign}{}", clock_text(self.micros.unsigned_abs()));
        }
        text
    }

    /// Reads PostgreSQL's input forms; `unit` is what a bare number counts.
    pub(super) fn parse(text: &str, unit: Unit) -> Option<Self> {
        let text = text.trim();
        if let Some(iso) = text.strip_prefix(['P', 'p']) {
            return parse_iso(iso);
        }
        let spaced = separate(text);
        let mut words = spaced.split_whitespace().filter(|word| *word != "@").peekable();
        let mut sum = Fractional::default();
        let mut negative = false;
        let mut any = false;
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("ago") {
                negative = true;
                if words.peek().is_some() {
                    return None;
                }
                break;
            }
            any = true;
            if word.contains(':') {
                sum.micros += parse_clock(word)?;
                continue;
            }
            if let Some((years, months)) = year_month(word) {
                sum.months += years * 12.0 + months;
                continue;
            }
            let amount: f64 = number(word)?;
            match words.peek() {
                Some(next) if Unit::parse(next).is_some() => {
                    let named = Unit::parse(words.next()?)?;
                    sum.add(named, amount)?;
                }
                // `3 04:05:06` counts days before a clock.
                Some(next) if next.contains(':') => sum.days += amount,
                Some(next) if !next.eq_ignore_ascii_case("ago") => return None,
                Some(_) | None => sum.add(unit, amount)?,
            }
        }
        if !any {
            return None;
        }
        let interval = sum.settle()?;
        if negative { interval.negated() } else { Some(interval) }
    }
}

/// Writes `HH:MM:SS`, with up to six decimals and no trailing zeros.
pub(super) fn clock_text(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

#[derive(Debug, Clone, Copy, Default)]
struct Fractional {
    months: f64,
    days: f64,
    micros: f64,
}

impl Fractional {
    fn add(&mut self, unit: Unit, amount: f64) -> Option<()> {
        match unit {
            Unit::Microsecond => self.micros += amount,
            Unit::Millisecond => self.micros += amount * 1_000.0,
            Unit::Second => self.micros += amount * 1_000_000.0,
            Unit::Minute => self.micros += amount * 60_000_000.0,
            Unit::Hour => self.micros += amount * 3_600_000_000.0,
            Unit::Day => self.days += amount,
            Unit::Week => self.days += amount * 7.0,
            Unit::Month => self.months += amount,
            Unit::Quarter => self.months += amount * 3.0,
            // Years and longer carry whole months only.
            Unit::Year => self.months += (amount * 12.0).round(),
            Unit::Decade => self.months += (amount * 120.0).round(),
            Unit::Century => self.months += (amount * 1_200.0).round(),
            Unit::Millennium => self.months += (amount * 12_000.0).round(),
        }
        Some(())
    }

    fn settle(self) -> Option<Interval> {
        let months = self.months.trunc();
        let days = self.days + tidy((self.months - months) * 30.0);
        let whole_days = days.trunc();
        let micros = self.micros + tidy((days - whole_days) * micros_as_float(DAY_MICROS));
        Some(Interval { months: whole_i32(months)?, days: whole_i32(whole_days)?, micros: whole_i64(micros.round())? })
    }
}

/// Removes the noise that binary fractions leave behind, far below a microsecond.
fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "PostgreSQL multiplies and divides intervals in doubles as well")]
fn micros_as_float(micros: i64) -> f64 {
    micros as f64
}

#[expect(clippy::cast_possible_truncation, reason = "checked against the range just before")]
fn whole_i32(value: f64) -> Option<i32> {
    (value.abs() <= f64::from(i32::MAX)).then_some(value as i32)
}

#[expect(clippy::cast_possible_truncation, reason = "checked against the range just before")]
fn whole_i64(value: f64) -> Option<i64> {
    (value.abs() < 9.2e18).then_some(value as i64)
}

/// Puts a space between a number and the letters that follow it: `10min` is `10 min`.
fn separate(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 4);
    let mut previous = ' ';
    for letter in text.chars() {
        if letter.is_ascii_alphabetic() && (previous.is_ascii_digit() || previous == '.') {
            spaced.push(' ');
        }
        spaced.push(letter);
        previous = letter;
    }
    spaced
}

fn number(word: &str) -> Option<f64> {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    let plain = !digits.is_empty() && digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    if plain { word.parse().ok() } else { None }
}

fn year_month(word: &str) -> Option<(f64, f64)> {
    let (sign, rest) = match word.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let (years, months) = rest.split_once('-')?;
    let years: u32 = years.parse().ok()?;
    let months: u32 = months.parse().ok()?;
    (months < 12).then(|| (sign * f64::from(years), sign * f64::from(months)))
}

fn parse_clock(word: &str) -> Option<f64> {
    let (sign, rest) = match word.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let mut parts = rest.split(':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), number)?;
    if parts.next().is_some() || minutes > 59 || seconds >= 61.0 {
        return None;
    }
    Some(sign * (f64::from(hours) * 3600.0 + f64::from(minutes) * 60.0 + seconds) * 1_000_000.0)
}

/// Reads the rest of `P1Y2M3DT4H5M6S`.
fn parse_iso(text: &str) -> Option<Interval> {
    let mut sum = Fractional::default();
    let mut in_time = false;
    let mut digits = String::new();
    let mut any = false;
    for letter in text.chars() {
        match letter.to_ascii_uppercase() {
            'T' if digits.is_empty() && !in_time => in_time = true,
            '0'..='9' | '.' | '-' | '+' => digits.push(letter),
            designator => {
                let unit = match (designator, in_time) {
                    ('Y', false) => Unit::Year,
                    ('M', false) => Unit::Month,
                    ('W', false) => Unit::Week,
                    ('D', false) => Unit::Day,
                    ('H', true) => Unit::Hour,
                    ('M', true) => Unit::Minute,
                    ('S', true) => Unit::Second,
                    _ => return None,
                };
                sum.add(unit, number(&digits)?)?;
                digits.clear();
                any = true;
            }
        }
    }
    if any && digits.is_empty() { sum.settle() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        Interval::parse(text, Unit::Second).map_or_else(|| "refused".to_owned(), Interval::to_text)
    }

    #[test]
    fn every_input_form_prints_as_postgresql_prints_it() {
        let table = [
            ("10 minutes", "00:10:00"),
            ("10min", "00:10:00"),
            ("1 day 2 hours", "1 day 02:00:00"),
            ("1.5 hours", "01:30:00"),
            ("1.5 days", "1 day 12:00:00"),
            ("2 weeks", "14 days"),
            ("1 year 2 mons 3 days 04:05:06.789", "1 year 2 mons 3 days 04:05:06.789"),
            ("-1 day 2 hours", "-1 days +02:00:00"),
            ("1 month -1 day", "1 mon -1 days"),
            ("3 days ago", "-3 days"),
            ("90", "00:01:30"),
            ("3 04:05:06", "3 days 04:05:06"),
            ("1-2", "1 year 2 mons"),
            ("P1DT2H30M", "1 day 02:30:00"),
            ("25 hours", "25:00:00"),
            ("-00:00:01.5", "-00:00:01.5"),
            ("0 days", "00:00:00"),
            ("1.5 months", "1 mon 15 days"),
            ("250 ms", "00:00:00.25"),
            ("", "refused"),
            ("soon", "refused"),
            ("1 fortnight", "refused"),
            ("10 minutes and", "refused"),
        ];
        for (input, expected) in table {
            assert_eq!(read(input), expected, "{input}");
        }
    }

    #[test]
    fn encoded_intervals_sort_by_length_and_read_back() {
        let rising =
            ["-1 year", "-2 days", "-1 sec", "0", "1 ms", "59 sec", "1 hour", "1 day", "29 days", "1 month", "1 year"];
        let encoded: Vec<String> =
            rising.iter().map(|text| Interval::parse(text, Unit::Second).unwrap().encode()).collect();
        let mut sorted = encoded.clone();
        sorted.sort();
        assert_eq!(encoded, sorted);
        for text in &encoded {
            assert_eq!(&Interval::decode(text).unwrap().encode(), text);
        }
    }

    #[test]
    fn multiplying_carries_fractions_downwards() {
        let half = |text: &str| Interval::parse(text, Unit::Second).unwrap().times(0.5).unwrap().to_text();
        assert_eq!(half("1 month"), "15 days");
        assert_eq!(half("3 days"), "1 day 12:00:00");
        assert_eq!(half("00:00:01"), "00:00:00.5");
    }
}
