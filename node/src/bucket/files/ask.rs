//! Who asks for which files: said in an object of its own, locked for the others.

use super::failed;
use crate::blob::carried::{self, Files as _};
use crate::bucket::leave::{One, SAID_EVERY_MS};
use crate::bucket::round::{Round, open};
use crate::bucket::trouble::{Result, Trouble};
use crate::bucket::visitor::Visitor;
use atoll_storage::bucket::Member as Kept;
use atoll_storage::{NodeId, StreamId, codec};
use atoll_sync::bucket::{Asker, Asks, BundleName, Has, ObjectName, OwnAsks, WantObject};
use atoll_sync::bundle::{self, Lack, Tells};

/// What is asked for in one object.
const MAX_BYTES: u64 = 16 << 20;

fn asks_of(said: &Kept) -> Asks {
    // None, or of another release: then it asks for nothing until it does so again.
    codec::decode(&said.lacks).unwrap_or_default()
}

/// How many files it asks for.
pub(in crate::bucket) fn asked_by(said: &Kept) -> u64 {
    asks_of(said).lacks.len() as u64
}

impl<V: Visitor> Round<'_, V> {
    /// Reads which files others ask for.
    pub(in crate::bucket) fn hear_lacks(&mut self) -> Result<()> {
        let said: Vec<Kept> = self.known_others().cloned().collect();
        for mut said in said {
            let there = self.listing.lacks.get(&said.node).copied();
            let name = there.map(|there| ObjectName::Lacks(there.name).to_string());
            let name = name.unwrap_or_default();
            if said.lacks_object == name {
                continue;
            }
            let asks = match there {
                Some(there) => self.read_lacks(there)?,
                None => Some(Asks::default()),
            };
            let Some(asks) = asks else { continue };
            (said.lacks, said.lacks_object) = (codec::encode(&asks), name);
            self.note_said(said)?;
        }
        Ok(())
    }

    /// None if it went meanwhile. What cannot be read asks for nothing; it is said anew, at the latest after a day.
    fn read_lacks(&mut self, there: WantObject) -> Result<Option<Asks>> {
        let object = ObjectName::Lacks(there.name);
        let Some(file) = self.fetch(object, there.size_bytes.min(MAX_BYTES))? else {
            return Ok(None);
        };
        let read = open(object.node(), file).and_then(|mut volume| {
            volume.unlock(&self.key)?;
            bundle::import(None, None, vec![volume], |_, _| {})
        });
        match read {
            Ok(report) if report.is_sound() => {
                return Ok(Some(Asks { lacks: report.lacks, readers: vec![] }));
            }
            Ok(_) => self.tell_refused(&object.to_string(), "it is cut off or damaged"),
            // Said before this node was here.
            Err(bundle::Error::NotForMe { .. }) => {}
            Err(bundle::Error::Io(error)) => return Err(Trouble::here(&error)),
            Err(error) => self.tell_refused(&object.to_string(), &error.to_string()),
        }
        Ok(Some(Asks::default()))
    }

    /// What this node asks for; nothing while its disk is full.
    pub(super) fn my_lacks(&self) -> Result<Vec<Lack>> {
        match self.files.filter(|files| files.look_for_room()) {
            Some(files) => carried::lacks(files).map_err(failed),
            None => Ok(vec![]),
        }
    }

    /// Says which files this node asks for, unless that stands there already.
    pub(in crate::bucket) fn say_lacks(&mut self) -> Result<()> {
        let me = self.me();
        let Some(mut said) = self.said.get(&me).cloned() else { return Ok(()) };
        let recipients = self.recipients();
        let is_alone = self.known_others().next().is_none();
        let asks = Asks {
            lacks: if is_alone { vec![] } else { self.my_lacks()? },
            readers: recipients.iter().map(|recipient| recipient.node).collect(),
        };
        self.found.files_asked = asks.lacks.len() as u64;
        let before = self.listing.lacks.get(&me).copied();
        let now_ms = self.visitor.now_ms();
        let own: OwnAsks = codec::decode(&said.lacks).unwrap_or_default();
        let is_said = before.is_some_and(|there| {
            own.asks == asks
                && ObjectName::Lacks(there.name).to_string() == said.lacks_object
                && now_ms.abs_diff(own.said_ms) < SAID_EVERY_MS
        });
        if is_said || (asks.lacks.is_empty() && before.is_none()) {
            return Ok(());
        }
        said.lacks_object = String::new();
        if !asks.lacks.is_empty() {
            let object = ObjectName::Lacks(self.new_name());
            let mut volume = One::default();
            let none = |_: &StreamId| false;
            let bytes = bundle::MAX_VOLUME_BYTES;
            let mut order = self.order(Tells::Lacks, Has::new(), &none, recipients, bytes);
            order.lacks = &asks.lacks;
            let (mut store, key) = (self.base.clone(), self.visitor.key());
            bundle::export(&mut store, key, &order, &mut volume, |_, _| {})
                .map_err(Trouble::of_bundle)?;
            self.put_one(object, volume)?;
            said.lacks_object = object.to_string();
        }
        said.lacks = codec::encode(&OwnAsks { asks, said_ms: now_ms });
        self.note_said(said)?;
        if let Some(before) = before {
            self.remove(ObjectName::Lacks(before.name))?;
            self.listing.size_bytes = self.listing.size_bytes.saturating_sub(before.size_bytes);
            if self.listing.lacks.get(&me) == Some(&before) {
                self.listing.lacks.remove(&me);
            }
        }
        Ok(())
    }

    /// Those others who are there, with what they ask for.
    pub(super) fn askers(&self) -> Vec<Asker> {
        let there = self.others().filter(|(_, is_absent)| !is_absent);
        let asker = |said: &Kept| Asker {
            node: said.node,
            has: said.has.clone(),
            carries: said.carries.clone(),
            lacks: asks_of(said).lacks,
            refused: said.refused.iter().filter_map(|name| BundleName::parse(name)).collect(),
            strangers: said.refused.iter().filter_map(|name| NodeId::parse(name)).collect(),
        };
        let askers = there.map(|(said, _)| asker(said));
        askers.filter(|asker| !asker.strangers.contains(&self.me())).collect()
    }
}
