//! The history of a post. Each change of its content leaves a version: a fact that is never changed. The first one,
//! the post as it was made, is written only with the first change, under a key that every node makes alike.
//!
//! A version keeps no text: the body's document knows how it stood at the heads that the version names.
//!
//! Bodies that were edited on two nodes make a text that nobody wrote. It shows as a version of nobody's, and is written
//! down with the next change, under a key that every node makes alike too.

mod base;
mod difference;

pub use base::Base;
pub(super) use base::since;
pub use difference::{By, Difference, Piece, difference, pieces};

use super::post::{
    AUTHOR_ID as POST_AUTHOR_ID, AUTHOR_IDS, BODY, CANONICAL_URL, CATEGORY_ID, COVER, EXCERPT,
    FEATURED, FORMAT, META_DESCRIPTION, META_TITLE, NOINDEX, PINNED, POST, SLUG, TAG_IDS,
    TITLE as POST_TITLE, VISIBILITY, VISIBLE_TO_ROLES, change, for_writing, may_see,
    require_author_or,
};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Class, Derived, Field, Id, Kind, Merge, Record, Type, Value};
use serde_json::{Map, Value as Json};

pub const POST_ID: Field = Field::refers(1, "post_id", "post").column().read_only();
pub const AUTHOR_ID: Field = Field::refers(2, "author_id", "user").read_only();
pub const NOTE: Field = Field::text(3, "note").max(200).read_only();
pub const TITLE: Field = Field::text(4, "title").max(300).read_only();
/// The versioned fields as a JSON object.
pub const SNAPSHOT: Field = Field::text(5, "snapshot").max(1 << 16).secret();
pub const HEADS: Field = Field::bytes(6, "heads").max(32 * 1_000).secret();
/// It is the post as it was made.
pub const FIRST: Field = Field::flag(7, "first").secret();
/// Texts that were written apart meet in it.
pub const MERGED: Field = Field::flag(20, "merged").read_only();
/// The post's version after the change and before it: what its ETag told.
pub const AFTER: Field = Field::bytes(21, "after").max(16).secret();
pub const BEFORE: Field = Field::bytes(22, "before").max(16).secret();
pub const BEFORE_HEADS: Field = Field::bytes(23, "before_heads").max(32 * 1_000).secret();

pub static POST_VERSION: Kind = Kind {
    class: Class::Fact,
    fields: &[
        POST_ID,
        AUTHOR_ID,
        NOTE,
        TITLE,
        SNAPSHOT,
        HEADS,
        FIRST,
        MERGED,
        AFTER,
        BEFORE,
        BEFORE_HEADS,
    ],
    derived: &[Derived { name: "made", ty: Type::Int, value: |version| Value::Int(made(version)) }],
    indexes: &[&["post_id", "made"]],
    doc: "A post as it stood after one change.",
    ..Kind::new(23, "post_version", "post_versions", super::SCOPE)
};

/// The fields that a version keeps and that a revert brings back, beside the body.
const KEPT: [&Field; 10] = [
    &POST_TITLE,
    &SLUG,
    &EXCERPT,
    &FORMAT,
    &CATEGORY_ID,
    &TAG_IDS,
    &COVER,
    &META_TITLE,
    &META_DESCRIPTION,
    &CANONICAL_URL,
];
/// The fields that a version tells and a revert leaves alone: who writes the post, who sees it, where it stands.
const TOLD: [&Field; 6] =
    [&AUTHOR_IDS, &FEATURED, &PINNED, &VISIBILITY, &VISIBLE_TO_ROLES, &NOINDEX];

fn all_kept() -> impl Iterator<Item = &'static Field> {
    KEPT.into_iter().chain(TOLD)
}
/// The latest versions that are searched for one that holds the present body.
const LATEST: usize = 10;

/// What versions are ordered by: the stamp of their making; the first one before all others, whatever the clocks.
fn made(version: &Record) -> i64 {
    if version.flag(&FIRST) { 0 } else { version.state.created_hlc().0 as i64 }
}

pub(crate) fn first_key(tenant: Id, post: Id) -> Id {
    Id::natural(&[b"post_version", &tenant.0, &post.0, b"first"])
}

fn merged_key(post: &Record) -> Id {
    let heads = post.heads(&BODY).as_flattened();
    Id::natural(&[b"post_version", &post.tenant.0, &post.key.0, b"merged", heads])
}

pub(super) fn heads_of(post: &Record) -> Value {
    Value::Bytes(post.heads(&BODY).as_flattened().to_vec())
}

/// Whether the body is one that edits made together and no version holds.
fn is_new_merge(reader: &impl Read, post: &Record) -> Result<bool> {
    if post.heads(&BODY).len() < 2 || reader.get(&POST_VERSION, merged_key(post))?.is_some() {
        return Ok(false);
    }
    let latest = all_of(post).sort("made", true).limit(LATEST).without_total();
    let heads = heads_of(post);
    Ok(!reader.list(&latest)?.records.iter().any(|version| *version.value(&HEADS) == heads))
}

/// Before a change: what no version holds yet, how the post was made or what edits made together.
pub(super) fn keep_before(tx: &mut Tx<'_>, post: &Record) -> Result<()> {
    let key = first_key(post.tenant, post.key);
    if tx.get(&POST_VERSION, key)?.is_none() {
        let version = described(post).set(&AUTHOR_ID, post.id(&POST_AUTHOR_ID)).set(&FIRST, true);
        tx.create(&POST_VERSION, post.tenant, key, version)?;
    }
    if is_new_merge(tx, post)? {
        let version = described(post).set(&MERGED, true);
        tx.create(&POST_VERSION, post.tenant, merged_key(post), version)?;
    }
    Ok(())
}

/// After a change: how the post stands now, and who made it so.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    actor: &Actor,
    before: &Record,
    after: &Record,
    note: &str,
) -> Result<()> {
    let key = tx.new_id();
    let note = Some(note).filter(|note| !note.is_empty());
    let is_merged = after.heads(&BODY).len() > 1 && after.heads(&BODY) != before.heads(&BODY);
    let version = described(after)
        .set(&AUTHOR_ID, actor.user)
        .set(&NOTE, note)
        .set(&MERGED, is_merged.then_some(true))
        .set(&AFTER, Value::Bytes(after.version().to_vec()))
        .set(&BEFORE, Value::Bytes(before.version().to_vec()))
        .set(&BEFORE_HEADS, heads_of(before));
    tx.create(&POST_VERSION, after.tenant, key, version)?;
    Ok(())
}

pub(super) fn check_note(note: &str) -> Result<()> {
    if note.chars().count() > NOTE.max || note.contains('\0') {
        let message = format!("takes at most {} characters, and not U+0000", NOTE.max);
        return Err(Error::field(NOTE.name, "too_long", message));
    }
    Ok(())
}

fn described(post: &Record) -> Changes {
    Changes::new()
        .set(&POST_ID, post.key)
        .set(&TITLE, post.text(&POST_TITLE))
        .set(&SNAPSHOT, Json::Object(snapshot(post)).to_string())
        .set(&HEADS, heads_of(post))
}

/// As it goes over HTTP.
fn json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// The fields' values as they go over HTTP; the empty ones are left out.
pub(super) fn snapshot(post: &Record) -> Map<String, Json> {
    let mut fields = Map::new();
    for field in all_kept() {
        let value = match field.merge {
            Merge::Set => Json::Array(post.set(field).map(json).collect()),
            _ if field.claim.is_some() => Json::from(post.text(field)),
            _ => json(post.value(field)),
        };
        if !value.is_null() && value != Json::Array(vec![]) {
            fields.insert(field.name.to_owned(), value);
        }
    }
    fields
}

/// One line of a post's history.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Version {
    /// Its place among all versions of the post, from 1. A node that was away can bring older ones in between.
    pub number: u64,
    pub id: Id,
    #[serde(skip)]
    pub made_ms: u64,
    pub author_id: Option<Id>,
    pub title: String,
    pub note: String,
    /// Texts that were written apart meet in it; of nobody's if two nodes met.
    pub merged: bool,
}

impl Version {
    fn of(record: &Record, number: u64, post: &Record) -> Self {
        let made_ms = if record.flag(&FIRST) { post.created_ms() } else { record.created_ms() };
        Self {
            number,
            id: record.key,
            made_ms,
            author_id: record.id(&AUTHOR_ID),
            title: record.text(&TITLE).to_owned(),
            note: record.text(&NOTE).to_owned(),
            merged: record.flag(&MERGED),
        }
    }

    /// The only version of a post that was never changed: there is no record of it.
    fn only(post: &Record) -> Self {
        Self {
            number: 1,
            id: first_key(post.tenant, post.key),
            made_ms: post.created_ms(),
            author_id: post.id(&POST_AUTHOR_ID),
            title: post.text(&POST_TITLE).to_owned(),
            note: String::new(),
            merged: false,
        }
    }

    /// What edits made together, while there is no record of it.
    fn merged(post: &Record, number: u64) -> Self {
        Self {
            number,
            id: merged_key(post),
            made_ms: post.updated_ms(),
            author_id: None,
            merged: true,
            ..Self::only(post)
        }
    }
}

pub struct Versions {
    /// The latest first.
    pub versions: Vec<Version>,
    pub next: Option<Cursor>,
    pub total: u64,
}

/// The whole post as it stood.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Standing {
    #[serde(flatten)]
    pub version: Version,
    /// The fields that had a value.
    pub post: Map<String, Json>,
    pub body: String,
}

/// For the authors of the post and for editors.
pub(super) fn readable(reader: &impl Read, actor: &Actor, key: Id) -> Result<Record> {
    let post = reader
        .get_full(&POST, key)?
        .filter(|post| may_see(actor, post))
        .ok_or(Error::NotFound("post"))?;
    require_author_or(actor, &post, Permission::PostsWrite)?;
    Ok(post)
}

pub(super) fn all_of(post: &Record) -> Query {
    Query::of(&POST_VERSION, post.tenant).filter("post_id", post.key)
}

pub fn list(
    node: &Node,
    actor: &Actor,
    key: Id,
    limit: usize,
    after: Option<Cursor>,
) -> Result<Versions> {
    super::read(node, |reader| {
        let post = readable(reader, actor, key)?;
        let is_top = after.is_none();
        let merged = is_new_merge(reader, &post)?;
        let shows_merged = merged && is_top;
        let rest = limit.saturating_sub(usize::from(shows_merged));
        let mut page =
            reader.list(&all_of(&post).sort("made", true).limit(rest.max(1)).after(after))?;
        if page.total == 0 {
            return Ok(Versions { versions: vec![Version::only(&post)], next: None, total: 1 });
        }
        if rest == 0 {
            page.records.clear();
            page.next = Some(top());
        }
        let mut number = match page.records.first() {
            Some(latest) => reader.count(&all_of(&post).filter_le("made", made(latest)))?,
            None => 0,
        };
        let mut versions = Vec::with_capacity(limit);
        if shows_merged {
            versions.push(Version::merged(&post, page.total + 1));
        }
        for record in &page.records {
            versions.push(Version::of(record, number, &post));
            number = number.saturating_sub(1);
        }
        Ok(Versions { versions, next: page.next, total: page.total + u64::from(merged) })
    })
}

/// Before all records of a list that descends.
fn top() -> Cursor {
    Cursor { value: Value::Int(i64::MAX), key: Id([0xff; 16]) }
}

pub fn get(node: &Node, actor: &Actor, key: Id, number: u64) -> Result<Standing> {
    super::read(node, |reader| {
        let post = readable(reader, actor, key)?;
        standing(reader, &post, number)
    })
}

/// The version of this number, with the body's text.
fn standing(reader: &impl Read, post: &Record, number: u64) -> Result<Standing> {
    let Some(record) = numbered(reader, post, number)? else {
        let version = unrecorded(reader, post, number)?.ok_or(Error::NotFound("version"))?;
        return Ok(Standing { version, post: snapshot(post), body: post.body(&BODY).to_owned() });
    };
    let body = reader.body_at(&POST, post.key, &BODY, &heads_in(&record, &HEADS))?;
    let fields = serde_json::from_str(record.text(&SNAPSHOT)).unwrap_or_default();
    Ok(Standing { version: Version::of(&record, number, post), post: fields, body })
}

pub(super) fn heads_in(version: &Record, field: &Field) -> Vec<[u8; 32]> {
    version.bytes(field).unwrap_or_default().as_chunks::<32>().0.to_vec()
}

/// The version of this number if it is the present state of the post, and there is no record of it.
fn unrecorded(reader: &impl Read, post: &Record, number: u64) -> Result<Option<Version>> {
    let recorded = reader.count(&all_of(post))?;
    if number != recorded + 1 {
        return Ok(None);
    }
    if recorded == 0 {
        return Ok(Some(Version::only(post)));
    }
    Ok(is_new_merge(reader, post)?.then(|| Version::merged(post, number)))
}

fn numbered(reader: &impl Read, post: &Record, number: u64) -> Result<Option<Record>> {
    const AT_ONCE: usize = 1_000;
    let recorded = reader.count(&all_of(post))?;
    let (Some(above), Some(below)) = (recorded.checked_sub(number), number.checked_sub(1)) else {
        return Ok(None);
    };
    // From the nearer end.
    let (mut place, is_late) = (above.min(below), above < below);
    let mut after = None;
    loop {
        let limit = usize::try_from(place).map_or(AT_ONCE, |place| (place + 1).min(AT_ONCE));
        let query = all_of(post).sort("made", is_late).limit(limit).after(after).without_total();
        let page = reader.list(&query)?;
        if place < page.records.len() as u64 {
            return Ok(page.records.into_iter().nth(place as usize));
        }
        place -= page.records.len() as u64;
        after = page.next;
        if after.is_none() {
            return Ok(None);
        }
    }
}

/// Makes the post say again what it said in a version: a change like any other, and so a version of its own. The
/// slug stays, for addresses lead to it; so do its authors, its audience and its place.
pub async fn revert(
    node: &Node,
    actor: &Actor,
    key: Id,
    number: u64,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let actor = *actor;
    node.store
        .write(move |tx| {
            let post = for_writing(tx, &actor, key, expected)?;
            let old = standing(tx, &post, number)?;
            let changes = restoring(tx, &post, &old)?;
            change(tx, &actor, &post, changes, &format!("back to version {number}"))
        })
        .await
}

/// A category or tag that is gone since stays gone.
fn restoring(reader: &impl Read, post: &Record, old: &Standing) -> Result<Changes> {
    let exists = |field: &Field, value: &Value| -> Result<bool> {
        match (field.refers.and_then(crate::kinds::named), value.as_id()) {
            (Some(kind), Some(id)) => {
                Ok(reader.get(kind, id)?.is_some_and(|found| found.tenant == post.tenant))
            }
            _ => Ok(true),
        }
    };
    let mut changes = Changes::new().body(&BODY, old.body.as_str());
    for field in KEPT.into_iter().filter(|field| field.claim.is_none()) {
        let json = old.post.get(field.name);
        if field.merge == Merge::Set {
            let elements = json
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
                .map(|json| value_of(field, json));
            let wanted: Vec<Value> = elements.collect();
            for gone in post.set(field).filter(|element| !wanted.contains(element)) {
                changes = changes.drop(field, gone.clone());
            }
            for element in
                wanted.into_iter().filter(|element| !element.is_null() && !post.has(field, element))
            {
                if exists(field, &element)? {
                    changes = changes.add(field, element);
                }
            }
            continue;
        }
        let value = json.map_or(Value::Null, |json| value_of(field, json));
        let value = if exists(field, &value)? { value } else { Value::Null };
        changes.put(field, value);
    }
    Ok(changes)
}

fn value_of(field: &Field, json: &Json) -> Value {
    match (field.ty, json) {
        (Type::Id, Json::String(text)) => Id::parse(text).map_or(Value::Null, Value::Id),
        (Type::Text, Json::String(text)) => Value::from(text.as_str()),
        (Type::Bool, Json::Bool(flag)) => Value::Bool(*flag),
        (Type::Int | Type::Time, json) => json.as_i64().map_or(Value::Null, Value::Int),
        _ => Value::Null,
    }
}
