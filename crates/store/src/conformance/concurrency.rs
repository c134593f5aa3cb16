//! Concurrency keys: as many starts land as may, whoever else is at it.

use std::sync::Arc;

use futures_util::future::join_all;
use noetl_core::append::{Append, DueChange, Guard, RefusedBy, Verdict};
use noetl_core::concurrency::Admission;
use noetl_core::event::Event;
use noetl_core::head::CommandState;
use noetl_core::id::{ExecutionId, SessionId};

use super::{Script, Stage};

/// A start that takes a key.
fn keyed(
    script: &Script,
    parent: Option<&noetl_core::head::Head>,
    limit: u32,
    displaced: Option<&[ExecutionId]>,
) -> Append {
    let mut birth = script.birth(parent);
    if let Guard::New(head) = &mut birth.guard {
        head.concurrency_key = Some("customer-7".into());
    }
    if let Event::PlaybookInitialized(init) = &mut birth.events[0].event {
        init.concurrency_key = Some("customer-7".into());
    }
    let displaced = displaced.map(<[ExecutionId]>::to_vec);
    birth.due.push(DueChange::Enter(Admission { key: "customer-7".into(), limit, displaced }));
    birth
}

async fn holders(stage: &Stage) -> Vec<(ExecutionId, bool)> {
    let found = stage.store.key_holders("customer-7").await.unwrap();
    found.iter().map(|holder| (holder.execution_id, holder.active)).collect()
}

/// From the start on, past the end, until the proof.
pub async fn a_concurrency_key_is_held_until_nothing_runs(stage: Stage) {
    let script = &stage.script();
    assert!(holders(&stage).await.is_empty());
    let mut birth = keyed(script, None, 1, None);
    let command = script.add_command(&mut birth, CommandState::Pending);
    let first = birth.execution_id;
    stage.land(birth).await;
    assert_eq!(stage.head(first).await.concurrency_key.as_deref(), Some("customer-7"));
    assert_eq!(holders(&stage).await, [(first, true)]);
    let refused = Ok(Verdict::Refused(RefusedBy::KeyHeld));
    assert_eq!(stage.write(keyed(script, None, 1, None)).await, refused);

    stage.land(script.claim(first, command, 1, SessionId(1))).await;
    let canceller = stage.script();
    stage.store.locked(first, None, Box::new(move |locked| canceller.cancel(locked))).await.unwrap();
    assert_eq!(holders(&stage).await, [(first, false)], "it has ended, and something of it still runs");
    assert_eq!(stage.write(keyed(script, None, 1, None)).await, refused);
    // Whoever takes the place of what runs does not wait for that.
    let second = keyed(script, None, 1, Some(&[]));
    let id = second.execution_id;
    stage.land(second).await;
    assert_eq!(holders(&stage).await, [(first, false), (id, true)]);
    assert_eq!(stage.write(keyed(script, None, 1, Some(&[]))).await, refused);
    let third = keyed(script, None, 1, Some(&[id]));
    stage.land(third).await;

    let settler = stage.script();
    stage.store.locked(first, None, Box::new(move |locked| settler.late_report(locked, command, 1))).await.unwrap();
    assert!(!holders(&stage).await.iter().any(|(id, _)| *id == first), "the proof has freed its place");
    // Only a start takes a key, and only its own.
    let mut enter = script.enter(id, stage.head(id).await.decided);
    enter.due.push(DueChange::Enter(Admission { key: "customer-7".into(), limit: 9, displaced: None }));
    assert!(stage.write(enter).await.is_err());
}

/// In one batch, and from many callers at once.
pub async fn of_many_starts_with_one_key_as_many_land_as_may(stage: Stage) {
    let script = &stage.script();
    let landed = |verdict: &Result<Verdict, crate::StoreError>| matches!(verdict, Ok(Verdict::Landed { .. }));
    let batch = (0..6).map(|_| keyed(script, None, 2, None)).collect();
    let verdicts = stage.store.append(batch).await;
    assert_eq!(verdicts.iter().filter(|verdict| landed(verdict)).count(), 2, "{verdicts:?}");
    let callers = (0..20).map(|_| {
        let (store, birth) = (Arc::clone(&stage.store), keyed(script, None, 5, None));
        tokio::spawn(async move { store.append(vec![birth]).await.remove(0) })
    });
    let verdicts: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(verdicts.iter().filter(|verdict| landed(verdict)).count(), 3, "{verdicts:?}");
    assert_eq!(holders(&stage).await.len(), 5);
}

/// The second child of an append finds the first one there.
pub async fn children_of_one_append_share_a_key(stage: Stage) {
    let script = &stage.script();
    let parent = stage.start().await;
    let head = stage.head(parent).await;
    let with = |children: Vec<Append>| Append { children, ..script.enter(parent, head.decided) };
    let two = with(vec![keyed(script, Some(&head), 1, None), keyed(script, Some(&head), 1, None)]);
    assert_eq!(stage.write(two).await, Ok(Verdict::Refused(RefusedBy::KeyHeld)));
    assert!(holders(&stage).await.is_empty(), "an append lands as a whole or not at all");
    let one = keyed(script, Some(&head), 1, None);
    let child = one.execution_id;
    stage.land(with(vec![one])).await;
    assert_eq!(holders(&stage).await, [(child, true)]);
}
