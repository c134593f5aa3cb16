//! A family of executions as a tree.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{DIM, clean, document, status_colour};

/// Returns the family below `root`; `executions` hold its members in any order.
pub fn tree(root: &str, executions: &[Value]) -> String {
    let mut children: HashMap<String, Vec<&Value>> = HashMap::new();
    let mut top = None;
    for execution in executions {
        let Some(id) = execution.get("execution_id").and_then(document::id) else { continue };
        if id == root {
            top = Some(execution);
        } else if let Some(parent) = execution.get("parent_execution_id").and_then(document::id) {
            children.entry(parent).or_default().push(execution);
        }
    }
    for siblings in children.values_mut() {
        // Ids sort by time; as numbers, since they may differ in length.
        siblings.sort_by_key(|child| {
            child.get("execution_id").and_then(document::id).and_then(|id| id.parse::<i64>().ok())
        });
    }
    let mut out = match top {
        Some(execution) => format!("{}\n", node(execution)),
        None => format!("{}\n", clean(root)),
    };
    // A stack and not recursion: a hostile answer must not decide how deep we go. Seen ids guard against cycles.
    let mut seen = HashSet::from([root.to_owned()]);
    let mut stack = Vec::new();
    push_children(&mut stack, children.get(root), "");
    while let Some((execution, indent, last)) = stack.pop() {
        let id = execution.get("execution_id").and_then(document::id).unwrap_or_default();
        if !seen.insert(id.clone()) {
            continue;
        }
        let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        out.push_str(&format!("{indent}{branch}{}\n", node(execution)));
        push_children(&mut stack, children.get(&id), &format!("{indent}{below}"));
    }
    out
}

/// Pushes in reverse, so that the eldest is drawn first.
fn push_children<'a>(stack: &mut Vec<(&'a Value, String, bool)>, children: Option<&Vec<&'a Value>>, indent: &str) {
    let children = children.map_or(&[][..], Vec::as_slice);
    for (place, child) in children.iter().enumerate().rev() {
        stack.push((child, indent.to_owned(), place + 1 == children.len()));
    }
}

fn node(execution: &Value) -> String {
    let id = execution.get("execution_id").and_then(document::id).unwrap_or_default();
    let status = document::status(execution);
    let colour = status_colour(&status);
    let path = clean(document::text(execution, "path").unwrap_or("-"));
    let version = document::count(execution, "version").map(|version| format!("@{version}")).unwrap_or_default();
    let mut line = format!("{}  {colour}{status}{colour:#}  {path}{version}", clean(&id));
    if let Some(step) = document::text(execution, "current_step").filter(|_| !document::is_terminal(&status)) {
        line.push_str(&format!("  at {}", clean(step)));
    }
    if let Some(duration) = document::duration(execution) {
        line.push_str(&format!("  {DIM}{duration}{DIM:#}"));
    }
    let in_flight = document::count(execution, "in_flight").unwrap_or(0);
    if document::is_terminal(&status) && in_flight > 0 {
        line.push_str(&format!("  {in_flight} still running"));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(id: &str, parent: Option<&str>, status: &str) -> Value {
        json!({
            "execution_id": id, "parent_execution_id": parent, "status": status, "path": "p", "version": 1,
            "duration_human": "1s", "current_step": "s", "in_flight": u32::from(id == "5"),
        })
    }

    #[test]
    fn a_family_is_drawn_eldest_first() {
        let family = [
            member("10", Some("2"), "COMPLETED"),
            member("5", Some("1"), "CANCELLED"),
            member("2", Some("1"), "RUNNING"),
            member("1", None, "RUNNING"),
            member("9", Some("2"), "FAILED"),
        ];
        assert_eq!(
            anstream::adapter::strip_str(&tree("1", &family)).to_string(),
            "\
1  RUNNING  p@1  at s  1s
├── 2  RUNNING  p@1  at s  1s
│   ├── 9  FAILED  p@1  1s
│   └── 10  COMPLETED  p@1  1s
└── 5  CANCELLED  p@1  1s  1 still running
"
        );
    }

    #[test]
    fn a_cycle_in_an_answer_ends() {
        let family =
            [member("1", None, "RUNNING"), member("2", Some("3"), "RUNNING"), member("3", Some("2"), "RUNNING")];
        assert_eq!(tree("2", &family).lines().count(), 2);
    }
}
