//! Secrets on the server side: given to whoever holds a live command, under that claim and for that long.
//!
//! Nothing is kept here. Each request looks at the command's row and opens the credential anew, so that a cancel, a
//! lost claim and a changed password take effect with the next request.

use std::fmt;

use async_trait::async_trait;
use noetl_core::secret::{Credential, Warrant, Withheld};
use noetl_store::StoreError;

use crate::engine::Engine;

/// Opens what the store keeps sealed. An installation has one.
#[async_trait]
pub trait Vault: fmt::Debug + Send + Sync {
    /// Returns the credential under an alias.
    async fn credential(&self, alias: &str) -> Result<Option<Credential>, SecretError>;
}

/// Why a secret is not given. Never holds one.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody registered it.
    #[error("there is no credential `{0}`: register it with `noetl register credential`")]
    Unknown(String),
    /// The claim does not hold (any more).
    #[error("secrets are given to the worker that runs the command: {0}")]
    Withheld(#[from] Withheld),
    /// It is there, and can not be opened.
    #[error("{0}")]
    Locked(String),
    /// The store could not do it; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server could not be reached, or did not understand.
    #[error("the server can not be reached: {0}")]
    Unreachable(String),
}

impl Engine {
    /// Returns a credential to the worker that holds a live command.
    ///
    /// # Errors
    /// If the warrant does not hold, or there is no such credential, or it can not be opened.
    pub async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        self.vault_for(warrant).await?.credential(alias).await?.ok_or_else(|| SecretError::Unknown(alias.to_owned()))
    }

    /// Returns the vault, if the warrant holds.
    async fn vault_for(&self, warrant: &Warrant) -> Result<&dyn Vault, SecretError> {
        let view = self.store.view(warrant.execution_id).await?.ok_or(Withheld::NotHeld)?;
        warrant.check(&view)?;
        self.options.vault.as_deref().ok_or_else(|| SecretError::Locked("this server keeps no secrets".into()))
    }
}
