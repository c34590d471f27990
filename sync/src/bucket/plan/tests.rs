//! Nodes that are nothing but vectors and sets of what they took in, and a bucket that is nothing but a list: thousands of
//! courses, each by its seed. Nodes that carry a part drop streams and take them again, which begin anew then. In some
//! courses two lives of a node give out the same numbers.

use super::*;
use atoll_storage::{Id, Origin};
use std::rc::Rc;

const MAX_STREAMS: u64 = 3;
const A_MINUTE_MS: u64 = 60_000;

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

fn stream(n: u64) -> StreamId {
    StreamId::new(Id([n as u8; 16]), "content")
}

/// A stream's state: who wrote what under which number, in which life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    writes: BTreeSet<(Origin, u64, u64)>,
    digest: Digest,
}

impl State {
    fn put(&mut self, write: (Origin, u64, u64)) {
        if self.writes.insert(write) {
            let (origin, seq, life) = write;
            let parts = [u64::from(origin.node.0[0]), origin.epoch.into(), seq, life];
            let mixed = parts.iter().fold(1_u64, |mixed, part| {
                let mixed = (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed ^ (mixed >> 29)
            });
            self.digest.add(Digest([mixed; 4]));
        }
    }
}

type States = BTreeMap<StreamId, Rc<State>>;

struct World {
    nodes: Vec<Has>,
    states: Vec<States>,
    /// By the number of a bundle, what its maker had.
    packed: BTreeMap<u64, States>,
    /// Bundles that a node merged for their states.
    mended: Vec<BTreeSet<BundleName>>,
    forks: u64,
    carries: Vec<Carries>,
    epochs: Vec<u32>,
    wants: BTreeMap<NodeId, Member>,
    left: Vec<Left>,
    is_open: bool,
    clock: u64,
    taken: usize,
    repairs: usize,
}

impl World {
    fn write(&mut self, n: usize, rng: &mut Rng) {
        let origin = Origin { node: node_id(n), epoch: self.epochs[n] };
        let stream = stream(rng.below(MAX_STREAMS));
        if !self.carries[n].carries(&stream) {
            return;
        }
        self.write_as(n, origin, stream, 0);
    }

    fn write_as(&mut self, n: usize, origin: Origin, stream: StreamId, life: u64) {
        let vector = self.nodes[n].entry(stream.clone()).or_default();
        let seq = vector.get(origin) + 1;
        vector.raise(origin, seq);
        Rc::make_mut(self.states[n].entry(stream).or_default()).put((origin, seq, life));
    }

    /// Two nodes hear different things from two lives of one that nobody else has heard of.
    fn fork(&mut self, rng: &mut Rng) {
        let stream = stream(rng.below(MAX_STREAMS));
        self.forks += 1;
        let origin = Origin { node: NodeId([0xee; 16]), epoch: self.forks as u32 };
        for life in 1..3 {
            let n = rng.below(self.nodes.len() as u64) as usize;
            if self.carries[n].carries(&stream)
                && self.nodes[n].get(&stream).is_none_or(|v| v.get(origin) == 0)
            {
                self.write_as(n, origin, stream.clone(), life);
            }
        }
    }

    /// Of what another has, what lies beyond this one's vector; all of it, if it comes as a state.
    fn take_in(&mut self, n: usize, theirs: &States, cover: &Cover, is_state: bool) {
        let Cover { stream, to, .. } = cover;
        let vector = self.nodes[n].entry(stream.clone()).or_default();
        let before = vector.clone();
        vector.merge(to);
        let Some(theirs) = theirs.get(stream) else { return };
        let mine = Rc::make_mut(self.states[n].entry(stream.clone()).or_default());
        for (origin, seq, life) in &theirs.writes {
            let is_new = *seq <= to.get(*origin) && *seq > before.get(*origin);
            if is_state || is_new {
                mine.put((*origin, *seq, *life));
            }
        }
    }

    /// Any streams, unless something would be dropped that no other node has.
    fn carry(&mut self, n: usize, rng: &mut Rng) {
        let rules = (0..MAX_STREAMS).filter(|_| rng.below(3) > 0).map(|at| {
            let StreamId { tenant, scope } = stream(at);
            atoll_storage::Rule { leaves: false, tenant: Some(tenant), scope }
        });
        let Ok(carries) = Carries::of(rules) else { panic!("these are no rules") };
        let is_safe = self.nodes[n].iter().filter(|(stream, _)| !carries.carries(stream)).all(
            |(stream, vector)| {
                (0..self.nodes.len()).any(|other| {
                    let is_other = other != n && self.carries[other].carries(stream);
                    is_other && includes(&self.nodes[other], stream, vector)
                })
            },
        );
        if is_safe {
            self.nodes[n].retain(|stream, _| carries.carries(stream));
            self.states[n].retain(|stream, _| carries.carries(stream));
            self.carries[n] = carries;
            self.epochs[n] += 1;
        }
    }

    fn member(&self, n: usize) -> Member {
        let states = self.states[n].iter();
        let states = states.map(|(stream, state)| (stream.clone(), state.digest)).collect();
        Member {
            node: Some(node_id(n)),
            has: self.nodes[n].clone(),
            states: Some(states),
            carries: self.carries[n].clone(),
            mended: self.mended[n].clone(),
            ..Member::default()
        }
    }

    fn members(&self, me: usize) -> Vec<Member> {
        let others = self.wants.values().filter(|member| member.node != Some(node_id(me)));
        others.cloned().chain(self.is_open.then(Member::default)).collect()
    }

    fn leave(&mut self, n: usize, known: &Has, repair: Option<Repair>) {
        let mut covers = covers(&self.nodes[n], known);
        covers.retain(|cover| known.contains_key(&cover.stream));
        assert!(!covers.is_empty(), "an empty bundle is left");
        assert!(repair.is_none() || covers.len() == 1 && covers[0].from.0.is_empty());
        let size_bytes = covers.iter().map(|cover| cover.to.lead_over(&cover.from)).sum();
        let members = self.members(n).into_iter().filter_map(|member| member.node);
        let readers = (!self.is_open).then(|| members.chain([node_id(n)]).collect());
        self.clock += 1;
        let name = BundleName { number: self.clock, random: 0, node: node_id(n) };
        self.packed.insert(self.clock, self.states[n].clone());
        self.left.push(Left { name, readers, covers, repair, size_bytes });
    }

    fn take(&mut self, n: usize, one: &Left) {
        let packed = self.packed[&one.name.number].clone();
        let carries = self.carries[n].clone();
        for cover in one.covers_of(&carries) {
            self.take_in(n, &packed, cover, one.repair.is_some());
        }
        self.mended[n].insert(one.name);
        self.taken += 1;
    }

    /// One visit, which may end anywhere.
    fn visit(&mut self, n: usize, rng: &mut Rng, can_be_cut: bool) {
        let mut is_cut = || can_be_cut && rng.below(8) == 0;
        let me = node_id(n);
        self.clock += A_MINUTE_MS;
        while let Some(next) = wanted(&self.member(n), self.left.iter()).cloned() {
            self.take(n, &next);
            if is_cut() {
                return;
            }
        }
        let itself = self.member(n);
        self.wants.insert(me, itself.clone());
        if is_cut() {
            return;
        }
        let members = self.members(n);
        for known in publications(&self.nodes[n], &members, &self.left) {
            self.leave(n, &known, None);
            if is_cut() {
                return;
            }
        }
        for (stream, repair) in repairs(&itself, &members, &self.left, self.clock) {
            self.leave(n, &[(stream, Vector::default())].into(), Some(repair));
            self.repairs += 1;
            if is_cut() {
                return;
            }
        }
        let gone = obsolete(&itself, &members, &self.left);
        self.left.retain(|one| !gone.contains(&one.name));
        if let Some((begin, names)) = merge(&itself, &members, &self.left) {
            let before: Vec<Has> = members.iter().map(|m| reach(m, &self.left)).collect();
            self.leave(n, &begin, None);
            if is_cut() {
                return;
            }
            self.left.retain(|one| !names.contains(&one.name));
            for (member, before) in members.iter().zip(before) {
                let after = reach(member, &self.left);
                let lost = lead(&before, &after, &member.carries);
                assert_eq!(lost, 0, "a merged bundle took something away");
            }
        }
    }

    fn equal(&self) -> bool {
        (0..MAX_STREAMS).map(stream).all(|stream| {
            let carrying = (0..self.nodes.len()).filter(|n| self.carries[*n].carries(&stream));
            let mut has = carrying.map(|n| {
                let vector = self.nodes[n].get(&stream).cloned().unwrap_or_default();
                (vector, self.states[n].get(&stream).cloned().unwrap_or_default())
            });
            let first = has.next();
            has.all(|other| Some(other) == first)
        })
    }
}

fn course(seed: u64) -> World {
    let mut rng = Rng(seed);
    let count = 2 + rng.below(4) as usize;
    let mut world = World {
        nodes: vec![Has::new(); count],
        states: vec![States::new(); count],
        packed: BTreeMap::new(),
        mended: vec![BTreeSet::new(); count],
        forks: 0,
        carries: vec![Carries::everything(); count],
        epochs: vec![0; count],
        wants: BTreeMap::new(),
        left: Vec::new(),
        is_open: seed.is_multiple_of(3),
        clock: 0,
        taken: 0,
        repairs: 0,
    };
    for _ in 0..rng.below(300) {
        let n = rng.below(count as u64) as usize;
        match rng.below(10) {
            0..5 => world.write(n, &mut rng),
            // Two that met by a link.
            5 => {
                let other = rng.below(count as u64) as usize;
                let theirs = world.states[other].clone();
                let carries = world.carries[n].clone();
                for cover in covers(&world.nodes[other], &Has::new()) {
                    if carries.carries(&cover.stream) {
                        world.take_in(n, &theirs, &cover, false);
                    }
                }
            }
            // Somebody else removed objects, or a member could not use one.
            6 if rng.below(4) == 0 && !world.left.is_empty() => {
                let at = rng.below(world.left.len() as u64) as usize;
                world.left.remove(at);
            }
            6 if rng.below(4) == 0 && !world.left.is_empty() => {
                let at = rng.below(world.left.len() as u64) as usize;
                let name = world.left[at].name;
                if let Some(member) = world.wants.get_mut(&node_id(n)) {
                    member.refused.insert(name);
                }
            }
            7 if seed.is_multiple_of(2) && rng.below(3) == 0 => world.carry(n, &mut rng),
            8 if seed.is_multiple_of(5) && rng.below(4) == 0 => world.fork(&mut rng),
            _ => world.visit(n, &mut rng, true),
        }
        for n in 0..count {
            let own = world.left.iter().filter(|one| one.name.node == node_id(n)).count();
            assert!(own <= MERGE_FROM + MAX_PUBLICATIONS + 8, "seed {seed}: {own} bundles of one");
        }
    }
    world
}

#[test]
fn nodes_that_visit_one_after_the_other_become_equal_and_clear_up() {
    let (mut taken, mut repaired) = (0, 0);
    for seed in 0..3_000 {
        let mut world = course(seed);
        let mut rng = Rng(seed);
        let count = world.nodes.len();
        // What was tried often is tried again by then.
        world.clock += 24 * A_MINUTE_MS * 60;
        // Where states differ, each takes the others' and leaves its own, and what was left goes when all have said so.
        let rounds = if world.forks > 0 { 5 } else { 3 };
        for _ in 0..rounds {
            for n in 0..count {
                world.visit(n, &mut rng, false);
            }
        }
        assert!(world.equal(), "seed {seed}");
        let before = world.taken;
        for n in 0..count {
            world.visit(n, &mut rng, false);
        }
        assert_eq!(world.taken, before, "seed {seed}: something is taken again");
        if !world.is_open {
            assert_eq!(world.left, [], "seed {seed}: what all have is still there");
        }
        // Whoever comes to an open bucket has all at its first visit.
        if world.is_open && world.nodes[0].values().any(|vector| !vector.0.is_empty()) {
            let newcomer = Member::default();
            let reach = reach(&newcomer, &world.left);
            assert_eq!(lead(&world.nodes[0], &reach, &newcomer.carries), 0, "seed {seed}");
        }
        assert!(world.forks > 0 || world.repairs == 0, "seed {seed}: nothing was to be repaired");
        taken += world.taken;
        repaired += world.repairs;
    }
    assert!(taken > 10_000, "{taken}");
    assert!(repaired > 300, "{repaired}");
}

/// Its maker may be one that this member has removed.
#[test]
fn what_a_member_does_not_take_of_another_is_left_for_it_anew() {
    let origin = Origin { node: node_id(0), epoch: 0 };
    let has = |seq| Has::from([(stream(0), Vector([(origin, seq)].into()))]);
    let left = Left {
        name: BundleName { number: 1, random: 1, node: node_id(2) },
        readers: None,
        covers: covers(&has(10), &has(4)),
        repair: None,
        size_bytes: 6,
    };
    let mut member = Member { node: Some(node_id(1)), has: has(4), ..Member::default() };
    let left = [left];
    assert!(publications(&has(10), std::slice::from_ref(&member), &left).is_empty());
    member.strangers.insert(node_id(2));
    assert_eq!(publications(&has(10), &[member], &left), [has(4)]);
}

#[test]
fn a_newcomer_gets_all_and_the_others_only_what_they_lack() {
    let origin = Origin { node: node_id(0), epoch: 0 };
    let has = |seq| Has::from([(stream(0), Vector([(origin, seq)].into()))]);
    let member = |n, seq| Member { node: Some(node_id(n)), has: has(seq), ..Member::default() };
    let members = [member(1, 9), Member { node: Some(node_id(2)), ..Member::default() }];
    let known = publications(&has(10), &members, &[]);
    assert_eq!(known.len(), 2);
    assert_eq!(known[0], has(9), "the short one first");
    assert_eq!(lead(&has(10), &known[1], &Carries::everything()), 10);
}

#[test]
fn what_nobody_can_have_leads_by_the_most() {
    let origin = |n| Origin { node: node_id(n), epoch: 1 };
    let vector = Vector([(origin(1), u64::MAX), (origin(2), u64::MAX)].into());
    let has: Has = (0..2).map(|n| (stream(n), vector.clone())).collect();
    assert_eq!(lead(&has, &Has::new(), &Carries::everything()), u64::MAX);
}
