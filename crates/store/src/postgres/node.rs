//! Node numbers: ids hold one, so that two servers never make the same.
//!
//! A number is taken by a lock that the database gives to one session, and is free again when that session ends,
//! however that happens. A server that has lost its session takes another number; what it made meanwhile under the
//! number that somebody else may have by now is not written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use noetl_core::append::{Append, Guard};
use noetl_core::id::{made_at, made_by};
use noetl_core::time::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::Inner;
use super::connection::Address;
use crate::StoreError;

/// How many numbers there are: as many as ids have bits for.
const NUMBERS: i32 = 1 << 10;
/// Tells these locks from others: `node`.
const CLASS: i32 = 0x6e6f_6465;
/// How often the session is asked whether it still lives.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause before another number is asked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it is remembered that a number was lost: what was decided before that is written or given up by then.
const REMEMBERED_MS: u64 = 3_600_000;

/// The numbers of this server: the one it has, and those it had.
#[derive(Debug)]
pub(super) struct Numbers {
    current: watch::Sender<u16>,
    lost: Mutex<Vec<Lost>>,
}

/// A number that belonged to nobody, or to somebody else, for a while.
#[derive(Debug, Clone, Copy)]
struct Lost {
    number: u16,
    /// When it was known to be this server's for the last time.
    from: Timestamp,
    /// When this server had it again.
    until: Option<Timestamp>,
}

impl Numbers {
    fn new(number: u16) -> Self {
        Numbers { current: watch::Sender::new(number), lost: Mutex::default() }
    }

    /// Returns the number, and what changes with it.
    pub(super) fn current(&self) -> watch::Receiver<u16> {
        self.current.subscribe()
    }

    /// Refuses what was made under a number that was lost. It is to be decided again, under the next one.
    pub(super) fn check(&self, append: &Append) -> Result<(), StoreError> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_empty() || own_ids(append).all(|id| !lost.iter().any(|lost| lost.covers(id))) {
            return Ok(());
        }
        Err(StoreError::Unavailable("this server had lost the number that its ids are made of; trying again".into()))
    }

    fn lose(&self, number: u16, from: Timestamp) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.retain(|known| known.from.plus_ms(REMEMBERED_MS) > from);
        lost.push(Lost { number, from, until: None });
    }

    fn take(&self, number: u16, now: Timestamp) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for again in lost.iter_mut().filter(|lost| lost.number == number && lost.until.is_none()) {
            again.until = Some(now);
        }
        self.current.send_replace(number);
    }
}

impl Lost {
    fn covers(&self, id: i64) -> bool {
        let at = made_at(id);
        made_by(id) == self.number && at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

/// Returns the ids that an append brings into the world.
fn own_ids(append: &Append) -> Box<dyn Iterator<Item = i64> + '_> {
    let born = match &append.guard {
        Guard::New(_) => Some(append.execution_id.0),
        Guard::At(_) | Guard::Claim { .. } | Guard::Locked => None,
    };
    let events = append.events.iter().map(|new| new.event_id.0);
    Box::new(born.into_iter().chain(events).chain(append.children.iter().flat_map(own_ids)))
}

/// Returns how many numbers are held in this database.
pub(super) async fn held(client: &Client) -> Result<u64, StoreError> {
    let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int4::oid AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let count: i64 = client.query_one(query, &[&CLASS]).await?.try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// A number, for as long as its session lives.
#[derive(Debug)]
struct Held {
    number: u16,
    client: Client,
    session: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.session.abort();
    }
}

impl Held {
    /// Takes the first number that is free, from a place that differs from server to server: one that was given back
    /// a moment ago is not taken at once.
    async fn take(address: &Address) -> Result<Self, StoreError> {
        let (client, session) = address.connect(|_| {}).await?;
        let query = "SELECT n FROM (SELECT (pg_backend_pid() + k) % $1 AS n FROM generate_series(0, $1 - 1) k) all_of \
                     WHERE pg_try_advisory_lock($2, n) LIMIT 1";
        let taken = client.query_opt(query, &[&NUMBERS, &CLASS]).await?;
        let number: Option<i32> = taken.map(|row| row.try_get(0)).transpose()?;
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(number) => Ok(Held { number, client, session }),
            None => Err(StoreError::Closed(format!("{NUMBERS} servers use this database already"))),
        }
    }

    /// Returns when the session is over, with the time when it was known to live for the last time.
    async fn until_lost(&mut self, inner: &Inner) -> Timestamp {
        let mut known = inner.clock.now();
        loop {
            let asked = inner.clock.now();
            let alive = tokio::time::timeout(ANSWER_MAX, self.client.batch_execute("SELECT 1")).await;
            if !matches!(alive, Ok(Ok(()))) {
                return known;
            }
            known = asked;
            tokio::select! {
                // It is over, and says so.
                _ = &mut self.session => return known,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// A number that was taken, and what keeps one from then on.
#[derive(Debug)]
pub(super) struct First(Held);

impl First {
    pub(super) async fn take(address: &Address) -> Result<(Self, Numbers), StoreError> {
        let held = Held::take(address).await?;
        let numbers = Numbers::new(held.number);
        Ok((First(held), numbers))
    }

    /// Keeps a number until it is ended: this one, and another one whenever the session is lost.
    pub(super) async fn keep(self, inner: std::sync::Arc<Inner>) {
        let First(mut held) = self;
        loop {
            let from = held.until_lost(&inner).await;
            inner.numbers.lose(held.number, from);
            tracing::warn!(number = held.number, "the session that held this server's number is gone");
            held = loop {
                match Held::take(&inner.address).await {
                    Ok(held) => break held,
                    Err(error) => tracing::warn!(%error, "no number for ids yet; trying again"),
                }
                tokio::time::sleep(PAUSE).await;
            };
            inner.numbers.take(held.number, inner.clock.now());
            tracing::info!(number = held.number, "this server makes ids under another number");
        }
    }
}

#[cfg(test)]
mod tests {
    use noetl_core::id::{EPOCH_MS, IdSource};

    use super::*;

    #[test]
    fn what_was_made_under_a_lost_number_is_told_apart() {
        let at = |second: i64| Timestamp(EPOCH_MS + 1_000_000 + second * 1_000);
        let made = |number: u16, second: i64| IdSource::new(number).next(at(second));
        let numbers = Numbers::new(7);
        numbers.lose(7, at(10));
        numbers.take(8, at(12));
        numbers.lose(8, at(20));
        numbers.take(7, at(22));
        let lost = numbers.lost.lock().unwrap();
        let refused = |id: i64| lost.iter().any(|lost| lost.covers(id));
        for (number, second, expected) in [
            (7, 9, false),
            // Made before it was noticed, and while another number was this server's.
            (7, 10, true),
            (7, 21, true),
            // It has it again.
            (7, 22, false),
            (8, 15, false),
            (8, 21, true),
            (8, 99, true),
            (9, 15, false),
        ] {
            assert_eq!(refused(made(number, second)), expected, "{number} at {second}");
        }
    }
}
