//! Credentials on their way to a running tool.

use std::sync::Arc;

use async_trait::async_trait;
use noetl_core::playbook::CancelMode;
use noetl_core::secret::{Credential, Warrant, Withheld};
use noetl_engine::CancelRequest;
use noetl_engine::secrets::{SecretError, Vault};
use noetl_engine::transport::{Hello, Poll};
use serde_json::{Value, json};

use crate::world::{World, cancel, chain};

/// Knows one alias.
#[derive(Debug)]
struct OneAlias;

#[async_trait]
impl Vault for OneAlias {
    async fn credential(&self, alias: &str) -> Result<Option<Credential>, SecretError> {
        let data = json!({"token": "t", "user": "u"});
        let data = Arc::new(data.as_object().unwrap().clone());
        Ok((alias == "api").then(|| Credential { name: alias.into(), kind: "bearer".into(), data }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_gets_what_it_names_and_a_hard_error_for_what_nobody_registered() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias)));
    let worker = world.hire(&server, "w", 2);
    server.register(&chain("known", &[("start", "secret api")])).await;
    server.register(&chain("unknown", &[("start", "secret nothing")])).await;
    let known = server.start("known").await.execution_id;
    server.ended(known).await;
    assert_eq!(world.result(&server.engine, known).await, json!({"kind": "bearer", "fields": 2}));
    let unknown = server.start("unknown").await.execution_id;
    assert_eq!(server.ended(unknown).await.as_str(), "FAILED");
    let error = world.head(unknown).await.error.unwrap();
    assert_eq!(error["code"], "UNKNOWN_CREDENTIAL");
    assert!(error["message"].as_str().unwrap().contains("`nothing`"), "{error}");
    worker.shutdown.cancel();
    server.stop().await;
}

/// The race: a cancel comes while a worker is on its way to ask.
#[tokio::test(start_paused = true)]
async fn a_cancelled_command_gets_nothing_any_more() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias)));
    server.register(&chain("p", &[("start", "ok")])).await;
    let hello = Hello {
        worker_id: "hand".into(),
        session_id: None,
        slots: 1,
        pools: Vec::new(),
        protocol: noetl_engine::transport::PROTOCOL,
        version: String::new(),
        meta: Value::Null,
    };
    let session_id = server.engine.hello(hello).await.unwrap().session_id;
    let id = server.start("p").await.execution_id;
    let orders = server.engine.poll(Poll { free: 1, wait_ms: 10_000, ..Poll::of(session_id) }).await.unwrap();
    let given = &orders.commands[0];
    let warrant = Warrant { session_id, execution_id: id, command_id: given.command_id, epoch: given.epoch };
    let engine = &server.engine;
    assert!(engine.credential(&warrant, "api").await.is_ok());
    assert!(matches!(engine.credential(&warrant, "other").await, Err(SecretError::Unknown(_))));
    let cancelled = server.cancel(CancelRequest { mode: Some(CancelMode::Interrupt), ..cancel(id) }).await;
    cancelled.unwrap();
    let withheld = engine.credential(&warrant, "api").await;
    assert!(matches!(withheld, Err(SecretError::Withheld(Withheld::Ended))), "{withheld:?}");
    server.stop().await;
}
