//! The core from the outside: playbooks in, logs out, with tools that are functions.
#![expect(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod cancelling;
mod children;
mod cleanup;
mod completing;
mod concurrency;
mod cursors;
mod desk;
mod failures;
mod language;
mod loops;
mod meeting;
mod pausing;
mod pipelines;
mod regions;
mod requests;
mod robust;
mod routing;
mod schema;
mod secrets;
mod shields;
mod state_machine;
mod values;
