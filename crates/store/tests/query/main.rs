//! PostgreSQL queries on SQLite: answers, refusals, limits, and text that nobody would write.
#![expect(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use noetl_core::time::Timestamp;
use noetl_store::query::{
    OutputColumn, QUERY_BYTES, QueryError, QueryLimits, QueryRows, Schema, Type, register_functions, run, translate,
};
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};

const FIXTURE: &str = include_str!("fixture.sql");

fn empty_store() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("ATTACH ':memory:' AS noetl").unwrap();
    register_functions(&connection).unwrap();
    connection
}

fn store() -> Connection {
    let connection = empty_store();
    connection.execute_batch(FIXTURE).unwrap();
    connection
}

fn now() -> Timestamp {
    Timestamp::from_iso("2026-01-20T09:20:00.000Z").unwrap()
}

fn query(connection: &mut Connection, sql: &str) -> Result<QueryRows, QueryError> {
    run(connection, sql, now(), &QueryLimits::default())
}

fn rows(connection: &mut Connection, sql: &str) -> Vec<Vec<Value>> {
    query(connection, sql).unwrap_or_else(|error| panic!("{sql}: {error}")).rows
}

/// Splits a case file into queries and the comment lines below each, without their marks.
fn cases(text: &str) -> Vec<(String, Vec<String>)> {
    let blocks = text.split("\n\n").skip(1);
    let cases: Vec<_> = blocks
        .map(|block| {
            let at = ["\n--= ", "\n--! "].into_iter().filter_map(|mark| block.find(mark)).min();
            let (sql, below) = block.split_at(at.unwrap_or_else(|| panic!("no answer below {block}")));
            let expected = below.trim().lines().map(|line| line.trim_start_matches("--").to_owned());
            (sql.trim_matches('\n').to_owned(), expected.collect())
        })
        .collect();
    assert!(cases.len() > 100, "the case file was not understood");
    cases
}

#[test]
fn every_query_is_answered_as_postgresql_answers_it() {
    let mut store = store();
    let mut wrong = String::new();
    for (sql, expected) in cases(include_str!("answered.sql")) {
        let found: Vec<String> = match query(&mut store, &sql) {
            Ok(answer) => {
                let columns = format!("= {}", json!(answer.columns));
                std::iter::once(columns).chain(answer.rows.iter().map(|row| format!(" {}", json!(row)))).collect()
            }
            Err(error) => vec![format!("! {error}")],
        };
        // Compared as JSON: the spaces in the file are for people.
        let parsed = |lines: &[String]| -> Vec<Value> {
            lines.iter().map(|line| serde_json::from_str(&line[1..]).unwrap_or_else(|_| json!(line))).collect()
        };
        if parsed(&found) != parsed(&expected) {
            writeln!(wrong, "{sql}\n  expected {expected:#?}\n  found {found:#?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_refusal_names_what_it_refuses() {
    let mut store = store();
    let mut wrong = String::new();
    for (sql, expected) in cases(include_str!("refused.sql")) {
        let found = match query(&mut store, &sql) {
            Ok(answer) => format!("answered with {} rows", answer.rows.len()),
            Err(error) => error.to_string(),
        };
        if format!("! {found}") != expected.concat() {
            writeln!(wrong, "{sql}\n  expected {expected:?}\n  found {found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Fills the store with three levels of executions, 1 + 10 + 100, of so many events each.
fn family(connection: &Connection, events: i64) -> i64 {
    connection
        .execute_batch(
            "CREATE TABLE noetl.event (execution_id INTEGER NOT NULL, version INTEGER NOT NULL, event_id INTEGER NOT NULL,
               parent_execution_id INTEGER, event_type TEXT NOT NULL, status TEXT, context JSON, created_at TIMESTAMP NOT NULL,
               PRIMARY KEY (execution_id, version)) WITHOUT ROWID;
             CREATE INDEX noetl.event_parent ON event (parent_execution_id) WHERE parent_execution_id IS NOT NULL;",
        )
        .unwrap();
    let root = 543_857_931_469_455_628_i64;
    let mut statement = connection.prepare("INSERT INTO noetl.event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)").unwrap();
    for member in 0..111_i64 {
        let parent = (member > 0).then(|| root + (member - 1) / 10);
        for version in 1..=events {
            let first = version == 1;
            let status = if first { "INITIALIZED" } else { "RUNNING" };
            let name = if first { "playbook.initialized" } else { "command.started" };
            let at = if member % 2 == 0 { "2026-01-20T09:05:00.000Z" } else { "2026-01-20T09:15:00.000Z" };
            let row =
                (root + member, version, member * events + version, parent.filter(|_| first), name, status, "{}", at);
            statement.execute(row).unwrap();
        }
    }
    root
}

#[test]
fn the_stale_query_of_the_founding_document_runs_verbatim() {
    let mut store = empty_store();
    let root = family(&store, 30);
    let sql = "SELECT DISTINCT execution_id 
             FROM noetl.event 
             WHERE status IN ('RUNNING', 'INITIALIZED') 
               AND created_at < NOW() - INTERVAL '10 minutes'
             ORDER BY execution_id DESC";
    let expected: Vec<Vec<Value>> = (0..111).rev().filter(|n| n % 2 == 0).map(|n| vec![json!(root + n)]).collect();
    assert_eq!(rows(&mut store, sql), expected);
}

#[test]
fn the_monitoring_query_of_the_founding_document_runs_verbatim() {
    let mut store = store();
    let sql = "SELECT execution_id, created_at, context->>'reason' as reason 
             FROM noetl.event 
             WHERE event_type = 'execution.cancelled' 
             ORDER BY created_at DESC 
             LIMIT 10";
    let answer = query(&mut store, sql).unwrap();
    assert_eq!(answer.columns, ["execution_id", "created_at", "reason"]);
    let expected =
        vec![json!(543_857_931_469_455_628_i64), json!("2026-01-20T09:08:00.123Z"), json!("Detected infinite loop")];
    assert_eq!(answer.rows, [expected]);
}

#[test]
fn the_recursive_query_of_the_founding_document_finds_111_members_within_a_second() {
    let mut store = empty_store();
    let root = family(&store, 36);
    let sql = format!(
        "   WITH RECURSIVE children AS (
     SELECT execution_id FROM noetl.event WHERE execution_id = {root}
     UNION ALL
     SELECT e.execution_id
     FROM noetl.event e
     JOIN children c ON e.parent_execution_id = c.execution_id
   )
   SELECT DISTINCT execution_id FROM children;"
    );
    let started = Instant::now();
    let answer = query(&mut store, &sql).unwrap();
    let took = started.elapsed();
    assert_eq!(answer.rows.len(), 111);
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[test]
fn the_founding_queries_search_by_index() {
    let mut store = empty_store();
    family(&store, 2);
    let plan = rows(
        &mut store,
        "EXPLAIN WITH RECURSIVE c AS (SELECT execution_id FROM event WHERE execution_id = 1 UNION ALL
           SELECT e.execution_id FROM event e JOIN c ON e.parent_execution_id = c.execution_id) SELECT * FROM c",
    );
    let plan = json!(plan).to_string();
    assert!(plan.contains("event_parent"), "{plan}");
    let newest = "EXPLAIN SELECT event_id FROM event WHERE execution_id = 1 ORDER BY version DESC LIMIT 1";
    let plan = json!(rows(&mut store, newest)).to_string();
    assert!(!plan.contains("TEMP B-TREE"), "a column that is never null is ordered by its index: {plan}");
}

#[test]
fn rows_and_bytes_beyond_the_limits_are_cut_off() {
    let mut store = store();
    let limits = QueryLimits { max_rows: 3, ..QueryLimits::default() };
    let answer = run(&mut store, "SELECT * FROM generate_series(1, 3)", now(), &limits).unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (3, false));
    let answer = run(&mut store, "SELECT * FROM generate_series(1, 4)", now(), &limits).unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (3, true));
    let limits = QueryLimits { max_bytes: 2_500, ..QueryLimits::default() };
    let answer = run(&mut store, "SELECT repeat('x', 1000) FROM generate_series(1, 4)", now(), &limits).unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (2, true));
}

#[test]
fn a_query_without_end_is_stopped_and_the_connection_lives_on() {
    let mut store = store();
    let limits = QueryLimits { timeout: Duration::from_millis(50), ..QueryLimits::default() };
    let endless = [
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "SELECT count(*) FROM generate_series(1, 3000) a, generate_series(1, 3000) b, generate_series(1, 3000) c",
    ];
    for sql in endless {
        let started = Instant::now();
        let error = run(&mut store, sql, now(), &limits).unwrap_err();
        assert!(matches!(error, QueryError::TimedOut(_)), "{error}");
        assert!(error.to_string().contains("50 ms"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(rows(&mut store, "SELECT count(*) FROM event"), [vec![json!(10)]]);
}

#[test]
fn values_that_would_fill_the_memory_are_refused() {
    let mut store = store();
    for sql in [
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad('x', 1000000000)",
        "SELECT count(*) FROM generate_series(1, 1000000000)",
        "SELECT length(string_agg(repeat('x', 10000000), ',')) FROM generate_series(1, 100)",
        "SELECT jsonb_agg(repeat('x', 10000000)) FROM generate_series(1, 100)",
    ] {
        assert!(query(&mut store, sql).is_err(), "{sql}");
    }
}

#[test]
fn the_connection_can_do_everything_again_after_a_query() {
    let mut store = store();
    query(&mut store, "SELECT 1").unwrap();
    query(&mut store, "SELECT nope").unwrap_err();
    store.execute("UPDATE noetl.event SET error = 'x' WHERE event_id = 1001", []).unwrap();
    let secret: String = store.query_row("SELECT data_encrypted FROM noetl.credential", [], |row| row.get(0)).unwrap();
    assert_eq!(secret, "c2VjcmV0");
}

#[test]
fn strict_tables_mean_what_declared_types_mean() {
    let mut store = empty_store();
    store
        .execute_batch(
            "CREATE TABLE noetl.execution (execution_id INTEGER PRIMARY KEY, active INTEGER NOT NULL, started_at TEXT) STRICT;
             CREATE TABLE noetl.event (execution_id INTEGER NOT NULL, version INTEGER NOT NULL, context TEXT, created_at TEXT,
               PRIMARY KEY (execution_id, version)) STRICT;
             INSERT INTO noetl.execution VALUES (1, 1, '2026-01-20T09:00:00.000Z');
             INSERT INTO noetl.event VALUES (1, 1, '{\"n\": 1}', '2026-01-20T09:00:00.000Z');",
        )
        .unwrap();
    let found = rows(&mut store, "SELECT active, now() - started_at FROM execution WHERE active");
    assert_eq!(found, [vec![json!(true), json!("00:20:00")]]);
    let found = rows(&mut store, "SELECT context, context->'n' FROM event WHERE created_at > '2026-01-20'");
    assert_eq!(found, [vec![json!({"n": 1}), json!(1)]]);
}

#[test]
fn ids_are_exact_and_a_document_that_is_a_number_stays_one() {
    let mut store = store();
    let found = rows(&mut store, "SELECT execution_id, result FROM event WHERE event_id = 1009");
    assert_eq!(found, [vec![json!(543_857_933_098_765_432_i64), json!(42)]]);
    assert_eq!(rows(&mut store, "SELECT result::int + 1 FROM event WHERE event_id = 1009"), [vec![json!(43)]]);
}

#[test]
fn a_translation_says_the_types_of_its_columns() {
    let store = store();
    let schema = Schema::read(&store).unwrap();
    let translated = translate("SELECT event_id, created_at AS at, context FROM event", &schema).unwrap();
    let expected = [("event_id", Type::Int), ("at", Type::Timestamp { zoned: false }), ("context", Type::Json)];
    let expected = expected.map(|(name, ty)| OutputColumn { name: name.to_owned(), ty });
    assert_eq!(translated.columns, expected);
}

#[test]
fn names_keep_their_letters_and_literals_their_text() {
    let mut store = store();
    let sql = r#"SELECT 'a''b"c--d/*e*/;' AS "x""y;-- z", $q$it's$q$ -- a comment ; DROP"#;
    let answer = query(&mut store, sql).unwrap();
    assert_eq!(answer.columns, ["x\"y;-- z", "?column?"]);
    assert_eq!(answer.rows, [vec![json!("a'b\"c--d/*e*/;"), json!("it's")]]);
}

#[test]
fn long_lists_and_chains_are_answered_and_endless_ones_refused() {
    let mut store = store();
    let list: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let sql = format!("SELECT count(*) FROM event WHERE event_id IN ({})", list.join(", "));
    assert_eq!(rows(&mut store, &sql), [vec![json!(10)]]);
    for operator in [" AND ", " OR "] {
        let sql = format!("SELECT {}", vec!["1 = 1"; 450].join(operator));
        assert_eq!(rows(&mut store, &sql), [vec![json!(true)]]);
    }
    assert_eq!(rows(&mut store, &format!("SELECT {}", vec!["1"; 900].join(" + "))), [vec![json!(900)]]);
    assert_eq!(rows(&mut store, &format!("SELECT length({})", vec!["'a'"; 400].join(" || "))), [vec![json!(400)]]);
    // Tests have a stack of 2 MiB, as the threads of a server have: running out of it would end the process.
    let deep = [
        format!("SELECT {}", vec!["1"; 100_000].join(" + ")),
        format!("SELECT {}", vec!["1"; 1_990].join(" + ")),
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1", "NOT ".repeat(1_900)),
        format!("SELECT {}1", "- ".repeat(1_900)),
        format!("SELECT 1{}", "::int".repeat(900)),
        format!("SELECT true{}", " IS NULL".repeat(900)),
        format!("SELECT {}", vec!["(SELECT 1"; 200].join(" + ")),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(900)),
        format!("SELECT * FROM {}", vec!["event"; 500].join(" NATURAL JOIN ")),
        format!("SELECT {}1{}", "abs(".repeat(300), ")".repeat(300)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(300), " END".repeat(300)),
        format!("SELECT a{}", "[1]".repeat(900)),
        format!("SELECT {}1{}", "ARRAY[".repeat(300), "]".repeat(300)),
        format!("SELECT ({}) AND ({})", vec!["true"; 900].join(" AND "), vec!["true"; 900].join(" AND ")),
    ];
    for sql in deep {
        let start: String = sql.chars().take(60).collect();
        assert!(query(&mut store, &sql).is_err(), "{start}");
    }
    let long = format!("SELECT '{}'", "x".repeat(QUERY_BYTES));
    assert!(matches!(query(&mut store, &long), Err(QueryError::TooLarge(_))));
}

/// Words that queries are made of, to be thrown together.
const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "event",
    "execution",
    "noetl",
    ".",
    ",",
    "(",
    ")",
    "*",
    "1",
    "0",
    "-1",
    "2.5",
    "'a'",
    "'1 day'",
    "'2026-01-20'",
    "'{a,b}'",
    "'{\"a\": 1}'",
    "status",
    "context",
    "created_at",
    "active",
    "version",
    "e",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "ILIKE",
    "~",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "=",
    "<>",
    "<",
    "+",
    "-",
    "/",
    "||",
    "->",
    "->>",
    "#>>",
    "@>",
    "?",
    "::",
    "int",
    "text",
    "jsonb",
    "timestamp",
    "interval",
    "date",
    "[",
    "]",
    "ARRAY",
    "ANY",
    "ALL",
    "EXISTS",
    "count",
    "sum",
    "max",
    "array_agg",
    "string_agg",
    "now",
    "coalesce",
    "row_number",
    "OVER",
    "PARTITION",
    "BY",
    "ORDER",
    "GROUP",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "DISTINCT",
    "ON",
    "JOIN",
    "LEFT",
    "USING",
    "UNION",
    "WITH",
    "RECURSIVE",
    "t",
    "VALUES",
    "FILTER",
    "EXTRACT",
    "EPOCH",
    "date_trunc",
    "'hour'",
    "generate_series",
    "unnest",
    "jsonb_array_elements",
    "LATERAL",
    "INTERVAL",
    "DESC",
    "NULLS",
    "LAST",
    "true",
    "\"x\"",
    "$1",
    ";",
    "--",
    "/*",
    "é",
    "\0",
];

/// What stands where a number, a text or a piece of syntax was.
const EXTREMES: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999",
    "0",
    "-1",
    "1e308",
    "-1e-308",
    "NULL",
    "''",
    "'infinity'",
    "'{'",
    "'[1, {\"a\": null}]'",
    "'294276-12-31'",
    "'(((((((((('",
    "interval '999999999 years'",
    "::text",
    "::int",
    "::jsonb",
    "::timestamptz",
    "->>",
    "->",
    "~",
    "LIKE",
    "||",
    "+",
    "%",
    "/",
    "(",
    ")",
    ",",
    "*",
    "repeat('x', 2147483647)",
    "generate_series(1, 9223372036854775807)",
];
/// Longest time that a query with a limit of 200 ms may take, on a machine that is busy.
const DAMAGED_MAX: Duration = Duration::from_secs(20);

/// Returns how many cases are looked at; `NOETL_TEST_LONG=1` (`./test --long`) looks at many.
fn cases_to_try() -> ProptestConfig {
    let long = std::env::var_os("NOETL_TEST_LONG").is_some();
    ProptestConfig { cases: if long { 20_000 } else { 400 }, ..ProptestConfig::default() }
}

/// Puts words in the place of others.
fn damaged(sql: &str, blows: &[(prop::sample::Index, &str)]) -> String {
    let mut words: Vec<&str> = sql.split_inclusive([' ', '(', ')', ',']).collect();
    for (place, word) in blows {
        let place = place.index(words.len());
        words[place] = word;
        words.insert(place + 1, " ");
    }
    words.concat()
}

proptest! {
    #![proptest_config(cases_to_try())]

    #[test]
    fn no_damaged_query_panics_or_goes_on(
        case in any::<prop::sample::Index>(),
        blows in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(EXTREMES)), 1..5),
    ) {
        let all = cases(include_str!("answered.sql"));
        let sql = damaged(&all[case.index(all.len())].0, &blows);
        let mut store = store();
        let limits = QueryLimits { timeout: Duration::from_millis(200), ..QueryLimits::default() };
        let began = Instant::now();
        let answer = run(&mut store, &sql, now(), &limits);
        prop_assert!(began.elapsed() < DAMAGED_MAX, "{sql}: {:?}", began.elapsed());
        if let Err(QueryError::Store(error)) = answer {
            panic!("{sql}: {error}");
        }
    }

    #[test]
    fn no_text_makes_the_translation_panic(text in "\\PC{0,200}") {
        let store = store();
        let schema = Schema::read(&store).unwrap();
        translate(&text, &schema).ok();
        translate(&format!("SELECT {text}"), &schema).ok();
    }

    #[test]
    fn no_heap_of_words_makes_a_query_panic_or_sqlite_fail(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let mut store = store();
        let sql = format!("SELECT {}", words.join(" "));
        let limits = QueryLimits { timeout: Duration::from_millis(200), ..QueryLimits::default() };
        let answer = run(&mut store, &sql, now(), &limits);
        // What the translation lets through, SQLite must be able to prepare.
        if let Err(QueryError::Store(error)) = answer {
            panic!("{sql}: {error}");
        }
        store.execute("UPDATE noetl.event SET error = NULL", []).unwrap();
    }
}
