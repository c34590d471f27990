//! Making a bundle: what a receiver lacks, as ops where the log has them and as a snapshot where it has not, and then files.

use super::frame::MAX_PART_BYTES;
use super::lock::Locker;
use super::pack::{Chosen, Left, Pack, Packing};
use super::slice::{BlobSlice, Lack, MAX_LACKS, cut};
use super::told::Room;
use super::volume::{Head, VolumeWriter};
use super::{
    BundleKey, Cover, Error, FORMAT, MAX_REFUSED, MAX_VOLUME_BYTES, MIN_VOLUME_BYTES, Part,
    Recipient, Repair, Result,
};
use crate::key::NodeKey;
use crate::message::{Hello, MAX_UNPACKED_BYTES, Packed};
use crate::piece::{self, PIECE_BYTES};
use atoll_storage::bucket::StreamState;
use atoll_storage::{
    Carries, Lane, NodeId, Replica, SnapshotChunk, StreamHead, StreamId, Vector, codec,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

const BATCH_BYTES: usize = 2 << 20;
/// Of a list.
const LIST_BYTES: usize = 256 << 10;
/// What a volume holds beside a piece, header and signature among it.
const ENVELOPE_BYTES: usize = 512;

/// Where volumes go.
pub trait Volumes {
    type File: Write;
    fn begin(&mut self, volume: u32) -> io::Result<Self::File>;
    /// The volume is whole; it is on disk when this returns.
    fn end(&mut self, volume: u32, file: Self::File) -> io::Result<()>;
}

/// What a bundle tells of its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells<'a> {
    /// All that the maker has, and what this bundle brings.
    Has,
    /// All that the maker has, and nothing else.
    Wants,
    /// The same, how its streams stand, and the names of bundles that the maker could not use.
    Says { refused: &'a [String] },
    /// The files that the maker asks for, and nothing else.
    Lacks,
    /// What this bundle brings, of the streams of which it brings something.
    Brings,
    /// The same of the one stream of which all goes as a state, and who takes that. The digest is put in.
    Repairs { nodes: &'a [NodeId], tries: u32 },
}

pub struct Order<'a> {
    /// What the receiver has, as far as it is known; nothing for a new node.
    pub known: BTreeMap<StreamId, Vector>,
    /// Streams of which the state goes, whatever the receiver has.
    pub whole: BTreeSet<StreamId>,
    /// Which streams to pack and to tell of: those that the receiver carries, and may have.
    pub carries: &'a dyn Fn(&StreamId) -> bool,
    /// Without any, whoever has the file can read it.
    pub recipients: Vec<Recipient>,
    pub tells: Tells<'a>,
    /// Files that the maker asks for; told with what it has.
    pub lacks: &'a [Lack],
    /// None: no files go along.
    pub files: Option<Packing<'a>>,
    pub volume_bytes: u64,
    /// Ops in one part at most.
    pub batch_ops: usize,
    /// A stream that the receiver has nothing of goes as a snapshot from so many ops on.
    pub snapshot_from_ops: u64,
    pub name: &'a str,
    pub now_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    pub volumes: u32,
    pub parts: u32,
    pub bytes: u64,
    pub ops: u64,
    /// Records that went as snapshots.
    pub records: u64,
    /// Files, those among them of which only the rest went.
    pub blobs: u64,
    /// Of files.
    pub blob_bytes: u64,
    pub blobs_left: Left,
    /// What it brings, if it tells.
    #[serde(skip)]
    pub covers: Vec<Cover>,
    #[serde(skip)]
    pub repair: Option<Repair>,
}

/// Writes a bundle. `progress` is told ops, records and parts of files written, and of how many (more may come meanwhile).
pub fn export<V: Volumes>(
    replica: &mut dyn Replica,
    key: &NodeKey,
    order: &Order<'_>,
    volumes: &mut V,
    mut progress: impl FnMut(u64, u64),
) -> Result<Exported> {
    let mut heads = replica.heads(None)?;
    heads.retain(|head| (order.carries)(&head.stream) && !head.is_empty());
    // Who may do what goes before everything else, also out of a bundle that is cut off.
    heads.sort_by_key(|head| !head.stream.is_urgent());
    let plan = plan(&heads, order);
    let carries = replica.carries();
    let mut out = Writer::begin(key, order, volumes)?;
    match order.tells {
        Tells::Has => {
            out.put_want(&heads, &carries, order.lacks)?;
            // It is for people: whoever takes a bundle in need not know.
            let covers = plan.covers(&heads, &order.known);
            if Room::default().take_all(&covers) {
                out.put_pieces(covers.into_iter(), Part::Covers)?;
            }
        }
        Tells::Brings => out.put_covers(&heads, &plan, order)?,
        Tells::Repairs { nodes, tries } => {
            out.put_covers(&heads, &plan, order)?;
            let digest = heads.first().map(|head| head.digest).unwrap_or_default();
            let repair = Repair { digest, nodes: nodes.to_vec(), tries };
            out.put(&Part::Refused(vec![]))?;
            out.put(&Part::Repair(repair.clone()))?;
            out.done.repair = Some(repair);
        }
        Tells::Wants => {
            out.put_want(&heads, &carries, order.lacks)?;
            return out.finish();
        }
        Tells::Says { refused } => {
            out.put_want(&heads, &carries, order.lacks)?;
            out.put_states(&heads)?;
            if !refused.is_empty() {
                out.put(&Part::Refused(refused.iter().take(MAX_REFUSED).cloned().collect()))?;
            }
            return out.finish();
        }
        Tells::Lacks => {
            out.put_pieces(order.lacks.iter().take(MAX_LACKS).cloned(), Part::Lacks)?;
            return out.finish();
        }
    }
    let of = plan.records + plan.ops;
    let mut pack = order.files.as_ref().map(Pack::new);
    let snapshots = plan.snapshots.iter().map(|head| &head.stream);
    for stream in snapshots {
        out.put_snapshot(replica, stream, pack.as_mut(), |done| progress(done, of))?;
    }
    let mut reach = plan.known.clone();
    for lane in [Lane::Urgent, Lane::Rest] {
        let known = (&plan.known, &mut reach);
        out.put_ops(replica, lane, known, order, pack.as_mut(), |done| progress(done, of))?;
    }
    // What the log lost in a damaged block goes as a state.
    let nothing = Vector::default();
    let is_short =
        |head: &&StreamHead| !reach.get(&head.stream).unwrap_or(&nothing).includes(&head.vector);
    for head in heads.iter().filter(is_short) {
        let stream = &head.stream;
        tracing::warn!(%stream, "ops of a stream cannot be read from the log: its state is packed");
        out.put_snapshot(replica, stream, pack.as_mut(), |done| progress(done, of))?;
    }
    if let Some(pack) = pack {
        out.put_files(pack, progress)?;
    }
    out.finish()
}

struct Plan<'h> {
    snapshots: Vec<&'h StreamHead>,
    /// What ops are left out for: the receiver has them, or has their effect from a snapshot.
    known: BTreeMap<StreamId, Vector>,
    ops: u64,
    records: u64,
}

impl Plan<'_> {
    fn covers(&self, heads: &[StreamHead], known: &BTreeMap<StreamId, Vector>) -> Vec<Cover> {
        heads.iter().filter_map(|head| self.cover(head, known)).collect()
    }

    fn cover(&self, head: &StreamHead, known: &BTreeMap<StreamId, Vector>) -> Option<Cover> {
        let theirs = known.get(&head.stream).cloned().unwrap_or_default();
        let is_snapshot = self.snapshots.iter().any(|snapshot| snapshot.stream == head.stream);
        if !is_snapshot && head.vector.lead_over(&theirs) == 0 {
            return None;
        }
        let from = if is_snapshot { Vector::default() } else { theirs };
        Some(Cover { stream: head.stream.clone(), from, to: head.vector.clone() })
    }
}

fn plan<'h>(heads: &'h [StreamHead], order: &Order<'_>) -> Plan<'h> {
    let known = &order.known;
    let nothing = Vector::default();
    let mut plan = Plan { snapshots: vec![], known: known.clone(), ops: 0, records: 0 };
    for head in heads {
        let theirs = known.get(&head.stream).unwrap_or(&nothing);
        let lead = head.vector.lead_over(theirs);
        let is_trimmed = head.floor.0.iter().any(|(origin, seq)| *seq > theirs.get(*origin));
        let is_new = theirs.0.is_empty() && lead >= order.snapshot_from_ops;
        if order.whole.contains(&head.stream) || lead > 0 && (is_trimmed || is_new) {
            plan.snapshots.push(head);
            plan.records += head.records;
            plan.known.entry(head.stream.clone()).or_default().merge(&head.vector);
        } else {
            plan.ops += lead;
        }
    }
    plan
}

pub(super) struct Writer<'a, V: Volumes> {
    key: &'a NodeKey,
    head: Head,
    locker: Option<Locker>,
    volumes: &'a mut V,
    volume_bytes: u64,
    open: Option<VolumeWriter<'a, V::File>>,
    done: Exported,
}

impl<'a, V: Volumes> Writer<'a, V> {
    pub fn begin(key: &'a NodeKey, order: &Order<'_>, volumes: &'a mut V) -> Result<Self> {
        let mut bundle = [0; 16];
        getrandom::fill(&mut bundle).map_err(|_| Error::Random)?;
        let (locker, sealed) = match order.recipients.as_slice() {
            [] => (None, vec![]),
            recipients => {
                let (locker, sealed) = Locker::new(&bundle, recipients)?;
                (Some(locker), sealed)
            }
        };
        let head = Head {
            format: FORMAT,
            bundle,
            volume: 0,
            creator: key.public(),
            name: Hello::short_name(order.name),
            made_ms: order.now_ms,
            reply_key: BundleKey::of(key)?.public(),
            sealed,
        };
        let volume_bytes = order.volume_bytes.clamp(MIN_VOLUME_BYTES, MAX_VOLUME_BYTES);
        let done = Exported::default();
        Ok(Self { key, head, locker, volumes, volume_bytes, open: None, done })
    }

    pub fn put(&mut self, part: &Part) -> Result<()> {
        let bytes = self.part_bytes(part)?;
        self.make_room(bytes.len())?;
        self.append(&bytes)
    }

    fn part_bytes(&self, part: &Part) -> Result<Vec<u8>> {
        let bytes = codec::encode(part);
        match &self.locker {
            Some(locker) => locker.lock(self.done.parts, bytes),
            None => Ok(bytes),
        }
    }

    /// Ends the volume if it has no room for so much; one that is empty takes anything.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let is_full = |open: &VolumeWriter<'_, V::File>| {
            open.written_bytes + bytes as u64 + (8 << 10) > self.volume_bytes
        };
        if self.open.as_ref().is_some_and(is_full) { self.end_volume() } else { Ok(()) }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.open.is_none() {
            self.head.volume += 1;
            self.done.volumes = self.head.volume;
            let file = self.volumes.begin(self.head.volume)?;
            self.open = Some(VolumeWriter::begin(file, self.key, &self.head)?);
        }
        let is_locked = self.locker.is_some();
        if let Some(open) = &mut self.open {
            open.put(self.done.parts, bytes, is_locked)?;
        }
        self.done.parts += 1;
        Ok(())
    }

    /// A chunk that is longer than a part may unfold to goes in pieces, all of them in one volume: each volume must bring
    /// something by itself.
    fn put_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        let plain = codec::encode(chunk);
        let is_long = plain.len() > MAX_UNPACKED_BYTES;
        let packed = Packed::of_bytes(plain);
        if !is_long {
            return self.put(&Part::Chunk(packed));
        }
        let bytes = codec::encode(&packed);
        let Some(pieces) = piece::cut(&bytes, PIECE_BYTES) else {
            let key = chunk.records.first().map(|record| record.key).unwrap_or_default();
            return Err(Error::TooLong { stream: chunk.stream.clone(), key });
        };
        self.make_room(bytes.len() + pieces.len() * ENVELOPE_BYTES)?;
        for piece in pieces {
            let bytes = self.part_bytes(&Part::Piece(piece))?;
            self.append(&bytes)?;
        }
        Ok(())
    }

    fn end_volume(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            let (file, bytes) = open.finish()?;
            self.done.bytes += bytes;
            self.volumes.end(self.head.volume, file)?;
        }
        Ok(())
    }

    fn put_want(&mut self, heads: &[StreamHead], carries: &Carries, lacks: &[Lack]) -> Result<()> {
        if !carries.is_everything() {
            self.put(&Part::Carries(carries.clone()))?;
        }
        let want = heads.iter().map(|head| (head.stream.clone(), head.vector.clone()));
        self.put_pieces(want, Part::Want)?;
        if lacks.is_empty() {
            return Ok(());
        }
        self.put_pieces(lacks.iter().take(MAX_LACKS).cloned(), Part::Lacks)
    }

    fn put_states(&mut self, heads: &[StreamHead]) -> Result<()> {
        let state =
            |head: &StreamHead| StreamState { digest: head.digest, is_ahead: head.is_ahead };
        let states = heads.iter().map(|head| (head.stream.clone(), state(head)));
        self.put_pieces(states, Part::States)
    }

    fn put_covers(
        &mut self,
        heads: &[StreamHead],
        plan: &Plan<'_>,
        order: &Order<'_>,
    ) -> Result<()> {
        self.done.covers = plan.covers(heads, &order.known);
        self.put_pieces(self.done.covers.clone().into_iter(), Part::Covers)
    }

    /// A list in parts of a fitting length; an empty one is a part too.
    fn put_pieces<T: bincode::Encode>(
        &mut self,
        list: impl Iterator<Item = T>,
        part: fn(Vec<T>) -> Part,
    ) -> Result<()> {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for one in list {
            bytes += codec::encode(&one).len();
            piece.push(one);
            if bytes > LIST_BYTES {
                self.put(&part(std::mem::take(&mut piece)))?;
                bytes = 0;
            }
        }
        self.put(&part(piece))
    }

    fn put_snapshot(
        &mut self,
        replica: &mut dyn Replica,
        stream: &StreamId,
        mut pack: Option<&mut Pack<'_>>,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut after = None;
        loop {
            let chunk = replica.snapshot_chunk(stream, after, None)?;
            self.put_chunk(&chunk)?;
            if let Some(pack) = &mut pack {
                chunk.records.iter().try_for_each(|record| pack.note(record.kind, record.key))?;
            }
            self.done.records += chunk.records.len() as u64;
            progress(self.done.records + self.done.ops);
            after = chunk.upto;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// `known` comes with how far who has that gets by what is put.
    fn put_ops(
        &mut self,
        replica: &mut dyn Replica,
        lane: Lane,
        (known, reach): (&BTreeMap<StreamId, Vector>, &mut BTreeMap<StreamId, Vector>),
        order: &Order<'_>,
        mut pack: Option<&mut Pack<'_>>,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        // What is written meanwhile goes into the next bundle.
        let end = replica.log_end()?;
        let mut from = replica.start_of(lane, known)?;
        while from <= end {
            let batch = replica.ops(lane, from, known, order.batch_ops, BATCH_BYTES)?;
            let mut ops = batch.ops;
            ops.retain(|op| (order.carries)(&op.stream));
            if !ops.is_empty() {
                for op in &ops {
                    let reach = reach.entry(op.stream.clone()).or_default();
                    if op.dot.seq == reach.get(op.dot.origin) + 1 {
                        reach.raise(op.dot.origin, op.dot.seq);
                    }
                }
                self.done.ops += ops.len() as u64;
                self.put(&Part::Ops(Packed::of(&ops)))?;
                if let Some(pack) = &mut pack {
                    ops.iter().try_for_each(|op| pack.note(op.kind, op.key))?;
                }
                progress(self.done.records + self.done.ops);
            }
            if batch.next_pos <= from {
                break;
            }
            from = batch.next_pos;
        }
        Ok(())
    }

    fn put_files(&mut self, pack: Pack<'_>, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        let Packing { blobs, room_bytes, .. } = *pack.packing;
        let chosen = pack.choose(&mut self.done.blobs_left)?;
        let mut done = self.done.ops + self.done.records;
        let parts = |chosen: &Chosen| cut(&chosen.runs).count() as u64;
        let of = done + chosen.iter().map(parts).sum::<u64>();
        let mut room = room_bytes();
        for Chosen { blob, size_bytes, runs } in chosen {
            let (mut went_bytes, mut is_whole) = (0, true);
            for run in cut(&runs) {
                let Some(slice) = BlobSlice::read(blobs, &blob, run)? else {
                    tracing::warn!(%blob, "a file could not be packed: it is gone, or damaged here");
                    self.done.blobs_left.not_here += 1;
                    is_whole = false;
                    break;
                };
                let file_bytes = slice.file_bytes();
                let part_bytes = slice.part_bytes();
                if part_bytes > room {
                    self.done.blobs_left.no_room += 1;
                    self.done.blobs_left.bytes += size_bytes.saturating_sub(went_bytes);
                    (room, is_whole) = (0, false);
                    break;
                }
                room -= part_bytes;
                self.put(&Part::Slice(slice))?;
                went_bytes += file_bytes;
                done += 1;
                progress(done, of);
            }
            self.done.blob_bytes += went_bytes;
            self.done.blobs += u64::from(is_whole);
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Exported> {
        // It may have to begin a volume, which counts.
        self.make_room(MAX_END_BYTES)?;
        let volumes = self.head.volume + u32::from(self.open.is_none());
        self.put(&Part::End { parts: self.done.parts + 1, volumes })?;
        self.end_volume()?;
        self.done.volumes = self.head.volume;
        Ok(self.done)
    }
}

/// How long the last part is at the most, locked.
const MAX_END_BYTES: usize = 64;

// A part is a batch or a chunk, both bounded far below this.
const _: () = assert!(BATCH_BYTES < MAX_PART_BYTES);
