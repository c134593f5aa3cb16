//! Concurrency keys: held from a batch's look to its commit, so that two starts never take the same place.
//!
//! Heads first, then keys, in order: whoever holds a key waits for no head. An execution that leaves its key needs no
//! hold: a start that has not seen it yet is refused, and decided again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use noetl_core::concurrency::KeyHolder;

use super::transaction::Trouble;
use super::{read, rows};
use crate::StoreError;

/// Tells the locks of keys from other advisory locks of this database.
const SPACE: &str = "noetl concurrency key ";
/// Two keys with the same hash only wait for each other.
const HOLD: &str = "SELECT pg_advisory_xact_lock(hash) FROM \
                    (SELECT DISTINCT hashtextextended(key, 0) AS hash FROM unnest($1::text[]) AS k (key) ORDER BY 1) h";
const HOLDERS: &str = "SELECT execution_id, active, started_at FROM noetl.execution \
                       WHERE concurrency_key = $1 AND quiesced_at IS NULL ORDER BY execution_id";

/// Holds keys until the transaction has ended; then, in a new statement, reads who has them.
pub(super) async fn hold(
    client: &ClientWrapper,
    keys: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, Vec<KeyHolder>>, Trouble> {
    let names: Vec<String> = keys.iter().map(|key| format!("{SPACE}{key}")).collect();
    let statement = client.prepare_cached(HOLD).await?;
    client.query(&statement, &[&names]).await?;
    let statement = client.prepare_cached(HOLDERS).await?;
    let mut held = BTreeMap::new();
    for key in keys {
        let found = client.query(&statement, &[&key.as_ref()]).await?;
        held.insert(Arc::clone(key), super::transaction::all(&found, rows::key_holder)?);
    }
    Ok(held)
}

/// Reads who has a key.
pub(super) async fn holders(client: &ClientWrapper, key: &str) -> Result<Vec<KeyHolder>, StoreError> {
    super::transaction::all(&read::ask(client, HOLDERS, &[&key]).await?, rows::key_holder)
}
