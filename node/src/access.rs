//! Who may do what: named permissions, the five roles as sets of them, and the actor of a request.
//! Never reads the store: whoever makes an [`Actor`] has looked up the role.

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

/// Who acts, and in which tenant. A superadmin may act in a tenant that is not his own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    pub tenant: Id,
    pub user: Option<Id>,
    pub role: Option<Role>,
    pub session: Option<Id>,
}

impl Actor {
    /// The node itself: workers, the command line, the first start.
    pub const fn system(tenant: Id) -> Self {
        Self { tenant, user: None, role: Some(Role::Superadmin), session: None }
    }

    /// Somebody who is not signed in.
    pub const fn stranger(tenant: Id) -> Self {
        Self { tenant, user: None, role: None, session: None }
    }

    pub fn can(&self, permission: Permission) -> bool {
        self.role.is_some_and(|role| role.can(permission))
    }

    /// # Errors
    /// `Unauthenticated` for a stranger, `Denied` for somebody whose role lacks the permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        match self.role {
            Some(role) if role.can(permission) => Ok(()),
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

    /// The permission, or to be the user that the record belongs to.
    pub fn require_owner_or(&self, owner: Option<Id>, permission: Permission) -> Result<()> {
        if self.user.is_some() && self.user == owner { Ok(()) } else { self.require(permission) }
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
}
