//! The runner judges a binary that does as it is told: what must pass passes, and what must not does not.

#![expect(clippy::unwrap_used, reason = "a test that can not go on must fail")]

use std::fs;
use std::path::{Path, PathBuf};

use noetl_conformance::manifest;
use noetl_conformance::run::{Session, Settings, Store, Verdict};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a manifest of one entry and one playbook.
struct Set {
    folder: TempDir,
}

impl Set {
    /// Makes an entry of these lines, on a playbook that does what `playbook` says.
    fn new(entry: &str, playbook: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("playbooks")).unwrap();
        let mut playbook = playbook.clone();
        playbook["path"] = json!("tests/it");
        fs::write(folder.path().join("playbooks/it.yaml"), playbook.to_string()).unwrap();
        let entry = entry.lines().map(|line| format!("  {}\n", line.trim_end())).collect::<String>();
        let manifest = format!("entries:\n- id: it\n  file: it.yaml\n  path: tests/it\n{entry}");
        fs::write(folder.path().join("manifest.yaml"), manifest).unwrap();
        Set { folder }
    }

    async fn verdict(&self) -> Verdict {
        let entries = manifest::load(self.folder.path()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let settings = Settings {
            folder: self.folder.path().to_owned(),
            binary: fake(),
            store: Store::Embedded,
            scratch: scratch.path(),
        };
        let mut session = Session::start(&settings, &entries).await.unwrap();
        let verdict = session.run(&entries[0]).await;
        session.end().await.unwrap();
        verdict
    }

    async fn failure(&self) -> String {
        match self.verdict().await {
            Verdict::Failed(reason) => reason,
            other => panic!("must fail, is {other:?}"),
        }
    }
}

fn fake() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_noetl.py")
}

#[tokio::test]
async fn an_entry_passes_when_status_and_all_checks_hold() {
    noetl_conformance::install_tls_provider();
    let entry = "
requires: [http]
setup: [{http: POST /api/v1/concurrency/reset}]
rewrite: [{from: 'https://example.com', to: '${HTTP_URL}'}]
payload: {url: '${HTTP_URL}/x', n: 3, text: 'It''s {{ not }} a template'}
expected: FAILED
checks:
  - {step: a/b c, path: rows.1.n, equals: 2.0}
  - {step: a/b c, path: nothing, exists: false}
  - {step: never, exists: false}
  - {step: payload, path: text, equals: 'It''s {{ not }} a template'}
  - {step: payload, path: url, contains: 'http://127.0.0.1:'}
  - {step: rewritten, contains: '127.0.0.1'}
  - {http: 'GET /get?id=${EXECUTION_ID}', path: args.id, equals: '1000'}
  - {event: {event_type: step.enter, node_name: a}, count: 3}
  - {event: {event_type: step.enter, node_name: never}, count: 0}
";
    let playbook = json!({
        "status": "FAILED",
        "steps": {"a/b c": {"rows": [{"n": 1}, {"n": 2}]}, "rewritten": "https://example.com/x"},
        "events": [
            ["step.enter", "a"], ["step.exit", "a"], ["step.enter", "a"], ["step.enter", "b"], ["step.enter", "a"],
        ],
    });
    assert_eq!(Set::new(entry, &playbook).verdict().await, Verdict::Passed);
}

#[tokio::test]
async fn a_wrong_status_a_wrong_value_and_a_wrong_count_fail() {
    noetl_conformance::install_tls_provider();
    let failed = json!({"status": "FAILED", "error": "boom"});
    let reason = Set::new("expected: COMPLETED", &failed).failure().await;
    assert_eq!(reason, "status must be COMPLETED, is FAILED: boom (execution 1000)");

    let entry = "expected: COMPLETED\nchecks:\n  - {step: a, path: n, equals: 1}\n  - {step: a, exists: true}\n";
    let other = json!({"status": "COMPLETED", "steps": {"a": {"n": true}}});
    assert_eq!(Set::new(entry, &other).failure().await, "step `a` at n must equal 1, is true (execution 1000)");
    let nowhere = json!({"status": "COMPLETED", "steps": {"a": {"m": 1}}});
    let reason = Set::new(entry, &nowhere).failure().await;
    assert_eq!(reason, "step `a` at n must equal 1, is not there in {\"m\":1} (execution 1000)");
    let never = json!({"status": "COMPLETED"});
    let reason = Set::new(entry, &never).failure().await;
    assert_eq!(reason, "step `a` at n must equal 1, is not there; 1 more of 2 checks");

    let entry = "expected: COMPLETED\nchecks: [{event: {event_type: step.enter, node_name: a}, count: 1}]";
    let twice = json!({"status": "COMPLETED", "events": [["step.enter", "a"], ["x", "x"], ["step.enter", "a"]]});
    let reason = Set::new(entry, &twice).failure().await;
    assert_eq!(reason, "events step.enter of `a` must be 1, are 2 (execution 1000)");
}

#[tokio::test]
async fn an_execution_that_does_not_end_in_time_fails_and_is_cancelled() {
    noetl_conformance::install_tls_provider();
    let entry = "timeout_seconds: 0\nexpected: COMPLETED";
    let reason = Set::new(entry, &json!({"status": "RUNNING"})).failure().await;
    assert_eq!(reason, "status is still RUNNING after 0 s (execution 1000)");
}

#[tokio::test]
async fn rejected_means_that_registration_is_refused() {
    noetl_conformance::install_tls_provider();
    let entry = "expected: REJECTED";
    assert_eq!(Set::new(entry, &json!({"refuse": true})).verdict().await, Verdict::Passed);
    let accepted = Set::new(entry, &json!({"status": "FAILED"})).failure().await;
    assert_eq!(accepted, "registration must be refused, is 200 OK");
    let refused = Set::new("expected: FAILED", &json!({"refuse": true})).failure().await;
    assert_eq!(refused, "register: 422 Unprocessable Entity a step has no tool");
}

#[tokio::test]
async fn an_entry_gets_its_database_and_its_credentials() {
    noetl_conformance::install_tls_provider();
    let entry = "
requires: [postgres]
credentials: [pg_local, pg_noetl_k8s]
setup: [{sql: 'CREATE TABLE t (n int); INSERT INTO t VALUES (5)'}]
payload: {port: '${PG_PORT}'}
expected: COMPLETED
checks:
  - {sql: SELECT n FROM t, equals: 5}
  - {sql: 'SELECT ''${PG_DATABASE}'' = current_database()', equals: true}
  - {sql: SELECT kind FROM noetl.catalog, equals: playbook}
  - {step: credentials, path: pg_local.type, equals: postgres}
  - {step: credentials, path: pg_local.data, contains: {db_port: '${PG_PORT}', db_name: '${PG_DATABASE}'}}
  - {step: payload, path: port, equals: '${PG_PORT}'}
";
    let set = Set::new(entry, &json!({"status": "COMPLETED"}));
    match noetl_testkit::Cluster::installed() {
        Some(_) => assert_eq!(set.verdict().await, Verdict::Passed),
        None => assert_eq!(set.verdict().await, Verdict::Skipped("PostgreSQL is not installed".to_owned())),
    }
}

#[tokio::test]
async fn an_entry_whose_python_modules_are_missing_is_skipped() {
    noetl_conformance::install_tls_provider();
    let entry = "python_modules: [json, no_such_module_anywhere]\nexpected: COMPLETED";
    let verdict = Set::new(entry, &json!({"status": "FAILED"})).verdict().await;
    assert_eq!(verdict, Verdict::Skipped("python3 has no no_such_module_anywhere".to_owned()));
}
