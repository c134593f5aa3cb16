//! The engine over a store in memory, with scripted tools and a clock that is moved by hand.

#![expect(clippy::unwrap_used, reason = "what does not work fails the test")]

mod bulk;
mod cancel;
mod cleanups;
mod concurrency;
mod embedded;
mod finer;
mod pausing;
mod reruns;
mod runs;
mod schedules;
mod secrets;
mod servers;
mod shields;
mod stops;
mod workers;
mod world;
