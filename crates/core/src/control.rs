//! Control: what can be decided from a head and its live commands alone.
//!
//! Cancel, cascade, pause, settling on a terminal execution, lost and released attempts. Always decided under the lock of the
//! head, so it can not conflict and can not be starved by a busy execution. No playbook, no history.

pub mod cancel;
pub mod lease;
pub mod pause;
pub mod settle;
pub mod stop;
