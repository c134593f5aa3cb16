//! `noetl server`
use super::stop::{Exit, Stop};
use super::target::Globals;
/// Run a server
#[derive(Debug, clap::Subcommand)]
pub enum Server {
    /// Run
    Run,
    /// Start
    Start,
    /// Stop
    Stop,
}
impl Server {
    /// Does it.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let _ = globals;
        Ok(Exit::Defect)
    }
}
