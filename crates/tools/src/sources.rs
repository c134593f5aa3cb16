//! Secrets from outside of noetl: the environment, a folder of files, an issuer of tokens.

use std::path::{Component, Path};

use noetl_core::secret::MASKED_BYTES_MIN;
use noetl_core::secret::keychain::{TokenRequest, Wanted};
use noetl_core::tool::{ErrorKind, ToolCall, ToolError, ToolOutcome};
use serde_json::{Map, Value, json};

use crate::{Toolbox, http};

/// Longest secret in a file, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// Providers that the language knows and no worker has yet.
const ELSEWHERE: [&str; 5] = ["gcp", "google", "aws", "azure", "vault"];

impl Toolbox {
    /// Returns a secret from outside: a text, or the answer of an issuer of tokens.
    ///
    /// # Errors
    /// If the provider is not configured here, has no such secret, or can not be reached. The error names what was
    /// wanted, and holds nothing secret.
    pub async fn secret(&self, wanted: Wanted) -> Result<Value, ToolError> {
        match wanted {
            Wanted::Token(request) => self.token(&request).await,
            Wanted::Provided { provider, name } => {
                self.provided(&provider, &name).map(Value::String).map_err(|error| *error)
            }
        }
    }

    /// The tool `secrets`: returns `{value}`, or the fields that its `map` names.
    pub(crate) fn fetch(&self, call: &ToolCall) -> ToolOutcome {
        match self.fetched(&call.config) {
            Ok(fields) => ToolOutcome::ok(Value::Object(fields)),
            Err(error) => ToolOutcome::failed(*error, Value::Null),
        }
    }

    fn fetched(&self, config: &Map<String, Value>) -> Result<Map<String, Value>, Box<ToolError>> {
        let provider = config.get("provider").and_then(Value::as_str).unwrap_or_default().trim().to_lowercase();
        let mut fields = Map::new();
        let single = config.get("key").filter(|key| !key.is_null()).map(|key| ("value", key));
        let several = config.get("map").and_then(Value::as_object).into_iter().flatten();
        for (field, name) in several.map(|(field, name)| (field.as_str(), name)).chain(single) {
            let name = match name {
                Value::String(name) if !name.is_empty() => name.clone(),
                Value::Number(name) => name.to_string(),
                Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(refused(format!("the name of the secret for `{field}` is empty, or no text")));
                }
            };
            let value = self.provided(&provider, &name)?;
            // It would stand in the log as it is.
            if value.trim().len() < MASKED_BYTES_MIN {
                let message =
                    format!("the secret `{name}` has less than {MASKED_BYTES_MIN} bytes: it can not be masked");
                return Err(Box::new(ToolError::hard(ErrorKind::Auth, "SECRET_TOO_SHORT", message)));
            }
            fields.insert(field.to_owned(), Value::String(value));
        }
        if fields.is_empty() {
            return Err(refused("it names no secret: write `key`, or `map`".to_owned()));
        }
        Ok(fields)
    }

    /// Asks an issuer for a token.
    async fn token(&self, request: &TokenRequest) -> Result<Value, ToolError> {
        let names = |name: &str| name.eq_ignore_ascii_case("content-type");
        let is_json = request
            .headers
            .iter()
            .any(|(name, value)| names(name) && value.as_str().is_some_and(|kind| kind.contains("json")));
        let mut config = Map::new();
        config.insert("url".to_owned(), json!(request.endpoint));
        config.insert("method".to_owned(), json!(request.method));
        let headers = request.headers.iter().filter(|(name, _)| !names(name));
        config.insert(
            "headers".to_owned(),
            Value::Object(headers.map(|(name, value)| (name.clone(), value.clone())).collect()),
        );
        config.insert(if is_json { "json" } else { "form" }.to_owned(), Value::Object(request.data.clone()));
        // A token goes where it is asked for, and nowhere else.
        config.insert("follow_redirects".to_owned(), json!(false));
        http::token(&self.clients, &config).await
    }

    /// Returns what a provider has under a name.
    fn provided(&self, provider: &str, name: &str) -> Result<String, Box<ToolError>> {
        match provider {
            "env" | "environment" => {
                let exposed = self.settings.expose_env.iter().any(|known| known == name);
                let value = self.settings.env.iter().find(|(known, _)| exposed && known == name);
                value.map(|(_, value)| value.clone()).ok_or_else(|| {
                    missing(format!("the environment variable {name} is not exposed here: name it with --expose-env"))
                })
            }
            "file" => match &self.settings.secrets_dir {
                Some(folder) => read(folder, name),
                None => Err(not_configured("file", "name a folder with --secrets-dir")),
            },
            "" => Err(not_configured("", "say `provider: env` or `provider: file`")),
            known if ELSEWHERE.iter().any(|word| known.starts_with(word)) => {
                Err(not_configured(known, "providers here are env and file"))
            }
            other => Err(not_configured(other, "providers here are env and file")),
        }
    }
}

/// Reads a secret below `folder`: by a plain name, not by a way out.
fn read(folder: &Path, name: &str) -> Result<String, Box<ToolError>> {
    let relative = Path::new(name);
    let plain = !name.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    let path = folder.join(relative);
    // A link may lead elsewhere, as those of Kubernetes do, but not out.
    let inside = plain
        && match (path.canonicalize(), folder.canonicalize()) {
            (Ok(path), Ok(folder)) => path.starts_with(folder) && path.is_file(),
            (Ok(_) | Err(_), _) => false,
        };
    if !inside {
        return Err(missing(format!("there is no secret `{name}` in the folder of --secrets-dir")));
    }
    let size = std::fs::metadata(&path).map_or(0, |file| file.len());
    if size > SECRET_FILE_BYTES_MAX {
        return Err(missing(format!("the secret `{name}` is larger than {SECRET_FILE_BYTES_MAX} bytes")));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.strip_suffix('\n').map_or(text.clone(), |text| text.trim_end_matches('\r').to_owned())),
        Err(error) => Err(missing(format!("the secret `{name}` can not be read: {error}"))),
    }
}

fn refused(message: String) -> Box<ToolError> {
    Box::new(ToolError::hard(ErrorKind::Config, "SECRETS_CONFIG", message))
}

fn missing(message: String) -> Box<ToolError> {
    Box::new(ToolError::hard(ErrorKind::Auth, "NO_SUCH_SECRET", message))
}

fn not_configured(provider: &str, hint: &str) -> Box<ToolError> {
    let message = format!("the secret provider `{provider}` is not configured on this worker: {hint}");
    Box::new(ToolError::hard(ErrorKind::Config, "NOT_CONFIGURED", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SupervisorCommand, ToolboxConfig};

    /// What comes of the tool `secrets` with this configuration: the data, or the code and words of the error.
    fn fetched(home: &Path, config: &Value) -> Result<Value, (String, String)> {
        let toolbox = Toolbox::new(ToolboxConfig {
            slots: 1,
            python: "python3".to_owned(),
            expose_env: vec!["CARGO_PKG_NAME".to_owned()],
            secrets_dir: Some(home.to_owned()),
            directory: home.to_owned(),
            server_url: None,
            supervisor: SupervisorCommand::this_executable(["none"]),
            timeout_grace: crate::TIMEOUT_GRACE,
            cgroups: false,
        })
        .unwrap();
        match toolbox.fetched(config.as_object().unwrap()) {
            Ok(fields) => Ok(Value::Object(fields)),
            Err(error) => Err((error.code, error.message)),
        }
    }

    #[test]
    fn the_tool_fetches_what_is_configured_and_says_what_is_not() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "swordfish\n").unwrap();
        std::fs::write(home.path().join("pin"), "1234\n").unwrap();
        for (config, expected) in [
            (json!({"provider": "file", "key": "token"}), Ok(json!({"value": "swordfish"}))),
            (json!({"provider": "File", "map": {"a": "token"}}), Ok(json!({"a": "swordfish"}))),
            (json!({"provider": "env", "key": "CARGO_PKG_NAME"}), Ok(json!({"value": "noetl-tools"}))),
            (json!({"provider": "env", "key": "PATH"}), Err(("NO_SUCH_SECRET", "--expose-env"))),
            (json!({"provider": "file", "key": "../token"}), Err(("NO_SUCH_SECRET", "--secrets-dir"))),
            (json!({"provider": "file", "key": "pin"}), Err(("SECRET_TOO_SHORT", "less than 6 bytes"))),
            (json!({"provider": "file", "map": {"a": ["token"]}}), Err(("SECRETS_CONFIG", "`a`"))),
            (json!({"provider": "file"}), Err(("SECRETS_CONFIG", "`key`"))),
            (json!({"key": "token"}), Err(("NOT_CONFIGURED", "provider: file"))),
            (json!({"provider": "aws_secrets_manager", "key": "x"}), Err(("NOT_CONFIGURED", "env and file"))),
            (json!({"provider": "gcp", "key": "x"}), Err(("NOT_CONFIGURED", "`gcp`"))),
            (json!({"provider": "azure", "key": "x"}), Err(("NOT_CONFIGURED", "`azure`"))),
            (json!({"provider": "vault", "key": "x"}), Err(("NOT_CONFIGURED", "`vault`"))),
        ] {
            match (fetched(home.path(), &config), expected) {
                (Ok(data), Ok(expected)) => assert_eq!(data, expected, "{config}"),
                (Err((code, message)), Err((expected, words))) => {
                    assert!(code == expected && message.contains(words), "{config}: {code} {message}");
                    assert!(!message.contains("1234"), "{message}");
                }
                (found, expected) => panic!("{config}: {found:?}, and not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_file_is_read_by_a_plain_name_and_no_way_leads_out() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("secrets");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        std::fs::write(home.path().join("outside"), "x").unwrap();
        std::fs::write(folder.join("api"), "token\n").unwrap();
        std::fs::write(folder.join("deep/key"), "a\r\nb\r\n").unwrap();
        std::fs::write(folder.join("large"), vec![b'x'; (64 << 10) + 1]).unwrap();
        std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("api", folder.join("alias")).unwrap();
        for (name, expected) in [
            ("api", Some("token")),
            ("alias", Some("token")),
            ("deep/key", Some("a\r\nb")),
            ("../outside", None),
            ("link", None),
            ("large", None),
            ("deep", None),
            ("/etc/hostname", None),
            ("", None),
            ("nothing", None),
        ] {
            assert_eq!(read(&folder, name).ok().as_deref(), expected, "{name}");
        }
    }
}
