//! The language, rule by rule: what is written, what is read, what runs, and where playbooks trip.

mod document;
mod names;
mod running;
mod settled;
mod templates;
mod traps;

use noetl_core::diag::{Diagnostic, Severity};
use noetl_core::playbook::{Compiled, compile};
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Ran, run_with};

/// A tool that gives its arguments back; the step `bad` (or a task of that label) fails softly instead.
fn echo(call: &ToolCall) -> ToolOutcome {
    match &*call.label {
        "bad" => ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "BOOM", "it broke"), json!({"partial": 1})),
        _ => ToolOutcome::ok(json!(call.input)),
    }
}

/// Runs a playbook with [`echo`] and no payload.
fn ran(playbook: &str) -> Ran {
    run_with(playbook, json!({}), echo)
}

/// Runs one python step with these arguments and returns what they came to.
fn seen(workload: &str, input: &str, payload: Value) -> Value {
    let playbook = format!(
        "
        workload: {workload}
        workflow:
          - {{step: start, tool: {{kind: python, code: x, input: {input}}}}}
        "
    );
    run_with(&playbook, payload, echo).result("start")
}

const HEAD: &str = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\n";

fn compiled(source: &str) -> Compiled {
    compile(source).unwrap_or_else(|found| panic!("{found:#?}\n{source}"))
}

/// Returns the errors of a document without its head.
fn refused(rest: &str) -> Vec<Diagnostic> {
    let found = compile(&format!("{HEAD}{rest}")).err().unwrap_or_else(|| panic!("not refused: {rest}"));
    found.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}
