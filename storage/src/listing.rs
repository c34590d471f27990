//! What lists found lately: pages as they were given, and of lists that take long to find the keys of all matches in
//! their order. A page of a list that was asked for since the last change of its kind then costs at most as many look-ups
//! as it has records, however few of how many match.

use crate::error::Result;
use crate::id::Id;
use crate::query::Page;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Of a list with more matches only their number is kept.
pub const MOST_KEYS: usize = 131_072;
/// Of all lists together: 4 MiB.
const ALL_KEYS: usize = 2 * MOST_KEYS;
/// Of all pages together, each of about two KiB.
const ALL_RECORDS: usize = 4_000;
const MOST_ENTRIES: usize = 256;

pub struct Found {
    /// None if they are too many.
    pub keys: Option<Vec<Id>>,
    pub total: u64,
}

/// By what a shelf is bounded.
trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for Found {
    fn weight(&self) -> usize {
        self.keys.as_ref().map_or(0, Vec::len)
    }
}

impl Weight for Page {
    fn weight(&self) -> usize {
        self.records.len()
    }
}

struct Entry<T> {
    name: blake3::Hash,
    /// It holds what was committed up to here, and perhaps more.
    number: u64,
    value: Arc<T>,
}

/// The latest used at the back.
struct Shelf<T> {
    entries: VecDeque<Entry<T>>,
    weight: usize,
    most: usize,
}

impl<T: Weight> Shelf<T> {
    fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), weight: 0, most }
    }

    /// What is as new as `oldest`; it then holds all that was committed up to `seen` too.
    fn get(&mut self, name: blake3::Hash, oldest: u64, seen: u64) -> Option<Arc<T>> {
        let mut entry = self.remove(name)?;
        if entry.number < oldest {
            return None;
        }
        entry.number = entry.number.max(seen);
        let value = Arc::clone(&entry.value);
        self.weight += value.weight();
        self.entries.push_back(entry);
        Some(value)
    }

    fn remove(&mut self, name: blake3::Hash) -> Option<Entry<T>> {
        let at = self.entries.iter().position(|entry| entry.name == name)?;
        let entry = self.entries.remove(at)?;
        self.weight -= entry.value.weight();
        Some(entry)
    }

    fn put(&mut self, name: blake3::Hash, number: u64, value: Arc<T>) {
        self.remove(name);
        self.weight += value.weight();
        self.entries.push_back(Entry { name, number, value });
        while (self.weight > self.most || self.entries.len() > MOST_ENTRIES)
            && let Some(old) = self.entries.pop_front()
        {
            self.weight -= old.value.weight();
        }
    }
}

struct Lists {
    shelf: Shelf<Found>,
    /// Being looked for by somebody.
    under_way: HashSet<blake3::Hash>,
}

pub struct Listings {
    committed: AtomicU64,
    /// The number of the last commit that changed records of a kind.
    changed: HashMap<u16, AtomicU64>,
    lists: Mutex<Lists>,
    ready: Condvar,
    pages: Mutex<Shelf<Page>>,
}

/// The listings as somebody sees them who began to read after a commit.
#[derive(Clone, Copy)]
pub struct Since<'a> {
    listings: &'a Listings,
    number: u64,
}

impl Listings {
    pub fn new(kinds: impl Iterator<Item = u16>) -> Self {
        Self {
            committed: AtomicU64::new(0),
            changed: kinds.map(|kind| (kind, AtomicU64::new(0))).collect(),
            lists: Mutex::new(Lists { shelf: Shelf::new(ALL_KEYS), under_way: HashSet::new() }),
            ready: Condvar::new(),
            pages: Mutex::new(Shelf::new(ALL_RECORDS)),
        }
    }

    /// To be told of each commit, after it can be seen and before it is answered; `None` for all kinds.
    pub fn committed(&self, number: u64, kinds: Option<&HashSet<u16>>) {
        let is_changed = |kind: &u16| kinds.is_none_or(|kinds| kinds.contains(kind));
        for (_, changed) in self.changed.iter().filter(|(kind, _)| is_changed(kind)) {
            changed.fetch_max(number, Ordering::AcqRel);
        }
        self.committed.fetch_max(number, Ordering::AcqRel);
    }

    /// To be called before a read transaction begins.
    pub fn now(&self) -> Since<'_> {
        Since { listings: self, number: self.committed.load(Ordering::Acquire) }
    }
}

impl Since<'_> {
    /// What the caller must not find older than.
    fn oldest(&self, kind: u16) -> u64 {
        let changed = self.listings.changed.get(&kind);
        self.number.min(changed.map_or(u64::MAX, |number| number.load(Ordering::Acquire)))
    }

    /// The keys that are kept under this name if they are no older than what the caller sees, else what `look` finds. Of
    /// several callers at once one looks and the others wait.
    pub fn find(
        &self,
        name: blake3::Hash,
        kind: u16,
        look: impl FnOnce() -> Result<Found>,
    ) -> Result<Arc<Found>> {
        let all = self.listings;
        let oldest = self.oldest(kind);
        let mut lists = lock(&all.lists);
        loop {
            if let Some(found) = lists.shelf.get(name, oldest, self.number) {
                return Ok(found);
            }
            if lists.under_way.insert(name) {
                break;
            }
            lists = all.ready.wait(lists).unwrap_or_else(PoisonError::into_inner);
        }
        drop(lists);
        let _turn = Turn { listings: all, name };
        let found = Arc::new(look()?);
        lock(&all.lists).shelf.put(name, self.number, Arc::clone(&found));
        Ok(found)
    }

    pub fn page(&self, name: blake3::Hash, kind: u16) -> Option<Arc<Page>> {
        let oldest = self.oldest(kind);
        lock(&self.listings.pages).get(name, oldest, self.number)
    }

    pub fn keep_page(&self, name: blake3::Hash, page: Page) {
        lock(&self.listings.pages).put(name, self.number, Arc::new(page));
    }
}

/// Ends however the looking ends.
struct Turn<'a> {
    listings: &'a Listings,
    name: blake3::Hash,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.listings.lists).under_way.remove(&self.name);
        self.listings.ready.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(n: u8) -> Result<Found> {
        Ok(Found { keys: Some(vec![Id([n; 16])]), total: u64::from(n) })
    }

    #[test]
    fn a_list_is_looked_for_again_after_a_change_of_its_kind_only() {
        let listings = Listings::new([1, 2].into_iter());
        let name = blake3::hash(b"x");
        let total = |since: Since<'_>, n| since.find(name, 1, || found(n)).unwrap().total;
        assert_eq!(total(listings.now(), 1), 1);
        listings.committed(1, Some(&HashSet::from([2])));
        assert_eq!(total(listings.now(), 2), 1, "another kind");
        let before = listings.now();
        listings.committed(2, Some(&HashSet::from([1])));
        assert_eq!(total(before, 3), 1, "who sees what was found sees it still");
        assert_eq!(total(listings.now(), 4), 4);
        listings.committed(3, None);
        assert_eq!(total(listings.now(), 5), 5);
    }

    #[test]
    fn what_was_found_before_a_commit_was_seen_is_not_given_to_those_who_see_it() {
        let listings = Listings::new([1].into_iter());
        let name = blake3::hash(b"x");
        let early = listings.now();
        listings.committed(1, Some(&HashSet::from([1])));
        early.find(name, 1, || found(1)).unwrap();
        assert_eq!(listings.now().find(name, 1, || found(2)).unwrap().total, 2);
    }

    #[test]
    fn lists_have_a_bound_and_a_failure_keeps_nothing() {
        let listings = Listings::new([1].into_iter());
        let long = || Ok(Found { keys: Some(vec![Id::NIL; MOST_KEYS]), total: 0 });
        for n in 0..5u8 {
            listings.now().find(blake3::hash(&[n]), 1, long).unwrap();
        }
        assert_eq!(lock(&listings.lists).shelf.entries.len(), 2);
        let name = blake3::hash(b"fails");
        let fails = || Err(crate::error::Error::Closed);
        assert!(listings.now().find(name, 1, fails).is_err());
        assert_eq!(listings.now().find(name, 1, || found(7)).unwrap().total, 7);
    }

    #[test]
    fn a_page_is_given_until_its_kind_changes() {
        let listings = Listings::new([1, 2].into_iter());
        let name = blake3::hash(b"x");
        let page = Page { records: vec![], next: None, total: 5 };
        listings.now().keep_page(name, page);
        listings.committed(1, Some(&HashSet::from([2])));
        assert_eq!(listings.now().page(name, 1).map(|page| page.total), Some(5));
        assert!(listings.now().page(blake3::hash(b"y"), 1).is_none());
        listings.committed(2, Some(&HashSet::from([1])));
        assert!(listings.now().page(name, 1).is_none());
    }

    #[test]
    fn of_many_at_once_one_looks() {
        let listings = Listings::new([1].into_iter());
        let looked = AtomicU64::new(0);
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let look = || {
                        looked.fetch_add(1, Ordering::Relaxed);
                        found(1)
                    };
                    listings.now().find(blake3::hash(b"x"), 1, look).unwrap();
                });
            }
        });
        assert_eq!(looked.into_inner(), 1);
    }
}
