//! Taking in what brings something: the shortest way first, one volume after the other, each over a scratch file.

use super::round::{MAX_OBJECT_BYTES, Round, open};
use super::trouble::{Result, Trouble};
use atoll_storage::Replica;
use atoll_sync::bucket::{About, BundleName, Left, Member, wanted};
use atoll_sync::bundle;
use std::collections::BTreeSet;

/// Why a bundle was not taken in whole.
enum Taken {
    Whole,
    /// Its maker removed it meanwhile.
    Gone,
    Unusable(String),
}

impl Round<'_> {
    pub(super) fn take(&mut self) -> Result<()> {
        let mut gone = BTreeSet::new();
        loop {
            let refused = self.damaged.union(&gone).copied().collect();
            let me = Member { node: Some(self.me()), has: self.has()?, refused };
            let Some(next) = wanted(&me, self.bundles.values()).cloned() else {
                let is_waiting = |one: &&Left| {
                    let can = one.readers.as_ref().is_none_or(|them| them.contains(&self.me()));
                    can && !me.refused.contains(&one.name) && !one.ends_within(&me.has)
                };
                self.found.waiting = self.bundles.values().filter(is_waiting).count() as u64;
                return Ok(());
            };
            match self.take_bundle(&next)? {
                Taken::Whole => self.found.taken += 1,
                Taken::Gone => {
                    gone.insert(next.name);
                }
                Taken::Unusable(why) => self.refuse(next.name, &why)?,
            }
        }
    }

    fn take_bundle(&mut self, left: &Left) -> Result<Taken> {
        let name = left.name;
        let Some(pile) = self.listing.bundles.get(&name).cloned() else { return Ok(Taken::Gone) };
        let taken = self.taken.get(&name).copied().unwrap_or_default();
        for (object, bytes) in pile.objects(name).skip(taken as usize) {
            let opened = match self.here.remove(&name) {
                Some(volume) => Ok(volume),
                None => {
                    let file = self.fetch(object, bytes.min(MAX_OBJECT_BYTES))?;
                    let Some(file) = file else { return Ok(Taken::Gone) };
                    open(name.node, file).and_then(|mut volume| {
                        volume.unlock(&self.key)?;
                        Ok(volume)
                    })
                }
            };
            let volume = match opened {
                Ok(volume) => volume,
                Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
                Err(error) => return Ok(Taken::Unusable(error.to_string())),
            };
            let replica: &mut dyn Replica = &mut self.store;
            let report = bundle::import(Some(replica), None, vec![volume], |_, _| {});
            let report = report.map_err(Trouble::of_bundle)?;
            if let Some(damage) = report.damaged.first() {
                let why = format!("{}, from byte {} on", damage.why, damage.from_byte);
                return Ok(Taken::Unusable(why));
            }
            self.note_taken(left)?;
        }
        let has = self.has()?;
        if left.ends_within(&has) {
            return Ok(Taken::Whole);
        }
        Ok(Taken::Unusable("parts of it are missing".to_owned()))
    }

    /// So that a bundle of many volumes goes on where it was cut off.
    fn note_taken(&mut self, left: &Left) -> Result<()> {
        let taken = self.taken.entry(left.name).or_default();
        *taken += 1;
        let (readers, covers, taken) = (left.readers.clone(), left.covers.clone(), *taken);
        self.note(&left.name.to_string(), &About::Bundle { readers, covers, taken })
    }

    /// Names of what this node could not use, for their makers.
    pub(super) fn refused_of_others(&self) -> Vec<String> {
        let of_others = |name: &&BundleName| name.node != self.me();
        let names = self.damaged.iter().filter(of_others).map(ToString::to_string);
        names.take(bundle::MAX_REFUSED).collect()
    }
}
