//! Credentials for tools: asked for by alias when a tool runs, never part of what it was configured with.

use async_trait::async_trait;
pub use noetl_core::secret::Credential;
use noetl_core::tool::{ErrorKind, ToolError};

/// Hands credentials to a running tool.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Returns the credential under `alias`.
    ///
    /// # Errors
    /// An alias that is not registered is a hard error, see [`unknown_credential`]; so is one that may not be had.
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError>;
}

/// A place without credentials.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
        Err(unknown_credential(alias))
    }
}

/// Returns the error of a tool that names a credential nobody registered.
pub fn unknown_credential(alias: &str) -> ToolError {
    let message = format!("there is no credential `{alias}`: register it with `noetl register credential`");
    ToolError::hard(ErrorKind::Auth, "UNKNOWN_CREDENTIAL", message).with("credential", alias)
}
