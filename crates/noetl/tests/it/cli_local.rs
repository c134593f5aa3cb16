//! Runs on a data directory with no server: one process owns it, the others are its guests.

use std::process::Child;

use rustix::process::Signal;
use serde_json::Value;

use crate::playbooks::{FAILS, HELLO, MOMENT, NOOP, SLEEP};
use crate::support::{Home, Said, Server, eventually, signal};

/// Returns the id of the only execution, once it has a command in the hands of a worker.
fn running(home: &Home) -> String {
    eventually("an execution runs", || {
        let list = home.run(&["ps", "--active", "--json"]);
        let list: Value = serde_json::from_str(&list.stdout).ok()?;
        let execution = list.as_array()?.iter().find(|execution| execution["in_flight"].as_u64() > Some(0))?.clone();
        execution["execution_id"].as_str().map(str::to_owned)
    })
}

fn ended(child: Child) -> Said {
    Said::of(child.wait_with_output().unwrap())
}

fn executions(home: &Home) -> Vec<Value> {
    home.run(&["ps", "--json"]).done().json().as_array().unwrap().clone()
}

#[test]
fn a_run_ends_and_can_be_read_with_nothing_running() {
    let home = Home::new();
    home.file("noop.yaml", NOOP);
    let said = home.run(&["run", "noop.yaml"]).done();
    assert_eq!(said.stdout, "");
    for line in ["runtime: local (default)", "📋 Running playbook: test/noop", "🔹 Step: start", "🔹 Step: end"] {
        assert!(said.stderr.contains(line), "{line}: {}", said.stderr);
    }
    let list = executions(&home);
    let id = list[0]["execution_id"].as_str().unwrap();
    assert!(home.run(&["status", id]).done().stdout.contains("Status:    COMPLETED\n"));
    let events = home.run(&["events", id, "--json"]).done().stdout;
    let types: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event_type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types.first().map(String::as_str), Some("playbook.initialized"));
    assert_eq!(types.last().map(String::as_str), Some("playbook.completed"));
    assert_eq!(home.run(&["events", id, "--follow"]).done().stdout.lines().count(), types.len());
    assert_eq!(home.run(&["wait", id]).done().stdout, "COMPLETED\n");
    assert!(home.run(&["tree", id]).done().stdout.starts_with(id));
    let cancelled = home.run(&["cancel", id]);
    assert_eq!(cancelled.exit, 1);
    assert!(cancelled.stderr.contains(&format!("Execution {id} is already COMPLETED")), "{}", cancelled.stderr);
}

#[test]
fn nothing_is_made_only_to_look() {
    let home = Home::new();
    for arguments in [&["ps"][..], &["status", "1"], &["cancel", "1"], &["query", "SELECT 1"], &["db", "size"]] {
        let said = home.run(arguments);
        assert_eq!(said.exit, 3, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains("noetl run"), "{}", said.stderr);
    }
    assert!(!home.path().join(".noetl").exists());
}

#[test]
fn running_a_file_again_makes_no_new_version_unless_it_changed() {
    let home = Home::new();
    home.file("noop.yaml", NOOP);
    home.run(&["run", "noop.yaml"]).done();
    home.run(&["run", "noop.yaml"]).done();
    home.file("noop.yaml", &format!("{NOOP}# changed\n"));
    home.run(&["run", "noop"]).done();
    home.run(&["run", "test/noop"]).done();
    home.run(&["run", "test/noop@1"]).done();
    let versions: Vec<i64> = executions(&home).iter().map(|execution| execution["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [1, 2, 2, 1, 1]);
}

#[test]
fn json_tells_the_outcome_in_one_document() {
    let home = Home::new();
    home.file("hello.yaml", HELLO);
    let outcome = home.run(&["run", "hello.yaml", "--json", "--set", "who=you"]).done().json();
    assert_eq!(outcome["status"], "ok");
    assert_eq!(outcome["execution_status"], "COMPLETED");
    assert_eq!(outcome["executed_steps"], serde_json::json!(["start", "end"]));
    let start: Value = serde_json::from_str(outcome["step_results"]["start"].as_str().unwrap()).unwrap();
    assert_eq!(start["text"], "hello you");
    assert_eq!(outcome["final_result"]["stdout"].as_str().unwrap().trim(), "hello you");
}

#[test]
fn what_tools_print_is_shown_when_asked() {
    let home = Home::new();
    home.file("hello.yaml", HELLO);
    assert!(home.run(&["run", "hello.yaml", "-v"]).done().stderr.contains("end | hello world"));
    assert!(!home.run(&["run", "hello.yaml"]).done().stderr.contains("hello world"));
}

#[test]
fn a_failed_step_that_nothing_handled_is_exit_1_unless_allowed() {
    let home = Home::new();
    home.file("fails.yaml", FAILS);
    let said = home.run(&["run", "fails.yaml"]);
    assert_eq!(said.exit, 1, "{}", said.stderr);
    assert!(said.stderr.contains("Failed steps that nothing handled: start"), "{}", said.stderr);
    home.run(&["run", "fails.yaml", "--allow-failed-steps"]).done();
    let strict = home.run(&["run", "fails.yaml", "--strict", "--allow-failed-steps"]);
    assert_eq!(strict.exit, 1);
    assert!(strict.stderr.contains("FAILED"), "{}", strict.stderr);
}

#[test]
fn an_unknown_playbook_is_exit_4() {
    let home = Home::new();
    let said = home.run(&["run", "test/none"]);
    assert_eq!(said.exit, 4);
    assert!(said.stderr.contains("noetl register"), "{}", said.stderr);
}

#[test]
fn a_run_is_seen_and_cancelled_from_another_terminal() {
    let home = Home::new();
    home.file("sleep.yaml", SLEEP);
    let run = home.spawn(&["run", "sleep.yaml"]);
    let id = running(&home);
    let status = home.run(&["status", &id]).done().stdout;
    assert!(status.contains("Status:    RUNNING\n") && status.contains("start [claimed] shell"), "{status}");
    let said = home.run(&["cancel", &id, "--interrupt", "--wait", "-r", "enough"]).done();
    assert!(said.stdout.contains("Cancelled: 1 execution(s)\n") && said.stdout.contains("Reason:    enough\n"));
    let run = ended(run);
    assert_eq!(run.exit, 7, "{}", run.stderr);
    let status = home.run(&["status", &id, "--json"]).done().json();
    assert_eq!(status["status"], "CANCELLED");
    assert_eq!(status["quiesced"], true);
    assert_eq!(status["cancellation"]["reason"], "enough");
    assert_eq!(status["cancellation"]["cancelled_by"], "cli");
    assert!(status["cancellation"]["requested_by"].as_str().unwrap().contains('@'));
}

#[test]
fn ctrl_c_cancels_a_local_run_and_stops_what_it_runs() {
    let home = Home::new();
    home.file("sleep.yaml", SLEEP);
    let run = home.spawn(&["run", "sleep.yaml"]);
    let id = running(&home);
    signal(&run, Signal::INT);
    let run = ended(run);
    assert_eq!(run.exit, 130, "{}", run.stderr);
    let status = home.run(&["status", &id, "--json"]).done().json();
    assert_eq!((&status["status"], &status["quiesced"]), (&"CANCELLED".into(), &true.into()));
    assert_eq!(status["cancellation"]["mode"], "interrupt");
    assert_eq!(status["cancellation"]["cascade"], true);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_stubborn_tool() {
    let home = Home::new();
    let deaf = "trap '' TERM INT; echo deaf > '{{ workload.file }}'; while true; do sleep 1; done";
    home.file("stubborn.yaml", &SLEEP.replace("sleep 600", deaf));
    let deaf = home.path().join("deaf");
    let run = home.spawn(&["run", "stubborn.yaml", "--set", &format!("file={}", deaf.display())]);
    let id = running(&home);
    eventually("the tool hears no signals any more", || deaf.exists().then_some(()));
    signal(&run, Signal::INT);
    eventually("it is cancelled", || home.run(&["status", &id]).stdout.contains("Status:    CANCELLED").then_some(()));
    let second = std::time::Instant::now();
    signal(&run, Signal::INT);
    assert_eq!(ended(run).exit, 130);
    assert!(second.elapsed().as_secs() < 8, "the grace of 10 s was not waited for");
    let events = home.run(&["events", &id, "--json"]).done().stdout;
    assert!(events.contains("execution.cancel_escalated") && events.contains("execution.quiesced"), "{events}");
}

#[test]
fn a_run_that_takes_too_long_is_cancelled() {
    let home = Home::new();
    home.file("sleep.yaml", SLEEP);
    let said = home.run(&["run", "sleep.yaml", "--timeout", "500ms"]);
    assert_eq!(said.exit, 7, "{}", said.stderr);
    let list = executions(&home);
    assert_eq!(list[0]["status"], "CANCELLED");
    assert_eq!(list[0]["cancellation"]["reason"], "noetl run --timeout: longer than 0.5 s");
}

#[test]
fn ten_runs_at_once_on_one_directory_all_finish() {
    let home = Home::new();
    home.file("moment.yaml", MOMENT);
    let file = home.path().join("lines");
    let file_flag = format!("file={}", file.display());
    let runs: Vec<Child> = (0..10)
        .map(|number| home.spawn(&["run", "moment.yaml", "--set", &file_flag, "--set", &format!("line=run {number}")]))
        .collect();
    for run in runs {
        let said = ended(run);
        assert_eq!(said.exit, 0, "{}", said.stderr);
    }
    let mut lines: Vec<String> = std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<String> =
        (0..10).flat_map(|number| [format!("run {number}"), format!("run {number} end")]).collect();
    expected.sort();
    assert_eq!(lines, expected, "every step ran once");
    assert!(executions(&home).iter().all(|execution| execution["status"] == "COMPLETED"));
}

#[test]
fn what_a_killed_run_left_behind_is_cancelled_and_quiesces_with_nothing_running() {
    let home = Home::new();
    home.file("sleep.yaml", SLEEP);
    home.file("hello.yaml", HELLO);
    let mut run = home.spawn(&["run", "sleep.yaml"]);
    let id = running(&home);
    run.kill().unwrap();
    run.wait().unwrap();
    let cancelled = home.run(&["cancel", &id, "--interrupt"]).done();
    assert!(cancelled.stdout.contains("Cancelled: 1 execution(s)\n"), "{}", cancelled.stdout);
    // Whoever waits owns the directory without a worker; a run that comes in between gets it and is not held up.
    let wait = home.spawn(&["wait", &id, "--for", "quiesced", "--timeout", "50s"]);
    eventually("the one who waits owns the directory", || {
        let owner = std::fs::read_to_string(home.path().join(".noetl/data/owner.lock")).ok()?;
        owner.contains(&format!("\"pid\":{}", wait.id())).then_some(())
    });
    home.run(&["run", "hello.yaml"]).done();
    let wait = ended(wait);
    assert_eq!((wait.exit, wait.stdout.as_str()), (0, "CANCELLED\n"), "{}", wait.stderr);
    let events = home.run(&["events", &id, "--json", "--type", "execution.quiesced"]).done().stdout;
    assert!(events.contains("unreachable"), "{events}");
}

#[test]
fn a_run_gives_its_directory_to_a_server_and_goes_on_as_its_guest() {
    let home = Home::new();
    home.file("moment.yaml", &MOMENT.replace("sleep 0.2", "sleep 1"));
    let file = home.path().join("lines");
    let file_flag = format!("file={}", file.display());
    let run = home.spawn(&["run", "moment.yaml", "--set", &file_flag, "--set", "line=mine"]);
    running(&home);
    let _server = Server::start(&home, &[]);
    let said = ended(run);
    assert_eq!(said.exit, 0, "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine\nmine end\n", "every step ran once");
}

#[test]
fn the_others_finish_when_the_owner_is_killed() {
    let home = Home::new();
    home.file("moment.yaml", MOMENT);
    let file_flag = format!("file={}", home.path().join("lines").display());
    let mut runs: Vec<Child> = (0..10)
        .map(|number| home.spawn(&["run", "moment.yaml", "--set", &file_flag, "--set", &format!("line=run {number}")]))
        .collect();
    running(&home);
    // A command that looks may own it for a moment, as `running` does; sooner or later it is one of the runs.
    let place = eventually("one of the runs owns the directory", || {
        let owner = std::fs::read_to_string(home.path().join(".noetl/data/owner.lock")).ok()?;
        let owner: Value = serde_json::from_str(&owner).ok()?;
        let mut of_runs = runs.iter().map(|run| Some(u64::from(run.id())));
        of_runs.position(|pid| pid == owner["pid"].as_u64())
    });
    let mut killed = runs.swap_remove(place);
    killed.kill().unwrap();
    killed.wait().unwrap();
    for run in runs {
        let said = ended(run);
        assert_eq!(said.exit, 0, "{}", said.stderr);
    }
    // What the killed one had begun is in the directory; whoever works there next ends it.
    let _server = Server::start(&home, &[]);
    for execution in executions(&home) {
        let id = execution["execution_id"].as_str().unwrap();
        assert_eq!(home.run(&["wait", id]).done().stdout, "COMPLETED\n");
    }
}
