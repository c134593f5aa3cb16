//! A control group of version 2 for what a supervisor runs, where the machine lets us make one.
//!
//! It is a shortcut, never the proof: `cgroup.kill` ends a fork storm in one stroke, but a process with enough
//! rights can leave its group, so the walk over /proc decides. No writable mount is the normal case.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A control group that this process made and will remove.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group of this name beside our own processes; `None` where that is not possible.
    pub(crate) fn create(name: &str) -> Option<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = home(&mounts, &membership)?.join(name);
        fs::create_dir(&path).ok()?;
        let group = Cgroup { path };
        // Kernels before 5.14 can not kill a group: then it is of no use.
        group.path.join("cgroup.kill").exists().then_some(group)
    }

    /// Opens the file through which a process joins by writing `0`.
    pub(crate) fn door(&self) -> io::Result<OwnedFd> {
        Ok(fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Kills every member, also those that are being forked.
    pub(crate) fn kill(&self) {
        // A failure is met by the walk over /proc, which runs in any case.
        fs::write(self.path.join("cgroup.kill"), "1").ok();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only an empty group can be removed; one that holds an unkillable process stays, and names it.
        fs::remove_dir(&self.path).ok();
    }
}

/// Kills the members of the groups that a lost supervisor made under these names, and removes them.
///
/// Returns whether they are gone; members may take a moment to die.
pub(crate) fn clear(names: &[String]) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return true };
    let Ok(membership) = fs::read_to_string("/proc/self/cgroup") else { return true };
    let Some(home) = home(&mounts, &membership) else { return true };
    let paths: Vec<PathBuf> = names.iter().map(|name| home.join(name)).filter(|path| path.exists()).collect();
    for path in &paths {
        let group = Cgroup { path: path.clone() };
        group.kill();
    }
    !paths.iter().any(|path| path.exists())
}

/// Returns the directory of our own version 2 group: the mount's place plus our path in it.
fn home(mounts: &str, membership: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        // `31 23 0:28 / /sys/fs/cgroup rw,relatime [tags] - cgroup2 cgroup2 rw`
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        kind.starts_with("cgroup2 ").then(|| (root.to_owned(), mount.replace("\\040", " ")))
    });
    let (root, mount) = mount?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Inside a container the mount shows only a part of the tree.
    let inside = if root == "/" { own } else { own.strip_prefix(root.as_str())? };
    Some(Path::new(&mount).join(inside.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_group_is_found_on_every_layout() {
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let container = "30 23 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let table = [
            (v1.to_owned(), "8:pids:/\n", None),
            (format!("{v1}{hybrid}"), "8:pids:/x\n0::/\n", Some("/sys/fs/cgroup/unified/")),
            (pure.to_owned(), "0::/system.slice/noetl.service\n", Some("/sys/fs/cgroup/system.slice/noetl.service")),
            (container.to_owned(), "0::/docker/ab/c\n", Some("/sys/fs/cgroup/c")),
            (container.to_owned(), "0::/elsewhere\n", None),
        ];
        for (mounts, membership, expected) in table {
            assert_eq!(home(&mounts, membership), expected.map(PathBuf::from), "{mounts}");
        }
    }
}
