//! Commands on a real server.

use serde_json::Value;

use crate::playbooks::{FAMILY, HELLO, NOOP, SLEEP};
use crate::support::{Home, Server, eventually};

fn start(home: &Home, playbook: &str) -> String {
    let started = home.run(&["run", playbook, "-r", "distributed", "--json"]).done().json();
    started["execution_id"].as_str().unwrap().to_owned()
}

/// Waits until a worker holds a command of it.
fn in_flight(home: &Home, id: &str) {
    eventually("a command is in flight", || {
        (home.run(&["status", id, "--json"]).json()["in_flight"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn a_cancel_prints_the_block_and_the_status_knows_it() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("sleep.yaml", SLEEP);
    home.run(&["register", "sleep.yaml"]).done();
    let id = start(&home, "test/sleep");
    in_flight(&home, &id);
    let said = home.run(&["cancel", &id, "--reason", "Detected infinite loop"]).done();
    assert_eq!(
        said.stdout,
        format!(
            "
============================================================
Execution: {id}
Status:    CANCELLED
Cancelled: 1 execution(s)
Message:   Cancelled 1 execution(s)
Reason:    Detected infinite loop
============================================================

"
        )
    );
    assert!(said.stderr.contains("1 command(s) running to its end:"), "{}", said.stderr);
    assert!(home.run(&["status", &id]).done().stdout.contains("Status:    CANCELLED\n"));
    let again = home.run(&["cancel", &id]);
    assert_eq!((again.exit, again.stdout.as_str()), (1, ""));
    assert!(again.stderr.contains(&format!("Execution {id} is already CANCELLED")), "{}", again.stderr);
    // What still runs is stopped by asking harder.
    home.run(&["cancel", &id, "--interrupt", "--grace", "0s", "--wait"]).done();
    assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
}

#[test]
fn a_family_of_111_is_cancelled_while_it_runs() {
    let home = Home::new();
    let _server = Server::start(&home, &["--worker-slots", "4"]);
    for (name, text) in FAMILY {
        home.file(name, text);
        home.run(&["register", "playbook", "--file", name]).done();
    }
    let root = start(&home, "test/family");
    eventually("all of them are there", || {
        let tree = home.run(&["tree", &root, "--json"]).json();
        (tree["executions"].as_array()?.len() == 111).then_some(())
    });
    let dry = home.run(&["cancel", &root, "--cascade", "--dry-run", "--json"]).done().json();
    assert_eq!(dry["would_cancel"].as_array().unwrap().len(), 111);
    let said = home.run(&["cancel", &root, "--cascade", "--interrupt", "--wait", "-r", "enough"]).done();
    assert!(
        said.stdout.contains("Cancelled: 111 execution(s)\nMessage:   Cancelled 111 execution(s)\nReason:    enough\n")
    );
    let listed: Vec<&str> = said.stdout.lines().filter_map(|line| line.strip_prefix("  - ")).collect();
    assert_eq!((listed.len(), listed[0]), (111, root.as_str()));
    assert_eq!(home.run(&["ps", "--active", "--json"]).done().json(), serde_json::json!([]));
}

#[test]
fn a_catalog_is_loaded_from_folders_and_lists_what_failed() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("all/noop.yaml", NOOP);
    home.file("all/deep/hello.yaml", HELLO);
    home.file("all/broken.yaml", &NOOP.replace("kind: noop", "kind: nop"));
    home.file("all/secret.yaml", "apiVersion: v1\nkind: Credential\n");
    let said = home.run(&["catalog", "load", "all", "--batch-size", "2"]);
    assert_eq!(said.exit, 1, "{}", said.stderr);
    assert!(said.stdout.starts_with("discovered 3 resource(s), 1 skipped\n  skip all/secret.yaml: no playbook\n"));
    assert!(said.stdout.contains("  FAIL all/broken.yaml: "), "{}", said.stdout);
    assert!(said.stdout.contains("  ok   all/deep/hello.yaml -> test/hello v1\n"), "{}", said.stdout);
    assert!(said.stdout.ends_with("registered 2, failed 1, skipped 1\n"), "{}", said.stdout);
    let entry = home.run(&["catalog", "get", "test/hello@1"]).done().json();
    assert_eq!(entry["content"], HELLO);
    assert_eq!(home.run(&["get", "playbook", "test/none"]).exit, 4);
    assert!(home.run(&["list", "playbook"]).done().stdout.starts_with("Catalog (playbook):\n{\n"));
}

#[test]
fn a_reader_that_has_enough_ends_the_command_quietly() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("noop.yaml", NOOP);
    home.run(&["run", "noop.yaml"]).done();
    let id = home.run(&["ps", "--json"]).done().json()[0]["execution_id"].as_str().unwrap().to_owned();
    let said = home.shell(&format!("noetl events {id} | head -n 1"));
    assert_eq!((said.exit, said.stdout.lines().count(), said.stderr.as_str()), (0, 1, ""));
}

#[test]
fn a_run_beside_a_server_is_run_by_the_server() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    home.file("hello.yaml", HELLO);
    home.run(&["run", "hello.yaml"]).done();
    let list = home.run(&["ps", "--json", "--server-url", &server.url]).done().json();
    assert_eq!(list[0]["status"], "COMPLETED");
    assert_eq!(server.stop(), Some(0));
    let list = home.run(&["ps", "--json"]).done().json();
    assert_eq!(list[0]["status"], "COMPLETED");
}

#[test]
fn a_submitted_run_can_be_followed_to_its_end() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    home.file("hello.yaml", HELLO);
    let said = home.run(&["run", "hello.yaml", "--server-url", &server.url, "--follow", "--set", "who=all"]).done();
    assert!(said.stdout.contains("Executing playbook on distributed server...\n  Path: test/hello\n  Version: 1\n"));
    assert!(said.stderr.contains("🔹 Step: end") && said.stderr.contains("COMPLETED"), "{}", said.stderr);
}

#[test]
fn a_second_server_on_one_directory_is_refused() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let said = home.run(&["server", "run", "--port", "0"]);
    assert_eq!(said.exit, 1);
    assert!(said.stderr.contains("a server already runs on"), "{}", said.stderr);
}

#[test]
fn a_server_in_the_background_is_started_found_and_stopped() {
    let home = Home::new();
    let said = home.run(&["server", "start", "--port", "0"]).done();
    assert!(said.stdout.starts_with("Server started with PID "), "{}", said.stdout);
    assert!(home.path().join(".noetl/noetl_server.pid").exists());
    let again = home.run(&["server", "start", "--port", "0"]).done();
    assert!(again.stdout.starts_with("Server is already running with PID "), "{}", again.stdout);
    let elsewhere = home.run(&["server", "start", "--port", "1"]);
    assert_eq!(elsewhere.exit, 1, "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("and not on port 1"), "{}", elsewhere.stderr);
    assert_eq!(home.run(&["ps", "--json"]).done().json(), serde_json::json!([]));
    let stopped = home.run(&["server", "stop"]).done();
    assert!(stopped.stdout.ends_with(" stopped\n"), "{}", stopped.stdout);
    assert_eq!(home.run(&["server", "stop"]).done().stdout, "No server is running in the background\n");
}

#[test]
fn beyond_this_machine_a_server_wants_a_token() {
    let home = Home::new();
    let said = home.run(&["server", "run", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(said.exit, 2);
    assert!(said.stderr.contains("--token-file"), "{}", said.stderr);
    home.file("tokens", "ann:a-token-of-some-length\n");
    let server = Server::start(&home, &["--host", "0.0.0.0", "--token-file", "tokens"]);
    let url = server.url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(home.run(&["ps", "--server-url", &url]).exit, 5);
    assert_eq!(home.run(&["ps", "--server-url", &url, "--session-token", "another-token-of-length"]).exit, 5);
    home.run(&["ps", "--server-url", &url, "--token-file", "tokens"]).done();
    home.run(&["ps"]).done();
}

#[test]
fn a_worker_elsewhere_runs_what_the_server_only_decides() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("hello.yaml", HELLO);
    let mut worker = home.spawn(&["worker", "run", "--server-url", &server.url]);
    let said = home.run(&["run", "hello.yaml", "--json", "--server-url", &server.url, "--follow"]).done();
    assert_eq!(said.json()["execution_status"], Value::from("COMPLETED"));
    crate::support::terminate(&worker);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

/// What the guide tells people to watch can be asked for.
#[test]
fn the_queries_of_the_guide_are_answered() {
    let home = Home::new();
    home.file("noop.yaml", NOOP);
    home.run(&["run", "noop.yaml"]).done();
    let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/production.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let queries: Vec<&str> = guide.split('`').filter(|quoted| quoted.starts_with("SELECT ")).collect();
    assert!(!queries.is_empty());
    for query in queries {
        home.run(&["query", query]).done();
    }
}

#[test]
fn the_tables_are_looked_after_while_the_server_runs() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("noop.yaml", NOOP);
    home.run(&["run", "noop.yaml"]).done();
    assert!(home.run(&["db", "validate"]).done().stdout.contains("\"valid\": true"));
    assert!(home.run(&["db", "verify"]).done().stdout.starts_with("1 execution(s) verified, 0 problem(s)\n"));
    assert!(home.run(&["db", "size"]).done().stdout.contains("execution "));
    home.run(&["db", "backup", "copy.db"]).done();
    assert!(home.path().join("copy.db").metadata().unwrap().len() > 0);
    assert_eq!(home.run(&["db", "backup", "copy.db"]).exit, 2);
    assert!(home.run(&["db", "prune", "--older-than", "0s"]).done().stdout.starts_with("would remove 1 "));
    assert!(home.run(&["db", "prune", "--older-than", "0s", "--yes"]).done().stdout.starts_with("removed 1 "));
    assert_eq!(home.run(&["ps", "--json"]).done().json(), serde_json::json!([]));
}

#[test]
fn servers_on_two_directories_are_started_and_stopped_side_by_side() {
    let home = Home::new();
    let start = |directory: &str| {
        let said = home.run(&["server", "start", "--port", "0", "--data-dir", directory]).done().stdout;
        assert!(said.starts_with("Server started with PID "), "{said}");
        said.split_whitespace().nth(4).unwrap().to_owned()
    };
    let (first, second) = (start("one/data"), start("two/data"));
    for directory in ["one/data", "two/data"] {
        assert_eq!(home.run(&["ps", "--json", "--data-dir", directory]).done().stdout, "[]\n");
    }
    // None of them is the usual one's, so somebody has to say which.
    let said = home.run(&["server", "stop"]);
    assert_eq!(said.exit, 2, "{said:?}");
    assert!(said.stderr.contains("one/data") && said.stderr.contains("two/data"), "{}", said.stderr);
    let stopped = home.run(&["server", "stop", "--data-dir", "two/data"]).done().stdout;
    assert_eq!(stopped, format!("Server with PID {second} stopped\n"));
    let said = home.run(&["server", "stop", "--data-dir", "two/data"]).done().stdout;
    assert_eq!(said, "No server is running in the background\n");
    let again = home.run(&["server", "start", "--port", "0", "--data-dir", "one/../one/data"]).done().stdout;
    assert!(again.starts_with(&format!("Server is already running with PID {first}")), "{again}");
    assert_eq!(home.run(&["server", "stop"]).done().stdout, format!("Server with PID {first} stopped\n"));
}

#[test]
fn a_server_in_the_background_that_can_not_start_ends_as_one_in_the_foreground() {
    let home = Home::new();
    let database = ["--database-url", "postgres://127.0.0.1:1/x"];
    let start = |more: &[&str]| {
        let arguments: Vec<&str> = ["server", "start", "--port", "0"].iter().chain(more).copied().collect();
        home.run(&arguments)
    };
    let said = start(&database);
    assert_eq!(said.exit, 3, "{said:?}");
    assert!(said.stderr.contains("127.0.0.1:1: error connecting to server"), "{}", said.stderr);
    // Another trouble, and only that.
    let said = home.command(&["server", "start", "--port", "0"]).env("NOETL_ENCRYPTION_KEY", "short").output().unwrap();
    let stderr = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(2), "{stderr}");
    assert!(!stderr.contains("127.0.0.1:1"), "{stderr}");
}

#[test]
fn a_token_on_the_command_line_goes_on_to_the_server_in_the_background() {
    let home = Home::new();
    let token = "a-token-of-some-length";
    let said = home.run(&["server", "start", "--port", "0", "--session-token", token]).done().stdout;
    let words: Vec<&str> = said.split_whitespace().collect();
    let (pid, url) = (words[4], words[6]);
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!line.contains(token), "{line}");
    assert_eq!(home.run(&["ps", "--server-url", url]).exit, 5);
    home.run(&["ps", "--server-url", url, "--session-token", token]).done();
    home.run(&["server", "stop"]).done();
}

#[test]
fn a_backup_of_a_database_is_refused_before_anything_is_asked() {
    let said = Home::new().run(&["db", "backup", "copy.db", "--database-url", "postgres://127.0.0.1:1/x"]);
    assert_eq!(said.exit, 2, "{said:?}");
    assert!(said.stderr.contains("pg_dump"), "{}", said.stderr);
}
