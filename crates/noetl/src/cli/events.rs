//! `noetl events`: the log of an execution, as it is or as it grows.

use std::time::Duration;

use noetl_core::id::ExecutionId;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{self, document};

/// Events asked for at once.
const PAGE_SIZE: u64 = 500;
/// How long the server may hang until there is something new.
const WAIT: Duration = Duration::from_secs(20);

/// Show the log of an execution, oldest first
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    pub id: ExecutionId,
    /// Go on until nothing can follow: the execution has ended and nothing of it runs
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this type, such as execution.cancelled
    #[arg(short, long = "type", value_name = "EVENT_TYPE")]
    pub event_type: Option<String>,
    /// Only events after this place in the log
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub after: u64,
    /// Print events as JSON, one line each
    #[arg(short, long)]
    pub json: bool,
}

impl Events {
    /// Shows the log.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let id = self.id.to_string();
        let mut link = Link::new(globals, if self.follow { Mode::Tend } else { Mode::Look })?;
        let mut after = self.after;
        loop {
            let wait = if self.follow { WAIT } else { Duration::ZERO };
            let answer = link
                .ask(|client| {
                    let request = client.get(&["executions", &id, "events"]).patience(wait);
                    let request =
                        request.query("order", "asc").query("page_size", PAGE_SIZE).query("after_version", after);
                    request
                        .query_opt("event_type", self.event_type.as_deref())
                        .query_opt("wait_seconds", (!wait.is_zero()).then_some(wait.as_secs()))
                })
                .await?;
            let body = refusal::expect(&answer)?;
            let events = document::list(&body, "events");
            for event in events {
                if self.json {
                    console::print_json(event, true)?;
                } else {
                    console::print(&format!("{}\n", render::events::line(event)))?;
                }
                after = after.max(document::count(event, "version").unwrap_or(after));
            }
            let more = body.pointer("/pagination/has_next").and_then(serde_json::Value::as_bool).unwrap_or(false);
            let over = document::is(&body, "quiesced") && !more;
            if (events.is_empty() || !more) && (!self.follow || over) {
                link.close().await;
                return Ok(Exit::Done);
            }
        }
    }
}
