//! A bucket, wherever it is: four things can be done with it. They wait, so they are for a thread that may.

use super::folder::Folder;
use super::location::{Access, Location};
use super::s3::{Http, S3};
use super::trouble::Result;
use crate::runtime::Stop;
use atoll_storage::{Clock, NodeId};
use atoll_sync::bucket::Listed;
use std::io::Write;
use tokio::runtime::Handle;

pub trait Place {
    /// Makes sure that it is there and can be read, when it is added.
    fn begin(&self) -> Result<()>;

    /// All objects, with their names below the prefix.
    fn list(&self) -> Result<Vec<Listed>>;

    /// The first `most` bytes of an object. False if it is not there any more.
    fn get(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<bool>;

    /// The object is there whole when this returns, or not at all.
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()>;

    /// No error if it is gone already.
    fn remove(&self, name: &str) -> Result<()>;

    /// Clears away what this node did not come to the end of writing, where that leaves a trace.
    fn clear(&self, me: NodeId) -> Result<()>;
}

pub fn open(
    location: &Location,
    access: Access,
    clock: Clock,
    stop: Option<Stop>,
    handle: Handle,
) -> Result<Box<dyn Place>> {
    Ok(match location {
        Location::Folder(path) => Box::new(Folder::at(path)),
        Location::S3 { bucket, prefix } => {
            let wire = Http::new(&access.endpoint, stop, handle)?;
            Box::new(S3::new(access, bucket, prefix, clock, wire)?)
        }
    })
}
