//! Identities: 63-bit numbers that sort by time, and are strings in JSON.
//!
//! An id is `(unix_ms - EPOCH_MS) << 22 | node << 12 | sequence`. It exceeds 2^53, so JSON carries it as a
//! string; input accepts a string or an integer. Nothing here reads a clock: time and node are parameters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::Timestamp;

/// Start of the id calendar: 2024-01-01T00:00:00Z, in Unix milliseconds.
pub const EPOCH_MS: i64 = 1_704_067_200_000;

/// Bits below the time: 10 of node, 12 of sequence.
pub const TIME_SHIFT: u32 = 22;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected a positive decimal number below 2^63")]
pub struct ParseIdError(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(IdVisitor).map($name)
            }
        }
    };
}

id!(
    /// One run of one playbook.
    ExecutionId
);
id!(
    /// One row of the log.
    EventId
);
id!(
    /// One piece of work; it keeps its id through every attempt.
    CommandId
);
id!(
    /// One version of one playbook in the catalog.
    CatalogId
);
id!(
    /// One life of one worker, from start to stop; new at every start.
    SessionId
);
id!(
    /// One recorded cascade or bulk cancellation.
    CancellationId
);
id!(
    /// One credential, however often it is registered anew.
    CredentialId
);
id!(
    /// One schedule.
    ScheduleId
);

fn parse(text: &str) -> Result<i64, ParseIdError> {
    let refuse = || ParseIdError(text.chars().take(64).collect());
    if text.is_empty() || text.len() > 19 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse());
    }
    match text.parse::<i64>() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(refuse()),
    }
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id, as a decimal string or an integer")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        if number > 0 { Ok(number) } else { Err(E::custom(ParseIdError(number.to_string()))) }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        i64::try_from(number).map_err(|_| E::custom(ParseIdError(number.to_string()))).and_then(|n| self.visit_i64(n))
    }
}

/// Makes ids for one node; strictly rising, whatever the clock does.
///
/// When the clock stands still or goes back, or one millisecond's 4,096 ids are used up, the next id is
/// the last one plus one: ids may run ahead of the clock, they never repeat.
#[derive(Debug, Clone)]
pub struct IdSource {
    node: i64,
    /// Time and sequence of the last id: `ms << 12 | sequence`, without the node.
    last: i64,
}

impl IdSource {
    /// Returns a source for `node`, of which the low 10 bits count.
    pub fn new(node: u16) -> Self {
        IdSource { node: i64::from(node & 0x3ff), last: 0 }
    }

    /// Returns the next id at `now`.
    pub fn next(&mut self, now: Timestamp) -> i64 {
        let clock = (now.0 - EPOCH_MS).max(1) << 12;
        self.last = clock.max(self.last + 1);
        let (ms, sequence) = (self.last >> 12, self.last & 0xfff);
        ms << TIME_SHIFT | self.node << 12 | sequence
    }

    /// Makes ids for another node from now on.
    pub fn renumber(&mut self, node: u16) {
        self.node = i64::from(node & 0x3ff);
    }

    /// Never gives an id at or below `id` again (after a restart of the same node).
    pub fn advance_past(&mut self, id: i64) {
        self.last = self.last.max((id >> TIME_SHIFT) << 12 | id & 0xfff);
    }
}

/// Returns when an id was made, to the millisecond.
pub fn made_at(id: i64) -> Timestamp {
    Timestamp((id >> TIME_SHIFT) + EPOCH_MS)
}

/// Returns the node that an id was made for.
pub fn made_by(id: i64) -> u16 {
    u16::try_from(id >> 12 & 0x3ff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back() {
        let mut ids = IdSource::new(7);
        let now = Timestamp(EPOCH_MS + 1_000_000);
        let mut last = 0;
        for step in 0..10_000 {
            let id = ids.next(Timestamp(now.0 - step % 5));
            assert!(id > last);
            last = id;
        }
        assert_eq!(last >> 12 & 0x3ff, 7);
    }

    #[test]
    fn json_carries_ids_as_strings_and_reads_both() {
        let id = ExecutionId(543_857_931_469_455_628);
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"543857931469455628\"");
        for text in ["\"543857931469455628\"", "543857931469455628"] {
            assert_eq!(serde_json::from_str::<ExecutionId>(text).unwrap(), id);
        }
        for text in ["\"\"", "\"12x\"", "-1", "0", "1.5", "\"99999999999999999999\"", "\"../1\"", "null"] {
            assert!(serde_json::from_str::<ExecutionId>(text).is_err(), "{text}");
        }
    }
}
