//! Whether a long run costs more per step than a short one, in time and memory.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::labels::Labels;
use noetl_engine::{Engine, StartRequest, WaitFor};
use noetl_store::catalog::ResourceKey;
use serde::Serialize;
use serde_json::{Map, json};

use super::{On, cpu_seconds, measured_on, show};
use crate::cli::stop::{Exit, Stop};

/// Longest wait for one run, in milliseconds.
pub(super) const RUN_MS_MAX: u64 = 600_000;
/// Rounds of the run that is not measured.
pub(super) const WARM_UP: u32 = 500;
/// Shares of the rounds that are measured, in tenths.
const TENTHS: [u32; 4] = [1, 2, 5, 10];

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    /// Iterations of a parallel loop.
    Loop,
    /// Rounds of a cycle.
    Cycle,
}

#[derive(Debug, Args)]
pub(super) struct Grow {
    /// Rounds of the longest run; shorter ones are measured as well
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rounds: u32,
    /// Iterations of a loop at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: u32,
    /// Where each round runs
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
    scenario: What,
    on: &'static str,
    at_once: u32,
    runs: Vec<Run>,
    /// What a round of the longest run took, over that of the shortest.
    growth: f64,
    /// The same of the processors' time.
    cpu_growth: f64,
}

#[derive(Debug, Serialize)]
struct Run {
    rounds: u32,
    seconds: f64,
    microseconds_per_round: f64,
    /// Of all processors, for this process; much less noisy than what the clock on the wall says.
    cpu_microseconds_per_round: f64,
    /// Memory of this process after it, in MiB.
    resident_mib: u64,
}

impl Grow {
    pub(super) async fn run(self, what: What) -> Result<Exit, Stop> {
        let measured = measured_on("grow", Some(self.slots), async |engine| self.drive(what, engine).await).await;
        let figures = measured.map_err(|what| Stop::new(Exit::Defect, what))?;
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn drive(&self, what: What, engine: &Arc<Engine>) -> Result<Figures, String> {
        engine.register(&playbook(what, self.on, self.at_once), None).await.map_err(|error| format!("{error:?}"))?;
        once(engine, WARM_UP.min(self.rounds)).await?;
        let mut runs = Vec::new();
        for tenths in TENTHS {
            let rounds = self.rounds / 10 * tenths;
            let (began, worked) = (Instant::now(), cpu_seconds());
            once(engine, rounds).await?;
            let (seconds, worked) = (began.elapsed().as_secs_f64(), cpu_seconds() - worked);
            let per_round = |seconds: f64| seconds * 1e6 / f64::from(rounds);
            runs.push(Run {
                rounds,
                seconds,
                microseconds_per_round: per_round(seconds),
                cpu_microseconds_per_round: per_round(worked),
                resident_mib: resident_mib(),
            });
        }
        let growth = |cost: fn(&Run) -> f64| match (runs.first(), runs.last()) {
            (Some(first), Some(last)) => cost(last) / cost(first),
            (Some(_) | None, _) => 1.0,
        };
        let (growth, cpu_growth) =
            (growth(|run| run.microseconds_per_round), growth(|run| run.cpu_microseconds_per_round));
        Ok(Figures { scenario: what, on: self.on.word(), at_once: self.at_once, runs, growth, cpu_growth })
    }
}

/// Returns a playbook that does as many rounds as it is started with.
pub(super) fn playbook(what: What, on: On, at_once: u32) -> String {
    let spec = match on {
        On::Server => "",
        On::Worker => ", spec: {run_on: worker}",
    };
    let workflow = match what {
        What::Loop => format!(
            "  - {{step: start, loop: {{in: '{{{{ rounds }}}}', iterator: n, spec: {{mode: parallel, max_in_flight: {at_once}}}}}, \
             tool: {{kind: noop}}{spec}}}\n"
        ),
        What::Cycle => format!(
            "  - {{step: start, tool: {{kind: noop}}, set: {{ctx.n: 0}}, next: {{arcs: [{{step: turn}}]}}}}\n  \
             - {{step: turn, tool: {{kind: noop}}{spec}, set: {{ctx.n: '{{{{ ctx.n + 1 }}}}'}}, \
             next: {{arcs: [{{step: turn, when: '{{{{ ctx.n < rounds }}}}'}}]}}}}\n"
        ),
    };
    format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: grow, path: bench/grow}}\n\
         workload: {{rounds: 1}}\nworkflow:\n{workflow}"
    )
}

/// Runs one, and returns when it has completed.
pub(super) async fn once(engine: &Arc<Engine>, rounds: u32) -> Result<(), String> {
    let id = start(engine, rounds).await?;
    let head = engine.wait(id, WaitFor::Terminal, RUN_MS_MAX).await.map_err(|error| error.to_string())?;
    match head.map(|head| head.status) {
        Some(Status::Completed) => Ok(()),
        other => Err(format!("execution {id} is {other:?}, not completed")),
    }
}

/// Starts one.
pub(super) async fn start(engine: &Arc<Engine>, rounds: u32) -> Result<ExecutionId, String> {
    let request = StartRequest {
        target: ResourceKey::Latest("bench/grow".into()),
        payload: Map::from_iter([("rounds".to_owned(), json!(rounds))]),
        parent_execution_id: None,
        started_by: Some("bench".to_owned()),
        strict: true,
        labels: Labels::new(),
        idempotency_key: None,
    };
    engine.start(request).await.map(|started| started.execution_id).map_err(|error| error.to_string())
}

impl Figures {
    fn to_text(&self) -> String {
        let what = match self.scenario {
            What::Loop => format!("loop, {} at once", self.at_once),
            What::Cycle => "cycle".to_owned(),
        };
        let mut lines = vec![format!("{what}, on the {}, embedded store, synchronous=FULL", self.on)];
        for run in &self.runs {
            lines.push(format!(
                "  {:>8} rounds {:>8.2} s   {:>8.1} µs a round, {:>6.1} of them processor   {:>6} MiB resident",
                run.rounds, run.seconds, run.microseconds_per_round, run.cpu_microseconds_per_round, run.resident_mib
            ));
        }
        lines.push(format!(
            "  a round of the longest run takes {:.2} of one of the shortest, and {:.2} of its processor time",
            self.growth, self.cpu_growth
        ));
        lines.join("\n")
    }
}

/// Returns the memory that this process has now, as the kernel counts it.
fn resident_mib() -> u64 {
    super::kernel_mib("VmRSS:")
}
