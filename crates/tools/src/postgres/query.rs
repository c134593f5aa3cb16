//! One statement: what it answers.
//!
//! Statements go by the simple protocol, which sends every value as the server's own text: so each type is
//! readable, also those that nobody here has heard of, and a `numeric` keeps its digits. What it does not send is
//! the types of the columns; those come from preparing the statement first. Parameters go by SQL's own `PREPARE` and
//! `EXECUTE`, as quoted texts that the server reads with the type that it has found for each.

use std::pin::Pin;

use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use super::error::Trouble;
use super::values::{json_of, literal};
use crate::sql::{Answer, Statement};

/// Name of the statement that carries parameters. One at a time: it is given back before the next.
const PREPARED: &str = "noetl_with_params";

/// What a row weighs beside its names and values.
const ROW_OVERHEAD_BYTES: usize = 4;
/// What a field weighs beside its name and value: quotes, colon, comma.
const FIELD_OVERHEAD_BYTES: usize = 6;

/// Runs a statement and takes all its rows, as long as they fit into the budget; returns also how many of the
/// parameters it has.
pub(crate) async fn ask(
    client: &Client,
    statement: &Statement<'_>,
    params: &[Value],
    budget: &mut usize,
) -> Result<(Answer, usize), Trouble> {
    let mut rows = Rows::open(client, statement, params).await?;
    let mut answer = Answer::default();
    while let Some((row, bytes)) = rows.next().await? {
        *budget = budget.checked_sub(bytes).ok_or(Trouble::TooLarge)?;
        answer.rows.push(Value::Object(row));
    }
    answer.affected_rows = rows.affected_rows;
    answer.columns = rows.columns;
    if rows.params_used > 0 {
        client.batch_execute(&format!("DEALLOCATE {PREPARED}")).await?;
    }
    Ok((answer, rows.params_used))
}

/// The rows of a running statement. Dropping it half-way leaves a connection that can only be given up.
pub(crate) struct Rows {
    stream: Pin<Box<SimpleQueryStream>>,
    is_done: bool,
    types: Vec<Type>,
    pub(crate) columns: Vec<String>,
    affected_rows: u64,
    params_used: usize,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Rows {
    /// Begins with a statement.
    pub(crate) async fn open(client: &Client, statement: &Statement<'_>, params: &[Value]) -> Result<Self, Trouble> {
        if statement.text.contains('\0') {
            return Err(Trouble::Parameter("the SQL holds a NUL character, which no statement can hold".to_owned()));
        }
        let mut types = Vec::new();
        let mut params_used = 0;
        let mut sql = statement.text.to_owned();
        if statement.may_return_rows || !params.is_empty() {
            let prepared = client.prepare(statement.text).await?;
            types = prepared.columns().iter().map(|column| column.type_().clone()).collect();
            params_used = prepared.params().len();
            if params_used > params.len() {
                let given = params.len();
                let message = format!("the statement has {params_used} parameters, `params` has {given} values");
                return Err(Trouble::Parameter(message));
            }
            if params_used > 0 {
                let values: Result<Vec<_>, _> =
                    prepared.params().iter().zip(params).map(|(kind, value)| literal(kind, value)).collect();
                let values = values.map_err(Trouble::Parameter)?;
                client.batch_execute(&format!("PREPARE {PREPARED} AS {}", statement.text)).await?;
                sql = format!("EXECUTE {PREPARED} ({})", values.join(", "));
            }
        }
        let stream = Box::pin(client.simple_query_raw(&sql).await?);
        Ok(Rows { stream, is_done: false, types, columns: Vec::new(), affected_rows: 0, params_used })
    }

    /// Returns the next row and what it weighs; `None` once the statement is done.
    pub(crate) async fn next(&mut self) -> Result<Option<(Map<String, Value>, usize)>, Trouble> {
        while !self.is_done {
            let Some(message) = self.stream.next().await else {
                // The driver takes the end for a broken connection if it is asked again.
                self.is_done = true;
                break;
            };
            match message? {
                SimpleQueryMessage::RowDescription(columns) => {
                    self.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => return Ok(Some(self.read(&row))),
                SimpleQueryMessage::CommandComplete(affected_rows) => self.affected_rows = affected_rows,
                // The driver may learn of more.
                _ => {}
            }
        }
        Ok(None)
    }

    fn read(&self, row: &SimpleQueryRow) -> (Map<String, Value>, usize) {
        let mut weight = ROW_OVERHEAD_BYTES;
        let field = |(index, name): (usize, &String)| {
            let text = row.get(index);
            weight += name.len() + text.map_or(0, str::len) + FIELD_OVERHEAD_BYTES;
            let kind = self.types.get(index).unwrap_or(&Type::TEXT);
            (name.clone(), text.map_or(Value::Null, |text| json_of(kind, text)))
        };
        let fields = self.columns.iter().enumerate().map(field).collect();
        (fields, weight)
    }
}
