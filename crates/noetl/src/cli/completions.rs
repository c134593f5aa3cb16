//! `noetl completions`: what a shell has to know to complete command lines.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::console;
use super::stop::{Exit, Stop};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  noetl completions bash > ~/.local/share/bash-completion/completions/noetl
  noetl completions zsh > ~/.zfunc/_noetl      # with fpath+=~/.zfunc before compinit
  noetl completions fish > ~/.config/fish/completions/noetl.fish")]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(&self) -> Result<Exit, Stop> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "noetl", &mut text);
        console::print(&String::from_utf8_lossy(&text))?;
        Ok(Exit::Done)
    }
}
