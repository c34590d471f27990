//! Feeds that were made already. One is good until the next commit; all together take bounded room.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAX_BYTES: usize = 16 << 20;
const MAX_FEEDS: usize = 200;

/// A feed or a sitemap as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub content_type: &'static str,
    pub body: Bytes,
    /// As HTTP writes it.
    pub modified: String,
}

struct Row {
    name: String,
    commit: u64,
    made: Made,
}

#[derive(Default)]
pub(crate) struct Kept(Mutex<VecDeque<Row>>);

impl Kept {
    pub(super) fn get(&self, name: &str, commit: u64) -> Option<Made> {
        let rows = self.lock();
        let row = rows.iter().find(|row| row.name == name && row.commit == commit)?;
        Some(row.made.clone())
    }

    pub(super) fn put(&self, name: String, commit: u64, made: Made) {
        if made.body.len() > MAX_BYTES / 2 {
            return;
        }
        let mut rows = self.lock();
        rows.retain(|row| row.name != name);
        rows.push_back(Row { name, commit, made });
        let size = |rows: &VecDeque<Row>| rows.iter().map(|row| row.made.body.len()).sum::<usize>();
        while rows.len() > MAX_FEEDS || size(&rows) > MAX_BYTES {
            rows.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_good_for_one_commit_and_all_take_bounded_room() {
        let kept = Kept::default();
        let made = |size| Made {
            content_type: "text/plain",
            body: vec![0_u8; size].into(),
            modified: String::new(),
        };
        kept.put("a".into(), 1, made(10));
        assert_eq!(kept.get("a", 1), Some(made(10)));
        assert_eq!(kept.get("a", 2), None);
        for i in 0..1_000 {
            kept.put(i.to_string(), 1, made(1 << 20));
        }
        assert!(kept.lock().len() <= 16);
        assert_eq!(kept.get("a", 1), None);
        kept.put("big".into(), 1, made(MAX_BYTES));
        assert_eq!(kept.get("big", 1), None);
    }
}
