//! The data folder: made private, held by one process at a time, with the places of what is in it.
//! Never touches a folder that another process holds.

use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// What the node in the folder is called if nobody says otherwise. Goes along in backups.
pub(crate) const NAME: &str = "name";
/// Stands in what a restore makes until that is a node.
pub(crate) const UNFINISHED: &str = "unfinished";
/// More than any name takes.
const MAX_NAME_BYTES: u64 = 1 << 10;

/// The name that a data folder keeps, whoever holds it; none if it keeps none, or is not there.
pub fn kept_name(data: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(data.join(NAME)) {
        Ok(file) => file.take(MAX_NAME_BYTES).read_to_string(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty()))
}

/// Holds the folder until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there (mode 0700), and takes its lock.
    ///
    /// # Errors
    /// `Store(Locked)` if another process holds it; `Conflict` for what a restore left that was cut off.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: &std::io::Error| {
            Error::Internal(format!("cannot {what} the data folder {}: {error}", path.display()))
        };
        make_private(path).map_err(|error| failed("make", &error))?;
        let path = path.canonicalize().map_err(|error| failed("find", &error))?;
        if path.join(UNFINISHED).exists() {
            let advice = "run `atoll restore` again, which clears it away";
            let told = format!("a restore into {} was cut off: {advice}", path.display());
            return Err(Error::conflict("unfinished_restore", told));
        }
        let file = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file)
            .map_err(|error| failed("write to", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let locked = atoll_storage::Error::Locked(path.display().to_string());
                return Err(Error::Store(locked));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        // For people who look; nothing reads it.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a name for the node. In one step: nobody reads half of it.
    pub fn keep_name(&self, name: &str) -> io::Result<()> {
        let draft = self.path.join("name.new");
        let mut file = File::create(&draft)?;
        writeln!(file, "{name}")?;
        file.sync_all()?;
        fs::rename(&draft, self.path.join(NAME))
    }

    pub fn key(&self) -> PathBuf {
        self.path.join("node.key")
    }

    pub fn search(&self) -> PathBuf {
        self.path.join("search")
    }

    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Files on their way in and out: what is imported, its reports, exports.
    pub fn exchange(&self) -> PathBuf {
        self.path.join("exchange")
    }

    /// Moves what is damaged out of the way, to be looked at or thrown away: `search` to `search.damaged-2`.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf> {
        let from = self.path.join(name);
        let free = (1..100).map(|number| self.path.join(format!("{name}.damaged-{number}")));
        let to = free.into_iter().find(|path| !path.exists()).ok_or_else(|| {
            Error::Internal(format!(
                "there are too many damaged copies of {}: remove them",
                from.display()
            ))
        })?;
        match fs::rename(&from, &to) {
            Ok(()) => Ok(to),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(to),
            Err(error) => {
                Err(Error::Internal(format!("cannot move {} away: {error}", from.display())))
            }
        }
    }
}

/// The folder and what leads to it; only the folder itself is made private.
fn make_private(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    crate::draft::make_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_belongs_to_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let refused = Folder::open(&path).unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("a/b"), "{refused}");
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn what_is_damaged_is_moved_away_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        for number in 1..3 {
            fs::create_dir(folder.search()).unwrap();
            let moved = folder.set_aside("search").unwrap();
            assert!(moved.ends_with(format!("search.damaged-{number}")) && moved.is_dir());
        }
    }
}
