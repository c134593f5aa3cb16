//! A data directory that can not be used, or not any more: said clearly, and left as it is.

use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::{Value, json};

use crate::playbooks::NOOP;
use crate::support::{Home, Said, Server, eventually, terminate};

/// Room on the small disk, in MiB.
const DISK_MIB: u32 = 6;

fn database(home: &Home) -> PathBuf {
    home.path().join(".noetl/data/noetl.db")
}

/// Files of the data directory that hold data, with their bytes.
fn data(home: &Home) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(home.path().join(".noetl/data"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("noetl.db"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Every way to open a directory refuses this one, says why, and changes nothing.
#[track_caller]
fn refused(home: &Home, why: &str) {
    let before = data(home);
    home.file("noop.yaml", NOOP);
    for arguments in [&["server", "run", "--port", "0"][..], &["ps"], &["run", "noop.yaml"], &["cancel", "42"]] {
        let said: Said = home.run(arguments);
        assert!(said.exit == 1 || said.exit == 3, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(why), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{arguments:?}");
        assert!(data(home) == before, "{arguments:?} changed the data files");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let home = Home::new();
    home.file(".noetl/data/noetl.db", &"these are not the bytes of a database ".repeat(500));
    refused(&home, "not a database");
}

#[test]
fn a_database_of_a_newer_noetl_is_refused_and_left_as_it_is() {
    let home = Home::new();
    home.file("noop.yaml", NOOP);
    home.run(&["run", "noop.yaml"]).done();
    let newer = rusqlite::Connection::open(database(&home)).unwrap();
    let row = "INSERT INTO schema_version SELECT max(version) + 1, 'future', 'x', '2030-01-01T00:00:00.000Z' FROM schema_version";
    newer.execute(row, []).unwrap();
    drop(newer);
    refused(&home, "newer noetl");
}

#[test]
fn damage_within_a_database_is_reported_and_not_overwritten() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    home.file("noop.yaml", NOOP);
    home.run(&["register", "noop.yaml"]).done();
    let large = "x".repeat(3_000);
    let ids: Vec<String> = (0..40)
        .map(|_| {
            let run = ["run", "test/noop", "-r", "distributed", "--json", "--set", &format!("large={large}")];
            home.run(&run).done().json()["execution_id"].as_str().unwrap().to_owned()
        })
        .collect();
    home.run(&["wait", ids.last().unwrap()]).done();
    assert_eq!(server.stop(), Some(0));
    // Bytes in the middle of the logs go bad, as on a broken disk.
    let mut bytes = std::fs::read(database(&home)).unwrap();
    let middle = bytes.windows(large.len()).position(|window| window == large.as_bytes()).unwrap();
    let page = middle / 4096 * 4096;
    bytes[page..page + 4096].fill(0x5a);
    std::fs::write(database(&home), &bytes).unwrap();
    let _server = Server::start(&home, &["--no-worker"]);
    let validated = home.run(&["db", "validate"]);
    assert_ne!(validated.exit, 0, "{}", validated.stdout);
    let read: Vec<i32> = ids.iter().map(|id| home.run(&["events", id, "--json"]).exit).collect();
    assert!(read.iter().any(|exit| *exit != 0), "whoever reads the bad page is told");
    assert!(read.contains(&0), "what is not on it can be read");
    let after = std::fs::read(database(&home)).unwrap();
    assert!(after[page..page + 4096].iter().all(|byte| *byte == 0x5a), "the evidence is still there");
}

/// A server on a disk of its own that is soon full. The disk is in a mount namespace that only the server sees; we look
/// into it through `/proc`.
struct Small {
    server: Child,
    url: String,
    disk: PathBuf,
}

impl Small {
    /// Fails with the reason where this machine does not let us make one.
    fn start(home: &Home) -> Result<Small, String> {
        let unshare = if rustix::process::geteuid().is_root() { "unshare -m" } else { "unshare -rm" };
        let allowed = home.shell(&format!("{unshare} mount -t tmpfs none /mnt"));
        if allowed.exit != 0 {
            return Err(allowed.stderr);
        }
        let place = home.path().join("small");
        std::fs::create_dir(&place).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={DISK_MIB}m none {0} && exec {1} server run --port 0 --no-worker --data-dir {0}/data",
            place.display(),
            env!("CARGO_BIN_EXE_noetl"),
        );
        let arguments: Vec<&str> = unshare.split(' ').skip(1).chain(["sh", "-c", &script]).collect();
        let server = home.program("unshare", &arguments).spawn().unwrap();
        let disk = Path::new("/proc").join(server.id().to_string()).join("root").join(place.strip_prefix("/").unwrap());
        let lock = disk.join("data/owner.lock");
        let url = eventually("the server says where it listens", || {
            let owner: Value = serde_json::from_str(&std::fs::read_to_string(&lock).ok()?).ok()?;
            owner["url"].as_str().map(str::to_owned)
        });
        Ok(Small { server, url, disk })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[test]
fn on_a_full_disk_what_can_not_be_written_is_refused_and_what_is_there_can_be_read() {
    let home = Home::new();
    let mut small = match Small::start(&home) {
        Ok(small) => small,
        Err(why) => {
            println!("skipped: this machine does not allow a disk of our own: {why}");
            return;
        }
    };
    let on = |arguments: &[&str]| home.run(&[&["--server-url", &small.url], arguments].concat());
    home.file("noop.yaml", NOOP);
    on(&["register", "noop.yaml"]).done();
    home.file("body", &json!({"path": "test/noop", "workload": {"large": "x".repeat(40_000)}}).to_string());
    // Starts one after the other until one is refused.
    let filled = home
        .shell(&format!(
            "for n in $(seq 1000); do
               curl -s -w '%{{stderr}}%{{http_code}}\\n' {}/api/execute -H 'content-type: application/json' -d @body 2>code
               echo
               [ \"$(cat code)\" = 200 ] || break
             done; cat code",
            small.url
        ))
        .done();
    let mut lines: Vec<&str> = filled.stdout.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.pop(), Some("507"), "{:?}", lines.last());
    let answer: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    assert_eq!((&answer["status"], &answer["code"]), (&json!("error"), &json!("store_full")), "{answer}");
    let accepted: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["execution_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(accepted.len() > 10, "{}", accepted.len());
    let said = on(&["run", "test/noop", "-r", "distributed", "--set", &format!("large={}", "x".repeat(40_000))]);
    assert_eq!(said.exit, 1, "{}", said.stderr);
    assert!(said.stderr.contains("make room on the disk"), "{}", said.stderr);
    // Everything that was acknowledged is there.
    let listed = on(&["query", "SELECT count(*) AS n FROM noetl.execution", "-f", "json"]).done().json();
    assert_eq!(listed["result"][0]["n"], accepted.len());
    on(&["status", &accepted[0]]).done();
    // The disk grows.
    let grown = home.shell(&format!(
        "nsenter -t {} -m -- mount -o remount,size=64m {}",
        small.server.id(),
        home.path().join("small").display()
    ));
    if grown.exit == 0 {
        let said = on(&["run", "test/noop", "-r", "distributed", "--json"]).done().json();
        on(&["wait", said["execution_id"].as_str().unwrap(), "--timeout", "30s"]).done();
        for id in &accepted {
            assert_eq!(on(&["wait", id, "--timeout", "30s"]).done().stdout, "COMPLETED\n");
        }
        assert!(on(&["db", "verify"]).done().stdout.contains(" 0 problem(s)"));
    } else {
        println!("not looked at: how it goes on when there is room again ({})", grown.stderr.trim());
    }
    terminate(&small.server);
    assert_eq!(small.server.wait().unwrap().code(), Some(0));
    assert!(!small.disk.exists());
}
