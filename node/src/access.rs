//! Who may do what: named permissions, the five roles as sets of them, the scopes that narrow a role, and the actor
//! of a request. Never reads the store: whoever makes an [`Actor`] has looked up the role and the scopes.

use crate::error::{Error, Result};
use atoll_storage::Id;

/// One thing that somebody may be allowed to do. Its name is `noun.verb`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Permission {
    PostsWrite,
    PostsPublish,
    /// Edits and deletes other people's posts.
    PostsAdminister,
    CategoriesWrite,
    CategoriesApprove,
    /// Deletes categories.
    CategoriesAdminister,
    TagsWrite,
    TagsAdminister,
    CommentsWrite,
    CommentsModerate,
    UsersAdminister,
    AnalyticsRead,
    SearchAdminister,
    ConflictsRead,
    ConflictsResolve,
    /// The jobs and dead letters of a tenant.
    JobsAdminister,
    TenantsAdminister,
    /// Peers, streams and quarantine: the whole node.
    SyncAdminister,
}

use Permission as P;

impl Permission {
    pub const ALL: &'static [Self] = &[
        P::PostsWrite,
        P::PostsPublish,
        P::PostsAdminister,
        P::CategoriesWrite,
        P::CategoriesApprove,
        P::CategoriesAdminister,
        P::TagsWrite,
        P::TagsAdminister,
        P::CommentsWrite,
        P::CommentsModerate,
        P::UsersAdminister,
        P::AnalyticsRead,
        P::SearchAdminister,
        P::ConflictsRead,
        P::ConflictsResolve,
        P::JobsAdminister,
        P::TenantsAdminister,
        P::SyncAdminister,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            P::PostsWrite => "posts.write",
            P::PostsPublish => "posts.publish",
            P::PostsAdminister => "posts.administer",
            P::CategoriesWrite => "categories.write",
            P::CategoriesApprove => "categories.approve",
            P::CategoriesAdminister => "categories.administer",
            P::TagsWrite => "tags.write",
            P::TagsAdminister => "tags.administer",
            P::CommentsWrite => "comments.write",
            P::CommentsModerate => "comments.moderate",
            P::UsersAdminister => "users.administer",
            P::AnalyticsRead => "analytics.read",
            P::SearchAdminister => "search.administer",
            P::ConflictsRead => "conflicts.read",
            P::ConflictsResolve => "conflicts.resolve",
            P::JobsAdminister => "jobs.administer",
            P::TenantsAdminister => "tenants.administer",
            P::SyncAdminister => "sync.administer",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.name() == name)
    }

    /// What it is about: `posts` of `posts.write`.
    pub fn noun(self) -> &'static str {
        self.name().split('.').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

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
        ];
        match self {
            Self::Viewer => VIEWER,
            Self::Moderator => MODERATOR,
            Self::Editor => EDITOR,
            Self::Admin => ADMIN,
            Self::Superadmin => Permission::ALL,
        }
    }

    pub fn can(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What of its owner's role an API key may use; of a person who signed in, all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scopes(u128);

impl Scopes {
    pub const ALL: Self = Self(u128::MAX);
    pub const NONE: Self = Self(0);

    pub fn of(permissions: impl IntoIterator<Item = Permission>) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | bit(permission)))
    }

    pub fn holds(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// Whether it holds any permission about the same noun.
    pub fn touches(self, permission: Permission) -> bool {
        let same = |other: &&Permission| other.noun() == permission.noun();
        Permission::ALL.iter().filter(same).any(|other| self.holds(*other))
    }

    pub fn is_all(self) -> bool {
        self == Self::ALL
    }
}

const _: () = assert!(Permission::ALL.len() < 128, "scopes have a bit for each permission");

fn bit(permission: Permission) -> u128 {
    1 << permission as u32
}

/// Who acts, and in which tenant. A superadmin may act in a tenant that is not his own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    pub tenant: Id,
    pub user: Option<Id>,
    pub role: Option<Role>,
    pub session: Option<Id>,
    /// What of the role counts: less than all for an API key.
    pub scopes: Scopes,
}

impl Actor {
    /// The node itself: workers, the command line, the first start.
    pub const fn system(tenant: Id) -> Self {
        Self {
            tenant,
            user: None,
            role: Some(Role::Superadmin),
            session: None,
            scopes: Scopes::ALL,
        }
    }

    /// Somebody who is not signed in.
    pub const fn stranger(tenant: Id) -> Self {
        Self { tenant, user: None, role: None, session: None, scopes: Scopes::ALL }
    }

    pub fn can(&self, permission: Permission) -> bool {
        self.role.is_some_and(|role| role.can(permission)) && self.scopes.holds(permission)
    }

    /// An API key acts, and not somebody who signed in.
    pub fn is_key(&self) -> bool {
        !self.scopes.is_all()
    }

    /// # Errors
    /// `Unauthenticated` for a stranger, `Denied` for somebody whose role, or a key whose scopes, lack the permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        match self.role {
            Some(_) if self.can(permission) => Ok(()),
            Some(role) if role.can(permission) => {
                Err(Error::Denied(format!("this API key lacks the scope {permission}")))
            }
            Some(role) => {
                Err(Error::Denied(format!("the role {role} lacks the permission {permission}")))
            }
            None => Err(sign_in()),
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
        if is_owner && self.scopes.touches(permission) { Ok(()) } else { self.require(permission) }
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
        let viewer = Actor { role: Some(Role::Viewer), user: Some(Id([1; 16])), ..stranger };
        assert_eq!(viewer.require(P::PostsWrite).unwrap_err().code(), "denied");
        assert!(viewer.require_owner_or(Some(Id([1; 16])), P::PostsWrite).is_ok());
        assert!(viewer.require_owner_or(Some(Id([2; 16])), P::PostsWrite).is_err());
        assert!(stranger.require_owner_or(None, P::PostsWrite).is_err());
    }

    #[test]
    fn a_key_may_what_its_scopes_and_its_owners_role_both_hold() {
        let owner = Some(Id([1; 16]));
        let key = |role: Role, scopes: Vec<Permission>| Actor {
            user: owner,
            role: Some(role),
            scopes: Scopes::of(scopes),
            ..Actor::stranger(Id::NIL)
        };
        let narrow = key(Role::Editor, vec![P::PostsWrite]);
        assert!(narrow.can(P::PostsWrite) && !narrow.can(P::PostsPublish) && narrow.is_key());
        assert!(narrow.require_owner_or(owner, P::PostsAdminister).is_ok());
        assert!(narrow.require_owner_or(owner, P::CommentsModerate).is_err());
        assert!(!key(Role::Viewer, vec![P::PostsWrite]).can(P::PostsWrite), "the role was lowered");
        assert!(key(Role::Superadmin, Permission::ALL.to_vec()).is_key(), "even with all scopes");
        assert_eq!(narrow.require_session().unwrap_err().code(), "denied");
        assert!(Permission::ALL.iter().all(|permission| !Scopes::NONE.holds(*permission)));
    }
}
