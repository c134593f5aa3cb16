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

/// The options that stand everywhere are shown once.
fn without_globals(help: &str) -> String {
    let Some(start) = help.find("\nWhere:\n").filter(|_| !help.starts_with("Runs playbooks")) else {
        return help.to_owned();
    };
    let rest = &help[start + 1..];
    let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
    format!("{}{}", &help[..start], &rest[end..])
}
