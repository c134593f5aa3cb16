//! What SQLite's errors mean to a caller.

use noetl_core::event::row::RowError;
use rusqlite::{Error, ErrorCode, ffi};

use crate::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::SqliteFailure(failure, _) => of_code(&failure, text),
            // A value that is not what its column says was not written by us.
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => StoreError::Corrupt(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

impl From<RowError> for StoreError {
    fn from(error: RowError) -> Self {
        StoreError::Corrupt(error.to_string())
    }
}

fn of_code(failure: &ffi::Error, text: String) -> StoreError {
    // Bytes missing in the middle of a file are damage, not a passing failure.
    const SHORT_READ: i32 = ffi::SQLITE_IOERR_SHORT_READ;
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full(text),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
        ErrorCode::SystemIoFailure if failure.extended_code == SHORT_READ => StoreError::Corrupt(text),
        ErrorCode::ConstraintViolation | ErrorCode::TooBig => StoreError::BadData(text),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => StoreError::Closed(text),
        _ => StoreError::Unavailable(text),
    }
}
