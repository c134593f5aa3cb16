//! `noetl workers`: who works, and on what.

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{document, workers};

/// List the workers and what they run
#[derive(Debug, clap::Args)]
pub struct Workers {
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl Workers {
    /// Shows the list.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.get(&["workers"])).await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, true)?;
            return Ok(Exit::Done);
        }
        console::print(&workers::list(&body))?;
        if document::list(&body, "workers").is_empty() {
            console::note("no workers: start one with `noetl worker start`, or a server without --no-worker");
        }
        Ok(Exit::Done)
    }
}
