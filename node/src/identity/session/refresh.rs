//! Refresh tokens: each is good once, and gives the next. A token counts its turns and is signed by the node that gave
//! it, so that a node which has not heard of the last turns tells a newer token from an old one. What shows a token
//! used twice, at once or when nodes meet, ends the session.

use super::{
    EXPIRES_AT, FAMILY_HASH, LONGEST_SESSION_MS, REFRESH_LIFETIME_MS, SESSION, SignedIn,
    TOKEN_HASH, USER_ID, belongs, is_revoked, revoke, signed_in,
};
use crate::access::Actor;
use crate::audit;
use crate::error::Result;
use crate::identity::signing_key::{self, Signer};
use crate::identity::{announce, refused, tenant, user};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::state::Cell;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, json};
use std::cmp::Ordering;

const SECRET_BYTES: usize = 24;
const SIGNATURE_BYTES: usize = 64;
/// Session, family, latest and turn: what is signed.
const SIGNED_BYTES: usize = 16 + 2 * SECRET_BYTES + 4;
const TOKEN_BYTES: usize = SIGNED_BYTES + 16 + SIGNATURE_BYTES;
const CONTEXT: &[u8] = b"atoll 2026 refresh token";

/// What a refresh token holds: a secret that all of its session share, one of its own, and how many came before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Secrets {
    pub family: [u8; SECRET_BYTES],
    pub latest: [u8; SECRET_BYTES],
    pub turn: u32,
}

impl Secrets {
    fn message(&self, session: Id) -> Vec<u8> {
        let turn = self.turn.to_be_bytes();
        [CONTEXT, &session.0, &self.family, &self.latest, &turn].concat()
    }

    /// `base64url(session, family, latest, turn, key, signature)`
    pub fn to_text(self, session: Id, signer: &Signer) -> String {
        let message = self.message(session);
        let signature = signer.sign_bytes(&message);
        let signed = message.get(CONTEXT.len()..).unwrap_or_default();
        URL_SAFE_NO_PAD.encode([signed, &signer.kid.0, &signature].concat())
    }

    /// What stands in `token_hash`.
    pub fn kept(&self) -> Value {
        let hash = blake3::hash(&self.latest);
        Value::Bytes([&hash.as_bytes()[..], &self.turn.to_be_bytes()].concat())
    }

    pub fn family_kept(&self) -> Value {
        Value::Bytes(blake3::hash(&self.family).as_bytes().to_vec())
    }
}

/// A token as somebody presents it.
#[derive(Clone, Copy)]
struct Presented {
    session: Id,
    secrets: Secrets,
    kid: Id,
    signature: [u8; SIGNATURE_BYTES],
}

impl Presented {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (session, rest) = bytes.split_at(16);
        let (family, rest) = rest.split_at(SECRET_BYTES);
        let (latest, rest) = rest.split_at(SECRET_BYTES);
        let (turn, rest) = rest.split_at(4);
        let (kid, signature) = rest.split_at(16);
        let presented = Self {
            session: Id::from_slice(session)?,
            secrets: Secrets {
                family: family.try_into().ok()?,
                latest: latest.try_into().ok()?,
                turn: u32::from_be_bytes(turn.try_into().ok()?),
            },
            kid: Id::from_slice(kid)?,
            signature: signature.try_into().ok()?,
        };
        (read == TOKEN_BYTES).then_some(presented)
    }

    /// Whether a node of the network gave it.
    fn is_signed(&self, reader: &impl Read) -> atoll_storage::Result<bool> {
        let key = signing_key::find(reader, self.kid)?;
        let message = self.secrets.message(self.session);
        Ok(key.is_some_and(|key| key.has_signed(&message, &self.signature)))
    }
}

/// What a session keeps of a refresh token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    turn: u32,
    hash: [u8; 32],
}

impl Kept {
    fn of(cell: &Cell) -> Option<Self> {
        let Value::Bytes(bytes) = &cell.value else { return None };
        let (hash, turn) = bytes.split_at_checked(32)?;
        Some(Self { turn: u32::from_be_bytes(turn.try_into().ok()?), hash: hash.try_into().ok()? })
    }

    /// Of the latest token; where nodes apart each gave some, of the one with most before it.
    fn latest(session: &Record) -> Option<Self> {
        let cells = session.state.cells_of(TOKEN_HASH.code).iter();
        cells.filter_map(Self::of).max()
    }

    fn is_of(self, secrets: &Secrets) -> bool {
        // Hashes from blake3 compare in constant time.
        self.turn == secrets.turn
            && blake3::hash(&secrets.latest) == blake3::Hash::from_bytes(self.hash)
    }
}

/// Whether two nodes that were apart each took one and the same refresh token: one of the two who had it stole it.
pub(super) fn has_forked(session: &Record) -> bool {
    let cells = session.state.cells_of(TOKEN_HASH.code);
    let mut all: Vec<Kept> = cells.iter().filter_map(Kept::of).collect();
    all.sort_unstable();
    all.windows(2).any(|pair| pair[0].turn == pair[1].turn && pair[0].hash != pair[1].hash)
}

/// A new pair of tokens for a refresh token, which is then used up.
///
/// # Errors
/// `Unauthenticated`: `token_invalid`, `token_expired`, `session_ended`, `account_disabled`; `token_reused` for a
/// token that was used before, which also ends the session, since one of the two who had it stole it.
pub async fn refresh(node: &Node, refresh_token: &str) -> Result<SignedIn> {
    let invalid = || refused("token_invalid", "this is no refresh token: sign in");
    let presented = Presented::parse(refresh_token).ok_or_else(invalid)?;
    let next = Secrets {
        family: presented.secrets.family,
        latest: node.random(),
        turn: presented.secrets.turn.saturating_add(1),
    };
    let key = node.identity.signer.draft();
    // A reuse has to be committed, so it is no error inside the transaction.
    let outcome = node
        .store
        .write(move |tx| {
            key.publish(tx)?;
            rotate(tx, &presented, &next)
        })
        .await?;
    let (user, lifetime_ms) = outcome?;
    signed_in(node, user, presented.session, &next, lifetime_ms)
}

type Rotated = Result<(Record, u64)>;

fn rotate(tx: &mut Tx, presented: &Presented, next: &Secrets) -> Result<Rotated> {
    let now = tx.now_ms();
    let (session, user) = match holder(tx, presented)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let known = Kept::latest(&session);
    let is_good = match known.map(|known| presented.secrets.turn.cmp(&known.turn)) {
        Some(Ordering::Equal) => known.is_some_and(|known| known.is_of(&presented.secrets)),
        // Given by a node that this one has not heard of since.
        Some(Ordering::Greater) => presented.is_signed(tx)?,
        _ => false,
    };
    if !is_good {
        return Ok(Err(end_reused(tx, &session, &user)?));
    }
    let id = session.key;
    let last = (id.created_ms() + LONGEST_SESSION_MS).min(now + REFRESH_LIFETIME_MS);
    if session.int(&EXPIRES_AT).is_none_or(|at| at as u64 <= now) || last <= now {
        return Ok(Err(refused("token_expired", "the refresh token has expired: sign in again")));
    }
    if !user::is_active(&user) {
        return Ok(Err(refused(
            "account_disabled",
            "this account is disabled: ask an administrator",
        )));
    }
    let changes = Changes::new().set(&TOKEN_HASH, next.kept()).set(&EXPIRES_AT, last);
    tx.edit(&SESSION, id, changes)?;
    Ok(Ok((user, last - now)))
}

/// The session that holds, with its user, if the token is of its family.
fn holder(tx: &mut Tx, presented: &Presented) -> Result<Result<(Record, Record)>> {
    let Some(session) = tx.get(&SESSION, presented.session)? else {
        return Ok(Err(refused(
            "token_invalid",
            "the session of this token is not known here: sign in",
        )));
    };
    if *session.value(&FAMILY_HASH) != presented.secrets.family_kept() {
        return Ok(Err(refused("token_invalid", "this is no refresh token: sign in")));
    }
    let user = session.id(&USER_ID).map_or(Ok(None), |user| tx.get(&user::USER, user))?;
    let Some(user) = user.filter(|user| belongs(&session, user)) else {
        return Ok(Err(refused("session_ended", "the account of this session is gone")));
    };
    let is_home = tenant::is_there(tx, user.tenant)?;
    if is_revoked(&session) || user::has_signed_out(&user, session.key) || !is_home {
        return Ok(Err(refused("session_ended", "this session has ended: sign in again")));
    }
    Ok(Ok((session, user)))
}

fn end_reused(tx: &mut Tx, session: &Record, user: &Record) -> Result<crate::error::Error> {
    revoke(tx, session)?;
    let payload = json!({ "user_id": user.key, "session_id": session.key });
    announce(tx, "cortex.session.token_reused", user.tenant, Some(user.key), payload)?;
    let mut told = Map::new();
    told.insert("session_id".to_owned(), json!(session.key));
    let (nobody, target) = (Actor::stranger(user.tenant), Some((user.kind.name, user.key)));
    audit::note_in(tx, user.tenant, &nobody, "session.token_reused", target, told)?;
    let message = "this refresh token was used before, so its session was ended: sign in again";
    Ok(refused("token_reused", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::NodeId;

    fn secrets() -> Secrets {
        Secrets { family: [1; SECRET_BYTES], latest: [2; SECRET_BYTES], turn: 7 }
    }

    #[test]
    fn a_refresh_token_reads_back_and_anything_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(&folder.path().join("token.key"), NodeId([3; 16])).unwrap();
        let text = secrets().to_text(Id([9; 16]), &signer);
        let read = Presented::parse(&text).unwrap();
        assert_eq!((read.session, read.secrets, read.kid), (Id([9; 16]), secrets(), signer.kid));
        assert_eq!(read.signature, signer.sign_bytes(&secrets().message(Id([9; 16]))));
        for bad in ["", "a.b.c", &text[1..], &format!("{text}A"), &"é".repeat(99)] {
            assert!(Presented::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_fits_its_own_token_only() {
        let Value::Bytes(bytes) = secrets().kept() else { panic!("no bytes") };
        assert!(bytes.len() <= TOKEN_HASH.max);
        let kept = Kept { turn: 7, hash: *blake3::hash(&[2; SECRET_BYTES]).as_bytes() };
        assert_eq!(bytes, [&kept.hash[..], &7_u32.to_be_bytes()].concat());
        assert!(kept.is_of(&secrets()));
        assert!(!kept.is_of(&Secrets { turn: 8, ..secrets() }));
        assert!(!kept.is_of(&Secrets { latest: [3; SECRET_BYTES], ..secrets() }));
    }
}
