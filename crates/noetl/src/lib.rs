//! The library part of the `noetl` binary: HTTP interface, server, data directory, transports.
//!
//! `main.rs` and the command line stand on it; so do the tests.

pub mod api;
pub mod clock;
pub mod embed;
pub mod http_transport;
pub mod server;
pub mod telemetry;
pub mod tools;
