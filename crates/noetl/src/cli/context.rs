//! `noetl context`: named servers in `~/.noetl/config.yaml`.

use std::path::PathBuf;

use super::config::{self, Config, Context, Runtime};
use super::console;
use super::stop::{Exit, Stop};
use super::target::{Globals, first_token};
use crate::render::{clean, table};

/// Manage named servers
#[derive(Debug, clap::Subcommand)]
pub enum Contexts {
    /// Add or replace a context; needs --server-url
    Add {
        /// Its name
        name: String,
        /// Where `noetl run` runs
        #[arg(long, value_enum, default_value = "auto")]
        runtime: Runtime,
        /// Make it the current one
        #[arg(long)]
        set_current: bool,
    },
    /// Change what is given of a context: --server-url, --runtime, --session-token
    Update {
        /// Which
        name: String,
        /// Where `noetl run` runs
        #[arg(long, value_enum)]
        runtime: Option<Runtime>,
        /// Make it the current one
        #[arg(long)]
        set_current: bool,
    },
    /// List contexts; `*` marks the current one
    List,
    /// Make a context the current one
    Use {
        /// Which
        name: String,
    },
    /// Choose where `noetl run` runs under the current context
    SetRuntime {
        /// Where
        #[arg(value_enum)]
        runtime: Runtime,
    },
    /// Delete a context
    Delete {
        /// Which
        name: String,
    },
    /// Show the current context
    Current,
}

impl Contexts {
    /// Does what is asked with the file.
    pub fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let path = config::home()?.join("config.yaml");
        let mut config = Config::load(&path)?;
        let said = match self {
            Contexts::List => return list(&config),
            Contexts::Current => return current(&config),
            Contexts::Add { name, runtime, set_current } => add(&mut config, globals, (name, *runtime, *set_current))?,
            Contexts::Update { name, runtime, set_current } => {
                update(&mut config, globals, (name, *runtime, *set_current))?
            }
            Contexts::Use { name } => {
                let runtime = known(&mut config, name)?.runtime;
                config.current = Some(name.clone());
                format!("Switched to context '{name}' (runtime: {}).", runtime.as_str())
            }
            Contexts::SetRuntime { runtime } => {
                let name = config.current.clone().ok_or_else(no_current)?;
                known(&mut config, &name)?.runtime = *runtime;
                format!("Runtime for context '{name}' set to '{}'.", runtime.as_str())
            }
            Contexts::Delete { name } => {
                known(&mut config, name)?;
                config.contexts.shift_remove(name);
                if config.current.as_deref() == Some(name) {
                    config.current = None;
                }
                format!("Context '{name}' deleted.")
            }
        };
        config.save(&path)?;
        console::print(&format!("{said}\n"))?;
        Ok(Exit::Done)
    }
}

fn add(
    config: &mut Config,
    globals: &Globals,
    (name, runtime, current): (&str, Runtime, bool),
) -> Result<String, Stop> {
    let Some(url) = &globals.server_url else {
        return Err(
            Stop::usage("a context needs an address").hint(format!("noetl context add {name} --server-url URL"))
        );
    };
    if name.trim().is_empty() {
        return Err(Stop::usage("a context needs a name"));
    }
    let context = Context { server_url: url.clone(), runtime, token: token(globals)?, other: serde_json::Map::new() };
    let first = config.contexts.is_empty();
    config.contexts.insert(name.to_owned(), context);
    let mut said = format!("Context '{name}' added/updated.");
    if current || first {
        config.current = Some(name.to_owned());
        said.push_str(&format!("\nContext '{name}' is now the current context."));
    }
    Ok(said)
}

fn update(
    config: &mut Config,
    globals: &Globals,
    (name, runtime, current): (&str, Option<Runtime>, bool),
) -> Result<String, Stop> {
    let token = token(globals)?;
    let context = known(config, name)?;
    if let Some(url) = &globals.server_url {
        context.server_url.clone_from(url);
    }
    if let Some(runtime) = runtime {
        context.runtime = runtime;
    }
    if token.is_some() {
        context.token = token;
    }
    if current {
        config.current = Some(name.to_owned());
    }
    Ok(format!("Context '{name}' updated."))
}

/// The token on the command line is kept; one in the environment is not, it may be meant for another server.
fn token(globals: &Globals) -> Result<Option<String>, Stop> {
    if let Some(file) = &globals.token_file {
        let text = std::fs::read_to_string::<&PathBuf>(file)
            .map_err(|error| Stop::usage(format!("can not read the token file {}: {error}", file.display())))?;
        return match first_token(&text) {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(Stop::usage(format!("the token file {} holds no token", file.display()))),
        };
    }
    let from_environment = std::env::var("NOETL_SESSION_TOKEN").ok();
    Ok(globals.session_token.clone().filter(|token| Some(token) != from_environment.as_ref()))
}

fn known<'a>(config: &'a mut Config, name: &str) -> Result<&'a mut Context, Stop> {
    config
        .contexts
        .get_mut(name)
        .ok_or_else(|| Stop::new(Exit::Failed, format!("Context '{name}' not found.")).hint("see `noetl context list`"))
}

fn no_current() -> Stop {
    Stop::new(Exit::Failed, "no context is current").hint("choose one with `noetl context use NAME`")
}

fn list(config: &Config) -> Result<Exit, Stop> {
    let rows: Vec<Vec<String>> = config
        .contexts
        .iter()
        .map(|(name, context)| {
            let mark = if config.current.as_deref() == Some(name) { "*" } else { " " };
            let token = if context.token.is_some() { "yes" } else { "-" };
            vec![
                format!("{mark} {}", clean(name)),
                clean(&context.server_url).into_owned(),
                context.runtime.as_str().to_owned(),
                token.to_owned(),
            ]
        })
        .collect();
    console::print(&table::columns(&["  NAME", "SERVER URL", "RUNTIME", "TOKEN"], &rows))?;
    Ok(Exit::Done)
}

fn current(config: &Config) -> Result<Exit, Stop> {
    let name = config.current.as_deref().ok_or_else(no_current)?;
    let context = config.contexts.get(name).ok_or_else(no_current)?;
    console::print(&format!(
        "{name}\n  server_url: {}\n  runtime: {}\n",
        context.server_url,
        context.runtime.as_str()
    ))?;
    Ok(Exit::Done)
}
