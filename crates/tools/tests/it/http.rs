//! Requests against servers of our own: what they get, what is made of their answers, and when connections close.

use std::sync::Arc;
use std::time::Duration;

use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolCall, ToolError, ToolOutcome};
use noetl_tools::{BODY_BYTES_MAX, Credential, NoSecrets, Outside, REDIRECTS_MAX, Secrets, StopSignal, stop_line};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Bench, Lines, PATIENCE, call, map};

/// What a server was asked.
#[derive(Debug, Clone, Default)]
struct Asked {
    /// `GET /path?query`.
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a server does with a request: the bytes to send, and whether it then falls silent with the connection open.
struct Say(Vec<u8>, Silence);

#[derive(PartialEq)]
enum Silence {
    No,
    Yes,
}

/// A server that speaks the bytes it is told to.
struct Server {
    url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
    /// A message for each connection that the other side closed.
    closed: mpsc::UnboundedReceiver<()>,
}

impl Server {
    async fn start(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (say_asked, asked) = mpsc::unbounded_channel();
        let (say_closed, closed) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, asked, closed) = (Arc::clone(&answer), say_asked.clone(), say_closed.clone());
                tokio::spawn(async move {
                    serve(BufReader::new(connection), &*answer, &asked).await;
                    closed.send(()).ok();
                });
            }
        });
        Server { url, asked, closed }
    }

    /// Answers everything with one status, some headers and a body.
    async fn of(status: &'static str, headers: &'static str, body: &'static str) -> Self {
        Server::start(move |_| plain(status, headers, body.as_bytes())).await
    }

    async fn was_asked(&mut self) -> Asked {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("the server is asked").unwrap()
    }

    async fn sees_the_end(&mut self) {
        tokio::time::timeout(PATIENCE, self.closed.recv()).await.expect("the connection is closed").unwrap();
    }
}

async fn serve(
    mut connection: BufReader<TcpStream>,
    answer: &(dyn Fn(&Asked) -> Say + Send + Sync),
    say_asked: &mpsc::UnboundedSender<Asked>,
) {
    while let Some(asked) = read(&mut connection).await {
        let Say(bytes, silence) = answer(&asked);
        say_asked.send(asked).ok();
        if connection.get_mut().write_all(&bytes).await.is_err() {
            return;
        }
        if silence == Silence::Yes {
            // The end of the stream, or a reset: whatever comes first is the end.
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).await.ok();
            return;
        }
    }
}

async fn read(connection: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut asked = Asked::default();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text if asked.line.is_empty() => asked.line = text.trim_end_matches(" HTTP/1.1").to_owned(),
            text => {
                let (name, value) = text.split_once(':')?;
                asked.headers.push((name.to_lowercase(), value.trim().to_owned()));
            }
        }
    }
    let length: usize = asked.header("content-length").unwrap_or("0").parse().ok()?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

fn plain(status: &str, headers: &str, body: &[u8]) -> Say {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Say([head.as_bytes(), body].concat(), Silence::No)
}

fn get(url: impl Into<String>) -> ToolCall {
    call("http", json!({"url": url.into()}))
}

fn http(config: Value) -> ToolCall {
    call("http", config)
}

fn error(outcome: &ToolOutcome) -> &ToolError {
    outcome.error.as_ref().expect("it failed")
}

#[tokio::test]
async fn the_answer_is_data_with_its_status_headers_and_body() {
    let mut server = Server::of(
        "200 OK",
        "Content-Type: application/json\r\nX-Many: a\r\nX-Many: b\r\n",
        r#"{"items": [1, 2], "paging": {"more": false}}"#,
    )
    .await;
    let outcome = Bench::new().run(get(format!("{}/v1/items?page=1", server.url))).await;
    assert_eq!(outcome.error, None);
    let data = &outcome.data;
    assert_eq!((&data["status_code"], &data["headers"]["x-many"]), (&json!(200), &json!("a, b")));
    assert_eq!(data["data"], json!({"items": [1, 2], "paging": {"more": false}}));
    assert_eq!(data["body"], data["data"]);
    assert_eq!(data["url"], format!("{}/v1/items?page=1", server.url));
    assert!(data["elapsed"].as_f64().is_some_and(|elapsed| elapsed >= 0.0));
    assert_eq!(outcome.http, Some(json!({"status": 200, "headers": data["headers"]})));
    let asked = server.was_asked().await;
    assert_eq!(asked.line, "GET /v1/items?page=1");
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("noetl/")));
}

#[tokio::test]
async fn method_headers_params_and_body_arrive_as_configured() {
    let bench = Bench::new();
    let mut server = Server::of("200 OK", "", "").await;
    let outcome = bench
        .run(http(json!({
            "url": server.url, "method": "patch", "headers": {"X-Run": 7}, "params": {"q": "a b", "n": null},
            "json": {"name": "Zoë"},
        })))
        .await;
    // An answer without a body has no data.
    assert_eq!((outcome.error, &outcome.data["data"], &outcome.data["body"]), (None, &json!(null), &json!(null)));
    let asked = server.was_asked().await;
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("PATCH /?q=a+b", r#"{"name":"Zoë"}"#));
    assert_eq!((asked.header("x-run"), asked.header("content-type")), (Some("7"), Some("application/json")));
    bench.run(http(json!({"url": server.url, "method": "POST", "form": {"a": "x y", "b": 2}}))).await;
    let asked = server.was_asked().await;
    assert_eq!(asked.body, "a=x+y&b=2");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn a_status_of_400_or_more_is_a_soft_error_that_keeps_the_data() {
    let bench = Bench::new();
    let table = [
        ("400 Bad Request", ErrorKind::ClientError, false),
        ("401 Unauthorized", ErrorKind::Auth, false),
        ("403 Forbidden", ErrorKind::Auth, false),
        ("404 Not Found", ErrorKind::NotFound, false),
        ("422 Unprocessable Entity", ErrorKind::ClientError, false),
        ("429 Too Many Requests", ErrorKind::RateLimit, true),
        ("500 Internal Server Error", ErrorKind::ServerError, true),
        ("503 Service Unavailable", ErrorKind::ServerError, true),
    ];
    for (status, kind, retryable) in table {
        let number: u16 = status[..3].parse().unwrap();
        let server =
            Server::of(status, "retry-after: 7\r\ncontent-type: application/json\r\n", r#"{"detail": "why"}"#).await;
        let outcome = bench.run(get(format!("{}/x?token=geheim", server.url))).await;
        let failed = error(&outcome);
        assert_eq!((failed.kind, failed.retryable, failed.hard), (kind, retryable, false), "{status}");
        assert_eq!(failed.code, format!("HTTP_{number}"));
        assert_eq!(failed.message, format!("GET {}/x?… answered {status}", server.url));
        for key in ["status", "status_code", "http_status"] {
            assert_eq!(failed.details[key], json!(number), "{key}");
        }
        assert_eq!(failed.details["retry_after"], json!(7));
        assert_eq!(outcome.data["data"], json!({"detail": "why"}));
        assert_eq!(outcome.data["status_code"], json!(number));
        assert_eq!(outcome.http.unwrap()["status"], json!(number));
    }
}

#[tokio::test]
async fn without_an_answer_the_error_is_hard_and_says_why() {
    let bench = Bench::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = format!("http://ann:geheim@{}/p?token=geheim", closed.local_addr().unwrap());
    drop(closed);
    let outcome = bench.run(get(refusing)).await;
    let failed = error(&outcome);
    assert_eq!((failed.kind, failed.code.as_str()), (ErrorKind::Connection, "HTTP_CONNECT"));
    assert!((failed.hard, failed.retryable) == (true, true) && failed.message.contains("refused"), "{failed:?}");
    assert!(!failed.message.contains("geheim"), "{}", failed.message);
    // So that `output.http.status in [..]` is false.
    assert_eq!((outcome.http, outcome.data), (None, Value::Null));

    let cut = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", cut.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut connection, _) = cut.accept().await.unwrap();
        let mut some = [0; 16];
        connection.read_exact(&mut some).await.unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    });
    let outcome = bench.run(get(url)).await;
    let failed = error(&outcome);
    assert_eq!((failed.kind, failed.code.as_str()), (ErrorKind::Connection, "HTTP_CONNECTION"), "{failed:?}");
    assert!(failed.hard && failed.retryable);
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_limit_or_not_at_all() {
    let bench = Bench::new();
    let mut server = Server::start(|asked| match asked.line.as_str() {
        "GET /end" => plain("200 OK", "", b"here"),
        "GET /loop" => plain("302 Found", "location: /loop\r\n", b""),
        _ => plain("302 Found", "location: /end\r\n", b"there"),
    })
    .await;
    let outcome = bench.run(get(format!("{}/start", server.url))).await;
    assert_eq!((&outcome.data["data"], &outcome.data["url"]), (&json!("here"), &json!(format!("{}/end", server.url))));
    let config = json!({"url": format!("{}/start", server.url), "follow_redirects": "false"});
    let outcome = bench.run(http(config)).await;
    assert_eq!((outcome.error, &outcome.data["status_code"]), (None, &json!(302)));
    assert_eq!(outcome.data["headers"]["location"], "/end");
    while server.asked.try_recv().is_ok() {}
    let outcome = bench.run(get(format!("{}/loop", server.url))).await;
    let failed = error(&outcome);
    assert_eq!((failed.code.as_str(), failed.hard), ("HTTP_REDIRECT", true));
    assert!(failed.message.ends_with(&format!("more than {REDIRECTS_MAX} redirects")), "{}", failed.message);
    let mut asked = 0;
    while server.asked.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, REDIRECTS_MAX + 1);
}

struct Keys;

#[async_trait::async_trait]
impl Secrets for Keys {
    async fn credential(&self, alias: &str) -> Result<Credential, ToolError> {
        let (kind, data) = match alias {
            "svc" => ("bearer", json!({"token": "geheim"})),
            "people" => ("basic", json!({"username": "ann", "password": "geheim"})),
            "maps" => ("api_key", json!({"header": "X-Maps", "value": "geheim"})),
            "query" => ("api_key", json!({"in": "query", "name": "appid", "value": "geheim"})),
            _ => return Err(noetl_tools::unknown_credential(alias)),
        };
        Ok(Credential { name: alias.into(), kind: kind.into(), data: Arc::new(map(data)) })
    }
}

async fn run_with_keys(bench: &Bench, call: ToolCall) -> ToolOutcome {
    let (lines, _kept) = Lines::new();
    let outside = Outside { log: &lines, secrets: &Keys };
    tokio::time::timeout(PATIENCE, bench.toolbox.run(0, call, StopSignal::never(), outside)).await.unwrap()
}

#[tokio::test]
async fn a_credential_signs_the_request_and_shows_nowhere() {
    let bench = Bench::new();
    let mut server = Server::of("200 OK", "", "ok").await;
    let table = [
        ("svc", "authorization", "Bearer geheim"),
        ("people", "authorization", "Basic YW5uOmdlaGVpbQ=="),
        ("maps", "x-maps", "geheim"),
    ];
    for (alias, header, value) in table {
        let outcome = run_with_keys(&bench, http(json!({"url": server.url, "auth": alias}))).await;
        assert_eq!(outcome.error, None, "{alias}");
        assert_eq!(server.was_asked().await.header(header), Some(value), "{alias}");
        assert!(!outcome.data.to_string().contains("geheim"), "{}", outcome.data);
    }
    let config = json!({"url": format!("{}/w?q=Ulm", server.url), "auth": "query"});
    let outcome = run_with_keys(&bench, http(config)).await;
    assert_eq!(server.was_asked().await.line, "GET /w?q=Ulm&appid=geheim");
    assert_eq!(outcome.data["url"], json!(format!("{}/w?q=Ulm", server.url)));
    let outcome = run_with_keys(&bench, http(json!({"url": server.url, "auth": "nobody"}))).await;
    assert_eq!((error(&outcome).code.as_str(), error(&outcome).hard), ("UNKNOWN_CREDENTIAL", true));
    let outcome = run_with_keys(&bench, http(json!({"url": server.url, "auth": {"source": "adc"}}))).await;
    assert_eq!(error(&outcome).code, "AUTH_NOT_CONFIGURED");
    assert!(server.asked.try_recv().is_err(), "nothing is sent without the credential that was asked for");
}

#[tokio::test]
async fn no_credential_follows_a_redirect_to_another_host() {
    let bench = Bench::new();
    let mut stranger = Server::of("200 OK", "", "mine now").await;
    let location = format!("location: {}/take\r\n", stranger.url);
    let server = Server::start(move |_| plain("302 Found", &location, b"")).await;
    for alias in ["svc", "people"] {
        let outcome = run_with_keys(&bench, http(json!({"url": server.url, "auth": alias}))).await;
        assert_eq!(outcome.data["data"], "mine now");
        assert_eq!(stranger.was_asked().await.header("authorization"), None);
    }
    let outcome = run_with_keys(&bench, http(json!({"url": server.url, "auth": "maps"}))).await;
    let failed = error(&outcome);
    assert_eq!((failed.code.as_str(), failed.hard), ("HTTP_REDIRECT", true));
    assert!(failed.message.ends_with("redirects to another host, which must not get the API key"), "{failed:?}");
    assert!(stranger.asked.try_recv().is_err());
}

/// Servers that never finish their answer, each in its own way.
async fn stalling() -> [Server; 2] {
    [
        Server::start(|_| Say(Vec::new(), Silence::Yes)).await,
        Server::start(|_| Say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec(), Silence::Yes)).await,
    ]
}

#[tokio::test]
async fn a_stop_drops_the_connection_and_says_what_is_unknown() {
    let bench = Bench::new();
    for mut server in stalling().await {
        let (handle, signal) = stop_line();
        let (lines, _kept) = Lines::new();
        let run = bench.run_with(get(server.url.clone()), signal, &lines);
        let stop = async {
            let asked = server.was_asked().await;
            // The grace is for processes; a connection has nothing to tidy up.
            handle.order(StopOrder { grace_ms: 60_000 });
            server.sees_the_end().await;
            asked
        };
        let (outcome, asked) = tokio::join!(run, stop);
        assert_eq!(asked.line, "GET /");
        let failed = error(&outcome);
        assert_eq!((failed.kind, outcome.stopped), (ErrorKind::Cancelled, Some(Stopped::Stopped)));
        assert_eq!(failed.message, "stopped on request; the remote may have acted");
        assert_eq!(failed.details["remote_may_have_acted"], json!(true));
    }
}

#[tokio::test]
async fn a_timeout_covers_a_server_that_is_silent_and_a_body_that_stalls() {
    let bench = Bench::new();
    for mut server in stalling().await {
        let call = ToolCall { timeout_ms: Some(100), ..get(format!("{}/slow?k=geheim", server.url)) };
        let outcome = bench.run(call).await;
        server.sees_the_end().await;
        let failed = error(&outcome);
        assert_eq!((failed.kind, failed.code.as_str()), (ErrorKind::Timeout, "HTTP_TIMEOUT"));
        assert!(failed.hard && failed.retryable);
        let message = format!("GET {}/slow?…: no complete answer within 100 ms; the remote may have acted", server.url);
        assert_eq!(failed.message, message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_timeout_has_one_all_the_same() {
    let [server, _] = stalling().await;
    let (lines, _kept) = Lines::new();
    let outside = Outside { log: &lines, secrets: &NoSecrets };
    let outcome = Bench::new().toolbox.run(0, get(server.url), StopSignal::never(), outside).await;
    assert!(error(&outcome).message.contains("within 30000 ms"), "{:?}", outcome.error);
}

#[tokio::test]
async fn a_large_answer_arrives_whole_and_one_beyond_the_limit_is_refused() {
    let bench = Bench::new();
    let large = "x".repeat(5 << 20);
    let body = json!({"text": large}).to_string();
    let server = Server::start(move |_| plain("200 OK", "content-type: application/json\r\n", body.as_bytes())).await;
    let outcome = bench.run(get(server.url)).await;
    assert_eq!(outcome.data["data"]["text"].as_str().map(str::len), Some(5 << 20));
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1).into_bytes();
    let piece = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let pieces = piece.repeat((BODY_BYTES_MAX >> 20) + 1);
    let unannounced = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{pieces}0\r\n\r\n").into_bytes();
    for answer in [announced, unannounced] {
        let server = Server::start(move |_| Say(answer.clone(), Silence::No)).await;
        let outcome = bench.run(get(server.url)).await;
        let failed = error(&outcome);
        assert_eq!((failed.kind, failed.code.as_str()), (ErrorKind::Limit, "HTTP_BODY_TOO_LARGE"));
        assert!(failed.hard && failed.message.ends_with("exceeds the limit of 16777216 bytes"), "{failed:?}");
    }
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let bench = Bench::new();
    let mut server = Server::of("200 OK", "", "ok").await;
    for _ in 0..3 {
        assert_eq!(bench.run(get(server.url.clone())).await.error, None);
        server.was_asked().await;
    }
    assert!(server.closed.try_recv().is_err(), "the connection was closed");
}

#[tokio::test]
async fn verify_ssl_decides_whether_an_unknown_certificate_will_do() {
    let bench = Bench::new();
    let url = tls_server().await;
    let outcome = bench.run(get(url.clone())).await;
    let failed = error(&outcome);
    assert_eq!((failed.kind, failed.code.as_str()), (ErrorKind::Connection, "HTTP_TLS"), "{failed:?}");
    assert!(failed.hard && !failed.retryable && failed.message.contains("certificate"), "{failed:?}");
    let outcome = bench.run(http(json!({"url": url, "verify_ssl": false}))).await;
    assert_eq!((outcome.error, &outcome.data["data"]), (None, &json!("over TLS")));
}

/// Serves over TLS with a certificate that nobody has signed.
async fn tls_server() -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    rustls::crypto::ring::default_provider().install_default().ok();
    let pem = |name: &str| format!("{}/../noetl/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let certificate = CertificateDer::from_pem_file(pem("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem("key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = acceptor.accept(connection).await else { return };
                let mut some = [0; 4096];
                let read = connection.read(&mut some).await;
                if read.is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nover TLS";
                    connection.write_all(answer).await.ok();
                    connection.shutdown().await.ok();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_python_script_can_come_from_a_web_server() {
    let bench = Bench::new();
    let code = "def main(name, count):\n  return name * count";
    let mut server = Server::start(move |asked| match asked.line.as_str() {
        "GET /scripts/job.py" | "POST /job.py" => plain("200 OK", "content-type: text/x-python\r\n", code.as_bytes()),
        "GET /large.py" => plain("200 OK", "", "#".repeat((4 << 20) + 1).as_bytes()),
        "GET /slow.py" => Say(Vec::new(), Silence::Yes),
        _ => plain("404 Not Found", "", b"no"),
    })
    .await;
    let url = server.url.clone();
    let scripts = [
        json!({"uri": format!("{url}/scripts/job.py")}),
        json!({"uri": "./job.py", "source": {"type": "http", "endpoint": format!("{url}/scripts/"), "auth": "svc"}}),
        json!({"source": {"type": "http", "endpoint": format!("{url}/job.py"), "method": "POST", "timeout": "5"}}),
    ];
    for script in scripts {
        let call = call("python", json!({"script": script}));
        let call = ToolCall { input: map(json!({"name": "x", "count": 3})), ..call };
        let outcome = run_with_keys(&bench, call).await;
        assert_eq!((outcome.error, outcome.data), (None, json!("xxx")), "{script}");
        let asked = server.was_asked().await;
        assert_eq!(asked.header("authorization").is_some(), script.to_string().contains("svc"));
    }
    let remote = |path: &str| json!({"uri": format!("{url}{path}"), "source": {"type": "http", "timeout": 0.2}});
    let table = [
        (remote("/gone.py?k=geheim"), "HTTP_404", format!("GET {url}/gone.py?… answered 404 Not Found")),
        (
            remote("/large.py"),
            "HTTP_UNUSABLE",
            format!("GET {url}/large.py: 4194305 bytes exceed the limit of 4194304"),
        ),
        (remote("/slow.py"), "HTTP_TIMEOUT", "no complete answer within 200 ms".to_owned()),
        (
            json!({"uri": "gs://bucket/job.py"}),
            "PYTHON_CONFIG",
            "scripts in object stores (`gs`) are not supported: use inline, file or http, for example with a signed \
             address"
                .to_owned(),
        ),
    ];
    for (script, code, message) in table {
        let outcome = bench.run(call("python", json!({"script": script}))).await;
        let failed = error(&outcome);
        assert_eq!((failed.code.as_str(), failed.message.as_str(), failed.hard), (code, message.as_str(), true));
    }
}

#[tokio::test]
async fn loading_a_script_can_be_stopped() {
    let bench = Bench::new();
    let [mut server, _] = stalling().await;
    let (handle, signal) = stop_line();
    let (lines, _kept) = Lines::new();
    let run = bench.run_with(call("python", json!({"script": {"uri": server.url.clone()}})), signal, &lines);
    let stop = async {
        server.was_asked().await;
        handle.order(StopOrder { grace_ms: 0 });
        server.sees_the_end().await;
    };
    let (outcome, ()) = tokio::join!(run, stop);
    assert_eq!((error(&outcome).kind, outcome.stopped), (ErrorKind::Cancelled, Some(Stopped::Stopped)));
}

#[tokio::test]
async fn thirty_requests_wait_beside_each_other() {
    let bench = Bench::with(|config| config.slots = 30);
    let waiting = Arc::new(tokio::sync::Barrier::new(30));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                let mut some = [0; 1024];
                assert!(connection.read(&mut some).await.unwrap() > 0);
                // Answers nobody before all have asked.
                waiting.wait().await;
                connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            });
        }
    });
    let all = (0..30).map(|slot| bench.run_in(slot, get(url.clone())));
    let outcomes = tokio::time::timeout(Duration::from_secs(30), futures_util::future::join_all(all)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none() && outcome.data["data"] == "ok"));
}
