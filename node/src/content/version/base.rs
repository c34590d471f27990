//! Changes by somebody who began from an older version: only what he changed himself is taken for a change, so that he
//! adds to what others did since and undoes nothing.

use super::{
    AFTER, BEFORE, BEFORE_HEADS, HEADS, SNAPSHOT, all_kept, all_of, heads_in, json, numbered,
    unrecorded,
};
use crate::content::post::{BODY, POST};
use crate::error::{Error, Result};
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Merge, Record, Value};
use serde_json::{Map, Value as Json};

/// What somebody began from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Base {
    /// A version, by its number.
    Number(u64),
    /// The post as its ETag named it.
    Tag([u8; 16]),
    /// The body at these heads, with the versioned fields as they were.
    Standing(Vec<[u8; 32]>, Map<String, Json>),
}

/// The versions that are searched for a tag, the latest first.
const SEARCHED: usize = 1_000;

/// How the post stood then.
struct Began {
    heads: Vec<[u8; 32]>,
    /// The versioned fields; none if they are not known.
    fields: Option<Map<String, Json>>,
}

impl Began {
    fn with(version: &Record) -> Self {
        let fields = serde_json::from_str(version.text(&SNAPSHOT)).ok();
        Self { heads: heads_in(version, &HEADS), fields }
    }
}

/// The changes without what only says again what stood in `base`; the body as an edit of the text there.
///
/// # Errors
/// `Conflict` (`unknown_base`) if no version that is kept answers to the base.
pub(in crate::content) fn since(
    reader: &impl Read,
    post: &Record,
    base: &Base,
    mut changes: Changes,
) -> Result<Changes> {
    let Some(began) = find(reader, post, base)? else { return Ok(changes) };
    if let Some(fields) = &began.fields {
        leave_out(&mut changes, fields);
    }
    let Some(text) = changes.get_body(&BODY) else { return Ok(changes) };
    if began.heads == post.heads(&BODY) {
        return Ok(changes);
    }
    if reader.body_at(&POST, post.key, &BODY, &began.heads)? == text {
        changes.bodies.retain(|(field, _)| field.code != BODY.code);
        return Ok(changes);
    }
    Ok(changes.based_on(&BODY, began.heads))
}

/// None if it is the post as it is now.
fn find(reader: &impl Read, post: &Record, base: &Base) -> Result<Option<Began>> {
    let found = match base {
        Base::Number(number) => match numbered(reader, post, *number)? {
            Some(version) => Some(Began::with(&version)),
            None if unrecorded(reader, post, *number)?.is_some() => return Ok(None),
            None => None,
        },
        Base::Tag(tag) if *tag == post.version() => return Ok(None),
        Base::Tag(tag) => tagged(reader, post, tag)?,
        Base::Standing(heads, fields) => {
            Some(Began { heads: heads.clone(), fields: Some(fields.clone()) })
        }
    };
    let unknown = || {
        let message = "base names no version of this post that is kept: read the post again, and repeat the change";
        Error::conflict("unknown_base", message)
    };
    found.map(Some).ok_or_else(unknown)
}

fn tagged(reader: &impl Read, post: &Record, tag: &[u8; 16]) -> Result<Option<Began>> {
    let query = all_of(post).sort("made", true).limit(SEARCHED).without_total();
    let versions = reader.list(&query)?.records;
    if let Some(version) = versions.iter().find(|v| v.bytes(&AFTER) == Some(&tag[..])) {
        return Ok(Some(Began::with(version)));
    }
    let Some(place) = versions.iter().position(|v| v.bytes(&BEFORE) == Some(&tag[..])) else {
        return Ok(None);
    };
    let heads = heads_in(&versions[place], &BEFORE_HEADS);
    // The fields of a post change with its versions only, so they are those of the version before.
    let earlier = versions.get(place + 1).map(Began::with).filter(|b| b.heads == heads);
    Ok(Some(earlier.unwrap_or(Began { heads, fields: None })))
}

/// Leaves out what says the same as `fields`, and of sets what was not the caller's own doing.
fn leave_out(changes: &mut Changes, fields: &Map<String, Json>) {
    let is_kept = |field: &Field| all_kept().any(|kept| kept.code == field.code);
    let was = |field: &Field| fields.get(field.name).unwrap_or(&Json::Null);
    let had = |field: &Field, element: &Value| {
        was(field).as_array().is_some_and(|all| all.contains(&json(element)))
    };
    let is_set = |field: &Field| field.merge == Merge::Set;
    changes.registers.retain(|(field, value)| !is_kept(field) || json(value) != *was(field));
    changes.added.retain(|(field, e)| !is_kept(field) || !is_set(field) || !had(field, e));
    changes.dropped.retain(|(field, e)| !is_kept(field) || !is_set(field) || had(field, e));
}
