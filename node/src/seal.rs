//! Sealing what this node wrote, and proving what others wrote by their seals: see [`atoll_storage::seal`]. Signs nothing
//! but names of segments of this node's own ops.

use crate::access::{Actor, Permission};
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::seal::{self, Examined, Segment, Standing, Verdict, seals};
use atoll_storage::tx::Tx;
use atoll_storage::{Kind, NodeId};
use atoll_sync::key::PublicKey;

pub static NETWORK_SEAL: Kind = seals(92, "network_seal", "network_seals", "network");
pub static IDENTITY_SEAL: Kind = seals(93, "identity_seal", "identity_seals", "identity");
pub static AUDIT_SEAL: Kind = seals(94, "audit_seal", "audit_seals", crate::audit::SCOPE);
pub static USAGE_SEAL: Kind = seals(95, "usage_seal", "usage_seals", "usage");
pub static CONTENT_SEAL: Kind = seals(96, "content_seal", "content_seals", crate::content::SCOPE);
pub static COMMUNITY_SEAL: Kind =
    seals(97, "community_seal", "community_seals", crate::community::SCOPE);
pub static INSIGHT_SEAL: Kind = seals(98, "insight_seal", "insight_seals", crate::insight::SCOPE);
pub static INBOX_SEAL: Kind = seals(99, "inbox_seal", "inbox_seals", "inbox");

/// What is older is sealed, however little it is.
const AGE_MS: u64 = 24 * 3_600_000;
/// Segments that are sealed or proven in one transaction, and how many of those there are in a round.
const AT_ONCE: usize = 16;
const STEPS: usize = 64;

/// Seals what is due, proves what came, drops seals of what has left the log. What is left goes in the next round.
pub(crate) fn round(node: &Node) -> Result<()> {
    let older_than_ms = node.clock.now_ms().saturating_sub(AGE_MS);
    seal_older(node, older_than_ms)?;
    prove(node)?;
    let id = node.id();
    while node.store.write_blocking(move |tx: &mut Tx| tx.drop_old_seals(id, AT_ONCE))? == AT_ONCE {
    }
    Ok(())
}

/// Seals full segments, and all ops from before a time. How many segments.
pub fn seal_older(node: &Node, than_ms: u64) -> Result<usize> {
    let mut sealed = 0;
    for _ in 0..STEPS {
        let due = node.store.read(|reader| seal::due(reader, node.id(), than_ms, AT_ONCE))?;
        if due.is_empty() {
            break;
        }
        sealed += due.len();
        let key = node.key().public().0;
        let signed: Vec<(Segment, [u8; 64])> = due
            .into_iter()
            .map(|segment| {
                let signature = node.key().sign(&segment.message());
                (segment, signature)
            })
            .collect();
        node.store.write_blocking(move |tx: &mut Tx| {
            signed.iter().try_for_each(|(segment, signature)| tx.seal(segment, key, signature))
        })?;
    }
    Ok(sealed)
}

/// Looks at the seals that came, until a look finds none of which all ops are here. How many segments were proven.
pub fn prove(node: &Node) -> Result<usize> {
    let mut proven = 0;
    for _ in 0..STEPS {
        let look = node.store.read(|reader| seal::examine(reader, AT_ONCE, is_signed))?;
        if look.is_idle() {
            break;
        }
        let is_over = look.examined.is_empty();
        proven += look.examined.iter().filter(|one| one.verdict == Verdict::Proven).count();
        look.examined.iter().for_each(tell);
        node.store.write_blocking(move |tx: &mut Tx| tx.note_examined(&look))?;
        if is_over {
            break;
        }
    }
    Ok(proven)
}

/// What is proven, and what does not fit its seal.
///
/// # Errors
/// `Forbidden` without `sync.administer`.
pub fn standing(node: &Node, actor: &Actor) -> Result<Standing> {
    actor.require(Permission::SyncAdminister)?;
    Ok(node.store.read(|reader| seal::standing(reader))?)
}

fn tell(examined: &Examined) {
    if let Verdict::Broken(words) = &examined.verdict {
        tracing::error!("{words}");
    }
}

fn is_signed(key: &[u8; 32], node: NodeId, message: &[u8], signature: &[u8]) -> bool {
    let key = PublicKey(*key);
    key.node_id() == node && key.verify(message, signature).is_ok()
}
