//! Keychain entries: what a template means by `keychain.<name>.<field>`, and how to come by it.
//!
//! An entry is resolved on the worker, when a tool's template reads it, and not before. It stands in the library of
//! the running command under a reference, like a stored result; where it is not at hand, the evaluation asks for it.
//! [`plan`] says how to get it; whoever can do that puts the fields into the library. What can not be had is null there,
//! and renders as nothing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::expr::{Binding, ExprError, ResultBinding, Scope};
use crate::id::CatalogId;
use crate::playbook::KeychainEntry;
use crate::result::{Bound, StoredRef};

/// Before this, a token that is about to expire is not used any more, in milliseconds.
pub const RENEW_BEFORE_MS: u64 = 30_000;
/// How long a token lives whose issuer does not say, in milliseconds.
pub const TOKEN_LIFE_DEFAULT_MS: u64 = 300_000;
/// Longest time for which a token is kept, whatever its issuer says, in milliseconds: one day.
pub const TOKEN_LIFE_MS_MAX: u64 = 86_400_000;
/// Most entries that wait for each other.
pub const ENTRIES_DEPTH_MAX: usize = 16;

const KEYCHAIN: &str = "noetl://keychain/";
const TOKEN: &str = "noetl://token/";

/// Something secret that an evaluation asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A keychain entry, by name.
    Entry(Arc<str>),
    /// The token of a credential, by alias.
    Token(Arc<str>),
}

impl Reference {
    /// Returns what `reference` means, if it is a secret.
    pub fn parse(reference: &str) -> Option<Self> {
        if let Some(name) = reference.strip_prefix(KEYCHAIN) {
            return Some(Reference::Entry(name.into()));
        }
        reference.strip_prefix(TOKEN).map(|alias| Reference::Token(alias.into()))
    }

    /// Returns a binding that asks for it when it is read.
    pub fn binding(&self) -> Binding {
        let reference = self.to_string();
        let stored = StoredRef { reference, store: "keychain".to_owned(), bytes: 0, summary: Value::Null };
        let bound = Bound::Stored(Arc::new(stored));
        Binding::Result(ResultBinding { bound, status: None, error: None, labels: None })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Entry(name) => write!(f, "{KEYCHAIN}{name}"),
            Reference::Token(alias) => write!(f, "{TOKEN}{alias}"),
        }
    }
}

/// How to come by an entry's fields.
///
/// Its `Debug` says which way it is and nothing of what is in it.
#[derive(Clone, PartialEq)]
pub enum Plan {
    /// These are the fields.
    Fields(Map<String, Value>),
    /// The fields are the data of this credential.
    Credential(String),
    /// The fields are the answer to this request.
    Token(TokenRequest),
    /// Each field is a secret of a provider, under a name of its own.
    Provided {
        /// `env`, `file`, …
        provider: String,
        /// Field and name.
        fields: Vec<(String, String)>,
    },
    /// It can not be had here.
    Nothing(String),
}

/// A request for a token, as OAuth 2 has it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Where.
    pub endpoint: String,
    /// `POST`, mostly.
    pub method: String,
    /// What goes into the head.
    pub headers: Map<String, Value>,
    /// What goes into the body: as a form, or as JSON if the head says so.
    pub data: Map<String, Value>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plan::Fields(_) => "Fields",
            Plan::Credential(_) => "Credential",
            Plan::Token(_) => "Token",
            Plan::Provided { .. } => "Provided",
            Plan::Nothing(_) => "Nothing",
        })
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest").finish_non_exhaustive()
    }
}

/// What is wanted from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A token.
    Token(TokenRequest),
    /// A secret of a provider.
    Provided {
        /// `env`, `file`, …
        provider: String,
        /// Its name there.
        name: String,
    },
}

/// Under what a token is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptUnder {
    /// The entry's name, or the credential's.
    pub name: Arc<str>,
    /// `oauth2`.
    pub kind: Arc<str>,
    /// The word in the playbook: `local` and `execution` keep it for one execution, every other for all.
    pub scope: Arc<str>,
    /// The playbook version.
    pub catalog_id: CatalogId,
    /// Tells requests apart: the same entry may ask for another customer's token in another run.
    pub digest: String,
}

impl KeptUnder {
    /// Returns whether it is kept for one execution alone.
    pub fn for_one_execution(&self) -> bool {
        matches!(&*self.scope, "local" | "execution")
    }
}

impl TokenRequest {
    /// Returns what tells this request from others.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the request that the data of an `oauth2` credential describes; `None` if it describes none.
    pub fn of_credential(data: &Map<String, Value>) -> Option<Self> {
        let text = |keys: &[&str]| keys.iter().find_map(|key| data.get(*key)?.as_str().filter(|text| !text.is_empty()));
        let endpoint = text(&["token_url", "token_uri", "token_endpoint", "endpoint"])?;
        let mut body = Map::new();
        body.insert("grant_type".to_owned(), text(&["grant_type"]).unwrap_or("client_credentials").into());
        let fields =
            ["client_id", "client_secret", "scope", "audience", "resource", "username", "password", "refresh_token"];
        for field in fields {
            if let Some(value) = text(&[field]) {
                body.insert(field.to_owned(), value.into());
            }
        }
        let (endpoint, method) = (endpoint.to_owned(), "POST".to_owned());
        Some(TokenRequest { endpoint, method, headers: Map::new(), data: body })
    }
}

/// Returns how long the answer to a token request may be used, in milliseconds.
pub fn life_ms(answer: &Map<String, Value>) -> u64 {
    let seconds = answer.get("expires_in").and_then(|life| match life {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    });
    let life = seconds.map_or(TOKEN_LIFE_DEFAULT_MS, |seconds| seconds.saturating_mul(1_000));
    life.saturating_sub(RENEW_BEFORE_MS).min(TOKEN_LIFE_MS_MAX)
}

/// Returns the part of an answer that is secret: the rest, such as `token_type`, is found in every document.
pub fn secret_part(answer: &Map<String, Value>) -> Map<String, Value> {
    let is_secret = |field: &str| {
        let field = field.to_ascii_lowercase();
        field != "token_type"
            && ["token", "secret", "key", "assertion", "password"].iter().any(|word| field.contains(word))
    };
    answer.iter().filter(|(field, _)| is_secret(field)).map(|(field, value)| (field.clone(), value.clone())).collect()
}

/// Says how to come by the fields of `entry`.
///
/// # Errors
/// If a template of it reads what is not at hand, another entry perhaps; or can not be evaluated.
pub fn plan(entry: &KeychainEntry, scope: &Scope<'_>) -> Result<Plan, ExprError> {
    let mut config = Map::new();
    for (key, template) in &entry.config {
        config.insert(key.to_string(), template.render(scope)?);
    }
    let text = |keys: &[&str]| keys.iter().find_map(|key| config.get(*key).and_then(plain)).unwrap_or_default();
    let map = |key: &str| config.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(match &*entry.kind {
        "static" => Plan::Fields(map("map")),
        "bearer" => {
            let token = match text(&["token", "access_token", "value"]) {
                token if token.is_empty() => map("map").get("token").and_then(plain).unwrap_or_default(),
                token => token,
            };
            Plan::Fields(fields(json!({ "token": token, "access_token": token })))
        }
        "credential" => match text(&["credential", "auth", "ref", "key"]) {
            alias if alias.is_empty() => Plan::Nothing("it names no `credential`".to_owned()),
            alias => Plan::Credential(alias),
        },
        "oauth2" => match text(&["endpoint", "token_url"]) {
            endpoint if endpoint.is_empty() => match text(&["credential", "auth"]) {
                alias if alias.is_empty() => {
                    Plan::Nothing("it names neither an `endpoint` nor a `credential`".to_owned())
                }
                alias => Plan::Credential(alias),
            },
            endpoint => {
                let method = match text(&["method"]) {
                    method if method.is_empty() => "POST".to_owned(),
                    method => method.to_uppercase(),
                };
                Plan::Token(TokenRequest { endpoint, method, headers: map("headers"), data: map("data") })
            }
        },
        "secrets" | "secret" => {
            let provider = text(&["provider"]).to_lowercase();
            let named = map("map").iter().filter_map(|(field, name)| Some((field.clone(), plain(name)?))).collect();
            Plan::Provided { provider, fields: named }
        }
        "google_id_token" => match text(&["id_token", "token"]) {
            token if token.is_empty() => Plan::Nothing("Google is not configured here".to_owned()),
            token => Plan::Fields(fields(json!({ "token": token, "id_token": token }))),
        },
        other => Plan::Nothing(format!("kind `{other}` is not known here")),
    })
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
