//! What survives the end of a process. A store that forgets passes by saying so.

use std::sync::Arc;

use noetl_core::append::{DueChange, DueKind, Verdict};
use noetl_core::head::{CommandState, Status};
use noetl_core::id::{CatalogId, SessionId};
use serde_json::json;

use super::Stage;
use crate::catalog::{NewResource, ResourceKey};

/// Acknowledged is durable: heads, commands, logs, obligations, snapshots, sessions, catalog, answers.
pub async fn what_was_acknowledged_survives_a_crash(mut stage: Stage) {
    let Some(reopen) = stage.reopen.take() else { return };
    let script = stage.script();
    let (id, _) = stage.start_claimed(SessionId(1)).await;
    let mut append = script.enter(id, stage.head(id).await.decided);
    script.add_command(&mut append, CommandState::Pending);
    append.due.push(DueChange::Set(script.due(id, DueKind::Timer, 1, 0)));
    append.snapshot = Some(Arc::new(json!({"state": [1, 2.5]})));
    append.head.runnable = Some(true);
    stage.land(append).await;
    stage.land(script.enter(id, stage.head(id).await.decided)).await;
    let cancelled = stage.start_below(id).await;
    stage.cancel(cancelled).await;
    stage.store.open_session(script.session(SessionId(1), "w", 1_000)).await.unwrap();
    let resource =
        NewResource { catalog_id: CatalogId(9), path: "p".into(), kind: "playbook".into(), content: "text".into() };
    let resource = stage.store.register(resource).await.unwrap();
    stage.store.keep_answer("k", json!(1)).await.unwrap();
    // Many small commits in flight at the very end: each that was acknowledged is there afterwards.
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, script) = (Arc::clone(&stage.store), stage.script());
            tokio::spawn(async move {
                let mut born = Vec::new();
                for _ in 0..20 {
                    let birth = script.birth(None);
                    let id = birth.execution_id;
                    if let Ok(Verdict::Landed { .. }) = store.append(vec![birth]).await.remove(0) {
                        born.push(id);
                    }
                }
                born
            })
        })
        .collect();
    let mut born = Vec::new();
    for writer in writers {
        born.extend(writer.await.unwrap());
    }
    let (view, log, loaded) = (stage.view(id).await, stage.log(id).await, stage.store.load(id).await.unwrap().unwrap());
    let (due, sessions) = (stage.store.due(9).await.unwrap(), stage.store.sessions().await.unwrap());
    let store = std::mem::replace(&mut stage.store, Arc::new(crate::memory::MemoryStore::new(stage.clock.clock())));
    stage.store = reopen(store).await;
    assert_eq!(stage.view(id).await, view);
    assert_eq!(stage.log(id).await, log);
    let again = stage.store.load(id).await.unwrap().unwrap();
    assert_eq!((again.snapshot, again.tail), (loaded.snapshot, loaded.tail));
    assert_eq!(stage.store.due(9).await.unwrap(), due);
    assert_eq!(stage.store.sessions().await.unwrap(), sessions);
    assert_eq!(stage.head(cancelled).await.status, Status::Cancelled);
    assert_eq!(stage.store.resource(ResourceKey::Latest("p".into())).await.unwrap(), Some(resource));
    assert_eq!(stage.store.answer("k").await.unwrap(), Some(json!(1)));
    assert_eq!(born.len(), 160);
    for id in born {
        assert_eq!(stage.head(id).await.version, 1);
    }
    assert!(stage.store.validate().await.unwrap().is_empty());
    // And life goes on.
    stage.land(script.enter(id, view.head.decided)).await;
}

/// Whoever opens the store finds it, and finishes it.
pub async fn an_unfinished_cascade_survives_a_crash(mut stage: Stage) {
    let Some(reopen) = stage.reopen.take() else { return };
    let root = stage.start().await;
    let children = [stage.start_below(root).await, stage.start_below(root).await];
    let cancellation = stage.script().cancellation(root);
    let id = cancellation.cancellation_id;
    stage.store.open_cancellation(cancellation).await.unwrap();
    let chunk = stage.chunk(id, 1).await.unwrap();
    assert_eq!((chunk.visited, chunk.done), (vec![root], false));
    let store = std::mem::replace(&mut stage.store, Arc::new(crate::memory::MemoryStore::new(stage.clock.clock())));
    stage.store = reopen(store).await;
    let open = stage.store.open_cancellations().await.unwrap();
    assert_eq!((open.len(), open[0].cancellation_id, open[0].visited), (1, id, 1));
    let chunk = stage.chunk(id, 9).await.unwrap();
    assert_eq!((chunk.visited, chunk.done), (children.to_vec(), true));
    for child in children {
        assert_eq!(stage.head(child).await.status, Status::Cancelled);
    }
}
