//! Posts that were scheduled come out when their time has come. What is written is the same on every node, so that
//! two that do it apart make no conflict: the time of publication is the time that was set, not now.
//!
//! The node that took the schedule does it on time. Others wait a little: they take over only if that one is down or
//! cut off, so that the event of a publication is told once.

use super::SCOPE;
use super::post::{POST, PUBLISH_AT, PUBLISHED, PUBLISHED_AT, SCHEDULED, STATUS, emit};
use crate::access::Actor;
use crate::audit;
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, NodeId, Record, Value};

/// How long a node leaves another's schedule to that node.
const TAKE_OVER_AFTER_MS: i64 = 60_000;
/// Posts that one transaction publishes.
const AT_ONCE: usize = 200;
/// Posts of a tenant that one look sees, those among them that other nodes publish.
const LOOKED_AT: usize = 1_000;

/// Publishes what is due, and returns how many posts that were.
pub async fn run_due(node: &Node, now_ms: u64) -> Result<usize> {
    let mut done = 0;
    for tenant in tenants(node)? {
        loop {
            let published =
                node.store.write(move |tx| publish_due(tx, tenant, now_ms as i64)).await?;
            done += published;
            if published == 0 {
                break;
            }
        }
    }
    Ok(done)
}

/// When [`run_due`] has something to do next, in Unix milliseconds; in the past if it has already.
pub fn next_due(node: &Node) -> Result<Option<u64>> {
    let me = node.id();
    let mut next: Option<i64> = None;
    for tenant in tenants(node)? {
        let page = node.store.read(|reader| reader.list(&scheduled(tenant)))?;
        let due = page.records.iter().filter_map(|post| due_ms(post, me)).min();
        next = [next, due].into_iter().flatten().min();
    }
    Ok(next.map(|ms| ms.max(0) as u64))
}

/// The first ones to come out, as many as one look takes.
fn scheduled(tenant: Id) -> Query {
    let query = Query::of(&POST, tenant).filter("aside", SCHEDULED);
    query.sort("due_at", false).limit(LOOKED_AT).without_total()
}

/// When this node publishes it.
fn due_ms(post: &Record, me: NodeId) -> Option<i64> {
    let by_me = post.state.register(STATUS.code).is_some_and(|cell| cell.dot.origin.node == me);
    Some(post.int(&PUBLISH_AT)? + if by_me { 0 } else { TAKE_OVER_AFTER_MS })
}

fn publish_due(tx: &mut Tx<'_>, tenant: Id, now_ms: i64) -> Result<usize> {
    let me = tx.origin().node;
    let page = tx.list(&scheduled(tenant).filter_le("due_at", now_ms))?;
    let is_due = |post: &&Record| due_ms(post, me).is_some_and(|due| due <= now_ms);
    let due: Vec<&Record> = page.records.iter().filter(is_due).take(AT_ONCE).collect();
    for post in &due {
        let at_ms = post.int(&PUBLISH_AT).unwrap_or(now_ms);
        let changes = Changes::new()
            .set(&STATUS, PUBLISHED)
            .set(&PUBLISHED_AT, at_ms)
            .set(&PUBLISH_AT, Value::Null);
        let after = tx.edit(&POST, post.key, changes)?;
        let actor = Actor::system(tenant);
        emit(tx, &actor, "postal.post.published", &after)?;
        audit::note(tx, &actor, "post.published", Some(post), Some(&after))?;
    }
    Ok(due.len())
}

/// Those that hold any content on this node.
pub(super) fn tenants(node: &Node) -> Result<Vec<Id>> {
    let streams = node.store.read(|reader| reader.streams())?;
    Ok(streams
        .into_iter()
        .filter(|head| head.stream.scope == SCOPE)
        .map(|head| head.stream.tenant)
        .collect())
}
