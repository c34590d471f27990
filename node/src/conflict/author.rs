//! Who wrote the values of conflicts. An op names the node that made it and not the user; he stands in a record that the
//! same request wrote. It is found by dot or stamp and never guessed: where none fits, nobody is named.

use super::settlement::{self, SETTLEMENT};
use crate::audit::{self, AUDIT_ENTRY};
use crate::community::comment::{self, COMMENT};
use crate::content::autosave::{self, POST_AUTOSAVE};
use crate::content::post::POST;
use crate::content::version::{self, POST_VERSION};
use crate::error::Result;
use crate::identity::user::{DISPLAY_NAME, USER, USERNAME};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::conflict::{Conflict, ConflictValue};
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::{Dot, Hlc, Id, Kind, NodeId, Record};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Records of one kind that are looked through for one value.
const NEAR: usize = 20;
/// Values of one conflict that are looked up.
const MOST_VALUES: usize = 20;
/// By how many stamps the last write of a request may stand behind its first.
const FURTHEST: u64 = 1 << 10;

/// Somebody, as others see him.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    pub id: Id,
    pub username: String,
    /// The username if he gave none.
    pub display_name: String,
}

/// Who wrote a value, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// None: it is not known, or nobody did.
    pub author: Option<Person>,
    /// As this node calls that one; none if it does not know it.
    pub node_name: Option<String>,
}

/// For each conflict the sources of its values, in their order. Conflicts are those of a page.
pub fn sources(node: &Node, conflicts: &[Conflict]) -> Result<Vec<Vec<Source>>> {
    let mut names = HashMap::new();
    let all = node.store.read(|reader| {
        let mut of = |conflict: &Conflict| -> atoll_storage::Result<Vec<Source>> {
            let mut all = Vec::with_capacity(conflict.values.len());
            for (place, value) in conflict.values.iter().enumerate() {
                let author =
                    if place < MOST_VALUES { user_of(reader, conflict, value)? } else { None };
                let at = value.dot.origin.node;
                if let Entry::Vacant(free) = names.entry(at) {
                    free.insert(name_of(node, reader, at)?);
                }
                let node_name = names.get(&at).cloned().flatten();
                all.push(Source { author: author.as_ref().map(person), node_name });
            }
            Ok(all)
        };
        conflicts.iter().map(&mut of).collect::<atoll_storage::Result<Vec<_>>>()
    })?;
    Ok(all)
}

/// Accounts of other tenants are shown to nobody here.
fn user_of(
    reader: &impl Read,
    conflict: &Conflict,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Record>> {
    let author = writer(reader, conflict, value)?;
    let user = author.map(|id| reader.get(&USER, id)).transpose()?.flatten();
    Ok(user.filter(|user| user.tenant == conflict.tenant))
}

fn person(user: &Record) -> Person {
    let display_name = user.opt_text(&DISPLAY_NAME).unwrap_or(user.text(&USERNAME));
    Person {
        id: user.key,
        username: user.text(&USERNAME).to_owned(),
        display_name: display_name.to_owned(),
    }
}

fn name_of(node: &Node, reader: &impl Read, at: NodeId) -> atoll_storage::Result<Option<String>> {
    if at == node.id() {
        return Ok(Some(node.config.name.clone()));
    }
    Ok(atoll_storage::peer::find(reader, at)?.map(|peer| peer.name))
}

/// The user whose request wrote the value.
pub(super) fn writer(
    reader: &impl Read,
    conflict: &Conflict,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Id>> {
    let Some(kind) = kinds::ALL.iter().copied().find(|kind| kind.code == conflict.kind) else {
        return Ok(None);
    };
    if let Some(record) = reader.get(kind, value.key)?
        && let Some(author) = by_itself(kind, &record, value.dot)
    {
        return Ok(Some(author));
    }
    if kind.code == POST.code
        && let Some(version) = version_after(reader, conflict.tenant, value)?
    {
        return Ok(version.id(&version::AUTHOR_ID));
    }
    if let Some(entry) = entry_after(reader, conflict, value)? {
        return Ok(entry.id(&audit::ACTOR_ID));
    }
    if let Some(author) = settlement::first_writer(reader, conflict, value)? {
        return Ok(Some(author));
    }
    by_settlement(reader, conflict, value)
}

/// The op wrote who the author is along with the value, or it is one that only the author may write.
fn by_itself(kind: &Kind, record: &Record, dot: Dot) -> Option<Id> {
    if kind.code == POST_AUTOSAVE.code {
        return record.id(&autosave::USER_ID);
    }
    let author_id = kind.field("author_id")?;
    let cell = record.state.cells_of(author_id.code).iter().find(|cell| cell.dot == dot);
    if let Some(author) = cell.and_then(|cell| cell.value.as_id()) {
        return Some(author);
    }
    let edits = record.state.cells_of(comment::EDITED_AT.code);
    let is_edit = kind.code == COMMENT.code && edits.iter().any(|cell| cell.dot == dot);
    is_edit.then(|| record.id(author_id)).flatten()
}

/// The version that an edit of a post leaves is the next op of its node on that stream.
fn version_after(
    reader: &impl Read,
    tenant: Id,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Record>> {
    let next = Dot { seq: value.dot.seq + 1, ..value.dot };
    let made = value.hlc.0 as i64;
    let of_post = || {
        Query::of(&POST_VERSION, tenant).filter("post_id", value.key).limit(NEAR).without_total()
    };
    // An edit of what a clock far ahead wrote has a stamp beyond that of its version.
    let nearest = [
        of_post().filter_ge("made", made).sort("made", false),
        of_post().filter_le("made", made).sort("made", true),
    ];
    for query in nearest {
        let found = reader.list(&query)?.records.into_iter().find(|version| {
            version.state.creations.contains_key(&next) && !version.value(&version::AFTER).is_null()
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The nearest entry of the audit log after the write, by the same node, that says that this field of this record
/// changed. A later change of the field there would have taken the value's place.
fn entry_after(
    reader: &impl Read,
    conflict: &Conflict,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Record>> {
    let at_ms = value.hlc.ms() as i64;
    let query = Query::of(&AUDIT_ENTRY, conflict.tenant)
        .filter("target_id", value.key)
        .filter_ge("created_at", at_ms)
        .filter_le("created_at", at_ms + 1)
        .sort("created_at", false)
        .limit(NEAR)
        .without_total();
    let tells = |entry: &Record| {
        let changes = serde_json::from_str::<Map<String, Json>>(entry.text(&audit::CHANGES));
        entry.opt_text(&audit::TARGET_KIND) == Some(conflict.kind_name.as_str())
            && changes.is_ok_and(|changes| changes.contains_key(&conflict.field))
    };
    let stamp = |entry: &Record| stamp_of(entry, value.dot);
    let entries = reader.list(&query)?.records.into_iter().filter(|entry| {
        let is_next = stamp(entry).is_some_and(|stamp| follows(value.hlc, stamp, FURTHEST));
        is_next && tells(entry)
    });
    Ok(entries.min_by_key(stamp))
}

/// When the origin of `dot` made the record; none if another one did.
fn stamp_of(record: &Record, dot: Dot) -> Option<Hlc> {
    let mut creations = record.state.creations.iter();
    creations.find(|(made, _)| made.origin == dot.origin).map(|(_, stamp)| *stamp)
}

/// Whether `stamp` comes after `first`, by so many at the most.
fn follows(first: Hlc, stamp: Hlc, most: u64) -> bool {
    stamp > first && stamp.0 - first.0 <= most
}

/// A settlement stands right before the write that settled.
fn by_settlement(
    reader: &impl Read,
    conflict: &Conflict,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Id>> {
    let at_ms = value.hlc.ms() as i64;
    let query = Query::of(&SETTLEMENT, conflict.tenant)
        .filter_ge("created_at", at_ms - 1)
        .filter_le("created_at", at_ms)
        .sort("created_at", true)
        .limit(NEAR)
        .without_total();
    let wrote = |settled: &Record| {
        settled.id(&settlement::KEY) == Some(value.key)
            && settled.opt_text(&settlement::FIELD) == Some(conflict.field.as_str())
            && stamp_of(settled, value.dot).is_some_and(|stamp| follows(stamp, value.hlc, 1))
    };
    let found = reader.list(&query)?.records.into_iter().find(wrote);
    Ok(found.and_then(|settled| settled.id(&settlement::BY)))
}
