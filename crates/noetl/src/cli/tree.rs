//! `noetl tree`: an execution and everything it started.

use noetl_core::id::ExecutionId;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{self, document};

/// Show an execution with everything it started, at any depth
#[derive(Debug, clap::Args)]
pub struct Tree {
    /// Where to begin
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    pub json: bool,
}

impl Tree {
    /// Shows the family.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let id = self.id.to_string();
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.get(&["executions", &id, "tree"])).await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, true)?;
            return Ok(Exit::Done);
        }
        console::print(&render::tree::tree(&id, document::list(&body, "executions")))?;
        if document::is(&body, "truncated") {
            console::note("the family is larger than what is shown");
        }
        Ok(Exit::Done)
    }
}
