//! Every order in which the things of a small world can happen; and the mistakes that the tests must find.

use noetl_core::properties::Property;
use noetl_sim::explore::{Explored, Left, Mutant, SmallWorld, explore};

/// Most states of one world in an ordinary run.
const STATES_MAX: usize = 15_000;
/// The same in a long one (`NOETL_TEST_LONG=1`): as many as there are.
const STATES_MAX_LONG: usize = 20_000_000;

/// A command, and a child with another one, side by side; what follows needs both.
const FAMILY: &[&str] = &[
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: small/parent}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: below}, {step: beside}]}}
  - {step: below, tool: {kind: playbook, path: small/child}}
  - {step: beside, tool: {kind: shell, cmds: [work]}}
",
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: small/child}
workflow:
  - {step: only, tool: {kind: shell, cmds: [work]}}
",
];

/// A child that is begun only after a command: its birth meets what happens to its parent.
const LATE_CHILD: &[&str] = &[
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: small/parent}
workflow:
  - {step: first, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: below}]}}
  - {step: below, tool: {kind: playbook, path: small/child}}
",
    FAMILY[1],
];

/// Two commands one after the other, the first of which is tried again after a while.
const RETRY: &[&str] = &["
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: retry, path: small/retry}
workflow:
  - step: first
    tool:
      kind: shell
      cmds: [work]
      spec: {policy: {rules: [{when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 2, delay: 60}}]}}
    next: {arcs: [{step: second}]}
  - {step: second, tool: {kind: shell, cmds: [work]}}
"];

/// A family whose child is left alone by whoever cancels its parent.
const SHIELDED: &[&str] = &[
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: small/parent}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: below}, {step: beside}]}}
  - {step: below, tool: {kind: playbook, path: small/child, spec: {cancel: {policy: abandon}}}}
  - {step: beside, tool: {kind: shell, cmds: [work]}}
",
    FAMILY[1],
];

/// A run with a time limit, whose first step has one of its own and waits for a child.
const TIMED: &[&str] = &[
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: small/parent}
executor: {spec: {timeout: 60}}
workflow:
  - {step: below, spec: {timeout: 5}, tool: {kind: playbook, path: small/child}, next: {arcs: [{step: after}]}}
  - {step: after, spec: {timeout: 5}, tool: {kind: shell, cmds: [work]}}
",
    FAMILY[1],
];

/// Whichever of a command and its neighbours ends first cancels the others: a command and a child.
const REGION: &[&str] = &[
    "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parent, path: small/parent}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: below}, {step: beside}, {step: first}]}}
  - {step: first, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: after, cancel: [below, beside]}]}}
  - {step: below, tool: {kind: playbook, path: small/child}}
  - {step: beside, tool: {kind: shell, cmds: [work]}}
  - {step: after, tool: {kind: noop}}
",
    FAMILY[1],
];

/// A loop that has enough when one of its three iterations has ended.
const LOOP: &[&str] = &["
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: loop, path: small/loop}
workflow:
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 2, complete_when: \"{{ stats.completed >= 1 }}\"}}
    tool: {kind: shell, cmds: [work]}
    next: {arcs: [{step: after}]}
  - {step: after, tool: {kind: noop}}
"];

const CALM: Left = Left {
    cancels: 0,
    cascades: 0,
    pauses: 0,
    stops: 0,
    server_crashes: 0,
    worker_crashes: 0,
    silences: 0,
    unheard: 0,
    failures: 0,
};

fn world(playbooks: &'static [&'static str], left: Left) -> SmallWorld {
    let long = std::env::var_os("NOETL_TEST_LONG").is_some();
    SmallWorld { playbooks, left, mutant: None, states_max: if long { STATES_MAX_LONG } else { STATES_MAX } }
}

#[expect(clippy::print_stdout, reason = "docs/proof.md shows the sizes")]
fn holds(world: &SmallWorld) -> Explored {
    let explored = explore(world).expect("a world");
    if let Some(found) = &explored.counterexample {
        panic!("{:#?}\n{}", found.broken, found.trace.join("\n"));
    }
    println!(
        "{} states, {} steps, {} at rest, complete: {}",
        explored.states, explored.steps, explored.at_rest, explored.complete
    );
    explored
}

#[test]
fn a_family_is_cancelled_while_anything_happens() {
    let left = Left { cascades: 1, server_crashes: 1, ..CALM };
    let explored = holds(&world(FAMILY, left));
    assert!(explored.at_rest > 0 || !explored.complete);
}

#[test]
fn a_child_is_born_while_its_family_is_cancelled() {
    let left = Left { cascades: 1, server_crashes: 1, worker_crashes: 1, ..CALM };
    holds(&world(LATE_CHILD, left));
}

#[test]
fn a_pause_meets_a_birth_and_a_cancel() {
    let left = Left { cascades: 1, pauses: 1, ..CALM };
    holds(&world(LATE_CHILD, left));
}

#[test]
fn a_retry_meets_a_cancel() {
    let left = Left { cancels: 1, server_crashes: 1, failures: 1, ..CALM };
    holds(&world(RETRY, left));
}

#[test]
fn workers_fall_silent_and_come_back_too_late() {
    let left = Left { cancels: 1, silences: 1, unheard: 1, ..CALM };
    holds(&world(RETRY, left));
}

#[test]
fn a_shield_meets_a_cascade() {
    holds(&world(SHIELDED, Left { cascades: 1, server_crashes: 1, ..CALM }));
}

#[test]
fn a_stop_meets_a_claim_a_report_and_a_lost_worker() {
    holds(&world(FAMILY, Left { stops: 1, worker_crashes: 1, ..CALM }));
}

#[test]
fn a_stop_meets_a_cancel() {
    holds(&world(RETRY, Left { stops: 1, cancels: 1, failures: 1, server_crashes: 1, ..CALM }));
}

#[test]
fn time_limits_meet_everything_else() {
    holds(&world(TIMED, Left { server_crashes: 1, ..CALM }));
}

#[test]
fn a_region_is_cancelled_while_it_begins() {
    holds(&world(REGION, Left { cascades: 1, ..CALM }));
}

#[test]
fn a_loop_is_completed_early_while_its_workers_die() {
    holds(&world(LOOP, Left { cancels: 1, worker_crashes: 1, ..CALM }));
}

/// The worlds that a mistake is looked for in, and the promises one of which it breaks.
fn hunt(mutant: Mutant) -> (&'static [&'static str], Left, &'static [Property]) {
    match mutant {
        Mutant::ClaimUnguarded => {
            (FAMILY, Left { cascades: 1, ..CALM }, &[Property::NoStartAfterDecision, Property::ExclusiveEpochs])
        }
        Mutant::ListBeforeFence => (LATE_CHILD, Left { cascades: 1, ..CALM }, &[Property::NoEscapee]),
        Mutant::LateApplied => (
            RETRY,
            Left { cancels: 1, ..CALM },
            &[Property::OneTerminalEvent, Property::LateIsHarmless, Property::NoStartAfterDecision],
        ),
        Mutant::QuiescedEarly => (RETRY, Left { cancels: 1, ..CALM }, &[Property::TrueCertificate]),
        Mutant::EpochIgnored => (RETRY, Left { silences: 1, ..CALM }, &[Property::FencedOutcome]),
        Mutant::ChildUnguarded => {
            (LATE_CHILD, Left { cascades: 1, ..CALM }, &[Property::NoEscapee, Property::NoStartAfterDecision])
        }
        Mutant::TimerRevived => (RETRY, Left { cancels: 1, failures: 1, ..CALM }, &[Property::HeadIsFold]),
        Mutant::ObligationForgotten => (FAMILY, Left { server_crashes: 1, ..CALM }, &[Property::NeverStuck]),
        Mutant::EpochReused => {
            (RETRY, Left { silences: 1, ..CALM }, &[Property::ExclusiveEpochs, Property::HeadIsFold])
        }
        Mutant::ProofForgotten => (RETRY, Left { cancels: 1, ..CALM }, &[Property::TrueCertificate]),
    }
}

/// A test of the tests: what nobody finds, nobody guards against.
#[test]
fn every_planted_mistake_is_found() {
    for mutant in Mutant::ALL {
        let (playbooks, left, promises) = hunt(mutant);
        let honest = SmallWorld { playbooks, left, mutant: None, states_max: STATES_MAX };
        holds(&honest);
        let explored = explore(&SmallWorld { mutant: Some(mutant), ..honest }).expect("a world");
        let Some(found) = explored.counterexample else {
            panic!("{mutant:?} is not found in {} states: {left:?}", explored.states)
        };
        println!("{mutant:?}, after {} states: {:#?}\n{}", explored.states, found.broken, found.trace.join("\n"));
        assert!(
            promises.iter().any(|promise| found.properties.contains(promise)),
            "{mutant:?} breaks something else than {promises:?}: {:#?}\n{}",
            found.broken,
            found.trace.join("\n")
        );
    }
}
