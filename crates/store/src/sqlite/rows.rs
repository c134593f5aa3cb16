//! Rows as values: which columns are read, and what they mean.

use std::borrow::Cow;
use std::sync::Arc;

use noetl_core::append::{Due, DueKind};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::row::{EventRow, from_row};
use noetl_core::event::{Recorded, Wait};
use noetl_core::head::{CommandRow, CommandState, Head, Holder, Status};
use noetl_core::id::{CancellationId, CatalogId, CommandId, CredentialId, EventId, ExecutionId, ScheduleId, SessionId};
use noetl_core::playbook::{CancelMode, Shield};
use noetl_core::schedule::{Rhythm, Schedule};
use noetl_core::time::Timestamp;
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::catalog::Resource;
use crate::secret::{CredentialRow, KeychainRow, Sealed};
use crate::{Cancellation, FamilyAction, Session, StoreError};

/// A row whose columns are read from left to right.
struct Reader<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl<'r> Reader<'r> {
    fn new(row: &'r Row<'r>) -> Self {
        Reader { row, next: 0 }
    }

    fn get<T: FromSql>(&mut self) -> Result<T, StoreError> {
        self.next += 1;
        Ok(self.row.get(self.next - 1)?)
    }

    fn maybe_str(&mut self) -> Result<Option<&'r str>, StoreError> {
        self.next += 1;
        let value = self.row.get_ref(self.next - 1)?;
        value.as_str_or_null().map_err(|error| self.damaged(&error.to_string()))
    }

    fn str(&mut self) -> Result<&'r str, StoreError> {
        self.maybe_str()?.ok_or_else(|| self.damaged("it is null"))
    }

    fn text(&mut self) -> Result<Arc<str>, StoreError> {
        self.str().map(Arc::from)
    }

    fn maybe_text(&mut self) -> Result<Option<Arc<str>>, StoreError> {
        Ok(self.maybe_str()?.map(Arc::from))
    }

    fn string(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.maybe_str()?.map(str::to_owned))
    }

    /// A number that cannot be negative.
    fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        let number: i64 = self.get()?;
        T::try_from(number).map_err(|_| self.damaged(&format!("{number} is out of range")))
    }

    fn maybe_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(number) = self.get::<Option<i64>>()? else { return Ok(None) };
        T::try_from(number).map(Some).map_err(|_| self.damaged(&format!("{number} is out of range")))
    }

    fn maybe_id<T>(&mut self, make: impl FnOnce(i64) -> T) -> Result<Option<T>, StoreError> {
        Ok(self.get::<Option<i64>>()?.map(make))
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        let text = self.str()?;
        Timestamp::from_iso(text).ok_or_else(|| self.damaged(&format!("`{text}` is no time")))
    }

    fn maybe_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let Some(text) = self.maybe_str()? else { return Ok(None) };
        Timestamp::from_iso(text).map(Some).ok_or_else(|| self.damaged(&format!("`{text}` is no time")))
    }

    fn maybe_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(text) = self.maybe_str()? else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| self.damaged(&error.to_string()))
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        self.maybe_json()?.ok_or_else(|| self.damaged("it is null"))
    }

    /// A word out of a fixed list.
    fn word<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let word = self.str()?;
        known(word).ok_or_else(|| self.damaged(&format!("`{word}` is not a word for it")))
    }

    fn maybe_word<T>(&mut self, known: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let Some(word) = self.maybe_str()? else { return Ok(None) };
        known(word).map(Some).ok_or_else(|| self.damaged(&format!("`{word}` is not a word for it")))
    }

    fn damaged(&self, what: &str) -> StoreError {
        let name = self.row.as_ref().column_name(self.next - 1).unwrap_or("?");
        StoreError::Corrupt(format!("column {name}: {what}"))
    }
}

/// The columns that [`head`] reads.
pub(super) const HEAD: &str = "execution_id, catalog_id, path, playbook_version, parent_execution_id, \
     parent_command_id, root_execution_id, depth, status, version, decided, in_flight, runnable, engine, cancel_mode, \
     cancel_grace_ms, shield, started_at, updated_at, ended_at, quiesced_at, current_step, steps_entered, \
     commands_issued, failed_steps, error_detail, cancel, pause, concurrency_key, labels, cleanup, cleanup_of";

pub(super) fn head(row: &Row<'_>) -> Result<Head, StoreError> {
    let mut row = Reader::new(row);
    Ok(Head {
        execution_id: ExecutionId(row.get()?),
        catalog_id: CatalogId(row.get()?),
        path: row.text()?,
        playbook_version: row.get()?,
        parent_execution_id: row.maybe_id(ExecutionId)?,
        parent_command_id: row.maybe_id(CommandId)?,
        root_execution_id: ExecutionId(row.get()?),
        depth: row.number()?,
        status: row.word(Status::from_word)?,
        version: row.number()?,
        decided: row.number()?,
        in_flight: row.number()?,
        runnable: row.get()?,
        engine: row.number()?,
        cancel_mode: row.maybe_word(mode_of)?,
        cancel_grace_ms: row.maybe_number()?,
        shield: row.maybe_word(Shield::from_word)?,
        started_at: row.time()?,
        updated_at: row.time()?,
        ended_at: row.maybe_time()?,
        quiesced_at: row.maybe_time()?,
        current_step: row.maybe_text()?,
        steps_entered: row.number()?,
        commands_issued: row.number()?,
        failed_steps: row.maybe_json()?.unwrap_or_default(),
        error: row.maybe_json()?,
        cancel: row.maybe_json()?,
        pause: row.maybe_json()?,
        concurrency_key: row.maybe_text()?,
        labels: row.maybe_json()?.unwrap_or_default(),
        cleanup: row.maybe_json()?,
        cleanup_of: row.maybe_id(ExecutionId)?,
    })
}

/// An execution that has a concurrency key.
pub(super) fn key_holder(row: &Row<'_>) -> Result<KeyHolder, StoreError> {
    let mut row = Reader::new(row);
    Ok(KeyHolder { execution_id: ExecutionId(row.get()?), active: row.get()?, started_at: row.time()? })
}

/// The columns that [`command`] reads.
pub(super) const COMMAND: &str = "execution_id, command_id, epoch, root_execution_id, state, step, visit, iteration, \
     kind, pool, priority, enters, at_most_once, losses, losses_max, stopping, grace_ms, wait, issued_at, session_id, \
     worker_id, claimed_at, started, running, work";

pub(super) fn command(row: &Row<'_>) -> Result<CommandRow, StoreError> {
    let mut row = Reader::new(row);
    Ok(CommandRow {
        execution_id: ExecutionId(row.get()?),
        command_id: CommandId(row.get()?),
        epoch: row.number()?,
        root_execution_id: ExecutionId(row.get()?),
        state: row.word(CommandState::from_word)?,
        step: row.text()?,
        visit: row.number()?,
        iteration: row.maybe_number()?,
        kind: row.text()?,
        pool: row.text()?,
        priority: row.get()?,
        enters: row.get()?,
        at_most_once: row.get()?,
        losses: row.number()?,
        losses_max: row.number()?,
        stopping: row.maybe_json()?,
        grace_ms: row.maybe_number()?,
        wait: row.maybe_json::<Wait>()?,
        since: row.time()?,
        holder: holder(&mut row)?,
        running: row.maybe_json()?,
        work: row.json()?,
    })
}

fn holder(row: &mut Reader<'_>) -> Result<Option<Holder>, StoreError> {
    let (session, worker, claimed_at, started) =
        (row.maybe_id(SessionId)?, row.maybe_text()?, row.maybe_time()?, row.get()?);
    Ok(match (session, worker, claimed_at) {
        (Some(session_id), Some(worker_id), Some(claimed_at)) => {
            Some(Holder { session_id, worker_id, claimed_at, started })
        }
        (_, _, _) => None,
    })
}

/// The columns that [`event`] reads.
pub(super) const EVENT: &str = "execution_id, version, event_id, parent_execution_id, root_execution_id, catalog_id, \
     event_type, node_name, node_type, status, context, result, meta, error, worker_id, command_id, attempt, \
     iteration, duration, created_at, schema_version";

pub(super) fn event(row: &Row<'_>) -> Result<Recorded, StoreError> {
    let mut row = Reader::new(row);
    Ok(from_row(EventRow {
        execution_id: ExecutionId(row.get()?),
        version: row.number()?,
        event_id: EventId(row.get()?),
        parent_execution_id: row.maybe_id(ExecutionId)?,
        root_execution_id: ExecutionId(row.get()?),
        catalog_id: CatalogId(row.get()?),
        event_type: Cow::Owned(row.str()?.to_owned()),
        node_id: None,
        node_name: row.maybe_text()?,
        node_type: row.maybe_text()?,
        status: Cow::Owned(row.str()?.to_owned()),
        context: row.maybe_str()?,
        result: row.maybe_str()?,
        meta: row.maybe_str()?,
        error: row.string()?,
        worker_id: row.maybe_text()?,
        command_id: row.maybe_id(CommandId)?,
        attempt: row.maybe_number()?,
        iteration: row.maybe_number()?,
        duration: row.get()?,
        created_at: row.time()?,
        schema_version: row.number()?,
    })?)
}

/// The columns that [`due`] reads.
pub(super) const DUE: &str = "execution_id, kind, key, at, command_id";

pub(super) fn due(row: &Row<'_>) -> Result<Due, StoreError> {
    let mut row = Reader::new(row);
    Ok(Due {
        execution_id: ExecutionId(row.get()?),
        kind: row.word(DueKind::from_word)?,
        key: row.get()?,
        at: row.time()?,
        command: row.maybe_id(CommandId)?,
    })
}

/// The columns that [`session`] reads.
pub(super) const SESSION: &str = "runtime_id, name, capacity, pools, lease_ends_at, started_at, runtime";

pub(super) fn session(row: &Row<'_>) -> Result<Session, StoreError> {
    let mut row = Reader::new(row);
    Ok(Session {
        session_id: SessionId(row.get()?),
        worker_id: row.text()?,
        slots: row.number()?,
        pools: row.json()?,
        lease_until: row.time()?,
        started_at: row.time()?,
        meta: row.json()?,
    })
}

/// The columns that [`cancellation`] reads.
pub(super) const CANCELLATION: &str = "cancellation_id, requested_execution_id, selection, \
     cascade, reason, cancelled_by, requested_by, remote, mode, grace_ms, idempotency_key, rate, selected, cursor, \
     cancelled, visited, spared, created_at, claimed_until, stopped_at, stopped_by, done_at, action";

pub(super) fn cancellation(row: &Row<'_>) -> Result<Cancellation, StoreError> {
    let mut row = Reader::new(row);
    Ok(Cancellation {
        cancellation_id: CancellationId(row.get()?),
        requested_execution_id: row.maybe_id(ExecutionId)?,
        selection: row.maybe_json()?,
        cascade: row.get()?,
        reason: row.string()?,
        cancelled_by: row.str()?.to_owned(),
        requested_by: row.string()?,
        remote: row.string()?,
        mode: row.maybe_word(mode_of)?,
        grace_ms: row.maybe_number()?,
        idempotency_key: row.string()?,
        rate: row.maybe_number()?,
        selected: row.maybe_number()?,
        cursor: row.maybe_id(ExecutionId)?,
        cancelled: row.number()?,
        visited: row.number()?,
        spared: row.number()?,
        created_at: row.time()?,
        claimed_until: row.maybe_time()?,
        stopped_at: row.maybe_time()?,
        stopped_by: row.string()?,
        done_at: row.maybe_time()?,
        action: row.word(FamilyAction::from_word)?,
    })
}

/// The columns that [`resource`] reads.
pub(super) const RESOURCE: &str = "catalog_id, path, version, kind, content, created_at";

pub(super) fn resource(row: &Row<'_>) -> Result<Resource, StoreError> {
    let mut row = Reader::new(row);
    Ok(Resource {
        catalog_id: CatalogId(row.get()?),
        path: row.text()?,
        version: row.get()?,
        kind: row.text()?,
        content: row.text()?,
        created_at: row.time()?,
    })
}

pub(super) const CREDENTIAL: &str =
    "id, name, type, version, data_encrypted, meta, tags, description, created_at, updated_at";

pub(super) fn credential(row: &Row<'_>) -> Result<CredentialRow, StoreError> {
    let mut row = Reader::new(row);
    Ok(CredentialRow {
        id: CredentialId(row.get()?),
        name: row.text()?,
        kind: row.text()?,
        version: row.get()?,
        sealed: Sealed(row.text()?),
        meta: row.maybe_json()?,
        tags: row.json()?,
        description: row.string()?,
        created_at: row.time()?,
        updated_at: row.time()?,
    })
}

pub(super) const KEYCHAIN: &str = "cache_key, keychain_name, catalog_id, credential_type, scope_type, execution_id, \
     root_execution_id, data_encrypted, expires_at";

pub(super) fn keychain(row: &Row<'_>) -> Result<KeychainRow, StoreError> {
    let mut row = Reader::new(row);
    Ok(KeychainRow {
        cache_key: row.text()?,
        name: row.text()?,
        catalog_id: CatalogId(row.get()?),
        kind: row.text()?,
        scope: row.text()?,
        execution: row.maybe_id(ExecutionId)?.zip(row.maybe_id(ExecutionId)?),
        sealed: Sealed(row.text()?),
        expires_at: row.time()?,
    })
}

/// The columns that [`schedule`] reads.
pub(super) const SCHEDULE: &str = "schedule_id, name, playbook_path, playbook_version, cron, interval_seconds, enabled, \
     timezone, missed, overlap, next_run_at, last_run_at, last_status, last_execution_id, input_payload, created_by, \
     created_at, updated_at";

pub(super) fn schedule(row: &Row<'_>) -> Result<Schedule, StoreError> {
    let mut row = Reader::new(row);
    let (schedule_id, name, path, version) = (ScheduleId(row.get()?), row.text()?, row.text()?, row.get()?);
    let rhythm = match (row.string()?, row.maybe_number()?) {
        (Some(pattern), _) => Rhythm::Cron(pattern),
        (None, Some(seconds)) => Rhythm::Every(seconds),
        (None, None) => return Err(row.damaged("neither a pattern nor an interval")),
    };
    Ok(Schedule {
        schedule_id,
        name,
        path,
        version,
        rhythm,
        enabled: row.get()?,
        timezone: row.text()?,
        missed: row.word(|word| word.parse().ok())?,
        overlap: row.word(|word| word.parse().ok())?,
        next_run_at: row.maybe_time()?,
        last_run_at: row.maybe_time()?,
        last_status: row.string()?,
        last_execution_id: row.maybe_id(ExecutionId)?,
        payload: row.maybe_json()?.unwrap_or_default(),
        created_by: row.string()?,
        created_at: row.time()?,
        updated_at: row.time()?,
    })
}

/// A moment, or none, in the only column.
pub(super) fn maybe_moment(row: &Row<'_>) -> Result<Option<Timestamp>, StoreError> {
    Reader::new(row).maybe_time()
}

/// A snapshot: its version and its state.
pub(super) fn snapshot(row: &Row<'_>) -> Result<(u64, Arc<Value>), StoreError> {
    let mut row = Reader::new(row);
    Ok((row.number()?, row.json()?))
}

pub(super) fn state(row: &Row<'_>) -> Result<CommandState, StoreError> {
    Reader::new(row).word(CommandState::from_word)
}

/// A document in the only column.
pub(super) fn document(row: &Row<'_>) -> Result<Value, StoreError> {
    Reader::new(row).json()
}

pub(super) fn mode_word(mode: CancelMode) -> &'static str {
    match mode {
        CancelMode::Finish => "finish",
        CancelMode::Interrupt => "interrupt",
    }
}

fn mode_of(word: &str) -> Option<CancelMode> {
    [CancelMode::Finish, CancelMode::Interrupt].into_iter().find(|mode| mode_word(*mode) == word)
}
