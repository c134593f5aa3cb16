//! Credentials on their way to a running tool.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use noetl_core::id::ExecutionId;
use noetl_core::playbook::CancelMode;
use noetl_core::secret::keychain::{ENTRIES_DEPTH_MAX, KeptUnder};
use noetl_core::secret::{Credential, Warrant, Withheld};
use noetl_engine::CancelRequest;
use noetl_engine::secrets::{SecretError, Vault};
use noetl_engine::transport::{Hello, Poll};
use serde_json::{Value, json};

use crate::world::{World, cancel, chain, playbook};

/// Knows one alias.
#[derive(Debug, Default)]
struct OneAlias(Mutex<BTreeMap<String, Value>>);

#[async_trait]
impl Vault for OneAlias {
    async fn credential(&self, alias: &str) -> Result<Option<Credential>, SecretError> {
        let data = json!({"token": "swordfish", "user": "u"});
        let data = Arc::new(data.as_object().unwrap().clone());
        Ok((alias == "api").then(|| Credential { name: alias.into(), kind: "bearer".into(), data }))
    }

    async fn kept(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
    ) -> Result<Option<Value>, SecretError> {
        Ok(self.0.lock().unwrap().get(&format!("{under:?} {execution:?}")).cloned())
    }

    async fn keep(
        &self,
        under: &KeptUnder,
        execution: Option<(ExecutionId, ExecutionId)>,
        value: Value,
        _life_ms: u64,
    ) -> Result<(), SecretError> {
        self.0.lock().unwrap().insert(format!("{under:?} {execution:?}"), value);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_gets_what_it_names_and_a_hard_error_for_what_nobody_registered() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
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
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
    server.register(&chain("p", &[("start", "ok")])).await;
    let hello = Hello {
        worker_id: "hand".into(),
        session_id: None,
        slots: 1,
        pools: Vec::new(),
        protocol: noetl_engine::transport::PROTOCOL,
        version: String::new(),
        instance: None,
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

/// What the tool prints of it leaves the worker masked, in every place a result goes to.
#[tokio::test(start_paused = true)]
async fn what_a_tool_says_of_a_secret_is_masked() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
    let worker = world.hire(&server, "w", 2);
    server.register(&chain("p", &[("start", "leak api")])).await;
    let id = server.start("p").await.execution_id;
    server.ended(id).await;
    assert_eq!(world.result(&server.engine, id).await, json!({"said": "it is \"********\""}));
    assert!(!world.story().await.contains("swordfish"));
    worker.shutdown.cancel();
    server.stop().await;
}

const KEYS: &str = "
keychain:
  - {name: client, kind: static, map: {id: '{{ workload.client }}', secret: 'swordfish-{{ workload.client }}'}}
  - {name: issued, kind: oauth2, scope: global, endpoint: 'http://issuer', data: {id: '{{ keychain.client.id }}', secret: '{{ keychain.client.secret }}'}}
  - {name: held, kind: credential, credential: api}
  - {name: never, kind: oauth2, endpoint: 'http://never'}
  - {name: a, kind: static, map: {x: '{{ keychain.b.x }}'}}
  - {name: b, kind: static, map: {x: '{{ keychain.a.x }}y'}}
  - {name: id, kind: google_id_token, auth: nobody}
";

/// Entries are resolved when a tool's template reads them, with what they need, and tokens are kept.
#[tokio::test(start_paused = true)]
async fn keychain_entries_are_resolved_where_a_tool_reads_them() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
    let worker = world.hire(&server, "w", 2);
    let steps = "
workload: {client: shop}
workflow:
  - step: start
    input: {kept: '{{ keychain.client.secret }}'}
    tool:
      kind: python
      code: received
      input:
        token: 'Bearer {{ keychain.issued.access_token }}'
        held: '{{ keychain.held.token }}'
        named: \"{{ token('api') }}\"
        cycle: '[{{ keychain.a.x }}]'
        lenient: '[{{ keychain.id.token }}{{ keychain.nothing.at_all }}]'
    next: {arcs: [{step: again, set: {ctx.leak: '{{ keychain.client.secret }}'}}]}
  - step: again
    tool: {kind: python, code: received, input: {token: '{{ keychain.issued.access_token }}'}}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {leak: '[{{ keychain.client.secret }}]', ctx: '[{{ ctx.leak }}]'}}
";
    server.register(&format!("{}{KEYS}{steps}", playbook("p", "").replace("workflow:\n", ""))).await;
    let id = server.start("p").await.execution_id;
    assert_eq!(server.ended(id).await.as_str(), "COMPLETED", "{}", world.story().await);
    let received = world.scripts.received();
    assert_eq!(
        received[0],
        json!({
            "kept": "swordfish-shop", "token": "Bearer token-1-for-shop", "held": "swordfish", "named": "swordfish",
            "cycle": "[]", "lenient": "[]",
        })
    );
    assert_eq!(received[1], json!({"token": "token-1-for-shop"}), "the token is kept");
    assert_eq!(world.scripts.wanted(), ["http://issuer"], "what nothing reads is never asked for");
    assert_eq!(world.result(&server.engine, id).await, json!({"leak": "[]", "ctx": "[]"}));
    let story = format!("{} {:?}", world.story().await, world.log(id).await);
    for secret in ["swordfish", "token-1"] {
        assert!(!story.contains(secret), "{secret}: {story}");
    }
    worker.shutdown.cancel();
    server.stop().await;
}

/// To be wanted together with another entry is not to wait for it: none of these is a circle.
#[tokio::test(start_paused = true)]
async fn entries_of_one_template_may_need_each_other() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
    let worker = world.hire(&server, "w", 2);
    let mut source = playbook("p", "").replace("workflow:\n", "");
    source.push_str("keychain:\n  - {name: base, kind: credential, credential: api}\n");
    source.push_str("  - {name: left, kind: static, map: {x: 'l-{{ keychain.base.token }}'}}\n");
    source.push_str("  - {name: right, kind: static, map: {x: 'r-{{ keychain.left.x }}-{{ keychain.base.token }}'}}\n");
    // More than may wait for each other.
    let many = ENTRIES_DEPTH_MAX + 4;
    for at in 0..many {
        source.push_str(&format!("  - {{name: m{at}, kind: static, map: {{x: '{at}-{{{{ keychain.left.x }}}}'}}}}\n"));
    }
    let all: String = (0..many).map(|at| format!("{{{{ keychain.m{at}.x }}}} ")).collect();
    source.push_str(&format!(
        "workflow:\n  - step: start\n    tool:\n      kind: python\n      code: received\n      input:\n        \
         needed_first: '{{{{ keychain.base.token }}}} {{{{ keychain.left.x }}}}'\n        \
         needed_last: '{{{{ keychain.right.x }}}} {{{{ keychain.left.x }}}} {{{{ keychain.base.token }}}}'\n        \
         many: '{all}'\n"
    ));
    server.register(&source).await;
    let id = server.start("p").await.execution_id;
    assert_eq!(server.ended(id).await.as_str(), "COMPLETED", "{}", world.story().await);
    let every: String = (0..many).map(|at| format!("{at}-l-swordfish ")).collect();
    assert_eq!(
        world.scripts.received(),
        [json!({
            "needed_first": "swordfish l-swordfish",
            "needed_last": "r-l-swordfish-swordfish l-swordfish swordfish",
            "many": every,
        })]
    );
    worker.shutdown.cancel();
    server.stop().await;
}

/// What the tool `secrets` returns is for the tasks behind it. It does not outlive a pause, and leaves nowhere.
#[tokio::test(start_paused = true)]
async fn what_secrets_fetched_is_read_by_the_tasks_behind_it_and_nobody_else() {
    let world = World::new();
    let server = world.server_with(|options| options.vault = Some(Arc::new(OneAlias::default())));
    let worker = world.hire(&server, "w", 2);
    server.register(&chain("child", &[("start", "ok")])).await;
    let steps = "workflow:
  - step: start
    tool:
      - got: {kind: secrets, key: k, code: 'return {\"value\": \"tiger-lily\", \"host\": \"tiger-paws\"}'}
      - look: {kind: python, code: received, input: {it: '{{ got.value }}', also: '{{ got.host }}'}}
      - below: {kind: playbook, path: child, input: {it: '{{ got.value }}'}}
      - after: {kind: python, code: received, input: {it: '{{ got.value }}'}}
      - last: {kind: noop, result: {it: '{{ got.value }}'}, set: {ctx.it: '{{ got.host }}'}}
";
    server.register(&playbook("p", steps)).await;
    let id = server.start("p").await.execution_id;
    assert_eq!(server.ended(id).await.as_str(), "COMPLETED", "{}", world.story().await);
    let received = world.scripts.received();
    assert_eq!(received, [json!({"it": "tiger-lily", "also": "tiger-paws"}), json!({"it": "********"})]);
    let story = format!("{} {:?}", world.story().await, world.log(id).await);
    assert!(!story.contains("tiger"), "{story}");
    assert!(world.result(&server.engine, id).await.to_string().contains("********"));
    worker.shutdown.cancel();
    server.stop().await;
}

/// Where a keychain entry leads, and a name that a password begins with or stands in, come through to the next task and
/// into the result; the password does not.
#[tokio::test(start_paused = true)]
async fn what_only_resembles_a_secret_is_passed_on_between_tasks() {
    let world = World::new();
    let server = world.server();
    let worker = world.hire(&server, "w", 2);
    let steps = "
keychain:
  - {name: db, kind: static, map: {api_base: 'http://127.0.0.1:5577', user: postgres, password: postgres123}}
  - {name: lake, kind: static, map: {user: tester, password: warehouse}}
workflow:
  - step: start
    tool:
      - name: first
        kind: python
        code: input
        input:
          next: '{{ keychain.db.api_base }}/x'
          user: '{{ keychain.db.user }}'
          column: 'to_{{ keychain.lake.password }}'
          one: '[{{ keychain.db.password }}]'
          other: 'of {{ keychain.lake.password }}'
      - {name: second, kind: python, code: received, input: {all: '{{ first }}', same: \"{{ first.user == 'postgres' }}\"}}
";
    server.register(&format!("{}{steps}", playbook("p", "").replace("workflow:\n", ""))).await;
    let id = server.start("p").await.execution_id;
    assert_eq!(server.ended(id).await.as_str(), "COMPLETED", "{}", world.story().await);
    let all = json!({
        "next": "http://127.0.0.1:5577/x", "user": "postgres", "column": "to_warehouse", "one": "[********]",
        "other": "of ********",
    });
    assert_eq!(world.scripts.received(), [json!({"all": all, "same": true})]);
    let story = format!("{} {:?}", world.story().await, world.log(id).await);
    assert!(story.contains("127.0.0.1:5577/x") && !story.contains("postgres123"), "{story}");
    worker.shutdown.cancel();
    server.stop().await;
}
