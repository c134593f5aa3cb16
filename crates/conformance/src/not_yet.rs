//! The list of entries that do not pass yet: they may fail, and they may not pass unnoticed.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Fault;

/// Ids of entries that may fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotYet {
    ids: BTreeSet<String>,
}

impl NotYet {
    /// Reads a list file.
    pub fn load(file: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(file).map_err(Fault::while_doing(format!("read {}", file.display())))?;
        NotYet::parse(&text).map_err(|fault| Fault(format!("{}: {fault}", file.display())))
    }

    /// Reads a list: an id per line, `#` starts a comment.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut ids = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let id = line.split('#').next().unwrap_or_default().trim();
            if id.contains(char::is_whitespace) {
                return Err(Fault(format!("line {}: one id per line, not `{id}`", index + 1)));
            }
            if !id.is_empty() && !ids.insert(id.to_owned()) {
                return Err(Fault(format!("line {}: `{id}` stands there twice", index + 1)));
            }
        }
        Ok(NotYet { ids })
    }

    /// Says whether the entry may fail.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Returns an id on the list that no entry has.
    pub fn stranger<'a>(&self, known: impl Iterator<Item = &'a str>) -> Option<&str> {
        let known: BTreeSet<&str> = known.collect();
        self.ids.iter().map(String::as_str).find(|id| !known.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_ids_comments_and_empty_lines() {
        let list = NotYet::parse("# all of them\n\nhello_world\n  loop_test  # needs loops\n").unwrap();
        assert!(list.contains("hello_world") && list.contains("loop_test"));
        assert!(!list.contains("# all of them") && !list.contains(""));
        assert_eq!(list.stranger(["hello_world", "other"].into_iter()), Some("loop_test"));
        assert_eq!(list.stranger(["hello_world", "loop_test"].into_iter()), None);
    }

    #[test]
    fn a_list_that_says_something_else_is_refused() {
        assert!(NotYet::parse("a\nb c\n").unwrap_err().0.contains("line 2"));
        assert!(NotYet::parse("a\nb\na # again\n").unwrap_err().0.contains("line 3: `a`"));
    }
}
