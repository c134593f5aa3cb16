//! Connections that are kept for the next call.
//!
//! A worker's slot runs one call at a time and a call has one connection, a transfer two, so the slots bound how many
//! are in use; here is the bound of those that are not. A library's pool would want a size per target, and there is
//! no knowing the targets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use noetl_core::tool::ToolError;

use super::connection::Connection;
use super::error::tool_error;
use super::target::Target;

/// Most idle connections, over all targets; the longest idle goes first.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 32;

/// How long a connection stays idle.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle connections to any number of servers. Only such as have been reset.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Arc<Mutex<Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// With a number of its own each, in the order in which they came.
    connections: Vec<(u64, Connection)>,
    next: u64,
}

impl Pool {
    /// Returns a connection to `target`: an idle one that still works, else a new one.
    pub(crate) async fn connect(&self, target: &Arc<Target>) -> Result<Connection, ToolError> {
        while let Some(connection) = self.take(target) {
            // Race: the server may have closed it since it was looked at; the set-up finds out.
            if connection.refresh().await.is_ok() {
                return Ok(connection);
            }
        }
        Connection::open(target).await.map_err(|trouble| tool_error(&trouble).with("target", target.to_string()))
    }

    /// Keeps a connection that was reset.
    pub(crate) fn keep(&self, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let (number, dropped) = {
            let mut shelf = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let number = shelf.next;
            shelf.next += 1;
            shelf.connections.push((number, connection));
            let full = shelf.connections.len() > IDLE_CONNECTIONS_MAX;
            (number, full.then(|| shelf.connections.remove(0)))
        };
        drop(dropped);
        let idle = Arc::downgrade(&self.idle);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if let Some(idle) = idle.upgrade() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).connections.retain(|(kept, _)| *kept != number);
            }
        });
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).connections.clear();
    }

    /// Takes the connection to `target` that was used last.
    fn take(&self, target: &Target) -> Option<Connection> {
        let mut shelf = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.connections.retain(|(_, connection)| !connection.is_closed());
        let found = shelf.connections.iter().rposition(|(_, connection)| connection.target() == target)?;
        Some(shelf.connections.remove(found).1)
    }
}
