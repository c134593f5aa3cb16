//! Every store keeps every promise.

#![expect(clippy::unwrap_used, reason = "a suite of tests")]

use std::path::Path;
use std::sync::Arc;

use noetl_core::time::Timestamp;
use noetl_store::conformance::{ManualClock, Reopen, Stage, Subject};
use noetl_store::memory::MemoryStore;
use noetl_store::sqlite::{SqliteOptions, SqliteStore};
use noetl_store::{Store, conformance, for_each_promise};

const START: Timestamp = Timestamp(1_768_900_080_123);

fn memory() -> Subject {
    let clock = ManualClock::new(START);
    Subject { store: Arc::new(MemoryStore::new(clock.clock())), clock, reopen: None }
}

fn open(path: &Path, clock: &ManualClock) -> Arc<dyn Store> {
    let options = SqliteOptions { clock: clock.clock(), ..SqliteOptions::new(path) };
    Arc::new(SqliteStore::open(options).unwrap())
}

fn sqlite(folder: &Path) -> Subject {
    let clock = ManualClock::new(START);
    let (path, crashed) = (folder.join("noetl.db"), folder.join("crashed.db"));
    let store = open(&path, &clock);
    let reopening = clock.clone();
    let reopen: Reopen = Box::new(move |store| {
        // As a kill would leave it: the file and its log as they are while the store is still open.
        for suffix in ["", "-wal"] {
            let (from, to) = (format!("{}{suffix}", path.display()), format!("{}{suffix}", crashed.display()));
            std::fs::copy(from, to).unwrap();
        }
        drop(store);
        let store = open(&crashed, &reopening);
        Box::pin(async move { store })
    });
    Subject { store, clock, reopen: Some(reopen) }
}

mod in_memory {
    use super::*;

    macro_rules! promises {
        ($($promise:ident,)*) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $promise() {
                    conformance::$promise(Stage::new(memory())).await;
                }
            )*
        };
    }
    for_each_promise!(promises);
}

mod in_sqlite {
    use super::*;

    macro_rules! promises {
        ($($promise:ident,)*) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $promise() {
                    let folder = tempfile::tempdir().unwrap();
                    conformance::$promise(Stage::new(sqlite(folder.path()))).await;
                }
            )*
        };
    }
    for_each_promise!(promises);
}
