//! `set`, `next` and its arcs.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::codes;
use super::model::{Arrow, Assignment, Next, StepIx, Target};
use super::reader::{Reader, Unreadable};
use super::suggest::nearest;
use super::tree::{Key, Node, Yaml};
use crate::diag::Span;
use crate::expr::Condition;

/// What the steps of a playbook are called, and the names that templates may read.
#[derive(Debug)]
pub(super) struct Outline<'n> {
    /// Step names to places.
    pub(super) index: IndexMap<Arc<str>, StepIx>,
    /// The tools of the workbook by name.
    pub(super) workbook: IndexMap<&'n str, &'n Node>,
    /// Names of workbook tasks that a step uses.
    pub(super) workbook_used: BTreeSet<String>,
    /// Names defined so far.
    pub(super) defined: BTreeSet<String>,
}

impl Outline<'_> {
    /// Returns the place of a step, or notes that there is none of that name.
    pub(super) fn find(&self, reader: &mut Reader<'_>, name: &str, span: Span) -> Option<StepIx> {
        let found = self.index.get(name).copied();
        if found.is_none() && !reader.is_full() {
            let hint = match nearest(name, self.index.keys().map(|known| &**known)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("steps are: {}", listed(self.index.keys().map(|known| &**known))),
            };
            reader.error(codes::UNKNOWN_STEP, span, format!("there is no step `{name}`"), hint);
        }
        found
    }
}

/// Lists names, but not too many.
pub(super) fn listed<'k>(names: impl ExactSizeIterator<Item = &'k str>) -> String {
    const LISTED_MAX: usize = 12;
    let (more, mut shown) = (names.len().saturating_sub(LISTED_MAX), names.take(LISTED_MAX).collect::<Vec<_>>());
    let rest = format!("{more} more");
    if more > 0 {
        shown.push(&rest);
    }
    shown.join(", ")
}

/// Where a name without prefix goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// It lives as long as the pipeline.
    Local,
    /// There is no pipeline to live in: it is a variable of the run.
    Ctx,
}

/// Reads a `set` mapping.
pub(super) fn assignments(
    reader: &mut Reader<'_>,
    outline: &mut Outline<'_>,
    node: &Node,
    bare: Bare,
) -> Vec<Assignment> {
    if !node.is_map() {
        if !node.is_null() {
            reader.wrong_kind(node, "`set`", "a mapping");
        }
        return Vec::new();
    }
    let mut out = Vec::new();
    for (key, item) in node.entries() {
        let value = reader.value(item, Unreadable::Refused);
        if let Some((target, path)) = target(reader, key, bare) {
            outline.defined.extend(path.first().map(ToString::to_string));
            out.push(Assignment { target, path, value });
        }
    }
    out
}

fn target(reader: &mut Reader<'_>, key: &Key, bare: Bare) -> Option<(Target, Vec<Arc<str>>)> {
    let mut path: Vec<Arc<str>> = key.text.split('.').map(|part| Arc::from(part.trim())).collect();
    let scope = match &*path[0] {
        "ctx" => Some(Target::Ctx),
        "iter" => Some(Target::Iter),
        "step" => Some(Target::Local),
        _ => None,
    };
    if scope.is_some() {
        path.remove(0);
    }
    if path.is_empty() || path.iter().any(|part| part.is_empty()) {
        let hint = "write `ctx.name` for a variable of the run, `iter.name` for one of the iteration";
        reader.error(codes::BAD_TARGET, key.span, format!("`{}` can not be set", key.text), hint);
        return None;
    }
    let target = match (scope, bare) {
        (Some(target), _) => target,
        (None, Bare::Local) => Target::Local,
        (None, Bare::Ctx) => {
            let hint = format!("write `ctx.{}`", key.text);
            let message = format!("`{}` without a prefix is a variable of the run here", key.text);
            reader.warn(codes::NO_TARGET_PREFIX, key.span, message, hint);
            Target::Ctx
        }
    };
    Some((target, path))
}

/// Reads `next` in all its forms: a router, a name, a list of names or arcs.
pub(super) fn next(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node) -> Next {
    match &node.yaml {
        Yaml::Null => Next::default(),
        Yaml::Text(name) => Next { inclusive: false, arcs: always(reader, outline, name, node.span) },
        // A list without a router takes all that match.
        Yaml::List(items) => Next { inclusive: true, arcs: arcs(reader, outline, items) },
        Yaml::Map(_) if node.get("step").is_some() && node.get("arcs").is_none() => {
            Next { inclusive: false, arcs: arcs(reader, outline, std::slice::from_ref(node)) }
        }
        Yaml::Map(_) => router(reader, outline, node),
        Yaml::Bool(_) | Yaml::Number(_) => {
            reader.wrong_kind(node, "`next`", "a mapping with `arcs`");
            Next::default()
        }
    }
}

fn router(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node) -> Next {
    reader.unknown_keys(node, "`next`", &["spec", "arcs", "mode"]);
    if let Some(spec) = node.get("spec").filter(|spec| !spec.is_null()) {
        reader.unknown_keys(spec, "`next.spec`", &["mode", "on_no_match", "policy"]);
        if let Some(word) = spec.get("on_no_match") {
            // Nothing running and nothing pending completes a run either way.
            reader.word(word, "`next.spec.on_no_match`", &[("complete", ()), ("quiet", ())]);
        }
    }
    // Beside `arcs` as well, as that of a loop.
    let mode = node.get("spec").and_then(|spec| spec.get("mode")).or_else(|| node.get("mode"));
    let inclusive = mode
        .and_then(|mode| reader.word(mode, "`next.spec.mode`", &[("exclusive", false), ("inclusive", true)]))
        .unwrap_or(false);
    let arcs = match node.get("arcs").map(|list| (list, &list.yaml)) {
        Some((_, Yaml::List(items))) => arcs(reader, outline, items),
        Some((_, Yaml::Null)) => Vec::new(),
        Some((list, Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::Map(_))) => {
            reader.wrong_kind(list, "`next.arcs`", "a list");
            Vec::new()
        }
        None if node.entries().is_empty() => Vec::new(),
        None => {
            reader.error(codes::BAD_ARC, node.place(), "`next` has no `arcs`", "write `next: {arcs: [{step: name}]}`");
            Vec::new()
        }
    };
    Next { inclusive, arcs }
}

fn arcs(reader: &mut Reader<'_>, outline: &mut Outline<'_>, items: &[Node]) -> Vec<Arrow> {
    let mut out = Vec::new();
    for item in items {
        match &item.yaml {
            Yaml::Text(name) => out.extend(always(reader, outline, name, item.span)),
            Yaml::Map(_) => out.extend(arc(reader, outline, item)),
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::List(_) => {
                reader.wrong_kind(item, "an arc", "a mapping with `step`");
            }
        }
    }
    out
}

fn always(reader: &mut Reader<'_>, outline: &Outline<'_>, name: &str, span: Span) -> Vec<Arrow> {
    let to = outline.find(reader, name, span);
    let arrow = |to| Arrow { to, when: None, over_result: false, set: Vec::new(), cancels: Vec::new(), catches: false };
    to.into_iter().map(arrow).collect()
}

fn arc(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node) -> Option<Arrow> {
    for (key, item) in node.entries() {
        match &*key.text {
            "expr" => {
                let expression = item.as_str().unwrap_or("…");
                let hint = format!("write `when: \"{{{{ {expression} }}}}\"`");
                reader.error(codes::LEGACY_KEY, key.span, "`expr` on an arc is not read any more", hint);
            }
            "then" | "set_ctx" | "set_iter" => {
                let message = format!("`{}` on an arc is not read any more", key.text);
                reader.error(codes::LEGACY_KEY, key.span, message, "write `step: name` and `set: {ctx.x: …}`");
            }
            _ => {}
        }
    }
    reader.unknown_keys(
        node,
        "an arc",
        &["step", "when", "cond", "set", "args", "with", "cancel", "desc", "name", "spec"],
    );
    let condition = |key: &str| node.get(key).filter(|condition| !condition.is_null());
    let when = match (condition("when"), condition("cond")) {
        (Some(when), None) => reader.condition(when),
        (None, Some(cond)) => reader.raw_condition(cond),
        (Some(_), Some(cond)) => {
            reader.error(codes::BAD_ARC, cond.span, "an arc has either `when` or `cond`", "keep `when`");
            None
        }
        (None, None) => None,
    };
    let mut set = Vec::new();
    for key in ["args", "with", "set"] {
        if let Some(block) = node.get(key) {
            set.extend(assignments(reader, outline, block, Bare::Ctx));
        }
    }
    let cancels = region(reader, outline, node);
    let Some(target) = node.get("step") else {
        reader.error(
            codes::BAD_ARC,
            node.place(),
            "an arc has no `step`",
            "write `step: name` of the step that comes next",
        );
        return None;
    };
    let name = reader.text(target, "`step`")?;
    let to = outline.find(reader, &name, target.span)?;
    let catches = when.as_ref().is_some_and(names_a_failure);
    let over_result = condition("when").is_none() && condition("cond").is_some();
    Some(Arrow { to, when, over_result, set, cancels, catches })
}

/// Reads `cancel`: the steps that an arc cancels when it fires.
fn region(reader: &mut Reader<'_>, outline: &Outline<'_>, node: &Node) -> Vec<StepIx> {
    let Some(written) = node.get("cancel").filter(|written| !written.is_null()) else { return Vec::new() };
    let items = match &written.yaml {
        Yaml::List(items) => items.as_slice(),
        Yaml::Text(_) => std::slice::from_ref(written),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Map(_) => {
            reader.wrong_kind(written, "`cancel` of an arc", "a list of steps");
            return Vec::new();
        }
    };
    let mut region = Vec::new();
    for item in items {
        let named = reader.text(item, "a step to cancel");
        let found = named.and_then(|name| outline.find(reader, &name, item.span));
        region.extend(found.filter(|step| !region.contains(step)));
    }
    region
}

/// Returns whether a condition asks for a failure, so that its author expects one.
///
/// Who rules failures out (`!= 'error'`, `.error is not defined`) does not: such a condition may speak of another
/// step and hold, and would send a hard error on the way of success.
fn names_a_failure(condition: &Condition) -> bool {
    let text = condition.source();
    let speaks_of = ["call.error", "step.failed", ".error", "'error'", "\"error\""];
    let asks = |words: &str| text.match_indices(words).any(|(at, _)| asks_for(text, at, at + words.len()));
    condition.roots().any(|name| name == "error") || speaks_of.into_iter().any(asks)
}

/// Returns whether `text` asks for the failure that it names between `from` and `to`, and does not rule it out.
fn asks_for(text: &str, from: usize, to: usize) -> bool {
    let in_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let ends_here = |rest: &str, word: &str| rest.strip_suffix(word).is_some_and(|rest| !rest.ends_with(in_word));
    let after = &text[to..];
    if text[from..].starts_with('.') {
        // `call.error` is looked at as the name of an event. Else: a field of another name (`.errors`), or one that
        // must not be there.
        let in_event = ["'call", "\"call"].iter().any(|words| text[..from].ends_with(words));
        let path = text[..from].trim_end_matches(|letter| in_word(letter) || matches!(letter, '.' | '[' | ']'));
        let absent = ["is not defined", "is undefined", "is none", "== none"];
        let negated = ends_here(path.trim_end(), "not");
        return !in_event
            && !after.starts_with(in_word)
            && !negated
            && !absent.iter().any(|words| after.trim_start().starts_with(words));
    }
    // The names of events are looked for inside their quotes.
    let before = text[..from].trim_end_matches(['\'', '"']).trim_end();
    let after = after.trim_start_matches(['\'', '"']).trim_start();
    let listed = before.rfind(['[', '(']).filter(|open| !before[*open..].contains([']', ')']));
    let ruled_out = listed.is_some_and(|open| {
        let ahead = before[..open].trim_end();
        ends_here(ahead, "in") && ends_here(ahead[..ahead.len() - 2].trim_end(), "not")
    });
    !before.ends_with("!=") && !after.starts_with("!=") && !ruled_out
}
