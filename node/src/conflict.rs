//! The conflict inbox as people use it: what nodes wrote apart from each other, both values shown, and the ways to
//! settle it. A settlement is an ordinary write: it travels, and the inbox of every node follows.
//! Never hides a conflict that changed after somebody had dismissed it.

pub mod author;
pub mod settlement;

use crate::access::{Actor, Permission};
use crate::content::post::{POST, TRASHED_AT};
use crate::content::version::{Piece, pieces};
use crate::content::workflow;
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::conflict::{Cause, Conflict};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Class, Field, Id, Kind, Merge, Value};
use settlement::Deed;

pub const CONFLICT: Field =
    Field::text(1, "conflict").max(36).doc("The conflict that was looked at.");
pub const BY: Field = Field::refers(2, "dismissed_by", "user").doc("Who looked at it.");

/// Somebody has seen a conflict as it is now and leaves it so.
pub static CONFLICT_DISMISSAL: Kind = Kind {
    class: Class::Fact,
    fields: &[CONFLICT, BY],
    silent: true,
    doc: "A conflict that somebody has seen and left as it is.",
    ..Kind::new(90, "conflict_dismissal", "conflict_dismissals", "inbox")
};

/// Rows looked at for one page, however many of them are dismissed.
const MOST_ROWS: usize = 2_000;
const ROWS_AT_ONCE: usize = 200;

/// How to settle one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// This one of the values shown, by its place in the list.
    Take(usize),
    /// Another value: another name for the record, or another text for the field.
    Write(String),
    /// What an edit brought back is deleted after all.
    Delete,
    /// It stays as it is and leaves the inbox.
    Dismiss,
}

/// A page of the inbox.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub conflicts: Vec<Conflict>,
    pub next: Option<Id>,
}

/// What waits to be looked at in the actor's tenant.
pub fn list(node: &Node, actor: &Actor, limit: usize, after: Option<Id>) -> Result<Inbox> {
    actor.require(Permission::ConflictsRead)?;
    let limit = limit.clamp(1, 100);
    Ok(node.store.read(|reader| page(reader, actor.tenant, limit, after))?)
}

/// For each value of a conflict what turns the winner's text into it, by word; none for the winner, and where one of the
/// two is no text.
pub async fn differences(node: &Node, conflict: &Conflict) -> Result<Vec<Option<Vec<Piece>>>> {
    let winner = conflict.values.iter().find(|value| value.won).map(|value| value.value.clone());
    let values: Vec<Option<Value>> =
        conflict.values.iter().map(|value| (!value.won).then(|| value.value.clone())).collect();
    let compare = move || {
        let texts = |other: Option<Value>| match (&winner, other) {
            (Some(Value::Text(shown)), Some(Value::Text(other))) => Some(pieces(shown, &other)),
            _ => None,
        };
        values.into_iter().map(texts).collect()
    };
    node.run_on_pool(compare).await
}

/// One more than asked for is looked for, so that `next` is only given where there is more.
fn page(
    reader: &impl Read,
    tenant: Id,
    limit: usize,
    mut after: Option<Id>,
) -> atoll_storage::Result<Inbox> {
    let mut conflicts: Vec<Conflict> = Vec::new();
    for _ in 0..MOST_ROWS / ROWS_AT_ONCE {
        let rows = reader.conflicts(Some(tenant), ROWS_AT_ONCE, after)?;
        let is_last = rows.len() < ROWS_AT_ONCE;
        after = rows.last().map(|row| row.id).or(after);
        for row in rows {
            if is_dismissed(reader, &row)? {
                continue;
            }
            if conflicts.len() == limit {
                let next = conflicts.last().map(|last| last.id);
                return Ok(Inbox { conflicts, next });
            }
            conflicts.push(row);
        }
        if is_last {
            return Ok(Inbox { conflicts, next: None });
        }
    }
    Ok(Inbox { conflicts, next: after })
}

/// How many there are in the actor's tenant, dismissed ones included.
pub fn count(node: &Node, actor: &Actor) -> Result<u64> {
    actor.require(Permission::ConflictsRead)?;
    Ok(node.store.read(|reader| reader.conflict_count(Some(actor.tenant)))?)
}

/// One conflict, dismissed or not.
pub fn get(node: &Node, actor: &Actor, id: Id) -> Result<Conflict> {
    actor.require(Permission::ConflictsRead)?;
    let found = node.store.read(|reader| reader.conflict(id))?;
    found.filter(|conflict| conflict.tenant == actor.tenant).ok_or(Error::NotFound("conflict"))
}

/// Settles one conflict of the actor's tenant.
///
/// # Errors
/// `Conflict` (`cannot_take`) where the record is gone, the value is not one that can be written, or nothing was deleted
/// that could be deleted after all.
pub async fn resolve(node: &Node, actor: &Actor, id: Id, resolution: Resolution) -> Result<()> {
    actor.require(Permission::ConflictsResolve)?;
    let actor = *actor;
    node.store
        .write(move |tx: &mut Tx| {
            let found = tx.conflict(id)?.filter(|conflict| conflict.tenant == actor.tenant);
            let conflict = found.ok_or(Error::NotFound("conflict"))?;
            match resolution {
                Resolution::Dismiss => dismiss(tx, &actor, &conflict),
                Resolution::Take(place) => take(tx, &actor, &conflict, place),
                Resolution::Write(text) => write(tx, &actor, &conflict, Value::Text(text)),
                Resolution::Delete => delete(tx, &actor, &conflict),
            }
        })
        .await
}

fn dismiss(tx: &mut Tx, actor: &Actor, conflict: &Conflict) -> Result<()> {
    let dismissal = leave(tx, actor, conflict)?;
    settlement::note(tx, actor, conflict, Deed::Left { dismissal })
}

fn leave(tx: &mut Tx, actor: &Actor, conflict: &Conflict) -> Result<Id> {
    let changes = Changes::new().set(&CONFLICT, conflict.id.to_string()).set(&BY, actor.user);
    let dismissal = dismissal_key(tx, conflict)?;
    tx.create(&CONFLICT_DISMISSAL, conflict.tenant, dismissal, changes)?;
    Ok(dismissal)
}

fn is_dismissed(reader: &impl Read, conflict: &Conflict) -> atoll_storage::Result<bool> {
    Ok(reader.get(&CONFLICT_DISMISSAL, dismissal_key(reader, conflict)?)?.is_some())
}

/// Of the conflict as it stands: another value, or another deletion that an edit overruled, makes another key, and the
/// conflict is back in the inbox.
fn dismissal_key(reader: &impl Read, conflict: &Conflict) -> atoll_storage::Result<Id> {
    let mut seen: Vec<Vec<u8>> = conflict
        .values
        .iter()
        .map(|value| {
            [&value.dot.origin.to_bytes()[..], &value.hlc.0.to_be_bytes(), &value.key.0].concat()
        })
        .collect();
    if conflict.cause == Cause::Revived && conflict.kind == POST.code {
        let post = reader.get(&POST, conflict.key)?;
        let deletion = post.as_ref().and_then(|post| post.state.register(TRASHED_AT.code));
        seen.extend(deletion.map(|cell| {
            [&cell.dot.origin.to_bytes()[..], &cell.hlc.0.to_be_bytes(), &conflict.key.0].concat()
        }));
    }
    seen.sort();
    Ok(Id::natural(&[b"conflict_dismissal", &conflict.id.0, &seen.concat()]))
}

fn take(tx: &mut Tx, actor: &Actor, conflict: &Conflict, place: usize) -> Result<()> {
    let wanted = conflict.values.get(place).ok_or_else(|| {
        let most = conflict.values.len().saturating_sub(1);
        Error::field("take", "out_of_range", format!("is a place in `values`, from 0 to {most}"))
    })?;
    match conflict.cause {
        Cause::Concurrent | Cause::LostWrite => write(tx, actor, conflict, wanted.value.clone()),
        Cause::Claim => {
            let (kind, field) = field_of(conflict)?;
            settlement::note(tx, actor, conflict, settlement::given(conflict, wanted.key))?;
            edit(tx, kind, wanted.key, Changes::new().confirm(field))
        }
        Cause::Revived | Cause::Cycle => dismiss(tx, actor, conflict),
    }
}

/// The field's new value; it is written over all that were concurrent.
fn write(tx: &mut Tx, actor: &Actor, conflict: &Conflict, value: Value) -> Result<()> {
    let (kind, field) = field_of(conflict)?;
    let changes = match (field.merge, &value) {
        (Merge::Set, _) => Changes::new().add(field, value.clone()),
        (Merge::Body, Value::Text(text)) => Changes::new().body(field, text.as_str()),
        _ => Changes::new().set(field, value.clone()),
    };
    kinds::validate(kind, &changes, false)?;
    let is_kept_out = conflict.cause == Cause::LostWrite;
    let dismissal = is_kept_out.then(|| leave(tx, actor, conflict)).transpose()?;
    let deed = settlement::written(tx, conflict, value, dismissal)?;
    // Right before the write: that is how its author is found.
    settlement::note(tx, actor, conflict, deed)?;
    edit(tx, kind, conflict.key, changes)
}

/// The deletion that an edit overruled, once more, by somebody who knows of the edit.
fn delete(tx: &mut Tx, actor: &Actor, conflict: &Conflict) -> Result<()> {
    if conflict.cause != Cause::Revived || conflict.kind != POST.code {
        return Err(cannot_take(
            "only what an edit kept from the trash is deleted from here: take a value, write one, or dismiss the conflict",
        ));
    }
    let (before, at_ms) = workflow::trash_after_all(tx, actor, conflict.key)?;
    settlement::note(tx, actor, conflict, Deed::Deleted { before, at_ms })
}

fn edit(tx: &mut Tx, kind: &'static Kind, key: Id, changes: Changes) -> Result<()> {
    tx.edit(kind, key, changes).map(|_| ()).map_err(gone)
}

fn gone(error: atoll_storage::Error) -> Error {
    match error {
        atoll_storage::Error::Missing(_) => cannot_take(
            "the record was deleted: make a new one with these values, or dismiss the conflict",
        ),
        error => error.into(),
    }
}

fn field_named(kind: u16, field: u16) -> Option<(&'static Kind, &'static Field)> {
    let kind = kinds::ALL.iter().find(|known| known.code == kind)?;
    Some((*kind, kind.field_by_code(field)?))
}

fn field_of(conflict: &Conflict) -> Result<(&'static Kind, &'static Field)> {
    field_named(conflict.kind, conflict.field_code).ok_or_else(|| {
        cannot_take("a newer release made this field: settle it on a node that knows it")
    })
}

fn cannot_take(message: &str) -> Error {
    Error::conflict("cannot_take", message)
}
