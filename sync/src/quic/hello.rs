//! The first frame in each direction: what the dialling side wants, and what it is told.
//! Small on purpose, and read with hard limits: strangers write these.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::Bytes;

use super::error::Error;
use crate::ticket::{Secret, check_addrs, check_name};

/// What a stranger may send.
pub(super) const MAX_HELLO_BYTES: usize = 4096;
/// What an issuer may hand to a node that joins, in [`JoinAnswer::info`].
pub const MAX_INFO_BYTES: usize = 48 << 10;
pub(super) const MAX_REPLY_BYTES: usize = 64 << 10;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_REPLY_BYTES>> =
    bincode::config::standard().with_limit::<MAX_REPLY_BYTES>();

/// What the dialling side wants.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Hello {
    Link,
    Join { secret: Secret, request: JoinRequest },
}

/// What it is told.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    Welcome,
    Joined(JoinAnswer),
    Refused(String),
}

/// How a node introduces itself where it wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    pub name: String,
    /// Where it can be dialled, as `host:port`; none if it can only dial.
    pub addrs: Vec<String>,
}

/// How the issuer introduces itself to the node that it lets in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinAnswer {
    pub name: String,
    pub addrs: Vec<String>,
    /// What the layer above wants the new node to know; at most [`MAX_INFO_BYTES`].
    pub info: Vec<u8>,
}

impl JoinRequest {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        Ok(check_addrs(&self.addrs)?)
    }
}

impl JoinAnswer {
    fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        check_addrs(&self.addrs)?;
        if self.info.len() > MAX_INFO_BYTES {
            return Err(Error::Protocol(format!(
                "more than {MAX_INFO_BYTES} bytes for a new node"
            )));
        }
        Ok(())
    }
}

impl Hello {
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        bincode::encode_to_vec(self, CONFIG).map_err(Error::setup)
    }

    /// `frame` is the first one that came; none if the stream ended before it.
    pub fn decode(frame: Option<Bytes>) -> Result<Self, Error> {
        let hello = decode(frame)?;
        if let Self::Join { request, .. } = &hello {
            request.check()?;
        }
        Ok(hello)
    }
}

impl Reply {
    /// # Errors
    /// For an answer beyond its bounds.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        if let Self::Joined(answer) = self {
            answer.check()?;
        }
        bincode::encode_to_vec(self, CONFIG).map_err(Error::setup)
    }

    /// `frame` is the first one that came; none if the stream ended before it.
    pub fn decode(frame: Option<Bytes>) -> Result<Self, Error> {
        let reply = decode(frame)?;
        if let Self::Joined(answer) = &reply {
            answer.check()?;
        }
        Ok(reply)
    }
}

fn decode<T: Decode<()>>(frame: Option<Bytes>) -> Result<T, Error> {
    let frame = frame.ok_or_else(|| Error::Protocol("it hung up before saying hello".into()))?;
    match bincode::decode_from_slice(&frame, CONFIG) {
        Ok((message, used)) if used == frame.len() => Ok(message),
        _ => Err(Error::Protocol("its hello cannot be read".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Hello {
        let request = JoinRequest { name: "atoll".into(), addrs: vec!["192.0.2.1:4710".into()] };
        Hello::Join { secret: Secret([3; 16]), request }
    }

    #[test]
    fn the_bytes_of_a_hello_stay_as_they_are() -> Result<(), Error> {
        assert_eq!(Hello::Link.encode()?, [0]);
        assert_eq!(Reply::Welcome.encode()?, [0]);
        let bytes = join().encode()?;
        assert_eq!(bytes[..17], [&[1][..], &[3; 16]].concat());
        assert_eq!(&bytes[17..], b"\x05atoll\x01\x0e192.0.2.1:4710");
        Ok(())
    }

    #[test]
    fn a_hello_that_is_cut_or_longer_is_refused() -> Result<(), Error> {
        let bytes = join().encode()?;
        Hello::decode(Some(Bytes::from(bytes.clone())))?;
        for end in 0..bytes.len() {
            assert!(Hello::decode(Some(Bytes::copy_from_slice(&bytes[..end]))).is_err(), "{end}");
        }
        assert!(Hello::decode(Some([&bytes[..], &[0]].concat().into())).is_err());
        assert!(Hello::decode(None).is_err());
        Ok(())
    }

    #[test]
    fn a_hello_that_claims_endless_lists_is_refused() {
        // A join whose list of addresses announces 2^64 - 1 of them.
        let bytes = [&[1][..], &[3; 16], &[0, 0xFD], &[0xFF; 8]].concat();
        assert!(Hello::decode(Some(bytes.into())).is_err());
    }

    #[test]
    fn the_longest_join_fits_a_strangers_limit() -> Result<(), Error> {
        let addr = format!("{}:4710", "a".repeat(crate::ticket::MAX_ADDR_BYTES - 5));
        let request = JoinRequest {
            name: "n".repeat(crate::ticket::MAX_NAME_BYTES),
            addrs: vec![addr; crate::ticket::MAX_ADDRS],
        };
        request.check()?;
        let bytes = Hello::Join { secret: Secret([0; 16]), request }.encode()?;
        assert!(bytes.len() <= MAX_HELLO_BYTES);
        Ok(())
    }
}
