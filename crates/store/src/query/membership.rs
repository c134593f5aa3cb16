//! IN, ANY, ALL and LIKE.

use sqlparser::ast::{BinaryOperator, Expr, Query, Value};

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::operators::{self, tuple};
use super::scope::{literal, quoted};
use super::translate::Translator;
use super::types::Type;

impl Translator<'_> {
    /// Translates `x IN (a, b)`.
    pub(super) fn in_list(&mut self, value: &Expr, list: &[Expr], negated: bool) -> Result<Term> {
        let not = if negated { "NOT " } else { "" };
        if let Some(columns) = tuple(value) {
            return self.rows_in_list(columns, list, not);
        }
        let term = self.expr(value)?;
        let elements = list.iter().map(|element| self.expr(element)).collect::<Result<Vec<_>>>()?;
        self.in_terms(term, elements, not)
    }

    fn in_terms(&mut self, term: Term, elements: Vec<Term>, not: &str) -> Result<Term> {
        // An untyped left side takes its type from the first element that has one.
        let known = elements.iter().map(|element| &element.ty).find(|ty| **ty != Type::Unknown).cloned();
        let term = match (&term.ty, known) {
            (Type::Unknown, Some(ty)) => cast::coerce(term, &ty, "IN")?,
            _ => term,
        };
        if term.ty == Type::Json {
            let mut tests = Vec::new();
            for element in elements {
                tests.push(operators::compare(term.clone(), &BinaryOperator::Eq, element)?.sql);
            }
            return Ok(Term::new(format!("({not}({}))", tests.join(" OR ")), Type::Bool));
        }
        let mut left = term.sql.clone();
        let mut texts = Vec::new();
        for element in elements {
            let (as_left, element) = operators::comparable(term.clone(), &BinaryOperator::Eq, element)?;
            texts.push((as_left.sql, element.sql));
        }
        // Where every element needs the same form of the left side it is one IN, else comparisons.
        if let Some((first, _)) = texts.first() {
            left.clone_from(first);
        }
        let sql = if texts.iter().all(|(other, _)| *other == left) {
            let list: Vec<String> = texts.into_iter().map(|(_, element)| element).collect();
            format!("({left} {not}IN ({}))", list.join(", "))
        } else {
            let tests: Vec<String> = texts.into_iter().map(|(left, element)| format!("{left} = {element}")).collect();
            format!("({not}({}))", tests.join(" OR "))
        };
        Ok(Term::new(sql, Type::Bool))
    }

    fn rows_in_list(&mut self, columns: &[Expr], list: &[Expr], not: &str) -> Result<Term> {
        let columns = columns.iter().map(|column| self.expr(column)).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for element in list {
            let Some(values) = tuple(element).filter(|values| values.len() == columns.len()) else {
                return Err(QueryError::invalid("unequal number of entries in row expressions"));
            };
            let mut texts = Vec::new();
            for (column, value) in columns.iter().zip(values) {
                let value = self.expr(value)?;
                let (left, value) = operators::comparable(column.clone(), &BinaryOperator::Eq, value)?;
                if left.sql != column.sql {
                    return Err(QueryError::unsupported("IN over row values of different types").hint("add casts"));
                }
                texts.push(value.sql);
            }
            rows.push(format!("({})", texts.join(", ")));
        }
        let left: Vec<String> = columns.into_iter().map(|column| column.sql).collect();
        Ok(Term::new(format!("(({}) {not}IN (VALUES {}))", left.join(", "), rows.join(", ")), Type::Bool))
    }

    /// Translates `x IN (SELECT …)`.
    pub(super) fn in_subquery(&mut self, value: &Expr, subquery: &Query, negated: bool) -> Result<Term> {
        let terms = match tuple(value) {
            Some(columns) => columns.iter().map(|column| self.expr(column)).collect::<Result<Vec<_>>>()?,
            None => vec![self.expr(value)?],
        };
        let emitted = self.query(subquery)?;
        if emitted.columns.len() != terms.len() {
            return Err(QueryError::invalid("subquery has too many or too few columns"));
        }
        let mut texts = Vec::new();
        for (term, column) in terms.into_iter().zip(&emitted.columns) {
            let given = Term::new("?", column.ty.clone());
            let untouched = given.sql.clone();
            let (term, given) = operators::comparable(term, &BinaryOperator::Eq, given)?;
            if given.sql != untouched {
                return Err(
                    QueryError::unsupported(format!("IN over a subquery of {}", column.ty.name())).hint("add a cast")
                );
            }
            texts.push(term.sql);
        }
        let left = if texts.len() == 1 { texts.concat() } else { format!("({})", texts.join(", ")) };
        let not = if negated { "NOT " } else { "" };
        Ok(Term::new(format!("({left} {not}IN ({}))", emitted.sql), Type::Bool))
    }

    /// Translates `x op ANY (…)` and `x op ALL (…)`.
    pub(super) fn any_all(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr, all: bool) -> Result<Term> {
        let word = if all { "ALL" } else { "ANY" };
        let member = !all && *op == BinaryOperator::Eq;
        let stranger = all && *op == BinaryOperator::NotEq;
        match bare(right) {
            Expr::Subquery(query) if member || stranger => self.in_subquery(left, query, stranger),
            Expr::Subquery(_) => Err(QueryError::unsupported(format!("{op} {word} (SELECT …)"))),
            Expr::Array(array) if !array.elem.is_empty() => {
                if member || stranger {
                    return self.in_list(left, &array.elem, stranger);
                }
                let term = self.expr(left)?;
                let mut tests = Vec::new();
                for element in &array.elem {
                    let element = self.expr(element)?;
                    tests.push(operators::test(term.clone(), op, element, word)?.sql);
                }
                let joiner = if all { " AND " } else { " OR " };
                Ok(Term::new(format!("({})", tests.join(joiner)), Type::Bool))
            }
            other => {
                let term = self.expr(left)?;
                let given = self.expr(other)?;
                let element = match (&given.ty, &term.ty) {
                    (Type::Array(element), _) => (**element).clone(),
                    (Type::Unknown, Type::Unknown) => Type::Text,
                    (Type::Unknown, ty) => ty.clone(),
                    (ty, _) => {
                        return Err(QueryError::invalid(format!("op {word} takes an array, not {}", ty.name())));
                    }
                };
                let array = cast::coerce(given, &Type::Array(Box::new(element.clone())), word)?;
                let alias = format!("#any{}", self.next_id());
                let value = Term::new(format!("{}.\"value\"", quoted(&alias)), element);
                let test = operators::test(term, op, value, word)?.sql;
                let from = format!("json_each({}) AS {}", array.sql, quoted(&alias));
                // `x = ANY (NULL)` is neither true nor false, but it selects nothing either way.
                let sql = if all {
                    format!("(NOT EXISTS (SELECT 1 FROM {from} WHERE NOT {test}))")
                } else {
                    format!("(EXISTS (SELECT 1 FROM {from} WHERE {test}))")
                };
                Ok(Term::new(sql, Type::Bool))
            }
        }
    }

    /// Translates `LIKE` and `ILIKE`, with ANY and ESCAPE.
    pub(super) fn like(
        &mut self,
        name: &str,
        negated: bool,
        any: bool,
        subject: &Expr,
        (pattern, escape): (&Expr, Option<&Expr>),
    ) -> Result<Term> {
        let escape = match escape.map(|escape| match escape {
            Expr::Value(value) => Some(&value.value),
            _ => None,
        }) {
            None => "'\\'".to_owned(),
            Some(Some(Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text)))
                if text.chars().count() <= 1 =>
            {
                literal(text)
            }
            Some(_) => return Err(QueryError::invalid("the ESCAPE of LIKE must be one letter or empty")),
        };
        let subject = self.expr(subject)?;
        // `LIKE ANY (ARRAY[…])` reaches us as a call of `ANY` or as the flag, depending on its parentheses.
        if !any {
            let pattern = self.expr(pattern)?;
            return operators::like_terms(name, negated, subject, pattern, &escape);
        }
        let patterns: &[Expr] = match bare(pattern) {
            Expr::Array(array) => &array.elem,
            Expr::Tuple(list) => list,
            other => std::slice::from_ref(other),
        };
        let mut tests = Vec::new();
        for pattern in patterns {
            let pattern = self.expr(pattern)?;
            tests.push(operators::like_terms(name, negated, subject.clone(), pattern, &escape)?.sql);
        }
        Ok(Term::new(format!("({})", tests.join(" OR ")), Type::Bool))
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => bare(inner),
        other => other,
    }
}
