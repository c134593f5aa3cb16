//! A queue between tasks: many put in, one takes out, all that waits at a time.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::hold;

/// The queue. Its bound is that whoever puts something in waits for what comes of it.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), arrived: Notify::new() }
    }

    /// Puts an item in; `false` when the queue is closed, and then the item is gone.
    pub(crate) fn put(&self, item: T) -> bool {
        let mut state = hold(&self.state);
        if state.closed {
            return false;
        }
        state.waiting.push_back(item);
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// Takes at most `most` items without waiting.
    pub(crate) fn take_now(&self, most: usize) -> Vec<T> {
        let mut state = hold(&self.state);
        let count = state.waiting.len().min(most);
        state.waiting.drain(..count).collect()
    }

    /// Waits for items and takes at most `most`; none once the queue is closed and empty.
    pub(crate) async fn take(&self, most: usize) -> Vec<T> {
        loop {
            let taken = self.take_now(most);
            if !taken.is_empty() || hold(&self.state).closed {
                return taken;
            }
            // A put between the look and here has left a permit.
            self.arrived.notified().await;
        }
    }

    /// Lets nothing more in.
    pub(crate) fn close(&self) {
        hold(&self.state).closed = true;
        self.arrived.notify_one();
    }

    /// Lets nothing more in and drops what waits.
    pub(crate) fn shut(&self) {
        self.close();
        drop(self.take_now(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_taken_in_order_and_a_closed_queue_ends() {
        let queue = Queue::new();
        for item in 0..5 {
            assert!(queue.put(item));
        }
        assert_eq!(queue.take(3).await, [0, 1, 2]);
        queue.close();
        assert!(!queue.put(9));
        assert_eq!(queue.take(3).await, [3, 4]);
        assert!(queue.take(3).await.is_empty());
    }
}
