//! Taking in what brings something: the shortest way first, one volume after the other, each over a scratch file.

use super::round::{MAX_OBJECT_BYTES, Round, open};
use super::trouble::{Result, Trouble};
use super::visitor::{Base, Visitor};
use atoll_storage::{Carries, Digest, NodeId, Read as _, Replica, codec};
use atoll_sync::bucket::{About, BundleName, Has, Left, Member, Pile, wanted};
use atoll_sync::bundle;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a bundle was not taken in whole.
enum Taken {
    Whole,
    /// Its maker removed it meanwhile.
    Gone,
    /// Somebody changed what this node carries.
    OtherPart,
    /// All of it came, and what that builds on did not: its maker had a part of a snapshot and wrote upon it.
    Waits,
    Unusable(String),
}

fn raise(has: &mut Has, others: Has) {
    for (stream, vector) in others {
        has.entry(stream).or_default().merge(&vector);
    }
}

/// How the streams stand that it covers.
fn standing(left: &Left, has: &Has, carries: &Carries) -> Digest {
    let carried = left.covers.iter().filter(|cover| carries.carries(&cover.stream));
    let at: Vec<_> = carried.map(|cover| (&cover.stream, has.get(&cover.stream))).collect();
    Digest::of(&codec::encode(&at))
}

impl<V: Visitor> Round<'_, V> {
    pub(super) fn take(&mut self) -> Result<()> {
        let mut gone = BTreeSet::new();
        loop {
            // Of a stream that comes back before it is removed nothing is taken in yet.
            let leaving = self.base.read(|reader| reader.leaving())?;
            let carries = self.base.carries();
            let is_put_off = |one: &&Left| {
                let mut streams = one.covers.iter().map(|cover| &cover.stream);
                streams.any(|stream| leaving.contains(stream) && carries.carries(stream))
            };
            gone.extend(self.bundles.values().filter(is_put_off).map(|one| one.name));
            let left_out: BTreeSet<BundleName> = self.damaged.union(&gone).copied().collect();
            let (has, states) = self.stands()?;
            let (waiting, reached) = self.waiting(&has, &carries);
            let me = Member {
                carries: Carries::clone(&carries),
                refused: left_out.union(&waiting).copied().collect(),
                mended: self.mended(),
                ..self.itself(reached, &states)
            };
            let Some(next) = wanted(&me, self.bundles.values()).cloned() else {
                let is_waiting = |one: &&Left| {
                    let can = one.readers.as_ref().is_none_or(|them| them.contains(&self.me()));
                    let is_brought = one.ends_within(&has, &carries);
                    can && !left_out.contains(&one.name) && !is_brought
                };
                self.found.waiting = self.bundles.values().filter(is_waiting).count() as u64;
                return Ok(());
            };
            match self.take_bundle(&next, &carries)? {
                Taken::Whole => self.found.taken += 1,
                Taken::Gone => {
                    gone.insert(next.name);
                }
                Taken::OtherPart => {}
                Taken::Waits => self.note_waits(&next, &carries)?,
                Taken::Unusable(why) => self.refuse(next.name, &why)?,
            }
        }
    }

    fn take_bundle(&mut self, left: &Left, carries: &Arc<Carries>) -> Result<Taken> {
        let name = left.name;
        loop {
            let taken = self.taken.get(&name).copied().unwrap_or_default();
            let mut came = Has::new();
            if let Some(end) = self.take_volumes(left, taken, &mut came)? {
                return Ok(end);
            }
            let mut has = self.has()?;
            if left.ends_within(&has, carries) {
                return Ok(Taken::Whole);
            }
            if !Arc::ptr_eq(carries, &self.base.carries()) {
                return Ok(Taken::OtherPart);
            }
            if taken == 0 {
                raise(&mut has, came);
                let is_all = left.ends_within(&has, carries);
                let lacks = || Taken::Unusable("parts of it are missing".to_owned());
                return Ok(if is_all { Taken::Waits } else { lacks() });
            }
            // What an earlier visit took of it may have been dropped since.
            self.taken.remove(&name);
        }
    }

    /// All of its volumes behind the first ones; none if all went well. Notes how far what `came` goes.
    fn take_volumes(&mut self, left: &Left, taken: u32, came: &mut Has) -> Result<Option<Taken>> {
        let name = left.name;
        let pile = self.listing.bundles.get(&name).cloned();
        let Some(pile) = pile else { return Ok(Some(Taken::Gone)) };
        for (object, bytes) in pile.objects(name).skip(taken as usize) {
            let opened = match self.here.remove(&name) {
                Some(volume) => Ok(volume),
                None => {
                    let file = self.fetch(object, bytes.min(MAX_OBJECT_BYTES))?;
                    let Some(file) = file else { return Ok(Some(Taken::Gone)) };
                    open(name.node, file).and_then(|mut volume| {
                        volume.unlock(&self.key)?;
                        Ok(volume)
                    })
                }
            };
            let volume = match opened {
                Ok(volume) => volume,
                Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
                Err(error) => return Ok(Some(Taken::Unusable(error.to_string()))),
            };
            let replica: &mut dyn Replica = &mut self.base;
            let report = bundle::import(Some(replica), None, vec![volume], |_, _| {});
            let report = report.map_err(Trouble::of_bundle)?;
            if let Some(damage) = report.damaged.first() {
                let why = format!("{}, from byte {} on", damage.why, damage.from_byte);
                return Ok(Some(Taken::Unusable(why)));
            }
            raise(came, report.tops);
            self.note_taken(left)?;
        }
        Ok(None)
    }

    /// Bundles that came and wait for what has not come since; and what is here, with those counted: what builds on them can
    /// come, and may bring what they wait for.
    fn waiting(&self, has: &Has, carries: &Carries) -> (BTreeSet<BundleName>, Has) {
        let (mut names, mut reached) = (BTreeSet::new(), has.clone());
        for (name, at) in &self.waits {
            let left = self.bundles.get(name);
            if let Some(left) = left.filter(|left| standing(left, has, carries) == *at) {
                names.insert(*name);
                left.lift(&mut reached, carries);
            }
        }
        (names, reached)
    }

    fn note_waits(&mut self, left: &Left, carries: &Carries) -> Result<()> {
        let at = standing(left, &self.has()?, carries);
        self.waits.insert(left.name, at);
        let taken = self.taken.get(&left.name).copied().unwrap_or_default();
        let Left { name, readers, covers, repair, .. } = left.clone();
        let about = About::Bundle { readers, covers, taken, repair, waits_at: Some(at) };
        self.note(&name.to_string(), &about)
    }

    /// So that a bundle of many volumes goes on where it was cut off.
    fn note_taken(&mut self, left: &Left) -> Result<()> {
        let taken = self.taken.entry(left.name).or_default();
        *taken += 1;
        let Left { name, readers, covers, repair, .. } = left.clone();
        let about = About::Bundle { readers, covers, taken: *taken, repair, waits_at: None };
        self.note(&name.to_string(), &about)
    }

    /// Bundles of which every volume was taken in.
    fn mended(&self) -> BTreeSet<BundleName> {
        let piles = self.listing.bundles.iter();
        let is_taken = |(name, pile): &(&BundleName, &Pile)| {
            let taken = self.taken.get(name).copied().unwrap_or_default();
            taken as usize >= pile.objects(**name).count()
        };
        piles.filter(is_taken).map(|(name, _)| *name).collect()
    }

    /// Names of what this node could not use, for their makers; and the ids of nodes of which it takes nothing, so that
    /// others do not count on what those left.
    pub(super) fn refused_of_others(&self) -> Vec<String> {
        let of_others = |name: &&BundleName| name.node != self.me();
        let names = self.damaged.iter().filter(of_others).map(ToString::to_string);
        let said = self.listing.wants.keys().copied();
        let makers = said.chain(self.listing.bundles.keys().map(|name| name.node));
        let strangers: BTreeSet<NodeId> = makers.filter(|maker| !self.knows(*maker)).collect();
        let strangers = strangers.into_iter().map(|maker| maker.to_string());
        names.chain(strangers).take(bundle::MAX_REFUSED).collect()
    }
}
