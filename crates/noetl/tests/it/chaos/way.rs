//! A way to somebody that can be cut, frozen, or lead nowhere.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes on from a port that stays to one that may change.
pub(crate) struct Way {
    port: u16,
    /// Where it leads; `None` = whoever comes is turned away.
    to: watch::Sender<Option<u16>>,
    /// Rises when everything that is connected is cut.
    cuts: watch::Sender<u64>,
    /// Bytes stay where they are: both ends still believe in the connection.
    frozen: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Way {
    pub(crate) async fn to(port: Option<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (to, cuts, frozen) = (watch::Sender::new(port), watch::Sender::new(0), watch::Sender::new(false));
        let (leads, cut, still) = (to.subscribe(), cuts.subscribe(), frozen.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Some(port) = *leads.borrow() else { continue };
                let (mut cut, still) = (cut.clone(), still.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let passed = async {
                        let there = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
                        // Whoever speaks through here has said so too: a question would wait for an acknowledgement.
                        here.set_nodelay(true)?;
                        there.set_nodelay(true)?;
                        let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
                        // Whoever ends first ends both: nothing that is tested closes a connection half.
                        tokio::select! {
                            ended = pass(from_here, to_there, still.clone()) => ended,
                            ended = pass(from_there, to_here, still) => ended,
                        }
                    };
                    tokio::select! {
                        _ = passed => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Way { port: own, to, cuts, frozen, task }
    }

    /// Returns the port that stays.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads to another port, for those who come from now on.
    pub(crate) fn lead_to(&self, port: Option<u16>) {
        self.to.send_replace(port);
    }

    /// Ends everything that is connected.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Lets nothing through, or everything again.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 || frozen.wait_for(|frozen| !frozen).await.is_err() {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}
