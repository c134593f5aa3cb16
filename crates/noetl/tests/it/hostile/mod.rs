//! Whoever reaches the port may send anything: all of it is answered or closed in bounded time, never with a 500, and
//! leaves the server as it was.

mod bytes;
mod crowd;
mod documents;
mod unread;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Home, PATIENCE, Server, eventually};

/// What an attack may leave behind in memory, in MiB: pages that the allocator keeps, and caches.
const LEFT_MIB_MAX: u64 = 200;
/// Longest time in which somebody who behaves is answered while others do not.
const POLITE: Duration = Duration::from_secs(5);

/// A server under attack.
struct Target {
    server: Server,
    home: Home,
    address: String,
    before_mib: u64,
}

impl Target {
    fn new(more: &[&str]) -> Self {
        let home = Home::new();
        let server = Server::start(&home, more);
        let port = server.url.rsplit(':').next().unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut target = Target { server, home, address, before_mib: 0 };
        target.is_well();
        target.before_mib = target.memory_mib();
        target
    }

    /// Returns a connection that gives up when nothing comes for long.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends what ends with a request to close, and returns everything that comes back.
    #[track_caller]
    fn send(&self, bytes: &[u8]) -> String {
        self.exchange(bytes, false)
    }

    /// Sends bytes and then nothing more; returns what comes back, which may be nothing: who has stopped talking may
    /// have stopped listening.
    #[track_caller]
    fn throw(&self, bytes: &[u8]) -> String {
        self.exchange(bytes, true)
    }

    #[track_caller]
    fn exchange(&self, bytes: &[u8], end: bool) -> String {
        let mut stream = self.connect();
        // It may have enough of it before everything is said.
        if stream.write_all(bytes).is_ok() && end {
            stream.shutdown(Shutdown::Write).ok();
        }
        let answer = rest(&mut stream);
        for status in statuses(&answer) {
            assert!((100..500).contains(&status), "{status} to {:?}", String::from_utf8_lossy(start(bytes)));
        }
        answer
    }

    /// Sends a request with a body, and returns status and answer.
    #[track_caller]
    fn post(&self, path: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.send(&[head.as_bytes(), body].concat());
        let status = statuses(&answer).into_iter().find(|status| *status >= 200).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    /// Asks as somebody who behaves; fails when that takes long.
    #[track_caller]
    fn is_well(&self) {
        let began = Instant::now();
        let answer = self.send(b"GET /api/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(began.elapsed() < POLITE, "{:?}", began.elapsed());
    }

    fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    fn metric(&self, name: &str) -> u64 {
        let said = self.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {said}")).parse().unwrap()
    }

    /// Fails unless the server is as it was, and ends in order.
    #[track_caller]
    fn survives(self) {
        self.is_well();
        // Whoever has just been closed is forgotten a moment later.
        eventually("what was taken is given back", || {
            (self.memory_mib() < self.before_mib + LEFT_MIB_MAX).then_some(())
        });
        assert_eq!(self.server.stop(), Some(0));
        drop(self.home);
    }
}

/// Reads until the other side closes, in order or not.
#[track_caller]
fn rest(stream: &mut TcpStream) -> String {
    let began = Instant::now();
    let mut answer = Vec::new();
    let mut some = [0; 65536];
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&some[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("neither answered nor closed"),
            Err(_) => break,
        }
        assert!(began.elapsed() < PATIENCE, "it goes on and on");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the status of each answer.
fn statuses(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

fn start(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(200)]
}
