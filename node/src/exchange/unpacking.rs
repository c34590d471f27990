//! Archives and compressed files, read from their start to their end: tar, plain or under gzip or zstd, and zip. Unpacks
//! nothing to the disk. Bounded in entries, in bytes and in how much larger the content may be than the file: what is
//! made to fill a disk or to keep a processor busy ends with a sentence.

use super::zip::Zip;
use super::{Bounded, Counted};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::rc::Rc;

/// Entries of one archive.
const MAX_ENTRIES: usize = 1_000_000;
/// Of all that an archive holds.
const MAX_BYTES: u64 = 64 << 30;
/// What an archive may hold, measured by its own size; texts get nowhere near.
const UNPACKED_TIMES: u64 = 400;
/// So much may come out of a small file too.
const UNPACKED_FREE: u64 = 64 << 20;
const TOO_MUCH: &str = "it unpacks to far more than a file of this size holds";
/// What stands between two files of an archive: long names among it.
const BETWEEN_BYTES: usize = 1 << 20;
/// Frames of zstd with a larger window take more memory than there is reason to.
const WINDOW_LOG_MAX: u32 = 27;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Gzip,
    Zstd,
    Zip,
}

/// A file's form by its first bytes, and the file from its start again.
fn sniffed(file: &Path) -> io::Result<(Form, File)> {
    let mut opened = File::open(file)?;
    let mut magic = Vec::new();
    (&mut opened).take(4).read_to_end(&mut magic)?;
    opened.rewind()?;
    let form = match magic[..] {
        [0x28, 0xb5, 0x2f, 0xfd] => Form::Zstd,
        [0x1f, 0x8b, ..] => Form::Gzip,
        // A zip without files has its end only.
        [b'P', b'K', 3 | 5, 4 | 6] => Form::Zip,
        _ => Form::Plain,
    };
    Ok((form, opened))
}

pub(crate) fn is_zip(file: &Path) -> bool {
    sniffed(file).is_ok_and(|(form, _)| form == Form::Zip)
}

/// What may come out of a file of this size.
pub(super) fn unpacked_max(size_bytes: u64) -> u64 {
    size_bytes.saturating_mul(UNPACKED_TIMES).clamp(UNPACKED_FREE, MAX_BYTES)
}

/// A stream of bytes, with how far the file under it is read.
pub(crate) struct Opened {
    pub reader: Box<dyn Read>,
    pub count: Rc<Cell<u64>>,
    pub size_bytes: u64,
}

/// A file as it stands, or what is under its gzip or zstd.
pub(crate) fn opened(file: &Path) -> io::Result<Opened> {
    let (form, opened) = sniffed(file)?;
    let size_bytes = opened.metadata()?.len();
    let counted = Counted::new(BufReader::with_capacity(64 << 10, opened));
    let count = counted.count();
    let limited = |inner: Box<dyn Read>| -> Box<dyn Read> {
        let left = Rc::new(Cell::new(unpacked_max(size_bytes) as usize));
        Box::new(Bounded { inner, left, message: TOO_MUCH })
    };
    let reader = match form {
        Form::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(counted)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            limited(Box::new(decoder))
        }
        Form::Gzip => limited(Box::new(flate2::read::MultiGzDecoder::new(counted))),
        Form::Plain | Form::Zip => Box::new(counted),
    };
    Ok(Opened { reader, count, size_bytes })
}

/// Whoever takes the files of an archive: a path, its bytes, and how far the archive is read of how much.
pub(crate) type Take<'a> =
    &'a mut dyn FnMut(&str, &mut dyn Read, &Rc<Cell<u64>>, u64) -> Result<()>;

pub(crate) enum Unpacking {
    Tar(Tar),
    Zip(Zip),
}

pub(crate) struct Tar {
    archive: tar::Archive<Bounded<Box<dyn Read>>>,
    /// Of the file, not of what is in it.
    count: Rc<Cell<u64>>,
    size_bytes: u64,
    left: Rc<Cell<usize>>,
}

impl Unpacking {
    /// # Errors
    /// `Malformed` for a file that cannot be read at all.
    pub fn open(file: &Path) -> Result<Self> {
        Self::try_open(file)
            .map_err(|error| Error::Malformed(format!("the archive cannot be read: {error}")))
    }

    fn try_open(file: &Path) -> io::Result<Self> {
        if is_zip(file) {
            return Zip::open(file).map(Self::Zip);
        }
        let Opened { reader, count, size_bytes } = opened(file)?;
        let left = Rc::new(Cell::new(BETWEEN_BYTES));
        let message = "a name in the archive is too long";
        let archive = tar::Archive::new(Bounded { inner: reader, left: left.clone(), message });
        Ok(Self::Tar(Tar { archive, count, size_bytes, left }))
    }

    /// Hands over every regular file. What ended the reading early, if anything did.
    ///
    /// # Errors
    /// Those of `take`; `Malformed` for what is no archive at all.
    pub fn each(&mut self, take: Take<'_>) -> Result<Option<String>> {
        match self {
            Self::Tar(tar) => tar.each(take),
            Self::Zip(zip) => zip.each(MAX_ENTRIES, take),
        }
    }
}

pub(super) fn too_many(max: usize) -> String {
    format!("it holds more than {max} files: what follows was not read")
}

/// A path within an archive as it is told: relative, with slashes, and without what leads nowhere.
pub(super) fn told(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path).replace('\\', "/");
    let parts: Vec<&str> =
        path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    parts.join("/")
}

impl Tar {
    fn each(&mut self, take: Take<'_>) -> Result<Option<String>> {
        let Self { archive, count, size_bytes, left } = self;
        let mut entries = match archive.entries() {
            Ok(entries) => entries,
            Err(error) => return Ok(Some(error.to_string())),
        };
        for number in 0..MAX_ENTRIES {
            let mut entry = match entries.next() {
                None if *size_bytes == 0 => return Err(no_archive()),
                None => return Ok(None),
                Some(Ok(entry)) => entry,
                // What was made to be too long is told as such.
                Some(Err(error)) if number == 0 && error.kind() != io::ErrorKind::InvalidData => {
                    return Err(no_archive());
                }
                Some(Err(error)) => return Ok(Some(error.to_string())),
            };
            let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
            left.set(size.saturating_add(BETWEEN_BYTES));
            if entry.header().entry_type().is_file() {
                let path = told(&entry.path_bytes());
                take(&path, &mut entry, count, *size_bytes)?;
            }
        }
        Ok(Some(too_many(MAX_ENTRIES)))
    }
}

fn no_archive() -> Error {
    let message = "the file is no archive: takes zip, or tar, plain or under gzip or zstd";
    Error::Malformed(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(bytes: &[u8]) -> (Vec<(String, usize)>, Option<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut found = Vec::new();
        let ended = Unpacking::open(file.path()).unwrap().each(&mut |path, content, _, _| {
            let size = io::copy(content, &mut io::sink());
            found.push((path.to_owned(), size.map_or(0, |size| size as usize)));
            Ok(())
        });
        (found, ended.unwrap())
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_tar_is_read_plain_and_compressed() {
        let plain = tar_of(&[("./a/b.md", b"one"), ("c.md", b"three")]);
        let wanted = vec![("a/b.md".to_owned(), 3), ("c.md".to_owned(), 5)];
        let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
        for bytes in [&plain, &gzip(&plain), &zstd] {
            assert_eq!(names(bytes), (wanted.clone(), None));
        }
    }

    #[test]
    fn a_bomb_is_not_read_to_its_end() {
        let bomb = gzip(&tar_of(&[("a", &vec![0; 80 << 20]), ("b", b"x")]));
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let (found, ended) = names(&bomb);
        assert_eq!(found.len(), 1);
        assert!(ended.is_some_and(|why| why.contains("unpacks")));
    }

    #[test]
    fn what_is_cut_off_says_so() {
        let bytes = gzip(&tar_of(&[("a", b"one"), ("b", &[7; 9_000])]));
        let (_, ended) = names(&bytes[..bytes.len() - 12]);
        assert!(ended.is_some());
    }

    #[test]
    fn what_is_no_archive_is_refused_with_what_is_expected() {
        for bytes in [&b""[..], b"# A page\n", &[7; 5_000], &gzip(b"# A page")] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            let mut unpacking = Unpacking::open(file.path()).unwrap();
            let refused = unpacking.each(&mut |_, _, _, _| Ok(())).unwrap_err();
            assert!(refused.to_string().contains("zip, or tar"), "{refused}");
        }
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        assert_eq!(told(b"../../etc/x"), "etc/x");
        assert_eq!(told(b"./a\\b//c"), "a/b/c");
    }
}
