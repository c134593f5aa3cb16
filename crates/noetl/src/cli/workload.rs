//! The inputs of a run: `--input FILE`, laid over by `--payload JSON`, laid over by `--set KEY=VALUE`.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::stop::Stop;

/// Flags that give a run its inputs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WorkloadArgs {
    /// Set one input; dots nest, values are JSON or else text (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Inputs as a JSON object
    #[arg(long, value_name = "JSON", visible_alias = "workload")]
    pub payload: Option<String>,
    /// Inputs from a JSON or YAML file; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

impl WorkloadArgs {
    /// Returns the inputs.
    pub fn read(&self) -> Result<Map<String, Value>, Stop> {
        let mut workload = match &self.input {
            Some(file) => read_file(file)?,
            None => Map::new(),
        };
        if let Some(text) = &self.payload {
            let value = serde_json::from_str(text).map_err(|error| {
                Stop::usage(format!("--payload is not JSON: {error}")).hint("quote it: --payload '{\"n\": 1}'")
            })?;
            workload.extend(object(value, "--payload")?);
        }
        for pair in &self.set {
            set(&mut workload, pair)?;
        }
        Ok(workload)
    }
}

fn read_file(file: &PathBuf) -> Result<Map<String, Value>, Stop> {
    let shown = file.display();
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|error| Stop::usage(format!("can not read the input {shown}: {error}")))?;
    let value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(json) => serde_saphyr::from_str(&text)
            .map_err(|yaml| Stop::usage(format!("the input {shown} is neither JSON ({json}) nor YAML ({yaml})")))?,
    };
    object(value, &format!("the input {shown}"))
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, Stop> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Stop::usage(format!("{what} must be an object with the inputs' names")))
        }
    }
}

/// Applies one `KEY=VALUE`.
fn set(workload: &mut Map<String, Value>, pair: &str) -> Result<(), Stop> {
    let refuse = |problem: &str| {
        Stop::usage(format!("--set `{pair}` {problem}")).hint("write --set name=value, or --set a.b=3 to nest")
    };
    let (key, text) = pair.split_once('=').ok_or_else(|| refuse("has no `=`"))?;
    let key = key.trim().strip_prefix("workload.").unwrap_or(key.trim());
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(refuse("has an empty name"));
    }
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let mut names = key.split('.').peekable();
    let mut level = workload;
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            level.insert(name.to_owned(), value);
            break;
        }
        let below = level.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if !below.is_object() {
            *below = Value::Object(Map::new());
        }
        match below {
            Value::Object(map) => level = map,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sets(pairs: &[&str]) -> Value {
        let args = WorkloadArgs { set: pairs.iter().map(|pair| (*pair).to_owned()).collect(), ..Default::default() };
        Value::Object(args.read().unwrap())
    }

    #[test]
    fn a_value_is_json_or_else_text() {
        assert_eq!(
            sets(&["n=3", "t=three", "b=true", "l=[1,2]", "q=\"3\"", "e=", "u=http://h/?a=b", "workload.w=1"]),
            json!({"n": 3, "t": "three", "b": true, "l": [1, 2], "q": "3", "e": "", "u": "http://h/?a=b", "w": 1})
        );
    }

    #[test]
    fn dots_nest_and_the_last_word_counts() {
        assert_eq!(sets(&["a.b.c=1", "a.b.d=2"]), json!({"a": {"b": {"c": 1, "d": 2}}}));
        assert_eq!(sets(&["a=1", "a.b=2"]), json!({"a": {"b": 2}}));
        assert_eq!(sets(&["a.b=2", "a=1"]), json!({"a": 1}));
    }

    #[test]
    fn a_bad_pair_is_refused_and_not_dropped() {
        for pair in ["novalue", "=1", ".a=1", "a..b=1", "workload.=1"] {
            let args = WorkloadArgs { set: vec![pair.to_owned()], ..Default::default() };
            assert!(args.read().unwrap_err().message.contains(pair), "{pair}");
        }
    }

    #[test]
    fn set_lies_over_payload_lies_over_input() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("in.yaml");
        fs::write(&file, "a: 1\nb: 1\nc: 1\n").unwrap();
        let args =
            WorkloadArgs { input: Some(file), payload: Some(r#"{"b": 2, "c": 2}"#.into()), set: vec!["c=3".into()] };
        assert_eq!(Value::Object(args.read().unwrap()), json!({"a": 1, "b": 2, "c": 3}));
    }

    #[test]
    fn inputs_that_are_no_object_are_refused() {
        for payload in ["[1]", "3", "{"] {
            let args = WorkloadArgs { payload: Some(payload.into()), ..Default::default() };
            assert!(args.read().unwrap_err().message.contains("--payload"), "{payload}");
        }
    }
}
