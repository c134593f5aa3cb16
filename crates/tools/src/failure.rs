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

    /// Adds how something else ended that this failure put an end to: the worse of both is what can be said.
    pub(crate) fn after(mut self, ended: Stopped) -> Self {
        // A failure that nobody asked for stays one, but what may still run is always said.
        if self.stopped.is_some() || ended == Stopped::Unconfirmed {
            self.stopped = self.stopped.max(Some(ended));
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_ends_the_worse_one_is_told() {
        let failure = |stopped| Failure { error: Box::new(ToolError::soft(ErrorKind::Code, "X", "x")), stopped };
        for (own, ended, told) in [
            (Some(Stopped::Stopped), Stopped::Stopped, Some(Stopped::Stopped)),
            (Some(Stopped::Stopped), Stopped::Killed, Some(Stopped::Killed)),
            (Some(Stopped::Unconfirmed), Stopped::Killed, Some(Stopped::Unconfirmed)),
            (Some(Stopped::Killed), Stopped::Unconfirmed, Some(Stopped::Unconfirmed)),
            (None, Stopped::Killed, None),
            (None, Stopped::Unconfirmed, Some(Stopped::Unconfirmed)),
        ] {
            assert_eq!(failure(own).after(ended).stopped, told, "{own:?} and {ended:?}");
        }
    }
}
