//! The PostgreSQL types that a translated expression can have, and how SQLite holds their values.

use sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, TimezoneInfo};

use super::error::{QueryError, Result};

/// The type of an expression or column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A string literal or NULL that takes the type its surroundings ask for.
    Unknown,
    /// 0 or 1.
    Bool,
    /// An integer of 64 bits; PostgreSQL's three widths in one.
    Int,
    /// An integer or a double; exact decimals are not kept.
    Numeric,
    /// A double.
    Float,
    Text,
    /// A JSON document as text.
    Json,
    /// `2026-01-20T09:08:00.123Z`; `zoned` is `timestamptz`, whose text form ends in `+00`.
    Timestamp {
        zoned: bool,
    },
    /// `2026-01-20`.
    Date,
    /// The text of the `interval` module.
    Interval,
    /// A JSON array as text.
    Array(Box<Type>),
    /// Bytes, which can be selected but not worked with.
    Bytes,
}

impl Type {
    /// Returns the name that PostgreSQL gives the type in its messages.
    pub(super) fn name(&self) -> String {
        match self {
            Type::Unknown => "unknown".to_owned(),
            Type::Bool => "boolean".to_owned(),
            Type::Int => "bigint".to_owned(),
            Type::Numeric => "numeric".to_owned(),
            Type::Float => "double precision".to_owned(),
            Type::Text => "text".to_owned(),
            Type::Json => "jsonb".to_owned(),
            Type::Timestamp { zoned: true } => "timestamp with time zone".to_owned(),
            Type::Timestamp { zoned: false } => "timestamp without time zone".to_owned(),
            Type::Date => "date".to_owned(),
            Type::Interval => "interval".to_owned(),
            Type::Array(element) => format!("{}[]", element.name()),
            Type::Bytes => "bytea".to_owned(),
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Numeric | Type::Float)
    }

    /// Tells whether the value names a day on the calendar.
    pub(super) fn is_moment(&self) -> bool {
        matches!(self, Type::Timestamp { .. } | Type::Date)
    }

    /// Reads the declared type of a column; `None` for one that says nothing about its meaning.
    pub(super) fn declared(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let word = upper.split(['(', ' ']).next().unwrap_or_default();
        Some(match word {
            "BOOLEAN" | "BOOL" => Type::Bool,
            "INTEGER" | "INT" | "BIGINT" | "SMALLINT" | "INT8" | "INT4" => Type::Int,
            "NUMERIC" | "DECIMAL" => Type::Numeric,
            "REAL" | "DOUBLE" | "FLOAT" | "FLOAT8" => Type::Float,
            "TEXT" | "VARCHAR" | "CHAR" | "CHARACTER" | "UUID" => Type::Text,
            "JSON" | "JSONB" => Type::Json,
            "TIMESTAMP" | "DATETIME" => Type::Timestamp { zoned: upper.contains("WITH TIME ZONE") },
            "TIMESTAMPTZ" => Type::Timestamp { zoned: true },
            "DATE" => Type::Date,
            "BLOB" | "BYTEA" => Type::Bytes,
            _ => return None,
        })
    }

    /// Returns the type that holds the values of both, as CASE, COALESCE and UNION need it.
    pub(super) fn common(&self, other: &Type) -> Option<Type> {
        Some(match (self, other) {
            (a, b) if a == b => a.clone(),
            (Type::Unknown, known) | (known, Type::Unknown) => known.clone(),
            (a, b) if a.is_number() && b.is_number() => {
                if *a == Type::Float || *b == Type::Float {
                    Type::Float
                } else {
                    Type::Numeric
                }
            }
            (Type::Timestamp { zoned: a }, Type::Timestamp { zoned: b }) => Type::Timestamp { zoned: *a || *b },
            (Type::Timestamp { zoned }, Type::Date) | (Type::Date, Type::Timestamp { zoned }) => {
                Type::Timestamp { zoned: *zoned }
            }
            (Type::Array(a), Type::Array(b)) => Type::Array(Box::new(a.common(b)?)),
            _ => return None,
        })
    }
}

/// What a cast asks for: a type, and how values are fitted into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) ty: Type,
    pub(super) fit: Fit,
    /// The name an unnamed output column gets from the cast: `int4`.
    pub(super) label: &'static str,
}

/// How a cast fits values into its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Plain,
    /// An integer of so many bits.
    Bits(u32),
    /// A number of so many decimals.
    Scale(i64),
    /// A text cut to so many letters.
    Length(u64),
}

impl Target {
    fn plain(ty: Type, label: &'static str) -> Self {
        Target { ty, fit: Fit::Plain, label }
    }

    /// Reads a type name of PostgreSQL's; the ones without a meaning here are refused by name.
    pub(super) fn read(data_type: &DataType) -> Result<Self> {
        let int = |bits, label| Target { ty: Type::Int, fit: Fit::Bits(bits), label };
        let refused = || QueryError::unsupported(format!("type {data_type}"));
        Ok(match data_type {
            DataType::SmallInt(_) | DataType::Int2(_) => int(16, "int2"),
            DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => int(32, "int4"),
            DataType::BigInt(_) | DataType::Int8(_) => int(64, "int8"),
            DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => {
                let fit = match info {
                    ExactNumberInfo::None => Fit::Plain,
                    ExactNumberInfo::Precision(_) => Fit::Scale(0),
                    ExactNumberInfo::PrecisionAndScale(_, scale) => Fit::Scale(*scale),
                };
                Target { ty: Type::Numeric, fit, label: "numeric" }
            }
            DataType::Real | DataType::Float4 => Target::plain(Type::Float, "float4"),
            DataType::Float(_) | DataType::Float8 | DataType::DoublePrecision => Target::plain(Type::Float, "float8"),
            DataType::Text => Target::plain(Type::Text, "text"),
            DataType::Uuid => Target::plain(Type::Text, "uuid"),
            DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
                Target { ty: Type::Text, fit: letters(length.as_ref()), label: "varchar" }
            }
            DataType::Char(Some(length)) | DataType::Character(Some(length)) => {
                Target { ty: Type::Text, fit: letters(Some(length)), label: "bpchar" }
            }
            DataType::Char(None) | DataType::Character(None) => {
                Target { ty: Type::Text, fit: Fit::Length(1), label: "bpchar" }
            }
            DataType::Bool | DataType::Boolean => Target::plain(Type::Bool, "bool"),
            DataType::JSON => Target::plain(Type::Json, "json"),
            DataType::JSONB => Target::plain(Type::Json, "jsonb"),
            DataType::Date => Target::plain(Type::Date, "date"),
            DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Target::plain(Type::Timestamp { zoned: false }, "timestamp")
            }
            DataType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
                Target::plain(Type::Timestamp { zoned: true }, "timestamptz")
            }
            DataType::Interval { fields: None, .. } => Target::plain(Type::Interval, "interval"),
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::Qualified(element, _)) => {
                let element = Target::read(element)?;
                if matches!(element.ty, Type::Array(_) | Type::Interval | Type::Bytes) {
                    return Err(refused());
                }
                Target::plain(Type::Array(Box::new(element.ty)), element.label)
            }
            DataType::Custom(name, arguments) if arguments.is_empty() => {
                match name.to_string().to_ascii_lowercase().as_str() {
                    "timestamptz" => Target::plain(Type::Timestamp { zoned: true }, "timestamptz"),
                    "name" => Target::plain(Type::Text, "name"),
                    _ => return Err(refused()),
                }
            }
            _ => return Err(refused()),
        })
    }
}

fn letters(length: Option<&sqlparser::ast::CharacterLength>) -> Fit {
    match length {
        Some(sqlparser::ast::CharacterLength::IntegerLength { length, .. }) => Fit::Length(*length),
        Some(sqlparser::ast::CharacterLength::Max) | None => Fit::Plain,
    }
}
