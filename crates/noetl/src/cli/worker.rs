//! `noetl worker`
use super::stop::{Exit, Stop};
use super::target::Globals;
/// Run a worker
#[derive(Debug, clap::Subcommand)]
pub enum Worker {
    /// Run
    Run,
}
impl Worker {
    /// Does it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let _ = globals;
        Ok(Exit::Defect)
    }
}
