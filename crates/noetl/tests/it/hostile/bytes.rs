//! What is no request, or hardly one.

use std::io::Write;

use noetl::api::{BODY_BYTES_MAX, CATALOG_BYTES_MAX};
use noetl::server::listen::{HEAD_BYTES_MAX, HEADERS_MAX};

use super::{Target, rest, statuses};

/// A request with one more header.
fn with(header: &str) -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n").into_bytes()
}

/// A request with a body, as it stands.
fn body(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /api/execute HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn whatever_is_sent_is_answered_or_closed() {
    let target = Target::new(&["--no-worker"]);
    let json = br#"{"path": "a"}"#;
    let length = format!("content-length: {}", json.len());
    let garbage: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        b"GET /\r\n".to_vec(),
        b"GET /health\r\n\r\n".to_vec(),
        b"GET /health HTTP/0.9\r\n\r\n".to_vec(),
        b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET  /health  HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\nhost: localhost\nconnection: close\n\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        (0..=255).cycle().take(100_000).collect(),
        b"\xef\xbb\xbfGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        "GET /é HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".as_bytes().to_vec(),
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET /\0 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"CONNECT localhost:22 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"TRACE / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET //evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec(),
        [&[b'A'; 70_000][..], b" /health HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat(),
        with("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA=="),
        with("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__"),
        with("host: evil.example"),
        with("expect: 200-maybe"),
        with("transfer-encoding: chunked"),
        with("transfer-encoding: gzip, chunked"),
        with("content-length: 0\r\ncontent-length: 1"),
        with("authorization: Bearer \u{1f980}"),
        with("x: \x01\x02\x03"),
        with(": no name"),
        with(" x: folded"),
        with("range: bytes=0-18446744073709551615"),
        with("if-none-match: *"),
        body("content-length: -1", json),
        body("content-length: 99999999999999999999999", json),
        body("content-length: 9223372036854775808", json),
        body("content-length: 13, 13", json),
        body("content-length: 0x0d", json),
        body("content-length: 13\r\ntransfer-encoding: chunked", b"d\r\n{\"path\": \"a\"}\r\n0\r\n\r\n"),
        body("transfer-encoding: chunked", b"-1\r\n{}\r\n0\r\n\r\n"),
        body("transfer-encoding: chunked", b"ffffffffffffffff\r\n{}"),
        body("transfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        body("transfer-encoding: chunked", &[b"2;".as_slice(), &[b'x'; 100_000], b"\r\n{}\r\n0\r\n\r\n"].concat()),
        body("transfer-encoding: chunked", &[b"0\r\n".as_slice(), &b"a: b\r\n".repeat(50_000), b"\r\n"].concat()),
        body(&format!("{length}\r\ncontent-type: multipart/form-data; boundary=x"), json),
        body(&format!("{length}\r\ncontent-type: \\\\"), json),
        body(&format!("{length}\r\ncontent-encoding: gzip"), json),
        body("content-length: 6\r\ncontent-encoding: gzip", b"\x1f\x8b\x08\0\0\0"),
        body("content-length: 4", b"\xff\xfe\0{"),
        body("content-length: 3", b"\xef\xbb\xbf"),
        body("content-length: 1000", b"{"),
        body(&format!("{length}\r\nexpect: 100-continue"), json),
    ];
    for bytes in &garbage {
        target.throw(bytes);
    }
    target.is_well();
    let upgrade =
        with("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==");
    assert_eq!(statuses(&target.send(&upgrade)), [200], "there is nothing to upgrade to");
    let two_hosts = b"GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(statuses(&target.send(two_hosts)), [400], "which of the two is meant nobody knows");
    target.survives();
}

#[test]
fn heads_are_bounded_in_every_direction() {
    let target = Target::new(&["--no-worker"]);
    let flood = |count: usize, length: usize| {
        let headers: String = (0..count).map(|number| format!("x-{number}: {}\r\n", "x".repeat(length))).collect();
        statuses(&target.send(&with(headers.trim_end())))
    };
    assert_eq!(flood(HEADERS_MAX - 2, 10), [200], "two are there already");
    assert_eq!(flood(HEADERS_MAX + 1, 10), [431]);
    assert_eq!(flood(10, HEAD_BYTES_MAX / 8), [431]);
    let long = |length: usize| {
        let path = format!("/api/executions/{}", "1".repeat(length));
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        statuses(&target.send(request.as_bytes()))
    };
    assert_eq!(long(100), [400]);
    // Whether it is the line or the head that is too long depends on how it arrives; without an answer it is closed.
    for length in [HEAD_BYTES_MAX, 10_000_000] {
        let said = long(length);
        assert!(said.is_empty() || said == [414] || said == [431], "{length}: {said:?}");
    }
    // Without end, until the other side has enough.
    let mut stream = target.connect();
    let mut sent = 0;
    while stream.write_all(&b"x-more: and more\r\n".repeat(1000)).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "180 MB of headers");
        if sent == 1 {
            stream.write_all(b"GET / HTTP/1.1\r\n").ok();
        }
    }
    target.survives();
}

#[test]
fn bodies_are_bounded_whether_they_say_how_long_they_are_or_not() {
    let target = Target::new(&["--no-worker"]);
    for (path, limit) in [("/api/execute", BODY_BYTES_MAX), ("/api/catalog/register", CATALOG_BYTES_MAX)] {
        // Refused before it is sent.
        let mut stream = target.connect();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", limit + 1);
        stream.write_all(head.as_bytes()).unwrap();
        let answer = rest(&mut stream);
        assert_eq!(statuses(&answer), [413], "{answer}");
        assert!(answer.contains("body_too_large"), "{answer}");
        // In pieces without end: answered, and closed, when there is enough of it.
        let mut stream = target.connect();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let piece = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let mut sent = 0;
        while stream.write_all(&piece).is_ok() {
            sent += 0x10000;
            assert!(sent < 4 * limit + (64 << 20), "{sent} bytes");
        }
    }
    target.survives();
}

#[test]
fn a_thousand_requests_at_once_are_answered_one_after_the_other() {
    let target = Target::new(&["--no-worker"]);
    let one = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let unknown = b"DELETE /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    let last = with("x-last: yes");
    let answers = target.send(&[[one.as_slice(), unknown].concat().repeat(500), last].concat());
    let mut statuses = statuses(&answers);
    assert_eq!(statuses.pop(), Some(200));
    assert_eq!(statuses.len(), 1_000);
    assert!(statuses.chunks(2).all(|pair| pair == [200, 404]));
    target.survives();
}

#[test]
fn paths_lead_nowhere_but_to_routes() {
    let target = Target::new(&["--no-worker"]);
    let tricks = [
        "..",
        "../..",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "%2e%2e%2f",
        "....//",
        "%00",
        "%0d%0aset-cookie:%20a=b",
        "%",
        "%zz",
        "%u002e",
        "%c0%ae%c0%ae",
        "%F0%9F%A6%80",
        "%ff%fe",
        "0",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1e3",
        "0x10",
        "1;drop%20table",
        "'%20or%201=1--",
        "{{7*7}}",
        "%7B%7B7*7%7D%7D",
        "null",
        "undefined",
        "*",
        "~",
        "\u{202e}",
        "1/../2",
        "1//2",
        "a%2Fb",
        "%20",
        "?",
        "#",
        ";",
    ];
    let routes = [
        "/",
        "/api/executions/",
        "/api/executions/1/",
        "/api/executions/1/steps/",
        "/api/credentials/",
        "/api/jobs/",
        "/api/schedules/",
        "/api/commands/",
        "/api/worker/playbook/",
        "/api/docs/",
        "/api/executions?status=",
        "/api/executions?page=",
        "/api/executions?cursor=",
        "/api/executions/1/events?after_version=",
        "/api/executions/1/logs?after=",
    ];
    for route in routes {
        for trick in tricks {
            for method in ["GET", "POST", "DELETE"] {
                let request = format!(
                    "{method} {route}{trick} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
                );
                let answer = target.send(request.as_bytes());
                assert!(!answer.contains("root:"), "{request}: {answer}");
                assert!(!answer.to_lowercase().contains("\r\nset-cookie"), "{request}: {answer}");
            }
        }
    }
    target.survives();
}
