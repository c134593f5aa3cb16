//! One step: admission, loop, output and `spec`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::codes;
use super::model::{AdmitRule, Body, CancelMode, Cursor, Loop, LoopSource, Next, Output, Reads, Step, StepSpec, Task};
use super::policy;
use super::reader::{Reader, Unreadable};
use super::routing::{Bare, Outline, assignments, next};
use super::task::{self, ENGINE_KINDS};
use super::tree::{Node, Yaml};
use crate::expr::ValueTemplate;

const KEYS: &[&str] = &[
    "step",
    "name",
    "desc",
    "description",
    "tool",
    "loop",
    "next",
    "set",
    "input",
    "output",
    "output_select",
    "spec",
    "when",
];

/// Keys of older languages, and what to write instead.
const LEGACY: &[(&str, &str)] = &[
    ("case", "write `next: {arcs: [{step: …, when: …}]}`, and `spec.policy` on the tool for retries"),
    ("type", "write `tool: {kind: …}`"),
    ("args", "write `input: {…}`"),
    ("with", "write `input: {…}`"),
    ("set_ctx", "write `set: {ctx.name: …}`"),
    ("set_iter", "write `set: {iter.name: …}` on the task"),
    ("result", "the result has the step's name; write `set: {ctx.name: …}` to keep a part of it"),
    ("outcome", "write `spec.policy` on the tool"),
    ("iterator", "write `loop: {in: …, iterator: …}`"),
    ("vars", "write `set: {ctx.name: …}`"),
    ("eval", "write `spec.policy` on the tool"),
    ("sink", "write a step or task that stores it"),
    ("save", "write a step or task that stores it"),
    ("assert", "write a python task that raises"),
    ("retry", "write `spec: {policy: {rules: [{when: …, then: {do: retry}}]}}` on the tool"),
    ("run", "write `tool: {kind: …}`"),
    ("call", "write `tool: {kind: …}`"),
    ("bind", "write `set: {ctx.name: …}`"),
];

/// Reads one step; its name is known already.
pub(super) fn step(reader: &mut Reader<'_>, outline: &mut Outline<'_>, name: &Arc<str>, node: &Node) -> Option<Step> {
    for (key, _) in node.entries() {
        if let Some((_, instead)) = LEGACY.iter().find(|(legacy, _)| *legacy == key.text) {
            let message = format!("`{}` on a step is not read any more", key.text);
            reader.error(codes::LEGACY_KEY, key.span, message, *instead);
        }
    }
    reader.unknown_keys(node, "a step", KEYS);

    let uses = reader.uses.len();
    let input = node.get("input").map(|input| reader.mapping(input, "`input`")).unwrap_or_default();
    let uses = uses..reader.uses.len();
    outline.defined.extend(input.keys().map(ToString::to_string));
    let looping = node.get("loop").filter(|node| !node.is_null()).map(|node| looping(reader, outline, node));
    let body = body(reader, outline, name, node);
    let tasks = body.iter().flat_map(|body| &body.tasks);
    let for_worker = tasks.into_iter().any(|task| !ENGINE_KINDS.contains(&&*task.kind));
    reader.uses[uses].iter_mut().for_each(|used| used.for_worker = for_worker);
    let (spec, mut admit) = match node.get("spec").filter(|spec| !spec.is_null()) {
        Some(spec) => read_spec(reader, outline, spec),
        None => (StepSpec::default(), Vec::new()),
    };
    if let Some(when) = node.get("when") {
        if !admit.is_empty() {
            let hint = "keep `spec.policy.admit`";
            reader.error(codes::TWO_ADMISSIONS, when.span, format!("step `{name}` has both `when` and `admit`"), hint);
        }
        if let Some(when) = reader.condition(when) {
            admit = vec![AdmitRule { when: Some(when), allow: true }, AdmitRule { when: None, allow: false }];
        }
    }
    let set = node.get("set").map(|set| assignments(reader, outline, set, Bare::Ctx)).unwrap_or_default();
    let output = output(reader, node);
    let next = node.get("next").map(|node| next(reader, outline, node)).unwrap_or_default();
    let description = node.get("desc").or_else(|| node.get("description")).and_then(Node::as_str).map(str::to_owned);
    let mut looping = match looping {
        Some(looping) => Some(looping?),
        None => None,
    };
    if let Some(Loop { source: LoopSource::Cursor(cursor), .. }) = &mut looping {
        (cursor.claim.name, cursor.claim.spec) = (Arc::clone(name), spec.clone());
    }
    let body = body?;
    let reads = Reads::of(&input, &body);
    Some(Step {
        name: Arc::clone(name),
        description,
        input,
        admit,
        looping,
        body,
        set,
        output,
        next,
        spec,
        reads,
        claims: false,
    })
}

fn body(reader: &mut Reader<'_>, outline: &mut Outline<'_>, name: &str, node: &Node) -> Option<Body> {
    match node.get("tool") {
        Some(tool) => task::body(reader, outline, name, tool),
        None => {
            let span = node.place();
            let hint = "write `tool: {kind: noop}` for a step that does nothing";
            reader.error(codes::NO_TOOL, span, format!("step `{name}` has no `tool`"), hint);
            None
        }
    }
}

/// What the step says of its result, and where it says nothing, what its tool says.
fn output(reader: &mut Reader<'_>, node: &Node) -> Output {
    let tool = node.get("tool").filter(|tool| tool.is_map()).and_then(|tool| task::output_of(reader, tool));
    let tool = tool.unwrap_or_default();
    let step = match node.get("output").filter(|output| !output.is_null()) {
        Some(output) => task::output(reader, output),
        None => Output::default(),
    };
    let select = match node.get("output_select") {
        Some(select) if step.select.is_empty() => task::names(reader, select),
        Some(_) | None => step.select,
    };
    Output {
        select: if select.is_empty() { tool.select } else { select },
        store: step.store.or(tool.store),
        inline_bytes_max: step.inline_bytes_max.or(tool.inline_bytes_max),
    }
}

fn read_spec(reader: &mut Reader<'_>, outline: &Outline<'_>, node: &Node) -> (StepSpec, Vec<AdmitRule>) {
    let mut spec = StepSpec::default();
    let mut admit = Vec::new();
    if !node.is_map() {
        reader.wrong_kind(node, "`spec` of a step", "a mapping");
        return (spec, admit);
    }
    let known =
        ["pool", "run_on", "at_most_once", "timeout", "timeout_s", "cancel", "compensate", "priority", "policy"];
    reader.unknown_keys(node, "`spec` of a step", &known);
    spec.pool =
        node.get("pool").filter(|pool| !pool.is_null()).and_then(|pool| reader.text(pool, "`pool`")).map(Arc::from);
    if let Some(place) = node.get("run_on") {
        spec.on_worker =
            reader.word(place, "`run_on`", &[("worker", true), ("any", false), ("server", false)]).unwrap_or(false);
    }
    spec.at_most_once = node.get("at_most_once").and_then(|flag| reader.flag(flag, "`at_most_once`")).unwrap_or(false);
    let timeout = node.get("timeout").or_else(|| node.get("timeout_s"));
    spec.timeout_ms = timeout.and_then(|timeout| reader.duration(timeout, "`timeout`"));
    spec.priority = priority(reader, node);
    if let Some(named) = node.get("compensate").filter(|named| !named.is_null()) {
        let name = reader.text(named, "`compensate`");
        spec.compensate = name.and_then(|name| outline.find(reader, &name, named.span));
    }
    if let Some(cancel) = node.get("cancel").filter(|cancel| !cancel.is_null()) {
        reader.unknown_keys(cancel, "`spec.cancel` of a step", &["boundary", "grace_seconds"]);
        if let Some(word) = cancel.get("boundary") {
            let words = [("task", true), ("step", false), ("pipeline", false)];
            spec.cancel_between_tasks = reader.word(word, "`boundary`", &words).unwrap_or(false);
        }
        spec.cancel_grace_ms = cancel.get("grace_seconds").and_then(|grace| reader.duration(grace, "`grace_seconds`"));
    }
    if let Some(policy) = node.get("policy").filter(|policy| !policy.is_null()) {
        if let Some(rules) = policy.get("rules") {
            let hint = "rules on the outcome of a task belong under `tool: {spec: {policy: …}}`";
            reader.error(codes::LEGACY_KEY, rules.place(), "`policy.rules` is no part of a step's `spec`", hint);
        }
        reader.unknown_keys(policy, "`spec.policy` of a step", &["admit", "lifecycle", "failure", "emit", "rules"]);
        admit = policy.get("admit").map(|admit| admission(reader, admit)).unwrap_or_default();
    }
    (spec, admit)
}

fn admission(reader: &mut Reader<'_>, node: &Node) -> Vec<AdmitRule> {
    let Some(Node { yaml: Yaml::List(rules), .. }) = node.get("rules") else {
        let hint = "write `admit: {rules: [{when: …, then: {allow: true}}, {else: {then: {allow: false}}}]}`";
        reader.error(codes::NO_RULES, node.place(), "`admit` has no list of `rules`", hint);
        return Vec::new();
    };
    reader.unknown_keys(node, "`admit`", &["mode", "rules"]);
    let mut out = Vec::new();
    for rule in rules {
        if let Some((when, then)) = policy::conclusion(reader, rule) {
            let allow = then.and_then(|then| then.get("allow")).and_then(|allow| reader.flag(allow, "`allow`"));
            match allow {
                Some(allow) => out.push(AdmitRule { when, allow }),
                None => reader.error(
                    codes::BAD_RULE,
                    rule.place(),
                    "an admission rule does not say `allow`",
                    "write `then: {allow: true}`",
                ),
            }
        }
    }
    out
}

fn looping(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node) -> Option<Loop> {
    if !node.is_map() {
        reader.wrong_kind(node, "`loop`", "a mapping with `in` and `iterator`");
        return None;
    }
    let known = ["in", "collection", "cursor", "iterator", "element", "spec", "mode", "max_in_flight"];
    reader.unknown_keys(node, "`loop`", &known);
    let iterator = iterator(reader, node);
    outline.defined.extend(iterator.as_deref().map(str::to_owned));
    let spec = node.get("spec").filter(|spec| !spec.is_null());
    let known = ["mode", "max_in_flight", "policy", "frame", "complete_when", "on_complete"];
    if let Some(spec) = spec {
        reader.unknown_keys(spec, "`loop.spec`", &known);
    }
    let cursor = node.get("cursor").filter(|cursor| !cursor.is_null());
    let mode = spec.and_then(|spec| spec.get("mode")).or_else(|| node.get("mode")).and_then(|mode| {
        let words = [
            ("sequential", Mode::Sequential),
            ("parallel", Mode::Parallel),
            ("async", Mode::Parallel),
            ("cursor", Mode::Cursor),
        ];
        let word = reader.word(mode, "the mode of a loop", &words)?;
        if (word == Mode::Cursor) != cursor.is_some() {
            let (message, hint) = match cursor {
                Some(_) => ("a loop with a `cursor` has mode `cursor`", "write `mode: cursor`"),
                None => {
                    ("a loop of mode `cursor` has no `cursor`", "write `cursor: {kind: postgres, auth: …, claim: …}`")
                }
            };
            reader.error(codes::BAD_LOOP_SOURCE, mode.span, message, hint);
        }
        Some(word)
    });
    let max_in_flight = spec
        .and_then(|spec| spec.get("max_in_flight"))
        .or_else(|| node.get("max_in_flight"))
        .and_then(|node| policy::number(reader, node, "`max_in_flight`", 1.0));
    let complete_when = spec.and_then(|spec| spec.get("complete_when")).filter(|node| !node.is_null());
    if complete_when.is_some() {
        outline.defined.insert("stats".to_owned());
    }
    let complete_when = complete_when.and_then(|node| reader.condition(node));
    let words = [("cancel", CancelMode::Interrupt), ("wait", CancelMode::Finish)];
    let on_complete = spec
        .and_then(|spec| spec.get("on_complete"))
        .and_then(|node| reader.word(node, "`on_complete`", &words))
        .unwrap_or(CancelMode::Interrupt);
    let source = source(reader, node, cursor, spec);
    let parallel = match mode {
        Some(Mode::Parallel) => true,
        Some(Mode::Cursor) => max_in_flight.is_some(),
        Some(Mode::Sequential) | None => cursor.is_some() && max_in_flight.is_some(),
    };
    let (source, iterator) = (source?, Arc::from(iterator?));
    Some(Loop { source, iterator, parallel, max_in_flight, complete_when, on_complete })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Sequential,
    Parallel,
    Cursor,
}

fn iterator(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let Some(named) = node.get("iterator").or_else(|| node.get("element")) else {
        let span = node.place();
        reader.error(
            codes::BAD_ITERATOR,
            span,
            "a loop has no `iterator`",
            "add `iterator: item`; `{{ iter.item }}` is the element",
        );
        return None;
    };
    let name = reader.text(named, "`iterator`")?;
    let mut letters = name.chars();
    let starts = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
    if !(starts && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')) {
        let hint = "use letters, digits and underscores, and no digit first";
        reader.error(codes::BAD_ITERATOR, named.span, format!("`{name}` can not be the name of an element"), hint);
        return None;
    }
    Some(name)
}

fn source(reader: &mut Reader<'_>, node: &Node, cursor: Option<&Node>, spec: Option<&Node>) -> Option<LoopSource> {
    let collection = node.get("in").or_else(|| node.get("collection")).filter(|node| !node.is_null());
    match (collection, cursor) {
        (Some(collection), None) => Some(LoopSource::In(reader.value(collection, Unreadable::Refused))),
        (None, Some(cursor)) => read_cursor(reader, cursor, spec).map(LoopSource::Cursor),
        (Some(_), Some(cursor)) => {
            reader.error(
                codes::BAD_LOOP_SOURCE,
                cursor.place(),
                "a loop has either `in` or `cursor`",
                "remove one of them",
            );
            None
        }
        (None, None) => {
            let span = node.place();
            let hint = "write `in: \"{{ list }}\"`";
            reader.error(
                codes::BAD_LOOP_SOURCE,
                span,
                "a loop has nothing to iterate: neither `in` nor `cursor`",
                hint,
            );
            None
        }
    }
}

fn read_cursor(reader: &mut Reader<'_>, node: &Node, spec: Option<&Node>) -> Option<Cursor> {
    if !node.is_map() {
        reader.wrong_kind(node, "`cursor`", "a mapping with `kind`, `auth` and `claim`");
        return None;
    }
    let span = node.place();
    let Some(written) = node.get("kind") else {
        reader.error(codes::BAD_LOOP_SOURCE, span, "a cursor has no `kind`", "add `kind: postgres`");
        return None;
    };
    let kind = reader.word(written, "the kind of a cursor", &[("postgres", "postgres"), ("duckdb", "duckdb")])?;
    if node.get("claim").is_none() {
        let hint = "write the statement that claims rows, and returns none when there is nothing left";
        reader.error(codes::BAD_LOOP_SOURCE, span, "a cursor has no `claim`", hint);
        return None;
    }
    let mut config = IndexMap::new();
    for (key, item) in node.entries().iter().filter(|(key, _)| key.text != "kind") {
        let name = match &*key.text {
            "credential" => "auth",
            "claim" => "query",
            name => name,
        };
        let value = reader.for_tool(kind, |reader| reader.field(key, item, Unreadable::Refused));
        config.insert(Arc::from(name), value);
    }
    let frame = spec.and_then(|spec| spec.get("frame")).filter(|frame| !frame.is_null());
    let process = frame.and_then(|frame| frame.get("process"));
    let by_frame = process.and_then(|word| reader.word(word, "`process`", &[("row", false), ("frame", true)]));
    if let Some(frame) = frame {
        let known = [
            "max_rows",
            "max_seconds",
            "max_bytes",
            "lease_seconds",
            "heartbeat_seconds",
            "row_concurrency",
            "process",
        ];
        reader.unknown_keys(frame, "`frame`", &known);
    }
    let frame: IndexMap<Arc<str>, ValueTemplate> =
        frame.map(|frame| reader.mapping(frame, "`frame`")).unwrap_or_default();
    Some(Cursor { claim: Box::new(claim(kind, config)), frame, by_frame: by_frame.unwrap_or(false) })
}

/// Returns the step that claims rows; its name and `spec` are those of the loop.
fn claim(kind: &str, config: IndexMap<Arc<str>, ValueTemplate>) -> Step {
    let task = Task {
        label: Arc::from("claim"),
        kind: Arc::from(kind),
        config,
        defaults: IndexMap::new(),
        input: IndexMap::new(),
        set: Vec::new(),
        policy: Vec::new(),
        timeout: None,
        shield: None,
        mentions: Some(Vec::new()),
    };
    let body = Body { pipeline: false, tasks: vec![task] };
    let reads = Reads::of(&IndexMap::new(), &body);
    Step {
        name: Arc::from(""),
        description: None,
        input: IndexMap::new(),
        admit: Vec::new(),
        looping: None,
        body,
        set: Vec::new(),
        output: Output::default(),
        next: Next::default(),
        spec: StepSpec::default(),
        reads,
        claims: true,
    }
}

/// Reads the `priority` of a step or an executor, if it has one.
pub(super) fn priority(reader: &mut Reader<'_>, spec: &Node) -> Option<i32> {
    let priority = spec.get("priority").filter(|priority| !priority.is_null())?;
    let number = priority.to_json().as_i64().and_then(|number| i32::try_from(number).ok());
    if number.is_none() {
        reader.error(
            codes::OUT_OF_RANGE,
            priority.span,
            "`priority` has to be a whole number",
            "higher is claimed first",
        );
    }
    number
}
