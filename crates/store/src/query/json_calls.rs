//! Functions on JSON documents and arrays.

use super::cast;
use super::error::{QueryError, Result};
use super::expr::Term;
use super::scalars::joined;
use super::translate::Translator;
use super::types::Type;

impl Translator<'_> {
    /// Translates a call of a function on documents or arrays; `None` if the name is not known.
    pub(super) fn json_call(&mut self, name: &str, arguments: Vec<Term>) -> Result<Option<Term>> {
        let count = arguments.len();
        // `json` and `jsonb` are one type here.
        let plain = name.strip_prefix("jsonb_").or_else(|| name.strip_prefix("json_"));
        let Some(plain) = plain else { return self.array_call(name, arguments) };
        let mut given = arguments.into_iter();
        Ok(Some(match (plain, count) {
            ("build_object", _) => {
                if !count.is_multiple_of(2) {
                    return Err(QueryError::invalid(format!("{name} takes keys and values in turn")));
                }
                let mut parts = Vec::new();
                while let (Some(key), Some(value)) = (given.next(), given.next()) {
                    let key = cast::to_text(key)?;
                    parts.push(format!("{}, {}", key.sql, cast::to_json(&value)?));
                }
                document(format!("pg_json_object({})", parts.join(", ")))
            }
            ("build_array", _) => {
                let parts = given.map(|value| cast::to_json(&value)).collect::<Result<Vec<_>>>()?;
                document(format!("pg_json_array({})", parts.join(", ")))
            }
            ("extract_path" | "extract_path_text", 2..) => {
                let mut terms = Vec::new();
                for (index, term) in given.enumerate() {
                    terms.push(if index == 0 {
                        cast::coerce(term, &Type::Json, name)?
                    } else {
                        cast::textual(term, name)?
                    });
                }
                let document = terms.remove(0);
                let steps: Vec<String> = terms.iter().map(|step| format!("json_quote({})", step.sql)).collect();
                let path = format!("pg_json_array({})", steps.join(", "));
                if plain == "extract_path" {
                    Term::new(format!("pg_json_path({}, {path})", document.sql), Type::Json)
                } else {
                    Term::new(format!("pg_json_path_text({}, {path})", document.sql), Type::Text)
                }
            }
            ("array_length" | "typeof" | "strip_nulls" | "pretty", 1) => {
                let Some(term) = given.next() else { return Ok(None) };
                let term = cast::coerce(term, &Type::Json, name)?;
                let (function, ty) = match plain {
                    "array_length" => ("pg_json_length", Type::Int),
                    "typeof" => ("pg_json_typeof", Type::Text),
                    "strip_nulls" => ("pg_json_strip_nulls", Type::Json),
                    _ => ("pg_json_pretty", Type::Text),
                };
                Term::new(format!("{function}({})", term.sql), ty)
            }
            ("array_elements" | "array_elements_text" | "object_keys" | "each" | "each_text", _) => {
                return Err(QueryError::unsupported(format!("{name} here")).hint("put it in FROM"));
            }
            _ => return Ok(None),
        }))
    }

    fn array_call(&mut self, name: &str, arguments: Vec<Term>) -> Result<Option<Term>> {
        let count = arguments.len();
        let mut given = arguments.into_iter();
        let (Some(first), second, third) = (given.next(), given.next(), given.next()) else { return Ok(None) };
        let array = |term: &Term| match &term.ty {
            Type::Array(element) => Ok((**element).clone()),
            other => Err(QueryError::invalid(format!("{name} takes an array, not {}: add a cast", other.name()))),
        };
        Ok(Some(match (name, count, second) {
            ("to_json" | "to_jsonb", 1, None) => {
                let nullable = first.nullable;
                Term { nullable, ..document(cast::to_json(&first)?) }
            }
            ("array_length", 2, Some(dimension)) => {
                array(&first)?;
                if dimension.sql != "1" {
                    return Err(QueryError::unsupported("array_length of a dimension other than 1"));
                }
                Term::new(format!("pg_array_length({})", first.sql), Type::Int)
            }
            ("cardinality", 1, None) => {
                array(&first)?;
                Term::new(format!("pg_cardinality({})", first.sql), Type::Int)
            }
            ("array_to_string", 2 | 3, Some(separator)) => {
                array(&first)?;
                let mut terms = vec![first, cast::coerce(separator, &Type::Text, name)?];
                if let Some(null) = third {
                    terms.push(cast::coerce(null, &Type::Text, name)?);
                }
                Term::new(format!("pg_array_join({})", joined(&terms)), Type::Text)
            }
            ("string_to_array", 2, Some(separator)) => {
                let terms = [cast::textual(first, name)?, cast::textual(separator, name)?];
                Term::new(format!("pg_array_split({})", joined(&terms)), Type::Array(Box::new(Type::Text)))
            }
            ("array_append", 2, Some(value)) => {
                let element = array(&first)?;
                let value = cast::coerce(value, &element, name)?;
                let value = cast::element(&value)?;
                Term::new(format!("pg_array_concat({}, pg_json_array({value}))", first.sql), first.ty)
            }
            ("array_cat", 2, Some(other)) => {
                let other = cast::coerce(other, &first.ty, name)?;
                Term::new(format!("pg_array_concat({}, {})", first.sql, other.sql), first.ty)
            }
            ("array_position", 2, Some(value)) => {
                let element = array(&first)?;
                let value = cast::coerce(value, &element, name)?;
                let value = cast::element(&value)?;
                Term::new(format!("pg_array_position({}, {value})", first.sql), Type::Int)
            }
            _ => return Ok(None),
        }))
    }
}

fn document(sql: String) -> Term {
    Term::new(sql, Type::Json)
}
