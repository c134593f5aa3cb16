//! Conditions: what `when` means.

use std::sync::Arc;

use serde_json::Value;

use super::template::Template;
use super::{ExprError, Scope, TemplateError};

/// A condition. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Condition {
    template: Arc<Template>,
}

impl Condition {
    /// Compiles a boolean, or text that is a template.
    pub fn compile(value: &Value) -> Result<Self, TemplateError> {
        let source = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Ok(Condition { template: Arc::new(Template::compile(&source)?) })
    }

    /// Compiles an expression without braces around it.
    pub fn compile_raw(expression: &str) -> Result<Self, TemplateError> {
        Condition::compile(&Value::from(format!("{{{{ {expression} }}}}")))
    }

    /// Returns whether the condition is true in `scope`.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        self.template.render(scope).map(|value| is_true(&value))
    }

    /// Returns the condition as written.
    pub fn source(&self) -> &str {
        self.template.source()
    }

    /// Returns the names that the condition reads.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.template.roots()
    }
}

/// Returns whether a condition with this value is true.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "" | "false" | "0" | "no" | "none" | "null" | "off" | "{}" | "[]"
        ),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
