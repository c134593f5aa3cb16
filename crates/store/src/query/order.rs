//! ORDER BY items, with PostgreSQL's place for NULLs.

use sqlparser::ast::{Expr, OrderByExpr, OrderBySort, UnaryOperator, Value};

use super::error::{QueryError, Result};

/// One item of an ORDER BY clause.
#[derive(Debug, Clone)]
pub(super) struct OrderTerm {
    /// An expression, or the number of an output column.
    pub(super) sql: String,
    /// ` DESC NULLS FIRST` or whatever part of it SQLite needs.
    direction: String,
}

impl OrderTerm {
    /// Takes the direction of an item for a translated expression.
    pub(super) fn new(sql: String, nullable: bool, item: &OrderByExpr) -> Result<Self> {
        if item.with_fill.is_some() {
            return Err(QueryError::unsupported("WITH FILL"));
        }
        let descending = match &item.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => return Err(QueryError::unsupported("ORDER BY … USING")),
        };
        // NULL is the largest value to PostgreSQL and the smallest to SQLite. Where there is none the clause is
        // left out, so that SQLite can take the order from an index.
        let nulls_first = item.options.nulls_first.unwrap_or(descending);
        let direction = match (descending, nullable, nulls_first) {
            (false, false, _) | (false, true, true) => "",
            (false, true, false) => " NULLS LAST",
            (true, false, _) | (true, true, false) => " DESC",
            (true, true, true) => " DESC NULLS FIRST",
        };
        Ok(OrderTerm { sql, direction: direction.to_owned() })
    }

    /// Returns the same order of another expression.
    pub(super) fn of(&self, sql: String) -> Self {
        OrderTerm { sql, direction: self.direction.clone() }
    }

    /// Writes the items, separated by commas.
    pub(super) fn list(terms: &[OrderTerm]) -> String {
        let texts: Vec<String> = terms.iter().map(|term| format!("{}{}", term.sql, term.direction)).collect();
        texts.join(", ")
    }
}

/// Returns whether SQLite would take a constant for the position of a column: a number, also one with a sign or in
/// parentheses.
pub(super) fn is_taken_for_a_position(sql: &str) -> bool {
    sql.trim_matches(['(', ')', '-', '+', ' ']).bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the number by which an ORDER BY or GROUP BY item names a column: one that stands there alone. A sign belongs
/// to it, as in PostgreSQL, so `-1` names a column that there is not.
pub(super) fn number(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => number(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            number(expr).map(|digits| digits.strip_prefix('-').map_or_else(|| format!("-{digits}"), str::to_owned))
        }
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Reads the number of an output column; the answer counts from 0.
pub(super) fn ordinal(digits: &str, columns: usize) -> Result<usize> {
    match digits.parse::<usize>() {
        Ok(at) if (1..=columns).contains(&at) => Ok(at - 1),
        Ok(_) | Err(_) => Err(QueryError::invalid(format!("position {digits} is not in the select list"))),
    }
}
