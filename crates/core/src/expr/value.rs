//! Trees of values with templates in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

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

#[derive(Debug, Clone)]
enum Node {
    Literal(Value),
    Template(Template),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl ValueTemplate {
    /// Compiles every string in `value` that holds a template. Keys are never templates.
    pub fn compile(value: &Value) -> Result<Self, TemplateError> {
        Ok(ValueTemplate::of(Node::compile(value)?))
    }

    /// Returns `value` as it is, whatever its strings look like.
    pub fn literal(value: Value) -> Self {
        ValueTemplate::of(Node::Literal(value))
    }

    /// Returns the value with every template replaced by what it means in `scope`.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        self.0.node.render(scope)
    }

    /// Returns the names that the templates read.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.0.roots.iter().map(|name| &**name)
    }

    /// Returns whether a template reads the name `root`.
    pub fn reads(&self, root: &str) -> bool {
        self.0.roots.contains(root)
    }

    /// Returns the value as written.
    pub fn source(&self) -> Value {
        self.0.node.source()
    }

    /// Returns the value when there is no template in it.
    pub fn as_literal(&self) -> Option<&Value> {
        match &self.0.node {
            Node::Literal(value) => Some(value),
            Node::Template(_) | Node::List(_) | Node::Map(_) => None,
        }
    }

    fn of(node: Node) -> Self {
        let mut roots = BTreeSet::new();
        node.collect_roots(&mut roots);
        ValueTemplate(Arc::new(Inner { node, roots }))
    }
}

impl Node {
    fn compile(value: &Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(text) if is_template(text) => Ok(Node::Template(Template::compile(text)?)),
            Value::Array(items) => {
                let nodes = items.iter().map(Node::compile).collect::<Result<Vec<_>, _>>()?;
                Ok(if nodes.iter().all(Node::is_literal) { Node::Literal(value.clone()) } else { Node::List(nodes) })
            }
            Value::Object(map) => {
                let nodes =
                    map.iter()
                        .map(|(key, item)| Ok((key.clone(), Node::compile(item)?)))
                        .collect::<Result<Vec<_>, TemplateError>>()?;
                let literal = nodes.iter().all(|(_, node)| node.is_literal());
                Ok(if literal { Node::Literal(value.clone()) } else { Node::Map(nodes) })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Node::Literal(value.clone())),
        }
    }

    fn is_literal(&self) -> bool {
        matches!(self, Node::Literal(_))
    }

    fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        match self {
            Node::Literal(value) => Ok(value.clone()),
            Node::Template(template) => template.render(scope),
            Node::List(nodes) => nodes.iter().map(|node| node.render(scope)).collect(),
            Node::Map(nodes) => {
                let mut map = Map::new();
                for (key, node) in nodes {
                    map.insert(key.clone(), node.render(scope)?);
                }
                Ok(Value::Object(map))
            }
        }
    }

    fn collect_roots(&self, roots: &mut BTreeSet<Arc<str>>) {
        match self {
            Node::Literal(_) => {}
            Node::Template(template) => roots.extend(template.roots().map(Arc::from)),
            Node::List(nodes) => nodes.iter().for_each(|node| node.collect_roots(roots)),
            Node::Map(nodes) => nodes.iter().for_each(|(_, node)| node.collect_roots(roots)),
        }
    }

    fn source(&self) -> Value {
        match self {
            Node::Literal(value) => value.clone(),
            Node::Template(template) => Value::from(template.source()),
            Node::List(nodes) => nodes.iter().map(Node::source).collect(),
            Node::Map(nodes) => nodes.iter().map(|(key, node)| (key.clone(), node.source())).collect(),
        }
    }
}
