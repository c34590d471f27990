//! What can go wrong below the domain.

/// The one error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk is full: free some space; nothing of this write was kept")]
    Full,
    #[error(
        "the database file is damaged ({0}): restore it from a backup, or join the network anew"
    )]
    Damaged(String),
    #[error("another process works on this data folder ({0}): stop it first")]
    Locked(String),
    #[error(
        "the database cannot be written: its file or its disk is read-only for this account; change that"
    )]
    ReadOnly,
    #[error("the node is busy: its write queue is full, try again shortly")]
    Busy,
    #[error("the store is closed")]
    Closed,
    #[error("this node does not carry {stream}, and cannot write to it: {advice}")]
    NotCarried { stream: String, advice: String },
    #[error("malformed bytes: {0}")]
    Malformed(String),
    #[error("no such {0}")]
    Missing(&'static str),
    #[error(
        "this data folder was written by a newer release (format {found}, this one reads {known}): upgrade"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the log of {stream} does not reach back to the backup: {missing} ops between them are gone from it. Take a newer backup; `history_days` says how long a log reaches back"
    )]
    Behind { stream: String, missing: u64 },
    /// Writes up to `upto_ms`, Unix milliseconds, stand before it; none if that cannot be told.
    #[error("the log is damaged: {what}")]
    Gap { what: String, upto_ms: Option<u64> },
    #[error("the text is too long to edit: {size} bytes, at most {limit}")]
    TooLong { size: usize, limit: usize },
    #[error(
        "this text was written anew so often that its history takes {size} bytes, where {limit} may be added to: \
         make a new record of the text, and edit that"
    )]
    LongHistory { size: usize, limit: usize },
    #[error("a body's change cannot be applied: {0}")]
    Body(String),
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
    #[error("{0}")]
    Internal(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged(error.to_string()),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked(error.to_string()),
            Some(Code::ReadOnly) => Self::ReadOnly,
            _ => Self::Sqlite(error),
        }
    }
}
