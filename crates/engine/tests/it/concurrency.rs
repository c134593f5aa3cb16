//! Concurrency keys with real servers beside each other, and what a crash leaves.

use futures_util::future::join_all;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_engine::metrics::{CancelCause, CancelResult};
use noetl_engine::{StartError, Started};
use serde_json::Map;
use tokio::time::{Duration, sleep};

use crate::world::{Server, World, cancel, chain, playbook, request};

fn keyed(path: &str, on_conflict: &str, steps: &[(&str, &str)]) -> String {
    let spec =
        format!("executor: {{spec: {{concurrency: {{key: 'the key', on_conflict: {on_conflict}}}}}}}\nworkflow:");
    chain(path, steps).replace("workflow:", &spec)
}

async fn start(server: &Server, path: &str) -> Result<Started, StartError> {
    server.engine.start(request(path, Map::new(), None)).await
}

async fn cancelled_by(world: &World, id: ExecutionId) -> String {
    world.head(id).await.cancel.unwrap().cancelled_by
}

#[tokio::test(start_paused = true)]
async fn the_newest_takes_the_place_of_what_runs_with_its_descendants() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("child", &[("deep", "sleep 600000")])).await;
    let yaml = playbook(
        "parent",
        "
executor: {spec: {concurrency: {key: 'the key', on_conflict: cancel_running}}}
workflow:
- step: down
  tool: {kind: playbook, path: child}
",
    );
    server.register(&yaml).await;
    let first = start(&server, "parent").await.unwrap().execution_id;
    world.until_started("deep", 1).await;
    let second = start(&server, "parent").await.unwrap();
    assert!(!second.cancelled);
    let head = server.quiesced(first).await;
    assert_eq!(head.status, Status::Cancelled);
    let cancel = head.cancel.unwrap();
    assert_eq!(
        cancel.reason.unwrap(),
        format!("execution {} has taken its concurrency key `the key`", second.execution_id)
    );
    world.until_started("deep", 2).await;
    let heads = world.heads().await;
    let child = heads.iter().find(|head| head.parent_execution_id == Some(first)).unwrap();
    let child = server.quiesced(child.execution_id).await;
    assert_eq!(
        (child.status, cancelled_by(&world, child.execution_id).await.as_str()),
        (Status::Cancelled, "concurrency")
    );
    assert!(world.head(second.execution_id).await.is_active());
    world.check([first]).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_right_after_the_start_leaves_nobody_beside_it() {
    let world = World::new();
    let server = world.server();
    server.register(&keyed("job", "cancel_running", &[("a", "sleep 600000")])).await;
    let first = start(&server, "job").await.unwrap().execution_id;
    let second = start(&server, "job").await.unwrap().execution_id;
    // Nothing else was done: what is to give way stands in the append of the start.
    server.crash();
    let server = world.server();
    server.quiesced(first).await;
    assert_eq!(cancelled_by(&world, first).await, "concurrency");
    assert!(world.head(second).await.is_active());
    sleep(Duration::from_secs(5)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty(), "the obligation is met");
    world.check([first]).await;
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_not_start_waits_for_the_proof() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&keyed("strict", "reject", &[("a", "sleep 5000")])).await;
    server.register(&keyed("polite", "cancel_new", &[("b", "ok")])).await;
    let first = start(&server, "strict").await.unwrap().execution_id;
    world.until_started("a", 1).await;
    let held = start(&server, "strict").await.unwrap_err();
    assert_eq!(held.to_string(), format!("concurrency key `the key` is held by execution {first} (limit 1)"));
    // A key is the same one for every playbook.
    let polite = start(&server, "polite").await.unwrap();
    assert!(polite.cancelled && polite.commands_generated == 0);
    assert_eq!(world.names(polite.execution_id).await[1..], ["execution.cancelled", "execution.quiesced"]);
    let cancel_info = world.head(polite.execution_id).await.cancel.unwrap();
    assert_eq!((cancel_info.cancelled_by.as_str(), cancel_info.requested_by), ("concurrency", None));
    let counted: Vec<_> = server.engine.metrics().cancels.each().filter(|(.., count)| *count > 0).collect();
    assert_eq!(counted, [(CancelMode::Finish, CancelCause::Concurrency, CancelResult::Cancelled, 1)]);
    server.cancel(cancel(first)).await.unwrap();
    let held = start(&server, "strict").await.unwrap_err();
    assert!(held.to_string().contains("(ended, and still stopping)"), "{held}");
    server.quiesced(first).await;
    let next = start(&server, "polite").await.unwrap();
    assert_eq!(server.ended(next.execution_id).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_starts_on_many_servers_one_runs() {
    let world = World::new();
    let servers: Vec<Server> = (0..3).map(|_| world.server()).collect();
    servers[0].register(&keyed("strict", "reject", &[("a", "sleep 5000")])).await;
    servers[0].register(&keyed("newest", "cancel_running", &[("a", "sleep 5000")])).await;
    let strict = join_all((0..12).map(|n| start(&servers[n % 3], "strict"))).await;
    assert_eq!(strict.iter().filter(|started| started.is_ok()).count(), 1);
    assert!(strict.iter().all(|started| matches!(started, Ok(_) | Err(StartError::KeyHeld { .. }))));
    let newest = join_all((0..12).map(|n| start(&servers[n % 3], "newest"))).await;
    assert!(newest.iter().all(Result::is_ok));
    sleep(Duration::from_secs(5)).await;
    let active: Vec<_> = world.heads().await.into_iter().filter(noetl_core::head::Head::is_active).collect();
    assert_eq!(active.len(), 1, "{active:?}");
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_sent_again_finds_itself_and_not_its_own_key() {
    let world = World::new();
    let server = world.server();
    server.register(&keyed("strict", "reject", &[("a", "sleep 5000")])).await;
    let mut asked = request("strict", Map::new(), None);
    asked.idempotency_key = Some("k1".to_owned());
    let first = server.engine.start(asked.clone()).await.unwrap();
    let again = server.engine.start(asked).await.unwrap();
    assert_eq!((again.execution_id, again.repeated), (first.execution_id, true));
    assert_eq!(world.heads().await.len(), 1);
}
