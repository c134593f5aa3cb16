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
    #[error("{construct} is not supported on the embedded store{}{}", at(*position), advice(*hint))]
    Unsupported { construct: String, hint: Option<&'static str>, position: Option<Position> },
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
        QueryError::Unsupported { construct: construct.into(), hint: None, position: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        QueryError::Invalid { message: message.into(), position: None }
    }

    /// Adds what to write instead of an unsupported construct.
    pub(super) fn hint(mut self, text: &'static str) -> Self {
        if let QueryError::Unsupported { hint, .. } = &mut self {
            *hint = Some(text);
        }
        self
    }

    /// Adds the place to an error that has none yet.
    pub(super) fn located(mut self, span: impl Into<Option<Span>>) -> Self {
        let found = span.into().and_then(Position::of);
        match &mut self {
            QueryError::ReadOnly { position, .. }
            | QueryError::Unsupported { position, .. }
            | QueryError::Invalid { position, .. } => *position = position.or(found),
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

fn advice(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!("; {hint}"))
}

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
