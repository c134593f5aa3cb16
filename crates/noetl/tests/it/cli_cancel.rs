//! What ends before its time on a real server with real processes: steps, iterations, time limits, many at once.

use serde_json::{Value, json};

use crate::playbooks::{NOOP, SLEEP};
use crate::support::{Canned, Home, Server, eventually};

/// Two steps at once: one sleeps far too long in a tree of processes, one is quick. An arc takes the first one's end.
const STUBBORN: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: stubborn, path: test/stubborn}
workload: {marker: none}
workflow:
  - step: slow
    tool:
      kind: shell
      cmds: ["sh -c 'sleep 600; true' '{{ workload.marker }}'"]
    next:
      spec: {mode: exclusive}
      arcs:
        - step: caught
          when: "{{ event.name == 'call.error' }}"
        - step: finished
  - step: caught
    tool: {kind: python, input: {kind: "{{ slow.error.kind }}"}, code: "result = {'kind': kind}"}
  - step: finished
    tool: {kind: noop}
"#;

fn start(home: &Home, path: &str, set: &[&str]) -> String {
    let mut arguments = vec!["run", path, "-r", "distributed", "--json"];
    for pair in set {
        arguments.extend(["--set", pair]);
    }
    home.run(&arguments).done().json()["execution_id"].as_str().unwrap().to_owned()
}

/// How many processes carry the marker in their command line.
fn marked(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(marker.len()).any(|window| window == marker.as_bytes())).count()
}

fn in_flight(home: &Home, id: &str) {
    eventually("a command is in flight", || {
        (home.run(&["status", id, "--json"]).json()["in_flight"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn a_status_names_the_process_that_still_runs() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file(
        "held.yaml",
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: held, path: test/held}\nworkflow:\n  \
         - {step: start, tool: {kind: shell, command: 'echo $$ > pid; until [ -e open ]; do sleep 0.05; done'}}\n",
    );
    home.run(&["register", "held.yaml"]).done();
    let started = home.run(&["run", "test/held", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    let command = || home.run(&["status", id, "--json"]).done().json()["commands"][0].clone();
    // It says so once it has run for a second; that it has begun is a report of its own, and may come after it.
    let is_told = |command: &Value| command["pid"].is_u64() && command["started"] == json!(true);
    let shown = eventually("its process is shown", || Some(command()).filter(is_told));
    let pid = std::fs::read_to_string(home.path().join("pid")).unwrap();
    assert_eq!(shown["pid"].to_string(), pid.trim());
    assert_eq!(shown["running_tool"], "shell");
    assert!(shown["running_since"].is_string(), "{shown}");
    let log = home.run(&["events", id, "--json"]).done().stdout;
    home.run(&["cancel", id]).done();
    // Cancelled and not quiesced: what still runs is named with its process, and no event was written for that.
    let block = home.run(&["status", id]).done().stdout;
    assert!(block.contains("Quiesced:  not yet") && block.contains(&format!(" pid {},", pid.trim())), "{block}");
    assert_eq!(log.matches("command.started").count(), 1, "{log}");
    home.file("open", "");
    eventually("it is quiet", || {
        let status = home.run(&["status", id, "--json"]).done().json();
        (status["quiesced"] == json!(true) && status["commands"] == json!([])).then_some(())
    });
}

#[test]
fn one_step_is_interrupted_and_the_execution_goes_on_from_its_error() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("stubborn.yaml", STUBBORN);
    home.run(&["register", "stubborn.yaml"]).done();
    let marker = format!("noetl-test-step-{}", std::process::id());
    let id = start(&home, "test/stubborn", &[&format!("marker={marker}")]);
    eventually("the tool runs", || (marked(&marker) > 0).then_some(()));
    let nothing = home.run(&["cancel", &id, "--step", "caught"]);
    assert_eq!(nothing.exit, 1);
    assert!(nothing.stderr.contains("has nothing to stop"), "{}", nothing.stderr);
    let said = home.run(&["cancel", &id, "--step", "slow", "-r", "too slow"]).done();
    assert!(said.stdout.contains("Message:   Cancelled 1 command(s) of step slow\n"), "{}", said.stdout);
    assert_eq!(home.run(&["wait", &id]).done().stdout, "COMPLETED\n");
    assert_eq!(marked(&marker), 0, "nothing of the step runs any more");
    let types = home.run(&["events", &id, "--json"]).done().stdout;
    assert!(types.contains("\"command.stopping\"") && types.contains("\"kind\":\"cancelled\""), "{types}");
    assert!(!types.contains("execution.cancelled"), "{types}");
}

#[test]
fn a_step_and_a_run_that_take_too_long_are_stopped() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let step =
        STUBBORN.replace("test/stubborn", "test/step").replace("step: slow\n", "step: slow\n    spec: {timeout: 1}\n");
    let run = STUBBORN.replace("test/stubborn", "test/run");
    let run = run.replace("workload:", "executor: {spec: {timeout: 1, cancel: {grace_seconds: 1}}}\nworkload:");
    home.file("step.yaml", &step);
    home.file("run.yaml", &run);
    home.run(&["register", "step.yaml"]).done();
    home.run(&["register", "run.yaml"]).done();
    let marker = format!("noetl-test-limit-{}", std::process::id());
    let set = format!("marker={marker}");
    let step = start(&home, "test/step", &[&set]);
    let run = start(&home, "test/run", &[&set]);
    assert_eq!(home.run(&["wait", &step]).done().stdout, "COMPLETED\n");
    let events = home.run(&["events", &step, "--json"]).done().stdout;
    assert!(events.contains("STEP_TIMEOUT"), "{events}");
    let failed = home.run(&["wait", &run]);
    assert_eq!((failed.exit, failed.stdout.as_str()), (1, "FAILED\n"), "{}", failed.stderr);
    home.run(&["wait", &run, "--for", "quiesced"]).done();
    assert_eq!(marked(&marker), 0, "nothing of them runs any more");
    let status = home.run(&["status", &run, "--json"]).done().json();
    assert_eq!(status["error_detail"]["kind"], "timeout");
    assert_eq!(status["error"], "it took longer than 1 s (executor.spec.timeout)");
    let why = home.run(&["why", &run]).done().stdout;
    assert!(why.contains("It failed: it took longer than 1 s"), "{why}");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn many_are_cancelled_by_what_they_have_in_common() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.file("other.yaml", &SLEEP.replace("test/sleep", "test/other"));
    home.run(&["register", "sleep.yaml"]).done();
    home.run(&["register", "other.yaml"]).done();
    let mut ids: Vec<String> = (0..3).map(|_| start(&home, "test/sleep", &[])).collect();
    let other = start(&home, "test/other", &[]);
    ids.reverse();
    let by_path = ["cancel", "--filter", "path=test/sl*"];
    let asked = home.run(&by_path);
    assert_eq!(asked.exit, 2);
    assert!(asked.stderr.contains("3 execution(s) match") && asked.stderr.contains("--yes"), "{}", asked.stderr);
    let listed: String = ids.iter().map(|id| format!("  - {id}\n")).collect();
    let dry = home.run(&[&by_path[..], &["--dry-run"]].concat()).done();
    assert_eq!(dry.stdout, format!("Would cancel 3 execution(s)\n{listed}"));
    let few = home.run(&[&by_path[..], &["--yes", "--max", "2"]].concat());
    assert_eq!(few.exit, 1);
    assert!(few.stderr.contains("more than 2 executions match"), "{}", few.stderr);
    let unknown = home.run(&["cancel", "--filter", "pth=test/*", "--yes"]);
    assert_eq!(unknown.exit, 2);
    assert!(unknown.stderr.contains("did you mean `path`?"), "{}", unknown.stderr);
    // As an unset variable of a script leaves them.
    for (condition, named) in
        [("path=", "`path` has no value"), ("status=", "`status` has no value"), ("label= ", "`label` has no value")]
    {
        let refused = home.run(&["cancel", "--filter", condition, "--yes"]);
        assert_eq!(refused.exit, 2, "{condition}");
        assert!(refused.stderr.contains(named), "{}", refused.stderr);
    }
    let everything = home.run(&["cancel", "--filter", "status=RUNNING", "--yes"]);
    assert_eq!(everything.exit, 2);
    assert!(everything.stderr.contains("`--filter all`"), "{}", everything.stderr);
    let done = home.run(&[&by_path[..], &["--yes", "-r", "not needed"]].concat()).done();
    assert_eq!(done.stdout, format!("Cancelled 3 execution(s)\n{listed}"));
    let why = home.run(&["why", &ids[0]]).done().stdout;
    assert!(why.contains("Cancelled by cli for ") && why.contains("Reason: not needed\n"), "{why}");
    assert!(home.run(&["status", &other]).done().stdout.contains("Status:    RUNNING\n"));
    assert_eq!(home.run(&["cancel", "--filter", "all", "--yes", "--json"]).done().json()["cancelled_count"], 1);
}

#[test]
fn a_cleanup_cancels_what_is_stuck_and_spares_what_is_not() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.file("noop.yaml", NOOP);
    home.run(&["register", "sleep.yaml"]).done();
    home.run(&["register", "noop.yaml"]).done();
    let stuck = start(&home, "test/sleep", &[]);
    let ended = start(&home, "test/noop", &[]);
    home.run(&["wait", &ended]).done();
    let none = home.run(&["cleanup"]).done().stdout;
    assert!(
        none.contains("Found:         0 stuck execution(s)\n\nNo stuck executions found older than 5 minutes\n"),
        "{none}"
    );
    assert_eq!(server.stop(), Some(0));
    // Eleven minutes go by.
    home.rewrite(
        "UPDATE execution SET started_at = strftime('%Y-%m-%dT%H:%M:%fZ', started_at, '-11 minutes'), \
         updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '-11 minutes')",
        "UPDATE noetl.execution SET started_at = started_at - interval '11 minutes', \
         updated_at = updated_at - interval '11 minutes'",
    );
    let _server = Server::start(&home, &["--no-worker"]);
    let young = start(&home, "test/sleep", &[]);
    let dry = home.run(&["cleanup", "--older-than-minutes", "10", "--dry-run"]).done().stdout;
    assert_eq!(
        dry,
        format!(
            "
============================================================
[DRY RUN] Cleanup Stuck Executions
============================================================
Older than:    10 minutes
Found:         1 stuck execution(s)

[DRY RUN] Would cancel 1 stuck executions older than 10 minutes

Execution IDs:
  - {stuck}

Note: Run without --dry-run to actually cancel these executions

"
        )
    );
    let done = home.run(&["cleanup", "--json"]).done().json();
    assert_eq!(
        (&done["cancelled_count"], &done["execution_ids"]),
        (&json!(1), &json!([stuck.parse::<i64>().unwrap()]))
    );
    let status = home.run(&["status", &stuck, "--json"]).done().json();
    assert_eq!((&status["status"], &status["cancellation"]["cancelled_by"]), (&json!("CANCELLED"), &json!("cleanup")));
    assert!(home.run(&["status", &young]).done().stdout.contains("Status:    RUNNING\n"));
}

#[test]
fn a_member_of_a_family_knows_through_which_ancestor_it_was_cancelled() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.file(
        "parent.yaml",
        "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: test/parent}
workflow:
  - step: start
    tool: {kind: playbook, path: test/sleep}
",
    );
    home.run(&["register", "sleep.yaml"]).done();
    home.run(&["register", "parent.yaml"]).done();
    let parent = start(&home, "test/parent", &[]);
    let child = eventually("the child is there", || {
        let tree = home.run(&["tree", &parent, "--json"]).json();
        tree["executions"].as_array()?.get(1)?["execution_id"].as_str().map(str::to_owned)
    });
    home.run(&["cancel", &parent, "--cascade", "-r", "enough"]).done();
    let why = home.run(&["why", &child]).done().stdout;
    assert!(why.starts_with(&format!("{child} (test/sleep) is CANCELLED.\nCancelled by cli for ")), "{why}");
    let through =
        format!("Reason: enough\nThe request named its ancestor {parent}:\n  ↑ {parent} (test/parent) CANCELLED\n");
    assert!(why.contains(&through), "{why}");
    // The same in one query, for the whole tree.
    let sql = format!(
        "SELECT execution_id, status, cancelled_by, requested_by, reason, requested_execution_id, job_id, cascade \
         FROM noetl.cancellation_trail WHERE root_execution_id = {parent} ORDER BY execution_id"
    );
    let rows = home.run(&["query", &sql, "--format", "json"]).done().json()["result"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        assert_eq!(row["requested_execution_id"].to_string().trim_matches('"'), parent, "{row}");
        assert_eq!((&row["status"], &row["cascade"]), (&json!("CANCELLED"), &json!(true)), "{row}");
        assert!(!row["job_id"].is_null() && row["requested_by"].as_str().unwrap().contains('@'), "{row}");
    }
}

#[test]
fn a_dry_run_says_what_runs() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("sleep.yaml", SLEEP);
    home.run(&["register", "sleep.yaml"]).done();
    let id = start(&home, "test/sleep", &[]);
    in_flight(&home, &id);
    let said = home.run(&["cancel", &id, "--dry-run"]).done();
    assert!(said.stderr.contains("1 command(s) would be in flight:\n  - step start (shell) on "), "{}", said.stderr);
    let node = said.stderr.lines().find(|line| line.starts_with(&id)).expect("the tree");
    assert!(node.contains("RUNNING") && node.contains("test/sleep"), "{node}");
    assert!(home.run(&["status", &id]).done().stdout.contains("Status:    RUNNING\n"));
    home.run(&["cancel", &id, "--interrupt", "--wait"]).done();
}

#[test]
fn a_step_is_named_in_the_body_and_nothing_of_the_whole_goes_with_it() {
    let server = Canned::new(&[(
        "POST /api/executions/7/cancel",
        200,
        r#"{"status":"step_cancelled","cancelled_executions":[],"message":"Cancelled 1 command(s) of step load","quiesced":true}"#,
    )]);
    let home = Home::new();
    let on = |arguments: &[&str]| home.run(&[&["--server-url", server.url.as_str()], arguments].concat());
    on(&["cancel", "7", "--step", "load", "--iteration", "3", "--grace", "2s"]).done();
    assert_eq!(server.seen()[0].body, r#"{"cascade":false,"grace_seconds":2.0,"step":"load","iteration":3}"#);
    for arguments in [
        &["cancel", "7", "--step", "load", "--cascade"][..],
        &["cancel", "7", "--iteration", "1"],
        &["cancel"],
        &["cancel", "7", "--filter", "all"],
        &["cancel", "7", "--yes"],
        &["cancel", "7", "--rate", "5"],
        &["jobs", "--stop"],
    ] {
        assert_eq!(on(arguments).exit, 2, "{arguments:?}");
    }
}

/// Ten iterations of which three run at a time, each far too long in a tree of processes.
const LONG_LOOP: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: long_loop, path: test/long_loop}
workload: {marker: none}
workflow:
  - step: each
    loop: {in: 10, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
    tool:
      kind: shell
      cmds: ["test {{ i }} -eq 0 || sh -c 'sleep 600; true' '{{ workload.marker }}'"]
    next: {arcs: [{step: after}]}
  - step: after
    tool: {kind: python, input: {stats: "{{ each.stats }}"}, code: "result = stats"}
"#;

#[test]
fn a_loop_is_completed_by_hand_and_nothing_of_it_runs_on() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("loop.yaml", LONG_LOOP);
    home.run(&["register", "loop.yaml"]).done();
    let marker = format!("noetl-test-complete-{}", std::process::id());
    let id = start(&home, "test/long_loop", &[&format!("marker={marker}")]);
    eventually("two iterations run", || (marked(&marker) >= 2).then_some(()));
    let nothing = home.run(&["cancel", &id, "--step", "after", "--complete"]);
    assert_eq!(nothing.exit, 1);
    assert!(nothing.stderr.contains("has no loop that could be completed"), "{}", nothing.stderr);
    let both = home.run(&["cancel", &id, "--step", "each", "--iteration", "1", "--complete"]);
    assert_eq!(both.exit, 2, "{}", both.stderr);
    let said = home.run(&["cancel", &id, "--step", "each", "--complete", "-r", "enough", "--json"]).done().json();
    assert_eq!(said["status"], "loop_completed");
    assert!(said["message"].as_str().unwrap().starts_with("Completed the loop of step each early: "), "{said}");
    assert_eq!(home.run(&["wait", &id]).done().stdout, "COMPLETED\n");
    assert_eq!(marked(&marker), 0, "the execution does not end before its tools have");
    let events = home.run(&["events", &id, "--json"]).done().stdout;
    assert!(events.contains("\"loop.completing\"") && events.contains("\"left_out\":9"), "{events}");
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}

#[test]
fn a_job_outlives_the_server_that_was_killed_and_another_one_finishes_it() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.file("other.yaml", &SLEEP.replace("test/sleep", "test/other"));
    home.run(&["register", "sleep.yaml"]).done();
    home.run(&["register", "other.yaml"]).done();
    let ids: Vec<String> = (0..40).map(|_| start(&home, "test/sleep", &[])).collect();
    let bystander = start(&home, "test/other", &[]);
    let slow = ["cancel", "--filter", "path=test/sleep", "--rate", "10", "--yes", "--json", "-r", "stale"];
    let begun = home.run(&slow).done().json();
    assert_eq!((&begun["complete"], &begun["matched_count"]), (&json!(false), &json!(40)), "{begun}");
    let job = begun["job_id"].as_str().unwrap();
    let shown = || home.run(&["jobs", job, "--json"]).done().json();
    eventually("it goes on without its request", || {
        (shown()["cancelled"].as_u64() > begun["cancelled_count"].as_u64()).then_some(())
    });
    // As `kill -9` ends it.
    drop(server);
    let _other = Server::start(&home, &["--no-worker"]);
    let followed = home.run(&["jobs", job, "--wait=60s"]).done();
    assert!(followed.stdout.contains("State:       done\n"), "{}", followed.stdout);
    let done = shown();
    for (field, expected) in [("cancelled", 40), ("visited", 40), ("spared", 0), ("unquiesced", 0), ("selected", 40)] {
        assert_eq!(done[field], expected, "{field} of {done}");
    }
    assert!(home.run(&["status", &bystander]).done().stdout.contains("Status:    RUNNING\n"));
    // One decision each, and all of them say which job made it.
    let query = "SELECT execution_id FROM noetl.cancellation_trail WHERE reason = 'stale' ORDER BY execution_id";
    let trail = home.run(&["query", query, "--format", "json"]).done().json();
    assert_eq!(trail["result"].as_array().unwrap().len(), ids.len());
    for id in &ids {
        let events = home.run(&["events", id, "--json"]).done().stdout;
        assert_eq!(events.matches("execution.cancelled").count(), 1, "{events}");
    }
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
    let listed = home.run(&["jobs"]).done().stdout;
    assert!(listed.contains(job) && listed.contains("path=test/sleep") && listed.contains("40/40"), "{listed}");
    assert_eq!(home.run(&["jobs", job, "--stop"]).exit, 1, "it is done");
    assert_eq!(home.run(&["jobs", "77"]).exit, 4);
}

/// Runs until `open` is there, below a parent that only waits for it.
const GATED: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: gated, path: test/gated}
workflow:
  - {step: start, tool: {kind: shell, command: 'until [ -e open ]; do sleep 0.05; done'}}
";

const ABOVE: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: above, path: test/above}
workflow:
  - {step: down, tool: {kind: playbook, path: test/gated}}
";

#[test]
fn what_still_runs_below_is_named_escalated_and_waited_for() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("gated.yaml", GATED);
    home.file("above.yaml", ABOVE);
    home.run(&["register", "gated.yaml"]).done();
    home.run(&["register", "above.yaml"]).done();
    let id = start(&home, "test/above", &[]);
    let child = eventually("the child runs", || {
        let tree = home.run(&["tree", &id, "--json"]).json();
        let child = tree["executions"].as_array()?.get(1)?["execution_id"].as_str()?.to_owned();
        (home.run(&["status", &child, "--json"]).json()["in_flight"].as_u64() > Some(0)).then_some(child)
    });
    let reason = "x\nStatus: COMPLETED";
    let said = home.run(&["cancel", &id, "--cascade", "-r", reason]).done();
    assert!(said.stdout.contains("Reason:    x\n           Status: COMPLETED\n"), "{}", said.stdout);
    let harder = format!("`noetl cancel {id} --cascade --interrupt`");
    assert!(said.stderr.contains(&format!("stop them now with {harder}\n")), "{}", said.stderr);
    assert!(said.stderr.contains("`noetl jobs ") && !said.stderr.contains("--for quiesced"), "{}", said.stderr);
    // The parent itself has quiesced.
    let again = home.run(&["cancel", &id]);
    assert_eq!(again.exit, 1);
    assert!(!again.stderr.contains("--interrupt"), "{}", again.stderr);
    let again = home.run(&["cancel", &id, "--cascade"]);
    assert!(again.stderr.contains(&format!("{harder} stops what still runs of it")), "{}", again.stderr);
    // Ended is no error, but what runs is waited for.
    let ignoring = |wait: &str| home.run(&["cancel", &id, "--cascade", wait, "--ignore-finished"]);
    let early = ignoring("--wait=200ms");
    assert_eq!(early.exit, 6, "{}", early.stderr);
    assert!(early.stderr.contains(&format!("something of {child} still runs")), "{}", early.stderr);
    let dry = home.run(&["cancel", &id, "--cascade", "--interrupt", "--dry-run"]).done();
    assert!(dry.stderr.contains(&format!("would be interrupted now: {child}.\n")), "{}", dry.stderr);
    home.file("open", "");
    ignoring("--wait").done();
    assert_eq!(home.run(&["status", &child, "--json"]).done().json()["quiesced"], json!(true));
}

#[test]
fn each_id_has_a_line_of_json_whatever_became_of_it() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    let lines = |said: &crate::support::Said| -> Vec<Value> {
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let said = home.run(&["cancel", "17", "abc", "-j"]);
    assert_eq!(said.exit, 4);
    let answers = lines(&said);
    assert_eq!(answers.len(), 2, "{}", said.stdout);
    assert_eq!((&answers[0]["execution_id"], &answers[0]["code"]), (&json!("17"), &json!("unknown_execution")));
    assert_eq!((&answers[1]["execution_id"], &answers[1]["code"]), (&json!("abc"), &json!("bad_request")));
    assert_eq!(answers[1]["cancelled_executions"], json!([]));
    let nowhere = home.run(&["--server-url", &crate::support::deserted(), "cancel", "17", "18", "-j"]);
    assert_eq!(nowhere.exit, 3);
    let codes: Vec<Value> = lines(&nowhere).iter().map(|line| line["code"].clone()).collect();
    assert_eq!(codes, ["unreachable", "unreachable"]);
}

#[test]
fn a_job_that_was_waited_for_says_how_many_it_cancelled_in_the_end() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.run(&["register", "sleep.yaml"]).done();
    for _ in 0..12 {
        start(&home, "test/sleep", &[]);
    }
    // Longer than the request hangs.
    let slow = ["cancel", "--filter", "path=test/sleep", "--rate", "4", "--yes", "--wait"];
    let said = home.run(&slow).done();
    assert!(said.stdout.starts_with("Cancelled 12 execution(s)\n"), "{}", said.stdout);
    let listed = said.stdout.lines().filter(|line| line.starts_with("  - ")).count();
    assert!(listed < 12 && said.stderr.contains(&format!("{} more, ", 12 - listed)), "{}", said.stderr);
}

#[test]
fn a_server_has_a_mode_of_its_own_and_says_each_decision_in_its_log() {
    let home = Home::new();
    let log = home.path().join("server.log");
    let log_file = log.to_str().unwrap();
    let server = Server::start_with(&home, &["--log-file", log_file], &[("NOETL_CANCEL_MODE", "interrupt")]);
    home.file("loop.yaml", LONG_LOOP);
    home.file("stubborn.yaml", STUBBORN);
    home.file(
        "polite.yaml",
        &SLEEP.replace("workflow:", "executor: {spec: {concurrency: {key: k, on_conflict: cancel_new}}}\nworkflow:"),
    );
    for file in ["loop.yaml", "stubborn.yaml", "polite.yaml"] {
        home.run(&["register", file]).done();
    }
    let marker = format!("marker=noetl-test-log-{}", std::process::id());
    let looping = start(&home, "test/long_loop", &[&marker]);
    in_flight(&home, &looping);
    home.run(&["cancel", &looping, "--step", "each", "--complete", "-r", "enough"]).done();
    let stubborn = start(&home, "test/stubborn", &[&marker]);
    in_flight(&home, &stubborn);
    home.run(&["cancel", &stubborn, "--step", "slow", "-r", "too slow"]).done();
    let first = start(&home, "test/sleep", &[]);
    in_flight(&home, &first);
    let second = home.run(&["run", "test/sleep", "-r", "distributed"]);
    assert_eq!(second.exit, 7, "{}", second.stderr);
    assert!(second.stdout.contains("Execution cancelled where it began:"), "{}", second.stdout);
    let answer = home.run(&["cancel", &first, "--wait", "--json"]).done().json();
    assert_eq!((&answer["mode"], &answer["quiesced"]), (&json!("interrupt"), &json!(true)));
    assert_eq!(server.stop(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    for (line, word) in [
        ("loop is completed early", "enough"),
        ("step is stopped", "too slow"),
        ("execution cancelled where it begins", "concurrency"),
    ] {
        assert!(log.lines().any(|said| said.contains(line) && said.contains(word)), "{line}: {log}");
    }
    let bad = home.run(&["server", "run", "--port", "0", "--cancel-mode", "gently"]);
    assert_eq!(bad.exit, 2);
    assert!(bad.stderr.contains("neither `finish` nor `interrupt`"), "{}", bad.stderr);
}

#[test]
fn a_request_that_was_on_its_way_may_have_been_acted_upon() {
    // Accepts, reads, and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (asked, arrivals) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 16];
            std::io::Read::read(&mut stream, &mut some).unwrap();
            open.push(stream);
            asked.send(()).unwrap();
        }
    });
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let ask = |name: &str, spec: &str| {
        home.file(
            &format!("{name}.yaml"),
            &format!(
                "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: test/{name}}}\nworkflow:\n  \
                 - step: ask\n    tool: {{kind: http, url: '{url}'}}\n{spec}"
            ),
        );
        home.run(&["register", &format!("{name}.yaml")]).done();
        let id = start(&home, &format!("test/{name}"), &[]);
        arrivals.recv_timeout(std::time::Duration::from_secs(60)).expect("the request is sent");
        id
    };
    let noted = |id: &str| {
        home.run(&["wait", id, "--for", "quiesced"]).done();
        home.run(&["events", id, "--json"]).done().stdout
    };
    let whole = ask("whole", "");
    home.run(&["cancel", &whole, "--interrupt", "--wait"]).done();
    assert!(noted(&whole).contains("execution cancelled; the remote may have acted"), "{}", noted(&whole));
    let step = ask("step", "");
    home.run(&["cancel", &step, "--step", "ask", "-r", "enough"]).done();
    let limited = ask("limited", "    spec: {timeout: 1}\n");
    for (id, kind) in [(step, "enough; the remote may have acted"), (limited, "STEP_TIMEOUT")] {
        let events = noted(&id);
        assert!(events.contains("\"remote_may_have_acted\":true") && events.contains(kind), "{events}");
    }
}

/// A parent whose child is shielded; both take a while.
const SHIELDED: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: shielded, path: test/shielded}
workflow:
  - step: child
    tool: {kind: playbook, path: test/sleep, spec: {cancel: {policy: abandon}}}
"#;

#[test]
fn a_shielded_child_is_spared_listed_and_explained() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.file("shielded.yaml", SHIELDED);
    home.run(&["register", "sleep.yaml"]).done();
    home.run(&["register", "shielded.yaml"]).done();
    let id = start(&home, "test/shielded", &[]);
    let child = eventually("the child waits for a worker", || {
        let sql = format!("SELECT execution_id FROM noetl.execution WHERE parent_execution_id = {id}");
        let found = home.run(&["query", &sql, "--format", "json"]).done().json();
        let child = found.pointer("/result/0/execution_id").or_else(|| found.pointer("/result/0/0"))?.clone();
        Some(child.as_str().map_or_else(|| child.to_string(), str::to_owned))
    });
    let dry = home.run(&["cancel", &id, "--cascade", "--dry-run", "--json"]).done().json();
    assert_eq!(dry["spared"], json!([{"execution_id": child, "policy": "abandon"}]), "{dry}");
    assert_eq!(dry["would_cancel"], json!([id]), "{dry}");
    let said = home.run(&["cancel", &id, "--cascade", "-r", "enough"]).done();
    assert!(said.stdout.contains("Cancelled: 1 execution(s)\n"), "{}", said.stdout);
    let spared = format!("Execution {child} is spared (spec.cancel.policy: abandon); it runs on.");
    assert!(said.stderr.contains(&spared), "{}", said.stderr);
    let why = home.run(&["why", &child]).done().stdout;
    assert!(why.contains("a cancel of an ancestor spares it") && why.contains(&format!("↑ {id}")), "{why}");
    home.run(&["cancel", &child]).done();
    assert!(home.run(&["db", "verify"]).done().stdout.ends_with(" 0 problem(s)\n"));
}
