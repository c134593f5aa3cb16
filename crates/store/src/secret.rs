//! Rows that hold secrets. A store sees ciphertext only; who may open it is not its concern.

use std::fmt;
use std::sync::Arc;

use noetl_core::id::{CatalogId, CredentialId, ExecutionId};
use noetl_core::time::Timestamp;
use serde_json::Value;

/// Ciphertext with everything that is needed to open it, beside the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Arc<str>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

/// A credential as it stands in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialRow {
    /// Its id. It stays when the credential is registered again.
    pub id: CredentialId,
    /// The alias that playbooks use.
    pub name: Arc<str>,
    /// What it is for: `postgres`, `bearer`, …
    pub kind: Arc<str>,
    /// How often it has been written, from 1. The ciphertext is bound to it.
    pub version: i64,
    /// The data.
    pub sealed: Sealed,
    /// What its author wants to remember.
    pub meta: Option<Value>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// One sentence for people.
    pub description: Option<String>,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// A resolved keychain entry, kept until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeychainRow {
    /// What it is found by: its scope and its name.
    pub cache_key: Arc<str>,
    /// The entry's name in the playbook.
    pub name: Arc<str>,
    /// The playbook version that it was resolved for.
    pub catalog_id: CatalogId,
    /// `oauth2`, `static`, …
    pub kind: Arc<str>,
    /// The word in the playbook.
    pub scope: Arc<str>,
    /// The execution that it is kept for, when it is for one alone, and the top of its family.
    pub execution: Option<(ExecutionId, ExecutionId)>,
    /// The fields.
    pub sealed: Sealed,
    /// From when it is no answer any more.
    pub expires_at: Timestamp,
}

/// A credential's ciphertext under another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// Whose.
    pub id: CredentialId,
    /// The version that it was opened at. The new one follows it.
    pub version: i64,
    /// The data.
    pub sealed: Sealed,
}
