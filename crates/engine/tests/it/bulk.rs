//! Cancelling many at once.

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_engine::{BulkError, BulkRequest, Filter};
use tokio::time::{Duration, sleep};

use crate::world::{World, cancel, chain, playbook};

fn request(filter: Filter) -> BulkRequest {
    BulkRequest { filter, how: cancel(ExecutionId(0)), max: 1_000 }
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
    let dry =
        BulkRequest { how: noetl_engine::CancelRequest { dry_run: true, ..cancel(young) }, ..request(idle(30_000)) };
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
    assert_eq!(server.engine.cancel_matching(&request(rest)).await.unwrap().matched, []);
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
