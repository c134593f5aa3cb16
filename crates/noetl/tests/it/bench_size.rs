//! `noetl bench fill` and `bench size`: what they write is in order, and what they ask is answered. Their figures are
//! nobody's promise, so they are not looked at.

use serde_json::Value;

use crate::support::Home;

/// Executions written: several batches, and a last one that is cut off.
const EXECUTIONS: u64 = 1_250;

fn fill_and_look(home: &Home, place: &[&str]) {
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().chain(place).copied().collect();
        home.run(&all).done()
    };
    let filled = run(&["bench", "fill", "--executions", &EXECUTIONS.to_string(), "--json"]).json();
    assert_eq!(filled["executions"], EXECUTIONS);
    let verified = run(&["verify", "--all", "--json"]).json();
    assert_eq!((&verified["executions"], &verified["events"]), (&filled["executions"], &filled["events"]));
    assert_eq!(verified["problems"], Value::Array(Vec::new()));
    assert!(run(&["db", "validate"]).stdout.contains("\"valid\": true"));
    // Filled up again, it holds nothing twice.
    run(&["bench", "fill", "--executions", "250", "--what", "ended"]);
    let seen = run(&["bench", "size", "--seconds", "1", "--warm-up", "0", "--callers", "2", "--looks", "3", "--json"]);
    let seen = seen.json();
    assert_eq!(seen["executions"], EXECUTIONS + 250);
    assert!(seen["steps"]["steps_per_second"].as_f64() > Some(0.0), "{seen}");
    assert!(seen["questions"].as_array().unwrap().len() > 10, "{seen}");
    assert_eq!(run(&["verify", "--all", "--json"]).json()["status"], "ok");
}

#[test]
fn a_data_directory_is_filled_with_what_could_have_happened() {
    let home = Home::new();
    fill_and_look(&home, &["--data-dir", "full"]);
    // Nobody's own runs are filled up by accident.
    let said = home.run(&["bench", "fill", "--executions", "1"]);
    assert_eq!((said.exit, said.stderr.contains("--data-dir or --database-url")), (2, true), "{said:?}");
}

#[test]
fn a_database_is_filled_with_what_could_have_happened() {
    let Some(home) = Home::on_postgres() else { return };
    let url = home.database_url().unwrap();
    fill_and_look(&home, &["--database-url", &url]);
}
