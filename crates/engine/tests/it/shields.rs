//! Shields: children that a cancel from above leaves alone.

use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::{CancelMode, Shield};
use noetl_engine::{BulkRequest, CancelRequest, Change, PauseRequest, Selected, Spared, StopRequest};
use tokio::time::{Duration, Instant, sleep};

use crate::world::{World, cancel, chain, playbook};

/// A root with two children: one is shielded and has a child of its own, the other one is not.
fn root(policy: &str) -> String {
    playbook(
        "root",
        &format!(
            "
workflow:
- step: start
  tool: {{kind: noop}}
  next: {{spec: {{mode: inclusive}}, arcs: [{{step: open}}, {{step: kept}}]}}
- {{step: open, tool: {{kind: playbook, path: leaf}}}}
- {{step: kept, tool: {{kind: playbook, path: middle, spec: {{cancel: {{policy: {policy}}}}}}}}}
"
        ),
    )
}

const MIDDLE: &str = "
workflow:
- {step: below, tool: {kind: playbook, path: leaf}}
";

async fn child(world: &World, parent: ExecutionId, path: &str) -> Head {
    let found = world.heads().await.into_iter();
    found.into_iter().find(|head| head.parent_execution_id == Some(parent) && &*head.path == path).unwrap()
}

/// A root with both its leaves at work; `leaf` runs three seconds.
async fn family(policy: &str) -> (World, crate::world::Server, ExecutionId) {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("leaf", &[("work", "sleep 3000")])).await;
    server.register(&playbook("middle", MIDDLE)).await;
    server.register(&root(policy)).await;
    let id = server.start("root").await.execution_id;
    world.until_started("work", 2).await;
    (world, server, id)
}

fn cascade(id: ExecutionId) -> CancelRequest {
    CancelRequest { cascade: true, mode: Some(CancelMode::Interrupt), ..cancel(id) }
}

#[tokio::test(start_paused = true)]
async fn a_cascade_spares_what_is_shielded_with_all_below_it_and_says_so() {
    for (policy, shield) in [("abandon", Shield::Abandon), ("wait", Shield::Wait)] {
        let (world, server, id) = family(policy).await;
        let middle = child(&world, id, "middle").await.execution_id;
        let below = child(&world, middle, "leaf").await.execution_id;
        let open = child(&world, id, "leaf").await.execution_id;
        let spared = [Spared { execution_id: middle, policy: shield }];
        let dry = server.cancel(CancelRequest { dry_run: true, ..cascade(id) }).await.unwrap();
        assert_eq!((dry.spared.as_slice(), dry.would_cancel.as_slice()), (&spared[..], &[id, open][..]), "{policy}");
        let asked = Instant::now();
        let answer = server.cancel(CancelRequest { wait_ms: 60_000, ..cascade(id) }).await.unwrap();
        let took = asked.elapsed();
        assert_eq!(answer.spared, spared, "{policy}");
        assert_eq!(answer.cancelled_executions, [id, open], "{policy}");
        assert!(answer.quiesced && answer.complete);
        // `wait` belongs to what is waited for, `abandon` does not.
        assert_eq!(took > Duration::from_secs(2), shield == Shield::Wait, "{policy}: {took:?}");
        assert_eq!(server.ended(middle).await, Status::Completed, "{policy}");
        assert_eq!(world.head(below).await.status, Status::Completed);
        assert_eq!(world.head(open).await.status, Status::Cancelled);
        sleep(Duration::from_secs(2)).await;
        assert!(world.store.due(10).await.unwrap().1.is_empty());
        world.check([id]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_waiting_a_cancel_has_not_quiesced_while_a_shielded_child_is_waited_for() {
    let (world, server, id) = family("wait").await;
    let answer = server.cancel(cascade(id)).await.unwrap();
    assert!(!answer.quiesced && answer.complete);
    server.quiesced(id).await;
    world.check([id]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shielded_child_that_is_named_is_cancelled_with_what_is_below_it() {
    let (world, server, id) = family("abandon").await;
    let middle = child(&world, id, "middle").await.execution_id;
    let below = child(&world, middle, "leaf").await.execution_id;
    let answer = server.cancel(cascade(middle)).await.unwrap();
    assert_eq!(answer.cancelled_executions, [middle, below]);
    assert!(answer.spared.is_empty());
    assert_eq!(server.ended(id).await, Status::Completed);
    world.check([middle]).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_spares_what_is_shielded_below_what_it_selected_but_not_what_it_selected() {
    let (world, server, id) = family("abandon").await;
    let middle = child(&world, id, "middle").await.execution_id;
    let below = child(&world, middle, "leaf").await.execution_id;
    let open = child(&world, id, "leaf").await.execution_id;
    let select = |ids: &[ExecutionId]| BulkRequest {
        selected: Selected::Listed(ids.to_vec()),
        how: cascade(ExecutionId(0)),
        max: 10,
        rate: None,
        answer_ms: 10_000,
    };
    let answer = server.engine.cancel_matching(&select(&[id])).await.unwrap();
    assert_eq!((answer.cancelled, answer.spared, answer.complete), (vec![id, open], vec![middle], true));
    let (row, _) = server.engine.job(answer.job_id.unwrap()).await.unwrap().unwrap();
    assert_eq!((row.cancelled, row.visited, row.spared), (2, 3, 1));
    assert_eq!(world.head(below).await.status, Status::Running);
    // Selected itself, it is no longer spared, although what it is below is selected too.
    let answer = server.engine.cancel_matching(&select(&[id, middle])).await.unwrap();
    assert_eq!((answer.cancelled, answer.spared), (vec![middle, below], vec![id]));
    world.check([id, middle]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_goes_down_to_what_is_shielded() {
    let (world, server, id) = family("abandon").await;
    let middle = child(&world, id, "middle").await.execution_id;
    let below = child(&world, middle, "leaf").await.execution_id;
    let order = |change| PauseRequest {
        execution_id: id,
        change,
        reason: None,
        cascade: true,
        by: "test".into(),
        requested_by: None,
    };
    let paused = server.engine.pause(&order(Change::Pause)).await.unwrap().changed;
    assert!(paused.contains(&middle) && paused.contains(&below), "{paused:?}");
    let resumed = server.engine.pause(&order(Change::Resume)).await.unwrap().changed;
    assert_eq!(resumed, paused);
    assert_eq!(server.ended(id).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_stopped_leaves_its_shielded_child_alone() {
    let (world, server, id) = family("abandon").await;
    let middle = child(&world, id, "middle").await.execution_id;
    let stop = StopRequest {
        execution_id: id,
        step: "kept".into(),
        iteration: None,
        reason: None,
        grace_ms: None,
        by: "test".into(),
        idempotency_key: None,
    };
    assert_eq!(server.engine.stop_step(&stop).await.unwrap().withdrawn.len(), 1);
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(server.ended(middle).await, Status::Completed, "{}", world.story().await);
    sleep(Duration::from_secs(2)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty(), "{}", world.story().await);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_region_leaves_a_shielded_child_alone() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("leaf", &[("work", "sleep 3000")])).await;
    let race = "
workflow:
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: quick}, {step: kept}]}
- {step: quick, tool: {kind: python, code: 'sleep 500'}, next: {arcs: [{step: end, cancel: [kept]}]}}
- {step: kept, tool: {kind: playbook, path: leaf, spec: {cancel: {policy: abandon}}}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
";
    server.register(&playbook("race", race)).await;
    let id = server.start("race").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    let kept = child(&world, id, "leaf").await;
    assert_eq!(kept.status, Status::Running);
    assert_eq!(server.ended(kept.execution_id).await, Status::Completed);
    sleep(Duration::from_secs(2)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty(), "{}", world.story().await);
    world.check([]).await;
}
