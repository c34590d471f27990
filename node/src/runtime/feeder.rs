//! Feeds the search index from the store's list of changed records: a batch is in the index before it leaves the
//! list, so a crash repeats a batch and loses none. Never makes a request wait, nor the stop of the node: what is under
//! way then is given up.

use super::pool::Pool;
use super::reserve;
use super::workers::Stop;
use crate::content::post::POST;
use crate::error::Result;
use crate::kinds;
use crate::runtime::Node;
use crate::search::audience;
use atoll_storage::read::{Read, Reader};
use atoll_storage::search::{Change, Document};
use atoll_storage::{Id, SearchText};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

const BATCH: usize = 4_000;
/// Text that is held at a time. Of more, the index's writer makes several segments anyway.
const PIECE_BYTES: usize = 16 << 20;
/// Between two commits of the index; each makes a segment that is merged later, so many changes wait longer.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_OF_MANY: Duration = Duration::from_secs(3);
const MANY: usize = 100;
/// After a failure.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// Without changes for so long, the writer's memory is given back.
const IDLE: Duration = Duration::from_secs(10);

pub(super) async fn run(node: Arc<Node>, mut stop: Stop) {
    let pool = match Pool::in_background("atoll-search") {
        Ok(pool) => pool,
        Err(error) => return tracing::error!(%error, "nothing feeds the search index"),
    };
    let mut commits = node.store.subscribe();
    loop {
        commits.mark_unchanged();
        let pause = match feed_all(&node, &pool, &mut stop).await {
            Ok(count) if count >= MANY => PAUSE_OF_MANY,
            Ok(_) => PAUSE,
            Err(_) if stop.is_stopped() => break,
            Err(error) => {
                tracing::warn!(%error, "the search index could not be fed; it is tried again");
                commits.mark_changed();
                LONG_PAUSE
            }
        };
        if stop.during(pause).await {
            break;
        }
        let changed = tokio::select! {
            changed = tokio::time::timeout(IDLE, commits.changed()) => changed,
            () = stop.stopped() => break,
        };
        if changed.is_ok() {
            continue;
        }
        release(&node, &pool, &mut stop).await;
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { break },
            () = stop.stopped() => break,
        }
    }
    release(&node, &pool, &mut stop).await;
}

/// Until nothing is left to feed, or the node stops; how many changes that were.
async fn feed_all(node: &Arc<Node>, pool: &Pool, stop: &mut Stop) -> Result<usize> {
    let mut all = 0;
    loop {
        let (count, more) = run_on(pool, node, stop, feed).await??;
        all += count;
        if !more || stop.is_stopped() {
            return Ok(all);
        }
        // What merges segments holds as much again: it comes to an end before the next batch begins.
        release(node, pool, stop).await;
    }
}

async fn release(node: &Arc<Node>, pool: &Pool, stop: &mut Stop) {
    let released = run_on(pool, node, stop, |node| node.search.release_writer()).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(%error, "the search index's writer did not end in order");
    }
}

/// Runs work on the index, which is closed as soon as the node stops, so that the work ends soon. On a busy machine the
/// pool's thread hardly runs.
async fn run_on<T: Send + 'static>(
    pool: &Pool,
    node: &Arc<Node>,
    stop: &mut Stop,
    work: impl FnOnce(&Node) -> T + Send + 'static,
) -> Result<T> {
    let (working, closing) = (node.clone(), node.clone());
    let mut done = pin!(pool.run(move || work(&working)));
    tokio::select! {
        done = &mut done => return done,
        () = stop.stopped() => {}
    }
    let closed = tokio::task::spawn_blocking(move || closing.search.close());
    closed.await.map_err(super::internal)?;
    done.await
}

/// One batch; how many changes were in it, and whether there are more.
pub(super) fn feed(node: &Node) -> Result<(usize, bool)> {
    let fed = node.store.unindexed(BATCH)?;
    if fed.is_empty() {
        return Ok((0, false));
    }
    if !reserve::is_beyond(node.folder.path()) {
        return Err(atoll_storage::Error::Full.into());
    }
    let records: BTreeSet<(u16, Id)> = fed.records.iter().copied().collect();
    let mut left = records.iter().copied().peekable();
    while left.peek().is_some() {
        let piece = node.store.read(|reader| piece(node, reader, &mut left))?;
        let mut cursor = node.search.cursor();
        if left.peek().is_none() {
            feed_dependants(node, &records)?;
            cursor = fed.cursor();
        }
        node.search.apply(&piece, cursor).map_err(super::internal)?;
    }
    node.store.note_indexed(&fed)?;
    Ok((fed.records.len(), fed.more))
}

/// What the index shall hold of the next records, as many as are fed at a time; of fewer if it is closed meanwhile, and
/// then takes nothing.
fn piece(
    node: &Node,
    reader: &Reader<'_>,
    left: &mut impl Iterator<Item = (u16, Id)>,
) -> atoll_storage::Result<Vec<Change>> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    while bytes < PIECE_BYTES && !node.search.is_closed() {
        let Some((kind, key)) = left.next() else { break };
        let Some(change) = change(reader, kind, key)? else { continue };
        if let Change::Put(document) = &change {
            bytes += document.title.len() + document.body.len();
        }
        piece.push(change);
    }
    Ok(piece)
}

/// What is found by whom reads a post: it is fed again with the post, before the cursor passes it, so that a crash
/// repeats it. A long thread goes in pieces.
fn feed_dependants(node: &Node, records: &BTreeSet<(u16, Id)>) -> Result<()> {
    for (_, key) in records.iter().filter(|(kind, _)| *kind == POST.code) {
        let mut after = None;
        loop {
            let (batch, next) = node.store.read(|reader| {
                // The comments of a post that is gone go with it.
                let Some(post) = reader.get(&POST, *key)? else { return Ok((vec![], None)) };
                let place = (post.tenant, *key);
                let (below, next) = audience::dependants(reader, place, after.take())?;
                let batch = below.iter().map(|r| (r.kind.code, r.key));
                let fresh = batch.filter(|row| !records.contains(row));
                let changes = fresh.map(|(kind, key)| change(reader, kind, key));
                let changes: atoll_storage::Result<Vec<_>> =
                    changes.filter_map(Result::transpose).collect();
                Ok((changes?, next))
            })?;
            if !batch.is_empty() {
                node.search.apply(&batch, node.search.cursor()).map_err(super::internal)?;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// What the index shall hold of a record now; none for kinds that are not searched.
fn change(reader: &Reader, code: u16, key: Id) -> atoll_storage::Result<Option<Change>> {
    let Some(kind) = kinds::ALL.iter().find(|kind| kind.code == code) else { return Ok(None) };
    let Some(text_of) = kind.search else { return Ok(None) };
    let Some(record) = reader.get_full(kind, key)? else { return Ok(Some(Change::Remove(key))) };
    let Some(text) = text_of(&record) else { return Ok(Some(Change::Remove(key))) };
    let text = audience::marked(reader, &record, text)?;
    Ok(Some(Change::Put(document(code, key, record.tenant, text))))
}

fn document(kind: u16, id: Id, tenant: Id, text: SearchText) -> Document {
    let SearchText { title, body, keywords, public, status, parent, facets, date_ms } = text;
    Document {
        id,
        kind,
        tenant,
        title,
        body,
        keywords,
        public,
        status,
        parent,
        facets,
        date_ms,
        rank: 0,
    }
}
