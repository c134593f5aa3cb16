//! The example worker against the real binary: check, claim, check, run, with a cancel at every point in between.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;

use crate::support::{Canned, Home, Server, deserted, eventually};

/// Where a request stands when the test looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// On its way to the server.
    Before,
    /// Answered, and the answer has not reached the worker.
    After,
}

/// What the test does with what it sees; it may take its time.
type Look = Arc<dyn Fn(Moment, &str) + Send + Sync>;

/// A way to the server on which the test sees every request.
struct Way {
    url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Way {
    fn through(server: &str, look: Look) -> Way {
        noetl::server::tls::install_provider();
        let (server, client) = (server.to_owned(), reqwest::Client::builder().no_proxy().build().unwrap());
        let router = Router::new().fallback(move |request: Request| {
            let (server, client, look) = (server.clone(), client.clone(), Arc::clone(&look));
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 24).await.unwrap();
                let line = format!("{} {}", parts.method, parts.uri);
                let see = |moment| {
                    let (look, line) = (Arc::clone(&look), line.clone());
                    async move { tokio::task::spawn_blocking(move || look(moment, &line)).await.unwrap() }
                };
                see(Moment::Before).await;
                let passed = client.request(parts.method.clone(), format!("{server}{}", parts.uri));
                let answer = passed.header("content-type", "application/json").body(body).send().await.unwrap();
                let (status, text) = (answer.status(), answer.bytes().await.unwrap());
                see(Moment::After).await;
                Response::builder().status(status).body(Body::from(text)).unwrap()
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Way { url, _runtime: runtime }
    }
}

/// The example worker; it is killed when dropped.
struct Example {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Example {
    fn start(url: &str) -> Example {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/worker.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(url).env_remove("NOETL_TOKEN").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, noted) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&said));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| noted.lock().unwrap().push(line)));
        Example { child, said }
    }

    /// Waits until it has said something that begins so.
    fn until_said(&self, beginning: &str) {
        eventually(&format!("the worker says `{beginning}`"), || {
            self.said.lock().unwrap().iter().any(|line| line.starts_with(beginning)).then_some(())
        });
    }

    fn has_said(&self, beginning: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.starts_with(beginning))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn playbook(first: &str) -> String {
    format!(
        "apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: shells, path: test/shells}}
workload: {{who: you}}
workflow:
  - step: first
    tool: {{kind: shell, input: {{who: '{{{{ who }}}}'}}, cmds: ['{first}']}}
    next: {{arcs: [{{step: second}}]}}
  - step: second
    tool:
      - {{name: fails, kind: shell, command: exit 3, spec: {{policy: {{rules: [{{else: {{then: {{do: continue}}}}}}]}}}}}}
      - {{name: says, kind: shell, command: 'echo {{{{ first.stdout | trim }}}} after {{{{ fails.exit_code }}}}'}}
"
    )
}

struct Stage {
    home: Home,
    server: Server,
}

impl Stage {
    fn new(first: &str) -> Stage {
        let home = Home::new();
        let server = Server::start(&home, &["--no-worker"]);
        home.file("shells.yaml", &playbook(first));
        Stage { home, server }
    }

    fn begin(&self) -> String {
        let said = self.home.run(&["run", "shells.yaml", "--json", "--server-url", &self.server.url]).done();
        said.json()["execution_id"].as_str().unwrap().to_owned()
    }

    fn status(&self, id: &str) -> Value {
        self.home.run(&["status", id, "--json", "--server-url", &self.server.url]).done().json()
    }

    fn until_quiesced(&self, id: &str) -> Value {
        eventually("it is over and quiet", || {
            let status = self.status(id);
            (status["quiesced"] == true).then_some(status)
        })
    }

    fn events(&self, id: &str) -> Vec<String> {
        let said = self.home.run(&["events", id, "--json", "--server-url", &self.server.url]).done().stdout;
        let events = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs the example until the execution is quiet; cancels it once, at that moment of the first such request.
    fn cancelled_at(&self, moment: Moment, needle: &'static str) -> (String, Example, Way) {
        let id = self.begin();
        let (done, url) = (AtomicBool::new(false), self.server.url.clone());
        let (home, of) = (self.home.path().to_owned(), id.clone());
        let look: Look = Arc::new(move |seen, line| {
            if seen == moment && line.contains(needle) && !done.swap(true, Ordering::SeqCst) {
                let mut command = Command::new(env!("CARGO_BIN_EXE_noetl"));
                command.args(["cancel", &of, "--server-url", &url]).env("HOME", &home).stdout(Stdio::null());
                assert!(command.status().unwrap().success());
            }
        });
        let way = Way::through(&self.server.url, look);
        let example = Example::start(&way.url);
        let status = self.until_quiesced(&id);
        assert_eq!(status["status"], "CANCELLED");
        (id, example, way)
    }
}

#[test]
fn it_runs_what_it_claims_and_the_server_interprets_the_rest() {
    let stage = Stage::new("echo hello $who");
    let example = Example::start(&stage.server.url);
    let id = stage.begin();
    let status = stage.until_quiesced(&id);
    assert_eq!(status["status"], "COMPLETED", "{status}");
    let detail = stage.home.run(&["get", "execution", &id, "--server-url", &stage.server.url]).done().json();
    assert_eq!(detail["result"]["says"]["stdout"], "hello you after 3\n", "{detail}");
    assert!(example.has_said("at your service"));
}

#[test]
fn a_cancel_before_the_claim_is_found_by_the_first_check() {
    let stage = Stage::new("echo hello");
    let (id, example, _way) = stage.cancelled_at(Moment::Before, "cancellation-check");
    example.until_said("cancelled, not claimed");
    assert!(!stage.events(&id).iter().any(|name| name == "command.claimed"));
}

#[test]
fn a_cancel_between_check_and_claim_is_found_by_the_claim() {
    let stage = Stage::new("echo hello");
    let (id, example, _way) = stage.cancelled_at(Moment::After, "cancellation-check");
    example.until_said("not claimed: Execution has been cancelled");
    assert!(!stage.events(&id).iter().any(|name| name == "command.claimed"));
}

#[test]
fn a_cancel_between_claim_and_run_is_found_by_the_second_check() {
    let stage = Stage::new("echo hello");
    let (id, example, _way) = stage.cancelled_at(Moment::After, "/claim");
    example.until_said("execution has been cancelled, skipping command");
    assert!(!example.has_said("running"));
    let events = stage.events(&id);
    let place = |name: &str| events.iter().position(|event| event == name).unwrap_or_else(|| panic!("{events:?}"));
    assert!(place("command.claimed") < place("execution.cancelled"));
    assert!(place("execution.cancelled") < place("command.cancelled"));
    assert!(!events.iter().any(|name| name == "command.started" || name == "call.done"), "{events:?}");
}

#[test]
fn a_cancel_during_the_run_stops_the_tool() {
    let stage = Stage::new("true");
    let folder = stage.home.path().to_owned();
    let script = format!("cd {} && echo $$ > pid && mv pid running && sleep 1000", folder.display());
    stage.home.file("shells.yaml", &playbook(&script));
    let example = Example::start(&stage.server.url);
    let id = stage.begin();
    let pid = eventually("the tool runs", || std::fs::read_to_string(folder.join("running")).ok());
    stage.home.run(&["cancel", &id, "--interrupt", "--wait", "--server-url", &stage.server.url]).done();
    example.until_said("cancelled while it runs, stopping");
    let status = stage.until_quiesced(&id);
    assert_eq!(status["status"], "CANCELLED");
    // The certificate is true: no process of it is left.
    assert!(!Path::new("/proc").join(pid.trim()).exists());
    assert!(stage.events(&id).iter().any(|name| name == "execution.quiesced"));
}

#[test]
fn it_goes_on_with_whichever_server_answers() {
    let stage = Stage::new("echo hello");
    let port = stage.server.url.rsplit_once(':').unwrap().1.to_owned();
    let example = Example::start(&format!("{},{}", deserted(), stage.server.url));
    let id = stage.begin();
    assert_eq!(stage.until_quiesced(&id)["status"], "COMPLETED");
    let Stage { home, server } = stage;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start_at(&home, &["--no-worker"], &port);
    let stage = Stage { home, server };
    let id = stage.begin();
    assert_eq!(stage.until_quiesced(&id)["status"], "COMPLETED");
    assert!(example.has_said("at your service"));
}

#[test]
fn it_stops_its_tool_when_no_server_answers_any_more() {
    let home = Home::new();
    let running = home.path().join("running");
    let command = format!("cd {} && echo $$ > pid && mv pid running && sleep 1000", home.path().display());
    let call = serde_json::json!({"call": {"config": {"command": command}, "input": {}, "timeout_ms": null}, "continuation": 0});
    let server = Canned::new(&[
        ("POST /api/worker/hello", 200, r#"{"session_id": "9", "lease_ms": 1500, "poll_ms": 300, "protocol": 1}"#),
        (
            "POST /api/worker/poll",
            200,
            r#"{"offers": [{"execution_id": "1", "command_id": "2", "epoch": 1, "step": "a", "kind": "shell"}]}"#,
        ),
        ("GET /api/executions/1/cancellation-check", 200, r#"{"cancelled": false}"#),
        ("POST /api/commands/2/claim", 200, r#"{"epoch": 1}"#),
        ("POST /api/commands/2/advance", 200, &call.to_string()),
    ]);
    let example = Example::start(&server.url);
    let pid = eventually("the tool runs", || std::fs::read_to_string(&running).ok());
    assert!(!example.has_said("no server answers"));
    drop(server);
    example.until_said("no server answers, stopping 2");
    eventually("the tool is gone", || (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
}
