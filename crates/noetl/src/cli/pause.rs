//! `noetl pause` and `noetl resume`: executions that begin nothing for a while.

use noetl_core::id::ExecutionId;
use serde_json::{Map, Value, json};

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::{console, refusal};
use crate::render::{clean, document};

/// Pause executions: nothing more of them begins until they are resumed
///
/// What workers run goes on to its end, and its results are kept. Time limits go on. A paused execution can be cancelled
/// like any other. Exit codes: 0 it is paused, 1 already ended, 2 usage, 3 server not reachable, 4 unknown id, 5 not
/// permitted. With several ids all are tried and the highest code wins.
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    arguments: Arguments,
}

/// Let paused executions go on
///
/// Exit codes: 0 it goes on, 1 already ended, 2 usage, 3 server not reachable, 4 unknown id, 5 not permitted. With
/// several ids all are tried and the highest code wins.
#[derive(Debug, clap::Args)]
pub struct Resume {
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Debug, clap::Args)]
struct Arguments {
    /// Which executions
    #[arg(required = true, value_name = "EXECUTION_ID")]
    ids: Vec<String>,
    /// Why; kept with the execution
    #[arg(short, long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also every execution that these started, at any depth
    #[arg(long)]
    cascade: bool,
    /// Print the answer as JSON, one line per id
    #[arg(short, long)]
    json: bool,
}

impl Pause {
    /// Pauses every id, and returns the worst exit.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        self.arguments.run(globals, "pause").await
    }
}

impl Resume {
    /// Lets every id go on, and returns the worst exit.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        self.arguments.run(globals, "resume").await
    }
}

impl Arguments {
    async fn run(&self, globals: &Globals, verb: &str) -> Result<Exit, Stop> {
        let mut link = Link::new(globals, Mode::Tend)?;
        let mut exit = Exit::Done;
        for id in &self.ids {
            exit = exit.or_worse(match self.one(&mut link, verb, id).await {
                Ok(()) => Exit::Done,
                Err(stop) => {
                    console::complain(&stop);
                    stop.exit
                }
            });
        }
        link.close().await;
        Ok(exit)
    }

    async fn one(&self, link: &mut Link, verb: &str, id: &str) -> Result<(), Stop> {
        id.parse::<ExecutionId>().map_err(|error| Stop::usage(error.to_string()))?;
        let answer = link.ask(|client| client.post(&["executions", id, verb]).body(self.body())).await?;
        if let Some(body) = answer.json().filter(|_| self.json) {
            console::print_json(&body, true)?;
        }
        let reply = refusal::expect(&answer)?;
        if !self.json {
            console::print(&said(&reply))?;
        }
        for line in running(&reply) {
            console::note(&line);
        }
        Ok(())
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("cascade".into(), json!(self.cascade));
        if let Some(reason) = &self.reason {
            body.insert("reason".into(), json!(reason));
        }
        Value::Object(body)
    }
}

/// What was done, and to whom when it is more than the one that was named.
fn said(reply: &Value) -> String {
    let mut out = format!("{}\n", clean(document::text(reply, "message").unwrap_or("done")));
    let changed = document::ids(reply, "changed_executions");
    if changed.len() > 1 {
        for id in changed {
            out.push_str(&format!("  - {}\n", clean(&id)));
        }
    }
    out
}

/// What runs on in a paused execution.
fn running(reply: &Value) -> Vec<String> {
    if document::text(reply, "status") != Some("paused") {
        return Vec::new();
    }
    let held = document::list(reply, "in_flight").iter();
    held.map(|command| {
        let field = |key| clean(document::text(command, key).unwrap_or("?")).into_owned();
        format!("step {} ({}) runs on to its end at worker {}", field("step"), field("tool"), field("worker"))
    })
    .collect()
}
