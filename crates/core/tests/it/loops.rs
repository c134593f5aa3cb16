//! Loops over lists, maps and numbers: order, overlap, isolation, failures.

use noetl_core::head::Status;
use noetl_core::id::ExecutionId;
use noetl_core::tool::{ErrorKind, ToolError, ToolOutcome};
use serde_json::{Value, json};

use crate::desk::{Desk, run, run_with};

fn echo(call: &noetl_core::tool::ToolCall) -> ToolOutcome {
    ToolOutcome::ok(json!(call.input))
}

#[test]
fn a_sequential_loop_keeps_order_and_binds_iterator_and_index() {
    let ran = run_with(
        "
        workload: {numbers: [5, 6, 7]}
        workflow:
          - step: start
            loop: {in: '{{ workload.numbers }}', iterator: n}
            input: {index: '{{ loop_index }}'}
            tool: {kind: python, code: x, input: {double: '{{ n * 2 }}', same: '{{ iter.n }}', total: '{{ _total }}'}}
            next: {arcs: [{step: end, when: \"{{ event.name == 'loop.done' }}\"}]}
          - {step: end, tool: {kind: python, code: x, input: {all: '{{ start.results }}', failed: '{{ start.stats.failed }}'}}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(
        ran.result("start")["results"],
        json!([
            {"index": 0, "double": 10, "same": 5, "total": 3, "n": 5},
            {"index": 1, "double": 12, "same": 6, "total": 3, "n": 6},
            {"index": 2, "double": 14, "same": 7, "total": 3, "n": 7},
        ])
    );
    assert_eq!(ran.result("end")["failed"], json!(0));
    assert_eq!(ran.result("end")["all"].as_array().unwrap().len(), 3);
    assert_eq!(ran.log().iter().filter(|name| **name == "loop.done").count(), 1);
    assert_eq!(ran.entered(), ["start", "end"]);
}

#[test]
fn a_sequential_iteration_sees_the_ctx_writes_of_the_one_before() {
    let ran = run_with(
        "
        workflow:
          - step: start
            tool: {kind: noop}
            set: {ctx.seen: []}
            next: {arcs: [{step: each}]}
          - step: each
            loop: {in: 4, iterator: i}
            tool:
              kind: python
              code: x
              input: {before: '{{ ctx.seen | length }}'}
              spec:
                policy:
                  rules:
                    - else: {then: {do: continue, set: {ctx.seen: '{{ (ctx.seen or []) + [output.data.before] }}'}}}
        ",
        json!({}),
        echo,
    );
    assert_eq!(ran.ctx("seen"), json!([0, 1, 2, 3]));
}

#[test]
fn a_parallel_loop_never_has_more_in_flight_than_it_may() {
    for written in ["spec: {mode: parallel, max_in_flight: 3}", "mode: parallel, max_in_flight: 3"] {
        let playbook = format!(
            "
            workflow:
              - step: start
                loop: {{in: 10, iterator: i, {written}}}
                tool: {{kind: python, code: x, input: {{i: '{{{{ i }}}}'}}}}
            "
        );
        let mut desk = Desk::new(&[&playbook], echo);
        let id = desk.start(0, json!({}));
        let mut most = 0;
        loop {
            let live = desk.members[&id].commands.len();
            most = most.max(live);
            if !desk.step() {
                break;
            }
        }
        assert_eq!(most, 3, "{written}");
        assert_eq!(desk.members[&id].head.status, Status::Completed);
        desk.check();
    }
}

#[test]
fn results_stand_in_input_order_whatever_the_order_of_arrival() {
    let mut desk = Desk::new(
        &["
        workflow:
          - step: start
            loop: {in: [a, b, c], iterator: item, spec: {mode: parallel, max_in_flight: 3}}
            tool: {kind: python, code: x}
        "],
        echo,
    );
    let id = desk.start(0, json!({}));
    let rows = desk.members[&id].commands.clone();
    for row in rows.iter().rev() {
        desk.claim(row);
        let report = desk.work(row);
        desk.decide(id, &[noetl_core::execution::Input::Report(Box::new(report), "desk".into())]);
    }
    desk.run();
    assert_eq!(items(&desk, id), ["a", "b", "c"]);
}

fn items(desk: &Desk, id: ExecutionId) -> Vec<String> {
    let state = &desk.members[&id].execution.steps["start"];
    let Some(noetl_core::result::Bound::Inline(data)) = &state.result else { panic!("no result") };
    data["results"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_empty_collection_completes_at_once() {
    let ran = run("
        workload: {rows: []}
        workflow:
          - step: start
            loop: {in: '{{ rows }}', iterator: row}
            tool: {kind: python, code: x}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: noop}}
    ");
    assert_eq!(ran.entered(), ["start", "end"]);
    assert_eq!(ran.result("start")["stats"]["total"], json!(0));
}

#[test]
fn an_undefined_collection_fails_the_run_and_says_so() {
    let ran = run("
        workflow:
          - step: start
            loop: {in: '{{ nothing.here }}', iterator: row}
            tool: {kind: python, code: x}
    ");
    assert_eq!(ran.status(), Status::Failed);
    assert_eq!(ran.seat().head.error.as_ref().unwrap()["code"], json!("LOOP_SOURCE"));
}

#[test]
fn a_failing_iteration_does_not_stop_the_others_and_is_named() {
    let tool = |call: &noetl_core::tool::ToolCall| {
        if call.input["i"] == json!(1) {
            ToolOutcome::failed(ToolError::soft(ErrorKind::Code, "PYTHON_EXCEPTION", "boom"), Value::Null)
        } else {
            echo(call)
        }
    };
    let playbook = "
        workflow:
          - step: start
            loop: {in: 3, iterator: i}
            tool: {kind: python, code: x}
            next: {arcs: [{step: end}]}
          - {step: end, tool: {kind: noop}}
    ";
    let ran = run_with(playbook, json!({}), tool);
    assert_eq!(ran.status(), Status::Completed);
    assert_eq!(ran.result("start")["stats"]["failed"], json!(1));
    assert_eq!(ran.result("start")["results"][1]["status"], json!("error"));
    assert_eq!(ran.failed_steps(), ["start"]);

    let strict = format!("executor: {{spec: {{strict: true}}}}\n{}", unindent(playbook));
    assert_eq!(run_with(&strict, json!({}), tool).status(), Status::Failed);
}

fn unindent(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("        ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn iter_variables_belong_to_one_iteration() {
    let ran = run_with(
        "
        workflow:
          - step: start
            loop: {in: 3, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
            tool:
              - name: first
                kind: python
                code: x
                spec: {policy: {rules: [{else: {then: {do: continue, set: {iter.mine: '{{ output.data.i }}'}}}}]}}
              - {name: second, kind: python, code: x, input: {mine: '{{ iter.mine }}', first: '{{ first.i }}'}}
        ",
        json!({}),
        echo,
    );
    for index in 0..3 {
        assert_eq!(ran.result("start")["results"][index]["second"]["mine"], json!(index));
        assert_eq!(ran.result("start")["results"][index]["mine"], json!(index));
        assert_eq!(ran.result("start")["results"][index]["first"]["i"], json!(index));
    }
}

#[test]
fn a_large_loop_is_issued_in_bounded_portions_and_finishes_whole() {
    let ran = run_with(
        "
        workflow:
          - step: start
            loop: {in: 2500, iterator: i, spec: {mode: parallel}}
            tool: {kind: python, code: x}
        ",
        json!({}),
        |call| ToolOutcome::ok(call.input["i"].clone()),
    );
    assert_eq!(ran.status(), Status::Completed);
    let results = ran.result("start");
    assert_eq!(results["results"].as_array().unwrap().len(), 2500);
    assert_eq!(results["results"][2499], json!(2499));
}

#[test]
fn a_loop_of_noops_needs_no_worker() {
    let ran = run("
        workflow:
          - step: start
            loop: {in: 200, iterator: i}
            tool: {kind: noop, result: '{{ i }}'}
    ");
    assert_eq!(ran.result("start")["results"][199], json!(199));
    assert!(!ran.log().contains(&"command.issued"));
}
