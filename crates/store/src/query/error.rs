//! What can be wrong with a query, said so that the person can mend it.

use std::fmt;
use std::time::Duration;

use sqlparser::tokenizer::Span;

/// A place in the query text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    /// Returns where a piece of the query begins, if the parser kept it.
    pub(super) fn of(span: Span) -> Option<Self> {
        (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
    }
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is not SQL.
    #[error("syntax error: {0}")]
    Syntax(String),
    /// The statement would change something, or is not a query at all.
    #[error("{statement} is not allowed: queries are read-only, one SELECT at a time{}", at(*position))]
    ReadOnly { statement: String, position: Option<Position> },
    /// PostgreSQL knows the construct, the embedded store does not.
    #[error("{construct} is not supported on the embedded store{}", at(*position))]
    Unsupported { construct: String, position: Option<Position> },
    /// A name, a type or a value does not fit.
    #[error("{message}{}", at(*position))]
    Invalid { message: String, position: Option<Position> },
    /// The query is larger or deeper than the limits.
    #[error("query is too {0}")]
    TooLarge(String),
    /// The query ran longer than its limit.
    #[error("query stopped after {} ms, its time limit; narrow it down or add a LIMIT", .0.as_millis())]
    TimedOut(Duration),
    /// The query failed while it ran.
    #[error("{0}")]
    Failed(String),
    /// SQLite refused the translated statement, or could not read the store.
    #[error("query failed in the store: {0}")]
    Store(#[from] rusqlite::Error),
}

impl QueryError {
    pub(super) fn unsupported(construct: impl Into<String>) -> Self {
        QueryError::Unsupported { construct: construct.into(), position: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        QueryError::Invalid { message: message.into(), position: None }
    }

    /// Adds the place to an error that has none yet.
    pub(super) fn located(mut self, span: Span) -> Self {
        match &mut self {
            QueryError::ReadOnly { position, .. }
            | QueryError::Unsupported { position, .. }
            | QueryError::Invalid { position, .. } => *position = position.or(Position::of(span)),
            QueryError::Syntax(_)
            | QueryError::TooLarge(_)
            | QueryError::TimedOut(_)
            | QueryError::Failed(_)
            | QueryError::Store(_) => {}
        }
        self
    }
}

pub(super) type Result<T> = std::result::Result<T, QueryError>;

fn at(position: Option<Position>) -> Suffix {
    Suffix(position)
}

struct Suffix(Option<Position>);

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Position { line, column }) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}
