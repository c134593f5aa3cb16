//! Every playbook under `examples/`, run by the binary, with what must come out of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Home, Server, eventually};

/// What must come out.
enum Ends {
    /// It completes, and this step has this result: the fields named here, whatever else there is.
    Completed(&'static str, Value),
    /// It goes on until it is cancelled; this step is visited or run over and over.
    Never(&'static str),
}

/// One row for each file. A new example needs a row.
fn rows() -> Vec<(&'static str, &'static [&'static str], Ends)> {
    use Ends::{Completed, Never};
    vec![
        ("cycle.yaml", &[], Completed("check", json!({"pages": 4, "items": 12}))),
        (
            "error_arc.yaml",
            &[],
            Completed("apologise", json!({"sorry": "ValueError: invalid literal for int() with base 10: 'twelve'"})),
        ),
        ("error_arc.yaml", &["text=12"], Completed("use", json!({"twice": 24}))),
        (
            "family/branch.yaml",
            &["seconds=1"],
            Completed("total", json!({"region": "region-1", "leaves": 3, "digests": 6})),
        ),
        ("family/leaf.yaml", &["seconds=1"], Completed("end", json!({"name": "leaf", "digests": 2}))),
        ("family/parent.yaml", &["seconds=1"], Completed("report", json!({"branches": 3, "leaves": 9, "digests": 18}))),
        ("fan_out_join.yaml", &[], Completed("report", json!({"words": 5, "lines": 2}))),
        ("hello.yaml", &[], Completed("repeat", json!({"stdout": "Hello, World! (5 letters)\n", "exit_code": 0}))),
        ("hello.yaml", &["name=Ada"], Completed("repeat", json!({"stdout": "Hello, Ada! (3 letters)\n"}))),
        ("loop_parallel.yaml", &[], Completed("check", json!({"slept": 0.4 + 0.3 + 0.2 + 0.1}))),
        ("loop_sequential.yaml", &[], Completed("check", json!({"total": 35}))),
        ("patterns/cancel_activity.yaml", &[], Completed("report", json!({"answer": 42}))),
        ("patterns/cancel_case.yaml", &[], Never("poll")),
        ("patterns/cancel_instances.yaml", &[], Completed("report", json!({"gave_up": true}))),
        ("patterns/cancel_region.yaml", &[], Completed("report", json!({"audit": true, "refund": true}))),
        ("patterns/complete_instances.yaml", &[], Completed("count", json!({"answers": 2}))),
        ("retry_backoff.yaml", &[], Completed("check", json!({"attempts": 3}))),
        ("runaway/jump_cycle.yaml", &[], Never("start")),
        ("runaway/noop_cycle.yaml", &[], Never("again")),
        ("runaway/python_cycle.yaml", &[], Never("poll")),
        ("sub_playbook/order.yaml", &[], Completed("check", json!({"price": 58.5}))),
        ("sub_playbook/price.yaml", &[], Completed("compute", json!({"price": 10}))),
        ("undo.yaml", &[], Completed("check", json!({"room": 12}))),
    ]
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap()
}

fn playbooks(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            playbooks(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.insert(path);
        }
    }
}

#[test]
fn every_example_has_a_row_and_every_row_an_example() {
    let mut found = BTreeSet::new();
    playbooks(&examples(), &mut found);
    let rows: BTreeSet<PathBuf> = rows().iter().map(|(file, ..)| examples().join(file)).collect();
    assert_eq!(found, rows, "what is on the left has no row, what is on the right no file");
    let readme = std::fs::read_to_string(examples().join("README.md")).unwrap();
    for file in found {
        let name = file.strip_prefix(examples()).unwrap();
        let folder = format!("{}/", name.parent().unwrap().display());
        let named = readme.contains(&format!("`{}`", name.display())) || readme.contains(&format!("`{folder}`"));
        assert!(named, "examples/README.md does not say what {} shows", name.display());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{} begins with no comment", name.display());
    }
}

#[test]
fn every_example_gives_what_it_says() {
    let home = Home::new();
    let _server = Server::start(&home, &["--worker-slots", "12"]);
    let folder = examples();
    home.run(&["register", "playbook", "-d", folder.to_str().unwrap()]).done();
    // All at the same time: an example does not care what else runs.
    let mut running = Vec::new();
    for (file, inputs, ends) in rows() {
        let path = folder.join(file);
        let mut arguments = vec!["run", path.to_str().unwrap(), "-r", "distributed", "--json"];
        for input in inputs {
            arguments.extend(["--set", input]);
        }
        let started = home.run(&arguments).done().json();
        running.push((file, ends, started["execution_id"].as_str().unwrap().to_owned()));
    }
    for (file, ends, id) in running {
        match ends {
            Ends::Completed(step, result) => {
                let said = home.run(&["wait", &id, "--timeout", "60s"]);
                assert_eq!((said.exit, said.stdout.as_str()), (0, "COMPLETED\n"), "{file}: {}", said.stderr);
                assert_eq!(label(file), "completed", "{file}: the label `ends`");
                let came = result_of(&home, &id, step);
                for (key, value) in result.as_object().unwrap() {
                    assert_eq!(came[key], *value, "{file}: `{key}` of step {step} in {came}");
                }
            }
            Ends::Never(step) => {
                assert_eq!(label(file), "never", "{file}: the label `ends`");
                eventually("it goes round", || {
                    let status = home.run(&["status", &id, "--json"]).json();
                    let busy = status["current_step"] == *step || status["most_visited_step"]["step"] == *step;
                    let visits = status["most_visited_step"]["visits"].as_u64().unwrap_or(0);
                    (busy && (visits > 3 || status["in_flight"].as_u64() > Some(0))).then_some(())
                });
                home.run(&["cancel", &id, "--wait", "--reason", "Detected infinite loop"]).done();
                let status = home.run(&["status", &id, "--json"]).json();
                assert_eq!((&status["status"], &status["quiesced"]), (&json!("CANCELLED"), &json!(true)), "{file}");
            }
        }
    }
}

/// The label `ends` in the metadata of an example.
fn label(file: &str) -> String {
    let text = std::fs::read_to_string(examples().join(file)).unwrap();
    let (_, label) = text.split_once("labels: {ends: ").unwrap_or_else(|| panic!("{file} has no label `ends`"));
    label.split('}').next().unwrap().to_owned()
}

/// The result of a step in full, as later steps see it.
fn result_of(home: &Home, id: &str, step: &str) -> Value {
    let owner = std::fs::read_to_string(home.path().join(".noetl/data/owner.lock")).unwrap();
    let owner: Value = serde_json::from_str(&owner).unwrap();
    let url = format!("{}/api/executions/{id}/steps/{step}", owner["url"].as_str().unwrap());
    home.shell(&format!("curl --silent --fail {url}")).done().json()["result"].clone()
}
