//! `noetl credential`, `register credential` and `get credential`: what tools need to get in elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use noetl_store::postgres::{Postgres, PostgresOptions};
use noetl_store::{Store, StoreError};
use serde_json::Value;

use super::catalog::{FileOrDirectory, files_below, read};
use super::link::{Link, Mode, bad_directory, bad_node, bad_vault};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::clock;
use crate::embed::{EmbedError, Role};
use crate::render::{clean, document, json as text, table};
use crate::server::background::DATABASE_VARIABLE;
use crate::server::node;
use crate::vault::key::KeySource;
use crate::vault::rekey::{self, NEXT_KEY_VARIABLE};
use crate::vault::seal::MasterKey;

/// Keep and look up credentials
#[derive(Debug, clap::Subcommand)]
pub enum Credential {
    /// Register a credential file, or every credential below a folder
    Register(FileOrDirectory),
    /// List credentials by name, without their data
    List {
        /// Only this type
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Print the answer as JSON on one line
        #[arg(short, long)]
        json: bool,
    },
    /// Show one; secret values are masked unless the server runs with --allow-secret-read
    Get {
        /// Its name, or its id
        name: String,
    },
    /// Remove one
    Delete {
        /// Its name, or its id
        name: String,
    },
    /// Seal everything anew with another key. Nobody else may use the store meanwhile
    ///
    /// A key file gets a new key. Where NOETL_ENCRYPTION_KEY gives the key, NOETL_NEW_ENCRYPTION_KEY gives the next.
    Rekey {
        /// PostgreSQL database that servers share, instead of the file in the data directory
        #[arg(long, value_name = "URL", env = DATABASE_VARIABLE, hide_env_values = true)]
        database_url: Option<String>,
    },
}

impl Credential {
    /// Does what is asked.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Credential::Register(what) => register(globals, what).await,
            Credential::List { kind, json } => list(globals, kind.as_deref(), *json).await,
            Credential::Get { name } => show(globals, name).await,
            Credential::Delete { name } => delete(globals, name).await,
            Credential::Rekey { database_url: None } => rekey(globals).await,
            Credential::Rekey { database_url: Some(url) } => rekey_database(url).await,
        }
    }
}

/// Registers what a file or a folder holds.
pub async fn register(globals: &Globals, what: &FileOrDirectory) -> Result<Exit, Stop> {
    match (&what.file, &what.directory) {
        (Some(file), _) => {
            let document = parse(file)?;
            let mut link = Link::new(globals, Mode::Create)?;
            let registered = send(&mut link, document).await;
            link.close().await;
            say(&registered?)?;
            Ok(Exit::Done)
        }
        (None, Some(directory)) => register_directory(globals, directory).await,
        (None, None) => {
            Err(Stop::usage("nothing to register").hint("noetl register credential --file FILE, or --directory DIR"))
        }
    }
}

async fn register_directory(globals: &Globals, directory: &Path) -> Result<Exit, Stop> {
    let files: Vec<PathBuf> = files_below(directory, &["json"])?
        .into_iter()
        // A file that can not be read stays, so that its error is shown.
        .filter(|file| fs::read_to_string(file).map_or(true, |source| is_credential(&source)))
        .collect();
    console::print(&format!("Found {} file(s) in {:?}\n", files.len(), directory.display().to_string()))?;
    let mut link = Link::new(globals, Mode::Create)?;
    let (mut succeeded, mut exit) = (0_usize, Exit::Done);
    for file in &files {
        let outcome = match parse(file) {
            Ok(document) => send(&mut link, document).await,
            Err(stop) => Err(stop),
        };
        match outcome {
            Ok(body) => {
                succeeded += 1;
                say(&body)?;
            }
            Err(stop) => {
                console::complain(&stop);
                exit = exit.or_worse(stop.exit);
                if stop.exit == Exit::Unreachable {
                    break;
                }
            }
        }
    }
    link.close().await;
    console::print(&format!("\nRegistration complete: {succeeded} succeeded, {} failed\n", files.len() - succeeded))?;
    Ok(exit)
}

async fn send(link: &mut Link, document: Value) -> Result<Value, Stop> {
    let answer = link.ask(|client| client.post(&["credentials"]).body(document.clone())).await?;
    refusal::expect(&answer)
}

fn say(body: &Value) -> Result<(), Stop> {
    console::print(&format!("Credential registered successfully: {}\n", text::compact(body)))
}

/// Reads a credential file. What is wrong is said without repeating any of it.
fn parse(file: &Path) -> Result<Value, Stop> {
    let source = read(file)?;
    match serde_json::from_str(&source) {
        Ok(Value::Object(document)) => Ok(Value::Object(document)),
        Ok(_) => {
            Err(Stop::usage(format!("{}: a credential is a JSON object with name, type and data", file.display())))
        }
        Err(error) => {
            let place = format!("{}:{}:{}", file.display(), error.line(), error.column());
            Err(Stop::usage(format!("{place}: this is not JSON")))
        }
    }
}

fn is_credential(source: &str) -> bool {
    serde_json::from_str::<Value>(source).is_ok_and(|document| {
        ["type", "credential_type"].iter().any(|key| document.get(*key).is_some_and(Value::is_string))
    })
}

async fn list(globals: &Globals, kind: Option<&str>, json: bool) -> Result<Exit, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link.ask(|client| client.get(&["credentials"]).query_opt("type", kind)).await?;
    link.close().await;
    let body = refusal::expect(&answer)?;
    if json {
        console::print_json(&body, true)?;
        return Ok(Exit::Done);
    }
    let field = |item, key| clean(document::text(item, key).unwrap_or("")).into_owned();
    let rows: Vec<Vec<String>> = document::list(&body, "items")
        .iter()
        .map(|item| ["name", "type", "updated_at", "description"].map(|key| field(item, key)).into())
        .collect();
    console::print(&table::columns(&["NAME", "TYPE", "UPDATED", "DESCRIPTION"], &rows))?;
    Ok(Exit::Done)
}

/// Shows one credential, as far as the server shows it.
pub async fn show(globals: &Globals, name: &str) -> Result<Exit, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link.ask(|client| client.get(&["credentials", name]).query("include_data", true)).await?;
    link.close().await;
    console::print_json(&refusal::expect(&answer)?, false)?;
    Ok(Exit::Done)
}

async fn delete(globals: &Globals, name: &str) -> Result<Exit, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link.ask(|client| client.delete(&["credentials", name])).await?;
    link.close().await;
    let body = refusal::expect(&answer)?;
    console::print(&format!("{}\n", clean(document::text(&body, "message").unwrap_or("done"))))?;
    Ok(Exit::Done)
}

async fn rekey(globals: &Globals) -> Result<Exit, Stop> {
    let dir = globals.data_directory()?;
    if !dir.exists() {
        return Err(bad_directory(&EmbedError::Missing(dir.path().to_path_buf())));
    }
    let next = next_key()?;
    let source = KeySource::of_environment(dir.key_file()).map_err(|error| bad_vault(&error))?;
    let Some(owned) = dir.try_take(Role::Visit, clock::now()).map_err(|error| bad_directory(&error))? else {
        let message = format!("{} is in use, and its key can not change meanwhile", dir.path().display());
        return Err(Stop::new(Exit::Failed, message).hint("`noetl server stop` stops a server"));
    };
    let store = node::open_directory(&owned).await.map_err(|error| bad_node(&error))?;
    let done = reseal(store, source, next).await;
    drop(owned);
    done
}

/// The same for a database that servers share: its key is given to each of them, so it is no file's.
async fn rekey_database(url: &str) -> Result<Exit, Stop> {
    let failed = |error: &StoreError| Stop::new(Exit::Failed, error.to_string());
    let address = url.parse().map_err(|error: StoreError| Stop::usage(error.to_string()))?;
    let next = next_key()?;
    let source = KeySource::of_environment_alone().map_err(|error| bad_vault(&error))?;
    let store = Postgres::open(PostgresOptions::new(address)).await.map_err(|error| failed(&error))?;
    let others = store.others().await.map_err(|error| failed(&error))?;
    if others > 0 {
        store.close().await.ok();
        let message = format!("{others} server(s) use the database, and its key can not change meanwhile");
        return Err(Stop::new(Exit::Failed, message).hint("stop them, and start them again with the new key"));
    }
    reseal(Arc::new(store), source, next).await
}

fn next_key() -> Result<Option<MasterKey>, Stop> {
    match std::env::var(NEXT_KEY_VARIABLE) {
        Ok(text) if !text.is_empty() => match MasterKey::parse(&text) {
            Ok(key) => Ok(Some(key)),
            Err(bad) => Err(Stop::usage(format!("{NEXT_KEY_VARIABLE} holds no key: {bad}"))),
        },
        Ok(_) | Err(_) => Ok(None),
    }
}

async fn reseal(store: Arc<dyn Store>, source: KeySource, next: Option<MasterKey>) -> Result<Exit, Stop> {
    let changed = rekey::rekey(Arc::clone(&store), source, next).await;
    if let Err(error) = store.close().await {
        console::note(&format!("the store did not close: {error}"));
    }
    let count = changed.map_err(|error| bad_vault(&error))?;
    console::print(&format!("{count} credential(s) are sealed with the new key\n"))?;
    Ok(Exit::Done)
}
