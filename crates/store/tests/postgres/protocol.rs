//! What the protocol says, where only PostgreSQL can show it: locks, lost answers, a database that dies.

use std::sync::Arc;
use std::time::Duration;

use noetl_core::append::{Append, Guard, RefusedBy, Verdict};
use noetl_core::head::{CommandState, Status};
use noetl_core::id::{EventId, ExecutionId, IdSource, SessionId};
use noetl_core::time::Timestamp;
use noetl_store::conformance::{ManualClock, Script};
use noetl_store::postgres::Postgres;
use noetl_store::{EventQuery, Store, StoreError};
use noetl_testkit::{Database, TestCluster};
use serde_json::json;

use super::proxy::{Cut, Proxy};
use super::{START, address, database, open};

/// A store, its clock, and somebody else in the same database.
struct Place {
    cluster: TestCluster,
    store: Arc<Postgres>,
    script: Script,
    other: Database,
}

impl Place {
    async fn new() -> Option<Place> {
        let cluster = TestCluster::start(&["place"]).await.unwrap()?;
        let clock = ManualClock::new(START);
        let store = open(&address(&cluster, "place"), &clock).await;
        let other = Database::connect(&cluster.address("place")).await.unwrap();
        Some(Place { cluster, store, script: Script::new(&clock), other })
    }

    async fn start(&self) -> ExecutionId {
        let birth = self.script.birth(None);
        let id = birth.execution_id;
        assert_eq!(self.store.append(vec![birth]).await, [Ok(Verdict::Landed { version: 1 })]);
        id
    }

    /// Holds a head in the other session.
    async fn hold(&self, id: ExecutionId) {
        let lock = "SELECT 1 FROM noetl.execution WHERE execution_id =";
        self.other.execute(&format!("BEGIN; {lock} {id} FOR NO KEY UPDATE")).await.unwrap();
    }

    /// Waits until somebody waits for a lock.
    async fn until_blocked(&self) {
        let watcher = Database::connect(&self.cluster.address("place")).await.unwrap();
        while watcher.first_value("SELECT count(*) FROM pg_locks WHERE NOT granted").await.unwrap() == Some(json!(0)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn log_of(store: &Postgres, id: ExecutionId) -> usize {
    let query = EventQuery { execution_id: Some(id), limit: 100, ..EventQuery::default() };
    store.events(query).await.unwrap().0.len()
}

/// A bystander waited 1.5 seconds for a head that somebody else held, when the batch waited for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_head_holds_up_nobody_else() {
    let Some(place) = Place::new().await else { return };
    let (busy, bystander) = (place.start().await, place.start().await);
    let parent = place.store.head(busy).await.unwrap().unwrap();
    place.hold(busy).await;
    // A parent that is held is busy too, not refused.
    let child = place.script.birth(Some(&parent));
    let batch = vec![place.script.enter(busy, 1), place.script.enter(bystander, 1), child.clone()];
    let verdicts = place.store.append(batch.clone()).await;
    assert_eq!(verdicts, [Ok(Verdict::Busy), Ok(Verdict::Landed { version: 2 }), Ok(Verdict::Busy)]);
    assert_eq!(place.store.head(child.execution_id).await.unwrap(), None);
    place.other.execute("COMMIT").await.unwrap();
    let again = vec![batch[0].clone(), child];
    let landed = |version| Ok(Verdict::Landed { version });
    assert_eq!(place.store.append(again).await, [landed(2), landed(1)]);
}

/// Statements that lock and read together see what stood there before they waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_under_a_lock_is_what_stood_there_when_the_lock_was_given() {
    let Some(place) = Place::new().await else { return };
    let script = &place.script;
    let mut birth = script.birth(None);
    let command = script.add_command(&mut birth, CommandState::Pending);
    let id = birth.execution_id;
    place.store.append(vec![birth]).await.remove(0).unwrap();
    place.hold(id).await;
    let (store, claim) = (Arc::clone(&place.store), script.claim(id, command, 1, SessionId(1)));
    let locking = tokio::spawn(async move {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let see = Arc::clone(&seen);
        let decide = Box::new(move |locked: &noetl_store::LockedView| {
            *see.lock().unwrap() = Some((locked.view.head.status, locked.view.commands.len()));
            None
        });
        store.locked(id, None, decide).await.unwrap();
        seen.lock().unwrap().take()
    });
    place.until_blocked().await;
    // The holder cancels, as a server of the same protocol would.
    place
        .other
        .execute(&format!(
            "UPDATE noetl.execution SET status = 'CANCELLED', ended_at = now() WHERE execution_id = {id}; \
             DELETE FROM noetl.command WHERE execution_id = {id}; COMMIT"
        ))
        .await
        .unwrap();
    assert_eq!(locking.await.unwrap(), Some((Status::Cancelled, 0)));
    assert_eq!(place.store.append(vec![claim]).await, [Ok(Verdict::Refused(RefusedBy::Ended))]);
}

/// Whether a COMMIT arrived is found out before anything else is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_is_looked_up() {
    let Some(place) = Place::new().await else { return };
    let script = &place.script;
    let proxy = Proxy::start(place.cluster.address("place").port).await;
    let through = noetl_testkit::Address { port: proxy.port(), ..place.cluster.address("place") };
    let store = open(&through.url().parse().unwrap(), &ManualClock::new(START)).await;
    for cut in [Cut::After, Cut::Before] {
        let birth = script.birth(None);
        let id = birth.execution_id;
        proxy.cut(cut);
        assert_eq!(store.append(vec![birth]).await, [Ok(Verdict::Landed { version: 1 })], "{cut:?}");
        assert!(proxy.was_cut());
        proxy.cut(cut);
        let batch = vec![script.enter(id, 1), script.enter(id, 7), script.birth(None)];
        let verdicts = store.append(batch).await;
        assert!(proxy.was_cut());
        let landed = |version| Ok(Verdict::Landed { version });
        assert_eq!(verdicts, [landed(2), Ok(Verdict::Conflict), landed(1)], "{cut:?}");
        assert_eq!(log_of(&place.store, id).await, 2);
        proxy.cut(cut);
        let canceller = script.clone();
        let cancelled = store.locked(id, None, Box::new(move |locked| canceller.cancel(locked))).await;
        assert!(proxy.was_cut());
        match cut {
            Cut::After => assert_eq!(cancelled, Ok(Some(Verdict::Landed { version: 4 }))),
            // The decision was used up, so whoever made it hears that nothing was written, and makes it again.
            _ => assert!(matches!(cancelled, Err(StoreError::Unavailable(_))), "{cancelled:?}"),
        }
        let status = if cut == Cut::After { Status::Cancelled } else { Status::Running };
        assert_eq!(store.head(id).await.unwrap().unwrap().status, status);
        let cancellation = script.cancellation(id);
        store.open_cancellation(cancellation.clone()).await.unwrap();
        let canceller = script.clone();
        proxy.cut(cut);
        let chunk = Box::new(move |locked: &noetl_store::LockedView, _| canceller.cancel(locked).into());
        let chunk = store.cancel_chunk(cancellation.cancellation_id, noetl_store::Pick::Front(9), chunk).await;
        assert!(proxy.was_cut());
        if cut == Cut::Before {
            assert!(matches!(chunk, Err(StoreError::Unavailable(_))), "{chunk:?}");
            assert_eq!(store.open_cancellations().await.unwrap(), [cancellation]);
        }
    }
    assert_eq!(place.store.validate().await.unwrap(), Vec::<String>::new());
}

/// The store outlives its database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_starts_again_is_found_again() {
    let Some(mut place) = Place::new().await else { return };
    let id = place.start().await;
    place.cluster.crash();
    let (store, enter) = (Arc::clone(&place.store), place.script.enter(id, 1));
    let waiting = tokio::spawn(async move { store.append(vec![enter]).await });
    let (store, script) = (Arc::clone(&place.store), place.script.clone());
    place.cluster.restart().await.unwrap();
    assert_eq!(waiting.await.unwrap(), [Ok(Verdict::Landed { version: 2 })]);
    let cancelled = store.locked(id, None, Box::new(move |locked| script.cancel(locked))).await;
    assert_eq!(cancelled, Ok(Some(Verdict::Landed { version: 4 })));
    assert_eq!(log_of(&place.store, id).await, 4);
}

/// What one wrote that others may want to look at, they hear of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_hear_each_other() {
    let Some(place) = Place::new().await else { return };
    let second = open(&address(&place.cluster, "place"), &ManualClock::new(START)).await;
    let mut hints = second.hints().unwrap();
    // Its first word: it listens.
    hints.changed().await.unwrap();
    hints.mark_unchanged();
    let mut birth = place.script.birth(None);
    place.script.add_command(&mut birth, CommandState::Pending);
    let append = place.store.append(vec![birth]);
    let (verdicts, heard) = tokio::join!(append, tokio::time::timeout(Duration::from_secs(20), hints.changed()));
    assert!(verdicts[0].is_ok());
    heard.unwrap().unwrap();
}

/// Several servers that start at once on an empty database make its tables once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_take_turns() {
    let Some(cluster) = TestCluster::start(&[]).await.unwrap() else { return };
    let address = database(&cluster).await;
    let clock = ManualClock::new(START);
    let opened = futures_util::future::join_all((0..4).map(|_| open(&address, &clock))).await;
    // And no two of them make the same ids.
    let numbers: std::collections::BTreeSet<u16> = opened.iter().map(|store| *store.node().borrow()).collect();
    assert_eq!(numbers.len(), 4);
    let script = Script::new(&clock);
    for store in &opened {
        assert_eq!(store.append(vec![script.birth(None)]).await, [Ok(Verdict::Landed { version: 1 })]);
    }
    for store in &opened {
        store.close().await.unwrap();
    }
}

/// An execution whose ids are made by a node, at a time.
fn born_by(script: &Script, number: u16, at: Timestamp) -> Append {
    let mut ids = IdSource::new(number);
    let mut birth = script.birth(None);
    birth.execution_id = ExecutionId(ids.next(at));
    let Guard::New(head) = &mut birth.guard else { panic!() };
    (head.execution_id, head.root_execution_id) = (birth.execution_id, birth.execution_id);
    for new in &mut birth.events {
        new.event_id = EventId(ids.next(at));
    }
    birth
}

/// The race: the session that holds a server's number ends, and the number is somebody else's before it notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_number_takes_another_and_writes_nothing_made_under_the_old_one() {
    let Some(cluster) = TestCluster::start(&["numbers"]).await.unwrap() else { return };
    let clock = ManualClock::new(START);
    let store = open(&address(&cluster, "numbers"), &clock).await;
    let mut numbers = store.node();
    let first = *numbers.borrow_and_update();
    let other = Database::connect(&cluster.address("numbers")).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1852793957";
    other.execute(end).await.unwrap();
    other.execute(&format!("SELECT pg_advisory_lock(1852793957, {first})")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), numbers.changed()).await.unwrap().unwrap();
    let second = *numbers.borrow_and_update();
    assert_ne!(first, second);
    let script = Script::new(&clock);
    let batch = vec![
        born_by(&script, first, Timestamp(START.0 - 1_000)),
        born_by(&script, first, START),
        born_by(&script, second, START),
    ];
    let answers = store.append(batch).await;
    assert_eq!((&answers[0], &answers[2]), (&Ok(Verdict::Landed { version: 1 }), &Ok(Verdict::Landed { version: 1 })));
    assert!(matches!(&answers[1], Err(StoreError::Unavailable(why)) if why.contains("had lost")), "{:?}", answers[1]);
    store.close().await.unwrap();
}
