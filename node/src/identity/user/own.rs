//! All that is here of a user, for himself: his account, posts, comments, likes, sessions and keys, page by page, so
//! that no amount of it fills the memory.

use super::me;
use crate::access::Actor;
use crate::community::comment::COMMENT;
use crate::community::like::LIKE;
use crate::content::post::POST;
use crate::error::Result;
use crate::identity::api_key::API_KEY;
use crate::identity::session::{self, SESSION};
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Page, Query};
use atoll_storage::read::Read;
use atoll_storage::{Kind, Record};

/// One of the lists that an export is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Posts,
    Comments,
    Likes,
    Sessions,
    ApiKeys,
}

impl Part {
    pub const ALL: &'static [Self] =
        &[Self::Posts, Self::Comments, Self::Likes, Self::Sessions, Self::ApiKeys];

    /// As the document calls it.
    pub fn title(self) -> &'static str {
        self.kind().plural
    }

    fn kind(self) -> &'static Kind {
        match self {
            Self::Posts => &POST,
            Self::Comments => &COMMENT,
            Self::Likes => &LIKE,
            Self::Sessions => &SESSION,
            Self::ApiKeys => &API_KEY,
        }
    }

    const fn owner(self) -> &'static str {
        match self {
            Self::Posts | Self::Comments => "author_id",
            Self::Likes | Self::Sessions | Self::ApiKeys => "user_id",
        }
    }
}

/// Posts come with their bodies.
const POSTS_AT_ONCE: usize = 20;
const AT_ONCE: usize = 200;

/// Whose data it is. Not for somebody who acts in his name.
pub fn account(node: &Node, actor: &Actor) -> Result<Record> {
    actor.require_in_person()?;
    me(node, actor)
}

/// A page of one part of `me`'s data, the oldest first.
pub fn page(node: &Node, me: &Record, part: Part, after: Option<Cursor>) -> Result<Page> {
    let query = Query::of(part.kind(), me.tenant).filter(part.owner(), me.key).after(after);
    let query = match part {
        Part::Posts => query.limit(POSTS_AT_ONCE).with_bodies(),
        _ => query.limit(AT_ONCE),
    };
    let mut page = node.store.read(|reader| reader.list(&query.without_total()))?;
    if part == Part::Sessions {
        page.records.retain(|session| !session::is_revoked(session));
    }
    Ok(page)
}
