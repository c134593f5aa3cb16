//! How processes are started, stopped, and proven to be gone.
//!
//! Three actors. The **worker** (an async runtime with threads) wants a command run. Its **supervisor**, the same
//! executable started again under a hidden name, has one thread and is the parent of everything that the worker's
//! tools start. The **tool** does whatever it likes: forks twice, makes sessions, ignores signals, stops itself,
//! keeps pipes open, forks without end.
//!
//! ```text
//! worker ──lifeline──► supervisor ──► tool ──► … (any depth; orphans come back to the supervisor)
//!    ▲                                 │
//!    └───── stdout, stderr, control ───┘        (handed over with the order to start)
//! ```
//!
//! What holds, and where it is kept:
//!
//! - Nobody is reported as ended while a process of it lives: [`supervise`] reports when the kernel's list of its
//!   children is empty; [`tree`] says why that is a proof.
//! - No signal hits a stranger: [`kill`].
//! - A dead worker leaves nothing: the lifeline closes with it. A dead supervisor: the tool dies with its parent,
//!   [`lost`] hunts the rest, and the outcome is *unconfirmed*, because then nobody can prove anything.
//!
//! In reading order: [`wire`], [`supervisor`] (the worker's side), [`supervise`] (the process itself), and its
//! parts.

pub(crate) mod wire;

pub(crate) mod supervisor;

mod supervise;

mod lifeline;

mod kill;

mod tree;

mod spawn;

mod cgroup;

mod lost;

pub use supervise::supervise_main;
