//! The promises of every store, each on a database of its own in one cluster.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use noetl_store::conformance::{self, ManualClock, Reopen, Stage, Subject};
use noetl_store::{Store, for_each_promise};
use noetl_testkit::TestCluster;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::{START, database, open};

/// Promises tried at the same time.
const AT_ONCE: usize = 4;
/// In how many tests they are tried: each has a cluster of its own.
const PARTS: usize = 3;

type Promise = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! list {
    ($($promise:ident,)*) => {
        vec![$((stringify!($promise), (|stage| Box::pin(conformance::$promise(stage))) as Promise),)*]
    };
}

/// Tries every `PARTS`th promise, from `part` on.
async fn kept(part: usize) {
    let Some(cluster) = TestCluster::start(&[]).await.unwrap() else { return };
    let cluster = Arc::new(cluster);
    let only = std::env::var("PROMISE").ok();
    let all: Vec<(&str, Promise)> = for_each_promise!(list);
    let mut left: VecDeque<_> = all.into_iter().skip(part).step_by(PARTS).collect();
    left.retain(|(name, _)| only.as_deref().is_none_or(|only| name.contains(only)));
    let mut running = JoinSet::new();
    let mut broken = Vec::new();
    while !left.is_empty() || !running.is_empty() {
        while running.len() < AT_ONCE {
            let Some((name, promise)) = left.pop_front() else { break };
            let cluster = Arc::clone(&cluster);
            running.spawn(async move {
                let clock = ManualClock::new(START);
                let store = open(&database(&cluster).await, &clock).await;
                let kept: Arc<dyn Store> = store.clone();
                let tried = tokio::spawn(promise(Stage::new(Subject { store: kept, clock, reopen: None })));
                let tried = tried.await;
                store.close().await.unwrap();
                (name, tried.err())
            });
        }
        if let Some((name, Some(error))) = running.join_next().await.map(Result::unwrap) {
            broken.push(format!("{name}: {error}"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}\n(try one again with PROMISE=name)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_promise_is_kept() {
    kept(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_promise_is_kept_second_part() {
    kept(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_promise_is_kept_third_part() {
    kept(2).await;
}

/// Gives up a store by the death of its database server, and opens the data again.
fn reopen(cluster: Arc<Mutex<TestCluster>>, address: noetl_store::postgres::Address, clock: ManualClock) -> Reopen {
    Box::new(move |store| {
        let (cluster, address, clock) = (Arc::clone(&cluster), address.clone(), clock.clone());
        Box::pin(async move {
            cluster.lock().await.restart().await.unwrap();
            drop(store);
            let store: Arc<dyn Store> = open(&address, &clock).await;
            store
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_the_death_of_the_database() {
    let Some(cluster) = TestCluster::start(&[]).await.unwrap() else { return };
    let cluster = Arc::new(Mutex::new(cluster));
    let durable: [Promise; 2] = [
        |stage| Box::pin(conformance::what_was_acknowledged_survives_a_crash(stage)),
        |stage| Box::pin(conformance::an_unfinished_cascade_survives_a_crash(stage)),
    ];
    for promise in durable {
        let clock = ManualClock::new(START);
        let address = database(&*cluster.lock().await).await;
        let store: Arc<dyn Store> = open(&address, &clock).await;
        let reopen = Some(reopen(Arc::clone(&cluster), address, clock.clone()));
        promise(Stage::new(Subject { store, clock, reopen })).await;
    }
}
