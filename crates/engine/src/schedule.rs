//! What starts by the clock: schedules are added, paused, removed here, and their ticks are looked for.
//!
//! Every server looks; which one starts the run is decided by the append, which moves the schedule on.

use std::fmt;
use std::sync::Arc;

use noetl_core::id::ScheduleId;
use noetl_core::labels::Labels;
pub use noetl_core::schedule::{BadSchedule, Missed, NAME_BYTES_MAX, Overlap, Rhythm, Schedule, TimeZone};
use noetl_core::schedule::{Due, Tick};
use noetl_core::time::Timestamp;
use noetl_store::StoreError;
use noetl_store::catalog::ResourceKey;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::start::{StartError, StartRequest};

/// Schedules that one look reads at once.
const LOOK_MAX: u64 = 256;
/// Longest reason kept in `last_status`, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Schedules at most.
pub const SCHEDULES_MAX: usize = 10_000;

/// Looks up time zones by name. Without one only `UTC` is known.
#[derive(Clone)]
pub struct Zones(Arc<LookUp>);

type LookUp = dyn Fn(&str) -> Option<TimeZone> + Send + Sync;

impl Zones {
    /// Returns zones that `look_up` finds.
    pub fn new(look_up: impl Fn(&str) -> Option<TimeZone> + Send + Sync + 'static) -> Self {
        Zones(Arc::new(look_up))
    }

    fn get(&self, name: &str) -> Option<TimeZone> {
        (self.0)(name)
    }
}

impl Default for Zones {
    fn default() -> Self {
        Zones::new(|name| (name == "UTC").then_some(TimeZone::UTC))
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zones")
    }
}

/// What is to start by the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRequest {
    /// How people call it.
    pub name: Arc<str>,
    /// The playbook.
    pub path: Arc<str>,
    /// Its version; `None` = the newest at each tick.
    pub version: Option<i64>,
    /// The payload of each run.
    pub payload: Map<String, Value>,
    /// When.
    pub rhythm: Rhythm,
    /// The time zone that a cron pattern is read in.
    pub timezone: Arc<str>,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// What becomes of a tick while the run before goes on.
    pub overlap: Overlap,
    /// It waits for nothing yet.
    pub paused: bool,
    /// Identity of who asks.
    pub created_by: Option<String>,
}

/// Why nothing was done about a schedule.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// 400.
    #[error("name: expected one line of 1 to {NAME_BYTES_MAX} bytes")]
    BadName,
    /// 400.
    #[error(transparent)]
    Bad(#[from] BadSchedule),
    /// 400.
    #[error("timezone: `{0}` is not known: write it like Europe/Berlin or UTC")]
    UnknownZone(Arc<str>),
    /// 404.
    #[error("playbook {0} is not in the catalog")]
    UnknownPlaybook(String),
    /// 404.
    #[error("schedule `{0}` is not known")]
    Unknown(String),
    /// 409.
    #[error("there is a schedule `{0}` already: remove it first, or choose another name")]
    Exists(Arc<str>),
    /// 409.
    #[error("there are {SCHEDULES_MAX} schedules already (limits.schedules)")]
    TooMany,
    /// 503 or 507.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Adds a schedule.
    pub async fn add_schedule(&self, request: ScheduleRequest) -> Result<Schedule, ScheduleError> {
        let ScheduleRequest { name, path, version, payload, rhythm, timezone, missed, overlap, paused, created_by } =
            request;
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(ScheduleError::BadName);
        }
        rhythm.check()?;
        let zone = self.zone(&timezone)?;
        if self.entry_named(key(&path, version)).await?.is_none() {
            return Err(ScheduleError::UnknownPlaybook(key_name(&path, version)));
        }
        if self.store.schedules().await?.len() >= SCHEDULES_MAX {
            return Err(ScheduleError::TooMany);
        }
        // The store's clock itself: ticks are compared with it.
        let now = self.store.now().await?;
        let next = rhythm.next(&zone, now, now)?.ok_or_else(|| never(&rhythm))?;
        let schedule = Schedule {
            schedule_id: ScheduleId(self.next_id(now)),
            name,
            path,
            version,
            payload,
            rhythm,
            timezone,
            missed,
            overlap,
            enabled: !paused,
            next_run_at: (!paused).then_some(next),
            last_run_at: None,
            last_execution_id: None,
            last_status: None,
            created_by,
            created_at: now,
            updated_at: now,
        };
        if !self.store.add_schedule(schedule.clone()).await? {
            return Err(ScheduleError::Exists(schedule.name));
        }
        Ok(schedule)
    }

    /// Pauses a schedule: from now on it starts nothing. What it has started goes on.
    pub async fn pause_schedule(&self, name: &str) -> Result<Schedule, ScheduleError> {
        let schedule = self.schedule(name).await?;
        self.store.set_schedule(schedule.schedule_id, None).await?;
        self.schedule(name).await
    }

    /// Lets a paused schedule go on with its next tick. What came while it was paused was not missed.
    pub async fn resume_schedule(&self, name: &str) -> Result<Schedule, ScheduleError> {
        let schedule = self.schedule(name).await?;
        if schedule.enabled {
            return Ok(schedule);
        }
        let now = self.store.now().await?;
        let zone = self.zone(&schedule.timezone)?;
        let next = schedule.rhythm.next(&zone, schedule.created_at, now)?.ok_or_else(|| never(&schedule.rhythm))?;
        self.store.set_schedule(schedule.schedule_id, Some(next)).await?;
        self.schedule(name).await
    }

    /// Removes a schedule. What it has started goes on.
    pub async fn remove_schedule(&self, name: &str) -> Result<Schedule, ScheduleError> {
        let schedule = self.schedule(name).await?;
        if !self.store.remove_schedule(schedule.schedule_id).await? {
            return Err(ScheduleError::Unknown(name.to_owned()));
        }
        Ok(schedule)
    }

    async fn schedule(&self, name: &str) -> Result<Schedule, ScheduleError> {
        let all = self.store.schedules().await?;
        let found = all.into_iter().find(|schedule| &*schedule.name == name);
        found.ok_or_else(|| ScheduleError::Unknown(name.to_owned()))
    }

    fn zone(&self, name: &Arc<str>) -> Result<TimeZone, ScheduleError> {
        self.options.zones.get(name).ok_or_else(|| ScheduleError::UnknownZone(Arc::clone(name)))
    }

    /// Sees to the ticks that have come.
    async fn tick_all(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let (now, due) = self.store.due_schedules(after, LOOK_MAX).await?;
            for schedule in &due {
                self.tick(schedule, now).await?;
            }
            // A tick that waits for the run before stays due; it must not stand in the way of those behind it.
            let Some(last) = due.last().filter(|_| due.len() as u64 == LOOK_MAX) else { return Ok(()) };
            after = last.next_run_at.map(|at| (at, last.schedule_id));
        }
    }

    async fn tick(&self, schedule: &Schedule, now: Timestamp) -> Result<(), StoreError> {
        let Some(at) = schedule.next_run_at else { return Ok(()) };
        let name = &schedule.name;
        let following = match self.zone(&schedule.timezone) {
            Ok(zone) => schedule.following(&zone, at, now).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let tick = match following {
            Ok(next) => Tick { schedule_id: schedule.schedule_id, at, next },
            // It was readable when it was added. It waits for nothing any more, and says why.
            Err(why) => {
                let tick = Tick { schedule_id: schedule.schedule_id, at, next: None };
                return self.pass(schedule, tick, &format!("failed: {why}")).await;
            }
        };
        let before = match schedule.last_execution_id {
            Some(before) => self.store.head(before).await?.is_some_and(|head| head.is_active()),
            None => false,
        };
        let cancel = match schedule.due(at, now, before) {
            Due::Start { cancel } => cancel,
            Due::Wait => return Ok(()),
            Due::SkipMissed => return self.pass(schedule, tick, "skipped: no server was there in time").await,
            Due::SkipOverlap(before) => {
                return self.pass(schedule, tick, &format!("skipped: execution {before} goes on")).await;
            }
        };
        let request = StartRequest {
            target: key(&schedule.path, schedule.version),
            payload: schedule.payload.clone(),
            parent_execution_id: None,
            started_by: Some(format!("schedule:{name}")),
            strict: false,
            labels: Labels::new(),
            idempotency_key: None,
        };
        // The run before is displaced by the append that starts this one, so a crash in between loses nothing.
        match self.start_tick(&request, &tick, cancel).await {
            Ok(started) => {
                tracing::info!(schedule = %name, execution = %started.execution_id, "started by the clock");
                Ok(())
            }
            // Another server was faster.
            Err(StartError::TickTaken) => Ok(()),
            Err(StartError::Store(error)) => Err(error),
            Err(StartError::KeyHeld { message }) => self.pass(schedule, tick, &format!("skipped: {message}")).await,
            Err(
                error @ (StartError::UnknownPlaybook(_)
                | StartError::ParentUnknown(_)
                | StartError::ParentEnded(..)
                | StartError::TooDeep { .. }
                | StartError::Workload { .. }
                | StartError::Key { .. }
                | StartError::Labels(_)
                | StartError::Broken { .. }),
            ) => {
                tracing::warn!(schedule = %name, %error, "a tick started nothing");
                let why: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
                self.pass(schedule, tick, &format!("failed: {why}")).await
            }
        }
    }

    async fn pass(&self, schedule: &Schedule, tick: Tick, status: &str) -> Result<(), StoreError> {
        if self.store.pass_tick(tick, status).await? {
            tracing::info!(schedule = %schedule.name, status, "a tick passed");
        }
        Ok(())
    }
}

fn never(rhythm: &Rhythm) -> BadSchedule {
    match rhythm {
        Rhythm::Cron(pattern) => BadSchedule::Never(pattern.clone()),
        Rhythm::Every(seconds) => BadSchedule::Interval(*seconds),
    }
}

fn key(path: &Arc<str>, version: Option<i64>) -> ResourceKey {
    match version {
        Some(version) => ResourceKey::Version(Arc::clone(path), version),
        None => ResourceKey::Latest(Arc::clone(path)),
    }
}

fn key_name(path: &str, version: Option<i64>) -> String {
    version.map_or_else(|| path.to_owned(), |version| format!("{path} version {version}"))
}

/// Looks for ticks beside the sweep: a start may wait for the store, and nothing else should wait for it.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    looking: Option<JoinHandle<()>>,
}

impl Ticks {
    /// Looks, unless the last look goes on.
    pub(crate) fn look(&mut self, engine: &Arc<Engine>) {
        if self.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            return;
        }
        let engine = Arc::clone(engine);
        self.looking = Some(tokio::spawn(async move {
            if let Err(error) = engine.tick_all().await {
                engine.metrics.store_errors.add_one();
                tracing::warn!(%error, "schedules can not be seen to; trying again");
            }
        }));
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}
