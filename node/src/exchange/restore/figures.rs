//! Views and visitors of a post as an archive has them: what is lacking here is added. A repeat adds nothing, and nobody
//! gets below what was counted here since.

use super::{Restored, done};
use crate::access::Actor;
use crate::content::import::report::{Done, Fate};
use crate::content::post::POST;
use crate::error::{Error, Result};
use crate::insight::{POST_STATS, VIEWS, VISITORS};
use atoll_storage::Id;
use atoll_storage::read::Read as _;
use atoll_storage::tx::Tx;

/// Three digits of 16 bits and 8 bits each: a register of a sketch.
const REGISTER_BYTES: usize = 3;

/// `post`: under its key its figures stand.
pub(super) fn put(tx: &mut Tx<'_>, actor: &Actor, restored: &Restored, post: Id) -> Result<Done> {
    if restored.would_be_there(post) {
        return done(Fate::Created, post);
    }
    let is_here = tx.get(&POST, post)?.is_some_and(|post| post.tenant == actor.tenant);
    if !is_here {
        return Err(Error::NotFound("post"));
    }
    let fields = &restored.line["fields"];
    let there = tx.get(&POST_STATS, post)?;
    let counted = there.as_ref().map_or(0, |stats| stats.total(&VIEWS));
    let views = fields[VIEWS.name].as_u64().unwrap_or_default().saturating_sub(counted);
    let visitors = fields[VISITORS.name].as_str().unwrap_or_default();
    let visitors = registers_of(visitors)
        .ok_or_else(|| Error::Malformed(format!("{} is of a wrong type", VISITORS.name)))?;
    let before = there.as_ref().map(|stats| stats.version());
    tx.count_up(&POST_STATS, actor.tenant, post, &[(&VIEWS, views)], &[(&VISITORS, visitors)])?;
    let fate = match (before, tx.get(&POST_STATS, post)?.map(|stats| stats.version())) {
        (None, Some(_)) => Fate::Created,
        (before, after) if before == after => Fate::Unchanged,
        _ => Fate::Updated,
    };
    done(fate, post)
}

/// As [`super::super::line::of`] writes them.
fn registers_of(text: &str) -> Option<Vec<(u16, u8)>> {
    let bytes = super::line::unhex(text)?;
    let (registers, rest) = bytes.as_chunks::<REGISTER_BYTES>();
    let registers =
        registers.iter().map(|[high, low, rank]| (u16::from_be_bytes([*high, *low]), *rank));
    rest.is_empty().then(|| registers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_back_and_what_is_odd_is_none() {
        assert_eq!(registers_of("0001050fff02"), Some(vec![(1, 5), (0x0fff, 2)]));
        assert_eq!(registers_of(""), Some(vec![]));
        for odd in ["0", "000105 ", "00010", "xx0105", "00010501"] {
            assert_eq!(registers_of(odd), None, "{odd}");
        }
    }
}
