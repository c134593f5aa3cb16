//! The published command line, NoETL 5.3.2 from the Python package index, against this server.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::playbooks::SLEEP;
use crate::support::{Home, Said, Server};

/// The release that people have.
const PACKAGE: &str = "noetl==5.3.2";

/// Installs it into an environment of its own; fails with the reason where the index can not be reached.
fn install(home: &Home) -> Result<PathBuf, String> {
    let made = home.shell("python3 -m venv published");
    if made.exit != 0 {
        return Err(format!("no virtual environment: {}", made.stderr));
    }
    let line =
        format!("published/bin/pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 {PACKAGE}");
    let installed = home.shell(&line);
    if installed.exit != 0 {
        return Err(format!("{PACKAGE} can not be installed: {}", installed.stderr));
    }
    Ok(home.path().join("published/bin/noetl"))
}

#[test]
fn the_published_command_line_understands_this_server() {
    let home = Home::new();
    let binary = match install(&home) {
        Ok(binary) => binary,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let server = Server::start(&home, &["--no-worker"]);
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let noetl = |arguments: &[&str]| -> Said {
        let all = [&["--host", "localhost", "--port", port.as_str()], arguments].concat();
        Said::of(home.program(binary.to_str().unwrap(), &all).output().unwrap())
    };
    let start = || {
        let started = noetl(&["run", "test/sleep", "-r", "distributed", "--json"]).done();
        let line = started.stdout.lines().find(|line| line.starts_with('{')).unwrap().to_owned();
        let started: Value = serde_json::from_str(&line).unwrap();
        started["execution_id"].as_str().unwrap().to_owned()
    };
    home.file("sleep.yaml", SLEEP);
    let registered = noetl(&["register", "playbook", "--file", "sleep.yaml"]).done();
    assert!(registered.stdout.starts_with("Playbook registered successfully: {"), "{}", registered.stdout);
    assert!(noetl(&["list", "Playbook", "--json"]).done().stdout.contains("test/sleep"));

    let id = start();
    let status = noetl(&["status", &id, "--json"]).done().json();
    assert_eq!((&status["execution_id"], &status["status"]), (&json!(id), &json!("RUNNING")));
    let rows = noetl(&["query", "SELECT execution_id, status FROM noetl.execution", "--format", "json"]).done().json();
    assert_eq!(rows["result"], json!([{"execution_id": id.parse::<i64>().unwrap(), "status": "RUNNING"}]));

    let stuck = noetl(&["cleanup", "--dry-run"]).done().stdout;
    assert!(stuck.contains("Found:         0 stuck execution(s)"), "{stuck}");
    assert!(stuck.contains("No stuck executions found older than 5 minutes"), "{stuck}");

    let cancelled = noetl(&["cancel", &id, "--reason", "Detected infinite loop"]).done().stdout;
    for line in [
        format!("Execution: {id}"),
        "Cancelled: 1 execution(s)".to_owned(),
        "Message:   Cancelled 1 execution(s)".to_owned(),
        "Reason:    Detected infinite loop".to_owned(),
    ] {
        assert!(cancelled.contains(&line), "{line}: {cancelled}");
    }
    let again = noetl(&["cancel", &id]);
    assert_eq!((again.exit, again.stdout.as_str()), (1, ""), "{}", again.stderr);
    assert!(again.stderr.contains(&format!("Execution {id} is already CANCELLED")), "{}", again.stderr);

    let parent = start();
    let child = json!({"path": "test/sleep", "parent_execution_id": parent});
    home.shell(&format!("curl -sf {}/api/execute -d '{child}'", server.url)).done();
    let family = noetl(&["cancel", &parent, "--cascade"]).done().stdout;
    assert!(family.contains("Cancelled: 2 execution(s)") && family.contains("Cancelled executions:"), "{family}");
    assert!(family.contains(&format!("  - {parent}\n")), "{family}");
}
