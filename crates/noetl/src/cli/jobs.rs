//! `noetl jobs`: walks over families and selections, under way and done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{clean, document, duration, jobs};

/// How often a job that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Show cascades (of cancels, pauses, resumptions) and bulk cancels, or stop one
///
/// A stopped one selects nothing more and finishes the families that it has begun; what it has cancelled stays
/// cancelled. Exit codes: 0 done, 1 it can not be stopped, 2 usage, 3 server not reachable, 4 unknown id, 6 --wait ran
/// out.
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// Only this one, in detail
    #[arg(value_name = "JOB_ID")]
    id: Option<String>,
    /// Let it select nothing more
    #[arg(long, requires = "id")]
    stop: bool,
    /// Wait until it is done and nothing that it cancelled runs any more [default when given without a time: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, num_args = 0..=1, require_equals = true,
          default_missing_value = "60s", requires = "id")]
    wait: Option<Duration>,
    /// Only those with something left to do
    #[arg(long, conflicts_with = "id")]
    open: bool,
    /// How many to list, newest first
    #[arg(long, value_name = "COUNT", default_value_t = 100, conflicts_with = "id")]
    limit: u64,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl Jobs {
    /// Does what is asked.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Tend)?;
        let Some(id) = self.id.as_deref() else {
            let answer = link.ask(|client| self.list(client.get(&["jobs"]))).await?;
            link.close().await;
            return self.show_list(&refusal::expect(&answer)?);
        };
        if self.stop {
            refusal::expect(&link.ask(|client| client.post(&["jobs", id, "stop"])).await?)?;
        }
        let exit = match self.wait {
            Some(wait) => follow(&mut link, id, Some(wait), true).await?,
            None => Exit::Done,
        };
        let answer = link.ask(|client| client.get(&["jobs", id])).await?;
        link.close().await;
        let job = refusal::expect(&answer)?;
        if self.json {
            console::print_json(&job, true)?;
        } else {
            console::print(&jobs::detail(&job))?;
        }
        Ok(exit)
    }

    fn list<'c>(&self, request: crate::client::Request<'c>) -> crate::client::Request<'c> {
        request.query("limit", self.limit).query_opt("open", self.open.then_some(true))
    }

    fn show_list(&self, body: &Value) -> Result<Exit, Stop> {
        if self.json {
            console::print_json(body, true)?;
            return Ok(Exit::Done);
        }
        let list = document::list(body, "jobs");
        console::print(&jobs::list(list))?;
        if list.is_empty() {
            console::note(
                "no jobs: a cascade (of a cancel, a pause, a resumption), or `noetl cancel --filter`, makes one",
            );
        }
        Ok(Exit::Done)
    }
}

/// Watches a job until it is done, and with `rest` until nothing that it cancelled runs; a moving bar on a terminal.
pub async fn follow(link: &mut Link, id: &str, wait: Option<Duration>, rest: bool) -> Result<Exit, Stop> {
    let deadline = wait.map(|wait| Instant::now() + wait);
    let bar = console::live().then(bar);
    loop {
        let job = refusal::expect(&link.ask(|client| client.get(&["jobs", id])).await?)?;
        if let Some(bar) = &bar {
            bar.set_length(document::count(&job, "selected").unwrap_or(0));
            bar.set_position(document::count(&job, "visited").unwrap_or(0));
            bar.set_message(jobs::progress(&job));
        }
        let done = document::text(&job, "done_at").is_some();
        if done && (!rest || document::count(&job, "unquiesced") == Some(0)) {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            console::note(&jobs::progress(&job));
            return Ok(Exit::Done);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let what = if done { "something that it cancelled still runs" } else { "it is not done" };
            console::complain(&Stop::new(Exit::TimedOut, format!("job {}: {what}", clean(id))));
            return Ok(Exit::TimedOut);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}
