//! What the tests share: a toolbox in a directory of its own, whose name marks every process that starts in it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::tool::{ToolCall, ToolOutcome};
use noetl_tools::{LogSink, NoSecrets, Outside, StopSignal, Stream, SupervisorCommand, Toolbox, ToolboxConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The executable that can be a supervisor.
pub(crate) const TESTBED: &str = env!("CARGO_BIN_EXE_noetl-tools-testbed");

/// A toolbox, the directory it works in, and an innocent process that looks much like what it runs.
pub(crate) struct Bench {
    pub(crate) toolbox: Toolbox,
    pub(crate) directory: TempDir,
    bystander: Child,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench::with(|_| {})
    }

    /// Every promise must hold without control groups: they are a shortcut.
    pub(crate) fn with_and_without_cgroups() -> [Self; 2] {
        [Bench::new(), Bench::with(|config| config.cgroups = false)]
    }

    pub(crate) fn with(change: impl FnOnce(&mut ToolboxConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        Bench { toolbox: Toolbox::new(config).unwrap(), directory, bystander }
    }

    /// Runs a tool in slot 0 to its end.
    pub(crate) async fn run(&self, call: ToolCall) -> ToolOutcome {
        self.run_with(call, StopSignal::never(), &Lines::new().0).await
    }

    /// Runs a tool in another slot.
    pub(crate) async fn run_in(&self, slot: usize, call: ToolCall) -> ToolOutcome {
        let (lines, _kept) = Lines::new();
        let outside = Outside { log: &lines, secrets: &NoSecrets };
        self.toolbox.run(slot, call, StopSignal::never(), outside).await
    }

    pub(crate) async fn run_with(&self, call: ToolCall, stop: StopSignal, log: &dyn LogSink) -> ToolOutcome {
        let outside = Outside { log, secrets: &NoSecrets };
        tokio::time::timeout(PATIENCE, self.toolbox.run(0, call, stop, outside)).await.expect("the tool ends")
    }

    pub(crate) async fn shell(&self, command: &str) -> ToolOutcome {
        self.run(shell(command)).await
    }

    pub(crate) async fn python(&self, code: &str) -> ToolOutcome {
        self.run(python(code)).await
    }

    /// Fails unless all that lives in the directory is supervisors and idle interpreters.
    pub(crate) fn assert_nothing_runs(&mut self) {
        let running: Vec<Process> =
            processes_in(self.directory.path()).into_iter().filter(|process| !process.is_ours()).collect();
        assert!(running.is_empty(), "left: {running:#?}");
        assert_eq!(self.bystander.try_wait().unwrap(), None, "the bystander was hit");
    }

    pub(crate) fn supervisor(&self) -> Pid {
        let processes = processes_in(self.directory.path());
        processes.iter().find(|process| process.name == "noetl-supervise").expect("a supervisor runs").pid
    }

    pub(crate) fn interpreter(&self) -> Option<Pid> {
        processes_in(self.directory.path()).iter().find(|process| process.is_interpreter()).map(|process| process.pid)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.bystander.kill().ok();
        self.bystander.wait().ok();
    }
}

pub(crate) fn config(directory: &Path) -> ToolboxConfig {
    ToolboxConfig {
        slots: 2,
        // Another version than the machine's own can be named.
        python: std::env::var("NOETL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned()),
        expose_env: Vec::new(),
        secrets_dir: None,
        directory: directory.to_owned(),
        server_url: Some("http://localhost:8082".to_owned()),
        supervisor: SupervisorCommand { program: PathBuf::from(TESTBED), args: vec!["supervise".into()] },
        timeout_grace: Duration::from_millis(100),
        cgroups: true,
    }
}

pub(crate) fn call(kind: &str, config: Value) -> ToolCall {
    ToolCall {
        execution_id: ExecutionId(42),
        command_id: CommandId(43),
        step: "a_step".into(),
        iteration: None,
        label: "a_task".into(),
        kind: kind.into(),
        config: map(config),
        input: Map::new(),
        context: Value::Null.into(),
        attempt: 1,
        timeout_ms: None,
    }
}

pub(crate) fn shell(command: &str) -> ToolCall {
    call("shell", json!({"command": command}))
}

pub(crate) fn python(code: &str) -> ToolCall {
    call("python", json!({"code": code}))
}

pub(crate) fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no mapping"),
    }
}

/// A log that can be waited for.
pub(crate) struct Lines {
    sender: mpsc::UnboundedSender<String>,
    kept: Mutex<Vec<(Stream, String)>>,
}

impl Lines {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Lines { sender, kept: Mutex::default() }, receiver)
    }

    pub(crate) fn all(&self) -> Vec<(Stream, String)> {
        self.kept.lock().unwrap().clone()
    }
}

impl LogSink for Lines {
    fn line(&self, stream: Stream, line: &str) {
        self.kept.lock().unwrap().push((stream, line.to_owned()));
        self.sender.send(line.to_owned()).ok();
    }
}

/// Waits until a tool has printed `line`.
pub(crate) async fn printed(lines: &mut mpsc::UnboundedReceiver<String>, line: &str) {
    let wait = async { while lines.recv().await.expect("the tool prints the line") != line {} };
    tokio::time::timeout(PATIENCE, wait).await.expect("the tool prints the line in time");
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) name: String,
    pub(crate) command_line: String,
}

impl Process {
    fn is_interpreter(&self) -> bool {
        self.command_line.contains("control=open(os.dup(0)")
    }

    /// Whether it is part of the toolbox and not of what it runs.
    pub(crate) fn is_ours(&self) -> bool {
        self.name == "noetl-supervise" || self.is_interpreter()
    }
}

/// Returns the living processes that work in the directory, or name it in their environment or command line.
pub(crate) fn processes_in(directory: &Path) -> Vec<Process> {
    let own = std::process::id();
    let mark = directory.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter_map(|pid| {
            let read = |file: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let command_line = read("cmdline");
            let marked = place.starts_with(mark) || read("environ").contains(mark) || command_line.contains(mark);
            let dead = read("stat").rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
            let name = read("comm").trim_end().to_owned();
            (marked && !dead).then(|| Process { pid: Pid::from_raw(pid).unwrap(), name, command_line })
        })
        .collect()
}

/// Waits until nothing lives in the directory.
pub(crate) fn wait_until_empty(directory: &Path) {
    while let Some(process) = processes_in(directory).first() {
        if let Ok(handle) = pidfd_open(process.pid, PidfdFlags::empty()) {
            assert!(ends_within(&handle, PATIENCE), "still there: {process:?}");
        }
    }
}

/// Waits for the end of a process; returns whether it came in time.
pub(crate) fn ends_within(process: &OwnedFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(time).unwrap())).unwrap() > 0
}

pub(crate) fn kill(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}
