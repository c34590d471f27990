//! Looking into parcels and taking those that bring a file that this node asks for, within what it has room for.

use super::{damage, failed};
use crate::blob::carried::{self, Files as _};
use crate::bucket::round::{MAX_OPEN, Open, Round, STRANGER, open};
use crate::bucket::trouble::{Result, Trouble};
use crate::bucket::visitor::Visitor;
use crate::bucket::watch::MAX_TOLD;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::{Carries, codec};
use atoll_sync::bucket::{About, Asker, BundleName, Has, ObjectName, Parcel, wanted_parcels};
use atoll_sync::bundle::{self, Landing, Share};
use std::collections::{BTreeMap, BTreeSet};

/// As much of a parcel as tells what it holds.
const PEEK_BYTES: u64 = 256 << 10;
/// A parcel is some 4 MiB.
const MAX_BYTES: u64 = 8 << 20;

/// Files of which a part is here and that parcels bring more of. Of those that fit the quota only one by one, one goes on.
struct Begun<'b> {
    blobs: &'b Blobs,
    files: BTreeMap<BlobId, u64>,
}

impl Begun<'_> {
    /// What others take that are to be whole before this one, those left out that are counted already.
    fn beside(&self, id: &BlobId, counted: &BTreeSet<BlobId>) -> u64 {
        let is_begun = self.files.contains_key(id);
        let others = self.files.iter().filter(|(other, _)| {
            *other != id && !(is_begun && *other > id) && !counted.contains(other)
        });
        let unfinished = others.filter(|(other, _)| self.blobs.path(other).is_none());
        unfinished.map(|(_, size_bytes)| size_bytes).sum()
    }
}

fn is_missing(blobs: &Blobs, share: &Share) -> Result<bool> {
    if blobs.path(&share.blob).is_some() {
        return Ok(false);
    }
    let missing = blobs.partial_missing(&share.blob).map_err(broken)?;
    Ok(missing.is_none_or(|(_, missing)| {
        missing.iter().any(|run| run.first < share.run.end() && share.run.first < run.end())
    }))
}

impl<'a, V: Visitor> Round<'a, V> {
    /// Looks into parcels that are new here. `known` tells of the others.
    pub(in crate::bucket) fn look_at_parcels(
        &mut self,
        known: &BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        for (name, size_bytes) in self.listing.parcels.clone() {
            let object = ObjectName::Parcel(name);
            if !self.knows(name.node) {
                self.tell_refused(&object.to_string(), STRANGER);
                continue;
            }
            let is_of_now = |about: &About| match about {
                About::Refused { size_bytes: then, .. } => *then == size_bytes,
                _ => true,
            };
            let about = known.get(&object.to_string());
            let about = about.and_then(|bytes| codec::decode(bytes).ok());
            let about = match about.filter(is_of_now) {
                Some(about) => Some(about),
                None => self.look_into_parcel(name, size_bytes)?,
            };
            match about {
                Some(About::Parcel { readers, contents }) => {
                    self.parcels.insert(name, Parcel { name, readers, contents, size_bytes });
                }
                Some(About::Refused { why, .. }) => {
                    self.damaged.insert(name);
                    self.tell_refused(&object.to_string(), &why);
                }
                Some(About::Closed | About::Bundle { .. }) | None => {}
            }
        }
        Ok(())
    }

    /// None if it cannot be told now.
    fn look_into_parcel(&mut self, name: BundleName, size_bytes: u64) -> Result<Option<About>> {
        let object = ObjectName::Parcel(name);
        let Some(file) = self.fetch(object, size_bytes.min(PEEK_BYTES))? else { return Ok(None) };
        let read = open(name.node, file).and_then(|mut volume| {
            volume.unlock(&self.key)?;
            let (readers, contents) = (volume.head().readers(), volume.contents()?);
            if size_bytes <= PEEK_BYTES && contents.is_some() && self.here.len() < MAX_OPEN {
                self.here.insert(name, volume);
            }
            Ok((readers, contents))
        });
        let about = match read {
            Ok((readers, Some(contents))) => About::Parcel { readers, contents },
            Ok((_, None)) => damage("its beginning is damaged", size_bytes),
            Err(bundle::Error::NotForMe { .. }) => About::Closed,
            Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
            Err(bundle::Error::NoBundle) => damage("it is no bundle, or damaged", size_bytes),
            // Looked into anew each time: this node may be another release by then.
            Err(error) => {
                self.tell_refused(&object.to_string(), &error.to_string());
                return Ok(None);
            }
        };
        self.note(&object.to_string(), &about)?;
        Ok(Some(about))
    }

    pub(in crate::bucket) fn take_parcels(&mut self) -> Result<()> {
        let Some(files) = self.files.filter(|_| !self.parcels.is_empty()) else {
            return Ok(());
        };
        let me = Asker {
            node: self.me(),
            has: Has::new(),
            carries: Carries::everything(),
            lacks: self.my_lacks()?,
            refused: self.damaged.clone(),
            strangers: BTreeSet::new(),
        };
        let asked: BTreeSet<BlobId> = me.lacks.iter().map(|lack| lack.blob).collect();
        let wanted = wanted_parcels(&me, self.parcels.values());
        let mut begun = self.begun(files.blobs(), &wanted, &asked)?;
        let mut left_bytes = self.visitor.sizes().visit_bytes;
        for name in wanted {
            let Some(parcel) = self.parcels.get(&name).cloned() else { continue };
            let mut coming: Vec<Share> = parcel.contents.shares.clone();
            coming.retain(|share| asked.contains(&share.blob));
            if !self.has_room_for_any(files, &coming, &begun)? {
                continue;
            }
            if parcel.size_bytes > left_bytes {
                break;
            }
            left_bytes -= parcel.size_bytes;
            self.take_parcel(files, &parcel, &coming, &mut begun)?;
        }
        Ok(())
    }

    fn begun(
        &self,
        blobs: &'a Blobs,
        wanted: &[BundleName],
        asked: &BTreeSet<BlobId>,
    ) -> Result<Begun<'a>> {
        let mut files = BTreeMap::new();
        let shares = wanted.iter().filter_map(|name| self.parcels.get(name));
        for share in shares.flat_map(|parcel| &parcel.contents.shares) {
            if asked.contains(&share.blob)
                && blobs.partial_size(&share.blob).map_err(broken)?.is_some()
            {
                files.insert(share.blob, share.size_bytes);
            }
        }
        Ok(Begun { blobs, files })
    }

    /// Whether anything of it is missing here still and is taken; what is not is told.
    fn has_room_for_any(
        &mut self,
        files: &V::Files,
        coming: &[Share],
        begun: &Begun<'_>,
    ) -> Result<bool> {
        for share in coming {
            if !is_missing(begun.blobs, share)? {
                continue;
            }
            let beside_bytes = begun.beside(&share.blob, &BTreeSet::new());
            match carried::admit(files, &share.blob, share.size_bytes, beside_bytes) {
                Ok(()) => return Ok(true),
                Err(why) => self.tell_left_out(share.blob, &why),
            }
        }
        Ok(false)
    }

    fn tell_left_out(&mut self, blob: BlobId, why: &str) {
        let told = (blob.to_string(), why.to_owned());
        let left_out = &mut self.found.files_left_out;
        if left_out.len() < MAX_TOLD && !left_out.contains(&told) {
            left_out.push(told);
        }
    }

    fn take_parcel(
        &mut self,
        files: &V::Files,
        parcel: &Parcel,
        coming: &[Share],
        begun: &mut Begun<'_>,
    ) -> Result<()> {
        let Some(opened) = self.open_parcel(parcel)? else { return Ok(()) };
        let volume = match opened {
            Ok(volume) => volume,
            Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
            Err(error) => return self.refuse_parcel(parcel, &error.to_string()),
        };
        let mut admitted = BTreeSet::new();
        let mut left_out = Vec::new();
        let mut admit = |blob: &BlobId, size_bytes, coming_bytes: u64| {
            // It came for somebody else.
            if !coming.iter().any(|share| share.blob == *blob) {
                return Err(String::new());
            }
            let beside_bytes = coming_bytes.saturating_add(begun.beside(blob, &admitted));
            let is_let = carried::admit(files, blob, size_bytes, beside_bytes);
            match &is_let {
                Ok(()) => admitted.extend([*blob]),
                Err(why) => left_out.push((*blob, why.clone())),
            }
            is_let
        };
        let mut landing = Landing::new(files.blobs(), &mut admit);
        let report = bundle::import(None, Some(&mut landing), vec![volume], |_, _| {});
        let came = landing.came().to_vec();
        let is_full = landing.is_full();
        drop(landing);
        carried::note_here(files, &came).map_err(failed)?;
        self.found.files_taken += came.len() as u64;
        let unfinished = coming.iter().filter(|share| admitted.contains(&share.blob));
        begun.files.extend(unfinished.map(|share| (share.blob, share.size_bytes)));
        if is_full {
            files.look_for_room();
        }
        let report = report.map_err(Trouble::of_bundle)?;
        let failed = report.blobs_left_out.into_iter().filter(|left| !left.why.is_empty());
        left_out.extend(failed.map(|left| (left.blob, left.why)));
        for (blob, why) in &left_out {
            self.tell_left_out(*blob, why);
        }
        if let Some(damage) = report.damaged.first() {
            return self.refuse_parcel(parcel, &damage.why);
        }
        let is_taken = |share: &&Share| !left_out.iter().any(|(blob, _)| *blob == share.blob);
        for share in coming.iter().filter(is_taken) {
            if is_missing(begun.blobs, share)? {
                return self.refuse_parcel(parcel, "it does not bring what it says");
            }
        }
        Ok(())
    }

    /// None if it went meanwhile.
    fn open_parcel(&mut self, parcel: &Parcel) -> Result<Option<Result<Open, bundle::Error>>> {
        if let Some(volume) = self.here.remove(&parcel.name) {
            return Ok(Some(Ok(volume)));
        }
        let object = ObjectName::Parcel(parcel.name);
        let Some(file) = self.fetch(object, parcel.size_bytes.min(MAX_BYTES))? else {
            return Ok(None);
        };
        Ok(Some(open(parcel.name.node, file).and_then(|mut volume| {
            volume.unlock(&self.key)?;
            Ok(volume)
        })))
    }

    /// Its maker hears of it by the next want.
    fn refuse_parcel(&mut self, parcel: &Parcel, why: &str) -> Result<()> {
        let object = ObjectName::Parcel(parcel.name).to_string();
        tracing::warn!(bucket = %self.bucket.name, object, why, "files in a bucket cannot be used");
        self.note(&object, &damage(why, parcel.size_bytes))?;
        self.damaged.insert(parcel.name);
        self.tell_refused(&object, why);
        Ok(())
    }
}

fn broken(error: atoll_storage::blob::Error) -> Trouble {
    Trouble::of_bundle(error.into())
}
