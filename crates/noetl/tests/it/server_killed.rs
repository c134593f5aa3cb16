//! `kill -9` of the server at any moment, again and again: nothing acknowledged is lost, nothing runs twice under one
//! epoch, everything ends.
//!
//! Every step writes a line to a file outside the store, so what really ran is known from somewhere else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Home, Server, eventually};

/// Kills and starts per kill in every run; `NOETL_TEST_LONG=1` (`./test --long`) does the many.
const KILLS: u64 = 6;
const KILLS_LONG: u64 = 100;
const STARTS_PER_KILL: u64 = 5;
/// Longest time between the start of a server and its end, in milliseconds.
const ALIVE_MS_MAX: u64 = 700;

const CHAIN: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: chain, path: test/killed}
# A command may be lost more often than the usual three times: whoever kills a hundred servers kills one attempt often.
executor: {spec: {limits: {losses: 1000}}}
workflow:
  - step: start
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: one}, {step: many}]}
  - step: one
    tool: {kind: shell, cmds: ["echo '{{ execution_id }} one' >> '{{ file }}'"]}
    next: {arcs: [{step: two}]}
  - step: two
    tool: {kind: python, input: {file: "{{ file }}", id: "{{ execution_id }}"}, code: "open(file, 'a').write(id + ' two\\n')"}
    next: {arcs: [{step: end}]}
  - step: many
    loop: {in: 3, iterator: i, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: shell, cmds: ["echo '{{ execution_id }} many' >> '{{ file }}'"]}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: shell, cmds: ["echo '{{ execution_id }} end' >> '{{ file }}'"]}
"#;

/// SplitMix64: the moments of death come from a seed.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % bound
}

fn seed() -> u64 {
    let given = std::env::var("NOETL_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

#[test]
fn a_server_killed_at_any_moment_loses_nothing_and_runs_nothing_twice_under_one_epoch() {
    let seed = seed();
    println!("replay: NOETL_KILL_SEED={seed} cargo nextest run -p noetl a_server_killed_at_any_moment");
    let mut state = seed;
    let kills = if std::env::var_os("NOETL_TEST_LONG").is_some() { KILLS_LONG } else { KILLS };
    let home = Home::new();
    home.file("killed.yaml", CHAIN);
    let file = home.path().join("lines");
    let file_flag = format!("file={}", file.display());
    let mut acknowledged = Vec::new();
    for round in 0..kills {
        let server = Server::start(&home, &["--worker-slots", "4"]);
        if round == 0 {
            home.run(&["register", "killed.yaml"]).done();
        }
        for _ in 0..STARTS_PER_KILL {
            let said = home.run(&["run", "test/killed", "-r", "distributed", "--json", "--set", &file_flag]).done();
            acknowledged.push(said.json()["execution_id"].as_str().unwrap().to_owned());
        }
        std::thread::sleep(Duration::from_millis(draw(&mut state, ALIVE_MS_MAX)));
        // Dropping it is kill -9.
        drop(server);
    }
    let _server = Server::start(&home, &["--worker-slots", "4"]);
    for id in &acknowledged {
        let said = home.run(&["wait", id, "--timeout", "120s"]);
        let ended = (said.exit, said.stdout.as_str());
        assert_eq!(ended, (0, "COMPLETED\n"), "{id} (seed {seed}): {}", home.run(&["status", id, "--json"]).stdout);
    }
    let ran = lines(&file);
    for id in &acknowledged {
        check(&home, id, &ran, seed);
    }
    let verified = home.run(&["db", "verify"]);
    assert_eq!(verified.exit, 0, "seed {seed}: {}{}", verified.stdout, verified.stderr);
    // Everything ended, and nothing is left that could still run.
    eventually("nothing is in flight", || {
        let rows = home.run(&["query", "-f", "json", "SELECT count(*) AS n FROM noetl.command"]).done().json();
        (rows["result"][0]["n"] == 0).then_some(())
    });
}

/// How often each step of each execution wrote its line.
fn lines(file: &Path) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let (id, step) = line.split_once(' ').unwrap();
        *counts.entry((id.to_owned(), step.to_owned())).or_default() += 1;
    }
    counts
}

/// An attempt writes its line at most once, so there are no more lines than claims; a step that the log has as
/// completed wrote at least one.
fn check(home: &Home, id: &str, ran: &BTreeMap<(String, String), usize>, seed: u64) {
    let query = format!(
        "SELECT node_name, event_type, count(*) AS n, count(DISTINCT command_id || '/' || attempt) AS attempts \
         FROM noetl.event WHERE execution_id = {id} AND event_type IN ('command.claimed', 'command.completed') \
         GROUP BY node_name, event_type"
    );
    let rows = home.run(&["query", "-f", "json", &query]).done().json();
    let count = |step: &str, event: &str, column: &str| -> usize {
        let row = rows["result"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["node_name"] == step && row["event_type"] == event);
        row.and_then(|row: &Value| row[column].as_u64()).unwrap_or(0) as usize
    };
    for (step, times) in [("one", 1), ("two", 1), ("many", 3), ("end", 1)] {
        let wrote = ran.get(&(id.to_owned(), step.to_owned())).copied().unwrap_or(0);
        let claimed = count(step, "command.claimed", "n");
        assert_eq!(
            claimed,
            count(step, "command.claimed", "attempts"),
            "{id} {step}: claimed twice under one epoch, seed {seed}"
        );
        assert_eq!(count(step, "command.completed", "n"), times, "{id} {step}: outcomes, seed {seed}");
        assert!(wrote >= times, "{id} {step}: {wrote} lines for {times} acknowledged outcomes, seed {seed}");
        assert!(wrote <= claimed, "{id} {step}: {wrote} lines of {claimed} attempts, seed {seed}");
    }
}
