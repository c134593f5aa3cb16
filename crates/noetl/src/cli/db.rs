//! `noetl db`: looking after the tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use noetl_core::id::ExecutionId;
use serde_json::{Value, json};

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal, verify};
use crate::client::{Client, Request};
use crate::render::{clean, document, duration, json as text, table};

/// How long checks, removals and copies may take: they read everything.
const LONG: Duration = Duration::from_secs(3600);

/// Look after the tables
#[derive(Debug, clap::Args)]
pub struct Db {
    /// The tables in this PostgreSQL database, without a server
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make the tables, or bring them up to date
    Init,
    /// Check tables and bytes
    Validate,
    /// The same as `noetl verify`, of every execution unless one is named
    Verify {
        /// Only the family of this execution
        id: Option<ExecutionId>,
        /// Print the answer as JSON on one line
        #[arg(short, long)]
        json: bool,
    },
    /// Remove executions that ended long ago, with their logs and results; shows how many unless --yes is given
    Prune {
        /// How long ago they must have ended, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        older_than: Duration,
        /// Really remove them
        #[arg(short, long, conflicts_with = "dry_run")]
        yes: bool,
        /// Only say how many (the default)
        #[arg(long)]
        dry_run: bool,
    },
    /// Show how much the tables hold
    Size {
        /// Print the answer as JSON on one line
        #[arg(short, long)]
        json: bool,
    },
    /// Write a consistent copy of the database while everything goes on
    Backup {
        /// A file that does not exist yet
        file: PathBuf,
    },
}

/// Where the tables are.
#[derive(Clone, Copy)]
struct At<'a> {
    globals: &'a Globals,
    database_url: Option<&'a str>,
}

impl Db {
    /// Does what is asked.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let at = At { globals, database_url: self.database_url.as_deref() };
        match &self.what {
            What::Init => at.init().await,
            What::Validate => at.validate().await,
            What::Verify { id, json } => {
                let link = Link::beside_servers(globals, at.database_url, Mode::Look)?;
                verify::say(&verify::ask(link, *id, false).await?, *json)
            }
            What::Prune { older_than, yes, dry_run: _ } => at.prune(*older_than, *yes).await,
            What::Size { json } => at.size(*json).await,
            What::Backup { file } => at.backup(file).await,
        }
    }
}

impl At<'_> {
    async fn ask(&self, mode: Mode, make: impl for<'c> Fn(&'c Client) -> Request<'c>) -> Result<Value, Stop> {
        let mut link = Link::beside_servers(self.globals, self.database_url, mode)?;
        let answer = link.ask(|client| make(client).patience(LONG)).await?;
        link.close().await;
        refusal::expect(&answer)
    }

    async fn init(&self) -> Result<Exit, Stop> {
        console::print("Initializing NoETL database schema...\n")?;
        let body = self.ask(Mode::Create, |client| client.post(&["db", "init"])).await?;
        console::print(&format!("Database initialized successfully:\n{}\n", text::pretty(&body)))?;
        Ok(Exit::Done)
    }

    async fn validate(&self) -> Result<Exit, Stop> {
        console::print("Validating NoETL database schema...\n")?;
        let body = self.ask(Mode::Look, |client| client.get(&["db", "validate"])).await?;
        console::print(&format!("Database validation result:\n{}\n", text::pretty(&body)))?;
        Ok(if body.get("valid").and_then(Value::as_bool) == Some(false) { Exit::Failed } else { Exit::Done })
    }

    async fn prune(&self, older_than: Duration, yes: bool) -> Result<Exit, Stop> {
        let request = json!({"older_than_seconds": older_than.as_secs(), "dry_run": !yes});
        let body = self.ask(Mode::Look, |client| client.post(&["db", "prune"]).body(request.clone())).await?;
        console::print(&format!("{}\n", clean(document::text(&body, "message").unwrap_or("done"))))?;
        if !yes && document::count(&body, "executions").unwrap_or(0) > 0 {
            console::note("nothing was removed; say --yes to remove them");
        }
        Ok(Exit::Done)
    }

    async fn size(&self, json: bool) -> Result<Exit, Stop> {
        let body = self.ask(Mode::Look, |client| client.get(&["db", "size"])).await?;
        if json {
            console::print_json(&body, true)?;
            return Ok(Exit::Done);
        }
        let rows: Vec<Vec<String>> = document::list(&body, "tables")
            .iter()
            .map(|row| {
                vec![
                    clean(document::text(row, "table").unwrap_or("?")).into_owned(),
                    document::count(row, "rows").map_or("-".to_owned(), |rows| rows.to_string()),
                    document::count(row, "bytes").map_or("-".to_owned(), bytes),
                ]
            })
            .collect();
        console::print(&table::columns(&["TABLE", "ROWS", "SIZE"], &rows))?;
        if let Some(total) = document::count(&body, "bytes") {
            console::print(&format!("total {}\n", bytes(total)))?;
        }
        Ok(Exit::Done)
    }

    async fn backup(&self, file: &Path) -> Result<Exit, Stop> {
        if self.database_url.is_some() {
            return Err(Stop::usage("`noetl db backup` copies the file of a data directory")
                .hint("a PostgreSQL database is copied with `pg_dump --schema=noetl`"));
        }
        let path = std::path::absolute(file)
            .map_err(|error| Stop::usage(format!("can not tell where {} is: {error}", file.display())))?;
        let request = json!({"path": path.display().to_string()});
        let body = self.ask(Mode::Look, |client| client.post(&["db", "backup"]).body(request.clone())).await?;
        let written = document::count(&body, "bytes").map(|count| format!(" ({})", bytes(count))).unwrap_or_default();
        console::print(&format!("backup written to {}{written}\n", path.display()))?;
        Ok(Exit::Done)
    }
}

/// Returns `512 B`, `1.5 KiB`, `3.0 GiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (count, said) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")]
        {
            assert_eq!(bytes(count), said);
        }
    }
}
