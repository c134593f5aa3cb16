//! What time it is: a parameter here as in the core, only given as something that can be asked again.

use noetl_core::time::Timestamp;

/// The clocks of the machine that a worker runs on.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock: for times that people read, never for decisions.
    fn now(&self) -> Timestamp;

    /// Returns milliseconds that never go back and go on while the machine is suspended (`CLOCK_BOOTTIME`).
    ///
    /// A worker measures its lease by it: a clock that stands still in suspend would let a tool run on after the
    /// server has given its command to somebody else.
    fn boottime_ms(&self) -> u64;
}
