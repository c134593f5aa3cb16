//! A deployment in which everything dies, hangs and loses its connections while executions run and are cancelled:
//! afterwards nothing that was acknowledged is lost, every log keeps every promise, and nothing is left running.
//!
//! Three servers, four workers, one database. The seed decides which blow falls when; the machine decides what it hits.

mod load;
mod party;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use noetl_testkit::{Database, TestCluster};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::load::{Client, Told};
use self::party::{Party, at_work_below};
use self::way::Way;

const SERVERS: usize = 3;
const WORKERS: usize = 4;
const CLIENTS: u64 = 12;
/// How long blows fall; `NOETL_TEST_LONG=1` (`./test --long`) is the long form.
const STORM: Duration = Duration::from_secs(12);
const STORM_LONG: Duration = Duration::from_secs(600);
/// Longest time between two blows, in milliseconds.
const LULL_MS_MAX: u64 = 500;
/// Longest time for which something hangs, in milliseconds: in the long form longer than a lease.
const HANG_MS_MAX: u64 = 1_500;
const HANG_MS_MAX_LONG: u64 = 45_000;
/// How long everything may take to come to its end afterwards: leases run out, pauses between tries end.
const CALM_MAX: Duration = Duration::from_secs(120);
/// Longest time for a look at every log: after the long form there are tens of thousands.
const VERIFY_MAX: Duration = Duration::from_secs(1_200);
/// Between two looks after processes that should run.
const LOOK: Duration = Duration::from_millis(50);

/// The seed of an ordinary run.
const SEED: u64 = 26_275;

/// SplitMix64: the blows come from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Everything there is.
struct Deployment {
    servers: Vec<Party>,
    workers: Vec<Party>,
    cluster: TestCluster,
    /// What hangs, and until when.
    hanging: BTreeMap<Hung, Instant>,
    blows: BTreeMap<&'static str, u32>,
}

/// Something that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hung {
    Server(usize),
    Worker(usize),
    /// The way of a server to the database.
    Database(usize),
    /// The way in to a server.
    Door(usize),
}

impl Deployment {
    async fn start() -> Option<Self> {
        let cluster = TestCluster::start(&["noetl"]).await.unwrap()?;
        let address = cluster.address("noetl");
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let way = Way::to(Some(address.port)).await;
            let url = noetl_testkit::Address { port: way.port(), ..address.clone() }.url();
            servers.push(Party::server(&format!("s{number}"), way, url).await);
        }
        let doors: Vec<String> = ports(&servers).iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let workers = (0..WORKERS).map(|number| Party::worker(&format!("w{number}"), &doors.join(","))).collect();
        Some(Deployment { servers, workers, cluster, hanging: BTreeMap::new(), blows: BTreeMap::new() })
    }

    /// Starts what has died, and lets go on what has hung long enough.
    fn tend(&mut self) {
        let now = Instant::now();
        let over: Vec<Hung> = self.hanging.iter().filter(|(_, until)| **until <= now).map(|(hung, _)| *hung).collect();
        for hung in over {
            self.hang(hung, None);
        }
        for party in self.servers.iter_mut().chain(&mut self.workers) {
            party.tend();
        }
    }

    /// Lets something hang until then, or go on.
    fn hang(&mut self, hung: Hung, until: Option<Instant>) {
        let which = if until.is_some() { Signal::STOP } else { Signal::CONT };
        match hung {
            Hung::Server(number) => self.servers[number].send(which),
            Hung::Worker(number) => self.workers[number].send(which),
            Hung::Database(number) => self.servers[number].database.as_ref().unwrap().freeze(until.is_some()),
            Hung::Door(number) => self.servers[number].door.as_ref().unwrap().freeze(until.is_some()),
        }
        match until {
            Some(until) => drop(self.hanging.insert(hung, until)),
            None => drop(self.hanging.remove(&hung)),
        }
    }

    /// Deals one blow.
    async fn strike(&mut self, chance: &mut Chance, hang_ms_max: u64) {
        let (server, worker) = (chance.below(SERVERS as u64) as usize, chance.below(WORKERS as u64) as usize);
        // Most hang for a moment; squaring keeps the long ones rare.
        let share = chance.below(1_000) * chance.below(1_000);
        let until = Instant::now() + Duration::from_millis(100 + hang_ms_max * share / 1_000_000);
        let blow = match chance.below(12) {
            0 | 1 => {
                self.servers[server].send(Signal::KILL);
                "a server was killed"
            }
            2 => {
                self.servers[server].send(Signal::TERM);
                "a server was stopped"
            }
            3 => {
                self.hang(Hung::Server(server), Some(until));
                "a server was suspended"
            }
            4 => {
                self.workers[worker].send(Signal::KILL);
                "a worker was killed"
            }
            5 => {
                self.workers[worker].send(Signal::TERM);
                "a worker was stopped"
            }
            6 => {
                self.hang(Hung::Worker(worker), Some(until));
                "a worker was suspended"
            }
            7 => {
                self.servers[server].database.as_ref().unwrap().cut();
                "a server lost its connections to the database"
            }
            8 => {
                self.hang(Hung::Database(server), Some(until));
                "the way of a server to the database froze"
            }
            9 => {
                self.servers[server].door.as_ref().unwrap().cut();
                "a server lost its callers"
            }
            10 => {
                self.hang(Hung::Door(server), Some(until));
                "the way to a server froze"
            }
            _ => {
                self.cluster.crash();
                sleep(Duration::from_millis(chance.below(300))).await;
                self.cluster.restart().await.unwrap();
                "the database died"
            }
        };
        *self.blows.entry(blow).or_default() += 1;
    }

    /// Ends every hanging.
    fn heal(&mut self) {
        for hung in self.hanging.clone().into_keys() {
            self.hang(hung, None);
        }
    }

    fn folders(&self) -> Vec<std::path::PathBuf> {
        self.servers.iter().chain(&self.workers).map(Party::folder).collect()
    }
}

fn ports(servers: &[Party]) -> Vec<u16> {
    servers.iter().map(|server| server.door.as_ref().unwrap().port()).collect()
}

/// An ordinary run walks the same storm every time; a long one walks one that nobody has seen.
fn seed() -> u64 {
    let given = std::env::var("NOETL_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let long = std::env::var_os("NOETL_TEST_LONG").is_some();
    given.unwrap_or_else(|| if long { u64::from(std::process::id()) } else { SEED })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_nothing_acknowledged_is_lost_and_nothing_is_stuck() {
    let seed = seed();
    println!("replay: NOETL_CHAOS_SEED={seed} cargo nextest run --workspace -E 'test(/^chaos::/)' --no-capture");
    let long = std::env::var_os("NOETL_TEST_LONG").is_some();
    let (storm, hang_ms_max) = if long { (STORM_LONG, HANG_MS_MAX_LONG) } else { (STORM, HANG_MS_MAX) };
    let mut chance = Chance(seed);
    noetl::server::tls::install_provider();
    let Some(mut deployment) = Deployment::start().await else { return };
    let lines = tempfile::NamedTempFile::new().unwrap();
    let client = Client {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        answer_max: load::ANSWER_MAX,
        doors: ports(&deployment.servers),
        told: Arc::default(),
        file: lines.path().display().to_string(),
    };
    register(&mut deployment, &client).await;

    let (over, ending) = watch::channel(false);
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let own = Chance(seed ^ (number + 1).wrapping_mul(0x5851_F42D_4C95_7F2D));
        asking.spawn(client.clone().run(number, own, ending.clone()));
    }
    let until = Instant::now() + storm;
    while Instant::now() < until {
        let next = Instant::now() + Duration::from_millis(chance.below(LULL_MS_MAX));
        while Instant::now() < next {
            sleep(LOOK).await;
            deployment.tend();
        }
        deployment.strike(&mut chance, hang_ms_max).await;
    }
    deployment.heal();
    over.send_replace(true);
    let calm = calm(&mut deployment, &client, &mut asking).await;
    let told = std::mem::take(&mut *client.told.lock().unwrap());
    println!(
        "{:?}\n{:?} {} started, {} cancelled",
        deployment.blows,
        until.elapsed(),
        told.started.len(),
        told.cancelled.len()
    );
    if let Err(why) = calm {
        panic!("{why} (seed {seed})\n{}", diary(&deployment));
    }
    let wrong = look_back(&deployment, &client, &told, &std::fs::read_to_string(lines.path()).unwrap()).await;
    assert!(wrong.is_empty(), "seed {seed}:\n{}\n{}", wrong.join("\n"), diary(&deployment));
    let folders = deployment.folders();
    for party in deployment.workers.iter_mut().chain(&mut deployment.servers) {
        party.send(Signal::TERM);
    }
    for party in deployment.workers.iter_mut().chain(&mut deployment.servers) {
        party.wait();
    }
    assert_eq!(at_work_below(&folders), Vec::<String>::new(), "still at work (seed {seed})");
}

/// Waits for the first server, and gives it the playbooks.
async fn register(deployment: &mut Deployment, client: &Client) {
    let mut all = Box::pin(async {
        for content in load::playbooks() {
            let request = json!({"content": content});
            let (status, body) = client.ask(0, "/api/catalog/register", None, Some(&request)).await;
            assert_eq!(status, 200, "{body}\n{content}");
        }
    });
    loop {
        deployment.tend();
        if tokio::time::timeout(LOOK, &mut all).await.is_ok() {
            return;
        }
    }
}

/// Waits until everybody has an answer and every execution has ended and come to rest.
async fn calm(
    deployment: &mut Deployment,
    client: &Client,
    asking: &mut tokio::task::JoinSet<()>,
) -> Result<(), String> {
    let deadline = Instant::now() + CALM_MAX;
    let mut left = "somebody still waits for an answer".to_owned();
    while Instant::now() < deadline {
        deployment.tend();
        sleep(LOOK).await;
        while let Some(ended) = asking.try_join_next() {
            ended.map_err(|error| format!("a client: {error}"))?;
        }
        if !asking.is_empty() {
            continue;
        }
        let Ok(database) = Database::connect(&deployment.cluster.address("noetl")).await else { continue };
        let open = "SELECT json_agg(json_build_object('id', execution_id, 'path', path, 'status', status, \
                    'version', version, 'in_flight', in_flight)) FROM noetl.execution WHERE quiesced_at IS NULL";
        match database.first_value(open).await {
            Ok(Some(Value::Array(open))) => left = format!("{} still run: {}", open.len(), Value::Array(open)),
            Ok(Some(_) | None) => return Ok(()),
            Err(_) => {}
        }
    }
    let rows = match Database::connect(&deployment.cluster.address("noetl")).await {
        Ok(database) => database.first_value("SELECT json_agg(c) FROM noetl.command c").await.unwrap_or_default(),
        Err(_) => None,
    };
    drop(client.told.lock());
    Err(format!("{left}\ncommands: {}", rows.unwrap_or_default()))
}

/// Returns everything that is not as it must be.
async fn look_back(deployment: &Deployment, client: &Client, told: &Told, lines: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let database = Database::connect(&deployment.cluster.address("noetl")).await.unwrap();
    let rows = async |sql: &str| -> Vec<Value> {
        let sql = format!("SELECT coalesce(json_agg(row_to_json(r)), '[]') FROM ({sql}) r");
        match database.first_value(&sql).await.unwrap() {
            Some(Value::Array(rows)) => rows,
            other => panic!("{other:?}"),
        }
    };
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    // What was acknowledged is there, and is what it was said to be.
    let heads = rows("SELECT execution_id::text, status, parent_execution_id FROM noetl.execution").await;
    let statuses: BTreeMap<String, String> =
        heads.iter().map(|head| (text(head, "execution_id"), text(head, "status"))).collect();
    let roots = heads.iter().filter(|head| head["parent_execution_id"].is_null()).count();
    if roots != told.started.len() {
        wrong.push(format!("{} starts were acknowledged, {roots} executions were started", told.started.len()));
    }
    let cancelled: BTreeSet<&String> = told.cancelled.iter().collect();
    if cancelled.len() != told.cancelled.len() {
        wrong.push("an execution was cancelled by two requests".to_owned());
    }
    for (id, path) in &told.started {
        let status = statuses.get(id).map_or("nowhere", String::as_str);
        let expected = if cancelled.contains(id) { "CANCELLED" } else { "COMPLETED" };
        if status != expected {
            wrong.push(format!("{path} {id} is {status}, not {expected}"));
        }
    }
    for id in &told.cancelled {
        if statuses.get(id).is_none_or(|status| status != "CANCELLED") {
            wrong.push(format!("{id} was said to be cancelled and is {:?}", statuses.get(id)));
        }
    }
    for (id, state) in &told.ended {
        if statuses.get(id) != Some(state) {
            wrong.push(format!("{id} was said to be {state} and is {:?}", statuses.get(id)));
        }
    }
    // Nothing was handed out twice under one epoch, and nothing ran that was not handed out.
    for twice in rows(
        "SELECT execution_id, command_id, attempt FROM noetl.event WHERE event_type = 'command.claimed' \
         GROUP BY execution_id, command_id, attempt HAVING count(*) > 1",
    )
    .await
    {
        wrong.push(format!("claimed twice under one epoch: {twice}"));
    }
    let mut wrote: BTreeMap<&str, u64> = BTreeMap::new();
    for line in lines.lines() {
        *wrote.entry(line).or_default() += 1;
    }
    // Step `two` writes no line.
    let claims = rows(
        "SELECT execution_id::text, count(*) FILTER (WHERE event_type = 'command.claimed') AS claimed, \
         count(*) FILTER (WHERE event_type = 'command.completed' AND noetl.event.meta->>'late' IS NULL) AS completed \
         FROM noetl.event JOIN noetl.execution USING (execution_id) \
         WHERE event_type IN ('command.claimed', 'command.completed') AND node_name <> 'two' \
         AND path IN ('chaos/chain', 'chaos/many') GROUP BY execution_id",
    )
    .await;
    let mut known = BTreeSet::new();
    for claim in &claims {
        let id = text(claim, "execution_id");
        let (claimed, completed) = (claim["claimed"].as_u64().unwrap(), claim["completed"].as_u64().unwrap());
        let times = wrote.get(id.as_str()).copied().unwrap_or(0);
        if times < completed || times > claimed {
            wrong.push(format!("{id}: {times} lines of {claimed} attempts, {completed} of which were completed"));
        }
        known.insert(id);
    }
    wrong.extend(wrote.keys().filter(|id| !known.contains(**id)).map(|id| format!("{id} ran without a claim")));
    // Nothing is left to do.
    for table in ["command", "due", "cancellation_front"] {
        for row in rows(&format!("SELECT * FROM noetl.{table}")).await {
            wrong.push(format!("left in {table}: {row}"));
        }
    }
    // Every head is what its log says, and every log what it must be.
    let patient = Client { answer_max: VERIFY_MAX, ..client.clone() };
    let (status, verified) = patient.ask(0, "/api/db/verify", None, None).await;
    if status != 200 || verified["problems"] != json!([]) {
        wrong.push(format!("verify: {status} {verified}"));
    }
    for party in deployment.servers.iter().chain(&deployment.workers) {
        if party.log().contains("panicked") {
            wrong.push(format!("{} panicked", party.name()));
        }
    }
    wrong
}

/// Returns what the processes wrote down last.
fn diary(deployment: &Deployment) -> String {
    let mut text = String::new();
    for party in deployment.servers.iter().chain(&deployment.workers) {
        let log = party.log();
        let lines: Vec<&str> = log.lines().collect();
        text += &format!("--- {}\n{}\n", party.name(), lines[lines.len().saturating_sub(40)..].join("\n"));
    }
    text
}
