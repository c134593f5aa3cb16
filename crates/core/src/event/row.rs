//! Events as rows of the table `event`, and back.
//!
//! A row says each thing once: what has a column stands in the column, the rest in `context` (what was decided),
//! `result` (data and errors, as `{status, data | reference, error}`) and `meta` (how it came about). Members that
//! say nothing are left out. What is written here can be read by every later version.

mod column;
mod name;
mod read;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

pub use self::name::{canonical_name, status, wire_name};
pub use self::read::{ReadJson, RowError, from_row};
pub use self::write::{Columns, WriteJson, columns, to_row};
use crate::id::{CatalogId, CommandId, EventId, ExecutionId};
use crate::time::Timestamp;

/// A row of the table `event`. `J` is JSON as the store holds it: a [`Value`], or its text.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow<J = Value> {
    /// Whose log.
    pub execution_id: ExecutionId,
    /// Place in that log.
    pub version: u64,
    /// Unique over all logs.
    pub event_id: EventId,
    /// On `playbook.initialized` only: who started it, when an execution did.
    pub parent_execution_id: Option<ExecutionId>,
    /// Top of the family.
    pub root_execution_id: ExecutionId,
    /// The playbook version that the execution keeps.
    pub catalog_id: CatalogId,
    /// See [`wire_name`].
    pub event_type: Cow<'static, str>,
    /// The same as `node_name`.
    pub node_id: Option<Arc<str>>,
    /// Step name, catalog path, or `cancel`.
    pub node_name: Option<Arc<str>>,
    /// Kind of tool, or `playbook`.
    pub node_type: Option<Arc<str>>,
    /// See [`status`].
    pub status: Cow<'static, str>,
    /// What was decided.
    pub context: Option<J>,
    /// `{status, data | reference, error}`.
    pub result: Option<J>,
    /// How it came about: `{visit, late, started_at, …}`.
    pub meta: Option<J>,
    /// The error's message.
    pub error: Option<String>,
    /// The worker's name.
    pub worker_id: Option<Arc<str>>,
    /// Which command.
    pub command_id: Option<CommandId>,
    /// Which attempt of it.
    pub attempt: Option<u32>,
    /// Which iteration of a loop, from 0.
    pub iteration: Option<u32>,
    /// How long the work took, in milliseconds.
    pub duration: Option<f64>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// Version of the shapes in this row.
    pub schema_version: u32,
}

/// What a row says that stands in the head, not in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowContext {
    /// Top of the family.
    pub root_execution_id: ExecutionId,
    /// The playbook version that the execution keeps.
    pub catalog_id: CatalogId,
}

#[cfg(test)]
mod tests;
