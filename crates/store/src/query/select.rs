//! Queries: WITH, set operations, VALUES, LIMIT. One SELECT is in `block`.

use sqlparser::ast::{
    Cte as CteAst, CteAsMaterialized, Expr, LimitClause, OrderByExpr, OrderByKind, Query, SetExpr, SetOperator,
    SetQuantifier, Value, Values,
};

use super::cast;
use super::error::{QueryError, Result};
use super::order::OrderTerm;
use super::scope::{self, Scope, quoted};
use super::translate::{Cte, Translator};
use super::types::Type;

/// A column that a query gives.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// What PostgreSQL calls it.
    pub(super) name: String,
    /// What SQLite calls it: the same, made unique.
    pub(super) label: String,
    pub(super) ty: Type,
    pub(super) nullable: bool,
    /// A string literal, whose type is not settled.
    pub(super) literal: bool,
}

/// A translated query.
#[derive(Debug)]
pub(super) struct Emitted {
    pub(super) sql: String,
    pub(super) columns: Vec<Output>,
    /// Whether the text can be an operand of a set operation as it stands.
    pub(super) bare: bool,
}

impl Translator<'_> {
    /// Translates a whole query; its columns see the SELECTs around it.
    pub(super) fn query(&mut self, query: &Query) -> Result<Emitted> {
        self.deeper(|translator| {
            let ctes = translator.ctes.len();
            let result = translator.query_here(query);
            translator.ctes.truncate(ctes);
            result
        })
    }

    fn query_here(&mut self, query: &Query) -> Result<Emitted> {
        if !query.locks.is_empty() {
            return Err(QueryError::ReadOnly { statement: query.locks[0].to_string(), position: None });
        }
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return Err(QueryError::unsupported("this clause at the end of a query"));
        }
        let with = match &query.with {
            Some(with) => {
                let mut texts = Vec::new();
                for cte in &with.cte_tables {
                    texts.push(self.cte(cte, with.recursive)?);
                }
                format!("WITH {}{} ", if with.recursive { "RECURSIVE " } else { "" }, texts.join(", "))
            }
            None => String::new(),
        };
        let order: &[OrderByExpr] = match &query.order_by {
            None => &[],
            Some(order) => match &order.kind {
                OrderByKind::Expressions(list) => list,
                OrderByKind::All(_) => return Err(QueryError::unsupported("ORDER BY ALL")),
            },
        };
        let limit = self.limit(query)?;
        let body = match query.body.as_ref() {
            SetExpr::Select(select) => self.select(select, order)?,
            other => {
                let mut body = self.set_expr(other)?;
                let takes_none = !body.bare && !matches!(other, SetExpr::SetOperation { .. });
                if takes_none && (!order.is_empty() || !limit.is_empty()) {
                    body.sql = format!("SELECT * FROM ({})", body.sql);
                }
                if !order.is_empty() {
                    let terms =
                        order.iter().map(|item| output_order(item, &body.columns)).collect::<Result<Vec<_>>>()?;
                    body.sql = format!("{} ORDER BY {}", body.sql, OrderTerm::list(&terms));
                }
                body
            }
        };
        let bare = body.bare && with.is_empty() && order.is_empty() && limit.is_empty();
        Ok(Emitted { sql: format!("{with}{}{limit}", body.sql), columns: body.columns, bare })
    }

    fn cte(&mut self, cte: &CteAst, recursive: bool) -> Result<String> {
        let name = scope::fold(&cte.alias.name);
        let renamed: Vec<String> = cte.alias.columns.iter().map(|column| scope::fold(&column.name)).collect();
        let query = &cte.query;
        let plain =
            query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        let sql = match query.body.as_ref() {
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right } if recursive && plain => {
                // The columns of the part that does not recur are the columns of the whole.
                let first = self.operand(left)?;
                let columns = rename(first.columns, &renamed, &name)?;
                self.ctes.push(Cte { name: name.clone(), columns: columns.clone() });
                let second = self.operand(right)?;
                let columns = unify(columns, &second.columns, "UNION")?;
                if let Some(cte) = self.ctes.last_mut() {
                    cte.columns = columns;
                }
                format!("{} UNION{} {}", first.sql, all(*set_quantifier)?, second.sql)
            }
            _ => {
                let emitted = self.query(query)?;
                let columns = rename(emitted.columns, &renamed, &name)?;
                self.ctes.push(Cte { name: name.clone(), columns });
                emitted.sql
            }
        };
        let labels: Vec<String> = match self.ctes.last() {
            Some(cte) => cte.columns.iter().map(|column| quoted(&column.label)).collect(),
            None => Vec::new(),
        };
        let hint = match cte.materialized {
            Some(CteAsMaterialized::Materialized) => "MATERIALIZED ",
            Some(CteAsMaterialized::NotMaterialized) => "NOT MATERIALIZED ",
            None => "",
        };
        Ok(format!("{}({}) AS {hint}({sql})", quoted(&name), labels.join(", ")))
    }

    fn set_expr(&mut self, expr: &SetExpr) -> Result<Emitted> {
        self.deeper(|translator| match expr {
            SetExpr::Select(select) => translator.select(select, &[]),
            SetExpr::Query(query) => translator.query(query),
            SetExpr::Values(values) => translator.values(values),
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                translator.set_operation(*op, *set_quantifier, left, right)
            }
            SetExpr::Table(_) => Err(QueryError::unsupported("TABLE").hint("write SELECT * FROM")),
            SetExpr::Insert(_) => Err(refused("INSERT")),
            SetExpr::Update(_) => Err(refused("UPDATE")),
            SetExpr::Delete(_) => Err(refused("DELETE")),
            SetExpr::Merge(_) => Err(refused("MERGE")),
        })
    }

    fn set_operation(
        &mut self,
        op: SetOperator,
        quantifier: SetQuantifier,
        left: &SetExpr,
        right: &SetExpr,
    ) -> Result<Emitted> {
        let name = match op {
            SetOperator::Union => "UNION",
            SetOperator::Except => "EXCEPT",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Minus => return Err(QueryError::unsupported("MINUS")),
        };
        let all = all(quantifier)?;
        if !all.is_empty() && op != SetOperator::Union {
            return Err(QueryError::unsupported(format!("{name} ALL")));
        }
        // SQLite reads operators from left to right, so an operation on the left may stand without parentheses.
        let first = match left {
            SetExpr::SetOperation { .. } => self.set_expr(left)?,
            _ => self.operand(left)?,
        };
        let second = self.operand(right)?;
        let columns = unify(first.columns, &second.columns, name)?;
        Ok(Emitted { sql: format!("{} {name}{all} {}", first.sql, second.sql), columns, bare: false })
    }

    /// Translates one side of a set operation; SQLite takes no parentheses there.
    fn operand(&mut self, expr: &SetExpr) -> Result<Emitted> {
        let emitted = self.set_expr(expr)?;
        if emitted.bare {
            return Ok(emitted);
        }
        Ok(Emitted { sql: format!("SELECT * FROM ({})", emitted.sql), columns: emitted.columns, bare: true })
    }

    fn values(&mut self, values: &Values) -> Result<Emitted> {
        let mut columns: Vec<Output> = Vec::new();
        let mut rows = Vec::new();
        let id = self.next_id();
        self.scopes.push(Scope { id, ..Scope::default() });
        for (index, row) in values.rows.iter().enumerate() {
            let mut texts = Vec::new();
            let mut outputs = Vec::new();
            for (at, expr) in row.content.iter().enumerate() {
                let term = self.expr(expr)?;
                let name = format!("column{}", at + 1);
                outputs.push(Output {
                    label: name.clone(),
                    name,
                    literal: term.literal.is_some(),
                    ty: term.ty,
                    nullable: true,
                });
                texts.push(term.sql);
            }
            columns = if index == 0 { outputs } else { unify(columns, &outputs, "VALUES")? };
            rows.push(format!("({})", texts.join(", ")));
        }
        self.scopes.pop();
        // SQLite takes neither ORDER BY nor LIMIT after VALUES, hence not bare.
        Ok(Emitted { sql: format!("VALUES {}", rows.join(", ")), columns, bare: false })
    }

    fn limit(&mut self, query: &Query) -> Result<String> {
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit: count, offset: skip, limit_by }) => {
                if !limit_by.is_empty() {
                    return Err(QueryError::unsupported("LIMIT BY"));
                }
                limit = count.as_ref();
                offset = skip.as_ref().map(|skip| &skip.value);
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => return Err(QueryError::unsupported("LIMIT with a comma")),
        }
        let one = Expr::value(Value::Number("1".to_owned(), false));
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(QueryError::unsupported("FETCH WITH TIES or PERCENT"));
            }
            limit = Some(fetch.quantity.as_ref().unwrap_or(&one));
        }
        let mut text = String::new();
        if let Some(limit) = limit {
            // NULL means no limit to PostgreSQL, a negative number means it to SQLite.
            text = format!(" LIMIT ifnull({}, -1)", self.count(limit, "LIMIT")?);
        }
        if let Some(offset) = offset {
            if text.is_empty() {
                text.push_str(" LIMIT -1");
            }
            text.push_str(&format!(" OFFSET ifnull({}, 0)", self.count(offset, "OFFSET")?));
        }
        Ok(text)
    }

    fn count(&mut self, expr: &Expr, clause: &str) -> Result<String> {
        let term = self.expr(expr)?;
        if term.sql.starts_with("(-") {
            return Err(QueryError::invalid(format!("{clause} must not be negative")));
        }
        cast::coerce(term, &Type::Int, clause).map(|term| term.sql)
    }
}

/// Gives columns the names of a column list, and labels that are unique.
pub(super) fn rename(mut columns: Vec<Output>, names: &[String], of: &str) -> Result<Vec<Output>> {
    if names.len() > columns.len() {
        return Err(QueryError::invalid(format!(
            "{of:?} has {} columns available but {} columns specified",
            columns.len(),
            names.len()
        )));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
        column.label.clone_from(name);
    }
    make_unique(&mut columns);
    Ok(columns)
}

/// Numbers the labels that would be given twice.
pub(super) fn make_unique(columns: &mut [Output]) {
    for index in 1..columns.len() {
        let (before, rest) = columns.split_at_mut(index);
        let column = &mut rest[0];
        let mut label = column.label.clone();
        let mut copy = 1;
        while before.iter().any(|other| other.label.eq_ignore_ascii_case(&label)) {
            copy += 1;
            label = format!("{}#{copy}", column.label);
        }
        column.label = label;
    }
}

/// Finds the types that hold the columns of two queries.
fn unify(left: Vec<Output>, right: &[Output], operation: &str) -> Result<Vec<Output>> {
    if left.len() != right.len() {
        return Err(QueryError::invalid(format!("each {operation} query must have the same number of columns")));
    }
    let merge = |(mut left, right): (Output, &Output)| {
        let mismatch = || {
            let (a, b) = (left.ty.name(), right.ty.name());
            QueryError::invalid(format!("{operation} types {a} and {b} cannot be matched: add a cast"))
        };
        let ty = left.ty.common(&right.ty).ok_or_else(mismatch)?;
        // A literal is written before its column's type is known, so it must be text or a number as it stands.
        let settled = |side: &Output| {
            side.ty == ty
                || (!side.literal && side.ty == Type::Unknown)
                || (side.ty.is_number() && ty.is_number())
                || matches!(
                    (&side.ty, &ty),
                    (Type::Timestamp { .. }, Type::Timestamp { .. })
                        | (Type::Array(_), Type::Array(_))
                        | (Type::Unknown, Type::Text)
                )
        };
        if !settled(&left) || !settled(right) {
            return Err(mismatch());
        }
        left.nullable |= right.nullable;
        left.literal &= right.literal;
        left.ty = ty;
        Ok(left)
    };
    left.into_iter().zip(right).map(merge).collect()
}

/// Reads an ORDER BY item of a set operation, which can only name an output column.
fn output_order(item: &OrderByExpr, columns: &[Output]) -> Result<OrderTerm> {
    let at = match &item.expr {
        Expr::Identifier(ident) => {
            let name = scope::fold(ident);
            columns
                .iter()
                .position(|column| column.name == name)
                .ok_or_else(|| QueryError::invalid(format!("column {name:?} does not exist")).located(ident.span))?
        }
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => super::order::ordinal(digits, columns.len())?,
            _ => return Err(QueryError::unsupported("ORDER BY a constant")),
        },
        _ => return Err(QueryError::unsupported("ORDER BY an expression after UNION, INTERSECT, EXCEPT or VALUES")),
    };
    OrderTerm::new(format!("{}", at + 1), columns[at].nullable, item)
}

fn all(quantifier: SetQuantifier) -> Result<&'static str> {
    match quantifier {
        SetQuantifier::All => Ok(" ALL"),
        SetQuantifier::Distinct | SetQuantifier::None => Ok(""),
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
            Err(QueryError::unsupported("BY NAME"))
        }
    }
}

fn refused(statement: &str) -> QueryError {
    QueryError::ReadOnly { statement: statement.to_owned(), position: None }
}
