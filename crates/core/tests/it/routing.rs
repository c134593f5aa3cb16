//! Arcs, joins, cycles, ends.

use noetl_core::head::Status;
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::{run, run_with, table};

#[test]
fn a_chain_runs_in_order_and_completes() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {arcs: [{step: work}]}
          - step: work
            tool: {kind: python, code: 'x'}
            next: {arcs: [{step: end}]}
          - step: end
            tool: {kind: noop}
    ");
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.entered(), ["start", "work", "end"]);
    assert_eq!(
        ran.log(),
        [
            "playbook.initialized",
            "step.enter",
            "step.exit",
            "command.issued",
            "step.enter",
            "command.claimed",
            "command.started",
            "call.done",
            "command.completed",
            "step.exit",
            "step.enter",
            "step.exit",
            "playbook.completed",
        ]
    );
}

#[test]
fn exclusive_takes_the_first_arc_that_matches_and_inclusive_takes_all() {
    for (mode, expected) in [("exclusive", vec!["start", "b"]), ("inclusive", vec!["start", "b", "c"])] {
        let ran = run(&format!(
            "
            workload: {{n: 5}}
            workflow:
              - step: start
                tool: {{kind: noop}}
                next:
                  spec: {{mode: {mode}}}
                  arcs:
                    - {{step: a, when: '{{{{ n > 9 }}}}'}}
                    - {{step: b, when: '{{{{ n > 3 }}}}'}}
                    - {{step: c}}
              - {{step: a, tool: {{kind: noop}}}}
              - {{step: b, tool: {{kind: noop}}}}
              - {{step: c, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.entered(), expected, "{mode}");
        assert_eq!(ran.status(), Status::Completed);
    }
}

#[test]
fn a_join_runs_once_after_every_branch_that_can_still_arrive() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}
          - step: a
            tool: {kind: python, code: x}
            next: {arcs: [{step: join}]}
          - step: b
            tool: {kind: python, code: x}
            next: {arcs: [{step: b2}]}
          - step: b2
            tool: {kind: python, code: x}
            next: {arcs: [{step: join}]}
          - step: join
            tool: {kind: noop}
    ");
    assert_eq!(ran.entered(), ["start", "a", "b", "b2", "join"]);
    assert_eq!(ran.status(), Status::Completed);
}

#[test]
fn a_join_does_not_wait_for_a_branch_that_was_not_taken() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {arcs: [{step: a, when: '{{ true }}'}, {step: b}]}
          - {step: a, tool: {kind: noop}, next: {arcs: [{step: join}]}}
          - {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}
          - {step: join, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "a", "join"]);
}

#[test]
fn a_cycle_runs_until_its_condition_fails_and_ctx_carries_the_count() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            set: {ctx.n: 0}
            next: {arcs: [{step: count}]}
          - step: count
            tool: {kind: python, code: x, input: {n: '{{ ctx.n }}'}}
            set: {ctx.n: '{{ (ctx.n | int) + 1 }}'}
            next:
              arcs:
                - {step: count, when: '{{ ctx.n < 20 }}'}
                - {step: end}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.ctx("n"), json!(20));
    assert_eq!(ran.entered().iter().filter(|step| *step == "count").count(), 20);
    assert_eq!(ran.result("count")["input"]["n"], json!(19));
}

#[test]
fn a_noop_cycle_is_cut_into_decisions_of_bounded_size_and_by_max_steps() {
    let ran = run("
        executor: {spec: {limits: {max_steps: 1000}}}
        workflow:
          - {step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}
          - {step: b, tool: {kind: noop}, next: {arcs: [{step: a}]}}
    ");
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!("MAX_STEPS"));
    // The entered step at the limit is the one that fails the run.
    assert_eq!(ran.entered().len(), 1001);
}

#[test]
fn joins_on_a_cycle_that_wait_for_each_other_do_not_hang() {
    let ran = run("
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: left}, {step: right}]}
          - step: left
            tool: {kind: noop}
            set: {ctx.left: '{{ (ctx.left | default(0)) + 1 }}'}
            next: {arcs: [{step: right, when: '{{ ctx.left < 3 }}'}]}
          - step: right
            tool: {kind: noop}
            next: {arcs: [{step: left, when: '{{ ctx.left | default(0) < 3 }}'}]}
    ");
    assert_eq!(ran.status(), Status::Completed);
}

#[test]
fn a_step_that_is_not_admitted_is_skipped_and_its_arcs_are_followed() {
    let ran = run("
        workload: {go: false}
        workflow:
          - step: start
            tool: {kind: noop}
            next: {arcs: [{step: maybe}]}
          - step: maybe
            when: '{{ go }}'
            tool: {kind: python, code: x}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "end"]);
    assert!(ran.log().contains(&"step.skipped"));
}

#[test]
fn the_arcs_of_a_skipped_step_know_that_it_was_skipped() {
    let ran = run(r#"
        workflow:
          - step: start
            when: '{{ false }}'
            tool: {kind: noop}
            next:
              arcs:
                - {step: ran, when: "{{ event.name in ['step.done', 'call.done'] }}"}
                - {step: end, when: "{{ event.name == 'step.skipped' }}", set: {ctx.skipped: '{{ event.step }}'}}
          - {step: ran, tool: {kind: noop}}
          - {step: end, tool: {kind: noop}}
    "#);
    assert_eq!(ran.entered(), ["end"]);
    assert_eq!(ran.ctx("skipped"), serde_json::json!("start"));
}

#[test]
fn a_step_without_next_ends_its_branch_and_an_unreferenced_end_does_not_run() {
    let ran = run("
        workflow:
          - {step: start, tool: {kind: noop}, next: {arcs: [{step: step1}]}}
          - {step: step1, tool: {kind: noop}}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "step1"]);
    assert_eq!(ran.status(), Status::Completed);
}

#[test]
fn no_next_is_error_fails_a_run_in_which_no_arc_matches() {
    for (strictly, status) in [(true, Status::Failed), (false, Status::Completed)] {
        let ran = run(&format!(
            "
            executor: {{spec: {{no_next_is_error: {strictly}}}}}
            workflow:
              - step: start
                tool: {{kind: noop}}
                next: {{arcs: [{{step: end, when: '{{{{ false }}}}'}}]}}
              - {{step: end, tool: {{kind: noop}}}}
            "
        ));
        assert_eq!(ran.status(), status);
    }
}

#[test]
fn arcs_see_the_event_and_set_persists_beyond_the_target() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool: {kind: python, code: x}
            next:
              arcs:
                - {step: never, when: \"{{ event.name == 'call.error' }}\"}
                - step: mid
                  when: \"{{ event.name == 'call.done' and output.rows == 3 and output.data.rows == 3 }}\"
                  set: {ctx.seen: '{{ start.rows }}'}
          - {step: never, tool: {kind: noop}}
          - {step: mid, tool: {kind: noop}, next: {arcs: [{step: end}]}}
          - step: end
            tool: {kind: python, code: x, input: {seen: '{{ seen }}', also: '{{ ctx.seen }}', prior: '{{ start.rows }}'}}
        ",
        json!({}),
        |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"rows": 3})),
            _ => ToolOutcome::ok(json!(call.input)),
        },
    );
    assert_eq!(ran.entered(), ["start", "mid", "end"]);
    assert_eq!(ran.result("end"), json!({"seen": 3, "also": 3, "prior": 3}));
}

#[test]
fn result_is_the_data_of_the_step_before() {
    let ran = run_with(
        "
        workflow:
          - {step: start, tool: {kind: python, code: x}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: python, code: x, input: {was: '{{ result.message }}', r: '{{ response.message }}'}}}
        ",
        json!({}),
        |call| match &*call.step {
            "start" => ToolOutcome::ok(json!({"message": "hi"})),
            _ => ToolOutcome::ok(json!(call.input)),
        },
    );
    assert_eq!(ran.result("end"), json!({"was": "hi", "r": "hi"}));
}

#[test]
fn the_final_step_or_the_last_finished_one_gives_the_runs_result() {
    let ran = run_with(
        "
        executor: {spec: {final_step: a}}
        workflow:
          - {step: a, tool: {kind: python, code: x}, next: {arcs: [{step: b}]}}
          - {step: b, tool: {kind: python, code: x}}
        ",
        json!({}),
        table(&[("a", json!({"from": "a"})), ("b", json!({"from": "b"}))]),
    );
    let end = ran.seat().events.last().unwrap();
    assert!(format!("{:?}", end.event).contains("\"a\""), "{end:?}");
}
