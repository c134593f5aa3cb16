//! The birth of a cleanup: in the append that proves its execution quiet.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::append::{Append, Due, DueChange, DueKind, Guard, HeadChange, NewEvent};
use crate::event::{Event, Initialized};
use crate::execution::cleanup::CleanupOf;
use crate::head::{CancelInfo, Head, Status};
use crate::id::{EventId, ExecutionId, IdSource};
use crate::labels::Labels;
use crate::time::Timestamp;

/// Returns the id of the cleanup that the cancel of an execution brings, when there is anything to do.
pub(super) fn wanted(head: &Head, now: Timestamp, ids: &mut IdSource) -> Option<ExecutionId> {
    head.cleanup.as_ref().filter(|plan| plan.wants(head))?;
    Some(ExecutionId(ids.next(now)))
}

/// Adds the cleanup to the append that holds the proof of the execution under `head`.
pub(super) fn bear(head: &Head, cancel: &CancelInfo, append: &mut Append, now: Timestamp, ids: &mut IdSource) {
    let (Some(execution_id), Some(plan)) = (cancel.cleanup, &head.cleanup) else { return };
    let of = CleanupOf::new(head, cancel, plan);
    let init = Initialized {
        catalog_id: head.catalog_id,
        path: Arc::clone(&head.path),
        version: head.playbook_version,
        // Where it begins is decided with the playbook at hand, by its first decision.
        entry: plan.on_cancel.clone().unwrap_or_else(|| "".into()),
        parent: None,
        root_execution_id: execution_id,
        depth: 0,
        workload: Arc::new(Value::Object(Map::new())),
        cancel_mode: head.cancel_mode,
        cancel_grace_ms: head.cancel_grace_ms,
        shield: None,
        concurrency_key: None,
        labels: Labels::new(),
        started_by: Some(BY_CLEANUP.to_owned()),
        strict: false,
        rerun: None,
        cleanup: Some(Box::new(of)),
    };
    let born = Head {
        execution_id,
        parent_execution_id: None,
        parent_command_id: None,
        root_execution_id: execution_id,
        depth: 0,
        status: Status::Running,
        version: 0,
        decided: 0,
        in_flight: 0,
        runnable: true,
        // It has no parent, so nothing comes down to it.
        shield: None,
        concurrency_key: None,
        // A cancel by label, sent again, leaves it alone.
        labels: Labels::new(),
        started_at: now,
        updated_at: now,
        ended_at: None,
        quiesced_at: None,
        current_step: None,
        steps_entered: 0,
        commands_issued: 0,
        failed_steps: Vec::new(),
        error: None,
        cancel: None,
        pause: None,
        cleanup: None,
        cleanup_of: Some(head.execution_id),
        ..head.clone()
    };
    let due = |kind, at| DueChange::Set(Due { execution_id, kind, key: 0, at, command: None });
    append.children.push(Append {
        execution_id,
        guard: Guard::New(Box::new(born)),
        at: now,
        events: vec![NewEvent { event_id: EventId(ids.next(now)), event: Event::PlaybookInitialized(Box::new(init)) }],
        head: HeadChange { runnable: Some(true), ..HeadChange::default() },
        commands: Vec::new(),
        due: vec![due(DueKind::Continue, now), due(DueKind::Timeout, now.plus_ms(plan.timeout_ms))],
        children: Vec::new(),
        results: Vec::new(),
        snapshot: None,
    });
}

/// Who starts cleanups.
const BY_CLEANUP: &str = "cleanup";
