//! A PostgreSQL cluster: made in a folder, on a free port of loopback and a socket in the folder, gone at the end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::account::Account;
use crate::{Address, Database, Fault};

/// Where Debian and its relatives keep the server's programs, a folder per version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// How long the cluster may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at whether it answers.
const START_POLL: Duration = Duration::from_millis(20);
/// How long a client may take to say who it is, in seconds.
const GUEST_SECONDS_MAX: u32 = 5;
/// How often a port that somebody took meanwhile is exchanged for another.
const PORTS_TRIED: u32 = 5;

/// The role that owns everything in the cluster.
const USER: &str = "tester";
/// Its password, with what has to be quoted. It guards nothing: the cluster is on loopback and lives for minutes.
const PASSWORD: &str = "p-4 'quoted\"";
/// A database that every cluster has, and that is no template: nobody who looks in keeps others from making databases.
pub(crate) const FIRST_DATABASE: &str = "postgres";

/// Runs PostgreSQL for as long as somebody holds the other end of its stdin, which a killed test does not.
///
/// "Immediate" (QUIT): all backends end at once and give their shared memory back.
const LIFELINE: &str = r#"exec 3<&0; "$@" & server=$!; (read _ <&3; kill -QUIT $server) & wait $server"#;

/// A running cluster; dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    account: Account,
    programs: PathBuf,
    home: PathBuf,
    port: u16,
    running: Option<Running>,
}

/// The server and what keeps it alive.
#[derive(Debug)]
struct Running {
    process: Child,
    lifeline: Option<ChildStdin>,
}

impl Cluster {
    /// Returns the folder with the newest installed server programs.
    pub fn installed() -> Option<PathBuf> {
        let versions = fs::read_dir(INSTALLED).ok()?.flatten();
        let usable = versions.filter_map(|version| {
            let number: u32 = version.file_name().to_str()?.parse().ok()?;
            let programs = version.path().join("bin");
            programs.join("initdb").exists().then_some((number, programs))
        });
        usable.max().map(|(_, programs)| programs)
    }

    /// Makes a cluster in `folder`, starts it and makes the named databases.
    pub async fn start(programs: &Path, folder: &Path, databases: &[&str]) -> Result<Self, Fault> {
        let account = Account::unprivileged()?;
        let home = folder.join("postgres");
        fs::create_dir(&home).map_err(Fault::while_doing(format!("make {}", home.display())))?;
        // The account must get through the folders above; the cluster's own folder stays closed.
        open_for_passage(folder)?;
        account.own(&home)?;

        let password = home.join("password");
        fs::write(&password, PASSWORD).map_err(Fault::while_doing("write the password file"))?;
        account.own(&password)?;
        let initdb = account
            .command(&programs.join("initdb"), &home)
            .arg("--pgdata")
            .arg(home.join("data"))
            .arg("--pwfile")
            .arg(&password)
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"])
            .stdin(Stdio::null())
            .output()
            .map_err(Fault::while_doing("run initdb"))?;
        if !initdb.status.success() {
            return Err(Fault(format!("initdb failed: {}", String::from_utf8_lossy(&initdb.stderr).trim())));
        }

        let programs = programs.to_path_buf();
        let mut cluster = Cluster { account, programs, home, port: free_port()?, running: None };
        let mut tried = 1;
        // Race: whoever asks for a free port between our look and PostgreSQL's start may get the same.
        while let Err(fault) = cluster.restart().await {
            let port_is_taken = cluster.running.is_none() && cluster.said().contains("could not bind");
            if !port_is_taken || tried == PORTS_TRIED {
                return Err(fault);
            }
            tried += 1;
            cluster.port = free_port()?;
        }
        for name in databases {
            cluster.create_database(name).await?;
        }
        Ok(cluster)
    }

    /// Makes one more database.
    pub async fn create_database(&self, name: &str) -> Result<(), Fault> {
        let database = Database::connect(&self.address(FIRST_DATABASE)).await?;
        database.execute(&format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""))).await
    }

    /// Returns how to get into `database` over the network.
    pub fn address(&self, database: &str) -> Address {
        Cluster::address_at(self.port, database)
    }

    /// Returns the same for a cluster of which only the port is known.
    pub(crate) fn address_at(port: u16, database: &str) -> Address {
        Address {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            database: database.to_owned(),
        }
    }

    /// Returns how to get into `database` over the socket in the cluster's folder.
    pub fn socket_address(&self, database: &str) -> Address {
        Address { host: self.home.display().to_string(), ..self.address(database) }
    }

    /// Ends the server as a crash does; its data stays.
    pub fn crash(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.lifeline.take());
            drop(running.process.wait());
        }
    }

    /// Starts the server, after a crash if it runs, and waits until it answers.
    pub async fn restart(&mut self) -> Result<(), Fault> {
        self.crash();
        let log = fs::File::create(self.log()).map_err(Fault::while_doing("make the log of the cluster"))?;
        let mut command = self.account.command(Path::new("/bin/sh"), &self.home);
        command.args(["-c", LIFELINE, "sh"]).arg(self.programs.join("postgres"));
        command.arg("-D").arg(self.home.join("data")).arg("-k").arg(&self.home);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        // Nothing here outlives the machine, so nothing has to reach the disk. What was committed does outlive the
        // server: `synchronous_commit` stays on.
        // A server that dies waits so long for guests who have come and not said who they are.
        let patience = format!("authentication_timeout={GUEST_SECONDS_MAX}");
        for setting in ["fsync=off", "full_page_writes=off", "max_connections=200", &patience] {
            command.args(["-c", setting]);
        }
        let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        let mut process = started.map_err(Fault::while_doing("start postgres"))?;
        let lifeline = process.stdin.take();
        self.running = Some(Running { process, lifeline });
        self.ready().await
    }

    /// Waits until the server answers.
    async fn ready(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + START_TIMEOUT;
        let address = self.address(FIRST_DATABASE);
        loop {
            let Err(refused) = Database::connect(&address).await else { return Ok(()) };
            let ended = match &mut self.running {
                Some(running) => {
                    running.process.try_wait().map_err(Fault::while_doing("look after postgres"))?.is_some()
                }
                None => true,
            };
            if ended || Instant::now() >= deadline {
                self.crash();
                return Err(Fault(format!("the cluster does not answer: {refused}\n{}", self.said())));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Returns what the server wrote since its last start.
    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A cluster in a folder of its own, for one test.
#[derive(Debug)]
pub struct TestCluster {
    // Before the folder, which it must not outlive.
    cluster: Cluster,
    _folder: TempDir,
}

impl TestCluster {
    /// Starts a cluster with the named databases; `None`, and a word about it, where no PostgreSQL is installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub async fn start(databases: &[&str]) -> Result<Option<Self>, Fault> {
        let Some(programs) = Cluster::installed() else {
            skipping("PostgreSQL is not installed");
            return Ok(None);
        };
        let folder = tempfile::tempdir().map_err(Fault::while_doing("make a folder for the cluster"))?;
        let cluster = Cluster::start(&programs, folder.path(), databases).await?;
        Ok(Some(TestCluster { cluster, _folder: folder }))
    }
}

impl std::ops::Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl std::ops::DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

#[expect(clippy::print_stderr, reason = "a test that can not run must say so, and it has nobody else to say it to")]
fn skipping(why: &str) {
    eprintln!("skipped: {why}");
}

/// Returns a port of loopback that nobody listens on just now.
pub fn free_port() -> Result<u16, Fault> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Fault::while_doing("find a free port"))?;
    Ok(listener.local_addr().map_err(Fault::while_doing("find a free port"))?.port())
}

/// Lets other accounts pass through `folder` without listing it.
fn open_for_passage(folder: &Path) -> Result<(), Fault> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
        .map_err(Fault::while_doing(format!("open {}", folder.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_cluster_answers_with_json_types_and_leaves_nothing_behind() {
        let Some(cluster) = TestCluster::start(&["playbooks"]).await.unwrap() else { return };
        let address = cluster.address("playbooks");
        let database = Database::connect(&address).await.unwrap();

        database.execute("CREATE TABLE t (z int, a text); INSERT INTO t VALUES (7, 'x')").await.unwrap();
        let cases = [
            ("SELECT * FROM t", Some(json!(7))),
            ("SELECT count(*) FROM t;", Some(json!(1))),
            ("SELECT 16.50::numeric", Some(json!(16.50))),
            ("SELECT 'x' = 'x' -- a comment\n", Some(json!(true))),
            ("SELECT NULL", Some(json!(null))),
            ("SELECT '{\"k\": [1]}'::jsonb", Some(json!({"k": [1]}))),
            ("SELECT a FROM t WHERE z = 0", None),
            ("WITH q AS (SELECT 'y') SELECT * FROM q", Some(json!("y"))),
        ];
        for (sql, wanted) in cases {
            assert_eq!(database.first_value(sql).await.unwrap(), wanted, "{sql}");
        }
        database.insert("t", &json!([{"z": 1, "a": "it's"}, {"a": null}])).await.unwrap();
        assert_eq!(database.first_value("SELECT count(*) FROM t").await.unwrap(), Some(json!(3)));
        let wrong = database.first_value("SELECT nothing").await.unwrap_err();
        assert!(wrong.0.contains("42703"), "{wrong}");

        let wrong_password = Address { password: "other".to_owned(), ..address.clone() };
        assert!(Database::connect(&wrong_password).await.is_err());
        drop(database);
        let home = cluster.home.clone();
        drop(cluster);
        assert!(Database::connect(&address).await.is_err());
        assert!(!home.exists());
    }

    #[tokio::test]
    async fn a_crash_loses_no_data_and_the_socket_leads_to_the_same_database() {
        let Some(mut cluster) = TestCluster::start(&["a b"]).await.unwrap() else { return };
        let database = Database::connect(&cluster.address("a b")).await.unwrap();
        database.execute("CREATE TABLE t (z int); INSERT INTO t VALUES (1)").await.unwrap();
        cluster.crash();
        assert!(database.execute("SELECT 1").await.is_err());
        assert!(Database::connect(&cluster.address("a b")).await.is_err());

        cluster.restart().await.unwrap();
        let database = Database::connect(&cluster.socket_address("a b")).await.unwrap();
        assert_eq!(database.first_value("SELECT count(*) FROM t").await.unwrap(), Some(json!(1)));
    }
}
