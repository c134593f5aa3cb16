//! What a worker and its supervisor say to each other: JSON frames behind a length, with open files beside them.
//!
//! One binary is on both ends (the supervisor is the worker's own executable), so the frames have no versions.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest frame: room for the arguments and environment that a kernel accepts for one process, escaped.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// Most open files that travel with one frame.
pub(crate) const FRAME_FILES_MAX: usize = 3;

/// From the worker to the supervisor.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Starts a process. Its standard streams travel with the frame.
    Start(Start),
    /// Ends everything that `role` covers: politely, then after the grace by force.
    Stop {
        /// What is to end.
        role: Role,
        /// Between the polite signal and the kill; 0 kills at once. A repeat can only shorten it.
        grace_ms: u64,
    },
    /// Asks whether the idle resident is all there is; if it is not, the resident ends with the rest.
    Settle,
}

/// The process to start.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// What it is for.
    pub(crate) role: Role,
    /// Name on PATH, or a path.
    pub(crate) program: String,
    /// Arguments after the name.
    pub(crate) args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory.
    pub(crate) directory: String,
}

/// The two processes that a supervisor can have as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Runs one command and ends. Files: stdout, stderr; stdin is empty.
    Task,
    /// Stays for many commands (a warm interpreter). Files: stdin, stdout, stderr.
    Resident,
}

impl Role {
    /// Returns how many files travel with the order to start it.
    pub(crate) fn files(self) -> usize {
        match self {
            Role::Task => 2,
            Role::Resident => 3,
        }
    }
}

/// From the supervisor to the worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The process runs.
    Started {
        /// Its process id, and that of its group and session.
        pid: i32,
    },
    /// The process could not be started.
    Refused {
        /// Why, as the system says it.
        message: String,
        /// The system's error number, if it was the system that refused.
        errno: Option<i32>,
    },
    /// The resident is idle and nothing else is left.
    Settled,
    /// The process and everything it started is gone, except what `unconfirmed` names.
    Ended(Ended),
}

/// How a process and its tree ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Which of the two.
    pub(crate) role: Role,
    /// How the process itself ended; `None` only if it is among the unconfirmed.
    pub(crate) exit: Option<Exit>,
    /// How far it had to go.
    pub(crate) how: How,
    /// Processes that were left behind by a process that ended by itself, and had to be ended.
    pub(crate) leftovers: usize,
    /// Processes that do not end although they were killed.
    pub(crate) unconfirmed: Vec<i32>,
}

/// How one process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// How far the end of a tree had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// The process had ended before anybody asked it to.
    Finished,
    /// It ended after the polite signal.
    Stopped,
    /// Something of it had to be killed.
    Killed,
    /// Something of it is still there after the kill.
    Unconfirmed,
}

/// Writes a value as a frame.
pub(crate) fn encode(value: &impl Serialize, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(head) if length <= bytes_max => {
            frame[..4].copy_from_slice(&head.to_be_bytes());
            Ok(frame)
        }
        Ok(_) | Err(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{length} bytes exceed the limit of {bytes_max}")))
        }
    }
}

/// Collects bytes until they make frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, if there is one.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, bytes_max: usize) -> io::Result<Option<T>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {length} bytes exceeds the limit of {bytes_max}"),
            ));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let value = serde_json::from_slice(body);
        // Also after a frame that can not be read: the next one starts where this one ends.
        self.bytes.drain(..4 + length);
        Ok(Some(value?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let orders = [Order::Settle, Order::Stop { role: Role::Task, grace_ms: 7 }];
        let stream: Vec<u8> = orders.iter().flat_map(|order| encode(order, FRAME_BYTES_MAX).unwrap()).collect();
        for cut in 0..=stream.len() {
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                inbox.push(part);
                while let Some(order) = inbox.take::<Order>(FRAME_BYTES_MAX).unwrap() {
                    seen.push(order);
                }
            }
            assert_eq!(seen, orders, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_beyond_its_limit_is_refused_before_it_is_collected() {
        let mut inbox = Inbox::default();
        inbox.push(&100u32.to_be_bytes());
        assert_eq!(inbox.take::<Order>(99).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
