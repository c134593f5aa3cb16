//! What a running command may know: asked for under its claim, when it needs it.

use std::fmt;
use std::sync::Arc;

use noetl_core::secret::{Credential, Warrant};
use noetl_core::tool::{ErrorKind, ToolError};
use tokio::time::{Duration, sleep};

use crate::secrets::SecretError;
use crate::transport::Transport;

/// How often a secret is asked for before the tool fails.
const ASKS_MAX: u32 = 5;
/// Before the second time; then twice as long each time, in milliseconds.
const ASK_PAUSE_MS: u64 = 100;

/// A command's way to secrets, for as long as it runs. Nothing that it brings outlives the command.
pub struct CommandSecrets {
    transport: Arc<dyn Transport>,
    warrant: Warrant,
}

impl fmt::Debug for CommandSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSecrets").field("warrant", &self.warrant).finish_non_exhaustive()
    }
}

impl CommandSecrets {
    /// Returns the way of one attempt of one command.
    pub fn new(transport: Arc<dyn Transport>, warrant: Warrant) -> Self {
        CommandSecrets { transport, warrant }
    }

    /// Returns the credential under `alias`.
    ///
    /// # Errors
    /// A hard one if there is none, or it may not be had; a retryable one if the server can not say.
    pub async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
        let mut pause = Duration::from_millis(ASK_PAUSE_MS);
        let mut asked = 0;
        loop {
            let error = match self.transport.credential(&self.warrant, alias).await {
                Ok(credential) => return Ok(credential),
                Err(error) => error,
            };
            asked += 1;
            match &error {
                SecretError::Store(_) | SecretError::Unreachable(_) if asked < ASKS_MAX => {}
                SecretError::Store(_) | SecretError::Unreachable(_) => {
                    let error = ToolError::hard(ErrorKind::Connection, "CREDENTIAL_FETCH", error.to_string());
                    return Err(error.retryable().with("credential", alias));
                }
                SecretError::Unknown(_) => return Err(refused("UNKNOWN_CREDENTIAL", &error, alias)),
                SecretError::Withheld(_) => return Err(refused("CREDENTIAL_WITHHELD", &error, alias)),
                SecretError::Locked(_) => return Err(refused("CREDENTIAL_LOCKED", &error, alias)),
            }
            sleep(pause).await;
            pause *= 2;
        }
    }
}

fn refused(code: &str, error: &SecretError, alias: &str) -> ToolError {
    ToolError::hard(ErrorKind::Auth, code, error.to_string()).with("credential", alias)
}
