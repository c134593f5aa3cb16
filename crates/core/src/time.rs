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
        let (first, last) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
        let ms = self.0.clamp(first.as_millisecond(), last.as_millisecond());
        format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(last))
    }

    /// Reads what [`Timestamp::to_iso`] wrote, or any RFC 3339 time.
    pub fn from_iso(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Timestamp(moment.as_millisecond()))
    }
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
    fn a_moment_beyond_the_calendar_is_its_end() {
        let end = Timestamp(i64::MAX).to_iso();
        assert_eq!(end, "9999-12-30T22:00:00.999Z");
        assert!(Timestamp::from_iso(&end).is_some());
        assert!(Timestamp::from_iso(&Timestamp(i64::MIN).to_iso()).is_some());
    }
}
