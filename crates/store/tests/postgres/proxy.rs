//! A way to the database that can be cut at the worst moment.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a COMMIT looks like on the wire.
const COMMIT: &[u8] = b"COMMIT\0";

/// What happens to the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It passes.
    None,
    /// It is lost on its way, with its connection.
    Before,
    /// It arrives; its answer is lost, with its connection.
    After,
}

/// Passes bytes on between a store and the database.
pub(crate) struct Proxy {
    port: u16,
    cut: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(database: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicU8::new(Cut::None as u8));
        let shared = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            while let Ok((store, _)) = listener.accept().await {
                let there = SocketAddr::from((Ipv4Addr::LOCALHOST, database));
                let Ok(database) = TcpStream::connect(there).await else { continue };
                tokio::spawn(pass_on(store, database, Arc::clone(&shared)));
            }
        });
        Proxy { port, cut, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the next COMMIT, once.
    pub(crate) fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Returns whether the cut was made.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::None as u8
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut store: TcpStream, mut database: TcpStream, cut: Arc<AtomicU8>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = store.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &asked[..count];
                let mut now = Cut::None as u8;
                if bytes.windows(COMMIT.len()).any(|window| window == COMMIT) {
                    now = cut.swap(Cut::None as u8, Ordering::SeqCst);
                }
                if now == Cut::Before as u8 {
                    return;
                }
                if database.write_all(bytes).await.is_err() {
                    return;
                }
                if now == Cut::After as u8 {
                    until_idle(&mut database).await;
                    return;
                }
            }
            read = database.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if store.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads until the database says that no transaction is open any more.
async fn until_idle(database: &mut TcpStream) {
    const IDLE: &[u8] = b"Z\0\0\0\x05I";
    let mut heard = Vec::new();
    while !heard.windows(IDLE.len()).any(|window| window == IDLE) {
        let mut more = vec![0; 64 * 1024];
        let Ok(count @ 1..) = database.read(&mut more).await else { return };
        heard.extend_from_slice(&more[..count]);
    }
}
