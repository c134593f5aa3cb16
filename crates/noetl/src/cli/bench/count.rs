//! `noetl bench count`: so many operations of one kind and nothing else, for a profiler that counts instructions.
//!
//! Two runs that differ in nothing but that number differ by what the operations cost; `scripts/count-instructions`
//! makes them. So what has to be there before is the same in both, whatever is done with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::{Args, ValueEnum};
use noetl_engine::transport::SLOTS_MAX;
use noetl_engine::{CancelRequest, Engine};

use super::cancel::scale;
use super::cancel::stock::Stock;
use super::cancel::{cancel, order, start};
use super::chain::{self, PATH};
use super::target::Target;
use super::{On, measured_on};
use crate::cli::console;
use crate::cli::stop::{Exit, Stop};

/// Steps of the chains that are counted.
const STEPS: u32 = 10;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// A step that a worker runs, in a chain of ten.
    WorkerStep,
    /// A step that the server runs, in a chain of ten.
    ServerStep,
    /// A cancel of an execution that waits for a worker.
    Cancel,
    /// A member of a family that one cascade cancels.
    Member,
}

#[derive(Debug, Args)]
pub(super) struct Count {
    /// What is counted
    #[arg(long, value_enum, default_value_t = Of::WorkerStep)]
    of: Of,
    /// How many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    times: u32,
    /// Callers of chains
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Executions that are there to be cancelled; the same in runs that are compared
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    stock: u32,
}

impl Count {
    pub(super) async fn run(self) -> Result<Exit, Stop> {
        if self.of.takes_stock() && self.times > self.stock {
            return Err(Stop::usage("--times: only what --stock has made can be cancelled"));
        }
        let slots = (!self.of.takes_stock()).then_some(self.callers.min(SLOTS_MAX));
        let counted = measured_on("count", slots, async |engine| match self.of {
            Of::WorkerStep => self.chains(engine, On::Worker).await,
            Of::ServerStep => self.chains(engine, On::Server).await,
            Of::Cancel => self.cancels(engine).await,
            Of::Member => self.cascade(engine).await,
        });
        counted.await.map_err(|what| Stop::new(Exit::Defect, what))?;
        console::print(&format!("{} done\n", self.times))?;
        Ok(Exit::Done)
    }

    async fn chains(&self, engine: &Arc<Engine>, on: On) -> Result<(), String> {
        let target = Target::Engine(Arc::clone(engine));
        target.register(&chain::playbook(STEPS, on)).await?;
        let left = Arc::new(AtomicU32::new(self.times.div_ceil(STEPS)));
        let callers: Vec<_> = (0..self.callers)
            .map(|_| {
                let (target, left) = (target.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let one_less = |left: u32| left.checked_sub(1);
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                        target.run(PATH).await?;
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        for caller in callers {
            caller.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    async fn cancels(&self, engine: &Arc<Engine>) -> Result<(), String> {
        scale::prepare(engine).await?;
        let pattern = start(engine, scale::WAITING).await?;
        let waiting = Stock::of(engine, pattern).await?.write(engine, self.stock as usize, None).await?;
        for id in waiting.into_iter().take(self.times as usize) {
            cancel(engine, &order(id)).await?;
        }
        Ok(())
    }

    async fn cascade(&self, engine: &Arc<Engine>) -> Result<(), String> {
        scale::prepare(engine).await?;
        let (top, other) = (start(engine, scale::WAITING).await?, start(engine, scale::WAITING).await?);
        let mut stock = Stock::of(engine, top).await?;
        scale::family(engine, &mut stock, top, self.times as usize).await?;
        scale::family(engine, &mut stock, other, (self.stock - self.times) as usize).await?;
        let answer = engine.cancel(CancelRequest { cascade: true, ..order(top) }).await;
        let answer = answer.map_err(|error| error.to_string())?;
        scale::whole(engine, &answer, self.times as usize + 1).await
    }
}

impl Of {
    fn takes_stock(self) -> bool {
        match self {
            Of::WorkerStep | Of::ServerStep => false,
            Of::Cancel | Of::Member => true,
        }
    }
}
