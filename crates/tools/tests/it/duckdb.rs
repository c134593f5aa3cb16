//! `duckdb`, through a python that has the package, through the command line, and with neither.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolOutcome};
use noetl_tools::{StopSignal, stop_line};
use serde_json::{Value, json};

use crate::support::{Bench, Lines, call, printed};

/// Returns a python that has the package: `NOETL_TEST_DUCKDB_PYTHON`, else `python3` if it does.
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("NOETL_TEST_DUCKDB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = std::process::Command::new(&python).args(["-c", "import duckdb, pytz"]).output();
    has.is_ok_and(|output| output.status.success()).then_some(python)
}

pub(crate) fn bench() -> Option<Bench> {
    let python = python()?;
    Some(Bench::with(|config| config.python = python))
}

async fn run(bench: &Bench, config: Value) -> ToolOutcome {
    bench.run(call("duckdb", config)).await
}

#[tokio::test]
async fn results_have_the_shape_of_postgres() {
    let Some(mut bench) = bench() else { return };
    let sql = "-- a table\nCREATE TABLE t (id INTEGER PRIMARY KEY, j JSON, d DECIMAL(10,2));\n\
               INSERT INTO t VALUES (1, '{\"a\": [1, ;]}', 1.50), (2, NULL, 2);";
    let broken = run(&bench, json!({"command": sql})).await;
    assert_eq!(broken.error.unwrap().kind, ErrorKind::Schema);
    assert_eq!(broken.data["statement_count"], 1);

    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON, d DECIMAL(10,2));\n\
               INSERT INTO t VALUES (1, '{\"a\": [1, \";\"]}', 1.50), (2, NULL, 2) RETURNING id;\n\
               UPDATE t SET d = d + 1 WHERE id = 1; SELECT *, [1, 2] AS l, {'x': 1} AS s, TIMESTAMP '2024-02-03 04:05:06' AS ts, \
               'x'::BLOB AS b, 12345678901234567890.5::DECIMAL(38,1) AS exact, 'nan'::DOUBLE AS nan, NULL AS n, \
               NOW() IS NOT NULL AS now FROM t ORDER BY id";
    let outcome = run(&bench, json!({"command": sql})).await;
    assert_eq!(outcome.error, None);
    let data = &outcome.data;
    assert_eq!(
        data["command_0"],
        json!({"rows": [], "row_count": 0, "columns": [], "affected_rows": 0, "status": "success"})
    );
    assert_eq!(data["command_1"]["rows"], json!([{"id": 1}, {"id": 2}]));
    assert_eq!(data["command_2"]["affected_rows"], 1);
    assert_eq!(data["row_count"], 2);
    let first = json!({
        "id": 1, "j": {"a": [1, ";"]}, "d": 2.5, "l": [1, 2], "s": {"x": 1}, "ts": "2024-02-03T04:05:06", "b": "\\x78",
        "exact": "12345678901234567890.5", "nan": "nan", "n": null, "now": true
    });
    assert_eq!(data["rows"][0], first);
    assert_eq!(data["rows"], data["command_3"]["rows"]);

    // In memory nothing stays; a file does, below the directory of tools.
    assert_eq!(run(&bench, json!({"query": "FROM t"})).await.error.unwrap().code, "DUCKDB_CATALOG");
    assert_eq!(run(&bench, json!({"database": "d.db", "query": "CREATE TABLE t AS SELECT 7 AS a"})).await.error, None);
    let again = run(&bench, json!({"database": "d.db", "query": "SELECT a + $1 AS a FROM t", "params": [3]})).await;
    assert_eq!((again.error, &again.data["rows"]), (None, &json!([{"a": 10}])));
    assert!(bench.directory.path().join("d.db").exists());
    bench.assert_nothing_runs();
}

#[tokio::test]
async fn errors_are_hard_and_have_kinds() {
    let Some(bench) = bench() else { return };
    let table = [
        ("SELEC 1", "DUCKDB_PARSER", ErrorKind::Parse, false),
        ("SELECT * FROM nowhere", "DUCKDB_CATALOG", ErrorKind::NotFound, false),
        ("SELECT 'a'::INT", "DUCKDB_CONVERSION", ErrorKind::Schema, false),
        (
            "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1), (1)",
            "DUCKDB_CONSTRAINT",
            ErrorKind::DbConstraint,
            false,
        ),
        ("ATTACH '/no/such/folder/d.db'", "DUCKDB_IO", ErrorKind::DbConnection, true),
        ("SELECT repeat('x', 1000000) AS x FROM range(100)", "RESULT_TOO_LARGE", ErrorKind::Limit, false),
    ];
    for (sql, code, kind, retryable) in table {
        let error = run(&bench, json!({"query": sql})).await.error.expect(sql);
        assert_eq!(
            (error.code.as_str(), error.kind, error.retryable, error.hard),
            (code, kind, retryable, true),
            "{sql}"
        );
    }
    let several = json!({"query": "SELECT $1; SELECT $1", "params": [1]});
    assert_eq!(run(&bench, several).await.error.unwrap().code, "DUCKDB_CONFIG");
    let cloud = json!({"query": "SELECT 1", "auth": {"gcs": {"source": "credential", "key": "x"}}});
    assert_eq!(run(&bench, cloud).await.error.unwrap().code, "DUCKDB_CONFIG");
}

#[tokio::test]
async fn a_stop_ends_the_statement() {
    let Some(mut bench) = bench() else { return };
    for endless in [
        "SELECT count(*) FROM range(100000000000) a WHERE sin(a.range) > 2",
        // These do not look up while they run.
        "CREATE TABLE t AS SELECT * FROM range(100000000000)",
        "COPY (SELECT * FROM range(100000000000)) TO '/dev/null'",
    ] {
        let (handle, signal) = stop_line();
        let (lines, _kept) = Lines::new();
        let running = bench.run_with(call("duckdb", json!({"query": endless})), signal, &lines);
        let stop = async {
            while bench.toolbox.running_pid(0).is_none() {
                tokio::task::yield_now().await;
            }
            // Long before the grace is over.
            handle.order(StopOrder { grace_ms: 25_000 });
        };
        let (outcome, ()) = tokio::join!(running, stop);
        assert_eq!(outcome.error.unwrap().kind, ErrorKind::Cancelled, "{endless}");
        assert_eq!(outcome.stopped, Some(Stopped::Stopped), "{endless}");
        bench.assert_nothing_runs();
    }
}

/// A bench whose python has no package, and whose PATH has only what is in a folder of its own.
fn without_package() -> (Bench, PathBuf) {
    let mut folder = PathBuf::new();
    let bench = Bench::with(|config| {
        folder = config.directory.join("bin");
        std::fs::create_dir(&folder).unwrap();
        let python = folder.join("python-without");
        // Isolated and without packages: whatever is installed, this one has it not.
        let real = config.python.clone();
        std::fs::write(&python, format!("#!/bin/sh\nexec {real} -I -S \"$@\"\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        config.python = python.to_string_lossy().into_owned();
    });
    (bench, folder)
}

#[tokio::test]
async fn without_duckdb_the_error_says_how_to_get_it() {
    if std::process::Command::new("duckdb").arg("--version").output().is_ok() {
        // Then there is the command line, which the next test is about.
        return;
    }
    let (bench, _folder) = without_package();
    let error = run(&bench, json!({"query": "SELECT 1"})).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.kind, error.hard), ("DUCKDB_MISSING", ErrorKind::Config, true));
    assert!(error.message.contains("pip install duckdb"), "{}", error.message);
    assert!(error.message.contains("command line `duckdb`"), "{}", error.message);
}

#[tokio::test]
async fn the_command_line_does_without_python() {
    if std::process::Command::new("duckdb").arg("--version").output().is_err() {
        return;
    }
    let (bench, _folder) = without_package();
    let sql = "CREATE TABLE t (a INT, s TEXT); INSERT INTO t VALUES (1, 'x;y'), (2, NULL) RETURNING a; -- so\nSELECT * FROM t -- all";
    let outcome = run(&bench, json!({"command": sql})).await;
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.data["command_0"]["rows"], json!([]));
    assert_eq!(outcome.data["command_1"]["rows"], json!([{"a": 1}, {"a": 2}]));
    assert_eq!(outcome.data["rows"], json!([{"a": 1, "s": "x;y"}, {"a": 2, "s": null}]));
    assert_eq!(outcome.data["columns"], json!(["a", "s"]));

    let error = run(&bench, json!({"query": "SELECT 1; SELECT * FROM nowhere"})).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.kind, error.hard), ("DUCKDB_CATALOG", ErrorKind::NotFound, true));
    let params = run(&bench, json!({"query": "SELECT $1", "params": [1]})).await.error.unwrap();
    assert_eq!(params.code, "DUCKDB_MISSING");
}

#[tokio::test]
async fn what_is_printed_is_not_rows() {
    let Some(bench) = bench() else { return };
    let (lines, mut printed_lines) = Lines::new();
    let outcome =
        bench.run_with(call("duckdb", json!({"query": "SELECT 'secret row' AS a"})), StopSignal::never(), &lines).await;
    assert_eq!(outcome.data["row_count"], 1);
    assert_eq!(lines.all(), []);
    let noisy = call("shell", json!({"command": "echo end"}));
    bench.run_with(noisy, StopSignal::never(), &lines).await;
    printed(&mut printed_lines, "end").await;
}
