//! The end of a deleted tenant. Once it cannot be restored any more, all that was in it is removed, some records at a time,
//! and its own record last: what is left is found again after a stop. Every node does so by itself, and tells the others
//! by what it removes. What a node wrote that was away for all that time comes too late to be known for its own, and stays
//! in the file, shown to nobody.

use super::{DELETED_AT, TENANT, is_deleted};
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::Tx;
use atoll_storage::{Id, Kind, Record};

/// Records of one transaction: requests come in between.
const AT_ONCE: usize = 200;
/// Records of one call of [`sweep`].
const A_ROUND: usize = 20_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Whether a deleted tenant can be restored no more. One that is kept for good always can.
pub(super) fn is_due(node: &Node, tenant: &Record, now_ms: u64) -> bool {
    let kept_ms = u64::from(node.config.tenants.keep_days) * DAY_MS;
    let deleted = tenant.int(&DELETED_AT).map(|at| at.max(0) as u64);
    kept_ms > 0 && deleted.is_some_and(|at| at + kept_ms < now_ms)
}

/// Removes what is left of tenants that are due; how many of them are gone for good now. A worker calls it now and then.
pub async fn sweep(node: &Node) -> Result<usize> {
    sweep_some(node, A_ROUND).await
}

/// As [`sweep`], but no more than about so many records.
pub async fn sweep_some(node: &Node, most: usize) -> Result<usize> {
    let now_ms = node.clock.now_ms();
    let query = Query::of(&TENANT, Id::NIL).filter("deleted", true).limit(1_000).without_total();
    let deleted = node.store.read(|reader| reader.list(&query))?.records;
    let (mut gone, mut left) = (0, most);
    for tenant in deleted.iter().filter(|tenant| is_due(node, tenant, now_ms)) {
        let removed = empty(node, tenant.key, left).await?;
        left -= removed.min(left);
        if removed > 0 {
            tracing::info!(tenant = %tenant.key, records = removed, "what was in a deleted tenant was removed");
        }
        if left == 0 {
            break;
        }
        node.store.write(forget(tenant.key)).await?;
        tracing::info!(tenant = %tenant.key, "a deleted tenant is gone for good");
        gone += 1;
    }
    Ok(gone)
}

fn forget(tenant: Id) -> impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static {
    move |tx| {
        if is_still_deleted(tx, tenant)? {
            tx.drop_jobs_of(tenant)?;
            tx.remove(&TENANT, tenant)?;
        }
        Ok(())
    }
}

/// Somebody may have restored it on another node, whose settings keep it for longer.
fn is_still_deleted(tx: &Tx<'_>, tenant: Id) -> Result<bool> {
    Ok(tx.get(&TENANT, tenant)?.is_some_and(|tenant| is_deleted(&tenant)))
}

/// How many records went. Fewer than `most`: there are none left.
async fn empty(node: &Node, tenant: Id, most: usize) -> Result<usize> {
    let mut removed = 0;
    for kind in kinds::ALL.iter().copied().filter(|kind| kind.code != TENANT.code) {
        while removed < most {
            let query = Query::of(kind, tenant).sort("key", false).limit(AT_ONCE).without_total();
            let some = node.store.read(|reader| reader.list(&query))?.records;
            if some.is_empty() {
                break;
            }
            removed += some.len();
            let keys: Vec<Id> = some.iter().map(|record| record.key).collect();
            node.store.write::<_, Error>(move |tx| drop_all(tx, kind, tenant, &keys)).await?;
        }
    }
    Ok(removed)
}

fn drop_all(tx: &mut Tx<'_>, kind: &'static Kind, tenant: Id, keys: &[Id]) -> Result<()> {
    if !is_still_deleted(tx, tenant)? {
        return Err(Error::conflict("restored", "the tenant was restored meanwhile"));
    }
    for key in keys {
        if tx.get(kind, *key)?.is_some_and(|record| record.tenant == tenant) {
            tx.remove(kind, *key)?;
        }
    }
    Ok(())
}
