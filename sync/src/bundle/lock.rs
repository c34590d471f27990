//! Locking a bundle for its recipients: one random key locks the parts, and each recipient gets that key sealed by HPKE
//! (RFC 9180, X25519). A node's key for this is made of its node key, and another one than that.

use super::{Error, MAX_RECIPIENTS, Result};
use crate::key::NodeKey;
use atoll_storage::NodeId;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use bincode::{Decode, Encode};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};

const INFO: &[u8] = b"atoll bundle key 1";
pub const PUBLIC_BYTES: usize = 32;

/// Whom a bundle is locked for, and that node's public bundle key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub node: NodeId,
    pub key: [u8; PUBLIC_BYTES],
}

/// A node's own key for bundles that are locked for it. Never printed.
pub struct BundleKey {
    node: NodeId,
    private: HpkePrivateKey,
    public: [u8; PUBLIC_BYTES],
}

impl BundleKey {
    pub fn of(key: &NodeKey) -> Result<Self> {
        let secret = key.derive_secret("atoll 2026 bundle key").map_err(|_| Error::Random)?;
        let pair = PrivateKey::from_private_key(&X25519, &secret).map_err(|_| Error::Random)?;
        let public = pair.compute_public_key().map_err(|_| Error::Random)?;
        let public = public.as_ref().try_into().map_err(|_| Error::Random)?;
        Ok(Self { node: key.node_id(), private: HpkePrivateKey::from(secret.to_vec()), public })
    }

    pub fn public(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }
}

/// The key of the parts, as one recipient can open it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sealed {
    pub node: NodeId,
    encapsulated: Vec<u8>,
    key: Vec<u8>,
}

/// Locks and opens parts.
pub struct Locker(LessSafeKey);

impl Locker {
    /// A new key, sealed for each of them.
    pub fn new(bundle: &[u8; 16], recipients: &[Recipient]) -> Result<(Self, Vec<Sealed>)> {
        if recipients.len() > MAX_RECIPIENTS {
            return Err(Error::TooManyRecipients);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| Error::Random)?;
        let seal = |recipient: &Recipient| {
            let public = HpkePublicKey(recipient.key.to_vec());
            let sealed = SUITE.seal(INFO, bundle, &key, &public);
            let (encapsulated, sealed) = sealed.map_err(|_| Error::Recipient(recipient.node))?;
            Ok(Sealed { node: recipient.node, encapsulated: encapsulated.0, key: sealed })
        };
        let sealed = recipients.iter().map(seal).collect::<Result<_>>()?;
        Ok((Self::of(&key)?, sealed))
    }

    pub fn open(bundle: &[u8; 16], sealed: &[Sealed], mine: &BundleKey) -> Result<Self> {
        let for_me = sealed.iter().filter(|one| one.node == mine.node);
        for one in for_me {
            let encapsulated = EncapsulatedSecret(one.encapsulated.clone());
            if let Ok(key) = SUITE.open(&encapsulated, INFO, bundle, &one.key, &mine.private) {
                return Self::of(&key);
            }
        }
        let names: Vec<String> = sealed.iter().map(|one| one.node.to_string()).collect();
        Err(Error::NotForMe { for_whom: names.join(", ") })
    }

    fn of(key: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| Error::Random)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// A number is locked once with one key: numbers of parts are not given twice in a bundle.
    pub fn lock(&self, number: u32, mut part: Vec<u8>) -> Result<Vec<u8>> {
        self.0
            .seal_in_place_append_tag(nonce(number), Aad::empty(), &mut part)
            .map_err(|_| Error::Random)?;
        Ok(part)
    }

    pub fn unlock(&self, number: u32, mut part: Vec<u8>) -> Option<Vec<u8>> {
        let length = self.0.open_in_place(nonce(number), Aad::empty(), &mut part).ok()?.len();
        part.truncate(length);
        Some(part)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recipients_open_what_is_locked() -> Result<(), Box<dyn std::error::Error>> {
        let keys = [NodeKey::generate()?, NodeKey::generate()?, NodeKey::generate()?];
        let [a, b, stranger] = [0, 1, 2].map(|n| BundleKey::of(&keys[n]));
        let (a, b, stranger) = (a?, b?, stranger?);
        let to = [&a, &b].map(|key| Recipient { node: key.node, key: key.public() });
        let (locker, sealed) = Locker::new(&[1; 16], &to)?;
        let locked = locker.lock(7, b"tide".to_vec())?;
        assert_ne!(locked[..4], *b"tide");
        for mine in [&a, &b] {
            let opened = Locker::open(&[1; 16], &sealed, mine)?;
            assert_eq!(opened.unlock(7, locked.clone()).as_deref(), Some(&b"tide"[..]));
            assert_eq!(opened.unlock(8, locked.clone()), None);
        }
        assert!(matches!(Locker::open(&[1; 16], &sealed, &stranger), Err(Error::NotForMe { .. })));
        assert!(Locker::open(&[2; 16], &sealed, &a).is_err());
        assert_eq!(BundleKey::of(&keys[0])?.public(), a.public());
        Ok(())
    }
}
