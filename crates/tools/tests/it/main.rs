//! Tools against real processes.

mod lifeline;
mod python;
mod shell;
mod support;
mod trees;
mod warm;
