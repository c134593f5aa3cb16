//! Databases of single tests in a cluster that many tests share: making a database takes a tenth of what making a
//! cluster takes.
//!
//! Tests are processes of their own, so whoever runs them starts the cluster: `noetl-testcluster COMMAND…`. Without it
//! each database gets a cluster.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::{Cluster, FIRST_DATABASE, TestCluster};
use crate::{Address, Database, Fault};

/// Names the port of the cluster that tests share.
pub const CLUSTER_VARIABLE: &str = "NOETL_TEST_CLUSTER";

/// A database for one test. In a shared cluster the next test drops it: a process that ends can not wait for that.
#[derive(Debug)]
pub struct TestDatabase {
    address: Address,
    /// `None`: the cluster belongs to somebody else.
    _cluster: Option<TestCluster>,
}

impl TestDatabase {
    /// Makes an empty database; `None`, and a word about it, where no PostgreSQL is installed.
    ///
    /// # Errors
    /// If it is installed and does not do it.
    pub async fn start() -> Result<Option<Self>, Fault> {
        let Some(port) = shared_port()? else {
            let cluster = TestCluster::start(&["noetl"]).await?;
            return Ok(
                cluster.map(|cluster| TestDatabase { address: cluster.address("noetl"), _cluster: Some(cluster) })
            );
        };
        let address = Cluster::address_at(port, &fresh_name());
        let first = Database::connect(&Cluster::address_at(port, FIRST_DATABASE)).await?;
        drop_deserted(&first).await?;
        first.execute(&format!("CREATE DATABASE {}", address.database)).await?;
        Ok(Some(TestDatabase { address, _cluster: None }))
    }

    /// Returns how to get in.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Drops the databases of tests that have ended.
async fn drop_deserted(first: &Database) -> Result<(), Fault> {
    let all = "SELECT coalesce(json_agg(datname), '[]') FROM pg_database WHERE datname LIKE 't%\\_%'";
    let all: Vec<String> = match first.first_value(all).await? {
        Some(names) => serde_json::from_value(names).map_err(Fault::while_doing("list databases"))?,
        None => Vec::new(),
    };
    for name in all {
        let maker = name.strip_prefix('t').and_then(|rest| rest.split_once('_')).and_then(|(pid, _)| pid.parse().ok());
        if maker.is_some_and(|pid: u32| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test may be at it already.
            first.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.ok();
        }
    }
    Ok(())
}

fn shared_port() -> Result<Option<u16>, Fault> {
    let Some(port) = std::env::var_os(CLUSTER_VARIABLE) else { return Ok(None) };
    let port = port.to_str().and_then(|port| port.parse().ok());
    port.map(Some).ok_or_else(|| Fault(format!("{CLUSTER_VARIABLE} must be a port")))
}

/// Returns a name that no other test of the cluster uses.
fn fresh_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command whose tests share a cluster, and returns how it ended; without PostgreSQL they get none.
///
/// # Errors
/// If the cluster or the command does not start.
pub async fn share(program: &str, arguments: &[String]) -> Result<ExitStatus, Fault> {
    let cluster = TestCluster::start(&[]).await?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    if let Some(cluster) = &cluster {
        command.env(CLUSTER_VARIABLE, cluster.address(FIRST_DATABASE).port.to_string());
    }
    command.status().await.map_err(Fault::while_doing(format!("run {program}")))
}
