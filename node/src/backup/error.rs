//! Why a backup could not be made, read or restored: sentences that say what to do.

use atoll_storage::blob;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup is not what it should be.
    #[error("{0}")]
    Unsound(String),
    /// Nothing was begun.
    #[error("{0}")]
    Refused(String),
    #[error("the disk has no room for it: {0}")]
    NoRoom(String),
    #[error("it was stopped")]
    Stopped,
    #[error("cannot {doing} {}: {source}{advice}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error, advice: &'static str },
    #[error(transparent)]
    Node(#[from] crate::Error),
}

impl Error {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source, advice: "" }
    }

    /// For jobs: none of these gets better by being tried again at once.
    pub(super) fn hopeless(self) -> crate::Error {
        let full = |message: String| crate::Error::conflict("disk_full", message);
        match self {
            Self::Io { ref source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                full(format!("{self}: free some space, or set backup.folder to a larger disk"))
            }
            Self::NoRoom(_) => full(self.to_string()),
            Self::Node(crate::Error::Store(atoll_storage::Error::Full)) => full(
                "the disk is full: free some space, or set backup.folder to a larger disk"
                    .to_owned(),
            ),
            Self::Node(error @ crate::Error::Conflict { .. }) => error,
            Self::Stopped => crate::Error::conflict("job_stopped", self.to_string()),
            Self::Unsound(_) => crate::Error::conflict("backup_unsound", self.to_string()),
            _ => crate::Error::conflict("backup_failed", self.to_string()),
        }
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        match error {
            blob::Error::Full => Self::from(atoll_storage::Error::Full),
            other => Self::Node(crate::Error::Internal(other.to_string())),
        }
    }
}

impl From<atoll_storage::Error> for Error {
    fn from(error: atoll_storage::Error) -> Self {
        Self::Node(crate::Error::Store(error))
    }
}
