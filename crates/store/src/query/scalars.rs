//! Functions on texts, numbers and truth values.

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::scope::literal;
use super::translate::Translator;
use super::types::Type;

/// A translated call, or its arguments back if the name is not known here.
pub(super) type Tried = std::result::Result<Term, Vec<Term>>;

/// Functions of texts that have a SQLite counterpart: name, counterpart, fewest and most texts, result.
const TEXTS: &[(&str, &str, usize, usize, Type)] = &[
    ("length", "length", 1, 1, Type::Int),
    ("char_length", "length", 1, 1, Type::Int),
    ("character_length", "length", 1, 1, Type::Int),
    ("lower", "pg_lower", 1, 1, Type::Text),
    ("upper", "pg_upper", 1, 1, Type::Text),
    ("initcap", "pg_initcap", 1, 1, Type::Text),
    ("reverse", "pg_reverse", 1, 1, Type::Text),
    ("trim", "trim", 1, 2, Type::Text),
    ("btrim", "trim", 1, 2, Type::Text),
    ("ltrim", "ltrim", 1, 2, Type::Text),
    ("rtrim", "rtrim", 1, 2, Type::Text),
    ("strpos", "instr", 2, 2, Type::Int),
    ("replace", "replace", 3, 3, Type::Text),
    ("translate", "pg_translate", 3, 3, Type::Text),
    ("starts_with", "pg_starts_with", 2, 2, Type::Bool),
    ("ascii", "unicode", 1, 1, Type::Int),
    ("regexp_like", "pg_regex", 2, 2, Type::Bool),
    ("regexp_substr", "pg_regex_substr", 2, 2, Type::Text),
];

/// Functions of one number that give a double.
const DOUBLES: &[(&str, &str)] =
    &[("sqrt", "pg_sqrt"), ("exp", "pg_exp"), ("ln", "pg_ln"), ("log", "pg_log"), ("log10", "pg_log")];

impl Translator<'_> {
    /// Translates a call of a function on texts, numbers or values of any type.
    pub(super) fn scalar(&mut self, name: &str, arguments: Vec<Term>) -> Result<Tried> {
        let count = arguments.len();
        if let Some((_, function, fewest, most, ty)) = TEXTS.iter().find(|(other, ..)| *other == name)
            && (*fewest..=*most).contains(&count)
        {
            let nullable = arguments.iter().any(|term| term.nullable);
            let texts =
                arguments.into_iter().map(|term| Ok(cast::textual(term, name)?.sql)).collect::<Result<Vec<_>>>()?;
            let term = Term::new(format!("{function}({})", texts.join(", ")), ty.clone());
            return Ok(Ok(Term { nullable, ..term }));
        }
        if let (Some((_, function)), 1) = (DOUBLES.iter().find(|(other, _)| *other == name), count) {
            let texts = self.numbers(name, arguments)?;
            return Ok(Ok(Term::new(format!("{function}({})", texts[0].sql), Type::Float)));
        }
        match name {
            "coalesce" if count > 0 => {
                let (terms, ty) = cast::unify(arguments, "COALESCE")?;
                let nullable = terms.iter().all(|term| term.nullable);
                let sql = if count == 1 { terms[0].sql.clone() } else { format!("coalesce({})", joined(&terms)) };
                Ok(Ok(Term { nullable, ..Term::new(sql, ty) }))
            }
            "greatest" | "least" if count > 0 => {
                let (terms, ty) = cast::unify(arguments, name)?;
                Ok(Ok(Term::new(format!("pg_{name}({})", joined(&terms)), ty)))
            }
            "nullif" if count == 2 => {
                let (terms, ty) = cast::unify(arguments, "NULLIF")?;
                Ok(Ok(Term::new(format!("nullif({})", joined(&terms)), ty)))
            }
            "concat" if count > 0 => self.joined_texts("concat", arguments).map(Ok),
            "concat_ws" if count > 1 => self.joined_texts("concat_ws", arguments).map(Ok),
            "format" if count > 0 => self.joined_texts("pg_format", arguments).map(Ok),
            "octet_length" if count == 1 => {
                let texts = self.joined_texts("", arguments)?;
                Ok(Ok(Term::new(format!("length(CAST({} AS BLOB))", texts.sql), Type::Int)))
            }
            "substr" | "substring" if count == 2 || count == 3 => self.substring(arguments).map(Ok),
            "left" | "right" | "repeat" if count == 2 => {
                self.text_and_numbers(&format!("pg_{name}"), arguments).map(Ok)
            }
            "lpad" | "rpad" if count == 2 || count == 3 => {
                let mut arguments = arguments;
                if count == 2 {
                    arguments.push(Term::new("' '", Type::Text));
                }
                let (fill, width) = (arguments.remove(2), arguments.remove(1));
                let subject = cast::textual(arguments.remove(0), name)?;
                let (width, fill) = (cast::coerce(width, &Type::Int, name)?, cast::textual(fill, name)?);
                Ok(Ok(Term::new(format!("pg_{name}({}, {}, {})", subject.sql, width.sql, fill.sql), Type::Text)))
            }
            "split_part" if count == 3 => {
                let mut arguments = arguments;
                let field = arguments.remove(2);
                let field = cast::coerce(field, &Type::Int, name)?;
                let texts = arguments.into_iter().map(|term| cast::textual(term, name)).collect::<Result<Vec<_>>>()?;
                Ok(Ok(Term::new(format!("pg_split_part({}, {})", joined(&texts), field.sql), Type::Text)))
            }
            "chr" if count == 1 => {
                let terms = self.numbers(name, arguments)?;
                Ok(Ok(Term::new(format!("char({})", terms[0].sql), Type::Text)))
            }
            "quote_literal" | "quote_ident" if count == 1 => {
                self.joined_texts(&format!("pg_{name}"), arguments).map(Ok)
            }
            "regexp_replace" if count == 3 || count == 4 => {
                let mut arguments = arguments;
                if count == 3 {
                    arguments.push(Term::new("''", Type::Text));
                }
                let texts = arguments.into_iter().map(|term| cast::textual(term, name)).collect::<Result<Vec<_>>>()?;
                Ok(Ok(Term::new(format!("pg_regex_replace({})", joined(&texts)), Type::Text)))
            }
            "regexp_match" if count == 2 => {
                let texts = arguments.into_iter().map(|term| cast::textual(term, name)).collect::<Result<Vec<_>>>()?;
                let ty = Type::Array(Box::new(Type::Text));
                Ok(Ok(Term::new(format!("pg_regex_match({})", joined(&texts)), ty)))
            }
            "version" if count == 0 => {
                Ok(Ok(Term::new("('noetl embedded store, SQLite ' || sqlite_version())", Type::Text)))
            }
            "current_database" | "current_schema" | "current_catalog" if count == 0 => {
                Ok(Ok(Term::new(literal(super::schema::SCHEMA), Type::Text)))
            }
            "current_user" | "session_user" | "user" if count == 0 => Ok(Ok(Term::new("'noetl'", Type::Text))),
            "pg_typeof" if count == 1 => Ok(Ok(Term::new(literal(&arguments[0].ty.name()), Type::Text))),
            _ => self.number_call(name, arguments),
        }
    }

    fn number_call(&mut self, name: &str, arguments: Vec<Term>) -> Result<Tried> {
        let count = arguments.len();
        match name {
            "abs" | "sign" if count == 1 => {
                let terms = self.numbers(name, arguments)?;
                Ok(Ok(Term { sql: format!("{name}({})", terms[0].sql), ..terms[0].clone() }))
            }
            "ceil" | "ceiling" if count == 1 => self
                .numbers(name, arguments)
                .and_then(|mut terms| self.whole_number("pg_ceil", terms.remove(0)))
                .map(Ok),
            "floor" if count == 1 => self
                .numbers(name, arguments)
                .and_then(|mut terms| self.whole_number("pg_floor", terms.remove(0)))
                .map(Ok),
            "round" | "trunc" if count == 1 || count == 2 => {
                let terms = self.numbers(name, arguments)?;
                let first = &terms[0];
                if name == "round" && first.ty == Type::Float && count == 1 {
                    // Doubles round to even.
                    return Ok(Ok(Term::new(format!("pg_rint({})", first.sql), Type::Float)));
                }
                let places = terms.get(1).map_or("0", |places| places.sql.as_str());
                Ok(Ok(Term::new(format!("pg_{name}({}, {places})", first.sql), Type::Numeric)))
            }
            "power" | "pow" if count == 2 => {
                let terms = self.numbers(name, arguments)?;
                Ok(Ok(Term::new(format!("pg_power({})", joined(&terms)), Type::Float)))
            }
            "mod" if count == 2 => {
                let terms = self.numbers(name, arguments)?;
                let ty = terms[0].ty.common(&terms[1].ty).unwrap_or(Type::Numeric);
                Ok(Ok(Term::new(format!("pg_mod({})", joined(&terms)), ty)))
            }
            "div" if count == 2 => {
                let terms = self.numbers(name, arguments)?;
                Ok(Ok(Term::new(format!("pg_trunc(pg_div({}), 0)", joined(&terms)), Type::Numeric)))
            }
            "random" if count == 0 => {
                // 53 random bits make every double between 0 and 1 reachable.
                Ok(Ok(Term::new("((random() & 9007199254740991) / 9007199254740992.0)", Type::Float)))
            }
            "pi" if count == 0 => Ok(Ok(Term::new(format!("{:?}", std::f64::consts::PI), Type::Float))),
            _ => Ok(Err(arguments)),
        }
    }

    fn numbers(&mut self, name: &str, arguments: Vec<Term>) -> Result<Vec<Term>> {
        arguments
            .into_iter()
            .map(|term| match &term.ty {
                ty if ty.is_number() => Ok(term),
                Type::Unknown => cast::coerce(term, &Type::Numeric, name),
                other => {
                    Err(QueryError::invalid(format!("function {name}({}) does not exist: add a cast", other.name())))
                }
            })
            .collect()
    }

    /// Calls a function on values of any type, each as its text.
    fn joined_texts(&mut self, function: &str, arguments: Vec<Term>) -> Result<Term> {
        let mut texts = Vec::new();
        for term in arguments {
            // Unlike `||` and a cast, these print a truth value by its letter.
            texts.push(match term.ty {
                Type::Bool => format!("(CASE WHEN {0} THEN 't' WHEN NOT {0} THEN 'f' END)", term.sql),
                _ => cast::to_text(term)?.sql,
            });
        }
        Ok(Term::new(format!("{function}({})", texts.join(", ")), Type::Text))
    }

    /// Calls a function on a text and whole numbers.
    fn text_and_numbers(&mut self, function: &str, arguments: Vec<Term>) -> Result<Term> {
        let mut texts = Vec::new();
        for (index, term) in arguments.into_iter().enumerate() {
            let term =
                if index == 0 { cast::textual(term, function)? } else { cast::coerce(term, &Type::Int, function)? };
            texts.push(term);
        }
        Ok(Term::new(format!("{function}({})", joined(&texts)), Type::Text))
    }
}

pub(super) fn joined(terms: &[Term]) -> String {
    let texts: Vec<&str> = terms.iter().map(|term| term.sql.as_str()).collect();
    texts.join(", ")
}
