//! Schedules, from the command line to the run.

use serde_json::{Value, json};

use crate::support::{Home, Server, eventually};

const JOB: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: job, path: test/job}
workload: {who: nobody}
workflow: [{step: a, tool: {kind: noop, result: '{{ who }}'}}]
";

fn listed(home: &Home) -> Vec<Value> {
    home.run(&["schedule", "list", "--json"]).done().json()["schedules"].as_array().unwrap().clone()
}

#[test]
fn a_schedule_starts_runs_until_it_is_paused_and_survives_the_server() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    home.file("job.yaml", JOB);
    home.run(&["register", "job.yaml"]).done();
    let add = ["schedule", "add", "often", "test/job", "--every", "1s", "--overlap", "allow", "--set", "who=clock"];
    let said = home.run(&add).done().stdout;
    assert!(said.starts_with("schedule often added: test/job every 1s, next run 20"), "{said}");
    let id =
        eventually("the clock has started a run", || listed(&home)[0]["last_execution_id"].as_str().map(str::to_owned));
    let run = home.run(&["get", "execution", &id]).done().json();
    assert_eq!((&run["path"], &run["workload"]["who"]), (&json!("test/job"), &json!("clock")));
    let started = home.run(&["events", &id, "--type", "playbook.initialized", "--json"]).done().json();
    assert_eq!(started["context"]["started_by"], "schedule:often");
    assert!(home.run(&["schedule", "list"]).done().stdout.contains("started"));
    let paused = home.run(&["schedule", "pause", "often"]).done().stdout;
    assert!(paused.ends_with("every 1s, waits for nothing\n"), "{paused}");
    assert_eq!(server.stop(), Some(0));
    let _server = Server::start(&home, &[]);
    assert_eq!(
        (listed(&home)[0]["enabled"].clone(), listed(&home)[0]["next_run_at"].clone()),
        (json!(false), Value::Null)
    );
    home.run(&["schedule", "resume", "often"]).done();
    eventually("it goes on", || (listed(&home)[0]["last_execution_id"] != json!(id)).then_some(()));
    home.run(&["schedule", "remove", "often"]).done();
    assert!(listed(&home).is_empty());
    assert_eq!(home.run(&["schedule", "remove", "often"]).exit, 4);
}

#[test]
fn what_can_not_be_a_schedule_is_refused_with_a_reason() {
    let home = Home::new();
    home.file("job.yaml", JOB);
    home.run(&["register", "job.yaml"]).done();
    let add = |more: &[&str]| {
        let mut arguments = vec!["schedule", "add", "x"];
        arguments.extend(more);
        home.run(&arguments)
    };
    for (more, exit, said) in [
        (&["test/job", "--cron", "61 * * * *"][..], 2, "is no cron pattern"),
        (&["test/job", "--cron", "0 0 30 2 *"], 2, "never comes"),
        (&["test/job", "--cron", "* * * * *", "--timezone", "Mars/Olympus"], 2, "`Mars/Olympus` is not known"),
        (&["test/job", "--every", "1500ms"], 2, "whole seconds"),
        (&["test/job", "--every", "1h", "--missed", "maybe"], 2, "write one of once skip all"),
        (&["test/job"], 2, "--cron"),
        (&["test/none", "--every", "1h"], 4, "playbook test/none is not in the catalog"),
    ] {
        let refused = add(more);
        assert_eq!(refused.exit, exit, "{more:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{more:?}: {}", refused.stderr);
    }
    let berlin = ["test/job", "--cron", "30 2 * * MON-FRI", "--timezone", "Europe/Berlin", "--json"];
    let added = add(&berlin).done();
    assert!(added.stderr.contains("nothing starts until one does"), "{}", added.stderr);
    let next = added.json()["next_run_at"].as_str().unwrap().to_owned();
    assert!(next.contains("T01:30:00") || next.contains("T00:30:00"), "{next}");
    assert_eq!(add(&berlin).exit, 1);
}
