//! Keeping a store in order.

use std::sync::Arc;

use noetl_core::append::{DueChange, DueKind, Guard};
use noetl_core::id::SessionId;
use noetl_core::result::LargeResult;
use serde_json::json;

use super::Stage;
use crate::{EventQuery, LockedView, StoreError};

/// After everything that happens in a life, head and log agree.
pub async fn a_sound_store_has_nothing_to_find(stage: Stage) {
    assert!(stage.store.validate().await.unwrap().is_empty());
    let (id, command) = stage.start_claimed(SessionId(1)).await;
    stage.start_below(id).await;
    stage.land(stage.script().settle(&stage.head(id).await, command, 1)).await;
    stage.complete(id).await;
    let (cancelled, _) = stage.start_claimed(SessionId(1)).await;
    stage.cancel(cancelled).await;
    stage.start_with_command().await;
    assert!(stage.store.validate().await.unwrap().is_empty());
}

/// All members have ended, none runs, none is young: then all of them go, with everything they left.
pub async fn old_families_are_pruned_whole(stage: Stage) {
    let script = stage.script();
    let old = stage.start().await;
    let child = stage.start_below(old).await;
    let mut append = script.enter(child, 1);
    let reference = format!("noetl://execution/{child}/result/fetch/1");
    append.results.push(LargeResult {
        execution_id: child,
        reference: reference.clone(),
        store: "kv".into(),
        bytes: 1,
        data: Arc::new(json!(1)),
    });
    append.snapshot = Some(Arc::new(json!({})));
    append.due.push(DueChange::Set(script.due(child, DueKind::Timer, 1, 0)));
    stage.land(append).await;
    stage.complete(child).await;
    stage.complete(old).await;
    stage.store.keep_answer("old", json!(1)).await.unwrap();
    let half = stage.start().await;
    stage.start_below(half).await;
    stage.complete(half).await;
    let (running, _) = stage.start_claimed(SessionId(1)).await;
    stage.cancel(running).await;
    stage.clock.advance_ms(1_000);
    let before = stage.clock.now();
    stage.store.keep_answer("young", json!(2)).await.unwrap();
    let young = stage.start().await;
    stage.complete(young).await;
    let many: Vec<_> = (0..40).map(|_| script.birth(None)).collect();
    stage.store.append(many.clone()).await.into_iter().for_each(|verdict| assert!(verdict.is_ok()));
    assert_eq!(stage.store.prune(before, true).await.unwrap(), 2);
    assert_eq!(stage.store.prune(stage.head(old).await.started_at, false).await.unwrap(), 0);
    assert!(stage.store.head(old).await.unwrap().is_some());
    assert_eq!(stage.store.prune(before, false).await.unwrap(), 2);
    for gone in [old, child] {
        assert_eq!(stage.store.head(gone).await.unwrap(), None);
        assert!(stage.log(gone).await.is_empty());
        assert!(stage.store.load(gone).await.unwrap().is_none());
    }
    assert_eq!(stage.store.result(&reference).await.unwrap(), None);
    assert_eq!(stage.store.answer("old").await.unwrap(), None);
    assert_eq!(stage.store.answer("young").await.unwrap(), Some(json!(2)));
    assert!(stage.store.due(9).await.unwrap().1.is_empty());
    for kept in [half, running, young] {
        assert!(stage.store.head(kept).await.unwrap().is_some());
    }
    assert!(stage.store.validate().await.unwrap().is_empty());
    // More families than one step takes.
    for append in many {
        stage.complete(append.execution_id).await;
    }
    stage.clock.advance_ms(1);
    assert_eq!(stage.store.prune(stage.clock.now(), true).await.unwrap(), 41);
    assert_eq!(stage.store.prune(stage.clock.now(), false).await.unwrap(), 41);
    let (left, _) = stage.store.events(EventQuery { limit: 100, ..EventQuery::default() }).await.unwrap();
    assert!(left.iter().all(|recorded| recorded.execution_id >= half && recorded.execution_id <= running));
}

/// The race: a removal comes while the cleanup of a cancelled execution, or of one in the family, still reads what that
/// left behind. Both stay until the cleanup has ended too.
pub async fn what_is_cleaned_up_after_is_not_pruned(stage: Stage) {
    let script = stage.script();
    let (top, lone) = (stage.start().await, stage.start().await);
    let child = stage.start_below(top).await;
    stage.complete(top).await;
    let mut cleanups = Vec::new();
    for cancelled in [child, lone] {
        let mut cleanup = script.birth(None);
        let Guard::New(head) = &mut cleanup.guard else { unreachable!() };
        head.cleanup_of = Some(cancelled);
        let id = cleanup.execution_id;
        let canceller = script.clone();
        let decide = Box::new(move |locked: &LockedView| {
            let mut append = canceller.cancel(locked)?;
            append.head.cancel.as_mut()?.cleanup = Some(id);
            Some(append)
        });
        stage.store.locked(cancelled, None, decide).await.unwrap().unwrap();
        stage.land(cleanup).await;
        cleanups.push(id);
    }
    let prune = async || {
        stage.clock.advance_ms(1);
        let before = stage.clock.now();
        let counted = stage.store.prune(before, true).await.unwrap();
        assert_eq!(stage.store.prune(before, false).await.unwrap(), counted);
        counted
    };
    assert_eq!(prune().await, 0);
    stage.complete(cleanups[0]).await;
    // The family, and its cleanup itself.
    assert_eq!(prune().await, 3);
    assert!(stage.store.head(lone).await.unwrap().is_some());
    stage.complete(cleanups[1]).await;
    assert_eq!(prune().await, 2);
}

/// Every table by its name.
pub async fn sizes_are_counted(stage: Stage) {
    stage.start_with_command().await;
    stage.start().await;
    let sizes = stage.store.size().await.unwrap();
    let rows = |table: &str| sizes.iter().find(|size| size.table == table).map(|size| size.rows);
    assert_eq!((rows("event"), rows("execution"), rows("command")), (Some(3), Some(2), Some(1)));
    for table in [
        "due",
        "cancellation",
        "cancellation_front",
        "snapshot",
        "result",
        "catalog",
        "runtime",
        "idempotency",
        "credential",
        "keychain",
        "setting",
    ] {
        assert_eq!(rows(table), Some(0), "{table}");
    }
}

/// Closed is closed, for everybody who still holds it.
pub async fn a_closed_store_answers_nothing(stage: Stage) {
    let id = stage.start().await;
    stage.store.close().await.unwrap();
    assert!(matches!(stage.write(stage.script().enter(id, 1)).await, Err(StoreError::Closed(_))));
    assert!(matches!(stage.store.head(id).await, Err(StoreError::Closed(_))));
    assert!(matches!(stage.store.locked(id, None, Box::new(|_| None)).await, Err(StoreError::Closed(_))));
    assert!(matches!(stage.store.due(1).await, Err(StoreError::Closed(_))));
}
