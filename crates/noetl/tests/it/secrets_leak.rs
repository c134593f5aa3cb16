//! A run that does with its secrets whatever must not be done, and a search for them in everything that is left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::json;

use crate::support::{Canned, Home, Server, wants_postgres};

const PASSWORD: &str = "pä\"ss'w\\rd /+?&=%1";
const API_TOKEN: &str = "tok-6d1f0a-bearer";
const CLIENT_SECRET: &str = "client-secret-93b1";
const ISSUED: &str = "issued-token-77aa31";
const FROM_ENV: &str = "from-the-environment-5521";
const FROM_FILE: &str = "from-a-file\nof two lines-8812";

const PLAYBOOK: &str = r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: leak, path: test/leak}
workload: {echo: none, issuer: none, api: api}
keychain:
  - {name: db, kind: credential, credential: db}
  - {name: copy, kind: static, map: {password: '{{ keychain.db.password }}'}}
  - {name: bearer, kind: bearer, token: "{{ token('api') }}"}
  - {name: client, kind: credential, credential: client}
  - name: issued
    kind: oauth2
    scope: global
    endpoint: '{{ workload.issuer }}'
    data: {grant_type: client_credentials, client_secret: '{{ keychain.client.client_secret }}'}
  - {name: env, kind: secrets, provider: env, map: {value: LEAKED, path: LEAKED}}
  - {name: file, kind: secrets, provider: file, map: {value: deep/secret}}
  - {name: id, kind: google_id_token, auth: nobody}
workflow:
  - step: start
    input:
      known:
        - '{{ keychain.copy.password }}'
        - '{{ keychain.bearer.token }}'
        - '{{ keychain.client.client_secret }}'
        - '{{ keychain.issued.access_token }}'
        - '{{ keychain.env.value }}'
        - '{{ keychain.file.value }}'
      lenient: '[{{ keychain.id.token }}]'
    tool:
      kind: python
      code: |
        import base64, json, sys, urllib.parse
        assert all(len(secret) > 8 for secret in known), "every secret is there"
        assert lenient == "[]", lenient
        ways = lambda secret: [
            secret, repr(secret), json.dumps(secret), json.dumps(json.dumps({"s": secret})),
            urllib.parse.quote(secret), urllib.parse.quote_plus(secret), urllib.parse.quote(secret, safe=""),
            base64.b64encode(secret.encode()).decode(), base64.urlsafe_b64encode(("x:" + secret).encode()).decode(),
            base64.b64encode(json.dumps({"token": secret}).encode()).decode(),
        ]
        for secret in known:
            for way in ways(secret):
                print(way)
                print("err " + way, file=sys.stderr)
        result = {"list": [ways(secret) for secret in known], "map": {secret: secret for secret in known}, "text": " ".join(known)}
      set: {ctx.kept: '{{ output.text }}', ctx.known: '{{ known }}'}
    next:
      arcs: [{step: ask, set: {ctx.more: '{{ start.list }}', ctx.key: '{{ keychain.copy.password }}'}}]
  - step: ask
    tool:
      - in_url: {kind: http, url: "{{ workload.echo }}?key={{ keychain.env.value | urlencode }}&p={{ keychain.db.password | urlencode }}", auth: api}
      - in_body: {kind: http, method: POST, url: "{{ workload.echo }}", json: {secret: "{{ keychain.issued.access_token }}"}}
      - unreachable:
          kind: http
          url: "http://127.0.0.1:1/{{ keychain.env.value | urlencode }}?p={{ keychain.bearer.token }}"
          spec: {policy: {rules: [{else: {then: {do: continue}}}]}}
    next: {arcs: [{step: fetch}]}
  - step: fetch
    tool:
      - got: {kind: secrets, provider: file, key: deep/secret, set: {ctx.got: '{{ output.value }}'}}
      - passed_on: {kind: http, method: POST, url: "{{ workload.echo }}-of-file", json: {fetched: "{{ got.value }}"}}
      - repeated: {kind: noop, result: {again: '{{ got.value }}', sent: '{{ passed_on.status_code }}'}}
    next: {arcs: [{step: alone}]}
  - step: alone
    tool: {kind: secrets, provider: env, map: {host: LEAKED}}
    next: {arcs: [{step: shout}]}
  - step: shout
    tool: {kind: shell, command: "printf '%s\n' \"$SECRET\"; printf %s \"$SECRET\" | base64; exit 3", env: {SECRET: '{{ keychain.client.client_secret }}'}}
    next: {arcs: [{step: raise}]}
  - step: raise
    tool:
      kind: python
      input: {secret: '{{ keychain.db.password }}', other: '{{ keychain.bearer.token }}'}
      code: |
        raise ValueError(f"it failed with {secret} and {other!r}")
"#;

/// The ways in which a value could be found, those that are no accident left out.
fn forms(secret: &str) -> Vec<(String, String)> {
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![
        ("plain".to_owned(), secret.to_owned()),
        ("json".to_owned(), json[1..json.len() - 1].to_owned()),
        ("base64".to_owned(), STANDARD.encode(secret)),
    ];
    let quoted: String = secret
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    forms.push(("url".to_owned(), quoted.replace("%20", "+")));
    forms.push(("url".to_owned(), quoted));
    for before in 1..3_usize {
        let text = STANDARD_NO_PAD.encode([&b"x:"[..before], secret.as_bytes()].concat());
        forms.push((format!("base64 after {before}"), text[(before * 8).div_ceil(6)..text.len() - 2].to_owned()));
    }
    forms
}

fn files_below(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), found);
        } else if kind.is_file() {
            found.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
        }
    }
}

fn get(url: &str, path: &str) -> Vec<u8> {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    answer
}

#[test]
fn no_form_of_a_secret_is_in_any_byte_that_a_run_leaves() {
    let outside = Home::new();
    std::fs::create_dir_all(outside.path().join("secrets/deep")).unwrap();
    std::fs::write(outside.path().join("secrets/deep/secret"), format!("{FROM_FILE}\n")).unwrap();
    let issued = json!({"access_token": ISSUED, "expires_in": 3600, "token_type": "Bearer"}).to_string();
    // An echo: what was asked comes back.
    let echo = json!({"key": FROM_ENV, "password": PASSWORD, "token": API_TOKEN, "issued": ISSUED}).to_string();
    let echo_of_file = json!({"fetched": FROM_FILE}).to_string();
    let web = Canned::new(&[
        ("POST /token", 200, &issued),
        ("GET /echo", 200, &echo),
        ("POST /echo", 200, &echo),
        ("POST /echo-of-file", 200, &echo_of_file),
    ]);

    let home = Home::new();
    let log = home.path().join("server.log");
    let server = Server::start_with(
        &home,
        &[
            "--expose-env",
            "LEAKED",
            "--secrets-dir",
            outside.path().join("secrets").to_str().unwrap(),
            "--log-file",
            log.to_str().unwrap(),
        ],
        &[("LEAKED", FROM_ENV), ("NOETL_LOG", "debug")],
    );
    for (name, kind, data) in [
        ("db", "postgres", json!({"db_host": "db", "db_user": "app", "password": PASSWORD})),
        ("api", "bearer", json!({"token": API_TOKEN})),
        ("client", "generic", json!({"client_id": "shop", "client_secret": CLIENT_SECRET})),
    ] {
        let file =
            outside.file(&format!("{name}.json"), &json!({"name": name, "type": kind, "data": data}).to_string());
        home.run(&["register", "credential", "-f", file.to_str().unwrap()]).done();
    }
    home.file("leak.yaml", PLAYBOOK);
    home.run(&["register", "leak.yaml"]).done();
    let payload = json!({"echo": format!("{}/echo", web.url), "issuer": format!("{}/token", web.url)}).to_string();
    let started = home.run(&["run", "test/leak", "-r", "distributed", "--payload", &payload, "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    home.run(&["wait", id, "--for", "quiesced"]);

    // The secrets were really there, and went where they were meant to go.
    let seen = web.seen();
    let said: String = seen.iter().map(|seen| format!("{} {:?} {}\n", seen.line, seen.headers, seen.body)).collect();
    assert!(said.contains(&format!("client_secret={CLIENT_SECRET}")), "{said}");
    assert!(said.contains(&format!("GET /echo?key={FROM_ENV}")), "{said}");
    assert!(said.contains(&format!("Bearer {API_TOKEN}")), "{said}");
    assert!(said.contains(&format!("\"{ISSUED}\"")), "{said}");
    assert!(said.contains(&format!("{echo_of_file}\n")), "{said}");
    assert_eq!(seen.iter().filter(|seen| seen.line == "POST /token").count(), 1, "a token is asked for once");

    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for arguments in [
        &["status", id, "--json"][..],
        &["get", "execution", id],
        &["get", "steps", id],
        &["get", "result", id, "start"],
        &["get", "result", id, "ask"],
        &["get", "result", id, "fetch"],
        &["get", "result", id, "alone"],
        &["get", "result", id, "shout"],
        &["get", "result", id, "raise"],
        &["events", id, "--json"],
        &["tree", id],
        &["executions", "--json"],
        &["credential", "list", "--json"],
        &["get", "credential", "db"],
        &["query", "SELECT * FROM noetl.event", "--format", "json"],
        &["query", "SELECT keychain_name FROM noetl.keychain", "--format", "json"],
        &["query", "SELECT * FROM noetl.credential", "--format", "json"],
    ] {
        let said = home.run(arguments);
        found.push((arguments.join(" "), format!("{}{}", said.stdout, said.stderr).into_bytes()));
    }
    let text = |name: &str| {
        let (_, bytes) = found.iter().find(|(known, _)| known.starts_with(name)).unwrap();
        String::from_utf8_lossy(bytes).into_owned()
    };
    assert!(text(&format!("get result {id} start")).contains("********"), "{}", text("get result"));
    for (step, field) in [("fetch", "again"), ("alone", "host")] {
        let said = text(&format!("get result {id} {step}"));
        assert!(said.contains(&format!("\"{field}\": \"********\"")), "{said}");
    }
    assert!(text(&format!("get result {id} raise")).contains("it failed with ********"), "{}", text("status"));
    assert!(text("query SELECT keychain_name FROM noetl.keychain").contains("issued"), "the token is kept, sealed");
    let of_run = ["", "/status", "/steps", "/tree", "/events?page_size=500", "/logs"];
    let paths = of_run.map(|path| format!("/api/executions/{id}{path}"));
    let paths = paths.iter().map(String::as_str);
    for path in paths.chain(["/metrics", "/api/executions", "/api/credentials/db?include_data=true", "/api/workers"]) {
        found.push((path.to_owned(), get(&server.url, path)));
    }
    let text = |name: &str| {
        let (_, bytes) = found.iter().find(|(known, _)| known.ends_with(name)).unwrap();
        String::from_utf8_lossy(bytes).into_owned()
    };
    assert!(text("/logs").contains("err ********"), "{}", text("/logs"));
    let events = text("/events?page_size=500");
    assert!(events.contains("playbook.failed") || events.contains("playbook.completed"), "all events: {events}");
    // The file beside the log of its writer, as `kill -9` would leave them, and once more after everything is in one.
    files_below(&home.path().join(".noetl"), &mut found);
    assert_eq!(server.stop(), Some(0));
    files_below(&home.path().join(".noetl"), &mut found);
    found.extend(home.tables().map(|text| ("tables".to_owned(), text.into_bytes())));
    found.push(("server.log".to_owned(), std::fs::read(&log).unwrap()));
    // What was searched is what there is to search.
    let holds = |name: &str, text: &str| {
        let mut places = found.iter().filter(|(known, _)| known.ends_with(name));
        places.any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    if wants_postgres() {
        assert!(holds("tables", "********"));
    } else {
        assert!(holds("noetl.db-wal", "********") && holds("noetl.db", "********"));
    }
    assert!(holds("server.log", "DEBUG") && holds("/metrics", "noetl_"));

    let mut leaks = Vec::new();
    for secret in [PASSWORD, API_TOKEN, CLIENT_SECRET, ISSUED, FROM_ENV, FROM_FILE] {
        for (form, text) in forms(secret) {
            for (place, bytes) in &found {
                if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
                    let around = &bytes[at.saturating_sub(80)..(at + text.len() + 20).min(bytes.len())];
                    leaks.push(format!("{form} of {secret:?} in {place}: …{}…", String::from_utf8_lossy(around)));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
