//! Whatever a tree of processes does, it is over when the tool is, and nobody else is hit.

use std::time::Duration;

use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolCall, ToolOutcome};
use noetl_tools::{StopHandle, stop_line};
use serde_json::json;

use crate::support::{Bench, Lines, call, printed, python, shell, wait_until_empty};

const LONG: u64 = 3_600_000;

/// Runs a tool until it prints `ready`, then does `then`, and sees it to its end.
async fn stopped_when_ready(bench: &mut Bench, call: ToolCall, then: impl AsyncFnOnce(&StopHandle)) -> ToolOutcome {
    let (handle, signal) = stop_line();
    let (log, mut lines) = Lines::new();
    let stopper = async {
        printed(&mut lines, "ready").await;
        then(&handle).await;
    };
    let (outcome, ()) = tokio::join!(bench.run_with(call, signal, &log), stopper);
    bench.assert_nothing_runs();
    outcome
}

async fn stopped_with_grace(bench: &mut Bench, command: &str, grace_ms: u64) -> ToolOutcome {
    stopped_when_ready(bench, shell(command), async |handle| handle.order(StopOrder { grace_ms })).await
}

#[tokio::test]
async fn a_tree_that_obeys_is_stopped_politely_however_it_is_built() {
    let mut bench = Bench::new();
    let table = [
        ("one process", "echo ready; exec sleep 1000"),
        ("a shell and its child", "echo ready; sleep 1000; true"),
        ("double fork", "( ( sleep 1000 & ) & ); echo ready; sleep 1000"),
        ("its own sessions", "setsid sleep 1000 & setsid -f sleep 1000; echo ready; wait"),
        ("a pipeline", "echo ready; sleep 1000 | sleep 1000 | cat"),
        ("stopped child", "sleep 1000 & kill -STOP $!; echo ready; wait"),
        ("stopped itself", "sleep 1000 & echo ready; kill -STOP $$"),
        ("stopped in another session", "setsid sh -c 'kill -STOP $$' & echo ready; wait"),
        ("blocked in open", "mkfifo fifo; echo ready; cat < fifo"),
        ("blocked in read", "mkfifo pipe; echo ready; exec 3<>pipe; read line <&3"),
    ];
    for (name, command) in table {
        let outcome = stopped_with_grace(&mut bench, command, LONG).await;
        let error = outcome.error.unwrap();
        assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Cancelled, "CANCELLED"), "{name}");
        assert!(!error.hard, "{name}");
        assert_eq!(outcome.stopped, Some(Stopped::Stopped), "{name}");
    }
}

#[tokio::test]
async fn a_tree_that_does_not_obey_is_killed_to_the_last_process() {
    let table = [
        ("ignores TERM", "trap '' TERM; echo ready; while :; do sleep 1000; done"),
        ("a child ignores TERM", "(trap '' TERM; echo ready; exec sleep 1000) & wait"),
        ("a daemon ignores TERM", "trap '' TERM INT HUP; setsid -f sleep 1000; echo ready; sleep 1000"),
        ("ignores and stops itself", "trap '' TERM; echo ready; kill -STOP $$; sleep 1000"),
        ("starts anew when asked", "trap 'setsid -f sleep 1000; sleep 1000' TERM; echo ready; sleep 1000; sleep 1000"),
    ];
    for mut bench in Bench::with_and_without_cgroups() {
        for (name, command) in table {
            let outcome = stopped_with_grace(&mut bench, command, 50).await;
            assert_eq!(outcome.stopped, Some(Stopped::Killed), "{name}");
            assert_eq!(outcome.error.unwrap().kind, ErrorKind::Cancelled, "{name}");
        }
    }
}

/// Forks for ever (well: for long enough to be caught, should the test fail). `$HOP` is what each one does.
fn storm(hop: &str) -> ToolCall {
    let code = format!("import os, sys, time\nprint('ready', flush=True)\n{hop}");
    call("shell", json!({"cmds": ["exec python3 -c \"$code\""], "env": {"code": code}}))
}

#[tokio::test]
async fn a_storm_of_forks_is_ended() {
    let table = [
        (
            "each hands over to a child in a new session",
            "for _ in range(30000):\n  if os.fork(): os._exit(0)\n  os.setsid()",
        ),
        ("each hands over to a child in the same group", "for _ in range(30000):\n  if os.fork(): os._exit(0)"),
        (
            "one has many children that leave",
            "for _ in range(3000):\n  if not os.fork():\n    os.setsid()\n    time.sleep(1000)\ntime.sleep(1000)",
        ),
        (
            "everybody doubles, and ignores",
            "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
             for _ in range(9): os.fork(); os.setsid() if os.getsid(0) != os.getpid() else None\ntime.sleep(1000)",
        ),
    ];
    for mut bench in Bench::with_and_without_cgroups() {
        for (name, hop, grace_ms) in table.iter().flat_map(|(name, hop)| [(name, hop, 0), (name, hop, 20)]) {
            let stop = async |handle: &StopHandle| handle.order(StopOrder { grace_ms });
            let outcome = stopped_when_ready(&mut bench, storm(hop), stop).await;
            // A chain that hands over has no first process any more: that one finished, the rest was cleared up.
            assert_ne!(outcome.stopped, Some(Stopped::Unconfirmed), "{name}, {grace_ms}");
        }
    }
}

#[tokio::test]
async fn no_grace_is_a_kill_at_once() {
    let mut bench = Bench::new();
    let outcome = stopped_with_grace(&mut bench, "trap 'echo polite' TERM; echo ready; sleep 1000", 0).await;
    assert_eq!(outcome.stopped, Some(Stopped::Killed));
    assert_eq!(outcome.data["stdout"], "ready\n");
}

#[tokio::test]
async fn the_grace_is_for_the_tools_own_cleanup() {
    let mut bench = Bench::new();
    // Ready only when the child is `sleep`: until its exec it would hear the signal with its parent's trap, and
    // forget it.
    let command = "trap 'sleep 0.05; echo cleaned; exit 7' TERM; sleep 1000 & \
                   until grep -q sleep /proc/$!/comm; do :; done; echo ready; wait";
    let outcome = stopped_with_grace(&mut bench, command, LONG).await;
    assert_eq!(outcome.stopped, Some(Stopped::Stopped));
    assert_eq!(outcome.data, json!({"exit_code": 7, "stdout": "ready\ncleaned\n", "stderr": ""}));
}

#[tokio::test]
async fn a_second_order_shortens_the_grace_and_cannot_prolong_it() {
    let mut bench = Bench::new();
    let (log, mut lines) = Lines::new();
    let (handle, signal) = stop_line();
    let orders = async {
        printed(&mut lines, "ready").await;
        handle.order(StopOrder { grace_ms: u64::MAX });
        printed(&mut lines, "heard").await;
        handle.order(StopOrder { grace_ms: 0 });
        tokio::task::yield_now().await;
        handle.order(StopOrder { grace_ms: LONG });
    };
    let command = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.02; done";
    let (outcome, ()) = tokio::join!(bench.run_with(shell(command), signal, &log), orders);
    assert_eq!(outcome.stopped, Some(Stopped::Killed));
    bench.assert_nothing_runs();
}

#[tokio::test]
async fn a_time_limit_ends_a_tool_like_an_order() {
    let mut bench = Bench::new();
    // The time starts with the command: let it not be spent on a cold interpreter.
    bench.python("import time").await;
    for kind in ["shell", "python"] {
        let config = json!({"command": "trap '' TERM; while :; do sleep 1000; done",
            "code": "import time\nwhile True:\n  try: time.sleep(1000)\n  except: pass"});
        let outcome = bench.run(ToolCall { timeout_ms: Some(1000), ..call(kind, config) }).await;
        let error = outcome.error.unwrap();
        assert_eq!((error.kind, error.code.as_str(), error.hard), (ErrorKind::Timeout, "TIMEOUT", false), "{kind}");
        assert!(error.retryable, "{kind}");
        assert_eq!(error.message, "it did not end within its limit of 1000 ms", "{kind}");
        assert_eq!(outcome.stopped, Some(Stopped::Killed), "{kind}");
        bench.assert_nothing_runs();
    }
    assert_eq!(bench.interpreter(), None);
}

#[tokio::test]
async fn what_a_finished_command_leaves_running_is_ended_and_holds_up_nobody() {
    let mut bench = Bench::new();
    let table = [
        "echo done; sleep 1000 &",
        "echo done; setsid -f sleep 1000",
        "echo done; (trap '' TERM; sleep 1000) &",
        "echo done; (kill -STOP $(sh -c 'echo $PPID')) & exit 0",
    ];
    for command in table {
        let outcome = bench.shell(command).await;
        assert_eq!(outcome.error, None, "{command}");
        assert_eq!(outcome.stopped, None, "{command}");
        assert_eq!(outcome.data["stdout"], "done\n", "{command}");
        bench.assert_nothing_runs();
    }
}

#[tokio::test]
async fn an_order_that_comes_too_late_changes_nothing() {
    // The order crosses the end of the command again and again, at every moment around it.
    let mut bench = Bench::new();
    bench.python("pass").await;
    for (pause_us, grace_ms) in (0..6000).step_by(100).flat_map(|pause_us| [(pause_us, 0), (pause_us, LONG)]) {
        for call in [shell("true"), python("result = 0")] {
            let (handle, signal) = stop_line();
            let log = Lines::new().0;
            let order = async {
                tokio::time::sleep(Duration::from_micros(pause_us)).await;
                handle.order(StopOrder { grace_ms });
            };
            let (outcome, ()) = tokio::join!(bench.run_with(call, signal, &log), order);
            match outcome.stopped {
                None => assert_eq!(outcome.error, None),
                Some(Stopped::Killed | Stopped::Stopped) => {
                    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Cancelled);
                }
                Some(Stopped::Unconfirmed) => panic!("nothing here is unkillable"),
            }
        }
        bench.assert_nothing_runs();
    }
    assert_eq!(bench.shell("echo alive").await.data["stdout"], "alive\n");
}

/// A group of the old freezer, whose members not even a kill moves: the kernel's D state, made to order.
struct Freezer(std::path::PathBuf);

impl Freezer {
    /// `None` where there is no such thing, or not for us.
    fn new() -> Option<Self> {
        let path = std::path::Path::new("/sys/fs/cgroup/freezer").join(format!("noetl-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Freezer(path))
    }

    fn freeze(&self, pid: &str) {
        std::fs::write(self.0.join("cgroup.procs"), pid).unwrap();
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
    }

    fn thaw(&self) {
        std::fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_killed_is_named_and_watched_and_the_slot_serves_on() {
    let Some(freezer) = Freezer::new() else {
        eprintln!("not tested: this machine gives us no freezer group");
        return;
    };
    let bench = Bench::new();
    let (handle, signal) = stop_line();
    let (log, mut lines) = Lines::new();
    let stop = async {
        let pid = lines.recv().await.unwrap();
        freezer.freeze(&pid);
        handle.order(StopOrder { grace_ms: 0 });
        pid
    };
    let (outcome, pid) = tokio::join!(bench.run_with(shell("echo $$; while :; do :; done"), signal, &log), stop);
    assert_eq!(outcome.stopped, Some(Stopped::Unconfirmed));
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, &error.details["pids"]), (ErrorKind::Cancelled, &json!([pid.parse::<i32>().unwrap()])));
    assert_eq!(bench.shell("echo served").await.data["stdout"], "served\n");

    // As soon as it can die it does, and the supervisor that stayed for it leaves.
    freezer.thaw();
    bench.toolbox.close().await;
    let directory = bench.directory.path().to_owned();
    tokio::task::spawn_blocking(move || wait_until_empty(&directory)).await.unwrap();
    std::fs::remove_dir(&freezer.0).unwrap();
}
