//! Grants: signed statements of a node about what another one may do. Whoever reads one opens it, and with that checks its
//! signature; one that is forged, cut or too long says nothing. Which of them count for a peer is told by [`standing`].

use crate::key::{NodeKey, PublicKey, SIGNATURE_BYTES};
use atoll_storage::granted::{self, Statement};
use atoll_storage::read::Read;
use atoll_storage::tx::Tx;
use atoll_storage::{NodeId, Rights, peer};
use bincode::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// A statement is never longer: keys, a signature, and what rights may name.
pub const MAX_GRANT_BYTES: usize = 4_096;
const FORMAT: u8 = 1;
/// Before what is signed, so that the signature fits nothing else.
const CONTEXT: &[u8] = b"atoll grant 1\0";
/// Greater ones are nobody's honest ones.
const MAX_SERIAL: u64 = 1 << 53;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    pub issuer: PublicKey,
    pub holder: PublicKey,
    pub rights: Rights,
    /// Of two statements of one issuer about one holder, the higher one counts.
    pub serial: u64,
    /// Unix milliseconds, by the issuer's clock.
    pub issued_ms: u64,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GrantError {
    #[error("a grant was made by a newer version: upgrade this node")]
    Newer,
    #[error("the bytes are no grant")]
    Malformed,
    #[error("a grant was not signed by the node that it names")]
    Forged,
    #[error("a grant is about the node that made it")]
    OfItself,
}

impl Grant {
    /// One byte that tells the format, then the statement, then its signature.
    ///
    /// # Errors
    /// `Malformed` for rights that no grant can hold; `Forged` with another key than the issuer's.
    pub fn sign(&self, key: &NodeKey) -> Result<Vec<u8>, GrantError> {
        self.check()?;
        if key.public() != self.issuer {
            return Err(GrantError::Forged);
        }
        let body = bincode::encode_to_vec(self, bincode::config::standard());
        let body = body.map_err(|_| GrantError::Malformed)?;
        let signature = key.sign(&[CONTEXT, &body].concat());
        let bytes = [&[FORMAT], &body[..], &signature].concat();
        if bytes.len() > MAX_GRANT_BYTES { Err(GrantError::Malformed) } else { Ok(bytes) }
    }

    /// # Errors
    /// Why the bytes are no sound statement of the issuer that they name.
    pub fn open(bytes: &[u8]) -> Result<Self, GrantError> {
        if bytes.len() > MAX_GRANT_BYTES {
            return Err(GrantError::Malformed);
        }
        let (format, rest) = bytes.split_first().ok_or(GrantError::Malformed)?;
        match *format {
            FORMAT => {}
            0 => return Err(GrantError::Malformed),
            _ => return Err(GrantError::Newer),
        }
        let (body, signature) =
            rest.split_last_chunk::<SIGNATURE_BYTES>().ok_or(GrantError::Malformed)?;
        let config = bincode::config::standard().with_limit::<MAX_GRANT_BYTES>();
        let grant: Self = match bincode::decode_from_slice(body, config) {
            Ok((grant, used)) if used == body.len() => grant,
            _ => return Err(GrantError::Malformed),
        };
        grant.check()?;
        let signed = grant.issuer.verify(&[CONTEXT, body].concat(), signature);
        signed.map_err(|_| GrantError::Forged)?;
        Ok(grant)
    }

    /// As a node keeps it.
    pub fn statement(&self, bytes: Vec<u8>) -> Statement {
        let (issuer, holder) = (self.issuer.node_id(), self.holder.node_id());
        Statement { issuer, holder, serial: self.serial, bytes }
    }

    fn check(&self) -> Result<(), GrantError> {
        if self.issuer == self.holder {
            return Err(GrantError::OfItself);
        }
        if self.serial == 0 || self.serial > MAX_SERIAL || self.rights.check().is_err() {
            return Err(GrantError::Malformed);
        }
        Ok(())
    }
}

/// Opens a statement that is kept, and makes sure that it is of whom it is kept for.
pub fn open_kept(statement: &Statement) -> Result<Grant, GrantError> {
    let grant = Grant::open(&statement.bytes)?;
    let is_of = (grant.issuer.node_id(), grant.holder.node_id());
    if is_of == (statement.issuer, statement.holder) { Ok(grant) } else { Err(GrantError::Forged) }
}

/// Says what a node may do from now on, and keeps that. None if that is so already; who was never spoken of may do everything.
pub fn issue(
    tx: &mut Tx<'_>,
    key: &NodeKey,
    holder: PublicKey,
    rights: Rights,
) -> atoll_storage::Result<Option<Grant>> {
    let kept = granted::find(tx, key.node_id(), holder.node_id())?;
    let is_so = match &kept {
        None => rights == Rights::everything(),
        Some(kept) => open_kept(kept).is_ok_and(|grant| grant.rights == rights),
    };
    if is_so {
        return Ok(None);
    }
    let issued_ms = tx.now_ms();
    // A node that was restored may not know the last number that it gave: the time is above it all the same.
    let serial = kept.map_or(1, |kept| kept.serial + 1).max(issued_ms.min(MAX_SERIAL));
    let grant = Grant { issuer: key.public(), holder, rights, serial, issued_ms };
    let bytes =
        grant.sign(key).map_err(|error| atoll_storage::Error::Malformed(error.to_string()))?;
    granted::keep(tx, &grant.statement(bytes))?;
    Ok(Some(grant))
}

/// What each node that was spoken of may do here: what this node says of it, narrowed by what is said by each peer that is
/// itself trusted with everything. All others may do everything, if they are peers.
pub fn standing(reader: &impl Read, me: NodeId) -> atoll_storage::Result<BTreeMap<NodeId, Rights>> {
    let kept = granted::list(reader)?;
    let (own, of_others): (Vec<_>, Vec<_>) = kept.iter().partition(|one| one.issuer == me);
    let mut standing = BTreeMap::new();
    for one in own {
        // What this node said and cannot read any more was no wider than nothing at all.
        let rights = open_kept(one).map_or_else(|_| Rights::nothing(), |grant| grant.rights);
        standing.insert(one.holder, rights);
    }
    let is_trusted = |node: &NodeId| standing.get(node).is_none_or(Rights::is_whole);
    let listed = peer::list(reader)?.into_iter().map(|peer| peer.node);
    let trusted: BTreeSet<NodeId> = listed.filter(is_trusted).collect();
    for one in of_others.into_iter().filter(|one| trusted.contains(&one.issuer)) {
        if let Ok(grant) = open_kept(one) {
            let rights = standing.entry(one.holder).or_insert_with(Rights::everything);
            *rights = rights.meet(&grant.rights);
        }
    }
    standing.remove(&me);
    Ok(standing)
}

/// What others said that this node may do with them, by who said so.
pub fn held(reader: &impl Read, me: NodeId) -> atoll_storage::Result<BTreeMap<NodeId, Rights>> {
    let kept = granted::list(reader)?;
    let mine = kept.iter().filter(|one| one.holder == me);
    Ok(mine.filter_map(|one| Some((one.issuer, open_kept(one).ok()?.rights))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::Id;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn grant(issuer: &NodeKey) -> Grant {
        let rights = Rights { write: false, until_ms: Some(9), ..Rights::everything() };
        let (issuer, holder) = (issuer.public(), PublicKey([7; 32]));
        Grant { issuer, holder, rights, serial: 3, issued_ms: 5 }
    }

    #[test]
    fn a_grant_reads_back_and_the_longest_one_fits() -> Outcome {
        let key = NodeKey::generate()?;
        let mut one = grant(&key);
        assert_eq!(Grant::open(&one.sign(&key)?)?, one);
        let scope = |n: usize| format!("{n:0>64}");
        let tenants = (0..atoll_storage::rights::MAX_TENANTS as u8).map(|n| Id([n; 16]));
        one.rights.tenants = Some(tenants.collect());
        one.rights.scopes = Some((0..atoll_storage::rights::MAX_SCOPES).map(scope).collect());
        (one.serial, one.issued_ms) = (MAX_SERIAL, u64::MAX);
        assert_eq!(Grant::open(&one.sign(&key)?)?, one);
        Ok(())
    }

    #[test]
    fn what_was_cut_flipped_or_signed_by_another_says_nothing() -> Outcome {
        let (key, other) = (NodeKey::generate()?, NodeKey::generate()?);
        let bytes = grant(&key).sign(&key)?;
        for end in 0..bytes.len() {
            assert!(Grant::open(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(Grant::open(&flipped).is_err(), "bit {at}");
        }
        assert_eq!(grant(&key).sign(&other), Err(GrantError::Forged));
        // The same words, signed by somebody else.
        let body = &bytes[1..bytes.len() - SIGNATURE_BYTES];
        let signature = other.sign(&[CONTEXT, body].concat());
        let forged = [&[FORMAT], body, &signature].concat();
        assert_eq!(Grant::open(&forged), Err(GrantError::Forged));
        // Signed for something else.
        let forged = [&[FORMAT], body, &key.sign(body)].concat();
        assert_eq!(Grant::open(&forged), Err(GrantError::Forged));
        assert_eq!(Grant::open(&[&[9], &bytes[1..]].concat()), Err(GrantError::Newer));
        assert_eq!(Grant::open(&vec![FORMAT; 1 << 20]), Err(GrantError::Malformed));
        Ok(())
    }

    #[test]
    fn no_node_grants_itself_anything_and_no_number_is_absurd() -> Outcome {
        let key = NodeKey::generate()?;
        let itself = Grant { holder: key.public(), ..grant(&key) };
        assert_eq!(itself.sign(&key), Err(GrantError::OfItself));
        for serial in [0, MAX_SERIAL + 1] {
            let absurd = Grant { serial, ..grant(&key) };
            assert_eq!(absurd.sign(&key), Err(GrantError::Malformed));
        }
        Ok(())
    }

    #[test]
    fn a_statement_counts_only_for_the_holder_that_it_names() -> Outcome {
        let key = NodeKey::generate()?;
        let one = grant(&key);
        let kept = one.statement(one.sign(&key)?);
        assert_eq!(open_kept(&kept)?, one);
        let moved = Statement { holder: NodeId([9; 16]), ..kept.clone() };
        assert_eq!(open_kept(&moved), Err(GrantError::Forged));
        let claimed = Statement { issuer: NodeId([9; 16]), ..kept };
        assert_eq!(open_kept(&claimed), Err(GrantError::Forged));
        Ok(())
    }
}
