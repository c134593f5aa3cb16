//! Schedules: rows, and moving them on.

use noetl_core::id::{ExecutionId, ScheduleId};
use noetl_core::schedule::{Rhythm, Schedule, Tick};
use noetl_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::encode::json;
use super::tables::{Tables, integer};
use super::{read, rows};
use crate::{DuePlace, StoreError};

/// Returns the tick that a schedule waits for; `None` when it is paused, or gone.
pub(super) fn waits_for(connection: &Connection, id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
    let query = "SELECT next_run_at FROM noetl.schedule WHERE schedule_id = ?1 AND enabled = 1";
    Ok(read::first(connection, query, [id.0], rows::maybe_moment)?.flatten())
}

/// Moves a schedule on from the tick that it waits for; returns whether it did.
pub(super) fn pass(
    connection: &Connection,
    tick: &Tick,
    now: Timestamp,
    status: &str,
    started: Option<ExecutionId>,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE noetl.schedule SET next_run_at = ?3, last_run_at = ?2, last_status = ?4, updated_at = ?5, \
         last_execution_id = coalesce(?6, last_execution_id) \
         WHERE schedule_id = ?1 AND enabled = 1 AND next_run_at = ?2",
    )?;
    let changed = statement.execute(params![
        tick.schedule_id.0,
        tick.at.to_iso(),
        tick.next.map(Timestamp::to_iso),
        status,
        now.to_iso(),
        started.map(|id| id.0),
    ])?;
    Ok(changed > 0)
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Schedule>, StoreError> {
    let query = format!("SELECT {} FROM noetl.schedule ORDER BY name", rows::SCHEDULE);
    read::all(connection, &query, [], rows::schedule)
}

pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    after: Option<DuePlace>,
    limit: u64,
) -> Result<Vec<Schedule>, StoreError> {
    let query = format!(
        "SELECT {} FROM noetl.schedule WHERE enabled = 1 AND next_run_at <= ?1 \
         AND (?2 IS NULL OR (next_run_at, schedule_id) > (?2, ?3)) ORDER BY next_run_at, schedule_id LIMIT ?4",
        rows::SCHEDULE
    );
    let (at, id) = after.map_or((None, None), |(at, schedule_id)| (Some(at.to_iso()), Some(schedule_id.0)));
    read::all(connection, &query, params![now.to_iso(), at, id, integer(limit)], rows::schedule)
}

impl Tables {
    pub(super) fn add_schedule(&mut self, schedule: &Schedule) -> Result<bool, StoreError> {
        let (cron, seconds) = match &schedule.rhythm {
            Rhythm::Cron(pattern) => (Some(pattern.as_str()), None),
            Rhythm::Every(seconds) => (None, Some(integer(*seconds))),
        };
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO noetl.schedule (schedule_id, name, playbook_path, playbook_version, cron, interval_seconds, \
             enabled, timezone, missed, overlap, next_run_at, last_run_at, last_status, last_execution_id, \
             input_payload, created_by, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
             ON CONFLICT (name) DO NOTHING",
        )?;
        let added = statement.execute(params![
            schedule.schedule_id.0,
            schedule.name.as_ref(),
            schedule.path.as_ref(),
            schedule.version,
            cron,
            seconds,
            schedule.enabled,
            schedule.timezone.as_ref(),
            schedule.missed.as_str(),
            schedule.overlap.as_str(),
            schedule.next_run_at.map(Timestamp::to_iso),
            schedule.last_run_at.map(Timestamp::to_iso),
            schedule.last_status,
            schedule.last_execution_id.map(|id| id.0),
            json(&schedule.payload),
            schedule.created_by,
            schedule.created_at.to_iso(),
            schedule.updated_at.to_iso(),
        ])?;
        Ok(added > 0)
    }

    pub(super) fn pass_tick(&mut self, tick: &Tick, status: &str) -> Result<bool, StoreError> {
        pass(&self.connection, tick, self.now(), status, None)
    }

    pub(super) fn set_schedule(&mut self, id: ScheduleId, next: Option<Timestamp>) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.schedule SET enabled = ?2, next_run_at = ?3, updated_at = ?4 WHERE schedule_id = ?1",
        )?;
        let now = self.now().to_iso();
        Ok(statement.execute(params![id.0, next.is_some(), next.map(Timestamp::to_iso), now])? > 0)
    }

    pub(super) fn remove_schedule(&mut self, id: ScheduleId) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached("DELETE FROM noetl.schedule WHERE schedule_id = ?1")?;
        Ok(statement.execute([id.0])? > 0)
    }
}
