//! The catalog and kept answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use noetl_core::id::CatalogId;
use serde_json::json;

use super::Stage;
use crate::StoreError;
use crate::catalog::{NewResource, ResourceKey};

fn playbook(id: i64, path: &str, content: &str) -> NewResource {
    NewResource { catalog_id: CatalogId(id), path: path.into(), kind: "playbook".into(), content: content.into() }
}

/// From 1, per path, whoever registers at the same time.
pub async fn the_catalog_counts_versions_per_path(stage: Stage) {
    let first = stage.store.register(playbook(5, "a/b", "one\n")).await.unwrap();
    assert_eq!((first.version, first.created_at), (1, stage.clock.now()));
    let second = stage.store.register(playbook(3, "a/b", "two: \"ü\"\n")).await.unwrap();
    assert_eq!(second.version, 2);
    let mut other = playbook(4, "c", "three");
    other.kind = "credential".into();
    let other = stage.store.register(other).await.unwrap();
    assert_eq!(other.version, 1);
    assert!(matches!(stage.store.register(playbook(5, "x", "")).await, Err(StoreError::BadData(_))));
    for (key, found) in [
        (ResourceKey::Id(CatalogId(5)), Some(&first)),
        (ResourceKey::Id(CatalogId(9)), None),
        (ResourceKey::Latest("a/b".into()), Some(&second)),
        (ResourceKey::Latest("a".into()), None),
        (ResourceKey::Version("a/b".into(), 1), Some(&first)),
        (ResourceKey::Version("a/b".into(), 3), None),
    ] {
        assert_eq!(stage.store.resource(key.clone()).await.unwrap().as_ref(), found, "{key:?}");
    }
    assert_eq!(stage.store.resources(None).await.unwrap(), [first.clone(), other, second.clone()]);
    assert_eq!(stage.store.resources(Some("Playbook")).await.unwrap(), [first, second]);
    assert!(stage.store.resources(Some("nothing")).await.unwrap().is_empty());
    let at_once: Vec<_> = (100..120)
        .map(|id| {
            let store = Arc::clone(&stage.store);
            tokio::spawn(async move { store.register(playbook(id, "busy", "x")).await.unwrap().version })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for registering in at_once {
        versions.insert(registering.await.unwrap());
    }
    assert_eq!(versions, (1..=20).collect());
}

/// The same key gets the first answer again.
pub async fn a_first_answer_is_kept(stage: Stage) {
    assert_eq!(stage.store.answer("k").await.unwrap(), None);
    let (one, two) = (json!({"execution_id": "1"}), json!({"execution_id": "2"}));
    assert_eq!(stage.store.keep_answer("k", one.clone()).await.unwrap(), one);
    assert_eq!(stage.store.keep_answer("k", two.clone()).await.unwrap(), one);
    assert_eq!(stage.store.answer("k").await.unwrap(), Some(one));
    assert_eq!(stage.store.keep_answer("K", two.clone()).await.unwrap(), two);
    let at_once: Vec<_> = (0..16)
        .map(|n| {
            let store = Arc::clone(&stage.store);
            tokio::spawn(async move { store.keep_answer("race", json!(n)).await.unwrap() })
        })
        .collect();
    let mut answers = BTreeSet::new();
    for keeping in at_once {
        answers.insert(keeping.await.unwrap().as_i64().unwrap());
    }
    assert_eq!(answers.len(), 1);
}
