//! Zip archives, read by their directory, one entry in memory at a time. Takes what is stored or deflated, with sizes of
//! 64 bits, and checks each file's sum. Believes nothing that the file says of itself without a bound.

use super::Bounded;
use super::unpacking::{Take, told, too_many, unpacked_max};
use crate::error::Result;
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_PLACE: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
const END_BYTES: u64 = 22;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const IS_ENCRYPTED: u16 = 1;
/// What stands for a number that is in the part of 64 bits.
const ELSEWHERE: u64 = 0xffff_ffff;
/// The file's kind in the rights of Unix.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;

pub(crate) struct Zip {
    /// Stands in the directory.
    directory: BufReader<File>,
    files: File,
    entries: u64,
    size_bytes: u64,
    /// What may still come out of all entries.
    left: Rc<Cell<usize>>,
}

struct Entry {
    path: String,
    method: u16,
    is_encrypted: bool,
    is_file: bool,
    crc: u32,
    packed_bytes: u64,
    size_bytes: u64,
    /// Of its local head.
    at: u64,
}

fn broken(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Numbers with their least byte first.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

impl Zip {
    pub fn open(file: &Path) -> io::Result<Self> {
        let mut files = File::open(file)?;
        let size_bytes = files.metadata()?.len();
        let (at, entries) = directory(&mut files, size_bytes)?;
        let mut directory = BufReader::new(File::open(file)?);
        directory.seek(SeekFrom::Start(at))?;
        let left = Rc::new(Cell::new(unpacked_max(size_bytes) as usize));
        Ok(Self { directory, files, entries, size_bytes, left })
    }

    pub(super) fn each(&mut self, max: usize, take: Take<'_>) -> Result<Option<String>> {
        let count = Rc::new(Cell::new(0));
        for seen in 0..self.entries {
            if seen as usize == max {
                return Ok(Some(too_many(max)));
            }
            let entry = match entry(&mut self.directory) {
                Ok(entry) => entry,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if !entry.is_file {
                continue;
            }
            let mut content: Box<dyn Read> = match self.content(&entry, &count) {
                Ok(content) => Box::new(content),
                Err(error) => Box::new(Failing(Some(error))),
            };
            take(&entry.path, &mut content, &count, self.size_bytes)?;
            if self.left.get() == 0 {
                return Ok(Some(
                    "it unpacks to far more than a file of this size holds".to_owned(),
                ));
            }
        }
        Ok(None)
    }

    fn content(&self, entry: &Entry, count: &Rc<Cell<u64>>) -> io::Result<Checked> {
        if entry.is_encrypted {
            return Err(broken("it is encrypted"));
        }
        let mut file = self.files.try_clone()?;
        file.seek(SeekFrom::Start(entry.at))?;
        let mut head = [0; 30];
        file.read_exact(&mut head)?;
        if !head.starts_with(LOCAL) {
            return Err(broken("it does not stand where the directory says"));
        }
        let skipped = number(&head, 26, 2) + number(&head, 28, 2);
        file.seek(SeekFrom::Current(skipped as i64))?;
        let packed =
            Told { inner: file.take(entry.packed_bytes), count: count.clone(), at: entry.at };
        let packed = BufReader::with_capacity(64 << 10, packed);
        let inner: Box<dyn Read> = match entry.method {
            STORED => Box::new(packed),
            DEFLATED => Box::new(DeflateDecoder::new(packed)),
            other => {
                return Err(broken(&format!("it is packed by method {other}, which is not read")));
            }
        };
        let message = "the archive unpacks to far more than a file of its size holds";
        let inner = Bounded { inner, left: self.left.clone(), message };
        Ok(Checked { inner, sum: Crc::new(), crc: entry.crc, left_bytes: entry.size_bytes })
    }
}

/// Where the directory begins, and how many entries it has.
fn directory(file: &mut File, size_bytes: u64) -> io::Result<(u64, u64)> {
    let none = || broken("it has no directory at its end");
    let tail_bytes = size_bytes.min(END_BYTES + u64::from(u16::MAX));
    file.seek(SeekFrom::Start(size_bytes - tail_bytes))?;
    let mut tail = vec![0; tail_bytes as usize];
    file.read_exact(&mut tail)?;
    let last = tail.len().checked_sub(END_BYTES as usize).ok_or_else(none)?;
    let end = (0..=last).rev().find(|at| tail[*at..].starts_with(END)).ok_or_else(none)?;
    let (entries, at) = (number(&tail, end + 10, 2), number(&tail, end + 16, 4));
    if entries != 0xffff && at != ELSEWHERE {
        return Ok((at, entries));
    }
    let place = end.checked_sub(20).filter(|at| tail[*at..].starts_with(END_64_PLACE));
    let Some(place) = place else { return Ok((at, entries)) };
    file.seek(SeekFrom::Start(number(&tail, place + 8, 8)))?;
    let mut long = [0; 56];
    file.read_exact(&mut long)?;
    if long.starts_with(END_64) {
        Ok((number(&long, 48, 8), number(&long, 32, 8)))
    } else {
        Err(none())
    }
}

fn entry(directory: &mut impl Read) -> io::Result<Entry> {
    let mut head = [0; 46];
    directory.read_exact(&mut head)?;
    if !head.starts_with(ENTRY) {
        return Err(broken("its directory is damaged"));
    }
    let length = |at: usize| number(&head, at, 2) as usize;
    let (name, extra, comment) = (length(28), length(30), length(32));
    let mut rest = vec![0; name + extra + comment];
    directory.read_exact(&mut rest)?;
    let mut numbers = [number(&head, 24, 4), number(&head, 20, 4), number(&head, 42, 4)];
    widen(&mut numbers, &rest[name..name + extra]);
    let [size_bytes, packed_bytes, at] = numbers;
    let rights = (number(&head, 38, 4) >> 16) as u32;
    let is_folder = rest[..name].ends_with(b"/") || rest[..name].ends_with(b"\\");
    Ok(Entry {
        path: told(&rest[..name]),
        method: number(&head, 10, 2) as u16,
        is_encrypted: number(&head, 8, 2) as u16 & IS_ENCRYPTED != 0,
        is_file: !is_folder && rights & KIND != LINK,
        crc: number(&head, 16, 4) as u32,
        packed_bytes,
        size_bytes,
        at,
    })
}

/// Puts the numbers of 64 bits in the place of those that say that they stand there.
fn widen(numbers: &mut [u64], mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (id, length) = (number(extra, 0, 2), number(extra, 2, 2) as usize);
        let field = extra.get(4..4 + length).unwrap_or_default();
        if id == 1 {
            let mut wide = field.chunks_exact(8);
            for wanted in numbers.iter_mut().filter(|number| **number == ELSEWHERE) {
                let Some(bytes) = wide.next() else { break };
                *wanted = number(bytes, 0, 8);
            }
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
}

/// Tells how far in the archive it is read.
struct Told<R> {
    inner: R,
    count: Rc<Cell<u64>>,
    at: u64,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.at += read as u64;
        self.count.set(self.count.get().max(self.at));
        Ok(read)
    }
}

/// Ends with an error if the bytes are not those that the directory tells of.
struct Checked {
    inner: Bounded<Box<dyn Read>>,
    sum: Crc,
    crc: u32,
    left_bytes: u64,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        match self.left_bytes.checked_sub(read as u64) {
            Some(left) => self.left_bytes = left,
            None => return Err(broken("it is longer than the archive says")),
        }
        let is_end = read == 0 && !buffer.is_empty();
        if is_end && (self.left_bytes > 0 || self.sum.sum() != self.crc) {
            return Err(broken("it is damaged: its checksum is another"));
        }
        Ok(read)
    }
}

/// A file that cannot be read: whoever wants it hears why, and nobody else.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| broken("it cannot be read")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn little(number: usize, length: usize) -> Vec<u8> {
        number.to_le_bytes()[..length].to_vec()
    }

    /// A zip with one file, and what its directory says changed.
    fn zip_of(name: &str, text: &[u8], method: u16, turn: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut packed = text.to_vec();
        if method == DEFLATED {
            let mut encoder =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(text).unwrap();
            packed = encoder.finish().unwrap();
        }
        let mut sum = Crc::new();
        sum.update(text);
        let told = [
            little(usize::from(method), 2),
            vec![0; 4],
            little(sum.sum() as usize, 4),
            little(packed.len(), 4),
            little(text.len(), 4),
            little(name.len(), 2),
            vec![0; 2],
        ]
        .concat();
        let local = [LOCAL, &[20, 0, 0, 0], &told[..], name.as_bytes(), &packed[..]].concat();
        let mut entry =
            [ENTRY, &[20, 0, 20, 0, 0, 0], &told[..], &[0; 14], name.as_bytes()].concat();
        turn(&mut entry);
        let end = [
            END,
            &[0; 4],
            &little(1, 2),
            &little(1, 2),
            &little(entry.len(), 4),
            &little(local.len(), 4),
            &[0; 2],
        ]
        .concat();
        [local, entry, end].concat()
    }

    fn read(bytes: &[u8]) -> Vec<Result<String, String>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut found = Vec::new();
        let Ok(mut zip) = Zip::open(file.path()) else { return found };
        let ended = zip.each(10, &mut |_, content, _, _| {
            found.push(io::read_to_string(content).map_err(|error| error.to_string()));
            Ok(())
        });
        ended.unwrap().into_iter().for_each(|why| found.push(Err(why)));
        found
    }

    #[test]
    fn what_is_stored_or_deflated_is_read() {
        for method in [STORED, DEFLATED] {
            let zip = zip_of("a/b.md", b"some text", method, |_| {});
            assert_eq!(read(&zip), [Ok("some text".to_owned())]);
        }
        assert_eq!(read(&zip_of("folder/", b"", STORED, |_| {})), []);
    }

    #[test]
    fn what_is_damaged_is_told_of_the_file_it_is_in() {
        for (at, byte) in [(8, 1), (10, 9), (16, 0xff), (24, 1), (24, 200), (42, 3)] {
            let zip = zip_of("a.md", b"some text", STORED, |entry| entry[at] = byte);
            let found = read(&zip);
            assert!(matches!(&found[..], [Err(_)]), "byte {at}: {found:?}");
        }
        let whole = zip_of("a.md", b"some text", DEFLATED, |_| {});
        for length in 0..whole.len() {
            read(&whole[..length]);
        }
        for at in 0..whole.len() {
            let mut odd = whole.clone();
            odd[at] ^= 0xff;
            read(&odd);
        }
    }

    #[test]
    fn a_bomb_is_not_read_to_its_end() {
        let zip = zip_of("a.md", &vec![0; 70 << 20], DEFLATED, |_| {});
        assert!(zip.len() < 100_000, "{}", zip.len());
        let found = read(&zip);
        assert!(found.iter().all(Result::is_err), "it was read");
    }

    #[test]
    fn sizes_of_64_bits_are_read() {
        let mut numbers = [ELSEWHERE, 7, ELSEWHERE];
        let extra = [&[1, 0, 16, 0][..], &5_u64.to_le_bytes(), &6_u64.to_le_bytes()].concat();
        widen(&mut numbers, &extra);
        assert_eq!(numbers, [5, 7, 6]);
    }
}
