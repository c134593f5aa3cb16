//! What tests need beside the product: a PostgreSQL cluster of their own.
//!
//! [`TestDatabase`] is what a test wants that only uses a database, [`TestCluster`] what one wants that also crashes it;
//! [`Cluster`] is the same in a folder of the caller's. All are gone when they are dropped, clusters also when their
//! process dies before that. It depends on no crate of the product.

mod account;
mod cluster;
mod database;
mod shared;

pub use cluster::{Cluster, TestCluster, free_port};
pub use database::{Address, Database};
pub use shared::{CLUSTER_VARIABLE, TestDatabase, share};

/// Something that keeps a test or a run from going on, as a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl Fault {
    /// Returns a function for `map_err` that puts `doing` in front of what went wrong.
    pub fn while_doing<E: std::fmt::Display>(doing: impl std::fmt::Display) -> impl FnOnce(E) -> Fault {
        move |error| Fault(format!("{doing}: {error}"))
    }
}
