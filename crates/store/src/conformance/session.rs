//! Workers' lives and leases.

use noetl_core::append::{CommandChange, Guard};
use noetl_core::event::Event;
use noetl_core::head::{CommandState, RunningTool};
use noetl_core::id::SessionId;

use super::Stage;
use crate::RunningNote;

const LEASE_MS: u64 = 30_000;

fn ids(sessions: &[crate::Session]) -> Vec<i64> {
    sessions.iter().map(|session| session.session_id.0).collect()
}

/// A new life under the same name loses the old one's commands at once.
pub async fn a_session_replaces_older_lives_of_its_worker(stage: Stage) {
    let script = stage.script();
    let first = script.session(SessionId(11), "w1", LEASE_MS);
    assert!(stage.store.open_session(first.clone()).await.unwrap().is_empty());
    assert!(stage.store.open_session(script.session(SessionId(12), "w2", LEASE_MS)).await.unwrap().is_empty());
    assert_eq!(stage.store.sessions().await.unwrap()[0], first);
    // The same life opened again, after a lost answer, replaces nothing.
    assert!(stage.store.open_session(first.clone()).await.unwrap().is_empty());
    stage.clock.advance_ms(5);
    assert_eq!(stage.store.open_session(script.session(SessionId(13), "w1", LEASE_MS)).await.unwrap(), vec![first]);
    stage.store.close_session(SessionId(11)).await.unwrap();
    // Without a lease and without commands it is no matter any more; with commands it is.
    let again = stage.store.open_session(script.session(SessionId(14), "w1", LEASE_MS)).await.unwrap();
    assert_eq!(ids(&again), [13]);
    stage.start_claimed(SessionId(11)).await;
    stage.clock.advance_ms(2 * LEASE_MS);
    let again = stage.store.open_session(script.session(SessionId(15), "w1", LEASE_MS)).await.unwrap();
    assert_eq!(ids(&again), [11]);
}

/// By the store's clock; who renews in time lives on.
pub async fn a_lease_is_renewed_and_runs_out(stage: Stage) {
    let script = stage.script();
    for (session, worker) in [(1, "w1"), (2, "w2"), (3, "w3")] {
        stage.store.open_session(script.session(SessionId(session), worker, LEASE_MS)).await.unwrap();
    }
    stage.start_claimed(SessionId(1)).await;
    stage.start_claimed(SessionId(2)).await;
    stage.clock.advance_ms(LEASE_MS - 1);
    assert!(stage.store.expired_sessions(9).await.unwrap().is_empty());
    let asked = [SessionId(1), SessionId(77), SessionId(3)];
    assert_eq!(stage.store.renew_sessions(&asked, LEASE_MS).await.unwrap(), [SessionId(77)]);
    stage.clock.advance_ms(1);
    // 2 has not renewed and holds a command; 3 would not matter.
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [2]);
    assert_eq!(ids(&stage.store.sessions().await.unwrap()), [1, 3]);
    // A shorter lease does not cut one that stands.
    assert!(stage.store.renew_sessions(&[SessionId(1)], 1).await.unwrap().is_empty());
    stage.clock.advance_ms(LEASE_MS - 2);
    assert_eq!(ids(&stage.store.sessions().await.unwrap()), [1, 3]);
    stage.clock.advance_ms(1);
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [2, 1]);
    assert_eq!(ids(&stage.store.expired_sessions(1).await.unwrap()), [2]);
    assert!(stage.store.sessions().await.unwrap().is_empty());
    // Back again, before anybody took its command.
    assert!(stage.store.renew_sessions(&[SessionId(1)], LEASE_MS).await.unwrap().is_empty());
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [2]);
    assert!(stage.store.renew_sessions(&[], LEASE_MS).await.unwrap().is_empty());
}

/// What it held is to be taken at once.
pub async fn a_closed_session_is_not_renewed(stage: Stage) {
    let script = stage.script();
    stage.store.open_session(script.session(SessionId(1), "w1", LEASE_MS)).await.unwrap();
    stage.start_claimed(SessionId(1)).await;
    assert!(stage.store.expired_sessions(9).await.unwrap().is_empty());
    stage.store.close_session(SessionId(1)).await.unwrap();
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [1]);
    assert!(stage.store.sessions().await.unwrap().is_empty());
    assert_eq!(stage.store.renew_sessions(&[SessionId(1)], LEASE_MS).await.unwrap(), [SessionId(1)]);
    // Closing what is closed, or was never open, is nothing.
    stage.store.close_session(SessionId(1)).await.unwrap();
    stage.store.close_session(SessionId(99)).await.unwrap();
}

/// A hint beside the state: what a worker says it runs stands in the row until it says otherwise, and nothing of another
/// session's is touched.
pub async fn what_a_worker_runs_is_noted_on_what_it_holds(stage: Stage) {
    let script = stage.script();
    let (id, command_id) = stage.start_claimed(SessionId(1)).await;
    let (other, others) = stage.start_claimed(SessionId(2)).await;
    let before = stage.head(id).await;
    let tool = RunningTool { tool: "shell".into(), pid: Some(77), since: script.now() };
    let note =
        |execution_id, command_id, epoch| RunningNote { execution_id, command_id, epoch, running: Some(tool.clone()) };
    let said = vec![note(id, command_id, 1), note(id, command_id, 2), note(other, others, 1)];
    assert_eq!(stage.store.note_running(SessionId(1), said.clone()).await.unwrap(), said[..1]);
    let running = async |id| stage.store.view(id).await.unwrap().unwrap().commands[0].running.clone();
    assert_eq!((running(id).await, running(other).await), (Some(tool), None));
    assert_eq!(stage.head(id).await, before, "no event, no decision");
    assert_eq!(stage.store.held(SessionId(1)).await.unwrap()[0].running, running(id).await);
    let over = RunningNote { running: None, ..said[0].clone() };
    assert_eq!(stage.store.note_running(SessionId(1), vec![over.clone()]).await.unwrap(), [over]);
    assert_eq!(running(id).await, None);
    assert!(stage.store.note_running(SessionId(1), Vec::new()).await.unwrap().is_empty());
}

/// Lost attempts come behind claimed ones; nothing held, nothing to do.
pub async fn expired_sessions_that_hold_nothing_are_no_matter(stage: Stage) {
    let script = stage.script();
    for session in 1..=3 {
        stage.store.open_session(script.session(SessionId(session), &format!("w{session}"), 10)).await.unwrap();
    }
    let (id, command) = stage.start_claimed(SessionId(1)).await;
    let (settled, settled_command) = stage.start_claimed(SessionId(3)).await;
    stage.clock.advance_ms(10);
    stage.start_claimed(SessionId(2)).await;
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [1, 2, 3]);
    stage.land(script.settle(&stage.head(settled).await, settled_command, 1)).await;
    let lose = stage.script();
    let lost = stage.store.locked(
        id,
        None,
        Box::new(move |locked| {
            let mut row = locked.view.commands[0].clone();
            row.state = CommandState::Lost;
            let mut append = lose.empty(id, Guard::Locked);
            append.events.push(lose.event(Event::CommandLost {
                command_id: command,
                epoch: 1,
                step: row.step.clone(),
                session_id: SessionId(1),
                reason: "silent".into(),
                again: false,
            }));
            append.commands = vec![
                CommandChange::Delete { command_id: command, epoch: 1, expect: CommandState::Claimed },
                CommandChange::Insert(Box::new(row)),
            ];
            Some(append)
        }),
    );
    lost.await.unwrap();
    assert_eq!(ids(&stage.store.expired_sessions(9).await.unwrap()), [2, 1]);
    let held = stage.store.held(SessionId(1)).await.unwrap();
    assert_eq!((held.len(), held[0].state), (1, CommandState::Lost));
}
