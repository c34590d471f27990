//! Tags: words that posts share. A tag is unique by its slug, and two nodes that make one apart make the same record.
//! Never deletes a tag that posts still carry: they lose it first.

use super::post::{POST, TAG_IDS};
use super::slug::{checked, slug_of};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Kind, Record, Value};
use serde_json::json;

pub const NAME: Field = Field::text(1, "name").required().max(100).column();
pub const SLUG: Field = Field::text(2, "slug")
    .max(100)
    .claim("tag.slug")
    .doc("Unique in the tenant; made from the name if it is left out.");
pub const DESCRIPTION: Field = Field::text(3, "description").max(1_000);

pub static TAG: Kind = Kind {
    fields: &[NAME, SLUG, DESCRIPTION],
    indexes: &[&["name"], &["slug"]],
    doc: "A word that posts share.",
    ..Kind::new(21, "tag", "tags", super::SCOPE)
};

/// Posts that one transaction takes a tag from.
const DROPPED_AT_ONCE: usize = 200;
/// Tags of one beginning that a suggestion looks at.
const LOOKED_AT: usize = 100;

/// By id or slug, with the number of posts that the public sees under it.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<(Record, u64)> {
    super::read(node, |reader| {
        let tag = super::named(reader, actor, &TAG, &SLUG, name)?;
        let counts = counts(reader, actor.tenant, std::slice::from_ref(&tag))?;
        Ok((tag, counts.into_iter().next().unwrap_or_default()))
    })
}

/// A page of tags, each with the number of posts that the public sees under it. `query` is over [`TAG`] in the
/// actor's tenant.
pub fn list(node: &Node, actor: &Actor, query: &Query) -> Result<(Page, Vec<u64>)> {
    super::read(node, |reader| {
        let page = reader.list(query)?;
        let counts = counts(reader, actor.tenant, &page.records)?;
        Ok((page, counts))
    })
}

/// The posts that the public sees under each of these tags, in one query.
fn counts(reader: &impl Read, tenant: Id, tags: &[Record]) -> Result<Vec<u64>> {
    let live = Query::of(&POST, tenant).filter("live", true);
    let keys: Vec<Value> = tags.iter().map(|tag| Value::Id(tag.key)).collect();
    let counts = reader.count_by(&live, &TAG_IDS, &keys)?;
    Ok(keys.iter().map(|key| counts.get(key).copied().unwrap_or(0)).collect())
}

/// Tags whose slug or name begins like this, the most used first.
pub fn suggest(
    node: &Node,
    actor: &Actor,
    beginning: &str,
    limit: usize,
) -> Result<Vec<(Record, u64)>> {
    let beginning = beginning.trim();
    super::read(node, |reader| {
        let mut tags: Vec<Record> = Vec::new();
        for (column, from) in [("slug", slug_of(beginning)), ("name", beginning.to_owned())] {
            if from.is_empty() {
                continue;
            }
            let query = Query::of(&TAG, actor.tenant)
                .filter_le(column, format!("{from}{}", char::MAX))
                .filter_ge(column, from)
                .sort(column, false);
            for tag in reader.list(&query.limit(LOOKED_AT).without_total())?.records {
                if !tags.iter().any(|known| known.key == tag.key) {
                    tags.push(tag);
                }
            }
        }
        let counts = counts(reader, actor.tenant, &tags)?;
        let mut found: Vec<(Record, u64)> = tags.into_iter().zip(counts).collect();
        found.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.text(&NAME).cmp(b.text(&NAME))));
        found.truncate(limit);
        Ok(found)
    })
}

pub async fn create(node: &Node, actor: &Actor, mut changes: Changes) -> Result<Record> {
    actor.require(Permission::TagsWrite)?;
    kinds::validate(&TAG, &changes, true)?;
    let actor = *actor;
    let name = changes.get(&NAME).and_then(Value::as_text).unwrap_or_default().to_owned();
    let slug = slug_for(super::take(&mut changes, &SLUG).as_ref(), &name)?;
    node.store
        .write(move |tx| {
            refuse_taken(tx, actor.tenant, &slug, None)?;
            create_in(tx, &actor, changes, &slug)
        })
        .await
}

/// What was written, or a slug of the name.
fn slug_for(written: Option<&Value>, name: &str) -> Result<String> {
    match written.and_then(Value::as_text).filter(|text| !text.trim().is_empty()) {
        Some(text) => checked(&SLUG, text),
        None => match slug_of(name) {
            slug if slug.is_empty() => Err(Error::field(
                "slug",
                "required",
                "is required: the name has no letters to make one of",
            )),
            slug => Ok(slug),
        },
    }
}

fn refuse_taken(reader: &impl Read, tenant: Id, slug: &str, key: Option<Id>) -> Result<()> {
    let holder = reader.claimed(tenant, SLUG.claim.unwrap_or_default(), slug)?;
    if holder.is_none() || holder == key {
        return Ok(());
    }
    Err(Error::conflict(
        "slug_taken",
        format!("there is a tag {slug} already: use it, or choose another slug"),
    ))
}

/// The same record on every node that makes a tag of this slug; another one if that was renamed since.
fn create_in(tx: &mut Tx<'_>, actor: &Actor, changes: Changes, slug: &str) -> Result<Record> {
    let natural = Id::natural(&[b"tag", &actor.tenant.0, slug.as_bytes()]);
    let is_free = tx.get(&TAG, natural)?.is_none();
    let key = if is_free { natural } else { tx.new_id() };
    let tag = tx.create(&TAG, actor.tenant, key, changes.set(&SLUG, slug))?;
    super::emit(tx, actor, "postal.tag.created", &tag, &NAME, &SLUG)?;
    audit::note(tx, actor, "tag.created", None, Some(&tag))?;
    Ok(tag)
}

/// The tag of this name, made if there is none. None for a name without letters. `slug`: else one of the name.
pub(super) fn ensure(
    tx: &mut Tx<'_>,
    actor: &Actor,
    name: &str,
    slug: Option<&str>,
) -> Result<Option<Id>> {
    let name: String = name.trim().chars().take(NAME.max).collect();
    let slug = slug_of(slug.unwrap_or(&name));
    if slug.is_empty() {
        return Ok(None);
    }
    if let Some(key) = tx.claimed(actor.tenant, SLUG.claim.unwrap_or_default(), &slug)? {
        return Ok(Some(key));
    }
    Ok(Some(create_in(tx, actor, Changes::new().set(&NAME, name), &slug)?.key))
}

pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    mut changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    actor.require(Permission::TagsWrite)?;
    kinds::validate(&TAG, &changes, false)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let tag = super::in_tenant(tx, &actor, &TAG, key)?;
            super::require_version(&tag, expected)?;
            if let Some(slug) = super::take(&mut changes, &SLUG)
                && slug.as_text() != Some(tag.text(&SLUG))
            {
                let name = changes.get(&NAME).and_then(Value::as_text).unwrap_or(tag.text(&NAME));
                let slug = slug_for(Some(&slug), name)?;
                refuse_taken(tx, actor.tenant, &slug, Some(key))?;
                changes.put(&SLUG, slug);
            }
            let after = tx.edit(&TAG, key, changes)?;
            if after.version() != tag.version() {
                super::emit(tx, &actor, "postal.tag.updated", &after, &NAME, &SLUG)?;
                audit::note(tx, &actor, "tag.updated", Some(&tag), Some(&after))?;
            }
            Ok(after)
        })
        .await
}

/// Takes the tag from every post, some at a time, and deletes it.
pub async fn remove(node: &Node, actor: &Actor, key: Id, expected: Option<[u8; 16]>) -> Result<()> {
    actor.require(Permission::TagsAdminister)?;
    let actor = *actor;
    super::read(node, |reader| {
        let tag = super::in_tenant(reader, &actor, &TAG, key)?;
        super::require_version(&tag, expected)
    })?;
    while node.store.write(move |tx| drop_some(tx, &actor, key)).await? {}
    Ok(())
}

/// Whether there is more to do; the last call deletes the tag.
fn drop_some(tx: &mut Tx<'_>, actor: &Actor, key: Id) -> Result<bool> {
    let tag = super::in_tenant(tx, actor, &TAG, key)?;
    let query = Query::of(&POST, actor.tenant).contains(&TAG_IDS, key).limit(DROPPED_AT_ONCE);
    let page = tx.list(&query.without_total())?;
    for post in &page.records {
        tx.edit(&POST, post.key, Changes::new().drop(&TAG_IDS, key))?;
    }
    if page.next.is_some() {
        return Ok(true);
    }
    super::emit(tx, actor, "postal.tag.deleted", &tag, &NAME, &SLUG)?;
    tx.remove(&TAG, key)?;
    audit::note(tx, actor, "tag.deleted", Some(&tag), None)?;
    Ok(false)
}

/// Makes two tags one: every post that carries the first carries the other instead, and the first is gone.
pub async fn merge(
    node: &Node,
    actor: &Actor,
    key: Id,
    into: Id,
    expected: Option<[u8; 16]>,
) -> Result<(Record, u64)> {
    actor.require(Permission::TagsAdminister)?;
    let by = *actor;
    super::read(node, |reader| {
        let tag = super::in_tenant(reader, &by, &TAG, key)?;
        super::require_version(&tag, expected)?;
        if into == key {
            return Err(Error::field("into", "cycle", "must be another tag"));
        }
        let missing = |_| Error::field("into", "unknown_reference", "there is no such tag");
        super::in_tenant(reader, &by, &TAG, into).map(drop).map_err(missing)
    })?;
    while node.store.write(move |tx| move_some(tx, &by, key, into)).await? {}
    get(node, actor, &into.to_string())
}

/// Whether there is more to do; the last call deletes the tag.
fn move_some(tx: &mut Tx<'_>, actor: &Actor, key: Id, into: Id) -> Result<bool> {
    let tag = super::in_tenant(tx, actor, &TAG, key)?;
    super::in_tenant(tx, actor, &TAG, into)?;
    let query = Query::of(&POST, actor.tenant).contains(&TAG_IDS, key).limit(DROPPED_AT_ONCE);
    let page = tx.list(&query.without_total())?;
    for post in &page.records {
        tx.edit(&POST, post.key, Changes::new().drop(&TAG_IDS, key).add(&TAG_IDS, into))?;
    }
    if page.next.is_some() {
        return Ok(true);
    }
    let (event_type, payload) = ("postal.tag.merged", json!({ "tag_id": key, "into_id": into }));
    tx.emit(&Event { event_type, tenant: actor.tenant, user: actor.user, payload })?;
    tx.remove(&TAG, key)?;
    audit::note(tx, actor, "tag.merged", Some(&tag), None)?;
    Ok(false)
}
