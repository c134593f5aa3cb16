//! Pausing with workers at work, alone and with a family.

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_engine::{Change, PauseAnswer, PauseError, PauseRequest};
use tokio::time::{Duration, sleep};

use crate::world::{Server, World, cancel, chain, playbook};

async fn change(server: &Server, id: ExecutionId, change: Change, cascade: bool) -> Result<PauseAnswer, PauseError> {
    let request = PauseRequest {
        execution_id: id,
        change,
        reason: Some("the target is down".into()),
        cascade,
        by: "api".into(),
        requested_by: None,
    };
    server.engine.pause(&request).await
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_paused_and_what_runs_is_kept() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("chain", &[("a", "sleep 1000"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    let answer = change(&server, id, Change::Pause, false).await.unwrap();
    assert_eq!((answer.changed, answer.in_flight.len(), answer.state), (vec![id], 1, "paused"));
    let again = change(&server, id, Change::Pause, false).await.unwrap();
    assert_eq!((again.changed.len(), again.message), (0, format!("Execution {id} is already paused")));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.count(id, "command.completed").await, 1);
    assert_eq!(world.scripts.started(), ["a"]);
    let answer = change(&server, id, Change::Resume, false).await.unwrap();
    assert_eq!((answer.changed, answer.state), (vec![id], "running"));
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["a", "b"]);
    assert!(matches!(change(&server, id, Change::Resume, false).await, Err(PauseError::AlreadyEnded { .. })));
    let nobody = change(&server, ExecutionId(1), Change::Pause, false).await;
    assert!(matches!(nobody, Err(PauseError::Unknown(ExecutionId(1)))));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_moment_came_goes_on_at_once_when_resumed() {
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
    change(&server, id, Change::Pause, false).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.scripts.count("flaky"), 1);
    change(&server, id, Change::Resume, false).await.unwrap();
    assert_eq!(server.ended(id).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_family_is_paused_with_cascade_and_goes_on_after_its_server_crashed() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("child", &[("deep", "sleep 1000"), ("after", "ok")])).await;
    let yaml = playbook(
        "parent",
        "
workflow:
- step: all
  loop: {in: 3, iterator: i, spec: {mode: parallel}}
  tool: {kind: playbook, path: child}
",
    );
    server.register(&yaml).await;
    let id = server.start("parent").await.execution_id;
    world.until_started("deep", 3).await;
    let alone = change(&server, id, Change::Pause, false).await.unwrap();
    assert_eq!(alone.changed, [id], "children of a paused parent go on");
    let all = change(&server, id, Change::Pause, true).await.unwrap();
    assert_eq!((all.changed.len(), all.in_flight.len(), all.complete), (3, 3, true));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.scripts.count("after"), 0);
    server.crash();
    let server = world.server();
    world.hire(&server, "two", 4);
    let resumed = change(&server, id, Change::Resume, true).await.unwrap();
    assert_eq!((resumed.changed.len(), resumed.changed[0]), (4, id));
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.scripts.count("after"), 3);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_goes_on_and_a_cancel_works_while_paused() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    let yaml = chain("limited", &[("a", "sleep 1000"), ("b", "ok")])
        .replace("workflow:", "executor: {spec: {timeout: 30}}\nworkflow:");
    server.register(&yaml).await;
    let late = server.start("limited").await.execution_id;
    let stopped = server.start("limited").await.execution_id;
    world.until_started("a", 2).await;
    for id in [late, stopped] {
        change(&server, id, Change::Pause, false).await.unwrap();
    }
    assert_eq!(server.cancel(cancel(stopped)).await.unwrap().cancelled_executions, [stopped]);
    let refused = change(&server, stopped, Change::Resume, false).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("Execution {stopped} is already CANCELLED"));
    assert_eq!(server.ended(late).await, Status::Failed);
    assert_eq!(world.head(late).await.pause, None);
    assert_eq!(world.scripts.count("b"), 0);
    world.check([]).await;
}
