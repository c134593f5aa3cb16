//! What only the store in a file promises: what happens to the file.

#![expect(clippy::unwrap_used, reason = "a suite of tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use noetl_core::append::{Append, Verdict};
use noetl_core::id::ExecutionId;
use noetl_core::time::Timestamp;
use noetl_store::conformance::{ManualClock, Script};
use noetl_store::sqlite::{Fault, FaultPoint, SCHEMA_LATEST, SqliteOptions, SqliteStore};
use noetl_store::{EventQuery, ListQuery, LockedView, Pick, SqlLimits, Store, StoreError};
use rusqlite::Connection;
use serde_json::{Value, json};

const START: Timestamp = Timestamp(1_768_900_080_123);

struct Place {
    folder: tempfile::TempDir,
    clock: ManualClock,
    script: Script,
}

impl Place {
    fn new() -> Self {
        let clock = ManualClock::new(START);
        Place { folder: tempfile::tempdir().unwrap(), script: Script::new(&clock), clock }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("noetl.db")
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions { clock: self.clock.clock(), ..SqliteOptions::new(self.path()) }
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.options()).unwrap()
    }
}

async fn write(store: &SqliteStore, append: Append) -> Result<Verdict, StoreError> {
    store.append(vec![append]).await.remove(0)
}

async fn land(store: &SqliteStore, append: Append) -> ExecutionId {
    let id = append.execution_id;
    let verdict = write(store, append).await;
    assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
    id
}

/// A birth whose first event takes about `bytes`.
fn heavy(script: &Script, bytes: usize) -> Append {
    let mut birth = script.birth(None);
    if let noetl_core::event::Event::PlaybookInitialized(first) = &mut birth.events[0].event {
        first.workload = Arc::new(json!({"text": "x".repeat(bytes)}));
    }
    birth
}

async fn rows(store: &SqliteStore, sql: &str) -> Vec<Vec<Value>> {
    let answer = store.sql(sql, SqlLimits { rows: 1_000, ms: 10_000 }).await;
    answer.unwrap_or_else(|error| panic!("{sql}: {error}")).rows
}

#[tokio::test]
async fn a_full_store_refuses_writes_reads_on_and_recovers_when_there_is_room() {
    let place = Place::new();
    let store = SqliteStore::open(SqliteOptions { max_bytes: Some(1 << 20), ..place.options() }).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let birth = heavy(&place.script, 40_000);
        let id = birth.execution_id;
        match write(&store, birth).await {
            Ok(_) => kept.push(id),
            Err(error) => break (id, error),
        }
    };
    assert!(matches!(refused.1, StoreError::Full(_)), "{:?}", refused.1);
    assert!(kept.len() > 10);
    assert_eq!(store.head(refused.0).await.unwrap(), None);
    // Each on its own: what is small may still find room, and what is too large takes nobody with it.
    let verdicts = store.append(vec![heavy(&place.script, 400_000), place.script.enter(kept[0], 1)]).await;
    assert!(matches!(verdicts[0], Err(StoreError::Full(_))), "{verdicts:?}");
    for id in &kept {
        assert!(store.load(*id).await.unwrap().is_some());
    }
    assert!(store.validate().await.unwrap().is_empty());
    for id in &kept {
        // The end of an execution takes little room, but there may be none at all: make some first.
        let head = store.head(*id).await.unwrap().unwrap();
        if write(&store, place.script.complete(&head)).await.is_err() {
            break;
        }
    }
    place.clock.advance_ms(1);
    let pruned = store.prune(place.clock.now(), false).await.unwrap();
    assert!(pruned > 0, "at least one execution could end");
    land(&store, heavy(&place.script, 20_000)).await;
    assert!(store.validate().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let place = Place::new();
    let bytes = b"these are not the bytes of a database, and long enough to be read as a header of 100 bytes, indeed"
        .repeat(10);
    std::fs::write(place.path(), &bytes).unwrap();
    assert!(matches!(SqliteStore::open(place.options()), Err(StoreError::Corrupt(_))));
    assert!(matches!(SqliteStore::open_read_only(place.path()), Err(StoreError::Corrupt(_))));
    assert_eq!(std::fs::read(place.path()).unwrap(), bytes);
}

#[tokio::test]
async fn damaged_pages_are_found_and_reported_not_overwritten() {
    let place = Place::new();
    let store = place.open();
    let births: Vec<_> = (0..200).map(|_| heavy(&place.script, 2_000)).collect();
    let ids: Vec<_> = births.iter().map(|append| append.execution_id).collect();
    assert!(store.append(births).await.iter().all(Result::is_ok));
    store.close().await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(place.path()).unwrap();
    // Everything behind the schema and the first leaves.
    for byte in bytes.iter_mut().skip(4_096 * 60).take(4_096 * 40) {
        *byte = 0x5a;
    }
    std::fs::write(place.path(), &bytes).unwrap();
    let store = place.open();
    let mut damaged = 0;
    for id in ids {
        match store.load(id).await {
            Ok(_) => {}
            Err(StoreError::Corrupt(_)) => damaged += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(damaged > 0);
    let findings = store.validate().await;
    assert!(matches!(&findings, Ok(findings) if !findings.is_empty()) || findings.is_err(), "{findings:?}");
    drop(store);
    let after = std::fs::read(place.path()).unwrap();
    assert!(after[4_096 * 60..4_096 * 100] == bytes[4_096 * 60..4_096 * 100], "the evidence is still there");
}

fn plain(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

#[tokio::test]
async fn a_file_of_a_newer_noetl_is_refused_untouched() {
    let place = Place::new();
    place.open().close().await.unwrap();
    let newer = SCHEMA_LATEST + 1;
    plain(&place.path())
        .execute("INSERT INTO schema_version VALUES (?1, 'future', 'x', '2030-01-01T00:00:00.000Z')", [newer])
        .unwrap();
    let before = std::fs::read(place.path()).unwrap();
    for refused in [SqliteStore::open(place.options()), SqliteStore::open_read_only(place.path())] {
        let Err(StoreError::Closed(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("newer noetl"), "{why}");
    }
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_untouched() {
    let place = Place::new();
    plain(&place.path()).execute_batch("CREATE TABLE event (mine TEXT); INSERT INTO event VALUES ('!')").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    let Err(StoreError::Closed(why)) = SqliteStore::open(place.options()) else { panic!() };
    assert!(why.contains("another program"), "{why}");
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[tokio::test]
async fn a_schema_that_went_through_other_steps_is_refused() {
    let place = Place::new();
    place.open().close().await.unwrap();
    plain(&place.path()).execute("UPDATE schema_version SET checksum = 'edited' WHERE version = 1", []).unwrap();
    let Err(StoreError::Closed(why)) = SqliteStore::open(place.options()) else { panic!() };
    assert!(why.contains("step 1 (`tables`)"), "{why}");
}

#[tokio::test]
async fn a_reader_needs_no_owner_and_changes_nothing() {
    let place = Place::new();
    assert!(matches!(SqliteStore::open_read_only(place.path()), Err(StoreError::Closed(_))));
    assert!(!place.path().exists(), "asking for a store does not make one");
    let owner = place.open();
    let id = land(&owner, place.script.birth(None)).await;
    let beside = SqliteStore::open_read_only(place.path()).unwrap();
    assert_eq!(beside.head(id).await.unwrap(), owner.head(id).await.unwrap());
    land(&owner, place.script.enter(id, 1)).await;
    assert_eq!(beside.head(id).await.unwrap().map(|head| head.version), Some(2));
    drop(beside);
    owner.close().await.unwrap();
    drop(owner);
    let alone = SqliteStore::open_read_only(place.path()).unwrap();
    assert_eq!(alone.head(id).await.unwrap().map(|head| head.version), Some(2));
    assert!(matches!(write(&alone, place.script.enter(id, 2)).await, Err(StoreError::Closed(_))));
    assert!(matches!(alone.locked(id, None, Box::new(|_| None)).await, Err(StoreError::Closed(_))));
    assert!(matches!(alone.keep_answer("k", json!(1)).await, Err(StoreError::Closed(_))));
    assert!(matches!(alone.prune(START, false).await, Err(StoreError::Closed(_))));
    assert!(alone.validate().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_writing_is_whole() {
    let place = Place::new();
    let store = Arc::new(place.open());
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, script, stop) = (Arc::clone(&store), place.script.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let id = land(&store, heavy(&script, 3_000)).await;
                land(&store, script.enter(id, 1)).await;
            }
        })
    };
    let wait_for = |rows: u64| {
        let store = Arc::clone(&store);
        async move {
            while store.events(EventQuery::default()).await.unwrap().1 < rows {
                tokio::task::yield_now().await;
            }
        }
    };
    wait_for(50).await;
    let copy = place.folder.path().join("copy.db");
    store.backup(&copy).await.unwrap();
    let again = store.backup(&copy).await;
    assert!(matches!(again, Err(StoreError::Closed(_))), "a copy is never overwritten: {again:?}");
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    let copied = SqliteStore::open(SqliteOptions::new(&copy)).unwrap();
    assert!(copied.validate().await.unwrap().is_empty());
    let heads = copied.executions(ListQuery { limit: 100_000, ..ListQuery::default() }).await.unwrap();
    assert!(heads.len() >= 25);
    let names: Vec<_> =
        std::fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("partial")), "{names:?}");
}

#[tokio::test]
async fn when_a_group_cannot_be_committed_each_append_is_tried_alone() {
    let place = Place::new();
    let poison = Arc::new(std::sync::Mutex::new(None::<ExecutionId>));
    let (poisoned, commits) = (Arc::clone(&poison), Arc::new(AtomicUsize::new(0)));
    let (inside, counted) = (AtomicBool::new(false), Arc::clone(&commits));
    // A commit that holds the poisoned append fails, as on a disk with a bad spot.
    let fault = Fault::new(move |point| match point {
        FaultPoint::Begin => {
            inside.store(false, Ordering::SeqCst);
            None
        }
        FaultPoint::Append(id) => {
            inside.fetch_or(*poisoned.lock().unwrap() == Some(id), Ordering::SeqCst);
            None
        }
        FaultPoint::Commit => {
            counted.fetch_add(1, Ordering::SeqCst);
            inside.load(Ordering::SeqCst).then(|| StoreError::Unavailable("a bad spot".into()))
        }
        FaultPoint::Answer => None,
    });
    let store = SqliteStore::open(SqliteOptions { fault, ..place.options() }).unwrap();
    let births: Vec<_> = (0..10).map(|_| place.script.birth(None)).collect();
    let ids: Vec<_> = births.iter().map(|append| append.execution_id).collect();
    *poison.lock().unwrap() = Some(ids[4]);
    let verdicts = store.append(births).await;
    assert_eq!(commits.load(Ordering::SeqCst), 1 + 10);
    for (n, (id, verdict)) in ids.iter().zip(verdicts).enumerate() {
        let head = store.head(*id).await.unwrap();
        if n == 4 {
            assert_eq!(verdict, Err(StoreError::Unavailable("a bad spot".into())));
            assert_eq!(head, None);
        } else {
            assert_eq!((verdict, head.is_some()), (Ok(Verdict::Landed { version: 1 }), true));
        }
    }
    // What it had in mind of the group is forgotten: decisions land on what stands in the file.
    land(&store, place.script.enter(ids[3], 1)).await;
    *poison.lock().unwrap() = None;
    assert_eq!(write(&store, place.script.enter(ids[4], 1)).await.unwrap(), unknown());
}

fn unknown() -> Verdict {
    Verdict::Refused(noetl_core::append::RefusedBy::Unknown)
}

#[tokio::test]
async fn a_task_in_a_group_that_fails_is_told_so_and_the_next_one_works() {
    let place = Place::new();
    let fail = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fail);
    let fault = Fault::new(move |point| {
        let strikes = point == FaultPoint::Commit && failing.swap(false, Ordering::SeqCst);
        strikes.then(|| StoreError::Full("no room".into()))
    });
    let store = SqliteStore::open(SqliteOptions { fault, ..place.options() }).unwrap();
    let id = land(&store, place.script.birth(None)).await;
    for (script, expected) in
        [(place.script.clone(), Err(StoreError::Full("no room".into()))), (place.script.clone(), Ok(()))]
    {
        fail.store(expected.is_err(), Ordering::SeqCst);
        let cancelled = store.locked(id, None, Box::new(move |locked| script.cancel(locked))).await;
        assert_eq!(cancelled.map(|_| ()), expected);
        let head = store.head(id).await.unwrap().unwrap();
        assert_eq!(head.is_active(), expected.is_err());
    }
}

/// A step of a walk is no part of a group: whoever comes while one is taken waits for that one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_a_walk_takes_turns_with_everything_else() {
    let place = Place::new();
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(Some(opened));
    let shut = Arc::new(AtomicBool::new(false));
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, closed) = (Arc::clone(&log), Arc::clone(&shut));
    let fault = Fault::new(move |point| {
        if point == FaultPoint::Begin && closed.swap(false, Ordering::SeqCst) {
            // Until everything stands in line.
            opened.lock().unwrap().take().unwrap().recv().unwrap();
        }
        match point {
            FaultPoint::Append(_) => noted.lock().unwrap().push("append"),
            FaultPoint::Commit => noted.lock().unwrap().push("commit"),
            FaultPoint::Begin | FaultPoint::Answer => {}
        }
        None
    });
    let store = SqliteStore::open(SqliteOptions { fault, ..place.options() }).unwrap();
    let (one, two) = (land(&store, place.script.birth(None)).await, land(&store, place.script.birth(None)).await);
    let mut walks = Vec::new();
    for root in [one, two] {
        let walk = place.script.cancellation(root);
        walks.push(walk.cancellation_id);
        store.open_cancellation(walk).await.unwrap();
    }
    log.lock().unwrap().clear();
    shut.store(true, Ordering::SeqCst);
    let step = |id| {
        let (script, noted) = (place.script.clone(), Arc::clone(&log));
        let decide = Box::new(move |locked: &LockedView, through| {
            noted.lock().unwrap().push("step");
            script.cancel_open(locked, through)
        });
        store.cancel_chunk(id, Pick::Front(500), decide)
    };
    // Polled in this order, so that is how they stand in line: the first one holds up the writer.
    let everything = async {
        tokio::join!(
            biased;
            write(&store, place.script.birth(None)),
            step(walks[0]),
            write(&store, place.script.birth(None)),
            step(walks[1]),
            write(&store, place.script.birth(None)),
            async { gate.send(()).unwrap() },
        )
    };
    let (first, a, second, b, third, ()) = everything.await;
    for verdict in [first, second, third] {
        assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
    }
    assert!(a.unwrap().done && b.unwrap().done);
    let log = log.lock().unwrap().clone();
    // However many came in time for the first group: no step stands beside an append, and they alternate.
    let groups: Vec<_> = log.split(|what| *what == "commit").filter(|group| !group.is_empty()).collect();
    assert!(groups.iter().all(|group| group.iter().all(|what| what == &group[0])), "{log:?}");
    assert_eq!(groups.iter().filter(|group| group[0] == "step").count(), 2, "{log:?}");
    assert_eq!(groups[0][0], "append", "{log:?}");
}

/// Not a test: the process that [`a_killed_process_loses_nothing_that_it_acknowledged`] kills.
#[tokio::test]
#[ignore = "run by another test as a process of its own"]
async fn write_until_killed() {
    let Ok(path) = std::env::var("NOETL_TEST_FILE") else { return };
    let store = SqliteStore::open(SqliteOptions::new(path)).unwrap();
    let clock = ManualClock::new(START);
    let script = Script::new(&clock);
    loop {
        let births: Vec<_> = (0..3).map(|_| script.birth(None)).collect();
        let ids: Vec<_> = births.iter().map(|append| append.execution_id).collect();
        assert!(store.append(births).await.iter().all(Result::is_ok));
        for id in ids {
            println!("acknowledged {id}");
        }
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let place = Place::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
        .env("NOETL_TEST_FILE", place.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        if let Some(id) = line.unwrap().strip_prefix("acknowledged ") {
            acknowledged.push(id.parse::<ExecutionId>().unwrap());
        }
        if acknowledged.len() == 300 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= 300);
    let store = place.open();
    for id in acknowledged {
        assert_eq!(store.head(id).await.unwrap().map(|head| head.version), Some(1), "{id}");
    }
    assert!(store.validate().await.unwrap().is_empty());
}

#[tokio::test]
async fn people_query_the_tables_as_in_postgresql() {
    let place = Place::new();
    let store = place.open();
    let script = &place.script;
    let root = land(&store, script.birth(None)).await;
    let child = land(&store, script.birth(store.head(root).await.unwrap().as_ref())).await;
    let grandchild = land(&store, script.birth(store.head(child).await.unwrap().as_ref())).await;
    let canceller = script.clone();
    store.locked(root, None, Box::new(move |locked| canceller.cancel(locked))).await.unwrap();
    place.clock.advance_ms(11 * 60_000);
    let fresh = land(&store, script.birth(None)).await;
    let ids = |rows: Vec<Vec<Value>>| rows.into_iter().map(|row| row[0].as_i64().unwrap()).collect::<Vec<_>>();
    // The founding document's three queries, to the letter.
    let stale = "SELECT DISTINCT execution_id
             FROM noetl.event
             WHERE status IN ('RUNNING', 'INITIALIZED')
               AND created_at < NOW() - INTERVAL '10 minutes'
             ORDER BY execution_id DESC";
    assert_eq!(ids(rows(&store, stale).await), [grandchild.0, child.0, root.0]);
    let family = format!(
        "WITH RECURSIVE children AS (
     SELECT execution_id FROM noetl.event WHERE execution_id = {root}
     UNION ALL
     SELECT e.execution_id
     FROM noetl.event e
     JOIN children c ON e.parent_execution_id = c.execution_id
   )
   SELECT DISTINCT execution_id FROM children"
    );
    let mut found = ids(rows(&store, &family).await);
    found.sort_unstable();
    assert_eq!(found, [root.0, child.0, grandchild.0]);
    let reasons = "SELECT execution_id, created_at, context->>'reason' as reason
             FROM noetl.event
             WHERE event_type = 'execution.cancelled'
             ORDER BY created_at DESC
             LIMIT 10";
    assert_eq!(rows(&store, reasons).await, [vec![json!(root.0), json!(START.to_iso()), json!("enough")]]);
    // Columns that are computed, and truth values.
    let heads = "SELECT execution_id, active, reason, cancelled_by, error FROM noetl.execution WHERE NOT active";
    assert_eq!(
        rows(&store, heads).await,
        [vec![json!(root.0), json!(false), json!("enough"), json!("api"), Value::Null]]
    );
    assert_eq!(rows(&store, "SELECT count(*) FROM noetl.event WHERE node_id = 'cancel'").await, [vec![json!(2)]]);
    assert_ne!(fresh, root);
    for table in [
        "event",
        "execution",
        "command",
        "due",
        "cancellation",
        "cancellation_front",
        "snapshot",
        "catalog",
        "credential",
        "keychain",
        "runtime",
        "schedule",
        "result",
    ] {
        rows(&store, &format!("SELECT * FROM noetl.{table}")).await;
    }
    for wrong in ["DELETE FROM noetl.event", "SELECT * FROM noetl.schema_version", "SELECT nonsense FROM noetl.event"] {
        let answer = store.sql(wrong, SqlLimits { rows: 1, ms: 1_000 }).await;
        assert!(matches!(answer, Err(StoreError::Query(_))), "{wrong}: {answer:?}");
    }
    let cut = store.sql("SELECT * FROM noetl.event", SqlLimits { rows: 2, ms: 1_000 }).await.unwrap();
    assert_eq!((cut.rows.len(), cut.truncated), (2, true));
    let forever = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let answer = store.sql(forever, SqlLimits { rows: 1, ms: 50 }).await;
    assert!(matches!(answer, Err(StoreError::Query(_))), "{answer:?}");
    // The wall comes down again behind each query.
    assert!(store.validate().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_query_does_not_hold_up_the_end() {
    let place = Place::new();
    let store = Arc::new(place.open());
    let asking = {
        let store = Arc::clone(&store);
        let forever = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        tokio::spawn(async move { store.sql(forever, SqlLimits { rows: 1, ms: 600_000 }).await })
    };
    // One reader is taken by it; ordinary questions and writes go on beside it.
    let id = land(&store, place.script.birth(None)).await;
    assert!(store.head(id).await.unwrap().is_some());
    store.close().await.unwrap();
    assert!(asking.await.unwrap().is_err());
}
