//! `python`: code in a warm interpreter, of python 3.8 or newer.
//!
//! Configuration: `code`, a text, or `script: {uri, source: {type: inline | file | http, …}}`; `libs`, a mapping of
//! alias to module or to `{from, import}`, or a list of names; `args`, further arguments below the rendered input.
//! A script over HTTP comes from `uri`, or from `source.endpoint` with `uri` as the path below it, by
//! `source.method`, `headers`, `params`, `auth`, `verify_ssl` as in the tool `http`, within `source.timeout` seconds.
//!
//! The arguments are globals of the code, which also finds `input_data` (all of them, unless one has that name),
//! `args`, `variables` (the execution's `ctx`), `context` (the flat names, and `args`, `variables`, `execution_id`,
//! `step`, `server_url`), `execution_id`, `step`, and the modules json, sys, os, datetime and uuid. Behind all of them stand the flat
//! names themselves, unless python has a built-in of that name. All are copies.
//!
//! The result is the value of a top-level `return`, else the variable `result`, else what `main` returns (called
//! with the arguments it has parameters for, awaited if it is a coroutine), else `{stdout, stderr}`. A set becomes
//! a list, a Decimal a number if the number has the same digits and else a text, anything else JSON does not know
//! its `str()`. NaN and infinite numbers are refused: JSON has no such number, and the store would not take one.
//! Integers beyond 64 bits become floating-point numbers.
//!
//! An exception is a soft error, code `PYTHON_EXCEPTION`. How the interpreter stays clean: `runner.py`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::process::wire::{Ended, Exit};
use crate::slot::{Slot, cut_short, stopped};
use crate::stop::Brake;
use crate::{Outside, Settings, http};

mod interpreter;

pub(crate) use interpreter::Interpreter;
use interpreter::{Execution, Outcome};

/// Longest script file.
pub(crate) const SCRIPT_BYTES_MAX: u64 = 4 << 20;
/// Most of what an interpreter printed before it ended that its error repeats: lines, and bytes.
const LAST_LINES_MAX: usize = 20;
const LAST_LINES_BYTES_MAX: usize = 2 << 10;
/// Longest piece of it in the message.
const REASON_CHARS_MAX: usize = 200;

/// Runs the code of a call.
pub(crate) async fn run(
    slot: &mut Slot,
    settings: &Settings,
    clients: &http::Clients,
    call: &ToolCall,
    brake: &mut Brake,
    outside: Outside<'_>,
) -> ToolOutcome {
    let log = outside.log;
    let plan = match plan(&call.config) {
        Ok(plan) => plan,
        Err(message) => return ToolOutcome::failed(config_error(message), Value::Null),
    };
    let code = match plan.source.load(settings, clients, brake, outside, config_error).await {
        Ok(code) => code,
        Err(outcome) => return *outcome,
    };
    let args = if plan.args.is_empty() {
        Cow::Borrowed(&call.input)
    } else {
        Cow::Owned(plan.args.into_iter().chain(call.input.clone()).collect())
    };
    let command = Command {
        code: &code,
        step: &call.step,
        execution_id: call.execution_id.to_string(),
        server_url: settings.server_url.as_deref(),
        args: &args,
        context: &call.context,
        libs: &plan.libs,
        wishes: &plan.wishes,
    };
    match interpreter::execute(slot, settings, &command, brake, log).await {
        Ok(execution) => outcome(execution, brake),
        Err(failure) => slot.give_up(failure).await,
    }
}

/// One command as the interpreter reads it.
#[derive(Debug, Serialize)]
struct Command<'a> {
    code: &'a str,
    step: &'a str,
    execution_id: String,
    server_url: Option<&'a str>,
    args: &'a Map<String, Value>,
    context: &'a Value,
    libs: &'a [(String, Library)],
    wishes: &'a [String],
}

/// A module, or a name in it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Library(String, Option<String>);

#[derive(Debug, PartialEq)]
struct Plan {
    source: Source,
    args: Map<String, Value>,
    /// What must be imported, by alias.
    libs: Vec<(String, Library)>,
    /// What is imported if it is there: names of packages, which need not be names of modules.
    wishes: Vec<String>,
}

/// Where code comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    Text(String),
    /// Relative to the tools' directory.
    File(PathBuf),
    /// Where a web server has it, as the tool `http` would ask.
    Remote {
        request: Map<String, Value>,
        limit_ms: u64,
    },
}

fn plan(config: &Map<String, Value>) -> Result<Plan, String> {
    let code = config.get("code").filter(|code| !code.is_null());
    let script = config.get("script").filter(|script| !script.is_null());
    let source = match (code, script) {
        (Some(Value::String(code)), None) => Source::Text(code.clone()),
        (Some(_), None) => return Err("`code` must be a text".to_owned()),
        (None, Some(script)) => script_source(script)?,
        (Some(_), Some(_)) => return Err("`code` and `script` exclude each other: give one of them".to_owned()),
        (None, None) => return Err("`code` or `script` is missing: give the code to run".to_owned()),
    };
    let args = match config.get("args") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(_) => return Err("`args` must be a mapping of names to values".to_owned()),
    };
    let (libs, wishes) = libraries(config.get("libs"))?;
    Ok(Plan { source, args, libs, wishes })
}

/// Reads a `script` mapping.
pub(crate) fn script_source(script: &Value) -> Result<Source, String> {
    let text = |value: Option<&Value>, key: &str| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{key}` must be a text")),
    };
    let Value::Object(script) = script else {
        return Err("`script` must be a mapping: {uri, source: {type: inline | file | http}}".to_owned());
    };
    let empty = Map::new();
    let source = match script.get("source") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(source)) => source,
        Some(_) => return Err("`script.source` must be a mapping: {type: inline | file | http}".to_owned()),
    };
    let uri = text(script.get("uri"), "script.uri")?;
    let code = text(source.get("code").or_else(|| script.get("code")), "script.source.code")?;
    let kind = match text(source.get("type"), "script.source.type")? {
        Some(kind) => kind,
        None if code.is_some() => "inline".to_owned(),
        None => match uri.as_deref().and_then(|uri| uri.split_once("://")) {
            Some((scheme, _)) => scheme.to_owned(),
            None => "file".to_owned(),
        },
    };
    match kind.as_str() {
        "inline" => match code {
            Some(code) => Ok(Source::Text(code)),
            None => Err("`script.source.code` is missing: an inline script needs its code".to_owned()),
        },
        "file" => match uri {
            Some(uri) => Ok(Source::File(PathBuf::from(uri.strip_prefix("file://").unwrap_or(&uri)))),
            None => Err("`script.uri` is missing: give the path of the file".to_owned()),
        },
        "http" | "https" => {
            let endpoint = text(source.get("endpoint").or_else(|| source.get("url")), "script.source.endpoint")?;
            let url = script_url(endpoint.as_deref(), uri.as_deref())?;
            let mut request: Map<String, Value> = ["method", "headers", "params", "auth", "verify_ssl"]
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), source.get(*key)?.clone())))
                .collect();
            request.insert("url".to_owned(), url.into());
            Ok(Source::Remote { request, limit_ms: limit_ms(source.get("timeout"))? })
        }
        "gs" | "gcs" | "s3" => Err(format!(
            "scripts in object stores (`{kind}`) are not supported: use inline, file or http, for example with a \
             signed address"
        )),
        other => Err(format!("scripts can not be loaded from `{other}`: use inline, file or http")),
    }
}

/// Returns where a script is: `uri` if that is a whole address, else the path `uri` below the endpoint.
fn script_url(endpoint: Option<&str>, uri: Option<&str>) -> Result<String, String> {
    match (endpoint, uri.filter(|uri| !uri.is_empty())) {
        (_, Some(uri)) if uri.starts_with("http://") || uri.starts_with("https://") => Ok(uri.to_owned()),
        (Some(endpoint), Some(uri)) => {
            let below = uri.trim_start_matches("./").trim_start_matches('/');
            Ok(format!("{}/{below}", endpoint.trim_end_matches('/')))
        }
        (Some(endpoint), None) => Ok(endpoint.to_owned()),
        (None, Some(_)) => Err("`script.uri` is no whole address, and `script.source.endpoint` is missing".to_owned()),
        (None, None) => Err("`script.uri` is missing: give the address of the script".to_owned()),
    }
}

fn limit_ms(timeout: Option<&Value>) -> Result<u64, String> {
    let seconds = match timeout {
        None | Some(Value::Null) => return Ok(http::TIMEOUT_DEFAULT_MS),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    match seconds.filter(|seconds| *seconds > 0.0) {
        Some(seconds) => Ok((seconds * 1000.0) as u64),
        None => Err("`script.source.timeout` must be a number of seconds".to_owned()),
    }
}

type Libraries = (Vec<(String, Library)>, Vec<String>);

fn libraries(libs: Option<&Value>) -> Result<Libraries, String> {
    let refuse = || "`libs` must map aliases to modules or to {from, import}, or be a list of names".to_owned();
    match libs {
        None | Some(Value::Null) => Ok((Vec::new(), Vec::new())),
        Some(Value::Object(libs)) => {
            let library = |library: &Value| match library {
                Value::String(module) => Some(Library(module.clone(), None)),
                Value::Object(import) => {
                    let name = |key| import.get(key).and_then(Value::as_str).map(str::to_owned);
                    match (name("from"), name("import")) {
                        (Some(module), imported) => Some(Library(module, imported)),
                        (None, Some(module)) => Some(Library(module, None)),
                        (None, None) => None,
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
            };
            let libs: Option<_> = libs.iter().map(|(alias, value)| Some((alias.clone(), library(value)?))).collect();
            Ok((libs.ok_or_else(refuse)?, Vec::new()))
        }
        Some(Value::Array(names)) => {
            let names: Option<_> = names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            Ok((Vec::new(), names.ok_or_else(refuse)?))
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Err(refuse()),
    }
}

impl Source {
    /// Returns the code itself. `refuse` makes the error of a file that can not be used.
    pub(crate) async fn load(
        self,
        settings: &Settings,
        clients: &http::Clients,
        brake: &mut Brake,
        outside: Outside<'_>,
        refuse: fn(String) -> ToolError,
    ) -> Result<String, Box<ToolOutcome>> {
        match self {
            Source::Text(code) => Ok(code),
            Source::File(path) => {
                let read = read_script(&settings.directory.join(path)).await;
                read.map_err(|message| Box::new(ToolOutcome::failed(refuse(message), Value::Null)))
            }
            Source::Remote { request, limit_ms } => {
                http::text(clients, &request, limit_ms, SCRIPT_BYTES_MAX, brake, outside).await
            }
        }
    }
}

async fn read_script(path: &Path) -> Result<String, String> {
    let refuse = |why: String| format!("script {} can not be used: {why}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(|error| refuse(error.to_string()))?.len();
    if size > SCRIPT_BYTES_MAX {
        return Err(refuse(format!("{size} bytes exceed the limit of {SCRIPT_BYTES_MAX}")));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| refuse(error.to_string()))
}

fn outcome(execution: Execution, brake: &Brake) -> ToolOutcome {
    let Execution { began, outcome, interrupted, ended, stdout, stderr } = execution;
    let answered = !matches!(outcome, None | Some(Outcome::Started | Outcome::Interrupted));
    let made = match outcome {
        Some(Outcome::Value(value)) => match serde_json::from_str(value.get()) {
            Ok(data) => ToolOutcome::ok(data),
            Err(error) => {
                let message = match error.to_string() {
                    why if why.starts_with("recursion limit") => "the result is nested too deeply".to_owned(),
                    why => format!("the result can not be kept as JSON: {why}"),
                };
                ToolOutcome::failed(ToolError::soft(ErrorKind::Schema, "RESULT_NOT_JSON", message), Value::Null)
            }
        },
        Some(Outcome::Printed) => ToolOutcome::ok(json!({"stdout": stdout, "stderr": stderr})),
        Some(Outcome::Raised { exception_type, message, exit_code }) => {
            let mut error = ToolError::soft(ErrorKind::Code, "PYTHON_EXCEPTION", message)
                .with("exception_type", exception_type.as_str());
            if let Some(exit_code) = exit_code {
                error = error.with("exit_code", exit_code);
            }
            let py = Some(json!({"exception_type": exception_type}));
            ToolOutcome { py, ..ToolOutcome::failed(error, Value::Null) }
        }
        Some(Outcome::Refused { code, message }) => {
            let kind = if code == "RESULT_TOO_LARGE" { ErrorKind::Limit } else { ErrorKind::Schema };
            ToolOutcome::failed(ToolError::soft(kind, code, message), Value::Null)
        }
        Some(Outcome::Started | Outcome::Interrupted) | None => {
            // What the code itself printed is no part of an error: it may be a secret.
            let last_words = if began { "" } else { last_lines(&stderr) };
            ToolOutcome::failed(vanished(ended.as_ref(), last_words), Value::Null)
        }
    };
    match (brake.cause(), &ended) {
        // It was told to end before it was done. What it still returned on its way out is kept.
        (Some(cause), Some(ended)) if interrupted || !answered => {
            ToolOutcome { stopped: stopped(ended), ..ToolOutcome::failed(cut_short(cause, ended), made.data) }
        }
        // It was done before it heard of any order; what ended afterwards is its interpreter.
        (_, Some(ended)) if !ended.unconfirmed.is_empty() => ToolOutcome { stopped: stopped(ended), ..made },
        (_, Some(_) | None) => made,
    }
}

/// Returns the error of code that took its interpreter with it, or of an interpreter that ended before any code ran,
/// with what it said then.
fn vanished(ended: Option<&Ended>, last_words: &str) -> ToolError {
    let reason = last_words.lines().last().unwrap_or_default();
    let reason: String = reason.trim().chars().take(REASON_CHARS_MAX).collect();
    let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
    let error = |message: String| ToolError::soft(ErrorKind::Code, "PYTHON_EXITED", message + &reason);
    let error = match ended.and_then(|ended| ended.exit) {
        Some(Exit::Status(status)) => {
            error(format!("the python process ended with status {status} before the code was done"))
                .with("exit_code", status)
        }
        Some(Exit::Signal(signal)) => {
            error(format!("the python process was ended by signal {signal}")).with("signal", signal)
        }
        None => error("the python process gave no answer and left no status".to_owned()),
    };
    if last_words.is_empty() { error } else { error.with("stderr", last_words) }
}

/// Returns the end of what was printed.
fn last_lines(printed: &str) -> &str {
    let printed = printed.trim_end();
    let from = printed.ceil_char_boundary(printed.len().saturating_sub(LAST_LINES_BYTES_MAX));
    let end = &printed[from..];
    match end.rmatch_indices('\n').nth(LAST_LINES_MAX - 1) {
        Some((at, _)) => &end[at + 1..],
        None => end,
    }
}

fn config_error(message: String) -> ToolError {
    ToolError::hard(ErrorKind::Config, "PYTHON_CONFIG", message)
}
