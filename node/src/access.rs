//! Who may do what: named permissions, the five built-in roles as sets of them, and the actor of a request.
//! Never reads the store: whoever makes an [`Actor`] has looked up his roles, and the scopes of his key.

mod permission;

use crate::error::{Error, Result};
use Permission as P;
use atoll_storage::Id;
pub use permission::{Permission, PermissionSet};
use std::net::IpAddr;

/// A named set of permissions. Ordered by rank: nobody gives a role above his own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    Viewer,
    Moderator,
    Editor,
    Admin,
    /// All permissions, in every tenant of the network.
    Superadmin,
}

impl Role {
    pub const ALL: &'static [Self] =
        &[Self::Viewer, Self::Moderator, Self::Editor, Self::Admin, Self::Superadmin];
    /// For a field's closed list of values.
    pub const NAMES: &'static [&'static str] =
        &["viewer", "moderator", "editor", "admin", "superadmin"];

    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.name() == name)
    }

    pub const fn permissions(self) -> &'static [Permission] {
        const VIEWER: &[Permission] = &[P::CommentsWrite];
        const MODERATOR: &[Permission] = &[P::CommentsWrite, P::CommentsModerate];
        const EDITOR: &[Permission] = &[
            P::CommentsWrite,
            P::CommentsModerate,
            P::PostsWrite,
            P::PostsPublish,
            P::CategoriesWrite,
            P::TagsWrite,
            P::AnalyticsRead,
            P::ConflictsRead,
        ];
        const ADMIN: &[Permission] = &[
            P::CommentsWrite,
            P::CommentsModerate,
            P::PostsWrite,
            P::PostsPublish,
            P::PostsAdminister,
            P::CategoriesWrite,
            P::CategoriesApprove,
            P::CategoriesAdminister,
            P::TagsWrite,
            P::TagsAdminister,
            P::AnalyticsRead,
            P::UsersAdminister,
            P::SearchAdminister,
            P::ConflictsRead,
            P::ConflictsResolve,
            P::JobsAdminister,
            P::AuditRead,
            P::SettingsAdminister,
        ];
        match self {
            Self::Viewer => VIEWER,
            Self::Moderator => MODERATOR,
            Self::Editor => EDITOR,
            Self::Admin => ADMIN,
            Self::Superadmin => Permission::ALL,
        }
    }

    pub const fn permission_set(self) -> PermissionSet {
        PermissionSet::of(self.permissions())
    }

    pub const fn doc(self) -> &'static str {
        match self {
            Self::Viewer => "Reads and comments.",
            Self::Moderator => "Moderates comments.",
            Self::Editor => "Writes and publishes posts.",
            Self::Admin => "Runs a tenant.",
            Self::Superadmin => "Runs the network, in every tenant.",
        }
    }

    pub fn can(self, permission: Permission) -> bool {
        self.permission_set().contains(permission)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who acts, and in which tenant. A superadmin may act in a tenant that is not his own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    pub tenant: Id,
    pub user: Option<Id>,
    /// His rank: the highest of the built-in roles that he has.
    pub role: Option<Role>,
    /// All that his roles allow together.
    pub permissions: PermissionSet,
    pub session: Option<Id>,
    /// The API key that he acts by; his permissions are within its scopes.
    pub api_key: Option<Id>,
    /// The administrator who acts in the user's name.
    pub impersonator: Option<Id>,
    /// Where the request came from, as far as it is kept.
    pub net: Option<Net>,
}

impl Actor {
    /// The node itself: workers, the command line, the first start.
    pub const fn system(tenant: Id) -> Self {
        Self {
            role: Some(Role::Superadmin),
            permissions: Role::Superadmin.permission_set(),
            ..Self::stranger(tenant)
        }
    }

    /// Somebody who is not signed in.
    pub const fn stranger(tenant: Id) -> Self {
        Self {
            tenant,
            user: None,
            role: None,
            permissions: PermissionSet::EMPTY,
            session: None,
            api_key: None,
            impersonator: None,
            net: None,
        }
    }

    /// A user with a built-in role and no other.
    pub const fn of(tenant: Id, user: Id, role: Role) -> Self {
        Self {
            user: Some(user),
            role: Some(role),
            permissions: role.permission_set(),
            ..Self::stranger(tenant)
        }
    }

    /// The same by an API key: what its scopes do not hold, he may not.
    #[must_use]
    pub const fn by_key(self, key: Id, scopes: PermissionSet) -> Self {
        let permissions = self.permissions.intersection(scopes);
        Self { permissions, api_key: Some(key), ..self }
    }

    #[must_use]
    pub fn at(self, address: Option<IpAddr>) -> Self {
        Self { net: address.map(Net::of), ..self }
    }

    pub const fn can(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// # Errors
    /// `Unauthenticated` for a stranger, `Denied` for somebody whose roles, or a key whose scopes, lack the permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        match self.role {
            _ if self.can(permission) => Ok(()),
            Some(_) if self.api_key.is_some() => {
                Err(Error::Denied(format!("this API key lacks the permission {permission}")))
            }
            Some(role) => {
                Err(Error::Denied(format!("the role {role} lacks the permission {permission}")))
            }
            None => Err(sign_in()),
        }
    }

    /// Nobody gives what he lacks.
    ///
    /// # Errors
    /// `Denied` that names what is missing.
    pub fn require_all(&self, wanted: PermissionSet) -> Result<()> {
        let lacking = wanted.without(self.permissions);
        if lacking.is_empty() {
            return Ok(());
        }
        let names = lacking.iter().map(Permission::name).collect::<Vec<_>>().join(", ");
        Err(Error::Denied(format!("you lack what this gives: {names}")))
    }

    /// # Errors
    /// `Denied` for an administrator who acts in somebody's name: some things are only for the person himself.
    pub fn require_in_person(&self) -> Result<()> {
        match self.impersonator {
            None => Ok(()),
            Some(_) => Err(Error::Denied(
                "this is not for somebody who acts in another's name: end the impersonation first"
                    .to_owned(),
            )),
        }
    }

    /// # Errors
    /// `Unauthenticated` for a stranger; `Denied` for the node itself, which owns nothing.
    pub fn require_user(&self) -> Result<Id> {
        match (self.user, self.role) {
            (Some(user), _) => Ok(user),
            (None, Some(_)) => {
                Err(Error::Denied("only a user can do this, not the node".to_owned()))
            }
            (None, None) => Err(sign_in()),
        }
    }

    /// The session of somebody who signed in: what concerns an account itself is not for API keys.
    ///
    /// # Errors
    /// As [`Actor::require_user`]; `Denied` for an API key.
    pub fn require_session(&self) -> Result<Id> {
        self.require_user()?;
        let signed_in = "an API key can't do this: sign in with name and password";
        self.session.ok_or_else(|| Error::Denied(signed_in.to_owned()))
    }

    /// The permission, or to be the user that the record belongs to. A key acts as the owner only with some scope
    /// about the permission's noun.
    pub fn require_owner_or(&self, owner: Option<Id>, permission: Permission) -> Result<()> {
        let is_owner = self.user.is_some() && self.user == owner;
        let may = self.api_key.is_none() || self.permissions.touches(permission);
        if is_owner && may { Ok(()) } else { self.require(permission) }
    }
}

/// The network that an address belongs to, wide enough not to name a person: 24 bits of an IPv4 address, 48 of an
/// IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Net {
    V4([u8; 3]),
    V6([u16; 3]),
}

impl Net {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6([a, b, c]) => write!(f, "{a:x}:{b:x}:{c:x}::/48"),
        }
    }
}

fn sign_in() -> Error {
    Error::Unauthenticated(
        "unauthenticated",
        "sign in first, and send the access token as a bearer".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_and_roles_read_back_from_their_names() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.name()), Some(*permission));
        }
        for role in Role::ALL {
            assert_eq!(Role::parse(role.name()), Some(*role));
        }
        assert_eq!(Permission::parse("posts.eat"), None);
    }

    #[test]
    fn a_higher_role_may_all_that_a_lower_one_may() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(
                pair[0].permissions().iter().all(|permission| pair[1].can(*permission)),
                "{pair:?}"
            );
        }
        assert_eq!(Role::Superadmin.permissions().len(), Permission::ALL.len());
    }

    #[test]
    fn a_stranger_is_asked_to_sign_in_and_a_viewer_is_denied() {
        let stranger = Actor::stranger(Id::NIL);
        assert_eq!(stranger.require(P::PostsWrite).unwrap_err().code(), "unauthenticated");
        let viewer = Actor::of(Id::NIL, Id([1; 16]), Role::Viewer);
        assert_eq!(viewer.require(P::PostsWrite).unwrap_err().code(), "denied");
        assert!(viewer.require_owner_or(Some(Id([1; 16])), P::PostsWrite).is_ok());
        assert!(viewer.require_owner_or(Some(Id([2; 16])), P::PostsWrite).is_err());
        assert!(stranger.require_owner_or(None, P::PostsWrite).is_err());
    }

    #[test]
    fn a_key_may_what_its_scopes_and_its_owners_role_both_hold() {
        let owner = Id([1; 16]);
        let key = |role: Role, scopes: &[Permission]| {
            Actor::of(Id::NIL, owner, role).by_key(Id([3; 16]), PermissionSet::of(scopes))
        };
        let narrow = key(Role::Editor, &[P::PostsWrite]);
        assert!(narrow.can(P::PostsWrite) && !narrow.can(P::PostsPublish));
        assert!(narrow.require_owner_or(Some(owner), P::PostsAdminister).is_ok());
        assert!(narrow.require_owner_or(Some(owner), P::CommentsModerate).is_err());
        assert!(!key(Role::Viewer, &[P::PostsWrite]).can(P::PostsWrite), "the role was lowered");
        assert_eq!(narrow.require_session().unwrap_err().code(), "denied");
        assert_eq!(key(Role::Superadmin, &[]).permissions, PermissionSet::EMPTY);
    }

    #[test]
    fn nobody_gives_what_he_lacks_and_who_is_impersonated_is_not_there() {
        let editor = Actor::of(Id::NIL, Id([1; 16]), Role::Editor);
        assert!(editor.require_all(Role::Moderator.permission_set()).is_ok());
        let refused = editor.require_all(Role::Admin.permission_set()).unwrap_err();
        assert!(refused.to_string().contains("audit.read"), "{refused}");
        assert!(editor.require_in_person().is_ok());
        let posed = Actor { impersonator: Some(Id([2; 16])), ..editor };
        assert_eq!(posed.require_in_person().unwrap_err().code(), "denied");
    }

    #[test]
    fn of_an_address_only_its_network_is_kept() {
        let net =
            |text: &str| Net::of(text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))).to_string();
        assert_eq!(net("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(net("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(net("2001:db8:1:2::7"), "2001:db8:1::/48");
    }
}
