//! The way between a worker and a server: messages get lost, repeated and delayed, both ways.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use noetl_core::id::{CatalogId, CommandId, ExecutionId};
use noetl_core::log::LogLine;
use noetl_core::playbook::Playbook;
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant};
use noetl_engine::Engine;
use noetl_engine::secrets::SecretError;
use noetl_engine::transport::{Hello, Local, Orders, Poll, Reports, Transport, Welcome, WorkerError};
use serde_json::Value;
use tokio::time::Instant;

use crate::chance::Chance;

/// The servers that are up, by number; a dead one is `None`.
pub(crate) type Servers = Arc<Mutex<Vec<Option<Arc<Engine>>>>>;

/// Returns a server that is up, drawn by chance.
pub(crate) fn some_server(servers: &Servers, chance: &Chance) -> Option<Arc<Engine>> {
    let up: Vec<_> = servers.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect();
    chance.pick(&up).cloned()
}

/// How often servers have told workers of an attempt, and when first and last.
pub(crate) type Told = Arc<Mutex<BTreeMap<(CommandId, u32), (u64, Instant, Instant)>>>;

/// A transport to whichever server answers.
pub(crate) struct Flaky {
    pub(crate) servers: Servers,
    pub(crate) told: Told,
    pub(crate) chance: Chance,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
}

impl Flaky {
    async fn server(&self) -> Result<Local, WorkerError> {
        tokio::time::sleep(Duration::from_millis(self.chance.below(5))).await;
        if self.chance.per_mille(self.lost) {
            return Err(gone("the request was lost"));
        }
        some_server(&self.servers, &self.chance).map(Local).ok_or_else(|| gone("no server is up"))
    }

    async fn answer<T>(&self, answer: Result<T, WorkerError>) -> Result<T, WorkerError> {
        tokio::time::sleep(Duration::from_millis(self.chance.below(5))).await;
        if self.chance.per_mille(self.lost) { Err(gone("the answer was lost")) } else { answer }
    }

    /// Notes what a server says, whether it arrives or not.
    fn note(&self, answer: &Result<Orders, WorkerError>) {
        let Ok(orders) = answer else { return };
        let (mut told, now) = (self.told.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        for one in &orders.commands {
            let (count, _, last) = told.entry((one.command_id, one.epoch)).or_insert((0, now, now));
            (*count, *last) = (*count + 1, now);
        }
    }

    fn again(&self) -> bool {
        self.chance.per_mille(self.repeated)
    }
}

fn gone(why: &str) -> WorkerError {
    WorkerError::Unreachable(why.to_owned())
}

#[async_trait]
impl Transport for Flaky {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        let server = self.server().await?;
        self.answer(server.hello(hello).await).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        let server = self.server().await?;
        if self.again() {
            // The first answer never arrives.
            self.note(&server.poll(Poll { wait_ms: 0, ..poll.clone() }).await);
        }
        let answer = server.poll(poll).await;
        self.note(&answer);
        self.answer(answer).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        let server = self.server().await?;
        if self.again() {
            self.note(&server.report(reports.clone()).await);
        }
        let answer = server.report(reports).await;
        self.note(&answer);
        self.answer(answer).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        self.server().await?.playbook(catalog_id).await
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        self.server().await?.result(reference).await
    }

    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
        let server = self.server().await?;
        self.answer(server.log(lines).await).await
    }

    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        match self.server().await {
            Ok(server) => server.credential(warrant, alias).await,
            Err(error) => Err(SecretError::Unreachable(error.to_string())),
        }
    }

    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        match self.server().await {
            Ok(server) => server.kept(warrant, under).await,
            Err(error) => Err(SecretError::Unreachable(error.to_string())),
        }
    }

    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError> {
        match self.server().await {
            Ok(server) => server.keep(warrant, under, value, life_ms).await,
            Err(error) => Err(SecretError::Unreachable(error.to_string())),
        }
    }

    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool {
        match self.server().await {
            Ok(server) => server.is_cancelled(execution_id).await,
            Err(_) => false,
        }
    }
}
