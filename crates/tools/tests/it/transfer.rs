//! `transfer` between a web server, PostgreSQL and DuckDB.

use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolCall, ToolOutcome};
use noetl_testkit::{Database, TestCluster};
use noetl_tools::{Outside, StopSignal, stop_line};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::duckdb;
use crate::postgres::{OneCredential, credential};
use crate::support::{Bench, Lines, PATIENCE, call};

const ALIAS: &str = "pg_test";

struct World {
    bench: Bench,
    secrets: OneCredential,
    witness: Database,
    _cluster: TestCluster,
}

impl World {
    async fn new(bench: Bench) -> Option<Self> {
        let cluster = TestCluster::start(&["d"]).await.unwrap()?;
        let address = cluster.address("d");
        let witness = Database::connect(&address).await.unwrap();
        Some(World { bench, secrets: credential(&address), witness, _cluster: cluster })
    }

    async fn run_with(&self, call: ToolCall, stop: StopSignal) -> ToolOutcome {
        let (lines, _kept) = Lines::new();
        let outside = Outside { log: &lines, secrets: &self.secrets };
        tokio::time::timeout(PATIENCE, self.bench.toolbox.run(0, call, stop, outside)).await.expect("the tool ends")
    }

    async fn run(&self, kind: &str, config: Value) -> ToolOutcome {
        self.run_with(call(kind, config), StopSignal::never()).await
    }

    async fn all(&self, sql: &str) -> Value {
        let all = format!("SELECT coalesce(json_agg(r), '[]') FROM ({sql}) AS r");
        self.witness.first_value(&all).await.unwrap().unwrap()
    }
}

/// Answers every request with the same JSON; returns its address.
async fn server(body: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let body = body.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 4096];
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut bytes).await {
                    Ok(count @ 1..) => request.extend_from_slice(&bytes[..count]),
                    Ok(_) | Err(_) => break,
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.ok();
            stream.write_all(body.as_bytes()).await.ok();
        }
    });
    url
}

#[tokio::test]
async fn an_answer_becomes_rows_of_a_table_with_the_types_of_its_columns() {
    let Some(world) = World::new(Bench::new()).await else { return };
    let table = "CREATE SCHEMA s; CREATE TABLE s.posts (id int PRIMARY KEY, \"userId\" int, title varchar(5), tags text[], \
                 doc jsonb, at timestamptz, ok bool, price numeric(10,2))";
    world.witness.execute(table).await.unwrap();
    let posts = json!({"data": {"items": [
        {"id": 1, "user": {"id": "7"}, "title": "it's", "tags": ["a,b", "c\"d", null], "doc": {"k": [1]}, "at": "2024-02-03T04:05:06Z",
         "ok": true, "price": "1.50"},
        {"id": "2", "user": {"id": 8}, "title": "b", "doc": "\"text\"", "ok": "false", "price": 2},
        {"id": 3, "user": null, "title": null, "tags": [], "doc": [1, 2], "ok": null, "price": 0.1},
    ]}});
    let url = server(posts).await;
    let mapping = json!({"id": "id", "userid": "user.id", "title": "title", "tags": "tags", "doc": "doc", "at": "at", "ok": "ok", "price": "price"});
    let config = |mode: &str| {
        json!({
            "source": {"type": "http", "url": url, "method": "GET", "data_path": "data.items"},
            "target": {"type": "postgres", "auth": ALIAS, "table": "posts", "schema": "S", "mapping": mapping},
            "chunk_size": 2, "mode": mode
        })
    };
    let outcome = world.run("transfer", config("append")).await;
    assert_eq!(outcome.error, None);
    let expected = json!({
        "status": "success", "direction": "http_to_postgres", "source_type": "http", "target_type": "postgres", "mode": "append",
        "rows_transferred": 3, "chunks_processed": 2, "target_table": "S.posts",
        "columns": ["id", "userId", "title", "tags", "doc", "at", "ok", "price"]
    });
    assert_eq!(outcome.data, expected);
    let rows = world
        .all("SELECT id, \"userId\", title, tags, doc, at AT TIME ZONE 'UTC' AS at, ok, price FROM s.posts ORDER BY id")
        .await;
    let expected = json!([
        {"id": 1, "userId": 7, "title": "it's", "tags": ["a,b", "c\"d", null], "doc": {"k": [1]}, "at": "2024-02-03T04:05:06", "ok": true, "price": 1.5},
        {"id": 2, "userId": 8, "title": "b", "tags": null, "doc": "text", "at": null, "ok": false, "price": 2.0},
        {"id": 3, "userId": null, "title": null, "tags": [], "doc": [1, 2], "at": null, "ok": null, "price": 0.1},
    ]);
    assert_eq!(rows, expected);

    // Again: append breaks the key and changes nothing, upsert updates, replace begins anew.
    world.witness.execute("UPDATE s.posts SET title = 'old'; INSERT INTO s.posts VALUES (9)").await.unwrap();
    let error = world.run("transfer", config("append")).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.kind, error.hard), ("PG_23505", ErrorKind::DbConstraint, true));
    assert_eq!(world.all("SELECT count(*) AS n FROM s.posts").await, json!([{"n": 4}]));
    assert_eq!(world.run("transfer", config("upsert")).await.error, None);
    let titles = "SELECT id, title FROM s.posts ORDER BY id";
    let upserted = json!([{"id": 1, "title": "it's"}, {"id": 2, "title": "b"}, {"id": 3, "title": null}, {"id": 9, "title": null}]);
    assert_eq!(world.all(titles).await, upserted);
    assert_eq!(world.run("transfer", config("replace")).await.error, None);
    assert_eq!(world.all("SELECT id FROM s.posts ORDER BY id").await, json!([{"id": 1}, {"id": 2}, {"id": 3}]));
}

#[tokio::test]
async fn what_does_not_fit_changes_nothing() {
    let Some(world) = World::new(Bench::new()).await else { return };
    world.witness.execute("CREATE TABLE t (a int, b varchar(3)); INSERT INTO t VALUES (0, 'old')").await.unwrap();
    let table = [
        (json!([{"a": 1}, {"a": "x"}]), json!({"table": "t"}), "PG_22P02"),
        (json!([{"a": 1, "b": "long text"}]), json!({"table": "t"}), "PG_22001"),
        (json!([{"a": 1}, {"a": 2, "b": "x"}]), json!({"table": "t"}), "POSTGRES_CONFIG"),
        (json!([{"c": 1}]), json!({"table": "t"}), "TRANSFER_CONFIG"),
        (json!([{"a": 1}]), json!({"table": "nowhere"}), "PG_42P01"),
        (json!([1]), json!({"table": "t"}), "TRANSFER_SOURCE"),
    ];
    for (body, mut target, code) in table {
        target["type"] = "postgres".into();
        target["auth"] = ALIAS.into();
        let source = json!({"type": "http", "url": server(body.clone()).await});
        let config = json!({"source": source, "target": target, "mode": "replace", "chunk_size": 1});
        let error = world.run("transfer", config).await.error.unwrap();
        assert_eq!((error.code.as_str(), error.hard), (code, true), "{body} {error:?}");
        assert_eq!(world.all("SELECT * FROM t").await, json!([{"a": 0, "b": "old"}]), "{body}");
    }
    // No rows are no reason to fail; to replace with nothing is to empty.
    let config = json!({
        "source": {"type": "http", "url": server(json!([])).await}, "target": {"type": "postgres", "auth": ALIAS, "table": "t"},
        "mode": "replace"
    });
    let outcome = world.run("transfer", config).await;
    assert_eq!((outcome.error, &outcome.data["rows_transferred"]), (None, &json!(0)));
    assert_eq!(world.all("SELECT * FROM t").await, json!([]));
}

#[tokio::test]
async fn a_query_streams_into_another_table_and_stops_half_way_without_a_trace() {
    let Some(world) = World::new(Bench::new()).await else { return };
    world.witness.execute("CREATE TABLE t (n bigint, s text)").await.unwrap();
    let config = |query: &str| {
        json!({
            "source": {"type": "postgres", "auth": ALIAS, "query": query},
            "target": {"type": "postgres", "auth": ALIAS, "table": "t"}, "chunk_size": 7000
        })
    };
    let outcome =
        world.run("transfer", config("SELECT n, repeat('x', 10) AS s FROM generate_series(1, 50000) AS n")).await;
    assert_eq!(outcome.error, None);
    assert_eq!((&outcome.data["rows_transferred"], &outcome.data["chunks_processed"]), (&json!(50_000), &json!(8)));
    assert_eq!(
        world.all("SELECT count(*) AS n, sum(n) AS s FROM t").await,
        json!([{"n": 50_000, "s": 1_250_025_000_u64}])
    );

    let (handle, signal) = stop_line();
    let endless = config("SELECT n, pg_sleep(0.001)::text AS s FROM generate_series(1, 100000000) AS n");
    let running = world.run_with(call("transfer", endless), signal);
    let seen = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(0.001)%' AND pid <> pg_backend_pid()";
    let stop = async {
        while world.witness.first_value(seen).await.unwrap() != Some(json!(1)) {
            tokio::task::yield_now().await;
        }
        handle.order(StopOrder { grace_ms: 20_000 });
    };
    let (outcome, ()) = tokio::join!(running, stop);
    assert_eq!((outcome.error.unwrap().kind, outcome.stopped), (ErrorKind::Cancelled, Some(Stopped::Stopped)));
    assert_eq!(world.witness.first_value(seen).await.unwrap(), Some(json!(0)));
    assert_eq!(world.all("SELECT count(*) AS n FROM t").await, json!([{"n": 50_000}]));
}

/// What a transfer from a query into `t` leaves when it is stopped while `t` is being written: how that was told, and
/// what of it its server still does at the moment of the answer.
async fn stopped_while_writing(world: &World, query: &str, grace_ms: u64) -> (Option<Stopped>, Value) {
    let config = json!({
        "source": {"type": "postgres", "auth": ALIAS, "query": query},
        "target": {"type": "postgres", "auth": ALIAS, "table": "t"}, "chunk_size": 10
    });
    let (handle, signal) = stop_line();
    let running = world.run_with(call("transfer", config), signal);
    let writing = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep' \
                   AND query LIKE 'INSERT INTO%'";
    let reading = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep' \
                   AND query LIKE '%FROM slowly%'";
    let stop = async {
        for seen in [writing, reading] {
            while world.witness.first_value(seen).await.unwrap() != Some(json!(1)) {
                tokio::task::yield_now().await;
            }
        }
        handle.order(StopOrder { grace_ms });
    };
    let (outcome, ()) = tokio::join!(running, stop);
    let left = "SELECT state, query FROM pg_stat_activity WHERE backend_type = 'client backend' \
                AND state <> 'idle' AND pid <> pg_backend_pid()";
    let left = world.all(left).await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Cancelled);
    (outcome.stopped, left)
}

#[tokio::test]
async fn a_transfer_that_is_stopped_while_it_writes_has_stopped_reading_before_it_says_so() {
    let Some(world) = World::new(Bench::new()).await else { return };
    // Rows so wide that none of them waits in the backend for others.
    world
        .witness
        .execute(
            "CREATE TABLE t (n bigint, s text);
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait();
             CREATE FUNCTION polite(n bigint) RETURNS text LANGUAGE plpgsql AS
                 $$ BEGIN IF n > 12 THEN PERFORM pg_sleep(600); END IF; RETURN repeat('x', 20000); END $$;
             CREATE FUNCTION stubborn(n bigint) RETURNS text LANGUAGE plpgsql AS
                 $$ BEGIN
                     WHILE n > 12 LOOP
                         BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END;
                     END LOOP;
                     RETURN repeat('x', 20000);
                 END $$;
             CREATE VIEW slowly AS SELECT n FROM generate_series(1, 1000) AS n;",
        )
        .await
        .unwrap();
    let polite = stopped_while_writing(&world, "SELECT n, polite(n) AS s FROM slowly", 20_000).await;
    assert_eq!(polite, (Some(Stopped::Stopped), json!([])));
    // The write ends when it is asked to, the query must be killed: the worse of both is told.
    let stubborn = stopped_while_writing(&world, "SELECT n, stubborn(n) AS s FROM slowly", 300).await;
    assert_eq!(stubborn, (Some(Stopped::Killed), json!([])));
    assert_eq!(world.all("SELECT * FROM t").await, json!([]));
}

#[tokio::test]
async fn duckdb_is_a_source_and_a_target() {
    let Some(bench) = duckdb::bench() else { return };
    let Some(world) = World::new(bench).await else { return };
    world
        .witness
        .execute("CREATE TABLE t (a int PRIMARY KEY, d numeric, l int[], ts timestamp, s text)")
        .await
        .unwrap();
    let made = "CREATE TABLE src AS SELECT range::INT AS a, 1.25::DECIMAL(5,2) AS d, [1, 2] AS l, TIMESTAMP '2024-02-03 04:05:06' AS ts, \
                'it''s' AS s FROM range(5); CREATE TABLE dst (\"A\" INT PRIMARY KEY, d DECIMAL(5,2), l INT[], ts TIMESTAMP, s TEXT)";
    assert_eq!(world.run("duckdb", json!({"database": "d.db", "command": made})).await.error, None);
    let duck = json!({"type": "duckdb", "database": "d.db", "query": "SELECT * FROM src ORDER BY a"});
    let postgres = json!({"type": "postgres", "auth": ALIAS, "table": "t"});
    let outcome = world.run("transfer", json!({"source": duck, "target": postgres, "chunk_size": 2})).await;
    assert_eq!((outcome.error, &outcome.data["direction"]), (None, &json!("duckdb_to_postgres")));
    assert_eq!((&outcome.data["rows_transferred"], &outcome.data["chunks_processed"]), (&json!(5), &json!(3)));
    let row = json!([{"a": 4, "d": 1.25, "l": [1, 2], "ts": "2024-02-03T04:05:06", "s": "it's"}]);
    assert_eq!(world.all("SELECT * FROM t WHERE a = 4").await, row);

    // And back, three times: all rows, again by key, and only those of now.
    let back = |mode: &str, query: &str| {
        json!({
            "source": {"type": "postgres", "auth": ALIAS, "query": query},
            "target": {"type": "duckdb", "database": "d.db", "table": "dst"}, "mode": mode
        })
    };
    let outcome = world.run("transfer", back("append", "SELECT * FROM t")).await;
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.data["columns"], json!(["A", "d", "l", "ts", "s"]));
    let twice = "SELECT a, 'new' AS s FROM t WHERE a < 2 UNION ALL SELECT 1, 'last' UNION ALL SELECT 9, 'nine'";
    assert_eq!(world.run("transfer", back("upsert", twice)).await.error, None);
    let query = json!({"database": "d.db", "query": "SELECT a, s, l FROM dst WHERE a IN (0, 1, 4, 9) ORDER BY a"});
    let rows = world.run("duckdb", query).await.data["rows"].clone();
    let expected = json!([
        {"A": 0, "s": "new", "l": [1, 2]}, {"A": 1, "s": "last", "l": [1, 2]}, {"A": 4, "s": "it's", "l": [1, 2]},
        {"A": 9, "s": "nine", "l": null}
    ]);
    assert_eq!(rows, expected);
    let broken = world.run("transfer", back("replace", "SELECT 'x' AS a")).await;
    assert_eq!(broken.error.unwrap().code, "DUCKDB_CONVERSION");
    let count = json!({"database": "d.db", "query": "SELECT count(*) AS n FROM dst"});
    assert_eq!(world.run("duckdb", count.clone()).await.data["rows"], json!([{"n": 6}]));
    assert_eq!(world.run("transfer", back("replace", "SELECT 1 AS a")).await.error, None);
    assert_eq!(world.run("duckdb", count).await.data["rows"], json!([{"n": 1}]));

    let unknown = world.run("transfer", back("append", "SELECT 1 AS nothing")).await.error.unwrap();
    assert_eq!(unknown.code, "TRANSFER_CONFIG");
    assert!(unknown.message.contains("has no column `nothing`"), "{}", unknown.message);
}
