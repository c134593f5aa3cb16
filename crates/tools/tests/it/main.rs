//! Tools against real processes.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod duckdb;
mod http;
mod lifeline;
mod postgres;
mod python;
mod shell;
mod support;
mod transfer;
mod trees;
mod warm;
