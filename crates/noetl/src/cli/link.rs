//! The way from a command to whoever answers it, kept open while owners of the data directory come and go.

use std::path::Path;
use std::time::{Duration, Instant};

use super::owned::{self, Claimed, Owned};
use super::refusal;
use super::stop::{Exit, Stop};
use super::target::{Globals, Named, Target};
use crate::client::{Answer, Client, ClientError, Request};

/// How long to look for a new owner of the data directory before giving up.
const HANDOVER: Duration = Duration::from_secs(40);
/// Pause between two looks at a data directory that is changing hands.
const GLANCE: Duration = Duration::from_millis(25);
/// Pause between two looks at an execution when this process opened the directory just for the look.
const BREATH: Duration = Duration::from_millis(500);

/// What a command needs of the data directory when nobody owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It must exist already; it is opened for each look and closed again.
    Look,
    /// It is made when there is none.
    Create,
    /// The same, and as its owner this process runs commands too.
    Work {
        /// How many at once; `None` = one per processor.
        slots: Option<u32>,
    },
}

/// A way to a server, found anew when it is lost.
#[derive(Debug)]
pub struct Link {
    target: Target,
    mode: Mode,
    open: Option<Open>,
}

/// What is at the other end.
#[derive(Debug)]
struct Open {
    client: Client,
    /// This process owns the directory.
    owned: Option<Owned>,
}

impl Link {
    /// Returns a link; nothing is opened yet.
    pub fn new(globals: &Globals, mode: Mode) -> Result<Link, Stop> {
        Ok(Link { target: globals.target()?, mode, open: None })
    }

    /// The same to a server, never to the data directory.
    pub fn to_server(globals: &Globals) -> Result<Link, Stop> {
        Ok(Link { target: Target::Server(globals.server()?), mode: Mode::Look, open: None })
    }

    /// The same to the data directory, never to a context's server.
    pub fn to_directory(globals: &Globals, mode: Mode) -> Result<Link, Stop> {
        let target = Target::Directory { directory: globals.data_directory()?, fallback: None };
        Ok(Link { target, mode, open: None })
    }

    /// Sends a request and returns the answer, whatever it says.
    ///
    /// When the owner of the data directory leaves, the request is sent again to whoever owns it next, perhaps to this
    /// process. So `make` is called more than once, and what it makes must be safe to repeat.
    pub async fn ask(&mut self, make: impl for<'c> Fn(&'c Client) -> Request<'c>) -> Result<Answer, Stop> {
        let mut first_loss = None;
        loop {
            let client = self.client().await?;
            let lost = match make(&client).send().await {
                Ok(answer) => return Ok(answer),
                Err(lost) => lost,
            };
            self.open = None;
            let movable = match &self.target {
                Target::Server(_) => false,
                Target::Directory { .. } => !lost.timed_out,
            };
            let since = *first_loss.get_or_insert_with(Instant::now);
            if !movable || since.elapsed() > HANDOVER {
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
            Target::Server(named) => Open { client: named_client(named)?, owned: None },
            Target::Directory { directory, fallback } => find(directory, fallback.as_ref(), self.mode).await?,
        };
        let client = open.client.clone();
        self.open = Some(open);
        Ok(client)
    }

    /// Returns how long a request may hang at the other end: not at all when this process owns the directory only to
    /// look, for then nothing goes on while it looks, and others wait.
    pub async fn patience(&mut self, wish: Duration) -> Result<Duration, Stop> {
        self.client().await?;
        Ok(if self.only_looks() { Duration::ZERO } else { wish })
    }

    /// Lets others have the directory for a moment, when this process owns it only to look.
    pub async fn breathe(&mut self) {
        if self.only_looks() {
            self.close().await;
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Returns whether somebody owns the data directory and answers.
    pub fn owner_lives(globals: &Globals) -> Result<bool, Stop> {
        Ok(owned::living_socket(&globals.data_directory()?).is_some())
    }

    /// Returns whether this process owns the directory.
    pub fn owns(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.owned.is_some())
    }

    /// Returns where the other end is, for people.
    pub fn place(&self) -> String {
        match &self.target {
            Target::Server(named) => named.url.clone(),
            Target::Directory { directory, .. } => directory.display().to_string(),
        }
    }

    /// Leaves the directory, if this process owns it, so that the next owner finds it tidy.
    pub async fn close(&mut self) {
        if let Some(owned) = self.open.take().and_then(|open| open.owned) {
            owned.close().await;
        }
    }

    fn only_looks(&self) -> bool {
        match self.mode {
            Mode::Look | Mode::Create => self.owns(),
            Mode::Work { .. } => false,
        }
    }
}

/// Finds whoever answers for the directory: its owner, the current context's server, or this process.
async fn find(directory: &Path, fallback: Option<&Named>, mode: Mode) -> Result<Open, Stop> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        if let Some(socket) = owned::living_socket(directory) {
            return Ok(Open { client: Client::to_socket(&socket).map_err(|error| bad_client(&error))?, owned: None });
        }
        if let Some(named) = fallback {
            return Ok(Open { client: named_client(named)?, owned: None });
        }
        if mode == Mode::Look && !directory.exists() {
            return Err(Stop::new(Exit::Unreachable, format!("there is nothing at {} yet", directory.display()))
                .hint("run a playbook with `noetl run FILE`, or start a server with `noetl server start`")
                .hint("another place is named by --data-dir, --server-url or --context"));
        }
        match owned::claim(directory, mode).await? {
            Claimed::Ours { owned, client } => return Ok(Open { client, owned: Some(owned) }),
            // Somebody was faster, and is about to listen; or is about to leave.
            Claimed::Taken if Instant::now() < deadline => tokio::time::sleep(GLANCE).await,
            Claimed::Taken => {
                let message = format!("another process holds {} and does not answer", directory.display());
                return Err(Stop::new(Exit::Unreachable, message).hint("look for a noetl process that hangs"));
            }
        }
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

/// Returns a key that no other request has.
pub fn fresh_key() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness, time and process must do; a key only has to differ from others of the last hours.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = (now.as_nanos() << 32 | u128::from(std::process::id())).to_be_bytes();
    }
    format!("cli-{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
