//! What happens when the worker, the supervisor, or the future that waits for them is gone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use noetl_core::tool::Stopped;
use rustix::process::{PidfdFlags, Signal, pidfd_open};

use crate::support::{
    Bench, Lines, PATIENCE, TESTBED, ends_within, kill, printed, processes_in, shell, wait_until_empty,
};

/// Starts a worker that runs `command` in `slots` slots at once and passes on what they print.
fn worker(directory: &std::path::Path, slots: usize, kind: &str, command: &str) -> Child {
    // Without control groups: what holds so holds with them.
    Command::new(TESTBED)
        .env("TESTBED_WITHOUT_CGROUPS", "1")
        .args(["worker", directory.to_str().unwrap(), &slots.to_string(), kind, command])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_lines(worker: &mut Child, line: &str, count: usize) {
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let seen = lines.map_while(Result::ok).filter(|printed| printed == line).take(count).count();
    assert_eq!(seen, count, "the worker ended early");
}

fn kill_worker(mut worker: Child) {
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn a_killed_worker_leaves_nothing_behind() {
    let table = [
        ("shell", "setsid -f sleep 1000; trap '' TERM; (sleep 1000; sleep 1000) & kill -STOP $!; echo ready; wait"),
        ("shell", "echo ready; kill -STOP $$"),
        ("python", "import os, time\nif os.fork():\n  print('ready')\nelse:\n  os.setsid()\ntime.sleep(1000)"),
    ];
    for (kind, command) in table {
        let directory = tempfile::tempdir().unwrap();
        let mut worker = worker(directory.path(), 2, kind, command);
        wait_for_lines(&mut worker, "ready", 2);
        kill_worker(worker);
        wait_until_empty(directory.path());
    }
}

#[test]
fn a_worker_killed_while_it_starts_things_leaves_nothing_behind() {
    // The moments of forks and execs, of supervisors and of tools, lie somewhere in these first milliseconds.
    for pause_us in (0..40_000).step_by(800) {
        let directory = tempfile::tempdir().unwrap();
        let worker = worker(directory.path(), 3, "shell", "while :; do setsid -f sleep 1000; done");
        let handle = pidfd_open(rustix::process::Pid::from_child(&worker), PidfdFlags::empty()).unwrap();
        assert!(!ends_within(&handle, Duration::from_micros(pause_us)));
        kill_worker(worker);
        wait_until_empty(directory.path());
    }
}

#[tokio::test]
async fn a_dropped_future_kills_its_tool_and_the_slot_serves_on() {
    let bench = Bench::new();
    let (log, mut lines) = Lines::new();
    tokio::select! {
        outcome = bench.run_with(shell("trap '' TERM; setsid -f sleep 1000; echo ready; sleep 1000"),
            noetl_tools::StopSignal::never(), &log) => panic!("it ended: {outcome:?}"),
        () = printed(&mut lines, "ready") => {}
    }
    let directory = bench.directory.path().to_owned();
    tokio::task::spawn_blocking(move || wait_until_empty(&directory)).await.unwrap();
    assert_eq!(bench.shell("echo again").await.data["stdout"], "again\n");
}

#[tokio::test]
async fn a_killed_supervisor_is_an_unconfirmed_end_that_still_leaves_nothing() {
    let mut bench = Bench::new();
    let (log, mut lines) = Lines::new();
    let command = "setsid -f sleep 1000; setsid -f env -i sleep 1000; (sleep 1000 &); trap '' TERM; echo ready; \
                   while :; do sleep 1000; done";
    let directory = bench.directory.path().to_owned();
    let killer = async {
        printed(&mut lines, "ready").await;
        kill(
            processes_in(&directory).iter().find(|process| process.name == "noetl-supervise").unwrap().pid,
            Signal::KILL,
        );
    };
    let (outcome, ()) = tokio::join!(bench.run_with(shell(command), noetl_tools::StopSignal::never(), &log), killer);
    assert_eq!(outcome.stopped, Some(Stopped::Unconfirmed));
    let error = outcome.error.unwrap();
    assert_eq!((error.code.as_str(), error.hard), ("SUPERVISOR_LOST", false));
    // What left its session and wiped its environment can be found only through its control group: that is why
    // the outcome claims nothing. Here it can be found through its directory.
    for process in processes_in(bench.directory.path()).iter().filter(|process| process.command_line == "sleep 1000 ") {
        kill(process.pid, Signal::KILL);
    }
    wait_until_empty(bench.directory.path());
    assert_eq!(bench.shell("echo again").await.data["stdout"], "again\n");
    bench.assert_nothing_runs();
}

#[tokio::test]
async fn a_supervisor_killed_while_idle_costs_one_command() {
    let bench = Bench::new();
    bench.shell("true").await;
    kill(bench.supervisor(), Signal::KILL);
    assert_eq!(bench.shell("true").await.error.unwrap().code, "SUPERVISOR_LOST");
    assert_eq!(bench.shell("true").await.error, None);
}

#[tokio::test]
async fn a_supervisor_follows_its_lifeline_and_no_signal() {
    let bench = Bench::new();
    let (log, mut lines) = Lines::new();
    let directory = bench.directory.path().to_owned();
    let signals = async {
        printed(&mut lines, "ready").await;
        let supervisor = processes_in(&directory).iter().find(|process| process.name == "noetl-supervise").unwrap().pid;
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::PIPE, Signal::ALARM] {
            kill(supervisor, signal);
        }
        std::fs::write(directory.join("go"), "").unwrap();
    };
    let command = "echo ready; while ! [ -e go ]; do sleep 0.01; done; echo done";
    let (outcome, ()) = tokio::join!(bench.run_with(shell(command), noetl_tools::StopSignal::never(), &log), signals);
    assert_eq!(outcome.data["stdout"], "ready\ndone\n");
}

#[tokio::test]
async fn closing_the_toolbox_ends_supervisors_and_interpreters() {
    let bench = Bench::new();
    bench.python("pass").await;
    bench.shell("true").await;
    tokio::time::timeout(PATIENCE, bench.toolbox.close()).await.unwrap();
    assert!(processes_in(bench.directory.path()).is_empty());
}
