//! What is asked of the deployment meanwhile, and what it acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Chance;

/// How long a server may take to answer in the storm before another one is asked.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two tries of one request.
const PAUSE: Duration = Duration::from_millis(50);

/// A step writes this line where no store has a hand in it.
const LINE: &str = "echo '{{ execution_id }}' >> '{{ workload.file }}'";

/// What is run: its path, and whether it ends by itself.
pub(crate) const KINDS: [(&str, bool); 6] = [
    ("chaos/chain", true),
    ("chaos/many", true),
    ("chaos/parent", true),
    ("chaos/quick", true),
    ("chaos/family", false),
    ("chaos/sleep", false),
];

/// The playbooks. Commands may be lost more often than the usual three times, because so many are killed here.
pub(crate) fn playbooks() -> Vec<String> {
    let book = |name: &str, workflow: &str| {
        format!(
            "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: chaos/{name}}}\n\
             workload: {{file: /dev/null}}\n\
             executor: {{spec: {{limits: {{losses: 1000}}}}}}\nworkflow:\n{workflow}"
        )
    };
    let shell = format!("tool: {{kind: shell, cmds: [\"{LINE}\"]}}");
    let python = "tool: {kind: python, code: 'result = {\"n\": 1}'}";
    let child = |path: &str| {
        format!("tool: {{kind: playbook, path: chaos/{path}, input: {{file: \"{{{{ workload.file }}}}\"}}}}")
    };
    vec![
        book(
            "chain",
            &format!(
                "  - {{step: start, {shell}, next: {{arcs: [{{step: two}}]}}}}\n  \
                   - {{step: two, {python}, next: {{arcs: [{{step: three}}]}}}}\n  \
                   - {{step: three, tool: {{kind: noop}}, next: {{arcs: [{{step: end}}]}}}}\n  - {{step: end, {shell}}}\n"
            ),
        ),
        book(
            "many",
            &format!(
                "  - {{step: start, loop: {{in: 8, iterator: i, spec: {{mode: parallel, max_in_flight: 4}}}}, {shell}}}\n"
            ),
        ),
        book(
            "parent",
            &format!(
                "  - {{step: start, loop: {{in: 3, iterator: i, spec: {{mode: parallel}}}}, {}}}\n",
                child("chain")
            ),
        ),
        book(
            "quick",
            "  - {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}\n  - {step: end, tool: {kind: noop}}\n",
        ),
        book(
            "family",
            &format!(
                "  - {{step: start, loop: {{in: 3, iterator: i, spec: {{mode: parallel}}}}, {}}}\n",
                child("branch")
            ),
        ),
        book(
            "branch",
            &format!(
                "  - {{step: start, loop: {{in: 2, iterator: i, spec: {{mode: parallel}}}}, {}}}\n",
                child("sleep")
            ),
        ),
        book("sleep", "  - {step: start, tool: {kind: shell, cmds: ['sleep 600']}}\n"),
    ]
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Executions that were started, and what runs in them.
    pub(crate) started: BTreeMap<String, &'static str>,
    /// Executions that a cancel listed.
    pub(crate) cancelled: Vec<String>,
    /// Executions whose cancel was refused, with what they were said to be.
    pub(crate) ended: BTreeMap<String, String>,
}

/// Somebody who asks.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    /// How long a server may take to answer before another one is asked.
    pub(crate) answer_max: Duration,
    pub(crate) doors: Vec<u16>,
    pub(crate) told: Arc<Mutex<Told>>,
    /// Where the lines go.
    pub(crate) file: String,
}

impl Client {
    /// Asks one server after the other until one answers anything but "not now".
    pub(crate) async fn ask(&self, from: u64, path: &str, key: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let mut turn = from as usize;
        loop {
            let url = format!("http://127.0.0.1:{}{path}", self.doors[turn % self.doors.len()]);
            turn += 1;
            let request = match body {
                Some(body) => self.http.post(url).json(body),
                None => self.http.get(url),
            };
            let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
            let answered = async {
                let answer = request.send().await?;
                let status = answer.status().as_u16();
                Ok::<_, reqwest::Error>((status, answer.json::<Value>().await?))
            };
            if let Ok(Ok((status, body))) = tokio::time::timeout(self.answer_max, answered).await
                && status < 500
            {
                return (status, body);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts and cancels until `over`; what it was told is noted.
    pub(crate) async fn run(self, number: u64, mut chance: Chance, over: watch::Receiver<bool>) {
        let mut asked = 0;
        while !*over.borrow() {
            asked += 1;
            let (path, ends) = KINDS[chance.below(KINDS.len() as u64) as usize];
            let key = format!("c{number}-{asked}");
            let request = json!({"path": path, "workload": {"file": self.file}});
            let (status, body) = self.ask(chance.below(3), "/api/execute", Some(&key), Some(&request)).await;
            assert_eq!(status, 200, "{path}: {body}");
            let id = body["execution_id"].as_str().unwrap().to_owned();
            assert!(self.told.lock().unwrap().started.insert(id.clone(), path).is_none(), "{id} was started twice");
            // Some of what would end by itself is cancelled as well: both may win.
            if !ends || chance.below(4) == 0 {
                tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
                let both = chance.below(2) == 0;
                let one = self.cancel(&id, format!("{key}-a"), chance.below(3));
                if both {
                    tokio::join!(one, self.cancel(&id, format!("{key}-b"), chance.below(3)));
                } else {
                    one.await;
                }
            }
        }
    }

    async fn cancel(&self, id: &str, key: String, from: u64) {
        let request = json!({"cascade": true, "mode": "interrupt", "grace_seconds": 0.5, "reason": "chaos"});
        let path = format!("/api/executions/{id}/cancel");
        let (status, body) = self.ask(from, &path, Some(&key), Some(&request)).await;
        let mut told = self.told.lock().unwrap();
        match status {
            200 => {
                for listed in body["cancelled_executions"].as_array().unwrap() {
                    told.cancelled.push(listed.as_str().unwrap().to_owned());
                }
            }
            409 => {
                let message = body["message"].as_str().unwrap();
                let state = message.rsplit_once("is already ").unwrap_or_else(|| panic!("{body}")).1.to_owned();
                told.ended.insert(id.to_owned(), state);
            }
            _ => panic!("a cancel was answered {status}: {body}"),
        }
    }
}
