//! Heads, commands and events come back as they were written.

use std::sync::Arc;

use noetl_core::append::{CommandChange, Guard, HeadChange};
use noetl_core::event::{
    AttemptEnd, Call, CursorPlan, Ended, Event, Exit, StepExited, StopCause, Suspended, Wait, Write,
};
use noetl_core::head::{CancelInfo, CommandState, Holder, RunningTool, Status, StopWish};
use noetl_core::id::{CancellationId, CommandId, ExecutionId, SessionId};
use noetl_core::playbook::{CancelMode, Shield};
use noetl_core::result::{Bound, StoredRef};
use serde_json::{Value, json};

use super::Stage;

/// A store writes what the core computes, and nothing else.
pub async fn the_head_is_what_its_appends_make_of_it(stage: Stage) {
    let script = stage.script();
    let birth = script.birth(None);
    let Guard::New(first) = &birth.guard else { panic!() };
    let mut head = (**first).clone();
    head.land(&birth);
    stage.land(birth).await;
    let id = head.execution_id;
    assert_eq!(stage.head(id).await, head);
    stage.clock.advance_ms(5);
    let mut issue = script.enter(id, head.decided);
    let command = script.add_command(&mut issue, CommandState::Pending);
    issue.head.failed_steps = vec!["a".into(), "b".into(), "a".into()];
    issue.head.runnable = Some(true);
    head.land(&issue);
    stage.land(issue).await;
    assert_eq!(stage.head(id).await, head);
    stage.clock.advance_ms(5);
    let claim = script.claim(id, command, 1, SessionId(1));
    head.land(&claim);
    stage.land(claim).await;
    assert_eq!(stage.head(id).await, head);
    assert_eq!(head.in_flight, 1);
    // An append decided before the last one landed, by another server's clock: time does not go back.
    let mut settle = script.settle(&head, command, 1);
    settle.at.0 -= 1_000;
    settle.head.runnable = Some(false);
    head.land(&settle);
    stage.land(settle).await;
    assert_eq!(stage.head(id).await, head);
    let fail = Event::PlaybookFailed { path: "flows/fetch".into(), error: Arc::new(json!("boom")), step: None };
    let mut failed = script.enter(id, head.decided);
    failed.events = vec![script.event(fail)];
    failed.head = HeadChange {
        status: Some(Status::Failed),
        quiesced: true,
        error: Some(Arc::new(json!({"kind": "code", "message": "boom"}))),
        failed_steps: vec!["c".into()],
        ..HeadChange::default()
    };
    head.land(&failed);
    stage.land(failed).await;
    assert_eq!(stage.head(id).await, head);
    assert_eq!(stage.store.executions(crate::ListQuery { limit: 9, ..Default::default() }).await.unwrap(), vec![head]);
}

/// Every field of a head, with and without a value.
pub async fn the_head_survives_every_field(stage: Stage) {
    let script = stage.script();
    let parent = stage.start().await;
    let mut birth = script.birth(Some(&stage.head(parent).await));
    let Guard::New(first) = &mut birth.guard else { panic!() };
    first.parent_command_id = Some(CommandId(i64::MAX));
    first.path = "flows/ünïcode \"quoted\"".into();
    first.playbook_version = 40_000;
    first.cancel_mode = Some(CancelMode::Interrupt);
    first.cancel_grace_ms = Some(0);
    first.shield = Some(Shield::Wait);
    first.labels =
        [("team", "data \"q\" ü"), ("example.com/a-b_c", "")].map(|(name, value)| (name.into(), value.into())).into();
    first.runnable = true;
    let mut head = (**first).clone();
    head.land(&birth);
    stage.land(birth).await;
    assert_eq!(stage.head(head.execution_id).await, head);
    let cancel_script = stage.script();
    let info = CancelInfo {
        reason: None,
        cancelled_by: "timeout".into(),
        requested_by: Some("ann@box".into()),
        remote: Some("10.0.0.7".into()),
        mode: CancelMode::Interrupt,
        grace_ms: 1,
        since: stage.clock.now(),
        requested_execution_id: parent,
        job_id: Some(CancellationId(9)),
        idempotency_key: Some("k".into()),
        cleanup: Some(ExecutionId(77)),
        cascade: false,
        ended: vec![Ended {
            command_id: CommandId(5),
            epoch: 2,
            step: "s".into(),
            end: AttemptEnd::Unconfirmed,
            pids: vec![1, 2],
        }],
    };
    let expected = info.clone();
    let cancelled = stage.store.locked(
        head.execution_id,
        None,
        Box::new(move |locked| {
            let mut append = cancel_script.cancel(locked)?;
            append.head.cancel = Some(info);
            Some(append)
        }),
    );
    cancelled.await.unwrap();
    let head = stage.head(head.execution_id).await;
    assert_eq!(head.cancel, Some(expected));
    assert_eq!((head.ended_at, head.quiesced_at), (Some(stage.clock.now()), Some(stage.clock.now())));
}

/// Every field of a command, with and without a value, in every state.
pub async fn commands_survive_every_field(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let mut append = script.enter(id, 1);
    let mut rows = Vec::new();
    for (n, state) in [CommandState::Pending, CommandState::Claimed, CommandState::Suspended, CommandState::Lost]
        .into_iter()
        .enumerate()
    {
        let mut row = script.command(id, CommandId(script.id()), 1, state);
        if n % 2 == 1 {
            row.epoch = u32::MAX;
            row.visit = 7;
            row.iteration = Some(0);
            row.priority = -5;
            row.enters = false;
            row.at_most_once = true;
            row.losses = 2;
            row.losses_max = 0;
            row.stopping = Some(Arc::new(StopWish {
                cause: StopCause::Timeout,
                reason: "it took too long: 5 ″".into(),
                by: "timeout".into(),
            }));
            row.running = Some(RunningTool { tool: "shell".into(), pid: Some(u32::MAX), since: script.now() });
            row.grace_ms = Some(u64::from(u32::MAX));
            row.holder = Some(Holder {
                session_id: SessionId(script.id()),
                worker_id: "w/ö".into(),
                claimed_at: script.now(),
                started: true,
            });
            row.work = Arc::new(json!({"deep": [1.5, null, {"k": "v"}], "big": 9_007_199_254_740_993_i64}));
        } else {
            row.wait = Some(if n == 0 {
                Wait::Until(script.now().plus_ms(9))
            } else {
                Wait::Child { execution_id: ExecutionId(script.id()), path: "child".into() }
            });
        }
        append.commands.push(CommandChange::Insert(Box::new(row.clone())));
        rows.push(row);
    }
    stage.land(append).await;
    let view = stage.view(id).await;
    assert_eq!(view.commands, rows);
    assert_eq!(view.head.in_flight, 2);
    let locked = stage.store.locked(
        id,
        None,
        Box::new(move |locked| {
            assert_eq!(locked.view.commands, rows);
            None
        }),
    );
    locked.await.unwrap();
}

/// Results, errors and writes of every shape come back from the log.
pub async fn every_event_survives(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let command_id = CommandId(script.id());
    let odd = json!({"z": 0.1 + 0.2, "a": [1e-300, -0.0, u64::MAX, i64::MIN], "": {"\u{1F980}": "\\u0000 \u{7f}"}});
    let stored = Bound::Stored(Arc::new(StoredRef {
        reference: "noetl://execution/1/result/x/1".into(),
        store: "disk".into(),
        bytes: 2_000_000,
        summary: odd.clone(),
    }));
    let events = vec![
        Event::CallDone(Box::new(Call {
            command_id: None,
            epoch: 1,
            step: "fetch".into(),
            visit: 3,
            iteration: Some(2),
            result: Bound::inline(odd.clone()),
            error: Some(Arc::new(json!({"message": "no"}))),
            hard: true,
            handled: true,
            ctx: vec![Write { path: vec!["n".into()], value: odd.clone() }],
        })),
        script.done(command_id, 4, false).event,
        Event::CommandSuspended(Box::new(Suspended {
            command_id,
            epoch: 1,
            step: "fetch".into(),
            wait: Wait::Until(script.now().plus_ms(60_000)),
            continuation: Arc::new(Value::Null),
            ctx: vec![Write { path: vec!["a".into(), "b".into()], value: odd.clone() }],
        })),
        Event::LoopStarted {
            step: "fetch".into(),
            visit: 1,
            items: stored.clone(),
            total: 9,
            max_in_flight: 3,
            cursor: Some(CursorPlan { claimers: 3, max_rows: 3, row_concurrency: 1, by_frame: false }),
        },
        Event::LoopClaimed { step: "fetch".into(), visit: 1, rows: stored.clone(), count: 3, full: true },
        Event::StepExit(Box::new(StepExited {
            step: "fetch".into(),
            visit: 1,
            result: Some(Bound::null()),
            error: None,
            fatal: false,
            handled: false,
            exit: Exit { ctx: vec![], routed: vec!["next".into()] },
        })),
    ];
    let mut append = script.enter(id, 1);
    append.events = events.iter().map(|event| script.event(event.clone())).collect();
    stage.land(append).await;
    let read: Vec<Event> = stage.log(id).await.into_iter().skip(1).map(|recorded| recorded.event).collect();
    assert_eq!(read, events);
    assert!(stage.log(id).await.iter().all(|recorded| recorded.at == stage.clock.now()));
}
