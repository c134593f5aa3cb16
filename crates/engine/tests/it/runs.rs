//! Runs that come to their own end.

use noetl_core::head::Status;
use noetl_engine::{StartError, StartRequest};
use serde_json::{Map, json};

use crate::world::{World, chain, playbook, request};

#[tokio::test(start_paused = true)]
async fn a_chain_runs_to_its_end_with_one_commit_per_step() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "ok"), ("b", "ok"), ("c", "return {\"answer\": 42}")])).await;
    world.until("the worker is there", || async { server.engine.metrics().batches.get() == 0 }).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let id = server.start("chain").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["a", "b", "c"]);
    assert_eq!(world.result(&server.engine, id).await, json!({ "answer": 42 }));
    // The start with the first claim, and one append per report.
    assert_eq!(server.engine.metrics().appends.get(), 4, "{}", world.story().await);
    assert_eq!(server.engine.metrics().claimed_with_issue.get(), 3);
    assert_eq!(server.engine.metrics().loads.get(), 0);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_started_before_any_worker_came_is_matched_when_one_comes() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok"), ("b", "ok")])).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(server.start("chain").await.execution_id);
    }
    world.hire(&server, "one", 2);
    for id in ids {
        assert_eq!(server.ended(id).await, Status::Completed);
    }
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn branches_run_side_by_side_and_the_join_waits_for_all() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 8);
    let yaml = playbook(
        "fan",
        "
workflow:
- step: begin
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: left}, {step: middle}, {step: right}]}
- step: left
  tool: {kind: python, code: 'sleep 300'}
  next: {arcs: [{step: join}]}
- step: middle
  tool: {kind: python, code: 'sleep 500'}
  next: {arcs: [{step: join}]}
- step: right
  tool: {kind: python, code: 'ok'}
  next: {arcs: [{step: join}]}
- step: join
  tool: {kind: python, code: 'ok'}
",
    );
    server.register(&yaml).await;
    let id = server.start("fan").await.execution_id;
    let began = tokio::time::Instant::now();
    assert_eq!(server.ended(id).await, Status::Completed);
    assert!(began.elapsed().as_millis() < 800, "{:?}", began.elapsed());
    assert_eq!(world.scripts.count("join"), 1);
    assert_eq!(world.scripts.started().last().map(String::as_str), Some("join"));
    world.check([]).await;
}

fn looping(mode: &str) -> String {
    playbook(
        "loop",
        &format!(
            "
workload: {{items: []}}
workflow:
- step: each
  loop: {{in: '{{{{ workload.items }}}}', iterator: item, spec: {mode}}}
  tool: {{kind: python, code: 'sleep 100', input: {{item: '{{{{ item }}}}'}}}}
  next: {{arcs: [{{step: after}}]}}
- step: after
  tool: {{kind: python, code: 'ok'}}
"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn a_sequential_loop_runs_one_iteration_after_the_other() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 8);
    server.register(&looping("{mode: sequential}")).await;
    let began = tokio::time::Instant::now();
    let id = server.start_with("loop", json!({ "items": [1, 2, 3, 4, 5] }), None).await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert!(began.elapsed().as_millis() >= 500);
    assert_eq!(world.scripts.count("each"), 5);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_parallel_loop_keeps_to_max_in_flight() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 64);
    server.register(&looping("{mode: parallel, max_in_flight: 10}")).await;
    let items: Vec<u32> = (0..100).collect();
    let began = tokio::time::Instant::now();
    let id = server.start_with("loop", json!({ "items": items }), None).await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    let took = began.elapsed().as_millis();
    assert!((1_000..2_000).contains(&took), "{took} ms");
    assert_eq!(world.scripts.count("each"), 100);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_parallel_loop_is_folded_into_few_commits() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 64);
    server.register(&looping("{mode: parallel, max_in_flight: 64}")).await;
    let items: Vec<u32> = (0..2_000).collect();
    let id = server.start_with("loop", json!({ "items": items }), None).await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.count("each"), 2_000);
    let appends = server.engine.metrics().appends.get();
    assert!(appends < 400, "{appends} appends");
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_playbook_runs_another_one_and_gets_its_result() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    server.register(&chain("child", &[("deep", "return {\"depth\": 1}")])).await;
    let yaml = playbook(
        "parent",
        "
workflow:
- step: call
  tool: {kind: playbook, path: child}
  next: {arcs: [{step: after}]}
- step: after
  tool: {kind: python, code: input, input: {got: '{{ call.depth }}'}}
",
    );
    server.register(&yaml).await;
    let began = tokio::time::Instant::now();
    let id = server.start("parent").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.result(&server.engine, id).await, json!({ "got": 1 }));
    assert_eq!(world.heads().await.len(), 2);
    assert!(began.elapsed().as_millis() < 100, "hints make it immediate: {:?}", began.elapsed());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_its_delay_in_the_slot_or_suspended() {
    for (delay, suspended) in [(1, 0), (60, 2)] {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 1);
        let yaml = playbook(
            "retry",
            &format!(
                "
workflow:
- step: flaky
  tool:
    kind: python
    code: 'flaky 2'
    spec:
      policy:
        rules:
        - when: '{{{{ output.status == \"error\" }}}}'
          then: {{do: retry, attempts: 5, delay: {delay}}}
        - else: {{then: {{do: break}}}}
"
            ),
        );
        server.register(&yaml).await;
        let began = tokio::time::Instant::now();
        let id = server.start("retry").await.execution_id;
        assert_eq!(server.ended(id).await, Status::Completed, "{}", world.story().await);
        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
        assert!((delay * 2_000..delay * 2_000 + 300).contains(&took), "{took} ms");
        assert_eq!(world.scripts.count("flaky"), 3);
        assert_eq!(world.count(id, "command.suspended").await, suspended);
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_says_why() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("broken", &[("a", "ok"), ("b", "fail hard"), ("c", "ok")])).await;
    let id = server.start("broken").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Failed);
    assert_eq!(world.scripts.started(), ["a", "b"]);
    let head = world.head(id).await;
    assert!(head.error.is_some() && head.quiesced_at.is_some());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_result_travels_by_reference_and_is_looked_up_when_it_is_needed() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let large = json!({ "text": "x".repeat(200_000), "deep": { "field": 7 } });
    let yaml = playbook(
        "large",
        &format!(
            "
workflow:
- step: make
  tool: {{kind: python, code: {}}}
  next: {{arcs: [{{step: use, when: '{{{{ make.text | length == 200000 }}}}'}}]}}
- step: use
  tool: {{kind: python, code: input, input: {{length: '{{{{ make.text | length }}}}', field: '{{{{ make.deep.field }}}}'}}}}
",
            json!(format!("return {large}"))
        ),
    );
    server.register(&yaml).await;
    let id = server.start("large").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.result(&server.engine, id).await, json!({ "length": 200_000, "field": 7 }));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_row_of_server_steps_is_advanced_in_pieces() {
    let world = World::new();
    let server = world.server();
    let mut workflow = String::from("\nworkflow:\n");
    for step in 0..300 {
        workflow += &format!("- step: s{step}\n  tool: {{kind: noop}}\n  next: {{arcs: [{{step: s{}}}]}}\n", step + 1);
    }
    workflow += "- step: s300\n  tool: {kind: noop}\n";
    server.register(&playbook("row", &workflow)).await;
    let id = server.start("row").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert!(server.engine.metrics().appends.get() >= 5);
    assert_eq!(world.head(id).await.steps_entered, 301);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_repeated_with_its_key_is_the_same_start() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let keyed = || StartRequest { idempotency_key: Some("k1".into()), ..request("chain", Map::new(), None) };
    let (first, second) = tokio::join!(server.engine.start(keyed()), server.engine.start(keyed()));
    let (first, second) = (first.unwrap(), second.unwrap());
    let third = server.engine.start(keyed()).await.unwrap();
    assert_eq!(first.execution_id, second.execution_id);
    assert_eq!(first.execution_id, third.execution_id);
    assert!(!first.repeated && second.repeated && third.repeated);
    assert_eq!(world.heads().await.len(), 1);
    assert_eq!(first.commands_generated, 1);
    assert_eq!(third.commands_generated, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_can_not_be_says_why() {
    let world = World::new();
    let server = world.server();
    let unknown = server.engine.start(request("nowhere", Map::new(), None)).await.unwrap_err();
    assert!(matches!(&unknown, StartError::UnknownPlaybook(path) if path == "nowhere"), "{unknown}");
    server.register(&playbook("empty", "workflow: [{step: only, tool: {kind: noop}}]\n")).await;
    let parent = server.start("empty").await.execution_id;
    assert_eq!(server.ended(parent).await, Status::Completed);
    let ended = server.engine.start(request("empty", Map::new(), Some(parent))).await.unwrap_err();
    assert!(matches!(ended, StartError::ParentEnded(id, Status::Completed) if id == parent), "{ended}");
    let gone = noetl_core::id::ExecutionId(1);
    let unknown = server.engine.start(request("empty", Map::new(), Some(gone))).await.unwrap_err();
    assert!(matches!(unknown, StartError::ParentUnknown(id) if id == gone), "{unknown}");
}
