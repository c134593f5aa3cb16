//! What a database's errors mean to a playbook.

use noetl_core::tool::{ErrorKind, ToolError};
use tokio_postgres::error::{DbError, ErrorPosition};

use super::ROWS_BYTES_MAX;
use crate::sql::{Statement, place};

/// What can go wrong between us and a database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The driver's or the server's own error.
    #[error("{}", explained(.0))]
    Driver(#[from] tokio_postgres::Error),
    /// Nobody answered.
    #[error("the server did not answer within {} s", super::connection::CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    /// Encryption can not be set up.
    #[error("{0}")]
    Tls(String),
    /// The rows are too many.
    #[error("the rows exceed the limit of {ROWS_BYTES_MAX} bytes: add a LIMIT, or use `transfer`")]
    TooLarge,
    /// A parameter can not be passed.
    #[error("{0}")]
    Parameter(String),
    /// The server does what no server does.
    #[error("{0}")]
    Odd(&'static str),
}

impl Trouble {
    fn database(&self) -> Option<&DbError> {
        match self {
            Trouble::Driver(error) => error.as_db_error(),
            Trouble::ConnectTimeout | Trouble::Tls(_) | Trouble::TooLarge | Trouble::Parameter(_) | Trouble::Odd(_) => {
                None
            }
        }
    }

    /// Whether the server says that it has ended the statement, or the backend, because somebody told it to.
    pub(crate) fn is_stop(&self) -> bool {
        self.database().is_some_and(|said| matches!(said.code().code(), "57014" | "57P01"))
    }

    /// Whether the connection is gone and nothing was said.
    pub(crate) fn is_closed(&self) -> bool {
        self.database().is_none() && matches!(self, Trouble::Driver(_) | Trouble::ConnectTimeout)
    }
}

/// The driver's errors keep what happened in their sources.
fn explained(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Returns the kind of an SQLSTATE, and whether trying again may help.
fn kind(sqlstate: &str) -> (ErrorKind, bool) {
    let class = sqlstate.get(..2).unwrap_or_default();
    match (class, sqlstate) {
        (_, "40002") => (ErrorKind::DbConstraint, false),
        (_, "40001" | "40P01" | "40000") => (ErrorKind::DbDeadlock, true),
        // Cancelled by the server's own time limit, or by an administrator; a lock that was not had in time.
        (_, "57014" | "55P03" | "25P03" | "57P05") => (ErrorKind::DbTimeout, true),
        (_, "53300" | "57P01" | "57P02" | "57P03" | "40003") | ("08", _) => (ErrorKind::DbConnection, true),
        (_, "53100") => (ErrorKind::StorageQuota, false),
        ("53" | "58" | "XX", _) => (ErrorKind::ServerError, true),
        ("23", _) => (ErrorKind::DbConstraint, false),
        ("28", _) | (_, "42501") => (ErrorKind::Auth, false),
        (_, "42601") => (ErrorKind::Parse, false),
        (_, "42P01" | "42703" | "42883" | "42704" | "3D000" | "3F000" | "26000") => (ErrorKind::NotFound, false),
        ("22", _) => (ErrorKind::Schema, false),
        ("P0", _) => (ErrorKind::Code, false),
        ("54", _) => (ErrorKind::Limit, false),
        _ => (ErrorKind::ClientError, false),
    }
}

/// Returns the error that a tool ends with.
pub(crate) fn tool_error(trouble: &Trouble) -> ToolError {
    if let Some(said) = trouble.database() {
        let sqlstate = said.code().code();
        let (kind, is_retryable) = kind(sqlstate);
        let mut error = ToolError::hard(kind, format!("PG_{sqlstate}"), said.message()).with("pg_code", sqlstate);
        error.retryable = is_retryable;
        let facts = [
            ("detail", said.detail()),
            ("hint", said.hint()),
            ("schema_name", said.schema()),
            ("table_name", said.table()),
            ("column_name", said.column()),
            ("constraint_name", said.constraint()),
        ];
        return facts.into_iter().fold(error, |error, (name, fact)| match fact {
            Some(fact) => error.with(name, fact),
            None => error,
        });
    }
    let message = trouble.to_string();
    match trouble {
        Trouble::Driver(_) | Trouble::ConnectTimeout => {
            ToolError::hard(ErrorKind::DbConnection, "DB_CONNECTION", message).retryable()
        }
        Trouble::Tls(_) => ToolError::hard(ErrorKind::Config, "DB_TLS", message),
        Trouble::TooLarge => ToolError::hard(ErrorKind::Limit, "RESULT_TOO_LARGE", message),
        Trouble::Parameter(_) => super::config_error(message),
        Trouble::Odd(_) => ToolError::hard(ErrorKind::ServerError, "DB_ODD", message),
    }
}

/// Returns the error of a statement, with its place in the text that it stands in.
pub(crate) fn of_statement(trouble: &Trouble, script: &str, statement: &Statement<'_>, index: usize) -> ToolError {
    let error = tool_error(trouble).with("statement", index);
    let Some(ErrorPosition::Original(position)) = trouble.database().and_then(DbError::position) else {
        return error;
    };
    // The server counts characters of the statement, from 1.
    let within = (*position as usize).saturating_sub(1);
    let bytes = statement.text.char_indices().nth(within).map_or(statement.text.len(), |(bytes, _)| bytes);
    let (line, column) = place(script, statement.offset + bytes);
    let message = format!("{} (line {line}, column {column} of the SQL)", error.message);
    ToolError { message, ..error }.with("position", *position).with("line", line).with("column", column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_sqlstate_have_kinds() {
        let table = [
            ("08006", ErrorKind::DbConnection, true),
            ("57P01", ErrorKind::DbConnection, true),
            ("53300", ErrorKind::DbConnection, true),
            ("40001", ErrorKind::DbDeadlock, true),
            ("40P01", ErrorKind::DbDeadlock, true),
            ("57014", ErrorKind::DbTimeout, true),
            ("55P03", ErrorKind::DbTimeout, true),
            ("53100", ErrorKind::StorageQuota, false),
            ("XX000", ErrorKind::ServerError, true),
            ("23505", ErrorKind::DbConstraint, false),
            ("40002", ErrorKind::DbConstraint, false),
            ("28P01", ErrorKind::Auth, false),
            ("42501", ErrorKind::Auth, false),
            ("42601", ErrorKind::Parse, false),
            ("42P01", ErrorKind::NotFound, false),
            ("22012", ErrorKind::Schema, false),
            ("P0001", ErrorKind::Code, false),
            ("54000", ErrorKind::Limit, false),
            ("42804", ErrorKind::ClientError, false),
            ("", ErrorKind::ClientError, false),
        ];
        for (sqlstate, expected, is_retryable) in table {
            assert_eq!(kind(sqlstate), (expected, is_retryable), "{sqlstate}");
        }
    }
}
