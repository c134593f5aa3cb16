//! Measures how many steps a second a store takes: chains of 10 steps, appends of 7 events, in batches.
//!
//! `cargo run --release -p noetl-store --example insert_rate -- [steps] [batch] [callers]`
//!
//! A SQLite file in `NOETL_BENCH_DIR`, or the empty database that `NOETL_DATABASE_URL` names.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use noetl_core::append::{Append, CommandChange, Guard, HeadChange, NewEvent, Verdict};
use noetl_core::event::{Call, CommandDone, Event, Exit, Initialized, Issued, StepExited};
use noetl_core::head::{CommandRow, CommandState, ENGINE_VERSION, Head, Holder, Status};
use noetl_core::id::{CatalogId, CommandId, EventId, ExecutionId, SessionId};
use noetl_core::labels::Labels;
use noetl_core::result::Bound;
use noetl_core::time::Timestamp;
use noetl_store::Store;
use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;

/// Steps of a chain.
const STEPS: usize = 10;
const AT: Timestamp = Timestamp(1_768_900_080_123);

struct Ids(AtomicI64);

impl Ids {
    fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Run {
    execution_id: ExecutionId,
    decided: u64,
    command: CommandId,
}

fn command(run: ExecutionId, command_id: CommandId) -> CommandChange {
    CommandChange::Insert(Box::new(CommandRow {
        execution_id: run,
        command_id,
        epoch: 1,
        root_execution_id: run,
        state: CommandState::Claimed,
        step: "fetch".into(),
        visit: 1,
        iteration: None,
        kind: "http".into(),
        pool: "default".into(),
        priority: 0,
        enters: true,
        at_most_once: false,
        losses: 0,
        losses_max: 3,
        stopping: None,
        grace_ms: None,
        wait: None,
        since: AT,
        running: None,
        holder: Some(Holder { session_id: SessionId(1), worker_id: "worker-1".into(), claimed_at: AT, started: false }),
        work: Arc::new(json!({"tasks": [{"kind": "http", "url": "http://localhost:8080/page", "input": {"n": 3}}]})),
    }))
}

fn start(ids: &Ids) -> (Run, Append) {
    let execution_id = ExecutionId(ids.next());
    let command_id = CommandId(ids.next());
    let head = Head {
        execution_id,
        catalog_id: CatalogId(1),
        path: "bench/chain".into(),
        playbook_version: 1,
        parent_execution_id: None,
        parent_command_id: None,
        root_execution_id: execution_id,
        depth: 0,
        status: Status::Running,
        version: 0,
        decided: 0,
        in_flight: 0,
        runnable: false,
        engine: ENGINE_VERSION,
        cancel_mode: None,
        cancel_grace_ms: None,
        shield: None,
        started_at: AT,
        updated_at: AT,
        ended_at: None,
        quiesced_at: None,
        current_step: None,
        steps_entered: 0,
        commands_issued: 0,
        failed_steps: vec![],
        error: None,
        cancel: None,
        pause: None,
        cleanup: None,
        cleanup_of: None,
        concurrency_key: None,
        labels: Labels::new(),
    };
    let event = Event::PlaybookInitialized(Box::new(Initialized {
        catalog_id: CatalogId(1),
        path: "bench/chain".into(),
        version: 1,
        entry: "fetch".into(),
        parent: None,
        root_execution_id: execution_id,
        depth: 0,
        workload: Arc::new(json!({"n": 3})),
        cancel_mode: None,
        cancel_grace_ms: None,
        shield: None,
        concurrency_key: None,
        labels: Labels::new(),
        started_by: None,
        strict: false,
        rerun: None,
        cleanup: None,
    }));
    let append = Append {
        execution_id,
        guard: Guard::New(Box::new(head)),
        at: AT,
        events: vec![NewEvent { event_id: EventId(ids.next()), event }],
        head: HeadChange::default(),
        commands: vec![command(execution_id, command_id)],
        due: vec![],
        children: vec![],
        results: vec![],
        snapshot: None,
    };
    (Run { execution_id, decided: 1, command: command_id }, append)
}

fn step(run: &mut Run, ids: &Ids) -> Append {
    let step: Arc<str> = "fetch".into();
    let worker: Arc<str> = "worker-1".into();
    let (old, new) = (run.command, CommandId(ids.next()));
    let events = [
        Event::CommandStarted {
            command_id: old,
            epoch: 1,
            step: step.clone(),
            worker_id: worker.clone(),
            started_at: AT,
            late: false,
        },
        Event::CallDone(Box::new(Call {
            command_id: Some(old),
            epoch: 1,
            step: step.clone(),
            visit: 1,
            iteration: None,
            result: Bound::inline(json!({"status": 200, "body": {"items": [1, 2, 3], "next": "page-4"}})),
            error: None,
            hard: false,
            handled: false,
            ctx: vec![],
        })),
        Event::CommandDone(Box::new(CommandDone {
            late_result: None,
            command_id: old,
            epoch: 1,
            step: step.clone(),
            visit: 1,
            iteration: None,
            error: None,
            ctx: vec![],
            started_at: Some(AT),
            worker_id: Some(worker.clone()),
            duration_ms: Some(12),
            late: false,
        })),
        Event::StepExit(Box::new(StepExited {
            step: step.clone(),
            visit: 1,
            result: None,
            error: None,
            fatal: false,
            handled: false,
            exit: Exit { ctx: vec![], routed: vec!["fetch".into()] },
        })),
        Event::StepEnter { step: step.clone(), visit: 1, kind: "http".into() },
        Event::CommandIssued(Box::new(Issued {
            command_id: new,
            step: step.clone(),
            visit: 1,
            iteration: None,
            kind: "http".into(),
            input: Arc::new(json!({"n": 3})),
        })),
        Event::CommandClaimed { command_id: new, epoch: 1, step, session_id: SessionId(1), worker_id: worker },
    ];
    let append = Append {
        execution_id: run.execution_id,
        guard: Guard::At(run.decided),
        at: AT,
        events: events.map(|event| NewEvent { event_id: EventId(ids.next()), event }).into(),
        head: HeadChange {
            current_step: Some("fetch".into()),
            steps_entered: 1,
            commands_issued: 1,
            ..HeadChange::default()
        },
        commands: vec![
            CommandChange::Delete { command_id: old, epoch: 1, expect: CommandState::Claimed },
            command(run.execution_id, new),
        ],
        due: vec![],
        children: vec![],
        results: vec![],
        snapshot: None,
    };
    run.decided += 7;
    run.command = new;
    append
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let steps = arguments.next().unwrap_or(200_000);
    let batch = arguments.next().unwrap_or(64);
    let callers = arguments.next().unwrap_or(2);
    let folder = tempfile::tempdir_in(std::env::var("NOETL_BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    let store: Arc<dyn Store> = match std::env::var("NOETL_DATABASE_URL") {
        Ok(url) => Arc::new(Postgres::open(PostgresOptions::new(url.parse().unwrap())).await.unwrap()),
        Err(_) => Arc::new(SqliteStore::open(SqliteOptions::new(folder.path().join("noetl.db"))).unwrap()),
    };
    let ids = Arc::new(Ids(AtomicI64::new(1 << 50)));
    let began = Instant::now();
    let rounds = steps / batch / callers;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (store, ids) = (Arc::clone(&store), Arc::clone(&ids));
            tokio::spawn(async move {
                let (mut runs, births): (Vec<Run>, Vec<Append>) = (0..batch).map(|_| start(&ids)).unzip();
                store.append(births).await.into_iter().for_each(|verdict| assert!(verdict.is_ok(), "{verdict:?}"));
                let mut slowest = 0;
                for round in 0..rounds {
                    if round % STEPS == STEPS - 1 {
                        let births: Vec<Append>;
                        (runs, births) = (0..batch).map(|_| start(&ids)).unzip();
                        store
                            .append(births)
                            .await
                            .into_iter()
                            .for_each(|verdict| assert!(verdict.is_ok(), "{verdict:?}"));
                    }
                    let appends = runs.iter_mut().map(|run| step(run, &ids)).collect();
                    let sent = Instant::now();
                    for verdict in store.append(appends).await {
                        assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
                    }
                    slowest = slowest.max(sent.elapsed().as_micros());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = 0;
    for task in tasks {
        slowest = slowest.max(task.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    let done = (rounds * batch * callers) as f64;
    let bytes = store.size().await.unwrap().iter().filter_map(|size| size.bytes).sum::<u64>() as f64;
    println!(
        "{done} steps in batches of {batch} from {callers} callers: {:.0} steps/s, {:.0} events/s, {:.0} bytes/step, \
         slowest batch {slowest} us",
        done / seconds,
        done * 7.0 / seconds,
        bytes / done
    );
    store.close().await.unwrap();
}
