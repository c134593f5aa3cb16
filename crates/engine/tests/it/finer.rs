//! Less than an execution: regions that an arc cancels, and loops that are completed early.

use noetl_core::event::{AttemptEnd, Event};
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_engine::{CancelRequest, CompleteRequest, StopError};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::world::{World, cancel, chain, playbook};

/// Two race; the fast one cancels the slow one, which is `slow` in a way of its own.
fn race(slow: &str) -> String {
    playbook(
        "race",
        &format!(
            "
workflow:
- step: start
  tool: {{kind: noop}}
  next: {{spec: {{mode: inclusive}}, arcs: [{{step: fast}}, {{step: slow}}]}}
- step: fast
  tool: {{kind: python, code: 'sleep 500'}}
  next: {{arcs: [{{step: won, cancel: [slow, behind]}}]}}
- step: slow
{slow}
  next: {{arcs: [{{step: behind}}]}}
- {{step: behind, tool: {{kind: python, code: ok}}, next: {{arcs: [{{step: won}}]}}}}
- {{step: won, tool: {{kind: python, code: ok}}}}
"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn an_arc_interrupts_what_its_region_runs_and_nothing_follows_from_it() {
    let bodies = [
        ("a worker holds it", "  tool: {kind: python, code: 'sleep 60000'}"),
        ("it ignores the polite stop", "  tool: {kind: python, code: 'stubborn 60000', spec: {}}"),
        ("it waits for a child", "  tool: {kind: playbook, path: child}"),
        (
            "it loops",
            "  loop: {in: 9, iterator: i, spec: {mode: parallel}}\n  tool: {kind: python, code: 'sleep 60000'}",
        ),
        (
            "it waits for its next attempt",
            "  tool: {kind: python, code: 'fail', spec: {policy: {rules: [{else: {then: {do: retry, attempts: 5, delay: 300}}}]}}}",
        ),
    ];
    for (name, body) in bodies {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 3);
        server.register(&chain("child", &[("deep", "sleep 60000")])).await;
        server
            .register(&race(body).replace("workflow:", "executor: {spec: {cancel: {grace_seconds: 1}}}\nworkflow:"))
            .await;
        let began = Instant::now();
        let id = server.start("race").await.execution_id;
        assert_eq!(server.ended(id).await, Status::Completed, "{name}: {}", world.story().await);
        let took = began.elapsed().as_millis();
        assert!((500..2_200).contains(&took), "{name}: {took} ms");
        assert_eq!(world.count(id, "step.cancelled").await, 1, "{name}");
        assert_eq!(world.count(id, "execution.cancelled").await, 0, "{name}");
        assert_eq!(world.scripts.count("behind"), 0, "{name}");
        assert_eq!(world.scripts.count("won"), 1, "{name}");
        assert_eq!(world.head(id).await.in_flight, 0, "{name}");
        for head in world.heads().await {
            server.quiesced(head.execution_id).await;
            assert_eq!(head.execution_id == id, head.status == Status::Completed, "{name}: the child is cancelled");
        }
        sleep(Duration::from_secs(400)).await;
        assert!(world.store.due(10).await.unwrap().1.is_empty(), "{name}: {}", world.story().await);
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_worker_has_claimed_never_starts() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    // One slot: the fast one takes it, and the slow one is pending when the arc fires.
    server.register(&race("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = server.start("race").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["fast", "won"]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_region_survives_the_server_that_cancelled_it_and_its_worker() {
    let world = World::new();
    let one = world.server();
    let two = world.server();
    let slow = world.hire_between(&[&one, &two], "slow", 2);
    one.register(&race("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = one.start("race").await.execution_id;
    world.until_started("slow", 1).await;
    world.until_logged(id, "step.cancelled").await;
    one.crash();
    slow.kill();
    world.hire(&two, "new", 1);
    // Its lease runs out; the attempt is lost, not tried again, and the end names it.
    assert_eq!(two.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.scripts.count("slow"), 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_is_cancelled_while_its_region_comes_to_rest_certifies_that_too() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 3);
    server
        .register(&race("  tool: {kind: python, code: 'stubborn 60000'}").replace("code: ok", "code: 'sleep 9000'"))
        .await;
    let id = server.start("race").await.execution_id;
    world.until_logged(id, "step.cancelled").await;
    let harder = CancelRequest { mode: Some(CancelMode::Interrupt), grace_ms: Some(500), ..cancel(id) };
    let answer = server.cancel(harder).await.unwrap();
    let mut steps: Vec<_> = answer.in_flight.iter().map(|held| held.step.to_string()).collect();
    steps.sort();
    assert_eq!(steps, ["slow", "won"]);
    server.quiesced(id).await;
    let log = world.log(id).await;
    let Event::ExecutionQuiesced { commands } = &log.last().unwrap().event else { panic!("no proof") };
    let slow = commands.iter().find(|ended| &*ended.step == "slow").unwrap();
    assert_eq!(slow.end, AttemptEnd::Killed);
    world.check([id]).await;
}

const LOOP: &str = "
workflow:
- step: each
  loop: {in: 8, iterator: i, spec: {mode: parallel, max_in_flight: 3, SPEC}}
  tool: {kind: python, code: 'sleep 1000'}
  next: {arcs: [{step: after}]}
- {step: after, tool: {kind: python, code: input, input: {stats: '{{ each.stats }}', early: '{{ each.completed_early }}'}}}
";

fn complete(id: ExecutionId) -> CompleteRequest {
    CompleteRequest {
        execution_id: id,
        step: "each".into(),
        mode: None,
        reason: Some("enough".into()),
        grace_ms: None,
        by: "test".into(),
        idempotency_key: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_is_completed_by_hand_as_a_success() {
    for (mode, stats) in [
        (None, json!({"total": 8, "completed": 3, "success": 3, "failed": 0, "skipped": 2, "cancelled": 3})),
        (
            Some(CancelMode::Finish),
            json!({"total": 8, "completed": 6, "success": 6, "failed": 0, "skipped": 2, "cancelled": 0}),
        ),
    ] {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 4);
        server.register(&playbook("loop", &LOOP.replace(", SPEC", ""))).await;
        let id = server.start("loop").await.execution_id;
        world.until_started("each", 6).await;
        let began = Instant::now();
        let request = CompleteRequest { mode, ..complete(id) };
        let stopped = server.engine.complete_loop(&request).await.unwrap();
        // With `finish` they run to their end, and the answer says so.
        assert_eq!((stopped.in_flight.len(), stopped.quiesced), (3, false));
        assert_eq!(stopped.mode, mode.unwrap_or(CancelMode::Interrupt));
        assert_eq!(server.ended(id).await, Status::Completed);
        let waited = began.elapsed() >= Duration::from_millis(500);
        assert_eq!(waited, mode.is_some(), "{:?}", began.elapsed());
        let result = world.result(&server.engine, id).await;
        assert_eq!(result, json!({"stats": stats, "early": true}));
        assert!(world.head(id).await.failed_steps.is_empty());
        let again = server.engine.complete_loop(&complete(id)).await.unwrap_err();
        assert_eq!(again.to_string(), format!("Execution {id} is already COMPLETED"));
        sleep(Duration::from_secs(5)).await;
        assert!(world.store.due(10).await.unwrap().1.is_empty());
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_completes_itself_when_it_is_enough() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 3);
    server.register(&playbook("loop", &LOOP.replace("SPEC", "complete_when: '{{ stats.success == 2 }}'"))).await;
    let id = server.start("loop").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    let result = world.result(&server.engine, id).await;
    assert_eq!((&result["stats"]["completed"], &result["early"]), (&json!(2), &json!(true)));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_completed_says_so() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&playbook("loop", &LOOP.replace(", SPEC", ""))).await;
    let id = server.start("loop").await.execution_id;
    for step in ["after", "nowhere"] {
        let request = CompleteRequest { step: step.into(), ..complete(id) };
        let refused = server.engine.complete_loop(&request).await.unwrap_err();
        assert!(matches!(refused, StopError::NoLoop { .. }), "{refused}");
    }
    let unknown = server.engine.complete_loop(&complete(ExecutionId(42))).await;
    assert!(matches!(unknown, Err(StopError::Unknown(_))));
}
