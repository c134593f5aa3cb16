//! What ends an execution, and what may stand in its log behind that: one list, for whoever decides, writes or checks.

use crate::event::Event;
use crate::head::Status;

/// What it means when a fact stands behind the end of its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterEnd {
    /// Something starts: property C1.
    Starts,
    /// A second end: property C2.
    EndsAgain,
    /// It would change what was decided: property C4.
    Changes,
    /// It is evidence, or the proof.
    Evidence,
}

impl AfterEnd {
    /// Returns whether it may stand there.
    pub fn is_allowed(self) -> bool {
        match self {
            AfterEnd::Evidence => true,
            AfterEnd::Starts | AfterEnd::EndsAgain | AfterEnd::Changes => false,
        }
    }
}

impl Event {
    /// Returns the status that the fact ends the execution with, if it ends it.
    pub fn ends_as(&self) -> Option<Status> {
        match self {
            Event::PlaybookCompleted { .. } => Some(Status::Completed),
            Event::PlaybookFailed { .. } => Some(Status::Failed),
            Event::ExecutionCancelled(_) => Some(Status::Cancelled),
            Event::PlaybookInitialized(_)
            | Event::StepEnter { .. }
            | Event::StepSkipped { .. }
            | Event::CommandIssued(_)
            | Event::CommandClaimed { .. }
            | Event::CommandStarted { .. }
            | Event::CallDone(_)
            | Event::CommandDone(_)
            | Event::CommandSuspended(_)
            | Event::CommandResumed { .. }
            | Event::CommandLost { .. }
            | Event::CommandReleased { .. }
            | Event::CommandCancelled { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopStarted { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::StepCancelled(_)
            | Event::StepExit(_)
            | Event::ExecutionCancelEscalated(_)
            | Event::ExecutionPaused(_)
            | Event::ExecutionResumed(_)
            | Event::CleanupPrepared(_)
            | Event::ExecutionQuiesced { .. } => None,
        }
    }

    /// Returns whether the fact ends the execution.
    pub fn is_terminal(&self) -> bool {
        self.ends_as().is_some()
    }

    /// Returns what it means when the fact stands behind the end.
    ///
    /// | may follow | why |
    /// | --- | --- |
    /// | `command.cancelled` | what was pending or waited goes with the decision; a worker skips what it holds |
    /// | late `command.started`, `command.completed`, `command.failed` | what ran has ended |
    /// | `command.lost` | the worker of something that ran fell silent |
    /// | `execution.cancel_escalated` | what still runs is stopped harder |
    /// | `execution.quiesced` | nothing runs any more |
    pub fn after_the_end(&self) -> AfterEnd {
        match self {
            Event::StepEnter { .. } | Event::CommandIssued(_) | Event::CommandClaimed { .. } => AfterEnd::Starts,
            Event::PlaybookCompleted { .. } | Event::PlaybookFailed { .. } | Event::ExecutionCancelled(_) => {
                AfterEnd::EndsAgain
            }
            Event::CommandStarted { late: true, .. }
            | Event::CommandCancelled { .. }
            | Event::CommandLost { .. }
            | Event::ExecutionCancelEscalated(_)
            | Event::ExecutionQuiesced { .. } => AfterEnd::Evidence,
            Event::CommandDone(done) if done.late => AfterEnd::Evidence,
            Event::PlaybookInitialized(_)
            | Event::StepSkipped { .. }
            | Event::CommandStarted { late: false, .. }
            | Event::CallDone(_)
            | Event::CommandDone(_)
            | Event::CommandSuspended(_)
            | Event::CommandResumed { .. }
            | Event::CommandReleased { .. }
            | Event::CommandStopping(_)
            | Event::CommandForgotten { .. }
            | Event::LoopStarted { .. }
            | Event::LoopClaimed { .. }
            | Event::LoopCompleting(_)
            | Event::LoopDone { .. }
            | Event::ExecutionPaused(_)
            | Event::ExecutionResumed(_)
            | Event::StepCancelled(_)
            | Event::CleanupPrepared(_)
            | Event::StepExit(_) => AfterEnd::Changes,
        }
    }
}
