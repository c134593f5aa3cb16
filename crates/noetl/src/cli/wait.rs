//! `noetl wait`: returns when an execution has ended, or when nothing of it runs any more.

use std::time::{Duration, Instant};

use noetl_core::id::ExecutionId;
use serde_json::Value;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::api::executions::status::CLEANUP_NOT_BEGUN;
use crate::client::Answer;
use crate::render::{document, duration};

/// How long one request may hang.
const HANG: Duration = Duration::from_secs(20);

/// Before it is looked again for a cleanup that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum For {
    /// It has ended.
    Terminal,
    /// It has ended, and nothing of it runs any more.
    Quiesced,
}

/// Wait until an execution has ended
///
/// A cleanup that a cancel has announced is waited for before it begins, too.
///
/// Exit codes: with `--for terminal` 0 completed, 1 failed, 7 cancelled; with `--for quiesced` 0 however it ended;
/// 4 unknown id, 6 the timeout ran out.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "terminal", value_name = "WHAT")]
    pub until: For,
    /// Give up after this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Print the status as JSON on one line
    #[arg(short, long)]
    pub json: bool,
}

impl Wait {
    /// Waits.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let id = self.id.to_string();
        let mut link = Link::new(globals, Mode::Tend)?;
        let body = until(&mut link, &id, self.until, self.timeout).await?;
        link.close().await;
        let status = document::status(&body);
        if self.json {
            console::print_json(&body, true)?;
        } else {
            console::print(&format!("{status}\n"))?;
        }
        if !reached(&body, self.until) {
            let what = match self.until {
                For::Terminal => "has not ended",
                For::Quiesced => "has not quiesced",
            };
            return Err(Stop::new(Exit::TimedOut, format!("execution {id} {what} in time")));
        }
        Ok(match self.until {
            For::Quiesced => Exit::Done,
            For::Terminal => exit_of(&status),
        })
    }
}

/// Returns the exit of a command that followed an execution to its end.
pub fn exit_of(status: &str) -> Exit {
    match status {
        "COMPLETED" => Exit::Done,
        "CANCELLED" => Exit::Cancelled,
        _ => Exit::Failed,
    }
}

/// Waits until the execution is there, or `timeout`; returns its status as it then stands.
pub async fn until(link: &mut Link, id: &str, goal: For, timeout: Option<Duration>) -> Result<Value, Stop> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let word = match goal {
        For::Terminal => "terminal",
        For::Quiesced => "quiesced",
    };
    loop {
        let left = deadline.map_or(HANG, |deadline| deadline.saturating_duration_since(Instant::now()).min(HANG));
        let answer = link
            .ask(|client| {
                let request = client.get(&["executions", id, "status"]).patience(left);
                request.query("wait_seconds", left.as_secs_f64()).query("until", word)
            })
            .await?;
        let out_of_time = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_to_come(&answer) && !out_of_time {
            // Had the server hung for it as long as it could, no time would be lost here.
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
            continue;
        }
        let body = refusal::expect(&answer)?;
        if reached(&body, goal) || out_of_time {
            return Ok(body);
        }
    }
}

/// Returns whether it is a cleanup that a cancel has announced and that begins when nothing runs any more.
fn is_to_come(answer: &Answer) -> bool {
    let body = answer.json().filter(|_| answer.status.as_u16() == 404);
    body.is_some_and(|body| document::text(&body, "code") == Some(CLEANUP_NOT_BEGUN))
}

fn reached(body: &Value, goal: For) -> bool {
    match goal {
        For::Terminal => document::is_terminal(&document::status(body)),
        For::Quiesced => document::is(body, "quiesced"),
    }
}
