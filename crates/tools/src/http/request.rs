//! What is sent, read from the rendered configuration.

use std::fmt;

use noetl_core::tool::{ErrorKind, ToolError};
use reqwest::Method;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::auth::Authorization;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const TEXT: &str = "text/plain; charset=utf-8";

/// Keys that hold the body; the first that is there counts.
const BODY_KEYS: [&str; 4] = ["json", "payload", "data", "body"];

/// A request with everything in it but what keeps it safe on its way.
///
/// Its `Display` is for errors: method and address, without user, password and query.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    pub(super) follow_redirects: bool,
    pub(super) verify_ssl: bool,
    /// It carries a secret in a header that a redirect to another host would take along.
    pub(super) guarded: bool,
}

impl Request {
    /// Reads the configuration of a task.
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, Box<ToolError>> {
        let method = method(config.get("method"))?;
        let mut url = address(config.get("url"))?;
        if let Some(params) = mapping(config, "params")? {
            add_query(&mut url, params);
        }
        let mut headers = headers(mapping(config, "headers")?)?;
        let body = body(config, &mut headers)?;
        Ok(Request {
            method,
            url,
            headers,
            body,
            follow_redirects: flag(config, "follow_redirects")?.unwrap_or(true),
            verify_ssl: flag(config, "verify_ssl")?.unwrap_or(true),
            guarded: false,
        })
    }

    /// Signs the request. A header that the playbook wrote itself wins. Returns the name of a secret query parameter.
    pub(super) fn sign(&mut self, authorization: Authorization) -> Result<Option<String>, Box<ToolError>> {
        let (name, text) = match authorization {
            Authorization::None => return Ok(None),
            Authorization::Query { name, value } => {
                self.url.query_pairs_mut().append_pair(&name, &value);
                return Ok(Some(name));
            }
            Authorization::Bearer(token) => (AUTHORIZATION, format!("Bearer {token}")),
            Authorization::Basic { user, password } => {
                use base64::Engine as _;
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                (AUTHORIZATION, format!("Basic {pair}"))
            }
            Authorization::Header { name, value } => {
                self.guarded = true;
                (header_name(&name)?, value)
            }
        };
        let value = header_value(name.as_str(), &text)?;
        self.headers.entry(name).or_insert(value);
        Ok(None)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, shown(&self.url))
    }
}

/// Returns an address as errors may show it: user, password, query and fragment can hold secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut bare = url.clone();
    // Only addresses without a host refuse these, and such are not asked.
    bare.set_username("").ok();
    bare.set_password(None).ok();
    bare.set_query(None);
    bare.set_fragment(None);
    if url.query().is_some() { format!("{bare}?…") } else { bare.into() }
}

fn method(value: Option<&Value>) -> Result<Method, Box<ToolError>> {
    let method = match value {
        None | Some(Value::Null) => return Ok(Method::GET),
        Some(Value::String(text)) => text.trim().to_uppercase(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => String::new(),
    };
    Method::from_bytes(method.as_bytes()).map_err(|_| refused("`method` must be a method of HTTP, such as GET or POST"))
}

fn address(value: Option<&Value>) -> Result<Url, Box<ToolError>> {
    let text = match value {
        Some(Value::String(text)) => text.trim(),
        None | Some(Value::Null) => "",
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(refused("`url` must be a text"));
        }
    };
    if text.is_empty() {
        return Err(refused("`url` is missing or empty: give the address to ask"));
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(url) => Err(refused(format!("`url` has the scheme `{}`: only http and https can be asked", url.scheme()))),
        // Not the text itself: it may hold a secret.
        Err(error) => Err(refused(format!("`url` is no address: {error}; write it like https://host/path"))),
    }
}

fn mapping<'a>(config: &'a Map<String, Value>, key: &str) -> Result<Option<&'a Map<String, Value>>, Box<ToolError>> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(refused(format!("`{key}` must be a mapping of names to values")))
        }
    }
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<Option<bool>, Box<ToolError>> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        // What a template renders inside a text.
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            Err(refused(format!("`{key}` must be true or false")))
        }
    }
}

fn add_query(url: &mut Url, params: &Map<String, Value>) {
    let pairs: Vec<(&str, String)> = texts(params).collect();
    // Asking for the pairs alone would leave a `?` behind.
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

/// Returns names with their values as texts: none for null, several for a list.
fn texts(map: &Map<String, Value>) -> impl Iterator<Item = (&str, String)> {
    map.iter().flat_map(|(name, value)| {
        let values = match value {
            Value::Array(items) => items.as_slice(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                std::slice::from_ref(value)
            }
        };
        values.iter().filter_map(|value| text_of(value).map(|text| (name.as_str(), text)))
    })
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

fn headers(map: Option<&Map<String, Value>>) -> Result<HeaderMap, Box<ToolError>> {
    let mut headers = HeaderMap::new();
    for (name, text) in map.into_iter().flat_map(texts) {
        headers.append(header_name(name)?, header_value(name, &text)?);
    }
    Ok(headers)
}

fn header_name(name: &str) -> Result<HeaderName, Box<ToolError>> {
    HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| refused(format!("`{name}` can not be the name of a header")))
}

/// Every value may be a secret, so each is marked as one: none is shown by `Debug`, none enters a compression table.
fn header_value(name: &str, text: &str) -> Result<HeaderValue, Box<ToolError>> {
    let mut value = HeaderValue::from_bytes(text.trim().as_bytes())
        .map_err(|_| refused(format!("the header `{name}` holds a character that headers can not have")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn body(config: &Map<String, Value>, headers: &mut HeaderMap) -> Result<Option<Vec<u8>>, Box<ToolError>> {
    let there = |key: &str| config.get(key).filter(|value| !value.is_null());
    let written = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = written.trim_start().to_ascii_lowercase().starts_with(FORM);
    let given = BODY_KEYS.iter().find_map(|key| there(key).map(|value| (*key, value)));
    let (bytes, content_type) = match (given, there("form")) {
        (Some((_, Value::Object(fields))), _) if is_form => (form(fields), FORM),
        (Some((key, Value::String(text))), _) => {
            // A text that is JSON, as `tojson` makes it, is sent as it stands under every key.
            let is_json = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object() || value.is_array());
            match (key, is_json) {
                ("json", false) => (Value::from(text.as_str()).to_string(), JSON),
                (_, true) => (text.clone(), JSON),
                (_, false) => (text.clone(), TEXT),
            }
        }
        (Some((_, value)), _) => (value.to_string(), JSON),
        (None, Some(Value::Object(fields))) => (form(fields), FORM),
        (None, Some(Value::String(text))) => (text.clone(), FORM),
        (None, Some(_)) => return Err(refused("`form` must be a mapping of names to values")),
        (None, None) => return Ok(None),
    };
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    Ok(Some(bytes.into_bytes()))
}

fn form(fields: &Map<String, Value>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(texts(fields)).finish()
}

/// Returns the error of a configuration that can not work.
pub(super) fn refused(message: impl Into<String>) -> Box<ToolError> {
    Box::new(ToolError::hard(ErrorKind::Config, "HTTP_CONFIG", message))
}
