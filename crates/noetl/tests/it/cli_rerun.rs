//! Running the same again, and completing command lines.

use serde_json::{Value, json};

use crate::support::{Home, Server, eventually};

/// The second step fails until its input says otherwise; the first leaves a large result and counts its runs.
const PLAYBOOK: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: again, path: test/again}
executor: {spec: {strict: true}}
workload: {good: false}
workflow:
  - step: first
    tool: {kind: shell, command: 'echo x >> runs; head -c 100000 /dev/zero | tr \\\\0 y'}
    set: {ctx.seen: '{{ first.stdout | length }}'}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: shell, command: '{{ good }}'}
    next: {arcs: [{step: third}]}
  - {step: third, tool: {kind: noop, result: {seen: '{{ ctx.seen }}', length: '{{ first.stdout | length }}'}}}
";

fn ended(home: &Home, id: &str) -> Value {
    eventually("it has ended", || {
        let status = home.run(&["status", id, "--json"]).done().json();
        (status["status"] != "RUNNING").then_some(status)
    })
}

fn id_of(reply: &Value) -> String {
    reply["execution_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_failed_run_goes_on_where_it_failed_with_what_had_finished() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("again.yaml", &PLAYBOOK.replace("'{{ good }}'", "'{{ good | string | lower }}'"));
    home.run(&["register", "again.yaml"]).done();
    let first = id_of(&home.run(&["run", "test/again", "-r", "distributed", "--json"]).done().json());
    assert_eq!(ended(&home, &first)["status"], "FAILED");
    let said = home.run(&["rerun", &first, "--keep-finished", "--set", "good=true", "--json"]).done().json();
    assert_eq!((&said["rerun_of"], &said["begins_at"]), (&json!(first), &json!(["second"])));
    assert_eq!(said["kept_steps"], json!(["first"]));
    let second = id_of(&said);
    assert_eq!(ended(&home, &second)["status"], "COMPLETED");
    // The first step has not run again, and its large result is the new execution's own.
    assert_eq!(std::fs::read_to_string(home.path().join("runs")).unwrap(), "x\n");
    let detail = home.run(&["get", "execution", &second]).done().json();
    assert_eq!((&detail["rerun_of"], &detail["result"]), (&json!(first), &json!({"seen": 100_000, "length": 100_000})));
    home.run(&["db", "prune", "--older-than", "0s", "--yes"]).done();
    // From the start it all runs again.
    let third = home.run(&["run", "test/again", "-r", "distributed", "--set", "good=true", "--json"]).done().json();
    let third = id_of(&third);
    assert_eq!(ended(&home, &third)["status"], "COMPLETED");
    let said = home.run(&["execute", "rerun", &third]).done().stdout;
    assert!(
        said.starts_with("Execution ") && said.contains(&format!(" started: {third} again, from the start")),
        "{said}"
    );
    let refused = home.run(&["rerun", &third, "--keep-finished"]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("nothing is left to run"), "{}", refused.stderr);
    assert_eq!(home.run(&["rerun", "4242"]).exit, 4);
    home.run(&["db", "verify"]).done();
}

#[test]
fn a_cancelled_run_begins_anew_with_what_was_under_way() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let text = PLAYBOOK.replace("'{{ good }}'", "'touch up; [ -e go ] || sleep 1000'");
    home.file("again.yaml", &text);
    home.run(&["register", "again.yaml"]).done();
    let first = id_of(&home.run(&["run", "test/again", "-r", "distributed", "--json"]).done().json());
    eventually("the second step runs", || home.path().join("up").exists().then_some(()));
    let refused = home.run(&["rerun", &first]);
    assert!(refused.exit == 1 && refused.stderr.contains("is still RUNNING"), "{}", refused.stderr);
    home.run(&["cancel", &first, "--interrupt", "--wait"]).done();
    home.file("go", "");
    let said = home.run(&["rerun", &first, "--keep-finished", "--json"]).done().json();
    assert_eq!(said["begins_at"], json!(["second"]));
    assert_eq!(ended(&home, &id_of(&said))["status"], "COMPLETED");
    assert_eq!(std::fs::read_to_string(home.path().join("runs")).unwrap(), "x\n");
}

#[test]
fn shells_can_complete_command_lines() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = home.run(&["completions", shell]).done();
        assert!(said.stdout.contains("keep-finished") && said.stdout.contains("schedule"), "{shell}");
        assert_eq!(said.stderr, "");
    }
    home.file("noetl.bash", &home.run(&["completions", "bash"]).done().stdout);
    let line =
        "source noetl.bash; COMP_WORDS=(noetl sched); COMP_CWORD=1; _noetl noetl sched noetl; echo \"${COMPREPLY[@]}\"";
    assert_eq!(home.shell(line).done().stdout, "schedule\n");
}
