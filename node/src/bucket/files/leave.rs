//! Leaving files that others ask for, and those that go with records that they have yet to hear of; and clearing them away.

use crate::blob::Files as _;
use crate::bucket::leave::One;
use crate::bucket::round::Round;
use crate::bucket::trouble::{Result, Trouble};
use crate::bucket::visitor::{Base, Sizes, Visitor};
use atoll_storage::blob::BlobId;
use atoll_storage::{NodeId, StreamId, codec, reference};
use atoll_sync::bucket::{
    About, Asker, BundleName, Has, MAX_OBJECTS, ObjectName, Parcel, foreseen, obsolete_parcels,
    parcels,
};
use atoll_sync::bundle::{self, Contents, MAX_LACKS, Share, Tells};
use std::collections::BTreeSet;

/// Beside so many objects no more parcels are left: ops need their place.
const FULL_FROM_OBJECTS: usize = MAX_OBJECTS / 2;
/// Vectors in one parcel. Files that would need more wait until they are asked for.
const MAX_NAMED_BYTES: usize = 64 << 10;

impl<V: Visitor> Round<'_, V> {
    /// Notes files of records that go into a bundle, so that they can go along.
    pub(in crate::bucket) fn note_named(&mut self, blobs: BTreeSet<BlobId>) -> Result<()> {
        for blob in blobs {
            if self.named.len() == MAX_LACKS {
                break;
            }
            let streams = self.base.read(|reader| reference::streams_of(reader, &blob))?;
            self.named.insert(blob, streams);
        }
        Ok(())
    }

    pub(in crate::bucket) fn leave_parcels(&mut self, mine: &Has) -> Result<()> {
        let mut askers = self.askers();
        self.clear_parcels(&askers)?;
        let Some(files) = self.files else { return Ok(()) };
        let Sizes { files_bytes, visit_bytes, .. } = self.visitor.sizes();
        let known = self.listing.parcels.iter().filter(|(name, _)| self.knows(name.node));
        let there_bytes = known.map(|(_, size_bytes)| size_bytes).sum();
        let room_bytes = files_bytes.saturating_sub(there_bytes).min(visit_bytes);
        let room_objects = FULL_FROM_OBJECTS.saturating_sub(self.listing.objects);
        if room_bytes > 0 && room_objects > 0 && !askers.is_empty() {
            // If there is not room for all, another one comes first each time.
            let first = self.visitor.random() as usize % askers.len();
            askers.rotate_left(first);
            let named = self.named_at(mine);
            let news = match &named {
                Some(_) => {
                    let eager_bytes = files.settings().eager_bytes;
                    foreseen(&askers, mine, &self.named, eager_bytes)
                }
                None => vec![],
            };
            askers.extend(news);
            let all = self.to_leave(files, &askers, room_bytes);
            for shares in all.into_iter().take(room_objects) {
                let is_news = shares.iter().any(|share| self.named.contains_key(&share.blob));
                let named_at = named.iter().flatten().filter(|_| is_news).cloned().collect();
                self.leave_parcel(files, Contents { shares, named_at })?;
            }
        }
        self.found.parcels = self.listing.parcels.len() as u64;
        Ok(())
    }

    /// How far the streams are of records that were left in this round and name files; none if that is too long to tell.
    fn named_at(&self, mine: &Has) -> Option<bundle::Want> {
        let streams: BTreeSet<&StreamId> = self.named.values().flatten().collect();
        let at = |stream: &StreamId| Some((stream.clone(), mine.get(stream)?.clone()));
        let all: bundle::Want = streams.into_iter().filter_map(at).collect();
        (codec::encode(&all).len() <= MAX_NAMED_BYTES).then_some(all)
    }

    fn to_leave(&self, files: &V::Files, askers: &[Asker], room_bytes: u64) -> Vec<Vec<Share>> {
        let there: Vec<Parcel> = self.parcels.values().cloned().collect();
        let size_of = |blob: &BlobId| {
            let is_named = self.base.read(|reader| reference::is_named(reader, blob));
            let is_named = is_named.unwrap_or_default();
            files.blobs().size_bytes(blob).ok().flatten().filter(|_| is_named)
        };
        parcels(askers, &there, size_of, room_bytes)
    }

    /// Own parcels that nobody needs, or that nobody may have any more.
    fn clear_parcels(&mut self, askers: &[Asker]) -> Result<()> {
        let me = self.me();
        let there: Vec<Parcel> = self.parcels.values().cloned().collect();
        let mut gone: BTreeSet<BundleName> =
            obsolete_parcels(me, askers, &there).into_iter().collect();
        let own = |name: &&BundleName| name.node == me && self.listing.parcels.contains_key(name);
        gone.extend(self.damaged.iter().filter(own));
        for parcel in there.iter().filter(|parcel| parcel.name.node == me) {
            if self.is_for_others(parcel) || self.is_unnamed(parcel)? {
                gone.insert(parcel.name);
            }
        }
        for name in gone {
            self.remove(ObjectName::Parcel(name))?;
            let bytes = self.listing.parcels.remove(&name).unwrap_or_default();
            self.listing.size_bytes = self.listing.size_bytes.saturating_sub(bytes);
            self.parcels.remove(&name);
        }
        Ok(())
    }

    /// Whether somebody can read it who is no peer any more, or may not have all.
    fn is_for_others(&self, parcel: &Parcel) -> bool {
        let readers = parcel.readers.iter().flatten();
        readers.into_iter().any(|reader: &NodeId| !self.knows(*reader))
    }

    /// Whether it holds something of a file that no record names any more: that was erased, or replaced.
    fn is_unnamed(&self, parcel: &Parcel) -> Result<bool> {
        Ok(self.base.read(|reader| {
            for share in &parcel.contents.shares {
                if !reference::is_named(reader, &share.blob)? {
                    return Ok(true);
                }
            }
            Ok::<_, atoll_storage::Error>(false)
        })?)
    }

    fn leave_parcel(&mut self, files: &V::Files, contents: Contents) -> Result<()> {
        let name = self.new_name();
        let recipients = self.recipients();
        let readers: Option<Vec<NodeId>> =
            (!recipients.is_empty()).then(|| recipients.iter().map(|one| one.node).collect());
        let none = |_: &StreamId| false;
        let mut volume = One::default();
        let bytes = bundle::MAX_VOLUME_BYTES;
        let order = self.order(Tells::Brings, Has::new(), &none, recipients, bytes);
        let (key, blobs) = (self.visitor.key(), files.blobs());
        let contents = bundle::export_parcel(key, blobs, &order, contents, &mut volume)
            .map_err(Trouble::of_bundle)?;
        if contents.shares.is_empty() {
            return Ok(());
        }
        let object = ObjectName::Parcel(name);
        let size_bytes = self.put_one(object, volume)?;
        let about = About::Parcel { readers: readers.clone(), contents: contents.clone() };
        self.note(&object.to_string(), &about)?;
        self.parcels.insert(name, Parcel { name, readers, contents, size_bytes });
        self.found.parcels_left += 1;
        Ok(())
    }
}
