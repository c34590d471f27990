//! Files of a backup: hashed as they are copied, private, on disk when written.

use super::manifest::Entry;
use super::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// A file that is there.
pub(super) fn entry(folder: &Path, name: &str) -> Result<Entry> {
    let path = folder.join(name);
    let failed = |error| Error::Unsound(Error::io("read", &path, error).to_string());
    let mut file = File::open(&path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let size_bytes = std::io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(Entry { path: name.to_owned(), size_bytes, blake3: hasher.finalize().to_hex().to_string() })
}

pub(super) fn copy(from: &Path, to: &Path, name: &str) -> Result<Entry> {
    let mut file = File::open(from).map_err(|error| Error::io("read", from, error))?;
    copy_from(&mut file, to, name)
}

/// Hashes what it copies, so that the manifest says what was written.
pub(super) fn copy_from(from: &mut File, folder: &Path, name: &str) -> Result<Entry> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::io("make", parent, error))?;
    }
    let mut hashed = Hashed { from, hasher: blake3::Hasher::new(), bytes: 0 };
    write_new(&path, &mut hashed).map_err(|error| Error::io("write", &path, error))?;
    let blake3 = hashed.hasher.finalize().to_hex().to_string();
    Ok(Entry { path: name.to_owned(), size_bytes: hashed.bytes, blake3 })
}

struct Hashed<'a> {
    from: &'a mut File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Mode 0600, on disk when it returns.
pub(super) fn write_new(path: &Path, from: &mut impl Read) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    std::io::copy(from, &mut file)?;
    file.flush()?;
    file.sync_all()
}

pub(super) fn make_private(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::io("protect", path, error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// A new folder that only its owner can read.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    crate::draft::make_folder(path).map_err(|error| Error::io("make", path, error))
}
