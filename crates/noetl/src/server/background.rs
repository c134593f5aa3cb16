//! A server or a worker in the background: started, waited for until it is up, found again, stopped.
//!
//! The PID file is locked by the process it names, so a file that a killed server left over, or a number that another
//! process has got since, is never taken for a running server.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::ask;
use crate::embed::{self, DataDir, EmbedError};

/// Environment variable that names the database.
pub const DATABASE_VARIABLE: &str = "NOETL_DATABASE_URL";
/// Longest wait for a new server to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How much of the end of the log is shown when a server does not come up, in bytes.
const LOG_TAIL_BYTES: u64 = 4096;

/// Why a PID file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// The file system refuses.
    #[error("PID file {path}: {problem}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What it says.
        problem: io::Error,
    },
    /// Another process has it.
    #[error("PID file {path} belongs to process {pid}, which runs")]
    Taken {
        /// Which.
        path: PathBuf,
        /// Whose.
        pid: u32,
    },
}

/// What the files of workers begin with.
const WORKER_FILES: &str = "noetl_worker_";

/// Where a process in the background keeps its PID and its log.
#[derive(Debug, Clone)]
pub struct Files {
    /// `~/.noetl/noetl_server.pid`, or `~/.noetl/noetl_worker_<name>.pid`.
    pub pid_file: PathBuf,
    /// The same with `.log`.
    pub log_file: PathBuf,
}

impl Files {
    /// Returns those of this user's server.
    pub fn usual() -> Result<Self, EmbedError> {
        Ok(Files::named(&embed::home()?, "noetl_server"))
    }

    /// Returns those of the worker called `name`.
    pub fn worker(name: &str) -> Result<Self, EmbedError> {
        // Whatever a name holds, it is one file in this directory.
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' };
        let name: String = name.chars().map(plain).collect();
        Ok(Files::named(&embed::home()?, &format!("{WORKER_FILES}{name}")))
    }

    /// Returns those of every worker that has been started here, by name.
    pub fn workers() -> Result<Vec<(String, Self)>, EmbedError> {
        let home = embed::home()?;
        let mut found = Vec::new();
        // No directory: nothing was ever started.
        for entry in std::fs::read_dir(&home).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let name = file.to_str().and_then(|file| file.strip_prefix(WORKER_FILES)?.strip_suffix(".pid"));
            if let Some(name) = name {
                found.push((name.to_owned(), Files::named(&home, &format!("{WORKER_FILES}{name}"))));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    fn named(home: &Path, name: &str) -> Self {
        Files { pid_file: home.join(format!("{name}.pid")), log_file: home.join(format!("{name}.log")) }
    }
}

/// A PID file of this process. Dropping it removes it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _lock: File,
}

impl PidFile {
    /// Writes this process's id.
    pub fn create(path: &Path) -> Result<Self, PidFileError> {
        let fail = |problem| PidFileError::Io { path: path.to_path_buf(), problem };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut lock = options.open(path).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PidFileError::Taken { path: path.to_path_buf(), pid: read_pid(&mut lock).unwrap_or(0) });
            }
            Err(TryLockError::Error(problem)) => return Err(fail(problem)),
        }
        let text = format!("{}\n", std::process::id());
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(text.as_bytes())).map_err(fail)?;
        Ok(PidFile { path: path.to_path_buf(), _lock: lock })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While the lock is held, so it is still this process's.
        std::fs::remove_file(&self.path).ok();
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A process in the background that runs.
#[derive(Debug)]
pub struct Found {
    /// Its process.
    pub pid: u32,
    /// Its PID file.
    pub pid_file: PathBuf,
    process: rustix::fd::OwnedFd,
}

/// Returns the process in the background whose PID file this is, if it runs. A file left over is removed.
pub fn find(pid_file: &Path) -> Result<Option<Found>, PidFileError> {
    let fail = |problem| PidFileError::Io { path: pid_file.to_path_buf(), problem };
    let mut file = match File::open(pid_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(fail(problem)),
    };
    match file.try_lock_shared() {
        Ok(()) => {
            std::fs::remove_file(pid_file).map_err(fail)?;
            return Ok(None);
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(problem)) => return Err(fail(problem)),
    }
    let Some(pid) = read_pid(&mut file) else {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "holds no process id")));
    };
    // The lock is held, so the process lives and the number is its own: from here on the descriptor stands for it.
    let raw = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
    match raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) {
        Some(Ok(process)) => Ok(Some(Found { pid, pid_file: pid_file.to_path_buf(), process })),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(fail(error.into())),
    }
}

impl Found {
    /// Asks it to drain and stop.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it at once. What it ran dies with it and is run again later.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone, at most `timeout`; returns whether it is. A PID file it left over is removed.
    pub async fn gone(&self, timeout: Duration) -> bool {
        let Ok(process) = self.process.try_clone() else {
            return false;
        };
        let limit = Timespec::try_from(timeout).ok();
        let waited = tokio::task::spawn_blocking(move || {
            // Readable as soon as the process has ended.
            let ended = || poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref());
            rustix::io::retry_on_intr(ended)
        });
        let ended = matches!(waited.await, Ok(Ok(1..)));
        if ended {
            find(&self.pid_file).ok();
        }
        ended
    }
}

/// How to start a process in the background.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// `server` or `worker`: this executable is started with that, `run`, and `args`.
    pub command: &'static str,
    /// Arguments behind `run`.
    pub args: Vec<OsString>,
    /// What it is waited for.
    pub up: Up,
    /// The database, for the environment of a server.
    pub database_url: Option<String>,
    /// PID and log.
    pub files: Files,
}

/// When a process in the background is up.
#[derive(Debug, Clone)]
pub enum Up {
    /// It answers as the owner of this data directory.
    Answers(DataDir),
    /// It has read its options, made its tools ready, and taken its PID file.
    Runs,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It answers.
    Up {
        /// Its process.
        pid: u32,
        /// Where it listens.
        url: Option<String>,
    },
    /// One runs already.
    Already {
        /// Its process.
        pid: u32,
    },
}

/// Why no server came up.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// The PID file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The process could not be started.
    #[error("the process can not be started: {0}")]
    Spawn(io::Error),
    /// It ended at once.
    #[error("the process ended at once ({status}); the end of {}:\n{tail}", log.display())]
    Died {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It does not come up.
    #[error("process {pid} is not up after {} s; see {}", START_TIMEOUT.as_secs(), log.display())]
    Silent {
        /// Its process.
        pid: u32,
        /// Its log.
        log: PathBuf,
    },
}

/// Starts this executable in the background, and waits until it is up.
pub async fn start(options: &StartOptions) -> Result<Started, StartFailed> {
    if let Some(found) = find(&options.files.pid_file)? {
        return Ok(Started::Already { pid: found.pid });
    }
    let log = &options.files.log_file;
    let mut child = spawn(options).map_err(StartFailed::Spawn)?;
    let pid = child.id();
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().map_err(StartFailed::Spawn)? {
            let tail = tail(log).unwrap_or_else(|error| error.to_string());
            return Err(StartFailed::Died { status, log: log.clone(), tail });
        }
        match &options.up {
            Up::Answers(data_dir) => {
                if answers(data_dir, pid).await {
                    let url = data_dir.owner().and_then(|owner| owner.url);
                    return Ok(Started::Up { pid, url });
                }
            }
            Up::Runs => {
                // Read without its lock, which would be in the way of the process that is about to take it. The
                // process is our own child and lives, so the number is its own.
                let written = File::open(&options.files.pid_file).ok().and_then(|mut file| read_pid(&mut file));
                if written == Some(pid) {
                    return Ok(Started::Up { pid, url: None });
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(StartFailed::Silent { pid, log: log.clone() });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn spawn(options: &StartOptions) -> io::Result<Child> {
    let log = &options.files.log_file;
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // What is written before logging begins, and by a panic, goes to the log as well.
    let out = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(url) = &options.database_url {
        command.env(DATABASE_VARIABLE, url);
    }
    command
        .args([options.command, "run", "--detached", "--pid-file"])
        .arg(&options.files.pid_file)
        .arg("--log-file")
        .arg(log)
        .args(&options.args)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // Out of the terminal's foreground group: Ctrl-C there is not meant for it.
        .process_group(0)
        .spawn()
}

async fn answers(dir: &DataDir, pid: u32) -> bool {
    // The URL is announced last, so it is looked for first.
    if dir.owner().is_none_or(|owner| owner.pid != pid || owner.url.is_none()) {
        return false;
    }
    let Ok(socket) = dir.socket() else {
        return false;
    };
    match ask::ask(&socket, Method::GET, "/api/health").await {
        Some((200, health)) => health.get("pid").and_then(serde_json::Value::as_u64) == Some(u64::from(pid)),
        Some(_) | None => false,
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_counts_only_while_its_process_holds_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("noetl_server.pid");
        assert!(find(&path).unwrap().is_none());
        let file = PidFile::create(&path).unwrap();
        let found = find(&path).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(matches!(PidFile::create(&path), Err(PidFileError::Taken { .. })));
        drop(file);
        assert!(!path.exists());
        // Left over by a killed server: some process may have the number by now, but nobody has the lock.
        std::fs::write(&path, "1\n").unwrap();
        assert!(find(&path).unwrap().is_none());
        assert!(!path.exists());
    }
}
