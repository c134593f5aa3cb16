//! The playbook language: text in, a checked [`Playbook`] or every mistake in it out.

mod model;

pub use self::model::*;
use crate::diag::Diagnostic;

/// Tool kinds that a playbook may use.
pub const TOOL_KINDS: &[&str] =
    &["artifact", "duckdb", "http", "noop", "playbook", "postgres", "python", "shell", "transfer", "workbook"];

/// A playbook, and what should be said about it.
#[derive(Debug)]
pub struct Compiled {
    /// The checked playbook.
    pub playbook: Playbook,
    /// What works but looks wrong.
    pub warnings: Vec<Diagnostic>,
}
