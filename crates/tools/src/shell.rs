//! `shell`: commands for `/bin/sh`, or for bash.
//!
//! Configuration: `cmds`, a list, or `command` / `cmd`, a text (a list is accepted there too); `shell`: `sh`
//! (default) or `bash`; `env`, a mapping; `cwd`. The items of a list run in order in one shell, so `cd` and
//! variables carry over; the first that fails ends it. Every rendered input that is text, a number or a boolean is
//! an environment variable of its name (null, lists and mappings are not; `env` wins over an input, both win over
//! what the worker exposes).
//!
//! Data: `{exit_code, stdout, stderr}`. A status other than 0 is a soft error, code `EXIT_<status>`; an end by a
//! signal has the status that shells give it, 128 + its number.

use std::path::PathBuf;

use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Map, Value, json};

use crate::Settings;
use crate::output::LogSink;
use crate::process::wire::{Exit, How, Role, Start};
use crate::slot::{Finished, Slot, cut_short, stopped};
use crate::stop::Brake;

/// Runs each argument as one command; stops at the first that fails.
///
/// `eval` and not a joined text: an item with a syntax error must not swallow its neighbours. No `||` around it:
/// that would switch off a `set -e` inside.
const RUN_IN_ORDER: &str = "for _noetl_command in \"$@\"; do eval \"$_noetl_command\"; _noetl_status=$?; \
                            [ \"$_noetl_status\" -eq 0 ] || exit \"$_noetl_status\"; done";

/// Longest piece of stderr that an error message repeats.
const REASON_CHARS_MAX: usize = 200;

/// Runs the commands of a call.
pub(crate) async fn run(
    slot: &mut Slot,
    settings: &Settings,
    call: &ToolCall,
    brake: &mut Brake,
    log: &dyn LogSink,
) -> ToolOutcome {
    let plan = match plan(&call.config, &call.input) {
        Ok(plan) => plan,
        Err(message) => return ToolOutcome::failed(config_error(message), Value::Null),
    };
    let directory = settings.directory.join(&plan.directory);
    if !directory.is_dir() {
        let message = format!("`cwd` names {}, which is no directory on the worker", directory.display());
        return ToolOutcome::failed(config_error(message), Value::Null);
    }
    let mut env = settings.env.clone();
    env.retain(|(name, _)| !plan.env.iter().any(|(set, _)| set == name));
    env.extend(plan.env);
    let start = Start {
        role: Role::Task,
        program: plan.program.to_owned(),
        args: plan.args,
        env,
        directory: directory.to_string_lossy().into_owned(),
    };
    match slot.run_task(settings, start, brake, log).await {
        Ok(finished) => outcome(finished, brake),
        Err(failure) => slot.give_up(failure).await,
    }
}

/// What to start.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    program: &'static str,
    args: Vec<String>,
    /// Variables beyond those that every tool sees.
    env: Vec<(String, String)>,
    directory: PathBuf,
}

fn plan(config: &Map<String, Value>, input: &Map<String, Value>) -> Result<Plan, String> {
    let program = match config.get("shell").map(|shell| shell.as_str().unwrap_or_default()) {
        None | Some("sh" | "/bin/sh") => "/bin/sh",
        Some("bash" | "/bin/bash") => "bash",
        Some(_) => return Err("`shell` must be `sh` or `bash`".to_owned()),
    };
    let commands = commands(config)?;
    let mut args = vec!["-c".to_owned()];
    match <[String; 1]>::try_from(commands) {
        Ok([only]) => args.push(only),
        Err(several) => {
            args.extend([RUN_IN_ORDER.to_owned(), "sh".to_owned()]);
            args.extend(several);
        }
    }
    let directory = match config.get("cwd") {
        None | Some(Value::Null) => PathBuf::new(),
        Some(Value::String(directory)) => PathBuf::from(directory),
        Some(_) => return Err("`cwd` must be a path".to_owned()),
    };
    Ok(Plan { program, args, env: variables(config, input)?, directory })
}

fn commands(config: &Map<String, Value>) -> Result<Vec<String>, String> {
    let given = ["cmds", "command", "cmd"].iter().filter_map(|key| config.get(*key)).find(|value| !value.is_null());
    let commands = match given {
        Some(Value::String(command)) => vec![command.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| "`cmds` must be a list of texts".to_owned())?,
        Some(_) => return Err("`cmds` must be a list of texts, `command` a text".to_owned()),
        None => return Err("`cmds` or `command` is missing: give the commands to run".to_owned()),
    };
    if commands.is_empty() {
        return Err("`cmds` is empty: give the commands to run".to_owned());
    }
    if commands.iter().any(|command| command.contains('\0')) {
        return Err("a command holds a NUL character, which no process can be given".to_owned());
    }
    Ok(commands)
}

fn variables(config: &Map<String, Value>, input: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let mut variables = Map::new();
    for (name, value) in input {
        if is_variable_name(name) && !matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
            variables.insert(name.clone(), value.clone());
        }
    }
    match config.get("env") {
        None | Some(Value::Null) => {}
        Some(Value::Object(env)) => {
            for (name, value) in env {
                if !is_variable_name(name) {
                    return Err(format!("`env` sets `{name}`, which is no name of a variable"));
                }
                variables.insert(name.clone(), value.clone());
            }
        }
        Some(_) => return Err("`env` must be a mapping of names to values".to_owned()),
    }
    let text_of = |(name, value)| {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        };
        if text.contains('\0') {
            return Err(format!("`{name}` holds a NUL character, which no variable can hold"));
        }
        Ok((name, text))
    };
    variables.into_iter().map(text_of).collect()
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|char| char == '_' || char.is_ascii_alphanumeric())
}

fn outcome(finished: Finished, brake: &Brake) -> ToolOutcome {
    let Finished { ended, stdout, stderr } = finished;
    let exit_code = match ended.exit {
        Some(Exit::Status(status)) => Some(status),
        Some(Exit::Signal(signal)) => Some(128 + signal),
        None => None,
    };
    let error = match (ended.how, brake.cause(), exit_code) {
        // It had ended before the order came: then the order changed nothing.
        (How::Finished, _, Some(0)) => None,
        (How::Finished, _, Some(status)) => Some(exit_error(status, ended.exit, &stderr)),
        (How::Stopped | How::Killed | How::Unconfirmed, Some(cause), _) => Some(cut_short(cause, &ended)),
        // Only a leftover could not be killed; the command itself is done.
        (_, None, Some(0)) => None,
        (_, None, Some(status)) => Some(exit_error(status, ended.exit, &stderr)),
        (_, None, None) | (How::Finished, Some(_), None) => {
            let message = "a process of the command does not end";
            Some(ToolError::soft(ErrorKind::Unknown, "UNCONFIRMED", message).with("pids", ended.unconfirmed.clone()))
        }
    };
    let data = json!({"exit_code": exit_code, "stdout": stdout, "stderr": stderr});
    ToolOutcome { error, stopped: stopped(&ended), ..ToolOutcome::ok(data) }
}

fn exit_error(status: i32, exit: Option<Exit>, stderr: &str) -> ToolError {
    let ending = match exit {
        Some(Exit::Signal(signal)) => format!("the command was ended by signal {signal}"),
        Some(Exit::Status(_)) | None => format!("the command ended with status {status}"),
    };
    let reason: String = stderr.trim_end().lines().last().unwrap_or_default().chars().take(REASON_CHARS_MAX).collect();
    let message = if reason.is_empty() { ending } else { format!("{ending}: {reason}") };
    ToolError::soft(ErrorKind::Code, format!("EXIT_{status}"), message).with("exit_code", status)
}

fn config_error(message: impl Into<String>) -> ToolError {
    ToolError::hard(ErrorKind::Config, "SHELL_CONFIG", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no mapping"),
        }
    }

    #[test]
    fn one_command_runs_as_it_is_and_several_in_order() {
        let one = plan(&map(json!({"command": "ls"})), &Map::new()).unwrap();
        assert_eq!((one.program, one.args), ("/bin/sh", vec!["-c".to_owned(), "ls".to_owned()]));
        let two = plan(&map(json!({"cmds": ["a", "b"], "shell": "bash"})), &Map::new()).unwrap();
        assert_eq!(two.program, "bash");
        assert_eq!(two.args[2..], ["sh", "a", "b"]);
    }

    #[test]
    fn scalars_become_variables_and_env_wins() {
        let input = map(json!({"name": "x", "count": 3, "on": true, "off": null, "list": [1], "a-b": "y", "both": 1}));
        let config = map(json!({"cmds": ["true"], "env": {"both": 2, "empty": null, "json": {"k": 1}}}));
        let mut env = plan(&config, &input).unwrap().env;
        env.sort();
        let expected =
            [("both", "2"), ("count", "3"), ("empty", ""), ("json", "{\"k\":1}"), ("name", "x"), ("on", "true")];
        assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn bad_configuration_is_a_hard_error_that_says_what_to_do() {
        let table = [
            (json!({}), "`cmds` or `command` is missing: give the commands to run"),
            (json!({"cmds": []}), "`cmds` is empty: give the commands to run"),
            (json!({"cmds": [1]}), "`cmds` must be a list of texts"),
            (json!({"cmds": {}}), "`cmds` must be a list of texts, `command` a text"),
            (json!({"cmd": "a\u{0}b"}), "a command holds a NUL character, which no process can be given"),
            (json!({"cmd": "a", "shell": "zsh"}), "`shell` must be `sh` or `bash`"),
            (json!({"cmd": "a", "cwd": 1}), "`cwd` must be a path"),
            (json!({"cmd": "a", "env": []}), "`env` must be a mapping of names to values"),
            (json!({"cmd": "a", "env": {"A=B": 1}}), "`env` sets `A=B`, which is no name of a variable"),
            (json!({"cmd": "a", "env": {"A": "\u{0}"}}), "`A` holds a NUL character, which no variable can hold"),
        ];
        for (config, message) in table {
            assert_eq!(plan(&map(config), &Map::new()).unwrap_err(), message);
        }
    }
}
