//! `duckdb`: SQL statements on a DuckDB database, in a process beside the worker.
//!
//! Configuration: `database`, a file or `:memory:` (default: a new one in memory for each call); `query`, `command`,
//! `commands` or `script` as in the tool `postgres`; `params`, values for `$1`, `$2`, … of a single statement. Data
//! has the shape of `postgres`, errors are hard with code `DUCKDB_<kind>`.
//!
//! The statements run in the slot's python interpreter, if that has the package `duckdb`; else by the command line
//! `duckdb`, which knows no parameters and counts no changed rows. Both stop as processes do.

use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::postgres::ROWS_BYTES_MAX;
use crate::slot::Slot;
use crate::sql::{self, Answer, Statement, statements};
use crate::stop::Brake;
use crate::{Outside, Settings, http, python};

mod command_line;

/// Python that runs statements and returns what they answered.
pub(crate) const STATEMENTS: &str = include_str!("statements.py");

/// What calls the program.
const ENTRY: &str = "\n\nreturn main(request)\n";

/// Runs the statements of a call.
pub(crate) async fn run(
    slot: &mut Slot,
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> ToolOutcome {
    let request = match request(settings, clients, call, brake, outside).await {
        Ok(request) => request,
        Err(outcome) => return *outcome,
    };
    let statements: Vec<Statement<'_>> = request.scripts.iter().flat_map(|script| statements(script)).collect();
    if !request.params.is_empty() && statements.len() > 1 {
        return refused("`params` belong to one statement, there are several");
    }
    let described: Vec<Value> = statements
        .iter()
        .map(|statement| json!({"sql": statement.text, "may_return_rows": statement.may_return_rows}))
        .collect();
    let input = json!({
        "database": request.database, "statements": described, "params": request.params, "bytes_max": ROWS_BYTES_MAX
    });
    let outcome = in_python(slot, settings, clients, call, STATEMENTS.to_owned() + ENTRY, input, brake, outside).await;
    let reply = match answer(outcome) {
        Ok(Ok(reply)) => reply,
        // Without an interpreter there may still be the command line.
        Ok(Err(missing)) => Reply { missing: Some(missing), ..Reply::default() },
        Err(outcome) => return *outcome,
    };
    match reply.missing {
        None => reply.into_outcome(),
        Some(missing) if request.params.is_empty() => {
            let settled = command_line::run(slot, settings, &request.database, &statements, brake, outside).await;
            settled.unwrap_or_else(|| ToolOutcome::failed(not_there(&missing), Value::Null))
        }
        Some(missing) => ToolOutcome::failed(not_there(&missing), Value::Null),
    }
}

/// What a call wants.
struct Request {
    database: String,
    scripts: Vec<String>,
    params: Vec<Value>,
}

async fn request(
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> Result<Request, Box<ToolOutcome>> {
    let refuse = |message: String| Box::new(refused(message));
    let database = database(&call.config).map_err(refuse)?;
    if ["auth", "gcs_credential"].iter().any(|key| call.config.get(*key).is_some_and(|value| !value.is_null())) {
        let message = "`auth` and `gcs_credential` give access to object stores, which is not supported: \
                       use files of the worker, or `transfer`";
        return Err(refuse(message.to_owned()));
    }
    let mut scripts = Vec::new();
    for source in sql::sources(&call.config).map_err(refuse)? {
        scripts.push(source.load(settings, clients, brake, outside, config_error).await?);
    }
    Ok(Request { database, scripts, params: sql::params(&call.config).map_err(refuse)? })
}

/// Returns the database that a mapping names.
pub(crate) fn database(config: &Map<String, Value>) -> Result<String, String> {
    match config.get("database") {
        None | Some(Value::Null) => Ok(":memory:".to_owned()),
        Some(Value::String(path)) if path.trim().is_empty() => Ok(":memory:".to_owned()),
        Some(Value::String(path)) => Ok(path.clone()),
        Some(_) => Err("`database` must be a path, or `:memory:`".to_owned()),
    }
}

/// Runs a program in the slot's interpreter, with one argument.
#[expect(clippy::too_many_arguments, reason = "all that a tool gets, and what it is to run")]
pub(crate) async fn in_python(
    slot: &mut Slot,
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    program: String,
    request: Value,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> ToolOutcome {
    let call = ToolCall {
        kind: "python".into(),
        config: [("code".to_owned(), program.into())].into_iter().collect(),
        input: [("request".to_owned(), request)].into_iter().collect(),
        context: Value::Null.into(),
        ..call.clone()
    };
    python::run(slot, settings, clients, &call, brake, outside).await
}

/// Reads what a program returned: its answer, or why there is no python. Whatever else happened to it is how the tool
/// ends, and hard.
pub(crate) fn answer<T: DeserializeOwned>(outcome: ToolOutcome) -> Result<Result<T, String>, Box<ToolOutcome>> {
    let failed = |error| Box::new(ToolOutcome { stopped: outcome.stopped, ..ToolOutcome::failed(error, Value::Null) });
    match outcome.error {
        None => serde_json::from_value(outcome.data).map(Ok).map_err(|error| {
            let message = format!("the answer of the python process can not be read: {error}");
            failed(ToolError::hard(ErrorKind::Unknown, "DUCKDB_ANSWER", message))
        }),
        Some(error) if error.code == "NOT_STARTED" => Ok(Err(error.message)),
        // A stop is as soft as with every tool.
        Some(error) if outcome.stopped.is_some() => Err(failed(error)),
        Some(error) => Err(failed(ToolError { hard: true, ..error })),
    }
}

/// What the program returns.
#[derive(Debug, Default, Deserialize)]
struct Reply {
    #[serde(default)]
    answers: Vec<Answer>,
    error: Option<Raised>,
    #[serde(default)]
    too_large: bool,
    missing: Option<String>,
}

/// An exception of the package.
#[derive(Debug, Deserialize)]
pub(crate) struct Raised {
    #[serde(rename = "type")]
    class: String,
    message: String,
}

impl Reply {
    fn into_outcome(self) -> ToolOutcome {
        let index = self.answers.len();
        let data = sql::data(self.answers);
        match self.error {
            _ if self.too_large => ToolOutcome::failed(too_large(), data),
            Some(raised) => ToolOutcome::failed(raised.into_error().with("statement", index), data),
            None => ToolOutcome::ok(data),
        }
    }
}

impl Raised {
    /// Returns the error that a tool ends with.
    pub(crate) fn into_error(self) -> ToolError {
        let Raised { class, message } = self;
        let name = class.strip_suffix("Exception").unwrap_or(&class);
        error_named(name, message)
    }
}

/// Returns the error of what DuckDB calls `name`: `Parser`, `Catalog`, ….
fn error_named(name: &str, message: String) -> ToolError {
    let (kind, is_retryable) = match name {
        "Parser" | "Syntax" => (ErrorKind::Parse, false),
        "Catalog" => (ErrorKind::NotFound, false),
        "Conversion" | "InvalidInput" | "Invalid Input" | "OutOfRange" | "Out of Range" | "TypeMismatch" => {
            (ErrorKind::Schema, false)
        }
        "Constraint" => (ErrorKind::DbConstraint, false),
        "Transaction" | "TransactionContext" => (ErrorKind::DbDeadlock, true),
        // Above all: another process has the file.
        "IO" | "Connection" => (ErrorKind::DbConnection, true),
        "OutOfMemory" | "Out of Memory" => (ErrorKind::Limit, false),
        "Permission" => (ErrorKind::Auth, false),
        "Internal" | "Fatal" => (ErrorKind::ServerError, false),
        _ => (ErrorKind::ClientError, false),
    };
    let code = format!("DUCKDB_{}", name.to_ascii_uppercase().replace(' ', "_"));
    let error = ToolError::hard(kind, code, message);
    if is_retryable { error.retryable() } else { error }
}

fn too_large() -> ToolError {
    let message =
        format!("the rows exceed the limit of {ROWS_BYTES_MAX} bytes: add a LIMIT, or write them to a file with COPY");
    ToolError::hard(ErrorKind::Limit, "RESULT_TOO_LARGE", message)
}

/// Returns the error where nothing can run DuckDB's SQL.
pub(crate) fn not_there(why: &str) -> ToolError {
    let message = format!(
        "there is no DuckDB here: install the python package (`pip install duckdb pytz`) for the worker's interpreter, \
         or put the command line `duckdb` on its PATH ({why})"
    );
    ToolError::hard(ErrorKind::Config, "DUCKDB_MISSING", message)
}

fn refused(message: impl Into<String>) -> ToolOutcome {
    ToolOutcome::failed(config_error(message), Value::Null)
}

fn config_error(message: impl Into<String>) -> ToolError {
    ToolError::hard(ErrorKind::Config, "DUCKDB_CONFIG", message)
}
