//! Time as a value. Nothing here knows what time it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the moment `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Returns the milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub fn since_ms(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Returns the moment written as `2026-01-20T09:08:00.123Z`, which every table and answer uses.
    ///
    /// A moment beyond the calendar (a wait of ages) is written as the calendar's end.
    pub fn to_iso(self) -> String {
        if !BY_HAND_MS.contains(&self.0) {
            let (first, last) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
            let ms = self.0.clamp(first.as_millisecond(), last.as_millisecond());
            return format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(last));
        }
        // By hand, because every event and command is stamped, several times a step.
        let (year, month, day) = civil(self.0 / DAY_MS);
        let of_day = self.0 % DAY_MS;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut write = |from: usize, until: usize, mut number: i64| {
            for place in (from..until).rev() {
                // A remainder of ten is one digit.
                text[place] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        write(0, 4, year);
        write(5, 7, month);
        write(8, 10, day);
        write(11, 13, of_day / 3_600_000);
        write(14, 16, of_day / 60_000 % 60);
        write(17, 19, of_day / 1_000 % 60);
        write(20, 23, of_day % 1_000);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads what [`Timestamp::to_iso`] wrote, or any RFC 3339 time.
    pub fn from_iso(text: &str) -> Option<Self> {
        // By hand what stands in every row; the rest, and every mistake, is the calendar's.
        let by_hand = || by_hand(text.as_bytes().try_into().ok()?);
        by_hand().or_else(|| text.parse::<jiff::Timestamp>().ok().map(|moment| Timestamp(moment.as_millisecond())))
    }
}

/// Reads a time of the form that [`Timestamp::to_iso`] writes; `None` when it has another one.
fn by_hand(text: &[u8; 24]) -> Option<Timestamp> {
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if marks.iter().any(|&(at, mark)| text[at] != mark) {
        return None;
    }
    let number = |from: usize, until: usize| {
        text[from..until]
            .iter()
            .try_fold(0_i64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = days(year, month, day);
    // A month or a day that there is not has another name; a leap second is left to the calendar.
    if !(1..=12).contains(&month) || civil(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let at = Timestamp(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + number(20, 23)?);
    BY_HAND_MS.contains(&at.0).then_some(at)
}

/// Returns how many days after 1970-01-01 a day is: [`civil`] the other way round.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;
/// From 1970 to the end of 9998: years of four digits, and no remainder is negative.
const BY_HAND_MS: std::ops::Range<i64> = 0..253_370_764_800_000;

/// Returns year, month and day of the day that is `days` after 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the day that some years have more is their last one.
fn civil(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01, in eras of 400 years, which are all of the same length.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months of 31, 30, 31, 30, 31 days, twice, and then what is left.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_iso())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_text_keeps_milliseconds_and_reads_back() {
        for ms in [0, 1, 1_704_067_200_000, 1_768_900_080_123] {
            let text = Timestamp(ms).to_iso();
            assert_eq!(text.len(), "2026-01-20T09:08:00.123Z".len(), "{text}");
            assert_eq!(Timestamp::from_iso(&text), Some(Timestamp(ms)));
        }
    }

    #[test]
    fn days_are_named_as_the_calendar_names_them() {
        let by_calendar = |ms| format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap());
        let (first, last) = (jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_second() * 1_000);
        let (from, until) = (BY_HAND_MS.start, BY_HAND_MS.end);
        let edges = [first, last, from - 1, from, until - 1, until, 951_782_399_999, 951_782_400_000];
        // About eleven days and a bit: every month and every kind of year comes by.
        for ms in (first..last).step_by(950_000_087).chain(edges) {
            assert_eq!(Timestamp(ms).to_iso(), by_calendar(ms));
            assert_eq!(Timestamp::from_iso(&by_calendar(ms)), Some(Timestamp(ms)));
        }
    }

    #[test]
    fn a_time_is_read_as_the_calendar_reads_it() {
        let by_calendar = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()));
        for text in [
            "2026-01-20T09:08:00.123Z",
            "2024-02-29T23:59:59.999Z",
            "2023-02-29T00:00:00.000Z",
            "2026-00-10T00:00:00.000Z",
            "2026-13-10T00:00:00.000Z",
            "2026-04-31T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
            "2026-01-20T24:00:00.000Z",
            "2026-01-20T09:60:00.000Z",
            "2016-12-31T23:59:60.000Z",
            "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00.000Z",
            "9999-12-31T00:00:00.000Z",
            "2026-01-20T09:08:00.12+Z",
            "2026-01-20t09:08:00.123z",
            "2026-01-20 09:08:00.123Z",
            "2026-01-20T09:08:00+01:00",
            "2026-01-20T09:08:00Z",
            "2026-01-20",
            "",
        ] {
            assert_eq!(Timestamp::from_iso(text), by_calendar(text), "{text}");
        }
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_its_end() {
        let end = Timestamp(i64::MAX).to_iso();
        assert_eq!(end, "9999-12-30T22:00:00.999Z");
        assert!(Timestamp::from_iso(&end).is_some());
        assert!(Timestamp::from_iso(&Timestamp(i64::MIN).to_iso()).is_some());
    }
}
