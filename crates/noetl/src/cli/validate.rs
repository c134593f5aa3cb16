//! `noetl validate`: every mistake in playbook files, without running them.

use std::path::PathBuf;

use noetl_core::diag::Severity;
use noetl_core::playbook;
use serde_json::{Value, json};

use super::catalog;
use super::console;
use super::stop::{Exit, Stop};
use crate::render::diagnostics::{self, Finding};

/// Check playbook files: every mistake with its place and what to write instead
///
/// Exit codes: 0 all valid (warnings do not count), 2 otherwise.
#[derive(Debug, clap::Args)]
pub struct Validate {
    /// Playbook files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print findings as JSON on one line
    #[arg(short, long)]
    pub json: bool,
    /// Warnings count as errors
    #[arg(long)]
    pub strict: bool,
}

impl Validate {
    /// Checks every file.
    pub fn run(&self) -> Result<Exit, Stop> {
        let mut exit = Exit::Done;
        let mut all: Vec<Value> = Vec::new();
        for path in &self.files {
            let file = path.display().to_string();
            let source = match catalog::read(path) {
                Ok(source) => source,
                Err(stop) if self.json => {
                    all.push(json!({"file": file, "severity": "error", "message": stop.message}));
                    exit = exit.or_worse(Exit::Usage);
                    continue;
                }
                Err(stop) => {
                    console::complain(&stop);
                    exit = exit.or_worse(Exit::Usage);
                    continue;
                }
            };
            let (path_in_catalog, found) = match playbook::compile(&source) {
                Ok(compiled) => (Some(compiled.playbook.path.to_string()), compiled.warnings),
                Err(found) => (None, found),
            };
            let findings: Vec<Finding> = found.iter().map(Finding::from).collect();
            let refused = path_in_catalog.is_none()
                || self.strict && findings.iter().any(|finding| finding.severity == Severity::Warning);
            if refused {
                exit = exit.or_worse(Exit::Usage);
            }
            if self.json {
                all.extend(findings.iter().map(|finding| finding.to_json(&file)));
                continue;
            }
            if !findings.is_empty() {
                console::note(diagnostics::report(&file, &source, &findings).trim_end());
            }
            let verdict = match &path_in_catalog {
                Some(path) if !refused => format!("{file}: valid ({path})\n"),
                Some(_) | None => format!("{file}: invalid, {}\n", diagnostics::tally(&findings)),
            };
            console::print(&verdict)?;
        }
        if self.json {
            console::print_json(&json!({"valid": exit == Exit::Done, "findings": all}), true)?;
        }
        Ok(exit)
    }
}
