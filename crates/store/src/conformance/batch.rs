//! One batch is one transaction, in which each append stands alone.

use std::sync::Arc;

use noetl_core::append::{DueChange, DueKind, RefusedBy, Verdict};
use noetl_core::event::Event;
use noetl_core::head::CommandState;
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::result::{Bound, LargeResult};
use serde_json::{Value, json};

use super::Stage;
use crate::payload::{APPEND_BYTES_MAX, VALUE_DEPTH_MAX};
use crate::{Store, StoreError};

/// Verdicts in the order of the batch, each on its own.
pub async fn appends_of_one_batch_land_on_their_own(stage: Stage) {
    let script = stage.script();
    let (fresh, stale, ended) = (stage.start().await, stage.start().await, stage.start().await);
    stage.complete(ended).await;
    let (held, command) = stage.start_claimed(SessionId(1)).await;
    let unknown = ExecutionId(script.id());
    let birth = script.birth(None);
    let born = birth.execution_id;
    let batch = vec![
        script.enter(stale, 7),
        script.enter(fresh, 1),
        script.enter(ended, 1),
        script.claim(held, command, 1, SessionId(2)),
        script.enter(unknown, 1),
        birth,
        // On what the one before it has just made.
        script.enter(born, 1),
    ];
    let verdicts = stage.store.append(batch).await;
    let refused = |by| Ok(Verdict::Refused(by));
    assert_eq!(
        verdicts,
        vec![
            Ok(Verdict::Conflict),
            Ok(Verdict::Landed { version: 2 }),
            refused(RefusedBy::Ended),
            refused(RefusedBy::NotPending),
            refused(RefusedBy::Unknown),
            Ok(Verdict::Landed { version: 1 }),
            Ok(Verdict::Landed { version: 2 }),
        ]
    );
    assert_eq!(stage.head(stale).await.version, 1);
    assert_eq!(stage.head(born).await.version, 2);
}

/// The second one was decided on a state that the first one has left behind.
pub async fn two_decisions_of_one_batch_do_not_both_land(stage: Stage) {
    let id = stage.start().await;
    let batch = vec![stage.script().enter(id, 1), stage.script().enter(id, 1)];
    let verdicts = stage.store.append(batch).await;
    assert_eq!(verdicts, vec![Ok(Verdict::Landed { version: 2 }), Ok(Verdict::Conflict)]);
}

/// One bad row rolled back all 63 others.
pub async fn a_poisoned_append_fails_alone(stage: Stage) {
    let script = stage.script();
    let taken = script.birth(None);
    stage.land(taken.clone()).await;
    let mut batch: Vec<_> = (0..64).map(|_| script.birth(None)).collect();
    // An id that is in the log already: only the database can know.
    batch[17].events[0].event_id = taken.events[0].event_id;
    let twin = batch[40].events[0].event_id;
    batch[41].events[0].event_id = twin;
    let verdicts = stage.store.append(batch.clone()).await;
    for (n, (append, verdict)) in batch.iter().zip(&verdicts).enumerate() {
        let head = stage.store.head(append.execution_id).await.unwrap();
        if n == 17 || n == 41 {
            assert!(matches!(verdict, Err(StoreError::BadData(_))), "{n}: {verdict:?}");
            assert_eq!(head, None);
        } else {
            assert_eq!(verdict, &Ok(Verdict::Landed { version: 1 }), "{n}");
            assert_eq!(head.map(|head| head.version), Some(1), "{n}");
        }
    }
    // Nothing of it has stayed behind.
    let mut again = batch.swap_remove(17);
    again.events[0].event_id.0 = script.id();
    stage.land(again).await;
}

/// Events, commands, obligations, children, results, snapshot, head: all or nothing.
pub async fn an_append_lands_as_a_whole_or_not_at_all(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let whole = |decided| {
        let mut append = script.enter(id, decided);
        script.add_command(&mut append, CommandState::Pending);
        append.due.push(DueChange::Set(script.due(id, DueKind::Timer, 5, 0)));
        append.results.push(LargeResult {
            execution_id: id,
            reference: format!("noetl://execution/{id}/result/fetch/{decided}"),
            store: "kv".into(),
            bytes: 3,
            data: Arc::new(json!("big")),
        });
        append.snapshot = Some(Arc::new(json!({"at": decided})));
        append
    };
    let child_of = |head| script.birth(Some(head));
    let head = stage.head(id).await;
    let mut stale = whole(9);
    stale.children.push(child_of(&head));
    let mut taken = whole(1);
    taken.children.push(child_of(&head));
    taken.children[0].events[0].event_id = stage.log(id).await[0].event_id;
    let children = [stale.children[0].execution_id, taken.children[0].execution_id];
    assert_eq!(stage.write(stale).await, Ok(Verdict::Conflict));
    assert!(matches!(stage.write(taken).await, Err(StoreError::BadData(_))));
    assert_eq!(stage.view(id).await.head, head);
    assert!(stage.view(id).await.commands.is_empty());
    assert!(stage.store.due(9).await.unwrap().1.is_empty());
    assert!(stage.store.load(id).await.unwrap().unwrap().snapshot.is_none());
    for decided in [1, 9] {
        let reference = format!("noetl://execution/{id}/result/fetch/{decided}");
        assert_eq!(stage.store.result(&reference).await.unwrap(), None);
    }
    for child in children {
        assert_eq!(stage.store.head(child).await.unwrap(), None);
    }
    let mut good = whole(1);
    good.children.push(child_of(&head));
    let child = good.children[0].execution_id;
    assert_eq!(stage.land(good).await, 3);
    assert_eq!(stage.view(id).await.commands.len(), 1);
    assert_eq!(stage.store.due(9).await.unwrap().1.len(), 1);
    assert_eq!(stage.store.load(id).await.unwrap().unwrap().snapshot, Some((3, Arc::new(json!({"at": 1})))));
    assert_eq!(stage.head(child).await.parent_execution_id, Some(id));
    let reference = format!("noetl://execution/{id}/result/fetch/1");
    assert_eq!(stage.store.result(&reference).await.unwrap(), Some(Arc::new(json!("big"))));
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("\u{0}"), |inner, _| json!([inner]))
}

/// NUL becomes U+FFFD wherever it stands; what could not be read back is refused.
pub async fn bad_values_are_cleaned_or_refused(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let complete = |result: Value| {
        let mut append = script.enter(id, 1);
        append.events = vec![script.event(Event::LoopDone {
            step: "a\0b".into(),
            visit: 1,
            total: 1,
            failed: 0,
            left_out: 0,
            result: Bound::inline(result),
        })];
        append
    };
    let large = "x".repeat(APPEND_BYTES_MAX);
    for bad in [nested(VALUE_DEPTH_MAX + 1), nested(1_000), json!(large)] {
        let answer = stage.write(complete(bad)).await;
        assert!(matches!(answer, Err(StoreError::BadData(_))));
    }
    let mut append = complete(json!({"k\0ey": ["v\0", nested(VALUE_DEPTH_MAX - 2)], "fine \\u0000": 1}));
    append.head.current_step = Some("a\0b".into());
    let with_command = script.add_command(&mut append, CommandState::Pending);
    if let Some(noetl_core::append::CommandChange::Insert(row)) = append.commands.last_mut() {
        row.work = Arc::new(json!({"code": "\0"}));
    }
    stage.land(append).await;
    let log = stage.log(id).await;
    let Event::LoopDone { step, result: Bound::Inline(data), .. } = &log[1].event else { panic!("{log:?}") };
    assert_eq!(step.as_ref(), "a\u{fffd}b");
    assert_eq!(data["k\u{fffd}ey"][0], "v\u{fffd}");
    assert_eq!(data["fine \\u0000"], 1);
    let view = stage.view(id).await;
    assert_eq!(view.head.current_step.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(view.commands[0].command_id, with_command);
    assert_eq!(*view.commands[0].work, json!({"code": "\u{fffd}"}));
    assert_eq!(stage.store.load(id).await.unwrap().unwrap().tail, log);
}

/// Group commit: whoever waits is taken along, and gets its own answer.
pub async fn batches_from_many_callers_all_land(stage: Stage) {
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (store, script): (Arc<dyn Store>, _) = (Arc::clone(&stage.store), stage.script());
            tokio::spawn(async move {
                let births: Vec<_> = (0..8).map(|_| script.birth(None)).collect();
                let ids: Vec<_> = births.iter().map(|append| append.execution_id).collect();
                store.append(births).await.into_iter().for_each(|verdict| assert!(verdict.is_ok()));
                for decided in 1..=20 {
                    let batch = ids.iter().map(|id| script.enter(*id, decided)).collect();
                    for verdict in store.append(batch).await {
                        assert_eq!(verdict, Ok(Verdict::Landed { version: decided + 1 }));
                    }
                }
                ids
            })
        })
        .collect();
    for caller in callers {
        for id in caller.await.unwrap() {
            let log = stage.log(id).await;
            assert_eq!(log.len(), 21);
            assert!(log.iter().zip(1..).all(|(recorded, version)| recorded.version == version));
        }
    }
    assert_eq!(stage.store.validate().await.unwrap(), Vec::<String>::new());
}

/// Nothing asked, nothing answered.
pub async fn an_empty_batch_is_answered(stage: Stage) {
    assert!(stage.store.append(vec![]).await.is_empty());
}
