//! Reading the blocks of the log one after the other, so that a damaged one is known before somebody needs it. Changes
//! nothing.

use super::{Store, lock};
use crate::error::Result;
use crate::log::block;
use std::collections::BTreeSet;

/// How far the walk is, and what it found, by the blocks' names.
#[derive(Clone, Default)]
pub(super) struct Scrub {
    next: i64,
    damaged: BTreeSet<i64>,
}

impl Store {
    /// Reads up to `most` blocks of the log, from where the last call ended; behind the last one it begins anew. How many
    /// were read.
    pub fn scrub_log(&self, most: usize) -> Result<usize> {
        let mut scrub = lock(&self.shared.scrub).clone();
        let mut read = 0;
        self.with_connection(|conn| {
            while read < most {
                let Some((name, block)) = block::next(conn, scrub.next)? else {
                    scrub.damaged = scrub.damaged.range(..scrub.next).copied().collect();
                    scrub.next = 0;
                    return Ok(());
                };
                // Those in between are there no more.
                scrub.damaged.retain(|known| !(scrub.next..=name).contains(known));
                if let Err(error) = block {
                    tracing::error!(%error, block = name, "a block of the log is damaged: verify this node");
                    scrub.damaged.insert(name);
                }
                scrub.next = name + 1;
                read += 1;
            }
            Ok(())
        })?;
        *lock(&self.shared.scrub) = scrub;
        Ok(read)
    }

    /// Blocks of the log that [`Store::scrub_log`] could not read when it last came by.
    pub fn damaged_blocks(&self) -> usize {
        lock(&self.shared.scrub).damaged.len()
    }
}
