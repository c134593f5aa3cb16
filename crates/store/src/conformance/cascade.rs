//! Cascades: fence, then look, then the next round; property C3.

use std::collections::BTreeSet;
use std::sync::Arc;

use noetl_core::append::{RefusedBy, Verdict};
use noetl_core::head::{Head, Status};
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_core::playbook::Shield;

use super::Stage;
use crate::{ListQuery, LockedView, Pick, StoreError};

/// Takes steps of at most `max` until nothing is left; returns what was visited.
async fn drive(stage: &Stage, id: CancellationId, max: usize) -> Vec<ExecutionId> {
    let mut visited = Vec::new();
    for _ in 0..10_000 {
        let chunk = stage.chunk(id, max).await.unwrap();
        assert!(chunk.visited.len() <= max);
        visited.extend(chunk.visited);
        if chunk.done {
            return visited;
        }
    }
    panic!("the cascade does not end");
}

async fn members(stage: &Stage, root: ExecutionId) -> Vec<Head> {
    let family = ListQuery { root: Some(root), limit: 10_000, ..ListQuery::default() };
    stage.store.executions(family).await.unwrap()
}

/// A tree of the given widths per level, below a new root.
async fn tree(stage: &Stage, widths: &[usize]) -> ExecutionId {
    let root = stage.start().await;
    let mut level = vec![root];
    for width in widths {
        let mut births = Vec::new();
        for parent in &level {
            let parent = stage.head(*parent).await;
            births.extend((0..*width).map(|_| stage.script().birth(Some(&parent))));
        }
        level = births.iter().map(|append| append.execution_id).collect();
        for verdict in stage.store.append(births).await {
            assert!(matches!(verdict, Ok(Verdict::Landed { .. })));
        }
    }
    root
}

/// Every member once, whatever the size of a step.
pub async fn a_cascade_reaches_every_descendant(stage: Stage) {
    for max in [1, 7, 500] {
        let root = tree(&stage, &[3, 3, 3]).await;
        let cancellation = stage.script().cancellation(root);
        let id = cancellation.cancellation_id;
        stage.store.open_cancellation(cancellation.clone()).await.unwrap();
        assert!(stage.store.open_cancellations().await.unwrap().contains(&cancellation));
        stage.clock.advance_ms(3);
        let visited = drive(&stage, id, max).await;
        assert_eq!((visited[0], visited.len()), (root, 40));
        assert_eq!(visited.iter().collect::<BTreeSet<_>>().len(), 40);
        assert!(members(&stage, root).await.iter().all(|head| head.status == Status::Cancelled));
        let done = stage.store.cancellation(id).await.unwrap().unwrap();
        assert_eq!((done.cancelled, done.visited, done.done_at), (40, 40, Some(stage.clock.now())));
        assert!(stage.store.open_cancellations().await.unwrap().is_empty());
        // Done is done: another step changes nothing.
        assert!(drive(&stage, id, max).await.is_empty());
        assert_eq!(stage.store.cancellation(id).await.unwrap().unwrap(), done);
    }
}

/// An ended member stays as it ended, and its descendants are reached through it.
pub async fn a_cascade_passes_through_what_has_ended(stage: Stage) {
    let root = stage.start().await;
    let middle = stage.start_below(root).await;
    let leaf = stage.start_below(middle).await;
    stage.complete(middle).await;
    stage.complete(root).await;
    let (before_root, before_middle) = (stage.head(root).await, stage.head(middle).await);
    let cancellation = stage.script().cancellation(root);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation).await.unwrap();
    assert_eq!(drive(&stage, id, 500).await, [root, middle, leaf]);
    assert_eq!((stage.head(root).await, stage.head(middle).await), (before_root, before_middle));
    assert_eq!(stage.head(leaf).await.status, Status::Cancelled);
    let done = stage.store.cancellation(id).await.unwrap().unwrap();
    assert_eq!((done.cancelled, done.visited), (1, 3));
}

/// What the walk leaves alone, as it does what is shielded, is visited and not walked through; the decision is told
/// through whom it is reached, so that one that was named itself is another case.
pub async fn a_cascade_leaves_what_is_shielded_alone(stage: Stage) {
    let root = stage.start().await;
    let open = stage.start_below(root).await;
    let script = stage.script();
    let mut shielded = Vec::new();
    for shield in [Shield::Abandon, Shield::Wait] {
        let birth = script.shielded_birth(&stage.head(open).await, shield);
        shielded.push(birth.execution_id);
        stage.land(birth).await;
        assert_eq!(stage.head(shielded[shielded.len() - 1]).await.shield, Some(shield));
    }
    let below = stage.start_below(shielded[0]).await;
    let beside = stage.start_below(open).await;
    for (requested, visits, cancels) in [
        (root, vec![root, open, shielded[0], shielded[1], beside], vec![root, open, beside]),
        (shielded[0], vec![shielded[0], below], vec![shielded[0], below]),
    ] {
        let cancellation = script.cancellation(requested);
        let id = cancellation.cancellation_id;
        stage.store.open_cancellation(cancellation).await.unwrap();
        let mut visited = BTreeSet::new();
        loop {
            let script = stage.script();
            let decide = Box::new(move |locked: &LockedView, through: ExecutionId| script.cancel_open(locked, through));
            let chunk = stage.store.cancel_chunk(id, Pick::Front(2), decide).await.unwrap();
            visited.extend(chunk.visited);
            if chunk.done {
                break;
            }
        }
        let job = stage.store.cancellation(id).await.unwrap().unwrap();
        let spared = visits.len() - cancels.len();
        assert_eq!(
            (job.cancelled, job.visited, job.spared),
            (cancels.len() as u64, visits.len() as u64, spared as u64)
        );
        assert_eq!(visited, visits.into_iter().collect());
        for id in cancels {
            assert_eq!(stage.head(id).await.status, Status::Cancelled);
        }
    }
    assert_eq!(stage.head(shielded[1]).await.status, Status::Running);
}

/// Half done, somebody else goes on; what is visited is not visited again.
pub async fn a_cascade_goes_on_where_it_stopped(stage: Stage) {
    let root = tree(&stage, &[4, 2]).await;
    let cancellation = stage.script().cancellation(root);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation).await.unwrap();
    let first = stage.chunk(id, 3).await.unwrap();
    assert_eq!((first.visited, first.done), (vec![root], false));
    let open = stage.store.open_cancellations().await.unwrap();
    assert_eq!((open.len(), open[0].cancelled, open[0].done_at), (1, 1, None));
    // Two servers go on at once: both are harmless.
    let (one, two) = tokio::join!(drive(&stage, id, 2), drive(&stage, id, 3));
    let visited: BTreeSet<_> = one.iter().chain(&two).collect();
    assert_eq!((one.len() + two.len(), visited.len()), (12, 12));
    assert!(members(&stage, root).await.iter().all(|head| head.status == Status::Cancelled));
}

/// Recorded twice under one id, it is one.
pub async fn a_cascade_is_opened_once(stage: Stage) {
    let root = stage.start().await;
    let cancellation = stage.script().cancellation(root);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation.clone()).await.unwrap();
    drive(&stage, id, 9).await;
    let done = stage.store.cancellation(id).await.unwrap();
    stage.store.open_cancellation(cancellation).await.unwrap();
    assert_eq!(stage.store.cancellation(id).await.unwrap(), done);
    assert!(stage.store.open_cancellations().await.unwrap().is_empty());
    let unknown = CancellationId(stage.id());
    assert_eq!(stage.store.cancellation(unknown).await.unwrap(), None);
    assert!(drive(&stage, unknown, 9).await.is_empty());
}

/// Nothing is written outside the selection.
pub async fn a_cascade_leaves_bystanders_alone(stage: Stage) {
    let (root, other) = (tree(&stage, &[2]).await, tree(&stage, &[2]).await);
    let child = members(&stage, root).await[0].execution_id;
    let before = members(&stage, other).await;
    let cancellation = stage.script().cancellation(child);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation).await.unwrap();
    assert_eq!(drive(&stage, id, 500).await, [child]);
    assert_eq!(members(&stage, other).await, before);
    assert_eq!(stage.head(root).await.status, Status::Running);
}

/// Spawners run against the cascade on every level; none of their children is left over.
pub async fn a_child_born_during_a_cascade_is_caught(stage: Stage) {
    for _ in 0..10 {
        let root = tree(&stage, &[3]).await;
        let spawners: Vec<_> = members(&stage, root)
            .await
            .into_iter()
            .map(|mut parent| {
                let (store, script) = (Arc::clone(&stage.store), stage.script());
                tokio::spawn(async move {
                    // Each goes on below its own last child, down to the deepest level there may be.
                    while parent.depth < 64 {
                        let birth = script.birth(Some(&parent));
                        let child = birth.execution_id;
                        match store.append(vec![birth]).await.remove(0).unwrap() {
                            Verdict::Landed { .. } => parent = store.head(child).await.unwrap().unwrap(),
                            Verdict::Refused(RefusedBy::ParentEnded) => return,
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let cancellation = stage.script().cancellation(root);
        let id = cancellation.cancellation_id;
        stage.store.open_cancellation(cancellation).await.unwrap();
        drive(&stage, id, 2).await;
        // The cascade says that it is done while spawners may still try: nothing may become active after that.
        for spawner in spawners {
            spawner.await.unwrap();
        }
        let escaped: Vec<_> = members(&stage, root).await.into_iter().filter(Head::is_active).collect();
        assert!(escaped.is_empty(), "{escaped:?}");
    }
}

/// A step is one transaction: fences, front and counters move together or not at all.
pub async fn a_cascade_whose_decision_fails_leaves_its_step_undone(stage: Stage) {
    let root = tree(&stage, &[3]).await;
    let cancellation = stage.script().cancellation(root);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation).await.unwrap();
    stage.chunk(id, 1).await.unwrap();
    let (script, mut visits) = (stage.script(), 0);
    let failing = stage.store.cancel_chunk(
        id,
        Pick::Front(9),
        Box::new(move |locked, _| {
            visits += 1;
            let mut append = script.cancel(locked);
            if visits == 2
                && let Some(append) = &mut append
            {
                append.head.status = None;
            }
            append.into()
        }),
    );
    assert!(matches!(failing.await, Err(StoreError::BadData(_))));
    let active = members(&stage, root).await.into_iter().filter(Head::is_active).count();
    assert_eq!((active, stage.store.cancellation(id).await.unwrap().unwrap().visited), (3, 1));
    assert_eq!(drive(&stage, id, 9).await.len(), 3);
}
