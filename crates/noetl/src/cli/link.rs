//! The way from a command to whoever answers it, kept open while owners of the data directory come and go.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noetl_engine::{Engine, EngineOptions};
use noetl_store::Store;
use noetl_store::postgres::{Address, Postgres, PostgresOptions, Shape};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::refusal;
use super::stop::{Exit, Stop};
use super::target::{Globals, Named, Target};
use crate::api::{self, Api};
use crate::client::{Answer, Client, ClientError, Request};
use crate::clock;
use crate::embed::{DataDir, EmbedError, Place, Role, SocketPath};
use crate::server::node::{Node, NodeError, NodeOptions};
use crate::vault::VaultError;

/// How long to look for a new owner of the data directory before giving up. Longer than an owner takes to drain.
const HANDOVER: Duration = Duration::from_secs(60);
/// Pause between two looks at a data directory that is changing hands.
const GLANCE: Duration = Duration::from_millis(25);
/// How long whoever asked for the directory has it to itself to take it, and how long a visitor that was asked to
/// leave may take to do so.
const GIVE_WAY: Duration = Duration::from_secs(5);

/// What a command needs of the data directory when nobody owns it.
#[derive(Debug, Clone)]
pub enum Mode {
    /// It must exist already; it is opened for the look and closed again.
    Look,
    /// The same, but it is made when there is none.
    Create,
    /// It must exist already, and while this process owns it, what can go on without a worker goes on: cascades,
    /// timers, leases that run out. Left as soon as somebody wants to work there.
    Tend,
    /// It is made when there is none, and as its owner this process runs commands until it leaves.
    Work(Box<NodeOptions>),
}

/// A way to a server, found anew when it is lost.
#[derive(Debug)]
pub struct Link {
    target: Target,
    mode: Mode,
    open: Option<Open>,
    /// Somebody asked for the directory and should have it now.
    gave_way: bool,
}

/// What is at the other end.
#[derive(Debug)]
struct Open {
    client: Client,
    /// This process owns the directory.
    node: Option<Node>,
    /// This process has opened the database.
    database: Option<Arc<dyn Store>>,
    /// Keeps the way to the socket, see [`SocketPath`].
    _socket: Option<SocketPath>,
}

impl Open {
    fn with(client: Client) -> Self {
        Open { client, node: None, database: None, _socket: None }
    }
}

impl Link {
    /// Returns a link to whomever the command line means; nothing is opened yet.
    pub fn new(globals: &Globals, mode: Mode) -> Result<Link, Stop> {
        Ok(Link::to(globals.target()?, mode))
    }

    /// The same to a server, never to the data directory.
    pub fn to_server(globals: &Globals) -> Result<Link, Stop> {
        Ok(Link::to(Target::Server(globals.server()?), Mode::Look))
    }

    /// The same, or to the tables of a database: looking after them needs no server.
    pub fn beside_servers(globals: &Globals, database_url: Option<&str>, mode: Mode) -> Result<Link, Stop> {
        match database_url {
            Some(url) => Ok(Link::to(globals.database(url)?, mode)),
            None => Link::new(globals, mode),
        }
    }

    /// The same to the data directory, never to a context's server.
    pub fn to_directory(globals: &Globals, mode: Mode) -> Result<Link, Stop> {
        Ok(Link::to(Target::Directory { directory: globals.data_directory()?, fallback: None }, mode))
    }

    fn to(target: Target, mode: Mode) -> Link {
        Link { target, mode, open: None, gave_way: false }
    }

    /// Sends a request and returns the answer, whatever it says.
    ///
    /// When the owner of the data directory leaves, the request is sent again to whoever owns it next, perhaps to this
    /// process. So `make` is called more than once, and what it makes must be safe to repeat.
    pub async fn ask(&mut self, make: impl for<'c> Fn(&'c Client) -> Request<'c>) -> Result<Answer, Stop> {
        let mut first_loss = None;
        loop {
            self.give_way().await;
            let client = self.client().await?;
            let request = make(&client);
            // A look, however long it takes, is finished: half a backup is none.
            let waits = request.hangs() && matches!(self.mode, Mode::Tend | Mode::Work(_));
            let leaving = self.leaving().filter(|_| waits);
            let answer = match leaving {
                None => request.send().await,
                // Nobody waits for a process that only waits itself; what it waits for is asked again elsewhere.
                Some(leaving) => tokio::select! {
                    answer = request.send() => answer,
                    () = leaving.cancelled() => continue,
                },
            };
            let lost = match answer {
                // An owner that is closing its store still answers, but not as it will a moment later.
                Ok(answer) if answer.status.as_u16() == 503 && self.may_move() && first_loss.is_none() => {
                    first_loss = Some(Instant::now());
                    tokio::time::sleep(GLANCE).await;
                    continue;
                }
                Ok(answer) => return Ok(answer),
                Err(lost) => lost,
            };
            self.close().await;
            let since = *first_loss.get_or_insert_with(Instant::now);
            if !self.may_move() || lost.timed_out || since.elapsed() > HANDOVER {
                return Err(refusal::unreachable(&lost));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Returns the client, opening a way if there is none.
    pub async fn client(&mut self) -> Result<Client, Stop> {
        if let Some(open) = &self.open {
            return Ok(open.client.clone());
        }
        let open = match &self.target {
            Target::Server(named) => Open::with(named_client(named)?),
            Target::Database(address) => open_database(address, &self.mode).await?,
            Target::Directory { directory, fallback } => {
                if self.gave_way {
                    self.gave_way = false;
                    wait_for_successor(directory).await;
                }
                find(directory, fallback.as_ref(), &self.mode).await?
            }
        };
        let client = open.client.clone();
        self.open = Some(open);
        Ok(client)
    }

    /// Returns whether somebody owns the data directory and answers.
    pub async fn owner_lives(globals: &Globals) -> Result<bool, Stop> {
        let dir = globals.data_directory()?;
        Ok(living_socket(&dir).await?.is_some())
    }

    /// Returns whether this process owns the directory at present.
    pub fn owns(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.node.is_some())
    }

    /// Returns where the other end is, for people.
    pub fn place(&self) -> String {
        match &self.target {
            Target::Server(named) => named.url.clone(),
            Target::Directory { directory, .. } => directory.path().display().to_string(),
            Target::Database(address) => address.shown(),
        }
    }

    /// Leaves the directory, if this process owns it: what it runs may end, then the next owner finds it tidy.
    pub async fn close(&mut self) {
        let Some(Open { node, database, .. }) = self.open.take() else { return };
        if let Some(node) = node {
            node.stop().await;
        }
        if let Some(store) = database
            && let Err(error) = store.close().await
        {
            tracing::warn!(%error, "the store did not close");
        }
    }

    /// Leaves the directory to whoever asked for it, and goes on as its guest.
    async fn give_way(&mut self) {
        if self.leaving().is_some_and(|leaving| leaving.is_cancelled()) {
            self.close().await;
            self.gave_way = true;
        }
    }

    /// Returns what ends when somebody wants the directory that this process owns.
    fn leaving(&self) -> Option<CancellationToken> {
        self.open.as_ref()?.node.as_ref().map(Node::leaving)
    }

    fn may_move(&self) -> bool {
        match &self.target {
            Target::Server(_) | Target::Database(_) => false,
            Target::Directory { .. } => true,
        }
    }
}

/// Finds whoever answers for the directory: its owner, the current context's server, or this process.
async fn find(dir: &DataDir, fallback: Option<&Named>, mode: &Mode) -> Result<Open, Stop> {
    match (living_socket(dir).await?, mode) {
        (Some(socket), Mode::Work(_)) => displace_visitor(dir, &socket).await,
        (Some(socket), Mode::Look | Mode::Create | Mode::Tend) => return guest(socket),
        (None, _) => {}
    }
    if let Some(named) = fallback {
        return Ok(Open::with(named_client(named)?));
    }
    let (role, options) = match mode {
        Mode::Look | Mode::Tend if !dir.exists() => {
            return Err(bad_directory(&EmbedError::Missing(dir.path().to_path_buf()))
                .hint("a server elsewhere is named by --server-url or --context"));
        }
        Mode::Look | Mode::Create => (Role::Visit, NodeOptions::visit()),
        Mode::Tend => (Role::Visit, NodeOptions { drive: true, ..NodeOptions::visit() }),
        Mode::Work(options) => (Role::Run, options.as_ref().clone()),
    };
    match dir.take_or_join(role, clock::now()).await.map_err(|error| bad_directory(&error))? {
        Place::Guest(found) => guest(found.socket),
        Place::Owned(owned) => {
            let node = Node::start(owned, options).await.map_err(|error| bad_node(&error))?;
            let place = dir.path().display().to_string();
            let client = Client::to_router(node.router(), place).map_err(|error| bad_client(&error))?;
            Ok(Open { node: Some(node), ..Open::with(client) })
        }
    }
}

fn guest(socket: SocketPath) -> Result<Open, Stop> {
    let client = Client::to_socket(socket.path()).map_err(|error| bad_client(&error))?;
    Ok(Open { _socket: Some(socket), ..Open::with(client) })
}

/// Opens a database as a server does that drives nothing. It must hold tables already, unless they are to be made.
async fn open_database(address: &Address, mode: &Mode) -> Result<Open, Stop> {
    let shape = match mode {
        Mode::Create => Shape::Newest,
        Mode::Look | Mode::Tend | Mode::Work(_) => Shape::AsItIs,
    };
    let options = PostgresOptions { shape, ..PostgresOptions::new(address.clone()) };
    let store = Postgres::open(options).await.map_err(|error| Stop::new(Exit::Unreachable, error.to_string()))?;
    let node = *store.node().borrow();
    let store: Arc<dyn Store> = Arc::new(store);
    let engine = Engine::new(Arc::clone(&store), EngineOptions { node, ..EngineOptions::default() });
    let router = api::router(Api::new(engine, CancellationToken::new()));
    let client = Client::to_router(router, address.shown()).map_err(|error| bad_client(&error))?;
    Ok(Open { database: Some(store), ..Open::with(client) })
}

/// Returns the owner's socket, if somebody answers there.
async fn living_socket(dir: &DataDir) -> Result<Option<SocketPath>, Stop> {
    if !Path::new(dir.path()).exists() {
        return Ok(None);
    }
    let socket = dir.socket().map_err(|error| bad_directory(&error))?;
    Ok(UnixStream::connect(socket.path()).await.is_ok().then_some(socket))
}

/// Asks an owner that only visits to leave: it runs nothing, so a run would wait for it as long as it stays. If it
/// does not leave, the run is its guest all the same, and takes over when it does.
async fn displace_visitor(dir: &DataDir, socket: &SocketPath) {
    let visits = |dir: &DataDir| dir.owner().filter(|owner| owner.role == Role::Visit).map(|owner| owner.pid);
    let Some(visitor) = visits(dir) else { return };
    if let Ok(client) = Client::to_socket(socket.path()) {
        // A visitor that is gone by now can not answer, which is what was wanted.
        drop(client.post(&["owner", "leave"]).send().await);
    }
    let deadline = Instant::now() + GIVE_WAY;
    while Instant::now() < deadline && visits(dir) == Some(visitor) {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Waits until whoever asked for the directory has it. Without this pause, this process could be quicker to take it
/// again than a server, which asks each owner once.
async fn wait_for_successor(dir: &DataDir) {
    let deadline = Instant::now() + GIVE_WAY;
    while Instant::now() < deadline && !matches!(living_socket(dir).await, Ok(Some(_)) | Err(_)) {
        tokio::time::sleep(GLANCE).await;
    }
}

fn named_client(named: &Named) -> Result<Client, Stop> {
    Client::to_url(&named.url, named.token.as_deref()).map_err(|error| match error {
        ClientError::BadUrl(_) => Stop::usage(format!("{error} (from {})", named.named_by)),
        ClientError::BadToken | ClientError::Setup(_) => bad_client(&error),
    })
}

fn bad_client(error: &ClientError) -> Stop {
    match error {
        ClientError::BadUrl(_) | ClientError::BadToken => Stop::usage(error.to_string()),
        ClientError::Setup(_) => Stop::new(Exit::Defect, error.to_string()),
    }
}

/// Returns how a command ends that can not use the directory.
pub fn bad_directory(error: &EmbedError) -> Stop {
    match error {
        EmbedError::NoHome => Stop::usage(error.to_string()),
        EmbedError::Missing(_) | EmbedError::Io { .. } | EmbedError::Silent { .. } => {
            Stop::new(Exit::Unreachable, error.to_string())
        }
        EmbedError::SecondServer { .. } => {
            Stop::new(Exit::Failed, error.to_string()).hint(super::server::ANOTHER_DIRECTORY)
        }
    }
}

/// Returns how a command ends that can not open what is in the directory.
pub fn bad_node(error: &NodeError) -> Stop {
    match error {
        NodeError::Directory(error) => bad_directory(error),
        NodeError::Vault(error) => bad_vault(error),
        NodeError::Store(_) | NodeError::Tools(_) => Stop::new(Exit::Unreachable, error.to_string()),
    }
}

/// Returns how a command ends that has no key to the secrets.
pub fn bad_vault(error: &VaultError) -> Stop {
    match error {
        VaultError::BadKey { .. } | VaultError::Bad { .. } => Stop::usage(error.to_string()),
        VaultError::KeyFile { .. }
        | VaultError::KeyFileOpen { .. }
        | VaultError::KeyNotGiven
        | VaultError::KeyLost { .. }
        | VaultError::OtherKey { .. }
        | VaultError::Locked(_)
        | VaultError::Busy(_)
        | VaultError::Store(_) => Stop::new(Exit::Unreachable, error.to_string()),
    }
}

/// Returns a key that no other request has.
pub fn fresh_key() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness, time and process must do; a key only has to differ from others of the last hours.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = ((now.as_nanos() << 32) | u128::from(std::process::id())).to_be_bytes();
    }
    format!("cli-{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
