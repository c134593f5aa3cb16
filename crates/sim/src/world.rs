//! One world: what is in it, what happens to it, and what must hold when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use noetl_core::head::Head;
use noetl_core::id::ExecutionId;
use noetl_core::properties::{Member, check_family};
use noetl_core::time::Timestamp;
use noetl_core::trace;
use noetl_engine::clock::Clock;
use noetl_engine::worker::{Left, Worker, WorkerOptions};
use noetl_engine::{Engine, EngineOptions, Running};
use noetl_store::memory::MemoryStore;
use noetl_store::{EventQuery, ListQuery, Store};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::flaky::{Flaky, Servers, Told};
use crate::people::{self, Memory};
use crate::promises;
use crate::scenario::{STRICT_LIMIT, Scenario};
use crate::shaky::Shaky;
use crate::tools::{SimTools, Witness};

/// How long a calm world may take to come to rest, in milliseconds of its own time.
const REST_MS_MAX: u64 = 600_000;
/// Lease of the simulated servers, in milliseconds: short, so that leases run out often.
pub(crate) const LEASE_MS: u64 = 6_000;
/// How long a server that died stays away, at most, in milliseconds; a worker stays away longer than its lease.
pub(crate) const AWAY_MS_MAX: u64 = 2_000;
/// When the simulated world begins.
const BEGINNING: Timestamp = Timestamp(1_768_900_000_000);

/// What became of a world.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// Executions that ever were.
    pub executions: usize,
    /// Events written.
    pub events: usize,
    /// Executions that people cancelled.
    pub cancelled: usize,
    /// Tools started.
    pub tools: usize,
    /// What happened, one line per event, when something was broken.
    pub trace: Vec<String>,
}

/// Lets the world of `scenario` happen.
pub fn run(scenario: &Scenario) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(World::new(scenario.clone()).live()),
        Err(error) => Outcome { broken: vec![format!("no runtime: {error}")], ..Outcome::default() },
    }
}

#[derive(Debug)]
struct SimClock {
    began: Instant,
}

impl SimClock {
    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        BEGINNING.plus_ms(self.ms())
    }

    fn boottime_ms(&self) -> u64 {
        self.ms()
    }
}

struct World {
    scenario: Scenario,
    chance: Chance,
    clock: Arc<SimClock>,
    /// The store as it is, for looking on.
    truth: Arc<dyn Store>,
    failing: Arc<AtomicU64>,
    servers: Servers,
    told: Told,
    running: Vec<Option<Running>>,
    workers: Vec<Option<JoinHandle<Left>>>,
    /// Workers that have begun so far.
    hired: u64,
    witness: Witness,
    /// Nodes are never used twice: a restarted server is a new one.
    nodes: u16,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let chance = Chance::new(scenario.seed);
        let clock = Arc::new(SimClock { began: Instant::now() });
        let told = Arc::clone(&clock);
        let truth: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(move || told.now())));
        let (servers, workers) = (scenario.servers as usize, scenario.workers as usize);
        World {
            failing: Arc::new(AtomicU64::new(0)),
            servers: Arc::new(Mutex::new(vec![None; servers])),
            told: Told::default(),
            running: (0..servers).map(|_| None).collect(),
            workers: (0..workers).map(|_| None).collect(),
            hired: 0,
            witness: Witness::default(),
            nodes: 0,
            scenario,
            chance,
            clock,
            truth,
        }
    }

    async fn live(mut self) -> Outcome {
        for server in 0..self.running.len() {
            self.start_server(server);
        }
        for (_, playbook) in Scenario::PLAYBOOKS {
            let Some(engine) = self.server(0) else { continue };
            if let Err(error) = engine.register(playbook, None).await {
                return Outcome { broken: vec![format!("a playbook is refused: {error:?}")], ..Outcome::default() };
            }
        }
        self.failing.store(self.scenario.failing, Ordering::Relaxed);
        for worker in 0..self.workers.len() {
            self.start_worker(worker);
        }
        let servers = Arc::clone(&self.servers);
        let people = tokio::spawn(people::live(self.scenario.clone(), servers, self.chance.fork()));
        self.misfortune().await;
        let memory = people.await.unwrap_or_default();
        self.calm_down();
        let stuck = self.rest().await;
        let outcome = self.judge(&memory, stuck).await;
        for running in self.running.iter_mut().filter_map(Option::take) {
            running.stop().await;
        }
        outcome
    }

    fn server(&self, number: usize) -> Option<Arc<Engine>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned().flatten()
    }

    fn start_server(&mut self, number: usize) {
        self.nodes += 1;
        let store = Shaky::new(Arc::clone(&self.truth), self.chance.fork(), Arc::clone(&self.failing));
        let options = EngineOptions { node: self.nodes, lease_ms: LEASE_MS, ..EngineOptions::default() };
        let engine = Engine::new(Arc::new(store), options);
        self.running[number] = Some(engine.spawn());
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(engine);
    }

    fn start_worker(&mut self, number: usize) {
        self.hired += 1;
        let transport = Flaky {
            servers: Arc::clone(&self.servers),
            told: Arc::clone(&self.told),
            chance: self.chance.fork(),
            lost: self.scenario.lost,
            repeated: self.scenario.repeated,
        };
        let tools = SimTools::new(self.chance.fork(), self.witness.clone());
        let options = WorkerOptions {
            worker_id: format!("worker-{number}").into(),
            instance: Some(self.hired.to_string().into()),
            slots: u32::try_from(self.chance.between(1, 4)).unwrap_or(1),
            ..WorkerOptions::default()
        };
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let worker = Worker::new(Arc::new(transport), Arc::new(tools), clock, options);
        self.workers[number] = Some(tokio::spawn(worker.run(CancellationToken::new())));
    }

    /// Servers and workers die where they stand and come back after a while.
    async fn misfortune(&mut self) {
        let crashes = self.scenario.crashes;
        let span = self.scenario.busy_ms;
        for _ in 0..crashes {
            tokio::time::sleep(Duration::from_millis(self.chance.between(1, (span / (crashes + 1)).max(1)))).await;
            if self.chance.per_mille(500) {
                let number = self.chance.below(self.running.len() as u64) as usize;
                self.servers.lock().unwrap_or_else(PoisonError::into_inner)[number] = None;
                drop(self.running[number].take());
                tokio::time::sleep(Duration::from_millis(self.chance.below(AWAY_MS_MAX))).await;
                self.start_server(number);
            } else {
                let number = self.chance.below(self.workers.len() as u64) as usize;
                if let Some(worker) = self.workers[number].take() {
                    worker.abort();
                }
                tokio::time::sleep(Duration::from_millis(self.chance.below(9_000))).await;
                self.start_worker(number);
            }
        }
    }

    /// From here on nothing fails any more; whatever was begun must come to rest by itself.
    fn calm_down(&mut self) {
        self.failing.store(0, Ordering::Relaxed);
    }

    /// Waits until every execution is terminal and quiesced.
    async fn rest(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_millis(REST_MS_MAX);
        loop {
            // Nobody waits for people who never come back.
            if let Some(engine) = self.server(0) {
                drop(people::resume_all(&engine).await);
            }
            let restless: Vec<_> = self.heads().await.into_iter().filter(|head| head.quiesced_at.is_none()).collect();
            if restless.is_empty() {
                return Vec::new();
            }
            if Instant::now() >= end {
                return restless
                    .iter()
                    .map(|head| {
                        format!(
                            "C7: stuck: {} {} {} at {:?}, {} in flight",
                            head.execution_id,
                            head.path,
                            head.status.as_str(),
                            head.current_step,
                            head.in_flight
                        )
                    })
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn heads(&self) -> Vec<Head> {
        let query = ListQuery { limit: 100_000, ..ListQuery::default() };
        self.truth.executions(query).await.unwrap_or_default()
    }

    async fn judge(&self, memory: &Memory, stuck: Vec<String>) -> Outcome {
        let mut members = Vec::new();
        for head in self.heads().await {
            let id = head.execution_id;
            let query = EventQuery { execution_id: Some(id), limit: 1_000_000, ..EventQuery::default() };
            let events = self.truth.events(query).await.map(|(events, _)| events).unwrap_or_default();
            let commands = self.truth.view(id).await.ok().flatten().map(|view| view.commands).unwrap_or_default();
            members.push(Member { head, events, commands });
        }
        let answers = &memory.answers;
        let cascades: BTreeSet<_> = answers
            .iter()
            .filter(|answered| answered.cascade && answered.answer.complete)
            .map(|answered| answered.answer.execution_id)
            .collect();
        let mut broken = stuck;
        broken.extend(check_family(&members, &cascades).iter().map(ToString::to_string));
        let known: BTreeSet<_> = members.iter().map(|member| member.head.execution_id).collect();
        for id in memory.started.difference(&known) {
            broken.push(format!("an acknowledged start is lost: {id}"));
        }
        broken.extend(self.no_start_after_the_answer(memory));
        broken.extend(no_id_in_two_answers(memory));
        broken.extend(one_cleanup_each(&members));
        broken.extend(no_overlap(&members));
        broken.extend(promises::bounded_stop(&self.scenario, &members));
        broken.extend(promises::never_stuck(&self.scenario, &members));
        broken.extend(promises::said_sparingly(&self.scenario, &self.told));
        broken.extend(promises::only_what_was_asked_for(memory, &members));
        let mut trace = Vec::new();
        if !broken.is_empty() {
            let mut log: Vec<_> = members.iter().flat_map(|member| &member.events).collect();
            log.sort_by_key(|recorded| (recorded.at, recorded.event_id));
            trace.extend(log.into_iter().map(trace::line));
        }
        Outcome {
            broken,
            trace,
            executions: members.len(),
            events: members.iter().map(|member| member.events.len()).sum(),
            cancelled: answers.iter().map(|answered| answered.answer.cancelled_executions.len()).sum(),
            tools: self.witness.starts().len(),
        }
    }

    /// C1, seen from outside: a tool that started after the answer was in that answer's `in_flight`.
    fn no_start_after_the_answer(&self, memory: &Memory) -> Vec<String> {
        let mut broken = Vec::new();
        let mut decided: BTreeMap<ExecutionId, (Instant, BTreeSet<_>)> = BTreeMap::new();
        for answered in &memory.answers {
            let held: BTreeSet<_> = answered.answer.in_flight.iter().map(|held| held.command_id).collect();
            for id in &answered.answer.cancelled_executions {
                decided.entry(*id).or_insert_with(|| (answered.at, held.clone()));
            }
        }
        for start in self.witness.starts().iter() {
            if let Some((at, held)) = decided.get(&start.execution_id)
                && start.at > *at
                && !held.contains(&start.command_id)
            {
                broken.push(format!(
                    "C1: a tool of {} started {:?} after the answer, and was not in flight",
                    start.execution_id,
                    start.at - *at
                ));
            }
        }
        broken
    }
}

/// Never more than may have a key have it at a time, from the start of each until nothing of it runs any more.
fn no_overlap(members: &[Member]) -> Vec<String> {
    let keyed = members.iter().map(|member| &member.head).filter(|head| &*head.path == "sim/strict");
    let held: Vec<_> =
        keyed.filter(|head| head.cleanup_of.is_none()).map(|head| (head.started_at, head.quiesced_at)).collect();
    let at =
        |moment| held.iter().filter(move |(from, until)| *from <= moment && until.is_none_or(|until| until > moment));
    let crowded = held.iter().filter(|(from, _)| at(*from).count() > STRICT_LIMIT);
    crowded.map(|(from, _)| format!("too many executions have their concurrency key at {}", from.to_iso())).collect()
}

/// A cancelled execution whose playbook wants it has one cleanup, the one that its cancel named; no other has any.
fn one_cleanup_each(members: &[Member]) -> Vec<String> {
    let mut found: BTreeMap<ExecutionId, Vec<ExecutionId>> = BTreeMap::new();
    for head in members.iter().map(|member| &member.head) {
        if let Some(of) = head.cleanup_of {
            found.entry(of).or_default().push(head.execution_id);
        }
    }
    let mut broken = Vec::new();
    for head in members.iter().map(|member| &member.head) {
        let named: Vec<_> = head.cancel.iter().filter_map(|cancel| cancel.cleanup).collect();
        let born = found.remove(&head.execution_id).unwrap_or_default();
        if named != born {
            broken.push(format!(
                "the cancel of {} named the cleanups {named:?}, and {born:?} are there",
                head.execution_id
            ));
        }
    }
    broken.extend(found.keys().map(|of| format!("a cleanup of {of}, which is not there")));
    broken
}

/// C10: no id is in two answers, unless one is the repeat of the other.
fn no_id_in_two_answers(memory: &Memory) -> Vec<String> {
    let mut seen: BTreeMap<ExecutionId, usize> = BTreeMap::new();
    let mut broken = Vec::new();
    for (number, answered) in memory.answers.iter().enumerate() {
        for id in &answered.answer.cancelled_executions {
            if let Some(first) = seen.insert(*id, number) {
                broken.push(format!("C10: {id} is in answers {first} and {number}"));
            }
        }
    }
    broken
}
