//! `noetl cancel`: stops executions, alone or with everything they started.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use noetl_core::id::ExecutionId;
use serde_json::{Map, Value, json};

use super::console;
use super::jobs;
use super::link::{Link, Mode, fresh_key};
use super::refusal;
use super::stop::{Exit, Stop};
use super::target::Globals;
use super::wait;
use crate::client::{Answer, Client, Request};
use crate::render::{self, clean, document, duration};

/// Cancels of several ids that are under way at once.
const AT_ONCE: usize = 16;
/// Executions that are named before anybody is asked.
const EXAMPLES_SHOWN: usize = 5;
/// How long a cancel by filter hangs before its job is followed.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest `--wait`, which is what a server accepts.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Cancel executions: nothing more of them starts, and with --interrupt what runs is stopped
///
/// Exit codes: 0 cancelled, 1 already ended, 2 usage, 3 server not reachable, 4 unknown id, 5 not permitted, 6 --wait
/// ran out. With several ids all are tried and the highest code wins.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Executions to cancel
    #[arg(required_unless_present = "filter", value_name = "EXECUTION_ID")]
    pub ids: Vec<String>,
    /// Instead of ids, whatever runs and matches: path=GLOB, older_than=TIME, idle_for=TIME, parent=ID,
    /// label=NAME=VALUE, or `all`; all of them hold together (repeatable). What takes long goes on as a job, see `noetl jobs`
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["ids", "step"])]
    pub filter: Vec<String>,
    /// With --filter: refuse if more match [default: 1000]
    #[arg(long, value_name = "COUNT")]
    pub max: Option<u64>,
    /// With --filter: most executions looked at per second
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<u32>,
    /// With --filter: do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Why; kept with the execution
    #[arg(short, long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Also cancel every execution that these started, at any depth
    #[arg(long)]
    pub cascade: bool,
    /// Stop what runs now, instead of letting running commands finish
    #[arg(long)]
    pub interrupt: bool,
    /// Time between the polite stop and the kill [default: the step's, the playbook's, else 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub grace: Option<Duration>,
    /// Wait until nothing of it runs any more [default when given without a time: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, num_args = 0..=1, require_equals = true,
          default_missing_value = "60s")]
    pub wait: Option<Duration>,
    /// With --wait: wait for the cleanups, too
    #[arg(long, value_name = "WHAT", value_parser = ["quiesced", "cleanup"], requires = "wait")]
    pub wait_for: Option<String>,
    /// Only say what would be cancelled
    #[arg(long)]
    pub dry_run: bool,
    /// Only what this step has begun; the execution goes on with an error of kind `cancelled`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cascade", "dry_run", "wait"])]
    pub step: Option<String>,
    /// With --step: only this iteration of its loop, from 0
    #[arg(long, value_name = "NUMBER", requires = "step")]
    pub iteration: Option<u32>,
    /// With --step: its loop ends with the results there are, as a success
    #[arg(long, requires = "step", conflicts_with = "iteration")]
    pub complete: bool,
    /// An execution that has already ended is no error
    #[arg(long)]
    pub ignore_finished: bool,
    /// Print the answer as JSON, one line per id
    #[arg(short, long)]
    pub json: bool,
}

/// The condition that may be named more than once.
const LABEL: &str = "label";

/// Reads the conditions; `None` for `all`.
fn filter(conditions: &[String]) -> Result<Option<Value>, Stop> {
    let mut filter = Map::new();
    for condition in conditions {
        if condition == "all" && conditions.len() == 1 {
            return Ok(None);
        }
        let Some((key, value)) = condition.split_once('=') else {
            return Err(Stop::usage(format!("`{condition}` is no condition"))
                .hint("write --filter path='etl/*', older_than=10m, idle_for=1h, parent=ID or label=NAME=VALUE; --filter all alone"));
        };
        // An unset variable of a script; it would widen what is cancelled.
        if value.trim().is_empty() {
            return Err(Stop::usage(format!("`{key}` has no value"))
                .hint("leave the condition out if it is not meant; `--filter all` takes everything that runs"));
        }
        // An execution has many labels, and one of everything else.
        if let (LABEL, Some(Value::String(labels))) = (key, filter.get_mut(key)) {
            labels.push_str(&format!(",{value}"));
            continue;
        }
        // The server knows which conditions there are, and says what was meant.
        if filter.insert(key.to_owned(), json!(value)).is_some() {
            return Err(Stop::usage(format!("`{key}` is named twice")));
        }
    }
    Ok(Some(Value::Object(filter)))
}

/// One id's first request.
struct Attempt<'i> {
    id: &'i str,
    key: String,
    /// `Err(None)`: no answer came.
    outcome: Result<Answer, Option<Stop>>,
}

impl Cancel {
    /// Cancels every id, and returns the worst exit.
    pub async fn run(&self, globals: &Globals) -> Result<Exit, Stop> {
        if self.wait.is_some_and(|wait| wait > WAIT_MAX) {
            return Err(Stop::usage(format!("--wait can be at most {} s", WAIT_MAX.as_secs()))
                .hint("`noetl wait ID --for quiesced` waits as long as you like"));
        }
        if !self.filter.is_empty() {
            return self.run_matching(globals).await;
        }
        if self.yes || self.max.is_some() || self.rate.is_some() {
            return Err(Stop::usage("--yes, --max and --rate go with --filter"));
        }
        let mut link = Link::new(globals, Mode::Tend)?;
        let client = match link.client().await {
            Ok(client) => client,
            Err(stop) => {
                for id in &self.ids {
                    self.say_failed(id, &stop)?;
                }
                return Err(stop);
            }
        };
        let owns = link.owns();
        let mut exit = Exit::Done;
        // Several wait at the server side by side; what they say is printed in the order of the command line.
        let mut answers = stream::iter(&self.ids).map(|id| self.try_one(&client, id, owns)).buffered(AT_ONCE);
        while let Some(Attempt { id, key, outcome }) = answers.next().await {
            let outcome = match outcome {
                Ok(answer) => Ok(answer),
                Err(Some(stop)) => Err(stop),
                // Not asked yet, or whoever owned the directory left in between. Whoever owns it now is asked with the
                // same key, so the answer is right whether or not a first request was carried out.
                Err(None) => link.ask(|client| self.request(client, id).idempotency_key(&key)).await,
            };
            exit = exit.or_worse(match outcome {
                Ok(answer) => {
                    let exit = self.show(id, &answer)?;
                    let rest = self.wait_for_rest(&mut link, id, &answer).await?;
                    exit.or_worse(rest)
                }
                Err(stop) => {
                    self.say_failed(id, &stop)?;
                    console::complain(&stop);
                    stop.exit
                }
            });
        }
        drop(answers);
        if self.dry_run && !self.json {
            for id in &self.ids {
                show_tree(&mut link, id).await?;
            }
        }
        link.close().await;
        Ok(exit)
    }

    /// Cancels whatever matches: shows how many first, and asks on a terminal.
    async fn run_matching(&self, globals: &Globals) -> Result<Exit, Stop> {
        let filter = filter(&self.filter)?;
        let body = |dry_run: bool| {
            let mut body = self.body();
            // The request itself hangs only so long; then the job is followed.
            body["wait_seconds"] = json!(ANSWER.as_secs());
            match &filter {
                Some(filter) => body["filter"] = filter.clone(),
                None => body["all"] = json!(true),
            }
            if let Some(max) = self.max {
                body["max"] = json!(max);
            }
            if let Some(rate) = self.rate {
                body["rate"] = json!(rate);
            }
            body["dry_run"] = json!(dry_run);
            body
        };
        let mut link = Link::new(globals, Mode::Tend)?;
        let looked = link.ask(|client| client.post(&["executions", "cancel"]).body(body(true))).await?;
        let looked = refusal::expect(&looked)?;
        let found = document::ids(&looked, "would_cancel");
        if self.dry_run || found.is_empty() {
            link.close().await;
            return self.say_matching(&looked, "would_cancel");
        }
        let count = document::count(&looked, "matched_count").unwrap_or(found.len() as u64);
        if !self.yes && !self.agreed(count, &found)? {
            link.close().await;
            console::note("nothing was cancelled");
            return Ok(Exit::Failed);
        }
        // Sent again when the directory changes hands: the same key is the same job.
        let key = fresh_key();
        let request = body(false);
        let done = link
            .ask(|client| {
                let request = client.post(&["executions", "cancel"]).body(request.clone());
                request.idempotency_key(&key).patience(ANSWER)
            })
            .await?;
        let done = refusal::expect(&done)?;
        let complete = document::is(&done, "complete");
        let Some(job) = document::text(&done, "job_id") else {
            return self.say_matching(&done, "cancelled_executions");
        };
        // Nobody else goes on with it while this process owns the directory; on a terminal one likes to see it.
        let follows = self.wait.is_some() || !complete && (link.owns() || console::live() && !self.json);
        if complete || !follows {
            self.say_matching(&done, "cancelled_executions")?;
        }
        let mut exit = Exit::Done;
        if follows {
            let followed = jobs::follow(&mut link, job, self.wait, self.wait.is_some()).await;
            if !complete {
                self.say_outcome(&mut link, job, &done).await?;
            }
            exit = followed?;
        } else if !complete {
            console::note(&format!("see how far it has come with `noetl jobs {}`", clean(job)));
        }
        link.close().await;
        Ok(exit)
    }

    /// Says what a job has come to that was followed behind its answer: its count is that of the job, its ids are
    /// those that the answer listed.
    async fn say_outcome(&self, link: &mut Link, job: &str, answered: &Value) -> Result<(), Stop> {
        let mut answer = answered.clone();
        // What can not be looked up is said as it was answered.
        if let Ok(shown) = link.ask(|client| client.get(&["jobs", job])).await
            && let Some(shown) = shown.json().filter(|_| shown.is_success())
            && let Some(count) = document::count(&shown, "cancelled")
        {
            let done = document::text(&shown, "done_at").is_some();
            answer["cancelled_count"] = json!(count);
            answer["complete"] = json!(done);
            let so_far = if done { String::new() } else { format!(" so far; job {job} goes on") };
            answer["message"] = json!(format!("Cancelled {count} execution(s){so_far}"));
            let listed = document::ids(&answer, "cancelled_executions").len() as u64;
            self.say_matching(&answer, "cancelled_executions")?;
            if count > listed {
                console::note(&format!("{} more, cancelled behind the answer, are not listed", count - listed));
            }
            return Ok(());
        }
        self.say_matching(&answer, "cancelled_executions").map(drop)
    }

    /// An execution that had ended is no error, but what still runs of it is waited for all the same.
    async fn wait_for_rest(&self, link: &mut Link, id: &str, answer: &Answer) -> Result<Exit, Stop> {
        let Some(wait) = self.wait.filter(|_| self.ignore_finished && answer.status.as_u16() == 409) else {
            return Ok(Exit::Done);
        };
        let deadline = Instant::now() + wait;
        for running in document::ids(&answer.json().unwrap_or_default(), "unquiesced_executions") {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = wait::until(link, &running, wait::For::Quiesced, Some(left)).await?;
            if !document::is(&status, "quiesced") {
                let message = format!("execution {id} had ended, but something of {} still runs", clean(&running));
                console::complain(&Stop::new(Exit::TimedOut, message));
                return Ok(Exit::TimedOut);
            }
        }
        Ok(Exit::Done)
    }

    /// One line for each id, also for one that no server has answered for.
    fn say_failed(&self, id: &str, stop: &Stop) -> Result<(), Stop> {
        if !self.json {
            return Ok(());
        }
        let code = match stop.exit {
            Exit::Usage => "bad_request",
            Exit::Unreachable => "unreachable",
            Exit::Done
            | Exit::Failed
            | Exit::Unknown
            | Exit::Forbidden
            | Exit::TimedOut
            | Exit::Cancelled
            | Exit::Defect
            | Exit::Interrupted
            | Exit::Unread => "failed",
        };
        let body = json!({
            "status": "error", "execution_id": id, "cancelled_executions": [], "message": stop.message,
            "detail": stop.message, "error": stop.message, "code": code,
        });
        console::print_json(&body, true)
    }

    /// Shows what matched and asks. Without a terminal nobody can answer.
    fn agreed(&self, count: u64, found: &[String]) -> Result<bool, Stop> {
        console::note(&format!("{count} execution(s) match, for instance:"));
        for id in found.iter().take(EXAMPLES_SHOWN) {
            console::note(&format!("  - {}", clean(id)));
        }
        if !std::io::stdin().is_terminal() {
            return Err(Stop::usage("nobody is here to be asked").hint("say --yes, or look with --dry-run first"));
        }
        console::note("Cancel them? [y/N]");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn say_matching(&self, answer: &Value, key: &str) -> Result<Exit, Stop> {
        if self.json {
            console::print_json(answer, true)?;
            return Ok(Exit::Done);
        }
        let mut out = format!("{}\n", clean(document::text(answer, "message").unwrap_or("done")));
        for id in document::ids(answer, key) {
            out.push_str(&format!("  - {}\n", clean(&id)));
        }
        console::print(&out)?;
        let spared = document::ids(answer, "spared").len();
        if spared > 0 {
            console::note(&format!("{spared} had ended or moved on when their turn came, or are shielded"));
        }
        Ok(Exit::Done)
    }

    /// Cancels one. An owner of the directory leaves that to the link, one after the other, because the link gives
    /// the directory away when somebody asks for it.
    async fn try_one<'i>(&self, client: &Client, id: &'i str, owns: bool) -> Attempt<'i> {
        let key = fresh_key();
        let outcome = match id.parse::<ExecutionId>() {
            Err(error) => Err(Some(Stop::usage(error.to_string()))),
            Ok(_) if owns => Err(None),
            Ok(_) => self.request(client, id).idempotency_key(&key).send().await.map_err(|_| None),
        };
        Attempt { id, key, outcome }
    }

    fn request<'c>(&self, client: &'c Client, id: &str) -> Request<'c> {
        client.post(&["executions", id, "cancel"]).body(self.body()).patience(self.wait.unwrap_or_default())
    }

    /// Returns the body: the published client's two fields, and others only when asked for.
    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("cascade".into(), json!(self.cascade));
        if let Some(reason) = &self.reason {
            body.insert("reason".into(), json!(reason));
        }
        if self.interrupt {
            body.insert("mode".into(), json!("interrupt"));
        }
        if let Some(grace) = self.grace {
            body.insert("grace_seconds".into(), json!(grace.as_secs_f64()));
        }
        if let Some(wait) = self.wait {
            body.insert("wait_seconds".into(), json!(wait.as_secs_f64()));
        }
        if let Some(what) = &self.wait_for {
            body.insert("wait_for".into(), json!(what));
        }
        if self.dry_run {
            body.insert("dry_run".into(), json!(true));
        }
        if let Some(step) = &self.step {
            body.insert("step".into(), json!(step));
        }
        if let Some(iteration) = self.iteration {
            body.insert("iteration".into(), json!(iteration));
        }
        if self.complete {
            body.insert("complete".into(), json!(true));
        }
        Value::Object(body)
    }

    fn show(&self, id: &str, answer: &Answer) -> Result<Exit, Stop> {
        let body = answer.json();
        if let Some(body) = body.as_ref().filter(|_| self.json) {
            console::print_json(body, true)?;
        }
        let Some(body) = body.filter(|_| answer.is_success()) else {
            return Ok(self.refused(id, answer));
        };
        if !self.json {
            console::print(&render::cancel::block(id, self.reason.as_deref(), &body))?;
        }
        for line in render::cancel::remarks(id, &body) {
            console::note(&line);
        }
        Ok(self.exit_of(id, &body))
    }

    fn exit_of(&self, id: &str, body: &Value) -> Exit {
        // A server that does not know of quiescence can not say it has come.
        let proven = document::is(body, "quiesced");
        let cascade = if self.cascade { " --cascade" } else { "" };
        if self.wait.is_some() && !self.dry_run && !proven {
            console::complain(
                &Stop::new(Exit::TimedOut, format!("execution {id} is cancelled, but something of it still runs"))
                    .hint(format!(
                        "see what with `noetl status {id}`, or stop it with `noetl cancel {id}{cascade} --interrupt`"
                    )),
            );
            return Exit::TimedOut;
        }
        let cleaning = self.wait_for.as_deref() == Some("cleanup") && !document::is(body, "cleaned_up");
        if cleaning && !self.dry_run {
            console::complain(&Stop::new(
                Exit::TimedOut,
                format!("execution {id} is cancelled, but its cleanup has not ended"),
            ));
            return Exit::TimedOut;
        }
        Exit::Done
    }

    fn refused(&self, id: &str, answer: &Answer) -> Exit {
        let finished = answer.status.as_u16() == 409;
        if finished && self.ignore_finished {
            console::note(&answer.message());
            return Exit::Done;
        }
        let mut stop = refusal::of(answer);
        let body = answer.json().filter(|_| finished).unwrap_or_default();
        if let Some(by) = document::text(&body, "cancelled_by") {
            let reason = document::text(&body, "reason").map(|reason| format!(": {reason}")).unwrap_or_default();
            stop = stop.hint(clean(&format!("it was cancelled by {by}{reason}")));
            let running = document::ids(&body, "unquiesced_executions");
            if !self.interrupt && !running.is_empty() {
                let cascade = if running.iter().any(|one| one != id) { " --cascade" } else { "" };
                stop = stop.hint(format!("`noetl cancel {id}{cascade} --interrupt` stops what still runs of it"));
            }
        }
        console::complain(&stop);
        stop.exit
    }
}

/// Shows the family that a dry run is about, with where each member stands. What can not be shown is no failure here: the
/// cancel's own answer has said so.
async fn show_tree(link: &mut Link, id: &str) -> Result<(), Stop> {
    let answer = link.ask(|client| client.get(&["executions", id, "tree"])).await?;
    if let Some(body) = answer.json().filter(|_| answer.is_success()) {
        console::note(render::tree::tree(id, document::list(&body, "executions")).trim_end());
    }
    Ok(())
}
