//! Likes: once a person and a thing, by a natural key, so that a like given on two nodes is one like.

use crate::access::Actor;
use crate::community::comment::{self, COMMENT};
use crate::content::post::{self, POST};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Event, Field, Id, Kind, Type};
use serde_json::json;

pub const TARGET_KIND: Field = Field::text(1, "target_kind").read_only();
pub const TARGET_ID: Field = {
    let mut field = Field::refers(2, "target_id", "");
    field.refers = None;
    field.ty = Type::Id;
    field.column().read_only()
};
pub const USER_ID: Field = Field::refers(3, "user_id", "user").column().read_only();

pub static LIKE: Kind = Kind {
    fields: &[TARGET_KIND, TARGET_ID, USER_ID],
    indexes: &[&["user_id", "created_at"]],
    counted: &["target_id"],
    doc: "That somebody likes something.",
    ..Kind::new(41, "like", "likes", super::SCOPE)
};

/// Whether it is liked now, and by how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liked {
    pub liked: bool,
    pub likes: u64,
}

/// What can be liked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Post(Id),
    Comment(Id),
}

impl Target {
    fn key(self) -> Id {
        match self {
            Self::Post(key) | Self::Comment(key) => key,
        }
    }

    /// By the name of its kind.
    pub(crate) fn named(kind: &str, key: Id) -> Option<Self> {
        [Self::Post(key), Self::Comment(key)].into_iter().find(|target| target.kind().name == kind)
    }

    fn kind(self) -> &'static Kind {
        match self {
            Self::Post(_) => &POST,
            Self::Comment(_) => &COMMENT,
        }
    }

    fn is_seen(self, reader: &impl Read, actor: &Actor) -> Result<bool> {
        let Some(record) = reader.get(self.kind(), self.key())? else { return Ok(false) };
        match self {
            Self::Post(_) => Ok(post::may_see(actor, &record)),
            Self::Comment(_) => comment::is_seen(reader, actor, &record),
        }
    }
}

pub(crate) fn key_of(tenant: Id, target: Target, user: Id) -> Id {
    Id::natural(&[b"like", &tenant.0, target.kind().name.as_bytes(), &target.key().0, &user.0])
}

pub fn count(reader: &impl Read, tenant: Id, target: Target) -> Result<u64> {
    Ok(reader.count(&Query::of(&LIKE, tenant).filter("target_id", target.key()))?)
}

/// How many like it, and whether the actor does.
pub fn get(node: &Node, actor: &Actor, target: Target) -> Result<Liked> {
    node.store
        .read(|reader| {
            let likes = count(reader, actor.tenant, target).map_err(stored)?;
            let key = actor.user.map(|user| key_of(actor.tenant, target, user));
            let liked = key.map(|key| reader.get(&LIKE, key)).transpose()?.flatten().is_some();
            Ok(Liked { liked, likes })
        })
        .map_err(Error::from)
}

fn stored(error: Error) -> atoll_storage::Error {
    if let Error::Store(error) = error {
        error
    } else {
        atoll_storage::Error::Internal(error.to_string())
    }
}

/// Likes it, or takes the like back.
pub async fn toggle(node: &Node, actor: &Actor, target: Target) -> Result<Liked> {
    let user = actor.require_user()?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            if !target.is_seen(tx, &actor)? {
                return Err(Error::NotFound(target.kind().name));
            }
            let key = key_of(actor.tenant, target, user);
            let liked = tx.get(&LIKE, key)?.is_none();
            if liked {
                let changes = Changes::new()
                    .set(&TARGET_KIND, target.kind().name)
                    .set(&TARGET_ID, target.key())
                    .set(&USER_ID, user);
                tx.create(&LIKE, actor.tenant, key, changes)?;
            } else {
                tx.remove(&LIKE, key)?;
            }
            let event_type = if liked { "community.like.added" } else { "community.like.removed" };
            let payload = json!({ "target_kind": target.kind().name, "target_id": target.key() });
            tx.emit(&Event { event_type, tenant: actor.tenant, user: Some(user), payload })?;
            // The kept count is written with the group, so this one's own change is added to it here.
            let before = count(tx, actor.tenant, target)?;
            let likes = if liked { before + 1 } else { before.saturating_sub(1) };
            Ok(Liked { liked, likes })
        })
        .await
}
