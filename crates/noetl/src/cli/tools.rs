//! `noetl tools`: the kinds of tools, and how each is stopped.

use noetl_core::playbook::ENGINE_KINDS;
use noetl_core::tool::kind::{KINDS, KindInfo};
use serde_json::{Value, json};

use super::console;
use super::stop::{Exit, Stop};
use crate::render::table;

/// List the kinds of tools that a step can have, and how a cancel stops each
#[derive(Debug, clap::Args)]
pub struct Tools {
    /// Print the list as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl Tools {
    /// Lists them; nobody is asked.
    pub fn run(&self) -> Result<Exit, Stop> {
        if self.json {
            let kinds: Vec<Value> = KINDS.iter().map(document).collect();
            console::print_json(&json!({"tools": kinds}), true)?;
        } else {
            let rows: Vec<Vec<String>> = KINDS.iter().map(row).collect();
            console::print(&table::columns(&["TOOL", "RUNS ON", "STOPPABLE", "HOW"], &rows))?;
        }
        Ok(Exit::Done)
    }
}

fn runs_on(info: &KindInfo) -> &'static str {
    if ENGINE_KINDS.contains(&info.kind) { "engine" } else { "worker" }
}

fn document(info: &KindInfo) -> Value {
    json!({"kind": info.kind, "runs_on": runs_on(info), "stoppable": info.stoppable, "how": info.how})
}

fn row(info: &KindInfo) -> Vec<String> {
    let stoppable = if info.stoppable { "yes" } else { "no" };
    vec![info.kind.to_owned(), runs_on(info).to_owned(), stoppable.to_owned(), info.how.to_owned()]
}
