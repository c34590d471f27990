//! Blobs on their way from other nodes: what is proved of one stands in `partial/`, with its tree and with a map of the
//! groups that are there. Survives the process; never counts a group as there that is not on disk. Whoever takes up the same
//! blob at the same time shares it, so that links and bundles bring parts of one together.

use super::tree::{self, GROUP_BYTES, PAIR_BYTES, Pair, Run};
use super::{BlobId, Blobs, Error, Result, found};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub(super) const FOLDER: &str = "partial";
const SEAL_BYTES: usize = 16;
const MAP_VERSION: u8 = 1;

/// One blob that is not whole. Clones share it, and so do all who take it up meanwhile.
#[derive(Clone, Debug)]
pub struct Partial(Arc<Shared>);

/// Those that somebody is at.
pub(super) type Open = std::collections::HashMap<BlobId, Weak<Shared>>;

/// Groups that begin at such an address in memory, and are whole, go to the disk from there: the system copies nothing and
/// keeps nothing of them.
pub const DIRECT_ALIGNMENT: usize = 4096;

#[derive(Debug)]
pub(super) struct Shared {
    blobs: Blobs,
    id: BlobId,
    size: u64,
    inner: Mutex<Inner>,
    /// Held while something is written, which may take long. Taken before `inner`, never within it.
    files: Mutex<Files>,
    /// Held while the map is brought to the disk, so that a newer one is never replaced by an older.
    keeping: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    have: Bits,
    /// It has its place among the others.
    is_finished: bool,
}

#[derive(Debug)]
struct Files {
    data: File,
    /// The same file, past the system's cache; none where that is not to be had.
    direct: Option<File>,
    tree: File,
}

impl Files {
    fn open(data: &Path, tree: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let [data_file, tree] = [options.open(data)?, options.open(tree)?];
        Ok(Self { data: data_file, direct: open_direct(data), tree })
    }

    /// Writes neighbouring groups, the first of which has this index.
    fn write_groups(&mut self, first: u64, groups: &[&[u8]], is_direct: bool) -> Result<()> {
        let start = SeekFrom::Start(first * GROUP_BYTES as u64);
        if is_direct && let Some(direct) = &mut self.direct {
            direct.seek(start)?;
            match write_all(direct, groups) {
                // This disk wants more than memory at such an address.
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.direct = None,
                outcome => return Ok(outcome?),
            }
        }
        self.data.seek(start)?;
        Ok(write_all(&mut self.data, groups)?)
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

/// Whether a group can go to the disk from where it is.
fn is_direct(group: &[u8]) -> bool {
    group.len().is_multiple_of(DIRECT_ALIGNMENT)
        && group.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    bytes: Vec<u8>,
    len: u64,
    ones: u64,
}

impl Bits {
    fn new(len: u64) -> Self {
        Self { bytes: vec![0; len.div_ceil(8) as usize], len, ones: 0 }
    }

    fn from_bytes(len: u64, bytes: &[u8]) -> Option<Self> {
        let ones = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let fits = bytes.len() as u64 == len.div_ceil(8) && ones <= len;
        fits.then(|| Self { bytes: bytes.to_vec(), len, ones })
    }

    fn get(&self, at: u64) -> bool {
        self.bytes[(at / 8) as usize] & (1 << (at % 8)) != 0
    }

    fn set(&mut self, at: u64) {
        if at < self.len && !self.get(at) {
            self.bytes[(at / 8) as usize] |= 1 << (at % 8);
            self.ones += 1;
        }
    }

    fn missing(&self, within: Run) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for at in within.first..within.end().min(self.len) {
            if self.get(at) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end() == at => run.count += 1,
                _ => runs.push(Run { first: at, count: 1 }),
            }
        }
        runs
    }
}

impl Blobs {
    /// How large a blob is of which a part is here; its size is proved.
    pub fn partial_size(&self, id: &BlobId) -> Result<Option<u64>> {
        Ok(read_map(&self.partial_path(id, "map"))?.map(|(size, _)| size))
    }

    /// What is missing of a blob of which a part is here, and how large the whole is.
    pub fn partial_missing(&self, id: &BlobId) -> Result<Option<(u64, Vec<Run>)>> {
        let Some((size, bits)) = read_map(&self.partial_path(id, "map"))? else { return Ok(None) };
        let groups = tree::groups_of(size);
        let all = Run { first: 0, count: groups };
        Ok(Bits::from_bytes(groups, &bits).map(|bits| (size, bits.missing(all))))
    }

    /// Takes up what is here of a blob, or begins it, or joins who is at it. `size_bytes` must be proved.
    pub fn partial(&self, id: &BlobId, size_bytes: u64) -> Result<Partial> {
        let mut all = self.0.partials.lock().unwrap_or_else(PoisonError::into_inner);
        let at_it = all.get(id).and_then(Weak::upgrade).map(Partial);
        if let Some(at_it) = at_it
            && at_it.0.size == size_bytes
            && !at_it.lock().is_finished
        {
            return Ok(at_it);
        }
        let known =
            read_map(&self.partial_path(id, "map"))?.filter(|(size, _)| *size == size_bytes);
        let data = self.partial_path(id, "data");
        let is_there = data.exists() && self.partial_path(id, "tree").exists();
        let groups = tree::groups_of(size_bytes);
        let have = known.filter(|_| is_there).and_then(|(_, bits)| Bits::from_bytes(groups, &bits));
        if have.is_none() {
            self.drop_partial(id)?;
        }
        let files = Files::open(&data, &self.partial_path(id, "tree"))?;
        let have = have.unwrap_or_else(|| Bits::new(groups));
        let shared = Arc::new(Shared {
            blobs: self.clone(),
            id: *id,
            size: size_bytes,
            inner: Mutex::new(Inner { have, is_finished: false }),
            files: Mutex::new(files),
            keeping: Mutex::new(()),
        });
        all.retain(|_, one| one.strong_count() > 0);
        all.insert(*id, Arc::downgrade(&shared));
        Ok(Partial(shared))
    }

    /// Forgets what is here of a blob that is not whole.
    pub fn drop_partial(&self, id: &BlobId) -> Result<()> {
        for kind in ["map", "new", "data", "tree"] {
            found(fs::remove_file(self.partial_path(id, kind)))?;
        }
        Ok(())
    }

    /// Blobs of which a part is here.
    pub fn partials(&self) -> Result<Vec<BlobId>> {
        let names = super::sorted_names(&self.folder().join(FOLDER))?;
        Ok(names.iter().filter_map(|name| BlobId::parse(name.strip_suffix(".data")?)).collect())
    }

    fn partial_path(&self, id: &BlobId, kind: &str) -> PathBuf {
        self.folder().join(FOLDER).join(format!("{id}.{kind}"))
    }
}

impl Partial {
    pub fn size_bytes(&self) -> u64 {
        self.0.size
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups that are here, and groups in all.
    pub fn progress(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.have.ones, inner.have.len)
    }

    /// What is missing within these groups, in runs.
    pub fn missing(&self, within: Run) -> Vec<Run> {
        self.lock().have.missing(within)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes groups that were proved, in their order, and the pairs that prove them. See [`DIRECT_ALIGNMENT`].
    pub fn write(&self, groups: &[(u64, &[u8])], pairs: &[(u64, Pair)]) -> Result<()> {
        // They come parents first and stand children first: all of one subtree are neighbours.
        let mut pairs: Vec<&(u64, Pair)> = pairs.iter().collect();
        pairs.sort_unstable_by_key(|(place, _)| *place);
        let mut files = self.files();
        for run in pairs.chunk_by(|(place, _), (next, _)| place + 1 == *next) {
            files.tree.seek(SeekFrom::Start(run[0].0 * PAIR_BYTES as u64))?;
            let pairs: Vec<&[u8]> = run.iter().map(|(_, pair)| &pair[..]).collect();
            write_all(&mut files.tree, &pairs)?;
        }
        let goes_on = |(index, group): &(u64, &[u8]), (next, after): &(u64, &[u8])| {
            index + 1 == *next && is_direct(group) == is_direct(after)
        };
        for run in groups.chunk_by(goes_on) {
            let bytes: Vec<&[u8]> = run.iter().map(|(_, group)| *group).collect();
            files.write_groups(run[0].0, &bytes, is_direct(run[0].1))?;
        }
        let mut inner = self.lock();
        groups.iter().for_each(|(index, _)| inner.have.set(*index));
        Ok(())
    }

    /// Brings groups to the disk that are on their way there, so that little is left to be brought there by what counts
    /// them. Counts nothing.
    pub fn flush(&self) -> Result<()> {
        let data = {
            let files = self.files();
            if files.direct.is_some() {
                return Ok(());
            }
            files.data.try_clone()?
        };
        Ok(data.sync_data()?)
    }

    /// Brings to the disk what was written, and then the map that says so.
    pub fn keep(&self) -> Result<()> {
        let _keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let have = {
            let inner = self.lock();
            if inner.is_finished {
                return Ok(());
            }
            inner.have.clone()
        };
        let (data, tree) = {
            let files = self.files();
            (files.data.try_clone()?, files.tree.try_clone()?)
        };
        data.sync_data()?;
        tree.sync_data()?;
        let path = self.0.blobs.partial_path(&self.0.id, "map");
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&map_of(self.0.size, &have))?;
        file.sync_data()?;
        Ok(fs::rename(&fresh, &path)?)
    }

    /// Gives the whole blob its place among the others.
    ///
    /// # Errors
    /// `Io` if a group is missing.
    pub fn finish(&self) -> Result<()> {
        let _keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.files();
        let mut inner = self.lock();
        if inner.is_finished {
            return Ok(());
        }
        if inner.have.ones < inner.have.len {
            return Err(Error::Io(io::Error::other("a part of the blob is missing")));
        }
        files.data.sync_all()?;
        files.tree.sync_all()?;
        let (blobs, id) = (&self.0.blobs, &self.0.id);
        let tree = blobs.partial_path(id, "tree");
        let tree = super::keeps_tree(self.0.size).then_some(tree.as_path());
        blobs.adopt(&blobs.partial_path(id, "data"), tree, id, self.0.size)?;
        inner.is_finished = true;
        // Before others can begin it anew.
        blobs.drop_partial(id)
    }
}

fn write_all(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    let mut bytes: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = &mut bytes[..];
    while left.iter().any(|slice| !slice.is_empty()) {
        match file.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn map_of(size: u64, have: &Bits) -> Vec<u8> {
    let mut bytes = vec![MAP_VERSION];
    bytes.extend(size.to_le_bytes());
    bytes.extend(&have.bytes);
    let seal = blake3::hash(&bytes);
    bytes.extend(&seal.as_bytes()[..SEAL_BYTES]);
    bytes
}

/// Size and bits; none if there is no map, or none that is whole.
fn read_map(path: &Path) -> Result<Option<(u64, Vec<u8>)>> {
    let Some(bytes) = found(fs::read(path))? else { return Ok(None) };
    let Some((body, seal)) = bytes.split_last_chunk::<SEAL_BYTES>() else { return Ok(None) };
    if blake3::hash(body).as_bytes()[..SEAL_BYTES] != seal[..] || body.first() != Some(&MAP_VERSION)
    {
        return Ok(None);
    }
    let size = body.get(1..9).and_then(|size| size.try_into().ok()).map(u64::from_le_bytes);
    Ok(size.map(|size| (size, body[9..].to_vec())))
}
