//! `tool` in all its forms, and its tasks.

use std::sync::Arc;

use indexmap::IndexMap;

use super::codes;
use super::mentions::mentions;
use super::model::{Body, Output, Shield, Task};
use super::policy::{self, Place};
use super::reader::{Reader, Unreadable, parse_duration};
use super::routing::{Bare, Outline, assignments, listed};
use super::suggest::nearest;
use super::tree::{Key, Node, Yaml};
use crate::diag::Span;
use crate::expr::ValueTemplate;

/// Tool kinds that a playbook may use, in alphabetical order: the one list that registration, the schema and the
/// toolbox go by.
pub const TOOL_KINDS: &[&str] = &[
    "artifact",
    "duckdb",
    "http",
    "noop",
    "playbook",
    "postgres",
    "python",
    "result_fetch",
    "secrets",
    "shell",
    "transfer",
    "workbook",
];
/// Those of [`TOOL_KINDS`] that the engine runs itself; all others are a toolbox's.
pub const ENGINE_KINDS: &[&str] = &["artifact", "noop", "playbook", "result_fetch", "workbook"];

/// Most tasks of one pipeline.
pub const TASKS_MAX: usize = 500;

/// Kinds of the language that we do not run. Playbooks in the field have them, often on branches that are seldom
/// taken: such a playbook is registered with a warning, and the step fails when it is reached.
pub const UNSUPPORTED_KINDS: &[&str] = &[
    "agent",
    "container",
    "ducklake",
    "gateway",
    "gcs",
    "iterator",
    "mcp",
    "nats",
    "playbooks",
    "provider",
    "rhai",
    "script",
    "snowflake",
    "subscription",
    "task_sequence",
];

/// Keys of a tool that mean the same for every kind.
const COMMON_KEYS: &[&str] = &[
    "kind",
    "name",
    "input",
    "set",
    "output",
    "output_select",
    "spec",
    "timeout",
    "timeout_seconds",
    "timeout_s",
    "auth",
    "credential",
    "desc",
    "description",
];

/// Reads `tool`.
pub(super) fn body(reader: &mut Reader<'_>, outline: &mut Outline<'_>, step: &str, node: &Node) -> Option<Body> {
    match &node.yaml {
        Yaml::Map(_) => {
            let item = Item { label: step.to_owned(), node };
            let labels = [step.to_owned()];
            let task = task(reader, outline, &item, Place { labels: &labels, task: 0 })?;
            Some(Body { pipeline: false, tasks: vec![task] })
        }
        Yaml::List(nodes) if nodes.len() > TASKS_MAX => {
            let message = format!("the pipeline of step `{step}` has {} tasks, more than {TASKS_MAX}", nodes.len());
            reader.error(
                codes::TOO_MANY_TASKS,
                nodes[TASKS_MAX].place(),
                message,
                "cut it into steps, or loop over data",
            );
            None
        }
        Yaml::List(nodes) if !nodes.is_empty() => {
            let items = items(reader, nodes);
            let labels: Vec<String> = items.iter().map(|item| item.label.clone()).collect();
            let mut tasks = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                tasks.extend(task(reader, outline, item, Place { labels: &labels, task: at }));
            }
            // Places of jumps count on every task being there.
            (tasks.len() == nodes.len()).then_some(Body { pipeline: true, tasks })
        }
        Yaml::List(_) => {
            reader.error(codes::NO_TOOL, node.span, format!("the pipeline of step `{step}` is empty"), "add a task");
            None
        }
        Yaml::Text(kind) if TOOL_KINDS.contains(&kind.as_str()) => {
            let hint = format!("write `tool: {{kind: {kind}}}`");
            reader.error(codes::NO_TOOL_KIND, node.span, "`tool` has to be a mapping or a list of them", hint);
            None
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) => {
            reader.error(
                codes::NO_TOOL,
                node.span,
                format!("step `{step}` has no tool"),
                "write `tool: {kind: noop}` for nothing",
            );
            None
        }
    }
}

/// One task as it is written.
struct Item<'n> {
    label: String,
    node: &'n Node,
}

fn items<'n>(reader: &mut Reader<'_>, nodes: &'n [Node]) -> Vec<Item<'n>> {
    let mut items: Vec<Item<'n>> = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let (label, span, node) = match node.entries() {
            // `- label: {kind: …}`
            [(key, inner)] if inner.is_map() && key.text != "spec" => (key.text.clone(), key.span, inner),
            _ => match node.get("name") {
                Some(name) => (reader.text(name, "`name`").unwrap_or_default(), name.span, node),
                None => (format!("task_{at}"), node.span, node),
            },
        };
        if items.iter().any(|known| known.label == label) {
            let hint = "results are found by label, so each task needs its own";
            reader.error(
                codes::DUPLICATE_LABEL,
                span,
                format!("two tasks of this pipeline are called `{label}`"),
                hint,
            );
        }
        items.push(Item { label, node });
    }
    items
}

fn task(reader: &mut Reader<'_>, outline: &mut Outline<'_>, item: &Item<'_>, place: Place<'_>) -> Option<Task> {
    let node = item.node;
    if !node.is_map() {
        reader.wrong_kind(node, "a task", "a mapping with `kind`");
        return None;
    }
    let kind = kind(reader, node)?;
    outline.defined.insert(item.label.clone());
    let fields = Fields::of(reader, node);
    let mut task = match kind.as_str() {
        "workbook" => from_workbook(reader, outline, item, &fields, place)?,
        _ => {
            let mut task = plain(reader, outline, &kind, &fields);
            task.label = Arc::from(&*item.label);
            task
        }
    };
    if kind == "workbook" {
        // What the step gives wins over what the workbook's own task has, step-level `input` included.
        let own = reader.for_tool(&task.kind, |reader| input(reader, outline, "python", &fields));
        task.defaults = std::mem::replace(&mut task.input, own);
        task.timeout = timeout(reader, &fields).or(task.timeout);
    }
    if let Some(policy) = fields.policy {
        let rules = policy::rules(reader, outline, policy, place);
        match kind.as_str() {
            "workbook" => task.policy = rules,
            // Before what an older key of the tool means.
            _ => drop(task.policy.splice(0..0, rules)),
        }
    }
    if let Some(set) = fields.get("set") {
        task.set.extend(assignments(reader, outline, set, Bare::Local));
    }
    task.shield = shield(reader, &kind, &fields);
    Some(task)
}

fn kind(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let Some(written) = node.get("kind").or_else(|| node.get("spec")?.get("kind")) else {
        let span = node.place();
        let hint = match node.get("type") {
            Some(_) => "write `kind` instead of `type`".to_owned(),
            None => format!("add `kind:`, one of {}", TOOL_KINDS.join(", ")),
        };
        reader.error(codes::NO_TOOL_KIND, span, "a tool has no `kind`", hint);
        return None;
    };
    let kind = reader.text(written, "`kind`")?.trim().to_lowercase();
    if TOOL_KINDS.contains(&&*kind) {
        return Some(kind);
    }
    if UNSUPPORTED_KINDS.contains(&&*kind) {
        let message = format!("tools of kind `{kind}` are not supported: the step fails when it is reached");
        reader.warn(
            codes::UNSUPPORTED_TOOL_KIND,
            written.span,
            message,
            format!("supported are: {}", TOOL_KINDS.join(", ")),
        );
        return Some(kind);
    }
    let hint = match nearest(&kind, TOOL_KINDS.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("supported are: {}", TOOL_KINDS.join(", ")),
    };
    reader.error(codes::UNKNOWN_TOOL_KIND, written.span, format!("there is no tool kind `{kind}`"), hint);
    None
}

/// The keys of a tool, those under `spec` included; what is written further out wins.
struct Fields<'n> {
    entries: IndexMap<&'n str, (&'n Key, &'n Node)>,
    policy: Option<&'n Node>,
    /// `spec.cancel`.
    cancel: Option<&'n Node>,
}

impl<'n> Fields<'n> {
    fn of(reader: &mut Reader<'_>, node: &'n Node) -> Self {
        let spec = node.get("spec");
        if let Some(spec) = spec.filter(|spec| !spec.is_map() && !spec.is_null()) {
            reader.wrong_kind(spec, "`spec` of a tool", "a mapping");
        }
        let inner = spec.map(Node::entries).unwrap_or_default();
        let mut entries = IndexMap::new();
        for (key, item) in node.entries().iter().chain(inner) {
            if !matches!(&*key.text, "spec" | "policy" | "cancel") {
                entries.entry(&*key.text).or_insert((key, item));
            }
        }
        let policy = spec.and_then(|spec| spec.get("policy")).or_else(|| node.get("policy"));
        let cancel =
            spec.and_then(|spec| spec.get("cancel")).or_else(|| node.get("cancel")).filter(|cancel| !cancel.is_null());
        Fields { entries, policy, cancel }
    }

    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.get(key).map(|(_, node)| *node)
    }

    fn span(&self) -> Option<Span> {
        self.entries.first().map(|(_, (key, _))| key.span)
    }
}

fn plain(reader: &mut Reader<'_>, outline: &mut Outline<'_>, kind: &str, fields: &Fields<'_>) -> Task {
    check_keys(reader, kind, fields);
    let input = reader.for_tool(kind, |reader| input(reader, outline, kind, fields));
    let mut config: IndexMap<Arc<str>, ValueTemplate> = IndexMap::new();
    for (name, (key, node)) in &fields.entries {
        let Some(name) = config_name(kind, name) else { continue };
        let value = reader.for_tool(kind, |reader| reader.field(key, node, Unreadable::Refused));
        if name != key.text && fields.get(name).is_some() {
            let message = format!("`{}` and `{name}` mean the same: `{}` is ignored", key.text, key.text);
            reader.warn(codes::UNKNOWN_KEY, key.span, message, "");
            continue;
        }
        config.insert(Arc::from(name), value);
    }
    let mentions = match kind {
        "python" => config.get("code").and_then(ValueTemplate::as_literal).and_then(|code| mentions(code.as_str()?)),
        _ => Some(Vec::new()),
    };
    let timeout = timeout(reader, fields);
    // Rules of its own come first, and this is for what they do not match.
    let retry = fields.get("retry").filter(|_| kind == "http").and_then(|node| policy::request_retry(reader, node));
    Task {
        label: Arc::from(""),
        kind: Arc::from(kind),
        config,
        defaults: IndexMap::new(),
        input,
        set: Vec::new(),
        policy: retry.into_iter().collect(),
        timeout,
        shield: None,
        mentions,
    }
}

/// Reads `spec.cancel` of a task: what a cancel from above does to the child that it starts.
fn shield(reader: &mut Reader<'_>, kind: &str, fields: &Fields<'_>) -> Option<Shield> {
    let cancel = fields.cancel?;
    if kind != "playbook" {
        let hint = "write `spec: {cancel: {grace_seconds: …}}` on the step";
        reader.error(codes::UNKNOWN_KEY, cancel.place(), format!("a {kind} task starts no child to be shielded"), hint);
        return None;
    }
    reader.unknown_keys(cancel, "`spec.cancel` of a playbook task", &["policy"]);
    let words = [("cancel", None), ("abandon", Some(Shield::Abandon)), ("wait", Some(Shield::Wait))];
    cancel.get("policy").and_then(|policy| reader.word(policy, "`policy`", &words)).flatten()
}

/// Returns what a key of the tool mapping is called in the configuration; `None` when it is no part of that.
fn config_name<'k>(kind: &str, key: &'k str) -> Option<&'k str> {
    match key {
        "kind" | "name" | "input" | "set" | "output" | "output_select" | "desc" | "description" => None,
        "timeout" | "timeout_seconds" | "timeout_s" => None,
        "credential" => Some("auth"),
        "endpoint" if kind == "http" => Some("url"),
        "retry" if kind == "http" => None,
        key if input_keys(kind).contains(&key) => None,
        key => Some(key),
    }
}

/// Returns the keys that mean `input`; later ones win.
fn input_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "python" => &["data", "params", "with", "args", "input"],
        "shell" | "noop" => &["with", "args", "input"],
        "artifact" | "result_fetch" => &["with", "args", "input"],
        "playbook" => &["with", "args", "payload", "input"],
        // The keys of a request and of a statement are the tool's own.
        _ => &["input"],
    }
}

fn input(
    reader: &mut Reader<'_>,
    outline: &mut Outline<'_>,
    kind: &str,
    fields: &Fields<'_>,
) -> IndexMap<Arc<str>, ValueTemplate> {
    let mut input = IndexMap::new();
    for key in input_keys(kind) {
        if let Some(node) = fields.get(key) {
            input.extend(reader.mapping(node, &format!("`{key}`")));
        }
    }
    outline.defined.extend(input.keys().map(ToString::to_string));
    input
}

fn timeout(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ValueTemplate> {
    let node = ["timeout", "timeout_seconds", "timeout_s"].iter().find_map(|key| fields.get(key))?;
    // As in the `spec` of a step: `30s`.
    let written = match &node.yaml {
        Yaml::Text(text) if text.trim().parse::<f64>().is_err() => parse_duration(text),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => None,
    };
    match written {
        Some(ms) => Some(ValueTemplate::literal(serde_json::json!(ms as f64 / 1_000.0))),
        None => policy::number(reader, node, "`timeout`", 0.0),
    }
}

fn from_workbook(
    reader: &mut Reader<'_>,
    outline: &mut Outline<'_>,
    item: &Item<'_>,
    fields: &Fields<'_>,
    place: Place<'_>,
) -> Option<Task> {
    let named = ["task", "workbook", "name"].iter().find_map(|key| fields.get(key));
    let Some(named) = named else {
        let span = item.node.place();
        reader.error(codes::UNKNOWN_WORKBOOK_TASK, span, "a `workbook` tool does not say which task", "add `name:`");
        return None;
    };
    let name = reader.text(named, "`name`")?;
    let Some(tool) = outline.workbook.get(name.as_str()).copied() else {
        let hint = match nearest(&name, outline.workbook.keys().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if outline.workbook.is_empty() => "this playbook has no `workbook`".to_owned(),
            None => format!("tasks of the workbook are: {}", listed(outline.workbook.keys().copied())),
        };
        reader.error(codes::UNKNOWN_WORKBOOK_TASK, named.span, format!("the workbook has no task `{name}`"), hint);
        return None;
    };
    outline.workbook_used.insert(name);
    let mut task = workbook_task(reader, outline, tool, place)?;
    task.label = Arc::from(&*item.label);
    Some(task)
}

/// Reads the tool of a workbook task; it can not name another one.
pub(super) fn workbook_task(
    reader: &mut Reader<'_>,
    outline: &mut Outline<'_>,
    tool: &Node,
    place: Place<'_>,
) -> Option<Task> {
    if !tool.is_map() {
        reader.wrong_kind(tool, "`tool` of a workbook task", "a mapping with `kind`");
        return None;
    }
    let kind = kind(reader, tool)?;
    if kind == "workbook" {
        reader.error(codes::UNKNOWN_WORKBOOK_TASK, tool.span, "a workbook task can not name another one", "");
        return None;
    }
    let fields = Fields::of(reader, tool);
    let mut task = plain(reader, outline, &kind, &fields);
    if let Some(policy) = fields.policy {
        let rules = policy::rules(reader, outline, policy, place);
        drop(task.policy.splice(0..0, rules));
    }
    if let Some(set) = fields.get("set") {
        task.set = assignments(reader, outline, set, Bare::Local);
    }
    Some(task)
}

/// Returns the output settings of a tool that stands alone.
pub(super) fn output_of(reader: &mut Reader<'_>, tool: &Node) -> Option<Output> {
    let node = tool.get("output").or_else(|| tool.get("spec")?.get("output"));
    let select = tool.get("output_select").filter(|select| matches!(select.yaml, Yaml::List(_)));
    match (node, select) {
        (Some(node), _) => Some(output(reader, node)),
        (None, Some(select)) => Some(Output { select: names(reader, select), ..Output::default() }),
        (None, None) => None,
    }
}

/// Reads `output`.
pub(super) fn output(reader: &mut Reader<'_>, node: &Node) -> Output {
    if !node.is_map() {
        if !node.is_null() {
            reader.wrong_kind(node, "`output`", "a mapping");
        }
        return Output::default();
    }
    reader.unknown_keys(node, "`output`", &["output_select", "select", "store", "inline_max_bytes", "scope", "ttl"]);
    let select = node.get("output_select").or_else(|| node.get("select"));
    let select = select.map(|select| names(reader, select)).unwrap_or_default();
    let kind = node.get("store").and_then(|store| if store.is_map() { store.get("kind") } else { Some(store) });
    let store = kind.filter(|kind| !kind.is_null()).and_then(|kind| reader.text(kind, "`store.kind`"));
    let inline = node.get("inline_max_bytes").and_then(|bytes| reader.count(bytes, "`inline_max_bytes`", 0));
    let inline_bytes_max = inline.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    Output { select, store, inline_bytes_max }
}

/// Reads a list of field names.
pub(super) fn names(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    match &node.yaml {
        Yaml::List(items) => items.iter().filter_map(|item| reader.text(item, "a selected field")).collect(),
        Yaml::Null => Vec::new(),
        Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::Map(_) => {
            reader.wrong_kind(node, "`output_select`", "a list of field names");
            Vec::new()
        }
    }
}

fn check_keys(reader: &mut Reader<'_>, kind: &str, fields: &Fields<'_>) {
    let own: &[&str] = match kind {
        "python" => &["code", "script", "libs", "iterator", "with", "args", "params", "data"],
        "shell" => &["command", "cmds", "cwd", "env", "shell", "with", "args"],
        "http" => &[
            "method",
            "url",
            "endpoint",
            "headers",
            "params",
            "json",
            "payload",
            "data",
            "body",
            "form",
            "follow_redirects",
            "verify_ssl",
            "retry",
        ],
        "postgres" => &[
            "query",
            "command",
            "commands",
            "params",
            "script",
            "pool",
            "host",
            "port",
            "user",
            "password",
            "database",
            "dbname",
            "connection_string",
            "dsn",
            "sslmode",
            "sslrootcert",
            "username",
            "db_host",
            "db_port",
            "db_user",
            "db_password",
            "db_name",
        ],
        "duckdb" => &["query", "command", "commands", "params", "script", "database", "gcs_credential"],
        "playbook" => &[
            "path",
            "catalog_id",
            "version",
            "return_step",
            "result_step",
            "return_result",
            "poll_interval",
            "retry",
            "task",
            "parent_execution_id",
            "payload",
            "with",
            "args",
        ],
        "noop" => &["result", "data", "with", "args"],
        "artifact" | "result_fetch" => &["action", "ref", "result_ref", "uri", "data", "with", "args"],
        "transfer" => &["source", "target", "mode", "mapping", "key", "chunk_size", "direction"],
        "secrets" => &["provider", "key", "map"],
        // We do not know what it has.
        _ => return,
    };
    for (name, (key, _)) in &fields.entries {
        if COMMON_KEYS.contains(name) || own.contains(name) {
            continue;
        }
        let hint = match nearest(name, own.iter().chain(COMMON_KEYS).copied()) {
            _ if *name == "retry" => super::reader::RETRY_HINT.to_owned(),
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known are: {}", own.join(", ")),
        };
        reader.warn(codes::UNKNOWN_KEY, key.span, format!("a tool of kind `{kind}` has no key `{name}`"), hint);
    }
    let required: &[&str] = match kind {
        "python" => &["code", "script"],
        "shell" => &["cmds", "command"],
        "http" => &["url", "endpoint"],
        "postgres" | "duckdb" => &["query", "command", "commands", "script"],
        "playbook" => &["path", "catalog_id"],
        "transfer" => &["source"],
        "secrets" => &["key", "map"],
        _ => &[],
    };
    if let (Some(span), false) =
        (fields.span(), required.is_empty() || required.iter().any(|key| fields.get(key).is_some()))
    {
        let names: Vec<String> = required.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("a tool of kind `{kind}` needs {}", names.join(" or "));
        reader.error(codes::INCOMPLETE_TOOL, span, message, "");
    }
}
