//! Links by which people without an account read a post that is not out yet. A link expires and can be taken back. Only
//! the hash of its token is kept: the token itself is told once, to whoever made it.

use super::post::{POST, is_trashed};
use super::version::readable;
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Kind, Record, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

pub const POST_ID: Field = Field::refers(1, "post_id", "post").column().read_only();
pub const TOKEN_HASH: Field = Field::bytes(2, "token_hash").max(32).secret();
pub const EXPIRES_AT: Field = Field::time(3, "expires_at").column().read_only();
pub const AUTHOR_ID: Field =
    Field::refers(4, "author_id", "user").read_only().doc("Who made the link.");

pub static PREVIEW_LINK: Kind = Kind {
    fields: &[POST_ID, TOKEN_HASH, EXPIRES_AT, AUTHOR_ID],
    indexes: &[&["post_id", "created_at"], &["expires_at"]],
    doc: "Lets whoever has it read one post for a while.",
    ..Kind::new(25, "preview_link", "preview_links", super::SCOPE)
};

pub const DEFAULT_HOURS: u64 = 72;
pub const MAX_HOURS: u64 = 720;
/// Links of one post that are good at the same time.
const MAX_LINKS: u64 = 50;
/// Links that one round of upkeep drops.
const SWEPT_AT_ONCE: usize = 500;
const HOUR_MS: u64 = 3_600_000;

fn key_of(tenant: Id, hash: &[u8; 32]) -> Id {
    Id::natural(&[b"preview_link", &tenant.0, hash])
}

fn emit(tx: &mut Tx<'_>, actor: &Actor, event_type: &str, link: &Record) -> Result<()> {
    let payload = json!({ "preview_link_id": link.key, "post_id": link.id(&POST_ID) });
    tx.emit(&Event { event_type, tenant: link.tenant, user: actor.user, payload })?;
    Ok(())
}

/// The link, and its token, which nobody can read again. For the authors of the post and for editors.
pub async fn create(node: &Node, actor: &Actor, key: Id, hours: u64) -> Result<(Record, String)> {
    if !(1..=MAX_HOURS).contains(&hours) {
        let message = format!("must be a number from 1 to {MAX_HOURS}");
        return Err(Error::field("hours", "out_of_range", message));
    }
    let token = URL_SAFE_NO_PAD.encode(node.random::<32>());
    let hash = *blake3::hash(token.as_bytes()).as_bytes();
    let actor = *actor;
    let link = node
        .store
        .write(move |tx| {
            let post = readable(tx, &actor, key)?;
            if is_trashed(&post) {
                return Err(Error::conflict(
                    "trashed",
                    "the post is in the trash: restore it first",
                ));
            }
            let now_ms = tx.now_ms();
            let good = of_post(&post).filter_ge("expires_at", now_ms);
            if Read::count(&*tx, &good)? >= MAX_LINKS {
                let message = format!("{MAX_LINKS} links to this post are good now: take one back");
                return Err(Error::conflict("too_many_links", message));
            }
            let changes = Changes::new()
                .set(&POST_ID, post.key)
                .set(&TOKEN_HASH, Value::Bytes(hash.to_vec()))
                .set(&EXPIRES_AT, now_ms + hours * HOUR_MS)
                .set(&AUTHOR_ID, actor.user);
            let key = key_of(post.tenant, &hash);
            let link = tx.create(&PREVIEW_LINK, post.tenant, key, changes)?;
            emit(tx, &actor, "postal.preview_link.created", &link)?;
            Ok(link)
        })
        .await?;
    Ok((link, token))
}

fn of_post(post: &Record) -> Query {
    Query::of(&PREVIEW_LINK, post.tenant).filter("post_id", post.key)
}

/// `query` is over [`PREVIEW_LINK`] in the actor's tenant.
pub fn list(node: &Node, actor: &Actor, key: Id, query: Query) -> Result<Page> {
    super::read(node, |reader| {
        let post = readable(reader, actor, key)?;
        Ok(reader.list(&query.filter("post_id", post.key))?)
    })
}

/// Takes a link back: whoever has it reads nothing more.
pub async fn revoke(node: &Node, actor: &Actor, key: Id, link: Id) -> Result<()> {
    let actor = *actor;
    node.store
        .write(move |tx| {
            let post = readable(tx, &actor, key)?;
            let link = tx.get(&PREVIEW_LINK, link)?;
            let link = link.filter(|l| l.tenant == post.tenant && l.id(&POST_ID) == Some(post.key));
            let link = link.ok_or(Error::NotFound("preview link"))?;
            emit(tx, &actor, "postal.preview_link.revoked", &link)?;
            Ok(tx.remove(&PREVIEW_LINK, link.key)?)
        })
        .await
}

/// The post that a token leads to, with its body, whatever its state; none in the trash.
///
/// # Errors
/// `NotFound`, whether the link expired, was taken back or never was.
pub fn open(node: &Node, tenant: Id, token: &str) -> Result<Record> {
    let hash = *blake3::hash(token.as_bytes()).as_bytes();
    let now_ms = node.clock.now_ms() as i64;
    let found = node.store.read(|reader| {
        let link = reader.get(&PREVIEW_LINK, key_of(tenant, &hash))?;
        let link = link.filter(|link| {
            link.bytes(&TOKEN_HASH) == Some(&hash[..])
                && link.int(&EXPIRES_AT).is_some_and(|at_ms| at_ms > now_ms)
        });
        link.and_then(|link| link.id(&POST_ID))
            .map_or(Ok(None), |post| reader.get_full(&POST, post))
    })?;
    found
        .filter(|post| post.tenant == tenant && !is_trashed(post))
        .ok_or(Error::NotFound("preview link"))
}

/// Drops links that have expired; how many that were.
pub async fn sweep(node: &Node) -> Result<usize> {
    let now_ms = node.clock.now_ms();
    let expired = Query::everywhere(&PREVIEW_LINK).filter_le("expires_at", now_ms);
    let expired = expired.limit(SWEPT_AT_ONCE).without_total();
    let expired = node.store.read(|reader| reader.list(&expired))?.records;
    if expired.is_empty() {
        return Ok(0);
    }
    node.store
        .write(move |tx| {
            for link in &expired {
                if tx.get(&PREVIEW_LINK, link.key)?.is_some() {
                    tx.remove(&PREVIEW_LINK, link.key)?;
                }
            }
            Ok(expired.len())
        })
        .await
}
