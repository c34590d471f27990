use super::*;
use atoll_storage::{Id, Origin, Vector};

const ME: NodeId = NodeId([1; 16]);
const OTHER: NodeId = NodeId([2; 16]);
const THIRD: NodeId = NodeId([3; 16]);
const GROUP: u64 = GROUP_BYTES as u64;

fn asker(node: NodeId, lacks: Vec<Lack>) -> Asker {
    let (has, carries) = (Has::new(), Carries::everything());
    Asker { node, has, carries, lacks, refused: BTreeSet::new(), strangers: BTreeSet::new() }
}

fn parcel(node: NodeId, readers: &[NodeId], shares: &[Share]) -> Parcel {
    let name = BundleName { number: shares.len() as u64, random: 0, node };
    let contents = Contents { shares: shares.to_vec(), named_at: vec![] };
    Parcel { name, readers: Some(readers.to_vec()), contents, size_bytes: 9 }
}

fn blob(n: u8) -> BlobId {
    BlobId([n; 32])
}

fn stream(n: u8) -> StreamId {
    StreamId::new(Id([n; 16]), "content")
}

fn upto(seq: u64) -> Vector {
    Vector([(Origin { node: ME, epoch: 0 }, seq)].into())
}

fn bytes_in(shares: &[Share]) -> u64 {
    shares.iter().map(bytes_of).sum()
}

#[test]
fn a_file_is_left_once_in_parcels_of_a_bounded_size_and_its_rest_later() {
    let size = 1_000 * GROUP;
    let askers = [
        asker(OTHER, vec![Lack::whole(blob(1), size), Lack::whole(blob(2), 10)]),
        asker(THIRD, vec![Lack::whole(blob(1), u64::MAX), Lack::whole(blob(3), u64::MAX)]),
    ];
    let size_of = |one: &BlobId| match one.0[0] {
        1 => Some(size),
        2 => Some(11),
        _ => None,
    };
    let all = parcels(&askers, &[], size_of, u64::MAX);
    let shares: Vec<&Share> = all.iter().flatten().collect();
    assert_eq!(shares.iter().map(|share| share.run.count).sum::<u64>(), 1_000);
    assert!(shares.iter().all(|share| share.blob == blob(1)));
    assert!(all.iter().all(|parcel| bytes_in(parcel) <= PARCEL_BYTES));
    // As much as there is room for; then what is there is not left again.
    let first = parcels(&askers, &[], size_of, PARCEL_BYTES + 1);
    assert_eq!(first.len(), 1);
    let there = parcel(ME, &[OTHER, THIRD], &first[0]);
    let rest = parcels(&askers, std::slice::from_ref(&there), size_of, u64::MAX);
    assert_eq!(rest, all[1..]);
    // Also if another one left it; but not for whom it is locked.
    let there = parcel(THIRD, &[OTHER], &first[0]);
    assert_eq!(parcels(&askers[..1], std::slice::from_ref(&there), size_of, u64::MAX), all[1..]);
    let anew = parcels(&askers, std::slice::from_ref(&there), size_of, u64::MAX);
    assert_eq!(bytes_in(&anew.concat()), bytes_in(&all.concat()));
    // Nor for whom it is damaged.
    let mut refusing = askers[0].clone();
    refusing.refused.insert(there.name);
    assert_eq!(parcels(&[refusing], &[there], size_of, u64::MAX), all);
}

#[test]
fn many_small_files_go_in_one_parcel_and_it_stays_while_one_of_them_is_asked_for() {
    let lacks: Vec<Lack> = (0..9).map(|n| Lack::whole(blob(n), 100)).collect();
    let askers = [asker(OTHER, lacks)];
    let all = parcels(&askers, &[], |one| (one.0[0] % 2 == 0).then_some(50), u64::MAX);
    assert_eq!((all.len(), all[0].len()), (1, 5));
    let there = [parcel(ME, &[OTHER], &all[0]), parcel(THIRD, &[OTHER], &all[0])];
    assert_eq!(obsolete_parcels(ME, &askers, &there), []);
    assert_eq!(wanted_parcels(&askers[0], there.iter()).len(), 2);
    let one = [asker(OTHER, vec![Lack::whole(blob(8), 50)])];
    assert_eq!(obsolete_parcels(ME, &one, &there), []);
    let small = asker(OTHER, vec![Lack::whole(blob(8), 49)]);
    for nobody in [small, asker(THIRD, one[0].lacks.clone())] {
        let askers = std::slice::from_ref(&nobody);
        assert_eq!(obsolete_parcels(ME, askers, &there), [there[0].name]);
        assert_eq!(wanted_parcels(&nobody, there.iter()), []);
    }
    assert_eq!(obsolete_parcels(ME, &[], &there), [there[0].name]);
}

#[test]
fn only_what_is_missing_of_a_file_is_left() {
    let run = |first, count| Run { first, count };
    let lack = Lack::rest(blob(1), u64::MAX, vec![run(2, 3), run(9, 1)]);
    let askers = [asker(OTHER, vec![lack])];
    let all = parcels(&askers, &[], |_| Some(10 * GROUP), u64::MAX);
    let runs: Vec<Run> = all.concat().iter().map(|share| share.run).collect();
    assert_eq!(runs, [run(2, 3), run(9, 1)]);
    let share = |run| Share { blob: blob(1), size_bytes: 10 * GROUP, run };
    let there = parcel(ME, &[OTHER], &[share(run(3, 1))]);
    let all = parcels(&askers, &[there], |_| Some(10 * GROUP), u64::MAX);
    let runs: Vec<Run> = all.concat().iter().map(|share| share.run).collect();
    assert_eq!(runs, [run(2, 1), run(4, 1), run(9, 1)]);
    let past = parcel(ME, &[OTHER], &[share(run(5, 4))]);
    assert_eq!(obsolete_parcels(ME, &askers, std::slice::from_ref(&past)), [past.name]);
}

#[test]
fn what_somebody_has_yet_to_hear_of_is_foreseen_and_stays_until_he_has() {
    let mine = Has::from([(stream(1), upto(9)), (stream(2), upto(4))]);
    let named = BTreeMap::from([
        (blob(1), vec![stream(1)]),
        (blob(2), vec![stream(2)]),
        (blob(3), vec![stream(1), stream(2)]),
    ]);
    let mut behind = asker(OTHER, vec![]);
    behind.has = Has::from([(stream(1), upto(9)), (stream(2), upto(3))]);
    let mut part = asker(THIRD, vec![]);
    let rules = [atoll_storage::Rule {
        leaves: false,
        tenant: Some(stream(1).tenant),
        scope: stream(1).scope,
    }];
    part.carries = Carries::of(rules).unwrap_or_else(|_| panic!("this is a rule"));
    let askers = [behind.clone(), part];
    let lacks: Vec<Vec<BlobId>> = (foreseen(&askers, &mine, &named, 100).iter())
        .map(|asker| asker.lacks.iter().map(|lack| lack.blob).collect())
        .collect();
    assert_eq!(lacks, [[blob(2), blob(3)], [blob(1), blob(3)]]);
    let share = Share { blob: blob(2), size_bytes: 5, run: Run { first: 0, count: 1 } };
    let mut there = parcel(ME, &[OTHER], &[share]);
    there.contents.named_at = vec![(stream(2), upto(4))];
    let there = [there];
    assert_eq!(obsolete_parcels(ME, &askers, &there), []);
    // Once it has, it says what it still asks for.
    behind.has = mine;
    assert_eq!(obsolete_parcels(ME, &[behind, askers[1].clone()], &there), [there[0].name]);
}

/// Nodes that are vectors and lists of groups, and a bucket that brings ops at once: thousands of courses, each by its seed.
struct World {
    nodes: Vec<Node>,
    /// Ops that stand there.
    ops: Has,
    asks: BTreeMap<NodeId, Asker>,
    there: Vec<Parcel>,
    clock: u64,
}

#[derive(Default)]
struct Node {
    has: Has,
    /// By the number of the op that names a file: which of its groups are here.
    files: BTreeMap<u64, BTreeSet<u64>>,
    /// Of larger files it wants none.
    max_bytes: u64,
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn node_id(n: usize) -> NodeId {
    NodeId([n as u8 + 1; 16])
}

fn size_of(file: u64) -> u64 {
    (1 + file * file % 7 * 60) * GROUP - file % 3
}

fn groups(file: u64) -> u64 {
    groups_of(size_of(file))
}

impl Node {
    fn named(&self) -> u64 {
        let vector = self.has.get(&stream(1));
        vector.map_or(0, |vector| vector.0.values().copied().max().unwrap_or(0))
    }

    fn is_whole(&self, file: u64) -> bool {
        self.files.get(&file).is_some_and(|here| here.len() as u64 == groups(file))
    }

    fn lacks(&self) -> Vec<Lack> {
        let open = (1..=self.named()).filter(|file| !self.is_whole(*file));
        let lack = |file: u64| match self.files.get(&file).filter(|here| !here.is_empty()) {
            None => Lack::whole(blob(file as u8), self.max_bytes),
            Some(here) => {
                let missing = (0..groups(file)).filter(|group| !here.contains(group));
                let mut runs: Vec<Run> = vec![];
                for group in missing {
                    match runs.last_mut() {
                        Some(run) if run.end() == group => run.count += 1,
                        _ => runs.push(Run { first: group, count: 1 }),
                    }
                }
                Lack::rest(blob(file as u8), self.max_bytes, runs)
            }
        };
        open.map(lack).collect()
    }

    fn take(&mut self, parcel: &Parcel) {
        for share in &parcel.contents.shares {
            let file = u64::from(share.blob.0[0]);
            if file <= self.named() && share.size_bytes <= self.max_bytes {
                self.files.entry(file).or_default().extend(share.run.first..share.run.end());
            }
        }
    }
}

impl World {
    fn others(&self, me: usize) -> Vec<Asker> {
        self.asks.values().filter(|asker| asker.node != node_id(me)).cloned().collect()
    }

    /// One visit, which may end anywhere.
    fn visit(&mut self, n: usize, rng: &mut Rng, can_be_cut: bool) {
        let mut is_cut = || can_be_cut && rng.below(8) == 0;
        let me = node_id(n);
        for (stream, vector) in &self.ops {
            self.nodes[n].has.entry(stream.clone()).or_default().merge(vector);
        }
        let refused = self.asks.get(&me).map(|asker| asker.refused.clone()).unwrap_or_default();
        let has = self.nodes[n].has.clone();
        let asker = Asker { has, refused, ..asker(me, self.nodes[n].lacks()) };
        for name in wanted_parcels(&asker, self.there.iter()) {
            let parcel = self.there.iter().find(|one| one.name == name).cloned();
            let Some(parcel) = parcel else { panic!("{name} is there") };
            self.nodes[n].take(&parcel);
            if is_cut() {
                return;
            }
        }
        let before = self.ops.clone();
        self.ops.extend(self.nodes[n].has.clone());
        self.asks.insert(me, Asker { lacks: self.nodes[n].lacks(), ..asker });
        if is_cut() {
            return;
        }
        let others = self.others(n);
        let gone = obsolete_parcels(me, &others, &self.there);
        self.there.retain(|one| !gone.contains(&one.name));
        if is_cut() {
            return;
        }
        let node = &self.nodes[n];
        let is_new = |vector: &Vector| !includes(&before, &stream(1), vector);
        let news = (1..=node.named()).filter(|file| is_new(&upto(*file)));
        let named = news.map(|file| (blob(file as u8), vec![stream(1)])).collect();
        let news = foreseen(&others, &node.has, &named, 100 * GROUP);
        let askers: Vec<Asker> = others.iter().chain(&news).cloned().collect();
        let here = |one: &BlobId| {
            let file = u64::from(one.0[0]);
            node.is_whole(file).then(|| size_of(file))
        };
        let room_bytes = 4 * PARCEL_BYTES;
        let all = parcels(&askers, &self.there, here, room_bytes);
        assert!(bytes_in(&all.concat()) <= room_bytes);
        for shares in all {
            self.clock += 1;
            let name = BundleName { number: self.clock, random: 0, node: me };
            let readers = Some(others.iter().map(|one| one.node).chain([me]).collect());
            let is_news = shares.iter().any(|share| named.contains_key(&share.blob));
            let named_at = node.has.clone().into_iter().filter(|_| is_news).collect();
            let contents = Contents { shares, named_at };
            self.there.push(Parcel { name, readers, contents, size_bytes: 1 });
            if is_cut() {
                return;
            }
        }
    }
}

fn course(seed: u64) -> World {
    let mut rng = Rng(seed);
    let count = 2 + rng.below(3) as usize;
    let sizes = [u64::MAX, u64::MAX, 100 * GROUP];
    let node = |n: usize| Node { max_bytes: sizes[n % 3], ..Node::default() };
    let nodes = (0..count).map(node).collect();
    let (asks, there, ops) = Default::default();
    let mut world = World { nodes, ops, asks, there, clock: 0 };
    for _ in 0..rng.below(80) {
        let n = rng.below(count as u64) as usize;
        match rng.below(10) {
            0..2 => {
                let node = &mut world.nodes[0];
                let file = node.named() + 1;
                node.has.insert(stream(1), upto(file));
                node.files.insert(file, (0..groups(file)).collect());
            }
            2 if !world.there.is_empty() => {
                let at = rng.below(world.there.len() as u64) as usize;
                world.there.remove(at);
            }
            3 if !world.there.is_empty() => {
                let at = rng.below(world.there.len() as u64) as usize;
                let name = world.there[at].name;
                if let Some(asker) = world.asks.get_mut(&node_id(n)) {
                    asker.refused.insert(name);
                }
            }
            _ => world.visit(n, &mut rng, true),
        }
    }
    world
}

#[test]
fn nodes_that_visit_one_after_the_other_get_all_files_that_they_want_and_clear_up() {
    let mut came = 0;
    for seed in 0..2_000 {
        let mut world = course(seed);
        let mut rng = Rng(seed);
        let count = world.nodes.len();
        // What goes in one visit is bounded.
        for _ in 0..24 {
            (0..count).for_each(|n| world.visit(n, &mut rng, false));
        }
        let named = world.nodes[0].named();
        for (n, node) in world.nodes.iter().enumerate() {
            for file in 1..=named {
                let is_wanted = size_of(file) <= node.max_bytes;
                assert_eq!(node.is_whole(file), is_wanted, "seed {seed}: {n} and file {file}");
                came += usize::from(n > 0 && is_wanted);
            }
        }
        assert_eq!(world.there, [], "seed {seed}: what nobody asks for is still there");
    }
    assert!(came > 10_000, "{came}");
}

#[test]
fn a_small_file_is_there_at_the_first_visit_after_that_of_its_writer() {
    let mut rng = Rng(7);
    let nodes = vec![Node { max_bytes: u64::MAX, ..Node::default() }, Node::default()];
    let (asks, there, ops) = Default::default();
    let mut world = World { nodes, ops, asks, there, clock: 0 };
    world.nodes[1].max_bytes = u64::MAX;
    for n in [0, 1, 0, 1] {
        world.visit(n, &mut rng, false);
    }
    world.nodes[0].has.insert(stream(1), upto(1));
    world.nodes[0].files.insert(1, (0..groups(1)).collect());
    world.visit(0, &mut rng, false);
    world.visit(1, &mut rng, false);
    assert!(world.nodes[1].is_whole(1));
    world.visit(0, &mut rng, false);
    assert_eq!(world.there, []);
}
