//! `~/.noetl/config.yaml`: named servers, one of them current.
//!
//! The file is shared with other clients of the same family, so keys that we do not know stay as they are.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::stop::{Exit, Stop};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The context that commands use when they name no server.
    pub current: Option<String>,
    /// By name, in the order of the file.
    pub contexts: IndexMap<String, Context>,
}

/// One named server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    /// Where it is.
    pub server_url: String,
    /// Where `noetl run` runs.
    pub runtime: Runtime,
    /// The token it wants (`gateway_session_token`).
    pub token: Option<String>,
    /// Every other key, as it was.
    pub other: Map<String, Value>,
}

/// Where `noetl run` runs a playbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Runtime {
    /// In this process, or by the owner of the data directory.
    Local,
    /// On a server.
    Distributed,
    /// Whatever fits: the context's runtime, else local.
    #[default]
    Auto,
}

impl Runtime {
    /// Returns the word in flags and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Local => "local",
            Runtime::Distributed => "distributed",
            Runtime::Auto => "auto",
        }
    }

    /// Returns the runtime that `word` names.
    pub fn from_word(word: &str) -> Option<Runtime> {
        [Runtime::Local, Runtime::Distributed, Runtime::Auto].into_iter().find(|runtime| runtime.as_str() == word)
    }
}

/// Returns `~/.noetl`.
pub fn home() -> Result<PathBuf, Stop> {
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".noetl")),
        None => {
            Err(Stop::usage("no home directory: HOME is not set").hint("set HOME, or pass --data-dir and --server-url"))
        }
    }
}

impl Config {
    /// Reads the file; none is an empty one.
    pub fn load(path: &Path) -> Result<Config, Stop> {
        match fs::read_to_string(path) {
            Ok(text) => Config::parse(&text).map_err(|problem| {
                Stop::usage(format!("{} can not be used: {problem}", path.display()))
                    .hint("correct the file, or move it away")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(Stop::usage(format!("can not read {}: {error}", path.display()))),
        }
    }

    /// Writes the file, readable by its owner alone, since it may hold tokens; never half of it.
    pub fn save(&self, path: &Path) -> Result<(), Stop> {
        let failed =
            |error: std::io::Error| Stop::new(Exit::Failed, format!("can not write {}: {error}", path.display()));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let draft = path.with_extension(format!("yaml.{}", std::process::id()));
        let write = || {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            file.write_all(self.to_yaml().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, path)
        };
        write().map_err(failed)
    }

    fn parse(text: &str) -> Result<Config, String> {
        if text.trim().is_empty() {
            return Ok(Config::default());
        }
        let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let contexts = match document.get("contexts") {
            Some(Value::Object(contexts)) => contexts,
            Some(Value::Null) => &Map::new(),
            Some(_) => return Err("`contexts` must be a mapping of names to servers".to_owned()),
            None => return Err("`contexts` is missing".to_owned()),
        };
        let current = match document.get("current_context") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(other) => return Err(format!("`current_context` must be a name, not {other}")),
        };
        let contexts = contexts.iter().map(|(name, context)| Ok((name.clone(), Context::parse(name, context)?)));
        Ok(Config { current, contexts: contexts.collect::<Result<_, String>>()? })
    }

    /// Returns the file's text. Names and values are quoted the JSON way, which YAML reads too.
    fn to_yaml(&self) -> String {
        let quoted = |text: &str| Value::String(text.to_owned()).to_string();
        let current = self.current.as_deref().map_or_else(|| "null".to_owned(), quoted);
        let mut out = format!("current_context: {current}\ncontexts:");
        if self.contexts.is_empty() {
            out.push_str(" {}");
        }
        out.push('\n');
        for (name, context) in &self.contexts {
            out.push_str(&format!("  {}:\n", quoted(name)));
            out.push_str(&format!("    server_url: {}\n", quoted(&context.server_url)));
            out.push_str(&format!("    runtime: {}\n", context.runtime.as_str()));
            let token = context.token.as_deref().map_or_else(|| "null".to_owned(), quoted);
            out.push_str(&format!("    gateway_session_token: {token}\n"));
            for (key, value) in &context.other {
                out.push_str(&format!("    {}: {value}\n", quoted(key)));
            }
        }
        out
    }
}

impl Context {
    fn parse(name: &str, value: &Value) -> Result<Context, String> {
        let Value::Object(map) = value else {
            return Err(format!("context `{name}` must be a mapping with `server_url`"));
        };
        let mut other = map.clone();
        let server_url = match other.shift_remove("server_url") {
            Some(Value::String(url)) => url,
            Some(_) | None => return Err(format!("context `{name}` has no `server_url`")),
        };
        let runtime = match other.shift_remove("runtime") {
            None | Some(Value::Null) => Runtime::Auto,
            Some(Value::String(word)) => Runtime::from_word(&word)
                .ok_or_else(|| format!("context `{name}`: runtime `{word}` is none of local, distributed, auto"))?,
            Some(other) => return Err(format!("context `{name}`: runtime must be a word, not {other}")),
        };
        let token = match other.shift_remove("gateway_session_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(token),
            Some(_) | None => None,
        };
        Ok(Context { server_url, runtime, token, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "\
current_context: local
contexts:
  local:
    server_url: http://localhost:8082
    runtime: distributed
    gateway_session_token: null
    gateway_auth0_domain: auth.example
    kube_remote_port: 8083
  \"with: colon\":
    server_url: http://other
";

    #[test]
    fn a_file_of_the_published_client_is_read_and_kept() {
        let config = Config::parse(PUBLISHED).unwrap();
        assert_eq!(config.current.as_deref(), Some("local"));
        let local = &config.contexts["local"];
        assert_eq!((local.server_url.as_str(), local.runtime), ("http://localhost:8082", Runtime::Distributed));
        assert_eq!(local.other["kube_remote_port"], 8083);
        assert_eq!(config.contexts["with: colon"].runtime, Runtime::Auto);
        assert_eq!(Config::parse(&config.to_yaml()).unwrap(), config);
    }

    #[test]
    fn an_empty_file_and_an_empty_configuration_are_the_same() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse(&Config::default().to_yaml()).unwrap(), Config::default());
    }

    #[test]
    fn a_broken_file_says_what_is_wrong() {
        for (text, part) in [
            ("current_context: a\n", "`contexts` is missing"),
            ("contexts: [a]\n", "must be a mapping"),
            ("contexts:\n  a: {}\n", "no `server_url`"),
            ("contexts:\n  a: {server_url: x, runtime: moon}\n", "`moon` is none of"),
            ("contexts: {\n", ""),
        ] {
            let problem = Config::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn saving_keeps_the_file_from_other_eyes() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.yaml");
        let mut config = Config::default();
        let context = Context { server_url: "http://h".into(), token: Some("s\"e".into()), ..Context::default() };
        config.contexts.insert("a".into(), context);
        config.save(&path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), config);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }
}
