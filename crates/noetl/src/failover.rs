//! Several ways to the same deployment: a worker goes on with the next server when one does not answer.
//!
//! All servers read the same tables, so a session that one began is known to all, and what a worker holds stays its
//! own when it changes servers in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_core::playbook::Playbook;
use noetl_engine::transport::{Hello, Orders, Poll, Reports, Transport, Welcome, WorkerError};
use serde_json::Value;

use crate::http_transport::HttpTransport;

/// A transport over the first of several servers that answers.
#[derive(Debug)]
pub struct Failover {
    ways: Vec<(String, HttpTransport)>,
    /// Where the last answer came from.
    at: AtomicUsize,
}

impl Failover {
    /// Returns a transport over `ways`, named by their addresses, of which there is at least one. `first` spreads
    /// workers over the servers.
    pub fn new(ways: Vec<(String, HttpTransport)>, first: usize) -> Self {
        let at = AtomicUsize::new(first % ways.len().max(1));
        Failover { ways, at }
    }

    /// Asks the server that answered last, then the others in turn. A request may so be carried out twice; every one
    /// of them is safe to repeat.
    async fn carry<T>(&self, ask: impl AsyncFn(&HttpTransport) -> Result<T, WorkerError>) -> Result<T, WorkerError> {
        let from = self.at.load(Ordering::Relaxed);
        let mut lost = WorkerError::Bad("there is no server to ask".into());
        for place in (0..self.ways.len()).map(|step| (from + step) % self.ways.len()) {
            let (name, way) = &self.ways[place];
            match ask(way).await {
                Err(error) if is_elsewhere_better(&error) => {
                    tracing::debug!(server = name, %error, "no answer here");
                    lost = error;
                }
                answer => {
                    // Somebody else may have found another one at the same time; either will do.
                    if place != from
                        && self.at.compare_exchange(from, place, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                    {
                        tracing::info!(server = name, "going on with this server");
                    }
                    return answer;
                }
            }
        }
        Err(lost)
    }
}

/// Returns whether another server might answer differently.
fn is_elsewhere_better(error: &WorkerError) -> bool {
    match error {
        WorkerError::Unreachable(_) | WorkerError::Store(_) | WorkerError::TooNew(_) => true,
        WorkerError::UnknownSession(_) | WorkerError::Bad(_) => false,
    }
}

#[async_trait]
impl Transport for Failover {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        self.carry(async |way| way.hello(hello.clone()).await).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        self.carry(async |way| way.poll(poll.clone()).await).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        self.carry(async |way| way.report(reports.clone()).await).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        self.carry(async |way| way.playbook(catalog_id).await).await
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        self.carry(async |way| way.result(reference).await).await
    }

    async fn is_cancelled(&self, _execution_id: ExecutionId) -> bool {
        // As over one server: the open poll brings the news.
        false
    }
}
