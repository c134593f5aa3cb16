//! What a playbook means: the checked, compiled form that decisions read.
//!
//! Built by [`super::compile`]; immutable afterwards and shared as `Arc<Playbook>`. Every template in it is compiled
//! once. Names are `Arc<str>` because events, commands and states repeat them.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::concurrency::OnConflict;
use crate::expr::{Condition, ValueTemplate};
use crate::labels::Labels;

/// A step's place in [`Playbook::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIx(pub usize);

/// A checked playbook.
#[derive(Debug)]
pub struct Playbook {
    /// `metadata.path`, else `metadata.name`: the catalog key.
    pub path: Arc<str>,
    /// `metadata.name`, else the path.
    pub name: Arc<str>,
    /// `metadata.description`.
    pub description: Option<String>,
    /// `metadata.labels`: what its executions are labelled with, when the request does not say otherwise.
    pub labels: Labels,
    /// Default inputs, rendered once at start.
    pub workload: IndexMap<Arc<str>, ValueTemplate>,
    /// Unknown root mappings, visible in expressions under their own names (`spec`, …).
    pub extras: Map<String, Value>,
    /// Secrets that templates may name as `keychain.<name>.<field>`; as written, resolved lazily.
    pub keychain: Vec<KeychainEntry>,
    /// `executor.spec`.
    pub executor: Executor,
    /// The steps in the order written.
    pub steps: Vec<Step>,
    /// Where a run begins.
    pub entry: StepIx,
    /// Step names to places.
    pub index: IndexMap<Arc<str>, StepIx>,
    /// Who can reach whom.
    pub graph: Graph,
}

impl Playbook {
    /// Returns the step at `ix`.
    pub fn step(&self, ix: StepIx) -> &Step {
        &self.steps[ix.0]
    }

    /// Returns what a command of the step called `name` runs: its body, or, in a cursor loop outside iterations, the
    /// claim.
    pub fn body(&self, name: &str, in_iteration: bool) -> Option<&Step> {
        let step = self.step(self.find(name)?);
        match &step.looping {
            Some(Loop { source: LoopSource::Cursor(cursor), .. }) if !in_iteration => Some(&cursor.claim),
            Some(_) | None => Some(step),
        }
    }

    /// Returns the place of the step called `name`.
    pub fn find(&self, name: &str) -> Option<StepIx> {
        self.index.get(name).copied()
    }
}

/// `executor.spec`, with the defaults filled in.
#[derive(Debug, Clone)]
pub struct Executor {
    /// The step whose result is the run's result, when it ran.
    pub final_step: Option<StepIx>,
    /// A step after which no arc matches fails the run.
    pub no_next_is_error: bool,
    /// Every error that no rule or arc handled fails the run.
    pub strict: bool,
    /// Pool of workers for steps that name none.
    pub pool: Arc<str>,
    /// Priority of steps that name none; higher is claimed first.
    pub priority: i32,
    /// Time limit of tasks that name none, in milliseconds (`policy.defaults.timeout_s`).
    pub task_timeout_ms: Option<u64>,
    /// Time limit of the whole run, in milliseconds (`spec.timeout`).
    pub timeout_ms: Option<u64>,
    /// `spec.cancel.mode`.
    pub cancel_mode: Option<CancelMode>,
    /// `spec.cancel.grace_seconds`, in milliseconds.
    pub cancel_grace_ms: Option<u64>,
    /// `spec.concurrency`: how many executions that share a key run at a time.
    pub concurrency: Option<ConcurrencySpec>,
    /// `spec.on_cancel`: the step that a cleanup execution starts with.
    pub on_cancel: Option<StepIx>,
    /// `spec.cleanup_timeout`: how long a cleanup may take, in milliseconds.
    pub cleanup_timeout_ms: Option<u64>,
    /// `spec.limits.max_steps`: steps entered before the run is cut off.
    pub max_steps: u64,
    /// `spec.limits.losses`: lost attempts of one command before its step fails.
    pub max_losses: u32,
}

/// `executor.spec.concurrency`.
#[derive(Debug, Clone)]
pub struct ConcurrencySpec {
    /// The key; rendered at start over the workload.
    pub key: ValueTemplate,
    /// How many may run with it.
    pub limit: u32,
    /// What happens beyond.
    pub on_conflict: OnConflict,
}

/// How a cancel treats what runs. `finish` lets it complete, `interrupt` stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelMode {
    /// A command in progress completes; nothing else starts.
    Finish,
    /// What runs is stopped now: politely, then after the grace by force.
    Interrupt,
}

/// What a cancel that comes down from an ancestor does to a child (`spec.cancel.policy` of a playbook task). A cancel
/// that names the child itself reaches it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shield {
    /// The child is left alone, and whoever cancels does not wait for it.
    Abandon,
    /// The child ends in its own time; a cancel has not quiesced before it has.
    Wait,
}

impl Shield {
    /// Returns the word in playbooks, tables and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Shield::Abandon => "abandon",
            Shield::Wait => "wait",
        }
    }

    /// Returns the shield that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Shield::Abandon, Shield::Wait].into_iter().find(|shield| shield.as_str() == word)
    }
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Unique name; may hold slashes.
    pub name: Arc<str>,
    /// `desc`.
    pub description: Option<String>,
    /// Step-level `input`, merged under each task's own input.
    pub input: IndexMap<Arc<str>, ValueTemplate>,
    /// When the step may start; no rule = always. `when` at step level is one rule.
    pub admit: Vec<AdmitRule>,
    /// Iterates the body.
    pub looping: Option<Loop>,
    /// What it does.
    pub body: Body,
    /// Evaluated after the body.
    pub set: Vec<Assignment>,
    /// What of a large result stays in the log.
    pub output: Output,
    /// Where the run goes from here.
    pub next: Next,
    /// `spec`: where and how the body runs.
    pub spec: StepSpec,
    /// What the body's templates and code mention; see [`Reads::of`].
    pub reads: Reads,
    /// It is no step of the workflow but what a cursor loop runs to claim rows.
    pub claims: bool,
}

/// The names that a command takes along, because its body mentions them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reads {
    /// Each once.
    pub names: Vec<Arc<str>>,
    /// Code of the body may look at everything.
    pub all: bool,
}

impl Reads {
    /// Returns what the templates and the code of a step's body mention.
    pub fn of(input: &IndexMap<Arc<str>, ValueTemplate>, body: &Body) -> Self {
        let mut names = indexmap::IndexSet::new();
        let mut all = false;
        let mut add = |template: &ValueTemplate| names.extend(template.roots().map(Arc::from));
        input.values().for_each(&mut add);
        for task in &body.tasks {
            let own = task.defaults.values().chain(task.input.values());
            task.config.values().chain(own).chain(&task.timeout).for_each(&mut add);
            task.set.iter().for_each(|assignment| add(&assignment.value));
            for rule in &task.policy {
                rule.set.iter().for_each(|assignment| add(&assignment.value));
                if let Action::Retry(retry) = &rule.action {
                    add(&retry.attempts);
                    retry.delay.iter().for_each(&mut add);
                }
            }
        }
        for task in &body.tasks {
            for rule in &task.policy {
                names.extend(rule.when.iter().flat_map(|when| when.roots().map(Arc::from)));
            }
            match &task.mentions {
                Some(mentions) => names.extend(mentions.iter().cloned()),
                None => all = true,
            }
        }
        Reads { names: names.into_iter().collect(), all }
    }
}

/// `step.spec` without admission.
#[derive(Debug, Clone, Default)]
pub struct StepSpec {
    /// `compensate`: the step that undoes it, in the cleanup of a cancelled execution.
    pub compensate: Option<StepIx>,
    /// Pool of workers.
    pub pool: Option<Arc<str>>,
    /// `run_on: worker`: a tool that needs no worker is sent to one all the same.
    pub on_worker: bool,
    /// A lost attempt fails the step instead of being tried again.
    pub at_most_once: bool,
    /// Time limit of one visit, in a loop of one iteration, counted from when its command is issued; in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `spec.cancel.grace_seconds`, in milliseconds.
    pub cancel_grace_ms: Option<u64>,
    /// `spec.cancel.boundary: task`: a cancel stops between the tasks of the pipeline.
    pub cancel_between_tasks: bool,
    /// `spec.priority`; higher is claimed first. `None` = the executor's.
    pub priority: Option<i32>,
}

/// One admission rule; the first that matches decides.
#[derive(Debug)]
pub struct AdmitRule {
    /// `None` = else.
    pub when: Option<Condition>,
    /// Whether the step may start.
    pub allow: bool,
}

/// What a step does.
#[derive(Debug)]
pub struct Body {
    /// `true` for the list form, whose result has the pipeline shape even with one task.
    pub pipeline: bool,
    /// At least one task; labels are unique.
    pub tasks: Vec<Task>,
}

/// One tool call of a body.
#[derive(Debug)]
pub struct Task {
    /// Label; for a single tool the step's name.
    pub label: Arc<str>,
    /// Tool kind as the toolbox knows it; `workbook` tasks are already replaced by what they name.
    pub kind: Arc<str>,
    /// Everything of the tool mapping but `kind`, `name`, `input`, `set`, `output`, `spec.policy`, `timeout`.
    pub config: IndexMap<Arc<str>, ValueTemplate>,
    /// The arguments that a workbook task brings along; what the step gives wins over them.
    pub defaults: IndexMap<Arc<str>, ValueTemplate>,
    /// The task's own arguments.
    pub input: IndexMap<Arc<str>, ValueTemplate>,
    /// Bindings after the task; bare names are local to the pipeline.
    pub set: Vec<Assignment>,
    /// What to do after each outcome.
    pub policy: Vec<Rule>,
    /// Time limit of one execution in seconds (number, numeric string or template).
    pub timeout: Option<ValueTemplate>,
    /// Of a playbook task: `spec.cancel.policy`.
    pub shield: Option<Shield>,
    /// Identifiers that the task's code mentions, so that only those context names are sent along;
    /// `None` = it may look at everything (it mentions `context`, or the code is not at hand).
    pub mentions: Option<Vec<Arc<str>>>,
}

/// One policy rule; the first that matches decides.
#[derive(Debug)]
pub struct Rule {
    /// `None` = else.
    pub when: Option<Condition>,
    /// What to do.
    pub action: Action,
    /// Applied with any action.
    pub set: Vec<Assignment>,
}

/// What a policy rule does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Go on with the next task, also after an error.
    Continue,
    /// Run the same task again.
    Retry(Retry),
    /// Go to the task at this place in the body.
    Jump(usize),
    /// Stop the pipeline with success.
    Break,
    /// Stop the pipeline with an error.
    Fail,
}

/// `do: retry`.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Total executions, at least 1; default 3. Number or template.
    pub attempts: ValueTemplate,
    /// Seconds before the first retry; default 1 when a backoff is named, else 0. Number or template.
    pub delay: Option<ValueTemplate>,
    /// How the delay grows.
    pub backoff: Backoff,
}

/// How the delay grows with the number of retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// No delay at all.
    None,
    /// `delay` each time; also `fixed`, and the meaning of no backoff at all.
    Constant,
    /// `delay · k` before retry k.
    Linear,
    /// `delay · 2^(k-1)` before retry k.
    Exponential,
}

/// One `set` entry. All right-hand sides of a block are evaluated before any is applied.
#[derive(Debug)]
pub struct Assignment {
    /// Where it goes.
    pub target: Target,
    /// Dotted path below the scope; `ctx.a.b` is `["a", "b"]`.
    pub path: Vec<Arc<str>>,
    /// What goes there.
    pub value: ValueTemplate,
}

/// The scope an assignment writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `ctx.`: lives as long as the run.
    Ctx,
    /// `iter.`: lives as long as the iteration (or the pipeline outside loops).
    Iter,
    /// Bare (or `step.`): lives as long as the pipeline.
    Local,
}

/// `loop`.
#[derive(Debug)]
pub struct Loop {
    /// What is iterated.
    pub source: LoopSource,
    /// Name of the current element.
    pub iterator: Arc<str>,
    /// One after another, or several at once.
    pub parallel: bool,
    /// Most iterations in flight at once, when parallel. Number or template.
    pub max_in_flight: Option<ValueTemplate>,
    /// `spec.complete_when`: looked at after each iteration; when it holds, the loop ends with the results there are.
    pub complete_when: Option<Condition>,
    /// `spec.on_complete`: what becomes of the iterations that run when the loop is completed early. `cancel` (the
    /// default) interrupts them, `wait` lets them finish.
    pub on_complete: CancelMode,
}

/// What a loop iterates.
#[derive(Debug)]
pub enum LoopSource {
    /// `in`: a list, map, number or string.
    In(ValueTemplate),
    /// `cursor`: rows claimed by SQL until a claim returns none.
    Cursor(Cursor),
}

/// `loop.cursor` and `loop.spec.frame`.
#[derive(Debug)]
pub struct Cursor {
    /// `cursor` as a step of the loop's name with one tool, whose `query` is the `claim`.
    pub claim: Box<Step>,
    /// `spec.frame`: `max_rows`, `row_concurrency`, and advice that nothing here depends on.
    pub frame: IndexMap<Arc<str>, ValueTemplate>,
    /// `spec.frame.process: frame`: an iteration gets all rows of a frame, not one.
    pub by_frame: bool,
}

/// `step.output` (or a single tool's `output`).
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Fields that stay readable when the result is stored outside the log.
    pub select: Vec<String>,
    /// `store.kind`, when named.
    pub store: Option<String>,
    /// `inline_max_bytes`: a result above it is stored outside the log, even one that would have a place there.
    pub inline_bytes_max: Option<usize>,
}

/// `next`.
#[derive(Debug, Default)]
pub struct Next {
    /// `true`: every matching arc fires; `false`: the first.
    pub inclusive: bool,
    /// In the order written.
    pub arcs: Vec<Arrow>,
}

/// One arc (`next.arcs[]`); called arrow here because `Arc` is taken.
#[derive(Debug)]
pub struct Arrow {
    /// Target.
    pub to: StepIx,
    /// `None` = always.
    pub when: Option<Condition>,
    /// The condition was written as `cond`, a bare expression over the step's result: the fields of that are names.
    pub over_result: bool,
    /// Applied when the arc fires.
    pub set: Vec<Assignment>,
    /// `cancel`: the region that is cancelled when the arc fires.
    pub cancels: Vec<StepIx>,
    /// The condition names a failure (`call.error`, `step.failed`, `output.status == 'error'`, `error`), so it
    /// may catch a hard error.
    pub catches: bool,
}

/// Reachability between steps, computed once.
#[derive(Debug, Default)]
pub struct Graph {
    /// `sources[t]`: distinct steps with an arc to `t`.
    pub sources: Vec<Vec<StepIx>>,
    /// `reaches[s][t]`: a path of one arc or more leads from `s` to `t`.
    pub reaches: Vec<Vec<bool>>,
}

/// One `keychain` entry, unresolved.
#[derive(Debug, Clone)]
pub struct KeychainEntry {
    /// How templates name it.
    pub name: Arc<str>,
    /// `static`, `bearer`, `credential`, `oauth2`, `secrets`, `google_id_token`, …
    pub kind: Arc<str>,
    /// Everything else, unresolved.
    pub config: IndexMap<Arc<str>, ValueTemplate>,
}
