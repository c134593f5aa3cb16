//! The one writer: a thread that takes everything that waits and commits it as one transaction.
//!
//! No artificial delay: while one group is being flushed, the next one gathers. Within a group each append lands,
//! conflicts or is refused on its own, and each task among others stands in a savepoint of its own. Answers leave after
//! the commit.
//!
//! A step of a walk over many executions takes as long as many appends, so it takes turns with groups: one step, one
//! group of what has come in meanwhile, the next step. A step is told that somebody waits, and then ends sooner.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use noetl_core::append::Verdict;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpointer;
use super::encode::Ready;
use super::fault::{Fault, FaultPoint};
use super::tables::{Failure, Tables};
use crate::StoreError;

/// Most requests that wait for the writer; more have to wait to get in line.
const QUEUE_MAX: usize = 1_024;
/// Most appends in one transaction.
const GROUP_APPENDS_MAX: usize = 512;
/// Most bytes in one transaction; a single larger append goes alone.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

type Answer = Result<Verdict, StoreError>;

/// Verdicts, and the batch back: its many small parts are freed by the caller, not by the one writer.
struct Answered {
    answers: Vec<Answer>,
    _batch: Vec<Ready>,
}

/// What the writer is asked for.
enum Request {
    Append { batch: Vec<Ready>, answer: oneshot::Sender<Answered> },
    Task(Box<dyn Task>),
    Step(Box<dyn Task>),
    Close { answer: oneshot::Sender<Result<(), StoreError>> },
}

/// Work other than a batch of appends, answered after the commit.
trait Task: Send {
    fn run(&mut self, tables: &mut Tables) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Work<T, F> {
    work: Option<F>,
    done: Option<T>,
    failure: Option<StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send> Task for Work<T, F> {
    fn run(&mut self, tables: &mut Tables) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // A decision that panics is the caller's bug; the writer outlives it.
        let result = catch_unwind(AssertUnwindSafe(|| work(tables)))
            .unwrap_or_else(|_| Err(StoreError::BadData("the decision panicked; nothing was written".into())));
        match result {
            Ok(done) => {
                self.done = Some(done);
                Ok(())
            }
            Err(error) => {
                self.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let Work { done, failure: own, answer, .. } = *self;
        let result = match (own.or_else(|| failure.cloned()), done) {
            (Some(error), _) => Err(error),
            (None, Some(done)) => Ok(done),
            (None, None) => Err(StoreError::Unavailable("the task did not run".into())),
        };
        // Nobody waits any more: what is done is done.
        answer.send(result).ok();
    }
}

/// The way to the writer thread; dropped, it ends the thread.
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(mut tables: Tables, checkpointer: Checkpointer, fault: Fault) -> Result<Self, StoreError> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let sender = requests.downgrade();
        tables.awaited =
            Box::new(move || sender.upgrade().is_some_and(|sender| sender.capacity() < sender.max_capacity()));
        let thread = std::thread::Builder::new()
            .name("noetl-writer".into())
            .spawn(move || {
                let checkpointer = Some(checkpointer);
                Loop { tables, checkpointer, queue, fault, next: None, steps: VecDeque::new() }.run();
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for the writer: {error}")))?;
        Ok(Writer { requests: Some(requests), thread: Some(thread) })
    }

    pub(super) async fn append(&self, batch: Vec<Ready>) -> Vec<Answer> {
        let size = batch.len();
        let (answer, answered) = oneshot::channel();
        let sent = self.send(Request::Append { batch, answer }).await;
        let answers = match sent {
            Ok(()) => answered.await.map(|answered| answered.answers).map_err(|_| gone()),
            Err(error) => Err(error),
        };
        answers.unwrap_or_else(|error| vec![Err(error); size])
    }

    pub(super) async fn task<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        self.work(work, Request::Task).await
    }

    /// The same for a step of something that takes many, in a transaction of its own.
    pub(super) async fn step<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        self.work(work, Request::Step).await
    }

    async fn work<T, F>(&self, work: F, request: fn(Box<dyn Task>) -> Request) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let task = Work { work: Some(work), done: None, failure: None, answer };
        self.send(request(Box::new(task))).await?;
        answered.await.map_err(|_| gone())?
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Close { answer }).await?;
        answered.await.map_err(|_| gone())?
    }

    async fn send(&self, request: Request) -> Result<(), StoreError> {
        let Some(requests) = &self.requests else { return Err(gone()) };
        requests.send(request).await.map_err(|_| gone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends when nobody can ask it any more; whoever opens the file next finds it free.
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn gone() -> StoreError {
    StoreError::Closed("it has been closed".into())
}

/// A batch of one caller, with its place among the answers.
struct Batch {
    batch: Vec<Ready>,
    answers: Vec<Option<Answer>>,
    answer: oneshot::Sender<Answered>,
}

/// What is committed together.
#[derive(Default)]
struct Group {
    tasks: Vec<Box<dyn Task>>,
    batches: Vec<Batch>,
    appends: usize,
    bytes: usize,
}

struct Loop {
    tables: Tables,
    /// `None` when the store is being closed.
    checkpointer: Option<Checkpointer>,
    queue: mpsc::Receiver<Request>,
    fault: Fault,
    /// Taken from the queue, but too much for the group before.
    next: Option<Request>,
    /// Steps whose turn has not come yet.
    steps: VecDeque<Box<dyn Task>>,
}

impl Loop {
    fn run(mut self) {
        while let Some(request) = self.request() {
            let mut group = Group::default();
            let closing = request.and_then(|request| self.gather(request, &mut group));
            self.commit(group);
            if let Some(answer) = closing {
                while self.step() {}
                self.queue.close();
                answer.send(self.close()).ok();
                return;
            }
            self.step();
        }
    }

    /// Returns what to begin the next group with, if anything; waits only when there is no step to take either.
    /// `None` when nobody can ask for anything any more.
    fn request(&mut self) -> Option<Option<Request>> {
        if let Some(next) = self.next.take() {
            return Some(Some(next));
        }
        if self.steps.is_empty() { self.queue.blocking_recv().map(Some) } else { Some(self.queue.try_recv().ok()) }
    }

    /// Takes the step whose turn it is; returns whether there was one.
    fn step(&mut self) -> bool {
        let Some(step) = self.steps.pop_front() else { return false };
        self.commit(Group { tasks: vec![step], ..Group::default() });
        true
    }

    /// Fills the group with everything that waits, as far as there is room.
    fn gather(&mut self, first: Request, group: &mut Group) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let mut request = first;
        loop {
            match request {
                Request::Close { answer } => return Some(answer),
                Request::Task(task) => group.tasks.push(task),
                Request::Step(step) => self.steps.push_back(step),
                Request::Append { batch, answer } => {
                    let bytes: usize = batch.iter().map(|ready| ready.bytes).sum();
                    let full = group.appends + batch.len() > GROUP_APPENDS_MAX || group.bytes + bytes > GROUP_BYTES_MAX;
                    if full && group.appends > 0 {
                        self.next = Some(Request::Append { batch, answer });
                        return None;
                    }
                    group.appends += batch.len();
                    group.bytes += bytes;
                    let answers = batch.iter().map(|_| None).collect();
                    group.batches.push(Batch { batch, answers, answer });
                }
            }
            match self.queue.try_recv() {
                Ok(waiting) => request = waiting,
                Err(_) => return None,
            }
        }
    }

    fn commit(&mut self, mut group: Group) {
        if group.tasks.is_empty() && group.batches.is_empty() {
            return;
        }
        let failure = self.together(&mut group).err();
        if let Some(error) = &failure {
            tracing::warn!(%error, appends = group.appends, tasks = group.tasks.len(), "a group could not be committed");
            self.roll_back();
            self.alone(&mut group.batches);
        }
        for task in group.tasks {
            task.answer(failure.as_ref());
        }
        for Batch { batch, answers, answer } in group.batches {
            let answers = answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(gone()))).collect();
            // Nobody waits any more: what is written stays written.
            answer.send(Answered { answers, _batch: batch }).ok();
        }
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.committed(&self.tables.connection);
        }
    }

    /// Runs the whole group in one transaction.
    fn together(&mut self, group: &mut Group) -> Result<(), StoreError> {
        self.begin()?;
        // Alone in its transaction a task needs no savepoint, which would keep a copy of each page that it changes.
        if let ([task], []) = (group.tasks.as_mut_slice(), group.batches.as_slice()) {
            if task.run(&mut self.tables).is_ok() {
                return self.end();
            }
            // The task answers with its own failure.
            self.roll_back();
            return Ok(());
        }
        for task in &mut group.tasks {
            self.tables.connection.execute_batch("SAVEPOINT task")?;
            if task.run(&mut self.tables).is_err() {
                self.tables.heads.forget_all();
                self.tables.connection.execute_batch("ROLLBACK TO task")?;
            }
            self.tables.connection.execute_batch("RELEASE task")?;
        }
        if !group.batches.is_empty() {
            self.appends(&mut group.batches, !group.tasks.is_empty())?;
        }
        self.end()
    }

    /// Writes the appends; one that the database refuses is left out, and the others are written again without it.
    fn appends(&mut self, batches: &mut [Batch], beside_tasks: bool) -> Result<(), StoreError> {
        let (start, restart) = if beside_tasks {
            (Some("SAVEPOINT appends"), "ROLLBACK TO appends")
        } else {
            (None, "ROLLBACK; BEGIN IMMEDIATE")
        };
        if let Some(start) = start {
            self.tables.connection.execute_batch(start)?;
        }
        let mut poisoned: Vec<(usize, usize)> = Vec::new();
        'again: loop {
            for (b, batch) in batches.iter_mut().enumerate() {
                for (a, ready) in batch.batch.iter().enumerate() {
                    if poisoned.contains(&(b, a)) {
                        continue;
                    }
                    batch.answers[a] = Some(match self.append(ready) {
                        Ok(verdict) => Ok(verdict),
                        Err(Failure::Before(error)) => Err(error),
                        // Only what breaks a rule of the tables is this append's own fault.
                        Err(Failure::Halfway(error @ StoreError::BadData(_))) => {
                            poisoned.push((b, a));
                            batch.answers[a] = Some(Err(error));
                            self.tables.heads.forget_all();
                            self.tables.connection.execute_batch(restart)?;
                            continue 'again;
                        }
                        Err(Failure::Halfway(error)) => return Err(error),
                    });
                }
            }
            return Ok(());
        }
    }

    /// Tries each append in a transaction of its own, after the group has failed as a whole.
    fn alone(&mut self, batches: &mut [Batch]) {
        for batch in batches {
            for (ready, answer) in batch.batch.iter().zip(&mut batch.answers) {
                *answer = Some(self.one(ready));
            }
        }
    }

    fn one(&mut self, ready: &Ready) -> Answer {
        self.begin()?;
        let result = match self.append(ready) {
            Ok(verdict) => self.end().map(|()| verdict),
            Err(Failure::Before(error) | Failure::Halfway(error)) => Err(error),
        };
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    fn append(&mut self, ready: &Ready) -> Result<Verdict, Failure> {
        self.fault.strike(FaultPoint::Append(ready.append.execution_id)).map_err(Failure::Halfway)?;
        self.tables.append(ready)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.fault.strike(FaultPoint::Begin)?;
        // Immediate: a read that turns into a write fails at once when another process has written in between.
        Ok(self.tables.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.fault.strike(FaultPoint::Commit)?;
        self.tables.connection.execute_batch("COMMIT")?;
        // It is done, whatever happens now.
        self.fault.strike(FaultPoint::Answer).ok();
        Ok(())
    }

    fn roll_back(&mut self) {
        self.tables.heads.forget_all();
        // A full disk rolls back by itself.
        if !self.tables.connection.is_autocommit()
            && let Err(error) = self.tables.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        drop(self.checkpointer.take());
        // So that the file alone holds everything. A reader in another process may be in the way; its next owner does it.
        let checkpoint = "PRAGMA noetl.wal_checkpoint(TRUNCATE)";
        self.tables.connection.query_row(checkpoint, [], |_| Ok(())).map_err(StoreError::from)
    }
}
