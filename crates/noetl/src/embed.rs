//! The data directory: who owns it, and how everybody else reaches the owner.
//!
//! One process owns a directory: it holds a lock on `owner.lock` and listens on `noetl.sock` inside. Whoever comes
//! second is its guest and speaks to it over the socket, with the same interface as over the network. The lock is the
//! kernel's, so it ends with its process however that ends; the socket file may be left over and is replaced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use noetl_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// Environment variable that names the data directory.
pub const DATA_DIR_VARIABLE: &str = "NOETL_DATA_DIR";
/// How long a newcomer waits for an owner that holds the lock and does not answer: it is starting, or leaving.
pub const OWNER_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at lock and socket.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longest path of a unix socket, in bytes, without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a data directory can not be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// There is no home directory to put it into.
    #[error("there is no home directory: name a data directory with --data-dir or {DATA_DIR_VARIABLE}")]
    NoHome,
    /// There is nothing.
    #[error("there is nothing at {}: `noetl run` or `noetl server start` makes it, --data-dir names another", .0.display())]
    Missing(PathBuf),
    /// The file system refuses.
    #[error("{}: {problem}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        problem: io::Error,
    },
    /// The owner holds the lock and does not answer.
    #[error("process {pid} owns {} and does not answer: stop it, then try again", path.display())]
    Silent {
        /// Where.
        path: PathBuf,
        /// Who.
        pid: u32,
    },
    /// A second server.
    #[error("a server already runs on {}: process {pid}{}", path.display(), url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default())]
    SecondServer {
        /// Where.
        path: PathBuf,
        /// Who.
        pid: u32,
        /// Where it listens.
        url: Option<String>,
    },
}

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

/// What an owner is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It stays until it is told to go.
    Server,
    /// It leaves when its own execution is over, or when a server asks for the place.
    Run,
    /// It only looks, or changes one thing, and leaves.
    Visit,
}

/// What the owner says of itself in `owner.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// What for.
    pub role: Role,
    /// Where it listens on the network.
    #[serde(default)]
    pub url: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// Where a newcomer finds itself.
#[derive(Debug)]
pub enum Place {
    /// It owns the directory.
    Owned(Owned),
    /// Somebody else does, and answers on the socket.
    Guest(Guest),
}

/// The right to use the files of a directory. Dropping it gives it up.
#[derive(Debug)]
pub struct Owned {
    dir: DataDir,
    lock: File,
}

/// The way to the owner.
#[derive(Debug)]
pub struct Guest {
    /// Where it listens.
    pub socket: SocketPath,
    /// What it says of itself, if it has said it yet.
    pub owner: Option<Owner>,
}

/// The path of a socket, short enough for the kernel.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Keeps the short way open, where the direct one is too long.
    _directory: Option<File>,
}

impl SocketPath {
    /// Returns the path to bind or connect to. It works in this process only.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl DataDir {
    /// Returns the directory that `named`, else the environment, else the home directory says.
    pub fn resolve(named: Option<&Path>) -> Result<Self, EmbedError> {
        let from_env = || std::env::var_os(DATA_DIR_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = match named.map(Path::to_path_buf).or_else(from_env) {
            Some(path) => path,
            None => home()?.join("data"),
        };
        let path = std::path::absolute(&path).map_err(|problem| EmbedError::Io { path, problem })?;
        Ok(DataDir { path })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file that the embedded store keeps everything in.
    pub fn database(&self) -> PathBuf {
        self.path.join("noetl.db")
    }

    /// Returns the file that holds the key to the secrets in there, when none is given. It stands beside the directory,
    /// so that a copy of the directory does not carry the key along.
    pub fn key_file(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_else(|| "data".as_ref()).to_owned();
        name.push(".key");
        self.path.with_file_name(name)
    }

    /// Returns whether anything was ever kept there.
    pub fn exists(&self) -> bool {
        self.lock_path().exists() || self.database().exists()
    }

    /// Returns the way to the owner's socket.
    pub fn socket(&self) -> Result<SocketPath, EmbedError> {
        self.socket_named("noetl.sock")
    }

    fn socket_named(&self, name: &str) -> Result<SocketPath, EmbedError> {
        let direct = self.path.join(name);
        if direct.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(SocketPath { path: direct, _directory: None });
        }
        // The kernel follows this link without counting what is behind it.
        let directory = File::open(&self.path).map_err(|problem| self.io(problem))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
        Ok(SocketPath { path: PathBuf::from(format!("/proc/self/fd/{fd}")).join(name), _directory: Some(directory) })
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("owner.lock")
    }

    fn io(&self, problem: io::Error) -> EmbedError {
        EmbedError::Io { path: self.path.clone(), problem }
    }

    fn create(&self) -> Result<(), EmbedError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|problem| self.io(problem))
    }

    /// Takes the directory if nobody owns it.
    pub fn try_take(&self, role: Role, now: Timestamp) -> Result<Option<Owned>, EmbedError> {
        self.create()?;
        let path = self.lock_path();
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|problem| EmbedError::Io { path: path.clone(), problem })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(problem)) => return Err(EmbedError::Io { path, problem }),
        }
        let mut owned = Owned { dir: self.clone(), lock };
        owned.announce(&Owner { pid: std::process::id(), role, url: None, since: now })?;
        Ok(Some(owned))
    }

    /// Returns what the present owner says of itself; `None` when there is none, or it has not said it yet.
    pub fn owner(&self) -> Option<Owner> {
        let file = File::open(self.lock_path()).ok()?;
        match file.try_lock_shared() {
            // Nobody holds it, so what stands in it is old.
            Ok(()) => return None,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
        let mut text = String::new();
        (&file).take(4096).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Takes the directory, or finds the way to its owner. Waits for an owner that is starting or leaving.
    pub async fn take_or_join(&self, role: Role, now: Timestamp) -> Result<Place, EmbedError> {
        let deadline = Instant::now() + OWNER_ANSWER_TIMEOUT;
        loop {
            if let Some(owned) = self.try_take(role, now)? {
                return Ok(Place::Owned(owned));
            }
            let socket = self.socket()?;
            if UnixStream::connect(socket.path()).await.is_ok() {
                return Ok(Place::Guest(Guest { socket, owner: self.owner() }));
            }
            // The lock is held and nobody listens: the owner opens its store, or has just closed it.
            if Instant::now() >= deadline {
                let pid = self.owner().map_or(0, |owner| owner.pid);
                return Err(EmbedError::Silent { path: self.path.clone(), pid });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Owned {
    /// Returns the directory.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Says who owns the directory, for whoever comes second.
    pub fn announce(&mut self, owner: &Owner) -> Result<(), EmbedError> {
        let text = serde_json::to_vec(owner).unwrap_or_default();
        let mut write = || {
            self.lock.rewind()?;
            self.lock.set_len(0)?;
            self.lock.write_all(&text)
        };
        write().map_err(|problem| self.dir.io(problem))
    }

    /// Listens on the directory's socket.
    ///
    /// Bound under another name and renamed, so that the rights are set before anybody can connect, and a socket that
    /// a killed owner left over is replaced.
    pub fn listen(&self) -> Result<UnixListener, EmbedError> {
        let fresh = self.dir.socket_named("noetl.sock.new")?;
        let fail = |problem| self.dir.io(problem);
        match std::fs::remove_file(fresh.path()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(problem) => return Err(fail(problem)),
        }
        let listener = UnixListener::bind(fresh.path()).map_err(fail)?;
        std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        std::fs::rename(fresh.path(), self.dir.socket()?.path()).map_err(fail)?;
        Ok(listener)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // While the lock is still held, so it can not be somebody else's.
        if let Ok(socket) = self.dir.socket() {
            std::fs::remove_file(socket.path()).ok();
        }
    }
}

/// Returns `~/.noetl`, where everything of one user is kept.
pub fn home() -> Result<PathBuf, EmbedError> {
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".noetl")),
        None => Err(EmbedError::NoHome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(below: &Path) -> DataDir {
        DataDir::resolve(Some(below)).unwrap()
    }

    const NOW: Timestamp = Timestamp(1_768_900_080_000);

    #[tokio::test]
    async fn the_second_is_a_guest_until_the_first_leaves() {
        let home = tempfile::tempdir().unwrap();
        let dir = dir(&home.path().join("data"));
        assert!(!dir.exists());
        let owned = dir.try_take(Role::Server, NOW).unwrap().unwrap();
        assert!(dir.try_take(Role::Run, NOW).unwrap().is_none());
        let listener = owned.listen().unwrap();
        let Place::Guest(guest) = dir.take_or_join(Role::Run, NOW).await.unwrap() else {
            panic!("the directory has an owner");
        };
        let owner = guest.owner.unwrap();
        assert_eq!((owner.pid, owner.role), (std::process::id(), Role::Server));
        let mode = std::fs::metadata(guest.socket.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        drop(owned);
        assert!(dir.owner().is_none());
        assert!(matches!(dir.take_or_join(Role::Run, NOW).await.unwrap(), Place::Owned(_)));
    }

    #[tokio::test]
    async fn a_directory_that_others_may_enter_has_nothing_in_it_that_they_may_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let owned = dir(home.path()).try_take(Role::Server, NOW).unwrap().unwrap();
        let _listener = owned.listen().unwrap();
        let store = crate::server::node::open_directory(&owned).await.unwrap();
        store.backup(&home.path().join("copy.db")).await.unwrap();
        let mut looked_at = 0;
        for entry in std::fs::read_dir(home.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
            looked_at += 1;
        }
        assert!(looked_at >= 5, "lock, socket, copy, and a database with its log: {looked_at}");
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_owner_left_over_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let dir = dir(home.path());
        let owned = dir.try_take(Role::Server, NOW).unwrap().unwrap();
        let listener = owned.listen().unwrap();
        // A killed process closes its files and removes nothing.
        let lock = owned.lock.try_clone().unwrap();
        std::mem::forget(owned);
        drop(listener);
        lock.unlock().unwrap();
        assert!(dir.socket().unwrap().path().exists());
        let Place::Owned(owned) = dir.take_or_join(Role::Run, NOW).await.unwrap() else {
            panic!("nobody owns the directory");
        };
        let _listener = owned.listen().unwrap();
        assert!(UnixStream::connect(dir.socket().unwrap().path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_directory_may_be_deeper_than_a_socket_path() {
        let home = tempfile::tempdir().unwrap();
        let deep = (0..12).fold(home.path().to_path_buf(), |path, _| path.join("a-rather-long-name"));
        let dir = dir(&deep);
        let owned = dir.try_take(Role::Run, NOW).unwrap().unwrap();
        let _listener = owned.listen().unwrap();
        assert!(deep.join("noetl.sock").exists());
        assert!(UnixStream::connect(dir.socket().unwrap().path()).await.is_ok());
    }
}
