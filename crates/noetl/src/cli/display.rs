//! A run as it is shown: a moving line on a terminal, plain lines elsewhere. All of it on stderr.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::console;
use crate::render::{clean, document, progress};

/// Steps that the moving line names; the rest is a number.
const NAMES_SHOWN: usize = 4;
/// How often the moving line is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// Where a run is shown.
pub struct Display {
    line: Option<ProgressBar>,
    quiet: bool,
    verbose: bool,
    entered: u64,
    commands: u64,
    /// Visits under way, by step.
    running: BTreeMap<String, u64>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display")
            .field("entered", &self.entered)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Display {
    /// Returns a display that moves on a terminal, and prints lines elsewhere.
    pub fn new(terminal: bool, verbose: bool) -> Self {
        let line = terminal.then(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {elapsed} {msg}") {
                line.set_style(style);
            }
            line
        });
        Display { line, verbose, ..Display::quiet() }.loud()
    }

    /// Returns a display that shows nothing.
    pub fn quiet() -> Self {
        Display { line: None, quiet: true, verbose: false, entered: 0, commands: 0, running: BTreeMap::new() }
    }

    fn loud(mut self) -> Self {
        self.quiet = false;
        self
    }

    /// Says what runs.
    pub fn begin(&mut self, name: &str, id: &str) {
        self.say(&format!("📋 Running playbook: {}", clean(name)));
        self.say(&format!("   Execution: {id}"));
        self.say("");
        if let Some(line) = &self.line {
            line.enable_steady_tick(TICK);
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Value) {
        self.count(event);
        if let Some(line) = progress::line_of(event, self.verbose) {
            self.say(&line);
        }
    }

    /// Redraws the moving line.
    pub fn tick(&self) {
        if let Some(line) = &self.line {
            line.set_message(self.moving_line());
        }
    }

    /// Takes the moving line away.
    pub fn end(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }

    /// Shows a line.
    pub fn say(&self, text: &str) {
        match &self.line {
            _ if self.quiet => {}
            // Above the moving line. Colours stay: it is a terminal, and NO_COLOR is honoured by the stripping below.
            Some(line) => line.suspend(|| console::note(text)),
            None => console::note(text),
        }
    }

    fn count(&mut self, event: &Value) {
        let Some(step) = document::text(event, "node_name") else { return };
        match document::text(event, "event_type") {
            Some("step.enter") => {
                self.entered += 1;
                *self.running.entry(clean(step).into_owned()).or_default() += 1;
            }
            Some("step.exit") => {
                if let Some(visits) = self.running.get_mut(&*clean(step)) {
                    *visits -= 1;
                    if *visits == 0 {
                        self.running.remove(&*clean(step));
                    }
                }
            }
            Some("command.issued") => self.commands += 1,
            Some(_) | None => {}
        }
    }

    fn moving_line(&self) -> String {
        let (steps, commands) = (progress::counted(self.entered, "step"), progress::counted(self.commands, "command"));
        let mut line = format!("{steps}, {commands}");
        if !self.running.is_empty() {
            let names: Vec<&str> = self.running.keys().take(NAMES_SHOWN).map(String::as_str).collect();
            line.push_str(&format!("  running: {}", names.join(", ")));
            if self.running.len() > NAMES_SHOWN {
                line.push_str(&format!(" and {} more", self.running.len() - NAMES_SHOWN));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_moving_line_counts_what_runs() {
        let mut display = Display::quiet();
        for (name, step) in [
            ("step.enter", "a"),
            ("command.issued", "a"),
            ("step.enter", "b"),
            ("step.enter", "b"),
            ("step.exit", "a"),
            ("step.exit", "b"),
        ] {
            display.event(&json!({"event_type": name, "node_name": step}));
        }
        assert!(display.moving_line().ends_with("3 steps, 1 command  running: b"), "{}", display.moving_line());
    }
}
