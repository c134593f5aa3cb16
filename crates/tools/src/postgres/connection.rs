//! A connection: made, set up, watched, reset, and given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, CancelToken, Client, SimpleQueryMessage};

use super::error::Trouble;
use super::target::Target;
use crate::output::{LogSink, Stream};

/// How long it may take until a server accepts us.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most remarks of the server that wait to be logged; more are dropped.
const NOTICES_WAITING_MAX: usize = 1024;

/// What the form of values depends on: it must not be what a role or database has as its own default.
const SETTINGS: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; \
                        SET extra_float_digits = 1";

/// Makes the server look while it works whether we still live, so that a statement does not outlive its worker.
/// Servers before version 14, and some systems, do not know how.
const LOOK_WHETHER_CLIENT_LIVES: &str = "SET client_connection_check_interval = 1000";

/// Ends an open transaction, and gives back what statements may have taken hold of or changed.
///
/// `DISCARD ALL` would do it too, and forget the statements that the driver has prepared for looking up types.
const RESET: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// SQLSTATE of the remark that there was no transaction to roll back.
const NO_TRANSACTION: &str = "25P01";

/// A connection and what the server remarks on it.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    notices: mpsc::Receiver<Notice>,
}

/// The way to one backend.
pub(crate) struct Link {
    client: Client,
    pid: i32,
    target: Arc<Target>,
    cancel: CancelToken,
    looks_whether_client_lives: bool,
    /// Whether a statement may be running.
    busy: AtomicBool,
    reset: Arc<Reset>,
    /// What reads from the server, and holds the connection open.
    reader: AbortHandle,
}

/// What is learned from a reset.
#[derive(Debug, Default)]
struct Reset {
    is_running: AtomicBool,
    found_no_transaction: AtomicBool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("pid", &self.pid).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Something the server says beside its answers.
#[derive(Debug)]
pub(crate) struct Notice(String);

impl Notice {
    pub(crate) fn tell(self, log: &dyn LogSink) {
        for line in self.0.lines() {
            log.line(Stream::Stderr, line);
        }
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(target: &Arc<Target>) -> Result<Self, Trouble> {
        let opening = async {
            let (client, mut connection) = target.config.connect(target.tls.connector()?).await?;
            let cancel = client.cancel_token();
            let (sender, notices) = mpsc::channel(NOTICES_WAITING_MAX);
            let reset = Arc::new(Reset::default());
            let learned = Arc::clone(&reset);
            // It ends when the client is dropped, or the server is gone.
            let reader = tokio::spawn(async move {
                while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                    let AsyncMessage::Notice(said) = message else { continue };
                    if learned.is_running.load(Ordering::Relaxed) && said.code().code() == NO_TRANSACTION {
                        learned.found_no_transaction.store(true, Ordering::Relaxed);
                    } else {
                        let text = format!("{}: {}", said.severity(), said.message());
                        sender.try_send(Notice(text)).ok();
                    }
                }
            })
            .abort_handle();
            let looks_whether_client_lives = client.batch_execute(LOOK_WHETHER_CLIENT_LIVES).await.is_ok();
            let pid = client.simple_query("SELECT pg_backend_pid()").await?.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            let pid = pid.ok_or(Trouble::Odd("the server does not name its backend"))?;
            let target = Arc::clone(target);
            let busy = AtomicBool::new(false);
            let link = Link { client, pid, target, cancel, looks_whether_client_lives, busy, reset, reader };
            let connection = Connection { link, notices };
            connection.link.client.batch_execute(SETTINGS).await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Trouble::ConnectTimeout),
        }
    }

    /// Sets a connection up again that has been idle; fails if it does not work any more.
    pub(crate) async fn refresh(&self) -> Result<(), Trouble> {
        if self.link.looks_whether_client_lives {
            self.link.client.batch_execute(LOOK_WHETHER_CLIENT_LIVES).await?;
        }
        Ok(self.link.client.batch_execute(SETTINGS).await?)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.link.target
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.link.client.is_closed()
    }

    /// Returns the way to the backend, and what the server remarks.
    pub(crate) fn parts(&mut self) -> (&Link, &mut mpsc::Receiver<Notice>) {
        (&self.link, &mut self.notices)
    }

    /// Passes on what the server has remarked and nobody has heard yet.
    pub(crate) fn tell_notices(&mut self, log: &dyn LogSink) {
        while let Ok(notice) = self.notices.try_recv() {
            notice.tell(log);
        }
    }
}

impl Link {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Ends an open transaction and gives back what the session holds; returns whether there was a transaction.
    pub(crate) async fn reset(&self) -> Result<bool, Trouble> {
        self.reset.found_no_transaction.store(false, Ordering::Relaxed);
        self.reset.is_running.store(true, Ordering::Relaxed);
        self.client.batch_execute(RESET).await?;
        // What the server remarks on a statement it sends before the end of its answer, and one task reads both.
        self.reset.is_running.store(false, Ordering::Relaxed);
        Ok(!self.reset.found_no_transaction.load(Ordering::Relaxed))
    }

    /// Says whether a statement may be running.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Returns whether a statement may be running.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Asks the server to end what runs on this connection. The connection must not be used for anything else
    /// afterwards: the request may arrive late.
    pub(crate) fn request_cancel(&self) {
        tokio::spawn(self.cancel_request());
    }

    fn cancel_request(&self) -> impl Future<Output = ()> + use<> {
        let cancel = self.cancel.clone();
        let target = Arc::clone(&self.target);
        async move {
            let requested = async { Ok::<_, Trouble>(cancel.cancel_query(target.tls.connector()?).await?) };
            match tokio::time::timeout(CONNECT_TIMEOUT, requested).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, %target, "a cancel request did not get through"),
                Err(_) => tracing::warn!(%target, "a cancel request got no answer"),
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Whoever waited for a statement was dropped; that does not stop the statement.
        if self.busy.load(Ordering::Relaxed)
            && !self.client.is_closed()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            // Race: a request that comes before the backend has begun with the statement is forgotten. Nobody is left
            // to repeat it, but a server that looks whether its client lives ends the statement of a closed connection.
            let request = self.cancel_request();
            let reader = self.reader.clone();
            tokio::spawn(async move {
                request.await;
                reader.abort();
            });
        }
    }
}

/// Ends a backend from another connection.
pub(crate) fn terminate(target: Arc<Target>, pid: i32) {
    tokio::spawn(async move {
        let done = async {
            let connection = Connection::open(&target).await?;
            let sql = format!("SELECT pg_terminate_backend({pid})");
            connection.link.client.batch_execute(&sql).await?;
            Ok::<_, Trouble>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, %target, pid, "could not terminate a backend");
        }
    });
}
