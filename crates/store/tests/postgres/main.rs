//! The store in PostgreSQL, on a cluster of the test's own.

#![expect(clippy::unwrap_used, reason = "a suite of tests")]

mod encryption;
mod plans;
mod promises;
mod protocol;
mod proxy;
mod tables;

use std::sync::Arc;

use noetl_core::time::Timestamp;
use noetl_store::conformance::ManualClock;
use noetl_store::postgres::{Address, Postgres, PostgresOptions};
use noetl_testkit::Cluster;
use tokio::sync::Mutex;

const START: Timestamp = Timestamp(1_768_900_080_123);

/// Makes a database, named after a counter.
async fn database(cluster: &Cluster) -> Address {
    // One after the other: whoever makes a database keeps the template to itself.
    static MADE: Mutex<u32> = Mutex::const_new(0);
    let mut made = MADE.lock().await;
    *made += 1;
    let name = format!("d{made}");
    cluster.create_database(&name).await.unwrap();
    address(cluster, &name)
}

fn address(cluster: &Cluster, database: &str) -> Address {
    cluster.address(database).url().parse().unwrap()
}

/// Opens a store that reads the time from `clock`.
async fn open(address: &Address, clock: &ManualClock) -> Arc<Postgres> {
    let options = PostgresOptions { clock: Some(clock.clock()), ..PostgresOptions::new(address.clone()) };
    Arc::new(Postgres::open(options).await.unwrap())
}
