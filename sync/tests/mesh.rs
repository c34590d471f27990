//! Sixteen nodes, each linked to each: how often an op crosses a link, over real databases and sessions in made-up time.

use atoll_storage::{Changes, Clock, Db, Field, Id, Kind, NodeId, Record, Replica};
use atoll_sync::message::{Message, unpack_ops};
use atoll_sync::session::{Effect, Event, Now, Options, Session};
use std::collections::BTreeMap;

const TITLE: Field = Field::text(1, "title").column();
static NOTE: Kind = Kind { fields: &[TITLE], ..Kind::new(300, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];

/// The way from one node to another.
const WAY_MS: u64 = 3;
const TICK_MS: u64 = 500;

type Place = (usize, usize);

struct Mesh {
    dbs: Vec<Db>,
    /// By the node that has it and the node at its other end.
    ends: BTreeMap<Place, Session>,
    frames: BTreeMap<(u64, u64), (Place, Vec<u8>)>,
    count: u64,
    now_ms: u64,
    ops_sent: usize,
    bytes_sent: usize,
}

impl Mesh {
    fn new(nodes: usize, is_linked: impl Fn(usize, usize) -> bool) -> Self {
        let db = |n: usize| {
            let clock = Clock::from_fn(|| 1_700_000_000_000);
            Db::open_in_memory(KINDS, NodeId([n as u8 + 1; 16]), clock).unwrap()
        };
        let mut mesh = Self {
            dbs: (0..nodes).map(db).collect(),
            ends: BTreeMap::new(),
            frames: BTreeMap::new(),
            count: 0,
            now_ms: 0,
            ops_sent: 0,
            bytes_sent: 0,
        };
        for (a, b) in (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))) {
            if a != b && is_linked(a.min(b), a.max(b)) {
                let options = Options { root_every_ms: 5_000, ..Options::default() };
                mesh.ends.insert((a, b), Session::new(options, Now::default()));
            }
        }
        let places: Vec<Place> = mesh.ends.keys().copied().collect();
        places.into_iter().for_each(|place| mesh.step(place, Event::Open));
        mesh
    }

    fn step(&mut self, place: Place, event: Event) {
        let (node, peer) = place;
        let now = Now { elapsed_ms: self.now_ms, wall_ms: self.now_ms };
        let before = self.dbs[node].log_end().unwrap();
        let Some(session) = self.ends.get_mut(&place) else { return };
        for effect in session.handle(now, &mut self.dbs[node], event) {
            let Effect::Send(bytes) = effect else { panic!("{effect:?}") };
            if let Ok(Message::Ops { ops, .. }) = Message::decode(&bytes) {
                self.ops_sent += unpack_ops(&ops).unwrap().len();
            }
            self.bytes_sent += bytes.len();
            self.count += 1;
            self.frames.insert((self.now_ms + WAY_MS, self.count), ((peer, node), bytes));
        }
        if self.dbs[node].log_end().unwrap() != before {
            self.committed(node);
        }
    }

    fn committed(&mut self, node: usize) {
        let places: Vec<Place> =
            self.ends.keys().filter(|place| place.0 == node).copied().collect();
        places.into_iter().for_each(|place| self.step(place, Event::Committed));
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            while let Some(frame) = self.frames.first_entry().filter(|f| f.key().0 <= self.now_ms) {
                let (place, bytes) = frame.remove();
                self.step(place, Event::Frame(bytes));
            }
            if self.now_ms.is_multiple_of(TICK_MS) {
                let places: Vec<Place> = self.ends.keys().copied().collect();
                places.into_iter().for_each(|place| self.step(place, Event::Tick));
            }
        }
    }

    fn write(&mut self, node: usize, n: usize) {
        let key = Id::natural(&[&n.to_le_bytes()]);
        let words: String = (0..40).map(|word| format!("{} ", n * 7_919 + word * 31)).collect();
        let changes = Changes::new().set(&TITLE, words);
        let made: Result<Record, _> =
            self.dbs[node].transact(|tx| tx.create(&NOTE, Id([7; 16]), key, changes));
        made.unwrap();
        self.committed(node);
    }

    fn are_equal(&mut self) -> bool {
        let roots: Vec<_> = self.dbs.iter_mut().map(|db| db.root().unwrap()).collect();
        roots.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Until all nodes are equal; after how many milliseconds.
    fn settle(&mut self) -> u64 {
        let begun_ms = self.now_ms;
        while !self.are_equal() {
            self.run_ms(1);
            assert!(self.now_ms < begun_ms + 20_000, "they do not become equal");
        }
        self.now_ms - begun_ms
    }
}

/// How often an op was sent for each time that it was needed, while nodes write by turns.
fn factor(nodes: usize, writes: usize, every_ms: u64) -> f64 {
    let mut mesh = Mesh::new(nodes, |_, _| true);
    mesh.run_ms(50);
    // What links find out of each other they find out once.
    for n in 0..nodes {
        mesh.write(n, n);
        mesh.run_ms(every_ms);
    }
    mesh.run_ms(3_000);
    assert!(mesh.are_equal());
    (mesh.ops_sent, mesh.bytes_sent) = (0, 0);
    for n in 0..writes {
        mesh.write(n * 7 % nodes, 1_000 + n);
        mesh.run_ms(every_ms);
    }
    mesh.run_ms(3_000);
    assert!(mesh.are_equal());
    let needed = writes * (nodes - 1);
    let factor = mesh.ops_sent as f64 / needed as f64;
    println!(
        "{nodes} nodes, a write every {every_ms} ms: {} ops sent, {needed} needed: {factor:.2}; {} bytes a write",
        mesh.ops_sent,
        mesh.bytes_sent / writes
    );
    factor
}

#[test]
fn in_a_mesh_of_sixteen_an_op_crosses_a_link_hardly_more_often_than_it_must() {
    for every_ms in [1, 20, 700] {
        let factor = factor(16, 100, every_ms);
        assert!(factor < 1.5, "each op was sent {factor:.2} times for once that it was needed");
    }
}

#[test]
fn what_a_mesh_holds_back_arrives_when_the_direct_link_is_gone() {
    let mut mesh = Mesh::new(6, |_, _| true);
    mesh.run_ms(50);
    for n in 0..12 {
        mesh.write(n % 6, n);
        mesh.run_ms(20);
    }
    mesh.run_ms(1_000);
    mesh.ends.remove(&(0, 1));
    mesh.ends.remove(&(1, 0));
    mesh.write(0, 100);
    let took_ms = mesh.settle();
    assert!(took_ms < 1_500, "{took_ms} ms");
    // Whoever was needed passes on at once from then on.
    mesh.run_ms(3_000);
    mesh.write(0, 101);
    let took_ms = mesh.settle();
    assert!(took_ms < 20, "{took_ms} ms");
}

#[test]
fn on_a_line_nothing_is_held_back() {
    let mut mesh = Mesh::new(5, |a, b| b == a + 1);
    mesh.run_ms(50);
    for n in 0..10 {
        mesh.write(n % 5, n);
        let took_ms = mesh.settle();
        assert!(took_ms <= 5 * WAY_MS, "{took_ms} ms");
    }
}
