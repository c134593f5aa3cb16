//! Appends that have been written out before their batch gathers.

use noetl_core::append::Append;

use crate::postgres;
use crate::sqlite;

/// An append as one store wants it. Another store makes what it needs of it anew.
#[derive(Debug)]
pub struct Prepared(pub(crate) Form);

/// Whose form it has.
#[derive(Debug)]
pub(crate) enum Form {
    /// Nobody's.
    Plain(Box<Append>),
    /// Texts to be bound.
    Sqlite(Box<sqlite::Ready>),
    /// Documents to be sent.
    Postgres(Box<postgres::Ready>),
}

impl Prepared {
    /// Returns an append as it is.
    pub(crate) fn plain(append: Append) -> Self {
        Prepared(Form::Plain(Box::new(append)))
    }

    /// Returns the append.
    pub(crate) fn into_append(self) -> Append {
        match self.0 {
            Form::Plain(append) => *append,
            Form::Sqlite(ready) => ready.append,
            Form::Postgres(ready) => ready.append,
        }
    }
}
