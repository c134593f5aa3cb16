//! Settling: reports that no workflow decision will take, because the execution is terminal or the attempt is old.

use crate::append::Append;
use crate::head::HeadView;
use crate::id::IdSource;
use crate::time::Timestamp;
use crate::work::Report;

/// Decides a report that is late: kept as evidence, of no effect on status, ctx or results.
///
/// Returns `None` when there is nothing to write: a repeat of a report that has been settled.
pub fn decide(_view: &HeadView, _report: &Report, _worker_id: &str, _now: Timestamp, _ids: &mut IdSource) -> Option<Append> {
    unimplemented!()
}
