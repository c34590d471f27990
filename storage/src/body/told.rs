//! What a change did to a text, read from the change alone: it says which letters it added and how many it took away, but
//! not where, and not which. Loads no document.

use super::guarded;
use automerge::legacy::{ElementId, Key, OpId, OpType};
use automerge::{Change, ScalarValue};

/// A longer change is not told: its letters take some hundred times as much memory one by one.
const MAX_LETTERS: usize = 30_000;
/// Of a chunk's head, the place of its type; a change that is not compressed is of this one.
const TYPE_AT: usize = 8;
const PLAIN_CHANGE: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Passages, in the order in which they were written.
    pub added: Vec<String>,
    /// Letters.
    pub removed: usize,
}

/// None if that cannot be read, or is too much.
pub fn told(change: &[u8]) -> Option<Told> {
    // What is packed may unfold to anything.
    if change.get(TYPE_AT) != Some(&PLAIN_CHANGE) {
        return None;
    }
    let read = guarded(|| {
        let change = Change::from_bytes(change.to_vec()).map_err(super::failed)?;
        Ok((change.len() <= MAX_LETTERS).then(|| of(&change)))
    });
    read.ok().flatten()
}

fn of(change: &Change) -> Told {
    let expanded = change.decode();
    let mut told = Told::default();
    let mut last: Option<OpId> = None;
    for (number, op) in (expanded.start_op.get()..).zip(&expanded.operations) {
        match &op.action {
            OpType::Put(ScalarValue::Str(letter)) if op.insert => {
                let follows = match (&op.key, &last) {
                    (Key::Seq(ElementId::Id(before)), Some(last)) => before == last,
                    _ => false,
                };
                match told.added.last_mut().filter(|_| follows) {
                    Some(passage) => passage.push_str(letter),
                    None => told.added.push(letter.to_string()),
                }
                last = Some(OpId(number, expanded.actor_id.clone()));
            }
            OpType::Delete => told.removed += 1,
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::{Content, apply, edit};
    use super::*;
    use crate::id::{Dot, NodeId, Origin};

    const ORIGIN: Origin = Origin { node: NodeId([1; 16]), epoch: 1 };
    const CREATION: Dot = Dot { origin: ORIGIN, seq: 1 };

    fn change(content: &Content, wanted: &str) -> Vec<u8> {
        edit(content, CREATION, ORIGIN, 5_000, wanted).unwrap().unwrap()
    }

    #[test]
    fn a_change_tells_its_passages_and_how_much_it_took_away() {
        let born = Content::born("The quick fox\njumps over\nthe dog".into());
        let wanted = "The quick brown fox\njumps over\nthe lazy dög 🐕";
        let first = change(&born, wanted);
        let expected = ["brown ".to_owned(), "lazy dög 🐕".to_owned()];
        assert_eq!(told(&first), Some(Told { added: expected.to_vec(), removed: 3 }));
        let after = apply(&born, CREATION, &[&first]).unwrap();
        let second = change(&after, "The fox\njumps over\nthe lazy dög 🐕");
        assert_eq!(told(&second), Some(Told { added: vec![], removed: 12 }));
    }

    #[test]
    fn what_is_no_change_or_too_long_is_not_told() {
        let born = Content::born("x".into());
        let good = change(&born, "xy");
        for len in 0..good.len() {
            assert_eq!(told(&good[..len]), None);
        }
        assert_eq!(told(&change(&born, &"y".repeat(MAX_LETTERS + 10))), None);
        assert_eq!(told(&apply(&born, CREATION, &[&good]).unwrap().doc.unwrap()), None);
    }
}
