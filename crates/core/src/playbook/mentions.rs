//! Which names a piece of Python may look up.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Names through which code can reach everything.
const EVERYTHING: &[&str] = &["context", "variables", "globals", "locals", "vars", "eval", "exec"];
/// Most names that are worth a list.
const MENTIONS_MAX: usize = 1_000;

/// Returns the identifiers in `code`, also those in comments and strings; `None` when it may look at everything.
pub(super) fn mentions(code: &str) -> Option<Vec<Arc<str>>> {
    let words = code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    let names: BTreeSet<&str> =
        words.filter(|word| !word.is_empty() && !word.starts_with(|letter: char| letter.is_ascii_digit())).collect();
    let everything = EVERYTHING.iter().any(|name| names.contains(name));
    (!everything && names.len() <= MENTIONS_MAX).then(|| names.into_iter().map(Arc::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_mentions_the_names_in_it_unless_it_can_reach_everything() {
        for (code, expected) in [
            ("result = a + b.c(1x)", Some("a b c result")),
            ("x = 'y' # z", Some("x y z")),
            ("", Some("")),
            ("context.get('a')", None),
            ("print(locals())", None),
            ("exec(code)", None),
            ("my_context = 1", Some("my_context")),
        ] {
            let found = mentions(code).map(|names| names.join(" "));
            assert_eq!(found.as_deref(), expected, "{code}");
        }
    }
}
