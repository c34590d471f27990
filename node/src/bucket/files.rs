//! Files in a bucket: what members ask for, and what is foreseen that they will, is left in parcels, taken, and cleared away
//! once nobody needs it. What to leave and to clear away is decided in `atoll_sync::bucket`.

mod ask;
mod leave;
mod take;

pub(super) use ask::asked_by;

use super::leave::One;
use super::round::Round;
use super::trouble::{Obstacle, Result, Trouble};
use super::visitor::Visitor;
use crate::error::Error;
use atoll_sync::bucket::{About, Listed, ObjectName};

fn failed(error: Error) -> Trouble {
    match error {
        Error::Store(error) => error.into(),
        other => Trouble::new(Obstacle::Other, other.to_string()),
    }
}

fn damage(why: &str, size_bytes: u64) -> About {
    About::Refused { why: why.to_owned(), is_damage: true, size_bytes }
}

impl<V: Visitor> Round<'_, V> {
    /// How long it is.
    fn put_one(&mut self, object: ObjectName, volume: One) -> Result<u64> {
        self.go_on()?;
        let size_bytes = volume.0.len() as u64;
        self.place.put(&object.to_string(), volume.0)?;
        self.listing.add([Listed { name: object.to_string(), size_bytes }]);
        Ok(size_bytes)
    }
}
