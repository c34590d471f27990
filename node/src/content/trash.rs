//! How posts leave the trash for good: by an administrator, or when their time there is over. What belongs to a post
//! alone goes first, some records at a time, so that no transaction is long; stopped half-way, it is repeated. Comments
//! and likes stay where they are, and are hidden with the post.

use super::autosave::POST_AUTOSAVE;
use super::post::{BODY, POST, TRASHED, TRASHED_AT, emit, is_trashed};
use super::preview::PREVIEW_LINK;
use super::schedule::tenants;
use super::version::POST_VERSION;
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::identity::tenant::quota;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::Tx;
use atoll_storage::{Id, Kind, Record};

/// Records that one transaction removes.
const AT_ONCE: usize = 200;
/// Posts of a tenant that one round purges, and looks at.
const A_ROUND: usize = 50;
const LOOKED_AT: usize = 1_000;
const DAY_MS: u64 = 86_400_000;

/// Removes a post with its versions, in the trash or not. Nothing brings it back.
pub async fn purge(node: &Node, actor: &Actor, key: Id, expected: Option<[u8; 16]>) -> Result<()> {
    actor.require(Permission::PostsAdminister)?;
    let actor = *actor;
    super::read(node, |reader| {
        let post = super::in_tenant(reader, &actor, &POST, key)?;
        super::require_version(&post, expected)
    })?;
    while node.store.write(move |tx| purge_some(tx, &actor, key, None)).await? {}
    Ok(())
}

/// Removes what was put into the trash longer ago than the settings keep it; how many posts that were. What was put
/// there on another node is left to that node for a day more, so that the event of it is told once.
pub async fn purge_due(node: &Node, now_ms: u64) -> Result<usize> {
    let kept_days = u64::from(node.config.posts.trash_days);
    if kept_days == 0 {
        return Ok(0);
    }
    let before_ms = now_ms.saturating_sub(kept_days * DAY_MS) as i64;
    let mut purged = 0;
    for tenant in tenants(node)? {
        let due = Query::of(&POST, tenant).filter("aside", TRASHED).filter_le("due_at", before_ms);
        let due = due.sort("due_at", false).limit(LOOKED_AT).without_total();
        let actor = Actor::system(tenant);
        let due = node.store.read(|reader| reader.list(&due))?.records;
        for post in due.iter().filter(|post| is_ours(node, post, before_ms)).take(A_ROUND) {
            let key = post.key;
            loop {
                let some = move |tx: &mut Tx<'_>| purge_some(tx, &actor, key, Some(before_ms));
                match node.store.write(some).await {
                    Ok(true) => {}
                    // Somebody else was faster.
                    Ok(false) | Err(Error::NotFound(_)) => break,
                    Err(error) => return Err(error),
                }
            }
            purged += 1;
        }
    }
    Ok(purged)
}

/// Whether it was put into the trash here, or so long ago that the node where it was has had its day.
fn is_ours(node: &Node, post: &Record, before_ms: i64) -> bool {
    let cell = post.state.register(TRASHED_AT.code);
    let is_here = cell.is_some_and(|cell| cell.dot.origin.node == node.id());
    is_here || post.int(&TRASHED_AT).is_some_and(|at_ms| at_ms <= before_ms - DAY_MS as i64)
}

/// Whether there is more to do; the last call removes the post. With `before_ms`, only if it is in the trash since then.
fn purge_some(tx: &mut Tx<'_>, actor: &Actor, key: Id, before_ms: Option<i64>) -> Result<bool> {
    let post = super::in_tenant(tx, actor, &POST, key)?;
    let is_due = |before_ms: i64| {
        is_trashed(&post) && post.int(&TRASHED_AT).is_some_and(|at_ms| at_ms <= before_ms)
    };
    if before_ms.is_some_and(|before_ms| !is_due(before_ms)) {
        return Ok(false);
    }
    let own: [&'static Kind; 3] = [&POST_VERSION, &POST_AUTOSAVE, &PREVIEW_LINK];
    for kind in own {
        let query = Query::of(kind, actor.tenant).filter("post_id", key).limit(AT_ONCE);
        let page = tx.list(&query.without_total())?;
        for record in &page.records {
            tx.remove(kind, record.key)?;
        }
        if !page.records.is_empty() {
            return Ok(true);
        }
    }
    let bytes = tx.get_full(&POST, key)?.map_or(0, |post| post.body(&BODY).len() as u64);
    quota::store_bytes(tx, actor.tenant, bytes, 0)?;
    emit(tx, actor, "postal.post.purged", &post)?;
    audit::note(tx, actor, "post.purged", Some(&post), None)?;
    tx.remove(&POST, key)?;
    Ok(false)
}
