//! The binary and its library from the outside. One test binary: linking is what costs.
#![expect(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod api_bad_input;
mod api_cancel;
mod api_catalog;
mod api_credentials;
mod api_executions;
mod api_logs;
mod api_openapi;
mod api_sql;
mod api_worker;
mod api_worker_samples;
mod api_world;
mod cli_answers;
mod cli_cancel;
mod cli_context;
mod cli_credentials;
mod cli_help;
mod cli_local;
mod cli_logs;
mod cli_server;
mod cli_validate;
mod cli_worker;
mod deploy;
mod examples;
mod founding_document;
mod playbooks;
mod published_cli;
mod runaways;
mod server_bad_days;
mod server_doors;
mod server_killed;
mod server_listen;
mod server_node;
mod server_postgres;
mod support;
mod worker_example;
