//! Playbooks: registering them, and keeping them compiled.

use std::sync::Arc;

use noetl_core::diag::Diagnostic;
use noetl_core::id::CatalogId;
use noetl_core::playbook::Playbook;
use noetl_store::StoreError;
use noetl_store::catalog::Resource;

use crate::engine::Engine;

/// A playbook that went into the catalog.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The entry.
    pub resource: Arc<Resource>,
    /// What works but looks wrong.
    pub warnings: Vec<Diagnostic>,
}

/// Why a playbook did not go into the catalog.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// 422.
    #[error("{} mistake(s) in the playbook", .0.len())]
    Invalid(Vec<Diagnostic>),
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Checks a playbook and adds it to the catalog as the next version of its path.
    pub async fn register(&self, content: &str, resource_type: Option<&str>) -> Result<Registered, RegisterError> {
        let _ = (content, resource_type);
        unimplemented!()
    }

    /// Returns a playbook version with what it means; `None` when the catalog has no such thing.
    ///
    /// An entry that this version can not compile is an error that says so.
    pub async fn playbook(&self, catalog_id: CatalogId) -> Result<Option<(Arc<Resource>, Arc<Playbook>)>, StoreError> {
        let _ = catalog_id;
        unimplemented!()
    }
}
