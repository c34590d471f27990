//! Reading slices of blobs that are here: parts of a blob with their proof, piece by piece, for other nodes.

use super::tree::{self, Builder, GROUP_BYTES, PAIR_BYTES, Pair, Run, Step, Walk};
use super::{BlobId, Blobs, READ_BYTES, Result, keeps_tree};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::iter::Peekable;

/// No part of a slice is longer.
pub const PART_BYTES: usize = GROUP_BYTES + PAIR_BYTES;
/// Of a tree, what is read at once.
const BLOCK_PAIRS: u64 = 128;

/// The parts of a slice in their order. Blocks on the disk: use it on a thread that may wait.
#[derive(Debug)]
pub struct Slice {
    size: u64,
    data: File,
    at: u64,
    tree: Tree,
    walk: Peekable<Walk>,
}

#[derive(Debug)]
enum Tree {
    Whole(Vec<Pair>),
    File { file: File, block: u64, bytes: Vec<u8> },
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
        Ok(Some(Slice { size, data, at: u64::MAX, tree, walk: Walk::new(size, runs).peekable() }))
    }

    fn open_tree(&self, id: &BlobId, data: &File, size: u64) -> Result<Tree> {
        let file =
            if keeps_tree(size) { super::found(File::open(self.tree_path(id)))? } else { None };
        let whole = (tree::groups_of(size) - 1) * PAIR_BYTES as u64;
        if let Some(file) = file
            && file.metadata()?.len() == whole
        {
            return Ok(Tree::File { file, block: u64::MAX, bytes: Vec::new() });
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
    /// buffer that is shorter than [`PART_BYTES`] may hold none.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(step) = self.walk.peek().copied() {
            let len = match step {
                Step::Pair(_) => PAIR_BYTES,
                Step::Group { len, .. } => len,
            };
            let Some(place) = buffer.get_mut(filled..filled + len) else { break };
            match step {
                Step::Pair(pair) => place.copy_from_slice(&self.tree.pair(pair)?),
                Step::Group { index, .. } => self.read_group(index, place)?,
            }
            self.walk.next();
            filled += len;
        }
        Ok(filled)
    }

    /// Some more parts, about as many bytes as asked for; none at the end.
    pub fn next_piece(&mut self, about_bytes: usize) -> Result<Option<Vec<u8>>> {
        let mut piece = vec![0; about_bytes + PART_BYTES];
        let filled = self.fill(&mut piece)?;
        piece.truncate(filled);
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn read_group(&mut self, index: u64, place: &mut [u8]) -> Result<()> {
        let start = index * GROUP_BYTES as u64;
        if self.at != start {
            self.data.seek(SeekFrom::Start(start))?;
        }
        self.data.read_exact(place)?;
        self.at = start + place.len() as u64;
        Ok(())
    }
}

impl Tree {
    fn pair(&mut self, place: u64) -> Result<Pair> {
        let (file, block, bytes) = match self {
            Self::Whole(pairs) => return Ok(pairs[place as usize]),
            Self::File { file, block, bytes } => (file, block, bytes),
        };
        let wanted = place / BLOCK_PAIRS;
        if *block != wanted {
            let block_bytes = BLOCK_PAIRS * PAIR_BYTES as u64;
            file.seek(SeekFrom::Start(wanted * block_bytes))?;
            bytes.clear();
            file.take(block_bytes).read_to_end(bytes)?;
            *block = wanted;
        }
        let start = (place % BLOCK_PAIRS) as usize * PAIR_BYTES;
        let pair = bytes.get(start..start + PAIR_BYTES).and_then(|pair| pair.try_into().ok());
        pair.ok_or_else(|| super::Error::Io(std::io::ErrorKind::UnexpectedEof.into()))
    }
}
