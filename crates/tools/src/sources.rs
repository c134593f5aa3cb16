//! Secrets from outside of noetl: the environment, a folder of files, an issuer of tokens.

use std::path::{Component, Path};

use noetl_core::secret::keychain::{TokenRequest, Wanted};
use noetl_core::tool::{ErrorKind, ToolError};
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
