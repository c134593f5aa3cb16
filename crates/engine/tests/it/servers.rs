//! Several servers on one store, and servers that crash.

use noetl_core::head::{ENGINE_VERSION, Status};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_engine::{BulkRequest, CancelRequest, Selected};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::world::{World, cancel, chain, playbook};

fn wide(items: usize) -> String {
    playbook(
        "wide",
        &format!(
            "
workload: {{n: {items}}}
workflow:
- step: each
  loop: {{in: '{{{{ range(workload.n) | list }}}}', iterator: item, spec: {{mode: parallel, max_in_flight: 50}}}}
  tool: {{kind: python, code: 'sleep 7', input: {{item: '{{{{ item }}}}'}}}}
"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn two_servers_drive_one_execution_together() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&one, "at one", 8);
    world.hire(&two, "at two", 8);
    one.register(&wide(300)).await;
    let id = one.start("wide").await.execution_id;
    assert_eq!(two.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.scripts.count("each"), 300);
    let claimed = |server: &crate::world::Server| server.engine.metrics().reports.get();
    assert!(claimed(&one) > 50 && claimed(&two) > 50, "{} and {}", claimed(&one), claimed(&two));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_server_issues_a_worker_of_another_one_runs() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&two, "at two", 1);
    one.register(&chain("chain", &[("a", "ok"), ("b", "ok"), ("c", "ok")])).await;
    let began = Instant::now();
    let id = one.start("chain").await.execution_id;
    assert_eq!(one.ended(id).await, Status::Completed);
    assert!(began.elapsed().as_millis() < 1_500, "{:?}", began.elapsed());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_on_one_server_reaches_a_worker_of_another_one() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&two, "at two", 1);
    one.register(&chain("chain", &[("a", "sleep 3600000")])).await;
    let id = one.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    let asked = Instant::now();
    let request = CancelRequest { mode: Some(CancelMode::Interrupt), wait_ms: 5_000, ..cancel(id) };
    assert!(one.cancel(request).await.unwrap().quiesced);
    assert!(asked.elapsed().as_millis() < 400, "{:?}", asked.elapsed());
    world.check([]).await;
}

/// A family of a top that waits for its children, on a server that is about to fall behind.
async fn family(world: &World, server: &crate::world::Server, children: usize) -> ExecutionId {
    server.register(&chain("child", &[("deep", "sleep 3600000")])).await;
    let each = "loop: {in: '{{ workload.n }}', iterator: i, spec: {mode: parallel}}";
    let step = format!("- {{step: call, {each}, tool: {{kind: playbook, path: child}}}}");
    server.register(&playbook("parent", &format!("\nworkload: {{n: {children}}}\nworkflow:\n{step}\n"))).await;
    let id = server.start("parent").await.execution_id;
    world.until_started("deep", children).await;
    id
}

/// The race: the server that was asked falls behind in the middle of a cascade, and another one finishes it. The answer
/// says what the request has cancelled, whoever did it, and what was in flight.
#[tokio::test(start_paused = true)]
async fn the_answer_to_a_cascade_that_another_server_finished_is_whole() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&two, "at two", 8);
    let id = family(&world, &one, 5).await;
    let request = CancelRequest { cascade: true, mode: Some(CancelMode::Interrupt), ..cancel(id) };
    let mut asked = std::pin::pin!(one.cancel(request));
    // It visits the top, and then nobody turns to it for long.
    assert!(futures_util::poll!(&mut asked).is_pending());
    assert_eq!(world.head(id).await.status, Status::Cancelled);
    world
        .until("the other server is through", || async { world.store.open_cancellations().await.unwrap().is_empty() })
        .await;
    for head in world.heads().await {
        two.quiesced(head.execution_id).await;
    }
    let answer = asked.await.unwrap();
    let all: std::collections::BTreeSet<_> = world.heads().await.into_iter().map(|head| head.execution_id).collect();
    assert_eq!(answer.cancelled_executions.first(), Some(&id));
    assert_eq!(answer.cancelled_executions.iter().copied().collect::<std::collections::BTreeSet<_>>(), all);
    assert_eq!(answer.cancelled_executions.len(), 6);
    assert_eq!(answer.in_flight.len(), 5, "{:?}", answer.in_flight);
    assert!(answer.in_flight.iter().all(|held| held.worker.as_deref() == Some("at two") && &*held.step == "deep"));
    assert!(answer.complete);
    world.check([id]).await;
}

/// The same race where nothing but the other server's work is there to be told of: the top had ended. No 409.
#[tokio::test(start_paused = true)]
async fn a_cascade_below_an_ended_top_that_another_server_carried_out_is_no_refusal() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&two, "at two", 8);
    one.register(&chain("top", &[("only", "sleep 50")])).await;
    one.register(&chain("child", &[("deep", "sleep 3600000")])).await;
    let top = one.start("top").await.execution_id;
    let child = one.start_with("child", json!({}), Some(top)).await.execution_id;
    assert_eq!(one.ended(top).await, Status::Completed);
    world.until_started("deep", 1).await;
    let request = CancelRequest { cascade: true, ..cancel(top) };
    let mut asked = std::pin::pin!(one.cancel(request));
    assert!(futures_util::poll!(&mut asked).is_pending());
    assert_eq!(world.head(child).await.status, Status::Running);
    world
        .until("the other server is through", || async { world.store.open_cancellations().await.unwrap().is_empty() })
        .await;
    let answer = asked.await.unwrap();
    assert_eq!(answer.cancelled_executions, [child]);
    world.check([top]).await;
}

/// The same of many at once.
#[tokio::test(start_paused = true)]
async fn the_answer_to_a_job_that_another_server_finished_is_whole() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    one.register(&chain("wait", &[("deep", "ok")])).await;
    let mut ids = Vec::new();
    // More than one step takes.
    for _ in 0..100 {
        ids.push(one.start("wait").await.execution_id);
    }
    let request = BulkRequest {
        selected: Selected::Listed(ids.clone()),
        how: cancel(ids[0]),
        max: 1_000,
        rate: None,
        answer_ms: 60_000,
    };
    let mut asked = std::pin::pin!(one.engine.cancel_matching(&request));
    assert!(futures_util::poll!(&mut asked).is_pending());
    world
        .until("the other server is through", || async { world.store.open_cancellations().await.unwrap().is_empty() })
        .await;
    two.quiesced(ids[99]).await;
    let mut answer = asked.await.unwrap();
    answer.cancelled.sort_unstable();
    assert_eq!((answer.cancelled, answer.cancelled_count), (ids, 100));
    assert!(answer.complete && answer.unknown.is_empty() && answer.spared.is_empty(), "{:?}", answer.unknown);
    world.check([]).await;
}

/// A rolling upgrade: servers of two versions on one store, each with workers. What the older one can not decide it
/// leaves alone, timers, children and pending commands included; but a cancel needs no decision of that kind.
#[tokio::test(start_paused = true)]
async fn what_needs_a_newer_server_is_left_to_newer_ones() {
    let world = World::new();
    let newer = world.server();
    let older = world.server_with(|options| options.version = ENGINE_VERSION - 1);
    world.hire(&older, "at older", 8);
    newer.register(&chain("child", &[("deep", "sleep 50"), ("deeper", "ok")])).await;
    let parent = "
workflow:
- step: call
  tool: {kind: playbook, path: child}
  next: {arcs: [{step: flaky}]}
- step: flaky
  tool:
    kind: python
    code: 'flaky 1'
    spec: {policy: {rules: [{when: '{{ output.status == \"error\" }}', then: {do: retry, attempts: 5, delay: 600}}]}}
";
    newer.register(&playbook("parent", parent)).await;
    newer.register(&chain("long", &[("long", "sleep 3600000")])).await;
    let id = newer.start("parent").await.execution_id;
    // Its worker has free slots, and takes nothing that it could not report.
    sleep(Duration::from_secs(5)).await;
    assert!(world.scripts.started().is_empty(), "{:?}", world.scripts.started());
    world.hire(&newer, "at newer", 8);
    assert_eq!(older.ended(id).await, Status::Completed, "{}", world.story().await);
    let long = newer.start("long").await.execution_id;
    world.until_started("long", 1).await;
    let request = CancelRequest { mode: Some(CancelMode::Interrupt), wait_ms: 5_000, ..cancel(long) };
    assert!(older.cancel(request).await.unwrap().quiesced);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_where_the_state_is_at_hand_hears_of_an_end_elsewhere() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    one.register(&chain("chain", &[("a", "ok")])).await;
    let id = one.start("chain").await.execution_id;
    let asked = Instant::now();
    let waiting = async { one.ended(id).await };
    let ending = async {
        sleep(Duration::from_millis(20)).await;
        two.cancel(cancel(id)).await.unwrap();
    };
    let (status, ()) = tokio::join!(waiting, ending);
    assert_eq!(status, Status::Cancelled);
    assert!(asked.elapsed().as_millis() < 400, "{:?}", asked.elapsed());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_on_a_crashed_server_is_told_of_its_child_by_another_one() {
    let world = World::new();
    let one = world.server();
    one.register(&chain("child", &[("deep", "sleep 5000")])).await;
    one.register(&playbook(
        "parent",
        "
workflow:
- {step: call, tool: {kind: playbook, path: child}, next: {arcs: [{step: after}]}}
- {step: after, tool: {kind: python, code: ok}}
",
    ))
    .await;
    let two = world.server();
    world.hire(&two, "at two", 1);
    let id = one.start("parent").await.execution_id;
    world.until_started("deep", 1).await;
    one.crash();
    assert_eq!(two.ended(id).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_up_again_goes_on_where_it_crashed() {
    for crash_after_ms in [0, 1, 3, 10, 25, 60, 150, 400, 900] {
        let world = World::new();
        let mut server = world.server();
        let yaml = playbook(
            "all",
            "
workload: {items: [1, 2, 3]}
workflow:
- step: a
  tool: {kind: python, code: 'sleep 20'}
  next: {arcs: [{step: each}]}
- step: each
  loop: {in: '{{ workload.items }}', iterator: item, spec: {mode: parallel}}
  tool: {kind: playbook, path: child}
  next: {arcs: [{step: z}]}
- step: z
  tool: {kind: python, code: ok}
",
        );
        server.register(&yaml).await;
        server.register(&chain("child", &[("x", "sleep 50"), ("y", "ok")])).await;
        let id = server.start("all").await.execution_id;
        // Crash after crash; each server has a worker of its own that dies with it.
        let mut lives = 0;
        while !world.head(id).await.status.is_terminal() {
            lives += 1;
            assert!(lives < 200, "{}", world.story().await);
            let worker = world.hire(&server, &format!("worker {lives}"), 2);
            let patience = if lives < 4 { crash_after_ms } else { 40_000 };
            sleep(Duration::from_millis(patience)).await;
            worker.kill();
            server.crash();
            server = world.server();
        }
        assert_eq!(server.ended(id).await, Status::Completed);
        assert_eq!(world.heads().await.len(), 4, "crashing after {crash_after_ms} ms\n{}", world.story().await);
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_survives_the_server_that_set_it() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    let yaml = playbook(
        "retry",
        "
workflow:
- step: flaky
  tool:
    kind: python
    code: 'flaky 1'
    spec: {policy: {rules: [{when: '{{ output.status == \"error\" }}', then: {do: retry, attempts: 5, delay: 600}}]}}
",
    );
    server.register(&yaml).await;
    let id = server.start("retry").await.execution_id;
    world.until_logged(id, "command.suspended").await;
    worker.kill();
    server.crash();
    sleep(Duration::from_secs(30)).await;
    let server = world.server();
    world.hire(&server, "two", 1);
    let began = Instant::now();
    assert_eq!(server.ended(id).await, Status::Completed);
    let took = began.elapsed().as_secs();
    assert!((565..=571).contains(&took), "{took} s");
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_outlives_its_server_and_reports_to_the_next_one() {
    let world = World::new();
    let first = world.server();
    let second = world.server();
    first.register(&chain("chain", &[("a", "sleep 2000"), ("b", "ok")])).await;
    let worker = world.hire_between(&[&first, &second], "one", 1);
    let id = first.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    worker.switch(1);
    first.crash();
    assert_eq!(second.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["a", "b"], "nothing ran twice");
    assert_eq!(world.count(id, "command.lost").await, 0);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_server_leaves_everything_in_the_tables() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "return 1")])).await;
    let id = server.start("chain").await.execution_id;
    server.stop().await;
    let server = world.server();
    world.hire(&server, "one", 1);
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.result(&server.engine, id).await, json!(1));
    assert!(world.store.due(10).await.unwrap().1.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_with_large_results_waits_and_another_server_goes_on_with_it() {
    let world = World::new();
    let one = world.server();
    let worker = world.hire(&one, "at one", 1);
    let text = "y".repeat(300_000);
    one.register(&chain("child", &[("kid", &format!("return {{\"blob\": \"{text}\"}}"))])).await;
    let parent = "
workflow:
- step: start
  tool:
  - {name: page, kind: python, code: 'return {\"blob\": \"BLOB\"}', set: {kept: '{{ output }}'}}
  - {name: kid, kind: playbook, path: child}
  - name: again
    kind: python
    code: flaky 1
    input: {n: '{{ kept.blob | length }}'}
    spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, delay: 60}}]}}
  - {name: use, kind: python, code: input, input: {page: '{{ page.blob | length }}', kid: '{{ kid.blob | length }}'}}
";
    one.register(&playbook("parent", &parent.replace("BLOB", &text))).await;
    let id = one.start("parent").await.execution_id;
    // In the retry's wait, with what two tasks gave.
    world.until("it waits to try again", async || world.scripts.count("start") == 2).await;
    sleep(Duration::from_secs(5)).await;
    worker.kill();
    one.crash();
    let two = world.server();
    world.hire(&two, "at two", 1);
    assert_eq!(two.ended(id).await, Status::Completed, "{}", world.story().await);
    let result = world.result(&two.engine, id).await;
    assert_eq!(result["use"], json!({"page": 300_000, "kid": 300_000}));
    assert_eq!(result["page"]["blob"].as_str().map(str::len), Some(300_000));
    world.check([]).await;
}
