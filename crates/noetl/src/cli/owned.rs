//! The data directory when nobody else has it: this process becomes its owner for as long as it needs.

use std::path::{Path, PathBuf};

use super::link::Mode;
use super::stop::{Exit, Stop};
use crate::client::Client;

/// A data directory in our hands.
#[derive(Debug)]
pub struct Owned {}

/// What became of an attempt to own the directory.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours {
        /// To be closed when done.
        owned: Owned,
        /// The way to ask it.
        client: Client,
    },
    /// Somebody else holds it.
    Taken,
}

/// Returns the owner's socket, if somebody answers there.
pub fn living_socket(directory: &Path) -> Option<PathBuf> {
    let socket = directory.join("noetl.sock");
    std::os::unix::net::UnixStream::connect(&socket).ok().map(|_| socket)
}

/// Tries to own the directory.
pub async fn claim(directory: &Path, mode: Mode) -> Result<Claimed, Stop> {
    let _ = mode;
    Err(Stop::new(Exit::Defect, format!("{} can not be opened by this build", directory.display())))
}

impl Owned {
    /// Gives the directory back.
    pub async fn close(self) {}
}
