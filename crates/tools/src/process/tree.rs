//! Who descends from this process, read from /proc.
//!
//! The supervisor is a *child subreaper*: whoever loses its parent below it becomes its own child. So every
//! descendant, however often it forked and whatever session it made, hangs below one of the supervisor's
//! children. And the list of its own children can only shrink when the supervisor itself reaps: the process is
//! single-threaded, a zombie stays listed until it is waited for, an adopted orphan is appended. That is what
//! makes "my list holds nobody else" a proof and not a snapshot that somebody slipped through.

use std::fs;
use std::io;

use rustix::process::{Pid, getpid};

/// Deepest chain of parents that is climbed before a process counts as foreign.
const CLIMB_MAX: usize = 65_536;

/// Longest name that the kernel keeps of a program.
const NAME_BYTES_MAX: usize = 15;

/// The kernel's short name of a program.
pub(crate) type Name = [u8; NAME_BYTES_MAX];

/// What /proc says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Name of the program, as far as the kernel keeps it; it changes with an exec.
    pub(crate) name: Name,
    /// One letter: R, S, D, T, t, Z, X.
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Threads that live; 1 for an ordinary process and for a zombie that is nothing but a zombie.
    pub(crate) threads: i64,
}

impl Stat {
    /// Returns whether the process is dead and waits only to be reaped.
    ///
    /// The first thread of a process may end before the others; then the process lives although it reads `Z`.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    /// Returns whether the process is halted by a stop signal.
    pub(crate) fn is_halted(&self) -> bool {
        self.state == b'T'
    }
}

/// Reads the state of a process; `None` if there is no such process.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &[u8]) -> Option<Stat> {
    // The name, in parentheses, may itself hold spaces and parentheses: the fields start behind the last one.
    let name_start = line.iter().position(|byte| *byte == b'(')? + 1;
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let mut name = Name::default();
    name.iter_mut().zip(line.get(name_start..name_end)?).for_each(|(kept, byte)| *kept = *byte);
    let fields = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    Some(Stat {
        name,
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
    })
}

/// Returns the children of this process, dead ones that were not reaped included.
pub(crate) fn own_children() -> io::Result<Vec<Pid>> {
    // Single-threaded, so one thread's children are all there are.
    fs::read("/proc/thread-self/children").map(|list| parse_pids(&list))
}

/// Returns the children of any process; none if it is gone.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read(thread.path().join("children")).ok())
        .flat_map(|list| parse_pids(&list))
        .collect()
}

fn parse_pids(list: &[u8]) -> Vec<Pid> {
    let list = String::from_utf8_lossy(list);
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Calls `visit` with every living descendant of this process outside the tree of `spare`, parents first.
///
/// `visit` may kill: a parent that is dead before its children are read hands them to the supervisor, where the
/// next walk finds them.
pub(crate) fn visit_descendants(spare: Option<Pid>, mut visit: impl FnMut(Pid, Stat)) -> io::Result<()> {
    let mut open = own_children()?;
    while let Some(pid) = open.pop() {
        if Some(pid) == spare {
            continue;
        }
        if let Some(stat) = stat(pid)
            && !stat.is_dead()
        {
            visit(pid, stat);
        }
        open.extend(children(pid));
    }
    Ok(())
}

/// Returns whether the process is below this one now.
pub(crate) fn is_descendant(pid: Pid) -> bool {
    let own = getpid();
    let mut pid = pid;
    for _ in 0..CLIMB_MAX {
        match stat(pid).and_then(|stat| Pid::from_raw(stat.parent)) {
            Some(parent) if parent == own => return true,
            Some(parent) => pid = parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"4242 (a) b) (c) T 17 4240 4239 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 99 0 0";
        let name = *b"a) b) (c\0\0\0\0\0\0\0";
        let expected = Stat { name, state: b'T', parent: 17, group: 4240, session: 4239, threads: 3 };
        assert_eq!(parse_stat(line), Some(expected));
    }

    #[test]
    fn a_zombie_with_living_threads_is_not_dead() {
        let stat = Stat { name: Name::default(), state: b'Z', parent: 1, group: 1, session: 1, threads: 2 };
        assert!(!stat.is_dead());
        assert!(Stat { threads: 1, ..stat }.is_dead());
    }
}
