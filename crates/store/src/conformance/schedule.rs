//! Ticks of the clock.

use std::sync::Arc;

use noetl_core::append::{DueChange, RefusedBy, Verdict};
use noetl_core::id::ScheduleId;
use noetl_core::schedule::{Missed, Overlap, Rhythm, Schedule, Tick};
use noetl_core::time::Timestamp;
use serde_json::json;

use super::Stage;
use crate::StoreError;

const HOUR_MS: u64 = 3_600_000;

fn schedule(stage: &Stage, name: &str) -> Schedule {
    let now = stage.clock.now();
    Schedule {
        schedule_id: ScheduleId(stage.id()),
        name: name.into(),
        path: "flows/fetch".into(),
        version: Some(3),
        payload: json!({"n": 1, "s": "ü"}).as_object().cloned().unwrap_or_default(),
        rhythm: Rhythm::Cron("0 * * * *".into()),
        timezone: "Europe/Berlin".into(),
        missed: Missed::All,
        overlap: Overlap::Cancel,
        enabled: true,
        next_run_at: Some(now.plus_ms(HOUR_MS)),
        last_run_at: None,
        last_execution_id: None,
        last_status: None,
        created_by: Some("ann".into()),
        created_at: now,
        updated_at: now,
    }
}

async fn named(stage: &Stage, name: &str) -> Schedule {
    let all = stage.store.schedules().await.unwrap();
    all.into_iter().find(|schedule| &*schedule.name == name).unwrap()
}

fn tick(schedule: &Schedule, next: Option<Timestamp>) -> Tick {
    Tick { schedule_id: schedule.schedule_id, at: schedule.next_run_at.unwrap(), next }
}

/// Every field, in the order of names; a name is given once.
pub async fn schedules_survive_every_field_and_share_no_name(stage: Stage) {
    let (b, mut a) = (schedule(&stage, "b"), schedule(&stage, "a"));
    (a.version, a.rhythm, a.created_by) = (None, Rhythm::Every(90), None);
    (a.missed, a.overlap, a.enabled, a.next_run_at) = (Missed::Skip, Overlap::Allow, false, None);
    for schedule in [&b, &a] {
        assert!(stage.store.add_schedule(schedule.clone()).await.unwrap());
    }
    assert!(!stage.store.add_schedule(schedule(&stage, "b")).await.unwrap());
    assert_eq!(stage.store.schedules().await.unwrap(), [a.clone(), b]);
    assert!(stage.store.remove_schedule(a.schedule_id).await.unwrap());
    assert!(!stage.store.remove_schedule(a.schedule_id).await.unwrap());
    assert_eq!(stage.store.schedules().await.unwrap().len(), 1);
    assert!(stage.store.add_schedule(schedule(&stage, "a")).await.unwrap());
}

/// However many servers find it due: the append that starts the run moves the schedule on.
pub async fn a_tick_starts_once(stage: Stage) {
    let hourly = schedule(&stage, "hourly");
    stage.store.add_schedule(hourly.clone()).await.unwrap();
    assert!(stage.store.due_schedules(None, 9).await.unwrap().1.is_empty());
    stage.clock.advance_ms(HOUR_MS);
    assert_eq!(stage.store.due_schedules(None, 9).await.unwrap(), (stage.clock.now(), vec![hourly.clone()]));
    let place = hourly.next_run_at.map(|at| (at, hourly.schedule_id));
    assert!(stage.store.due_schedules(place, 9).await.unwrap().1.is_empty());
    let next = Some(stage.clock.now().plus_ms(HOUR_MS));
    let mut births = Vec::new();
    for _ in 0..3 {
        let mut birth = stage.script().birth(None);
        birth.due.push(DueChange::Tick(tick(&hourly, next)));
        births.push(birth);
    }
    let verdicts = stage.store.append(births.clone()).await;
    let landed = verdicts.iter().filter(|verdict| matches!(verdict, Ok(Verdict::Landed { .. }))).count();
    let taken = Ok(Verdict::Refused(RefusedBy::TickTaken));
    assert_eq!((landed, verdicts.iter().filter(|verdict| **verdict == taken).count()), (1, 2), "{verdicts:?}");
    let first = births.iter().zip(&verdicts).find(|(_, verdict)| **verdict != taken).unwrap().0.execution_id;
    let moved = named(&stage, "hourly").await;
    assert_eq!((moved.next_run_at, moved.last_run_at), (next, hourly.next_run_at));
    assert_eq!((moved.last_execution_id, moved.last_status.as_deref()), (Some(first), Some("started")));
    assert!(stage.store.due_schedules(None, 9).await.unwrap().1.is_empty());
    // Nothing is left of those that were refused.
    for birth in &births {
        let there = stage.store.head(birth.execution_id).await.unwrap().is_some();
        assert_eq!(there, birth.execution_id == first);
    }
    // Sent again after a lost answer, it is told that it exists.
    let again = births.into_iter().find(|birth| birth.execution_id == first).unwrap();
    assert_eq!(stage.write(again).await, Ok(Verdict::Refused(RefusedBy::Exists)));
}

/// Appends of their own, all at once, as from servers that know nothing of each other: one of them has each tick.
pub async fn ticks_start_once_however_many_race_for_them(stage: Stage) {
    const RACERS: usize = 6;
    let mut hourly = schedule(&stage, "hourly");
    stage.store.add_schedule(hourly.clone()).await.unwrap();
    for _ in 0..5 {
        let next = hourly.next_run_at.map(|at| at.plus_ms(HOUR_MS));
        let racing: Vec<_> = (0..RACERS)
            .map(|_| {
                let mut birth = stage.script().birth(None);
                birth.due.push(DueChange::Tick(tick(&hourly, next)));
                let (store, id) = (Arc::clone(&stage.store), birth.execution_id);
                tokio::spawn(async move { (id, store.append(vec![birth]).await.remove(0)) })
            })
            .collect();
        let mut landed = Vec::new();
        for one in racing {
            match one.await.unwrap() {
                (id, Ok(Verdict::Landed { .. })) => landed.push(id),
                (id, verdict) => {
                    assert_eq!(verdict, Ok(Verdict::Refused(RefusedBy::TickTaken)));
                    assert_eq!(stage.store.head(id).await.unwrap(), None);
                }
            }
        }
        assert_eq!(landed.len(), 1);
        hourly = named(&stage, "hourly").await;
        assert_eq!((hourly.next_run_at, hourly.last_execution_id), (next, landed.pop()));
    }
}

/// A tick that starts nothing moves the schedule on all the same, once.
pub async fn a_tick_passes_once(stage: Stage) {
    let hourly = schedule(&stage, "hourly");
    stage.store.add_schedule(hourly.clone()).await.unwrap();
    let passed = tick(&hourly, None);
    assert!(stage.store.pass_tick(passed.clone(), "skipped: why").await.unwrap());
    assert!(!stage.store.pass_tick(passed, "skipped: again").await.unwrap());
    let moved = named(&stage, "hourly").await;
    assert_eq!((moved.next_run_at, moved.last_status.as_deref()), (None, Some("skipped: why")));
    assert_eq!(moved.last_execution_id, None);
}

/// Page by page, by their ticks and then by their numbers, each once.
pub async fn due_schedules_come_in_pages(stage: Stage) {
    let mut expected = Vec::new();
    for (name, hours) in [("a", 2), ("b", 1), ("c", 2), ("d", 1), ("e", 3)] {
        let mut schedule = schedule(&stage, name);
        schedule.next_run_at = Some(stage.clock.now().plus_ms(hours * HOUR_MS));
        stage.store.add_schedule(schedule.clone()).await.unwrap();
        expected.push((schedule.next_run_at.unwrap(), schedule.schedule_id));
    }
    expected.sort_unstable();
    expected.pop();
    stage.clock.advance_ms(2 * HOUR_MS);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (_, page) = stage.store.due_schedules(after, 1).await.unwrap();
        let Some(one) = page.first() else { break };
        after = one.next_run_at.map(|at| (at, one.schedule_id));
        seen.extend(after);
    }
    assert_eq!(seen, expected);
}

/// A paused schedule waits for nothing, whoever has seen its tick already.
pub async fn a_paused_schedule_starts_nothing(stage: Stage) {
    let hourly = schedule(&stage, "hourly");
    stage.store.add_schedule(hourly.clone()).await.unwrap();
    stage.clock.advance_ms(HOUR_MS);
    let seen = tick(&hourly, None);
    assert!(stage.store.set_schedule(hourly.schedule_id, None).await.unwrap());
    assert!(stage.store.due_schedules(None, 9).await.unwrap().1.is_empty());
    let mut birth = stage.script().birth(None);
    birth.due.push(DueChange::Tick(seen.clone()));
    assert_eq!(stage.write(birth).await, Ok(Verdict::Refused(RefusedBy::TickTaken)));
    assert!(!stage.store.pass_tick(seen, "skipped").await.unwrap());
    assert!(!named(&stage, "hourly").await.enabled);
    let next = stage.clock.now();
    assert!(stage.store.set_schedule(hourly.schedule_id, Some(next)).await.unwrap());
    assert_eq!(stage.store.due_schedules(None, 9).await.unwrap().1.len(), 1);
    assert!(!stage.store.set_schedule(ScheduleId(77), Some(next)).await.unwrap());
}

/// The clock starts executions; it does nothing to those that exist.
pub async fn only_a_start_is_for_a_tick(stage: Stage) {
    let hourly = schedule(&stage, "hourly");
    stage.store.add_schedule(hourly.clone()).await.unwrap();
    let id = stage.start().await;
    let mut enter = stage.script().enter(id, 1);
    enter.due.push(DueChange::Tick(tick(&hourly, None)));
    assert!(matches!(stage.write(enter).await, Err(StoreError::BadData(_))));
    assert_eq!(named(&stage, "hourly").await, hourly);
}
