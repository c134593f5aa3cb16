//! The runner: entry by entry in the order of the manifest, each as its page says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use noetl_testkit::{Address, Cluster, Database};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Fault;
use crate::check::{self, Operator};
use crate::client::Client;
use crate::manifest::{Check, Entry, Expected, Requirement, Setup, Subject};
use crate::placeholders::Placeholders;
use crate::python::Python;
use crate::server::{self, Server};
use crate::services::{self, Listening};

/// Shortest and longest time between two looks at an execution.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(250);
/// Commands that the server under test may run at the same time.
const WORKER_SLOTS: u32 = 8;
/// The database that the playbooks use.
const DATABASE: &str = "playbooks";
/// The database for the engine's own schema.
const ENGINE_DATABASE: &str = "engine";
/// The alias that stands for the database with the engine's own schema.
const ENGINE_ALIAS: &str = "pg_noetl_k8s";
/// What duckdb's tool needs when it is reached through its Python client.
const DUCKDB_MODULES: [&str; 2] = ["duckdb", "pytz"];

/// Where the server under test keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In its data directory.
    Embedded,
    /// In a database of the run's own cluster.
    Postgres,
}

/// What a run needs to know.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Folder of the manifest; absolute.
    pub folder: PathBuf,
    /// The `noetl` binary.
    pub binary: PathBuf,
    /// Where its server keeps its state.
    pub store: Store,
    /// Folder for everything that the run makes.
    pub scratch: &'a Path,
}

/// How an entry went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Status and all checks are as they must be.
    Passed,
    /// The first thing that is not.
    Failed(String),
    /// What is not available here.
    Skipped(String),
}

/// How many entries went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Not tried.
    pub skipped: usize,
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }
}

/// Returns the named entries and those that must run before them, in the order of the manifest; all without names.
pub fn select(entries: Vec<Entry>, only: &[String]) -> Result<Vec<Entry>, Fault> {
    if only.is_empty() {
        return Ok(entries);
    }
    let mut wanted: BTreeSet<&str> = only.iter().map(String::as_str).collect();
    if let Some(stranger) = wanted.iter().find(|id| !entries.iter().any(|entry| entry.id == **id)) {
        return Err(Fault(format!("the manifest has no entry `{stranger}`")));
    }
    // What an entry builds on stands before it, so one pass from the end finds all.
    for entry in entries.iter().rev() {
        if wanted.contains(entry.id.as_str()) {
            wanted.extend(entry.run_after.iter().map(String::as_str));
        }
    }
    let wanted: BTreeSet<String> = wanted.into_iter().map(str::to_owned).collect();
    Ok(entries.into_iter().filter(|entry| wanted.contains(&entry.id)).collect())
}

/// Everything that runs for the sake of the entries; dropping it ends all of it.
#[derive(Debug)]
pub struct Session {
    // In the order in which they have to go: who uses a thing goes before it.
    server: Server,
    database: Option<TestDatabase>,
    http: TestHttp,
    python: Python,
    placeholders: Placeholders,
    folder: PathBuf,
    store: Store,
}

#[derive(Debug)]
struct TestDatabase {
    connection: Database,
    address: Address,
    cluster: Cluster,
}

#[derive(Debug)]
struct TestHttp {
    client: Client,
    _listening: Listening,
}

impl Session {
    /// Starts the server under test and what `entries` need beside it.
    pub async fn start(settings: &Settings<'_>, entries: &[Entry]) -> Result<Self, Fault> {
        let listening = services::listen(0).await?;
        let host_port = listening.address().to_string();
        let http_url = format!("http://{host_port}");
        let mut placeholders = Placeholders::default()
            .with("HTTP_URL", &http_url)
            .with("HTTP_HOSTPORT", host_port)
            .with("CONFORMANCE_DIR", settings.folder.display().to_string());

        let wanted = settings.store == Store::Postgres
            || entries.iter().any(|entry| entry.requires.contains(&Requirement::Postgres));
        let database = match Cluster::installed() {
            Some(programs) if wanted => {
                let cluster = Cluster::start(&programs, settings.scratch, &[DATABASE, ENGINE_DATABASE]).await?;
                let address = cluster.address(DATABASE);
                let connection = Database::connect(&address).await?;
                placeholders = placeholders
                    .with("PG_HOST", &address.host)
                    .with("PG_PORT", address.port.to_string())
                    .with("PG_USER", &address.user)
                    .with("PG_PASSWORD", &address.password)
                    .with("PG_DATABASE", &address.database);
                Some(TestDatabase { connection, address, cluster })
            }
            Some(_) | None => None,
        };
        let database_url = match (settings.store, &database) {
            (Store::Embedded, _) => None,
            (Store::Postgres, Some(database)) => Some(database.cluster.address(ENGINE_DATABASE).url()),
            (Store::Postgres, None) => return Err(Fault("the postgres store needs an installed PostgreSQL".into())),
        };
        let server = Server::start(&server::Settings {
            binary: &settings.binary,
            folder: settings.scratch,
            worker_slots: WORKER_SLOTS,
            database_url: database_url.as_deref(),
        })
        .await?;
        let http = TestHttp { client: Client::new(&http_url)?, _listening: listening };
        let folder = settings.folder.clone();
        Ok(Session { server, database, http, python: Python::default(), placeholders, folder, store: settings.store })
    }

    /// Runs one entry.
    pub async fn run(&mut self, entry: &Entry) -> Verdict {
        match self.unavailable(entry).await {
            Ok(None) => {}
            Ok(Some(what)) => return Verdict::Skipped(what),
            Err(fault) => return Verdict::Failed(fault.0),
        }
        match self.attempt(entry).await {
            Ok(()) => Verdict::Passed,
            Err(Fault(reason)) => match self.server.obituary() {
                Some(obituary) => Verdict::Failed(format!("{reason}; {obituary}")),
                None => Verdict::Failed(reason),
            },
        }
    }

    /// Ends the server under test, politely; the rest goes with the session.
    pub async fn end(self) -> Result<(), Fault> {
        self.server.stop().await
    }

    /// Returns what the entry needs and is not there.
    async fn unavailable(&mut self, entry: &Entry) -> Result<Option<String>, Fault> {
        let mut modules = entry.python_modules.clone();
        for requirement in &entry.requires {
            match requirement {
                Requirement::None | Requirement::Http => {}
                Requirement::Postgres if self.database.is_some() => {}
                Requirement::Postgres => return Ok(Some("PostgreSQL is not installed".to_owned())),
                Requirement::Duckdb => modules.extend(DUCKDB_MODULES.map(str::to_owned)),
            }
        }
        let missing = self.python.missing(&modules).await?;
        Ok((!missing.is_empty()).then(|| format!("python3 has no {}", missing.join(", "))))
    }

    async fn attempt(&self, entry: &Entry) -> Result<(), Fault> {
        for setup in &entry.setup {
            self.set_up(setup).await?;
        }
        for alias in &entry.credentials {
            self.register_credential(alias).await?;
        }
        for child in &entry.register_first {
            let registered = self.client().register(&self.playbook(child)?).await?;
            registered.success(&format!("register {child}"))?;
        }
        let mut text = self.playbook(&entry.file)?;
        for rewrite in &entry.rewrite {
            text = text.replace(&rewrite.from, &self.placeholders.fill(&rewrite.to));
        }
        let registered = self.client().register(&text).await?;
        if entry.expected == Expected::Rejected {
            return match registered.status.is_client_error() {
                true => Ok(()),
                false => Err(Fault(format!("registration must be refused, is {}", registered.status))),
            };
        }
        registered.success("register")?;
        if self.store == Store::Embedded && entry.credentials.iter().any(|alias| alias == ENGINE_ALIAS) {
            self.mirror_catalog().await?;
        }

        let payload = match self.placeholders.fill_value(&Value::Object(entry.payload.clone())) {
            Value::Object(payload) => payload,
            // Filling keeps the kind of a value.
            _ => entry.payload.clone(),
        };
        let id = self.client().execute(&entry.path, &payload).await?;
        self.finish(&id, entry).await?;
        self.check_all(&id, entry).await
    }

    /// Waits for a terminal status and compares it.
    async fn finish(&self, id: &str, entry: &Entry) -> Result<(), Fault> {
        let deadline = Instant::now() + entry.timeout;
        let mut pause = POLL_MIN;
        loop {
            let execution = self.client().execution(id).await?;
            let status = execution["status"].as_str().unwrap_or_default();
            let is_terminal = matches!(status, "COMPLETED" | "FAILED" | "CANCELLED");
            if is_terminal && status == entry.expected.as_str() {
                return Ok(());
            }
            if is_terminal {
                let wanted = entry.expected.as_str();
                let error = execution["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(Fault(format!("status must be {wanted}, is {status}{error} (execution {id})")));
            }
            if Instant::now() >= deadline {
                let limit = entry.timeout.as_secs();
                let step = execution["current_step"].as_str().map(|step| format!(" at `{step}`")).unwrap_or_default();
                let late = format!("status is still {status}{step} after {limit} s (execution {id})");
                // The next entry must not share the machine with it.
                let cancelled = self.client().cancel(id, "the entry's time is over").await;
                return Err(Fault(cancelled.err().map(|fault| format!("{late}; {fault}")).unwrap_or(late)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Makes all checks and reports the first that does not hold.
    async fn check_all(&self, id: &str, entry: &Entry) -> Result<(), Fault> {
        let placeholders = self.placeholders.clone().with("EXECUTION_ID", id);
        let mut failed = Vec::new();
        for check in &entry.checks {
            if let Err(Fault(reason)) = self.check(id, check, &placeholders).await {
                failed.push(reason);
            }
        }
        match failed.as_slice() {
            [] => Ok(()),
            [only] => Err(Fault(format!("{only} (execution {id})"))),
            [first, others @ ..] => {
                Err(Fault(format!("{first}; {} more of {} checks", others.len(), entry.checks.len())))
            }
        }
    }

    async fn check(&self, id: &str, check: &Check, placeholders: &Placeholders) -> Result<(), Fault> {
        match check {
            Check::Events { event_type, node_name, count: wanted } => {
                let count = self.client().count_events(id, event_type, node_name).await?;
                if count == *wanted {
                    return Ok(());
                }
                Err(Fault(format!("events {event_type} of `{node_name}` must be {wanted}, are {count}")))
            }
            Check::Value { subject, path, operator } => {
                let (name, value) = self.look_up(id, subject, placeholders).await?;
                let found = value.as_ref().and_then(|value| check::follow(value, path.as_deref()));
                let operator = filled(operator, placeholders);
                let place = path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
                operator.check(found).map_err(|reason| {
                    // A path that leads nowhere is understood by what is there instead.
                    let instead = match (&value, found) {
                        (Some(value), None) => format!(" in {}", check::shown(value)),
                        (_, _) => String::new(),
                    };
                    Fault(format!("{name}{place} {reason}{instead}"))
                })
            }
        }
    }

    /// Returns what the subject is called and its value, if it has one.
    async fn look_up(
        &self,
        id: &str,
        subject: &Subject,
        placeholders: &Placeholders,
    ) -> Result<(String, Option<Value>), Fault> {
        match subject {
            Subject::Step(step) => {
                let result = self.client().step_result(id, step).await?;
                Ok((format!("step `{step}`"), result))
            }
            Subject::Sql(sql) => {
                let sql = placeholders.fill(sql);
                let value = self.database()?.connection.first_value(&sql).await;
                Ok((format!("`{sql}`"), value.map_err(Fault::while_doing(&sql))?))
            }
            Subject::Http(request) => {
                let path = placeholders.fill(&request.path);
                let reply = self.http.client.request(&request.method, &path).await?;
                Ok((format!("{} {path}", request.method), Some(reply.success(&path)?)))
            }
        }
    }

    async fn set_up(&self, setup: &Setup) -> Result<(), Fault> {
        match setup {
            Setup::Sql(sql) => {
                let sql = self.placeholders.fill(sql);
                self.database()?.connection.execute(&sql).await.map_err(Fault::while_doing("set up"))
            }
            Setup::Http(request) => {
                let path = self.placeholders.fill(&request.path);
                self.http.client.request(&request.method, &path).await?.success("set up").map(drop)
            }
        }
    }

    async fn register_credential(&self, alias: &str) -> Result<(), Fault> {
        let database = self.database()?;
        let address = match (self.store, alias == ENGINE_ALIAS) {
            (Store::Postgres, true) => database.cluster.address(ENGINE_DATABASE),
            (Store::Postgres, false) | (Store::Embedded, _) => database.address.clone(),
        };
        let data = json!({
            "db_host": address.host,
            "db_port": address.port.to_string(),
            "db_user": address.user,
            "db_password": address.password,
            "db_name": address.database,
        });
        let registered = self.client().credential(alias, &data).await?;
        registered.success(&format!("register the credential `{alias}`")).map(drop)
    }

    /// Copies the catalog into the test database, as `noetl.catalog`.
    ///
    /// The embedded store keeps the engine's schema in no PostgreSQL database. The entry that reads it is about
    /// reading, so it gets what the server itself answers.
    async fn mirror_catalog(&self) -> Result<(), Fault> {
        let catalog = self.client().catalog().await?;
        let connection = &self.database()?.connection;
        let table = "CREATE SCHEMA IF NOT EXISTS noetl; DROP TABLE IF EXISTS noetl.catalog; \
                     CREATE TABLE noetl.catalog (path TEXT, version BIGINT, kind TEXT)";
        connection.execute(table).await.map_err(Fault::while_doing("mirror the catalog"))?;
        connection.insert("noetl.catalog", &catalog).await.map_err(Fault::while_doing("mirror the catalog"))
    }

    fn playbook(&self, file: &str) -> Result<String, Fault> {
        let path = self.folder.join("playbooks").join(file);
        fs::read_to_string(&path).map_err(Fault::while_doing(format!("read {}", path.display())))
    }

    fn client(&self) -> &Client {
        self.server.client()
    }

    fn database(&self) -> Result<&TestDatabase, Fault> {
        self.database.as_ref().ok_or_else(|| Fault("the entry needs a database but does not say so".to_owned()))
    }
}

fn filled(operator: &Operator, placeholders: &Placeholders) -> Operator {
    match operator {
        Operator::Equals(value) => Operator::Equals(placeholders.fill_value(value)),
        Operator::Contains(value) => Operator::Contains(placeholders.fill_value(value)),
        Operator::Length(_) | Operator::Exists(_) => operator.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn entries() -> Vec<Entry> {
        let line = |id: &str, after: &str| {
            format!("- {{id: {id}, file: f, path: p, expected: COMPLETED, run_after: [{after}]}}\n")
        };
        let text = [line("a", ""), line("b", "a"), line("c", "b"), line("d", "")].concat();
        manifest::parse(&format!("entries:\n{text}")).unwrap()
    }

    fn selected(only: &[&str]) -> Result<Vec<String>, Fault> {
        let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
        Ok(select(entries(), &only)?.into_iter().map(|entry| entry.id).collect())
    }

    #[test]
    fn a_selection_brings_what_it_builds_on() {
        assert_eq!(selected(&[]).unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(selected(&["c"]).unwrap(), ["a", "b", "c"]);
        assert_eq!(selected(&["d", "a"]).unwrap(), ["a", "d"]);
        assert_eq!(selected(&["e"]).unwrap_err().0, "the manifest has no entry `e`");
    }

    #[test]
    fn placeholders_reach_the_values_of_a_check() {
        let placeholders = Placeholders::default().with("EXECUTION_ID", "7");
        let wanted = Operator::Equals(json!({"id": "7"}));
        assert_eq!(filled(&Operator::Equals(json!({"id": "${EXECUTION_ID}"})), &placeholders), wanted);
    }
}
