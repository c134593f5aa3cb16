//! The readers: threads with a connection each, which answer questions beside the writer.
//!
//! Each question sees one moment. A long reader holds back the checkpoint, so people's queries have threads of their
//! own and a time limit.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{mpsc, oneshot};

use super::connection;
use crate::StoreError;

/// Most questions that wait for a reader; more have to wait to get in line.
const QUEUE_MAX: usize = 1_024;

/// How soon readers that are to end are interrupted again.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads that answer questions; dropped, they end.
pub(super) struct Readers {
    questions: Mutex<Option<mpsc::Sender<Question>>>,
    threads: Mutex<Option<Threads>>,
    /// No further question is answered.
    over: Arc<AtomicBool>,
}

struct Threads {
    all: Vec<(JoinHandle<()>, InterruptHandle)>,
    /// Disconnected when every thread has ended.
    ended: Receiver<Infallible>,
}

impl Readers {
    /// Starts `count` readers of the file, each made ready by `prepare`.
    pub(super) fn start(
        name: &str,
        count: usize,
        path: &Path,
        prepare: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, StoreError> {
        let (questions, queue) = mpsc::channel::<Question>(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let over = Arc::<AtomicBool>::default();
        let (alive, ended) = channel();
        let mut all = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let connection = connection::reader(path)?;
            prepare(&connection)?;
            let interrupt = connection.get_interrupt_handle();
            let (queue, over, alive) = (Arc::clone(&queue), Arc::clone(&over), alive.clone());
            let thread = std::thread::Builder::new()
                .name(format!("noetl-{name}-{number}"))
                .spawn(move || {
                    answer(connection, &queue, &over);
                    drop(alive);
                })
                .map_err(|error| StoreError::Unavailable(format!("no thread for a reader: {error}")))?;
            all.push((thread, interrupt));
        }
        let threads = Mutex::new(Some(Threads { all, ended }));
        Ok(Readers { questions: Mutex::new(Some(questions)), threads, over })
    }

    /// Asks one question, answered as of one moment.
    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask_alone(|connection| question(connection)).await
    }

    /// The same, for a question that changes settings of its connection meanwhile.
    pub(super) async fn ask_alone<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            // Nobody waits any more: nothing was changed.
            answer.send(at_one_moment(connection, question)).ok();
        });
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(questions) = questions else { return Err(gone()) };
        questions.send(question).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Ends the threads; a question that takes long is broken off, one that waits in line is not answered.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Release);
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { all, ended }) = threads else { return };
        // The race: an interrupt ends what runs at that moment. One that comes between two statements of a question is
        // lost, and the next statement may take its time; so it is said again until all have ended.
        loop {
            all.iter().for_each(|(_, interrupt)| interrupt.interrupt());
            match ended.recv_timeout(INTERRUPT_AGAIN) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(nothing) => match nothing {},
            }
        }
        for (thread, _) in all {
            thread.join().ok();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(mut connection: Connection, queue: &Mutex<mpsc::Receiver<Question>>, over: &AtomicBool) {
    loop {
        // Whoever waits in line holds the queue; the others wait for it.
        let question = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match question {
            Some(question) if !over.load(Ordering::Acquire) => question(&mut connection),
            // Whoever asked hears that it has been closed.
            Some(_) | None => return,
        }
    }
}

fn at_one_moment<T>(
    connection: &mut Connection,
    question: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.execute_batch("BEGIN")?;
    let answer = question(connection);
    connection.execute_batch("COMMIT")?;
    answer
}

fn gone() -> StoreError {
    StoreError::Closed("it has been closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteOptions;
    use crate::sqlite::connection::writer;

    const FOREVER: &str = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    /// The race: the order to end comes when a question has begun, and its statement has not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_statement_that_begins_after_the_interrupt_is_broken_off_too() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("noetl.db");
        drop(writer(&SqliteOptions::new(path.clone())).unwrap());
        let readers = Arc::new(Readers::start("test", 1, &path, |_| Ok(())).unwrap());
        let (began, begun) = oneshot::channel();
        let asking = {
            let readers = Arc::clone(&readers);
            tokio::spawn(async move {
                let question = move |connection: &Connection| {
                    began.send(()).ok();
                    while !connection.is_interrupted() {
                        std::thread::yield_now();
                    }
                    Ok(connection.query_row(FOREVER, [], |row| row.get::<_, i64>(0))?)
                };
                readers.ask(question).await
            })
        };
        begun.await.unwrap();
        let behind = {
            let readers = Arc::clone(&readers);
            tokio::spawn(async move { readers.ask(|_| Ok(())).await })
        };
        let stopping = {
            let readers = Arc::clone(&readers);
            tokio::task::spawn_blocking(move || readers.stop())
        };
        stopping.await.unwrap();
        assert!(asking.await.unwrap().is_err());
        assert!(matches!(behind.await.unwrap(), Err(StoreError::Closed(_))));
    }
}
