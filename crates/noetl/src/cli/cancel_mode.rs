//! What a server does about running commands when neither a cancel nor its playbook says.

use std::ffi::OsString;

use noetl_core::playbook::CancelMode;

/// Where a server finds it, if not on its command line.
const VARIABLE: &str = "NOETL_CANCEL_MODE";

/// The server's own mode of cancels.
#[derive(Debug, Clone, clap::Args)]
pub struct CancelModeArgs {
    /// What a cancel means for running commands when neither the request nor the playbook says: `finish` lets them
    /// complete, `interrupt` stops them
    #[arg(long, value_name = "MODE", env = VARIABLE, hide_env_values = true, default_value = "finish", value_parser = parse)]
    cancel_mode: CancelMode,
}

impl CancelModeArgs {
    /// Returns the mode.
    pub fn mode(&self) -> CancelMode {
        self.cancel_mode
    }

    /// Adds it to the arguments of a server in the background.
    pub fn with(&self, mut arguments: Vec<OsString>) -> Vec<OsString> {
        let word = match self.cancel_mode {
            CancelMode::Finish => "finish",
            CancelMode::Interrupt => "interrupt",
        };
        arguments.extend(["--cancel-mode".into(), word.into()]);
        arguments
    }
}

/// An empty variable is none.
fn parse(word: &str) -> Result<CancelMode, String> {
    match word {
        "" | "finish" => Ok(CancelMode::Finish),
        "interrupt" => Ok(CancelMode::Interrupt),
        other => Err(format!("`{other}` is neither `finish` nor `interrupt`")),
    }
}
