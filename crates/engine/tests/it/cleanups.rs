//! Cleanups with workers at work, over crashes, and with families.

use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_core::labels::Labels;
use noetl_core::playbook::CancelMode;
use noetl_engine::CancelRequest;
use noetl_engine::rerun::{RerunError, RerunRequest};
use tokio::time::{Duration, sleep};

use crate::world::{World, cancel, playbook};

fn undone(path: &str, first: &str, second: &str) -> String {
    playbook(
        path,
        &format!(
            "
executor: {{spec: {{on_cancel: tell, cleanup_timeout: 30}}}}
workflow:
- {{step: book, tool: {{kind: python, code: '{first}'}}, spec: {{compensate: undo}}, next: {{arcs: [{{step: pay}}]}}}}
- {{step: pay, tool: {{kind: python, code: '{second}'}}, spec: {{compensate: refund}}}}
- {{step: undo, tool: {{kind: python, code: ok}}}}
- {{step: refund, tool: {{kind: python, code: ok}}}}
- {{step: tell, tool: {{kind: python, code: ok}}}}
"
        ),
    )
}

async fn cleanups_of(world: &World, id: ExecutionId) -> Vec<Head> {
    world.heads().await.into_iter().filter(|head| head.cleanup_of == Some(id)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_answer_names_the_cleanup_and_waits_for_it_when_asked() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    server.register(&undone("trip", "ok", "sleep 3000")).await;
    let id = server.start("trip").await.execution_id;
    world.until_started("pay", 1).await;
    let request = CancelRequest { wait_ms: 60_000, wait_for_cleanup: true, ..cancel(id) };
    let answer = server.cancel(request).await.unwrap();
    assert!(answer.quiesced && answer.cleaned_up);
    let cleanups = cleanups_of(&world, id).await;
    assert_eq!(cleanups.iter().map(|head| head.execution_id).collect::<Vec<_>>(), [answer.cleanup.unwrap()]);
    assert_eq!(cleanups[0].status, Status::Completed);
    // What ran to its end after the decision is undone first.
    assert_eq!(world.scripts.started(), ["book", "pay", "refund", "undo", "tell"]);
    let again = RerunRequest {
        labels: Labels::new(),
        idempotency_key: None,
        execution_id: cleanups[0].execution_id,
        keep_finished: false,
        latest: false,
        payload: Default::default(),
        started_by: None,
    };
    assert!(matches!(server.engine.rerun(again).await, Err(RerunError::Cleanup(_))));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_right_after_the_proof_leaves_one_cleanup_and_it_runs() {
    let world = World::new();
    let server = world.server();
    server.register(&undone("trip", "ok", "ok")).await;
    let id = server.start("trip").await.execution_id;
    let answer = server.cancel(cancel(id)).await.unwrap();
    assert!(answer.quiesced && answer.cleanup.is_some());
    server.crash();
    let server = world.server();
    world.hire(&server, "one", 2);
    assert_eq!(server.ended(answer.cleanup.unwrap()).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["tell"], "it had begun nothing");
    assert_eq!(cleanups_of(&world, id).await.len(), 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_delays_the_cleanup_and_does_not_double_it() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&undone("trip", "ok", "sleep 600000")).await;
    let id = server.start("trip").await.execution_id;
    world.until_started("pay", 1).await;
    let answer = server.cancel(cancel(id)).await.unwrap();
    worker.kill();
    world.hire(&server, "two", 1);
    let cleanup = answer.cleanup.unwrap();
    server.quiesced(id).await;
    assert_eq!(server.ended(cleanup).await, Status::Completed);
    // Nobody knows what became of the payment, so it is not undone as if it had been made.
    assert_eq!(world.scripts.started(), ["book", "pay", "undo", "tell"]);
    assert_eq!(cleanups_of(&world, id).await.len(), 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn each_member_of_a_family_has_its_own_and_no_cascade_reaches_them() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 8);
    server.register(&undone("trip", "ok", "sleep 600000")).await;
    let yaml = playbook(
        "agency",
        "
executor: {spec: {on_cancel: told}}
workflow:
- {step: all, loop: {in: 3, iterator: i, spec: {mode: parallel}}, tool: {kind: playbook, path: trip}}
- {step: told, tool: {kind: python, code: 'sleep 5000'}}
",
    );
    server.register(&yaml).await;
    let id = server.start("agency").await.execution_id;
    world.until_started("pay", 3).await;
    let request = CancelRequest { cascade: true, mode: Some(CancelMode::Interrupt), grace_ms: Some(100), ..cancel(id) };
    let answer = server.cancel(CancelRequest { wait_ms: 60_000, ..request.clone() }).await.unwrap();
    assert_eq!((answer.cancelled_executions.len(), answer.quiesced), (4, true));
    world.until_started("told", 1).await;
    // A second cascade finds nothing: cleanups are nobody's children.
    assert!(server.cancel(request).await.is_err());
    assert_eq!(server.ended(answer.cleanup.unwrap()).await, Status::Completed);
    for member in answer.cancelled_executions {
        let cleanups = cleanups_of(&world, member).await;
        assert_eq!(cleanups.len(), 1);
        assert_eq!(server.ended(cleanups[0].execution_id).await, Status::Completed);
    }
    assert_eq!(world.scripts.count("undo"), 3);
    world.check([id]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_takes_too_long_fails_like_any_run() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let tell = |code: &str| format!("- {{step: tell, tool: {{kind: python, code: {code}}}}}");
    let yaml = undone("trip", "ok", "sleep 600000").replace(&tell("ok"), &tell("'sleep 600000'"));
    server.register(&yaml).await;
    let id = server.start("trip").await.execution_id;
    world.until_started("pay", 1).await;
    let request = CancelRequest { mode: Some(CancelMode::Interrupt), grace_ms: Some(100), ..cancel(id) };
    let answer = server.cancel(request).await.unwrap();
    let cleanup = answer.cleanup.unwrap();
    server.quiesced(id).await;
    assert_eq!(server.ended(cleanup).await, Status::Failed);
    let error = world.head(cleanup).await.error.unwrap();
    assert_eq!(error["message"], "it took longer than 30 s (executor.spec.cleanup_timeout)");
    server.quiesced(cleanup).await;
    sleep(Duration::from_secs(60)).await;
    assert!(cleanups_of(&world, cleanup).await.is_empty());
    world.check([]).await;
}
