//! A node that the others limit, and change their minds about. What it was never let do has reached nobody, what it is let
//! do arrives, and once it is trusted with everything it is as if it always had been.

use super::world::World;
use crate::rng::Rng;
use atoll_storage::{Id, NodeId, Origin, Replica, Rights, StreamHead, StreamId, Vector};

type Outcome = Result<(), String>;

/// What the others let the last node do.
#[derive(Default)]
pub struct Limit {
    pub now: Rights,
    ever: Vec<Rights>,
}

impl Limit {
    pub fn any(rng: &mut Rng) -> Self {
        let now = any_rights(rng, 0);
        Self { ever: vec![now.clone()], now }
    }

    fn was_ever(&self, may: impl Fn(&Rights) -> bool) -> bool {
        self.ever.iter().any(may)
    }
}

fn any_rights(rng: &mut Rng, now_ms: u64) -> Rights {
    let (one, two) = (Id([1; 16]), Id([2; 16]));
    let tenants: [Option<&[Id]>; 5] = [None, None, Some(&[one]), Some(&[two, Id::NIL]), Some(&[])];
    let scopes: [Option<&[&str]>; 4] =
        [None, None, Some(&["content"]), Some(&["community", "insight", "identity"])];
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Rights {
        tenants: rng.pick(&tenants).map(|list| list.iter().copied().collect()),
        scopes: rng.pick(&scopes).map(named),
        read: rng.percent(75),
        write: rng.percent(75),
        relay: rng.percent(50),
        until_ms: rng.percent(15).then(|| now_ms + rng.between(500, 9_000)),
    }
}

/// The last node is the one.
fn limited(world: &World) -> usize {
    world.plan.nodes - 1
}

fn node_id(world: &World) -> NodeId {
    world.nodes[limited(world)].db.origin().node
}

/// What one node lets another do.
pub fn lets(world: &World, node: usize, peer: usize) -> Rights {
    let limit = world.limit.as_ref().filter(|_| peer == limited(world) && node != peer);
    limit.map_or_else(Rights::everything, |limit| limit.now.clone())
}

/// Whether there may be a link at all: nobody dials whom he lets do nothing.
pub fn may_meet(world: &World, nodes: [usize; 2]) -> bool {
    let [a, b] = nodes;
    [(a, b), (b, a)].into_iter().all(|(node, peer)| {
        let rights = lets(world, node, peer);
        !rights.is_nothing() && !rights.is_over(world.nodes[node].wall_ms())
    })
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    if world.rng.percent(3) {
        let now_ms = world.now();
        let rights = any_rights(&mut world.rng, now_ms);
        put(world, rights);
    }
    nothing_else_came(world)
}

/// A change of what a peer may do ends its links.
fn put(world: &mut World, rights: Rights) {
    let node = limited(world);
    world.say(|| format!("{node} may {rights:?}"));
    if let Some(limit) = world.limit.as_mut() {
        limit.ever.push(rights.clone());
        limit.now = rights;
    }
    super::nemesis::hang_up(world, node);
    world.outcome.limits += 1;
}

/// From here on the limit stays what it is, until [`trust`].
pub fn stand(world: &mut World) {
    let now = world.limit.as_ref().map(|limit| limit.now.clone()).unwrap_or_default();
    put(world, Rights { until_ms: None, ..now });
}

/// The others let it do everything.
pub fn trust(world: &mut World) -> Outcome {
    nothing_else_came(world)?;
    put(world, Rights::everything());
    Ok(())
}

/// Whether all that may go has gone.
pub fn is_level(world: &mut World) -> Result<bool, String> {
    Ok(what_lacks(world)?.is_none())
}

/// What has not gone though it may.
pub fn what_lacks(world: &mut World) -> Result<Option<String>, String> {
    let limited = limited(world);
    let heads = heads(world)?;
    let leaves = |node: usize| heads[node].iter().map(|head| (&head.stream, head.leaf()));
    if let Some(other) = (1..limited).find(|other| !leaves(*other).eq(leaves(0))) {
        return Ok(Some(format!("0 and {other} differ, who trust each other")));
    }
    let Some(limit) = &world.limit else { return Ok(None) };
    let (rights, id) = (&limit.now, node_id(world));
    let vector = |node: usize, stream: &StreamId| {
        let head = heads[node].iter().find(|head| head.stream == *stream);
        head.map(|head| head.vector.clone()).unwrap_or_default()
    };
    for head in &heads[0] {
        let there = vector(limited, &head.stream);
        if rights.reads(&head.stream) && !there.includes(&head.vector) {
            return Ok(Some(format!("{} has not come: {there:?} of {head:?}", head.stream)));
        }
    }
    for head in &heads[limited] {
        let there = vector(0, &head.stream);
        // What the log holds no more goes as states, where everything may.
        let as_states = rights.writes(&head.stream, true) && rights.writes(&head.stream, false);
        // What follows on something that others lost waits there until that may be passed on.
        let of_others = head.vector.of(|origin| origin.node != id);
        if !as_states && !there.includes(&of_others) {
            continue;
        }
        let may_go = |origin: Origin| {
            let is_in_log = head.floor.get(origin) <= there.get(origin);
            rights.writes(&head.stream, origin.node == id) && (as_states || is_in_log)
        };
        let stays = |(origin, seq): (&Origin, &u64)| may_go(*origin) && there.get(*origin) < *seq;
        if head.vector.0.iter().any(stays) {
            return Ok(Some(format!("{} has not gone: {there:?} of {head:?}", head.stream)));
        }
    }
    Ok(None)
}

fn heads(world: &mut World) -> Result<Vec<Vec<StreamHead>>, String> {
    let all = world.nodes.iter_mut().map(|node| node.db.heads(None)).collect::<Result<_, _>>();
    all.map_err(|error| error.to_string())
}

/// It has nothing of others that it was never let read, and they nothing of it that it was never let write.
fn nothing_else_came(world: &mut World) -> Outcome {
    let (limited, id, heads) = (limited(world), node_id(world), heads(world)?);
    // Poison bears names that nobody has.
    let others: Vec<NodeId> =
        world.nodes[..limited].iter().map(|node| node.db.origin().node).collect();
    let Some(limit) = &world.limit else { return Ok(()) };
    for (node, heads) in heads.iter().enumerate() {
        for head in heads {
            let is_strange = |origin: &Origin| {
                if node == limited {
                    others.contains(&origin.node) && !limit.was_ever(|r| r.reads(&head.stream))
                } else {
                    origin.node == id && !limit.was_ever(|r| r.writes(&head.stream, true))
                }
            };
            if let Some(origin) = made_by(&head.vector).find(|origin| is_strange(origin)) {
                let stream = &head.stream;
                return Err(format!("{node} has something of {origin:?} in {stream}, by no right"));
            }
        }
    }
    Ok(())
}

fn made_by(vector: &Vector) -> impl Iterator<Item = &Origin> {
    vector.0.iter().filter(|(_, seq)| **seq > 0).map(|(origin, _)| origin)
}
