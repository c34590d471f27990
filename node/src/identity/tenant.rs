//! Tenants: the walls between the data of different organisations, and how a request finds its own. They are
//! records of the whole network; what is in a tenant never refers to what is in another.

use super::announce;
use super::recent::Recent;
use super::user::NewUser;
use crate::access::{Actor, Permission, Role};
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::{Read, Reader};
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record, Value};
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

pub static TENANT: Kind = Kind {
    fields: &[NAME, SLUG, DOMAIN, REGISTRATION],
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
/// `NotFound` when `X-Tenant` names none; `Conflict` (`not_set_up`) on a node without any tenant.
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
        directory.get_or(node, format!("h {host}"), |reader| match by_domain_name(reader, host)? {
            Some(id) => Ok(Some(id)),
            None => oldest(reader),
        });
    found.map_err(|error| match error {
        Error::NotFound(_) => {
            let message = "this node has no tenant yet: run `atoll init`, or join a network";
            Error::conflict("not_set_up", message)
        }
        other => other,
    })
}

fn by_name(reader: &impl Read, name: &str) -> Looked {
    match Id::parse(name) {
        Some(id) => Ok(reader.get(&TENANT, id)?.map(|tenant| tenant.key)),
        None => claimed(reader, &SLUG, name),
    }
}

fn by_domain_name(reader: &impl Read, host: &str) -> Looked {
    if host.is_empty() { Ok(None) } else { claimed(reader, &DOMAIN, host) }
}

fn claimed(reader: &impl Read, field: &Field, name: &str) -> Looked {
    field.claim.map_or(Ok(None), |space| reader.claimed(Id::NIL, space, name))
}

fn oldest(reader: &impl Read) -> Looked {
    let query = Query::of(&TENANT, Id::NIL).sort("created_at", false).limit(1);
    Ok(reader.list(&query)?.records.first().map(|tenant| tenant.key))
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
pub(super) fn is_default(reader: &impl Read, tenant: Id) -> Result<bool> {
    Ok(oldest(reader)? == Some(tenant))
}

/// The default tenant, where the command line and the first start work.
pub fn default(node: &Node) -> Result<Id> {
    resolve(node, None, None)
}

/// Whether people may sign up by themselves.
pub(super) fn is_open(node: &Node, tenant: Id) -> Result<bool> {
    let tenant =
        node.store.read(|reader| reader.get(&TENANT, tenant))?.ok_or(Error::NotFound("tenant"))?;
    Ok(tenant.text(&REGISTRATION) != "closed")
}

/// All tenants, the oldest first.
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
    let changes = normal(changes)?;
    kinds::validate(&TENANT, &changes, true)?;
    let role = if new.only_if_first { Role::Superadmin } else { Role::Admin };
    let admin = NewUser { role, ..admin }.prepare(node).await.map_err(|e| under("admin", e))?;
    let by = actor.user;
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
            let payload = json!({ "tenant_id": key, "slug": tenant.text(&SLUG) });
            announce(tx, "cortex.tenant.created", key, by, payload)?;
            let admin = admin.create(tx, key, by)?;
            Ok((tenant, admin))
        })
        .await
}

pub async fn edit(node: &Node, actor: &Actor, id: Id, changes: Changes) -> Result<Record> {
    actor.require(Permission::TenantsAdminister)?;
    let changes = normal(changes)?;
    kinds::validate(&TENANT, &changes, false)?;
    let by = actor.user;
    node.store
        .write(move |tx| {
            find(tx, id)?;
            kinds::check(tx, &TENANT, Id::NIL, Some(id), &changes)?;
            let tenant = tx.edit(&TENANT, id, changes)?;
            let payload = json!({ "tenant_id": id, "slug": tenant.text(&SLUG) });
            announce(tx, "cortex.tenant.updated", id, by, payload)?;
            Ok(tenant)
        })
        .await
}

/// Nobody gets into the tenant any more; its records stay in the file until they are purged.
pub async fn remove(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    actor.require(Permission::TenantsAdminister)?;
    let by = actor.user;
    node.store
        .write(move |tx| {
            let tenant = find(tx, id)?;
            if is_default(tx, id)? {
                let message =
                    "the default tenant holds those who run the network: it can't be deleted";
                return Err(Error::conflict("default_tenant", message));
            }
            tx.remove(&TENANT, id)?;
            let payload = json!({ "tenant_id": id, "slug": tenant.text(&SLUG) });
            announce(tx, "cortex.tenant.deleted", id, by, payload)
        })
        .await
}

fn find(tx: &Tx, id: Id) -> Result<Record> {
    tx.get(&TENANT, id)?.ok_or(Error::NotFound("tenant"))
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
    let found = node.store.read(|reader| {
        by_domain_name(reader, domain)?.map_or(Ok(None), |id| reader.get(&TENANT, id))
    })?;
    found.ok_or(Error::NotFound("tenant"))
}

/// `query` is over [`TENANT`] in the network's own tenant, `Id::NIL`.
pub fn list(node: &Node, actor: &Actor, query: &Query) -> Result<Page> {
    actor.require(Permission::TenantsAdminister)?;
    Ok(node.store.read(|reader| reader.list(query))?)
}

/// Slug and domain in lower case, and well formed.
fn normal(mut changes: Changes) -> Result<Changes> {
    let mut errors = Vec::new();
    for (field, fits) in [(&SLUG, is_slug as fn(&str) -> bool), (&DOMAIN, is_domain)] {
        let Some(text) = changes.get(field).and_then(Value::as_text) else { continue };
        let text = text.trim().to_lowercase();
        if text.is_empty() && !field.required {
            changes = changes.set(field, Value::Null);
            continue;
        }
        if !fits(&text) {
            let message =
                "takes lower-case letters, digits and hyphens; a domain also dots between them";
            errors.push(FieldError::new(field.name, "malformed", message));
        }
        changes = changes.set(field, text);
    }
    if errors.is_empty() { Ok(changes) } else { Err(Error::Invalid(errors)) }
}

fn is_slug(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    // An id is no slug: X-Tenant takes either.
    !text.is_empty()
        && text.len() <= SLUG.max
        && text.chars().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && Id::parse(text).is_none()
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= DOMAIN.max && text.split('.').all(label)
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

    #[test]
    fn slugs_and_domains_are_told_from_what_is_none() {
        assert!(is_slug("north-campus") && is_slug("a1"));
        for bad in
            ["", "-a", "a-", "A", "a b", "a.b", "a~k7f3ab", "0190b8e0-0000-7000-8000-000000000000"]
        {
            assert!(!is_slug(bad), "{bad}");
        }
        assert!(is_domain("example.org") && is_domain("localhost"));
        for bad in ["", "a..b", "-a.b", "a_b.c", "a.b:80", "http://a.b", &"a".repeat(64)] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
