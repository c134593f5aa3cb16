//! The engine as it is shipped: SQLite or PostgreSQL, several threads, the real clock.

use std::sync::Arc;

use noetl_core::head::Status;
use noetl_core::playbook::CancelMode;
use noetl_core::time::Timestamp;
use noetl_engine::CancelRequest;
use noetl_store::Store;
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::sqlite::{SqliteOptions, SqliteStore};
use noetl_testkit::TestDatabase;
use tempfile::TempDir;
use tokio::time::{Duration, sleep};

use crate::world::{Server, World, cancel, chain, tally};

/// Where a store is kept, which is opened once or several times.
enum Place {
    File(TempDir),
    Database(TestDatabase),
}

impl Place {
    async fn world(&self) -> World {
        let store: Arc<dyn Store> = match self {
            Place::File(directory) => {
                let options = SqliteOptions::new(directory.path().join("noetl.db"));
                Arc::new(SqliteStore::open(options).unwrap())
            }
            Place::Database(database) => {
                let address = database.address().url().parse().unwrap();
                Arc::new(Postgres::open(PostgresOptions::new(address)).await.unwrap())
            }
        };
        World::on(store)
    }
}

macro_rules! in_each_place {
    ($($test:ident,)*) => {
        mod in_a_file {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Place::File(tempfile::tempdir().unwrap())).await;
                }
            )*
        }

        mod in_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(database) = noetl_testkit::TestDatabase::start().await.unwrap() else { return };
                    super::$test(super::Place::Database(database)).await;
                }
            )*
        }
    };
}

in_each_place! {
    many_chains_run_at_once_in_few_transactions,
    cancels_race_with_everything_and_nothing_starts_after_them,
    of_two_cascades_at_once_one_wins_and_the_other_is_told_the_truth,
    a_place_that_was_closed_in_the_middle_is_gone_on_with,
}

async fn many_chains_run_at_once_in_few_transactions(place: Place) {
    let world = place.world().await;
    let server = world.server();
    world.hire(&server, "one", 32);
    let steps: Vec<_> = (0..10).map(|step| (format!("s{step}"), "ok")).collect();
    let steps: Vec<_> = steps.iter().map(|(step, code)| (step.as_str(), *code)).collect();
    server.register(&chain("chain", &steps)).await;
    let mut ids = Vec::new();
    for _ in 0..64 {
        ids.push(server.start("chain").await.execution_id);
    }
    for id in &ids {
        assert_eq!(server.ended(*id).await, Status::Completed);
    }
    let metrics = server.engine.metrics();
    assert!(metrics.appends.get() > metrics.batches.get(), "{metrics:?}");
    assert_eq!(metrics.conflicts.get(), 0, "nobody else decides");
    server.stop().await;
    world.check([]).await;
}

async fn cancels_race_with_everything_and_nothing_starts_after_them(place: Place) {
    let world = place.world().await;
    let (one, two) = (world.server(), world.server());
    let workers = [world.hire(&one, "one", 8), world.hire(&two, "two", 8)];
    one.register(&chain("chain", &[("a", "ok"), ("b", "sleep 3"), ("c", "ok"), ("d", "sleep 600000")])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60_u64 {
        let id = one.start("chain").await.execution_id;
        let engine = Arc::clone(if n % 2 == 0 { &one.engine } else { &two.engine });
        tasks.spawn(async move {
            sleep(Duration::from_millis(n % 13)).await;
            let mode = Some(CancelMode::Interrupt);
            engine.cancel(CancelRequest { mode, wait_ms: 20_000, ..cancel(id) }).await.unwrap()
        });
    }
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.quiesced, "{answer:?}\n{}", world.story().await);
    }
    assert_eq!(tally(&world.heads().await), [("CANCELLED", 60)].into());
    for worker in workers {
        worker.leave().await;
    }
    one.stop().await;
    two.stop().await;
    world.check([]).await;
}

/// The race: both have seen it run before either of them holds its lock.
async fn of_two_cascades_at_once_one_wins_and_the_other_is_told_the_truth(place: Place) {
    let world = place.world().await;
    let (one, two) = (world.server(), world.server());
    one.register(&chain("chain", &[("a", "sleep 600000")])).await;
    for _ in 0..40 {
        let id = one.start("chain").await.execution_id;
        let ask = |server: &Server| {
            let engine = Arc::clone(&server.engine);
            let request = CancelRequest { cascade: true, ..cancel(id) };
            tokio::spawn(async move { engine.cancel(request).await })
        };
        let (here, there) = (ask(&one), ask(&two));
        let (here, there) = (here.await.unwrap(), there.await.unwrap());
        assert_eq!(u8::from(here.is_ok()) + u8::from(there.is_ok()), 1, "{here:?} {there:?}");
        for refused in [here, there].into_iter().filter_map(Result::err) {
            assert_eq!(refused.to_string(), format!("Execution {id} is already CANCELLED"));
        }
    }
    one.stop().await;
    two.stop().await;
    world.check([]).await;
}

async fn a_place_that_was_closed_in_the_middle_is_gone_on_with(place: Place) {
    let id = {
        let world = place.world().await;
        let server = world.server();
        server.register(&chain("chain", &[("a", "ok"), ("b", "return 7")])).await;
        let id = server.start("chain").await.execution_id;
        server.stop().await;
        world.store.close().await.unwrap();
        id
    };
    let world = place.world().await;
    let server = world.server();
    world.hire(&server, "one", 1);
    assert_eq!(server.ended(id).await, Status::Completed);
    assert!(world.head(id).await.ended_at > Some(Timestamp(0)));
    world.check([]).await;
}
