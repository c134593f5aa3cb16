//! The core from the outside: playbooks in, logs out, with tools that are functions.

mod cancelling;
mod desk;
mod failures;
mod loops;
mod pipelines;
mod routing;
mod values;
