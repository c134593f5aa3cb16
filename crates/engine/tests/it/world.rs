//! A world to test in: a store in memory, engines, workers whose tools do what the playbook's code says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use noetl_core::event::{Event, Recorded, row::wire_name};
use noetl_core::head::{Head, Status};
use noetl_core::id::{CatalogId, ExecutionId};
use noetl_core::labels::Labels;
use noetl_core::log::LogLine;
use noetl_core::playbook::Playbook;
use noetl_core::properties::{self, Member};
use noetl_core::secret::keychain::{KeptUnder, Wanted};
use noetl_core::secret::{Credential, Warrant};
use noetl_core::time::Timestamp;
use noetl_core::tool::{ErrorKind, Stopped, ToolCall, ToolError, ToolOutcome};
use noetl_engine::clock::Clock;
use noetl_engine::secrets::SecretError;
use noetl_engine::transport::{Hello, Local, Orders, Poll, Reports, Transport, Welcome, WorkerError};
use noetl_engine::worker::{CommandSecrets, Left, Stop, Tools, Worker, WorkerOptions};
use noetl_engine::{
    CancelAnswer, CancelError, CancelRequest, Engine, EngineOptions, Running, StartRequest, Started, WaitFor,
};
use noetl_store::catalog::ResourceKey;
use noetl_store::memory::MemoryStore;
use noetl_store::{EventQuery, ListQuery, Store};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

/// When every test begins.
const BEGINNING: i64 = 1_768_900_000_000;

/// A clock that follows tokio's, which tests move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestClock(Instant);

impl TestClock {
    fn ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGINNING).plus_ms(self.ms())
    }

    fn boottime_ms(&self) -> u64 {
        self.ms()
    }
}

/// Tools whose code is a line of a small script, and which write down what was started.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    started: Mutex<Vec<(ExecutionId, Arc<str>)>>,
    received: Mutex<Vec<Value>>,
    wanted: Mutex<Vec<String>>,
}

impl Scripts {
    /// Returns the steps started, in order.
    pub(crate) fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().iter().map(|(_, step)| step.to_string()).collect()
    }

    /// Returns the input of every `received`, in order.
    pub(crate) fn received(&self) -> Vec<Value> {
        self.received.lock().unwrap().clone()
    }

    /// Returns where tokens were asked for, in order.
    pub(crate) fn wanted(&self) -> Vec<String> {
        self.wanted.lock().unwrap().clone()
    }

    /// Returns how often a step was started.
    pub(crate) fn count(&self, step: &str) -> usize {
        self.started().iter().filter(|started| *started == step).count()
    }
}

/// `received`, `leak <alias>`, `secret <alias>`, `ok`, `return <json>`, `input`, `fail [hard]`, `flaky <n>`, `sleep <ms>`, `stubborn <ms>`.
#[async_trait]
impl Tools for Scripts {
    async fn run(&self, _slot: usize, call: ToolCall, mut stop: Stop, secrets: &Arc<CommandSecrets>) -> ToolOutcome {
        self.started.lock().unwrap().push((call.execution_id, Arc::clone(&call.step)));
        let code = call.config.get("code").and_then(Value::as_str).unwrap_or("ok").to_owned();
        let (word, rest) = code.split_once(' ').unwrap_or((&code, ""));
        let fail = |hard| {
            let error = ToolError::soft(ErrorKind::Code, "SCRIPT", "the script failed").retryable();
            ToolOutcome::failed(ToolError { hard, ..error }, Value::Null)
        };
        match word {
            "ok" => ToolOutcome::ok(json!({ "step": call.step })),
            "return" => ToolOutcome::ok(serde_json::from_str(rest).unwrap()),
            "input" => ToolOutcome::ok(Value::Object(call.input)),
            "received" => {
                self.received.lock().unwrap().push(Value::Object(call.input.clone()));
                ToolOutcome::ok(json!({ "input": call.input }))
            }
            "leak" => match secrets.credential(rest).await {
                Ok(credential) => ToolOutcome::ok(json!({ "said": format!("it is {}", credential.data["token"]) })),
                Err(error) => ToolOutcome::failed(error, Value::Null),
            },
            "secret" => match secrets.credential(rest).await {
                Ok(credential) => ToolOutcome::ok(json!({ "kind": credential.kind, "fields": credential.data.len() })),
                Err(error) => ToolOutcome::failed(error, Value::Null),
            },
            "fail" => fail(rest == "hard"),
            "flaky" => {
                if call.attempt > rest.parse().unwrap() {
                    ToolOutcome::ok(json!({ "attempt": call.attempt }))
                } else {
                    fail(false)
                }
            }
            "sleep" => {
                tokio::select! {
                    biased;
                    _ = stop.ordered() => stopped(Stopped::Stopped),
                    () = sleep(Duration::from_millis(rest.parse().unwrap())) => ToolOutcome::ok(json!({ "slept": rest })),
                }
            }
            // Ends only by force.
            "stubborn" => {
                let kill = async {
                    let order = stop.ordered().await;
                    sleep(Duration::from_millis(order.grace_ms)).await;
                };
                tokio::select! {
                    biased;
                    () = kill => stopped(Stopped::Killed),
                    () = sleep(Duration::from_millis(rest.parse().unwrap())) => ToolOutcome::ok(json!({ "slept": rest })),
                }
            }
            other => panic!("no such script: {other}"),
        }
    }

    async fn fetch_secret(&self, wanted: Wanted) -> Result<Value, ToolError> {
        let Wanted::Token(request) = wanted else { panic!("no provider here: {wanted:?}") };
        let mut wanted = self.wanted.lock().unwrap();
        wanted.push(request.endpoint.clone());
        let id = request.data["id"].as_str().unwrap().to_owned();
        assert_eq!(request.data["secret"], format!("swordfish-{id}"));
        Ok(json!({ "access_token": format!("token-{}-for-{id}", wanted.len()), "expires_in": 3600 }))
    }
}

fn stopped(how: Stopped) -> ToolOutcome {
    let error = ToolError::soft(ErrorKind::Cancelled, "STOPPED", "it was stopped");
    ToolOutcome { stopped: Some(how), ..ToolOutcome::failed(error, Value::Null) }
}

/// A transport that can be cut, and switched to another server.
#[derive(Debug)]
pub(crate) struct Wire {
    servers: Vec<Local>,
    /// Which server; `None` = it is cut.
    to: tokio::sync::watch::Sender<Option<usize>>,
    /// How long an answer takes to arrive.
    lag: Duration,
}

impl Wire {
    /// Carries a request; an answer that comes after the wire was cut or switched is lost.
    async fn carry<T>(&self, request: impl AsyncFnOnce(&Local) -> Result<T, WorkerError>) -> Result<T, WorkerError> {
        let mut to = self.to.subscribe();
        let here = *to.borrow_and_update();
        let lost = || Err(WorkerError::Unreachable("the wire is cut".into()));
        let Some(server) = here else { return lost() };
        tokio::select! {
            biased;
            _ = to.wait_for(|to| *to != here) => lost(),
            answer = async {
                let answer = request(&self.servers[server]).await;
                if !self.lag.is_zero() {
                    sleep(self.lag).await;
                }
                answer
            } => answer,
        }
    }
}

#[async_trait]
impl Transport for Wire {
    async fn hello(&self, hello: Hello) -> Result<Welcome, WorkerError> {
        self.carry(async |server| server.hello(hello).await).await
    }

    async fn poll(&self, poll: Poll) -> Result<Orders, WorkerError> {
        self.carry(async |server| server.poll(poll).await).await
    }

    async fn report(&self, reports: Reports) -> Result<Orders, WorkerError> {
        self.carry(async |server| server.report(reports).await).await
    }

    async fn playbook(&self, catalog_id: CatalogId) -> Result<Arc<Playbook>, WorkerError> {
        self.carry(async |server| server.playbook(catalog_id).await).await
    }

    async fn result(&self, reference: &str) -> Result<Arc<Value>, WorkerError> {
        self.carry(async |server| server.result(reference).await).await
    }

    async fn log(&self, lines: Vec<LogLine>) -> Result<(), WorkerError> {
        self.carry(async |server| server.log(lines).await).await
    }

    async fn credential(&self, warrant: &Warrant, alias: &str) -> Result<Credential, SecretError> {
        let answer = self.carry(async |server| Ok(server.credential(warrant, alias).await)).await;
        answer.unwrap_or_else(|error| Err(SecretError::Unreachable(error.to_string())))
    }

    async fn kept(&self, warrant: &Warrant, under: &KeptUnder) -> Result<Option<Value>, SecretError> {
        let answer = self.carry(async |server| Ok(server.kept(warrant, under).await)).await;
        answer.unwrap_or_else(|error| Err(SecretError::Unreachable(error.to_string())))
    }

    async fn keep(&self, warrant: &Warrant, under: &KeptUnder, value: Value, life_ms: u64) -> Result<(), SecretError> {
        let answer = self.carry(async |server| Ok(server.keep(warrant, under, value, life_ms).await)).await;
        answer.unwrap_or_else(|error| Err(SecretError::Unreachable(error.to_string())))
    }

    async fn is_cancelled(&self, execution_id: ExecutionId) -> bool {
        let to = *self.to.borrow();
        match to {
            Some(server) => self.servers[server].is_cancelled(execution_id).await,
            None => false,
        }
    }
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Hired {
    pub(crate) shutdown: CancellationToken,
    pub(crate) wire: Arc<Wire>,
    task: JoinHandle<Left>,
}

impl Hired {
    /// Waits until it leaves by itself.
    pub(crate) async fn left(self) -> Left {
        self.task.await.unwrap()
    }

    /// Cuts it off, or connects it again.
    pub(crate) fn cut(&self, cut: bool) {
        self.wire.to.send_replace((!cut).then_some(0));
    }

    /// Lets it speak to another of its servers from now on.
    pub(crate) fn switch(&self, server: usize) {
        self.wire.to.send_replace(Some(server));
    }

    /// Ends it like `kill -9`.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// Asks it to drain, and waits until it has left.
    pub(crate) async fn leave(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) engine: Arc<Engine>,
    running: Option<Running>,
}

impl Server {
    /// Ends it like `kill -9`.
    pub(crate) fn crash(self) {
        drop(self.running);
    }

    pub(crate) async fn stop(self) {
        if let Some(running) = self.running {
            running.stop().await;
        }
    }
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: TestClock,
    pub(crate) scripts: Arc<Scripts>,
    nodes: Mutex<u16>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = TestClock(Instant::now());
        World::with(Arc::new(MemoryStore::new(Arc::new(move || clock.now()))), clock)
    }

    /// Returns a world over a store that has its own clock.
    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        World::with(store, TestClock(Instant::now()))
    }

    fn with(store: Arc<dyn Store>, clock: TestClock) -> Self {
        // Shown when a test fails and RUST_LOG is set.
        drop(
            tracing_subscriber::fmt()
                .with_test_writer()
                .without_time()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .try_init(),
        );
        World { store, clock, scripts: Arc::default(), nodes: Mutex::new(0) }
    }

    pub(crate) fn server(&self) -> Server {
        self.server_with(|_| {})
    }

    pub(crate) fn server_with(&self, change: impl FnOnce(&mut EngineOptions)) -> Server {
        let mut node = self.nodes.lock().unwrap();
        *node += 1;
        let mut options = EngineOptions { node: *node, ..EngineOptions::default() };
        change(&mut options);
        let engine = Engine::new(Arc::clone(&self.store), options);
        let running = Some(engine.spawn());
        Server { engine, running }
    }

    pub(crate) fn hire(&self, server: &Server, name: &str, slots: u32) -> Hired {
        self.hire_at(&[server], name, |options| options.slots = slots)
    }

    pub(crate) fn hire_for(&self, server: &Server, name: &str, pool: &str) -> Hired {
        self.hire_at(&[server], name, |options| options.pools = vec![pool.into()])
    }

    pub(crate) fn hire_between(&self, servers: &[&Server], name: &str, slots: u32) -> Hired {
        self.hire_at(servers, name, |options| options.slots = slots)
    }

    /// Hires a process of its own, whose answers take a while to arrive.
    pub(crate) fn hire_far(&self, server: &Server, name: &str, instance: &str, lag: Duration) -> Hired {
        self.hire_over(lag, &[server], name, |options| {
            options.slots = 1;
            options.instance = Some(instance.into());
        })
    }

    fn hire_at(&self, servers: &[&Server], name: &str, change: impl FnOnce(&mut WorkerOptions)) -> Hired {
        self.hire_over(Duration::ZERO, servers, name, change)
    }

    fn hire_over(
        &self,
        lag: Duration,
        servers: &[&Server],
        name: &str,
        change: impl FnOnce(&mut WorkerOptions),
    ) -> Hired {
        let mut options = WorkerOptions { worker_id: name.into(), grace_ms: 1_000, ..WorkerOptions::default() };
        change(&mut options);
        let wire = Arc::new(Wire {
            servers: servers.iter().map(|server| Local(Arc::clone(&server.engine))).collect(),
            to: tokio::sync::watch::channel(Some(0)).0,
            lag,
        });
        let worker = Worker::new(
            Arc::clone(&wire) as Arc<dyn Transport>,
            Arc::clone(&self.scripts) as Arc<dyn Tools>,
            Arc::new(self.clock),
            options,
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(worker.run(shutdown.clone()));
        Hired { shutdown, wire, task }
    }

    pub(crate) async fn heads(&self) -> Vec<Head> {
        self.store.executions(ListQuery { limit: u64::MAX, ..ListQuery::default() }).await.unwrap()
    }

    pub(crate) async fn head(&self, id: ExecutionId) -> Head {
        self.store.head(id).await.unwrap().unwrap()
    }

    pub(crate) async fn log(&self, id: ExecutionId) -> Vec<Recorded> {
        let query = EventQuery { execution_id: Some(id), limit: u64::MAX, ..EventQuery::default() };
        self.store.events(query).await.unwrap().0
    }

    /// Returns the names of an execution's events.
    pub(crate) async fn names(&self, id: ExecutionId) -> Vec<&'static str> {
        self.log(id).await.iter().map(|recorded| wire_name(&recorded.event)).collect()
    }

    /// Returns how many events of that name there are.
    pub(crate) async fn count(&self, id: ExecutionId, name: &str) -> usize {
        self.names(id).await.iter().filter(|known| **known == name).count()
    }

    /// Returns the result of a completed execution.
    pub(crate) async fn result(&self, engine: &Engine, id: ExecutionId) -> Value {
        let terminal = self.store.terminal_event(id).await.unwrap().expect("a terminal event");
        match terminal.event {
            Event::PlaybookCompleted { result, .. } => (*engine.result(&result).await.unwrap()).clone(),
            other => panic!("{id} has not completed: {other:?}"),
        }
    }

    /// Waits until something holds, looking again with every millisecond.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        for _ in 0..600_000 {
            if holds().await {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("it never came to this: {what}\n{}", self.story().await);
    }

    /// Waits until a step has been started so often.
    pub(crate) async fn until_started(&self, step: &str, times: usize) {
        self.until(&format!("{step} started {times} times"), || async { self.scripts.count(step) >= times }).await;
    }

    /// Waits until an event of that name is in the log.
    pub(crate) async fn until_logged(&self, id: ExecutionId, name: &str) {
        self.until(&format!("{name} in {id}"), || async { self.count(id, name).await > 0 }).await;
    }

    /// Checks every promise on everything that is in the store.
    pub(crate) async fn check(&self, cascades: impl IntoIterator<Item = ExecutionId>) {
        let mut members = Vec::new();
        for head in self.heads().await {
            let view = self.store.view(head.execution_id).await.unwrap().unwrap();
            members.push(Member {
                events: self.log(head.execution_id).await,
                head: view.head,
                commands: view.commands,
            });
        }
        let cascades: BTreeSet<_> = cascades.into_iter().collect();
        let broken: Vec<_> = properties::check_family(&members, &cascades).iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{broken:#?}\n{}", self.story().await);
        assert_eq!(self.store.validate().await.unwrap(), Vec::<String>::new());
    }

    /// Tells what happened, one line per event.
    pub(crate) async fn story(&self) -> String {
        let mut story = String::new();
        for head in self.heads().await.iter().rev() {
            let id = head.execution_id;
            writeln!(story, "{id} {} {} in_flight={}", head.path, head.status.as_str(), head.in_flight).unwrap();
            for recorded in self.log(id).await {
                let at = recorded.at.0 - BEGINNING;
                let text = format!("{:?}", recorded.event);
                writeln!(story, "  {:>4} +{at:>7} ms {}", recorded.version, text.chars().take(160).collect::<String>())
                    .unwrap();
            }
        }
        story
    }
}

impl Server {
    pub(crate) async fn register(&self, yaml: &str) {
        if let Err(error) = self.engine.register(yaml, None).await {
            panic!("{error:?}");
        }
    }

    pub(crate) async fn start(&self, path: &str) -> Started {
        self.start_with(path, json!({}), None).await
    }

    pub(crate) async fn start_with(&self, path: &str, payload: Value, parent: Option<ExecutionId>) -> Started {
        let Value::Object(payload) = payload else { panic!("a payload is an object") };
        self.engine.start(request(path, payload, parent)).await.unwrap()
    }

    /// Waits for the end, at most an hour.
    pub(crate) async fn ended(&self, id: ExecutionId) -> Status {
        let head = self.engine.wait(id, WaitFor::Terminal, 3_600_000).await.unwrap().unwrap();
        assert!(head.status.is_terminal(), "{id} goes on and on");
        head.status
    }

    /// Waits for the proof, at most two hours.
    pub(crate) async fn quiesced(&self, id: ExecutionId) -> Head {
        let head = self.engine.wait(id, WaitFor::Quiesced, 7_200_000).await.unwrap().unwrap();
        assert!(head.quiesced_at.is_some(), "{id} never quiesces");
        head
    }

    pub(crate) async fn cancel(&self, request: CancelRequest) -> Result<CancelAnswer, CancelError> {
        self.engine.cancel(request).await
    }
}

pub(crate) fn request(path: &str, payload: Map<String, Value>, parent: Option<ExecutionId>) -> StartRequest {
    StartRequest {
        target: ResourceKey::Latest(path.into()),
        payload,
        parent_execution_id: parent,
        started_by: Some("test".into()),
        strict: false,
        labels: Labels::new(),
        idempotency_key: None,
    }
}

pub(crate) fn cancel(execution_id: ExecutionId) -> CancelRequest {
    CancelRequest {
        execution_id,
        reason: Some("enough".into()),
        cascade: false,
        mode: None,
        grace_ms: None,
        wait_ms: 0,
        wait_for_cleanup: false,
        dry_run: false,
        cancelled_by: "test".into(),
        requested_by: None,
        remote: None,
        idempotency_key: None,
    }
}

/// Returns a playbook of python steps in a row: `(name, code)`.
pub(crate) fn chain(path: &str, steps: &[(&str, &str)]) -> String {
    let mut yaml =
        format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {path}, path: {path}}}\nworkflow:\n");
    for (at, (step, code)) in steps.iter().enumerate() {
        writeln!(yaml, "- step: {step}\n  tool: {{kind: python, code: {}}}", json!(code)).unwrap();
        if let Some((next, _)) = steps.get(at + 1) {
            writeln!(yaml, "  next: {{arcs: [{{step: {next}}}]}}").unwrap();
        }
    }
    yaml
}

/// Returns a playbook with the given workflow.
pub(crate) fn playbook(path: &str, workflow: &str) -> String {
    format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {path}, path: {path}}}\n{workflow}")
}

/// Returns how many executions there are of each status.
pub(crate) fn tally(heads: &[Head]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for head in heads {
        *tally.entry(head.status.as_str()).or_default() += 1;
    }
    tally
}
