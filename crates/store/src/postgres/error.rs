//! What PostgreSQL's errors mean to a caller.

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::StoreError;

/// How the rest of a transaction is to be taken after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The connection is gone; what was asked may have happened.
    Connection,
    /// It was unlucky, and may work again at once.
    Passing,
    /// The log has no partition for an execution of that month.
    NoPartition,
    /// The lock was not given in time.
    LockTimeout,
    /// The data itself.
    Refused,
}

/// Says what kind of failure it is.
pub(super) fn failed(error: &Error) -> Failed {
    let Some(database) = error.as_db_error() else { return Failed::Connection };
    let code = database.code();
    if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        Failed::Passing
    } else if *code == SqlState::LOCK_NOT_AVAILABLE {
        Failed::LockTimeout
    } else if *code == SqlState::CHECK_VIOLATION && database.constraint().is_none() {
        // The only check without a name: no partition takes the row.
        Failed::NoPartition
    } else if code.code().starts_with("57P") || code.code().starts_with("08") || code.code() == "25P03" {
        // The server is shutting down, or has ended this session.
        Failed::Connection
    } else {
        Failed::Refused
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Some(database) = error.as_db_error() else {
            return StoreError::Unavailable(connection(&error));
        };
        let code = database.code();
        let text = format!("{} ({})", database.message(), code.code());
        if *code == SqlState::DISK_FULL {
            return StoreError::Full(text);
        }
        if *code == SqlState::READ_ONLY_SQL_TRANSACTION || *code == SqlState::INSUFFICIENT_PRIVILEGE {
            return StoreError::Closed(text);
        }
        match code.code().get(..2) {
            // Broken rules of the tables, values that no type takes, limits of a row.
            Some("22" | "23" | "54") => StoreError::BadData(text),
            Some("XX") if matches!(code.code(), "XX001" | "XX002") => StoreError::Corrupt(text),
            // Who may not come in, and what is not there.
            Some("28" | "3D" | "3F" | "42") => StoreError::Closed(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

/// What went wrong on the way, with its cause.
pub(super) fn connection(error: &Error) -> String {
    use std::error::Error as _;
    let Some(cause) = error.source() else { return error.to_string() };
    let cause = cause.to_string();
    // The driver has no kind for it.
    let remedy = if cause.contains("does not support TLS") {
        " (sslmode=disable in the database URL does without, if the network to it is trusted)"
    } else {
        ""
    };
    format!("{error}: {cause}{remedy}")
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => StoreError::from(error),
            PoolError::Closed => StoreError::Closed("it has been closed".into()),
            PoolError::Timeout(_) => StoreError::Unavailable("every connection to the database is busy".into()),
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}
