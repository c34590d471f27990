//! The first start of a data folder: a network of its own with a first admin, or a place in another's.

use crate::failure::{Failure, Outcome};
use crate::secret;
use atoll_node::identity::{self, tenant};
use atoll_node::{Actor, Node, peer};
use atoll_storage::Id;
use std::sync::Arc;

/// Never read from a file or a flag: both are seen by others.
pub const PASSWORD_VARIABLE: &str = "ATOLL_ADMIN_PASSWORD";

/// What the person in front of the terminal must be told.
pub struct Admin {
    pub email: String,
    /// Only if it was made up.
    pub password: Option<String>,
}

/// Makes tenant and admin if this folder belongs to no network yet. None if there was nothing to do.
pub async fn found(node: &Node) -> Outcome<Option<Admin>> {
    if belongs(node)? {
        return Ok(None);
    }
    let given = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty());
    let email = node.config.admin_email.clone();
    let (password, made) = secret::or_made(node, given);
    identity::setup(node, &email, &password).await?;
    Ok(Some(Admin { email, password: made }))
}

/// A network that this node belongs to now, by the name of the node that let it in.
pub struct Joined {
    pub name: String,
    pub is_new: bool,
}

impl std::fmt::Display for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_new {
            write!(f, "Joined the network of {}.", self.name)
        } else {
            write!(f, "This node belongs to the network of {} already.", self.name)
        }
    }
}

/// Takes a new folder into the network of whoever made the ticket. The node must have been started.
pub async fn join(node: &Arc<Node>, ticket: &str) -> Outcome<Joined> {
    let whole = Actor::system(Id::NIL);
    if belongs(node)? {
        let peers = peer::list(node, &whole)?;
        let key = atoll_sync::ticket::Ticket::from_line(ticket).map(|ticket| ticket.public_key);
        let known =
            peers.into_iter().find(|peer| key.as_ref().is_ok_and(|key| *key == peer.public_key));
        if let Some(peer) = known {
            return Ok(Joined { name: peer.name, is_new: false });
        }
        return Err(Failure::failed(
            "this data folder belongs to a network already: use a new one, or leave --join out",
        ));
    }
    let peer = peer::join(node, &whole, ticket).await?;
    Ok(Joined { name: peer.name, is_new: true })
}

/// Takes a new folder into the network of the node with this key, which no link leads to.
pub async fn list(node: &Node, key: &str, name: &str) -> Outcome {
    if belongs(node)? {
        return Err(Failure::failed(
            "this data folder belongs to a network already: use a new one, or `atoll peer add`",
        ));
    }
    peer::add(node, &Actor::system(Id::NIL), key, name, None).await?;
    Ok(())
}

fn belongs(node: &Node) -> Outcome<bool> {
    Ok(!tenant::ids(node)?.is_empty() || !peer::list(node, &Actor::system(Id::NIL))?.is_empty())
}
