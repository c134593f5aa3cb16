//! Credentials on the real binary: the command line, and the key that everything is sealed with.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::{Home, Server};

const SECRET: &str = "swordfish-and-chips";

fn write(home: &Home) {
    home.file("pg.json", &json!({"name": "pg", "type": "postgres", "data": {"db_password": SECRET}}).to_string());
}

/// Returns every byte below a folder.
fn bytes_below(folder: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            bytes.extend(bytes_below(&entry.path()));
        } else if kind.is_file() {
            bytes.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn credentials_are_kept_sealed_and_shown_masked() {
    let home = Home::new();
    write(&home);
    home.file("all/deep/api.json", &json!({"name": "api", "type": "bearer", "data": {"token": SECRET}}).to_string());
    home.file("all/other.json", "{\"kind\": \"nothing of ours\"}");
    let said = home.run(&["register", "credential", "-f", "pg.json"]).done();
    assert!(said.stdout.starts_with("Credential registered successfully: {"), "{}", said.stdout);
    let said = home.run(&["register", "credential", "-d", "all"]).done();
    assert!(said.stdout.starts_with("Found 1 file(s) in \"all\"\n"), "{}", said.stdout);
    assert!(said.stdout.ends_with("\nRegistration complete: 1 succeeded, 0 failed\n"), "{}", said.stdout);
    let key = home.path().join(".noetl/data.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let _server = Server::start(&home, &[]);
    let listed = home.run(&["credential", "list", "--json"]).done().json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(home.run(&["credential", "list", "--type", "bearer"]).done().stdout.contains("api"));
    for arguments in [&["get", "credential", "pg", "--include-data"][..], &["credential", "get", "pg"]] {
        let said = home.run(arguments).done();
        assert_eq!(said.json()["data"]["db_password"], "********");
        assert!(!said.stdout.contains(SECRET));
    }
    assert!(!holds(&bytes_below(&home.path().join(".noetl")), SECRET));
    assert_eq!(home.run(&["credential", "delete", "pg"]).done().stdout, "Credential 'pg' deleted.\n");
    assert_eq!(home.run(&["get", "credential", "pg"]).exit, 4);
}

#[test]
fn a_credential_file_that_is_wrong_is_refused_without_repeating_it() {
    let home = Home::new();
    home.file("bad.json", &format!("{{\"name\": \"pg\", \"data\": {{\"password\": \"{SECRET}\" \"x\"}}}}"));
    home.file("list.json", &format!("[\"{SECRET}\"]"));
    home.file("text.json", &format!("{{\"name\": \"pg\", \"type\": \"x\", \"data\": \"{SECRET}\"}}"));
    for (file, expected) in [("bad.json", "bad.json:1:"), ("list.json", "a JSON object"), ("text.json", "data: ")] {
        let said = home.run(&["register", "credential", "--file", file]);
        assert_eq!(said.exit, 2, "{said:?}");
        assert!(said.stderr.contains(expected), "{}", said.stderr);
        assert!(!said.stderr.contains(SECRET), "{}", said.stderr);
    }
    assert_eq!(home.run(&["register", "credential"]).exit, 2);
}

#[test]
fn another_key_does_not_start_a_server_and_a_look_needs_none() {
    let home = Home::new();
    write(&home);
    let key = "0123456789abcdef".repeat(4);
    let with_key = |key: &str, arguments: &[&str]| {
        let output = home.command(arguments).env("NOETL_ENCRYPTION_KEY", key).output().unwrap();
        crate::support::Said::of(output)
    };
    with_key(&key, &["register", "credential", "-f", "pg.json"]).done();
    assert!(!home.path().join(".noetl/data.key").exists(), "a key that is given is not written down");
    for (key, expected) in [("fedcba9876543210".repeat(4), "is sealed"), ("short".to_owned(), "holds no key")] {
        let said = with_key(&key, &["server", "run", "--port", "0"]);
        assert_ne!(said.exit, 0, "{said:?}");
        assert!(said.stderr.contains(expected) || said.stderr.contains("are sealed with key"), "{}", said.stderr);
    }
    // Without any key: what needs none works, the rest says what is missing and makes no other key.
    home.run(&["ps"]).done();
    home.run(&["credential", "list"]).done();
    let said = home.run(&["get", "credential", "pg"]);
    assert!(said.stderr.contains("data.key is missing"), "{}", said.stderr);
    let said = home.run(&["server", "run", "--port", "0"]);
    assert!(said.exit != 0 && said.stderr.contains("NOETL_ENCRYPTION_KEY"), "{said:?}");
    assert!(!home.path().join(".noetl/data.key").exists());
    assert_eq!(with_key(&key, &["get", "credential", "pg"]).done().json()["name"], "pg");
}

#[test]
fn a_server_that_may_shows_credentials_as_they_are() {
    let home = Home::new();
    write(&home);
    let _server = Server::start(&home, &["--allow-secret-read"]);
    home.run(&["register", "credential", "-f", "pg.json"]).done();
    assert_eq!(home.run(&["get", "credential", "pg"]).done().json()["data"]["db_password"], SECRET);
}

#[test]
fn rekey_changes_the_key_and_needs_the_directory_for_itself() {
    let home = Home::new();
    write(&home);
    home.run(&["register", "credential", "-f", "pg.json"]).done();
    let key = home.path().join(".noetl/data.key");
    let before = std::fs::read(&key).unwrap();
    let server = Server::start(&home, &["--allow-secret-read"]);
    assert_eq!(home.run(&["credential", "rekey"]).exit, 1);
    assert_eq!(std::fs::read(&key).unwrap(), before);
    server.stop();
    let said = home.run(&["credential", "rekey"]).done();
    assert_eq!(said.stdout, "1 credential(s) are sealed with the new key\n");
    assert_ne!(std::fs::read(&key).unwrap(), before);
    let _server = Server::start(&home, &["--allow-secret-read"]);
    assert_eq!(home.run(&["get", "credential", "pg"]).done().json()["data"]["db_password"], SECRET);
}

#[test]
fn the_key_of_a_shared_database_changes_when_no_server_uses_it() {
    let Some(home) = Home::on_postgres() else { return };
    write(&home);
    let next = "fedcba9876543210".repeat(4);
    let rekey = |given: &[(&str, &str)]| {
        let mut command = home.command(&["credential", "rekey"]);
        crate::support::Said::of(command.envs(given.iter().copied()).output().unwrap())
    };
    let server = Server::start(&home, &["--no-worker", "--allow-secret-read"]);
    home.run(&["register", "credential", "-f", "pg.json"]).done();
    let said = rekey(&[("NOETL_NEW_ENCRYPTION_KEY", &next)]);
    assert!(said.exit == 1 && said.stderr.contains("1 server(s) use the database"), "{said:?}");
    assert_eq!(server.stop(), Some(0));
    let said = rekey(&[]);
    assert!(said.exit != 0 && said.stderr.contains("NOETL_NEW_ENCRYPTION_KEY"), "{said:?}");
    let said = rekey(&[("NOETL_NEW_ENCRYPTION_KEY", &next)]).done();
    assert_eq!(said.stdout, "1 credential(s) are sealed with the new key\n");
    // The old key opens nothing any more, and starts no server.
    let old = home.run(&["server", "run", "--port", "0"]);
    assert!(old.exit != 0 && old.stderr.contains("sealed with key"), "{old:?}");
    let given = [("NOETL_ENCRYPTION_KEY", next.as_str())];
    let _server = Server::start_with(&home, &["--no-worker", "--allow-secret-read"], &given);
    assert_eq!(home.run(&["get", "credential", "pg"]).done().json()["data"]["db_password"], SECRET);
}

const TAKES_SECRETS: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: takes, path: test/takes}
keychain: [{name: env, kind: secrets, provider: env, map: {value: GIVEN}}]
workflow:
  - step: start
    tool:
      - file: {kind: secrets, provider: file, key: deep/token}
      # What it takes stands nowhere, so it says how long it is, and what it begins with.
      - look:
          kind: python
          input: {file: '{{ file.value }}', env: '{{ keychain.env.value }}', seen: '{{ env.GIVEN }}'}
          code: "result = [file[:3], len(file), env[:3], len(env), seen == env]"
"#;

#[test]
fn a_run_of_ones_own_takes_secrets_from_where_it_is_told() {
    let home = Home::new();
    home.file("secrets/deep/token", &format!("{SECRET}\n"));
    home.file("takes.yaml", TAKES_SECRETS);
    let run = |more: &[&str]| {
        let arguments = [&["run", "takes.yaml", "-r", "local", "--json"], more].concat();
        crate::support::Said::of(home.command(&arguments).env("GIVEN", "swordfish-to-go").output().unwrap())
    };
    let options = ["--secrets-dir", "secrets", "--expose-env", "GIVEN"];
    let said = run(&options).done();
    let looked = json!(["swo", SECRET.len(), "swo", "swordfish-to-go".len(), true]);
    assert_eq!(said.json()["final_result"]["look"], looked, "{}", said.stdout);
    assert!(!holds(&bytes_below(&home.path().join(".noetl")), SECRET));
    // Without a folder there is no such provider.
    let said = run(&[]);
    assert!(said.exit == 1 && said.stdout.contains("NOT_CONFIGURED"), "{said:?}");
    // A server has its own; that they do not count is said.
    let _server = Server::start(&home, &[]);
    let said = run(&options);
    assert!(said.exit == 1 && said.stdout.contains("NOT_CONFIGURED"), "{said:?}");
    assert!(said.stderr.contains("--secrets-dir do not count here"), "{}", said.stderr);
}
