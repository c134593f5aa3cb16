//! The tables: their shape, the partitions of the log, and people's SQL on them.

use std::sync::Arc;

use noetl_core::append::{Append, Verdict};
use noetl_core::event::Event;
use noetl_core::id::{EPOCH_MS, ExecutionId, IdSource};
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use noetl_store::conformance::{ManualClock, Script};
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::{EventQuery, SqlLimits, Store, StoreError};
use noetl_testkit::{Database, TestCluster};
use serde_json::{Value, json};

use super::{START, address, open};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const LIMITS: SqlLimits = SqlLimits { rows: 100, ms: 5_000 };

async fn refused(cluster: &TestCluster, database: &str) -> String {
    match Postgres::open(PostgresOptions::new(address(cluster, database))).await {
        Err(StoreError::Closed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_database_that_is_not_ours_to_change_stays_as_it_is() {
    let Some(cluster) = TestCluster::start(&["newer", "edited", "foreign"]).await.unwrap() else { return };
    for (name, change) in [
        ("newer", "INSERT INTO noetl.schema_version VALUES (99, 'future', 'x', now())"),
        ("edited", "UPDATE noetl.schema_version SET checksum = 'x'"),
    ] {
        open(&address(&cluster, name), &ManualClock::new(START)).await.close().await.unwrap();
        let database = Database::connect(&cluster.address(name)).await.unwrap();
        database.execute(change).await.unwrap();
        let shape = "SELECT string_agg(c.relname, ',' ORDER BY c.oid) FROM pg_class c \
                     WHERE c.relnamespace = 'noetl'::regnamespace";
        let before = database.first_value(shape).await.unwrap();
        let why = refused(&cluster, name).await;
        assert!(why.contains("newer noetl (schema 99") || why.contains("step 1 (`tables`)"), "{why}");
        assert_eq!(database.first_value(shape).await.unwrap(), before);
    }
    let database = Database::connect(&cluster.address("foreign")).await.unwrap();
    database.execute("CREATE SCHEMA noetl; CREATE TABLE noetl.event (id bigint)").await.unwrap();
    let why = refused(&cluster, "foreign").await;
    assert!(why.contains("belongs to another program"), "{why}");
    // And nobody is told the password.
    let nowhere = cluster.address("nowhere").url().parse().unwrap();
    let Err(StoreError::Closed(why)) = Postgres::open(PostgresOptions::new(nowhere)).await else { panic!() };
    assert!(why.contains("nowhere") && !why.contains("p-4"), "{why}");
}

/// An execution that started at a time, complete.
fn life(script: &Script, ids: &mut IdSource, at: Timestamp, complete: bool) -> (ExecutionId, Vec<Append>) {
    let id = ExecutionId(ids.next(at));
    let mut birth = script.birth(None);
    birth.execution_id = id;
    let noetl_core::append::Guard::New(head) = &mut birth.guard else { panic!() };
    (head.execution_id, head.root_execution_id) = (id, id);
    let mut head = (**head).clone();
    head.land(&birth);
    let mut appends = vec![birth];
    if complete {
        appends.push(script.complete(&head));
    }
    (id, appends)
}

async fn write(store: &Postgres, lives: Vec<(ExecutionId, Vec<Append>)>) -> Vec<ExecutionId> {
    let mut born = Vec::new();
    for (id, appends) in lives {
        for verdict in store.append(appends).await {
            assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
        }
        born.push(id);
    }
    born
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_which_nothing_is_left_is_dropped_whole() {
    let Some(cluster) = TestCluster::start(&["months"]).await.unwrap() else { return };
    let clock = ManualClock::new(START);
    let store = open(&address(&cluster, "months"), &clock).await;
    let second = open(&address(&cluster, "months"), &clock).await;
    let database = Database::connect(&cluster.address("months")).await.unwrap();
    let partitions = async || {
        let query = "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_inherits i \
                     JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'noetl.event'::regclass";
        database.first_value(query).await.unwrap().unwrap().as_str().unwrap().to_owned()
    };
    // The present month and two more are there before anything happens.
    assert_eq!(partitions().await, "event_2026_01 event_2026_02 event_2026_03");
    let script = Script::new(&clock);
    let mut ids = IdSource::new(1);
    let (january, march) = (Timestamp(EPOCH_MS + 3 * DAY_MS), Timestamp(EPOCH_MS + 65 * DAY_MS));
    let gone = write(&store, (0..300).map(|_| life(&script, &mut ids, january, true)).collect()).await;
    write(&second, vec![life(&script, &mut ids, january, true)]).await;
    let stays = write(&store, vec![life(&script, &mut ids, march, false)]).await[0];
    let goes = write(&store, vec![life(&script, &mut ids, march, true)]).await[0];
    assert_eq!(partitions().await, "event_2024_01 event_2024_03 event_2026_01 event_2026_02 event_2026_03");
    clock.advance_ms(1);
    assert_eq!(store.prune(clock.now(), true).await.unwrap(), 302);
    assert_eq!(store.prune(clock.now(), false).await.unwrap(), 302);
    // January as a whole; of March, in which something still runs, the row.
    assert_eq!(partitions().await, "event_2024_03 event_2026_01 event_2026_02 event_2026_03");
    assert_eq!(store.head(gone[0]).await.unwrap(), None);
    for (id, events) in [(goes, 0), (stays, 1)] {
        let query = EventQuery { execution_id: Some(id), limit: 9, ..EventQuery::default() };
        assert_eq!(store.events(query).await.unwrap().1, events);
    }
    assert_eq!(store.validate().await.unwrap(), Vec::<String>::new());
    // Both servers knew the partition, and one of them has not heard that it is gone.
    write(&second, vec![life(&script, &mut IdSource::new(2), january, false)]).await;
    assert!(partitions().await.starts_with("event_2024_01 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_read_the_tables_with_the_sql_they_know() {
    let Some(cluster) = TestCluster::start(&["sql"]).await.unwrap() else { return };
    let clock = ManualClock::new(START);
    let store = open(&address(&cluster, "sql"), &clock).await;
    let script = Script::new(&clock);
    let root = script.birth(None);
    let id = root.execution_id;
    store.append(vec![root]).await.remove(0).unwrap();
    let child = script.birth(Some(&store.head(id).await.unwrap().unwrap()));
    let child_id = child.execution_id;
    store.append(vec![child]).await.remove(0).unwrap();
    let canceller = script.clone();
    store.locked(child_id, None, Box::new(move |locked| canceller.cancel(locked))).await.unwrap();
    let ask = async |sql: &str| store.sql(sql, LIMITS).await.unwrap();

    let family = format!(
        "WITH RECURSIVE children AS (
     SELECT execution_id FROM noetl.event WHERE execution_id = {id}
     UNION ALL
     SELECT e.execution_id
     FROM noetl.event e
     JOIN children c ON e.parent_execution_id = c.execution_id
   )
   SELECT DISTINCT execution_id FROM children;"
    );
    let rows = ask(&family).await;
    assert_eq!((rows.columns, rows.rows.len()), (vec!["execution_id".to_owned()], 2));
    let stale = ask("SELECT DISTINCT execution_id
             FROM noetl.event
             WHERE status IN ('RUNNING', 'INITIALIZED')
               AND created_at < NOW() - INTERVAL '10 minutes'
             ORDER BY execution_id DESC")
    .await;
    assert_eq!(stale.rows, [[json!(child_id.0)], [json!(id.0)]]);
    let cancelled = ask("SELECT execution_id, created_at, context->>'reason' as reason
             FROM noetl.event
             WHERE event_type = 'execution.cancelled'
             ORDER BY created_at DESC
             LIMIT 10")
    .await;
    assert_eq!(cancelled.rows, [[json!(child_id.0), json!(START.to_iso()), json!("enough")]]);
    // Documents and arrays as what they are; a table without its schema.
    let rows = ask("SELECT context, ARRAY[1, 2], active FROM event JOIN execution USING (execution_id) LIMIT 1").await;
    assert!(rows.rows[0][0].is_object() && rows.rows[0][1] == json!([1, 2]) && rows.rows[0][2].is_boolean());

    for (sql, why) in [
        ("DELETE FROM noetl.event", "only queries"),
        ("WITH x AS (DELETE FROM noetl.event RETURNING 1) SELECT * FROM x", "read-only"),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELECT nothing\nFROM noetl.event", "line 1, column 8"),
        ("SELECT data_encrypted FROM noetl.credential", "permission denied"),
        ("SELECT set_config('role', 'none', true)", "set_config"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()", "superuser"),
        ("SELECT rolpassword FROM pg_authid", "permission denied"),
        ("SELECT pg_read_file('/etc/passwd')", "permission denied"),
    ] {
        match store.sql(sql, LIMITS).await {
            Err(StoreError::Query(said)) => assert!(said.contains(why), "{sql}: {said}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert!(ask("SELECT name FROM noetl.credential").await.rows.is_empty());
    let slow = store.sql("SELECT pg_sleep(30)", SqlLimits { rows: 1, ms: 50 }).await;
    assert_eq!(slow.unwrap_err(), StoreError::Query("the query took longer than 50 ms".into()));
    let many =
        store.sql("SELECT * FROM generate_series(1, 1000000) n", SqlLimits { rows: 3, ms: 5_000 }).await.unwrap();
    assert_eq!((many.rows, many.truncated), (vec![vec![json!(1)], vec![json!(2)], vec![json!(3)]], true));
    // The sessions that were broken off are replaced.
    assert_eq!(ask("SELECT 1").await.rows, [[json!(1)]]);
}

/// `jsonb` sorts keys and forgets how a number was written; the language sees both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_come_back_as_they_were_written() {
    let Some(cluster) = TestCluster::start(&["documents"]).await.unwrap() else { return };
    let clock = ManualClock::new(START);
    let store: Arc<Postgres> = open(&address(&cluster, "documents"), &clock).await;
    let script = Script::new(&clock);
    let birth = script.birth(None);
    let id = birth.execution_id;
    let odd: Value = serde_json::from_str(
        r#"{"zeta": 1, "a": {"b\"": 1e16, "a": [{"y": 1, "x": 1.0}]}, "": 1e300, "ä": -1.5e-7, "B": null}"#,
    )
    .unwrap();
    let mut append = script.enter(id, 1);
    append.events = vec![script.event(Event::LoopDone {
        step: "each".into(),
        visit: 1,
        total: 1,
        failed: 0,
        left_out: 0,
        result: Bound::inline(odd.clone()),
    })];
    let landed = store.append(vec![birth, append]).await;
    assert!(landed.iter().all(Result::is_ok), "{landed:?}");
    let query = EventQuery { execution_id: Some(id), after_version: Some(1), limit: 9, ..EventQuery::default() };
    let (events, _) = store.events(query).await.unwrap();
    let Event::LoopDone { result: Bound::Inline(data), .. } = &events[0].event else { panic!("{events:?}") };
    // As texts: equality of objects does not look at the order.
    assert_eq!(data.to_string(), odd.to_string());
}
