//! Selections: what executions have in common that are cancelled together.
//!
//! A selection only shrinks. Its conditions are facts of an execution's birth, or a time that was fixed when the
//! selection was made; so what matched when it was counted is all that can ever match, and looking again under the
//! lock of a head can only spare.

use serde::{Deserialize, Serialize};

use crate::head::{CommandState, HeadView};
use crate::id::ExecutionId;
use crate::labels::{self, Labels};
use crate::time::Timestamp;

/// What the executions of a bulk cancel have in common. All conditions hold together; only running ones match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Only these. A job begins with them, so they are not looked for, nor looked at again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<ExecutionId>,
    /// Catalog path; `*` matches anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Direct children of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ExecutionId>,
    /// They have these labels.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Started before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_before: Option<Timestamp>,
    /// No event since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// Nobody works on it and it waits for nothing: no worker holds a command of it, and no timer and no active child
    /// will wake it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

impl Selection {
    /// Returns whether the execution under `view` is what was selected, as far as its head and commands say.
    ///
    /// | since it was found, it has | is it still selected |
    /// | --- | --- |
    /// | ended | no |
    /// | had an event, where `idle_since` was asked | no |
    /// | got a command that a worker holds or that waits, where `stuck` was asked | no |
    /// | done anything else | yes |
    pub fn holds(&self, view: &HeadView) -> bool {
        let head = &view.head;
        head.is_active()
            && self.path.as_ref().is_none_or(|pattern| path_matches(pattern, &head.path))
            && self.parent.is_none_or(|parent| head.parent_execution_id == Some(parent))
            && labels::have(&head.labels, &self.labels)
            && self.started_before.is_none_or(|before| head.started_at < before)
            && self.idle_since.is_none_or(|since| head.updated_at < since)
            && (!self.stuck || waits_for_nothing(view))
    }
}

/// Returns whether no worker holds a command of it, none waits for a time or a child, and nobody has paused it.
pub fn waits_for_nothing(view: &HeadView) -> bool {
    view.head.pause.is_none()
        && view.commands.iter().all(|row| match row.state {
            CommandState::Pending | CommandState::Lost => true,
            CommandState::Paused | CommandState::Claimed | CommandState::Suspended => false,
        })
}

/// Returns whether `path` is what `pattern` says; `*` stands for any text, everything else for itself.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(mut path) = path.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // Each piece at its first place: taking a later one leaves less for the others.
    for piece in middle.split('*') {
        let Some(at) = path.find(piece) else { return false };
        path = &path[at + piece.len()..];
    }
    path.ends_with(end)
}
