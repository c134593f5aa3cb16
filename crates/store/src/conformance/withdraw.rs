//! Withdrawals: what nobody waits for any more is not claimed and not tried again, whichever comes first.

use std::sync::Arc;

use noetl_core::append::{CommandChange, RefusedBy, Verdict};
use noetl_core::event::{Event, StepCancelled};
use noetl_core::head::CommandState;
use noetl_core::id::{CommandId, ExecutionId, SessionId};

use super::{Script, Stage};

/// Returns the decision that withdraws an attempt.
fn withdraw(
    script: &Script,
    id: ExecutionId,
    decided: u64,
    command: CommandId,
    epoch: u32,
) -> noetl_core::append::Append {
    let mut append = script.enter(id, decided);
    append.events = vec![script.event(Event::StepCancelled(Box::new(StepCancelled {
        step: "fetch".into(),
        by: "decide".into(),
        visits: vec![1],
        arrivals: 0,
        commands: vec![command],
    })))];
    append.commands = vec![CommandChange::Withdraw { command_id: command, epoch }];
    append
}

/// A withdrawn command waits, and a claim of it is refused; its row is as it was in everything else.
pub async fn a_withdrawn_command_can_not_be_claimed(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let before = stage.view(id).await.commands.remove(0);
    assert!(!before.at_most_once && before.state == CommandState::Pending);
    let decided = stage.head(id).await.decided;
    stage.land(withdraw(&script, id, decided, command, 1)).await;
    let row = stage.view(id).await.commands.remove(0);
    assert!(row.at_most_once && row.state == CommandState::Suspended);
    let as_before = noetl_core::head::CommandRow { at_most_once: false, state: CommandState::Pending, ..row };
    assert_eq!(as_before, before);
    let claim = script.claim(id, command, 1, SessionId(1));
    assert_eq!(stage.write(claim).await, Ok(Verdict::Refused(RefusedBy::NotPending)));
}

/// What a worker holds is still held, and knows that it is not to be tried again.
pub async fn a_withdrawn_command_that_is_held_is_not_tried_again(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_claimed(SessionId(1)).await;
    let decided = stage.head(id).await.decided;
    stage.land(withdraw(&script, id, decided, command, 1)).await;
    let view = stage.view(id).await;
    let row = &view.commands[0];
    assert!(row.at_most_once && row.state == CommandState::Claimed && view.head.in_flight == 1);
    assert_eq!(row.holder.as_ref().map(|holder| holder.session_id), Some(SessionId(1)));
    let decided = view.head.decided;
    // Withdrawn again, it is as it was; what waits or is gone can not be withdrawn.
    stage.land(withdraw(&script, id, decided, command, 1)).await;
    assert_eq!(&stage.view(id).await.commands[0], row);
    let decided = stage.head(id).await.decided;
    assert_eq!(stage.write(withdraw(&script, id, decided, command, 2)).await, Ok(Verdict::Conflict));
}

/// Within one batch, and within one append, changes of one row come together.
pub async fn a_withdrawal_meets_other_changes_of_its_row_in_one_batch(stage: Stage) {
    let script = stage.script();
    let (id, command) = stage.start_with_command().await;
    let decided = stage.head(id).await.decided;
    let mut started = withdraw(&script, id, decided + 1, command, 1);
    started.commands.insert(0, CommandChange::Started { command_id: command, epoch: 1 });
    let batch = vec![
        script.claim(id, command, 1, SessionId(1)),
        withdraw(&script, id, decided, command, 1),
        script.claim(id, command, 1, SessionId(2)),
        started,
    ];
    let mut verdicts: Vec<_> = stage.store.append(batch).await.into_iter().map(Result::unwrap).collect();
    if verdicts[3] == Verdict::Conflict {
        // The decision's own version depends on whether the claim before it counted.
        let decided = stage.head(id).await.decided;
        let mut again = withdraw(&script, id, decided, command, 1);
        again.commands.insert(0, CommandChange::Started { command_id: command, epoch: 1 });
        verdicts[3] = stage.write(again).await.unwrap();
    }
    assert!(matches!(verdicts[0], Verdict::Landed { .. }) && matches!(verdicts[1], Verdict::Landed { .. }));
    assert_eq!(verdicts[2], Verdict::Refused(RefusedBy::NotPending));
    assert!(matches!(verdicts[3], Verdict::Landed { .. }));
    let view = stage.view(id).await;
    let row = &view.commands[0];
    assert!(row.at_most_once && row.state == CommandState::Claimed);
    let holder = row.holder.as_ref().unwrap();
    assert!(holder.started && holder.session_id == SessionId(1));

    // Issued and withdrawn by one append: it is never claimed.
    let mut both = script.enter(id, view.head.decided);
    let new = script.add_command(&mut both, CommandState::Pending);
    both.commands.push(CommandChange::Withdraw { command_id: new, epoch: 1 });
    stage.land(both).await;
    let row = stage.view(id).await.commands.into_iter().find(|row| row.command_id == new).unwrap();
    assert!(row.at_most_once && row.state == CommandState::Suspended);
}

/// Of a claim and a withdrawal one comes first, and the other one finds it so.
pub async fn claim_or_withdrawal_whoever_comes_first_is_seen_by_the_other(stage: Stage) {
    for _ in 0..20 {
        let (id, command) = stage.start_with_command().await;
        let decided = stage.head(id).await.decided;
        let script = stage.script();
        let claim = script.claim(id, command, 1, SessionId(1));
        let withdrawal = withdraw(&script, id, decided, command, 1);
        let (claimer, other) = (Arc::clone(&stage.store), Arc::clone(&stage.store));
        let claiming = tokio::spawn(async move { claimer.append(vec![claim]).await.remove(0).unwrap() });
        let withdrawing = tokio::spawn(async move { other.append(vec![withdrawal]).await.remove(0).unwrap() });
        let (claimed, withdrawn) = (claiming.await.unwrap(), withdrawing.await.unwrap());
        assert!(matches!(withdrawn, Verdict::Landed { .. }), "claims do not starve decisions: {withdrawn:?}");
        let row = stage.view(id).await.commands.remove(0);
        assert!(row.at_most_once);
        match claimed {
            Verdict::Landed { .. } => assert_eq!(row.state, CommandState::Claimed),
            refused => {
                assert_eq!(refused, Verdict::Refused(RefusedBy::NotPending));
                assert_eq!(row.state, CommandState::Suspended);
            }
        }
    }
}
