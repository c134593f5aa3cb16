//! `noetl rerun`: the same again, as a new execution.

use noetl_core::id::ExecutionId;
use serde_json::json;

use super::link::{Link, Mode};
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::workload::WorkloadArgs;
use super::{console, labels, refusal};
use crate::render::{clean, document};

/// Run an execution that has ended again, as a new one with the same inputs
#[derive(Debug, clap::Args)]
#[command(after_help = "With --keep-finished the new execution keeps the results of the steps that had finished and
goes on with those that were under way, that had been arrived at, or that had failed the run.")]
pub struct Rerun {
    /// Which execution
    #[arg(value_name = "EXECUTION_ID")]
    id: ExecutionId,
    /// Keep what has finished, and go on from there
    #[arg(long)]
    keep_finished: bool,
    /// With the newest version of the playbook [default: the one it had]
    #[arg(long)]
    latest: bool,
    /// Label of the new one, laid over those that it had (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Print the answer as JSON on one line
    #[arg(short, long)]
    json: bool,
}

impl Rerun {
    /// Does what is asked.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        let id = self.id.to_string();
        let mut body = json!({
            "keep_finished": self.keep_finished,
            "latest": self.latest,
            "workload": self.workload.read()?,
        });
        if let Some(labels) = labels::given(&self.label)? {
            body["labels"] = labels;
        }
        let mut link = Link::new(globals, Mode::Look)?;
        let answer = link.ask(|client| client.post(&["executions", &id, "rerun"]).body(body.clone())).await?;
        let place = link.owns().then(|| link.place());
        link.close().await;
        let reply = refusal::expect(&answer)?;
        if let Some(place) = place {
            console::note(&format!("no server runs on {place}: it goes on when one does"));
        }
        if self.json {
            console::print_json(&reply, true)?;
            return Ok(Exit::Done);
        }
        let new = refusal::required_id(&reply, "execution_id")?;
        let names = |key: &str| -> Vec<String> {
            let listed = document::list(&reply, key).iter().filter_map(serde_json::Value::as_str);
            listed.map(|name| clean(name).into_owned()).collect()
        };
        let (kept, at) = (names("kept_steps"), names("begins_at"));
        let how = if at.is_empty() {
            "from the start".to_owned()
        } else {
            format!("at {}, keeping {} step(s)", at.join(", "), kept.len())
        };
        console::print(&format!("Execution {} started: {id} again, {how}\n", clean(&new)))?;
        Ok(Exit::Done)
    }
}
