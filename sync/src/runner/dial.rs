//! Dialling: one task a peer, which keeps a link to it as far as it has an address. Failures wait longer and
//! longer, with jitter, so that a network that comes back is not stormed.

use super::Shared;
use super::link;
use super::obstacle::Obstacle;
use super::roster::{PeerState, Target};
use crate::key::PublicKey;
use crate::quic;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(10);
/// In which a machine says that nobody listens, if it says so at all.
const REFUSAL: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A link that held so long was a good one: the next failure begins with a short pause.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// The side with the higher id lets the other dial first, so that most often there is only one link.
const COURTESY: Duration = Duration::from_millis(400);

/// Starts a task for each peer that comes; the tasks of those that go end by themselves.
pub(super) async fn keep_all(shared: Arc<Shared>) {
    let mut changes = shared.roster.changes.subscribe();
    let mut stopped = shared.stopped.subscribe();
    let mut kept: HashMap<PublicKey, tokio::task::JoinHandle<()>> = HashMap::new();
    loop {
        changes.mark_unchanged();
        kept.retain(|_, task| !task.is_finished());
        for key in shared.roster.keys() {
            kept.entry(key).or_insert_with(|| tokio::spawn(keep(shared.clone(), key)));
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    for (_, task) in kept {
        // Each hears of the stop itself; its link must end in order.
        let _ = task.await;
    }
}

async fn keep(shared: Arc<Shared>, key: PublicKey) {
    let mut pause = FIRST_PAUSE;
    let mut waits =
        Waits { paused: shared.paused.subscribe(), stopped: shared.stopped.subscribe() };
    let mut is_first = true;
    // Since when there is a link that the other side dialled.
    let mut linked_at: Option<Instant> = None;
    while let Some(target) = shared.roster.target(&key) {
        if shared.is_stopped() {
            return;
        }
        if *waits.paused.borrow_and_update() {
            let why = (Obstacle::Paused, "links are paused on this node");
            shared.roster.note(&key, PeerState::Paused, Some(why));
            waits.news(&target, LONGEST_PAUSE).await;
            is_first = true;
            continue;
        }
        if !target.is_linked
            && let Some(obstacle) = shared.roster.shut_out(&key)
        {
            let reason = match obstacle {
                Obstacle::GrantExpired => "the time is over for which it may do anything here",
                _ => "it may do nothing here any more",
            };
            shared.roster.note(&key, PeerState::Waiting, Some((obstacle, reason)));
            waits.news(&target, LONGEST_PAUSE).await;
            continue;
        }
        let places = places(&shared, &target);
        if target.is_linked {
            linked_at.get_or_insert_with(Instant::now);
        } else if let Some(since) = linked_at.take() {
            if since.elapsed() > GOOD_LINK {
                pause = FIRST_PAUSE;
            } else {
                // What ended it may well be there still.
                pause = waits.longer(&target, pause).await;
                continue;
            }
        }
        if target.is_linked || places.is_empty() {
            if !target.is_linked {
                let reason = "this peer has no known address: it has to dial this node";
                let why = (Obstacle::NoAddress, reason);
                shared.roster.note(&key, PeerState::Waiting, Some(why));
            }
            waits.while_linked(&target, LONGEST_PAUSE).await;
            continue;
        }
        if std::mem::take(&mut is_first) && shared.me > key.node_id() {
            waits.courtesy().await;
            continue;
        }
        let begun = Instant::now();
        if dial(&shared, &target, &places).await && begun.elapsed() > GOOD_LINK {
            pause = FIRST_PAUSE;
        }
        pause = waits.longer(&target, pause).await;
    }
}

/// What a dialler waits for.
struct Waits {
    paused: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
}

impl Waits {
    /// Waits for so long, or until another attempt is worth it: true then. The end of a link is no such news: both sides
    /// would dial by turns without end.
    async fn news(&mut self, target: &Target, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = target.wake.notified() => true,
            _ = self.paused.changed() => true,
            _ = self.stopped.wait_for(|stopped| *stopped) => true,
        }
    }

    /// Lets the other side dial first. Whoever asks for a link asks both sides of it, and gets two if neither waits.
    async fn courtesy(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(COURTESY) => {}
            _ = self.paused.changed() => {}
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    /// As `news`, or until the link has ended.
    async fn while_linked(&mut self, target: &Target, pause: Duration) {
        tokio::select! {
            _ = self.news(target, pause) => {}
            () = target.ended.notified() => {}
        }
    }

    /// Waits for about so long, or until there is news. How long to wait the next time.
    async fn longer(&mut self, target: &Target, pause: Duration) -> Duration {
        let is_news = self.news(target, jittered(pause)).await;
        if is_news { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) }
    }
}

/// Where to look for a peer: at the address that is known, then where it was heard on this network.
fn places(shared: &Shared, target: &Target) -> Vec<String> {
    let heard = shared.nearby.as_ref().map(|nearby| nearby.addrs_of(target.key.node_id()));
    let heard = heard.into_iter().flatten().map(|addr| addr.to_string());
    let mut places: Vec<String> = target.address.clone().into_iter().collect();
    places.extend(heard.filter(|addr| target.address.as_ref() != Some(addr)));
    places
}

/// True if there was a link; then it has ended.
async fn dial(shared: &Arc<Shared>, target: &Target, places: &[String]) -> bool {
    shared.roster.note(&target.key, PeerState::Dialling, None);
    let mut stopped = shared.stopped.subscribe();
    let dialled = tokio::select! {
        dialled = shared.endpoint.dial_any(places, &target.key, TIMEOUT) => dialled,
        refused = refusal(places) => Err(refused),
        _ = stopped.wait_for(|stopped| *stopped) => return false,
    };
    match dialled {
        Ok(link) => {
            link::run(shared.clone(), link, shared.me).await;
            true
        }
        Err(error) => {
            tracing::debug!(node = %target.key.node_id(), %error, "a peer was not reached");
            let (obstacle, reason) = (Obstacle::of(&error), error.to_string());
            shared.roster.note(&target.key, PeerState::Waiting, Some((obstacle, &reason)));
            false
        }
    }
}

/// Comes to an end only if there is one place to look at, and the machine there says that nobody listens. A link does
/// not tell: it goes on sending until its time is over.
async fn refusal(places: &[String]) -> quic::Error {
    if let [place] = places
        && let Ok(true) = is_refused(place).await
    {
        return quic::Error::NobodyListens { addr: place.clone() };
    }
    std::future::pending().await
}

/// One byte, which a node that listens leaves unanswered.
async fn is_refused(place: &str) -> std::io::Result<bool> {
    let Some(addr) = tokio::net::lookup_host(place).await?.next() else { return Ok(false) };
    let any: SocketAddr = if addr.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    socket.send(&[0]).await?;
    let heard = tokio::time::timeout(REFUSAL, socket.recv(&mut [0])).await;
    Ok(matches!(heard, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused))
}

/// Between half and one and a half of it.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without random bytes all pauses are equal, which is no harm.
    let _ = getrandom::fill(&mut bytes);
    pause / 2 + pause.mul_f64(f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests;
