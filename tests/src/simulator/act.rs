//! What people do: they create, edit, rename, tag, like, count, move and delete, each at a node of their own.

use super::world::World;
use crate::kinds::{
    BADGE, BODY, LABEL, LIKE, LOGIN, MARK, MEMBER, NOTE, PARENT, PLACE, RANK, SLUG, STATS, TAGS,
    TEXT, TITLE, VIEWS, VISITORS, WEIGHT,
};
use atoll_storage::{Changes, Error, Field, Id, Kind, Read, Replica, Tx, Value};

const TENANTS: [Id; 3] = [Id::NIL, Id([1; 16]), Id([2; 16])];
const WORDS: [&str; 6] = ["tide", "reef", "lagoon", "palm", "gull", "sand"];
const NAMES: [&str; 5] = ["intro", "Intro ", "about", "news", "tide"];

pub type Outcome = Result<(), Error>;

pub fn act(world: &mut World, node: usize) -> Result<(), String> {
    acknowledged(world, node, |world, node| match world.rng.below(100) {
        0..20 => create_note(world, node),
        20..40 => edit_note(world, node),
        40..52 => edit_body(world, node),
        52..60 => delete(world, node),
        60..70 => like(world, node),
        70..78 => count(world, node),
        78..86 => place(world, node),
        86..91 => member(world, node),
        91..95 => badge(world, node),
        95..97 => fail(world, node),
        _ => many(world, node),
    })
}

/// What somebody does, and what the node says to it.
pub fn acknowledged(
    world: &mut World,
    node: usize,
    f: impl FnOnce(&mut World, usize) -> Outcome,
) -> Result<(), String> {
    let known = world.nodes[node].vectors().map_err(|e| e.to_string())?;
    world.nodes[node].look_at_clock();
    match f(world, node) {
        Ok(()) | Err(Error::Missing(_) | Error::Body(_)) => {}
        Err(Error::NotCarried { .. }) if world.plan.partial => {}
        Err(Error::Full) if world.nodes[node].is_full() => world.outcome.refused_full += 1,
        Err(error) => return Err(format!("a write failed: {error}")),
    }
    let written = world.nodes[node].ops_since(&known).map_err(|e| e.to_string())?;
    for op in &written {
        world.say(|| {
            format!("{node} writes {:?} {}/{} {:?}", op.dot, op.stream.scope, op.kind, op.payload)
        });
    }
    let latest_wall_ms = world.nodes[node].latest_wall_ms;
    written.into_iter().try_for_each(|op| world.model.acknowledge(op, latest_wall_ms))
}

/// One request; then what the writer sees must be what it wrote.
fn write<T>(
    world: &mut World,
    node: usize,
    f: impl FnOnce(&mut Tx<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    world.nodes[node].db.transact(f)
}

fn fresh_key(world: &mut World) -> Id {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&world.rng.number().to_le_bytes());
    Id::v7(world.now(), random)
}

/// A key of this kind that is alive at the node, if a few tries find one.
pub fn alive(world: &mut World, node: usize, kind: &'static Kind) -> Result<(Id, Id), Error> {
    let keys = world.model.keys_of(kind);
    for _ in 0..4 {
        if keys.is_empty() {
            break;
        }
        let (tenant, key) = world.rng.pick(&keys);
        if world.nodes[node].db.reader().get(local(world, node, kind), key)?.is_some() {
            return Ok((tenant, key));
        }
    }
    Err(Error::Missing(kind.name))
}

/// The kind as this node's release declares it.
fn local(world: &World, node: usize, kind: &'static Kind) -> &'static Kind {
    world.nodes[node].kinds.iter().find(|k| k.code == kind.code).copied().unwrap_or(kind)
}

pub fn create(world: &mut World, node: usize, kind: &'static Kind, changes: Changes) -> Outcome {
    let (tenant, key) = (world.rng.pick(&TENANTS), fresh_key(world));
    create_as(world, node, kind, tenant, key, changes)
}

fn create_as(
    world: &mut World,
    node: usize,
    kind: &'static Kind,
    tenant: Id,
    key: Id,
    changes: Changes,
) -> Outcome {
    let kind = local(world, node, kind);
    world.model.keys.insert((kind.code, tenant, key));
    write(world, node, |tx| tx.create(kind, tenant, key, changes))?;
    let there = world.nodes[node].db.reader().get(kind, key)?;
    there.map(|_| ()).ok_or(Error::Internal("a created record is not there".into()))
}

pub fn edit(
    world: &mut World,
    node: usize,
    kind: &'static Kind,
    key: Id,
    changes: Changes,
) -> Result<(), Error> {
    let kind = local(world, node, kind);
    let wanted: Vec<(Field, Value)> = changes.registers.clone();
    write(world, node, |tx| tx.edit(kind, key, changes))?;
    let record = world.nodes[node].db.reader().get(kind, key)?.ok_or(Error::Missing(kind.name))?;
    let differs = wanted.iter().find(|(field, value)| record.value(field) != value);
    match differs {
        Some((field, _)) => Err(Error::Internal(format!("{} was not written", field.name))),
        None => Ok(()),
    }
}

fn create_note(world: &mut World, node: usize) -> Outcome {
    let rng = &mut world.rng;
    let mut changes = Changes::new().set(&TITLE, rng.pick(&WORDS));
    if rng.percent(60) {
        changes = changes.set(&SLUG, rng.pick(&NAMES));
    }
    if rng.percent(50) {
        changes = changes.add(&TAGS, rng.pick(&WORDS)).add(&TAGS, "new");
    }
    if rng.percent(80) {
        let words: Vec<&str> = (0..rng.below(12)).map(|_| rng.pick(&WORDS)).collect();
        changes = changes.body(&BODY, words.join(" "));
    }
    if !world.nodes[node].is_old() && world.rng.percent(50) {
        changes = changes.set(&RANK, world.rng.below(9) as i64);
    }
    create(world, node, &NOTE, changes)
}

fn edit_note(world: &mut World, node: usize) -> Outcome {
    let (_, key) = alive(world, node, &NOTE)?;
    let is_old = world.nodes[node].is_old();
    let rng = &mut world.rng;
    let mut changes = Changes::new();
    let mut confirmed = false;
    for _ in 0..rng.between(1, 2) {
        changes = match rng.below(7) {
            0 | 1 => changes.set(&TITLE, format!("{} {}", rng.pick(&WORDS), rng.below(3))),
            2 => changes.set(&SLUG, rng.pick(&NAMES)),
            3 => changes.add(&TAGS, rng.pick(&WORDS)),
            4 => changes.drop(&TAGS, rng.pick(&WORDS)),
            5 if !confirmed => {
                confirmed = true;
                changes.confirm(&SLUG)
            }
            _ if is_old => changes.set(&TITLE, Value::Null),
            _ => changes.set(&RANK, rng.below(9) as i64),
        };
    }
    edit(world, node, &NOTE, key, changes)
}

/// Puts a word of its own into a body, or takes one out.
fn edit_body(world: &mut World, node: usize) -> Outcome {
    let has_badges = !world.nodes[node].is_old();
    let (kind, field) =
        if has_badges && world.rng.percent(30) { (&BADGE, TEXT) } else { (&NOTE, BODY) };
    let (_, key) = alive(world, node, kind)?;
    let kind = local(world, node, kind);
    let record = world.nodes[node].db.reader().get_full(kind, key)?;
    let record = record.ok_or(Error::Missing(kind.name))?;
    let creation = record.state.body(field.code).map(|body| body.creation);
    let mut words: Vec<String> =
        record.body(&field).split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    let mut put_in = None;
    if !words.is_empty() && world.rng.percent(30) {
        let word = words.remove(world.rng.below(words.len()));
        world.model.unwritten.insert(word);
    } else {
        let word = format!("w{}", world.rng.number() % 1_000_000_000);
        words.insert(world.rng.below(words.len() + 1), word.clone());
        if world.plan.revokes && node + 1 == world.plan.nodes {
            // It may come too late.
            world.model.unwritten.insert(word.clone());
        }
        put_in = creation.map(|creation| (kind.code, key, field.code, creation, word));
    }
    let before = world.nodes[node].vectors()?;
    let result = edit(world, node, kind, key, Changes::new().body(&field, words.join(" ")));
    if world.nodes[node].vectors()? != before {
        world.model.words.extend(put_in);
    }
    result
}

fn delete(world: &mut World, node: usize) -> Outcome {
    let kinds = [&NOTE, &NOTE, &PLACE, &MEMBER, &BADGE];
    let kind = local(world, node, world.rng.clone().pick(&kinds));
    world.rng.number();
    let (_, key) = alive(world, node, kind)?;
    remove(world, node, kind, key)
}

fn remove(world: &mut World, node: usize, kind: &'static Kind, key: Id) -> Outcome {
    write(world, node, |tx| tx.remove(kind, key))?;
    match world.nodes[node].db.reader().get(kind, key)? {
        Some(_) => Err(Error::Internal("a deleted record is still there".into())),
        None => Ok(()),
    }
}

fn like(world: &mut World, node: usize) -> Outcome {
    let tenant = world.rng.pick(&TENANTS);
    let user = world.rng.below(4) as u8;
    let key = Id::natural(&[b"like", &tenant.0, &[user]]);
    let is_liked = world.nodes[node].db.reader().get(&LIKE, key)?.is_some();
    if is_liked && world.rng.percent(60) {
        return remove(world, node, &LIKE, key);
    }
    let weight = world.rng.below(4) as i64;
    let changes = Changes::new().set(&WEIGHT, weight);
    if is_liked {
        return edit(world, node, &LIKE, key, changes);
    }
    create_as(world, node, &LIKE, tenant, key, changes)
}

fn count(world: &mut World, node: usize) -> Outcome {
    let tenant = world.rng.pick(&TENANTS);
    let key = Id::natural(&[b"stats", &tenant.0, &[world.rng.below(2) as u8]]);
    let (by, visitor) = (world.rng.between(1, 5), world.rng.number().to_le_bytes());
    world.model.keys.insert((STATS.code, tenant, key));
    write(world, node, |tx| {
        tx.count(&STATS, tenant, key, &[(&VIEWS, by)], &[(&VISITORS, &visitor)])
    })
}

fn place(world: &mut World, node: usize) -> Outcome {
    if world.rng.percent(40) || world.model.keys_of(&PLACE).len() < 3 {
        let tenant = TENANTS[1];
        let key = fresh_key(world);
        return create_as(world, node, &PLACE, tenant, key, Changes::new().set(&LABEL, "p"));
    }
    let (_, key) = alive(world, node, &PLACE)?;
    let (_, parent) = alive(world, node, &PLACE)?;
    let parent = if world.rng.percent(15) { Value::Null } else { Value::Id(parent) };
    edit(world, node, &PLACE, key, Changes::new().set(&PARENT, parent))
}

fn member(world: &mut World, node: usize) -> Outcome {
    let login = world.rng.pick(&NAMES);
    match alive(world, node, &MEMBER) {
        Ok((_, key)) if world.rng.percent(50) => {
            edit(world, node, &MEMBER, key, Changes::new().set(&LOGIN, login))
        }
        _ => create(world, node, &MEMBER, Changes::new().set(&LOGIN, login)),
    }
}

fn badge(world: &mut World, node: usize) -> Outcome {
    if world.nodes[node].is_old() {
        return Ok(());
    }
    let mark = world.rng.pick(&WORDS);
    match alive(world, node, &BADGE) {
        Ok((_, key)) if world.rng.percent(50) => {
            edit(world, node, &BADGE, key, Changes::new().set(&MARK, mark))
        }
        _ => create(world, node, &BADGE, Changes::new().set(&MARK, mark).body(&TEXT, "born")),
    }
}

/// A request that fails after it wrote must leave nothing.
fn fail(world: &mut World, node: usize) -> Outcome {
    let key = fresh_key(world);
    let kind = local(world, node, &NOTE);
    let before = world.nodes[node].db.root()?;
    let result: Result<(), Error> = write(world, node, |tx| {
        tx.create(kind, TENANTS[1], key, Changes::new().set(&SLUG, "intro").body(&BODY, "x"))?;
        tx.count(&STATS, TENANTS[0], key, &[(&VIEWS, 1)], &[])?;
        tx.edit(kind, key, Changes::new().body(&BODY, "x y"))?;
        Err(Error::Missing("reason to go on"))
    });
    if world.nodes[node].db.root()? != before {
        return Err(Error::Internal("a failed request left something".into()));
    }
    result
}

/// Several writes in one request.
fn many(world: &mut World, node: usize) -> Outcome {
    let (kind, tenant) = (local(world, node, &NOTE), world.rng.pick(&TENANTS));
    let keys: Vec<Id> = (0..4).map(|_| fresh_key(world)).collect();
    world.model.keys.extend(keys.iter().map(|key| (kind.code, tenant, *key)));
    write(world, node, |tx| {
        for (n, key) in keys.iter().enumerate() {
            let name = format!("many {n}");
            tx.create(kind, tenant, *key, Changes::new().set(&SLUG, name).body(&BODY, "many"))?;
        }
        tx.edit(kind, keys[0], Changes::new().set(&TITLE, "first").body(&BODY, "many more"))?;
        tx.remove(kind, keys[1])?;
        Ok(())
    })
}
