//! Schedules: rows, and moving them on.
//!
//! A batch that starts the run of a tick holds the schedule's row from its look to its commit, so another server's
//! batch finds either the tick still waited for, or taken. Whoever holds a schedule waits for no other lock.

use std::collections::BTreeSet;

use deadpool_postgres::ClientWrapper;
use noetl_core::id::{ExecutionId, ScheduleId};
use noetl_core::schedule::{Rhythm, Schedule, Tick};
use noetl_core::time::Timestamp;
use tokio_postgres::Error;

use super::read::ask;
use super::transaction::{self, all};
use super::types::Moment;
use super::write::{integer, json};
use super::{Inner, rows};
use crate::{DuePlace, StoreError};

/// Locks and reads in one statement: it looks at one table and by its key, so a row that it waited for is read as it
/// is then.
const HOLD: &str = "SELECT schedule_id, next_run_at FROM noetl.schedule WHERE schedule_id = ANY($1) AND enabled \
                    ORDER BY schedule_id FOR UPDATE";
/// Moves a schedule on whose row is held, with the run that was started.
const MOVE: &str = "UPDATE noetl.schedule SET next_run_at = $3, last_run_at = $2, last_status = 'started', \
                    last_execution_id = $4, updated_at = $5 WHERE schedule_id = $1";

/// A tick whose run starts in a batch.
#[derive(Debug)]
pub(super) struct TickAfter<'a> {
    pub(super) tick: &'a Tick,
    pub(super) started: ExecutionId,
    pub(super) at: Timestamp,
}

/// Holds schedules until the transaction has ended; returns the ticks that those wait for that are not paused.
pub(super) async fn hold(
    client: &ClientWrapper,
    wanted: &BTreeSet<ScheduleId>,
) -> Result<Vec<(ScheduleId, Option<Timestamp>)>, transaction::Trouble> {
    let ids: Vec<i64> = wanted.iter().map(|id| id.0).collect();
    let hold = client.prepare_cached(HOLD).await?;
    Ok(all(&client.query(&hold, &[&ids]).await?, rows::waits_for)?)
}

/// Moves a schedule on whose row is held.
pub(super) async fn go_on(client: &ClientWrapper, after: &TickAfter<'_>) -> Result<(), Error> {
    let TickAfter { tick, started, at } = after;
    let go_on = client.prepare_cached(MOVE).await?;
    let (passed, next) = (Moment(tick.at), tick.next.map(Moment));
    client.execute(&go_on, &[&tick.schedule_id.0, &passed, &next, &started.0, &Moment(*at)]).await?;
    Ok(())
}

pub(super) async fn add(client: &ClientWrapper, schedule: &Schedule) -> Result<bool, StoreError> {
    let (cron, seconds) = match &schedule.rhythm {
        Rhythm::Cron(pattern) => (Some(pattern.as_str()), None),
        Rhythm::Every(seconds) => (None, Some(integer(*seconds))),
    };
    let query = "INSERT INTO noetl.schedule (schedule_id, name, playbook_path, playbook_version, cron, \
                 interval_seconds, enabled, timezone, missed, overlap, next_run_at, last_run_at, last_status, \
                 last_execution_id, input_payload, created_by, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::json, $16, $17, $18) \
                 ON CONFLICT (name) DO NOTHING";
    let added = client
        .execute(
            query,
            &[
                &schedule.schedule_id.0,
                &schedule.name.as_ref(),
                &schedule.path.as_ref(),
                &schedule.version,
                &cron,
                &seconds,
                &schedule.enabled,
                &schedule.timezone.as_ref(),
                &schedule.missed.as_str(),
                &schedule.overlap.as_str(),
                &schedule.next_run_at.map(Moment),
                &schedule.last_run_at.map(Moment),
                &schedule.last_status,
                &schedule.last_execution_id.map(|id| id.0),
                &json(&schedule.payload),
                &schedule.created_by,
                &Moment(schedule.created_at),
                &Moment(schedule.updated_at),
            ],
        )
        .await?;
    Ok(added == 1)
}

pub(super) async fn list(client: &ClientWrapper) -> Result<Vec<Schedule>, StoreError> {
    // By bytes, as every store orders names.
    let query = format!("SELECT {} FROM noetl.schedule ORDER BY name COLLATE \"C\"", rows::SCHEDULE);
    all(&ask(client, &query, &[]).await?, rows::schedule)
}

pub(super) async fn due(
    client: &ClientWrapper,
    now: Timestamp,
    after: Option<DuePlace>,
    limit: u64,
) -> Result<Vec<Schedule>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.schedule WHERE enabled AND next_run_at <= $1 \
         AND ($2::timestamptz IS NULL OR (next_run_at, schedule_id) > ($2, $3)) \
         ORDER BY next_run_at, schedule_id LIMIT $4",
        rows::SCHEDULE
    );
    let (at, id) = after.map_or((None, None), |(at, schedule_id)| (Some(Moment(at)), Some(schedule_id.0)));
    all(&ask(client, &query, &[&Moment(now), &at, &id, &integer(limit)]).await?, rows::schedule)
}

pub(super) async fn pass_tick(
    inner: &Inner,
    client: &ClientWrapper,
    tick: &Tick,
    status: &str,
) -> Result<bool, StoreError> {
    let now = transaction::now(inner, client).await?;
    let query = "UPDATE noetl.schedule SET next_run_at = $3, last_run_at = $2, last_status = $4, updated_at = $5 \
                 WHERE schedule_id = $1 AND enabled AND next_run_at = $2";
    let (passed, next) = (Moment(tick.at), tick.next.map(Moment));
    Ok(client.execute(query, &[&tick.schedule_id.0, &passed, &next, &status, &Moment(now)]).await? == 1)
}

pub(super) async fn set(
    inner: &Inner,
    client: &ClientWrapper,
    id: ScheduleId,
    next: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let now = transaction::now(inner, client).await?;
    let query = "UPDATE noetl.schedule SET enabled = $2, next_run_at = $3, updated_at = $4 WHERE schedule_id = $1";
    Ok(client.execute(query, &[&id.0, &next.is_some(), &next.map(Moment), &Moment(now)]).await? == 1)
}

pub(super) async fn remove(client: &ClientWrapper, id: ScheduleId) -> Result<bool, StoreError> {
    Ok(client.execute("DELETE FROM noetl.schedule WHERE schedule_id = $1", &[&id.0]).await? == 1)
}
