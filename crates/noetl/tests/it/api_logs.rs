//! What tools printed, over the interface: taken from workers, read page by page, waited for.

use serde_json::{Value, json};

use crate::api_world::World;

const IDLE: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: idle, path: test/idle}
workflow: [{step: start, tool: {kind: shell, cmds: ['true']}}]
";

fn line(id: &str, serial: u64, step: &str, text: &str) -> Value {
    json!({
        "execution_id": id, "command_id": "7", "step": step, "task": step, "attempt": 1, "stream": "stdout",
        "at": 1_700_000_000_000_u64, "source": -5, "serial": serial, "line": text,
    })
}

fn texts(page: &Value) -> Vec<&str> {
    page["lines"].as_array().unwrap().iter().map(|line| line["line"].as_str().unwrap()).collect()
}

async fn running(world: &World) -> String {
    world.register(IDLE).await;
    world.start("test/idle").await
}

#[tokio::test]
async fn printed_lines_are_read_page_by_page() {
    let world = World::new();
    let id = running(&world).await;
    let lines = json!({"lines": [line(&id, 1, "start", "a"), line(&id, 2, "next", "b"), line(&id, 3, "start", "c")]});
    assert_eq!(world.post("/api/worker/log", lines.clone()).await.ok(), json!({"lines": 3}));
    // The answer was lost, so it is sent again.
    world.post("/api/worker/log", lines).await.ok();
    let path = format!("/api/executions/{id}/logs");
    let page = world.get(&path).await.ok();
    assert_eq!(texts(&page), ["a", "b", "c"]);
    assert_eq!(
        (&page["complete"], &page["has_more"], &page["status"]),
        (&json!(false), &json!(false), &json!("RUNNING"))
    );
    let first = &page["lines"][0];
    assert_eq!(
        (&first["step"], &first["task"], &first["stream"]),
        (&json!("start"), &json!("start"), &json!("stdout"))
    );
    assert_eq!((&first["at"], &first["command_id"]), (&json!("2023-11-14T22:13:20.000Z"), &json!("7")));
    let page = world.get(&format!("{path}?limit=2")).await.ok();
    assert_eq!((texts(&page), &page["has_more"]), (vec!["a", "b"], &json!(true)));
    let page = world.get(&format!("{path}?limit=2&after={}", page["last"])).await.ok();
    assert_eq!((texts(&page), &page["has_more"]), (vec!["c"], &json!(false)));
    assert_eq!(texts(&world.get(&format!("{path}?step=start")).await.ok()), ["a", "c"]);
    assert_eq!(texts(&world.get(&format!("{path}?newest=true&limit=1")).await.ok()), ["c"]);
}

#[tokio::test]
async fn a_wait_ends_with_the_first_line_and_with_the_execution() {
    let world = World::new();
    let id = running(&world).await;
    let path = format!("/api/executions/{id}/logs?wait_seconds=20");
    let (page, _) = tokio::join!(world.get(&path), async {
        world.post("/api/worker/log", json!({"lines": [line(&id, 1, "start", "news")]})).await.ok()
    });
    let page = page.ok();
    assert_eq!(texts(&page), ["news"]);
    let after = format!("{path}&after={}", page["last"]);
    let (page, _) = tokio::join!(world.get(&after), async {
        world.post(&format!("/api/executions/{id}/cancel"), json!({})).await.ok()
    });
    let page = page.ok();
    assert_eq!((&page["complete"], &page["status"], texts(&page)), (&json!(true), &json!("CANCELLED"), vec![]));
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let world = World::new();
    let id = running(&world).await;
    world.get("/api/executions/1/logs").await.refused(404);
    for query in ["limit=0", "limit=1001", "after=-1", "after=18446744073709551615", "wait_seconds=21", "stap=start"] {
        world.get(&format!("/api/executions/{id}/logs?{query}")).await.refused(400);
    }
    let many: Vec<Value> = (0..1_001).map(|serial| line(&id, serial, "start", "")).collect();
    for lines in [json!(many), json!([line(&id, 1, "start", &"x".repeat(17_000))]), json!([{"line": "x"}])] {
        world.post("/api/worker/log", json!({"lines": lines})).await.refused(400);
    }
    // Of an execution that is not here (any more): taken, and dropped.
    assert_eq!(
        world.post("/api/worker/log", json!({"lines": [line("1", 1, "start", "x")]})).await.ok(),
        json!({"lines": 1})
    );
    assert_eq!(world.get(&format!("/api/executions/{id}/logs")).await.ok()["lines"], json!([]));
}
