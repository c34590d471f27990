//! A bucket, wherever it is: four things can be done with it. They wait, so they are for a thread that may.

use super::folder::Folder;
use super::location::{Access, Location};
use super::s3::S3;
use super::trouble::Result;
use crate::runtime::Stop;
use atoll_storage::{Clock, NodeId};
use atoll_sync::bucket::Listed;
use std::io::Write;
use tokio::runtime::Handle;

pub enum Place {
    Folder(Folder),
    S3(Box<S3>),
}

impl Place {
    pub fn open(
        location: &Location,
        access: Access,
        clock: Clock,
        stop: Option<Stop>,
        handle: Handle,
    ) -> Result<Self> {
        Ok(match location {
            Location::Folder(path) => Self::Folder(Folder::at(path)),
            Location::S3 { bucket, prefix } => {
                Self::S3(Box::new(S3::new(access, bucket, prefix, clock, stop, handle)?))
            }
        })
    }

    /// Makes sure that it is there and can be read, when it is added.
    pub fn begin(&self) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.begin(),
            Self::S3(s3) => s3.begin(),
        }
    }

    /// All objects, with their names below the prefix.
    pub fn list(&self) -> Result<Vec<Listed>> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::S3(s3) => s3.list(),
        }
    }

    /// The first `most` bytes of an object. False if it is not there any more.
    pub fn get(&self, name: &str, most: u64, to: &mut impl Write) -> Result<bool> {
        match self {
            Self::Folder(folder) => folder.get(name, most, to),
            Self::S3(s3) => s3.get(name, most, to),
        }
    }

    /// The object is there whole when this returns, or not at all.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.put(name, &bytes),
            Self::S3(s3) => s3.put(name, bytes),
        }
    }

    /// No error if it is gone already.
    pub fn remove(&self, name: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(name),
            Self::S3(s3) => s3.remove(name),
        }
    }

    /// Clears away what this node did not come to the end of writing, where that leaves a trace.
    pub fn clear(&self, me: NodeId) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.clear(me),
            Self::S3(_) => Ok(()),
        }
    }
}
