//! Leaving what others lack, and clearing away what nobody needs any more. Writes under this node's own name alone. What is
//! removed goes after what takes its place is there.

use super::round::Round;
use super::trouble::{Result, Trouble};
use super::visitor::{Base, Sizes, Visitor};
use crate::blob::Files as _;
use atoll_storage::blob::BlobId;
use atoll_storage::bucket::{Member as Kept, States};
use atoll_storage::{Carries, NodeId, Replica as _, StreamId, Vector, reference};
use atoll_sync::bucket::{
    About, BundleName, Has, Left, Member, ObjectName, merge, obsolete, publications, repairs,
};
use atoll_sync::bundle::{self, Order, Packing, Recipient, Repair, Tells, Volumes};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom};

/// A volume is sent from memory, and one that was cut off is sent again.
const VOLUME_BYTES: u64 = 4 << 20;
/// So often a node shows that it is there, though it has nothing to say.
pub(super) const SAID_EVERY_MS: u64 = 24 * 3_600_000;
const DIVERGED: &str = "equal vectors and different states of a stream: this node leaves its own for those that differ";

impl<V: Visitor> Round<'_, V> {
    pub(super) fn leave(&mut self) -> Result<()> {
        self.place.clear(self.me())?;
        self.remove_remains()?;
        let (mine, states) = self.stands()?;
        let me = self.itself(mine, &states);
        self.say(&me.has, states)?;
        self.say_lacks()?;
        let members = self.members();
        let all: Vec<Left> = self.bundles.values().cloned().collect();
        for known in publications(&me.has, &members, &all) {
            let named = self.leave_bundle(known, None)?;
            self.note_named(named)?;
        }
        for (stream, repair) in repairs(&me, &members, &all, self.visitor.now_ms()) {
            let (bucket, nodes) = (&self.bucket.name, repair.nodes.len());
            tracing::warn!(%bucket, %stream, nodes, tries = repair.tries, "{DIVERGED}");
            // Files that its records name were left with them.
            self.leave_bundle(Has::from([(stream, Vector::default())]), Some(&repair))?;
            self.found.repairs += 1;
        }
        let all: Vec<Left> = self.bundles.values().cloned().collect();
        let gone = obsolete(&me, &members, &all);
        self.remove_bundles(&gone)?;
        self.merge(&me, &members)?;
        let lost: Vec<BundleName> =
            self.damaged.iter().filter(|name| name.node == self.me()).copied().collect();
        self.remove_bundles(&lost)?;
        self.leave_parcels(&me.has)?;
        self.count();
        Ok(())
    }

    fn merge(&mut self, me: &Member, members: &[Member]) -> Result<()> {
        let left: Vec<Left> = self.bundles.values().cloned().collect();
        let Some((known, names)) = merge(me, members, &left) else { return Ok(()) };
        // Files of what was left before went along then.
        self.leave_bundle(known, None)?;
        self.found.merged += names.len() as u64;
        self.remove_bundles(&names)
    }

    /// What this node was cut off from writing, and what it said before it said something else.
    fn remove_remains(&mut self) -> Result<()> {
        let me = self.me();
        let half =
            self.listing.bundles.iter().filter(|(name, pile)| name.node == me && !pile.is_whole());
        let half: Vec<BundleName> = half.map(|(name, _)| *name).collect();
        self.remove_bundles(&half)?;
        let old: Vec<BundleName> =
            self.listing.old_wants.iter().filter(|name| name.node == me).copied().collect();
        for name in old {
            self.remove(ObjectName::Want(name))?;
        }
        let old: Vec<BundleName> =
            self.listing.old_lacks.iter().filter(|name| name.node == me).copied().collect();
        for name in old {
            self.remove(ObjectName::Lacks(name))?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, object: ObjectName) -> Result<()> {
        self.go_on()?;
        self.place.remove(&object.to_string())?;
        self.listing.objects = self.listing.objects.saturating_sub(1);
        self.found.removed += 1;
        Ok(())
    }

    fn remove_bundles(&mut self, names: &[BundleName]) -> Result<()> {
        for name in names {
            let Some(pile) = self.listing.bundles.get(name).cloned() else { continue };
            // The last one first: without it the rest is no bundle for anybody.
            let mut objects: Vec<(ObjectName, u64)> = pile.objects(*name).collect();
            objects.reverse();
            for (object, bytes) in objects {
                self.remove(object)?;
                self.listing.size_bytes = self.listing.size_bytes.saturating_sub(bytes);
            }
            self.listing.bundles.remove(name);
            self.bundles.remove(name);
        }
        Ok(())
    }

    pub(super) fn new_name(&mut self) -> BundleName {
        let me = self.me();
        let number = self.listing.next_number(me, self.visitor.now_ms());
        let random = self.visitor.random();
        BundleName { number, random, node: me }
    }

    /// Says what this node has, unless that stands there already.
    fn say(&mut self, mine: &Has, states: States) -> Result<()> {
        let me = self.me();
        let refused = self.refused_of_others();
        let now_ms = self.visitor.now_ms();
        let carries = self.base.carries();
        // Somebody else may have put a later one under this node's name.
        let there = self.listing.wants.get(&me).map(|there| ObjectName::Want(there.name));
        let is_said = self.said.get(&me).is_some_and(|said| {
            there.is_some_and(|there| there.to_string() == said.object)
                && said.has == *mine
                && said.states.as_ref() == Some(&states)
                && said.carries == *carries
                && said.refused == refused
                && now_ms.abs_diff(said.seen_ms) < SAID_EVERY_MS
        });
        if is_said {
            return Ok(());
        }
        let name = self.new_name();
        let object = ObjectName::Want(name);
        let mut volume = One::default();
        let tells = Tells::Says { refused: &refused };
        let all = |_: &StreamId| true;
        let volume_bytes = bundle::MAX_VOLUME_BYTES;
        let order = self.order(tells, Has::new(), &all, vec![], volume_bytes);
        bundle::export(&mut self.base.clone(), self.visitor.key(), &order, &mut volume, |_, _| {})
            .map_err(Trouble::of_bundle)?;
        self.go_on()?;
        let size_bytes = volume.0.len() as u64;
        self.place.put(&object.to_string(), volume.0)?;
        let before = self.said.get(&me).cloned();
        let said = Kept {
            node: me,
            name: self.visitor.name().to_owned(),
            object: object.to_string(),
            has: mine.clone(),
            states: Some(states),
            carries: Carries::clone(&carries),
            bundle_key: self.key.public(),
            refused,
            lacks: before.as_ref().map(|before| before.lacks.clone()).unwrap_or_default(),
            lacks_object: before.map(|before| before.lacks_object).unwrap_or_default(),
            seen_ms: now_ms,
        };
        self.note_said(said)?;
        self.listing.objects += 1;
        let before =
            self.listing.wants.insert(me, atoll_sync::bucket::WantObject { name, size_bytes });
        if let Some(before) = before {
            self.remove(ObjectName::Want(before.name))?;
        }
        Ok(())
    }

    pub(super) fn order<'o>(
        &'o self,
        tells: Tells<'o>,
        known: Has,
        carries: &'o dyn Fn(&StreamId) -> bool,
        recipients: Vec<Recipient>,
        volume_bytes: u64,
    ) -> Order<'o> {
        let Sizes { batch_ops, snapshot_from_ops, .. } = self.visitor.sizes();
        Order {
            known,
            carries,
            recipients,
            whole: BTreeSet::new(),
            tells,
            lacks: &[],
            files: None,
            volume_bytes,
            batch_ops,
            snapshot_from_ops,
            name: self.visitor.name(),
            now_ms: self.visitor.now_ms(),
        }
    }

    /// All peers that ever came here, and this node itself: it may need what it left.
    pub(super) fn recipients(&self) -> Vec<Recipient> {
        if self.bucket.is_open {
            return vec![];
        }
        let others =
            self.known_others().map(|said| Recipient { node: said.node, key: said.bundle_key });
        let me = Recipient { node: self.me(), key: self.key.public() };
        others.take(bundle::MAX_RECIPIENTS - 1).chain([me]).collect()
    }

    /// Of the streams that are named, what goes beyond what stands there, or, to repair it, the state of one; the files that
    /// records in it name.
    fn leave_bundle(&mut self, known: Has, repair: Option<&Repair>) -> Result<BTreeSet<BlobId>> {
        let name = self.new_name();
        let recipients = self.recipients();
        let readers: Option<Vec<NodeId>> =
            (!recipients.is_empty()).then(|| recipients.iter().map(|one| one.node).collect());
        let streams: BTreeSet<StreamId> = known.keys().cloned().collect();
        let carries = |stream: &StreamId| streams.contains(stream);
        let named = RefCell::new(BTreeSet::new());
        // Noted and not packed: files have parcels of their own.
        let note = |kind, key| {
            let of_record = self.base.read(|reader| reference::of_record(reader, kind, key));
            named.borrow_mut().extend(of_record?);
            Ok(vec![])
        };
        let tells = match repair {
            None => Tells::Brings,
            Some(Repair { nodes, tries, .. }) => Tells::Repairs { nodes, tries: *tries },
        };
        let mut order = self.order(tells, known, &carries, recipients, VOLUME_BYTES);
        order.whole = repair.map(|_| streams.clone()).unwrap_or_default();
        order.files = self.files.map(|files| Packing {
            blobs: files.blobs(),
            named_by: &note,
            asked: vec![],
            up_to_bytes: 0,
            room_bytes: &|| 0,
        });
        let mut outgoing = Outgoing { round: self, name, held: None, sent: vec![], trouble: None };
        let done = bundle::export(
            &mut self.base.clone(),
            self.visitor.key(),
            &order,
            &mut outgoing,
            |_, _| {},
        );
        let done = match (outgoing.trouble.take(), done) {
            (Some(trouble), _) => return Err(trouble),
            (None, Err(error)) => return Err(Trouble::of_bundle(error)),
            (None, Ok(done)) => done,
        };
        let sent = outgoing.finish()?;
        let named = named.into_inner();
        let size_bytes = sent.iter().map(|(_, bytes)| *bytes).sum();
        self.listing.objects += sent.len();
        self.listing.put(&sent);
        self.listing.size_bytes += size_bytes;
        let left = Left { name, readers, covers: done.covers, repair: done.repair, size_bytes };
        let Left { readers, covers, repair, .. } = left.clone();
        let taken = sent.len() as u32;
        let about = About::Bundle { readers, covers, taken, repair, waits_at: None };
        self.note(&name.to_string(), &about)?;
        self.bundles.insert(name, left);
        self.found.left += 1;
        Ok(named)
    }

    fn count(&mut self) {
        let me = self.me();
        let own = self.listing.bundles.iter().filter(|(name, _)| name.node == me);
        let own: usize = own.map(|(name, pile)| pile.objects(*name).count()).sum();
        let parcels = self.listing.parcels.keys().filter(|name| name.node == me).count();
        let said = [&self.listing.wants, &self.listing.lacks];
        let said = said.iter().filter(|said| said.contains_key(&me)).count();
        self.found.own_objects = (own + parcels + said) as u64;
        self.found.objects = self.listing.objects as u64;
        self.found.size_bytes = self.listing.size_bytes;
    }
}

/// A bundle in memory, of one volume.
#[derive(Default)]
pub(super) struct One(pub Vec<u8>);

impl Volumes for One {
    type File = Vec<u8>;

    fn begin(&mut self, _: u32) -> io::Result<Vec<u8>> {
        Ok(vec![])
    }

    fn end(&mut self, _: u32, file: Vec<u8>) -> io::Result<()> {
        self.0 = file;
        Ok(())
    }
}

/// Sends volumes as they are made. One is held back until it is known whether it is the last.
struct Outgoing<'r, 'a, V: Visitor> {
    round: &'r Round<'a, V>,
    name: BundleName,
    held: Option<(u32, File)>,
    sent: Vec<(ObjectName, u64)>,
    trouble: Option<Trouble>,
}

impl<V: Visitor> Outgoing<'_, '_, V> {
    fn send_held(&mut self, is_last: bool) -> Result<()> {
        let Some((volume, mut file)) = self.held.take() else { return Ok(()) };
        self.round.go_on()?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(|error| Trouble::here(&error))?;
        let object = ObjectName::Volume { bundle: self.name, volume, is_last };
        let size_bytes = bytes.len() as u64;
        self.round.place.put(&object.to_string(), bytes)?;
        self.sent.push((object, size_bytes));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<(ObjectName, u64)>> {
        self.send_held(true)?;
        Ok(self.sent)
    }
}

impl<V: Visitor> Volumes for Outgoing<'_, '_, V> {
    type File = BufWriter<File>;

    fn begin(&mut self, _: u32) -> io::Result<Self::File> {
        let sent = self.send_held(false).and_then(|()| self.round.visitor.scratch());
        match sent {
            Ok(file) => Ok(BufWriter::with_capacity(1 << 16, file)),
            Err(trouble) => {
                let error = io::Error::other(trouble.message.clone());
                self.trouble = Some(trouble);
                Err(error)
            }
        }
    }

    fn end(&mut self, volume: u32, file: Self::File) -> io::Result<()> {
        self.held = Some((volume, file.into_inner().map_err(io::IntoInnerError::into_error)?));
        Ok(())
    }
}
