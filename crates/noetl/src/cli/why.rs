//! `noetl why`: how an execution came to stand where it stands.

use noetl_core::id::ExecutionId;
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render;

/// Executions between one and the one that was named in the cancel, at most: families are no deeper.
const ANCESTORS_MAX: usize = 64;

/// Say why an execution stands where it stands: who ended it, why, and through which ancestor
#[derive(Debug, clap::Args)]
pub struct Why {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// Print its status and those of its ancestors as JSON, one line each
    #[arg(short, long)]
    pub json: bool,
}

impl Why {
    /// Says it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Look)?;
        let mut chain: Vec<Value> = Vec::new();
        let mut next = Some(self.id.to_string());
        while let Some(id) = next.take().filter(|_| chain.len() <= ANCESTORS_MAX) {
            let answer = link.ask(|client| client.get(&["executions", &id, "status"])).await?;
            let status = refusal::expect(&answer)?;
            // Up to the one that somebody named, if it was not this one.
            let named = status.pointer("/cancellation/requested_execution_id").and_then(render::document::id);
            let elsewhere = named.is_some_and(|named| named != id);
            // And up to what a shield kept away from it.
            let spared = chain.is_empty() && render::document::text(&status, "shield").is_some();
            if elsewhere || spared {
                next = status.get("parent_execution_id").and_then(render::document::id);
            }
            chain.push(status);
        }
        // How it was cleaned up belongs to how it ended. One that has not begun has no status yet.
        let cleanup = chain.first().and_then(|status| status.pointer("/cancellation/cleanup"));
        let cleanup = match cleanup.and_then(render::document::id) {
            Some(id) => {
                let answer = link.ask(|client| client.get(&["executions", &id, "status"])).await?;
                answer.json().filter(|_| answer.is_success())
            }
            None => None,
        };
        link.close().await;
        if self.json {
            for status in &chain {
                console::print_json(status, true)?;
            }
        } else {
            console::print(&render::why::story(&chain, cleanup.as_ref()))?;
        }
        Ok(Exit::Done)
    }
}
