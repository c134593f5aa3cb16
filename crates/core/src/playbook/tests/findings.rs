//! What is refused or warned about, with its place: the marks `«` and `»` in a source say where.

use serde_json::json;

use super::*;

/// Takes the marks `«` and `»` out of a source and says where they stood.
fn marked(source: &str) -> (String, std::ops::Range<usize>) {
    let start = source.find('«').expect("a mark");
    let source = source.replacen('«', "", 1);
    let end = source.find('»').expect("a second mark");
    (source.replacen('»', "", 1), start..end)
}

#[track_caller]
fn check_finding(found: &[Diagnostic], source: &str, at: &std::ops::Range<usize>, code: &str, words: &str) {
    let finding = found.iter().find(|finding| finding.code == code);
    let finding = finding.unwrap_or_else(|| panic!("no {code} in\n{}{source}", show(found)));
    let span = finding.span.expect("a place");
    assert_eq!(&source[span.start..span.end], &source[at.clone()], "{finding}\n{source}");
    assert_eq!(span.start, at.start, "{finding}");
    let line = source[..span.start].matches('\n').count() + 1;
    let line_start = source[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    assert_eq!(span.line as usize, line, "{finding}");
    assert_eq!(span.column as usize, source[line_start..span.start].chars().count() + 1, "{finding}");
    let text = format!("{} {}", finding.message, finding.hint.as_deref().unwrap_or_default());
    assert!(text.contains(words), "`{words}` is not in: {text}");
}

/// Each source has exactly one error, at the mark.
#[track_caller]
fn check_refused(cases: &[(&str, &str, &str)]) {
    for (source, code, words) in cases {
        let (source, at) = marked(source);
        let found = compile(&source).expect_err(&source);
        check_finding(&found, &source, &at, code, words);
        let errors: Vec<_> = found.iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{}\n{source}", show(&found));
    }
}

/// Each workflow (a list of steps without indentation) has exactly one error, at the mark.
#[track_caller]
fn check_refused_steps(cases: &[(&str, &str, &str)]) {
    let whole: Vec<_> =
        cases.iter().map(|(steps, code, words)| (format!("{HEAD}workflow:\n{steps}\n"), *code, *words)).collect();
    let cases: Vec<_> = whole.iter().map(|(source, code, words)| (source.as_str(), *code, *words)).collect();
    check_refused(&cases);
}

/// Each workflow compiles, with a warning at the mark.
#[track_caller]
fn check_warned(cases: &[(&str, &str, &str)]) {
    for (steps, code, words) in cases {
        let (source, at) = marked(&format!("{HEAD}workload: {{city: x}}\nworkflow:\n{steps}\n"));
        check_finding(&compiled(&source).warnings, &source, &at, code, words);
    }
}

#[test]
fn documents_are_refused_with_place_and_hint() {
    let rest = "workflow: [{step: a, tool: {kind: noop}}]";
    let with = |head: &str| format!("{head}\n{rest}\n");
    check_refused(&[
        (&with("apiVersion: «noetl.io/v1»\nkind: Playbook\nmetadata: {path: x}"), "NE0101", "noetl.io/v2"),
        (&with("«kind»: Playbook\nmetadata: {path: x}"), "NE0101", "missing"),
        (&with("apiVersion: noetl.io/v2\nkind: «Playbok»\nmetadata: {path: x}"), "NE0102", "kind: Playbook"),
        (&with("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {«description»: x}"), "NE0103", "path"),
        (&with("«apiVersion»: noetl.io/v2\nkind: Playbook"), "NE0103", "metadata"),
        (&with("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: «''»}"), "NE0007", "metadata.path"),
        (&with("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: x}\n«vars»: {a: 1}"), "NE0006", "workload"),
        (&with("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: x}\nworkload: «text»"), "NE0004", "mapping"),
        (
            &with("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: x, «path»: y}"),
            "NE0003",
            "first one is on line 3",
        ),
        (&format!("{HEAD}workflow: «[»]\n"), "NE0104", "no steps"),
        (&format!("{HEAD}workflow: «text»\n").replace("«text»", "«~»"), "NE0104", "no steps"),
        ("- «a»", "NE0004", "a playbook is a mapping"),
        (&with(&format!("{HEAD}executor: {{spec: {{entry_step: «b»}}}}")), "NE0203", "steps are: a"),
        (&with(&format!("{HEAD}executor: {{spec: {{final_step: «A»}}}}")), "NE0203", "did you mean `a`"),
        (&with(&format!("{HEAD}executor: {{spec: {{cancel: {{mode: «stop»}}}}}}")), "NE0503", "finish, interrupt"),
        (&with(&format!("{HEAD}executor: {{spec: {{timeout: «soon»}}}}")), "NE0007", "90s"),
        (&with(&format!("{HEAD}executor: {{spec: {{limits: {{max_steps: «0»}}}}}}")), "NE0007", "at least 1"),
        (&with(&format!("{HEAD}executor: {{spec: {{strict: «maybe»}}}}")), "NE0004", "true or false"),
        (&with(&format!("{HEAD}keychain: [{{«kind»: static}}]")), "NE0004", "name"),
        (&with(&format!("{HEAD}workbook: [{{«name»: x}}]")), "NE0204", "no `tool`"),
    ]);
}

#[test]
fn steps_are_refused_with_place_and_hint() {
    let noop = "tool: {kind: noop}";
    check_refused_steps(&[
        (&format!("- {{«desc»: x, {noop}}}"), "NE0201", "step: name"),
        (&format!("- {{step: «''», {noop}}}"), "NE0201", "one line"),
        (&format!("- {{step: a, {noop}}}\n- {{step: «a», {noop}}}"), "NE0202", "line 5"),
        ("- {«step»: a}", "NE0204", "kind: noop"),
        ("- {step: a, tool: «~»}", "NE0204", "no tool"),
        ("- {step: a, tool: «[»]}", "NE0204", "empty"),
        ("- {step: a, tool: «noop»}", "NE0301", "tool: {kind: noop}"),
        ("- {step: a, tool: {«code»: x}}", "NE0301", "python"),
        ("- {step: a, tool: {«type»: python, code: x}}", "NE0301", "instead of `type`"),
        ("- {step: a, tool: {kind: «pyhton», code: x}}", "NE0302", "did you mean `python`"),
        ("- {step: a, tool: [{name: b, kind: «containers», image: x}]}", "NE0302", "postgres"),
        ("- {step: a, tool: [{name: x, kind: noop}, {name: «x», kind: noop}]}", "NE0304", "called `x`"),
        ("- {step: a, tool: {kind: workbook, name: «x»}}", "NE0305", "no `workbook`"),
        ("- {step: a, tool: {«kind»: workbook}}", "NE0305", "name"),
        ("- {step: a, tool: {«kind»: python}}", "NE0306", "`code` or `script`"),
        ("- {step: a, tool: {«kind»: http, method: GET}}", "NE0306", "`url`"),
        (&format!("- {{step: a, {noop}, next: «b»}}"), "NE0203", "steps are: a"),
        (&format!("- {{step: fetch, {noop}, next: {{arcs: [{{step: «fetsh»}}]}}}}"), "NE0203", "did you mean `fetch`"),
        (&format!("- {{step: a, {noop}, next: {{arcs: [{{«when»: true}}]}}}}"), "NE0601", "no `step`"),
        (&format!("- {{step: a, {noop}, next: {{«spec»: {{}}}}}}"), "NE0601", "arcs"),
        (&format!("- {{step: a, {noop}, next: {{spec: {{mode: «inclusiv»}}, arcs: []}}}}"), "NE0503", "inclusive"),
        (&format!("- {{step: a, {noop}, next: {{arcs: [{{step: a, «expr»: x > 1}}]}}}}"), "NE0006", "{{ x > 1 }}"),
        (&format!("- {{step: a, {noop}, next: {{arcs: [{{step: a, when: true, cond: «x»}}]}}}}"), "NE0601", "either"),
        (&format!("- {{step: a, {noop}, «case»: []}}"), "NE0006", "arcs"),
        (&format!("- {{step: a, {noop}, «set_ctx»: {{}}}}"), "NE0006", "ctx.name"),
        (&format!("- {{step: a, {noop}, «args»: {{}}}}"), "NE0006", "input"),
        (&format!("- {{step: a, {noop}, «type»: x}}"), "NE0006", "kind"),
        (&format!("- {{step: a, {noop}, «result»: x}}"), "NE0006", "ctx.name"),
        (&format!("- {{step: a, {noop}, «outcome»: x}}"), "NE0006", "policy"),
        (&format!("- {{step: a, {noop}, «set_iter»: {{}}}}"), "NE0006", "iter.name"),
        (&format!("- {{step: a, {noop}, input: «x»}}"), "NE0004", "mapping"),
        (&format!("- {{step: a, {noop}, set: {{«ctx»: 1}}}}"), "NE0602", "ctx.name"),
        (&format!("- {{step: a, {noop}, set: {{«ctx..a»: 1}}}}"), "NE0602", "ctx.name"),
        (&format!("- {{step: a, {noop}, loop: {{«in»: [1]}}}}"), "NE0501", "iterator: item"),
        (&format!("- {{step: a, {noop}, loop: {{in: [1], iterator: «my-item»}}}}"), "NE0501", "underscores"),
        (&format!("- {{step: a, {noop}, loop: {{«iterator»: x}}}}"), "NE0502", "nothing to iterate"),
        (
            &format!("- {{step: a, {noop}, loop: {{iterator: x, in: [1], cursor: {{«kind»: postgres, claim: x}}}}}}"),
            "NE0502",
            "either",
        ),
        (&format!("- {{step: a, {noop}, loop: {{iterator: x, cursor: {{«auth»: x, claim: x}}}}}}"), "NE0502", "kind"),
        (&format!("- {{step: a, {noop}, loop: {{iterator: x, cursor: {{«kind»: postgres}}}}}}"), "NE0502", "claim"),
        (
            &format!("- {{step: a, {noop}, loop: {{iterator: x, in: [1], spec: {{mode: «paralel»}}}}}}"),
            "NE0503",
            "parallel",
        ),
        (
            &format!("- {{step: a, {noop}, loop: {{iterator: x, in: [1], spec: {{mode: «cursor»}}}}}}"),
            "NE0502",
            "cursor",
        ),
        (
            &format!("- {{step: a, {noop}, loop: {{iterator: x, in: [1], spec: {{max_in_flight: «0»}}}}}}"),
            "NE0007",
            "at least 1",
        ),
        (&format!("- {{step: a, {noop}, spec: {{timeout: «x»}}}}"), "NE0007", "5m"),
        (&format!("- {{step: a, {noop}, spec: {{priority: «1.5»}}}}"), "NE0007", "whole"),
        (&format!("- {{step: a, {noop}, spec: {{policy: {{admit: {{«mode»: exclusive}}}}}}}}"), "NE0401", "rules"),
        (&format!("- {{step: a, {noop}, spec: {{policy: {{rules: «[»]}}}}}}"), "NE0006", "tool"),
        (
            &format!(
                "- {{step: a, {noop}, when: «'{{{{ x | default(1) }}}}'», spec: {{policy: {{admit: {{rules: [{{when: true, then: {{allow: true}}}}]}}}}}}}}"
            ),
            "NE0207",
            "both",
        ),
    ]);
}

#[test]
fn policies_are_refused_with_place_and_hint() {
    let with = |policy: &str| {
        format!(
            "- step: a\n  tool:\n  - {{name: one, kind: noop}}\n  - {{name: two, kind: noop, spec: {{policy: {policy}}}}}"
        )
    };
    check_refused_steps(&[
        (&with("{«mode»: x}"), "NE0401", "rules"),
        (&with("{rules: «[»]}"), "NE0401", "at least one"),
        (&with("{rules: [{«name»: x}]}"), "NE0402", "neither"),
        (&with("{rules: [{when: true, else: {«do»: fail}}]}"), "NE0402", "two rules"),
        (&with("{rules: [{when: true, then: {do: «retyr»}}]}"), "NE0403", "did you mean `retry`"),
        (&with("{rules: [{when: true, then: {do: «explode»}}]}"), "NE0403", "continue, retry, jump, break, fail"),
        (&with("{rules: [{when: true, then: {do: «jump»}}]}"), "NE0404", "to: <label"),
        (&with("{rules: [{when: true, then: {do: jump, to: «onee»}}]}"), "NE0404", "did you mean `one`"),
        (&with("{rules: [{when: true, then: {do: jump, to: «three»}}]}"), "NE0404", "one, two"),
        (&with("{rules: [{when: true, then: {do: retry, attempts: «0»}}]}"), "NE0007", "at least 1"),
        (&with("{rules: [{when: true, then: {do: retry, attempts: «2.5»}}]}"), "NE0007", "whole"),
        (&with("{rules: [{when: true, then: {do: retry, delay: «-1»}}]}"), "NE0007", "at least 0"),
        (&with("{rules: [{when: true, then: {do: retry, backoff: «expo»}}]}"), "NE0503", "exponential"),
        (&with("{rules: [{when: true, then: {«set_ctx»: {a: 1}}}]}"), "NE0006", "ctx.x"),
        (&with("{rules: [{when: «[»1], then: {do: fail}}]}"), "NE0004", "template"),
    ]);
}

#[test]
fn a_template_that_does_not_parse_is_shown_where_it_breaks() {
    check_warned(&[
        ("- step: a\n  tool: {kind: noop}\n  when: \"{{ a «=» b }}\"", "NE0701", "did you mean `==`"),
        ("- step: a\n  tool: {kind: noop}\n  input:\n    x: 'it''s {{ 1 «2» }}'", "NE0701", ""),
        ("- step: a\n  tool: {kind: noop}\n  input:\n    x: |\n      one\n        {{ 1 «2» }}", "NE0701", ""),
        ("- step: a\n  tool: {kind: noop}\n  input:\n    x: \"ü\\n\\\n      \\  {{ 1 «2» }}\"", "NE0701", ""),
        ("- step: a\n  tool: {kind: noop}\n  input: {x: {y: ['«{{ open»']}}", "NE0701", "never closed"),
        ("- step: a\n  tool: {kind: noop}\n  next: {arcs: [{step: a, cond: 1 «2»}]}", "NE0701", ""),
        (
            "- step: a\n  tool: {kind: noop}\n  next: {arcs: [{step: a, when: '{{ 1 | «odder» }}'}]}",
            "NE0701",
            "there are: abs",
        ),
        (
            "- step: a\n  tool: {kind: noop}\n  set:\n    ctx.a: >-\n      folded\n      {{ 1 «2» }}",
            "NE0701",
            "{% raw %}",
        ),
    ]);
    check_warned(&[
        ("- {step: a, tool: {kind: noop}, when: '{{ city | «tojsn» }}'}", "NE0701", "did you mean `tojson`"),
        ("- {step: a, tool: {kind: noop}, when: '{{ city is «defind» }}'}", "NE0701", "did you mean `defined`"),
        ("- {step: a, tool: {kind: noop}, when: '{{ city is not «defind» }}'}", "NE0701", "did you mean `defined`"),
        ("- {step: a, tool: {kind: noop}, when: '{{ [1] | «random» }}'}", "NE0701", "left to chance"),
        ("- {step: a, tool: {kind: noop}, when: '{{ city.«append»(1) }}'}", "NE0701", "l + [x]"),
        ("- {step: a, tool: {kind: noop}, input: {x: '{% do city.«update»({}) %}'}}", "NE0701", "combine"),
        ("- {step: a, tool: {kind: noop}, when: '{{ city | «zzzzz» }}'}", "NE0701", "there are: abs"),
    ]);
    // No step is there to fail for it.
    check_refused(&[(
        &format!("{HEAD}workload: {{x: '{{{{ 1 | «odder» }}}}'}}\nworkflow: [{{step: a, tool: {{kind: noop}}}}]\n"),
        "NE0701",
        "there are: abs",
    )]);
}

#[test]
fn what_can_not_be_a_label_is_left_out() {
    let rest = "workflow: [{step: a, tool: {kind: noop}}]";
    for (labels, code, kept) in [
        ("[a, b]", "NE0004", ""),
        ("text", "NE0004", ""),
        ("{type: 'e2e,core', ok: yes}", "NE0007", "ok"),
        ("{a: ~, ok: 1}", "NE0004", "ok"),
        ("{a: [x], ok: true}", "NE0004", "ok"),
        ("{'x y': z, ok: 1}", "NE0007", "ok"),
    ] {
        let source =
            format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: x, labels: {labels}}}\n{rest}\n");
        let compiled = compiled(&source);
        let found: Vec<_> = compiled.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(found, [code], "{labels}");
        let names: Vec<_> = compiled.playbook.labels.keys().map(|name| &**name).collect();
        assert_eq!(names.join(" "), kept, "{labels}");
    }
    let many: Vec<_> = (0..=crate::labels::LABELS_MAX).map(|nth| format!("n{nth}: x")).collect();
    let source = format!(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{path: x, labels: {{{}}}}}\n{rest}\n",
        many.join(", ")
    );
    let compiled = compiled(&source);
    assert_eq!((compiled.playbook.labels.len(), compiled.warnings.len()), (crate::labels::LABELS_MAX, 1));
}

#[test]
fn inputs_that_no_template_finds_by_their_name_are_warned_about() {
    let rest = "workflow: [{step: a, tool: {kind: noop}}]";
    for name in ["path", "version", "job", "env", "output"] {
        let source = format!("{HEAD}workload: {{ok: 1, {name}: x}}\n{rest}\n");
        let found = show(&compiled(&source).warnings);
        assert!(found.contains("NE0707") && found.contains(&format!("workload.{name}")), "{name}: {found}");
    }
}

#[test]
fn what_looks_wrong_is_warned_about() {
    let noop = "tool: {kind: noop}";
    check_warned(&[
        (&format!("- {{step: a, {noop}, «descr»: x}}"), "NE0005", "did you mean `desc`"),
        (
            &format!("- {{step: a, {noop}, next: {{arcs: [{{step: a, «wehn»: true}}]}}}}"),
            "NE0005",
            "did you mean `when`",
        ),
        ("- {step: a, tool: {kind: http, url: u, «heders»: {}}}", "NE0005", "did you mean `headers`"),
        ("- {step: a, tool: {kind: http, url: u, «endpoint»: v}}", "NE0005", "mean the same"),
        ("- {step: a, tool: {kind: «nats»}}", "NE0303", "fails when it is reached"),
        ("- {step: a, tool: {kind: «ducklake»}}", "NE0303", "supported are: artifact"),
        ("- {step: a, tool: [{name: b, kind: «container», image: x}]}", "NE0303", "fails when it is reached"),
        ("- {step: a, tool: {kind: «snowflake», command: x}}", "NE0303", "supported are: artifact"),
        (&format!("- {{step: a, {noop}}}\n- {{step: «b», {noop}}}"), "NE0205", "never runs"),
        (&format!("- {{step: «ctx», {noop}}}"), "NE0206", "steps.ctx"),
        (&format!("- {{step: a, {noop}, next: {{arcs: [{{step: a, set: {{«x»: 1}}}}]}}}}"), "NE0603", "ctx.x"),
        (&format!("- {{step: a, {noop}, when: «ctx.x > 3»}}"), "NE0703", "{{ ctx.x > 3 }}"),
        (&format!("- {{step: a, {noop}, input: {{x: '{{{{ «ctiy» }}}}'}}}}"), "NE0704", "did you mean `city`"),
        (&format!("- {{step: a, {noop}, input: {{x: 'a {{{{ city + «somewhere».x }}}}'}}}}"), "NE0704", "workload"),
        (
            "- {step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: fail}}, {«when»: true}]}}}}",
            "NE0405",
            "never reached",
        ),
        (&format!("- {{step: a, {noop}, when: «\"{{{{ city }}}} == 'ok'\"»}}"), "NE0703", "write `{{ city == 'ok' }}`"),
        (
            "- {step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: fail}}], «on_unmatched»: continue}}}}",
            "NE0708",
            "no effect",
        ),
        (&format!("- {{step: a, {noop}, spec: {{policy: {{«failure»: {{mode: x}}}}}}}}"), "NE0708", "call.error"),
        (&format!("- {{step: a, {noop}, spec: {{policy: {{«emit»: [x]}}}}}}"), "NE0708", "no effect"),
        (&format!("- {{step: a, {noop}, output: {{store: {{kind: «redis»}}}}}}"), "NE0708", "beside the log"),
        ("- {step: a, tool: {kind: python, code: x, «retry»: 3}}", "NE0005", "do: retry"),
        ("- {step: a, tool: {kind: shell, command: 'x {{ «.»Name }}'}}", "NE0705", "the step fails"),
        ("- {step: a, tool: {kind: python, code: 'x {{ «.»Name }}'}}", "NE0702", "as it is"),
    ]);
}

#[test]
fn a_secret_is_warned_about_where_it_is_empty() {
    let noop = "tool: {kind: noop}";
    let shell = "tool: {kind: shell, command: x}";
    check_warned(&[
        (
            &format!(
                "- {{step: a, {shell}, next: {{arcs: [{{step: a, set: {{ctx.x: '{{{{ «keychain».k.v }}}}'}}}}]}}}}"
            ),
            "NE0706",
            "empty",
        ),
        (
            &format!("- {{step: a, {shell}, next: {{arcs: [{{step: a, when: '{{{{ «keychain».k.v == 1 }}}}'}}]}}}}"),
            "NE0706",
            "empty",
        ),
        (
            &format!("- {{step: a, {shell}, next: {{arcs: [{{step: a, cond: «keychain».k.v == 1}}]}}}}"),
            "NE0706",
            "empty",
        ),
        (&format!("- {{step: a, {shell}, set: {{ctx.x: '{{{{ «keychain».k.v }}}}'}}}}"), "NE0706", "empty"),
        (&format!("- {{step: a, {shell}, set: {{ctx.x: \"{{{{ «token»('k') }}}}\"}}}}"), "NE0706", "empty"),
        (&format!("- {{step: a, {shell}, when: '{{{{ «keychain».k.v }}}}'}}"), "NE0706", "empty"),
        (
            &format!(
                "- {{step: a, {shell}, spec: {{policy: {{admit: {{rules: [{{when: '{{{{ «keychain».k.v }}}}', then: {{allow: true}}}}]}}}}}}}}"
            ),
            "NE0706",
            "empty",
        ),
        (&format!("- {{step: a, {shell}, loop: {{in: '{{{{ «keychain».k.v }}}}', iterator: i}}}}"), "NE0706", "empty"),
        (&format!("- {{step: a, input: {{x: '{{{{ «keychain».k.v }}}}'}}, {noop}}}"), "NE0706", "empty"),
        ("- {step: a, tool: {kind: noop, result: {x: '{{ «keychain».k.v }}'}}}", "NE0706", "`input`"),
        ("- {step: a, tool: {kind: playbook, path: p, input: {x: '{{ «keychain».k.v }}'}}}", "NE0706", "empty"),
        ("- {step: a, tool: {kind: shell, command: x, set: {ctx.x: '{{ «keychain».k.v }}'}}}", "NE0706", "empty"),
    ]);
    let given = format!(
        "{HEAD}workload: {{token: 1}}\nkeychain: [{{name: k, kind: static, map: {{v: '{{{{ keychain.l.v }}}}'}}}}]\nworkflow:\n\
         - step: a\n  input: {{x: '{{{{ keychain.k.v }}}}'}}\n  tool:\n  - n: {{kind: noop}}\n  \
         - h: {{kind: http, url: '{{{{ keychain.k.v }}}}', input: {{y: \"{{{{ token('k') }}}}\"}}}}\n  \
         set: {{ctx.x: '{{{{ token }}}}'}}\n"
    );
    assert_eq!(show(&compiled(&given).warnings), "");
}

#[test]
fn names_that_something_defines_are_not_warned_about() {
    let source = format!(
        "{HEAD}workload: {{city: x}}\nextra: {{a: 1}}\nworkflow:\n- step: start\n  input: {{arg: 1}}\n  loop: {{in: '{{{{ city }}}}', iterator: item}}\n  \
         tool:\n  - {{name: first, kind: noop, input: {{own: 1}}, set: {{local: 1, iter.i: 2}}}}\n  \
         - {{name: second, kind: noop, input: {{x: '{{{{ [item, first, own, local, i, arg, start, var, extra, ctx, iter, output, job, env, \
         event, result, loop_index, execution_id, _index, now(), range(3)] }}}}', y: '{{{{ nowhere | default(1) }}}}', \
         z: '{{% for q in city %}}{{{{ q }}}}{{{{ loop.index }}}}{{% endfor %}}'}}}}\n  set: {{ctx.var: 1}}\n"
    );
    assert_eq!(show(&compiled(&source).warnings), "");
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let found = compile(
        "apiVersion: v1\nkind: Playbook\nmetadata: {name: x}\nvars: {}\nworkflow:\n- step: a\n  tool: {kind: pithon}\n  next: [b, c]\n\
         - step: a\n  when: '{{ }}'\n  tool: {kind: http, url: 'x {{ a. }}'}\n- step: d\n  loop: {}\n",
    )
    .unwrap_err();
    let lines: Vec<_> = found
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| (finding.span.unwrap().line, finding.code))
        .collect();
    assert_eq!(
        lines,
        [
            (1, "NE0101"),
            (4, "NE0006"),
            (7, "NE0302"),
            (8, "NE0203"),
            (8, "NE0203"),
            (9, "NE0202"),
            (12, "NE0204"),
            (13, "NE0501"),
            (13, "NE0502"),
        ],
        "{}",
        show(&found)
    );
}

#[test]
fn diagnostics_are_plain_data() {
    let found =
        compile("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x}\nworkflow: [{step: a}]").unwrap_err();
    assert_eq!(
        serde_json::to_value(&found).unwrap(),
        json!([{
            "code": "NE0204", "severity": "error", "message": "step `a` has no `tool`",
            "span": {"start": 71, "end": 75, "line": 4, "column": 13}, "hint": "write `tool: {kind: noop}` for a step that does nothing",
        }])
    );
    assert_eq!(
        found[0].to_string(),
        "4:13: error[NE0204]: step `a` has no `tool` (write `tool: {kind: noop}` for a step that does nothing)"
    );
}

#[test]
fn findings_and_steps_are_bounded() {
    let steps =
        |count: usize| (0..count).map(|n| format!("- {{step: s{n}, tool: {{kind: nope}}}}\n")).collect::<String>();
    let found = compile(&format!("{HEAD}workflow:\n{}", steps(1_000))).unwrap_err();
    assert_eq!(found.len(), DIAGNOSTICS_MAX);
    let found = compile(&format!("{HEAD}workflow:\n{}", steps(STEPS_MAX + 1))).unwrap_err();
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["NE0105"]);
    let tasks = "{kind: noop}, ".repeat(TASKS_MAX + 1);
    let found = compile(&format!("{HEAD}workflow: [{{step: a, tool: [{tasks}]}}]")).unwrap_err();
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["NE0307"]);
    let arcs = "missing_step_with_a_name, ".repeat(20_000);
    let found = compile(&format!(
        "{HEAD}workflow:\n{}- {{step: x, tool: {{kind: noop}}, next: [{arcs}]}}",
        steps(STEPS_MAX - 1)
    ))
    .unwrap_err();
    assert_eq!(found.len(), DIAGNOSTICS_MAX);
}
