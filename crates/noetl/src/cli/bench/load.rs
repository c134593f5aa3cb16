//! `noetl bench python`, `fanout`, `children`, `mixed`: executions of one shape, or of all, by many callers at once; for
//! a few seconds, or for so long that growth would show.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use super::histogram::Histogram;
use super::target::Target;
use super::{Percentiles, directory, kernel_mib, measured_on, peak_mib, show};
use crate::cli::console;
use crate::cli::link::Link;
use crate::cli::stop::{Exit, Stop};
use crate::cli::target::Globals;
use crate::render::duration;

/// Longest time between two looks at memory and disk during a soak.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// Fewest looks during a soak.
const SAMPLES_MIN: u32 = 10;

/// What an execution is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shape {
    /// Steps one after the other that do nothing, on a worker.
    Chain,
    /// The same, in python.
    Python,
    /// Branches from one step to a join.
    Fanout,
    /// Sub-playbooks of one step, at the same time.
    Children,
}

/// Which shapes are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    /// Python, compared with steps that do nothing.
    Python,
    /// Branches.
    Fanout,
    /// Sub-playbooks.
    Children,
    /// All shapes in turn.
    Mixed,
}

#[derive(Debug, Args)]
pub(super) struct Load {
    /// Callers that each start an execution, wait for its end, and start the next [default: 1 for python, else 32]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: Option<u32>,
    /// Steps, branches or children of one execution
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    width: u32,
    /// Seconds that count, after the warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Seconds that do not count, before
    #[arg(long, default_value_t = 2)]
    warm_up: u32,
    /// A soak: load for so long, and watch memory and disk (an engine of its own only)
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, conflicts_with = "seconds")]
    soak: Option<Duration>,
    /// Commands that the worker of the engine runs at once
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: Scenario,
    /// `embedded`, or where the server is.
    store: String,
    callers: u32,
    width: u32,
    seconds: f64,
    shapes: Vec<OfShape>,
    /// What python costs a step: its median less that of a step that does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    python_overhead_ms: Option<f64>,
    /// Most memory this process used, in MiB; of an engine of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_mib: Option<u64>,
    /// How memory and disk went, in a soak.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
struct OfShape {
    shape: Shape,
    executions: u64,
    executions_per_second: f64,
    /// From the request to start until the end is known.
    execution_ms: Percentiles,
    /// The same, per step; of chains.
    #[serde(skip_serializing_if = "Option::is_none")]
    step_ms: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Sample {
    seconds: f64,
    /// Ended so far, the warm-up included.
    executions: u64,
    resident_mib: u64,
    disk_mib: f64,
}

impl Sample {
    fn to_text(&self) -> String {
        format!(
            "  {:>7.0} s   {:>9} executions   {:>6} MiB resident   {:>9.1} MiB on disk",
            self.seconds, self.executions, self.resident_mib, self.disk_mib
        )
    }
}

/// What callers and the one who watches them share.
#[derive(Debug, Default)]
struct Watch {
    counting: AtomicBool,
    over: AtomicBool,
    ended: AtomicU64,
}

impl Load {
    pub(super) async fn run(self, globals: &Globals, scenario: Scenario) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let figures = if globals.server_url.is_some() || globals.context.is_some() {
            if self.soak.is_some() {
                return Err(Stop::usage("--for watches an engine of its own: it does not go with a server"));
            }
            let mut link = Link::to_server(globals)?;
            let place = link.place();
            let client = link.client().await?;
            let measured = self.drive(scenario, &Target::Server(Arc::new(client)), place, None).await;
            link.close().await;
            measured.map_err(defect)?
        } else {
            let name = "load";
            let measure = async |engine: &Arc<noetl_engine::Engine>| {
                let target = Target::Engine(Arc::clone(engine));
                self.drive(scenario, &target, "embedded".to_owned(), Some(directory(name))).await
            };
            measured_on(name, Some(self.slots), measure).await.map_err(defect)?
        };
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn drive(
        &self,
        scenario: Scenario,
        target: &Target,
        store: String,
        watched: Option<PathBuf>,
    ) -> Result<Figures, String> {
        for shape in [Shape::Chain, Shape::Python, Shape::Fanout, Shape::Children] {
            for source in shape.playbooks(self.width) {
                target.register(&source).await?;
            }
        }
        let callers = self.callers.unwrap_or(if scenario == Scenario::Python { 1 } else { 32 });
        let took = self.soak.unwrap_or(Duration::from_secs(u64::from(self.seconds)));
        let mut figures = Figures {
            scenario,
            store,
            callers,
            width: self.width,
            seconds: took.as_secs_f64(),
            shapes: Vec::new(),
            python_overhead_ms: None,
            peak_mib: None,
            samples: Vec::new(),
        };
        // One after the other where they are compared, in turn where they are mixed.
        let rounds: &[&[Shape]] = match scenario {
            Scenario::Python => &[&[Shape::Chain], &[Shape::Python]],
            Scenario::Fanout => &[&[Shape::Fanout]],
            Scenario::Children => &[&[Shape::Children]],
            Scenario::Mixed => &[&[Shape::Chain, Shape::Fanout, Shape::Children, Shape::Python]],
        };
        for shapes in rounds {
            let samples = watched.as_ref().filter(|_| self.soak.is_some());
            let (of_shapes, samples) = self.load(target, shapes, callers, took, samples).await?;
            figures.shapes.extend(of_shapes);
            figures.samples.extend(samples);
        }
        if let (Scenario::Python, [noop, python]) = (scenario, &figures.shapes[..]) {
            let median = |of: &OfShape| of.step_ms.as_ref().map(|step| step.p50);
            figures.python_overhead_ms = median(python).zip(median(noop)).map(|(python, noop)| python - noop);
        }
        figures.peak_mib = watched.is_some().then(peak_mib);
        Ok(figures)
    }

    /// Runs executions of these shapes in turn; those count that end within `took` after the warm-up.
    async fn load(
        &self,
        target: &Target,
        shapes: &'static [Shape],
        callers: u32,
        took: Duration,
        watched: Option<&PathBuf>,
    ) -> Result<(Vec<OfShape>, Vec<Sample>), String> {
        let watch = Arc::new(Watch::default());
        let mut calling = JoinSet::new();
        for number in 0..callers as usize {
            calling.spawn(call(target.clone(), shapes, number, Arc::clone(&watch)));
        }
        let mut samples = Vec::new();
        let working = async {
            tokio::time::sleep(Duration::from_secs(u64::from(self.warm_up))).await;
            watch.counting.store(true, Ordering::Relaxed);
            let began = Instant::now();
            match watched {
                Some(directory) => {
                    let every = SAMPLE_EVERY.min(took / SAMPLES_MIN);
                    while began.elapsed() < took {
                        tokio::time::sleep(every.min(took.saturating_sub(began.elapsed()))).await;
                        let sample = Sample {
                            seconds: began.elapsed().as_secs_f64(),
                            executions: watch.ended.load(Ordering::Relaxed),
                            resident_mib: kernel_mib("VmRSS:"),
                            disk_mib: bytes_in(directory) as f64 / f64::from(1 << 20),
                        };
                        // Said at once too: whoever watches a soak wants to know before it is over.
                        console::note(&sample.to_text());
                        samples.push(sample);
                    }
                }
                None => tokio::time::sleep(took).await,
            }
            watch.counting.store(false, Ordering::Relaxed);
            began.elapsed().as_secs_f64()
        };
        let seconds = tokio::select! {
            seconds = working => seconds,
            // A caller ends by itself only when something has gone wrong.
            Some(ended) = calling.join_next() => {
                ended.map_err(|error| error.to_string())??;
                return Err("a caller has left".to_owned());
            }
        };
        watch.over.store(true, Ordering::Relaxed);
        let mut all = vec![Histogram::new(); shapes.len()];
        while let Some(called) = calling.join_next().await {
            for (sum, more) in all.iter_mut().zip(called.map_err(|error| error.to_string())??) {
                sum.add(&more);
            }
        }
        let of_shapes = shapes.iter().zip(all).map(|(shape, counted)| OfShape {
            shape: *shape,
            executions: counted.total(),
            executions_per_second: (counted.total() as f64 / seconds * 10.0).round() / 10.0,
            execution_ms: counted.percentiles(1),
            step_ms: shape.is_chain().then(|| counted.percentiles(self.width)),
        });
        Ok((of_shapes.collect(), samples))
    }
}

/// Starts execution after execution, each of the next shape; returns how long those took that ended while it counted.
async fn call(
    target: Target,
    shapes: &'static [Shape],
    first: usize,
    watch: Arc<Watch>,
) -> Result<Vec<Histogram>, String> {
    let mut took = vec![Histogram::new(); shapes.len()];
    let mut turn = first;
    while !watch.over.load(Ordering::Relaxed) {
        let place = turn % shapes.len();
        let began = Instant::now();
        target.run(shapes[place].path()).await?;
        watch.ended.fetch_add(1, Ordering::Relaxed);
        if watch.counting.load(Ordering::Relaxed) {
            took[place].note(began.elapsed());
        }
        turn += 1;
    }
    Ok(took)
}

impl Shape {
    fn path(self) -> &'static str {
        match self {
            Shape::Chain => "bench/load/chain",
            Shape::Python => "bench/load/python",
            Shape::Fanout => "bench/load/fanout",
            Shape::Children => "bench/load/children",
        }
    }

    fn is_chain(self) -> bool {
        match self {
            Shape::Chain | Shape::Python => true,
            Shape::Fanout | Shape::Children => false,
        }
    }

    /// Returns the playbooks that it takes.
    fn playbooks(self, width: u32) -> Vec<String> {
        let noop = "tool: {kind: noop}, spec: {run_on: worker}";
        let chain = |tool: &str| {
            let step = |n: u32| {
                let name = if n == 0 { "start".to_owned() } else { format!("s{n}") };
                let next =
                    if n + 1 < width { format!(", next: {{arcs: [{{step: s{}}}]}}", n + 1) } else { String::new() };
                format!("  - {{step: {name}, {tool}{next}}}\n")
            };
            (0..width).map(step).collect::<String>()
        };
        match self {
            Shape::Chain => vec![document(self.path(), &chain(noop))],
            Shape::Python => vec![document(self.path(), &chain("tool: {kind: python, code: 'result = {\"n\": 1}'}"))],
            Shape::Fanout => {
                let arcs: Vec<String> = (0..width).map(|n| format!("{{step: b{n}}}")).collect();
                let branch = |n| format!("  - {{step: b{n}, {noop}, next: {{arcs: [{{step: join}}]}}}}\n");
                let branches: String = (0..width).map(branch).collect();
                let start = "  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: ";
                vec![document(
                    self.path(),
                    &format!("{start}[{}]}}}}\n{branches}  - {{step: join, tool: {{kind: noop}}}}\n", arcs.join(", ")),
                )]
            }
            Shape::Children => {
                let child = "bench/load/child";
                let parent = format!(
                    "  - {{step: start, loop: {{in: '{{{{ {width} }}}}', iterator: n, spec: {{mode: parallel}}}}, \
                     tool: {{kind: playbook, path: {child}}}}}\n"
                );
                vec![document(child, &format!("  - {{step: start, {noop}}}\n")), document(self.path(), &parent)]
            }
        }
    }
}

fn document(path: &str, steps: &str) -> String {
    format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: load, path: {path}}}\nworkflow:\n{steps}")
}

/// Returns how much the files in a folder take.
fn bytes_in(directory: &PathBuf) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|found| found.len()).sum()
}

impl Figures {
    fn to_text(&self) -> String {
        let mut lines = vec![format!(
            "{:?}, width {}, {} caller(s), {:.0} s, {}",
            self.scenario, self.width, self.callers, self.seconds, self.store
        )];
        let line = |name: &str, of: &Percentiles| {
            format!(
                "    {name:<14} p50 {:>8.2}   p90 {:>8.2}   p99 {:>8.2}   max {:>8.2}",
                of.p50, of.p90, of.p99, of.max
            )
        };
        for of in &self.shapes {
            lines.push(format!(
                "  {:<9} {:>9.1} executions/s, {} ended",
                format!("{:?}", of.shape),
                of.executions_per_second,
                of.executions
            ));
            lines.push(line("execution ms", &of.execution_ms));
            lines.extend(of.step_ms.as_ref().map(|step| line("step ms", step)));
        }
        if let Some(overhead) = self.python_overhead_ms {
            lines.push(format!("  python costs {overhead:.2} ms a step more than a step that does nothing (medians)"));
        }
        lines.extend(self.samples.iter().map(Sample::to_text));
        if let (Some(half), Some(end)) = (self.samples.get(self.samples.len() / 2), self.samples.last()) {
            let more = end.executions.saturating_sub(half.executions).max(1) as f64;
            let minutes = (end.seconds - half.seconds).max(1.0) / 60.0;
            let resident = end.resident_mib as f64 - half.resident_mib as f64;
            let disk = end.disk_mib - half.disk_mib;
            lines.push(format!(
                "  second half, a minute: {:+.1} MiB resident, {:+.1} MiB on disk ({:.1} KiB an execution)",
                resident / minutes,
                disk / minutes,
                disk * 1024.0 / more
            ));
        }
        lines.extend(self.peak_mib.map(|peak| format!("  peak memory {peak} MiB")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_playbook_of_any_width() {
        for shape in [Shape::Chain, Shape::Python, Shape::Fanout, Shape::Children] {
            for width in [1, 2, 100] {
                let sources = shape.playbooks(width);
                for source in &sources {
                    let compiled = noetl_core::playbook::compile(source).unwrap_or_else(|found| panic!("{found:#?}"));
                    assert!(compiled.warnings.is_empty(), "{shape:?} of {width}: {:#?}", compiled.warnings);
                }
                let steps = noetl_core::playbook::compile(sources.last().unwrap()).unwrap().playbook.steps.len();
                let expected = match shape {
                    Shape::Chain | Shape::Python => width as usize,
                    Shape::Fanout => width as usize + 2,
                    Shape::Children => 1,
                };
                assert_eq!(steps, expected, "{shape:?} of {width}");
            }
        }
    }
}
