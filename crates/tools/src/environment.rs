//! What a tool sees of the worker's environment: a short list of names, and nothing else.

/// Names that every tool sees.
pub const ALWAYS_EXPOSED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Returns the variables that tools may see, sorted by name.
///
/// A variable that is no UTF-8 is left out.
pub(crate) fn exposed(
    names: &[String],
    variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<(String, String)> {
    let variables =
        variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut seen: Vec<(String, String)> = variables
        .filter(|(name, _)| ALWAYS_EXPOSED.contains(&name.as_str()) || names.iter().any(|exposed| exposed == name))
        .collect();
    seen.sort();
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_pass() {
        let variables = [("PATH", "/bin"), ("NOETL_TOKEN", "secret"), ("API_HOST", "h"), ("API", "no")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let expected = [("API_HOST".to_owned(), "h".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
        assert_eq!(exposed(&["API_HOST".to_owned()], variables), expected);
    }
}
