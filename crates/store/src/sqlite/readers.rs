//! The readers: threads with a connection each, which answer questions beside the writer.
//!
//! Each question sees one moment. A long reader holds back the checkpoint, so people's queries have threads of their
//! own and a time limit.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{mpsc, oneshot};

use super::connection;
use crate::StoreError;

/// Most questions that wait for a reader; more have to wait to get in line.
const QUEUE_MAX: usize = 1_024;

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads that answer questions; dropped, they end.
pub(super) struct Readers {
    questions: Mutex<Option<mpsc::Sender<Question>>>,
    threads: Mutex<Vec<(JoinHandle<()>, InterruptHandle)>>,
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
        let mut threads = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let connection = connection::reader(path)?;
            prepare(&connection)?;
            let interrupt = connection.get_interrupt_handle();
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new()
                .name(format!("noetl-{name}-{number}"))
                .spawn(move || answer(connection, &queue))
                .map_err(|error| StoreError::Unavailable(format!("no thread for a reader: {error}")))?;
            threads.push((thread, interrupt));
        }
        Ok(Readers { questions: Mutex::new(Some(questions)), threads: Mutex::new(threads) })
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

    /// Ends the threads; a question that takes long is broken off.
    pub(super) fn stop(&self) {
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, interrupt) in &threads {
            interrupt.interrupt();
        }
        for (thread, _) in threads {
            thread.join().ok();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(mut connection: Connection, queue: &Mutex<mpsc::Receiver<Question>>) {
    loop {
        // Whoever waits in line holds the queue; the others wait for it.
        let question = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match question {
            Some(question) => question(&mut connection),
            None => return,
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
