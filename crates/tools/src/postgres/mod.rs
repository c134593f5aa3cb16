//! `postgres`: SQL statements, in order, on one connection.
//!
//! Configuration: `auth` (or `credential`), the alias of a credential, and / or `host`, `port`, `user`, `password`,
//! `database`, `sslmode`, `connection_string`, which win over the credential's fields; `query`, `command`, `commands`
//! or `script: {uri}`, one text or several, each with any number of statements; `params`, values for `$1`, `$2`, ….
//!
//! Every statement commits by itself unless the SQL says `BEGIN`; what begins must end, a transaction that is left
//! open is rolled back and an error. Data: the fields of the last statement (`rows`, `row_count`, `columns`,
//! `affected_rows`), the same for each as `command_0`, `command_1`, …, and `statement_count`. What the server says
//! beside it (`RAISE NOTICE`) goes to the log.
//!
//! SQL errors are hard, code `PG_<sqlstate>`. A stop is a cancel request for this backend, repeated until the
//! statement is gone; after the grace the backend is terminated.
//!
//! In reading order: `target`, where to connect; `connection` and `pool`; `brake`, how work is stopped; `query`
//! and `values`, one statement and its rows; `error`.

use crate::failure::Failure;
use crate::sql::{self, Answer, statements};
use crate::stop::Brake;
use crate::{Outside, Settings, http};
use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};

mod brake;
mod connection;
mod error;
mod pool;
mod query;
mod target;
mod tls;
mod values;

pub(crate) use brake::{end_statement, roll_back, under_brake, under_standing_brake};
pub(crate) use connection::Connection;
pub(crate) use error::{Trouble, of_statement, tool_error};
pub(crate) use pool::Pool;
pub(crate) use query::Rows;
pub(crate) use target::target;
pub(crate) use values::text_of;

/// Most bytes of rows that one call returns, counted as JSON. Twice that, because the last statement's rows stand
/// in the data twice, is the largest result of any tool.
pub(crate) const ROWS_BYTES_MAX: usize = 32 << 20;

/// Runs the statements of a call.
pub(crate) async fn run(
    pool: &Pool,
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> ToolOutcome {
    let mut answers = Vec::new();
    let worked = work(pool, settings, clients, call, brake, outside, &mut answers).await;
    let data = sql::data(answers);
    match worked {
        Ok(()) => ToolOutcome::ok(data),
        Err(failure) => failure.into_outcome(data),
    }
}

async fn work(
    pool: &Pool,
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    brake: &mut Brake,
    outside: Outside<'_>,
    answers: &mut Vec<Answer>,
) -> Result<(), Failure> {
    let mut scripts = Vec::new();
    for source in sql::sources(&call.config).map_err(config_error)? {
        scripts.push(source.load(settings, clients, brake, outside, config_error).await?);
    }
    let params = sql::params(&call.config).map_err(config_error)?;
    let target = before_it_began(brake, target(&call.config, outside.secrets)).await??;
    let mut connection = before_it_began(brake, pool.connect(&target)).await??;

    let mut budget = ROWS_BYTES_MAX;
    let mut params_used = 0;
    for script in &scripts {
        for statement in statements(script) {
            // Race: the order may have come while the statement before was ending.
            if let Some(cause) = brake.cause() {
                return Err(Failure::stopped(cause.error(), Stopped::Stopped));
            }
            let index = answers.len();
            let (link, notices) = connection.parts();
            let asked = query::ask(link.client(), &statement, &params, &mut budget);
            let worked = under_brake(link, notices, brake, outside.log, asked).await;
            let (answer, used) = worked.settle(brake, |trouble| of_statement(&trouble, script, &statement, index))?;
            params_used = params_used.max(used);
            answers.push(answer);
        }
    }
    let (link, notices) = connection.parts();
    let reset = under_brake(link, notices, brake, outside.log, link.reset()).await;
    let left_open = reset.settle(brake, |trouble| tool_error(&trouble))?;
    connection.tell_notices(outside.log);
    if left_open {
        let message = "the statements left a transaction open, it was rolled back: end it with COMMIT";
        return Err(ToolError::hard(ErrorKind::ClientError, "TRANSACTION_LEFT_OPEN", message).into());
    }
    if brake.cause().is_none() {
        pool.keep(connection);
    }
    if params_used < params.len() {
        let message = format!("`params` has {} values, the statements use {params_used}", params.len());
        return Err(config_error(message).into());
    }
    Ok(())
}

/// Waits for something that leaves nothing behind when it is dropped.
pub(crate) async fn before_it_began<T>(brake: &mut Brake, preparing: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        prepared = preparing => Ok(prepared),
        _grace = brake.next() => {
            let error = match brake.cause() {
                Some(cause) => cause.error(),
                // The brake does not come without a cause.
                None => ToolError::soft(ErrorKind::Cancelled, "CANCELLED", "stopped"),
            };
            Err(Failure::stopped(error, Stopped::Stopped))
        }
    }
}

pub(crate) fn config_error(message: impl Into<String>) -> ToolError {
    ToolError::hard(ErrorKind::Config, "POSTGRES_CONFIG", message)
}
