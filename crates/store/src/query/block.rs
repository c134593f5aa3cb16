//! One SELECT: its list, grouping, DISTINCT and order.

use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, OrderByExpr, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use super::error::{QueryError, Result};
use super::expr::Term;
use super::naming;
use super::order::{self, OrderTerm};
use super::scope::{self, Column, Place, Scope, quoted};
use super::select::{Emitted, Output, make_unique};
use super::translate::Translator;
use super::types::Type;

/// A translated item of the select list.
#[derive(Debug)]
struct Item {
    sql: String,
    output: Output,
}

impl Item {
    fn new(name: String, term: Term) -> Self {
        let literal = term.literal.is_some();
        Item {
            sql: term.sql,
            output: Output { label: name.clone(), name, ty: term.ty, nullable: term.nullable, literal },
        }
    }
}

/// The clauses of a SELECT behind its list, as text.
#[derive(Debug, Default)]
struct Clauses {
    from: String,
    selection: String,
    group_by: String,
    having: String,
    window: String,
}

impl Clauses {
    fn text(&self) -> String {
        format!("{}{}{}{}{}", self.from, self.selection, self.group_by, self.having, self.window)
    }
}

impl Translator<'_> {
    /// Translates a SELECT with the ORDER BY that follows it.
    pub(super) fn select(&mut self, select: &Select, order: &[OrderByExpr]) -> Result<Emitted> {
        refuse_clauses(select)?;
        let (from, mut scope) = self.from(&select.from)?;
        scope.id = self.next_id();
        scope.windows = select.named_window.iter().map(|window| scope::fold(&window.0)).collect();
        let id = scope.id;
        self.scopes.push(scope);
        let result = self.block(select, order, from);
        self.scopes.pop();
        self.loose.retain(|loose| loose.scope != id);
        result
    }

    fn block(&mut self, select: &Select, order: &[OrderByExpr], from: String) -> Result<Emitted> {
        let mut clauses = Clauses { from, ..Clauses::default() };
        if let Some(condition) = &select.selection {
            clauses.selection = format!(" WHERE {}", self.condition(condition, "WHERE")?);
        }
        let keys = self.group_keys(select)?;
        if !keys.is_empty() {
            clauses.group_by = format!(" GROUP BY {}", keys.join(", "));
        }
        let grouped = !keys.is_empty() || select.having.is_some();
        let id = self.scope().id;
        // What WHERE and GROUP BY use need not be grouped.
        self.loose.retain(|loose| loose.scope != id);
        self.scope().group_keys = keys;
        self.scope().place = Place::Projection;
        let mut items = Vec::new();
        for item in &select.projection {
            self.item(item, &mut items)?;
        }
        self.scope().place = Place::Groups;
        if let Some(having) = &select.having {
            clauses.having = format!(" HAVING {}", self.condition(having, "HAVING")?);
        }
        let distinct_on = match &select.distinct {
            Some(Distinct::On(list)) => self.distinct_on(list, &items)?,
            Some(Distinct::All | Distinct::Distinct) | None => Vec::new(),
        };
        let distinct = matches!(select.distinct, Some(Distinct::Distinct));
        let terms = self.order_terms(order, &items, distinct)?;
        clauses.window = self.windows(&select.named_window)?;
        self.check_grouping(grouped)?;
        for maker in std::mem::take(&mut self.scope().row_makers) {
            let before = if clauses.from.is_empty() { " FROM " } else { ", " };
            clauses.from.push_str(&format!("{before}{maker}"));
        }
        if items.is_empty() {
            return Err(QueryError::unsupported("SELECT without columns"));
        }
        if !distinct_on.is_empty() {
            return Ok(first_of_each(items, &distinct_on, &terms, &clauses));
        }
        let word = if distinct { "SELECT DISTINCT" } else { "SELECT" };
        Ok(assemble(word, items, &clauses.text(), &terms))
    }

    /// The innermost SELECT.
    pub(super) fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn item(&mut self, item: &SelectItem, items: &mut Vec<Item>) -> Result<()> {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = naming::output_name(expr);
                let term = self.expr(expr)?;
                items.push(Item::new(name, term));
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                if alias.quote_style == Some('\'') {
                    // `'a' 'b'` is no alias to PostgreSQL.
                    return Err(QueryError::Syntax(format!("a column can not be named by the text {alias}")));
                }
                let term = self.expr(expr)?;
                items.push(Item::new(scope::fold(alias), term));
            }
            SelectItem::Wildcard(options) => {
                refuse_wildcard_options(options)?;
                let columns = self.scope().visible.clone();
                if self.scope().relations.is_empty() {
                    return Err(QueryError::invalid("SELECT * with no tables specified is not valid"));
                }
                self.stars(columns, items);
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                refuse_wildcard_options(options)?;
                let parts = scope::fold_name(name)?;
                let alias = parts.last().cloned().unwrap_or_default();
                let found = self.scopes.iter().rev().find_map(|scope| scope.relation(&alias));
                let columns = found
                    .map(|relation| relation.columns.clone())
                    .ok_or_else(|| QueryError::invalid(format!("missing FROM-clause entry for table {alias:?}")))?;
                self.stars(columns, items);
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => {
                return Err(QueryError::unsupported("(expression).*"));
            }
            SelectItem::ExprWithAliases { .. } => {
                return Err(QueryError::unsupported("several names for one expression"));
            }
        }
        Ok(())
    }

    fn stars(&mut self, columns: Vec<Column>, items: &mut Vec<Item>) {
        for column in columns {
            self.use_column(&column);
            items.push(Item::new(column.name.clone(), star(&column)));
        }
    }

    fn group_keys(&mut self, select: &Select) -> Result<Vec<String>> {
        let GroupByExpr::Expressions(list, modifiers) = &select.group_by else {
            return Err(QueryError::unsupported("GROUP BY ALL"));
        };
        if !modifiers.is_empty() {
            return Err(QueryError::unsupported("GROUP BY with ROLLUP, CUBE or TOTALS"));
        }
        let mut keys: Vec<String> = Vec::new();
        for expr in list {
            let parts: &[Expr] = match expr {
                Expr::Tuple(parts) => parts,
                Expr::GroupingSets(_) => return Err(QueryError::unsupported("GROUPING SETS")),
                Expr::Cube(_) => return Err(QueryError::unsupported("CUBE")),
                Expr::Rollup(_) => return Err(QueryError::unsupported("ROLLUP")),
                other => std::slice::from_ref(other),
            };
            for part in parts {
                let part = self.grouped_expr(part, select)?;
                let key = self.expr(part)?.sql;
                if !order::is_taken_for_a_position(&key) && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// Resolves what GROUP BY names by position or by output name.
    fn grouped_expr<'e>(&mut self, expr: &'e Expr, select: &'e Select) -> Result<&'e Expr> {
        if let Some(number) = order::number(expr) {
            let at = order::ordinal(&number, select.projection.len())?;
            return match &select.projection[at] {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Ok(expr),
                _ => Err(QueryError::unsupported("GROUP BY the position of *")),
            };
        }
        match expr {
            Expr::Identifier(ident) => {
                let name = scope::fold(ident);
                // A column of a table goes before an output column of the same name, unlike in ORDER BY.
                if self.scope().visible(&name)?.is_some() {
                    return Ok(expr);
                }
                let named = select.projection.iter().find_map(|item| match item {
                    SelectItem::ExprWithAlias { expr, alias } if scope::fold(alias) == name => Some(expr),
                    _ => None,
                });
                Ok(named.unwrap_or(expr))
            }
            _ => Ok(expr),
        }
    }

    fn distinct_on(&mut self, list: &[Expr], items: &[Item]) -> Result<Vec<String>> {
        list.iter()
            .map(|expr| match output_at(expr, items)? {
                Some(at) => Ok(items[at].sql.clone()),
                None => Ok(self.expr(expr)?.sql),
            })
            .collect()
    }

    fn order_terms(&mut self, order: &[OrderByExpr], items: &[Item], distinct: bool) -> Result<Vec<OrderTerm>> {
        let mut terms = Vec::new();
        for item in order {
            let term = match output_at(&item.expr, items)? {
                Some(at) => OrderTerm::new(items[at].sql.clone(), items[at].output.nullable, item)?,
                None => {
                    let term = self.expr(&item.expr)?;
                    if distinct && !items.iter().any(|item| item.sql == term.sql) {
                        return Err(QueryError::invalid(
                            "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                        ));
                    }
                    OrderTerm::new(term.sql, term.nullable, item)?
                }
            };
            if !order::is_taken_for_a_position(&term.sql) {
                terms.push(term);
            }
        }
        Ok(terms)
    }

    fn windows(&mut self, definitions: &[NamedWindowDefinition]) -> Result<String> {
        let mut texts = Vec::new();
        for NamedWindowDefinition(name, definition) in definitions {
            let spec = match definition {
                NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec)?,
                NamedWindowExpr::NamedWindow(_) => {
                    return Err(QueryError::unsupported("a window that is another's name"));
                }
            };
            texts.push(format!("{} AS ({spec})", quoted(&scope::fold(name))));
        }
        Ok(if texts.is_empty() { String::new() } else { format!(" WINDOW {}", texts.join(", ")) })
    }

    /// Refuses columns that are neither grouped nor aggregated; SQLite would take them from any row.
    fn check_grouping(&mut self, grouped: bool) -> Result<()> {
        let last = self.scopes.len() - 1;
        let scope = &self.scopes[last];
        if !grouped && !scope.aggregated {
            return Ok(());
        }
        if !scope.row_makers.is_empty() {
            return Err(QueryError::unsupported("a function that makes rows beside GROUP BY or aggregates"));
        }
        let single = |sql: &str| scope.group_keys.iter().any(|key| key == sql) || scope.grouped_by_key_of(sql);
        match self.loose.iter().find(|loose| loose.scope == scope.id && !single(&loose.sql)) {
            Some(loose) => Err(QueryError::invalid(format!(
                "column {:?} must appear in the GROUP BY clause or be used in an aggregate function",
                loose.name
            ))),
            None => Ok(()),
        }
    }
}

/// Returns the column as `*` shows it: secrets as NULL.
fn star(column: &Column) -> Term {
    let sql = if column.secret.is_some() { "NULL".to_owned() } else { column.sql.clone() };
    Term { sql, ty: column.ty.clone(), nullable: column.nullable, literal: None }
}

/// Finds the output column that an ORDER BY or DISTINCT ON item names by position or by name.
fn output_at(expr: &Expr, items: &[Item]) -> Result<Option<usize>> {
    if let Some(number) = order::number(expr) {
        return order::ordinal(&number, items.len()).map(Some);
    }
    match expr {
        Expr::Identifier(ident) => {
            let name = scope::fold(ident);
            let mut found = items.iter().enumerate().filter(|(_, item)| item.output.name == name);
            let first = found.next();
            if let Some((_, item)) = first
                && found.any(|(_, other)| other.sql != item.sql)
            {
                return Err(QueryError::invalid(format!("ORDER BY {name:?} is ambiguous")));
            }
            Ok(first.map(|(at, _)| at))
        }
        _ => Ok(None),
    }
}

fn assemble(word: &str, items: Vec<Item>, clauses: &str, order: &[OrderTerm]) -> Emitted {
    let texts: Vec<String> = items.iter().map(|item| item.sql.clone()).collect();
    let columns = outputs(items);
    let list: Vec<String> =
        texts.iter().zip(&columns).map(|(sql, column)| format!("{sql} AS {}", quoted(&column.label))).collect();
    // An output column is ordered by its position, so that no name can be taken for another.
    let terms: Vec<OrderTerm> = order
        .iter()
        .map(|term| match texts.iter().position(|sql| *sql == term.sql) {
            Some(at) => term.of((at + 1).to_string()),
            None => term.clone(),
        })
        .collect();
    let order = if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", OrderTerm::list(&terms)) };
    let bare = order.is_empty();
    Emitted { sql: format!("{word} {}{clauses}{order}", list.join(", ")), columns, bare }
}

/// Writes DISTINCT ON: number the rows of each group in order, keep the first.
fn first_of_each(items: Vec<Item>, keys: &[String], order: &[OrderTerm], clauses: &Clauses) -> Emitted {
    let texts: Vec<String> = items.iter().map(|item| item.sql.clone()).collect();
    let columns = outputs(items);
    let mut inner: Vec<String> =
        texts.iter().zip(&columns).map(|(sql, column)| format!("{sql} AS {}", quoted(&column.label))).collect();
    for (index, term) in order.iter().enumerate() {
        inner.push(format!("{} AS \"#order{index}\"", term.sql));
    }
    let within = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", OrderTerm::list(order)) };
    inner.push(format!("row_number() OVER (PARTITION BY {}{within}) AS \"#row\"", keys.join(", ")));
    let outer: Vec<String> = columns.iter().map(|column| quoted(&column.label)).collect();
    let numbered: Vec<OrderTerm> =
        order.iter().enumerate().map(|(index, term)| term.of(format!("\"#order{index}\""))).collect();
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", OrderTerm::list(&numbered)) };
    let sql = format!(
        "SELECT {} FROM (SELECT {}{}) WHERE \"#row\" = 1{order}",
        outer.join(", "),
        inner.join(", "),
        clauses.text(),
    );
    Emitted { sql, columns, bare: order.is_empty() }
}

fn outputs(items: Vec<Item>) -> Vec<Output> {
    let mut columns: Vec<Output> = items
        .into_iter()
        .map(|item| match item.output {
            // A literal of no other type is text, as in PostgreSQL.
            output if output.ty == Type::Unknown && output.literal => Output { ty: Type::Text, ..output },
            output => output,
        })
        .collect();
    make_unique(&mut columns);
    columns
}

fn refuse_clauses(select: &Select) -> Result<()> {
    let refused = [
        (select.top.is_some(), "TOP"),
        (select.exclude.is_some(), "EXCLUDE"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!select.sort_by.is_empty(), "SORT BY"),
        (select.qualify.is_some(), "QUALIFY"),
        (select.value_table_mode.is_some(), "SELECT AS STRUCT"),
        (select.flavor != SelectFlavor::Standard, "FROM before SELECT"),
        (
            select.select_modifiers.as_ref().is_some_and(sqlparser::ast::SelectModifiers::is_any_set),
            "a SELECT modifier",
        ),
    ];
    if select.into.is_some() {
        return Err(QueryError::ReadOnly { statement: "SELECT INTO".to_owned(), position: None });
    }
    match refused.into_iter().find(|(present, _)| *present) {
        Some((_, name)) => Err(QueryError::unsupported(name)),
        None => Ok(()),
    }
}

fn refuse_wildcard_options(options: &WildcardAdditionalOptions) -> Result<()> {
    let WildcardAdditionalOptions { opt_ilike, opt_exclude, opt_except, opt_replace, opt_rename, opt_alias, .. } =
        options;
    if opt_ilike.is_some()
        || opt_exclude.is_some()
        || opt_except.is_some()
        || opt_replace.is_some()
        || opt_rename.is_some()
        || opt_alias.is_some()
    {
        return Err(QueryError::unsupported(format!("*{options}")));
    }
    Ok(())
}
