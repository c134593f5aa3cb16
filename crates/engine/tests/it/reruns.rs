//! Running the same again, from the start and from where it stopped.

use noetl_core::execution::rerun::NothingKept;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::labels::Labels;
use noetl_core::playbook::CancelMode;
use noetl_engine::CancelRequest;
use noetl_engine::rerun::{RerunError, RerunRequest, Rerunning};
use serde_json::{Value, json};

use crate::world::{Server, World, cancel, chain, playbook};

/// Two branches and a join; one branch takes as long as it is told.
const FORK: &str = "
workload: {ms: 100000000}
workflow:
- {step: a, tool: {kind: python, code: ok}, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}
- {step: b, tool: {kind: python, code: ok}, set: {ctx.b: done}, next: {arcs: [{step: d}]}}
- {step: c, tool: {kind: python, code: 'sleep {{ ms }}'}, next: {arcs: [{step: d}]}}
- {step: d, tool: {kind: python, code: input, input: {b: '{{ ctx.b }}', a: '{{ a.step }}', slept: '{{ c.slept }}'}}}
";

/// The second step fails, and the run goes on.
const SURVIVED: &str = "
workflow:
- {step: a, tool: {kind: python, code: ok}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: python, code: fail}, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: python, code: ok}}
";

fn again(execution_id: ExecutionId, keep_finished: bool, payload: &Value) -> RerunRequest {
    let payload = payload.as_object().cloned().unwrap();
    let started_by = Some("test".into());
    RerunRequest {
        execution_id,
        keep_finished,
        latest: false,
        payload,
        labels: Labels::new(),
        started_by,
        idempotency_key: None,
    }
}

async fn rerun(server: &Server, request: RerunRequest) -> Rerunning {
    server.engine.rerun(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_join_waits_for_the_branch_that_begins_anew_and_runs_once() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&playbook("fork", FORK)).await;
    let first = server.start("fork").await.execution_id;
    world.until_started("c", 1).await;
    world.until("b has finished", || async { world.count(first, "step.exit").await == 2 }).await;
    server.cancel(CancelRequest { mode: Some(CancelMode::Interrupt), ..cancel(first) }).await.unwrap();
    server.quiesced(first).await;
    let running = rerun(&server, again(first, true, &json!({"ms": 5}))).await;
    let names = |steps: &[std::sync::Arc<str>]| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&running.kept), ["a", "b"]);
    let mut at = names(&running.begins_at);
    at.sort();
    assert_eq!(at, ["c", "d"], "one branch has arrived at the join already");
    let second = running.started.execution_id;
    assert_eq!(server.ended(second).await, Status::Completed);
    let started = world.scripts.started();
    assert_eq!(started[started.len() - 2..], ["c", "d"]);
    assert_eq!((world.scripts.count("a"), world.scripts.count("b"), world.scripts.count("d")), (1, 1, 1));
    let result = world.result(&server.engine, second).await;
    assert_eq!(result, json!({"b": "done", "a": "a", "slept": "5"}));
    // From the start everything runs again.
    let third = rerun(&server, again(second, false, &json!({}))).await.started.execution_id;
    assert_eq!(server.ended(third).await, Status::Completed);
    assert_eq!((world.scripts.count("a"), world.scripts.count("d")), (2, 2));
    world.check([]).await;
}

/// A run that ended well although a step failed: that step begins anew, and what follows it runs again.
#[tokio::test(start_paused = true)]
async fn what_follows_a_failed_step_is_not_said_to_be_kept() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&playbook("p", SURVIVED)).await;
    let first = server.start("p").await.execution_id;
    assert_eq!(server.ended(first).await, Status::Completed);
    let running = rerun(&server, again(first, true, &json!({}))).await;
    let names = |steps: &[std::sync::Arc<str>]| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((names(&running.kept), names(&running.begins_at)), (vec!["a".into()], vec!["b".into()]));
    assert_eq!(server.ended(running.started.execution_id).await, Status::Completed);
    assert_eq!(world.scripts.started(), ["a", "b", "c", "b", "c"]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_or_has_nothing_left_is_not_run_again() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("done", &[("a", "ok"), ("b", "ok")])).await;
    server.register(&chain("long", &[("a", "sleep 1000000")])).await;
    let long = server.start("long").await.execution_id;
    let refused = server.engine.rerun(again(long, false, &json!({}))).await;
    assert!(matches!(refused, Err(RerunError::Running(_))), "{refused:?}");
    let done = server.start("done").await.execution_id;
    server.ended(done).await;
    let refused = server.engine.rerun(again(done, true, &json!({}))).await;
    assert!(matches!(refused, Err(RerunError::Nothing(NothingKept::Finished))), "{refused:?}");
    let unknown = server.engine.rerun(again(ExecutionId(77), true, &json!({}))).await;
    assert!(matches!(unknown, Err(RerunError::Unknown(_))), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_goes_on_only_where_it_has_the_steps() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 4);
    server.register(&chain("p", &[("a", "ok"), ("b", "fail hard"), ("c", "ok")])).await;
    let first = server.start("p").await.execution_id;
    assert_eq!(server.ended(first).await, Status::Failed);
    server.register(&chain("p", &[("a", "ok"), ("other", "ok")])).await;
    let latest = |keep| RerunRequest { latest: true, ..again(first, keep, &json!({})) };
    let refused = server.engine.rerun(latest(true)).await;
    assert!(matches!(&refused, Err(RerunError::Nothing(NothingKept::NoStep(step))) if &**step == "b"), "{refused:?}");
    server.register(&chain("p", &[("a", "ok"), ("b", "ok"), ("c", "ok")])).await;
    let second = rerun(&server, latest(true)).await.started;
    assert_eq!((second.version, server.ended(second.execution_id).await), (3, Status::Completed));
    assert_eq!(world.scripts.started(), ["a", "b", "b", "c"]);
    world.check([]).await;
}

/// The race: the answer was lost, and the request is repeated at another server, at once or long after.
#[tokio::test(start_paused = true)]
async fn the_same_key_runs_again_once() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    world.hire(&one, "one", 4);
    one.register(&chain("p", &[("a", "ok"), ("b", "fail hard"), ("c", "ok")])).await;
    let first = one.start("p").await.execution_id;
    one.ended(first).await;
    one.register(&chain("p", &[("a", "ok"), ("b", "ok"), ("c", "ok")])).await;
    let keyed =
        |key: &str| RerunRequest { latest: true, idempotency_key: Some(key.into()), ..again(first, true, &json!({})) };
    let (here, there) = tokio::join!(one.engine.rerun(keyed("k")), two.engine.rerun(keyed("k")));
    let (here, there) = (here.unwrap(), there.unwrap());
    assert_eq!(here.started.execution_id, there.started.execution_id);
    assert_eq!(u8::from(here.started.repeated) + u8::from(there.started.repeated), 1);
    assert_eq!(one.ended(here.started.execution_id).await, Status::Completed);
    // The playbook has no step `b` any more: the first answer stands all the same.
    one.register(&chain("p", &[("a", "ok")])).await;
    let later = rerun(&two, keyed("k")).await;
    assert_eq!((later.started.execution_id, later.started.version), (here.started.execution_id, 2));
    assert_eq!((&later.kept, &later.begins_at), (&here.kept, &here.begins_at));
    assert_eq!(world.heads().await.len(), 2);
    // Another key is another request.
    one.register(&chain("p", &[("a", "ok"), ("b", "ok"), ("c", "ok")])).await;
    assert_ne!(rerun(&two, keyed("l")).await.started.execution_id, here.started.execution_id);
    world.check([]).await;
}
