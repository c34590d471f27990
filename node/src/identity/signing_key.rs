//! The keys that sign access tokens: each node has its own, and publishes the public half to the network, so that
//! a token made on one node is good on all. The private half never leaves its file and this process.

use super::refused;
use crate::error::{Error, Result};
use crate::peer::revocation;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Record};
use atoll_sync::key::{NodeKey, PublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use std::path::Path;

pub const NODE: Field =
    Field::text(1, "node").required().max(32).read_only().doc("The node that signs with it.");
pub const PUBLIC_KEY: Field =
    Field::bytes(2, "public_key").required().max(32).read_only().doc("Ed25519.");

pub static SIGNING_KEY: Kind = Kind {
    fields: &[NODE, PUBLIC_KEY],
    silent: true,
    doc: "A public key that a node signs access tokens with.",
    ..Kind::new(2, "signing_key", "signing_keys", "network")
};

/// More than a network has nodes.
const MOST_KEYS: usize = 1_000;

/// This node's own key.
pub(super) struct Signer {
    key: NodeKey,
    pub node: NodeId,
    pub kid: Id,
}

impl Signer {
    pub fn open(path: &Path, node: NodeId) -> Result<Self> {
        let key = NodeKey::load_or_create(path).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Self { kid: id_of(&key.public().0), key, node })
    }

    /// A compact JWS. The header is fixed: there is no other algorithm here.
    pub fn sign(&self, claims: &impl serde::Serialize) -> Result<String> {
        let header = json!({ "typ": "JWT", "alg": "EdDSA", "kid": self.kid });
        let claims = serde_json::to_vec(claims).map_err(|e| Error::Internal(e.to_string()))?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// `message` begins with a text that says what is signed.
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message)
    }

    pub fn draft(&self) -> Draft {
        Draft { kid: self.kid, node: self.node, public: self.key.public().0 }
    }

    /// Why what was signed by this node's own key, if this is its id, is good nowhere.
    pub fn check(&self, reader: &impl Read, kid: Id) -> atoll_storage::Result<Result<()>> {
        let is_removed = kid == self.kid && revocation::is_revoked(reader, self.node)?;
        Ok(if is_removed { Err(removed()) } else { Ok(()) })
    }
}

fn removed() -> Error {
    refused(
        "node_removed",
        "this node was removed from the network, and nobody can sign in on it: use another node. If it shall be part of the network again, give it a new data folder and a new ticket; what only it has, `atoll export` takes out first",
    )
}

/// The public half, to be published in the transaction that makes the first token.
#[derive(Clone, Copy)]
pub(super) struct Draft {
    kid: Id,
    node: NodeId,
    public: [u8; 32],
}

impl Draft {
    /// # Errors
    /// `Unauthenticated` (`node_removed`) if the network refuses this node: no token of it is good anywhere.
    pub fn publish(self, tx: &mut Tx) -> Result<()> {
        if revocation::is_revoked(tx, self.node)? {
            return Err(removed());
        }
        if tx.get(&SIGNING_KEY, self.kid)?.is_none() {
            let changes = Changes::new()
                .set(&NODE, self.node.to_string())
                .set(&PUBLIC_KEY, atoll_storage::Value::Bytes(self.public.to_vec()));
            tx.create(&SIGNING_KEY, Id::NIL, self.kid, changes)?;
        }
        Ok(())
    }
}

/// A key of the network, as read from its record.
#[derive(Clone)]
pub(super) struct KnownKey {
    pub node: NodeId,
    pub public: [u8; 32],
}

impl KnownKey {
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        PublicKey(self.public).verify(message, signature).is_ok()
    }
}

/// Tokens of a node that is cut off are good nowhere any more. If it comes back it publishes its key anew.
pub fn withdraw(tx: &mut Tx, node: NodeId) -> atoll_storage::Result<()> {
    let query = Query::of(&SIGNING_KEY, Id::NIL).limit(MOST_KEYS).without_total();
    for key in tx.list(&query)?.records {
        if NodeId::parse(key.text(&NODE)) == Some(node) {
            tx.remove(&SIGNING_KEY, key.key)?;
        }
    }
    Ok(())
}

pub(super) fn find(reader: &impl Read, kid: Id) -> atoll_storage::Result<Option<KnownKey>> {
    let Some(key) = reader.get(&SIGNING_KEY, kid)?.as_ref().and_then(trusted) else {
        return Ok(None);
    };
    // It may have been published again by way of a node that had not heard.
    Ok((!revocation::is_revoked(reader, key.node)?).then_some(key))
}

/// A record counts only if the node that it names made it, and if its id is that of its key: nobody can publish a
/// key for another node, or change one.
fn trusted(record: &Record) -> Option<KnownKey> {
    let node = NodeId::parse(record.text(&NODE))?;
    let public: [u8; 32] = record.bytes(&PUBLIC_KEY)?.try_into().ok()?;
    let own = record.state.creations.keys().all(|dot| dot.origin.node == node);
    (own && record.tenant == Id::NIL && record.key == id_of(&public))
        .then_some(KnownKey { node, public })
}

fn id_of(public: &[u8; 32]) -> Id {
    Id::natural(&[b"signing_key", public])
}

/// The network's keys as a JSON Web Key Set (RFC 7517, RFC 8037).
pub fn jwks(node: &Node) -> Result<Json> {
    let known = node.store.read(|reader| {
        let query = Query::of(&SIGNING_KEY, Id::NIL).limit(MOST_KEYS);
        let mut known = Vec::new();
        for record in reader.list(&query)?.records {
            known.extend(find(reader, record.key)?.map(|key| (record.key, key.public)));
        }
        Ok::<_, atoll_storage::Error>(known)
    })?;
    let mut keys: Vec<Json> = known.iter().map(|(kid, public)| jwk(*kid, public)).collect();
    let own = node.identity.signer.draft();
    if !known.iter().any(|(kid, _)| *kid == own.kid) {
        keys.push(jwk(own.kid, &own.public));
    }
    Ok(json!({ "keys": keys }))
}

fn jwk(kid: Id, public: &[u8; 32]) -> Json {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": kid,
        "x": URL_SAFE_NO_PAD.encode(public),
    })
}
