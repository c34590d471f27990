//! A path between two UDP sockets, made narrow, long and lossy in this process: for measuring where there are no network
//! namespaces. Never looks into what it carries.

use crate::shape::{Lane, Shape};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The address that leads to `target` over such a path.
pub async fn start(target: SocketAddr, shape: Shape) -> std::io::Result<SocketAddr> {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let address = front.local_addr()?;
    tokio::spawn(async move {
        let mut callers: Vec<(SocketAddr, Way)> = Vec::new();
        let mut packet = vec![0; 65_536];
        while let Ok((length, caller)) = front.recv_from(&mut packet).await {
            if !callers.iter().any(|(known, _)| *known == caller) {
                let Ok(way) = open(&front, caller, target, shape).await else { return };
                callers.push((caller, way));
            }
            for (_, way) in callers.iter_mut().filter(|(known, _)| *known == caller) {
                way.push(&packet[..length]);
            }
        }
    });
    Ok(address)
}

/// The way there; the way back runs by itself.
async fn open(
    front: &Arc<UdpSocket>,
    caller: SocketAddr,
    target: SocketAddr,
    shape: Shape,
) -> std::io::Result<Way> {
    let behind = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let there = Way::new(shape, 1, behind.clone(), target);
    let mut back = Way::new(shape, 2, front.clone(), caller);
    tokio::spawn(async move {
        let mut packet = vec![0; 65_536];
        while let Ok((length, _)) = behind.recv_from(&mut packet).await {
            back.push(&packet[..length]);
        }
    });
    Ok(there)
}

struct Way {
    lane: Lane,
    due: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
}

impl Way {
    fn new(shape: Shape, seed: u64, socket: Arc<UdpSocket>, to: SocketAddr) -> Self {
        let (due, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        tokio::spawn(async move {
            while let Some((at, packet)) = waiting.recv().await {
                tokio::time::sleep_until(at).await;
                let _ = socket.send_to(&packet, to).await;
            }
        });
        Self { lane: Lane::new(shape, Instant::now().into_std(), seed), due }
    }

    fn push(&mut self, packet: &[u8]) {
        if let Some(at) = self.lane.pass(Instant::now().into_std(), packet.len()) {
            let _ = self.due.send((at.into(), packet.to_vec()));
        }
    }
}
