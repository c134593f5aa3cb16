//! Node numbers: ids hold one, so that two servers never make the same.
//!
//! A number is taken by a lock that the database gives to one session, and is free again when that session ends,
//! however that happens.

use std::fmt;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::connection::Address;
use crate::StoreError;

/// How many numbers there are: as many as ids have bits for.
const NUMBERS: i32 = 1 << 10;
/// Tells these locks from others: `node`.
const CLASS: i32 = 0x6e6f_6465;

/// A number, for as long as its session lives.
pub(super) struct NodeNumber {
    number: u16,
    _client: Client,
    session: JoinHandle<()>,
}

impl fmt::Debug for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeNumber").field(&self.number).finish()
    }
}

impl NodeNumber {
    /// Takes the first number that is free, from a place that differs from server to server: one that was given back
    /// a moment ago is not taken at once.
    pub(super) async fn take(address: &Address) -> Result<Self, StoreError> {
        let (client, session) = address.connect(|_| {}).await?;
        let query = "SELECT n FROM (SELECT (pg_backend_pid() + k) % $1 AS n FROM generate_series(0, $1 - 1) k) all_of \
                     WHERE pg_try_advisory_lock($2, n) LIMIT 1";
        let taken = client.query_opt(query, &[&NUMBERS, &CLASS]).await?;
        let number: Option<i32> = taken.map(|row| row.try_get(0)).transpose()?;
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(number) => Ok(NodeNumber { number, _client: client, session }),
            None => Err(StoreError::Closed(format!("{NUMBERS} servers use this database already"))),
        }
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Ends the session.
    pub(super) fn give_back(&self) {
        self.session.abort();
    }
}

impl Drop for NodeNumber {
    fn drop(&mut self) {
        self.give_back();
    }
}
