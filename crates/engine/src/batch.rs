//! Group commit: what waits for many executions is written as one transaction, without any artificial delay.
//!
//! While one batch is being committed the next one fills. What a landing brings about (caches, hands, hints) is done
//! here, in the order in which the appends landed, whether or not somebody still waits for the answer.

use std::sync::Arc;

use noetl_core::append::{Append, Verdict};
use noetl_store::{Prepared, Store, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::landing::Landing;
use crate::queue::Queue;

/// Appends in one transaction at most.
pub(crate) const BATCH_APPENDS_MAX: usize = 512;

/// Appends on their way.
#[derive(Debug)]
pub(crate) struct Batcher {
    store: Arc<dyn Store>,
    queue: Queue<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    append: Prepared,
    landing: Landing,
    answer: oneshot::Sender<Answer>,
}

/// What became of an append; what it would have brought about comes back when it did not land.
pub(crate) type Answer = (Result<Verdict, StoreError>, Option<Landing>);

impl Batcher {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Batcher { store, queue: Queue::new() }
    }

    /// Writes an append with the next batch. It is written even if the caller stops waiting.
    pub(crate) async fn append(&self, append: Append, landing: Landing) -> Answer {
        // Here, where others do the same for theirs, and not by the one who writes the batches.
        let append = match self.store.prepare(append) {
            Ok(append) => append,
            Err(error) => return (Err(error), Some(landing)),
        };
        let (answer, verdict) = oneshot::channel();
        if !self.queue.put(Waiting { append, landing, answer }) {
            return (Err(stopped()), None);
        }
        verdict.await.unwrap_or_else(|_| (Err(stopped()), None))
    }

    /// Lets nothing more in; [`run`] ends after what waits.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Lets nothing more in and gives up what waits.
    pub(crate) fn shut(&self) {
        self.queue.shut();
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the engine has stopped".into())
}

/// Writes batch after batch until the batcher is closed.
pub(crate) async fn run(engine: &Engine) {
    let mut written: Vec<Written> = Vec::new();
    loop {
        let queue = &engine.batcher.queue;
        let batch = if written.is_empty() {
            let batch = queue.take(BATCH_APPENDS_MAX).await;
            if batch.is_empty() {
                return;
            }
            batch
        } else {
            queue.take_now(BATCH_APPENDS_MAX)
        };
        if batch.is_empty() {
            finish(engine, std::mem::take(&mut written));
            continue;
        }
        engine.metrics.batches.add_one();
        engine.metrics.batch_size.note(batch.len() as u64);
        let began = Instant::now();
        let (appends, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|one| (one.append, (one.landing, one.answer))).unzip();
        let finished = std::mem::take(&mut written);
        // The store has its work before the last batch's consequences are seen to.
        let (verdicts, ()) =
            futures_util::future::join(engine.store.append_prepared(appends), async { finish(engine, finished) }).await;
        engine.metrics.commit_ms.note(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        written = verdicts
            .into_iter()
            .zip(rest)
            .map(|(verdict, (landing, answer))| Written { verdict, landing, answer })
            .collect();
    }
}

struct Written {
    verdict: Result<Verdict, StoreError>,
    landing: Landing,
    answer: oneshot::Sender<Answer>,
}

fn finish(engine: &Engine, written: Vec<Written>) {
    for Written { verdict, landing, answer } in written {
        let back = match &verdict {
            Ok(Verdict::Landed { version }) => {
                engine.landed(landing, *version);
                None
            }
            Ok(Verdict::Conflict | Verdict::Refused(_) | Verdict::Busy) => Some(landing),
            Err(_) => {
                engine.metrics.store_errors.add_one();
                Some(landing)
            }
        };
        // Whoever asked may have gone away.
        drop(answer.send((verdict, back)));
    }
}
