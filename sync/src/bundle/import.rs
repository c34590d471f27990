//! Taking a bundle in: part by part, each whole one whatever became of the others, as often as one likes.

use super::came::Came;
use super::info::missing_of;
use super::land::{Landing, LeftOut};
use super::slice::{BlobSlice, Lack, MAX_BLOBS, MAX_LACKS};
use super::told::{Room, TOO_MUCH, Told as _};
use super::volume::{Item, Volume};
use super::{Cover, Error, MAX_REFUSED, MAX_REFUSED_BYTES, Part, Result, Want};
use crate::message::{MessageError, unpack_chunk, unpack_long_chunk, unpack_ops};
use crate::piece::{Joining, Piece};
use atoll_storage::blob::BlobId;
use atoll_storage::blob::tree::groups_of;
use atoll_storage::bucket::States;
use atoll_storage::{Carries, Replica, SnapshotChunk, StreamId, Vector};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

/// More are not listed.
const MAX_DAMAGES: usize = 100;
const MAX_PARTS: u32 = 10_000_000;
/// Streams and origins of ops and chunks that are remembered until all of a bundle was read, as they lie in memory.
const MAX_OPEN_BYTES: usize = 64 << 20;
const FALSE: &str = "its bytes are not those of the file that it names";

/// A part that could not be taken, or bytes that belong to none.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    pub volume: u32,
    /// Unless not even that can be read.
    pub part: Option<u32>,
    pub from_byte: u64,
    pub to_byte: u64,
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Parts that were read, and how many the bundle has, if the last one was among them.
    pub parts: u32,
    pub of_parts: Option<u32>,
    /// Numbers of parts, from and to, that are in none of the volumes given.
    pub missing: Vec<(u32, u32)>,
    /// How many volumes the bundle has, if the last one was given and can be read here.
    pub of_volumes: Option<u32>,
    /// Numbers of volumes, from and to, that were not given: all of them if `of_volumes` is known, else those below the highest.
    pub missing_volumes: Vec<(u32, u32)>,
    pub damaged: Vec<Damage>,
    /// Parts of kinds that only a later release knows. They were left.
    pub newer: u64,
    /// Parts that were not unlocked. They are as they were signed.
    pub locked: u64,
    pub ops: u64,
    pub applied: u64,
    pub had_already: u64,
    pub quarantined: u64,
    /// Ops and records of what this node does not carry: they were left.
    pub not_carried: u64,
    /// Ops that came and are not here, since what they build on did not come. They count as not received, so they come again.
    pub waiting: u64,
    /// Records that came in snapshots.
    pub records: u64,
    /// Files of which something was read, and those of which all was.
    pub blobs: u64,
    pub blobs_whole: u64,
    /// Of files, as far as they were read.
    pub blob_bytes: u64,
    /// Files that are whole here now, and were not before.
    pub blobs_new: u64,
    pub blobs_had: u64,
    /// Files of which a part is here; the rest goes on with it.
    pub blobs_unfinished: u64,
    /// Files that were not taken, and the first of them with the reasons.
    pub blobs_left: u64,
    pub blobs_left_out: Vec<LeftOut>,
    /// Streams of which a part of a snapshot is here, and the rest is not.
    #[serde(skip)]
    pub unfinished: Vec<StreamId>,
    /// What the maker had, if the bundle tells: nothing at all, if it is a new node.
    #[serde(skip)]
    pub want: Option<Want>,
    /// How its streams stood, if the bundle tells.
    #[serde(skip)]
    pub states: Option<States>,
    /// What of the network the maker carries, if it tells: everything if it does not.
    #[serde(skip)]
    pub carries: Option<Carries>,
    /// What the bundle brings, if it tells.
    #[serde(skip)]
    pub covers: Vec<Cover>,
    /// Bundles that the maker could not use.
    #[serde(skip)]
    pub refused: Vec<String>,
    /// Files that the maker asks for.
    #[serde(skip)]
    pub lacks: Vec<Lack>,
    /// The highest ops that came of each origin, those that wait among them.
    #[serde(skip)]
    pub tops: BTreeMap<StreamId, Vector>,
}

impl Report {
    /// True if all of the bundle was read, as far as this release knows its parts.
    pub fn is_sound(&self) -> bool {
        self.of_parts == Some(self.parts) && self.damaged.is_empty()
    }

    /// True if all of the bundle was read, and all that is written is here.
    pub fn is_whole(&self) -> bool {
        self.is_sound()
            && self.newer + self.locked == 0
            && self.waiting == 0
            && self.unfinished.is_empty()
    }
}

/// Reads volumes of one bundle, in the order of their numbers, and gives what is whole to `replica`, and files to `landing`;
/// without one, they are only checked. `progress` is told bytes.
///
/// # Errors
/// `Mixed` for volumes of different bundles or makers, of which nothing is taken: what the maker of one may do here says
/// nothing of the others.
pub fn import<R: Read + Seek>(
    mut replica: Option<&mut dyn Replica>,
    mut landing: Option<&mut Landing<'_>>,
    volumes: Vec<Volume<R>>,
    progress: impl FnMut(u64, u64),
) -> Result<Report> {
    let of = |volume: &Volume<R>| (volume.head().creator, volume.head().bundle);
    if volumes.windows(2).any(|two| of(&two[0]) != of(&two[1])) {
        return Err(Error::Mixed);
    }
    let taken = read(&mut replica, &mut landing, volumes, progress);
    // Also if the ops behind a file were too many for the disk.
    let landed = landing.map(Landing::finish).unwrap_or_default();
    let mut report = taken?.finish(replica)?;
    report.blobs_new = landed.new;
    report.blobs_had = landed.had;
    report.blobs_unfinished = landed.unfinished;
    report.blobs_left = landed.left;
    report.blobs_left_out = landed.left_out;
    Ok(report)
}

fn read<R: Read + Seek>(
    replica: &mut Option<&mut dyn Replica>,
    landing: &mut Option<&mut Landing<'_>>,
    mut volumes: Vec<Volume<R>>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Taking> {
    volumes.sort_by_key(|volume| volume.head().volume);
    let of_bytes = volumes.iter().map(|volume| volume.progress().1).sum();
    let numbers = volumes.iter().map(|volume| volume.head().volume).collect();
    let mut taking = Taking { volumes: numbers, ..Taking::default() };
    let mut before = 0;
    for volume in &mut volumes {
        taking.volume = volume.head().volume;
        while let Some(item) = volume.next()? {
            match item {
                Item::Part { number, .. } | Item::Newer { number } | Item::Locked { number }
                    if number >= MAX_PARTS => {}
                Item::Part { number, part } => taking.take(replica, landing, number, part)?,
                Item::Newer { number } => {
                    taking.report.newer += u64::from(taking.numbers.insert(number));
                }
                Item::Locked { number } => {
                    taking.report.locked += u64::from(taking.numbers.insert(number));
                }
                Item::Damaged { number: part, from, to, why } => {
                    let (volume, from_byte, to_byte) = (taking.volume, from, to);
                    let why = why.to_owned();
                    taking.damaged(Damage { volume, part, from_byte, to_byte, why });
                }
            }
            progress(before + volume.progress().0, of_bytes);
        }
        before += volume.progress().1;
    }
    Ok(taking)
}

/// For what the bundle tells.
struct Rooms {
    want: Room,
    covers: Room,
    states: Room,
    /// Of `came` and `chunked`.
    open: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        let open = Room::of(MAX_OPEN_BYTES);
        Self { want: Room::default(), covers: Room::default(), states: Room::default(), open }
    }
}

#[derive(Default)]
struct Taking {
    report: Report,
    /// Numbers of those that were given.
    volumes: Vec<u32>,
    /// That is being read.
    volume: u32,
    came: Came,
    /// Groups of files that were read, and how many there are.
    files: BTreeMap<BlobId, (u64, u64)>,
    numbers: BTreeSet<u32>,
    chunked: BTreeSet<StreamId>,
    rooms: Rooms,
    /// A chunk that is coming in pieces, and the numbers of those parts.
    long: (Joining, Vec<u32>),
}

impl Taking {
    fn take(
        &mut self,
        replica: &mut Option<&mut dyn Replica>,
        landing: &mut Option<&mut Landing<'_>>,
        number: u32,
        part: Part,
    ) -> Result<()> {
        // The same part may stand in two copies of a volume.
        if !self.numbers.insert(number) {
            return Ok(());
        }
        match part {
            Part::Want(want) if self.rooms.want.take_all(&want) => {
                self.report.want.get_or_insert_default().extend(want);
            }
            Part::Carries(carries) => match carries.check() {
                Ok(()) => self.report.carries = Some(carries),
                Err(error) => self.nonsense(number, error.to_string()),
            },
            Part::Covers(covers) if self.rooms.covers.take_all(&covers) => {
                self.report.covers.extend(covers);
            }
            Part::Refused(names) => {
                let left = MAX_REFUSED.saturating_sub(self.report.refused.len());
                let names = names.into_iter().filter(|name| name.len() <= MAX_REFUSED_BYTES);
                self.report.refused.extend(names.take(left));
            }
            Part::Lacks(lacks) => {
                let left = MAX_LACKS.saturating_sub(self.report.lacks.len());
                self.report.lacks.extend(lacks.into_iter().take(left).map(Lack::bounded));
            }
            Part::States(states) if self.rooms.states.take_all(&states) => {
                self.report.states.get_or_insert_default().extend(states);
            }
            Part::Want(_) | Part::Covers(_) | Part::States(_) => {
                self.nonsense(number, TOO_MUCH.to_owned());
            }
            // Its slices tell the same, and prove it; and a state is merged whomever it is for.
            Part::Contents(_) | Part::Repair(_) => {}
            Part::Slice(slice) => self.take_slice(landing, number, &slice),
            Part::End { parts, volumes } => {
                // Makers of older releases did not count a volume that was begun for this part.
                let volumes = volumes.max(self.volume);
                (self.report.of_parts, self.report.of_volumes) = (Some(parts), Some(volumes));
            }
            Part::Ops(packed) => match unpack_ops(&packed) {
                Ok(ops) => {
                    self.report.ops += ops.len() as u64;
                    if let Some(replica) = replica {
                        let room = &mut self.rooms.open;
                        // What does not fit is taken by a later bundle.
                        if !ops.iter().all(|op| self.came.note(&op.stream, op.dot, room)) {
                            self.nonsense(number, TOO_MUCH.to_owned());
                            return Ok(());
                        }
                        // They may build on what a snapshot before them brought.
                        Self::finish_streams(&mut self.chunked, *replica)?;
                        let applied = replica.apply(ops)?;
                        self.report.applied += applied.applied as u64;
                        self.report.had_already += applied.skipped as u64;
                        self.report.quarantined += applied.quarantined as u64;
                        self.report.not_carried += applied.refused as u64;
                    }
                }
                Err(error) => self.nonsense(number, error.to_string()),
            },
            Part::Chunk(packed) => self.take_chunk(replica, number, unpack_chunk(&packed))?,
            Part::Piece(piece) => {
                if let Some(bytes) = self.join(number, piece) {
                    self.take_chunk(replica, number, unpack_long_chunk(&bytes))?;
                }
            }
        }
        Ok(())
    }

    fn take_chunk(
        &mut self,
        replica: &mut Option<&mut dyn Replica>,
        number: u32,
        chunk: Result<SnapshotChunk, MessageError>,
    ) -> Result<()> {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                self.nonsense(number, error.to_string());
                return Ok(());
            }
        };
        self.report.records += chunk.records.len() as u64;
        let Some(replica) = replica else { return Ok(()) };
        if !replica.carries().carries(&chunk.stream) {
            self.report.not_carried += chunk.records.len() as u64;
            return Ok(());
        }
        let is_new = !self.chunked.contains(&chunk.stream);
        if is_new && !self.rooms.open.take(chunk.stream.bytes()) {
            self.nonsense(number, TOO_MUCH.to_owned());
            return Ok(());
        }
        self.chunked.insert(chunk.stream.clone());
        Ok(replica.merge_chunk(&chunk)?)
    }

    /// All bytes, with the last piece.
    fn join(&mut self, number: u32, piece: Piece) -> Option<Vec<u8>> {
        if let Err(error) = piece.check() {
            self.nonsense(number, error.to_string());
            return None;
        }
        let (joining, numbers) = &mut self.long;
        if !joining.is_of(&piece) {
            // A copy of their volume may bring all of them.
            numbers.drain(..).for_each(|number| {
                self.numbers.remove(&number);
            });
        }
        let whole = joining.put(piece);
        numbers.push(number);
        if whole.is_some() {
            numbers.clear();
        }
        whole
    }

    fn take_slice(
        &mut self,
        landing: &mut Option<&mut Landing<'_>>,
        number: u32,
        slice: &BlobSlice,
    ) {
        let Ok(proved) = slice.prove() else {
            return self.nonsense(number, FALSE.to_owned());
        };
        let groups = (0, groups_of(slice.size_bytes));
        if self.files.len() < MAX_BLOBS || self.files.contains_key(&slice.blob) {
            self.files.entry(slice.blob).or_insert(groups).0 += slice.run.count;
        }
        self.report.blob_bytes += slice.file_bytes();
        if let Some(landing) = landing {
            landing.take(slice, &proved);
        }
    }

    /// Leaves those of which chunks are missing.
    fn finish_streams(streams: &mut BTreeSet<StreamId>, replica: &mut dyn Replica) -> Result<()> {
        for stream in std::mem::take(streams) {
            if !replica.finish_held(&stream)? {
                streams.insert(stream);
            }
        }
        Ok(())
    }

    /// Signed by the maker, and still not to be used.
    fn nonsense(&mut self, number: u32, why: String) {
        self.numbers.remove(&number);
        let (volume, part) = (self.volume, Some(number));
        self.damaged(Damage { volume, part, from_byte: 0, to_byte: 0, why });
    }

    fn damaged(&mut self, damage: Damage) {
        if self.report.damaged.len() < MAX_DAMAGES {
            self.report.damaged.push(damage);
        }
    }

    fn finish(mut self, replica: Option<&mut dyn Replica>) -> Result<Report> {
        let report = &mut self.report;
        report.parts = self.numbers.len() as u32;
        report.blobs = self.files.len() as u64;
        report.blobs_whole = self.files.values().filter(|(here, all)| here >= all).count() as u64;
        let end = report.of_parts.or_else(|| self.numbers.last().map(|last| last + 1));
        let mut expected = 0;
        for number in self.numbers.iter().copied().chain(end) {
            if number > expected {
                report.missing.push((expected, number - 1));
            }
            expected = number + 1;
        }
        report.missing_volumes = missing_of(self.volumes, report.of_volumes);
        report.tops = self.came.tops();
        let Some(replica) = replica else { return Ok(self.report) };
        Self::finish_streams(&mut self.chunked, replica)?;
        let carries = replica.carries();
        self.chunked.retain(|stream| carries.carries(stream));
        report.unfinished = self.chunked.into_iter().collect();
        for stream in report.tops.keys().filter(|stream| carries.carries(stream)) {
            let here = replica.head(stream)?.map(|head| head.vector).unwrap_or_default();
            report.waiting = report.waiting.saturating_add(self.came.beyond(stream, &here));
        }
        Ok(self.report)
    }
}

#[cfg(test)]
mod tests;
