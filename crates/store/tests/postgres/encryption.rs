//! Encrypted connections, to a server whose certificate was signed by nobody that the machine trusts.

use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::{Store, StoreError};
use noetl_testkit::{Database, TestCluster};
use serde_json::json;

/// Makes two authorities, and a certificate for `localhost` by the first; run where the server keeps its own.
const MAKE: &str = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; \
    for ca in ca other; do \
        openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.crt -days 2 -subj /CN=test-$ca 2>&1 || exit 1; \
    done; \
    openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost 2>&1 && \
    echo subjectAltName=DNS:localhost > ext && \
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt 2>&1'";

async fn opened(cluster: &TestCluster, host: &str, options: &str) -> Result<Postgres, StoreError> {
    let address = noetl_testkit::Address { host: host.to_owned(), ..cluster.address("tls") };
    Postgres::open(PostgresOptions::new(format!("{}?{options}", address.url()).parse().unwrap())).await
}

#[tokio::test]
async fn a_store_speaks_encrypted_and_only_to_whom_it_trusts() {
    let Some(mut cluster) = TestCluster::start(&["tls"]).await.unwrap() else { return };
    let database = Database::connect(&cluster.address("tls")).await.unwrap();
    if database.execute(MAKE).await.is_err() {
        // Only a machine without openssl.
        return;
    }
    let folder = database.first_value("SELECT current_setting('data_directory')").await.unwrap().unwrap();
    let roots = |name: &str| format!("sslmode=verify-full&sslrootcert={}/{name}.crt", folder.as_str().unwrap());
    // A server that does not encrypt is not spoken to in the open.
    let refused = opened(&cluster, "localhost", &roots("ca")).await;
    assert!(refused.is_err(), "{refused:?}");
    database.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    cluster.restart().await.unwrap();

    let store = opened(&cluster, "localhost", &roots("ca")).await.unwrap();
    store.now().await.unwrap();
    let database = Database::connect(&cluster.address("tls")).await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
                WHERE application_name = 'noetl' AND NOT ssl";
    assert_eq!(database.first_value(open).await.unwrap(), Some(json!(0)), "pools, hints and the number's session");
    store.close().await.unwrap();
    for (host, options, why) in [
        ("localhost", roots("other"), "signed by somebody else"),
        ("127.0.0.1", roots("ca"), "another name"),
        ("localhost", "sslmode=require".to_owned(), "the machine trusts others"),
        ("localhost", "sslmode=require&sslrootcert=/no/such/file".to_owned(), "no certificates"),
    ] {
        let refused = opened(&cluster, host, &options).await;
        let Err(StoreError::Unavailable(said) | StoreError::Closed(said)) = &refused else {
            panic!("{why}: {refused:?}");
        };
        assert!(!said.contains("p-4"), "{said}");
    }
}
