//! Named permissions, and sets of them as bits. Names are what is stored and what clients see; the bits never leave the
//! process.

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
    AuditRead,
    /// The settings and the look of one's own tenant.
    SettingsAdminister,
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
        P::AuditRead,
        P::SettingsAdminister,
        P::TenantsAdminister,
        P::SyncAdminister,
    ];
    /// Those that reach beyond one tenant: no role that a tenant makes can hold them.
    pub const OF_THE_NETWORK: PermissionSet =
        PermissionSet::of(&[P::TenantsAdminister, P::SyncAdminister]);

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
            P::AuditRead => "audit.read",
            P::SettingsAdminister => "settings.administer",
            P::TenantsAdminister => "tenants.administer",
            P::SyncAdminister => "sync.administer",
        }
    }

    /// What it allows, for people who put roles together.
    pub const fn doc(self) -> &'static str {
        match self {
            P::PostsWrite => "Writes posts, and sees those of others that are not published.",
            P::PostsPublish => "Publishes, schedules and archives posts.",
            P::PostsAdminister => "Edits and deletes the posts of others.",
            P::CategoriesWrite => "Proposes and edits categories.",
            P::CategoriesApprove => "Approves categories.",
            P::CategoriesAdminister => "Deletes categories.",
            P::TagsWrite => "Makes tags.",
            P::TagsAdminister => "Edits and deletes tags.",
            P::CommentsWrite => "Comments.",
            P::CommentsModerate => "Approves, rejects and removes the comments of others.",
            P::UsersAdminister => "Makes, edits, disables and deletes accounts, and gives roles.",
            P::AnalyticsRead => "Reads views and visitors.",
            P::SearchAdminister => "Has the search index made anew.",
            P::ConflictsRead => "Sees what nodes wrote apart from each other.",
            P::ConflictsResolve => "Settles what nodes wrote apart from each other.",
            P::JobsAdminister => "Sees and repeats jobs, and sees all events of the tenant.",
            P::AuditRead => "Reads who did what.",
            P::SettingsAdminister => "Changes the settings and the look of the tenant.",
            P::TenantsAdminister => "Makes, edits and deletes tenants.",
            P::SyncAdminister => "Administers nodes and their links.",
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

/// A set of permissions, one bit each. Never stored: what is stored are names.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PermissionSet(u64);

impl PermissionSet {
    pub const EMPTY: Self = Self(0);

    pub const fn of(permissions: &[Permission]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < permissions.len() {
            bits |= 1 << permissions[at] as u64;
            at += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, permission: Permission) -> bool {
        self.0 >> permission as u64 & 1 == 1
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it holds any permission about the same noun.
    pub fn touches(self, permission: Permission) -> bool {
        self.iter().any(|held| held.noun() == permission.noun())
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of the declaration.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions
            .into_iter()
            .fold(Self::EMPTY, |set, permission| set.union(Self::of(&[permission])))
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        assert!(Permission::ALL.len() <= 64);
        let set: PermissionSet = [P::AuditRead, P::PostsWrite].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [P::PostsWrite, P::AuditRead]);
        for permission in Permission::ALL {
            assert_eq!(
                set.contains(*permission),
                matches!(permission, P::AuditRead | P::PostsWrite)
            );
            assert!(!permission.doc().is_empty());
        }
        assert!(set.without(set).is_empty() && set.union(set) == set);
        assert_eq!(set.intersection(Role::Viewer.permission_set()), PermissionSet::EMPTY);
    }
}
