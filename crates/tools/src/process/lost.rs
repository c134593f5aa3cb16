//! What a worker does about the processes of a supervisor that died.
//!
//! Nobody kills supervisors but the kernel short of memory, or a person. Then the tree below has lost its common
//! ancestor, and only traces are left: the control group, the session of the process that was started, and a
//! variable in the environment that everything below inherited. They find all but a process that wiped each of
//! them, so a command that ends this way is never reported as more than *unconfirmed*.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup;
use super::supervise::{TREE_VARIABLE, cgroup_name};
use super::tree;
use super::wire::Role;

/// Most sweeps until we stop hoping to see nothing.
const SWEEPS_MAX: u32 = 50;

/// Pause between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// Kills what carries the traces of a lost tree; returns the processes that are still there.
pub(crate) async fn hunt(tree: String, sessions: Vec<i32>) -> Vec<i32> {
    let mut left = Vec::new();
    for _ in 0..SWEEPS_MAX {
        let (tree, sessions) = (tree.clone(), sessions.clone());
        let swept = tokio::task::spawn_blocking(move || {
            let cleared = cgroup::clear(&[cgroup_name(&tree, Role::Task), cgroup_name(&tree, Role::Resident)]);
            (cleared, sweep(&tree, &sessions))
        });
        let (cleared, found) = swept.await.unwrap_or_default();
        left = found;
        if cleared && left.is_empty() {
            break;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    left
}

/// Kills every trace-bearing process that is seen; returns them.
fn sweep(tree: &str, sessions: &[i32]) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|raw| {
        let Some(pid) = Pid::from_raw(*raw) else { return false };
        // The handle first, then the look: so the signal can not hit a later owner of the number.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        let found = bears_trace(pid, tree, sessions);
        if found {
            pidfd_send_signal(&handle, Signal::KILL).ok();
        }
        found
    })
    .collect()
}

fn bears_trace(pid: Pid, tree: &str, sessions: &[i32]) -> bool {
    let Some(stat) = tree::stat(pid) else { return false };
    if stat.is_dead() {
        return false;
    }
    // A session keeps its number as long as it has a member, so the number still means the tree's session, unless
    // all of it is gone and the number went round within the moment since the supervisor died.
    let marker = format!("{TREE_VARIABLE}={tree}");
    sessions.contains(&stat.session)
        || fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes()))
}
