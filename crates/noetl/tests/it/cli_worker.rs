//! Workers as processes of their own.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Home, Server, deserted, eventually, signal, terminate};

const PYTHON: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: one, path: test/one}
executor: {spec: {pool: fast}}
workflow:
  - {step: start, tool: {kind: python, code: \"result = 1\"}, next: {arcs: [{step: big}]}}
  - {step: big, spec: {pool: slow}, tool: {kind: shell, command: 'touch up; while [ ! -e go ]; do sleep 0.05; done'}}
";

const STANDS_STILL: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: one, path: test/one}
workflow:
  - {step: start, tool: {kind: shell, command: 'touch up'}}
";

fn workers(home: &Home, url: &str) -> Vec<Value> {
    let said = home.run(&["workers", "--json", "--server-url", url]).done().json();
    said["workers"].as_array().unwrap().clone()
}

fn status(home: &Home, id: &str, url: &str) -> Value {
    home.run(&["status", id, "--json", "--server-url", url]).done().json()
}

fn until_completed(home: &Home, id: &str, url: &str) {
    eventually("it is completed", || (status(home, id, url)["status"] == "COMPLETED").then_some(()));
}

fn submit(home: &Home, file: &str, url: &str) -> String {
    let said = home.run(&["run", file, "--json", "--server-url", url]).done().json();
    said["execution_id"].as_str().unwrap().to_owned()
}

#[test]
fn workers_of_two_pools_in_the_background_share_a_run_and_are_listed_with_what_they_run() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("one.yaml", PYTHON);
    for pool in ["fast", "slow"] {
        let arguments =
            ["worker", "start", "--name", pool, "--pool", pool, "--slots", "2", "--server-url", &server.url];
        let said = home.run(&arguments).done();
        assert!(said.stdout.starts_with(&format!("Worker {pool} started with PID ")), "{}", said.stdout);
        assert!(home.path().join(format!(".noetl/noetl_worker_{pool}.pid")).exists());
        let again = home.run(&arguments).done();
        assert!(again.stdout.starts_with(&format!("Worker {pool} is already running with PID ")), "{}", again.stdout);
    }
    let id = submit(&home, "one.yaml", &server.url);
    eventually("the second step runs", || home.path().join("up").exists().then_some(()));
    let listed = workers(&home, &server.url);
    let names: Vec<&Value> = listed.iter().map(|worker| &worker["worker_id"]).collect();
    assert_eq!(names, ["fast", "slow"]);
    assert_eq!((&listed[0]["pools"], &listed[0]["commands"]), (&json!(["fast"]), &json!([])));
    let held = &listed[1]["commands"][0];
    assert_eq!((&held["execution_id"], &held["step"], &held["kind"]), (&json!(id), &json!("big"), &json!("shell")));
    let shown = home.run(&["workers", "--server-url", &server.url]).done().stdout;
    assert!(shown.contains("slow    slow   1/2") && shown.contains(&id), "{shown}");
    home.file("go", "");
    until_completed(&home, &id, &server.url);
    let said = home.run(&["worker", "stop"]);
    assert_eq!(said.exit, 2);
    assert!(said.stderr.contains("say which with --name: fast, slow"), "{}", said.stderr);
    let stopped = home.run(&["worker", "stop", "--name", "fast"]).done().stdout;
    assert!(stopped.starts_with("Worker with PID ") && stopped.ends_with(" stopped\n"), "{stopped}");
    assert_eq!(workers(&home, &server.url).len(), 1, "it said goodbye");
    home.run(&["worker", "stop"]).done();
    assert_eq!(home.run(&["worker", "stop"]).done().stdout, "No such worker is running in the background\n");
}

#[test]
fn what_waits_in_a_pool_that_nobody_serves_says_so() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("one.yaml", PYTHON);
    let id = submit(&home, "one.yaml", &server.url);
    eventually("the first step waits", || {
        (status(&home, &id, &server.url)["unserved_pools"] == json!(["fast"])).then_some(())
    });
    let said = |command: &[&str]| home.run(&[command, &["--server-url", &server.url]].concat()).done().stdout;
    let block = said(&["status", &id]);
    assert!(block.contains("start [pending] python in pool fast, which no worker serves, "), "{block}");
    assert!(said(&["why", &id]).contains("wait in a pool that no worker serves: fast. "));
    let listed = said(&["workers"]);
    assert!(listed.ends_with("POOL WITHOUT WORKER  WAITING\nfast                 1\n"), "{listed}");
    // With a worker there it goes on, and that worker is seen to leave.
    let arguments = ["worker", "run", "--name", "w", "--pool", "fast,slow", "--server-url", &server.url];
    let mut worker = home.spawn(&arguments);
    eventually("the second step runs", || home.path().join("up").exists().then_some(()));
    assert_eq!(status(&home, &id, &server.url)["unserved_pools"], json!([]));
    assert!(!said(&["workers"]).contains("POOL WITHOUT"));
    terminate(&worker);
    eventually("it is seen to drain", || said(&["workers"]).contains("w (draining)").then_some(()));
    home.file("go", "");
    until_completed(&home, &id, &server.url);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_goes_on_with_the_next_server_and_keeps_its_session() {
    let home = Home::new();
    home.file("one.yaml", &PYTHON.replace("pool: fast", "strict: true").replace("spec: {pool: slow}, ", ""));
    let first = Server::start(&home, &["--no-worker"]);
    let second = deserted();
    let port = second.rsplit_once(':').unwrap().1.to_owned();
    let both = format!("{},{second}", first.url);
    let mut worker = home.spawn(&["worker", "run", "--name", "w", "--server-url", &both]);
    let id = submit(&home, "one.yaml", &first.url);
    eventually("the second step runs", || home.path().join("up").exists().then_some(()));
    let session = workers(&home, &first.url)[0]["session_id"].clone();
    assert_eq!(first.stop(), Some(0));
    // The same deployment under another address: what the worker runs stays its own.
    let other = Server::start_at(&home, &["--no-worker"], &port);
    eventually("the worker has found the other server", || {
        let listed = workers(&home, &other.url);
        (listed.first()?["session_id"] == session).then_some(())
    });
    home.file("go", "");
    until_completed(&home, &id, &other.url);
    let lost = home.run(&["events", &id, "--type", "command.lost", "--json", "--server-url", &other.url]).done();
    assert_eq!(lost.stdout, "");
    terminate(&worker);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

/// The race: a worker's process stands still; a command is given to it, and cancelled; it goes on. The command comes
/// first and its cancel after it.
#[test]
fn what_was_cancelled_while_its_worker_stood_still_does_not_begin() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("one.yaml", STANDS_STILL);
    let mut worker = home.spawn(&["worker", "run", "--name", "w", "--server-url", &server.url]);
    // One that goes through, so that the worker knows how long answers take.
    home.file("warm.yaml", &STANDS_STILL.replace("touch up", "true").replace("one", "warm"));
    let warm = submit(&home, "warm.yaml", &server.url);
    until_completed(&home, &warm, &server.url);
    for mode in [None, Some("--interrupt")] {
        signal(&worker, Signal::STOP);
        let id = submit(&home, "one.yaml", &server.url);
        eventually("it is given to the worker", || (status(&home, &id, &server.url)["in_flight"] == 1).then_some(()));
        // Longer than an answer may take without any doubt.
        std::thread::sleep(std::time::Duration::from_millis(400));
        let cancel: Vec<&str> = ["cancel", &id, "--server-url", &server.url].into_iter().chain(mode).collect();
        home.run(&cancel).done();
        signal(&worker, Signal::CONT);
        home.run(&["wait", &id, "--for", "quiesced", "--server-url", &server.url]);
        let proof = home.run(&["events", &id, "--type", "execution.quiesced", "--json", "--server-url", &server.url]);
        assert!(proof.stdout.contains("never_started"), "{mode:?}: {}", proof.stdout);
        assert!(!home.path().join("up").exists(), "{mode:?}");
    }
    terminate(&worker);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_wants_encryption_beyond_its_own_machine() {
    let home = Home::new();
    let url = "http://localhost:1,http://noetl.example.com:8082";
    for arguments in [&["worker", "run", "--server-url", url], &["worker", "start", "--server-url", url]] {
        let said = home.run(arguments);
        assert_eq!(said.exit, 2, "{}", said.stderr);
        assert!(said.stderr.contains("http://noetl.example.com:8082 is not encrypted"), "{}", said.stderr);
        assert!(said.stderr.contains("--insecure"), "{}", said.stderr);
    }
    assert_eq!(home.run(&["worker", "run", "--name", "", "--server-url", "http://localhost:1"]).exit, 2);
    assert!(!home.path().join(".noetl").join("noetl_worker_.pid").exists());
    assert_eq!(home.run(&["worker", "run", "--pool", "", "--server-url", "http://localhost:1"]).exit, 2);
    let said = home.run(&["worker", "stop", "--name", "nobody"]);
    assert_eq!(said.exit, 4, "{said:?}");
    assert!(said.stderr.contains("no worker called `nobody`"), "{}", said.stderr);
}

#[test]
fn a_worker_whose_token_no_server_takes_says_so_and_ends() {
    let home = Home::new();
    home.file("tokens", "ann:a-token-of-some-length # hers\n");
    let server = Server::start(&home, &["--no-worker", "--token-file", "tokens"]);
    let wrong = ["--session-token", "another-token-of-length"];
    for how in ["run", "start"] {
        for token in [&wrong[..], &[]] {
            let arguments: Vec<&str> =
                ["worker", how, "--server-url", &server.url].iter().chain(token).copied().collect();
            let said = home.run(&arguments);
            assert_eq!(said.exit, 5, "{said:?}");
            assert!(said.stderr.contains(&format!("{} refuses this worker: ", server.url)), "{}", said.stderr);
        }
    }
    assert_eq!(home.run(&["worker", "stop"]).done().stdout, "No such worker is running in the background\n");
}

#[test]
fn a_worker_in_the_background_gets_its_token_and_nobody_can_read_it() {
    let home = Home::new();
    let token = "a-token-of-some-length";
    home.file("tokens", &format!("ann:{token} # hers\n"));
    let server = Server::start(&home, &["--no-worker", "--token-file", "tokens"]);
    home.run(&["context", "add", "there", "--server-url", &server.url, "--session-token", token]).done();
    let ways = [
        ["--session-token", token, "--server-url", &server.url],
        ["--token-file", "tokens", "--server-url", &server.url],
        ["--context", "there", "--python", "python3"],
    ];
    for way in ways {
        let arguments: Vec<&str> = ["worker", "start", "--name", "w"].iter().chain(&way).copied().collect();
        let said = home.run(&arguments).done().stdout;
        let pid = said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!line.contains(token), "{line}");
        eventually("the server knows the worker", || {
            let url = ["--server-url", &server.url, "--token-file", "tokens"];
            let listed = home.run(&[&["workers", "--json"][..], &url].concat()).done().json();
            (listed["workers"].as_array()?.len() == 1).then_some(())
        });
        home.run(&["worker", "stop"]).done();
    }
}

#[test]
fn a_worker_names_the_socket_where_nobody_answers() {
    let home = Home::new();
    let mut worker = home.spawn(&["worker", "run", "--data-dir", "data"]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(worker.stderr.take().unwrap()));
    let said = lines.by_ref().map_while(Result::ok).find(|line| line.contains("trying again")).unwrap();
    assert!(said.contains("data/noetl.sock: ") && !said.contains("http://localhost"), "{said}");
    terminate(&worker);
    worker.wait().unwrap();
}
