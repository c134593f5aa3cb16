//! Who may know secrets, at every stage of a command's life.

use noetl_core::control::cancel::Request;
use noetl_core::head::HeadView;
use noetl_core::id::{CommandId, ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::secret::{Warrant, Withheld};
use noetl_core::tool::ToolOutcome;
use serde_json::json;

use crate::desk::{Desk, interrupt};

fn view(desk: &Desk, id: ExecutionId) -> HeadView {
    let seat = &desk.members[&id];
    HeadView { head: seat.head.clone(), commands: seat.commands.clone() }
}

fn cancel(desk: &mut Desk, id: ExecutionId, mode: CancelMode) {
    desk.cancel(id, &Request { mode: Some(mode), ..interrupt(id, "api", false) });
}

#[test]
fn whoever_holds_a_live_command_may_know_and_nobody_else() {
    let mut desk = Desk::new(&["workflow: [{step: start, tool: {kind: python, code: x}}]"], |_| {
        ToolOutcome::ok(json!({"ok": true}))
    });
    let id = desk.start(0, json!({}));
    let row = desk.pending().expect("a command");
    let warrant = Warrant { session_id: SessionId(7), execution_id: id, command_id: row.command_id, epoch: row.epoch };
    assert_eq!(warrant.check(&view(&desk, id)), Err(Withheld::NotHeld), "nobody has claimed it");
    desk.claim(&row);
    assert_eq!(warrant.check(&view(&desk, id)), Ok(()));
    for (stranger, why) in [
        (Warrant { session_id: SessionId(8), ..warrant }, Withheld::NotHeld),
        (Warrant { command_id: CommandId(1), ..warrant }, Withheld::NotHeld),
        (Warrant { epoch: row.epoch + 1, ..warrant }, Withheld::NotHeld),
        (Warrant { execution_id: ExecutionId(1), ..warrant }, Withheld::Ended),
    ] {
        assert_eq!(stranger.check(&view(&desk, id)), Err(why), "{stranger:?}");
    }
    // `finish` lets a command complete, tasks to come included; `interrupt` lets nothing begin.
    cancel(&mut desk, id, CancelMode::Finish);
    assert_eq!(warrant.check(&view(&desk, id)), Ok(()));
    cancel(&mut desk, id, CancelMode::Interrupt);
    assert_eq!(warrant.check(&view(&desk, id)), Err(Withheld::Ended));
}

#[test]
fn a_settled_command_gets_nothing() {
    let mut desk = Desk::new(&["workflow: [{step: start, tool: {kind: python, code: x}}]"], |_| {
        ToolOutcome::ok(json!({"ok": true}))
    });
    let id = desk.start(0, json!({}));
    let row = desk.pending().expect("a command");
    desk.run();
    let warrant = Warrant { session_id: SessionId(7), execution_id: id, command_id: row.command_id, epoch: row.epoch };
    assert_eq!(warrant.check(&view(&desk, id)), Err(Withheld::Ended));
}
