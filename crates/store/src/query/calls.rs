//! Function calls: what a call looks like, and which of the families below it belongs to.

use sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments,
    Query, TrimWhereField,
};

use super::aggregates::{is_aggregate, is_window_function};
use super::cast;
use super::error::{QueryError, Result};
use super::expr::{NOW, Term};
use super::fields::Field;
use super::scope::{self, Place, literal};
use super::translate::Translator;
use super::types::Type;

/// Names of UTC; there is no other time zone here.
const UTC: &[&str] = &["utc", "gmt", "z", "zulu", "uct", "etc/utc", "etc/gmt", "+00", "+00:00", "00:00"];

impl Translator<'_> {
    /// Translates a call.
    pub(super) fn call(&mut self, function: &Function) -> Result<Term> {
        let parts = scope::fold_name(&function.name)?;
        let name = match parts.as_slice() {
            [name] => name.clone(),
            [schema, name] if schema == "pg_catalog" => name.clone(),
            _ => return Err(QueryError::unsupported(format!("function {}", function.name))),
        };
        let span = function.name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span);
        self.named_call(&name, function).map_err(|error| error.located(span))
    }

    fn named_call(&mut self, name: &str, function: &Function) -> Result<Term> {
        if function.uses_odbc_syntax || !matches!(function.parameters, FunctionArguments::None) {
            return Err(QueryError::unsupported(format!("this form of {name}")));
        }
        if let ("array", FunctionArguments::Subquery(query)) = (name, &function.args) {
            return self.array_of_rows(query);
        }
        if is_aggregate(name) {
            return self.aggregate(name, function);
        }
        if is_window_function(name) {
            return self.window_function(name, function);
        }
        if function.over.is_some()
            || function.filter.is_some()
            || !function.within_group.is_empty()
            || function.null_treatment.is_some()
        {
            return Err(QueryError::invalid(format!("{name} is neither an aggregate nor a window function")));
        }
        let list: &[FunctionArg] = match &function.args {
            FunctionArguments::None => &[],
            FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
                &list.args
            }
            FunctionArguments::List(_) | FunctionArguments::Subquery(_) => {
                return Err(QueryError::unsupported(format!("this form of {name}")));
            }
        };
        if name == "make_interval" {
            return self.make_interval(list);
        }
        if let ("to_json" | "to_jsonb" | "row_to_json", [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))]) =
            (name, list)
            && let Some(row) = self.whole_row(expr)?
        {
            return Ok(row);
        }
        let place = self.scope().place;
        let arguments = self.plain_arguments(name, list)?;
        if place == Place::Projection
            && let Some(term) = self.row_maker(name, &arguments)?
        {
            return Ok(term);
        }
        let types: Vec<String> = arguments.iter().map(|term| term.ty.name()).collect();
        let known = match self.scalar(name, arguments)? {
            Ok(term) => Some(term),
            Err(arguments) => match self.time_call(name, arguments)? {
                Ok(term) => Some(term),
                Err(arguments) => self.json_call(name, arguments)?,
            },
        };
        known.ok_or_else(|| QueryError::unsupported(format!("function {name}({})", types.join(", "))))
    }

    /// Translates `ARRAY(SELECT …)`.
    fn array_of_rows(&mut self, query: &Query) -> Result<Term> {
        let emitted = self.query(query)?;
        let [column] = emitted.columns.as_slice() else {
            return Err(QueryError::invalid("subquery must return only one column"));
        };
        let value = Term::new(scope::quoted(&column.label), column.ty.clone());
        let sql = format!("ifnull((SELECT pg_agg_array({}) FROM ({})), '[]')", cast::element(&value)?, emitted.sql);
        Ok(Term { nullable: false, ..Term::new(sql, Type::Array(Box::new(column.ty.clone()))) })
    }

    /// Translates arguments that have no names and no clauses.
    pub(super) fn plain_arguments(&mut self, name: &str, list: &[FunctionArg]) -> Result<Vec<Term>> {
        list.iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
                FunctionArg::Unnamed(_) => Err(QueryError::unsupported(format!("* in {name}"))),
                FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                    Err(QueryError::unsupported(format!("named arguments in {name}")))
                }
            })
            .collect()
    }

    /// Translates the name of a table, where a row is asked for, as a JSON object; `None` if it is something else.
    pub(super) fn whole_row(&mut self, expr: &Expr) -> Result<Option<Term>> {
        let Expr::Identifier(ident) = expr else { return Ok(None) };
        let name = scope::fold(ident);
        if self.scope().visible(&name)?.is_some() {
            return Ok(None);
        }
        let Some(relation) = self.scope().relation(&name).filter(|relation| !relation.scalar).cloned() else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for column in relation.columns {
            self.use_column(&column);
            let value = match column.secret {
                Some(_) => "'null'".to_owned(),
                None => cast::to_json(&Term::new(column.sql, column.ty))?,
            };
            parts.push(format!("{}, {value}", literal(&column.name)));
        }
        Ok(Some(Term::new(format!("pg_json_object({})", parts.join(", ")), Type::Json)))
    }

    fn make_interval(&mut self, list: &[FunctionArg]) -> Result<Term> {
        const FIELDS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
        let mut values: Vec<String> = vec!["0".to_owned(); FIELDS.len()];
        for (index, argument) in list.iter().enumerate() {
            let (at, value) = match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (Some(index), expr),
                FunctionArg::Named {
                    name,
                    arg: FunctionArgExpr::Expr(expr),
                    operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
                } => (FIELDS.iter().position(|field| *field == scope::fold(name)), expr),
                FunctionArg::ExprNamed {
                    name: Expr::Identifier(name),
                    arg: FunctionArgExpr::Expr(expr),
                    operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
                } => (FIELDS.iter().position(|field| *field == scope::fold(name)), expr),
                _ => return Err(QueryError::unsupported("this argument of make_interval")),
            };
            let slot = at
                .and_then(|at| values.get_mut(at))
                .ok_or_else(|| QueryError::invalid(format!("make_interval takes {}", FIELDS.join(", "))))?;
            let term = self.expr(value)?;
            *slot = cast::coerce(term, &Type::Float, "make_interval")?.sql;
        }
        Ok(Term::new(format!("pg_interval_make({})", values.join(", ")), Type::Interval))
    }

    /// Translates the calls that SQL gives a syntax of their own.
    pub(super) fn special_call(&mut self, expr: &Expr) -> Result<Term> {
        match expr {
            Expr::Extract { field, expr, .. } => {
                let term = self.expr(expr)?;
                self.extract(&field_name(field), term, Type::Numeric)
            }
            Expr::Position { expr, r#in } => {
                let (part, whole) = (self.expr(expr)?, self.expr(r#in)?);
                let (part, whole) = (cast::textual(part, "position")?, cast::textual(whole, "position")?);
                Ok(Term::new(format!("instr({}, {})", whole.sql, part.sql), Type::Int))
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut terms = vec![self.expr(expr)?];
                match substring_from {
                    Some(from) => terms.push(self.expr(from)?),
                    None => terms.push(Term::new("1", Type::Int)),
                }
                if let Some(length) = substring_for {
                    terms.push(self.expr(length)?);
                }
                self.substring(terms)
            }
            Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                    Some(TrimWhereField::Both) | None => "trim",
                };
                let subject = self.expr(expr)?;
                let subject = cast::textual(subject, name)?;
                let letters = match (trim_what, trim_characters.as_deref()) {
                    (Some(what), None) => Some(self.expr(what)?),
                    (None, Some([letters])) => Some(self.expr(letters)?),
                    (None, None) => None,
                    _ => return Err(QueryError::unsupported("this form of TRIM")),
                };
                let letters = letters.map(|letters| cast::textual(letters, name)).transpose()?;
                let letters = letters.map_or_else(String::new, |letters| format!(", {}", letters.sql));
                Ok(Term {
                    nullable: subject.nullable,
                    ..Term::new(format!("{name}({}{letters})", subject.sql), Type::Text)
                })
            }
            Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                let term = self.expr(expr)?;
                self.whole_number("pg_ceil", term)
            }
            Expr::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                let term = self.expr(expr)?;
                self.whole_number("pg_floor", term)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let term = self.expr(timestamp)?;
                let zone = self.expr(time_zone)?;
                self.at_zone(term, &zone)
            }
            other => Err(QueryError::unsupported(format!("expression {other}"))),
        }
    }

    pub(super) fn whole_number(&mut self, name: &str, term: Term) -> Result<Term> {
        let term = if term.ty.is_number() { term } else { cast::coerce(term, &Type::Float, name)? };
        Ok(Term { sql: format!("{name}({})", term.sql), ..term })
    }

    pub(super) fn substring(&mut self, terms: Vec<Term>) -> Result<Term> {
        let mut terms = terms.into_iter();
        let (Some(subject), Some(start)) = (terms.next(), terms.next()) else {
            return Err(QueryError::invalid("substring takes a text and a position"));
        };
        let subject = cast::textual(subject, "substring")?;
        let length = terms.next();
        if matches!(start.ty, Type::Text | Type::Unknown) {
            if length.is_some() {
                return Err(QueryError::unsupported("substring with an SQL pattern and escape"));
            }
            return Ok(Term::new(format!("pg_regex_substr({}, {})", subject.sql, start.sql), Type::Text));
        }
        let start = cast::coerce(start, &Type::Int, "substring")?;
        let length = length.map(|length| cast::coerce(length, &Type::Int, "substring")).transpose()?;
        let length = length.map_or_else(String::new, |length| format!(", {}", length.sql));
        Ok(Term::new(format!("pg_substr({}, {}{length})", subject.sql, start.sql), Type::Text))
    }

    pub(super) fn extract(&mut self, field: &str, term: Term, ty: Type) -> Result<Term> {
        if Field::parse(field).is_none() {
            return Err(QueryError::invalid(format!("unit {field:?} not recognized for EXTRACT")));
        }
        let field = literal(&field.to_ascii_lowercase());
        let nullable = term.nullable;
        let sql = match &term.ty {
            Type::Interval => format!("pg_interval_extract({field}, {})", term.sql),
            _ => format!("pg_ts_extract({field}, {})", self.moment(term, "EXTRACT")?.sql),
        };
        Ok(Term { nullable, ..Term::new(sql, ty) })
    }

    /// Asks for a timestamp; a date counts as its midnight.
    pub(super) fn moment(&mut self, term: Term, what: &str) -> Result<Term> {
        match term.ty {
            Type::Timestamp { .. } => Ok(term),
            Type::Date | Type::Unknown => cast::coerce(term, &Type::Timestamp { zoned: false }, what),
            other => Err(QueryError::invalid(format!("{what} takes a timestamp, not {}: add a cast", other.name()))),
        }
    }

    /// Converts between `timestamp` and `timestamptz`, which in UTC changes the type alone.
    pub(super) fn at_zone(&mut self, term: Term, zone: &Term) -> Result<Term> {
        self.only_utc(zone)?;
        let zoned = matches!(term.ty, Type::Timestamp { zoned: true } | Type::Unknown);
        let term = self.moment(term, "AT TIME ZONE")?;
        Ok(Term { ty: Type::Timestamp { zoned: !zoned }, ..term })
    }

    pub(super) fn only_utc(&mut self, zone: &Term) -> Result<()> {
        match &zone.literal {
            Some(name) if UTC.contains(&name.to_ascii_lowercase().as_str()) => Ok(()),
            Some(name) => Err(QueryError::unsupported(format!("time zone {name:?}")).hint("times are in UTC")),
            None => Err(QueryError::unsupported("a time zone that is not a literal").hint("times are in UTC")),
        }
    }

    /// Returns midnight of the day of the query.
    pub(super) fn midnight() -> Term {
        let sql = format!("(substr({NOW}, 1, 10) || 'T00:00:00.000Z')");
        Term { nullable: false, ..Term::new(sql, Type::Timestamp { zoned: true }) }
    }
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().trim_matches(['\'', '"']).to_owned()
}
