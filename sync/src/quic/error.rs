//! What can go wrong between two nodes, in words that say what to do, and the codes that links are closed with.
//! Never shows a peer's text without taming it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use quinn::{ConnectError, ConnectionError, ReadError, TransportErrorCode, WriteError};
use thiserror::Error;

use crate::frame::FrameError;
use crate::key::{KeyError, PublicKey};
use crate::ticket::TicketError;

/// Of what a peer says, so much is shown.
const MAX_REASON_CHARS: usize = 200;

/// Why a side closed a link. Layers above use numbers from [`CloseCode::FIRST_FREE`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    pub const DONE: Self = Self(0);
    pub const STRANGER: Self = Self(1);
    pub const REVOKED: Self = Self(2);
    pub const BUSY: Self = Self(3);
    pub const PROTOCOL: Self = Self(4);
    pub const TIMEOUT: Self = Self(5);
    pub const SHUTDOWN: Self = Self(6);
    /// The session on the link came to an end that the other side should hear of.
    pub const SESSION: Self = Self(7);
    /// Another process runs with the same key.
    pub const COPY: Self = Self(8);
    /// What came cannot be stored.
    pub const DISK_FULL: Self = Self(9);
    /// The two speak no common version of the protocol.
    pub const VERSION: Self = Self(10);
    /// The time is over for which the other side may do anything here.
    pub const GRANT_EXPIRED: Self = Self(11);
    /// The other side may do nothing here any more.
    pub const GRANT_WITHDRAWN: Self = Self(12);
    pub const FIRST_FREE: Self = Self(0x100);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot listen on UDP {addr}: {source}; is another node running there?")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("cannot set up links: {0}")]
    Setup(String),
    #[error("cannot find `{addr}`: {source}; write it as host:port and check the name")]
    Resolve { addr: String, source: io::Error },
    #[error("there is no address to dial: give one as host:port")]
    NoAddress,
    #[error("no answer from {addr}: check that the node runs there and that its UDP port is open")]
    Unreachable { addr: String },
    #[error("nobody listens at {addr}: start the node there, or check the port")]
    NobodyListens { addr: String },
    #[error(
        "the peer's key is not the one in the list: {addr} has {found}, expected {expected}; if the node was set up \
         anew, remove the old peer and join again, otherwise somebody else answers at that address"
    )]
    WrongKey { addr: SocketAddr, expected: PublicKey, found: PublicKey },
    #[error(
        "{addr} does not speak atoll/1: check the address, and that both nodes have a fitting version"
    )]
    NotAtoll { addr: String },
    #[error(
        "the other node does not know this one: get a ticket from it and join, or have this key added there"
    )]
    Stranger,
    #[error(
        "the time is over for which this node may do anything there: have it granted anew there, by `atoll peer grant`"
    )]
    Expired,
    #[error(
        "this node may do nothing there any more: have it granted anew there, by `atoll peer grant`"
    )]
    Withdrawn,
    #[error("this key has been revoked: a revoked node has to join again with a new key")]
    Revoked,
    #[error("the other node has no room for another link now: try again later")]
    Busy,
    #[error("the other node did not accept the ticket: {0}")]
    JoinRefused(String),
    #[error("the handshake failed: {0}")]
    Handshake(String),
    #[error("the other node broke the protocol: {0}")]
    Protocol(String),
    #[error("the other node stopped answering")]
    Silent,
    #[error("the other node was started anew: dial again")]
    Restarted,
    #[error("the other node closed the link: {reason} (code {code})")]
    Closed { code: CloseCode, reason: String },
    /// The words of the other node, which name this one and the address of the other process.
    #[error("{0}")]
    Copy(String),
    #[error("the link was closed here")]
    ClosedHere,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Join(#[from] TicketError),
}

impl Error {
    pub(super) fn setup(error: impl fmt::Display) -> Self {
        Self::Setup(error.to_string())
    }

    pub(super) fn cannot_dial(addr: SocketAddr, error: &ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::ClosedHere,
            ConnectError::InvalidRemoteAddress(_) => Self::Unreachable { addr: addr.to_string() },
            other => Self::setup(other),
        }
    }

    pub(super) fn from_dialling(addr: SocketAddr, error: ConnectionError) -> Self {
        match Self::from(error) {
            Self::Silent => Self::Unreachable { addr: addr.to_string() },
            Self::NotAtoll { .. } => Self::NotAtoll { addr: addr.to_string() },
            other => other,
        }
    }

    /// Whether another address of the same node could do better: what the right node said, it says everywhere.
    pub(super) fn may_differ_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NobodyListens { .. }
                | Self::Resolve { .. }
                | Self::WrongKey { .. }
                | Self::NotAtoll { .. }
                | Self::Handshake(_)
                | Self::Silent
                | Self::Restarted
        )
    }

    /// Of two failures, the one that tells more.
    pub(super) fn or(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if matches!(self, Self::Unreachable { .. }) => earlier,
            _ => self,
        }
    }

    fn from_close(code: u64, reason: &[u8]) -> Self {
        let code = CloseCode(u32::try_from(code).unwrap_or(u32::MAX));
        match code {
            CloseCode::STRANGER => Self::Stranger,
            CloseCode::REVOKED => Self::Revoked,
            CloseCode::GRANT_EXPIRED => Self::Expired,
            CloseCode::GRANT_WITHDRAWN => Self::Withdrawn,
            CloseCode::BUSY => Self::Busy,
            CloseCode::COPY => Self::Copy(tame(reason)),
            _ => Self::Closed { code, reason: tame(reason) },
        }
    }

    fn from_transport(code: TransportErrorCode, reason: &[u8]) -> Self {
        const NO_APPLICATION_PROTOCOL: u8 = 120;
        let is_alert = (0x100..0x200).contains(&u64::from(code));
        if code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) {
            Self::NotAtoll { addr: "the other side".into() }
        } else if code == TransportErrorCode::CONNECTION_REFUSED {
            Self::Busy
        } else if is_alert {
            Self::Handshake(tame(reason))
        } else {
            Self::Protocol(format!("{code}: {}", tame(reason)))
        }
    }
}

/// A peer's words, fit for a log line and a terminal.
pub(super) fn tame(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown: String = text.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
    if shown.is_empty() { "no reason given".into() } else { shown }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::from_close(close.error_code.into_inner(), &close.reason)
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::from_transport(close.error_code, &close.reason)
            }
            ConnectionError::TransportError(error) => {
                Self::from_transport(error.code, error.reason.as_bytes())
            }
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::VersionMismatch => Self::NotAtoll { addr: "the other side".into() },
            ConnectionError::CidsExhausted => Self::Setup("too many links at once".into()),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(code) => Self::from_close(code.into_inner(), b"it gave up its stream"),
            _ => Self::ClosedHere,
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(code) => {
                Self::from_close(code.into_inner(), b"it reads no more of this link")
            }
            _ => Self::ClosedHere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_tamed() {
        assert_eq!(tame(b"\x1b[31mred\xff\n"), "[31mred\u{fffd}");
        assert_eq!(tame(b""), "no reason given");
        assert_eq!(tame(&[b'a'; 5000]).len(), MAX_REASON_CHARS);
    }

    #[test]
    fn the_failure_that_tells_more_is_kept() {
        let unreachable = || Error::Unreachable { addr: "192.0.2.1:1".into() };
        assert!(matches!(unreachable().or(Some(Error::Silent)), Error::Silent));
        assert!(matches!(Error::Silent.or(Some(unreachable())), Error::Silent));
        assert!(matches!(unreachable().or(None), Error::Unreachable { .. }));
    }
}
