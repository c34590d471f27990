//! What is made beside its place and put there whole: a file or a folder. Nothing half-made ever stands in the place itself.
//! A lock tells what another process is making from what a killed one left; that goes with the next attempt.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A process that puts its own in place takes the name away, a few times at the most.
const ATTEMPTS: usize = 8;

/// Goes when it is dropped, unless it was put in its place.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    to: PathBuf,
    /// Holds the lock. None of a folder on systems that open none.
    _held: Option<File>,
    is_placed: bool,
}

impl Draft {
    /// A folder that only its owner can read, empty, beside `to`: `to.SUFFIX`.
    ///
    /// # Errors
    /// `ResourceBusy` while another process makes one there; `AlreadyExists` if whether one does cannot be told.
    pub fn folder(to: &Path, suffix: &str) -> io::Result<Self> {
        let path = beside(to, suffix)?;
        let open = |path: &Path| {
            let is_new = match make_folder(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                made => made.map(|()| true)?,
            };
            let held = if cfg!(unix) { Some(File::open(path)?) } else { None };
            Ok((is_new, held))
        };
        let (is_new, held) = held(&path, open)?;
        let draft = Self { path, to: to.to_owned(), _held: held, is_placed: false };
        if !is_new {
            clear(&draft.path)?;
        }
        Ok(draft)
    }

    /// A file that only its owner can read, empty, beside `to`, and what writes it.
    ///
    /// # Errors
    /// As of [`Draft::folder`].
    pub fn file(to: &Path, suffix: &str) -> io::Result<(Self, File)> {
        let path = beside(to, suffix)?;
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.clone().create_new(true).open(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    Ok((false, Some(options.open(path)?)))
                }
                made => Ok((true, Some(made?))),
            }
        };
        let (_, held) = held(&path, open)?;
        let Some(file) = &held else { return Err(busy()) };
        let file = file.try_clone()?;
        file.set_len(0)?;
        Ok((Self { path, to: to.to_owned(), _held: held, is_placed: false }, file))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In one step. A file takes the place of one that is there, a folder that of an empty one.
    pub fn place(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.to)?;
        self.is_placed = true;
        if cfg!(unix)
            && let Some(parent) = self.to.parent()
        {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = if self.path.is_dir() {
                fs::remove_dir_all(&self.path)
            } else {
                fs::remove_file(&self.path)
            };
        }
    }
}

/// What `open` opens or makes, whether it is new, once this process holds it and it still stands there.
fn held(
    path: &Path,
    open: impl Fn(&Path) -> io::Result<(bool, Option<File>)>,
) -> io::Result<(bool, Option<File>)> {
    for _ in 0..ATTEMPTS {
        let (is_new, file) = match open(path) {
            // Put in its place by another process just now.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && path.parent().is_some_and(Path::exists) =>
            {
                continue;
            }
            opened => opened?,
        };
        let Some(file) = file else {
            return if is_new { Ok((true, None)) } else { Err(untold(path)) };
        };
        match file.try_lock() {
            Ok(()) if is_same(path, &file)? => return Ok((is_new, Some(file))),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            // Not every file system has locks.
            Err(TryLockError::Error(_)) if is_new => return Ok((true, Some(file))),
            Err(TryLockError::Error(_)) => return Err(untold(path)),
        }
    }
    Err(busy())
}

/// Whether this is what stands there, and was not put elsewhere meanwhile.
fn is_same(path: &Path, file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let own = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (path, file);
        Ok(true)
    }
}

fn busy() -> io::Error {
    io::Error::new(ErrorKind::ResourceBusy, "another process is making it: wait until it is done")
}

fn untold(path: &Path) -> io::Error {
    let told = format!(
        "{} is there, half-made: remove it if no other process is at work on it",
        path.display()
    );
    io::Error::new(ErrorKind::AlreadyExists, told)
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let unnamed = || io::Error::new(ErrorKind::InvalidInput, "the path names nothing");
    let mut name = path.file_name().ok_or_else(unnamed)?.to_owned();
    name.push(format!(".{suffix}"));
    Ok(path.with_file_name(name))
}

/// A new folder that only its owner can read, with what leads to it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_goes_and_what_is_held_stays() {
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("all");
        fs::create_dir_all(parent.path().join("all.half/deep")).unwrap();
        fs::write(parent.path().join("all.half/file"), "x").unwrap();
        let draft = Draft::folder(&to, "half").unwrap();
        assert_eq!(fs::read_dir(draft.path()).unwrap().count(), 0);
        fs::write(draft.path().join("new"), "y").unwrap();
        assert_eq!(Draft::folder(&to, "half").unwrap_err().kind(), ErrorKind::ResourceBusy);
        draft.place().unwrap();
        assert_eq!(fs::read(to.join("new")).unwrap(), b"y");
        // One that is not put in its place goes.
        drop(Draft::folder(&to, "half").unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        // A folder that holds something keeps its place.
        assert!(Draft::folder(&to, "half").unwrap().place().is_err());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_takes_the_place_of_the_one_before_it_when_it_is_whole() {
        use std::io::Write;
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("all");
        fs::write(&to, "before").unwrap();
        fs::write(parent.path().join("all.half"), "left by somebody, and long").unwrap();
        let (draft, mut file) = Draft::file(&to, "half").unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(Draft::file(&to, "half").unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(fs::read(&to).unwrap(), b"before");
        draft.place().unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"after");
        drop(Draft::file(&to, "half").unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
