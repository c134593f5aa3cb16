//! `noetl bench chain`: chains of trivial steps, by many callers at once or by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use noetl_engine::metrics::Metrics;
use noetl_engine::transport::SLOTS_MAX;
use serde::Serialize;

use super::target::Target;
use super::{On, Percentiles, cpu_seconds, measured_on, peak_mib, show};
use crate::cli::link::Link;
use crate::cli::stop::{Exit, Stop};
use crate::cli::target::Globals;

/// Where the playbook of a chain stands in the catalog.
pub(super) const PATH: &str = "bench/chain";

#[derive(Debug, Args)]
pub(super) struct Chain {
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
    /// Commands that the worker of the engine runs at once [default: one for each caller]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    /// `embedded`, or where the server is.
    store: String,
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
    /// What commits took, of an engine in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<Commits>,
    /// Of all processors, for an engine in this process; much less noisy than what the clock on the wall says.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_microseconds_per_step: Option<f64>,
    /// Most memory this process used, in MiB; of an engine of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_mib: Option<u64>,
}

/// Transactions of appends, the warm-up included: from when the engine gives one to the store until it is on disk.
#[derive(Debug, Serialize)]
struct Commits {
    count: u64,
    appends_each: f64,
    /// Of whole milliseconds each, so it reads low when they are short.
    mean_ms: f64,
    max_ms: u64,
}

impl Commits {
    fn of(metrics: &Metrics) -> Self {
        let count = metrics.commit_ms.count();
        let each = |sum: u64| (sum as f64 * 10.0 / count.max(1) as f64).round() / 10.0;
        Commits {
            count,
            appends_each: each(metrics.batch_size.sum()),
            mean_ms: each(metrics.commit_ms.sum()),
            max_ms: metrics.commit_ms.max(),
        }
    }
}

impl Chain {
    pub(super) async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let figures = if globals.server_url.is_some() || globals.context.is_some() {
            let mut link = Link::to_server(globals)?;
            let place = link.place();
            let client = link.client().await?;
            let measured = self.drive(&Target::Server(Arc::new(client)), place).await;
            link.close().await;
            measured.map_err(defect)?
        } else {
            let measure = async |engine: &Arc<noetl_engine::Engine>| {
                self.drive(&Target::Engine(Arc::clone(engine)), "embedded store, synchronous=FULL".to_owned()).await
            };
            let slots = self.slots.unwrap_or(self.callers.min(SLOTS_MAX));
            measured_on("chain", Some(slots), measure).await.map_err(defect)?
        };
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn drive(&self, target: &Target, store: String) -> Result<Figures, String> {
        target.register(&playbook(self.steps, self.on)).await?;
        let counting = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..self.callers)
            .map(|_| tokio::spawn(call(target.clone(), Arc::clone(&counting), Arc::clone(&over))))
            .collect();
        tokio::time::sleep(Duration::from_secs(u64::from(self.warm_up))).await;
        counting.store(true, Ordering::Relaxed);
        let (began, worked) = (Instant::now(), cpu_seconds());
        tokio::time::sleep(Duration::from_secs(u64::from(self.seconds))).await;
        counting.store(false, Ordering::Relaxed);
        let (seconds, worked) = (began.elapsed().as_secs_f64(), cpu_seconds() - worked);
        over.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for caller in callers {
            took.extend(caller.await.map_err(|error| error.to_string())??);
        }
        took.sort_unstable();
        let commits = match target {
            Target::Engine(engine) => Some(Commits::of(engine.metrics())),
            Target::Server(_) => None,
        };
        let own = commits.is_some();
        let steps = took.len() as f64 * f64::from(self.steps);
        Ok(Figures {
            scenario: "chain",
            store,
            on: self.on.word(),
            steps: self.steps,
            callers: self.callers,
            seconds,
            executions: took.len(),
            steps_per_second: (steps / seconds).round(),
            chain_ms: Percentiles::of(&took, 1),
            step_ms: Percentiles::of(&took, self.steps),
            commits,
            cpu_microseconds_per_step: own.then(|| (worked * 1e7 / steps.max(1.0)).round() / 10.0),
            peak_mib: own.then(peak_mib),
        })
    }
}

/// Returns a playbook of so many steps, one after the other.
pub(super) fn playbook(steps: u32, on: On) -> String {
    let mut text =
        format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: chain, path: {PATH}}}\nworkflow:\n");
    let spec = match on {
        On::Server => "",
        On::Worker => ", spec: {run_on: worker}",
    };
    for step in 0..steps {
        let name = if step == 0 { "start".to_owned() } else { format!("step_{step}") };
        let next = match step + 1 {
            last if last == steps => String::new(),
            next => format!(", next: {{arcs: [{{step: step_{next}}}]}}"),
        };
        text.push_str(&format!("  - {{step: {name}, tool: {{kind: noop}}{spec}{next}}}\n"));
    }
    text
}

/// Starts chain after chain; returns how long those took that ended while it counted.
pub(super) async fn call(
    target: Target,
    counting: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        target.run(PATH).await?;
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
        let mut lines = vec![
            format!(
                "chain of {} steps on the {}, {} caller(s), {:.0} s, {}",
                self.steps, self.on, self.callers, self.seconds, self.store
            ),
            format!("  {:<12} {:.0}", "steps/s", self.steps_per_second),
            line("chain ms", &self.chain_ms),
            line("step ms", &self.step_ms),
            format!("  {:<12} {} in {} executions", "ended", self.executions * self.steps as usize, self.executions),
        ];
        lines.extend(self.commits.as_ref().map(|commits| {
            let Commits { count, appends_each, mean_ms, max_ms } = commits;
            format!(
                "  {:<12} {count} of {appends_each:.1} appends, {mean_ms:.1} ms each, {max_ms} ms at most",
                "commits"
            )
        }));
        lines.extend(self.cpu_microseconds_per_step.map(|took| format!("  {:<12} {took:.1} µs a step", "processor")));
        lines.extend(self.peak_mib.map(|peak| format!("  {:<12} {peak} MiB at most", "memory")));
        lines.join("\n")
    }
}
