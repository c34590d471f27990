//! What somebody writes on a post and has not saved yet: one draft a user and post, under a key that every node makes
//! alike. It is nobody else's to see, leaves no version, and becomes a change of the post when it is applied.

use super::post::{self, POST, change, for_writing, is_trashed};
use super::version::{self, Base};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Kind, Record, Value};
use serde_json::Value as Json;

pub const POST_ID: Field = Field::refers(1, "post_id", "post").column().read_only();
pub const USER_ID: Field = Field::refers(2, "user_id", "user").column().read_only();
pub const TITLE: Field = Field::text(3, "title").max(300).private();
pub const EXCERPT: Field = Field::text(4, "excerpt").max(1_000).private();
pub const BODY: Field = Field::body(5, "body").doc("The post's own if it was never sent.");
/// The heads of the post's body, and its fields, when the draft was begun.
pub const BASE_HEADS: Field = Field::bytes(6, "base_heads").max(32 * 1_000).secret().silent();
pub const BASE_FIELDS: Field = Field::text(7, "base_fields").max(1 << 16).secret().silent();

pub static POST_AUTOSAVE: Kind = Kind {
    fields: &[POST_ID, USER_ID, TITLE, EXCERPT, BODY, BASE_HEADS, BASE_FIELDS],
    indexes: &[&["post_id"]],
    doc: "What somebody writes on a post and has not saved yet.",
    ..Kind::new(24, "post_autosave", "post_autosaves", super::SCOPE)
};

fn key_of(post: &Record, user: Id) -> Id {
    Id::natural(&[b"post_autosave", &post.tenant.0, &post.key.0, &user.0])
}

/// The post if the actor may write on it, and his draft if he has one.
fn find(reader: &impl Read, actor: &Actor, user: Id, key: Id) -> Result<(Record, Option<Record>)> {
    let post = for_writing(reader, actor, key, None)?;
    let draft = reader.get_full(&POST_AUTOSAVE, key_of(&post, user))?;
    Ok((post, draft))
}

const MISSING: Error = Error::NotFound("autosave");

/// The actor's own draft, and whether the post was changed since it was begun.
pub fn get(node: &Node, actor: &Actor, key: Id) -> Result<(Record, bool)> {
    let user = actor.require_user()?;
    super::read(node, |reader| {
        let (post, draft) = find(reader, actor, user, key)?;
        let draft = draft.ok_or(MISSING)?;
        let is_behind = *draft.value(&BASE_HEADS) != version::heads_of(&post);
        Ok((draft, is_behind))
    })
}

/// Keeps what is given; what is left out stays. Only the first of many saves tells an event.
pub async fn save(node: &Node, actor: &Actor, key: Id, changes: Changes) -> Result<Record> {
    let user = actor.require_user()?;
    kinds::validate(&POST_AUTOSAVE, &changes, false)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let (post, draft) = find(tx, &actor, user, key)?;
            if is_trashed(&post) {
                return Err(Error::conflict(
                    "trashed",
                    "the post is in the trash: restore it first",
                ));
            }
            if let Some(draft) = draft {
                return Ok(tx.edit(&POST_AUTOSAVE, draft.key, changes)?);
            }
            let text = changes.get_body(&BODY).unwrap_or(post.body(&post::BODY)).to_owned();
            let changes = changes
                .body(&BODY, text)
                .set(&POST_ID, post.key)
                .set(&USER_ID, user)
                .set(&BASE_HEADS, version::heads_of(&post))
                .set(&BASE_FIELDS, Json::Object(version::snapshot(&post)).to_string());
            let draft = tx.create(&POST_AUTOSAVE, post.tenant, key_of(&post, user), changes)?;
            post::emit(tx, &actor, "postal.post.autosaved", &post)?;
            Ok(draft)
        })
        .await
}

pub async fn discard(node: &Node, actor: &Actor, key: Id) -> Result<()> {
    let user = actor.require_user()?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let draft = find(tx, &actor, user, key)?.1.ok_or(MISSING)?;
            Ok(tx.remove(&POST_AUTOSAVE, draft.key)?)
        })
        .await
}

/// Makes a version of the draft, and forgets it. What others did to the post since it was begun stays.
pub async fn apply(
    node: &Node,
    actor: &Actor,
    key: Id,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let user = actor.require_user()?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let (post, draft) = find(tx, &actor, user, key)?;
            super::require_version(&post, expected)?;
            let draft = draft.ok_or(MISSING)?;
            let fields = serde_json::from_str(draft.text(&BASE_FIELDS)).unwrap_or_default();
            let base = Base::Standing(version::heads_in(&draft, &BASE_HEADS), fields);
            let changes = version::since(tx, &post, &base, written(&draft))?;
            kinds::validate(&POST, &changes, false)?;
            let post = change(tx, &actor, &post, changes, "autosave")?;
            tx.remove(&POST_AUTOSAVE, draft.key)?;
            Ok(post)
        })
        .await
}

fn written(draft: &Record) -> Changes {
    let mut changes = Changes::new().body(&post::BODY, draft.body(&BODY));
    for (from, to) in [(&TITLE, &post::TITLE), (&EXCERPT, &post::EXCERPT)] {
        if let Value::Text(text) = draft.value(from) {
            changes.put(to, text.as_str());
        }
    }
    changes
}
