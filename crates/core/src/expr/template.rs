//! One string with a template in it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use minijinja::{Environment, Expression, UndefinedBehavior};
use serde_json::Value;

use super::{Binding, ExprError, Scope, TemplateError};
use crate::result::Bound;

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Chainable);
    engine
});

/// A compiled template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template {
    source: Arc<str>,
    expression: Option<Arc<Expression<'static, 'static>>>,
    roots: Arc<[String]>,
}

impl Template {
    /// Compiles `source`.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        let inner = source.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        let expression = match inner {
            Some(inner) => ENGINE.compile_expression_owned(inner.trim().to_owned()).ok().map(Arc::new),
            None => None,
        };
        let refuse = |error: minijinja::Error| TemplateError { message: error.to_string(), range: error.range() };
        let roots = match &expression {
            Some(expression) => expression.undeclared_variables(false),
            None => ENGINE.clone().template_from_str(source).map_err(refuse)?.undeclared_variables(false),
        };
        let mut roots: Vec<String> = roots.into_iter().collect();
        roots.sort_unstable();
        Ok(Template { source: Arc::from(source), expression, roots: Arc::from(roots) })
    }

    /// Returns what the template means in `scope`: a native value for a single expression, else text.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        let refuse = |error: minijinja::Error| ExprError::Failed { message: error.to_string() };
        let mut context = BTreeMap::new();
        for root in self.roots.iter() {
            if let Some(binding) = scope.names.lookup(root) {
                context.insert(root.clone(), plain(&binding, scope)?);
            }
        }
        let context = minijinja::Value::from(minijinja::value::Serde(&context));
        match &self.expression {
            Some(expression) => {
                let value = expression.eval(context).map_err(refuse)?;
                serde_json::to_value(value).map_err(|error| ExprError::Failed { message: error.to_string() })
            }
            None => ENGINE.clone().render_str(&self.source, context).map(Value::from).map_err(refuse),
        }
    }

    /// Returns the template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the names that the template reads.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(String::as_str)
    }
}

fn plain(binding: &Binding, scope: &Scope<'_>) -> Result<Value, ExprError> {
    match binding {
        Binding::Data(data) => Ok(Value::clone(data)),
        Binding::Result(result) => match &result.bound {
            Bound::Inline(data) => Ok(Value::clone(data)),
            Bound::Stored(stored) => match scope.library.get_or_note(&stored.reference) {
                Some(data) => Ok(Value::clone(&data)),
                None => Err(ExprError::Needs),
            },
        },
        Binding::Group(group) => group.iter().map(|(key, item)| Ok((key.to_string(), plain(item, scope)?))).collect(),
    }
}
