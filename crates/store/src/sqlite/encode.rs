//! An append as texts, made by whoever hands it in, so that the writer only binds and steps.

use noetl_core::append::{Append, CommandChange};
use noetl_core::event::row::{Columns, columns};
use noetl_core::head::CommandRow;
use serde::Serialize;

use crate::{StoreError, payload};

/// An append that was looked through and written out.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) append: Append,
    pub(super) texts: Texts,
    /// About how many bytes it takes.
    pub(super) bytes: usize,
}

/// The texts of an append.
#[derive(Debug)]
pub(crate) struct Texts {
    /// The time of the decision.
    pub(super) at: String,
    /// One for each event.
    pub(super) events: Vec<Columns<String>>,
    /// One for each change to the commands; `None` for what is no new row.
    pub(super) commands: Vec<Option<CommandText>>,
    /// One for each large result.
    pub(super) results: Vec<String>,
    pub(super) snapshot: Option<String>,
    /// One for each child.
    pub(super) children: Vec<Texts>,
}

/// The texts of a new command.
#[derive(Debug)]
pub(crate) struct CommandText {
    pub(super) wait: Option<String>,
    pub(super) issued_at: String,
    pub(super) claimed_at: Option<String>,
    pub(super) work: String,
}

/// Makes an append ready to be written.
pub(super) fn ready(mut append: Append) -> Result<Ready, StoreError> {
    let bytes = payload::scrub(&mut append)?;
    let texts = texts(&append);
    Ok(Ready { append, texts, bytes })
}

fn texts(append: &Append) -> Texts {
    Texts {
        at: append.at.to_iso(),
        events: append.events.iter().map(|new| columns(&new.event)).collect(),
        commands: append
            .commands
            .iter()
            .map(|change| match change {
                CommandChange::Insert(row) => Some(command(row)),
                CommandChange::Delete { .. } | CommandChange::Started { .. } | CommandChange::Withdraw { .. } => None,
            })
            .collect(),
        results: append.results.iter().map(|result| json(&result.data)).collect(),
        snapshot: append.snapshot.as_ref().map(json),
        children: append.children.iter().map(texts).collect(),
    }
}

fn command(row: &CommandRow) -> CommandText {
    CommandText {
        wait: row.wait.as_ref().map(json),
        issued_at: row.since.to_iso(),
        claimed_at: row.holder.as_ref().map(|holder| holder.claimed_at.to_iso()),
        work: json(&row.work),
    }
}

/// Writes a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("plain values are JSON: {error}"))
}
