//! Who finds what: each document of the index names its readers, and each query names whom it is asked for. So totals
//! and facets count what the actor may see and nothing else. Names no record to anybody: it only says who reads it.
//!
//! A comment has the readers of its post, so it is fed again whenever the post is.

use crate::access::{Actor, Permission, Role};
use crate::community::comment::{self, COMMENT};
use crate::content::post::{self, POST};
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::{Id, Record, Result, SearchText};

/// The facet that holds them; never counted, and no caller names it.
const AUDIENCE: &str = "audience";
/// Of what nobody but its writers reads, the readers' name for who writes posts.
const EDITORS: &str = "editors";
const EVERYBODY: &str = "everybody";

fn user(id: Id) -> String {
    format!("user {id}")
}

fn role(role: Role) -> String {
    format!("role {role}")
}

/// What a moderator among these readers finds, whatever its status.
fn moderating(reader: &str) -> String {
    format!("moderating {reader}")
}

/// What its own author finds among these readers, whatever its status.
fn own(author: Id, reader: &str) -> String {
    format!("own {author} {reader}")
}

/// The readers of a post; the rules are [`post::may_see`]'s.
fn of_post(post: &Record) -> Vec<String> {
    let mut readers = vec![EDITORS.to_owned()];
    if post::is_live(post) {
        readers.push(EVERYBODY.to_owned());
    }
    let roles = Role::ALL.iter().filter(|r| post::is_shown_to(post, Some(**r)));
    readers.extend(roles.map(|r| role(*r)));
    readers.extend(post::authors(post).map(user));
    readers
}

/// A document's text with the names of its readers.
pub(crate) fn marked(
    reader: &impl Read,
    record: &Record,
    mut text: SearchText,
) -> Result<SearchText> {
    let mut names = Vec::new();
    if record.kind.code == POST.code {
        for reader in of_post(record) {
            names.push(moderating(&reader));
            names.push(reader);
        }
    } else if record.kind.code == COMMENT.code {
        let on = record.id(&comment::POST_ID).map(|key| reader.get(&POST, key)).transpose()?;
        let is_there = |post: &Record| post.tenant == record.tenant && !post::is_trashed(post);
        let on = on.flatten().filter(is_there);
        let readers = on.as_ref().map(of_post).unwrap_or_default();
        let is_open = comment::is_open(record);
        // Suggestions and the mark *public* are for everybody too.
        text.public = text.public && on.as_ref().is_some_and(post::is_live);
        for reader in readers {
            names.push(moderating(&reader));
            names.extend(record.id(&comment::AUTHOR_ID).map(|author| own(author, &reader)));
            if is_open {
                names.push(reader);
            }
        }
    } else if text.public {
        names.extend([EVERYBODY, EDITORS].map(str::to_owned));
        names.extend(Role::ALL.iter().map(|r| role(*r)));
    }
    // First, for a document takes so many facets and no more.
    let facets = names.into_iter().map(|name| (AUDIENCE.to_owned(), name));
    text.facets = facets.chain(text.facets).collect();
    Ok(text)
}

/// The filter of a query: alternatives, one of which a document must name.
pub(crate) fn of(actor: &Actor) -> Vec<(String, String)> {
    let readers: Vec<String> = if actor.can(Permission::PostsWrite) {
        vec![EDITORS.to_owned()]
    } else {
        let by_role = actor.role.map_or_else(|| EVERYBODY.to_owned(), role);
        std::iter::once(by_role).chain(actor.user.map(user)).collect()
    };
    let moderates = actor.can(Permission::CommentsModerate);
    let names = readers.into_iter().flat_map(|reader| {
        let own = actor.user.filter(|_| !moderates).map(|user| own(user, &reader));
        let name = if moderates { moderating(&reader) } else { reader };
        std::iter::once(name).chain(own)
    });
    names.map(|name| (AUDIENCE.to_owned(), name)).collect()
}

/// Comments, whose readers change with their post, some at a time.
pub(crate) fn dependants(
    reader: &impl Read,
    (tenant, post): (Id, Id),
    after: Option<Cursor>,
) -> Result<(Vec<Record>, Option<Cursor>)> {
    let query = Query::of(&COMMENT, tenant).filter(comment::POST_ID.name, post);
    let query = query.sort("key", false).after(after).limit(1_000).without_total();
    let page = reader.list(&query)?;
    Ok((page.records, page.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(actor: &Actor) -> Vec<String> {
        of(actor).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_query_names_whom_it_is_asked_for() {
        let (tenant, me) = (Id::NIL, Id([7; 16]));
        assert_eq!(names(&Actor::stranger(tenant)), ["everybody"]);
        let viewer = names(&Actor::of(tenant, me, Role::Viewer));
        let own = |reader: &str| format!("own {me} {reader}");
        let user = format!("user {me}");
        assert_eq!(
            viewer,
            ["role viewer".to_owned(), own("role viewer"), user.clone(), own(&user)]
        );
        assert_eq!(names(&Actor::of(tenant, me, Role::Editor)), ["moderating editors"]);
    }
}
