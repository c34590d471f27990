//! Room that a data folder holds for its own start. A node that was killed while its disk was full must make a few files,
//! and the database's write-ahead log grows a little, before it can serve what it has. Nothing is ever read from it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The index of a long write-ahead log takes some 200 KiB, all else that a start writes less.
const SIZE: u64 = 2 << 20;
/// Left free when room is short: for what a start writes once the node is open.
const SPARE: u64 = 256 << 10;

fn file(folder: &Path) -> PathBuf {
    folder.join("reserve")
}

fn size(folder: &Path) -> u64 {
    fs::metadata(file(folder)).map_or(0, |found| found.len())
}

/// Before a node opens: gives the room up if there is little other.
pub(super) fn give_up(folder: &Path) {
    if fs4::available_space(folder).is_ok_and(|free| free < SIZE) {
        let _ = fs::remove_file(file(folder));
    }
}

/// Whether there is other room than a start needs, for work that can wait. It would take some of that at each start, until
/// nothing is left.
pub(super) fn is_beyond(folder: &Path) -> bool {
    fs4::available_space(folder).map_or(true, |free| free > 2 * SPARE)
}

/// Takes the room, or as much of it as there is; if it has been taken, nothing.
///
/// # Errors
/// What the file system says; what could be taken stays taken.
pub(super) fn take(folder: &Path) -> io::Result<()> {
    let has = size(folder);
    if has >= SIZE {
        return Ok(());
    }
    let free = fs4::available_space(folder)?;
    let wanted = SIZE.min((has + free).saturating_sub(SPARE));
    if wanted <= has {
        return Ok(());
    }
    // No file system stores these in less.
    let mut bytes = vec![0; wanted as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    File::create(file(folder))?.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_taken_once_and_kept_while_there_is_other() {
        let folder = tempfile::tempdir().unwrap();
        take(folder.path()).unwrap();
        assert_eq!(size(folder.path()), SIZE);
        give_up(folder.path());
        assert_eq!(size(folder.path()), SIZE, "this disk is not full");
        fs::write(file(folder.path()), "less").unwrap();
        take(folder.path()).unwrap();
        assert_eq!(size(folder.path()), SIZE);
    }
}
