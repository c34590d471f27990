//! One visit to a bucket: look what is there, take what brings something, leave what others lack, clear up. May end at any
//! point; the next one goes on from what it finds.

use super::place::Place;
use super::trouble::{Result, Trouble};
use super::visitor::{Base, Visitor};
use super::watch::{Found, MAX_TOLD, Seen};
use atoll_storage::blob::BlobId;
use atoll_storage::bucket::{self as kept, Bucket, Member as Kept, States, StreamState};
use atoll_storage::courier::{self, Correspondent};
use atoll_storage::tx::Tx;
use atoll_storage::{Carries, Digest, NodeId, Replica, StreamHead, StreamId, codec};
use atoll_sync::bucket::{
    About, BundleName, Has, Left, Listing, Member, ObjectName, Parcel, Pile, differing, lead,
};
use atoll_sync::bundle::{self, Brings, BundleKey, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};

/// Who says nothing new for so long is not waited for. Nothing is lost by that: what it lacks is left when it comes.
const ABSENT_MS: u64 = 30 * 24 * 3_600_000;
/// As much of a bundle as tells, nearly always, what it brings.
const PEEK_BYTES: u64 = 256 << 10;
/// Scratch files that wait to be read.
pub(super) const MAX_OPEN: usize = 64;
/// What a node has, of all streams.
const MAX_WANT_BYTES: u64 = 64 << 20;
pub(super) const MAX_OBJECT_BYTES: u64 = bundle::MAX_VOLUME_BYTES + (16 << 20);

pub(super) struct Round<'a, V: Visitor> {
    pub visitor: &'a V,
    pub base: V::Base,
    pub bucket: &'a Bucket,
    pub place: &'a dyn Place,
    /// None: without files.
    pub files: Option<&'a V::Files>,
    pub key: BundleKey,
    pub listing: Listing,
    /// Those that this node lists, with their names here.
    pub peers: BTreeMap<NodeId, String>,
    /// What each of them said last, this node among them.
    pub said: BTreeMap<NodeId, Kept>,
    /// Whole bundles that this node could look into.
    pub bundles: BTreeMap<BundleName, Left>,
    pub parcels: BTreeMap<BundleName, Parcel>,
    /// Volumes of bundles that were taken in.
    pub taken: BTreeMap<BundleName, u32>,
    /// Bundles that came whole and wait for something else, with how things stood then.
    pub waits: BTreeMap<BundleName, Digest>,
    /// Nodes that said something new since the last visit.
    pub heard: BTreeSet<NodeId>,
    /// First volumes, and parcels, that came whole when they were looked into.
    pub here: BTreeMap<BundleName, Open>,
    /// Bundles and parcels that nobody could take in as they are.
    pub damaged: BTreeSet<BundleName>,
    /// Files that records name which were left in this round, with the streams of these records.
    pub named: BTreeMap<BlobId, Vec<StreamId>>,
    pub found: Found,
}

pub(super) type Open = Volume<BufReader<File>>;

/// Opens a volume and makes sure that it is of whom its name says.
pub(super) fn open(name: NodeId, file: File) -> Result<Open, bundle::Error> {
    let volume = Volume::open(BufReader::with_capacity(1 << 16, file))?;
    if volume.head().creator.node_id() == name {
        return Ok(volume);
    }
    let head = volume.head();
    Err(bundle::Error::Stranger { name: head.name.clone(), key: head.creator })
}

/// For a thread that may wait.
pub fn run<V: Visitor>(visitor: &V, bucket: &Bucket, place: &dyn Place) -> Result<Found> {
    let base = visitor.base();
    let listing = Listing::of(place.list()?);
    let said = base.read(|reader| kept::members(reader, bucket.id))?;
    let mut round = Round {
        visitor,
        base,
        bucket,
        place,
        files: visitor.files(),
        key: BundleKey::of(visitor.key()).map_err(Trouble::of_bundle)?,
        listing,
        peers: visitor.peers()?,
        said: said.into_iter().map(|member| (member.node, member)).collect(),
        bundles: BTreeMap::new(),
        parcels: BTreeMap::new(),
        taken: BTreeMap::new(),
        waits: BTreeMap::new(),
        heard: BTreeSet::new(),
        here: BTreeMap::new(),
        damaged: BTreeSet::new(),
        named: BTreeMap::new(),
        found: Found::default(),
    };
    round.hear()?;
    round.hear_lacks()?;
    round.look()?;
    round.take()?;
    // What came may say of one that it may not have all any more.
    round.peers = visitor.peers()?;
    round.take_parcels()?;
    round.leave()?;
    round.sum_up()
}

impl<V: Visitor> Round<'_, V> {
    pub fn me(&self) -> NodeId {
        self.visitor.key().node_id()
    }

    pub fn go_on(&self) -> Result<()> {
        if self.visitor.is_stopped() { Err(Trouble::stopped()) } else { Ok(()) }
    }

    pub fn has(&mut self) -> Result<Has> {
        Ok(self.stands()?.0)
    }

    /// What is here, and how it stands.
    pub fn stands(&mut self) -> Result<(Has, States)> {
        let heads = self.base.heads(None)?.into_iter().filter(|head| !head.is_empty());
        let stand = |head: StreamHead| {
            let state = StreamState { digest: head.digest, is_ahead: head.is_ahead };
            ((head.stream.clone(), head.vector), (head.stream, state))
        };
        Ok(heads.map(stand).unzip())
    }

    /// This node as one of those who come here. Of a stream of which a part may just be coming, its state counts once it was
    /// said.
    pub fn itself(&self, has: Has, states: &States) -> Member {
        let said = self.said.get(&self.me()).and_then(|said| said.states.as_ref());
        let counts = |stream: &StreamId, state: &StreamState| {
            !state.is_ahead || said.is_some_and(|said| said.get(stream) == Some(state))
        };
        let states = states.iter().filter(|(stream, state)| counts(stream, state));
        let states = states.map(|(stream, state)| (stream.clone(), state.digest)).collect();
        let carries = Carries::clone(&self.base.carries());
        Member { node: Some(self.me()), has, states: Some(states), carries, ..Member::default() }
    }

    pub fn knows(&self, maker: NodeId) -> bool {
        maker == self.me() || self.peers.contains_key(&maker)
    }

    pub fn tell_refused(&mut self, name: &str, why: &str) {
        if self.found.refused.len() < MAX_TOLD {
            self.found.refused.push((name.to_owned(), why.to_owned()));
        }
    }

    pub fn note(&self, name: &str, about: &About) -> Result<()> {
        let (id, name, about) = (self.bucket.id, name.to_owned(), codec::encode(about));
        let note = move |tx: &mut Tx| kept::note_object(tx, id, &name, &about);
        Ok(self.base.write(note)?)
    }

    /// Brings the beginning of an object here. None if it went meanwhile.
    pub fn fetch(&self, name: ObjectName, most: u64) -> Result<Option<File>> {
        self.go_on()?;
        let mut file = self.visitor.scratch()?;
        if !self.place.get(&name.to_string(), most, &mut file)? {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| Trouble::here(&error))?;
        Ok(Some(file))
    }

    /// Reads what others said since the last visit.
    fn hear(&mut self) -> Result<()> {
        let wants: Vec<_> = self.listing.wants.values().copied().collect();
        let gone: Vec<NodeId> = self.said.keys().copied().collect();
        for node in gone.into_iter().filter(|node| !self.listing.wants.contains_key(node)) {
            self.said.remove(&node);
            let id = self.bucket.id;
            self.base.write(move |tx: &mut Tx| kept::forget_member(tx, id, node))?;
        }
        for want in wants {
            let object = ObjectName::Want(want.name);
            let node = want.name.node;
            if self.said.get(&node).is_some_and(|said| said.object == object.to_string()) {
                continue;
            }
            if !self.knows(node) {
                self.tell_refused(&object.to_string(), STRANGER);
                continue;
            }
            let Some(file) = self.fetch(object, want.size_bytes.min(MAX_WANT_BYTES))? else {
                continue;
            };
            match self.said_in(object, file)? {
                Ok(said) => {
                    self.heard.insert(node);
                    self.note_said(said)?;
                }
                // What it said before holds until it says something else.
                Err(why) => self.tell_refused(&object.to_string(), &why),
            }
        }
        Ok(())
    }

    fn said_in(&mut self, object: ObjectName, file: File) -> Result<Result<Kept, String>> {
        let volume = match open(object.node(), file) {
            Ok(volume) => volume,
            Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
            Err(error) => return Ok(Err(told(&error))),
        };
        let head = volume.head().clone();
        let report =
            bundle::import(None, None, vec![volume], |_, _| {}).map_err(Trouble::of_bundle)?;
        if !report.is_sound() {
            return Ok(Err("it is cut off or damaged".to_owned()));
        }
        let before = self.said.get(&object.node());
        let lacks = before.map(|before| (before.lacks.clone(), before.lacks_object.clone()));
        let (lacks, lacks_object) = lacks.unwrap_or_default();
        let said = Kept {
            node: object.node(),
            name: head.name.clone(),
            object: object.to_string(),
            has: report.want.unwrap_or_default().into_iter().collect(),
            states: report.states,
            carries: report.carries.unwrap_or_default(),
            bundle_key: head.reply_key,
            refused: report.refused,
            lacks,
            lacks_object,
            seen_ms: self.visitor.now_ms(),
        };
        if said.node != self.me() {
            let correspondent = Correspondent {
                node: said.node,
                has: said.has.clone(),
                carries: said.carries.clone(),
                bundle_key: said.bundle_key,
                lacks: vec![],
                made_ms: head.made_ms,
                heard_ms: said.seen_ms,
            };
            self.base.write(move |tx: &mut Tx| courier::note(tx, &correspondent))?;
        }
        Ok(Ok(said))
    }

    pub fn note_said(&mut self, said: Kept) -> Result<()> {
        let (id, noted) = (self.bucket.id, said.clone());
        self.base.write(move |tx: &mut Tx| kept::note_member(tx, id, &noted))?;
        self.said.insert(said.node, said);
        Ok(())
    }

    /// Looks into bundles that are new here, and forgets those that are gone.
    fn look(&mut self) -> Result<()> {
        let known = self.base.read(|reader| kept::objects(reader, self.bucket.id))?;
        let is_there = |name: &String| match ObjectName::parse(name) {
            Some(ObjectName::Parcel(name)) => self.listing.parcels.contains_key(&name),
            _ => {
                let name = BundleName::parse(name);
                name.is_some_and(|name| self.listing.bundles.contains_key(&name))
            }
        };
        let gone: Vec<String> = known.keys().filter(|name| !is_there(name)).cloned().collect();
        if !gone.is_empty() {
            let id = self.bucket.id;
            self.base.write(move |tx: &mut Tx| kept::forget_objects(tx, id, &gone))?;
        }
        let piles: Vec<(BundleName, Pile)> = (self.listing.bundles.iter())
            .filter(|(_, pile)| pile.is_whole())
            .map(|(name, pile)| (*name, pile.clone()))
            .collect();
        for (name, pile) in piles {
            if !self.knows(name.node) {
                self.tell_refused(&name.to_string(), STRANGER);
                continue;
            }
            let about = known.get(&name.to_string()).and_then(|bytes| codec::decode(bytes).ok());
            let is_of_now = |about: &About| match about {
                About::Refused { size_bytes, .. } => *size_bytes == pile.size_bytes(),
                _ => true,
            };
            let about = match about.filter(is_of_now) {
                Some(about) => Some(about),
                None => self.look_into(name, &pile)?,
            };
            match about {
                Some(About::Bundle { readers, covers, taken, repair, waits_at }) => {
                    self.taken.insert(name, taken);
                    self.waits.extend(waits_at.map(|at| (name, at)));
                    let size_bytes = pile.size_bytes();
                    self.bundles.insert(name, Left { name, readers, covers, repair, size_bytes });
                }
                Some(About::Refused { why, is_damage, .. }) => {
                    if is_damage {
                        self.damaged.insert(name);
                    }
                    self.tell_refused(&name.to_string(), &why);
                }
                Some(About::Closed | About::Parcel { .. }) | None => {}
            }
        }
        self.look_at_parcels(&known)
    }

    /// None if it cannot be told now.
    fn look_into(&mut self, name: BundleName, pile: &Pile) -> Result<Option<About>> {
        let Some((object, bytes)) = pile.objects(name).next() else { return Ok(None) };
        let mut most = bytes.min(PEEK_BYTES);
        loop {
            let Some(file) = self.fetch(object, most)? else { return Ok(None) };
            let read = open(name.node, file).and_then(|mut volume| {
                volume.unlock(&self.key)?;
                let (readers, brings) = (volume.head().readers(), volume.brings()?);
                if most == bytes && brings.is_some() && self.here.len() < MAX_OPEN {
                    self.here.insert(name, volume);
                }
                Ok((readers, brings))
            });
            let about = match read {
                Ok((readers, Some(Brings { covers, repair }))) => {
                    About::Bundle { readers, covers, taken: 0, repair, waits_at: None }
                }
                Ok((_, None)) if most < bytes.min(MAX_OBJECT_BYTES) => {
                    most = bytes.min(MAX_OBJECT_BYTES);
                    continue;
                }
                Ok((_, None)) => damage("its beginning is damaged", pile),
                Err(bundle::Error::NotForMe { .. }) => About::Closed,
                Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
                Err(bundle::Error::NoBundle) => damage("it is no bundle, or wholly damaged", pile),
                // Looked into anew each time: this node may be another release by then.
                Err(error) => {
                    self.tell_refused(&name.to_string(), &told(&error));
                    return Ok(None);
                }
            };
            self.note(&name.to_string(), &about)?;
            return Ok(Some(about));
        }
    }

    pub fn refuse(&mut self, name: BundleName, why: &str) -> Result<()> {
        let pile = self.listing.bundles.get(&name).cloned().unwrap_or_default();
        tracing::warn!(bucket = %self.bucket.name, object = %name, why, "a bundle in a bucket cannot be used");
        self.note(&name.to_string(), &damage(why, &pile))?;
        self.damaged.insert(name);
        self.tell_refused(&name.to_string(), why);
        Ok(())
    }

    /// Those others who are there and whom this node lists, with whom is absent.
    pub fn others(&self) -> impl Iterator<Item = (&Kept, bool)> {
        let now_ms = self.visitor.now_ms();
        let me = self.me();
        let others = self.said.values().filter(move |said| said.node != me);
        let known = others.filter(|said| self.knows(said.node));
        known.map(move |said| (said, now_ms.saturating_sub(said.seen_ms) > ABSENT_MS))
    }

    pub fn known_others(&self) -> impl Iterator<Item = &Kept> {
        self.others().map(|(said, _)| said)
    }

    /// Whom this node leaves bundles for.
    pub fn members(&self) -> Vec<Member> {
        let there = self.others().filter(|(_, is_absent)| !is_absent);
        let there = there.map(|(said, _)| self.member(said));
        let there = there.filter(|member| !member.strangers.contains(&self.me()));
        let whoever = self.bucket.is_open.then(Member::default);
        there.chain(whoever).collect()
    }

    fn member(&self, said: &Kept) -> Member {
        // Of a stream of which a part may just be coming to it, its state counts if it says nothing else the next time.
        let is_new = self.heard.contains(&said.node);
        let states = |states: &States| {
            let states = states.iter().filter(|(_, state)| !(is_new && state.is_ahead));
            states.map(|(stream, state)| (stream.clone(), state.digest)).collect()
        };
        Member {
            node: Some(said.node),
            has: said.has.clone(),
            states: said.states.as_ref().map(states),
            carries: said.carries.clone(),
            refused: said.refused.iter().filter_map(|name| BundleName::parse(name)).collect(),
            strangers: said.refused.iter().filter_map(|name| NodeId::parse(name)).collect(),
            mended: BTreeSet::new(),
        }
    }

    fn sum_up(mut self) -> Result<Found> {
        let (mine, states) = self.stands()?;
        let me = self.itself(mine, &states);
        let seen = |(said, is_absent): (&Kept, bool)| Seen {
            node: said.node,
            name: self.peers.get(&said.node).unwrap_or(&said.name).clone(),
            lacks_ops: lead(&me.has, &said.has, &said.carries),
            differs_in: differing(&me, &self.member(said)).count() as u64,
            carries: said.carries.clone(),
            lacks_files: super::files::asked_by(said),
            is_absent,
        };
        let members = self.others().map(seen).collect();
        let foreign = self.listing.foreign.iter().take(MAX_TOLD).cloned().collect();
        Ok(Found { members, foreign, ..self.found })
    }
}

pub(super) const STRANGER: &str = "it was left by a node that this one does not list as a peer, or that may not do everything here";

fn damage(why: &str, pile: &Pile) -> About {
    About::Refused { why: why.to_owned(), is_damage: true, size_bytes: pile.size_bytes() }
}

fn told(error: &bundle::Error) -> String {
    match error {
        bundle::Error::Stranger { .. } => "it stands under the name of another node".to_owned(),
        other => other.to_string(),
    }
}
