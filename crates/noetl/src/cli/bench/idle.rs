//! `noetl bench idle`: memory of an engine that has nothing to do, and of executions that wait in it.

use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use noetl_engine::Engine;
use serde::Serialize;

use super::cancel::scale;
use super::cancel::start;
use super::{kernel_kib, measured_on, show};
use crate::cli::stop::{Exit, Stop};

/// Executions that are started at the same time.
const STARTS_AT_ONCE: usize = 64;
/// Looks at the memory on the way.
const LOOKS: u32 = 5;

#[derive(Debug, Args)]
pub(super) struct Idle {
    /// Executions that are started and wait for a worker that never comes
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    executions: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    /// Of a process that has just come up, in KiB.
    idle_kib: u64,
    looks: Vec<Look>,
    /// What the process has grown by, divided by the executions.
    bytes_per_execution: f64,
}

#[derive(Debug, Serialize)]
struct Look {
    waiting: u32,
    resident_kib: u64,
}

impl Idle {
    pub(super) async fn run(self) -> Result<Exit, Stop> {
        let measured = measured_on("idle", None, async |engine| self.drive(engine).await).await;
        let figures = measured.map_err(|what| Stop::new(Exit::Defect, what))?;
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn drive(&self, engine: &Arc<Engine>) -> Result<Figures, String> {
        scale::prepare(engine).await?;
        // One, so that whatever is made at first use is there.
        start(engine, scale::WAITING).await?;
        let idle_kib = resident_kib();
        let mut looks = Vec::new();
        let mut waiting = 0;
        for look in 1..=LOOKS {
            let until = u32::try_from(u64::from(self.executions) * u64::from(look) / u64::from(LOOKS));
            let until = until.unwrap_or(self.executions);
            stream::iter(waiting..until)
                .map(|_| start(engine, scale::WAITING))
                .buffer_unordered(STARTS_AT_ONCE)
                .try_for_each(async |_| Ok(()))
                .await?;
            waiting = until;
            looks.push(Look { waiting, resident_kib: resident_kib() });
        }
        let grown = looks.last().map_or(0, |look| look.resident_kib.saturating_sub(idle_kib));
        let bytes_per_execution = grown as f64 * 1024.0 / f64::from(self.executions);
        Ok(Figures { scenario: "idle", idle_kib, looks, bytes_per_execution })
    }
}

impl Figures {
    fn to_text(&self) -> String {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let mut lines = vec![
            "executions that wait for a worker, embedded store".to_owned(),
            format!("  {:>9} waiting   {:>8.1} MiB resident", 0, mib(self.idle_kib)),
        ];
        for Look { waiting, resident_kib } in &self.looks {
            lines.push(format!("  {waiting:>9} waiting   {:>8.1} MiB resident", mib(*resident_kib)));
        }
        lines.push(format!("  {:.0} bytes an execution", self.bytes_per_execution));
        lines.join("\n")
    }
}

/// Returns the memory that this process has now, as the kernel counts it.
fn resident_kib() -> u64 {
    kernel_kib("VmRSS:")
}
