//! Rows that hold secrets, as ciphertext.

use std::sync::Arc;

use noetl_core::id::{CatalogId, CredentialId, ExecutionId};
use serde_json::json;

use super::Stage;
use crate::secret::{CredentialRow, KeychainRow, Resealed, Sealed};

/// Fingerprint of the key that these rows claim to be sealed with.
const KEY: &str = "key";

fn credential(stage: &Stage, id: i64, name: &str) -> CredentialRow {
    CredentialRow {
        id: CredentialId(id),
        name: name.into(),
        kind: "postgres".into(),
        version: 1,
        sealed: Sealed("first".into()),
        meta: Some(json!({"team": "data"})),
        tags: vec!["prod".into(), "ü".into()],
        description: Some("the main database".into()),
        created_at: stage.clock.now(),
        updated_at: stage.clock.now(),
    }
}

fn entry(stage: &Stage, cache_key: &str, execution: Option<ExecutionId>, lives_ms: u64) -> KeychainRow {
    KeychainRow {
        cache_key: cache_key.into(),
        name: "api".into(),
        catalog_id: CatalogId(7),
        kind: "oauth2".into(),
        scope: "local".into(),
        execution: execution.map(|id| (id, id)),
        sealed: Sealed("token".into()),
        expires_at: stage.clock.now().plus_ms(lives_ms),
    }
}

/// Of two who read the same version, one writes the next. What is written is what is read.
pub async fn a_credential_is_written_by_whoever_knows_it_as_it_stands(stage: Stage) {
    let store = &stage.store;
    let first = credential(&stage, 11, "pg");
    // Whoever has another key than the one that is kept, or comes before it, writes nothing.
    assert!(!store.put_credential(first.clone(), KEY).await.unwrap());
    store.keep_key_fingerprint(KEY).await.unwrap();
    assert!(!store.put_credential(first.clone(), "other").await.unwrap());
    assert!(store.put_credential(first.clone(), KEY).await.unwrap());
    assert_eq!(store.credential("pg").await.unwrap(), Some(first.clone()));
    assert_eq!(store.credential("11").await.unwrap(), Some(first.clone()));
    assert_eq!(store.credential("p").await.unwrap(), None);
    // A name is taken, an id is taken, a version is not the next one, or nothing is there to follow.
    assert!(!store.put_credential(credential(&stage, 12, "pg"), KEY).await.unwrap());
    assert!(!store.put_credential(credential(&stage, 11, "other"), KEY).await.unwrap());
    for version in [1, 3] {
        assert!(!store.put_credential(CredentialRow { version, ..first.clone() }, KEY).await.unwrap());
    }
    assert!(!store.put_credential(CredentialRow { version: 2, ..credential(&stage, 13, "new") }, KEY).await.unwrap());
    stage.clock.advance_ms(5);
    let second = CredentialRow {
        version: 2,
        kind: "bearer".into(),
        sealed: Sealed("second".into()),
        meta: None,
        tags: Vec::new(),
        description: None,
        updated_at: stage.clock.now(),
        ..first.clone()
    };
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, row) = (Arc::clone(store), second.clone());
            tokio::spawn(async move { store.put_credential(row, KEY).await.unwrap() })
        })
        .collect();
    let mut wrote = 0;
    for writer in writers {
        wrote += usize::from(writer.await.unwrap());
    }
    assert_eq!(wrote, 1);
    // A name that looks like another one's id is meant as a name.
    let named = credential(&stage, 14, "11");
    assert!(store.put_credential(named.clone(), KEY).await.unwrap());
    assert_eq!(store.credential("11").await.unwrap(), Some(named.clone()));
    assert_eq!(store.credentials().await.unwrap(), [named, second]);
    assert!(store.delete_credential(CredentialId(14)).await.unwrap());
    assert!(!store.delete_credential(CredentialId(14)).await.unwrap());
    assert_eq!(store.credentials().await.unwrap().len(), 1);
}

/// Whoever comes second learns which key is the one.
pub async fn the_first_key_leaves_its_fingerprint(stage: Stage) {
    assert_eq!(stage.store.key_fingerprint().await.unwrap(), None);
    assert_eq!(stage.store.keep_key_fingerprint("one").await.unwrap(), "one");
    assert_eq!(stage.store.keep_key_fingerprint("two").await.unwrap(), "one");
    assert_eq!(stage.store.key_fingerprint().await.unwrap().as_deref(), Some("one"));
}

/// All credentials change their key together, as they stood when they were opened.
pub async fn another_key_takes_over_at_once_or_not_at_all(stage: Stage) {
    let store = &stage.store;
    store.keep_key_fingerprint(KEY).await.unwrap();
    let (a, b) = (credential(&stage, 1, "a"), credential(&stage, 2, "b"));
    assert!(store.put_credential(a.clone(), KEY).await.unwrap());
    assert!(store.put_credential(b.clone(), KEY).await.unwrap());
    assert!(store.keep_keychain(entry(&stage, "k", None, 1_000), KEY).await.unwrap());
    let resealed = |id, version| Resealed { id: CredentialId(id), version, sealed: Sealed(format!("new {id}").into()) };
    let both = vec![resealed(1, 1), resealed(2, 1)];
    for (from, rows) in [
        ("other", both.clone()),
        (KEY, vec![resealed(1, 1)]),
        (KEY, vec![resealed(1, 1), resealed(2, 2)]),
        (KEY, vec![resealed(1, 1), resealed(2, 1), resealed(3, 1)]),
    ] {
        assert!(!store.reseal(from, "new", rows.clone()).await.unwrap(), "{rows:?}");
        assert_eq!(store.credentials().await.unwrap(), [a.clone(), b.clone()]);
        assert_eq!(store.key_fingerprint().await.unwrap().as_deref(), Some(KEY));
        assert!(store.keychain("k").await.unwrap().is_some());
    }
    assert!(store.reseal(KEY, "new", both.clone()).await.unwrap());
    let now = |row: CredentialRow, sealed: &str| CredentialRow { version: 2, sealed: Sealed(sealed.into()), ..row };
    assert_eq!(store.credentials().await.unwrap(), [now(a, "new 1"), now(b, "new 2")]);
    assert_eq!(store.key_fingerprint().await.unwrap().as_deref(), Some("new"));
    assert_eq!(store.keychain("k").await.unwrap(), None);
    // The same request again is a late one.
    assert!(!store.reseal(KEY, "new", both).await.unwrap());
}

/// An expired entry is no answer, and goes. An execution takes its own with it.
pub async fn a_keychain_entry_is_kept_until_it_expires(stage: Stage) {
    let store = &stage.store;
    let id = stage.start().await;
    assert!(!store.keep_keychain(entry(&stage, "all", None, 100), KEY).await.unwrap());
    assert_eq!(store.keychain("all").await.unwrap(), None);
    store.keep_key_fingerprint(KEY).await.unwrap();
    let of_all = entry(&stage, "all", None, 100);
    let of_one = entry(&stage, "one", Some(id), 10_000);
    assert!(store.keep_keychain(of_all.clone(), KEY).await.unwrap());
    assert!(store.keep_keychain(of_one.clone(), KEY).await.unwrap());
    assert_eq!(store.keychain("all").await.unwrap(), Some(of_all.clone()));
    assert_eq!(store.keychain("one").await.unwrap(), Some(of_one));
    assert_eq!(store.keychain("al").await.unwrap(), None);
    let renewed = KeychainRow { sealed: Sealed("renewed".into()), ..of_all };
    assert!(store.keep_keychain(renewed.clone(), KEY).await.unwrap());
    assert_eq!(store.keychain("all").await.unwrap(), Some(renewed));
    stage.clock.advance_ms(100);
    assert_eq!(store.keychain("all").await.unwrap(), None);
    assert!(store.keep_keychain(entry(&stage, "other", None, 100), KEY).await.unwrap());
    let sizes = store.size().await.unwrap();
    assert_eq!(sizes.iter().find(|size| size.table == "keychain").map(|size| size.rows), Some(2));
    stage.complete(id).await;
    stage.clock.advance_ms(1);
    store.prune(stage.clock.now(), false).await.unwrap();
    assert_eq!(store.keychain("one").await.unwrap(), None);
    assert!(store.keychain("other").await.unwrap().is_some());
}

/// Acknowledged is durable.
pub async fn secrets_survive_a_crash(mut stage: Stage) {
    let Some(reopen) = stage.reopen.take() else { return };
    let row = credential(&stage, 1, "pg");
    stage.store.keep_key_fingerprint(KEY).await.unwrap();
    stage.store.put_credential(row.clone(), KEY).await.unwrap();
    let kept = entry(&stage, "k", None, 1_000);
    assert!(stage.store.keep_keychain(kept.clone(), KEY).await.unwrap());
    let store = std::mem::replace(&mut stage.store, Arc::new(crate::memory::MemoryStore::new(stage.clock.clock())));
    stage.store = reopen(store).await;
    assert_eq!(stage.store.credentials().await.unwrap(), [row]);
    assert_eq!(stage.store.key_fingerprint().await.unwrap().as_deref(), Some(KEY));
    assert_eq!(stage.store.keychain("k").await.unwrap(), Some(kept));
}
