//! Moving the log into the file beside the writer, which would else do it in the middle of its work: copying thousands
//! of pages and flushing them holds up everybody.
//!
//! The log begins anew only when all of it has been moved at the moment in which a transaction begins. Under load more
//! is written while some is moved, so now and then the writer itself moves the little that is left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::connection;
use crate::StoreError;

/// Pages that are moved together; fewer are left for the next time.
const MOVED_MIN: u32 = 1_000;
/// Pages in the log from which on the writer moves what is left, when nobody is at it.
const LOG_PAGES_LEFT: u32 = 8_000;
/// Pages in the log from which on it does so in any case.
const LOG_PAGES_MAX: u32 = 16_000;

/// The thread that moves the log into the file; dropped, it ends.
pub(super) struct Checkpointer {
    /// Pages in the log after the latest commit.
    pages: Arc<AtomicU32>,
    /// Pages of them that are in the file.
    moved: Arc<AtomicU32>,
    busy: Arc<AtomicBool>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread beside `writer`.
    pub(super) fn start(writer: &mut Connection, path: &Path) -> Result<Self, StoreError> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        // Takes the place of SQLite's own checkpoint at a commit.
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            counted.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let beside = connection::beside_the_writer(path)?;
        let (moved, busy) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        // One order is enough: it is about whatever stands in the log when it is carried out.
        let (wake, woken) = sync_channel(1);
        let thread = {
            let (pages, moved, busy) = (Arc::clone(&pages), Arc::clone(&moved), Arc::clone(&busy));
            std::thread::Builder::new()
                .name("noetl-checkpoint".into())
                .spawn(move || run(&beside, &woken, &pages, &moved, &busy))
                .map_err(|error| StoreError::Unavailable(format!("no thread for the checkpoint: {error}")))?
        };
        Ok(Checkpointer { pages, moved, busy, wake: Some(wake), thread: Some(thread) })
    }

    /// Sees to it, after a commit of `writer`, that the log stays short.
    pub(super) fn committed(&self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        let moved = self.moved.load(Ordering::Relaxed);
        // It has begun anew.
        let moved = if pages < moved { 0 } else { moved };
        let idle = !self.busy.load(Ordering::Acquire);
        if pages >= LOG_PAGES_MAX || (pages >= LOG_PAGES_LEFT && idle && pages - moved < 2 * MOVED_MIN) {
            // Whoever reads for long keeps some of it where it is; then it is tried again after the next commit.
            match passively(writer) {
                Ok(moved) => self.moved.store(moved, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "the log of the store could not be moved into its file"),
            }
        } else if pages - moved >= MOVED_MIN
            && let Some(wake) = &self.wake
        {
            // One that waits already is enough.
            wake.try_send(()).ok();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn run(beside: &Connection, woken: &Receiver<()>, pages: &AtomicU32, moved: &AtomicU32, busy: &AtomicBool) {
    while woken.recv().is_ok() {
        busy.store(true, Ordering::Release);
        loop {
            match passively(beside) {
                Ok(so_far) => {
                    let before = moved.swap(so_far, Ordering::Relaxed);
                    // Written in the meantime; not when a reader keeps it where it is.
                    if so_far == before || pages.load(Ordering::Relaxed).saturating_sub(so_far) < MOVED_MIN {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the log of the store could not be moved into its file");
                    break;
                }
            }
        }
        busy.store(false, Ordering::Release);
    }
}

/// Moves what can be moved without waiting for anybody; returns how many pages of the log are in the file.
fn passively(connection: &Connection) -> Result<u32, StoreError> {
    let moved: i64 = connection.query_row("PRAGMA noetl.wal_checkpoint(PASSIVE)", [], |row| row.get(2))?;
    Ok(u32::try_from(moved).unwrap_or(0))
}
