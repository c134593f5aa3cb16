//! Events as rows of the table `event`, and back.

mod name;

pub use name::{canonical_name, status, wire_name};
