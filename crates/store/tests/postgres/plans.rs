//! Every question that is asked often reads about as many rows as its answer has, however large the tables are.
//!
//! Not the plans are looked at but what the database says it has read: rows of tables and entries of indexes, from one
//! opening of the store to its close. A plan that goes through a table, or fetches most of it along an index, shows here
//! whatever it is called; what a scan passes over inside an index does not.

use std::sync::Arc;
use std::time::Duration;

use noetl_core::append::{Append, DueChange, DueKind, Guard, Verdict};
use noetl_core::head::{CommandState, Head, Status};
use noetl_core::id::{CancellationId, ExecutionId, SessionId};
use noetl_core::turns::Turns;
use noetl_store::catalog::ResourceKey;
use noetl_store::conformance::{ManualClock, Script};
use noetl_store::postgres::{Address, Postgres};
use noetl_store::{EventQuery, JobQuery, ListQuery, Pick, SqlLimits, Store};
use noetl_testkit::{Database, TestCluster};

use super::{START, address, open};

/// Executions in the store; a question that goes through them all reads at least as many rows.
const STOCK: usize = 20_000;
/// Of these, one in so many waits for a worker, with a timer that is not due.
const WAITS: usize = 4;
/// Of these, one in so many is of the path that few have.
const RARE: usize = 1_000;
/// Appends in one batch.
const BATCH: usize = 500;
/// Most rows and index entries that a question may read for an answer of a page, or of one.
const READ_MAX: i64 = 1_200;
/// Rows of a page.
const PAGE: u64 = 50;

/// A filled database, and what it has been asked so far.
struct Stock {
    address: Address,
    clock: ManualClock,
    script: Script,
    watch: Database,
    found: Vec<String>,
}

/// What is asked about.
struct Names {
    waiting: ExecutionId,
    ended: ExecutionId,
    parent: ExecutionId,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_reads_more_than_its_answer() {
    let Some(cluster) = TestCluster::start(&["plans"]).await.unwrap() else { return };
    let (mut stock, names) = Stock::fill(&cluster).await;
    let Names { waiting, ended, parent } = names;
    stock.people_ask(parent).await;
    let page = ListQuery { limit: PAGE, ..ListQuery::default() };
    let rare = || Some("flows/rare".to_owned());
    let running = || vec![Status::Running];
    for (name, query) in [
        ("newest", page.clone()),
        ("running first", ListQuery { active_first: true, ..page.clone() }),
        ("failed, of which there is none", ListQuery { status: vec![Status::Failed], ..page.clone() }),
        ("two statuses", ListQuery { status: vec![Status::Failed, Status::Cancelled], ..page.clone() }),
        ("running", ListQuery { status: running(), ..page.clone() }),
        ("a path of many", ListQuery { path: Some("flows/fetch".into()), ..page.clone() }),
        ("a path of few", ListQuery { path: rare(), ..page.clone() }),
        ("a path of few that run", ListQuery { path: rare(), status: running(), ..page.clone() }),
        ("a path of none", ListQuery { path: Some("flows/none".into()), ..page.clone() }),
        ("many, by a pattern", ListQuery { path: Some("flows/*".into()), ..page.clone() }),
        ("few, by a pattern", ListQuery { path: Some("flows/ra*".into()), ..page.clone() }),
        ("children", ListQuery { parent: Some(parent), ..page.clone() }),
        ("children that run", ListQuery { parent: Some(parent), status: running(), ..page.clone() }),
        ("a family", ListQuery { root: Some(parent), ..page.clone() }),
        ("unquiesced", ListQuery { unquiesced: true, ..page.clone() }),
        ("of a job", ListQuery { unquiesced: true, job: Some(CancellationId(7)), ..page.clone() }),
        ("below an id", ListQuery { before: Some(waiting), status: running(), ..page.clone() }),
    ] {
        let again = query.clone();
        stock.ask(&format!("list: {name}"), async |store| drop(store.executions(query).await.unwrap())).await;
        stock.ask(&format!("ids: {name}"), async |store| drop(store.execution_ids(again).await.unwrap())).await;
    }
    let whose = || EventQuery { execution_id: Some(ended), limit: PAGE, ..EventQuery::default() };
    for (name, query) in [
        ("of one", whose()),
        ("of one, newest first", EventQuery { newest_first: true, ..whose() }),
        ("of one, after a version", EventQuery { after_version: Some(1), ..whose() }),
    ] {
        stock.ask(&format!("events: {name}"), async |store| drop(store.events(query).await.unwrap())).await;
    }
    stock.ask("head", async |store| drop(store.head(ended).await.unwrap())).await;
    stock.ask("view", async |store| drop(store.view(waiting).await.unwrap())).await;
    stock.ask("load", async |store| drop(store.load(ended).await.unwrap())).await;
    stock.ask("terminal event", async |store| drop(store.terminal_event(ended).await.unwrap())).await;
    stock.ask("result", async |store| drop(store.result("noetl://none").await.unwrap())).await;
    stock.ask("key holders", async |store| drop(store.key_holders("none").await.unwrap())).await;
    stock.ask("due", async |store| drop(store.due(PAGE).await.unwrap())).await;
    stock.ask("unquiesced views", async |store| drop(store.unquiesced(PAGE).await.unwrap())).await;
    stock.ask("held", async |store| drop(store.held(SessionId(1)).await.unwrap())).await;
    stock.ask("expired sessions", async |store| drop(store.expired_sessions(PAGE).await.unwrap())).await;
    stock.ask("open cascades", async |store| drop(store.open_cancellations().await.unwrap())).await;
    let jobs = || JobQuery { limit: PAGE, ..JobQuery::default() };
    stock.ask("jobs", async |store| drop(store.cancellations(jobs()).await.unwrap())).await;
    stock.ask("a playbook", async |store| drop(store.resource(ResourceKey::Latest("a".into())).await.unwrap())).await;
    stock.ask("an answer", async |store| drop(store.answer("none").await.unwrap())).await;
    for skip in [0, PAGE] {
        let pools = [Arc::from("default")];
        let ask = async |store: &Postgres| {
            drop(store.candidates(&pools, &Turns::default(), skip, PAGE).await.unwrap());
        };
        stock.ask("what may be claimed", ask).await;
    }
    // What writes.
    let (script, head) = (stock.script.clone(), stock.head(waiting).await);
    let birth = script.birth(None);
    let child = script.birth(Some(&head));
    let step = script.enter(waiting, head.decided);
    stock
        .ask("a batch", async |store| {
            for verdict in store.append(vec![birth, child, step]).await {
                assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
            }
        })
        .await;
    let canceller = script.clone();
    let decide = Box::new(move |locked: &_| canceller.cancel(locked));
    stock
        .ask("a cancel", async |store| {
            store.locked(waiting, None, decide).await.unwrap();
        })
        .await;
    let cascade = script.cancellation(parent);
    let id = cascade.cancellation_id;
    stock.ask("the beginning of a cascade", async |store| store.open_cancellation(cascade).await.unwrap()).await;
    for size in [1, 20] {
        let canceller = script.clone();
        let decide = Box::new(move |locked: &_, through| canceller.cancel_open(locked, through));
        let step = async |store: &Postgres| {
            assert_eq!(store.cancel_chunk(id, Pick::Front(size), decide).await.unwrap().visited.len(), size);
        };
        stock.ask("a step of a cascade", step).await;
    }
    assert!(stock.found.is_empty(), "of {STOCK} executions:\n{}", stock.found.join("\n"));
    // And the watch sees what does go through everything.
    stock.people("SELECT count(*) FROM noetl.event").await;
    assert_eq!(stock.found.len(), 1, "{:?}", stock.found);
}

impl Stock {
    async fn fill(cluster: &TestCluster) -> (Stock, Names) {
        let address = address(cluster, "plans");
        let clock = ManualClock::new(START);
        let script = Script::new(&clock);
        let store = open(&address, &clock).await;
        let parent = script.birth(None);
        let top = parent.execution_id;
        land(&store, vec![parent]).await;
        let top = store.head(top).await.unwrap().unwrap();
        let (mut waiting, mut ended) = (top.execution_id, top.execution_id);
        for batch in 0..STOCK / BATCH {
            let (mut births, mut ends) = (Vec::new(), Vec::new());
            for number in batch * BATCH..(batch + 1) * BATCH {
                // A few children, the rest on their own.
                let mut birth = script.birth((number % (STOCK / 30) == 0).then_some(&top));
                let id = birth.execution_id;
                let Guard::New(head) = &mut birth.guard else { unreachable!() };
                if number % RARE == 0 {
                    head.path = "flows/rare".into();
                }
                if number % WAITS == 0 {
                    script.add_command(&mut birth, CommandState::Pending);
                    let in_ms = 3_600_000 + number as u64;
                    birth.due.push(DueChange::Set(script.due(id, DueKind::Timer, 1, in_ms)));
                    waiting = id;
                } else {
                    let mut head = (**head).clone();
                    head.land(&birth);
                    ends.push(script.complete(&head));
                    ended = id;
                }
                births.push(birth);
            }
            land(&store, births).await;
            land(&store, ends).await;
        }
        store.close().await.unwrap();
        let watch = Database::connect(&cluster.address("plans")).await.unwrap();
        watch.execute("VACUUM ANALYZE").await.unwrap();
        let names = Names { waiting, ended, parent: top.execution_id };
        (Stock { address, clock, script, watch, found: Vec::new() }, names)
    }

    /// Asks what the documentation shows for people.
    async fn people_ask(&mut self, parent: ExecutionId) {
        self.people(&format!("SELECT execution_id FROM noetl.execution WHERE execution_id = {parent}")).await;
        self.people(
            "SELECT execution_id, path FROM noetl.execution WHERE status = 'RUNNING' \
             AND updated_at < NOW() - INTERVAL '10 minutes' ORDER BY execution_id DESC LIMIT 50",
        )
        .await;
        self.people(
            "SELECT execution_id, created_at, context->>'reason' AS reason FROM noetl.event \
             WHERE event_type = 'execution.cancelled' ORDER BY created_at DESC LIMIT 10",
        )
        .await;
        self.people(&format!(
            "WITH RECURSIVE children AS (SELECT execution_id FROM noetl.event WHERE execution_id = {parent} UNION ALL \
             SELECT e.execution_id FROM noetl.event e JOIN children c ON e.parent_execution_id = c.execution_id) \
             SELECT DISTINCT execution_id FROM children"
        ))
        .await;
    }

    async fn people(&mut self, sql: &str) {
        let limits = SqlLimits { rows: 50, ms: 5_000 };
        self.ask(sql, async |store| drop(store.sql(sql, limits).await.unwrap())).await;
    }

    async fn head(&self, id: ExecutionId) -> Head {
        let store = open(&self.address, &self.clock).await;
        let head = store.head(id).await.unwrap().unwrap();
        store.close().await.unwrap();
        head
    }

    /// Opens the store, asks, closes it, and looks at what was read.
    async fn ask(&mut self, name: &str, question: impl AsyncFnOnce(&Postgres)) {
        let before = self.read().await;
        let store = open(&self.address, &self.clock).await;
        question(&store).await;
        store.close().await.unwrap();
        let read = self.read().await - before;
        if read > READ_MAX {
            self.found.push(format!("{read:>8} rows and index entries for: {name}"));
        }
    }

    /// Returns how many rows of tables and entries of indexes were read so far. Sessions tell when they end.
    async fn read(&self) -> i64 {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND backend_type IN ('client backend', 'parallel worker') AND pid <> pg_backend_pid()";
        while self.number(others).await > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.number(
            "SELECT ((SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = 'noetl') \
             + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'noetl'))::bigint",
        )
        .await
    }

    async fn number(&self, sql: &str) -> i64 {
        self.watch.first_value(sql).await.unwrap().unwrap().as_i64().unwrap()
    }
}

async fn land(store: &Postgres, batch: Vec<Append>) {
    for verdict in store.append(batch).await {
        assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
    }
}
