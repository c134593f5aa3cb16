//! What a world is made of, drawn from its seed.

use crate::chance::Chance;

/// How a world behaves.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything else is drawn from.
    pub seed: u64,
    /// Servers.
    pub servers: u64,
    /// Workers, each with a few slots.
    pub workers: u64,
    /// Executions that people start.
    pub starts: u64,
    /// Executions that people try to cancel, per mille of those started.
    pub cancels: u64,
    /// Crashes of servers and workers.
    pub crashes: u64,
    /// Messages lost, per mille, each way.
    pub lost: u64,
    /// Messages said twice, per mille.
    pub repeated: u64,
    /// Store calls that fail, per mille: half of them after having been done.
    pub failing: u64,
    /// How long people are active, in milliseconds.
    pub busy_ms: u64,
}

impl Scenario {
    /// Returns the world of `seed`: some are calm, some are not.
    pub fn of(seed: u64) -> Self {
        let chance = Chance::new(seed ^ 0x5EED);
        let rough = chance.per_mille(700);
        let some = |most: u64| if rough { chance.below(most + 1) } else { 0 };
        Scenario {
            seed,
            servers: chance.between(1, 3),
            workers: chance.between(1, 3),
            starts: chance.between(3, 12),
            cancels: chance.between(200, 900),
            crashes: some(6),
            lost: some(100),
            repeated: some(100),
            failing: some(20),
            busy_ms: chance.between(2_000, 20_000),
        }
    }

    /// Returns whether nothing is lost and nobody dies.
    pub fn is_calm(&self) -> bool {
        self.crashes == 0 && self.lost == 0 && self.repeated == 0 && self.failing == 0
    }

    /// Returns whether nothing is lost, and somebody dies once at most.
    pub fn has_one_crash_at_most(&self) -> bool {
        self.crashes <= 1 && self.lost == 0 && self.repeated == 0 && self.failing == 0
    }

    /// The playbooks of every world. Tools named `work` take a while and may fail.
    pub(crate) const PLAYBOOKS: &'static [(&'static str, &'static str)] = &[
        ("sim/chain", CHAIN),
        ("sim/fan", FAN),
        ("sim/loop", LOOP),
        ("sim/cursor", CURSOR),
        ("sim/retry", RETRY),
        ("sim/cycle", CYCLE),
        ("sim/leaf", LEAF),
        ("sim/branch", BRANCH),
        ("sim/family", FAMILY),
        ("sim/limited", LIMITED),
        ("sim/race", RACE),
        ("sim/enough", ENOUGH),
        ("sim/shield", SHIELD),
        ("sim/undone", UNDONE),
        ("sim/strict", STRICT),
        ("sim/newest", NEWEST),
    ];
}

const CHAIN: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: chain, path: sim/chain}
workflow:
  - {step: start, tool: {kind: noop}, next: {arcs: [{step: one}]}}
  - {step: one, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: two}]}}
  - {step: two, tool: [{name: a, kind: shell, cmds: [work]}, {name: b, kind: shell, cmds: [work]}], next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

const FAN: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: fan, path: sim/fan}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}, {step: c}]}}
  - {step: a, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: join}]}}
  - {step: b, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: join}]}}
  - {step: c, tool: {kind: noop}, next: {arcs: [{step: join}]}}
  - {step: join, tool: {kind: shell, cmds: [work]}}
";

const LOOP: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: loop, path: sim/loop}
workflow:
  - step: start
    loop: {in: 7, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: shell, cmds: [work]}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: noop}}
";

const CURSOR: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: cursor, path: sim/cursor}
workflow:
  - step: start
    loop:
      cursor: {kind: postgres, claim: 'claim {{ __frame_max_rows }}'}
      iterator: row
      spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: 3, row_concurrency: 2}}
    tool: {kind: shell, cmds: [work]}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: noop}}
";

const RETRY: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: retry, path: sim/retry}
workflow:
  - step: start
    tool:
      kind: shell
      cmds: [work]
      spec:
        policy:
          rules:
            - {when: \"{{ output.status == 'error' }}\", then: {do: retry, attempts: 4, delay: 3, backoff: linear}}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: noop}}
";

const CYCLE: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: cycle, path: sim/cycle}
workflow:
  - step: start
    tool: {kind: shell, cmds: [work]}
    set: {ctx.n: \"{{ (ctx.n | default(0)) + 1 }}\"}
    next: {arcs: [{step: start, when: \"{{ ctx.n < 6 }}\"}, {step: end}]}
  - {step: end, tool: {kind: noop}}
";

const LEAF: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: leaf, path: sim/leaf}
workflow:
  - {step: start, tool: {kind: shell, cmds: [work]}}
";

const BRANCH: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: branch, path: sim/branch}
workflow:
  - step: start
    loop: {in: 3, iterator: i, spec: {mode: parallel}}
    tool: {kind: playbook, path: sim/leaf}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

const LIMITED: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: limited, path: sim/limited}
executor: {spec: {timeout: 4}}
workflow:
  - {step: start, spec: {timeout: 2}, tool: {kind: playbook, path: sim/branch}, next: {arcs: [{step: one}]}}
  - {step: one, spec: {timeout: 1}, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

/// Three branches; whoever is first cancels the others, a loop and a child among them.
const RACE: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: race, path: sim/race}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}, {step: c}]}}
  - {step: a, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: end, cancel: [b, b2, c]}]}}
  - step: b
    loop: {in: 4, iterator: i, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: shell, cmds: [work]}
    next: {arcs: [{step: b2}]}
  - {step: b2, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: end, cancel: [a, c]}]}}
  - {step: c, tool: {kind: playbook, path: sim/branch}, next: {arcs: [{step: end, cancel: [a, b, b2]}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

/// Loops that end when it is enough: what runs is withdrawn, or let to its end.
const ENOUGH: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: enough, path: sim/enough}
workflow:
  - step: start
    loop:
      in: 9
      iterator: i
      spec: {mode: parallel, max_in_flight: 4, complete_when: '{{ stats.completed >= 2 }}'}
    tool: {kind: shell, cmds: [work]}
    next: {arcs: [{step: wait}]}
  - step: wait
    loop:
      in: 9
      iterator: i
      spec: {mode: parallel, max_in_flight: 3, complete_when: '{{ results | length >= 2 }}', on_complete: wait}
    tool: {kind: playbook, path: sim/leaf}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

/// Children of which some are shielded from what happens to their parent.
const SHIELD: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: shield, path: sim/shield}
workflow:
  - {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}, {step: c}]}}
  - {step: a, tool: {kind: playbook, path: sim/branch, spec: {cancel: {policy: abandon}}}, next: {arcs: [{step: end, cancel: [b]}]}}
  - {step: b, tool: {kind: playbook, path: sim/leaf, spec: {cancel: {policy: wait}}}, next: {arcs: [{step: end, cancel: [a]}]}}
  - {step: c, tool: {kind: playbook, path: sim/branch}, next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

const UNDONE: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: undone, path: sim/undone}
executor: {spec: {on_cancel: tell}}
workflow:
  - {step: start, tool: {kind: shell, cmds: [work]}, spec: {compensate: undo_start}, next: {arcs: [{step: two}]}}
  - {step: two, tool: {kind: playbook, path: sim/leaf}, spec: {compensate: undo_two}, next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
  - {step: undo_start, tool: {kind: shell, cmds: [work]}}
  - {step: undo_two, tool: {kind: playbook, path: sim/leaf}}
  - {step: tell, tool: {kind: shell, cmds: [work]}}
";

const STRICT: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: strict, path: sim/strict}
executor: {spec: {concurrency: {key: strict, limit: 2, on_conflict: reject}}}
workflow:
  - {step: start, tool: {kind: shell, cmds: [work]}, next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
";

const NEWEST: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: newest, path: sim/newest}
executor: {spec: {concurrency: {key: newest, on_conflict: cancel_running}, on_cancel: tell}}
workflow:
  - {step: start, tool: {kind: playbook, path: sim/branch}, next: {arcs: [{step: end}]}}
  - {step: end, tool: {kind: shell, cmds: [work]}}
  - {step: tell, tool: {kind: shell, cmds: [work]}}
";

/// How many executions of `sim/strict` may be there at a time.
pub(crate) const STRICT_LIMIT: usize = 2;

const FAMILY: &str = "
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: family, path: sim/family}
workflow:
  - step: start
    loop: {in: 3, iterator: i, spec: {mode: parallel, max_in_flight: 2}}
    tool: [{name: child, kind: playbook, path: sim/branch}, {name: after, kind: shell, cmds: [work]}]
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: noop}}
";
