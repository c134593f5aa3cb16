//! "Look again": what servers tell each other over LISTEN and NOTIFY.
//!
//! A hint may be lost, and nothing depends on it: what it speaks of stands in the tables. It has a connection of its
//! own, because a NOTIFY inside the transaction of an append would make all commits queue behind each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::{AsyncMessage, Client};

use super::connection::Address;
use crate::StoreError;

/// What is listened to.
const CHANNEL: &str = "noetl_look_again";
/// Shortest time between two hints that one server gives.
const PAUSE: Duration = Duration::from_millis(5);
/// Pause before a broken connection is made anew.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Hints given and heard.
#[derive(Debug)]
pub(super) struct Hints {
    given: Notify,
    heard: watch::Sender<u64>,
}

impl Hints {
    pub(super) fn new() -> Self {
        Hints { given: Notify::new(), heard: watch::Sender::new(0) }
    }

    /// Tells the others to look again, soon.
    pub(super) fn give(&self) {
        self.given.notify_one();
    }

    /// Returns what changes whenever another server says so.
    pub(super) fn hear(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}

/// Passes hints on until it is ended.
pub(super) async fn run(address: Address, hints: Arc<Hints>) {
    loop {
        if let Err(error) = pass_on(&address, &hints).await {
            tracing::warn!(%error, "no hints from other servers; their work is found by looking, until this is over");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn pass_on(address: &Address, hints: &Arc<Hints>) -> Result<(), StoreError> {
    // Bounded: one hint that waits says as much as many.
    let (heard, mut hearing) = mpsc::channel(1);
    let (client, connection) = address
        .connect(move |message| {
            if let AsyncMessage::Notification(notification) = message {
                // A full queue holds a hint already.
                heard.try_send(notification.process_id()).ok();
            }
        })
        .await?;
    let own = begin(&client).await?;
    // What was said while nobody listened.
    hints.heard.send_modify(|count| *count += 1);
    loop {
        tokio::select! {
            from = hearing.recv() => match from {
                Some(from) if from == own => {}
                Some(_) => hints.heard.send_modify(|count| *count += 1),
                None => break,
            },
            () = hints.given.notified() => {
                client.batch_execute(&format!("NOTIFY {CHANNEL}")).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(client);
    connection.await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

async fn begin(client: &Client) -> Result<i32, StoreError> {
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok(client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?)
}
