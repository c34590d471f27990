//! The index's folder as the engine sees it, with a gate that shuts once and for good. Behind a shut gate nothing in the
//! folder changes any more, so whatever the engine is at ends uncommitted at its next write; reading goes on.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

/// A handle; clones share the gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_shut: AtomicBool,
    /// Held for reading by whoever is passing.
    passing: RwLock<()>,
}

impl Gate {
    /// When this returns, what had passed is done.
    pub fn shut(&self) {
        self.0.is_shut.store(true, Ordering::Release);
        drop(self.0.passing.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn is_shut(&self) -> bool {
        self.0.is_shut.load(Ordering::Acquire)
    }

    fn pass(&self) -> io::Result<RwLockReadGuard<'_, ()>> {
        let passing = self.0.passing.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_shut() {
            return Err(io::Error::other("the search index is closed"));
        }
        Ok(passing)
    }
}

#[derive(Clone, Debug)]
pub struct Gated {
    folder: MmapDirectory,
    gate: Gate,
}

impl Gated {
    pub fn new(folder: MmapDirectory, gate: Gate) -> Self {
        Self { folder, gate }
    }
}

impl Directory for Gated {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.folder.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        let refused =
            |error| DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() };
        let _passing = self.gate.pass().map_err(refused)?;
        self.folder.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.folder.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let refused = |error| OpenWriteError::wrap_io_error(error, path.to_owned());
        let _passing = self.gate.pass().map_err(refused)?;
        let file = self.folder.open_write(path)?;
        Ok(BufWriter::new(Box::new(GatedFile { file, gate: self.gate.clone() })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.folder.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let _passing = self.gate.pass()?;
        self.folder.atomic_write(path, data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.folder.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.folder.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.folder.watch(callback)
    }
}

struct GatedFile {
    file: WritePtr,
    gate: Gate,
}

impl Write for GatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _passing = self.gate.pass()?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let _passing = self.gate.pass()?;
        self.file.flush()
    }
}

impl TerminatingWrite for GatedFile {
    fn terminate_ref(&mut self, token: AntiCallToken) -> io::Result<()> {
        let _passing = self.gate.pass()?;
        self.file.terminate_ref(token)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Document, Error, SearchIndex, SearchQuery};
    use super::*;
    use crate::id::Id;

    fn put(n: u64, body: &str) -> Change {
        Change::Put(Document {
            id: Id::natural(&[&n.to_le_bytes()]),
            body: body.into(),
            ..Document::default()
        })
    }

    fn total(index: &SearchIndex, text: &str) -> u64 {
        index.query(&SearchQuery { text: text.into(), ..SearchQuery::default() }).unwrap().total
    }

    #[test]
    fn what_is_under_way_when_the_gate_shuts_is_given_up_and_fed_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = SearchIndex::open(dir.path(), 1).unwrap();
        index.apply(&[put(0, "early")], 1).unwrap();
        let more: Vec<Change> = (1..50).map(|n| put(n, "late")).collect();
        std::thread::scope(|scope| {
            // Nothing passes, so what has begun cannot end.
            let passing = index.gate.0.passing.write().unwrap();
            let feeding = scope.spawn(|| index.apply(&more, 2));
            while index.writer.try_lock().is_ok() {
                std::thread::yield_now();
            }
            index.gate.0.is_shut.store(true, Ordering::Release);
            drop(passing);
            assert!(matches!(feeding.join().unwrap(), Err(Error::Closed)));
        });
        index.close();
        assert!(matches!(index.apply(&more, 2), Err(Error::Closed)));
        assert!(matches!(index.clear(), Err(Error::Closed)));
        index.release_writer().unwrap();
        assert_eq!((total(&index, "early"), total(&index, "late"), index.cursor()), (1, 0, 1));

        let (again, opened) = SearchIndex::open(dir.path(), 1).unwrap();
        assert_eq!((opened.cursor(), total(&again, "early"), total(&again, "late")), (1, 1, 0));
        again.apply(&more, 2).unwrap();
        assert_eq!((total(&again, "late"), again.cursor()), (49, 2));
        again.verify().unwrap();
    }

    #[test]
    fn merges_under_way_when_the_gate_shuts_leave_an_index_that_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..4_u64 {
            let (index, opened) = SearchIndex::open(dir.path(), 1).unwrap();
            assert_eq!(opened.cursor(), round * 10);
            // Eight segments of a size are merged.
            for n in round * 10..round * 10 + 10 {
                index.apply(&[put(n, "tide")], n + 1).unwrap();
            }
            index.close();
            index.release_writer().unwrap();
        }
        let (index, opened) = SearchIndex::open(dir.path(), 1).unwrap();
        assert_eq!((opened.cursor(), total(&index, "tide")), (40, 40));
        index.verify().unwrap();
        index.apply(&[put(40, "tide")], 41).unwrap();
        index.release_writer().unwrap();
        index.verify().unwrap();
    }
}
