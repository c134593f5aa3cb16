//! DuckDB's own command line, where python does not have the package.
//!
//! The statements stand in a file, each after an order to put its rows into a file of its own: so nothing of them
//! is printed, and each statement's rows are known from the others'.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use noetl_core::tool::ToolOutcome;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{error_named, too_large};
use crate::postgres::ROWS_BYTES_MAX;
use crate::process::wire::{Exit, Role, Start};
use crate::slot::{Failure, Finished, Slot, stopped};
use crate::sql::{self, Answer, Statement};
use crate::stop::Brake;
use crate::{Outside, Settings};

/// Name on PATH.
const PROGRAM: &str = "duckdb";

/// Runs the statements; `None` where there is no such program.
pub(super) async fn run(
    slot: &mut Slot,
    settings: &Settings,
    database: &str,
    statements: &[Statement<'_>],
    brake: &mut Brake,
    outside: Outside<'_>,
) -> Option<ToolOutcome> {
    let written = tempfile::tempdir().and_then(|folder| write(&folder, statements).map(|script| (folder, script)));
    let (folder, script) = match written {
        Ok(written) => written,
        Err(error) => return Some(slot.give_up(Failure::Unavailable(error)).await),
    };
    let start = Start {
        role: Role::Task,
        program: PROGRAM.to_owned(),
        // Not what the user of the machine likes to see: `-init` with nothing.
        args: ["-batch", "-bail", "-json", "-init", "/dev/null", "-f", &script, database].map(str::to_owned).to_vec(),
        env: settings.env.clone(),
        directory: settings.directory.to_string_lossy().into_owned(),
    };
    let Finished { ended, stderr, .. } = match slot.run_task(settings, start, brake, outside.log).await {
        Ok(finished) => finished,
        Err(Failure::Refused(_)) => return None,
        Err(failure) => return Some(slot.give_up(failure).await),
    };
    if let Some(cause) = brake.cause().filter(|_| ended.exit != Some(Exit::Status(0))) {
        let outcome = ToolOutcome::failed(cause.error(), Value::Null);
        return Some(ToolOutcome { stopped: stopped(&ended), ..outcome });
    }
    let answers = match read(&folder, statements.len()) {
        Ok(answers) => answers,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Some(ToolOutcome::failed(too_large(), Value::Null));
        }
        Err(error) => return Some(slot.give_up(Failure::Unavailable(error)).await),
    };
    if ended.exit == Some(Exit::Status(0)) {
        return Some(ToolOutcome::ok(sql::data(answers)));
    }
    // "Parser Error: …": the kind stands first.
    let message = stderr.trim();
    let before = message.split_once(" Error:").map_or("", |(before, _)| before);
    let kind = before.rsplit('\n').next().unwrap_or_default().trim();
    Some(ToolOutcome::failed(error_named(kind, message.to_owned()), Value::Null))
}

fn write(folder: &TempDir, statements: &[Statement<'_>]) -> io::Result<String> {
    let mut script = String::new();
    for (index, statement) in statements.iter().enumerate() {
        let answer = answer_file(folder.path(), index);
        let text = statement.text;
        // On lines of their own: a statement may end in a comment.
        writeln!(script, ".output {answer}\n{text}\n;").map_err(io::Error::other)?;
    }
    let path = folder.path().join("statements.sql");
    fs::write(&path, script)?;
    Ok(path.to_string_lossy().into_owned())
}

fn answer_file(folder: &Path, index: usize) -> String {
    folder.join(format!("{index}.json")).to_string_lossy().into_owned()
}

fn read(folder: &TempDir, count: usize) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut budget = ROWS_BYTES_MAX as u64;
    for index in 0..count {
        let path = answer_file(folder.path(), index);
        let Ok(found) = fs::metadata(&path) else { break };
        budget = budget.checked_sub(found.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let text = fs::read_to_string(&path)?;
        let rows: Vec<Map<String, Value>> = match text.trim() {
            "" => Vec::new(),
            rows => serde_json::from_str(rows)?,
        };
        let columns = rows.first().map(|row| row.keys().cloned().collect()).unwrap_or_default();
        let affected_rows = rows.len() as u64;
        answers.push(Answer { columns, rows: rows.into_iter().map(Value::Object).collect(), affected_rows });
    }
    Ok(answers)
}
