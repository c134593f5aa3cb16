//! The foreman: talks to the server, gives commands to slots, keeps the books of what is held.
//!
//! One task owns all of it. One poll is always open, so that a cancel is a push; reports go beside it, several
//! outcomes at a time, and bring the next commands back. Every message may be lost, late or repeated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use noetl_core::head::RunningTool;
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::tool::StopOrder;
use noetl_core::work::{Assignment, Report, Reported};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::hold;
use crate::lru::Lru;
use crate::transport::{
    Attempt, CancelOrder, Held, Hello, Orders, PROTOCOL, Poll, REPORTS_MAX, Reports, Welcome, WorkerError,
};
use crate::worker::slot::{self, Control, Job, Said, Shared};
use crate::worker::{Left, WorkerOptions};

/// Report requests under way at the same time.
const REPORTING_MAX: u32 = 4;
/// Attempts that are remembered as over, so that a repeated command is not run again.
const OVER_MAX: u64 = 16_384;
/// Before the first repetition of a request that failed, in milliseconds.
const PAUSE_MS: u64 = 50;
/// The longest such pause.
const PAUSE_MS_MAX: u64 = 2_000;
/// How long a draining worker tries to say its last words, in milliseconds.
const GOODBYE_MS: u64 = 5_000;

/// Works until `shutdown`, then drains.
pub(super) async fn run(shared: Arc<Shared>, options: WorkerOptions, shutdown: CancellationToken) -> Left {
    let (said, mut news) = mpsc::unbounded_channel();
    let mut slots = JoinSet::new();
    let mut jobs = Vec::new();
    for slot in 0..options.slots as usize {
        let (sender, receiver) = mpsc::channel(1);
        slots.spawn(slot::serve(Arc::clone(&shared), slot, receiver, said.clone()));
        jobs.push(sender);
    }
    let mut foreman = Foreman::new(shared, options, jobs);
    loop {
        foreman.begin_waiting();
        foreman.send();
        if let Some(left) = foreman.has_left() {
            return left;
        }
        let wake = foreman.wake();
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if foreman.drain.is_none() => foreman.drain(),
            Some(said) = news.recv() => {
                foreman.hear(said);
                while let Ok(said) = news.try_recv() {
                    foreman.hear(said);
                }
            }
            Some(answer) = foreman.requests.next(), if !foreman.requests.is_empty() => foreman.answered(answer),
            () = sleep_until(wake) => {}
        }
        foreman.watch_lease();
        foreman.watch_drain();
        // In one process answers may be there without any waiting; others want to run too.
        tokio::task::consume_budget().await;
    }
}

/// What is held: from the moment it was given until its report is acknowledged.
#[derive(Debug)]
struct Command {
    execution_id: ExecutionId,
    /// The life that it was given to.
    session_id: SessionId,
    phase: Phase,
    control: watch::Sender<Control>,
    started: Arc<AtomicBool>,
    /// What of it has been running for a while.
    running: Arc<Mutex<Option<RunningTool>>>,
    /// The cancel order it has been given, and its grace in milliseconds.
    cancel: Option<(CancelMode, u64)>,
}

#[derive(Debug)]
enum Phase {
    /// For a slot.
    Waiting(Box<Assignment>),
    /// In a slot.
    Running,
    /// Over, to be reported until the server says that it is durable.
    Over(Reported),
}

/// A life that the server knows.
#[derive(Debug, Clone, Copy)]
struct Session {
    session_id: SessionId,
    lease_ms: u64,
    poll_ms: u64,
    protocol: u32,
}

/// The last words of a worker.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// When what still runs is interrupted.
    interrupt_at: Instant,
    interrupted: bool,
    /// When it leaves, come what may.
    leave_at: Instant,
    goodbye: Goodbye,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    Unsaid,
    OnItsWay,
    Said,
}

/// The answer to a request. `asked_at` is when it was sent, by the clock that goes on in suspend.
enum Answer {
    Hello(Result<Welcome, WorkerError>, u64),
    Poll { answer: Result<Orders, WorkerError>, asked_at: u64, session_id: SessionId, goodbye: bool },
    Report(Result<Orders, WorkerError>, u64, SessionId, Vec<Attempt>),
}

struct Foreman {
    shared: Arc<Shared>,
    options: WorkerOptions,
    jobs: Vec<mpsc::Sender<Job>>,
    idle: Vec<usize>,
    held: BTreeMap<Attempt, Command>,
    waiting: VecDeque<Attempt>,
    /// Over and not on their way.
    unsent: VecDeque<Attempt>,
    /// Tools that have been running for a while; said once, never repeated.
    started: Vec<Report>,
    over: Lru<Attempt, ()>,
    session: Option<Session>,
    /// The session before, none of whose tools may run when the next one begins.
    before: Option<SessionId>,
    greeting: bool,
    polls: u32,
    reporting: u32,
    serial: u64,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// No request before this moment, after one has failed.
    pause_until: Instant,
    pause_ms: u64,
    /// When the last request that was answered had been sent.
    alive_at: u64,
    /// Another process goes by its name.
    name_taken: bool,
    /// The lease could not be renewed in time: everything has been stopped.
    silenced: bool,
    drain: Option<Drain>,
}

impl Foreman {
    fn new(shared: Arc<Shared>, options: WorkerOptions, jobs: Vec<mpsc::Sender<Job>>) -> Self {
        let alive_at = shared.clock.boottime_ms();
        Foreman {
            idle: (0..jobs.len()).rev().collect(),
            shared,
            options,
            jobs,
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
            unsent: VecDeque::new(),
            started: Vec::new(),
            over: Lru::new(OVER_MAX),
            session: None,
            before: None,
            greeting: false,
            polls: 0,
            reporting: 0,
            serial: 0,
            requests: FuturesUnordered::new(),
            pause_until: Instant::now(),
            pause_ms: PAUSE_MS,
            alive_at,
            name_taken: false,
            silenced: false,
            drain: None,
        }
    }

    /// Gives waiting commands to idle slots.
    fn begin_waiting(&mut self) {
        if self.silenced {
            return;
        }
        while let (Some(slot), Some(attempt)) = (self.idle.last().copied(), self.waiting.front().copied()) {
            self.waiting.pop_front();
            let Some(command) = self.held.get_mut(&attempt) else { continue };
            let phase = std::mem::replace(&mut command.phase, Phase::Running);
            let Phase::Waiting(assignment) = phase else {
                command.phase = phase;
                continue;
            };
            let job = Job {
                assignment,
                session_id: command.session_id,
                control: command.control.subscribe(),
                started: Arc::clone(&command.started),
                running: Arc::clone(&command.running),
            };
            match self.jobs[slot].try_send(job) {
                Ok(()) => {
                    self.idle.pop();
                }
                // A slot whose task is gone takes nothing; what it would have run goes back.
                Err(_) => {
                    self.idle.pop();
                    self.end(attempt, Reported::Released);
                }
            }
        }
    }

    /// Sends whatever there is to be sent now.
    fn send(&mut self) {
        if Instant::now() < self.pause_until {
            return;
        }
        let Some(session) = self.session else {
            self.greet();
            return;
        };
        while self.reporting < REPORTING_MAX && !(self.unsent.is_empty() && self.started.is_empty()) {
            self.send_reports(session);
        }
        match self.drain {
            None => {
                if self.polls == 0 {
                    self.send_poll(session);
                }
            }
            Some(drain) if drain.goodbye == Goodbye::Unsaid => {
                let goodbye = self.held.is_empty() && self.reporting == 0;
                if self.polls == 0 || goodbye {
                    self.send_poll(session);
                }
            }
            Some(_) => {}
        }
    }

    fn greet(&mut self) {
        // A new life must not begin while tools of the old one run: it says so to the server.
        if self.greeting || self.drain.is_some() || self.is_running() {
            return;
        }
        self.greeting = true;
        let hello = Hello {
            worker_id: Arc::clone(&self.options.worker_id),
            session_id: self.before,
            instance: self.options.instance.clone(),
            slots: self.options.slots,
            pools: self.options.pools.clone(),
            protocol: PROTOCOL,
            version: self.options.version.clone(),
            meta: self.options.meta.clone(),
        };
        let shared = Arc::clone(&self.shared);
        let asked_at = shared.clock.boottime_ms();
        self.requests.push(Box::pin(async move { Answer::Hello(shared.transport.hello(hello).await, asked_at) }));
    }

    fn send_poll(&mut self, session: Session) {
        self.polls += 1;
        let poll = self.poll(session);
        let goodbye = self.held.is_empty() && self.reporting == 0;
        if let Some(drain) = self.drain.as_mut().filter(|_| goodbye) {
            drain.goodbye = Goodbye::OnItsWay;
        }
        let goodbye = goodbye && self.drain.is_some();
        let shared = Arc::clone(&self.shared);
        let asked_at = shared.clock.boottime_ms();
        self.requests.push(Box::pin(async move {
            Answer::Poll {
                answer: shared.transport.poll(poll).await,
                asked_at,
                session_id: session.session_id,
                goodbye,
            }
        }));
    }

    fn send_reports(&mut self, session: Session) {
        let mut reports = std::mem::take(&mut self.started);
        let mut attempts = Vec::new();
        // What does not fit goes with the next request.
        self.started = reports.split_off(reports.len().min(REPORTS_MAX));
        while reports.len() < REPORTS_MAX
            && let Some(attempt) = self.unsent.pop_front()
        {
            let Some(Command { execution_id, phase: Phase::Over(outcome), .. }) = self.held.get(&attempt) else {
                continue;
            };
            reports.push(Report {
                execution_id: *execution_id,
                command_id: attempt.command_id,
                epoch: attempt.epoch,
                outcome: outcome.clone(),
            });
            attempts.push(attempt);
        }
        if reports.is_empty() {
            return;
        }
        self.reporting += 1;
        let poll = Poll { wait_ms: 0, ..self.poll(session) };
        let shared = Arc::clone(&self.shared);
        let asked_at = shared.clock.boottime_ms();
        self.requests.push(Box::pin(async move {
            let answer = shared.transport.report(Reports { reports, poll }).await;
            Answer::Report(answer, asked_at, session.session_id, attempts)
        }));
    }

    fn poll(&mut self, session: Session) -> Poll {
        self.serial += 1;
        let held = self.held.iter().map(|(attempt, command)| Held {
            execution_id: command.execution_id,
            command_id: attempt.command_id,
            epoch: attempt.epoch,
            started: command.started.load(Ordering::Relaxed),
            running: hold(&command.running).clone(),
            cancel: command.cancel.map(|(mode, _)| mode),
            grace_ms: command.cancel.map(|(_, grace_ms)| grace_ms),
        });
        let draining = self.drain.is_some();
        let takes = !draining && !self.silenced;
        let free = if takes { self.idle.len().saturating_sub(self.waiting.len()) } else { 0 };
        Poll {
            session_id: session.session_id,
            held: held.collect(),
            free: u32::try_from(free).unwrap_or(u32::MAX),
            wait_ms: session.poll_ms,
            offer: false,
            draining,
            serial: self.serial,
            protocol: session.protocol,
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Hello(answer, asked_at) => {
                self.greeting = false;
                match answer {
                    Ok(Welcome { session_id, lease_ms, poll_ms, protocol }) => {
                        self.reached(asked_at);
                        tracing::info!(session = %session_id, protocol, "the server knows this worker");
                        self.session = Some(Session { session_id, lease_ms, poll_ms, protocol });
                        self.before = Some(session_id);
                    }
                    Err(error @ WorkerError::NameTaken(_)) => {
                        tracing::error!(%error, "this worker leaves");
                        self.name_taken = true;
                    }
                    Err(error) => self.missed(&error),
                }
            }
            Answer::Poll { answer, asked_at, session_id, goodbye } => {
                self.polls -= 1;
                if goodbye && let Some(drain) = &mut self.drain {
                    drain.goodbye = if answer.is_ok() { Goodbye::Said } else { Goodbye::Unsaid };
                }
                match answer {
                    Ok(orders) => self.obey(orders, asked_at, session_id),
                    Err(error) => self.refused(&error, session_id),
                }
            }
            Answer::Report(answer, asked_at, session_id, attempts) => {
                self.reporting -= 1;
                match answer {
                    Ok(orders) => self.obey(orders, asked_at, session_id),
                    Err(error) => self.refused(&error, session_id),
                }
                // What was not acknowledged is said again; the server knows a repetition.
                let left: Vec<_> = attempts.into_iter().filter(|attempt| self.held.contains_key(attempt)).collect();
                if !left.is_empty() {
                    self.unsent.extend(left);
                    self.pause();
                }
            }
        }
    }

    fn obey(&mut self, orders: Orders, asked_at: u64, session_id: SessionId) {
        self.reached(asked_at);
        tracing::trace!(?orders, "the server says");
        let Orders { commands, cancels, offers: _, unknown, settled, lease_ms } = orders;
        for attempt in settled {
            if let Some(Command { phase: Phase::Over(_), .. }) = self.held.get(&attempt) {
                self.held.remove(&attempt);
                self.over.put(attempt, ());
            }
        }
        let Some(session) = self.session.as_mut().filter(|session| session.session_id == session_id) else {
            // An answer to the life before: what it gives belongs to somebody else by now.
            return;
        };
        session.lease_ms = lease_ms;
        for assignment in commands {
            self.take(assignment, session_id);
        }
        for cancel in cancels {
            self.cancel(&cancel);
        }
        for attempt in unknown {
            self.disown(attempt);
        }
    }

    fn take(&mut self, assignment: Assignment, session_id: SessionId) {
        let attempt = Attempt { command_id: assignment.command_id, epoch: assignment.epoch };
        // Sent again because an answer was lost, or crossed on its way.
        if self.held.contains_key(&attempt) || self.over.contains(&attempt) {
            return;
        }
        let command = Command {
            execution_id: assignment.execution_id,
            session_id,
            phase: Phase::Waiting(Box::new(assignment)),
            control: watch::channel(Control::Run).0,
            started: Arc::default(),
            running: Arc::default(),
            cancel: None,
        };
        self.held.insert(attempt, command);
        if self.drain.is_some() {
            self.end(attempt, Reported::Released);
        } else {
            self.waiting.push_back(attempt);
        }
    }

    fn cancel(&mut self, order: &CancelOrder) {
        let attempt = Attempt { command_id: order.command_id, epoch: order.epoch };
        let Some(command) = self.held.get_mut(&attempt) else { return };
        command.cancel = Some(harder(command.cancel, order));
        match &command.phase {
            Phase::Waiting(assignment) => {
                let skipped = slot::skipped(assignment);
                self.end(attempt, skipped);
            }
            Phase::Running => {
                let wanted = match order.mode {
                    CancelMode::Finish => Control::Finish,
                    CancelMode::Interrupt => {
                        Control::Stop { order: StopOrder { grace_ms: order.grace_ms }, hand_back: false }
                    }
                };
                steer(&command.control, wanted);
            }
            Phase::Over(_) => {}
        }
    }

    /// The server says that an attempt is not ours (any more): nothing it does counts.
    fn disown(&mut self, attempt: Attempt) {
        let grace_ms = self.options.grace_ms;
        let Some(command) = self.held.get_mut(&attempt) else { return };
        match &command.phase {
            Phase::Waiting(_) => {
                self.end(attempt, Reported::cancelled(false));
            }
            Phase::Running => {
                steer(&command.control, Control::Stop { order: StopOrder { grace_ms }, hand_back: false });
            }
            // Its report is on its way, and crossed this answer.
            Phase::Over(_) => {}
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Started { attempt, at } => {
                if let Some(command) = self.held.get(&attempt) {
                    self.started.push(Report {
                        execution_id: command.execution_id,
                        command_id: attempt.command_id,
                        epoch: attempt.epoch,
                        outcome: Reported::Started { at },
                    });
                }
            }
            // The open poll was sent before: a new one takes its place.
            Said::Running => {
                if let Some(session) = self.session.filter(|_| self.drain.is_none()) {
                    self.send_poll(session);
                }
            }
            Said::Over { slot, attempt, outcome } => {
                self.idle.push(slot);
                self.end(attempt, outcome);
            }
        }
    }

    /// A command is over here: it is reported until that is durable.
    fn end(&mut self, attempt: Attempt, outcome: Reported) {
        if let Some(command) = self.held.get_mut(&attempt) {
            command.phase = Phase::Over(outcome);
            self.unsent.push_back(attempt);
            self.waiting.retain(|waiting| *waiting != attempt);
        }
    }

    fn refused(&mut self, error: &WorkerError, session_id: SessionId) {
        match error {
            WorkerError::UnknownSession(_) => {
                if self.session.is_some_and(|session| session.session_id == session_id) {
                    tracing::warn!("the server has given this worker up; stopping what runs and beginning again");
                    self.session = None;
                    self.stop_all(self.options.grace_ms, false);
                }
            }
            WorkerError::NameTaken(_)
            | WorkerError::Bad(_)
            | WorkerError::TooNew(_)
            | WorkerError::Store(_)
            | WorkerError::Unreachable(_) => self.missed(error),
        }
    }

    fn missed(&mut self, error: &WorkerError) {
        let said = if matches!(error, WorkerError::Bad(_)) { "refused this worker" } else { "did not answer" };
        tracing::warn!(%error, "the server {said}; trying again");
        self.pause();
    }

    fn pause(&mut self) {
        self.pause_until = Instant::now() + Duration::from_millis(self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
    }

    /// The server has answered a request that was sent at `asked_at`: so long the lease was renewed at least.
    fn reached(&mut self, asked_at: u64) {
        self.alive_at = self.alive_at.max(asked_at);
        self.pause_ms = PAUSE_MS;
        self.silenced = false;
    }

    /// Ends everything when the lease could not be renewed by two thirds of it: after the last third the server gives
    /// the commands to somebody else.
    fn watch_lease(&mut self) {
        let Some(session) = self.session else { return };
        let silent = self.shared.clock.boottime_ms().saturating_sub(self.alive_at);
        if !self.silenced && silent >= session.lease_ms / 3 * 2 {
            tracing::warn!(silent_ms = silent, "the lease could not be renewed; stopping what runs");
            self.silenced = true;
            self.stop_all(self.options.grace_ms.min(session.lease_ms / 6), true);
        }
    }

    fn drain(&mut self) {
        let now = Instant::now();
        let interrupt_at = now + Duration::from_millis(self.options.drain_ms);
        let leave_at = interrupt_at + Duration::from_millis(self.options.grace_ms + GOODBYE_MS);
        self.drain = Some(Drain { interrupt_at, interrupted: false, leave_at, goodbye: Goodbye::Unsaid });
        for attempt in std::mem::take(&mut self.waiting) {
            self.end(attempt, Reported::Released);
        }
        // The open poll still promises free slots: a new one takes its place and says that there are none.
        if let Some(session) = self.session {
            self.send_poll(session);
        }
    }

    fn watch_drain(&mut self) {
        if let Some(drain) = &mut self.drain
            && !drain.interrupted
            && Instant::now() >= drain.interrupt_at
        {
            drain.interrupted = true;
            self.stop_all(self.options.grace_ms, true);
        }
    }

    fn stop_all(&mut self, grace_ms: u64, hand_back: bool) {
        let order = StopOrder { grace_ms };
        let mut unstarted = Vec::new();
        for (attempt, command) in &self.held {
            match &command.phase {
                Phase::Waiting(_) => unstarted.push(*attempt),
                Phase::Running => steer(&command.control, Control::Stop { order, hand_back }),
                Phase::Over(_) => {}
            }
        }
        for attempt in unstarted {
            let outcome = if hand_back { Reported::Released } else { Reported::cancelled(false) };
            self.end(attempt, outcome);
        }
    }

    fn is_running(&self) -> bool {
        self.held.values().any(|command| matches!(command.phase, Phase::Running))
    }

    fn has_left(&self) -> Option<Left> {
        // It greets only when nothing of it runs.
        if self.name_taken {
            return Some(Left::NameTaken);
        }
        let drain = self.drain?;
        let nothing_to_say = self.session.is_none() && !self.is_running();
        let left = drain.goodbye == Goodbye::Said || nothing_to_say || Instant::now() >= drain.leave_at;
        left.then_some(Left::Drained)
    }

    /// Returns when something has to be looked at again, whatever comes.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + Duration::from_millis(PAUSE_MS_MAX);
        if self.pause_until > now {
            wake = wake.min(self.pause_until);
        }
        if let Some(session) = self.session
            && !self.silenced
        {
            let silent = self.shared.clock.boottime_ms().saturating_sub(self.alive_at);
            let left = (session.lease_ms / 3 * 2).saturating_sub(silent);
            wake = wake.min(now + Duration::from_millis(left.max(1)));
        }
        if let Some(drain) = self.drain {
            wake = wake.min(if drain.interrupted { drain.leave_at } else { drain.interrupt_at });
        }
        wake
    }
}

/// Returns the harder of the order that a command has and a new one, as mode and grace in milliseconds.
fn harder(known: Option<(CancelMode, u64)>, order: &CancelOrder) -> (CancelMode, u64) {
    match (known, order.mode) {
        (None | Some((CancelMode::Finish, _)), mode) => (mode, order.grace_ms),
        (Some(known @ (CancelMode::Interrupt, _)), CancelMode::Finish) => known,
        (Some((CancelMode::Interrupt, grace_ms)), CancelMode::Interrupt) => {
            (CancelMode::Interrupt, grace_ms.min(order.grace_ms))
        }
    }
}

/// Tells a running command; what it was told before is never taken back.
fn steer(control: &watch::Sender<Control>, wanted: Control) {
    control.send_if_modified(|present| {
        let harder = match (*present, wanted) {
            (Control::Run, Control::Finish | Control::Stop { .. }) | (Control::Finish, Control::Stop { .. }) => true,
            // A cancel of something that is being handed back: it is over. A shorter grace: sooner.
            (Control::Stop { order: known, hand_back: true }, Control::Stop { order, hand_back: false }) => {
                *present = Control::Stop {
                    order: StopOrder { grace_ms: order.grace_ms.min(known.grace_ms) },
                    hand_back: false,
                };
                return true;
            }
            (Control::Stop { order: known, .. }, Control::Stop { order, .. }) => {
                if order.grace_ms < known.grace_ms
                    && let Control::Stop { order: present, .. } = present
                {
                    *present = order;
                    return true;
                }
                return false;
            }
            (Control::Run, Control::Run)
            | (Control::Finish, Control::Finish | Control::Run)
            | (Control::Stop { .. }, Control::Run | Control::Finish) => false,
        };
        if harder {
            *present = wanted;
        }
        harder
    });
}
