//! What `noetl run` is about to run: a checked file, or a name in a catalog.

use std::path::{Path, PathBuf};

use noetl_core::playbook::{self, Playbook};
use serde_json::{Map, Value, json};

use super::catalog::{self, register_text};
use super::link::Link;
use super::reference::Reference;
use super::stop::{Exit, Stop};
use super::{console, refusal};
use crate::render::diagnostics::{self, Finding};
use crate::render::{clean, document};

/// What to run.
#[derive(Debug)]
pub enum Plan {
    /// A file that compiles.
    File {
        /// Where.
        path: PathBuf,
        /// Its text.
        source: String,
        /// Its meaning.
        playbook: Box<Playbook>,
    },
    /// A catalog path.
    Catalog {
        /// `metadata.path`.
        path: String,
        /// `None` = the newest.
        version: Option<i64>,
        /// What the catalog has there, once somebody has looked.
        playbook: Option<Box<Playbook>>,
    },
    /// A catalog id.
    Id(String),
}

impl Plan {
    /// Reads and checks what `reference` names. Every mistake in a file is shown.
    pub fn of(reference: Reference, target: Option<&str>) -> Result<Plan, Stop> {
        match reference {
            Reference::File { path, target: named } => {
                let source = catalog::read(&path)?;
                let playbook = compile(&path, &source)?;
                if let Some(step) = target.or(named.as_deref()) {
                    begins_at(&playbook, step)?;
                }
                Ok(Plan::File { path, source, playbook: Box::new(playbook) })
            }
            Reference::Catalog { path, version } => {
                no_target(target)?;
                Ok(Plan::Catalog { path, version, playbook: None })
            }
            Reference::Id(id) => {
                no_target(target)?;
                Ok(Plan::Id(id))
            }
        }
    }

    /// Returns the name that people know it by.
    pub fn name(&self) -> String {
        match self {
            Plan::File { playbook, .. } => playbook.path.to_string(),
            Plan::Catalog { path, .. } => path.clone(),
            Plan::Id(id) => id.clone(),
        }
    }

    /// Returns the line that says what kind of thing it is: `File: hello.yaml`.
    pub fn what(&self) -> String {
        match self {
            Plan::File { path, .. } => format!("File: {}", path.display()),
            Plan::Catalog { path, version: Some(version), .. } => format!("Catalog: {path} version {version}"),
            Plan::Catalog { path, version: None, .. } => format!("Catalog: {path}"),
            Plan::Id(id) => format!("DB ID: {id}"),
        }
    }

    /// Puts a file into the catalog, unless its newest version says the same; returns the request to execute.
    pub async fn request(&self, link: &mut Link, workload: &Map<String, Value>, strict: bool) -> Result<Value, Stop> {
        let mut request = Map::new();
        match self {
            Plan::File { path, source, playbook } => {
                let entry = match same_in_catalog(link, &playbook.path, source).await? {
                    Some(entry) => entry,
                    None => register_text(link, &path.display().to_string(), source).await?,
                };
                request.insert("path".into(), json!(&*playbook.path));
                if let Some(version) = document::count(&entry, "version") {
                    request.insert("version".into(), json!(version));
                }
            }
            Plan::Catalog { .. } | Plan::Id(_) => request = self.named(),
        }
        request.insert("workload".into(), Value::Object(workload.clone()));
        request.insert("resource_kind".into(), json!("playbook"));
        if strict {
            request.insert("strict".into(), json!(true));
        }
        Ok(Value::Object(request))
    }

    /// Returns how a request names it.
    fn named(&self) -> Map<String, Value> {
        let mut named = Map::new();
        match self {
            Plan::File { playbook, .. } => {
                named.insert("path".into(), json!(&*playbook.path));
            }
            Plan::Catalog { path, version, .. } => {
                named.insert("path".into(), json!(path));
                if let Some(version) = version {
                    named.insert("version".into(), json!(version));
                }
            }
            // A server of another make may know other ids, and reads them where we read paths.
            Plan::Id(id) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
                named.insert("catalog_id".into(), json!(id));
            }
            Plan::Id(id) => {
                named.insert("path".into(), json!(id));
            }
        }
        named
    }

    /// Looks up what the catalog has under the name, down to the version that would run.
    pub async fn look_up(&self, link: &mut Link) -> Result<Plan, Stop> {
        let body = Value::Object(self.named());
        let answer = link.ask(|client| client.post(&["catalog", "resource"]).body(body.clone())).await?;
        if answer.status.as_u16() == 404 {
            return Err(refusal::of(&answer).hint("register it first with `noetl register FILE`, or name a file"));
        }
        let entry = refusal::expect(&answer)?;
        let text = |key: &str| document::text(&entry, key).unwrap_or_default();
        let playbook = Box::new(compile(Path::new(text("path")), text("content"))?);
        let version = document::count(&entry, "version").and_then(|version| i64::try_from(version).ok());
        Ok(Plan::Catalog { path: text("path").to_owned(), version, playbook: Some(playbook) })
    }

    /// Returns the steps of what is known, one line each: `start (python) -> end, again`.
    pub fn steps(&self) -> Vec<String> {
        let (Plan::File { playbook, .. } | Plan::Catalog { playbook: Some(playbook), .. }) = self else {
            return Vec::new();
        };
        playbook
            .steps
            .iter()
            .map(|step| {
                let kinds: Vec<&str> = step.body.tasks.iter().map(|task| &*task.kind).collect();
                let looped = if step.looping.is_some() { ", loop" } else { "" };
                let next: Vec<&str> = step.next.arcs.iter().map(|arc| &*playbook.step(arc.to).name).collect();
                let next = if next.is_empty() { String::new() } else { format!(" -> {}", next.join(", ")) };
                clean(&format!("{} ({}{looped}){next}", step.name, kinds.join(", "))).into_owned()
            })
            .collect()
    }
}

/// Compiles a file, showing what is wrong or odd with it.
pub fn compile(path: &Path, source: &str) -> Result<Playbook, Stop> {
    let file = path.display().to_string();
    let show = |found: &[Finding]| console::note(diagnostics::report(&file, source, found).trim_end());
    match playbook::compile(source) {
        Ok(compiled) => {
            let warnings: Vec<Finding> = compiled.warnings.iter().map(Finding::from).collect();
            if !warnings.is_empty() {
                show(&warnings);
            }
            Ok(compiled.playbook)
        }
        Err(found) => {
            let findings: Vec<Finding> = found.iter().map(Finding::from).collect();
            show(&findings);
            let tally = diagnostics::tally(&findings);
            Err(Stop::new(Exit::Usage, format!("{file} is no valid playbook: {tally}")))
        }
    }
}

/// Returns the newest catalog entry of `path` when its text is `source`: running a file twice is no new version.
async fn same_in_catalog(link: &mut Link, path: &str, source: &str) -> Result<Option<Value>, Stop> {
    let body = json!({"path": path});
    let answer = link.ask(|client| client.post(&["catalog", "resource"]).body(body.clone())).await?;
    if answer.status.as_u16() == 404 {
        return Ok(None);
    }
    let entry = refusal::expect(&answer)?;
    Ok((entry.get("content").and_then(Value::as_str) == Some(source)).then_some(entry))
}

/// A run begins at the playbook's own entry step; another one can not be chosen from outside.
fn begins_at(playbook: &Playbook, step: &str) -> Result<(), Stop> {
    let Some(place) = playbook.find(step) else {
        let names: Vec<&str> = playbook.steps.iter().map(|step| &*step.name).collect();
        return Err(Stop::usage(format!("the playbook has no step `{step}`"))
            .hint(format!("its steps are: {}", names.join(", "))));
    };
    if place == playbook.entry {
        return Ok(());
    }
    let entry = &playbook.step(playbook.entry).name;
    Err(Stop::usage(format!("this playbook begins at `{entry}`, not at `{step}`"))
        .hint(format!("to begin elsewhere, set `entry_step: {step}` under `executor.spec` in the file")))
}

fn no_target(target: Option<&str>) -> Result<(), Stop> {
    match target {
        Some(_) => Err(Stop::usage("--target goes with a file, not with something in a catalog")),
        None => Ok(()),
    }
}
