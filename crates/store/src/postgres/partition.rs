//! The partitions of the log: one for the executions that started in one month.
//!
//! An id holds the time of its making in the high bits, so a month is a range of ids. Partitions are made ahead, and
//! when an execution comes for which there is none. Making one does not stop anybody who reads or writes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::ClientWrapper;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp as Moment};
use noetl_core::id::{EPOCH_MS, ExecutionId, TIME_SHIFT, made_at};
use noetl_core::time::Timestamp;

use crate::StoreError;

/// Months for which partitions are made ahead, besides the present one.
const MONTHS_AHEAD: i32 = 2;
/// The lock that servers take in turns while they make and drop partitions: `noetl` and a number.
const PARTITION_LOCK: i64 = 0x6e6f_6574_6c00_0002;

/// A month, in UTC; the first one holds every earlier id too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// Returns the month in which an id was made.
    pub(super) fn of(id: ExecutionId) -> Self {
        Month::at(made_at(id.0))
    }

    fn at(time: Timestamp) -> Self {
        let time = Moment::from_millisecond(time.0.max(EPOCH_MS)).unwrap_or(Moment::MAX);
        let date = time.to_zoned(TimeZone::UTC).date();
        Month { year: date.year(), month: date.month() }
    }

    fn begins(self) -> Date {
        Date::constant(self.year, self.month, 1)
    }

    fn plus(self, months: i32) -> Self {
        let date = self.begins().saturating_add(Span::new().months(months));
        Month { year: date.year(), month: date.month() }
    }

    /// Returns the name of its partition.
    pub(super) fn table(self) -> String {
        format!("event_{:04}_{:02}", self.year, self.month)
    }

    fn of_table(name: &str) -> Option<Self> {
        let (year, month) = name.strip_prefix("event_")?.split_once('_')?;
        let month = Month { year: year.parse().ok()?, month: month.parse().ok()? };
        (1..=12).contains(&month.month).then_some(month)
    }

    /// Returns its first id; `None`: from the beginning.
    pub(super) fn first(self) -> Option<i64> {
        let begins = self.begins().to_zoned(TimeZone::UTC).map_or(EPOCH_MS, |zoned| zoned.timestamp().as_millisecond());
        (begins > EPOCH_MS).then(|| (begins - EPOCH_MS) << TIME_SHIFT)
    }

    /// Returns the first id after it; `None`: to the end.
    pub(super) fn end(self) -> Option<i64> {
        let end = self.plus(1);
        let begins = end.begins().to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
        let since = begins - EPOCH_MS;
        (since <= i64::MAX >> TIME_SHIFT).then_some(since << TIME_SHIFT)
    }

    /// Returns when it is over.
    pub(super) fn over(self) -> Timestamp {
        self.end().map_or(Timestamp(i64::MAX), made_at)
    }
}

/// The partitions that are known to be there.
#[derive(Debug, Default)]
pub(super) struct Partitions(Mutex<BTreeSet<Month>>);

impl Partitions {
    /// Returns the months of `births` for which no partition is known.
    pub(super) fn missing(&self, births: impl IntoIterator<Item = ExecutionId>) -> BTreeSet<Month> {
        let mut missing: BTreeSet<Month> = births.into_iter().map(Month::of).collect();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|month| !known.contains(month));
        missing
    }

    /// Forgets what it knows: another server has dropped a partition.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes the partitions of a time and of the months after it.
    pub(super) async fn ahead(&self, client: &ClientWrapper, now: Timestamp) -> Result<(), StoreError> {
        let first = Month::at(now);
        let wanted: BTreeSet<Month> = (0..=MONTHS_AHEAD).map(|months| first.plus(months)).collect();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let missing: BTreeSet<Month> = wanted.difference(&known).copied().collect();
        if missing.is_empty() { Ok(()) } else { self.make(client, &missing).await }
    }

    /// Makes partitions, unless they are there.
    pub(super) async fn make(&self, client: &ClientWrapper, months: &BTreeSet<Month>) -> Result<(), StoreError> {
        for month in months {
            let made = make(client, *month).await;
            if made.is_err() {
                // The connection is given back as it was.
                client.batch_execute("ROLLBACK").await.ok();
            }
            made?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*month);
        }
        Ok(())
    }

    /// Drops the partition of a month of which no execution is left; returns whether it did.
    pub(super) async fn drop_empty(&self, client: &ClientWrapper, month: Month) -> Result<bool, StoreError> {
        let table = month.table();
        let pending = "SELECT i.inhdetachpending FROM pg_inherits i \
                       WHERE i.inhparent = 'noetl.event'::regclass AND i.inhrelid = to_regclass($1)";
        let pending: Option<bool> =
            client.query_opt(pending, &[&format!("noetl.{table}")]).await?.map(|row| row.try_get(0)).transpose()?;
        let left = "SELECT 1 FROM noetl.execution WHERE execution_id >= $1 AND execution_id < $2 LIMIT 1";
        let range: (i64, i64) = (month.first().unwrap_or(i64::MIN), month.end().unwrap_or(i64::MAX));
        if client.query_opt(left, &[&range.0, &range.1]).await?.is_some() {
            return Ok(false);
        }
        // Concurrently: nobody waits for it, and it waits for whoever reads the partition.
        let how = match pending {
            None => return Ok(false),
            Some(false) => "CONCURRENTLY",
            Some(true) => "FINALIZE",
        };
        client.batch_execute(&format!("ALTER TABLE noetl.event DETACH PARTITION noetl.{table} {how}")).await?;
        client.batch_execute(&format!("DROP TABLE noetl.{table}")).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&month);
        Ok(true)
    }
}

async fn make(client: &ClientWrapper, month: Month) -> Result<(), StoreError> {
    let table = month.table();
    client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({PARTITION_LOCK})")).await?;
    let there = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'noetl.event'::regclass \
                 AND inhrelid = to_regclass($1))";
    let there: bool = client.query_one(there, &[&format!("noetl.{table}")]).await?.try_get(0)?;
    if !there {
        let first = month.first().map_or("MINVALUE".to_owned(), |id| id.to_string());
        let end = month.end().map_or("MAXVALUE".to_owned(), |id| id.to_string());
        // Made apart and then attached: that holds up neither readers nor writers of the log.
        client
            .batch_execute(&format!(
                "CREATE TABLE noetl.{table} (LIKE noetl.event INCLUDING DEFAULTS INCLUDING GENERATED);
                 CREATE UNIQUE INDEX {table}_event_id ON noetl.{table} (event_id);
                 ALTER TABLE noetl.event ATTACH PARTITION noetl.{table} FOR VALUES FROM ({first}) TO ({end})"
            ))
            .await?;
        tracing::info!(table, "made a partition of the log");
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Returns the months that have partitions.
pub(super) async fn list(client: &ClientWrapper) -> Result<Vec<Month>, StoreError> {
    let query = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                 WHERE i.inhparent = 'noetl.event'::regclass ORDER BY 1";
    let mut months = Vec::new();
    for row in client.query(query, &[]).await? {
        months.extend(Month::of_table(row.try_get(0)?));
    }
    Ok(months)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_each_other_without_a_gap() {
        let first = Month { year: 2024, month: 1 };
        assert_eq!(first.first(), None);
        let mut month = first;
        while let Some(end) = month.end() {
            let next = month.plus(1);
            assert_eq!(next.first(), Some(end), "{month:?}");
            assert_eq!((Month::of(ExecutionId(end - 1)), Month::of(ExecutionId(end))), (month, next));
            assert_eq!(Month::of_table(&month.table()), Some(month));
            month = next;
        }
        assert!(month.year >= 2093, "{month:?}");
        assert_eq!(Month::of(ExecutionId(i64::MAX)), month);
        for id in [i64::MIN, -1, 0, 1] {
            assert_eq!(Month::of(ExecutionId(id)), first);
        }
    }

    #[test]
    fn an_id_of_the_founding_document_is_of_its_month() {
        assert_eq!(Month::of(ExecutionId(543_857_931_469_455_628)).table(), "event_2028_02");
    }
}
