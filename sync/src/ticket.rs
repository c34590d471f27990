//! Tickets: one line of text that lets a new node join once. It holds where to go, whom to expect there, and a secret.
//! Never shows its secret unless asked for the whole line, and never decides whether a ticket was used:
//! the node that issued it keeps the hash of the secret, and does.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bincode::{Decode, Encode};
use thiserror::Error;

use crate::key::PublicKey;

pub const MAX_NAME_BYTES: usize = 128;
pub const MAX_ADDRS: usize = 8;
pub const MAX_ADDR_BYTES: usize = 255;

const PREFIX: &str = "atoll1:";
const FAMILY: &str = "atoll";
const MAX_LINE_BYTES: usize = 4096;
const CHECKSUM_BYTES: usize = 6;

/// What a ticket proves its bearer by. Its `Debug` output is blank, and it has no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    pub fn generate() -> Result<Self, TicketError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| TicketError::Random)?;
        Ok(Self(bytes))
    }

    /// What the issuer stores. Compare these, never the secrets: equal time whatever the difference.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("atoll 2025 ticket secret", &self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ticket {
    /// `host:port`, tried in this order.
    pub addrs: Vec<String>,
    /// The key that must answer at one of the addresses.
    pub public_key: PublicKey,
    pub secret: Secret,
    pub expires_ms: u64,
    /// What the issuer calls itself or its network, for the person who joins.
    pub name: String,
}

impl Ticket {
    /// The line to show, print or put into a QR code. Whoever reads it can join: never log it.
    pub fn to_line(&self) -> Result<String, TicketError> {
        self.check()?;
        let mut bytes = bincode::encode_to_vec(self, bincode::config::standard())
            .map_err(|_| TicketError::TooLong)?;
        bytes.extend_from_slice(&checksum(&bytes));
        let line = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        if line.len() > MAX_LINE_BYTES { Err(TicketError::TooLong) } else { Ok(line) }
    }

    /// Reads a line, with or without the spaces and line breaks that mail programs add.
    pub fn from_line(line: &str) -> Result<Self, TicketError> {
        if line.len() > 2 * MAX_LINE_BYTES {
            return Err(TicketError::TooLong);
        }
        let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        let ticket = Self::decode(body_of(&line)?)?;
        ticket.check()?;
        Ok(ticket)
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    fn decode(body: &str) -> Result<Self, TicketError> {
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TicketError::Damaged)?;
        let at = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TicketError::Damaged)?;
        let (body, sum) = bytes.split_at(at);
        if sum != checksum(body) {
            return Err(TicketError::Damaged);
        }
        let config = bincode::config::standard().with_limit::<MAX_LINE_BYTES>();
        match bincode::decode_from_slice(body, config) {
            Ok((ticket, used)) if used == body.len() => Ok(ticket),
            _ => Err(TicketError::Damaged),
        }
    }

    fn check(&self) -> Result<(), TicketError> {
        if self.addrs.is_empty() {
            return Err(TicketError::NoAddress);
        }
        check_addrs(&self.addrs)?;
        check_name(&self.name)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(line: &str) -> Result<Self, TicketError> {
        Self::from_line(line)
    }
}

fn body_of(line: &str) -> Result<&str, TicketError> {
    if let Some(body) = line.strip_prefix(PREFIX) {
        return Ok(body);
    }
    match line.split_once(':') {
        Some((prefix, _)) if is_other_version(prefix) => Err(TicketError::Version),
        _ => Err(TicketError::NotATicket),
    }
}

fn is_other_version(prefix: &str) -> bool {
    prefix
        .strip_prefix(FAMILY)
        .is_some_and(|version| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("atoll 2025 ticket checksum", body);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    sum
}

/// Names and addresses come from strangers too, and end up in lists that people read.
pub(crate) fn check_name(name: &str) -> Result<(), TicketError> {
    if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(TicketError::Name);
    }
    Ok(())
}

pub(crate) fn check_addrs(addrs: &[String]) -> Result<(), TicketError> {
    if addrs.len() > MAX_ADDRS {
        return Err(TicketError::TooManyAddresses);
    }
    match addrs.iter().find(|addr| !is_host_and_port(addr)) {
        Some(addr) => Err(TicketError::Address(
            addr.chars().take(80).flat_map(char::escape_default).collect(),
        )),
        None => Ok(()),
    }
}

fn is_host_and_port(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let host_is_sound = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
    addr.len() <= MAX_ADDR_BYTES && host_is_sound && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TicketError {
    #[error("this is not a ticket: a ticket is one line that begins with `atoll1:`")]
    NotATicket,
    #[error(
        "this ticket was made by a newer version: update this node, or ask for a ticket made by this version"
    )]
    Version,
    #[error("the ticket is cut or mistyped: copy the whole line again")]
    Damaged,
    #[error("the ticket is too long: use fewer addresses and a shorter name")]
    TooLong,
    #[error("a ticket needs at least one address, as `host:port`")]
    NoAddress,
    #[error("at most {MAX_ADDRS} addresses can be given")]
    TooManyAddresses,
    #[error("`{0}` is not an address: write `host:port`, at most {MAX_ADDR_BYTES} characters")]
    Address(String),
    #[error("a node's name has at most {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    #[error("the system gave no random bytes for a secret: check the machine, then try again")]
    Random,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            addrs: vec![
                "192.0.2.7:4710".into(),
                "[2001:db8::1]:4710".into(),
                "core.example:1".into(),
            ],
            public_key: PublicKey([7; 32]),
            secret: Secret([0xA5; 16]),
            expires_ms: 1_800_000_000_000,
            name: "Campus Süd".into(),
        }
    }

    #[test]
    fn a_ticket_reads_back_from_its_line() -> Result<(), TicketError> {
        let line = ticket().to_line()?;
        assert!(line.starts_with(PREFIX) && !line.contains(char::is_whitespace), "{line}");
        assert_eq!(Ticket::from_line(&line)?, ticket());
        assert_eq!(format!(" {line}\r\n").parse::<Ticket>()?, ticket());
        let (first, second) = line.split_at(40);
        assert_eq!(Ticket::from_line(&format!("{first}\r\n  {second}"))?, ticket());
        Ok(())
    }

    #[test]
    fn a_cut_ticket_is_refused_wherever_it_is_cut() -> Result<(), TicketError> {
        let line = ticket().to_line()?;
        for end in PREFIX.len()..line.len() {
            assert_eq!(Ticket::from_line(&line[..end]), Err(TicketError::Damaged), "cut at {end}");
        }
        Ok(())
    }

    #[test]
    fn a_mistyped_ticket_is_refused_wherever_it_is_mistyped() -> Result<(), TicketError> {
        let line = ticket().to_line()?;
        for at in PREFIX.len()..line.len() {
            let wrong = if &line[at..=at] == "A" { "B" } else { "A" };
            let typed = format!("{}{wrong}{}", &line[..at], &line[at + 1..]);
            assert_eq!(Ticket::from_line(&typed), Err(TicketError::Damaged), "mistyped at {at}");
        }
        Ok(())
    }

    #[test]
    fn what_is_not_a_ticket_says_so() {
        assert_eq!(Ticket::from_line(""), Err(TicketError::NotATicket));
        assert_eq!(Ticket::from_line("https://example.org"), Err(TicketError::NotATicket));
        assert_eq!(Ticket::from_line("atoll:AAAA"), Err(TicketError::NotATicket));
        assert_eq!(Ticket::from_line("atoll2:AAAA"), Err(TicketError::Version));
        assert_eq!(Ticket::from_line("atoll1:"), Err(TicketError::Damaged));
        assert_eq!(Ticket::from_line(&"a".repeat(1 << 20)), Err(TicketError::TooLong));
    }

    #[test]
    fn a_ticket_that_nobody_could_use_is_not_made() {
        let with_addr = |addr: &str| Ticket { addrs: vec![addr.into()], ..ticket() }.to_line();
        assert_eq!(Ticket { addrs: vec![], ..ticket() }.to_line(), Err(TicketError::NoAddress));
        for addr in ["", "host", "host:", ":1", "host:0", "host:70000", "ho st:1", "h\n:1"] {
            assert!(matches!(with_addr(addr), Err(TicketError::Address(_))), "{addr}");
        }
        let many = vec!["h:1".to_owned(); MAX_ADDRS + 1];
        assert_eq!(
            Ticket { addrs: many, ..ticket() }.to_line(),
            Err(TicketError::TooManyAddresses)
        );
        assert_eq!(
            Ticket { name: "\u{1b}[31m".into(), ..ticket() }.to_line(),
            Err(TicketError::Name)
        );
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let shown = format!("{:?}", ticket());
        assert!(shown.contains("Secret(..)"), "{shown}");
        assert!(!shown.contains("165") && !shown.to_lowercase().contains("a5"), "{shown}");
    }

    #[test]
    fn a_ticket_expires_at_its_time() {
        assert!(!ticket().is_expired(1_799_999_999_999));
        assert!(ticket().is_expired(1_800_000_000_000));
    }
}
