//! Connections: where the database is, how it is spoken to, and how a session is set up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error;
use crate::StoreError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may be silent before it is asked whether it still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged before the connection counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a call waits for a free connection.
const POOL_WAIT: Duration = Duration::from_secs(30);
/// Oldest PostgreSQL that is spoken to.
const SERVER_MIN: i32 = 140_000;

/// How sessions that read and write the tables are set up.
///
/// Plans are made once and from indexes alone, so that they stay good while a table grows under them. A session that
/// stops in the middle of a transaction (its server was suspended) is ended, so that it holds no head for ever.
const SESSION: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET jit = off; SET synchronous_commit = on; SET TimeZone = 'UTC'; \
     SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '30s'; SET default_transaction_isolation = \
     'read committed'; SET search_path = pg_catalog";
/// How sessions for what takes long are set up: the planner chooses.
const SLOW_SESSION: &str = "SET jit = off; SET TimeZone = 'UTC'; SET idle_in_transaction_session_timeout = '60s'; \
     SET lock_timeout = '10s'; SET search_path = pg_catalog";

/// Where a database is and how to get in, from a URL `postgres://user:password@host:port/database?…`.
///
/// Beside what the driver knows, `sslrootcert=FILE` names the certificates that are trusted instead of the system's.
/// A certificate is always checked. Without `sslmode`, connections are encrypted unless they stay on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    config: Config,
    root_certificates: Option<PathBuf>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl FromStr for Address {
    type Err = StoreError;

    fn from_str(url: &str) -> Result<Self, StoreError> {
        // The text itself may hold a password, so no error repeats it.
        let wrong = |what: String| StoreError::Closed(format!("the database URL can not be read: {what}"));
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it must begin with `postgres://`".into()));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut root_certificates = None;
        let mut mode = None;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslrootcert", file)) => root_certificates = Some(PathBuf::from(unescaped(file))),
                Some(("sslmode", "disable")) => mode = Some(SslMode::Disable),
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = Some(SslMode::Require),
                Some(("sslmode", "allow" | "prefer")) => {}
                Some(("sslmode", other)) => return Err(wrong(format!("`{other}` is no sslmode"))),
                _ => kept.push(pair),
            }
        }
        let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        let mut config = Config::from_str(&url).map_err(|error| wrong(error::connection(&error)))?;
        let local = config.get_hosts().iter().all(is_local);
        config.ssl_mode(mode.unwrap_or(if local { SslMode::Disable } else { SslMode::Require }));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("noetl");
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_MAX);
        }
        Ok(Address { config, root_certificates })
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// Undoes percent-encoding; what is none stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Address {
    /// Returns the address without its password, for people.
    pub fn shown(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "?".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("postgres://{host}:{port}/{}", self.config.get_dbname().unwrap_or(""))
    }

    /// Returns every host with its port: who is asked, in turn.
    fn peers(&self) -> String {
        let ports = self.config.get_ports();
        // One port is that of all hosts.
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let peer = |(at, host): (usize, &Host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}/.s.PGSQL.{}", path.display(), port(at)),
        };
        self.config.get_hosts().iter().enumerate().map(peer).collect::<Vec<_>>().join(", ")
    }

    fn tls(&self) -> Result<Option<MakeRustlsConnect>, StoreError> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            return Ok(None);
        }
        let refused = |what: String| StoreError::Closed(format!("no trusted certificates: {what}"));
        let mut roots = RootCertStore::empty();
        match &self.root_certificates {
            Some(file) => read_certificates(file, &mut roots).map_err(refused)?,
            None => {
                let found = rustls_native_certs::load_native_certs();
                if roots.add_parsable_certificates(found.certs).0 == 0 {
                    return Err(refused(format!("{:?}", found.errors)));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }

    /// Connects once, outside of any pool; what the server says meanwhile is passed to `hear`.
    pub(super) async fn connect(
        &self,
        hear: impl FnMut(tokio_postgres::AsyncMessage) + Send + 'static,
    ) -> Result<(Client, JoinHandle<()>), StoreError> {
        // The driver's own limit ends with the handshake of TCP; a peer that then says nothing is no better.
        let made = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_patiently(hear)).await;
        let made = made.unwrap_or_else(|_| Err(StoreError::Unavailable("the database does not answer".into())));
        made.map_err(|error| match error {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", self.peers())),
            other => other,
        })
    }

    async fn connect_patiently(
        &self,
        hear: impl FnMut(tokio_postgres::AsyncMessage) + Send + 'static,
    ) -> Result<(Client, JoinHandle<()>), StoreError> {
        let (client, task) = match self.tls()? {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, tokio::spawn(listen(connection, hear)))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls).await?;
                (client, tokio::spawn(listen(connection, hear)))
            }
        };
        Ok((client, task))
    }

    /// Asks the server to break off what `token` stands for.
    pub(super) async fn break_off(&self, token: tokio_postgres::CancelToken) -> Result<(), StoreError> {
        match self.tls()? {
            None => token.cancel_query(NoTls).await?,
            Some(tls) => token.cancel_query(tls).await?,
        }
        Ok(())
    }

    fn pool(&self, size: usize, session: &'static str) -> Result<Pool, StoreError> {
        // No look before each use: a session that has broken fails, and is then told apart.
        let manage = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match self.tls()? {
            None => Manager::from_config(self.config.clone(), NoTls, manage),
            Some(tls) => Manager::from_config(self.config.clone(), tls, manage),
        };
        let set_up = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move { client.batch_execute(session).await.map_err(HookError::Backend) })
        });
        let timeouts =
            Timeouts { wait: Some(POOL_WAIT), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        Pool::builder(manager)
            .max_size(size.max(1))
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(set_up)
            .build()
            .map_err(|error| StoreError::Closed(error.to_string()))
    }

    /// Returns connections for what is asked and written all the time.
    pub(super) fn quick(&self, size: usize) -> Result<Pool, StoreError> {
        self.pool(size, SESSION)
    }

    /// Returns connections for what takes long.
    pub(super) fn slow(&self, size: usize) -> Result<Pool, StoreError> {
        self.pool(size, SLOW_SESSION)
    }
}

fn read_certificates(file: &Path, roots: &mut RootCertStore) -> Result<(), String> {
    let said = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| said(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| said(&error))?;
        roots.add(certificate).map_err(|error| said(&error))?;
    }
    if roots.is_empty() { Err(said(&"it holds none")) } else { Ok(()) }
}

async fn listen<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    mut hear: impl FnMut(tokio_postgres::AsyncMessage),
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // An error here comes to whoever waits for an answer as well.
    while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        hear(message);
    }
}

/// Refuses a server that is too old, or that does not speak Unicode.
pub(super) async fn inspect(client: &Client) -> Result<(), StoreError> {
    let query = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
                 current_setting('server_encoding')";
    let row = client.query_one(query, &[]).await?;
    let (number, version, encoding): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if number < SERVER_MIN {
        return Err(StoreError::Closed(format!("PostgreSQL {version} is too old; it must be at least 14")));
    }
    if encoding != "UTF8" {
        return Err(StoreError::Closed(format!("the database is encoded as {encoding}; it must be UTF8")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address: Address = "postgres://ann:s3cret@db.example:5433/flows".parse().unwrap();
        assert_eq!(format!("{address:?}"), "postgres://db.example:5433/flows");
        let Err(StoreError::Closed(why)) = "postgres://ann:s3cret@db.example:port/flows".parse::<Address>() else {
            panic!()
        };
        assert!(!why.contains("s3cret"), "{why}");
    }

    #[test]
    fn every_host_is_named_with_its_port() {
        for (url, peers) in [
            ("postgres://ann:s3cret@db.example/x", "db.example:5432"),
            ("postgres://a:5433,b:5434/x", "a:5433, b:5434"),
            ("postgres://%2Frun%2Fpostgresql/x", "/run/postgresql/.s.PGSQL.5432"),
        ] {
            assert_eq!(url.parse::<Address>().unwrap().peers(), peers);
        }
    }

    #[test]
    fn what_leaves_this_machine_is_encrypted() {
        for (url, mode) in [
            ("postgres://localhost/x", SslMode::Disable),
            ("postgres://127.0.0.1/x", SslMode::Disable),
            ("postgres://%2Frun%2Fpostgresql/x", SslMode::Disable),
            ("postgres://db.example/x", SslMode::Require),
            ("postgres://db.example/x?sslmode=prefer", SslMode::Require),
            ("postgres://db.example/x?sslmode=disable&connect_timeout=3", SslMode::Disable),
            ("postgres://localhost/x?sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(url.parse::<Address>().unwrap().config.get_ssl_mode(), mode, "{url}");
        }
        assert!("postgres://localhost/x?sslmode=maybe".parse::<Address>().is_err());
        assert!("mysql://localhost/x".parse::<Address>().is_err());
    }

    #[test]
    fn a_root_certificate_is_named_in_the_url() {
        let address: Address = "postgres://db.example/x?sslrootcert=/etc/my%20ca.pem".parse().unwrap();
        assert_eq!(address.root_certificates.as_deref(), Some(Path::new("/etc/my ca.pem")));
        assert!(matches!(address.tls(), Err(StoreError::Closed(_))));
    }
}
