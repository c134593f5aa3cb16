//! The noetl binary as a library: command line, HTTP client, and what people see of both.

pub mod cli;
pub mod client;
pub mod render;
