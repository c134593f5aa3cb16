//! The worker's way to a server over HTTP, or over the socket of a data directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use noetl_core::head::Status;
use noetl_core::id::{CatalogId, ExecutionId, SessionId};
use noetl_core::log::LogLine;
use noetl_core::playbook::{self, Playbook};
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant, Withheld};
use noetl_engine::secrets::SecretError;
use noetl_engine::transport::{Hello, Orders, Poll, Reports, Transport, Welcome, WorkerError};
use noetl_store::StoreError;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::catalog::Entry;
use crate::api::error::ErrorBody;
use crate::api::executions::check::CheckReply;
use crate::api::worker::secrets::{self, CredentialAsk, KeepReply, KeepRequest, KeptAsk, KeptReply};
use crate::api::worker::{NAME_TAKEN, Printed, PrintedReply};
use crate::arrivals::Arrivals;
use crate::client::causes;
use crate::server::{doors, tls};

/// Longest time to a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to an answer, beyond what the request asks the server to wait.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a poll: shorter, so that a server that is gone without a word is noticed before the lease runs out.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to an answer that carries or takes data.
pub const DATA_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that was idle for so long is not used again: the server closes it after a while.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Playbook versions kept compiled.
const PLAYBOOKS_MAX: usize = 256;

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address is none.
    #[error("`{0}` is no server address: write it like https://noetl.example.com or http://localhost:8082")]
    Url(String),
    /// The token would travel in the clear, and so would playbooks and results.
    #[error("{0} is not encrypted: use https://, or say --insecure if the network itself is trusted")]
    Insecure(String),
    /// The client could not be made.
    #[error("the HTTP client can not be made: {0}")]
    Client(String),
}

/// The way to a server.
#[derive(Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
    base: Url,
    /// Where it is reached instead of the network.
    socket: Option<PathBuf>,
    token: Option<String>,
    playbooks: Mutex<IndexMap<CatalogId, Arc<Playbook>>>,
    arrivals: Mutex<Arrivals>,
}

impl HttpTransport {
    /// Returns the way to a server on the network. `insecure` allows `http://` beyond this machine.
    pub fn to_url(url: &str, token: Option<String>, insecure: bool) -> Result<Self, TransportError> {
        let refuse = || TransportError::Url(url.to_owned());
        let base = Url::parse(url).map_err(|_| refuse())?;
        let host = base.host_str().ok_or_else(refuse)?;
        match base.scheme() {
            "https" => {}
            "http" if insecure || doors::is_loopback(host) => {}
            "http" => return Err(TransportError::Insecure(url.to_owned())),
            _ => return Err(refuse()),
        }
        let builder = if doors::is_loopback(host) { builder().no_proxy() } else { builder() };
        HttpTransport::with(builder, base, None, token)
    }

    /// Returns the way to the owner of a data directory.
    pub fn to_socket(socket: &Path) -> Result<Self, TransportError> {
        let base = Url::parse("http://localhost/").map_err(|_| TransportError::Url("http://localhost/".to_owned()))?;
        HttpTransport::with(builder().no_proxy().unix_socket(socket), base, Some(socket.to_path_buf()), None)
    }

    fn with(
        builder: reqwest::ClientBuilder,
        base: Url,
        socket: Option<PathBuf>,
        token: Option<String>,
    ) -> Result<Self, TransportError> {
        let client = builder.build().map_err(|error| TransportError::Client(error.to_string()))?;
        let (playbooks, arrivals) = (Mutex::default(), Mutex::default());
        Ok(HttpTransport { client, base, socket, token, playbooks, arrivals })
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        session_id: Option<SessionId>,
    ) -> Result<A, WorkerError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let unreachable = |error: reqwest::Error| WorkerError::Unreachable(self.lost(error));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(response.headers());
            return response.json().await.map_err(unreachable);
        }
        let body = response.bytes().await.unwrap_or_default();
        let (code, message) = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => (body.code, body.message),
            Err(_) => (String::new(), format!("the server answered {status}")),
        };
        Err(match (status, session_id) {
            (StatusCode::CONFLICT, None) if code == NAME_TAKEN => WorkerError::NameTaken(message),
            (StatusCode::GONE, Some(session_id)) => WorkerError::UnknownSession(session_id),
            (StatusCode::UPGRADE_REQUIRED, _) => WorkerError::TooNew(message),
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE, _) => {
                WorkerError::Store(StoreError::Unavailable(message))
            }
            (status, _) if status.is_client_error() => WorkerError::Bad(message),
            _ => WorkerError::Unreachable(message),
        })
    }

    /// Asks for something secret, and tells refusals that stand from those that pass.
    async fn ask_secret<A: DeserializeOwned>(
        &self,
        path: &str,
        ask: &impl Serialize,
        name: &str,
    ) -> Result<A, SecretError> {
        let unreachable = |error: WorkerError| SecretError::Unreachable(error.to_string());
        let request = self.post(path, ask, ANSWER_TIMEOUT).map_err(unreachable)?;
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let lost = |error: reqwest::Error| SecretError::Unreachable(self.lost(error));
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        if status.is_success() {
            // What can not be read is not repeated: it may be the secret.
            let unreadable = |_| SecretError::Unreachable("its answer can not be read".to_owned());
            return response.json().await.map_err(unreadable);
        }
        let body = response.bytes().await.unwrap_or_default();
        let body: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        Err(match body.code.as_str() {
            secrets::UNKNOWN => SecretError::Unknown(name.to_owned()),
            secrets::WITHHELD => SecretError::Withheld(Withheld::NotHeld),
            secrets::LOCKED => SecretError::Locked(body.message),
            _ => SecretError::Unreachable(format!("the server answered {status}")),
        })
    }

    /// Says why there is no answer. Over a socket the address is a mere form.
    fn lost(&self, error: reqwest::Error) -> String {
        match &self.socket {
            Some(socket) => format!("{}: {}", socket.display(), causes(&error.without_url())),
            None => causes(&error),
        }
    }

    fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<reqwest::RequestBuilder, WorkerError> {
        Ok(self.client.request(Method::POST, self.url(path)?).timeout(timeout).json(body))
    }

    fn url(&self, path: &str) -> Result<Url, WorkerError> {
        self.base.join(path).map_err(|error| WorkerError::Bad(format!("{path}: {error}")))
    }
}

fn builder() -> reqwest::ClientBuilder {
    tls::install_provider();
    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).pool_idle_timeout(IDLE_TIMEOUT)
}

#[async_trait]
impl Transport for HttpTransport {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        self.ask(self.post("api/worker/hello", &hello, ANSWER_TIMEOUT)?, None).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        let timeout = POLL_TIMEOUT + Duration::from_millis(poll.wait_ms);
        self.ask(self.post("api/worker/poll", &poll, timeout)?, Some(poll.session_id)).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        let timeout = DATA_TIMEOUT + Duration::from_millis(reports.poll.wait_ms);
        self.ask(self.post("api/worker/report", &reports, timeout)?, Some(reports.poll.session_id)).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        if let Some(known) = self.playbooks.lock().unwrap_or_else(PoisonError::into_inner).get(&catalog_id) {
            return Ok(Arc::clone(known));
        }
        let url = self.url(&format!("api/worker/playbook/{catalog_id}"))?;
        let entry: Entry = self.ask(self.client.get(url).timeout(DATA_TIMEOUT), None).await?;
        let compiled = playbook::compile(&entry.content).map_err(|diagnostics| {
            let first = diagnostics.first().map_or_else(String::new, ToString::to_string);
            WorkerError::Bad(format!("this worker can not compile {}: {first}", entry.path))
        })?;
        let playbook = Arc::new(compiled.playbook);
        let mut known = self.playbooks.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PLAYBOOKS_MAX {
            known.shift_remove_index(0);
        }
        known.insert(catalog_id, Arc::clone(&playbook));
        Ok(playbook)
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        let mut url = self.url("api/result/resolve")?;
        url.query_pairs_mut().append_pair("ref", reference);
        self.ask(self.client.get(url).timeout(DATA_TIMEOUT), None).await.map(Arc::new)
    }

    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
        let taken: Result<PrintedReply, _> =
            self.ask(self.post("api/worker/log", &Printed { lines }, ANSWER_TIMEOUT)?, None).await;
        taken.map(|_| ())
    }

    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        let ask = CredentialAsk { warrant: *warrant, alias: alias.to_owned() };
        self.ask_secret("api/worker/credential", &ask, alias).await
    }

    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        let ask = KeptAsk { warrant: *warrant, under: under.clone() };
        let reply: KeptReply = self.ask_secret("api/worker/keychain/find", &ask, &under.name).await?;
        Ok(reply.value)
    }

    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError> {
        let request = KeepRequest { warrant: *warrant, under: under.clone(), value, life_ms };
        let kept = self.ask_secret::<KeepReply>("api/worker/keychain/keep", &request, &under.name);
        kept.await.map(drop)
    }

    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool {
        // The open poll brings the news; asking before each start would cost a round trip.
        if !self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).is_doubtful() {
            return false;
        }
        let Ok(url) = self.url(&format!("api/executions/{execution_id}/cancellation-check")) else { return false };
        let request = self.client.get(url).timeout(ANSWER_TIMEOUT);
        // No answer is no news.
        self.ask::<CheckReply>(request, None).await.is_ok_and(|reply| reply.status != Status::Running.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clear_text_way_ends_at_this_machine() {
        for url in ["http://localhost:8082", "http://127.0.0.1:1/", "http://[::1]:8082", "https://example.com"] {
            assert!(HttpTransport::to_url(url, None, false).is_ok(), "{url}");
        }
        assert!(matches!(HttpTransport::to_url("http://example.com", None, false), Err(TransportError::Insecure(_))));
        assert!(HttpTransport::to_url("http://example.com", None, true).is_ok());
        for url in ["example.com", "ftp://example.com", ""] {
            assert!(matches!(HttpTransport::to_url(url, None, true), Err(TransportError::Url(_))), "{url}");
        }
    }
}
