//! Connections by the address at their other end: one address cannot take all places. Loopback is not counted:
//! there stands a proxy, or whoever has the machine anyway.

use crate::limit::Who;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Guests {
    max: usize,
    /// Holds no more entries than there are connections.
    open: Mutex<HashMap<Who, usize>>,
}

/// A connection's place, given back when dropped.
pub(crate) struct Guest {
    guests: Arc<Guests>,
    /// None for one that is not counted.
    who: Option<Who>,
}

impl Guests {
    /// `max` connections an address; 0 for any number.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// None if the address has its share already.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Guest> {
        let guest = |who| Some(Guest { guests: self.clone(), who });
        if self.max == 0 || peer.to_canonical().is_loopback() {
            return guest(None);
        }
        let who = Who::peer(Some(peer));
        let mut open = self.open();
        let count = open.entry(who).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        guest(Some(who))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Who, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(who) = self.who else { return };
        let mut open = self.guests.open();
        let left = open.get(&who).map_or(0, |count| count - 1);
        if left == 0 {
            open.remove(&who);
        } else {
            open.insert(who, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_leaves_the_rest_to_others() {
        let guests = Guests::new(2);
        let peer = IpAddr::from([192, 0, 2, 1]);
        let first = guests.enter(peer).unwrap();
        let _second = guests.enter(peer).unwrap();
        assert!(guests.enter(peer).is_none());
        assert!(guests.enter(IpAddr::from([192, 0, 2, 2])).is_some());
        let local = [1; 5].map(|n| guests.enter(IpAddr::from([127, 0, 0, n])));
        assert!(local.iter().all(Option::is_some));
        drop(first);
        assert!(guests.enter(peer).is_some());
        assert_eq!(guests.open().len(), 1, "who left is forgotten");
    }
}
