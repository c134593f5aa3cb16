//! Cancelling at every stage, alone and with a family.

use noetl_core::event::{AttemptEnd, Event};
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_engine::{CancelError, CancelRequest, CancelStatus};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::world::{Server, World, cancel, chain, playbook, tally};

fn interrupt(id: ExecutionId) -> CancelRequest {
    CancelRequest { mode: Some(CancelMode::Interrupt), grace_ms: Some(500), ..cancel(id) }
}

fn family(id: ExecutionId) -> CancelRequest {
    CancelRequest { cascade: true, ..cancel(id) }
}

/// Returns how the certificate says that each attempt ended.
async fn certificate(world: &World, id: ExecutionId) -> Vec<AttemptEnd> {
    let log = world.log(id).await;
    let proofs: Vec<_> = log
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::ExecutionQuiesced { commands } => Some(commands.iter().map(|ended| ended.end).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(proofs.len(), 1, "{}", world.story().await);
    proofs.into_iter().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_only_waits_for_a_worker_is_cancelled_and_quiesced_in_one_append() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let answer = server.cancel(cancel(id)).await.unwrap();
    assert_eq!(answer.cancelled_executions, [id]);
    assert_eq!(answer.message, "Cancelled 1 execution(s)");
    assert!(answer.quiesced && answer.in_flight.is_empty() && answer.complete);
    assert_eq!(world.names(id).await[2..], ["execution.cancelled", "command.cancelled", "execution.quiesced"]);
    world.hire(&server, "late", 1);
    sleep(Duration::from_secs(5)).await;
    assert!(world.scripts.started().is_empty());
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_its_worker_has_not_started_is_skipped() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "ok")])).await;
    sleep(Duration::from_millis(100)).await;
    worker.cut(true);
    // The poll was open: the command is claimed for the worker, and the answer is lost on the wire.
    let id = server.start("chain").await.execution_id;
    assert_eq!(world.head(id).await.in_flight, 1);
    let answer = server.cancel(cancel(id)).await.unwrap();
    assert_eq!(answer.in_flight.len(), 1);
    assert!(!answer.quiesced);
    worker.cut(false);
    server.quiesced(id).await;
    assert!(world.scripts.started().is_empty());
    assert_eq!(certificate(&world, id).await, [AttemptEnd::NeverStarted]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn finish_lets_the_running_step_complete_and_starts_nothing_else() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 5000"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    let answer = server.cancel(cancel(id)).await.unwrap();
    assert_eq!(answer.mode, CancelMode::Finish);
    assert_eq!(answer.in_flight.len(), 1);
    assert_eq!(&*answer.in_flight[0].step, "a");
    server.quiesced(id).await;
    assert!((4_500..5_500).contains(&asked.elapsed().as_millis()));
    assert_eq!(world.scripts.started(), ["a"]);
    assert_eq!(certificate(&world, id).await, [AttemptEnd::Finished]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn finish_runs_the_rest_of_a_pipeline_once_and_begins_no_retry() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let yaml = playbook(
        "pipe",
        "
workflow:
- step: all
  tool:
  - name: first
    kind: python
    code: 'sleep 1000'
  - name: second
    kind: python
    code: 'flaky 3'
    spec: {policy: {rules: [{when: '{{ output.status == \"error\" }}', then: {do: retry, attempts: 5}}]}}
  - name: third
    kind: python
    code: ok
",
    );
    server.register(&yaml).await;
    let id = server.start("pipe").await.execution_id;
    world.until_started("all", 1).await;
    sleep(Duration::from_millis(100)).await;
    server.cancel(cancel(id)).await.unwrap();
    server.quiesced(id).await;
    // The first ends, the second is tried once; what would follow is a retry.
    assert_eq!(world.scripts.count("all"), 2);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn interrupt_reaches_the_tool_at_once_and_says_how_it_ended() {
    for (code, end, took) in
        [("sleep 60000", AttemptEnd::Stopped, 0..250), ("stubborn 60000", AttemptEnd::Killed, 500..750)]
    {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 1);
        server.register(&chain("chain", &[("a", code), ("b", "ok")])).await;
        let id = server.start("chain").await.execution_id;
        world.until_started("a", 1).await;
        let asked = Instant::now();
        let answer = server.cancel(CancelRequest { wait_ms: 10_000, ..interrupt(id) }).await.unwrap();
        assert!(answer.quiesced);
        assert!(took.contains(&asked.elapsed().as_millis()), "{code}: {:?}", asked.elapsed());
        assert_eq!(certificate(&world, id).await, [end]);
        assert_eq!(world.scripts.started(), ["a"]);
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_is_escalated_but_never_cancelled_twice() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 600000")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    server.cancel(cancel(id)).await.unwrap();
    let again = server.cancel(cancel(id)).await.unwrap_err();
    assert_eq!(again.to_string(), format!("Execution {id} is already CANCELLED"));
    assert_eq!(again.ended(), Some(Status::Cancelled));
    let escalated = server.cancel(CancelRequest { wait_ms: 1_000, ..interrupt(id) }).await.unwrap();
    assert!(escalated.escalated && escalated.quiesced && escalated.cancelled_executions.is_empty());
    assert_eq!(world.count(id, "execution.cancelled").await, 1);
    assert_eq!(world.count(id, "execution.cancel_escalated").await, 1);
    assert!(matches!(server.cancel(interrupt(id)).await, Err(CancelError::AlreadyEnded { .. })));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_retry_is_cancelled_at_once_and_its_timer_with_it() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let yaml = playbook(
        "retry",
        "
workflow:
- step: flaky
  tool:
    kind: python
    code: 'flaky 2'
    spec: {policy: {rules: [{when: '{{ output.status == \"error\" }}', then: {do: retry, attempts: 5, delay: 60}}]}}
",
    );
    server.register(&yaml).await;
    let id = server.start("retry").await.execution_id;
    world.until_logged(id, "command.suspended").await;
    assert!(server.cancel(cancel(id)).await.unwrap().quiesced);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.scripts.count("flaky"), 1);
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    world.check([]).await;
}

async fn parent_and_child(world: &World, server: &Server) -> (ExecutionId, ExecutionId) {
    server.register(&chain("child", &[("deep", "sleep 5000"), ("never", "ok")])).await;
    let yaml = playbook(
        "parent",
        "
workflow:
- step: call
  tool: {kind: playbook, path: child}
  next:
    arcs:
    - {step: caught, when: '{{ error is defined and error }}'}
    - {step: after}
- step: caught
  tool: {kind: python, code: input, input: {kind: '{{ call.error.kind }}'}}
- step: after
  tool: {kind: python, code: ok}
",
    );
    server.register(&yaml).await;
    let parent = server.start("parent").await.execution_id;
    world.until_started("deep", 1).await;
    let heads = world.heads().await;
    let child = heads.iter().find(|head| head.parent_execution_id == Some(parent)).unwrap().execution_id;
    (parent, child)
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_parent_leaves_its_child_running_and_says_so() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    let (parent, child) = parent_and_child(&world, &server).await;
    let answer = server.cancel(cancel(parent)).await.unwrap();
    assert!(answer.quiesced, "waiting for a child runs nowhere");
    assert_eq!(answer.active_descendants, 1);
    assert_eq!(server.ended(child).await, Status::Completed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.scripts.started(), ["deep", "never"]);
    assert!(world.store.due(10).await.unwrap().1.is_empty(), "an ended parent is told nothing");
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_cancelled_on_its_own_is_an_error_that_the_parent_may_handle() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    let (parent, child) = parent_and_child(&world, &server).await;
    let asked = Instant::now();
    server.cancel(cancel(child)).await.unwrap();
    assert_eq!(server.ended(parent).await, Status::Completed, "{}", world.story().await);
    assert!(asked.elapsed().as_millis() < 150, "the parent hears of it at once");
    assert_eq!(world.result(&server.engine, parent).await, json!({ "kind": "cancelled" }));
    server.quiesced(child).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cascade_that_finishes_is_escalated_where_something_still_runs() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 2);
    let (parent, child) = parent_and_child(&world, &server).await;
    let first = server.cancel(family(parent)).await.unwrap();
    assert_eq!((first.cancelled_executions.len(), first.quiesced), (2, false));
    let again = server.cancel(family(parent)).await.unwrap_err();
    let CancelError::AlreadyEnded { head, unquiesced } = again else { panic!("{again}") };
    assert_eq!(
        (head.quiesced_at.is_some(), unquiesced),
        (true, vec![child]),
        "the top waits for a child and runs nowhere"
    );
    let harder = || CancelRequest { mode: Some(CancelMode::Interrupt), grace_ms: Some(2_000), ..family(parent) };
    let dry = server.cancel(CancelRequest { dry_run: true, ..harder() }).await.unwrap();
    assert_eq!((dry.would_escalate, dry.would_cancel), (vec![child], vec![]));
    assert_eq!((dry.in_flight.len(), dry.mode, dry.escalated), (1, CancelMode::Interrupt, false));
    assert_eq!(dry.message, "Would escalate 1 execution(s) to interrupt");
    assert_eq!(world.count(child, "execution.cancel_escalated").await, 0);
    let answer = server.cancel(CancelRequest { wait_ms: 1_000, ..harder() }).await.unwrap();
    assert_eq!((answer.escalated, answer.mode), (true, CancelMode::Interrupt));
    assert_eq!((answer.escalated_executions, answer.cancelled_executions), (vec![child], vec![]));
    assert_eq!((answer.in_flight.len(), answer.in_flight[0].execution_id), (1, child));
    assert_eq!(answer.message, "Escalated to interrupt: 1 command(s) still in flight");
    assert!(answer.quiesced, "it is waited for what was escalated below");
    let over = server.cancel(harder()).await.unwrap_err();
    assert!(matches!(over, CancelError::AlreadyEnded { unquiesced, .. } if unquiesced.is_empty()));
    world.check([parent]).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_is_only_tightened() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "stubborn 600000")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    let within = |grace_ms| CancelRequest { grace_ms: Some(grace_ms), ..interrupt(id) };
    server.cancel(within(5_000)).await.unwrap();
    for grace_ms in [5_000, 60_000] {
        assert!(matches!(server.cancel(within(grace_ms)).await, Err(CancelError::AlreadyEnded { .. })));
        let dry = CancelRequest { dry_run: true, ..within(grace_ms) };
        assert!(matches!(server.cancel(dry).await, Err(CancelError::AlreadyEnded { .. })));
    }
    assert!(server.cancel(within(1_000)).await.unwrap().escalated);
    server.quiesced(id).await;
    assert_eq!(world.count(id, "execution.cancel_escalated").await, 1);
    world.check([]).await;
}

/// Registers a family of three levels below the top, ten wide, and returns its top when all leaves wait.
async fn hundred_and_eleven(world: &World, server: &Server) -> ExecutionId {
    let fan = |path: &str, child: &str| {
        playbook(
            path,
            &format!(
                "
workload: {{items: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}
workflow:
- step: each
  loop: {{in: '{{{{ workload.items }}}}', iterator: item, spec: {{mode: parallel, max_in_flight: 10}}}}
  tool: {{kind: playbook, path: {child}}}
"
            ),
        )
    };
    server.register(&chain("leaf", &[("leaf", "sleep 3600000")])).await;
    server.register(&fan("branch", "leaf")).await;
    server.register(&fan("top", "branch")).await;
    let top = server.start("top").await.execution_id;
    world
        .until("the whole family is born", || async {
            world.heads().await.len() == 111 && world.heads().await.iter().all(|head| !head.runnable)
        })
        .await;
    top
}

#[tokio::test(start_paused = true)]
async fn a_cascade_takes_the_whole_family_and_lists_it_once() {
    let world = World::new();
    let server = world.server();
    let top = hundred_and_eleven(&world, &server).await;
    let dry = server.cancel(CancelRequest { dry_run: true, ..family(top) }).await.unwrap();
    assert_eq!((dry.status, dry.would_cancel.len()), (CancelStatus::DryRun, 111));
    assert_eq!(dry.would_cancel[0], top);
    let answer = server.cancel(family(top)).await.unwrap();
    assert_eq!(answer.cancelled_executions.len(), 111);
    assert_eq!(answer.cancelled_executions[0], top);
    assert_eq!(answer.message, "Cancelled 111 execution(s)");
    assert!(answer.complete && answer.quiesced && answer.job_id.is_some());
    assert_eq!(tally(&world.heads().await), [("CANCELLED", 111)].into());
    assert!(matches!(server.cancel(family(top)).await, Err(CancelError::AlreadyEnded { .. })));
    sleep(Duration::from_secs(1)).await;
    assert!(world.store.due(10).await.unwrap().1.is_empty());
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cascade_from_an_ended_top_takes_what_is_left_below() {
    let world = World::new();
    let server = world.server();
    let top = hundred_and_eleven(&world, &server).await;
    server.cancel(cancel(top)).await.unwrap();
    let answer = server.cancel(family(top)).await.unwrap();
    assert_eq!(answer.cancelled_executions.len(), 110);
    assert!(!answer.cancelled_executions.contains(&top));
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cascade_stops_running_leaves_wherever_they_run() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 30);
    world.hire(&server, "two", 30);
    let top = hundred_and_eleven(&world, &server).await;
    world.until_started("leaf", 60).await;
    let asked = Instant::now();
    let answer = server
        .cancel(CancelRequest { mode: Some(CancelMode::Interrupt), wait_ms: 5_000, ..family(top) })
        .await
        .unwrap();
    assert_eq!(answer.cancelled_executions.len(), 111);
    assert_eq!(answer.in_flight.len(), 60);
    assert!(answer.quiesced && asked.elapsed().as_millis() < 250, "{:?}", asked.elapsed());
    assert_eq!(world.scripts.count("leaf"), 60);
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cascade_that_takes_long_is_answered_and_goes_on() {
    let world = World::new();
    let server = world.server_with(|options| options.cascade_answer_ms = 0);
    let top = hundred_and_eleven(&world, &server).await;
    let answer = server.cancel(family(top)).await.unwrap();
    assert!(!answer.complete && !answer.quiesced);
    assert!(answer.cancelled_executions.len() < 111);
    let job = answer.job_id.unwrap();
    world
        .until("the job is done", || async { world.store.cancellation(job).await.unwrap().unwrap().done_at.is_some() })
        .await;
    assert_eq!(tally(&world.heads().await), [("CANCELLED", 111)].into());
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cascade_survives_the_crash_of_the_server_that_ran_it() {
    let world = World::new();
    let server = world.server_with(|options| options.cascade_answer_ms = 0);
    let top = hundred_and_eleven(&world, &server).await;
    let answer = server.cancel(family(top)).await.unwrap();
    assert!(!answer.complete);
    server.crash();
    let other = world.server();
    let began = Instant::now();
    for head in world.heads().await {
        assert_eq!(other.ended(head.execution_id).await, Status::Cancelled);
    }
    assert!(began.elapsed().as_millis() < 1_500, "{:?}", began.elapsed());
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_is_never_born_behind_a_cascade() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    let yaml = playbook(
        "spawn",
        "
workflow:
- {step: pause, tool: {kind: python, code: 'sleep 10'}, next: {arcs: [{step: again}]}}
- {step: again, tool: {kind: playbook, path: spawn}}
",
    );
    server.register(&yaml).await;
    let top = server.start("spawn").await.execution_id;
    // The family grows while it is cancelled.
    sleep(Duration::from_millis(205)).await;
    let answer = server.cancel(family(top)).await.unwrap();
    assert!(answer.complete);
    sleep(Duration::from_secs(2)).await;
    let heads = world.heads().await;
    assert!(heads.iter().all(|head| head.status.is_terminal()), "{}", world.story().await);
    world.check([top]).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_key_gets_the_first_answer_again() {
    let world = World::new();
    let server = world.server();
    let top = hundred_and_eleven(&world, &server).await;
    let keyed = |cascade| CancelRequest { idempotency_key: Some("once".into()), cascade, ..cancel(top) };
    let first = server.cancel(keyed(true)).await.unwrap();
    assert_eq!(server.cancel(keyed(true)).await.unwrap(), first);
    let other = CancelRequest { idempotency_key: Some("twice".into()), ..keyed(true) };
    assert!(matches!(server.cancel(other).await, Err(CancelError::AlreadyEnded { .. })));
}

#[tokio::test(start_paused = true)]
async fn of_many_requests_at_once_exactly_one_cancels() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 1000")])).await;
    let id = server.start("chain").await.execution_id;
    let all = futures_util::future::join_all((0..10).map(|_| server.cancel(cancel(id)))).await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(matches!(server.cancel(cancel(ExecutionId(5))).await, Err(CancelError::Unknown(_))));
    server.quiesced(id).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn cancel_works_on_an_engine_that_has_not_been_spawned() {
    let world = World::new();
    let server = world.server();
    let top = hundred_and_eleven(&world, &server).await;
    server.crash();
    let idle = noetl_engine::Engine::new(
        std::sync::Arc::clone(&world.store),
        noetl_engine::EngineOptions { node: 99, ..Default::default() },
    );
    assert_eq!(idle.cancel(family(top)).await.unwrap().cancelled_executions.len(), 111);
    world.check([top]).await;
}
