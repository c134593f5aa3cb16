//! From PostgreSQL text to SQLite text: the door, which lets one query in and nothing else.

use sqlparser::ast::{DescribeAlias, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::error::{Position, QueryError, Result};
use super::schema::Schema;
use super::scope::Scope;
use super::types::Type;

/// Bytes of query text.
pub const QUERY_BYTES: usize = 256 << 10;
/// Operators and keywords in one query; they nest to the left without parentheses, so the text's length is no bound.
pub const QUERY_OPERATORS: usize = 2_000;
/// Parentheses, subqueries and calls inside each other.
const PARSER_DEPTH: usize = 50;
/// Expressions and subqueries inside each other, chains of operators counted.
const TRANSLATION_DEPTH: usize = 120;

/// A query as SQLite runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The text; its parameter `?1`, if it has one, is the current time.
    pub sql: String,
    /// The columns of the answer, named as PostgreSQL names them.
    pub columns: Vec<OutputColumn>,
    /// Whether the query asks for its plan (`EXPLAIN`).
    pub(super) explain: bool,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: Type,
}

/// Translates one PostgreSQL query to SQLite.
///
/// # Errors
///
/// Refuses everything that is not a query, and names the construct that has no translation.
pub fn translate(sql: &str, schema: &Schema) -> Result<Translated> {
    let (query, explain) = match parse(sql)? {
        Statement::Query(query) => (query, false),
        Statement::Explain {
            describe_alias: DescribeAlias::Explain,
            analyze: false,
            verbose: false,
            query_plan: false,
            estimate: false,
            statement,
            format: None,
            options: None,
        } => match *statement {
            Statement::Query(query) => (query, true),
            other => return Err(read_only(&first_word(&other.to_string()), None)),
        },
        Statement::Explain { .. } => return Err(QueryError::unsupported("EXPLAIN with options")),
        other => return Err(read_only(&first_word(&other.to_string()), None)),
    };
    let mut translator = Translator::new(schema);
    let emitted = translator.query(&query)?;
    if emitted.sql.contains('\0') {
        return Err(QueryError::invalid("a query can not contain the character U+0000"));
    }
    let columns = emitted.columns.into_iter().map(|column| OutputColumn { name: column.name, ty: column.ty }).collect();
    if explain {
        let columns = vec![OutputColumn { name: "QUERY PLAN".to_owned(), ty: Type::Text }];
        return Ok(Translated { sql: format!("EXPLAIN QUERY PLAN {}", emitted.sql), columns, explain });
    }
    Ok(Translated { sql: emitted.sql, columns, explain })
}

/// The state of one translation.
#[derive(Debug)]
pub(super) struct Translator<'s> {
    pub(super) schema: &'s Schema,
    /// The SELECTs around the current place, the innermost last.
    pub(super) scopes: Vec<Scope>,
    /// The WITH queries in sight, the nearest last.
    pub(super) ctes: Vec<Cte>,
    /// Columns used outside of aggregates, to be checked against GROUP BY.
    pub(super) loose: Vec<Loose>,
    depth: usize,
    ids: usize,
}

/// A WITH query that can be selected from.
#[derive(Debug, Clone)]
pub(super) struct Cte {
    pub(super) name: String,
    pub(super) columns: Vec<super::select::Output>,
}

/// A column that a SELECT uses as it is.
#[derive(Debug, Clone)]
pub(super) struct Loose {
    pub(super) scope: usize,
    pub(super) name: String,
    pub(super) sql: String,
}

impl<'s> Translator<'s> {
    fn new(schema: &'s Schema) -> Self {
        Translator { schema, scopes: vec![Scope::default()], ctes: Vec::new(), loose: Vec::new(), depth: 0, ids: 0 }
    }

    /// Returns a number that no other SELECT or alias of this query has.
    pub(super) fn next_id(&mut self) -> usize {
        self.ids += 1;
        self.ids
    }

    /// Goes one level deeper, which is bounded because each level takes stack.
    pub(super) fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= TRANSLATION_DEPTH {
            return Err(QueryError::TooLarge(format!(
                "deep: at most {TRANSLATION_DEPTH} expressions inside each other"
            )));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }
}

fn parse(sql: &str) -> Result<Statement> {
    if sql.len() > QUERY_BYTES {
        return Err(QueryError::TooLarge(format!("long: at most {QUERY_BYTES} bytes")));
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| QueryError::Syntax(error.to_string()))?;
    check_tokens(&tokens)?;
    let tokens = split_operators(tokens);
    let mut parser = Parser::new(&dialect).with_recursion_limit(PARSER_DEPTH).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(syntax)?;
    while parser.consume_token(&Token::SemiColon) {}
    match parser.next_token() {
        TokenWithSpan { token: Token::EOF, .. } => Ok(statement),
        other => {
            let Position { line, column } = Position::of(other.span).unwrap_or(Position { line: 1, column: 1 });
            Err(QueryError::Syntax(format!("unexpected {} at Line: {line}, Column: {column}", other.token)))
        }
    }
}

fn syntax(error: ParserError) -> QueryError {
    match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => QueryError::Syntax(message),
        ParserError::RecursionLimitExceeded => {
            QueryError::TooLarge(format!("deep: at most {PARSER_DEPTH} parentheses inside each other"))
        }
    }
}

/// Refuses by its first word what is no query, so that even statements the parser does not know are named.
fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut significant = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let first = significant.clone().next().ok_or_else(|| QueryError::Syntax("the query is empty".to_owned()))?;
    match &first.token {
        Token::LParen => {}
        Token::Word(word) => match word.keyword {
            Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::EXPLAIN => {}
            Keyword::TABLE => return Err(QueryError::unsupported("TABLE").hint("write SELECT * FROM")),
            Keyword::NoKeyword => {
                let found =
                    QueryError::invalid(format!("a query begins with SELECT, WITH or VALUES, not {}", word.value));
                return Err(found.located(first.span));
            }
            _ => return Err(read_only(&word.value.to_uppercase(), Some(first))),
        },
        other => return Err(QueryError::Syntax(format!("a query can not begin with {other}"))),
    }
    if let Some(double) = tokens.iter().find(|token| token.token == Token::DoubleEq) {
        return Err(QueryError::invalid("operator == does not exist; write =").located(double.span));
    }
    significant.by_ref().find(|token| token.token == Token::SemiColon);
    if let Some(second) = significant.find(|token| token.token != Token::SemiColon) {
        return Err(read_only(
            &format!("a second statement ({})", second.token.to_string().to_uppercase()),
            Some(second),
        ));
    }
    if tokens.iter().filter(|token| nests(&token.token)).count() > QUERY_OPERATORS {
        return Err(QueryError::TooLarge(format!("complex: at most {QUERY_OPERATORS} operators and keywords")));
    }
    Ok(())
}

/// Takes `->-1` apart into `->` and `-1`: to PostgreSQL a sign ends no operator of these letters.
fn split_operators(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut split = Vec::with_capacity(tokens.len());
    for token in tokens {
        let parts = match &token.token {
            Token::CustomBinaryOperator(text) => signed(text),
            _ => None,
        };
        match parts {
            Some((operator, sign)) => {
                split.push(TokenWithSpan { token: operator, span: token.span });
                split.push(TokenWithSpan { token: sign, span: token.span });
            }
            None => split.push(token),
        }
    }
    split
}

fn signed(operator: &str) -> Option<(Token, Token)> {
    let (operator, sign) = match operator.strip_suffix('-') {
        Some(operator) => (operator, Token::Minus),
        None => (operator.strip_suffix('+')?, Token::Plus),
    };
    let operator = match operator {
        "=" => Token::Eq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" => Token::Neq,
        "*" => Token::Mul,
        "/" => Token::Div,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        _ => return None,
    };
    Some((operator, sign))
}

/// Tells whether a token can make the syntax tree deeper; long lists of values do not.
fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_) => false,
        _ => true,
    }
}

fn read_only(statement: &str, token: Option<&TokenWithSpan>) -> QueryError {
    let position = token.and_then(|token| Position::of(token.span));
    QueryError::ReadOnly { statement: statement.to_owned(), position }
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or("this statement").to_uppercase()
}
