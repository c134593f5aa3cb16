//! The help texts, so that a change of the command line is seen.

use crate::support::Home;

const COMMANDS: [&str; 40] = [
    "",
    "run",
    "cancel",
    "status",
    "executions",
    "events",
    "tree",
    "wait",
    "query",
    "register",
    "register playbook",
    "catalog",
    "catalog register",
    "catalog get",
    "catalog list",
    "catalog load",
    "list",
    "get",
    "get playbook",
    "get execution",
    "get steps",
    "get result",
    "validate",
    "server",
    "server run",
    "server start",
    "server stop",
    "worker",
    "worker run",
    "db",
    "db init",
    "db verify",
    "db prune",
    "db size",
    "db backup",
    "context",
    "context add",
    "context update",
    "context use",
    "context set-runtime",
];

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    let mut all = String::new();
    for command in COMMANDS {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let said = home.run(&arguments).done();
        assert_eq!(said.stderr, "");
        all.push_str(&format!("$ noetl {}\n\n{}\n", arguments.join(" "), without_globals(&said.stdout)));
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn the_options_of_every_command_are_explained_everywhere() {
    let home = Home::new();
    for arguments in [&["--help"][..], &["cancel", "--help"], &["db", "size", "--help"]] {
        let text = home.run(arguments).done().stdout;
        for option in ["--server-url", "--host", "--port", "--context", "--session-token", "--token-file", "--data-dir"]
        {
            assert!(text.contains(option), "{arguments:?} {option}");
        }
    }
}

#[test]
fn without_a_command_the_help_is_shown() {
    let said = Home::new().run(&[]).done();
    assert!(said.stdout.contains("Usage: noetl") && said.stdout.contains("cancel"), "{}", said.stdout);
}

#[test]
fn the_version_is_said() {
    let said = Home::new().run(&["--version"]).done();
    assert_eq!(said.stdout, format!("noetl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_misspelt_command_is_met_with_a_suggestion_and_exit_2() {
    let said = Home::new().run(&["cancle", "1"]);
    assert_eq!(said.exit, 2);
    assert!(said.stderr.contains("cancel"), "{}", said.stderr);
}

/// Leaves out the options that stand everywhere, which the first help shows.
fn without_globals(help: &str) -> String {
    if help.starts_with("Runs playbooks") {
        return help.to_owned();
    }
    let mut out = String::new();
    let mut inside = false;
    for line in help.lines() {
        if line == "Where:" {
            inside = true;
        } else if !line.is_empty() && !line.starts_with(' ') {
            inside = false;
        }
        if !inside {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
