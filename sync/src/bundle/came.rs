//! Which ops came with a bundle, by number: what of them is not here in the end waits for something that did not come.

use super::told::{Room, Told as _};
use atoll_storage::{Dot, Origin, StreamId, Vector};
use std::collections::BTreeMap;

/// Numbers of one origin as runs, first to last: ops stand close together in a bundle.
type Runs = BTreeMap<u64, u64>;

#[derive(Debug, Default)]
pub(super) struct Came(BTreeMap<StreamId, BTreeMap<Origin, Runs>>);

impl Came {
    /// False if there is no room for it.
    pub fn note(&mut self, stream: &StreamId, dot: Dot, room: &mut Room) -> bool {
        if !self.0.contains_key(stream) {
            if !room.take(stream.bytes() + Vector::default().bytes()) {
                return false;
            }
            self.0.insert(stream.clone(), BTreeMap::new());
        }
        let Some(origins) = self.0.get_mut(stream) else { return false };
        let seq = dot.seq;
        let before = origins.get(&dot.origin).and_then(|runs| runs.range(..=seq).next_back());
        let before = before.map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= seq) {
            return true;
        }
        let first = match before {
            Some((first, last)) if last + 1 == seq => first,
            _ if room.take(size_of::<(Origin, u64)>()) => seq,
            _ => return false,
        };
        let runs = origins.entry(dot.origin).or_default();
        let after = seq.checked_add(1).and_then(|next| runs.remove(&next));
        runs.insert(first, after.unwrap_or(seq));
        true
    }

    /// The highest of each origin.
    pub fn tops(&self) -> BTreeMap<StreamId, Vector> {
        let top = |origins: &BTreeMap<Origin, Runs>| {
            let last = |runs: &Runs| runs.last_key_value().map(|(_, last)| *last);
            let tops = origins.iter().filter_map(|(origin, runs)| Some((*origin, last(runs)?)));
            Vector(tops.collect())
        };
        self.0.iter().map(|(stream, origins)| (stream.clone(), top(origins))).collect()
    }

    /// How many of a stream's are beyond what is here.
    pub fn beyond(&self, stream: &StreamId, here: &Vector) -> u64 {
        let beyond = |(origin, runs): (&Origin, &Runs)| {
            let here = here.get(*origin);
            let left = runs
                .iter()
                .map(|(first, last)| last.saturating_sub(first.saturating_sub(1).max(here)));
            left.fold(0, u64::saturating_add)
        };
        let origins = self.0.get(stream).into_iter().flatten();
        origins.map(beyond).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::{Id, NodeId};

    const ORIGIN: Origin = Origin { node: NodeId([1; 16]), epoch: 1 };

    fn noted(seqs: &[u64], room: &mut Room) -> (Came, Vec<bool>) {
        let (mut came, stream) = (Came::default(), StreamId::new(Id([7; 16]), "content"));
        let fit = |seq: &u64| came.note(&stream, Dot { origin: ORIGIN, seq: *seq }, room);
        let fit = seqs.iter().map(fit).collect();
        (came, fit)
    }

    #[test]
    fn what_came_is_counted_once_and_what_did_not_is_not() {
        let stream = StreamId::new(Id([7; 16]), "content");
        let (came, _) = noted(&[5, 6, 9, 7, 6, 2, 8, 12, u64::MAX], &mut Room::default());
        let beyond = |seq| came.beyond(&stream, &Vector([(ORIGIN, seq)].into()));
        assert_eq!(came.beyond(&stream, &Vector::default()), 8);
        assert_eq!([2, 4, 7, 9, 12, u64::MAX].map(beyond), [7, 7, 4, 2, 1, 0]);
        assert_eq!(came.tops()[&stream], Vector([(ORIGIN, u64::MAX)].into()));
        assert_eq!(came.0[&stream][&ORIGIN].len(), 4);
    }

    #[test]
    fn a_row_of_numbers_takes_room_once_and_gaps_take_more() {
        let stream = StreamId::new(Id([7; 16]), "content").bytes();
        let one = size_of::<(Origin, u64)>();
        let mut room = Room::of(stream + Vector::default().bytes() + 2 * one);
        let (_, fit) = noted(&[1, 2, 3, 5, 6, 4, 8, 2], &mut room);
        assert_eq!(fit, [true, true, true, true, true, true, false, true]);
    }
}
