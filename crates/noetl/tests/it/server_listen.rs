//! Connections: what is served over them, and how they end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use noetl::api::extract::BODY_READ_TIMEOUT;
use noetl::client::Client;
use noetl::server::listen::{self, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, Listener, Shared};
use noetl::server::places::Places;
use noetl::server::stream::WRITE_TIMEOUT;
use noetl::server::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api_world::{LONG, World};

async fn serve(world: &World, tls: bool) -> (SocketAddr, JoinHandle<()>) {
    serve_some(world, tls, 100).await
}

/// Serves so many connections at once.
async fn serve_some(world: &World, tls: bool, connections: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = listen::bind("127.0.0.1", 0).await.unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    let listener = if tls {
        // Self-signed, for localhost, good for nothing else.
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        Listener::Tls(listener, tls::load(&files.join("certificate.pem"), &files.join("key.pem")).unwrap())
    } else {
        Listener::Tcp(listener)
    };
    let shared = Shared::new(Places::new(connections, Arc::default()));
    (address, tokio::spawn(listen::serve(listener, world.router.clone(), shared, world.stopping.clone())))
}

#[tokio::test]
async fn tls_is_spoken_when_there_is_a_certificate() {
    tls::install_provider();
    let world = World::new();
    let (address, _serving) = serve(&world, true).await;
    let pem = include_bytes!("../tls/certificate.pem");
    let certificate = reqwest::Certificate::from_pem(pem).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    let health: Value = client.get(format!("https://{address}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(health, json!({"status": "ok"}));
    // In the clear there is no answer, and the next handshake works all the same.
    let lost = Client::to_url(&format!("http://{address}"), None).unwrap().get(&["health"]).send().await.unwrap_err();
    assert!(lost.why.contains("begins with https://"), "{lost}");
    assert!(client.get(format!("https://{address}/health")).send().await.is_ok());
}

#[test]
fn a_file_without_a_key_is_said_to_hold_none() {
    let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificate.pem");
    let error = tls::load(&certificate, &certificate).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("certificate.pem: holds no private key"), "{error}");
}

#[tokio::test]
async fn an_open_long_poll_is_answered_when_the_server_stops() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let (address, serving) = serve(&world, false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = format!("/api/executions/{id}/status?wait_seconds=20");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    world.stopping.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""status":"RUNNING""#), "{answer}");
    // A kept connection holds nobody up.
    tokio::time::timeout(listen::CLOSE_TIMEOUT, serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_that_is_no_http_ends_its_own_connection_only() {
    tls::install_provider();
    let world = World::new();
    let (address, _serving) = serve(&world, false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.unwrap().ok();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(client.get(format!("http://{address}/health")).send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn localhost_means_both_families_on_one_port() {
    let listeners = listen::bind("localhost", 0).await.unwrap();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().ip().is_loopback()));
    let taken = listen::bind("localhost", ports[0]).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

/// More than a bound by what the runtime needs to notice.
const NOTICE: Duration = Duration::from_secs(5);

/// Sends a byte a second, in a time that obeys; returns after how long the other side closed, and what it had said.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> (Duration, String) {
    let began = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let dripping = async {
        for byte in bytes {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = dripping => {}
        read = reader.read_to_end(&mut answer) => drop(read),
    }
    (began.elapsed(), String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_waited_for_so_long_and_no_longer() {
    let world = World::new();
    let (address, _serving) = serve(&world, false).await;
    tokio::time::pause();
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: {}", "x".repeat(1000));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (took, said) = drip(&mut stream, head.as_bytes()).await;
    assert!((HEAD_TIMEOUT..HEAD_TIMEOUT + NOTICE).contains(&took), "a head: {took:?} {said}");

    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (took, said) = drip(&mut stream, &[b' '; 1000]).await;
    assert!((BODY_READ_TIMEOUT..BODY_READ_TIMEOUT + NOTICE).contains(&took), "a body: {took:?} {said}");
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("body_timeout"), "{said}");

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (took, said) = drip(&mut stream, b"").await;
    assert!((HEAD_TIMEOUT..HEAD_TIMEOUT + NOTICE).contains(&took), "a kept connection: {took:?}");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[tokio::test]
async fn who_opens_a_connection_for_tls_and_says_nothing_is_let_go() {
    tls::install_provider();
    let world = World::new();
    let (address, _serving) = serve(&world, true).await;
    tokio::time::pause();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (took, _) = drip(&mut stream, b"").await;
    assert!((HANDSHAKE_TIMEOUT..HANDSHAKE_TIMEOUT + NOTICE).contains(&took), "{took:?}");
}

#[tokio::test]
async fn who_does_not_take_an_answer_is_let_go() {
    let world = World::new();
    let (address, _serving) = serve(&world, false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let one = "GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // Far more answers than any socket buffers.
    let asked = 1_000;
    let (mut reader, mut writer) = stream.split();
    tokio::time::pause();
    let began = Instant::now();
    let flood = one.repeat(asked);
    // Nothing is read until the other side has given up; its end is seen as a failing write.
    let written = tokio::time::timeout(WRITE_TIMEOUT * 2, async {
        writer.write_all(flood.as_bytes()).await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            writer.write_all(b"GET").await?;
        }
        #[expect(unreachable_code, reason = "says what the loop fails with")]
        Ok::<(), std::io::Error>(())
    });
    written.await.expect("it is closed").unwrap_err();
    let took = began.elapsed();
    assert!((WRITE_TIMEOUT..WRITE_TIMEOUT + NOTICE).contains(&took), "{took:?}");
    let mut answers = Vec::new();
    reader.read_to_end(&mut answers).await.ok();
    let answered = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK").count();
    assert!(answered < asked, "{answered}");
}

#[tokio::test]
async fn when_every_place_is_taken_who_waits_longest_for_its_client_makes_room() {
    let world = World::new();
    world.register(LONG).await;
    let id = world.start("demo/long").await;
    let (address, _serving) = serve_some(&world, false, 3).await;
    // One that is being answered, one that says nothing, and one in the middle of its body.
    let mut polling = TcpStream::connect(address).await.unwrap();
    let path = format!("/api/executions/{id}/status?wait_seconds=20");
    polling.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    };
    // By the time that this is answered, so is the one before being answered.
    ask().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut sending = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    sending.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        ask().await;
    }
    let mut rest = String::new();
    silent.read_to_string(&mut rest).await.ok();
    assert_eq!(rest, "", "the silent one went without a word");
    // Two that stay: the one that sends goes next, the one that is answered never.
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream.readable().await.unwrap();
        kept.push(stream);
    }
    sending.read_to_string(&mut rest).await.ok();
    assert_eq!(rest, "");
    world.stopping.cancel();
    polling.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK"), "{rest}");
}
