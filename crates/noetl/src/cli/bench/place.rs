//! A store that a benchmark fills, or looks at as it stands: a data directory, or a database.

use std::path::PathBuf;
use std::sync::Arc;

use noetl_engine::{Engine, EngineOptions};
use noetl_store::postgres::{Address, Postgres, PostgresOptions};
use noetl_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::directory;
use crate::cli::stop::Stop;
use crate::cli::target::Globals;
use crate::client::Client;
use crate::clock;
use crate::embed::{DataDir, Owned, Role};
use crate::server::listen::{self, Listener};
use crate::server::node::{self, Node, NodeOptions, WorkerSettings};

/// Where it is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The file in a data directory.
    Directory(DataDir),
    /// A database.
    Database(Box<Address>),
}

/// An open store, with an engine that drives nothing.
pub(super) struct Open {
    pub(super) store: Arc<dyn Store>,
    pub(super) engine: Arc<Engine>,
    _owned: Option<Owned>,
}

/// A server over the place, in this process, that answers on loopback.
pub(super) struct Serving {
    node: Node,
    listening: JoinHandle<()>,
    pub(super) client: Arc<Client>,
    /// Of a database, for the socket that every node has.
    temporary: Option<PathBuf>,
}

impl Place {
    /// Returns the one that the command line names. It has to name one: nobody's own runs are filled up by accident.
    pub(super) fn of(globals: &Globals, database_url: Option<&str>) -> Result<Place, Stop> {
        if globals.names_server() {
            return Err(Stop::usage("the store itself is opened here: no server can be named"));
        }
        match (&globals.data_dir, database_url) {
            (None, Some(url)) => {
                let address = url.parse().map_err(|error: StoreError| Stop::usage(error.to_string()))?;
                Ok(Place::Database(Box::new(address)))
            }
            (Some(_), None) => Ok(Place::Directory(globals.data_directory()?)),
            (None, None) | (Some(_), Some(_)) => Err(Stop::usage("say either --data-dir or --database-url")),
        }
    }

    /// Returns its name for people, without a password.
    pub(super) fn shown(&self) -> String {
        match self {
            Place::Directory(directory) => directory.path().display().to_string(),
            Place::Database(address) => address.shown(),
        }
    }

    /// Opens it.
    pub(super) async fn open(&self) -> Result<Open, String> {
        let (store, owned, number): (Arc<dyn Store>, _, _) = match self {
            Place::Directory(directory) => {
                let owned = take(directory)?;
                let store = node::open_directory(&owned).await.map_err(|error| error.to_string())?;
                (store, Some(owned), 0)
            }
            Place::Database(address) => {
                let opened = Postgres::open(PostgresOptions::new((**address).clone())).await;
                let store = opened.map_err(|error| error.to_string())?;
                let number = *store.node().borrow();
                (Arc::new(store), None, number)
            }
        };
        let engine = Engine::new(Arc::clone(&store), EngineOptions { node: number, ..EngineOptions::default() });
        Ok(Open { store, engine, _owned: owned })
    }

    /// Serves it, with a worker of so many slots.
    pub(super) async fn serve(&self, slots: u32) -> Result<Serving, String> {
        let (directory, database, temporary) = match self {
            Place::Directory(directory) => (directory.clone(), None, None),
            Place::Database(address) => {
                let folder = directory("size");
                let directory = DataDir::resolve(Some(&folder)).map_err(|error| error.to_string())?;
                (directory, Some((**address).clone()), Some(folder))
            }
        };
        let worker = WorkerSettings {
            slots: Some(slots),
            drain: std::time::Duration::from_secs(1),
            ..WorkerSettings::default()
        };
        let options = NodeOptions { database, ..NodeOptions::working(Role::Run, Some(worker)) };
        let node = Node::start(take(&directory)?, options).await.map_err(|error| error.to_string())?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| error.to_string())?;
        let url = format!("http://{}", listener.local_addr().map_err(|error| error.to_string())?);
        let listening =
            tokio::spawn(listen::serve(Listener::Tcp(listener), node.router(), node.shared(), node.stopping()));
        let client = Arc::new(Client::to_url(&url, None).map_err(|error| error.to_string())?);
        Ok(Serving { node, listening, client, temporary })
    }
}

fn take(directory: &DataDir) -> Result<Owned, String> {
    let owned = directory.try_take(Role::Run, clock::now()).map_err(|error| error.to_string())?;
    owned.ok_or_else(|| format!("{} is in use", directory.path().display()))
}

impl Open {
    pub(super) async fn close(self) -> Result<(), String> {
        self.store.close().await.map_err(|error| error.to_string())
    }
}

impl Serving {
    /// Returns the store that is served.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.node.engine().store()
    }

    pub(super) async fn stop(self) {
        self.node.stop().await;
        self.listening.await.ok();
        if let Some(folder) = self.temporary {
            std::fs::remove_dir_all(folder).ok();
        }
    }
}
