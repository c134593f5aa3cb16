//! Functions that make rows, in FROM and in the select list. All of them become `json_each` of an array.

use sqlparser::ast::{Expr, FunctionArg, TableAlias};

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::scope::{self, Column, Relation, Scope, quoted};
use super::translate::Translator;
use super::types::Type;

/// A function that makes rows, translated.
struct Rows {
    /// What `json_each` takes.
    source: String,
    /// Name, expression over the alias's `key`, `type` and `value`, and type of each column.
    columns: Vec<(&'static str, Shape, Type)>,
    /// Whether the rows are counted, so that WITH ORDINALITY can be.
    counted: bool,
}

/// How a column is read from a row of `json_each`.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Key,
    Value,
    Document,
    Text,
}

impl Shape {
    fn sql(self, alias: &str) -> String {
        let alias = quoted(alias);
        match self {
            Shape::Key => format!("{alias}.\"key\""),
            Shape::Value => format!("{alias}.\"value\""),
            Shape::Document => format!("pg_each_json({alias}.\"type\", {alias}.\"value\")"),
            Shape::Text => format!("pg_each_text({alias}.\"type\", {alias}.\"value\")"),
        }
    }
}

impl Translator<'_> {
    /// Translates a function in FROM.
    pub(super) fn row_function(
        &mut self,
        name: &str,
        arguments: &[FunctionArg],
        ordinality: bool,
        alias: Option<&TableAlias>,
        scope: &mut Scope,
    ) -> Result<String> {
        let rows = self.within(scope, |translator| {
            let arguments = translator.plain_arguments(name, arguments)?;
            translator.rows(name, arguments)
        })?;
        let rows = rows.ok_or_else(|| QueryError::unsupported(format!("function {name} in FROM")))?;
        self.relation_of(name, &rows, ordinality, alias, scope)
    }

    /// Translates `unnest` in FROM, which the parser keeps apart.
    pub(super) fn unnest(
        &mut self,
        array: &Expr,
        ordinality: bool,
        alias: Option<&TableAlias>,
        scope: &mut Scope,
    ) -> Result<String> {
        let term = self.within(scope, |translator| translator.expr(array))?;
        let rows = unnested(&term)?;
        self.relation_of("unnest", &rows, ordinality, alias, scope)
    }

    /// Translates a function of the select list that makes rows; `None` if it is no such function.
    pub(super) fn row_maker(&mut self, name: &str, arguments: &[Term]) -> Result<Option<Term>> {
        let Some(rows) = self.rows(name, arguments.to_vec())? else { return Ok(None) };
        let [(_, shape, ty)] = rows.columns.as_slice() else {
            return Err(QueryError::unsupported(format!("{name} in the select list")).hint("put it in FROM"));
        };
        if !self.scope().row_makers.is_empty() {
            // PostgreSQL would walk them side by side, a join multiplies them.
            return Err(
                QueryError::unsupported("a second function that makes rows in the select list").hint("put it in FROM")
            );
        }
        let alias = format!("#rows{}", self.next_id());
        let term = Term::new(shape.sql(&alias), ty.clone());
        self.scope().row_makers.push(format!("json_each({}) AS {}", rows.source, quoted(&alias)));
        Ok(Some(term))
    }

    fn relation_of(
        &mut self,
        name: &str,
        rows: &Rows,
        ordinality: bool,
        alias: Option<&TableAlias>,
        scope: &mut Scope,
    ) -> Result<String> {
        let shown = alias.map_or_else(|| name.to_owned(), |alias| scope::fold(&alias.name));
        let scalar = rows.columns.len() == 1;
        let mut columns: Vec<Column> = rows
            .columns
            .iter()
            .map(|(column, shape, ty)| Column {
                // A column without a name of its own is called like the alias.
                name: if column.is_empty() { shown.clone() } else { (*column).to_owned() },
                sql: shape.sql(&shown),
                ty: ty.clone(),
                nullable: true,
                secret: None,
            })
            .collect();
        if ordinality {
            if !rows.counted {
                return Err(QueryError::unsupported(format!("{name} WITH ORDINALITY")));
            }
            columns.push(Column {
                name: "ordinality".to_owned(),
                sql: format!("({} + 1)", Shape::Key.sql(&shown)),
                ty: Type::Int,
                nullable: true,
                secret: None,
            });
        }
        let relation =
            Relation { alias: shown.clone(), table: None, columns, key: Vec::new(), scalar: scalar && !ordinality };
        self.add(scope, relation, alias)?;
        Ok(format!("json_each({}) AS {}", rows.source, quoted(&shown)))
    }

    fn rows(&mut self, name: &str, mut arguments: Vec<Term>) -> Result<Option<Rows>> {
        let only = |count: usize, given: usize| {
            if count == given { Ok(()) } else { Err(QueryError::invalid(format!("{name} takes {count} arguments"))) }
        };
        let (check, columns): (&str, Vec<(&'static str, Shape, Type)>) = match name {
            "unnest" => {
                only(1, arguments.len())?;
                return unnested(&arguments[0]).map(Some);
            }
            "generate_series" => return self.series(arguments).map(Some),
            "string_to_table" => {
                only(2, arguments.len())?;
                let (given, separator) = (arguments.swap_remove(0), arguments.swap_remove(0));
                let (given, separator) =
                    (cast::coerce(given, &Type::Text, name)?, cast::coerce(separator, &Type::Text, name)?);
                let source = format!("pg_array_split({}, {})", given.sql, separator.sql);
                return Ok(Some(Rows { source, columns: vec![("", Shape::Value, Type::Text)], counted: true }));
            }
            "jsonb_array_elements" | "json_array_elements" => {
                ("pg_json_array_only", vec![("value", Shape::Document, Type::Json)])
            }
            "jsonb_array_elements_text" | "json_array_elements_text" => {
                ("pg_json_array_only", vec![("value", Shape::Text, Type::Text)])
            }
            "jsonb_object_keys" | "json_object_keys" => ("pg_json_object_only", vec![("", Shape::Key, Type::Text)]),
            "jsonb_each" | "json_each" => {
                ("pg_json_object_only", vec![("key", Shape::Key, Type::Text), ("value", Shape::Document, Type::Json)])
            }
            "jsonb_each_text" | "json_each_text" => {
                ("pg_json_object_only", vec![("key", Shape::Key, Type::Text), ("value", Shape::Text, Type::Text)])
            }
            _ => return Ok(None),
        };
        only(1, arguments.len())?;
        let document = cast::coerce(arguments.swap_remove(0), &Type::Json, name)?;
        let counted = check == "pg_json_array_only";
        Ok(Some(Rows { source: format!("{check}({})", document.sql), columns, counted }))
    }

    fn series(&mut self, arguments: Vec<Term>) -> Result<Rows> {
        let wrong =
            || QueryError::invalid("generate_series takes two integers and a step, or two timestamps and an interval");
        let mut arguments = arguments.into_iter();
        let (first, last, step) =
            (arguments.next().ok_or_else(wrong)?, arguments.next().ok_or_else(wrong)?, arguments.next());
        if arguments.next().is_some() {
            return Err(wrong());
        }
        let moment = [&first, &last].into_iter().find(|term| term.ty.is_moment());
        if let Some(ty) = moment.map(|term| term.ty.clone()) {
            let ty = if ty == Type::Date { Type::Timestamp { zoned: true } } else { ty };
            let (first, last) =
                (cast::coerce(first, &ty, "generate_series")?, cast::coerce(last, &ty, "generate_series")?);
            let step = cast::coerce(step.ok_or_else(wrong)?, &Type::Interval, "generate_series")?;
            let source = format!("pg_ts_series({}, {}, {})", first.sql, last.sql, step.sql);
            return Ok(Rows { source, columns: vec![("", Shape::Value, ty)], counted: true });
        }
        let step = step.unwrap_or_else(|| Term::new("1".to_owned(), Type::Int));
        let mut texts = Vec::new();
        for term in [first, last, step] {
            texts.push(cast::coerce(term, &Type::Int, "generate_series")?.sql);
        }
        Ok(Rows {
            source: format!("pg_series({})", texts.join(", ")),
            columns: vec![("", Shape::Value, Type::Int)],
            counted: true,
        })
    }
}

fn unnested(term: &Term) -> Result<Rows> {
    match &term.ty {
        Type::Array(element) => {
            let shape = if **element == Type::Json { Shape::Document } else { Shape::Value };
            let element = if **element == Type::Unknown { Type::Text } else { (**element).clone() };
            Ok(Rows { source: term.sql.clone(), columns: vec![("", shape, element)], counted: true })
        }
        other => Err(QueryError::invalid(format!("unnest takes an array, not {}", other.name()))),
    }
}
