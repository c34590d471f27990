//! A path between two UDP sockets, made narrow, long and lossy: for measuring where the kernel has no such queue.
//! Never looks into what it carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One way of a path is like this; the other alike.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub delay: Duration,
    pub bytes_per_s: u64,
    /// Of a thousand packets.
    pub lost: u64,
    /// What waits where the path narrows; more is dropped.
    pub queue: Duration,
}

/// The address that leads to `target` over such a path.
pub async fn start(target: SocketAddr, shape: Shape) -> std::io::Result<SocketAddr> {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let address = front.local_addr()?;
    tokio::spawn(async move {
        let mut callers: Vec<(SocketAddr, Lane)> = Vec::new();
        let mut packet = vec![0; 65_536];
        while let Ok((length, caller)) = front.recv_from(&mut packet).await {
            if !callers.iter().any(|(known, _)| *known == caller) {
                let Ok(lane) = open(&front, caller, target, shape).await else { return };
                callers.push((caller, lane));
            }
            for (_, lane) in callers.iter_mut().filter(|(known, _)| *known == caller) {
                lane.push(&packet[..length]);
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
) -> std::io::Result<Lane> {
    let behind = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let there = Lane::new(shape, behind.clone(), target);
    let mut back = Lane::new(shape, front.clone(), caller);
    tokio::spawn(async move {
        let mut packet = vec![0; 65_536];
        while let Ok((length, _)) = behind.recv_from(&mut packet).await {
            back.push(&packet[..length]);
        }
    });
    Ok(there)
}

struct Lane {
    shape: Shape,
    free_at: Instant,
    chance: u64,
    due: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
}

impl Lane {
    fn new(shape: Shape, socket: Arc<UdpSocket>, to: SocketAddr) -> Self {
        let (due, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        tokio::spawn(async move {
            while let Some((at, packet)) = waiting.recv().await {
                tokio::time::sleep_until(at).await;
                let _ = socket.send_to(&packet, to).await;
            }
        });
        Self { shape, free_at: Instant::now(), chance: 0x9E37_79B9_7F4A_7C15, due }
    }

    fn push(&mut self, packet: &[u8]) {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let now = Instant::now();
        let begin = self.free_at.max(now);
        if self.chance % 1_000 < self.shape.lost || begin - now > self.shape.queue {
            return;
        }
        let took_us = packet.len() as u64 * 1_000_000 / self.shape.bytes_per_s;
        self.free_at = begin + Duration::from_micros(took_us);
        let _ = self.due.send((self.free_at + self.shape.delay, packet.to_vec()));
    }
}
