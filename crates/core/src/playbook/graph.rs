//! Who leads to whom.

use std::collections::VecDeque;

use super::model::{Graph, Step, StepIx};

/// Computes the reachability of `steps`.
pub(super) fn graph(steps: &[Step]) -> Graph {
    let mut sources = vec![Vec::new(); steps.len()];
    for (from, step) in steps.iter().enumerate() {
        for arrow in &step.next.arcs {
            let known: &mut Vec<StepIx> = &mut sources[arrow.to.0];
            if known.last() != Some(&StepIx(from)) {
                known.push(StepIx(from));
            }
        }
    }
    let reaches = (0..steps.len()).map(|from| reached(steps, StepIx(from))).collect();
    Graph { sources, reaches }
}

/// Returns which steps a path of one arc or more leads to.
pub(super) fn reached(steps: &[Step], from: StepIx) -> Vec<bool> {
    let mut seen = vec![false; steps.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(step) = queue.pop_front() {
        for arrow in &steps[step.0].next.arcs {
            if !std::mem::replace(&mut seen[arrow.to.0], true) {
                queue.push_back(arrow.to);
            }
        }
    }
    seen
}
