//! Blobs between nodes over real UDP sockets on loopback and real files: taken up again, from several at once, from
//! peers that lie, vanish, or have no room.

#[path = "blobs/cable.rs"]
mod cable;

use atoll_storage::blob::{BlobId, Blobs, Verified, tree};
use atoll_sync::blob::{Answer, Exchange, FetchError, Options, Request};
use atoll_sync::key::NodeKey;
use atoll_sync::quic::{Admission, CloseCode, Endpoint, Link, SideStreams, StopCode};
use cable::Cable;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SOON: Duration = Duration::from_secs(60);
const GROUP: u64 = tree::GROUP_BYTES as u64;

struct Peer {
    endpoint: Endpoint,
    exchange: Exchange,
    blobs: Blobs,
    free_bytes: Arc<AtomicU64>,
    folder: TempDir,
}

impl Peer {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Self {
        let blobs = Blobs::open(folder.path()).unwrap();
        let free_bytes = Arc::new(AtomicU64::new(u64::MAX));
        let free = free_bytes.clone();
        let exchange = Exchange::new(Options {
            blobs: blobs.clone(),
            free_bytes: Arc::new(move || Ok(free.load(Ordering::Relaxed))),
            keep_free_bytes: 1_000,
        });
        let admit = Arc::new(|_: &_| Admission::Peer);
        let join: atoll_sync::quic::JoinHandler =
            Arc::new(|_| Box::pin(async { Err("nobody joins here".to_owned()) }));
        let endpoint =
            Endpoint::bind(LOOPBACK, &NodeKey::generate().unwrap(), admit, join).unwrap();
        Self { endpoint, exchange, blobs, free_bytes, folder }
    }

    fn path_of(&self, id: &BlobId) -> PathBuf {
        self.blobs.path(id).unwrap()
    }

    fn begin(&self, id: BlobId) -> JoinHandle<Result<(), FetchError>> {
        let exchange = self.exchange.clone();
        tokio::spawn(async move { exchange.fetch(id, u64::MAX).await })
    }

    async fn fetch(&self, id: BlobId) -> Result<(), FetchError> {
        tokio::time::timeout(SOON, self.exchange.fetch(id, u64::MAX)).await.expect("it ends")
    }

    fn is_intact(&self, id: &BlobId) -> bool {
        self.blobs.verify(id).unwrap() == Verified::Intact
    }
}

/// A link and what runs on it; it is cut when this is dropped.
struct Wire {
    ends: [Link; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
        self.ends.iter().for_each(|end| end.close(CloseCode::DONE, "cut"));
    }
}

/// Of links to one peer, which is the newer.
static LINKS: AtomicU64 = AtomicU64::new(0);

fn run(peer: &Peer, end: &Link) -> JoinHandle<()> {
    run_as(peer, end, LINKS.fetch_add(1, Ordering::Relaxed))
}

fn run_as(peer: &Peer, end: &Link, number: u64) -> JoinHandle<()> {
    let (exchange, node, streams) = (peer.exchange.clone(), end.peer.node_id(), end.side_streams());
    tokio::spawn(async move { exchange.run_link(node, number, streams, None).await })
}

async fn dial(from: &Peer, to: &Peer) -> [Link; 2] {
    dial_at(from, to, to.endpoint.local_addr().unwrap()).await
}

async fn dial_at(from: &Peer, to: &Peer, addr: SocketAddr) -> [Link; 2] {
    let dialled = from.endpoint.dial(addr, &to.endpoint.public_key(), SOON).await.unwrap();
    [dialled, to.endpoint.accept().await.unwrap()]
}

async fn link(a: &Peer, b: &Peer) -> Wire {
    run_both(a, b, dial(a, b).await).await
}

/// `a` is the one that fetches.
async fn link_over(cable: &Cable, a: &Peer, b: &Peer) -> Wire {
    run_both(a, b, dial_at(a, b, cable.address).await).await
}

async fn run_both(a: &Peer, b: &Peer, ends: [Link; 2]) -> Wire {
    let tasks = [run(a, &ends[0]), run(b, &ends[1])];
    let is_linked = |peer: &Peer, end: &Link| {
        peer.exchange.peers().iter().any(|(node, _)| *node == end.peer.node_id())
    };
    until(|| is_linked(a, &ends[0]) && is_linked(b, &ends[1])).await;
    Wire { ends, tasks }
}

/// Looks again and again until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it comes about");
}

fn bytes_of(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_link_that_was_replaced_before_it_began_takes_nobodys_place() {
    let (a, b) = (Peer::new(), Peer::new());
    let id = a.blobs.put(b"a picture").unwrap();
    let (newer, older) = (dial(&a, &b).await, dial(&a, &b).await);
    let _serving = [run(&a, &newer[0]), run(&a, &older[0])];
    let mut changes = b.exchange.changes();
    let _asking = run_as(&b, &newer[1], 2);
    changes.changed().await.unwrap();
    let late = run_as(&b, &older[1], 1);
    changes.changed().await.unwrap();
    older[0].close(CloseCode::DONE, "another link took its place");
    late.await.unwrap();
    b.fetch(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_size_come_whole() {
    let (a, b) = (Peer::new(), Peer::new());
    let _wire = link(&a, &b).await;
    let sizes = [0, 1, 1_023, 16_384, 16_385, 1 << 20, (2 << 20) + 1, (5 << 20) + 12_345];
    for (seed, size) in sizes.into_iter().enumerate() {
        let id = a.blobs.put(&bytes_of(size, seed as u64)).unwrap();
        assert_eq!(b.exchange.find(&[id]).await, (vec![Some(size as u64)], 1));
        b.fetch(id).await.unwrap();
        assert!(b.is_intact(&id), "{size}");
        assert_eq!(std::fs::read(b.path_of(&id)).unwrap(), bytes_of(size, seed as u64));
    }
    assert_eq!(b.blobs.partials().unwrap(), []);
    assert!(b.exchange.transfers().is_empty());
    let nowhere = BlobId::of(b"nobody has this");
    assert_eq!(b.fetch(nowhere).await, Err(FetchError::Nowhere { asked: 1 }));
    let large = a.blobs.put(&bytes_of(3 << 20, 77)).unwrap();
    let refused = b.exchange.fetch(large, 1 << 20).await;
    assert_eq!(refused, Err(FetchError::TooLarge { size_bytes: 3 << 20 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_ask_for_one_blob_one_fetches_it() {
    let (a, b) = (Peer::new(), Peer::new());
    let _wire = link(&a, &b).await;
    let size = 3 << 20;
    let id = a.blobs.put(&bytes_of(size, 1)).unwrap();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let exchange = b.exchange.clone();
            tokio::spawn(async move { exchange.fetch(id, u64::MAX).await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(b.exchange.figures().fetched_bytes, size as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_transfer_asks_only_for_what_is_missing_when_it_is_taken_up() {
    let (a, b) = (Peer::new(), Peer::new());
    let size = 48 << 20;
    let id = a.blobs.put(&bytes_of(size, 2)).unwrap();
    let cable = Cable::between(&b, &a).await;
    let wire = link_over(&cable, &b, &a).await;
    cable.hold_after(16 << 20);
    let fetching = b.begin(id);
    cable.held().await;
    drop(wire);
    assert_eq!(fetching.await.unwrap(), Err(FetchError::Gone));
    let first = b.exchange.figures().fetched_bytes;
    assert!(b.blobs.path(&id).is_none() && first >= 16 << 20 && first < size as u64);

    // Another process.
    let Peer { folder, .. } = b;
    let b = Peer::in_folder(folder);
    let _wire = link(&b, &a).await;
    b.fetch(id).await.unwrap();
    assert!(b.is_intact(&id));
    let again = b.exchange.figures().fetched_bytes;
    // Of each slice that was cut, a group may have been on its way.
    assert!(again <= size as u64 - first + 64 * GROUP, "{again} came after {first} of {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_send_parts_of_one_blob_and_one_that_goes_is_made_up_for() {
    let (a, b, c) = (Peer::new(), Peer::new(), Peer::new());
    let size = 48 << 20;
    let id = a.blobs.put(&bytes_of(size, 3)).unwrap();
    b.blobs.put(&bytes_of(size, 3)).unwrap();
    let cables = (Cable::between(&c, &a).await, Cable::between(&c, &b).await);
    let wires = (link_over(&cables.0, &c, &a).await, link_over(&cables.1, &c, &b).await);
    c.fetch(id).await.unwrap();
    assert!(c.is_intact(&id));
    let served = [&a, &b].map(|peer| peer.exchange.figures().served_bytes);
    assert!(served.iter().all(|bytes| *bytes > size as u64 / 10), "{served:?}");

    c.blobs.remove(&id).unwrap();
    cables.0.hold_after(8 << 20);
    cables.1.hold_after(8 << 20);
    let fetching = c.begin(id);
    cables.0.held().await;
    cables.1.held().await;
    drop(wires.0);
    cables.1.release();
    fetching.await.unwrap().unwrap();
    assert!(c.is_intact(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_in_the_middle_helps() {
    let (a, b, c) = (Peer::new(), Peer::new(), Peer::new());
    let size = 32 << 20;
    let id = a.blobs.put(&bytes_of(size, 4)).unwrap();
    b.blobs.put(&bytes_of(size, 4)).unwrap();
    let cable = Cable::between(&c, &a).await;
    let first = link_over(&cable, &c, &a).await;
    cable.hold_after(4 << 20);
    let fetching = c.begin(id);
    cable.held().await;
    let _second = link(&c, &b).await;
    drop(first);
    fetching.await.unwrap().unwrap();
    assert!(c.is_intact(&id) && b.exchange.figures().served_bytes > 0);
}

/// Flips a bit of a blob on the disk of whoever has it.
fn damage(peer: &Peer, id: &BlobId, at: usize) {
    let path = peer.path_of(id);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn false_bytes_cost_a_group_and_their_sender_is_not_asked_again() {
    let (liar, honest, c) = (Peer::new(), Peer::new(), Peer::new());
    let size = 10 << 20;
    let id = liar.blobs.put(&bytes_of(size, 5)).unwrap();
    damage(&liar, &id, 5 << 20);
    let _wire = link(&c, &liar).await;
    assert_eq!(c.fetch(id).await, Err(FetchError::Gone));
    assert_eq!(c.exchange.figures().false_parts, 1);
    // It was told, looked at its disk, and has it no more.
    until(|| liar.blobs.path(&id).is_none()).await;
    assert_eq!(liar.exchange.take_lost(), [id]);

    liar.blobs.put(&bytes_of(size, 5)).unwrap();
    let served = liar.exchange.figures().served_bytes;
    assert_eq!(c.fetch(id).await, Err(FetchError::Nowhere { asked: 1 }));
    honest.blobs.put(&bytes_of(size, 5)).unwrap();
    let _other = link(&c, &honest).await;
    c.fetch(id).await.unwrap();
    assert!(c.is_intact(&id));
    assert_eq!(liar.exchange.figures().served_bytes, served);
    // All that the liar sent and was true had been kept.
    let fetched = c.exchange.figures().fetched_bytes;
    assert_eq!(fetched, size as u64);
}

async fn complain(streams: &SideStreams, id: BlobId) {
    let mut stream = streams.open().await.unwrap();
    stream.send_frame(&Request::Complain { id }.encode()).await.unwrap();
    stream.finish();
    let answer = stream.recv_frame(1 << 10).await.unwrap();
    assert_eq!(Answer::decode(&answer).unwrap(), Answer::Noted);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_complains_of_a_sound_blob_again_and_again_makes_it_be_read_once() {
    let (a, b) = (Peer::new(), Peer::new());
    let sound = a.blobs.put(&bytes_of(1 << 20, 10)).unwrap();
    let damaged = a.blobs.put(&bytes_of(1 << 20, 11)).unwrap();
    damage(&a, &damaged, 100);
    // The end at b is driven by hand.
    let ends = dial(&b, &a).await;
    let _serving = run(&a, &ends[1]);
    let streams = ends[0].side_streams();
    complain(&streams, sound).await;
    until(|| a.exchange.figures().checked == 1).await;
    for _ in 0..10 {
        complain(&streams, sound).await;
    }
    // Looked at after all that came before.
    complain(&streams, damaged).await;
    until(|| a.exchange.take_lost() == [damaged]).await;
    assert_eq!(a.exchange.figures().checked, 2);
    assert!(a.is_intact(&sound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_among_honest_peers_does_not_keep_a_blob_away() {
    let (liar, honest, c) = (Peer::new(), Peer::new(), Peer::new());
    let size = 20 << 20;
    let id = honest.blobs.put(&bytes_of(size, 6)).unwrap();
    liar.blobs.put(&bytes_of(size, 6)).unwrap();
    damage_all(&liar, &id);
    let _wires = (link(&c, &liar).await, link(&c, &honest).await);
    c.fetch(id).await.unwrap();
    assert!(c.is_intact(&id));
    assert!(c.exchange.figures().fetched_bytes == size as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slower_to_answer_than_a_liar_is_waited_for() {
    let (liar, honest, c) = (Peer::new(), Peer::new(), Peer::new());
    let id = honest.blobs.put(&bytes_of(3 << 20, 9)).unwrap();
    liar.blobs.put(&bytes_of(3 << 20, 9)).unwrap();
    damage_all(&liar, &id);
    let _wire = link(&c, &liar).await;
    let ends = dial(&c, &honest).await;
    let _asking = run(&c, &ends[0]);
    until(|| c.exchange.peers().len() == 2).await;
    let fetching = c.begin(id);
    until(|| c.exchange.figures().false_parts > 0).await;
    let _answering = run(&honest, &ends[1]);
    fetching.await.unwrap().unwrap();
    assert!(c.is_intact(&id));
}

/// Flips a bit of every part of it.
fn damage_all(peer: &Peer, id: &BlobId) {
    let path = peer.path_of(id);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.chunks_mut(tree::GROUP_BYTES).for_each(|group| group[0] ^= 1);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_state_that_peers_hear_of_and_that_ends() {
    let (a, b) = (Peer::new(), Peer::new());
    let size = 32 << 20;
    let id = a.blobs.put(&bytes_of(size, 7)).unwrap();
    b.free_bytes.store(1_000_000, Ordering::Relaxed);
    let cable = Cable::between(&b, &a).await;
    let _wire = link_over(&cable, &b, &a).await;
    assert_eq!(b.fetch(id).await, Err(FetchError::DiskFull));
    assert!(b.exchange.is_disk_full());
    until(|| a.exchange.peers()[0].1).await;

    b.free_bytes.store(u64::MAX, Ordering::Relaxed);
    assert!(b.exchange.look_for_room());
    until(|| !a.exchange.peers()[0].1).await;
    cable.hold_after(4 << 20);
    let fetching = b.begin(id);
    cable.held().await;
    b.free_bytes.store(0, Ordering::Relaxed);
    assert_eq!(fetching.await.unwrap(), Err(FetchError::DiskFull));
    cable.release();
    let first = b.exchange.figures().fetched_bytes;
    b.free_bytes.store(u64::MAX, Ordering::Relaxed);
    b.fetch(id).await.unwrap();
    assert!(b.is_intact(&id));
    // Of each slice on its way, what was not written yet comes again.
    let twice = b.exchange.figures().fetched_bytes - size as u64;
    assert!(twice <= 4 * 128 * GROUP, "{first} had come, {twice} came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_would_drop_the_same_blob_neither_promises_it() {
    let (a, b) = (Peer::new(), Peer::new());
    let id = a.blobs.put(b"on both").unwrap();
    let other = a.blobs.put(b"here alone").unwrap();
    b.blobs.put(b"on both").unwrap();
    let _wire = link(&a, &b).await;
    assert_eq!(a.exchange.release(&[id, other]).await, [true, false]);
    assert_eq!(b.exchange.release(&[id]).await, [false]);
    a.exchange.stayed(&[id, other]);
    assert_eq!(b.exchange.release(&[id]).await, [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_turned_away_and_harm_nobody() {
    let (a, b) = (Peer::new(), Peer::new());
    let id = a.blobs.put(&bytes_of(100_000, 8)).unwrap();
    // The end at b is driven by hand.
    let ends = dial(&b, &a).await;
    let _serving = run(&a, &ends[1]);
    let streams = ends[0].side_streams();
    let slice = |runs: &[u8]| [&[1][..], &id.0, runs].concat();
    let hostile = [
        vec![],
        vec![9],
        vec![0, 255],
        vec![0xFF; 2_000],
        [&[0, 253][..], &[0xFF; 8]].concat(),
        slice(&[0]),
        slice(&[1, 0, 0]),
        slice(&[1, 0, 251, 0xFF, 0xFF]),
        slice(&[2, 5, 1, 3, 1]),
        slice(&[1, 253, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
    ];
    for bytes in hostile {
        let mut stream = streams.open().await.unwrap();
        stream.send_frame(&bytes).await.unwrap();
        stream.finish();
        let answer = stream.recv_frame(1 << 10).await;
        assert!(answer.is_err(), "{bytes:?} was answered");
    }
    // Cut in the middle of a length, of a frame, and more than is announced.
    for bytes in [&[3][..], &[3, 0, 0, 0, 1], &[0xFF; 4]] {
        let mut stream = streams.open().await.unwrap();
        stream.send(bytes.to_vec()).await.unwrap();
        stream.finish();
        assert!(stream.recv_frame(1 << 10).await.is_err());
    }
    // Somebody who asks for much and reads nothing, many times over.
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = streams.open().await.unwrap();
        stream.send_frame(&slice(&[1, 0, 7])).await.unwrap();
        open.push(stream);
    }
    open.iter_mut().for_each(|stream| stream.stop(StopCode::FAILED));
    drop(open);
    let _wire = link(&a, &b).await;
    b.fetch(id).await.unwrap();
    assert!(b.is_intact(&id));
}
