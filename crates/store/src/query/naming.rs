//! The names that PostgreSQL gives to output columns without an alias.

use sqlparser::ast::{AccessExpr, DataType, Expr, Query, SelectItem, SetExpr, TrimWhereField};

use sqlparser::tokenizer::Span;

use super::scope::fold;
use super::types::Target;

/// Returns the name of an output column: that of its column or function, else `?column?`.
pub(super) fn output_name(expr: &Expr) -> String {
    name(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// Returns where an expression begins in the query, for messages.
pub(super) fn start(expr: &Expr) -> Option<Span> {
    let mut expr = expr;
    loop {
        expr = match expr {
            Expr::Identifier(ident) => return Some(ident.span),
            Expr::CompoundIdentifier(parts) => return parts.first().map(|ident| ident.span),
            Expr::Value(value) => return Some(value.span),
            Expr::Function(function) => {
                return function.name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span);
            }
            Expr::BinaryOp { left, .. } => left,
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => inner,
            _ => return None,
        };
    }
}

/// Returns a name and whether it is stronger than the one a cast or CASE around it would give.
fn name(expr: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| (fold(ident), true)),
        Expr::Nested(inner) => name(inner),
        Expr::Collate { expr, .. } => name(expr),
        Expr::Function(function) => {
            let last = function.name.0.last().and_then(|part| part.as_ident());
            last.map(|ident| (fold(ident), true))
        }
        Expr::Cast { expr, data_type, .. } => match name(expr) {
            Some((name, true)) => Some((name, true)),
            Some((_, false)) | None => type_label(data_type).map(|label| (label, false)),
        },
        Expr::TypedString(typed) => type_label(&typed.data_type).map(|label| (label, false)),
        Expr::Interval(_) => Some(("interval".to_owned(), false)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(name) {
            Some((name, true)) => Some((name, true)),
            Some((_, false)) | None => Some(("case".to_owned(), false)),
        },
        Expr::CompoundFieldAccess { root, access_chain } => {
            let dotted = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(ident)) => Some((fold(ident), true)),
                AccessExpr::Dot(_) | AccessExpr::Subscript(_) => None,
            });
            dotted.or_else(|| name(root))
        }
        Expr::Exists { .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { shorthand, .. } => strong(if *shorthand { "substr" } else { "substring" }),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        Expr::Subquery(query) => subquery_name(query).map(|name| (name, true)),
        _ => None,
    }
}

fn subquery_name(query: &Query) -> Option<String> {
    match query.body.as_ref() {
        SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(expr) => Some(output_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        },
        SetExpr::Query(query) => subquery_name(query),
        _ => None,
    }
}

fn type_label(data_type: &DataType) -> Option<String> {
    Target::read(data_type).ok().map(|target| target.label.to_owned())
}
