use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::*;
use crate::execution::cleanup::{CleanupOf, Prepared};
use crate::execution::rerun::{Kept, Rerun};
use crate::execution::state::{StepState, Token};
use crate::id::{CancellationId, SessionId};
use crate::labels::Labels;
use crate::playbook::{CancelMode, Shield};
use crate::result::{Bound, StoredRef};

/// Rows as version 1 wrote them. Never edited: a later version gets its own file and still reads this one.
const GOLDEN_V1: &str = include_str!("golden-v1.jsonl");

const CONTEXT: RowContext = RowContext { root_execution_id: ExecutionId(700), catalog_id: CatalogId(31) };
const AT: Timestamp = Timestamp(1_768_900_080_123);

fn stored() -> Bound {
    Bound::Stored(Arc::new(StoredRef {
        reference: "noetl://execution/701/result/fetch/9".into(),
        store: "kv".into(),
        bytes: 70_000,
        summary: json!({"rows": 3}),
    }))
}

fn error() -> Arc<Value> {
    Arc::new(json!({"kind": "timeout", "code": "TIMEOUT", "message": "no answer within 5 s", "retryable": true}))
}

fn writes() -> Vec<Write> {
    vec![Write { path: vec!["totals".into(), "sum".into()], value: json!(0.1 + 0.2) }]
}

fn kept() -> Kept {
    let result = Some(Bound::inline(json!({"n": 1})));
    let state = StepState { visits: 2, result, error: None, finished: 0 };
    Kept {
        ctx: Arc::new([("k".into(), Arc::new(json!([1])))].into_iter().collect()),
        steps: [("start".into(), state)].into(),
        tokens: vec![Token { step: "end".into(), from: Some("start".into()) }],
        last_finished: Some("start".into()),
    }
}

fn keyed() -> Initialized {
    Initialized { concurrency_key: Some("customer-7".into()), rerun: None, ..rerun(None) }
}

fn rerun(kept: Option<Kept>) -> Initialized {
    Initialized {
        catalog_id: CONTEXT.catalog_id,
        path: "flows/fetch".into(),
        version: 1,
        entry: "start".into(),
        parent: None,
        root_execution_id: CONTEXT.root_execution_id,
        depth: 0,
        workload: Arc::new(json!({})),
        cancel_mode: None,
        cancel_grace_ms: None,
        shield: None,
        concurrency_key: None,
        labels: Labels::new(),
        started_by: None,
        strict: false,
        rerun: Some(Box::new(Rerun { of: ExecutionId(600), kept })),
        cleanup: None,
    }
}

/// Every variant, with every optional part once there and once not.
fn samples() -> Vec<Event> {
    let step: Arc<str> = "fetch/page".into();
    let worker: Arc<str> = "worker-1".into();
    let (command_id, session_id) = (CommandId(543_857_931_469_455_628), SessionId(9));
    vec![
        Event::PlaybookInitialized(Box::new(Initialized {
            catalog_id: CONTEXT.catalog_id,
            path: "flows/fetch".into(),
            version: 3,
            entry: "start".into(),
            parent: None,
            root_execution_id: CONTEXT.root_execution_id,
            depth: 0,
            workload: Arc::new(json!({"z": 1, "a": [null, "é\"\\", 1e300]})),
            cancel_mode: None,
            cancel_grace_ms: None,
            shield: None,
            concurrency_key: None,
            labels: Labels::new(),
            started_by: None,
            strict: false,
            rerun: None,
            cleanup: None,
        })),
        Event::PlaybookInitialized(Box::new(Initialized {
            catalog_id: CONTEXT.catalog_id,
            path: "flows/fetch".into(),
            version: 1,
            entry: "start".into(),
            parent: Some(Parent {
                execution_id: ExecutionId(700),
                command_id: Some(command_id),
                return_step: Some("end".into()),
            }),
            root_execution_id: CONTEXT.root_execution_id,
            depth: 1,
            workload: Arc::new(Value::Null),
            cancel_mode: Some(CancelMode::Interrupt),
            cancel_grace_ms: Some(2_500),
            shield: None,
            concurrency_key: None,
            labels: Labels::new(),
            started_by: Some("ann".into()),
            strict: true,
            rerun: None,
            cleanup: None,
        })),
        Event::PlaybookInitialized(Box::new(Initialized {
            catalog_id: CONTEXT.catalog_id,
            path: "flows/fetch".into(),
            version: 1,
            entry: "start".into(),
            parent: Some(Parent { execution_id: ExecutionId(700), command_id: None, return_step: None }),
            root_execution_id: CONTEXT.root_execution_id,
            depth: 1,
            workload: Arc::new(json!({})),
            cancel_mode: Some(CancelMode::Finish),
            cancel_grace_ms: Some(0),
            shield: None,
            concurrency_key: None,
            labels: Labels::new(),
            started_by: None,
            strict: false,
            rerun: None,
            cleanup: None,
        })),
        Event::StepEnter { step: step.clone(), visit: 1, kind: "http".into() },
        Event::StepEnter { step: step.clone(), visit: 2, kind: "http".into() },
        Event::StepSkipped { step: step.clone(), exit: Exit::default() },
        Event::StepSkipped { step: step.clone(), exit: Exit { ctx: writes(), routed: vec!["end".into()] } },
        Event::CommandIssued(Box::new(Issued {
            command_id,
            step: step.clone(),
            visit: 1,
            iteration: None,
            kind: "http".into(),
            input: Arc::new(json!({"url": "http://localhost"})),
        })),
        Event::CommandIssued(Box::new(Issued {
            command_id,
            step: step.clone(),
            visit: 4,
            iteration: Some(0),
            kind: "python".into(),
            input: Arc::new(Value::Null),
        })),
        Event::CommandClaimed { command_id, epoch: 2, step: step.clone(), session_id, worker_id: worker.clone() },
        Event::CommandStarted {
            command_id,
            epoch: 1,
            step: step.clone(),
            worker_id: worker.clone(),
            started_at: AT.plus_ms(7),
            late: false,
        },
        Event::CommandStarted {
            command_id,
            epoch: 1,
            step: step.clone(),
            worker_id: worker.clone(),
            started_at: AT,
            late: true,
        },
        Event::CallDone(Box::new(Call {
            command_id: Some(command_id),
            epoch: 1,
            step: step.clone(),
            visit: 1,
            iteration: None,
            result: Bound::null(),
            error: None,
            hard: false,
            handled: false,
            ctx: Vec::new(),
        })),
        Event::CallDone(Box::new(Call {
            command_id: None,
            epoch: 0,
            step: step.clone(),
            visit: 2,
            iteration: Some(7),
            result: stored(),
            error: Some(error()),
            hard: true,
            handled: true,
            ctx: writes(),
        })),
        Event::CallDone(Box::new(Call {
            command_id: None,
            epoch: 1,
            step: step.clone(),
            visit: 1,
            iteration: None,
            result: Bound::inline(json!("partly")),
            error: Some(Arc::new(Value::Null)),
            hard: false,
            handled: false,
            ctx: Vec::new(),
        })),
        Event::CommandDone(Box::new(CommandDone {
            late_result: None,
            command_id,
            epoch: 1,
            step: step.clone(),
            visit: 1,
            iteration: None,
            error: None,
            ctx: vec![],
            started_at: None,
            worker_id: None,
            duration_ms: None,
            late: false,
        })),
        Event::CommandDone(Box::new(CommandDone {
            late_result: None,
            command_id,
            epoch: 3,
            step: step.clone(),
            visit: 2,
            iteration: Some(1),
            error: Some(error()),
            ctx: writes(),
            started_at: Some(AT),
            worker_id: Some(worker.clone()),
            duration_ms: Some(0),
            late: true,
        })),
        Event::CommandSuspended(Box::new(Suspended {
            command_id,
            epoch: 1,
            step: step.clone(),
            wait: Wait::Until(AT.plus_ms(60_000)),
            continuation: Arc::new(json!({"task": 2})),
            ctx: vec![],
        })),
        Event::CommandSuspended(Box::new(Suspended {
            command_id,
            epoch: 1,
            step: step.clone(),
            wait: Wait::Child { execution_id: ExecutionId(800), path: "flows/child".into() },
            continuation: Arc::new(Value::Null),
            ctx: writes(),
        })),
        Event::CommandResumed { command_id, epoch: 2, step: step.clone(), continuation: None },
        Event::CommandResumed { command_id, epoch: 2, step: step.clone(), continuation: Some(Arc::new(Value::Null)) },
        Event::CommandLost {
            command_id,
            epoch: 1,
            step: step.clone(),
            session_id,
            reason: "its lease ran out".into(),
            again: true,
        },
        Event::CommandLost {
            command_id,
            epoch: 1,
            step: step.clone(),
            session_id,
            reason: String::new(),
            again: false,
        },
        Event::CommandReleased { command_id, epoch: 1, step: step.clone() },
        Event::CommandCancelled {
            command_id,
            epoch: 1,
            step: step.clone(),
            reason: "execution cancelled".into(),
            worker_id: None,
        },
        Event::CommandCancelled {
            command_id,
            epoch: 1,
            step: step.clone(),
            reason: "execution cancelled".into(),
            worker_id: Some(worker),
        },
        Event::CommandForgotten { command_id, epoch: 1, step: step.clone(), end: AttemptEnd::Unreachable },
        Event::LoopStarted {
            step: step.clone(),
            visit: 1,
            items: Bound::inline(json!([1, 2])),
            total: 2,
            max_in_flight: 1,
            cursor: None,
        },
        Event::LoopDone { step: step.clone(), visit: 2, total: 2, failed: 1, left_out: 0, result: stored() },
        Event::StepExit(Box::new(StepExited {
            step: step.clone(),
            visit: 1,
            result: None,
            error: None,
            fatal: false,
            handled: false,
            exit: Exit::default(),
        })),
        Event::StepExit(Box::new(StepExited {
            step: step.clone(),
            visit: 2,
            result: Some(Bound::null()),
            error: Some(error()),
            fatal: true,
            handled: true,
            exit: Exit { ctx: writes(), routed: vec!["a".into(), "b".into()] },
        })),
        Event::PlaybookCompleted { path: "flows/fetch".into(), result: Bound::inline(json!({"ok": true})) },
        Event::PlaybookFailed { path: "flows/fetch".into(), error: error(), step: Some(step.clone()) },
        Event::PlaybookFailed { path: "flows/fetch".into(), error: Arc::new(json!("boom")), step: None },
        Event::ExecutionCancelled(Box::new(Cancelled {
            reason: Some("Detected infinite loop".into()),
            cancelled_by: "api".into(),
            requested_by: Some("ann@host".into()),
            remote: Some("127.0.0.1".into()),
            cascade: true,
            mode: CancelMode::Interrupt,
            grace_ms: 10_000,
            root_execution_id: CONTEXT.root_execution_id,
            requested_execution_id: ExecutionId(700),
            job_id: None,
            in_flight: vec![command_id],
            cleanup: None,
        })),
        Event::ExecutionCancelled(Box::new(Cancelled {
            reason: None,
            cancelled_by: "timeout".into(),
            requested_by: None,
            remote: None,
            cascade: false,
            mode: CancelMode::Finish,
            grace_ms: 0,
            root_execution_id: ExecutionId(701),
            requested_execution_id: ExecutionId(701),
            job_id: None,
            in_flight: vec![],
            cleanup: None,
        })),
        Event::ExecutionCancelEscalated(Box::new(Escalated {
            reason: Some("still running".into()),
            cancelled_by: "cli".into(),
            requested_by: None,
            mode: CancelMode::Interrupt,
            grace_ms: 500,
        })),
        Event::ExecutionQuiesced { commands: vec![] },
        Event::ExecutionQuiesced {
            commands: vec![
                Ended { command_id, epoch: 1, step: step.clone(), end: AttemptEnd::Finished, pids: vec![] },
                Ended { command_id, epoch: 2, step: step.clone(), end: AttemptEnd::Unconfirmed, pids: vec![4711] },
            ],
        },
        Event::LoopStarted {
            step: step.clone(),
            visit: 1,
            items: Bound::null(),
            total: 0,
            max_in_flight: 6,
            cursor: Some(CursorPlan { claimers: 3, max_rows: 50, row_concurrency: 2, by_frame: true }),
        },
        Event::LoopClaimed { step: step.clone(), visit: 2, rows: stored(), count: 50, full: true },
        Event::LoopClaimed { step: step.clone(), visit: 1, rows: Bound::inline(json!([])), count: 0, full: false },
        Event::CommandStopping(Box::new(Stopping {
            command_id,
            epoch: 1,
            step: step.clone(),
            cause: StopCause::Timeout,
            reason: "it took longer than 5 s".into(),
            by: "timeout".into(),
            held: true,
        })),
        Event::PlaybookInitialized(Box::new(rerun(Some(kept())))),
        Event::PlaybookInitialized(Box::new(rerun(None))),
        Event::PlaybookInitialized(Box::new(Initialized { shield: Some(Shield::Wait), ..rerun(None) })),
        Event::ExecutionPaused(Box::new(PauseOrder {
            reason: Some("the target is down".into()),
            by: "cli".into(),
            requested_by: Some("ann@host".into()),
            cascade: true,
            requested_execution_id: ExecutionId(700),
        })),
        Event::ExecutionResumed(Box::new(PauseOrder {
            reason: None,
            by: "api".into(),
            requested_by: None,
            cascade: false,
            requested_execution_id: ExecutionId(701),
        })),
        Event::LoopCompleting(Box::new(Completing {
            step: step.clone(),
            visit: 2,
            mode: CancelMode::Interrupt,
            by: "ann".into(),
            reason: Some("enough".into()),
            commands: vec![command_id],
        })),
        Event::LoopCompleting(Box::new(Completing {
            step: step.clone(),
            visit: 1,
            mode: CancelMode::Finish,
            by: "complete_when".into(),
            reason: None,
            commands: vec![],
        })),
        Event::LoopDone { step: step.clone(), visit: 1, total: 9, failed: 1, left_out: 5, result: stored() },
        Event::StepCancelled(Box::new(StepCancelled {
            step: step.clone(),
            by: "decide".into(),
            visits: vec![1, 2],
            arrivals: 1,
            commands: vec![command_id],
        })),
        Event::StepCancelled(Box::new(StepCancelled {
            step,
            by: "decide".into(),
            visits: vec![],
            arrivals: 0,
            commands: vec![],
        })),
        Event::ExecutionCancelled(Box::new(Cancelled {
            reason: Some("stale".into()),
            cancelled_by: "ann".into(),
            requested_by: None,
            remote: None,
            cascade: true,
            mode: CancelMode::Finish,
            grace_ms: 10_000,
            root_execution_id: CONTEXT.root_execution_id,
            requested_execution_id: ExecutionId(700),
            job_id: Some(CancellationId(900)),
            in_flight: vec![],
            cleanup: None,
        })),
        Event::PlaybookInitialized(Box::new(keyed())),
        Event::PlaybookInitialized(Box::new(Initialized {
            cleanup: Some(Box::new(CleanupOf {
                execution_id: ExecutionId(600),
                cancelled_by: "cli".into(),
                requested_by: None,
                reason: Some("enough".into()),
                timeout_ms: 600_000,
            })),
            rerun: None,
            ..rerun(None)
        })),
        Event::CleanupPrepared(Box::new(Prepared {
            workload: Arc::new(json!({"n": 1})),
            kept: Kept {
                steps: kept()
                    .steps
                    .into_iter()
                    .map(|(name, state)| (name, StepState { finished: 3, ..state }))
                    .collect(),
                ..kept()
            },
            late: vec![LateResult {
                step: "pay".into(),
                iteration: None,
                result: Bound::inline(json!({"receipt": 7})),
                error: None,
            }],
        })),
        Event::CommandDone(Box::new(CommandDone {
            late_result: Some(Bound::inline(json!({"receipt": 7}))),
            command_id,
            epoch: 1,
            step: "pay".into(),
            visit: 1,
            iteration: None,
            error: None,
            ctx: vec![],
            started_at: None,
            worker_id: Some("worker-1".into()),
            duration_ms: Some(12),
            late: true,
        })),
        Event::PlaybookInitialized(Box::new(Initialized {
            labels: [("team", "data"), ("batch", "7")].map(|(name, value)| (name.into(), value.into())).into(),
            rerun: None,
            ..rerun(None)
        })),
    ]
}

fn recorded(version: u64, event: Event) -> Recorded {
    Recorded { execution_id: ExecutionId(701), version, event_id: EventId(9_000 + version as i64), at: AT, event }
}

fn as_text(row: EventRow) -> EventRow<String> {
    EventRow {
        execution_id: row.execution_id,
        version: row.version,
        event_id: row.event_id,
        parent_execution_id: row.parent_execution_id,
        root_execution_id: row.root_execution_id,
        catalog_id: row.catalog_id,
        event_type: row.event_type,
        node_id: row.node_id,
        node_name: row.node_name,
        node_type: row.node_type,
        status: row.status,
        context: row.context.map(|json| json.to_string()),
        result: row.result.map(|json| json.to_string()),
        meta: row.meta.map(|json| json.to_string()),
        error: row.error,
        worker_id: row.worker_id,
        command_id: row.command_id,
        attempt: row.attempt,
        iteration: row.iteration,
        duration: row.duration,
        created_at: row.created_at,
        schema_version: row.schema_version,
    }
}

/// One line of the golden file: the columns that say something.
fn line(row: &EventRow) -> String {
    let columns = [
        ("version", json!(row.version)),
        ("event_id", json!(row.event_id.0)),
        ("parent_execution_id", json!(row.parent_execution_id.map(|id| id.0))),
        ("event_type", json!(row.event_type)),
        ("node_name", json!(row.node_name)),
        ("node_type", json!(row.node_type)),
        ("status", json!(row.status)),
        ("context", json!(row.context)),
        ("result", json!(row.result)),
        ("meta", json!(row.meta)),
        ("error", json!(row.error)),
        ("worker_id", json!(row.worker_id)),
        ("command_id", json!(row.command_id.map(|id| id.0))),
        ("attempt", json!(row.attempt)),
        ("iteration", json!(row.iteration)),
        ("duration", json!(row.duration)),
        ("created_at", json!(row.created_at.to_iso())),
        ("schema_version", json!(row.schema_version)),
    ];
    let says: Map<String, Value> = columns
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Value::Object(says).to_string()
}

fn from_line(line: &str) -> EventRow {
    let map: Map<String, Value> = serde_json::from_str(line).unwrap();
    let text = |name: &str| map.get(name).map(|value| Arc::from(value.as_str().unwrap()));
    let number = |name: &str| map.get(name).map(|value| u32::try_from(value.as_u64().unwrap()).unwrap());
    let owned = |name: &str| Cow::Owned(map[name].as_str().unwrap().to_owned());
    EventRow {
        execution_id: ExecutionId(701),
        version: map["version"].as_u64().unwrap(),
        event_id: EventId(map["event_id"].as_i64().unwrap()),
        parent_execution_id: map.get("parent_execution_id").map(|id| ExecutionId(id.as_i64().unwrap())),
        root_execution_id: CONTEXT.root_execution_id,
        catalog_id: CONTEXT.catalog_id,
        event_type: owned("event_type"),
        node_id: text("node_name"),
        node_name: text("node_name"),
        node_type: text("node_type"),
        status: owned("status"),
        context: map.get("context").cloned(),
        result: map.get("result").cloned(),
        meta: map.get("meta").cloned(),
        error: text("error").map(|text| text.as_ref().to_owned()),
        worker_id: text("worker_id"),
        command_id: map.get("command_id").map(|id| CommandId(id.as_i64().unwrap())),
        attempt: number("attempt"),
        iteration: number("iteration"),
        duration: map.get("duration").map(|ms| ms.as_f64().unwrap()),
        created_at: Timestamp::from_iso(map["created_at"].as_str().unwrap()).unwrap(),
        schema_version: number("schema_version").unwrap(),
    }
}

#[test]
fn every_event_comes_back_from_its_row_as_it_was() {
    for (version, event) in (1..).zip(samples()) {
        let recorded = recorded(version, event);
        let row = to_row(&recorded, &CONTEXT);
        assert_eq!(from_row(row.clone()).unwrap(), recorded);
        let text = as_text(row.clone());
        assert_eq!(from_row(text).unwrap(), recorded);
        let written: Columns<String> = columns(&recorded.event);
        assert_eq!(written.context, row.context.map(|json| json.to_string()));
        assert_eq!(written.result, row.result.map(|json| json.to_string()));
        assert_eq!(written.meta, row.meta.map(|json| json.to_string()));
    }
}

#[test]
fn the_samples_hold_every_event_type() {
    let names: BTreeSet<&str> = samples().iter().map(wire_name).collect();
    assert_eq!(names.len(), 31, "{names:?}");
}

#[test]
fn version_1_rows_are_written_as_ever() {
    let lines: Vec<String> =
        (1..).zip(samples()).map(|(version, event)| line(&to_row(&recorded(version, event), &CONTEXT))).collect();
    assert_eq!(lines.join("\n"), GOLDEN_V1.trim_end(), "\n{}", lines.join("\n"));
}

#[test]
fn version_1_rows_are_read_for_ever() {
    let read: Vec<Event> = GOLDEN_V1.lines().map(|line| from_row(from_line(line)).unwrap().event).collect();
    assert_eq!(read, samples());
}

#[test]
fn only_the_first_event_names_the_parent() {
    for event in samples() {
        let parent = columns::<Value>(&event).parent_execution_id;
        assert!(parent.is_none() || wire_name(&event) == "playbook.initialized");
    }
}

#[test]
fn a_cancellation_keeps_its_reason_where_people_look() {
    let cancelled = samples().into_iter().find(|event| matches!(event, Event::ExecutionCancelled(_))).unwrap();
    let row = to_row(&recorded(1, cancelled), &CONTEXT);
    assert_eq!(row.node_name.as_deref(), Some("cancel"));
    assert_eq!(row.context.unwrap()["reason"], "Detected infinite loop");
}

#[test]
fn an_older_spelling_of_a_cancellation_is_one() {
    for spelling in ["playbook_cancelled", "playbook.cancelled", "execution.cancelled"] {
        let mut row = from_line(GOLDEN_V1.lines().next().unwrap());
        row.event_type = Cow::Borrowed(spelling);
        row.node_name = None;
        row.context = None;
        let Event::ExecutionCancelled(cancelled) = from_row(row).unwrap().event else { panic!("{spelling}") };
        assert_eq!((cancelled.cancelled_by.as_str(), cancelled.mode), ("api", CancelMode::Finish));
        assert_eq!(cancelled.root_execution_id, CONTEXT.root_execution_id);
    }
}

#[test]
fn a_row_that_is_no_event_says_which_and_why() {
    let row = || from_line(GOLDEN_V1.lines().nth(7).unwrap());
    let why = |row: EventRow| from_row(row).unwrap_err().to_string();
    assert!(why(EventRow { event_type: "step.dance".into(), ..row() }).contains("`step.dance`"));
    assert!(why(EventRow { schema_version: 99, ..row() }).contains("version 99"));
    assert!(why(EventRow { command_id: None, ..row() }).contains("no command_id"));
    assert!(why(EventRow { meta: Some(json!({"visit": "x"})), ..row() }).contains("meta"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        "\\PC*".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_data_comes_back_from_text_as_it_was(data in any_json(), error in any_json(), key in any::<String>()) {
        let event = Event::StepExit(Box::new(StepExited {
            step: key.as_str().into(),
            visit: 1,
            result: Some(Bound::inline(data.clone())),
            error: Some(Arc::new(error)),
            fatal: false,
            handled: true,
            exit: Exit { ctx: vec![Write { path: vec![key.as_str().into()], value: data }], routed: vec![key.as_str().into()] },
        }));
        let recorded = recorded(1, event);
        let row = as_text(to_row(&recorded, &CONTEXT));
        prop_assert_eq!(from_row(row).unwrap(), recorded);
    }
}
