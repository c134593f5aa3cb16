//! Runs public playbooks against a noetl binary and checks what came out.
//!
//! What to run and what must hold stands in a folder beside the project: a manifest, the playbooks, and a page that
//! specifies an HTTP server which stands in for the public services that the playbooks call. This crate is that server
//! ([`services`]) and the runner ([`run`]). It depends on no crate of the product: it sees what a stranger sees, the
//! binary and its HTTP API.

pub mod check;
pub mod client;
pub mod manifest;
pub mod placeholders;
pub mod python;
pub mod run;
pub mod server;
pub mod services;

pub use noetl_testkit::Fault;

/// Chooses who does TLS for the process; the HTTP client refuses to be made before that.
pub fn install_tls_provider() {
    // An error only says that somebody chose before.
    drop(rustls::crypto::ring::default_provider().install_default());
}
