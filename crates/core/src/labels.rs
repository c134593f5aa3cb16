//! Labels: names and values that people give executions, to find them by and to cancel them by.
//!
//! They belong to one execution and are part of its birth. A child has its own playbook's labels and not its parent's:
//! a family is reached through its edges (`cascade`), so what a label selects is exactly what was labelled. A cleanup
//! has none: whoever cancels by a label, again and again until nothing matches, does not stop what tidies up behind
//! that.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels by name.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Most labels of one execution, of one playbook and of one selection.
pub const LABELS_MAX: usize = 64;
/// Longest name of a label, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 63;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;

/// Why something is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The name is none.
    #[error(
        "`{}` is no name of a label: 1 to {LABEL_NAME_BYTES_MAX} letters, digits, `_`, `-`, `.` and `/`, the first one a \
         letter or digit",
        start_of(.0)
    )]
    Name(String),
    /// The value is none.
    #[error("the value of a label is one line of at most {LABEL_VALUE_BYTES_MAX} bytes without a comma")]
    Value {
        /// Of which label.
        name: String,
    },
    /// Something between two commas has no `=`.
    #[error("`{}` is no label: write name=value", start_of(.0))]
    NoValue(String),
    /// One name has two values.
    #[error("the label `{0}` is named twice")]
    Twice(String),
    /// There are more than an execution may have.
    #[error("{0} labels are more than {LABELS_MAX} (limits.labels)")]
    TooMany(usize),
}

impl LabelError {
    /// Returns the name of the label that is wrong, when one is.
    pub fn label(&self) -> Option<&str> {
        match self {
            LabelError::Value { name } => Some(name),
            LabelError::Name(_) | LabelError::NoValue(_) | LabelError::Twice(_) | LabelError::TooMany(_) => None,
        }
    }
}

/// Checks one label.
pub fn check(name: &str, value: &str) -> Result<(), LabelError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let named = name.len() <= LABEL_NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(plain);
    if !named {
        return Err(LabelError::Name(name.to_owned()));
    }
    // A comma stands between labels where several are written in one line.
    if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(|char| char.is_control() || char == ',') {
        return Err(LabelError::Value { name: name.to_owned() });
    }
    Ok(())
}

/// Reads `name=value`, several with commas between.
pub fn parse(text: &str) -> Result<Labels, LabelError> {
    let mut labels = Labels::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else { return Err(LabelError::NoValue(part.to_owned())) };
        check(name, value)?;
        if labels.insert(name.into(), value.into()).is_some() {
            return Err(LabelError::Twice(name.to_owned()));
        }
    }
    bounded(labels)
}

/// Returns the labels with which something starts: those of its playbook, and over them those of the request.
pub fn over(defaults: &Labels, given: &Labels) -> Result<Labels, LabelError> {
    let mut labels = defaults.clone();
    labels.extend(given.iter().map(|(name, value)| (Arc::clone(name), Arc::clone(value))));
    bounded(labels)
}

/// Returns the labels unless they are too many.
pub fn bounded(labels: Labels) -> Result<Labels, LabelError> {
    if labels.len() > LABELS_MAX { Err(LabelError::TooMany(labels.len())) } else { Ok(labels) }
}

/// Returns whether every label that is `wanted` is there, with its value.
pub fn have(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// What is quoted of something that may be very long.
fn start_of(text: &str) -> String {
    text.chars().take(LABEL_NAME_BYTES_MAX).map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_line_of_labels_is_read_back() {
        let read = parse("team=data, example.com/batch=7,empty=,url=a=b").unwrap();
        assert_eq!(read, labels(&[("team", "data"), ("example.com/batch", "7"), ("empty", ""), ("url", "a=b")]));
        assert_eq!(parse("team"), Err(LabelError::NoValue("team".into())));
        assert_eq!(parse("a=1,a=2"), Err(LabelError::Twice("a".into())));
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let longest = "n".repeat(LABEL_NAME_BYTES_MAX);
        check(&longest, &"v".repeat(LABEL_VALUE_BYTES_MAX)).unwrap();
        for name in ["", "-a", "a b", "ä", "a\"b", "a$", &format!("{longest}n")] {
            assert_eq!(check(name, "v"), Err(LabelError::Name(name.to_owned())));
        }
        for value in ["a,b", "a\nb", &"v".repeat(LABEL_VALUE_BYTES_MAX + 1)] {
            assert_eq!(check("team", value).unwrap_err().label(), Some("team"));
        }
    }

    #[test]
    fn those_of_the_request_win_and_the_sum_is_bounded() {
        let defaults = labels(&[("team", "data"), ("env", "prod")]);
        let both = over(&defaults, &labels(&[("env", "test")])).unwrap();
        assert_eq!(both, labels(&[("team", "data"), ("env", "test")]));
        let many: Labels = (0..LABELS_MAX).map(|n| (format!("n{n}").into(), "".into())).collect();
        assert_eq!(over(&labels(&[]), &many).unwrap(), many);
        assert_eq!(over(&defaults, &many), Err(LabelError::TooMany(LABELS_MAX + 2)));
    }

    #[test]
    fn every_label_that_is_wanted_must_be_there() {
        let of = labels(&[("team", "data"), ("env", "prod")]);
        assert!(have(&of, &labels(&[])) && have(&of, &labels(&[("env", "prod")])));
        assert!(!have(&of, &labels(&[("env", "test")])) && !have(&of, &labels(&[("env", "prod"), ("x", "")])));
    }
}
