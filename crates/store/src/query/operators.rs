//! Operators: which one is meant follows from the types of its sides, as in PostgreSQL.

use sqlparser::ast::{BinaryOperator, Expr};

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::naming;
use super::translate::Translator;
use super::types::Type;

impl Translator<'_> {
    /// Translates a chain of binary operators from its left end, without recursion: chains have no depth limit.
    pub(super) fn binary(&mut self, whole: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Term> {
        if let (Some(left), Some(right)) = (tuple(left), tuple(right)) {
            return self.compare_rows(left, op, right);
        }
        let mut links = Vec::new();
        let mut first = whole;
        while let Expr::BinaryOp { left, op, right } = first {
            if tuple(left).is_some() {
                break;
            }
            links.push((op, right.as_ref()));
            first = left;
        }
        let mut term = self.expr(first)?;
        for (op, right) in links.into_iter().rev() {
            let place = naming::start(right);
            let right = self.expr(right)?;
            term = apply(term, op, right).map_err(|error| error.located(place))?;
        }
        Ok(term)
    }

    fn compare_rows(&mut self, left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Term> {
        let comparison = matches!(
            op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        if !comparison {
            return Err(QueryError::unsupported(format!("operator {op} between row values")));
        }
        if left.len() != right.len() {
            return Err(QueryError::invalid("unequal number of entries in row expressions"));
        }
        let (mut lefts, mut rights) = (Vec::new(), Vec::new());
        for (left, right) in left.iter().zip(right) {
            let (left, right) = (self.expr(left)?, self.expr(right)?);
            let (left, right) = comparable(left, op, right)?;
            lefts.push(left.sql);
            rights.push(right.sql);
        }
        Ok(Term::new(format!("(({}) {op} ({}))", lefts.join(", "), rights.join(", ")), Type::Bool))
    }

    /// Translates `IS [NOT] DISTINCT FROM`.
    pub(super) fn distinct_test(&mut self, left: &Expr, test: &str, right: &Expr) -> Result<Term> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right) = comparable(left, &BinaryOperator::Eq, right)?;
        Ok(Term { nullable: false, ..Term::new(format!("({} {test} {})", left.sql, right.sql), Type::Bool) })
    }
}

/// Applies an operator to a value and one of several: it has to say yes or no.
pub(super) fn test(left: Term, op: &BinaryOperator, right: Term, word: &str) -> Result<Term> {
    let term = apply(left, op, right)?;
    match term.ty {
        Type::Bool => Ok(term),
        _ => Err(QueryError::invalid(format!("op {word} requires an operator that yields a boolean, {op} does not"))),
    }
}

fn apply(left: Term, op: &BinaryOperator, right: Term) -> Result<Term> {
    match op {
        BinaryOperator::And | BinaryOperator::Or => {
            let clause = op.to_string();
            let (left, right) = (truth(left, &clause)?, truth(right, &clause)?);
            Ok(Term::new(format!("({} {op} {})", left.sql, right.sql), Type::Bool))
        }
        BinaryOperator::Eq
        | BinaryOperator::NotEq
        | BinaryOperator::Lt
        | BinaryOperator::LtEq
        | BinaryOperator::Gt
        | BinaryOperator::GtEq => compare(left, op, right),
        BinaryOperator::Plus | BinaryOperator::Minus if is_temporal(&left.ty) || is_temporal(&right.ty) => {
            shift(left, op, right)
        }
        BinaryOperator::Multiply | BinaryOperator::Divide
            if left.ty == Type::Interval || right.ty == Type::Interval =>
        {
            scale(&left, op, &right)
        }
        BinaryOperator::Minus if left.ty == Type::Json => {
            if !matches!(right.ty, Type::Text | Type::Unknown | Type::Int) {
                return Err(no_operator(&left, op, &right));
            }
            Ok(Term::new(format!("pg_json_without({}, {})", left.sql, right.sql), Type::Json))
        }
        BinaryOperator::Plus
        | BinaryOperator::Minus
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::PGExp
        | BinaryOperator::BitwiseXor => arithmetic(left, op, right),
        BinaryOperator::BitwiseAnd
        | BinaryOperator::BitwiseOr
        | BinaryOperator::PGBitwiseShiftLeft
        | BinaryOperator::PGBitwiseShiftRight => {
            let (left, right) = (cast::coerce(left, &Type::Int, "bits")?, cast::coerce(right, &Type::Int, "bits")?);
            Ok(Term::new(format!("({} {op} {})", left.sql, right.sql), Type::Int))
        }
        BinaryOperator::StringConcat => concat(left, right),
        BinaryOperator::Arrow => json_get("pg_json_get", left, &right, Type::Json),
        BinaryOperator::LongArrow => json_get("pg_json_get_text", left, &right, Type::Text),
        BinaryOperator::HashArrow => json_path("pg_json_path", left, right, Type::Json),
        BinaryOperator::HashLongArrow => json_path("pg_json_path_text", left, right, Type::Text),
        BinaryOperator::AtArrow => contains(left, op, right),
        BinaryOperator::ArrowAt => contains(right, op, left),
        BinaryOperator::PGOverlap => {
            let (left, right) = arrays(left, op, right)?;
            Ok(Term::new(format!("pg_array_overlaps({}, {})", left.sql, right.sql), Type::Bool))
        }
        BinaryOperator::Question => {
            let (left, right) = (cast::coerce(left, &Type::Json, "?")?, cast::coerce(right, &Type::Text, "?")?);
            Ok(Term::new(format!("pg_json_exists({}, {})", left.sql, right.sql), Type::Bool))
        }
        BinaryOperator::QuestionPipe => json_keys("pg_json_exists_any", left, right),
        BinaryOperator::QuestionAnd => json_keys("pg_json_exists_all", left, right),
        BinaryOperator::PGRegexMatch => matches("pg_regex", false, left, right),
        BinaryOperator::PGRegexIMatch => matches("pg_iregex", false, left, right),
        BinaryOperator::PGRegexNotMatch => matches("pg_regex", true, left, right),
        BinaryOperator::PGRegexNotIMatch => matches("pg_iregex", true, left, right),
        BinaryOperator::PGStartsWith => matches("pg_starts_with", false, left, right),
        BinaryOperator::PGLikeMatch => like_terms("pg_like", false, left, right, "'\\'"),
        BinaryOperator::PGILikeMatch => like_terms("pg_ilike", false, left, right, "'\\'"),
        BinaryOperator::PGNotLikeMatch => like_terms("pg_like", true, left, right, "'\\'"),
        BinaryOperator::PGNotILikeMatch => like_terms("pg_ilike", true, left, right, "'\\'"),
        _ => Err(QueryError::unsupported(format!("operator {op}"))),
    }
}

fn truth(term: Term, clause: &str) -> Result<Term> {
    match term.ty {
        Type::Bool => Ok(term),
        Type::Unknown => cast::coerce(term, &Type::Bool, clause),
        other => {
            Err(QueryError::invalid(format!("argument of {clause} must be type boolean, not type {}", other.name())))
        }
    }
}

/// Translates a comparison.
pub(super) fn compare(left: Term, op: &BinaryOperator, right: Term) -> Result<Term> {
    let nullable = left.nullable || right.nullable;
    let json = left.ty == Type::Json || right.ty == Type::Json;
    let (left, right) = comparable(left, op, right)?;
    if json {
        // Key order and spacing do not matter; greater and less have no meaning people would use.
        let not = match op {
            BinaryOperator::Eq => "",
            BinaryOperator::NotEq => "NOT ",
            _ => return Err(QueryError::unsupported(format!("operator jsonb {op} jsonb"))),
        };
        let sql = format!("({not}pg_json_equal({}, {}))", left.sql, right.sql);
        return Ok(Term { nullable, ..Term::new(sql, Type::Bool) });
    }
    Ok(Term { nullable, ..Term::new(format!("({} {op} {})", left.sql, right.sql), Type::Bool) })
}

/// Brings two terms to forms whose SQLite values compare as PostgreSQL compares them.
pub(super) fn comparable(left: Term, op: &BinaryOperator, right: Term) -> Result<(Term, Term)> {
    let what = op.to_string();
    Ok(match (&left.ty, &right.ty) {
        (Type::Unknown, Type::Unknown) => (left, right),
        (Type::Unknown, other) => {
            let ty = other.clone();
            return comparable_known(cast::coerce(left, &ty, &what)?, op, right);
        }
        (other, Type::Unknown) => {
            let ty = other.clone();
            let right = cast::coerce(right, &ty, &what)?;
            return comparable_known(left, op, right);
        }
        _ => return comparable_known(left, op, right),
    })
}

fn comparable_known(left: Term, op: &BinaryOperator, right: Term) -> Result<(Term, Term)> {
    match (&left.ty, &right.ty) {
        (Type::Interval, Type::Interval) => Ok((interval_key(left), interval_key(right))),
        (Type::Bytes, _) | (_, Type::Bytes) => Err(no_operator(&left, op, &right)),
        (a, b) => {
            let ty = a.common(b).ok_or_else(|| no_operator(&left, op, &right))?;
            if ty.is_number() || matches!((a, b), (Type::Timestamp { .. }, Type::Timestamp { .. })) || a == b {
                return Ok((left, right));
            }
            Ok((cast::coerce(left, &ty, "a comparison")?, cast::coerce(right, &ty, "a comparison")?))
        }
    }
}

/// Adds to and subtracts from moments, dates and intervals.
fn shift(left: Term, op: &BinaryOperator, right: Term) -> Result<Term> {
    let minus = *op == BinaryOperator::Minus;
    // An untyped literal is an interval beside `+`, and of the other side's type beside `-`.
    let (left, right) = match (&left.ty, &right.ty) {
        (Type::Unknown, ty) if minus => {
            let ty = ty.clone();
            (cast::coerce(left, &ty, "-")?, right)
        }
        (ty, Type::Unknown) if minus => {
            let ty = ty.clone();
            (left, cast::coerce(right, &ty, "-")?)
        }
        (Type::Unknown, _) => (cast::coerce(left, &Type::Interval, "+")?, right),
        (_, Type::Unknown) => (left, cast::coerce(right, &Type::Interval, "+")?),
        _ => (left, right),
    };
    let call = |name: &str, a: &Term, b: &Term, ty: Type| Ok(Term::new(format!("{name}({}, {})", a.sql, b.sql), ty));
    let stamp = |ty: &Type| if *ty == Type::Date { Type::Timestamp { zoned: false } } else { ty.clone() };
    match (&left.ty, &right.ty, minus) {
        (moment, Type::Interval, false) if moment.is_moment() => call("pg_ts_add", &left, &right, stamp(moment)),
        (moment, Type::Interval, true) if moment.is_moment() => call("pg_ts_minus", &left, &right, stamp(moment)),
        (Type::Interval, moment, false) if moment.is_moment() => call("pg_ts_add", &right, &left, stamp(moment)),
        (Type::Date, Type::Date, true) => call("pg_date_diff", &left, &right, Type::Int),
        (a, b, true) if a.is_moment() && b.is_moment() => call("pg_ts_diff", &left, &right, Type::Interval),
        (Type::Date, Type::Int, false) => call("pg_date_add", &left, &right, Type::Date),
        (Type::Int, Type::Date, false) => call("pg_date_add", &right, &left, Type::Date),
        (Type::Date, Type::Int, true) => {
            Ok(Term::new(format!("pg_date_add({}, (-{}))", left.sql, right.sql), Type::Date))
        }
        (Type::Interval, Type::Interval, false) => call("pg_interval_add", &left, &right, Type::Interval),
        (Type::Interval, Type::Interval, true) => call("pg_interval_minus", &left, &right, Type::Interval),
        _ => Err(no_operator(&left, op, &right)),
    }
}

/// Multiplies and divides intervals.
fn scale(left: &Term, op: &BinaryOperator, right: &Term) -> Result<Term> {
    let divide = *op == BinaryOperator::Divide;
    let (interval, number) = match (&left.ty, &right.ty) {
        (Type::Interval, ty) if ty.is_number() => (left, right),
        (ty, Type::Interval) if ty.is_number() && !divide => (right, left),
        _ => return Err(no_operator(left, op, right)),
    };
    let name = if divide { "pg_interval_div" } else { "pg_interval_times" };
    Ok(Term::new(format!("{name}({}, {})", interval.sql, number.sql), Type::Interval))
}

fn arithmetic(left: Term, op: &BinaryOperator, right: Term) -> Result<Term> {
    let (left, right) = match (&left.ty, &right.ty) {
        (Type::Unknown, ty) if ty.is_number() => {
            let ty = ty.clone();
            (cast::coerce(left, &ty, "arithmetic")?, right)
        }
        (ty, Type::Unknown) if ty.is_number() => {
            let ty = ty.clone();
            (left, cast::coerce(right, &ty, "arithmetic")?)
        }
        _ => (left, right),
    };
    if !left.ty.is_number() || !right.ty.is_number() {
        return Err(no_operator(&left, op, &right));
    }
    let ty = left.ty.common(&right.ty).unwrap_or(Type::Numeric);
    let nullable = left.nullable || right.nullable;
    let whole = ty == Type::Int;
    let sql = match op {
        BinaryOperator::Divide | BinaryOperator::Modulo => {
            let name = if *op == BinaryOperator::Divide { "pg_div" } else { "pg_mod" };
            // A numeric may be held as an integer, which must not divide like one.
            let dividend = if whole { left.sql } else { format!("CAST({} AS REAL)", left.sql) };
            format!("{name}({dividend}, {})", right.sql)
        }
        BinaryOperator::PGExp | BinaryOperator::BitwiseXor => {
            let sql = format!("pg_power({}, {})", left.sql, right.sql);
            return Ok(Term { nullable, ..Term::new(sql, Type::Float) });
        }
        _ => format!("({} {op} {})", left.sql, right.sql),
    };
    Ok(Term { nullable, ..Term::new(sql, ty) })
}

fn concat(left: Term, right: Term) -> Result<Term> {
    match (&left.ty, &right.ty) {
        (Type::Json, Type::Json | Type::Unknown) | (Type::Unknown, Type::Json) => {
            let (left, right) = (cast::coerce(left, &Type::Json, "||")?, cast::coerce(right, &Type::Json, "||")?);
            Ok(Term::new(format!("pg_json_concat({}, {})", left.sql, right.sql), Type::Json))
        }
        // A literal beside an array is an array, not an element.
        (Type::Array(_), Type::Unknown) if right.literal.is_some() => {
            let array = left.ty.clone();
            concat(left, cast::coerce(right, &array, "||")?)
        }
        (Type::Array(_), Type::Array(_)) => {
            let ty =
                left.ty.common(&right.ty).ok_or_else(|| no_operator(&left, &BinaryOperator::StringConcat, &right))?;
            Ok(Term::new(format!("pg_array_concat({}, {})", left.sql, right.sql), ty))
        }
        (Type::Array(element), other) if element.common(other).is_some() => {
            let (array, element) = (left.ty.clone(), (**element).clone());
            let right = cast::coerce(right, &element, "||")?;
            let sql = format!("pg_array_concat({}, pg_json_array({}))", left.sql, cast::element(&right)?);
            Ok(Term::new(sql, array))
        }
        (a, b) => {
            let texts = [a, b].into_iter().any(|ty| matches!(ty, Type::Text | Type::Unknown));
            if !texts {
                return Err(no_operator(&left, &BinaryOperator::StringConcat, &right));
            }
            let nullable = left.nullable || right.nullable;
            let (left, right) = (cast::to_text(left)?, cast::to_text(right)?);
            Ok(Term { nullable, ..Term::new(format!("({} || {})", left.sql, right.sql), Type::Text) })
        }
    }
}

fn json_get(name: &str, left: Term, right: &Term, ty: Type) -> Result<Term> {
    let op = if ty == Type::Text { BinaryOperator::LongArrow } else { BinaryOperator::Arrow };
    if !matches!(right.ty, Type::Text | Type::Unknown | Type::Int) || !matches!(left.ty, Type::Json | Type::Unknown) {
        return Err(no_operator(&left, &op, right));
    }
    let left = cast::coerce(left, &Type::Json, "->")?;
    // `a -> 'b' -> 'c'` is one walk into one parsed document.
    let walk = match left.sql.strip_prefix("pg_json_get(").and_then(|rest| rest.strip_suffix(')')) {
        Some(steps) => format!("{steps}, {}", right.sql),
        None => format!("{}, {}", left.sql, right.sql),
    };
    Ok(Term::new(format!("{name}({walk})"), ty))
}

fn json_path(name: &str, left: Term, right: Term, ty: Type) -> Result<Term> {
    let left = cast::coerce(left, &Type::Json, "#>")?;
    let right = cast::coerce(right, &Type::Array(Box::new(Type::Text)), "#>")?;
    Ok(Term::new(format!("{name}({}, {})", left.sql, right.sql), ty))
}

fn json_keys(name: &str, left: Term, right: Term) -> Result<Term> {
    let left = cast::coerce(left, &Type::Json, "?|")?;
    let right = cast::coerce(right, &Type::Array(Box::new(Type::Text)), "?|")?;
    Ok(Term::new(format!("{name}({}, {})", left.sql, right.sql), Type::Bool))
}

fn contains(whole: Term, op: &BinaryOperator, part: Term) -> Result<Term> {
    if whole.ty == Type::Json || part.ty == Type::Json {
        let (whole, part) = (cast::coerce(whole, &Type::Json, "@>")?, cast::coerce(part, &Type::Json, "@>")?);
        return Ok(Term::new(format!("pg_json_contains({}, {})", whole.sql, part.sql), Type::Bool));
    }
    let (whole, part) = arrays(whole, op, part)?;
    Ok(Term::new(format!("pg_array_contains({}, {})", whole.sql, part.sql), Type::Bool))
}

fn arrays(left: Term, op: &BinaryOperator, right: Term) -> Result<(Term, Term)> {
    let array = [&left.ty, &right.ty].into_iter().find(|ty| matches!(ty, Type::Array(_))).cloned();
    let array = array.ok_or_else(|| no_operator(&left, op, &right))?;
    Ok((cast::coerce(left, &array, "arrays")?, cast::coerce(right, &array, "arrays")?))
}

fn matches(name: &str, negated: bool, left: Term, right: Term) -> Result<Term> {
    let (left, right) = (cast::textual(left, "~")?, cast::textual(right, "~")?);
    let not = if negated { "NOT " } else { "" };
    Ok(Term::new(format!("({not}{name}({}, {}))", left.sql, right.sql), Type::Bool))
}

/// Translates `LIKE` between two terms.
pub(super) fn like_terms(name: &str, negated: bool, subject: Term, pattern: Term, escape: &str) -> Result<Term> {
    let (subject, pattern) = (cast::textual(subject, "LIKE")?, cast::textual(pattern, "LIKE")?);
    let not = if negated { "NOT " } else { "" };
    Ok(Term::new(format!("({not}{name}({}, {}, {escape}))", subject.sql, pattern.sql), Type::Bool))
}

fn interval_key(term: Term) -> Term {
    Term { sql: format!("pg_interval_key({})", term.sql), ..term }
}

fn is_temporal(ty: &Type) -> bool {
    ty.is_moment() || *ty == Type::Interval
}

/// Returns the elements of a row value, through parentheses.
pub(super) fn tuple(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(elements) => Some(elements),
        Expr::Nested(inner) => tuple(inner),
        _ => None,
    }
}

/// Says that PostgreSQL has no such operator for these types.
pub(super) fn no_operator(left: &Term, op: &BinaryOperator, right: &Term) -> QueryError {
    let (a, b) = (left.ty.name(), right.ty.name());
    QueryError::invalid(format!("operator does not exist: {a} {op} {b}: add a cast"))
}
