//! The stores of noetl.

pub mod query;
