//! Volumes: writing parts into one file after the other, and reading what is whole in one.

use super::frame::{
    self, Frame, Frames, Header, KIND_HEAD, KIND_LOCKED, KIND_PLAIN, Read1, Skimmed,
};
use super::lock::{Locker, Sealed};
use super::told::Room;
use super::{
    BundleKey, Contents, Cover, Error, FORMAT, MAX_RECIPIENTS, MAX_SHARES, Part, Repair, Result,
};
use crate::key::{NodeKey, PublicKey, SIGNATURE_BYTES};
use atoll_storage::{NodeId, codec};
use bincode::{Decode, Encode};
use std::io::{Read, Seek, Write};

const MAX_NAME_BYTES: usize = 128;

/// What stands at the beginning of every volume, and once more at its end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    pub format: u16,
    /// The same in all volumes of a bundle.
    pub bundle: [u8; 16],
    /// From 1.
    pub volume: u32,
    pub creator: PublicKey,
    pub name: String,
    pub made_ms: u64,
    /// What answers to the creator can be locked with.
    pub reply_key: [u8; 32],
    /// None: everybody can read it.
    pub sealed: Vec<Sealed>,
}

impl Head {
    /// Who can read it; none: everybody.
    pub fn readers(&self) -> Option<Vec<NodeId>> {
        let sealed = &self.sealed;
        (!sealed.is_empty()).then(|| sealed.iter().map(|sealed| sealed.node).collect())
    }

    fn signed_text(part: &[u8]) -> Vec<u8> {
        [b"atoll bundle head\0", &blake3::hash(part).as_bytes()[..]].concat()
    }

    /// None unless the creator signed exactly this.
    fn of_frame(frame: &Frame) -> Option<Self> {
        if frame.header.kind != KIND_HEAD {
            return None;
        }
        let Ok(head) = codec::decode::<Self>(&frame.part) else { return None };
        let text = Self::signed_text(&frame.part);
        let is_sound = head.creator.verify(&text, &frame.signature).is_ok()
            && head.name.len() <= MAX_NAME_BYTES
            && head.sealed.len() <= MAX_RECIPIENTS;
        (is_sound && head.format <= FORMAT).then_some(head)
    }
}

/// The format, if this release does not know it. It stands first, so that a head of another shape still tells it.
fn newer(frame: &Frame) -> Option<u16> {
    let config = bincode::config::standard().with_limit::<16>();
    let format = bincode::decode_from_slice::<u16, _>(&frame.part, config).ok()?.0;
    (frame.header.kind == KIND_HEAD && format > FORMAT).then_some(format)
}

/// What a part's signature is over: the volume that it stands in, its number and its bytes.
fn signed_text(head: &[u8; 32], header: Header, part: &[u8]) -> Vec<u8> {
    let header = header.to_bytes();
    [b"atoll bundle part\0", &head[..], &header[..], &blake3::hash(part).as_bytes()[..]].concat()
}

/// What a bundle of a bucket tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brings {
    pub covers: Vec<Cover>,
    pub repair: Option<Repair>,
}

/// Writes the parts of one volume.
pub struct VolumeWriter<'k, W> {
    file: W,
    key: &'k NodeKey,
    head: Vec<u8>,
    head_hash: [u8; 32],
    pub written_bytes: u64,
}

impl<'k, W: Write> VolumeWriter<'k, W> {
    pub fn begin(file: W, key: &'k NodeKey, head: &Head) -> Result<Self> {
        let head = codec::encode(head);
        let head_hash = *blake3::hash(&head).as_bytes();
        let mut writer = Self { file, key, head, head_hash, written_bytes: 0 };
        writer.put_head()?;
        Ok(writer)
    }

    fn put_head(&mut self) -> Result<()> {
        let length = self.head.len() as u32;
        let header = Header { kind: KIND_HEAD, number: u32::MAX, length };
        let signature = self.key.sign(&Head::signed_text(&self.head));
        frame::write(&mut self.file, header, &self.head, &signature)?;
        self.written_bytes += header.frame_bytes();
        Ok(())
    }

    pub fn put(&mut self, number: u32, part: &[u8], is_locked: bool) -> Result<()> {
        let kind = if is_locked { KIND_LOCKED } else { KIND_PLAIN };
        let header = Header { kind, number, length: part.len() as u32 };
        let signature: [u8; SIGNATURE_BYTES] =
            self.key.sign(&signed_text(&self.head_hash, header, part));
        frame::write(&mut self.file, header, part, &signature)?;
        self.written_bytes += header.frame_bytes();
        Ok(())
    }

    /// The file, with the head once more at its end, and how long it is.
    pub fn finish(mut self) -> Result<(W, u64)> {
        self.put_head()?;
        self.file.flush()?;
        Ok((self.file, self.written_bytes))
    }
}

/// One volume, open for reading.
pub struct Volume<R> {
    frames: Frames<R>,
    head: Head,
    head_hash: [u8; 32],
    locker: Option<Locker>,
}

pub(super) enum Item {
    Part {
        number: u32,
        part: Part,
    },
    /// Of a kind that only a later release knows.
    Newer {
        number: u32,
    },
    /// As it was signed; what is in it is for its recipients.
    Locked {
        number: u32,
    },
    Damaged {
        number: Option<u32>,
        from: u64,
        to: u64,
        why: &'static str,
    },
}

/// A part of which only the header was read, or bytes that belong to none.
pub(super) enum Skim {
    Part { number: u32, length: u32, at: u64 },
    Hole { from: u64, to: u64 },
}

impl<R: Read + Seek> Volume<R> {
    /// Finds the head, also behind a damaged beginning.
    pub fn open(file: R) -> Result<Self> {
        let mut frames = Frames::new(file)?;
        // Or damaged so that it looks like one.
        let mut unknown = None;
        loop {
            match frames.next()? {
                Read1::Frame(frame) => {
                    unknown = unknown.or_else(|| newer(&frame));
                    if let Some(mut head) = Head::of_frame(&frame) {
                        // It is shown, on terminals too, whoever made it.
                        head.name.retain(|c| !c.is_control());
                        frames.rewind();
                        let head_hash = *blake3::hash(&frame.part).as_bytes();
                        return Ok(Self { frames, head, head_hash, locker: None });
                    }
                }
                Read1::Hole { .. } => {}
                Read1::End => return Err(unknown.map_or(Error::NoBundle, Error::Newer)),
            }
        }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    pub fn is_locked(&self) -> bool {
        !self.head.sealed.is_empty()
    }

    /// To be called before the parts are read.
    pub fn unlock(&mut self, key: &BundleKey) -> Result<()> {
        if self.is_locked() {
            self.locker = Some(Locker::open(&self.head.bundle, &self.head.sealed, key)?);
        }
        Ok(())
    }

    /// What the bundle brings, read from its beginning; none if it does not tell, or not so early, or more than
    /// [`super::MAX_TOLD_BYTES`]. To be called before the parts are read.
    pub fn brings(&mut self) -> Result<Option<Brings>> {
        let brings = self.read_brings();
        self.frames.rewind();
        brings
    }

    fn read_brings(&mut self) -> Result<Option<Brings>> {
        let mut all: Option<Vec<Cover>> = None;
        let mut room = Room::default();
        let end = loop {
            match self.next()? {
                Some(Item::Part { part: Part::Covers(covers), .. }) => {
                    if !room.take_all(&covers) {
                        return Ok(None);
                    }
                    all.get_or_insert_default().extend(covers);
                }
                Some(Item::Part { part, .. }) => break part,
                _ => return Ok(None),
            }
        };
        let Some(covers) = all else { return Ok(None) };
        if !matches!(end, Part::Refused(_)) {
            return Ok(Some(Brings { covers, repair: None }));
        }
        let repair = match self.next()? {
            Some(Item::Part { part: Part::Repair(repair), .. }) => Some(repair),
            Some(Item::Part { .. } | Item::Newer { .. }) => None,
            _ => return Ok(None),
        };
        let repair = repair.filter(|repair| repair.nodes.len() <= MAX_RECIPIENTS);
        Ok(Some(Brings { covers, repair }))
    }

    /// What a parcel brings of files, read from its beginning; none if it does not tell. To be called before the parts are
    /// read.
    pub fn contents(&mut self) -> Result<Option<Contents>> {
        let first = self.next()?;
        self.frames.rewind();
        Ok(match first {
            Some(Item::Part { part: Part::Contents(contents), .. }) => {
                Some(contents).filter(|contents| contents.shares.len() <= MAX_SHARES)
            }
            _ => None,
        })
    }

    /// Bytes read so far, and of how many.
    pub fn progress(&self) -> (u64, u64) {
        (self.frames.position(), self.frames.size_bytes())
    }

    /// The next part, or what stands in place of one; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        loop {
            let frame = match self.frames.next()? {
                Read1::End => return Ok(None),
                Read1::Hole { from, to } => {
                    let why = if to == self.frames.size_bytes() {
                        "the file is cut off or damaged"
                    } else {
                        "the bytes are damaged"
                    };
                    return Ok(Some(Item::Damaged { number: None, from, to, why }));
                }
                Read1::Frame(frame) => frame,
            };
            if frame.header.kind == KIND_HEAD && Head::of_frame(&frame).is_some() {
                continue;
            }
            return Ok(Some(self.item(*frame)));
        }
    }

    /// The next part, unread and unchecked; none at the end.
    pub(super) fn skim(&mut self) -> Result<Option<Skim>> {
        loop {
            return Ok(match self.frames.skim()? {
                Skimmed::Frame { header, .. } if header.kind == KIND_HEAD => continue,
                Skimmed::Frame { header: Header { number, length, .. }, at } => {
                    Some(Skim::Part { number, length, at })
                }
                Skimmed::Hole { from, to } => Some(Skim::Hole { from, to }),
                Skimmed::End => None,
            });
        }
    }

    /// A part that was skimmed, checked; none if it is not as it was signed, or cannot be read here.
    pub(super) fn part_at(&mut self, at: u64) -> Result<Option<Part>> {
        let item = self.frames.frame_at(at)?.map(|frame| self.item(frame));
        Ok(match item {
            Some(Item::Part { part, .. }) => Some(part),
            _ => None,
        })
    }

    fn item(&self, frame: Frame) -> Item {
        let Frame { header, at, part, signature } = frame;
        let (from, to) = (at, at + header.frame_bytes());
        let number = (header.kind != KIND_HEAD).then_some(header.number);
        let damaged = |why| Item::Damaged { number, from, to, why };
        let text = signed_text(&self.head_hash, header, &part);
        if header.kind == KIND_HEAD || self.head.creator.verify(&text, &signature).is_err() {
            return damaged("its bytes are not those that were signed");
        }
        let part = match (header.kind, &self.locker) {
            (KIND_PLAIN, _) => Some(part),
            (KIND_LOCKED, Some(locker)) => locker.unlock(header.number, part),
            (KIND_LOCKED, None) if self.is_locked() => {
                return Item::Locked { number: header.number };
            }
            _ => return damaged("it was made by a newer release, or it is locked"),
        };
        let Some(part) = part else { return damaged("it cannot be unlocked") };
        match codec::decode(&part) {
            Ok(part) => Item::Part { number: header.number, part },
            Err(_) if Part::is_newer(&part) => Item::Newer { number: header.number },
            Err(_) => damaged("it is signed, and still no part of a bundle"),
        }
    }
}
