//! Who is who: tenants, users, their sessions and keys, and the tokens that prove them on every node of the network.
//! Never keeps a password, a token or a key, only hashes of them; never takes a role from a token.

pub mod api_key;
pub mod author;
pub mod avatar;
pub mod email;
pub(crate) mod letter;
mod lockout;
mod names;
pub mod oidc;
pub mod password;
mod proof;
mod recent;
pub mod reset;
pub mod role;
pub mod second_factor;
pub mod session;
pub mod signing_key;
pub mod tenant;
mod ticket;
pub mod token;
mod totp;
pub mod user;

use crate::access::{Actor, Role};
use crate::audit::failure::Failures;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::{Event, Id, NodeId, Record, Store, Tx};
use std::path::Path;

pub use session::{SignedIn, login, logout, refresh};
pub use token::authenticate;
pub use user::NewUser;

/// What this context keeps in memory: the key that signs this node's tokens, and bounded caches.
/// Everything cached is only good for the commit at which it was read.
pub struct Identity {
    signer: signing_key::Signer,
    tokens: token::Cache,
    tenants: tenant::Directory,
    attempts: lockout::Attempts,
    pub(crate) failures: Failures,
    store: Store,
    /// Letters that were asked for, by address or user.
    letters: lockout::Attempts,
    keys_used: api_key::Used,
    providers: oidc::Providers,
}

impl Identity {
    /// Reads the key that signs tokens from `token.key` in the data folder, or makes it there (mode 0600, on disk
    /// before this returns).
    pub fn open(folder: &Path, store: &Store, node: NodeId) -> Result<Self> {
        Ok(Self {
            signer: signing_key::Signer::open(&folder.join("token.key"), node)?,
            tokens: token::Cache::default(),
            tenants: tenant::Directory::default(),
            attempts: lockout::Attempts::default(),
            failures: Failures::default(),
            store: store.clone(),
            letters: lockout::Attempts::default(),
            keys_used: api_key::Used::default(),
            providers: oidc::Providers::default(),
        })
    }

    /// The number of the latest commit that changed who may do what. Take it before the reads whose result is cached
    /// under it.
    fn commit(&self) -> u64 {
        self.store.access_changes()
    }
}

/// What the first start makes.
#[derive(Clone, Debug)]
pub struct Created {
    pub tenant: Record,
    pub user: Record,
}

/// Makes the default tenant and the network's first superadmin. A node that joins a network never calls it.
///
/// # Errors
/// `Conflict` (`already_set_up`) when there is a tenant.
pub async fn setup(node: &Node, admin_email: &str, password: &str) -> Result<Created> {
    let local = admin_email.split('@').next().unwrap_or_default();
    let admin = NewUser {
        email: admin_email.to_owned(),
        username: user::username_from(local, "admin"),
        display_name: String::new(),
        password: password.to_owned(),
        role: Role::Superadmin,
        must_change_password: false,
    };
    let tenant = tenant::NewTenant {
        name: "Default".to_owned(),
        slug: "default".to_owned(),
        domain: None,
        only_if_first: true,
    };
    let actor = Actor::system(Id::NIL);
    let (tenant, user) = tenant::create(node, &actor, tenant, admin).await?;
    Ok(Created { tenant, user })
}

/// 401 for whoever presents something that is not, or no longer, good.
fn refused(code: &'static str, message: &str) -> Error {
    Error::Unauthenticated(code, message.to_owned())
}

/// An event of this context, in the transaction of what it tells.
fn announce(
    tx: &mut Tx,
    event_type: &'static str,
    tenant: Id,
    user: Option<Id>,
    payload: serde_json::Value,
) -> Result<()> {
    tx.emit(&Event { event_type, tenant, user, payload })?;
    Ok(())
}
