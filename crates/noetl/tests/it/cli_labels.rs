//! Labels on the command line.

use serde_json::json;

use crate::support::{Home, Server};

const PLAYBOOK: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waits, path: test/waits, labels: {team: data}}
workflow:
  - {step: start, tool: {kind: shell, command: 'true'}}
";

#[test]
fn what_is_labelled_is_listed_and_cancelled_by_its_label() {
    let home = Home::new();
    let _server = Server::start(&home, &["--no-worker"]);
    home.file("waits.yaml", PLAYBOOK);
    home.run(&["register", "waits.yaml"]).done();
    let start = |labels: &[&str]| {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let arguments: Vec<&str> =
            ["run", "test/waits", "-r", "distributed", "--json"].into_iter().chain(labels).collect();
        home.run(&arguments).done().json()["execution_id"].as_str().unwrap().to_owned()
    };
    let (one, two, web) = (start(&["batch=1"]), start(&["batch=2", "env=test"]), start(&["team=web"]));
    let block = home.run(&["status", &two]).done().stdout;
    assert!(block.contains("Labels:    batch=2, env=test, team=data\n"), "{block}");
    let listed = home.run(&["ps", "--label", "team=data", "--label", "env=test", "--json"]).done().json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["execution_id"].clone()).collect();
    assert_eq!(ids, [json!(two)]);

    let cancelled =
        home.run(&["cancel", "--filter", "label=team=data", "--filter", "label=batch=1", "--yes", "--json"]).done();
    assert_eq!(cancelled.json()["cancelled_executions"], json!([one]));
    let dry = home.run(&["cancel", "--filter", "label=team=data", "--dry-run", "--json"]).done().json();
    assert_eq!(dry["would_cancel"], json!([two]));
    let young = home.run(&["cleanup", "--label", "team=web", "--dry-run", "--json"]).done().json();
    assert_eq!(young["cancelled_count"], 0);
    let again = home.run(&["rerun", &one, "--label", "batch=9", "--json"]).done().json();
    let again = home.run(&["status", again["execution_id"].as_str().unwrap(), "--json"]).done().json();
    assert_eq!(again["labels"], json!({"batch": "9", "team": "data"}));
    let web = home.run(&["status", &web, "--json"]).done().json();
    assert_eq!((&web["status"], &web["labels"]), (&json!("RUNNING"), &json!({"team": "web"})));
    let query = "SELECT labels ->> 'batch' AS batch FROM noetl.execution WHERE labels ->> 'env' = 'test'";
    let found = home.run(&["query", query, "--format", "json"]).done().stdout;
    assert!(found.contains("\"2\""), "{found}");

    for (arguments, said) in [
        (&["run", "test/waits", "-r", "distributed", "--label", "team"][..], "`team` is no label: write name=value"),
        (&["ps", "--label", "a b=1"], "`a b` is no name of a label"),
        (&["cancel", "--filter", "lable=team=data", "--yes"], "did you mean `label`"),
    ] {
        let refused = home.run(arguments);
        assert_eq!(refused.exit, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
}
