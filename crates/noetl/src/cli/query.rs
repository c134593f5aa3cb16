//! `noetl query`: SQL over the tables, read-only.

use serde_json::{Value, json};

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::table::{self, Rows};
use crate::render::{clean_lines, document};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A box.
    Table,
    /// The server's answer.
    Json,
}

/// Query the tables with PostgreSQL's SQL, read-only
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  noetl query \"SELECT execution_id, status FROM noetl.execution ORDER BY execution_id DESC LIMIT 10\"
  noetl query \"SELECT execution_id, created_at, context->>'reason' AS reason FROM noetl.event
               WHERE event_type = 'execution.cancelled'\"")]
pub struct Query {
    /// The statement; `-` reads stdin
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// Schema that bare table names are looked up in
    #[arg(short, long, default_value = "noetl")]
    pub schema: String,
    /// Read this PostgreSQL database, without a server
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// How to print rows
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

impl Query {
    /// Runs it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let sql = match self.sql.as_str() {
            "-" => std::io::read_to_string(std::io::stdin())
                .map_err(|error| Stop::usage(format!("can not read the statement from stdin: {error}")))?,
            sql => sql.to_owned(),
        };
        let mut link = Link::beside_servers(globals, self.database_url.as_deref(), Mode::Look)?;
        let answer = link
            .ask(|client| client.post(&["postgres", "execute"]).body(json!({"query": sql, "schema": self.schema})))
            .await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        // Servers of this family answer 200 to a statement that failed.
        if document::text(&body, "status") == Some("error") {
            let said = document::text(&body, "error").or_else(|| document::text(&body, "message"));
            return Err(Stop::new(Exit::Usage, clean_lines(said.unwrap_or("the query failed"))));
        }
        if document::is(&body, "truncated") {
            console::note("not all rows are shown; narrow the query, or page with LIMIT and OFFSET");
        }
        match self.format {
            Format::Json => console::print_json(&body, false)?,
            Format::Table => match Rows::read(body.get("result").unwrap_or(&Value::Null), body.get("columns")) {
                Some(rows) => console::print(&table::boxed(&rows))?,
                None => console::print_json(&body, false)?,
            },
        }
        Ok(Exit::Done)
    }
}
