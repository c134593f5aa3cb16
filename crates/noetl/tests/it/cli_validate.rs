//! Checking playbook files without running them.

use crate::support::Home;

const VALID: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: hello
  path: demo/hello
workflow:
  - step: start
    tool:
      kind: noop
    next:
      spec: {mode: exclusive}
      arcs:
        - step: end
  - step: end
    tool:
      kind: noop
";

#[test]
fn a_valid_file_is_said_to_be_valid() {
    let home = Home::new();
    home.file("a.yaml", VALID);
    let said = home.run(&["validate", "a.yaml"]).done();
    assert_eq!(said.stdout, "a.yaml: valid (demo/hello)\n");
    let json = home.run(&["validate", "a.yaml", "--json"]).done().json();
    assert_eq!(json["valid"], true);
}

#[test]
fn every_mistake_of_every_file_is_shown_with_its_place() {
    let home = Home::new();
    home.file("a.yaml", VALID);
    home.file(
        "b.yaml",
        &VALID.replace("- step: end\n  - step: end", "- step: ende\n  - step: end").replace("kind: noop", "kind: nop"),
    );
    let said = home.run(&["validate", "a.yaml", "b.yaml", "missing.yaml"]);
    assert_eq!(said.exit, 2);
    assert!(said.stdout.contains("a.yaml: valid") && said.stdout.contains("b.yaml: invalid, "), "{}", said.stdout);
    assert!(said.stderr.contains("--> b.yaml:13:"), "{}", said.stderr);
    assert!(said.stderr.contains("`nop`") && said.stderr.contains("`ende`"), "{}", said.stderr);
    assert!(said.stderr.contains("can not read missing.yaml"), "{}", said.stderr);
    let json = home.run(&["validate", "b.yaml", "--json"]);
    assert_eq!(json.exit, 2);
    let findings = json.json()["findings"].as_array().unwrap().clone();
    assert!(findings.len() >= 2 && findings.iter().all(|finding| finding["line"].is_u64()), "{findings:?}");
}

#[test]
fn a_broken_file_is_not_run() {
    let home = Home::new();
    home.file("b.yaml", &VALID.replace("kind: noop", "kind: nop"));
    let said = home.run(&["run", "b.yaml"]);
    assert_eq!((said.exit, said.stdout.as_str()), (2, ""));
    assert!(said.stderr.contains("b.yaml is no valid playbook: 2 errors"), "{}", said.stderr);
    assert!(!home.path().join(".noetl").exists(), "nothing was opened");
}

#[test]
fn a_dry_run_says_what_would_run_and_runs_nothing() {
    let home = Home::new();
    home.file("a.yaml", VALID);
    let said = home.run(&["run", "a", "--set", "n=3", "--dry-run"]).done();
    assert_eq!(
        said.stdout,
        "
[DRY RUN] Would execute with:
  Runtime: local
  File: a.yaml
  Workload: {\"n\":3}
  Playbook: demo/hello
  Steps:
    start (noop) -> end
    end (noop)
"
    );
    assert!(!home.path().join(".noetl").exists());
}

#[test]
fn a_dry_run_of_a_name_in_the_catalog_says_which_version_would_run_and_how() {
    let home = Home::new();
    home.file("a.yaml", VALID);
    home.run(&["register", "a.yaml"]).done();
    home.file("a.yaml", &VALID.replace("step: end", "step: finish"));
    home.run(&["register", "a.yaml"]).done();
    let plan = |version: &str, last: &str| {
        format!(
            "\n[DRY RUN] Would execute with:\n  Runtime: local\n  Catalog: demo/hello version {version}\n  \
             Playbook: demo/hello\n  Steps:\n    start (noop) -> {last}\n    {last} (noop)\n"
        )
    };
    assert_eq!(home.run(&["run", "demo/hello", "--dry-run"]).done().stdout, plan("2", "finish"));
    assert_eq!(home.run(&["run", "demo/hello@1", "--dry-run"]).done().stdout, plan("1", "end"));
    let as_json = home.run(&["run", "demo/hello", "--dry-run", "--json"]).done().json();
    assert_eq!(as_json["steps"], serde_json::json!(["start (noop) -> finish", "finish (noop)"]));
    let said = home.run(&["run", "demo/nothing", "--dry-run"]);
    assert_eq!((said.exit, said.stdout.as_str()), (4, ""));
    assert!(said.stderr.contains("register it first"), "{}", said.stderr);
    assert!(home.run(&["list", "--json"]).done().stdout.contains("demo/hello"), "nothing was run or changed");
}

#[test]
fn a_run_begins_where_the_playbook_begins() {
    let home = Home::new();
    home.file("a.yaml", VALID);
    home.run(&["run", "a.yaml", "-t", "start", "--dry-run"]).done();
    let said = home.run(&["run", "a.yaml", "-t", "end", "--dry-run"]);
    assert_eq!(said.exit, 2);
    assert!(said.stderr.contains("entry_step: end"), "{}", said.stderr);
    let said = home.run(&["run", "a.yaml", "-t", "middle", "--dry-run"]);
    assert!(said.stderr.contains("its steps are: start, end"), "{}", said.stderr);
}
