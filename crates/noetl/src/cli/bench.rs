//! `noetl bench`: how fast the engine is here, with durable settings, on a data directory of its own.

mod cancel;
mod fill;
mod grow;
mod histogram;
mod load;
mod pattern;
mod place;
mod servers;
mod size;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use noetl_core::head::Status;
use noetl_core::time::Timestamp;
use noetl_engine::{Engine, StartRequest, WaitFor};
use noetl_store::catalog::ResourceKey;
use serde::Serialize;
use serde_json::Map;

use self::grow::{Grow, What};
use self::load::Load;
use super::console;
use super::stop::{Exit, Stop};
use super::target::Globals;
use crate::clock;
use crate::embed::{DataDir, Role};
use crate::server::node::{Node, NodeOptions, WorkerSettings};

/// Longest wait for one execution of a benchmark, in milliseconds.
const EXECUTION_MS_MAX: u64 = 60_000;

/// Measures the engine on an embedded store of its own, or a server that --server-url names
///
/// A server is loaded by fanout, python, children and mixed; the others need an engine of their own.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Chains of trivial steps, one after the other
    Chain(Chain),
    /// A parallel loop: what an iteration costs when there are many
    Loop(Grow),
    /// A cycle: what a round costs when there are many
    Cycle(Grow),
    /// Branches from one step to a join
    Fanout(Load),
    /// Python steps, beside steps that do nothing
    Python(Load),
    /// Sub-playbooks, many at once
    Children(Load),
    /// Chains, branches, sub-playbooks and python, in turn
    Mixed(Load),
    /// Fill a data directory or a database with executions, so that others can be measured at that size
    Fill(fill::Fill),
    /// Chains, and one loop, on several servers that share a database: --server-url a,b,c
    Servers(servers::Servers),
    /// What a step, a list, a status and a cancel cost in a data directory or a database as it stands
    Size(size::Size),
    /// Cancels: alone, beside a load, of what runs, of a family, of many at once
    Cancel(cancel::Cancel),
}

/// Where the steps of a chain run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// On the server: a step that needs no worker.
    Server,
    /// On a worker: issued, claimed, reported.
    Worker,
}

#[derive(Debug, Args)]
struct Chain {
    /// Steps of one chain
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Callers that each start a chain, wait for its end, and start the next
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Seconds that count, after the warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Seconds that do not count, before
    #[arg(long, default_value_t = 2)]
    warm_up: u32,
    /// Where the steps run
    #[arg(long, value_enum, default_value_t = On::Worker)]
    on: On,
    /// Commands that the worker runs at once
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    on: &'static str,
    steps: u32,
    callers: u32,
    seconds: f64,
    executions: usize,
    steps_per_second: f64,
    /// From the request to start until the end is known, in milliseconds.
    chain_ms: Percentiles,
    /// The same, per step.
    step_ms: Percentiles,
    /// Most memory this process used, in MiB.
    peak_mib: u64,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    fn of(sorted: &[Duration], per: u32) -> Self {
        let at = |share: f64| {
            let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
            sorted.get(place).map_or(0.0, |took| took.as_secs_f64() * 1000.0 / f64::from(per))
        };
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl On {
    fn word(self) -> &'static str {
        match self {
            On::Server => "server",
            On::Worker => "worker",
        }
    }
}

impl Bench {
    /// Runs the scenario and prints its figures.
    pub async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        match self.scenario {
            Scenario::Fanout(load) => load.run(globals, load::Scenario::Fanout).await,
            Scenario::Python(load) => load.run(globals, load::Scenario::Python).await,
            Scenario::Children(load) => load.run(globals, load::Scenario::Children).await,
            Scenario::Mixed(load) => load.run(globals, load::Scenario::Mixed).await,
            Scenario::Chain(chain) => chain.run().await,
            Scenario::Loop(grow) => grow.run(What::Loop).await,
            Scenario::Cycle(grow) => grow.run(What::Cycle).await,
            Scenario::Fill(fill) => fill.run(globals).await,
            Scenario::Servers(servers) => servers.run(globals).await,
            Scenario::Size(size) => size.run(globals).await,
            Scenario::Cancel(cancel) => cancel.run().await,
        }
    }
}

impl Chain {
    async fn run(self) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let measured = measured_on("chain", Some(self.slots), async |engine| self.drive(engine).await).await;
        let figures = measured.map_err(defect)?;
        if self.json {
            let line = serde_json::to_string(&figures).map_err(|error| Stop::new(Exit::Defect, error.to_string()))?;
            console::print(&line)?;
        } else {
            console::print(&figures.to_text())?;
        }
        Ok(Exit::Done)
    }

    async fn drive(&self, engine: &Arc<Engine>) -> Result<Figures, String> {
        engine.register(&self.playbook(), None).await.map_err(|error| format!("{error:?}"))?;
        let counting = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..self.callers)
            .map(|_| tokio::spawn(call(Arc::clone(engine), Arc::clone(&counting), Arc::clone(&over))))
            .collect();
        tokio::time::sleep(Duration::from_secs(u64::from(self.warm_up))).await;
        counting.store(true, Ordering::Relaxed);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(u64::from(self.seconds))).await;
        counting.store(false, Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for caller in callers {
            took.extend(caller.await.map_err(|error| error.to_string())??);
        }
        took.sort_unstable();
        Ok(Figures {
            scenario: "chain",
            on: self.on.word(),
            steps: self.steps,
            callers: self.callers,
            seconds,
            executions: took.len(),
            steps_per_second: (took.len() as f64 * f64::from(self.steps) / seconds).round(),
            chain_ms: Percentiles::of(&took, 1),
            step_ms: Percentiles::of(&took, self.steps),
            peak_mib: peak_mib(),
        })
    }

    fn playbook(&self) -> String {
        let mut text = String::from(
            "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: chain, path: bench/chain}\nworkflow:\n",
        );
        let spec = match self.on {
            On::Server => "",
            On::Worker => ", spec: {run_on: worker}",
        };
        for step in 0..self.steps {
            let name = if step == 0 { "start".to_owned() } else { format!("step_{step}") };
            let next = match step + 1 {
                last if last == self.steps => String::new(),
                next => format!(", next: {{arcs: [{{step: step_{next}}}]}}"),
            };
            text.push_str(&format!("  - {{step: {name}, tool: {{kind: noop}}{spec}{next}}}\n"));
        }
        text
    }
}

/// Measures on a node of its own, with a worker of so many slots or none, and leaves nothing behind.
async fn measured_on<T>(
    name: &str,
    slots: Option<u32>,
    measure: impl AsyncFnOnce(&Arc<Engine>) -> Result<T, String>,
) -> Result<T, String> {
    let directory = directory(name);
    let measured = measured_in(&directory, slots, measure).await;
    // Whatever happened, nothing is left behind.
    std::fs::remove_dir_all(&directory).ok();
    measured
}

/// Returns where the node of that name keeps its state.
fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("noetl-bench-{name}-{}", std::process::id()))
}

async fn measured_in<T>(
    directory: &Path,
    slots: Option<u32>,
    measure: impl AsyncFnOnce(&Arc<Engine>) -> Result<T, String>,
) -> Result<T, String> {
    let data_dir = DataDir::resolve(Some(directory)).map_err(|error| error.to_string())?;
    let now: Timestamp = clock::now();
    let owned = data_dir
        .try_take(Role::Run, now)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("{} is in use", directory.display()))?;
    let worker = slots.map(|slots| WorkerSettings {
        slots: Some(slots),
        drain: Duration::from_secs(1),
        ..WorkerSettings::default()
    });
    let node = Node::start(owned, NodeOptions::working(Role::Run, worker)).await.map_err(|error| error.to_string())?;
    let engine = Arc::clone(node.engine());
    let measured = measure(&engine).await;
    node.stop().await;
    measured
}

/// Starts chain after chain; returns how long those took that ended while it counted.
async fn call(engine: Arc<Engine>, counting: Arc<AtomicBool>, over: Arc<AtomicBool>) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let request = StartRequest {
            target: ResourceKey::Latest("bench/chain".into()),
            payload: Map::new(),
            parent_execution_id: None,
            started_by: Some("bench".to_owned()),
            strict: false,
            idempotency_key: None,
        };
        let started = engine.start(request).await.map_err(|error| error.to_string())?;
        let head = engine
            .wait(started.execution_id, WaitFor::Terminal, EXECUTION_MS_MAX)
            .await
            .map_err(|error| error.to_string())?;
        match head.map(|head| head.status) {
            Some(Status::Completed) => {}
            other => return Err(format!("execution {} is {other:?}, not completed", started.execution_id)),
        }
        if counting.load(Ordering::Relaxed) {
            took.push(began.elapsed());
        }
    }
    Ok(took)
}

impl Figures {
    fn to_text(&self) -> String {
        let line = |name: &str, of: &Percentiles| {
            format!(
                "  {name:<12} p50 {:>8.2}   p90 {:>8.2}   p99 {:>8.2}   max {:>8.2}",
                of.p50, of.p90, of.p99, of.max
            )
        };
        [
            format!(
                "chain of {} steps on the {}, {} caller(s), {:.0} s, embedded store, synchronous=FULL",
                self.steps, self.on, self.callers, self.seconds
            ),
            format!("  {:<12} {:.0}", "steps/s", self.steps_per_second),
            line("chain ms", &self.chain_ms),
            line("step ms", &self.step_ms),
            format!(
                "  {:<12} {} in {} executions; peak memory {} MiB",
                "ended",
                self.executions * self.steps as usize,
                self.executions,
                self.peak_mib
            ),
        ]
        .join("\n")
    }
}

/// Returns the most memory this process has used, as the kernel counted it.
fn peak_mib() -> u64 {
    kernel_mib("VmHWM:")
}

/// Returns what the kernel says of this process under `name`, in MiB.
fn kernel_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib / 1024
}
