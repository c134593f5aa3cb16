//! Secrets on the server side: given to whoever holds a live command, under that claim and for that long.
//!
//! Nothing is kept here. Each request looks at the command's row and opens the credential anew, so that a cancel, a
//! lost claim and a changed password take effect with the next request.

use std::fmt;

use async_trait::async_trait;
use noetl_core::id::ExecutionId;
use noetl_core::secret::keychain::{KeptUnder, TOKEN_LIFE_MS_MAX};
use noetl_core::secret::{Credential, Warrant, Withheld};
use noetl_store::StoreError;
use serde_json::Value;

use crate::engine::Engine;

/// Opens what the store keeps sealed. An installation has one.
#[async_trait]
pub trait Vault: fmt::Debug + Send + Sync {
    /// Returns the credential under an alias.
    async fn credential(&self, alias: &str) -> Result<Option<Credential>, SecretError>;

    /// Returns what is kept under `under`, for one execution and the top of its family or for all, unless it expired.
    async fn kept(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
    ) -> Result<Option<Value>, SecretError>;

    /// Keeps something for so many milliseconds.
    async fn keep(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
        value: Value,
        life_ms: u64,
    ) -> Result<(), SecretError>;
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
        let (vault, _) = self.vault_for(warrant).await?;
        vault.credential(alias).await?.ok_or_else(|| SecretError::Unknown(alias.to_owned()))
    }

    /// Returns a token that is kept, to the worker that holds a live command.
    ///
    /// # Errors
    /// If the warrant does not hold, or what is kept can not be opened.
    pub async fn kept_secret(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        let (vault, root) = self.vault_for(warrant).await?;
        vault.kept(under, under.for_one_execution().then_some((warrant.execution_id, root))).await
    }

    /// Keeps a token that the worker of a live command has been issued.
    ///
    /// # Errors
    /// If the warrant does not hold, or it can not be kept.
    pub async fn keep_secret(
        &self,
        warrant: &Warrant,
        under: &KeptUnder,
        value: Value,
        life_ms: u64,
    ) -> Result<(), SecretError> {
        let (vault, root) = self.vault_for(warrant).await?;
        let execution = under.for_one_execution().then_some((warrant.execution_id, root));
        vault.keep(under, execution, value, life_ms.min(TOKEN_LIFE_MS_MAX)).await
    }

    /// Returns the vault and the top of the family, if the warrant holds.
    async fn vault_for(&self, warrant: &Warrant) -> Result<(&dyn Vault, ExecutionId), SecretError> {
        let view = self.store.view(warrant.execution_id).await?.ok_or(Withheld::NotHeld)?;
        warrant.check(&view)?;
        match self.options.vault.as_deref() {
            Some(vault) => Ok((vault, view.head.root_execution_id)),
            None => Err(SecretError::Locked("this server keeps no secrets".into())),
        }
    }
}
