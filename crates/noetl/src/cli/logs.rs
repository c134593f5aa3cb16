//! `noetl logs`: what the tools of an execution printed, as it is or as it grows.

use std::time::Duration;

use noetl_core::id::ExecutionId;
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{self, document};

/// Lines asked for at once.
const PAGE_LINES: u64 = 1_000;
/// How long the server may hang until there is something new.
const WAIT: Duration = Duration::from_secs(20);

/// Show what the tools of an execution printed, oldest first
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// Only lines of this step, without its name in front of them
    #[arg(short, long, value_name = "NAME")]
    pub step: Option<String>,
    /// Go on until nothing can follow: the execution has ended and nothing of it runs
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the newest lines, so many of them
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub tail: Option<u64>,
    /// Show when each line was printed
    #[arg(short, long)]
    pub timestamps: bool,
    /// Print lines as JSON, with all that is known of them
    #[arg(short, long)]
    pub json: bool,
}

impl Logs {
    /// Shows the lines.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, if self.follow { Mode::Tend } else { Mode::Look })?;
        let mut after = 0;
        let mut tail = self.tail;
        loop {
            // The first look shows what there is; only then there is something to wait for.
            let wait = if self.follow && tail.is_none() { WAIT } else { Duration::ZERO };
            let body = self.ask(&mut link, after, tail.take(), wait).await?;
            let lines = document::list(&body, "lines");
            for line in lines {
                if self.json {
                    console::print_json(line, true)?;
                } else {
                    let shown = render::logs::line(line, self.step.is_none(), self.timestamps);
                    console::print(&format!("{shown}\n"))?;
                }
            }
            after = document::count(&body, "last").unwrap_or(after);
            let more = document::is(&body, "has_more");
            if !more && (!self.follow || document::is(&body, "complete")) {
                link.close().await;
                return Ok(Exit::Done);
            }
        }
    }

    async fn ask(&self, link: &mut Link, after: u64, tail: Option<u64>, wait: Duration) -> Result<Value, Stop> {
        let id = self.id.to_string();
        let answer = link
            .ask(|client| {
                let request = client.get(&["executions", &id, "logs"]).patience(wait);
                let request = request.query("after", after).query("limit", tail.unwrap_or(PAGE_LINES));
                request
                    .query_opt("step", self.step.as_deref())
                    .query_opt("newest", tail.map(|_| true))
                    .query_opt("wait_seconds", (!wait.is_zero()).then_some(wait.as_secs()))
            })
            .await?;
        refusal::expect(&answer)
    }
}
