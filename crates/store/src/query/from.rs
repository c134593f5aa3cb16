//! FROM: tables, WITH queries, subqueries, joins.

use sqlparser::ast::{Ident, Join, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableWithJoins};

use super::error::{QueryError, Result};
use super::schema::{QUERYABLE, SCHEMA};
use super::scope::{self, Column, Relation, Scope, quoted};
use super::select::Output;
use super::translate::Translator;
use super::types::Type;

/// Which rows of its sides a join keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

impl Translator<'_> {
    /// Translates a FROM clause, its keyword included; empty for none.
    pub(super) fn from(&mut self, list: &[TableWithJoins]) -> Result<(String, Scope)> {
        let mut scope = Scope::default();
        let mut texts = Vec::new();
        for (index, item) in list.iter().enumerate() {
            // SQLite lets a comma bind like a join, which only these two joins can tell.
            let outer = |join: &Join| {
                matches!(
                    join.join_operator,
                    JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
                )
            };
            if index > 0 && item.joins.iter().any(outer) {
                return Err(QueryError::unsupported("RIGHT or FULL JOIN after a comma in FROM"));
            }
            texts.push(self.joined(item, &mut scope)?);
        }
        let text = if texts.is_empty() { String::new() } else { format!(" FROM {}", texts.join(", ")) };
        Ok((text, scope))
    }

    fn joined(&mut self, item: &TableWithJoins, scope: &mut Scope) -> Result<String> {
        let mut text = self.factor(&item.relation, scope)?;
        for join in &item.joins {
            text.push_str(&self.join(join, scope)?);
        }
        Ok(text)
    }

    /// Translates a table factor and adds what it brings to the scope.
    fn factor(&mut self, factor: &TableFactor, scope: &mut Scope) -> Result<String> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if sample.is_some() {
                    return Err(QueryError::unsupported("TABLESAMPLE"));
                }
                if !with_hints.is_empty()
                    || version.is_some()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || !index_hints.is_empty()
                {
                    return Err(QueryError::unsupported(format!("this form of the table {name}")));
                }
                let names = scope::fold_name(name)?;
                match args {
                    Some(args) => {
                        let name = names.last().cloned().unwrap_or_default();
                        self.row_function(&name, &args.args, *with_ordinality, alias.as_ref(), scope)
                    }
                    None => self
                        .table(&names, alias.as_ref(), scope)
                        .map_err(|error| error.located(first_ident(name).map(|ident| ident.span))),
                }
            }
            TableFactor::Derived { lateral, subquery, alias, sample } => {
                if *lateral {
                    return Err(QueryError::unsupported("LATERAL subquery"));
                }
                if sample.is_some() {
                    return Err(QueryError::unsupported("TABLESAMPLE"));
                }
                let emitted = self.query(subquery)?;
                let name = match alias {
                    Some(alias) => scope::fold(&alias.name),
                    None => format!("#subquery{}", self.next_id()),
                };
                let columns = columns_of(&name, &emitted.columns);
                self.add(
                    scope,
                    Relation { alias: name.clone(), table: None, columns, key: Vec::new(), scalar: false },
                    alias.as_ref(),
                )?;
                Ok(format!("({}) AS {}", emitted.sql, quoted(&name)))
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                let names = scope::fold_name(name)?;
                let name = names.last().cloned().unwrap_or_default();
                self.row_function(&name, args, *with_ordinality, alias.as_ref(), scope)
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality,
            } => match array_exprs.as_slice() {
                [array] => self.unnest(array, *with_ordinality, alias.as_ref(), scope),
                _ => Err(QueryError::unsupported("unnest of several arrays")),
            },
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let inner = self.deeper(|translator| translator.joined(table_with_joins, scope))?;
                Ok(format!("({inner})"))
            }
            TableFactor::NestedJoin { alias: Some(_), .. } => Err(QueryError::unsupported("an alias for a join")),
            other => {
                let text = other.to_string();
                Err(QueryError::unsupported(text.split(['(', ' ']).next().unwrap_or("this FROM item").to_owned()))
            }
        }
    }

    /// Translates a table or WITH query by its name.
    pub(super) fn table(&mut self, names: &[String], alias: Option<&TableAlias>, scope: &mut Scope) -> Result<String> {
        let name = names.last().cloned().unwrap_or_default();
        let shown = alias.map_or_else(|| name.clone(), |alias| scope::fold(&alias.name));
        if names.len() == 1
            && let Some(cte) = self.ctes.iter().rev().find(|cte| cte.name == name)
        {
            let columns = columns_of(&shown, &cte.columns);
            let relation = Relation { alias: shown.clone(), table: None, columns, key: Vec::new(), scalar: false };
            self.add(scope, relation, alias)?;
            return Ok(format!("{} AS {}", quoted(&name), quoted(&shown)));
        }
        let ours = match names {
            [_] => true,
            [schema, _] => schema == SCHEMA,
            _ => false,
        };
        let table = if ours { self.schema.table(&name) } else { None };
        let table = table.ok_or_else(|| {
            let known = QUERYABLE.join(", ");
            QueryError::invalid(format!("relation {:?} does not exist; the tables are {known}", names.join(".")))
        })?;
        let columns = table.columns.iter().map(|column| Column {
            name: column.name.clone(),
            sql: format!("{}.{}", quoted(&shown), quoted(&column.name)),
            ty: column.ty.clone(),
            nullable: column.nullable,
            secret: column.encrypted.then(|| format!("{name}.{}", column.name)),
        });
        let relation = Relation {
            alias: shown.clone(),
            table: alias.is_none().then(|| name.clone()),
            columns: columns.collect(),
            key: table.columns.iter().filter(|column| column.in_key).map(|column| column.name.clone()).collect(),
            scalar: false,
        };
        self.add(scope, relation, alias)?;
        Ok(format!("{}.{} AS {}", quoted(SCHEMA), quoted(&name), quoted(&shown)))
    }

    /// Adds a relation to the scope under the names of its alias.
    pub(super) fn add(&mut self, scope: &mut Scope, mut relation: Relation, alias: Option<&TableAlias>) -> Result<()> {
        if let Some(alias) = alias {
            if alias.columns.len() > relation.columns.len() {
                return Err(QueryError::invalid(format!(
                    "table {:?} has {} columns available but {} columns specified",
                    relation.alias,
                    relation.columns.len(),
                    alias.columns.len()
                )));
            }
            for (column, name) in relation.columns.iter_mut().zip(&alias.columns) {
                if name.data_type.is_some() {
                    return Err(QueryError::unsupported("column types in an alias"));
                }
                let folded = scope::fold(&name.name);
                for key in &mut relation.key {
                    if *key == column.name {
                        key.clone_from(&folded);
                    }
                }
                column.name = folded;
            }
        }
        scope.add(relation)
    }

    fn join(&mut self, join: &Join, scope: &mut Scope) -> Result<String> {
        let (kind, constraint) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (Kind::Inner, constraint),
            JoinOperator::CrossJoin(constraint) => (Kind::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Kind::Left, constraint),
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Kind::Right, constraint),
            JoinOperator::FullOuter(constraint) => (Kind::Full, constraint),
            _ => return Err(QueryError::unsupported(format!("join {join}").chars().take(40).collect::<String>())),
        };
        let mut right = Scope::default();
        // A function may use the tables before it, so they stay in sight while it is translated; a subquery may not.
        let sees_left = matches!(
            join.relation,
            TableFactor::Function { .. } | TableFactor::UNNEST { .. } | TableFactor::Table { args: Some(_), .. }
        );
        let text = if sees_left {
            self.within(scope, |translator| translator.factor(&join.relation, &mut right))?
        } else {
            self.factor(&join.relation, &mut right)?
        };
        if matches!(kind, Kind::Right | Kind::Full) {
            scope.make_nullable();
        }
        if matches!(kind, Kind::Left | Kind::Full) {
            right.make_nullable();
        }
        let names: Vec<String> = match constraint {
            JoinConstraint::None | JoinConstraint::On(_) => Vec::new(),
            JoinConstraint::Using(columns) => {
                columns.iter().map(|name| scope::fold_name(name).map(|parts| parts.concat())).collect::<Result<_>>()?
            }
            JoinConstraint::Natural => {
                let shared = |column: &&Column| right.visible.iter().any(|other| other.name == column.name);
                scope.visible.iter().filter(shared).map(|column| column.name.clone()).collect()
            }
        };
        let merged = self.merge(kind, &names, scope, &right)?;
        scope.absorb(right)?;
        let mut on = merged.conditions;
        if !merged.columns.is_empty() {
            scope.visible.retain(|column| !names.contains(&column.name));
            scope.visible.splice(0..0, merged.columns);
        }
        if let JoinConstraint::On(condition) = constraint {
            on.push(self.within(scope, |translator| translator.condition(condition, "JOIN/ON"))?);
        }
        // Not CROSS JOIN: to SQLite that word also forbids it to choose which table to read first.
        let word = match kind {
            Kind::Inner => "JOIN",
            Kind::Left => "LEFT JOIN",
            Kind::Right => "RIGHT JOIN",
            Kind::Full => "FULL JOIN",
        };
        let on = if on.is_empty() { String::new() } else { format!(" ON {}", on.join(" AND ")) };
        Ok(format!(" {word} {text}{on}"))
    }

    /// Does work that sees the columns of an unfinished FROM clause.
    pub(super) fn within<T>(&mut self, scope: &mut Scope, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.scopes.push(std::mem::take(scope));
        let result = work(self);
        *scope = self.scopes.pop().unwrap_or_default();
        result
    }

    /// Finds the columns that USING and NATURAL show once, and the conditions that they stand for.
    fn merge(&mut self, kind: Kind, names: &[String], left: &Scope, right: &Scope) -> Result<Merged> {
        let mut merged = Merged::default();
        for name in names {
            let missing = |side: &str| {
                QueryError::invalid(format!("column {name:?} specified in USING clause does not exist in {side} table"))
            };
            let a = left.visible(name)?.ok_or_else(|| missing("left"))?;
            let b = right.visible(name)?.ok_or_else(|| missing("right"))?;
            if a.secret.is_some() || b.secret.is_some() {
                return Err(QueryError::invalid(format!("column {name:?} is encrypted and can not be read")));
            }
            let comparable = a.ty == b.ty || (a.ty.is_number() && b.ty.is_number());
            if !comparable {
                return Err(QueryError::invalid(format!("column {name:?} can not be joined: its types differ")));
            }
            merged.conditions.push(format!("({} = {})", a.sql, b.sql));
            merged.columns.push(match kind {
                Kind::Inner | Kind::Left => a.clone(),
                Kind::Right => b.clone(),
                Kind::Full => Column { sql: format!("coalesce({}, {})", a.sql, b.sql), ..a.clone() },
            });
        }
        Ok(merged)
    }
}

#[derive(Debug, Default)]
struct Merged {
    columns: Vec<Column>,
    conditions: Vec<String>,
}

fn first_ident(name: &sqlparser::ast::ObjectName) -> Option<&Ident> {
    name.0.first().and_then(|part| part.as_ident())
}

/// Returns the columns of a query as those of a relation.
fn columns_of(alias: &str, outputs: &[Output]) -> Vec<Column> {
    let column = |output: &Output| Column {
        name: output.name.clone(),
        sql: format!("{}.{}", quoted(alias), quoted(&output.label)),
        ty: if output.ty == Type::Unknown { Type::Text } else { output.ty.clone() },
        nullable: output.nullable,
        secret: None,
    };
    outputs.iter().map(column).collect()
}
