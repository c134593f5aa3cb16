//! The binary's library from the outside. One test binary: linking is what costs.

mod api_bad_input;
mod api_cancel;
mod api_catalog;
mod api_executions;
mod api_openapi;
mod api_sql;
mod api_worker;
mod api_worker_samples;
mod api_world;
