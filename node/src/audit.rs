//! The audit log: who did what, on what, when and from where, written in the transaction that did it. Entries are
//! only ever added, and dropped when they are old. Never holds a secret, a whole address of a machine, the text of a
//! body, or what tells of a person: that must be erased with an account, and stands in its record alone.

pub mod failure;

use crate::access::{Actor, Net, Permission};
use crate::error::Result;
use crate::identity::user;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Class, Field, Id, Kind, Merge, NodeId, Record, Shown, Type, Value};
use serde_json::{Map, Value as Json, json};

/// The scope of the streams that hold all of this.
pub const SCOPE: &str = "audit";

pub const ACTOR_ID: Field =
    Field::refers(1, "actor_id", "user").column().read_only().doc("Nobody: the node itself.");
pub const IMPERSONATOR_ID: Field = Field::refers(2, "impersonator_id", "user")
    .read_only()
    .doc("The administrator who acted in the actor's name.");
pub const ACTION: Field = Field::text(3, "action").required().max(100).column().read_only();
pub const TARGET_KIND: Field = Field::text(4, "target_kind").max(100).column().read_only();
pub const TARGET_ID: Field = {
    let mut field = Field::refers(5, "target_id", "");
    field.refers = None;
    field.column().read_only()
};
pub const NET: Field =
    Field::text(6, "net").max(50).read_only().doc("The network that the request came from.");
/// A JSON object: `{"field": {"before": …, "after": …}}`.
pub const CHANGES: Field = Field::text(7, "changes").max(MOST_BYTES).read_only();

pub static AUDIT_ENTRY: Kind = Kind {
    class: Class::Fact,
    fields: &[ACTOR_ID, IMPERSONATOR_ID, ACTION, TARGET_KIND, TARGET_ID, NET, CHANGES],
    indexes: &[
        &["action", "created_at"],
        &["actor_id", "created_at"],
        &["target_id", "created_at"],
    ],
    counted: &["action"],
    doc: "That somebody did something.",
    ..Kind::new(16, "audit_entry", "audit_entries", SCOPE)
};

/// Of the changes of one entry; what is longer is left out.
const MOST_BYTES: usize = 20_000;
/// Of one value; longer ones are cut.
const MOST_CHARS: usize = 200;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// How long entries are kept.
const KEPT_MS: u64 = 400 * DAY_MS;
const SWEPT_AT_ONCE: usize = 1_000;
const PAGES_SWEPT: usize = 50;

/// Notes that the actor did this to a record: made it (`before` is none), changed it or took it away (`after` is
/// none). What was changed is read from the two. The entry stands in the actor's tenant.
pub fn note(
    tx: &mut Tx<'_>,
    actor: &Actor,
    action: &str,
    before: Option<&Record>,
    after: Option<&Record>,
) -> Result<()> {
    let Some(record) = after.or(before) else { return Ok(()) };
    let changes = difference(before, after);
    note_in(tx, actor.tenant, actor, action, Some((record.kind.name, record.key)), changes)
}

/// As [`note`], for what is not told by two records, and in any tenant.
pub fn note_in(
    tx: &mut Tx<'_>,
    tenant: Id,
    actor: &Actor,
    action: &str,
    target: Option<(&str, Id)>,
    changes: Map<String, Json>,
) -> Result<()> {
    let mut entry = Changes::new()
        .set(&ACTOR_ID, actor.user)
        .set(&IMPERSONATOR_ID, actor.impersonator)
        .set(&ACTION, action)
        .set(&NET, actor.net.as_ref().map(Net::to_string));
    if let Some((kind, key)) = target {
        entry = entry.set(&TARGET_KIND, kind).set(&TARGET_ID, key);
    }
    let mut text = Json::Object(changes).to_string();
    if text.len() > MOST_BYTES {
        text = json!({ "left_out": "too long" }).to_string();
    }
    let key = tx.new_id();
    tx.create(&AUDIT_ENTRY, tenant, key, entry.set(&CHANGES, text))?;
    Ok(())
}

/// The fields that differ, as far as they are ever shown to anybody.
fn difference(before: Option<&Record>, after: Option<&Record>) -> Map<String, Json> {
    let mut changes = Map::new();
    let Some(kind) = after.or(before).map(|record| record.kind) else { return changes };
    for field in kind.fields.iter().filter(|field| field.shown != Shown::Never) {
        let change = match field.merge {
            Merge::Register => {
                let value =
                    |record: Option<&Record>| record.map_or(Json::Null, |r| shown(r, field));
                let (was, is) = (value(before), value(after));
                let differs = before.map(|r| r.value(field)) != after.map(|r| r.value(field));
                let change = if is_personal(kind, field) {
                    json!({ "changed": true })
                } else {
                    json!({ "before": was, "after": is })
                };
                (differs && !(was.is_null() && is.is_null())).then_some(change)
            }
            Merge::Set => {
                let (was, is) = (set_of(before, field), set_of(after, field));
                (was != is).then(|| json!({ "before": was, "after": is }))
            }
            Merge::Body => {
                let heads = |record: Option<&Record>| record.map(|r| r.heads(field).to_vec());
                let differs = before.is_some() && after.is_some() && heads(before) != heads(after);
                differs.then(|| json!({ "changed": true }))
            }
            Merge::Counter | Merge::Sketch => None,
        };
        if let Some(change) = change {
            changes.insert(field.name.to_owned(), change);
        }
    }
    changes
}

/// Whether a field says who somebody is, and not what he may do.
fn is_personal(kind: &Kind, field: &Field) -> bool {
    let others = [&user::ROLE, &user::STATUS];
    kind.code == user::USER.code
        && field.ty == Type::Text
        && !others.iter().any(|other| other.code == field.code)
}

fn shown(record: &Record, field: &Field) -> Json {
    match record.value(field) {
        Value::Null | Value::Bytes(_) => Json::Null,
        Value::Text(text) if text.is_empty() => Json::Null,
        Value::Bool(flag) => json!(flag),
        Value::Int(int) => json!(int),
        Value::Id(id) => json!(id),
        Value::Text(text) if field.shown == Shown::Privately => json!(masked(text)),
        Value::Text(text) => json!(cut(text)),
    }
}

fn set_of(record: Option<&Record>, field: &Field) -> Vec<Json> {
    let element = |value: &Value| match (value, field.ty) {
        (Value::Text(text), Type::Text) => json!(cut(text)),
        (value, _) => serde_json::to_value(value).unwrap_or_default(),
    };
    record.into_iter().flat_map(|record| record.set(field)).take(100).map(element).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

/// Of somebody's address only enough to see that it is another.
fn masked(text: &str) -> String {
    match text.split_once('@') {
        Some((local, domain)) => {
            let first = |part: &str| part.chars().next().map(String::from).unwrap_or_default();
            format!("{}…@{}…", first(local), first(domain))
        }
        None => cut(text),
    }
}

/// What a list of entries is narrowed by.
#[derive(Clone, Debug, Default)]
pub struct Narrowed {
    pub actor: Option<Id>,
    pub action: Option<String>,
    pub target: Option<Id>,
    /// Unix milliseconds, both ends included.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

/// Of the actor's tenant, the newest first. `query` brings limit and cursor.
pub fn list(node: &Node, actor: &Actor, query: Query, by: &Narrowed) -> Result<Page> {
    actor.require(Permission::AuditRead)?;
    let mut query = query.sort("created_at", true);
    if let Some(user) = by.actor {
        query = query.filter("actor_id", user);
    }
    if let Some(action) = &by.action {
        query = query.filter("action", action.as_str());
    }
    if let Some(target) = by.target {
        query = query.filter("target_id", target);
    }
    if let Some(from_ms) = by.from_ms {
        query = query.filter_ge("created_at", from_ms);
    }
    if let Some(to_ms) = by.to_ms {
        query = query.filter_le("created_at", to_ms);
    }
    Ok(node.store.read(|reader| reader.list(&query))?)
}

/// Drops entries that are older than they are kept. Each node drops those that it wrote, and a month later those of
/// nodes that never came back. A worker calls it now and then.
pub async fn sweep(node: &Node) -> Result<usize> {
    let (own, now_ms) = (node.store.origin().node, node.clock.now_ms());
    let mut removed = 0;
    for tenant in crate::identity::tenant::ids(node)? {
        let gone = node.store.read(|reader| old(reader, tenant, own, now_ms))?;
        if gone.is_empty() {
            continue;
        }
        removed += gone.len();
        let remove = move |tx: &mut Tx<'_>| gone.iter().try_for_each(|key| forget(tx, *key));
        node.store.write(remove).await?;
    }
    Ok(removed)
}

fn forget(tx: &mut Tx<'_>, key: Id) -> atoll_storage::Result<()> {
    match tx.get(&AUDIT_ENTRY, key)? {
        Some(_) => tx.remove(&AUDIT_ENTRY, key),
        None => Ok(()),
    }
}

fn old(reader: &impl Read, tenant: Id, own: NodeId, now_ms: u64) -> atoll_storage::Result<Vec<Id>> {
    let is_due = |entry: &&Record| {
        entry.created_ms() + KEPT_MS + 30 * DAY_MS < now_ms
            || entry.state.creations.keys().any(|dot| dot.origin.node == own)
    };
    let (mut due, mut after) = (Vec::new(), None);
    // What others are to drop does not stand in the way of what this node is to.
    for _ in 0..PAGES_SWEPT {
        let query = Query::of(&AUDIT_ENTRY, tenant)
            .filter_le("created_at", now_ms.saturating_sub(KEPT_MS))
            .limit(SWEPT_AT_ONCE)
            .after(after)
            .without_total();
        let page = reader.list(&query)?;
        due.extend(page.records.iter().filter(is_due).map(|entry| entry.key));
        after = page.next;
        if after.is_none() || due.len() >= SWEPT_AT_ONCE {
            break;
        }
    }
    Ok(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_little_is_kept_and_long_texts_are_cut() {
        assert_eq!(masked("ada@example.org"), "a…@e…");
        assert_eq!(masked("active"), "active");
        assert_eq!(cut(&"x".repeat(1_000)).len(), MOST_CHARS);
    }
}
