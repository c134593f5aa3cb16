//! Another key: everything is sealed anew, and the file with the key changes places with its successor.
//!
//! A crash may come between any two steps. The new key is on the disk before anything is sealed with it; the store
//! changes from one key to the other in one transaction; and whoever opens the vault next takes the file whose
//! fingerprint the store keeps, see [`settle`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use noetl_store::Store;

use super::key::{self, KeySource, failed, sync_folder, write_new};
use super::seal::MasterKey;
use super::{Vault, VaultError};

/// Environment variable that holds the next key.
pub const NEXT_KEY_VARIABLE: &str = "NOETL_NEW_ENCRYPTION_KEY";

/// Seals everything in `store` anew; returns how many credentials there are. With a key file, the next key is made
/// and written here; a key that was given is followed by one that is given.
pub async fn rekey(store: Arc<dyn Store>, source: KeySource, next: Option<MasterKey>) -> Result<usize, VaultError> {
    let vault = Vault::new(store, source.clone(), 0, false);
    // The present key has to be the right one before another is made.
    vault.key().await?;
    match (source, next) {
        (KeySource::Given(_), Some(next)) => vault.rekey(&next).await,
        (KeySource::Given(_), None) => {
            let problem = format!("the key was given, so the next one has to be given in {NEXT_KEY_VARIABLE}");
            Err(VaultError::Bad { field: "key", problem })
        }
        (KeySource::File(_), Some(_)) => {
            let problem = format!(
                "the key is in a file, and its next one is made: {NEXT_KEY_VARIABLE} is for keys that are given"
            );
            Err(VaultError::Bad { field: "key", problem })
        }
        (KeySource::File(path), None) => {
            let next = MasterKey::generate().map_err(|error| VaultError::Locked(error.to_string()))?;
            let fresh = successor(&path);
            // Left over by an attempt that changed nothing: the present key is the right one.
            remove(&fresh)?;
            write_new(&fresh, &next).map_err(|problem| failed(&fresh, problem))?;
            let count = vault.rekey(&next).await?;
            replace(&fresh, &path)?;
            Ok(count)
        }
    }
}

/// Returns the key in the file at `path`, or in its successor if the store has gone on to that one: then the change
/// that a crash broke off is finished. `kept` is the fingerprint in the store.
pub(super) fn settle(path: &Path, kept: Option<&str>) -> Result<Option<MasterKey>, VaultError> {
    let present = key::read(path)?;
    let fits = |key: &MasterKey| kept.is_none_or(|kept| key.fingerprint() == kept);
    if present.as_ref().is_some_and(fits) {
        return Ok(present);
    }
    let fresh = successor(path);
    match key::read(&fresh)?.filter(|_| kept.is_some()).filter(|key| fits(key)) {
        Some(key) => {
            replace(&fresh, path)?;
            Ok(Some(key))
        }
        None => Ok(present),
    }
}

fn successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn replace(fresh: &Path, path: &Path) -> Result<(), VaultError> {
    std::fs::rename(fresh, path).and_then(|()| sync_folder(path)).map_err(|problem| failed(path, problem))
}

fn remove(path: &Path) -> Result<(), VaultError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(failed(path, problem)),
    }
}

#[cfg(test)]
mod tests {
    use noetl_store::memory::MemoryStore;
    use serde_json::json;

    use super::*;
    use crate::vault::NewCredential;

    struct Place {
        folder: tempfile::TempDir,
        store: Arc<dyn Store>,
    }

    impl Place {
        async fn new() -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(crate::clock::now)));
            let place = Place { folder: tempfile::tempdir().unwrap(), store };
            let data = json!({"token": "t"}).as_object().unwrap().clone();
            let (meta, tags, description) = (None, Vec::new(), None);
            let new = NewCredential { name: "api".into(), kind: "bearer".into(), data, meta, tags, description };
            place.vault().register(new).await.unwrap();
            place
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("data.key")
        }

        fn vault(&self) -> Vault {
            Vault::new(Arc::clone(&self.store), KeySource::File(self.path()), 1, false)
        }

        async fn opens(&self) -> bool {
            let row = self.store.credential("api").await.unwrap().unwrap();
            self.vault().open(&row).await.is_ok_and(|data| data["token"] == "t")
        }
    }

    #[tokio::test]
    async fn the_file_holds_the_new_key_and_the_old_one_opens_nothing() {
        let place = Place::new().await;
        let old = key::read(&place.path()).unwrap().unwrap();
        assert_eq!(rekey(Arc::clone(&place.store), KeySource::File(place.path()), None).await.unwrap(), 1);
        assert!(place.opens().await);
        assert_ne!(key::read(&place.path()).unwrap().unwrap(), old);
        assert!(!successor(&place.path()).exists());
        let stale = Vault::new(Arc::clone(&place.store), KeySource::Given(old), 1, false);
        assert!(matches!(stale.check().await, Err(VaultError::OtherKey { .. })));
    }

    /// The race: the process ends between two steps.
    #[tokio::test]
    async fn a_change_that_was_broken_off_is_finished_or_forgotten() {
        // Before the store has changed: the old key counts, and the next attempt makes another successor.
        let place = Place::new().await;
        write_new(&successor(&place.path()), &MasterKey::generate().unwrap()).unwrap();
        assert!(place.opens().await);
        rekey(Arc::clone(&place.store), KeySource::File(place.path()), None).await.unwrap();
        assert!(place.opens().await);
        // After the store has changed, before the file has.
        let next = MasterKey::generate().unwrap();
        write_new(&successor(&place.path()), &next).unwrap();
        place.vault().rekey(&next).await.unwrap();
        assert!(place.opens().await);
        assert_eq!(key::read(&place.path()).unwrap(), Some(next));
        assert!(!successor(&place.path()).exists());
    }

    #[tokio::test]
    async fn a_key_that_is_given_is_followed_by_one_that_is_given() {
        let place = Place::new().await;
        let key = key::read(&place.path()).unwrap().unwrap();
        let (given, file) = (KeySource::Given(key), KeySource::File(place.path()));
        let next = MasterKey::generate().unwrap();
        assert!(matches!(rekey(Arc::clone(&place.store), given.clone(), None).await, Err(VaultError::Bad { .. })));
        let both = rekey(Arc::clone(&place.store), file, Some(next.clone())).await;
        assert!(matches!(both, Err(VaultError::Bad { .. })));
        assert_eq!(rekey(Arc::clone(&place.store), given, Some(next)).await.unwrap(), 1);
    }
}
