//! A PostgreSQL cluster for one run: made in a folder, on a free port of loopback, gone at the end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::NoTls;

use crate::Fault;

/// Where Debian and its relatives keep the server's programs, a folder per version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// How long the cluster may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at whether it answers.
const START_POLL: Duration = Duration::from_millis(50);

/// The role that owns everything in the cluster.
const USER: &str = "conformance";
/// Its password. It guards nothing: the cluster is on loopback and lives for minutes.
const PASSWORD: &str = "p-4 'quoted\"";
/// The database that the playbooks use.
pub const DATABASE: &str = "playbooks";
/// The database for the engine's own schema.
pub const ENGINE_DATABASE: &str = "engine";

/// Where a database is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Such as `127.0.0.1`.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Name of the database.
    pub database: String,
}

impl Address {
    /// Returns the address as one line that programs take.
    pub fn url(&self) -> String {
        let escaped: String = form_urlencoded::byte_serialize(self.password.as_bytes()).collect();
        let Address { host, port, user, database, .. } = self;
        format!("postgres://{user}:{}@{host}:{port}/{database}", escaped.replace('+', "%20"))
    }
}

/// A running cluster; dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    postmaster: Child,
    port: u16,
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

    /// Makes a cluster in `folder` and starts it.
    pub async fn start(programs: &Path, folder: &Path) -> Result<Self, Fault> {
        let account = Account::unprivileged()?;
        let home = folder.join("postgres");
        fs::create_dir(&home).map_err(Fault::while_doing(format!("make {}", home.display())))?;
        // The account must get through the folders above; the cluster's own folder stays closed.
        open_for_passage(folder)?;
        account.own(&home)?;

        let password = home.join("password");
        fs::write(&password, PASSWORD).map_err(Fault::while_doing("write the password file"))?;
        account.own(&password)?;
        let data = home.join("data");
        let initdb = account
            .command(&programs.join("initdb"), &home)
            .arg("--pgdata")
            .arg(&data)
            .arg("--pwfile")
            .arg(&password)
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"])
            .stdin(Stdio::null())
            .output()
            .map_err(Fault::while_doing("run initdb"))?;
        if !initdb.status.success() {
            return Err(Fault(format!("initdb failed: {}", String::from_utf8_lossy(&initdb.stderr).trim())));
        }

        let port = free_port()?;
        let log = home.join("log");
        let log_file = fs::File::create(&log).map_err(Fault::while_doing("make the log of the cluster"))?;
        let mut postgres = account.command(&programs.join("postgres"), &home);
        postgres.arg("-D").arg(&data).arg("-k").arg(&home).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        // Nothing here outlives the run, so nothing has to reach the disk.
        for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"] {
            postgres.args(["-c", setting]);
        }
        let postmaster = postgres
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map_err(Fault::while_doing("start postgres"))?;
        let mut cluster = Cluster { postmaster, port };
        cluster.ready(&log).await?;
        Ok(cluster)
    }

    /// Returns how to get into `database`.
    pub fn address(&self, database: &str) -> Address {
        Address {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            database: database.to_owned(),
        }
    }

    /// Waits until the cluster answers and makes its databases.
    async fn ready(&mut self, log: &Path) -> Result<(), Fault> {
        let deadline = Instant::now() + START_TIMEOUT;
        let template = self.address("template1");
        let database = loop {
            let refused = match Database::connect(&template).await {
                Ok(database) => break database,
                Err(refused) => refused,
            };
            let ended = self.postmaster.try_wait().map_err(Fault::while_doing("look after postgres"))?;
            if ended.is_some() || Instant::now() >= deadline {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(Fault(format!("the cluster does not answer: {refused}\n{said}")));
            }
            tokio::time::sleep(START_POLL).await;
        };
        for name in [DATABASE, ENGINE_DATABASE] {
            database.execute(&format!("CREATE DATABASE {name}")).await?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // "Immediate": all backends end at once and give their shared memory back.
        let quit = i32::try_from(self.postmaster.id()).ok().and_then(Pid::from_raw);
        let told = quit.map(|pid| rustix::process::kill_process(pid, Signal::QUIT));
        if told != Some(Ok(())) {
            // It is gone already, then there is nothing to kill either.
            drop(self.postmaster.kill());
        }
        drop(self.postmaster.wait());
    }
}

/// A connection to a database.
#[derive(Debug)]
pub struct Database {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Database {
    /// Connects.
    pub async fn connect(address: &Address) -> Result<Self, Fault> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(&address.user)
            .password(&address.password)
            .dbname(&address.database);
        let (client, connection) = config.connect(NoTls).await.map_err(Fault::while_doing("connect to postgres"))?;
        let connection = tokio::spawn(async move {
            // Its error comes to whoever waits for an answer as well.
            drop(connection.await);
        });
        Ok(Database { client, connection })
    }

    /// Runs one or several statements.
    pub async fn execute(&self, sql: &str) -> Result<(), Fault> {
        self.client.batch_execute(sql).await.map_err(|error| Fault(explained(&error)))
    }

    /// Puts the rows of a JSON list of objects into a table that has their columns.
    pub async fn insert(&self, table: &str, rows: &Value) -> Result<(), Fault> {
        let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::text::json)");
        let inserted = self.client.execute(&sql, &[&rows.to_string()]).await;
        inserted.map(drop).map_err(|error| Fault(explained(&error)))
    }

    /// Returns the first column of the first row as JSON, if there is a row.
    pub async fn first_value(&self, sql: &str) -> Result<Option<Value>, Fault> {
        // The database itself knows best how its types look as JSON; `row_to_json` keeps the order of the columns.
        let query = sql.trim().trim_end_matches(';');
        let wrapped = format!("SELECT row_to_json(answer)::text FROM ({query}\n) AS answer LIMIT 1");
        let row = self.client.query_opt(&wrapped, &[]).await.map_err(|error| Fault(explained(&error)))?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get(0).map_err(|error| Fault(explained(&error)))?;
        let columns: serde_json::Map<String, Value> =
            serde_json::from_str(&text).map_err(Fault::while_doing("read a row"))?;
        Ok(columns.into_iter().next().map(|(_, value)| value))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Returns what the database said, not only that it said something.
fn explained(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
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

/// Who runs the cluster: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// We ourselves.
    Own,
    /// Somebody without rights.
    Other { uid: u32, gid: u32 },
}

impl Account {
    fn unprivileged() -> Result<Self, Fault> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::Own);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Fault::while_doing("read /etc/passwd"))?;
        Account::named(&accounts, "postgres")
            .or_else(|| Account::named(&accounts, "nobody"))
            .ok_or_else(|| Fault("root can not run PostgreSQL, and there is no account `postgres` or `nobody`".into()))
    }

    fn named(accounts: &str, wanted: &str) -> Option<Self> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(wanted) {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account::Other { uid, gid })
        })
    }

    fn own(self, path: &Path) -> Result<(), Fault> {
        match self {
            Account::Own => Ok(()),
            Account::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(Fault::while_doing(format!("hand over {}", path.display()))),
        }
    }

    fn command(self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(home).env_clear().env("HOME", home).env("LC_ALL", "C").env("TZ", "UTC");
        if let Account::Other { uid, gid } = self {
            // The standard library gives up root's other groups by itself when it changes the user.
            command.gid(gid).uid(uid);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:/bin/sh\npostgres:x:103:104:a,b:/v:/bin/sh\n";
        assert_eq!(Account::named(accounts, "postgres"), Some(Account::Other { uid: 103, gid: 104 }));
        assert_eq!(Account::named(accounts, "nobody"), None);
    }

    #[tokio::test]
    async fn a_cluster_answers_with_json_types_and_leaves_nothing_behind() {
        let Some(programs) = Cluster::installed() else { return };
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(&programs, folder.path()).await.unwrap();
        let address = cluster.address(DATABASE);
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
        drop(cluster);
        assert!(Database::connect(&address).await.is_err());
        folder.close().unwrap();
    }
}
