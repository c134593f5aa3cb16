//! The binary in a home of its own, and servers for it to ask.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use noetl_testkit::{Database, TestDatabase};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Names the store of the servers that tests start: `postgres` gives each home a database of its own.
const STORE_VARIABLE: &str = "NOETL_TEST_STORE";

/// A home directory with nothing in it.
pub(crate) struct Home {
    directory: TempDir,
    database: Option<Arc<OwnDatabase>>,
}

/// A database for the servers of a home.
struct OwnDatabase {
    database: TestDatabase,
    runtime: tokio::runtime::Runtime,
}

impl OwnDatabase {
    /// Makes one; `None` where there is no PostgreSQL.
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let database = runtime.block_on(TestDatabase::start()).unwrap()?;
        Some(OwnDatabase { database, runtime })
    }
}

/// Returns whether the environment of the test asks for PostgreSQL.
pub(crate) fn wants_postgres() -> bool {
    std::env::var(STORE_VARIABLE).is_ok_and(|store| store == "postgres")
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A connection to the database of a home.
pub(crate) struct Connection {
    own: Arc<OwnDatabase>,
    database: Database,
}

impl Connection {
    pub(crate) fn execute(&self, statement: &str) {
        self.own.runtime.block_on(self.database.execute(statement)).unwrap();
    }
}

impl Home {
    /// A home whose servers keep everything where the environment of the test says: in a file, unless told otherwise.
    pub(crate) fn new() -> Self {
        let database = if wants_postgres() { OwnDatabase::start().map(Arc::new) } else { None };
        Home { directory: tempfile::tempdir().unwrap(), database }
    }

    /// A home whose servers share a PostgreSQL database; `None` where there is none.
    pub(crate) fn on_postgres() -> Option<Self> {
        let database = OwnDatabase::start()?;
        Some(Home { directory: tempfile::tempdir().unwrap(), database: Some(Arc::new(database)) })
    }

    /// Another home with the same database.
    pub(crate) fn beside(&self) -> Self {
        Home { directory: tempfile::tempdir().unwrap(), database: self.database.clone() }
    }

    /// Returns where the database of this home's servers is, if they have one.
    pub(crate) fn database_url(&self) -> Option<String> {
        self.database.as_ref().map(|own| own.database.address().url())
    }

    /// Changes the log of a server that is not running, by a statement for SQLite and one for PostgreSQL.
    pub(crate) fn rewrite(&self, sqlite: &str, postgres: &str) {
        match &self.database {
            Some(own) => own.runtime.block_on(async {
                Database::connect(own.database.address()).await.unwrap().execute(postgres).await.unwrap();
            }),
            None => {
                let file = self.path().join(".noetl/data/noetl.db");
                assert!(rusqlite::Connection::open(file).unwrap().execute(sqlite, []).unwrap() > 0);
            }
        }
    }

    /// Returns the name of the database of this home's servers, and a connection beside it to the same cluster.
    pub(crate) fn beside_its_database(&self) -> (String, Connection) {
        let own = Arc::clone(self.database.as_ref().expect("a home on PostgreSQL"));
        let here = own.database.address();
        let name = here.database.clone();
        let address = noetl_testkit::Address { database: "postgres".to_owned(), ..here.clone() };
        let database = own.runtime.block_on(Database::connect(&address)).unwrap();
        (name, Connection { own, database })
    }

    /// Returns everything that stands in the tables of a shared database; `None` if they are in a file.
    pub(crate) fn tables(&self) -> Option<String> {
        let own = self.database.as_ref()?;
        let all = own.runtime.block_on(async {
            let database = Database::connect(own.database.address()).await.unwrap();
            database.first_value("SELECT schema_to_xml('noetl', true, false, '')::text").await.unwrap()
        });
        all?.as_str().map(str::to_owned)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file and returns where.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Returns the binary, ready to be run in this home with nothing else of this machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_noetl"), arguments)
    }

    /// Returns another program, ready to be run in the same way.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path()).env_clear().env("HOME", self.path()).stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(own) = &self.database {
            command.env("NOETL_DATABASE_URL", own.database.address().url());
            command.env("NOETL_ENCRYPTION_KEY", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
        }
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }

    /// Starts the binary and lets it run.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a shell line with `noetl` on its path, as a person would type it.
    pub(crate) fn shell(&self, line: &str) -> Said {
        let binary = Path::new(env!("CARGO_BIN_EXE_noetl"));
        let mut path = binary.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(self.path()).env_clear().env("HOME", self.path()).env("PATH", path);
        Said::of(command.stdin(Stdio::null()).output().unwrap())
    }
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Said {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns stdout as a document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the command did what was asked.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.exit, 0, "{}{}", self.stdout, self.stderr);
        self
    }
}

/// A request as the binary sent it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `METHOD /path?query`.
    pub(crate) line: String,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: String,
}

/// A server that gives the same answers whatever happens, and remembers what it was asked.
pub(crate) struct Canned {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Canned {
    /// Returns a server that answers `METHOD /path` (without the query) with a status and a body, anything else with
    /// 404.
    pub(crate) fn new(answers: &[(&str, u16, &str)]) -> Self {
        let answers: Vec<(String, u16, String)> =
            answers.iter().map(|(line, status, body)| ((*line).to_owned(), *status, (*body).to_owned())).collect();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            let (answers, noted) = (answers.clone(), Arc::clone(&noted));
            async move {
                let (parts, body) = request.into_parts();
                let body = String::from_utf8(to_bytes(body, 1 << 24).await.unwrap().to_vec()).unwrap();
                let asked = format!("{} {}", parts.method, parts.uri.path());
                let line = format!("{} {}", parts.method, parts.uri);
                noted.lock().unwrap().push(Seen { line, headers: parts.headers, body });
                let (status, text) = answers
                    .iter()
                    .find(|(line, ..)| *line == asked)
                    .map_or((404, r#"{"detail":"nothing here"}"#), |(_, status, body)| (*status, body.as_str()));
                Response::builder().status(status).body(Body::from(text.to_owned())).unwrap()
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Canned { url, seen, _runtime: runtime }
    }

    /// Returns what it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Returns an address where nobody listens.
pub(crate) fn deserted() -> String {
    let address: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

/// A real server in the foreground of a home, on a port of its own. It is killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// Starts a server on the home's usual data directory and waits until it answers.
    pub(crate) fn start(home: &Home, more: &[&str]) -> Server {
        Server::start_at(home, more, "0")
    }

    /// The same on a certain port.
    pub(crate) fn start_at(home: &Home, more: &[&str], port: &str) -> Server {
        Server::launch(home, more, port, &[])
    }

    /// The same with something in its environment.
    pub(crate) fn start_with(home: &Home, more: &[&str], environment: &[(&str, &str)]) -> Server {
        Server::launch(home, more, "0", environment)
    }

    fn launch(home: &Home, more: &[&str], port: &str, environment: &[(&str, &str)]) -> Server {
        let mut arguments = vec!["server", "run", "--port", port];
        arguments.extend(more);
        let mut command = home.command(&arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lock = home.path().join(".noetl/data/owner.lock");
        let pid = u64::from(child.id());
        let url = eventually("the server says where it listens", || {
            if let Some(status) = child.try_wait().unwrap() {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("the server ended: {status}\n{said}");
            }
            let owner: Value = serde_json::from_str(&std::fs::read_to_string(&lock).ok()?).ok()?;
            (owner["pid"].as_u64() == Some(pid)).then(|| owner["url"].as_str().map(str::to_owned)).flatten()
        });
        Server { child, url }
    }

    /// Returns its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it SIGTERM and returns how it ended.
    pub(crate) fn stop(mut self) -> Option<i32> {
        terminate(&self.child);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends SIGTERM.
pub(crate) fn terminate(child: &Child) {
    signal(child, rustix::process::Signal::TERM);
}

/// Sends a signal to a child that we have not waited for, so its number is still its own.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until `look` finds something. The world outside of this process sends no signals, so it is looked at.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
