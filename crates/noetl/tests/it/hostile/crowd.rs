//! Many at once, who say nothing, or little, or hear nothing.

use std::io::Write;
use std::net::TcpStream;

use noetl::server::places::{CONNECTIONS_MAX, descriptors};

use super::{Target, rest, statuses};

/// Connections that are opened, where the system allows that many files.
const CROWD: usize = 10_000;

/// Opens so many connections and says `words` on each, with a look at the server now and then.
fn crowd(target: &Target, count: usize, words: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = target.connect();
        // It may have been closed already, for others who came later.
        stream.write_all(words).ok();
        streams.push(stream);
        if number % 1_000 == 999 {
            target.is_well();
        }
    }
    streams
}

/// Returns how many connections this process can open.
fn possible() -> usize {
    // Raises the limit, and leaves some for everything else.
    usize::try_from(descriptors().saturating_sub(500)).unwrap().min(CROWD)
}

#[test]
fn ten_thousand_who_say_nothing_keep_nobody_out() {
    let target = Target::new(&["--no-worker"]);
    let count = possible();
    let silent = crowd(&target, count, b"");
    target.is_well();
    if count > CONNECTIONS_MAX {
        let evicted = target.metric("noetl_connections_evicted_total");
        assert!(evicted as usize >= count - CONNECTIONS_MAX, "{evicted}");
        assert!(target.metric("noetl_connections") as usize <= 2 * CONNECTIONS_MAX);
    } else {
        println!("only {count} connections: this machine allows no more");
    }
    drop(silent);
    target.survives();
}

#[test]
fn thousands_in_the_middle_of_a_request_keep_nobody_out() {
    let target = Target::new(&["--no-worker"]);
    let half = possible() / 2;
    let heads = crowd(&target, half, b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
    let head = b"POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n{";
    let mut bodies = crowd(&target, half, head);
    // Each sends a little more, as if it were only slow.
    for (number, stream) in bodies.iter_mut().enumerate() {
        stream.write_all(b" ").ok();
        if number % 1_000 == 0 {
            target.is_well();
        }
    }
    drop((heads, bodies));
    target.survives();
}

#[test]
fn those_who_take_no_answer_keep_nobody_out() {
    let target = Target::new(&["--no-worker"]);
    let count = (possible() / 5).min(1_000);
    let ask = b"GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let deaf = crowd(&target, count, &ask);
    target.is_well();
    drop(deaf);
    target.survives();
}

#[test]
fn large_bodies_share_a_bounded_room_and_small_ones_do_not_wait_for_it() {
    let target = Target::new(&["--no-worker"]);
    // More than there is room for, each without its last byte.
    let length = 60 << 20;
    let head = format!("POST /api/catalog/register HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = target.connect();
            let head = head.clone();
            std::thread::spawn(move || {
                stream.write_all(head.as_bytes()).unwrap();
                let piece = vec![b' '; 1 << 20];
                for _ in 0..length >> 20 {
                    // Read on when there is room, or given up by the server.
                    if stream.write_all(&piece[..piece.len() - 1]).is_err() {
                        break;
                    }
                }
                rest(&mut stream)
            })
        })
        .collect();
    let mut most = 0;
    while !senders.iter().all(std::thread::JoinHandle::is_finished) {
        most = most.max(target.memory_mib());
        let (status, answer) = target.post("/api/execute", br#"{"path": "nobody/there"}"#);
        assert_eq!(status, 404, "{answer}");
    }
    for sender in senders {
        let answer = sender.join().unwrap();
        let statuses = statuses(&answer);
        assert!(statuses.is_empty() || statuses == [408], "{answer}");
    }
    // The bodies, and as much again for the piece that a reader makes larger.
    assert!(most < target.before_mib + 2 * 512 + 200, "{most} MiB");
    target.is_well();
    assert_eq!(target.server.stop(), Some(0));
}
