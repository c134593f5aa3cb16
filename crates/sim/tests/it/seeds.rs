//! Seeded worlds. A seed is a bug report:
//! `NOETL_SIM_SEED=<seed> cargo nextest run --workspace -E 'package(noetl-sim) and test(one_seed)'`.

use noetl_sim::{Scenario, run};

/// Worlds in every run; `NOETL_TEST_LONG=1` (`./test --long`) runs thousands.
const SEEDS: u64 = 200;
const SEEDS_LONG: u64 = 5_000;
/// Worlds beyond the first ones that once broke a promise: orders of things that are easily got wrong again.
const SEEDS_KEPT: [u64; 1] = [414];

fn check(seed: u64) -> noetl_sim::Outcome {
    let outcome = run(&Scenario::of(seed));
    assert!(
        outcome.broken.is_empty(),
        "seed {seed}: {:#?}\n{}\nreplay: NOETL_SIM_SEED={seed} cargo nextest run --workspace -E 'package(noetl-sim) and test(one_seed)'",
        outcome.broken,
        outcome.trace.join("\n")
    );
    outcome
}

fn long() -> bool {
    std::env::var_os("NOETL_TEST_LONG").is_some()
}

#[test]
fn every_seed_keeps_every_promise() {
    let seeds = if long() { SEEDS_LONG } else { SEEDS };
    let (mut executions, mut cancelled, mut tools) = (0, 0, 0);
    for seed in (0..seeds).chain(SEEDS_KEPT) {
        let outcome = check(seed);
        executions += outcome.executions;
        cancelled += outcome.cancelled;
        tools += outcome.tools;
    }
    // A world in which nothing happens would keep every promise too.
    assert!(
        executions as u64 > seeds && cancelled as u64 > seeds / 4 && tools as u64 > seeds,
        "{executions} {cancelled} {tools}"
    );
}

/// C7 in time: what a single crash may cost.
#[test]
fn one_crash_in_a_calm_world_costs_a_lease_and_no_more() {
    let mut cancelled = 0;
    for seed in 0..if long() { SEEDS_LONG / 10 } else { SEEDS / 4 } {
        let scenario = Scenario { crashes: 1, lost: 0, repeated: 0, failing: 0, ..Scenario::of(seed) };
        let outcome = run(&scenario);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}\n{}", outcome.broken, outcome.trace.join("\n"));
        cancelled += outcome.cancelled;
    }
    assert!(cancelled > 0);
}

#[test]
fn one_seed() {
    let seed = std::env::var("NOETL_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    check(seed);
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 17] {
        let (first, second) = (run(&Scenario::of(seed)), run(&Scenario::of(seed)));
        assert_eq!((first.events, first.tools, first.cancelled), (second.events, second.tools, second.cancelled));
    }
}
