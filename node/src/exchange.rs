//! Files on their way in and out. Each import and export has a folder of its own in the data folder, which goes when
//! it is old or its job is forgotten. Never leaves a file behind of a request that failed.

pub mod export;
mod line;
pub(crate) mod restore;
mod unpacking;
mod zip;

pub(crate) use unpacking::{Opened, Unpacking, is_zip, opened};

use crate::error::{Error, Result};
use crate::job::{Job, RUNNING, WAITING};
use crate::runtime::Node;
use atoll_storage::Id;
use atoll_storage::job::of_queue;
use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::io::AsyncWriteExt;

/// What was sent to be imported.
pub(crate) const BODY: &str = "body";
/// What an archive says of itself.
const HEAD: &str = "atoll.json";
/// The folder of an archive that holds files, each named by its hash.
const FILES: &str = "files/";
/// A folder that no job names is one that a request fills; after so long it is none's.
const ORPHAN_MS: u64 = 24 * 3_600_000;
/// Jobs of each queue whose folders are known. More end than are kept.
const JOBS_KNOWN: usize = 10_000;

/// A folder of the exchange; removed when dropped, unless it is kept.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
    is_kept: bool,
}

impl Folder {
    pub(crate) fn make(node: &Node) -> Result<Self> {
        let name = node.new_id().to_string();
        let path = node.folder().exchange().join(&name);
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self { path, name, is_kept: false })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A job knows of it from now on.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Store(atoll_storage::Error::Full)
        }
        _ => Error::Store(atoll_storage::Error::Io(error)),
    }
}

/// A file that is received piece by piece. Gone when dropped before its end.
#[derive(Debug)]
pub struct Upload {
    folder: Folder,
    file: tokio::fs::File,
    size_bytes: u64,
    limit_bytes: u64,
}

impl Upload {
    pub async fn begin(node: &Node) -> Result<Self> {
        let folder = Folder::make(node)?;
        let file = tokio::fs::File::create(folder.path.join(BODY)).await.map_err(failed)?;
        Ok(Self { folder, file, size_bytes: 0, limit_bytes: node.config.import.max_bytes })
    }

    /// # Errors
    /// `Store(TooLong)` once it is larger than may be.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.limit_bytes {
            let (size, limit) = (self.size_bytes as usize, self.limit_bytes as usize);
            return Err(Error::Store(atoll_storage::Error::TooLong { size, limit }));
        }
        self.file.write_all(bytes).await.map_err(failed)
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// When this returns, the file is on disk.
    pub async fn finish(mut self) -> Result<Folder> {
        self.file.flush().await.map_err(failed)?;
        self.file.sync_all().await.map_err(failed)?;
        Ok(self.folder)
    }
}

/// A file in the job's folder that may still be fetched.
pub(crate) fn fetched(node: &Node, job: &Job, name: &str) -> Option<PathBuf> {
    file_of(node, job, name).filter(|_| !is_old(node, job))
}

/// It ended so long ago that its files go.
fn is_old(node: &Node, job: &Job) -> bool {
    let kept_ms = node.config.export.keep_hours * 3_600_000;
    job.ended_ms.is_some_and(|ms| ms + kept_ms <= node.clock.now_ms())
}

/// A file in the job's folder, if it is there.
pub(crate) fn file_of(node: &Node, job: &Job, name: &str) -> Option<PathBuf> {
    let folder = Id::parse(job.payload["folder"].as_str()?)?;
    let path = node.folder().exchange().join(folder.to_string()).join(name);
    path.is_file().then_some(path)
}

pub(crate) fn drop_file(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a file of the exchange stays until it is old");
    }
}

/// Removes the folders of jobs that ended long ago or are forgotten.
pub(crate) fn sweep(node: &Node, queues: &[&str]) -> Result<usize> {
    let entries = match fs::read_dir(node.folder().exchange()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let now_ms = node.clock.now_ms();
    let mut known = HashSet::new();
    let mut kept = HashSet::new();
    for queue in queues {
        let jobs = node.store.read(|reader| of_queue(reader, queue, JOBS_KNOWN))?;
        for job in jobs {
            let Some(folder) = job.payload["folder"].as_str().and_then(Id::parse) else { continue };
            known.insert(folder);
            let is_under_way = job.state == WAITING || job.state == RUNNING;
            if is_under_way || !is_old(node, &job) {
                kept.insert(folder);
            }
        }
    }
    let mut removed = 0;
    for entry in entries.flatten() {
        let Some(folder) = entry.file_name().to_str().and_then(Id::parse) else { continue };
        let is_filled = !known.contains(&folder) && folder.created_ms() + ORPHAN_MS > now_ms;
        if !kept.contains(&folder) && !is_filled && fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Counts what is read through it.
pub(crate) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, count: Rc::default() }
    }

    pub fn count(&self) -> Rc<Cell<u64>> {
        self.count.clone()
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// Ends with an error where a piece does not: what nobody closes would take the whole file into memory. Whoever reads
/// sets what is `left` at the start of each piece.
pub(crate) struct Bounded<R> {
    pub inner: R,
    pub left: Rc<Cell<usize>>,
    pub message: &'static str,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left.get());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, self.message));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_not_read_to_the_end() {
        let left = Rc::new(Cell::new(10));
        let mut reader = Bounded { inner: &[b'"'; 100][..], left, message: "too long" };
        assert!(io::read_to_string(&mut reader).is_err());
    }

    #[test]
    fn what_is_read_is_counted() {
        let mut reader = Counted::new(&b"abc"[..]);
        let count = reader.count();
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "abc");
        assert_eq!(count.get(), 3);
    }
}
