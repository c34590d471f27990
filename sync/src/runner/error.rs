//! What can go wrong between a node and the network it belongs to, each with a stable code.

use crate::quic;
use crate::ticket::TicketError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] atoll_storage::Error),
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error(transparent)]
    Link(#[from] quic::Error),
    #[error("this ticket has expired: ask for a new one")]
    Expired,
    #[error("this ticket was made by this node itself: use it on another one")]
    OwnTicket,
    #[error("this node has as many peers as it can have: remove one first")]
    TooManyPeers,
    #[error("the peer was removed again meanwhile")]
    NotListed,
}

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Ticket(_) => "ticket",
            Self::Link(quic::Error::JoinRefused(_)) => "ticket_refused",
            Self::Link(_) => "peer_unreachable",
            Self::Expired => "ticket_expired",
            Self::OwnTicket => "own_ticket",
            Self::TooManyPeers => "too_many_peers",
            Self::NotListed => "not_listed",
        }
    }
}
