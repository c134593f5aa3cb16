//! What ends before its time while others go on: time limits, and single steps and iterations.

use noetl_core::event::{AttemptEnd, Event};
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_engine::{StopError, StopRequest};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::world::{World, cancel, chain, playbook};

fn stop(id: ExecutionId, step: &str) -> StopRequest {
    StopRequest {
        execution_id: id,
        step: step.into(),
        iteration: None,
        reason: Some("enough".into()),
        grace_ms: None,
        by: "test".into(),
        idempotency_key: None,
    }
}

const LIMITED: &str = "
executor: {spec: {timeout: 2, cancel: {grace_seconds: 1}}}
workflow:
- step: call
  tool: {kind: playbook, path: child}
";

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_fails_with_a_timeout_and_takes_its_descendants_along() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    server.register(&chain("child", &[("deep", "sleep 60000"), ("never", "ok")])).await;
    server.register(&playbook("limited", LIMITED)).await;
    let began = Instant::now();
    let id = server.start("limited").await.execution_id;
    world.until_started("deep", 1).await;
    assert_eq!(server.ended(id).await, Status::Failed);
    let took = began.elapsed().as_millis();
    assert!((2_000..2_300).contains(&took), "{took} ms");
    let head = world.head(id).await;
    let error = head.error.unwrap();
    assert_eq!((&error["kind"], &error["code"]), (&json!("timeout"), &json!("EXECUTION_TIMEOUT")));
    assert_eq!(error["message"], "it took longer than 2 s (executor.spec.timeout)");
    let child = world.heads().await.into_iter().find(|head| head.parent_execution_id == Some(id)).unwrap();
    assert_eq!(server.ended(child.execution_id).await, Status::Cancelled);
    let child = server.quiesced(child.execution_id).await;
    let cancel = child.cancel.unwrap();
    assert_eq!((&*cancel.cancelled_by, cancel.requested_execution_id), ("timeout", id));
    assert!(began.elapsed().as_millis() < 3_300, "interrupted, not left to its end");
    sleep(Duration::from_secs(2)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    assert_eq!(world.count(id, "playbook.failed").await, 1);
    assert_eq!(world.scripts.started(), ["deep"]);
    world.check([id]).await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_when_the_time_is_over_is_interrupted_and_certified() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let yaml = chain("limited", &[("a", "stubborn 60000"), ("b", "ok")]);
    let limit = "executor: {spec: {timeout: 2, cancel: {grace_seconds: 1}}}\nworkflow:";
    server.register(&yaml.replace("workflow:", limit)).await;
    let id = server.start("limited").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Failed);
    let head = server.quiesced(id).await;
    assert_eq!((head.status, head.in_flight), (Status::Failed, 0));
    let log = world.log(id).await;
    let ends: Vec<AttemptEnd> = log
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::ExecutionQuiesced { commands } => Some(commands.iter().map(|ended| ended.end)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(ends, [AttemptEnd::Killed]);
    assert_eq!(world.scripts.started(), ["a"]);
    world.check([id]).await;
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_that_is_kept_leaves_nothing_behind() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let yaml = chain("limited", &[("a", "sleep 300")]);
    let yaml = yaml.replace("workflow:", "executor: {spec: {timeout: 2}}\nworkflow:");
    server.register(&yaml).await;
    let id = server.start("limited").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.head(id).await.status, Status::Completed);
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    // Cancelled before it: the limit means nothing any more.
    let id = server.start("limited").await.execution_id;
    server.cancel(cancel(id)).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.head(id).await.status, Status::Cancelled);
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    world.check([]).await;
}

/// One step that is stopped in a way of its own, and an arc that takes its error.
fn caught(body: &str) -> String {
    playbook(
        "caught",
        &format!(
            "
workflow:
- step: slow
{body}
  next:
    arcs:
    - {{step: caught, when: '{{{{ error is defined and error }}}}'}}
    - {{step: after}}
- step: caught
  tool: {{kind: python, code: input, input: {{kind: '{{{{ slow.error.kind }}}}', code: '{{{{ slow.error.code }}}}'}}}}
- step: after
  tool: {{kind: python, code: ok}}
"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_is_an_error_that_an_arc_may_take() {
    let bodies = [
        ("a worker holds it", "  spec: {timeout: 1}\n  tool: {kind: python, code: 'sleep 60000'}"),
        ("it waits for a child", "  spec: {timeout: 1}\n  tool: {kind: playbook, path: child}"),
        (
            "it waits for its next attempt",
            "  spec: {timeout: 1}\n  tool: {kind: python, code: 'fail', spec: {policy: {rules: [{else: {then: {do: retry, attempts: 5, delay: 300}}}]}}}",
        ),
    ];
    for (name, body) in bodies {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 2);
        server.register(&chain("child", &[("deep", "sleep 60000")])).await;
        server.register(&caught(body)).await;
        let began = Instant::now();
        let id = server.start("caught").await.execution_id;
        assert_eq!(server.ended(id).await, Status::Completed, "{name}: {}", world.story().await);
        let took = began.elapsed().as_millis();
        assert!((1_000..1_500).contains(&took), "{name}: {took} ms");
        let result = world.result(&server.engine, id).await;
        assert_eq!(result, json!({"kind": "timeout", "code": "STEP_TIMEOUT"}), "{name}");
        for head in world.heads().await {
            // The child of a step that timed out does not run on.
            server.quiesced(head.execution_id).await;
        }
        sleep(Duration::from_secs(400)).await;
        assert!(world.store.due(10).await.unwrap().1.is_empty(), "{name}");
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_nobody_has_claimed_times_out_all_the_same() {
    let world = World::new();
    let server = world.server();
    server.register(&caught("  spec: {timeout: 1}\n  tool: {kind: python, code: 'ok'}")).await;
    let id = server.start("caught").await.execution_id;
    world.until_logged(id, "command.stopping").await;
    world.hire(&server, "late", 1);
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["caught"]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_within_its_limit_is_left_alone() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&caught("  spec: {timeout: 1}\n  tool: {kind: python, code: 'sleep 500'}")).await;
    let id = server.start("caught").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["slow", "after"]);
    sleep(Duration::from_secs(2)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn one_step_is_cancelled_and_its_execution_goes_on() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&caught("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = server.start("caught").await.execution_id;
    world.until_started("slow", 1).await;
    let stopped = server.engine.stop_step(&stop(id, "slow")).await.unwrap();
    assert_eq!((stopped.in_flight.len(), stopped.withdrawn.len()), (1, 0));
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.result(&server.engine, id).await, json!({"kind": "cancelled", "code": "CANCELLED"}));
    assert_eq!(world.count(id, "execution.cancelled").await, 0);
    let again = server.engine.stop_step(&stop(id, "slow")).await.unwrap_err();
    assert_eq!(again.to_string(), format!("Execution {id} is already COMPLETED"));
    assert!(matches!(server.engine.stop_step(&stop(ExecutionId(42), "slow")).await, Err(StopError::Unknown(_))));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn one_iteration_is_cancelled_and_the_others_go_on() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    let yaml = playbook(
        "loop",
        "
workflow:
- step: each
  loop: {in: 5, iterator: n, spec: {mode: parallel, max_in_flight: 3}}
  tool: {kind: python, code: 'sleep 2000'}
  next: {arcs: [{step: after}]}
- step: after
  tool: {kind: python, code: input, input: {failed: '{{ each.stats.failed }}', kind: '{{ each.results[1].error.kind }}', kind2: '{{ each.results[2].error.kind }}'}}
",
    );
    server.register(&yaml).await;
    let id = server.start("loop").await.execution_id;
    world.until_started("each", 2).await;
    // One that a worker holds, one that waits for a slot.
    let running = server.engine.stop_step(&StopRequest { iteration: Some(1), ..stop(id, "each") }).await.unwrap();
    assert_eq!((running.in_flight.len(), running.withdrawn.len()), (1, 0), "{}", world.story().await);
    let waiting = server.engine.stop_step(&StopRequest { iteration: Some(2), ..stop(id, "each") }).await.unwrap();
    assert_eq!((waiting.in_flight.len(), waiting.withdrawn.len()), (0, 1), "{}", world.story().await);
    let none = server.engine.stop_step(&StopRequest { iteration: Some(4), ..stop(id, "each") }).await.unwrap_err();
    assert!(none.to_string().starts_with(&format!("step `each[4]` of execution {id} has nothing to stop")), "{none}");
    assert_eq!(server.ended(id).await, Status::Completed);
    let result = world.result(&server.engine, id).await;
    assert_eq!(result, json!({"failed": 2, "kind": "cancelled", "kind2": "cancelled"}));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_the_same_key_gets_the_first_answer_again() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&caught("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = server.start("caught").await.execution_id;
    world.until_started("slow", 1).await;
    let keyed = StopRequest { idempotency_key: Some("once".into()), ..stop(id, "slow") };
    let first = server.engine.stop_step(&keyed).await.unwrap();
    assert_eq!(first.in_flight.len(), 1);
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(server.engine.stop_step(&keyed).await.unwrap(), first);
    let other = StopRequest { idempotency_key: Some("twice".into()), ..keyed };
    assert!(matches!(server.engine.stop_step(&other).await, Err(StopError::AlreadyEnded { .. })));
    assert_eq!(world.count(id, "command.stopping").await, 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_survives_the_server_that_gave_it() {
    let world = World::new();
    let one = world.server();
    let two = world.server();
    let worker = world.hire_between(&[&one, &two], "one", 1);
    one.register(&caught("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = one.start("caught").await.execution_id;
    world.until_started("slow", 1).await;
    // The order does not reach the worker: the wire is cut, and the server is gone.
    worker.cut(true);
    one.engine.stop_step(&stop(id, "slow")).await.unwrap();
    one.crash();
    worker.switch(1);
    assert_eq!(two.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.result(&two.engine, id).await, json!({"kind": "cancelled", "code": "CANCELLED"}));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_command_whose_worker_dies_does_not_run_on_elsewhere() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&caught("  tool: {kind: python, code: 'sleep 60000'}")).await;
    let id = server.start("caught").await.execution_id;
    world.until_started("slow", 1).await;
    worker.cut(true);
    server.engine.stop_step(&stop(id, "slow")).await.unwrap();
    worker.kill();
    world.hire(&server, "two", 1);
    world.until_logged(id, "command.lost").await;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.count("slow"), 1, "no second attempt: {}", world.story().await);
    assert_eq!(world.count(id, "command.claimed").await, 2, "one of each step: {}", world.story().await);
    assert_eq!(world.result(&server.engine, id).await, json!({"kind": "cancelled", "code": "CANCELLED"}));
    world.check([]).await;
}
