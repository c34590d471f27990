//! What a tenant may hold at most: accounts, posts, bytes. Counted exactly near the limit and from kept counts far
//! from it. Two nodes that are apart can exceed it together; then nothing more is taken, and nothing is lost.

use super::{QUOTA_POSTS, QUOTA_STORAGE_BYTES, QUOTA_USERS, TENANT};
use crate::content::post::{BODY, POST};
use crate::error::{Error, Result};
use crate::identity::user::USER;
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record};

pub const STORED_BYTES: Field = Field::counter(1, "stored_bytes");
pub const FREED_BYTES: Field = Field::counter(2, "freed_bytes");

/// Under a natural key of the tenant. Kept for tenants with a quota of bytes.
pub static TENANT_USAGE: Kind = Kind {
    fields: &[STORED_BYTES, FREED_BYTES],
    doc: "How much a tenant stores.",
    ..Kind::new(17, "tenant_usage", "tenant_usages", "usage")
};

/// The kept counts do not hold what the writer's group has done so far, which is no more than this.
const UNCOUNTED: u64 = 2_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    Users,
    Posts,
}

impl Quota {
    fn field(self) -> &'static Field {
        match self {
            Self::Users => &QUOTA_USERS,
            Self::Posts => &QUOTA_POSTS,
        }
    }

    fn kind(self) -> &'static Kind {
        match self {
            Self::Users => &USER,
            Self::Posts => &POST,
        }
    }
}

/// Room for one more.
///
/// # Errors
/// `Conflict` (`quota_reached`) that names the quota.
pub fn require(reader: &impl Read, tenant: Id, quota: Quota) -> Result<()> {
    require_room(reader, tenant, quota, 1)
}

/// As [`require`], for so many more.
pub fn require_room(reader: &impl Read, tenant: Id, quota: Quota, more: u64) -> Result<()> {
    let Some(record) = reader.get(&TENANT, tenant)? else { return Ok(()) };
    let Some(limit) = limit_of(&record, quota.field()) else { return Ok(()) };
    let all = Query::of(quota.kind(), tenant);
    if reader.count(&all)? + more + UNCOUNTED <= limit {
        return Ok(());
    }
    // No kept count answers this one.
    let there = match quota {
        Quota::Users => {
            let everybody = reader.count(&all.clone().filter_ge("created_at", 0_u64))?;
            everybody
                - reader.count(&all.filter("status", "deleted").filter_ge("created_at", 0_u64))?
        }
        Quota::Posts => reader.count(&all.filter_ge("created_at", 0_u64))?,
    };
    if there + more <= limit { Ok(()) } else { Err(reached(quota.field(), limit)) }
}

fn limit_of(tenant: &Record, field: &Field) -> Option<u64> {
    tenant.int(field).map(|limit| limit.max(0) as u64)
}

fn reached(field: &Field, limit: u64) -> Error {
    let message = format!(
        "the {} of this tenant is reached, which is {limit}: delete something, or ask for more",
        field.name
    );
    Error::conflict("quota_reached", message)
}

fn usage_key(tenant: Id) -> Id {
    Id::natural(&[b"tenant_usage", &tenant.0])
}

fn used(usage: Option<&Record>) -> u64 {
    usage.map_or(0, |usage| usage.total(&STORED_BYTES).saturating_sub(usage.total(&FREED_BYTES)))
}

/// The bytes that a tenant stores; none is known of a tenant without a quota of them.
pub fn stored_bytes(reader: &impl Read, tenant: Id) -> Result<Option<u64>> {
    let has_quota =
        reader.get(&TENANT, tenant)?.is_some_and(|t| t.int(&QUOTA_STORAGE_BYTES).is_some());
    let usage = reader.get(&TENANT_USAGE, usage_key(tenant))?;
    Ok(has_quota.then(|| used(usage.as_ref())))
}

/// Counts that something of `before` bytes has `now` bytes from now on: 0 before it is there, and once it is gone.
///
/// # Errors
/// `Conflict` (`quota_reached`) if it grows beyond what is left.
pub fn store_bytes(tx: &mut Tx<'_>, tenant: Id, before: u64, now: u64) -> Result<()> {
    if before == now {
        return Ok(());
    }
    let Some(record) = tx.get(&TENANT, tenant)? else { return Ok(()) };
    let Some(limit) = limit_of(&record, &QUOTA_STORAGE_BYTES) else { return Ok(()) };
    let key = usage_key(tenant);
    let there = used(tx.get(&TENANT_USAGE, key)?.as_ref());
    let (more, less) = (now.saturating_sub(before), before.saturating_sub(now));
    if more > 0 && there + more > limit {
        return Err(reached(&QUOTA_STORAGE_BYTES, limit));
    }
    tx.count(&TENANT_USAGE, tenant, key, &[(&STORED_BYTES, more), (&FREED_BYTES, less)], &[])?;
    Ok(())
}

/// Counts all bodies anew, for a tenant that has just got its quota. What is written meanwhile is counted by
/// whichever of the two sees it.
pub(super) async fn begin_counting(node: &Node, tenant: Id) -> Result<()> {
    let (mut bytes, mut after): (u64, Option<Cursor>) = (0, None);
    loop {
        let query = Query::of(&POST, tenant).sort("key", false).limit(20).with_bodies();
        let page = node.store.read(|reader| reader.list(&query.after(after).without_total()))?;
        bytes += page.records.iter().map(|post| post.body(&BODY).len() as u64).sum::<u64>();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    node.store
        .write::<_, Error>(move |tx| {
            let key = usage_key(tenant);
            let there = used(tx.get(&TENANT_USAGE, key)?.as_ref());
            let more = (&STORED_BYTES, bytes.saturating_sub(there));
            let less = (&FREED_BYTES, there.saturating_sub(bytes));
            Ok(tx.count(&TENANT_USAGE, tenant, key, &[more, less], &[])?)
        })
        .await
}

/// A limit is no negative number.
pub(super) fn check(changes: &Changes) -> Vec<crate::error::FieldError> {
    let fields = [&QUOTA_USERS, &QUOTA_STORAGE_BYTES, &QUOTA_POSTS];
    let negative = fields.into_iter().filter(|field| {
        changes.get(field).and_then(atoll_storage::Value::as_int).is_some_and(|limit| limit < 0)
    });
    negative
        .map(|field| {
            let message = "must be a number from 0, or null for no limit";
            crate::error::FieldError::new(field.name, "out_of_range", message)
        })
        .collect()
}
