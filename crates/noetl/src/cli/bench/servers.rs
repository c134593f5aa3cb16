//! `noetl bench servers`: what servers that share a database do together, as callers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::show;
use super::target::Target;
use crate::cli::stop::{Exit, Stop};
use crate::cli::target::Globals;
use crate::client::Client;

/// Catalog path of the chain.
pub(super) const CHAIN: &str = "bench/servers/chain";
/// Catalog path of the loop.
const LOOP: &str = "bench/servers/loop";
/// Steps of one chain.
const STEPS: u32 = 10;
/// Clock ticks in a second, as the kernel counts the time of processes for people.
const TICKS: f64 = 100.0;

#[derive(Debug, Args)]
pub(super) struct Servers {
    /// Callers that each start a chain of ten worker steps, wait for its end, and start the next; the servers share them
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Seconds of chains that count, after the warm-up; 0 leaves the line out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
    /// Seconds that do not count, before
    #[arg(long, default_value_t = 3)]
    warm_up: u32,
    /// Iterations of the one parallel loop; 0 leaves the line out
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    iterations: u32,
    /// Iterations of the loop at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: u32,
    /// How often the loop is measured; the best counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    servers: usize,
    callers: u32,
    chain_steps_per_second: Option<f64>,
    loop_at_once: u32,
    loop_iterations_per_second: Option<f64>,
}

impl Servers {
    pub(super) async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let named = globals.server()?;
        let urls = named.url.split(',').map(str::trim).filter(|url| !url.is_empty());
        let targets = urls.map(|url| {
            let client = Client::to_url(url, named.token.as_deref()).map_err(|error| Stop::usage(error.to_string()))?;
            Ok(Target::Server(Arc::new(client)))
        });
        let targets = targets.collect::<Result<Vec<_>, Stop>>()?;
        let figures = self.measure(&targets).await.map_err(defect)?;
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn measure(&self, targets: &[Target]) -> Result<Figures, String> {
        let first = targets.first().ok_or("no server is named")?;
        let chain = match self.seconds {
            0 => None,
            _ => {
                first.register(&chain(STEPS)).await?;
                Some(self.chains(targets).await?)
            }
        };
        let mut best: Option<f64> = None;
        if self.iterations > 0 {
            first.register(&one_loop(self.at_once)).await?;
            first.run_with(LOOP, json!({ "rounds": self.iterations.min(500) })).await?;
            for _ in 0..self.runs {
                let began = Instant::now();
                first.run_with(LOOP, json!({ "rounds": self.iterations })).await?;
                let rate = f64::from(self.iterations) / began.elapsed().as_secs_f64();
                best = Some(best.map_or(rate, |best| best.max(rate)));
            }
        }
        Ok(Figures {
            scenario: "servers",
            servers: targets.len(),
            callers: self.callers,
            chain_steps_per_second: chain.map(f64::round),
            loop_at_once: self.at_once,
            loop_iterations_per_second: best.map(f64::round),
        })
    }

    /// Returns how many steps of chains end in a second, started at all servers in turn.
    async fn chains(&self, targets: &[Target]) -> Result<f64, String> {
        let (ended, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for target in targets.iter().cycle().take(self.callers as usize) {
            let (target, ended, over) = (target.clone(), Arc::clone(&ended), Arc::clone(&over));
            callers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    target.run(CHAIN).await?;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            });
        }
        tokio::time::sleep(Duration::from_secs(u64::from(self.warm_up))).await;
        let (began, before) = (Instant::now(), ended.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(u64::from(self.seconds))).await;
        let (seconds, after) = (began.elapsed().as_secs_f64(), ended.load(Ordering::Relaxed));
        over.store(true, Ordering::Relaxed);
        while let Some(caller) = callers.join_next().await {
            caller.map_err(|error| error.to_string())??;
        }
        Ok((after - before) as f64 * f64::from(STEPS) / seconds)
    }
}

/// Returns a playbook of so many worker steps in a row.
pub(super) fn chain(steps: u32) -> String {
    let name = |step: u32| if step == 0 { "start".to_owned() } else { format!("step_{step}") };
    let step = |step: u32| {
        let next =
            if step + 1 == steps { String::new() } else { format!(", next: {{arcs: [{{step: {}}}]}}", name(step + 1)) };
        format!("  - {{step: {}, tool: {{kind: noop}}, spec: {{run_on: worker}}{next}}}\n", name(step))
    };
    document(CHAIN, &(0..steps).map(step).collect::<String>())
}

fn one_loop(at_once: u32) -> String {
    document(
        LOOP,
        &format!(
            "  - {{step: start, loop: {{in: '{{{{ rounds }}}}', iterator: n, spec: {{mode: parallel, \
             max_in_flight: {at_once}}}}}, tool: {{kind: noop}}, spec: {{run_on: worker}}}}\n"
        ),
    )
}

fn document(path: &str, steps: &str) -> String {
    format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: servers, path: {path}}}\nworkload: {{rounds: 1}}\n\
         workflow:\n{steps}"
    )
}

/// Returns how long processors have worked for a process and its children, those that are gone included.
pub(super) fn processor_seconds(parent: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ticks = pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let (its_parent, own) = (field(1)?, field(11)? + field(12)?);
        match pid == parent {
            true => Some(own + field(13)? + field(14)?),
            false => (its_parent == u64::from(parent)).then_some(own),
        }
    });
    ticks.sum::<u64>() as f64 / TICKS
}

impl Figures {
    fn to_text(&self) -> String {
        let mut lines = vec![format!("{} server(s)", self.servers)];
        lines.extend(
            self.chain_steps_per_second
                .map(|rate| format!("  chains of {STEPS} worker steps, {} callers: {rate:.0} steps/s", self.callers)),
        );
        lines.extend(
            self.loop_iterations_per_second
                .map(|rate| format!("  one parallel loop, {} at once: {rate:.0} iterations/s", self.loop_at_once)),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_is_a_playbook() {
        for source in [chain(1), chain(10), one_loop(64)] {
            let compiled = noetl_core::playbook::compile(&source).unwrap_or_else(|found| panic!("{found:#?}"));
            assert!(compiled.warnings.is_empty(), "{:#?}", compiled.warnings);
        }
    }

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let before = processor_seconds(std::process::id());
        let began = Instant::now();
        let mut number = 1_u64;
        while processor_seconds(std::process::id()) <= before {
            assert!(began.elapsed() < Duration::from_secs(60), "{number}");
            for _ in 0..1_000_000 {
                number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
    }
}
