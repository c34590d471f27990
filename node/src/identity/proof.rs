//! Tokens that go out by mail and prove, once, that a letter to an address was read. What is kept, in a field of the
//! user, is when the token ends and a hash of it with the address: it proves no other.

use crate::error::{Error, Result};
use atoll_storage::{Field, Id, Record, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const SECRET_BYTES: usize = 32;
const EXPIRY_BYTES: usize = 8;

/// `base64url(user, secret)` in a link.
pub(super) struct Token {
    pub user: Id,
    secret: [u8; SECRET_BYTES],
}

impl Token {
    pub fn new(user: Id, secret: [u8; SECRET_BYTES]) -> Self {
        Self { user, secret }
    }

    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode([&self.user.0[..], &self.secret].concat())
    }

    /// # Errors
    /// As of a token that is known and not good: nobody learns the difference.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bytes = [0; 16 + SECRET_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text.trim(), &mut bytes).map_err(|_| void())?;
        let (user, secret) = bytes.split_at(16);
        let user = Id::from_slice(user).ok_or_else(void)?;
        let secret = secret.try_into().map_err(|_| void())?;
        if read == bytes.len() { Ok(Self { user, secret }) } else { Err(void()) }
    }

    /// What the user's record keeps.
    pub fn seal(&self, address: &str, ends_at_ms: u64) -> Value {
        Value::Bytes([&ends_at_ms.to_be_bytes()[..], self.hash(address).as_bytes()].concat())
    }

    /// Whether this is the token that the field keeps, for this address, and still good.
    pub fn opens(&self, user: &Record, field: &Field, address: &str, now_ms: u64) -> bool {
        user.bytes(field).is_some_and(|sealed| self.fits(sealed, address, now_ms))
    }

    fn fits(&self, sealed: &[u8], address: &str, now_ms: u64) -> bool {
        let Some((ends_at, hash)) = sealed.split_at_checked(EXPIRY_BYTES) else { return false };
        let (Ok(ends_at), Ok(hash)) = (<[u8; 8]>::try_from(ends_at), <[u8; 32]>::try_from(hash))
        else {
            return false;
        };
        // Hashes from blake3 compare in constant time.
        now_ms < u64::from_be_bytes(ends_at) && self.hash(address) == blake3::Hash::from_bytes(hash)
    }

    fn hash(&self, address: &str) -> blake3::Hash {
        blake3::Hasher::new().update(&self.secret).update(address.as_bytes()).finalize()
    }
}

/// Of a token that is made up, used, replaced or too old.
pub(super) fn void() -> Error {
    Error::field("token", "token_invalid", "is not good, or not any more: ask for a new letter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_proves_its_address_until_it_ends_and_nothing_else() {
        let token = Token::new(Id([1; 16]), [7; 32]);
        let again = Token::parse(&token.to_text()).unwrap();
        assert_eq!(again.user, token.user);
        let Value::Bytes(sealed) = token.seal("ada@example.org", 1_000) else { panic!() };
        assert!(sealed.len() <= 40 && !sealed.windows(8).any(|part| part == [7; 8]));
        assert!(again.fits(&sealed, "ada@example.org", 999));
        assert!(!again.fits(&sealed, "ada@example.org", 1_000));
        assert!(!again.fits(&sealed, "eve@example.org", 0));
        assert!(!Token::new(Id([1; 16]), [8; 32]).fits(&sealed, "ada@example.org", 0));
        assert!(!again.fits(&sealed[1..], "ada@example.org", 0) && !again.fits(&[], "", 0));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = Token::new(Id([1; 16]), [7; 32]).to_text();
        for bad in ["", "x", &text[1..], &format!("{text}A"), &"é".repeat(32)] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
}
