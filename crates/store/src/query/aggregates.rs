//! Aggregates and window functions.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    NullTreatment, OrderByExpr, OrderBySort, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::operators::tuple;
use super::order::OrderTerm;
use super::scope::{self, Place, quoted};
use super::translate::Translator;
use super::types::Type;

const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "string_agg",
    "array_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "variance",
    "var_samp",
    "var_pop",
    "percentile_cont",
    "percentile_disc",
    "mode",
];

/// Functions that only make sense with OVER: name, fewest and most arguments.
const WINDOW_FUNCTIONS: &[(&str, usize, usize)] = &[
    ("row_number", 0, 0),
    ("rank", 0, 0),
    ("dense_rank", 0, 0),
    ("percent_rank", 0, 0),
    ("cume_dist", 0, 0),
    ("ntile", 1, 1),
    ("lag", 1, 3),
    ("lead", 1, 3),
    ("first_value", 1, 1),
    ("last_value", 1, 1),
    ("nth_value", 2, 2),
];

/// Tells whether a name is an aggregate's.
pub(super) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

/// Tells whether a name is a window function's.
pub(super) fn is_window_function(name: &str) -> bool {
    WINDOW_FUNCTIONS.iter().any(|(other, ..)| *other == name)
}

/// What a call has between its parentheses.
#[derive(Debug)]
struct Call<'f> {
    name: &'f str,
    arguments: &'f [FunctionArg],
    distinct: bool,
    order: &'f [OrderByExpr],
    within: &'f [OrderByExpr],
    filter: Option<&'f Expr>,
    windowed: bool,
}

/// An aggregate's SQLite call, before FILTER and OVER.
#[derive(Debug)]
struct Aggregate {
    function: String,
    arguments: Vec<String>,
    ty: Type,
    nullable: bool,
    /// The order of the values, taken where none is written.
    own_order: Option<String>,
    /// Text to put around the call: before and after.
    around: (&'static str, String),
    /// A condition that rows must meet besides FILTER.
    condition: Option<String>,
    distinct: bool,
}

impl Aggregate {
    fn new(function: &str, arguments: Vec<String>, ty: Type) -> Self {
        Aggregate {
            function: function.to_owned(),
            arguments,
            ty,
            nullable: true,
            own_order: None,
            around: ("", String::new()),
            condition: None,
            distinct: false,
        }
    }
}

impl Translator<'_> {
    /// Translates an aggregate, with or without OVER.
    pub(super) fn aggregate(&mut self, name: &str, function: &Function) -> Result<Term> {
        let FunctionArguments::List(list) = &function.args else {
            return Err(QueryError::invalid(format!("{name} needs its arguments")));
        };
        let mut order: &[OrderByExpr] = &[];
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(terms) => order = terms,
                other => return Err(QueryError::unsupported(format!("{other} in {name}"))),
            }
        }
        let call = Call {
            name,
            arguments: &list.args,
            distinct: list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
            order,
            within: &function.within_group,
            filter: function.filter.as_deref(),
            windowed: function.over.is_some(),
        };
        let place = self.scope().place;
        if place == Place::Rows {
            return Err(QueryError::invalid(format!("aggregate function {name} is not allowed here")));
        }
        let (before, id) = (self.loose.len(), self.scope().id);
        if !call.windowed {
            self.scope().aggregated = true;
            // Aggregates do not stand in aggregates; over a window they may.
            self.scope().place = Place::Rows;
        }
        let result = self.aggregate_call(&call);
        self.scope().place = place;
        if !call.windowed {
            let mut index = 0;
            self.loose.retain(|loose| {
                index += 1;
                index <= before || loose.scope != id
            });
        }
        let mut term = result?;
        if let Some(over) = &function.over {
            if term.sql.contains("pg_agg_") || !order.is_empty() || call.distinct {
                return Err(QueryError::unsupported(format!("{name} with OVER in this form")));
            }
            let over = self.over(over)?;
            term.sql = format!("({}{over})", term.sql);
            term.nullable = true;
        }
        Ok(term)
    }

    fn aggregate_call(&mut self, call: &Call<'_>) -> Result<Term> {
        let aggregate = self.aggregate_parts(call)?;
        let mut order = Vec::new();
        for item in call.order {
            let term = self.expr(&item.expr)?;
            order.push(OrderTerm::new(term.sql, term.nullable, item)?);
        }
        let order = match (order.is_empty(), aggregate.own_order) {
            (false, _) => format!(" ORDER BY {}", OrderTerm::list(&order)),
            (true, Some(own)) => format!(" ORDER BY {own}"),
            (true, None) => String::new(),
        };
        let mut conditions: Vec<String> = aggregate.condition.into_iter().collect();
        if let Some(filter) = call.filter {
            conditions.push(self.condition(filter, "FILTER")?);
        }
        let filter =
            if conditions.is_empty() { String::new() } else { format!(" FILTER (WHERE {})", conditions.join(" AND ")) };
        let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
        let arguments = aggregate.arguments.join(", ");
        let (before, after) = aggregate.around;
        let sql = format!("{before}{}({distinct}{arguments}{order}){filter}{after}", aggregate.function);
        Ok(Term { nullable: aggregate.nullable, ..Term::new(sql, aggregate.ty) })
    }

    fn aggregate_parts(&mut self, call: &Call<'_>) -> Result<Aggregate> {
        let name = call.name;
        if name == "count" {
            return self.count_parts(call);
        }
        if matches!(name, "percentile_cont" | "percentile_disc" | "mode") {
            return self.ordered_set(call);
        }
        let mut terms = Vec::new();
        for argument in call.arguments {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else {
                return Err(QueryError::unsupported(format!("this argument of {name}")));
            };
            terms.push(match self.whole_row(expr)? {
                Some(row) => row,
                None => self.expr(expr)?,
            });
        }
        let wrong = || QueryError::invalid(format!("function {name} does not take these arguments"));
        let mut terms = terms.into_iter();
        let first = terms.next().ok_or_else(wrong)?;
        let second = terms.next();
        let two = matches!(name, "string_agg" | "json_object_agg" | "jsonb_object_agg");
        if terms.next().is_some() || second.is_some() != two {
            return Err(wrong());
        }
        let mut aggregate = match name {
            "sum" | "avg" if first.ty == Type::Interval => {
                Aggregate::new(&format!("pg_agg_interval_{name}"), vec![first.sql], Type::Interval)
            }
            "sum" if first.ty.is_number() => Aggregate::new("sum", vec![first.sql], first.ty),
            "avg" if first.ty.is_number() => {
                let ty = if first.ty == Type::Float { Type::Float } else { Type::Numeric };
                Aggregate::new("avg", vec![first.sql], ty)
            }
            "min" | "max" if !matches!(first.ty, Type::Bool | Type::Json | Type::Bytes) => {
                let ty = if first.ty == Type::Unknown { Type::Text } else { first.ty };
                Aggregate::new(name, vec![first.sql], ty)
            }
            "bool_and" | "every" if first.ty == Type::Bool => Aggregate::new("min", vec![first.sql], Type::Bool),
            "bool_or" if first.ty == Type::Bool => Aggregate::new("max", vec![first.sql], Type::Bool),
            "array_agg" | "json_agg" | "jsonb_agg" => {
                let (element, ty) = if name == "array_agg" {
                    (cast::element(&first)?, Type::Array(Box::new(first.ty.clone())))
                } else {
                    (cast::to_json(&first)?, Type::Json)
                };
                let own_order = call.distinct.then(|| format!("{element} NULLS LAST"));
                Aggregate { own_order, ..Aggregate::new("pg_agg_array", vec![element], ty) }
            }
            "json_object_agg" | "jsonb_object_agg" => {
                let key = cast::to_text(first)?;
                let value = second.map(|term| cast::to_json(&term)).transpose()?.ok_or_else(wrong)?;
                Aggregate::new("pg_agg_object", vec![key.sql, format!("ifnull({value}, 'null')")], Type::Json)
            }
            "string_agg" => {
                let value = cast::textual(first, name)?;
                let separator = cast::coerce(second.ok_or_else(wrong)?, &Type::Text, name)?;
                if call.distinct {
                    // SQLite takes one argument with DISTINCT, so the texts are joined afterwards.
                    return Ok(Aggregate {
                        around: ("pg_array_join(", format!(", {})", separator.sql)),
                        condition: Some(format!("{} IS NOT NULL", value.sql)),
                        own_order: Some(format!("json_quote({})", value.sql)),
                        distinct: true,
                        ..Aggregate::new("pg_agg_array", vec![format!("json_quote({})", value.sql)], Type::Text)
                    });
                }
                Aggregate::new("group_concat", vec![value.sql, separator.sql], Type::Text)
            }
            _ if first.ty.is_number() && (name.starts_with("stddev") || name.starts_with("var")) => {
                let function = match name {
                    "stddev" => "pg_agg_stddev_samp".to_owned(),
                    "variance" => "pg_agg_var_samp".to_owned(),
                    other => format!("pg_agg_{other}"),
                };
                Aggregate::new(&function, vec![first.sql], Type::Numeric)
            }
            _ => {
                return Err(QueryError::invalid(format!(
                    "function {name}({}) does not exist: add a cast",
                    first.ty.name()
                )));
            }
        };
        aggregate.distinct = call.distinct;
        Ok(aggregate)
    }

    fn count_parts(&mut self, call: &Call<'_>) -> Result<Aggregate> {
        let argument = match call.arguments {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => "*".to_owned(),
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => match tuple(expr) {
                Some(columns) => {
                    let columns = columns.iter().map(|column| self.expr(column)).collect::<Result<Vec<_>>>()?;
                    let texts = columns.iter().map(cast::element).collect::<Result<Vec<_>>>()?;
                    format!("pg_json_array({})", texts.join(", "))
                }
                None => self.expr(expr)?.sql,
            },
            [FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_))] => {
                return Err(QueryError::unsupported("count(table.*)").hint("count one of its columns"));
            }
            _ => return Err(QueryError::invalid("count takes one argument, or *")),
        };
        let aggregate = Aggregate::new("count", vec![argument], Type::Int);
        Ok(Aggregate { nullable: false, distinct: call.distinct, ..aggregate })
    }

    /// Translates `percentile_cont(0.95) WITHIN GROUP (ORDER BY duration)` and its like.
    fn ordered_set(&mut self, call: &Call<'_>) -> Result<Aggregate> {
        let name = call.name;
        let [item] = call.within else {
            return Err(QueryError::invalid(format!("WITHIN GROUP (ORDER BY one value) is required for {name}")));
        };
        if matches!(item.options.sort, Some(OrderBySort::Desc | OrderBySort::Using(_))) {
            return Err(QueryError::unsupported(format!("{name} in descending order")));
        }
        let value = self.expr(&item.expr)?;
        let arguments = self.plain_arguments(name, call.arguments)?;
        let fraction = match (name, arguments.as_slice()) {
            ("mode", []) => None,
            ("percentile_cont" | "percentile_disc", [fraction]) if fraction.ty.is_number() => {
                Some(fraction.sql.clone())
            }
            _ => return Err(QueryError::unsupported(format!("{name} with these arguments"))),
        };
        let ty = match name {
            "percentile_cont" if value.ty.is_number() => Type::Float,
            "percentile_cont" => {
                return Err(QueryError::unsupported(format!("percentile_cont of {}", value.ty.name())));
            }
            _ => value.ty.clone(),
        };
        let arguments = std::iter::once(value.sql).chain(fraction).collect();
        Ok(Aggregate::new(&format!("pg_agg_{name}"), arguments, ty))
    }

    /// Translates a function that needs OVER.
    pub(super) fn window_function(&mut self, name: &str, function: &Function) -> Result<Term> {
        let Some(over) = &function.over else {
            return Err(QueryError::invalid(format!("window function {name} requires an OVER clause")));
        };
        if self.scope().place == Place::Rows {
            return Err(QueryError::invalid(format!("window function {name} is not allowed here")));
        }
        let FunctionArguments::List(list) = &function.args else {
            return Err(QueryError::invalid(format!("{name} needs its arguments")));
        };
        if function.filter.is_some() || list.duplicate_treatment.is_some() || !function.within_group.is_empty() {
            return Err(QueryError::unsupported(format!("FILTER, DISTINCT or WITHIN GROUP in {name}")));
        }
        let respects = |treatment: &Option<NullTreatment>| !matches!(treatment, Some(NullTreatment::IgnoreNulls));
        if !respects(&function.null_treatment) || !list.clauses.is_empty() {
            return Err(QueryError::unsupported(format!("IGNORE NULLS in {name}")));
        }
        let mut arguments = self.plain_arguments(name, &list.args)?;
        let bounds = WINDOW_FUNCTIONS.iter().find(|(other, ..)| *other == name);
        if !bounds.is_some_and(|(_, fewest, most)| (*fewest..=*most).contains(&arguments.len())) {
            return Err(QueryError::invalid(format!("function {name} does not take {} arguments", arguments.len())));
        }
        let ty = match (name, arguments.first()) {
            ("percent_rank" | "cume_dist", _) => Type::Float,
            ("lag" | "lead" | "first_value" | "last_value" | "nth_value", Some(first)) => first.ty.clone(),
            _ => Type::Int,
        };
        if arguments.len() == 3 {
            let default = arguments.remove(2);
            arguments.push(cast::coerce(default, &ty, name)?);
        }
        let over = self.over(over)?;
        let texts: Vec<String> = arguments.into_iter().map(|term| term.sql).collect();
        Ok(Term::new(format!("({name}({}){over})", texts.join(", ")), ty))
    }

    fn over(&mut self, over: &WindowType) -> Result<String> {
        match over {
            WindowType::NamedWindow(name) => Ok(format!(" OVER {}", self.window_name(name)?)),
            WindowType::WindowSpec(spec) => Ok(format!(" OVER ({})", self.window_spec(spec)?)),
        }
    }

    fn window_name(&mut self, name: &sqlparser::ast::Ident) -> Result<String> {
        let folded = scope::fold(name);
        if self.scope().windows.contains(&folded) {
            Ok(quoted(&folded))
        } else {
            Err(QueryError::invalid(format!("window {folded:?} does not exist")).located(name.span))
        }
    }

    /// Translates what stands in the parentheses of OVER.
    pub(super) fn window_spec(&mut self, spec: &WindowSpec) -> Result<String> {
        let mut parts = Vec::new();
        if let Some(name) = &spec.window_name {
            parts.push(self.window_name(name)?);
        }
        if !spec.partition_by.is_empty() {
            let keys = spec.partition_by.iter().map(|key| Ok(self.expr(key)?.sql)).collect::<Result<Vec<_>>>()?;
            parts.push(format!("PARTITION BY {}", keys.join(", ")));
        }
        if !spec.order_by.is_empty() {
            let mut order = Vec::new();
            for item in &spec.order_by {
                let term = self.expr(&item.expr)?;
                order.push(OrderTerm::new(term.sql, term.nullable, item)?);
            }
            parts.push(format!("ORDER BY {}", OrderTerm::list(&order)));
        }
        if let Some(frame) = &spec.window_frame {
            let units = match frame.units {
                WindowFrameUnits::Rows => "ROWS",
                WindowFrameUnits::Range => "RANGE",
                WindowFrameUnits::Groups => "GROUPS",
            };
            let start = self.frame_bound(&frame.start_bound)?;
            parts.push(match &frame.end_bound {
                Some(end) => format!("{units} BETWEEN {start} AND {}", self.frame_bound(end)?),
                None => format!("{units} {start}"),
            });
        }
        Ok(parts.join(" "))
    }

    fn frame_bound(&mut self, bound: &WindowFrameBound) -> Result<String> {
        let (distance, word) = match bound {
            WindowFrameBound::CurrentRow => return Ok("CURRENT ROW".to_owned()),
            WindowFrameBound::Preceding(distance) => (distance, "PRECEDING"),
            WindowFrameBound::Following(distance) => (distance, "FOLLOWING"),
        };
        match distance {
            None => Ok(format!("UNBOUNDED {word}")),
            Some(distance) => {
                let term = self.expr(distance)?;
                if term.ty != Type::Int {
                    return Err(QueryError::unsupported(format!("a window frame of {}", term.ty.name())));
                }
                Ok(format!("{} {word}", term.sql))
            }
        }
    }
}
