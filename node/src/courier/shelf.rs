//! Volumes as files: written beside their place and put there whole, found again in folders. Never writes over a file.

use crate::error::{Error, Result};
use atoll_sync::bundle::Volumes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

/// How a volume's name ends.
pub const EXTENSION: &str = "atoll";

/// Takes its files away again unless they are kept.
pub struct Shelf {
    first: PathBuf,
    made: Vec<PathBuf>,
    unfinished: Option<PathBuf>,
}

impl Shelf {
    /// # Errors
    /// A field `file` if there is a file of this name, or no folder for it.
    pub fn new(first: &Path) -> Result<Self> {
        let wrong = |code, message: String| Err(Error::field("file", code, message));
        if first.file_name().is_none() {
            return wrong("malformed", format!("{} names no file", first.display()));
        }
        if first.exists() {
            return wrong(
                "exists",
                format!("{} is there already: name a new file", first.display()),
            );
        }
        if !folder_of(first).is_dir() {
            let folder = folder_of(first);
            return wrong("no_folder", format!("there is no folder {}", folder.display()));
        }
        Ok(Self { first: first.to_owned(), made: vec![], unfinished: None })
    }

    /// The names of the volumes.
    pub fn keep(mut self) -> Vec<String> {
        let made = std::mem::take(&mut self.made);
        made.iter().map(|path| path.display().to_string()).collect()
    }

    /// `trip.atoll`, `trip.2.atoll`, `trip.3.atoll`.
    fn path_of(&self, volume: u32) -> PathBuf {
        if volume == 1 {
            return self.first.clone();
        }
        let stem = self.first.file_stem().unwrap_or_default().to_string_lossy();
        let name = match self.first.extension() {
            Some(extension) => format!("{stem}.{volume}.{}", extension.to_string_lossy()),
            None => format!("{stem}.{volume}"),
        };
        self.first.with_file_name(name)
    }
}

pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl Volumes for Shelf {
    type File = BufWriter<File>;

    fn begin(&mut self, volume: u32) -> io::Result<Self::File> {
        let mut name = self.path_of(volume).file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let path = self.first.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        self.unfinished = Some(path);
        Ok(BufWriter::with_capacity(1 << 16, file))
    }

    fn end(&mut self, volume: u32, file: Self::File) -> io::Result<()> {
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let path = self.path_of(volume);
        if let Some(unfinished) = self.unfinished.take() {
            // Fails on a file that came meanwhile, where a rename would replace it.
            let linked = fs::hard_link(&unfinished, &path);
            match linked {
                Ok(()) => fs::remove_file(&unfinished)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.unfinished = Some(unfinished);
                    return Err(error);
                }
                // File systems of sticks have no links.
                Err(_) => fs::rename(&unfinished, &path)?,
            }
        }
        if cfg!(unix) {
            File::open(folder_of(&path))?.sync_all()?;
        }
        self.made.push(path);
        Ok(())
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        for path in self.made.iter().chain(&self.unfinished) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The files given, and the volumes in the folders given, each once.
pub fn all(given: &[PathBuf], most: usize) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error| Error::Store(atoll_storage::Error::Io(error));
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .map_err(unreadable)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == EXTENSION) && path.is_file())
            .collect();
        inside.sort();
        files.extend(inside);
    }
    files.dedup();
    if files.len() > most {
        return Err(Error::field("files", "too_many", format!("at most {most} volumes at once")));
    }
    Ok(files)
}
