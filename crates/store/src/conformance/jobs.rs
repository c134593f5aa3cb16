//! Jobs over a selection: pages, what is spared, stopping, and who drives them.

use noetl_core::control::selection::Selection;
use noetl_core::head::Status;
use noetl_core::id::{CancellationId, ExecutionId};

use super::Stage;
use crate::{Cancellation, Chunk, DRIVE_CLAIM_MS, JobQuery, ListQuery, LockedView, Pick, Visit};

/// A job over whatever runs, or over `ids`.
fn job(stage: &Stage, ids: &[ExecutionId], cascade: bool) -> Cancellation {
    let script = stage.script();
    let mut job = script.cancellation(ExecutionId(1));
    job.requested_execution_id = None;
    job.selection = Some(Selection { ids: ids.to_vec(), path: Some("*".into()), stuck: true, ..Selection::default() });
    job.cursor = ids.is_empty().then_some(ExecutionId(job.cancellation_id.0));
    job.cascade = cascade;
    job.rate = Some(7);
    job.selected = Some(3);
    job
}

async fn opened(stage: &Stage, job: Cancellation) -> CancellationId {
    stage.store.open_cancellation(job.clone()).await.unwrap();
    assert_eq!(stage.store.cancellation(job.cancellation_id).await.unwrap(), Some(job.clone()));
    job.cancellation_id
}

/// Visits a page; `walks_on` is what the job says of descendants.
async fn page(stage: &Stage, id: CancellationId, pick: Pick, walks_on: bool) -> Chunk {
    let script = stage.script();
    let decide = Box::new(move |locked: &LockedView, through| {
        assert_eq!(through, locked.view.head.execution_id, "each of a page is reached by itself");
        Visit { append: script.cancel(locked), walks_on }
    });
    stage.store.cancel_chunk(id, pick, decide).await.unwrap()
}

async fn status(stage: &Stage, id: ExecutionId) -> Status {
    stage.head(id).await.status
}

/// The cursor moves with what was written, so a page that is sent again, or by two servers, is visited once.
pub async fn a_job_comes_to_every_page_once(stage: Stage) {
    let (one, two, three) = (stage.start().await, stage.start().await, stage.start().await);
    let job = job(&stage, &[], false);
    let id = opened(&stage, job.clone()).await;
    let horizon = job.cursor.unwrap();
    let first = Pick::Page { ids: vec![three, two], from: horizon, to: Some(two) };
    let chunk = page(&stage, id, first.clone(), false).await;
    let mut visited = chunk.visited.clone();
    visited.sort_unstable();
    assert_eq!(visited, [two, three]);
    assert_eq!((chunk.front, chunk.cursor, chunk.done), (false, Some(two), false));
    let again = page(&stage, id, first, false).await;
    assert_eq!((again.visited, again.cursor, again.done), (vec![], Some(two), false));
    assert_eq!(status(&stage, one).await, Status::Running);
    let last = page(&stage, id, Pick::Page { ids: vec![one], from: two, to: None }, false).await;
    assert_eq!((last.visited, last.cursor, last.done), (vec![one], None, true));
    let done = stage.store.cancellation(id).await.unwrap().unwrap();
    assert_eq!((done.cancelled, done.visited, done.spared, done.cursor), (3, 3, 0, None));
    assert_eq!(done.done_at, Some(stage.clock.now()));
}

/// Nothing of what the decision spares is touched, and a walk that does not go on puts nothing on the front.
pub async fn what_a_job_spares_is_left_with_its_descendants(stage: Stage) {
    let (spared, taken) = (stage.start().await, stage.start().await);
    let (below_spared, below_taken) = (stage.start_below(spared).await, stage.start_below(taken).await);
    let job = job(&stage, &[], true);
    let id = opened(&stage, job.clone()).await;
    let script = stage.script();
    let decide = Box::new(move |locked: &LockedView, _| match locked.view.head.execution_id == spared {
        true => Visit { append: None, walks_on: false },
        false => Visit { append: script.cancel(locked), walks_on: true },
    });
    let pick = Pick::Page { ids: vec![taken, spared], from: job.cursor.unwrap(), to: None };
    let chunk = stage.store.cancel_chunk(id, pick, decide).await.unwrap();
    assert_eq!((chunk.front, chunk.done), (true, false));
    assert!(stage.chunk(id, 9).await.unwrap().done);
    for (execution, expected) in [
        (spared, Status::Running),
        (below_spared, Status::Running),
        (taken, Status::Cancelled),
        (below_taken, Status::Cancelled),
    ] {
        assert_eq!(status(&stage, execution).await, expected);
    }
    let done = stage.store.cancellation(id).await.unwrap().unwrap();
    assert_eq!((done.cancelled, done.visited, done.spared), (2, 3, 1));
}

/// What was not begun is left alone; a family that was begun ends as a whole.
pub async fn a_stopped_job_finishes_the_families_it_has_begun(stage: Stage) {
    let (first, second) = (stage.start().await, stage.start().await);
    let child = stage.start_below(first).await;
    let id = opened(&stage, job(&stage, &[first, second], true)).await;
    assert_eq!(stage.chunk(id, 1).await.unwrap().visited, [first]);
    stage.clock.advance_ms(5);
    let stopped = stage.store.stop_cancellation(id, "ann").await.unwrap().unwrap();
    assert_eq!((stopped.stopped_at, stopped.stopped_by.as_deref()), (Some(stage.clock.now()), Some("ann")));
    assert_eq!(stopped.done_at, None);
    stage.clock.advance_ms(5);
    let again = stage.store.stop_cancellation(id, "bob").await.unwrap().unwrap();
    assert_eq!(again, stopped, "who stopped it first stays");
    let chunk = stage.chunk(id, 9).await.unwrap();
    assert_eq!((chunk.visited, chunk.done), (vec![child], true));
    assert_eq!(status(&stage, second).await, Status::Running);
    // One that has begun nothing is done at once, and its pages are looked for no more.
    let idle = job(&stage, &[], true);
    let id = opened(&stage, idle.clone()).await;
    let stopped = stage.store.stop_cancellation(id, "ann").await.unwrap().unwrap();
    assert_eq!((stopped.cursor, stopped.done_at), (None, Some(stage.clock.now())));
    let late = Pick::Page { ids: vec![second], from: idle.cursor.unwrap(), to: None };
    let chunk = page(&stage, id, late, true).await;
    assert_eq!((chunk.visited, chunk.done), (vec![], true));
    assert_eq!(status(&stage, second).await, Status::Running);
}

/// A listed execution that is also a descendant of a listed one belongs to that one's family.
pub async fn a_listed_child_is_not_left_behind_by_a_stop(stage: Stage) {
    let root = stage.start().await;
    let child = stage.start_below(root).await;
    let id = opened(&stage, job(&stage, &[root, child], true)).await;
    assert_eq!(stage.chunk(id, 1).await.unwrap().visited, [root]);
    stage.store.stop_cancellation(id, "ann").await.unwrap();
    assert_eq!(stage.chunk(id, 9).await.unwrap().visited, [child]);
    assert_eq!(status(&stage, child).await, Status::Cancelled);
}

/// That all of a family ends was promised when its cascade was recorded.
pub async fn neither_a_cascade_nor_a_finished_job_is_stopped(stage: Stage) {
    let root = stage.start().await;
    let cascade = stage.script().cancellation(root);
    stage.store.open_cancellation(cascade.clone()).await.unwrap();
    assert_eq!(stage.store.stop_cancellation(cascade.cancellation_id, "ann").await.unwrap(), Some(cascade));
    let job = job(&stage, &[root], false);
    let id = opened(&stage, job).await;
    assert!(page(&stage, id, Pick::Front(9), false).await.done);
    let done = stage.store.cancellation(id).await.unwrap();
    assert_eq!(stage.store.stop_cancellation(id, "ann").await.unwrap(), done);
    assert_eq!(stage.store.stop_cancellation(CancellationId(stage.id()), "ann").await.unwrap(), None);
}

/// Each step renews the claim of whoever takes it; of those who find it silent one gets it.
pub async fn a_job_is_taken_over_when_it_has_not_moved(stage: Stage) {
    let (one, two) = (stage.start().await, stage.start().await);
    let id = opened(&stage, job(&stage, &[one, two], false)).await;
    assert!(stage.store.claim_cancellation(id).await.unwrap(), "nobody has it");
    assert!(!stage.store.claim_cancellation(id).await.unwrap());
    stage.clock.advance_ms(DRIVE_CLAIM_MS);
    page(&stage, id, Pick::Front(1), false).await;
    stage.clock.advance_ms(DRIVE_CLAIM_MS);
    assert!(!stage.store.claim_cancellation(id).await.unwrap(), "it moved");
    stage.clock.advance_ms(1);
    let (mine, yours) = tokio::join!(stage.store.claim_cancellation(id), stage.store.claim_cancellation(id));
    assert!(mine.unwrap() ^ yours.unwrap());
    assert!(page(&stage, id, Pick::Front(9), false).await.done);
    stage.clock.advance_ms(DRIVE_CLAIM_MS + 1);
    assert!(!stage.store.claim_cancellation(id).await.unwrap(), "it is done");
}

/// Open and done ones, a page at a time.
pub async fn jobs_are_listed_newest_first(stage: Stage) {
    let one = stage.start().await;
    let done = opened(&stage, job(&stage, &[one], false)).await;
    page(&stage, done, Pick::Front(9), false).await;
    let open = opened(&stage, job(&stage, &[], false)).await;
    let list = |query: JobQuery| {
        let store = std::sync::Arc::clone(&stage.store);
        async move {
            store.cancellations(query).await.unwrap().into_iter().map(|job| job.cancellation_id).collect::<Vec<_>>()
        }
    };
    let all = JobQuery { limit: 9, ..JobQuery::default() };
    assert_eq!(list(all.clone()).await, [open, done]);
    assert_eq!(list(JobQuery { limit: 1, ..all.clone() }).await, [open]);
    assert_eq!(list(JobQuery { before: Some(open), ..all.clone() }).await, [done]);
    assert_eq!(list(JobQuery { open: true, ..all }).await, [open]);
}

/// With the executions that are as old.
pub async fn finished_jobs_are_pruned(stage: Stage) {
    let one = stage.start().await;
    let done = opened(&stage, job(&stage, &[one], false)).await;
    page(&stage, done, Pick::Front(9), false).await;
    let open = opened(&stage, job(&stage, &[], false)).await;
    stage.store.prune(stage.clock.now(), false).await.unwrap();
    assert!(stage.store.cancellation(done).await.unwrap().is_some(), "it is not as old");
    stage.clock.advance_ms(1);
    stage.store.prune(stage.clock.now(), true).await.unwrap();
    assert!(stage.store.cancellation(done).await.unwrap().is_some(), "only counted");
    stage.store.prune(stage.clock.now(), false).await.unwrap();
    assert_eq!(stage.store.cancellation(done).await.unwrap(), None);
    assert!(stage.store.cancellation(open).await.unwrap().is_some());
}

/// The same conditions as the listing itself.
pub async fn a_listing_is_counted_and_its_ids_read(stage: Stage) {
    let (one, two, three) = (stage.start().await, stage.start().await, stage.start().await);
    stage.complete(two).await;
    let running = ListQuery { status: vec![Status::Running], limit: 10, ..ListQuery::default() };
    assert_eq!(stage.store.execution_ids(running.clone()).await.unwrap(), [three, one]);
    assert_eq!(stage.store.count_executions(running.clone()).await.unwrap(), 2);
    let some = ListQuery { limit: 1, ..running.clone() };
    assert_eq!(stage.store.count_executions(some).await.unwrap(), 1);
    let below = ListQuery { before: Some(three), ..running.clone() };
    assert_eq!(stage.store.execution_ids(below).await.unwrap(), [one]);
    assert_eq!(stage.store.count_executions(ListQuery { job: Some(CancellationId(5)), ..running }).await.unwrap(), 0);
}
