//! `noetl bench size`: what a step costs, and how long people wait for a list, a status and a cancel, with the store as
//! large as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use noetl_store::ListQuery;
use serde::Serialize;
use serde_json::{Value, json};

use super::place::{Place, Serving};
use super::servers::processor_seconds;
use super::target::{Target, answered};
use super::{Percentiles, fill, servers, show};
use crate::cli::stop::{Exit, Stop};
use crate::cli::target::Globals;
use crate::client::Request;
use crate::render::document;

/// Executions on a page that is looked at.
const PAGE: u64 = 50;
/// Steps of one chain.
const STEPS: u32 = 10;
#[derive(Debug, Args)]
pub(super) struct Size {
    /// PostgreSQL database to look at, instead of the file in --data-dir
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Process of the database on this machine, whose processor time counts too, with that of its children
    #[arg(long, value_name = "PID")]
    database_pid: Option<u32>,
    /// Seconds of chains that count, after the warm-up; 0 leaves the line out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
    /// Seconds that do not count, before
    #[arg(long, default_value_t = 3)]
    warm_up: u32,
    /// Callers that each start a chain of ten worker steps, wait for its end, and start the next
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    callers: u32,
    /// Commands that the worker runs at once
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// How often each question is asked, and how many executions are cancelled
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    looks: u32,
    /// Print one line of JSON
    #[arg(short, long)]
    json: bool,
}

/// What was measured. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Figures {
    scenario: &'static str,
    store: String,
    /// Before anything was measured.
    executions: u64,
    steps: Option<Steps>,
    questions: Vec<Question>,
}

#[derive(Debug, Serialize)]
struct Steps {
    callers: u32,
    steps_per_second: f64,
    /// Of this process: caller, server and worker.
    cpu_us_per_step: f64,
    /// Of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    database_cpu_us_per_step: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Question {
    name: &'static str,
    ms: Percentiles,
}

impl Size {
    pub(super) async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        let defect = |what: String| Stop::new(Exit::Defect, what);
        let place = Place::of(globals, self.database_url.as_deref())?;
        let serving = place.serve(self.slots).await.map_err(defect)?;
        let measured = self.measure(&serving, place.shown()).await;
        serving.stop().await;
        let figures = measured.map_err(defect)?;
        show(self.json, &figures, || figures.to_text())?;
        Ok(Exit::Done)
    }

    async fn measure(&self, serving: &Serving, store: String) -> Result<Figures, String> {
        let all = ListQuery { limit: u64::MAX, ..ListQuery::default() };
        let executions = serving.store().count_executions(all).await.map_err(|error| error.to_string())?;
        let steps = if self.seconds > 0 { Some(self.steps(serving).await?) } else { None };
        let questions = self.questions(serving).await?;
        Ok(Figures { scenario: "size", store, executions, steps, questions })
    }

    /// Chains of worker steps, by callers that speak HTTP.
    async fn steps(&self, serving: &Serving) -> Result<Steps, String> {
        let target = Target::Server(Arc::clone(&serving.client));
        target.register(&servers::chain(STEPS)).await?;
        let (ended, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let callers: Vec<_> = (0..self.callers)
            .map(|_| {
                let (target, ended, over) = (target.clone(), Arc::clone(&ended), Arc::clone(&over));
                tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        target.run(servers::CHAIN).await?;
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(u64::from(self.warm_up))).await;
        let now = || {
            (
                Instant::now(),
                processor_seconds(std::process::id()),
                self.database_seconds(),
                ended.load(Ordering::Relaxed),
            )
        };
        let (began, worked, database, before) = now();
        tokio::time::sleep(Duration::from_secs(u64::from(self.seconds))).await;
        let (ends, work, databases, after) = now();
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.map_err(|error| error.to_string())??;
        }
        let steps = ((after - before) * u64::from(STEPS)).max(1) as f64;
        Ok(Steps {
            callers: self.callers,
            steps_per_second: (steps / ends.duration_since(began).as_secs_f64()).round(),
            cpu_us_per_step: (work - worked) * 1e6 / steps,
            database_cpu_us_per_step: databases.zip(database).map(|(after, before)| (after - before) * 1e6 / steps),
        })
    }

    fn database_seconds(&self) -> Option<f64> {
        self.database_pid.map(processor_seconds)
    }

    async fn questions(&self, serving: &Serving) -> Result<Vec<Question>, String> {
        let client = &*serving.client;
        let list = |filters: &'static [(&'static str, &'static str)]| {
            let request = client.get(&["executions"]).query("page_size", PAGE);
            filters.iter().fold(request, |request, (name, value)| request.query(name, value))
        };
        let mut questions = Vec::new();
        for (name, filters) in [
            ("list: first page", &[][..]),
            ("list: running first", &[("active_first", "true")][..]),
            ("list: running", &[("status", "RUNNING")]),
            ("list: failed", &[("status", "FAILED")]),
            ("list: failed, cancelled", &[("status", "FAILED,CANCELLED")]),
            ("list: a path", &[("path", fill::COMPLETED)]),
            ("list: a path, failed", &[("path", fill::FAILED), ("status", "FAILED")]),
            ("list: a path of none", &[("path", "bench/none")]),
            ("list: a pattern of many", &[("path", "bench/fill/*")]),
            ("list: a pattern of none", &[("path", "bench/none/*")]),
        ] {
            questions.push(self.ask(name, async |_| Ok(list(filters))).await?);
        }
        let ids = self.spread(serving).await?;
        let one = |number: usize| ids.get(number % ids.len().max(1)).map_or("1", String::as_str);
        let status = async |number| Ok(client.get(&["executions", one(number), "status"]));
        questions.push(self.ask("status", status).await?);
        questions.push(self.ask("detail", async |number| Ok(client.get(&["executions", one(number)]))).await?);
        let events = async |number| Ok(client.get(&["executions", one(number), "events"]));
        questions.push(self.ask("events", events).await?);
        let cancel = async |_| {
            let body = json!({ "path": fill::WAITING });
            let started = client.post(&["execute"]).body(body).send().await.map_err(|error| error.to_string())?;
            let id = document::text(&answered(&started)?, "execution_id").unwrap_or_default().to_owned();
            Ok(client.post(&["executions", &id, "cancel"]).body(json!({ "reason": "bench" })))
        };
        questions.push(self.ask("cancel", cancel).await?);
        Ok(questions)
    }

    /// Ids of executions from all over the store.
    async fn spread(&self, serving: &Serving) -> Result<Vec<String>, String> {
        let newest = ListQuery { limit: 1, ..ListQuery::default() };
        let store = serving.store();
        let newest = store.executions(newest).await.map_err(|error| error.to_string())?;
        let Some(newest) = newest.first().map(|head| head.execution_id) else { return Ok(Vec::new()) };
        let span = (28 * 86_400_000_i64) << noetl_core::id::TIME_SHIFT;
        let mut ids = Vec::new();
        for number in 0..i64::from(self.looks) {
            let before = noetl_core::id::ExecutionId(newest.0 - span / i64::from(self.looks) * number);
            let query = ListQuery { before: Some(before), limit: 1, ..ListQuery::default() };
            let found = store.execution_ids(query).await.map_err(|error| error.to_string())?;
            ids.extend(found.iter().map(ToString::to_string));
        }
        Ok(ids)
    }

    /// Asks again and again, one after the other; how the request comes about is not counted.
    async fn ask<'a>(
        &self,
        name: &'static str,
        make: impl AsyncFn(usize) -> Result<Request<'a>, String>,
    ) -> Result<Question, String> {
        let mut took = Vec::with_capacity(self.looks as usize);
        for number in 0..self.looks as usize {
            let request = make(number).await?;
            let began = Instant::now();
            let answer = request.send().await.map_err(|error| error.to_string())?;
            took.push(began.elapsed());
            let _body: Value = answered(&answer).map_err(|problem| format!("{name}: {problem}"))?;
        }
        took.sort_unstable();
        Ok(Question { name, ms: Percentiles::of(&took, 1) })
    }
}

impl Figures {
    fn to_text(&self) -> String {
        let mut lines = vec![format!("{} executions in {}", self.executions, self.store)];
        if let Some(steps) = &self.steps {
            let database = steps.database_cpu_us_per_step.map(|us| format!(" and {us:.1} µs of the database's"));
            lines.push(format!(
                "  {:<26} {:.0} a second by {} callers; {:.1} µs of processor time each{}",
                "worker steps",
                steps.steps_per_second,
                steps.callers,
                steps.cpu_us_per_step,
                database.unwrap_or_default()
            ));
        }
        for Question { name, ms } in &self.questions {
            lines.push(format!(
                "  {:<26} p50 {:>8.2}   p90 {:>8.2}   p99 {:>8.2}   max {:>8.2} ms",
                name, ms.p50, ms.p90, ms.p99, ms.max
            ));
        }
        lines.join("\n")
    }
}
