//! `noetl catalog`, `register`, `list` and `get`: playbooks and what became of them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use noetl_core::id::ExecutionId;
use serde_json::{Value, json};

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, credential, refusal};
use crate::render::diagnostics::{self, Finding};
use crate::render::{clean, document, json as text};

/// Deepest folder that is searched for playbooks.
const DEPTH_MAX: usize = 32;

/// Register and look up playbooks
#[derive(Debug, clap::Subcommand)]
pub enum Catalog {
    /// Register one playbook file
    Register {
        /// The YAML file
        file: PathBuf,
    },
    /// Show one playbook, its text included
    Get {
        /// Catalog path, or PATH@VERSION
        path: String,
    },
    /// List the catalog, newest first
    List {
        /// What to list
        #[arg(default_value = "Playbook")]
        resource_type: String,
        /// Print the answer as JSON on one line
        #[arg(short, long)]
        json: bool,
    },
    /// Register many files, or all playbooks below folders
    Load {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Files in one request
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        batch_size: u16,
        /// Only say what would be registered
        #[arg(long)]
        dry_run: bool,
        /// Print the outcome as JSON on one line
        #[arg(short, long)]
        json: bool,
    },
}

impl Catalog {
    /// Does what is asked.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Catalog::Register { file } => register_file(globals, file).await,
            Catalog::Get { path } => get_playbook(globals, path).await,
            Catalog::List { resource_type, json } => list(globals, resource_type, *json).await,
            Catalog::Load { paths, batch_size, dry_run, json } => {
                load(globals, &Load { paths, batch_size: usize::from(*batch_size), dry_run: *dry_run, json: *json })
                    .await
            }
        }
    }
}

/// Register playbooks and credentials
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Register {
    #[command(subcommand)]
    what: Option<RegisterWhat>,
    /// A playbook file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum RegisterWhat {
    /// Register a playbook file, or every playbook below a folder
    Playbook(FileOrDirectory),
    /// Register a credential file, or every credential below a folder
    Credential(FileOrDirectory),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct FileOrDirectory {
    /// One file
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A folder; every file below it that is one: YAML with `apiVersion:` and `kind: Playbook` for playbooks, JSON
    /// with `type` and `data` for credentials
    #[arg(short, long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl Register {
    /// Registers.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        match (&self.what, &self.file) {
            (Some(RegisterWhat::Playbook(FileOrDirectory { file: Some(file), .. })), _) | (None, Some(file)) => {
                register_file(globals, file).await
            }
            (Some(RegisterWhat::Playbook(FileOrDirectory { directory: Some(directory), .. })), _) => {
                register_directory(globals, directory).await
            }
            (Some(RegisterWhat::Credential(what)), _) => credential::register(globals, what).await,
            (Some(RegisterWhat::Playbook(FileOrDirectory { file: None, directory: None })), _) | (None, None) => {
                Err(Stop::usage("nothing to register").hint("noetl register playbook --file FILE, or --directory DIR"))
            }
        }
    }
}

/// List what a catalog holds
#[derive(Debug, clap::Args)]
pub struct List {
    /// What to list
    #[arg(default_value = "Playbook")]
    resource_type: String,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl List {
    /// Shows the list.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        list(globals, &self.resource_type, self.json).await
    }
}

/// Show one thing in full, as JSON
#[derive(Debug, clap::Subcommand)]
pub enum Get {
    /// A playbook with its text
    Playbook {
        /// Catalog path, or PATH@VERSION
        path: String,
    },
    /// A credential; secret values are masked unless the server runs with --allow-secret-read
    Credential {
        /// Its name, or its id
        name: String,
        /// Accepted for older scripts: the data is shown anyway
        #[arg(long)]
        include_data: bool,
    },
    /// An execution with the newest page of its log
    Execution {
        /// Which
        id: ExecutionId,
    },
    /// The steps of an execution and where they stand
    Steps {
        /// Which execution
        id: ExecutionId,
    },
    /// The result of a step, wherever it is stored
    Result {
        /// Which execution
        id: ExecutionId,
        /// Which step
        step: String,
    },
}

impl Get {
    /// Shows it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Get::Playbook { path } => get_playbook(globals, path).await,
            Get::Credential { name, include_data: _ } => credential::show(globals, name).await,
            Get::Execution { id } => show(globals, &["executions", &id.to_string()]).await,
            Get::Steps { id } => show(globals, &["executions", &id.to_string(), "steps"]).await,
            Get::Result { id, step } => show(globals, &["executions", &id.to_string(), "steps", step]).await,
        }
    }
}

async fn show(globals: &Globals, segments: &[&str]) -> Result<Exit, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link.ask(|client| client.get(segments)).await?;
    link.close().await;
    console::print_json(&refusal::expect(&answer)?, false)?;
    Ok(Exit::Done)
}

async fn get_playbook(globals: &Globals, name: &str) -> Result<Exit, Stop> {
    let body = match name.rsplit_once('@') {
        Some((path, version)) if !path.is_empty() => json!({"path": path, "version": version}),
        Some(_) | None => json!({"path": name}),
    };
    let mut link = Link::new(globals, Mode::Look)?;
    let answer = link.ask(|client| client.post(&["catalog", "resource"]).body(body.clone())).await?;
    link.close().await;
    console::print_json(&refusal::expect(&answer)?, false)?;
    Ok(Exit::Done)
}

async fn list(globals: &Globals, resource_type: &str, compact: bool) -> Result<Exit, Stop> {
    let mut link = Link::new(globals, Mode::Look)?;
    let body = json!({"resource_type": resource_type});
    let answer = link.ask(|client| client.post(&["catalog", "list"]).body(body.clone())).await?;
    link.close().await;
    let body = refusal::expect(&answer)?;
    if !compact {
        console::print(&format!("Catalog ({}):\n", clean(resource_type)))?;
    }
    console::print_json(&body, compact)?;
    Ok(Exit::Done)
}

async fn register_file(globals: &Globals, file: &Path) -> Result<Exit, Stop> {
    let source = read(file)?;
    let mut link = Link::new(globals, Mode::Create)?;
    let registered = register_text(&mut link, &file.display().to_string(), &source).await;
    link.close().await;
    console::print(&format!("Playbook registered successfully: {}\n", text::compact(&registered?)))?;
    Ok(Exit::Done)
}

/// Registers a text, shows what is said about it, and returns the answer.
pub async fn register_text(link: &mut Link, file: &str, source: &str) -> Result<Value, Stop> {
    let body = json!({"content": STANDARD.encode(source), "resource_type": "Playbook"});
    let answer = link.ask(|client| client.post(&["catalog", "register"]).body(body.clone())).await?;
    if !answer.is_success() {
        return Err(refusal::of_playbook(&answer, file, source));
    }
    let body = refusal::expect(&answer)?;
    let warnings = Finding::of_answer(&json!({"diagnostics": body.get("warnings")}));
    if !warnings.is_empty() {
        console::note(diagnostics::report(file, source, &warnings).trim_end());
    }
    Ok(body)
}

async fn register_directory(globals: &Globals, directory: &Path) -> Result<Exit, Stop> {
    let files = playbooks_below(directory)?;
    console::print(&format!("Found {} file(s) in {:?}\n", files.len(), directory.display().to_string()))?;
    let mut link = Link::new(globals, Mode::Create)?;
    let (mut succeeded, mut exit) = (0_usize, Exit::Done);
    for file in &files {
        let outcome = match read(file) {
            Ok(source) => register_text(&mut link, &file.display().to_string(), &source).await,
            Err(stop) => Err(stop),
        };
        match outcome {
            Ok(body) => {
                succeeded += 1;
                console::print(&format!("Playbook registered successfully: {}\n", text::compact(&body)))?;
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

struct Load<'a> {
    paths: &'a [PathBuf],
    batch_size: usize,
    dry_run: bool,
    json: bool,
}

async fn load(globals: &Globals, load: &Load<'_>) -> Result<Exit, Stop> {
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for path in load.paths {
        let files = if path.is_dir() { yaml_below(path)? } else { vec![path.clone()] };
        for file in files {
            match read(&file) {
                Ok(source) if is_playbook(&source) => found.push((file, source)),
                Ok(_) => skipped.push((file, "no playbook".to_owned())),
                Err(stop) => skipped.push((file, stop.message)),
            }
        }
    }
    if !load.json {
        console::print(&format!("discovered {} resource(s), {} skipped\n", found.len(), skipped.len()))?;
        for (file, reason) in &skipped {
            console::print(&format!("  skip {}: {}\n", file.display(), clean(reason)))?;
        }
    }
    if load.dry_run {
        for (file, _) in found.iter().filter(|_| !load.json) {
            console::print(&format!("  would register {}\n", file.display()))?;
        }
        if load.json {
            let files: Vec<String> = found.iter().map(|(file, _)| file.display().to_string()).collect();
            console::print_json(&json!({"would_register": files, "skipped": skipped.len()}), true)?;
        }
        return Ok(Exit::Done);
    }
    let mut link = Link::new(globals, Mode::Create)?;
    let mut outcomes = Vec::new();
    for batch in found.chunks(load.batch_size) {
        let items: Vec<Value> = batch
            .iter()
            .map(|(_, source)| json!({"content": STANDARD.encode(source), "resource_type": "Playbook"}))
            .collect();
        let body = json!({"items": items});
        let answer = link.ask(|client| client.post(&["catalog", "register", "batch"]).body(body.clone())).await?;
        let body = refusal::expect(&answer)?;
        let results = document::list(&body, "results");
        for (place, (file, _)) in batch.iter().enumerate() {
            outcomes.push((file, results.get(place).cloned().unwrap_or(Value::Null)));
        }
    }
    link.close().await;
    let mut failed = 0;
    for (file, result) in &outcomes {
        let registered = document::text(result, "status") == Some("registered");
        failed += usize::from(!registered);
        if load.json {
            continue;
        }
        console::print(&if registered {
            let path = clean(document::text(result, "path").unwrap_or("?")).into_owned();
            format!("  ok   {} -> {path} v{}\n", file.display(), document::count(result, "version").unwrap_or(0))
        } else {
            let error = document::text(result, "error").unwrap_or("the server said nothing about it");
            format!("  FAIL {}: {}\n", file.display(), clean(error))
        })?;
    }
    let registered = outcomes.len() - failed;
    if load.json {
        let results: Vec<&Value> = outcomes.iter().map(|(_, result)| result).collect();
        let summary = json!({"registered": registered, "failed": failed, "skipped": skipped.len(), "results": results});
        console::print_json(&summary, true)?;
    } else {
        console::print(&format!("registered {registered}, failed {failed}, skipped {}\n", skipped.len()))?;
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

/// Reads a playbook's text.
pub fn read(file: &Path) -> Result<String, Stop> {
    fs::read_to_string(file).map_err(|error| Stop::usage(format!("can not read {}: {error}", file.display())))
}

fn is_playbook(source: &str) -> bool {
    source.contains("apiVersion:")
        && source.lines().any(|line| {
            let kind = line.strip_prefix("kind:").map(|kind| kind.split('#').next().unwrap_or_default());
            kind.is_some_and(|kind| kind.trim().trim_matches(['"', '\'']).eq_ignore_ascii_case("playbook"))
        })
}

fn playbooks_below(directory: &Path) -> Result<Vec<PathBuf>, Stop> {
    let files = yaml_below(directory)?;
    // A file that can not be read stays, so that its error is shown.
    Ok(files.into_iter().filter(|file| fs::read_to_string(file).map_or(true, |source| is_playbook(&source))).collect())
}

/// Returns YAML files below `directory`, in the order of their names.
fn yaml_below(directory: &Path) -> Result<Vec<PathBuf>, Stop> {
    files_below(directory, &["yaml", "yml"])
}

/// Returns files below `directory` with one of these endings, in the order of their names. Links to folders are not
/// followed.
pub fn files_below(directory: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, Stop> {
    let failed = |path: &Path, error: &std::io::Error| Stop::usage(format!("can not read {}: {error}", path.display()));
    let mut files = Vec::new();
    let mut folders = vec![(directory.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
            let entry = entry.map_err(|error| failed(&folder, &error))?;
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playbook_is_told_by_its_head() {
        for (source, expected) in [
            ("apiVersion: noetl.io/v2\nkind: Playbook\n", true),
            ("apiVersion: noetl.io/v2\nkind: \"Playbook\" # ours\n", true),
            ("apiVersion: v1\nkind: Credential\n", false),
            ("kind: Playbook\n", false),
            ("apiVersion: x\nspec:\n  kind: Playbook\n", false),
        ] {
            assert_eq!(is_playbook(source), expected, "{source}");
        }
    }

    #[test]
    fn folders_are_searched_to_the_bottom_in_order() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        for name in ["z.yaml", "b/a.yml", "b/c/a.yaml", "b/readme.md"] {
            fs::write(root.path().join(name), "apiVersion: x\nkind: Playbook\n").unwrap();
        }
        fs::write(root.path().join("other.yaml"), "kind: Credential\n").unwrap();
        let found = playbooks_below(root.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b/a.yml", "b/c/a.yaml", "z.yaml"]);
    }
}
