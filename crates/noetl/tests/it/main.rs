//! The binary and its library from the outside. One test binary: linking is what costs.

mod cli_answers;
mod cli_context;
mod cli_help;
mod cli_local;
mod cli_server;
mod cli_validate;
mod playbooks;
mod support;
