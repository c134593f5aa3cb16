//! `auth`: who the request comes from.
//!
//! An alias; or a mapping that names one (`{credential: alias}`, `{source: credential, key: alias}`), or that gives
//! the values itself (`{type: bearer, token: …}`), those over what an alias has; or one such mapping under a name of
//! its own. Values of the type `oauth2` that say where tokens are issued are good for one, which is kept until it expires.
//! What nobody can give here, such as `{source: adc}`, is an error and not an unsigned request.

use noetl_core::secret::keychain::TokenRequest;
use noetl_core::tool::{ErrorKind, ToolError};
use serde_json::{Map, Value};

use super::request::refused;
use crate::secrets::Secrets;

/// The header of an API key, unless its credential names another.
const API_KEY_HEADER: &str = "X-API-Key";

/// Sources of credentials that the language knows and this worker does not have.
const ELSEWHERE: [&str; 12] = [
    "adc",
    "aws",
    "aws_secrets_manager",
    "azure",
    "azure_key_vault",
    "gcp",
    "gcp_secret_manager",
    "google",
    "metadata",
    "secret_manager",
    "secrets_manager",
    "vault",
];

/// How a request says who it comes from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    None,
    Bearer(String),
    Basic { user: String, password: String },
    Header { name: String, value: String },
    Query { name: String, value: String },
}

/// What `auth` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    alias: Option<String>,
    /// What kind it is, if that is said here.
    kind: Option<String>,
    /// Values given here.
    fields: Map<String, Value>,
}

/// Returns what signs the request, with credentials from `secrets`.
pub(super) async fn authorization(
    auth: Option<&Value>,
    secrets: &dyn Secrets,
) -> Result<Authorization, Box<ToolError>> {
    let Some(Wanted { alias, kind, fields }) = wanted(auth)? else { return Ok(Authorization::None) };
    let (kind, mut data, whose) = match alias {
        None => (kind.unwrap_or_default(), fields, "`auth`".to_owned()),
        Some(alias) => {
            let credential = secrets.credential(&alias).await.map_err(Box::new)?;
            let mut data = (*credential.data).clone();
            data.extend(fields);
            (kind.unwrap_or_else(|| credential.kind.to_string()), data, format!("credential `{alias}`"))
        }
    };
    let has_token = ["access_token", "token"].iter().any(|key| data.contains_key(*key));
    if let Some(request) = TokenRequest::of_credential(&data).filter(|_| is_oauth(&kind) && !has_token) {
        data.extend(secrets.token(request).await.map_err(Box::new)?);
    }
    made(&kind, &data, &whose)
}

/// Returns whether a token of this type is issued by somebody who is asked for it.
fn is_oauth(kind: &str) -> bool {
    matches!(word(kind).as_str(), "oauth2" | "oauth2_client_credentials" | "client_credentials" | "oauth")
}

fn word(kind: &str) -> String {
    kind.to_lowercase().replace('-', "_")
}

fn wanted(auth: Option<&Value>) -> Result<Option<Wanted>, Box<ToolError>> {
    match auth {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(alias)) if alias.trim().is_empty() => Ok(None),
        Some(Value::String(alias)) => {
            Ok(Some(Wanted { alias: Some(alias.trim().to_owned()), kind: None, fields: Map::new() }))
        }
        Some(Value::Object(map)) if map.is_empty() => Ok(None),
        Some(Value::Object(map)) => of_mapping(map).map(Some),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Err(refused("`auth` must be the alias of a credential, or a mapping with `type`"))
        }
    }
}

fn of_mapping(map: &Map<String, Value>) -> Result<Wanted, Box<ToolError>> {
    let is_named = |value: &Value| value.is_object();
    if !map.is_empty() && map.values().all(is_named) {
        return match map.values().next() {
            Some(Value::Object(inner)) if map.len() == 1 => of_mapping(inner),
            _ => Err(refused("`auth` names several credentials, and a request can be signed by one")),
        };
    }
    let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let source = text("source").or_else(|| text("provider")).map(str::to_lowercase);
    match source.as_deref() {
        Some(source) if ELSEWHERE.contains(&source) => return Err(Box::new(not_configured(source))),
        None | Some("credential" | "credentials" | "noetl" | "inline") => {}
        Some(other) => {
            return Err(refused(format!("`auth` has the source `{other}`: use `credential` with `key: <alias>`")));
        }
    }
    let kind = text("type").or_else(|| text("kind")).map(str::to_owned);
    let key_is_alias = source.as_deref().is_some_and(|source| source != "inline");
    let alias_keys: &[&str] =
        if key_is_alias { &["credential", "alias", "key", "name"] } else { &["credential", "alias"] };
    let alias = alias_keys.iter().find_map(|key| text(key)).map(str::to_owned);
    if alias.is_none() && kind.is_none() {
        return Err(refused("`auth` says neither a `type` (bearer, basic, api_key, oauth2) nor a `credential`"));
    }
    let mut fields = map.clone();
    let scope_of_token = fields.get("scope").filter(|_| kind.as_deref().is_some_and(is_oauth)).cloned();
    for key in ["source", "provider", "type", "kind", "tool", "scope"].iter().chain(alias_keys) {
        // The name of a header is no name of a credential.
        if alias.is_some() || !matches!(*key, "key" | "name") {
            fields.shift_remove(*key);
        }
    }
    // What a token is good for; elsewhere the word says how long something is kept.
    fields.extend(scope_of_token.map(|scope| ("scope".to_owned(), scope)));
    Ok(Wanted { alias, kind, fields })
}

fn made(kind: &str, data: &Map<String, Value>, whose: &str) -> Result<Authorization, Box<ToolError>> {
    let text = |keys: &[&str]| {
        keys.iter().find_map(|key| match data.get(*key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            None | Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => None,
        })
    };
    let missing = |field: &str| {
        let message = format!("{whose} of type `{kind}` has no `{field}`");
        Box::new(ToolError::hard(ErrorKind::Auth, "CREDENTIAL_FIELDS", message))
    };
    match word(kind).as_str() {
        "bearer" | "http_bearer" | "token" | "jwt" => text(&["token", "access_token", "bearer_token", "value"])
            .map(Authorization::Bearer)
            .ok_or_else(|| missing("token")),
        "basic" | "http_basic" => Ok(Authorization::Basic {
            user: text(&["username", "user"]).ok_or_else(|| missing("username"))?,
            password: text(&["password", "pass"]).unwrap_or_default(),
        }),
        "api_key" | "apikey" | "header" => api_key(&text).ok_or_else(|| missing("value")),
        kind if is_oauth(kind) => text(&["access_token", "token"])
            .map(Authorization::Bearer)
            .ok_or_else(|| missing("access_token` and no `token_url")),
        _ => {
            let message = format!("{whose} is of type `{kind}`: a request can use bearer, basic, api_key and oauth2");
            Err(Box::new(ToolError::hard(ErrorKind::Auth, "UNSUPPORTED_CREDENTIAL", message)))
        }
    }
}

fn api_key(text: &impl Fn(&[&str]) -> Option<String>) -> Option<Authorization> {
    // `key` is the value where nothing else is, and a name where something is.
    let value = text(&["value", "api_key", "token", "secret"]);
    let (value, key_is_value) = match value {
        Some(value) => (value, false),
        None => (text(&["key"])?, true),
    };
    let own_name = |keys: &[&str]| text(keys).or_else(|| if key_is_value { None } else { text(&["key"]) });
    let place = text(&["in", "location", "add_to"]).unwrap_or_default().to_lowercase();
    let in_query = matches!(place.as_str(), "query" | "params" | "param") || text(&["query_param", "param"]).is_some();
    Some(if in_query {
        let name = own_name(&["query_param", "param", "name"]).unwrap_or_else(|| "api_key".to_owned());
        Authorization::Query { name, value }
    } else {
        let name = own_name(&["header", "header_name", "name"]).unwrap_or_else(|| API_KEY_HEADER.to_owned());
        let prefix = text(&["prefix"]).map(|prefix| format!("{} ", prefix.trim())).unwrap_or_default();
        Authorization::Header { name, value: format!("{prefix}{value}") }
    })
}

fn not_configured(source: &str) -> ToolError {
    let message = format!(
        "credentials from `{source}` are not configured on this worker: register one with `noetl register credential`"
    );
    ToolError::hard(ErrorKind::Auth, "AUTH_NOT_CONFIGURED", message).with("source", source)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::secrets::{Credential, unknown_credential};

    struct Fixed;

    #[async_trait::async_trait]
    impl Secrets for Fixed {
        async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
            let (kind, data) = match alias {
                "svc" => ("bearer", json!({"token": "t0"})),
                "people" => ("basic", json!({"username": "ann", "password": "p"})),
                "maps" => ("api_key", json!({"header": "X-Maps", "value": "k"})),
                "plain" => ("api_key", json!({"key": "k"})),
                "query" => ("api_key", json!({"in": "query", "name": "appid", "value": "k"})),
                "o" => ("oauth2", json!({"access_token": "a"})),
                "db" => ("postgres", json!({"db_host": "h"})),
                "empty" => ("bearer", json!({})),
                _ => return Err(unknown_credential(alias)),
            };
            let Value::Object(data) = data else { unreachable!() };
            Ok(Credential { name: alias.into(), kind: kind.into(), data: Arc::new(data) })
        }

        /// The token says what was asked for.
        async fn token(&self, request: TokenRequest) -> Result<Map<String, Value>, ToolError> {
            let asked: Vec<_> = request.data.values().filter_map(Value::as_str).collect();
            let token = format!("{} {}", request.endpoint, asked.join(" "));
            Ok(Map::from_iter([("access_token".to_owned(), token.into())]))
        }
    }

    fn header(name: &str, value: &str) -> Authorization {
        Authorization::Header { name: name.to_owned(), value: value.to_owned() }
    }

    fn basic(user: &str, password: &str) -> Authorization {
        Authorization::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[tokio::test]
    async fn every_form_of_auth_names_a_credential_or_gives_one() {
        let query = Authorization::Query { name: "appid".to_owned(), value: "k".to_owned() };
        let bearer = |token: &str| Authorization::Bearer(token.to_owned());
        let table = [
            (json!(null), Authorization::None),
            (json!(""), Authorization::None),
            (json!({}), Authorization::None),
            (json!("svc"), bearer("t0")),
            (json!("people"), basic("ann", "p")),
            (json!("maps"), header("X-Maps", "k")),
            (json!("plain"), header("X-API-Key", "k")),
            (json!("query"), query.clone()),
            (json!("o"), bearer("a")),
            (json!({"credential": "svc"}), bearer("t0")),
            (json!({"alias": "svc"}), bearer("t0")),
            (json!({"type": "bearer", "credential": "svc"}), bearer("t0")),
            (json!({"source": "credential", "tool": "http", "key": "svc"}), bearer("t0")),
            (json!({"api": {"source": "credential", "key": "people"}}), basic("ann", "p")),
            (json!({"credential": "people", "password": "mine"}), basic("ann", "mine")),
            (json!({"type": "bearer", "token": "x"}), bearer("x")),
            (json!({"type": "basic", "user": "u", "password": "p"}), basic("u", "p")),
            (json!({"type": "api_key", "key": "v"}), header("X-API-Key", "v")),
            (json!({"type": "api_key", "key": "X-Own", "value": "v"}), header("X-Own", "v")),
            (json!({"type": "api_key", "name": "X-Own", "value": "v", "prefix": "Key"}), header("X-Own", "Key v")),
            (json!({"type": "api_key", "in": "query", "name": "appid", "value": "k"}), query),
            (json!({"own": {"type": "bearer", "token": "x"}}), bearer("x")),
            (json!({"type": "oauth2", "access_token": "a"}), bearer("a")),
            (
                json!({"type": "oauth2", "token_url": "u", "client_id": "i", "client_secret": "s", "scope": "read"}),
                bearer("u client_credentials i s read"),
            ),
            (
                json!({"type": "client-credentials", "token_url": "u", "audience": "x"}),
                bearer("u client_credentials x"),
            ),
        ];
        for (auth, expected) in table {
            let got = authorization(Some(&auth), &Fixed).await;
            assert!(got.as_ref() == Ok(&expected), "{auth}: {:?}", got.map(|_| "something else"));
        }
    }

    #[tokio::test]
    async fn what_can_not_sign_is_a_hard_error_without_its_values() {
        let table = [
            (json!("nobody"), "UNKNOWN_CREDENTIAL"),
            (json!("db"), "UNSUPPORTED_CREDENTIAL"),
            (json!("empty"), "CREDENTIAL_FIELDS"),
            (json!({"type": "basic", "password": "geheim"}), "CREDENTIAL_FIELDS"),
            (json!({"type": "ntlm", "password": "geheim"}), "UNSUPPORTED_CREDENTIAL"),
            (json!({"source": "adc"}), "AUTH_NOT_CONFIGURED"),
            (json!({"openai": {"type": "bearer", "provider": "secret_manager", "key": "k"}}), "AUTH_NOT_CONFIGURED"),
            (json!({"a": {"credential": "svc"}, "b": {"credential": "svc"}}), "HTTP_CONFIG"),
            (json!({"source": "elsewhere", "key": "geheim"}), "HTTP_CONFIG"),
            (json!({"token": "geheim"}), "HTTP_CONFIG"),
            (json!({"type": "oauth2", "client_id": "i", "client_secret": "geheim"}), "CREDENTIAL_FIELDS"),
            (json!(7), "HTTP_CONFIG"),
        ];
        for (auth, code) in table {
            let Err(error) = authorization(Some(&auth), &Fixed).await else { panic!("{auth} is refused") };
            assert_eq!((error.code.as_str(), error.hard), (code, true), "{auth}");
            assert!(!error.message.contains("geheim"), "{}", error.message);
        }
    }
}
