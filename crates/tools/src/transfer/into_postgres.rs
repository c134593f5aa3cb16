//! Rows into a table of PostgreSQL.

use noetl_core::tool::Stopped;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::plan::{Mode, Plan, field, quoted};
use super::{Means, Moved, Row, config_error};
use crate::failure::Failure;
use crate::postgres::{Connection, Trouble, before_it_began, roll_back, target, text_of, tool_error, under_brake};
use crate::stop::Brake;

/// A table that is being written, in a transaction: if it is dropped before its end, nothing has happened.
#[derive(Debug)]
pub(super) struct Target {
    connection: Connection,
    /// What the table has.
    table_columns: Vec<TableColumn>,
    primary_key: Vec<String>,
    insert: Option<Insert>,
    moved: Moved,
}

/// A column of the table.
#[derive(Debug)]
struct TableColumn {
    name: String,
    /// The type's name in SQL, without length or precision: a cast would cut to these, an assignment complains.
    cast: String,
}

/// How rows are inserted, once the first has shown which fields there are.
#[derive(Debug)]
struct Insert {
    /// Column and field.
    columns: Vec<(String, String)>,
    types: Vec<Type>,
    sql: String,
}

/// Returns the table's columns. Assigned and written by itself are not the same: what the server generates is left out.
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute \
                       WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' \
                       ORDER BY attnum";

const PRIMARY_KEY: &str = "SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, nth), \
                           pg_attribute a WHERE i.indrelid = $1::text::regclass AND i.indisprimary \
                           AND a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.nth";

impl Target {
    pub(super) async fn open(means: &Means<'_>, plan: &Plan, brake: &mut Brake) -> Result<Self, Failure> {
        let target = before_it_began(brake, target(&plan.target_config, means.outside.secrets)).await??;
        let mut connection = before_it_began(brake, means.pool.connect(&target)).await??;
        let (link, notices) = connection.parts();
        let client = link.client();
        let looking = async {
            client.batch_execute("BEGIN").await?;
            let columns = client.query(COLUMNS, &[&plan.table]).await?;
            let primary_key = client.query(PRIMARY_KEY, &[&plan.table]).await?;
            if plan.mode == Mode::Replace {
                client.batch_execute(&format!("DELETE FROM {}", plan.table)).await?;
            }
            let column = |row: &tokio_postgres::Row| Ok(TableColumn { name: row.try_get(0)?, cast: row.try_get(1)? });
            let columns: Result<_, tokio_postgres::Error> = columns.iter().map(column).collect();
            let key: Result<_, tokio_postgres::Error> = primary_key.iter().map(|row| row.try_get(0)).collect();
            Ok((columns?, key?))
        };
        let looked = under_brake(link, notices, brake, means.outside.log, looking).await;
        let (table_columns, primary_key) = looked.settle(brake, |trouble| tool_error(&trouble))?;
        Ok(Target { connection, table_columns, primary_key, insert: None, moved: Moved::default() })
    }

    pub(super) async fn write(
        &mut self,
        means: &Means<'_>,
        plan: &Plan,
        chunk: &[Row],
        brake: &mut Brake,
    ) -> Result<(), Failure> {
        let Some(first) = chunk.first() else { return Ok(()) };
        let (insert, is_new) = match self.insert.take() {
            Some(insert) => (insert, false),
            None => (self.insert_of(plan, first)?, true),
        };
        let (link, notices) = self.connection.parts();
        let writing = write_chunk(link.client(), plan, insert, is_new, chunk);
        let written = under_brake(link, notices, brake, means.outside.log, writing).await;
        let insert = written.settle(brake, |trouble| tool_error(&trouble))?;
        self.insert = Some(insert);
        self.moved.rows += chunk.len() as u64;
        self.moved.chunks += 1;
        Ok(())
    }

    pub(super) async fn finish(mut self, means: &Means<'_>, plan: &Plan, brake: &mut Brake) -> Result<Moved, Failure> {
        let (link, notices) = self.connection.parts();
        let client = link.client();
        let committing = async {
            client.batch_execute("COMMIT").await?;
            link.reset().await
        };
        let committed = under_brake(link, notices, brake, means.outside.log, committing).await;
        committed.settle(brake, |trouble| tool_error(&trouble))?;
        self.connection.tell_notices(means.outside.log);
        if brake.cause().is_none() {
            means.pool.keep(self.connection);
        }
        let columns = match (self.insert, &plan.mapping) {
            (Some(insert), _) => insert.columns.into_iter().map(|(column, _)| column).collect(),
            (None, Some(mapping)) => mapping.iter().map(|(column, _)| column.clone()).collect(),
            (None, None) => Vec::new(),
        };
        Ok(Moved { columns, ..self.moved })
    }

    /// Ends the transaction: nothing has happened, and nobody waits for its locks.
    pub(super) async fn abandon(mut self) -> Stopped {
        roll_back(self.connection.parts().0).await
    }

    /// Returns the table's column that a name means: exactly that, else the same in other cases of letters.
    fn column(&self, name: &str, plan: &Plan) -> Result<&TableColumn, Failure> {
        let exact = self.table_columns.iter().find(|column| column.name == name);
        let found = exact.or_else(|| self.table_columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let known: Vec<&str> = self.table_columns.iter().map(|column| column.name.as_str()).collect();
            config_error(format!("{} has no column `{name}`: it has {}", plan.table, known.join(", "))).into()
        })
    }

    fn insert_of(&self, plan: &Plan, first: &Row) -> Result<Insert, Failure> {
        let mut columns = Vec::new();
        let mut casts = Vec::new();
        for (name, from) in plan.columns(first) {
            let TableColumn { name, cast } = self.column(&name, plan)?;
            columns.push((name.clone(), from));
            casts.push(cast);
        }
        if columns.is_empty() {
            return Err(config_error("the first row has no fields").into());
        }
        let mut key = Vec::new();
        for name in &plan.key {
            key.push(self.column(name, plan)?.name.clone());
        }
        if key.is_empty() {
            key.clone_from(&self.primary_key);
        }
        let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
        let arrays: Vec<String> = (1..=columns.len()).map(|nth| format!("${nth}::text[]")).collect();
        let aliases: Vec<String> = (0..columns.len()).map(|nth| format!("c{nth}")).collect();
        let values: Vec<String> = casts.iter().enumerate().map(|(nth, cast)| format!("c{nth}::{cast}")).collect();
        let from = format!("FROM unnest({}) WITH ORDINALITY AS v({}, nth)", arrays.join(", "), aliases.join(", "));
        let head = format!("INSERT INTO {} ({})", plan.table, names.join(", "));
        let sql = match plan.mode {
            Mode::Append | Mode::Replace => format!("{head} SELECT {} {from} ORDER BY nth", values.join(", ")),
            Mode::Upsert => {
                if key.is_empty() {
                    let message =
                        format!("{} has no primary key: say with `target.key` what upsert goes by", plan.table);
                    return Err(config_error(message).into());
                }
                let mut key_values = Vec::new();
                for column in &key {
                    let nth = columns.iter().position(|(name, _)| name == column).ok_or_else(|| {
                        config_error(format!("upsert goes by `{column}`, which the rows do not give"))
                    })?;
                    key_values.push(values[nth].clone());
                }
                let key_names: Vec<String> = key.iter().map(|name| quoted(name)).collect();
                let others: Vec<String> = names
                    .iter()
                    .filter(|name| !key_names.contains(name))
                    .map(|name| format!("{name} = EXCLUDED.{name}"))
                    .collect();
                let action = match others.as_slice() {
                    [] => "NOTHING".to_owned(),
                    others => format!("UPDATE SET {}", others.join(", ")),
                };
                // Of rows with the same key the last counts; one statement must not touch a row twice.
                format!(
                    "{head} SELECT DISTINCT ON ({keys}) {values} {from} ORDER BY {keys}, nth DESC \
                     ON CONFLICT ({key}) DO {action}",
                    keys = key_values.join(", "),
                    values = values.join(", "),
                    key = key_names.join(", "),
                )
            }
        };
        Ok(Insert { columns, types: Vec::new(), sql })
    }
}

async fn write_chunk(
    client: &Client,
    plan: &Plan,
    mut insert: Insert,
    is_new: bool,
    chunk: &[Row],
) -> Result<Insert, Trouble> {
    if is_new {
        let names: Vec<String> = insert.columns.iter().map(|(name, _)| quoted(name)).collect();
        let described = client.prepare(&format!("SELECT {} FROM {}", names.join(", "), plan.table)).await?;
        insert.types = described.columns().iter().map(|column| column.type_().clone()).collect();
    }
    let mut arrays: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(chunk.len()); insert.columns.len()];
    for row in chunk {
        if let Some(stranger) = plan.stranger(row, &insert.columns) {
            let message = format!("a row has the field `{stranger}`, the first row had not: give a `mapping`");
            return Err(Trouble::Parameter(message));
        }
        for (((_, from), kind), array) in insert.columns.iter().zip(&insert.types).zip(&mut arrays) {
            let text = text_of(kind, field(row, from));
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                let message = format!("the field `{from}` holds a NUL character, which PostgreSQL does not keep");
                return Err(Trouble::Parameter(message));
            }
            array.push(text);
        }
    }
    let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
    client.execute(&insert.sql, &params).await?;
    Ok(insert)
}
