//! Expressions: templates in, native values out.

mod condition;
mod engine;
mod filter;
mod json;
mod library;
mod method;
mod path;
mod scan;
mod template;
mod value;
mod view;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

pub use self::condition::Condition;
pub use self::engine::{FILTERS, FUNCTIONS, TEMPLATE_CALLS_MAX, TEMPLATE_FUEL, TESTS};
pub use self::filter::TEMPLATE_PATTERN_BYTES_MAX;
pub use self::json::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
pub use self::library::Library;
pub use self::method::instead_of_changing;
pub use self::scan::{
    EXPRESSION_OPERATORS_MAX, TEMPLATE_BRACKETS_MAX, TEMPLATE_OPERATORS_MAX, TEMPLATE_STATEMENTS_MAX,
};
pub use self::template::Template;
pub use self::value::ValueTemplate;
use crate::result::Bound;
use crate::time::Timestamp;

/// Everything an evaluation may read.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// What the names mean.
    pub names: &'a dyn Names,
    /// The large results at hand.
    pub library: &'a Arc<Library>,
    /// What `now()` says.
    pub now: Timestamp,
}

/// Says what a name means, at the moment somebody asks.
pub trait Names {
    /// Returns what `name` is bound to; `None` is undefined.
    fn lookup(&self, name: &str) -> Option<Binding>;

    /// Returns whether secrets may be asked for here: by a worker, for what a tool is given.
    fn may_ask_secrets(&self) -> bool {
        false
    }
}

/// What a name is bound to.
#[derive(Debug, Clone)]
pub enum Binding {
    /// Plain JSON without helper attributes.
    Data(Arc<Value>),
    /// The result of a step or task, with the helper attributes.
    Result(ResultBinding),
    /// Further names: `steps`, `iter`, `results`, …
    Group(Arc<IndexMap<Arc<str>, Binding>>),
}

/// The result of a step or task, and what is known beside its data.
#[derive(Debug, Clone)]
pub struct ResultBinding {
    /// The data, or the way to it.
    pub bound: Bound,
    /// `ok` or `error`; what `.status` says when the data has no such key.
    pub status: Option<&'static str>,
    /// What `.error` says when the data has no such key; undefined without.
    pub error: Option<Arc<Value>>,
    /// Labels of a pipeline: the keys that `.results` shows.
    pub labels: Option<Arc<[Arc<str>]>>,
}

impl ResultBinding {
    /// Returns a successful result of a single tool.
    pub fn ok(bound: Bound) -> Self {
        ResultBinding { bound, status: Some("ok"), error: None, labels: None }
    }
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It touched stored results that are not at hand; [`Library::take_needs`] names them.
    #[error("a stored result has to be loaded first")]
    Needs,
    /// It can not be evaluated.
    #[error("{message}")]
    Failed {
        /// What went wrong, with the template.
        message: String,
    },
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// The bytes of the template that are meant.
    pub range: Option<Range<usize>>,
}

impl TemplateError {
    /// Keeps the range inside `source`: the engine also points at the end that it missed.
    fn within(self, source: &str) -> Self {
        let range = self.range.map(|range| {
            let start = source.floor_char_boundary(range.start.min(source.len()));
            let end = source.ceil_char_boundary(range.end.clamp(start, source.len()));
            start..end
        });
        TemplateError { range, ..self }
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Returns whether `text` holds anything that the template engine would act on.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

#[cfg(test)]
mod tests;
