//! `LIKE` patterns, and PostgreSQL's regular expressions on the `regex` crate.

use regex::{Regex, RegexBuilder};

/// Memory that one compiled expression may take, in bytes.
const REGEX_BYTES: usize = 1 << 20;

/// A piece of a `LIKE` pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Letter(char),
    /// `_`
    One,
    /// `%`
    Many,
}

/// A compiled `LIKE` or `ILIKE` pattern.
#[derive(Debug)]
pub(super) struct Like {
    parts: Vec<Part>,
    fold: bool,
}

impl Like {
    /// Compiles a pattern; `None` when it ends in its escape character.
    pub(super) fn new(pattern: &str, escape: Option<char>, fold: bool) -> Option<Self> {
        let pattern = if fold { pattern.to_lowercase() } else { pattern.to_owned() };
        let mut parts = Vec::new();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                letter if Some(letter) == escape => Part::Letter(letters.next()?),
                '_' => Part::One,
                '%' => Part::Many,
                letter => Part::Letter(letter),
            });
        }
        Some(Like { parts, fold })
    }

    /// Tells whether the whole text fits the pattern, in time proportional to both lengths multiplied at worst.
    pub(super) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = if self.fold { text.to_lowercase().chars().collect() } else { text.chars().collect() };
        let (mut at, mut part) = (0, 0);
        // Where to take up again: only the latest `%` ever needs to swallow one letter more.
        let mut resume: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(part) {
                Some(Part::Many) => {
                    resume = Some((at, part + 1));
                    part += 1;
                    continue;
                }
                Some(Part::One) if at < text.len() => {
                    (at, part) = (at + 1, part + 1);
                    continue;
                }
                Some(Part::Letter(letter)) if text.get(at) == Some(letter) => {
                    (at, part) = (at + 1, part + 1);
                    continue;
                }
                None if at == text.len() => return true,
                Some(Part::One | Part::Letter(_)) | None => {}
            }
            match resume {
                Some((swallowed, after)) if swallowed < text.len() => {
                    resume = Some((swallowed + 1, after));
                    (at, part) = (swallowed + 1, after);
                }
                Some(_) | None => return false,
            }
        }
    }
}

/// Compiles a regular expression of PostgreSQL's; what the two dialects share, which is most of them.
///
/// Back references and look-around have no equivalent and come back as errors.
pub(super) fn regex(pattern: &str, fold: bool) -> Result<Regex, String> {
    let translated = pattern
        .replace("[[:<:]]", r"\b")
        .replace("[[:>:]]", r"\b")
        .replace(r"\m", r"\b")
        .replace(r"\M", r"\b")
        .replace(r"\y", r"\b");
    RegexBuilder::new(&translated)
        .case_insensitive(fold)
        // In PostgreSQL a dot matches a line break.
        .dot_matches_new_line(true)
        .size_limit(REGEX_BYTES)
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or("not understood").trim_start_matches("error: ");
            format!("regular expression {pattern:?} can not be used: {last}")
        })
}

/// Turns PostgreSQL's replacement (`\1`, `\&`) into the crate's (`${1}`, `${0}`).
pub(super) fn replacement(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '$' => out.push_str("$$"),
            '\\' => match letters.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some('&') => out.push_str("${0}"),
                Some('\\') => out.push('\\'),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_the_whole_text() {
        let table = [
            ("playbook.%", "playbook.completed", true),
            ("playbook.%", "Playbook.completed", false),
            ("%failed", "command.failed", true),
            ("%a%b%", "xxaxxbxx", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("", "", true),
            ("%", "", true),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            ("%aab", "aaaab", true),
            ("é_", "éà", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(Like::new(pattern, Some('\\'), false).unwrap().matches(text), expected, "{text} LIKE {pattern}");
        }
        assert!(Like::new("FAILED%", Some('\\'), true).unwrap().matches("failed: É"));
        assert!(Like::new("a\\", Some('\\'), false).is_none());
    }

    #[test]
    fn a_pattern_full_of_wildcards_stays_fast() {
        let pattern = "%a".repeat(200);
        assert!(!Like::new(&pattern, None, false).unwrap().matches(&"a".repeat(199)));
    }

    #[test]
    fn replacements_name_their_groups() {
        let regex = regex(r"(\w+)@(\w+)", false).unwrap();
        assert_eq!(regex.replace("me@host $1", replacement(r"\2 \& $")), "host me@host $ $1");
    }
}
