//! The manifest: which playbooks to run, how, and what must hold afterwards.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Fault;
use crate::check::Operator;

/// Limit for reaching a terminal status when an entry names none, in seconds.
const TIMEOUT_SECONDS_DEFAULT: u64 = 60;

/// Something that an entry needs besides the binary and python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// Nothing.
    None,
    /// The test database.
    Postgres,
    /// The HTTP test server.
    Http,
    /// DuckDB, reached by the tool of that name.
    Duckdb,
}

/// How an entry has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Expected {
    /// The execution completes.
    Completed,
    /// The execution fails.
    Failed,
    /// Registration is refused.
    Rejected,
}

impl Expected {
    /// Returns the status as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Expected::Completed => "COMPLETED",
            Expected::Failed => "FAILED",
            Expected::Rejected => "REJECTED",
        }
    }
}

/// Something to do right before a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setup {
    /// Statements for the test database.
    Sql(String),
    /// A request to the HTTP test server.
    Http(Request),
}

/// A method and a path on the HTTP test server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// With a leading slash; may hold a query.
    pub path: String,
}

/// A literal replacement in the text of the playbook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The text as it stands in the file.
    pub from: String,
    /// What stands there instead; may hold placeholders.
    pub to: String,
}

/// Where a check finds its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The result data of a step.
    Step(String),
    /// The first column of the first row.
    Sql(String),
    /// The JSON answer of the HTTP test server.
    Http(Request),
}

/// Something that must hold after the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// An operator holds for a value.
    Value {
        /// Where the value is.
        subject: Subject,
        /// Dotted path into it.
        path: Option<String>,
        /// What must be true of it.
        operator: Operator,
    },
    /// The log has exactly so many such events.
    Events {
        /// Such as `step.enter`.
        event_type: String,
        /// The step.
        node_name: String,
        /// How many.
        count: usize,
    },
}

/// One run and its checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Unique name.
    pub id: String,
    /// Playbook, relative to `playbooks/`.
    pub file: String,
    /// Catalog path.
    pub path: String,
    /// What it needs.
    pub requires: Vec<Requirement>,
    /// Modules that the playbook's own python imports.
    pub python_modules: Vec<String>,
    /// Children, registered before.
    pub register_first: Vec<String>,
    /// Entries that must have run before.
    pub run_after: Vec<String>,
    /// What to do right before.
    pub setup: Vec<Setup>,
    /// Replacements in the playbook's text.
    pub rewrite: Vec<Rewrite>,
    /// Aliases that must exist.
    pub credentials: Vec<String>,
    /// Payload of the execution.
    pub payload: Map<String, Value>,
    /// Limit for reaching a terminal status.
    pub timeout: Duration,
    /// How it has to end.
    pub expected: Expected,
    /// What must hold afterwards.
    pub checks: Vec<Check>,
}

/// Reads `manifest.yaml` of the folder.
pub fn load(folder: &Path) -> Result<Vec<Entry>, Fault> {
    let file = folder.join("manifest.yaml");
    let text = std::fs::read_to_string(&file).map_err(Fault::while_doing(format!("read {}", file.display())))?;
    parse(&text).map_err(|fault| Fault(format!("{}: {fault}", file.display())))
}

/// Reads the text of a manifest.
pub fn parse(text: &str) -> Result<Vec<Entry>, Fault> {
    // Scalars as the authors' own YAML reader takes them: a plain `n` or `0123` is text.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    let file: ManifestFile =
        serde_saphyr::from_str_with_options(text, options).map_err(Fault::while_doing("not a manifest"))?;
    let mut entries: Vec<Entry> = Vec::with_capacity(file.entries.len());
    for raw in file.entries {
        if entries.iter().any(|entry| entry.id == raw.id) {
            return Err(Fault(format!("two entries are called `{}`", raw.id)));
        }
        let id = raw.id.clone();
        let entry = raw.lower().map_err(|reason| Fault(format!("entry `{id}`: {reason}")))?;
        // Order is a promise of the file: what an entry builds on stands before it.
        if let Some(before) = entry.run_after.iter().find(|before| !entries.iter().any(|entry| entry.id == **before)) {
            return Err(Fault(format!("entry `{id}`: runs after `{before}`, which does not stand before it")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[derive(Deserialize)]
struct ManifestFile {
    entries: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    id: String,
    file: String,
    path: String,
    #[serde(default, rename = "core")]
    _core: bool,
    #[serde(default, rename = "difficulty")]
    _difficulty: Option<String>,
    #[serde(default, rename = "covers")]
    _covers: Option<String>,
    #[serde(default, rename = "notes")]
    _notes: Option<String>,
    #[serde(default)]
    requires: Vec<Requirement>,
    #[serde(default)]
    python_modules: Vec<String>,
    #[serde(default)]
    register_first: Vec<String>,
    #[serde(default)]
    run_after: Vec<String>,
    #[serde(default)]
    setup: Vec<Map<String, Value>>,
    #[serde(default)]
    rewrite: Vec<Rewrite>,
    #[serde(default)]
    credentials: Vec<String>,
    #[serde(default)]
    payload: Map<String, Value>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    expected: Expected,
    #[serde(default)]
    checks: Vec<Map<String, Value>>,
}

impl RawEntry {
    fn lower(self) -> Result<Entry, String> {
        let number = |what: &str, index: usize, reason: String| format!("{what} {}: {reason}", index + 1);
        let setup = self.setup.into_iter().enumerate();
        let setup = setup.map(|(index, raw)| lower_setup(raw).map_err(|reason| number("setup", index, reason)));
        let checks = self.checks.into_iter().enumerate();
        let checks = checks.map(|(index, raw)| lower_check(raw).map_err(|reason| number("check", index, reason)));
        Ok(Entry {
            setup: setup.collect::<Result<_, _>>()?,
            checks: checks.collect::<Result<_, _>>()?,
            timeout: Duration::from_secs(self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS_DEFAULT)),
            id: self.id,
            file: self.file,
            path: self.path,
            requires: self.requires,
            python_modules: self.python_modules,
            register_first: self.register_first,
            run_after: self.run_after,
            rewrite: self.rewrite,
            credentials: self.credentials,
            payload: self.payload,
            expected: self.expected,
        })
    }
}

fn lower_setup(mut raw: Map<String, Value>) -> Result<Setup, String> {
    let setup = match (take_text(&mut raw, "sql")?, take_text(&mut raw, "http")?) {
        (Some(sql), None) => Setup::Sql(sql),
        (None, Some(request)) => Setup::Http(parse_request(&request)?),
        (None, None) | (Some(_), Some(_)) => return Err("needs either `sql` or `http`".to_owned()),
    };
    all_taken(&raw)?;
    Ok(setup)
}

fn lower_check(mut raw: Map<String, Value>) -> Result<Check, String> {
    if let Some(event) = raw.remove("event") {
        let check = lower_event_check(event, raw.remove("count").as_ref())?;
        all_taken(&raw)?;
        return Ok(check);
    }
    let step = take_text(&mut raw, "step")?.map(Subject::Step);
    let sql = take_text(&mut raw, "sql")?.map(Subject::Sql);
    let http = take_text(&mut raw, "http")?.map(|request| parse_request(&request)).transpose()?.map(Subject::Http);
    let mut subjects = [step, sql, http].into_iter().flatten();
    let (Some(subject), None) = (subjects.next(), subjects.next()) else {
        return Err("needs one of `step`, `sql`, `http`, `event`".to_owned());
    };
    let path = take_text(&mut raw, "path")?;
    let operator = take_operator(&mut raw)?;
    all_taken(&raw)?;
    Ok(Check::Value { subject, path, operator })
}

fn lower_event_check(event: Value, count: Option<&Value>) -> Result<Check, String> {
    let Value::Object(mut event) = event else { return Err("`event` must be a mapping".to_owned()) };
    let event_type = take_text(&mut event, "event_type")?.ok_or("`event` needs `event_type`")?;
    let node_name = take_text(&mut event, "node_name")?.ok_or("`event` needs `node_name`")?;
    all_taken(&event)?;
    let count = count.and_then(as_count).ok_or("an `event` check needs a `count`")?;
    Ok(Check::Events { event_type, node_name, count })
}

fn take_operator(raw: &mut Map<String, Value>) -> Result<Operator, String> {
    let equals = raw.remove("equals").map(Operator::Equals);
    let contains = raw.remove("contains").map(Operator::Contains);
    let length = match raw.remove("length") {
        Some(length) => Some(Operator::Length(as_count(&length).ok_or("`length` must be a count")?)),
        None => None,
    };
    let exists = match raw.remove("exists") {
        Some(exists) => Some(Operator::Exists(exists.as_bool().ok_or("`exists` must be true or false")?)),
        None => None,
    };
    let mut operators = [equals, contains, length, exists].into_iter().flatten();
    match (operators.next(), operators.next()) {
        (Some(operator), None) => Ok(operator),
        (None, _) | (Some(_), Some(_)) => Err("needs one of `equals`, `contains`, `length`, `exists`".to_owned()),
    }
}

fn take_text(raw: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match raw.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` must be text, is {other}")),
    }
}

fn as_count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

/// Refuses what nobody asked for: a key that is read over would be a check that is not made.
fn all_taken(raw: &Map<String, Value>) -> Result<(), String> {
    match raw.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("unknown key `{key}`")),
    }
}

fn parse_request(text: &str) -> Result<Request, String> {
    match text.trim().split_once(' ') {
        Some((method, path)) if path.trim().starts_with('/') => {
            Ok(Request { method: method.to_owned(), path: path.trim().to_owned() })
        }
        Some(_) | None => Err(format!("`{text}` must be `METHOD /path`")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENTRY: &str = "
version: 1
entries:
- id: one
  file: a/b.yaml
  path: tests/one
  requires: [postgres, http]
  credentials: [pg_local]
  setup:
    - {sql: 'DROP TABLE x'}
    - {http: POST /api/v1/flaky/reset}
  rewrite: [{from: 'https://h', to: '${HTTP_URL}'}]
  payload: {page: 2, open: false, name: \"It's {{ not }} a template\"}
  timeout_seconds: 90
  expected: COMPLETED
  checks:
    - {step: a, path: rows.0.n, equals: 2.0}
    - {step: b, contains: {none: null, list: []}}
    - {step: n, path: 0123, exists: false}
    - {sql: 'SELECT 1', equals: 1}
    - {http: GET /x?y=1, path: items, length: 1}
    - {event: {event_type: step.enter, node_name: a}, count: 0}
";

    fn entry_with(line: &str) -> Result<Vec<Entry>, Fault> {
        parse(&format!("entries:\n- {{id: x, file: f, path: p, expected: FAILED, checks: [{line}]}}\n"))
    }

    #[test]
    fn an_entry_is_read_with_all_that_it_says() {
        let entries = parse(ENTRY).unwrap();
        let [entry] = entries.as_slice() else { panic!("one entry") };
        assert_eq!(entry.requires, [Requirement::Postgres, Requirement::Http]);
        assert_eq!(entry.timeout, Duration::from_secs(90));
        assert_eq!(
            Value::Object(entry.payload.clone()),
            json!({"page": 2, "open": false, "name": "It's {{ not }} a template"})
        );
        let reset = Request { method: "POST".to_owned(), path: "/api/v1/flaky/reset".to_owned() };
        assert_eq!(entry.setup, [Setup::Sql("DROP TABLE x".to_owned()), Setup::Http(reset)]);
        assert_eq!(
            entry.checks[0],
            Check::Value {
                subject: Subject::Step("a".to_owned()),
                path: Some("rows.0.n".to_owned()),
                operator: Operator::Equals(json!(2.0)),
            }
        );
        assert_eq!(
            entry.checks[1],
            Check::Value {
                subject: Subject::Step("b".to_owned()),
                path: None,
                operator: Operator::Contains(json!({"none": null, "list": []})),
            }
        );
        assert_eq!(
            entry.checks[2],
            Check::Value {
                subject: Subject::Step("n".to_owned()),
                path: Some("0123".to_owned()),
                operator: Operator::Exists(false),
            }
        );
        assert_eq!(
            entry.checks[5],
            Check::Events { event_type: "step.enter".to_owned(), node_name: "a".to_owned(), count: 0 }
        );
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let entries = parse("entries:\n- {id: x, file: f, path: p, expected: REJECTED}\n").unwrap();
        assert_eq!(entries[0].timeout, Duration::from_secs(TIMEOUT_SECONDS_DEFAULT));
        assert_eq!(entries[0].expected, Expected::Rejected);
        assert!(entries[0].payload.is_empty() && entries[0].checks.is_empty());
    }

    #[test]
    fn a_check_that_is_not_understood_is_an_error_and_not_a_check_that_passes() {
        let cases = [
            ("{step: a, equal: 1}", "needs one of `equals`"),
            ("{step: a, equals: 1, exists: true}", "needs one of `equals`"),
            ("{step: a, sql: b, equals: 1}", "needs one of `step`"),
            ("{path: a, equals: 1}", "needs one of `step`"),
            ("{step: a, equals: 1, when: never}", "unknown key `when`"),
            ("{step: a, length: many}", "`length` must be a count"),
            ("{http: /x, equals: 1}", "must be `METHOD /path`"),
            ("{event: {event_type: a, node_name: b}}", "needs a `count`"),
            ("{event: {event_type: a, node_name: b, status: c}, count: 1}", "unknown key `status`"),
        ];
        for (line, wanted) in cases {
            let fault = entry_with(line).unwrap_err();
            assert!(fault.0.contains(wanted), "{line}: {fault}");
            assert!(fault.0.contains("entry `x`: check 1"), "{fault}");
        }
    }

    #[test]
    fn an_entry_may_only_build_on_an_earlier_one() {
        let text = "entries:\n- {id: b, file: f, path: p, expected: FAILED, run_after: [a]}\n\
                    - {id: a, file: f, path: p, expected: FAILED}\n";
        assert!(parse(text).unwrap_err().0.contains("runs after `a`"));
    }

    #[test]
    fn the_published_manifest_is_read_completely_where_it_is_at_hand() {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
        let folder = std::env::var_os("NOETL_CONFORMANCE_DIR").map_or(beside, Into::into);
        if !folder.join("manifest.yaml").exists() {
            return;
        }
        let entries = load(&folder).unwrap();
        assert_eq!(entries.len(), 56);
        assert_eq!(entries.iter().map(|entry| entry.checks.len()).sum::<usize>(), 231);
        for entry in &entries {
            assert!(folder.join("playbooks").join(&entry.file).exists(), "{}", entry.file);
        }
    }
}
