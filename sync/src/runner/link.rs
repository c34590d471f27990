//! One link: its frames go through bounded queues to the thread that runs its session, and the session's frames
//! back. Ends when either side does, when the peer is removed, when links are paused, when the node stops.

use super::Shared;
use super::drive::{self, Drive, Input, Outputs, Room, Traffic};
use super::obstacle::{Ended, Obstacle};
use super::roster::{Cut, End, Place};
use crate::blob::Within;
use crate::quic::{CloseCode, Link, LinkReceiver, LinkSender};
use atoll_storage::tx::Tx;
use atoll_storage::{NodeId, Rights, Store, peer, reference};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// What waits for the session, in number; frames among it by their size too.
const QUEUE: usize = 32;
const TICK: Duration = Duration::from_millis(500);
/// After a commit was told to the session, those within this time are told as one.
const COALESCE: Duration = Duration::from_millis(5);

/// In which the first of two processes with one key must show that it lives.
const PROBE: Duration = Duration::from_secs(4);

/// Answers the links that peers open.
pub(super) async fn answer(shared: Arc<Shared>) {
    let mut stopped = shared.stopped.subscribe();
    loop {
        let link = tokio::select! {
            link = shared.endpoint.accept() => link,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Some(link) = link else { return };
        let dialler = link.peer.node_id();
        shared.spawn(run(shared.clone(), link, dialler));
    }
}

/// Runs a link to its end.
pub(super) async fn run(shared: Arc<Shared>, link: Link, dialler: NodeId) {
    if *shared.paused.borrow() {
        link.close(CloseCode::BUSY, "links are paused on this node");
        return;
    }
    let node = link.peer.node_id();
    if let Some(other) = shared.roster.other_process(&link.peer, link.process)
        && other.remote != link.remote
        && other.pulse.beats(PROBE).await
    {
        return turn_copy_away(&shared, &link, &other);
    }
    let end = End { process: link.process, remote: link.remote, pulse: link.send.pulse() };
    let mut place = match shared.roster.claim(link.peer, dialler, Some(end)) {
        Ok(place) => place,
        Err(reason) => {
            link.close(CloseCode::DONE, reason);
            return;
        }
    };
    tracing::info!(%node, remote = %link.remote, "linked to a peer");
    note_contact(&shared.store, node).await;
    let ended = talk(&shared, link, &mut place).await;
    tracing::info!(%node, reason = ended.reason, "the link to a peer has ended");
    note_contact(&shared.store, node).await;
    shared.roster.release(&place, &ended);
}

/// Two processes run with one key. The one that was there first stays; the other is told its name.
fn turn_copy_away(shared: &Shared, link: &Link, first: &End) {
    let node = link.peer.node_id();
    let name = shared.roster.status_of(&link.peer).map_or_else(String::new, |status| status.name);
    if shared.roster.note_copy(&link.peer, link.remote) {
        tracing::error!(
            %node, name, first = %first.remote, second = %link.remote,
            "two processes run with one key: a data folder was copied. The second one is turned away; give it a new folder and let it join"
        );
    }
    let told = format!(
        "this is a copy of {name}, which runs at {}: give this one a new data folder and let it join",
        first.remote
    );
    link.close(CloseCode::COPY, &told);
}

async fn note_contact(store: &Store, node: NodeId) {
    if let Err(error) = store.write(move |tx: &mut Tx| peer::note_contact(tx, node)).await {
        tracing::debug!(%node, %error, "the time of a contact was not kept");
    }
}

/// Why it ended, in plain words.
async fn talk(shared: &Arc<Shared>, link: Link, place: &mut Place) -> Ended {
    let (blobs, side) = (shared.blobs.clone(), link.side_streams());
    let (node, number, streams) = (place.key.node_id(), place.number, side.clone());
    let lets = shared.roster.may(&place.key);
    let within = within(&shared.store, &lets);
    let beside = tokio::spawn(async move {
        blobs.run_link(node, number, streams, within).await;
    });
    let Link { send, recv, .. } = link;
    let (input, inputs) = mpsc::channel(QUEUE);
    let (output, outputs) = drive::queue();
    let (hang_up, hung_up) = oneshot::channel();
    let traffic = Arc::new(Traffic::default());
    let reader = tokio::spawn(read(recv, input.clone(), hung_up, traffic.clone()));
    let writer = tokio::spawn(write(send, outputs, traffic.clone()));
    shared.roster.note_asks(place, input.downgrade());
    let ticker = tokio::spawn(tick(shared.store.clone(), input));
    let drive = Drive {
        store: shared.store.clone(),
        clock: shared.clock.clone(),
        name: shared.name.clone(),
        place: place.clone(),
        lets,
        roster: shared.roster.clone(),
        output,
        traffic,
        refused: 0,
    };
    let (done, mut ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("atoll-link".to_owned());
    if let Err(error) = thread.spawn(move || done.send(drive.run(inputs))) {
        beside.abort();
        return Ended::session(format!("no thread could be started for the link: {error}"));
    }
    let (mut paused, mut stopped) = (shared.paused.subscribe(), shared.stopped.subscribe());
    let mut has_ended = false;
    let how = tokio::select! {
        how = &mut ended => {
            has_ended = true;
            how.unwrap_or_else(|_| Ended::session("the session failed"))
        }
        cut = place.cut.wait_for(Option::is_some) => {
            let (code, reason, obstacle) = match cut.ok().and_then(|cut| *cut) {
                Some(Cut::Replaced) => {
                    (CloseCode::DONE, "another link took its place", Obstacle::Ended)
                }
                Some(Cut::Revoked) => {
                    (CloseCode::REVOKED, "the peer was removed everywhere", Obstacle::Ended)
                }
                Some(Cut::Granted) => {
                    (CloseCode::DONE, "the peer may do something else from now on", Obstacle::Ended)
                }
                Some(Cut::Withdrawn) => {
                    let (code, obstacle) = (CloseCode::GRANT_WITHDRAWN, Obstacle::GrantWithdrawn);
                    (code, "the peer may do nothing here any more", obstacle)
                }
                Some(Cut::Removed) | None => {
                    (CloseCode::DONE, "the peer was removed", Obstacle::Ended)
                }
            };
            Ended::new(code, reason, obstacle)
        }
        _ = paused.wait_for(|paused| *paused) => {
            Ended::new(CloseCode::BUSY, "links are paused on this node", Obstacle::Paused)
        }
        _ = stopped.wait_for(|stopped| *stopped) => {
            Ended::new(CloseCode::SHUTDOWN, "the node is stopping", Obstacle::Ended)
        }
    };
    let _ = hang_up.send((how.code, how.reason.clone()));
    beside.abort();
    ticker.abort();
    let _ = reader.await;
    // If the reader heard the end from the other side, nobody has closed this one.
    side.close(how.code, &how.reason);
    writer.abort();
    if !has_ended {
        // Its queues are closed now: the session ends as soon as it has done what it is at.
        let _ = ended.await;
    }
    how
}

/// Which blobs a peer may hear of, if not of all: those that records name which it may read.
fn within(store: &Store, lets: &Rights) -> Option<Within> {
    if lets.is_whole() {
        return None;
    }
    let (store, lets) = (store.clone(), lets.clone());
    Some(Arc::new(move |blob| {
        let streams = store.read(|reader| reference::streams_of(reader, blob));
        // What cannot be looked up is not told.
        streams.is_ok_and(|streams| streams.iter().any(|stream| lets.reads(stream)))
    }))
}

async fn read(
    mut recv: LinkReceiver,
    input: mpsc::Sender<Input>,
    mut hung_up: oneshot::Receiver<(CloseCode, String)>,
    traffic: Arc<Traffic>,
) {
    let room = Room::new();
    loop {
        let next = tokio::select! {
            biased;
            why = &mut hung_up => {
                if let Ok((code, reason)) = why {
                    recv.close(code, &reason);
                }
                return;
            }
            next = recv.recv() => next,
        };
        traffic.received_bytes.store(recv.received_bytes(), Ordering::Relaxed);
        // While the session is busy the peer waits; a hang-up does not.
        let told = match next {
            Ok(Some(frame)) => tokio::select! {
                waiting = room.take(frame) => Input::Frame(waiting),
                why = &mut hung_up => {
                    if let Ok((code, reason)) = why {
                        recv.close(code, &reason);
                    }
                    return;
                }
            },
            Ok(None) => Input::Lost(Ended::session("the other node ended the link")),
            Err(error) => Input::Lost(error.into()),
        };
        let is_last = matches!(told, Input::Lost(_));
        tokio::select! {
            sent = input.send(told) => if sent.is_err() { return },
            why = &mut hung_up => {
                if let Ok((code, reason)) = why {
                    recv.close(code, &reason);
                }
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

async fn write(mut send: LinkSender, mut outputs: Outputs, traffic: Arc<Traffic>) {
    while let Some(frame) = outputs.next().await {
        if send.send(&frame).await.is_err() {
            // The reader is told why.
            return;
        }
        traffic.sent_bytes.store(send.sent_bytes(), Ordering::Relaxed);
        traffic.round_trip_us.store(send.round_trip().as_micros() as u64, Ordering::Relaxed);
    }
    // The end of the stream would be heard before the reason for which the link is closed: whoever closes it ends this.
    std::future::pending::<()>().await;
}

/// Wakes the session twice a second, and with each commit: at once with one that comes alone, soon with one of many.
async fn tick(store: Store, input: mpsc::Sender<Input>) {
    let mut commits = store.subscribe();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_commit = Instant::now();
    loop {
        let told = tokio::select! {
            _ = ticks.tick() => Input::Tick,
            changed = commits.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep_until(next_commit).await;
                commits.mark_unchanged();
                next_commit = Instant::now() + COALESCE;
                Input::Committed
            }
        };
        if input.send(told).await.is_err() {
            return;
        }
    }
}
