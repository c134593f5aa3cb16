//! A server or a worker in the background: started, waited for until it is up, found again, stopped.
//!
//! The PID file is locked by the process it names, so a file that a killed server left over, or a number that another
//! process has got since, is never taken for a running server. Each data directory has a PID file of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::ask;
use crate::embed::{self, DataDir, EmbedError};

/// Environment variable in which a process in the background gets its token: command lines can be read by everybody.
pub const SESSION_TOKEN_VARIABLE: &str = "NOETL_SESSION_TOKEN";
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

/// Why a process in the background can not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// There is no place for its files.
    #[error(transparent)]
    Directory(#[from] EmbedError),
    /// Its PID file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
}

/// What the files of workers begin with.
const WORKER_FILES: &str = "noetl_worker_";
/// What the files of servers begin with. Those of the usual data directory are called no more than that.
const SERVER_FILES: &str = "noetl_server";
/// Longest part of a directory's name in the name of its files, in letters.
const NAME_LETTERS_MAX: usize = 40;
/// How much of a PID file is read: a number, and a path.
const PID_FILE_BYTES_MAX: u64 = 8192;

/// Where a process in the background keeps its PID and its log.
#[derive(Debug, Clone)]
pub struct Files {
    /// `~/.noetl/noetl_server.pid` and the like.
    pub pid_file: PathBuf,
    /// The same with `.log`.
    pub log_file: PathBuf,
}

impl Files {
    /// Returns those of the server on this data directory.
    pub fn server(dir: &DataDir) -> Result<Self, EmbedError> {
        let home = embed::home()?;
        let path = settled(dir.path());
        if path == settled(&home.join("data")) {
            return Ok(Files::named(&home, SERVER_FILES));
        }
        // The name is for people, the digest tells apart.
        let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().map(plain).collect();
        let name: String = name.chars().take(NAME_LETTERS_MAX).collect();
        let digest = Sha256::digest(path.as_os_str().as_bytes());
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Files::named(&home, &format!("{SERVER_FILES}_{name}-{digest}")))
    }

    /// Returns the PID files of every server that has been started here.
    pub fn servers() -> Result<Vec<PathBuf>, EmbedError> {
        let home = embed::home()?;
        Ok(started_files(&home, SERVER_FILES).into_iter().map(|(_, pid_file)| pid_file).collect())
    }

    /// Returns those of the worker called `name`.
    pub fn worker(name: &str) -> Result<Self, EmbedError> {
        let name: String = name.chars().map(plain).collect();
        Ok(Files::named(&embed::home()?, &format!("{WORKER_FILES}{name}")))
    }

    /// Returns those of every worker that has been started here, by name.
    pub fn workers() -> Result<Vec<(String, Self)>, EmbedError> {
        let home = embed::home()?;
        let files = |(name, _): (String, PathBuf)| {
            let files = Files::named(&home, &format!("{WORKER_FILES}{name}"));
            (name, files)
        };
        Ok(started_files(&home, WORKER_FILES).into_iter().map(files).collect())
    }

    fn named(home: &Path, name: &str) -> Self {
        Files { pid_file: home.join(format!("{name}.pid")), log_file: home.join(format!("{name}.log")) }
    }
}

/// Returns the PID files whose names begin so, by the rest of their names.
fn started_files(home: &Path, begin: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    // No directory: nothing was ever started.
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_prefix(begin)?.strip_suffix(".pid"));
        if let Some(name) = name {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    found
}

/// Whatever a name holds, it is one file in one directory.
fn plain(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' }
}

/// Returns the one path that a directory has, whether it is there already or not.
fn settled(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = found else { return path.to_path_buf() };
    match path.strip_prefix(above) {
        Ok(rest) if rest != Path::new("") => real.join(rest),
        Ok(_) | Err(_) => real,
    }
}

/// A PID file of this process. Dropping it removes it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _lock: File,
}

impl PidFile {
    /// Writes this process's id, and below it the data directory, where the file's name does not say which.
    pub fn create(path: &Path, data_dir: Option<&Path>) -> Result<Self, PidFileError> {
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
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        if let Some(data_dir) = data_dir.filter(|_| path.file_stem() != Some(OsStr::new(SERVER_FILES))) {
            text.extend_from_slice(data_dir.as_os_str().as_bytes());
            text.push(b'\n');
        }
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(&text)).map_err(fail)?;
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
    read_pid_file(file).0
}

/// Returns the process that a PID file names, and its data directory.
fn read_pid_file(file: &mut File) -> (Option<u32>, Option<PathBuf>) {
    let mut bytes = Vec::new();
    if file.rewind().and_then(|()| file.take(PID_FILE_BYTES_MAX).read_to_end(&mut bytes)).is_err() {
        return (None, None);
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let pid = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.trim().parse().ok());
    let data_dir = lines.next().filter(|line| !line.is_empty());
    (pid, data_dir.map(|line| PathBuf::from(OsString::from_vec(line.to_vec()))))
}

/// A process in the background that runs.
#[derive(Debug)]
pub struct Found {
    /// Its process.
    pub pid: u32,
    /// Its PID file.
    pub pid_file: PathBuf,
    /// Its data directory, where the PID file says.
    pub data_dir: Option<PathBuf>,
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
    let (pid, data_dir) = read_pid_file(&mut file);
    let Some(pid) = pid else {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "holds no process id")));
    };
    // The lock is held, so the process lives and the number is its own: from here on the descriptor stands for it.
    let raw = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
    match raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) {
        Some(Ok(process)) => Ok(Some(Found { pid, pid_file: pid_file.to_path_buf(), data_dir, process })),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(fail(error.into())),
    }
}

/// Returns the server in the background on this data directory.
pub fn find_server(dir: &DataDir) -> Result<Option<Found>, BackgroundError> {
    if let Some(found) = find(&Files::server(dir)?.pid_file)? {
        return Ok(Some(found));
    }
    // Once there was one PID file for all directories.
    let owner = dir.owner();
    let of_old = find(&embed::home()?.join(format!("{SERVER_FILES}.pid")))?;
    Ok(of_old.filter(|found| owner.is_some_and(|owner| owner.pid == found.pid)))
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
    /// What is no matter of a command line, which everybody can read.
    pub environment: Vec<(&'static str, String)>,
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
        /// Where it listens.
        url: Option<String>,
    },
}

/// Why no server came up.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// The PID file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// There is no place for its files.
    #[error(transparent)]
    Directory(#[from] EmbedError),
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

impl From<BackgroundError> for StartFailed {
    fn from(error: BackgroundError) -> Self {
        match error {
            BackgroundError::Directory(error) => StartFailed::Directory(error),
            BackgroundError::PidFile(error) => StartFailed::PidFile(error),
        }
    }
}

/// Starts this executable in the background, and waits until it is up.
pub async fn start(options: &StartOptions) -> Result<Started, StartFailed> {
    let running = match &options.up {
        Up::Answers(data_dir) => find_server(data_dir)?,
        Up::Runs => find(&options.files.pid_file)?,
    };
    if let Some(found) = running {
        let url = match &options.up {
            Up::Answers(data_dir) => announced(data_dir, found.pid).await,
            Up::Runs => None,
        };
        return Ok(Started::Already { pid: found.pid, url });
    }
    let log = &options.files.log_file;
    // What earlier ones wrote is theirs.
    let from = std::fs::metadata(log).map_or(0, |log| log.len());
    let mut child = spawn(options).map_err(StartFailed::Spawn)?;
    let pid = child.id();
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().map_err(StartFailed::Spawn)? {
            let tail = tail(log, from).unwrap_or_else(|error| error.to_string());
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
    command
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
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

/// Returns where a server on this directory listens, as soon as it says so; `None` if it does not.
async fn announced(dir: &DataDir, pid: u32) -> Option<String> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let owner = dir.owner().filter(|owner| owner.pid == pid)?;
        if owner.url.is_some() || Instant::now() >= deadline {
            return owner.url;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
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

/// Returns the end of what was written behind `from`.
fn tail(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    // Shorter than it was: it has been moved aside, and all of this one is new.
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES).max(from)))?;
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
        let file = PidFile::create(&path, None).unwrap();
        let found = find(&path).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(matches!(PidFile::create(&path, None), Err(PidFileError::Taken { .. })));
        drop(file);
        assert!(!path.exists());
        // Left over by a killed server: some process may have the number by now, but nobody has the lock.
        std::fs::write(&path, "1\n").unwrap();
        assert!(find(&path).unwrap().is_none());
        assert!(!path.exists());
    }
    #[test]
    fn a_directory_has_one_path_whether_it_is_there_or_not() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink(real.join("real"), real.join("link")).unwrap();
        let before = settled(&real.join("link/deep/data"));
        assert_eq!(before, real.join("real/deep/data"));
        std::fs::create_dir_all(&before).unwrap();
        assert_eq!(settled(&real.join("link/deep/data")), before);
    }

    #[test]
    fn the_end_of_a_log_begins_behind_what_others_wrote() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        std::fs::write(&log, "theirs\nours\n").unwrap();
        assert_eq!(tail(&log, 7).unwrap(), "ours");
        assert_eq!(tail(&log, 100).unwrap(), "theirs\nours");
    }
}
