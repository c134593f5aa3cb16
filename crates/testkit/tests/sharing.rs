//! The cluster that many tests share.

use std::process::Command;

use noetl_testkit::{Address, CLUSTER_VARIABLE, Cluster, Database, TestDatabase};

/// Names this very test to the process that runs it inside of the cluster.
const INSIDE: &str = "NOETL_TESTKIT_INSIDE";

#[tokio::test]
async fn databases_in_a_shared_cluster_are_apart_and_dropped_after_their_tests() {
    if Cluster::installed().is_none() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let this = std::env::current_exe().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_noetl-testcluster"));
        command.arg(this).args(["--exact", "databases_in_a_shared_cluster_are_apart_and_dropped_after_their_tests"]);
        let said = command.env(INSIDE, "1").output().unwrap();
        let shown = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.status.success() && shown.contains("1 passed"),
            "{shown}{}",
            String::from_utf8_lossy(&said.stderr)
        );
        // How the command ended is passed on.
        let failing = Command::new(env!("CARGO_BIN_EXE_noetl-testcluster")).args(["sh", "-c", "exit 7"]).status();
        assert_eq!(failing.unwrap().code(), Some(7));
        return;
    }
    assert!(std::env::var_os(CLUSTER_VARIABLE).is_some());
    let (one, two) = (TestDatabase::start().await.unwrap().unwrap(), TestDatabase::start().await.unwrap().unwrap());
    let create = "CREATE TABLE t (z int)";
    Database::connect(one.address()).await.unwrap().execute(create).await.unwrap();
    Database::connect(two.address()).await.unwrap().execute(create).await.unwrap();
    // What a test left behind that has ended: its number is one that no process can have.
    let first = Address { database: "postgres".to_owned(), ..one.address().clone() };
    Database::connect(&first).await.unwrap().execute("CREATE DATABASE t99999999_0").await.unwrap();
    let three = TestDatabase::start().await.unwrap().unwrap();
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 't%\\_%'";
    let left = Database::connect(three.address()).await.unwrap().first_value(left).await.unwrap();
    assert_eq!(left, Some(3.into()));
}
