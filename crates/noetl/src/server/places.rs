//! Who has a place: how many connections there may be, and which one goes when another comes.
//!
//! A connection that waits for its client (for a request, for the rest of one, for room to send an answer) costs the
//! client nothing, so there may be any number of those. When every place is taken, the one that has waited longest
//! makes room. A connection whose request is being answered is never closed for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::connections::Connections;

/// Connections that a server has at once over the network, and as many again over its socket.
pub const CONNECTIONS_MAX: usize = 4096;
/// Fewest connections that are allowed, however few files the system lets this process open.
const CONNECTIONS_MIN: usize = 16;
/// Open files that this process asks the system for: connections of both kinds, and what tools and store need.
const DESCRIPTORS_WANTED: u64 = 3 * CONNECTIONS_MAX as u64;

/// The places of one or more listeners.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: Mutex<Taken>,
    /// A place is free, or somebody waits who could make room.
    changed: Notify,
    connections: Arc<Connections>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Those that wait for their client, in the order in which they began to.
    waiting: BTreeMap<u64, CancellationToken>,
    next: u64,
    /// Those that were told to go and have not gone yet.
    leaving: usize,
    /// Those that want a place and have none yet.
    newcomers: usize,
}

impl Places {
    /// Returns `max` places, which count into `connections`.
    pub fn new(max: usize, connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Places { max, taken: Mutex::default(), changed: Notify::new(), connections })
    }

    /// Returns as many places as the system has room for, [`CONNECTIONS_MAX`] at most.
    pub fn as_allowed(connections: Arc<Connections>) -> Arc<Self> {
        Places::new(allowed(descriptors()), connections)
    }

    /// Takes a place. When there is none, whoever has waited longest for its client goes.
    pub async fn take(self: &Arc<Self>) -> Place {
        let _newcomer = Newcomer::new(self);
        loop {
            // Asked for before looking, so that no change in between is missed.
            let changed = self.changed.notified();
            match self.take_or_evict() {
                Some(place) => return place,
                None => changed.await,
            }
        }
    }

    fn take_or_evict(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.count < self.max {
            taken.count += 1;
            let leave = CancellationToken::new();
            let number = taken.wait(leave.clone());
            drop(taken);
            self.connections.opened();
            return Some(Place { places: Arc::clone(self), state: Mutex::new(State::Waits(number)), leave });
        }
        // Who is told to go gives the place back a moment later: one for each newcomer is enough.
        let enough = taken.leaving >= taken.newcomers;
        drop(taken);
        if !enough {
            self.evict();
        }
        None
    }

    /// Closes the connection that has waited longest for its client; returns whether there was one.
    pub fn evict(&self) -> bool {
        let mut taken = self.lock();
        let Some((_, leave)) = taken.waiting.pop_first() else { return false };
        taken.leaving += 1;
        drop(taken);
        leave.cancel();
        self.connections.one_evicted();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing that may panic is done while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn wait(&mut self, leave: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, leave);
        number
    }
}

/// Somebody who wants a place, until there is one or it is wanted no longer.
struct Newcomer<'a>(&'a Places);

impl<'a> Newcomer<'a> {
    fn new(places: &'a Places) -> Self {
        places.lock().newcomers += 1;
        Newcomer(places)
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.0.lock().newcomers -= 1;
    }
}

/// The place of one connection. Dropped, it is free.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    state: Mutex<State>,
    leave: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For its client, since it got this number.
    Waits(u64),
    /// A request is being answered.
    Busy,
}

impl Place {
    /// Returns when the place is wanted for another.
    pub async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    /// Says that a whole request is here. `false`: the place was given away at the same moment, so nothing may begin.
    #[must_use]
    pub fn busy(&self) -> bool {
        let mut state = self.state();
        match *state {
            State::Busy => true,
            State::Waits(number) => {
                // The race with an eviction: whoever takes the number out of the list has won.
                let ours = self.places.lock().waiting.remove(&number).is_some();
                if ours {
                    *state = State::Busy;
                }
                ours
            }
        }
    }

    /// Says that it is the client's turn: to take the answer, and to ask for something else.
    pub fn waits(&self) {
        let mut state = self.state();
        match *state {
            // The answer came before the rest of the request: it waits since then.
            State::Waits(_) => {}
            State::Busy => {
                let number = self.places.lock().wait(self.leave.clone());
                *state = State::Waits(number);
                drop(state);
                // There may be one in need of a place who found everybody busy.
                self.places.changed.notify_waiters();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = *self.state();
        let mut taken = self.places.lock();
        match state {
            State::Busy => {}
            State::Waits(number) => {
                if taken.waiting.remove(&number).is_none() {
                    taken.leaving -= 1;
                }
            }
        }
        taken.count -= 1;
        drop(taken);
        self.places.connections.closed();
        self.places.changed.notify_waiters();
    }
}

/// Raises the number of files that this process may open, as far as it may; returns it.
pub fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    let now = limit.current.unwrap_or(u64::MAX);
    let wanted = DESCRIPTORS_WANTED.min(allowed);
    if now >= wanted {
        return now;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => now,
    }
}

/// A third is for the network, a third for the socket, and a third for everything else.
fn allowed(descriptors: u64) -> usize {
    usize::try_from(descriptors / 3).unwrap_or(usize::MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn ready<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => None,
        }
    }

    fn places(max: usize) -> Arc<Places> {
        Places::new(max, Arc::default())
    }

    fn counted(places: &Places) -> (u64, u64) {
        (places.connections.open(), places.connections.evicted())
    }

    fn take(places: &Arc<Places>) -> Place {
        ready(pin!(places.take())).unwrap()
    }

    fn is_wanted(place: &Place) -> bool {
        ready(pin!(place.wanted())).is_some()
    }

    #[test]
    fn who_has_waited_longest_makes_room_and_who_is_busy_never_does() {
        let places = places(3);
        let (first, second, third) = (take(&places), take(&places), take(&places));
        assert!(first.busy());
        let mut next = pin!(places.take());
        assert!(ready(next.as_mut()).is_none());
        assert!(!is_wanted(&first) && is_wanted(&second) && !is_wanted(&third));
        // Whatever else happens meanwhile, one is enough for one newcomer.
        third.waits();
        places.changed.notify_waiters();
        assert!(ready(next.as_mut()).is_none());
        assert!(!is_wanted(&third));
        drop(second);
        let fourth = ready(next.as_mut()).unwrap();
        // Its answer is ready: from now on it waits, but less long than the third.
        first.waits();
        let mut next = pin!(places.take());
        assert!(ready(next.as_mut()).is_none());
        assert!(!is_wanted(&first) && is_wanted(&third) && !is_wanted(&fourth));
        assert_eq!(counted(&places), (3, 2));
    }

    #[test]
    fn with_everybody_busy_a_newcomer_waits_for_the_first_who_is_done() {
        let places = places(1);
        let only = take(&places);
        assert!(only.busy());
        let mut next = pin!(places.take());
        assert!(ready(next.as_mut()).is_none());
        assert!(!is_wanted(&only));
        only.waits();
        assert!(ready(next.as_mut()).is_none());
        assert!(is_wanted(&only));
        drop(only);
        assert!(ready(next.as_mut()).is_some());
        assert_eq!(counted(&places).0, 0);
    }

    #[test]
    fn a_request_that_arrives_while_its_place_is_given_away_does_not_begin() {
        let places = places(1);
        let only = take(&places);
        assert!(places.evict());
        assert!(!only.busy());
        assert!(!places.evict(), "it is told once");
        drop(only);
        assert_eq!(counted(&places).0, 0);
    }

    #[test]
    fn few_files_are_few_places() {
        assert_eq!(allowed(1024), 341);
        assert_eq!(allowed(20), CONNECTIONS_MIN);
        assert_eq!(allowed(u64::MAX), CONNECTIONS_MAX);
    }
}
