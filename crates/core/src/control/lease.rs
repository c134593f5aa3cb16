//! Leases: attempts whose worker fell silent, came back without them, or handed them back.

use crate::append::Append;
use crate::head::HeadView;
use crate::id::{CommandId, IdSource, SessionId};
use crate::time::Timestamp;

/// Decides that `session_id` is gone: every attempt it holds here is lost.
///
/// An active execution's command becomes pending again under the next epoch, or (too many losses, `at_most_once`)
/// is left to the workflow, which fails its step. `known_gone`: the worker itself came back under a new session, so
/// nothing of the old one can still run and no lost row is kept.
pub fn lose(
    _view: &HeadView,
    _session_id: SessionId,
    _known_gone: bool,
    _now: Timestamp,
    _ids: &mut IdSource,
) -> Option<Append> {
    unimplemented!()
}

/// Decides that a draining worker hands a command back; not counted as a loss.
pub fn release(
    _view: &HeadView,
    _command_id: CommandId,
    _epoch: u32,
    _now: Timestamp,
    _ids: &mut IdSource,
) -> Option<Append> {
    unimplemented!()
}

/// Decides that the lost attempts of `session_id` are given up for good (`session_forget`).
pub fn forget(_view: &HeadView, _session_id: SessionId, _now: Timestamp, _ids: &mut IdSource) -> Option<Append> {
    unimplemented!()
}
