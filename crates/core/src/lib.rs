//! The pure core of noetl: the playbook language, the events, and every decision.
//!
//! Nothing here does anything: no clock, no I/O, no threads, no randomness. Everything that decides is here, so that
//! the simulator, every store and production run the same decisions.

pub mod append;
pub mod concurrency;
pub mod control;
pub mod diag;
pub mod event;
pub mod execution;
pub mod expr;
pub mod head;
pub mod id;
pub mod labels;
pub mod log;
pub mod pipeline;
pub mod playbook;
pub mod properties;
pub mod result;
pub mod schedule;
pub mod secret;
pub mod time;
pub mod tool;
pub mod trace;
pub mod turns;
pub mod work;
