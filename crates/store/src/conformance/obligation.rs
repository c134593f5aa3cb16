//! What has to happen later.

use noetl_core::append::{Due, DueChange, DueKind};
use noetl_core::id::{CommandId, ExecutionId};

use super::Stage;

async fn oblige(stage: &Stage, id: ExecutionId, dues: &[Due]) {
    let mut append = stage.script().enter(id, stage.head(id).await.decided);
    append.due = dues.iter().cloned().map(DueChange::Set).collect();
    stage.land(append).await;
}

/// Only what is due, oldest first, as many as asked for.
pub async fn obligations_come_due_in_order(stage: Stage) {
    let script = stage.script();
    let (a, b) = (stage.start().await, stage.start().await);
    let dues = [
        script.due(a, DueKind::Timer, 1, 300),
        script.due(a, DueKind::Timer, 2, 100),
        script.due(a, DueKind::Timeout, 0, 200),
        script.due(a, DueKind::Continue, 0, 0),
    ];
    oblige(&stage, a, &dues).await;
    let later = script.due(b, DueKind::StepTimeout, -5, 100);
    oblige(&stage, b, std::slice::from_ref(&later)).await;
    let (now, due) = stage.store.due(10).await.unwrap();
    assert_eq!((now, due), (stage.clock.now(), vec![dues[3].clone()]));
    stage.clock.advance_ms(100);
    let (_, due) = stage.store.due(10).await.unwrap();
    assert_eq!(due, vec![dues[3].clone(), dues[1].clone(), later.clone()]);
    stage.clock.advance_ms(99);
    assert_eq!(stage.store.due(10).await.unwrap().1.len(), 3);
    stage.clock.advance_ms(101);
    let (_, due) = stage.store.due(10).await.unwrap();
    assert_eq!(due, vec![dues[3].clone(), dues[1].clone(), later, dues[2].clone(), dues[0].clone()]);
    assert_eq!(stage.store.due(2).await.unwrap().1, due[..2]);
    assert!(stage.store.due(0).await.unwrap().1.is_empty());
}

/// One per execution, kind and key.
pub async fn an_obligation_set_again_replaces_the_first(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let first = script.due(id, DueKind::Timer, 1, 0);
    oblige(&stage, id, &[first]).await;
    let mut second = script.due(id, DueKind::Timer, 1, 500);
    second.command = Some(CommandId(script.id()));
    oblige(&stage, id, std::slice::from_ref(&second)).await;
    assert!(stage.store.due(9).await.unwrap().1.is_empty());
    stage.clock.advance_ms(500);
    assert_eq!(stage.store.due(9).await.unwrap().1, vec![second]);
}

/// Cleared in the append that met it; clearing what is not there is nothing.
pub async fn an_obligation_met_is_gone(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    oblige(&stage, id, &[script.due(id, DueKind::Timer, 1, 0), script.due(id, DueKind::GraceEnd, 1, 0)]).await;
    let mut met = script.enter(id, stage.head(id).await.decided);
    for (kind, key) in [(DueKind::Timer, 1), (DueKind::Timer, 2), (DueKind::Continue, 1)] {
        met.due.push(DueChange::Clear { execution_id: id, kind, key });
    }
    stage.land(met).await;
    assert_eq!(stage.store.due(9).await.unwrap().1, vec![script.due(id, DueKind::GraceEnd, 1, 0)]);
    // In order: cleared and set again is set.
    let mut again = script.enter(id, stage.head(id).await.decided);
    let due = script.due(id, DueKind::GraceEnd, 1, 0);
    again.due =
        vec![DueChange::Clear { execution_id: id, kind: DueKind::GraceEnd, key: 1 }, DueChange::Set(due.clone())];
    stage.land(again).await;
    assert_eq!(stage.store.due(9).await.unwrap().1, vec![due]);
}

/// Only then: an active execution's obligation is met by an append.
pub async fn obligations_of_ended_executions_are_forgotten_without_an_event(stage: Stage) {
    let script = stage.script();
    let (ended, active) = (stage.start().await, stage.start().await);
    let dues = [
        script.due(ended, DueKind::Timer, 1, 0),
        script.due(ended, DueKind::Timer, 2, 0),
        script.due(active, DueKind::Timer, 1, 0),
        script.due(ExecutionId(script.id()), DueKind::ChildDone, 1, 0),
    ];
    oblige(&stage, ended, &dues[..2]).await;
    oblige(&stage, active, &dues[2..]).await;
    stage.complete(ended).await;
    let version = stage.head(ended).await.version;
    // Set to another time since it was read: that one stays.
    let mut stale = dues[1].clone();
    stale.at = stale.at.plus_ms(1);
    stage.store.forget_due(vec![dues[0].clone(), stale, dues[2].clone(), dues[3].clone()]).await.unwrap();
    let left = stage.store.due(9).await.unwrap().1;
    assert_eq!(left, vec![dues[1].clone(), dues[2].clone()]);
    assert_eq!(stage.head(ended).await.version, version);
}
