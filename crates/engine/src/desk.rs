//! The desk: workers that are asking for work here, what they have been given, and which slots are promised.
//!
//! A hint like everything in memory. The tables say who holds what; a worker that comes back from another server, or a
//! server that comes back from a crash, is brought up to date by [`Desk::correct`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use noetl_core::execution::Hand;
use noetl_core::head::Holder;
use noetl_core::id::{ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::time::Timestamp;
use noetl_core::turns::Freed;
use noetl_core::work::Assignment;
use noetl_store::{RunningNote, Session};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

mod attention;
mod given;
mod promise;

pub(crate) use self::attention::{Attention, Channel, Say};
use self::given::{Cancel, Given, Sent};
pub(crate) use self::given::{REPEAT_LOST_MS, REPEAT_MS};
pub(crate) use self::promise::Promise;
use crate::hold;
use crate::lru::Lru;
use crate::transport::{Attempt, Held, Poll};

/// Attempts that are remembered when they are over.
const PAST_MAX: u64 = 16_384;
/// Executions known to wait for a slot, at most; beyond that it makes no difference who they are.
const WAITING_MAX: usize = 256;
/// Workers that one decision may hand work to.
pub(crate) const HANDS_MAX: usize = 16;

/// The desk of one server.
#[derive(Debug)]
pub(crate) struct Desk {
    lives: Mutex<Lives>,
    /// There may be pending commands that nobody has been found for.
    backlog: AtomicBool,
    /// Wakes the matcher.
    pub(crate) work: Notify,
    /// Wakes those who hang in a poll for offers.
    pub(crate) offers: Notify,
}

#[derive(Debug)]
struct Lives {
    lives: BTreeMap<SessionId, Life>,
    holders: BTreeMap<Attempt, SessionId>,
    past: Lru<Attempt, Past>,
    counts: Counts,
    /// Where the next search for free slots begins.
    turn: SessionId,
    /// Executions with pending commands, as far as the last look and the hints since say.
    waiting: BTreeSet<ExecutionId>,
}

/// What has happened so far, so that a reading of the tables is not held against what came after it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Commands given out.
    given: u64,
    /// Attempts that went into the memory of those that are over.
    past: u64,
}

/// What is known of an attempt that is over.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// Its worker has said so: a request that crossed the report may name it once more.
    reported: bool,
    /// The tables say so: it is never given again, whatever an earlier reading of them said.
    settled: bool,
}

impl Lives {
    fn note_past(&mut self, attempt: Attempt, note: impl FnOnce(&mut Past)) {
        let known = self.past.remove(&attempt);
        self.counts.past += u64::from(known.is_none());
        let mut past = known.unwrap_or_default();
        note(&mut past);
        self.past.put(attempt, past);
    }

    fn is_settled(&self, attempt: Attempt) -> bool {
        self.past.peek(&attempt).is_some_and(|past| past.settled)
    }
}

/// A worker's session, as far as it talks to this server.
#[derive(Debug)]
struct Life {
    session: Session,
    /// Free slots, as the worker counted them when it last spoke.
    free: u32,
    /// Of these, promised to decisions under way.
    promised: u32,
    /// Commands given that the worker has not named yet: on their way to a slot.
    unnamed: u32,
    attempts: BTreeMap<Attempt, Given>,
    /// Requests being answered.
    attending: u32,
    /// Of these, reports that take along what is given.
    holding_back: u32,
    /// The newest poll; older ones are answered empty.
    poll: u64,
    /// Serial number of what the worker said last.
    serial: u64,
    draining: bool,
    /// It claims by itself.
    chooses: bool,
    /// Freed slots in a row that went to the execution that freed them.
    streak: u32,
    /// What it holds without right, and when it was told so.
    disowned: BTreeMap<Attempt, Instant>,
    renewed: Instant,
    corrected: Instant,
    /// It does not confirm what it was given here. Its answer was lost, or it has reported that to another server.
    doubted: bool,
    wake: Arc<Notify>,
}

impl Desk {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Desk {
            lives: Mutex::new(Lives {
                lives: BTreeMap::new(),
                holders: BTreeMap::new(),
                past: Lru::new(PAST_MAX),
                counts: Counts::default(),
                turn: SessionId(0),
                waiting: BTreeSet::new(),
            }),
            // A server that has just come up does not know what waits.
            backlog: AtomicBool::new(true),
            work: Notify::new(),
            offers: Notify::new(),
        })
    }

    /// Seats a session, if it is not here already.
    pub(crate) fn seat(&self, session: Session) {
        let now = Instant::now();
        hold(&self.lives).lives.entry(session.session_id).or_insert_with(|| Life {
            session,
            free: 0,
            promised: 0,
            unnamed: 0,
            attempts: BTreeMap::new(),
            attending: 0,
            holding_back: 0,
            poll: 0,
            serial: 0,
            draining: false,
            chooses: false,
            streak: 0,
            disowned: BTreeMap::new(),
            renewed: now,
            corrected: now,
            doubted: false,
            wake: Arc::new(Notify::new()),
        });
    }

    /// Ends a session here; whoever hangs for it is told.
    pub(crate) fn dismiss(&self, session_id: SessionId) {
        let mut lives = hold(&self.lives);
        if let Some(life) = lives.lives.remove(&session_id) {
            for attempt in life.attempts.keys() {
                lives.holders.remove(attempt);
            }
            life.wake.notify_waiters();
        }
    }

    /// Returns whether a worker has said here that it takes nothing new.
    pub(crate) fn drains(&self, session_id: SessionId) -> bool {
        hold(&self.lives).lives.get(&session_id).is_some_and(|life| life.draining)
    }

    /// Forgets sessions that have not spoken for so long; returns whether anybody is left.
    pub(crate) fn forget_silent(&self, silence: Duration) {
        let mut lives = hold(&self.lives);
        let silent: Vec<SessionId> = lives
            .lives
            .iter()
            .filter(|(_, life)| life.attending == 0 && life.renewed.elapsed() > silence)
            .map(|(id, _)| *id)
            .collect();
        drop_lives(&mut lives, &silent);
    }

    /// Takes what a worker says of itself; `None` when its session is not seated here.
    pub(crate) fn attend(self: &Arc<Self>, said: &Poll, channel: Channel) -> Option<Attention> {
        let mut lives = hold(&self.lives);
        let Lives { lives, past, .. } = &mut *lives;
        let life = lives.get_mut(&said.session_id)?;
        // Requests overtake each other; an older one knows less. Simple workers do not count.
        let (mut strangers, mut running) = (Vec::new(), Vec::new());
        if said.serial == 0 || said.serial >= life.serial {
            life.serial = said.serial;
            running = life.hear(said, channel, past);
            strangers.extend(
                said.held
                    .iter()
                    .map(Attempt::of)
                    .filter(|attempt| !life.attempts.contains_key(attempt))
                    .filter(|attempt| !past.peek(attempt).is_some_and(|past| past.reported)),
            );
        }
        life.attending += 1;
        match channel {
            Channel::Poll => {
                life.poll += 1;
                life.wake.notify_waiters();
            }
            Channel::Report => life.holding_back += 1,
        }
        if life.available() > 0 && self.backlog.load(Ordering::Relaxed) {
            self.work.notify_one();
        }
        Some(Attention {
            desk: Arc::clone(self),
            session_id: said.session_id,
            channel,
            poll: life.poll,
            holds_back: channel == Channel::Report,
            worker_id: Arc::clone(&life.session.worker_id),
            pools: life.session.pools.clone(),
            wake: Arc::clone(&life.wake),
            renewed: life.renewed,
            corrected: life.corrected,
            doubted: life.doubted,
            strangers,
            running,
        })
    }

    /// Notes that the session's lease has been renewed.
    pub(crate) fn renewed(&self, session_id: SessionId) {
        if let Some(life) = hold(&self.lives).lives.get_mut(&session_id) {
            life.renewed = Instant::now();
        }
    }

    /// Notes that the tables say what a worker runs.
    pub(crate) fn noted(&self, session_id: SessionId, notes: Vec<RunningNote>) {
        let mut lives = hold(&self.lives);
        let Some(life) = lives.lives.get_mut(&session_id) else { return };
        for note in notes {
            let attempt = Attempt { command_id: note.command_id, epoch: note.epoch };
            if let Some(given) = life.attempts.get_mut(&attempt) {
                given.running = note.running;
            }
        }
    }

    /// Returns what [`Desk::correct`] wants to know of before the tables are read.
    pub(crate) fn counts(&self) -> Counts {
        hold(&self.lives).counts
    }

    /// Returns whether a command is known to be in the session's hands.
    pub(crate) fn knows(&self, session_id: SessionId, attempt: Attempt) -> bool {
        hold(&self.lives).lives.get(&session_id).is_some_and(|life| life.attempts.contains_key(&attempt))
    }

    /// Returns those of `strangers` that the session has no right to and has not been told of just now: a worker that
    /// takes its time to stop them is not told with every poll.
    pub(crate) fn disown(&self, session_id: SessionId, strangers: &[Attempt]) -> Vec<Attempt> {
        let mut lives = hold(&self.lives);
        let Some(life) = lives.lives.get_mut(&session_id) else { return strangers.to_vec() };
        let now = Instant::now();
        life.disowned.retain(|_, told| now.duration_since(*told) < Duration::from_millis(REPEAT_MS));
        let news = strangers.iter().filter(|attempt| !life.attempts.contains_key(attempt));
        let news: Vec<Attempt> = news.filter(|attempt| !life.disowned.contains_key(attempt)).copied().collect();
        life.disowned.extend(news.iter().map(|attempt| (*attempt, now)));
        news
    }

    /// Brings the desk in line with the tables: `held` is what they said the session holds, read after `before`.
    ///
    /// The race: what they said it holds has been reported and settled since. Given again it would take a slot that
    /// nobody ever frees, for its worker knows that it is over.
    ///
    /// Returns `false` when more has ended since than is remembered: too old a reading to go by.
    pub(crate) fn correct(
        &self,
        session_id: SessionId,
        before: Counts,
        held: &[(Attempt, Option<Assignment>)],
    ) -> bool {
        if self.counts().past - before.past > PAST_MAX {
            return false;
        }
        for (attempt, assignment) in held {
            if let Some(assignment) = assignment
                && !self.knows(session_id, *attempt)
            {
                self.give(session_id, assignment.clone());
            }
        }
        let mut lives = hold(&self.lives);
        let Lives { lives, holders, .. } = &mut *lives;
        let Some(life) = lives.get_mut(&session_id) else { return true };
        life.corrected = Instant::now();
        life.doubted = false;
        let moot: Vec<Attempt> = life
            .attempts
            .iter()
            .filter(|(attempt, one)| one.given <= before.given && !held.iter().any(|(held, _)| held == *attempt))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in moot {
            life.take_back(attempt);
            holders.remove(&attempt);
        }
        true
    }

    /// Gives a command that the session holds now; it goes out with the next answer.
    pub(crate) fn give(&self, session_id: SessionId, assignment: Assignment) {
        let mut lives = hold(&self.lives);
        let lives = &mut *lives;
        lives.counts.given += 1;
        let attempt = Attempt { command_id: assignment.command_id, epoch: assignment.epoch };
        if lives.is_settled(attempt) {
            return;
        }
        // A session that speaks to another server hears of it there, when it is compared with the tables.
        let Some(life) = lives.lives.get_mut(&session_id) else { return };
        let Entry::Vacant(place) = life.attempts.entry(attempt) else { return };
        place.insert(Given {
            execution_id: assignment.execution_id,
            assignment: Some(Box::new(assignment)),
            named: false,
            sent: None,
            cancel: None,
            obeys: None,
            running: None,
            given: lives.counts.given,
        });
        life.unnamed += 1;
        lives.holders.insert(attempt, session_id);
        // A report that is still to be answered takes it along; the poll stays open.
        if life.holding_back == 0 {
            life.wake.notify_waiters();
        }
    }

    /// Notes that the caller has handed the command over by itself.
    pub(crate) fn handed_over(&self, session_id: SessionId, attempt: Attempt) {
        if let Some(life) = hold(&self.lives).lives.get_mut(&session_id)
            && let Some(given) = life.attempts.get_mut(&attempt)
        {
            given.sent = Some(Sent::now(Channel::Report));
        }
    }

    /// The tables say that an attempt is over, or not its holder's any more.
    pub(crate) fn settled(&self, attempt: Attempt) {
        hold(&self.lives).note_past(attempt, |past| past.settled = true);
        self.acknowledged(attempt);
    }

    /// A worker is told that it need not report an attempt any more.
    pub(crate) fn acknowledged(&self, attempt: Attempt) {
        let mut lives = hold(&self.lives);
        if let Some(session_id) = lives.holders.remove(&attempt)
            && let Some(life) = lives.lives.get_mut(&session_id)
        {
            life.take_back(attempt);
        }
    }

    /// A worker says that an attempt is over; it may name it once more, in a request that is on its way.
    pub(crate) fn reported(&self, attempt: Attempt) {
        hold(&self.lives).note_past(attempt, |past| past.reported = true);
    }

    /// Orders the end of an attempt, if its worker speaks to this server; `true` when that is news.
    pub(crate) fn cancel(&self, attempt: Attempt, mode: CancelMode, grace_ms: u64) -> bool {
        let mut lives = hold(&self.lives);
        let Some(session_id) = lives.holders.get(&attempt).copied() else { return false };
        let Some(life) = lives.lives.get_mut(&session_id) else { return false };
        let Some(given) = life.attempts.get_mut(&attempt) else { return false };
        let known = given.cancel.is_some_and(|cancel| match (cancel.mode, mode) {
            // An order is never softened: what is to be interrupted is not let to its end because its execution is
            // cancelled with `finish` before the order is on its way.
            (CancelMode::Interrupt, CancelMode::Finish) => true,
            (CancelMode::Finish, CancelMode::Finish | CancelMode::Interrupt)
            | (CancelMode::Interrupt, CancelMode::Interrupt) => (cancel.mode, cancel.grace_ms) == (mode, grace_ms),
        });
        if known {
            return false;
        }
        given.cancel = Some(Cancel { mode, grace_ms, sent: None });
        given.obeys = None;
        life.wake.notify_waiters();
        true
    }

    /// There may be pending commands that nobody has been found for.
    pub(crate) fn set_backlog(&self) {
        self.backlog.store(true, Ordering::Relaxed);
    }

    /// The pending commands are about to be read: whatever is said from here on is news.
    pub(crate) fn look_begins(&self) {
        self.backlog.store(false, Ordering::Relaxed);
        hold(&self.lives).waiting.clear();
    }

    /// Notes executions whose pending commands have been seen and not claimed.
    pub(crate) fn others_wait(&self, executions: impl IntoIterator<Item = ExecutionId>) {
        let mut lives = hold(&self.lives);
        let room = WAITING_MAX.saturating_sub(lives.waiting.len());
        lives.waiting.extend(executions.into_iter().take(room));
    }

    /// An execution has something pending: wakes the matcher and those who wait for offers.
    pub(crate) fn expect_work(&self, execution_id: ExecutionId) {
        self.others_wait([execution_id]);
        self.set_backlog();
        self.work.notify_one();
        self.offers.notify_waiters();
    }

    /// Returns the pools for which somebody here has a free slot, and how many slots that are.
    pub(crate) fn hungry(&self) -> (Vec<Arc<str>>, u32) {
        let lives = hold(&self.lives);
        let mut pools: Vec<Arc<str>> = Vec::new();
        let mut slots = 0;
        for life in lives.lives.values().filter(|life| life.available() > 0) {
            slots += life.available();
            for pool in &life.session.pools {
                if !pools.contains(pool) {
                    pools.push(Arc::clone(pool));
                }
            }
        }
        (pools, slots)
    }

    /// Promises up to `slots` free slots of up to [`HANDS_MAX`] workers, beginning with another one each time.
    pub(crate) fn promise(self: &Arc<Self>, slots: u32) -> Promise {
        let mut promise = Promise::none(self);
        let mut lives = hold(&self.lives);
        let Lives { lives, turn, .. } = &mut *lives;
        let mut left = slots;
        let order: Vec<SessionId> =
            lives.range(*turn..).chain(lives.range(..*turn)).map(|(session_id, _)| *session_id).collect();
        for session_id in order {
            if left == 0 || promise.hands.len() >= HANDS_MAX {
                break;
            }
            let Some(life) = lives.get_mut(&session_id) else { continue };
            let free = life.available().min(left);
            if free > 0 {
                life.promised += free;
                left -= free;
                promise.hands.push(life.hand(free));
                *turn = SessionId(session_id.0.saturating_add(1));
            }
        }
        promise
    }

    /// Returns free slots for a decision that brings no slot of its own; none while others wait for one.
    pub(crate) fn spare(self: &Arc<Self>) -> Promise {
        if self.backlog.load(Ordering::Relaxed) { Promise::none(self) } else { self.promise(u32::MAX) }
    }

    /// Promises the slot that a report frees to what the report brings about.
    ///
    /// While something is pending the execution gets its share and no more, and every few-th slot is left to others.
    pub(crate) fn keep_slot(self: &Arc<Self>, session_id: SessionId, execution_id: ExecutionId) -> Option<Promise> {
        let mut lives = hold(&self.lives);
        let Lives { lives, waiting, .. } = &mut *lives;
        let life = lives.get_mut(&session_id)?;
        if life.available() == 0 {
            return None;
        }
        if self.backlog.load(Ordering::Relaxed) {
            let held = life.attempts.values().filter(|given| given.execution_id == execution_id).count();
            let freed = Freed {
                slots: life.session.slots,
                held: u32::try_from(held.saturating_sub(1)).unwrap_or(u32::MAX),
                streak: life.streak,
                waiting: waiting.len() - usize::from(waiting.contains(&execution_id)),
            };
            if !freed.is_kept() {
                life.streak = 0;
                self.work.notify_one();
                return None;
            }
            life.streak += 1;
        }
        life.promised += 1;
        let hand = life.hand(1);
        Some(Promise { desk: Arc::clone(self), hands: vec![hand] })
    }

    fn release(&self, session_id: SessionId, slots: u32) {
        let mut lives = hold(&self.lives);
        let Some(life) = lives.lives.get_mut(&session_id) else { return };
        life.promised = life.promised.saturating_sub(slots);
        if life.available() > 0 && self.backlog.load(Ordering::Relaxed) {
            self.work.notify_one();
        }
    }
}

fn drop_lives(lives: &mut Lives, ids: &[SessionId]) {
    for id in ids {
        if let Some(life) = lives.lives.remove(id) {
            for attempt in life.attempts.keys() {
                lives.holders.remove(attempt);
            }
        }
    }
}

impl Life {
    /// Returns how many more commands the worker could begin at once.
    fn available(&self) -> u32 {
        if self.attending == 0 || self.draining || self.chooses {
            return 0;
        }
        self.free.saturating_sub(self.promised + self.unnamed)
    }

    fn hand(&self, free: u32) -> Hand {
        Hand {
            holder: Holder {
                session_id: self.session.session_id,
                worker_id: Arc::clone(&self.session.worker_id),
                claimed_at: Timestamp(0),
                started: false,
            },
            pools: self.session.pools.clone(),
            free,
        }
    }

    /// Takes what the worker says; returns what is news of what it runs.
    fn hear(&mut self, said: &Poll, channel: Channel, past: &Lru<Attempt, Past>) -> Vec<RunningNote> {
        let mut running = Vec::new();
        self.free = said.free.min(self.session.slots);
        self.draining = said.draining;
        self.chooses = said.offer;
        let mut held: Vec<&Held> = said.held.iter().collect();
        held.sort_unstable_by_key(|held| Attempt::of(held));
        self.unnamed = 0;
        for (attempt, given) in &mut self.attempts {
            match held.binary_search_by_key(attempt, |held| Attempt::of(held)) {
                Ok(place) => {
                    given.named = true;
                    given.assignment = None;
                    given.obeys = held[place].cancel.map(|mode| (mode, held[place].grace_ms));
                    if given.running != held[place].running {
                        running.push(RunningNote {
                            execution_id: given.execution_id,
                            command_id: attempt.command_id,
                            epoch: attempt.epoch,
                            running: held[place].running.clone(),
                        });
                    }
                }
                Err(_) => {
                    // Named before and not now: it has been reported, on the other channel.
                    if !given.named {
                        self.unnamed += 1;
                        // A worker that polls again has the last poll's answer, or never gets it.
                        if let Some(sent) = given.sent.as_mut().filter(|sent| sent.by == Channel::Poll)
                            && channel == Channel::Poll
                            && !past.peek(attempt).is_some_and(|past| past.reported)
                        {
                            sent.lost = true;
                            self.doubted = true;
                        }
                    }
                }
            }
        }
        running
    }

    fn take_back(&mut self, attempt: Attempt) {
        if let Some(given) = self.attempts.remove(&attempt)
            && !given.named
        {
            self.unnamed = self.unnamed.saturating_sub(1);
        }
    }
}

impl Attempt {
    /// Returns the attempt that is held.
    pub(crate) fn of(held: &Held) -> Self {
        Attempt { command_id: held.command_id, epoch: held.epoch }
    }
}
