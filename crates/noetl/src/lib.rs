//! The library part of the `noetl` binary: command line, HTTP interface, server, data directory, transports.
//!
//! `main.rs` and the tests stand on it.

pub mod api;
mod arrivals;
pub mod cli;
pub mod client;
pub mod clock;
pub mod embed;
pub mod failover;
pub mod http_transport;
pub mod logs;
pub mod render;
pub mod server;
pub mod telemetry;
pub mod tools;
pub mod vault;
pub mod verify;
