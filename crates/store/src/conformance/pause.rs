//! Executions that begin nothing until somebody resumes them.

use noetl_core::append::{Append, DueChange, DueKind, RefusedBy, Verdict};
use noetl_core::control::pause::{self, Answer, Request};
use noetl_core::head::CommandState;
use noetl_core::id::{ExecutionId, IdSource, SessionId};
use noetl_core::turns::Turns;

use super::Stage;
use crate::{FamilyAction, LockedView};

fn request(id: ExecutionId) -> Request {
    Request {
        requested_execution_id: id,
        reason: Some("the target is down".into()),
        by: "cli".into(),
        requested_by: Some("ann@box".into()),
        cascade: true,
    }
}

fn decide(locked: &LockedView, id: ExecutionId, paused: bool, ids: &mut IdSource) -> Option<Append> {
    let decide = if paused { pause::pause } else { pause::resume };
    match decide(&locked.view, &request(id), locked.now, ids) {
        Answer::Changed { append, .. } => Some(*append),
        Answer::Already { .. } | Answer::Ended => None,
    }
}

async fn change(stage: &Stage, id: ExecutionId, paused: bool) {
    // Numbers that nothing else here uses.
    let mut ids = IdSource::new(if paused { 901 } else { 902 });
    let decide = Box::new(move |locked: &LockedView| decide(locked, id, paused, &mut ids));
    let verdict = stage.store.locked(id, None, decide).await.unwrap();
    assert!(matches!(verdict, Some(Verdict::Landed { .. })), "{verdict:?}");
}

/// What is set aside can neither be found nor claimed, and what would begin something is not due; time limits are.
pub async fn a_paused_execution_gives_nothing_away_and_its_moments_wait(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let kinds = [DueKind::Timer, DueKind::ChildDone, DueKind::Continue, DueKind::Timeout, DueKind::StepTimeout];
    let mut append = script.enter(id, stage.head(id).await.decided);
    append.due = kinds.iter().map(|kind| DueChange::Set(script.due(id, *kind, 1, 0))).collect();
    stage.land(append).await;
    assert_eq!(stage.store.due(9).await.unwrap().1.len(), 5);
    let pools = ["default".into()];
    assert_eq!(stage.store.candidates(&pools, &Turns::default(), 0, 9).await.unwrap().len(), 1);

    change(&stage, id, true).await;
    let head = stage.head(id).await;
    let held = head.pause.clone().unwrap();
    assert_eq!((held.paused_by.as_str(), held.since, held.requested_execution_id), ("cli", stage.clock.now(), id));
    assert_eq!(stage.view(id).await.commands[0].state, CommandState::Paused);
    assert!(stage.store.candidates(&pools, &Turns::default(), 0, 9).await.unwrap().is_empty());
    let claim = stage.write(script.claim(id, command, 1, SessionId(1))).await;
    assert_eq!(claim, Ok(Verdict::Refused(RefusedBy::NotPending)));
    let due: Vec<_> = stage.store.due(9).await.unwrap().1.into_iter().map(|due| due.kind).collect();
    assert_eq!(due, [DueKind::StepTimeout, DueKind::Timeout]);
    // A child's end reaches the table all the same.
    let mut other = script.enter(stage.start().await, 1);
    other.due.push(DueChange::Set(script.due(id, DueKind::ChildDone, 2, 0)));
    stage.land(other).await;
    assert_eq!(stage.store.due(9).await.unwrap().1.len(), 2);

    change(&stage, id, false).await;
    assert_eq!(stage.head(id).await.pause, None);
    // The resumption wants it to go on at once.
    let due = stage.store.due(9).await.unwrap().1;
    assert_eq!(due.iter().filter(|due| due.execution_id == id).count(), 7);
    assert_eq!(stage.store.candidates(&pools, &Turns::default(), 0, 9).await.unwrap().len(), 1);
    stage.land(script.claim(id, command, 1, SessionId(1))).await;
}

/// The same walk, chunk by chunk, and the record says what for.
pub async fn a_pause_goes_down_a_family_like_a_cancel(stage: Stage) {
    let script = stage.script();
    let root = stage.start().await;
    let birth = script.birth(Some(&stage.head(root).await));
    let child = birth.execution_id;
    stage.land(birth).await;
    let mut walk = script.cancellation(root);
    walk.action = FamilyAction::Pause;
    stage.store.open_cancellation(walk.clone()).await.unwrap();
    assert_eq!(stage.store.open_cancellations().await.unwrap(), vec![walk.clone()]);
    for last in [false, true] {
        let mut ids = IdSource::new(if last { 904 } else { 903 });
        let fence = Box::new(move |locked: &LockedView| decide(locked, root, true, &mut ids));
        let chunk = stage.store.cancel_chunk(walk.cancellation_id, 1, fence).await.unwrap();
        assert_eq!(chunk.done, last);
    }
    for id in [root, child] {
        assert_eq!(stage.head(id).await.pause.unwrap().requested_execution_id, root);
    }
    assert!(stage.store.open_cancellations().await.unwrap().is_empty());
    let known = stage.store.cancellation(walk.cancellation_id).await.unwrap().unwrap();
    assert_eq!((known.action, known.cancelled), (FamilyAction::Pause, 2));
}
