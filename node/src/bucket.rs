//! Buckets: stores where nodes meet that are never up together. A bucket is a prefix of an S3-compatible store, or a folder.
//! What is left there is bundles, signed, and locked for the peers that come there; see docs/SYNC.md. A bucket is this node's
//! own: every node adds it for itself, and takes only from nodes that it lists as peers.

mod files;
mod folder;
mod leave;
mod location;
mod place;
mod round;
mod s3;
mod take;
mod trouble;
mod visitor;
mod watch;
mod worker;

pub use folder::Folder;
pub use location::{Access, Location};
pub use place::Place;
pub use round::run as make_visit;
pub use s3::{Answer, Request, S3, Wire};
pub use trouble::{Obstacle, Trouble};
pub use visitor::{Base, Sizes, Visitor};
pub(crate) use watch::Watch;
pub use watch::{Found, Seen};
pub(crate) use worker::run;

use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::bucket::{self as kept, Bucket, MAX_BUCKETS};
use atoll_storage::tx::Tx;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

const MAX_NAME_CHARS: usize = 60;
const MAX_URL_BYTES: usize = 2_048;

/// A bucket to add.
#[derive(Clone, Debug, Default)]
pub struct NewBucket {
    /// `s3://bucket/prefix` or `file:///path`.
    pub url: String,
    /// Empty: the URL.
    pub name: String,
    /// Of an S3-compatible store.
    pub access: Access,
    /// What is left there is not locked: whoever can read the bucket can read it, and new nodes need nobody to be there.
    pub is_open: bool,
}

#[derive(Clone, Debug)]
pub struct Added {
    pub name: String,
    /// Why it could not be reached just now, if it could not.
    pub not_reached: Option<String>,
}

/// How it stands with a bucket.
#[derive(Clone, Debug)]
pub struct Standing {
    pub name: String,
    pub url: String,
    /// Of an S3-compatible store.
    pub endpoint: Option<String>,
    pub is_open: bool,
    /// The end of the last visit that went well.
    pub contact_ms: Option<u64>,
    /// Why the last visit did not.
    pub obstacle: Option<Obstacle>,
    pub reason: String,
    /// None while the node does not run.
    pub next_s: Option<u64>,
    /// Of the last visit that went well since the start of the node.
    pub found: Option<Found>,
    /// Bundles, since the start of the node.
    pub taken: u64,
    pub left: u64,
}

impl Standing {
    /// `reached`, `waiting` for the next visit after one that failed, or `new`.
    pub fn state(&self) -> &'static str {
        match (self.obstacle, self.contact_ms) {
            (Some(_), _) => "waiting",
            (None, Some(_)) => "reached",
            (None, None) => "new",
        }
    }
}

/// Adds a bucket, and looks whether it is there. One of this name takes the place of the other.
///
/// # Errors
/// `Invalid` for fields; `Conflict` (`bucket_listed`) if it is there under another name, or with the obstacle as code if the
/// store refuses, and nothing is added then. One that is only not reached is added.
pub async fn add(node: &Arc<Node>, actor: &Actor, new: NewBucket) -> Result<Added> {
    actor.require(Permission::SyncAdminister)?;
    let url = new.url.trim().to_owned();
    let location = Location::parse(&url)?;
    if url.len() > MAX_URL_BYTES {
        return Err(Error::field("url", "too_long", format!("at most {MAX_URL_BYTES} bytes")));
    }
    let access = match location {
        Location::Folder(_) => Access::default(),
        Location::S3 { .. } => new.access.checked()?,
    };
    let name = match new.name.trim() {
        "" => url.clone(),
        name if name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) => {
            let message = format!("a name has up to {MAX_NAME_CHARS} characters on one line");
            return Err(Error::field("name", "malformed", message));
        }
        name => name.to_owned(),
    };
    if crate::peer::named(node, &name).is_ok() {
        return Err(Error::conflict("name_taken", "a node that this one lists has this name"));
    }
    let bytes = serde_json::to_vec(&access).map_err(|error| Error::Internal(error.to_string()))?;
    let bucket = Bucket {
        id: 0,
        name: name.clone(),
        url: url.clone(),
        access: bytes.clone(),
        is_open: new.is_open,
        added_ms: 0,
        contact_ms: None,
    };
    let (here, handle) = (node.clone(), Handle::current());
    let work = move || {
        refuse_second(&here.store.read(|reader| kept::list(reader))?, &bucket)?;
        let place = worker::place_of(&here, &bucket, None, handle);
        Ok::<_, Error>(place.and_then(|place| place.begin()))
    };
    let reached = tokio::task::spawn_blocking(work).await;
    let reached = reached.map_err(|error| Error::Internal(error.to_string()))??;
    let not_reached = match reached {
        Ok(()) => None,
        Err(trouble) if trouble.obstacle.can_pass() => Some(trouble.message),
        Err(trouble) => return Err(trouble.into()),
    };
    let (named, is_open) = (name.clone(), new.is_open);
    let added = node.store.write(move |tx: &mut Tx| {
        if kept::find(tx, &named)?.is_none() && kept::list(tx)?.len() >= MAX_BUCKETS {
            return Ok(false);
        }
        kept::add(tx, &named, &url, &bytes, is_open)?;
        Ok::<_, Error>(true)
    });
    if !added.await? {
        return Err(Error::conflict(
            "too_many",
            format!("a node has {MAX_BUCKETS} buckets at most"),
        ));
    }
    node.buckets.ask();
    Ok(Added { name, not_reached })
}

/// A bucket under two names would be visited twice. May wait for the disks of folders.
fn refuse_second(listed: &[Bucket], new: &Bucket) -> Result<()> {
    let place = |bucket: &Bucket| {
        let access: Access = serde_json::from_slice(&bucket.access).ok()?;
        Some(Location::parse(&bucket.url).ok()?.place(&access))
    };
    let new_place = place(new);
    let others = listed.iter().filter(|other| other.name != new.name);
    match others.into_iter().find(|other| place(other) == new_place) {
        None => Ok(()),
        Some(other) => {
            let name = &other.name;
            let message = format!(
                "this bucket is listed as {name} already: to call it something else, `atoll peer remove {name}` first"
            );
            Err(Error::conflict("bucket_listed", message))
        }
    }
}

/// Goes to a bucket no more. What this node left there stays.
///
/// # Errors
/// `NotFound` if none has this name or URL.
pub async fn remove(node: &Node, actor: &Actor, named: &str) -> Result<String> {
    actor.require(Permission::SyncAdminister)?;
    let all = node.store.read(|reader| kept::list(reader))?;
    let named = named.trim();
    let found = all.into_iter().find(|one| one.name == named || one.url == named);
    let found = found.ok_or(Error::NotFound("bucket"))?;
    let id = found.id;
    node.store.write(move |tx: &mut Tx| kept::remove(tx, id)).await?;
    node.buckets.forget(id);
    Ok(found.name)
}

pub fn list(node: &Node, actor: &Actor) -> Result<Vec<Standing>> {
    actor.require(Permission::SyncAdminister)?;
    let all = node.store.read(|reader| kept::list(reader))?;
    Ok(all.into_iter().map(|bucket| standing(node, bucket)).collect())
}

fn standing(node: &Node, bucket: Bucket) -> Standing {
    let state = node.buckets.state(bucket.id);
    let access: Option<Access> = serde_json::from_slice(&bucket.access).ok();
    let now = Instant::now();
    Standing {
        name: bucket.name,
        url: bucket.url,
        endpoint: access.map(|access| access.endpoint).filter(|endpoint| !endpoint.is_empty()),
        is_open: bucket.is_open,
        contact_ms: bucket.contact_ms,
        obstacle: state.trouble.as_ref().map(|trouble| trouble.obstacle),
        reason: state.trouble.map(|trouble| trouble.message).unwrap_or_default(),
        next_s: state.next.map(|next| next.saturating_duration_since(now).as_secs()),
        found: state.found,
        taken: state.taken,
        left: state.left,
    }
}

/// Visits all buckets now, without waiting for it.
pub fn visit_now(node: &Node, actor: &Actor) -> Result<()> {
    actor.require(Permission::SyncAdminister)?;
    node.buckets.ask();
    Ok(())
}

/// Visits all buckets now, and waits until that is over, or until the time is. False if it is not over by then.
pub async fn visit(node: &Node, actor: &Actor, timeout: Duration) -> Result<bool> {
    actor.require(Permission::SyncAdminister)?;
    if node.store.read(|reader| kept::list(reader))?.is_empty() {
        return Ok(true);
    }
    let asked = node.buckets.ask();
    Ok(tokio::time::timeout(timeout, node.buckets.answered(asked)).await.is_ok())
}
