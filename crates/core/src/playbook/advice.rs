//! What to write instead of a template that can not be read.

use super::suggest::nearest;
use crate::expr::{FILTERS, TESTS, TemplateError, instead_of_changing};

const RAW_HINT: &str = "to write braces that are no template: {% raw %}…{% endraw %}";

/// Filters that people know from elsewhere, and why they are not here.
const ABSENT: &[(&str, &str)] = &[
    (
        "random",
        "a decision comes out the same whenever it is looked at, so nothing is left to chance: choose in a python task",
    ),
    (
        "shuffle",
        "a decision comes out the same whenever it is looked at, so nothing is left to chance: shuffle in a python task",
    ),
    ("urlize", "make links in a python task"),
];

/// Returns what to write instead of what `error` points at in `text`.
pub(super) fn advise(text: &str, error: &TemplateError) -> String {
    let raw = || RAW_HINT.to_owned();
    let Some(range) = &error.range else { return raw() };
    let (Some(before), Some(meant), Some(after)) =
        (text.get(..range.start), text.get(range.clone()), text.get(range.start..))
    else {
        return raw();
    };
    let before = before.trim_end();
    if after.starts_with('=') && !after.starts_with("==") && !before.ends_with(['=', '!', '<', '>']) {
        return "did you mean `==`?".to_owned();
    }
    if before.ends_with('.')
        && let Some(instead) = instead_of_changing(meant)
    {
        return instead.to_owned();
    }
    let known = match before.rsplit(|letter: char| !letter.is_alphanumeric() && letter != '|').next() {
        _ if before.ends_with('|') => FILTERS,
        Some("is" | "not") => TESTS,
        Some(_) | None => return raw(),
    };
    if let Some((_, why)) = ABSENT.iter().find(|(name, _)| *name == meant) {
        return (*why).to_owned();
    }
    match nearest(meant, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are: {}", known.join(", ")),
    }
}
