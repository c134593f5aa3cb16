//! Parents and children.

use std::sync::Arc;

use noetl_core::append::{DueChange, DueKind, Guard, HeadChange, RefusedBy, Verdict};
use noetl_core::head::Status;
use noetl_core::id::{CommandId, ExecutionId};

use super::Stage;
use crate::{ListQuery, StoreError};

/// An ended parent bears no more, an unknown one never did.
pub async fn a_child_is_born_under_an_active_parent_only(stage: Stage) {
    let script = stage.script();
    let parent = stage.start().await;
    let head = stage.head(parent).await;
    let child = stage.start_below(parent).await;
    assert_eq!(stage.head(child).await.root_execution_id, parent);
    stage.cancel(parent).await;
    let late = script.birth(Some(&head));
    assert_eq!(stage.write(late.clone()).await, Ok(Verdict::Refused(RefusedBy::ParentEnded)));
    assert_eq!(stage.store.head(late.execution_id).await.unwrap(), None);
    let mut stranger = head.clone();
    stranger.execution_id = ExecutionId(script.id());
    let orphan = script.birth(Some(&stranger));
    assert_eq!(stage.write(orphan).await, Ok(Verdict::Refused(RefusedBy::ParentUnknown)));
    // The parent's log is not touched by a child.
    assert_eq!(stage.log(parent).await.len(), 3);
}

/// One root, one deeper: a family is a tree of bounded depth.
pub async fn a_child_knows_its_family(stage: Stage) {
    let script = stage.script();
    let (parent, other) = (stage.start().await, stage.start().await);
    let head = stage.head(parent).await;
    let change = |change: &dyn Fn(&mut noetl_core::head::Head)| {
        let mut birth = script.birth(Some(&head));
        if let Guard::New(first) = &mut birth.guard {
            change(first);
        }
        birth
    };
    let wrong = [
        change(&|first| first.depth = 0),
        change(&|first| first.depth = 2),
        change(&|first| first.root_execution_id = other),
        change(&|first| first.root_execution_id = first.execution_id),
    ];
    for birth in wrong {
        assert!(matches!(stage.write(birth).await, Err(StoreError::BadData(_))));
    }
    let child = stage.start_below(parent).await;
    let grandchild = stage.start_below(child).await;
    let head = stage.head(grandchild).await;
    assert_eq!((head.depth, head.root_execution_id, head.parent_execution_id), (2, parent, Some(child)));
    let family = ListQuery { root: Some(parent), limit: 9, ..ListQuery::default() };
    let ids: Vec<_> = stage.store.executions(family).await.unwrap().iter().map(|head| head.execution_id).collect();
    assert_eq!(ids, [grandchild, child, parent]);
}

/// A step's sub-playbooks come with the step's append, also further down.
pub async fn children_are_born_with_their_parents_append(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let head = stage.head(id).await;
    let mut append = script.enter(id, 1);
    let mut first = script.birth(Some(&head));
    let Guard::New(first_head) = &first.guard else { panic!() };
    first.children.push(script.birth(Some(&(**first_head).clone())));
    let grandchild = first.children[0].execution_id;
    let mut second = script.birth(Some(&head));
    second.events.extend(script.enter(second.execution_id, 0).events);
    let ids = [first.execution_id, second.execution_id, grandchild];
    append.children = vec![first, second];
    stage.land(append).await;
    let heads = [stage.head(ids[0]).await, stage.head(ids[1]).await, stage.head(ids[2]).await];
    assert_eq!(heads.each_ref().map(|head| head.version), [1, 2, 1]);
    assert_eq!(heads.each_ref().map(|head| head.depth), [1, 1, 2]);
    assert!(heads.iter().all(|head| head.root_execution_id == id && head.decided == head.version));
    // A cleanup is born beside: it has no parent, so an ended execution may still start one.
    let (script, cleanup) = (stage.script(), stage.script().birth(None));
    let cleanup_id = cleanup.execution_id;
    let verdict = stage.store.locked(
        id,
        None,
        Box::new(move |locked| {
            let mut append = script.cancel(locked)?;
            append.children.push(cleanup);
            Some(append)
        }),
    );
    assert!(matches!(verdict.await.unwrap(), Some(Verdict::Landed { .. })));
    assert_eq!(stage.head(cleanup_id).await.parent_execution_id, None);
}

/// Parent and child stand or fall together.
pub async fn a_child_that_is_refused_refuses_the_append(stage: Stage) {
    let script = stage.script();
    let (id, other) = (stage.start().await, stage.start().await);
    let head = stage.head(id).await;
    let existing = stage.start_below(id).await;
    let mut twice = script.enter(id, 1);
    let mut again = script.birth(Some(&head));
    again.execution_id = existing;
    if let Guard::New(first) = &mut again.guard {
        first.execution_id = existing;
    }
    let sibling = script.birth(Some(&head));
    let sibling_id = sibling.execution_id;
    twice.children = vec![sibling, again];
    assert_eq!(stage.write(twice).await, Ok(Verdict::Refused(RefusedBy::Exists)));
    assert_eq!(stage.store.head(sibling_id).await.unwrap(), None);
    let twin = script.birth(Some(&head));
    let mut twins = script.enter(id, 1);
    twins.children = vec![twin.clone(), twin];
    assert_eq!(stage.write(twins).await, Ok(Verdict::Refused(RefusedBy::Exists)));
    // An end bears no children.
    let mut ending = script.complete(&head);
    ending.children = vec![script.birth(Some(&head))];
    assert_eq!(stage.write(ending).await, Ok(Verdict::Refused(RefusedBy::ParentEnded)));
    let mut foreign = script.enter(id, 1);
    foreign.children = vec![script.birth(Some(&stage.head(other).await))];
    assert!(matches!(stage.write(foreign).await, Err(StoreError::BadData(_))));
    let mut no_birth = script.enter(id, 1);
    no_birth.children = vec![script.enter(other, 1)];
    assert!(matches!(stage.write(no_birth).await, Err(StoreError::BadData(_))));
    assert_eq!(stage.head(id).await, head);
}

/// Either the child is born and the end comes after it, or it is refused: none is born under an ended parent.
pub async fn a_child_started_from_outside_races_with_the_end(stage: Stage) {
    for _ in 0..50 {
        let parent = stage.start().await;
        let birth = stage.script().birth(Some(&stage.head(parent).await));
        let child = birth.execution_id;
        let (starter, canceller, script) = (Arc::clone(&stage.store), Arc::clone(&stage.store), stage.script());
        let starting = tokio::spawn(async move { starter.append(vec![birth]).await.remove(0).unwrap() });
        let ending = tokio::spawn(async move {
            canceller.locked(parent, None, Box::new(move |locked| script.cancel(locked))).await.unwrap()
        });
        let (started, ended) = (starting.await.unwrap(), ending.await.unwrap());
        assert!(matches!(ended, Some(Verdict::Landed { .. })));
        match started {
            Verdict::Landed { .. } => assert_eq!(stage.head(child).await.status, Status::Running),
            refused => assert_eq!(refused, Verdict::Refused(RefusedBy::ParentEnded)),
        }
        assert_eq!(stage.head(parent).await.status, Status::Cancelled);
    }
}

/// The child's last append writes it for the parent, whose head and log stay as they are.
pub async fn a_childs_end_is_due_for_its_parent_without_touching_it(stage: Stage) {
    let script = stage.script();
    let parent = stage.start().await;
    let child = stage.start_below(parent).await;
    let before = stage.head(parent).await;
    let mut end = script.complete(&stage.head(child).await);
    let mut due = script.due(parent, DueKind::ChildDone, child.0, 0);
    due.command = Some(CommandId(77));
    end.due.push(DueChange::Set(due.clone()));
    stage.land(end).await;
    assert_eq!(stage.head(parent).await, before);
    assert_eq!(stage.store.due(9).await.unwrap().1, vec![due]);
    // The parent's own append meets it.
    let mut met = script.enter(parent, before.decided);
    met.due.push(DueChange::Clear { execution_id: parent, kind: DueKind::ChildDone, key: child.0 });
    met.head = HeadChange::default();
    stage.land(met).await;
    assert!(stage.store.due(9).await.unwrap().1.is_empty());
    // For a parent that has ended it is harmless.
    let other = stage.start_below(parent).await;
    stage.cancel(parent).await;
    let mut end = script.complete(&stage.head(other).await);
    end.due.push(DueChange::Set(script.due(parent, DueKind::ChildDone, other.0, 0)));
    stage.land(end).await;
    assert_eq!(stage.head(other).await.status, Status::Completed);
}
