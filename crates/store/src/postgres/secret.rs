//! Credentials, keychain entries and the fingerprint of their key: ciphertext in, ciphertext out.
//!
//! Whoever writes something secret holds the row of the fingerprint until it is written, and whoever changes the key
//! holds it alone: nothing is ever kept under a key that has just been given up.

use deadpool_postgres::ClientWrapper;
use noetl_core::id::CredentialId;
use noetl_core::time::Timestamp;
use tokio_postgres::types::ToSql;

use super::read::{ask, first};
use super::transaction::{self, all};
use super::types::Moment;
use super::write::json;
use super::{Inner, rows};
use crate::StoreError;
use crate::secret::{CredentialRow, KeychainRow, Resealed};

/// Name of the setting that holds the key's fingerprint.
const KEY_FINGERPRINT: &str = "key_fingerprint";
const FINGERPRINT: &str = "SELECT value FROM noetl.setting WHERE name = $1";

pub(super) async fn credential(client: &ClientWrapper, name_or_id: &str) -> Result<Option<CredentialRow>, StoreError> {
    let id = name_or_id.parse::<CredentialId>().map_or(0, |id| id.0);
    let query = format!(
        "SELECT {} FROM noetl.credential WHERE name = $1 OR id = $2 ORDER BY (name = $1) DESC LIMIT 1",
        rows::CREDENTIAL
    );
    first(client, &query, &[&name_or_id, &id], rows::credential).await
}

pub(super) async fn credentials(client: &ClientWrapper) -> Result<Vec<CredentialRow>, StoreError> {
    let query = format!("SELECT {} FROM noetl.credential ORDER BY name", rows::CREDENTIAL);
    all(&ask(client, &query, &[]).await?, rows::credential)
}

pub(super) async fn key_fingerprint(client: &ClientWrapper) -> Result<Option<String>, StoreError> {
    first(client, FINGERPRINT, &[&KEY_FINGERPRINT], rows::sentence).await
}

pub(super) async fn keychain(
    inner: &Inner,
    client: &ClientWrapper,
    cache_key: &str,
) -> Result<Option<KeychainRow>, StoreError> {
    let now = transaction::now(inner, client).await?;
    let query = format!("SELECT {} FROM noetl.keychain WHERE cache_key = $1 AND expires_at > $2", rows::KEYCHAIN);
    first(client, &query, &[&cache_key, &Moment(now)], rows::keychain).await
}

pub(super) async fn delete_credential(client: &ClientWrapper, id: CredentialId) -> Result<bool, StoreError> {
    Ok(client.execute("DELETE FROM noetl.credential WHERE id = $1", &[&id.0]).await? == 1)
}

pub(super) async fn keep_key_fingerprint(
    inner: &Inner,
    client: &ClientWrapper,
    fingerprint: &str,
) -> Result<String, StoreError> {
    let now = transaction::now(inner, client).await?;
    let query = "INSERT INTO noetl.setting (name, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    client.execute(query, &[&KEY_FINGERPRINT, &fingerprint, &Moment(now)]).await?;
    key_fingerprint(client)
        .await?
        .ok_or_else(|| StoreError::Corrupt("the fingerprint of the key was kept and is not there".into()))
}

/// How the row of the fingerprint is held.
#[derive(Debug, Clone, Copy)]
enum Hold {
    /// With others who write something secret.
    Shared,
    /// Alone, to change it.
    Alone,
}

/// Begins a transaction and holds the fingerprint, if it is `key`; returns whether it is.
async fn begin(client: &ClientWrapper, key: &str, hold: Hold) -> Result<bool, StoreError> {
    client.batch_execute("BEGIN").await?;
    let lock = match hold {
        Hold::Shared => "FOR SHARE",
        Hold::Alone => "FOR UPDATE",
    };
    let kept = client.query_opt(&format!("{FINGERPRINT} {lock}"), &[&KEY_FINGERPRINT]).await?;
    Ok(kept.map(|row| rows::sentence(&row)).transpose()?.as_deref() == Some(key))
}

/// Commits when something was written, and rolls back otherwise.
async fn end(client: &ClientWrapper, written: Result<bool, StoreError>) -> Result<bool, StoreError> {
    if let Ok(true) = written {
        client.batch_execute("COMMIT").await?;
    } else {
        transaction::give_up(client).await;
    }
    written
}

pub(super) async fn put_credential(client: &ClientWrapper, row: &CredentialRow, key: &str) -> Result<bool, StoreError> {
    let written = async {
        if !begin(client, key, Hold::Shared).await? {
            return Ok(false);
        }
        let (id, name, kind) = (row.id.0, row.name.as_ref(), row.kind.as_ref());
        let (sealed, meta, tags) = (row.sealed.0.as_ref(), row.meta.as_ref().map(json), json(&row.tags));
        let updated_at = Moment(row.updated_at);
        let mut values: Vec<&(dyn ToSql + Sync)> =
            vec![&id, &name, &kind, &row.version, &sealed, &meta, &tags, &row.description, &updated_at];
        let created_at = Moment(row.created_at);
        let query = if row.version == 1 {
            values.push(&created_at);
            "INSERT INTO noetl.credential (id, name, type, version, data_encrypted, meta, tags, description, \
             updated_at, created_at) VALUES ($1, $2, $3, $4, $5, $6::text::json, $7::text::json, $8, $9, $10) \
             ON CONFLICT DO NOTHING"
        } else {
            // The time of the first registration stands.
            "UPDATE noetl.credential SET type = $3, version = $4, data_encrypted = $5, meta = $6::text::json, \
             tags = $7::text::json, description = $8, updated_at = $9 \
             WHERE id = $1 AND name = $2 AND version = $4::bigint - 1"
        };
        let written = client.execute(query, &values).await?;
        Ok(written == 1)
    };
    end(client, written.await).await
}

pub(super) async fn reseal(
    inner: &Inner,
    client: &ClientWrapper,
    from: &str,
    to: &str,
    resealed: &[Resealed],
) -> Result<bool, StoreError> {
    let written = async {
        if !begin(client, from, Hold::Alone).await? {
            return Ok(false);
        }
        // Nothing secret is written while the fingerprint is held alone; a removal may be, so the rows are held too.
        let query = format!("SELECT {} FROM noetl.credential ORDER BY id FOR UPDATE", rows::CREDENTIAL);
        let present = all(&client.query(&query, &[]).await?, rows::credential)?;
        let mut present: Vec<_> = present.iter().map(|row| (row.id, row.version)).collect();
        let mut opened: Vec<_> = resealed.iter().map(|row| (row.id, row.version)).collect();
        present.sort_unstable();
        opened.sort_unstable();
        if present != opened {
            return Ok(false);
        }
        let ids: Vec<i64> = resealed.iter().map(|row| row.id.0).collect();
        let sealed: Vec<&str> = resealed.iter().map(|row| row.sealed.0.as_ref()).collect();
        let query = "UPDATE noetl.credential c SET data_encrypted = n.sealed, version = c.version + 1 \
                     FROM unnest($1::bigint[], $2::text[]) AS n (id, sealed) WHERE c.id = n.id";
        client.execute(query, &[&ids, &sealed]).await?;
        client.execute("DELETE FROM noetl.keychain", &[]).await?;
        let query = "UPDATE noetl.setting SET value = $2, updated_at = $3 WHERE name = $1";
        client.execute(query, &[&KEY_FINGERPRINT, &to, &Moment(inner.clock.now())]).await?;
        Ok(true)
    };
    end(client, written.await).await
}

pub(super) async fn keep_keychain(
    inner: &Inner,
    client: &ClientWrapper,
    row: &KeychainRow,
    key: &str,
) -> Result<bool, StoreError> {
    let now: Timestamp = transaction::now(inner, client).await?;
    let written = async {
        if !begin(client, key, Hold::Shared).await? {
            return Ok(false);
        }
        // What somebody else forgets or keeps at this moment is his; nobody waits for it.
        let expired = "DELETE FROM noetl.keychain WHERE cache_key IN (SELECT cache_key FROM noetl.keychain \
                       WHERE expires_at <= $1 ORDER BY cache_key FOR UPDATE SKIP LOCKED)";
        client.execute(expired, &[&Moment(now)]).await?;
        let query = "INSERT INTO noetl.keychain (cache_key, keychain_name, catalog_id, credential_type, cache_type, \
             scope_type, execution_id, root_execution_id, data_encrypted, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, 'token', $5, $6, $7, $8, $9, $10) ON CONFLICT (cache_key) DO UPDATE SET \
             keychain_name = excluded.keychain_name, catalog_id = excluded.catalog_id, \
             credential_type = excluded.credential_type, scope_type = excluded.scope_type, \
             execution_id = excluded.execution_id, root_execution_id = excluded.root_execution_id, \
             data_encrypted = excluded.data_encrypted, expires_at = excluded.expires_at, \
             created_at = excluded.created_at, accessed_at = NULL, access_count = 0";
        client
            .execute(
                query,
                &[
                    &row.cache_key.as_ref(),
                    &row.name.as_ref(),
                    &row.catalog_id.0,
                    &row.kind.as_ref(),
                    &row.scope.as_ref(),
                    &row.execution.map(|(execution_id, _)| execution_id.0),
                    &row.execution.map(|(_, root)| root.0),
                    &row.sealed.0.as_ref(),
                    &Moment(row.expires_at),
                    &Moment(now),
                ],
            )
            .await?;
        Ok(true)
    };
    end(client, written.await).await
}
