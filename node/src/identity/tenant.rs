//! Tenants: the walls between the data of different organisations, and how a request finds its own. They are
//! records of the whole network; what is in a tenant never refers to what is in another.

mod purge;
pub mod quota;
mod setting;
pub mod statistics;

pub use purge::{sweep, sweep_some};

use super::announce;
use super::recent::Recent;
use super::user::NewUser;
use crate::access::{Actor, Permission, Role};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::{Read, Reader};
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Derived, Field, Id, Kind, Record, Type, Value};
use serde_json::json;
use std::sync::{Mutex, PoisonError};

pub const NAME: Field = Field::text(1, "name").required().max(200).column();
pub const SLUG: Field = Field::text(2, "slug")
    .required()
    .max(63)
    .claim("tenant.slug")
    .doc("Unique in the network; goes into the X-Tenant header.");
pub const DOMAIN: Field = Field::text(3, "domain")
    .max(253)
    .claim("tenant.domain")
    .doc("The host name whose requests belong to this tenant.");
pub const REGISTRATION: Field = Field::text(4, "registration")
    .choices(&["open", "closed"])
    .doc("Whether people may sign up by themselves; open unless it says otherwise.");
/// Nobody gets in any more; restored by its removal.
pub const DELETED_AT: Field = Field::time(20, "deleted_at").read_only();
pub const LOCALE: Field =
    Field::text(21, "locale").max(35).doc("A language tag such as `en` or `pt-BR`.");
pub const TIME_ZONE: Field =
    Field::text(22, "time_zone").max(64).doc("As in the IANA database, such as `Europe/Berlin`.");
pub const DEFAULT_VISIBILITY: Field = Field::text(23, "default_visibility")
    .choices(&["public", "members", "private"])
    .doc("Of posts that name none; public if absent.");
pub const COMMENTS: Field = Field::text(24, "comments")
    .choices(&["open", "first_moderated", "moderated", "closed"])
    .doc("Which comments wait for a moderator: none, the first of each author (if absent), or all; or there are none.");
pub const LOGO_URL: Field =
    Field::text(25, "logo_url").max(1_000).doc("An address that begins with https:// or /.");
pub const COLOURS: Field = Field::text(26, "colours")
    .max(60)
    .doc("Up to five colours as #rrggbb with blanks between, the main one first.");
pub const QUOTA_USERS: Field = Field::int(27, "quota_users").doc("Accounts at most.");
pub const QUOTA_STORAGE_BYTES: Field =
    Field::int(28, "quota_storage_bytes").doc("Bytes of texts and files at most.");
pub const QUOTA_POSTS: Field =
    Field::int(29, "quota_posts").doc("Posts at most, those in the trash among them.");

pub static TENANT: Kind = Kind {
    kept: true,
    fields: &[
        NAME,
        SLUG,
        DOMAIN,
        REGISTRATION,
        DELETED_AT,
        LOCALE,
        TIME_ZONE,
        DEFAULT_VISIBILITY,
        COMMENTS,
        LOGO_URL,
        COLOURS,
        QUOTA_USERS,
        QUOTA_STORAGE_BYTES,
        QUOTA_POSTS,
    ],
    derived: &[Derived {
        name: "deleted",
        ty: Type::Bool,
        value: |tenant| Value::Bool(is_deleted(tenant)),
    }],
    indexes: &[&["deleted"]],
    counted: &["deleted"],
    doc: "An organisation whose data stands apart from all others'.",
    ..Kind::new(1, "tenant", "tenants", "network")
};

const NAMES_KEPT: usize = 1_000;

/// Which tenant a name leads to, and the commit at which that was read.
type Known = (u64, Id);

pub(super) struct Directory(Mutex<Recent<String, Known>>);

impl Default for Directory {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(NAMES_KEPT)))
    }
}

impl Directory {
    fn get_or(
        &self,
        node: &Node,
        name: String,
        look_up: impl FnOnce(&Reader) -> Looked,
    ) -> Result<Id> {
        let commit = node.identity.commit();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name);
        if let Some((at, id)) = known
            && at == commit
        {
            return Ok(id);
        }
        let id = node.store.read(look_up)?.ok_or(Error::NotFound("tenant"))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(name, (commit, id));
        Ok(id)
    }
}

type Looked = atoll_storage::Result<Option<Id>>;

/// The tenant of a request: what `X-Tenant` names (an id or a slug), else the one whose domain is the host, else
/// the default tenant.
///
/// # Errors
/// `NotFound` when `X-Tenant` names none, or the host a deleted one; `Conflict` (`not_set_up`) on a node without any tenant.
pub fn resolve(node: &Node, x_tenant: Option<&str>, host: Option<&str>) -> Result<Id> {
    let directory = &node.identity.tenants;
    if let Some(name) = x_tenant {
        if name.len() > SLUG.max {
            return Err(Error::NotFound("tenant"));
        }
        return directory.get_or(node, format!("x {name}"), |reader| by_name(reader, name));
    }
    let host = host.map_or("", without_port);
    let host = if host.len() > DOMAIN.max { "" } else { host };
    let found =
        directory.get_or(node, format!("h {host}"), |reader| match of_host(reader, host)? {
            // Of a deleted tenant: nobody else answers to its name.
            Some(id) => there(reader, Some(id)),
            None => oldest(reader),
        });
    match found {
        Err(Error::NotFound(_)) if node.store.read(|reader| oldest(reader))?.is_none() => {
            let message = "this node has no tenant yet: run `atoll init`, or join a network";
            Err(Error::conflict("not_set_up", message))
        }
        found => found,
    }
}

fn by_name(reader: &impl Read, name: &str) -> Looked {
    let key = match Id::parse(name) {
        Some(id) => Some(id),
        None => claimed(reader, &SLUG, name)?,
    };
    there(reader, key)
}

/// Also of a deleted tenant.
fn of_host(reader: &impl Read, host: &str) -> Looked {
    if host.is_empty() { Ok(None) } else { claimed(reader, &DOMAIN, host) }
}

fn is_deleted(tenant: &Record) -> bool {
    tenant.int(&DELETED_AT).is_some()
}

/// The key, if it is that of a tenant which people get into.
fn there(reader: &impl Read, key: Option<Id>) -> Looked {
    let tenant = key.map_or(Ok(None), |key| get_in(reader, key))?;
    Ok(tenant.map(|tenant| tenant.key))
}

/// The tenant, unless it was deleted.
fn get_in(reader: &impl Read, key: Id) -> atoll_storage::Result<Option<Record>> {
    Ok(reader.get(&TENANT, key)?.filter(|tenant| !is_deleted(tenant)))
}

pub(super) fn is_there(reader: &impl Read, key: Id) -> atoll_storage::Result<bool> {
    Ok(get_in(reader, key)?.is_some())
}

/// What a tenant says of itself, for those who go by it; none on a node that does not know the tenant.
pub(crate) fn settings(reader: &impl Read, tenant: Id) -> atoll_storage::Result<Option<Record>> {
    reader.get(&TENANT, tenant)
}

fn claimed(reader: &impl Read, field: &Field, name: &str) -> Looked {
    field.claim.map_or(Ok(None), |space| reader.claimed(Id::NIL, space, name))
}

fn oldest(reader: &impl Read) -> Looked {
    let query = Query::of(&TENANT, Id::NIL).filter("deleted", false).sort("created_at", false);
    // Those of one millisecond stand in no order yet.
    let first = reader.list(&query.limit(10).without_total())?.records;
    let oldest = first.iter().min_by_key(|tenant| (tenant.state.created_hlc(), tenant.key));
    Ok(oldest.map(|tenant| tenant.key))
}

fn without_port(host: &str) -> &str {
    let host = host.trim_end_matches('.');
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

/// The default tenant is the oldest one: it holds those who run the network.
pub(super) fn is_default(reader: &impl Read, tenant: Id) -> atoll_storage::Result<bool> {
    Ok(oldest(reader)? == Some(tenant))
}

/// The default tenant, where the command line and the first start work.
pub fn default(node: &Node) -> Result<Id> {
    resolve(node, None, None)
}

/// Whether people may sign up by themselves.
pub(super) fn is_open(node: &Node, tenant: Id) -> Result<bool> {
    let tenant =
        node.store.read(|reader| get_in(reader, tenant))?.ok_or(Error::NotFound("tenant"))?;
    Ok(tenant.text(&REGISTRATION) != "closed")
}

/// Whether this node serves anybody: not before its set-up, or before what it joined has reached it.
pub fn exists(node: &Node) -> Result<bool> {
    Ok(node.store.read(|reader| oldest(reader))?.is_some())
}

/// All tenants, the oldest first, those among them that were deleted and can be restored.
pub fn ids(node: &Node) -> Result<Vec<Id>> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let query = Query::of(&TENANT, Id::NIL).limit(1_000).after(after).without_total();
        let page = node.store.read(|reader| reader.list(&query))?;
        ids.extend(page.records.iter().map(|tenant| tenant.key));
        after = page.next;
        if after.is_none() {
            return Ok(ids);
        }
    }
}

/// What it takes to make a tenant, beside its first admin.
#[derive(Clone, Debug)]
pub struct NewTenant {
    pub name: String,
    pub slug: String,
    pub domain: Option<String>,
    /// Refuse if there is any other.
    pub only_if_first: bool,
}

/// A tenant with its first admin, in one transaction.
pub async fn create(
    node: &Node,
    actor: &Actor,
    new: NewTenant,
    admin: NewUser,
) -> Result<(Record, Record)> {
    actor.require(Permission::TenantsAdminister)?;
    let changes =
        Changes::new().set(&NAME, new.name.trim()).set(&SLUG, new.slug).set(&DOMAIN, new.domain);
    let changes = setting::normal(changes)?;
    kinds::validate(&TENANT, &changes, true)?;
    let role = if new.only_if_first { Role::Superadmin } else { Role::Admin };
    let admin = NewUser { role, ..admin }.prepare(node).await.map_err(|e| under("admin", e))?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            if new.only_if_first && oldest(tx)?.is_some() {
                return Err(Error::conflict(
                    "already_set_up",
                    "this node has its first tenant and superadmin",
                ));
            }
            kinds::check(tx, &TENANT, Id::NIL, None, &changes)?;
            let key = tx.new_id();
            let tenant = tx.create(&TENANT, Id::NIL, key, changes)?;
            tell(tx, &actor, "cortex.tenant.created", None, &tenant)?;
            let admin = admin.create(tx, key, &actor)?;
            Ok((tenant, admin))
        })
        .await
}

pub async fn edit(node: &Node, actor: &Actor, id: Id, changes: Changes) -> Result<Record> {
    actor.require(Permission::TenantsAdminister)?;
    change(node, actor, id, changes).await
}

/// What the administrators of a tenant may change of it themselves.
pub const OWN: &[Field] =
    &[NAME, REGISTRATION, LOCALE, TIME_ZONE, DEFAULT_VISIBILITY, COMMENTS, LOGO_URL, COLOURS];

/// The changes, if every setting in them is well formed.
pub(crate) fn checked(changes: Changes) -> Result<Changes> {
    setting::checked(changes)
}

/// The settings of the actor's own tenant.
pub fn own(node: &Node, actor: &Actor) -> Result<Record> {
    actor.require(Permission::SettingsAdminister)?;
    let tenant = node.store.read(|reader| get_in(reader, actor.tenant))?;
    tenant.ok_or(Error::NotFound("tenant"))
}

/// # Errors
/// `Invalid` for what only those who run the network may change.
pub async fn edit_own(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::SettingsAdminister)?;
    let foreign =
        changes.registers.iter().filter(|(field, _)| OWN.iter().all(|own| own.code != field.code));
    let message = "is for those who run the network";
    let errors: Vec<FieldError> =
        foreign.map(|(field, _)| FieldError::new(field.name, "read_only", message)).collect();
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    change(node, actor, actor.tenant, changes).await
}

async fn change(node: &Node, actor: &Actor, id: Id, changes: Changes) -> Result<Record> {
    let changes = setting::checked(setting::normal(changes)?)?;
    kinds::validate(&TENANT, &changes, false)?;
    let actor = *actor;
    let (before, tenant) = node
        .store
        .write(move |tx| {
            let before = find(tx, id)?;
            kinds::check(tx, &TENANT, Id::NIL, Some(id), &changes)?;
            let tenant = tx.edit(&TENANT, id, changes)?;
            if tenant.version() != before.version() {
                tell(tx, &actor, "cortex.tenant.updated", Some(&before), &tenant)?;
            }
            Ok::<_, Error>((before, tenant))
        })
        .await?;
    if before.int(&QUOTA_STORAGE_BYTES).is_none() && tenant.int(&QUOTA_STORAGE_BYTES).is_some() {
        quota::begin_counting(node, id).await?;
    }
    Ok(tenant)
}

/// The event of a change, and its entries in the audit logs of the tenant and of whoever did it.
fn tell(
    tx: &mut Tx,
    actor: &Actor,
    event_type: &'static str,
    before: Option<&Record>,
    after: &Record,
) -> Result<()> {
    let payload = json!({ "tenant_id": after.key, "slug": after.text(&SLUG) });
    announce(tx, event_type, after.key, actor.user, payload)?;
    let action = event_type.trim_start_matches("cortex.");
    audit::note(tx, &Actor { tenant: after.key, ..*actor }, action, before, Some(after))?;
    if actor.tenant != after.key && actor.tenant != Id::NIL {
        audit::note(tx, actor, action, before, Some(after))?;
    }
    Ok(())
}

/// Nobody gets into the tenant any more, at once. It can be restored for as many days as `tenants.keep_days` says; then
/// all that was in it is removed, and its record with it.
pub async fn remove(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    actor.require(Permission::TenantsAdminister)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let before = find(tx, id)?;
            if is_default(tx, id)? {
                let message =
                    "the default tenant holds those who run the network: it can't be deleted";
                return Err(Error::conflict("default_tenant", message));
            }
            let now_ms = tx.now_ms();
            let tenant = tx.edit(&TENANT, id, Changes::new().set(&DELETED_AT, now_ms))?;
            tell(tx, &actor, "cortex.tenant.deleted", Some(&before), &tenant)
        })
        .await
}

/// Takes a deletion back. `name`: id or slug, which the tenant has kept.
///
/// # Errors
/// `Conflict` (`purged`) once what was in it may have begun to go.
pub async fn restore(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    actor.require(Permission::TenantsAdminister)?;
    let key = match Id::parse(name) {
        Some(id) => Some(id),
        None => node.store.read(|reader| claimed(reader, &SLUG, name))?,
    };
    let key = key.ok_or(Error::NotFound("tenant"))?;
    let there = node.store.read(|reader| reader.get(&TENANT, key))?;
    if there.is_some_and(|tenant| purge::is_due(node, &tenant, node.clock.now_ms())) {
        let message =
            "it was deleted longer ago than tenants are kept, and what was in it is being removed";
        return Err(Error::conflict("purged", message));
    }
    let actor = *actor;
    node.store
        .write(move |tx| {
            let before = tx.get(&TENANT, key)?.ok_or(Error::NotFound("tenant"))?;
            if !is_deleted(&before) {
                return Ok(before);
            }
            let tenant = tx.edit(&TENANT, key, Changes::new().set(&DELETED_AT, Value::Null))?;
            tell(tx, &actor, "cortex.tenant.restored", Some(&before), &tenant)?;
            Ok(tenant)
        })
        .await
}

fn find(tx: &Tx, id: Id) -> Result<Record> {
    get_in(tx, id)?.ok_or(Error::NotFound("tenant"))
}

/// By id or slug.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    actor.require(Permission::TenantsAdminister)?;
    let found = node
        .store
        .read(|reader| by_name(reader, name)?.map_or(Ok(None), |id| reader.get(&TENANT, id)))?;
    found.ok_or(Error::NotFound("tenant"))
}

/// Public: a browser asks which tenant its address stands for.
pub fn by_domain(node: &Node, domain: &str) -> Result<Record> {
    let found = node
        .store
        .read(|reader| of_host(reader, domain)?.map_or(Ok(None), |id| get_in(reader, id)))?;
    found.ok_or(Error::NotFound("tenant"))
}

/// Public too: the tenant that a request was resolved to.
pub fn current(node: &Node, id: Id) -> Result<Record> {
    node.store.read(|reader| get_in(reader, id))?.ok_or(Error::NotFound("tenant"))
}

/// `query` is over [`TENANT`] in the network's own tenant, `Id::NIL`. Deleted ones are listed if it asks for them.
pub fn list(node: &Node, actor: &Actor, query: Query, deleted: bool) -> Result<Page> {
    actor.require(Permission::TenantsAdminister)?;
    Ok(node.store.read(|reader| reader.list(&query.filter("deleted", deleted)))?)
}

/// Names the fields of a nested object by their path.
fn under(prefix: &str, error: Error) -> Error {
    match error {
        Error::Invalid(fields) => Error::Invalid(
            fields
                .into_iter()
                .map(|f| FieldError { field: format!("{prefix}.{}", f.field), ..f })
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_only() {
        assert_eq!(without_port("example.org:8080"), "example.org");
        assert_eq!(without_port("example.org."), "example.org");
        assert_eq!(without_port("[::1]:80"), "[::1]:80");
        assert_eq!(without_port(""), "");
    }
}
