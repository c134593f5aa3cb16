//! The catalog: playbooks by path and version.

use std::sync::Arc;

use noetl_core::id::CatalogId;
use noetl_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A playbook on its way into the catalog; the store gives it a version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewResource {
    /// Its id.
    pub catalog_id: CatalogId,
    /// `metadata.path`.
    pub path: Arc<str>,
    /// `playbook`, in lower case.
    pub kind: Arc<str>,
    /// The text as it was given.
    pub content: Arc<str>,
}

/// One version of one playbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its id.
    pub catalog_id: CatalogId,
    /// `metadata.path`.
    pub path: Arc<str>,
    /// From 1, per path.
    pub version: i64,
    /// `playbook`.
    pub kind: Arc<str>,
    /// The text as it was given.
    pub content: Arc<str>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// How a playbook is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResourceKey {
    /// By id.
    Id(CatalogId),
    /// By path, the newest version.
    Latest(Arc<str>),
    /// By path and version.
    Version(Arc<str>, i64),
}
