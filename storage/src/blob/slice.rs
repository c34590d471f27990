//! Reading slices of blobs that are here: parts of a blob with their proof, piece by piece, for other nodes.

use super::tree::{self, Builder, GROUP_BYTES, PAIR_BYTES, Pair, Run, Step, Walk};
use super::{BlobId, Blobs, Error, READ_BYTES, Result, keeps_tree};
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut, Read, Seek, SeekFrom};
use std::iter::Peekable;

/// No part of a slice is longer.
pub const PART_BYTES: usize = GROUP_BYTES + PAIR_BYTES;
/// Of a tree, what is read at once.
const BLOCK_PAIRS: u64 = 128;
/// Groups that are read by one call. Systems take 1,024 places at most.
const GROUPS_AT_ONCE: usize = 256;

/// The parts of a slice in their order.
#[derive(Debug)]
pub struct Slice {
    size: u64,
    data: File,
    tree: Tree,
    walk: Peekable<Walk>,
}

#[derive(Debug)]
enum Tree {
    Whole(Vec<Pair>),
    File { file: File, len: u64, block: u64, bytes: Vec<u8> },
}

#[derive(Clone, Copy, Debug)]
enum Reading {
    /// Waits for the disk.
    FromDisk,
    /// What the system does not hold in memory is `WouldBlock`, or `Unsupported` where that cannot be asked.
    FromMemory,
}

/// Neighbouring groups and the places that they are read to.
#[derive(Default)]
struct Groups<'a> {
    start: u64,
    end: u64,
    places: Vec<IoSliceMut<'a>>,
}

impl Blobs {
    /// None if the blob is not here. A tree that is missing is made.
    pub fn slice(&self, id: &BlobId, runs: Vec<Run>) -> Result<Option<Slice>> {
        let Some(data) = self.get(id)? else { return Ok(None) };
        let size = data.metadata()?.len();
        let tree = self.open_tree(id, &data, size)?;
        let groups = tree::groups_of(size);
        let clip = |run: Run| Run { count: run.end().min(groups).saturating_sub(run.first), ..run };
        let runs = runs.into_iter().map(clip).filter(|run| run.count > 0).collect();
        Ok(Some(Slice { size, data, tree, walk: Walk::new(size, runs).peekable() }))
    }

    fn open_tree(&self, id: &BlobId, data: &File, size: u64) -> Result<Tree> {
        let file =
            if keeps_tree(size) { super::found(File::open(self.tree_path(id)))? } else { None };
        let whole = (tree::groups_of(size) - 1) * PAIR_BYTES as u64;
        if let Some(file) = file
            && file.metadata()?.len() == whole
        {
            return Ok(Tree::File { file, len: whole, block: u64::MAX, bytes: Vec::new() });
        }
        let pairs = pairs_of(data)?;
        if keeps_tree(size) {
            self.put_tree(id, &pairs)?;
        }
        Ok(Tree::Whole(pairs))
    }
}

fn pairs_of(mut data: &File) -> Result<Vec<Pair>> {
    let (mut builder, mut pairs) = (Builder::default(), Vec::new());
    let mut buffer = vec![0; READ_BYTES];
    data.seek(SeekFrom::Start(0))?;
    loop {
        match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => builder.update(&buffer[..read], &mut pairs),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    builder.finish(&mut pairs);
    Ok(pairs)
}

impl Slice {
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Fills a buffer with the parts that come next, as many as fit, and says how many bytes they are; 0 at the end. A
    /// buffer that is shorter than [`PART_BYTES`] may hold none. Blocks on the disk: use it on a thread that may wait.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.read(buffer, Reading::FromDisk)
    }

    /// As [`Slice::fill`], but never waits for the disk: none if it would have to. Then nothing counts as read.
    pub fn fill_from_memory(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let before = self.walk.clone();
        match self.read(buffer, Reading::FromMemory) {
            Err(Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Unsupported) =>
            {
                self.walk = before;
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    fn read(&mut self, buffer: &mut [u8], reading: Reading) -> Result<usize> {
        let all = buffer.len();
        let (mut rest, mut groups) = (buffer, Groups::default());
        while let Some(step) = self.walk.peek().copied() {
            let len = match step {
                Step::Pair(_) => PAIR_BYTES,
                Step::Group { len, .. } => len,
            };
            if rest.len() < len {
                break;
            }
            let (place, after) = rest.split_at_mut(len);
            rest = after;
            match step {
                Step::Pair(pair) => place.copy_from_slice(&self.tree.pair(pair, reading)?),
                Step::Group { index, .. } => {
                    let start = index * GROUP_BYTES as u64;
                    if start != groups.end || groups.places.len() == GROUPS_AT_ONCE {
                        groups.read(&self.data, reading)?;
                        groups = Groups { start, end: start, places: Vec::new() };
                    }
                    groups.end += len as u64;
                    groups.places.push(IoSliceMut::new(place));
                }
            }
            self.walk.next();
        }
        groups.read(&self.data, reading)?;
        Ok(all - rest.len())
    }

    /// Some more parts, about as many bytes as asked for; none at the end.
    pub fn next_piece(&mut self, about_bytes: usize) -> Result<Option<Vec<u8>>> {
        let mut piece = vec![0; about_bytes + PART_BYTES];
        let filled = self.fill(&mut piece)?;
        piece.truncate(filled);
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Groups<'_> {
    fn read(&mut self, data: &File, reading: Reading) -> io::Result<()> {
        read_exact_at(data, &mut self.places, self.start, reading)
    }
}

impl Tree {
    fn pair(&mut self, place: u64, reading: Reading) -> Result<Pair> {
        let (file, len, block, bytes) = match self {
            Self::Whole(pairs) => return Ok(pairs[place as usize]),
            Self::File { file, len, block, bytes } => (file, *len, block, bytes),
        };
        let wanted = place / BLOCK_PAIRS;
        if *block != wanted {
            let block_bytes = BLOCK_PAIRS * PAIR_BYTES as u64;
            let start = wanted * block_bytes;
            bytes.resize(block_bytes.min(len.saturating_sub(start)) as usize, 0);
            *block = u64::MAX;
            read_exact_at(file, &mut [IoSliceMut::new(bytes)], start, reading)?;
            *block = wanted;
        }
        let start = (place % BLOCK_PAIRS) as usize * PAIR_BYTES;
        let pair = bytes.get(start..start + PAIR_BYTES).and_then(|pair| pair.try_into().ok());
        pair.ok_or_else(|| Error::Io(ErrorKind::UnexpectedEof.into()))
    }
}

fn read_exact_at(
    file: &File,
    mut places: &mut [IoSliceMut<'_>],
    mut at: u64,
    reading: Reading,
) -> io::Result<()> {
    IoSliceMut::advance_slices(&mut places, 0);
    while !places.is_empty() {
        match read_at(file, places, at, reading) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                at += read as u64;
                IoSliceMut::advance_slices(&mut places, read);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn read_at(
    file: &File,
    places: &mut [IoSliceMut<'_>],
    at: u64,
    reading: Reading,
) -> io::Result<usize> {
    use rustix::io::ReadWriteFlags;
    let flags = match reading {
        Reading::FromDisk => ReadWriteFlags::empty(),
        Reading::FromMemory => ReadWriteFlags::NOWAIT,
    };
    Ok(rustix::io::preadv2(file, places, at, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn read_at(
    mut file: &File,
    places: &mut [IoSliceMut<'_>],
    at: u64,
    reading: Reading,
) -> io::Result<usize> {
    match reading {
        Reading::FromDisk => {
            file.seek(SeekFrom::Start(at))?;
            file.read_vectored(places)
        }
        Reading::FromMemory => Err(ErrorKind::Unsupported.into()),
    }
}
