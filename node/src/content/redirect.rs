//! Redirects: addresses that posts had elsewhere, before they came here. A path is unique in its tenant by its key, so
//! that two nodes that learn it apart make one record. Never leads anybody to what he may not see.

use super::post::{self, POST};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::percent;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Kind, Record, Value};
use serde_json::json;

pub const PATH: Field = Field::text(1, "path")
    .required()
    .max(1_000)
    .column()
    .doc("From its first slash on, without a query; a slash at its end makes no difference.");
pub const POST_ID: Field =
    Field::refers(2, "post_id", "post").required().column().doc("Where it leads.");

pub static REDIRECT: Kind = Kind {
    fields: &[PATH, POST_ID],
    indexes: &[&["path"], &["post_id"]],
    doc: "An address that a post had elsewhere.",
    ..Kind::new(34, "redirect", "redirects", super::SCOPE)
};

/// The path as it is kept: decoded, with one slash at its start and none at its end. None for what is no path, or
/// leads to the root or under `/api`, where nothing is redirected.
pub fn normal(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim();
    let decoded = percent::decode(path, false)?;
    let parts: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    let fits = path.chars().count() <= PATH.max && !path.chars().any(char::is_control);
    let is_ours = parts.first() == Some(&"api");
    (path.len() > 1 && fits && !is_ours).then_some(path)
}

/// The path of an address that begins with `https://` or `http://`, or of one that is a path already. None for others,
/// and for those whose query tells what they lead to.
pub fn path_of(address: &str) -> Option<String> {
    let address = address.trim();
    if address.contains('?') {
        return None;
    }
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    let path = match rest {
        Some(rest) => &rest[rest.find('/')?..],
        None if address.starts_with('/') => address,
        None => return None,
    };
    normal(path)
}

pub(crate) fn key_of(tenant: Id, path: &str) -> Id {
    Id::natural(&[b"redirect", &tenant.0, path.as_bytes()])
}

/// `query` is over [`REDIRECT`] in the actor's tenant.
pub fn list(node: &Node, actor: &Actor, query: &Query) -> Result<Page> {
    actor.require(Permission::PostsAdminister)?;
    Ok(node.store.read(|reader| reader.list(query))?)
}

/// Leads a path to a post; one that led elsewhere leads here from now on.
pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::PostsAdminister)?;
    kinds::validate(&REDIRECT, &changes, true)?;
    let wrong = || {
        let message = "must be a path such as /2019/05/hello, not the root and not under /api";
        Error::field(PATH.name, "malformed_path", message)
    };
    let path = changes.get(&PATH).and_then(Value::as_text).and_then(normal).ok_or_else(wrong)?;
    let changes = changes.set(&PATH, path.as_str());
    let actor = *actor;
    node.store
        .write(move |tx| {
            kinds::check(tx, &REDIRECT, actor.tenant, None, &changes)?;
            let post = changes.get(&POST_ID).and_then(Value::as_id).unwrap_or_default();
            let key = key_of(actor.tenant, &path);
            let before = tx.get(&REDIRECT, key)?;
            let is_new = lead(tx, &actor, &path, post)?;
            let after = super::in_tenant(tx, &actor, &REDIRECT, key)?;
            if is_new {
                audit::note(tx, &actor, "redirect.created", before.as_ref(), Some(&after))?;
            }
            Ok(after)
        })
        .await
}

/// Whether that is new. `path` is a normal one, `post` one of the tenant.
pub(super) fn lead(tx: &mut Tx<'_>, actor: &Actor, path: &str, post: Id) -> Result<bool> {
    let key = key_of(actor.tenant, path);
    match tx.get(&REDIRECT, key)? {
        Some(there) if there.id(&POST_ID) == Some(post) => return Ok(false),
        Some(_) => tx.edit(&REDIRECT, key, Changes::new().set(&POST_ID, post))?,
        None => {
            let changes = Changes::new().set(&PATH, path).set(&POST_ID, post);
            tx.create(&REDIRECT, actor.tenant, key, changes)?
        }
    };
    tell(tx, actor, "postal.redirect.created", path, post)?;
    Ok(true)
}

pub async fn remove(node: &Node, actor: &Actor, key: Id) -> Result<()> {
    actor.require(Permission::PostsAdminister)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let redirect = super::in_tenant(tx, &actor, &REDIRECT, key)?;
            tx.remove(&REDIRECT, key)?;
            let post = redirect.id(&POST_ID).unwrap_or_default();
            tell(tx, &actor, "postal.redirect.deleted", redirect.text(&PATH), post)?;
            audit::note(tx, &actor, "redirect.deleted", Some(&redirect), None)
        })
        .await
}

fn tell(tx: &mut Tx<'_>, actor: &Actor, event_type: &str, path: &str, post: Id) -> Result<()> {
    let payload = json!({ "path": path, "post_id": post });
    tx.emit(&Event { event_type, tenant: actor.tenant, user: actor.user, payload })?;
    Ok(())
}

/// The post that a path leads to, if the public sees it.
pub fn target(node: &Node, tenant: Id, path: &str) -> Result<Option<Record>> {
    let Some(path) = normal(path) else { return Ok(None) };
    let post = node.store.read(|reader| {
        let redirect = reader.get(&REDIRECT, key_of(tenant, &path))?;
        let post = redirect.and_then(|redirect| redirect.id(&POST_ID));
        post.map_or(Ok(None), |key| reader.get(&POST, key))
    })?;
    Ok(post.filter(|post| post.tenant == tenant && post::is_live(post)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_in_one_form() {
        for path in ["/a/b", "/a//b/", "a/b", "/a/b?x=1", "/a/b#c", "/a/%62/"] {
            assert_eq!(normal(path).as_deref(), Some("/a/b"), "{path}");
        }
        for path in ["", "/", "//", "/api/v1/posts", "/%zz", "/%ff", "/a\0"] {
            assert_eq!(normal(path), None, "{path}");
        }
    }

    #[test]
    fn an_address_gives_its_path() {
        assert_eq!(path_of("https://old.example/2019/05/x/").as_deref(), Some("/2019/05/x"));
        assert_eq!(path_of("/x").as_deref(), Some("/x"));
        for address in ["https://old.example", "https://old.example/?p=7", "mailto:a@b", "x"] {
            assert_eq!(path_of(address), None, "{address}");
        }
    }
}
