//! The vault: credentials, sealed in the store and opened for whoever may have them.

pub mod key;
pub mod rekey;
pub mod seal;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use noetl_core::id::{CredentialId, ExecutionId, IdSource};
use noetl_core::secret::Credential;
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::time::Timestamp;
use noetl_engine::secrets::SecretError;
use noetl_store::secret::{CredentialRow, KeychainRow, Resealed};
use noetl_store::{Store, StoreError};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use self::key::KeySource;
use self::seal::{BadKey, MasterKey};

/// Longest name of a credential, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Largest data of a credential, in bytes of JSON.
pub const DATA_BYTES_MAX: usize = 64 * 1024;
/// Most credentials.
pub const CREDENTIALS_MAX: usize = 10_000;
/// How often a registration that crossed others is tried again.
const TRIES_MAX: usize = 16;

/// Why the vault can not do something. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A text is no key.
    #[error("{place} holds no key: {bad}")]
    BadKey {
        /// Where it stands.
        place: String,
        /// What a key is.
        bad: BadKey,
    },
    /// A database is shared, and nobody said with which key.
    #[error(
        "servers that share a database need its key in {}: 32 random bytes in base64, for instance from `openssl rand -base64 32`",
        key::KEY_VARIABLE
    )]
    KeyNotGiven,
    /// The key file can not be used.
    #[error("the key file {}: {problem}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// Others could read the key.
    #[error("the key file {} can be read by others (mode {mode:o}): `chmod 600` it, and if it was read change the key with `noetl credential rekey`", path.display())]
    KeyFileOpen {
        /// Which.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// There are secrets, and the key to them is gone.
    #[error("the secrets here are sealed with key {fingerprint}, and {} is missing: put it back, or give the key in {}", path.display(), key::KEY_VARIABLE)]
    KeyLost {
        /// Which key.
        fingerprint: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// There are secrets, and this key is not theirs.
    #[error(
        "the secrets here are sealed with key {kept}, and this is key {given}: give the one they are sealed with, or change it with `noetl credential rekey`"
    )]
    OtherKey {
        /// The fingerprint that the store keeps.
        kept: String,
        /// The fingerprint of the key that was given.
        given: String,
    },
    /// Something can not be sealed or opened.
    #[error("{0}")]
    Locked(String),
    /// The request makes no sense.
    #[error("{problem}")]
    Bad {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Others wrote it at the same time, again and again.
    #[error("credential `{0}` is being written by others: try again")]
    Busy(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A credential on its way into the vault.
#[derive(Clone)]
pub struct NewCredential {
    /// The alias that playbooks use.
    pub name: Arc<str>,
    /// What it is for.
    pub kind: Arc<str>,
    /// The secret part.
    pub data: Map<String, Value>,
    /// What its author wants to remember.
    pub meta: Option<Value>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// One sentence for people.
    pub description: Option<String>,
}

impl fmt::Debug for NewCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCredential").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The vault of an installation.
pub struct Vault {
    store: Arc<dyn Store>,
    source: KeySource,
    ids: Mutex<IdSource>,
    /// The key, once it has been needed and is known to be the right one.
    key: OnceCell<MasterKey>,
    /// Whether credentials are shown as they are to whoever may ask at all.
    allow_read: bool,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("allow_read", &self.allow_read).finish_non_exhaustive()
    }
}

impl Vault {
    /// Returns the vault over a store. Nothing is opened yet.
    pub fn new(store: Arc<dyn Store>, source: KeySource, node: u16, allow_read: bool) -> Self {
        Vault { store, source, ids: Mutex::new(IdSource::new(node)), key: OnceCell::new(), allow_read }
    }

    /// Makes ids for another node from now on.
    pub fn renumber(&self, node: u16) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).renumber(node);
    }

    /// Returns whether credentials are shown as they are.
    pub fn allows_read(&self) -> bool {
        self.allow_read
    }

    /// Sees to it that what is sealed here can be opened. A store without secrets needs no key yet, but a key that was
    /// given is the one from now on.
    pub async fn check(&self) -> Result<(), VaultError> {
        let sealed = self.store.key_fingerprint().await?.is_some();
        match &self.source {
            KeySource::File(_) if !sealed => Ok(()),
            KeySource::File(_) | KeySource::Given(_) => self.key().await.map(drop),
        }
    }

    /// Returns the key; makes the file when there is none and nothing was ever sealed.
    async fn key(&self) -> Result<&MasterKey, VaultError> {
        self.key
            .get_or_try_init(|| async {
                let key = match &self.source {
                    KeySource::Given(key) => key.clone(),
                    KeySource::File(path) => {
                        let kept = self.store.key_fingerprint().await?;
                        match (rekey::settle(path, kept.as_deref())?, kept) {
                            (Some(key), _) => key,
                            (None, None) => {
                                tracing::info!(path = %path.display(), "making the key that secrets are sealed with");
                                key::create(path)?
                            }
                            (None, Some(fingerprint)) => {
                                return Err(VaultError::KeyLost { fingerprint, path: path.clone() });
                            }
                        }
                    }
                };
                let given = key.fingerprint();
                let kept = self.store.keep_key_fingerprint(&given).await?;
                if kept == given { Ok(key) } else { Err(VaultError::OtherKey { kept, given }) }
            })
            .await
    }

    /// Registers a credential, in the place of one with the same name.
    pub async fn register(&self, new: NewCredential) -> Result<CredentialRow, VaultError> {
        check_new(&new)?;
        let key = self.key().await?;
        for _ in 0..TRIES_MAX {
            let now = self.store.now().await?;
            let present = self.store.credential(&new.name).await?.filter(|row| row.name == new.name);
            let (id, version, created_at) = match present {
                Some(row) => (row.id, row.version + 1, row.created_at),
                None => {
                    if self.store.credentials().await?.len() >= CREDENTIALS_MAX {
                        let problem = format!("there are {CREDENTIALS_MAX} credentials already (credentials_max)");
                        return Err(VaultError::Bad { field: "name", problem });
                    }
                    (CredentialId(self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(now)), 1, now)
                }
            };
            let plain = zeroize::Zeroizing::new(serde_json::to_vec(&new.data).unwrap_or_default());
            let row = CredentialRow {
                id,
                name: Arc::clone(&new.name),
                kind: Arc::clone(&new.kind),
                version,
                sealed: key.seal(&place(id, version), &plain).map_err(|error| VaultError::Locked(error.to_string()))?,
                meta: new.meta.clone(),
                tags: new.tags.clone(),
                description: new.description.clone(),
                created_at,
                updated_at: now,
            };
            if self.store.put_credential(row.clone(), &key.fingerprint()).await? {
                tracing::info!(credential = %row.name, kind = %row.kind, version, "credential registered");
                return Ok(row);
            }
            self.still_right(key).await?;
        }
        Err(VaultError::Busy(new.name.to_string()))
    }

    /// Another server may have been given a new key since this one came up.
    async fn still_right(&self, key: &MasterKey) -> Result<(), VaultError> {
        match (self.store.key_fingerprint().await?, key.fingerprint()) {
            (Some(kept), given) if kept != given => Err(VaultError::OtherKey { kept, given }),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Lists the credentials by name, unopened.
    pub async fn list(&self) -> Result<Vec<CredentialRow>, VaultError> {
        Ok(self.store.credentials().await?)
    }

    /// Returns a credential by name or id, unopened.
    pub async fn find(&self, name_or_id: &str) -> Result<Option<CredentialRow>, VaultError> {
        Ok(self.store.credential(name_or_id).await?)
    }

    /// Opens a credential.
    pub async fn open(&self, row: &CredentialRow) -> Result<Map<String, Value>, VaultError> {
        let plain = match self.key().await?.open(&place(row.id, row.version), &row.sealed) {
            Ok(plain) => plain,
            Err(error) => return Err(VaultError::Locked(format!("credential `{}`: {error}", row.name))),
        };
        serde_json::from_slice(&plain)
            .map_err(|_| VaultError::Locked(format!("credential `{}` is not what was sealed", row.name)))
    }

    /// Removes a credential by name or id; returns what it was.
    pub async fn delete(&self, name_or_id: &str) -> Result<Option<CredentialRow>, VaultError> {
        let Some(row) = self.store.credential(name_or_id).await? else { return Ok(None) };
        let there = self.store.delete_credential(row.id).await?;
        tracing::info!(credential = %row.name, "credential deleted");
        Ok(there.then_some(row))
    }

    /// Seals everything anew with another key; returns how many credentials there are.
    pub async fn rekey(&self, to: &MasterKey) -> Result<usize, VaultError> {
        let from = self.key().await?;
        for _ in 0..TRIES_MAX {
            let mut rows = Vec::new();
            for row in self.store.credentials().await? {
                let data = self.open(&row).await?;
                let plain = zeroize::Zeroizing::new(serde_json::to_vec(&data).unwrap_or_default());
                let sealed = to.seal(&place(row.id, row.version + 1), &plain);
                let sealed = sealed.map_err(|error| VaultError::Locked(error.to_string()))?;
                rows.push(Resealed { id: row.id, version: row.version, sealed });
            }
            let count = rows.len();
            if self.store.reseal(&from.fingerprint(), &to.fingerprint(), rows).await? {
                return Ok(count);
            }
            self.still_right(from).await?;
        }
        Err(VaultError::Busy("*".to_owned()))
    }
}

/// What the ciphertext of a credential is bound to.
fn place(id: CredentialId, version: i64) -> String {
    format!("noetl credential {id} version {version}")
}

fn check_new(new: &NewCredential) -> Result<(), VaultError> {
    let bad = |field, problem: String| Err(VaultError::Bad { field, problem });
    if new.name.trim().is_empty() || new.name.chars().any(char::is_control) {
        return bad("name", "is needed: the alias that playbooks use".to_owned());
    }
    if new.name.len() > NAME_BYTES_MAX {
        return bad("name", format!("must be at most {NAME_BYTES_MAX} bytes"));
    }
    if new.kind.trim().is_empty() {
        return bad("type", "must not be empty: postgres, bearer, basic, api_key, …".to_owned());
    }
    if serde_json::to_vec(&new.data).map_or(0, |bytes| bytes.len()) > DATA_BYTES_MAX {
        return bad("data", format!("must be at most {DATA_BYTES_MAX} bytes of JSON"));
    }
    Ok(())
}

#[async_trait]
impl noetl_engine::secrets::Vault for Vault {
    async fn credential(&self, alias: &str) -> Result<Option<Credential>, SecretError> {
        // By its name alone: an alias that looks like a number is not an id.
        let Some(row) = self.store.credential(alias).await?.filter(|row| &*row.name == alias) else { return Ok(None) };
        let data = self.open(&row).await?;
        Ok(Some(Credential { name: row.name, kind: row.kind, data: Arc::new(data) }))
    }

    async fn kept(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
    ) -> Result<Option<Value>, SecretError> {
        let key = self.key().await?;
        let Some(row) = self.store.keychain(&cache_key(key, under, execution)).await? else { return Ok(None) };
        // What does not open is fetched anew.
        let plain = key.open(&keychain_place(&row.cache_key, row.expires_at), &row.sealed).ok();
        Ok(plain.and_then(|plain| serde_json::from_slice(&plain).ok()))
    }

    async fn keep(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
        value: Value,
        life_ms: u64,
    ) -> Result<(), SecretError> {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&value).unwrap_or_default());
        if plain.len() > DATA_BYTES_MAX {
            return Err(SecretError::Locked(format!("a kept token has at most {DATA_BYTES_MAX} bytes of JSON")));
        }
        let key = self.key().await?;
        let cache_key = cache_key(key, under, execution);
        let expires_at = self.store.now().await?.plus_ms(life_ms);
        let sealed = key.seal(&keychain_place(&cache_key, expires_at), &plain);
        let row = KeychainRow {
            cache_key: cache_key.into(),
            name: Arc::clone(&under.name),
            catalog_id: under.catalog_id,
            kind: Arc::clone(&under.kind),
            scope: Arc::clone(&under.scope),
            execution,
            sealed: sealed.map_err(|error| SecretError::Locked(error.to_string()))?,
            expires_at,
        };
        self.store.keep_keychain(row, &key.fingerprint()).await?;
        Ok(())
    }
}

/// What the ciphertext of a keychain entry is bound to.
fn keychain_place(cache_key: &str, expires_at: Timestamp) -> String {
    format!("noetl keychain {cache_key} until {}", expires_at.0)
}

/// Returns under which key of the table an entry is kept: readable, but for the request it answers.
fn cache_key(key: &MasterKey, under: &KeptUnder, execution: Option<(ExecutionId, ExecutionId)>) -> String {
    let whose = execution.map_or_else(|| "global".to_owned(), |(execution_id, _)| execution_id.to_string());
    format!("{}:{}:{whose}:{}", under.name, under.catalog_id, key.tag(under.digest.as_bytes()))
}

impl From<VaultError> for SecretError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => SecretError::Store(error),
            error => SecretError::Locked(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use noetl_engine::secrets::Vault as _;
    use noetl_store::memory::MemoryStore;
    use serde_json::json;

    use super::*;

    fn store() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new(Arc::new(crate::clock::now)))
    }

    fn given(store: &Arc<dyn Store>, key: &MasterKey) -> Vault {
        Vault::new(Arc::clone(store), KeySource::Given(key.clone()), 1, false)
    }

    fn credential(name: &str, data: &Value) -> NewCredential {
        NewCredential {
            name: name.into(),
            kind: "bearer".into(),
            data: data.as_object().unwrap().clone(),
            meta: None,
            tags: Vec::new(),
            description: None,
        }
    }

    #[tokio::test]
    async fn a_credential_comes_back_and_stands_in_the_store_as_ciphertext() {
        let (store, key) = (store(), MasterKey::generate().unwrap());
        let vault = given(&store, &key);
        let first = vault.register(credential("api", &json!({"token": "tok-1"}))).await.unwrap();
        let second = vault.register(credential("api", &json!({"token": "tok-2"}))).await.unwrap();
        assert_eq!((first.id, first.version, second.version), (second.id, 1, 2));
        assert!(!second.sealed.0.contains("tok"));
        let got = vault.credential("api").await.unwrap().unwrap();
        assert_eq!((&*got.name, &*got.kind, &got.data["token"]), ("api", "bearer", &json!("tok-2")));
        assert!(vault.credential(&first.id.to_string()).await.unwrap().is_none());
        // Put back, the old ciphertext does not open.
        let old = CredentialRow { version: 2, ..first };
        assert!(matches!(vault.open(&old).await, Err(VaultError::Locked(_))));
        assert!(vault.delete("api").await.unwrap().is_some());
        assert!(vault.credential("api").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn registrations_at_the_same_time_all_land() {
        let (store, key) = (store(), MasterKey::generate().unwrap());
        let vault = Arc::new(given(&store, &key));
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let vault = Arc::clone(&vault);
                tokio::spawn(
                    async move { vault.register(credential("api", &json!({"token": n}))).await.unwrap().version },
                )
            })
            .collect();
        let mut versions = Vec::new();
        for task in tasks {
            versions.push(task.await.unwrap());
        }
        versions.sort_unstable();
        assert_eq!(versions, (1..=8).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn another_key_opens_nothing_and_seals_nothing() {
        let (store, key, other) = (store(), MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        given(&store, &key).register(credential("api", &json!({"token": "t"}))).await.unwrap();
        let wrong = given(&store, &other);
        assert!(matches!(wrong.check().await, Err(VaultError::OtherKey { .. })));
        assert!(matches!(wrong.credential("api").await, Err(SecretError::Locked(_))));
        let refused = wrong.register(credential("b", &json!({}))).await;
        assert!(matches!(refused, Err(VaultError::OtherKey { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn the_file_is_made_with_the_first_secret_and_missed_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        let store = store();
        let vault = || Vault::new(Arc::clone(&store), KeySource::File(path.clone()), 1, false);
        vault().check().await.unwrap();
        assert!(!path.exists());
        vault().register(credential("api", &json!({"token": "t"}))).await.unwrap();
        assert!(vault().credential("api").await.unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(vault().check().await, Err(VaultError::KeyLost { .. })));
        assert!(!path.exists(), "a lost key is never replaced");
    }

    #[tokio::test]
    async fn rekey_moves_everything_and_leaves_the_old_key_with_nothing() {
        let (store, key, next) = (store(), MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let vault = given(&store, &key);
        for name in ["a", "b"] {
            vault.register(credential(name, &json!({"token": name}))).await.unwrap();
        }
        assert_eq!(vault.rekey(&next).await.unwrap(), 2);
        // This one came up before, and has not heard of it.
        assert!(matches!(vault.credential("a").await, Err(SecretError::Locked(_))));
        assert!(matches!(vault.register(credential("a", &json!({}))).await, Err(VaultError::OtherKey { .. })));
        let fresh = given(&store, &next);
        fresh.check().await.unwrap();
        assert_eq!(fresh.credential("b").await.unwrap().unwrap().data["token"], "b");
    }

    #[tokio::test]
    async fn a_token_is_kept_for_its_request_and_its_execution_until_it_expires() {
        let clock = Arc::new(std::sync::atomic::AtomicI64::new(1_768_900_000_000));
        let shown = Arc::clone(&clock);
        let now: noetl_store::Clock = Arc::new(move || Timestamp(shown.load(std::sync::atomic::Ordering::SeqCst)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(now));
        let vault = given(&store, &MasterKey::generate().unwrap());
        let under = KeptUnder {
            name: "api".into(),
            kind: "oauth2".into(),
            scope: "global".into(),
            catalog_id: noetl_core::id::CatalogId(7),
            digest: "request".to_owned(),
        };
        let token = json!({"access_token": "swordfish"});
        assert_eq!(vault.kept(&under, None).await.unwrap(), None);
        vault.keep(&under, None, token.clone(), 1_000).await.unwrap();
        assert_eq!(vault.kept(&under, None).await.unwrap(), Some(token.clone()));
        let other = KeptUnder { digest: "another request".to_owned(), ..under.clone() };
        assert_eq!(vault.kept(&other, None).await.unwrap(), None);
        let execution = Some((ExecutionId(1), ExecutionId(1)));
        assert_eq!(vault.kept(&under, execution).await.unwrap(), None);
        clock.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(vault.kept(&under, None).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_with_its_field() {
        let vault = given(&store(), &MasterKey::generate().unwrap());
        let long = "x".repeat(DATA_BYTES_MAX);
        for (new, wrong) in [
            (credential(" ", &json!({})), "name"),
            (credential("a\nb", &json!({})), "name"),
            (credential(&"n".repeat(NAME_BYTES_MAX + 1), &json!({})), "name"),
            (NewCredential { kind: "".into(), ..credential("a", &json!({})) }, "type"),
            (credential("a", &json!({"k": long})), "data"),
        ] {
            let Err(VaultError::Bad { field, .. }) = vault.register(new).await else { panic!("{wrong}") };
            assert_eq!(field, wrong);
        }
    }
}
