//! Signals for whole trees of processes.
//!
//! A signal must never hit a process that merely got the number of one that is gone. Three kinds of address are
//! safe: our own children, because a child that was not reaped keeps its number; the group of a process that we
//! started, because its unreaped leader keeps the group's number; and anybody else through a pidfd that was opened
//! *before* looking whether the number is still below us.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal};

use super::cgroup::Cgroup;
use super::tree;

/// What is to end: everything below the supervisor but `spare`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Leader of the group that was started, if there is one that was not reaped yet.
    pub(crate) leader: Option<Pid>,
    /// The idle resident, if it is to live on.
    pub(crate) spare: Option<Pid>,
    /// Control group of what was started.
    pub(crate) cgroup: Option<&'a Cgroup>,
}

/// Who was asked to end, and what program it was then.
pub(crate) type Asked = HashMap<Pid, tree::Name>;

/// Asks every process of the tree to end, and notes them in `asked`.
///
/// Each is asked once: what a process starts in answer (the cleanup of a shell's trap) is let alone. The leader's
/// group is asked in one stroke, which nobody can slip through by forking.
pub(crate) fn ask(target: Target<'_>, asked: &mut Asked) -> io::Result<()> {
    signal_group(target.leader, Signal::TERM);
    tree::visit_descendants(target.spare, |pid, stat| {
        asked.insert(pid, stat.name);
        if Pid::from_raw(stat.group) != target.leader {
            send(pid, Signal::TERM);
        }
        wake(pid);
    })
}

/// Asks those that could not hear it before.
///
/// Two races: a process may be forked just after everybody was asked, by one that then ends and leaves it behind;
/// and one that was asked between its fork and its exec hears the signal with its parent's handler, and forgets it
/// with the exec.
pub(crate) fn ask_again(target: Target<'_>, asked: &mut Asked) -> io::Result<()> {
    tree::visit_descendants(target.spare, |pid, stat| {
        if asked.insert(pid, stat.name) != Some(stat.name) {
            send(pid, Signal::TERM);
            wake(pid);
        }
    })
}

/// Wakes an interpreter of ours, in case it sleeps on what it was asked.
///
/// Race: python only notes a signal when it comes, and acts on it a little later; if it enters a long system call
/// in between, it sleeps on. Any further signal ends the call. This one does nothing else: who has no handler for
/// it, as the interpreter has, ignores it.
pub(crate) fn nudge(interpreter: Pid) {
    kill_process(interpreter, Signal::URG).ok();
}

/// Lets a halted process go on: it gets its signal only then.
fn wake(pid: Pid) {
    if tree::stat(pid).is_some_and(|stat| stat.is_halted()) {
        send(pid, Signal::CONT);
    }
}

/// Kills every process of the tree that can be seen, and returns whether there were new ones among them.
///
/// Not one process may be left that could fork: the control group and the process group are killed whole, the
/// kernel lets no fork slip between. What left both (setsid) is killed one by one, at once when it is seen,
/// parents first. A storm may outrun one such sweep; the caller repeats it until nothing is left.
pub(crate) fn force(target: Target<'_>, struck: &mut HashSet<Pid>) -> io::Result<bool> {
    if let Some(cgroup) = target.cgroup {
        cgroup.kill();
    }
    signal_group(target.leader, Signal::KILL);
    let mut found_new = false;
    tree::visit_descendants(target.spare, |pid, _| {
        send(pid, Signal::KILL);
        found_new |= struck.insert(pid);
    })?;
    Ok(found_new)
}

fn signal_group(leader: Option<Pid>, signal: Signal) {
    if let Some(leader) = leader {
        // An empty group is what we want to reach.
        kill_process_group(leader, signal).ok();
    }
}

fn send(pid: Pid, signal: Signal) {
    // "No such process" is what we want to reach; "not permitted" (a setuid program) shows as unconfirmed later.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => {
            if tree::is_descendant(pid) {
                pidfd_send_signal(&handle, signal).ok();
            }
        }
        Err(Errno::SRCH) => {}
        Err(_) => {
            // No pidfd to be had (seccomp, no file left): the look and the signal are a few microseconds apart.
            if tree::is_descendant(pid) {
                kill_process(pid, signal).ok();
            }
        }
    }
}
