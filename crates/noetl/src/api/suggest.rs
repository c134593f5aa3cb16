//! "Did you mean": the known word that an unknown one was probably meant to be.

/// Likeness below which no suggestion is made; 1 is equality.
const LIKENESS_MIN: f64 = 0.7;

/// Returns the word of `known` that is most like `given`, if one is like it at all.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&given, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// Returns the complaint about a key that nobody knows.
pub fn unknown_key(given: &str, known: &[String]) -> String {
    match closest(given, known.iter().map(String::as_str)) {
        Some(word) => format!("unknown key `{given}`; did you mean `{word}`?"),
        None if known.is_empty() => format!("unknown key `{given}`; nothing is expected here"),
        None => format!("unknown key `{given}`; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_a_stranger_finds_none() {
        let known = ["reason".to_owned(), "cascade".to_owned(), "wait_seconds".to_owned()];
        assert_eq!(unknown_key("reson", &known), "unknown key `reson`; did you mean `reason`?");
        assert_eq!(unknown_key("Cascade", &known), "unknown key `Cascade`; did you mean `cascade`?");
        assert!(unknown_key("zzz", &known).ends_with("known are reason, cascade, wait_seconds"));
    }
}
