//! Which blobs this node fetches by itself, and which it may drop: by the scope of the records that name them, as the
//! settings say.

use super::carried::Files;
use crate::bucket::Base as _;
use crate::config;
use crate::error::Result;
use atoll_storage::blob::BlobId;
use atoll_storage::reference;

/// What becomes of a blob. Of several that hold for one, the last of this list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Not fetched, even if somebody asks for it.
    Never,
    /// Fetched when somebody asks for it, and dropped when room is needed.
    Lazy,
    /// Fetched at once.
    Eager,
    /// Fetched at once, and never dropped while a record names it.
    Pin,
}

impl Policy {
    pub const ALL: [Self; 4] = [Self::Never, Self::Lazy, Self::Eager, Self::Pin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Lazy => "lazy",
            Self::Eager => "eager",
            Self::Pin => "pin",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// What holds for a blob; one of unknown size is taken for a large one. A blob that no record names is as a lazy one.
pub fn of_blob<F: Files>(files: &F, id: &BlobId, size_bytes: Option<u64>) -> Result<Policy> {
    let scopes = files.base().read(|reader| reference::scopes_of(reader, id))?;
    Ok(of_scopes(files.settings(), &scopes, size_bytes))
}

/// Up to which size a blob that these scopes name is fetched at once; none if none is.
pub fn fetched_bytes(settings: &config::Blobs, scopes: &[String]) -> Option<u64> {
    let of = |scope: &String| match settings.policy.of(scope) {
        Some(Policy::Pin | Policy::Eager) => Some(u64::MAX),
        Some(Policy::Lazy | Policy::Never) => None,
        None => Some(settings.eager_bytes),
    };
    scopes.iter().filter_map(of).max()
}

fn of_scopes(settings: &config::Blobs, scopes: &[String], size_bytes: Option<u64>) -> Policy {
    let by_size = match size_bytes {
        Some(size) if size <= settings.eager_bytes => Policy::Eager,
        _ => Policy::Lazy,
    };
    let of = |scope: &String| settings.policy.of(scope).unwrap_or(by_size);
    scopes.iter().map(of).max().unwrap_or(Policy::Lazy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policies;

    #[test]
    fn the_most_caring_of_the_scopes_counts() {
        let policy =
            Policies(vec![("identity".into(), Policy::Pin), ("community".into(), Policy::Never)]);
        let settings = config::Blobs { policy, eager_bytes: 100, ..config::Blobs::default() };
        let of = |scopes: &[&str], size| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            of_scopes(&settings, &scopes, size)
        };
        assert_eq!(of(&["community"], Some(1)), Policy::Never);
        assert_eq!(of(&["community", "content"], Some(101)), Policy::Lazy);
        assert_eq!(of(&["content"], Some(100)), Policy::Eager);
        assert_eq!(of(&["content"], None), Policy::Lazy);
        assert_eq!(of(&["content", "identity"], None), Policy::Pin);
        assert_eq!(of(&[], Some(1)), Policy::Lazy);
        let most = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            fetched_bytes(&settings, &scopes)
        };
        assert_eq!((most(&["community"]), most(&[])), (None, None));
        assert_eq!(most(&["community", "content"]), Some(100));
        assert_eq!(most(&["content", "identity"]), Some(u64::MAX));
    }
}
