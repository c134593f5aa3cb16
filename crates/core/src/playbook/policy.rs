//! `spec.policy` of a task: what to do after each outcome.

use serde_json::Value;

use super::codes;
use super::model::{Action, Assignment, Backoff, Retry, Rule};
use super::reader::{Reader, Unreadable};
use super::routing::{Bare, Outline, assignments};
use super::suggest::nearest;
use super::tree::{Node, Yaml};
use crate::expr::{Condition, ValueTemplate, is_template};

/// Executions of a task that is retried, when the rule does not say.
pub(super) const ATTEMPTS_DEFAULT: u64 = 3;

const ACTIONS: &[&str] = &["continue", "retry", "jump", "break", "fail"];

/// The labels of the pipeline that a rule belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) labels: &'a [String],
    pub(super) task: usize,
}

/// Reads `policy`.
pub(super) fn rules(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node, place: Place<'_>) -> Vec<Rule> {
    if node.is_null() {
        return Vec::new();
    }
    let list = match node.get("rules") {
        Some(Node { yaml: Yaml::List(items), .. }) if !items.is_empty() => items,
        Some(rules) => {
            reader.error(codes::NO_RULES, rules.span, "the rules of a policy are a list of at least one rule", "");
            return Vec::new();
        }
        None => {
            let hint = "write `policy: {rules: [{when: …, then: {do: retry}}]}`";
            reader.error(codes::NO_RULES, node.place(), "a policy has no `rules`", hint);
            return Vec::new();
        }
    };
    reader.unknown_keys(node, "a policy", &["rules", "mode", "on_unmatched", "before", "after", "finally"]);
    if let Some((key, _)) = node.entries().iter().find(|(key, _)| key.text == "on_unmatched") {
        let message = "`on_unmatched` has no effect: where no rule matches, an error fails and all else goes on";
        reader.warn(codes::NO_EFFECT, key.span, message, "end the rules with `else: {then: {do: …}}`");
    }
    let mut out: Vec<Rule> = Vec::new();
    for item in list {
        if out.last().is_some_and(|rule| rule.when.is_none()) {
            let hint = "the first rule that matches decides; put the `else` last";
            reader.warn(
                codes::UNREACHABLE_RULE,
                item.place(),
                "this rule is never reached: the one before always matches",
                hint,
            );
        }
        out.extend(rule(reader, outline, item, place));
    }
    out
}

fn rule(reader: &mut Reader<'_>, outline: &mut Outline<'_>, node: &Node, place: Place<'_>) -> Option<Rule> {
    if !node.is_map() {
        reader.wrong_kind(node, "a rule", "a mapping with `when` and `then`, or with `else`");
        return None;
    }
    reader.unknown_keys(
        node,
        "a rule",
        &["when", "else", "then", "do", "set", "attempts", "delay", "backoff", "to", "name"],
    );
    let (when, then) = conclusion(reader, node)?;
    match then {
        Some(then) => {
            let (action, set) = action(reader, outline, then, place)?;
            Some(Rule { when, action, set })
        }
        None => Some(Rule { when, action: Action::Continue, set: Vec::new() }),
    }
}

/// Returns the condition of a rule and the mapping that says what follows; the three spellings of `else` included.
pub(super) fn conclusion<'n>(reader: &mut Reader<'_>, node: &'n Node) -> Option<(Option<Condition>, Option<&'n Node>)> {
    let then = node.get("then").filter(|then| !then.is_null());
    match (node.get("when"), node.get("else")) {
        (Some(_), Some(other)) => {
            reader.error(codes::BAD_RULE, other.place(), "a rule has either `when` or `else`", "write two rules");
            None
        }
        (Some(when), None) => {
            let inline = node.get("do").or_else(|| node.get("set")).map(|_| node);
            Some((Some(reader.condition(when)?), then.or(inline)))
        }
        (None, Some(other)) => {
            let inner = other.get("then").filter(|then| !then.is_null());
            let inline = (!other.is_null()).then_some(other);
            Some((None, inner.or(inline).or(then)))
        }
        (None, None) => {
            let inline = node.get("do").or_else(|| node.get("set")).map(|_| node);
            if then.or(inline).is_none() {
                let hint = "write `{when: …, then: {do: …}}` or `{else: {then: {do: …}}}`";
                reader.error(codes::BAD_RULE, node.place(), "a rule has neither `when` nor `else`", hint);
                return None;
            }
            Some((None, then.or(inline)))
        }
    }
}

fn action(
    reader: &mut Reader<'_>,
    outline: &mut Outline<'_>,
    then: &Node,
    place: Place<'_>,
) -> Option<(Action, Vec<Assignment>)> {
    let (word, word_node) = match &then.yaml {
        Yaml::Text(word) => (word.clone(), then),
        Yaml::Map(_) => match then.get("do") {
            Some(node) => (reader.text(node, "`do`")?, node),
            None => ("continue".to_owned(), then),
        },
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::List(_) => {
            reader.wrong_kind(then, "`then`", "a mapping with `do`");
            return None;
        }
    };
    for (key, _) in then.entries() {
        if matches!(&*key.text, "set_ctx" | "set_iter") {
            let message = format!("`{}` is not read any more", key.text);
            reader.error(codes::LEGACY_KEY, key.span, message, "write `set: {ctx.x: …}` or `set: {iter.x: …}`");
        }
    }
    let known = ["do", "set", "attempts", "delay", "backoff", "to", "then", "when", "else", "name"];
    reader.unknown_keys(then, "`then`", &known);
    let set = then.get("set").map(|set| assignments(reader, outline, set, Bare::Local)).unwrap_or_default();
    let action = match word.trim().to_lowercase().as_str() {
        "continue" => Action::Continue,
        "break" => Action::Break,
        "fail" => Action::Fail,
        "retry" => Action::Retry(retry(reader, then, RULE_KEYS)),
        "jump" => Action::Jump(jump(reader, then, word_node, place)?),
        _ => {
            let hint = match nearest(&word, ACTIONS.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("possible are: {}", ACTIONS.join(", ")),
            };
            reader.error(codes::UNKNOWN_ACTION, word_node.span, format!("a policy can not do `{word}`"), hint);
            return None;
        }
    };
    Some((action, set))
}

/// Reads the older `retry: {max_attempts, retry_on_status, backoff_seconds}` of a request, as the rule that it means.
pub(super) fn request_retry(reader: &mut Reader<'_>, node: &Node) -> Option<Rule> {
    if node.is_null() {
        return None;
    }
    if !node.is_map() {
        reader.wrong_kind(node, "`retry`", "a mapping with `max_attempts`");
        return None;
    }
    let keys = RetryKeys { attempts: "max_attempts", delay: "backoff_seconds" };
    reader.unknown_keys(node, "`retry`", &[keys.attempts, "retry_on_status", keys.delay, "backoff"]);
    let statuses = node.get("retry_on_status").filter(|statuses| !statuses.is_null());
    let when = match statuses {
        None => "output.status == 'error' and output.error.retryable".to_owned(),
        Some(Node { yaml: Yaml::List(items), .. }) => {
            let statuses: Option<Vec<u64>> = items.iter().map(|item| reader.count(item, "a status", 100)).collect();
            let statuses: Vec<String> = statuses?.iter().map(u64::to_string).collect();
            format!("output.status == 'error' and output.http.status in [{}]", statuses.join(", "))
        }
        Some(other) => {
            reader.wrong_kind(other, "`retry_on_status`", "a list of statuses");
            return None;
        }
    };
    // It is ours, so it compiles.
    let when = Condition::compile_raw(&when).ok()?;
    Some(Rule { when: Some(when), action: Action::Retry(retry(reader, node, keys)), set: Vec::new() })
}

/// What the parts of a retry are called.
#[derive(Clone, Copy)]
struct RetryKeys {
    attempts: &'static str,
    delay: &'static str,
}

const RULE_KEYS: RetryKeys = RetryKeys { attempts: "attempts", delay: "delay" };

fn retry(reader: &mut Reader<'_>, then: &Node, keys: RetryKeys) -> Retry {
    let RetryKeys { attempts, delay } = keys;
    let attempts = then.get(attempts).and_then(|node| match &node.yaml {
        Yaml::Text(text) if is_template(text) => Some(reader.value(node, Unreadable::Refused)),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => {
            let count = reader.count(node, &format!("`{attempts}`"), 1);
            count.map(|attempts| ValueTemplate::literal(attempts.into()))
        }
    });
    let delay = then.get(delay).and_then(|node| number(reader, node, &format!("`{delay}`"), 0.0));
    let backoff = then.get("backoff").filter(|node| !node.is_null()).and_then(|node| {
        let words = [
            ("none", Backoff::None),
            ("constant", Backoff::Constant),
            ("fixed", Backoff::Constant),
            ("linear", Backoff::Linear),
            ("exponential", Backoff::Exponential),
        ];
        reader.word(node, "`backoff`", &words)
    });
    // A backoff without a delay starts from one second; the first delay is the unit that it grows by.
    let delay = match (delay, backoff) {
        (None, Some(Backoff::Constant | Backoff::Linear | Backoff::Exponential)) => {
            Some(ValueTemplate::literal(1.into()))
        }
        (delay, _) => delay,
    };
    Retry {
        attempts: attempts.unwrap_or_else(|| ValueTemplate::literal(ATTEMPTS_DEFAULT.into())),
        delay,
        backoff: backoff.unwrap_or(Backoff::Constant),
    }
}

/// Returns a number of at least `min`, or a template that will give one.
pub(super) fn number(reader: &mut Reader<'_>, node: &Node, what: &str, min: f64) -> Option<ValueTemplate> {
    if node.is_null() {
        return None;
    }
    let value = reader.value(node, Unreadable::Refused);
    let Some(literal) = value.as_literal() else {
        return Some(value);
    };
    let number = match literal {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match number.filter(|number| number.as_f64().is_some_and(|number| number >= min)) {
        Some(number) => Some(ValueTemplate::literal(Value::Number(number))),
        None => {
            let message = format!("{what} has to be a number of at least {min}, or a template of one");
            reader.error(codes::OUT_OF_RANGE, node.span, message, "");
            None
        }
    }
}

fn jump(reader: &mut Reader<'_>, then: &Node, word: &Node, place: Place<'_>) -> Option<usize> {
    let Some(to) = then.get("to") else {
        reader.error(codes::BAD_JUMP, word.span, "`jump` does not say where to", "add `to: <label of a task>`");
        return None;
    };
    let label = reader.text(to, "`to`")?;
    if let Some(task) = place.labels.iter().position(|known| *known == label) {
        return Some(task);
    }
    if matches!(&*label, "previous" | "prev") && place.task > 0 {
        return Some(place.task - 1);
    }
    let hint = match nearest(&label, place.labels.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("tasks of this pipeline are: {}", place.labels.join(", ")),
    };
    reader.error(codes::BAD_JUMP, to.span, format!("there is no task `{label}` to jump to"), hint);
    None
}
