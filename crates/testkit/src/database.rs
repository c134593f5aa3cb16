//! A connection to a database, for setting up and for looking.

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::Fault;

/// Where a database is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Such as `127.0.0.1`; a path is the folder of a socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Name of the database.
    pub database: String,
}

impl Address {
    /// Returns the address as one line that programs take.
    pub fn url(&self) -> String {
        let escaped =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let Address { port, user, database, .. } = self;
        format!("postgres://{user}:{}@{}:{port}/{database}", escaped(&self.password), escaped(&self.host))
    }
}

/// A connection to a database.
#[derive(Debug)]
pub struct Database {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Database {
    /// Connects.
    pub async fn connect(address: &Address) -> Result<Self, Fault> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(&address.user)
            .password(&address.password)
            .dbname(&address.database);
        let (client, connection) = config.connect(NoTls).await.map_err(Fault::while_doing("connect to postgres"))?;
        let connection = tokio::spawn(async move {
            // Its error comes to whoever waits for an answer as well.
            drop(connection.await);
        });
        Ok(Database { client, connection })
    }

    /// Runs one or several statements.
    pub async fn execute(&self, sql: &str) -> Result<(), Fault> {
        self.client.batch_execute(sql).await.map_err(|error| Fault(explained(&error)))
    }

    /// Puts the rows of a JSON list of objects into a table that has their columns.
    pub async fn insert(&self, table: &str, rows: &Value) -> Result<(), Fault> {
        let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::text::json)");
        let inserted = self.client.execute(&sql, &[&rows.to_string()]).await;
        inserted.map(drop).map_err(|error| Fault(explained(&error)))
    }

    /// Returns the first column of the first row as JSON, if there is a row.
    pub async fn first_value(&self, sql: &str) -> Result<Option<Value>, Fault> {
        // The database itself knows best how its types look as JSON; `row_to_json` keeps the order of the columns.
        let query = sql.trim().trim_end_matches(';');
        let wrapped = format!("SELECT row_to_json(answer)::text FROM ({query}\n) AS answer LIMIT 1");
        let row = self.client.query_opt(&wrapped, &[]).await.map_err(|error| Fault(explained(&error)))?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get(0).map_err(|error| Fault(explained(&error)))?;
        let columns: serde_json::Map<String, Value> =
            serde_json::from_str(&text).map_err(Fault::while_doing("read a row"))?;
        Ok(columns.into_iter().next().map(|(_, value)| value))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Returns what the database said, not only that it said something.
fn explained(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
