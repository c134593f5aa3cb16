//! The promises of the cancellation contract, against the real binary with real processes and `kill -9`.
//!
//! Each test bears the numbers of what it shows. C1, C2 and C4 are shown by every one of them: at its end `noetl verify`
//! looks at the logs. C9 is shown beside `runaways`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::playbooks::SLEEP;
use crate::support::{Home, Server, eventually};

/// Children of a family, so that a cascade has something to walk. Each is two lines in the log of a server, which nobody
/// reads here: many more would fill the pipe.
const CHILDREN: usize = 100;
/// Cancels of one execution at once.
const CANCELS: usize = 50;
/// Servers killed in the middle of a cascade.
const KILLS: u64 = 4;

/// A tree of processes that does everything not to end: it ignores the polite signal, leaves its session, forks twice
/// so that nobody is its parent, stops itself, and hangs where nothing is to be read.
const WILD: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: wild, path: test/wild}
workload: {marker: none, folder: /nowhere}
workflow:
  - step: start
    tool:
      kind: shell
      cmds:
        - |
          export NOETL_TEST_MARK='{{ workload.marker }}'
          trap '' TERM
          (setsid bash -c 'trap "" TERM; while :; do sleep 1; done' >/dev/null 2>&1 &)
          setsid bash -c 'trap "" TERM; kill -STOP $$; sleep 600' >/dev/null 2>&1 &
          bash -c 'mkfifo "$0/never"; exec 3<>"$0/never"; exec cat <&3' '{{ workload.folder }}' &
          (bash -c 'trap "" TERM; sleep 600' &)
          echo up > '{{ workload.folder }}/up'
          while :; do sleep 1; done
"#;

const PARENT: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: test/parent}
workload: {children: 1}
workflow:
  - step: start
    loop: {in: "{{ range(workload.children) | list }}", iterator: i, spec: {mode: parallel, max_in_flight: 1000}}
    tool: {kind: playbook, path: test/sleep}
"#;

/// How many processes carry the mark in their environment, which every descendant inherits and none can take off.
fn marked(mark: &str) -> usize {
    let mark = format!("NOETL_TEST_MARK={mark}");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let environments = processes.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|one| one.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())).count()
}

/// Starts the wild tree and waits until all of it is there.
fn wild(home: &Home, mark: &str) -> String {
    home.file("wild.yaml", WILD);
    home.run(&["register", "wild.yaml"]).done();
    let (mark_flag, folder) = (format!("marker={mark}"), format!("folder={}", home.path().display()));
    let flags = ["run", "test/wild", "-r", "distributed", "--json", "--set", &mark_flag, "--set", &folder];
    let id = home.run(&flags).done().json()["execution_id"].as_str().unwrap().to_owned();
    eventually("the whole tree runs", || (home.path().join("up").exists() && marked(mark) >= 6).then_some(()));
    id
}

/// How each attempt that was in flight ended, by the certificate.
fn certificate(home: &Home, id: &str) -> Vec<String> {
    let events = home.run(&["events", id, "--json"]).done().stdout;
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let proof = events.find(|event| event["event_type"] == "execution.quiesced").unwrap();
    let ends = proof["context"]["commands"].as_array().unwrap().iter();
    ends.map(|ended| ended["end"].as_str().unwrap().to_owned()).collect()
}

fn verified(home: &Home) {
    let said = home.run(&["verify", "--all"]);
    assert_eq!(said.exit, 0, "{}{}", said.stdout, said.stderr);
}

#[test]
fn c5_c6_after_the_proof_no_process_of_a_wild_tree_lives() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    let mark = format!("wild-{}", std::process::id());
    let id = wild(&home, &mark);
    home.run(&["cancel", &id, "--interrupt", "--grace", "1s"]).done();
    // Waited for at the log, not at the answer: nothing comes between the proof and the look.
    assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
    assert_eq!(marked(&mark), 0, "the log says that nothing runs");
    assert_eq!(certificate(&home, &id), ["killed"]);
    verified(&home);
}

#[test]
fn c7_a_server_killed_in_the_middle_of_an_interrupt_leaves_nothing_stuck() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let mark = format!("killed-{}", std::process::id());
    let id = wild(&home, &mark);
    // So long a grace that the server certainly dies within it.
    home.run(&["cancel", &id, "--interrupt", "--grace", "600s"]).done();
    drop(server);
    // Its worker's tools go with it, whatever they are.
    eventually("nothing of the tree is left", || (marked(&mark) == 0).then_some(()));
    let _server = Server::start(&home, &[]);
    assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
    let ends = certificate(&home, &id);
    assert!(ends.len() == 1 && ["unreachable", "killed"].contains(&ends[0].as_str()), "{ends:?}");
    verified(&home);
}

#[test]
fn c3_c7_a_cascade_survives_the_servers_that_drive_it() {
    let home = Home::new();
    home.file("sleep.yaml", SLEEP);
    home.file("parent.yaml", PARENT);
    let set = format!("children={CHILDREN}");
    for kill in 0..KILLS {
        let server = Server::start(&home, &["--no-worker"]);
        home.run(&["register", "sleep.yaml"]).done();
        home.run(&["register", "parent.yaml"]).done();
        let started = home.run(&["run", "test/parent", "-r", "distributed", "--json", "--set", &set]).done().json();
        let root = started["execution_id"].as_str().unwrap().to_owned();
        eventually("every child is there", || {
            (count(&home, &format!("root_execution_id = {root}")) > CHILDREN as u64).then_some(())
        });
        let url = format!("{}/api/executions/{root}/cancel", server.url);
        let body = r#"{"cascade": true, "mode": "interrupt"}"#;
        let mut asked = home.program("curl", &["-s", "-H", "content-type: application/json", "-d", body, &url]);
        let mut asked = asked.stdout(std::process::Stdio::null()).spawn().unwrap();
        // A different moment each time; a server that was faster than that has nothing left to lose.
        std::thread::sleep(Duration::from_millis(2 + kill * 7));
        drop(server);
        asked.wait().unwrap();
        let _server = Server::start(&home, &["--no-worker"]);
        let status = home.run(&["status", &root, "--json"]).json()["status"].clone();
        if status == "RUNNING" {
            // The server died before the first fence. Was the cascade written down, the new server carries it through
            // by itself, and may be faster than we are; else nobody was told otherwise, and asking again helps.
            let again = home.run(&["cancel", &root, "--cascade", "--interrupt"]);
            assert!([0, 1].contains(&again.exit), "{}", again.stderr);
        }
        eventually("everything below is cancelled, without being asked again", || {
            let active = count(&home, &format!("root_execution_id = {root} AND status = 'RUNNING'"));
            (active == 0).then_some(())
        });
        assert_eq!(count(&home, &format!("root_execution_id = {root} AND status = 'CANCELLED'")), CHILDREN as u64 + 1);
        verified(&home);
    }
}

fn count(home: &Home, condition: &str) -> u64 {
    let sql = format!("SELECT count(*) AS n FROM noetl.execution WHERE {condition}");
    home.run(&["query", &sql, "--format", "json"]).done().json()["result"][0]["n"].as_u64().unwrap()
}

#[test]
fn c10_of_many_cancels_at_once_one_wins_and_the_others_are_told_who() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("sleep.yaml", SLEEP);
    home.run(&["register", "sleep.yaml"]).done();
    let started = home.run(&["run", "test/sleep", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    home.shell(&format!(
        "seq {CANCELS} | xargs -P {CANCELS} -I N curl -s -o answer-N -H 'content-type: application/json' \
         -d '{{\"reason\": \"number N\"}}' {}/api/executions/{id}/cancel",
        server.url
    ))
    .done();
    let answer = |number| std::fs::read_to_string(home.path().join(format!("answer-{number}"))).unwrap();
    let answers: Vec<Value> = (1..=CANCELS).map(|number| serde_json::from_str(&answer(number)).unwrap()).collect();
    let mut by_status: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for answer in &answers {
        by_status.entry(answer["status"].as_str().unwrap()).or_default().push(answer);
    }
    let won = by_status["cancelled"].as_slice();
    assert_eq!((won.len(), by_status["error"].len()), (1, CANCELS - 1));
    assert_eq!(won[0]["cancelled_executions"], serde_json::json!([id]));
    for lost in &by_status["error"] {
        assert_eq!(lost["message"], format!("Execution {id} is already CANCELLED"));
        assert_eq!(lost["cancelled_executions"], serde_json::json!([]));
        assert_eq!(lost["reason"], won[0]["reason"], "{lost}");
    }
    verified(&home);
}
