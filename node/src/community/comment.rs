//! Comments: threads under posts, their moderation, and removal that keeps the place of replies.
//!
//! Somebody whose comment was approved before is trusted; the first one of everybody else waits for a moderator,
//! unless the tenant wants it otherwise.

use crate::access::{Actor, Permission};
use crate::audit;
use crate::content::post;
use crate::error::{Error, Result};
use crate::identity::tenant;
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Derived, Event, Field, Id, Kind, Record, SearchText, Type, Value};
use serde_json::{Map, json};
use std::collections::HashMap;

pub const POST_ID: Field = Field::refers(1, "post_id", "post").required().column();
pub const PARENT_ID: Field =
    Field::refers(2, "parent_id", "comment").column().doc("The comment that this one answers.");
pub const AUTHOR_ID: Field = Field::refers(3, "author_id", "user").column().read_only();
pub const TEXT: Field = Field::text(4, "text").required().max(10_000).doc("Plain text.");
pub const STATUS: Field =
    Field::text(5, "status").choices(&[PENDING, APPROVED, REJECTED]).column().read_only();
pub const REMOVED: Field = Field::flag(6, "removed")
    .read_only()
    .doc("Its text is gone; its place is kept for the replies.");
pub const EDITED_AT: Field = Field::time(7, "edited_at").read_only().silent();

/// The column of the post that an open comment counts for.
pub(crate) const SAID_ON: &str = "said_on";
pub const PENDING: &str = "pending";
pub const APPROVED: &str = "approved";
pub const REJECTED: &str = "rejected";

pub static COMMENT: Kind = Kind {
    fields: &[POST_ID, PARENT_ID, AUTHOR_ID, TEXT, STATUS, REMOVED, EDITED_AT],
    derived: &[
        Derived { name: "open", ty: Type::Bool, value: |comment| Value::Bool(is_open(comment)) },
        Derived { name: SAID_ON, ty: Type::Id, value: said_on },
    ],
    indexes: &[
        &["post_id", "open", "created_at"],
        &["status", "created_at"],
        &["author_id", "created_at"],
        &["parent_id"],
    ],
    counted: &["status", SAID_ON, POST_ID.name],
    search: Some(searched),
    doc: "What somebody said under a post.",
    ..Kind::new(40, "comment", "comments", super::SCOPE)
};

/// Answers to answers, at most; deeper ones are refused.
pub const MAX_DEPTH: usize = 20;

/// Its place in the thread shows to everybody.
pub fn is_open(comment: &Record) -> bool {
    comment.text(&STATUS) == APPROVED
}

fn said_on(comment: &Record) -> Value {
    let counts = is_open(comment) && !comment.flag(&REMOVED);
    comment.id(&POST_ID).filter(|_| counts).into()
}

fn searched(comment: &Record) -> Option<SearchText> {
    if comment.flag(&REMOVED) {
        return None;
    }
    Some(SearchText {
        title: String::new(),
        body: comment.text(&TEXT).to_owned(),
        keywords: vec![],
        public: is_open(comment),
        status: comment.text(&STATUS).to_owned(),
        parent: comment.id(&POST_ID),
        facets: comment
            .id(&AUTHOR_ID)
            .map(|id| ("author".to_owned(), id.to_string()))
            .into_iter()
            .collect(),
        date_ms: comment.created_ms() as i64,
    })
}

fn is_own(actor: &Actor, comment: &Record) -> bool {
    actor.user.is_some() && actor.user == comment.id(&AUTHOR_ID)
}

/// Whether the actor sees it where it stands; whether he sees the post is not asked.
pub fn may_see(actor: &Actor, comment: &Record) -> bool {
    comment.tenant == actor.tenant
        && (is_open(comment) || is_own(actor, comment) || actor.can(Permission::CommentsModerate))
}

/// What is said under a post is read by whoever sees the post; one's own words by oneself, wherever they stand.
pub(super) fn is_seen(reader: &impl Read, actor: &Actor, comment: &Record) -> Result<bool> {
    if !may_see(actor, comment) {
        return Ok(false);
    }
    if is_own(actor, comment) || actor.can(Permission::PostsWrite) {
        return Ok(true);
    }
    let on = comment.id(&POST_ID).map(|key| reader.get(&post::POST, key)).transpose()?.flatten();
    Ok(on.is_some_and(|post| post::may_see(actor, &post)))
}

/// A comment that the actor sees.
fn seen(reader: &impl Read, actor: &Actor, key: Id) -> Result<Record> {
    match reader.get(&COMMENT, key)? {
        Some(comment) if is_seen(reader, actor, &comment)? => Ok(comment),
        _ => Err(Error::NotFound("comment")),
    }
}

pub fn get(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    crate::content::read(node, |reader| seen(reader, actor, key))
}

/// The actor's own comments, wherever they stand; or those under the posts that lists show him: for moderators all of
/// them, for others those that are open and were not removed.
pub fn list(node: &Node, actor: &Actor, query: Query, own: bool) -> Result<Page> {
    let user = actor.require_user()?;
    let moderates = actor.can(Permission::CommentsModerate);
    let query = match (own, actor.can(Permission::PostsWrite)) {
        (true, _) => query.filter(AUTHOR_ID.name, user),
        (false, true) if moderates => query,
        (false, true) => query.is_not_null(SAID_ON),
        (false, false) => {
            let posts = post::readable(Query::of(&post::POST, actor.tenant), actor);
            query.within(if moderates { POST_ID.name } else { SAID_ON }, posts)
        }
    };
    Ok(node.store.read(|reader| reader.list(&query))?)
}

/// The comments of one post that the actor sees, and how many people can read in all.
pub fn of_post(node: &Node, actor: &Actor, post: Id, query: Query) -> Result<Page> {
    post::get(node, actor, post)?;
    let query = query.filter("post_id", post);
    let query =
        if actor.can(Permission::CommentsModerate) { query } else { query.filter("open", true) };
    Ok(node.store.read(|reader| reader.list(&query))?)
}

/// A comment with the answers to it, the oldest first.
#[derive(Debug)]
pub struct Thread {
    pub comment: Record,
    pub replies: Vec<Thread>,
}

/// Answers that one page of threads holds; the flat list has them all.
pub const MAX_REPLIES: usize = 1_000;

/// As [`of_post`], but a page of those that answer none, with what answers them.
pub fn threads(
    node: &Node,
    actor: &Actor,
    post: Id,
    query: Query,
) -> Result<(Vec<Thread>, Option<Cursor>, u64)> {
    let page = of_post(node, actor, post, query.is_null(PARENT_ID.name))?;
    let moderates = actor.can(Permission::CommentsModerate);
    let mut below: HashMap<Id, Vec<Record>> = HashMap::new();
    let (mut level, mut left) = (keys(&page.records), MAX_REPLIES);
    for _ in 0..=MAX_DEPTH {
        if level.is_empty() || left == 0 {
            break;
        }
        let answers = Query::of(&COMMENT, actor.tenant).any_of(PARENT_ID.name, level);
        let answers = answers.filter(POST_ID.name, post).limit(left).without_total();
        let answers = if moderates { answers } else { answers.filter("open", true) };
        let answers = node.store.read(|reader| reader.list(&answers))?.records;
        (level, left) = (keys(&answers), left - answers.len());
        for answer in answers {
            below.entry(answer.id(&PARENT_ID).unwrap_or_default()).or_default().push(answer);
        }
    }
    Ok((threaded(page.records, &mut below), page.next, page.total))
}

fn keys(comments: &[Record]) -> Vec<Value> {
    comments.iter().map(|comment| Value::Id(comment.key)).collect()
}

/// Each is taken out where it stands, so that a circle ends.
fn threaded(comments: Vec<Record>, below: &mut HashMap<Id, Vec<Record>>) -> Vec<Thread> {
    let thread = |comment: Record| {
        let replies = below.remove(&comment.key).unwrap_or_default();
        Thread { replies: threaded(replies, below), comment }
    };
    comments.into_iter().map(thread).collect()
}

/// What everybody reads under a post, the oldest first, and how many comments that are in all. Whether the post is
/// seen, the caller knows.
pub fn open_on(node: &Node, tenant: Id, post: Id, limit: usize) -> Result<(Vec<Record>, u64)> {
    let open = Query::of(&COMMENT, tenant).filter("post_id", post).filter("open", true);
    let page = node.store.read(|reader| reader.list(&open.limit(limit)))?;
    Ok((page.records, page.total))
}

/// Open comments of a post that were not removed, from the kept count.
pub fn count_of(reader: &impl Read, tenant: Id, post: Id) -> Result<u64> {
    Ok(reader.count(&Query::of(&COMMENT, tenant).filter(SAID_ON, post))?)
}

pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::CommentsWrite)?;
    let author = actor.require_user()?;
    kinds::validate(&COMMENT, &changes, true)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            kinds::check(tx, &COMMENT, actor.tenant, None, &changes)?;
            let on = changes.get(&POST_ID).and_then(Value::as_id).unwrap_or_default();
            let commented = tx.get(&post::POST, on)?.filter(|post| post::may_see(&actor, post));
            let commented = commented.ok_or_else(|| missing(&POST_ID, "post"))?;
            check_parent(tx, &actor, &changes, on)?;
            let status = status_of_new(tx, &actor, author)?;
            let changes = changes.set(&AUTHOR_ID, author).set(&STATUS, status);
            let key = tx.new_id();
            let comment = tx.create(&COMMENT, actor.tenant, key, changes)?;
            let title = commented.text(&post::TITLE);
            emit(
                tx,
                &actor,
                "community.comment.created",
                &comment,
                json!({ "post_title": title }),
            )?;
            Ok(comment)
        })
        .await
}

/// As the tenant wants it: see [`tenant::COMMENTS`].
fn status_of_new(reader: &impl Read, actor: &Actor, author: Id) -> Result<&'static str> {
    let settings = tenant::settings(reader, actor.tenant)?;
    let policy = settings.as_ref().map_or("", |settings| settings.text(&tenant::COMMENTS));
    let is_approved = match policy {
        "closed" => {
            return Err(Error::conflict("comments_closed", "no comments are taken here"));
        }
        "open" => true,
        "moderated" => actor.can(Permission::CommentsModerate),
        _ => is_trusted(reader, actor, author)?,
    };
    Ok(if is_approved { APPROVED } else { PENDING })
}

fn missing(field: &Field, noun: &str) -> Error {
    Error::field(field.name, "unknown_reference", format!("there is no such {noun}"))
}

/// The parent belongs to the same post, is seen by the actor, and is not too deep.
fn check_parent(reader: &impl Read, actor: &Actor, changes: &Changes, on: Id) -> Result<()> {
    let mut next = changes.get(&PARENT_ID).and_then(Value::as_id);
    for depth in 0.. {
        let Some(key) = next else { return Ok(()) };
        if depth == MAX_DEPTH {
            let message = format!("the thread is {MAX_DEPTH} answers deep: answer one further up");
            return Err(Error::field(PARENT_ID.name, "too_deep", message));
        }
        // Above the first, a parent may be one that has not come from its node yet.
        let Some(parent) = reader.get(&COMMENT, key)? else { return Ok(()) };
        let fits = parent.id(&POST_ID) == Some(on) && (depth > 0 || may_see(actor, &parent));
        if !fits {
            return Err(missing(&PARENT_ID, "comment under this post"));
        }
        next = parent.id(&PARENT_ID);
    }
    Ok(())
}

fn is_trusted(reader: &impl Read, actor: &Actor, author: Id) -> Result<bool> {
    if actor.can(Permission::CommentsModerate) {
        return Ok(true);
    }
    let approved =
        Query::of(&COMMENT, actor.tenant).filter("author_id", author).filter("status", APPROVED);
    Ok(!reader.list(&approved.limit(1).without_total())?.records.is_empty())
}

fn emit(
    tx: &mut Tx<'_>,
    actor: &Actor,
    event_type: &str,
    comment: &Record,
    more: serde_json::Value,
) -> Result<()> {
    let mut payload = json!({
        "comment_id": comment.key,
        "post_id": comment.id(&POST_ID),
        "author_id": comment.id(&AUTHOR_ID),
        "status": comment.text(&STATUS),
    });
    if let (Some(payload), Some(more)) = (payload.as_object_mut(), more.as_object()) {
        payload.extend(more.clone());
    }
    tx.emit(&Event { event_type, tenant: comment.tenant, user: actor.user, payload })?;
    Ok(())
}

/// A comment that the actor may change: one that he sees and that was not removed.
fn for_writing(
    reader: &impl Read,
    actor: &Actor,
    key: Id,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let comment = seen(reader, actor, key)?;
    if expected.is_some_and(|version| version != comment.version()) {
        return Err(Error::Stale);
    }
    Ok(comment)
}

/// Its author's right alone: a moderator rejects, and puts no words into people's mouths.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let author = actor.require_user()?;
    kinds::validate(&COMMENT, &changes, false)?;
    if changes.registers.iter().any(|(field, _)| field.code != TEXT.code) {
        return Err(Error::field(
            "post_id",
            "read_only",
            "only the text of a comment can be changed",
        ));
    }
    let actor = *actor;
    node.store
        .write(move |tx| {
            let comment = for_writing(tx, &actor, key, expected)?;
            if comment.id(&AUTHOR_ID) != Some(author) {
                return Err(Error::Denied("only its author edits a comment".into()));
            }
            if comment.flag(&REMOVED) {
                return Err(Error::conflict("removed", "the comment was removed"));
            }
            let now_ms = tx.now_ms();
            let mut changes = changes.set(&EDITED_AT, now_ms);
            if comment.text(&STATUS) == REJECTED {
                changes.put(&STATUS, PENDING);
            }
            let after = tx.edit(&COMMENT, key, changes)?;
            emit(tx, &actor, "community.comment.updated", &after, json!({}))?;
            Ok(after)
        })
        .await
}

/// Takes the text away and keeps the place, so that the replies stay where they are.
pub async fn remove(node: &Node, actor: &Actor, key: Id, expected: Option<[u8; 16]>) -> Result<()> {
    actor.require_user()?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let comment = for_writing(tx, &actor, key, expected)?;
            actor.require_owner_or(comment.id(&AUTHOR_ID), Permission::CommentsModerate)?;
            let after =
                tx.edit(&COMMENT, key, Changes::new().set(&REMOVED, true).set(&TEXT, ""))?;
            emit(tx, &actor, "community.comment.removed", &after, json!({}))?;
            let mut told = Map::new();
            told.insert(REMOVED.name.to_owned(), json!({ "before": null, "after": true }));
            // It says nothing that was taken away.
            told.insert(TEXT.name.to_owned(), json!({ "changed": true }));
            let target = Some((COMMENT.name, key));
            audit::note_in(tx, comment.tenant, &actor, "comment.removed", target, told)
        })
        .await
}

/// Approves or rejects.
pub async fn moderate(node: &Node, actor: &Actor, key: Id, approve: bool) -> Result<Record> {
    actor.require(Permission::CommentsModerate)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let comment = for_writing(tx, &actor, key, None)?;
            let (status, event, action) = if approve {
                (APPROVED, "community.comment.approved", "comment.approved")
            } else {
                (REJECTED, "community.comment.rejected", "comment.rejected")
            };
            if comment.text(&STATUS) == status {
                return Ok(comment);
            }
            let after = tx.edit(&COMMENT, key, Changes::new().set(&STATUS, status))?;
            emit(tx, &actor, event, &after, json!({}))?;
            audit::note(tx, &actor, action, Some(&comment), Some(&after))?;
            Ok(after)
        })
        .await
}

/// A comment that was made elsewhere, as an import brings it.
#[derive(Clone, Debug)]
pub(crate) struct Adopted {
    pub post: Id,
    pub parent: Option<Id>,
    pub author: Option<Id>,
    pub text: String,
    pub approved: bool,
    /// When it was made, if that is known.
    pub made_ms: Option<u64>,
}

/// Makes it under this key, which is the same whenever it is imported. Whether it is new.
pub(crate) fn adopt(tx: &mut Tx<'_>, actor: &Actor, key: Id, adopted: Adopted) -> Result<bool> {
    if tx.get(&COMMENT, key)?.is_some() {
        return Ok(false);
    }
    let text: String = adopted.text.chars().take(TEXT.max).collect();
    let changes = Changes::new()
        .set(&POST_ID, adopted.post)
        .set(&PARENT_ID, adopted.parent)
        .set(&AUTHOR_ID, adopted.author)
        .set(&TEXT, text)
        .set(&STATUS, if adopted.approved { APPROVED } else { PENDING });
    let made_ms = adopted.made_ms.unwrap_or(tx.now_ms());
    let comment = tx.create_at(&COMMENT, actor.tenant, key, changes, (made_ms, made_ms))?;
    emit(tx, actor, "community.comment.created", &comment, json!({}))?;
    Ok(true)
}
