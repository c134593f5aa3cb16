//! "Did you mean …?"

/// Returns the known word nearest to `word`, when it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Long words are no typing mistakes, and comparing them is slow.
    const WORD_CHARS_MAX: usize = 64;
    let given: Vec<char> = word.chars().take(WORD_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if given.is_empty() || given.len() > WORD_CHARS_MAX {
        return None;
    }
    // One letter for another is no mistake in a short word, but another word.
    let allowed = (given.len() / 3).min(3);
    known
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.chars().take(WORD_CHARS_MAX).flat_map(char::to_lowercase).collect();
            let distance =
                if letters.len().abs_diff(given.len()) > allowed { return None } else { distance(&given, &letters) };
            (distance <= allowed && candidate != word).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns how many letters have to be added, dropped, changed or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_the_word_that_was_meant() {
        let known = ["workflow", "workload", "keychain", "end", "fetch_pages", "step"];
        for (word, expected) in [
            ("workflows", Some("workflow")),
            ("wrokload", Some("workload")),
            ("Keychain", Some("keychain")),
            ("fetch_page", Some("fetch_pages")),
            ("stpe", Some("step")),
            ("edn", Some("end")),
            ("something", None),
            ("x", None),
            ("", None),
            ("end", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
