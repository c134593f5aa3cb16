//! Cancelling many at once.

use noetl_core::head::Status;
use noetl_core::id::{CancellationId, ExecutionId};
use noetl_engine::{BulkError, BulkRequest, CancelRequest, Filter, Selected};
use tokio::time::{Duration, Instant, sleep};

use crate::world::{Server, World, cancel, chain, playbook};

fn request(filter: Filter) -> BulkRequest {
    BulkRequest {
        selected: Selected::Matching(filter),
        how: cancel(ExecutionId(0)),
        max: 1_000,
        rate: None,
        answer_ms: 10_000,
    }
}

fn listed(ids: &[ExecutionId]) -> BulkRequest {
    BulkRequest { selected: Selected::Listed(ids.to_vec()), ..request(Filter::default()) }
}

fn idle(ms: u64) -> Filter {
    Filter { idle_for_ms: Some(ms), ..Filter::default() }
}

#[tokio::test(start_paused = true)]
async fn what_matches_is_cancelled_and_nothing_else() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("old/one", &[("a", "ok")])).await;
    server.register(&chain("old/two", &[("a", "ok")])).await;
    let mut old = Vec::new();
    for path in ["old/one", "old/two", "old/one"] {
        old.push(server.start(path).await.execution_id);
    }
    sleep(Duration::from_secs(60)).await;
    let young = server.start("old/one").await.execution_id;
    let dry = BulkRequest { how: CancelRequest { dry_run: true, ..cancel(young) }, ..request(idle(30_000)) };
    let matched = server.engine.cancel_matching(&dry).await.unwrap();
    assert_eq!((matched.matched.len(), matched.cancelled.len()), (3, 0));
    let few = BulkRequest { max: 2, ..request(idle(30_000)) };
    let refused = server.engine.cancel_matching(&few).await.unwrap_err();
    assert!(matches!(refused, BulkError::TooMany { max: 2 }), "{refused}");
    for id in &old {
        assert_eq!(world.head(*id).await.status, Status::Running, "a refusal changes nothing");
    }
    let one = Filter { path: Some("old/o*".into()), ..idle(30_000) };
    let answer = server.engine.cancel_matching(&request(one)).await.unwrap();
    assert_eq!(answer.cancelled, [old[2], old[0]], "newest first");
    let rest = Filter { older_than_ms: Some(30_000), ..Filter::default() };
    let answer = server.engine.cancel_matching(&request(rest.clone())).await.unwrap();
    assert_eq!((answer.cancelled, answer.spared), (vec![old[1]], vec![]));
    assert_eq!(server.engine.cancel_matching(&request(rest)).await.unwrap().job_id, None, "nothing is no job");
    assert_eq!(world.head(young).await.status, Status::Running);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_nobody_works_on_and_what_waits_for_nothing_is_stuck() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    let retry = playbook(
        "waits",
        "
workflow:
- step: again
  tool: {kind: python, code: fail, spec: {policy: {rules: [{else: {then: {do: retry, attempts: 9, delay: 9000}}}]}}}
",
    );
    server.register(&retry).await;
    server.register(&chain("leaf", &[("a", "sleep 900000")])).await;
    server.register(&playbook("parent", "workflow:\n- step: call\n  tool: {kind: playbook, path: leaf}\n")).await;
    let waits = server.start("waits").await.execution_id;
    world.until_logged(waits, "command.suspended").await;
    let parent = server.start("parent").await.execution_id;
    world.until_started("a", 1).await;
    // Nobody has a hand free for this one.
    let stuck = server.start("leaf").await.execution_id;
    sleep(Duration::from_secs(600)).await;
    let filter = Filter { stuck: true, ..idle(300_000) };
    let answer = server.engine.cancel_matching(&request(filter)).await.unwrap();
    assert_eq!(answer.cancelled, [stuck]);
    for id in [waits, parent] {
        assert_eq!(world.head(id).await.status, Status::Running);
    }
    worker.kill();
    world.check([]).await;
}

/// A family of three, and a fourth that has nothing to do with it.
const FAMILY: [&str; 2] = [
    "workflow:\n- step: call\n  tool: {kind: playbook, path: leaf}\n",
    "workflow:\n- step: call\n  tool: {kind: playbook, path: middle}\n",
];

async fn families(world: &World, server: &Server, count: usize) -> Vec<ExecutionId> {
    server.register(&chain("leaf", &[("a", "sleep 900000")])).await;
    server.register(&playbook("middle", FAMILY[0])).await;
    server.register(&playbook("top", FAMILY[1])).await;
    let mut tops = Vec::new();
    for _ in 0..count {
        tops.push(server.start("top").await.execution_id);
    }
    world.until("the families are there", async || world.heads().await.len() == 3 * count).await;
    tops
}

#[tokio::test(start_paused = true)]
async fn a_large_job_outlives_its_request_and_its_server() {
    let world = World::new();
    let first = world.server();
    let tops = families(&world, &first, 40).await;
    let bystander = first.start("leaf").await.execution_id;
    let how = CancelRequest { cascade: true, reason: Some("stale".into()), ..cancel(ExecutionId(0)) };
    let slow = BulkRequest { how, rate: Some(20), answer_ms: 1_000, ..request(path("top")) };
    let answer = first.engine.cancel_matching(&slow).await.unwrap();
    assert!(!answer.complete && answer.cancelled_count > 0, "{answer:?}");
    let job = answer.job_id.unwrap();
    let (row, _) = first.engine.job(job).await.unwrap().unwrap();
    assert_eq!((row.selected, row.rate, row.done_at), (Some(40), Some(20), None));
    // It goes on here without its request, and elsewhere when this server dies.
    world.until("it moves on", async || visited(&first, job).await > answer.cancelled_count + 5).await;
    let second = world.server();
    first.crash();
    world.until("the second server finishes it", async || done(&second, job).await).await;
    let (row, unquiesced) = second.engine.job(job).await.unwrap().unwrap();
    assert_eq!((row.cancelled, row.spared, unquiesced), (120, 0, 0));
    let mut cancelled = 0;
    for head in world.heads().await {
        if head.execution_id == bystander {
            assert_eq!(head.status, Status::Running, "nobody outside");
            continue;
        }
        let info = head.cancel.clone().unwrap();
        assert_eq!((info.job_id, info.reason.as_deref()), (Some(job), Some("stale")));
        assert_eq!(info.requested_execution_id, head.root_execution_id, "through the one that was selected");
        assert_eq!(world.count(head.execution_id, "execution.cancelled").await, 1, "nothing twice");
        cancelled += 1;
    }
    assert_eq!(cancelled, 120);
    world.check(tops).await;
}

/// The race: a job goes on while executions that it would have selected begin.
#[tokio::test(start_paused = true)]
async fn what_is_born_after_a_job_is_not_looked_at() {
    let world = World::new();
    let server = world.server();
    let tops = families(&world, &server, 40).await;
    let slow = BulkRequest { rate: Some(20), answer_ms: 1_000, ..request(path("top")) };
    let answer = server.engine.cancel_matching(&slow).await.unwrap();
    assert!(!answer.complete);
    let late = server.start("top").await.execution_id;
    let job = answer.job_id.unwrap();
    world.until("the job is done", async || done(&server, job).await).await;
    let (row, _) = server.engine.job(job).await.unwrap().unwrap();
    assert_eq!((row.selected, row.visited, row.cancelled), (Some(40), 40, 40));
    assert!(world.head(late).await.is_active());
    for top in tops {
        assert_eq!(world.head(top).await.status, Status::Cancelled);
    }
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("leaf", &[("a", "ok")])).await;
    for _ in 0..30 {
        server.start("leaf").await;
    }
    let began = Instant::now();
    let slow = BulkRequest { rate: Some(10), answer_ms: 60_000, ..request(path("leaf")) };
    let answer = server.engine.cancel_matching(&slow).await.unwrap();
    assert_eq!((answer.complete, answer.cancelled_count), (true, 30));
    assert!(began.elapsed() >= Duration::from_millis(2_900), "{:?}", began.elapsed());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_job_selects_nothing_more_and_leaves_no_descendant() {
    let world = World::new();
    let server = world.server();
    let tops = families(&world, &server, 30).await;
    let how = CancelRequest { cascade: true, ..cancel(ExecutionId(0)) };
    let slow = BulkRequest { how, rate: Some(10), answer_ms: 1_000, ..request(path("top")) };
    let job = server.engine.cancel_matching(&slow).await.unwrap().job_id.unwrap();
    let stopped = server.engine.stop_job(job, "ann").await.unwrap().unwrap();
    assert_eq!(stopped.stopped_by.as_deref(), Some("ann"));
    world.until("it is done", async || done(&server, job).await).await;
    let heads = world.heads().await;
    let (mut gone, mut left) = (0, 0);
    for top in &tops {
        let running = heads.iter().filter(|head| head.root_execution_id == *top && head.is_active()).count();
        match running {
            0 => gone += 1,
            3 => left += 1,
            _ => panic!("a family is torn: {running} of 3 run"),
        }
    }
    assert!(gone > 0 && left > 0, "{gone} and {left}");
    let (row, _) = server.engine.job(job).await.unwrap().unwrap();
    assert_eq!(row.cancelled, 3 * gone);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn listed_executions_are_cancelled_and_the_others_named() {
    let world = World::new();
    let server = world.server();
    let tops = families(&world, &server, 2).await;
    let ended = server.start("leaf").await.execution_id;
    server.cancel(cancel(ended)).await.unwrap();
    let ghost = ExecutionId(77);
    let some = [tops[0], ended, ghost, tops[0]];
    let answer = server.engine.cancel_matching(&listed(&some)).await.unwrap();
    assert_eq!((answer.cancelled, answer.spared, answer.unknown), (vec![tops[0]], vec![ended], vec![ghost]));
    assert_eq!((answer.matched_count, answer.complete), (3, true));
    // With a cascade an ended one is walked through.
    let how = CancelRequest { cascade: true, ..cancel(ExecutionId(0)) };
    let answer = server.engine.cancel_matching(&BulkRequest { how, ..listed(&[tops[0]]) }).await.unwrap();
    assert_eq!((answer.cancelled_count, answer.spared), (2, vec![tops[0]]));
    assert_eq!(world.head(tops[1]).await.status, Status::Running);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_key_gets_the_first_answer_again() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("leaf", &[("a", "ok")])).await;
    server.start("leaf").await;
    let how = CancelRequest { idempotency_key: Some("k".into()), ..cancel(ExecutionId(0)) };
    let keyed = BulkRequest { how, ..request(path("leaf")) };
    let first = server.engine.cancel_matching(&keyed).await.unwrap();
    assert_eq!(first.cancelled_count, 1);
    let young = server.start("leaf").await.execution_id;
    assert_eq!(server.engine.cancel_matching(&keyed).await.unwrap(), first);
    assert_eq!(world.head(young).await.status, Status::Running);
    world.check([]).await;
}

fn path(path: &str) -> Filter {
    Filter { path: Some(path.into()), ..Filter::default() }
}

async fn visited(server: &Server, job: CancellationId) -> u64 {
    server.engine.job(job).await.unwrap().unwrap().0.visited
}

async fn done(server: &Server, job: CancellationId) -> bool {
    server.engine.job(job).await.unwrap().unwrap().0.done_at.is_some()
}
