//! Why a tool's work ended before it was done, while it is passed up to where it becomes an outcome.

use noetl_core::tool::{ErrorKind, Stopped, ToolError, ToolOutcome};
use serde_json::{Value, json};

/// An error, and whether the work was ended on request.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<ToolError>,
    stopped: Option<Stopped>,
}

impl Failure {
    /// Returns the failure of work that was ended on request.
    pub(crate) fn stopped(error: ToolError, stopped: Stopped) -> Self {
        Failure { error: Box::new(error), stopped: Some(stopped) }
    }

    /// Returns how the tool ends, with the data there is.
    pub(crate) fn into_outcome(self, data: Value) -> ToolOutcome {
        let Failure { error, stopped } = self;
        let pg = error.details.get("pg_code").map(|code| json!({"code": code}));
        ToolOutcome { pg, stopped, ..ToolOutcome::failed(*error, data) }
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        Failure { error: Box::new(error), stopped: None }
    }
}

impl From<Box<ToolError>> for Failure {
    fn from(error: Box<ToolError>) -> Self {
        Failure { error, stopped: None }
    }
}

impl From<Box<ToolOutcome>> for Failure {
    fn from(outcome: Box<ToolOutcome>) -> Self {
        let unexplained = || ToolError::hard(ErrorKind::Unknown, "UNEXPLAINED", "it failed without an error");
        Failure { error: Box::new(outcome.error.unwrap_or_else(unexplained)), stopped: outcome.stopped }
    }
}
