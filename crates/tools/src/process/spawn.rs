//! The supervisor's unsafe corner: its signals, and the moment between fork and exec.
#![expect(unsafe_code, reason = "signal masks and the child side of a fork have no safe interface")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};

use super::cgroup::Cgroup;
use super::wire::{Role, Start};

/// Highest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// Tells that a child changed its state, as something that can be polled.
#[derive(Debug)]
pub(crate) struct ChildSignals(OwnedFd);

impl ChildSignals {
    /// Blocks every signal of this thread, for ever, and listens for SIGCHLD.
    ///
    /// A supervisor follows its lifeline and nothing else: a Ctrl-C, or the TERM that a service manager sends to
    /// everybody, must reach the worker's own judgement and not orphan the tools.
    pub(crate) fn block_all_and_listen() -> io::Result<Self> {
        let mut children = MaybeUninit::<libc::sigset_t>::uninit();
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the sets are initialised by sigemptyset and sigfillset before they are read; SIG_DFL is a valid
        // disposition for SIGCHLD (an inherited SIG_IGN would reap our children behind our back); the descriptor
        // is checked before it is owned, and nobody else knows it.
        unsafe {
            libc::sigemptyset(children.as_mut_ptr());
            libc::sigaddset(children.as_mut_ptr(), libc::SIGCHLD);
            libc::sigfillset(all.as_mut_ptr());
            if libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_ERR
                || libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) != 0
            {
                return Err(io::Error::last_os_error());
            }
            let listener = libc::signalfd(-1, children.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if listener < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(ChildSignals(OwnedFd::from_raw_fd(listener)))
        }
    }

    /// Forgets what was told so far.
    pub(crate) fn drain(&self) {
        let mut notices = [0; 1024];
        while rustix::io::read(&self.0, &mut notices).is_ok_and(|bytes| bytes == notices.len()) {}
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes every open file but the standard streams close on exec.
///
/// The worker may have inherited files (a service manager's sockets, say) that no tool should hold open. Kernels
/// before 5.11 do not know how; then tools inherit what the worker inherited.
pub(crate) fn keep_files_from_children() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes three integers and changes only a flag of descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Starts a process as leader of its own session and group, with `files` as its standard streams.
pub(crate) fn spawn(start: &Start, files: Vec<OwnedFd>, cgroup: Option<&Cgroup>) -> io::Result<Pid> {
    let mut files = files.into_iter().map(Stdio::from);
    let mut next_file = || files.next().ok_or_else(|| io::Error::other("a standard stream did not arrive"));
    let mut command = Command::new(&start.program);
    command.args(&start.args).env_clear().current_dir(&start.directory);
    command.envs(start.env.iter().map(|(name, value)| (name, value)));
    command.stdin(match start.role {
        Role::Task => Stdio::null(),
        Role::Resident => next_file()?,
    });
    command.stdout(next_file()?).stderr(next_file()?);

    let supervisor = getpid();
    let door = cgroup.and_then(|cgroup| cgroup.door().ok());
    // SAFETY: `settle_in` runs between fork and exec. It makes only system calls that are async-signal-safe and
    // allocates nothing.
    unsafe { command.pre_exec(move || settle_in(supervisor, door.as_ref())) };
    let child = command.spawn()?;
    // Dropping std's handle neither waits nor kills: the supervisor reaps by pid.
    Ok(Pid::from_child(&child))
}

/// Prepares the child: own session, tied to the supervisor's life, no inherited signal habits.
fn settle_in(supervisor: Pid, door: Option<&OwnedFd>) -> io::Result<()> {
    // A session of its own is also a group of its own, and it has no terminal that a tool could wait at.
    setsid()?;
    // The supervisor has one thread, so "the thread that forked ended" can only mean "the supervisor ended".
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Race: the supervisor may have died before the line above took effect; then nobody would ever tell us.
    if getppid() != Some(supervisor) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    if let Some(door) = door {
        // Not being let in only costs the shortcut.
        // SAFETY: the descriptor is open, it is borrowed from its owner, and the buffer is one byte long.
        unsafe { libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    }
    for signal in 1..=SIGNAL_MAX {
        // A tool must not inherit that, say, a shell in the background ignores interrupts.
        // SAFETY: SIG_DFL is valid for every signal; the numbers that can not be set only return an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
    Ok(())
}
