//! Credentials, keychain entries and the fingerprint of their key: ciphertext in, ciphertext out.

use noetl_core::id::CredentialId;
use noetl_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::encode::json;
use super::read::{all, first};
use super::rows;
use super::tables::{Tables, one};
use crate::StoreError;
use crate::secret::{CredentialRow, KeychainRow, Resealed};

/// Name of the setting that holds the key's fingerprint.
const KEY_FINGERPRINT: &str = "key_fingerprint";

pub(super) fn credential(connection: &Connection, name_or_id: &str) -> Result<Option<CredentialRow>, StoreError> {
    let id = name_or_id.parse::<CredentialId>().map_or(0, |id| id.0);
    let query = format!(
        "SELECT {} FROM noetl.credential WHERE name = ?1 OR id = ?2 ORDER BY name = ?1 DESC LIMIT 1",
        rows::CREDENTIAL
    );
    first(connection, &query, params![name_or_id, id], rows::credential)
}

pub(super) fn credentials(connection: &Connection) -> Result<Vec<CredentialRow>, StoreError> {
    all(connection, &format!("SELECT {} FROM noetl.credential ORDER BY name", rows::CREDENTIAL), [], rows::credential)
}

pub(super) fn key_fingerprint(connection: &Connection) -> Result<Option<String>, StoreError> {
    one(connection, "SELECT value FROM noetl.setting WHERE name = ?1", [KEY_FINGERPRINT])
}

pub(super) fn keychain(
    connection: &Connection,
    cache_key: &str,
    now: Timestamp,
) -> Result<Option<KeychainRow>, StoreError> {
    let query = format!("SELECT {} FROM noetl.keychain WHERE cache_key = ?1 AND expires_at > ?2", rows::KEYCHAIN);
    first(connection, &query, params![cache_key, now.to_iso()], rows::keychain)
}

impl Tables {
    pub(super) fn put_credential(&mut self, row: &CredentialRow, key: &str) -> Result<bool, StoreError> {
        if key_fingerprint(&self.connection)?.as_deref() != Some(key) {
            return Ok(false);
        }
        let query = "INSERT INTO noetl.credential \
             (id, name, type, version, data_encrypted, meta, tags, description, created_at, updated_at) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 \
             WHERE ?4 = 1 OR EXISTS (SELECT 1 FROM noetl.credential WHERE id = ?1 AND name = ?2) \
             ON CONFLICT DO UPDATE SET type = excluded.type, version = excluded.version, \
             data_encrypted = excluded.data_encrypted, meta = excluded.meta, tags = excluded.tags, \
             description = excluded.description, updated_at = excluded.updated_at \
             WHERE id = excluded.id AND name = excluded.name AND version = excluded.version - 1";
        let written = self.connection.prepare_cached(query)?.execute(params![
            row.id.0,
            row.name.as_ref(),
            row.kind.as_ref(),
            row.version,
            row.sealed.0.as_ref(),
            row.meta.as_ref().map(json),
            json(&row.tags),
            row.description,
            row.created_at.to_iso(),
            row.updated_at.to_iso(),
        ])?;
        Ok(written == 1)
    }

    pub(super) fn delete_credential(&mut self, id: CredentialId) -> Result<bool, StoreError> {
        Ok(self.connection.execute("DELETE FROM noetl.credential WHERE id = ?1", [id.0])? == 1)
    }

    pub(super) fn keep_key_fingerprint(&mut self, fingerprint: &str) -> Result<String, StoreError> {
        let query = "INSERT OR IGNORE INTO noetl.setting (name, value, updated_at) VALUES (?1, ?2, ?3)";
        self.connection.execute(query, params![KEY_FINGERPRINT, fingerprint, self.now().to_iso()])?;
        key_fingerprint(&self.connection)?
            .ok_or_else(|| StoreError::Corrupt("the fingerprint of the key was kept and is not there".into()))
    }

    pub(super) fn reseal(&mut self, from: &str, to: &str, rows: &[Resealed]) -> Result<bool, StoreError> {
        if key_fingerprint(&self.connection)?.as_deref() != Some(from) {
            return Ok(false);
        }
        // Looked at before anything is written: nothing comes between.
        let mut present: Vec<_> = credentials(&self.connection)?.iter().map(|row| (row.id, row.version)).collect();
        let mut opened: Vec<_> = rows.iter().map(|row| (row.id, row.version)).collect();
        present.sort_unstable();
        opened.sort_unstable();
        if present != opened {
            return Ok(false);
        }
        for row in rows {
            let query = "UPDATE noetl.credential SET data_encrypted = ?2, version = version + 1 WHERE id = ?1";
            self.connection.prepare_cached(query)?.execute(params![row.id.0, row.sealed.0.as_ref()])?;
        }
        self.connection.execute("DELETE FROM noetl.keychain", [])?;
        let query = "UPDATE noetl.setting SET value = ?2, updated_at = ?3 WHERE name = ?1";
        self.connection.execute(query, params![KEY_FINGERPRINT, to, self.now().to_iso()])?;
        Ok(true)
    }

    pub(super) fn keep_keychain(&mut self, row: &KeychainRow, key: &str) -> Result<bool, StoreError> {
        if key_fingerprint(&self.connection)?.as_deref() != Some(key) {
            return Ok(false);
        }
        let now = self.now().to_iso();
        self.connection.prepare_cached("DELETE FROM noetl.keychain WHERE expires_at <= ?1")?.execute([&now])?;
        let query = "INSERT OR REPLACE INTO noetl.keychain (cache_key, keychain_name, catalog_id, credential_type, \
             cache_type, scope_type, execution_id, root_execution_id, data_encrypted, expires_at, created_at) \
             VALUES (?1, ?2, ?3, ?4, 'token', ?5, ?6, ?7, ?8, ?9, ?10)";
        self.connection.prepare_cached(query)?.execute(params![
            row.cache_key.as_ref(),
            row.name.as_ref(),
            row.catalog_id.0,
            row.kind.as_ref(),
            row.scope.as_ref(),
            row.execution.map(|(execution_id, _)| execution_id.0),
            row.execution.map(|(_, root)| root.0),
            row.sealed.0.as_ref(),
            row.expires_at.to_iso(),
            now,
        ])?;
        Ok(true)
    }
}
