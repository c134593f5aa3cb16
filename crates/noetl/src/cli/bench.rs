//! `noetl bench`: how fast the engine is here, with durable settings, on a data directory of its own.

mod cancel;
mod chain;
mod count;
mod fill;
mod grow;
mod histogram;
mod idle;
mod load;
mod pattern;
mod place;
mod restart;
mod servers;
mod size;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use noetl_core::time::Timestamp;
use noetl_engine::Engine;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::chain::Chain;
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
/// A server is loaded by chain, fanout, python, children and mixed; the others need an engine of their own.
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
    /// A cycle whose engine is restarted on the way: what the rounds after that cost
    Restart(restart::Restart),
    /// Memory of an engine that has nothing to do, and of executions that wait in it
    Idle(idle::Idle),
    /// So many operations of one kind and nothing else, for a profiler to count
    Count(count::Count),
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
            Scenario::Chain(chain) => chain.run(globals).await,
            Scenario::Loop(grow) => grow.run(What::Loop).await,
            Scenario::Cycle(grow) => grow.run(What::Cycle).await,
            Scenario::Restart(restart) => restart.run().await,
            Scenario::Idle(idle) => idle.run().await,
            Scenario::Count(count) => count.run().await,
            Scenario::Fill(fill) => fill.run(globals).await,
            Scenario::Servers(servers) => servers.run(globals).await,
            Scenario::Size(size) => size.run(globals).await,
            Scenario::Cancel(cancel) => cancel.run().await,
        }
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

/// Prints what was measured: one line of JSON, or a text for people.
fn show(as_json: bool, figures: &impl Serialize, to_text: impl FnOnce() -> String) -> Result<(), Stop> {
    let text = match as_json {
        true => serde_json::to_string(figures).map_err(|error| Stop::new(Exit::Defect, error.to_string()))?,
        false => to_text(),
    };
    console::print(&format!("{text}\n"))
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

/// Returns how long processors have worked for this process.
fn cpu_seconds() -> f64 {
    let worked = clock_gettime(ClockId::ProcessCPUTime);
    worked.tv_sec as f64 + worked.tv_nsec as f64 / 1e9
}

/// Returns the most memory this process has used, as the kernel counted it.
fn peak_mib() -> u64 {
    kernel_mib("VmHWM:")
}

/// Returns what the kernel says of this process under `name`, in MiB.
fn kernel_mib(name: &str) -> u64 {
    kernel_kib(name) / 1024
}

/// The same in KiB.
fn kernel_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
