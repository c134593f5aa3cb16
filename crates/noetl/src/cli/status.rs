//! `noetl status`: where an execution stands.

use noetl_core::id::ExecutionId;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render;

/// Show where an execution stands
///
/// A cancelled execution shows who, why, and whether anything of it still runs. Exit codes: 0 shown, 2 malformed id,
/// 3 server not reachable, 4 unknown id.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    pub json: bool,
}

impl Status {
    /// Shows it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let id = self.id.to_string();
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.get(&["executions", &id, "status"])).await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, true)?;
        } else {
            console::print(&render::status::block(&id, &body))?;
            console::note("Use --json for full execution details");
        }
        Ok(Exit::Done)
    }
}
