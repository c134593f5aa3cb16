//! The tables that a query may read, with their columns as the database declares them.

use rusqlite::Connection;

use super::types::Type;

/// The schema that holds every table, also where a query does not name it.
pub(super) const SCHEMA: &str = "noetl";

/// The tables that may be queried; any other is refused, whatever the database holds.
pub(crate) const QUERYABLE: &[&str] = &[
    "event",
    "execution",
    "command",
    "due",
    "cancellation",
    "cancellation_front",
    "cancellation_trail",
    "snapshot",
    "catalog",
    "credential",
    "keychain",
    "runtime",
    "schedule",
    "result",
    "log",
    "log_size",
];

/// Columns that can not be read: named they are refused, `*` shows NULL in their place.
const ENCRYPTED: &[(&str, &str)] = &[("credential", "data_encrypted"), ("keychain", "data_encrypted")];

/// Columns that are texts, though other tables have a document of that name.
const TEXTS: &[(&str, &str)] = &[("command", "state")];

/// Columns of documents, where a `STRICT` table can only say `TEXT`.
const DOCUMENTS: &[&str] = &[
    "context",
    "result",
    "meta",
    "error_detail",
    "labels",
    "capabilities",
    "runtime",
    "input_payload",
    "payload",
    "state",
    "cancel",
    "pause",
    "cleanup",
    "failed_steps",
    "selection",
    "pools",
    "tags",
    "renew_config",
    "wait",
    "running",
    "stopping",
    "work",
];

/// Columns of truth values, where a `STRICT` table can only say `INTEGER`.
const FLAGS: &[&str] =
    &["active", "runnable", "enabled", "auto_renew", "cascade", "enters", "at_most_once", "started", "is_cut"];

/// Tells whether a column holds secrets.
pub(super) fn is_encrypted(table: &str, column: &str) -> bool {
    ENCRYPTED.iter().any(|(t, c)| t.eq_ignore_ascii_case(table) && c.eq_ignore_ascii_case(column))
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableColumn {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) nullable: bool,
    pub(super) encrypted: bool,
    pub(super) in_key: bool,
}

/// A table that may be queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<TableColumn>,
}

/// What a query can see: the queryable tables that the attached database has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    tables: Vec<Table>,
}

impl Schema {
    /// Reads the tables of the database attached as `noetl`.
    ///
    /// # Errors
    ///
    /// Fails when no database is attached under that name, or it can not be read.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            // `table_info` leaves out generated columns.
            connection.prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1, ?2) ORDER BY cid")?;
        let mut tables = Vec::new();
        for name in QUERYABLE {
            let rows = statement.query_map([*name, SCHEMA], |row| {
                let column: String = row.get(0)?;
                let declared: String = row.get(1)?;
                let not_null: bool = row.get(2)?;
                let in_key = row.get::<_, i64>(3)? > 0;
                Ok(TableColumn {
                    ty: meaning(name, &column, &declared),
                    nullable: !(not_null || (in_key && declared.eq_ignore_ascii_case("INTEGER"))),
                    encrypted: is_encrypted(name, &column),
                    in_key,
                    name: column,
                })
            })?;
            let columns = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            if !columns.is_empty() {
                tables.push(Table { name: (*name).to_owned(), columns });
            }
        }
        Ok(Schema { tables })
    }

    /// Finds a table by its lower-case name.
    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// Returns what a column means: its declared type, or what its name says where the declaration is only a storage class.
fn meaning(table: &str, column: &str, declared: &str) -> Type {
    let by_name = || {
        if TEXTS.contains(&(table, column)) {
            Some(Type::Text)
        } else if DOCUMENTS.contains(&column) {
            Some(Type::Json)
        } else if column.ends_with("_at") || column == "at" {
            Some(Type::Timestamp { zoned: false })
        } else {
            None
        }
    };
    match Type::declared(declared) {
        Some(Type::Text) => by_name().unwrap_or(Type::Text),
        Some(Type::Int) if FLAGS.contains(&column) => Type::Bool,
        Some(ty) => ty,
        None => by_name().unwrap_or(Type::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_and_declared_tables_mean_the_same() {
        let table = [
            ("created_at", "TIMESTAMP", Type::Timestamp { zoned: false }),
            ("created_at", "TEXT", Type::Timestamp { zoned: false }),
            ("context", "JSON", Type::Json),
            ("context", "TEXT", Type::Json),
            ("active", "BOOLEAN", Type::Bool),
            ("active", "INTEGER", Type::Bool),
            ("status", "TEXT", Type::Text),
            ("duration", "REAL", Type::Float),
        ];
        for (column, declared, expected) in table {
            assert_eq!(meaning("event", column, declared), expected, "{column} {declared}");
        }
    }

    #[test]
    fn a_name_means_in_one_table_what_it_does_not_in_another() {
        assert_eq!(meaning("command", "state", "TEXT"), Type::Text);
        assert_eq!(meaning("snapshot", "state", "TEXT"), Type::Json);
    }
}
