//! Claims: blind, compare-and-set on the command row, and no decision.

use std::sync::Arc;

use noetl_core::append::{CommandChange, DueKind, Guard, RefusedBy, Verdict};
use noetl_core::event::Event;
use noetl_core::head::{CommandState, Status};
use noetl_core::id::{CommandId, SessionId};

use super::Stage;
use crate::StoreError;

fn refused(by: RefusedBy) -> Result<Verdict, StoreError> {
    Ok(Verdict::Refused(by))
}

/// Two counters: what was decided before the claim still lands after it.
pub async fn a_claim_raises_the_version_and_no_decision(stage: Stage) {
    let (id, command) = stage.start_with_command().await;
    let before = stage.head(id).await;
    let decided_before = stage.script().enter(id, before.decided);
    assert_eq!(stage.land(stage.script().claim(id, command, 1, SessionId(9))).await, before.version + 2);
    let head = stage.head(id).await;
    assert_eq!((head.version, head.decided, head.in_flight), (before.version + 2, before.decided, 1));
    let row = &stage.view(id).await.commands[0];
    assert_eq!((row.state, row.holder.as_ref().unwrap().session_id), (CommandState::Claimed, SessionId(9)));
    assert_eq!(stage.land(decided_before).await, before.version + 3);
}

/// Claims that counted as decisions let none of 855 decisions through.
pub async fn claims_do_not_starve_decisions(stage: Stage) {
    let script = stage.script();
    let mut birth = script.birth(None);
    let commands: Vec<CommandId> = (0..100).map(|_| script.add_command(&mut birth, CommandState::Pending)).collect();
    let id = birth.execution_id;
    stage.land(birth).await;
    let claimer = {
        let (store, script) = (Arc::clone(&stage.store), stage.script());
        tokio::spawn(async move {
            for command in commands {
                let verdict = store.append(vec![script.claim(id, command, 1, SessionId(1))]).await.remove(0);
                assert!(matches!(verdict, Ok(Verdict::Landed { .. })), "{verdict:?}");
            }
        })
    };
    // One decider, many claims in between: not one decision may conflict.
    let mut decided = stage.head(id).await.decided;
    for _ in 0..100 {
        let verdict = stage.write(script.enter(id, decided)).await;
        let Ok(Verdict::Landed { version }) = verdict else { panic!("{verdict:?}") };
        decided = version;
        let head = stage.head(id).await;
        assert!(head.decided == decided && head.version >= decided);
    }
    claimer.await.unwrap();
    let head = stage.head(id).await;
    assert_eq!((head.version, head.in_flight), (101 + 200 + 100, 100));
}

/// Only a pending command of that epoch can be taken.
pub async fn a_claim_needs_a_pending_command_of_that_epoch(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    assert_eq!(stage.write(script.claim(id, command, 2, SessionId(1))).await, refused(RefusedBy::NotPending));
    let other = CommandId(script.id());
    assert_eq!(stage.write(script.claim(id, other, 1, SessionId(1))).await, refused(RefusedBy::NotPending));
    stage.land(script.claim(id, command, 1, SessionId(1))).await;
    assert_eq!(stage.write(script.claim(id, command, 1, SessionId(2))).await, refused(RefusedBy::NotPending));
    for state in [CommandState::Suspended, CommandState::Lost] {
        let row = script.command(id, CommandId(script.id()), 1, state);
        let command = row.command_id;
        let mut append = script.enter(id, stage.head(id).await.decided);
        append.commands.push(CommandChange::Insert(Box::new(row)));
        stage.land(append).await;
        assert_eq!(stage.write(script.claim(id, command, 1, SessionId(1))).await, refused(RefusedBy::NotPending));
    }
}

/// An ended execution gives no work away, whatever rows it still has.
pub async fn a_claim_on_an_ended_execution_is_refused(stage: Stage) {
    let (id, command) = stage.start_with_command().await;
    assert!(matches!(stage.cancel(id).await, Verdict::Landed { .. }));
    assert_eq!(stage.write(stage.script().claim(id, command, 1, SessionId(1))).await, refused(RefusedBy::Ended));
    // Completed by a decision that forgot its command: the head alone keeps it from running.
    let (id, command) = stage.start_with_command().await;
    stage.complete(id).await;
    assert_eq!(stage.write(stage.script().claim(id, command, 1, SessionId(1))).await, refused(RefusedBy::Ended));
}

/// Whatever a decision reads, a claim may not change.
pub async fn a_claim_says_nothing_else(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let claim = || script.claim(id, command, 1, SessionId(1));
    let mut wrong_command = claim();
    wrong_command.guard = Guard::Claim { command_id: command, epoch: 2, holder: script.holder(SessionId(1)) };
    let mut more_events = claim();
    more_events.events.insert(0, script.done(command, 1, false));
    let mut changes_commands = claim();
    changes_commands.commands.push(CommandChange::Started { command_id: command, epoch: 1 });
    let mut changes_head = claim();
    changes_head.head.runnable = Some(true);
    let mut ends = claim();
    ends.head.status = Some(Status::Completed);
    let mut bears = claim();
    bears.children.push(script.birth(Some(&stage.head(id).await)));
    for append in [wrong_command, more_events, changes_commands, changes_head, ends, bears] {
        assert!(matches!(stage.write(append).await, Err(StoreError::BadData(_))));
    }
    assert_eq!(stage.view(id).await.commands[0].state, CommandState::Pending);
    // A time limit begins with the claim.
    let mut limited = claim();
    let due = script.due(id, DueKind::StepTimeout, command.0, 50);
    limited.due.push(noetl_core::append::DueChange::Set(due));
    stage.land(limited).await;
}

/// Compare and set: losing costs nothing, and nobody wins twice.
pub async fn of_many_claims_one_wins(stage: Stage) {
    for _ in 0..20 {
        let (id, command) = stage.start_with_command().await;
        let claims: Vec<_> = (1..=8)
            .map(|session| {
                let (store, claim) =
                    (Arc::clone(&stage.store), stage.script().claim(id, command, 1, SessionId(session)));
                tokio::spawn(async move { (session, store.append(vec![claim]).await.remove(0).unwrap()) })
            })
            .collect();
        let mut winner = None;
        for claim in claims {
            match claim.await.unwrap() {
                (session, Verdict::Landed { .. }) => assert_eq!(winner.replace(session), None),
                (_, verdict) => assert_eq!(verdict, Verdict::Refused(RefusedBy::NotPending)),
            }
        }
        let row = &stage.view(id).await.commands[0];
        assert_eq!(Some(row.holder.as_ref().unwrap().session_id.0), winner);
        assert_eq!(stage.head(id).await.in_flight, 1);
    }
}

/// Property C1: what runs after the decision was claimed before it, and the decision names it.
pub async fn cancel_or_claim_whoever_comes_first_is_seen_by_the_other(stage: Stage) {
    for _ in 0..50 {
        let (id, command) = stage.start_with_command().await;
        let claim = stage.script().claim(id, command, 1, SessionId(1));
        let (claimer, canceller, script) = (Arc::clone(&stage.store), Arc::clone(&stage.store), stage.script());
        let claiming = tokio::spawn(async move { claimer.append(vec![claim]).await.remove(0).unwrap() });
        let cancelling = tokio::spawn(async move {
            canceller.locked(id, None, Box::new(move |locked| script.cancel(locked))).await.unwrap().unwrap()
        });
        let (claimed, cancelled) = (claiming.await.unwrap(), cancelling.await.unwrap());
        assert!(matches!(cancelled, Verdict::Landed { .. }), "a locked decision cannot conflict: {cancelled:?}");
        let log = stage.log(id).await;
        let in_flight = log
            .iter()
            .find_map(|recorded| match &recorded.event {
                Event::ExecutionCancelled(cancelled) => Some(cancelled.in_flight.clone()),
                _ => None,
            })
            .unwrap();
        let head = stage.head(id).await;
        match claimed {
            Verdict::Landed { .. } => {
                assert_eq!((in_flight, head.in_flight), (vec![command], 1));
                assert_eq!(head.quiesced_at, None);
            }
            refused => {
                assert_eq!(refused, Verdict::Refused(RefusedBy::Ended));
                assert!(in_flight.is_empty() && stage.view(id).await.commands.is_empty());
                assert!(head.quiesced_at.is_some());
                assert!(!log.iter().any(|recorded| matches!(recorded.event, Event::CommandClaimed { .. })));
            }
        }
    }
}

/// A deletion whose row is not there as expected takes the whole append with it.
pub async fn settling_what_is_not_claimed_conflicts_and_writes_nothing(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let head = stage.head(id).await;
    let mut settle = script.settle(&head, command, 1);
    settle.due.push(noetl_core::append::DueChange::Set(script.due(id, DueKind::Timer, 1, 0)));
    settle.children.push(script.birth(Some(&head)));
    let child = settle.children[0].execution_id;
    assert_eq!(stage.write(settle).await, Ok(Verdict::Conflict));
    let before = stage.view(id).await;
    assert_eq!((before.head.version, before.commands.len()), (head.version, 1));
    assert_eq!(stage.store.head(child).await.unwrap(), None);
    assert!(stage.store.due(10).await.unwrap().1.is_empty());
    stage.land(script.claim(id, command, 1, SessionId(1))).await;
    stage.land(script.settle(&head, command, 1)).await;
    // Reported twice: the second one finds nothing to settle.
    let head = stage.head(id).await;
    assert_eq!(head.in_flight, 0);
    assert_eq!(stage.write(script.settle(&head, command, 1)).await, Ok(Verdict::Conflict));
}

/// It may still run, so it counts as in flight beside its successor.
pub async fn a_lost_attempt_stays_on_the_books(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_claimed(SessionId(7)).await;
    let lose = stage.script();
    let verdict = stage.store.locked(
        id,
        None,
        Box::new(move |locked| {
            let row = &locked.view.commands[0];
            let mut lost = row.clone();
            lost.state = CommandState::Lost;
            let mut again = lose.command(id, row.command_id, 2, CommandState::Pending);
            again.enters = false;
            again.losses = 1;
            let mut append = lose.empty(id, Guard::Locked);
            append.events.push(lose.event(Event::CommandLost {
                command_id: row.command_id,
                epoch: 1,
                step: Arc::clone(&row.step),
                session_id: SessionId(7),
                reason: "its lease ran out".into(),
                again: true,
            }));
            append.commands = vec![
                CommandChange::Delete { command_id: row.command_id, epoch: 1, expect: CommandState::Claimed },
                CommandChange::Insert(Box::new(lost)),
                CommandChange::Insert(Box::new(again)),
            ];
            Some(append)
        }),
    );
    assert!(matches!(verdict.await.unwrap(), Some(Verdict::Landed { .. })));
    let view = stage.view(id).await;
    let states: Vec<_> = view.commands.iter().map(|row| (row.epoch, row.state)).collect();
    assert_eq!(states, [(1, CommandState::Lost), (2, CommandState::Pending)]);
    assert_eq!(view.head.in_flight, 1);
    stage.land(script.claim(id, command, 2, SessionId(8))).await;
    assert_eq!(stage.head(id).await.in_flight, 2);
    assert_eq!(stage.store.held(SessionId(7)).await.unwrap().len(), 1);
    // A cancel lists it.
    stage.cancel(id).await;
    assert_eq!(stage.view(id).await.commands.len(), 2);
}

/// Delete and insert of one key in one append, in the order written.
pub async fn changes_to_commands_take_effect_in_order(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_claimed(SessionId(1)).await;
    let decided = stage.head(id).await.decided;
    let delete = |expect| CommandChange::Delete { command_id: command, epoch: 1, expect };
    let insert = |state| CommandChange::Insert(Box::new(script.command(id, command, 1, state)));
    let mut append = script.enter(id, decided);
    append.commands = vec![
        delete(CommandState::Claimed),
        insert(CommandState::Suspended),
        delete(CommandState::Suspended),
        insert(CommandState::Claimed),
        CommandChange::Started { command_id: command, epoch: 1 },
    ];
    stage.land(append).await;
    let view = stage.view(id).await;
    assert_eq!((view.head.in_flight, view.commands.len()), (1, 1));
    assert!(view.commands[0].holder.as_ref().unwrap().started);
    let decided = view.head.decided;
    let mut twice = script.enter(id, decided);
    twice.commands = vec![delete(CommandState::Claimed), delete(CommandState::Claimed)];
    assert_eq!(stage.write(twice).await, Ok(Verdict::Conflict));
    let mut gone = script.enter(id, decided);
    gone.commands = vec![delete(CommandState::Claimed), CommandChange::Started { command_id: command, epoch: 1 }];
    assert_eq!(stage.write(gone).await, Ok(Verdict::Conflict));
    assert_eq!(stage.view(id).await, view);
}

/// A key that is taken is the append's own fault.
pub async fn a_command_is_inserted_once(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let before = stage.view(id).await;
    let mut append = script.enter(id, before.head.decided);
    let row = script.command(id, command, 1, CommandState::Pending);
    append.commands.push(CommandChange::Insert(Box::new(row.clone())));
    assert!(matches!(stage.write(append).await, Err(StoreError::BadData(_))));
    let mut foreign = script.enter(stage.start().await, 1);
    foreign.commands.push(CommandChange::Insert(Box::new(row)));
    assert!(matches!(stage.write(foreign).await, Err(StoreError::BadData(_))));
    let mut stray = script.enter(id, before.head.decided);
    let mut row = script.command(id, CommandId(script.id()), 1, CommandState::Pending);
    row.root_execution_id = stage.start().await;
    stray.commands.push(CommandChange::Insert(Box::new(row)));
    assert!(matches!(stage.write(stray).await, Err(StoreError::BadData(_))));
    let mut unheld = script.enter(id, before.head.decided);
    let mut row = script.command(id, CommandId(script.id()), 1, CommandState::Claimed);
    row.holder = None;
    unheld.commands.push(CommandChange::Insert(Box::new(row)));
    assert!(matches!(stage.write(unheld).await, Err(StoreError::BadData(_))));
    assert_eq!(stage.view(id).await, before);
}
