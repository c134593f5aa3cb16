//! `auth` of a tool that says itself where its token is issued.

use serde_json::json;

use crate::support::{Canned, Home};

const PLAYBOOK: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: granted, path: test/granted}
workload: {at: none, issuer: none}
workflow:
  - step: start
    tool:
      kind: http
      url: "{{ at }}/api"
      auth: {type: oauth2, token_url: "{{ issuer }}/token", client_id: shop, client_secret: s3cret-of-the-shop, scope: read}
    next: {arcs: [{step: again}]}
  - step: again
    tool:
      - name: first
        kind: http
        url: "{{ at }}/api"
        auth: {api: {type: oauth2, token_url: "{{ issuer }}/token", client_id: shop, client_secret: s3cret-of-the-shop, scope: read}}
      - name: echo
        kind: python
        code: "result = {'said': first['data']['echo']}"
        input: {first: "{{ first }}"}
"#;

#[test]
fn a_token_is_fetched_once_kept_and_hidden() {
    let issued = json!({"access_token": "issued-9c1f77", "expires_in": 3600, "token_type": "Bearer"}).to_string();
    // A server that tells what it must not.
    let echo = json!({"echo": "you are issued-9c1f77 by s3cret-of-the-shop"}).to_string();
    let web = Canned::new(&[("POST /token", 200, &issued), ("GET /api", 200, &echo)]);
    let home = Home::new();
    home.file("granted.yaml", PLAYBOOK);
    let given = ["--set", &format!("at={}", web.url), "--set", &format!("issuer={}", web.url)];
    let ran = home.run(&[&["run", "granted.yaml", "--json"][..], &given].concat()).done().json();
    let id = ran["execution_id"].as_str().unwrap();
    let seen = web.seen();
    let asked: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(asked, ["POST /token", "GET /api", "GET /api"]);
    let grant = "grant_type=client_credentials&client_id=shop&client_secret=s3cret-of-the-shop&scope=read";
    assert_eq!(seen[0].body, grant);
    for seen in &seen[1..] {
        assert_eq!(seen.headers["authorization"], "Bearer issued-9c1f77");
    }
    // The token is in no result. The playbook shows the client's secret to everybody; its results do not.
    let all = format!("SELECT result FROM noetl.event WHERE execution_id = {id}");
    let events = home.run(&["query", &all, "--format", "json"]).done().stdout;
    assert!(events.contains("you are"), "{events}");
    for secret in ["issued-9c1f77", "s3cret-of-the-shop"] {
        assert!(!events.contains(secret), "{secret}: {events}");
    }
}

#[test]
fn an_issuer_that_refuses_fails_the_step_and_says_so() {
    let web = Canned::new(&[("POST /token", 401, r#"{"error": "invalid_client"}"#)]);
    let home = Home::new();
    home.file("granted.yaml", PLAYBOOK);
    let given = ["--set", &format!("at={}", web.url), "--set", &format!("issuer={}", web.url)];
    let said = home.run(&[&["run", "granted.yaml", "--json"][..], &given].concat());
    assert_eq!(said.exit, 1, "{}", said.stderr);
    assert!(said.stderr.contains("401"), "{}", said.stderr);
    assert!(!said.stderr.contains("s3cret-of-the-shop"), "{}", said.stderr);
    assert!(web.seen().iter().all(|seen| seen.line == "POST /token"));
}
