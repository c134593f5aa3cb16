//! Whom a command talks to: a named server, the owner of the data directory, the current context's server, or, when
//! nobody is there, the data directory itself.

use std::fs;
use std::path::PathBuf;

use noetl_store::StoreError;
use noetl_store::postgres::Address;

use super::config::{self, Config, Context, Runtime};
use super::link::bad_directory;
use super::stop::{Exit, Stop};
use crate::embed::DataDir;
use crate::server::doors::token_lines;

/// Where the server is when nothing says otherwise.
pub const DEFAULT_PORT: u16 = 8082;
/// The host that goes with a port alone.
pub const DEFAULT_HOST: &str = "localhost";

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Where")]
pub struct Globals {
    /// Ask this server, such as http://localhost:8082
    #[arg(long, global = true, value_name = "URL", visible_alias = "endpoint")]
    pub server_url: Option<String>,
    /// Host of the server; for `server run|start` the address to listen on
    #[arg(long, global = true, value_name = "HOST")]
    pub host: Option<String>,
    /// Port of the server; for `server run|start` the port to listen on
    #[arg(short, long, global = true, value_name = "PORT")]
    pub port: Option<u16>,
    /// Ask the server of this context (see `noetl context list`)
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Token that the server wants
    #[arg(long, global = true, value_name = "TOKEN", env = "NOETL_SESSION_TOKEN", hide_env_values = true)]
    pub session_token: Option<String>,
    /// File that holds the token
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "session_token")]
    pub token_file: Option<PathBuf>,
    /// Data directory [env: NOETL_DATA_DIR] [default: ~/.noetl/data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Whom to ask, as far as the command line and the configuration say.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// This server and no other.
    Server(Named),
    /// The owner of the data directory; else the server of the current context, if any; else the directory itself.
    Directory {
        /// The data directory.
        directory: DataDir,
        /// The current context's server.
        fallback: Option<Named>,
    },
    /// The tables themselves, in the database that servers share.
    Database(Address),
}

/// A server with an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Where.
    pub url: String,
    /// What it wants to see.
    pub token: Option<String>,
    /// What named it, for messages: `--server-url`, `context 'prod'`.
    pub named_by: String,
}

impl Globals {
    /// Returns whether the command line names a server.
    pub fn names_server(&self) -> bool {
        self.server_url.is_some() || self.host.is_some() || self.port.is_some() || self.context.is_some()
    }

    /// Reads the configuration file.
    pub fn config(&self) -> Result<Config, Stop> {
        Config::load(&config::home()?.join("config.yaml"))
    }

    /// Returns the data directory.
    pub fn data_directory(&self) -> Result<DataDir, Stop> {
        DataDir::resolve(self.data_dir.as_deref()).map_err(|error| bad_directory(&error))
    }

    /// Returns whom to ask.
    pub fn target(&self) -> Result<Target, Stop> {
        if self.names_server() {
            if self.data_dir.is_some() {
                return Err(Stop::usage("both a server and --data-dir are given")
                    .hint("a server knows its own data directory: leave one of them out"));
            }
            return Ok(Target::Server(self.named_server()?));
        }
        let directory = self.data_directory()?;
        // A directory on the command line is meant: no other place is looked at.
        if self.data_dir.is_some() {
            return Ok(Target::Directory { directory, fallback: None });
        }
        let config = self.config()?;
        let fallback = match &config.current {
            Some(name) => Some(self.context_server(name, context(&config, name)?)?),
            None => None,
        };
        Ok(Target::Directory { directory, fallback })
    }

    /// Returns the database, when its URL is given and no other place.
    pub fn database(&self, url: &str) -> Result<Target, Stop> {
        if self.names_server() || self.data_dir.is_some() {
            return Err(Stop::usage("--database-url and another place are given").hint("leave one of them out"));
        }
        Ok(Target::Database(url.parse().map_err(|error: StoreError| Stop::usage(error.to_string()))?))
    }

    /// Returns the server that the command line names, else the current context's, else the default one.
    pub fn server(&self) -> Result<Named, Stop> {
        if self.names_server() {
            return self.named_server();
        }
        let config = self.config()?;
        match &config.current {
            Some(name) => self.context_server(name, context(&config, name)?),
            None => Ok(Named {
                url: format!("http://{DEFAULT_HOST}:{DEFAULT_PORT}"),
                token: self.token(None)?,
                named_by: "default".to_owned(),
            }),
        }
    }

    /// Returns the context that is meant: the named one, else the current one.
    pub fn chosen_context(&self) -> Result<Option<(String, Context)>, Stop> {
        let config = self.config()?;
        let Some(name) = self.context.clone().or_else(|| config.current.clone()) else { return Ok(None) };
        let chosen = context(&config, &name)?.clone();
        Ok(Some((name, chosen)))
    }

    /// Returns where `noetl run` runs, and why there.
    pub fn runtime(&self, flag: Runtime) -> Result<(Runtime, String), Stop> {
        if flag != Runtime::Auto {
            return Ok((flag, "--runtime flag".to_owned()));
        }
        if self.server_url.is_some() || self.host.is_some() || self.port.is_some() {
            return Ok((Runtime::Distributed, "a server is named".to_owned()));
        }
        if self.data_dir.is_some() {
            return Ok((Runtime::Local, "--data-dir flag".to_owned()));
        }
        match self.chosen_context()? {
            Some((name, context)) if context.runtime != Runtime::Auto => {
                Ok((context.runtime, format!("from context '{name}'")))
            }
            Some(_) | None => Ok((Runtime::Local, "default".to_owned())),
        }
    }

    fn named_server(&self) -> Result<Named, Stop> {
        if let Some(url) = &self.server_url {
            return Ok(Named { url: url.clone(), token: self.token(None)?, named_by: "--server-url".to_owned() });
        }
        if self.host.is_some() || self.port.is_some() {
            let host = self.host.as_deref().unwrap_or(DEFAULT_HOST);
            // An IPv6 address needs brackets in a URL.
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
            let url = format!("http://{host}:{}", self.port.unwrap_or(DEFAULT_PORT));
            return Ok(Named { url, token: self.token(None)?, named_by: "--host and --port".to_owned() });
        }
        let name = self.context.as_deref().unwrap_or_default();
        let config = self.config()?;
        self.context_server(name, context(&config, name)?)
    }

    fn context_server(&self, name: &str, context: &Context) -> Result<Named, Stop> {
        let token = self.token(context.token.as_deref())?;
        Ok(Named { url: context.server_url.clone(), token, named_by: format!("context '{name}'") })
    }

    /// Returns the token: flag or its variable, file, `NOETL_TOKEN`, else the context's.
    fn token(&self, stored: Option<&str>) -> Result<Option<String>, Stop> {
        if let Some(file) = &self.token_file {
            let text = fs::read_to_string(file)
                .map_err(|error| Stop::usage(format!("can not read the token file {}: {error}", file.display())))?;
            return match first_token(&text) {
                Some(token) => Ok(Some(token.to_owned())),
                None => Err(Stop::usage(format!("the token file {} holds no token", file.display()))),
            };
        }
        let from_environment = || std::env::var("NOETL_TOKEN").ok().filter(|token| !token.is_empty());
        let flag = self.session_token.clone().filter(|token| !token.is_empty());
        Ok(flag.or_else(from_environment).or_else(|| stored.map(str::to_owned)))
    }
}

/// Returns the first token of a token file. The same file may serve the server, which knows `name:token` and comments.
pub fn first_token(text: &str) -> Option<&str> {
    let (_, token) = token_lines(text).next()?;
    (!token.is_empty()).then_some(token)
}

fn context<'a>(config: &'a Config, name: &str) -> Result<&'a Context, Stop> {
    config.contexts.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
        let stop = Stop::new(Exit::Usage, format!("context '{name}' is not known"));
        match known.as_slice() {
            [] => stop.hint("there are none yet: `noetl context add NAME --server-url URL`"),
            known => stop.hint(format!("known are: {}", known.join(", "))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Globals)) -> Globals {
        let mut globals = Globals::default();
        change(&mut globals);
        globals
    }

    #[test]
    fn a_server_is_named_by_url_or_host_or_port() {
        for (globals, url) in [
            (with(|g| g.server_url = Some("http://x".into())), "http://x"),
            (with(|g| g.host = Some("h".into())), "http://h:8082"),
            (with(|g| g.port = Some(9)), "http://localhost:9"),
            (with(|g| (g.host, g.port) = (Some("::1".into()), Some(9))), "http://[::1]:9"),
        ] {
            let Target::Server(named) = globals.target().unwrap() else { panic!("{globals:?}") };
            assert_eq!(named.url, url);
        }
    }

    #[test]
    fn a_server_and_a_directory_exclude_each_other() {
        let globals = with(|g| (g.port, g.data_dir) = (Some(9), Some("/d".into())));
        assert_eq!(globals.target().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_directory_on_the_command_line_is_the_only_place() {
        let globals = with(|g| g.data_dir = Some("/d".into()));
        assert_eq!(
            globals.target().unwrap(),
            Target::Directory { directory: DataDir::resolve(Some("/d".as_ref())).unwrap(), fallback: None }
        );
        assert_eq!(globals.runtime(Runtime::Auto).unwrap().0, Runtime::Local);
    }

    #[test]
    fn naming_a_server_runs_there_unless_the_flag_says_otherwise() {
        let globals = with(|g| g.port = Some(9));
        assert_eq!(globals.runtime(Runtime::Auto).unwrap().0, Runtime::Distributed);
        assert_eq!(globals.runtime(Runtime::Local).unwrap().0, Runtime::Local);
    }

    #[test]
    fn the_token_file_is_trimmed_and_must_hold_something() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, " secret\n").unwrap();
        let globals = with(|g| g.token_file = Some(file.clone()));
        assert_eq!(globals.token(Some("stored")).unwrap().as_deref(), Some("secret"));
        fs::write(&file, "# ours\nann: other # hers\nbob:third\n").unwrap();
        assert_eq!(globals.token(None).unwrap().as_deref(), Some("other"));
        fs::write(&file, "\n").unwrap();
        assert!(globals.token(None).is_err());
        let globals = with(|g| g.session_token = Some("flag".into()));
        assert_eq!(globals.token(Some("stored")).unwrap().as_deref(), Some("flag"));
    }
}
