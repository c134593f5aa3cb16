//! Splits a text into statements, as PostgreSQL's own client does.
//!
//! A `;` ends a statement unless it stands in quotes (`'…'`, `E'…'`, `"…"`, `$tag$…$tag$`), in a comment (`--`,
//! nested `/* */`), in parentheses (`CREATE RULE … DO (a; b)`) or in a function body of standard SQL
//! (`BEGIN ATOMIC … END`). Text that never closes what it opened is one statement: the database says what is wrong
//! with it. DuckDB reads the same quotes and comments.

/// One statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// From its first word to its last; neither `;` nor comments around it.
    pub(crate) text: &'a str,
    /// Where it begins in the whole text, in bytes.
    pub(crate) offset: usize,
    /// Whether it could answer with rows, to judge by its words. `false` is sure, `true` is not.
    pub(crate) may_return_rows: bool,
}

/// First words of statements that answer with rows.
const ROW_WORDS: [&str; 9] = ["select", "with", "values", "table", "show", "explain", "fetch", "call", "execute"];

/// Returns the statements of a text, in order. Takes time in proportion to its length.
pub(crate) fn statements(sql: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut current = Current::default();
    let mut scanner = Scanner { sql: sql.as_bytes(), at: 0 };
    loop {
        let start = scanner.at;
        match scanner.next() {
            Token::Blank => {}
            Token::End => break,
            Token::Semicolon if current.is_open() => current.extend(start, scanner.at),
            Token::Semicolon => found.extend(std::mem::take(&mut current).statement(sql)),
            Token::Open => {
                current.extend(start, scanner.at);
                current.parentheses += 1;
            }
            Token::Close => {
                current.extend(start, scanner.at);
                current.parentheses = current.parentheses.saturating_sub(1);
            }
            Token::Word => {
                current.extend(start, scanner.at);
                current.word(&sql[start..scanner.at]);
            }
            Token::Other => {
                current.extend(start, scanner.at);
                current.first.get_or_insert("");
            }
        }
    }
    found.extend(current.statement(sql));
    found
}

/// Returns line and column, from 1, of a place in a text; columns count characters.
pub(crate) fn place(sql: &str, offset: usize) -> (usize, usize) {
    let before = sql.get(..offset).unwrap_or(sql);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The statement that is being read.
#[derive(Debug, Default)]
struct Current<'a> {
    /// Of its tokens so far.
    range: Option<(usize, usize)>,
    /// Its first word; empty if it begins with something else.
    first: Option<&'a str>,
    has_returning: bool,
    parentheses: usize,
    /// First letters of its first words, lower case: enough to know `CREATE [OR REPLACE] FUNCTION | PROCEDURE`.
    initials: [u8; 4],
    words: usize,
    /// How many `BEGIN` and `CASE` of a function's body are open.
    blocks: usize,
}

impl<'a> Current<'a> {
    fn extend(&mut self, start: usize, end: usize) {
        self.range = Some((self.range.map_or(start, |(start, _)| start), end));
    }

    fn is_open(&self) -> bool {
        self.parentheses > 0 || self.blocks > 0
    }

    fn word(&mut self, word: &'a str) {
        self.first.get_or_insert(word);
        self.has_returning |= word.eq_ignore_ascii_case("returning");
        if self.parentheses > 0 {
            return;
        }
        if let Some(initial) = self.initials.get_mut(self.words) {
            *initial = word.as_bytes()[0].to_ascii_lowercase();
        }
        self.words += 1;
        if !matches!(&self.initials, [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p']) {
            return;
        }
        if word.eq_ignore_ascii_case("begin") || (self.blocks > 0 && word.eq_ignore_ascii_case("case")) {
            self.blocks += 1;
        } else if word.eq_ignore_ascii_case("end") {
            self.blocks = self.blocks.saturating_sub(1);
        }
    }

    fn statement(self, sql: &'a str) -> Option<Statement<'a>> {
        let (start, end) = self.range?;
        let first = self.first.unwrap_or_default();
        // `(SELECT …)` begins with a parenthesis.
        let may_return_rows = self.has_returning
            || sql.as_bytes()[start] == b'('
            || ROW_WORDS.iter().any(|word| first.eq_ignore_ascii_case(word));
        Some(Statement { text: &sql[start..end], offset: start, may_return_rows })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// White space or a comment.
    Blank,
    Word,
    Semicolon,
    Open,
    Close,
    /// Something quoted, a number, an operator.
    Other,
    End,
}

#[derive(Debug)]
struct Scanner<'a> {
    sql: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Passes one token. It always passes something, and always ends between two characters.
    fn next(&mut self) -> Token {
        let Some(byte) = self.peek(0) else { return Token::End };
        match byte {
            b'-' if self.peek(1) == Some(b'-') => {
                self.pass_while(|byte| byte != b'\n');
                Token::Blank
            }
            b'/' if self.peek(1) == Some(b'*') => {
                self.pass_comment();
                Token::Blank
            }
            b'\'' => {
                self.pass_quoted(b'\'', false);
                Token::Other
            }
            b'"' => {
                self.pass_quoted(b'"', false);
                Token::Other
            }
            b'$' => {
                self.pass_dollar();
                Token::Other
            }
            b'0'..=b'9' => {
                self.pass_while(is_inner);
                Token::Other
            }
            _ if is_first(byte) => {
                let start = self.at;
                self.pass_while(is_inner);
                if matches!(&self.sql[start..self.at], b"e" | b"E") && self.peek(0) == Some(b'\'') {
                    self.pass_quoted(b'\'', true);
                    return Token::Other;
                }
                Token::Word
            }
            _ => {
                self.at += 1;
                match byte {
                    b';' => Token::Semicolon,
                    b'(' => Token::Open,
                    b')' => Token::Close,
                    _ if byte.is_ascii_whitespace() || byte == 0x0b => Token::Blank,
                    _ => Token::Other,
                }
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    fn pass_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn pass_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                (_, _) => self.at += 1,
            }
        }
    }

    /// Passes from an opening quote to the closing one. A doubled quote ends and begins again, which is as good.
    fn pass_quoted(&mut self, quote: u8, backslash_escapes: bool) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && backslash_escapes {
                // What follows is one character; of a longer one the rest is passed as ordinary bytes.
                self.at = (self.at + 1).min(self.sql.len());
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    /// Passes `$tag$…$tag$`, or the `$` of a parameter.
    fn pass_dollar(&mut self) {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_some_and(is_first) {
            self.pass_while(|byte| byte != b'$' && is_inner(byte));
        }
        if self.peek(0) != Some(b'$') {
            // `$1`, or a stray sign: the sign alone.
            self.at = start + 1;
            return;
        }
        self.at += 1;
        let tag = &self.sql[start..self.at];
        let closing = find(&self.sql[self.at..], tag);
        self.at = closing.map_or(self.sql.len(), |closing| self.at + closing + tag.len());
    }
}

/// Returns where `tag`, which begins and ends with `$` and has no other, first occurs.
fn find(text: &[u8], tag: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let start = from + text[from..].iter().position(|byte| *byte == b'$')?;
        if text[start..].starts_with(tag) {
            return Some(start);
        }
        // Between two signs nothing is read twice but by one comparison, which ends at the next sign at the latest.
        from = start + 1;
    }
}

fn is_first(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_inner(byte: u8) -> bool {
    is_first(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    /// With `NOETL_TEST_LONG` set, mixtures are looked through for so long.
    const LONG: Duration = Duration::from_secs(600);

    fn texts(sql: &str) -> Vec<&str> {
        statements(sql).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_split_where_postgres_splits() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" \n\t ", &[]),
            (";;; ;", &[]),
            ("-- only a comment", &[]),
            ("/* a; /* b; */ c; */", &[]),
            ("select 1", &["select 1"]),
            ("select 1;", &["select 1"]),
            ("select 1; select 2", &["select 1", "select 2"]),
            (" a ;\n; b;; ", &["a", "b"]),
            ("select ';'; x", &["select ';'", "x"]),
            ("select 'it''s;'; x", &["select 'it''s;'", "x"]),
            // A backslash is nothing special in an ordinary text, and escapes in an E text.
            (r"select '\'; x", &[r"select '\'", "x"]),
            (r"select E'\';'; x", &[r"select E'\';'", "x"]),
            (r"select e'\\'; x", &[r"select e'\\'", "x"]),
            (r"select type'\'; x", &[r"select type'\'", "x"]),
            (r"select E'é\é;'; x", &[r"select E'é\é;'", "x"]),
            ("select \";\" from \"a\"\"b;\"; x", &["select \";\" from \"a\"\"b;\"", "x"]),
            ("select $$a;b$$; x", &["select $$a;b$$", "x"]),
            ("select $t$a;$$;$u$;b$t$; x", &["select $t$a;$$;$u$;b$t$", "x"]),
            ("select $ü$;$ü$; x", &["select $ü$;$ü$", "x"]),
            ("select $1; select $2", &["select $1", "select $2"]),
            ("select a$b; select c$b", &["select a$b", "select c$b"]),
            ("select $1$; x", &["select $1$", "x"]),
            (
                "insert into t values ($${\"a\": \"b;c\"}$$::jsonb); x",
                &["insert into t values ($${\"a\": \"b;c\"}$$::jsonb)", "x"],
            ),
            ("select 1 -- a; b\n, 2; x", &["select 1 -- a; b\n, 2", "x"]),
            ("-- first\nselect 1; -- last", &["select 1"]),
            ("select 1 /* ; */ + /* /* ; */ ; */ 2; x", &["select 1 /* ; */ + /* /* ; */ ; */ 2", "x"]),
            ("select 4/2; select 2*3; select 3--;\n-1", &["select 4/2", "select 2*3", "select 3--;\n-1"]),
            ("select '--'; select '/*'; x", &["select '--'", "select '/*'", "x"]),
            ("create rule r as on insert to t do (a; b); x", &["create rule r as on insert to t do (a; b)", "x"]),
            ("select 1); x", &["select 1)", "x"]),
            (
                "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; x",
                &[
                    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                    "x",
                ],
            ),
            ("BEGIN; COMMIT; END; x", &["BEGIN", "COMMIT", "END", "x"]),
            ("DO $$ BEGIN PERFORM 1; RAISE 'x;'; END $$; x", &["DO $$ BEGIN PERFORM 1; RAISE 'x;'; END $$", "x"]),
            // What never closes is one statement.
            ("select 'a; b", &["select 'a; b"]),
            ("select $$a; b", &["select $$a; b"]),
            ("select (1; b", &["select (1; b"]),
            ("select 1 /* a; b", &["select 1"]),
        ];
        for (sql, expected) in table {
            assert_eq!(texts(sql), *expected, "{sql}");
        }
    }

    #[test]
    fn words_tell_which_statements_may_have_rows() {
        let table = [
            ("SELECT 1", true),
            ("(select 1) union (select 2)", true),
            ("with x as (delete from t returning *) insert into u select * from x", true),
            ("insert into t values (1) RETURNING id", true),
            ("values (1)", true),
            ("show all", true),
            ("insert into t values ('returning')", false),
            ("create table t (\"returning\" int)", false),
            ("update t set a = 1", false),
            ("'select'", false),
        ];
        for (sql, expected) in table {
            assert_eq!(statements(sql)[0].may_return_rows, expected, "{sql}");
        }
    }

    #[test]
    fn places_count_lines_and_characters() {
        let sql = "select 'é',\n  ö.x";
        assert_eq!(place(sql, 0), (1, 1));
        assert_eq!(place(sql, sql.find(',').unwrap()), (1, 11));
        assert_eq!(place(sql, sql.find('x').unwrap()), (2, 5));
    }

    #[test]
    fn hostile_texts_end() {
        // A million signs: whatever takes time in the square of that does not end.
        for piece in ["$a", "$a$b", "$$", "/*", "*/", "'", "E'\\", "(", "$a$", "-- ", "a$", ";", "begin "] {
            let sql = piece.repeat(1_000_000 / piece.len());
            statements(&sql);
            statements(&format!("create function {sql}"));
        }
    }

    /// A piece of a statement that is whole in itself.
    fn piece() -> impl Strategy<Value = String> {
        let quoted =
            |quote: &'static str, inner: &'static str| inner.prop_map(move |text| format!("{quote}{text}{quote}"));
        prop_oneof![
            "[a-z_é]{1,8}",
            "[0-9]{1,4}",
            Just("$1".to_owned()),
            quoted("'", "[a-z;$\"\\\\ -]{0,8}('')?[;-]{0,3}"),
            quoted("\"", "[a-z;$' -]{1,8}"),
            "([a-z;$ \"-]|\\\\'|\\\\\\\\){0,8}".prop_map(|text| format!("E'{text}'")),
            quoted("$$", "[a-z;'\" -]{0,8}"),
            quoted("$t$", "[a-z;'\" -]{0,6}\\$?[a-s;]"),
            "[a-z;' ]{0,8}".prop_map(|text| format!("/* {text} /* ; */ */ x")),
            "[a-z;' ]{0,8}".prop_map(|text| format!("-- {text}\nx")),
            Just("(a; b)".to_owned()),
        ]
    }

    fn statement() -> impl Strategy<Value = String> {
        // It begins with a word, so that it begins where it seems to begin.
        ("[d-z][a-z]{0,5}", proptest::collection::vec(piece(), 0..6))
            .prop_map(|(first, pieces)| format!("{first} {}", pieces.join(" ")).trim_end().to_owned())
    }

    fn gap() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just(";"), Just(" ;\n"), Just(";;"), Just("; -- x; y\n"), Just(";/* ; */"), Just("; /**/ ;")]
    }

    /// Whatever means something to the splitter, whole or torn, in any order.
    fn mixture() -> impl Strategy<Value = String> {
        const TORN: &[&str] = &[
            "'",
            "''",
            "\"",
            "E'",
            "e'\\",
            "$$",
            "$t$",
            "$",
            "$1",
            "--",
            "\n",
            "/*",
            "*/",
            "(",
            ")",
            ";",
            ";;",
            "\\",
            "begin ",
            "atomic ",
            "end ",
            "case ",
            "create or replace function f() ",
            "create procedure p() ",
            "\0",
            "é",
            "returning ",
        ];
        let scrap = prop_oneof![4 => proptest::sample::select(TORN).prop_map(str::to_owned), 2 => piece(), 1 => any::<String>()];
        proptest::collection::vec(scrap, 0..200).prop_map(|scraps| scraps.concat())
    }

    /// What can be said of the statements of any text.
    fn kept_in_order_and_split_once(sql: &str) -> Result<(), TestCaseError> {
        let mut end = 0;
        for statement in statements(sql) {
            prop_assert!(statement.offset >= end && !statement.text.is_empty());
            end = statement.offset + statement.text.len();
            prop_assert_eq!(&sql[statement.offset..end], statement.text);
            prop_assert_eq!(texts(statement.text), vec![statement.text]);
        }
        Ok(())
    }

    /// What it finds is written to `proptest-regressions`, and tried first from then on.
    #[test]
    fn any_mixture_is_kept_in_order_and_splits_once() {
        let until = Instant::now() + LONG;
        let long = std::env::var_os("NOETL_TEST_LONG").is_some();
        loop {
            let config = Config { source_file: Some(file!()), ..Config::default() };
            let found = TestRunner::new(config).run(&mixture(), |sql| kept_in_order_and_split_once(&sql));
            assert!(found.is_ok(), "{}", found.unwrap_err());
            if !long || Instant::now() >= until {
                return;
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_joined_comes_apart_again(parts in proptest::collection::vec((statement(), gap()), 0..6)) {
            let sql: String = parts.iter().flat_map(|(statement, gap)| [statement.as_str(), *gap]).collect();
            let wanted: Vec<&str> = parts.iter().map(|(statement, _)| statement.as_str()).collect();
            prop_assert_eq!(texts(&sql), wanted);
        }

        #[test]
        fn any_text_is_kept_in_order_and_splits_once(sql in "([a-z;'\"$()\\\\*/é -]|E'|\\$t\\$|\n|begin |create function ){0,60}") {
            kept_in_order_and_split_once(&sql)?;
        }

        #[test]
        fn no_text_makes_it_panic(sql in any::<String>()) {
            statements(&sql);
        }
    }
}
