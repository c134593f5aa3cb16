//! The playbook language: text in, a checked [`Playbook`] or every mistake in it out.
//!
//! `tree` reads YAML, `document` and the files it names turn the tree into the [`model`](Playbook), `reader` collects
//! what is wrong on the way. Nothing here knows an execution.

mod advice;
mod codes;
mod document;
mod graph;
mod mentions;
mod model;
mod names;
mod place;
mod policy;
mod reader;
mod routing;
mod step;
mod suggest;
mod task;
mod tree;

#[cfg(test)]
mod tests;

pub use self::codes::CODES;
pub use self::document::STEPS_MAX;
pub use self::model::*;
pub use self::reader::DIAGNOSTICS_MAX;
pub(crate) use self::reader::parse_duration;
pub use self::task::{ENGINE_KINDS, TASKS_MAX, TOOL_KINDS, UNSUPPORTED_KINDS};
pub use self::tree::{SOURCE_BYTES_MAX, SOURCE_DEPTH_MAX, SOURCE_NODES_MAX};
use crate::diag::{Diagnostic, Severity};

/// What editors need for completion: a JSON Schema (2020-12) of a playbook. Kept by hand beside the reader.
pub const SCHEMA: &str = include_str!("playbook.schema.json");

/// A playbook, and what should be said about it.
#[derive(Debug)]
pub struct Compiled {
    /// The checked playbook.
    pub playbook: Playbook,
    /// What works but looks wrong.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles a playbook, or returns everything that is wrong with it, warnings included, in the order of the source.
pub fn compile(source: &str) -> Result<Compiled, Vec<Diagnostic>> {
    let root = tree::parse(source).map_err(|diagnostic| vec![diagnostic])?;
    let (playbook, found) = document::read(source, &root);
    let refused = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match playbook {
        Some(playbook) if !refused => Ok(Compiled { playbook, warnings: found }),
        Some(_) | None => Err(found),
    }
}
