//! Connections: what is served over them, and how they end.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use noetl::server::listen::{self, Listener};
use noetl::server::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::api_world::{LONG, World};

async fn serve(world: &World, tls: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = listen::bind("127.0.0.1", 0).await.unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    let listener = if tls {
        // Self-signed, for localhost, good for nothing else.
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        Listener::Tls(listener, tls::load(&files.join("certificate.pem"), &files.join("key.pem")).unwrap())
    } else {
        Listener::Tcp(listener)
    };
    (address, tokio::spawn(listen::serve(listener, world.router.clone(), world.stopping.clone())))
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
    assert!(client.get(format!("http://{address}/health")).send().await.is_err());
    assert!(client.get(format!("https://{address}/health")).send().await.is_ok());
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
