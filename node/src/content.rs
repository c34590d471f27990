//! What an organisation publishes: posts with their versions, categories, tags, imports. The one place that knows
//! the rules of publishing. Never gives out what a caller may not see: a record of another tenant, a draft to the
//! public, HTML that was not sanitised.

pub mod autosave;
pub mod batch;
pub mod category;
pub mod feed;
pub mod import;
pub mod post;
pub mod preview;
pub mod redirect;
pub mod render;
pub mod schedule;
pub mod slug;
pub mod tag;
pub mod trash;
pub mod version;
pub mod workflow;

use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::read::{Read, Reader};
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Kind, Record, Value};
use serde_json::json;

/// The scope of the streams that hold all of this.
pub const SCOPE: &str = "content";

/// The key that an id or a name (its slug) stands for, in the actor's tenant; whether the record is there and may
/// be seen is not asked.
pub(crate) fn key_of(
    reader: &impl Read,
    tenant: Id,
    slug: &Field,
    name: &str,
) -> Result<Option<Id>> {
    match (Id::parse(name), slug.claim) {
        (Some(id), _) => Ok(Some(id)),
        (None, Some(space)) => Ok(reader.claimed(tenant, space, name)?),
        (None, None) => Ok(None),
    }
}

/// The record if it is in the actor's tenant.
fn in_tenant(reader: &impl Read, actor: &Actor, kind: &'static Kind, key: Id) -> Result<Record> {
    let found = reader.get(kind, key)?;
    found.filter(|record| record.tenant == actor.tenant).ok_or(Error::NotFound(kind.name))
}

/// By id or slug, in the actor's tenant.
fn named(
    reader: &impl Read,
    actor: &Actor,
    kind: &'static Kind,
    slug: &Field,
    name: &str,
) -> Result<Record> {
    let key = key_of(reader, actor.tenant, slug, name)?.ok_or(Error::NotFound(kind.name))?;
    in_tenant(reader, actor, kind, key)
}

fn require_version(record: &Record, expected: Option<[u8; 16]>) -> Result<()> {
    if expected.is_some_and(|version| version != record.version()) {
        Err(Error::Stale)
    } else {
        Ok(())
    }
}

/// Takes a register out of the changes, to be settled apart from the others.
fn take(changes: &mut Changes, field: &Field) -> Option<Value> {
    let at = changes.registers.iter().position(|(f, _)| f.code == field.code)?;
    Some(changes.registers.remove(at).1)
}

/// An event about one record, in the transaction that changed it.
fn emit(
    tx: &mut Tx<'_>,
    actor: &Actor,
    event_type: &str,
    record: &Record,
    title: &Field,
    slug: &Field,
) -> Result<()> {
    let id_name = format!("{}_id", record.kind.name);
    let payload =
        json!({ id_name: record.key, title.name: record.text(title), "slug": record.text(slug) });
    tx.emit(&Event { event_type, tenant: record.tenant, user: actor.user, payload })?;
    Ok(())
}

/// One read transaction whose work may refuse as well as fail.
pub(crate) fn read<T>(node: &Node, work: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
    node.store.read(|reader| Ok(work(reader)))?
}
