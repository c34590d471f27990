//! Roles that a tenant makes for itself: named sets of permissions that add to the built-in role which every user
//! has. Never gives what reaches beyond the tenant, nor what its giver lacks. The built-in roles are no records: see
//! [`crate::access::Role`].

use super::announce;
use super::user::{self, ROLE_IDS, USER};
use crate::access::{Actor, Permission, PermissionSet, Role};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record, Type, Value};
use serde_json::json;

pub const NAME: Field =
    Field::text(1, "name").required().max(60).claim("role.name").doc(
        "Unique in the tenant; neither a built-in role's, nor with a comma or a semicolon in it.",
    );
pub const DESCRIPTION: Field = Field::text(2, "description").max(500);
pub const PERMISSIONS: Field =
    Field::set(3, "permissions", Type::Text).max(64).doc("Names of what it allows.");

pub static ROLE: Kind = Kind {
    fields: &[NAME, DESCRIPTION, PERMISSIONS],
    doc: "What somebody may do beyond his built-in role.",
    ..Kind::new(15, "role", "roles", "identity")
};

/// Roles that a tenant makes, at most.
pub const MOST_ROLES: usize = 200;
/// Users that one transaction moves when a role goes.
const MOVED_AT_ONCE: usize = 200;

pub(super) const fn referring(mut field: Field) -> Field {
    field.refers = Some("role");
    field
}

/// What a role allows, as far as this release knows it.
pub fn given_by(role: &Record) -> PermissionSet {
    let names = role.set(&PERMISSIONS).filter_map(Value::as_text);
    let given: PermissionSet = names.filter_map(Permission::parse).collect();
    given.without(Permission::OF_THE_NETWORK)
}

/// All that a user's roles allow together.
pub fn permissions_of(reader: &impl Read, user: &Record) -> atoll_storage::Result<PermissionSet> {
    let mut all = user::rank(reader, user)?.permission_set();
    for id in user.set(&ROLE_IDS).filter_map(Value::as_id).take(ROLE_IDS.max) {
        if let Some(role) = reader.get(&ROLE, id)?.filter(|role| role.tenant == user.tenant) {
            all = all.union(given_by(&role));
        }
    }
    Ok(all)
}

/// Those that the tenant made, by name.
pub fn list(node: &Node, actor: &Actor) -> Result<Vec<Record>> {
    actor.require(Permission::UsersAdminister)?;
    let query = Query::of(&ROLE, actor.tenant).sort("name", false).limit(1_000).without_total();
    Ok(node.store.read(|reader| reader.list(&query))?.records)
}

/// By id or name.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    if Role::parse(name).is_some() {
        return Err(built_in(name));
    }
    let found = node.store.read(|reader| find(reader, actor.tenant, name))?;
    found.ok_or(Error::NotFound("role"))
}

fn built_in(name: &str) -> Error {
    let message = format!("the role {name} is built in: it can be neither changed nor deleted");
    Error::conflict("built_in", message)
}

fn find(reader: &impl Read, tenant: Id, name: &str) -> atoll_storage::Result<Option<Record>> {
    let key = match (Id::parse(name), NAME.claim) {
        (Some(id), _) => Some(id),
        (None, Some(space)) => reader.claimed(tenant, space, name)?,
        (None, None) => None,
    };
    let role = key.map_or(Ok(None), |key| reader.get(&ROLE, key))?;
    Ok(role.filter(|role| role.tenant == tenant))
}

fn in_tenant(reader: &impl Read, tenant: Id, key: Id) -> Result<Record> {
    let role = reader.get(&ROLE, key)?.filter(|role| role.tenant == tenant);
    role.ok_or(Error::NotFound("role"))
}

pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    check(actor, &changes, true)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let all = Query::of(&ROLE, actor.tenant).limit(MOST_ROLES).without_total();
            if tx.list(&all)?.records.len() == MOST_ROLES {
                let message = format!("a tenant makes at most {MOST_ROLES} roles: delete one");
                return Err(Error::conflict("too_many_roles", message));
            }
            kinds::check(tx, &ROLE, actor.tenant, None, &changes)?;
            let key = tx.new_id();
            let role = tx.create(&ROLE, actor.tenant, key, changes)?;
            tell(tx, &actor, "created", None, Some(&role))?;
            Ok(role)
        })
        .await
}

/// Counts from the next request of those who have it. `expected`: the version that the caller has seen, if it
/// insists.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    check(actor, &changes, false)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let before = in_tenant(tx, actor.tenant, key)?;
            require_version(&before, expected)?;
            kinds::check(tx, &ROLE, actor.tenant, Some(key), &changes)?;
            let role = tx.edit(&ROLE, key, changes)?;
            if role.version() != before.version() {
                tell(tx, &actor, "updated", Some(&before), Some(&role))?;
            }
            Ok(role)
        })
        .await
}

fn require_version(role: &Record, expected: Option<[u8; 16]>) -> Result<()> {
    if expected.is_some_and(|version| version != role.version()) {
        return Err(Error::Stale);
    }
    Ok(())
}

/// Deletes a role; with `reassign_to`, those who have it get that one instead, some at a time. Stopped half-way, it
/// can be repeated.
///
/// # Errors
/// `Conflict` (`role_in_use`) while anybody has it and there is no `reassign_to`.
pub async fn remove(
    node: &Node,
    actor: &Actor,
    key: Id,
    reassign_to: Option<&str>,
    expected: Option<[u8; 16]>,
) -> Result<()> {
    actor.require(Permission::UsersAdminister)?;
    let target = node
        .store
        .read(|reader| reassign_to.map(|name| find(reader, actor.tenant, name)).transpose())?;
    let target = match target {
        None => None,
        Some(Some(role)) if role.key != key => Some(role),
        Some(_) => {
            let message = "there is no such role beside the one that goes";
            return Err(Error::field("reassign_to", "unknown_reference", message));
        }
    };
    if let Some(role) = &target {
        actor.require_all(given_by(role))?;
    }
    let actor = *actor;
    let role = node.store.read(|reader| Ok(in_tenant(reader, actor.tenant, key)))??;
    require_version(&role, expected)?;
    while let Some(target) = &target {
        let target = target.key;
        if !node.store.write(move |tx| move_some(tx, &actor, key, target)).await? {
            break;
        }
    }
    node.store
        .write(move |tx| {
            let role = in_tenant(tx, actor.tenant, key)?;
            if !tx.list(&users_of(&role).limit(1).without_total())?.records.is_empty() {
                let message =
                    "somebody has this role: take it away, or name another one in reassign_to";
                return Err(Error::conflict("role_in_use", message));
            }
            tell(tx, &actor, "deleted", Some(&role), None)?;
            Ok(tx.remove(&ROLE, key)?)
        })
        .await
}

fn users_of(role: &Record) -> Query {
    Query::of(&USER, role.tenant).contains(&ROLE_IDS, role.key)
}

/// Whether there was anybody to move.
fn move_some(tx: &mut Tx, actor: &Actor, key: Id, target: Id) -> Result<bool> {
    let role = in_tenant(tx, actor.tenant, key)?;
    in_tenant(tx, actor.tenant, target)?;
    let users = tx.list(&users_of(&role).limit(MOVED_AT_ONCE).without_total())?.records;
    for before in &users {
        let changes = Changes::new().drop(&ROLE_IDS, key).add(&ROLE_IDS, target);
        let after = tx.edit(&USER, before.key, changes)?;
        audit::note(tx, actor, "user.role_changed", Some(before), Some(&after))?;
    }
    Ok(!users.is_empty())
}

fn tell(
    tx: &mut Tx,
    actor: &Actor,
    done: &'static str,
    before: Option<&Record>,
    after: Option<&Record>,
) -> Result<()> {
    let Some(role) = after.or(before) else { return Ok(()) };
    let payload = json!({ "role_id": role.key, "name": role.text(&NAME) });
    let event_type = match done {
        "created" => "cortex.role.created",
        "updated" => "cortex.role.updated",
        _ => "cortex.role.deleted",
    };
    announce(tx, event_type, role.tenant, actor.user, payload)?;
    audit::note(tx, actor, event_type.trim_start_matches("cortex."), before, after)
}

/// What needs no store: the name, and that every permission is one that this actor may give.
fn check(actor: &Actor, changes: &Changes, creating: bool) -> Result<()> {
    let mut errors = match kinds::validate(&ROLE, changes, creating) {
        Ok(()) => vec![],
        Err(Error::Invalid(errors)) => errors,
        Err(error) => return Err(error),
    };
    if let Some(name) = changes.get(&NAME).and_then(Value::as_text) {
        errors.extend(wrong_name(name).map(|(code, text)| FieldError::new("name", code, text)));
    }
    let mut given = PermissionSet::EMPTY;
    for (place, (_, value)) in changes.added.iter().enumerate() {
        let refuse =
            |code, text: String| FieldError::new(format!("permissions.{place}"), code, text);
        let name = value.as_text().unwrap_or_default();
        match Permission::parse(name) {
            None => errors.push(refuse("unknown_choice", format!("there is no permission {name}"))),
            Some(one) if Permission::OF_THE_NETWORK.contains(one) => {
                let text = format!("{name} reaches beyond the tenant: no role can hold it");
                errors.push(refuse("not_in_a_role", text));
            }
            Some(one) => given = given.union(PermissionSet::of(&[one])),
        }
    }
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    actor.require_all(given)
}

fn wrong_name(name: &str) -> Option<(&'static str, &'static str)> {
    let folded = name.trim().to_lowercase();
    if Role::parse(&folded).is_some() {
        return Some(("built_in", "is the name of a built-in role"));
    }
    let odd = |c: char| c.is_control() || matches!(c, ',' | ';' | '~');
    if name.chars().any(odd) || name.trim() != name || Id::parse(name).is_some() {
        let text = "takes no comma, semicolon, tilde or line break, and no blank at its ends";
        return Some(("malformed", text));
    }
    None
}

/// What a list of names stands for: the rank, which is the highest built-in role among them or else viewer, and the
/// roles that the tenant made, by id or name.
///
/// # Errors
/// `Invalid` that names every one that there is not, by its place in `roles`.
pub(super) fn named(
    reader: &impl Read,
    tenant: Id,
    names: &[String],
) -> Result<(Role, Vec<Record>)> {
    let (mut rank, mut made, mut errors) = (Role::Viewer, Vec::<Record>::new(), Vec::new());
    for (place, name) in names.iter().enumerate() {
        let name = name.trim();
        if let Some(role) = Role::parse(name) {
            rank = rank.max(role);
        } else if let Some(role) = find(reader, tenant, name)? {
            if made.iter().all(|known| known.key != role.key) {
                made.push(role);
            }
        } else {
            let message = "there is no such role".to_owned();
            errors.push(FieldError::new(format!("roles.{place}"), "unknown_reference", message));
        }
    }
    if made.len() > ROLE_IDS.max {
        let message = format!("takes at most {} roles", ROLE_IDS.max);
        errors.push(FieldError::new("roles", "too_many", message));
    }
    if errors.is_empty() { Ok((rank, made)) } else { Err(Error::Invalid(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_not_called_like_a_built_in_one_nor_like_a_list() {
        assert_eq!(wrong_name("Course lead"), None);
        for bad in
            ["admin", "Editor", "a, b", "a;b", "a~b", " a", "0190b8e0-0000-7000-8000-000000000000"]
        {
            assert!(wrong_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn nobody_gives_what_he_lacks_and_nobody_what_reaches_beyond_the_tenant() {
        let with = |name: &str| Changes::new().set(&NAME, "Lead").add(&PERMISSIONS, name);
        let editor = Actor::of(Id::NIL, Id([1; 16]), Role::Editor);
        let root = Actor::of(Id::NIL, Id([1; 16]), Role::Superadmin);
        assert!(check(&editor, &with("posts.publish"), true).is_ok());
        let code = |actor: &Actor, name: &str| check(actor, &with(name), true).unwrap_err().code();
        assert_eq!(code(&editor, "audit.read"), "denied");
        assert_eq!(code(&root, "tenants.administer"), "invalid");
        assert_eq!(code(&root, "posts.eat"), "invalid");
    }
}
