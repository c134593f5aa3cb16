//! A log as people read it: one line per fact, the same wherever a trace is printed.
//!
//! The simulator, the explorer and `noetl verify` print this form, so a counterexample and the log of a real run look
//! the same. Payloads are left out: a trace says what happened, in what order.

use serde_json::Value;

use crate::event::row::columns;
use crate::event::{Event, Recorded};

/// Width of the column with event names; longer ones push the rest.
const NAME_WIDTH: usize = 26;
/// Width of the column with statuses.
const STATUS_WIDTH: usize = 11;
/// Longest free text on a line, in characters.
const TEXT_SHOWN: usize = 120;

/// Returns the line of one fact: execution, version, time, name, status, step, attempt, worker, and why.
pub fn line(recorded: &Recorded) -> String {
    let row = columns::<Value>(&recorded.event);
    let mut line = format!(
        "{} {:>5} {}  {:<NAME_WIDTH$}  {:<STATUS_WIDTH$}  {}",
        recorded.execution_id,
        recorded.version,
        recorded.at,
        row.event_type,
        row.status,
        row.node_name.as_deref().unwrap_or_default(),
    );
    if let Some(iteration) = row.iteration {
        line.push_str(&format!("[{iteration}]"));
    }
    if let Some(command_id) = row.command_id {
        line.push_str(&format!("  command {command_id}"));
    }
    if let Some(attempt) = row.attempt {
        line.push_str(&format!(" attempt {attempt}"));
    }
    if let Some(worker) = &row.worker_id {
        line.push_str(&format!("  by {worker}"));
    }
    if is_late(&recorded.event) {
        line.push_str("  late");
    }
    let reason = row.context.as_ref().and_then(|context| context.get("reason")).and_then(Value::as_str);
    for text in [reason, row.error.as_deref()].into_iter().flatten() {
        let shown: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        line.push_str("  ");
        line.extend(shown.chars().take(TEXT_SHOWN));
    }
    line.truncate(line.trim_end().len());
    line
}

fn is_late(event: &Event) -> bool {
    if let Event::CommandDone(done) = event {
        return done.late;
    }
    matches!(event, Event::CommandStarted { late: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CommandId, EventId, ExecutionId, SessionId};
    use crate::time::Timestamp;

    #[test]
    fn a_fact_is_one_line() {
        let recorded = Recorded {
            execution_id: ExecutionId(7),
            version: 12,
            event_id: EventId(70),
            at: Timestamp(1_768_900_080_123),
            event: Event::CommandLost {
                command_id: CommandId(9),
                epoch: 2,
                step: "load".into(),
                session_id: SessionId(3),
                reason: "its lease\nran out".to_owned(),
                again: true,
            },
        };
        assert_eq!(
            line(&recorded),
            "7    12 2026-01-20T09:08:00.123Z  command.lost                LOST         load  command 9 attempt 2  \
             its lease ran out"
        );
    }
}
