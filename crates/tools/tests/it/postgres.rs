//! `postgres` against a real server.

use async_trait::async_trait;
use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolCall, ToolError, ToolOutcome};
use noetl_testkit::{Address, Database, TestCluster};
use noetl_tools::{Credential, Outside, Secrets, StopSignal, Stream, stop_line, unknown_credential};
use serde_json::{Value, json};

use crate::support::{Bench, Lines, PATIENCE, call, map};

/// The alias under which the cluster's database is known.
const ALIAS: &str = "pg_test";
const DATABASE: &str = "playbooks";

/// Knows one credential.
pub(crate) struct OneCredential(pub(crate) Value);

#[async_trait]
impl Secrets for OneCredential {
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
        match alias {
            ALIAS => Ok(Credential {
                name: ALIAS.into(),
                kind: "postgres".into(),
                data: std::sync::Arc::new(map(self.0.clone())),
            }),
            "not_a_database" => {
                Ok(Credential { name: alias.into(), kind: "bearer".into(), data: std::sync::Arc::default() })
            }
            other => Err(unknown_credential(other)),
        }
    }
}

pub(crate) fn credential(address: &Address) -> OneCredential {
    OneCredential(json!({
        "db_host": address.host,
        "db_port": address.port.to_string(),
        "db_user": address.user,
        "db_password": address.password,
        "db_name": address.database,
    }))
}

/// A toolbox, a cluster, and a connection that looks on.
struct World {
    bench: Bench,
    cluster: TestCluster,
    secrets: OneCredential,
    witness: Database,
}

impl World {
    async fn new() -> Option<Self> {
        let cluster = TestCluster::start(&[DATABASE]).await.unwrap()?;
        let address = cluster.address(DATABASE);
        let witness = Database::connect(&address).await.unwrap();
        Some(World { bench: Bench::new(), cluster, secrets: credential(&address), witness })
    }

    async fn run_with(&self, call: ToolCall, stop: StopSignal, lines: &Lines) -> ToolOutcome {
        let outside = Outside { log: lines, secrets: &self.secrets };
        tokio::time::timeout(PATIENCE, self.bench.toolbox.run(0, call, stop, outside)).await.expect("the tool ends")
    }

    async fn run(&self, config: Value) -> ToolOutcome {
        self.run_with(call("postgres", config), StopSignal::never(), &Lines::new().0).await
    }

    async fn sql(&self, sql: &str) -> ToolOutcome {
        self.run(json!({"auth": ALIAS, "command": sql})).await
    }

    async fn rows(&self, sql: &str) -> Value {
        let outcome = self.sql(sql).await;
        assert_eq!(outcome.error, None, "{sql}");
        outcome.data["rows"].clone()
    }

    async fn error(&self, sql: &str) -> ToolError {
        self.sql(sql).await.error.expect(sql)
    }

    async fn witnessed(&self, sql: &str) -> Value {
        self.witness.first_value(sql).await.unwrap().unwrap_or(Value::Null)
    }

    /// Waits until the witness sees what it is to see.
    async fn until(&self, sql: &str, wanted: Value) {
        let look = async {
            while self.witnessed(sql).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{sql} becomes {wanted}"));
    }

    /// How many backends run a statement that contains `mark`.
    fn running(mark: &str) -> String {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{mark}%' \
             AND pid <> pg_backend_pid()"
        )
    }
}

#[tokio::test]
async fn results_have_every_statement_and_the_last_one_flat() {
    let Some(world) = World::new().await else { return };
    let outcome = world
        .sql(
            "-- people\nCREATE TABLE people (id serial PRIMARY KEY, name text);;\n\
             INSERT INTO people (name) VALUES ('Ada; Lovelace'), ('Grace') RETURNING id, name;\n\
             UPDATE people SET name = upper(name);\nSELECT name FROM people WHERE id > 5;",
        )
        .await;
    assert_eq!(outcome.error, None);
    let data = &outcome.data;
    assert_eq!(data["statement_count"], 4);
    let create = json!({"rows": [], "row_count": 0, "columns": [], "affected_rows": 0, "status": "success"});
    assert_eq!(data["command_0"], create);
    let insert = json!({
        "rows": [{"id": 1, "name": "Ada; Lovelace"}, {"id": 2, "name": "Grace"}],
        "row_count": 2, "columns": ["id", "name"], "affected_rows": 2, "status": "success"
    });
    assert_eq!(data["command_1"], insert);
    assert_eq!(data["command_2"]["affected_rows"], 2);
    assert_eq!(data["command_3"]["rows"], json!([]));
    assert_eq!(data["command_3"]["columns"], json!(["name"]));
    assert_eq!((&data["rows"], &data["row_count"], &data["columns"]), (&json!([]), &json!(0), &json!(["name"])));
    assert_eq!(data.get("command_4"), None);

    // Rows that a change returns, also inside WITH.
    let claimed = "WITH taken AS (DELETE FROM people WHERE id = 1 RETURNING id) SELECT id FROM taken";
    assert_eq!(world.rows(claimed).await, json!([{"id": 1}]));
    assert_eq!(world.rows("DELETE FROM people RETURNING name").await, json!([{"name": "GRACE"}]));
    // What renders to nothing does nothing.
    let nothing = world.sql("-- nothing\n").await;
    assert_eq!((nothing.error, &nothing.data["statement_count"], &nothing.data["rows"]), (None, &json!(0), &json!([])));

    let several =
        world.run(json!({"auth": ALIAS, "commands": ["SELECT 1 AS a; SELECT 2 AS a", "SELECT 3 AS a"]})).await;
    assert_eq!((&several.data["command_1"]["rows"][0]["a"], &several.data["rows"][0]["a"]), (&json!(2), &json!(3)));

    std::fs::write(world.bench.directory.path().join("q.sql"), "SELECT 'from a file' AS a").unwrap();
    let script = world.run(json!({"auth": ALIAS, "script": {"uri": "./q.sql", "source": {"type": "file"}}})).await;
    assert_eq!(script.data["rows"], json!([{"a": "from a file"}]));
}

#[tokio::test]
async fn values_come_with_their_types_and_parameters_go_with_theirs() {
    let Some(world) = World::new().await else { return };
    world.rows("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int CHECK (VALUE < 10)").await;
    let all = "SELECT 1::int2 AS i, 9223372036854775807 AS l, 0.5::float8 AS f, 'NaN'::float8 AS nan, 12.50::numeric AS n, \
               0.12345678901234567890::numeric AS exact, true AS b, NULL AS nothing, '{\"k\": [1, {\"x\": null}]}'::jsonb AS j, \
               ARRAY[1,2,NULL] AS a, ARRAY['x,y', 'q\"'] AS t, '2024-02-03 04:05:06.5'::timestamp AS ts, \
               '2024-02-03 04:05:06+00'::timestamptz AT TIME ZONE 'UTC' AS utc, '2024-02-03'::date AS d, \
               '11111111-2222-3333-4444-555555555555'::uuid AS u, '\\x00ff'::bytea AS y, 'ok'::mood AS m, ARRAY['ok'::mood] AS ms, \
               5::small AS s, point(1,2) AS p, '1 day 02:00'::interval AS iv, (1, 'x') AS r, 7::money::numeric AS money, \
               'a:1'::tsvector AS odd";
    let expected = json!([{
        "i": 1, "l": i64::MAX, "f": 0.5, "nan": "NaN", "n": 12.5, "exact": "0.12345678901234567890", "b": true,
        "nothing": null, "j": {"k": [1, {"x": null}]}, "a": [1, 2, null], "t": ["x,y", "q\""],
        "ts": "2024-02-03T04:05:06.5", "utc": "2024-02-03T04:05:06", "d": "2024-02-03",
        "u": "11111111-2222-3333-4444-555555555555", "y": "\\x00ff", "m": "ok", "ms": ["ok"], "s": 5, "p": "(1,2)",
        "iv": "1 day 02:00:00", "r": "(1,x)", "money": 7.0, "odd": "'a':1"
    }]);
    let rows = world.rows(all).await;
    for (name, value) in expected[0].as_object().unwrap() {
        assert_eq!(&rows[0][name], value, "{name}");
    }
    // How a role wants to see dates does not change what playbooks see.
    world
        .rows("ALTER ROLE CURRENT_USER SET DateStyle = 'German'; ALTER ROLE CURRENT_USER SET bytea_output = 'escape'")
        .await;
    world.bench.toolbox.close().await;
    assert_eq!(
        world.rows("SELECT '2024-02-03'::date AS d, '\\x00'::bytea AS y").await,
        json!([{"d": "2024-02-03", "y": "\\x00"}])
    );

    let sql = "SELECT $1::int + 1 AS i, $2::text AS t, $3::jsonb AS j, $4::int[] AS a, $5::bool AS b, $6::text AS n, \
               $7::numeric AS x, $8::mood AS m; SELECT $1 + 1 AS j";
    let params = json!([41, "it's \\ \"; DROP TABLE x; --", {"a": ["b'"]}, [1, 2], true, null, 1.5, "sad"]);
    let outcome = world.run(json!({"auth": ALIAS, "query": sql, "params": params})).await;
    assert_eq!(outcome.error, None);
    let expected = json!([{
        "i": 42, "t": "it's \\ \"; DROP TABLE x; --", "j": {"a": ["b'"]}, "a": [1, 2], "b": true, "n": null, "x": 1.5, "m": "sad"
    }]);
    assert_eq!(outcome.data["command_0"]["rows"], expected);
    assert_eq!(outcome.data["rows"], json!([{"j": 42}]));
    let table = [
        (json!([]), "the statement has 1 parameters, `params` has 0 values"),
        (json!([1, 2]), "`params` has 2 values, the statements use 1"),
        (json!({"a": 1}), "`params` must be a list: SQL names them `$1`, `$2`, …"),
    ];
    for (params, message) in table {
        let outcome = world.run(json!({"auth": ALIAS, "query": "SELECT $1::int", "params": params})).await;
        let error = outcome.error.unwrap();
        assert!(error.message == message || error.code == "PG_42P02", "{error:?}");
    }
}

#[tokio::test]
async fn errors_say_what_and_where_and_keep_what_was_done() {
    let Some(world) = World::new().await else { return };
    world.rows("CREATE TABLE t (id int PRIMARY KEY)").await;
    let outcome =
        world.sql("INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);\nSELECT é FROM t\n  WHERE ö = 1").await;
    let error = outcome.error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.kind, error.hard, error.retryable),
        ("PG_42703", ErrorKind::NotFound, true, false)
    );
    assert_eq!(outcome.pg, Some(json!({"code": "42703"})));
    assert_eq!(outcome.data["command_1"]["affected_rows"], 1);
    let details = Value::Object(error.details);
    assert_eq!((&details["pg_code"], &details["statement"]), (&json!("42703"), &json!(2)));
    assert_eq!((&details["line"], &details["column"]), (&json!(3), &json!(8)), "{details}");
    assert!(error.message.ends_with("(line 3, column 8 of the SQL)"), "{}", error.message);
    // Each statement committed by itself.
    assert_eq!(world.witnessed("SELECT count(*) FROM t").await, 2);

    let table = [
        ("SELEC 1", "PG_42601", ErrorKind::Parse, false),
        ("INSERT INTO t VALUES (1)", "PG_23505", ErrorKind::DbConstraint, false),
        ("SELECT 1/0", "PG_22012", ErrorKind::Schema, false),
        ("SELECT * FROM nowhere", "PG_42P01", ErrorKind::NotFound, false),
        ("DO $$ BEGIN RAISE EXCEPTION 'no; more'; END $$", "PG_P0001", ErrorKind::Code, false),
        ("SET statement_timeout = 1; SELECT pg_sleep(20)", "PG_57014", ErrorKind::DbTimeout, true),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", "PG_40P01", ErrorKind::DbDeadlock, true),
    ];
    for (sql, code, kind, retryable) in table {
        let error = world.error(sql).await;
        assert_eq!(
            (error.code.as_str(), error.kind, error.retryable, error.hard),
            (code, kind, retryable, true),
            "{sql}"
        );
    }
    let duplicate = world.error("INSERT INTO t VALUES (1)").await;
    assert_eq!(duplicate.details["constraint_name"], "t_pkey");
    // What a copy would want to read or write is nothing that a playbook has; it must not hang.
    assert!(world.sql("COPY t FROM STDIN").await.error.is_some());
    assert_eq!(world.rows("SELECT count(*)::int AS n FROM t").await, json!([{"n": 2}]));

    let many = world.error("SELECT repeat('x', 1000000) AS x FROM generate_series(1, 1000)").await;
    assert_eq!((many.code.as_str(), many.kind, many.hard), ("RESULT_TOO_LARGE", ErrorKind::Limit, true));
    world.until(&World::running("repeat"), json!(0)).await;
}

#[tokio::test]
async fn connections_come_from_alias_fields_or_strings_and_failing_to_connect_is_retryable() {
    let Some(mut world) = World::new().await else { return };
    let address = world.cluster.address(DATABASE);
    let query = "SELECT current_database() AS d";
    let fields = json!({
        "host": address.host, "port": address.port, "user": address.user, "password": address.password,
        "database": address.database, "query": query
    });
    let socket = world.cluster.socket_address(DATABASE);
    let working = [
        json!({"auth": ALIAS, "query": query}),
        json!({"credential": ALIAS, "query": query}),
        json!({"auth": {"source": "credential", "key": ALIAS}, "query": query}),
        fields,
        json!({"connection_string": address.url(), "query": query}),
        json!({"auth": ALIAS, "host": socket.host, "query": query}),
    ];
    for config in working {
        let outcome = world.run(config.clone()).await;
        assert_eq!((outcome.error, &outcome.data["rows"][0]["d"]), (None, &json!(DATABASE)), "{config}");
    }
    let template = world.run(json!({"auth": ALIAS, "database": "template1", "query": query})).await;
    assert_eq!(template.data["rows"], json!([{"d": "template1"}]));

    let failing = [
        (json!({"auth": "nobody"}), "UNKNOWN_CREDENTIAL", ErrorKind::Auth, false),
        (json!({"auth": "not_a_database"}), "POSTGRES_CONFIG", ErrorKind::Config, false),
        (json!({"auth": ""}), "POSTGRES_CONFIG", ErrorKind::Config, false),
        (json!({"auth": ALIAS, "password": "wrong"}), "PG_28P01", ErrorKind::Auth, false),
        (json!({"auth": ALIAS, "database": "none"}), "PG_3D000", ErrorKind::NotFound, false),
        (json!({"auth": ALIAS, "host": "no-such-host.invalid"}), "DB_CONNECTION", ErrorKind::DbConnection, true),
        (
            json!({"auth": ALIAS, "port": noetl_testkit::free_port().unwrap()}),
            "DB_CONNECTION",
            ErrorKind::DbConnection,
            true,
        ),
        (json!({"auth": ALIAS, "sslmode": "require"}), "DB_CONNECTION", ErrorKind::DbConnection, true),
    ];
    for (config, code, kind, retryable) in failing {
        let mut config = map(config);
        config.insert("query".to_owned(), "SELECT 1".into());
        let error = world.run(config.into()).await.error.unwrap();
        assert_eq!(
            (error.code.as_str(), error.kind, error.retryable, error.hard),
            (code, kind, retryable, true),
            "{error:?}"
        );
        assert!(!format!("{error:?}").contains(&address.password), "{error:?}");
    }

    // A kept connection to a server that was away is not used again.
    world.cluster.crash();
    let away = world.error("SELECT 1").await;
    assert_eq!((away.kind, away.retryable), (ErrorKind::DbConnection, true));
    world.cluster.restart().await.unwrap();
    assert_eq!(world.rows("SELECT 1 AS a").await, json!([{"a": 1}]));
}

#[tokio::test]
async fn a_connection_is_used_again_and_remembers_nothing() {
    let Some(world) = World::new().await else { return };
    let pid = world.rows("SELECT pg_backend_pid() AS pid").await;
    world
        .rows(
            "SET search_path = nowhere; SET DateStyle = 'German'; CREATE TEMP TABLE mine (a int); \
             SELECT pg_advisory_lock(7); LISTEN something; PREPARE old AS SELECT 1; DEALLOCATE old",
        )
        .await;
    // The lock is free as soon as the call is over, not when the connection is closed or used again.
    assert_eq!(world.witnessed("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, 0);
    assert_eq!(world.rows("SELECT pg_backend_pid() AS pid").await, pid);
    let session = "SELECT current_setting('search_path') AS path, '2024-02-03'::date AS d, \
                   (SELECT count(*)::int FROM pg_listening_channels()) AS n, to_regclass('mine') AS mine";
    let expected = json!([{"path": "\"$user\", public", "d": "2024-02-03", "n": 0, "mine": null}]);
    assert_eq!(world.rows(session).await, expected);

    // What begins must end; what is left open is not kept.
    world.rows("CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1); COMMIT").await;
    let error = world.error("BEGIN; INSERT INTO t VALUES (2)").await;
    assert_eq!((error.code.as_str(), error.hard), ("TRANSACTION_LEFT_OPEN", true));
    assert_eq!(world.rows("SELECT a FROM t").await, json!([{"a": 1}]));
    // A connection with a failed statement is not used again.
    world.error("BEGIN; SELECT 1/0").await;
    assert_eq!(world.rows("SELECT a FROM t").await, json!([{"a": 1}]));

    let (lines, _kept) = Lines::new();
    let noisy = call("postgres", json!({"auth": ALIAS, "command": "DO $$ BEGIN RAISE NOTICE 'half way'; END $$"}));
    assert_eq!(world.run_with(noisy, StopSignal::never(), &lines).await.error, None);
    assert_eq!(lines.all(), [(Stream::Stderr, "NOTICE: half way".to_owned())]);
    world.bench.toolbox.close().await;
    world.until("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'noetl'", json!(0)).await;
}

/// Runs a statement, stops it once the server runs it, and returns the outcome.
async fn stopped(world: &World, sql: &str, mark: &str, grace_ms: u64) -> ToolOutcome {
    let (handle, signal) = stop_line();
    let (lines, _kept) = Lines::new();
    let running = world.run_with(call("postgres", json!({"auth": ALIAS, "command": sql})), signal, &lines);
    let stop = async {
        world.until(&World::running(mark), json!(1)).await;
        handle.order(StopOrder { grace_ms });
    };
    tokio::join!(running, stop).0
}

#[tokio::test]
async fn a_stopped_statement_is_gone_from_the_server() {
    let Some(world) = World::new().await else { return };
    world.rows("CREATE TABLE t (a int)").await;
    let sql = "INSERT INTO t VALUES (1); SELECT pg_sleep(1000); INSERT INTO t VALUES (2)";
    let outcome = stopped(&world, sql, "pg_sleep(1000)", 20_000).await;
    assert_eq!(world.witnessed(&World::running("pg_sleep")).await, 0);
    let error = outcome.error.unwrap();
    assert_eq!(
        (error.kind, error.code.as_str(), outcome.stopped),
        (ErrorKind::Cancelled, "CANCELLED", Some(Stopped::Stopped))
    );
    // What was done is told, what would have come next is not done.
    assert_eq!(outcome.data["statement_count"], 1);
    assert_eq!(world.witnessed("SELECT count(*) FROM t").await, 1);

    // Nothing of it reaches the next call.
    assert_eq!(world.rows("SELECT 1 AS a").await, json!([{"a": 1}]));

    // A statement that outlives requests to end is ended with its backend.
    let stubborn =
        "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(2000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    for grace_ms in [300, 0] {
        let outcome = stopped(&world, stubborn, "pg_sleep(2000)", grace_ms).await;
        assert_eq!(outcome.stopped, Some(Stopped::Killed), "{:?}", outcome.error);
        assert_eq!(world.witnessed(&World::running("pg_sleep")).await, 0);
    }

    // A time limit ends it in the same way.
    let mut slow = call("postgres", json!({"auth": ALIAS, "command": "SELECT pg_sleep(3000)"}));
    slow.timeout_ms = Some(200);
    let outcome = world.run_with(slow, StopSignal::never(), &Lines::new().0).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, error.retryable, outcome.stopped), (ErrorKind::Timeout, true, Some(Stopped::Stopped)));
    assert_eq!(world.witnessed(&World::running("pg_sleep")).await, 0);
}

#[tokio::test]
async fn a_statement_ends_when_nobody_waits_for_it_any_more() {
    let Some(world) = World::new().await else { return };
    {
        let (lines, _kept) = Lines::new();
        let slow = call("postgres", json!({"auth": ALIAS, "command": "SELECT pg_sleep(4000)"}));
        let running = world.run_with(slow, StopSignal::never(), &lines);
        let running_there = World::running("pg_sleep(4000)");
        let seen = world.until(&running_there, json!(1));
        tokio::select! {
            outcome = running => panic!("it ended: {outcome:?}"),
            () = seen => {}
        }
    }
    world.until(&World::running("pg_sleep"), json!(0)).await;
}

#[tokio::test]
async fn a_stop_while_connecting_needs_no_server() {
    let bench = Bench::new();
    // It accepts, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = json!({"host": "127.0.0.1", "port": port, "user": "u", "query": "SELECT 1"});
    let (handle, signal) = stop_line();
    let (lines, _kept) = Lines::new();
    let running = bench.run_with(call("postgres", config), signal, &lines);
    let stop = async {
        let connection = silent.accept().await.unwrap();
        handle.order(StopOrder { grace_ms: 60_000 });
        connection
    };
    let (outcome, _connection) = tokio::join!(running, stop);
    assert_eq!((outcome.error.unwrap().kind, outcome.stopped), (ErrorKind::Cancelled, Some(Stopped::Stopped)));
}

#[tokio::test]
async fn encryption_believes_as_much_as_it_is_told_to() {
    let Some(mut world) = World::new().await else { return };
    let make_certificates = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; \
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca 2>&1 && \
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost 2>&1 && \
        echo subjectAltName=DNS:localhost > ext && \
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt 2>&1'";
    if world.witness.execute(make_certificates).await.is_err() {
        // Only a machine without openssl.
        return;
    }
    world.witness.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    let roots = world.witnessed("SELECT current_setting('data_directory') || '/ca.crt'").await;
    world.cluster.restart().await.unwrap();
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let table = [
        (json!({}), Ok(true)),
        (json!({"sslmode": "disable"}), Ok(false)),
        (json!({"sslmode": "require"}), Ok(true)),
        // The system does not trust whoever signed it.
        (json!({"sslmode": "verify-ca"}), Err("DB_CONNECTION")),
        (json!({"sslmode": "verify-ca", "sslrootcert": roots}), Ok(true)),
        (json!({"sslmode": "verify-full", "sslrootcert": roots}), Err("DB_CONNECTION")),
        (json!({"sslmode": "verify-full", "sslrootcert": roots, "host": "localhost"}), Ok(true)),
        (json!({"sslmode": "verify-full", "sslrootcert": "/no/such/file"}), Err("DB_TLS")),
    ];
    for (config, expected) in table {
        let mut config = map(config);
        config.insert("auth".to_owned(), ALIAS.into());
        config.insert("query".to_owned(), query.into());
        let outcome = world.run(config.clone().into()).await;
        match expected {
            Ok(ssl) => assert_eq!((outcome.error, &outcome.data["rows"][0]["ssl"]), (None, &json!(ssl)), "{config:?}"),
            Err(code) => assert_eq!(outcome.error.expect("an error").code, code, "{config:?}"),
        }
    }
    // A cancel request is encrypted as well.
    world.witness = Database::connect(&world.cluster.address(DATABASE)).await.unwrap();
    let outcome = stopped(&world, "SELECT pg_sleep(5000)", "pg_sleep(5000)", 20_000).await;
    assert_eq!(outcome.stopped, Some(Stopped::Stopped));
}

#[tokio::test]
async fn a_statement_ends_with_the_worker_that_wanted_it() {
    let Some(world) = World::new().await else { return };
    let secrets = credential(&world.cluster.address(DATABASE));
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    worker.spawn(async move {
        let bench = Bench::new();
        let (lines, _kept) = Lines::new();
        let outside = Outside { log: &lines, secrets: &secrets };
        let slow = call("postgres", json!({"auth": ALIAS, "command": "SELECT pg_sleep(6000)"}));
        bench.toolbox.run(0, slow, StopSignal::never(), outside).await
    });
    let running = World::running("pg_sleep(6000)");
    world.until(&running, json!(1)).await;
    // As with a worker that is killed: its sockets close, and it asks nobody to cancel anything.
    worker.shutdown_background();
    world.until(&running, json!(0)).await;
}
