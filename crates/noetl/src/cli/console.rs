//! The two streams of a command: stdout carries exactly what was asked for, everything else goes to stderr.
//!
//! Texts come with colour codes in them; the streams drop those unless a terminal that wants them is at the end
//! (NO_COLOR, CLICOLOR, TERM=dumb).

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::stop::Stop;
use crate::render::json;

/// Writes `text` to stdout as it is, and flushes.
pub fn print(text: &str) -> Result<(), Stop> {
    let mut stream = anstream::stdout().lock();
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    Ok(())
}

/// Writes a document to stdout: one line with `compact`, indented otherwise; keys sorted either way.
pub fn print_json(value: &Value, compact: bool) -> Result<(), Stop> {
    let mut text = if compact { json::compact(value) } else { json::pretty(value) };
    text.push('\n');
    print(&text)
}

/// Writes a line to stderr. Nobody can be told when that fails, so it is not a reason to stop.
pub fn note(line: &str) {
    let mut stream = anstream::stderr().lock();
    drop(writeln!(stream, "{line}"));
}

/// Says why a command stopped, and what to do.
pub fn complain(stop: &Stop) {
    if stop.message.is_empty() {
        return;
    }
    let (red, cyan) = (crate::render::RED, crate::render::CYAN);
    note(&format!("{red}Error:{red:#} {}", stop.message));
    for hint in &stop.hints {
        note(&format!("{cyan}hint:{cyan:#} {hint}"));
    }
}

/// Returns whether stderr is a terminal, so that a moving display makes sense.
pub fn live() -> bool {
    io::stderr().is_terminal()
}
