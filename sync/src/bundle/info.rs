//! What volumes say of themselves, without being read through: heads, and the lists at a bundle's beginning and end. Takes
//! nothing in, checks nothing but the lists, and needs no key for what is in clear.

use super::told::Room;
use super::volume::{Skim, Volume};
use super::{Cover, Error, Part, Result, Want};
use atoll_storage::Carries;
use std::io::{Read, Seek};

/// The part that ends a bundle is no longer.
const MAX_END_BYTES: u32 = 1 << 10;

/// One volume, as its headers tell: unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VolumeInfo {
    pub volume: u32,
    pub bytes: u64,
    pub parts: u64,
    /// That belong to no part: it was cut off, or damaged.
    pub damaged_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub volumes: Vec<VolumeInfo>,
    /// How many there are of both, if the end was given and can be read here.
    pub of_volumes: Option<u32>,
    pub of_parts: Option<u32>,
    /// None if they were not given, cannot be read here, or are too long.
    pub lists: Option<Lists>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// What the maker has: none if that is not told.
    pub want: Option<Want>,
    pub carries: Carries,
    /// Files that the maker asks for.
    pub lacks: u64,
    /// None: it brings something, and does not tell what, as bundles of older releases.
    pub covers: Option<Vec<Cover>>,
}

impl Info {
    /// Numbers of volumes, from and to, that were not given.
    pub fn missing_volumes(&self) -> Vec<(u32, u32)> {
        missing_of(self.volumes.iter().map(|volume| volume.volume), self.of_volumes)
    }
}

/// Numbers from and to that are not among those given; without `of`, below the highest of them.
pub(super) fn missing_of(
    given: impl IntoIterator<Item = u32>,
    of_volumes: Option<u32>,
) -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = given.into_iter().collect();
    numbers.sort_unstable();
    let (mut missing, mut expected) = (Vec::new(), 1);
    for number in numbers.into_iter().chain(of_volumes.map(|of| of.saturating_add(1))) {
        if number > expected {
            missing.push((expected, number - 1));
        }
        expected = expected.max(number.saturating_add(1));
    }
    missing
}

/// Looks into volumes of one bundle, in the order of their numbers, of which those that can be unlocked are.
///
/// # Errors
/// `Mixed` for volumes of different bundles or makers.
pub fn info<R: Read + Seek>(volumes: &mut [Volume<R>]) -> Result<Info> {
    let of = |volume: &Volume<R>| (volume.head().creator, volume.head().bundle);
    if volumes.windows(2).any(|two| of(&two[0]) != of(&two[1])) {
        return Err(Error::Mixed);
    }
    let (mut info, mut listing) = (Info::default(), Listing::default());
    for volume in volumes {
        let number = volume.head().volume;
        let mut told =
            VolumeInfo { volume: number, bytes: volume.progress().1, ..VolumeInfo::default() };
        let mut last = None;
        while let Some(skim) = volume.skim()? {
            match skim {
                Skim::Part { number, length, at } => {
                    told.parts += 1;
                    last = Some((length, at));
                    listing.look(volume, number, at)?;
                }
                Skim::Hole { from, to } => told.damaged_bytes += to - from,
            }
        }
        info.volumes.push(told);
        let end = last.filter(|(length, _)| *length <= MAX_END_BYTES);
        if let Some(Part::End { parts, volumes }) =
            end.map_or(Ok(None), |(_, at)| volume.part_at(at))?
        {
            // Makers of older releases did not count a volume that was begun for this part.
            (info.of_parts, info.of_volumes) = (Some(parts), Some(volumes.max(number)));
        }
    }
    info.lists = listing.done;
    Ok(info)
}

/// The lists at the beginning, until something else stands there.
#[derive(Default)]
struct Listing {
    next: u32,
    want_room: Room,
    covers_room: Room,
    under_way: Lists,
    is_over: bool,
    done: Option<Lists>,
}

impl Listing {
    fn look<R: Read + Seek>(&mut self, volume: &mut Volume<R>, number: u32, at: u64) -> Result<()> {
        if self.is_over || number != self.next {
            self.is_over = true;
            return Ok(());
        }
        self.next += 1;
        let lists = &mut self.under_way;
        match volume.part_at(at)? {
            None => self.is_over = true,
            // They are longer than whoever takes them in would take them.
            Some(Part::Want(want)) if !self.want_room.take_all(&want) => self.is_over = true,
            Some(Part::Covers(covers)) if !self.covers_room.take_all(&covers) => {
                self.is_over = true;
            }
            Some(Part::Want(want)) => lists.want.get_or_insert_default().extend(want),
            Some(Part::Carries(carries)) if carries.check().is_ok() => lists.carries = carries,
            Some(Part::Covers(covers)) => lists.covers.get_or_insert_default().extend(covers),
            Some(Part::Lacks(lacks)) => lists.lacks += lacks.len() as u64,
            Some(Part::States(_) | Part::Refused(_) | Part::Repair(_) | Part::Contents(_)) => {}
            Some(other) => {
                if matches!(other, Part::End { .. }) {
                    lists.covers.get_or_insert_default();
                }
                self.is_over = true;
                self.done = Some(std::mem::take(lists));
            }
        }
        Ok(())
    }
}
