//! A plain folder as a bucket: a NAS, a disk that goes from place to place, a folder that something else keeps in sync. An
//! object is written beside its place, synced, and renamed: it is there whole, or not.

use super::place::Place;
use super::trouble::{Obstacle, Result, Trouble, is_full};
use atoll_storage::NodeId;
use atoll_sync::bucket::{Listed, MAX_OBJECTS};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write};
use std::path::{Path, PathBuf};

/// Tells the folder from the empty one that stands there while its disk is not mounted.
const MARK: &str = ".atoll-bucket";
const UNFINISHED: &str = ".part";

pub struct Folder(PathBuf);

impl Folder {
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn none(&self) -> Trouble {
        let message = format!("there is no folder {}", self.0.display());
        Trouble::new(Obstacle::NoBucket, message)
    }

    fn failed(&self, what: &str, error: &io::Error) -> Trouble {
        let obstacle = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Obstacle::Denied,
            ErrorKind::NotFound => Obstacle::NoBucket,
            _ if is_full(error) => Obstacle::FullThere,
            // A share whose server is gone.
            _ => Obstacle::Offline,
        };
        Trouble::new(obstacle, format!("cannot {what} the folder {}: {error}", self.0.display()))
    }

    fn list_in(&self, path: &Path, head: &str, all: &mut Vec<Listed>) -> Result<()> {
        let failed = |error: io::Error| self.failed("read", &error);
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let found = match entry.metadata() {
                Ok(found) => found,
                // Removed meanwhile by who wrote it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let name = format!("{head}{name}");
            if found.is_dir() && head.is_empty() {
                self.list_in(&entry.path(), &format!("{name}/"), all)?;
            } else if found.is_file() {
                all.push(Listed { name, size_bytes: found.len() });
            }
            if all.len() > MAX_OBJECTS {
                return Err(too_many());
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(name);
        let folder = path.parent().unwrap_or(&self.0);
        if !folder.is_dir() {
            fs::create_dir(folder)?;
            sync_folder(&self.0)?;
        }
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = folder.join(format!(".{file_name}{UNFINISHED}"));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&unfinished, &path)) {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        sync_folder(folder)
    }
}

impl Place for Folder {
    /// Marks it as a bucket, if it is there.
    fn begin(&self) -> Result<()> {
        let mark = self.0.join(MARK);
        if !self.0.is_dir() {
            return Err(self.none());
        }
        let file = OpenOptions::new().create(true).append(true).open(mark);
        file.and_then(|file| file.sync_all()).map_err(|error| self.failed("write to", &error))
    }

    fn list(&self) -> Result<Vec<Listed>> {
        if !self.0.is_dir() {
            return Err(self.none());
        }
        if !self.0.join(MARK).exists() {
            let message = format!(
                "the folder {} is there and is no bucket: its disk is not mounted, or the file {MARK} was removed",
                self.0.display()
            );
            return Err(Trouble::new(Obstacle::NoBucket, message));
        }
        let mut all = Vec::new();
        self.list_in(&self.0, "", &mut all)?;
        Ok(all)
    }

    fn get(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<bool> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.failed("read from", &error)),
        };
        let mut left = file.take(most);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = left.read(&mut buffer).map_err(|error| self.failed("read from", &error))?;
            if read == 0 {
                return Ok(true);
            }
            to.write_all(&buffer[..read]).map_err(|error| Trouble::here(&error))?;
        }
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.write(name, &bytes).map_err(|error| self.failed("write to", &error))
    }

    fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.failed("write to", &error))
            }
            _ => Ok(()),
        }
    }

    fn clear(&self, me: NodeId) -> Result<()> {
        let folder = self.0.join(me.to_string());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("read", &error)),
        };
        for entry in entries.filter_map(|entry| entry.ok()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(|error| self.failed("write to", &error))?;
            }
        }
        Ok(())
    }
}

pub fn too_many() -> Trouble {
    let message = format!("there are more than {MAX_OBJECTS} objects below the prefix");
    Trouble::new(Obstacle::TooMany, message)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        // Some shares know no such thing.
        match File::open(folder)?.sync_all() {
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        // As when the disk is not mounted.
        assert_eq!(folder.list().unwrap_err().obstacle, Obstacle::NoBucket);
        folder.begin().unwrap();
        let me = NodeId([7; 16]);
        let name = format!("{me}/a.atoll");
        folder.put(&name, b"tide".to_vec()).unwrap();
        folder.put("notes.txt", b"x".to_vec()).unwrap();
        // What a killed writer leaves is no object, and goes.
        let cut = place.path().join(format!("{me}/.b.atoll.part"));
        fs::write(&cut, b"ti").unwrap();
        let mut listed = folder.list().unwrap();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, [name.as_str(), "notes.txt"]);
        folder.clear(me).unwrap();
        assert!(!cut.exists());
        let mut bytes = Vec::new();
        assert!(folder.get(&name, 3, &mut bytes).unwrap());
        assert_eq!(bytes, b"tid");
        folder.remove(&name).unwrap();
        folder.remove(&name).unwrap();
        assert!(!folder.get(&name, 3, &mut bytes).unwrap());
        let gone = Folder::at(&place.path().join("gone"));
        assert_eq!(gone.begin().unwrap_err().obstacle, Obstacle::NoBucket);
    }
}
