//! Asking the owner of a data directory one thing, over its socket.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::embed::SocketPath;

/// Longest time to an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a request without a body; returns the HTTP status and the answer, or `None` when there is none.
pub(super) async fn ask(socket: &SocketPath, method: Method, path: &str) -> Option<(u16, Value)> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).unix_socket(socket.path()).build().ok()?;
    let response = client.request(method, format!("http://localhost{path}")).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.ok()?))
}
