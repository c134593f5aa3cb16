//! What stands under `deploy/`: it parses, and every command in it is one that the binary knows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Home;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn words(list: &Value) -> Vec<String> {
    let items = list.as_array().unwrap_or_else(|| panic!("no list of words: {list}")).iter();
    items.map(|item| item.as_str().unwrap_or_else(|| panic!("not quoted: {item}")).to_owned()).collect()
}

/// Asks the binary whether it would understand the arguments: with `--help` behind them it shows the help of the
/// command, unless something before it is unknown, malformed or in conflict.
fn assert_understood(arguments: &[String], of: &str) {
    let home = Home::new();
    let mut asked: Vec<&str> = arguments.iter().map(String::as_str).collect();
    asked.push("--help");
    let said = home.run(&asked);
    assert_eq!(said.exit, 0, "{of}: noetl {}\n{}", arguments.join(" "), said.stderr);
    assert!(said.stdout.contains("Usage: noetl"), "{of}: {}", said.stdout);
}

/// The check itself finds what is wrong.
#[test]
fn an_unknown_option_would_be_found() {
    let home = Home::new();
    for wrong in [&["server", "run", "--no-such-option", "--help"][..], &["worker", "run", "--slots", "x", "--help"]] {
        assert_eq!(home.run(wrong).exit, 2, "{wrong:?}");
    }
}

#[test]
fn the_compose_file_parses_and_its_commands_are_understood() {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    let mut kinds = Vec::new();
    for (name, service) in services {
        // Merged in from above by `<<`, whether or not the reader has done so.
        let command = match (&service["command"], &service["<<"]["command"]) {
            (Value::Null, Value::Null) => panic!("{name} has no command"),
            (Value::Null, merged) => merged,
            (own, _) => own,
        };
        let command = words(command);
        kinds.push(command[0].clone());
        if command[0] != "postgres" {
            assert_understood(&command, name);
        }
    }
    kinds.sort();
    assert_eq!(kinds, ["postgres", "server", "server", "worker", "worker"]);
    // Two that build make two images under one name.
    assert_eq!(services.values().filter(|service| !service["build"].is_null()).count(), 1);
    for volume in compose["volumes"].as_object().unwrap().keys() {
        assert!(services.contains_key(volume), "volume {volume} is nobody's");
    }
}

#[test]
fn the_kubernetes_manifest_parses_and_stops_its_pods_gently() {
    let text = read("kubernetes.yaml");
    let documents: Vec<Value> = text.split("\n---\n").map(|one| serde_saphyr::from_str(one).unwrap()).collect();
    let kinds: Vec<&str> = documents.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Service", "Deployment", "Deployment", "PodDisruptionBudget"]);
    for deployment in documents.iter().filter(|one| one["kind"] == "Deployment") {
        let name = deployment["metadata"]["name"].as_str().unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]["metadata"]["labels"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        // Else the Service's name gives every pod a NOETL_PORT that is no port.
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        let container = &pod["containers"][0];
        let arguments = words(&container["args"]);
        assert_understood(&arguments, name);
        // Time to drain, and to be gone after it.
        let drain = arguments.iter().position(|word| word == "--drain").map_or("30s", |at| &arguments[at + 1]);
        let drain: u64 = drain.trim_end_matches('s').parse().unwrap();
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= drain + 20, "{name}");
        let mounted = container["volumeMounts"].as_array().unwrap().iter();
        for mount in mounted {
            let volumes = pod["volumes"].as_array().unwrap();
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{name}: {mount}");
        }
        if name == "noetl-server" {
            // The paths that need no token.
            for (probe, path) in
                [("startupProbe", "/health"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")]
            {
                assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
                assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"], "{probe}");
            }
        }
    }
    assert_eq!(documents[0]["spec"]["ports"][0]["targetPort"], "http");
}

#[test]
fn the_units_start_commands_that_are_understood_and_give_them_time_to_stop() {
    for unit in ["noetl-server.service", "noetl-worker@.service"] {
        let text = read(&format!("systemd/{unit}"));
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            let found: Vec<&str> = lines.collect();
            assert_eq!(found.len(), 1, "{unit}: {key}");
            found[0].to_owned()
        };
        for section in ["[Unit]", "[Service]", "[Install]"] {
            assert!(text.lines().any(|line| line == section), "{unit}: {section}");
        }
        // What systemd fills in.
        let line = value("ExecStart").replace("${NOETL_SERVERS}", "http://localhost:8082").replace("%i", "default");
        let mut command = line.split_whitespace().map(|word| word.replace("%H", "host"));
        assert_eq!(command.next().as_deref(), Some("/usr/local/bin/noetl"));
        let arguments: Vec<String> = command.collect();
        assert_understood(&arguments, unit);
        let drain = arguments.iter().position(|word| word == "--drain").map(|at| arguments[at + 1].clone()).unwrap();
        let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
        assert!(seconds(&value("TimeoutStopSec")) >= seconds(&drain) + 20, "{unit}");
        assert_eq!(value("KillMode"), "mixed");
        // A second start mends what is away, never what is misspelt; a limit of starts would end the first.
        assert_eq!(value("Restart"), "on-failure");
        assert_eq!(value("StartLimitIntervalSec"), "0");
        assert_eq!(value("RestartPreventExitStatus"), "2");
    }
}

#[test]
fn the_image_runs_a_command_that_is_understood_as_somebody_without_rights() {
    let text = read("Dockerfile");
    let exec = |key: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
        serde_json::from_str(line.trim()).unwrap()
    };
    assert_eq!(exec("ENTRYPOINT"), ["noetl"]);
    assert_understood(&exec("CMD"), "Dockerfile");
    assert!(text.lines().any(|line| line == "USER 10001"));
    assert_eq!(text.matches("\nFROM ").count(), 2, "built in one stage, run in another");
    assert!(text.contains("FROM rust:1.95"));
    // The minimal one lacks modules that python steps and health checks need.
    assert!(text.lines().any(|line| line.contains("apt-get install") && line.contains(" python3 ")));
}
