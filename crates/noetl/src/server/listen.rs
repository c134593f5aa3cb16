//! Serving: connections in, the router around them, an orderly end.
//!
//! HTTP/1.1 over TCP (with or without TLS) and over unix sockets. The bounds on a connection stand here, in `stream`
//! (an answer that is not taken), in `places` (how many there are) and in `arriving` (what their bodies hold).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::arriving::{Arriving, BODIES_BYTES_MAX, Room};
use super::places::{Place, Places};
use super::stream::Taken;
use crate::api::caller::Peer;

/// Longest time in which the head of a request must arrive, and a kept connection may stay idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest head of a request, in bytes: more is answered with 431.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that a connection has read ahead, or keeps to be written in one piece.
pub const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Most headers of a request: more are answered with 431.
pub const HEADERS_MAX: usize = 100;
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

/// What the connections of one or more listeners share.
#[derive(Debug, Clone)]
pub struct Shared {
    places: Arc<Places>,
    room: Room,
}

impl Shared {
    /// Returns what connections with those places share.
    pub fn new(places: Arc<Places>) -> Self {
        Shared { places, room: Room::new(BODIES_BYTES_MAX) }
    }
}

/// Serves `router` on `listener` until `stopping`, then lets open requests end, for at most [`CLOSE_TIMEOUT`].
pub async fn serve(listener: Listener, router: Router, shared: Shared, stopping: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                // For lack of files, most likely: somebody who only waits may have one.
                shared.places.evict();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Taken for a connection that is there: nobody has to go for one that might come.
        let place = tokio::select! {
            () = stopping.cancelled() => break,
            place = shared.places.take() => Arc::new(place),
        };
        // Those that have ended are let go here, so the set holds only what is open.
        while connections.try_join_next().is_some() {}
        let (router, room, stopping) = (router.clone(), shared.room.clone(), stopping.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection(stream, Served { router, room, place: Arc::clone(&place) }, stopping) => {}
                () = place.wanted() => tracing::debug!("a connection that waited made room for another"),
            }
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

async fn accept(listener: &Listener) -> io::Result<Stream> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            Stream::Tcp(stream, from)
        }
        Listener::Tls(listener, config) => {
            let (stream, from) = listener.accept().await?;
            Stream::Tls(stream, from, config.clone())
        }
        Listener::Unix(listener) => Stream::Unix(listener.accept().await?.0),
    })
}

/// What answers the requests of one connection.
struct Served {
    router: Router,
    room: Room,
    place: Arc<Place>,
}

async fn connection(stream: Stream, served: Served, stopping: CancellationToken) {
    match stream {
        Stream::Tcp(stream, from) => {
            // An answer is one write; waiting to fill a packet only delays it.
            stream.set_nodelay(true).ok();
            requests(stream, Peer::Tcp(from), served, stopping).await;
        }
        Stream::Tls(stream, from, config) => {
            stream.set_nodelay(true).ok();
            let handshake = TlsAcceptor::from(config.0).accept(stream);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => requests(stream, Peer::Tcp(from), served, stopping).await,
                Ok(Err(error)) => tracing::debug!(%error, %from, "no TLS handshake"),
                Err(_) => tracing::debug!(%from, "the TLS handshake took too long"),
            }
        }
        Stream::Unix(stream) => requests(stream, Peer::Socket, served, stopping).await,
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    served: Served,
    stopping: CancellationToken,
) {
    let Served { router, room, place } = served;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, room, place) = (router.clone(), room.clone(), Arc::clone(&place));
        async move {
            // A body that is yet to arrive leaves it the client's turn.
            if request.body().is_end_stream() && !place.busy() {
                // The connection is about to be closed: nothing begins that nobody would hear of.
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            let (parts, body) = request.into_parts();
            let (body, held) = Arriving::new(body, Arc::clone(&place), &room);
            let mut request = hyper::Request::from_parts(parts, Body::new(body));
            request.extensions_mut().insert(peer);
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            drop(held);
            place.waits();
            Ok(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(Taken::new(stream)), service));
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
