//! `noetl schedule`: what starts by the clock.

use std::time::Duration;

use serde_json::{Value, json};

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::workload::WorkloadArgs;
use super::{console, refusal};
use crate::render::{document, duration, schedules};

/// Start playbooks by the clock
#[derive(Debug, clap::Subcommand)]
pub enum Schedules {
    /// Add a schedule
    Add(Box<Add>),
    /// List the schedules, and what became of their last ticks
    List(List),
    /// Let a schedule start nothing until it is resumed; what it has started goes on
    Pause(Named),
    /// Let a paused schedule go on with its next tick
    Resume(Named),
    /// Remove a schedule; what it has started goes on
    Remove(Named),
}

/// `noetl schedule add`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("rhythm").required(true).args(["cron", "every"]))]
#[command(after_help = "Examples:
  noetl schedule add nightly reports/daily --cron '30 2 * * MON-FRI' --timezone Europe/Berlin
  noetl schedule add poll feeds/poll --every 5m --overlap cancel --set source=a

A server has to run: it is the one that starts what is due.")]
pub struct Add {
    /// How people call it
    #[arg(value_name = "NAME")]
    name: String,
    /// Catalog path of the playbook
    #[arg(value_name = "PATH")]
    path: String,
    /// Five fields: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
    /// Every so often, counted from now; whole seconds
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    every: Option<Duration>,
    /// Time zone that the pattern is read in
    #[arg(long, value_name = "ZONE", default_value = "UTC", visible_alias = "tz")]
    timezone: String,
    /// Catalog version [default: the newest at each tick]
    #[arg(short = 'V', long, value_name = "NUMBER")]
    playbook_version: Option<i64>,
    /// Ticks more than a minute late, because no server was there: once (one run for all), skip, all (a run for each,
    /// one after the other unless runs may overlap)
    #[arg(long, value_name = "WORD", default_value = "once")]
    missed: String,
    /// A tick while the run before goes on: skip, allow (both run), cancel (the one before)
    #[arg(long, value_name = "WORD", default_value = "skip")]
    overlap: String,
    /// Wait for nothing until `noetl schedule resume`
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

/// `noetl schedule list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

/// The commands on one schedule.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Which schedule
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl Schedules {
    /// Does what is asked.
    pub async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Schedules::Add(add) => add.run(globals).await,
            Schedules::List(list) => list.run(globals).await,
            Schedules::Pause(named) => named.run(globals, Verb::Pause).await,
            Schedules::Resume(named) => named.run(globals, Verb::Resume).await,
            Schedules::Remove(named) => named.run(globals, Verb::Remove).await,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Pause,
    Resume,
    Remove,
}

impl Add {
    async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let seconds = match self.every {
            Some(every) if every.subsec_nanos() > 0 => return Err(Stop::usage("--every: expected whole seconds")),
            every => every.map(|every| every.as_secs()),
        };
        let body = json!({
            "name": self.name,
            "path": self.path,
            "version": self.playbook_version,
            "cron": self.cron,
            "interval_seconds": seconds,
            "timezone": self.timezone,
            "payload": self.workload.read()?,
            "missed": self.missed,
            "overlap": self.overlap,
            "paused": self.paused,
        });
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.post(&["schedules"]).body(body.clone())).await?;
        let place = link.owns().then(|| link.place());
        link.close().await;
        let schedule = refusal::expect(&answer)?;
        if let Some(place) = place {
            console::note(&format!("no server runs on {place}: nothing starts until one does"));
        }
        show(&schedule, self.json, "added")
    }
}

impl List {
    async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.get(&["schedules"])).await?;
        link.close().await;
        let body = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&body, true)?;
            return Ok(Exit::Done);
        }
        let list = document::list(&body, "schedules");
        console::print(&schedules::list(list))?;
        if list.is_empty() {
            console::note("no schedules: add one with `noetl schedule add`");
        }
        Ok(Exit::Done)
    }
}

impl Named {
    async fn run(&self, globals: &Globals, verb: Verb) -> Result<Exit, Stop> {
        let name = self.name.as_str();
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link
            .ask(|client| match verb {
                Verb::Pause => client.post(&["schedules", name, "pause"]),
                Verb::Resume => client.post(&["schedules", name, "resume"]),
                Verb::Remove => client.delete(&["schedules", name]),
            })
            .await?;
        link.close().await;
        let done = match verb {
            Verb::Pause => "paused",
            Verb::Resume => "resumed",
            Verb::Remove => "removed",
        };
        show(&refusal::expect(&answer)?, self.json, done)
    }
}

fn show(schedule: &Value, json: bool, done: &str) -> Result<Exit, Stop> {
    if json {
        console::print_json(schedule, true)?;
    } else {
        console::print(&schedules::done(schedule, done))?;
    }
    Ok(Exit::Done)
}
