//! Serving: connections in, the router around them, an orderly end.
//!
//! HTTP/1.1 over TCP (with or without TLS) and over unix sockets. Every bound on a connection stands here.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::caller::Peer;

/// Connections that one listener serves at once; more wait unaccepted.
pub const CONNECTIONS_MAX: usize = 4096;
/// Longest time in which the head of a request must arrive, and a kept connection may stay idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for open requests at the end.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed for lack of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// The network.
    Tcp(TcpListener),
    /// The network, encrypted.
    Tls(TcpListener, TlsConfig),
    /// A socket in the file system.
    Unix(UnixListener),
}

/// A certificate and its key.
#[derive(Clone)]
pub struct TlsConfig(pub Arc<rustls::ServerConfig>);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig")
    }
}

/// Serves `router` on `listener` until `stopping`, then lets open requests end, for at most [`CLOSE_TIMEOUT`].
pub async fn serve(listener: Listener, router: Router, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Those that have ended are let go here, so the set holds only what is open.
        while connections.try_join_next().is_some() {}
        let (router, stopping) = (router.clone(), stopping.clone());
        connections.spawn(async move {
            connection(stream, router, stopping).await;
            drop(place);
        });
    }
    drop(listener);
    let ended = tokio::time::timeout(CLOSE_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(open = connections.len(), "connections are closed with requests open");
    }
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, TlsConfig),
    Unix(tokio::net::UnixStream),
}

async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> io::Result<(Stream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let stream = match listener {
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            Stream::Tcp(stream, from)
        }
        Listener::Tls(listener, config) => {
            let (stream, from) = listener.accept().await?;
            Stream::Tls(stream, from, config.clone())
        }
        Listener::Unix(listener) => Stream::Unix(listener.accept().await?.0),
    };
    Ok((stream, place))
}

async fn connection(stream: Stream, router: Router, stopping: CancellationToken) {
    match stream {
        Stream::Tcp(stream, from) => {
            // An answer is one write; waiting to fill a packet only delays it.
            stream.set_nodelay(true).ok();
            requests(stream, Peer::Tcp(from), router, stopping).await;
        }
        Stream::Tls(stream, from, config) => {
            stream.set_nodelay(true).ok();
            let handshake = TlsAcceptor::from(config.0).accept(stream);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => requests(stream, Peer::Tcp(from), router, stopping).await,
                Ok(Err(error)) => tracing::debug!(%error, %from, "no TLS handshake"),
                Err(_) => tracing::debug!(%from, "the TLS handshake took too long"),
            }
        }
        Stream::Unix(stream) => requests(stream, Peer::Socket, router, stopping).await,
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    stopping: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Binds `host` and `port`. `localhost` means both families of loopback, as far as the machine has them.
pub async fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    if !host.eq_ignore_ascii_case("localhost") {
        let host = host.trim_matches(['[', ']']);
        return Ok(vec![TcpListener::bind((host, port)).await?]);
    }
    let first = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await?;
    // Port 0 lets the system choose; the second family takes the same one, if nobody else has it.
    let chosen = first.local_addr()?.port();
    match TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, chosen)).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => Err(error),
        // Machines without IPv6, and containers that forbid it.
        Err(_) => Ok(vec![first]),
    }
}
