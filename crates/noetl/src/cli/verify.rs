//! `noetl verify`: the promises of the engine, checked over the logs of real runs.

use std::time::Duration;

use noetl_core::id::ExecutionId;
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::{Store, StoreError};
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::api::verify::VerifyReply;
use crate::render::{clean, document, verify as render};
use crate::verify::{Scope, verify};

/// How long a look at everything may take.
const LONG: Duration = Duration::from_secs(3600);

/// Prove from the logs that every promise was kept: exit 0 when all were, 1 when one is broken
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The execution whose family is verified
    #[arg(value_name = "EXECUTION_ID", required_unless_present = "all")]
    pub id: Option<ExecutionId>,
    /// Verify every execution there is
    #[arg(long, conflicts_with_all = ["id", "trace"])]
    pub all: bool,
    /// Show the family's log first, one line per event
    #[arg(long)]
    pub trace: bool,
    /// Read this PostgreSQL database, without a server
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    pub json: bool,
}

impl Verify {
    /// Does it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let body = match &self.database_url {
            None => ask(globals, self.id, self.trace).await?,
            Some(url) => self.look(globals, url).await?,
        };
        say(&body, self.json)
    }

    async fn look(&self, globals: &Globals, url: &str) -> Result<Value, Stop> {
        if globals.names_server() || globals.data_dir.is_some() {
            return Err(Stop::usage("--database-url and another place are given").hint("leave one of them out"));
        }
        let address = url.parse().map_err(|error: StoreError| Stop::usage(error.to_string()))?;
        let failed = |error: StoreError| Stop::new(Exit::Unreachable, error.to_string());
        let store = Postgres::open(PostgresOptions::new(address)).await.map_err(failed)?;
        let scope = match self.id {
            None => Scope::Everything,
            Some(id) => {
                let head = store.head(id).await.map_err(failed)?;
                let unknown = || Stop::new(Exit::Unknown, format!("no such execution: {id}"));
                Scope::Family { root: head.ok_or_else(unknown)?.root_execution_id, trace: self.trace }
            }
        };
        let verified = verify(&store, scope).await.map_err(failed)?;
        store.close().await.map_err(failed)?;
        serde_json::to_value(VerifyReply::from(verified))
            .map_err(|error| Stop::new(Exit::Defect, format!("can not write the answer: {error}")))
    }
}

/// Asks a server, or the data directory.
pub async fn ask(globals: &Globals, id: Option<ExecutionId>, trace: bool) -> Result<Value, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link
        .ask(|client| {
            let request = client.get(&["db", "verify"]).query_opt("execution_id", id);
            request.query_opt("trace", trace.then_some("true")).patience(LONG)
        })
        .await?;
    link.close().await;
    refusal::expect(&answer)
}

/// Says what came out.
pub fn say(body: &Value, json: bool) -> Result<Exit, Stop> {
    if json {
        console::print_json(body, true)?;
    } else {
        for line in document::list(body, "trace") {
            console::print(&format!("{}\n", clean(line.as_str().unwrap_or_default())))?;
        }
        console::print(&render::report(body))?;
    }
    Ok(if document::list(body, "problems").is_empty() { Exit::Done } else { Exit::Failed })
}
