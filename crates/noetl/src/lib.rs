//! The library part of the `noetl` binary: HTTP interface, server, data directory, transports.
//!
//! `main.rs` and the command line stand on it; so do the tests.

pub mod api;
