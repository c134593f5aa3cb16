//! Starts whose concurrency key others have.

use serde_json::json;

use crate::api_world::World;

fn playbook(path: &str, on_conflict: &str) -> String {
    format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: x, path: {path}}}\n\
         executor: {{spec: {{concurrency: {{key: 'customer-{{{{ workload.customer }}}}', on_conflict: {on_conflict}}}}}}}\n\
         workload: {{customer: 7}}\nworkflow:\n  - {{step: start, tool: {{kind: python, code: 'x'}}}}\n"
    )
}

#[tokio::test]
async fn a_start_is_refused_or_cancelled_and_the_answer_says_which() {
    let world = World::new();
    for (path, on_conflict) in
        [("demo/strict", "reject"), ("demo/polite", "cancel_new"), ("demo/new", "cancel_running")]
    {
        world.register(&playbook(path, on_conflict)).await;
    }
    let first = world.start("demo/strict").await;
    let refused = world.post("/api/execute", json!({"path": "demo/strict"})).await.refused(409);
    assert_eq!(refused["code"], "concurrency_key_held");
    let message = format!("concurrency key `customer-7` is held by execution {first} (limit 1)");
    assert_eq!((&refused["message"], &refused["detail"]), (&json!(message), &json!(message)));
    let polite = world.post("/api/execute", json!({"path": "demo/polite"})).await.ok();
    assert_eq!((&polite["status"], &polite["commands_generated"]), (&json!("cancelled"), &json!(0)));
    let id = polite["execution_id"].as_str().unwrap();
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok();
    assert_eq!((&status["status"], &status["quiesced"]), (&json!("CANCELLED"), &json!(true)));
    assert_eq!(status["cancellation"]["cancelled_by"], "concurrency");
    let bad = world.post("/api/execute", json!({"path": "demo/strict", "workload": {"customer": "a\nb"}})).await;
    assert_eq!(bad.refused(422)["code"], "bad_concurrency_key");
    let newest = world.post("/api/execute", json!({"path": "demo/new"})).await.ok();
    assert_eq!(newest["status"], "started");
}
