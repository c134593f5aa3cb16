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
#[rustfmt::skip]
const PLAIN_FIELDS: &[&str] = &[
    "account", "account_id", "algorithm", "api_base", "api_host", "api_url", "api_version", "audience", "auth_uri",
    "auth_url", "authority", "base_uri", "base_url", "bucket", "catalog", "client_email", "client_id", "database",
    "database_name", "db", "db_name", "dbname", "domain", "driver", "email", "endpoint", "environment", "grant_type",
    "group_id", "header", "header_name", "host", "hostname", "in", "issuer", "kind", "location", "login", "method",
    "name", "namespace", "org", "organization", "path", "port", "project", "project_id", "protocol", "provider",
    "realm", "redirect_uri", "redirect_url", "region", "role", "schema", "scheme", "scope", "scopes", "server",
    "sslmode", "table", "tenant", "tenant_id", "timeout", "token_endpoint", "token_type", "token_uri", "token_url",
    "topic", "type", "uri", "url", "user", "user_name", "username", "version", "warehouse", "workspace", "zone",
];

/// What may stand before the name of a field: `db_host`, `sf_user`, …
const FIELD_PREFIXES: &[&str] = &[
    "db_",
    "pg_",
    "postgres_",
    "mysql_",
    "redis_",
    "sf_",
    "snowflake_",
    "nats_",
    "kafka_",
    "smtp_",
    "aws_",
    "s3_",
    "gcs_",
];

/// Words in the name of a field, not on the list above, that say that its value is secret even if it is an address.
#[rustfmt::skip]
const SECRET_WORDS: &[&str] = &[
    "auth", "cert", "credential", "hook", "key", "pass", "private", "pwd", "sas", "secret", "signed", "token",
];

/// Letters and digits in a row that make a part of an address a secret by itself, as in that of a web hook.
const ADDRESS_RANDOM_MIN: usize = 20;

/// Returns whether the value of a credential's field is for its users alone.
///
/// A field that is not known to be harmless is secret; but a mere web address is not, whatever its field is called. An
/// address that names a user, has a query or looks as if a part of it were random is never harmless.
pub fn is_secret(field: &str, value: &Value) -> bool {
    let field = field.to_ascii_lowercase();
    let bare = FIELD_PREFIXES.iter().find_map(|prefix| field.strip_prefix(prefix)).unwrap_or(&field);
    let known = PLAIN_FIELDS.contains(&bare) || PLAIN_FIELDS.contains(&&*field);
    let address = value.as_str().and_then(|text| text.trim().split_once("://"));
    match address {
        Some((_, rest)) if !is_mere_address(rest) => true,
        Some((scheme, _)) if !known => {
            let of_the_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
            !of_the_web || SECRET_WORDS.iter().any(|word| field.contains(word))
        }
        Some(_) | None => !known,
    }
}

/// Returns whether what stands behind `scheme://` says where, and nothing else.
fn is_mere_address(rest: &str) -> bool {
    let random = |run: &str| {
        run.len() >= ADDRESS_RANDOM_MIN
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    !rest.contains(['@', '?', '#', ' ', '\n'])
        && !path.split(|letter: char| !letter.is_ascii_alphanumeric()).any(random)
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
    fn a_mere_web_address_is_no_secret_and_one_with_more_in_it_is() {
        for (field, value, secret) in [
            ("api_base", "http://127.0.0.1:5577", false),
            ("api_base", "v1", false),
            ("callback", "https://example.com/a/b-2", false),
            ("anything", "HTTPS://example.com", false),
            ("tenant_address", "https://example.com/8c7a3f0e-12ab-4cde-9f00-0123456789ab/v2.0", false),
            ("token_url", "https://example.com/token", false),
            ("db_url", "postgres://db:5432/shop", false),
            ("anything", "postgres://db:5432/shop", true),
            ("callback", "https://example.com/a?sig=abc", true),
            ("callback", "https://example.com/#access_token=abc", true),
            ("url", "https://example.com/a?api_key=abc", true),
            ("url", "https://me:swordfish@example.com", true),
            ("url", "https://hooks.example.com/services/T024BE91L/XyZ0123456789abcdefXyZ", true),
            ("slack_webhook", "https://example.com/hook", true),
            ("signed_address", "https://example.com/a", true),
            ("api_token", "https://example.com", true),
            ("text", "see https://example.com/a b", true),
            ("client_secret", "s", true),
            ("auth", "s", true),
            ("private_key_path", "/etc/key", true),
            ("unheard_of", "s", true),
            ("token_type", "Bearer", false),
            ("client_id", "shop", false),
        ] {
            assert_eq!(is_secret(field, &json!(value)), secret, "{field}: {value}");
        }
    }

    #[test]
    fn a_credential_in_a_log_line_says_its_name_only() {
        let data = json!({"token": "abc"});
        let credential =
            Credential { name: "api".into(), kind: "bearer".into(), data: Arc::new(data.as_object().unwrap().clone()) };
        assert_eq!(format!("{credential:?}"), r#"Credential { name: "api", kind: "bearer", .. }"#);
    }
}
