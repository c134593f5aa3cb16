//! `noetl executions`: the list.

use noetl_core::id::ExecutionId;
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, labels, refusal};
use crate::render::executions;

/// Executions listed when nothing else is asked.
const LIMIT_DEFAULT: u64 = 50;

/// List executions: running ones first, then the newest
#[derive(Debug, clap::Args)]
pub struct Executions {
    /// Only with this status: running, completed, failed or cancelled (repeatable)
    #[arg(short, long, value_name = "STATUS", value_delimiter = ',')]
    pub status: Vec<String>,
    /// Only running ones
    #[arg(short, long, conflicts_with = "status")]
    pub active: bool,
    /// Only cancelled ones of which something still runs
    #[arg(long)]
    pub unquiesced: bool,
    /// Only of this catalog path; `*` matches anything
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<String>,
    /// Only those that this execution started
    #[arg(long, value_name = "EXECUTION_ID")]
    pub parent: Option<ExecutionId>,
    /// Only of the family with this top
    #[arg(long, value_name = "EXECUTION_ID")]
    pub root: Option<ExecutionId>,
    /// Only those with this label (repeatable; all of them hold together)
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// How many at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = LIMIT_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: u64,
    /// Only ids below this one: the next page
    #[arg(long, value_name = "EXECUTION_ID")]
    pub before: Option<ExecutionId>,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    pub json: bool,
}

impl Executions {
    /// Shows the list.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Look)?;
        let status = match (self.active, self.status.is_empty()) {
            (true, _) => Some("running".to_owned()),
            (false, true) => None,
            (false, false) => Some(self.status.join(",")),
        };
        let label = labels::joined(&self.label);
        let answer = link
            .ask(|client| {
                let request = client.get(&["executions"]).query("page_size", self.limit);
                // Pages by id do not go with an order that is not by id.
                let request = match self.before {
                    Some(before) => request.query("before", before),
                    None => request.query("active_first", true),
                };
                request
                    .query_opt("status", status.as_deref())
                    .query_opt("unquiesced", self.unquiesced.then_some(true))
                    .query_opt("path", self.path.as_deref())
                    .query_opt("label", label.as_deref())
                    .query_opt("parent_execution_id", self.parent)
                    .query_opt("root_execution_id", self.root)
            })
            .await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, true)?;
            return Ok(Exit::Done);
        }
        // Older servers wrap the list.
        let list = body.as_array().or_else(|| body.get("executions").and_then(Value::as_array));
        let list = list.map(Vec::as_slice).unwrap_or_default();
        console::print(&executions::list(list))?;
        if list.is_empty() {
            console::note("no executions");
        } else if list.len() as u64 == self.limit {
            console::note(&format!("the first {}; more with -n or --before", self.limit));
        }
        Ok(Exit::Done)
    }
}
