//! Servers that share a PostgreSQL database.

use noetl::server::tls;

use crate::playbooks::{HELLO, SLEEP};
use crate::support::{Home, Server, eventually};

fn start(home: &Home, path: &str) -> String {
    let started = home.run(&["run", path, "-r", "distributed", "--json"]).done().json();
    started["execution_id"].as_str().unwrap().to_owned()
}

/// A cancel at one server reaches what the worker of the other one runs; what one was told, both know.
#[test]
fn two_servers_are_one_engine() {
    let Some(first) = Home::on_postgres() else { return };
    let second = first.beside();
    let idle = Server::start(&first, &["--no-worker"]);
    let working = Server::start(&second, &["--worker-slots", "2"]);
    for (name, text) in [("hello.yaml", HELLO), ("sleep.yaml", SLEEP)] {
        first.file(name, text);
        first.run(&["register", name]).done();
    }
    // Asked at a server that has no worker, done by the other one's.
    let id = start(&first, "test/sleep");
    eventually("the other server's worker runs it", || {
        (second.run(&["status", &id, "--json"]).json()["in_flight"].as_u64() > Some(0)).then_some(())
    });
    first.run(&["cancel", &id, "--interrupt", "--grace", "0s", "--wait"]).done();
    assert_eq!(second.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "CANCELLED\n");
    // Whoever runs something is not in the way of a server that stops.
    assert_eq!(idle.stop(), Some(0));
    let other = start(&second, "test/sleep");
    let idle = Server::start(&first, &["--no-worker"]);
    first.run(&["cancel", &other, "--interrupt", "--grace", "0s", "--wait"]).done();

    let sizes = first.run(&["db", "size", "--json"]).done().json();
    let rows = |name: &str| {
        let tables = sizes["tables"].as_array().unwrap();
        tables.iter().find(|table| table["table"] == name).unwrap()["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("execution"), rows("command")), (2, 0));
    assert!(first.run(&["db", "validate"]).done().stdout.contains("\"valid\": true"));
    first.run(&["db", "verify"]).done();
    let backup = second.run(&["db", "backup", "copy.db"]);
    assert!(backup.exit != 0 && backup.stderr.contains("pg_dump"), "{}", backup.stderr);
    let refused = second.run(&["query", "DELETE FROM noetl.event"]);
    assert!(refused.exit != 0 && refused.stderr.contains("only queries"), "{}", refused.stderr);
    assert_eq!((idle.stop(), working.stop()), (Some(0), Some(0)));
    // Nothing was kept in the directories.
    for home in [&first, &second] {
        assert!(!home.path().join(".noetl/data/noetl.db").exists());
    }
}

/// Whoever sends requests to servers hears when one has lost its database, and when it has it back.
#[test]
fn a_server_without_its_database_is_not_ready() {
    let Some(home) = Home::on_postgres() else { return };
    let server = Server::start(&home, &["--no-worker"]);
    tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let asked = |path: &str| {
        let url = format!("{}{path}", server.url);
        runtime.block_on(async { reqwest::get(url).await.unwrap().status().as_u16() })
    };
    assert_eq!((asked("/ready"), asked("/api/health"), asked("/health")), (200, 200, 200));
    let (name, connection) = home.beside_its_database();
    let allow = |allowed: bool| {
        connection.execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"));
        connection.execute(&format!(
            "DO $$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'; END $$"
        ));
    };
    allow(false);
    eventually("it is not ready", || (asked("/ready") == 503).then_some(()));
    assert_eq!((asked("/api/health"), asked("/health")), (503, 200));
    allow(true);
    eventually("it is ready again", || (asked("/ready") == 200).then_some(()));
    assert_eq!(server.stop(), Some(0));
}

/// Looking after the tables needs no server, and changes nothing that was not asked for.
#[test]
fn a_database_is_looked_after_without_a_server() {
    let Some(home) = Home::on_postgres() else { return };
    let url = home.database_url().unwrap();
    let db = |arguments: &[&str]| {
        let all: Vec<&str> = ["db"].iter().chain(arguments).copied().chain(["--database-url", &url]).collect();
        home.run(&all)
    };
    // Who only looks makes no tables.
    let said = db(&["size"]);
    assert_eq!((said.exit, said.stderr.contains("noetl db init")), (3, true), "{said:?}");
    let said = home.run(&["verify", "--all", "--database-url", &url]);
    assert_eq!((said.exit, said.stderr.contains("noetl db init")), (3, true), "{said:?}");
    db(&["init"]).done();
    let server = Server::start(&home, &[]);
    home.file("hello.yaml", HELLO);
    home.run(&["register", "hello.yaml"]).done();
    let id = start(&home, "test/hello");
    assert_eq!(home.run(&["wait", &id, "--for", "quiesced"]).done().stdout, "COMPLETED\n");
    assert_eq!(server.stop(), Some(0));
    let rows = || {
        let sizes = db(&["size", "--json"]).done().json();
        let tables = sizes["tables"].as_array().unwrap().clone();
        let execution = tables.iter().find(|table| table["table"] == "execution").unwrap();
        execution["rows"].as_u64().unwrap()
    };
    assert_eq!(rows(), 1);
    let verified = db(&["verify", "--json"]).done().json();
    assert_eq!((verified["executions"].as_u64(), verified["status"].as_str()), (Some(1), Some("ok")));
    assert_eq!(home.run(&["verify", &id, "--json", "--database-url", &url]).done().json()["executions"], 1);
    assert!(db(&["validate"]).done().stdout.contains("\"valid\": true"));
    let query = "SELECT status FROM noetl.execution";
    let found = home.run(&["query", query, "--format", "json", "--database-url", &url]).done();
    assert!(found.stdout.contains("COMPLETED"), "{}", found.stdout);
    let prune = |more: &[&str]| {
        let arguments: Vec<&str> = ["prune", "--older-than", "0s"].iter().chain(more).copied().collect();
        db(&arguments).done().stdout
    };
    assert!(prune(&[]).starts_with("would remove 1 execution(s)"));
    assert_eq!(rows(), 1);
    assert!(prune(&["--yes"]).starts_with("removed 1 execution(s)"));
    assert_eq!(rows(), 0);
    // One place is meant, and no other.
    let both = home.run(&["db", "size", "--database-url", &url, "--data-dir", "x"]);
    assert_eq!((both.exit, both.stderr.contains("another place")), (2, true), "{both:?}");
}

#[test]
fn a_database_that_can_not_be_used_is_said_at_once() {
    let home = Home::new();
    let plain = format!("postgres://ann:s3cret@{}/x?sslmode=require", without_tls());
    for (url, why) in [
        ("mysql://localhost/x", "it must begin with `postgres://`"),
        ("postgres://ann:s3cret@127.0.0.1:1/x", "127.0.0.1:1: error connecting to server: Connection refused"),
        (&plain, "sslmode=disable"),
    ] {
        let said = home.run(&["server", "run", "--port", "0", "--database-url", url]);
        assert!(said.exit != 0 && said.stderr.contains(why), "{said:?}");
        assert!(!said.stderr.contains("s3cret"), "{said:?}");
        let said = home.run(&["db", "size", "--database-url", url]);
        assert!(said.exit != 0 && said.stderr.contains(why), "{said:?}");
        assert!(!said.stderr.contains("s3cret"), "{said:?}");
    }
}

/// Returns the address of a database that says of itself that it speaks no TLS, and nothing more.
fn without_tls() -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The request for TLS has 8 bytes; this is the answer `no`.
            stream.read_exact(&mut [0; 8]).and_then(|()| stream.write_all(b"N")).ok();
        }
    });
    address
}
