//! What commands send, print and exit with, against answers that never change.

use crate::support::{Canned, Home, Said, deserted};

const ID: &str = "543857931469455628";
const CANCEL: &str = "POST /api/executions/543857931469455628/cancel";
const TREE: &str = "GET /api/executions/543857931469455628/tree";
const STATUS: &str = "GET /api/executions/543857931469455628/status";

fn on<'a>(server: &'a Canned, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--server-url", server.url.as_str()];
    all.extend(arguments);
    all
}

#[test]
fn a_cancel_prints_the_founding_documents_block_and_nothing_else() {
    let server = Canned::new(&[(
        CANCEL,
        200,
        r#"{"status":"cancelled","execution_id":"543857931469455628","cancelled_executions":["543857931469455628"],"message":"Cancelled 1 execution(s)","quiesced":true,"complete":true}"#,
    )]);
    let said = Home::new().run(&on(&server, &["cancel", ID, "--reason", "Detected infinite loop"])).done();
    assert_eq!(
        said.stdout,
        "
============================================================
Execution: 543857931469455628
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
Reason:    Detected infinite loop
============================================================

"
    );
    assert_eq!(said.stderr, "");
}

#[test]
fn a_cascade_lists_what_it_cancelled() {
    let server = Canned::new(&[(
        CANCEL,
        200,
        r#"{"status":"cancelled","execution_id":"543857931469455628","cancelled_executions":["543857931469455628","543857932012345678","543857933098765432"],"message":"Cancelled 3 execution(s)"}"#,
    )]);
    let said = Home::new().run(&on(&server, &["cancel", ID, "--cascade"])).done();
    assert_eq!(
        said.stdout,
        "
============================================================
Execution: 543857931469455628
Status:    CANCELLED
Cancelled: 3 execution(s)
Message:   Cancelled 3 execution(s)

Cancelled executions:
  - 543857931469455628
  - 543857932012345678
  - 543857933098765432
============================================================

"
    );
}

#[test]
fn the_body_of_a_cancel_holds_what_was_asked_and_no_more() {
    let server = Canned::new(&[(CANCEL, 200, r#"{"status":"cancelled","quiesced":true}"#)]);
    let home = Home::new();
    home.run(&on(&server, &["cancel", ID])).done();
    home.run(&on(&server, &["cancel", ID, "--cascade", "-r", "Detected infinite loop"])).done();
    home.run(&on(&server, &["cancel", ID, "--interrupt", "--grace", "1.5s", "--wait=2m", "--dry-run"])).done();
    // A dry run also looks at the family.
    let (seen, looks): (Vec<_>, Vec<_>) = server.seen().into_iter().partition(|request| request.line == CANCEL);
    assert_eq!(looks.iter().map(|request| request.line.as_str()).collect::<Vec<_>>(), [TREE]);
    assert_eq!(
        seen.iter().map(|request| request.body.as_str()).collect::<Vec<_>>(),
        [
            r#"{"cascade":false}"#,
            r#"{"cascade":true,"reason":"Detected infinite loop"}"#,
            r#"{"cascade":false,"mode":"interrupt","grace_seconds":1.5,"wait_seconds":120.0,"dry_run":true}"#,
        ]
    );
    for request in &seen {
        assert_eq!(request.headers["x-noetl-client"], "cli");
        assert!(request.headers["x-noetl-requested-by"].to_str().unwrap().contains('@'));
        assert_eq!(request.headers["content-type"], "application/json");
    }
    let keys: std::collections::BTreeSet<_> = seen.iter().map(|request| &request.headers["idempotency-key"]).collect();
    assert_eq!(keys.len(), 3, "each request has its own key");
}

#[test]
fn json_is_one_line_with_sorted_keys_also_for_a_refusal() {
    let server = Canned::new(&[(
        CANCEL,
        409,
        r#"{"status":"error","execution_id":"543857931469455628","cancelled_executions":[],"message":"Execution 543857931469455628 is already COMPLETED"}"#,
    )]);
    let said = Home::new().run(&on(&server, &["cancel", ID, "--json"]));
    assert_eq!(said.exit, 1);
    assert_eq!(
        said.stdout,
        "{\"cancelled_executions\":[],\"execution_id\":\"543857931469455628\",\"message\":\"Execution 543857931469455628 is already COMPLETED\",\"status\":\"error\"}\n"
    );
    assert!(said.stderr.starts_with("Error: Execution 543857931469455628 is already COMPLETED\n"), "{}", said.stderr);
}

#[test]
fn every_refusal_of_a_cancel_has_its_exit() {
    for (status, exit) in [(400, 2), (401, 5), (403, 5), (404, 4), (409, 1), (500, 1), (503, 3)] {
        let server = Canned::new(&[(CANCEL, status, r#"{"status":"error","message":"because"}"#)]);
        let said = Home::new().run(&on(&server, &["cancel", ID]));
        assert_eq!((said.exit, said.stdout.as_str()), (exit, ""), "{status}");
        assert!(said.stderr.starts_with("Error: because\n"), "{status}: {}", said.stderr);
    }
    let said = Home::new().run(&["--server-url", &deserted(), "cancel", ID]);
    assert_eq!(said.exit, 3);
    assert!(said.stderr.contains("Connection refused"), "{}", said.stderr);
    let server = Canned::new(&[]);
    assert_eq!(Home::new().run(&on(&server, &["cancel", "not-an-id"])).exit, 2);
    assert!(server.seen().is_empty(), "a malformed id is not even asked about");
}

#[test]
fn an_ended_execution_may_be_ignored() {
    let server = Canned::new(&[(CANCEL, 409, r#"{"message":"Execution 543857931469455628 is already FAILED"}"#)]);
    let said = Home::new().run(&on(&server, &["cancel", ID, "--ignore-finished"])).done();
    assert_eq!((said.stdout.as_str(), said.stderr.trim()), ("", "Execution 543857931469455628 is already FAILED"));
}

#[test]
fn of_several_ids_all_are_tried_in_order_and_the_worst_exit_wins() {
    let server = Canned::new(&[
        ("POST /api/executions/1/cancel", 409, r#"{"message":"Execution 1 is already COMPLETED"}"#),
        ("POST /api/executions/2/cancel", 200, r#"{"status":"cancelled","cancelled_executions":["2"]}"#),
        ("POST /api/executions/3/cancel", 404, r#"{"message":"Execution 3 not found"}"#),
        ("POST /api/executions/4/cancel", 200, r#"{"status":"cancelled","cancelled_executions":["4"]}"#),
    ]);
    let said = Home::new().run(&on(&server, &["cancel", "1", "2", "3", "4", "-j"]));
    assert_eq!(said.exit, 4);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].contains("already COMPLETED") && lines[1].contains("\"2\"") && lines[3].contains("\"4\""));
}

#[test]
fn a_wait_that_runs_out_is_exit_6() {
    let server = Canned::new(&[(
        CANCEL,
        200,
        r#"{"status":"cancelled","cancelled_executions":["543857931469455628"],"quiesced":false,"mode":"finish","in_flight":[{"step":"load","tool":"python","worker":"w","execution_id":"543857931469455628"}]}"#,
    )]);
    let said = Home::new().run(&on(&server, &["cancel", ID, "--wait=1s"]));
    assert_eq!(said.exit, 6);
    assert!(said.stdout.contains("Status:    CANCELLED"), "the block is printed all the same");
    assert!(said.stderr.contains("step load (python) on w"), "{}", said.stderr);
}

#[test]
fn a_cancelled_execution_is_shown_as_cancelled() {
    let server = Canned::new(&[(
        STATUS,
        200,
        r#"{"execution_id":"543857931469455628","status":"CANCELLED","completed":true,"failed":false,"completed_steps":["start"],"duration_human":"3s"}"#,
    )]);
    let said = Home::new().run(&on(&server, &["status", ID])).done();
    assert_eq!(
        said.stdout,
        "
============================================================
Execution: 543857931469455628
Status:    CANCELLED
Steps:     1 completed
Duration:  3s

Completed steps:
  - start
============================================================

"
    );
    assert_eq!(said.stderr, "Use --json for full execution details\n");
}

#[test]
fn a_list_is_asked_for_with_the_filters_that_were_given() {
    let server = Canned::new(&[("GET /api/executions", 200, "[]")]);
    let home = Home::new();
    let said = home.run(&on(&server, &["ps"])).done();
    assert_eq!(said.stderr, "no executions\n");
    home.run(&on(&server, &["executions", "-s", "failed,cancelled", "--path", "a/*", "--parent", "7", "-n", "5"]))
        .done();
    home.run(&on(&server, &["ps", "--active", "--before", "9"])).done();
    let lines: Vec<String> = server.seen().into_iter().map(|request| request.line).collect();
    assert_eq!(
        lines,
        [
            "GET /api/executions?page_size=50&active_first=true",
            "GET /api/executions?page_size=5&active_first=true&status=failed%2Ccancelled&path=a%2F*&parent_execution_id=7",
            "GET /api/executions?page_size=50&before=9&status=running",
        ]
    );
}

#[test]
fn an_unknown_execution_is_exit_4() {
    let server = Canned::new(&[(STATUS, 404, r#"{"detail":"Execution not found"}"#)]);
    let said = Home::new().run(&on(&server, &["status", ID]));
    assert_eq!((said.exit, said.stdout.as_str()), (4, ""));
    assert!(said.stderr.starts_with("Error: Execution not found\n"));
}

#[test]
fn rows_become_a_box_and_a_failing_query_is_an_error() {
    let server = Canned::new(&[(
        "POST /api/postgres/execute",
        200,
        r#"{"status":"ok","result":[{"execution_id":"1","reason":null}],"error":null}"#,
    )]);
    let home = Home::new();
    let said = home.run(&on(&server, &["query", "SELECT 1"])).done();
    assert_eq!(
        said.stdout,
        "\
┌──────────────┬────────┐
│ execution_id │ reason │
├──────────────┼────────┤
│ 1            │ NULL   │
└──────────────┴────────┘
(1 rows)
"
    );
    assert_eq!(server.seen()[0].body, r#"{"query":"SELECT 1","schema":"noetl"}"#);
    let said = home.run(&on(&server, &["query", "SELECT 1", "-f", "json"])).done();
    assert_eq!(
        said.stdout,
        "{\n  \"error\": null,\n  \"result\": [\n    {\n      \"execution_id\": \"1\",\n      \"reason\": null\n    }\n  ],\n  \"status\": \"ok\"\n}\n"
    );
    let server = Canned::new(&[(
        "POST /api/postgres/execute",
        200,
        r#"{"status":"error","result":null,"error":"relation \"x\" does not exist"}"#,
    )]);
    let said = home.run(&on(&server, &["query", "SELECT * FROM x"]));
    assert_eq!((said.exit, said.stderr.as_str()), (2, "Error: relation \"x\" does not exist\n"));
}

#[test]
fn a_run_on_a_server_sends_the_published_body_and_prints_the_published_text() {
    let server = Canned::new(&[(
        "POST /api/execute",
        200,
        r#"{"status":"started","execution_id":"543857931469455628","commands_generated":1}"#,
    )]);
    let said = Home::new()
        .run(&on(
            &server,
            &["run", "catalog://demo/hello@3", "-r", "distributed", "--set", "a.b=1", "--payload", r#"{"c":2}"#],
        ))
        .done();
    assert_eq!(
        server.seen()[0].body,
        r#"{"path":"demo/hello","version":3,"workload":{"c":2,"a":{"b":1}},"resource_kind":"playbook"}"#
    );
    assert_eq!(
        said.stdout,
        format!(
            "\
Executing playbook on distributed server...
  Path: demo/hello
  Version: 3
  Server: {}

Execution started:
{{
  \"commands_generated\": 1,
  \"execution_id\": \"543857931469455628\",
  \"status\": \"started\"
}}

To check status:
  noetl status \"543857931469455628\"
",
            server.url
        )
    );
    assert_eq!(said.stderr, "runtime: distributed (--runtime flag)\n");
}

#[test]
fn an_unknown_playbook_is_exit_4_with_a_hint() {
    let server = Canned::new(&[("POST /api/execute", 404, r#"{"detail":"no playbook demo/none"}"#)]);
    let said = Home::new().run(&on(&server, &["run", "demo/none", "--json"]));
    assert_eq!(said.exit, 4);
    assert!(said.stderr.contains("no playbook demo/none") && said.stderr.contains("noetl register"), "{}", said.stderr);
}

#[test]
fn a_token_is_sent_both_ways_and_never_shown() {
    let server = Canned::new(&[(STATUS, 401, r#"{"message":"a token is needed"}"#)]);
    let home = Home::new();
    let file = home.file("token", "secret-secret-secret\n");
    let said = home.run(&on(&server, &["status", ID, "--token-file", file.to_str().unwrap()]));
    assert_eq!(said.exit, 5);
    assert!(!said.stderr.contains("secret"), "{}", said.stderr);
    let headers = &server.seen()[0].headers;
    assert_eq!(headers["authorization"], "Bearer secret-secret-secret");
    assert_eq!(headers["x-session-token"], "secret-secret-secret");
}

#[test]
fn a_server_that_is_none_is_told_apart() {
    let server = Canned::new(&[(STATUS, 200, "<html>hello</html>")]);
    let said = Home::new().run(&on(&server, &["status", ID]));
    assert_eq!(said.exit, 1);
    assert!(said.stderr.contains("is this a noetl server?"), "{}", said.stderr);
}

#[test]
fn a_wait_exits_as_the_execution_ended() {
    for (status, exit) in [("COMPLETED", 0), ("FAILED", 1), ("CANCELLED", 7)] {
        let body = format!(r#"{{"status":"{status}","completed":true,"quiesced":true}}"#);
        let server = Canned::new(&[(STATUS, 200, &body)]);
        let said = Home::new().run(&on(&server, &["wait", ID]));
        assert_eq!((said.exit, said.stdout), (exit, format!("{status}\n")));
        assert_eq!(Home::new().run(&on(&server, &["wait", ID, "--for", "quiesced"])).exit, 0);
    }
    let server = Canned::new(&[(STATUS, 200, r#"{"status":"RUNNING","completed":false}"#)]);
    assert_eq!(Home::new().run(&on(&server, &["wait", ID, "--timeout", "100ms"])).exit, 6);
}

#[test]
fn a_refused_playbook_shows_every_finding_and_is_exit_2() {
    let server = Canned::new(&[(
        "POST /api/catalog/register",
        422,
        r#"{"status":"error","message":"the playbook is invalid","diagnostics":[{"code":"NE0101","severity":"error","message":"`workflow` is missing","line":1,"column":1,"start":0,"end":4,"hint":"add it"}]}"#,
    )]);
    let home = Home::new();
    home.file("a.yaml", "kind: Playbook\n");
    let said = home.run(&on(&server, &["register", "playbook", "-f", "a.yaml"]));
    assert_eq!((said.exit, said.stdout.as_str()), (2, ""));
    assert!(said.stderr.contains("error[NE0101]: `workflow` is missing"), "{}", said.stderr);
    assert!(said.stderr.contains(" --> a.yaml:1:1") && said.stderr.contains("help: add it"), "{}", said.stderr);
}

#[test]
fn a_folder_is_registered_file_by_file() {
    let server = Canned::new(&[(
        "POST /api/catalog/register",
        200,
        r#"{"status":"success","path":"demo/a","version":1,"catalog_id":"7","kind":"playbook"}"#,
    )]);
    let home = Home::new();
    for name in ["d/a.yaml", "d/deep/b.yml"] {
        home.file(name, "apiVersion: noetl.io/v2\nkind: Playbook\n");
    }
    home.file("d/other.yaml", "kind: Credential\n");
    let said = home.run(&on(&server, &["register", "playbook", "-d", "d"])).done();
    assert!(said.stdout.starts_with("Found 2 file(s) in \"d\"\n"), "{}", said.stdout);
    assert!(said.stdout.ends_with("\n\nRegistration complete: 2 succeeded, 0 failed\n"), "{}", said.stdout);
    let body: serde_json::Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    assert_eq!(body["resource_type"], "Playbook");
    assert_eq!(body["content"], "YXBpVmVyc2lvbjogbm9ldGwuaW8vdjIKa2luZDogUGxheWJvb2sK");
}

#[test]
fn colours_are_for_terminals_only() {
    let server = Canned::new(&[(STATUS, 200, r#"{"status":"RUNNING"}"#)]);
    let home = Home::new();
    let said = home.run(&on(&server, &["status", ID])).done();
    assert!(!said.stdout.contains('\u{1b}'));
    let output = home.command(&on(&server, &["status", ID])).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(Said::of(output).stdout.contains("\u{1b}[33mRUNNING\u{1b}[0m"));
    let mut command = home.command(&on(&server, &["status", ID]));
    let output = command.env("NO_COLOR", "1").env("TERM", "xterm").output().unwrap();
    assert!(!Said::of(output).stdout.contains('\u{1b}'));
}
