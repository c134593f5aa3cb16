//! What one transaction writes, as columns: every table's rows are the parameters of one part of one statement.

use deadpool_postgres::ClientWrapper;
use noetl_core::append::Due;
use noetl_core::event::SCHEMA_VERSION;
use noetl_core::head::{CommandRow, Head, Holder};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::Shield;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::document::Document;
use super::rows;
use super::types::Moment;
use super::write::{CommandKey, DueKey, EventAfter, ResultAfter, integer, json};

/// Defines columns that become the parameters of one part of the statement.
macro_rules! columns {
    ($name:ident { $($column:ident: $rust:ty = $sql:literal),* $(,)? }) => {
        #[derive(Default)]
        pub(super) struct $name<'a> {
            $($column: Vec<$rust>,)*
            _of: std::marker::PhantomData<&'a ()>,
        }

        impl<'a> $name<'a> {
            const COLUMNS: &'static [(&'static str, &'static str)] = &[$((stringify!($column), $sql),)*];

            fn part(&self) -> Part<'_> {
                let values: Vec<&(dyn ToSql + Sync)> = vec![$(&self.$column,)*];
                Part { columns: Self::COLUMNS, values, rows: columns!(@first self $($column)*) }
            }
        }
    };
    (@first $self:ident $first:ident $($rest:ident)*) => { $self.$first.len() };
}

/// Columns with their values.
struct Part<'a> {
    columns: &'static [(&'static str, &'static str)],
    values: Vec<&'a (dyn ToSql + Sync)>,
    rows: usize,
}

columns!(HeadColumns {
    execution_id: i64 = "bigint",
    catalog_id: i64 = "bigint",
    path: &'a str = "text",
    playbook_version: i64 = "bigint",
    parent_execution_id: Option<i64> = "bigint",
    parent_command_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
    depth: i64 = "bigint",
    status: &'static str = "text",
    version: i64 = "bigint",
    decided: i64 = "bigint",
    in_flight: i64 = "bigint",
    runnable: bool = "boolean",
    engine: i64 = "bigint",
    cancel_mode: Option<&'static str> = "text",
    cancel_grace_ms: Option<i64> = "bigint",
    shield: Option<&'static str> = "text",
    started_at: Moment = "timestamptz",
    updated_at: Moment = "timestamptz",
    ended_at: Option<Moment> = "timestamptz",
    quiesced_at: Option<Moment> = "timestamptz",
    current_step: Option<&'a str> = "text",
    steps_entered: i64 = "bigint",
    commands_issued: i64 = "bigint",
    failed_steps: Option<String> = "json",
    error_detail: Option<String> = "json",
    cancel: Option<String> = "json",
    pause: Option<String> = "json",
    concurrency_key: Option<&'a str> = "text",
    labels: Option<String> = "jsonb",
    cleanup: Option<String> = "json",
    cleanup_of: Option<i64> = "bigint",
});

impl<'a> HeadColumns<'a> {
    pub(super) fn add(&mut self, head: &'a Head) {
        self.execution_id.push(head.execution_id.0);
        self.catalog_id.push(head.catalog_id.0);
        self.path.push(&head.path);
        self.playbook_version.push(head.playbook_version);
        self.parent_execution_id.push(head.parent_execution_id.map(|id| id.0));
        self.parent_command_id.push(head.parent_command_id.map(|id| id.0));
        self.root_execution_id.push(head.root_execution_id.0);
        self.depth.push(head.depth.into());
        self.status.push(head.status.as_str());
        self.version.push(integer(head.version));
        self.decided.push(integer(head.decided));
        self.in_flight.push(head.in_flight.into());
        self.runnable.push(head.runnable);
        self.engine.push(head.engine.into());
        self.cancel_mode.push(head.cancel_mode.map(rows::mode_word));
        self.cancel_grace_ms.push(head.cancel_grace_ms.map(integer));
        self.shield.push(head.shield.map(Shield::as_str));
        self.started_at.push(Moment(head.started_at));
        self.updated_at.push(Moment(head.updated_at));
        self.ended_at.push(head.ended_at.map(Moment));
        self.quiesced_at.push(head.quiesced_at.map(Moment));
        self.current_step.push(head.current_step.as_deref());
        self.steps_entered.push(integer(head.steps_entered));
        self.commands_issued.push(integer(head.commands_issued));
        self.failed_steps.push((!head.failed_steps.is_empty()).then(|| json(&head.failed_steps)));
        self.error_detail.push(head.error.as_ref().map(json));
        self.cancel.push(head.cancel.as_ref().map(json));
        self.pause.push(head.pause.as_ref().map(json));
        self.concurrency_key.push(head.concurrency_key.as_deref());
        self.labels.push((!head.labels.is_empty()).then(|| json(&head.labels)));
        self.cleanup.push(head.cleanup.as_ref().map(json));
        self.cleanup_of.push(head.cleanup_of.map(|id| id.0));
    }
}

columns!(EventColumns {
    execution_id: i64 = "bigint",
    version: i64 = "bigint",
    event_id: i64 = "bigint",
    parent_execution_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
    catalog_id: i64 = "bigint",
    event_type: &'static str = "text",
    node_name: Option<&'a str> = "text",
    node_type: Option<&'a str> = "text",
    status: &'static str = "text",
    context: Option<&'a str> = "jsonb",
    result: Option<&'a str> = "jsonb",
    meta: Option<&'a str> = "jsonb",
    error: Option<&'a str> = "text",
    worker_id: Option<&'a str> = "text",
    command_id: Option<i64> = "bigint",
    attempt: Option<i64> = "bigint",
    iteration: Option<i64> = "bigint",
    duration: Option<f64> = "double precision",
    created_at: Moment = "timestamptz",
    schema_version: i32 = "integer",
    key_order: Option<String> = "text",
});

impl<'a> EventColumns<'a> {
    pub(super) fn add(&mut self, event: &EventAfter<'a>) {
        let row = event.columns;
        self.execution_id.push(event.execution_id.0);
        self.version.push(integer(event.version));
        self.event_id.push(event.event_id.0);
        self.parent_execution_id.push(row.parent_execution_id.map(|id| id.0));
        self.root_execution_id.push(event.root_execution_id.0);
        self.catalog_id.push(event.catalog_id);
        self.event_type.push(row.event_type);
        self.node_name.push(row.node_name.as_deref());
        self.node_type.push(row.node_type.as_deref());
        self.status.push(row.status);
        self.context.push(row.context.as_ref().map(|document| document.text.as_str()));
        self.result.push(row.result.as_ref().map(|document| document.text.as_str()));
        self.meta.push(row.meta.as_ref().map(|document| document.text.as_str()));
        self.error.push(row.error.as_deref());
        self.worker_id.push(row.worker_id.as_deref());
        self.command_id.push(row.command_id.map(|id| id.0));
        self.attempt.push(row.attempt.map(i64::from));
        self.iteration.push(row.iteration.map(i64::from));
        self.duration.push(row.duration);
        self.created_at.push(Moment(event.at));
        self.schema_version.push(i32::try_from(SCHEMA_VERSION).unwrap_or(i32::MAX));
        let order = |document: &'a Option<Document>| document.as_ref().and_then(|document| document.order.as_deref());
        self.key_order.push(match (order(&row.context), order(&row.result)) {
            (None, None) => None,
            (context, result) => Some(format!("{}|{}", context.unwrap_or(""), result.unwrap_or(""))),
        });
    }
}

columns!(CommandColumns {
    execution_id: i64 = "bigint",
    command_id: i64 = "bigint",
    epoch: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    state: &'static str = "text",
    step: &'a str = "text",
    visit: i64 = "bigint",
    iteration: Option<i64> = "bigint",
    kind: &'a str = "text",
    pool: &'a str = "text",
    priority: i32 = "integer",
    enters: bool = "boolean",
    at_most_once: bool = "boolean",
    losses: i64 = "bigint",
    losses_max: i64 = "bigint",
    stopping: Option<String> = "json",
    grace_ms: Option<i64> = "bigint",
    wait: Option<String> = "json",
    issued_at: Moment = "timestamptz",
    session_id: Option<i64> = "bigint",
    worker_id: Option<&'a str> = "text",
    claimed_at: Option<Moment> = "timestamptz",
    started: bool = "boolean",
    running: Option<String> = "json",
    work: String = "json",
});

impl<'a> CommandColumns<'a> {
    pub(super) fn add(&mut self, row: &'a CommandRow) {
        let holder = row.holder.as_ref();
        self.execution_id.push(row.execution_id.0);
        self.command_id.push(row.command_id.0);
        self.epoch.push(row.epoch.into());
        self.root_execution_id.push(row.root_execution_id.0);
        self.state.push(row.state.as_str());
        self.step.push(&row.step);
        self.visit.push(row.visit.into());
        self.iteration.push(row.iteration.map(i64::from));
        self.kind.push(&row.kind);
        self.pool.push(&row.pool);
        self.priority.push(row.priority);
        self.enters.push(row.enters);
        self.at_most_once.push(row.at_most_once);
        self.losses.push(row.losses.into());
        self.losses_max.push(row.losses_max.into());
        self.stopping.push(row.stopping.as_ref().map(json));
        self.grace_ms.push(row.grace_ms.map(integer));
        self.wait.push(row.wait.as_ref().map(json));
        self.issued_at.push(Moment(row.since));
        self.session_id.push(holder.map(|holder| holder.session_id.0));
        self.worker_id.push(holder.map(|holder| holder.worker_id.as_ref()));
        self.claimed_at.push(holder.map(|holder| Moment(holder.claimed_at)));
        self.started.push(holder.is_some_and(|holder| holder.started));
        self.running.push(row.running.as_ref().map(json));
        self.work.push(json(&row.work));
    }
}

columns!(ClaimColumns {
    execution_id: i64 = "bigint",
    command_id: i64 = "bigint",
    epoch: i64 = "bigint",
    session_id: i64 = "bigint",
    worker_id: &'a str = "text",
    claimed_at: Moment = "timestamptz",
    started: bool = "boolean",
    withdrawn: bool = "boolean",
});

impl<'a> ClaimColumns<'a> {
    pub(super) fn add(&mut self, (execution_id, command_id, epoch): CommandKey, holder: &'a Holder, withdrawn: bool) {
        self.execution_id.push(execution_id.0);
        self.command_id.push(command_id.0);
        self.epoch.push(epoch.into());
        self.session_id.push(holder.session_id.0);
        self.worker_id.push(&holder.worker_id);
        self.claimed_at.push(Moment(holder.claimed_at));
        self.started.push(holder.started);
        self.withdrawn.push(withdrawn);
    }
}

columns!(WithdrawnColumns {
    execution_id: i64 = "bigint",
    command_id: i64 = "bigint",
    epoch: i64 = "bigint",
    started: bool = "boolean",
});

impl WithdrawnColumns<'_> {
    pub(super) fn add(&mut self, (execution_id, command_id, epoch): CommandKey, started: bool) {
        self.execution_id.push(execution_id.0);
        self.command_id.push(command_id.0);
        self.epoch.push(epoch.into());
        self.started.push(started);
    }
}

columns!(CommandKeys { execution_id: i64 = "bigint", command_id: i64 = "bigint", epoch: i64 = "bigint" });

impl CommandKeys<'_> {
    pub(super) fn add(&mut self, (execution_id, command_id, epoch): CommandKey) {
        self.execution_id.push(execution_id.0);
        self.command_id.push(command_id.0);
        self.epoch.push(epoch.into());
    }
}

columns!(DueColumns {
    execution_id: i64 = "bigint",
    kind: &'static str = "text",
    key: i64 = "bigint",
    at: Moment = "timestamptz",
    command_id: Option<i64> = "bigint",
    root_execution_id: i64 = "bigint",
});

impl DueColumns<'_> {
    pub(super) fn add(&mut self, due: &Due, root: ExecutionId) {
        self.execution_id.push(due.execution_id.0);
        self.kind.push(due.kind.as_str());
        self.key.push(due.key);
        self.at.push(Moment(due.at));
        self.command_id.push(due.command.map(|id| id.0));
        self.root_execution_id.push(root.0);
    }
}

columns!(DueKeys {
    execution_id: i64 = "bigint",
    kind: &'static str = "text",
    key: i64 = "bigint",
});

impl DueKeys<'_> {
    pub(super) fn add(&mut self, (execution_id, kind, key): DueKey) {
        self.execution_id.push(execution_id.0);
        self.kind.push(kind);
        self.key.push(key);
    }
}

columns!(ResultColumns {
    reference: &'a str = "text",
    execution_id: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    store: &'a str = "text",
    bytes: i64 = "bigint",
    data: &'a str = "json",
    created_at: Moment = "timestamptz",
});

impl<'a> ResultColumns<'a> {
    pub(super) fn add(&mut self, result: &ResultAfter<'a>) {
        self.reference.push(result.reference);
        self.execution_id.push(result.execution_id.0);
        self.root_execution_id.push(result.root_execution_id.0);
        self.store.push(result.store);
        self.bytes.push(integer(result.bytes));
        self.data.push(result.data);
        self.created_at.push(Moment(result.at));
    }
}

columns!(SnapshotColumns {
    execution_id: i64 = "bigint",
    version: i64 = "bigint",
    root_execution_id: i64 = "bigint",
    engine: i64 = "bigint",
    state: &'a str = "json",
});

impl<'a> SnapshotColumns<'a> {
    pub(super) fn add(&mut self, id: ExecutionId, version: u64, root: ExecutionId, engine: u32, state: &'a str) {
        self.execution_id.push(id.0);
        self.version.push(integer(version));
        self.root_execution_id.push(root.0);
        self.engine.push(engine.into());
        self.state.push(state);
    }
}

columns!(SurplusColumns { execution_id: i64 = "bigint", kept: i64 = "bigint" });

impl SurplusColumns<'_> {
    pub(super) fn add(&mut self, id: ExecutionId, kept: usize) {
        self.execution_id.push(id.0);
        self.kept.push(integer(kept as u64));
    }
}

/// Everything that one transaction writes.
#[derive(Default)]
pub(super) struct Outcome<'a> {
    pub(super) births: HeadColumns<'a>,
    pub(super) changes: HeadColumns<'a>,
    pub(super) events: EventColumns<'a>,
    pub(super) settled: CommandKeys<'a>,
    pub(super) commands: CommandColumns<'a>,
    pub(super) claims: ClaimColumns<'a>,
    pub(super) started: CommandKeys<'a>,
    pub(super) withdrawn: WithdrawnColumns<'a>,
    pub(super) met: DueKeys<'a>,
    pub(super) due: DueColumns<'a>,
    pub(super) results: ResultColumns<'a>,
    pub(super) surplus: SurplusColumns<'a>,
    pub(super) snapshots: SnapshotColumns<'a>,
}

/// What a change of a head sets; the rest stands from its birth.
const CHANGED: &[&str] = &[
    "version",
    "decided",
    "in_flight",
    "runnable",
    "updated_at",
    "current_step",
    "steps_entered",
    "commands_issued",
    "status",
    "ended_at",
    "quiesced_at",
    "failed_steps",
    "error_detail",
    "cancel",
    "pause",
];

/// What an attempt written anew under its key sets.
const REWRITTEN: &[&str] = &[
    "root_execution_id",
    "state",
    "step",
    "visit",
    "iteration",
    "kind",
    "pool",
    "priority",
    "enters",
    "at_most_once",
    "losses",
    "losses_max",
    "stopping",
    "grace_ms",
    "wait",
    "issued_at",
    "session_id",
    "worker_id",
    "claimed_at",
    "started",
    "running",
    "work",
];

/// The statement in the making: a `WITH` of the parts that have rows.
#[derive(Default)]
struct Statements<'a> {
    parts: Vec<String>,
    values: Vec<&'a (dyn ToSql + Sync)>,
}

impl<'a> Statements<'a> {
    /// Adds a part, when it has rows. In its text `{rows}` stands for the rows, `{names}` for the columns, and
    /// `{values}` for what is to be inserted.
    fn add(&mut self, part: Part<'a>, sql: &str) {
        if part.rows == 0 {
            return;
        }
        let (mut unnest, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for ((name, ty), value) in part.columns.iter().zip(part.values) {
            self.values.push(value);
            // Documents travel as text: that is how they were written.
            let wire = if ty.starts_with("json") { "text" } else { ty };
            unnest.push(format!("${}::{wire}[]", self.values.len()));
            names.push(*name);
            values.push(if ty.starts_with("json") { format!("{name}::{ty}") } else { (*name).to_owned() });
        }
        let names = names.join(", ");
        let rows = format!("unnest({}) AS n ({names})", unnest.join(", "));
        let sql = sql.replace("{rows}", &rows).replace("{names}", &names).replace("{values}", &values.join(", "));
        self.parts.push(format!("w{} AS ({sql})", self.parts.len()));
    }

    fn insert(&mut self, part: Part<'a>, table: &str, conflict: &str) {
        self.add(
            part,
            &format!("INSERT INTO noetl.{table} ({{names}}) SELECT {{values}} FROM {{rows}} {conflict} RETURNING 1"),
        );
    }

    fn text(&self) -> String {
        format!("WITH {} SELECT 1", self.parts.join(", "))
    }
}

fn set(names: &[&str], from: &str) -> String {
    let one = |name: &&str| {
        let json = ["failed_steps", "error_detail", "cancel", "pause"].contains(name) && from == "n";
        format!("{name} = {from}.{name}{}", if json { "::json" } else { "" })
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}

const COMMAND_KEY: &str =
    "c.execution_id = n.execution_id AND c.command_id = n.command_id AND c.epoch = n.epoch RETURNING 1";

impl Outcome<'_> {
    fn statements(&self) -> Statements<'_> {
        let mut all = Statements::default();
        // Heads first, by id; then commands: the order of locks everywhere.
        all.add(
            self.changes.part(),
            &format!(
                "UPDATE noetl.execution x SET {} FROM {{rows}} WHERE x.execution_id = n.execution_id RETURNING 1",
                set(CHANGED, "n")
            ),
        );
        all.insert(self.births.part(), "execution", "");
        all.add(self.settled.part(), &format!("DELETE FROM noetl.command c USING {{rows}} WHERE {COMMAND_KEY}"));
        all.insert(
            self.commands.part(),
            "command",
            &format!("ON CONFLICT (execution_id, command_id, epoch) DO UPDATE SET {}", set(REWRITTEN, "excluded")),
        );
        all.add(
            self.claims.part(),
            &format!(
                "UPDATE noetl.command c SET state = 'claimed', session_id = n.session_id, worker_id = n.worker_id, \
                 claimed_at = n.claimed_at, started = n.started, \
                 at_most_once = c.at_most_once OR n.withdrawn FROM {{rows}} WHERE {COMMAND_KEY}"
            ),
        );
        all.add(
            self.started.part(),
            &format!("UPDATE noetl.command c SET started = true FROM {{rows}} WHERE {COMMAND_KEY}"),
        );
        all.add(
            self.withdrawn.part(),
            &format!(
                "UPDATE noetl.command c SET at_most_once = true, started = c.started OR n.started, \
                 state = CASE WHEN c.state IN ('pending', 'paused') THEN 'suspended' ELSE c.state END \
                 FROM {{rows}} WHERE {COMMAND_KEY}"
            ),
        );
        all.insert(self.events.part(), "event", "");
        all.add(
            self.met.part(),
            "DELETE FROM noetl.due d USING {rows} \
             WHERE d.execution_id = n.execution_id AND d.kind = n.kind AND d.key = n.key RETURNING 1",
        );
        all.insert(
            self.due.part(),
            "due",
            "ON CONFLICT (execution_id, kind, key) DO UPDATE SET at = excluded.at, \
             command_id = excluded.command_id, root_execution_id = excluded.root_execution_id",
        );
        // A name is given once: written again, it is the same result.
        all.insert(self.results.part(), "result", "ON CONFLICT (reference) DO NOTHING");
        all.add(
            self.surplus.part(),
            "DELETE FROM noetl.snapshot s USING {rows} WHERE s.execution_id = n.execution_id AND s.version NOT IN \
             (SELECT k.version FROM noetl.snapshot k WHERE k.execution_id = n.execution_id \
              ORDER BY k.version DESC LIMIT n.kept) RETURNING 1",
        );
        all.insert(
            self.snapshots.part(),
            "snapshot",
            "ON CONFLICT (execution_id, version) DO UPDATE SET engine = excluded.engine, state = excluded.state",
        );
        all
    }

    /// Prepares the statement, before the transaction that needs it goes on.
    pub(super) async fn prepare<'s>(
        &'s self,
        client: &ClientWrapper,
    ) -> Result<(Statement, Vec<&'s (dyn ToSql + Sync)>), tokio_postgres::Error> {
        let statements = self.statements();
        let statement = client.prepare_cached(&statements.text()).await?;
        Ok((statement, statements.values))
    }
}
