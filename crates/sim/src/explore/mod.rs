//! The exhaustive explorer: every order in which the things of a small world can happen.
//!
//! One server, two workers with a slot each, a few commands and a child; crashes, cancels, silent workers, answers that
//! get lost, each so many times. The decisions are the core's, what lands is said by the stores' own rules; between them
//! a shell does one indivisible thing at a time. Every state that can be reached is looked at once, breadth first, so
//! the first counterexample is a shortest one.
//!
//! Two states are the same when their logs, rows, obligations, the server's memory and the workers' hands are: the log
//! is part of the state, so no history that matters is lost by visiting a state once.

mod mutant;
mod shell;
mod state;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use noetl_core::id::ExecutionId;
use noetl_core::properties::{self, Property, Violation};
use noetl_core::trace;

pub use self::mutant::Mutant;
use self::shell::{Shell, name};
pub use self::state::Left;
use self::state::{Action, Cause, State};

/// A small world.
#[derive(Debug, Clone, Copy)]
pub struct SmallWorld {
    /// Its playbooks; the first one is started.
    pub playbooks: &'static [&'static str],
    /// Misfortunes and wishes.
    pub left: Left,
    /// The mistake that its shell makes.
    pub mutant: Option<Mutant>,
    /// States looked at, at most.
    pub states_max: usize,
}

/// What an exploration came to.
#[derive(Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps from one to another, or to one that was known.
    pub steps: usize,
    /// States in which nothing is left to happen.
    pub at_rest: usize,
    /// Nothing was left out.
    pub complete: bool,
    /// The first promise that was found broken, and the shortest way there.
    pub counterexample: Option<Counterexample>,
}

/// A way to a broken promise.
#[derive(Debug)]
pub struct Counterexample {
    /// What is broken.
    pub broken: Vec<String>,
    /// The promises, by number.
    pub properties: BTreeSet<Property>,
    /// One line per thing that happened, and below it one per event.
    pub trace: Vec<String>,
}

/// Looks at every state that `world` can come to.
pub fn explore(world: &SmallWorld) -> Result<Explored, String> {
    let shell = Shell::new(world.playbooks, world.mutant)?;
    let first = shell.begin(world.left)?;
    let mut known: BTreeMap<u64, Option<(u64, Action)>> = BTreeMap::from([(first.digest(), None)]);
    let mut front: VecDeque<(u64, State)> = VecDeque::from([(first.digest(), first)]);
    let mut explored = Explored { states: 1, steps: 0, at_rest: 0, complete: true, counterexample: None };
    while let Some((digest, state)) = front.pop_front() {
        let (progress, mishaps) = state.actions(world.mutant == Some(Mutant::ListBeforeFence));
        if progress.is_empty() {
            explored.at_rest += 1;
            let stuck = not_at_rest(&state);
            if !stuck.is_empty() {
                explored.counterexample = Some(counterexample(&shell, world, &known, digest, None, &stuck)?);
                return Ok(explored);
            }
        }
        for action in progress.into_iter().chain(mishaps) {
            explored.steps += 1;
            let next = match shell.apply(&state, action) {
                Ok(next) => next,
                // A store refuses outright what is malformed: that is a mistake of the decision.
                Err(refused) => {
                    let broken =
                        vec![violation(&state, Property::WholeLog, format!("the store refuses it: {refused}"))];
                    let way = Some(action);
                    explored.counterexample = Some(counterexample(&shell, world, &known, digest, way, &broken)?);
                    return Ok(explored);
                }
            };
            let reached = next.digest();
            if known.contains_key(&reached) {
                continue;
            }
            let broken = broken(&state, &next);
            if !broken.is_empty() {
                let way = Some(action);
                explored.counterexample = Some(counterexample(&shell, world, &known, digest, way, &broken)?);
                return Ok(explored);
            }
            if explored.states >= world.states_max {
                explored.complete = false;
                continue;
            }
            explored.states += 1;
            known.insert(reached, Some((digest, action)));
            front.push_back((reached, next));
        }
    }
    Ok(explored)
}

/// Checks what the step has changed, and the edges of the family.
fn broken(before: &State, after: &State) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (id, seat) in &after.tables.seats {
        let same = before.tables.seats.get(id).is_some_and(|known| Arc::ptr_eq(known, seat));
        if !same {
            broken.extend(properties::check(&seat.member));
        }
    }
    let heads = after.tables.seats.iter().map(|(id, seat)| (*id, &seat.member.head)).collect();
    let through = after.tables.cascades.iter().filter(|cascade| !cascade.is_open());
    let cascades = through.map(|cascade| cascade.requested).collect();
    broken.extend(properties::check_edges(&heads, &cascades));
    broken
}

/// Where nothing is left to happen, everything has come to its end: C7.
fn not_at_rest(state: &State) -> Vec<Violation> {
    let mut stuck = Vec::new();
    for seat in state.tables.seats.values() {
        let head = &seat.member.head;
        let ended = !head.is_active() && head.in_flight == 0;
        let proved = head.cancel.is_none() || head.quiesced_at.is_some();
        if !(ended && proved) {
            let (id, status, held) = (head.execution_id, head.status.as_str(), head.in_flight);
            let found = format!("nothing is left to happen, and it is {status} with {held} in flight");
            stuck.push(Violation { property: Property::NeverStuck, execution_id: id, found, versions: Vec::new() });
        }
    }
    if !state.tables.due.is_empty() {
        stuck.push(violation(state, Property::NeverStuck, "nothing is left to happen, but obligations are".into()));
    }
    stuck
}

fn violation(state: &State, property: Property, found: String) -> Violation {
    let execution_id = state.tables.seats.keys().next().copied().unwrap_or(ExecutionId(0));
    Violation { property, execution_id, found, versions: Vec::new() }
}

/// Walks the way again and writes down what happens on it.
fn counterexample(
    shell: &Shell,
    world: &SmallWorld,
    known: &BTreeMap<u64, Option<(u64, Action)>>,
    end: u64,
    last: Option<Action>,
    broken: &[Violation],
) -> Result<Counterexample, String> {
    let mut way: Vec<Action> = last.into_iter().collect();
    let mut at = end;
    while let Some(Some((before, action))) = known.get(&at) {
        way.push(*action);
        at = *before;
    }
    way.reverse();
    let mut state = shell.begin(world.left)?;
    let mut lines = vec!["   0. an execution is started".to_owned()];
    lines.extend(new_events(None, &state));
    for (number, action) in (1..).zip(way) {
        lines.push(format!("{number:>4}. {}", words(&state, action)));
        match shell.apply(&state, action) {
            Ok(next) => {
                lines.extend(new_events(Some(&state), &next));
                state = next;
            }
            Err(refused) => lines.push(format!("      refused: {refused}")),
        }
    }
    let properties = broken.iter().map(|violation| violation.property).collect();
    Ok(Counterexample { broken: broken.iter().map(ToString::to_string).collect(), properties, trace: lines })
}

fn new_events(before: Option<&State>, after: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, seat) in &after.tables.seats {
        let seen = before.and_then(|state| state.tables.seats.get(id)).map_or(0, |seat| seat.member.events.len());
        let new = seat.member.events.iter().skip(seen);
        lines.extend(new.map(|recorded| format!("      {}", trace::line(recorded))));
    }
    lines
}

/// Says in words what happens.
fn words(state: &State, action: Action) -> String {
    match action {
        Action::Offer { worker, command, epoch, .. } => {
            format!("the server means to give command {command} (attempt {epoch}) to {}", name(worker))
        }
        Action::Decide { execution, cause: Cause::Report(worker) } => {
            format!("the server decides the report of {} to {execution}", name(worker))
        }
        Action::Decide { execution, cause: Cause::Due(kind, _) } => {
            format!("the server decides the obligation `{}` of {execution}", kind.as_str())
        }
        Action::Land { draft, heard } => {
            let what = match state.drafts.get(draft).map(|draft| draft.cause) {
                Some(state::DraftCause::Claim { worker, .. }) => format!("the claim for {}", name(worker)),
                Some(state::DraftCause::Decision(_)) | None => "the decision".to_owned(),
            };
            format!("{what} is written, if it still may be{}", if heard { "" } else { "; the answer gets lost" })
        }
        Action::Hear { worker } => format!("{} hears what it was given", name(worker)),
        Action::Begin { worker } => format!("{} looks whether it is cancelled, and begins if not", name(worker)),
        Action::End { worker, well } => {
            format!("the tool of {} {}", name(worker), if well { "ends well" } else { "fails" })
        }
        Action::Stop { worker } => format!("{} stops its tool", name(worker)),
        Action::Lose { session, execution } => format!("the lease of session {session} runs out in {execution}"),
        Action::Forget { session, execution } => format!("session {session} is forgotten in {execution}"),
        Action::Visit { execution, .. } => format!("the cascade visits {execution}"),
        Action::List { execution, .. } => format!("the cascade lists the children of {execution}"),
        Action::Bear { .. } => "a child is born".to_owned(),
        Action::Remember { .. } => "the server writes down what has to happen later".to_owned(),
        Action::Cancel { execution } => format!("somebody cancels {execution}"),
        Action::Pause { execution } => format!("somebody pauses {execution}"),
        Action::Resume { execution } => format!("somebody resumes {execution}"),
        Action::StopStep { execution, command } => format!("somebody stops command {command} of {execution}"),
        Action::CancelFamily { execution } => format!("somebody cancels {execution} with everything below it"),
        Action::CrashServer => "the server dies and comes back".to_owned(),
        Action::CrashWorker { worker } => format!("{} dies and comes back", name(worker)),
        Action::Silence { worker } => format!("{} is cut off", name(worker)),
    }
}
