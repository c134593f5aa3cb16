//! `noetl cleanup`: cancels executions that nothing will ever move on.

use serde_json::json;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, labels, refusal};
use crate::render::{CYAN, FRAME, YELLOW, clean, document};

/// Cancel executions that are stuck
///
/// Stuck means: no event for so long, and no worker, timer or active child that will move it on. Exit codes: 0 done, 1
/// more are stuck than one request may cancel, 2 usage, 3 server not reachable.
#[derive(Debug, clap::Args)]
pub struct Cleanup {
    /// How long nothing must have happened
    #[arg(long, value_name = "MINUTES", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub older_than_minutes: u64,
    /// Whatever started so long ago, whether or not anything is wrong with it
    #[arg(long)]
    pub include_healthy: bool,
    /// Only those with this label (repeatable; all of them hold together)
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Only say what would be cancelled
    #[arg(long)]
    pub dry_run: bool,
    /// Print the answer as JSON
    #[arg(short, long)]
    pub json: bool,
}

impl Cleanup {
    /// Cleans up.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut request = json!({"older_than_minutes": self.older_than_minutes, "dry_run": self.dry_run});
        if self.include_healthy {
            request["include_healthy"] = json!(true);
        }
        if let Some(label) = labels::joined(&self.label) {
            request["label"] = json!(label);
        }
        let mut link = Link::new(globals, Mode::Tend)?;
        let answer = link.ask(|client| client.post(&["executions", "cleanup"]).body(request.clone())).await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, false)?;
            return Ok(Exit::Done);
        }
        let count = document::count(&body, "cancelled_count").unwrap_or(0);
        let title = if self.dry_run { format!("{CYAN}[DRY RUN]{CYAN:#} ") } else { String::new() };
        let mut out = format!("\n{CYAN}{FRAME}{CYAN:#}\n{title}Cleanup Stuck Executions\n{CYAN}{FRAME}{CYAN:#}\n");
        out.push_str(&format!("Older than:    {} minutes\n", self.older_than_minutes));
        out.push_str(&format!("Found:         {count} stuck execution(s)\n"));
        if let Some(message) = document::text(&body, "message").filter(|message| !message.is_empty()) {
            out.push_str(&format!("\n{}\n", clean(message)));
        }
        let ids = document::ids(&body, "execution_ids");
        if !ids.is_empty() {
            out.push_str("\nExecution IDs:\n");
            for id in ids {
                out.push_str(&format!("  - {}\n", clean(&id)));
            }
        }
        if self.dry_run && count > 0 {
            out.push_str(&format!(
                "\n{YELLOW}Note:{YELLOW:#} Run without --dry-run to actually cancel these executions\n"
            ));
        }
        out.push('\n');
        console::print(&out)?;
        Ok(Exit::Done)
    }
}
