//! The hash tree of a blob over groups of 16 KiB: what makes any part of a blob provable against its name alone.
//! The tree is BLAKE3's own, cut off at groups, so its root is the hash that names the blob. Does no I/O.
//!
//! A *slice* is part of a blob with its proof, in pre-order: of each node on the way to a wanted group its two
//! children's hashes, of each wanted group its bytes. On disk a tree is its pairs of hashes in post-order, which is the
//! order in which they become known while a blob is written from its beginning to its end.

use super::BlobId;
use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

pub const GROUP_BYTES: usize = 16 << 10;
pub const PAIR_BYTES: usize = 64;
/// Larger blobs are nobody's honest ones.
pub const MAX_BLOB_BYTES: u64 = 1 << 42;

type Value = [u8; 32];
pub type Pair = [u8; PAIR_BYTES];

/// Groups from `first` on. Lists of these are sorted, do not touch, and none is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Run {
    pub first: u64,
    pub count: u64,
}

impl Run {
    pub fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// How many groups a blob of this size has; one, if it is empty.
pub fn groups_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(GROUP_BYTES as u64).max(1)
}

/// What stands in group `index` of a blob of this size.
pub fn group_len(size_bytes: u64, index: u64) -> usize {
    let left = size_bytes.saturating_sub(index.saturating_mul(GROUP_BYTES as u64));
    left.min(GROUP_BYTES as u64) as usize
}

fn group_value(bytes: &[u8], index: u64) -> Value {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * GROUP_BYTES as u64).update(bytes);
    hasher.finalize_non_root()
}

fn halves(pair: &Pair) -> (Value, Value) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    (left, right)
}

fn pair_of(left: &Value, right: &Value) -> Pair {
    let mut pair = [0; PAIR_BYTES];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}

/// A part of the tree: `count` groups from `first` on.
#[derive(Clone, Copy, Debug)]
struct Node {
    first: u64,
    count: u64,
    /// How often the way from the root led to the right: each such turn leaves one pair fewer than groups behind.
    turns: u64,
}

impl Node {
    fn root(groups: u64) -> Self {
        Self { first: 0, count: groups, turns: 0 }
    }

    /// The place of its pair in post-order.
    fn place(self) -> u64 {
        self.first + self.count - self.turns - 2
    }

    fn children(self) -> (Self, Self) {
        let left = 1 << (self.count - 1).ilog2();
        let right =
            Self { first: self.first + left, count: self.count - left, turns: self.turns + 1 };
        (Self { count: left, ..self }, right)
    }

    fn meets(self, runs: &[Run]) -> bool {
        let end = self.first + self.count;
        runs.iter().any(|run| run.first < end && self.first < run.end())
    }
}

/// Makes a blob's tree, and with it the blob's name, of its bytes as they come.
#[derive(Debug, Default)]
pub struct Builder {
    /// Of whole subtrees, from left to right, each smaller than the one before.
    stack: Vec<Value>,
    groups: u64,
    hasher: Box<Hasher>,
    filled: usize,
}

impl Builder {
    /// Pairs that became known are appended to `pairs`.
    pub fn update(&mut self, mut bytes: &[u8], pairs: &mut Vec<Pair>) {
        while !bytes.is_empty() {
            // A group is closed only when more follows: the last one may be the root.
            if self.filled == GROUP_BYTES {
                let value = self.hasher.finalize_non_root();
                self.push(value, pairs);
                // Its `reset` keeps the offset.
                *self.hasher = Hasher::new();
                self.hasher.set_input_offset(self.groups * GROUP_BYTES as u64);
                self.filled = 0;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(GROUP_BYTES - self.filled));
            self.hasher.update(now);
            self.filled += now.len();
            bytes = rest;
        }
    }

    fn push(&mut self, value: Value, pairs: &mut Vec<Pair>) {
        while self.stack.len() > self.groups.count_ones() as usize {
            self.merge(pairs);
        }
        self.stack.push(value);
        self.groups += 1;
    }

    fn merge(&mut self, pairs: &mut Vec<Pair>) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            pairs.push(pair_of(&left, &right));
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// The blob's name, and the last pairs.
    pub fn finish(mut self, pairs: &mut Vec<Pair>) -> BlobId {
        if self.groups == 0 {
            return BlobId(*self.hasher.finalize().as_bytes());
        }
        let value = self.hasher.finalize_non_root();
        self.push(value, pairs);
        while self.stack.len() > 2 {
            self.merge(pairs);
        }
        let (left, right) = (self.stack[0], self.stack[1]);
        pairs.push(pair_of(&left, &right));
        BlobId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }
}

/// What comes next in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The pair at this place of the tree.
    Pair(u64),
    /// The bytes of this group.
    Group { index: u64, len: usize },
}

/// The order of a slice, for the side that has the blob.
#[derive(Clone, Debug)]
pub struct Walk {
    size: u64,
    runs: Vec<Run>,
    stack: Vec<Node>,
}

impl Walk {
    pub fn new(size_bytes: u64, runs: Vec<Run>) -> Self {
        Self { size: size_bytes, runs, stack: vec![Node::root(groups_of(size_bytes))] }
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let node = self.stack.pop()?;
            if !node.meets(&self.runs) {
                continue;
            }
            if node.count == 1 {
                let len = group_len(self.size, node.first);
                return Some(Step::Group { index: node.first, len });
            }
            let (left, right) = node.children();
            self.stack.extend([right, left]);
            return Some(Step::Pair(node.place()));
        }
    }
}

/// What came is not what the blob's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not those of the blob")]
pub struct False;

/// Checks a slice part by part; nothing is given on that is not proved.
#[derive(Debug)]
pub struct Checker {
    size: u64,
    groups: u64,
    runs: Vec<Run>,
    stack: Vec<(Node, Value)>,
}

impl Checker {
    /// `size_bytes` may be a mere claim: what is proved up to the last group proves it too.
    pub fn new(id: &BlobId, size_bytes: u64, runs: Vec<Run>) -> Self {
        let groups = groups_of(size_bytes);
        let mut checker =
            Self { size: size_bytes, groups, runs, stack: vec![(Node::root(groups), id.0)] };
        checker.skip();
        checker
    }

    fn skip(&mut self) {
        while self.stack.last().is_some_and(|(node, _)| !node.meets(&self.runs)) {
            self.stack.pop();
        }
    }

    /// What must come next; none at the end.
    pub fn next_step(&self) -> Option<Step> {
        let (node, _) = self.stack.last()?;
        Some(if node.count == 1 {
            Step::Group { index: node.first, len: group_len(self.size, node.first) }
        } else {
            Step::Pair(node.place())
        })
    }

    /// How many bytes the next step has; none at the end.
    pub fn next_len(&self) -> Option<usize> {
        self.next_step().map(|step| match step {
            Step::Pair(_) => PAIR_BYTES,
            Step::Group { len, .. } => len,
        })
    }

    /// Takes the bytes of the next step, exactly as many as it has.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), False> {
        let Some((node, wanted)) = self.stack.pop() else { return Err(False) };
        let is_root = node.count == self.groups;
        if node.count == 1 {
            let is_true = bytes.len() == group_len(self.size, node.first)
                && if is_root {
                    BlobId::of(bytes).0 == wanted
                } else {
                    !bytes.is_empty() && group_value(bytes, node.first) == wanted
                };
            self.skip();
            return if is_true { Ok(()) } else { Err(False) };
        }
        let pair: Pair = bytes.try_into().map_err(|_| False)?;
        let (left, right) = halves(&pair);
        let found = if is_root {
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        };
        if found != wanted {
            return Err(False);
        }
        let (left_node, right_node) = node.children();
        self.stack.extend([(right_node, right), (left_node, left)]);
        self.skip();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: &[usize] = &[
        0,
        1,
        GROUP_BYTES - 1,
        GROUP_BYTES,
        GROUP_BYTES + 1,
        2 * GROUP_BYTES,
        3 * GROUP_BYTES - 7,
        4 * GROUP_BYTES,
        5 * GROUP_BYTES + 1,
        8 * GROUP_BYTES,
        13 * GROUP_BYTES + 999,
    ];

    fn bytes_of(size: usize) -> Vec<u8> {
        (0..size).map(|n| (n * 31 + n / 251) as u8).collect()
    }

    fn built(bytes: &[u8], piece: usize) -> (BlobId, Vec<Pair>) {
        let (mut builder, mut pairs) = (Builder::default(), Vec::new());
        bytes.chunks(piece).for_each(|piece| builder.update(piece, &mut pairs));
        let id = builder.finish(&mut pairs);
        (id, pairs)
    }

    /// The parts of a slice, as the side that has the blob sends them.
    fn slice(bytes: &[u8], pairs: &[Pair], runs: &[Run]) -> Vec<Vec<u8>> {
        let walk = Walk::new(bytes.len() as u64, runs.to_vec());
        let part = |step| match step {
            Step::Pair(place) => pairs[place as usize].to_vec(),
            Step::Group { index, len } => {
                let start = index as usize * GROUP_BYTES;
                bytes[start..start + len].to_vec()
            }
        };
        walk.map(part).collect()
    }

    fn whole(size: usize) -> Vec<Run> {
        vec![Run { first: 0, count: groups_of(size as u64) }]
    }

    #[test]
    fn a_tree_has_the_hash_for_its_root_however_the_bytes_come() {
        for size in SIZES {
            let bytes = bytes_of(*size);
            for piece in [7_000, GROUP_BYTES, usize::MAX] {
                let (id, pairs) = built(&bytes, piece);
                assert_eq!(id, BlobId::of(&bytes), "{size} in pieces of {piece}");
                assert_eq!(pairs.len() as u64, groups_of(*size as u64) - 1);
            }
        }
    }

    #[test]
    fn every_run_of_every_blob_is_proved_against_its_name() {
        for size in SIZES {
            let bytes = bytes_of(*size);
            let (id, pairs) = built(&bytes, 1_000);
            let groups = groups_of(*size as u64);
            for first in 0..groups {
                for count in 1..=groups - first {
                    let runs = vec![Run { first, count }];
                    let mut checker = Checker::new(&id, *size as u64, runs.clone());
                    let mut seen = 0;
                    for part in slice(&bytes, &pairs, &runs) {
                        seen += u64::from(matches!(checker.next_step(), Some(Step::Group { .. })));
                        assert_eq!(checker.next_len(), Some(part.len()));
                        checker.take(&part).unwrap();
                    }
                    assert_eq!((checker.next_step(), seen), (None, count));
                }
            }
        }
    }

    #[test]
    fn runs_apart_from_each_other_are_one_slice() {
        let bytes = bytes_of(13 * GROUP_BYTES + 999);
        let (id, pairs) = built(&bytes, usize::MAX);
        let runs = vec![
            Run { first: 1, count: 2 },
            Run { first: 7, count: 1 },
            Run { first: 13, count: 1 },
        ];
        let mut checker = Checker::new(&id, bytes.len() as u64, runs.clone());
        let mut got = Vec::new();
        for part in slice(&bytes, &pairs, &runs) {
            if let Some(Step::Group { index, .. }) = checker.next_step() {
                got.push(index);
            }
            checker.take(&part).unwrap();
        }
        assert_eq!(got, [1, 2, 7, 13]);
    }

    #[test]
    fn a_flipped_bit_is_found_in_the_part_that_holds_it() {
        let bytes = bytes_of(5 * GROUP_BYTES + 1);
        let (id, pairs) = built(&bytes, usize::MAX);
        let runs = whole(bytes.len());
        let parts = slice(&bytes, &pairs, &runs);
        for at in 0..parts.len() {
            let mut parts = parts.clone();
            let middle = parts[at].len() / 2;
            parts[at][middle] ^= 4;
            let mut checker = Checker::new(&id, bytes.len() as u64, runs.clone());
            let failed = parts.iter().position(|part| checker.take(part).is_err());
            assert_eq!(failed, Some(at));
        }
    }

    #[test]
    fn another_size_is_found_out_by_the_last_group_at_the_latest() {
        for size in SIZES.iter().filter(|size| **size > 0) {
            let bytes = bytes_of(*size);
            let (id, pairs) = built(&bytes, usize::MAX);
            let groups = groups_of(*size as u64);
            let around = (-2_i64..=2).map(|n| *size as i64 + n * GROUP_BYTES as i64);
            let near = [*size as i64 - 1, *size as i64 + 1].into_iter().chain(around);
            for lie in near.filter(|lie| *lie >= 0 && *lie != *size as i64) {
                let lie = lie as u64;
                let last = vec![Run { first: groups_of(lie) - 1, count: 1 }];
                let mut checker = Checker::new(&id, lie, last);
                // The liar has all true parts at hand, and sends whichever fits.
                let all = slice(&bytes, &pairs, &[Run { first: 0, count: groups }]);
                let proves = |checker: &mut Checker| {
                    while let Some(len) = checker.next_len() {
                        let is_taken = all.iter().any(|part| {
                            part.len() == len && {
                                let mut copy = Checker {
                                    stack: checker.stack.clone(),
                                    runs: checker.runs.clone(),
                                    ..*checker
                                };
                                let fits = copy.take(part).is_ok();
                                if fits {
                                    checker.stack = copy.stack;
                                }
                                fits
                            }
                        });
                        if !is_taken {
                            return false;
                        }
                    }
                    true
                };
                assert!(!proves(&mut checker), "{size} passed for {lie}");
            }
        }
    }
}
