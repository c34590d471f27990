//! What one node lets another do with what it has: which streams, in which way, until when. A pure value; who says so, and
//! whether it was signed, is no matter here.

use crate::carries::{MAX_SCOPE_BYTES, holds, is_scope};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{Id, NodeId, StreamId};
use bincode::{Decode, Encode};
use std::collections::BTreeSet;

/// More are refused, from people and from peers.
pub const MAX_TENANTS: usize = 64;
pub const MAX_SCOPES: usize = 32;

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub struct Rights {
    /// None: all, those that come later among them.
    pub tenants: Option<BTreeSet<Id>>,
    /// None: all. One that ends with `/` stands for all that begin alike.
    pub scopes: Option<BTreeSet<String>>,
    pub read: bool,
    /// What the holder wrote itself is taken from it.
    pub write: bool,
    /// What others wrote is taken from it.
    pub relay: bool,
    /// Unix milliseconds, by the clock of whoever lets it; none: without end.
    pub until_ms: Option<u64>,
}

impl Default for Rights {
    fn default() -> Self {
        Self::everything()
    }
}

impl Rights {
    pub fn everything() -> Self {
        let (read, write, relay) = (true, true, true);
        Self { tenants: None, scopes: None, read, write, relay, until_ms: None }
    }

    pub fn nothing() -> Self {
        Self { read: false, write: false, relay: false, ..Self::everything() }
    }

    /// Whether the holder is trusted with everything, if only for a time.
    pub fn is_whole(&self) -> bool {
        self.tenants.is_none() && self.scopes.is_none() && self.read && self.write && self.relay
    }

    pub fn is_nothing(&self) -> bool {
        !(self.read || self.write || self.relay)
    }

    pub fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }

    fn covers(&self, stream: &StreamId) -> bool {
        let has_scope =
            |scopes: &BTreeSet<String>| scopes.iter().any(|scope| holds(scope, &stream.scope));
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(&stream.tenant))
            && self.scopes.as_ref().is_none_or(has_scope)
    }

    /// Whether the holder may have what is in the stream. Who is removed, and who may what, is told to everybody who may do
    /// anything.
    pub fn reads(&self, stream: &StreamId) -> bool {
        if stream.is_network() { !self.is_nothing() } else { self.read && self.covers(stream) }
    }

    /// Whether ops are taken from the holder: those that it made, or those of others. Who may say what the whole network obeys
    /// is trusted with everything.
    pub fn writes(&self, stream: &StreamId, by_holder: bool) -> bool {
        if stream.is_network() {
            return self.is_whole();
        }
        (if by_holder { self.write } else { self.relay }) && self.covers(stream)
    }

    /// What both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = |a: &BTreeSet<Id>, b: &BTreeSet<Id>| a.intersection(b).copied().collect();
        Self {
            tenants: meet(self.tenants.as_ref(), other.tenants.as_ref(), both),
            scopes: meet(self.scopes.as_ref(), other.scopes.as_ref(), both_scopes),
            read: self.read && other.read,
            write: self.write && other.write,
            relay: self.relay && other.relay,
            until_ms: match (self.until_ms, other.until_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// # Errors
    /// `Malformed`, with the bound or the scope that is none.
    pub fn check(&self) -> Result<()> {
        if self.tenants.as_ref().is_some_and(|tenants| tenants.len() > MAX_TENANTS) {
            let most = format!("a grant names at most {MAX_TENANTS} tenants: name fewer, or all");
            return Err(Error::Malformed(most));
        }
        let scopes = self.scopes.iter().flatten();
        if scopes.clone().count() > MAX_SCOPES {
            let most = format!("a grant names at most {MAX_SCOPES} scopes: name fewer, or all");
            return Err(Error::Malformed(most));
        }
        match scopes.into_iter().find(|scope| scope.is_empty() || !is_scope(scope)) {
            Some(scope) => Err(Error::Malformed(format!(
                "{scope:?} is no scope: letters, digits and - _ / . make one, at most {MAX_SCOPE_BYTES} of them"
            ))),
            None => Ok(()),
        }
    }

    /// A part of the roots that the two ends of a link compare: both know what the one lets the other do. Nothing where
    /// that is everything.
    pub fn leaf(&self, by: NodeId) -> Digest {
        if self.is_whole() {
            return Digest::default();
        }
        Digest::of(&[&b"rights"[..], &by.0, &crate::codec::encode(self)].concat())
    }
}

fn meet<T: Clone>(a: Option<&T>, b: Option<&T>, both: impl Fn(&T, &T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (a, b) => a.or(b).cloned(),
    }
}

/// Of two patterns of which one holds the other, the narrower one.
fn both_scopes(a: &BTreeSet<String>, b: &BTreeSet<String>) -> BTreeSet<String> {
    let narrower = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> BTreeSet<String> {
        a.iter().filter(|scope| b.iter().any(|wide| holds(wide, scope))).cloned().collect()
    };
    narrower(a, b).union(&narrower(b, a)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 16]);
    const B: Id = Id([2; 16]);

    fn scopes(names: &[&str]) -> Option<BTreeSet<String>> {
        Some(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_what_is_named_may_be_read_and_written() {
        let some = Rights { tenants: Some([A].into()), relay: false, ..Rights::everything() };
        let some = Rights { scopes: scopes(&["content", "learning/"]), ..some };
        let stream = |tenant, scope| StreamId::new(tenant, scope);
        assert!(some.reads(&stream(A, "content")) && some.reads(&stream(A, "learning/art")));
        for stream in [stream(B, "content"), stream(A, "identity"), stream(A, "learning")] {
            assert!(!some.reads(&stream) && !some.writes(&stream, true), "{stream}");
        }
        assert!(some.writes(&stream(A, "content"), true));
        assert!(!some.writes(&stream(A, "content"), false), "what others wrote");
    }

    #[test]
    fn what_the_network_obeys_is_told_to_all_and_taken_from_the_trusted() {
        let network = StreamId::new(Id::NIL, "network");
        let whole = Rights { until_ms: Some(7), ..Rights::everything() };
        assert!(whole.is_whole() && whole.reads(&network) && whole.writes(&network, false));
        let one = Rights { tenants: Some([A].into()), ..Rights::everything() };
        let deaf = Rights { read: false, ..Rights::everything() };
        for rights in [one, deaf] {
            assert!(rights.reads(&network));
            assert!(!rights.writes(&network, true) && !rights.writes(&network, false));
        }
        assert!(!Rights::nothing().reads(&network));
    }

    #[test]
    fn of_several_only_what_all_allow_is_left() {
        let a = Rights { tenants: Some([A, B].into()), until_ms: Some(9), ..Rights::everything() };
        let a = Rights { scopes: scopes(&["learning/", "content"]), ..a };
        let b = Rights { tenants: Some([B].into()), write: false, ..Rights::everything() };
        let b = Rights { scopes: scopes(&["learning/art", "identity"]), ..b };
        let both = a.meet(&b);
        assert_eq!(both, b.meet(&a));
        assert_eq!((both.tenants, both.scopes), (Some([B].into()), scopes(&["learning/art"])));
        assert_eq!((both.write, both.relay, both.until_ms), (false, true, Some(9)));
        assert_eq!(a.meet(&Rights::everything()), a);
        assert!(a.meet(&Rights::nothing()).is_nothing());
        assert!(a.is_over(9) && !a.is_over(8) && !Rights::everything().is_over(u64::MAX));
    }

    #[test]
    fn what_is_too_much_or_no_scope_is_refused() {
        let tenants: BTreeSet<Id> = (0..=MAX_TENANTS as u8).map(|n| Id([n; 16])).collect();
        assert!(Rights { tenants: Some(tenants), ..Rights::everything() }.check().is_err());
        for wrong in [&["con tent"][..], &["/content"], &[""]] {
            let rights = Rights { scopes: scopes(wrong), ..Rights::everything() };
            assert!(rights.check().is_err(), "{wrong:?}");
        }
        let many: Vec<String> = (0..=MAX_SCOPES).map(|n| format!("s{n}")).collect();
        let many = Some(many.into_iter().collect());
        assert!(Rights { scopes: many, ..Rights::everything() }.check().is_err());
        assert!(Rights::nothing().check().is_ok());
    }

    #[test]
    fn a_root_tells_one_grant_from_another_and_nothing_of_everything() {
        let node = NodeId([1; 16]);
        let some = Rights { write: false, ..Rights::everything() };
        assert_eq!(Rights::everything().leaf(node), Digest::default());
        assert_ne!(some.leaf(node), Digest::default());
        assert_ne!(some.leaf(node), some.leaf(NodeId([2; 16])));
    }
}
