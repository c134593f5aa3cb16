//! The supervisor: a tiny process between a worker and what its tools start.
//!
//! It has one thread, so that nothing can fork behind its back; it adopts every orphan below it; and it reports a
//! tool as ended only when nobody is left below it. Its only tie to the world is the lifeline, a socket to the
//! worker: when that closes, whatever the reason, everything below is killed at once and the supervisor ends.
//! Data never passes through here: the tools' streams are the worker's own, handed over with the order to start.
//!
//! It runs one *task* at a time, and may keep one *resident*, a warm interpreter that has proven to be idle.
//! Whatever else is found below belongs to what runs now.

use std::collections::HashSet;
use std::env;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, getpid, set_child_subreaper, waitid};

use super::cgroup::Cgroup;
use super::kill::{self, Asked, Target};
use super::lifeline::Lifeline;
use super::spawn::{ChildSignals, keep_files_from_children, spawn};
use super::tree;
use super::wire::{Ended, Exit, How, Order, Report, Role, Start};

/// Grace for processes that a finished command left behind.
const LEFTOVER_GRACE: Duration = Duration::from_millis(200);

/// How long an idle interpreter's last threads and children may take to vanish by themselves.
const SETTLE_WAIT: Duration = Duration::from_millis(20);

/// Longest grace: beyond it the clock could not count.
const GRACE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// After so long under the kill signal, what is left counts as unconfirmed.
const UNCONFIRMED_AFTER: Duration = Duration::from_secs(5);

/// Pause between two nudges of an interpreter that was asked to end.
const NUDGE_PAUSE: Duration = Duration::from_millis(50);

/// First and longest pause between two sweeps of kills, if no child's end wakes us sooner.
const SWEEP_PAUSE_MIN: Duration = Duration::from_millis(1);
const SWEEP_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Environment variable that names the supervisor's tree, for itself and for all below.
pub(crate) const TREE_VARIABLE: &str = "NOETL_TREE";

/// Environment variable that keeps a supervisor from making control groups, with the value `off`.
pub(crate) const CGROUPS_VARIABLE: &str = "NOETL_CGROUPS";

/// Runs this process as a supervisor until its worker is gone and nothing is left below it.
///
/// To be called first thing in `main`, before any thread or runtime exists; stdin is the lifeline.
pub fn supervise_main() -> ExitCode {
    match Supervisor::prepare().and_then(Supervisor::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The worker sees only that its lifeline closed; stderr is the worker's own.
            writeln!(io::stderr(), "noetl supervisor: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

/// A process that the supervisor started itself.
#[derive(Debug)]
struct Main {
    pid: Pid,
    /// Known once it has ended. It is reaped only after its whole tree, to keep its number taken until then.
    exit: Option<Exit>,
}

/// A tree that is being brought to its end.
#[derive(Debug)]
struct Ending {
    role: Role,
    how: How,
    kill_at: Instant,
    asked: Asked,
    /// Whether those that could not hear it were asked again, when the process itself had ended.
    asked_again: bool,
    /// When force began.
    forced_at: Option<Instant>,
    struck: HashSet<Pid>,
    pause: Duration,
}

#[derive(Debug)]
struct Supervisor {
    lifeline: Lifeline,
    signals: ChildSignals,
    task_cgroup: Option<Cgroup>,
    resident_cgroup: Option<Cgroup>,
    task: Option<Main>,
    resident: Option<Main>,
    ending: Option<Ending>,
    /// Until when an unsettled resident may still settle.
    settling: Option<Instant>,
    /// Something below could not be killed: nothing may be started here any more.
    spent: bool,
}

impl Supervisor {
    fn prepare() -> io::Result<Self> {
        let signals = ChildSignals::block_all_and_listen()?;
        keep_files_from_children();
        set_child_subreaper(Some(getpid()))?;
        rustix::thread::set_name(c"noetl-supervise").ok();
        // Without this file (CONFIG_PROC_CHILDREN) there would be no proof, so there is no supervisor.
        tree::own_children()?;
        let group = |role| match env::var(CGROUPS_VARIABLE).as_deref() {
            Ok("off") => None,
            Ok(_) | Err(_) => Cgroup::create(&cgroup_name(&env::var(TREE_VARIABLE).ok()?, role)),
        };
        Ok(Supervisor {
            lifeline: Lifeline::from_stdin()?,
            signals,
            task_cgroup: group(Role::Task),
            resident_cgroup: group(Role::Resident),
            task: None,
            resident: None,
            ending: None,
            settling: None,
            spent: false,
        })
    }

    fn run(mut self) -> io::Result<()> {
        // Whatever ends the service, the worker or an error or a bug of ours: nothing may stay.
        let served = panic::catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.abandon()?;
        served.unwrap_or_else(|_| Err(io::Error::other("the supervisor has a bug")))
    }

    /// Follows orders until the worker is gone.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let timeout = self.next_wake(Instant::now());
            let lifeline_ready = wait(&self.lifeline, &self.signals, timeout)?;
            self.signals.drain();
            // Before any order is heard: a process that ended before it was asked to shall be told so.
            self.reap()?;
            if lifeline_ready && !self.lifeline.read()? {
                return Ok(());
            }
            while let Some((order, files)) = self.lifeline.next_order()? {
                self.obey(order, files)?;
            }
            while self.advance(Instant::now())? {}
        }
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Start(start) => self.start(&start, files),
            Order::Stop { role, grace_ms } => self.stop(role, Duration::from_millis(grace_ms).min(GRACE_MAX)),
            Order::Settle => {
                self.settling = Some(Instant::now() + SETTLE_WAIT);
                Ok(())
            }
        }
    }

    fn start(&mut self, start: &Start, files: Vec<OwnedFd>) -> io::Result<()> {
        if self.spent || self.ending.is_some() || self.main(start.role).is_some() {
            let message = "the supervisor is still busy with what it runs".to_owned();
            return self.lifeline.report(&Report::Refused { message, errno: None });
        }
        let report = match spawn(start, files, self.cgroup(start.role)) {
            Ok(pid) => {
                *self.main_mut(start.role) = Some(Main { pid, exit: None });
                Report::Started { pid: pid.as_raw_nonzero().get() }
            }
            Err(error) => Report::Refused { message: error.to_string(), errno: error.raw_os_error() },
        };
        self.lifeline.report(&report)
    }

    fn stop(&mut self, role: Role, grace: Duration) -> io::Result<()> {
        if let Some(ending) = &mut self.ending {
            // It is ending already: a repeat can only make it sooner.
            ending.kill_at = ending.kill_at.min(Instant::now() + grace);
            return Ok(());
        }
        // Race: the order may cross the report that there is nothing left to stop. Then it means nothing.
        match self.main(role) {
            Some(Main { exit: None, .. }) => self.begin(role, How::Stopped, grace),
            Some(Main { exit: Some(_), .. }) => self.begin(role, How::Finished, grace.min(LEFTOVER_GRACE)),
            None => Ok(()),
        }
    }

    /// Moves on whatever is due; returns whether a tree came to its end, so that another may be due.
    fn advance(&mut self, now: Instant) -> io::Result<bool> {
        if self.ending.is_none() {
            let task_over = self.task.as_ref().map(|task| task.exit.is_some());
            let resident_over = self.resident.as_ref().is_some_and(|resident| resident.exit.is_some());
            match task_over {
                Some(true) => self.begin(Role::Task, How::Finished, LEFTOVER_GRACE)?,
                // A resident that dies while a task runs left nothing (it was settled): it is told later.
                Some(false) => {}
                None if resident_over => self.begin(Role::Resident, How::Finished, LEFTOVER_GRACE)?,
                None => self.settle(now)?,
            }
        }
        let Some(mut ending) = self.ending.take() else { return Ok(false) };
        if self.nothing_left(ending.role)? {
            self.finish(&ending, Vec::new())?;
            return Ok(true);
        }
        if ending.forced_at.is_some() || now >= ending.kill_at {
            let unconfirmed = self.force(&mut ending, now)?;
            if !unconfirmed.is_empty() {
                self.finish(&ending, unconfirmed)?;
                return Ok(true);
            }
        } else {
            match self.main(ending.role) {
                Some(Main { exit: None, pid }) if ending.role == Role::Resident => kill::nudge(*pid),
                Some(Main { exit: Some(_), .. }) if !ending.asked_again => {
                    ending.asked_again = true;
                    kill::ask_again(self.target(ending.role), &mut ending.asked)?;
                }
                Some(Main { .. }) | None => {}
            }
        }
        self.ending = Some(ending);
        Ok(false)
    }

    fn begin(&mut self, role: Role, how: How, grace: Duration) -> io::Result<()> {
        self.settling = None;
        let now = Instant::now();
        let mut ending = Ending {
            role,
            how,
            kill_at: now + grace,
            asked: Asked::new(),
            asked_again: false,
            forced_at: None,
            struck: HashSet::new(),
            pause: SWEEP_PAUSE_MIN,
        };
        if !grace.is_zero() && !self.nothing_left(role)? {
            kill::ask(self.target(role), &mut ending.asked)?;
        }
        self.ending = Some(ending);
        Ok(())
    }

    /// Kills what is left; returns what has not ended although it was killed long ago.
    fn force(&self, ending: &mut Ending, now: Instant) -> io::Result<Vec<i32>> {
        let target = self.target(ending.role);
        let forced_at = *ending.forced_at.get_or_insert(now);
        let found_new = kill::force(target, &mut ending.struck)?;
        ending.pause = if found_new { SWEEP_PAUSE_MIN } else { (ending.pause * 2).min(SWEEP_PAUSE_MAX) };
        ending.how = match ending.how {
            How::Stopped => How::Killed,
            how @ (How::Finished | How::Killed | How::Unconfirmed) => how,
        };
        let mut unconfirmed = Vec::new();
        if now.duration_since(forced_at) > UNCONFIRMED_AFTER {
            // Race: the last one may have ended since the look before; then nobody is named and the next look
            // finds nothing.
            tree::visit_descendants(target.spare, |pid, _| unconfirmed.push(pid.as_raw_nonzero().get()))?;
        }
        Ok(unconfirmed)
    }

    fn finish(&mut self, ending: &Ending, unconfirmed: Vec<i32>) -> io::Result<()> {
        let role = ending.role;
        // From here on it is reaped like any other child.
        let exit = self.main_mut(role).take().and_then(|main| main.exit);
        self.reap()?;
        self.spent |= !unconfirmed.is_empty();
        let how = if unconfirmed.is_empty() { ending.how } else { How::Unconfirmed };
        let leftovers = match ending.how {
            // The process itself had ended, so whoever was met afterwards is a leftover.
            How::Finished => ending.struck.iter().chain(ending.asked.keys()).collect::<HashSet<_>>().len(),
            How::Stopped | How::Killed | How::Unconfirmed => 0,
        };
        let ended = Ended { role, exit, how, leftovers, unconfirmed };
        self.lifeline.report(&Report::Ended(ended))
    }

    /// Answers a worker that asks whether its interpreter left anything behind.
    fn settle(&mut self, now: Instant) -> io::Result<()> {
        let Some(until) = self.settling else { return Ok(()) };
        let Some(resident) = &self.resident else {
            // Race: it ended before the question came; the report of that is the answer.
            self.settling = None;
            return Ok(());
        };
        // First the resident: once it has one thread (which waits for its next command) and no child, it can get
        // none. Then our own list, which can only have grown since.
        let alone = tree::stat(resident.pid).is_some_and(|stat| !stat.is_dead() && stat.threads == 1)
            && tree::children(resident.pid).is_empty()
            && self.nothing_left(Role::Task)?;
        if alone {
            self.settling = None;
            self.lifeline.report(&Report::Settled)
        } else if now < until {
            Ok(())
        } else {
            self.begin(Role::Resident, How::Finished, LEFTOVER_GRACE)
        }
    }

    /// Returns whether everything that `role` covers is dead.
    ///
    /// Dead processes that are not reaped may be left: our own, on purpose, and those that a debugger holds.
    fn nothing_left(&mut self, role: Role) -> io::Result<bool> {
        let spare = self.spare(role);
        let mut dead_before = Vec::new();
        loop {
            self.reap()?;
            let ended = [&self.task, &self.resident].map(|main| {
                let ended = main.as_ref().filter(|main| main.exit.is_some());
                ended.map(|main| main.pid)
            });
            let mut others = tree::own_children()?;
            others.retain(|child| Some(*child) != spare && !ended.contains(&Some(*child)));
            if others.iter().any(|child| tree::stat(*child).is_some_and(|stat| !stat.is_dead())) {
                return Ok(false);
            }
            // Race: one that died since the reaping may have handed us children after the list was read. The
            // dead hand over nobody any more, so a list that stays the same is the whole truth.
            if others == dead_before {
                return Ok(true);
            }
            dead_before = others;
        }
    }

    /// Notes which of our processes ended, and reaps adopted ones.
    fn reap(&mut self) -> io::Result<()> {
        for child in tree::own_children()? {
            let ours = [&mut self.task, &mut self.resident].into_iter().flatten().find(|main| main.pid == child);
            match ours {
                Some(Main { exit: Some(_), .. }) => {}
                Some(main) => {
                    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                    main.exit = waitid(WaitId::Pid(child), options)?.as_ref().and_then(exit_of);
                }
                None => {
                    waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
                }
            }
        }
        Ok(())
    }

    /// Kills everything, at once, and stays until nothing is left.
    fn abandon(&mut self) -> io::Result<()> {
        let mut struck = HashSet::new();
        let mut pause = SWEEP_PAUSE_MIN;
        while !self.nothing_left(Role::Resident)? {
            let mut found_new = false;
            for role in [Role::Task, Role::Resident] {
                found_new |= kill::force(Target { spare: None, ..self.target(role) }, &mut struck)?;
            }
            pause = if found_new { SWEEP_PAUSE_MIN } else { (pause * 2).min(SWEEP_PAUSE_MAX) };
            wait_for_children(&self.signals, pause)?;
            self.signals.drain();
        }
        Ok(())
    }

    fn next_wake(&self, now: Instant) -> Option<Duration> {
        let settle = self.settling.map(|_| SWEEP_PAUSE_MIN);
        let ending = self.ending.as_ref().map(|ending| match ending.forced_at {
            Some(_) => ending.pause,
            None => {
                let grace = ending.kill_at.saturating_duration_since(now);
                if ending.role == Role::Resident { grace.min(NUDGE_PAUSE) } else { grace }
            }
        });
        settle.into_iter().chain(ending).min()
    }

    fn target(&self, role: Role) -> Target<'_> {
        let leader = self.main(role).map(|main| main.pid);
        Target { leader, spare: self.spare(role), cgroup: self.cgroup(role) }
    }

    fn cgroup(&self, role: Role) -> Option<&Cgroup> {
        match role {
            Role::Task => self.task_cgroup.as_ref(),
            Role::Resident => self.resident_cgroup.as_ref(),
        }
    }

    /// Returns who lives on when `role` ends.
    fn spare(&self, role: Role) -> Option<Pid> {
        match role {
            Role::Task => self.resident.as_ref().map(|resident| resident.pid),
            Role::Resident => None,
        }
    }

    fn main(&self, role: Role) -> Option<&Main> {
        match role {
            Role::Task => self.task.as_ref(),
            Role::Resident => self.resident.as_ref(),
        }
    }

    fn main_mut(&mut self, role: Role) -> &mut Option<Main> {
        match role {
            Role::Task => &mut self.task,
            Role::Resident => &mut self.resident,
        }
    }
}

/// Returns the name of the control group for a role below the supervisor of this tree.
pub(crate) fn cgroup_name(tree: &str, role: Role) -> String {
    match role {
        Role::Task => format!("noetl-{tree}-task"),
        Role::Resident => format!("noetl-{tree}-resident"),
    }
}

fn exit_of(status: &WaitIdStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Status).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// Waits for an order, a child's end, or the timeout; returns whether the lifeline has something.
fn wait(lifeline: &Lifeline, signals: &ChildSignals, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::new(lifeline, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, timespec(timeout).as_ref()))?;
    Ok(!fds[0].revents().is_empty())
}

fn wait_for_children(signals: &ChildSignals, timeout: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(signals, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, timespec(Some(timeout)).as_ref()))?;
    Ok(())
}

fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    // A grace beyond what the kernel can count is as good as none.
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}
