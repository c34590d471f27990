//! What a backup says of itself.

use super::file::write_new;
use super::{DATABASE, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Component, Path};

pub(super) const FILE: &str = "manifest.json";
pub(super) const FORMAT: u32 = 1;
const MAX_BYTES: u64 = 256 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub version: String,
    pub node: String,
    pub epoch: u32,
    pub created_at: String,
    #[serde(default)]
    pub created_ms: u64,
    /// Over all streams of the database; empty in backups of releases that did not note it.
    #[serde(default)]
    pub digest: String,
    pub files: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Under the backup's folder, with `/`.
    pub path: String,
    pub size_bytes: u64,
    pub blake3: String,
}

impl Manifest {
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| crate::Error::Internal(error.to_string()))?;
        let path = folder.join(FILE);
        write_new(&path, &mut &text[..]).map_err(|error| Error::io("write", &path, error))
    }

    /// Names no file outside of the backup, and the database among its files.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let size = fs::metadata(&path).map_err(|source| {
            let advice = if folder.is_dir() {
                "; a backup without a manifest is none, or was cut off"
            } else {
                "; name the folder that `atoll backup create` made"
            };
            Error::Io { doing: "read", path: path.clone(), source, advice }
        })?;
        if size.len() > MAX_BYTES {
            return Err(Error::Unsound(format!("{} is too large for a manifest", path.display())));
        }
        let text = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        let damaged = |why: String| Error::Unsound(format!("{}: {why}", path.display()));
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.format > FORMAT {
            let message = "this backup was made by a newer release: upgrade";
            return Err(Error::Refused(message.to_owned()));
        }
        let is_inside = |path: &str| {
            Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        };
        if let Some(file) = manifest.files.iter().find(|file| !is_inside(&file.path)) {
            return Err(damaged(format!("{:?} leads out of the backup", file.path)));
        }
        if !manifest.files.iter().any(|file| file.path == DATABASE) {
            return Err(damaged("it names no database".to_owned()));
        }
        Ok(manifest)
    }
}
