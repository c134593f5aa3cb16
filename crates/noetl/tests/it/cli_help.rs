//! The help texts, and the page in the documentation that repeats them.

use std::path::Path;

use crate::support::Home;

/// What stands above the help texts.
const ABOVE: &str = "\
# Command line

What `noetl --help` and `noetl COMMAND --help` say; a test keeps this page and the binary the same. The options under
*Where* may stand before or after any command's name, and are shown once.

What was asked for goes to stdout and nothing else does; progress, hints and errors go to stderr. Colours are for
terminals only, and `NO_COLOR` turns them off. `--json` prints documents with sorted keys.
";

/// Every command.
const COMMANDS: [&str; 87] = [
    "",
    "run",
    "cancel",
    "cleanup",
    "pause",
    "resume",
    "jobs",
    "why",
    "rerun",
    "status",
    "executions",
    "events",
    "logs",
    "tree",
    "wait",
    "query",
    "register",
    "register playbook",
    "register credential",
    "catalog",
    "catalog register",
    "catalog get",
    "catalog list",
    "catalog load",
    "list",
    "get",
    "get playbook",
    "get credential",
    "get execution",
    "get steps",
    "get result",
    "validate",
    "verify",
    "schema",
    "server",
    "server run",
    "server start",
    "server stop",
    "worker",
    "worker run",
    "worker start",
    "worker stop",
    "workers",
    "tools",
    "schedule",
    "schedule add",
    "schedule list",
    "schedule pause",
    "schedule resume",
    "schedule remove",
    "credential",
    "credential register",
    "credential list",
    "credential get",
    "credential delete",
    "credential rekey",
    "db",
    "db init",
    "db validate",
    "db verify",
    "db prune",
    "db size",
    "db backup",
    "context",
    "context add",
    "context update",
    "context use",
    "context list",
    "context set-runtime",
    "context delete",
    "context current",
    "bench",
    "bench chain",
    "bench loop",
    "bench cycle",
    "bench restart",
    "bench idle",
    "bench count",
    "bench cancel",
    "bench fanout",
    "bench python",
    "bench children",
    "bench mixed",
    "bench servers",
    "bench fill",
    "bench size",
    "completions",
];

/// `NOETL_UPDATE=1` writes the file anew.
#[test]
fn the_reference_page_is_what_the_binary_says() {
    let home = Home::new();
    let mut page = ABOVE.to_owned();
    for command in COMMANDS {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let said = home.run(&arguments).done();
        assert_eq!(said.stderr, "");
        for below in commands_in(&said.stdout) {
            let name = format!("{command} {below}");
            assert!(COMMANDS.contains(&name.trim()), "`noetl {name}` is missing here");
        }
        let title = if command.is_empty() { "noetl".to_owned() } else { format!("noetl {command}") };
        page.push_str(&format!("\n## `{title}`\n\n```text\n{}\n```\n", without_globals(&said.stdout).trim_end()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    if std::env::var_os("NOETL_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/reference/cli.md is old: run the tests once with NOETL_UPDATE=1");
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

/// Returns the commands that a help text lists.
fn commands_in(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
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
