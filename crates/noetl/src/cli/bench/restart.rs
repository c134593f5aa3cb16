//! `noetl bench restart`: a long cycle whose engine is stopped and started on the way. What has been forgotten is read
//! again; the rounds after that should cost what those before did.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use noetl_core::head::{Head, Status};
use noetl_core::id::ExecutionId;
use noetl_engine::{Engine, WaitFor};
use serde::Serialize;

use super::grow::{self, RUN_MS_MAX, WARM_UP, What};
use super::{On, cpu_seconds, directory, measured_in, show};
use crate::cli::stop::{Exit, Stop};

/// Between two looks at how far the cycle has come.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(super) struct Restart {
    /// Rounds of the cycle; the engine is stopped after nine tenths of them
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rounds: u32,
    /// Where each round runs
    #[arg(long, value_enum, default_value_t = On::Worker)]
    on: On,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    on: &'static str,
    rounds: u32,
    /// Rounds that had begun when the engine stopped.
    stopped_after: u64,
    /// The tenth of the rounds before the stop.
    before: Stretch,
    /// From the start of the new engine until a round has begun.
    first_round_ms: f64,
    /// All rounds after the stop, with the time until the first.
    after: Stretch,
}

/// Rounds in a row.
#[derive(Debug, Clone, Copy, Serialize)]
struct Stretch {
    rounds: u64,
    microseconds_per_round: f64,
    cpu_microseconds_per_round: f64,
}

/// A point on the way.
#[derive(Debug, Clone, Copy)]
struct Mark {
    rounds: u64,
    at: Instant,
    cpu: f64,
}

impl Mark {
    fn at(rounds: u64) -> Self {
        Mark { rounds, at: Instant::now(), cpu: cpu_seconds() }
    }

    fn until(self, later: Mark) -> Stretch {
        let rounds = later.rounds.saturating_sub(self.rounds);
        let per_round = |seconds: f64| seconds * 1e6 / (rounds.max(1) as f64);
        Stretch {
            rounds,
            microseconds_per_round: per_round(later.at.duration_since(self.at).as_secs_f64()),
            cpu_microseconds_per_round: per_round(later.cpu - self.cpu),
        }
    }
}

impl Restart {
    pub(super) async fn run(self) -> Result<Exit, Stop> {
        let directory = directory("restart");
        let measured = self.drive(&directory).await;
        // Whatever happened, nothing is left behind.
        std::fs::remove_dir_all(&directory).ok();
        let figures = measured.map_err(|what| Stop::new(Exit::Defect, what))?;
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn drive(&self, directory: &Path) -> Result<Figures, String> {
        let all = u64::from(self.rounds);
        let slots = Some(4);
        let (id, before) = measured_in(directory, slots, async |engine| {
            let playbook = grow::playbook(What::Cycle, self.on, 1);
            engine.register(&playbook, None).await.map_err(|error| format!("{error:?}"))?;
            grow::once(engine, WARM_UP.min(self.rounds)).await?;
            let id = grow::start(engine, self.rounds).await?;
            let from = reached(engine, id, all * 8 / 10).await?;
            let to = reached(engine, id, all * 9 / 10).await?;
            Ok((id, from.until(to)))
        })
        .await?;
        // Opening the store and beginning to drive is part of what a restart costs.
        let (began, worked) = (Instant::now(), cpu_seconds());
        measured_in(directory, slots, async |engine| {
            let stopped_after = rounds(&head(engine, id).await?);
            let first = reached(engine, id, stopped_after + 1).await?;
            let ended = engine.wait(id, WaitFor::Terminal, RUN_MS_MAX).await.map_err(|error| error.to_string())?;
            match ended.map(|head| head.status) {
                Some(Status::Completed) => {}
                other => return Err(format!("execution {id} is {other:?}, not completed")),
            }
            let from = Mark { rounds: stopped_after, at: began, cpu: worked };
            Ok(Figures {
                scenario: "restart",
                on: self.on.word(),
                rounds: self.rounds,
                stopped_after,
                before,
                first_round_ms: first.at.duration_since(began).as_secs_f64() * 1e3,
                after: from.until(Mark::at(all)),
            })
        })
        .await
    }
}

async fn head(engine: &Engine, id: ExecutionId) -> Result<Head, String> {
    let head = engine.store().head(id).await.map_err(|error| error.to_string())?;
    head.ok_or_else(|| format!("execution {id} is gone"))
}

/// Returns how many rounds have begun; the step before the cycle is one that the server runs.
fn rounds(head: &Head) -> u64 {
    head.steps_entered.saturating_sub(1)
}

/// Waits until so many rounds have begun.
async fn reached(engine: &Engine, id: ExecutionId, wanted: u64) -> Result<Mark, String> {
    loop {
        let head = head(engine, id).await?;
        if rounds(&head) >= wanted {
            return Ok(Mark::at(rounds(&head)));
        }
        if !head.is_active() {
            return Err(format!("execution {id} has ended after {} rounds", rounds(&head)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Figures {
    fn to_text(&self) -> String {
        let line = |what: &str, of: &Stretch| {
            format!(
                "  {what:<24} {:>6} rounds   {:>8.1} µs a round, {:>6.1} of them processor",
                of.rounds, of.microseconds_per_round, of.cpu_microseconds_per_round
            )
        };
        [
            format!("cycle of {} rounds, on the {}, embedded store, synchronous=FULL", self.rounds, self.on),
            line("before the engine stopped", &self.before),
            format!(
                "  stopped after {} rounds; the next one began {:.1} ms after the start",
                self.stopped_after, self.first_round_ms
            ),
            line("after the start", &self.after),
        ]
        .join("\n")
    }
}
