//! The names and statuses of facts, as people's SQL looks for them.

use crate::event::Event;

/// Returns the value of the column `event_type`.
pub fn wire_name(event: &Event) -> &'static str {
    match event {
        Event::PlaybookInitialized(_) => "playbook.initialized",
        Event::StepEnter { .. } => "step.enter",
        Event::StepSkipped { .. } => "step.skipped",
        Event::CommandIssued(_) => "command.issued",
        Event::CommandClaimed { .. } => "command.claimed",
        Event::CommandStarted { .. } => "command.started",
        Event::CallDone(call) if call.error.is_some() => "call.error",
        Event::CallDone(_) => "call.done",
        Event::CommandDone(done) if done.error.is_some() => "command.failed",
        Event::CommandDone(_) => "command.completed",
        Event::CommandSuspended(_) => "command.suspended",
        Event::CommandResumed { .. } => "command.resumed",
        Event::CommandLost { .. } => "command.lost",
        Event::CommandReleased { .. } => "command.released",
        Event::CommandCancelled { .. } => "command.cancelled",
        Event::CommandStopping(_) => "command.stopping",
        Event::CommandForgotten { .. } => "command.forgotten",
        Event::LoopStarted { .. } => "loop.started",
        Event::LoopClaimed { .. } => "loop.claimed",
        Event::LoopDone { .. } => "loop.done",
        Event::StepExit(_) => "step.exit",
        Event::PlaybookCompleted { .. } => "playbook.completed",
        Event::PlaybookFailed { .. } => "playbook.failed",
        Event::ExecutionCancelled(_) => "execution.cancelled",
        Event::ExecutionCancelEscalated(_) => "execution.cancel_escalated",
        Event::ExecutionPaused(_) => "execution.paused",
        Event::ExecutionResumed(_) => "execution.resumed",
        Event::ExecutionQuiesced { .. } => "execution.quiesced",
    }
}

/// Returns the value of the column `status`.
pub fn status(event: &Event) -> &'static str {
    match event {
        Event::PlaybookInitialized(_) => "INITIALIZED",
        Event::StepEnter { .. }
        | Event::CommandClaimed { .. }
        | Event::CommandStarted { .. }
        | Event::LoopStarted { .. }
        | Event::LoopClaimed { .. }
        | Event::ExecutionResumed(_) => "RUNNING",
        Event::StepSkipped { .. } => "SKIPPED",
        // Whoever may claim it next finds it pending.
        Event::CommandIssued(_) | Event::CommandResumed { .. } | Event::CommandReleased { .. } => "PENDING",
        Event::CommandSuspended(_) => "SUSPENDED",
        Event::ExecutionPaused(_) => "PAUSED",
        Event::CommandLost { .. } | Event::CommandForgotten { .. } => "LOST",
        Event::CallDone(call) if call.error.is_some() => "FAILED",
        Event::CommandDone(done) if done.error.is_some() => "FAILED",
        Event::StepExit(exit) if exit.error.is_some() => "FAILED",
        Event::CallDone(_)
        | Event::CommandDone(_)
        | Event::StepExit(_)
        | Event::LoopDone { .. }
        | Event::PlaybookCompleted { .. } => "COMPLETED",
        Event::PlaybookFailed { .. } => "FAILED",
        Event::CommandCancelled { .. }
        | Event::CommandStopping(_)
        | Event::ExecutionCancelled(_)
        | Event::ExecutionCancelEscalated(_)
        | Event::ExecutionQuiesced { .. } => "CANCELLED",
    }
}

/// Returns today's name of an event type, whichever generation wrote it.
///
/// Earlier engines wrote some names with an underscore, and the cancellation in three spellings.
pub fn canonical_name(event_type: &str) -> &str {
    match event_type {
        "playbook_started" | "playbook.started" | "playbook_initialized" => "playbook.initialized",
        "playbook_completed" => "playbook.completed",
        "playbook_failed" => "playbook.failed",
        "playbook_cancelled" | "playbook.cancelled" | "execution_cancelled" => "execution.cancelled",
        "step_enter" => "step.enter",
        "step_exit" => "step.exit",
        "command_issued" => "command.issued",
        "command_claimed" => "command.claimed",
        "command_started" => "command.started",
        "command_completed" => "command.completed",
        "command_failed" => "command.failed",
        "command_cancelled" => "command.cancelled",
        "call_done" => "call.done",
        "call_error" => "call.error",
        other => other,
    }
}
