//! How a command fails: a sentence that says what to do, and the exit code. The one table from errors to codes.

use atoll_node::{Error, backup};
use atoll_storage::Error as Store;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the exit code says. Part of the interface: scripts branch on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Locked = 4,
    Damaged = 5,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message.to_string())
    }

    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message.to_string())
    }

    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, message.to_string())
    }

    /// `cannot read FILE: no such file`, and what to do where that is known.
    pub fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let (exit, advice) = match error.kind() {
            Kind::NotFound => (Exit::NotFound, ""),
            Kind::PermissionDenied => {
                (Exit::Failed, "; run this as the account that it belongs to, or change its mode")
            }
            Kind::ReadOnlyFilesystem => {
                (Exit::Failed, "; mount it for writing, or name another folder")
            }
            Kind::StorageFull | Kind::QuotaExceeded => (Exit::Failed, "; free some space first"),
            _ => (Exit::Failed, ""),
        };
        Self::new(exit, format!("cannot {doing} {}: {}{advice}", path.display(), plain(error)))
    }
}

/// Without the number, which says nothing to people.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_lowercase()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Store(error) => exit_of(error),
            Error::NotFound(_) => Exit::NotFound,
            Error::Invalid(_) | Error::Malformed(_) => Exit::Usage,
            Error::TooMany { .. } => Exit::Locked,
            _ => Exit::Failed,
        };
        let mut message = error.to_string();
        if let Error::Invalid(fields) = &error
            && fields.len() > 1
        {
            let all = fields.iter().map(|field| format!("{}: {}", field.field, field.message));
            message = all.collect::<Vec<_>>().join("; ");
        }
        Self::new(exit, message)
    }
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        match error {
            backup::Error::Node(error) => error.into(),
            backup::Error::Io { doing, path, source, advice } => {
                let failure = Self::io(doing, &path, &source);
                Self::new(failure.exit, format!("{failure}{advice}"))
            }
            backup::Error::Unsound(_) => Self::new(Exit::Damaged, error.to_string()),
            _ => Self::failed(error),
        }
    }
}

impl From<Store> for Failure {
    fn from(error: Store) -> Self {
        Self::from(Error::Store(error))
    }
}

fn exit_of(error: &Store) -> Exit {
    match error {
        Store::Damaged(_) => Exit::Damaged,
        Store::Locked(_) | Store::Busy => Exit::Locked,
        Store::Missing(_) => Exit::NotFound,
        Store::Malformed(_) => Exit::Usage,
        _ => Exit::Failed,
    }
}
