//! Trees of values with templates in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::json::{self, Budget, Stop};
use super::template::Template;
use super::{ExprError, Scope, TemplateError, is_template};

/// A value in which any string may be a template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ValueTemplate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    roots: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
enum Node {
    Literal(Value),
    Template(Template),
    /// Text that looks like a template and is none: it can be shown, not rendered.
    Unreadable {
        source: String,
        message: String,
    },
    List(Vec<ValueTemplate>),
    Map(Vec<(String, ValueTemplate)>),
}

impl ValueTemplate {
    /// Compiles every string in `value` that holds a template. Keys are never templates.
    pub fn compile(value: &Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(text) if is_template(text) => Template::compile(text).map(ValueTemplate::from),
            Value::Array(items) => {
                items.iter().map(ValueTemplate::compile).collect::<Result<_, _>>().map(ValueTemplate::list)
            }
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| Ok((key.clone(), ValueTemplate::compile(item)?)))
                .collect::<Result<_, _>>()
                .map(ValueTemplate::map),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Ok(ValueTemplate::literal(value.clone()))
            }
        }
    }

    /// Returns `value` as it is, whatever its strings look like.
    ///
    /// Its [`ValueTemplate::source`] reads as a template again when a string in it looks like one; who sends it
    /// elsewhere sends [`ValueTemplate::as_literal`] as such.
    pub fn literal(value: Value) -> Self {
        ValueTemplate::of(Node::Literal(value))
    }

    /// Returns a value that can not be rendered, because `source` is no template.
    ///
    /// `message` says why, and what to write instead.
    pub fn unreadable(source: &str, message: String) -> Self {
        ValueTemplate::of(Node::Unreadable { source: source.to_owned(), message })
    }

    /// Returns the list of `items`.
    pub fn list(items: Vec<ValueTemplate>) -> Self {
        match items.iter().map(|item| item.as_literal().cloned()).collect() {
            Some(literals) => ValueTemplate::literal(Value::Array(literals)),
            None => ValueTemplate::of(Node::List(items)),
        }
    }

    /// Returns the map of `entries`; of equal keys the last one counts.
    pub fn map(entries: Vec<(String, ValueTemplate)>) -> Self {
        let literals = entries.iter().map(|(key, item)| Some((key.clone(), item.as_literal()?.clone())));
        match literals.collect::<Option<Map<_, _>>>() {
            Some(literals) => ValueTemplate::literal(Value::Object(literals)),
            None => ValueTemplate::of(Node::Map(entries)),
        }
    }

    /// Returns the value with every template replaced by what it means in `scope`.
    ///
    /// When stored results are missing, all that this value needs are noted at once.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        self.render_within(scope, &mut Budget::default())
    }

    /// Returns the names that the templates read, in alphabetical order.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.0.roots.iter().map(|name| &**name)
    }

    /// Returns whether a template reads the name `root`.
    pub fn reads(&self, root: &str) -> bool {
        self.0.roots.contains(root)
    }

    /// Returns the value as written.
    pub fn source(&self) -> Value {
        match &self.0.node {
            Node::Literal(value) => value.clone(),
            Node::Template(template) => Value::from(template.source()),
            Node::Unreadable { source, .. } => Value::from(source.as_str()),
            Node::List(items) => items.iter().map(ValueTemplate::source).collect(),
            Node::Map(entries) => entries.iter().map(|(key, item)| (key.clone(), item.source())).collect(),
        }
    }

    /// Returns the value when there is no template in it.
    pub fn as_literal(&self) -> Option<&Value> {
        match &self.0.node {
            Node::Literal(value) => Some(value),
            Node::Template(_) | Node::Unreadable { .. } | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// Returns the entries when this is a map that was written out, with or without templates in it.
    pub fn entries(&self) -> Option<Vec<(String, ValueTemplate)>> {
        match &self.0.node {
            Node::Map(entries) => Some(entries.clone()),
            Node::Literal(Value::Object(map)) => {
                Some(map.iter().map(|(key, item)| (key.clone(), ValueTemplate::literal(item.clone()))).collect())
            }
            Node::Literal(_) | Node::Template(_) | Node::Unreadable { .. } | Node::List(_) => None,
        }
    }

    fn render_within(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, ExprError> {
        match &self.0.node {
            Node::Literal(value) => json::copy(value, budget).map_err(ExprError::from),
            Node::Template(template) => template.render_within(scope, budget),
            Node::Unreadable { message, .. } => Err(ExprError::Failed { message: message.clone() }),
            Node::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                let mut needs = Ok(());
                for item in items {
                    match within(budget, |budget| item.render_within(scope, budget)) {
                        Ok(value) => out.push(value),
                        Err(ExprError::Needs) => needs = Err(ExprError::Needs),
                        Err(failed) => return Err(failed),
                    }
                }
                needs.map(|()| Value::Array(out))
            }
            Node::Map(entries) => {
                let mut out = Map::with_capacity(entries.len());
                let mut needs = Ok(());
                for (key, item) in entries {
                    match within(budget, |budget| item.render_within(scope, budget)) {
                        Ok(value) => {
                            out.insert(key.clone(), value);
                        }
                        Err(ExprError::Needs) => needs = Err(ExprError::Needs),
                        Err(failed) => return Err(failed),
                    }
                }
                needs.map(|()| Value::Object(out))
            }
        }
    }

    fn of(node: Node) -> Self {
        let mut roots = BTreeSet::new();
        match &node {
            Node::Literal(_) | Node::Unreadable { .. } => {}
            Node::Template(template) => roots.extend(template.roots().map(Arc::from)),
            Node::List(items) => roots.extend(items.iter().flat_map(|item| item.0.roots.iter().cloned())),
            Node::Map(entries) => roots.extend(entries.iter().flat_map(|(_, item)| item.0.roots.iter().cloned())),
        }
        ValueTemplate(Arc::new(Inner { node, roots }))
    }
}

impl From<Template> for ValueTemplate {
    fn from(template: Template) -> Self {
        ValueTemplate::of(Node::Template(template))
    }
}

impl From<Stop> for ExprError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Needed => ExprError::Needs,
            Stop::Deep | Stop::Large | Stop::Other(_) => ExprError::Failed { message: stop.to_string() },
        }
    }
}

fn within<T>(budget: &mut Budget, inner: impl FnOnce(&mut Budget) -> Result<T, ExprError>) -> Result<T, ExprError> {
    let mut done = Err(ExprError::Needs);
    budget
        .within(|budget| {
            done = inner(budget);
            Ok(())
        })
        .map_err(ExprError::from)?;
    done
}
