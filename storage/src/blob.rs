//! Blobs: files named by the BLAKE3 hash of what they hold, in folders by the first two bytes of it. One that was
//! acknowledged is on disk under its name; a writer that was dropped leaves nothing. Never changes a blob in place and
//! never knows what one is for, so it is the caller who says when one may go.

mod partial;
mod slice;
pub mod tree;

pub use partial::{DIRECT_ALIGNMENT, Partial};
pub use slice::{PART_BYTES, Slice};

use bincode::{Decode, Encode};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tree::{Builder, Pair};

/// The most that `read_range` gives at once.
pub const MAX_RANGE_BYTES: usize = 16 << 20;
const UNFINISHED: &str = "unfinished";
const READ_BYTES: usize = 256 << 10;
/// The tree of a smaller blob is made whenever it is asked for.
const TREE_FROM_BYTES: u64 = 1 << 20;
/// Pairs of a tree that are held before they are written.
const HELD_PAIRS: usize = 4_096;

fn keeps_tree(size_bytes: u64) -> bool {
    size_bytes > TREE_FROM_BYTES
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk is full: free some space; nothing of this file was kept")]
    Full,
    #[error("the file is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("the bytes are not those of blob {wanted}, but of {found}")]
    Mismatch { wanted: BlobId, found: BlobId },
    #[error("blob storage: {0}")]
    Io(io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

/// The BLAKE3 hash of a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BlobId(pub [u8; 32]);

impl BlobId {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..8])
    }
}

impl serde::Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a blob's hash"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    Intact,
    Damaged,
    Missing,
}

/// A folder of blobs. Clones share it; nobody else may write to it.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Counted at the first question, kept from then on.
    total_bytes: Mutex<Option<u64>>,
    /// Held from a look whether a folder is there until it surely is.
    folders: Mutex<()>,
    next_unfinished: AtomicU64,
    partials: Mutex<partial::Open>,
}

impl Blobs {
    /// Opens or makes the folder and removes what unfinished writers of a killed process left.
    pub fn open(dir: &Path) -> Result<Self> {
        let unfinished = dir.join(UNFINISHED);
        fs::create_dir_all(&unfinished)?;
        fs::create_dir_all(dir.join(partial::FOLDER))?;
        sync_folder(dir)?;
        for entry in fs::read_dir(&unfinished)? {
            fs::remove_file(entry?.path())?;
        }
        let shared = Shared {
            dir: dir.to_owned(),
            total_bytes: Mutex::new(None),
            folders: Mutex::new(()),
            next_unfinished: AtomicU64::new(0),
            partials: Mutex::default(),
        };
        Ok(Self(Arc::new(shared)))
    }

    pub fn writer(&self, limit_bytes: u64) -> Result<BlobWriter> {
        let path = self.unfinished_path();
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(BlobWriter {
            blobs: self.clone(),
            unfinished: Unfinished { path },
            file,
            tree: TreeWriter::default(),
            size_bytes: 0,
            limit_bytes,
        })
    }

    /// Keeps bytes that are at hand as a whole.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId> {
        let mut writer = self.writer(bytes.len() as u64)?;
        writer.write(bytes)?;
        writer.finish()
    }

    pub fn folder(&self) -> &Path {
        &self.0.dir
    }

    /// Where the blob lies, if it is here.
    pub fn path(&self, id: &BlobId) -> Option<PathBuf> {
        Some(self.path_of(id)).filter(|path| path.is_file())
    }

    /// The open file stays readable even if the blob is removed meanwhile.
    pub fn get(&self, id: &BlobId) -> Result<Option<File>> {
        found(File::open(self.path_of(id)))
    }

    pub fn size_bytes(&self, id: &BlobId) -> Result<Option<u64>> {
        Ok(found(fs::metadata(self.path_of(id)))?.map(|meta| meta.len()))
    }

    /// At most `len` bytes from `offset`, and never more than `MAX_RANGE_BYTES`; fewer at the end of the blob.
    pub fn read_range(&self, id: &BlobId, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.get(id)? else { return Ok(None) };
        let size = file.metadata()?.len();
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(MAX_RANGE_BYTES).min(left)];
        if !bytes.is_empty() {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)?;
        }
        Ok(Some(bytes))
    }

    /// Reads the whole blob against its name.
    pub fn verify(&self, id: &BlobId) -> Result<Verified> {
        let Some(mut file) = self.get(id)? else { return Ok(Verified::Missing) };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
        }
        let intact = *hasher.finalize().as_bytes() == id.0;
        Ok(if intact { Verified::Intact } else { Verified::Damaged })
    }

    /// Says whether there was one.
    pub fn remove(&self, id: &BlobId) -> Result<bool> {
        let path = self.path_of(id);
        let mut total = self.lock_total();
        let Some(meta) = found(fs::metadata(&path))? else { return Ok(false) };
        self.remove_files(id, meta.len(), &mut total)?;
        Ok(true)
    }

    /// As `remove`, unless the blob came or was used since then. Says whether it is gone.
    pub fn remove_unused(&self, id: &BlobId, since: SystemTime) -> Result<bool> {
        let mut total = self.lock_total();
        let Some(meta) = found(fs::metadata(self.path_of(id)))? else { return Ok(true) };
        if meta.modified()? >= since {
            return Ok(false);
        }
        self.remove_files(id, meta.len(), &mut total)?;
        Ok(true)
    }

    fn remove_files(&self, id: &BlobId, size: u64, total: &mut Option<u64>) -> Result<()> {
        fs::remove_file(self.path_of(id))?;
        found(fs::remove_file(self.tree_path(id)))?;
        if let Some(total) = total {
            *total = total.saturating_sub(size);
        }
        Ok(())
    }

    /// When a blob came, or was last said to be used.
    pub fn used_at(&self, id: &BlobId) -> Result<Option<SystemTime>> {
        let Some(meta) = found(fs::metadata(self.path_of(id)))? else { return Ok(None) };
        Ok(Some(meta.modified()?))
    }

    /// Notes that a blob is used. A blob's own time is what that is kept in.
    pub fn note_used(&self, id: &BlobId, at: SystemTime) -> Result<()> {
        let opened = found(OpenOptions::new().append(true).open(self.path_of(id)))?;
        Ok(opened.map_or(Ok(()), |file| file.set_modified(at))?)
    }

    /// All blobs with their sizes, in the order of their ids. Only the names of one folder are in memory at a time; one
    /// that comes or goes meanwhile may be missed.
    pub fn iter(&self) -> impl Iterator<Item = Result<(BlobId, u64)>> + use<> {
        let outer = Shard { dir: self.0.dir.clone(), bytes: Vec::new() };
        let inner = outer.children().into_iter().flat_map(|shard| each(shard, Shard::children));
        inner.flat_map(|shard| each(shard, Shard::blobs))
    }

    /// What all blobs take. The first question reads every folder.
    pub fn total_bytes(&self) -> Result<u64> {
        let mut total = self.lock_total();
        if let Some(total) = *total {
            return Ok(total);
        }
        let counted = self.iter().try_fold(0, |sum, blob| blob.map(|(_, size)| sum + size))?;
        *total = Some(counted);
        Ok(counted)
    }

    /// The room that is left on the disk.
    pub fn free_bytes(&self) -> io::Result<u64> {
        fs4::available_space(&self.0.dir)
    }

    fn lock_total(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.0.total_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_of(&self, id: &BlobId) -> (PathBuf, PathBuf) {
        let outer = self.0.dir.join(format!("{:02x}", id.0[0]));
        let inner = outer.join(format!("{:02x}", id.0[1]));
        (outer, inner)
    }

    fn path_of(&self, id: &BlobId) -> PathBuf {
        self.shard_of(id).1.join(id.to_string())
    }

    fn tree_path(&self, id: &BlobId) -> PathBuf {
        self.shard_of(id).1.join(format!("{id}.tree"))
    }

    /// Forgets the tree beside a blob: it is made anew when it is asked for.
    pub fn drop_tree(&self, id: &BlobId) -> Result<()> {
        found(fs::remove_file(self.tree_path(id))).map(drop)
    }

    fn put_tree(&self, id: &BlobId, pairs: &[Pair]) -> Result<()> {
        let unfinished = Unfinished { path: self.unfinished_path() };
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished.path)?;
        file.write_all(pairs.as_flattened())?;
        Ok(fs::rename(&unfinished.path, self.tree_path(id))?)
    }

    fn unfinished_path(&self) -> PathBuf {
        let number = self.0.next_unfinished.fetch_add(1, Ordering::Relaxed);
        self.0.dir.join(UNFINISHED).join(number.to_string())
    }

    /// Moves a finished file to its name, its tree before it. One that stood there is replaced, which heals a damaged
    /// one.
    fn adopt(&self, from: &Path, tree: Option<&Path>, id: &BlobId, size: u64) -> Result<()> {
        let folder = self.make_folder(id)?;
        let path = self.path_of(id);
        if let Some(tree) = tree {
            fs::rename(tree, self.tree_path(id))?;
        }
        let mut total = self.lock_total();
        let before = found(fs::metadata(&path))?.map_or(0, |meta| meta.len());
        fs::rename(from, &path)?;
        if let Some(total) = total.as_mut() {
            *total = total.saturating_sub(before) + size;
        }
        drop(total);
        Ok(sync_folder(&folder)?)
    }

    fn make_folder(&self, id: &BlobId) -> Result<PathBuf> {
        let (outer, inner) = self.shard_of(id);
        let _making = self.0.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.is_dir() {
            fs::create_dir_all(&inner)?;
            sync_folder(&self.0.dir)?;
            sync_folder(&outer)?;
        }
        Ok(inner)
    }
}

/// One blob on its way in; hashed as it is written.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    file: File,
    unfinished: Unfinished,
    tree: TreeWriter,
    size_bytes: u64,
    limit_bytes: u64,
}

/// The tree of a blob on its way in: its pairs are held while they are few, and then go to a file of their own.
#[derive(Debug, Default)]
struct TreeWriter {
    builder: Builder,
    held: Vec<Pair>,
    file: Option<(File, Unfinished)>,
}

impl TreeWriter {
    fn write_held(&mut self, blobs: &Blobs) -> Result<()> {
        if self.file.is_none() {
            let unfinished = Unfinished { path: blobs.unfinished_path() };
            let file = OpenOptions::new().write(true).create_new(true).open(&unfinished.path)?;
            self.file = Some((file, unfinished));
        }
        if let Some((file, _)) = &mut self.file {
            file.write_all(self.held.as_flattened())?;
        }
        self.held.clear();
        Ok(())
    }
}

/// Removes its file, unless that was moved away.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = found(fs::remove_file(&self.path)) {
            tracing::warn!(%error, "an unfinished file stays until the next start");
        }
    }
}

impl BlobWriter {
    /// Takes all of `bytes` or fails; after a failure drop the writer.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let size = self.size_bytes.saturating_add(bytes.len() as u64);
        if size > self.limit_bytes {
            return Err(Error::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.file.write_all(bytes)?;
        self.tree.builder.update(bytes, &mut self.tree.held);
        if self.tree.held.len() >= HELD_PAIRS {
            self.tree.write_held(&self.blobs)?;
        }
        self.size_bytes = size;
        Ok(())
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// When this returns, the blob is on disk and stays there after a power cut.
    pub fn finish(mut self) -> Result<BlobId> {
        let id = self.id();
        self.keep(&id)?;
        Ok(id)
    }

    /// Like `finish`, but keeps nothing if the bytes are not those of `wanted`.
    pub fn finish_as(mut self, wanted: &BlobId) -> Result<()> {
        let found = self.id();
        if found != *wanted {
            return Err(Error::Mismatch { wanted: *wanted, found });
        }
        self.keep(wanted)
    }

    fn id(&mut self) -> BlobId {
        std::mem::take(&mut self.tree.builder).finish(&mut self.tree.held)
    }

    fn keep(mut self, id: &BlobId) -> Result<()> {
        self.file.sync_all()?;
        if keeps_tree(self.size_bytes) {
            self.tree.write_held(&self.blobs)?;
        }
        let tree = self.tree.file.as_ref().map(|(_, unfinished)| unfinished.path.as_path());
        self.blobs.adopt(&self.unfinished.path, tree, id, self.size_bytes)
    }
}

/// A folder on the way to blobs, and the bytes its name and those above it stand for.
struct Shard {
    dir: PathBuf,
    bytes: Vec<u8>,
}

impl Shard {
    fn children(&self) -> Vec<Result<Shard>> {
        let child = |name: &str| {
            let byte = u8::from_str_radix(name, 16).ok().filter(|_| name.len() == 2)?;
            Some(Shard { dir: self.dir.join(name), bytes: [&self.bytes[..], &[byte]].concat() })
        };
        sorted_names(&self.dir).map_or_else(
            |error| vec![Err(error)],
            |names| names.iter().filter_map(|name| child(name)).map(Ok).collect(),
        )
    }

    /// What stands in the wrong folder is no blob.
    fn blobs(&self) -> Vec<Result<(BlobId, u64)>> {
        let names = match sorted_names(&self.dir) {
            Ok(names) => names,
            Err(error) => return vec![Err(error)],
        };
        let ids = names.iter().filter_map(|name| Some((name, BlobId::parse(name)?)));
        let own = ids.filter(|(_, id)| id.0.starts_with(&self.bytes));
        let sized = own
            .map(|(name, id)| Ok((id, found(fs::metadata(self.dir.join(name)))?.map(|m| m.len()))));
        sized.filter_map(|blob| blob.map(|(id, size)| Some((id, size?))).transpose()).collect()
    }
}

fn each<T>(shard: Result<Shard>, list: impl FnOnce(&Shard) -> Vec<Result<T>>) -> Vec<Result<T>> {
    match shard {
        Ok(shard) => list(&shard),
        Err(error) => vec![Err(error)],
    }
}

fn sorted_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn found<T>(outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A new name is only sure to last once its folder is on disk; systems that cannot open folders see to it themselves.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
