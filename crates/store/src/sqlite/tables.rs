//! The tables under the writer's hands: reading under the lock, and writing an append that was checked.

use std::sync::LazyLock;

use noetl_core::append::{Append, CommandChange, DueChange, Guard, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::{Recorded, SCHEMA_VERSION};
use noetl_core::head::{CommandRow, CommandState, Head, HeadView};
use noetl_core::id::{CommandId, ExecutionId, ScheduleId};
use noetl_core::playbook::Shield;
use noetl_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::encode::{CommandText, Ready, Texts, json};
use super::heads::Heads;
use super::{rows, schedule};
use crate::landing::{self, Check, Landing, Rows};
use crate::{Clock, StoreError};

/// How many snapshots of an execution are kept.
const SNAPSHOTS_KEPT: i64 = 2;

/// What the writer thread owns.
pub(super) struct Tables {
    pub(super) connection: Connection,
    pub(super) heads: Heads,
    /// Whether somebody waits for the writer.
    pub(super) awaited: Awaited,
    clock: Clock,
}

/// Says whether somebody waits for the writer.
pub(super) type Awaited = Box<dyn Fn() -> bool + Send>;

/// Why an append was not written.
pub(super) enum Failure {
    /// The check refused it; nothing of it has been written.
    Before(StoreError),
    /// The database refused it halfway; the transaction has to go.
    Halfway(StoreError),
}

impl Rows for Tables {
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        if let Some(head) = self.heads.get(execution_id) {
            return Ok(Some(head.clone()));
        }
        let head = head(&self.connection, execution_id)?;
        if let Some(head) = &head {
            self.heads.put(head.clone());
        }
        Ok(head)
    }

    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError> {
        let query = "SELECT state FROM noetl.command WHERE execution_id = ?1 AND command_id = ?2 AND epoch = ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut found = statement.query(params![execution_id.0, command_id.0, epoch])?;
        found.next()?.map(rows::state).transpose()
    }

    fn waits_for(&mut self, schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
        schedule::waits_for(&self.connection, schedule_id)
    }

    fn key_holders(&mut self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        key_holders(&self.connection, key)
    }
}

/// The rows as a decision under the lock has seen them: the writer is the lock, so they still stand so.
struct UnderLock<'a> {
    tables: &'a mut Tables,
    view: &'a HeadView,
}

impl Rows for UnderLock<'_> {
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
        if execution_id == self.view.head.execution_id {
            return Ok(Some(self.view.head.clone()));
        }
        Rows::head(self.tables, execution_id)
    }

    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError> {
        if execution_id == self.view.head.execution_id {
            let row = self.view.commands.iter().find(|row| row.command_id == command_id && row.epoch == epoch);
            return Ok(row.map(|row| row.state));
        }
        self.tables.command_state(execution_id, command_id, epoch)
    }

    fn waits_for(&mut self, schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError> {
        self.tables.waits_for(schedule_id)
    }

    fn key_holders(&mut self, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
        Rows::key_holders(self.tables, key)
    }
}

impl Tables {
    pub(super) fn new(connection: Connection, clock: Clock) -> Self {
        Tables { connection, heads: Heads::default(), awaited: Box::new(|| false), clock }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Returns the head and its live commands.
    pub(super) fn view(&mut self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        let Some(head) = self.head(execution_id)? else { return Ok(None) };
        Ok(Some(HeadView { head, commands: commands(&self.connection, execution_id)? }))
    }

    /// The same for a walk that looks at each one once: heads that others ask for stay in mind.
    pub(super) fn view_in_passing(&mut self, execution_id: ExecutionId) -> Result<Option<HeadView>, StoreError> {
        let head = match self.heads.get(execution_id) {
            Some(head) => head.clone(),
            None => match head(&self.connection, execution_id)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        Ok(Some(HeadView { head, commands: commands(&self.connection, execution_id)? }))
    }

    /// Checks an append against the rows as they stand, and writes it when it lands.
    pub(super) fn append(&mut self, ready: &Ready) -> Result<Verdict, Failure> {
        let check = landing::check(self, &ready.append, false).map_err(Failure::Before)?;
        self.land(ready, check)
    }

    /// The same for what was decided on `view`, under this very lock.
    pub(super) fn append_on(&mut self, view: &HeadView, ready: &Ready) -> Result<Verdict, Failure> {
        let mut rows = UnderLock { tables: self, view };
        let check = landing::check(&mut rows, &ready.append, true).map_err(Failure::Before)?;
        self.land(ready, check)
    }

    fn land(&mut self, ready: &Ready, check: Check) -> Result<Verdict, Failure> {
        match check {
            Check::Stays(verdict) => Ok(verdict),
            Check::Lands(landing) => {
                let version = landing.head.version;
                self.write(&ready.append, &ready.texts, *landing).map_err(Failure::Halfway)?;
                Ok(Verdict::Landed { version })
            }
        }
    }

    fn write(&mut self, append: &Append, texts: &Texts, landing: Landing) -> Result<(), StoreError> {
        let head = &landing.head;
        self.write_head(append, texts, head, landing.born)?;
        self.write_events(append, texts, landing.first_version(append.events.len()), head)?;
        self.write_commands(append, texts, head)?;
        self.write_due(append, head)?;
        self.write_results(append, texts, head)?;
        if let Some(state) = &texts.snapshot {
            self.write_snapshot(head, state)?;
        }
        for ((child, texts), landing) in append.children.iter().zip(&texts.children).zip(landing.children) {
            self.write(child, texts, landing)?;
        }
        // Of what has come to rest nobody asks again.
        match landing.head.quiesced_at {
            None => self.heads.put(landing.head),
            Some(_) => self.heads.forget(append.execution_id),
        }
        Ok(())
    }

    fn write_head(&self, append: &Append, texts: &Texts, head: &Head, born: bool) -> Result<(), StoreError> {
        if born {
            return self.insert_head(head);
        }
        let change = &append.head;
        let plain = change.status.is_none()
            && !change.quiesced
            && change.failed_steps.is_empty()
            && change.error.is_none()
            && change.cancel.is_none()
            && change.pause.is_none()
            && change.ended.is_empty();
        // Later than this append when two servers' clocks differ.
        let other_time = (head.updated_at != append.at).then(|| head.updated_at.to_iso());
        let updated_at = other_time.as_ref().unwrap_or(&texts.at);
        // What changes with every step, in no index; the rest changes a few times in a life.
        if plain {
            let mut statement = self.connection.prepare_cached(
                "UPDATE noetl.execution SET version = ?2, decided = ?3, in_flight = ?4, runnable = ?5, \
                 updated_at = ?6, current_step = ?7, steps_entered = ?8, commands_issued = ?9 WHERE execution_id = ?1",
            )?;
            statement.execute(params![
                head.execution_id.0,
                integer(head.version),
                integer(head.decided),
                head.in_flight,
                head.runnable,
                updated_at,
                head.current_step.as_deref(),
                integer(head.steps_entered),
                integer(head.commands_issued),
            ])?;
            return Ok(());
        }
        let mut statement = self.connection.prepare_cached(
            "UPDATE noetl.execution SET version = ?2, decided = ?3, in_flight = ?4, runnable = ?5, updated_at = ?6, \
             current_step = ?7, steps_entered = ?8, commands_issued = ?9, status = ?10, ended_at = ?11, \
             quiesced_at = ?12, failed_steps = ?13, error_detail = ?14, cancel = ?15, pause = ?16 \
             WHERE execution_id = ?1",
        )?;
        statement.execute(params![
            head.execution_id.0,
            integer(head.version),
            integer(head.decided),
            head.in_flight,
            head.runnable,
            updated_at,
            head.current_step.as_deref(),
            integer(head.steps_entered),
            integer(head.commands_issued),
            head.status.as_str(),
            head.ended_at.map(Timestamp::to_iso),
            head.quiesced_at.map(Timestamp::to_iso),
            failed_steps(head),
            head.error.as_ref().map(json),
            head.cancel.as_ref().map(json),
            head.pause.as_ref().map(json),
        ])?;
        Ok(())
    }

    fn insert_head(&self, head: &Head) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO noetl.execution (execution_id, catalog_id, path, playbook_version, parent_execution_id, \
             parent_command_id, root_execution_id, depth, status, version, decided, in_flight, runnable, engine, \
             cancel_mode, cancel_grace_ms, shield, started_at, updated_at, ended_at, quiesced_at, current_step, \
             steps_entered, commands_issued, failed_steps, error_detail, cancel, pause, concurrency_key, labels, cleanup, \
             cleanup_of) VALUES (?1, ?2, ?3, ?4, ?5, \
             ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, \
             ?28, ?29, ?30, ?31, ?32)",
        )?;
        statement.execute(params![
            head.execution_id.0,
            head.catalog_id.0,
            head.path.as_ref(),
            head.playbook_version,
            head.parent_execution_id.map(|id| id.0),
            head.parent_command_id.map(|id| id.0),
            head.root_execution_id.0,
            head.depth,
            head.status.as_str(),
            integer(head.version),
            integer(head.decided),
            head.in_flight,
            head.runnable,
            head.engine,
            head.cancel_mode.map(rows::mode_word),
            head.cancel_grace_ms.map(integer),
            head.shield.map(Shield::as_str),
            head.started_at.to_iso(),
            head.updated_at.to_iso(),
            head.ended_at.map(Timestamp::to_iso),
            head.quiesced_at.map(Timestamp::to_iso),
            head.current_step.as_deref(),
            integer(head.steps_entered),
            integer(head.commands_issued),
            failed_steps(head),
            head.error.as_ref().map(json),
            head.cancel.as_ref().map(json),
            head.pause.as_ref().map(json),
            head.concurrency_key.as_deref(),
            (!head.labels.is_empty()).then(|| json(&head.labels)),
            head.cleanup.as_ref().map(json),
            head.cleanup_of.map(|id| id.0),
        ])?;
        Ok(())
    }

    fn write_events(&self, append: &Append, texts: &Texts, first: u64, head: &Head) -> Result<(), StoreError> {
        // One row a statement: SQLite keeps a copy of each page that a statement of several rows with ids of their own
        // touches, to take it back when the next row is refused.
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO noetl.event (event_id, execution_id, version, parent_execution_id, root_execution_id, catalog_id, \
             event_type, node_name, node_type, status, context, result, meta, error, worker_id, command_id, attempt, \
             iteration, duration, created_at, schema_version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
             ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        )?;
        for ((new, row), version) in append.events.iter().zip(&texts.events).zip(first..) {
            statement.execute(params![
                new.event_id.0,
                append.execution_id.0,
                integer(version),
                row.parent_execution_id.map(|id| id.0),
                head.root_execution_id.0,
                head.catalog_id.0,
                row.event_type,
                row.node_name.as_deref(),
                row.node_type.as_deref(),
                row.status,
                row.context,
                row.result,
                row.meta,
                row.error,
                row.worker_id.as_deref(),
                row.command_id.map(|id| id.0),
                row.attempt,
                row.iteration,
                row.duration,
                texts.at,
                SCHEMA_VERSION,
            ])?;
        }
        Ok(())
    }

    fn write_commands(&self, append: &Append, texts: &Texts, head: &Head) -> Result<(), StoreError> {
        if let Guard::Claim { command_id, epoch, holder } = &append.guard {
            let mut statement = self.connection.prepare_cached(
                "UPDATE noetl.command SET state = 'claimed', session_id = ?4, worker_id = ?5, claimed_at = ?6, \
                 started = ?7 WHERE execution_id = ?1 AND command_id = ?2 AND epoch = ?3",
            )?;
            statement.execute(params![
                append.execution_id.0,
                command_id.0,
                epoch,
                holder.session_id.0,
                holder.worker_id.as_ref(),
                holder.claimed_at.to_iso(),
                holder.started,
            ])?;
        }
        for (change, text) in append.commands.iter().zip(&texts.commands) {
            match (change, text) {
                (CommandChange::Insert(row), Some(text)) => self.insert_command(row, text, head)?,
                (CommandChange::Insert(_), None) => unreachable!("every new command was written out"),
                (CommandChange::Delete { command_id, epoch, .. }, _) => {
                    let mut statement = self.connection.prepare_cached(
                        "DELETE FROM noetl.command WHERE execution_id = ?1 AND command_id = ?2 AND epoch = ?3",
                    )?;
                    statement.execute(params![append.execution_id.0, command_id.0, epoch])?;
                }
                (CommandChange::Started { command_id, epoch }, _) => {
                    let mut statement = self.connection.prepare_cached(
                        "UPDATE noetl.command SET started = 1 \
                         WHERE execution_id = ?1 AND command_id = ?2 AND epoch = ?3",
                    )?;
                    statement.execute(params![append.execution_id.0, command_id.0, epoch])?;
                }
                (CommandChange::Withdraw { command_id, epoch }, _) => {
                    let mut statement = self.connection.prepare_cached(
                        "UPDATE noetl.command SET at_most_once = 1, \
                         state = CASE WHEN state IN ('pending', 'paused') THEN 'suspended' ELSE state END \
                         WHERE execution_id = ?1 AND command_id = ?2 AND epoch = ?3",
                    )?;
                    statement.execute(params![append.execution_id.0, command_id.0, epoch])?;
                }
            }
        }
        Ok(())
    }

    fn insert_command(&self, row: &CommandRow, text: &CommandText, head: &Head) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO noetl.command (execution_id, command_id, epoch, root_execution_id, state, step, visit, \
             iteration, kind, pool, priority, enters, at_most_once, losses, losses_max, stopping, grace_ms, wait, \
             issued_at, session_id, worker_id, claimed_at, started, running, work) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
             ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25)",
        )?;
        let holder = row.holder.as_ref();
        statement.execute(params![
            row.execution_id.0,
            row.command_id.0,
            row.epoch,
            head.root_execution_id.0,
            row.state.as_str(),
            row.step.as_ref(),
            row.visit,
            row.iteration,
            row.kind.as_ref(),
            row.pool.as_ref(),
            row.priority,
            row.enters,
            row.at_most_once,
            row.losses,
            row.losses_max,
            row.stopping.as_ref().map(json),
            row.grace_ms.map(integer),
            text.wait,
            text.issued_at,
            holder.map(|holder| holder.session_id.0),
            holder.map(|holder| holder.worker_id.as_ref()),
            text.claimed_at,
            holder.is_some_and(|holder| holder.started),
            row.running.as_ref().map(json),
            text.work,
        ])?;
        Ok(())
    }

    fn write_due(&self, append: &Append, head: &Head) -> Result<(), StoreError> {
        for change in &append.due {
            match change {
                DueChange::Set(due) => {
                    let mut statement = self.connection.prepare_cached(
                        "INSERT OR REPLACE INTO noetl.due (execution_id, kind, key, at, command_id, \
                         root_execution_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?;
                    statement.execute(params![
                        due.execution_id.0,
                        due.kind.as_str(),
                        due.key,
                        due.at.to_iso(),
                        due.command.map(|id| id.0),
                        head.root_execution_id.0,
                    ])?;
                }
                DueChange::Clear { execution_id, kind, key } => {
                    let mut statement = self
                        .connection
                        .prepare_cached("DELETE FROM noetl.due WHERE execution_id = ?1 AND kind = ?2 AND key = ?3")?;
                    statement.execute(params![execution_id.0, kind.as_str(), key])?;
                }
                // The head says that it has the key.
                DueChange::Enter(_) => {}
                DueChange::Tick(tick) => {
                    schedule::pass(&self.connection, tick, append.at, "started", Some(append.execution_id))?;
                }
            }
        }
        Ok(())
    }

    fn write_results(&self, append: &Append, texts: &Texts, head: &Head) -> Result<(), StoreError> {
        for (result, data) in append.results.iter().zip(&texts.results) {
            // A name is given once: written again, it is the same result.
            let mut statement = self.connection.prepare_cached(
                "INSERT OR IGNORE INTO noetl.result (reference, execution_id, root_execution_id, store, bytes, data, \
                 created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            statement.execute(params![
                result.reference,
                result.execution_id.0,
                head.root_execution_id.0,
                result.store,
                integer(result.bytes),
                data,
                texts.at,
            ])?;
        }
        Ok(())
    }

    fn write_snapshot(&self, head: &Head, state: &str) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO noetl.snapshot (execution_id, version, root_execution_id, engine, state) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let id = head.execution_id.0;
        statement.execute(params![id, integer(head.version), head.root_execution_id.0, head.engine, state])?;
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM noetl.snapshot WHERE execution_id = ?1 AND version NOT IN \
             (SELECT version FROM noetl.snapshot WHERE execution_id = ?1 ORDER BY version DESC LIMIT ?2)",
        )?;
        statement.execute(params![id, SNAPSHOTS_KEPT])?;
        Ok(())
    }
}

fn failed_steps(head: &Head) -> Option<String> {
    (!head.failed_steps.is_empty()).then(|| json(&head.failed_steps))
}

/// Returns a number as SQLite keeps it.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a head from its table.
pub(super) fn head(connection: &Connection, execution_id: ExecutionId) -> Result<Option<Head>, StoreError> {
    static QUERY: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {} FROM noetl.execution WHERE execution_id = ?1", rows::HEAD));
    let mut statement = connection.prepare_cached(&QUERY)?;
    let mut found = statement.query([execution_id.0])?;
    found.next()?.map(rows::head).transpose()
}

/// Reads who has a concurrency key.
pub(super) fn key_holders(connection: &Connection, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
    let query = "SELECT execution_id, active, started_at FROM noetl.execution \
                 WHERE concurrency_key = ?1 AND quiesced_at IS NULL ORDER BY execution_id";
    connection.prepare_cached(query)?.query_and_then([key], rows::key_holder)?.collect()
}

/// Reads the live commands of an execution.
pub(super) fn commands(connection: &Connection, execution_id: ExecutionId) -> Result<Vec<CommandRow>, StoreError> {
    static QUERY: LazyLock<String> = LazyLock::new(|| {
        let columns = rows::COMMAND;
        format!("SELECT {columns} FROM noetl.command WHERE execution_id = ?1 ORDER BY command_id, epoch")
    });
    let mut statement = connection.prepare_cached(&QUERY)?;
    statement.query_and_then([execution_id.0], rows::command)?.collect()
}

/// Reads the events after a version.
pub(super) fn tail(
    connection: &Connection,
    execution_id: ExecutionId,
    after: u64,
) -> Result<Vec<Recorded>, StoreError> {
    let columns = rows::EVENT;
    let query = format!("SELECT {columns} FROM noetl.event WHERE execution_id = ?1 AND version > ?2 ORDER BY version");
    let mut statement = connection.prepare_cached(&query)?;
    statement.query_and_then(params![execution_id.0, integer(after)], rows::event)?.collect()
}

/// Returns the only column of the only row, if there is one.
pub(super) fn one<T: rusqlite::types::FromSql>(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> Result<Option<T>, StoreError> {
    Ok(connection.prepare_cached(query)?.query_row(parameters, |row| row.get(0)).optional()?)
}
