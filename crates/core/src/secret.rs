//! Secrets: what a credential is, who may know it, and what of it must never be shown.
//!
//! Nothing here opens anything. Credentials are opened by the server that keeps them and used by the worker that runs
//! the command; between the two they travel as values of this module, whose `Debug` holds them back.

pub mod keychain;
mod mask;
mod warrant;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::mask::{MASKED_BYTES_MIN, MASKED_VALUES_MAX, Mask, PieceMask};
pub use self::warrant::{Warrant, Withheld};

/// The kind of tool that fetches secrets. What it returns is secret, whatever it is.
pub const TOOL_KIND: &str = "secrets";

/// What stands in the place of a secret.
pub const MASKED: &str = "********";

/// A credential with its secret values. Its `Debug` names it and keeps the values back.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// The alias that it is registered under.
    pub name: Arc<str>,
    /// What it is for: `postgres`, `bearer`, `basic`, `api_key`, …
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The values, in the fields that the kind has: `db_host`, `token`, …
    pub data: Arc<Map<String, Value>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Fields of a credential that say where and as whom, which is no secret. Everything else is one.
const PLAIN_FIELDS: &[&str] = &[
    "account",
    "audience",
    "auth_url",
    "base_url",
    "bucket",
    "client_email",
    "database",
    "dbname",
    "endpoint",
    "grant_type",
    "header",
    "header_name",
    "host",
    "in",
    "location",
    "login",
    "name",
    "port",
    "project_id",
    "region",
    "role",
    "schema",
    "scope",
    "scopes",
    "sslmode",
    "timeout",
    "token_type",
    "token_uri",
    "token_url",
    "type",
    "url",
    "user",
    "username",
    "warehouse",
];

/// What may stand before the name of a field: `db_host`, `sf_user`, …
const FIELD_PREFIXES: &[&str] = &["db_", "pg_", "postgres_", "sf_", "nats_", "aws_", "s3_"];

/// Returns whether the value of a credential's field is for its users alone.
///
/// A field that is not known to be harmless is secret, and so is an address that names a user.
pub fn is_secret(field: &str, value: &Value) -> bool {
    let field = field.to_ascii_lowercase();
    let bare = FIELD_PREFIXES.iter().find_map(|prefix| field.strip_prefix(prefix)).unwrap_or(&field);
    if !PLAIN_FIELDS.contains(&bare) {
        return true;
    }
    value.as_str().is_some_and(|text| text.split_once("://").is_some_and(|(_, rest)| rest.contains('@')))
}

/// Returns data of a credential as it may be shown: every secret value is [`MASKED`].
pub fn shown(data: &Map<String, Value>) -> Map<String, Value> {
    let field = |(field, value): (&String, &Value)| (field.clone(), shown_value(is_secret(field, value), value));
    data.iter().map(field).collect()
}

fn shown_value(secret: bool, value: &Value) -> Value {
    match value {
        // Whether there is a value, and of which parts it consists, is no secret.
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Object(parts) => Value::Object(shown(parts)),
        Value::Array(items) => Value::Array(items.iter().map(|item| shown_value(secret, item)).collect()),
        Value::Number(_) | Value::String(_) if !secret => value.clone(),
        Value::Number(_) | Value::String(_) => Value::String(MASKED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_is_not_shown() {
        let data = json!({
            "db_host": "db.example.com", "db_port": 5432, "db_user": "app", "db_name": "shop", "db_password": "p",
            "HOST": "h", "sf_account": "a", "sf_password": "p", "token": "t", "pin": 1234, "anything": "x",
            "url": "https://api.example.com/v1", "endpoint": "https://me:secret@example.com", "on": true, "none": null,
            "headers": {"x-api-key": "k", "host": "h"}, "scopes": ["a", "b"], "keys": ["a", 1],
        });
        let expected = json!({
            "db_host": "db.example.com", "db_port": 5432, "db_user": "app", "db_name": "shop", "db_password": MASKED,
            "HOST": "h", "sf_account": "a", "sf_password": MASKED, "token": MASKED, "pin": MASKED, "anything": MASKED,
            "url": "https://api.example.com/v1", "endpoint": MASKED, "on": true, "none": null,
            "headers": {"x-api-key": MASKED, "host": "h"}, "scopes": ["a", "b"], "keys": [MASKED, MASKED],
        });
        assert_eq!(Value::Object(shown(data.as_object().unwrap())), expected);
    }

    #[test]
    fn a_credential_in_a_log_line_says_its_name_only() {
        let data = json!({"token": "abc"});
        let credential =
            Credential { name: "api".into(), kind: "bearer".into(), data: Arc::new(data.as_object().unwrap().clone()) };
        assert_eq!(format!("{credential:?}"), r#"Credential { name: "api", kind: "bearer", .. }"#);
    }
}
