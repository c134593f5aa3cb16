//! What a running command may know: asked for under its claim, when it needs it.

use std::fmt;
use std::sync::{Arc, Mutex};

use noetl_core::id::CatalogId;
use noetl_core::playbook::KeychainEntry;
use noetl_core::secret::keychain::{self, KeptUnder, Plan, TokenRequest, Wanted};
use noetl_core::secret::{Credential, Mask, Warrant};
use noetl_core::tool::{ErrorKind, ToolError};
use serde_json::{Map, Value};
use tokio::time::{Duration, sleep};

use crate::hold;
use crate::secrets::SecretError;
use crate::transport::Transport;
use crate::worker::Tools;

/// How often a secret is asked for before the tool fails.
const ASKS_MAX: u32 = 5;
/// Before the second time; then twice as long each time, in milliseconds.
const ASK_PAUSE_MS: u64 = 100;
/// The name under which tokens are kept that no credential describes.
const INLINE: &str = "auth";

/// A command's way to secrets, for as long as it runs. Nothing that it brings outlives the command.
pub struct CommandSecrets {
    transport: Arc<dyn Transport>,
    warrant: Warrant,
    /// Everything secret that it was given.
    mask: Mutex<Mask>,
}

impl fmt::Debug for CommandSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSecrets").field("warrant", &self.warrant).finish_non_exhaustive()
    }
}

impl CommandSecrets {
    /// Returns the way of one attempt of one command.
    pub fn new(transport: Arc<dyn Transport>, warrant: Warrant) -> Self {
        CommandSecrets { transport, warrant, mask: Mutex::default() }
    }

    /// Lets the mask of what the command was given so far do its work.
    pub fn masking<T>(&self, mask: impl FnOnce(&Mask) -> T) -> T {
        mask(&hold(&self.mask))
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
                Ok(credential) => {
                    // Before anybody can use it.
                    hold(&self.mask).add_data(&credential.data);
                    return Ok(credential);
                }
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

impl CommandSecrets {
    /// Notes that everything in `value` is secret.
    pub(super) fn learn(&self, value: &Value) {
        hold(&self.mask).add_all(value);
    }

    /// Returns the fields of a keychain entry; null if they can not be had, which is no error: it renders as nothing.
    pub(super) async fn resolve(
        &self,
        tools: &dyn Tools,
        catalog_id: CatalogId,
        entry: Option<&KeychainEntry>,
        plan: Plan,
    ) -> Arc<Value> {
        let name = entry.map_or("?", |entry| &*entry.name);
        let scope = entry.and_then(|entry| entry.config.get("scope")?.as_literal()?.as_str()).unwrap_or("local");
        let from_a_provider = matches!(plan, Plan::Provided { .. });
        let resolved = match plan {
            Plan::Fields(fields) => Ok(fields),
            Plan::Credential(alias) => self.usable(tools, &alias).await.map(|known| (*known.data).clone()),
            Plan::Token(request) => {
                let under = KeptUnder {
                    name: name.into(),
                    kind: "oauth2".into(),
                    scope: scope.into(),
                    catalog_id,
                    digest: request.digest(),
                };
                self.issued(tools, &under, request).await
            }
            Plan::Provided { provider, fields } => provided(tools, &provider, fields).await,
            Plan::Nothing(why) => Err(ToolError::hard(ErrorKind::Config, "NOT_CONFIGURED", why)),
        };
        match resolved {
            Ok(fields) => {
                let mut mask = hold(&self.mask);
                if from_a_provider {
                    // What a provider keeps is secret, whatever the playbook calls it.
                    fields.values().for_each(|value| mask.add_all(value));
                } else {
                    mask.add_data(&fields);
                }
                Arc::new(Value::Object(fields))
            }
            Err(error) => {
                let why = self.masking(|mask| mask.text(&error.message)).unwrap_or(error.message);
                tracing::warn!(entry = %name, code = %error.code, %why, "a keychain entry is empty: it can not be had");
                Arc::new(Value::Null)
            }
        }
    }

    /// Returns what `token(alias)` means.
    pub(super) async fn token(&self, tools: &dyn Tools, alias: &str) -> Arc<Value> {
        match self.usable(tools, alias).await {
            Ok(Credential { data, .. }) => {
                let token =
                    ["access_token", "token", "id_token", "api_key", "value"].iter().find_map(|key| data.get(*key));
                Arc::new(token.cloned().unwrap_or(Value::Null))
            }
            Err(error) => {
                tracing::warn!(credential = %alias, code = %error.code, "a token is empty: it can not be had");
                Arc::new(Value::Null)
            }
        }
    }

    /// Returns a credential, with a token if it describes how to get one.
    ///
    /// # Errors
    /// If there is no such credential, or its issuer gives no token.
    pub async fn usable(&self, tools: &dyn Tools, alias: &str) -> Result<Credential, ToolError> {
        let credential = self.credential(alias).await?;
        let has_token = ["access_token", "token"].iter().any(|key| credential.data.contains_key(*key));
        let is_oauth = credential.kind.to_ascii_lowercase().contains("oauth");
        let request = TokenRequest::of_credential(&credential.data).filter(|_| is_oauth && !has_token);
        let Some(request) = request else { return Ok(credential) };
        let under = for_all(&credential.name, &request);
        let mut data = (*credential.data).clone();
        data.extend(self.issued(tools, &under, request).await?);
        Ok(Credential { data: Arc::new(data), ..credential })
    }

    /// Returns the token for a request that a tool makes of its own configuration; one that is kept, while it is good.
    ///
    /// # Errors
    /// If the issuer gives no token.
    pub async fn granted(&self, tools: &dyn Tools, request: TokenRequest) -> Result<Map<String, Value>, ToolError> {
        // What a playbook says in clear is no secret any more, but nobody needs to read it in a log as well.
        hold(&self.mask).add_data(&keychain::secret_part(&request.data));
        let under = for_all(&INLINE.into(), &request);
        self.issued(tools, &under, request).await
    }

    /// Returns a token that is kept, else a new one, which is kept from now on.
    async fn issued(
        &self,
        tools: &dyn Tools,
        under: &KeptUnder,
        request: TokenRequest,
    ) -> Result<Map<String, Value>, ToolError> {
        match self.transport.kept(&self.warrant, under).await {
            Ok(Some(Value::Object(answer))) => {
                hold(&self.mask).add_data(&keychain::secret_part(&answer));
                return Ok(answer);
            }
            Ok(Some(_) | None) => {}
            // A token can be had without the one that is kept.
            Err(error) => tracing::debug!(%error, "whether a token is kept can not be told"),
        }
        let Value::Object(answer) = tools.fetch_secret(Wanted::Token(request)).await? else {
            let message = "the issuer's answer is no JSON object";
            return Err(ToolError::hard(ErrorKind::Auth, "TOKEN_ANSWER", message));
        };
        hold(&self.mask).add_data(&keychain::secret_part(&answer));
        let life = keychain::life_ms(&answer);
        if life > 0
            && let Err(error) = self.transport.keep(&self.warrant, under, Value::Object(answer.clone()), life).await
        {
            tracing::debug!(%error, "a token could not be kept");
        }
        Ok(answer)
    }
}

/// Returns under what a token is kept that every execution may use: the digest tells requests apart.
fn for_all(name: &Arc<str>, request: &TokenRequest) -> KeptUnder {
    KeptUnder {
        name: Arc::clone(name),
        kind: "oauth2".into(),
        scope: "global".into(),
        catalog_id: CatalogId(0),
        digest: request.digest(),
    }
}

async fn provided(
    tools: &dyn Tools,
    provider: &str,
    fields: Vec<(String, String)>,
) -> Result<Map<String, Value>, ToolError> {
    let mut out = Map::new();
    for (field, name) in fields {
        let wanted = Wanted::Provided { provider: provider.to_owned(), name };
        out.insert(field, tools.fetch_secret(wanted).await?);
    }
    Ok(out)
}

fn refused(code: &str, error: &SecretError, alias: &str) -> ToolError {
    ToolError::hard(ErrorKind::Auth, code, error.to_string()).with("credential", alias)
}
