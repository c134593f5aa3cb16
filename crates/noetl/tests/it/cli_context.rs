//! Named servers: the file, and who is asked because of it.

use crate::support::{Canned, Home};

const STATUS: &str = "GET /api/executions/1/status";

#[test]
fn a_context_is_added_used_changed_and_deleted() {
    let home = Home::new();
    let add = home.run(&["context", "add", "local", "--server-url", "http://localhost:8082"]).done();
    assert_eq!(add.stdout, "Context 'local' added/updated.\nContext 'local' is now the current context.\n");
    let add = home.run(&["context", "add", "prod", "--server-url", "http://prod:1", "--runtime", "distributed"]).done();
    assert_eq!(add.stdout, "Context 'prod' added/updated.\n");
    let used = home.run(&["context", "use", "prod"]).done();
    assert_eq!(used.stdout, "Switched to context 'prod' (runtime: distributed).\n");
    let set = home.run(&["context", "set-runtime", "local"]).done();
    assert_eq!(set.stdout, "Runtime for context 'prod' set to 'local'.\n");
    let list = home.run(&["context", "list"]).done();
    assert_eq!(
        list.stdout,
        "  NAME   SERVER URL             RUNTIME  TOKEN\n  local  http://localhost:8082  auto     -\n* prod   http://prod:1          local    -\n"
    );
    let current = home.run(&["context", "current"]).done();
    assert!(current.stdout.starts_with("prod\n"), "{}", current.stdout);
    let deleted = home.run(&["context", "delete", "prod"]).done();
    assert_eq!(deleted.stdout, "Context 'prod' deleted.\n");
    let unknown = home.run(&["context", "use", "prod"]);
    assert_eq!(unknown.exit, 1);
    assert!(unknown.stderr.starts_with("Error: Context 'prod' not found.\n"), "{}", unknown.stderr);
    assert_eq!(home.run(&["context", "add", "x"]).exit, 2);
    assert_eq!(home.run(&["context", "set-runtime", "moon"]).exit, 2);
}

#[test]
fn the_current_context_is_asked_when_nobody_is_named() {
    let home = Home::new();
    let (current, named) = (Canned::new(&[(STATUS, 200, "{}")]), Canned::new(&[(STATUS, 200, "{}")]));
    home.run(&["context", "add", "a", "--server-url", &current.url]).done();
    home.run(&["context", "add", "b", "--server-url", &named.url]).done();
    home.run(&["status", "1"]).done();
    assert_eq!((current.seen().len(), named.seen().len()), (1, 0));
    home.run(&["status", "1", "--context", "b"]).done();
    home.run(&["--context", "b", "status", "1"]).done();
    assert_eq!((current.seen().len(), named.seen().len()), (1, 2));
    let unknown = home.run(&["status", "1", "--context", "c"]);
    assert_eq!(unknown.exit, 2);
    assert!(unknown.stderr.contains("known are: a, b"), "{}", unknown.stderr);
}

#[test]
fn a_token_of_a_context_is_kept_for_it_alone() {
    let home = Home::new();
    let server = Canned::new(&[(STATUS, 200, "{}")]);
    home.run(&["context", "add", "a", "--server-url", &server.url, "--session-token", "secret-secret-secret"]).done();
    home.run(&["status", "1"]).done();
    home.run(&["status", "1", "--server-url", &server.url]).done();
    let seen = server.seen();
    assert_eq!(seen[0].headers["authorization"], "Bearer secret-secret-secret");
    assert!(!seen[1].headers.contains_key("authorization"));
}

#[test]
fn a_broken_file_is_said_and_left_alone() {
    let home = Home::new();
    let file = home.file(".noetl/config.yaml", "contexts: {\n");
    let said = home.run(&["context", "list"]);
    assert_eq!(said.exit, 2);
    assert!(said.stderr.contains("config.yaml"), "{}", said.stderr);
    home.run(&["context", "add", "a", "--server-url", "http://x"]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "contexts: {\n");
}
