//! Decisions under the lock of a head.

use std::sync::Arc;

use noetl_core::append::{Guard, Verdict};
use noetl_core::id::{CommandId, SessionId};

use super::Stage;
use crate::StoreError;

/// It reads after it holds the lock, so it lands whatever came before.
pub async fn a_locked_decision_sees_what_stands_and_cannot_conflict(stage: Stage) {
    let (id, command) = stage.start_claimed(SessionId(3)).await;
    let before = stage.view(id).await;
    stage.clock.advance_ms(7);
    let (script, expected, now) = (stage.script(), before.clone(), stage.clock.now());
    let verdict = stage.store.locked(
        id,
        None,
        Box::new(move |locked| {
            assert_eq!(locked.view, expected);
            assert_eq!(locked.now, now);
            assert!(locked.tail.is_empty());
            script.cancel(locked)
        }),
    );
    assert_eq!(verdict.await.unwrap(), Some(Verdict::Landed { version: before.head.version + 1 }));
    let view = stage.view(id).await;
    // Under the lock a decision is one like others: both counters rise.
    assert_eq!((view.head.version, view.head.decided), (before.head.version + 1, before.head.version + 1));
    assert_eq!(view.commands[0].command_id, command);
    assert_eq!((view.head.in_flight, view.head.quiesced_at), (1, None));
}

/// No decision, no write; the answer is where the head stands.
pub async fn a_locked_decision_that_says_nothing_writes_nothing(stage: Stage) {
    let id = stage.start().await;
    let before = stage.head(id).await;
    assert_eq!(stage.store.locked(id, None, Box::new(|_| None)).await, Ok(Some(Verdict::Landed { version: 1 })));
    assert_eq!(stage.head(id).await, before);
}

/// What it was not shown it cannot decide on.
pub async fn a_locked_decision_is_about_its_own_execution(stage: Stage) {
    let (id, other) = (stage.start().await, stage.start().await);
    let (foreign, guarded) = (stage.script().empty(other, Guard::Locked), stage.script().enter(id, 1));
    for append in [foreign, guarded] {
        let answer = stage.store.locked(id, None, Box::new(move |_| Some(append))).await;
        assert!(matches!(answer, Err(StoreError::BadData(_))), "{answer:?}");
    }
    assert_eq!((stage.head(id).await.version, stage.head(other).await.version), (1, 1));
}

/// The events that its cache does not have yet.
pub async fn a_locked_decision_reads_the_tail_it_asks_for(stage: Stage) {
    let id = stage.start().await;
    for decided in 1..=4 {
        stage.land(stage.script().enter(id, decided)).await;
    }
    let log = stage.log(id).await;
    for (after, expected) in [(0, &log[..]), (3, &log[3..]), (5, &[]), (99, &[])] {
        let expected = expected.to_vec();
        let asked = stage.store.locked(
            id,
            Some(after),
            Box::new(move |locked| {
                assert_eq!(locked.tail, expected);
                None
            }),
        );
        asked.await.unwrap();
    }
}

/// Each sees what the one before it wrote.
pub async fn locked_decisions_on_one_head_take_turns(stage: Stage) {
    let id = stage.start().await;
    let deciders: Vec<_> = (0..32)
        .map(|_| {
            let (store, script) = (Arc::clone(&stage.store), stage.script());
            tokio::spawn(async move {
                let decide = move |locked: &crate::LockedView| {
                    let mut append = script.enter(id, 0);
                    append.guard = Guard::Locked;
                    append.head.steps_entered = 0;
                    append.head.commands_issued = locked.view.head.commands_issued + 1;
                    Some(append)
                };
                store.locked(id, None, Box::new(decide)).await.unwrap().unwrap()
            })
        })
        .collect();
    let mut versions = Vec::new();
    for decider in deciders {
        let Verdict::Landed { version } = decider.await.unwrap() else { panic!() };
        versions.push(version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=33).collect::<Vec<u64>>());
    // Each added one more than all before it had added: 1, 2, 4, …
    assert_eq!(stage.head(id).await.commands_issued, (1 << 32) - 1);
}

/// Nobody holds the lock there.
pub async fn a_locked_append_does_not_go_into_a_batch(stage: Stage) {
    let id = stage.start().await;
    let append = stage.script().empty(id, Guard::Locked);
    assert!(matches!(stage.write(append).await, Err(StoreError::BadData(_))));
}

/// `finish`: what runs reports late, the last report carries the proof.
pub async fn late_reports_settle_under_the_lock_until_nothing_runs(stage: Stage) {
    let script = stage.script();
    let mut birth = script.birth(None);
    let id = birth.execution_id;
    let commands: Vec<CommandId> =
        (0..2).map(|_| script.add_command(&mut birth, noetl_core::head::CommandState::Claimed)).collect();
    stage.land(birth).await;
    assert_eq!(stage.head(id).await.in_flight, 2);
    stage.cancel(id).await;
    for (n, command) in commands.iter().enumerate() {
        assert_eq!(stage.head(id).await.quiesced_at, None);
        let (script, command) = (stage.script(), *command);
        stage.clock.advance_ms(10);
        let verdict =
            stage.store.locked(id, None, Box::new(move |locked| script.late_report(locked, command, 1))).await;
        assert!(matches!(verdict, Ok(Some(Verdict::Landed { .. }))), "{verdict:?}");
        assert_eq!(stage.head(id).await.in_flight, 1 - u32::try_from(n).unwrap());
    }
    let head = stage.head(id).await;
    assert_eq!(head.quiesced_at, Some(stage.clock.now()));
    assert_eq!(head.cancel.unwrap().ended.len(), 2);
    // Told twice: nothing is left to settle.
    let (script, command) = (stage.script(), commands[0]);
    let version = head.version;
    let again = stage.store.locked(id, None, Box::new(move |locked| script.late_report(locked, command, 1))).await;
    assert_eq!(again, Ok(Some(Verdict::Landed { version })));
    // The proof is given once.
    let mut proof = stage.script().empty(id, Guard::Locked);
    let event = noetl_core::event::Event::ExecutionQuiesced { commands: vec![] };
    proof.events.push(stage.script().event(event));
    proof.head.quiesced = true;
    let answer = stage.store.locked(id, None, Box::new(move |_| Some(proof))).await;
    assert!(matches!(answer, Err(StoreError::BadData(_))), "{answer:?}");
}

/// A bug in one decision is that caller's; everybody else goes on.
pub async fn a_decision_that_panics_harms_nobody(stage: Stage) {
    let id = stage.start().await;
    let store = Arc::clone(&stage.store);
    let panicking =
        tokio::spawn(async move { store.locked(id, None, Box::new(|_| panic!("a bug in a decision"))).await });
    // A store may let the panic through to its caller, or answer with an error.
    match panicking.await {
        Ok(answer) => assert!(answer.is_err(), "{answer:?}"),
        Err(panicked) => assert!(panicked.is_panic()),
    }
    stage.land(stage.script().enter(id, 1)).await;
    assert!(matches!(stage.cancel(id).await, Verdict::Landed { .. }));
}
