//! How fast a blob comes from another node, against one plain QUIC stream of the same two sockets over the same path:
//! both ends in this process, one after the other in turns. A blob's time ends when it is proved, on disk and synced; the
//! plain stream's bytes are thrown away as they come. Beside the blob, small frames go over the link's own stream, as ops do:
//! how long each takes to arrive is told, with a blob beside it and without.
//! Prints one JSON object. `cargo run --release -p atoll-benches --bin blobs [loopback|satellite|wifi|3g|lan] [MIB] [ROUNDS]`

use atoll_benches::relay;
use atoll_benches::shape::{PATHS, Shape};
use atoll_storage::blob::{BlobId, Blobs};
use atoll_sync::blob::Exchange;
use atoll_sync::key::NodeKey;
use atoll_sync::quic::{Admission, Endpoint, Link, LinkReceiver, LinkSender, SideStreams};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: usize = 256;
const ROUNDS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(10);
const WHISPER_EVERY: Duration = Duration::from_millis(20);
const PIECE_BYTES: usize = 512 << 10;
/// As many as a blob's reader takes.
const CHUNKS_AT_ONCE: usize = 64;

struct Peer {
    endpoint: Endpoint,
    exchange: Exchange,
    blobs: Blobs,
    _folder: TempDir,
}

impl Peer {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let blobs = Blobs::open(folder.path()).expect("a folder of blobs");
        let exchange = Exchange::over(blobs.clone(), 0);
        let key = NodeKey::generate().expect("a key");
        let admit = Arc::new(|_: &_| Admission::Peer);
        let join: atoll_sync::quic::JoinHandler =
            Arc::new(|_| Box::pin(async { Err("nobody joins here".to_owned()) }));
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), &key, admit, join);
        Self { endpoint: endpoint.expect("a socket"), exchange, blobs, _folder: folder }
    }
}

async fn link(from: &Peer, to: &Peer, path: Option<Shape>) -> [Link; 2] {
    let mut addr = to.endpoint.local_addr().expect("an address");
    if let Some(shape) = path {
        addr = relay::start(addr, shape).await.expect("a path");
    }
    let dialled = from.endpoint.dial(addr, &to.endpoint.public_key(), TIMEOUT).await;
    [dialled.expect("a link"), to.endpoint.accept().await.expect("its other end")]
}

/// Bytes a second of one stream.
async fn plain(ends: [SideStreams; 2], size: usize) -> f64 {
    let [there, here] = ends;
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        let mut stream = there.open().await.expect("a stream");
        let mut left = size;
        while left > 0 {
            let piece = vec![7; PIECE_BYTES.min(left)];
            left -= piece.len();
            stream.send(piece).await.expect("it is sent");
        }
        stream.finish();
        stream.delivered().await.expect("it arrives");
    });
    let mut stream = here.accept().await.expect("a stream");
    let mut chunks = [const { Bytes::new() }; CHUNKS_AT_ONCE];
    let mut came = 0;
    while let Some(read) = stream.recv_chunks(&mut chunks).await.expect("it comes") {
        came += chunks[..read].iter().map(Bytes::len).sum::<usize>();
    }
    assert_eq!(came, size);
    let took = begun.elapsed();
    sending.await.expect("the sender ends");
    size as f64 / took.as_secs_f64()
}

async fn blob(here: &Peer, id: BlobId, size: usize) -> f64 {
    let begun = Instant::now();
    here.exchange.fetch(id, u64::MAX).await.expect("the blob comes");
    let took = begun.elapsed();
    here.blobs.remove(&id).expect("it goes again");
    size as f64 / took.as_secs_f64()
}

/// How long frames take over the link's own stream, until the flag is set.
async fn whisper(from: &mut LinkSender, to: &mut LinkReceiver, is_over: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    let mut pace = tokio::time::interval(WHISPER_EVERY);
    while !is_over.load(Ordering::Relaxed) {
        pace.tick().await;
        let begun = Instant::now();
        from.send(b"a few words").await.expect("it is sent");
        to.recv().await.expect("it comes");
        times.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    times
}

fn shown(mut times: Vec<f64>) -> Json {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        times.get(times.len() * percent / 100).map(|ms| (ms * 100.0).round() / 100.0)
    };
    json!({ "frames": times.len(), "p50_ms": at(50), "p99_ms": at(99) })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "loopback".to_owned());
    let path = PATHS.into_iter().find(|path| path.name == name);
    assert!(path.is_some() || name == "loopback", "there is no path {name}");
    let mut numbers = args.map(|arg| arg.parse().expect("a number"));
    let size = numbers.next().unwrap_or(MIB) << 20;
    let rounds = numbers.next().unwrap_or(ROUNDS);
    let (there, here) = (Peer::new(), Peer::new());
    let bytes: Vec<u8> =
        (0..size as u64 / 8).flat_map(|n| (n * 0x9E37_79B9).to_le_bytes()).collect();
    let id = there.blobs.put(&bytes).expect("a blob");
    let [mut at_here, mut at_there] = link(&here, &there, path).await;
    let apart = link(&here, &there, path).await;
    let running = [(&here, &at_here), (&there, &at_there)].map(|(peer, end)| {
        let (exchange, node, streams) =
            (peer.exchange.clone(), end.peer.node_id(), end.side_streams());
        tokio::spawn(async move { exchange.run_link(node, 1, streams, None).await })
    });
    while here.exchange.peers().is_empty() || there.exchange.peers().is_empty() {
        tokio::task::yield_now().await;
    }
    let (mut of_stream, mut of_blob, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    let is_over = AtomicBool::new(false);
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (alone, ()) =
        tokio::join!(whisper(&mut at_there.send, &mut at_here.recv, &is_over), ending);
    for _ in 0..rounds {
        let ends = [apart[1].side_streams(), apart[0].side_streams()];
        of_stream.push(plain(ends, size).await);
        let is_over = AtomicBool::new(false);
        let coming = async {
            let speed = blob(&here, id, size).await;
            is_over.store(true, Ordering::Relaxed);
            speed
        };
        let whispered = whisper(&mut at_there.send, &mut at_here.recv, &is_over);
        let (speed, times) = tokio::join!(coming, whispered);
        of_blob.push(speed);
        beside.extend(times);
    }
    running.iter().for_each(|task| task.abort());
    let (stream, blob) = (median(of_stream), median(of_blob));
    let mib_per_s = |bytes: f64| (bytes / f64::from(1 << 20) * 10.0).round() / 10.0;
    let report = json!({
        "path": name,
        "size_bytes": size,
        "rounds": rounds,
        "plain_stream_mib_per_s": mib_per_s(stream),
        "blob_mib_per_s": mib_per_s(blob),
        "percent": (blob / stream * 100.0).round(),
        "frames_alone": shown(alone),
        "frames_beside_a_blob": shown(beside),
    });
    println!("{report:#}");
}
