//! The worker's handle on one supervisor.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::lost;
use super::supervise::{CGROUPS_VARIABLE, TREE_VARIABLE};
use super::wire::{FRAME_BYTES_MAX, FRAME_FILES_MAX, Inbox, Order, Report, Role, Start, encode};
use crate::Settings;

/// How long a supervisor may take to clear up and leave when it is dismissed.
const DISMISSAL: Duration = Duration::from_secs(5);

/// Most bytes taken by one read.
const READ_BYTES: usize = 4096;

/// How to start a supervisor: an executable that calls [`supervise_main`](crate::supervise_main).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorCommand {
    /// The executable.
    pub program: PathBuf,
    /// Arguments that make it a supervisor.
    pub args: Vec<OsString>,
}

impl SupervisorCommand {
    /// Returns the running executable, told to be a supervisor by `args`.
    ///
    /// Not by its name: the file may have been replaced by an upgrade, and both ends must be the same build.
    pub fn this_executable(args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        SupervisorCommand { program: PathBuf::from("/proc/self/exe"), args: args.into_iter().map(Into::into).collect() }
    }
}

/// A running supervisor. Dropping it closes the lifeline: then everything below it is killed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: UnixStream,
    inbox: Inbox,
    child: Child,
    tree: String,
    /// Sessions of what was started and not yet reported as ended.
    sessions: Vec<(Role, i32)>,
    /// Whether the resident ended while nobody used it.
    resident_gone: bool,
}

impl Supervisor {
    /// Starts a supervisor that sees of our environment what tools see.
    ///
    /// (Tools run as the same user and may read their parent's environment from /proc.)
    pub(crate) fn launch(settings: &Settings) -> io::Result<Self> {
        static LAUNCHED: AtomicU64 = AtomicU64::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = LAUNCHED.fetch_add(1, Ordering::Relaxed);
        let tree = format!("{}-{count}-{:x}", std::process::id(), time.as_nanos());

        // Both ends close on exec. Race: a worker killed between fork and exec here leaves a copy of our end in
        // the half-born supervisor; it closes with the exec, and the supervisor sees the end of its lifeline.
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(&settings.supervisor.program)
            .args(&settings.supervisor.args)
            .env_clear()
            .envs(settings.env.iter().map(|(name, value)| (name, value)))
            .env(TREE_VARIABLE, &tree)
            .env(CGROUPS_VARIABLE, if settings.cgroups { "on" } else { "off" })
            .current_dir(&settings.directory)
            // Not in our group: a Ctrl-C at the terminal is for the worker.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Supervisor {
            socket: UnixStream::from_std(ours)?,
            inbox: Inbox::default(),
            child,
            tree,
            sessions: Vec::new(),
            resident_gone: false,
        })
    }

    /// Starts a process, whose standard streams are `files`.
    pub(crate) async fn start(
        &mut self,
        mut start: Start,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<Result<i32, Refusal>> {
        start.env.push((TREE_VARIABLE.to_owned(), self.tree.clone()));
        let role = start.role;
        self.send(&encode(&Order::Start(start), FRAME_BYTES_MAX)?, files).await?;
        loop {
            match self.next_report().await? {
                Report::Started { pid } => {
                    self.sessions.push((role, pid));
                    return Ok(Ok(pid));
                }
                Report::Refused { message, errno } => return Ok(Err(Refusal { message, errno })),
                // Race: an idle interpreter may die (short of memory, say) just when a task is ordered.
                Report::Ended(ended) if ended.role == Role::Resident && role == Role::Task => {
                    self.resident_gone = true;
                }
                other @ (Report::Settled | Report::Ended(_)) => return Err(out_of_turn(&other)),
            }
        }
    }

    /// Returns, once, whether the resident ended while nobody used it.
    pub(crate) fn lost_resident(&mut self) -> io::Result<bool> {
        self.read_ready()?;
        while let Some(report) = self.take_report()? {
            match report {
                Report::Ended(ended) if ended.role == Role::Resident => self.resident_gone = true,
                other @ (Report::Started { .. } | Report::Refused { .. } | Report::Settled | Report::Ended(_)) => {
                    return Err(out_of_turn(&other));
                }
            }
        }
        Ok(std::mem::take(&mut self.resident_gone))
    }

    /// Gives an order that takes no files.
    pub(crate) async fn order(&mut self, order: &Order) -> io::Result<()> {
        self.send(&encode(order, FRAME_BYTES_MAX)?, &[]).await
    }

    /// Waits for the next report. Nothing is lost when the future is dropped.
    pub(crate) async fn next_report(&mut self) -> io::Result<Report> {
        loop {
            if let Some(report) = self.take_report()? {
                return Ok(report);
            }
            self.socket.readable().await?;
            self.read_ready()?;
        }
    }

    fn take_report(&mut self) -> io::Result<Option<Report>> {
        let report = self.inbox.take(FRAME_BYTES_MAX)?;
        if let Some(Report::Ended(ended)) = &report {
            self.sessions.retain(|(role, _)| *role != ended.role);
        }
        Ok(report)
    }

    fn read_ready(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        match self.socket.try_read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.inbox.push(&bytes[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets the supervisor go and waits until it has, with all that was below it.
    pub(crate) async fn dismiss(mut self) {
        drop(self.socket);
        if tokio::time::timeout(DISMISSAL, self.child.wait()).await.is_err() {
            tracing::warn!(
                supervisor = self.child.id(),
                "something below a supervisor does not die; it stays to watch"
            );
        }
    }

    /// Kills what a supervisor that is no more left behind; returns what could not be seen to end.
    pub(crate) async fn hunt_orphans(self) -> Vec<i32> {
        // The lifeline first: a supervisor that only lost its mind, not its life, clears up itself.
        drop(self.socket);
        lost::hunt(self.tree, self.sessions.into_iter().map(|(_, session)| session).collect()).await
    }

    async fn send(&self, frame: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut rest = frame;
        while !rest.is_empty() {
            // The files travel with the frame's first byte.
            let files = if rest.len() == frame.len() { files } else { &[] };
            let sent = self.socket.async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FILES_MAX))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
                    return Err(io::Error::other("too many files for one frame"));
                }
                let sent = sendmsg(self.socket.as_fd(), &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL)?;
                Ok(sent)
            });
            rest = &rest[sent.await?..];
        }
        Ok(())
    }
}

/// Why a process was not started.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// In words.
    pub(crate) message: String,
    /// The system's error number.
    pub(crate) errno: Option<i32>,
}

/// A report that does not answer what was ordered: a bug of ours, met by giving the supervisor up.
pub(crate) fn out_of_turn(report: &Report) -> io::Error {
    io::Error::other(format!("the supervisor reported {report:?} out of turn"))
}
