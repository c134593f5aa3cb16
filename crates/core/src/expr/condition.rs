//! Conditions: what `when` means.

use std::sync::Arc;

use serde_json::Value;

use super::template::{self, Template};
use super::{ExprError, Scope, TemplateError};

/// A condition. Cheap to clone.
///
/// False are: undefined, null, false, zero, an empty list or map, and the texts `false`, `0`, `no`, `none`, `null`,
/// `off`, `{}`, `[]` and the empty one, in any case and with white space around them. All else is true.
#[derive(Debug, Clone)]
pub struct Condition(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Always {
        holds: bool,
        source: Arc<str>,
    },
    Template(Template),
    /// Text that looks like a template and is none: it has no answer.
    Unreadable {
        source: Arc<str>,
        message: Arc<str>,
    },
}

impl Condition {
    /// Compiles a boolean, or text that is a template.
    pub fn compile(value: &Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(text) if super::is_template(text) => Template::compile(text).map(Condition::of),
            Value::String(text) => {
                Ok(Condition(Kind::Always { holds: template::is_true(value), source: Arc::from(text.as_str()) }))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Ok(Condition(Kind::Always { holds: template::is_true(value), source: Arc::from(value.to_string()) }))
            }
        }
    }

    /// Compiles an expression without braces around it.
    pub fn compile_raw(expression: &str) -> Result<Self, TemplateError> {
        Template::compile_raw(expression).map(Condition::of)
    }

    /// Returns a condition that has no answer, because `source` is no template; `message` says why.
    pub fn unreadable(source: &str, message: &str) -> Self {
        Condition(Kind::Unreadable { source: Arc::from(source), message: Arc::from(message) })
    }

    /// Returns the condition, which stands there in its playbook.
    #[must_use]
    pub fn placed(self, line: u32, column: u32) -> Self {
        match self.0 {
            Kind::Template(template) => Condition(Kind::Template(template.placed(line, column))),
            kind @ (Kind::Always { .. } | Kind::Unreadable { .. }) => Condition(kind),
        }
    }

    /// Returns whether it is text with templates in it, which is hardly ever false.
    pub fn is_text_around_templates(&self) -> bool {
        match &self.0 {
            Kind::Template(template) => template.has_text_around(),
            Kind::Always { .. } | Kind::Unreadable { .. } => false,
        }
    }

    /// Returns whether the condition is true in `scope`.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        match &self.0 {
            Kind::Always { holds, .. } => Ok(*holds),
            Kind::Template(template) => template.holds(scope),
            Kind::Unreadable { message, .. } => Err(ExprError::Failed { message: message.to_string() }),
        }
    }

    /// Returns the condition as written.
    pub fn source(&self) -> &str {
        match &self.0 {
            Kind::Always { source, .. } | Kind::Unreadable { source, .. } => source,
            Kind::Template(template) => template.source(),
        }
    }

    /// Returns the names that the condition reads.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        let template = match &self.0 {
            Kind::Always { .. } | Kind::Unreadable { .. } => None,
            Kind::Template(template) => Some(template),
        };
        template.into_iter().flat_map(Template::roots)
    }

    /// Returns the answer when it does not depend on anything.
    pub fn as_constant(&self) -> Option<bool> {
        match self.0 {
            Kind::Always { holds, .. } => Some(holds),
            Kind::Template(_) | Kind::Unreadable { .. } => None,
        }
    }

    fn of(template: Template) -> Self {
        Condition(Kind::Template(template))
    }
}
