//! Questions.

use std::sync::Arc;

use noetl_core::append::{CommandChange, Guard};
use noetl_core::event::row::wire_name;
use noetl_core::head::{CommandState, Status};
use noetl_core::id::{EventId, ExecutionId, SessionId, made_at};
use noetl_core::labels::Labels;
use noetl_core::result::LargeResult;
use noetl_core::turns::Turns;
use serde_json::json;

use super::Stage;
use crate::{EventQuery, ListQuery};

/// The newest two snapshots are kept; the tail begins behind the newest.
pub async fn a_load_is_the_newest_snapshot_and_its_tail(stage: Stage) {
    let id = stage.start().await;
    let loaded = stage.store.load(id).await.unwrap().unwrap();
    assert_eq!((loaded.snapshot, loaded.tail.len()), (None, 1));
    for decided in 1..=9 {
        let mut append = stage.script().enter(id, decided);
        if decided % 2 == 0 {
            append.snapshot = Some(Arc::new(json!({"version": decided + 1, "float": 0.1 + 0.2})));
        }
        stage.land(append).await;
    }
    let loaded = stage.store.load(id).await.unwrap().unwrap();
    assert_eq!(loaded.snapshot, Some((9, Arc::new(json!({"version": 9, "float": 0.1 + 0.2})))));
    assert_eq!(loaded.tail, stage.log(id).await[9..]);
    assert_eq!(loaded.head, stage.head(id).await);
    let sizes = stage.store.size().await.unwrap();
    assert_eq!(sizes.iter().find(|size| size.table == "snapshot").map(|size| size.rows), Some(2));
}

/// Head, commands and log are of one moment, while somebody writes.
pub async fn what_is_read_is_of_one_moment(stage: Stage) {
    let id = stage.start().await;
    let writing = {
        let (store, script) = (Arc::clone(&stage.store), stage.script());
        tokio::spawn(async move {
            let mut decided = 1;
            for round in 0..100 {
                let mut append = script.enter(id, decided);
                append.events.extend(script.enter(id, 0).events);
                script.add_command(&mut append, CommandState::Suspended);
                if round % 10 == 9 {
                    append.snapshot = Some(Arc::new(json!({})));
                }
                store.append(vec![append]).await.remove(0).unwrap();
                decided += 3;
            }
        })
    };
    while !writing.is_finished() {
        let loaded = stage.store.load(id).await.unwrap().unwrap();
        let read = loaded.snapshot.map_or(0, |(version, _)| version) + loaded.tail.len() as u64;
        assert_eq!(read, loaded.head.version);
        let view = stage.view(id).await;
        assert_eq!(view.commands.len() as u64, view.head.commands_issued);
    }
    writing.await.unwrap();
    assert_eq!(stage.head(id).await.version, 301);
}

/// Each condition alone and together, forwards and backwards, in pages.
pub async fn events_are_found_by_every_condition(stage: Stage) {
    let script = stage.script();
    let (one, two) = (stage.start().await, stage.start().await);
    for decided in 1..=5 {
        stage.land(script.enter(one, decided)).await;
        stage.land(script.enter(two, decided)).await;
    }
    stage.complete(one).await;
    let all = EventQuery { limit: 1_000, ..EventQuery::default() };
    let (everything, total) = stage.store.events(all.clone()).await.unwrap();
    assert_eq!((everything.len(), total), (13, 13));
    assert!(everything.is_sorted_by_key(|recorded| recorded.event_id));
    let of_one = EventQuery { execution_id: Some(one), ..all.clone() };
    let (log, total) = stage.store.events(of_one.clone()).await.unwrap();
    assert_eq!((log.len(), total), (7, 7));
    let middle = log[3].event_id;
    let cases: [(EventQuery, Vec<EventId>); 7] = [
        (EventQuery { after_version: Some(4), ..of_one.clone() }, log[4..].iter().map(|e| e.event_id).collect()),
        (EventQuery { since_event_id: Some(middle), ..of_one.clone() }, log[4..].iter().map(|e| e.event_id).collect()),
        (
            EventQuery { event_type: Some("step.enter".into()), ..of_one.clone() },
            log[1..6].iter().map(|e| e.event_id).collect(),
        ),
        (EventQuery { newest_first: true, limit: 2, ..of_one.clone() }, vec![log[6].event_id, log[5].event_id]),
        (EventQuery { offset: 5, ..of_one.clone() }, log[5..].iter().map(|e| e.event_id).collect()),
        (EventQuery { event_type: Some("no.such".into()), ..all.clone() }, vec![]),
        (
            EventQuery { since_event_id: Some(middle), newest_first: true, ..all.clone() },
            everything.iter().rev().map(|e| e.event_id).filter(|id| *id > middle).collect(),
        ),
    ];
    for (query, expected) in cases {
        let (found, total) = stage.store.events(query.clone()).await.unwrap();
        assert_eq!(found.iter().map(|e| e.event_id).collect::<Vec<_>>(), expected, "{query:?}");
        assert!(total >= expected.len() as u64);
        if query.offset == 0 && query.limit == 1_000 {
            assert_eq!(total, expected.len() as u64, "{query:?}");
        }
    }
    let (page, total) = stage.store.events(EventQuery { limit: 0, ..all }).await.unwrap();
    assert_eq!((page.len(), total), (0, 13));
}

fn labelled(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// Each condition alone, newest first, in pages that skip no row.
pub async fn executions_are_listed_by_every_condition(stage: Stage) {
    let script = stage.script();
    let mut ids: Vec<ExecutionId> = Vec::new();
    let labels = [&[("t", "1"), ("e.x/y", "p")][..], &[("t", "1")], &[("t", "2"), ("e.x/y", "p")], &[]];
    for (path, labels) in ["flows/a", "flows/b", "jobs/[x]?", "flows/a"].into_iter().zip(labels) {
        let mut birth = script.birth(None);
        if let Guard::New(head) = &mut birth.guard {
            head.path = path.into();
            head.labels = labelled(labels);
        }
        stage.land(birth.clone()).await;
        ids.push(birth.execution_id);
        stage.clock.advance_ms(1_000);
    }
    let child = stage.start_below(ids[0]).await;
    let (held, _) = stage.start_claimed(SessionId(1)).await;
    stage.complete(ids[1]).await;
    stage.cancel(held).await;
    stage.clock.advance_ms(1_000);
    stage.land(script.enter(ids[2], 1)).await;
    let list = |query: ListQuery| {
        let store = Arc::clone(&stage.store);
        async move {
            let limit = if query.limit == 0 { 100 } else { query.limit };
            let found = store.executions(ListQuery { limit, ..query }).await.unwrap();
            found.into_iter().map(|head| head.execution_id).collect::<Vec<_>>()
        }
    };
    let any = ListQuery::default;
    assert_eq!(list(any()).await, [held, child, ids[3], ids[2], ids[1], ids[0]]);
    let status = |status| ListQuery { status, ..any() };
    assert_eq!(list(status(vec![Status::Running])).await, [child, ids[3], ids[2], ids[0]]);
    assert_eq!(list(status(vec![Status::Completed, Status::Cancelled])).await, [held, ids[1]]);
    assert!(list(status(vec![Status::Failed])).await.is_empty());
    let path = |path: &str| ListQuery { path: Some(path.into()), ..any() };
    assert_eq!(list(path("flows/a")).await, [ids[3], ids[0]]);
    assert_eq!(list(path("flows/[ab]")).await, []);
    assert_eq!(list(path("*/[x]?")).await, [ids[2]]);
    assert_eq!(list(path("*s/*")).await, [held, child, ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list(path("FLOWS/a")).await, []);
    assert_eq!(list(ListQuery { parent: Some(ids[0]), ..any() }).await, [child]);
    assert_eq!(list(ListQuery { root: Some(ids[0]), ..any() }).await, [child, ids[0]]);
    let label = |labels: &[(&str, &str)]| ListQuery { labels: labelled(labels), ..any() };
    assert_eq!(list(label(&[("t", "1")])).await, [ids[1], ids[0]]);
    assert_eq!(list(label(&[("t", "1"), ("e.x/y", "p")])).await, [ids[0]]);
    assert_eq!(list(label(&[("e.x/y", "p")])).await, [ids[2], ids[0]]);
    assert!(list(label(&[("t", "")])).await.is_empty() && list(label(&[("e", "p")])).await.is_empty());
    let mine = ListQuery { status: vec![Status::Running], limit: 9, ..label(&[("t", "1")]) };
    assert_eq!(stage.store.execution_ids(mine.clone()).await.unwrap(), [ids[0]]);
    assert_eq!(stage.store.count_executions(mine).await.unwrap(), 1);
    let second = stage.head(ids[1]).await.started_at;
    assert_eq!(list(ListQuery { started_before: Some(second), ..any() }).await, [ids[0]]);
    let now = stage.clock.now();
    assert_eq!(list(ListQuery { idle_since: Some(now), ..any() }).await, [held, child, ids[3], ids[1], ids[0]]);
    assert_eq!(list(ListQuery { unquiesced: true, ..any() }).await, [held]);
    assert_eq!(list(ListQuery { active_first: true, ..any() }).await, [child, ids[3], ids[2], ids[0], held, ids[1]]);
    assert_eq!(list(ListQuery { before: Some(ids[2]), ..any() }).await, [ids[1], ids[0]]);
    assert_eq!(list(ListQuery { offset: 1, limit: 2, ..any() }).await, [child, ids[3]]);
    let both = ListQuery { path: Some("flows/*".into()), ..status(vec![Status::Completed]) };
    assert_eq!(list(both).await, [ids[1]]);
    let below = async |id, limit| stage.store.active_below(id, limit).await.unwrap();
    assert_eq!((below(ids[0], 9).await, below(child, 9).await, below(ids[1], 9).await), (1, 0, 0));
    let grandchild = stage.start_below(child).await;
    stage.start_below(grandchild).await;
    stage.complete(child).await;
    // Through what has ended, and no further than is asked for.
    assert_eq!((below(ids[0], 9).await, below(ids[0], 2).await, below(ids[0], 0).await), (2, 1, 0));
    assert!(stage.store.executions(any()).await.unwrap().is_empty(), "a limit of 0 lists nothing");
}

/// The decisive event, not the last one.
pub async fn the_terminal_event_is_found(stage: Stage) {
    let (id, _) = stage.start_with_command().await;
    assert_eq!(stage.store.terminal_event(id).await.unwrap(), None);
    stage.cancel(id).await;
    let decisive = stage.store.terminal_event(id).await.unwrap().unwrap();
    assert_eq!(wire_name(&decisive.event), "execution.cancelled");
    assert!(decisive.version < stage.head(id).await.version);
}

/// Found by name, as they were; a name is given once.
pub async fn large_results_stand_beside_the_log(stage: Stage) {
    let script = stage.script();
    let id = stage.start().await;
    let reference = format!("noetl://execution/{id}/result/fetch/1");
    let result = |data| LargeResult {
        execution_id: id,
        reference: reference.clone(),
        store: "kv".into(),
        bytes: 70_000,
        data: Arc::new(data),
    };
    let data = json!({"rows": vec!["ünïcode"; 10_000], "zero": -0.0});
    let mut append = script.enter(id, 1);
    append.results.push(result(data.clone()));
    stage.land(append).await;
    let mut again = script.enter(id, 2);
    again.results.push(result(json!("other")));
    stage.land(again).await;
    assert_eq!(stage.store.result(&reference).await.unwrap().as_deref(), Some(&data));
}

/// Highest priority first, then the oldest; only what is pending, only of these pools.
pub async fn candidates_come_by_pool_priority_and_age(stage: Stage) {
    let script = stage.script();
    let mut expected = Vec::new();
    for (n, (pool, priority)) in
        [("a", 0), ("b", 5), ("a", 5), ("a", -1), ("b", 0), ("c", 9), ("a", 0)].into_iter().enumerate()
    {
        let mut birth = script.birth(None);
        script.add_command(&mut birth, CommandState::Pending);
        if let Some(CommandChange::Insert(row)) = birth.commands.last_mut() {
            row.pool = pool.into();
            row.priority = priority;
            row.epoch = u32::try_from(n).unwrap() + 1;
            expected.push((**row).clone());
        }
        stage.land(birth).await;
    }
    // Neither of these is to be had.
    stage.start_claimed(SessionId(1)).await;
    let pick = |numbers: &[usize]| numbers.iter().map(|n| expected[*n].clone()).collect::<Vec<_>>();
    let pools = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let (store, turns) = (&stage.store, Turns::default());
    assert_eq!(store.candidates(&pools(&["a"]), &turns, 0, 9).await.unwrap(), pick(&[2, 0, 6, 3]));
    assert_eq!(store.candidates(&pools(&["a", "b", "a"]), &turns, 0, 9).await.unwrap(), pick(&[1, 2, 0, 4, 6, 3]));
    assert_eq!(store.candidates(&pools(&["a", "b"]), &turns, 2, 3).await.unwrap(), pick(&[0, 4, 6]));
    assert_eq!(store.candidates(&pools(&["b"]), &turns, 2, 3).await.unwrap(), []);
    assert_eq!(store.candidates(&pools(&["default"]), &turns, 0, 9).await.unwrap(), []);
    assert_eq!(store.candidates(&[], &turns, 0, 9).await.unwrap(), []);
    let taken = &expected[2];
    stage.land(script.claim(taken.execution_id, taken.command_id, taken.epoch, SessionId(1))).await;
    assert_eq!(store.candidates(&pools(&["a"]), &turns, 0, 1).await.unwrap(), pick(&[0]));
}

/// An execution with many pending commands does not stand before the others: they take turns.
pub async fn candidates_take_turns_between_executions(stage: Stage) {
    let script = stage.script();
    let mut rows = Vec::new();
    for commands in [4, 1, 2] {
        let mut birth = script.birth(None);
        for _ in 0..commands {
            script.add_command(&mut birth, CommandState::Pending);
        }
        let inserted = birth.commands.iter().filter_map(|change| match change {
            CommandChange::Insert(row) => Some((**row).clone()),
            CommandChange::Delete { .. } | CommandChange::Started { .. } | CommandChange::Withdraw { .. } => None,
        });
        rows.push(inserted.collect::<Vec<_>>());
        stage.land(birth).await;
    }
    let (pools, store) = ([Arc::from("default")], &stage.store);
    let pick = |places: &[(usize, usize)]| places.iter().map(|(n, m)| rows[*n][*m].clone()).collect::<Vec<_>>();
    let mut turns = Turns::default();
    let all = [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (0, 3)];
    assert_eq!(store.candidates(&pools, &turns, 0, 9).await.unwrap(), pick(&all));
    assert_eq!(store.candidates(&pools, &turns, 0, 4).await.unwrap(), pick(&all[..4]));
    assert_eq!(store.candidates(&pools, &turns, 2, 4).await.unwrap(), pick(&all[2..6]));
    // The first has been served: the round goes on behind it, and comes back to it. All of them were there when it
    // began: their ids are ahead of the clock.
    let row = &rows[0][0];
    turns.served(&row.pool, row.priority, row.execution_id, made_at(i64::MAX));
    let rotated = [(1, 0), (2, 0), (0, 0), (2, 1), (0, 1), (0, 2), (0, 3)];
    assert_eq!(store.candidates(&pools, &turns, 0, 9).await.unwrap(), pick(&rotated));
    assert_eq!(store.candidates(&pools, &turns, 0, 2).await.unwrap(), pick(&rotated[..2]));
    // In another queue another round goes on.
    assert_eq!(store.candidates(&[Arc::from("other")], &turns, 0, 2).await.unwrap(), []);
}

/// Cancels to push: ended, and still in somebody's hands.
pub async fn what_runs_after_the_end_is_listed_until_it_is_quiet(stage: Stage) {
    let (one, command) = stage.start_claimed(SessionId(1)).await;
    let (two, _) = stage.start_claimed(SessionId(2)).await;
    let (quiet, _) = stage.start_with_command().await;
    stage.cancel(quiet).await;
    assert!(stage.store.unquiesced(9).await.unwrap().is_empty());
    stage.cancel(one).await;
    stage.cancel(two).await;
    let ids = |views: Vec<noetl_core::head::HeadView>| {
        views.iter().map(|view| (view.head.execution_id, view.commands.len())).collect::<Vec<_>>()
    };
    assert_eq!(ids(stage.store.unquiesced(9).await.unwrap()), [(one, 1), (two, 1)]);
    assert_eq!(ids(stage.store.unquiesced(1).await.unwrap()), [(one, 1)]);
    let script = stage.script();
    stage.store.locked(one, None, Box::new(move |locked| script.late_report(locked, command, 1))).await.unwrap();
    assert_eq!(ids(stage.store.unquiesced(9).await.unwrap()), [(two, 1)]);
    assert_eq!(stage.store.held(SessionId(2)).await.unwrap().len(), 1);
    assert!(stage.store.held(SessionId(1)).await.unwrap().is_empty());
}
