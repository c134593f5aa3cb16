//! How each kind of tool is stopped: declared once, for answers, lists and documentation.

/// A kind of tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// The word in playbooks.
    pub kind: &'static str,
    /// Whether it can be ended before it is done.
    pub stoppable: bool,
    /// How, in a few words.
    pub how: &'static str,
}

const TREE: &str = "TERM to the whole process tree, after the grace KILL, until nothing is left";
const AT_ONCE: &str = "it is over at once";

/// Every kind that a playbook may use, in alphabetical order.
pub const KINDS: [KindInfo; 12] = [
    KindInfo { kind: "artifact", stoppable: true, how: AT_ONCE },
    KindInfo { kind: "duckdb", stoppable: true, how: TREE },
    KindInfo { kind: "http", stoppable: true, how: "its connection is closed; the remote may have acted" },
    KindInfo { kind: "noop", stoppable: true, how: AT_ONCE },
    KindInfo { kind: "playbook", stoppable: true, how: "the wait ends; its child is cancelled only with `cascade`" },
    KindInfo {
        kind: "postgres",
        stoppable: true,
        how: "cancel request for the statement, after the grace the backend is terminated",
    },
    KindInfo { kind: "python", stoppable: true, how: TREE },
    KindInfo { kind: "result_fetch", stoppable: true, how: AT_ONCE },
    KindInfo { kind: "secrets", stoppable: true, how: AT_ONCE },
    KindInfo { kind: "shell", stoppable: true, how: TREE },
    KindInfo { kind: "transfer", stoppable: true, how: "as its source and target stop; the target is rolled back" },
    KindInfo { kind: "workbook", stoppable: true, how: "as the task that it names" },
];

/// Returns what is known of a kind.
pub fn info(kind: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|info| info.kind == kind)
}

/// Returns whether an interrupt can end a tool of `kind`: of a kind that nobody declared it is not known.
pub fn stoppable(kind: &str) -> bool {
    info(kind).is_some_and(|info| info.stoppable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::TOOL_KINDS;

    #[test]
    fn every_kind_of_the_language_says_how_it_stops() {
        let declared: Vec<&str> = KINDS.iter().map(|info| info.kind).collect();
        assert_eq!(declared, TOOL_KINDS);
        assert!(stoppable("python") && !stoppable("of another worker"));
    }
}
