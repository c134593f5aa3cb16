//! One of each thing that worker and server say to each other, with everything filled in.

use std::sync::Arc;

use noetl::api::worker::secrets::{CredentialAsk, KeepRequest, KeptAsk, KeptReply};
use noetl_core::head::RunningTool;
use noetl_core::id::{CatalogId, CommandId, ExecutionId, SessionId};
use noetl_core::playbook::CancelMode;
use noetl_core::secret::keychain::KeptUnder;
use noetl_core::secret::{Credential, Warrant};
use noetl_core::time::Timestamp;
use noetl_core::work::{Assignment, Report, Reported};
use noetl_engine::transport::{Attempt, CancelOrder, Held, Hello, Offer, Orders, Poll, Reports, Welcome};
use serde_json::{Value, json};

fn wire(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

pub(crate) fn samples() -> Vec<(&'static str, Value)> {
    let (execution_id, command_id, session_id) = (ExecutionId(1), CommandId(2), SessionId(3));
    let running = Some(RunningTool { tool: "shell".into(), pid: Some(4), since: Timestamp(5) });
    let cancel = Some(CancelMode::Finish);
    let held = Held { execution_id, command_id, epoch: 1, started: true, running, cancel, grace_ms: Some(7) };
    let poll = Poll {
        session_id,
        serial: 1,
        held: vec![held.clone()],
        free: 1,
        wait_ms: 1,
        offer: true,
        draining: false,
        protocol: 1,
    };
    let report = Report { execution_id, command_id, epoch: 1, outcome: Reported::Released };
    let assignment = Assignment {
        execution_id,
        command_id,
        epoch: 1,
        catalog_id: CatalogId(4),
        path: "p".into(),
        version: 1,
        step: "s".into(),
        visit: 1,
        kind: "python".into(),
        losses: 0,
        at_most_once: false,
        work: Arc::new(json!({})),
    };
    let cancel = CancelOrder { execution_id, command_id, epoch: 1, mode: CancelMode::Interrupt, grace_ms: 1 };
    let offer =
        Offer { execution_id, command_id, epoch: 1, step: "s".into(), kind: "python".into(), pool: "default".into() };
    let attempt = Attempt { command_id, epoch: 1 };
    let hello = Hello {
        worker_id: "w".into(),
        session_id: Some(session_id),
        slots: 1,
        pools: vec!["default".into()],
        protocol: 1,
        instance: Some("one of two".into()),
        version: "1".into(),
        meta: json!({}),
    };
    let orders = Orders {
        commands: vec![assignment.clone()],
        cancels: vec![cancel.clone()],
        offers: vec![offer.clone()],
        unknown: vec![attempt],
        settled: vec![attempt],
        lease_ms: 1,
    };
    let warrant = Warrant { session_id, execution_id, command_id, epoch: 1 };
    let under = KeptUnder {
        name: "k".into(),
        kind: "oauth2".into(),
        scope: "global".into(),
        catalog_id: CatalogId(4),
        digest: "d".to_owned(),
    };
    vec![
        ("Hello", wire(&hello)),
        ("Welcome", wire(&Welcome { session_id, lease_ms: 1, poll_ms: 1, protocol: 1 })),
        (
            "CredentialAsk",
            wire(&CredentialAsk {
                warrant: Warrant { session_id, execution_id, command_id, epoch: 1 },
                alias: "a".into(),
            }),
        ),
        ("KeptUnder", wire(&under)),
        ("KeptAsk", wire(&KeptAsk { warrant, under: under.clone() })),
        ("KeptReply", wire(&KeptReply { value: Some(json!({})) })),
        ("KeepRequest", wire(&KeepRequest { warrant, under, value: json!({}), life_ms: 1 })),
        ("Credential", wire(&Credential { name: "a".into(), kind: "bearer".into(), data: Arc::default() })),
        ("Poll", wire(&poll)),
        ("Held", wire(&held)),
        ("Reports", wire(&Reports { reports: vec![report.clone()], poll: poll.clone() })),
        ("Report", wire(&report)),
        ("Orders", wire(&orders)),
        ("Assignment", wire(&assignment)),
        ("CancelOrder", wire(&cancel)),
        ("Offer", wire(&offer)),
        ("Attempt", wire(&attempt)),
    ]
}
