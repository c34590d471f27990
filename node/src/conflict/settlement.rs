//! What was done about conflicts, so that it can be seen and undone. Holds no value of an account: those must go with it.

use super::{CONFLICT_DISMISSAL, author, cannot_take, edit, field_named, gone};
use crate::access::{Actor, Permission};
use crate::content::workflow::{self, Overruled};
use crate::error::{Error, Result};
use crate::identity::user::USER;
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::conflict::{Cause, Conflict, ConflictValue};
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Merge, Record, Shown, Value, codec};

pub const CONFLICT: Field = Field::text(1, "conflict").required().max(36).read_only();
pub const KIND: Field = Field::text(2, "kind").required().max(100).read_only();
pub const KEY: Field = {
    let mut field = Field::refers(3, "key", "");
    field.refers = None;
    field.required().read_only()
};
pub const FIELD: Field = Field::text(4, "field").max(100).read_only();
pub const CAUSE: Field = Field::text(5, "cause").required().max(50).read_only();
pub const BY: Field = Field::refers(6, "by", "user").read_only();
/// What was done, encoded.
const DEED: Field = Field::bytes(7, "deed").secret();
pub const UNDONE_AT: Field = Field::time(8, "undone_at").read_only();
pub const UNDONE_BY: Field = Field::refers(9, "undone_by", "user").read_only();

/// All values that stood beside each other, encoded: to undo is to write them so again.
const VALUES: Field = Field::bytes(10, "values").secret();
/// The record, as `key`, to be found by.
const ABOUT: Field = {
    let mut field = Field::refers(11, "about", "");
    field.refers = None;
    field.column().secret()
};

pub static SETTLEMENT: Kind = Kind {
    fields: &[CONFLICT, KIND, KEY, FIELD, CAUSE, BY, DEED, UNDONE_AT, UNDONE_BY, VALUES, ABOUT],
    indexes: &[&["+about", "created_at"]],
    schema: 2,
    silent: true,
    doc: "That somebody settled a conflict, and how.",
    ..Kind::new(91, "settlement", "settlements", "inbox")
};

/// More values than these are not kept; the latest are.
const MOST_VALUES: usize = 8;
/// Settlements of one record that are looked through.
const LATEST: usize = 20;

/// One of the values of a conflict, and the user who wrote it.
type Written = (Value, Option<Id>);

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A field's value was written over all others; to a set, an element was added, and `before` is whether it was there.
    /// What a deletion had kept out is left by a dismissal besides: nothing else takes it from the inbox.
    Wrote { before: Value, after: Value, dismissal: Option<Id> },
    /// A name went from one record to another.
    Gave { before: Id, after: Id },
    /// It was left as it is, by this record.
    Left { dismissal: Id },
    /// It was put into the trash after all, at this time in Unix milliseconds.
    Deleted { before: Overruled, at_ms: i64 },
    /// It says nothing of what was written: that is somebody's own.
    Untold,
}

impl Deed {
    fn encode(self) -> Vec<u8> {
        let (tag, before, after) = match self {
            Self::Untold => (0u8, Value::Null, Value::Null),
            Self::Wrote { before, after, dismissal: None } => (1, before, after),
            Self::Wrote { before, after, dismissal: Some(dismissal) } => {
                (5, Value::Bytes(codec::encode(&(before, dismissal))), after)
            }
            Self::Gave { before, after } => (2, before.into(), after.into()),
            Self::Left { dismissal } => (3, dismissal.into(), Value::Null),
            Self::Deleted { before, at_ms } => {
                (4, Value::Bytes(codec::encode(&(before.at_ms, before.heads))), at_ms.into())
            }
        };
        codec::encode(&(tag, before, after))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, before, after): (u8, Value, Value) = codec::decode(bytes).ok()?;
        Some(match tag {
            1 => Self::Wrote { before, after, dismissal: None },
            5 => {
                let (before, dismissal) = codec::decode(before.as_bytes()?).ok()?;
                Self::Wrote { before, after, dismissal: Some(dismissal) }
            }
            2 => Self::Gave { before: before.as_id()?, after: after.as_id()? },
            3 => Self::Left { dismissal: before.as_id()? },
            4 => {
                let (at_before, heads) = codec::decode(before.as_bytes()?).ok()?;
                let before = Overruled { at_ms: at_before, heads };
                Self::Deleted { before, at_ms: after.as_int()? }
            }
            _ => Self::Untold,
        })
    }
}

pub(super) fn note(tx: &mut Tx<'_>, actor: &Actor, conflict: &Conflict, deed: Deed) -> Result<()> {
    let field = field_named(conflict.kind, conflict.field_code).map(|(_, field)| field);
    let is_secret = field.is_some_and(|field| field.shown == Shown::Never);
    let is_left = matches!(deed, Deed::Left { .. });
    let deed =
        if !is_left && (is_secret || conflict.kind == USER.code) { Deed::Untold } else { deed };
    let values = match &deed {
        Deed::Wrote { .. } if conflict.cause == Cause::Concurrent => standing(tx, conflict)?,
        _ => vec![],
    };
    let values = (!values.is_empty()).then(|| codec::encode(&values));
    let changes = Changes::new()
        .set(&VALUES, values.map_or(Value::Null, Value::Bytes))
        .set(&ABOUT, conflict.key)
        .set(&CONFLICT, conflict.id.to_string())
        .set(&KIND, conflict.kind_name.as_str())
        .set(&KEY, conflict.key)
        .set(&FIELD, conflict.field.as_str())
        .set(&CAUSE, conflict.cause.name())
        .set(&BY, actor.user)
        .set(&DEED, Value::Bytes(deed.encode()));
    let key = tx.new_id();
    tx.create(&SETTLEMENT, conflict.tenant, key, changes)?;
    Ok(())
}

/// The values that stand beside each other, the one that shows last.
fn standing(reader: &impl Read, conflict: &Conflict) -> Result<Vec<Written>> {
    let mut values: Vec<&ConflictValue> = conflict.values.iter().collect();
    values.sort_by_key(|value| (value.won, value.hlc, value.dot));
    let latest = values.split_off(values.len().saturating_sub(MOST_VALUES));
    let with_author =
        |value: &ConflictValue| Ok((value.value.clone(), author::writer(reader, conflict, value)?));
    latest.into_iter().map(with_author).collect()
}

fn values(settlement: &Record) -> Vec<Written> {
    settlement.bytes(&VALUES).and_then(|bytes| codec::decode(bytes).ok()).unwrap_or_default()
}

/// Who wrote a value first that stands here because a settlement was undone. That is noted right after.
pub(super) fn first_writer(
    reader: &impl Read,
    conflict: &Conflict,
    value: &ConflictValue,
) -> atoll_storage::Result<Option<Id>> {
    let query = Query::of(&SETTLEMENT, conflict.tenant)
        .filter("about", value.key)
        .sort("created_at", true)
        .limit(LATEST)
        .without_total();
    for settlement in reader.list(&query)?.records {
        let mut notes = settlement.state.cells_of(UNDONE_AT.code).iter();
        let is_next = notes.any(|cell| {
            cell.dot.origin == value.dot.origin
                && cell.hlc > value.hlc
                && cell.hlc.0 - value.hlc.0 <= MOST_VALUES as u64
        });
        if is_next && settlement.opt_text(&FIELD) == Some(conflict.field.as_str()) {
            let found = values(&settlement).into_iter().find(|(kept, _)| *kept == value.value);
            return Ok(found.and_then(|(_, author)| author));
        }
    }
    Ok(None)
}

pub fn deed(settlement: &Record) -> Deed {
    settlement.bytes(&DEED).and_then(Deed::decode).unwrap_or(Deed::Untold)
}

pub fn can_undo(settlement: &Record) -> bool {
    settlement.int(&UNDONE_AT).is_none() && deed(settlement) != Deed::Untold
}

/// Of the actor's tenant, the newest first; `query` is over [`SETTLEMENT`].
pub fn list(node: &Node, actor: &Actor, query: Query) -> Result<Page> {
    actor.require(Permission::ConflictsRead)?;
    Ok(node.store.read(|reader| reader.list(&query.sort("created_at", true)))?)
}

/// Puts back what stood there before, by a write like any other; the conflict is in the inbox again.
///
/// # Errors
/// `Conflict`: `already_undone`; `changed_since` if somebody wrote there after it was settled; `cannot_undo` for what an
/// account says of itself; `cannot_take` if the record is gone.
pub async fn undo(node: &Node, actor: &Actor, id: Id) -> Result<Record> {
    actor.require(Permission::ConflictsResolve)?;
    let actor = *actor;
    node.store
        .write(move |tx: &mut Tx| {
            let found = tx.get(&SETTLEMENT, id)?.filter(|there| there.tenant == actor.tenant);
            let settlement = found.ok_or(Error::NotFound("settlement"))?;
            if settlement.int(&UNDONE_AT).is_some() {
                return Err(Error::conflict(
                    "already_undone",
                    "this settlement was undone already",
                ));
            }
            put_back(tx, &actor, &settlement)?;
            let now_ms = tx.now_ms();
            let changes = Changes::new().set(&UNDONE_AT, now_ms).set(&UNDONE_BY, actor.user);
            Ok(tx.edit(&SETTLEMENT, id, changes)?)
        })
        .await
}

fn put_back(tx: &mut Tx<'_>, actor: &Actor, settlement: &Record) -> Result<()> {
    let named = || {
        let kind = kinds::named(settlement.text(&KIND));
        kind.and_then(|kind| Some((kind, kind.field(settlement.text(&FIELD))?))).ok_or_else(|| {
            cannot_take("a newer release made this field: undo it on a node that knows it")
        })
    };
    match deed(settlement) {
        Deed::Wrote { before, after, dismissal } => {
            let (kind, field) = named()?;
            let key = settlement.id(&KEY).unwrap_or(Id::NIL);
            let record = tx.get(kind, key)?;
            if let Some(dismissal) = dismissal {
                take_back(tx, dismissal)?;
            }
            if field.merge == Merge::Set {
                if record.is_none_or(|record| !record.has(field, &after)) {
                    return Err(changed_since());
                }
                let was_there = before == Value::Bool(true);
                let taken = Changes::new().drop(field, after);
                return if was_there { Ok(()) } else { edit(tx, kind, key, taken) };
            }
            // A value that stands beside others was written apart from the settlement.
            let is_there = record.is_none_or(|record| {
                let mut cells = record.state.cells_of(field.code).iter();
                cells.all(|cell| cell.value == after)
            });
            if !is_there {
                return Err(changed_since());
            }
            let values: Vec<Value> =
                values(settlement).into_iter().map(|(value, _)| value).collect();
            if values.is_empty() {
                return edit(tx, kind, key, Changes::new().set(field, before));
            }
            tx.write_apart(kind, key, field, values).map_err(gone)
        }
        Deed::Gave { before, after } => {
            let (kind, field) = named()?;
            let there = tx.get(kind, before)?;
            let name = there.as_ref().and_then(|record| record.value(field).as_text());
            let holder = match (name, field.claim) {
                (Some(name), Some(space)) => tx.claimed(settlement.tenant, space, name)?,
                _ => None,
            };
            if holder != Some(after) {
                return Err(changed_since());
            }
            edit(tx, kind, before, Changes::new().confirm(field))
        }
        Deed::Left { dismissal } => take_back(tx, dismissal),
        Deed::Deleted { before, at_ms } => {
            let key = settlement.id(&KEY).unwrap_or(Id::NIL);
            if !workflow::overrule_again(tx, actor, key, before, at_ms)? {
                return Err(changed_since());
            }
            Ok(())
        }
        Deed::Untold => Err(Error::conflict(
            "cannot_undo",
            "what an account says of itself is kept in the account alone: write it there",
        )),
    }
}

fn take_back(tx: &mut Tx<'_>, dismissal: Id) -> Result<()> {
    match tx.remove(&CONFLICT_DISMISSAL, dismissal) {
        // Somebody else took it back.
        Ok(()) | Err(atoll_storage::Error::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn changed_since() -> Error {
    let message = "somebody wrote there after it was settled: look at the record, and write what it shall say";
    Error::conflict("changed_since", message)
}

/// What a settlement by one of the values writes.
pub(super) fn written(
    tx: &Tx<'_>,
    conflict: &Conflict,
    after: Value,
    dismissal: Option<Id>,
) -> Result<Deed> {
    let Some((kind, field)) = field_named(conflict.kind, conflict.field_code) else {
        return Ok(Deed::Untold);
    };
    let record = tx.get(kind, conflict.key)?;
    let before = match field.merge {
        // It has versions of its own.
        Merge::Body => return Ok(Deed::Untold),
        Merge::Set => record.is_some_and(|record| record.has(field, &after)).into(),
        _ => record.map_or(Value::Null, |record| record.value(field).clone()),
    };
    Ok(Deed::Wrote { before, after, dismissal })
}

/// Who has the name now, and who gets it.
pub(super) fn given(conflict: &Conflict, after: Id) -> Deed {
    debug_assert_eq!(conflict.cause, Cause::Claim);
    let holder = conflict.values.iter().find(|value| value.won);
    holder.map_or(Deed::Untold, |holder| Deed::Gave { before: holder.key, after })
}
