//! What stands in a bucket, sorted: wants, bundles with their volumes, and what is neither.

use super::name::{BundleName, MAX_NUMBER, ObjectName};
use atoll_storage::NodeId;
use std::collections::BTreeMap;

/// More are not looked at.
pub const MAX_OBJECTS: usize = 20_000;
/// No clock that a node numbered something by was so far ahead of its own of now.
const MAX_AHEAD_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// An object as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Below the prefix.
    pub name: String,
    pub size_bytes: u64,
}

/// Of one bundle, the volumes that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    volumes: BTreeMap<u32, u64>,
    last: Option<u32>,
}

impl Pile {
    /// True once the last volume is there, and all before it.
    pub fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| self.volumes.len() == last as usize)
    }

    pub fn size_bytes(&self) -> u64 {
        self.volumes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    pub fn first_bytes(&self) -> u64 {
        self.volumes.get(&1).copied().unwrap_or_default()
    }

    pub fn objects(&self, bundle: BundleName) -> impl Iterator<Item = (ObjectName, u64)> + '_ {
        self.volumes.iter().map(move |(volume, bytes)| {
            let is_last = self.last == Some(*volume);
            (ObjectName::Volume { bundle, volume: *volume, is_last }, *bytes)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantObject {
    pub name: BundleName,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Of each node the latest.
    pub wants: BTreeMap<NodeId, WantObject>,
    /// Those that a later one took the place of.
    pub old_wants: Vec<BundleName>,
    pub bundles: BTreeMap<BundleName, Pile>,
    /// What each node asks for, of each the latest.
    pub lacks: BTreeMap<NodeId, WantObject>,
    pub old_lacks: Vec<BundleName>,
    /// With their sizes.
    pub parcels: BTreeMap<BundleName, u64>,
    /// Names of what no node wrote.
    pub foreign: Vec<String>,
    pub objects: usize,
    pub size_bytes: u64,
}

impl Listing {
    pub fn of(listed: impl IntoIterator<Item = Listed>) -> Self {
        let mut listing = Self::default();
        listing.add(listed);
        listing
    }

    pub fn add(&mut self, listed: impl IntoIterator<Item = Listed>) {
        for Listed { name, size_bytes } in listed {
            self.objects += 1;
            self.size_bytes = self.size_bytes.saturating_add(size_bytes);
            match ObjectName::parse(&name) {
                None => self.foreign.push(name),
                Some(ObjectName::Want(name)) => {
                    put_latest(
                        &mut self.wants,
                        &mut self.old_wants,
                        WantObject { name, size_bytes },
                    );
                }
                Some(ObjectName::Lacks(name)) => {
                    put_latest(
                        &mut self.lacks,
                        &mut self.old_lacks,
                        WantObject { name, size_bytes },
                    );
                }
                Some(ObjectName::Parcel(name)) => {
                    self.parcels.insert(name, size_bytes);
                }
                Some(ObjectName::Volume { bundle, volume, is_last }) => {
                    self.put_volume(bundle, volume, is_last, size_bytes);
                }
            }
        }
    }

    /// Counts in what was just written.
    pub fn put(&mut self, volumes: &[(ObjectName, u64)]) {
        for (name, size_bytes) in volumes {
            if let ObjectName::Volume { bundle, volume, is_last } = name {
                self.put_volume(*bundle, *volume, *is_last, *size_bytes);
            }
        }
    }

    fn put_volume(&mut self, bundle: BundleName, volume: u32, is_last: bool, size_bytes: u64) {
        let pile = self.bundles.entry(bundle).or_default();
        pile.volumes.insert(volume, size_bytes);
        if is_last {
            pile.last = Some(volume);
        }
    }

    /// Above the number of everything that this node left: what it leaves next shall count as later. What is numbered beyond
    /// any clock stands under its name by somebody else, and would leave no number above it.
    pub fn next_number(&self, node: NodeId, now_ms: u64) -> u64 {
        let now_ms = now_ms.min(MAX_NUMBER);
        let said = [self.wants.get(&node), self.lacks.get(&node)];
        let said = said.into_iter().flatten().map(|said| &said.name);
        let left = self.bundles.keys().chain(self.parcels.keys());
        let left = left.chain(&self.old_wants).chain(&self.old_lacks);
        let left = left.filter(|name| name.node == node);
        let numbers = said.chain(left).map(|name| name.number);
        let highest = numbers.filter(|number| *number <= now_ms + MAX_AHEAD_MS).max();
        highest.map_or(now_ms, |number| now_ms.max(number + 1)).min(MAX_NUMBER)
    }
}

fn put_latest(
    latest: &mut BTreeMap<NodeId, WantObject>,
    old: &mut Vec<BundleName>,
    mut one: WantObject,
) {
    if let Some(other) = latest.get_mut(&one.name.node) {
        if one.name > other.name {
            std::mem::swap(&mut one, other);
        }
        old.push(one.name);
    } else {
        latest.insert(one.name.node, one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([0xaa; 16]);

    fn name(number: u64) -> BundleName {
        BundleName { number, random: 1, node: A }
    }

    fn volume(number: u64, volume: u32, is_last: bool) -> Listed {
        let name = ObjectName::Volume { bundle: name(number), volume, is_last }.to_string();
        Listed { name, size_bytes: 10 }
    }

    fn want(number: u64) -> Listed {
        Listed { name: ObjectName::Want(name(number)).to_string(), size_bytes: 1 }
    }

    #[test]
    fn a_bundle_counts_when_all_of_its_volumes_are_there() {
        let listing = Listing::of([
            volume(1, 1, true),
            volume(2, 1, false),
            volume(3, 2, true),
            volume(4, 2, true),
            volume(4, 1, false),
        ]);
        let whole: Vec<u64> = listing
            .bundles
            .iter()
            .filter_map(|(name, pile)| pile.is_whole().then_some(name.number))
            .collect();
        assert_eq!(whole, [1, 4]);
        let volumes: Vec<String> =
            listing.bundles[&name(4)].objects(name(4)).map(|(name, _)| name.to_string()).collect();
        assert!(volumes[0].ends_with("-0001.atoll") && volumes[1].ends_with("-0002-last.atoll"));
        assert_eq!((listing.objects, listing.size_bytes), (5, 50));
    }

    #[test]
    fn sizes_beyond_all_reason_are_no_more_than_large() {
        let large = |of: u32| Listed { size_bytes: u64::MAX, ..volume(7, of, false) };
        let listing = Listing::of([large(1), large(2)]);
        assert_eq!(listing.size_bytes, u64::MAX);
        assert_eq!(listing.bundles[&name(7)].size_bytes(), u64::MAX);
    }

    #[test]
    fn the_latest_want_counts_in_whatever_order_they_are_listed() {
        let other = Listed { name: "notes.txt".to_owned(), size_bytes: 3 };
        let listing = Listing::of([want(5), want(9), other, want(7)]);
        assert_eq!(listing.wants[&A].name, name(9));
        assert_eq!(listing.old_wants.len(), 2);
        assert_eq!(listing.foreign, ["notes.txt"]);
        // Also for a clock that was put back.
        assert_eq!(listing.next_number(A, 4), 10);
        assert_eq!(listing.next_number(NodeId([1; 16]), 4), 4);
    }

    #[test]
    fn what_is_numbered_beyond_any_clock_leaves_a_node_numbers_to_write_under() {
        const NOW_MS: u64 = 1_795_000_000_000;
        let lacks =
            |number| Listed { name: ObjectName::Lacks(name(number)).to_string(), size_bytes: 1 };
        let parcel =
            |number| Listed { name: ObjectName::Parcel(name(number)).to_string(), size_bytes: 1 };
        let last = MAX_NUMBER;
        for far in [want(last), lacks(last), parcel(last), volume(last, 1, true)] {
            let listing = Listing::of([far, want(NOW_MS + 7)]);
            assert_eq!((listing.foreign.len(), listing.objects), (0, 2));
            assert_eq!(listing.next_number(A, NOW_MS), NOW_MS + 8);
            // A clock that says 1970 is behind what the node left when it was right.
            assert_eq!(listing.next_number(A, 0), NOW_MS + 8);
        }
        // And beyond what a name can tell.
        for now_ms in [last, last + 1, u64::MAX] {
            let number = Listing::of([want(last)]).next_number(A, now_ms);
            assert_eq!(ObjectName::parse(&want(number).name), Some(ObjectName::Want(name(last))));
        }
    }
}
