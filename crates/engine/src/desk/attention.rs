//! A worker's request while it is being answered, and what there is to say to it.

use std::sync::Arc;

use noetl_core::id::SessionId;
use noetl_store::RunningNote;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::given::{REPEAT_CANCEL_MS, Sent};
use super::{Desk, Life};
use crate::hold;
use crate::transport::{Attempt, CancelOrder, Orders};

/// The two ways on which a worker speaks; each is in order by itself, but not with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Poll,
    Report,
}

/// A worker's request, while it is being answered.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(super) desk: Arc<Desk>,
    pub(super) session_id: SessionId,
    pub(super) channel: Channel,
    /// Number of this poll.
    pub(super) poll: u64,
    /// A report that is about to be answered: what is given to its worker waits for it, and the open poll need not be
    /// answered for that.
    pub(super) holds_back: bool,
    pub(crate) worker_id: Arc<str>,
    pub(crate) pools: Vec<Arc<str>>,
    pub(crate) wake: Arc<Notify>,
    /// When its lease was last renewed, and when it was last compared with the tables.
    pub(crate) renewed: Instant,
    pub(crate) corrected: Instant,
    /// It does not confirm what it was given here.
    pub(crate) doubted: bool,
    /// What the worker holds and the desk knows nothing of.
    pub(crate) strangers: Vec<Attempt>,
    /// What it runs, where that is news.
    pub(crate) running: Vec<RunningNote>,
}

/// What there is to say on a channel.
#[derive(Debug)]
pub(crate) enum Say {
    /// This.
    Now(Orders),
    /// Nothing; look again at that moment, if any.
    Nothing(Option<Instant>),
    /// Nothing ever: a newer poll has taken its place.
    Superseded,
    /// The session has ended.
    Unknown,
}

impl Attention {
    /// Returns what there is to say now, and notes it as said. A report says it once, as it is answered.
    pub(crate) fn say(&mut self, lease_ms: u64) -> Say {
        let mut lives = hold(&self.desk.lives);
        let Some(life) = lives.lives.get_mut(&self.session_id) else { return Say::Unknown };
        if self.channel == Channel::Poll && self.poll != life.poll {
            return Say::Superseded;
        }
        // The race: a command is given after this look and before the answer is on its way. It is the poll's.
        life.let_go(&mut self.holds_back);
        let now = Instant::now();
        let mut orders = Orders { lease_ms, ..Orders::default() };
        let mut again: Option<Instant> = None;
        let mut later = |at: Instant| again = Some(again.map_or(at, |known| known.min(at)));
        for (attempt, given) in &mut life.attempts {
            if let Some(assignment) = &given.assignment {
                match given.sent.map(|sent| sent.repeat()) {
                    Some(repeat) if repeat > now => later(repeat),
                    Some(_) | None => {
                        given.sent = Some(Sent::now(self.channel));
                        orders.commands.push((**assignment).clone());
                    }
                }
            }
            let Some(cancel) = given.cancel.as_mut().filter(|cancel| !cancel.is_obeyed(given.obeys)) else {
                continue;
            };
            match cancel.sent.map(|sent| sent + Duration::from_millis(REPEAT_CANCEL_MS)) {
                Some(repeat) if repeat > now => later(repeat),
                Some(_) | None => {
                    cancel.sent = Some(now);
                    orders.cancels.push(CancelOrder {
                        execution_id: given.execution_id,
                        command_id: attempt.command_id,
                        epoch: attempt.epoch,
                        mode: cancel.mode,
                        grace_ms: cancel.grace_ms,
                    });
                }
            }
        }
        if orders.is_empty() { Say::Nothing(again) } else { Say::Now(orders) }
    }

    /// Lets the poll have what waits for a report that takes its time.
    pub(crate) fn nudge_poll(&self) {
        if let Some(life) = hold(&self.desk.lives).lives.get(&self.session_id) {
            life.wake_for_unsent();
        }
    }
}

impl Drop for Attention {
    /// The request is answered, or its connection is gone.
    fn drop(&mut self) {
        let mut lives = hold(&self.desk.lives);
        if let Some(life) = lives.lives.get_mut(&self.session_id) {
            life.attending = life.attending.saturating_sub(1);
            // Its caller has hung up before it was answered.
            if life.let_go(&mut self.holds_back) {
                life.wake_for_unsent();
            }
        }
    }
}

impl Life {
    /// Ends the time in which a report holds back what is given; `false` when it had ended.
    fn let_go(&mut self, holds_back: &mut bool) -> bool {
        let held = std::mem::take(holds_back);
        if held {
            self.holding_back = self.holding_back.saturating_sub(1);
        }
        held
    }

    /// Wakes the poll if there is a command that nothing has been said of.
    fn wake_for_unsent(&self) {
        if self.attempts.values().any(|given| given.sent.is_none() && given.assignment.is_some()) {
            self.wake.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use noetl_core::id::{CatalogId, CommandId, ExecutionId};
    use noetl_core::time::Timestamp;
    use noetl_core::work::Assignment;
    use noetl_store::Session;
    use noetl_store::memory::MemoryStore;
    use serde_json::{Value, json};

    use super::super::given::{REPEAT_LOST_MS, REPEAT_MS};
    use super::*;
    use crate::engine::{Engine, EngineOptions};
    use crate::transport::{Held, Poll};

    const SESSION: SessionId = SessionId(7);

    fn session() -> Session {
        Session {
            session_id: SESSION,
            worker_id: "worker".into(),
            slots: 2,
            pools: vec!["default".into()],
            lease_until: Timestamp(1_768_900_080_123),
            started_at: Timestamp(1_768_900_080_123),
            meta: Value::Null,
        }
    }

    fn assignment() -> Assignment {
        Assignment {
            execution_id: ExecutionId(1),
            command_id: CommandId(2),
            epoch: 1,
            catalog_id: CatalogId(3),
            path: "path".into(),
            version: 1,
            step: "start".into(),
            visit: 1,
            kind: "noop".into(),
            losses: 0,
            at_most_once: false,
            work: Arc::new(json!({})),
        }
    }

    fn attend(desk: &Arc<Desk>, channel: Channel) -> Attention {
        desk.attend(&Poll { free: 2, wait_ms: 5_000, ..Poll::of(SESSION) }, channel).unwrap()
    }

    fn given(say: &Say) -> usize {
        match say {
            Say::Now(orders) => orders.commands.len(),
            Say::Nothing(_) | Say::Superseded | Say::Unknown => 0,
        }
    }

    /// The race: another task gives a command when the report has said what there was, and is not answered yet.
    #[tokio::test]
    async fn what_is_given_after_a_reports_last_look_goes_with_the_poll() {
        let desk = Desk::new();
        desk.seat(session());
        let mut poll = attend(&desk, Channel::Poll);
        let mut report = attend(&desk, Channel::Report);
        let wake = Arc::clone(&poll.wake);
        let mut woken = pin!(wake.notified());
        woken.as_mut().enable();
        assert_eq!(given(&report.say(30_000)), 0);
        desk.give(SESSION, assignment());
        assert!(woken.now_or_never().is_some(), "nobody brings the command to its worker");
        assert_eq!(given(&poll.say(30_000)), 1);
    }

    #[tokio::test]
    async fn a_report_takes_along_what_is_given_and_leaves_it_to_the_poll_when_its_caller_hangs_up() {
        let desk = Desk::new();
        desk.seat(session());
        let poll = attend(&desk, Channel::Poll);
        let report = attend(&desk, Channel::Report);
        let wake = Arc::clone(&poll.wake);
        let mut woken = pin!(wake.notified());
        woken.as_mut().enable();
        desk.give(SESSION, assignment());
        assert!(woken.as_mut().now_or_never().is_none(), "two answers for one command");
        drop(report);
        assert!(woken.now_or_never().is_some());
    }

    /// The race: the answer that took a command along gets lost, and the worker has nothing else to say.
    #[tokio::test(start_paused = true)]
    async fn an_open_poll_says_again_what_a_lost_answer_said() {
        let store = Arc::new(MemoryStore::new(Arc::new(|| Timestamp(1_768_900_080_123))));
        let engine = Engine::new(store, EngineOptions::default());
        engine.desk.seat(session());
        let poll = engine.poll(Poll { free: 2, wait_ms: 5_000, ..Poll::of(SESSION) });
        let mut poll = pin!(poll);
        assert!(poll.as_mut().now_or_never().is_none());
        let mut report = attend(&engine.desk, Channel::Report);
        engine.desk.give(SESSION, assignment());
        assert_eq!(given(&report.say(30_000)), 1);
        drop(report);
        let began = Instant::now();
        assert_eq!(poll.await.unwrap().commands.len(), 1);
        assert!(began.elapsed() <= Duration::from_millis(2 * REPEAT_MS), "{:?}", began.elapsed());
    }

    /// The race: the tables were read when it held a command, which has been reported and settled since. It took a slot
    /// for good: its worker, to whom it is over, named it never, and was told of it again and again.
    #[tokio::test]
    async fn what_has_been_settled_since_the_tables_were_read_is_not_given_again() {
        let desk = Desk::new();
        desk.seat(session());
        let mut poll = attend(&desk, Channel::Poll);
        let one = assignment();
        let attempt = Attempt { command_id: one.command_id, epoch: one.epoch };
        desk.give(SESSION, one.clone());
        assert_eq!(given(&poll.say(30_000)), 1);
        let before = desk.counts();
        desk.settled(attempt);
        desk.correct(SESSION, before, &[(attempt, Some(one))]);
        assert_eq!(given(&poll.say(30_000)), 0);
        assert_eq!(desk.hungry().1, 2, "both slots are free");
    }

    /// The race: a worker names what it has reported in another request, after the report was written and before it is
    /// answered.
    #[tokio::test]
    async fn what_a_crossing_request_names_is_no_stranger() {
        let desk = Desk::new();
        desk.seat(session());
        let one = assignment();
        let attempt = Attempt { command_id: one.command_id, epoch: one.epoch };
        desk.give(SESSION, one.clone());
        desk.reported(attempt);
        desk.settled(attempt);
        let held = Held {
            execution_id: one.execution_id,
            command_id: one.command_id,
            epoch: one.epoch,
            started: true,
            running: None,
            cancel: None,
            grace_ms: None,
        };
        let poll = desk.attend(&Poll { held: vec![held], ..Poll::of(SESSION) }, Channel::Poll).unwrap();
        assert!(poll.strangers.is_empty());
    }

    /// A worker that takes a command for over, and a server that does not, must not keep each other busy.
    #[tokio::test(start_paused = true)]
    async fn a_command_that_is_not_confirmed_is_not_said_again_at_once() {
        let desk = Desk::new();
        desk.seat(session());
        desk.give(SESSION, assignment());
        assert_eq!(given(&attend(&desk, Channel::Poll).say(30_000)), 1);
        let mut poll = attend(&desk, Channel::Poll);
        let Say::Nothing(Some(again)) = poll.say(30_000) else { panic!("said again at once") };
        assert_eq!(again - Instant::now(), Duration::from_millis(REPEAT_LOST_MS));
        tokio::time::advance(Duration::from_millis(REPEAT_LOST_MS)).await;
        assert_eq!(given(&poll.say(30_000)), 1);
    }

    /// The race: a worker that speaks to several servers has reported elsewhere what it was given here, before it ever
    /// named it here.
    #[tokio::test(start_paused = true)]
    async fn what_was_settled_at_another_server_takes_no_slot_here() {
        let store = Arc::new(MemoryStore::new(Arc::new(|| Timestamp(1_768_900_080_123))));
        let engine = Engine::new(store, EngineOptions::default());
        engine.desk.seat(session());
        engine.desk.give(SESSION, assignment());
        assert_eq!(given(&attend(&engine.desk, Channel::Poll).say(30_000)), 1);
        tokio::time::advance(Duration::from_millis(REPEAT_LOST_MS)).await;
        let poll = Poll { free: 2, wait_ms: 0, ..Poll::of(SESSION) };
        assert!(engine.poll(poll).await.unwrap().commands.is_empty());
        let _open = attend(&engine.desk, Channel::Poll);
        assert_eq!(engine.desk.hungry().1, 2);
    }
}
