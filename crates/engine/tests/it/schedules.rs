//! What starts by the clock, with several servers looking at it.

use std::sync::Arc;

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::schedule::{Missed, Overlap, Rhythm, Schedule};
use noetl_engine::schedule::{ScheduleError, ScheduleRequest};
use serde_json::{Map, json};
use tokio::time::{Duration, sleep};

use crate::world::{Server, World, chain};

fn every(seconds: u64) -> ScheduleRequest {
    ScheduleRequest {
        name: "tick".into(),
        path: "job".into(),
        version: None,
        payload: json!({"by": "clock"}).as_object().cloned().unwrap(),
        rhythm: Rhythm::Every(seconds),
        timezone: "UTC".into(),
        missed: Missed::Once,
        overlap: Overlap::Allow,
        paused: false,
        created_by: Some("test".into()),
    }
}

async fn add(server: &Server, request: ScheduleRequest) -> Schedule {
    server.engine.add_schedule(request).await.unwrap()
}

async fn the_only(world: &World) -> Schedule {
    let mut all = world.store.schedules().await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

async fn runs(world: &World) -> Vec<(ExecutionId, Status)> {
    world.heads().await.into_iter().rev().map(|head| (head.execution_id, head.status)).collect()
}

#[tokio::test(start_paused = true)]
async fn every_tick_starts_one_run_however_many_servers_look() {
    let world = World::new();
    let servers = [world.server(), world.server(), world.server()];
    world.hire(&servers[0], "one", 4);
    servers[0].register(&chain("job", &[("a", "input")])).await;
    add(&servers[1], every(60)).await;
    sleep(Duration::from_secs(601)).await;
    let runs = runs(&world).await;
    assert_eq!(runs.len(), 10, "{}", world.story().await);
    assert!(runs.iter().all(|(_, status)| *status == Status::Completed), "{runs:?}");
    let schedule = the_only(&world).await;
    assert_eq!(schedule.last_execution_id, runs.last().map(|(id, _)| *id));
    assert_eq!(schedule.last_status.as_deref(), Some("started"));
    let starts: Vec<i64> = world.heads().await.iter().rev().map(|head| head.started_at.0).collect();
    for (n, started) in starts.iter().enumerate() {
        let late = started - (schedule.created_at.0 + 60_000 * (n as i64 + 1));
        assert!((0..1_000).contains(&late), "{late} ms late");
    }
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn ticks_that_nobody_was_there_for_are_run_once_skipped_or_all_run() {
    for (missed, expected, status) in [
        (Missed::Once, 1, "started"),
        (Missed::Skip, 0, "skipped: no server was there in time"),
        (Missed::All, 10, "started"),
    ] {
        let world = World::new();
        let server = world.server();
        server.register(&chain("job", &[("a", "ok")])).await;
        add(&server, ScheduleRequest { missed, ..every(60) }).await;
        server.stop().await;
        sleep(Duration::from_secs(630)).await;
        let later = world.server();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(runs(&world).await.len(), expected, "{missed}");
        let schedule = the_only(&world).await;
        assert_eq!(schedule.last_status.as_deref(), Some(status), "{missed}");
        assert_eq!(schedule.next_run_at.unwrap().since_ms(schedule.created_at), 660_000, "{missed}");
        later.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_during_the_run_before_does_what_the_schedule_says() {
    for (overlap, started, before) in [
        (Overlap::Allow, 2, Status::Running),
        (Overlap::Skip, 1, Status::Running),
        (Overlap::Cancel, 2, Status::Cancelled),
    ] {
        let world = World::new();
        let server = world.server();
        world.hire(&server, "one", 4);
        server.register(&chain("job", &[("a", "sleep 1000000")])).await;
        add(&server, ScheduleRequest { overlap, ..every(60) }).await;
        sleep(Duration::from_secs(125)).await;
        let runs = runs(&world).await;
        assert_eq!((runs.len(), runs[0].1), (started, before), "{overlap}: {runs:?}");
        let status = the_only(&world).await.last_status.unwrap();
        match overlap {
            Overlap::Skip => assert_eq!(status, format!("skipped: execution {} goes on", runs[0].0)),
            Overlap::Allow | Overlap::Cancel => assert_eq!(status, "started"),
        }
        if overlap == Overlap::Cancel {
            let head = server.quiesced(runs[0].0).await;
            assert_eq!(head.cancel.unwrap().cancelled_by, "concurrency");
        }
        server.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn missed_ticks_that_all_run_neither_skip_nor_displace_each_other() {
    for overlap in [Overlap::Skip, Overlap::Cancel] {
        let world = World::new();
        let server = world.server();
        server.register(&chain("job", &[("a", "sleep 3000")])).await;
        add(&server, ScheduleRequest { missed: Missed::All, overlap, ..every(600) }).await;
        server.stop().await;
        sleep(Duration::from_secs(6_300)).await;
        let later = world.server();
        world.hire(&later, "one", 4);
        // Ten runs of three seconds, one after the other, before the next tick comes.
        sleep(Duration::from_secs(32)).await;
        let mut heads = world.heads().await;
        heads.sort_by_key(|head| head.started_at);
        assert_eq!(heads.len(), 10, "{overlap}: {}", world.story().await);
        for pair in heads.windows(2) {
            assert_eq!(pair[0].status, Status::Completed, "{overlap}");
            assert!(pair[0].ended_at.unwrap() <= pair[1].started_at, "{overlap}");
        }
        assert_eq!(the_only(&world).await.last_status.as_deref(), Some("started"), "{overlap}");
        later.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_schedule_starts_nothing_until_it_is_resumed() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("job", &[("a", "ok")])).await;
    add(&server, ScheduleRequest { paused: true, missed: Missed::All, ..every(60) }).await;
    sleep(Duration::from_secs(200)).await;
    assert!(runs(&world).await.is_empty());
    server.engine.resume_schedule("tick").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(runs(&world).await.len(), 1);
    assert!(!server.engine.pause_schedule("tick").await.unwrap().enabled);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(runs(&world).await.len(), 1);
    server.engine.remove_schedule("tick").await.unwrap();
    assert!(matches!(server.engine.remove_schedule("tick").await, Err(ScheduleError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_can_not_start_says_why_and_the_next_one_tries_again() {
    let world = World::new();
    let server = world.server();
    let broken = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: job, path: job}\n\
                  workload: {n: '{{ 1 // 0 }}'}\nworkflow: [{step: a, tool: {kind: noop}}]\n";
    server.register(broken).await;
    add(&server, every(60)).await;
    sleep(Duration::from_secs(61)).await;
    let status = the_only(&world).await.last_status.unwrap();
    assert!(status.starts_with("failed: workload.n: "), "{status}");
    server.register(&chain("job", &[("a", "ok")])).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(runs(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_a_schedule_is_refused() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("job", &[("a", "ok")])).await;
    let refused = |request| {
        let engine = Arc::clone(&server.engine);
        async move { engine.add_schedule(request).await.unwrap_err() }
    };
    let name = |name: &str| ScheduleRequest { name: name.into(), ..every(60) };
    assert!(matches!(refused(name("")).await, ScheduleError::BadName));
    assert!(matches!(refused(name("a\nb")).await, ScheduleError::BadName));
    assert!(matches!(refused(every(0)).await, ScheduleError::Bad(_)));
    let zone = ScheduleRequest { timezone: "Mars/Olympus".into(), ..every(60) };
    assert!(matches!(refused(zone).await, ScheduleError::UnknownZone(_)));
    let path = ScheduleRequest { path: "nothing".into(), ..every(60) };
    assert!(matches!(refused(path).await, ScheduleError::UnknownPlaybook(_)));
    let version = ScheduleRequest { version: Some(9), ..every(60) };
    assert!(matches!(refused(version).await, ScheduleError::UnknownPlaybook(_)));
    let never = ScheduleRequest { rhythm: Rhythm::Cron("0 0 30 2 *".into()), ..every(60) };
    assert!(matches!(refused(never).await, ScheduleError::Bad(_)));
    add(&server, ScheduleRequest { payload: Map::new(), ..every(60) }).await;
    assert!(matches!(refused(every(60)).await, ScheduleError::Exists(_)));
}
