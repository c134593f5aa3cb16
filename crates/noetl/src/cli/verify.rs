//! `noetl verify`: the promises of the engine, checked over the logs of real runs.

use std::time::Duration;

use noetl_core::id::ExecutionId;
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{clean, document, verify as render};

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
        let link = Link::beside_servers(globals, self.database_url.as_deref(), Mode::Look)?;
        say(&ask(link, self.id, self.trace).await?, self.json)
    }
}

/// Asks whoever is at the other end.
pub async fn ask(mut link: Link, id: Option<ExecutionId>, trace: bool) -> Result<Value, Stop> {
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
