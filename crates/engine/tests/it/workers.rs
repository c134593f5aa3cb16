//! Workers that come, go, fall silent, and hear things twice.

use std::sync::Arc;

use noetl_core::event::{AttemptEnd, Event};
use noetl_core::head::Status;
use noetl_core::id::SessionId;
use noetl_core::playbook::CancelMode;
use noetl_core::work::{Assignment, Done, Report, Reported};
use noetl_engine::transport::{
    Attempt, Claim, ClaimError, Held, Hello, Orders, PROTOCOL, Poll, Reports, Welcome, WorkerError,
};
use noetl_engine::worker::Left;
use noetl_engine::{CancelRequest, Engine};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::world::{Server, World, cancel, chain, playbook};

/// A worker played by the test.
struct Hand {
    engine: Arc<Engine>,
    session_id: SessionId,
}

impl Hand {
    async fn come(server: &Server, name: &str, before: Option<SessionId>) -> Hand {
        let hello = Hello {
            worker_id: name.into(),
            session_id: before,
            slots: 4,
            pools: Vec::new(),
            protocol: PROTOCOL,
            version: String::new(),
            instance: None,
            meta: Value::Null,
        };
        let Welcome { session_id, .. } = server.engine.hello(hello).await.unwrap();
        Hand { engine: Arc::clone(&server.engine), session_id }
    }

    async fn poll(&self, held: &[&Assignment], free: u32, wait_ms: u64) -> Orders {
        let held = held.iter().map(|assignment| held_of(assignment)).collect();
        self.engine.poll(Poll { held, free, wait_ms, ..Poll::of(self.session_id) }).await.unwrap()
    }

    async fn report(&self, assignment: &Assignment, outcome: Reported) -> Orders {
        let report = Report {
            execution_id: assignment.execution_id,
            command_id: assignment.command_id,
            epoch: assignment.epoch,
            outcome,
        };
        let poll = Poll { free: 4, ..Poll::of(self.session_id) };
        self.engine.report(Reports { reports: vec![report], poll }).await.unwrap()
    }
}

fn held_of(assignment: &Assignment) -> Held {
    Held {
        execution_id: assignment.execution_id,
        command_id: assignment.command_id,
        epoch: assignment.epoch,
        started: true,
        running: None,
        cancel: None,
        grace_ms: None,
    }
}

fn attempt(assignment: &Assignment) -> Attempt {
    Attempt { command_id: assignment.command_id, epoch: assignment.epoch }
}

fn done(data: Value) -> Reported {
    Reported::Done(Box::new(Done {
        data,
        error: None,
        handled: false,
        ctx: Vec::new(),
        started_at: None,
        duration_ms: 1,
        stopped: None,
        worker_id: None,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_costs_a_lease_and_the_step_runs_again() {
    let world = World::new();
    let server = world.server();
    let lost = world.hire(&server, "lost", 1);
    server.register(&chain("chain", &[("a", "sleep 1000"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    lost.kill();
    world.hire(&server, "other", 1);
    let began = Instant::now();
    assert_eq!(server.ended(id).await, Status::Completed);
    let took = began.elapsed().as_millis();
    assert!((20_000..33_000).contains(&took), "{took} ms");
    assert_eq!(world.count(id, "command.lost").await, 1);
    assert_eq!(world.scripts.started(), ["a", "a", "b"]);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_may_start_only_once_fails_when_its_worker_is_lost() {
    let world = World::new();
    let server = world.server();
    let lost = world.hire(&server, "lost", 1);
    let yaml = playbook(
        "once",
        "workflow: [{step: a, spec: {at_most_once: true}, tool: {kind: python, code: 'sleep 1000'}}]\n",
    );
    server.register(&yaml).await;
    let id = server.start("once").await.execution_id;
    world.until_started("a", 1).await;
    lost.kill();
    world.hire(&server, "other", 1);
    assert_eq!(server.ended(id).await, Status::Failed);
    assert_eq!(world.head(id).await.error.unwrap()["kind"], "worker_lost");
    assert_eq!(world.scripts.count("a"), 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_not_renew_ends_its_tools_before_the_lease_ends() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 3600000")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    sleep(Duration::from_secs(15)).await;
    worker.cut(true);
    // At two thirds of the lease it stops what runs; nobody else has been given the command yet.
    sleep(Duration::from_secs(25)).await;
    worker.cut(false);
    world.until_started("a", 2).await;
    let names = world.names(id).await;
    assert!(names.contains(&"command.released") || names.contains(&"command.lost"), "{names:?}");
    server.cancel(CancelRequest { mode: Some(CancelMode::Interrupt), ..cancel(id) }).await.unwrap();
    server.quiesced(id).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_may_take_many_leases_while_nothing_else_happens() {
    let world = World::new();
    let server = world.server();
    world.hire_far(&server, "far", "one", Duration::from_millis(500));
    server.register(&chain("chain", &[("a", "sleep 300000")])).await;
    let id = server.start("chain").await.execution_id;
    assert_eq!(server.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.scripts.started(), ["a"]);
    assert_eq!(world.count(id, "command.released").await, 0);
    world.check([]).await;
}

/// The race: what a worker is stopping is cancelled with a shorter grace, and its poll, which says that it is stopping,
/// comes first.
#[tokio::test(start_paused = true)]
async fn a_shorter_grace_reaches_a_worker_that_obeys_a_longer_one() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let hand = Hand::come(&server, "hand", None).await;
    let given = hand.poll(&[], 1, 1_000).await.commands.remove(0);
    let obeys = async |grace_ms: Option<u64>| {
        let cancel = grace_ms.map(|_| CancelMode::Interrupt);
        let held = vec![Held { cancel, grace_ms, ..held_of(&given) }];
        let orders = server.engine.poll(Poll { held, wait_ms: 10, ..Poll::of(hand.session_id) }).await.unwrap();
        orders.cancels.iter().map(|order| order.grace_ms).collect::<Vec<_>>()
    };
    let interrupt =
        |grace_ms| CancelRequest { mode: Some(CancelMode::Interrupt), grace_ms: Some(grace_ms), ..cancel(id) };
    server.cancel(interrupt(10_000)).await.unwrap();
    assert_eq!(obeys(None).await, [10_000]);
    assert_eq!(obeys(Some(10_000)).await, [0; 0]);
    server.cancel(interrupt(500)).await.unwrap();
    assert_eq!(obeys(Some(10_000)).await, [500]);
    assert_eq!(obeys(Some(500)).await, [0; 0]);
    hand.report(&given, Reported::cancelled(true)).await;
    server.quiesced(id).await;
    world.check([]).await;
}

/// The race: two processes go by one name, by mistake.
#[tokio::test(start_paused = true)]
async fn of_two_workers_of_one_name_the_later_one_stays_and_the_earlier_one_leaves() {
    let world = World::new();
    let server = world.server();
    let lag = Duration::from_millis(1);
    let earlier = world.hire_far(&server, "same", "earlier", lag);
    server.register(&chain("chain", &[("a", "sleep 9000"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    world.hire_far(&server, "same", "later", lag);
    assert_eq!(earlier.left().await, Left::NameTaken);
    assert_eq!(server.ended(id).await, Status::Completed, "{}", world.story().await);
    assert_eq!(world.scripts.started(), ["a", "a", "b"]);
    assert_eq!(world.count(id, "command.lost").await, 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_given_up_comes_back_under_a_new_session_and_goes_on() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 5000"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    worker.cut(true);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.count(id, "command.lost").await, 1);
    worker.cut(false);
    assert_eq!(server.ended(id).await, Status::Completed, "{}", world.story().await);
    world.until("the lost attempt is off the books", || async { world.head(id).await.in_flight == 0 }).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_whose_worker_is_lost_quiesces_with_the_lease() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 3600000")])).await;
    let id = server.start("chain").await.execution_id;
    world.until_started("a", 1).await;
    worker.kill();
    let asked = Instant::now();
    server.cancel(cancel(id)).await.unwrap();
    server.quiesced(id).await;
    assert!(asked.elapsed().as_millis() <= 31_000, "{:?}", asked.elapsed());
    let log = world.log(id).await;
    let Event::ExecutionQuiesced { commands } = &log.last().unwrap().event else { panic!("{log:?}") };
    assert_eq!(commands[0].end, AttemptEnd::Unreachable);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_completes_what_it_can_and_hands_the_rest_back() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "old", 2);
    server.register(&chain("short", &[("short", "sleep 10000"), ("next", "ok")])).await;
    server.register(&chain("long", &[("long", "sleep 100000")])).await;
    let short = server.start("short").await.execution_id;
    let long = server.start("long").await.execution_id;
    world.until_started("long", 1).await;
    let asked = Instant::now();
    worker.leave().await;
    let took = asked.elapsed().as_millis();
    assert!((30_000..31_000).contains(&took), "{took} ms");
    assert_eq!(world.names(long).await.last(), Some(&"command.released"));
    assert_eq!(world.count(short, "command.completed").await, 1);
    assert_eq!(world.scripts.count("next"), 0, "it takes nothing new");
    assert!(world.store.sessions().await.unwrap().is_empty(), "it said goodbye");
    world.hire(&server, "new", 2);
    assert_eq!(server.ended(short).await, Status::Completed);
    assert_eq!(server.ended(long).await, Status::Completed);
    assert_eq!(world.count(long, "command.lost").await, 0);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_leaves_at_once() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "idle", 2);
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    worker.leave().await;
    assert!(asked.elapsed().as_millis() < 50, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_long_tool_is_reported_as_started_after_a_second() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    server.register(&chain("chain", &[("a", "sleep 5000")])).await;
    let id = server.start("chain").await.execution_id;
    let began = Instant::now();
    world.until_logged(id, "command.started").await;
    assert!((1_000..1_100).contains(&began.elapsed().as_millis()));
    server.ended(id).await;
    assert_eq!(world.count(id, "command.started").await, 1);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_named_is_given_again_with_the_same_epoch() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let hand = Hand::come(&server, "hand", None).await;
    let first = hand.poll(&[], 1, 1_000).await.commands;
    assert_eq!(first.len(), 1);
    let again = hand.poll(&[], 1, 1_000).await.commands;
    assert_eq!(again, first, "the answer may have been lost");
    let named = hand.poll(&[&first[0]], 0, 1_000).await;
    assert!(named.is_empty(), "{named:?}");
    assert_eq!(world.count(id, "command.claimed").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_report_is_answered_and_writes_nothing() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let hand = Hand::come(&server, "hand", None).await;
    let first = hand.poll(&[], 4, 1_000).await.commands.remove(0);
    let answer = hand.report(&first, done(json!(1))).await;
    assert_eq!(answer.settled, [attempt(&first)]);
    // Nobody hangs in a poll, but the report itself has room: the next command comes back with it.
    assert_eq!(answer.commands.len(), 1, "{answer:?}");
    let version = world.head(id).await.version;
    let repeated = hand.report(&first, done(json!("another"))).await;
    assert_eq!(repeated.settled, [attempt(&first)]);
    assert_eq!(world.head(id).await.version, version);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_report_is_evidence_and_changes_nothing() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok"), ("b", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let hand = Hand::come(&server, "hand", None).await;
    let first = hand.poll(&[], 1, 1_000).await.commands.remove(0);
    server.cancel(cancel(id)).await.unwrap();
    let pushed = hand.poll(&[&first], 0, 10_000).await;
    assert_eq!(pushed.cancels.len(), 1);
    assert_eq!((pushed.cancels[0].command_id, pushed.cancels[0].mode), (first.command_id, CancelMode::Finish));
    let answer = hand.report(&first, done(json!(1))).await;
    assert_eq!(answer.settled, [attempt(&first)]);
    assert!(answer.commands.is_empty());
    let head = world.head(id).await;
    assert_eq!((head.status, head.in_flight), (Status::Cancelled, 0));
    assert!(head.quiesced_at.is_some());
    let names = world.names(id).await;
    assert_eq!(names[names.len() - 2..], ["command.completed", "execution.quiesced"]);
    assert_eq!(hand.report(&first, done(json!(1))).await.settled, [attempt(&first)], "a repeat of it");
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_under_an_old_epoch_is_evidence_and_the_new_attempt_counts() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let id = server.start("chain").await.execution_id;
    let silent = Hand::come(&server, "silent", None).await;
    let old = silent.poll(&[], 1, 1_000).await.commands.remove(0);
    sleep(Duration::from_secs(40)).await;
    let other = Hand::come(&server, "other", None).await;
    let new = other.poll(&[], 1, 1_000).await.commands.remove(0);
    assert_eq!((new.command_id, new.epoch, new.losses), (old.command_id, old.epoch + 1, 1));
    let told = silent.poll(&[&old], 0, 1_000).await;
    assert_eq!(told.unknown, [attempt(&old)], "it is not its own any more");
    assert_eq!(silent.report(&old, done(json!("old"))).await.settled, [attempt(&old)]);
    assert_eq!(world.head(id).await.status, Status::Running);
    assert_eq!(world.head(id).await.in_flight, 1);
    other.report(&new, done(json!("new"))).await;
    assert_eq!(server.ended(id).await, Status::Completed);
    assert_eq!(world.result(&server.engine, id).await, json!("new"));
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_session_under_the_same_name_loses_what_the_old_one_held() {
    for known_gone in [false, true] {
        let world = World::new();
        let server = world.server();
        server.register(&chain("chain", &[("a", "ok")])).await;
        let id = server.start("chain").await.execution_id;
        let old = Hand::come(&server, "same", None).await;
        let lost = old.poll(&[], 1, 1_000).await.commands.remove(0);
        let new = Hand::come(&server, "same", known_gone.then_some(old.session_id)).await;
        let given = new.poll(&[], 1, 1_000).await.commands.remove(0);
        assert_eq!(given.epoch, lost.epoch + 1);
        let in_flight = if known_gone { 1 } else { 2 };
        assert_eq!(world.head(id).await.in_flight, in_flight, "{}", world.story().await);
        let refused = server.engine.poll(Poll::of(old.session_id)).await;
        assert!(matches!(refused, Err(WorkerError::UnknownSession(_))));
        world.check([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_simple_worker_is_offered_commands_and_claims_one() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    let first = server.start("chain").await.execution_id;
    let second = server.start("chain").await.execution_id;
    let third = server.start("chain").await.execution_id;
    let one = Hand::come(&server, "one", None).await;
    let two = Hand::come(&server, "two", None).await;
    let poll = Poll { offer: true, free: 1, wait_ms: 1_000, ..Poll::of(one.session_id) };
    let offers = server.engine.poll(poll).await.unwrap().offers;
    assert_eq!(offers.iter().map(|offer| offer.execution_id).collect::<Vec<_>>(), [first, second, third]);
    let wanted = |hand: &Hand, id| server.engine.claim(Claim { session_id: hand.session_id, id });
    let id = offers[0].command_id.0;
    let claimed = wanted(&one, id).await.unwrap();
    assert_eq!(claimed.execution_id, first);
    assert_eq!(wanted(&one, id).await.unwrap(), claimed, "again the same");
    let taken = wanted(&two, id).await.unwrap_err();
    assert_eq!(taken.to_string(), "Command already claimed by one");
    // By the event that issued it, as the founding contract says.
    let log = world.log(second).await;
    let issued = log.iter().find(|recorded| matches!(recorded.event, Event::CommandIssued(_))).unwrap();
    server.cancel(cancel(third)).await.unwrap();
    assert_eq!(wanted(&two, issued.event_id.0).await.unwrap().execution_id, second);
    let cancelled = wanted(&two, offers[2].command_id.0).await.unwrap_err();
    assert_eq!(cancelled.to_string(), "Execution has been cancelled");
    assert!(matches!(wanted(&two, 12345).await, Err(ClaimError::Unknown(12345))));
    one.report(&claimed, done(json!(1))).await;
    assert_eq!(server.ended(first).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_handed_out_beyond_the_free_slots() {
    let world = World::new();
    let server = world.server();
    server.register(&chain("chain", &[("a", "ok")])).await;
    for _ in 0..10 {
        server.start("chain").await;
    }
    let hand = Hand::come(&server, "hand", None).await;
    let mut held = Vec::new();
    for free in [2, 1, 0, 0] {
        let named: Vec<_> = held.iter().collect();
        let commands = hand.poll(&named, free, 300).await.commands;
        assert_eq!(commands.len(), free as usize);
        held.extend(commands);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_run_does_not_keep_a_slot_from_others() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 1);
    let yaml = playbook(
        "endless",
        "
workflow:
- step: a
  tool: {kind: python, code: 'sleep 10'}
  next: {arcs: [{step: b}]}
- step: b
  tool: {kind: python, code: 'sleep 10'}
  next: {arcs: [{step: a}]}
",
    );
    server.register(&yaml).await;
    server.register(&chain("short", &[("x", "ok"), ("y", "ok")])).await;
    let endless = server.start("endless").await.execution_id;
    world.until_started("b", 3).await;
    let began = Instant::now();
    let short = server.start("short").await.execution_id;
    assert_eq!(server.ended(short).await, Status::Completed);
    assert!(began.elapsed().as_millis() < 1_000, "{:?}", began.elapsed());
    server.cancel(cancel(endless)).await.unwrap();
    server.quiesced(endless).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_loop_does_not_starve_playbooks_with_one_step() {
    let world = World::new();
    let server = world.server();
    world.hire(&server, "one", 8);
    let body = "tool: {kind: python, code: 'sleep 10000'}";
    let looping = "loop: {in: '{{ 100000 }}', iterator: n, spec: {mode: parallel, max_in_flight: 1000}}";
    server.register(&playbook("long", &format!("workflow: [{{step: each, {looping}, {body}}}]\n"))).await;
    server.register(&chain("short", &[("a", "ok")])).await;
    let long = server.start("long").await.execution_id;
    world.until_started("each", 8).await;
    let mut short = Vec::new();
    for _ in 0..20 {
        short.push(server.start("short").await.execution_id);
    }
    let began = Instant::now();
    for id in &short {
        assert_eq!(server.ended(*id).await, Status::Completed);
    }
    // By age they would wait for a thousand iterations of ten seconds in eight slots.
    let took = began.elapsed().as_secs();
    assert!(took <= 20, "{took} s");
    // And the loop goes on: it has its share, and afterwards everything.
    let so_far = world.scripts.count("each");
    assert!(so_far > 8, "{so_far}");
    world.until_started("each", so_far + 80).await;
    server.cancel(CancelRequest { mode: Some(CancelMode::Interrupt), ..cancel(long) }).await.unwrap();
    server.quiesced(long).await;
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_is_claimed_first_and_only_by_its_pool() {
    let world = World::new();
    let server = world.server();
    let step = |path: &str, spec: &str| {
        playbook(path, &format!("workflow: [{{step: {path}, spec: {{{spec}}}, tool: {{kind: python, code: ok}}}}]\n"))
    };
    server.register(&step("low", "priority: -1")).await;
    server.register(&step("plain", "priority: 0")).await;
    server.register(&step("urgent", "priority: 5")).await;
    server.register(&step("elsewhere", "priority: 9, pool: gpu")).await;
    // The playbook says it for steps that do not.
    let all = |path: &str, spec: &str| {
        let step = format!("workflow: [{{step: {path}, spec: {{{spec}}}, tool: {{kind: python, code: ok}}}}]\n");
        playbook(path, &format!("executor: {{spec: {{priority: 7}}}}\n{step}"))
    };
    server.register(&all("first", "")).await;
    server.register(&all("last", "priority: -2")).await;
    let mut ids = Vec::new();
    for path in ["last", "low", "plain", "urgent", "plain", "first", "elsewhere"] {
        ids.push(server.start(path).await.execution_id);
    }
    world.hire(&server, "one", 1);
    for id in &ids[..6] {
        assert_eq!(server.ended(*id).await, Status::Completed);
    }
    assert_eq!(world.scripts.started(), ["first", "urgent", "plain", "plain", "low", "last"]);
    assert_eq!(world.head(ids[6]).await.status, Status::Running);
    world.hire_for(&server, "two", "gpu");
    assert_eq!(server.ended(ids[6]).await, Status::Completed);
    world.check([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_and_a_server_of_different_versions_find_a_common_protocol() {
    let world = World::new();
    let server = world.server();
    let hello = |protocol| Hello {
        worker_id: "newer".into(),
        session_id: None,
        slots: 1,
        pools: Vec::new(),
        protocol,
        version: String::new(),
        instance: None,
        meta: Value::Null,
    };
    let welcome = server.engine.hello(hello(PROTOCOL + 1)).await.unwrap();
    assert_eq!(welcome.protocol, PROTOCOL);
    let poll = Poll::of(welcome.session_id);
    server.engine.poll(poll.clone()).await.unwrap();
    // Begun on a newer server: this one says so, and does not say that the session is over.
    let refused = server.engine.poll(Poll { protocol: PROTOCOL + 1, ..poll }).await.unwrap_err();
    assert!(matches!(&refused, WorkerError::TooNew(why) if why.contains("ask a newer server")), "{refused}");
    assert!(matches!(server.engine.hello(hello(0)).await, Err(WorkerError::Bad(_))));
}
