//! Following an execution to its end: showing its events, cancelling it on Ctrl-C or after a time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::display::Display;
use super::link::{Link, fresh_key};
use super::stop::{Exit, Stop};
use super::{console, refusal};
use crate::render::document;

/// Events asked for at once.
const PAGE_SIZE: u64 = 500;
/// How long a request for new events may hang. Short, because the display shows the time.
const HANG: Duration = Duration::from_secs(2);
/// A deadline that never comes.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How following came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The execution has ended, and nothing of it runs.
    Reached,
    /// The same, after Ctrl-C cancelled it.
    Interrupted,
    /// The time ran out; what could be cancelled was.
    TimedOut,
    /// Ctrl-C for the third time: nobody waits any more.
    Left,
}

/// How following ended, and the status by then.
#[derive(Debug)]
pub struct Watched {
    /// How.
    pub ending: Ending,
    /// The last status.
    pub status: Value,
    /// What interrupts and the timeout have cancelled.
    pub cancelled: Vec<String>,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Heard {
    /// Returns why an execution is cancelled because of it.
    fn reason(self) -> &'static str {
        match self {
            Heard::Interrupt => "interrupted with Ctrl-C",
            Heard::Terminate => "noetl run was ended with SIGTERM",
        }
    }
}

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Takes both signals from the operating system: from now on they end nothing by themselves.
    pub fn listen() -> Result<Interrupts, Stop> {
        let listen = |kind| {
            signal(kind).map_err(|error| Stop::new(Exit::Defect, format!("can not listen for signals: {error}")))
        };
        Ok(Interrupts { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one, whichever it is.
    pub async fn next(&mut self) {
        self.heard().await;
    }

    /// Waits for the next one.
    pub async fn heard(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Interrupt,
            _ = self.terminate.recv() => Heard::Terminate,
        }
    }
}

/// What to follow, and how.
#[derive(Debug)]
pub struct Follow<'a> {
    /// Which execution.
    pub id: &'a str,
    /// Its playbook.
    pub name: &'a str,
    /// How long at most.
    pub timeout: Option<Duration>,
    /// With these, interrupts and the timeout cancel the execution; without, they only end the following.
    pub interrupts: Option<&'a mut Interrupts>,
    /// Where it is shown.
    pub display: Display,
}

/// What woke us.
enum Woken {
    News(Value),
    Interrupt(Heard),
    Timeout,
}

impl Follow<'_> {
    /// Shows events until the execution has ended and nothing of it runs.
    pub async fn watch(mut self, link: &mut Link) -> Result<Watched, Stop> {
        self.display.begin(self.name, self.id);
        let mut deadline = Instant::now() + self.timeout.unwrap_or(NEVER).min(NEVER);
        let mut after = 0;
        let mut ending = Ending::Reached;
        let mut interrupts_seen = 0_u32;
        let mut cancelled = Vec::new();
        loop {
            let woken = {
                let interrupted = async {
                    match self.interrupts.as_deref_mut() {
                        Some(interrupts) => interrupts.heard().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // Interrupts first: a flood of events must not delay them.
                    biased;
                    heard = interrupted => Woken::Interrupt(heard),
                    () = sleep_until(deadline) => Woken::Timeout,
                    news = news(link, self.id, after) => Woken::News(news?),
                }
            };
            match woken {
                Woken::News(body) => {
                    for event in document::list(&body, "events") {
                        self.display.event(event);
                        after = after.max(document::count(event, "version").unwrap_or(after));
                    }
                    let more = body.pointer("/pagination/has_next").and_then(Value::as_bool).unwrap_or(false);
                    self.display.tick();
                    if !more && over(&body) {
                        self.display.end();
                        return Ok(Watched { ending, status: status(link, self.id).await?, cancelled });
                    }
                }
                Woken::Timeout => {
                    ending = Ending::TimedOut;
                    deadline = Instant::now() + NEVER;
                    if self.interrupts.is_none() {
                        self.display.end();
                        return Ok(Watched { ending, status: status(link, self.id).await?, cancelled });
                    }
                    let limit = self.timeout.unwrap_or_default().as_secs_f64();
                    let reason = format!("noetl run --timeout: longer than {limit} s");
                    cancelled.extend(self.cancel(link, &reason, None).await);
                }
                Woken::Interrupt(heard) => {
                    interrupts_seen += 1;
                    ending = Ending::Interrupted;
                    match interrupts_seen {
                        1 => {
                            self.display.say("cancelling; once more stops its tools without grace");
                            cancelled.extend(self.cancel(link, heard.reason(), None).await);
                        }
                        2 => {
                            self.display.say("stopping its tools at once; once more leaves without waiting");
                            cancelled.extend(self.cancel(link, heard.reason(), Some(0)).await);
                        }
                        _ => {
                            self.display.end();
                            return Ok(Watched { ending: Ending::Left, status: Value::Null, cancelled });
                        }
                    }
                }
            }
        }
    }

    /// Cancels with everything it started, and stops what runs. A refusal is shown but changes nothing: an execution
    /// that has ended in the meantime is what was wanted. Returns what was cancelled.
    async fn cancel(&self, link: &mut Link, reason: &str, grace_seconds: Option<u64>) -> Vec<String> {
        let key = fresh_key();
        let mut body = json!({"cascade": true, "mode": "interrupt", "reason": reason});
        if let (Some(grace), Value::Object(map)) = (grace_seconds, &mut body) {
            map.insert("grace_seconds".into(), json!(grace));
        }
        let asked = link
            .ask(|client| client.post(&["executions", self.id, "cancel"]).body(body.clone()).idempotency_key(&key))
            .await;
        match asked {
            Ok(answer) if answer.is_success() || answer.status.as_u16() == 409 => {
                return document::ids(&answer.json().unwrap_or_default(), "cancelled_executions");
            }
            Ok(answer) => console::complain(&refusal::of(&answer)),
            Err(stop) => console::complain(&stop),
        }
        Vec::new()
    }
}

/// Asks for events after `after`; hangs a little when there are none.
async fn news(link: &mut Link, id: &str, after: u64) -> Result<Value, Stop> {
    let answer = link
        .ask(|client| {
            let request = client.get(&["executions", id, "events"]).patience(HANG);
            let request = request.query("order", "asc").query("page_size", PAGE_SIZE).query("after_version", after);
            request.query("wait_seconds", HANG.as_secs_f64())
        })
        .await?;
    refusal::expect(&answer)
}

/// Returns whether nothing can follow. Servers that do not prove it by `quiesced` are believed when it has ended.
fn over(body: &Value) -> bool {
    match body.get("quiesced").and_then(Value::as_bool) {
        Some(quiesced) => quiesced,
        None => document::is_terminal(&document::status(body)),
    }
}

async fn status(link: &mut Link, id: &str) -> Result<Value, Stop> {
    refusal::expect(&link.ask(|client| client.get(&["executions", id, "status"])).await?)
}
