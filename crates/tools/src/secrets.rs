//! Credentials for tools: asked for by alias when a tool runs, never part of what it was configured with.

use async_trait::async_trait;
pub use noetl_core::secret::Credential;
use noetl_core::secret::keychain::TokenRequest;
use noetl_core::tool::{ErrorKind, ToolError};
use serde_json::{Map, Value};

/// Hands credentials to a running tool.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Returns the credential under `alias`.
    ///
    /// # Errors
    /// An alias that is not registered is a hard error, see [`unknown_credential`]; so is one that may not be had.
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError>;

    /// Returns what the issuer answers to a request for a token: one that is kept, while it is good, else a new one.
    ///
    /// # Errors
    /// If the issuer gives none. Whoever can ask no issuer refuses.
    async fn token(&self, request: TokenRequest) -> Result<Map<String, Value>, ToolError> {
        let message = format!("a token from {} can not be had here", request.endpoint);
        Err(ToolError::hard(ErrorKind::Auth, "AUTH_NOT_CONFIGURED", message))
    }
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
