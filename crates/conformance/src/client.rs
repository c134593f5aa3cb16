//! What the runner asks of the server under test, over the API that everybody uses.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use crate::Fault;
use crate::check::shown;

/// Longest time that one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Events on a page.
const PAGE_SIZE: usize = 500;

/// Talks to one HTTP server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; text that is not JSON comes as a string.
    pub body: Value,
}

impl Reply {
    /// Returns the body if the request worked, else what was said instead.
    pub fn success(self, doing: &str) -> Result<Value, Fault> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(Fault(format!("{doing}: {} {}", self.status, self.said())))
    }

    /// Returns the sentence for people in an error, or the whole body.
    pub fn said(&self) -> String {
        let sentence = ["message", "detail", "error"].iter().find_map(|key| self.body.get(key)?.as_str());
        sentence.map_or_else(|| shown(&self.body), str::to_owned)
    }
}

impl Client {
    /// Makes a client for the server at `base`, such as `http://127.0.0.1:8082`.
    pub fn new(base: &str) -> Result<Self, Fault> {
        // Loopback is never behind a proxy, whatever the environment says.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build();
        let http = http.map_err(Fault::while_doing("make an HTTP client"))?;
        Ok(Client { http, base: Url::parse(base).map_err(Fault::while_doing(format!("read `{base}`")))? })
    }

    /// Sends a request to a path with query as it stands in the manifest.
    pub async fn request(&self, method: &str, path: &str) -> Result<Reply, Fault> {
        let method = Method::from_bytes(method.as_bytes()).map_err(Fault::while_doing(format!("use `{method}`")))?;
        let url = self.base.join(path).map_err(Fault::while_doing(format!("read `{path}`")))?;
        self.send(method, url, None).await
    }

    /// Says whether the server answers.
    pub async fn healthy(&self) -> Result<(), Fault> {
        self.get(&["health"], &[]).await?.success("ask for health").map(drop)
    }

    /// Registers the text of a playbook.
    pub async fn register(&self, content: &str) -> Result<Reply, Fault> {
        let body = json!({"content": content, "resource_type": "Playbook"});
        self.post(&["api", "catalog", "register"], &body).await
    }

    /// Lists the catalog.
    pub async fn catalog(&self) -> Result<Value, Fault> {
        let listed = self.post(&["api", "catalog", "list"], &json!({})).await?.success("list the catalog")?;
        Ok(listed["entries"].clone())
    }

    /// Registers a credential.
    pub async fn credential(&self, name: &str, data: &Value) -> Result<Reply, Fault> {
        let body = json!({"name": name, "type": "postgres", "data": data});
        self.post(&["api", "credentials"], &body).await
    }

    /// Starts an execution and returns its id.
    pub async fn execute(&self, path: &str, payload: &Map<String, Value>) -> Result<String, Fault> {
        let body = json!({"path": path, "payload": payload});
        let started = self.post(&["api", "execute"], &body).await?.success("execute")?;
        match &started["execution_id"] {
            Value::String(id) => Ok(id.clone()),
            Value::Number(id) => Ok(id.to_string()),
            other => Err(Fault(format!("execute: the answer has no `execution_id`, but {}", shown(other)))),
        }
    }

    /// Returns the detail of an execution.
    pub async fn execution(&self, id: &str) -> Result<Value, Fault> {
        self.get(&["api", "executions", id], &[]).await?.success("read the execution")
    }

    /// Cancels an execution and all below it.
    pub async fn cancel(&self, id: &str, reason: &str) -> Result<(), Fault> {
        let body = json!({"cascade": true, "reason": reason});
        self.post(&["api", "executions", id, "cancel"], &body).await?.success("cancel").map(drop)
    }

    /// Returns the result data of a step's last visit, if it had one.
    pub async fn step_result(&self, id: &str, step: &str) -> Result<Option<Value>, Fault> {
        let reply = self.get(&["api", "executions", id, "steps", step], &[]).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let mut body = reply.success("read the step")?;
        match (body["visits"].as_u64(), body.get_mut("result").map(Value::take)) {
            (Some(0), _) => Ok(None),
            (Some(_), Some(result)) => Ok(Some(result)),
            (_, _) => Err(Fault(format!("read the step: {} has no `visits` and `result`", shown(&body)))),
        }
    }

    /// Counts the events of an execution that have this type and node.
    pub async fn count_events(&self, id: &str, event_type: &str, node_name: &str) -> Result<usize, Fault> {
        let mut count = 0;
        for page in 1_u64.. {
            let query = [("page", page.to_string()), ("page_size", PAGE_SIZE.to_string())];
            let reply = self.get(&["api", "executions", id, "events"], &query).await?;
            let body = reply.success("read the events")?;
            let Some(events) = body["events"].as_array() else {
                return Err(Fault(format!("read the events: {} has no `events`", shown(&body))));
            };
            let matches = |event: &&Value| event["event_type"] == event_type && event["node_name"] == node_name;
            count += events.iter().filter(matches).count();
            if body["pagination"]["has_next"] != true {
                break;
            }
        }
        Ok(count)
    }

    async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Reply, Fault> {
        let mut url = self.at(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Method::GET, url, None).await
    }

    async fn post(&self, path: &[&str], body: &Value) -> Result<Reply, Fault> {
        self.send(Method::POST, self.at(path)?, Some(body)).await
    }

    /// Returns the address of a path; a segment with a slash in it stays one segment.
    fn at(&self, path: &[&str]) -> Result<Url, Fault> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| Fault(format!("{} has no paths", self.base)))?.extend(path);
        Ok(url)
    }

    async fn send(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Reply, Fault> {
        let doing = format!("{method} {url}");
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| Fault(format!("{doing}: {}", causes(&error))))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| Fault(format!("{doing}: {}", causes(&error))))?;
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok(Reply { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) })
    }
}

/// Returns an error with all that caused it; the outermost alone says next to nothing.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_name_with_slashes_is_one_segment() {
        crate::install_tls_provider();
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let url = client.at(&["api", "executions", "5", "steps", "/a b/c"]).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:1/api/executions/5/steps/%2Fa%20b%2Fc");
    }

    #[test]
    fn an_error_is_quoted_by_its_sentence() {
        let reply = |body| Reply { status: StatusCode::CONFLICT, body };
        assert_eq!(reply(json!({"detail": "a", "message": "b"})).said(), "b");
        assert_eq!(reply(json!({"detail": [1]})).said(), r#"{"detail":[1]}"#);
        let fault = reply(json!({"error": "gone"})).success("do").unwrap_err();
        assert_eq!(fault.0, "do: 409 Conflict gone");
    }
}
