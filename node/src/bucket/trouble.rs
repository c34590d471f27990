//! Why a bucket could not be used, in one word, in a sentence, and with what to do.

use crate::error::Error;
use atoll_sync::bundle;
use std::io::{self, ErrorKind};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// It is not reached: no fault, and tried again.
    Offline,
    NoBucket,
    Denied,
    Clock,
    Region,
    Busy,
    FullHere,
    FullThere,
    TooMany,
    /// This node is being stopped.
    Stopped,
    Other,
}

impl Obstacle {
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::NoBucket => "no_bucket",
            Self::Denied => "denied",
            Self::Clock => "clock",
            Self::Region => "region",
            Self::Busy => "busy",
            Self::FullHere => "disk_full_here",
            Self::FullThere => "disk_full_there",
            Self::TooMany => "too_many_objects",
            Self::Stopped => "ended",
            Self::Other => "other",
        }
    }

    pub fn advice(self) -> &'static str {
        match self {
            Self::Offline => {
                "nothing, if this node is offline now and then: it is tried again by itself"
            }
            Self::NoBucket => {
                "make the bucket or the folder, or mount its disk; or add it with the right name"
            }
            Self::Denied => {
                "check the keys, and that they may list, read, write and delete below the prefix; then add the bucket again"
            }
            Self::Clock => "set this machine's clock: the store refuses what is not of now",
            Self::Region => "add the bucket again with the region that it is in",
            Self::FullHere => "free some space on this node",
            Self::FullThere => "free some space in the store, or raise its quota",
            Self::TooMany => "remove what does not belong there, or use a prefix that is empty",
            Self::Busy | Self::Stopped | Self::Other => "",
        }
    }

    /// Whether it may pass by itself.
    pub fn can_pass(self) -> bool {
        matches!(self, Self::Offline | Self::Busy | Self::FullHere | Self::FullThere)
    }
}

#[derive(Clone, Debug)]
pub struct Trouble {
    pub obstacle: Obstacle,
    pub message: String,
}

pub type Result<T, E = Trouble> = std::result::Result<T, E>;

impl Trouble {
    pub fn new(obstacle: Obstacle, message: impl Into<String>) -> Self {
        Self { obstacle, message: message.into() }
    }

    pub fn stopped() -> Self {
        Self::new(Obstacle::Stopped, "this node is being stopped")
    }

    /// Of the scratch file on this node.
    pub fn here(error: &io::Error) -> Self {
        let obstacle = if is_full(error) { Obstacle::FullHere } else { Obstacle::Other };
        Self::new(obstacle, format!("what came could not be stored: {error}"))
    }

    pub fn of_bundle(error: bundle::Error) -> Self {
        let obstacle = if error.is_full() { Obstacle::FullHere } else { Obstacle::Other };
        Self::new(obstacle, error.to_string())
    }
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl From<atoll_storage::Error> for Trouble {
    fn from(error: atoll_storage::Error) -> Self {
        let obstacle = match error {
            atoll_storage::Error::Full => Obstacle::FullHere,
            atoll_storage::Error::Closed => Obstacle::Stopped,
            _ => Obstacle::Other,
        };
        Self::new(obstacle, error.to_string())
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let advice = trouble.obstacle.advice();
        let end = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        Self::conflict(trouble.obstacle.name(), format!("{}{end}", trouble.message))
    }
}
