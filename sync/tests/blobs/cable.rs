//! A cable between two peers that holds back what comes over it once enough has come.

use super::{LOOPBACK, Peer, SOON};
use atoll_sync::blob::Exchange;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

const DATAGRAM_BYTES: usize = 1 << 16;

/// Cut when it is dropped.
pub struct Cable {
    /// Where the peer that fetches dials the other one.
    pub address: SocketAddr,
    fetching: Exchange,
    hold_at: Arc<AtomicU64>,
    is_held: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Cable {
    pub async fn between(fetching: &Peer, serving: &Peer) -> Self {
        let near = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let far = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        far.connect(serving.endpoint.local_addr().unwrap()).await.unwrap();
        let address = near.local_addr().unwrap();
        let fetching = fetching.exchange.clone();
        let hold_at = Arc::new(AtomicU64::new(u64::MAX));
        let is_held = watch::Sender::new(false);
        let caller = watch::Sender::new(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(go(near.clone(), far.clone(), caller.clone()));
        let (exchange, limit, held) = (fetching.clone(), hold_at.clone(), is_held.clone());
        tasks.spawn(async move {
            let mut bytes = vec![0; DATAGRAM_BYTES];
            while let Ok(length) = far.recv(&mut bytes).await {
                if exchange.figures().fetched_bytes >= limit.load(Ordering::Relaxed) {
                    held.send_replace(true);
                    held.subscribe().wait_for(|is_held| !is_held).await.unwrap();
                }
                let to: Option<SocketAddr> = *caller.borrow();
                let _ = near.send_to(&bytes[..length], to.unwrap()).await;
            }
        });
        Self { address, fetching, hold_at, is_held, _tasks: tasks }
    }

    /// Once so many bytes of blobs more have been fetched. What was asked for until then may be on its way: 8 MiB a link.
    pub fn hold_after(&self, bytes: u64) {
        let at = self.fetching.figures().fetched_bytes + bytes;
        self.hold_at.store(at, Ordering::Relaxed);
    }

    /// Waits until nothing comes over it any more.
    pub async fn held(&self) {
        let mut is_held = self.is_held.subscribe();
        let held = is_held.wait_for(|is_held| *is_held);
        tokio::time::timeout(SOON, held).await.expect("so much comes").unwrap();
    }

    pub fn release(&self) {
        self.hold_at.store(u64::MAX, Ordering::Relaxed);
        self.is_held.send_replace(false);
    }
}

async fn go(near: Arc<UdpSocket>, far: Arc<UdpSocket>, caller: watch::Sender<Option<SocketAddr>>) {
    let mut bytes = vec![0; DATAGRAM_BYTES];
    while let Ok((length, from)) = near.recv_from(&mut bytes).await {
        caller.send_replace(Some(from));
        let _ = far.send(&bytes[..length]).await;
    }
}
