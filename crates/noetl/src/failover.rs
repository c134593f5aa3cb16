//! Several ways to the same deployment: a worker goes on with the next server when one does not answer.
//!
//! All servers read the same tables, so a session that one began is known to all, and what a worker holds stays its
//! own when it changes servers in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_core::log::LogLine;
use noetl_core::playbook::Playbook;
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant};
use noetl_engine::secrets::SecretError;
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
    /// Returns a transport over `ways`, named by their addresses; `None` without any. `first` spreads workers over the
    /// servers.
    pub fn new(ways: Vec<(String, HttpTransport)>, first: usize) -> Option<Self> {
        let at = AtomicUsize::new(first.checked_rem(ways.len())?);
        Some(Failover { ways, at })
    }

    /// Asks the server that answered last, then the others in turn. A request may so be carried out twice; every one
    /// of them is safe to repeat.
    async fn carry<'a, T, E: Lost>(
        &'a self,
        ask: impl Fn(&'a HttpTransport) -> BoxFuture<'a, Result<T, E>> + Send,
    ) -> Result<T, E> {
        let from = self.at.load(Ordering::Relaxed);
        let mut step = 0;
        loop {
            let place = (from + step) % self.ways.len();
            step += 1;
            let (name, way) = &self.ways[place];
            match ask(way).await {
                Err(error) if error.is_elsewhere_better() && step < self.ways.len() => {
                    tracing::debug!(server = name, %error, "no answer here");
                }
                answer => {
                    // Somebody else may have found another one at the same time; either will do.
                    if place != from
                        && answer.is_ok()
                        && self.at.compare_exchange(from, place, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                    {
                        tracing::info!(server = name, "going on with this server");
                    }
                    return answer;
                }
            }
        }
    }
}

/// Why there is no answer.
trait Lost: std::fmt::Display {
    /// Returns whether another server might answer differently.
    fn is_elsewhere_better(&self) -> bool;
}

impl Lost for WorkerError {
    fn is_elsewhere_better(&self) -> bool {
        match self {
            WorkerError::Unreachable(_) | WorkerError::Store(_) | WorkerError::TooNew(_) => true,
            WorkerError::UnknownSession(_) | WorkerError::NameTaken(_) | WorkerError::Bad(_) => false,
        }
    }
}

impl Lost for SecretError {
    fn is_elsewhere_better(&self) -> bool {
        match self {
            SecretError::Unreachable(_) | SecretError::Store(_) => true,
            SecretError::Unknown(_) | SecretError::Withheld(_) | SecretError::Locked(_) => false,
        }
    }
}

#[async_trait]
impl Transport for Failover {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        self.carry(|way| way.hello(hello.clone())).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        self.carry(|way| way.poll(poll.clone())).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        self.carry(|way| way.report(reports.clone())).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        self.carry(|way| way.playbook(catalog_id)).await
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        self.carry(|way| way.result(reference)).await
    }

    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
        self.carry(|way| way.log(lines.clone())).await
    }

    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        self.carry(|way| way.credential(warrant, alias)).await
    }

    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        self.carry(|way| way.kept(warrant, under)).await
    }

    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError> {
        self.carry(|way| way.keep(warrant, under, value.clone(), life_ms)).await
    }

    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool {
        let at = self.at.load(Ordering::Relaxed) % self.ways.len();
        self.ways[at].1.is_cancelled(execution_id).await
    }
}
