//! What the worker protocol looks like, for the documentation: the types themselves live in the engine, which knows
//! nothing of HTTP. A test holds these to them.
#![expect(dead_code, reason = "read by the derive only")]

use utoipa::ToSchema;

/// A worker introduces itself.
#[derive(ToSchema)]
pub(super) struct Hello {
    /// Its name; a second session under the same name ends the first.
    worker_id: String,
    /// The session that this very process had before, when nothing of it still runs.
    session_id: Option<String>,
    /// What tells this process from others of the same name: whatever it made up when it began.
    instance: Option<String>,
    /// How many commands it runs at once.
    slots: u32,
    /// Which pools it serves; none means `default`.
    pools: Vec<String>,
    /// The newest protocol that it speaks; 1 when it does not say.
    protocol: u32,
    /// Its version, for people.
    version: String,
    /// Host, pid and the like, for people.
    #[schema(value_type = Object)]
    meta: (),
}

/// What tools printed.
#[derive(ToSchema)]
pub(super) struct Printed {
    /// In the order in which it was printed; at most 1,000.
    lines: Vec<LogLine>,
}

/// A line that a tool printed.
#[derive(ToSchema)]
pub(super) struct LogLine {
    /// Whose.
    execution_id: String,
    /// Which command printed it.
    command_id: String,
    /// Step name.
    step: String,
    /// Which iteration of its loop, from 0.
    iteration: Option<u32>,
    /// Task label within the step.
    task: String,
    /// Which execution of the task, from 1.
    attempt: u32,
    /// `stdout`, `stderr`, or `system` for a mark that says what is missing.
    stream: String,
    /// When the worker read it, in milliseconds since 1970.
    at: i64,
    /// The process that the line comes from: a number of its own choice.
    source: i64,
    /// Which line of that process.
    serial: i64,
    /// The line, without its end; at most 16 KiB.
    line: String,
}

/// The answer to a hello.
#[derive(ToSchema)]
pub(super) struct Welcome {
    /// The life that begins.
    session_id: String,
    /// How long the worker is believed alive after its last request, in milliseconds.
    lease_ms: u64,
    /// How long a poll should hang at most, in milliseconds.
    poll_ms: u64,
    /// The protocol to speak from here on.
    protocol: u32,
}

/// A worker asks for a credential, under its claim of a command.
#[derive(ToSchema)]
pub(super) struct CredentialAsk {
    /// Who asks.
    session_id: String,
    /// Whose command it runs.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// The credential's name.
    alias: String,
}

/// Under what a token is kept.
#[derive(ToSchema)]
pub(super) struct KeptUnder {
    /// The keychain entry's name, or the credential's.
    name: String,
    /// `oauth2`.
    kind: String,
    /// `local` and `execution` keep it for one execution, every other word for all.
    scope: String,
    /// The playbook version.
    catalog_id: String,
    /// Tells requests apart.
    digest: String,
}

/// A worker asks for a token that is kept.
#[derive(ToSchema)]
pub(super) struct KeptAsk {
    /// Who asks.
    session_id: String,
    /// Whose command it runs.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// Under what it is kept.
    under: KeptUnder,
}

/// A token that is kept.
#[derive(ToSchema)]
pub(super) struct KeptReply {
    /// The issuer's answer; null if none is kept.
    #[schema(value_type = Option<Object>)]
    value: (),
}

/// A worker has a token to be kept.
#[derive(ToSchema)]
pub(super) struct KeepRequest {
    /// Who speaks.
    session_id: String,
    /// Whose command it runs.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// Under what to keep it.
    under: KeptUnder,
    /// The issuer's answer.
    #[schema(value_type = Object)]
    value: (),
    /// For how long, in milliseconds.
    life_ms: u64,
}

/// A credential with its secret values. It is for the running command alone: never kept, logged or reported.
#[derive(ToSchema)]
pub(super) struct Credential {
    /// Its name.
    name: String,
    /// What it is for: `postgres`, `bearer`, …
    #[schema(rename = "type")]
    kind: String,
    /// The values.
    #[schema(value_type = Object)]
    data: (),
}

/// A worker asks for work and orders, and says what it has.
#[derive(ToSchema)]
pub(super) struct Poll {
    /// Who.
    session_id: String,
    /// Everything it holds: waiting, running, or over but not acknowledged.
    held: Vec<Held>,
    /// How many slots are free.
    free: u32,
    /// How long to wait for something to say, in milliseconds, at most a fifth of the lease, or 20,000.
    wait_ms: u64,
    /// Answer offers only, for workers that claim by themselves.
    offer: bool,
    /// It takes nothing new; with nothing held this is goodbye.
    draining: bool,
    /// Rises with everything that the worker says, because requests overtake each other; 0 = it does not count.
    serial: u64,
    /// The protocol that the welcome named; 1 when it does not say.
    protocol: u32,
}

/// An attempt in a worker's hands.
#[derive(ToSchema)]
pub(super) struct Held {
    /// Whose.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// A tool has started.
    started: bool,
    /// What has been running for more than a second: people see it in the status.
    running: Option<RunningTool>,
    /// The cancel order it has already: `finish` or `interrupt`.
    cancel: Option<String>,
    /// The grace of that order, in milliseconds: one with a shorter grace is sent.
    grace_ms: Option<u64>,
}

/// A tool that has been running for a while.
#[derive(ToSchema)]
pub(super) struct RunningTool {
    /// Kind of tool, at most 64 bytes.
    tool: String,
    /// The process that leads it on the worker's machine, when it is one of its own.
    pid: Option<u32>,
    /// Since when, by the worker's clock, in milliseconds since 1970.
    since: i64,
}

/// What became of commands, and a poll with it.
#[derive(ToSchema)]
pub(super) struct Reports {
    /// At most 256.
    reports: Vec<Report>,
    /// Answered like a poll.
    poll: Poll,
}

/// What a worker says of a command it held.
#[derive(ToSchema)]
pub(super) struct Report {
    /// Whose.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt: an old one changes nothing.
    epoch: u32,
    /// One of `{"started": {at}}` (it goes on), `{"done": {data, error, handled, ctx, started_at, duration_ms}}`,
    /// `{"suspended": {wait, continuation, ctx}}`, `{"cancelled": {started, stopped, pids, remote_may_have_acted}}` and `"released"`.
    #[schema(value_type = Value)]
    outcome: (),
}

/// What the server has to say. What is empty is left out.
#[derive(ToSchema)]
pub(super) struct Orders {
    /// Run these. A command may be sent twice: one that is known by id and epoch is ignored.
    #[schema(required = false)]
    commands: Vec<Assignment>,
    /// Stop these.
    #[schema(required = false)]
    cancels: Vec<CancelOrder>,
    /// These could be claimed.
    #[schema(required = false)]
    offers: Vec<Offer>,
    /// Held, but not this session's any more: stop them, report how that went, drop them.
    #[schema(required = false)]
    unknown: Vec<Attempt>,
    /// Reports that are durable: drop them.
    #[schema(required = false)]
    settled: Vec<Attempt>,
    /// How long the worker is believed alive from now, in milliseconds.
    lease_ms: u64,
}

/// A command in a worker's hands.
#[derive(ToSchema)]
pub(super) struct Assignment {
    /// Whose.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// The playbook version; `GET /api/worker/playbook/{catalog_id}` has its text.
    catalog_id: String,
    /// Catalog path.
    path: String,
    /// Catalog version.
    version: i64,
    /// Step name.
    step: String,
    /// Which visit.
    visit: u32,
    /// Kind of the first tool.
    kind: String,
    /// Attempts lost before this one.
    losses: u32,
    /// A loss fails it.
    at_most_once: bool,
    /// Names for templates, the iteration, the continuation.
    #[schema(value_type = Object)]
    work: (),
}

/// A command of a cancelled execution is to end.
#[derive(ToSchema)]
pub(super) struct CancelOrder {
    /// Whose.
    execution_id: String,
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// `finish`: let it complete; `interrupt`: stop it.
    mode: String,
    /// Between the polite stop and the kill, in milliseconds.
    grace_ms: u64,
}

/// A command that a worker could claim.
#[derive(ToSchema)]
pub(super) struct Offer {
    /// Whose.
    execution_id: String,
    /// Which: `POST /api/commands/{command_id}/claim` takes it.
    command_id: String,
    /// Attempt.
    epoch: u32,
    /// Step name.
    step: String,
    /// Kind of the first tool.
    kind: String,
    /// Its pool.
    pool: String,
}

/// One attempt of one command.
#[derive(ToSchema)]
pub(super) struct Attempt {
    /// Which.
    command_id: String,
    /// Attempt.
    epoch: u32,
}
