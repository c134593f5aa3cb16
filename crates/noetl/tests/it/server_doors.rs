//! The doors around the interface.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Version};
use noetl::api::error::ApiError;
use noetl::server::doors::{DoorOptions, Doors, Tokens};
use noetl_store::StoreError;
use serde_json::json;
use tower::ServiceExt;

use crate::api_world::{Answer, LONG, World};

const ALICE: &str = "alice-0123456789abcdef";
const NOBODY: &str = "nobody-0123456789abcdef";

fn guarded(world: &World, host: &str, options: DoorOptions) -> Router {
    Doors::new(host, options).unwrap().guard(world.router.clone())
}

fn with_tokens() -> DoorOptions {
    let tokens = Tokens::parse(&format!("alice:{ALICE}\n{NOBODY}\n"), "test").unwrap();
    DoorOptions { tokens, ..DoorOptions::default() }
}

async fn ask(router: &Router, method: Method, path: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()).await
}

async fn get(router: &Router, headers: &[(&str, &str)]) -> Answer {
    ask(router, Method::GET, "/api/executions", headers, "").await
}

#[tokio::test]
async fn a_foreign_host_is_refused_because_its_page_may_have_rebound_its_name() {
    let world = World::new();
    let router = guarded(&world, "localhost", DoorOptions::default());
    for host in ["localhost", "LOCALHOST:8082", "127.0.0.1:8082", "[::1]:8082", "127.0.0.1"] {
        get(&router, &[("host", host)]).await.ok();
    }
    for host in ["evil.example", "evil.example:8082", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
        let refused = get(&router, &[("host", host)]).await.refused(403);
        assert_eq!(refused["code"], "foreign_host", "{host}");
    }
    get(&router, &[]).await.refused(400);
    let mut old = Request::get("/health").body(Body::empty()).unwrap();
    *old.version_mut() = Version::HTTP_10;
    Answer::of(router.oneshot(old).await.unwrap()).await.ok();
    let named = DoorOptions { allowed_hosts: vec!["noetl.internal".into()], ..DoorOptions::default() };
    get(&guarded(&world, "localhost", named), &[("host", "NOETL.internal:80")]).await.ok();
}

#[tokio::test]
async fn a_page_from_elsewhere_is_refused() {
    let world = World::new();
    let router = guarded(&world, "localhost", DoorOptions::default());
    let host = ("host", "localhost:8082");
    get(&router, &[host, ("origin", "http://localhost:8082")]).await.ok();
    for origin in ["https://evil.example", "http://localhost:9999", "http://localhost", "null", ""] {
        let refused = ask(&router, Method::POST, "/api/execute", &[host, ("origin", origin)], "{}").await.refused(403);
        assert_eq!(refused["code"], "foreign_origin", "{origin}");
    }
    let answer = get(&router, &[host]).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"), "no page elsewhere is invited");
}

#[tokio::test]
async fn a_host_is_said_once_and_the_target_may_not_say_another() {
    let world = World::new();
    let router = guarded(&world, "localhost", DoorOptions::default());
    let twice = [("host", "localhost"), ("host", "evil.example")];
    get(&router, &twice).await.refused(400);
    let target = "http://evil.example/api/executions";
    let refused = ask(&router, Method::GET, target, &[("host", "localhost")], "").await.refused(403);
    assert_eq!(refused["code"], "foreign_host");
    let target = "http://localhost:8082/api/executions";
    ask(&router, Method::GET, target, &[("host", "localhost:8082")], "").await.ok();
}

#[tokio::test]
async fn a_page_elsewhere_may_link_here_and_fetch_nothing() {
    let world = World::new();
    let router = guarded(&world, "localhost", DoorOptions::default());
    let host = ("host", "localhost");
    for site in ["cross-site", "same-site"] {
        let picture = [host, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")];
        assert_eq!(get(&router, &picture).await.refused(403)["code"], "foreign_origin");
        get(&router, &[host, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")]).await.ok();
    }
    for site in ["same-origin", "none"] {
        get(&router, &[host, ("sec-fetch-site", site), ("sec-fetch-mode", "cors")]).await.ok();
    }
}

#[tokio::test]
async fn the_network_hears_that_the_store_fails_and_not_where_it_is() {
    async fn broken() -> ApiError {
        StoreError::Closed("/home/ann/.noetl/data/noetl.db: permission denied".into()).into()
    }
    let router = Router::new().route("/broken", axum::routing::get(broken));
    let ask_broken = async |router: &Router| ask(router, Method::GET, "/broken", &[("host", "localhost")], "").await;
    let at_home = ask_broken(&router).await.refused(503);
    assert!(at_home["message"].as_str().unwrap().contains("/home/ann"), "whoever may open the directory is told");
    let network = Doors::new("localhost", DoorOptions::default()).unwrap().guard(router);
    let away = ask_broken(&network).await.refused(503);
    assert_eq!(away["code"], at_home["code"]);
    assert!(!away.to_string().contains("ann"), "{away}");
}

#[tokio::test]
async fn an_invited_page_may_come_and_no_other() {
    let world = World::new();
    let invited = DoorOptions { cors_origins: vec!["https://gui.example".into()], ..with_tokens() };
    let router = guarded(&world, "localhost", invited);
    let page = [("host", "localhost"), ("origin", "https://gui.example")];
    let preflight = [page[0], page[1], ("access-control-request-method", "POST")];
    // A preflight carries no token.
    let answer = ask(&router, Method::OPTIONS, "/api/execute", &preflight, "").await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://gui.example");
    let bearer = format!("Bearer {ALICE}");
    let answer = get(&router, &[page[0], page[1], ("authorization", &bearer)]).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://gui.example");
    answer.ok();
    get(&router, &[page[0], ("origin", "https://other.example"), ("authorization", &bearer)]).await.refused(403);
    for origin in ["*", "gui.example", "https://gui.example/path", "https://*.example"] {
        let options = DoorOptions { cors_origins: vec![origin.into()], ..DoorOptions::default() };
        assert!(Doors::new("localhost", options).is_err(), "{origin}");
    }
}

#[tokio::test]
async fn with_tokens_only_their_bearers_come_in() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let router = guarded(&world, "0.0.0.0", with_tokens());
    let host = ("host", "192.168.0.7:8082");
    let refused = get(&router, &[host]).await;
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(refused.refused(401)["code"], "unauthorized");
    // A cancel that is refused has one shape, wherever that is.
    let refused = ask(&router, Method::POST, "/api/executions/17/cancel", &[host], "").await.refused(401);
    assert_eq!((&refused["execution_id"], &refused["cancelled_executions"]), (&json!("17"), &json!([])));
    let bearer = format!("Bearer {ALICE}");
    for wrong in ["Bearer wrong", "Bearer ", "Basic YTpi", ALICE, "bearer", &bearer[..bearer.len() - 1]] {
        get(&router, &[host, ("authorization", wrong)]).await.refused(401);
    }
    get(&router, &[host, ("authorization", &bearer)]).await.ok();
    get(&router, &[host, ("authorization", &bearer.replace("Bearer", "bearer"))]).await.ok();
    get(&router, &[host, ("x-session-token", NOBODY)]).await.ok();
    ask(&router, Method::GET, "/health", &[host], "").await.ok();
    ask(&router, Method::GET, "/metrics", &[host], "").await.refused(401);
    let cancel = format!("/api/executions/{id}/cancel");
    let client = ("x-noetl-client", "cli");
    ask(&router, Method::POST, &cancel, &[host, client, ("authorization", &bearer)], "").await.ok();
    let status = world.get(&format!("/api/executions/{id}/status")).await.ok();
    assert_eq!(status["cancellation"]["cancelled_by"], json!("alice"), "the token's name, whatever the client says");
}
