//! Expressions: columns, literals and syntax. Operators, casts and calls have their own files.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, DateTimeField, Expr, Ident, Query, Subscript, UnaryOperator, Value,
    ValueWithSpan,
};

use super::cast;
use super::error::{QueryError, Result};
use super::fields::Unit;
use super::interval::Interval;
use super::operators;
use super::scope::{self, Column, literal};
use super::translate::{Loose, Translator};
use super::types::{Target, Type};

/// The parameter that holds the time of the query.
pub(super) const NOW: &str = "?1";

/// A translated expression. Its text stands by itself: it is a name, a call or in parentheses.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) sql: String,
    pub(super) ty: Type,
    pub(super) nullable: bool,
    /// The text of a string literal whose type its surroundings decide.
    pub(super) literal: Option<String>,
}

impl Term {
    /// Returns a term that may be NULL.
    pub(super) fn new(sql: impl Into<String>, ty: Type) -> Self {
        Term { sql: sql.into(), ty, nullable: true, literal: None }
    }

    fn string(text: &str) -> Self {
        Term { sql: literal(text), ty: Type::Unknown, nullable: false, literal: Some(text.to_owned()) }
    }

    fn null() -> Self {
        Term::new("NULL", Type::Unknown)
    }
}

impl Translator<'_> {
    /// Translates an expression.
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<Term> {
        let before = self.loose.len();
        let term = self.deeper(|translator| translator.expr_here(expr))?;
        // What equals a GROUP BY expression is single in its group, whatever columns it is made of.
        if let Some(scope) = self.scopes.last()
            && scope.group_keys.contains(&term.sql)
        {
            let id = scope.id;
            let mut index = 0;
            self.loose.retain(|loose| {
                index += 1;
                index <= before || loose.scope != id
            });
        }
        Ok(term)
    }

    /// Translates an expression that must be true or false.
    pub(super) fn condition(&mut self, expr: &Expr, clause: &str) -> Result<String> {
        let term = self.expr(expr)?;
        match term.ty {
            Type::Bool => Ok(term.sql),
            Type::Unknown => cast::coerce(term, &Type::Bool, clause).map(|term| term.sql),
            other => Err(QueryError::invalid(format!(
                "argument of {clause} must be type boolean, not type {}",
                other.name()
            ))),
        }
    }

    fn expr_here(&mut self, expr: &Expr) -> Result<Term> {
        match expr {
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => constant(value),
            Expr::Nested(inner) => self.expr(inner),
            Expr::TypedString(typed) => {
                let target = Target::read(&typed.data_type)?;
                let term = constant(&typed.value)?;
                cast::cast(term, &target)
            }
            Expr::Interval(interval) => {
                let fields = (interval.leading_field.as_ref(), interval.last_field.as_ref());
                self.interval(&interval.value, fields)
            }
            Expr::Cast { expr, data_type, format: None, kind: _ } => {
                let target = Target::read(data_type)?;
                let term = match (expr.as_ref(), &target.ty) {
                    // `ARRAY[]::text[]`
                    (Expr::Array(array), Type::Array(_)) if array.elem.is_empty() => {
                        Term::new("'[]'", target.ty.clone())
                    }
                    (other, _) => self.expr(other)?,
                };
                cast::cast(term, &target)
            }
            Expr::BinaryOp { left, op, right } => self.binary(expr, left, op, right),
            Expr::UnaryOp { op, expr } => self.unary(op, expr),
            Expr::IsNull(inner) => self.null_test(inner, "IS NULL"),
            Expr::IsNotNull(inner) => self.null_test(inner, "IS NOT NULL"),
            Expr::IsTrue(inner) => self.truth_test(inner, "IS TRUE"),
            Expr::IsNotTrue(inner) => self.truth_test(inner, "IS NOT TRUE"),
            Expr::IsFalse(inner) => self.truth_test(inner, "IS FALSE"),
            Expr::IsNotFalse(inner) => self.truth_test(inner, "IS NOT FALSE"),
            Expr::IsUnknown(inner) => self.truth_test(inner, "IS NULL"),
            Expr::IsNotUnknown(inner) => self.truth_test(inner, "IS NOT NULL"),
            Expr::IsDistinctFrom(left, right) => self.distinct_test(left, "IS DISTINCT FROM", right),
            Expr::IsNotDistinctFrom(left, right) => self.distinct_test(left, "IS NOT DISTINCT FROM", right),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            Expr::Between { expr, negated, low, high } => self.between(expr, low, high, *negated),
            Expr::Like { negated, any, expr, pattern, escape_char } => {
                self.like("pg_like", *negated, *any, expr, (pattern, escape_char.as_deref()))
            }
            Expr::ILike { negated, any, expr, pattern, escape_char } => {
                self.like("pg_ilike", *negated, *any, expr, (pattern, escape_char.as_deref()))
            }
            Expr::AnyOp { left, compare_op, right, is_some: _ } => self.any_all(left, compare_op, right, false),
            Expr::AllOp { left, compare_op, right } => self.any_all(left, compare_op, right, true),
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Exists { subquery, negated } => {
                let emitted = self.query(subquery)?;
                let not = if *negated { "NOT " } else { "" };
                Ok(Term { nullable: false, ..Term::new(format!("({not}EXISTS ({}))", emitted.sql), Type::Bool) })
            }
            Expr::Subquery(query) => self.scalar_subquery(query),
            Expr::Array(array) if !array.named => Err(QueryError::Syntax("an array is written ARRAY[…]".to_owned())),
            Expr::Array(array) => {
                let terms = array.elem.iter().map(|element| self.expr(element)).collect::<Result<Vec<_>>>()?;
                let (terms, ty) = cast::unify(terms, "ARRAY")?;
                let elements: Vec<String> = terms.iter().map(cast::element).collect::<Result<_>>()?;
                let array = Type::Array(Box::new(ty));
                Ok(Term { nullable: false, ..Term::new(format!("pg_json_array({})", elements.join(", ")), array) })
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.subscript(root, access_chain),
            Expr::Collate { expr, collation } => {
                let name = collation.to_string().trim_matches('"').to_ascii_lowercase();
                if matches!(name.as_str(), "c" | "posix" | "default" | "c.utf-8" | "ucs_basic") {
                    self.expr(expr)
                } else {
                    Err(QueryError::unsupported(format!("COLLATE {collation}")))
                }
            }
            Expr::Function(function) => self.call(function),
            Expr::Extract { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::AtTimeZone { .. } => self.special_call(expr),
            Expr::SimilarTo { .. } => {
                Err(QueryError::unsupported("SIMILAR TO").hint("use ~ with a regular expression"))
            }
            Expr::RLike { .. } => Err(QueryError::unsupported("REGEXP").hint("use ~")),
            Expr::Tuple(_) => Err(QueryError::unsupported("a row value here")),
            Expr::Overlay { .. } => Err(QueryError::unsupported("OVERLAY")),
            Expr::IsJson { .. } => Err(QueryError::unsupported("IS JSON")),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                Err(QueryError::unsupported("GROUPING SETS, CUBE and ROLLUP"))
            }
            other => {
                let text: String = other.to_string().chars().take(60).collect();
                Err(QueryError::unsupported(format!("expression {text}")))
            }
        }
    }

    /// Finds what a name means and notes its use.
    fn column(&mut self, parts: &[Ident]) -> Result<Term> {
        let span = parts.first().map_or_else(sqlparser::tokenizer::Span::empty, |ident| ident.span);
        let names: Vec<String> = parts.iter().map(scope::fold).collect();
        let found = self.find(&names).map_err(|error| error.located(span))?;
        if let Some(secret) = &found.secret {
            return Err(QueryError::invalid(format!("column {secret} is encrypted and can not be read")).located(span));
        }
        self.use_column(&found);
        Ok(Term { nullable: found.nullable, ..Term::new(found.sql, found.ty) })
    }

    fn find(&self, names: &[String]) -> Result<Column> {
        let (qualifier, name) = match names {
            [name] => (None, name),
            [relation, name] => (Some(relation), name),
            [schema, relation, name] if schema == super::schema::SCHEMA => (Some(relation), name),
            _ => return Err(QueryError::invalid(format!("column {} does not exist", names.join(".")))),
        };
        for scope in self.scopes.iter().rev() {
            match qualifier {
                None => {
                    if let Some(column) = scope.visible(name)? {
                        return Ok(column.clone());
                    }
                    // The alias of a function that makes one column means that column.
                    if let Some(relation) = scope.relation(name) {
                        return match relation.columns.first() {
                            Some(column) if relation.scalar => Ok(column.clone()),
                            _ => Err(QueryError::unsupported(format!("the row value {name}"))),
                        };
                    }
                }
                Some(qualifier) => {
                    let relation = scope
                        .relation(qualifier)
                        .filter(|relation| names.len() < 3 || relation.table.as_deref() == Some(qualifier.as_str()));
                    if let Some(relation) = relation {
                        let column = relation.columns.iter().find(|column| column.name == *name);
                        return column
                            .cloned()
                            .ok_or_else(|| QueryError::invalid(format!("column {qualifier}.{name} does not exist")));
                    }
                }
            }
        }
        Err(QueryError::invalid(match qualifier {
            None => format!("column {name:?} does not exist"),
            Some(qualifier) => format!("missing FROM-clause entry for table {qualifier:?}"),
        }))
    }

    /// Notes that a column is used as it is, for the check against GROUP BY.
    pub(super) fn use_column(&mut self, column: &Column) {
        let owner = self.scopes.iter().rev().find(|scope| {
            scope.visible.iter().any(|other| other.sql == column.sql)
                || scope.relations.iter().any(|relation| relation.columns.iter().any(|other| other.sql == column.sql))
        });
        if let Some(scope) = owner {
            self.loose.push(Loose { scope: scope.id, name: column.name.clone(), sql: column.sql.clone() });
        }
    }

    fn interval(&mut self, value: &Expr, fields: (Option<&DateTimeField>, Option<&DateTimeField>)) -> Result<Term> {
        let unit = match fields {
            (None, None) => Unit::Second,
            (Some(field), None) => Unit::parse(&field.to_string())
                .ok_or_else(|| QueryError::invalid(format!("interval field {field} is not known")))?,
            (_, Some(_)) => return Err(QueryError::unsupported("INTERVAL … TO …")),
        };
        let term = self.expr(value)?;
        let text = match &term.literal {
            Some(text) => text.clone(),
            None if term.ty.is_number() => term.sql.clone(),
            None => {
                return Err(
                    QueryError::unsupported("INTERVAL of an expression").hint("cast it, or multiply an interval")
                );
            }
        };
        let interval = Interval::parse(&text, unit)
            .ok_or_else(|| QueryError::invalid(format!("invalid input syntax for type interval: {text:?}")))?;
        Ok(Term { nullable: false, ..Term::new(literal(&interval.encode()), Type::Interval) })
    }

    fn unary(&mut self, op: &UnaryOperator, inner: &Expr) -> Result<Term> {
        if *op == UnaryOperator::Not {
            return Ok(Term::new(format!("(NOT {})", self.condition(inner, "NOT")?), Type::Bool));
        }
        let term = self.expr(inner)?;
        let wrong = |term: &Term| QueryError::invalid(format!("operator does not exist: {op} {}", term.ty.name()));
        match op {
            UnaryOperator::Minus if term.ty.is_number() => Ok(Term { sql: format!("(-{})", term.sql), ..term }),
            UnaryOperator::Minus if term.ty == Type::Interval => {
                Ok(Term { sql: format!("pg_interval_times({}, -1)", term.sql), ..term })
            }
            UnaryOperator::Plus if term.ty.is_number() => Ok(term),
            UnaryOperator::BitwiseNot if term.ty == Type::Int => Ok(Term { sql: format!("(~{})", term.sql), ..term }),
            UnaryOperator::PGAbs if term.ty.is_number() => Ok(Term { sql: format!("abs({})", term.sql), ..term }),
            UnaryOperator::Minus | UnaryOperator::Plus | UnaryOperator::BitwiseNot | UnaryOperator::PGAbs => {
                Err(wrong(&term))
            }
            _ => Err(QueryError::unsupported(format!("operator {op}"))),
        }
    }

    fn null_test(&mut self, inner: &Expr, test: &str) -> Result<Term> {
        let term = self.expr(inner)?;
        Ok(Term { nullable: false, ..Term::new(format!("({} {test})", term.sql), Type::Bool) })
    }

    fn truth_test(&mut self, inner: &Expr, test: &str) -> Result<Term> {
        let condition = self.condition(inner, test)?;
        Ok(Term { nullable: false, ..Term::new(format!("({condition} {test})"), Type::Bool) })
    }

    fn between(&mut self, value: &Expr, low: &Expr, high: &Expr, negated: bool) -> Result<Term> {
        let term = self.expr(value)?;
        let (low, high) = (self.expr(low)?, self.expr(high)?);
        let above = operators::compare(term.clone(), &BinaryOperator::GtEq, low)?;
        let below = operators::compare(term, &BinaryOperator::LtEq, high)?;
        let not = if negated { "NOT " } else { "" };
        Ok(Term::new(format!("({not}({} AND {}))", above.sql, below.sql), Type::Bool))
    }

    fn case(&mut self, operand: Option<&Expr>, conditions: &[CaseWhen], otherwise: Option<&Expr>) -> Result<Term> {
        let operand = operand.map(|operand| self.expr(operand)).transpose()?;
        let mut tests = Vec::new();
        let mut results = Vec::new();
        for CaseWhen { condition, result } in conditions {
            tests.push(match &operand {
                Some(operand) => {
                    let value = self.expr(condition)?;
                    operators::compare(operand.clone(), &BinaryOperator::Eq, value)?.sql
                }
                None => self.condition(condition, "CASE/WHEN")?,
            });
            results.push(self.expr(result)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expr(otherwise)?,
            None => Term::null(),
        });
        let (results, ty) = cast::unify(results, "CASE")?;
        let nullable = results.iter().any(|term| term.nullable);
        let mut sql = "(CASE".to_owned();
        for (test, result) in tests.iter().zip(&results) {
            sql.push_str(&format!(" WHEN {test} THEN {}", result.sql));
        }
        if let Some(last) = results.last() {
            sql.push_str(&format!(" ELSE {} END)", last.sql));
        }
        Ok(Term { nullable, ..Term::new(sql, ty) })
    }

    fn scalar_subquery(&mut self, query: &Query) -> Result<Term> {
        let emitted = self.query(query)?;
        match emitted.columns.as_slice() {
            [column] => Ok(Term::new(format!("({})", emitted.sql), column.ty.clone())),
            _ => Err(QueryError::invalid("subquery must return only one column")),
        }
    }

    fn subscript(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Term> {
        let mut term = self.expr(root)?;
        for access in chain {
            let AccessExpr::Subscript(Subscript::Index { index }) = access else {
                return Err(QueryError::unsupported("this kind of subscript"));
            };
            let index = self.expr(index)?;
            term = match &term.ty {
                Type::Array(element) => {
                    let function = if **element == Type::Json { "pg_array_get_json" } else { "pg_array_get" };
                    let element = (**element).clone();
                    let index = cast::coerce(index, &Type::Int, "subscript")?;
                    Term::new(format!("{function}({}, {})", term.sql, index.sql), element)
                }
                Type::Json if matches!(index.ty, Type::Int | Type::Text | Type::Unknown) => {
                    Term::new(format!("pg_json_get({}, {})", term.sql, index.sql), Type::Json)
                }
                other => {
                    return Err(QueryError::invalid(format!("cannot subscript type {}", other.name())));
                }
            };
        }
        Ok(term)
    }
}

fn constant(value: &ValueWithSpan) -> Result<Term> {
    let span = value.span;
    match &value.value {
        Value::Number(digits, false) => number(digits).map_err(|error| error.located(span)),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) | Value::UnicodeStringLiteral(text) => {
            Ok(Term::string(text))
        }
        Value::DollarQuotedString(quoted) => Ok(Term::string(&quoted.value)),
        Value::Boolean(value) => {
            Ok(Term { nullable: false, ..Term::new(if *value { "TRUE" } else { "FALSE" }, Type::Bool) })
        }
        Value::Null => Ok(Term::null()),
        Value::Placeholder(name) => Err(QueryError::unsupported(format!("parameter {name}"))
            .hint("write its value into the query")
            .located(span)),
        other => Err(QueryError::unsupported(format!("literal {other}")).located(span)),
    }
}

fn number(digits: &str) -> Result<Term> {
    let plain: String = digits.chars().filter(|letter| *letter != '_').collect();
    if plain.bytes().all(|byte| byte.is_ascii_digit()) && plain.parse::<i64>().is_ok() {
        return Ok(Term { nullable: false, ..Term::new(plain, Type::Int) });
    }
    match plain.parse::<f64>() {
        // Written out again, because SQLite reads neither `1.` followed by a name nor every exponent alike.
        Ok(value) if value.is_finite() => {
            Ok(Term { nullable: false, ..Term::new(format!("{value:?}"), Type::Numeric) })
        }
        Ok(_) | Err(_) => Err(QueryError::invalid(format!("number {digits} is not supported"))),
    }
}
