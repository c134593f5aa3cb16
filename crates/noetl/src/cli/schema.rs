//! `noetl schema`: the language for editors.

use noetl_core::playbook::SCHEMA;

use super::console;
use super::stop::{Exit, Stop};

/// Print a JSON Schema of playbooks, for editors that complete and check while you type
///
/// Save it (`noetl schema > playbook.schema.json`) and name it in the first line of a playbook:
/// `# yaml-language-server: $schema=playbook.schema.json`. `noetl validate` says more than a schema can.
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    /// Prints it.
    pub fn run(&self) -> Result<Exit, Stop> {
        console::print(SCHEMA)?;
        Ok(Exit::Done)
    }
}
