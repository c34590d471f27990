//! Why there is no progress with a peer: one word for programs, beside the sentence for people.

use crate::quic::{self, CloseCode};
use crate::session::Reason;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Links are cut here on purpose.
    Paused,
    /// No address is known: it has to dial this node.
    NoAddress,
    NameUnknown,
    /// The machine is there, and says that nobody listens at this port.
    NobodyListens,
    /// Nothing at all comes back: it is off, or something in between takes what is sent.
    NoAnswer,
    /// Somebody else answers there.
    WrongKey,
    /// What answers is no node, or one that is too old or too new to say so.
    NotAtoll,
    Version,
    /// The other node does not know this one, or not any more.
    TicketNeeded,
    Revoked,
    /// What one of the two may do on the other was for a time, and that is over.
    GrantExpired,
    /// One of the two may do nothing any more on the other.
    GrantWithdrawn,
    /// Another process runs with this node's key.
    Copy,
    DiskFullHere,
    DiskFullThere,
    Busy,
    /// There was a link, and it has ended.
    Ended,
}

impl Obstacle {
    pub fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::NoAddress => "no_address",
            Self::NameUnknown => "name_unknown",
            Self::NobodyListens => "nobody_listens",
            Self::NoAnswer => "no_answer",
            Self::WrongKey => "wrong_key",
            Self::NotAtoll => "not_atoll",
            Self::Version => "version",
            Self::TicketNeeded => "ticket_needed",
            Self::Revoked => "revoked",
            Self::GrantExpired => "grant_expired",
            Self::GrantWithdrawn => "grant_withdrawn",
            Self::Copy => "copy",
            Self::DiskFullHere => "disk_full_here",
            Self::DiskFullThere => "disk_full_there",
            Self::Busy => "busy",
            Self::Ended => "ended",
        }
    }

    /// What somebody can do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Paused => "resume the links here",
            Self::NoAddress => {
                "nothing, if it can reach this node; else let it join anew with an address of its own"
            }
            Self::NameUnknown => "check the name and this machine's name server",
            Self::NobodyListens => "start the node there, or correct the port",
            Self::NoAnswer => {
                "see whether the machine is on, and open its UDP port in every firewall on the way"
            }
            Self::WrongKey => {
                "if it was set up anew, remove it and let it join again; if not, find out who answers there"
            }
            Self::NotAtoll => "correct the address, and upgrade the older of the two",
            Self::Version => "upgrade the older of the two",
            Self::TicketNeeded => "get a ticket from it and join again",
            Self::Revoked => "give the node that was removed a new data folder and a new ticket",
            Self::GrantExpired => {
                "say anew until when it may, by `atoll peer grant` on the node that lets it"
            }
            Self::GrantWithdrawn => {
                "nothing, if that was meant; else say anew what it may, by `atoll peer grant` on the node that lets it"
            }
            Self::Copy => "give one of the two a new data folder and let it join",
            Self::DiskFullHere => "free some space on this machine",
            Self::DiskFullThere => "free some space on that machine",
            Self::Busy => "nothing: it is tried again",
            Self::Ended => "nothing: it is dialled again",
        }
    }

    pub(super) fn of(error: &quic::Error) -> Self {
        use quic::Error as E;
        match error {
            E::NoAddress => Self::NoAddress,
            E::Resolve { .. } => Self::NameUnknown,
            E::NobodyListens { .. } => Self::NobodyListens,
            E::Unreachable { .. } | E::Silent => Self::NoAnswer,
            E::WrongKey { .. } => Self::WrongKey,
            E::NotAtoll { .. } => Self::NotAtoll,
            E::Stranger => Self::TicketNeeded,
            E::Revoked => Self::Revoked,
            E::Expired => Self::GrantExpired,
            E::Withdrawn => Self::GrantWithdrawn,
            E::Copy(_) => Self::Copy,
            E::Busy => Self::Busy,
            E::Closed { code: CloseCode::DISK_FULL, .. } => Self::DiskFullThere,
            E::Closed { code: CloseCode::VERSION, .. } => Self::Version,
            _ => Self::Ended,
        }
    }
}

/// How a link came to its end: what the other side is told, and what people are.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: CloseCode,
    pub(super) reason: String,
    pub(super) obstacle: Obstacle,
}

impl Ended {
    pub(super) fn new(code: CloseCode, reason: impl Into<String>, obstacle: Obstacle) -> Self {
        Self { code, reason: reason.into(), obstacle }
    }

    /// For what has no word of its own.
    pub(super) fn session(reason: impl Into<String>) -> Self {
        Self::new(CloseCode::SESSION, reason, Obstacle::Ended)
    }
}

impl From<quic::Error> for Ended {
    fn from(error: quic::Error) -> Self {
        Self::new(CloseCode::SESSION, error.to_string(), Obstacle::of(&error))
    }
}

impl From<Reason> for Ended {
    fn from(reason: Reason) -> Self {
        let (code, obstacle) = match &reason {
            Reason::Version { .. } | Reason::NoGrants { .. } => {
                (CloseCode::VERSION, Obstacle::Version)
            }
            Reason::GrantExpired => (CloseCode::GRANT_EXPIRED, Obstacle::GrantExpired),
            Reason::Full => (CloseCode::DISK_FULL, Obstacle::DiskFullHere),
            Reason::Clone(_) => (CloseCode::COPY, Obstacle::Copy),
            _ => (CloseCode::SESSION, Obstacle::Ended),
        };
        Self::new(code, reason.to_string(), obstacle)
    }
}
