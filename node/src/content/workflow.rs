//! A post's way: draft, scheduled, published, archived, and the trash. Only lawful steps; each with its event in
//! the same transaction. What time does by itself stands in `schedule`.

use super::post::{
    ARCHIVED, BODY, DRAFT, POST, PUBLISH_AT, PUBLISHED, PUBLISHED_AT, SCHEDULED, STATUS,
    TRASHED_AT, TRASHED_HEADS, emit, for_writing, is_trashed, may_see,
};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record, Value};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Now, or at this time in Unix milliseconds.
    Publish(Option<i64>),
    Unpublish,
    Archive,
    /// From the archive to the drafts, or from the trash to where it was.
    Restore,
}

/// The furthest that a post can be scheduled ahead: a century.
const FURTHEST_MS: i64 = 100 * 365 * 86_400_000;

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Unpublish => "unpublish",
            Self::Archive => "archive",
            Self::Restore => "restore",
        }
    }
}

/// The names of the steps that a post may take.
pub fn lawful(post: &Record) -> &'static [&'static str] {
    if is_trashed(post) {
        return &["restore"];
    }
    // What an edit brought back from the trash may be kept for good.
    match (post.text(&STATUS), post.int(&TRASHED_AT).is_some()) {
        (DRAFT, false) => &["publish", "archive"],
        (DRAFT, true) => &["publish", "archive", "restore"],
        (SCHEDULED, false) => &["publish", "unpublish", "archive"],
        (SCHEDULED, true) => &["publish", "unpublish", "archive", "restore"],
        (PUBLISHED, false) => &["unpublish", "archive"],
        (PUBLISHED, true) => &["unpublish", "archive", "restore"],
        _ => &["restore"],
    }
}

/// # Errors
/// `Conflict` (`unlawful_transition`) that names the lawful steps; `Stale` if the post is not the one expected.
pub async fn take(
    node: &Node,
    actor: &Actor,
    key: Id,
    step: Step,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    actor.require(Permission::PostsPublish)?;
    if let Step::Publish(Some(at_ms)) = step
        && !(0..=node.clock.now_ms() as i64 + FURTHEST_MS).contains(&at_ms)
    {
        return Err(Error::field(
            "publish_at",
            "out_of_range",
            "must lie between 1970 and a century from now",
        ));
    }
    let actor = *actor;
    node.store.write(move |tx| take_in(tx, &actor, key, step, expected)).await
}

fn take_in(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    step: Step,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let post =
        tx.get(&POST, key)?.filter(|post| may_see(actor, post)).ok_or(Error::NotFound("post"))?;
    super::require_version(&post, expected)?;
    let lawful = lawful(&post);
    if !lawful.contains(&step.name()) {
        let state = if is_trashed(&post) { "trashed" } else { post.text(&STATUS) };
        let message = format!(
            "{} is no lawful step of a {state} post: it can {}",
            step.name(),
            lawful.join(", ")
        );
        return Err(Error::conflict("unlawful_transition", message));
    }
    let (changes, event_type) = effect(&post, step, tx.now_ms() as i64);
    let after = tx.edit(&POST, key, changes)?;
    emit(tx, actor, event_type, &after)?;
    audit::note(tx, actor, action_of(event_type), Some(&post), Some(&after))?;
    Ok(after)
}

/// `post.published` of `postal.post.published`.
fn action_of(event_type: &str) -> &str {
    event_type.split_once('.').map_or(event_type, |(_, action)| action)
}

fn effect(post: &Record, step: Step, now_ms: i64) -> (Changes, &'static str) {
    let to = |status: &str| Changes::new().set(&STATUS, status).set(&PUBLISH_AT, Value::Null);
    match step {
        Step::Publish(Some(at_ms)) if at_ms > now_ms => (
            Changes::new().set(&STATUS, SCHEDULED).set(&PUBLISH_AT, at_ms),
            "postal.post.scheduled",
        ),
        Step::Publish(_) => {
            // Published again, it keeps its place.
            let at_ms = post.int(&PUBLISHED_AT).unwrap_or(now_ms);
            (to(PUBLISHED).set(&PUBLISHED_AT, at_ms), "postal.post.published")
        }
        Step::Unpublish => (to(DRAFT), "postal.post.unpublished"),
        Step::Archive => (to(ARCHIVED), "postal.post.archived"),
        Step::Restore if post.int(&TRASHED_AT).is_some() => {
            let out = Changes::new().set(&TRASHED_AT, Value::Null).set(&TRASHED_HEADS, Value::Null);
            (out, "postal.post.restored")
        }
        Step::Restore => (to(DRAFT), "postal.post.restored"),
    }
}

/// Puts a post into the trash, as its author or as who administers posts. What is there stays there.
pub async fn trash(node: &Node, actor: &Actor, key: Id, expected: Option<[u8; 16]>) -> Result<()> {
    let actor = *actor;
    node.store.write(move |tx| trash_in(tx, &actor, key, expected)).await
}

pub(super) fn trash_in(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    expected: Option<[u8; 16]>,
) -> Result<()> {
    let post = for_writing(tx, actor, key, expected)?;
    if is_trashed(&post) {
        return Ok(());
    }
    let changes = Changes::new()
        .set(&TRASHED_AT, tx.now_ms())
        .set(&TRASHED_HEADS, Value::Bytes(post.heads(&BODY).as_flattened().to_vec()));
    let after = tx.edit(&POST, key, changes)?;
    emit(tx, actor, "postal.post.trashed", &after)?;
    audit::note(tx, actor, "post.trashed", Some(&post), Some(&after))
}

/// What a deletion said that an edit overruled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// When it was deleted, in Unix milliseconds.
    pub at_ms: i64,
    /// The heads of the body that whoever deleted it saw.
    pub heads: Vec<u8>,
}

/// Puts a post that an edit kept from the trash there after all, as [`trash`]. Also tells as of when it is there.
///
/// # Errors
/// `Conflict` (`cannot_take`) if it is in the trash, or nobody had put it there.
pub(crate) fn trash_after_all(tx: &mut Tx<'_>, actor: &Actor, key: Id) -> Result<(Overruled, i64)> {
    let post = for_writing(tx, actor, key, None)?;
    let deletion = post.int(&TRASHED_AT).filter(|_| !is_trashed(&post));
    let at_ms = deletion.ok_or_else(|| {
        Error::conflict("cannot_take", "no deletion of this post was overruled: look at it again")
    })?;
    let heads = post.bytes(&TRASHED_HEADS).unwrap_or_default().to_vec();
    trash_in(tx, actor, key, None)?;
    let after = tx.get(&POST, key)?.ok_or(Error::NotFound("post"))?;
    Ok((Overruled { at_ms, heads }, after.int(&TRASHED_AT).unwrap_or_default()))
}

/// Takes [`trash_after_all`] back: the edit wins again, and the inbox tells of it. False if the post is not in the
/// trash as of `at_ms`.
pub(crate) fn overrule_again(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    before: Overruled,
    at_ms: i64,
) -> Result<bool> {
    let post = for_writing(tx, actor, key, None)?;
    if !is_trashed(&post) || post.int(&TRASHED_AT) != Some(at_ms) {
        return Ok(false);
    }
    let changes = Changes::new()
        .set(&TRASHED_AT, before.at_ms)
        .set(&TRASHED_HEADS, Value::Bytes(before.heads));
    let after = tx.edit(&POST, key, changes)?;
    emit(tx, actor, "postal.post.restored", &after)?;
    audit::note(tx, actor, "post.restored", Some(&post), Some(&after))?;
    Ok(true)
}
