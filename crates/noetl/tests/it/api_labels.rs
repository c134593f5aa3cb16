//! Labels: given at the start, kept with the execution, asked for in lists and selections.

use serde_json::{Value, json};

use crate::api_world::{LONG, World};

const LABELLED: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: labelled
  path: demo/labelled
  labels: {team: data, env: prod, shard: 7}
executor: {spec: {on_cancel: tidy}}
workflow:
  - step: start
    tool: {kind: playbook, path: demo/long}
    next: {arcs: [{step: work}]}
  - {step: work, tool: {kind: python, code: x}}
  - {step: tidy, tool: {kind: python, code: x}}
";

async fn start(world: &World, path: &str, labels: Value) -> String {
    let started = world.post("/api/execute", json!({"path": path, "labels": labels})).await.ok();
    started["execution_id"].as_str().unwrap().to_owned()
}

async fn labels(world: &World, id: &str) -> Value {
    let detail = world.get(&format!("/api/executions/{id}")).await.ok()["labels"].clone();
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok()["labels"].clone();
    assert_eq!(detail, status);
    detail
}

async fn listed(world: &World, query: &str) -> Vec<String> {
    let list = world.get(&format!("/api/executions?{query}")).await.ok();
    list.as_array().unwrap().iter().map(|row| row["execution_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn labels_of_the_request_lie_over_those_of_the_playbook_and_stay_with_the_execution() {
    let world = World::new();
    world.register(LONG).await;
    world.register(LABELLED).await;
    let plain = start(&world, "demo/labelled", json!({})).await;
    assert_eq!(labels(&world, &plain).await, json!({"team": "data", "env": "prod", "shard": "7"}));
    let own = start(&world, "demo/labelled", json!({"env": "test", "run": 12, "dry": false})).await;
    let expected = json!({"team": "data", "env": "test", "shard": "7", "run": "12", "dry": "false"});
    assert_eq!(labels(&world, &own).await, expected);
    // Children have their own playbook's labels, not their parent's.
    let children = listed(&world, &format!("parent_execution_id={own}")).await;
    assert_eq!((children.len(), labels(&world, &children[0]).await), (1, json!({})));
    let born = world.get(&format!("/api/executions/{own}/events?event_type=playbook.initialized")).await.ok();
    assert_eq!(born["events"][0]["context"]["labels"], expected, "people's SQL finds them in the log");

    assert_eq!(listed(&world, "label=env%3Dtest").await, std::slice::from_ref(&own));
    assert_eq!(listed(&world, "label=team%3Ddata,env%3Dprod").await, [plain]);
    assert!(listed(&world, "label=team%3Ddat").await.is_empty());

    // What runs again is still the same thing.
    world.post(&format!("/api/executions/{own}/cancel"), json!({"cascade": true})).await.ok();
    world.quiesced(&own).await;
    let again = world.post(&format!("/api/executions/{own}/rerun"), json!({"labels": {"run": "13"}})).await.ok();
    let again = again["execution_id"].as_str().unwrap();
    let kept = json!({"team": "data", "env": "test", "shard": "7", "run": "13", "dry": "false"});
    assert_eq!(labels(&world, again).await, kept);
    // A cleanup has none: a cancel by label that is sent again does not stop what tidies up.
    let status = world.get(&format!("/api/executions/{own}/status")).await.ok();
    let cleanup = status["cancellation"]["cleanup"].as_str().unwrap();
    assert_eq!(labels(&world, cleanup).await, json!({}));
}

#[tokio::test]
async fn a_selection_by_label_cancels_what_has_it_and_nothing_else() {
    let world = World::new();
    world.register(LONG).await;
    let mut ids = Vec::new();
    for labels in [json!({"team": "data", "n": "1"}), json!({"team": "data", "n": "2"}), json!({"team": "web"})] {
        ids.push(start(&world, "demo/long", labels).await);
    }
    let select = async |filter: Value, dry_run: bool| {
        world.post("/api/executions/cancel", json!({"filter": filter, "dry_run": dry_run})).await.ok()
    };
    assert_eq!(select(json!({"label": "team=data"}), true).await["would_cancel"], json!([ids[1], ids[0]]));
    assert_eq!(select(json!({"label": "team=data,n=2"}), false).await["cancelled_executions"], json!([ids[1]]));
    let job = world.get("/api/jobs").await.ok()["jobs"][0].clone();
    assert_eq!(job["selection"]["labels"], json!({"team": "data", "n": "2"}));
    let healthy = json!({"older_than_minutes": 1, "include_healthy": true, "label": "team=data"});
    let cleaned = world.post("/api/executions/cleanup", healthy).await.ok();
    assert_eq!(cleaned["cancelled_count"], 0, "both conditions hold together: it is too young");
    for (id, status) in ids.iter().zip(["RUNNING", "CANCELLED", "RUNNING"]) {
        assert_eq!(world.get(&format!("/api/executions/{id}/status")).await.ok()["status"], status);
    }
}

#[tokio::test]
async fn what_is_no_label_is_refused_by_name() {
    let world = World::new();
    world.register(LONG).await;
    world.register(LABELLED).await;
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("n{n}"), json!("v"))).collect();
    for (labels, field) in [
        (json!({"a b": "v"}), "labels"),
        (json!({"team": "a,b"}), "labels.team"),
        (json!({"team": "v".repeat(257)}), "labels.team"),
        (json!({"team": ["a"]}), "labels.team"),
        (Value::Object(many.clone()), "labels"),
    ] {
        let refused = world.post("/api/execute", json!({"path": "demo/long", "labels": labels})).await.refused(400);
        assert_eq!(refused["field"], field, "{refused}");
    }
    // Each within its bound, both together not.
    let full: serde_json::Map<String, Value> = many.into_iter().take(64).collect();
    let refused = world.post("/api/execute", json!({"path": "demo/labelled", "labels": full})).await.refused(422);
    assert_eq!(refused["code"], "too_many_labels");
    assert!(refused["message"].as_str().unwrap().contains("67 labels are more than 64 (limits.labels)"), "{refused}");
    for query in ["label=team", "label=", "label=a%20b%3D1"] {
        assert_eq!(world.get(&format!("/api/executions?{query}")).await.refused(400)["field"], "label");
    }
    let filter = json!({"filter": {"label": "team"}});
    assert_eq!(world.post("/api/executions/cancel", filter).await.refused(400)["field"], "filter.label");
    let wrong = LABELLED.replace("shard: 7", "shard: [7]");
    // Those of a playbook are left out, and it is told.
    let kept = world.post("/api/catalog/register", json!({"content": wrong})).await.ok();
    assert!(kept["warnings"][0]["message"].as_str().unwrap().contains("`shard` is left out"), "{kept}");
    let id = start(&world, "demo/labelled", json!({})).await;
    assert_eq!(labels(&world, &id).await, json!({"team": "data", "env": "prod"}));
}
