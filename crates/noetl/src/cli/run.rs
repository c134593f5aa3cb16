//! `noetl run`: runs a playbook here, or submits it to a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::Runtime;
use super::display::Display;
use super::follow::{self, Ending, Follow};
use super::link::{Link, Mode, fresh_key};
use super::plan::Plan;
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::wait::{self, exit_of};
use super::workload::WorkloadArgs;
use super::{console, labels, reference, refusal};
use crate::embed::Role;
use crate::render::{DIM, clean, document, duration, json as text, progress};
use crate::server::node::{NodeOptions, WorkerSettings};
use crate::tools::{Output, Printed};

/// What the answer to a start says when a concurrency key has cancelled it (`on_conflict: cancel_new`).
const CANCELLED_AT_BIRTH: &str = "cancelled";
/// Most steps whose results `--json` collects.
const RESULTS_MAX: usize = 1000;
/// Cancelled executions whose cleanups are looked for at the end of an interrupted run.
const CLEANUPS_MAX: usize = 1000;
/// How long leaving the directory may take before it is worth a word.
const LEAVE_QUIETLY: Duration = Duration::from_secs(1);

/// Run a playbook: a file, or a name in the catalog
///
/// REF is a file, a catalog path (also PATH@VERSION or catalog://PATH@VERSION), or a catalog id. Exit codes: 0
/// completed, 1 failed or completed with a failed step that nothing handled, 2 usage or invalid playbook, 3 server not
/// reachable, 7 cancelled, 130 Ctrl-C (which cancels a local run and lets its cleanup end; a second one stops its tools
/// at once, a third one leaves, and so does one while it cleans up).
#[derive(Debug, clap::Args)]
pub struct Run {
    /// What to run
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Where to run it
    #[arg(short, long, value_enum, default_value = "auto")]
    pub runtime: Runtime,
    /// The step to begin with; must be the playbook's entry step
    #[arg(short, long, value_name = "STEP")]
    pub target: Option<String>,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Label of the execution, laid over the playbook's (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Catalog version [default: the newest]
    #[arg(short = 'V', long, value_name = "VERSION")]
    pub version: Option<String>,
    /// With a server: show the run until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Show routing and commands too
    #[arg(short, long)]
    pub verbose: bool,
    /// Check everything and say what would run
    #[arg(long)]
    pub dry_run: bool,
    /// Print the outcome as JSON
    #[arg(short, long)]
    pub json: bool,
    /// A failed step that nothing handled is no reason for exit code 1
    #[arg(long)]
    pub allow_failed_steps: bool,
    /// Every error that nothing handles fails the run
    #[arg(long)]
    pub strict: bool,
    /// Cancel a local run that takes longer; stop following a run on a server
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Commands that a local run executes at once [default: twice the processors, at least 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub worker_slots: Option<u32>,
    /// Environment variable that templates and tools of a local run may see, beside PATH, HOME and others that
    /// programs need to run (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub expose_env: Vec<String>,
    /// Folder with the secrets of the provider `file` for a local run, one per file
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
}

impl Run {
    /// Runs it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let (runtime, why) = globals.runtime(self.runtime)?;
        console::note(&format!("runtime: {} ({why})", runtime.as_str()));
        if runtime == Runtime::Local
            && (globals.server_url.is_some() || globals.host.is_some() || globals.port.is_some())
        {
            return Err(Stop::usage("--runtime local does not go with a named server")
                .hint("leave out the server, or say --runtime distributed"));
        }
        let workload = self.workload.read()?;
        let reference = reference::resolve(&self.reference, self.version.as_deref(), std::path::Path::is_file);
        let plan = Plan::of(reference, self.target.as_deref())?;
        if self.dry_run {
            return self.say_plan(globals, runtime, &plan, &workload).await;
        }
        match runtime {
            Runtime::Distributed => self.submit(globals, &plan, &workload).await,
            Runtime::Local | Runtime::Auto => self.run_here(globals, &plan, &workload).await,
        }
    }

    async fn say_plan(
        &self,
        globals: &Globals,
        runtime: Runtime,
        plan: &Plan,
        workload: &Map<String, Value>,
    ) -> Result<Exit, Stop> {
        let found = match plan {
            Plan::File { .. } => None,
            Plan::Catalog { .. } | Plan::Id(_) => {
                let mut link = match runtime {
                    Runtime::Distributed => to_server(globals).await?,
                    Runtime::Local | Runtime::Auto => Link::to_directory(globals, Mode::Look)?,
                };
                let found = plan.look_up(&mut link).await;
                link.close().await;
                Some(found?)
            }
        };
        let plan = found.as_ref().unwrap_or(plan);
        let steps = plan.steps();
        if self.json {
            let plan = json!({
                "dry_run": true, "runtime": runtime.as_str(), "playbook": plan.name(), "what": plan.what(),
                "workload": workload, "steps": steps,
            });
            console::print_json(&plan, false)?;
            return Ok(Exit::Done);
        }
        let mut out =
            format!("\n[DRY RUN] Would execute with:\n  Runtime: {}\n  {}\n", runtime.as_str(), clean(&plan.what()));
        if !workload.is_empty() {
            out.push_str(&format!("  Workload: {}\n", text::compact(&Value::Object(workload.clone()))));
        }
        out.push_str(&format!("  Playbook: {}\n  Steps:\n", clean(&plan.name())));
        for step in steps {
            out.push_str(&format!("    {step}\n"));
        }
        console::print(&out)?;
        Ok(Exit::Done)
    }

    /// Runs in the data directory: by this process, or by whoever owns it.
    async fn run_here(&self, globals: &Globals, plan: &Plan, workload: &Map<String, Value>) -> Result<Exit, Stop> {
        let mut interrupts = follow::Interrupts::listen()?;
        let mut link = Link::to_directory(globals, Mode::Work(Box::new(self.node())))?;
        let started = tokio::select! {
            started = self.start(&mut link, plan, workload) => started?,
            () = interrupts.next() => {
                link.close().await;
                return Ok(Exit::Interrupted);
            }
        };
        if !link.owns() {
            self.note_elsewhere();
        }
        let id = refusal::required_id(&started, "execution_id")?;
        let watched = self.watch(&mut link, &id, &plan.name(), Some(&mut interrupts)).await?;
        if watched.ending == Ending::Left {
            // The third Ctrl-C: whoever owns the directory next finds what is left and goes on from there.
            return Ok(Exit::Interrupted);
        }
        if !tidied_up(&mut link, &watched, &mut interrupts).await? {
            return Ok(Exit::Interrupted);
        }
        let outcome = self.conclude(&mut link, &id, &watched).await;
        leave(&mut link, &mut interrupts).await;
        outcome
    }

    /// Returns what this process is to be while it owns the directory.
    fn node(&self) -> NodeOptions {
        let worker = WorkerSettings {
            slots: self.worker_slots,
            secrets_dir: self.secrets_dir.clone(),
            output: self.verbose.then(tool_output),
            ..WorkerSettings::default()
        };
        NodeOptions { expose_env: self.expose_env.clone(), ..NodeOptions::working(Role::Run, Some(worker)) }
    }

    /// Says that somebody else's worker gets the commands, if that makes a difference.
    fn note_elsewhere(&self) {
        if !self.expose_env.is_empty() || self.secrets_dir.is_some() {
            console::note("--expose-env and --secrets-dir do not count here: a server runs this, with its own");
        }
    }

    /// Submits to a server.
    async fn submit(&self, globals: &Globals, plan: &Plan, workload: &Map<String, Value>) -> Result<Exit, Stop> {
        let mut link = to_server(globals).await?;
        self.note_elsewhere();
        let request = self.request(&mut link, plan, workload).await?;
        if !self.json {
            let mut said = format!(
                "Executing playbook on distributed server...\n  Path: {}\n",
                clean(request.get("path").and_then(Value::as_str).unwrap_or(&plan.name()))
            );
            if let Some(version) = document::count(&request, "version") {
                said.push_str(&format!("  Version: {version}\n"));
            }
            said.push_str(&format!("  Server: {}\n\n", link.place()));
            console::print(&said)?;
        }
        let started = execute(&mut link, &request).await?;
        let id = refusal::required_id(&started, "execution_id")?;
        let at_birth = document::text(&started, "status") == Some(CANCELLED_AT_BIRTH);
        if at_birth && !self.follow {
            if self.json {
                console::print_json(&started, true)?;
            } else {
                console::print(&format!("Execution cancelled where it began:\n{}\n", text::pretty(&started)))?;
            }
            console::note(&format!("another run has its concurrency key; `noetl why {id}` says which"));
            return Ok(Exit::Cancelled);
        }
        if !self.follow {
            if self.json {
                console::print_json(&started, true)?;
            } else {
                console::print(&format!(
                    "Execution started:\n{}\n\nTo check status:\n  noetl status {}\n",
                    text::pretty(&started),
                    started["execution_id"]
                ))?;
            }
            return Ok(Exit::Done);
        }
        if !self.json {
            console::print(&format!("Execution started:\n{}\n", text::pretty(&started)))?;
        }
        let mut interrupts = follow::Interrupts::listen()?;
        let name = plan.name();
        let watched = tokio::select! {
            watched = self.watch(&mut link, &id, &name, None) => watched?,
            () = interrupts.next() => {
                console::note(&format!("it goes on; follow it with `noetl events {id} --follow`, stop it with `noetl cancel {id}`"));
                return Ok(Exit::Interrupted);
            }
        };
        if watched.ending == Ending::TimedOut {
            return Err(Stop::new(Exit::TimedOut, format!("execution {id} has not ended in time; it goes on")));
        }
        self.conclude(&mut link, &id, &watched).await
    }

    async fn request(&self, link: &mut Link, plan: &Plan, workload: &Map<String, Value>) -> Result<Value, Stop> {
        // Checked before anything is registered.
        let labels = labels::given(&self.label)?;
        let mut request = plan.request(link, workload, self.strict).await?;
        if let Some(labels) = labels {
            request["labels"] = labels;
        }
        Ok(request)
    }

    async fn start(&self, link: &mut Link, plan: &Plan, workload: &Map<String, Value>) -> Result<Value, Stop> {
        let request = self.request(link, plan, workload).await?;
        execute(link, &request).await
    }

    async fn watch(
        &self,
        link: &mut Link,
        id: &str,
        name: &str,
        interrupts: Option<&mut follow::Interrupts>,
    ) -> Result<follow::Watched, Stop> {
        let display = if self.json { Display::quiet() } else { Display::new(console::live(), self.verbose) };
        Follow { id, name, timeout: self.timeout, interrupts, display }.watch(link).await
    }

    /// Says how it ended, and returns the exit.
    async fn conclude(&self, link: &mut Link, id: &str, watched: &follow::Watched) -> Result<Exit, Stop> {
        let status = document::status(&watched.status);
        let failed = document::list(&watched.status, "failed_steps");
        if self.json {
            console::print_json(&envelope(link, id, &watched.status).await?, false)?;
        }
        for line in progress::ending(id, &watched.status) {
            console::note(&line);
        }
        Ok(match (watched.ending, exit_of(&status)) {
            (Ending::Interrupted | Ending::Left, _) => Exit::Interrupted,
            (Ending::Reached | Ending::TimedOut, Exit::Done) if !failed.is_empty() && !self.allow_failed_steps => {
                Exit::Failed
            }
            (Ending::Reached | Ending::TimedOut, exit) => exit,
        })
    }
}

/// Returns the way to the server that is meant.
async fn to_server(globals: &Globals) -> Result<Link, Stop> {
    match globals.target()? {
        // Nobody was named and a server owns the data directory: that server is meant.
        super::target::Target::Directory { fallback: None, .. } if Link::owner_lives(globals).await? => {
            Link::new(globals, Mode::Look)
        }
        super::target::Target::Directory { .. }
        | super::target::Target::Server(_)
        | super::target::Target::Database(_) => Link::to_server(globals),
    }
}

/// Shows what tools print, as they print it.
fn tool_output() -> Output {
    Arc::new(|printed: Printed<'_>| {
        let iteration = printed.iteration.map(|index| format!("[{index}]")).unwrap_or_default();
        console::note(&format!("   {DIM}{}{iteration} |{DIM:#} {}", clean(printed.step), clean(printed.line)));
    })
}

/// Starts the run. The key makes it one run, however often the owner of the directory changes on the way.
async fn execute(link: &mut Link, request: &Value) -> Result<Value, Stop> {
    let key = fresh_key();
    let answer = link.ask(|client| client.post(&["execute"]).body(request.clone()).idempotency_key(&key)).await?;
    if answer.status.as_u16() == 404 {
        return Err(refusal::of(&answer).hint("register it first with `noetl register FILE`, or name a file"));
    }
    refusal::expect(&answer)
}

/// Lets the cleanups of what was cancelled here end, which their time limits see to; nobody else is there to run them.
/// `false` when an interrupt comes first: then they are left to whoever owns the directory next.
async fn tidied_up(
    link: &mut Link,
    watched: &follow::Watched,
    interrupts: &mut follow::Interrupts,
) -> Result<bool, Stop> {
    let cleanups = cleanups(link, &watched.cancelled).await?;
    let named = clean(&cleanups.join(", ")).into_owned();
    if cleanups.is_empty() {
        return Ok(true);
    }
    if !link.owns() {
        console::note(&format!("execution {named} cleans up after it"));
        return Ok(true);
    }
    console::note(&format!("execution {named} cleans up after it; letting that end (Ctrl-C leaves at once)"));
    let ended = async {
        for cleanup in &cleanups {
            wait::until(link, cleanup, wait::For::Quiesced, None).await?;
        }
        Ok::<_, Stop>(())
    };
    tokio::select! {
        ended = ended => ended.map(|()| true),
        () = interrupts.next() => {
            console::note(&format!(
                "the cleanup has not ended: execution {named} goes on with the next server or run in this directory"
            ));
            Ok(false)
        }
    }
}

/// Returns the executions that clean up after these.
async fn cleanups(link: &mut Link, cancelled: &[String]) -> Result<Vec<String>, Stop> {
    let mut found = Vec::new();
    for id in cancelled.iter().take(CLEANUPS_MAX) {
        let answer = link.ask(|client| client.get(&["executions", id, "status"])).await?;
        let status = refusal::expect(&answer)?;
        found.extend(status.pointer("/cancellation/cleanup").and_then(document::id));
    }
    Ok(found)
}

/// Leaves the directory. Its worker may still run commands of other runs, which get a while to end.
async fn leave(link: &mut Link, interrupts: &mut follow::Interrupts) {
    let close = link.close();
    tokio::pin!(close);
    tokio::select! {
        () = &mut close => return,
        () = tokio::time::sleep(LEAVE_QUIETLY) => {}
    }
    console::note("other runs still use this process; letting their commands end (Ctrl-C leaves at once)");
    tokio::select! {
        () = close => {}
        () = interrupts.next() => {}
    }
}

/// Returns the outcome as one document.
async fn envelope(link: &mut Link, id: &str, status: &Value) -> Result<Value, Stop> {
    let steps = refusal::expect(&link.ask(|client| client.get(&["executions", id, "steps"])).await?)?;
    let detail =
        link.ask(|client| client.get(&["executions", id]).query("include_events", false).query("page_size", 1)).await?;
    let detail = refusal::expect(&detail)?;
    let entered =
        document::list(&steps, "steps").iter().filter(|step| document::count(step, "visits").unwrap_or(0) > 0);
    let executed: Vec<&str> = entered.filter_map(|step| document::text(step, "step")).collect();
    let mut results = Map::new();
    for step in executed.iter().take(RESULTS_MAX) {
        let answer = link.ask(|client| client.get(&["executions", id, "steps", step])).await?;
        let result = refusal::expect(&answer)?.get("result").cloned().unwrap_or(Value::Null);
        // A step's result is text here, as the published client has it.
        let result = match result {
            Value::String(text) => text,
            other => other.to_string(),
        };
        results.insert((*step).to_owned(), Value::String(result));
    }
    let word = document::status(status);
    let mut envelope = json!({
        "status": if word == "COMPLETED" { "ok" } else { "error" },
        "execution_id": id,
        "execution_status": word,
        "playbook_name": status.get("path"),
        "playbook_path": status.get("path"),
        "playbook_version": status.get("version"),
        "started_at": status.get("start_time"),
        "completed_at": status.get("end_time"),
        "duration_seconds": status.get("duration_seconds"),
        "executed_steps": executed,
        "failed_steps": status.get("failed_steps"),
        "step_results": results,
        "final_result": final_result(link, &detail).await?,
    });
    if let (Some(error), Value::Object(map)) = (document::text(status, "error"), &mut envelope) {
        map.insert("error".into(), json!(error));
    }
    Ok(envelope)
}

/// A result that is too large for the log stands there as a reference.
async fn final_result(link: &mut Link, detail: &Value) -> Result<Value, Stop> {
    let result = detail.get("result").cloned().unwrap_or(Value::Null);
    let reference = match &result {
        Value::Object(map) if map.len() == 1 => match map.get("reference") {
            Some(Value::String(reference)) => Some(reference.clone()),
            Some(stored) => {
                document::text(stored, "ref").or_else(|| document::text(stored, "reference")).map(str::to_owned)
            }
            None => None,
        },
        _ => None,
    };
    let Some(reference) = reference else { return Ok(result) };
    let answer = link.ask(|client| client.get(&["result", "resolve"]).query("ref", &reference)).await?;
    refusal::expect(&answer)
}
