//! Where to connect: what the tool says, over what the credential says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use noetl_core::tool::ToolError;
use serde_json::{Map, Value};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::config_error;
use super::connection::CONNECT_TIMEOUT;
use super::tls::{Believe, Tls, mode};
use crate::Secrets;

const HOST: &[&str] = &["host", "db_host"];
const PORT: &[&str] = &["port", "db_port"];
const USER: &[&str] = &["user", "db_user", "username"];
const PASSWORD: &[&str] = &["password", "db_password"];
const DATABASE: &[&str] = &["database", "db_name", "dbname", "db_database"];
const CONNECTION_STRING: &[&str] = &["connection_string", "dsn"];
const SSLMODE: &[&str] = &["sslmode", "ssl_mode"];
const SSLROOTCERT: &[&str] = &["sslrootcert"];

const DEFAULT_PORT: u16 = 5432;

/// What a server's monitoring shows of us.
const APPLICATION_NAME: &str = "noetl";

/// A database to connect to. Its `Debug` and `Display` keep the password back.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
        write!(f, "{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

/// Returns the database that a tool's configuration names, with the credential that it names.
pub(crate) async fn target(config: &Map<String, Value>, secrets: &dyn Secrets) -> Result<Arc<Target>, ToolError> {
    let auth = ["auth", "credential"].iter().find_map(|key| config.get(*key).filter(|auth| !is_empty(auth)));
    let stored = match auth {
        None => Arc::default(),
        Some(auth) => match alias(auth) {
            Some(alias) => {
                let credential = secrets.credential(alias).await?;
                if !matches!(&*credential.kind, "postgres" | "postgresql") {
                    let message = format!(
                        "the credential `{alias}` is of type `{}`, a database needs `postgres`",
                        credential.kind
                    );
                    return Err(config_error(message).with("credential", alias));
                }
                credential.data
            }
            None => match auth {
                Value::Object(fields) => Arc::new(fields.clone()),
                _ => return Err(config_error("`auth` must be the alias of a credential")),
            },
        },
    };
    resolve(config, &stored).map(Arc::new).map_err(config_error)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// Returns the alias in `auth`: itself, or what a mapping names it.
fn alias(auth: &Value) -> Option<&str> {
    let named = |fields: &Map<String, Value>| {
        let name = ["credential", "key", "alias"].iter().find_map(|key| fields.get(*key)?.as_str());
        name.map(str::to_owned)
    };
    match auth {
        Value::String(alias) => Some(alias.trim()),
        Value::Object(fields) => match named(fields) {
            Some(_) => ["credential", "key", "alias"].iter().find_map(|key| fields.get(*key)?.as_str()),
            // `{any_name: {source: credential, key: alias}}`
            None if fields.len() == 1 => fields.values().next().filter(|inner| inner.is_object()).and_then(alias),
            None => None,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// Puts the fields that the tool gives over those that the credential has.
fn resolve(explicit: &Map<String, Value>, stored: &Map<String, Value>) -> Result<Target, String> {
    let explicit_string = text(explicit, CONNECTION_STRING)?;
    // A connection string of the tool's own says everything; what the credential has is not mixed into it.
    let empty = Map::new();
    let stored = if explicit_string.is_some() { &empty } else { stored };
    let (base, mut tls_words) = match explicit_string.or(text(stored, CONNECTION_STRING)?) {
        Some(connection_string) => parse(&connection_string)?,
        None => (Config::new(), TlsWords::default()),
    };
    let either = |names| Ok::<_, String>(text(explicit, names)?.or(text(stored, names)?));
    let host = either(HOST)?;
    let port = match either(PORT)? {
        Some(port) => Some(port.parse::<u16>().map_err(|_| "`port` is no port number".to_owned())?),
        None => None,
    };

    let mut config = Config::new();
    config.application_name(base.get_application_name().unwrap_or(APPLICATION_NAME));
    config.connect_timeout(CONNECT_TIMEOUT);
    if let Some(options) = base.get_options() {
        config.options(options);
    }
    config.target_session_attrs(base.get_target_session_attrs());
    match &host {
        Some(host) => {
            config.host(host);
        }
        None => {
            for host in base.get_hosts() {
                match host {
                    Host::Tcp(host) => config.host(host),
                    Host::Unix(folder) => config.host_path(folder),
                };
            }
        }
    }
    match port {
        Some(port) => {
            config.port(port);
        }
        None if base.get_ports().is_empty() || host.is_some() => {
            config.port(base.get_ports().first().copied().unwrap_or(DEFAULT_PORT));
        }
        None => {
            for port in base.get_ports() {
                config.port(*port);
            }
        }
    }
    if config.get_hosts().is_empty() {
        return Err("there is no database to connect to: give `auth`, the alias of a credential, or `host`".to_owned());
    }
    let user = either(USER)?.or(base.get_user().map(str::to_owned));
    let user = user.ok_or("the database user is missing: give `user`, or a credential that has one")?;
    let database = either(DATABASE)?.or(base.get_dbname().map(str::to_owned));
    config.dbname(database.as_deref().unwrap_or(&user)).user(&user);
    match either(PASSWORD)? {
        Some(password) => {
            config.password(password);
        }
        None => {
            if let Some(password) = base.get_password() {
                config.password(password);
            }
        }
    }
    tls_words.sslmode = either(SSLMODE)?.or(tls_words.sslmode);
    tls_words.sslrootcert = either(SSLROOTCERT)?.or(tls_words.sslrootcert);
    let (ssl_mode, believe) = match &tls_words.sslmode {
        Some(word) => mode(word)?,
        None => (SslMode::Prefer, Believe::Anyone),
    };
    config.ssl_mode(ssl_mode);
    Ok(Target { config, tls: Tls { believe, roots: tls_words.sslrootcert.map(PathBuf::from) } })
}

/// Returns the first of some fields that is there; an empty one is not.
fn text(fields: &Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    for name in names {
        match fields.get(*name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.trim().is_empty() => {}
            Some(Value::String(text)) => return Ok(Some(text.clone())),
            Some(Value::Number(number)) => return Ok(Some(number.to_string())),
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(format!("`{name}` must be a text"));
            }
        }
    }
    Ok(None)
}

/// The options of a connection string that the driver does not know.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsWords {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

/// Reads a connection string of either form. The error does not repeat it: there is a password in it.
fn parse(connection_string: &str) -> Result<(Config, TlsWords), String> {
    let mut words = TlsWords::default();
    let rest = match connection_string.split_once("://") {
        Some(_) => {
            let (address, query) = connection_string.split_once('?').unwrap_or((connection_string, ""));
            let mut others = form_urlencoded::Serializer::new(String::new());
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                match &*name {
                    "sslmode" => words.sslmode = Some(value.into_owned()),
                    "sslrootcert" => words.sslrootcert = Some(value.into_owned()),
                    _ => {
                        others.append_pair(&name, &value);
                    }
                }
            }
            // The driver wants spaces as `%20`.
            format!("{address}?{}", others.finish().replace('+', "%20"))
        }
        None => {
            let mut rest = String::new();
            for word in connection_string.split_inclusive(char::is_whitespace) {
                match word.trim_end().split_once('=') {
                    Some(("sslmode", value)) => words.sslmode = Some(value.trim_matches('\'').to_owned()),
                    Some(("sslrootcert", value)) => words.sslrootcert = Some(value.trim_matches('\'').to_owned()),
                    Some(_) | None => rest.push_str(word),
                }
            }
            rest
        }
    };
    let config = rest.trim_end_matches('?').parse::<Config>();
    let config = config.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("`connection_string` can not be read{source}")
    })?;
    Ok((config, words))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no mapping"),
        }
    }

    /// Everything of a target that is not a default, as text.
    fn shown(explicit: Value, stored: Value) -> Result<String, String> {
        let Target { config, tls } = resolve(&map(explicit), &map(stored))?;
        let password = String::from_utf8(config.get_password().unwrap_or_default().to_vec()).unwrap();
        let host = match &config.get_hosts()[0] {
            Host::Tcp(host) => host.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let (user, ports, database) = (config.get_user().unwrap(), config.get_ports(), config.get_dbname().unwrap());
        Ok(format!("{user}:{password}@{host}:{ports:?}/{database} {:?} {:?}", config.get_ssl_mode(), tls.believe))
    }

    #[test]
    fn fields_have_two_spellings_and_explicit_ones_win() {
        let table = [
            (
                json!({}),
                json!({"db_host": "h", "db_port": "5433", "db_user": "u", "db_password": "p", "db_name": "d"}),
                "u:p@h:[5433]/d Prefer Anyone",
            ),
            (
                json!({}),
                json!({"host": "h", "port": 5433, "user": "u", "password": "p", "dbname": "d"}),
                "u:p@h:[5433]/d Prefer Anyone",
            ),
            (
                json!({"host": "other", "database": "x", "user": "", "password": null}),
                json!({"db_host": "h", "db_port": "5433", "db_user": "u", "db_password": "p", "db_name": "d"}),
                "u:p@other:[5433]/x Prefer Anyone",
            ),
            (json!({"db_host": "h", "db_user": "u"}), json!({}), "u:@h:[5432]/u Prefer Anyone"),
            (json!({"host": "/run/pg", "user": "u"}), json!({}), "u:@/run/pg:[5432]/u Prefer Anyone"),
            (
                json!({"connection_string": "postgresql://a:b%20c@s:6/e?sslmode=verify-full"}),
                json!({"db_host": "h", "db_user": "u", "db_password": "p"}),
                "a:b c@s:[6]/e Require SignedForHost",
            ),
            (
                json!({"host": "h", "sslmode": "disable"}),
                json!({"connection_string": "host=s port=6 user=a password=b dbname=e sslmode=verify-ca"}),
                "a:b@h:[6]/e Disable Anyone",
            ),
            (
                json!({}),
                json!({"connection_string": "host=s user=a sslmode='require' application_name='my x'"}),
                "a:@s:[5432]/a Require Anyone",
            ),
        ];
        for (explicit, stored, expected) in table {
            assert_eq!(shown(explicit.clone(), stored).as_deref(), Ok(expected), "{explicit}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let table = [
            (json!({}), "there is no database to connect to: give `auth`, the alias of a credential, or `host`"),
            (json!({"host": "h"}), "the database user is missing: give `user`, or a credential that has one"),
            (json!({"host": "h", "user": "u", "port": "many"}), "`port` is no port number"),
            (json!({"host": ["h"]}), "`host` must be a text"),
            (
                json!({"host": "h", "user": "u", "sslmode": "yes"}),
                "`sslmode` is `yes`: use disable, prefer, require, verify-ca or verify-full",
            ),
        ];
        for (explicit, expected) in table {
            assert_eq!(shown(explicit, json!({})).unwrap_err(), expected);
        }
        for wrong in ["postgres://u:hunter2@h:x/d", "host=h password=hunter2 port=x", "password=hunter2 what"] {
            let refused = shown(json!({"connection_string": wrong}), json!({})).unwrap_err();
            assert!(refused.starts_with("`connection_string` can not be read"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let target = resolve(&map(json!({"host": "h", "user": "u", "password": "hunter2"})), &Map::new()).unwrap();
        assert_eq!(format!("{target} {target:?}"), "h:5432/u Target(h:5432/u)");
    }

    #[test]
    fn an_alias_stands_alone_or_in_a_mapping() {
        assert_eq!(alias(&json!(" pg ")), Some("pg"));
        assert_eq!(alias(&json!({"source": "credential", "key": "pg"})), Some("pg"));
        assert_eq!(alias(&json!({"db": {"source": "credential", "tool": "postgres", "key": "pg"}})), Some("pg"));
        assert_eq!(alias(&json!({"host": "h", "user": "u"})), None);
        assert_eq!(alias(&json!(["pg"])), None);
    }
}
