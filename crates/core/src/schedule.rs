//! Schedules: when the clock starts an execution. Pure; time zones are handed in.
//!
//! A schedule waits for one tick at a time. The append that starts the run for it moves the schedule on to the next
//! one, so however many servers find it due, each tick starts once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
pub use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{ExecutionId, ScheduleId};
use crate::time::Timestamp;

/// A tick later than this is a missed one, in milliseconds: no server was there, or none came to it.
pub const MISSED_AFTER_MS: u64 = 60_000;
/// Shortest interval of a schedule, in seconds.
pub const INTERVAL_S_MIN: u64 = 1;
/// Longest interval, in seconds: a year.
pub const INTERVAL_S_MAX: u64 = 366 * 86_400;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A row of the table `schedule`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Which.
    pub schedule_id: ScheduleId,
    /// How people call it; no two have the same.
    pub name: Arc<str>,
    /// The playbook that it starts.
    pub path: Arc<str>,
    /// Its version; `None` = the newest at each tick.
    pub version: Option<i64>,
    /// The payload of each run.
    pub payload: Map<String, Value>,
    /// When.
    pub rhythm: Rhythm,
    /// Name of the time zone that a cron pattern is read in.
    pub timezone: Arc<str>,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// What becomes of a tick while the run of an earlier one goes on.
    pub overlap: Overlap,
    /// It is not paused.
    pub enabled: bool,
    /// The tick that it waits for; `None` = there is none any more.
    pub next_run_at: Option<Timestamp>,
    /// The last tick that was dealt with.
    pub last_run_at: Option<Timestamp>,
    /// The execution started last.
    pub last_execution_id: Option<ExecutionId>,
    /// What became of the last tick: `started`, `skipped: …`, `failed: …`.
    pub last_status: Option<String>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last, by a tick too.
    pub updated_at: Timestamp,
}

/// When a schedule ticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rhythm {
    /// By the calendar of its time zone: minute, hour, day of month, month, day of week.
    Cron(String),
    /// Every so many seconds.
    Every(u64),
}

/// What becomes of ticks that no server was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One run for all of them.
    Once,
    /// None.
    Skip,
    /// A run for each. Unless runs may overlap, one waits for the end of the run before: missed ticks neither skip nor
    /// displace each other.
    All,
}

/// What becomes of a tick while the run that the schedule started last goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// The tick starts nothing.
    Skip,
    /// The earlier run is cancelled, with its descendants; the new one starts.
    Cancel,
}

/// Why something can not be a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// The pattern is none.
    #[error("`{pattern}` is no cron pattern ({why}): five fields are expected, as in `30 2 * * MON-FRI`")]
    Cron {
        /// What was written.
        pattern: String,
        /// What the parser says.
        why: String,
    },
    /// It never ticks.
    #[error("`{0}` never comes")]
    Never(String),
    /// Too often, or too seldom.
    #[error("an interval is {INTERVAL_S_MIN} to {INTERVAL_S_MAX} seconds, got {0}")]
    Interval(u64),
    /// Not a word of this kind.
    #[error("`{word}` is not known here: write one of {known}")]
    Word {
        /// What was written.
        word: String,
        /// What can be.
        known: &'static str,
    },
}

/// A schedule moves on: from the tick that it waits for to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Which.
    pub schedule_id: ScheduleId,
    /// The tick that it waits for. It has been dealt with already when it waits for another one.
    pub at: Timestamp,
    /// What it waits for afterwards.
    pub next: Option<Timestamp>,
}

/// What a tick that has come means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Start a run; `cancel` the one before first.
    Start {
        /// The run that still goes on.
        cancel: Option<ExecutionId>,
    },
    /// It was missed, and missed ones are skipped.
    SkipMissed,
    /// The run before goes on, and this one is skipped.
    SkipOverlap(ExecutionId),
    /// The run before goes on, and this one comes after it: it was missed, and each missed tick has its run.
    Wait,
}

impl Rhythm {
    /// Checks what a person wrote.
    pub fn check(&self) -> Result<(), BadSchedule> {
        match self {
            Rhythm::Cron(pattern) => parse(pattern).map(drop),
            Rhythm::Every(seconds) if (INTERVAL_S_MIN..=INTERVAL_S_MAX).contains(seconds) => Ok(()),
            Rhythm::Every(seconds) => Err(BadSchedule::Interval(*seconds)),
        }
    }

    /// Returns the first tick after `after`, for a schedule that began at `began`. `None`: there is none.
    ///
    /// A wall-clock time that the zone leaves out in spring ticks when the clocks have gone forward; one that it
    /// repeats in autumn ticks once.
    pub fn next(&self, zone: &TimeZone, began: Timestamp, after: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
        match self {
            Rhythm::Cron(pattern) => {
                let cron = parse(pattern)?;
                let Ok(moment) = jiff::Timestamp::from_millisecond(after.0) else { return Ok(None) };
                let next = cron.find_next_occurrence(&moment.to_zoned(zone.clone()), false);
                Ok(next.ok().map(|next| Timestamp(next.timestamp().as_millisecond())))
            }
            Rhythm::Every(seconds) => {
                self.check()?;
                let ms = seconds * 1_000;
                // Counted from the beginning, so that a late tick does not make the next one late.
                let passed = after.since_ms(began) / ms;
                Ok(Some(began.plus_ms(passed.saturating_add(1).saturating_mul(ms))))
            }
        }
    }
}

fn parse(pattern: &str) -> Result<Cron, BadSchedule> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser
        .parse(pattern.trim())
        .map_err(|error| BadSchedule::Cron { pattern: pattern.to_owned(), why: error.to_string() })
}

impl Schedule {
    /// Returns what it waits for after the tick at `at`, when it is `now`.
    pub fn following(&self, zone: &TimeZone, at: Timestamp, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
        let after = match self.missed {
            Missed::All => at,
            Missed::Once | Missed::Skip => at.max(now),
        };
        self.rhythm.next(zone, self.created_at, after)
    }

    /// Says what the tick at `at` means `now`; `running`: the run started last goes on.
    pub fn due(&self, at: Timestamp, now: Timestamp, running: bool) -> Due {
        let missed = now.since_ms(at) > MISSED_AFTER_MS;
        let before = self.last_execution_id.filter(|_| running);
        match (self.missed, self.overlap, before) {
            (Missed::Skip, _, _) if missed => Due::SkipMissed,
            (Missed::All, Overlap::Skip | Overlap::Cancel, Some(_)) if missed => Due::Wait,
            (_, Overlap::Skip, Some(before)) => Due::SkipOverlap(before),
            (_, Overlap::Cancel, before) => Due::Start { cancel: before },
            (_, Overlap::Allow, _) | (_, Overlap::Skip, None) => Due::Start { cancel: None },
        }
    }
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ }) => {
        impl $name {
            /// Returns the word in every table and answer.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = BadSchedule;

            fn from_str(word: &str) -> Result<Self, BadSchedule> {
                match word {
                    $($word => Ok($name::$variant),)+
                    word => Err(BadSchedule::Word { word: word.to_owned(), known: concat!($($word, " ",)+) }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(Missed { Once = "once", Skip = "skip", All = "all" });
words!(Overlap { Allow = "allow", Skip = "skip", Cancel = "cancel" });

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    fn at(iso: &str) -> Timestamp {
        Timestamp::from_iso(iso).unwrap()
    }

    fn schedule(missed: Missed, overlap: Overlap) -> Schedule {
        Schedule {
            schedule_id: ScheduleId(1),
            name: "nightly".into(),
            path: "demo/a".into(),
            version: None,
            payload: Map::new(),
            rhythm: Rhythm::Cron("0 * * * *".into()),
            timezone: "UTC".into(),
            missed,
            overlap,
            enabled: true,
            next_run_at: Some(at("2026-01-20T10:00:00Z")),
            last_run_at: None,
            last_execution_id: Some(ExecutionId(7)),
            last_status: None,
            created_by: None,
            created_at: at("2026-01-20T09:00:00Z"),
            updated_at: at("2026-01-20T09:00:00Z"),
        }
    }

    #[test]
    fn a_pattern_is_read_in_its_zone() {
        let rhythm = Rhythm::Cron("30 2 * * MON-FRI".into());
        let began = Timestamp(0);
        // A Friday.
        let friday = at("2026-01-23T03:00:00Z");
        assert_eq!(rhythm.next(&TimeZone::UTC, began, friday), Ok(Some(at("2026-01-26T02:30:00Z"))));
        let east = TimeZone::fixed(Offset::constant(9));
        assert_eq!(rhythm.next(&east, began, friday), Ok(Some(at("2026-01-25T17:30:00Z"))));
    }

    #[test]
    fn an_hour_that_is_left_out_or_repeated_ticks_once() {
        // New York, by its rule and not by a file.
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let rhythm = Rhythm::Cron("30 2 * * *".into());
        // 02:30 is left out on 8 March 2026: the clock goes from 02:00 EST to 03:00 EDT.
        let spring = rhythm.next(&zone, Timestamp(0), at("2026-03-08T00:00:00-05:00")).unwrap();
        assert_eq!(spring, Some(at("2026-03-08T03:00:00-04:00")));
        assert_eq!(rhythm.next(&zone, Timestamp(0), spring.unwrap()), Ok(Some(at("2026-03-09T02:30:00-04:00"))));
        // 01:30 comes twice on 1 November 2026.
        let rhythm = Rhythm::Cron("30 1 * * *".into());
        let autumn = rhythm.next(&zone, Timestamp(0), at("2026-11-01T00:00:00-04:00")).unwrap();
        assert_eq!(autumn, Some(at("2026-11-01T01:30:00-04:00")));
        assert_eq!(rhythm.next(&zone, Timestamp(0), autumn.unwrap()), Ok(Some(at("2026-11-02T01:30:00-05:00"))));
    }

    #[test]
    fn an_interval_counts_from_the_beginning() {
        let rhythm = Rhythm::Every(60);
        let began = Timestamp(1_000);
        for (after, next) in [(1_000, 61_000), (1_001, 61_000), (60_999, 61_000), (61_000, 121_000), (500, 61_000)] {
            assert_eq!(rhythm.next(&TimeZone::UTC, began, Timestamp(after)), Ok(Some(Timestamp(next))), "{after}");
        }
        for seconds in [0, INTERVAL_S_MAX + 1] {
            assert_eq!(Rhythm::Every(seconds).check(), Err(BadSchedule::Interval(seconds)));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["", "* * * *", "60 * * * *", "* * * * * *", "a b c d e", "@reboot"] {
            let refused = Rhythm::Cron(pattern.into()).check();
            assert!(matches!(refused, Err(BadSchedule::Cron { .. })), "{pattern}: {refused:?}");
        }
        for pattern in ["* * * * *", "*/5 0-6 1,15 JAN-MAR SUN", " 0 12 * * 7 "] {
            assert_eq!(Rhythm::Cron(pattern.into()).check(), Ok(()), "{pattern}");
        }
        let never = Rhythm::Cron("0 0 30 2 *".into());
        assert_eq!(never.next(&TimeZone::UTC, Timestamp(0), at("2026-01-01T00:00:00Z")), Ok(None));
    }

    #[test]
    fn missed_ticks_are_skipped_run_once_or_all_run() {
        let (tick, now) = (at("2026-01-20T10:00:00Z"), at("2026-01-20T12:30:00Z"));
        for (missed, due, following) in [
            (Missed::Once, Due::Start { cancel: None }, "2026-01-20T13:00:00Z"),
            (Missed::Skip, Due::SkipMissed, "2026-01-20T13:00:00Z"),
            (Missed::All, Due::Start { cancel: None }, "2026-01-20T11:00:00Z"),
        ] {
            let schedule = schedule(missed, Overlap::Allow);
            assert_eq!(schedule.due(tick, now, false), due, "{missed}");
            assert_eq!(schedule.following(&TimeZone::UTC, tick, now), Ok(Some(at(following))), "{missed}");
            // In time it is not missed.
            assert_eq!(schedule.due(tick, tick.plus_ms(MISSED_AFTER_MS), false), Due::Start { cancel: None });
        }
    }

    #[test]
    fn a_tick_during_the_run_before_starts_another_is_skipped_or_takes_its_place() {
        let tick = at("2026-01-20T10:00:00Z");
        for (overlap, running, due) in [
            (Overlap::Allow, true, Due::Start { cancel: None }),
            (Overlap::Skip, true, Due::SkipOverlap(ExecutionId(7))),
            (Overlap::Skip, false, Due::Start { cancel: None }),
            (Overlap::Cancel, true, Due::Start { cancel: Some(ExecutionId(7)) }),
            (Overlap::Cancel, false, Due::Start { cancel: None }),
        ] {
            assert_eq!(schedule(Missed::Once, overlap).due(tick, tick, running), due, "{overlap} {running}");
        }
    }

    #[test]
    fn missed_ticks_that_all_run_come_one_after_the_other() {
        let tick = at("2026-01-20T10:00:00Z");
        let (in_time, late) = (tick.plus_ms(MISSED_AFTER_MS), tick.plus_ms(MISSED_AFTER_MS + 1));
        let start = Due::Start { cancel: None };
        for (missed, overlap, now, running, due) in [
            (Missed::All, Overlap::Skip, late, true, Due::Wait),
            (Missed::All, Overlap::Cancel, late, true, Due::Wait),
            (Missed::All, Overlap::Allow, late, true, start),
            (Missed::All, Overlap::Skip, late, false, start),
            (Missed::All, Overlap::Cancel, late, false, start),
            // A tick in time does what `overlap` says.
            (Missed::All, Overlap::Skip, in_time, true, Due::SkipOverlap(ExecutionId(7))),
            (Missed::All, Overlap::Cancel, in_time, true, Due::Start { cancel: Some(ExecutionId(7)) }),
            // One run for all of them: it is a tick like any other.
            (Missed::Once, Overlap::Skip, late, true, Due::SkipOverlap(ExecutionId(7))),
            (Missed::Once, Overlap::Cancel, late, true, Due::Start { cancel: Some(ExecutionId(7)) }),
        ] {
            let schedule = schedule(missed, overlap);
            assert_eq!(schedule.due(tick, now, running), due, "{missed} {overlap} {running}");
        }
    }

    #[test]
    fn words_read_back() {
        for missed in [Missed::Once, Missed::Skip, Missed::All] {
            assert_eq!(missed.as_str().parse(), Ok(missed));
        }
        for overlap in [Overlap::Allow, Overlap::Skip, Overlap::Cancel] {
            assert_eq!(overlap.as_str().parse(), Ok(overlap));
        }
        assert!("never".parse::<Missed>().unwrap_err().to_string().contains("once skip all"));
    }
}
