//! What came back, and what of it playbooks see.

use std::time::Duration;

use base64::Engine as _;
use reqwest::StatusCode;
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Names in lower case; several values of one name stand in one text, as the standard allows.
    pub(super) headers: Map<String, Value>,
    pub(super) body: Vec<u8>,
    url: Url,
    elapsed: Duration,
}

impl Answer {
    pub(super) fn new(response: &reqwest::Response, body: Vec<u8>, elapsed: Duration) -> Self {
        let headers = texts(response.headers());
        Answer { status: response.status(), headers, body, url: response.url().clone(), elapsed }
    }

    /// Returns the body as a text, if it is one.
    pub(super) fn into_text(self) -> Option<String> {
        match decoded(&self.body, &self.content_type()) {
            Body::Text(text) => Some(text),
            Body::Bytes => None,
        }
    }

    /// Returns what the task's name is bound to. `hidden` is a query parameter that nobody is to see.
    pub(super) fn into_data(self, hidden: Option<&str>) -> Value {
        let content_type = self.content_type();
        let (data, encoding) = match decoded(&self.body, &content_type) {
            Body::Text(text) if text.is_empty() => (Value::Null, None),
            Body::Text(text) => (parsed(text, &content_type), None),
            Body::Bytes => {
                let text = base64::engine::general_purpose::STANDARD.encode(&self.body);
                (Value::String(text), Some("base64"))
            }
        };
        let milliseconds = u32::try_from(self.elapsed.as_millis()).unwrap_or(u32::MAX);
        let mut map = Map::new();
        map.insert("status_code".into(), self.status.as_u16().into());
        map.insert("headers".into(), self.headers.into());
        map.insert("data".into(), data.clone());
        map.insert("body".into(), data);
        if let Some(encoding) = encoding {
            map.insert("encoding".into(), encoding.into());
        }
        map.insert("url".into(), public(&self.url, hidden).into());
        map.insert("elapsed".into(), json!(f64::from(milliseconds) / 1000.0));
        map.into()
    }

    fn content_type(&self) -> ContentType {
        ContentType::read(self.headers.get("content-type").and_then(Value::as_str).unwrap_or_default())
    }
}

/// Returns where the answer came from, as playbooks may see it.
fn public(url: &Url, hidden: Option<&str>) -> String {
    let mut url = url.clone();
    url.set_username("").ok();
    url.set_password(None).ok();
    if let Some(hidden) = hidden {
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != hidden)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
    }
    url.into()
}

fn texts(headers: &HeaderMap) -> Map<String, Value> {
    let mut map: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        match map.get_mut(name.as_str()) {
            Some(Value::String(known)) => {
                known.push_str(", ");
                known.push_str(&text);
            }
            Some(_) | None => {
                map.insert(name.as_str().to_owned(), text.into_owned().into());
            }
        }
    }
    map
}

#[derive(Debug, PartialEq, Eq)]
struct ContentType {
    is_json: bool,
    /// It could be anything, JSON among it.
    is_vague: bool,
    charset: Option<&'static encoding_rs::Encoding>,
}

impl ContentType {
    fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let is_charset = name.trim().eq_ignore_ascii_case("charset");
            is_charset.then(|| encoding_rs::Encoding::for_label(value.trim().trim_matches('"').as_bytes()))?
        });
        ContentType {
            is_json: media.ends_with("/json") || media.ends_with("+json"),
            is_vague: matches!(media.as_str(), "" | "text/plain" | "application/octet-stream"),
            charset,
        }
    }
}

enum Body {
    Text(String),
    /// No text in any encoding that we know of.
    Bytes,
}

fn decoded(body: &[u8], content_type: &ContentType) -> Body {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let encoding = content_type.charset.unwrap_or(encoding_rs::UTF_8);
    match encoding.decode_without_bom_handling_and_without_replacement(body) {
        // JSON has no NUL in it, nor has a text.
        Some(text) if !text.contains('\0') => Body::Text(text.into_owned()),
        Some(_) | None => Body::Bytes,
    }
}

/// Returns JSON as what it says, everything else as it stands.
fn parsed(text: String, content_type: &ContentType) -> Value {
    let looks_like_json = || text.trim_start().starts_with(['{', '[']);
    if content_type.is_json || (content_type.is_vague && looks_like_json()) {
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text))
    } else {
        Value::String(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(content_type: &str, body: &[u8]) -> (Value, Value) {
        let headers = Map::from_iter([("content-type".to_owned(), content_type.into())]);
        let url = Url::parse("http://h/").unwrap();
        let answer = Answer { status: StatusCode::OK, headers, body: body.to_vec(), url, elapsed: Duration::ZERO };
        let data = answer.into_data(None);
        assert_eq!(data["data"], data["body"]);
        (data["data"].clone(), data["encoding"].clone())
    }

    #[test]
    fn a_body_is_json_a_text_or_base64() {
        let table: [(&str, &[u8], Value); 14] = [
            ("application/json", b"{\"a\": [1, null]}", json!({"a": [1, null]})),
            ("application/json; charset=utf-8", b"\xef\xbb\xbf[1]", json!([1])),
            ("application/problem+json", b"true", json!(true)),
            ("application/json", b"{broken", json!("{broken")),
            ("application/json", b"", json!(null)),
            ("", b" {\"a\": 1}", json!({"a": 1})),
            ("", b"12", json!("12")),
            ("text/plain", b"[1]", json!([1])),
            ("text/html", b"[1]", json!("[1]")),
            ("text/csv; charset=iso-8859-1", b"\xe9", json!("é")),
            ("text/plain; charset=\"windows-1252\"", b"\x80", json!("€")),
            ("text/plain; charset=unheard-of", "é".as_bytes(), json!("é")),
            ("application/octet-stream", b"\x00\x01", json!("AAE=")),
            ("text/plain", b"\xff", json!("/w==")),
        ];
        for (content_type, body, expected) in table {
            let (data, encoding) = data(content_type, body);
            assert_eq!(data, expected, "{content_type}");
            let is_base64 = body == b"\x00\x01" || body == b"\xff";
            assert_eq!(encoding, if is_base64 { json!("base64") } else { json!(null) }, "{content_type}");
        }
    }

    #[test]
    fn the_address_shows_no_user_and_no_hidden_parameter() {
        let url = Url::parse("https://ann:geheim@h/p?a=1&key=geheim&b=2").unwrap();
        assert_eq!(public(&url, Some("key")), "https://h/p?a=1&b=2");
        assert_eq!(public(&Url::parse("https://h/p?key=geheim").unwrap(), Some("key")), "https://h/p");
    }
}
