//! The state machine of one command and its execution, walked edge by edge: every state, every input.
//!
//! `docs/reference/state-machine.md` is what this test walked; `NOETL_UPDATE=1` writes it anew. An edge that is listed
//! there and is not walked, or is walked and not listed, fails. After each step every promise is checked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use noetl_core::control::cancel::{self, Answer, BY_TIMEOUT, Request};
use noetl_core::control::stop;
use noetl_core::control::{lease, pause, settle};
use noetl_core::event::{Event, StopCause, row};
use noetl_core::execution::Input;
use noetl_core::head::{Status, StopWish};
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::result::Bound;
use noetl_core::tool::{ErrorKind, Stopped, ToolError, ToolOutcome};
use noetl_core::work::{Awaited, ChildOutcome, Done, Pause, Report, Reported};
use serde_json::{Value, json};

use crate::desk::Desk;

/// The session of the desk's worker.
const SESSION: SessionId = SessionId(7);
/// Long enough for every timer.
const AGES_MS: u64 = 3_600_000;

/// A step with a command, and one after it.
const PLAIN: &str = "
    workflow:
      - {step: first, tool: {kind: python, code: x}, next: {arcs: [{step: second}]}}
      - {step: second, tool: {kind: noop}}
";
/// The same, but a lost attempt is not tried again.
const ONCE: &str = "
    workflow:
      - {step: first, spec: {at_most_once: true}, tool: {kind: python, code: x}, next: {arcs: [{step: second}]}}
      - {step: second, tool: {kind: noop}}
";
/// A step that waits for a child.
const PARENT: &str = "
    workflow:
      - {step: first, tool: {kind: playbook, path: test/p1}, next: {arcs: [{step: second}]}}
      - {step: second, tool: {kind: noop}}
";

/// Where the walk begins.
struct State {
    name: &'static str,
    playbook: &'static str,
    reach: fn(&mut Desk, ExecutionId),
}

/// What is said there.
struct Said {
    name: &'static str,
    /// Only a worker that was given an attempt can say it.
    needs_attempt: bool,
    say: fn(&mut Desk, ExecutionId),
}

const STATES: &[State] = &[
    State { name: "running; its command is pending", playbook: PLAIN, reach: |_, _| {} },
    State { name: "running; a worker holds its command", playbook: PLAIN, reach: claim },
    State {
        name: "running; its tool is known to have started",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            let at = desk.now;
            report(desk, id, Reported::Started { at });
        },
    },
    State {
        name: "running; its command waits for a time",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            report(desk, id, delay());
        },
    },
    State { name: "running; its command waits for a child", playbook: PARENT, reach: |_, _| {} },
    State {
        name: "running; an attempt is lost, the next one is pending",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            lose(desk, id);
        },
    },
    State {
        name: "running; the only attempt is lost (`at_most_once`)",
        playbook: ONCE,
        reach: |desk, id| {
            claim(desk, id);
            lose(desk, id);
        },
    },
    State {
        name: "running; a worker holds its command and is told to stop it",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            stop(desk, id);
        },
    },
    State { name: "running; its command was stopped before anybody had it", playbook: PLAIN, reach: stop },
    State { name: "paused; its command is set aside", playbook: PLAIN, reach: |desk, id| pause(desk, id, true) },
    State {
        name: "paused; a worker holds its command",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            pause(desk, id, true);
        },
    },
    State {
        name: "paused; its command waits for a time",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            report(desk, id, delay());
            pause(desk, id, true);
        },
    },
    State {
        name: "cancelled (`finish`); a worker holds its command",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            ask(desk, id, &Request { idempotency_key: Some("first".into()), ..request(id) });
        },
    },
    State {
        name: "cancelled (`interrupt`); a worker holds its command",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            let mode = Some(CancelMode::Interrupt);
            ask(desk, id, &Request { mode, idempotency_key: Some("first".into()), ..request(id) });
        },
    },
    State {
        name: "failed by its time limit; a worker holds its command",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            ask(desk, id, &Request { cancelled_by: BY_TIMEOUT.into(), ..request(id) });
        },
    },
    State {
        name: "cancelled and quiesced",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            ask(desk, id, &Request { idempotency_key: Some("first".into()), ..request(id) });
            report(desk, id, done(None));
        },
    },
    State {
        name: "completed",
        playbook: PLAIN,
        reach: |desk, id| {
            claim(desk, id);
            report(desk, id, done(None));
        },
    },
];

const INPUTS: &[Said] = &[
    Said { name: "continue", needs_attempt: false, say: |desk, id| workflow(desk, id, Input::Continue) },
    Said {
        name: "report: the tool has started",
        needs_attempt: true,
        say: |desk, id| {
            let at = desk.now;
            report(desk, id, Reported::Started { at });
        },
    },
    Said { name: "report: done", needs_attempt: true, say: |desk, id| report(desk, id, done(None)) },
    Said {
        name: "report: failed",
        needs_attempt: true,
        say: |desk, id| report(desk, id, done(Some(ToolError::soft(ErrorKind::Code, "EXIT_1", "it failed")))),
    },
    Said { name: "report: waits for a time", needs_attempt: true, say: |desk, id| report(desk, id, delay()) },
    Said {
        name: "report: never started",
        needs_attempt: true,
        say: |desk, id| {
            report(desk, id, Reported::cancelled(false));
        },
    },
    Said {
        name: "report: killed",
        needs_attempt: true,
        say: |desk, id| {
            let stopped = Some(Stopped::Killed);
            report(
                desk,
                id,
                Reported::Cancelled { started: true, stopped, pids: Vec::new(), remote_may_have_acted: false },
            );
        },
    },
    Said { name: "report: handed back", needs_attempt: true, say: |desk, id| report(desk, id, Reported::Released) },
    Said {
        name: "report: done, under an epoch that never was",
        needs_attempt: false,
        say: |desk, id| {
            let (command_id, _) = attempt(desk, id);
            tell(desk, id, &Report { execution_id: id, command_id, epoch: 9, outcome: done(None) });
        },
    },
    Said {
        name: "the timer of the command",
        needs_attempt: false,
        say: |desk, id| {
            desk.now = desk.now.plus_ms(AGES_MS);
            let (command_id, _) = attempt(desk, id);
            workflow(desk, id, Input::Timer(command_id));
        },
    },
    Said {
        name: "the child has completed",
        needs_attempt: false,
        say: |desk, id| child_ended(desk, id, Status::Completed, None),
    },
    Said {
        name: "the child was cancelled",
        needs_attempt: false,
        say: |desk, id| {
            child_ended(desk, id, Status::Cancelled, Some(json!({"kind": "cancelled", "code": "CANCELLED"})));
        },
    },
    Said { name: "cancel", needs_attempt: false, say: |desk, id| ask(desk, id, &request(id)) },
    Said {
        name: "cancel, `mode: interrupt`",
        needs_attempt: false,
        say: |desk, id| ask(desk, id, &Request { mode: Some(CancelMode::Interrupt), ..request(id) }),
    },
    Said {
        name: "cancel, with the key of the first one",
        needs_attempt: false,
        say: |desk, id| ask(desk, id, &Request { idempotency_key: Some("first".into()), ..request(id) }),
    },
    Said {
        name: "the time limit of the run",
        needs_attempt: false,
        say: |desk, id| ask(desk, id, &Request { cancelled_by: BY_TIMEOUT.into(), ..request(id) }),
    },
    Said { name: "stop the step", needs_attempt: false, say: stop },
    Said { name: "pause", needs_attempt: false, say: |desk, id| pause(desk, id, true) },
    Said { name: "resume", needs_attempt: false, say: |desk, id| pause(desk, id, false) },
    Said { name: "the lease of the worker runs out", needs_attempt: false, say: lose },
    Said {
        name: "the lost attempt is forgotten",
        needs_attempt: false,
        say: |desk, id| {
            desk.control(id, |view, now, ids| lease::forget(view, SESSION, now, ids));
        },
    },
    Said {
        name: "the lost worker is back without it",
        needs_attempt: false,
        say: |desk, id| {
            desk.control(id, |view, now, ids| lease::confirm_gone(view, SESSION, now, ids));
        },
    },
];

fn claim(desk: &mut Desk, _id: ExecutionId) {
    let row = desk.pending().unwrap();
    desk.claim(&row);
}

/// Returns the attempt that was given to a worker last, else the one that waits to be.
fn attempt(desk: &Desk, id: ExecutionId) -> (CommandId, u32) {
    let told = |event: &Event| match event {
        Event::CommandClaimed { command_id, epoch, .. } => Some((*command_id, *epoch)),
        _ => None,
    };
    let events = || desk.members[&id].events.iter().map(|recorded| &recorded.event);
    let issued = |event: &Event| match event {
        Event::CommandIssued(issued) => Some((issued.command_id, 1)),
        _ => None,
    };
    events().filter_map(told).next_back().or_else(|| events().find_map(issued)).unwrap()
}

fn was_claimed(desk: &Desk, id: ExecutionId) -> bool {
    desk.members[&id].events.iter().any(|recorded| matches!(recorded.event, Event::CommandClaimed { .. }))
}

fn report(desk: &mut Desk, id: ExecutionId, outcome: Reported) {
    let (command_id, epoch) = attempt(desk, id);
    tell(desk, id, &Report { execution_id: id, command_id, epoch, outcome });
}

/// As a server does it: the workflow decides, and what it does not take is settled under the lock.
fn tell(desk: &mut Desk, id: ExecutionId, report: &Report) {
    let input = Input::Report(Box::new(report.clone()), "desk".into());
    if desk.decide(id, &[input])[0].is_err() {
        desk.control(id, |view, now, ids| settle::decide(view, report, "desk", now, ids));
    }
}

fn workflow(desk: &mut Desk, id: ExecutionId, input: Input) {
    drop(desk.decide(id, &[input]));
}

fn done(error: Option<ToolError>) -> Reported {
    Reported::Done(Box::new(Done {
        data: json!({}),
        error,
        handled: false,
        ctx: Vec::new(),
        started_at: None,
        duration_ms: 1,
        stopped: None,
        worker_id: None,
    }))
}

fn delay() -> Reported {
    Reported::Suspended(Box::new(Pause {
        wait: Awaited::Delay { ms: 60_000 },
        continuation: json!({}),
        ctx: Vec::new(),
    }))
}

fn child_ended(desk: &mut Desk, id: ExecutionId, status: Status, error: Option<Value>) {
    let (command_id, _) = attempt(desk, id);
    let child = desk.members.keys().copied().find(|member| *member != id).unwrap_or(ExecutionId(1));
    let outcome = ChildOutcome { execution_id: child, status, result: Bound::null(), error: error.map(Into::into) };
    workflow(desk, id, Input::ChildEnded(command_id, Box::new(outcome)));
}

fn lose(desk: &mut Desk, id: ExecutionId) {
    desk.control(id, |view, now, ids| lease::lose(view, SESSION, now, ids));
}

fn stop(desk: &mut Desk, id: ExecutionId) {
    let (command_id, _) = attempt(desk, id);
    let wish = StopWish { cause: StopCause::Cancelled, reason: "enough".to_owned(), by: "api".to_owned() };
    desk.control(id, |view, now, ids| match stop::decide(view, command_id, Some(&wish), now, ids) {
        stop::Answer::Withdrawn(append) | stop::Answer::Ordered { append, .. } | stop::Answer::Over(append) => {
            Some(*append)
        }
        stop::Answer::Ended => None,
    });
}

fn request(id: ExecutionId) -> Request {
    Request {
        requested_execution_id: id,
        job_id: None,
        reason: None,
        cancelled_by: "api".into(),
        requested_by: None,
        remote: None,
        cascade: false,
        mode: None,
        default_mode: CancelMode::Finish,
        grace_ms: None,
        idempotency_key: None,
    }
}

/// Pauses it, or lets it go on.
fn pause(desk: &mut Desk, id: ExecutionId, paused: bool) {
    let request = pause::Request {
        requested_execution_id: id,
        reason: None,
        by: "api".into(),
        requested_by: None,
        cascade: false,
    };
    desk.control(id, |view, now, ids| {
        let answer = match paused {
            true => pause::pause(view, &request, now, ids),
            false => pause::resume(view, &request, now, ids),
        };
        match answer {
            pause::Answer::Changed { append, .. } => Some(*append),
            pause::Answer::Already { .. } | pause::Answer::Ended => None,
        }
    });
}

fn ask(desk: &mut Desk, id: ExecutionId, request: &Request) {
    desk.control(id, |view, now, ids| match cancel::decide(view, request, now, ids) {
        Answer::Cancelled { append, .. } | Answer::Escalated { append, .. } => Some(*append),
        Answer::Spared(_) | Answer::AlreadyEnded | Answer::Repeated { .. } => None,
    });
}

/// Says where an execution stands.
fn standing(desk: &Desk, id: ExecutionId) -> String {
    let head = &desk.members[&id].head;
    let mut words = head.status.as_str().to_owned();
    if head.pause.is_some() {
        words.push_str(", paused");
    }
    if head.in_flight > 0 {
        write!(words, ", {} in flight", head.in_flight).unwrap();
    }
    for row in &desk.members[&id].commands {
        write!(words, ", attempt {} {}", row.epoch, row.state.as_str()).unwrap();
    }
    if head.quiesced_at.is_some() && head.cancel.is_some() {
        words.push_str(", quiesced");
    }
    words
}

const ABOVE: &str = "\
# The state machine

What each input means in each state of an execution with one command. This page is written by the test that walks every
edge of it (`crates/core/tests/it/state_machine.rs`), through the real decisions, and checks every promise after each
step: an edge that is here and is not walked, or the other way round, fails `./test`. `NOETL_UPDATE=1` writes it anew.

Claims are not here: they are compare-and-set in the store, which lets one land only while the execution is active and
the attempt pending (`crates/store/src/landing.rs`). What happens when several things meet is walked by the explorer in
every order, see [proof](../proof.md).
";

#[expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]
#[test]
fn every_edge_is_walked_and_listed() {
    let mut page = ABOVE.to_owned();
    let mut written = BTreeSet::new();
    for state in STATES {
        let mut rows = String::new();
        let mut nothing = Vec::new();
        let mut stands = String::new();
        for said in INPUTS {
            let mut desk = Desk::new(&[state.playbook, PLAIN], |_| ToolOutcome::ok(json!({})));
            let id = desk.start(0, json!({}));
            (state.reach)(&mut desk, id);
            desk.check();
            stands = standing(&desk, id);
            if said.needs_attempt && !was_claimed(&desk, id) {
                continue;
            }
            let before = desk.members[&id].events.len();
            (said.say)(&mut desk, id);
            desk.check();
            let new: Vec<_> =
                desk.members[&id].events[before..].iter().map(|recorded| row::wire_name(&recorded.event)).collect();
            if new.is_empty() {
                nothing.push(said.name);
                continue;
            }
            written.extend(new.iter().copied());
            let names: Vec<_> = new.iter().map(|name| format!("`{name}`")).collect();
            writeln!(rows, "| {} | {} | {} |", said.name, names.join(", "), standing(&desk, id)).unwrap();
        }
        write!(page, "\n## {}{}\n\n`{stands}`\n", state.name[..1].to_uppercase(), &state.name[1..]).unwrap();
        if !rows.is_empty() {
            write!(page, "\n| input | what is written | how it stands then |\n| --- | --- | --- |\n{rows}").unwrap();
        }
        writeln!(page, "\nNothing is written for: {}.", nothing.join("; ")).unwrap();
    }
    // A table in which nothing happens would be walked as easily.
    for name in ["command.completed", "command.lost", "command.forgotten", "execution.cancel_escalated"] {
        assert!(written.contains(name), "no edge writes {name}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/state-machine.md");
    if std::env::var_os("NOETL_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/reference/state-machine.md is old: run the tests once with NOETL_UPDATE=1");
}
