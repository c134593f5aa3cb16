//! The document: its root keys, and the steps put together.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::codes;
use super::graph;
use super::model::{CancelMode, ConcurrencySpec, Executor, KeychainEntry, Playbook, Step, StepIx};
use super::names;
use super::policy::Place;
use super::reader::{Reader, Unreadable};
use super::routing::Outline;
use super::step::{priority, step};
use super::suggest::nearest;
use super::task::workbook_task;
use super::tree::{Node, Yaml};
use crate::concurrency::{LIMIT_MAX, OnConflict};
use crate::diag::Diagnostic;
use crate::expr::ValueTemplate;
use crate::labels::{self, LABELS_MAX, Labels};

/// Most steps of a playbook.
pub const STEPS_MAX: usize = 2_000;
/// Longest name of a step or path of a playbook, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 512;
/// `executor.spec.limits.max_steps` when it is not said.
pub(super) const MAX_STEPS_DEFAULT: u64 = 1_000_000;
/// `executor.spec.limits.losses` when it is not said.
pub(super) const MAX_LOSSES_DEFAULT: u32 = 3;

/// Where results are that are kept beside the log, by their size.
const STORES: &[&str] = &["auto", "kv", "disk"];
const API_VERSIONS: &[&str] = &["noetl.io/v2", "noetl.io/v10"];
const ROOT_KEYS: &[&str] =
    &["apiVersion", "kind", "metadata", "workload", "workflow", "keychain", "workbook", "executor", "tracing"];

/// Reads a whole document.
pub(super) fn read(source: &str, root: &Node) -> (Option<Playbook>, Vec<Diagnostic>) {
    let mut reader = Reader::new(source);
    duplicate_keys(&mut reader, root);
    if !root.is_map() {
        let hint = "a playbook starts with `apiVersion: noetl.io/v2` and `kind: Playbook`";
        reader.error(codes::WRONG_KIND, root.place(), format!("a playbook is a mapping, not {}", root.kind()), hint);
        return (None, reader.into_findings());
    }
    let playbook = document(&mut reader, root);
    (playbook, reader.into_findings())
}

fn duplicate_keys(reader: &mut Reader<'_>, node: &Node) {
    let mut seen: IndexMap<&str, u32> = IndexMap::new();
    for (key, item) in node.entries() {
        if let Some(line) = seen.get(&*key.text) {
            let hint = format!("the first one is on line {line}");
            reader.error(codes::DUPLICATE_KEY, key.span, format!("the key `{}` is written twice", key.text), hint);
        }
        seen.entry(&key.text).or_insert(key.span.line);
        duplicate_keys(reader, item);
    }
    if let Yaml::List(items) = &node.yaml {
        items.iter().for_each(|item| duplicate_keys(reader, item));
    }
}

fn document(reader: &mut Reader<'_>, root: &Node) -> Option<Playbook> {
    header(reader, root);
    let (path, name, description, labels) = metadata(reader, root);
    let workload = root.get("workload").map(|workload| reader.mapping(workload, "`workload`")).unwrap_or_default();
    let extras = extras(reader, root);
    shadowed_inputs(reader, root);
    reader.in_steps = true;
    let keychain = root.get("keychain").map(|keychain| read_keychain(reader, keychain)).unwrap_or_default();
    let workbook = root.get("workbook").map(|workbook| read_workbook(reader, workbook)).unwrap_or_default();

    let nodes = step_nodes(reader, root);
    let names = step_names(reader, &nodes);
    let mut index: IndexMap<Arc<str>, StepIx> = IndexMap::new();
    for (at, name) in names.iter().enumerate() {
        index.entry(Arc::clone(name)).or_insert(StepIx(at));
    }
    let mut defined: BTreeSet<String> = BTreeSet::new();
    defined.extend(workload.keys().chain(index.keys()).map(ToString::to_string));
    defined.extend(extras.keys().cloned());
    let mut outline = Outline { index, workbook, workbook_used: BTreeSet::new(), defined };

    let mut steps = Vec::with_capacity(nodes.len());
    for (name, node) in names.iter().zip(&nodes) {
        steps.extend(step(reader, &mut outline, name, node));
        without_effect(reader, node);
    }
    // The mistakes of what no step uses are mistakes, too.
    for (name, tool) in outline.workbook.clone() {
        if !outline.workbook_used.contains(name) {
            workbook_task(reader, &mut outline, tool, Place { labels: &[], task: 0 });
        }
    }
    reader.in_steps = false;
    take_keychain_along(&keychain, &mut steps);
    let (executor, entry) = executor(reader, &outline, root);
    names::check(reader, &outline.defined);
    // A step that could not be read is an error, and would shift all places behind it.
    if steps.len() != nodes.len() || steps.is_empty() {
        return None;
    }
    let graph = graph::graph(&steps);
    unreachable_steps(reader, &steps, &nodes, entry, executor.on_cancel);
    let (index, path) = (outline.index, path?);
    let name = name.unwrap_or_else(|| Arc::clone(&path));
    Some(Playbook { path, name, description, labels, workload, extras, keychain, executor, steps, entry, index, graph })
}

fn header(reader: &mut Reader<'_>, root: &Node) {
    match root.get("apiVersion") {
        Some(node) if node.as_str().is_some_and(|version| API_VERSIONS.contains(&version)) => {}
        Some(node) => reader.error(
            codes::API_VERSION,
            node.span,
            "this `apiVersion` is not known",
            "write `apiVersion: noetl.io/v2`",
        ),
        None => {
            reader.error(
                codes::API_VERSION,
                root.place(),
                "`apiVersion` is missing",
                "write `apiVersion: noetl.io/v2`",
            );
        }
    }
    match root.get("kind") {
        Some(node) if node.as_str() == Some("Playbook") => {}
        Some(node) => {
            reader.error(codes::DOCUMENT_KIND, node.span, "this `kind` is not known", "write `kind: Playbook`");
        }
        None => reader.error(codes::DOCUMENT_KIND, root.place(), "`kind` is missing", "write `kind: Playbook`"),
    }
    for (key, _) in root.entries() {
        if key.text == "vars" {
            let hint = "write default inputs under `workload`; steps write variables with `set: {ctx.name: …}`";
            reader.error(codes::LEGACY_KEY, key.span, "`vars` at the root is not read any more", hint);
        }
    }
}

type Metadata = (Option<Arc<str>>, Option<Arc<str>>, Option<String>, Labels);

fn metadata(reader: &mut Reader<'_>, root: &Node) -> Metadata {
    let Some(node) = root.get("metadata").filter(|node| node.is_map()) else {
        let span = root.get("metadata").map_or(root.place(), Node::place);
        reader.error(
            codes::NO_PATH,
            span,
            "the playbook has no `metadata`",
            "write `metadata: {name: …, path: folder/name}`",
        );
        return (None, None, None, Labels::new());
    };
    let mut text = |key: &str| {
        let node = node.get(key).filter(|node| !node.is_null())?;
        let text = reader.text(node, &format!("`metadata.{key}`"))?.trim().to_owned();
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
            let message = format!("`metadata.{key}` has to be one line of 1 to {NAME_BYTES_MAX} bytes");
            reader.error(codes::OUT_OF_RANGE, node.span, message, "");
            return None;
        }
        Some(Arc::<str>::from(text))
    };
    let (path, name) = (text("path"), text("name"));
    let written = |key: &str| node.get(key).is_some_and(|node| !node.is_null());
    if !written("path") && !written("name") {
        let span = node.place();
        reader.error(
            codes::NO_PATH,
            span,
            "`metadata` has neither `path` nor `name`",
            "add `path: folder/name`, the key in the catalog",
        );
    }
    let description = node.get("description").and_then(Node::as_str).map(str::to_owned);
    let labels = node.get("labels").map(|node| read_labels(reader, node)).unwrap_or_default();
    (path.or_else(|| name.clone()), name, description, labels)
}

fn read_labels(reader: &mut Reader<'_>, node: &Node) -> Labels {
    let mut labels = Labels::new();
    if !node.is_map() && !node.is_null() {
        let message = format!("`metadata.labels` is {}, so executions get no labels from it", node.kind());
        reader.warn(codes::WRONG_KIND, node.place(), message, "write `labels: {name: value}`");
    }
    for (key, item) in node.entries() {
        let value = match &item.yaml {
            Yaml::Text(text) => text.clone(),
            Yaml::Number(number) => number.to_string(),
            Yaml::Bool(flag) => flag.to_string(),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
                let message = format!("the label `{}` is left out: its value is {}, not text", key.text, item.kind());
                reader.warn(codes::WRONG_KIND, item.place(), message, "");
                continue;
            }
        };
        let error = match labels::check(&key.text, &value) {
            Ok(()) if labels.len() < LABELS_MAX => {
                labels.insert(Arc::from(&*key.text), value.into());
                continue;
            }
            Ok(()) => format!("there are more than {LABELS_MAX}"),
            Err(error) => error.to_string(),
        };
        reader.warn(codes::OUT_OF_RANGE, key.span, format!("this label is left out: {error}"), "");
    }
    labels
}

/// Warns about inputs that no template finds under their bare name.
fn shadowed_inputs(reader: &mut Reader<'_>, root: &Node) {
    let workload = root.get("workload").map(Node::entries).unwrap_or_default();
    for (key, _) in workload.iter().filter(|(key, _)| names::SHADOWING_NAMES.contains(&&*key.text)) {
        let hint = format!("read it as `workload.{}`", key.text);
        let message = format!("`{}` means something else in templates", key.text);
        reader.warn(codes::SHADOWED_INPUT, key.span, message, hint);
    }
}

fn extras(reader: &mut Reader<'_>, root: &Node) -> Map<String, Value> {
    let mut extras = Map::new();
    for (key, node) in root.entries() {
        if ROOT_KEYS.contains(&&*key.text) || key.text == "vars" {
            continue;
        }
        let meant = nearest(&key.text, ROOT_KEYS.iter().copied());
        if node.is_map() && meant.is_none() {
            extras.insert(key.text.clone(), node.to_json());
            continue;
        }
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "default inputs belong under `workload`".to_owned(),
        };
        reader.warn(codes::UNKNOWN_KEY, key.span, format!("a playbook has no key `{}`", key.text), hint);
        if node.is_map() {
            extras.insert(key.text.clone(), node.to_json());
        }
    }
    extras
}

/// Returns the items of a root list that are mappings.
fn items<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> Vec<&'n Node> {
    match &node.yaml {
        Yaml::List(items) => {
            for item in items.iter().filter(|item| !item.is_map()) {
                reader.wrong_kind(item, &format!("an entry of {what}"), "a mapping");
            }
            items.iter().filter(|item| item.is_map()).collect()
        }
        Yaml::Null => Vec::new(),
        Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::Map(_) => {
            reader.wrong_kind(node, what, "a list");
            Vec::new()
        }
    }
}

fn read_keychain(reader: &mut Reader<'_>, node: &Node) -> Vec<KeychainEntry> {
    let (mut out, mut names) = (Vec::new(), BTreeSet::new());
    for item in items(reader, node, "`keychain`") {
        let span = item.place();
        let Some(name) = item.get("name").and_then(|name| reader.text(name, "`name`")) else {
            reader.error(
                codes::WRONG_KIND,
                span,
                "a keychain entry has no `name`",
                "add `name:`, as in `keychain.<name>.<field>`",
            );
            continue;
        };
        if !names.insert(name.clone()) {
            reader.error(codes::DUPLICATE_KEY, span, format!("two keychain entries are called `{name}`"), "");
        }
        let kind = item.get("kind").or_else(|| item.get("type")).and_then(|kind| reader.text(kind, "`kind`"));
        let Some(kind) = kind else {
            let hint = "add `kind:`, one of static, bearer, credential, oauth2, secrets, google_id_token";
            reader.error(codes::WRONG_KIND, span, format!("keychain entry `{name}` has no `kind`"), hint);
            continue;
        };
        // Its templates may name what only a request brings: that is no mistake here.
        let uses = reader.uses.len();
        let rest = item.entries().iter().filter(|(key, _)| key.text != "name" && key.text != "kind");
        let config = rest.map(|(key, node)| (Arc::from(key.text.as_str()), reader.value(node, Unreadable::Refused)));
        let config = config.collect();
        reader.uses.truncate(uses);
        out.push(KeychainEntry { name: Arc::from(name), kind: Arc::from(kind.to_lowercase()), config });
    }
    out
}

/// Warns about what a step may say and nothing here acts on.
fn without_effect(reader: &mut Reader<'_>, node: &Node) {
    let policy = node.get("spec").and_then(|spec| spec.get("policy")).map(Node::entries).unwrap_or_default();
    for (key, _) in policy.iter().filter(|(key, _)| ["lifecycle", "failure", "emit"].contains(&&*key.text)) {
        let message = format!("`{}` of a step's policy has no effect", key.text);
        let hint =
            "errors are for the rules of a tool's policy, and for arcs that name them: `event.name == 'call.error'`";
        reader.warn(codes::NO_EFFECT, key.span, message, hint);
    }
    let output = node.get("output").or_else(|| node.get("tool")?.get("output"));
    let store = output.and_then(|output| output.get("store"));
    let kind = store.map(|store| store.get("kind").unwrap_or(store));
    if let Some((kind, named)) = kind.and_then(|kind| Some((kind, kind.as_str()?)))
        && !STORES.contains(&named)
    {
        let message = format!("`{named}` is but a name here: a large result is kept beside the log, as without it");
        reader.warn(codes::NO_EFFECT, kind.span, message, format!("known are: {}", STORES.join(", ")));
    }
}

/// A step whose templates read the keychain needs what the entries read, which may read each other.
fn take_keychain_along(keychain: &[KeychainEntry], steps: &mut [Step]) {
    let roots: BTreeSet<&str> = keychain
        .iter()
        .flat_map(|entry| entry.config.values())
        .flat_map(ValueTemplate::roots)
        .filter(|root| *root != "keychain")
        .collect();
    for step in steps.iter_mut().filter(|step| step.reads.names.iter().any(|name| &**name == "keychain")) {
        for root in &roots {
            if !step.reads.names.iter().any(|name| &**name == *root) {
                step.reads.names.push(Arc::from(*root));
            }
        }
    }
}

fn read_workbook<'n>(reader: &mut Reader<'_>, node: &'n Node) -> IndexMap<&'n str, &'n Node> {
    let mut out = IndexMap::new();
    for item in items(reader, node, "`workbook`") {
        let span = item.place();
        match (item.get("name").and_then(Node::as_str), item.get("tool")) {
            (Some(name), Some(tool)) => {
                if out.insert(name, tool).is_some() {
                    reader.error(codes::DUPLICATE_LABEL, span, format!("two workbook tasks are called `{name}`"), "");
                }
            }
            (None, _) => reader.error(codes::WRONG_KIND, span, "a workbook task has no `name`", "add `name:`"),
            (Some(name), None) => {
                let message = format!("workbook task `{name}` has no `tool`");
                reader.error(codes::NO_TOOL, span, message, "write `tool: {kind: …}`");
            }
        }
    }
    out
}

fn step_nodes<'n>(reader: &mut Reader<'_>, root: &'n Node) -> Vec<&'n Node> {
    let nodes = root.get("workflow").map(|workflow| items(reader, workflow, "`workflow`")).unwrap_or_default();
    if nodes.is_empty() {
        let span = root.get("workflow").map_or(root.place(), Node::place);
        reader.error(
            codes::NO_STEPS,
            span,
            "the playbook has no steps",
            "write `workflow: [{step: start, tool: {kind: noop}}]`",
        );
    }
    if nodes.len() > STEPS_MAX {
        let message = format!("the playbook has {} steps, more than {STEPS_MAX}", nodes.len());
        reader.error(
            codes::TOO_MANY_STEPS,
            nodes[STEPS_MAX].place(),
            message,
            "loop over data, or call other playbooks",
        );
        return Vec::new();
    }
    nodes
}

/// Returns one name per step, made up where there is none.
fn step_names(reader: &mut Reader<'_>, nodes: &[&Node]) -> Vec<Arc<str>> {
    let mut first: IndexMap<Arc<str>, u32> = IndexMap::new();
    let mut names = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let written = node.get("step").or_else(|| node.get("name"));
        let name = match written.map(|written| (written, reader.text(written, "`step`"))) {
            Some((_, Some(name)))
                if !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control) =>
            {
                name
            }
            Some((written, Some(_))) => {
                let message = format!("the name of a step has to be one line of 1 to {NAME_BYTES_MAX} bytes");
                reader.error(codes::NO_STEP_NAME, written.span, message, "");
                format!("step_{at}")
            }
            Some((_, None)) => format!("step_{at}"),
            None => {
                let span = node.place();
                reader.error(codes::NO_STEP_NAME, span, "a step has no name", "write `step: name`");
                format!("step_{at}")
            }
        };
        let name: Arc<str> = Arc::from(name);
        let span = written.map_or(node.span, |written| written.span);
        if let Some(line) = first.get(&name) {
            let hint = format!("the first one is on line {line}");
            reader.error(codes::DUPLICATE_STEP, span, format!("two steps are called `{name}`"), hint);
        } else if names::SYSTEM_NAMES.contains(&&*name) {
            let hint = format!("its result is found as `steps.{name}` only");
            reader.warn(codes::SHADOWED_STEP, span, format!("`{name}` means something else in templates"), hint);
        }
        first.entry(Arc::clone(&name)).or_insert(span.line);
        names.push(name);
    }
    names
}

fn executor(reader: &mut Reader<'_>, outline: &Outline<'_>, root: &Node) -> (Executor, StepIx) {
    let mut executor = Executor {
        final_step: None,
        no_next_is_error: false,
        strict: false,
        pool: Arc::from("default"),
        priority: 0,
        task_timeout_ms: None,
        timeout_ms: None,
        cancel_mode: None,
        cancel_grace_ms: None,
        concurrency: None,
        on_cancel: None,
        cleanup_timeout_ms: None,
        max_steps: MAX_STEPS_DEFAULT,
        max_losses: MAX_LOSSES_DEFAULT,
    };
    let start = outline.index.get("start").copied().unwrap_or(StepIx(0));
    let Some(node) = root.get("executor").filter(|node| !node.is_null()) else {
        return (executor, start);
    };
    if !node.is_map() {
        reader.wrong_kind(node, "`executor`", "a mapping");
        return (executor, start);
    }
    reader.unknown_keys(node, "`executor`", &["profile", "version", "requires", "spec"]);
    let Some(spec) = node.get("spec").filter(|spec| spec.is_map()) else {
        return (executor, start);
    };
    let known = [
        "entry_step",
        "final_step",
        "no_next_is_error",
        "strict",
        "pool",
        "priority",
        "policy",
        "timeout",
        "cancel",
        "concurrency",
        "on_cancel",
        "cleanup_timeout",
        "limits",
    ];
    reader.unknown_keys(spec, "`executor.spec`", &known);
    let mut find = |key: &str| {
        let node = spec.get(key).filter(|node| !node.is_null())?;
        let name = reader.text(node, &format!("`{key}`"))?;
        outline.find(reader, &name, node.span)
    };
    let entry = find("entry_step").unwrap_or(start);
    executor.final_step = find("final_step");
    executor.on_cancel = find("on_cancel");
    let mut flag = |key: &str| spec.get(key).and_then(|node| reader.flag(node, &format!("`{key}`"))).unwrap_or(false);
    executor.no_next_is_error = flag("no_next_is_error");
    executor.strict = flag("strict");
    if let Some(pool) = spec.get("pool").filter(|pool| !pool.is_null()).and_then(|pool| reader.text(pool, "`pool`")) {
        executor.pool = Arc::from(pool);
    }
    executor.priority = priority(reader, spec).unwrap_or(0);
    executor.cleanup_timeout_ms =
        spec.get("cleanup_timeout").and_then(|timeout| reader.duration(timeout, "`cleanup_timeout`"));
    executor.timeout_ms = spec.get("timeout").and_then(|timeout| reader.duration(timeout, "`timeout`"));
    let default_timeout = spec.get("policy").and_then(|policy| policy.get("defaults")?.get("timeout_s"));
    executor.task_timeout_ms = default_timeout.and_then(|timeout| reader.duration(timeout, "`timeout_s`"));
    if let Some(cancel) = spec.get("cancel").filter(|cancel| !cancel.is_null()) {
        reader.unknown_keys(cancel, "`executor.spec.cancel`", &["mode", "grace_seconds"]);
        let modes = [("finish", CancelMode::Finish), ("interrupt", CancelMode::Interrupt)];
        executor.cancel_mode = cancel.get("mode").and_then(|mode| reader.word(mode, "`cancel.mode`", &modes));
        executor.cancel_grace_ms =
            cancel.get("grace_seconds").and_then(|grace| reader.duration(grace, "`grace_seconds`"));
    }
    if let Some(node) = spec.get("concurrency").filter(|node| !node.is_null()) {
        executor.concurrency = concurrency(reader, node);
    }
    if let Some(limits) = spec.get("limits").filter(|limits| !limits.is_null()) {
        reader.unknown_keys(limits, "`executor.spec.limits`", &["max_steps", "losses"]);
        if let Some(steps) = limits.get("max_steps").and_then(|node| reader.count(node, "`max_steps`", 1)) {
            executor.max_steps = steps;
        }
        if let Some(losses) = limits.get("losses").and_then(|node| reader.count(node, "`losses`", 1)) {
            executor.max_losses = u32::try_from(losses).unwrap_or(u32::MAX);
        }
    }
    (executor, entry)
}

fn concurrency(reader: &mut Reader<'_>, node: &Node) -> Option<ConcurrencySpec> {
    if !node.is_map() {
        reader.wrong_kind(node, "`concurrency`", "a mapping with `key`, `limit` and `on_conflict`");
        return None;
    }
    reader.unknown_keys(node, "`executor.spec.concurrency`", &["key", "limit", "on_conflict"]);
    let Some(written) = node.get("key").filter(|key| !key.is_null()) else {
        let hint = "write `key: \"{{ workload.customer }}\"`; executions that render the same text share it";
        reader.error(codes::NO_KEY, node.place(), "`concurrency` has no `key`", hint);
        return None;
    };
    let key = reader.value(written, Unreadable::Refused);
    let limit = node.get("limit").filter(|limit| !limit.is_null());
    let limit = limit.map_or(Some(1), |limit| {
        let count = reader.count(limit, "`concurrency.limit`", 1)?;
        if count > LIMIT_MAX {
            let message = format!("`concurrency.limit` is at most {LIMIT_MAX}");
            reader.error(codes::OUT_OF_RANGE, limit.span, message, "");
        }
        u32::try_from(count.min(LIMIT_MAX)).ok()
    });
    let words = [
        ("cancel_running", OnConflict::CancelRunning),
        ("cancel_new", OnConflict::CancelNew),
        ("reject", OnConflict::Reject),
    ];
    let Some(conflict) = node.get("on_conflict").filter(|word| !word.is_null()) else {
        let hint = "write `on_conflict: cancel_running`, `cancel_new` or `reject`";
        reader.error(codes::NO_KEY, node.place(), "`concurrency` does not say `on_conflict`", hint);
        return None;
    };
    let on_conflict = reader.word(conflict, "`concurrency.on_conflict`", &words)?;
    Some(ConcurrencySpec { key, limit: limit?, on_conflict })
}

fn unreachable_steps(
    reader: &mut Reader<'_>,
    steps: &[Step],
    nodes: &[&Node],
    entry: StepIx,
    on_cancel: Option<StepIx>,
) {
    let mut reached = graph::reached(steps, entry);
    // No arc need lead to what a cleanup runs.
    for cleanup in steps.iter().filter_map(|step| step.spec.compensate).chain(on_cancel) {
        let also = graph::reached(steps, cleanup);
        reached.iter_mut().zip(also).for_each(|(known, also)| *known |= also);
        reached[cleanup.0] = true;
    }
    for (at, step) in steps.iter().enumerate() {
        if !reached[at] && StepIx(at) != entry {
            let span = nodes[at].get("step").map_or(nodes[at].span, |name| name.span);
            let message = format!("no arc leads to step `{}`, so it never runs", step.name);
            reader.warn(codes::UNREACHABLE_STEP, span, message, "add an arc to it, or remove it");
        }
    }
}
