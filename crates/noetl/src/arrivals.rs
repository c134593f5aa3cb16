//! How late answers come: what took long on its way may be overtaken by a cancel.
//!
//! The open poll brings a cancel at once, unless this process stood still (SIGSTOP, a machine that slept) or the network
//! did: then a command and its cancel come one after the other, and the tool would begin in between. So a server says
//! when an answer left, by a clock of its own, and what comes later than answers usually do is looked at twice.

use std::collections::VecDeque;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use noetl_engine::clock::Clock;
use reqwest::header::HeaderMap;

use crate::clock::RealClock;

/// When the answer left: milliseconds of a clock that never goes back, of the server's machine.
pub(crate) const SENT: &str = "x-noetl-sent";

/// How much later than the fastest of late an answer may come without any doubt, in milliseconds.
const LATE_MS: i64 = 200;
/// How long a late answer makes everything doubtful, in milliseconds: until then the poll has brought the rest.
const DOUBT_MS: i64 = 2_000;
/// Answers that are compared.
const COMPARED_MAX: usize = 32;

/// What the answers of one server have taken so far.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Differences of two clocks: only how they compare means something.
    took: VecDeque<i64>,
    doubtful_until: i64,
}

impl Arrivals {
    /// Notes an answer that arrives now.
    pub(crate) fn note(&mut self, headers: &HeaderMap) {
        let sent = headers.get(SENT).and_then(|sent| sent.to_str().ok()).and_then(|sent| sent.parse().ok());
        if let Some(sent) = sent {
            self.arrived(sent, now());
        }
    }

    /// Returns whether a cancel may have overtaken what has come of late.
    pub(crate) fn is_doubtful(&self) -> bool {
        now() < self.doubtful_until
    }

    fn arrived(&mut self, sent: i64, now: i64) {
        let took = now.saturating_sub(sent);
        if self.took.iter().min().is_some_and(|best| took.saturating_sub(*best) > LATE_MS) {
            self.doubtful_until = now.saturating_add(DOUBT_MS);
        }
        if self.took.len() == COMPARED_MAX {
            self.took.pop_front();
        }
        self.took.push_back(took);
    }
}

/// Says in each answer when it leaves.
pub(crate) async fn stamp(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(SENT, HeaderValue::from(now()));
    response
}

fn now() -> i64 {
    i64::try_from(RealClock.boottime_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_much_later_than_usual_is_doubtful_for_a_while() {
        let mut arrivals = Arrivals::default();
        // The clocks of the two machines differ by a million.
        arrivals.arrived(1_000_000, 7);
        arrivals.arrived(1_001_000, 1_150);
        assert_eq!(arrivals.doubtful_until, 0, "150 ms more are nothing");
        arrivals.arrived(1_002_000, 2_500);
        assert_eq!(arrivals.doubtful_until, 2_500 + DOUBT_MS);
    }

    #[test]
    fn a_server_whose_clock_is_another_one_is_soon_measured_by_itself() {
        let mut arrivals = Arrivals::default();
        arrivals.arrived(1_000_000, 0);
        for at in 0..=COMPARED_MAX as i64 {
            arrivals.arrived(at * 1_000, at * 1_000);
        }
        let last = COMPARED_MAX as i64 * 1_000;
        assert!(arrivals.doubtful_until < last + DOUBT_MS, "{arrivals:?}");
    }
}
