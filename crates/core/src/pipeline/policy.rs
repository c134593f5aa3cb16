//! Policies: what a task's rules make of an outcome. Retry and backoff are functions.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::event::error_value;
use crate::expr::{ExprError, Scope};
use crate::pipeline::{RETRY_ATTEMPTS_DEFAULT, WAIT_MS_MAX};
use crate::playbook::{Action, Assignment, Backoff, Retry, Target, Task};
use crate::tool::ToolOutcome;

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Continue,
    Retry { delay_ms: u64 },
    Jump(usize),
    Break,
    Fail,
}

/// The verdict, and what the rule sets.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) set: Vec<Assigned>,
    /// A rule chose it: `do: fail`, or retries that are used up; else nothing matched.
    pub(super) by_rule: bool,
}

/// A `set` entry with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assigned {
    pub(super) target: Target,
    pub(super) path: Vec<Arc<str>>,
    pub(super) value: Value,
}

/// Lets the first matching rule decide. No rule: success goes on, an error fails. Rules see hard errors too.
pub(super) fn judge(
    scope: &Scope<'_>,
    task: &Task,
    outcome: &ToolOutcome,
    executions: u32,
) -> Result<Judged, ExprError> {
    for rule in &task.policy {
        let matches = match &rule.when {
            Some(when) => when.holds(scope)?,
            None => true,
        };
        if !matches {
            continue;
        }
        let set = evaluate(scope, &rule.set)?;
        let (verdict, by_rule) = match &rule.action {
            Action::Continue => (Verdict::Continue, true),
            Action::Break => (Verdict::Break, true),
            Action::Fail => (Verdict::Fail, true),
            Action::Jump(target) => (Verdict::Jump(*target), true),
            Action::Retry(retry) => match next_delay(scope, retry, executions)? {
                Some(delay_ms) => (Verdict::Retry { delay_ms }, true),
                None => (Verdict::Fail, true),
            },
        };
        return Ok(Judged { verdict, set, by_rule });
    }
    let verdict = if outcome.error.is_some() { Verdict::Fail } else { Verdict::Continue };
    Ok(Judged { verdict, set: Vec::new(), by_rule: false })
}

/// Evaluates every right-hand side against the state before the block.
pub(super) fn evaluate(scope: &Scope<'_>, set: &[Assignment]) -> Result<Vec<Assigned>, ExprError> {
    set.iter()
        .map(|assignment| {
            let value = assignment.value.render(scope)?;
            Ok(Assigned { target: assignment.target, path: assignment.path.clone(), value })
        })
        .collect()
}

fn next_delay(scope: &Scope<'_>, retry: &Retry, executions: u32) -> Result<Option<u64>, ExprError> {
    let attempts = number(&retry.attempts.render(scope)?).map_or(RETRY_ATTEMPTS_DEFAULT, |attempts| attempts as u32);
    if executions >= attempts.max(1) {
        return Ok(None);
    }
    let delay = match &retry.delay {
        Some(template) => number(&template.render(scope)?).unwrap_or(1.0),
        None => match retry.backoff {
            Backoff::None | Backoff::Constant => 0.0,
            Backoff::Linear | Backoff::Exponential => 1.0,
        },
    };
    Ok(Some(backoff_ms(retry.backoff, delay, executions)))
}

/// Returns the wait before retry `k` (from 1), in milliseconds.
pub(super) fn backoff_ms(backoff: Backoff, delay_seconds: f64, k: u32) -> u64 {
    let factor = match backoff {
        Backoff::None => 0.0,
        Backoff::Constant => 1.0,
        Backoff::Linear => f64::from(k),
        Backoff::Exponential => 2f64.powi(k.saturating_sub(1).min(60).cast_signed()),
    };
    (delay_seconds.max(0.0) * factor * 1000.0).min(WAIT_MS_MAX as f64) as u64
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns what `output` is in a policy: `{status, data, error, http, pg, py, meta}`.
pub(super) fn envelope(outcome: &ToolOutcome, data: &Value, executions: u32) -> Value {
    let mut map = Map::new();
    map.insert("status".into(), if outcome.error.is_some() { "error" } else { "ok" }.into());
    map.insert("data".into(), if outcome.error.is_some() { outcome.data.clone() } else { data.clone() });
    if let Some(error) = &outcome.error {
        map.insert("error".into(), error_value(error));
    }
    for (key, part) in [("http", &outcome.http), ("pg", &outcome.pg), ("py", &outcome.py)] {
        if let Some(part) = part {
            map.insert(key.into(), part.clone());
        }
    }
    map.insert("meta".into(), serde_json::json!({ "attempt": executions }));
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_each_retry_follows_the_backoff() {
        let waits = |backoff| [1, 2, 3, 4].map(|k| backoff_ms(backoff, 0.5, k));
        assert_eq!(waits(Backoff::None), [0, 0, 0, 0]);
        assert_eq!(waits(Backoff::Constant), [500, 500, 500, 500]);
        assert_eq!(waits(Backoff::Linear), [500, 1000, 1500, 2000]);
        assert_eq!(waits(Backoff::Exponential), [500, 1000, 2000, 4000]);
        assert_eq!(backoff_ms(Backoff::Exponential, 1.0, 1000), WAIT_MS_MAX);
    }
}
