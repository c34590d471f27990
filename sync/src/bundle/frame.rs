//! Parts as bytes in a volume: a header that can be found again after damage, the part, a signature. Knows where parts
//! begin and end, never what is in them.

use super::Result;
use crate::key::SIGNATURE_BYTES;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

/// A part is at most this long. What a link takes in one message fits.
pub const MAX_PART_BYTES: usize = 16 << 20;
pub const HEADER_BYTES: usize = 28;
/// Not text, and not what a transfer as text leaves alone.
const MARKER: [u8; 8] = *b"\x93ATOLL\r\n";
const CHECK_BYTES: usize = 8;
const WINDOW_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    /// From 0, over all volumes of the bundle.
    pub number: u32,
    /// Of the part, without header and signature.
    pub length: u32,
}

pub const KIND_HEAD: u8 = 0;
pub const KIND_PLAIN: u8 = 1;
pub const KIND_LOCKED: u8 = 2;

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MARKER);
        bytes[8] = self.kind;
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        let check = blake3::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        if bytes[..8] != MARKER {
            return None;
        }
        let check = blake3::hash(&bytes[..20]);
        if bytes[20..] != check.as_bytes()[..CHECK_BYTES] {
            return None;
        }
        let number = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let header = Self { kind: bytes[8], number: number(12)?, length: number(16)? };
        (header.length as usize <= MAX_PART_BYTES).then_some(header)
    }

    /// Of the whole frame.
    pub fn frame_bytes(self) -> u64 {
        (HEADER_BYTES + self.length as usize + SIGNATURE_BYTES) as u64
    }
}

pub fn write(
    file: &mut impl Write,
    header: Header,
    part: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> io::Result<()> {
    file.write_all(&header.to_bytes())?;
    file.write_all(part)?;
    file.write_all(signature)
}

pub struct Frame {
    pub header: Header,
    pub at: u64,
    pub part: Vec<u8>,
    pub signature: [u8; SIGNATURE_BYTES],
}

pub enum Read1 {
    Frame(Box<Frame>),
    /// Nothing that can be read stands between these offsets.
    Hole {
        from: u64,
        to: u64,
    },
    End,
}

/// A frame of which only the header was read, or what stands in its place.
pub enum Skimmed {
    Frame { header: Header, at: u64 },
    Hole { from: u64, to: u64 },
    End,
}

/// Reads the frames of a file one after the other, over what is damaged. Whatever stands in it, each byte is read about once.
pub struct Frames<R> {
    file: R,
    /// Where the file itself stands, if that is known: to seek from elsewhere empties its buffer.
    stands: Option<u64>,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Frames<R> {
    pub fn new(mut file: R) -> io::Result<Self> {
        let end = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, stands: None, at: 0, end })
    }

    pub fn rewind(&mut self) {
        self.at = 0;
    }

    pub fn position(&self) -> u64 {
        self.at
    }

    pub fn size_bytes(&self) -> u64 {
        self.end
    }

    pub fn next(&mut self) -> Result<Read1> {
        if self.at >= self.end {
            return Ok(Read1::End);
        }
        let at = self.at;
        if let Some(frame) = self.frame_at(at)? {
            self.at = at + frame.header.frame_bytes();
            return Ok(Read1::Frame(Box::new(frame)));
        }
        self.at = self.find_frame(at + 1)?.unwrap_or(self.end);
        Ok(Read1::Hole { from: at, to: self.at })
    }

    /// As [`Frames::next`], past what is in the frame.
    pub fn skim(&mut self) -> Result<Skimmed> {
        if self.at >= self.end {
            return Ok(Skimmed::End);
        }
        let at = self.at;
        let header = self.header_at(at)?.filter(|header| at + header.frame_bytes() <= self.end);
        if let Some(header) = header {
            self.at = at + header.frame_bytes();
            return Ok(Skimmed::Frame { header, at });
        }
        self.at = self.find_frame(at + 1)?.unwrap_or(self.end);
        Ok(Skimmed::Hole { from: at, to: self.at })
    }

    fn seek(&mut self, at: u64) -> io::Result<()> {
        match self.stands {
            Some(stands) => self.file.seek_relative(at.cast_signed() - stands.cast_signed())?,
            None => drop(self.file.seek(SeekFrom::Start(at))?),
        }
        self.stands = Some(at);
        Ok(())
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        let stands = self.stands.take();
        self.file.read_exact(into)?;
        self.stands = stands.map(|at| at + into.len() as u64);
        Ok(())
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        self.seek(at)?;
        match self.read(&mut bytes) {
            Ok(()) => Ok(Header::from_bytes(&bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// None if there is none, or if the file ends in the middle of it.
    pub fn frame_at(&mut self, at: u64) -> io::Result<Option<Frame>> {
        let Some(header) = self.header_at(at)? else { return Ok(None) };
        if at + header.frame_bytes() > self.end {
            return Ok(None);
        }
        let mut part = vec![0; header.length as usize];
        let mut signature = [0; SIGNATURE_BYTES];
        self.read(&mut part)?;
        self.read(&mut signature)?;
        Ok(Some(Frame { header, at, part, signature }))
    }

    /// Where a frame begins that ends within the file.
    fn find_frame(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        let mut window = Vec::with_capacity(WINDOW_BYTES);
        while at + HEADER_BYTES as u64 <= self.end {
            self.seek(at)?;
            self.stands = None;
            window.clear();
            (&mut self.file).take(WINDOW_BYTES as u64).read_to_end(&mut window)?;
            let ends_within = |place: &usize| {
                let header = window[*place..].first_chunk().and_then(Header::from_bytes);
                let begin = at + *place as u64;
                header.is_some_and(|header| begin + header.frame_bytes() <= self.end)
            };
            let places = 0..(window.len() + 1).saturating_sub(HEADER_BYTES);
            if let Some(found) = places.clone().find(ends_within) {
                return Ok(Some(at + found as u64));
            }
            // The file became shorter meanwhile.
            if places.is_empty() {
                break;
            }
            at += places.len() as u64;
        }
        Ok(None)
    }
}
