//! The language as tables: what is read, what is refused, what is warned about.

mod findings;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::diag::Diagnostic;

const HEAD: &str = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: a/b, name: b}\n";

fn compiled(source: &str) -> Compiled {
    compile(source).unwrap_or_else(|found| panic!("{}\n{source}", show(&found)))
}

fn show(found: &[Diagnostic]) -> String {
    found.iter().map(|finding| format!("{finding}\n")).collect()
}

/// A playbook of the given workflow, with a step `end` behind it.
fn workflow(steps: &str) -> Playbook {
    compiled(&format!("{HEAD}workflow:\n{steps}\n- step: end\n  tool: {{kind: noop}}\n")).playbook
}

/// A playbook of one step with the given tool.
fn tool(tool: &str) -> Body {
    let steps = format!("- step: start\n  tool: {tool}\n  next: end");
    workflow(&steps).steps.swap_remove(0).body
}

fn source_of(entries: &indexmap::IndexMap<std::sync::Arc<str>, crate::expr::ValueTemplate>) -> serde_json::Value {
    entries.iter().map(|(key, value)| (key.to_string(), value.source())).collect()
}

#[test]
fn a_whole_playbook_is_read() {
    let Compiled { playbook, warnings } = compiled(
        r#"
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: weather
  path: examples/weather
  description: All of it
  labels: {team: a}
  tags: [x, y]
executor:
  profile: auto
  version: noetl-runtime/1
  requires: {tools: [http]}
  spec:
    entry_step: first
    final_step: end
    no_next_is_error: true
    strict: true
    pool: big
    priority: 3
    timeout: 2h
    policy: {defaults: {timeout_s: 30}, results: {reference_first: true}}
    cancel: {mode: interrupt, grace_seconds: 2.5}
    on_cancel: tidy
    limits: {max_steps: 50, losses: 7}
keychain:
  - {name: api, kind: Bearer, scope: global, token: "{{ secret }}"}
spec:
  cities: [Berlin]
workload:
  city: Berlin
  when: "{{ now() }}"
workbook:
  - name: score
    tool: {kind: python, input: {a: 1, b: 2}, code: "result = a + b", timeout: 5}
workflow:
  - step: first
    desc: Begins
    input: {city: "{{ city }}"}
    when: "{{ city != '' }}"
    spec:
      pool: small
      run_on: worker
      at_most_once: true
      timeout: 90
      priority: 5
      cancel: {boundary: task, grace_seconds: 1}
    loop:
      in: "{{ spec.cities }}"
      iterator: place
      spec: {mode: parallel, max_in_flight: "{{ workload.n | default(2) }}", policy: {exec: distributed}}
    tool:
      - name: get
        kind: HTTP
        method: GET
        endpoint: "https://x/{{ iter.place }}"
        spec:
          timeout: "10"
          policy:
            rules:
              - when: "{{ output.status == 'error' }}"
                then: {do: retry, attempts: 5, delay: 0.5, backoff: exponential, set: {iter.tries: "{{ 1 }}"}}
              - else: {then: {do: continue}}
        set: {answer: "{{ output }}"}
      - name: rate
        kind: workbook
        task: score
        input: {b: "{{ answer.data }}"}
    set: {ctx.total.sum: "{{ first.results | length }}"}
    output: {output_select: [id], store: {kind: kv}}
    next:
      spec: {mode: inclusive}
      arcs:
        - {step: end, when: "{{ event.name == 'loop.done' }}", set: {ctx.seen: true}}
        - {step: tidy, when: "{{ event.name == 'call.error' }}"}
  - step: tidy
    tool: {kind: noop}
  - step: end
    tool: {kind: python, code: "result = {'n': total}"}
"#,
    );
    assert_eq!(show(&warnings), "");
    assert_eq!((&*playbook.path, &*playbook.name), ("examples/weather", "weather"));
    assert_eq!(playbook.description.as_deref(), Some("All of it"));
    assert_eq!(json!(playbook.labels), json!({"team": "a"}));
    assert_eq!(json!(playbook.extras), json!({"spec": {"cities": ["Berlin"]}}));
    assert_eq!(source_of(&playbook.workload), json!({"city": "Berlin", "when": "{{ now() }}"}));
    assert_eq!((&*playbook.keychain[0].name, &*playbook.keychain[0].kind), ("api", "bearer"));
    let config: Map<String, Value> =
        playbook.keychain[0].config.iter().map(|(key, template)| (key.to_string(), template.source())).collect();
    assert_eq!(Value::Object(config), json!({"scope": "global", "token": "{{ secret }}"}));

    let executor = &playbook.executor;
    assert_eq!((executor.final_step, executor.on_cancel), (Some(StepIx(2)), Some(StepIx(1))));
    assert!(executor.no_next_is_error && executor.strict);
    assert_eq!((&*executor.pool, executor.priority), ("big", 3));
    assert_eq!((executor.timeout_ms, executor.task_timeout_ms), (Some(7_200_000), Some(30_000)));
    assert_eq!((executor.cancel_mode, executor.cancel_grace_ms), (Some(CancelMode::Interrupt), Some(2_500)));
    assert_eq!((executor.max_steps, executor.max_losses), (50, 7));
    assert_eq!((playbook.entry, playbook.find("end"), playbook.find("no")), (StepIx(0), Some(StepIx(2)), None));

    let first = playbook.step(StepIx(0));
    assert_eq!((&*first.name, first.description.as_deref()), ("first", Some("Begins")));
    assert_eq!(source_of(&first.input), json!({"city": "{{ city }}"}));
    assert_eq!(
        first.admit.iter().map(|rule| (rule.when.is_some(), rule.allow)).collect::<Vec<_>>(),
        [(true, true), (false, false)]
    );
    assert_eq!(
        (first.spec.pool.as_deref(), first.spec.priority, first.spec.timeout_ms),
        (Some("small"), Some(5), Some(90_000))
    );
    assert!(first.spec.on_worker && first.spec.at_most_once && first.spec.cancel_between_tasks);
    assert_eq!(first.spec.cancel_grace_ms, Some(1_000));
    let looping = first.looping.as_ref().unwrap();
    assert!(matches!(&looping.source, LoopSource::In(list) if list.source() == json!("{{ spec.cities }}")));
    assert_eq!((&*looping.iterator, looping.parallel), ("place", true));
    assert_eq!(
        looping.max_in_flight.as_ref().map(crate::expr::ValueTemplate::source),
        Some(json!("{{ workload.n | default(2) }}"))
    );
    assert_eq!((first.output.select.as_slice(), first.output.store.as_deref()), (&["id".to_owned()][..], Some("kv")));

    assert!(first.body.pipeline);
    let [get, rate] = first.body.tasks.as_slice() else { panic!("two tasks expected") };
    assert_eq!((&*get.label, &*get.kind), ("get", "http"));
    assert_eq!(source_of(&get.config), json!({"method": "GET", "url": "https://x/{{ iter.place }}"}));
    assert_eq!(get.timeout.as_ref().and_then(|timeout| timeout.as_literal().cloned()), Some(json!(10)));
    assert_eq!(get.mentions, Some(vec![]));
    assert_eq!((get.set[0].target, &*get.set[0].path[0]), (Target::Local, "answer"));
    let Action::Retry(retry) = &get.policy[0].action else { panic!("a retry expected") };
    assert_eq!(
        (retry.attempts.source(), retry.delay.as_ref().map(crate::expr::ValueTemplate::source), retry.backoff),
        (json!(5), Some(json!(0.5)), Backoff::Exponential)
    );
    assert_eq!((get.policy[0].set[0].target, &*get.policy[0].set[0].path[0]), (Target::Iter, "tries"));
    assert!(matches!(get.policy[1], Rule { when: None, action: Action::Continue, .. }));

    assert_eq!((&*rate.label, &*rate.kind), ("rate", "python"));
    assert_eq!(source_of(&rate.defaults), json!({"a": 1, "b": 2}));
    assert_eq!(source_of(&rate.input), json!({"b": "{{ answer.data }}"}));
    assert_eq!(source_of(&rate.config), json!({"code": "result = a + b"}));
    assert_eq!(rate.timeout.as_ref().map(crate::expr::ValueTemplate::source), Some(json!(5)));
    assert_eq!(rate.mentions.as_ref().map(|names| names.join(" ")).as_deref(), Some("a b result"));

    assert_eq!((first.set[0].target, first.set[0].path.join(".")), (Target::Ctx, "total.sum".to_owned()));
    assert!(first.next.inclusive);
    let arcs: Vec<_> =
        first.next.arcs.iter().map(|arc| (arc.to, arc.when.is_some(), arc.set.len(), arc.catches)).collect();
    assert_eq!(arcs, [(StepIx(2), true, 1, false), (StepIx(1), true, 0, true)]);
}

#[test]
fn the_smallest_playbook_has_every_default() {
    let playbook = compiled(
        "apiVersion: noetl.io/v10\nkind: Playbook\nmetadata: {name: x}\nworkflow: [{step: a, tool: {kind: noop}}]",
    )
    .playbook;
    assert_eq!((&*playbook.path, &*playbook.name, playbook.entry), ("x", "x", StepIx(0)));
    let executor = &playbook.executor;
    assert_eq!((&*executor.pool, executor.max_steps, executor.max_losses), ("default", 1_000_000, 3));
    assert!(
        executor.final_step.is_none() && executor.on_cancel.is_none() && !executor.strict && !executor.no_next_is_error
    );
    let step = playbook.step(StepIx(0));
    assert!(step.admit.is_empty() && step.looping.is_none() && step.next.arcs.is_empty() && !step.body.pipeline);
    assert_eq!((&*step.body.tasks[0].label, &*step.body.tasks[0].kind), ("a", "noop"));
}

#[test]
fn a_run_begins_at_the_entry_step_else_at_start_else_at_the_first() {
    let steps = |names: &[&str]| {
        names.iter().map(|name| format!("- {{step: {name}, tool: {{kind: noop}}}}\n")).collect::<String>()
    };
    for (executor, names, expected) in [
        ("executor: {spec: {entry_step: b}}\n", ["a", "b", "start"], 1),
        ("", ["a", "start", "b"], 1),
        ("", ["a", "b", "c"], 0),
    ] {
        let source = format!("{HEAD}{executor}workflow:\n{}", steps(&names));
        assert_eq!(compiled(&source).playbook.entry, StepIx(expected), "{source}");
    }
}

#[test]
fn next_is_read_in_all_its_forms() {
    for (next, inclusive, targets) in [
        ("end", false, "end"),
        ("[end, start]", true, "end start"),
        ("[{step: end, when: '{{ true }}'}, {step: start}]", true, "end start"),
        ("{arcs: [{step: end}, end]}", false, "end end"),
        ("{spec: {mode: Inclusive, on_no_match: quiet}, arcs: [{step: end}, {step: start}]}", true, "end start"),
        ("{step: end}", false, "end"),
        ("{spec: {mode: exclusive}, arcs: []}", false, ""),
        ("~", false, ""),
    ] {
        let playbook = workflow(&format!("- step: start\n  tool: {{kind: noop}}\n  next: {next}"));
        let read = &playbook.step(StepIx(0)).next;
        let names: Vec<&str> = read.arcs.iter().map(|arc| &*playbook.step(arc.to).name).collect();
        assert_eq!((read.inclusive, names.join(" ").as_str()), (inclusive, targets), "{next}");
    }
}

#[test]
fn an_arc_knows_whether_it_speaks_of_failure() {
    for (arc, catches) in [
        ("when: \"{{ event.name == 'call.error' }}\"", true),
        ("when: \"{{ event.name == 'step.failed' }}\"", true),
        ("when: \"{{ output.status == 'error' }}\"", true),
        ("when: \"{{ error is defined }}\"", true),
        ("when: \"{{ start.error is defined }}\"", true),
        ("cond: output.status == 'error'", true),
        ("cond: exit_code == 100", false),
        ("when: \"{{ event.name == 'call.done' }}\"", false),
        ("when: true", false),
        ("desc: always", false),
    ] {
        let playbook = workflow(&format!(
            "- step: start\n  tool: {{kind: noop}}\n  next:\n    arcs:\n    - step: end\n      {arc}"
        ));
        assert_eq!(playbook.step(StepIx(0)).next.arcs[0].catches, catches, "{arc}");
    }
}

#[test]
fn else_is_read_in_all_its_forms() {
    for rule in [
        "else: {then: {do: jump, to: one, set: {ctx.a: 1}}}",
        "else: {do: jump, to: one, set: {ctx.a: 1}}",
        "{else: , then: {do: jump, to: one, set: {ctx.a: 1}}}",
        "then: {do: jump, to: one, set: {ctx.a: 1}}",
    ] {
        let body = tool(&format!(
            "[{{name: one, kind: noop, spec: {{policy: {{rules: [{{when: true}}, {}]}}}}}}]",
            if rule.starts_with('{') { rule.to_owned() } else { format!("{{{rule}}}") }
        ));
        let [first, second] = body.tasks[0].policy.as_slice() else { panic!("two rules expected") };
        assert!(matches!((&first.when, &first.action), (Some(_), Action::Continue)), "{rule}");
        assert!(matches!((&second.when, &second.action), (None, Action::Jump(0))), "{rule}");
        assert_eq!(second.set.len(), 1, "{rule}");
    }
}

#[test]
fn actions_have_their_defaults() {
    for (then, expected) in [
        ("{do: retry}", "3 None Constant"),
        ("{do: retry, delay: 2}", "3 Some(2) Constant"),
        ("{do: retry, backoff: linear}", "3 Some(1) Linear"),
        ("{do: retry, backoff: none, attempts: '4'}", "4 None None"),
        ("{do: retry, backoff: fixed, delay: '0.5'}", "3 Some(0.5) Constant"),
        (
            "{do: retry, backoff: Exponential, delay: '{{ d | default(1) }}'}",
            "3 Some(\"{{ d | default(1) }}\") Exponential",
        ),
    ] {
        let body = tool(&format!("{{kind: noop, spec: {{policy: {{rules: [{{when: true, then: {then}}}]}}}}}}"));
        let Action::Retry(retry) = &body.tasks[0].policy[0].action else { panic!("a retry expected") };
        let delay = retry.delay.as_ref().map(|delay| delay.source().to_string());
        let text = format!(
            "{} {} {:?}",
            retry.attempts.source(),
            delay.map_or("None".to_owned(), |delay| format!("Some({delay})")),
            retry.backoff
        );
        assert_eq!(text, expected, "{then}");
    }
    for (then, expected) in
        [("fail", "Fail"), ("{do: break}", "Break"), ("{set: {a: 1}}", "Continue"), ("{do: CONTINUE}", "Continue")]
    {
        let body = tool(&format!("{{kind: noop, spec: {{policy: {{rules: [{{when: true, then: {then}}}]}}}}}}"));
        assert_eq!(format!("{:?}", body.tasks[0].policy[0].action), expected, "{then}");
    }
}

#[test]
fn a_jump_names_a_task_of_its_pipeline() {
    let to = |to: &str| {
        let body = tool(&format!(
            "[{{name: a, kind: noop}}, {{name: b, kind: noop, spec: {{policy: {{rules: [{{when: true, then: {{do: jump, to: {to}}}}}]}}}}}}]"
        ));
        match body.tasks[1].policy[0].action {
            Action::Jump(task) => task,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!((to("a"), to("b"), to("previous"), to("prev")), (0, 1, 0, 0));
}

#[test]
fn tools_are_read_in_all_their_forms() {
    for (written, pipeline, labels) in [
        ("{kind: noop}", false, "start"),
        ("[{kind: noop}]", true, "task_0"),
        ("[{name: a, kind: noop}, {kind: noop}]", true, "a task_1"),
        ("[{a: {kind: noop}}, {b: {kind: noop}}]", true, "a b"),
        ("{kind: NoOp, name: other}", false, "start"),
        ("{spec: {kind: noop}}", false, "start"),
    ] {
        let body = tool(written);
        let names: Vec<&str> = body.tasks.iter().map(|task| &*task.label).collect();
        assert_eq!((body.pipeline, names.join(" ").as_str()), (pipeline, labels), "{written}");
        assert!(body.tasks.iter().all(|task| &*task.kind == "noop"));
    }
}

#[test]
fn old_words_for_the_same_thing_are_read() {
    for (written, config, input) in [
        ("{kind: python, code: x, args: {a: 1}}", json!({"code": "x"}), json!({"a": 1})),
        ("{kind: python, code: x, args: {a: 1, b: 1}, input: {a: 2}}", json!({"code": "x"}), json!({"a": 2, "b": 1})),
        (
            "{kind: playbook, path: p, payload: {a: 1}, return_step: end}",
            json!({"path": "p", "return_step": "end"}),
            json!({"a": 1}),
        ),
        ("{kind: playbook, path: p, with: {a: 1}}", json!({"path": "p"}), json!({"a": 1})),
        ("{kind: postgres, credential: c, query: q}", json!({"auth": "c", "query": "q"}), json!({})),
        (
            "{kind: http, endpoint: u, payload: {a: 1}, data: d, params: {p: 1}}",
            json!({"url": "u", "payload": {"a": 1}, "data": "d", "params": {"p": 1}}),
            json!({}),
        ),
        ("{kind: artifact, action: get, args: {result_ref: r}}", json!({"action": "get"}), json!({"result_ref": "r"})),
        ("{kind: shell, cmds: [ls, pwd]}", json!({"cmds": ["ls", "pwd"]}), json!({})),
        (
            "{kind: python, spec: {code: x, input: {a: 1}, policy: {rules: [{when: true}]}}}",
            json!({"code": "x"}),
            json!({"a": 1}),
        ),
        (
            "{kind: python, code: outer, spec: {code: inner, libs: {j: json}}}",
            json!({"code": "outer", "libs": {"j": "json"}}),
            json!({}),
        ),
    ] {
        let body = tool(written);
        assert_eq!((source_of(&body.tasks[0].config), source_of(&body.tasks[0].input)), (config, input), "{written}");
    }
    for (written, expected) in [
        ("timeout: 5", json!(5)),
        ("timeout_seconds: '7.5'", json!(7.5)),
        ("timeout: '{{ t | default(1) }}'", json!("{{ t | default(1) }}")),
        ("spec: {timeout: 3}", json!(3)),
        ("timeout: 1, spec: {timeout: 3}", json!(1)),
    ] {
        let body = tool(&format!("{{kind: http, url: u, {written}}}"));
        assert_eq!(body.tasks[0].timeout.as_ref().map(crate::expr::ValueTemplate::source), Some(expected), "{written}");
        assert_eq!(source_of(&body.tasks[0].config), json!({"url": "u"}));
    }
}

#[test]
fn python_is_sent_the_names_it_mentions() {
    for (written, expected) in [
        ("{kind: python, code: 'result = city'}", Some("city result")),
        ("{kind: python, code: 'context.get(1)'}", None),
        ("{kind: python, code: 'result = {{ city | default(1) }}'}", None),
        ("{kind: python, script: {uri: ./x.py}}", None),
        ("{kind: noop}", Some("")),
    ] {
        let names = tool(written).tasks[0].mentions.as_ref().map(|names| names.join(" "));
        assert_eq!(names.as_deref(), expected, "{written}");
    }
}

#[test]
fn a_loop_is_read_in_all_its_forms() {
    let read = |written: &str| {
        let playbook = workflow(&format!("- step: start\n  loop: {written}\n  tool: {{kind: noop}}\n  next: end"));
        playbook.steps.into_iter().next().unwrap().looping.unwrap()
    };
    for (written, iterator, parallel) in [
        ("{in: '{{ [1] }}', iterator: x}", "x", false),
        ("{in: [1, 2], iterator: x, spec: {mode: parallel, max_in_flight: 2}}", "x", true),
        ("{in: 3, iterator: x, spec: {mode: sequential}}", "x", false),
        ("{collection: [1], element: y, mode: async}", "y", true),
    ] {
        let looping = read(written);
        assert!(matches!(looping.source, LoopSource::In(_)), "{written}");
        assert_eq!((&*looping.iterator, looping.parallel), (iterator, parallel), "{written}");
    }
    let looping = read(
        "{cursor: {kind: postgres, credential: pg, claim: 'UPDATE {{ __frame_max_rows }}'}, iterator: row, \
         spec: {mode: cursor, max_in_flight: 4, frame: {max_rows: '{{ 5 }}', process: row}}}",
    );
    let LoopSource::Cursor(cursor) = looping.source else { panic!("a cursor expected") };
    let claim = &cursor.claim;
    assert_eq!((&*claim.name, claim.claims, &*claim.body.tasks[0].kind), ("start", true, "postgres"));
    let config = json!({"auth": "pg", "query": "UPDATE {{ __frame_max_rows }}"});
    assert_eq!(source_of(&claim.body.tasks[0].config), config);
    assert_eq!(source_of(&cursor.frame), json!({"max_rows": "{{ 5 }}", "process": "row"}));
    assert!(!cursor.by_frame);
}

#[test]
fn assignments_have_a_scope_and_a_path() {
    let playbook = workflow(
        "- step: start\n  tool: {kind: noop, set: {a: 1, iter.b: 2, ctx.c.d: '{{ 3 }}', step.e: 4}}\n  set: {ctx.f: 5}\n  \
         next: {arcs: [{step: end, args: {g: 6}, set: {ctx.h: 7}}]}",
    );
    let show = |set: &[Assignment]| {
        set.iter()
            .map(|one| format!("{:?} {} {}", one.target, one.path.join("."), one.value.source()))
            .collect::<Vec<_>>()
    };
    let start = playbook.step(StepIx(0));
    assert_eq!(show(&start.body.tasks[0].set), ["Local a 1", "Iter b 2", "Ctx c.d \"{{ 3 }}\"", "Local e 4"]);
    assert_eq!(show(&start.set), ["Ctx f 5"]);
    assert_eq!(show(&start.next.arcs[0].set), ["Ctx g 6", "Ctx h 7"]);
}

#[test]
fn a_step_may_be_called_like_a_path() {
    let playbook = workflow("- step: /a/b-c.d\n  tool: {kind: noop}\n  next: end");
    assert_eq!(playbook.find("/a/b-c.d"), Some(StepIx(0)));
}

#[test]
fn merge_keys_and_aliases_are_read() {
    let source = format!(
        "{HEAD}workload: {{base: &base {{a: 1, b: 2}}, more: {{<<: *base, b: 3}}}}\nworkflow:\n- step: a\n  tool: &t {{kind: noop}}\n  \
         next: b\n- step: b\n  tool: *t\n"
    );
    let playbook = compiled(&source).playbook;
    let mut workload = source_of(&playbook.workload);
    assert_eq!(workload["more"].take(), json!({"a": 1, "b": 3}));
    assert_eq!(&*playbook.step(StepIx(1)).body.tasks[0].kind, "noop");
}

#[test]
fn admission_rules_are_read() {
    let playbook = workflow(
        "- step: start\n  tool: {kind: noop}\n  next: end\n  spec:\n    policy:\n      admit:\n        mode: exclusive\n        \
         rules:\n        - {when: '{{ true }}', then: {allow: true}}\n        - else: {then: {allow: false}}\n        - else: {allow: true}",
    );
    let rules: Vec<_> = playbook.step(StepIx(0)).admit.iter().map(|rule| (rule.when.is_some(), rule.allow)).collect();
    assert_eq!(rules, [(true, true), (false, false), (false, true)]);
}

#[test]
fn the_graph_knows_sources_and_reach() {
    let step = |name: &str, next: &str| format!("- {{step: {name}, tool: {{kind: noop}}, next: {next}}}\n");
    let steps = step("a", "[b, c, b]") + &step("b", "d") + &step("c", "d") + &step("d", "b") + &step("e", "e");
    let graph = compiled(&format!("{HEAD}workflow:\n{steps}")).playbook.graph;
    let sources: Vec<Vec<usize>> = graph.sources.iter().map(|from| from.iter().map(|step| step.0).collect()).collect();
    assert_eq!(sources, [vec![], vec![0, 3], vec![0], vec![1, 2], vec![4]]);
    let reach: Vec<String> =
        graph.reaches.iter().map(|to| to.iter().map(|yes| if *yes { '1' } else { '0' }).collect()).collect();
    assert_eq!(reach, ["01110", "01010", "01010", "01010", "00001"]);
}

#[test]
fn code_that_is_no_template_is_used_as_it_is_and_commands_fail_when_they_are_reached() {
    for (field, text, used, code) in [
        ("kind: python, code", "x = f\"{{ {a} b }}\"", true, "NE0702"),
        ("kind: shell, cmds", "docker ps --format '{{.Names}} {{range .x}}'", false, "NE0705"),
        ("kind: shell, command", "echo {{ . }}", false, "NE0705"),
        ("kind: postgres, query", "select '{% no'", false, "NE0705"),
    ] {
        let quoted = text.replace('\'', "''");
        let source = format!("{HEAD}workflow: [{{step: start, tool: {{{field}: '{quoted}'}}}}]");
        let Compiled { playbook, warnings } = compiled(&source);
        let task = &playbook.step(StepIx(0)).body.tasks[0];
        let value = task.config.values().next().expect("a value");
        assert_eq!(value.source(), json!(text), "{source}");
        assert_eq!(value.as_literal().is_some(), used, "{source}");
        assert!(warnings.iter().any(|warning| warning.code == code), "{}", show(&warnings));
    }
}

#[test]
fn codes_are_unique_and_explained() {
    for pair in CODES.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{pair:?}");
    }
    assert!(
        CODES.iter().all(|(code, meaning)| code.len() == 6 && code.starts_with("NE") && !meaning.trim().is_empty())
    );
}

/// A playbook with a bit of everything, to be damaged.
const SAMPLE: &str = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x, path: y}\nworkload: {a: 1, b: '{{ a }}'}\n\
workbook: [{name: w, tool: {kind: python, code: x}}]\nworkflow:\n- step: start\n  loop: {in: '{{ b }}', iterator: i, spec: {mode: parallel}}\n  \
tool:\n  - name: one\n    kind: http\n    url: 'u/{{ iter.i }}'\n    spec: {policy: {rules: [{when: '{{ output.status }}', then: {do: jump, to: one}}, {else: }]}}\n  \
- {name: two, kind: workbook, task: w}\n  next: {spec: {mode: inclusive}, arcs: [{step: end, set: {ctx.a: 1}}, {step: start, cond: a > 1}]}\n\
- step: end\n  tool: {kind: shell, cmds: ['ls {{ ctx.a }}', |]}\n";

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\PC|\n|: |- |\\{\\{|\\}\\}|  ){0,200}") {
        if let Err(found) = compile(&text) {
            prop_assert!(!found.is_empty());
        }
    }

    #[test]
    fn damaged_playbooks_are_read_or_refused(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "([a-z{}\\[\\]:,'\"|%&*!#>\n -]|\\{\\{|\\}\\}|~|start|kind){0,4}"), 1..6),
    ) {
        let mut letters: Vec<char> = SAMPLE.chars().collect();
        for (at, len, text) in cuts {
            let at = at.index(letters.len());
            let end = (at + len).min(letters.len());
            letters.splice(at..end, text.chars());
        }
        let source: String = letters.into_iter().collect();
        let found = match compile(&source) {
            Ok(compiled) => compiled.warnings,
            Err(found) => {
                prop_assert!(found.iter().any(|finding| finding.severity == Severity::Error));
                found
            }
        };
        for finding in found {
            let span = finding.span.unwrap();
            prop_assert!(span.start <= span.end && span.end <= source.len(), "{finding}");
            prop_assert!(source.is_char_boundary(span.start) && source.is_char_boundary(span.end), "{finding}");
        }
    }
}
