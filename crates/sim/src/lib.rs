//! The seeded world: the real engine and the real worker, with a memory store, a clock that obeys, messages that get
//! lost, repeated and delayed, servers and workers that die at any moment, and people who cancel.
//!
//! One seed is one world; the same seed is the same world. [`run`] lets it happen and returns what was broken.

mod chance;
pub mod explore;
mod flaky;
mod people;
mod promises;
mod scenario;
mod shaky;
mod tools;
mod world;

pub use scenario::Scenario;
pub use world::{Outcome, run};
