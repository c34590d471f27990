//! Tags: words that posts share. A tag is unique by its slug, and two nodes that make one apart make the same record.
//! Never deletes a tag that posts still carry: they lose it first.

use super::post::{POST, TAG_IDS};
use super::slug::{checked, slug_of};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record, Value};

pub const NAME: Field = Field::text(1, "name").required().max(100).column();
pub const SLUG: Field = Field::text(2, "slug")
    .max(100)
    .claim("tag.slug")
    .doc("Unique in the tenant; made from the name if it is left out.");
pub const DESCRIPTION: Field = Field::text(3, "description").max(1_000);

pub static TAG: Kind = Kind {
    fields: &[NAME, SLUG, DESCRIPTION],
    indexes: &[&["name"]],
    doc: "A word that posts share.",
    ..Kind::new(21, "tag", "tags", super::SCOPE)
};

/// Posts that one transaction takes a tag from.
const DROPPED_AT_ONCE: usize = 200;

/// By id or slug, with the number of posts that the public sees under it.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<(Record, u64)> {
    super::read(node, |reader| {
        let tag = super::named(reader, actor, &TAG, &SLUG, name)?;
        let posts = count(reader, &tag)?;
        Ok((tag, posts))
    })
}

/// A page of tags, each with the number of posts that the public sees under it. `query` is over [`TAG`] in the
/// actor's tenant.
pub fn list(node: &Node, query: &Query) -> Result<(Page, Vec<u64>)> {
    super::read(node, |reader| {
        let page = reader.list(query)?;
        let counts =
            page.records.iter().map(|tag| count(reader, tag)).collect::<Result<Vec<u64>>>()?;
        Ok((page, counts))
    })
}

fn count(reader: &impl Read, tag: &Record) -> Result<u64> {
    let posts = Query::of(&POST, tag.tenant).contains(&TAG_IDS, tag.key).filter("live", true);
    Ok(reader.count(&posts)?)
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
    Ok(false)
}
