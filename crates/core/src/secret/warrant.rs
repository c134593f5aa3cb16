//! Who may ask for secrets: whoever holds a command that is alive, for as long as it is.

use serde::{Deserialize, Serialize};

use crate::head::{CommandState, HeadView, Status};
use crate::id::{CommandId, ExecutionId, SessionId};
use crate::playbook::CancelMode;

/// The claim under which a worker asks for secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warrant {
    /// Who asks.
    pub session_id: SessionId,
    /// Whose command it runs.
    pub execution_id: ExecutionId,
    /// Which.
    pub command_id: CommandId,
    /// Attempt.
    pub epoch: u32,
}

/// Why a warrant does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The execution is over, and what runs of it is to stop.
    #[error("its execution has ended")]
    Ended,
    /// It is settled, waits, was given to somebody else, or was never claimed.
    #[error("it does not hold that command")]
    NotHeld,
}

impl Warrant {
    /// Decides whether it holds, on the head and the live commands of its execution.
    ///
    /// A command of an execution that was cancelled with `finish` is left to complete, tasks to come included: those
    /// may need what the ones before them needed. Any other end, and a claim that was lost or has gone on to another
    /// session, leaves nothing to ask for.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn check(&self, view: &HeadView) -> Result<(), Withheld> {
        let finishing = match view.head.status {
            Status::Running => true,
            Status::Cancelled => view.head.cancel.as_ref().is_some_and(|cancel| cancel.mode == CancelMode::Finish),
            Status::Completed | Status::Failed => false,
        };
        if !finishing || view.head.execution_id != self.execution_id {
            return Err(Withheld::Ended);
        }
        let mine = view.commands.iter().any(|row| {
            row.command_id == self.command_id
                && row.epoch == self.epoch
                && row.state == CommandState::Claimed
                && row.holder.as_ref().is_some_and(|holder| holder.session_id == self.session_id)
        });
        if mine { Ok(()) } else { Err(Withheld::NotHeld) }
    }
}
