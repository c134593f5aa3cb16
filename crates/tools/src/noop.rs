//! `noop`: does nothing, and says what it was told to say.

use noetl_core::tool::{ToolCall, ToolOutcome};
use serde_json::json;

/// Returns the configured `result`, else `{"status": "ok"}`.
pub(crate) fn run(call: &ToolCall) -> ToolOutcome {
    ToolOutcome::ok(call.config.get("result").cloned().unwrap_or_else(|| json!({"status": "ok"})))
}
