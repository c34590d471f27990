//! The history of a post. Each change of its content leaves a version: a fact that is never changed. The first one,
//! the post as it was made, is written only with the first change, under a key that every node makes alike.
//!
//! A version keeps no text: the body's document knows how it stood at the heads that the version names.

use super::post::{
    AUTHOR_ID as POST_AUTHOR_ID, BODY, CANONICAL_URL, CATEGORY_ID, COVER, EXCERPT, FORMAT,
    META_DESCRIPTION, META_TITLE, POST, SLUG, TAG_IDS, TITLE as POST_TITLE, change, for_writing,
    may_see,
};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Class, Derived, Field, Id, Kind, Merge, Record, Type, Value};
use serde_json::{Map, Value as Json};
use similar::TextDiff;
use std::time::Duration;

pub const POST_ID: Field = Field::refers(1, "post_id", "post").column().read_only();
pub const AUTHOR_ID: Field = Field::refers(2, "author_id", "user").read_only();
pub const NOTE: Field = Field::text(3, "note").max(200).read_only();
pub const TITLE: Field = Field::text(4, "title").max(300).read_only();
/// The versioned fields as a JSON object.
pub const SNAPSHOT: Field = Field::text(5, "snapshot").max(1 << 16).secret();
pub const HEADS: Field = Field::bytes(6, "heads").max(32 * 1_000).secret();
/// It is the post as it was made.
pub const FIRST: Field = Field::flag(7, "first").secret();

pub static POST_VERSION: Kind = Kind {
    class: Class::Fact,
    fields: &[POST_ID, AUTHOR_ID, NOTE, TITLE, SNAPSHOT, HEADS, FIRST],
    derived: &[Derived { name: "made", ty: Type::Int, value: |version| Value::Int(made(version)) }],
    indexes: &[&["post_id", "made"]],
    doc: "A post as it stood after one change.",
    ..Kind::new(23, "post_version", "post_versions", super::SCOPE)
};

/// The fields that a version keeps, beside the body.
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
/// A diff that takes longer gives what it has: correct, if not the smallest.
const DIFF_TIME: Duration = Duration::from_millis(200);

/// What versions are ordered by: the stamp of their making; the first one before all others, whatever the clocks.
fn made(version: &Record) -> i64 {
    if version.flag(&FIRST) { 0 } else { version.state.created_hlc().0 as i64 }
}

fn first_key(post: &Record) -> Id {
    Id::natural(&[b"post_version", &post.tenant.0, &post.key.0, b"first"])
}

/// Before the first change of a post: how it was made. Later it does nothing.
pub(super) fn keep_first(tx: &mut Tx<'_>, post: &Record) -> Result<()> {
    let key = first_key(post);
    if tx.get(&POST_VERSION, key)?.is_none() {
        let version = described(post).set(&AUTHOR_ID, post.id(&POST_AUTHOR_ID)).set(&FIRST, true);
        tx.create(&POST_VERSION, post.tenant, key, version)?;
    }
    Ok(())
}

/// After a change: how the post stands now, and who made it so.
pub(super) fn keep(tx: &mut Tx<'_>, actor: &Actor, post: &Record, note: &str) -> Result<()> {
    let key = tx.new_id();
    let note = Some(note).filter(|note| !note.is_empty());
    let version = described(post).set(&AUTHOR_ID, actor.user).set(&NOTE, note);
    tx.create(&POST_VERSION, post.tenant, key, version)?;
    Ok(())
}

fn described(post: &Record) -> Changes {
    Changes::new()
        .set(&POST_ID, post.key)
        .set(&TITLE, post.text(&POST_TITLE))
        .set(&SNAPSHOT, Json::Object(snapshot(post)).to_string())
        .set(&HEADS, Value::Bytes(post.heads(&BODY).as_flattened().to_vec()))
}

/// As the fields' values go over HTTP; the empty ones are left out.
fn snapshot(post: &Record) -> Map<String, Json> {
    let json = |value: &Value| serde_json::to_value(value).unwrap_or_default();
    let mut fields = Map::new();
    for field in KEPT {
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
        }
    }

    /// The only version of a post that was never changed: there is no record of it.
    fn only(post: &Record) -> Self {
        Self {
            number: 1,
            id: first_key(post),
            made_ms: post.created_ms(),
            author_id: post.id(&POST_AUTHOR_ID),
            title: post.text(&POST_TITLE).to_owned(),
            note: String::new(),
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

/// What lies between two versions.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Difference {
    pub from: u64,
    pub to: u64,
    /// Names of the fields that differ, each with the value before and after.
    pub fields: Map<String, Json>,
    /// Of the body, as a unified diff; empty if it is the same.
    pub body: String,
}

/// For the author of the post and for editors.
fn readable(reader: &impl Read, actor: &Actor, key: Id) -> Result<Record> {
    let post = reader
        .get_full(&POST, key)?
        .filter(|post| may_see(actor, post))
        .ok_or(Error::NotFound("post"))?;
    actor.require_owner_or(post.id(&POST_AUTHOR_ID), Permission::PostsWrite)?;
    Ok(post)
}

fn all_of(post: &Record) -> Query {
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
        let page = reader.list(&all_of(&post).sort("made", true).limit(limit).after(after))?;
        if page.total == 0 {
            return Ok(Versions { versions: vec![Version::only(&post)], next: None, total: 1 });
        }
        let mut number = match page.records.first() {
            Some(latest) => reader.count(&all_of(&post).filter_le("made", made(latest)))?,
            None => 0,
        };
        let mut versions = Vec::with_capacity(page.records.len());
        for record in &page.records {
            versions.push(Version::of(record, number, &post));
            number = number.saturating_sub(1);
        }
        Ok(Versions { versions, next: page.next, total: page.total })
    })
}

pub fn get(node: &Node, actor: &Actor, key: Id, number: u64) -> Result<Standing> {
    super::read(node, |reader| {
        let post = readable(reader, actor, key)?;
        standing(reader, &post, number)
    })
}

/// What turns version `from` into version `to`.
pub async fn difference(
    node: &Node,
    actor: &Actor,
    key: Id,
    from: u64,
    to: u64,
) -> Result<Difference> {
    let (before, after) = super::read(node, |reader| {
        let post = readable(reader, actor, key)?;
        Ok((standing(reader, &post, from)?, standing(reader, &post, to)?))
    })?;
    let fields = changed_fields(&before.post, &after.post);
    let body = node.run_on_pool(move || unified(from, &before.body, to, &after.body)).await?;
    Ok(Difference { from, to, fields, body })
}

fn changed_fields(before: &Map<String, Json>, after: &Map<String, Json>) -> Map<String, Json> {
    let mut changed = Map::new();
    for field in KEPT {
        let (was, is) = (before.get(field.name), after.get(field.name));
        if was != is {
            changed.insert(field.name.to_owned(), serde_json::json!({ "from": was, "to": is }));
        }
    }
    changed
}

fn unified(from: u64, before: &str, to: u64, after: &str) -> String {
    let diff = TextDiff::configure().timeout(DIFF_TIME).diff_lines(before, after);
    let (before, after) = (format!("version {from}"), format!("version {to}"));
    diff.unified_diff().context_radius(3).header(&before, &after).to_string()
}

/// The version of this number, with the body's text.
fn standing(reader: &impl Read, post: &Record, number: u64) -> Result<Standing> {
    let Some(record) = numbered(reader, post, number)? else {
        if number == 1 && reader.count(&all_of(post))? == 0 {
            let body = post.body(&BODY).to_owned();
            return Ok(Standing { version: Version::only(post), post: snapshot(post), body });
        }
        return Err(Error::NotFound("version"));
    };
    let (heads, _) = record.bytes(&HEADS).unwrap_or_default().as_chunks::<32>();
    let body = reader.body_at(&POST, post.key, &BODY, heads)?;
    let fields = serde_json::from_str(record.text(&SNAPSHOT)).unwrap_or_default();
    Ok(Standing { version: Version::of(&record, number, post), post: fields, body })
}

fn numbered(reader: &impl Read, post: &Record, number: u64) -> Result<Option<Record>> {
    const AT_ONCE: usize = 1_000;
    let Some(mut place) = number.checked_sub(1) else { return Ok(None) };
    let mut after = None;
    loop {
        let limit = usize::try_from(place).map_or(AT_ONCE, |place| (place + 1).min(AT_ONCE));
        let query = all_of(post).sort("made", false).limit(limit).after(after).without_total();
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
/// slug stays, for addresses lead to it.
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
