//! Births, decisions, and what may follow the end.

use noetl_core::append::{Guard, HeadChange, RefusedBy, Verdict};
use noetl_core::event::{Event, Issued};
use noetl_core::head::Status;
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::result::Bound;
use serde_json::json;

use super::Stage;
use crate::StoreError;

fn refused(by: RefusedBy) -> Result<Verdict, StoreError> {
    Ok(Verdict::Refused(by))
}

/// An id is given once; the second birth changes nothing.
pub async fn an_execution_is_born_once(stage: Stage) {
    let append = stage.script().birth(None);
    assert_eq!(stage.land(append.clone()).await, 1);
    let head = stage.head(append.execution_id).await;
    assert_eq!((head.version, head.decided, head.status), (1, 1, Status::Running));
    let mut again = stage.script().birth(None);
    again.execution_id = append.execution_id;
    if let Guard::New(first) = &mut again.guard {
        first.execution_id = append.execution_id;
        first.root_execution_id = append.execution_id;
    }
    assert_eq!(stage.write(again).await, refused(RefusedBy::Exists));
    // The same append once more, as after a lost answer.
    assert_eq!(stage.write(append.clone()).await, refused(RefusedBy::Exists));
    assert_eq!(stage.head(append.execution_id).await, head);
}

/// A first append begins at version 0, with the event that says so.
pub async fn a_birth_is_well_formed_or_refused(stage: Stage) {
    let script = stage.script();
    let mut silent = script.birth(None);
    silent.events.clear();
    let mut grown = script.birth(None);
    if let Guard::New(head) = &mut grown.guard {
        head.version = 7;
    }
    let mut other = script.birth(None);
    other.execution_id = ExecutionId(script.id());
    let mut orphan = script.birth(None);
    if let Guard::New(head) = &mut orphan.guard {
        head.depth = 1;
    }
    for append in [silent, grown, other, orphan] {
        let id = append.execution_id;
        assert!(matches!(stage.write(append).await, Err(StoreError::BadData(_))));
        assert_eq!(stage.store.head(id).await.unwrap(), None);
    }
    let id = stage.start().await;
    let mut twice = script.enter(id, 1);
    twice.events = script.birth(None).events;
    assert!(matches!(stage.write(twice).await, Err(StoreError::BadData(_))));
}

/// A decision raises both counters.
pub async fn a_decision_lands_on_the_state_it_was_made_on(stage: Stage) {
    let id = stage.start().await;
    assert_eq!(stage.land(stage.script().enter(id, 1)).await, 2);
    assert_eq!(stage.land(stage.script().enter(id, 2)).await, 3);
    let head = stage.head(id).await;
    assert_eq!((head.version, head.decided, head.steps_entered), (3, 3, 2));
    assert_eq!(head.current_step.as_deref(), Some("fetch"));
}

/// The second of two decisions on one state conflicts and leaves nothing.
pub async fn a_decision_conflicts_when_another_came_between(stage: Stage) {
    let id = stage.start().await;
    let (first, second) = (stage.script().enter(id, 1), stage.script().enter(id, 1));
    stage.land(first).await;
    assert_eq!(stage.write(second).await, Ok(Verdict::Conflict));
    assert_eq!(stage.write(stage.script().enter(id, 9)).await, Ok(Verdict::Conflict));
    assert_eq!(stage.log(id).await.len(), 2);
    assert_eq!(stage.head(id).await.version, 2);
}

/// Ended comes before stale: who conflicts tries again, who is refused stops.
pub async fn a_decision_on_an_ended_execution_is_refused_before_it_conflicts(stage: Stage) {
    let id = stage.start().await;
    stage.complete(id).await;
    let decided = stage.head(id).await.decided;
    assert_eq!(stage.write(stage.script().enter(id, decided)).await, refused(RefusedBy::Ended));
    assert_eq!(stage.write(stage.script().enter(id, 1)).await, refused(RefusedBy::Ended));
    assert_eq!(stage.log(id).await.len(), 2);
}

/// Nothing is written for, and nothing read of, an id that nobody gave.
pub async fn what_does_not_exist_is_unknown(stage: Stage) {
    let script = stage.script();
    let (id, command) = (ExecutionId(script.id()), CommandId(script.id()));
    assert_eq!(stage.write(script.enter(id, 0)).await, refused(RefusedBy::Unknown));
    assert_eq!(stage.write(script.claim(id, command, 1, SessionId(1))).await, refused(RefusedBy::Unknown));
    let asked = stage.store.locked(id, None, Box::new(|_| panic!("nothing to decide on"))).await;
    assert_eq!(asked, Ok(None));
    assert_eq!(stage.store.head(id).await.unwrap(), None);
    assert_eq!(stage.store.view(id).await.unwrap(), None);
    assert!(stage.store.load(id).await.unwrap().is_none());
    assert_eq!(stage.store.terminal_event(id).await.unwrap(), None);
    assert_eq!(stage.store.result("noetl://execution/1/result/x/1").await.unwrap(), None);
    assert!(stage.log(id).await.is_empty());
}

/// Versions are given at the write, from 1, one after the other.
pub async fn the_log_has_no_holes_and_keeps_its_order(stage: Stage) {
    let (id, command) = stage.start_with_command().await;
    let decided = stage.head(id).await.decided;
    stage.land(stage.script().claim(id, command, 1, SessionId(1))).await;
    let mut many = stage.script().enter(id, decided);
    for _ in 0..40 {
        many.events.extend(stage.script().enter(id, 0).events);
    }
    let ids: Vec<_> = many.events.iter().map(|new| new.event_id).collect();
    stage.land(many).await;
    let log = stage.log(id).await;
    let versions: Vec<u64> = log.iter().map(|recorded| recorded.version).collect();
    assert_eq!(versions, (1..=45).collect::<Vec<u64>>());
    assert_eq!(log[4..].iter().map(|recorded| recorded.event_id).collect::<Vec<_>>(), ids);
    assert_eq!(stage.head(id).await.version, 45);
}

/// One terminal event per execution: property C2.
pub async fn two_terminal_events_are_impossible(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let mut twice = script.complete(&stage.head(id).await);
    twice.events.push(script.event(Event::PlaybookCompleted { path: "p".into(), result: Bound::null() }));
    assert!(matches!(stage.write(twice).await, Err(StoreError::BadData(_))));
    stage.complete(id).await;
    // Under the lock the guard lets everything through; the end is still the end.
    let head = stage.head(id).await;
    let mut again = script.complete(&head);
    again.guard = Guard::Locked;
    let answer = stage.store.locked(id, None, Box::new(move |_| Some(again))).await;
    assert!(matches!(answer, Err(StoreError::BadData(_))), "{answer:?}");
    assert_eq!(stage.head(id).await, head);
    assert_eq!(stage.log(id).await.iter().filter(|recorded| recorded.event.is_terminal()).count(), 1);
}

/// Late is harmless: property C4.
pub async fn nothing_but_late_facts_follows_the_end(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_claimed(SessionId(1)).await;
    stage.cancel(id).await;
    let issued = Event::CommandIssued(Box::new(Issued {
        command_id: CommandId(script.id()),
        step: "next".into(),
        visit: 1,
        iteration: None,
        kind: "http".into(),
        input: std::sync::Arc::new(json!({})),
    }));
    let enter = Event::StepEnter { step: "next".into(), visit: 1, kind: "http".into() };
    let in_time = script.done(command, 1, false).event;
    for event in [issued, enter, in_time] {
        let mut append = script.empty(id, Guard::Locked);
        append.events.push(script.event(event));
        let answer = stage.store.locked(id, None, Box::new(move |_| Some(append))).await;
        assert!(matches!(answer, Err(StoreError::BadData(_))), "{answer:?}");
    }
    let mut revived = script.empty(id, Guard::Locked);
    revived.head = HeadChange { status: Some(Status::Running), ..HeadChange::default() };
    let answer = stage.store.locked(id, None, Box::new(move |_| Some(revived))).await;
    assert!(matches!(answer, Err(StoreError::BadData(_))), "{answer:?}");
    let late = stage.script();
    let answer = stage.store.locked(id, None, Box::new(move |locked| late.late_report(locked, command, 1))).await;
    assert!(matches!(answer, Ok(Some(Verdict::Landed { .. }))), "{answer:?}");
    let head = stage.head(id).await;
    assert_eq!((head.status, head.in_flight, head.quiesced_at.is_some()), (Status::Cancelled, 0, true));
}

/// Head and log cannot disagree about the end.
pub async fn a_terminal_event_and_a_terminal_status_come_together(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let head = stage.head(id).await;
    let mut silent = script.complete(&head);
    silent.head.status = None;
    let mut wrong = script.complete(&head);
    wrong.head.status = Some(Status::Failed);
    let mut bare = script.enter(id, head.decided);
    bare.head.status = Some(Status::Completed);
    for append in [silent, wrong, bare] {
        assert!(matches!(stage.write(append).await, Err(StoreError::BadData(_))));
    }
    assert_eq!(stage.head(id).await, head);
}
