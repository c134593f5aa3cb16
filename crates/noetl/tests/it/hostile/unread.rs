//! A server whose standard error is a pipe that nobody reads.

use std::time::{Duration, Instant};

use super::Target;
use noetl::telemetry::{FLUSH_TIMEOUT, WAITING_BYTES_MAX};

use crate::support::{Home, Server};

#[test]
fn a_server_whose_log_nobody_reads_goes_on_answering_and_ends_in_order() {
    let home = Home::new();
    let server = Server::start_with(&home, &["--no-worker"], &[("NOETL_LOG", "debug")]);
    let address = format!("127.0.0.1:{}", server.url.rsplit(':').next().unwrap());
    let target = Target { server, home, address, before_mib: 0 };
    let dropped = || target.metric("noetl_log_lines_dropped_total");
    // A pipe takes 64 KiB, and the buffer before it some more: each line tells of a long route.
    let ask = "GET /api/executions/4242/status HTTP/1.1\r\nhost: evil.example\r\n";
    let one = format!("{}{ask}connection: close\r\n\r\n", format!("{ask}\r\n").repeat(1_000));
    let enough = 100 * WAITING_BYTES_MAX / one.len();
    let mut rounds = 0;
    while dropped() == 0 {
        target.send(one.as_bytes());
        rounds += 1;
        assert!(rounds < enough, "nothing is dropped, and so much can not wait");
    }
    for _ in 0..20 {
        target.send(one.as_bytes());
        target.is_well();
    }
    let began = Instant::now();
    assert_eq!(target.server.stop(), Some(0));
    assert!(began.elapsed() < FLUSH_TIMEOUT + Duration::from_secs(20), "{:?}", began.elapsed());
}
