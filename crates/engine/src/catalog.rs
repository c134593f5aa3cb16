//! Playbooks: registering them, and keeping them compiled.

use std::sync::{Arc, Mutex};

use noetl_core::diag::Diagnostic;
use noetl_core::execution::{Book, BookKey, Books, Needs};
use noetl_core::expr::Library;
use noetl_core::id::CatalogId;
use noetl_core::playbook::{self, Playbook};
use noetl_store::StoreError;
use noetl_store::catalog::{NewResource, Resource, ResourceKey};
use serde_json::Value;

use crate::engine::Engine;
use crate::hold;
use crate::lru::Lru;

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

/// A catalog entry and what it means here.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) resource: Arc<Resource>,
    /// The diagnostics, when this version refuses it.
    pub(crate) playbook: Result<Arc<Playbook>, Vec<Diagnostic>>,
}

/// Compiled playbooks and large results at hand.
#[derive(Debug)]
pub(crate) struct Shelf {
    entries: Mutex<Lru<CatalogId, Arc<Entry>>>,
    results: Mutex<Lru<String, Arc<Value>>>,
}

/// What one decision has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Stock {
    pub(crate) library: Arc<Library>,
    pub(crate) books: Arc<Books>,
}

impl Default for Stock {
    fn default() -> Self {
        Stock { library: Arc::new(Library::empty()), books: Arc::default() }
    }
}

impl Stock {
    /// Forgets who has concurrency keys: somebody else has changed that.
    pub(crate) fn forget_holders(&mut self) {
        self.books = Arc::new(Books { known: self.books.known.clone(), ..Books::default() });
    }
}

impl Shelf {
    pub(crate) fn new(playbooks_max: usize, result_bytes_max: u64) -> Self {
        Shelf { entries: Mutex::new(Lru::new(playbooks_max as u64)), results: Mutex::new(Lru::new(result_bytes_max)) }
    }

    /// Returns what an entry means, compiling it at most once.
    fn entry(&self, resource: Resource) -> Arc<Entry> {
        if let Some(known) = self.known(resource.catalog_id) {
            return known;
        }
        let playbook = playbook::compile(&resource.content).map(|compiled| Arc::new(compiled.playbook));
        let entry = Arc::new(Entry { resource: Arc::new(resource), playbook });
        hold(&self.entries).put(entry.resource.catalog_id, Arc::clone(&entry));
        entry
    }

    fn known(&self, catalog_id: CatalogId) -> Option<Arc<Entry>> {
        hold(&self.entries).get(&catalog_id).map(|entry| Arc::clone(entry))
    }
}

impl Engine {
    /// Checks a playbook and adds it to the catalog as the next version of its path.
    pub async fn register(&self, content: &str, resource_type: Option<&str>) -> Result<Registered, RegisterError> {
        let compiled = playbook::compile(content).map_err(RegisterError::Invalid)?;
        let now = self.now().await?;
        let resource = self
            .store
            .register(NewResource {
                catalog_id: CatalogId(self.next_id(now)),
                path: Arc::clone(&compiled.playbook.path),
                kind: resource_type.unwrap_or("playbook").to_ascii_lowercase().into(),
                content: content.into(),
            })
            .await?;
        let resource = Arc::new(resource);
        let entry = Entry { resource: Arc::clone(&resource), playbook: Ok(Arc::new(compiled.playbook)) };
        hold(&self.shelf.entries).put(resource.catalog_id, Arc::new(entry));
        Ok(Registered { resource, warnings: compiled.warnings })
    }

    /// Returns a playbook version with what it means; `None` when the catalog has no such thing.
    ///
    /// An entry that this version can not compile is an error that says so.
    pub async fn playbook(&self, catalog_id: CatalogId) -> Result<Option<(Arc<Resource>, Arc<Playbook>)>, StoreError> {
        let Some(entry) = self.entry(catalog_id).await? else { return Ok(None) };
        let playbook = usable(&entry)?;
        Ok(Some((Arc::clone(&entry.resource), playbook)))
    }

    /// Returns a catalog entry, whether or not it can be compiled.
    pub(crate) async fn entry(&self, catalog_id: CatalogId) -> Result<Option<Arc<Entry>>, StoreError> {
        if let Some(known) = self.shelf.known(catalog_id) {
            return Ok(Some(known));
        }
        self.entry_named(ResourceKey::Id(catalog_id)).await
    }

    /// Returns the entry that `key` names now.
    pub(crate) async fn entry_named(&self, key: ResourceKey) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.store.resource(key).await?.map(|resource| self.shelf.entry(resource)))
    }

    /// Returns the playbook that an execution keeps.
    pub(crate) async fn compiled(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, StoreError> {
        match self.entry(catalog_id).await? {
            Some(entry) => usable(&entry),
            None => Err(StoreError::Corrupt(format!("playbook version {catalog_id} is not in the catalog"))),
        }
    }

    /// Returns a large result by its reference.
    pub async fn stored_result(&self, reference: &str) -> Result<Option<Arc<Value>>, StoreError> {
        if let Some(known) = hold(&self.shelf.results).get(&reference.to_owned()) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(data) = self.store.result(reference).await? else { return Ok(None) };
        let bytes = noetl_core::result::json_size(&data) as u64;
        hold(&self.shelf.results).put_weighing(reference.to_owned(), Arc::clone(&data), bytes);
        Ok(Some(data))
    }

    /// Loads what a decision lacked.
    pub(crate) async fn fetch(&self, needs: Needs, stock: &mut Stock) -> Result<(), StoreError> {
        for reference in needs.results {
            let Some(data) = self.stored_result(&reference).await? else {
                return Err(StoreError::Corrupt(format!("there is no result {reference}")));
            };
            stock.library.insert(&reference, data);
        }
        if needs.playbooks.is_empty() && needs.keys.is_empty() && needs.origins.is_empty() {
            return Ok(());
        }
        let mut books = Books::clone(&stock.books);
        for key in needs.keys {
            let holders = self.store.key_holders(&key).await?;
            books.holders.insert(key, holders);
        }
        for origin in needs.origins {
            books.origins.insert(origin, self.load(origin).await?);
        }
        for key in needs.playbooks {
            let entry = self
                .entry_named(match &key {
                    BookKey::Newest(path) => ResourceKey::Latest(Arc::clone(path)),
                    BookKey::Version(path, version) => ResourceKey::Version(Arc::clone(path), *version),
                    BookKey::Id(catalog_id) => ResourceKey::Id(*catalog_id),
                })
                .await?;
            // One that can not be compiled any more is as good as none.
            let book = entry.and_then(|entry| {
                let playbook = Arc::clone(entry.playbook.as_ref().ok()?);
                Some(Book { catalog_id: entry.resource.catalog_id, version: entry.resource.version, playbook })
            });
            books.known.insert(key, book);
        }
        stock.books = Arc::new(books);
        Ok(())
    }
}

fn usable(entry: &Entry) -> Result<Arc<Playbook>, StoreError> {
    match &entry.playbook {
        Ok(playbook) => Ok(Arc::clone(playbook)),
        Err(diagnostics) => Err(StoreError::Corrupt(format!(
            "playbook {} version {} can not be used by this version: {}",
            entry.resource.path,
            entry.resource.version,
            diagnostics.first().map_or_else(|| "it is no playbook".to_owned(), ToString::to_string)
        ))),
    }
}
