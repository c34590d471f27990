//! How much there is in a tenant, from counts that are kept as records change.

use super::quota;
use super::{QUOTA_POSTS, QUOTA_STORAGE_BYTES, QUOTA_USERS, by_name, get_in};
use crate::access::{Actor, Permission};
use crate::community::{comment::COMMENT, like::LIKE};
use crate::content::{category::CATEGORY, post::POST, tag::TAG};
use crate::error::{Error, Result};
use crate::identity::user::USER;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::{Id, Kind};
use std::collections::BTreeMap;

#[derive(Clone, Debug, serde::Serialize)]
pub struct Statistics {
    pub tenant_id: Id,
    pub users: u64,
    pub users_by_role: BTreeMap<&'static str, u64>,
    pub users_by_status: BTreeMap<&'static str, u64>,
    pub posts: u64,
    pub posts_by_status: BTreeMap<&'static str, u64>,
    /// That the public sees.
    pub posts_live: u64,
    pub categories: u64,
    pub tags: u64,
    pub comments: u64,
    pub comments_by_status: BTreeMap<&'static str, u64>,
    pub likes: u64,
    /// Counted for tenants with a quota of bytes.
    pub storage_bytes: Option<u64>,
    pub quotas: Quotas,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Quotas {
    pub users: Option<i64>,
    pub posts: Option<i64>,
    pub storage_bytes: Option<i64>,
}

/// Of the actor's own tenant for its administrators, of any for those who run the network. `name`: id or slug.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<Statistics> {
    actor.require(Permission::SettingsAdminister)?;
    let key = node.store.read(|reader| by_name(reader, name))?;
    let key = key.filter(|key| *key == actor.tenant || actor.can(Permission::TenantsAdminister));
    let key = key.ok_or(Error::NotFound("tenant"))?;
    node.store.read(|reader| Ok(read(reader, key)))?
}

fn read(reader: &impl Read, key: Id) -> Result<Statistics> {
    let tenant = get_in(reader, key)?.ok_or(Error::NotFound("tenant"))?;
    let all = |kind| Ok::<_, Error>(reader.count(&Query::of(kind, key))?);
    let by = |kind: &'static Kind, column: &str| {
        let mut counts = BTreeMap::new();
        for value in kind.field(column).map_or(&[][..], |field| field.choices) {
            counts.insert(*value, reader.count(&Query::of(kind, key).filter(column, *value))?);
        }
        Ok::<_, Error>(counts)
    };
    Ok(Statistics {
        tenant_id: key,
        users: all(&USER)?,
        users_by_role: by(&USER, "role")?,
        users_by_status: by(&USER, "status")?,
        posts: all(&POST)?,
        posts_by_status: by(&POST, "status")?,
        posts_live: reader.count(&Query::of(&POST, key).filter("live", true))?,
        categories: all(&CATEGORY)?,
        tags: all(&TAG)?,
        comments: all(&COMMENT)?,
        comments_by_status: by(&COMMENT, "status")?,
        likes: all(&LIKE)?,
        storage_bytes: quota::stored_bytes(reader, key)?,
        quotas: Quotas {
            users: tenant.int(&QUOTA_USERS),
            posts: tenant.int(&QUOTA_POSTS),
            storage_bytes: tenant.int(&QUOTA_STORAGE_BYTES),
        },
    })
}
